/*
 * Goal: the run of query trees (index/query.h) gives exactly what its meaning says: right points, right scores to the bit, right order.
 * Method: one real collection of some hundred points (two vectors, some points lack one; deletes and rewrites among the writes); an
 * oracle beside it that knows nothing of bitmaps, indexes or batches: it goes over all points, scores each by the scalar kernel, sorts
 * all, and writes the fusions' formulas out. Random trees of every kind, alone and in batches; then by hand what chance would not
 * show: formulas in numbers, errors in Qdrant's words, samples, groups.
 */
#include <math.h>

#include "index/collection.h"
#include "index/query_parts.h"
#include "tests/store/util.h"

#define POINTS 400
#define KEYS 6
#define FOUND_MAX 4096
#define TREES 1500

enum { SET_A, SET_B, SETS };
static const uint32_t dims_of[SETS] = {8, 5};

struct model_point {
	bool live, has[SETS];
	struct vk_bytes id;
	uint8_t key[32];
	float row[SETS][8];
	int k;          /* keyword "k0" .. */
	int64_t n[2];   /* values of "n" */
	size_t n_n;
	bool odd;       /* "n" holds a value, too, that names no group */
	double f;
};

struct world {
	struct temp dir;
	struct vk_kv_writers *writers;
	struct vk_collection *c;
	struct vk_pool *pool;
	struct model_point p[POINTS];
	struct vk_view v;
	struct vk_arena a;
	uint64_t dice;
};
static struct world *w;

#define CONFIG(ttl) \
	"{\"vectors\":{\"a\":{\"size\":8,\"distance\":\"Cosine\",\"datatype\":\"float32\",\"veckeep\":{\"set\":1,\"space\":null,\"raw\":true}}," \
	"\"b\":{\"size\":5,\"distance\":\"Euclid\",\"datatype\":\"float32\",\"veckeep\":{\"set\":2,\"space\":null,\"raw\":true}}}," \
	"\"indexes\":{\"k\":{\"field\":1,\"type\":\"keyword\",\"params\":null,\"state\":\"ready\"}," \
	"\"n\":{\"field\":2,\"type\":\"integer\",\"params\":null,\"state\":\"ready\"}," \
	"\"f\":{\"field\":3,\"type\":\"float\",\"params\":null,\"state\":\"ready\"}}," \
	"\"veckeep\":{\"text_from\":null,\"provenance\":\"off\",\"ttl\":" ttl ",\"next_set\":3,\"next_field\":4," \
	"\"pool\":\"default\"}}"

static uint32_t roll(uint32_t n)
{
	return (uint32_t)(vk_rng(&w->dice) % n);
}

static float real(void)
{
	return (float)((double)(vk_rng(&w->dice) >> 40) / (1 << 23) - 1);
}

/* --- the world --- */

static void write_ops(struct vk_op_in *op, size_t n)
{
	struct vk_colconf *conf = vk_collection_config(w->c);
	struct vk_write write = {.op = op, .op_n = n, .conf = conf, .now_ms = 1000};
	enum vk_status st = vk_collection_write_wait(w->c, &write);
	if (st) print_message("%s\n", write.err.text);
	assert_int_equal(st, VK_OK);
	vk_colconf_unref(conf);
}

static void make_id(struct model_point *p, uint32_t i)
{
	if (i % 3) {
		vk_id_u64(p->key, (uint64_t)i * 37 % POINTS);
		p->id = (struct vk_bytes){(char *)p->key, 9};
	} else {
		uint64_t r[2] = {vk_rng(&w->dice), i};
		p->key[0] = 2;
		memcpy(p->key + 1, r, 16);
		p->id = (struct vk_bytes){(char *)p->key, 17};
	}
}

static void put_point(uint32_t i)
{
	struct model_point *p = &w->p[i];
	struct vk_colconf *conf = vk_collection_config(w->c);
	struct vk_vec vec[SETS];
	struct vk_point_in in = {.id = p->id, .vec = vec};
	struct vk_json *doc;
	char text[256];
	for (int s = 0; s < SETS; s++) {
		p->has[s] = roll(10) > 0;
		for (uint32_t d = 0; d < dims_of[s]; d++) p->row[s][d] = real();
		if (p->has[s]) vec[in.vec_n++] = (struct vk_vec){.conf = vk_colconf_vector(conf, s ? VK_LIT("b") : VK_LIT("a")), .row = p->row[s]};
	}
	p->live = true;
	p->k = (int)roll(KEYS);
	p->n_n = roll(3);
	p->n[0] = (int64_t)roll(40) - 20;
	p->n[1] = p->n[0] + 1 + roll(5);
	p->odd = p->n_n == 1 && roll(4) == 0;
	p->f = (double)(int)roll(1000) / 8 - 60;
	int at = snprintf(text, sizeof text, "{\"k\":\"k%d\",\"f\":%.17g", p->k, p->f);
	if (p->odd) at += snprintf(text + at, sizeof text - (size_t)at, ",\"n\":[%lld,true]", (long long)p->n[0]);
	else if (p->n_n == 1) at += snprintf(text + at, sizeof text - (size_t)at, ",\"n\":%lld", (long long)p->n[0]);
	if (p->n_n == 2) at += snprintf(text + at, sizeof text - (size_t)at, ",\"n\":[%lld,%lld]", (long long)p->n[0], (long long)p->n[1]);
	snprintf(text + at, sizeof text - (size_t)at, "}");
	struct vk_arena a;
	vk_arena_init(&a, 1 << 20);
	in.payload = vk_bytes_of(text);
	assert_int_equal(vk_json_parse(&a, in.payload, &(struct vk_json_opts){.object_spans = true}, &doc, NULL), VK_OK);
	in.payload_jv = vk_json_root(doc);
	write_ops(&(struct vk_op_in){.kind = VK_OP_UPSERT, .point = &in, .point_n = 1}, 1);
	vk_json_free(doc);
	vk_arena_free(&a);
	vk_colconf_unref(conf);
}

