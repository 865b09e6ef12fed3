/*
 * Goal: a bulk-built graph finds what a flat search finds, reaches every node, and is the same whatever built it.
 * Method: rows from a printed seed; recall@10 of codes nominated and re-ranked with whole rows, against f64 over all rows, with a
 * floor a metric, profile and number of dimensions; degenerate rows; the sections compared byte by byte for 1, 2, 3 and 7
 * threads and each CPU level; a build that was cut off and goes on; a build that is stopped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "index/graph_internal.h"
#include "tests/index/graph_gen.h"

#define K 10u
#define QUERIES 50u

static uint64_t seed = 20260423;

static enum vk_status row_of(void *arg, uint32_t i, float *dst, uint32_t *label)
{
	const struct gen_rows *r = arg;
	memcpy(dst, gen_at(r, i), r->dims * sizeof *dst);
	*label = i;
	return VK_OK;
}

static struct vk_graph *build(const struct gen_rows *r, uint32_t n, struct vk_graph_conf conf,
			      const struct vk_graph_build_opts *o)
{
	struct vk_graph *g;
	struct vk_error err = {0};
	conf.dims = r->dims;
	if (!conf.capacity) conf.capacity = n + 16;
	if (!conf.seed) conf.seed = 7;
	assert_int_equal(vk_graph_new(&conf, &g, &err), VK_OK);
	struct vk_graph_source src = {.n = n, .row = row_of, .arg = (void *)(uintptr_t)r};
	enum vk_status st = vk_graph_build(g, &src, o, &err);
	if (st) print_error("%s\n", err.text);
	assert_int_equal(st, VK_OK);
	st = vk_graph_check(g, &err);
	if (st) print_error("%s\n", err.text);
	assert_int_equal(st, VK_OK);
	return g;
}

/* Share of the k nearest, or of others that are as near up to slack, among what was nominated, `wide` of them. */
static double recall_within(struct vk_graph *g, const struct gen_rows *r, uint32_t n, uint32_t queries, uint32_t ef, uint32_t wide,
			    double slack)
{
	struct vk_graph_scratch *s = vk_graph_scratch_take(g);
	uint32_t *label = malloc(wide * sizeof *label);
	float *near = malloc(wide * sizeof *near);
	uint64_t hits = 0, k = n < K ? n : K;
	for (uint32_t i = 0; i < queries; i++) {
		const float *q = gen_at(r, n + i);
		double kth = gen_kth(g->conf.metric, r, n, q, (uint32_t)k);
		struct vk_graph_query ask = {.vector = q, .ef = ef, .want = wide, .label = label, .near = near};
		assert_int_equal(vk_graph_search(g, s, &ask), VK_OK);
		uint64_t got = 0;
		for (uint32_t j = 0; j < ask.n; j++)
			got += gen_rank(g->conf.metric, q, gen_at(r, label[j]), r->dims) >= kth - fabs(kth) * 1e-12 - slack;
		hits += got < k ? got : k;
	}
	free(label);
	free(near);
	vk_graph_scratch_give(g, s);
	return (double)hits / (double)(k * queries);
}

static double recall(struct vk_graph *g, const struct gen_rows *r, uint32_t n, uint32_t queries, uint32_t ef, uint32_t wide)
{
	return recall_within(g, r, n, queries, ef, wide, 0);
}

/* --- recall --- */

static const enum vk_metric metrics[] = {VK_METRIC_DOT, VK_METRIC_COSINE, VK_METRIC_L2};
static const enum vk_graph_profile profiles[] = {VK_GRAPH_S8, VK_GRAPH_S4, VK_GRAPH_P8};

/* Floors a little under what is reached: gaussian rows in many dimensions have no structure, so 128 of 2,000 is a search
 * without help, and P8 has thrown away variance there that clusters do not have. */
static double floor_of(enum gen_kind kind, enum vk_graph_profile p, uint32_t dims)
{
	if (kind == GEN_CLUSTERED) return 0.985;
	if (p == VK_GRAPH_P8 && dims > 64) return 0.65;
	return 0.97;
}

