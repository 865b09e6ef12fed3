/*
 * Exact search over parts in memory: goal is that every path, at every CPU level, on one and two threads, gives the slots
 * and the bits of rank that a full sort of the scalar kernel's scores gives, ties by id.
 * Method: seeded sets of every metric and dtype that go together, of many dims and kinds of data (ties, zero rows, norms near
 * both ends of f32, clusters), with holes, dead rows, moved rows and a tail; filters of all sizes. VK_TEST_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/index/parts.h"
#include "tests/simd/levels.h"

#if defined(__SANITIZE_THREAD__)
#define ROWS(n) ((n) / 4) /* every load costs tens of them there */
#else
#define ROWS(n) (n)
#endif

enum data { GAUSS, CLUSTERS, GRID, EQUAL, ZEROS, HUGE_NORMS, TINY_NORMS, MIXED_NORMS, DATA_KINDS };

struct maker {
	enum data kind;
	uint64_t seed;
	uint32_t dims;
};

static float normal(uint64_t *dice)
{
	double u = ((double)(vk_rng(dice) >> 11) + 1) * 0x1p-53, v = (double)(vk_rng(dice) >> 11) * 0x1p-53;
	return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static void make(void *arg, uint32_t slot, float *dst)
{
	const struct maker *m = arg;
	uint64_t dice = m->seed * 1000003 + slot, centre = m->seed + slot % 7, same = m->seed;
	float scale = 1;
	if (m->kind == HUGE_NORMS) scale = 1e18f;
	if (m->kind == TINY_NORMS) scale = powf(10, -30 - (float)(vk_rng(&dice) % 14));
	if (m->kind == MIXED_NORMS) scale = powf(10, (float)(vk_rng(&dice) % 76) - 38);
	for (uint32_t i = 0; i < m->dims; i++) {
		float x = normal(&dice) * scale;
		if (m->kind == CLUSTERS) x = normal(&centre) + 0.02f * x;
		if (m->kind == GRID) x = (float)((int)(vk_rng(&dice) % 3) - 1);
		if (m->kind == EQUAL) x = normal(&same);
		if (m->kind == ZEROS && slot % 3) x = 0;
		dst[i] = x * (m->kind == GAUSS || m->kind == CLUSTERS ? 20 : 1); /* so that integers say something */
		if (!isfinite(dst[i])) dst[i] = 3e38f;
	}
}

static struct vk_bitmap *some(const struct memory_set *m, unsigned members, uint64_t *dice)
{
	struct vk_bitmap *b = vk_bitmap_new();
	for (unsigned i = 0; i < members; i++) vk_bitmap_add(b, (uint32_t)(vk_rng(dice) % (m->slots + 100)));
	return b;
}

struct bench {
	struct memory_set *m;
	struct vk_exact_query *q;
	size_t n;
	struct vk_hit **want;
	size_t *want_n;
	struct vk_pool *pool;
};

static const char *const path_names[] = {"auto", "scan", "certified", "gemm", "few", "bits"};

static void check_answer(const struct bench *b, size_t i, enum vk_exact_path path, enum vk_cpu_level level, unsigned threads)
{
	const struct vk_exact_query *q = &b->q[i];
	const struct vk_set *s = &b->m->set;
	size_t bad = q->hits != b->want_n[i] ? 0 : SIZE_MAX;
	for (size_t j = 0; bad == SIZE_MAX && j < q->hits; j++)
		if (q->hit[j].slot != b->want[i][j].slot || memcmp(&q->hit[j].rank, &b->want[i][j].rank, sizeof(float))) bad = j;
	if (bad == SIZE_MAX) return;
	print_error("path %s level %s threads %u metric %d dtype %d dims %u query %zu of %zu limit %zu floor %g: %zu hits, want %zu\n",
		    path_names[path], vk_cpu_level_name(level), threads, s->metric, s->dtype, s->dims, i, b->n, q->limit,
		    (double)q->floor, q->hits, b->want_n[i]);
	if (bad < q->hits && bad < b->want_n[i])
		print_error("hit %zu: slot %u rank %a, want slot %u rank %a\n", bad, q->hit[bad].slot, (double)q->hit[bad].rank,
			    b->want[i][bad].slot, (double)b->want[i][bad].rank);
	fail();
}

static void run_path(struct bench *b, enum vk_exact_path path, enum vk_cpu_level level, unsigned threads)
{
	struct vk_arena a;
	struct vk_error err;
	struct vk_exact_stats stats;
	/* BITS with every row a nominee is exact, too. */
	struct vk_exact_opts o = {.pool = threads > 1 ? b->pool : NULL, .threads = threads, .path = path, .oversampling = 1e6f, .level = level};
	struct vk_exact_source src = {.set = &b->m->set, .parts = &b->m->parts, .in = b->q[0].in, .tie = memory_set_tie, .tie_arg = b->m};
	vk_arena_init(&a, (size_t)1 << 30);
	enum vk_status st = vk_exact_run(&src, b->q, b->n, &o, &a, &stats, &err);
	assert_int_equal(st, VK_OK);
	for (size_t i = 0; i < b->n; i++) check_answer(b, i, path, level, threads);
	vk_arena_free(&a);
}

/* One set, one filter, n queries: the oracle once, then every path. */
static void compare(struct memory_set *m, const struct vk_bitmap *in, size_t n, struct maker maker, struct vk_pool *pool, uint64_t *dice,
		    bool all_levels)
{
	static const size_t limits[] = {1, 10, 10, 0, 70, 1000, 100000};
	struct bench b = {.m = m, .n = n, .pool = pool};
	b.q = calloc(n, sizeof *b.q);
	b.want = calloc(n, sizeof *b.want);
	b.want_n = calloc(n, sizeof *b.want_n);
	for (size_t i = 0; i < n; i++) {
		float *v = calloc(m->set.dims, sizeof *v);
		if (vk_rng(dice) % 16) make(&maker, (uint32_t)(vk_rng(dice) % (2 * m->slots)), v); /* else zero */
		b.q[i] = (struct vk_exact_query){.vector = v, .limit = limits[vk_rng(dice) % 7], .floor = -INFINITY, .in = in};
		b.want[i] = malloc(m->slots * sizeof **b.want);
		b.want_n[i] = oracle_search(m, &b.q[i], b.want[i]);
		if (b.want_n[i] && vk_rng(dice) % 3 == 0) { /* a floor that cuts, at a rank itself */
			b.q[i].floor = b.want[i][vk_rng(dice) % b.want_n[i]].rank;
			b.want_n[i] = oracle_search(m, &b.q[i], b.want[i]);
		}
	}
	for_each_level(level) {
		if (!all_levels && level != vk_cpu_best()) continue;
		for (int path = VK_EXACT_AUTO; path <= VK_EXACT_BITS; path++)
			for (unsigned threads = 1; threads <= 2; threads++) run_path(&b, path, level, threads);
	}
	for (size_t i = 0; i < n; i++) {
		free((void *)b.q[i].vector);
		free(b.want[i]);
	}
	free(b.q);
	free(b.want);
	free(b.want_n);
}

static bool allowed(enum vk_metric m, enum vk_dtype t)
{
	return vk_kernels(VK_CPU_SCALAR)->score[vk_metric_kind(m)][t] != NULL;
}

static const struct scatter scatters[] = {
	{0}, {.hole = 10}, {.dead = 10, .moved = 10}, {.hole = 5, .dead = 20, .moved = 5, .tail = 10, .plain = 20}, {.tail = 95}, {.plain = 100},
};

static void one_set(enum vk_metric metric, enum vk_dtype dtype, uint32_t dims, uint32_t slots, struct vk_pool *pool, uint64_t *dice)
{
	static const uint32_t per_part[] = {1, 8, 32, 64, 128, 1024, 4096};
	struct maker maker = {.kind = (enum data)(vk_rng(dice) % DATA_KINDS), .seed = vk_rng(dice), .dims = dims};
	struct vk_set set = {.id = 1, .dims = dims, .metric = metric, .dtype = dtype};
	struct memory_set m = memory_set_new(set, slots, per_part[vk_rng(dice) % 7], scatters[vk_rng(dice) % 6], make, &maker, dice);
	unsigned members[] = {0, 1, 9, slots / 2, 4 * slots};
	compare(&m, NULL, 1, maker, pool, dice, true);
	compare(&m, NULL, 5, maker, pool, dice, false);
	for (size_t i = 0; i < 5; i++) {
		struct vk_bitmap *in = some(&m, members[i], dice);
		if (i == 4) vk_bitmap_add_range(in, 0, slots);
		compare(&m, in, 1 + vk_rng(dice) % 3, maker, pool, dice, false);
		vk_bitmap_free(in);
	}
	memory_set_free(&m);
}

static void test_every_path_equals_full_sort(void **state)
{
	(void)state;
	static const uint32_t dims[] = {1, 2, 31, 64, 100, 384, 768, 1537};
	uint64_t dice = test_seed();
	const char *times = getenv("VK_TEST_ROUNDS");
	struct vk_pool *pool = vk_pool_new(2, 64, "test");
	for (int rounds = times ? atoi(times) : 1; rounds > 0; rounds--)
		for (int metric = 0; metric < VK_METRICS; metric++)
			for (int dtype = 0; dtype < VK_DTYPES; dtype++)
				for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++)
					if (allowed(metric, dtype))
						one_set(metric, dtype, dims[d], ROWS(dims[d] < 300 ? 700 : 200), pool, &dice);
	vk_pool_free(pool);
}

