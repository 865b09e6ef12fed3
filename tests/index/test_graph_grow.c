/*
 * Goal: a graph that grows, forgets and is mended keeps finding what a flat search finds, keeps every invariant, and may be searched
 * all the while. Method: seeded streams of puts, replacements and deletes with mending in between, against a model (label -> row) and its
 * flat search in f64; after each phase vk_graph_check(), exact membership, and a floor of recall@10 which may not sink over a
 * stream that replaces far more rows than there are; searchers on other threads meanwhile (TSan's business); the same calls give the
 * same graph.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "index/graph_internal.h"
#include "tests/index/graph_gen.h"

#define K 10u
#define WIDE 30u
#define EF 80u
#ifdef __SANITIZE_THREAD__ /* a tenth of the speed */
#define MEANWHILE 1500u
#else
#define MEANWHILE 4000u
#endif

static uint64_t seed = 20261123;

struct model {
	struct vk_graph *g;
	struct gen_rows rows;  /* to draw from */
	uint32_t labels;
	uint32_t *row_of;      /* label -> row, or VK_GRAPH_NONE */
	uint32_t live;
	uint64_t rng;
};

static enum vk_status row_of(void *arg, uint32_t i, float *dst, uint32_t *label)
{
	const struct gen_rows *r = arg;
	memcpy(dst, gen_at(r, i), r->dims * sizeof *dst);
	*label = i;
	return VK_OK;
}

static struct model model_new(enum gen_kind kind, enum vk_metric metric, enum vk_graph_profile profile, uint32_t rows, uint32_t dims,
			      uint32_t labels, uint32_t built)
{
	struct model m = {.rows = gen_rows(kind, rows, dims, metric, seed), .labels = labels, .rng = seed};
	struct vk_graph_conf conf = {.dims = dims, .metric = metric, .profile = profile, .seed = 3, .degree = 32, .ef_build = 100,
				     .capacity = 4 * labels + 64, .level = vk_cpu_best()};
	struct vk_error err = {0};
	m.row_of = malloc(labels * sizeof *m.row_of);
	memset(m.row_of, 0xff, labels * sizeof *m.row_of);
	assert_int_equal(vk_graph_new(&conf, &m.g, &err), VK_OK);
	if (built) {
		struct vk_graph_source src = {.n = built, .row = row_of, .arg = &m.rows};
		assert_int_equal(vk_graph_build(m.g, &src, NULL, &err), VK_OK);
		for (uint32_t i = 0; i < built; i++) m.row_of[i] = i;
		m.live = built;
	}
	return m;
}

static void model_free(struct model *m)
{
	vk_graph_free(m->g);
	free(m->rows.row);
	free(m->row_of);
}

static void put(struct model *m, uint32_t label, uint32_t row)
{
	assert_int_equal(vk_graph_put(m->g, label, gen_at(&m->rows, row)), VK_OK);
	m->live += m->row_of[label] == VK_GRAPH_NONE;
	m->row_of[label] = row;
}

static void del(struct model *m, uint32_t label)
{
	enum vk_status want = m->row_of[label] == VK_GRAPH_NONE ? VK_E_NOT_FOUND : VK_OK;
	assert_int_equal(vk_graph_del(m->g, label), want);
	m->live -= !want;
	m->row_of[label] = VK_GRAPH_NONE;
}

static void mend(struct model *m)
{
	enum vk_status st;
	while ((st = vk_graph_consolidate_step(m->g, 100)) == VK_E_BUSY) {}
	assert_int_equal(st, VK_OK);
}

static void check(struct model *m)
{
	struct vk_error err = {0};
	enum vk_status st = vk_graph_check(m->g, &err);
	if (st) print_error("%s\n", err.text);
	assert_int_equal(st, VK_OK);
	assert_int_equal(vk_graph_live(m->g), m->live);
	for (uint32_t i = 0; i < m->labels; i++) assert_int_equal(vk_graph_has(m->g, i), m->row_of[i] != VK_GRAPH_NONE);
}

static int down(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? 1 : x > y ? -1 : 0;
}

static double flat_kth(const struct model *m, const float *q)
{
	double *rank = malloc(m->labels * sizeof *rank);
	uint32_t n = 0;
	for (uint32_t i = 0; i < m->labels; i++)
		if (m->row_of[i] != VK_GRAPH_NONE) rank[n++] = gen_rank(m->g->conf.metric, q, gen_at(&m->rows, m->row_of[i]), m->rows.dims);
	qsort(rank, n, sizeof *rank, down);
	double kth = n ? rank[(K < n ? K : n) - 1] : 0;
	free(rank);
	return kth;
}

