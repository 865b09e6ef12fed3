/*
 * Norm, cosine and cut. Every level gives the same bits: products of two f32 are exact in f64,
 * sums run in 32 lanes (lane = i mod 32), and the lanes are folded in one fixed order by the
 * same code. A twin only fills the lanes of whole groups of 32; the rest is added to them here.
 */
#include "simd/vec.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define LANES 32

struct sums {
	double lane[LANES];
};

static double fold(const struct sums *s)
{
	double t[LANES];
	memcpy(t, s->lane, sizeof t);
	for (int half = LANES / 2; half; half /= 2)
		for (int i = 0; i < half; i++) t[i] += t[i + half];
	return t[0];
}

/* lane[i mod 32] += a[i] * b[i] for the whole groups of 32 in n; returns how many numbers. */
typedef size_t dot_fn(struct sums *s, const float *a, const float *b, size_t n);
/* dst = src / by, rounded once from f64, for whole groups of 8; returns how many. */
typedef size_t divide_fn(float *dst, const float *src, size_t n, double by);

static size_t dot_none(struct sums *s, const float *a, const float *b, size_t n)
{
	(void)s, (void)a, (void)b, (void)n;
	return 0;
}

static size_t divide_none(float *dst, const float *src, size_t n, double by)
{
	(void)dst, (void)src, (void)n, (void)by;
	return 0;
}

#if defined(__x86_64__)

__attribute__((target("avx2,fma"))) static size_t dot_avx2(struct sums *s, const float *a, const float *b,
							    size_t n)
{
	__m256d t[LANES / 4];
	size_t i = 0;
	for (int k = 0; k < LANES / 4; k++) t[k] = _mm256_setzero_pd();
	for (; n - i >= LANES; i += LANES)
		for (int k = 0; k < LANES / 4; k++) {
			__m256d x = _mm256_cvtps_pd(_mm_loadu_ps(a + i + 4 * k));
			__m256d y = _mm256_cvtps_pd(_mm_loadu_ps(b + i + 4 * k));
			t[k] = _mm256_fmadd_pd(x, y, t[k]); /* exact product: fused or not is the same */
		}
	for (int k = 0; k < LANES / 4; k++) _mm256_storeu_pd(s->lane + 4 * k, t[k]);
	return i;
}

__attribute__((target("avx2"))) static size_t divide_avx2(float *dst, const float *src, size_t n, double by)
{
	__m256d d = _mm256_set1_pd(by);
	size_t i = 0;
	for (; n - i >= 8; i += 8) {
		__m256d x = _mm256_div_pd(_mm256_cvtps_pd(_mm_loadu_ps(src + i)), d);
		__m256d y = _mm256_div_pd(_mm256_cvtps_pd(_mm_loadu_ps(src + i + 4)), d);
		_mm_storeu_ps(dst + i, _mm256_cvtpd_ps(x));
		_mm_storeu_ps(dst + i + 4, _mm256_cvtpd_ps(y));
	}
	return i;
}

__attribute__((target("avx512f"))) static size_t dot_avx512(struct sums *s, const float *a, const float *b,
							     size_t n)
{
	__m512d t[LANES / 8];
	size_t i = 0;
	for (int k = 0; k < LANES / 8; k++) t[k] = _mm512_setzero_pd();
	for (; n - i >= LANES; i += LANES)
		for (int k = 0; k < LANES / 8; k++) {
			__m512d x = _mm512_cvtps_pd(_mm256_loadu_ps(a + i + 8 * k));
			__m512d y = _mm512_cvtps_pd(_mm256_loadu_ps(b + i + 8 * k));
			t[k] = _mm512_fmadd_pd(x, y, t[k]);
		}
	for (int k = 0; k < LANES / 8; k++) _mm512_storeu_pd(s->lane + 8 * k, t[k]);
	return i;
}

