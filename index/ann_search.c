/*
 * An approximate answer: nominations of an engine, scored with the rows of the view, and the exact answer over what changed
 * since the engine's moment, selected together.
 *
 * Where nothing of this pays, exact search answers whole: few rows to look at (a filter, a small set), an engine that gave up or
 * found fewer than min(limit, matches). So an answer never has fewer points than it could, and every score is exact.
 *
 * Threads. Engines are asked side by side; the view is read by the calling thread alone.
 */
#include "index/ann_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/collection_internal.h"
#include "index/exact_run.h"
#include "store/guard.h"

#define SCORE_ROWS 256
#define LIMIT_MAX (VK_GRAPH_EF_MAX / 8)
#define WIDEN_MAX 4

struct search {
	struct vk_view *v;
	const struct vk_set *set;
	struct vk_gen *gen;
	const struct vk_delta *delta; /* NULL: none, all that the engine says counts */
	const struct vk_bitmap *in;
	uint64_t matches, rows, scan_rows_max;
	uint64_t *allow;
	uint32_t allow_n;
	uint64_t allow_count;
	struct vk_scorer scorer;
	struct vk_ann_ask *ask;
	struct vk_topk *top;
	size_t *valid; /* nominations that have rows */
	enum vk_status *st;
	struct vk_ann_found *found;
};

bool vk_ann_serves(struct vk_view *v, const struct vk_set *s)
{
	struct vk_ann_serving sv;
	if (!v->c->ann || v->writing) return false;
	bool serves = vk_ann_take(v->c->ann, s->id, &sv);
	vk_ann_give(&sv);
	return serves;
}

static int compare_ids(void *view, uint32_t a, uint32_t b)
{
	return vk_view_compare_ids(view, a, b);
}

/* --- nominating --- */

static void nominate_one(void *arg, size_t i)
{
	struct search *x = arg;
	x->st[i] = x->gen->ops->nominate(x->gen->self, &x->ask[i]);
}

static enum vk_status nominate(struct search *x, size_t n, struct vk_pool *pool)
{
	if (pool && n > 1) vk_pool_for(pool, n, nominate_one, x);
	else for (size_t i = 0; i < n; i++) nominate_one(x, i);
	for (size_t i = 0; i < n; i++)
		if (x->st[i]) return x->st[i];
	return VK_OK;
}

/* Bits of the wanted slots; those that changed are none of the engine's business. */
static enum vk_status allow_bits(struct search *x, struct vk_arena *a)
{
	struct vk_rec_state state;
	enum vk_status st = vk_state_get(x->v->t, &state);
	if (st || !x->in) return st;
	size_t words = (size_t)(state.next_slot + 63) / 64;
	struct vk_bitmap *in = vk_bitmap_copy(x->in);
	x->allow = vk_arena_calloc(a, words ? words : 1, sizeof *x->allow);
	if (in && x->delta) vk_bitmap_andnot(in, x->delta->slots);
	if (!in || !x->allow || vk_bitmap_failed(in)) st = VK_E_NOMEM;
	if (!st) {
		(void)vk_bitmap_words(in, 0, x->allow, words);
		x->allow_n = (uint32_t)(words * 64 > UINT32_MAX ? UINT32_MAX : words * 64);
		x->allow_count = vk_bitmap_count(in);
	}
	vk_bitmap_free(in);
	return st;
}

static uint32_t want_of(const struct search *x, size_t limit, uint32_t ef)
{
	uint64_t want = x->gen->ops->want(x->gen->self, (uint32_t)limit, ef);
	/* Without bits, nominations that changed are thrown away afterwards: ask for as many more. */
	if (!x->in && x->delta && x->rows) {
		uint64_t more = want * 2 * x->delta->count / x->rows + (x->delta->count < 16 ? x->delta->count : 16);
		want += more < want * WIDEN_MAX ? more : want * WIDEN_MAX;
	}
	return want > VK_GRAPH_EF_MAX ? VK_GRAPH_EF_MAX : (uint32_t)want;
}

