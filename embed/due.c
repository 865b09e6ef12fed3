/* A binary heap in an array. */
#include "embed/due.h"

#include <stdlib.h>

static bool before(const struct vk_due *a, const struct vk_due *b)
{
	return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void swap(struct vk_due *a, struct vk_due *b)
{
	struct vk_due t = *a;
	*a = *b;
	*b = t;
}

static void sift_down(struct vk_due_heap *h, size_t i)
{
	for (;;) {
		size_t least = i, l = 2 * i + 1, r = l + 1;
		if (l < h->n && before(&h->v[l], &h->v[least])) least = l;
		if (r < h->n && before(&h->v[r], &h->v[least])) least = r;
		if (least == i) return;
		swap(&h->v[i], &h->v[least]);
		i = least;
	}
}

bool vk_due_push(struct vk_due_heap *h, struct vk_due d)
{
	if (h->n == h->cap) {
		size_t cap = h->cap ? h->cap * 2 : 64;
		struct vk_due *v = realloc(h->v, cap * sizeof *v);
		if (!v) return false;
		h->v = v;
		h->cap = cap;
	}
	d.order = h->order++;
	size_t i = h->n++;
	h->v[i] = d;
	for (size_t up; i && before(&h->v[i], &h->v[up = (i - 1) / 2]); i = up)
		swap(&h->v[i], &h->v[up]);
	return true;
}

bool vk_due_pop(struct vk_due_heap *h, uint64_t now_ms, struct vk_due *out)
{
	if (!h->n || h->v[0].at_ms > now_ms) return false;
	*out = h->v[0];
	h->v[0] = h->v[--h->n];
	sift_down(h, 0);
	return true;
}

void vk_due_filter(struct vk_due_heap *h, bool (*keep)(const struct vk_due *d, void *arg), void *arg)
{
	size_t n = 0;
	for (size_t i = 0; i < h->n; i++)
		if (keep(&h->v[i], arg)) h->v[n++] = h->v[i];
	if (n == h->n) return;
	h->n = n;
	for (size_t i = n / 2; i-- > 0;) sift_down(h, i);
}

void vk_due_free(struct vk_due_heap *h)
{
	free(h->v);
	*h = (struct vk_due_heap){0};
}
