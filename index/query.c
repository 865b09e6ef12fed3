/*
 * The run of query trees.
 *
 * Model: all trees of the call are laid out as nodes first. Leaves (no prefetch) know their filter then: their own joined with those
 * of all levels above. A filter is answered once, and leaves that search the same set in the same bitmap become one call of exact
 * search, whatever trees they are of: that is where a batch gains. Then the trees are folded upwards, each level over what the level
 * below found. Points that a tree names by id are no part of the bitmaps (then batches by id would share nothing): searches take as
 * many hits more and leave them out afterwards.
 */
#include "index/query.h"

#include <math.h>
#include <stdlib.h>

#include "index/query_parts.h"

#define NODES_MAX 1024 /* of one tree */
#define TAKE_MAX (VK_EXACT_LIMIT_MAX - NODES_MAX)

struct joined { /* the filters of a level and of those above it, as one */
	const struct vk_filter *outer, *inner, *both;
	struct joined *next;
};

struct place { /* a filter's answer */
	const struct vk_filter *filter;
	const struct vk_bitmap *in;
	struct vk_bitmap *own;
	bool all; /* no condition, nobody expired: a search needs no bitmap */
	struct place *next;
};

struct tree {
	uint32_t *out; /* slots that it names, ascending */
	size_t out_n, nodes;
};

struct node {
	const struct vk_query *q;
	struct tree *tree;
	struct node *child;   /* q->prefetch_n of them */
	const struct place *place; /* leaves: where to look; inner levels: what must hold anew, or NULL */
	size_t take;
	struct vk_found_list list;
	struct node *next;    /* of all leaves that search */
	bool searched;
};

struct run {
	struct vk_view *v;
	const struct vk_query_env *env;
	struct vk_arena *a;
	struct vk_error *err;
	size_t limit_max;
	uint64_t points;
	struct joined *joined;
	struct place *places;
	struct node *searches, **searches_tail;
};

static enum vk_status no_memory(struct run *r)
{
	return vk_fail(r->err, VK_E_NOMEM, "out of memory; try again shortly");
}

static enum vk_status explain(struct run *r, enum vk_status st)
{
	if (st == VK_E_NOMEM) return no_memory(r);
	if (st == VK_E_CANCELLED) return vk_fail(r->err, st, "the query was given up");
	if (st) vk_fail(r->err, st, "the collection cannot be read");
	return st;
}

/* --- checks --- */

static bool is_fusion(enum vk_query_kind k)
{
	return k == VK_QUERY_RRF || k == VK_QUERY_DBSF;
}

static enum vk_status check_weights(const struct vk_query *q, struct vk_error *err)
{
	for (size_t i = 0; q->rrf_weight && i < q->prefetch_n; i++)
		if (!isfinite(q->rrf_weight[i]))
			return vk_fail(err, VK_E_INVALID, "Wrong input: RRF weights must be finite");
	return VK_OK;
}

enum vk_status vk_query_no_merge(struct vk_error *err)
{
	return vk_fail(err, VK_E_INVALID, "Bad request: A query is needed to merge the prefetches. Can't have prefetches without "
					  "defining a query.");
}

static enum vk_status check(const struct vk_query *q, unsigned depth, struct vk_error *err)
{
	if (depth > VK_QUERY_DEPTH_MAX)
		return vk_fail(err, VK_E_INVALID, "Wrong input: Validation failed: prefetches depth %u exceeds max depth %d", depth,
			       VK_QUERY_DEPTH_MAX);
	if (q->prefetch_n > VK_QUERY_PREFETCH_MAX)
		return vk_fail(err, VK_E_INVALID, "Wrong input: %zu prefetches at one level, at most %d are possible", q->prefetch_n,
			       VK_QUERY_PREFETCH_MAX);
	if (q->prefetch_n && q->kind == VK_QUERY_SCROLL) return vk_query_no_merge(err);
	if (q->has_threshold && q->kind == VK_QUERY_SCROLL)
		return vk_fail(err, VK_E_INVALID, "Bad request: A query is needed to use the score_threshold. Can't have "
						  "score_threshold without defining a query.");
	if (q->has_threshold && q->kind == VK_QUERY_ORDER_BY)
		return vk_fail(err, VK_E_INVALID, "Bad request: Can't use score_threshold with an order_by query.");
	if (is_fusion(q->kind) && !q->prefetch_n)
		return vk_fail(err, VK_E_INVALID, "Wrong input: Validation failed: cannot apply Fusion without prefetches");
	enum vk_status st = check_weights(q, err);
	for (size_t i = 0; !st && i < q->prefetch_n; i++) st = check(&q->prefetch[i], depth + 1, err);
	return st;
}

