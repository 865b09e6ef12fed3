/*
 * BITS: sign bits nominate limit * oversampling rows by Hamming distance, the canonical kernel ranks those. Not exact, and
 * only taken when it is asked for. Equal distances at the edge are taken by slot, so the answer is the same every time.
 * Rows without bits (tail, parts from before the quantisation) are ranked with the nominees.
 */
#include "index/exact_run.h"

#include <math.h>
#include <stdlib.h>

#define OVERSAMPLING 3.0f

struct near { /* a worker's */
	struct vk_topk *top; /* one a query; rank: minus the distance */
	const void *row[VK_CHUNK_ROWS];
};
struct bits_job {
	uint8_t **query;
};

static size_t nominees(const struct vk_exact_job *job, size_t k)
{
	float times = job->opts->oversampling > 0 ? job->opts->oversampling : OVERSAMPLING;
	double n = fmin(ceil((double)k * fmaxf(times, 1)), (double)VK_EXACT_LIMIT_MAX);
	uint64_t rows = job->src->parts->rows;
	return n < (double)rows ? (size_t)n : (size_t)rows;
}

static struct near *near_new(struct vk_exact_job *job, struct vk_arena *a)
{
	struct near *near = vk_arena_calloc(a, 1, sizeof *near);
	if (!near || !(near->top = vk_arena_calloc(a, job->query_n, sizeof *near->top))) return NULL;
	for (size_t i = 0; i < job->query_n; i++) {
		size_t n = nominees(job, job->running[i].k);
		struct vk_hit *hit = vk_arena_alloc(a, vk_topk_room(n) * sizeof *hit);
		if (!hit) return NULL;
		vk_topk_init(&near->top[i], hit, n, -INFINITY, NULL, NULL);
	}
	return near;
}

static enum vk_status prepare(struct vk_exact_job *job, struct vk_arena *a)
{
	struct bits_job *bj = job->own = vk_arena_calloc(a, 1, sizeof *bj);
	if (!bj || !(bj->query = vk_arena_calloc(a, job->query_n, sizeof *bj->query))) return VK_E_NOMEM;
	for (size_t i = 0; i < job->query_n; i++) {
		bj->query[i] = vk_arena_alloc(a, vk_row_bytes(VK_DTYPE_BITS, job->scorer.dims));
		if (!bj->query[i]) return VK_E_NOMEM;
		job->scorer.k->f32_to_bits(bj->query[i], job->query[i].vector, job->scorer.dims);
	}
	for (unsigned j = 0; j < job->workers; j++)
		if (!(job->worker[j]->own = near_new(job, a))) return VK_E_NOMEM;
	return VK_OK;
}

static const uint8_t *next_bits(const struct vk_exact_worker *w)
{
	uint32_t number;
	const struct vk_part *p = vk_chunker_behind(&w->walk, &w->chunk, &number);
	return p && p->bits ? p->bits + (size_t)number * p->bits_stride : NULL;
}

/* last: no other query comes by the chunk after this one. */
static void distances(struct vk_exact_worker *w, const uint8_t *query, bool last)
{
	struct near *near = w->own;
	const struct vk_chunk *c = &w->chunk;
	const struct vk_part *p = c->part;
	const struct vk_scorer *s = &w->job->scorer;
	int kind = vk_metric_kind(VK_METRIC_HAMMING);
	if (c->dense) {
		s->k->score[kind][VK_DTYPE_BITS](query, p->bits + (size_t)c->at * p->bits_stride, p->bits_stride, c->n, s->dims,
						 last ? next_bits(w) : NULL, w->rank);
	} else {
		for (uint32_t i = 0; i < c->n; i++) near->row[i] = p->bits + (size_t)c->number[i] * p->bits_stride;
		s->k->score_at[kind][VK_DTYPE_BITS](query, near->row, c->n, s->dims, w->rank);
	}
	for (uint32_t i = 0; i < c->n; i++) w->rank[i] = -w->rank[i];
}

static void chunk(struct vk_exact_worker *w)
{
	const struct bits_job *bj = w->job->own;
	bool bits = w->chunk.part && w->chunk.part->bits;
	for (size_t q = 0; q < w->job->query_n; q++) {
		if (!bits) {
			vk_exact_scan_chunk(w, q);
			continue;
		}
		struct vk_topk *t = &((struct near *)w->own)->top[q];
		distances(w, bj->query[q], q + 1 == w->job->query_n);
		size_t n = vk_topk_pick(t, w->job->scorer.k, w->rank, w->chunk.n, w->idx);
		for (size_t i = 0; i < n; i++) vk_topk_push(t, vk_chunk_slot(&w->chunk, w->idx[i]), w->rank[w->idx[i]]);
	}
	w->bytes += w->chunk.n * (bits ? (uint64_t)w->chunk.part->bits_stride
				       : (uint64_t)vk_row_bytes(w->job->scorer.dtype, w->job->scorer.dims));
}

static int by_slot(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

/* Ranks one query's nominees, on the first worker. */
static enum vk_status rank_nominees(struct vk_exact_job *job, size_t query, struct vk_arena *a)
{
	struct vk_exact_worker *w = job->worker[0];
	struct vk_topk *t = &((struct near *)w->own)->top[query];
	for (unsigned j = 1; j < job->workers; j++) vk_topk_merge(t, &((struct near *)job->worker[j]->own)->top[query]);
	size_t n = vk_topk_finish(t);
	uint32_t *slot = vk_arena_alloc(a, n * sizeof *slot);
	if (n && !slot) return VK_E_NOMEM;
	for (size_t i = 0; i < n; i++) slot[i] = t->hit[i].slot;
	qsort(slot, n, sizeof *slot, by_slot);
	w->walk = (struct vk_chunker){.src = job->src, .live = w->walk.live, .want = w->walk.want};
	for (size_t at = 0; at < n && !vk_exact_stopped(job); at += VK_CHUNK_ROWS) {
		vk_chunker_find(&w->walk, slot + at, n - at < VK_CHUNK_ROWS ? n - at : VK_CHUNK_ROWS, &w->chunk);
		vk_exact_scan_chunk(w, query);
		w->rows_reread += w->chunk.n;
	}
	return VK_OK;
}

static enum vk_status finish(struct vk_exact_job *job, struct vk_arena *a)
{
	for (size_t i = 0; i < job->query_n; i++) {
		enum vk_status st = rank_nominees(job, i, a);
		if (st) return st;
	}
	return VK_OK;
}

const struct vk_exact_ops vk_exact_bits = {.prepare = prepare, .chunk = chunk, .finish = finish};
