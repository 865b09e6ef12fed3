/*
 * The graph's search against a flat scan of the same codes and of the floats. Goal: recall, and never a dead, foreign, doubled or missing
 * label, whatever the filter, beam, budget, chain or torn edge. Method: graphs made by hand (exact neighbours and random edges), so the
 * builder is not in it. VK_TEST_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "index/graph_pool.h"
#include "tests/index/graph_util.h"

#define N 3000u
#define DIMS 40u
#define K 10u

static const enum vk_metric metrics[] = {VK_METRIC_DOT, VK_METRIC_COSINE, VK_METRIC_L2};

static struct vk_graph_conf conf_of(enum vk_metric metric, enum vk_graph_profile p)
{
	return (struct vk_graph_conf){
	    .dims = DIMS, .metric = metric, .profile = p, .capacity = 4096, .level = vk_cpu_best(), .degree = 32};
}

/* --- the pool --- */

static int by_key(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void test_keys_sort_by_nearness_then_node(void **state)
{
	(void)state;
	static const float near[] = {INFINITY, 3e38f, 2, 1, 1e-40f, 0, -1e-40f, -1, -2, -3e38f, -INFINITY};
	for (size_t i = 0; i + 1 < sizeof near / sizeof *near; i++) {
		assert_true(vk_pool_key(near[i], 9) < vk_pool_key(near[i + 1], 1));
		assert_true(vk_pool_key(near[i], 1) < vk_pool_key(near[i], 2));
		assert_true(vk_pool_near(vk_pool_key(near[i], 7)) == near[i]);
		assert_int_equal(vk_pool_node(vk_pool_key(near[i], VK_GRAPH_NODES_MAX - 1)), VK_GRAPH_NODES_MAX - 1);
	}
}

struct pools { /* the same pool three times: both shapes, and a sorted array as the model */
	struct vk_pool_flat flat;
	struct vk_pool_deep deep;
	uint64_t *model;
	uint32_t n, cap;
	bool use_flat;
	uint64_t step[40]; /* keys that the flat one gets together */
	uint32_t steps;
};

static bool model_insert(struct pools *p, uint64_t key)
{
	uint32_t at = 0;
	while (at < p->n && p->model[at] < key) at++;
	if (at < p->n && (p->model[at] | 1) == (key | 1)) return false;
	if (at == p->cap) return false;
	uint32_t moved = p->n < p->cap ? p->n++ - at : p->cap - 1 - at;
	memmove(p->model + at + 1, p->model + at, moved * sizeof *p->model);
	p->model[at] = key;
	return true;
}

static uint64_t model_pop(struct pools *p)
{
	for (uint32_t i = 0; i < p->n; i++)
		if (!(p->model[i] & 1)) {
			uint64_t key = p->model[i];
			p->model[i] |= 1;
			return key;
		}
	return UINT64_MAX;
}

static void pools_merge(struct pools *p)
{
	uint32_t before = p->flat.next;
	if (vk_pool_flat_merge(&p->flat, p->step, p->steps)) assert_true(p->flat.next <= before && !(p->flat.key[p->flat.next] & 1));
	p->steps = 0;
	for (uint32_t i = 0; i < p->flat.next; i++) assert_true(p->flat.key[i] & 1);
	assert_true(p->flat.next == p->flat.n || !(p->flat.key[p->flat.next] & 1));
}

static void pools_check(struct pools *p)
{
	struct vk_pool_at at = {0};
	if (p->steps) pools_merge(p);
	assert_int_equal(p->deep.n, p->n);
	for (uint32_t i = 0; i < p->n; i++) {
		assert_true(vk_pool_deep_read(&p->deep, &at) == p->model[i]);
		if (p->use_flat) assert_true(p->flat.key[i] == p->model[i]);
	}
	assert_true(vk_pool_deep_read(&p->deep, &at) == UINT64_MAX);
	if (p->use_flat) assert_int_equal(p->flat.n, p->n);
}

static void pools_step(struct pools *p, uint32_t distinct, uint64_t *dice)
{
	if (vk_rng(dice) % 3) {
		uint64_t key = vk_pool_key((float)(vk_rng(dice) % distinct) - 100, (uint32_t)(vk_rng(dice) % 4000));
		bool in = model_insert(p, key);
		assert_true(vk_pool_deep_insert(&p->deep, key) == in);
		if (p->use_flat) p->step[p->steps++] = key;
		if (p->steps && (p->steps == 40 || vk_rng(dice) % 8 == 0)) pools_merge(p);
		return;
	}
	if (p->steps) pools_merge(p);
	uint64_t key = model_pop(p);
	assert_true(vk_pool_deep_peek(&p->deep) == key);
	assert_true(vk_pool_deep_pop(&p->deep) == key);
	if (!p->use_flat) return;
	assert_true((p->flat.next < p->flat.n) == (key != UINT64_MAX));
	if (key != UINT64_MAX) assert_true(vk_pool_flat_pop(&p->flat) == key);
}

static void test_pools_of_both_shapes_are_a_sorted_array(void **state)
{
	(void)state;
	static const uint32_t caps[] = {1, 2, 7, 64, 511, 512, 513, 1024, 2000, 5000};
	uint64_t dice = test_seed();
	for (size_t c = 0; c < sizeof caps / sizeof *caps; c++)
		for (uint32_t distinct = 3; distinct < 2000; distinct *= 20) {
			struct pools p = {.cap = caps[c], .use_flat = caps[c] <= VK_POOL_FLAT_MAX};
			p.model = malloc((caps[c] + 1) * sizeof *p.model);
			p.flat.key = malloc((VK_POOL_FLAT_MAX + 1) * sizeof *p.model);
			assert_true(vk_pool_deep_new(&p.deep, caps[c]));
			vk_pool_flat_reset(&p.flat, caps[c]);
			vk_pool_deep_reset(&p.deep, caps[c]);
			for (int i = 0; i < 12000; i++) {
				pools_step(&p, distinct, &dice);
				if (i % 997 == 0) pools_check(&p);
			}
			pools_check(&p);
			qsort(p.model, p.n, sizeof *p.model, by_key);
			pools_check(&p); /* it was sorted */
			vk_pool_deep_free(&p.deep);
			free(p.flat.key);
			free(p.model);
		}
}

/* --- searches --- */

struct answer {
	uint32_t label[N + 8];
	float near[N + 8];
	struct vk_graph_query q;
};

static struct answer *search(struct vk_graph *g, struct answer *a, struct vk_graph_query q)
{
	q.label = a->label;
	q.near = a->near;
	a->q = q;
	assert_int_equal(gu_search(g, &a->q), VK_OK);
	assert_true(a->q.n <= q.want);
	for (uint32_t i = 0; i < a->q.n; i++) {
		uint32_t node = vk_graph_node_of(g, a->label[i]);
		assert_true(node != VK_GRAPH_NONE && !vk_graph_is_dead(g, node));
		if (q.allow) assert_true(a->label[i] < q.allow_n && q.allow[a->label[i] / 64] >> (a->label[i] % 64) & 1);
		if (i) assert_true(a->near[i] <= a->near[i - 1]);
		for (uint32_t j = 0; j < i; j++) assert_int_not_equal(a->label[i], a->label[j]);
	}
	return a;
}

/* How many of the answer's first k are among the k best allowed rows (ties count). Labels are 3 * row. */
static uint32_t hits(const struct vk_graph *g, const struct answer *a, const float *row, uint32_t n, uint32_t k)
{
	float *rank = malloc(n * sizeof *rank), bar = INFINITY, *left = malloc(n * sizeof *left);
	uint32_t found = 0, had = 0;
	gu_ranks(&g->conf, a->q.vector, row, n, rank);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t label = 3 * i, node = vk_graph_node_of(g, label);
		bool may = node != VK_GRAPH_NONE && !vk_graph_is_dead(g, node);
		if (a->q.allow && !(a->q.allow[label / 64] >> (label % 64) & 1)) may = false;
		left[i] = may ? rank[i] : -INFINITY;
	}
	for (; had < k; had++) {
		uint32_t best = gu_best(left, n);
		if (left[best] == -INFINITY) break;
		bar = left[best];
		left[best] = -INFINITY;
	}
	/* Codes nominate: the rank decides among what was nominated, as the caller's re-rank would. */
	for (uint32_t i = 0; i < a->q.n; i++) found += rank[a->label[i] / 3] >= bar;
	free(rank);
	free(left);
	return found < had ? found + (k - had) : k;
}