static void delete_point(uint32_t i)
{
	struct vk_bytes id = w->p[i].id;
	write_ops(&(struct vk_op_in){.kind = VK_OP_DELETE, .ids = &id, .ids_n = 1}, 1);
	w->p[i].live = false;
}

static int setup(void **state)
{
	struct vk_error err = {0};
	w = calloc(1, sizeof *w);
	*state = w;
	temp_make(&w->dir);
	w->dice = test_seed("query");
	assert_int_equal(vk_kv_writers_new(1, &w->writers), VK_OK);
	struct vk_collection_opts o = {.writers = w->writers, .map_bytes = (uint64_t)1 << 30};
	if (vk_collection_open(w->dir.path, VK_LIT(CONFIG("null")), &o, &w->c, &err)) fail_msg("%s", err.text);
	w->pool = vk_pool_new(2, 64, "test");
	for (uint32_t i = 0; i < POINTS; i++) {
		make_id(&w->p[i], i);
		put_point(i);
		if (i % 100 == 99) assert_int_equal(vk_collection_seal(w->c), VK_OK);
	}
	for (int i = 0; i < 60; i++) delete_point(roll(POINTS));
	for (int i = 0; i < 80; i++) put_point(roll(POINTS));
	assert_int_equal(vk_view_begin(w->c, 2000, &w->v), VK_OK);
	vk_arena_init(&w->a, (size_t)1 << 30);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	vk_view_end(&w->v);
	vk_collection_unref(w->c);
	vk_pool_free(w->pool);
	vk_kv_writers_free(w->writers);
	vk_arena_free(&w->a);
	temp_free(&w->dir);
	free(w);
	return 0;
}

/* --- filters: of both kinds, from one description --- */

struct cond { /* bit i: the condition on k == i; must_n: n > bound */
	unsigned should, must_not;
	bool has_bound;
	int bound;
};

static const char *cond_list(char *at, unsigned bits)
{
	const char *start = at;
	at += sprintf(at, "[");
	for (int i = 0; i < KEYS; i++)
		if (bits >> i & 1) at += sprintf(at, "%s{\"key\":\"k\",\"match\":{\"value\":\"k%d\"}}", at == start + 1 ? "" : ",", i);
	sprintf(at, "]");
	return start;
}

static const struct vk_filter *filter_of(const struct cond *c)
{
	char text[2048], should[512], not[512], must[128] = "[]";
	struct vk_filter *f;
	struct vk_json *doc;
	struct vk_error err;
	if (!c->should && !c->must_not && !c->has_bound) return NULL;
	if (c->has_bound) snprintf(must, sizeof must, "[{\"key\":\"f\",\"range\":{\"gt\":%d}}]", c->bound);
	snprintf(text, sizeof text, "{\"should\":%s,\"must_not\":%s,\"must\":%s}", cond_list(should, c->should), cond_list(not, c->must_not), must);
	char *kept = vk_arena_strndup(&w->a, text, strlen(text));
	assert_int_equal(vk_json_parse(&w->a, vk_bytes_of(kept), NULL, &doc, &err), VK_OK);
	if (vk_filter_parse(&w->a, vk_json_root(doc), &f, &err)) fail_msg("%s: %s", text, err.text);
	vk_json_free(doc); /* what a filter needs of it is in the arena */
	return f;
}

static struct cond both(const struct cond *a, const struct cond *b)
{
	struct cond c = {.should = a->should | b->should, .must_not = a->must_not | b->must_not, .has_bound = a->has_bound || b->has_bound};
	c.bound = !a->has_bound ? b->bound : !b->has_bound ? a->bound : a->bound > b->bound ? a->bound : b->bound;
	return c;
}

static bool holds(const struct cond *c, const struct model_point *p)
{
	if (c->should && !(c->should >> p->k & 1)) return false;
	if (c->must_not >> p->k & 1) return false;
	return !c->has_bound || p->f > c->bound;
}

/* --- trees, with their conditions beside --- */

struct tree {
	struct vk_query q;
	struct cond cond;
	int set;
	struct tree *child; /* q.prefetch_n */
};

static const struct vk_field_conf *field(const char *name)
{
	return vk_colconf_field(w->v.conf, vk_bytes_of(name));
}

static float oracle_rank(const struct tree *t, const struct model_point *p);

static void random_cond(struct cond *c)
{
	*c = (struct cond){0};
	if (roll(3) == 0) c->should = roll(1 << KEYS);
	if (roll(4) == 0) c->must_not = 1u << roll(KEYS);
	if (roll(4) == 0) *c = (struct cond){c->should, c->must_not, true, (int)roll(80) - 60};
}