__attribute__((target("avx512f"))) static size_t divide_avx512(float *dst, const float *src, size_t n,
								double by)
{
	__m512d d = _mm512_set1_pd(by);
	size_t i = 0;
	for (; n - i >= 8; i += 8)
		_mm256_storeu_ps(dst + i, _mm512_cvtpd_ps(_mm512_div_pd(
						  _mm512_cvtps_pd(_mm256_loadu_ps(src + i)), d)));
	return i;
}

#elif defined(__aarch64__)

static size_t dot_neon(struct sums *s, const float *a, const float *b, size_t n)
{
	float64x2_t t[LANES / 2];
	size_t i = 0;
	for (int k = 0; k < LANES / 2; k++) t[k] = vdupq_n_f64(0);
	for (; n - i >= LANES; i += LANES)
		for (int k = 0; k < LANES / 2; k += 2) {
			float32x4_t x = vld1q_f32(a + i + 2 * k), y = vld1q_f32(b + i + 2 * k);
			t[k] = vfmaq_f64(t[k], vcvt_f64_f32(vget_low_f32(x)), vcvt_f64_f32(vget_low_f32(y)));
			t[k + 1] = vfmaq_f64(t[k + 1], vcvt_high_f64_f32(x), vcvt_high_f64_f32(y));
		}
	for (int k = 0; k < LANES / 2; k++) vst1q_f64(s->lane + 2 * k, t[k]);
	return i;
}

#endif

static const struct {
	dot_fn *dot;
	divide_fn *divide;
} twins[VK_CPU_LEVELS] = {
	[VK_CPU_SCALAR] = {dot_none, divide_none},
#if defined(__x86_64__)
	[VK_CPU_NEON] = {dot_none, divide_none},
	[VK_CPU_AVX2] = {dot_avx2, divide_avx2},
	[VK_CPU_AVX512] = {dot_avx512, divide_avx512},
#elif defined(__aarch64__)
	[VK_CPU_NEON] = {dot_neon, divide_none},
	[VK_CPU_AVX2] = {dot_none, divide_none},
	[VK_CPU_AVX512] = {dot_none, divide_none},
#else
	[VK_CPU_NEON] = {dot_none, divide_none},
	[VK_CPU_AVX2] = {dot_none, divide_none},
	[VK_CPU_AVX512] = {dot_none, divide_none},
#endif
};

static double dot(enum vk_cpu_level level, const float *a, const float *b, size_t n)
{
	struct sums s = {0};
	/* Rows may start anywhere: the scalar rest reads by memcpy, too. */
	for (size_t i = twins[level].dot(&s, a, b, n); i < n; i++) {
		float x, y;
		memcpy(&x, (const char *)a + i * sizeof x, sizeof x);
		memcpy(&y, (const char *)b + i * sizeof y, sizeof y);
		s.lane[i % LANES] += (double)x * (double)y;
	}
	return fold(&s);
}

double vk_vec_norm(enum vk_cpu_level level, const float *v, size_t dims, bool *finite)
{
	/* No sum of squares of finite f32 reaches f64's limit, and squares of infinities and NaN
	 * cannot cancel: the sum tells. */
	double sum = dot(level, v, v, dims);
	*finite = isfinite(sum);
	return sqrt(sum);
}

double vk_vec_cosine(enum vk_cpu_level level, const float *a, const float *b, size_t dims)
{
	double aa = dot(level, a, a, dims), bb = dot(level, b, b, dims);
	if (aa == 0 || bb == 0) return 0;
	double c = dot(level, a, b, dims) / sqrt(aa * bb);
	return c > 1 ? 1 : c < -1 ? -1 : c; /* NaN stays NaN */
}

void vk_vec_cut(enum vk_cpu_level level, float *dst, const float *src, size_t dims)
{
	bool finite;
	double norm = vk_vec_norm(level, src, dims, &finite);
	if (norm == 0) norm = 1;
	for (size_t i = twins[level].divide(dst, src, dims, norm); i < dims; i++) {
		float x;
		memcpy(&x, (const char *)src + i * sizeof x, sizeof x);
		x = (float)((double)x / norm);
		memcpy((char *)dst + i * sizeof x, &x, sizeof x);
	}
}
