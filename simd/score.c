/* Which table serves a level, and what a metric makes of a raw score. */
#include "simd/score.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "simd/score_levels.h"
#include "simd/vec.h"

const struct vk_kernels *vk_kernels(enum vk_cpu_level level)
{
	enum vk_cpu_level best = vk_cpu_best(); /* levels ascend; NEON and AVX never meet on one machine */
	if (level > best) level = best;
#if defined(__x86_64__)
	if (level == VK_CPU_AVX512) return &vk_kernels_avx512;
	if (level == VK_CPU_AVX2) return &vk_kernels_avx2;
#elif defined(__aarch64__)
	if (level == VK_CPU_NEON) return &vk_kernels_neon;
#endif
	return &vk_kernels_scalar;
}

int vk_metric_kind(enum vk_metric m)
{
	static const int kind[VK_METRICS] = {
		[VK_METRIC_DOT] = KIND_DOT, [VK_METRIC_COSINE] = KIND_DOT,     [VK_METRIC_L2] = KIND_L2,
		[VK_METRIC_L1] = KIND_L1,   [VK_METRIC_HAMMING] = KIND_HAMMING,
	};
	return kind[m];
}

size_t vk_row_bytes(enum vk_dtype t, size_t dims)
{
	static const size_t bits[VK_DTYPES] = {
		[VK_DTYPE_F32] = 32, [VK_DTYPE_F16] = 16, [VK_DTYPE_U8] = 8, [VK_DTYPE_I8] = 8, [VK_DTYPE_BITS] = 1,
	};
	return (dims * bits[t] + 7) / 8;
}

float vk_score_of_rank(enum vk_metric m, float rank)
{
	if (vk_metric_bigger_is_nearer(m)) return rank;
	return m == VK_METRIC_L2 ? sqrtf(-rank) : -rank;
}

/* The greatest squared distance whose root, as f32, is at most t: near t * t, but several
 * squares share a root and t * t is rounded, so the last steps are tried out. */
static float greatest_square(float t)
{
	if (isinf(t)) return INFINITY;
	double square = (double)t * t;
	float raw = square >= (double)FLT_MAX ? FLT_MAX : (float)square;
	while (raw > 0 && sqrtf(raw) > t) raw = nextafterf(raw, 0);
	while (raw < FLT_MAX && sqrtf(nextafterf(raw, INFINITY)) <= t) raw = nextafterf(raw, INFINITY);
	return raw;
}

float vk_rank_of_threshold(enum vk_metric m, float threshold)
{
	if (vk_metric_bigger_is_nearer(m) || isnan(threshold)) return threshold;
	if (threshold < 0) return INFINITY; /* no distance is that small */
	return m == VK_METRIC_L2 ? -greatest_square(threshold) : -threshold;
}

float vk_inverse_norm(const float *v, size_t dims)
{
	bool finite;
	double norm = vk_vec_norm(vk_cpu_best(), v, dims, &finite); /* the same bits at every level */
	if (norm == 0) return 0;
	double inverse = 1 / norm;
	return inverse > (double)FLT_MAX ? FLT_MAX : (float)inverse; /* rows of subnormals: finite at least */
}

void vk_unit(float *dst, const float *src, size_t dims)
{
	float inverse = vk_inverse_norm(src, dims);
	for (size_t i = 0; i < dims; i++) {
		float x;
		memcpy(&x, (const char *)src + i * sizeof x, sizeof x);
		x *= inverse;
		memcpy((char *)dst + i * sizeof x, &x, sizeof x);
	}
}