static void random_tree(struct tree *t, int depth)
{
	static const enum vk_query_kind leaf[] = {VK_QUERY_SCROLL, VK_QUERY_NEAREST, VK_QUERY_NEAREST, VK_QUERY_NEAREST, VK_QUERY_ORDER_BY};
	static const enum vk_query_kind inner[] = {VK_QUERY_RRF, VK_QUERY_DBSF, VK_QUERY_NEAREST, VK_QUERY_ORDER_BY, VK_QUERY_RRF};
	struct vk_query *q = &t->q;
	bool is_leaf = depth == 0 || roll(3) == 0;
	*t = (struct tree){0};
	random_cond(&t->cond);
	q->kind = is_leaf ? leaf[roll(5)] : inner[roll(5)];
	q->filter = filter_of(&t->cond);
	q->limit = 1 + roll(roll(4) ? 20 : POINTS + 50);
	q->offset = roll(4) ? 0 : roll(15);
	if (!is_leaf) {
		q->prefetch_n = 1 + roll(3);
		t->child = vk_arena_calloc(&w->a, q->prefetch_n, sizeof *t->child);
		q->prefetch = vk_arena_calloc(&w->a, q->prefetch_n, sizeof *q->prefetch);
		for (size_t i = 0; i < q->prefetch_n; i++) {
			random_tree(&t->child[i], depth - 1);
			q->prefetch[i] = t->child[i].q;
		}
	}
	if (q->kind == VK_QUERY_NEAREST) {
		t->set = (int)roll(SETS);
		q->using = vk_colconf_vector(w->v.conf, t->set ? VK_LIT("b") : VK_LIT("a"));
		float *v = vk_arena_alloc(&w->a, 8 * sizeof *v);
		uint32_t like = roll(POINTS);
		for (uint32_t d = 0; d < 8; d++) v[d] = roll(6) ? real() : w->p[like].row[t->set][d];
		q->vector = v;
		if (roll(5) == 0) q->not_id = w->p[like].id;
		q->has_threshold = roll(4) == 0;
		q->threshold = t->set ? 1 + real() : real() / 2;
		/* What equals a threshold is out, so it is asked for just that. */
		if (roll(2)) q->threshold = t->set ? sqrtf(-oracle_rank(t, &w->p[roll(POINTS)])) : oracle_rank(t, &w->p[roll(POINTS)]);
	}
	if (q->kind == VK_QUERY_ORDER_BY) {
		bool whole = roll(2);
		q->order = (struct vk_order_by){.field = field(whole ? "n" : "f"), .descending = roll(2), .has_start = roll(3) == 0};
		q->order.start = (struct vk_order_value){.is_i64 = whole, .i64 = (int64_t)roll(30) - 15, .f64 = (double)roll(100) - 50};
	}
	if (q->kind == VK_QUERY_RRF) {
		q->rrf_k = roll(3) ? 0 : 1 + roll(60);
		float *weight = roll(2) ? vk_arena_calloc(&w->a, 8, sizeof *weight) : NULL;
		for (size_t i = 0; weight && i < 8; i++) weight[i] = (float)roll(5) / 2;
		q->rrf_weight = weight;
	}
	if ((q->kind == VK_QUERY_RRF || q->kind == VK_QUERY_DBSF) && roll(5) == 0) q->threshold = 0.4f, q->has_threshold = true;
}

/* --- the oracle --- */

struct entry {
	uint32_t i; /* model point */
	float score, rank;
	bool has_order;
	struct vk_order_value order;
};
struct answer {
	struct entry e[FOUND_MAX];
	size_t n;
};

static int entry_by_id(const void *a, const void *b)
{
	return vk_id_compare(w->p[((const struct entry *)a)->i].id, w->p[((const struct entry *)b)->i].id);
}

static int entry_by_rank(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	return x->rank != y->rank ? (x->rank > y->rank ? -1 : 1) : entry_by_id(a, b);
}

static int entry_by_value(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	double p = x->order.is_i64 ? (double)x->order.i64 : x->order.f64, q = y->order.is_i64 ? (double)y->order.i64 : y->order.f64;
	return p != q ? (p < q ? -1 : 1) : entry_by_id(a, b);
}

static float oracle_rank(const struct tree *t, const struct model_point *p)
{
	const struct vk_set *s = &t->q.using->set;
	const struct vk_kernels *k = vk_kernels(VK_CPU_SCALAR);
	float unit[8], raw;
	memcpy(unit, t->q.vector, sizeof unit);
	if (s->metric == VK_METRIC_COSINE) vk_unit(unit, t->q.vector, s->dims);
	k->score[vk_metric_kind(s->metric)][VK_DTYPE_F32](unit, p->row[t->set], s->dims * 4, 1, s->dims, NULL, &raw);
	if (s->metric == VK_METRIC_COSINE) raw *= vk_inverse_norm(p->row[t->set], s->dims);
	return vk_rank_of_raw(s->metric, raw);
}

static bool beyond_start(const struct vk_order_by *o, const struct vk_order_value *v)
{
	if (!o->has_start) return false;
	double x = v->is_i64 ? (double)v->i64 : v->f64, s = v->is_i64 ? (double)o->start.i64 : o->start.f64;
	return o->descending ? x > s : x < s;
}

