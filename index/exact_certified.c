/*
 * CERTIFIED: the 8-bit codes of every row, and only those rows whole whose upper bound reaches the k-th best.
 *
 * Most rows fail a quick look in f32 (simd/code_screen.h); the others get their exact bounds (simd/code.h). A worker keeps, for each query, `low` (the k best lower bounds that it has seen: their k-th is a floor) and the survivors,
 * rows whose upper bound reaches the floor of the moment. A full list of survivors is cut by the floor that has risen since;
 * when that frees less than half (ties, or bounds that say nothing), its rows are scored on the spot, so memory stays
 * bounded and the worst case is a scan. At the end the survivors of all workers are put in decreasing order of their upper
 * bounds and scored until the next bound is below the k-th rank; equal ones are scored, too: ids decide ties.
 *
 * Rows without codes (tail, parts not sealed with codes) are scored at once; their rank is its own lower bound.
 * A row enters `low` once, as a bound or as a rank, so that `low` always counts k different rows.
 */
#include "index/exact_run.h"
#include "simd/code_screen.h"

#include <math.h>
#include <stdlib.h>

#define SURVIVORS_MAX 4096 /* of one query in one worker; more when k is */
#define SETTLE_ROWS 64	   /* scored between two looks at the floor */
#define AHEAD_BYTES 4096

struct survivor {
	float upper, inv_norm;
	uint32_t slot;
	const void *row;
};
struct shortlist {
	struct survivor *row;
	size_t n, max;
	struct vk_topk low;
};
struct certified { /* a worker's */
	struct shortlist *list; /* one a query */
	struct vk_code_columns columns;
	int32_t dot[VK_CHUNK_ROWS];
	float lower[VK_CHUNK_ROWS], upper[VK_CHUNK_ROWS];
	const struct vk_code_head *row_head; /* of the chunk's rows: the part's, or head below */
	const float *inv_norm;
	struct vk_code_head head[VK_CHUNK_ROWS]; /* rows that do not lie in order */
	const uint8_t *code[VK_CHUNK_ROWS];
};
struct coded {
	struct vk_code_query head;
	int8_t *code;
};
struct certified_job {
	struct coded *query;
	struct survivor *all; /* of the query that is being settled, decreasing upper bound */
	size_t all_n, settling;
	atomic_size_t next;
};

static enum vk_status prepare(struct vk_exact_job *job, struct vk_arena *a)
{
	size_t stride = (job->scorer.dims + 63) / 64 * 64;
	struct certified_job *cj = job->own = vk_arena_calloc(a, 1, sizeof *cj);
	if (!cj || !(cj->query = vk_arena_calloc(a, job->query_n, sizeof *cj->query))) return VK_E_NOMEM;
	for (size_t i = 0; i < job->query_n; i++) {
		cj->query[i].code = vk_arena_alloc(a, stride);
		if (!cj->query[i].code) return VK_E_NOMEM;
		vk_code_query(&cj->query[i].head, cj->query[i].code, stride, job->running[i].p.f, job->scorer.dims);
	}
	for (unsigned j = 0; j < job->workers; j++) {
		struct certified *c = job->worker[j]->own = vk_arena_calloc(a, 1, sizeof *c);
		if (!c || !(c->list = vk_arena_calloc(a, job->query_n, sizeof *c->list))) return VK_E_NOMEM;
		for (size_t i = 0; i < job->query_n; i++) {
			size_t k = job->running[i].k;
			struct shortlist *l = &c->list[i];
			l->max = 4 * k > SURVIVORS_MAX ? 4 * k : SURVIVORS_MAX;
			if (l->max > job->src->parts->rows) l->max = (size_t)job->src->parts->rows + VK_CHUNK_ROWS;
			if (job->query_n > 16 && l->max > SURVIVORS_MAX) l->max = 2 * k > SURVIVORS_MAX ? 2 * k : SURVIVORS_MAX;
			l->row = vk_arena_alloc(a, l->max * sizeof *l->row);
			struct vk_hit *low = vk_arena_alloc(a, vk_topk_room(k) * sizeof *low);
			if (!l->row || !low) return VK_E_NOMEM;
			vk_topk_init(&l->low, low, k, atomic_load(&job->running[i].floor), NULL, NULL);
		}
	}
	return VK_OK;
}

/* --- scoring survivors --- */