static void test_kinds_of_data_under_certified_and_gemm_equal_full_sort(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 1;
	struct vk_pool *pool = vk_pool_new(2, 64, "test");
	for (int kind = 0; kind < DATA_KINDS; kind++)
		for (int metric = VK_METRIC_DOT; metric <= VK_METRIC_L2; metric++)
			for (int dtype = VK_DTYPE_F32; dtype <= VK_DTYPE_F16; dtype++) {
				struct maker maker = {.kind = kind, .seed = vk_rng(&dice), .dims = 96};
				struct vk_set set = {.id = 1, .dims = 96, .metric = metric, .dtype = dtype};
				struct memory_set m = memory_set_new(set, ROWS(1200), 64, scatters[kind % 6], make, &maker, &dice);
				compare(&m, NULL, 3, maker, pool, &dice, true);
				compare(&m, NULL, ROWS(30), maker, pool, &dice, false); /* many: several survive in one tile */
				memory_set_free(&m);
			}
	vk_pool_free(pool);
}

/* All rows alike, limit 10: ids decide over more survivors than the shortlist holds. */
static void test_certified_all_rows_tied_keeps_least_ids(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 2;
	struct vk_pool *pool = vk_pool_new(2, 64, "test");
	struct maker maker = {.kind = EQUAL, .seed = 5, .dims = 64};
	struct vk_set set = {.id = 1, .dims = 64, .metric = VK_METRIC_COSINE, .dtype = VK_DTYPE_F32};
	struct memory_set m = memory_set_new(set, 6000, 1024, (struct scatter){0}, make, &maker, &dice);
	compare(&m, NULL, 2, maker, pool, &dice, false);
	memory_set_free(&m);
	vk_pool_free(pool);
}

