/*
 * CERTIFIED: the 8-bit codes of every row, and only those rows whole whose upper bound reaches the k-th best.
 *
 * Rows come in tiles: a few chunks together, as many rows as leave their codes in the second-level cache while all queries
 * pass over them, a block of queries at a time (code_dots). What a pair costs beside its product is a look in f32
 * (simd/code_screen.h), which most rows fail; the others get their exact bounds (simd/code.h).
 *
 * A worker keeps, for each query, `low` (the k best lower bounds that it has seen: their k-th is a floor) and the survivors,
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
#define STREAMED_QUERIES 4 /* fewer wait for memory, and code_dot fetches best */

/* A tile and a block of queries with their products share the cache: at most 256 KB each. */
#define TILE_ROWS VK_SCREEN_ROWS
#define QUERY_ROWS 256
#define TILE_BYTES ((size_t)256 << 10)
#define TILE_ROWS_MIN 64

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
struct piece { /* rows of a tile, out of one part */
	const struct vk_part *part;
	const uint8_t *code; /* in order, part's or gathered; NULL: at certified.code */
	uint32_t from, n;    /* rows of the tile */
	uint32_t at;         /* dense: the row number of the first */
	bool dense;
};
struct tile {
	struct piece piece[TILE_ROWS];
	size_t piece_n;
	uint8_t piece_of[TILE_ROWS];    /* row's */
	uint32_t number[TILE_ROWS];     /* in its part; not dense */
	const uint8_t *code[TILE_ROWS]; /* not dense, and of one query */
	uint8_t *gathered;              /* not dense, and of several; room for all rows */
	const uint8_t *behind;          /* the codes that come after the tile; NULL: none, or not dense */
	struct vk_code_columns columns; /* columns.n: rows of the tile */
};
struct certified { /* a worker's */
	struct shortlist *list; /* one a query */
	struct tile tile;
	int32_t *dot;           /* a block of queries by TILE_ROWS */
	uint32_t idx[TILE_ROWS];
	float lower[TILE_ROWS], upper[TILE_ROWS];
};
struct certified_job {
	struct vk_code_query *query;
	const int8_t **code;  /* of each query */
	size_t stride;        /* of a row's codes when gathered */
	size_t tile_rows, block; /* rows and queries at a time */
	struct survivor *all; /* of the query that is being settled, decreasing upper bound */
	size_t all_n, settling;
	atomic_size_t next;
};
_Static_assert(TILE_ROWS <= 256, "pieces are numbered in bytes");

static size_t rows_of(size_t stride, size_t least, size_t most)
{
	size_t n = TILE_BYTES / stride / 16 * 16;
	return n < least ? least : n > most ? most : n;
}

static enum vk_status prepare_queries(struct vk_exact_job *job, struct certified_job *cj, struct vk_arena *a)
{
	cj->stride = (job->scorer.dims + 63) / 64 * 64;
	cj->tile_rows = rows_of(cj->stride, TILE_ROWS_MIN, TILE_ROWS);
	cj->block = rows_of(cj->stride, TILE_ROWS_MIN, QUERY_ROWS);
	if (cj->block > job->query_n) cj->block = job->query_n;
	cj->query = vk_arena_calloc(a, job->query_n, sizeof *cj->query);
	cj->code = vk_arena_calloc(a, job->query_n, sizeof *cj->code);
	int8_t *codes = vk_arena_alloc(a, job->query_n * cj->stride + 64);
	if (!cj->query || !cj->code || !codes) return VK_E_NOMEM;
	codes += -(uintptr_t)codes % 64;
	for (size_t i = 0; i < job->query_n; i++, codes += cj->stride) {
		vk_code_query(&cj->query[i], codes, cj->stride, job->running[i].p.f, job->scorer.dims);
		cj->code[i] = codes;
	}
	return VK_OK;
}

static enum vk_status prepare_worker(struct vk_exact_job *job, struct vk_exact_worker *w, struct vk_arena *a)
{
	struct certified_job *cj = job->own;
	struct certified *c = w->own = vk_arena_calloc(a, 1, sizeof *c);
	if (!c || !(c->list = vk_arena_calloc(a, job->query_n, sizeof *c->list))) return VK_E_NOMEM;
	if (!(c->dot = vk_arena_alloc(a, cj->block * TILE_ROWS * sizeof *c->dot))) return VK_E_NOMEM;
	if (job->query_n > 1 && !(c->tile.gathered = vk_arena_alloc(a, cj->tile_rows * cj->stride))) return VK_E_NOMEM;
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
	return VK_OK;
}