static void settle(struct vk_exact_worker *w, size_t query, const struct survivor *s, size_t n)
{
	struct vk_running *r = &w->job->running[query];
	struct vk_topk *t = &w->top[query];
	const void *row[SETTLE_ROWS];
	float inv_norm[SETTLE_ROWS], rank[SETTLE_ROWS];
	for (size_t at = 0; at < n; at += SETTLE_ROWS) {
		size_t m = 0;
		for (size_t i = at; i < n && i < at + SETTLE_ROWS; i++) {
			if (s[i].upper < t->floor) continue;
			row[m] = s[i].row;
			inv_norm[m++] = s[i].inv_norm;
		}
		if (!m) continue;
		vk_scorer_at(&w->job->scorer, &r->p, row, m, inv_norm, rank);
		w->rows_reread += m;
		float floor = t->floor;
		m = 0;
		for (size_t i = at; i < n && i < at + SETTLE_ROWS; i++)
			if (!(s[i].upper < floor)) vk_topk_push(t, s[i].slot, rank[m++]);
		vk_exact_share(r, t, -INFINITY);
	}
}

static void make_room(struct vk_exact_worker *w, size_t query, struct shortlist *l)
{
	float floor = w->top[query].floor;
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++)
		if (!(l->row[i].upper < floor)) l->row[n++] = l->row[i];
	l->n = n;
	if (n <= l->max / 2) return;
	settle(w, query, l->row, n);
	l->n = 0;
}

/* --- the codes --- */

/* The codes of the chunk's next rows but one part: nothing else would fetch them while this part is computed. */
static void fetch_ahead(const struct vk_exact_worker *w)
{
	const struct vk_part *next = w->chunk.part + 1;
	if (w->walk.part >= w->walk.part_end || !next->code_head) return;
	const uint8_t *head = (const uint8_t *)next->code_head;
	for (size_t i = 0; i < 1024; i += 64) __builtin_prefetch(head + i);
	for (size_t i = 0; i < AHEAD_BYTES; i += 64) {
		__builtin_prefetch(next->code + i);
		__asm__ volatile("" ::: "memory"); /* GCC 12 keeps only the first of such a loop otherwise */
	}
}

static void lay_columns(struct vk_exact_worker *w)
{
	struct certified *c = w->own;
	const struct vk_chunk *ch = &w->chunk;
	const struct vk_part *p = ch->part;
	c->row_head = p->code_head + ch->at;
	c->inv_norm = p->inv_norm + ch->at;
	if (!ch->dense) {
		for (uint32_t i = 0; i < ch->n; i++) {
			c->head[i] = p->code_head[ch->number[i]];
			c->code[i] = p->code + (size_t)ch->number[i] * p->code_stride;
		}
		c->row_head = c->head;
		c->inv_norm = ch->inv_norm;
	}
	vk_code_columns(w->job->scorer.metric, c->row_head, c->inv_norm, ch->n, &c->columns);
}

static void dots(struct vk_exact_worker *w, const struct coded *q)
{
	struct certified *c = w->own;
	const struct vk_chunk *ch = &w->chunk;
	const struct vk_kernels *k = w->job->scorer.k;
	size_t dims = w->job->scorer.dims, stride = ch->part->code_stride;
	if (ch->dense) {
		k->code_dot(q->code, ch->part->code + (size_t)ch->at * stride, stride, ch->n, dims, c->dot);
		return;
	}
	for (uint32_t i = 0; i < ch->n; i++) k->code_dot(q->code, c->code[i], stride, 1, dims, &c->dot[i]);
}

/* Which rows of the chunk may reach the floor, as indexes; exact bounds of those into lower and upper, in that order. */
static size_t bound(struct vk_exact_worker *w, const struct coded *q, float floor)
{
	struct certified *c = w->own;
	const struct vk_scorer *s = &w->job->scorer;
	uint32_t n = w->chunk.n;
	size_t m = n;
	bool screened = floor > -INFINITY &&
			vk_code_screen(s->k->level, s->metric, &q->head, &c->columns, c->dot, n, c->upper);
	if (screened) m = s->k->at_least(c->upper, n, vk_code_screen_floor(s->metric, &q->head, floor), w->idx);
	else for (uint32_t i = 0; i < n; i++) w->idx[i] = i;
	for (size_t i = 0; i < m; i++) {
		uint32_t at = w->idx[i];
		vk_code_bounds(s->metric, &q->head, c->row_head + at, c->inv_norm + at, c->dot + at, 1, &c->lower[i], &c->upper[i]);
		/* A row too small for an inverse norm: anything may come out of it. */
		if (s->metric == VK_METRIC_COSINE && !(c->inv_norm[at] < INFINITY)) {
			c->lower[i] = -INFINITY;
			c->upper[i] = INFINITY;
		}
	}
	return m;
}