/* Bounds are worth their name: on data with clusters few rows are read again. */
static void test_certified_clustered_rows_rereads_few(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 3;
	struct maker maker = {.kind = GAUSS, .seed = 6, .dims = 256};
	struct vk_set set = {.id = 1, .dims = 256, .metric = VK_METRIC_COSINE, .dtype = VK_DTYPE_F32};
	struct memory_set m = memory_set_new(set, 20000, 256, (struct scatter){0}, make, &maker, &dice);
	float v[256];
	make(&maker, 30000, v);
	struct vk_exact_query q = {.vector = v, .limit = 10, .floor = -INFINITY};
	struct vk_exact_opts o = {.path = VK_EXACT_CERTIFIED, .level = vk_cpu_best()};
	struct vk_exact_source src = {.set = &set, .parts = &m.parts, .tie = memory_set_tie, .tie_arg = &m};
	struct vk_exact_stats stats;
	struct vk_error err;
	struct vk_arena a;
	vk_arena_init(&a, (size_t)1 << 26);
	assert_int_equal(vk_exact_run(&src, &q, 1, &o, &a, &stats, &err), VK_OK);
	assert_int_equal(stats.path, VK_EXACT_CERTIFIED);
	assert_int_equal(stats.rows_scanned, m.parts.rows);
	assert_true(stats.rows_reread >= 10 && stats.rows_reread < 200);
	vk_arena_free(&a);
	memory_set_free(&m);
}

