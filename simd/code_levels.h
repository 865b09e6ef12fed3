/*
 * The kernels of codes beyond code_dot, a file a level (simd/code_<level>.c). They belong to struct
 * vk_kernels (simd/score.h has their contract) and stand apart from simd/score_<level>.c because they
 * share registers in another way: tiles of queries by rows, or rows in the lanes. Internal to simd.
 */
#ifndef VK_SIMD_CODE_LEVELS_H
#define VK_SIMD_CODE_LEVELS_H

#include <stddef.h>
#include <stdint.h>

#define VK_CODE_KERNELS(level)                                                                            \
	void vk_code_dots_##level(const int8_t *const *q, size_t nq, const uint8_t *codes, size_t stride, \
				  size_t n, size_t dims, int32_t *out, size_t out_stride);                \
	void vk_code_dot_at_##level(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims,   \
				    int32_t *out);                                                        \
	void vk_nibble_dot_at_##level(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims, \
				      int32_t *out);

VK_CODE_KERNELS(scalar)
#if defined(__x86_64__)
VK_CODE_KERNELS(avx2)
VK_CODE_KERNELS(avx512)
#elif defined(__aarch64__)
VK_CODE_KERNELS(neon)
#endif

/* A block of nibbles: 64 bytes of a row, 128 of a query. */
enum { VK_NIBBLE_DIMS = 128, VK_NIBBLE_BYTES = 64 };

/* Item i of n, the last one where there is none: tiles that are not full name it several times. */
static inline size_t vk_or_last(size_t i, size_t n)
{
	return i < n ? i : n - 1;
}

#endif