static void test_build_any_metric_profile_and_dims_keeps_recall(void **state)
{
	(void)state;
	static const struct {
		uint32_t dims, n;
	} sizes[] = {{1, 1000}, {3, 2000}, {17, 2000}, {100, 1500}, {384, 700}, {768, 700}};
	uint32_t low = 0;
	for (size_t d = 0; d < sizeof sizes / sizeof sizes[0]; d++)
		for (int m = 0; m < 3; m++)
			for (int kind = GEN_GAUSSIAN; kind <= GEN_CLUSTERED; kind++) {
				uint32_t n = sizes[d].n;
				struct gen_rows r = gen_rows(kind, n + QUERIES, sizes[d].dims, metrics[m], seed);
				for (int p = 0; p < 3; p++) {
					struct vk_graph_conf c = {.metric = metrics[m], .profile = profiles[p], .level = vk_cpu_best()};
					struct vk_graph *g = build(&r, n, c, NULL);
					struct vk_graph_stats s;
					vk_graph_stats(g, &s);
					assert_int_equal(s.profile, profiles[p]);
					double got = recall(g, &r, n, QUERIES, 128, 40), floor = floor_of(kind, profiles[p], r.dims);
					if (got < floor)
						print_error("seed %llu kind %d dims %u metric %d %s: recall %.3f\n",
							    (unsigned long long)seed, kind, r.dims, m, vk_graph_profile_names[profiles[p]], got);
					low += got < floor;
					vk_graph_free(g);
				}
				free(r.row);
			}
	assert_int_equal(low, 0);
}

/* A larger one, at a beam that leaves room to be wrong. */
static void test_build_of_ten_thousand_keeps_recall_at_a_narrow_beam(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_CLUSTERED, 10000 + QUERIES, 64, VK_METRIC_COSINE, seed);
	struct vk_graph *g = build(&r, 10000, (struct vk_graph_conf){.metric = VK_METRIC_COSINE, .level = vk_cpu_best()}, NULL);
	double narrow = recall(g, &r, 10000, QUERIES, 20, 20), wide = recall(g, &r, 10000, QUERIES, 60, 20);
	print_message("recall %.3f at ef 20, %.3f at ef 60\n", narrow, wide);
	assert_true(narrow >= 0.95 && wide >= 0.99);
	vk_graph_free(g);
	free(r.row);
}

/* Sorted by cluster, a batch is of a few clusters alone. */
static void test_build_of_sorted_rows_is_as_good_as_of_shuffled_ones(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_SORTED, 5000 + QUERIES, 32, VK_METRIC_L2, seed);
	for (uint32_t i = 0; i < QUERIES; i++) { /* queries from everywhere */
		memcpy(gen_at(&r, 5000 + i), gen_at(&r, i * 50), r.dims * sizeof(float));
		gen_at(&r, 5000 + i)[i % r.dims] += 0.3f;
	}
	struct vk_graph *g = build(&r, 5000, (struct vk_graph_conf){.metric = VK_METRIC_L2, .level = vk_cpu_best()}, NULL);
	double got = recall(g, &r, 5000, QUERIES, 40, 20);
	print_message("recall %.3f\n", got);
	assert_true(got >= 0.98);
	vk_graph_free(g);
	free(r.row);
}

/* --- degenerate rows --- */

/* build() has checked that every node is reached. */
static void test_build_of_degenerate_rows_reaches_and_finds_all(void **state)
{
	(void)state;
	static const struct {
		enum gen_kind kind;
		double floor, slack; /* slack: what no code can tell apart, but less than the next cluster is away */
	} kinds[] = {{GEN_EQUAL, 1, 0},	       {GEN_DUPLICATES, 0.97, 0}, {GEN_TIGHT, 0.97, 1e-3},
		     {GEN_NORMS, 0.8, 0}, {GEN_ZEROS, 0.97, 0},	{GEN_LINE, 0.9, 1e-6}};
	static const uint32_t sizes[] = {1, 2, 100, 3000};
	uint32_t low = 0;
	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
		for (int m = 0; m < 3; m++)
			for (size_t i = 0; i < 4; i++)
				for (int p = 0; p < 3; p += 2) {
					uint32_t n = sizes[i];
					struct gen_rows r = gen_rows(kinds[k].kind, n + 20, 20, metrics[m], seed + i);
					struct vk_graph_conf c = {.metric = metrics[m], .profile = profiles[p], .level = vk_cpu_best()};
					struct vk_graph *g = build(&r, n, c, NULL);
					double got = recall_within(g, &r, n, 20, 128, 60, kinds[k].slack);
					if (got < kinds[k].floor)
						print_error("kind %d n %u metric %d %s: recall %.3f\n", kinds[k].kind, n, m,
							    vk_graph_profile_names[profiles[p]], got);
					low += got < kinds[k].floor;
					vk_graph_free(g);
					free(r.row);
				}
	assert_int_equal(low, 0);
}

