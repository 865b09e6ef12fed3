/*
 * The few things that the cache needs of vectors; the kernels' contract (scores, canonical
 * arithmetic, codes) comes with the search core and lives beside this file.
 * Rows may be unaligned. Any thread.
 */
#ifndef VK_SIMD_VEC_H
#define VK_SIMD_VEC_H

#include <stdbool.h>
#include <stddef.h>

#include "simd/cpu.h"

/* Euclidean norm, summed in f64. Sets *finite to whether every component is (NaN and
 * infinities make it false; the norm is then meaningless). */
double vk_vec_norm(enum vk_cpu_level level, const float *v, size_t dims, bool *finite);

/* Cosine of two rows in f64; 0 when either is the zero vector. */
double vk_vec_cosine(enum vk_cpu_level level, const float *a, const float *b, size_t dims);

/* dst = src / norm(src), cut to dims (Matryoshka): the first dims components renormalised.
 * dst may be src. A zero prefix stays zero. */
void vk_vec_cut(enum vk_cpu_level level, float *dst, const float *src, size_t dims);

#endif
