/*
 * A sorted array for small k, a buffer with quickselect for large. A heap was not taken: at k <= 64 an insertion moves at
 * most 512 bytes and the expected number of insertions is k ln(n / k); above, a heap's log k with its scattered
 * compares loses to one selection every k pushes.
 */
#include "index/topk.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t vk_topk_room(size_t k)
{
	return k <= VK_TOPK_SORTED_MAX ? k + 1 : 2 * k;
}

void vk_topk_init(struct vk_topk *t, struct vk_hit *hit, size_t k, float floor, vk_topk_tie_fn *tie, void *tie_arg)
{
	*t = (struct vk_topk){.hit = hit,
			      .k = k,
			      .cap = vk_topk_room(k),
			      .floor = floor > -INFINITY ? floor : -INFINITY,
			      .tie = tie,
			      .tie_arg = tie_arg};
}

static inline bool before(const struct vk_topk *t, struct vk_hit a, struct vk_hit b)
{
	if (a.rank != b.rank) return a.rank > b.rank;
	if (a.slot == b.slot) return false; /* a hit and itself */
	return t->tie ? t->tie(t->tie_arg, a.slot, b.slot) < 0 : a.slot < b.slot;
}

static void insert_sorted(struct vk_topk *t, struct vk_hit h)
{
	if (t->n == t->k && !before(t, h, t->hit[t->n - 1])) return;
	size_t lo = 0, hi = t->n;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (before(t, h, t->hit[mid])) hi = mid;
		else lo = mid + 1;
	}
	memmove(t->hit + lo + 1, t->hit + lo, (t->n - lo) * sizeof h);
	t->hit[lo] = h;
	if (t->n < t->k) t->n++;
	if (t->n == t->k) vk_topk_raise(t, t->hit[t->k - 1].rank);
}

static void swap(struct vk_hit *a, struct vk_hit *b)
{
	struct vk_hit h = *a;
	*a = *b;
	*b = h;
}

/* Of three hits of the range, the middle one goes to its end: sorted input is then no worst case. */
static void choose_pivot(const struct vk_topk *t, size_t lo, size_t hi)
{
	struct vk_hit *a = t->hit + lo, *b = t->hit + lo + (hi - lo) / 2, *c = t->hit + hi - 1;
	if (before(t, *b, *a)) swap(a, b);
	if (before(t, *c, *a)) swap(a, c);
	if (before(t, *c, *b)) swap(b, c);
	swap(b, c);
}

/* Brings the k best to the front and forgets the rest. */
static void cut(struct vk_topk *t)
{
	if (t->n < t->k) return;
	size_t lo = 0, hi = t->n;
	while (hi - lo > 1) {
		choose_pivot(t, lo, hi);
		struct vk_hit pivot = t->hit[hi - 1];
		size_t at = lo;
		for (size_t i = lo; i + 1 < hi; i++)
			if (before(t, t->hit[i], pivot)) swap(t->hit + at++, t->hit + i);
		swap(t->hit + at, t->hit + hi - 1);
		if (at == t->k - 1) break; /* the k-th best is in its place */
		if (at < t->k - 1) lo = at + 1;
		else hi = at;
	}
	t->n = t->k;
	vk_topk_raise(t, t->hit[t->k - 1].rank);
}

void vk_topk_push(struct vk_topk *t, uint32_t slot, float rank)
{
	if (!(rank >= -INFINITY)) rank = -INFINITY;
	if (rank < t->floor || !t->k) return;
	struct vk_hit h = {slot, rank};
	if (t->k <= VK_TOPK_SORTED_MAX) {
		insert_sorted(t, h);
		return;
	}
	t->hit[t->n++] = h;
	if (t->n == t->cap) cut(t);
}

size_t vk_topk_pick(const struct vk_topk *t, const struct vk_kernels *k, const float *rank, size_t n, uint32_t *idx)
{
	if (t->floor > -INFINITY) return k->at_least(rank, n, t->floor, idx);
	for (size_t i = 0; i < n; i++) idx[i] = (uint32_t)i; /* not a number, too */
	return n;
}

void vk_topk_merge(struct vk_topk *t, const struct vk_topk *from)
{
	for (size_t i = 0; i < from->n; i++) vk_topk_push(t, from->hit[i].slot, from->hit[i].rank);
}

static int order(const void *a, const void *b, void *t)
{
	const struct vk_hit *x = a, *y = b;
	return x->slot == y->slot ? 0 : before(t, *x, *y) ? -1 : 1;
}

size_t vk_topk_finish(struct vk_topk *t)
{
	/* Somebody else's floor may have passed what is here. */
	size_t n = 0;
	for (size_t i = 0; i < t->n; i++)
		if (t->hit[i].rank >= t->floor) t->hit[n++] = t->hit[i];
	t->n = n;
	if (t->k <= VK_TOPK_SORTED_MAX) return t->n;
	cut(t);
	qsort_r(t->hit, t->n, sizeof *t->hit, order, t);
	return t->n;
}

float vk_topk_kth(float *v, size_t n, size_t k)
{
	assert(k >= 1 && k <= n);
	size_t lo = 0, hi = n - 1;
	while (lo < hi) { /* Hoare's partition: equal values stop both sides, so they split evenly */
		float pivot = v[lo + (hi - lo) / 2];
		size_t i = lo, j = hi;
		for (;;) {
			while (v[i] > pivot) i++;
			while (v[j] < pivot) j--;
			if (i >= j) break;
			float x = v[i];
			v[i++] = v[j];
			v[j--] = x;
		}
		if (k - 1 <= j) hi = j;
		else lo = j + 1;
	}
	return v[k - 1];
}