struct world {
	struct vk_graph_conf conf;
	struct vk_graph *g;
	float *row, *query; /* N rows; 20 queries */
};
#define QUERIES 20u

static struct world world_new(enum vk_metric metric, enum vk_graph_profile p, uint32_t n, uint64_t *dice)
{
	struct world w = {.conf = conf_of(metric, p)};
	w.row = gu_rows(n + QUERIES, DIMS, metric, dice);
	w.query = w.row + (size_t)n * DIMS;
	w.g = gu_graph(&w.conf, w.row, n, dice);
	return w;
}

static void world_free(struct world *w)
{
	vk_graph_free(w->g);
	free(w->row);
}

static double recall(struct world *w, struct answer *a, struct vk_graph_query q)
{
	uint32_t found = 0;
	for (uint32_t i = 0; i < QUERIES; i++) {
		q.vector = w->query + (size_t)i * DIMS;
		found += hits(w->g, search(w->g, a, q), w->row, N, K);
	}
	return found / (double)(QUERIES * K);
}

static void test_recall_of_every_metric_and_profile_keeps_its_floor(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 1;
	struct answer *a = malloc(sizeof *a);
	for (int p = VK_GRAPH_S8; p <= VK_GRAPH_S4; p++)
		for (size_t m = 0; m < 3; m++) {
			struct world w = world_new(metrics[m], (enum vk_graph_profile)p, N, &dice);
			double r = recall(&w, a, (struct vk_graph_query){.ef = 100, .want = p == VK_GRAPH_S8 ? 20 : 60});
			double wide = recall(&w, a, (struct vk_graph_query){.ef = 2000, .want = 60});
			double all = recall(&w, a, (struct vk_graph_query){.ef = 65536, .want = N});
			print_message("profile %d metric %zu: recall %.3f, ef 2000 %.3f, ef 65536 %.3f\n", p, m, r, wide, all);
			assert_true(r >= 0.95 && wide >= 0.98 && all >= 0.999);
			world_free(&w);
		}
	free(a);
}