/* How many of its answer a level needs. More than all points is all; only an order by a field can have more entries than points. */
static enum vk_status set_take(struct run *r, struct node *n)
{
	const struct vk_query *q = n->q;
	bool many = q->kind == VK_QUERY_ORDER_BY;
	size_t limit = !many && q->limit > r->points ? (size_t)r->points : q->limit;
	/* A sample without prefetches has no order that an offset could count in. */
	size_t offset = q->kind == VK_QUERY_SAMPLE && !q->prefetch_n ? 0 : q->offset;
	if (limit > r->limit_max)
		return vk_fail(r->err, VK_E_INVALID, "Wrong input: limit %zu is too large, at most %zu points are given at once; scroll "
						     "through more", q->limit, r->limit_max);
	n->take = offset > SIZE_MAX - limit ? SIZE_MAX : limit + offset;
	if (!many && n->take > r->points) n->take = (size_t)r->points;
	if (n->take > TAKE_MAX && offset)
		return vk_fail(r->err, VK_E_INVALID, "Wrong input: offset %zu is too large; scroll through the points instead", q->offset);
	if (n->take > TAKE_MAX) n->take = TAKE_MAX;
	return VK_OK;
}

/* --- layout --- */

/* Once a pair, so that equal levels of a batch's trees stay one filter. */
static enum vk_status join(struct run *r, const struct vk_filter *outer, const struct vk_filter *inner, const struct vk_filter **both)
{
	struct joined *j;
	*both = outer ? outer : inner;
	if (!outer || !inner) return VK_OK;
	for (j = r->joined; j; j = j->next)
		if (j->outer == outer && j->inner == inner) break;
	if (!j) {
		if (!(j = vk_arena_calloc(r->a, 1, sizeof *j)) || !(j->both = vk_filter_join(r->a, outer, inner))) return no_memory(r);
		j->outer = outer;
		j->inner = inner;
		j->next = r->joined;
		r->joined = j;
	}
	*both = j->both;
	return VK_OK;
}

static enum vk_status answer(struct run *r, struct place *p)
{
	if (!p->filter) {
		p->all = !vk_view_has_ttl(r->v);
		return explain(r, vk_view_live(r->v, &p->in));
	}
	enum vk_status st = vk_filter_bitmap(r->v, p->filter, &p->own, r->err);
	p->in = p->own;
	return st;
}

static enum vk_status find_place(struct run *r, const struct vk_filter *filter, const struct place **out)
{
	struct place *p;
	for (p = r->places; p; p = p->next)
		if (p->filter == filter) break;
	*out = p;
	if (p) return VK_OK;
	if (!(p = vk_arena_calloc(r->a, 1, sizeof *p))) return no_memory(r);
	p->filter = filter;
	p->next = r->places;
	r->places = p;
	*out = p;
	return answer(r, p);
}