static void test_build_of_nothing_is_an_empty_graph(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_GAUSSIAN, 1, 5, VK_METRIC_L2, seed);
	struct vk_graph *g = build(&r, 0, (struct vk_graph_conf){.metric = VK_METRIC_L2, .level = vk_cpu_best()}, NULL);
	struct vk_graph_scratch *s = vk_graph_scratch_take(g);
	uint32_t label;
	float near;
	struct vk_graph_query q = {.vector = r.row, .ef = 10, .want = 1, .label = &label, .near = &near};
	assert_int_equal(vk_graph_search(g, s, &q), VK_OK);
	assert_int_equal(q.n, 0);
	vk_graph_scratch_give(g, s);
	vk_graph_free(g);
	free(r.row);
}

static void test_build_chains_equal_rows_behind_the_first(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_EQUAL, 500, 8, VK_METRIC_L2, seed);
	gen_at(&r, 100)[0] += 100;
	struct vk_graph *g = build(&r, 500, (struct vk_graph_conf){.metric = VK_METRIC_L2, .level = vk_cpu_best()}, NULL);
	struct vk_graph_stats s;
	vk_graph_stats(g, &s);
	assert_int_equal(s.chained, 498);
	assert_int_equal(*vk_graph_chain_at(g, 0), 1);
	assert_int_equal(*vk_graph_chain_at(g, 99), 101);
	assert_int_equal(*vk_graph_chain_at(g, 100), VK_GRAPH_NONE);
	assert_int_equal(*vk_graph_chain_at(g, 499), VK_GRAPH_NONE);
	vk_graph_free(g);
	free(r.row);
}

struct labelled {
	const struct gen_rows *r;
	uint32_t labels;
	int done;
};

static enum vk_status row_of_few_labels(void *arg, uint32_t i, float *dst, uint32_t *label)
{
	struct labelled *l = arg;
	memcpy(dst, gen_at(l->r, i), l->r->dims * sizeof *dst);
	*label = i % l->labels;
	return VK_OK;
}

static void count_done(void *arg) { ((struct labelled *)arg)->done++; }

static void test_build_a_label_that_comes_again_kills_the_first(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_GAUSSIAN, 300, 8, VK_METRIC_L2, seed);
	struct labelled l = {&r, 200, 0};
	struct vk_graph_source src = {.n = 300, .row = row_of_few_labels, .rows_done = count_done, .arg = &l};
	struct vk_graph_conf c = {.dims = 8, .metric = VK_METRIC_L2, .capacity = 300, .level = vk_cpu_best()};
	struct vk_graph *g;
	struct vk_error err;
	assert_int_equal(vk_graph_new(&c, &g, &err), VK_OK);
	assert_int_equal(vk_graph_build(g, &src, NULL, &err), VK_OK);
	assert_int_equal(l.done, 1);
	assert_int_equal(vk_graph_check(g, &err), VK_OK);
	for (uint32_t i = 0; i < 300; i++) assert_int_equal(vk_graph_is_dead(g, i), i < 100);
	assert_int_equal(vk_graph_node_of(g, 5), 205);
	assert_int_equal(vk_graph_node_of(g, 150), 150);
	vk_graph_free(g);
	free(r.row);
}

/* --- what goes wrong --- */

static enum vk_status row_that_fails(void *arg, uint32_t i, float *dst, uint32_t *label)
{
	return i == 777 ? VK_E_IO : row_of(arg, i, dst, label);
}

static void test_build_a_row_that_cannot_be_read_fails_the_build(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_GAUSSIAN, 1000, 8, VK_METRIC_L2, seed);
	struct vk_graph_source src = {.n = 1000, .row = row_that_fails, .arg = &r};
	struct vk_graph_conf c = {.dims = 8, .metric = VK_METRIC_L2, .capacity = 1000, .level = vk_cpu_best()};
	struct vk_graph *g;
	struct vk_error err;
	assert_int_equal(vk_graph_new(&c, &g, &err), VK_OK);
	assert_int_equal(vk_graph_build(g, &src, NULL, &err), VK_E_IO);
	vk_graph_free(g);
	free(r.row);
}