static void test_stopped_search_is_cancelled(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 4;
	struct vk_pool *pool = vk_pool_new(2, 64, "test");
	struct maker maker = {.kind = GAUSS, .seed = 7, .dims = 64};
	struct vk_set set = {.id = 1, .dims = 64, .metric = VK_METRIC_L2, .dtype = VK_DTYPE_F32};
	struct memory_set m = memory_set_new(set, 2000, 64, (struct scatter){.tail = 20}, make, &maker, &dice);
	float v[64];
	make(&maker, 3000, v);
	atomic_bool stop = true;
	struct vk_exact_source src = {.set = &set, .parts = &m.parts, .tie = memory_set_tie, .tie_arg = &m};
	for (int path = VK_EXACT_AUTO; path <= VK_EXACT_BITS; path++) {
		struct vk_exact_query q = {.vector = v, .limit = 10, .floor = -INFINITY};
		struct vk_exact_opts o = {.path = path, .level = vk_cpu_best(), .pool = pool, .stop = &stop};
		struct vk_error err;
		struct vk_arena a;
		vk_arena_init(&a, (size_t)1 << 26);
		assert_int_equal(vk_exact_run(&src, &q, 1, &o, &a, NULL, &err), VK_E_CANCELLED);
		assert_null(q.hit);
		vk_arena_free(&a);
	}
	memory_set_free(&m);
	vk_pool_free(pool);
}

static void test_arena_too_small_is_out_of_memory(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 5;
	struct maker maker = {.kind = GAUSS, .seed = 8, .dims = 64};
	struct vk_set set = {.id = 1, .dims = 64, .metric = VK_METRIC_L2, .dtype = VK_DTYPE_F32};
	struct memory_set m = memory_set_new(set, 2000, 64, (struct scatter){0}, make, &maker, &dice);
	float v[64];
	make(&maker, 3000, v);
	struct vk_exact_source src = {.set = &set, .parts = &m.parts, .tie = memory_set_tie, .tie_arg = &m};
	for (int path = VK_EXACT_AUTO; path <= VK_EXACT_BITS; path++) {
		enum vk_status st = VK_E_NOMEM;
		size_t max = 256;
		for (; st; max *= 2) { /* every place where memory can run out is met on the way */
			struct vk_exact_query q = {.vector = v, .limit = 300, .floor = -INFINITY};
			struct vk_exact_opts o = {.path = path, .level = vk_cpu_best()};
			struct vk_error err;
			struct vk_arena a;
			vk_arena_init(&a, max);
			st = vk_exact_run(&src, &q, 1, &o, &a, NULL, &err);
			assert_true(st == VK_OK || st == VK_E_NOMEM);
			vk_arena_free(&a);
		}
		assert_true(max > 1024 && max < (size_t)1 << 26);
	}
	memory_set_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_path_equals_full_sort),
		cmocka_unit_test(test_kinds_of_data_under_certified_and_gemm_equal_full_sort),
		cmocka_unit_test(test_certified_all_rows_tied_keeps_least_ids),
		cmocka_unit_test(test_certified_clustered_rows_rereads_few),
		cmocka_unit_test(test_stopped_search_is_cancelled),
		cmocka_unit_test(test_arena_too_small_is_out_of_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
