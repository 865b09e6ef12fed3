/*
 * A quick first look at many codes for many queries: upper bounds of ranks in f32, a little looser than vk_code_bounds()
 * and as certain. Nearly every row fails here, and only those that pass get their exact bounds.
 *
 * What depends on rows alone is laid out in columns once a chunk and serves all queries. The screen's values are ranks, but
 * under L2, where ||q||^2 is left out: compare with vk_code_screen_floor(). Any thread; nothing allocates.
 */
#ifndef VK_SIMD_CODE_SCREEN_H
#define VK_SIMD_CODE_SCREEN_H

#include "simd/code.h"

#define VK_SCREEN_ROWS 1024

struct vk_code_columns {
	float lo[VK_SCREEN_ROWS], step[VK_SCREEN_ROWS], err[VK_SCREEN_ROWS], xnorm[VK_SCREEN_ROWS], norm[VK_SCREEN_ROWS],
	    plus[VK_SCREEN_ROWS];
	float longest; /* norm; infinite when a row is beyond what f32 can say */
};

/* n <= VK_SCREEN_ROWS rows under DOT, COSINE (inv_norm given) or L2. */
void vk_code_columns(enum vk_metric m, const struct vk_code_head *head, const float *inv_norm, size_t n,
		     struct vk_code_columns *c);
/* False: norms are too large or too small for f32; nothing is written, use vk_code_bounds(). out has room for n rounded
 * up to a multiple of 16, dot as well. */
bool vk_code_screen(enum vk_cpu_level level, enum vk_metric m, const struct vk_code_query *cq,
		    const struct vk_code_columns *c, const int32_t *dot, size_t n, float *out);
/* A row whose rank may reach `floor` has at least this on the screen. */
float vk_code_screen_floor(enum vk_metric m, const struct vk_code_query *cq, float floor);

#endif