static void test_search_of_none_one_and_two_answers_what_there_is(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 2;
	struct answer *a = malloc(sizeof *a);
	for (uint32_t n = 0; n < 4; n++)
		for (uint32_t ef = 0; ef < 3000; ef = ef * 10 + 1) {
			struct world w = world_new(VK_METRIC_L2, VK_GRAPH_S8, n, &dice);
			search(w.g, a, (struct vk_graph_query){.vector = w.query, .ef = ef, .want = 5});
			assert_int_equal(a->q.n, n);
			search(w.g, a, (struct vk_graph_query){.vector = w.query, .ef = ef, .want = 0});
			assert_int_equal(a->q.n, 0);
			uint64_t none[1] = {0}, one[1] = {1};
			search(w.g, a, (struct vk_graph_query){.vector = w.query, .ef = ef, .want = 5, .allow = none, .allow_n = 64});
			assert_int_equal(a->q.n, 0);
			search(w.g, a, (struct vk_graph_query){.vector = w.query, .ef = ef, .want = 5, .allow = one, .allow_n = 64});
			assert_int_equal(a->q.n, n ? 1 : 0);
			world_free(&w);
		}
	struct vk_graph_conf c = conf_of(VK_METRIC_L2, VK_GRAPH_S8);
	struct vk_graph *g;
	assert_int_equal(vk_graph_new(&c, &g, NULL), VK_OK);
	struct vk_graph_query q = {.ef = VK_GRAPH_EF_MAX + 1, .want = 1};
	assert_int_equal(gu_search(g, &q), VK_E_INVALID);
	vk_graph_free(g);
	free(a);
}

static void allow_some(uint64_t *allow, double share, uint64_t *dice)
{
	memset(allow, 0, (3 * N / 64 + 1) * sizeof *allow);
	for (uint32_t i = 0; i < N; i++)
		if ((double)(vk_rng(dice) >> 11) * 0x1p-53 < share) allow[3 * i / 64] |= (uint64_t)1 << (3 * i % 64);
}

static uint32_t allowed_of(const uint64_t *allow)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < N; i++) n += allow[3 * i / 64] >> (3 * i % 64) & 1;
	return n;
}