static const float *query_of(struct search *x, const float *vector, struct vk_arena *a)
{
	if (x->set->metric != VK_METRIC_COSINE) return vector;
	float *unit = vk_arena_alloc(a, x->set->dims * sizeof *unit);
	if (unit) vk_unit(unit, vector, x->set->dims);
	return unit;
}

/* Memory of one query's asking and selecting. */
static enum vk_status lay(struct search *x, size_t i, const struct vk_exact_query *q, uint32_t ef, struct vk_arena *a)
{
	struct vk_ann_ask *ask = &x->ask[i];
	size_t k = q->limit < x->matches ? q->limit : (size_t)x->matches;
	*ask = (struct vk_ann_ask){.want = want_of(x, k ? k : 1, ef), .ef = ef, .allow = x->allow, .allow_n = x->allow_n,
				   .allow_count = x->allow_count};
	ask->vector = query_of(x, q->vector, a);
	ask->slot = vk_arena_alloc(a, ask->want * sizeof *ask->slot);
	struct vk_hit *hit = vk_arena_alloc(a, vk_topk_room(k ? k : 1) * sizeof *hit);
	if (!ask->vector || !ask->slot || !hit) return VK_E_NOMEM;
	vk_topk_init(&x->top[i], hit, k ? k : 1, q->floor, compare_ids, x->v);
	return VK_OK;
}

/* --- scoring --- */

struct rows { /* gathered for the kernel */
	const void *row[SCORE_ROWS];
	float inv_norm[SCORE_ROWS], rank[SCORE_ROWS];
	uint32_t slot[SCORE_ROWS];
	size_t n;
};

static void score(struct search *x, size_t i, const struct vk_prepared *p, struct rows *r)
{
	vk_scorer_at(&x->scorer, p, r->row, r->n, r->inv_norm, r->rank);
	for (size_t j = 0; j < r->n; j++)
		if (isnan(r->rank[j]) || r->rank[j] >= x->top[i].floor) vk_topk_push(&x->top[i], r->slot[j], r->rank[j]);
	r->n = 0;
}