static enum vk_status prepare(struct vk_exact_job *job, struct vk_arena *a)
{
	struct certified_job *cj = job->own = vk_arena_calloc(a, 1, sizeof *cj);
	enum vk_status st = cj ? prepare_queries(job, cj, a) : VK_E_NOMEM;
	for (unsigned j = 0; j < job->workers && !st; j++) st = prepare_worker(job, job->worker[j], a);
	return st;
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

/* --- one query against the tile --- */

static uint32_t number_of(const struct tile *t, uint32_t i)
{
	const struct piece *p = &t->piece[t->piece_of[i]];
	return p->dense ? p->at + (i - p->from) : t->number[i];
}

/* Exact bounds of n rows of the tile (c->idx), in that order. */
static void bound(struct vk_exact_worker *w, size_t query, const int32_t *dot, size_t n)
{
	struct certified *c = w->own;
	const struct certified_job *cj = w->job->own;
	enum vk_metric m = w->job->scorer.metric;
	for (size_t i = 0; i < n; i++) {
		uint32_t at = c->idx[i], number = number_of(&c->tile, at);
		const struct vk_part *p = c->tile.piece[c->tile.piece_of[at]].part;
		vk_code_bounds(m, &cj->query[query], p->code_head + number, p->inv_norm + number, dot + at, 1, &c->lower[i],
			       &c->upper[i]);
		/* A row too small for an inverse norm: anything may come out of it. */
		if (m == VK_METRIC_COSINE && !(p->inv_norm[number] < INFINITY)) {
			c->lower[i] = -INFINITY;
			c->upper[i] = INFINITY;
		}
	}
}

static struct survivor survivor(const struct tile *t, uint32_t i, float upper)
{
	const struct vk_part *p = t->piece[t->piece_of[i]].part;
	uint32_t number = number_of(t, i);
	return (struct survivor){upper, p->inv_norm[number], vk_part_slot(p, number), p->row + (size_t)number * p->stride};
}

static void nominate(struct vk_exact_worker *w, size_t query, const int32_t *dot)
{
	struct certified *c = w->own;
	struct shortlist *l = &c->list[query];
	struct vk_running *r = &w->job->running[query];
	struct vk_topk *t = &w->top[query];
	const struct certified_job *cj = w->job->own;
	const struct vk_scorer *s = &w->job->scorer;

	vk_exact_share(r, t, l->low.floor);
	size_t n = vk_code_screen(s->k->level, s->metric, &cj->query[query], &c->tile.columns, dot, t->floor, c->idx);
	if (!n) return;
	bound(w, query, dot, n);
	vk_topk_raise(&l->low, t->floor);
	for (size_t i = 0; i < n; i++) vk_topk_push(&l->low, c->idx[i], c->lower[i]);
	vk_exact_share(r, t, l->low.floor);
	for (size_t i = 0; i < n; i++) {
		if (c->upper[i] < t->floor) continue;
		if (l->n == l->max) make_room(w, query, l);
		l->row[l->n++] = survivor(&c->tile, c->idx[i], c->upper[i]);
	}
}

/* --- the tile --- */

static void fetch(const void *from, size_t bytes)
{
	for (size_t i = 0; i < bytes && i < AHEAD_BYTES; i += 64) {
		__builtin_prefetch((const uint8_t *)from + i);
		__asm__ volatile("" ::: "memory"); /* GCC 12 keeps only the first of such a loop otherwise */
	}
}

/* One query, rows that do not lie in order: the next four are on their way while four are computed. */
static void dots_listed(const struct vk_scorer *s, const int8_t *q, const uint8_t *const *code, size_t n, int32_t *dot)
{
	for (size_t i = 0; i < n; i += 4) {
		for (size_t j = i + 4; j < i + 8 && j < n; j++) fetch(code[j], s->dims);
		s->k->code_dot_at(q, code + i, n - i < 4 ? n - i : 4, s->dims, dot + i);
	}
}

/* The codes that are computed after those of a piece. */
static const uint8_t *next_codes(const struct tile *t, const struct piece *p)
{
	return p + 1 < t->piece + t->piece_n ? p[1].code : t->behind;
}

/* A block of queries by all rows of the tile. */
static void dots(struct vk_exact_worker *w, size_t query, size_t n)
{
	struct certified *c = w->own;
	const struct certified_job *cj = w->job->own;
	const struct vk_scorer *s = &w->job->scorer;
	for (size_t i = 0; i < c->tile.piece_n; i++) {
		const struct piece *p = &c->tile.piece[i];
		size_t stride = p->dense ? p->part->code_stride : cj->stride;
		int32_t *dot = c->dot + p->from;
		size_t first = n < STREAMED_QUERIES ? 1 : 0;
		if (!p->code) {
			dots_listed(s, cj->code[query], c->tile.code + p->from, p->n, dot);
			continue;
		}
		if (first) s->k->code_dot(cj->code[query], p->code, stride, p->n, s->dims, next_codes(&c->tile, p), dot);
		s->k->code_dots(cj->code + query + first, n - first, p->code, stride, p->n, s->dims, dot + first * TILE_ROWS,
				TILE_ROWS);
	}
}

static void flush(struct vk_exact_worker *w)
{
	struct certified *c = w->own;
	const struct certified_job *cj = w->job->own;
	for (size_t q = 0; c->tile.columns.n && q < w->job->query_n; q += cj->block) {
		size_t n = w->job->query_n - q < cj->block ? w->job->query_n - q : cj->block;
		dots(w, q, n);
		for (size_t i = 0; i < n; i++) nominate(w, q + i, c->dot + i * TILE_ROWS);
	}
	c->tile.columns.n = c->tile.piece_n = 0;
}

static void add_dense(struct vk_exact_worker *w, uint32_t at, uint32_t n)
{
	struct tile *t = &((struct certified *)w->own)->tile;
	const struct vk_part *p = w->chunk.part;
	const struct vk_scorer *s = &w->job->scorer;
	uint32_t number = w->chunk.at + at, from = (uint32_t)t->columns.n;
	t->piece[t->piece_n++] = (struct piece){.part = p, .code = p->code + (size_t)number * p->code_stride, .from = from, .n = n,
						.at = number, .dense = true};
	vk_code_columns(s->metric, p->code_head + number, p->inv_norm + number, n, s->dims, &t->columns);
}

static void add_listed(struct vk_exact_worker *w, uint32_t at, uint32_t n)
{
	struct tile *t = &((struct certified *)w->own)->tile;
	const struct vk_part *p = w->chunk.part;
	const struct vk_scorer *s = &w->job->scorer;
	size_t stride = ((struct certified_job *)w->job->own)->stride;
	uint32_t from = (uint32_t)t->columns.n;
	uint8_t *gathered = t->gathered ? t->gathered + from * stride : NULL;
	t->piece[t->piece_n++] = (struct piece){.part = p, .code = gathered, .from = from, .n = n};
	for (uint32_t i = from; i < from + n; i++) {
		uint32_t number = t->number[i] = w->chunk.number[at + i - from];
		t->code[i] = p->code + (size_t)number * p->code_stride;
		if (gathered) memcpy(t->gathered + i * stride, t->code[i], s->dims);
		vk_code_columns(s->metric, p->code_head + number, p->inv_norm + number, 1, s->dims, &t->columns);
	}
}

/* What the next part's columns are made of: nothing else would fetch it while this part is computed. */
static void fetch_ahead(const struct vk_exact_worker *w)
{
	const struct vk_part *next = vk_chunker_coming(&w->walk);
	if (!next || !next->code_head) return;
	fetch(next->code_head, next->rows * sizeof *next->code_head);
	fetch(next->inv_norm, next->rows * sizeof *next->inv_norm);
}

static void add_chunk(struct vk_exact_worker *w)
{
	struct tile *t = &((struct certified *)w->own)->tile;
	const size_t most = ((struct certified_job *)w->job->own)->tile_rows;
	for (uint32_t at = 0, n; at < w->chunk.n; at += n) {
		const struct vk_part *p = w->chunk.part;
		t->behind = w->chunk.dense ? p->code + (size_t)(w->chunk.at + at) * p->code_stride : NULL;
		if (t->columns.n == most) flush(w);
		size_t room = most - t->columns.n, left = w->chunk.n - at;
		n = (uint32_t)(room < left ? room : left);
		memset(t->piece_of + t->columns.n, (int)t->piece_n, n);
		if (w->chunk.dense) add_dense(w, at, n);
		else add_listed(w, at, n);
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
		add_chunk(w);
	} else {
		for (size_t i = 0; i < w->job->query_n; i++) rank_chunk(w, i);
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

static void last(struct vk_exact_worker *w)
{
	((struct certified *)w->own)->tile.behind = NULL;
	flush(w);
}

const struct vk_exact_ops vk_exact_certified = {.prepare = prepare, .chunk = chunk, .last = last, .finish = finish};
