/*
 * A quick first look at many codes for many queries: which rows may reach a floor, told by upper bounds of their ranks in
 * f32, a little looser than vk_code_bounds() and as certain. Nearly every row fails here, and only those that pass get their
 * exact bounds.
 *
 * What depends on rows alone is laid out in columns once and serves all queries. Any thread; nothing allocates.
 */
#ifndef VK_SIMD_CODE_SCREEN_H
#define VK_SIMD_CODE_SCREEN_H

#include "simd/code.h"

#define VK_SCREEN_ROWS 256

struct vk_code_columns {
	size_t n;
	float lo[VK_SCREEN_ROWS], step[VK_SCREEN_ROWS], err[VK_SCREEN_ROWS], norm[VK_SCREEN_ROWS], plus[VK_SCREEN_ROWS];
	float longest; /* norm; infinite when a row is beyond what f32 can say */
};

/* Appends n rows under DOT, COSINE (inv_norm given) or L2; at most VK_SCREEN_ROWS in all. c->n = 0 starts anew. */
void vk_code_columns(enum vk_metric m, const struct vk_code_head *head, const float *inv_norm, size_t n, size_t dims,
		     struct vk_code_columns *c);
/* Of all rows in c, those whose rank may be `floor` or more, as indexes into idx, ascending; how many. dot: code_dot of
 * each. All of them where f32 cannot tell: norms beyond 1e-18 .. 1e17, no floor. */
size_t vk_code_screen(enum vk_cpu_level level, enum vk_metric m, const struct vk_code_query *cq,
		      const struct vk_code_columns *c, const int32_t *dot, float floor, uint32_t *idx);

#endif