static void test_filters_answer_only_the_allowed_and_as_many_as_there_are(void **state)
{
	(void)state;
	static const double shares[] = {0.002, 0.01, 0.1, 0.4, 0.8, 1};
	uint64_t dice = test_seed() + 3, allow[3 * N / 64 + 1];
	struct answer *a = malloc(sizeof *a);
	struct world w = world_new(VK_METRIC_COSINE, VK_GRAPH_S8, N, &dice);
	for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
		allow_some(allow, shares[s], &dice);
		uint32_t seed[3 * N], seeds = 0;
		for (uint32_t i = 0; i < 3 * N && seeds < 32; i++)
			if (allow[i / 64] >> (i % 64) & 1) seed[seeds++] = i;
		struct vk_graph_query q = {.ef = 64, .want = 20, .allow = allow, .allow_n = 3 * N};
		double plain = recall(&w, a, q);
		assert_int_equal(a->q.n, allowed_of(allow) < 20 ? allowed_of(allow) : 20);
		uint64_t plain_cost = a->q.visited;
		q.two_hop = true;
		q.seed = seed;
		q.seed_n = seeds;
		double hop = recall(&w, a, q);
		print_message("share %.3f: plain %.3f (%llu), two hop %.3f (%llu)\n", shares[s], plain,
			      (unsigned long long)plain_cost, hop, (unsigned long long)a->q.visited);
		assert_true(plain >= 0.97);
		assert_true(hop >= (shares[s] < 0.05 ? 0.6 : 0.95));
		if (shares[s] < 0.5) assert_true(a->q.visited < plain_cost);
	}
	/* Labels beyond what the bits speak of are not allowed. */
	memset(allow, 0xff, sizeof allow);
	search(w.g, a, (struct vk_graph_query){.vector = w.query, .ef = 50, .want = 20, .allow = allow, .allow_n = 300});
	assert_int_equal(a->q.n, 20);
	world_free(&w);
	free(a);
}

static void test_budget_met_gives_up_with_what_was_found(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 4, allow[3 * N / 64 + 1];
	struct answer *a = malloc(sizeof *a);
	struct world w = world_new(VK_METRIC_DOT, VK_GRAPH_S8, N, &dice);
	allow_some(allow, 0.01, &dice);
	struct vk_graph_query q = {.vector = w.query, .ef = 100, .want = 20, .allow = allow, .allow_n = 3 * N, .visit_max = 500};
	search(w.g, a, q);
	assert_true(a->q.gave_up && a->q.visited >= 500 && a->q.visited < 500 + 2 * w.conf.degree);
	q.visit_max = 100000;
	search(w.g, a, q);
	assert_true(!a->q.gave_up && a->q.n == 20);
	world_free(&w);
	free(a);
}

static void test_dead_nodes_never_answer_and_never_starve_the_live(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 5;
	struct answer *a = malloc(sizeof *a);
	struct world w = world_new(VK_METRIC_L2, VK_GRAPH_S8, N, &dice);
	for (uint32_t i = 0; i < N; i++) /* all but every 50th */
		if (i % 50) {
			vk_graph_set_dead(w.g, i, true);
			assert_int_equal(vk_graph_bind(w.g, 3 * i, VK_GRAPH_NONE), VK_OK);
		}
	assert_int_equal(vk_graph_entries(w.g), VK_OK);
	double r = recall(&w, a, (struct vk_graph_query){.ef = 40, .want = 20});
	assert_int_equal(a->q.n, 20);
	assert_true(r >= 0.97);
	search(w.g, a, (struct vk_graph_query){.vector = w.query, .ef = 40, .want = N});
	assert_int_equal(a->q.n, N / 50);
	struct vk_graph_stats st;
	vk_graph_stats(w.g, &st);
	assert_int_equal(st.nodes, N);
	assert_int_equal(st.live, N / 50);
	assert_true(vk_graph_has(w.g, 0) && !vk_graph_has(w.g, 3) && !vk_graph_has(w.g, 1) && !vk_graph_has(w.g, 1u << 31));
	vk_graph_set_dead(w.g, 1, true); /* twice is once */
	vk_graph_set_dead(w.g, 1, false);
	vk_graph_stats(w.g, &st);
	assert_int_equal(st.live, N / 50 + 1);
	world_free(&w);
	free(a);
}