static double recall(struct model *m, uint32_t queries)
{
	struct vk_graph_scratch *s = vk_graph_scratch_take(m->g);
	uint32_t label[WIDE], hits = 0, k = m->live < K ? m->live : K;
	float near[WIDE];
	for (uint32_t i = 0; i < queries; i++) {
		const float *q = gen_at(&m->rows, m->rows.n - 1 - i);
		double kth = flat_kth(m, q);
		struct vk_graph_query ask = {.vector = q, .ef = EF, .want = WIDE, .label = label, .near = near};
		assert_int_equal(vk_graph_search(m->g, s, &ask), VK_OK);
		uint32_t got = 0;
		for (uint32_t j = 0; j < ask.n; j++) {
			assert_true(label[j] < m->labels && m->row_of[label[j]] != VK_GRAPH_NONE);
			for (uint32_t o = 0; o < j; o++) assert_true(label[o] != label[j]);
			got += gen_rank(m->g->conf.metric, q, gen_at(&m->rows, m->row_of[label[j]]), m->rows.dims) >= kth - fabs(kth) * 1e-12;
		}
		hits += got < k ? got : k;
	}
	vk_graph_scratch_give(m->g, s);
	return k ? (double)hits / (double)(k * queries) : 1;
}

/* --- one by one --- */

static void test_grow_from_nothing_finds_what_was_put(void **state)
{
	(void)state;
	static const struct {
		enum gen_kind kind;
		enum vk_metric metric;
		enum vk_graph_profile profile;
		uint32_t dims;
	} cases[] = {{GEN_CLUSTERED, VK_METRIC_COSINE, VK_GRAPH_S8, 48}, {GEN_CLUSTERED, VK_METRIC_L2, VK_GRAPH_S8, 100},
		     {GEN_GAUSSIAN, VK_METRIC_L2, VK_GRAPH_S4, 32},	 {GEN_CLUSTERED, VK_METRIC_DOT, VK_GRAPH_S8, 64},
		     {GEN_DUPLICATES, VK_METRIC_L2, VK_GRAPH_S8, 16},	 {GEN_SORTED, VK_METRIC_COSINE, VK_GRAPH_S8, 32}};
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		struct model m = model_new(cases[c].kind, cases[c].metric, cases[c].profile, 2100, cases[c].dims, 2000, 0);
		for (uint32_t i = 0; i < 2000; i++) {
			put(&m, i, i);
			if (i < 20) check(&m);
		}
		check(&m);
		double r = recall(&m, 100);
		print_message("case %zu: recall@10 %.3f\n", c, r);
		assert_true(r >= 0.95);
		model_free(&m);
	}
}

static void test_grow_del_until_nothing_is_left_and_again(void **state)
{
	(void)state;
	struct model m = model_new(GEN_CLUSTERED, VK_METRIC_COSINE, VK_GRAPH_S8, 1100, 32, 1000, 500);
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < 1000; i++) del(&m, i);
		mend(&m);
		assert_int_equal(vk_graph_live(m.g), 0);
		assert_true(recall(&m, 5) >= 1);
		for (uint32_t i = 0; i < 1000; i++) put(&m, i, i);
		mend(&m);
		double r = recall(&m, 50);
		print_message("round %d: recall@10 %.3f\n", round, r);
		assert_true(r >= 0.9);
	}
	model_free(&m);
}

static void test_grow_put_again_moves_the_label(void **state)
{
	(void)state;
	struct model m = model_new(GEN_GAUSSIAN, VK_METRIC_L2, VK_GRAPH_S8, 400, 24, 300, 300);
	struct vk_graph_scratch *s = vk_graph_scratch_take(m.g);
	for (uint32_t i = 0; i < 100; i++) {
		uint32_t label;
		float near;
		put(&m, i, 300 + i % 90);
		struct vk_graph_query ask = {.vector = gen_at(&m.rows, 300 + i % 90), .ef = EF, .want = 1, .label = &label, .near = &near};
		assert_int_equal(vk_graph_search(m.g, s, &ask), VK_OK);
		assert_int_equal(ask.n, 1);
		assert_true(m.row_of[label] == 300 + i % 90);
	}
	vk_graph_scratch_give(m.g, s);
	check(&m);
	model_free(&m);
}

