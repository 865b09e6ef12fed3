/*
 * The parts of a query's run, between index/query*.c only. Lists of found points are malloc'd while they grow and move to the
 * arena when they are an answer; a list has an owner, who frees it by found_free().
 */
#ifndef VK_INDEX_QUERY_PARTS_H
#define VK_INDEX_QUERY_PARTS_H

#include "index/query.h"

struct vk_found_list {
	struct vk_found *p;
	size_t n, cap;
};
/* False: no memory. */
bool vk_found_add(struct vk_found_list *l, const struct vk_found *f);
void vk_found_free(struct vk_found_list *l);
/* Drops the first `offset`, keeps at most `limit`. */
void vk_found_window(struct vk_found_list *l, size_t offset, size_t limit);
/* Puts runs of equals (same() of neighbours) into the order of their ids, as far as they touch the first `limit`. down: greatest id
 * first. */
enum vk_status vk_found_ties(struct vk_view *v, struct vk_found_list *l, size_t limit, bool down,
			     bool (*same)(const struct vk_found *a, const struct vk_found *b));

/* Where a walk may look: members of `in` but for a few slots (ascending). */
struct vk_scope {
	const struct vk_bitmap *in;
	const uint32_t *out;
	size_t out_n;
};
bool vk_scope_out(const struct vk_scope *s, uint32_t slot);
static inline bool vk_scope_has(const struct vk_scope *s, uint32_t slot)
{
	return vk_bitmap_has(s->in, slot) && !vk_scope_out(s, slot);
}

/* Both as one, member by member as Qdrant joins a level's filter with those above: `must` and `must_not` of both hold, but `should` of
 * both are alternatives of each other, and of two `min_should` the conditions are put together and the greater count counts. Borrows from
 * both. NULL: no memory. */
const struct vk_filter *vk_filter_join(struct vk_arena *a, const struct vk_filter *outer, const struct vk_filter *inner);

/* Do points that match f joined with any filter below match f, too? */
bool vk_filter_stays(const struct vk_filter *f);

/* The walks (query_walk.c): up to `take` points of the scope, scores 1. */
enum vk_status vk_query_scroll(struct vk_view *v, const struct vk_scope *s, struct vk_bytes from, size_t take,
			       const struct vk_query_env *env, struct vk_found_list *out);
enum vk_status vk_query_order(struct vk_view *v, const struct vk_scope *s, const struct vk_order_by *o, size_t take,
			      const struct vk_query_env *env, struct vk_found_list *out);
enum vk_status vk_query_sample(const struct vk_scope *s, uint64_t seed, size_t take, struct vk_found_list *out);

/* Fusion (query_fuse.c): of n lists into one, best first, ties by id in the first `take`. DBSF turns the lists' scores into shares. */
enum vk_status vk_query_rrf(struct vk_view *v, const struct vk_query *q, const struct vk_found_list *src, size_t n, size_t take,
			    struct vk_found_list *out);
enum vk_status vk_query_dbsf(struct vk_view *v, struct vk_found_list *src, size_t n, size_t take, struct vk_found_list *out);

/* vk_query_run() with what groups ask for beside: one more filter for all trees, another bound of limits. */
enum vk_status vk_query_run_within(struct vk_view *v, const struct vk_query *q, size_t n, const struct vk_filter *also,
				   size_t limit_max, const struct vk_query_env *env, struct vk_arena *a,
				   struct vk_query_result *out, struct vk_error *err);

#endif
