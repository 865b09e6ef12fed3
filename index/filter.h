/*
 * Qdrant's filter language: parsed once into a tree, answered as a bitmap.
 *
 * Meaning first: vk_filter_match() evaluates a filter on one point's payload, id and vectors; it is the oracle.
 * vk_filter_bitmap() gives the same set for a whole view: indexed conditions are bitmaps, the rest is checked on the points
 * that are left, cheapest side first. It is always exact, so an answer always has min(limit, matches) points.
 * Depth, conditions and values are capped (below); past a cap VK_E_INVALID in Qdrant's manner.
 */
#ifndef VK_INDEX_FILTER_H
#define VK_INDEX_FILTER_H

#include "index/field.h"
#include "index/payload.h"
#include "index/view.h"

#define VK_FILTER_DEPTH_MAX 32
#define VK_FILTER_CONDITIONS_MAX 4096
#define VK_FILTER_VALUES_MAX 65536 /* of match any / except, has_id, all together */

struct vk_filter; /* immutable, in the arena of the parse; NULL matches everything */
/* v: a filter object, or NULL / null / {} (gives NULL). Names of unknown conditions are in the error. */
enum vk_status vk_filter_parse(struct vk_arena *a, const vk_jv *v, struct vk_filter **out, struct vk_error *err);

struct vk_filter_point {
	struct vk_bytes id;
	const vk_jv *payload; /* NULL: none */
	bool (*has_vector)(void *arg, struct vk_bytes name);
	void *arg;
};
bool vk_filter_match(const struct vk_filter *f, const struct vk_filter_point *p);

/* The live points that match, in a new bitmap. f NULL: all live. */
enum vk_status vk_filter_bitmap(struct vk_view *v, const struct vk_filter *f, struct vk_bitmap **out, struct vk_error *err);

/* From indexes and statistics alone, without reading payload: for plans, and for count with exact: false. */
struct vk_cardinality {
	uint64_t min, likely, max;
};
enum vk_status vk_filter_estimate(struct vk_view *v, const struct vk_filter *f, struct vk_cardinality *out);
/* True when every condition that reads payload is answered by an index (false for NULL). */
bool vk_filter_indexed(const struct vk_view *v, const struct vk_filter *f);

#endif