static enum vk_status lay(struct run *r, struct tree *t, struct node *n, const struct vk_query *q, const struct vk_filter *above)
{
	n->q = q;
	n->tree = t;
	if (++t->nodes > NODES_MAX)
		return vk_fail(r->err, VK_E_INVALID, "Wrong input: more than %d prefetches in one query", NODES_MAX);
	enum vk_status st = set_take(r, n);
	if (!st) st = join(r, above, q->filter, &above);
	if (st) return st;
	if (!q->prefetch_n) {
		if (q->kind == VK_QUERY_NEAREST) {
			*r->searches_tail = n;
			r->searches_tail = &n->next;
		}
		return find_place(r, above, &n->place);
	}
	if (!is_fusion(q->kind) && above && !vk_filter_stays(above)) st = find_place(r, above, &n->place);
	if (!(n->child = vk_arena_calloc(r->a, q->prefetch_n, sizeof *n->child))) return no_memory(r);
	for (size_t i = 0; !st && i < q->prefetch_n; i++) st = lay(r, t, &n->child[i], &q->prefetch[i], above);
	return st;
}

static size_t count_named(const struct vk_query *q)
{
	size_t n = q->not_id.n > 0;
	for (size_t i = 0; i < q->prefetch_n; i++) n += count_named(&q->prefetch[i]);
	return n;
}

static enum vk_status find_named(struct run *r, struct tree *t, const struct vk_query *q)
{
	uint32_t slot;
	enum vk_status st = q->not_id.n ? vk_view_slot(r->v, q->not_id, &slot) : VK_E_NOT_FOUND;
	if (!st) {
		size_t i = t->out_n++;
		for (; i && t->out[i - 1] > slot; i--) t->out[i] = t->out[i - 1];
		t->out[i] = slot;
	} else if (st != VK_E_NOT_FOUND) {
		return explain(r, st);
	}
	for (size_t i = 0; i < q->prefetch_n; i++)
		if ((st = find_named(r, t, &q->prefetch[i]))) return st;
	return VK_OK;
}

static enum vk_status lay_tree(struct run *r, struct tree *t, struct node *n, const struct vk_query *q, const struct vk_filter *also)
{
	enum vk_status st = check(q, 0, r->err);
	if (!st) st = lay(r, t, n, q, also);
	if (st) return st;
	size_t named = count_named(q);
	if (named && !(t->out = vk_arena_calloc(r->a, named, sizeof *t->out))) return no_memory(r);
	return named ? find_named(r, t, q) : VK_OK;
}

/* --- searching --- */

static bool by_bits(const struct vk_query *q)
{
	return q->using->set.quant == VK_QUANT_BINARY && q->quant && !q->exact && !q->quant_ignore && !q->quant_rescore_off;
}

/* May an index nominate? A few points among prefetches are looked at one by one; rescoring off means codes alone, which only sign
 * bits have. */
static bool by_index(const struct vk_query *q)
{
	return !q->exact && !q->prefetch_n && !by_bits(q);
}

/* Can both be of one call? */
static bool together(const struct node *a, const struct node *b)
{
	return a->q->using->set.id == b->q->using->set.id && a->place == b->place && by_bits(a->q) == by_bits(b->q) &&
	       (!by_bits(a->q) || a->q->oversampling == b->q->oversampling) && by_index(a->q) == by_index(b->q);
}

/* Strictly: Qdrant's thresholds are not reached by what equals them. */
static bool passes(const struct vk_query *q, float score)
{
	if (!q->has_threshold) return true;
	return vk_metric_bigger_is_nearer(q->using->set.metric) ? score > q->threshold : score < q->threshold;
}

static enum vk_status take_hits(struct run *r, struct node *n, const struct vk_exact_query *e)
{
	const struct vk_scope named = {.out = n->tree->out, .out_n = n->tree->out_n};
	for (size_t i = 0; i < e->hits && n->list.n < n->take; i++) {
		float score = vk_score_of_rank(n->q->using->set.metric, e->hit[i].rank);
		if (!passes(n->q, score)) break;
		if (vk_scope_out(&named, e->hit[i].slot)) continue;
		if (!vk_found_add(&n->list, &(struct vk_found){.slot = e->hit[i].slot, .score = score})) return no_memory(r);
	}
	return VK_OK;
}