static void ask_point(const struct tree *t, uint32_t i, struct answer *out)
{
	const struct vk_query *q = &t->q;
	const struct model_point *p = &w->p[i];
	struct entry e = {.i = i, .score = 1};
	if (q->kind == VK_QUERY_NEAREST) {
		if (!p->has[t->set]) return;
		e.rank = oracle_rank(t, p);
		e.score = t->set ? sqrtf(-e.rank) : e.rank;
		if (q->has_threshold && (t->set ? e.score >= q->threshold : e.score <= q->threshold)) return;
	}
	bool whole = q->kind == VK_QUERY_ORDER_BY && q->order.field->type == VK_FIELD_INTEGER;
	size_t times = whole ? p->n_n : 1;
	for (size_t j = 0; j < times; j++) {
		e.has_order = q->kind == VK_QUERY_ORDER_BY;
		if (e.has_order) e.order = whole ? (struct vk_order_value){.is_i64 = true, .i64 = p->n[j]} : (struct vk_order_value){.f64 = p->f};
		if (!e.has_order || !beyond_start(&q->order, &e.order)) out->e[out->n++] = e;
	}
}

static void sum_into(struct answer *out, const struct entry *e, float score)
{
	for (size_t i = 0; i < out->n; i++)
		if (out->e[i].i == e->i) {
			out->e[i].score += score;
			return;
		}
	out->e[out->n] = *e;
	out->e[out->n++].score = score;
}

static void fuse_list(const struct vk_query *q, size_t list, const struct answer *src, struct answer *out)
{
	float mean = 0, m2 = 0, weight = q->rrf_weight ? q->rrf_weight[list] : 1, k = q->rrf_k ? (float)q->rrf_k : 2;
	for (size_t i = 0; i < src->n; i++) {
		float d = src->e[i].score - mean;
		mean += d / (float)(i + 1);
		m2 += d * (src->e[i].score - mean);
	}
	float sigma = src->n > 1 ? sqrtf(m2 / (float)(src->n - 1)) : 0, low = mean - 3 * sigma, high = mean + 3 * sigma;
	for (size_t i = 0; i < src->n; i++) {
		float share = low == high ? 0.5f : (src->e[i].score - low) / (high - low);
		float place = weight <= 0 ? 0 : 1 / ((float)(i + 1) / weight + k - 1);
		sum_into(out, &src->e[i], q->kind == VK_QUERY_RRF ? place : share);
	}
}

static void cut(struct answer *a, size_t offset, size_t limit)
{
	if (offset > a->n) offset = a->n;
	a->n -= offset;
	memmove(a->e, a->e + offset, a->n * sizeof *a->e);
	if (a->n > limit) a->n = limit;
}

static void exclusions(const struct tree *t, bool *out)
{
	for (uint32_t i = 0; i < POINTS; i++)
		if (t->q.not_id.n && vk_bytes_eq(w->p[i].id, t->q.not_id)) out[i] = true;
	for (size_t i = 0; i < t->q.prefetch_n; i++) exclusions(&t->child[i], out);
}

static struct answer *ask(const struct tree *t, const struct cond *above, const bool *excluded, bool whole_answer)
{
	const struct vk_query *q = &t->q;
	struct answer *out = calloc(1, sizeof *out), *src[8] = {0};
	struct cond c = both(above, &t->cond);
	bool fusion = q->kind == VK_QUERY_RRF || q->kind == VK_QUERY_DBSF;
	for (size_t i = 0; i < q->prefetch_n; i++) src[i] = ask(&t->child[i], &c, excluded, false);
	for (size_t i = 0; fusion && i < q->prefetch_n; i++) fuse_list(q, i, src[i], out);
	for (uint32_t i = 0; !fusion && i < POINTS; i++) {
		bool in = q->prefetch_n == 0 && w->p[i].live && !excluded[i] && holds(&c, &w->p[i]);
		for (size_t j = 0; j < q->prefetch_n; j++)
			for (size_t e = 0; e < src[j]->n; e++) in |= src[j]->e[e].i == i && holds(&c, &w->p[i]);
		if (in) ask_point(t, i, out);
	}
	for (size_t i = 0; fusion && i < out->n; i++) out->e[i].rank = out->e[i].score;
	if (q->kind == VK_QUERY_ORDER_BY) qsort(out->e, out->n, sizeof *out->e, entry_by_value);
	else if (q->kind == VK_QUERY_SCROLL) qsort(out->e, out->n, sizeof *out->e, entry_by_id);
	else qsort(out->e, out->n, sizeof *out->e, entry_by_rank);
	for (size_t i = 0; q->kind == VK_QUERY_ORDER_BY && q->order.descending && i < out->n / 2; i++) {
		struct entry e = out->e[i];
		out->e[i] = out->e[out->n - 1 - i];
		out->e[out->n - 1 - i] = e;
	}
	for (size_t i = 0; fusion && q->has_threshold && i < out->n; i++)
		if (out->e[i].score < q->threshold) out->n = i;
	if (!whole_answer) cut(out, q->offset, q->limit);
	for (size_t i = 0; i < q->prefetch_n; i++) free(src[i]);
	return out;
}

static struct answer *oracle(const struct tree *t)
{
	bool excluded[POINTS] = {0};
	exclusions(t, excluded);
	return ask(t, &(struct cond){0}, excluded, false);
}

static uint32_t slot_of(uint32_t i)
{
	uint32_t slot;
	assert_int_equal(vk_view_slot(&w->v, w->p[i].id, &slot), VK_OK);
	return slot;
}