static void test_grow_chains_hand_over_and_are_cut(void **state)
{
	(void)state;
	struct model m = model_new(GEN_EQUAL, VK_METRIC_L2, VK_GRAPH_S8, 10, 8, 600, 0);
	for (uint32_t i = 0; i < 600; i++) put(&m, i, 0);
	check(&m);
	for (uint32_t i = 0; i < 600; i++) {
		if (i % 3) del(&m, i); /* the first of the chain among them */
		if (i % 50 == 0) mend(&m);
	}
	mend(&m);
	check(&m);
	struct vk_graph_scratch *s = vk_graph_scratch_take(m.g);
	uint32_t label[300];
	float near[300];
	struct vk_graph_query ask = {.vector = m.rows.row, .ef = 300, .want = 300, .label = label, .near = near};
	assert_int_equal(vk_graph_search(m.g, s, &ask), VK_OK);
	assert_int_equal(ask.n, 200);
	vk_graph_scratch_give(m.g, s);
	model_free(&m);
}

static void test_grow_a_full_graph_says_so(void **state)
{
	(void)state;
	struct vk_graph_conf conf = {.dims = 4, .metric = VK_METRIC_L2, .profile = VK_GRAPH_S8, .capacity = 1024, .level = vk_cpu_best()};
	struct vk_graph *g;
	struct vk_error err;
	uint64_t rng = seed;
	enum vk_status st = VK_OK;
	assert_int_equal(vk_graph_new(&conf, &g, &err), VK_OK);
	uint32_t i = 0;
	for (; !st && i < 2000; i++) {
		float row[4];
		gen_normals(row, 4, 1, &rng);
		st = vk_graph_put(g, i, row);
	}
	assert_int_equal(st, VK_E_NO_SPACE);
	assert_int_equal(i, 1025);
	assert_int_equal(vk_graph_check(g, &err), VK_OK);
	vk_graph_free(g);
}

/* --- streams --- */

static void one_op(struct model *m, uint32_t fresh)
{
	uint32_t label = (uint32_t)(vk_rng(&m->rng) % m->labels), row = (uint32_t)(vk_rng(&m->rng) % fresh);
	if (vk_rng(&m->rng) % 4 == 0) del(m, label);
	else put(m, label, row);
}

static void test_grow_random_stream_keeps_invariants(void **state)
{
	(void)state;
	static const enum gen_kind kinds[] = {GEN_CLUSTERED, GEN_DUPLICATES, GEN_TIGHT, GEN_NORMS, GEN_ZEROS, GEN_LINE};
	for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
		struct model m = model_new(kinds[k], VK_METRIC_L2, VK_GRAPH_S8, 3000, 16, 500, k % 2 ? 300 : 0);
		for (uint32_t i = 0; i < 3000; i++) {
			one_op(&m, 2900);
			if (i % 7 == 0) (void)vk_graph_consolidate_step(m.g, 20);
			if (i % 500 == 499) {
				mend(&m);
				check(&m);
			}
		}
		double r = recall(&m, 50);
		print_message("kind %d: recall@10 %.3f\n", (int)kinds[k], r);
		/* Norms over six orders: what is small lies within one step of the codes. */
		assert_true(r >= (kinds[k] == GEN_NORMS ? 0.5 : 0.9));
		model_free(&m);
	}
}

static void test_grow_replacing_rows_does_not_wear_recall(void **state)
{
	(void)state;
	struct model m = model_new(GEN_CLUSTERED, VK_METRIC_COSINE, VK_GRAPH_S8, 12100, 64, 4000, 4000);
	double first = recall(&m, 100), last = first;
	for (uint32_t part = 0; part < 10; part++) { /* a fifth of the rows at a time: twice all of them */
		for (uint32_t i = 0; i < 800; i++) {
			put(&m, (part * 800 + i) % 4000, 4000 + (part * 800 + i) % 8000);
			if (i % 8 == 0) (void)vk_graph_consolidate_step(m.g, 64);
		}
		last = recall(&m, 100);
		print_message("replaced %u %%: recall@10 %.3f\n", 20 * (part + 1), last);
		assert_true(last >= first - 0.02);
	}
	mend(&m);
	check(&m);
	struct vk_graph_stats st;
	vk_graph_stats(m.g, &st);
	assert_true(st.nodes < 6000); /* places are given again */
	model_free(&m);
}

