/*
 * With t = inv_norm (COSINE), 2 (L2) or 1, a row's columns are t times its head's values, and its rank is at most
 *   A + B + E + M + plus,  A = lo qstep sum(s), B = step qstep dot, E = ||q|| err + qerr xnorm + slack ||q|| norm.
 * M pays for the f32 arithmetic: 12 roundings of A, B and their sums, 2^-24 each, are below 2^-20 (|A| + |B|); E's factors
 * are enlarged by 2^-20 for their own. Underneath, three things make a pair cost four multiply-adds and a compare:
 *   |A| + |B| <= ||q^|| (xnorm + 2 |lo| sqrt(d)) (Cauchy-Schwarz) and ||q^|| <= 2 ||q|| (zero is on the query's grid), so M
 *     is ||q|| times something of the row's, and is kept within the column err;
 *   the greater of xnorm and norm serves both terms, so these are one column, too;
 *   what subnormal products lose is far below 1e-37 <= ||q|| 1e-19, and is in err as well.
 * Under L2 the canonical value is within slack of q^2 + x^2 - 2 <q, x>, which is moved to the other side of the comparison
 * (l2_floor); plus = -x^2, made smaller by 2^-18, which also pays for its roundings.
 * Bounds of the numbers themselves: simd/code.c. Nothing overflows: 2 * 1e17 * 1e17 * 256 is below 1e38.
 */
#include "simd/code_screen.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LONGEST 1e17f
#define SHORTEST 1e-18f
#define MARGIN 0x1p-20f
#define LOST 1e-19f

static float greater(float a, float b)
{
	return a > b ? a : b;
}

/* Columns of a row whose head is at `at`, with factor t; its norm. */
static inline __attribute__((always_inline)) float column(bool l2, const char *at, float t, float wide, struct vk_code_columns *c,
							  size_t i)
{
	struct vk_code_head h; /* may lie unaligned in a map */
	memcpy(&h, at, sizeof h);
	c->lo[i] = h.lo * t;
	c->step[i] = h.step * t;
	c->err[i] = t * (h.err + 0x1.01p-19f * (h.xnorm + wide * fabsf(h.lo))) + LOST;
	c->norm[i] = t * (l2 ? h.xnorm : greater(h.xnorm, h.norm));
	c->plus[i] = l2 ? -h.norm * h.norm * (1 - 0x1p-18f) : 0;
	return t > LONGEST ? INFINITY : h.norm;
}

void vk_code_columns(enum vk_metric m, const struct vk_code_head *head, const float *inv_norm, size_t n, size_t dims,
		     struct vk_code_columns *c)
{
	const float wide = 2 * sqrtf((float)dims);
	const char *at = (const char *)head;
	float longest = c->n ? c->longest : 0;
	const size_t from = c->n, end = from + n;
	assert(end <= VK_SCREEN_ROWS);
	for (size_t i = from; i < end; i++, at += sizeof *head) {
		float t = 1;
		if (m == VK_METRIC_COSINE) memcpy(&t, (const char *)inv_norm + (i - from) * sizeof t, sizeof t);
		longest = greater(longest, m == VK_METRIC_L2 ? column(true, at, 2, wide, c, i) : column(false, at, t, wide, c, i));
	}
	c->longest = longest;
	c->n = end;
}

/* --- the pairs --- */

struct screen { /* what depends on the query */
	float sum, step, norm, err, floor;
};

static size_t screen_plain(const struct screen *s, const struct vk_code_columns *c, size_t from, const int32_t *dot, size_t n,
			   uint32_t *idx)
{
	for (size_t i = from; i < c->n; i++) {
		float rank = c->plus[i] + c->norm[i] * s->err + c->err[i] * s->norm + c->lo[i] * s->sum +
			     c->step[i] * (s->step * (float)dot[i]);
		if (!(rank < s->floor)) idx[n++] = (uint32_t)i; /* not a number passes */
	}
	return n;
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2,fma"))) static size_t screen_avx2(const struct screen *s, const struct vk_code_columns *c,
							       const int32_t *dot, uint32_t *idx)
{
	const __m256 sum = _mm256_set1_ps(s->sum), step = _mm256_set1_ps(s->step), norm = _mm256_set1_ps(s->norm);
	const __m256 err = _mm256_set1_ps(s->err), floor = _mm256_set1_ps(s->floor);
	size_t n = 0, i = 0;
	for (; i + 8 <= c->n; i += 8) {
		__m256 d = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(const void *)(dot + i)));
		__m256 rank = _mm256_fmadd_ps(_mm256_loadu_ps(c->norm + i), err, _mm256_loadu_ps(c->plus + i));
		rank = _mm256_fmadd_ps(_mm256_loadu_ps(c->err + i), norm, rank);
		rank = _mm256_fmadd_ps(_mm256_loadu_ps(c->lo + i), sum, rank);
		rank = _mm256_fmadd_ps(_mm256_loadu_ps(c->step + i), _mm256_mul_ps(d, step), rank);
		unsigned pass = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(rank, floor, _CMP_NLT_UQ));
		for (; pass; pass &= pass - 1) idx[n++] = (uint32_t)i + (uint32_t)__builtin_ctz(pass);
	}
	return screen_plain(s, c, i, dot, n, idx);
}

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2")))