static struct vk_ann_query query_of(const struct node *n, const struct vk_bitmap *in)
{
	const struct vk_query *q = n->q;
	struct vk_ann_query e = {.q = {.vector = q->vector, .limit = n->take + n->tree->out_n, .floor = -INFINITY, .in = in},
				 .ef = q->ef, .recall = q->recall};
	if (q->has_threshold) e.q.floor = vk_rank_of_threshold(q->using->set.metric, q->threshold);
	return e;
}

static enum vk_status search_exactly(struct run *r, const struct vk_set *s, struct vk_ann_query *q, size_t n, const struct vk_exact_opts *o)
{
	struct vk_exact_query *e = vk_arena_calloc(r->a, n, sizeof *e);
	if (!e) return no_memory(r);
	for (size_t i = 0; i < n; i++) e[i] = q[i].q;
	enum vk_status st = vk_exact_search(r->v, s, e, n, o, r->a, NULL, r->err);
	for (size_t i = 0; i < n; i++) q[i].q = e[i];
	return st;
}

static enum vk_status search(struct run *r, struct node **nodes, size_t n, const struct vk_bitmap *in)
{
	const struct vk_query *first = nodes[0]->q;
	const struct vk_set *set = &first->using->set;
	struct vk_ann_query *e = vk_arena_calloc(r->a, n, sizeof *e);
	struct vk_exact_opts o = {.path = by_bits(first) ? VK_EXACT_BITS : VK_EXACT_AUTO, .oversampling = first->oversampling,
				  .level = vk_cpu_best()};
	if (!e) return no_memory(r);
	if (r->env) {
		o.pool = r->env->pool;
		o.stop = r->env->stop;
	}
	for (size_t i = 0; i < n; i++) e[i] = query_of(nodes[i], in);
	enum vk_status st = by_index(first) ? vk_ann_search(r->v, set, e, n, &o, r->a, NULL, r->err) : search_exactly(r, set, e, n, &o);
	for (size_t i = 0; !st && i < n; i++) st = take_hits(r, nodes[i], &e[i].q);
	return st;
}

static enum vk_status search_leaves(struct run *r)
{
	size_t total = 0, n;
	for (struct node *p = r->searches; p; p = p->next) total++;
	struct node **group = total ? vk_arena_calloc(r->a, total, sizeof(struct node *)) : NULL;
	if (total && !group) return no_memory(r);
	for (struct node *p = r->searches; p; p = p->next) {
		if (p->searched) continue;
		n = 0;
		for (struct node *s = p; s; s = s->next) {
			if (s->searched || !together(p, s)) continue;
			s->searched = true;
			if (s->take) group[n++] = s;
		}
		enum vk_status st = n ? search(r, group, n, p->place->all ? NULL : p->place->in) : VK_OK;
		if (st) return st;
	}
	return VK_OK;
}

/* --- folding --- */

static enum vk_status walk(struct run *r, struct node *n, const struct vk_bitmap *in)
{
	const struct vk_scope s = {.in = in, .out = n->tree->out, .out_n = n->tree->out_n};
	switch (n->q->kind) {
	case VK_QUERY_SCROLL: return explain(r, vk_query_scroll(r->v, &s, n->q->from, n->take, r->env, &n->list));
	case VK_QUERY_ORDER_BY: return explain(r, vk_query_order(r->v, &s, &n->q->order, n->take, r->env, &n->list));
	case VK_QUERY_SAMPLE: return explain(r, vk_query_sample(&s, n->q->seed, n->take, &n->list));
	case VK_QUERY_NEAREST: return n->take ? search(r, &n, 1, in) : VK_OK;
	default: return VK_OK;
	}
}

static enum vk_status fuse(struct run *r, struct node *n)
{
	size_t count = n->q->prefetch_n;
	struct vk_found_list *src = vk_arena_calloc(r->a, count, sizeof *src);
	if (!src) return no_memory(r);
	for (size_t i = 0; i < count; i++) src[i] = n->child[i].list;
	enum vk_status st = n->q->kind == VK_QUERY_RRF ? vk_query_rrf(r->v, n->q, src, count, n->take, &n->list)
						       : vk_query_dbsf(r->v, src, count, n->take, &n->list);
	for (size_t i = 0; n->q->has_threshold && i < n->list.n; i++)
		if (!(n->list.p[i].score >= n->q->threshold)) n->list.n = i;
	return explain(r, st);
}

