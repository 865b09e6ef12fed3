/*
 * With t = inv_norm (COSINE), 2 (L2) or 1, a row's columns are t times its head's values, and
 *   screen = A + B + E + M + plus,  A = lo qstep sum(s), B = step qstep dot, E = ||q|| err + qerr xnorm + slack ||q|| norm,
 * M = 2^-20 (|A| + |B|) + 1e-37: A and B take at most three roundings to f32 each (conversion of dot included) and the sum two
 * more, all of them below 2^-22 of |A| + |B| + E; E's own factors are enlarged by 2^-20; 1e-37 is far above what
 * subnormal products lose. Under L2 the canonical value is within slack of q^2 + x^2 - 2 <q, x>, which is moved to the other
 * side of the comparison (vk_code_screen_floor); plus = -x^2, made smaller by 2^-18, which also pays for its roundings.
 * Bounds of the numbers themselves: simd/code.c. Norms outside 1e-18 .. 1e18 are left to vk_code_bounds().
 */
#include "simd/code_screen.h"

#include <math.h>

#define LONGEST 1e18f
#define SHORTEST 1e-18f
#define MARGIN 0x1p-20f
#define STEP 16 /* a constant number of turns, so that every compiler makes vectors of it */

void vk_code_columns(enum vk_metric m, const struct vk_code_head *head, const float *inv_norm, size_t n,
		     struct vk_code_columns *c)
{
	float longest = 0;
	for (size_t i = 0; i < n; i++) {
		float t = m == VK_METRIC_COSINE ? inv_norm[i] : m == VK_METRIC_L2 ? 2 : 1;
		c->lo[i] = head[i].lo * t;
		c->step[i] = head[i].step * t;
		c->err[i] = head[i].err * t;
		c->xnorm[i] = head[i].xnorm * t;
		c->norm[i] = m == VK_METRIC_L2 ? 0 : head[i].norm * t;
		c->plus[i] = m == VK_METRIC_L2 ? -head[i].norm * head[i].norm * (1 - 0x1p-18f) : 0;
		float norm = t > LONGEST ? INFINITY : head[i].norm;
		longest = norm > longest ? norm : longest;
	}
	c->longest = longest;
	for (size_t i = n; i % STEP; i++)
		c->lo[i] = c->step[i] = c->err[i] = c->xnorm[i] = c->norm[i] = c->plus[i] = 0;
}

static inline __attribute__((always_inline)) void screen(const struct vk_code_query *cq, const struct vk_code_columns *c,
							 const int32_t *restrict dot, size_t n, float *restrict out)
{
	const float step = cq->step, a = (float)((double)cq->step * (double)cq->sum);
	const float norm = cq->norm * (1 + MARGIN), err = cq->err * (1 + MARGIN);
	const float slack = (float)(cq->slack_rel * (double)norm) * (1 + MARGIN);
	for (size_t at = 0; at < n; at += STEP)
		for (size_t j = 0; j < STEP; j++) {
			size_t i = at + j;
			float x = c->lo[i] * a, y = c->step[i] * (step * (float)dot[i]);
			float e = c->err[i] * norm + c->xnorm[i] * err + c->norm[i] * slack;
			out[i] = (x + y) + ((fabsf(x) + fabsf(y)) * MARGIN + (e + 1e-37f)) + c->plus[i];
		}
}

static void screen_plain(const struct vk_code_query *cq, const struct vk_code_columns *c, const int32_t *dot, size_t n, float *out)
{
	screen(cq, c, dot, n, out);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void screen_avx2(const struct vk_code_query *cq, const struct vk_code_columns *c,
							     const int32_t *dot, size_t n, float *out)
{
	screen(cq, c, dot, n, out);
}

#if defined(__clang__)
#define WIDE
#else
#define WIDE ",prefer-vector-width=512"
#endif
__attribute__((target("avx512f,avx512dq,avx512vl" WIDE))) static void
screen_avx512(const struct vk_code_query *cq, const struct vk_code_columns *c, const int32_t *dot, size_t n, float *out)
{
	screen(cq, c, dot, n, out);
}
#endif

bool vk_code_screen(enum vk_cpu_level level, enum vk_metric m, const struct vk_code_query *cq,
		    const struct vk_code_columns *c, const int32_t *dot, size_t n, float *out)
{
	(void)m;
	(void)level;
	if (!(c->longest < LONGEST) || !(cq->norm < LONGEST && cq->norm > SHORTEST)) return false;
#if defined(__x86_64__)
	if (level == VK_CPU_AVX512) {
		screen_avx512(cq, c, dot, n, out);
		return true;
	}
	if (level == VK_CPU_AVX2) {
		screen_avx2(cq, c, dot, n, out);
		return true;
	}
#endif
	screen_plain(cq, c, dot, n, out);
	return true;
}

static float below(double v)
{
	float f = (float)v;
	return (double)f > v ? nextafterf(f, -INFINITY) : f;
}

float vk_code_screen_floor(enum vk_metric m, const struct vk_code_query *cq, float floor)
{
	if (m != VK_METRIC_L2 || floor == -INFINITY) return floor;
	/* canonical >= (q^2 + x^2 - 2 <q, x>) (1 - slack) - small, and canonical <= -floor is asked for; a stored norm is at
	 * most 2^-22 above the true one. */
	double q = (double)cq->norm * (1 - 0x1p-21);
	double most = (-(double)floor + 1e-37) / (1 - cq->slack_rel);
	return below(q * q - most - 0x1p-21 * (q * q + fabs(most)) - 1e-37);
}
