/*
 * Rows and queries as 8-bit codes, and certain bounds from them.
 *
 * What is certain, and why (u = 2^-24, v = 2^-53, g(n) = n u / (1 - n u), d dims, m = ceil(d / 32)):
 *
 * 1. <q^, x^> = qstep * (lo * sum(s) + step * dot(s, c)) holds exactly for the numbers as stored: lo,
 *    step and qstep are the f32 values that were kept, the integers are exact. In f64 lo * sum(s) is
 *    exact (24 + 24 bits), step * dot, the sum and the last product round once each: the computed est
 *    is off by at most 4 v (|A| + |B|), A and B the two terms times qstep. EST_REL takes 8 times that.
 * 2. <q, x> = <q^, x^> + <q, x - x^> + <q - q^, x^>, so Cauchy-Schwarz bounds the rest by
 *    ||q|| err + qerr xnorm. The norms are sums in f64 whose relative error is below (d + 8) v, and
 *    x - x^ carries a rounding of v |x^| a component: both are added before rounding up to f32.
 * 3. The canonical dot rounds each component's product and sum together m times in its lane and 5 times
 *    in the fold: |dot - <q, x>| <= g(m + 5) sum |q_i x_i| <= g(m + 5) ||q|| ||x||, plus 2^-150 for each
 *    fma that ends in a subnormal (additions are exact there): d 2^-150 <= SMALL.
 * 4. The canonical squared L2 rounds the difference (twice in the square), m times, 5 times; all terms
 *    are positive: (1 +- g(m + 7)) ||q - x||^2 +- SMALL. slack_rel = g(m + 7) serves both.
 * 5. All of this holds while nothing overflows. No partial sum exceeds ||q|| ||x|| (1 + g); when that is
 *    not safely below the largest f32, the bounds are infinite. A squared distance that overflows is
 *    +infinity: its rank's lower bound is minus infinity then, the upper one still holds.
 * 6. Cosine multiplies once more: rounding is monotone, so the bounds of the dot times inv_norm, widened
 *    by a rounding, hold.
 *
 * The last step widens by 2^-23 of the value and a least subnormal, twice what rounding to f32 can
 * lose. Not taken: the triangle inequality over ||q - x^||, which is tighter near the query but costs a
 * root a row, when already one row in thousands is read again.
 */
#include "simd/code.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define EST_REL 0x1p-48
#define F64_REL 0x1p-40 /* for the dozen f64 operations on the bounds themselves */
#define SMALL 0x1p-133	/* 65,536 dims times 2^-150, doubled */
#define LARGE 0x1.ffffp+127

static float load(const float *v, size_t i)
{
	float x;
	memcpy(&x, (const char *)v + i * sizeof x, sizeof x);
	return x;
}

static float rounded_up(double v)
{
	float f = (float)v;
	return (double)f < v ? nextafterf(f, INFINITY) : f;
}

/* A norm from its sum of squares in f64 over dims components, never below the true one. */
static float norm_above(double squares, size_t dims)
{
	return rounded_up(sqrt(squares) * (1 + (double)(dims + 8) * 0x1p-52));
}

/* The same for a difference from approximations of norm at most hat, themselves rounded to f64. */
static float error_above(double squares, double hat, size_t dims)
{
	return rounded_up((sqrt(squares) + hat * 0x1p-51) * (1 + (double)(dims + 8) * 0x1p-52));
}

struct squares {
	double whole[4], hat[4], error[4]; /* four lanes: independent chains */
};