static int by_slot(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

/* In the order in which rows lie; a slot that is nominated twice (its node was just replaced) counts once. */
static void order_slots(struct vk_ann_ask *ask)
{
	uint32_t n = 0;
	qsort(ask->slot, ask->n, sizeof *ask->slot, by_slot);
	for (uint32_t i = 0; i < ask->n; i++)
		if (!n || ask->slot[i] != ask->slot[n - 1]) ask->slot[n++] = ask->slot[i];
	ask->n = n;
}

/* Slots of which the view has no row any more are passed over. */
static enum vk_status score_rows(struct search *x, size_t i, struct vk_vset_ascent *rows, const struct vk_prepared *p, struct rows *r)
{
	struct vk_ann_ask *ask = &x->ask[i];
	for (uint32_t j = 0; j < ask->n; j++) {
		struct vk_row row;
		if (!x->in && x->delta && vk_bitmap_has(x->delta->slots, ask->slot[j])) continue;
		enum vk_status st = vk_vset_ascend(rows, ask->slot[j], &row);
		if (st == VK_E_NOT_FOUND) continue;
		if (st) return st;
		x->valid[i]++;
		r->row[r->n] = row.p;
		r->inv_norm[r->n] = row.inv_norm;
		r->slot[r->n++] = ask->slot[j];
		if (r->n == SCORE_ROWS) score(x, i, p, r);
	}
	if (r->n) score(x, i, p, r);
	return VK_OK;
}

static enum vk_status score_nominations(struct search *x, size_t i, const struct vk_exact_query *q, struct vk_arena *a)
{
	struct vk_ann_ask *ask = &x->ask[i];
	struct vk_prepared p;
	struct vk_vset_ascent rows;
	struct rows *r = vk_arena_alloc(a, sizeof *r);
	char *form = vk_arena_alloc(a, vk_scorer_query_bytes(&x->scorer) + 64);
	if (!r || !form) return VK_E_NOMEM;
	vk_scorer_prepare(&x->scorer, q->vector, (char *)(((uintptr_t)form + 63) & ~(uintptr_t)63), &p);
	r->n = 0;
	order_slots(ask);
	enum vk_status st = vk_vset_ascend_begin(&rows, x->v->t, x->set, ask->n ? ask->slot[0] : 0);
	if (!st) st = score_rows(x, i, &rows, &p, r);
	vk_vset_ascend_end(&rows);
	if (st) return st;
	x->found->visited += ask->visited;
	x->found->rescored += x->valid[i];
	return VK_OK;
}

static void keep(struct search *x, size_t i, struct vk_exact_query *q)
{
	q->hits = vk_topk_finish(&x->top[i]);
	q->hit = x->top[i].hit;
	if (!q->limit) q->hits = 0;
}

/* All queries of one set and one `in` against the engine. */
static enum vk_status ask_engine(struct search *x, struct vk_exact_query *const *q, const uint32_t *ef, size_t n, struct vk_pool *pool,
				 struct vk_arena *a)
{
	x->ask = vk_arena_calloc(a, n, sizeof *x->ask);
	x->top = vk_arena_calloc(a, n, sizeof *x->top);
	x->valid = vk_arena_calloc(a, n, sizeof *x->valid);
	x->st = vk_arena_calloc(a, n, sizeof *x->st);
	enum vk_status st = x->ask && x->top && x->valid && x->st ? allow_bits(x, a) : VK_E_NOMEM;
	vk_scorer_init(&x->scorer, x->set, vk_cpu_best());
	for (size_t i = 0; !st && i < n; i++) st = lay(x, i, q[i], ef[i], a);
	if (!st) st = nominate(x, n, pool);
	for (size_t i = 0; !st && i < n; i++) st = score_nominations(x, i, q[i], a);
	return st;
}

enum vk_status vk_ann_probe(struct vk_view *v, const struct vk_set *s, struct vk_gen *gen, const struct vk_delta *delta,
			    struct vk_exact_query *q, size_t n, uint32_t ef, struct vk_arena *a)
{
	struct vk_ann_found found = {0};
	struct search x = {.v = v, .set = s, .gen = gen, .delta = delta, .found = &found, .rows = gen->ops->rows(gen->self)};
	struct vk_exact_query **each = vk_arena_calloc(a, n, sizeof(struct vk_exact_query *));
	uint32_t *efs = vk_arena_calloc(a, n, sizeof *efs);
	if (!each || !efs) return VK_E_NOMEM;
	x.matches = x.rows;
	for (size_t i = 0; i < n; i++) {
		each[i] = &q[i];
		efs[i] = ef;
	}
	enum vk_status st = ask_engine(&x, each, efs, n, NULL, a);
	for (size_t i = 0; !st && i < n; i++) keep(&x, i, &q[i]);
	return st;
}

/* --- what changed since --- */

/* The delta of this view: what is known, and what was written since. */
static enum vk_status delta_of(struct vk_view *v, const struct vk_set *s, struct vk_ann_serving *sv)
{
	uint64_t sequence;
	struct vk_delta *more;
	enum vk_status st = vk_view_sequence(v, &sequence);
	if (st || sequence <= sv->delta->upto) return st;
	st = vk_delta_extend(v, sv->delta, 0, &more);
	if (st) return st;
	vk_ann_offer_delta(v->c->ann, s->id, sv->gen, more);
	vk_delta_unref(sv->delta);
	sv->delta = more;
	return VK_OK;
}

static enum vk_status search_delta(struct search *x, struct vk_exact_query *const *q, size_t n, const struct vk_exact_opts *o,
				   struct vk_arena *a, struct vk_error *err)
{
	struct vk_exact_query *e = vk_arena_calloc(a, n, sizeof *e);
	struct vk_bitmap *in = e ? vk_bitmap_copy(x->delta->slots) : NULL;
	if (in && x->in) vk_bitmap_and(in, x->in);
	enum vk_status st = in && !vk_bitmap_failed(in) ? VK_OK : VK_E_NOMEM;
	for (size_t i = 0; !st && i < n; i++) {
		e[i] = *q[i];
		e[i].in = in;
	}
	if (!st && !vk_bitmap_empty(in)) st = vk_exact_search(x->v, x->set, e, n, o, a, NULL, err);
	for (size_t i = 0; !st && i < n; i++)
		for (size_t j = 0; j < e[i].hits; j++) {
			x->valid[i]++;
			vk_topk_push(&x->top[i], e[i].hit[j].slot, e[i].hit[j].rank);
		}
	x->found->delta_rows += st ? 0 : vk_bitmap_count(in);
	vk_bitmap_free(in);
	return st;
}

/* --- the plan --- */

static bool scan_pays(const struct search *x, uint32_t ef)
{
	uint64_t few = x->rows / VK_ANN_FEW_IN_ALL, most = x->scan_rows_max;
	if (most == VK_ANN_SCAN_AUTO) most = x->gen->ops->scan_rows(x->matches, x->rows, ef);
	if (most > few) few = most;
	if (x->matches <= few) return true;
	/* Most of what an index far behind nominates is thrown away again, and the delta is as much work as all. */
	return x->delta->count > x->rows / 2;
}

/* Fewer than there are: the engine was starved, or lost something on its way. */
static bool fell_short(const struct search *x, size_t i, const struct vk_exact_query *q)
{
	uint64_t there = q->limit < x->matches ? q->limit : x->matches;
	return x->ask[i].gave_up || x->valid[i] < there;
}

static enum vk_status whole(struct search *x, struct vk_exact_query *const *q, size_t n, const struct vk_exact_opts *o, struct vk_arena *a,
			    struct vk_error *err)
{
	struct vk_exact_query *e = vk_arena_calloc(a, n ? n : 1, sizeof *e);
	if (!e) return VK_E_NOMEM;
	for (size_t i = 0; i < n; i++) e[i] = *q[i];
	enum vk_status st = vk_exact_search(x->v, x->set, e, n, o, a, NULL, err);
	for (size_t i = 0; !st && i < n; i++) *q[i] = e[i];
	x->found->whole += n;
	return st;
}

static enum vk_status approximate(struct search *x, struct vk_exact_query **q, const uint32_t *ef, size_t n, const struct vk_exact_opts *o,
				  struct vk_arena *a, struct vk_error *err)
{
	size_t again = 0;
	enum vk_status st = ask_engine(x, q, ef, n, o->pool, a);
	if (!st && x->delta && x->delta->count) st = search_delta(x, q, n, o, a, err);
	if (st) return st;
	for (size_t i = 0; i < n; i++) {
		if (fell_short(x, i, q[i])) q[again++] = q[i];
		else keep(x, i, q[i]);
	}
	x->found->approximate = true;
	return again ? whole(x, q, again, o, a, err) : VK_OK;
}

/* The queries from `first` on that look among the same rows. */
static enum vk_status search_alike(struct vk_view *v, const struct vk_set *s, struct vk_ann_serving *sv, struct vk_ann_query *q, size_t n,
				   size_t first, bool *done, const struct vk_exact_opts *o, struct vk_arena *a, struct vk_ann_found *found,
				   struct vk_error *err)
{
	struct search x = {.v = v, .set = s, .gen = sv->gen, .delta = sv->delta, .in = q[first].q.in,
			   .scan_rows_max = sv->scan_rows_max, .found = found};
	struct vk_exact_query **each = vk_arena_calloc(a, n, sizeof(struct vk_exact_query *));
	struct vk_vset_stats stats;
	uint32_t *ef = vk_arena_calloc(a, n, sizeof *ef);
	uint32_t widest = 0;
	bool wide = false;
	size_t m = 0;
	if (!each || !ef) return VK_E_NOMEM;
	for (size_t i = first; i < n; i++) {
		if (done[i] || q[i].q.in != x.in) continue;
		done[i] = true;
		float recall = q[i].recall > 0 ? q[i].recall : sv->recall;
		ef[m] = q[i].ef ? q[i].ef : vk_ann_auto(sv->curve, sv->curve_n, recall);
		wide |= q[i].q.limit > LIMIT_MAX;
		if (ef[m] > widest) widest = ef[m];
		each[m++] = &q[i].q;
	}
	/* Of the view: an index that is behind it, or ahead of an old one, has others. */
	enum vk_status st = vk_vset_stats(v->t, s, &stats);
	if (st) return st;
	x.rows = stats.rows;
	x.matches = x.in ? vk_bitmap_count(x.in) : x.rows;
	if (wide || scan_pays(&x, widest)) return whole(&x, each, m, o, a, err);
	return approximate(&x, each, ef, m, o, a, err);
}

static enum vk_status exactly(struct vk_view *v, const struct vk_set *s, struct vk_ann_query *q, size_t n, const struct vk_exact_opts *o,
			      struct vk_arena *a, struct vk_ann_found *found, struct vk_error *err)
{
	struct vk_exact_query **each = vk_arena_calloc(a, n ? n : 1, sizeof(struct vk_exact_query *));
	struct search x = {.v = v, .set = s, .found = found};
	if (!each) return VK_E_NOMEM;
	for (size_t i = 0; i < n; i++) each[i] = &q[i].q;
	return whole(&x, each, n, o, a, err);
}

static bool finite_queries(const struct vk_set *s, const struct vk_ann_query *q, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < s->dims; j++)
			if (!isfinite(q[i].q.vector[j])) return false;
	return true;
}