static void compare(const struct answer *want, const struct vk_found *found, size_t n, int number)
{
	if (n != want->n) fail_msg("tree %d: %zu points, not %zu", number, n, want->n);
	for (size_t i = 0; i < n; i++) {
		const struct entry *e = &want->e[i];
		if (found[i].slot != slot_of(e->i) || memcmp(&found[i].score, &e->score, sizeof e->score) != 0)
			fail_msg("tree %d, place %zu: slot %u score %.9g, not slot %u score %.9g", number, i, found[i].slot,
				 (double)found[i].score, slot_of(e->i), (double)e->score);
		assert_int_equal(found[i].has_order, e->has_order);
		if (e->has_order && e->order.is_i64) assert_int_equal(found[i].order.i64, e->order.i64);
		if (e->has_order && !e->order.is_i64) assert_true(found[i].order.f64 == e->order.f64);
	}
}

static struct vk_query_env env(void)
{
	return (struct vk_query_env){.pool = w->pool};
}

/* --- random trees --- */

static void test_run_random_trees_as_oracle(void **state)
{
	(void)state;
	size_t points = 0;
	for (int i = 0; i < TREES; i++) {
		vk_arena_reset(&w->a);
		struct tree t;
		struct vk_query_result r;
		struct vk_error err = {0};
		struct vk_query_env e = env();
		random_tree(&t, 2);
		struct answer *want = oracle(&t);
		if (vk_query_run(&w->v, &t.q, 1, i % 2 ? &e : NULL, &w->a, &r, &err)) fail_msg("tree %d: %s", i, err.text);
		compare(want, r.found, r.n, i);
		points += r.n;
		free(want);
	}
	assert_true(points > TREES * 3); /* the trees do find something */
}

static void test_run_batch_answers_as_alone(void **state)
{
	(void)state;
	for (int round = 0; round < 40; round++) {
		vk_arena_reset(&w->a);
		struct tree t[24];
		struct vk_query q[24];
		struct vk_query_result r[24];
		struct vk_error err = {0};
		struct vk_query_env e = env();
		for (int i = 0; i < 24; i++) {
			random_tree(&t[i], i % 3);
			/* Some share the filter, as a batch's often do. */
			if (i && i % 3 == 0 && roll(2)) t[i].q.filter = t[i - 3].q.filter, t[i].cond = t[i - 3].cond;
			q[i] = t[i].q;
		}
		if (vk_query_run(&w->v, q, 24, &e, &w->a, r, &err)) fail_msg("round %d: %s", round, err.text);
		for (int i = 0; i < 24; i++) {
			struct answer *want = oracle(&t[i]);
			compare(want, r[i].found, r[i].n, round * 100 + i);
			free(want);
		}
	}
}

/* --- groups --- */

/* By "k" every point is in one group; by "n" in none to two. */
static void expect_groups(const struct answer *all, bool by_n, size_t limit, size_t size, const struct vk_group *g, size_t n)
{
	struct {
		int64_t key;
		uint32_t i[POINTS];
		size_t n;
	} *want = calloc(POINTS, sizeof *want);
	size_t groups = 0;
	for (size_t i = 0; i < all->n; i++) {
		const struct model_point *p = &w->p[all->e[i].i];
		for (size_t j = 0; j < (!by_n ? 1 : p->odd ? 0 : p->n_n); j++) {
			int64_t key = by_n ? p->n[j] : p->k;
			size_t at = 0;
			while (at < groups && want[at].key != key) at++;
			if (at == groups && groups == limit) continue;
			if (at == groups) want[groups++].key = key;
			bool there = false;
			for (size_t h = 0; h < want[at].n; h++) there |= want[at].i[h] == all->e[i].i;
			if (want[at].n < size && !there) want[at].i[want[at].n++] = all->e[i].i;
		}
	}
	assert_int_equal(n, groups);
	for (size_t i = 0; i < n; i++) {
		char name[8];
		snprintf(name, sizeof name, "k%d", (int)want[i].key);
		if (!by_n) assert_true(g[i].type == VK_FIELD_KEYWORD && vk_bytes_is(g[i].text, name));
		else assert_true(g[i].type == VK_FIELD_INTEGER && (g[i].is_u64 ? (int64_t)g[i].u64 : g[i].i64) == want[i].key);
		assert_int_equal(g[i].is_u64, by_n && want[i].key >= 0);
		assert_int_equal(g[i].n, want[i].n);
		for (size_t h = 0; h < g[i].n; h++) assert_int_equal(g[i].found[h].slot, slot_of(want[i].i[h]));
	}
	free(want);
}

static void test_groups_random_as_oracle(void **state)
{
	(void)state;
	struct vk_path path[2];
	for (int i = 0; i < 400; i++) {
		vk_arena_reset(&w->a);
		assert_int_equal(vk_path_parse(&w->a, VK_LIT("k"), &path[0], NULL), VK_OK);
		assert_int_equal(vk_path_parse(&w->a, VK_LIT("n"), &path[1], NULL), VK_OK);
		struct tree t;
		struct vk_group *g;
		struct vk_error err = {0};
		struct vk_query_env e = env();
		bool excluded[POINTS] = {0};
		size_t n, limit = 1 + roll(10), size = 1 + roll(roll(3) ? 4 : 60), by_n = roll(2);
		random_tree(&t, 0);
		exclusions(&t, excluded);
		struct answer *all = ask(&t, &(struct cond){0}, excluded, true);
		if (vk_query_groups(&w->v, &t.q, &path[by_n], limit, size, &e, &w->a, &g, &n, &err)) fail_msg("tree %d: %s", i, err.text);
		expect_groups(all, by_n, limit, size, g, n);
		free(all);
	}
}