/* Which of 16 pass, of those that `some` says are there. */
AVX512 __attribute__((always_inline)) static inline __mmask16
pass16(const struct screen *s, const struct vk_code_columns *c, const int32_t *dot, size_t i, __mmask16 some)
{
	__m512 d = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(some, dot + i));
	__m512 rank = _mm512_fmadd_ps(_mm512_loadu_ps(c->norm + i), _mm512_set1_ps(s->err), _mm512_loadu_ps(c->plus + i));
	rank = _mm512_fmadd_ps(_mm512_loadu_ps(c->err + i), _mm512_set1_ps(s->norm), rank);
	rank = _mm512_fmadd_ps(_mm512_loadu_ps(c->lo + i), _mm512_set1_ps(s->sum), rank);
	rank = _mm512_fmadd_ps(_mm512_loadu_ps(c->step + i), _mm512_mul_ps(d, _mm512_set1_ps(s->step)), rank);
	return _mm512_mask_cmp_ps_mask(some, rank, _mm512_set1_ps(s->floor), _CMP_NLT_UQ);
}

AVX512 static size_t screen_avx512(const struct screen *s, const struct vk_code_columns *c, const int32_t *dot, uint32_t *idx)
{
	size_t n = 0, i = 0;
	for (; i < c->n; i += 16) { /* columns have room for whole registers */
		__mmask16 some = c->n - i < 16 ? (__mmask16)((1u << (c->n - i)) - 1) : 0xffff;
		unsigned pass = pass16(s, c, dot, i, some);
		for (; pass; pass &= pass - 1) idx[n++] = (uint32_t)i + (uint32_t)__builtin_ctz(pass);
	}
	return n;
}
#endif

static float below(double v)
{
	float f = (float)v;
	return (double)f > v ? nextafterf(f, -INFINITY) : f;
}

/* The screen leaves ||q||^2 out: what a row must have there to reach `floor`. */
static float l2_floor(const struct vk_code_query *cq, float floor)
{
	/* canonical >= (q^2 + x^2 - 2 <q, x>) (1 - slack) - small, and canonical <= -floor is asked for; a stored norm is at
	 * most 2^-22 above the true one. */
	double q = (double)cq->norm * (1 - 0x1p-21);
	double most = (-(double)floor + 1e-37) / (1 - cq->slack_rel);
	return below(q * q - most - 0x1p-21 * (q * q + fabs(most)) - 1e-37);
}

size_t vk_code_screen(enum vk_cpu_level level, enum vk_metric m, const struct vk_code_query *cq,
		      const struct vk_code_columns *c, const int32_t *dot, float floor, uint32_t *idx)
{
	(void)level;
	if (!(floor > -INFINITY) || !(c->longest < LONGEST) || !(cq->norm < LONGEST && cq->norm > SHORTEST)) {
		for (size_t i = 0; i < c->n; i++) idx[i] = (uint32_t)i;
		return c->n;
	}
	const float norm = cq->norm * (1 + MARGIN);
	/* The canonical L2 has its slack in the floor. */
	const double slack = m == VK_METRIC_L2 ? 0 : cq->slack_rel * (double)norm;
	const struct screen s = {
	    .sum = (float)((double)cq->step * (double)cq->sum),
	    .step = cq->step,
	    .norm = norm,
	    .err = (float)((double)cq->err + slack) * (1 + MARGIN),
	    .floor = m == VK_METRIC_L2 ? l2_floor(cq, floor) : floor,
	};
#if defined(__x86_64__)
	if (level == VK_CPU_AVX512) return screen_avx512(&s, c, dot, idx);
	if (level == VK_CPU_AVX2) return screen_avx2(&s, c, dot, idx);
#endif
	return screen_plain(&s, c, 0, dot, 0, idx);
}