/* --- readers meanwhile --- */

struct reader {
	struct model *m;
	atomic_bool *stop;
	uint64_t searches;
	pthread_t thread;
};

static void *read_on(void *arg)
{
	struct reader *r = arg;
	uint32_t label[WIDE];
	float near[WIDE];
	for (uint32_t i = 0; !atomic_load(r->stop); i++) {
		struct vk_graph_scratch *s = vk_graph_scratch_take(r->m->g);
		const float *q = gen_at(&r->m->rows, i % r->m->rows.n);
		struct vk_graph_query ask = {.vector = q, .ef = 40, .want = WIDE, .label = label, .near = near};
		if (vk_graph_search(r->m->g, s, &ask)) abort();
		for (uint32_t j = 0; j < ask.n; j++)
			if (label[j] >= r->m->labels) abort();
		vk_graph_scratch_give(r->m->g, s);
		r->searches++;
	}
	return NULL;
}

static void test_grow_searches_go_on_meanwhile(void **state)
{
	(void)state;
	struct model m = model_new(GEN_CLUSTERED, VK_METRIC_L2, VK_GRAPH_S8, 2000, 16, 400, 200);
	atomic_bool stop = false;
	struct reader r[2];
	for (int i = 0; i < 2; i++) {
		r[i] = (struct reader){.m = &m, .stop = &stop};
		assert_int_equal(pthread_create(&r[i].thread, NULL, read_on, &r[i]), 0);
	}
	for (uint32_t i = 0; i < MEANWHILE; i++) {
		one_op(&m, 1900);
		if (i % 5 == 0) (void)vk_graph_consolidate_step(m.g, 20);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++) {
		pthread_join(r[i].thread, NULL);
		assert_true(r[i].searches > 0);
	}
	mend(&m);
	check(&m);
	assert_true(recall(&m, 50) >= 0.9);
	model_free(&m);
}

/* --- the same again --- */

static void test_grow_same_calls_give_the_same_graph(void **state)
{
	(void)state;
	struct model a = model_new(GEN_CLUSTERED, VK_METRIC_COSINE, VK_GRAPH_S8, 1500, 20, 400, 200);
	struct model b = model_new(GEN_CLUSTERED, VK_METRIC_COSINE, VK_GRAPH_S8, 1500, 20, 400, 200);
	for (uint32_t i = 0; i < 1500; i++) {
		one_op(&a, 1400);
		one_op(&b, 1400);
		if (i % 9 == 0) {
			(void)vk_graph_consolidate_step(a.g, 50);
			(void)vk_graph_consolidate_step(b.g, 50);
		}
	}
	uint32_t n = atomic_load(&a.g->n);
	assert_int_equal(n, atomic_load(&b.g->n));
	assert_memory_equal(a.g->edge.p, b.g->edge.p, n * a.g->edge.stride);
	assert_memory_equal(a.g->label.p, b.g->label.p, n * a.g->label.stride);
	model_free(&a);
	model_free(&b);
}

int main(void)
{
	const char *s = getenv("VK_TEST_SEED");
	if (s) seed = strtoull(s, NULL, 0);
	print_message("VK_TEST_SEED=%llu\n", (unsigned long long)seed);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_grow_searches_go_on_meanwhile),
	    cmocka_unit_test(test_grow_from_nothing_finds_what_was_put),
	    cmocka_unit_test(test_grow_del_until_nothing_is_left_and_again),
	    cmocka_unit_test(test_grow_put_again_moves_the_label),
	    cmocka_unit_test(test_grow_chains_hand_over_and_are_cut),
	    cmocka_unit_test(test_grow_a_full_graph_says_so),
	    cmocka_unit_test(test_grow_random_stream_keeps_invariants),
	    cmocka_unit_test(test_grow_replacing_rows_does_not_wear_recall),
	    cmocka_unit_test(test_grow_same_calls_give_the_same_graph),
	};
#ifdef __SANITIZE_THREAD__ /* the others have one thread, and take minutes there */
	return _cmocka_run_group_tests("tests", tests, 1, NULL, NULL);
#else
	return cmocka_run_group_tests(tests, NULL, NULL);
#endif
}
