/*
 * The k best hits of a stream: highest rank first, equal ranks by a tie order (ids). What enters is first compared with
 * the running k-th best (`floor`) by the kernel's compare-and-compress, so nearly every row costs one comparison.
 *
 * Small k (VK_TOPK_SORTED_MAX): a sorted array, its floor exact after every push. Larger k: a buffer of about 2k that
 * is cut down to the k best by a partial selection when it is full; its floor moves then. Equal ranks at the floor always
 * enter, and the tie order is asked only where ranks are equal: it may be slow (it reads ids from the map).
 *
 * Not a number ranks like -INFINITY, so that each row has a place on every path. Memory is the caller's; one thread.
 */
#ifndef VK_INDEX_TOPK_H
#define VK_INDEX_TOPK_H

#include "index/exact.h"

#define VK_TOPK_SORTED_MAX 64

/* < 0: a comes before b. NULL where a function is wanted: by slot. */
typedef int vk_topk_tie_fn(void *arg, uint32_t a, uint32_t b);

struct vk_topk {
	struct vk_hit *hit;
	size_t n, k, cap;
	float floor; /* least rank that may still enter */
	vk_topk_tie_fn *tie;
	void *tie_arg;
};

/* How many hits of memory a selection of k wants. */
size_t vk_topk_room(size_t k);
/* hit: vk_topk_room(k) of them; floor: least rank wanted, -INFINITY for all. */
void vk_topk_init(struct vk_topk *t, struct vk_hit *hit, size_t k, float floor, vk_topk_tie_fn *tie, void *tie_arg);
void vk_topk_push(struct vk_topk *t, uint32_t slot, float rank);
/* Somebody else has k hits of at least this rank. */
static inline void vk_topk_raise(struct vk_topk *t, float floor)
{
	if (floor > t->floor) t->floor = floor;
}
/* Which of n <= 65,536 ranks may enter, as indexes, ascending. */
size_t vk_topk_pick(const struct vk_topk *t, const struct vk_kernels *k, const float *rank, size_t n, uint32_t *idx);
void vk_topk_merge(struct vk_topk *t, const struct vk_topk *from);
/* Best first; how many. */
size_t vk_topk_finish(struct vk_topk *t);

/* The k-th greatest of n values, 1 <= k <= n, none of them NaN; reorders v. */
float vk_topk_kth(float *v, size_t n, size_t k);

#endif