/* Nodes beyond `first` become copies of it, chained in their order. */
static void chain_up(struct world *w, uint32_t first, uint32_t copies)
{
	uint32_t last = first;
	for (uint32_t i = 0; i < copies; i++) {
		uint32_t node = atomic_load(&w->g->n);
		gu_node(w->g, w->row + (size_t)first * DIMS, 3 * node);
		assert_true(vk_graph_same_code(w->g, first, vk_graph_code_at(w->g, node)));
		vk_graph_chains_note(w->g, last);
		*vk_graph_chain_at(w->g, last) = node;
		last = node;
		w->g->chained_n++;
	}
}

static void test_chains_answer_for_all_their_rows(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 6;
	struct answer *a = malloc(sizeof *a);
	struct world w = world_new(VK_METRIC_COSINE, VK_GRAPH_S8, N, &dice);
	chain_up(&w, 77, 100);
	const float *x = w.row + (size_t)77 * DIMS;
	search(w.g, a, (struct vk_graph_query){.vector = x, .ef = 30, .want = 30});
	assert_int_equal(a->q.n, 30);
	assert_true(a->near[0] == a->near[29]);
	search(w.g, a, (struct vk_graph_query){.vector = x, .ef = 30, .want = 150});
	assert_true(a->q.n == 150 && a->near[0] == a->near[100] && a->near[101] < a->near[100]);
	/* The first dies: the others answer. */
	vk_graph_set_dead(w.g, 77, true);
	assert_int_equal(vk_graph_bind(w.g, 3 * 77, VK_GRAPH_NONE), VK_OK);
	search(w.g, a, (struct vk_graph_query){.vector = x, .ef = 30, .want = 100});
	assert_true(a->q.n == 100 && a->near[0] == a->near[99]);
	/* Only the last is allowed. */
	uint64_t allow[(3 * (N + 100)) / 64 + 1];
	uint32_t last = 3 * (N + 99);
	memset(allow, 0, sizeof allow);
	allow[last / 64] |= (uint64_t)1 << (last % 64);
	for (int hop = 0; hop < 2; hop++) {
		search(w.g, a, (struct vk_graph_query){.vector = x, .ef = 30, .want = 10, .allow = allow, .allow_n = last + 1,
						       .two_hop = hop});
		assert_true(a->q.n == 1 && a->label[0] == last);
	}
	world_free(&w);
	free(a);
}

static void test_torn_and_foreign_edges_are_skipped(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 7;
	struct answer *a = malloc(sizeof *a);
	struct world w = world_new(VK_METRIC_L2, VK_GRAPH_S8, N, &dice);
	for (uint32_t i = 0; i < N; i++) { /* some edges doubled, to itself, beyond n, none behind a place */
		uint32_t *edge = vk_graph_edges_at(w.g, i);
		edge[vk_rng(&dice) % 32] = edge[vk_rng(&dice) % 8];
		edge[vk_rng(&dice) % 32] = i;
		edge[vk_rng(&dice) % 32] = N + (uint32_t)(vk_rng(&dice) % 100000);
		if (i % 7 == 0) edge[16 + vk_rng(&dice) % 16] = VK_GRAPH_NONE;
	}
	assert_true(recall(&w, a, (struct vk_graph_query){.ef = 100, .want = 20}) >= 0.95);
	assert_true(recall(&w, a, (struct vk_graph_query){.ef = 1500, .want = 20}) >= 0.98);
	world_free(&w);
	free(a);
}

static void test_beam_gives_nodes_in_order_and_only_below(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 8;
	struct world w = world_new(VK_METRIC_L2, VK_GRAPH_S8, N, &dice);
	struct vk_graph_scratch *s = vk_graph_scratch_take(w.g);
	struct vk_graph_ready *r = vk_graph_scratch_ready(s);
	struct vk_graph_seen pool[2000], visited[500];
	static const uint32_t efs[] = {1, 50, 1024, 2000}, belows[] = {0, 1, 700, UINT32_MAX};
	vk_graph_set_dead(w.g, 5, true); /* beams walk the dead, too */
	for (size_t e = 0; e < 4; e++)
		for (size_t b = 0; b < 4; b++) {
			struct vk_graph_beam beam = {
			    .ef = efs[e], .below = belows[b], .pool = pool, .visited = visited, .visited_max = 500};
			vk_graph_ready_node(w.g, 5, r);
			vk_graph_beam(w.g, s, r, &beam);
			uint32_t n = belows[b] < N ? belows[b] : N;
			assert_true(beam.pool_n <= efs[e] && (beam.pool_n > 0) == (n > 0));
			for (uint32_t i = 0; i < beam.pool_n; i++) {
				float near;
				assert_true(pool[i].node < n && (!i || pool[i].near <= pool[i - 1].near));
				vk_graph_near(w.g, r, &pool[i].node, 1, &near);
				assert_true(near == pool[i].near);
			}
			assert_true(beam.visited_n <= 500 && beam.visited_n >= (beam.pool_n < 500 ? beam.pool_n : 500));
			if (n > 5 && efs[e] > 1) assert_int_equal(pool[0].node, 5);
		}
	vk_graph_scratch_give(w.g, s);
	world_free(&w);
}