static void nominate(struct vk_exact_worker *w, size_t query)
{
	struct certified *c = w->own;
	struct shortlist *l = &c->list[query];
	struct vk_running *r = &w->job->running[query];
	struct vk_topk *t = &w->top[query];
	const struct certified_job *cj = w->job->own;

	dots(w, &cj->query[query]);
	vk_exact_share(r, t, l->low.floor);
	size_t n = bound(w, &cj->query[query], t->floor);
	if (!n) return;
	vk_topk_raise(&l->low, t->floor);
	for (size_t i = 0; i < n; i++) vk_topk_push(&l->low, w->idx[i], c->lower[i]);
	vk_exact_share(r, t, l->low.floor);
	for (size_t i = 0; i < n; i++) {
		if (c->upper[i] < t->floor) continue;
		if (l->n == l->max) make_room(w, query, l);
		uint32_t at = w->idx[i];
		l->row[l->n++] = (struct survivor){c->upper[i], vk_chunk_inv_norm(&w->chunk, at), vk_chunk_slot(&w->chunk, at),
						   vk_chunk_row(&w->chunk, at)};
	}
}

/* Rows without codes: ranks, which are bounds of themselves. */
static void rank_chunk(struct vk_exact_worker *w, size_t query)
{
	struct shortlist *l = &((struct certified *)w->own)->list[query];
	vk_exact_scan_chunk(w, query);
	size_t n = vk_topk_pick(&l->low, w->job->scorer.k, w->rank, w->chunk.n, w->idx);
	for (size_t i = 0; i < n; i++) vk_topk_push(&l->low, w->idx[i], w->rank[w->idx[i]]);
}

static void chunk(struct vk_exact_worker *w)
{
	const struct vk_chunk *ch = &w->chunk;
	bool codes = ch->part && ch->part->code_head;
	if (codes) {
		fetch_ahead(w);
		lay_columns(w);
	}
	for (size_t i = 0; i < w->job->query_n; i++) {
		if (codes) nominate(w, i);
		else rank_chunk(w, i);
	}
	w->bytes += ch->n * (codes ? (uint64_t)ch->part->code_stride + sizeof *ch->part->code_head
				   : (uint64_t)vk_row_bytes(w->job->scorer.dtype, w->job->scorer.dims));
}

/* --- the end --- */

static int by_upper(const void *a, const void *b)
{
	const struct survivor *x = a, *y = b;
	return x->upper > y->upper ? -1 : x->upper < y->upper;
}

/* The survivors of all workers that the floor leaves, in decreasing order. */
static enum vk_status gather(struct vk_exact_job *job, size_t query, struct vk_arena *a)
{
	struct certified_job *cj = job->own;
	size_t most = 0;
	float floor = atomic_load(&job->running[query].floor);
	for (unsigned j = 0; j < job->workers; j++) most += ((struct certified *)job->worker[j]->own)->list[query].n;
	cj->all = job->workers > 1 ? vk_arena_alloc(a, most * sizeof *cj->all)
				   : ((struct certified *)job->worker[0]->own)->list[query].row;
	if (most && !cj->all) return VK_E_NOMEM;
	cj->all_n = 0;
	for (unsigned j = 0; j < job->workers; j++) {
		const struct shortlist *l = &((struct certified *)job->worker[j]->own)->list[query];
		for (size_t i = 0; i < l->n; i++)
			if (!(l->row[i].upper < floor)) cj->all[cj->all_n++] = l->row[i];
	}
	qsort(cj->all, cj->all_n, sizeof *cj->all, by_upper);
	cj->settling = query;
	atomic_store(&cj->next, 0);
	return VK_OK;
}

static void settle_in_order(struct vk_exact_worker *w)
{
	struct certified_job *cj = w->job->own;
	struct vk_running *r = &w->job->running[cj->settling];
	struct vk_topk *t = &w->top[cj->settling];
	size_t at;
	while ((at = atomic_fetch_add(&cj->next, SETTLE_ROWS)) < cj->all_n && !vk_exact_stopped(w->job)) {
		vk_exact_share(r, t, -INFINITY);
		if (cj->all[at].upper < t->floor) return;
		settle(w, cj->settling, cj->all + at, cj->all_n - at < SETTLE_ROWS ? cj->all_n - at : SETTLE_ROWS);
	}
}

static enum vk_status finish(struct vk_exact_job *job, struct vk_arena *a)
{
	struct certified_job *cj = job->own;
	for (size_t i = 0; i < job->query_n; i++) {
		enum vk_status st = gather(job, i, a);
		if (st) return st;
		if (cj->all_n > 4 * SETTLE_ROWS) vk_exact_fan(job, settle_in_order);
		else settle_in_order(job->worker[0]);
	}
	return VK_OK;
}

const struct vk_exact_ops vk_exact_certified = {.prepare = prepare, .chunk = chunk, .finish = finish};