struct asked { /* vk_ann_search()'s arguments, and what serves */
	struct vk_view *v;
	const struct vk_set *s;
	struct vk_ann_query *q;
	size_t n;
	const struct vk_exact_opts *o;
	struct vk_arena *a;
	struct vk_ann_found *found;
	struct vk_error *err;
	struct vk_ann_serving sv;
};

static enum vk_status search_served(void *arg)
{
	struct asked *k = arg;
	bool *done = vk_arena_calloc(k->a, k->n ? k->n : 1, sizeof *done);
	if (!done) return VK_E_NOMEM;
	/* Exact search refuses what no engine should see. */
	if (!finite_queries(k->s, k->q, k->n)) return exactly(k->v, k->s, k->q, k->n, k->o, k->a, k->found, k->err);
	enum vk_status st = delta_of(k->v, k->s, &k->sv);
	for (size_t i = 0; !st && i < k->n; i++)
		if (!done[i]) st = search_alike(k->v, k->s, &k->sv, k->q, k->n, i, done, k->o, k->a, k->found, k->err);
	return st;
}

/* A guard of its own: rows that cannot be read leave the search in the middle, and what serves must be given back all the same. */
enum vk_status vk_ann_search(struct vk_view *v, const struct vk_set *s, struct vk_ann_query *q, size_t n,
			     const struct vk_exact_opts *o, struct vk_arena *a, struct vk_ann_found *found, struct vk_error *err)
{
	struct vk_ann_found unasked;
	if (!found) found = &unasked;
	*found = (struct vk_ann_found){0};
	struct asked k = {v, s, q, n, o, a, found, err, {0}};
	bool serves = v->c->ann && !v->writing && vk_ann_take(v->c->ann, s->id, &k.sv);
	if (!serves) return exactly(v, s, q, n, o, a, found, err);
	enum vk_status st = vk_guard_run(v->c->kv, search_served, &k);
	vk_ann_give(&k.sv);
	if (!st) vk_ann_count(v->c->ann, s->id, found->whole, n - found->whole);
	if (st == VK_E_IO) return vk_fail(err, st, "the rows of a vector set cannot be read: %s", vk_status_text(st));
	return st == VK_E_NOMEM ? vk_fail(err, st, "not enough memory for the search") : st;
}
