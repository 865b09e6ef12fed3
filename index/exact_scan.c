/*
 * SCAN and FEW: every row that counts, by the canonical kernel. Several queries share a chunk while it is in the cache.
 *
 * Not taken: a second stream of rows a worker. The kernels already read four rows at a time and fetch ahead.
 */
#include "index/exact_run.h"

#include <math.h>

static const void *next_rows(const struct vk_exact_worker *w)
{
	uint32_t number;
	const struct vk_part *p = vk_chunker_behind(&w->walk, &w->chunk, &number);
	return p ? p->row + (size_t)number * p->stride : NULL;
}

void vk_exact_score_chunk(struct vk_exact_worker *w, const struct vk_running *r)
{
	const struct vk_scorer *s = &w->job->scorer;
	const struct vk_chunk *c = &w->chunk;
	bool last = r == &w->job->running[w->job->query_n - 1];
	if (c->dense)
		vk_scorer_rows(s, &r->p, c->part->row + (size_t)c->at * c->part->stride, c->part->stride, c->n,
			       last ? next_rows(w) : NULL, c->part->inv_norm + c->at, w->rank);
	else vk_scorer_at(s, &r->p, c->row, c->n, c->inv_norm, w->rank);
}

void vk_exact_scan_chunk(struct vk_exact_worker *w, size_t query)
{
	struct vk_running *r = &w->job->running[query];
	struct vk_topk *t = &w->top[query];
	vk_exact_share(r, t, -INFINITY);
	vk_exact_score_chunk(w, r);
	size_t n = vk_topk_pick(t, w->job->scorer.k, w->rank, w->chunk.n, w->idx);
	for (size_t i = 0; i < n; i++) vk_topk_push(t, vk_chunk_slot(&w->chunk, w->idx[i]), w->rank[w->idx[i]]);
	if (n) vk_exact_share(r, t, -INFINITY);
}

static void chunk(struct vk_exact_worker *w)
{
	for (size_t i = 0; i < w->job->query_n; i++) vk_exact_scan_chunk(w, i);
	w->bytes += (uint64_t)w->chunk.n * vk_row_bytes(w->job->scorer.dtype, w->job->scorer.dims);
}

const struct vk_exact_ops vk_exact_scan = {.chunk = chunk};
