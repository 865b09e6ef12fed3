/* The meaning of the code kernels, in plain C; 128 * 255 * 65,536 < 2^31. */
#include "simd/code_levels.h"

static int32_t dot(const int8_t *q, const uint8_t *x, size_t dims)
{
	int32_t sum = 0;
	for (size_t i = 0; i < dims; i++) sum += q[i] * x[i];
	return sum;
}

static int32_t nibble_dot(const int8_t *q, const uint8_t *x, size_t dims)
{
	int32_t sum = 0;
	for (size_t i = 0; i < dims; i += VK_NIBBLE_DIMS, q += VK_NIBBLE_DIMS, x += VK_NIBBLE_BYTES)
		for (size_t j = 0; j < VK_NIBBLE_BYTES; j++)
			sum += q[j] * (x[j] & 15) + q[j + VK_NIBBLE_BYTES] * (x[j] >> 4);
	return sum;
}

void vk_code_dots_scalar(const int8_t *const *q, size_t nq, const uint8_t *codes, size_t stride, size_t n, size_t dims,
			 int32_t *out, size_t out_stride)
{
	for (size_t j = 0; j < nq; j++)
		for (size_t i = 0; i < n; i++) out[j * out_stride + i] = dot(q[j], codes + i * stride, dims);
}

void vk_code_dot_at_scalar(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims, int32_t *out)
{
	for (size_t i = 0; i < n; i++) out[i] = dot(q, code[i], dims);
}

void vk_nibble_dot_at_scalar(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims, int32_t *out)
{
	for (size_t i = 0; i < n; i++) out[i] = nibble_dot(q, code[i], dims);
}