static void test_build_of_more_than_the_capacity_is_refused(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_GAUSSIAN, 1, 8, VK_METRIC_L2, seed);
	struct vk_graph_source src = {.n = 5000, .row = row_of, .arg = &r};
	struct vk_graph_conf c = {.dims = 8, .metric = VK_METRIC_L2, .capacity = 2000, .level = vk_cpu_best()};
	struct vk_graph *g;
	struct vk_error err;
	assert_int_equal(vk_graph_new(&c, &g, &err), VK_OK);
	assert_int_equal(vk_graph_build(g, &src, NULL, &err), VK_E_NO_SPACE);
	vk_graph_free(g);
	free(r.row);
}

struct stopper {
	atomic_bool stop;
	uint32_t calls, at;
};

static enum vk_status stop_then(void *arg, struct vk_graph *g, uint32_t done)
{
	struct stopper *s = arg;
	assert_true(vk_graph_partial(g) && done < atomic_load(&g->n));
	if (++s->calls == s->at) atomic_store(&s->stop, true);
	return VK_OK;
}

static void test_build_stops_when_told_and_shows_its_progress(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_CLUSTERED, 4000, 16, VK_METRIC_L2, seed);
	struct vk_graph_source src = {.n = 4000, .row = row_of, .arg = &r};
	struct vk_graph_conf c = {.dims = 16, .metric = VK_METRIC_L2, .capacity = 4000, .level = vk_cpu_best()};
	struct stopper s = {.at = 4};
	struct vk_graph_progress p = {0};
	struct vk_graph_build_opts o = {.stop = &s.stop, .progress = &p, .between = stop_then, .arg = &s, .nice = 5};
	struct vk_graph *g;
	struct vk_error err;
	assert_int_equal(vk_graph_new(&c, &g, &err), VK_OK);
	assert_int_equal(vk_graph_build(g, &src, &o, &err), VK_E_CANCELLED);
	assert_int_equal(atomic_load(&p.total), 4000);
	assert_true(atomic_load(&p.done) > 1200 && atomic_load(&p.done) < 3000);
	vk_graph_free(g);
	/* Told before it began. */
	assert_int_equal(vk_graph_new(&c, &g, &err), VK_OK);
	assert_int_equal(vk_graph_build(g, &src, &o, &err), VK_E_CANCELLED);
	vk_graph_free(g);
	s.at = UINT32_MAX;
	atomic_store(&s.stop, false);
	assert_int_equal(vk_graph_new(&c, &g, &err), VK_OK);
	assert_int_equal(vk_graph_build(g, &src, &o, &err), VK_OK);
	assert_int_equal(atomic_load(&p.done), 4000);
	vk_graph_free(g);
	free(r.row);
}

/* --- the same whatever built it --- */

static void assert_same(const struct vk_graph *a, const struct vk_graph *b)
{
	uint32_t n = atomic_load(&a->n);
	assert_int_equal(n, atomic_load(&b->n));
	assert_int_equal(a->code_dims, b->code_dims);
	assert_memory_equal(a->mean, b->mean, a->conf.dims * sizeof *a->mean);
	if (a->axes) assert_memory_equal(a->axes, b->axes, (size_t)a->code_dims * a->conf.dims * sizeof *a->axes);
	assert_memory_equal(a->code.p, b->code.p, n * a->code.stride);
	assert_memory_equal(a->edge.p, b->edge.p, n * a->edge.stride);
	assert_memory_equal(a->label.p, b->label.p, n * a->label.stride);
	assert_memory_equal(a->chain.p, b->chain.p, n * a->chain.stride);
	assert_memory_equal(a->in.p, b->in.p, n * a->in.stride);
	assert_int_equal(a->entry_n, b->entry_n);
	assert_memory_equal(a->entry, b->entry, a->entry_n * sizeof *a->entry);
	assert_true(a->error_built == b->error_built);
}

static void test_build_is_the_same_for_any_threads_and_cpu_level(void **state)
{
	(void)state;
	static const unsigned threads[] = {1, 2, 3, 7};
	static const enum gen_kind kinds[] = {GEN_DUPLICATES, GEN_CLUSTERED, GEN_TIGHT};
	for (int i = 0; i < 3; i++) {
		struct gen_rows r = gen_rows(kinds[i], 1500, 150, metrics[i], seed);
		struct vk_graph_conf c = {.metric = metrics[i], .profile = profiles[i], .level = VK_CPU_SCALAR};
		struct vk_graph *first = build(&r, r.n, c, NULL);
		for (size_t t = 0; t < 4; t++) {
			struct vk_graph_build_opts o = {.threads = threads[t]};
			c.level = vk_cpu_best();
			struct vk_graph *g = build(&r, r.n, c, &o);
			assert_same(first, g);
			vk_graph_free(g);
		}
		for (int level = VK_CPU_SCALAR; level < VK_CPU_LEVELS; level++) {
			c.level = (enum vk_cpu_level)level;
			if (vk_kernels(c.level)->level != c.level) continue;
			struct vk_graph *g = build(&r, r.n, c, NULL);
			assert_same(first, g);
			vk_graph_free(g);
		}
		vk_graph_free(first);
		free(r.row);
	}
}

