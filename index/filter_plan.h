/*
 * Inside the planner: what an index says about one condition, as bitmaps and as counts. Both sides agree on
 * what is certain: low is in the answer, what is not in high is not.
 */
#ifndef VK_INDEX_FILTER_PLAN_H
#define VK_INDEX_FILTER_PLAN_H

#include "index/filter_tree.h"

struct vk_span {
	struct vk_bitmap *low;	/* NULL: nothing is certain to match; owned */
	struct vk_bitmap *high; /* NULL: everything may match; owned. == low: exact, one object */
};
void vk_span_free(struct vk_span *s);

/* What index conditions cannot say becomes {NULL, NULL}. live: all points that there are. */
enum vk_status vk_plan_cond(struct vk_view *v, const struct vk_bitmap *live, const struct vk_cond *c,
			    struct vk_span *out);
/* A ready index on the condition's key, or NULL. */
const struct vk_field_conf *vk_plan_field(const struct vk_view *v, const struct vk_cond *c);
/* Counts instead of bitmaps, among n live points; `excess` points of the indexes are not live any more. */
enum vk_status vk_estimate_cond(struct vk_view *v, const struct vk_cond *c, uint64_t n, uint64_t excess,
				struct vk_cardinality *out);
enum vk_status vk_estimate_filter(struct vk_view *v, const struct vk_filter *f, uint64_t n, uint64_t excess,
				  struct vk_cardinality *out);

#endif