/* Prefetch limits grow by the group size, and only points with the field are looked at. */
static void test_groups_over_prefetches_widen_them(void **state)
{
	(void)state;
	struct vk_path path;
	for (int i = 0; i < 100; i++) {
		vk_arena_reset(&w->a);
		assert_int_equal(vk_path_parse(&w->a, VK_LIT("n"), &path, NULL), VK_OK);
		struct tree t = {.q = {.kind = VK_QUERY_RRF, .prefetch_n = 2, .limit = 3}}, wide;
		struct tree *child = vk_arena_calloc(&w->a, 2, sizeof *child);
		struct vk_query *q = vk_arena_calloc(&w->a, 2, sizeof *q);
		struct vk_group *g;
		struct vk_error err = {0};
		bool excluded[POINTS] = {0};
		size_t n, limit = 1 + roll(10), size = 1 + roll(4);
		for (int j = 0; j < 2; j++) {
			do random_tree(&child[j], 0);
			while (child[j].q.kind != VK_QUERY_NEAREST);
			child[j].q.not_id.n = 0;
			child[j].q.offset = 0;
			child[j].q.limit = 1 + roll(20);
			q[j] = child[j].q;
		}
		t.child = child;
		t.q.prefetch = q;
		if (vk_query_groups(&w->v, &t.q, &path, limit, size, NULL, &w->a, &g, &n, &err)) fail_msg("tree %d: %s", i, err.text);
		for (int j = 0; j < 2; j++) child[j].q.limit *= size;
		for (uint32_t p = 0; p < POINTS; p++) excluded[p] = w->p[p].n_n == 0;
		wide = t;
		struct answer *all = ask(&wide, &(struct cond){0}, excluded, true);
		expect_groups(all, true, limit, size, g, n);
		free(all);
	}
}

/* --- by hand --- */

/* The slot of the n-th point that is there. */
static uint32_t live_slot(uint32_t n)
{
	uint32_t i = 0;
	while (!w->p[i].live || n--) i++;
	return slot_of(i);
}

static void test_rrf_gives_the_written_numbers(void **state)
{
	(void)state;
	struct vk_found one[] = {{.slot = live_slot(0)}, {.slot = live_slot(1)}, {.slot = live_slot(2)}};
	struct vk_found two[] = {{.slot = live_slot(2)}, {.slot = live_slot(0)}};
	struct vk_found_list src[2] = {{one, 3, 3}, {two, 2, 2}}, out = {0};
	struct vk_query q = {.prefetch_n = 2};
	assert_int_equal(vk_query_rrf(&w->v, &q, src, 2, 10, &out), VK_OK);
	assert_int_equal(out.n, 3);
	assert_int_equal(out.p[0].slot, live_slot(0)); /* 1/2 + 1/3 */
	assert_true(fabsf(out.p[0].score - 5.0f / 6) < 1e-6f);
	assert_int_equal(out.p[1].slot, live_slot(2)); /* 1/4 + 1/2 */
	assert_true(out.p[1].score == 0.75f);
	assert_true(fabsf(out.p[2].score - 1.0f / 3) < 1e-6f);
	vk_found_free(&out);
	float weight[] = {3, 0};
	q.rrf_weight = weight;
	assert_int_equal(vk_query_rrf(&w->v, &q, src, 2, 10, &out), VK_OK);
	assert_int_equal(out.p[2].slot, live_slot(2)); /* three places weigh like one: 1 / (3 / 3 + 1) */
	assert_true(out.p[2].score == 0.5f);
	vk_found_free(&out);
}

static void test_dbsf_gives_the_written_numbers(void **state)
{
	(void)state;
	struct vk_found one[] = {{.slot = live_slot(0), .score = 3}, {.slot = live_slot(1), .score = 2}, {.slot = live_slot(2), .score = 1}};
	struct vk_found two[] = {{.slot = live_slot(3), .score = 9}};
	struct vk_found_list src[2] = {{one, 3, 3}, {two, 1, 1}}, out = {0};
	assert_int_equal(vk_query_dbsf(&w->v, src, 2, 10, &out), VK_OK);
	assert_int_equal(out.n, 4); /* mean 2, sigma 1: from -1 to 5; a list of one gives a half */
	assert_int_equal(out.p[0].slot, live_slot(0));
	assert_true(fabsf(out.p[0].score - 4.0f / 6) < 1e-6f);
	assert_true(out.p[1].score == 0.5f && out.p[2].score == 0.5f);
	assert_true(fabsf(out.p[3].score - 2.0f / 6) < 1e-6f);
	vk_found_free(&out);
}

