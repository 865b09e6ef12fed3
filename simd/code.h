/*
 * 8-bit codes of rows, and what can be said for certain about a row from its code alone.
 *
 * Row x is coded as u8 codes c with x^ = lo + step * c, each component rounded to nearest. Kept a row:
 * lo, step, norm = ||x||, xnorm = ||x^||, sum = sum of c, err >= ||x - x^|| (rounded up). Query q is coded
 * as signed 8 bits: q^ = qstep * s, with qerr >= ||q - q^||.
 * Then est = qstep * step * dot(s, c) + qstep * lo * sum(s) is <q^, x^> up to rounding, and
 *   |<q, x> - est| <= ||q|| * err + qerr * xnorm + slack       (Cauchy-Schwarz)
 * slack bounds the float arithmetic of est and of the canonical dot. Squared L2 follows from
 * ||q||^2 + ||x||^2 - 2 <q, x>. So a scan of codes gives bounds, and only rows whose upper bound
 * reaches the k-th best lower bound need to be read whole: the same answer as over f32, always.
 *
 * Everything here is deterministic and level-independent but for code_dot's speed.
 */
#ifndef VK_SIMD_CODE_H
#define VK_SIMD_CODE_H

#include "simd/score.h"

struct vk_code_head { /* 24 bytes, kept a row in a code block */
	float lo, step, norm, xnorm, err;
	uint32_t sum;
};

/* dst: dims codes; pads with zeros up to stride. */
void vk_code_row(const struct vk_kernels *k, struct vk_code_head *head, uint8_t *dst, size_t stride,
		 const float *row, size_t dims);

struct vk_code_query {
	float step, norm, err; /* ||q||, ||q - q^|| rounded up */
	int64_t sum;
	double slack_rel;      /* of ||q|| * ||x||: float arithmetic's share at these dims */
};
/* dst: dims signed codes padded with zeros to stride. */
void vk_code_query(struct vk_code_query *cq, int8_t *dst, size_t stride, const float *q, size_t dims);

/* From dot[i] = code_dot of row i to certain bounds of the rank under the metric (DOT, COSINE: q is
 * unit and inv_norm given; L2). lower[i] <= canonical rank <= upper[i]. */
void vk_code_bounds(enum vk_metric m, const struct vk_code_query *cq, const struct vk_code_head *head,
		    const float *inv_norm, const int32_t *dot, size_t n, float *lower, float *upper);

#endif