/* --- the profile --- */

/* Embeddings as they are: a steep spectrum, so a few axes hold nearly all, or 4 bits are plenty. And rows that forbid both. */
static void test_build_auto_takes_a_lean_profile_where_it_keeps_recall(void **state)
{
	(void)state;
	const uint32_t n = 5000, dims = 256;
	struct gen_rows steep = gen_rows(GEN_GAUSSIAN, n + QUERIES, dims, VK_METRIC_L2, seed);
	for (uint32_t i = 0; i < steep.n; i++)
		for (uint32_t d = 0; d < dims; d++) gen_at(&steep, i)[d] *= d < 40 ? 1 : 0.02f;
	/* Neighbours that differ by less than 4 bits see: pairs of near twins in all dimensions. */
	struct gen_rows fine = gen_rows(GEN_GAUSSIAN, n + QUERIES, dims, VK_METRIC_L2, seed + 1);
	for (uint32_t i = 0; i < fine.n; i++)
		for (uint32_t d = 0; i % 50 && d < dims; d++)
			gen_at(&fine, i)[d] = gen_at(&fine, i - i % 50)[d] + 0.02f * gen_at(&fine, i)[d];
	struct vk_graph_conf c = {.metric = VK_METRIC_L2, .profile = VK_GRAPH_AUTO, .level = vk_cpu_best()};
	struct vk_graph *a = build(&steep, n, c, NULL), *b = build(&fine, n, c, NULL);
	struct vk_graph_stats sa, sb;
	vk_graph_stats(a, &sa);
	vk_graph_stats(b, &sb);
	double got = recall(a, &steep, n, QUERIES, 100, 40), got_fine = recall(b, &fine, n, QUERIES, 100, 40);
	print_message("steep: %s, %u of %u dims, recall %.3f; fine: %s, recall %.3f\n", vk_graph_profile_names[sa.profile],
		      a->code_dims, dims, got, vk_graph_profile_names[sb.profile], got_fine);
	assert_int_equal(sa.profile, VK_GRAPH_P8);
	assert_int_equal(a->code_dims, 64);
	assert_true(got >= 0.97);
	assert_int_equal(sb.profile, VK_GRAPH_S8);
	assert_true(got_fine >= 0.97);
	vk_graph_free(a);
	vk_graph_free(b);
	free(steep.row);
	free(fine.row);
}

int main(void)
{
	const char *from = getenv("VECKEEP_TEST_SEED");
	if (from) seed = strtoull(from, NULL, 10);
	print_message("VECKEEP_TEST_SEED=%llu\n", (unsigned long long)seed);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_build_any_metric_profile_and_dims_keeps_recall),
	    cmocka_unit_test(test_build_of_ten_thousand_keeps_recall_at_a_narrow_beam),
	    cmocka_unit_test(test_build_of_sorted_rows_is_as_good_as_of_shuffled_ones),
	    cmocka_unit_test(test_build_of_degenerate_rows_reaches_and_finds_all),
	    cmocka_unit_test(test_build_of_nothing_is_an_empty_graph),
	    cmocka_unit_test(test_build_chains_equal_rows_behind_the_first),
	    cmocka_unit_test(test_build_a_label_that_comes_again_kills_the_first),
	    cmocka_unit_test(test_build_a_row_that_cannot_be_read_fails_the_build),
	    cmocka_unit_test(test_build_of_more_than_the_capacity_is_refused),
	    cmocka_unit_test(test_build_stops_when_told_and_shows_its_progress),
	    cmocka_unit_test(test_build_is_the_same_for_any_threads_and_cpu_level),
	    cmocka_unit_test(test_build_auto_takes_a_lean_profile_where_it_keeps_recall),
	};
#ifdef __SANITIZE_THREAD__ /* the others take minutes there, with the same threads */
	return _cmocka_run_group_tests("tests", tests + 4, 6, NULL, NULL);
#else
	return cmocka_run_group_tests(tests, NULL, NULL);
#endif
}