static void test_sample_gives_each_point_its_chance(void **state)
{
	(void)state;
	struct cond c = {.should = 1};
	unsigned *seen = calloc(w->v.conf ? 1 << 16 : 0, sizeof *seen);
	size_t matches = 0;
	for (uint32_t i = 0; i < POINTS; i++) matches += w->p[i].live && holds(&c, &w->p[i]);
	assert_true(matches > 20);
	for (uint64_t seed = 0; seed < 2000; seed++) {
		vk_arena_reset(&w->a);
		struct vk_query q = {.kind = VK_QUERY_SAMPLE, .filter = filter_of(&c), .limit = 10, .offset = 5, .seed = seed * 77};
		struct vk_query_result r, again;
		assert_int_equal(vk_query_run(&w->v, &q, 1, NULL, &w->a, &r, NULL), VK_OK);
		assert_int_equal(r.n, 10); /* an offset says nothing here */
		for (size_t i = 0; i < r.n; i++) {
			assert_true(r.found[i].score == 1);
			for (size_t j = 0; j < i; j++) assert_int_not_equal(r.found[i].slot, r.found[j].slot);
			seen[r.found[i].slot]++;
		}
		if (seed % 100) continue;
		assert_int_equal(vk_query_run(&w->v, &q, 1, NULL, &w->a, &again, NULL), VK_OK);
		for (size_t i = 0; i < r.n; i++) assert_int_equal(again.found[i].slot, r.found[i].slot);
	}
	double mean = 2000.0 * 10 / (double)matches;
	for (uint32_t i = 0; i < POINTS; i++) {
		if (!w->p[i].live) continue;
		double n = seen[slot_of(i)];
		if (!holds(&c, &w->p[i])) assert_true(n == 0);
		else assert_true(fabs(n - mean) < 6 * sqrt(mean)); /* seeds are fixed: this does not come and go */
	}
	free(seen);
}

static void test_scroll_from_goes_on_where_a_page_ended(void **state)
{
	(void)state;
	for (unsigned which = 0; which < 2; which++) { /* few of all points, and all */
		struct cond c = {.should = which ? 0 : 1, .has_bound = !which, .bound = 50};
		struct tree t = {.cond = c, .q = {.kind = VK_QUERY_SCROLL, .limit = POINTS}};
		struct answer *all = oracle(&t);
		size_t at = 0;
		struct vk_bytes from = {0};
		assert_true(all->n > 0);
		for (;;) {
			vk_arena_reset(&w->a);
			struct vk_query q = {.kind = VK_QUERY_SCROLL, .filter = filter_of(&c), .limit = 8, .from = from};
			struct vk_query_result r;
			assert_int_equal(vk_query_run(&w->v, &q, 1, NULL, &w->a, &r, NULL), VK_OK);
			size_t page = r.n == 8 ? 7 : r.n;
			for (size_t i = 0; i < page; i++) assert_int_equal(r.found[i].slot, slot_of(all->e[at + i].i));
			at += page;
			if (r.n < 8) break;
			from = w->p[all->e[at].i].id;
		}
		assert_int_equal(at, all->n);
		free(all);
	}
}

static void expect_error(struct vk_query q, const char *text)
{
	struct vk_error err = {0};
	struct vk_query_result r;
	assert_int_equal(vk_query_run(&w->v, &q, 1, NULL, &w->a, &r, &err), VK_E_INVALID);
	if (!strstr(err.text, text)) fail_msg("\"%s\" is not in \"%s\"", text, err.text);
}

static void test_run_refuses_in_qdrants_words(void **state)
{
	(void)state;
	struct vk_query leaf[65] = {{.kind = VK_QUERY_SCROLL, .limit = 1}}, deep[10] = {{0}};
	float nan_weight = NAN;
	expect_error((struct vk_query){.kind = VK_QUERY_SCROLL, .limit = 1, .prefetch = leaf, .prefetch_n = 1},
		     "A query is needed to merge the prefetches. Can't have prefetches without defining a query.");
	expect_error((struct vk_query){.kind = VK_QUERY_SCROLL, .limit = 1, .has_threshold = true},
		     "A query is needed to use the score_threshold.");
	expect_error((struct vk_query){.kind = VK_QUERY_ORDER_BY, .limit = 1, .has_threshold = true, .order.field = field("n")},
		     "Can't use score_threshold with an order_by query.");
	expect_error((struct vk_query){.kind = VK_QUERY_RRF, .limit = 1}, "cannot apply Fusion without prefetches");
	expect_error((struct vk_query){.kind = VK_QUERY_DBSF, .limit = 1, .prefetch = leaf, .prefetch_n = 65}, "at most 64");
	expect_error((struct vk_query){.kind = VK_QUERY_RRF, .limit = 1, .prefetch = leaf, .prefetch_n = 1, .rrf_weight = &nan_weight}, "finite");
	for (int i = 0; i < 10; i++)
		deep[i] = (struct vk_query){.kind = i ? VK_QUERY_DBSF : VK_QUERY_SCROLL, .limit = 1, .prefetch = i ? &deep[i - 1] : NULL,
					    .prefetch_n = i > 0};
	expect_error(deep[9], "exceeds max depth 8");
	struct vk_query_result r;
	assert_int_equal(vk_query_run(&w->v, &deep[8], 1, NULL, &w->a, &r, NULL), VK_OK);
	/* More points than there are is all of them; more values of a field than may be given is an error. */
	struct vk_query all = {.kind = VK_QUERY_SCROLL, .limit = SIZE_MAX};
	assert_int_equal(vk_query_run(&w->v, &all, 1, NULL, &w->a, &r, NULL), VK_OK);
	assert_int_equal(r.n, vk_view_points(&w->v));
	all.offset = SIZE_MAX;
	assert_int_equal(vk_query_run(&w->v, &all, 1, NULL, &w->a, &r, NULL), VK_OK);
	assert_int_equal(r.n, 0);
	expect_error((struct vk_query){.kind = VK_QUERY_ORDER_BY, .limit = VK_QUERY_LIMIT_MAX + 1, .order.field = field("n")}, "too large");
}