static double total(const double lane[4])
{
	return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

static void add_squares(struct squares *s, size_t i, double x, double hat)
{
	s->whole[i & 3] += x * x;
	s->hat[i & 3] += hat * hat;
	s->error[i & 3] += (x - hat) * (x - hat);
}

void vk_code_row(const struct vk_kernels *k, struct vk_code_head *head, uint8_t *dst, size_t stride,
		 const float *row, size_t dims)
{
	struct squares s = {0};
	float min, max;
	k->f32_min_max(row, dims, &min, &max);
	float step = (float)(((double)max - (double)min) / 255);
	double lo = min, per_step = step > 0 ? 1 / (double)step : 0;
	uint32_t sum = 0;
	for (size_t i = 0; i < dims; i++) {
		double x = load(row, i);
		int c = (int)((x - lo) * per_step + 0.5);
		c = c > 255 ? 255 : c; /* a step that was rounded down (subnormals) */
		dst[i] = (uint8_t)c;
		sum += (uint32_t)c;
		add_squares(&s, i, x, lo + (double)step * c);
	}
	if (stride > dims) memset(dst + dims, 0, stride - dims);
	*head = (struct vk_code_head){
		.lo = min,
		.step = step,
		.norm = norm_above(total(s.whole), dims),
		.xnorm = norm_above(total(s.hat), dims),
		.err = error_above(total(s.error), sqrt(total(s.hat)), dims),
		.sum = sum,
	};
}

void vk_code_query(struct vk_code_query *cq, int8_t *dst, size_t stride, const float *q, size_t dims)
{
	struct squares s = {0};
	float most = 0;
	for (size_t i = 0; i < dims; i++) most = fmaxf(most, fabsf(load(q, i)));
	float step = most / 127;
	double per_step = step > 0 ? 1 / (double)step : 0;
	int64_t sum = 0;
	for (size_t i = 0; i < dims; i++) {
		double x = load(q, i), c = nearbyint(x * per_step);
		c = c > 127 ? 127 : c < -127 ? -127 : c;
		dst[i] = (int8_t)c;
		sum += (int64_t)c;
		add_squares(&s, i, x, (double)step * c);
	}
	if (stride > dims) memset(dst + dims, 0, stride - dims);
	double roundings = (double)((dims + 31) / 32 + 7) * 0x1p-24;
	*cq = (struct vk_code_query){
		.step = step,
		.norm = norm_above(total(s.whole), dims),
		.err = error_above(total(s.error), sqrt(total(s.hat)), dims),
		.sum = sum,
		.slack_rel = roundings / (1 - roundings) * (1 + 0x1p-30),
	};
}

struct bounds {
	double lower, upper;
};

/* fmax is a call; a NaN becomes 0. */
static inline double positive(double v)
{
	return v > 0 ? v : 0;
}

/* <q, x> in real numbers. */
static inline struct bounds product(const struct vk_code_query *cq, const struct vk_code_head *h, int32_t dot)
{
	double a = (double)h->lo * (double)cq->sum, b = (double)h->step * dot, step = cq->step;
	double est = step * (a + b);
	double off = (double)cq->norm * h->err + (double)cq->err * h->xnorm +
		     EST_REL * step * (fabs(a) + fabs(b));
	off *= 1 + F64_REL;
	if (!(off < INFINITY)) return (struct bounds){-INFINITY, INFINITY}; /* a norm beyond f32, or NaN */
	return (struct bounds){est - off, est + off};
}

static inline void outward(struct bounds b, float *lower, float *upper)
{
	*lower = (float)(b.lower - (fabs(b.lower) * 0x1p-23 + 0x1p-149));
	*upper = (float)(b.upper + (fabs(b.upper) * 0x1p-23 + 0x1p-149));
}

/* The canonical dot. */
static inline struct bounds dot_bounds(const struct vk_code_query *cq, const struct vk_code_head *h, int32_t dot)
{
	double most = (double)cq->norm * h->norm;
	if (!(most * (1 + cq->slack_rel) < LARGE)) return (struct bounds){-INFINITY, INFINITY};
	struct bounds b = product(cq, h, dot);
	double slack = cq->slack_rel * most * (1 + F64_REL) + SMALL;
	return (struct bounds){b.lower - slack, b.upper + slack};
}

/* Minus the canonical squared L2. */
static inline struct bounds l2_bounds(const struct vk_code_query *cq, const struct vk_code_head *h, int32_t dot)
{
	/* A stored norm is at most two units of f32 above the true one. */
	double q = cq->norm, x = h->norm;
	double q_least = positive(q - (q * 0x1p-22 + 0x1p-148)), x_least = positive(x - (x * 0x1p-22 + 0x1p-148));
	if (!(q <= (double)FLT_MAX && x <= (double)FLT_MAX)) return (struct bounds){-INFINITY, 0};
	struct bounds b = product(cq, h, dot);
	double off = F64_REL * (q * q + x * x);
	double most = q * q + x * x - 2 * b.lower + off;
	double least = positive(q_least * q_least + x_least * x_least - 2 * b.upper - off);
	most = most * (1 + cq->slack_rel) + SMALL;
	least = positive(least * (1 - cq->slack_rel) - SMALL);
	return (struct bounds){most < LARGE ? -most : -INFINITY, -least};
}

void vk_code_bounds(enum vk_metric m, const struct vk_code_query *cq, const struct vk_code_head *head,
		    const float *inv_norm, const int32_t *dot, size_t n, float *lower, float *upper)
{
	for (size_t i = 0; i < n; i++) {
		struct vk_code_head h; /* heads may lie unaligned in a map, too */
		struct bounds b;
		memcpy(&h, (const char *)head + i * sizeof h, sizeof h);
		b = m == VK_METRIC_L2 ? l2_bounds(cq, &h, dot[i]) : dot_bounds(cq, &h, dot[i]);
		if (m == VK_METRIC_COSINE && b.upper < INFINITY) {
			double times = load(inv_norm, i);
			b = (struct bounds){b.lower * times, b.upper * times};
		}
		outward(b, lower + i, upper + i);
	}
}