/* --- while one grows --- */

struct race {
	struct world w;
	const float *more; /* rows that come */
	atomic_bool stop;
	atomic_uint failed;
};

static void *searcher(void *arg)
{
	struct race *r = arg;
	uint32_t label[20], i = 0;
	float near[20];
	for (; !atomic_load(&r->stop); i++) {
		struct vk_graph_query q = {.vector = r->w.query + (size_t)(i % QUERIES) * DIMS,
					   .ef = i % 5 ? 40 : 1500,
					   .want = 20,
					   .label = label,
					   .near = near};
		struct vk_graph_scratch *s = vk_graph_scratch_take(r->w.g);
		if (!s || vk_graph_search(r->w.g, s, &q) || q.n != 20) atomic_fetch_add(&r->failed, 1);
		for (uint32_t k = 0; k < q.n; k++)
			for (uint32_t j = 0; j < k; j++)
				if (label[k] == label[j]) atomic_fetch_add(&r->failed, 1);
		vk_graph_scratch_give(r->w.g, s);
	}
	return NULL;
}

/* A node as a grower publishes it: all of it, then n, then edges of others. Now and then a label moves to its new node. */
static void grow(struct vk_graph *g, const float *row, uint32_t i, uint64_t *dice)
{
	uint32_t node = atomic_load(&g->n), old = (uint32_t)(vk_rng(dice) % node), label = i % 2 ? 3 * node : 3 * old;
	float scratch[2 * DIMS];
	vk_graph_encode(g, row, scratch, vk_graph_code_at(g, node));
	__atomic_store_n(vk_graph_label_at(g, node), label, __ATOMIC_RELAXED);
	__atomic_store_n(vk_graph_chain_at(g, node), VK_GRAPH_NONE, __ATOMIC_RELAXED);
	for (uint32_t k = 0; k < g->conf.degree; k++)
		__atomic_store_n(vk_graph_edges_at(g, node) + k, (uint32_t)(vk_rng(dice) % node), __ATOMIC_RELAXED);
	atomic_store_explicit(&g->n, node + 1, memory_order_release);
	uint32_t was = vk_graph_node_of(g, label);
	vk_graph_bind(g, label, node);
	if (was != VK_GRAPH_NONE) vk_graph_set_dead(g, was, true);
	for (uint32_t k = 0; k < 20; k++)
		__atomic_store_n(vk_graph_edges_at(g, (uint32_t)(vk_rng(dice) % node)) + vk_rng(dice) % g->conf.degree, node,
				 __ATOMIC_RELEASE);
	if (i % 64 == 0) vk_graph_entries(g);
}

static void test_searches_beside_a_grower_find_whole_answers(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 9;
	struct race r = {.w = world_new(VK_METRIC_COSINE, VK_GRAPH_S8, 1000, &dice)};
	float *more = gu_rows(2000, DIMS, VK_METRIC_COSINE, &dice);
	pthread_t t[3];
	for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&t[i], NULL, searcher, &r), 0);
	for (uint32_t i = 0; i < 2000; i++) grow(r.w.g, more + (size_t)i * DIMS, i, &dice);
	atomic_store(&r.stop, true);
	for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&r.failed), 0);
	assert_true(vk_graph_oldest(r.w.g) == UINT64_MAX);
	free(more);
	world_free(&r.w);
}