static void test_run_stopped_gives_up(void **state)
{
	(void)state;
	atomic_bool stop = true;
	struct vk_query_env e = {.stop = &stop};
	struct vk_error err = {0};
	struct vk_query_result r;
	float v[8] = {1};
	struct vk_query q = {.kind = VK_QUERY_NEAREST, .using = vk_colconf_vector(w->v.conf, VK_LIT("a")), .vector = v, .limit = 1};
	vk_arena_reset(&w->a);
	assert_int_equal(vk_query_run(&w->v, &q, 1, &e, &w->a, &r, &err), VK_E_CANCELLED);
}

/* A point past its time is in no answer, though nobody has swept it away. */
static void test_run_leaves_expired_points_out(void **state)
{
	(void)state;
	struct temp dir;
	struct vk_collection *c;
	struct vk_collection_opts o = {.writers = w->writers, .map_bytes = (uint64_t)1 << 28};
	struct vk_view later;
	uint8_t key[9];
	uint8_t key2[9];
	struct vk_bytes id = {(char *)key, 9}, other = {(char *)key2, 9};
	vk_id_u64(key, 7);
	vk_id_u64(key2, 8);
	struct vk_arena a;
	struct vk_json *doc;
	vk_arena_init(&a, 1 << 20);
	temp_make(&dir);
	assert_int_equal(vk_collection_open(dir.path, VK_LIT(CONFIG("{\"field\":\"dies\",\"after_ms\":0}")), &o, &c, NULL), VK_OK);
	struct vk_colconf *conf = vk_collection_config(c);
	float row[8] = {5, 5, 5, 5, 5, 5, 5, 5};
	struct vk_vec vec = {.conf = vk_colconf_vector(conf, VK_LIT("a")), .row = row};
	struct vk_point_in in = {.id = id, .vec = &vec, .vec_n = 1, .payload = VK_LIT("{\"k\":\"dying\",\"n\":7000,\"dies\":10}")};
	assert_int_equal(vk_json_parse(&a, in.payload, &(struct vk_json_opts){.object_spans = true}, &doc, NULL), VK_OK);
	in.payload_jv = vk_json_root(doc);
	struct vk_point_in points[2] = {in, {.id = other, .vec = &vec, .vec_n = 1, .payload = VK_LIT("{\"n\":1}")}};
	struct vk_json *doc2;
	assert_int_equal(vk_json_parse(&a, points[1].payload, NULL, &doc2, NULL), VK_OK);
	points[1].payload_jv = vk_json_root(doc2);
	struct vk_op_in op = {.kind = VK_OP_UPSERT, .point = points, .point_n = 2};
	struct vk_write write = {.op = &op, .op_n = 1, .conf = conf, .now_ms = 1000};
	assert_int_equal(vk_collection_write_wait(c, &write), VK_OK);
	vk_json_free(doc);
	vk_json_free(doc2);
	for (int64_t now_ms = 5000; now_ms <= 15000; now_ms += 10000) {
		assert_int_equal(vk_view_begin(c, now_ms, &later), VK_OK);
		struct vk_query q[3] = {{.kind = VK_QUERY_NEAREST, .using = vk_colconf_vector(later.conf, VK_LIT("a")), .vector = row, .limit = 1},
					{.kind = VK_QUERY_ORDER_BY, .order = {.field = vk_colconf_field(later.conf, VK_LIT("n")), .descending = true}, .limit = 1},
					{.kind = VK_QUERY_SCROLL, .from = id, .limit = 1}};
		struct vk_query_result r[3];
		bool there[3];
		uint32_t slot = UINT32_MAX;
		assert_int_equal(vk_view_slot(&later, id, &slot), now_ms < 10000 ? VK_OK : VK_E_NOT_FOUND);
		assert_int_equal(vk_query_run(&later, q, 3, NULL, &a, r, NULL), VK_OK);
		for (int i = 0; i < 3; i++) {
			assert_int_equal(r[i].n, 1);
			there[i] = r[i].found[0].slot == slot;
			assert_int_equal(there[i], now_ms < 10000);
		}
		vk_view_end(&later);
	}
	vk_arena_free(&a);
	vk_colconf_unref(conf);
	vk_collection_unref(c);
	temp_free(&dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_run_random_trees_as_oracle),
		cmocka_unit_test(test_run_batch_answers_as_alone),
		cmocka_unit_test(test_groups_random_as_oracle),
		cmocka_unit_test(test_groups_over_prefetches_widen_them),
		cmocka_unit_test(test_rrf_gives_the_written_numbers),
		cmocka_unit_test(test_dbsf_gives_the_written_numbers),
		cmocka_unit_test(test_sample_gives_each_point_its_chance),
		cmocka_unit_test(test_scroll_from_goes_on_where_a_page_ended),
		cmocka_unit_test(test_run_refuses_in_qdrants_words),
		cmocka_unit_test(test_run_stopped_gives_up),
		cmocka_unit_test(test_run_leaves_expired_points_out),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