/* Asks the level's own question among what the levels below found. Where joining made alternatives of this level's conditions and
 * those below, the level's own must hold anew, as in qdrant-client's engine: an answer keeps to its own filter. */
static enum vk_status rescore(struct run *r, struct node *n)
{
	struct vk_bitmap *in = vk_bitmap_new();
	if (!in) return no_memory(r);
	for (size_t i = 0; i < n->q->prefetch_n; i++)
		for (size_t j = 0; j < n->child[i].list.n; j++) vk_bitmap_add(in, n->child[i].list.p[j].slot);
	if (n->place) vk_bitmap_and(in, n->place->in);
	enum vk_status st = vk_bitmap_failed(in) ? no_memory(r) : walk(r, n, in);
	vk_bitmap_free(in);
	return st;
}

static enum vk_status fold(struct run *r, struct node *n)
{
	const struct vk_query *q = n->q;
	enum vk_status st = VK_OK;
	for (size_t i = 0; !st && i < q->prefetch_n; i++) st = fold(r, &n->child[i]);
	if (st) return st;
	if (is_fusion(q->kind)) st = fuse(r, n);
	else if (q->prefetch_n) st = rescore(r, n);
	else if (q->kind != VK_QUERY_NEAREST) st = walk(r, n, n->place->in);
	if (st) return st;
	vk_found_window(&n->list, q->kind == VK_QUERY_SAMPLE && !q->prefetch_n ? 0 : q->offset, q->limit);
	for (size_t i = 0; i < q->prefetch_n; i++) vk_found_free(&n->child[i].list);
	return VK_OK;
}

static enum vk_status keep(struct run *r, struct node *n, struct vk_query_result *out)
{
	*out = (struct vk_query_result){.n = n->list.n};
	if (!n->list.n) return VK_OK;
	if (!(out->found = vk_arena_alloc(r->a, n->list.n * sizeof *out->found))) return no_memory(r);
	memcpy(out->found, n->list.p, n->list.n * sizeof *out->found);
	return VK_OK;
}

static void drop(struct node *n)
{
	vk_found_free(&n->list);
	for (size_t i = 0; n->child && i < n->q->prefetch_n; i++) drop(&n->child[i]);
}

enum vk_status vk_query_run_within(struct vk_view *v, const struct vk_query *q, size_t n, const struct vk_filter *also,
				   size_t limit_max, const struct vk_query_env *env, struct vk_arena *a,
				   struct vk_query_result *out, struct vk_error *err)
{
	struct run r = {.v = v, .env = env, .a = a, .err = err, .limit_max = limit_max, .points = vk_view_points(v)};
	struct node *node = vk_arena_calloc(a, n ? n : 1, sizeof *node);
	struct tree *tree = vk_arena_calloc(a, n ? n : 1, sizeof *tree);
	enum vk_status st = node && tree ? VK_OK : no_memory(&r);
	r.searches_tail = &r.searches;
	for (size_t i = 0; !st && i < n; i++) st = lay_tree(&r, &tree[i], &node[i], &q[i], also);
	if (!st) st = search_leaves(&r);
	for (size_t i = 0; !st && i < n; i++) {
		st = fold(&r, &node[i]);
		if (!st) st = keep(&r, &node[i], &out[i]);
	}
	for (size_t i = 0; node && i < n; i++)
		if (node[i].q) drop(&node[i]);
	for (struct place *p = r.places; p; p = p->next) vk_bitmap_free(p->own);
	return st;
}

enum vk_status vk_query_run(struct vk_view *v, const struct vk_query *q, size_t n, const struct vk_query_env *env,
			    struct vk_arena *a, struct vk_query_result *out, struct vk_error *err)
{
	return vk_query_run_within(v, q, n, NULL, VK_QUERY_LIMIT_MAX, env, a, out, err);
}