static void test_oldest_epoch_is_of_the_running_search(void **state)
{
	(void)state;
	struct vk_graph_conf c = conf_of(VK_METRIC_L2, VK_GRAPH_S8);
	struct vk_graph *g;
	assert_int_equal(vk_graph_new(&c, &g, NULL), VK_OK);
	struct vk_graph_scratch *a = vk_graph_scratch_take(g), *b = vk_graph_scratch_take(g);
	assert_true(a && b && a != b && vk_graph_oldest(g) == UINT64_MAX);
	vk_graph_scratch_give(g, a);
	assert_ptr_equal(vk_graph_scratch_take(g), a);
	vk_graph_search_begin(g, a);
	uint64_t first = vk_graph_oldest(g);
	atomic_fetch_add(&g->epoch, 5);
	vk_graph_search_begin(g, b);
	assert_true(vk_graph_oldest(g) == first);
	vk_graph_search_end(a);
	assert_true(vk_graph_oldest(g) == first + 5);
	vk_graph_search_end(b);
	assert_true(vk_graph_oldest(g) == UINT64_MAX);
	vk_graph_scratch_give(g, a);
	vk_graph_scratch_give(g, b);
	vk_graph_free(g);
}

static void test_tuning_takes_one_of_its_settings_and_changes_no_answer(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 10;
	struct answer *a = malloc(sizeof *a), *b = malloc(sizeof *b);
	struct world w = world_new(VK_METRIC_COSINE, VK_GRAPH_S8, N, &dice);
	static const struct vk_graph_prefetch odd[] = {{0, 0}, {1, 1}, {3, 200}, {500, 1}, {65535, 65535}};
	struct vk_graph_query q = {.vector = w.query, .ef = 60, .want = 20};
	search(w.g, a, q);
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
		vk_graph_prefetch_set(w.g, odd[i]);
		struct vk_graph_prefetch p = vk_graph_prefetch_get(w.g);
		assert_true(p.ahead == odd[i].ahead && p.lines == odd[i].lines);
		search(w.g, b, q);
		assert_memory_equal(a->label, b->label, 20 * sizeof *a->label);
	}
	vk_graph_tune(w.g, 20);
	struct vk_graph_prefetch p = vk_graph_prefetch_get(w.g);
	assert_true(p.ahead >= 4 && p.ahead <= 24 && p.lines >= 2 && p.lines <= 32);
	assert_true(vk_graph_oldest(w.g) == UINT64_MAX);
	world_free(&w);
	free(a);
	free(b);
}

static void test_conf_that_cannot_be_is_refused_with_words(void **state)
{
	(void)state;
	static const struct vk_graph_conf bad[] = {
	    {.dims = 0},
	    {.dims = 70000},
	    {.dims = 8, .metric = VK_METRIC_L1},
	    {.dims = 8, .degree = 17},
	    {.dims = 8, .degree = 144},
	    {.dims = 8, .ef_build = 70000},
	    {.dims = 8, .alpha = -1},
	    {.dims = 8, .alpha = NAN},
	    {.dims = 8, .capacity = VK_GRAPH_NODES_MAX + 1},
	    {.dims = 8, .profile = VK_GRAPH_PROFILES},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct vk_graph *g;
		struct vk_error err;
		assert_int_equal(vk_graph_new(&bad[i], &g, &err), VK_E_INVALID);
		assert_null(g);
		assert_true(err.text[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_keys_sort_by_nearness_then_node),
	    cmocka_unit_test(test_pools_of_both_shapes_are_a_sorted_array),
	    cmocka_unit_test(test_recall_of_every_metric_and_profile_keeps_its_floor),
	    cmocka_unit_test(test_search_of_none_one_and_two_answers_what_there_is),
	    cmocka_unit_test(test_filters_answer_only_the_allowed_and_as_many_as_there_are),
	    cmocka_unit_test(test_budget_met_gives_up_with_what_was_found),
	    cmocka_unit_test(test_dead_nodes_never_answer_and_never_starve_the_live),
	    cmocka_unit_test(test_chains_answer_for_all_their_rows),
	    cmocka_unit_test(test_torn_and_foreign_edges_are_skipped),
	    cmocka_unit_test(test_beam_gives_nodes_in_order_and_only_below),
	    cmocka_unit_test(test_searches_beside_a_grower_find_whole_answers),
	    cmocka_unit_test(test_oldest_epoch_is_of_the_running_search),
	    cmocka_unit_test(test_tuning_takes_one_of_its_settings_and_changes_no_answer),
	    cmocka_unit_test(test_conf_that_cannot_be_is_refused_with_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
