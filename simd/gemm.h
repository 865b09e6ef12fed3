/*
 * OpenBLAS behind one door: loaded by dlopen after OPENBLAS_CORETYPE and
 * OPENBLAS_NUM_THREADS=1 are set for this CPU (Debian's 0.3.21 takes newer Intel chips for
 * a Prescott and is four times too slow; DESIGN section 8). Nothing else links BLAS;
 * parallelism is the caller's, by tiles: every call here runs on the calling thread alone.
 *
 * A machine without OpenBLAS gets the built-in loop (correct, slow); vk_gemm_info() says which.
 */
#ifndef VK_SIMD_GEMM_H
#define VK_SIMD_GEMM_H

#include <stdbool.h>
#include <stddef.h>

#include "simd/cpu.h"

struct vk_gemm_info {
	bool openblas;         /* false: the built-in loop */
	const char *library;   /* file that was loaded, or "built-in" */
	const char *core_type; /* what the library says it runs as, e.g. "SkylakeX" */
	const char *config;    /* its version and build options, or "" */
};

/* Loads on first use, any thread; the environment variables are set before, so call it in
 * main() before other threads read the environment. Never fails. */
const struct vk_gemm_info *vk_gemm_init(void);

/* C[m x n] = alpha * A[m x k] * op(B) + beta * C, all row-major f32, leading dimensions in
 * elements. transpose_b: B is n x k and used transposed (weights as PyTorch stores them). */
void vk_gemm_f32(bool transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a,
		 size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc);

/* The same by the built-in loop, whatever is loaded: the fallback, and what tests compare with. */
void vk_gemm_f32_builtin(bool transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a,
			 size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc);

#endif
