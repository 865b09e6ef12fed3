/*
 * Goal: what a code says of its row is certain: lower <= canonical rank <= upper for every pair, under
 * dot, cosine and squared L2, and no row that reaches a floor fails the quick look (simd/code_screen.h); and it
 * says enough: few rows remain.
 * Method: millions of pairs of every kind that could break a bound (wide ranges, offsets, constant and
 * zero rows, tiny and huge norms, row equal or close to the query, rounding errors that all point
 * along the query), against the canonical kernels. Heads against long double sums. code_dot at every
 * level against a loop, at its extremes, rows ending at a forbidden page. VK_TEST_SEED replays.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simd/code_screen.h"
#include "tests/simd/fence.h"
#include "tests/simd/levels.h"

#define DIMS_MAX 4096
#define ROWS 24
#define STRIDE (DIMS_MAX + 64)

static float unit_value(uint64_t *rng)
{
	return (float)((double)(int64_t)vk_rng(rng) / 9.3e18);
}

/* Four 16-bit draws: near enough to a normal one of deviation 1. */
static float normal(uint64_t *rng)
{
	uint64_t r = vk_rng(rng);
	int sum = (int)(r & 0xffff) + (int)(r >> 16 & 0xffff) + (int)(r >> 32 & 0xffff) + (int)(r >> 48);
	return (float)(sum - 131070) / 37837.0f;
}

enum family { NORMAL, OFFSET, WIDE, CONSTANT, ZERO, SPIKE, TINY, SUBNORMAL, LARGE, HUGE_ROWS, LIKE_QUERY, IS_QUERY,
	      ALONG_QUERY, FAMILIES };

static void make(uint64_t *rng, enum family f, float *x, const float *q, size_t dims)
{
	float c = unit_value(rng), scale = ldexpf(1, (int)(vk_rng(rng) % 20) - 10);
	for (size_t i = 0; i < dims; i++) {
		float v = normal(rng);
		switch (f) {
		case NORMAL: x[i] = v * scale; break;
		case OFFSET: x[i] = 1000 * scale + v; break;
		case WIDE: x[i] = ldexpf(v, (int)(vk_rng(rng) % 60) - 40); break;
		case CONSTANT: x[i] = c; break;
		case ZERO: x[i] = vk_rng(rng) % 2 ? 0.0f : -0.0f; break;
		case SPIKE: x[i] = vk_rng(rng) % 64 ? 0 : v * 50; break;
		case TINY: x[i] = v * 1e-22f * scale; break;
		case SUBNORMAL: x[i] = v * 1e-43f; break;
		case LARGE: x[i] = v * 1e17f * scale; break;
		case HUGE_ROWS: x[i] = v * 1e38f; break;
		case LIKE_QUERY: x[i] = q[i] * (1 + 1e-3f * v); break;
		case IS_QUERY: x[i] = q[i]; break;
		/* On a grid of 1/255 but for nearly half a step in the query's direction. */
		default: x[i] = ((float)(vk_rng(rng) % 254) + 0.5f + copysignf(0.499f, q[i])) / 255;
		}
	}
	if (f == ALONG_QUERY && dims > 2) x[0] = 0, x[dims - 1] = 1;
}

struct check {
	const struct vk_kernels *k;
	uint64_t rng, pairs, infinite, nan, looks, passed, reach;
	struct vk_code_columns columns;
	float *q, *rows;
	uint8_t *codes;
	struct vk_code_head head[ROWS];
	struct vk_code_query cq;
	int8_t *sq;
	size_t dims;
};

/* No row whose rank is at least the floor fails the quick look, at any level. Mostly without the rows that are beyond it:
 * one of them lets all pass. */
static void screened(struct check *c, enum vk_metric m, const float *inverse, const int32_t *dot, const float *rank,
		     const float *upper)
{
	struct vk_code_head head[ROWS];
	float inv[ROWS], has[ROWS], most[ROWS];
	int32_t product[ROWS];
	bool every = vk_rng(&c->rng) % 16 == 0;
	size_t n = 0;
	for (size_t i = 0; i < ROWS; i++) {
		if (!every && (!(c->head[i].norm < 1e17f) || (m == VK_METRIC_COSINE && inverse[i] > 1e17f))) continue;
		head[n] = c->head[i], inv[n] = inverse[i], has[n] = rank[i], most[n] = upper[i], product[n++] = dot[i];
	}
	if (!n) return;
	size_t first = vk_rng(&c->rng) % (n + 1); /* in two pieces */
	float floor = has[vk_rng(&c->rng) % n];
	if (isnan(floor)) floor = -INFINITY;
	c->columns.n = 0;
	vk_code_columns(m, head, inv, first, c->dims, &c->columns);
	vk_code_columns(m, head + first, inv + first, n - first, c->dims, &c->columns);
	for_each_level(level) {
		uint32_t idx[ROWS];
		size_t passed = vk_code_screen(level, m, &c->cq, &c->columns, product, floor, idx), at = 0;
		assert_true(passed <= n);
		for (size_t i = 0; i < n; i++) {
			bool passes = at < passed && idx[at] == i;
			at += passes;
			if (!passes && !(has[i] < floor))
				fail_msg("metric %d level %d dims %zu row %zu: rank %a, floor %a", m, level, c->dims, i,
					 (double)has[i], (double)floor);
			if (level == VK_CPU_SCALAR && !every) c->reach += !(most[i] < floor), c->passed += passes, c->looks++;
		}
		assert_int_equal(at, passed); /* ascending */
	}
}

static void certain(struct check *c, enum vk_metric m)
{
	float raw[ROWS], rank[ROWS], lower[ROWS], upper[ROWS], inverse[ROWS], unit[DIMS_MAX];
	int32_t dot[ROWS];
	const float *q = c->q;
	if (m == VK_METRIC_COSINE) vk_unit(unit, q, c->dims), q = unit;
	vk_code_query(&c->cq, c->sq, STRIDE, q, c->dims);
	c->k->code_dot(c->sq, c->codes, STRIDE, ROWS, c->dims, NULL, dot);
	c->k->score[vk_metric_kind(m)][VK_DTYPE_F32](q, c->rows, DIMS_MAX * 4, ROWS, c->dims, NULL, raw);
	for (size_t i = 0; i < ROWS; i++) inverse[i] = vk_inverse_norm(c->rows + i * DIMS_MAX, c->dims);
	vk_code_bounds(m, &c->cq, c->head, inverse, dot, ROWS, lower, upper);
	for (size_t i = 0; i < ROWS; i++) {
		float one = rank[i] = vk_rank_of_raw(m, m == VK_METRIC_COSINE ? raw[i] * inverse[i] : raw[i]);
		bool nan = isnan(one), good = nan ? lower[i] == -INFINITY && upper[i] == INFINITY
						  : lower[i] <= one && one <= upper[i];
		c->pairs++;
		c->nan += nan;
		c->infinite += isinf(lower[i]) || isinf(upper[i]);
		if (!good)
			fail_msg("metric %d dims %zu row %zu: %a not in [%a, %a]", m, c->dims, i, (double)one,
				 (double)lower[i], (double)upper[i]);
	}
	screened(c, m, inverse, dot, rank, upper);
}

static struct check check_new(void)
{
	struct check c = {.k = vk_kernels(vk_cpu_best()), .rng = test_seed()};
	c.q = malloc(DIMS_MAX * 4);
	c.rows = malloc(DIMS_MAX * 4 * ROWS);
	c.codes = malloc(STRIDE * ROWS);
	c.sq = malloc(STRIDE);
	return c;
}

static void check_free(struct check *c)
{
	free(c->q), free(c->rows), free(c->codes), free(c->sq);
}

static void test_code_bounds_hold_for_every_pair(void **state)
{
	(void)state;
	struct check c = check_new();
	const char *wish = getenv("VK_TEST_PAIRS");
	uint64_t pairs = wish ? strtoull(wish, NULL, 0) : 1500000 / test_share();
	while (c.pairs < pairs) {
		uint64_t r = vk_rng(&c.rng) % 100;
		c.dims = 1 + vk_rng(&c.rng) % (r < 70 ? 100 : r < 99 ? 800 : DIMS_MAX);
		/* The query of one family, the rows of all. */
		enum family of_q = (enum family)(vk_rng(&c.rng) % LIKE_QUERY);
		make(&c.rng, of_q, c.q, NULL, c.dims);
		for (size_t i = 0; i < ROWS; i++) {
			float *row = c.rows + i * DIMS_MAX;
			make(&c.rng, (enum family)(i % FAMILIES), row, c.q, c.dims);
			vk_code_row(c.k, &c.head[i], c.codes + i * STRIDE, STRIDE, row, c.dims);
		}
		certain(&c, VK_METRIC_DOT);
		certain(&c, VK_METRIC_COSINE);
		certain(&c, VK_METRIC_L2);
	}
	print_message("%llu pairs, %llu with an infinite bound, %llu NaN\n", (unsigned long long)c.pairs,
		      (unsigned long long)c.infinite, (unsigned long long)c.nan);
	assert_true(c.infinite < c.pairs / 5); /* the huge rows and queries, nobody else */
	print_message("of %llu, %llu may reach a floor, %llu pass the quick look\n", (unsigned long long)c.looks,
		      (unsigned long long)c.reach, (unsigned long long)c.passed);
	assert_true(c.passed >= c.reach / 2 && c.passed < c.reach + c.looks / 10);
	check_free(&c);
}

static void rounded_up_from(float got, long double squares)
{
	long double norm = sqrtl(squares);
	if (norm > (long double)FLT_MAX) assert_true(got == INFINITY);
	else assert_true(got >= norm && got <= norm * (1 + 0x1p-22L) + 0x1p-148L);
}

/* What the head claims of a row, by long double. */
static void test_code_heads_are_rounded_up(void **state)
{
	(void)state;
	struct check c = check_new();
	for (int round = 0; round < 4000 / (int)test_share(); round++) {
		uint8_t *code = c.codes;
		struct vk_code_head h;
		c.dims = 1 + vk_rng(&c.rng) % 300;
		make(&c.rng, NORMAL, c.q, NULL, c.dims);
		make(&c.rng, (enum family)(round % FAMILIES), c.rows, c.q, c.dims);
		memset(code, 0xaa, STRIDE);
		vk_code_row(c.k, &h, code, c.dims + 7, c.rows, c.dims);
		long double norm = 0, hat = 0, err = 0;
		uint32_t sum = 0;
		for (size_t i = 0; i < c.dims; i++) {
			long double x = (long double)c.rows[i], y = (long double)h.lo + (long double)h.step * code[i];
			norm += x * x, hat += y * y, err += (x - y) * (x - y), sum += code[i];
			/* Nearest, but for what a step costs that is itself rounded to f32. */
			assert_true(fabsl(x - y) <= 0.5001L * h.step + 255 * 0x1p-149L + 0x1p-24L * fabsl(x));
		}
		assert_int_equal(h.sum, sum);
		rounded_up_from(h.norm, norm);
		rounded_up_from(h.xnorm, hat);
		assert_true(h.err >= sqrtl(err) * (1 - 0x1p-60L));
		for (size_t i = c.dims; i < c.dims + 7; i++) assert_int_equal(code[i], 0);
		assert_int_equal(code[c.dims + 7], 0xaa);

		vk_code_query(&c.cq, c.sq, c.dims + 7, c.rows, c.dims);
		long double off = 0;
		int64_t total = 0;
		for (size_t i = 0; i < c.dims; i++) {
			long double d = (long double)c.rows[i] - (long double)c.cq.step * c.sq[i];
			off += d * d, total += c.sq[i];
		}
		assert_true(c.cq.err >= sqrtl(off) * (1 - 0x1p-60L) && c.cq.norm == h.norm && c.cq.sum == total);
		for (size_t i = c.dims; i < c.dims + 7; i++) assert_int_equal(c.sq[i], 0);
	}
	check_free(&c);
}

static void test_code_every_level_makes_the_same_code(void **state)
{
	(void)state;
	struct check c = check_new();
	for (int round = 0; round < 1000 / (int)test_share(); round++) {
		c.dims = 1 + vk_rng(&c.rng) % 400;
		make(&c.rng, NORMAL, c.q, NULL, c.dims);
		make(&c.rng, (enum family)(round % FAMILIES), c.rows, c.q, c.dims);
		vk_code_row(vk_kernels(VK_CPU_SCALAR), &c.head[0], c.codes, c.dims, c.rows, c.dims);
		for_each_level(level) {
			/* A row of a map: anywhere. */
			char *shifted = (char *)c.rows + DIMS_MAX * 4 + 1;
			memcpy(shifted, c.rows, c.dims * 4);
			vk_code_row(vk_kernels(level), &c.head[1], c.codes + STRIDE, c.dims,
				    (const float *)(const void *)shifted, c.dims);
			assert_memory_equal(&c.head[0], &c.head[1], sizeof c.head[0]);
			assert_memory_equal(c.codes, c.codes + STRIDE, c.dims);
		}
	}
	check_free(&c);
}

static void test_code_dot_every_level_is_exact(void **state)
{
	(void)state;
	uint64_t rng = test_seed();
	enum { MAX = 3000, N = 7 };
	struct fence query = fence_new(MAX), rows = fence_new((MAX + 8) * N);
	for_each_level(level)
		for (size_t dims = 1; dims <= MAX; dims += dims < 300 ? 1 : 1 + vk_rng(&rng) % 60) {
			size_t n = 1 + vk_rng(&rng) % N, stride = dims + vk_rng(&rng) % 9;
			uint8_t *code = rows.end - dims - (n - 1) * stride;
			int8_t *q = (int8_t *)query.end - dims;
			bool wild = vk_rng(&rng) % 4 == 0;
			int32_t got[N + 1];
			for (size_t i = 0; i < dims; i++) q[i] = (int8_t)(wild ? -128 : (int)(vk_rng(&rng) % 256) - 128);
			for (uint8_t *p = code; p < rows.end; p++) *p = wild ? 255 : (uint8_t)vk_rng(&rng);
			got[n] = 42;
			vk_kernels(level)->code_dot(q, code, stride, n, dims, vk_rng(&rng) % 2 ? rows.end : NULL, got);
			for (size_t i = 0; i < n; i++) {
				int64_t want = 0;
				for (size_t j = 0; j < dims; j++) want += (int64_t)q[j] * code[i * stride + j];
				assert_int_equal(got[i], want);
			}
			assert_int_equal(got[n], 42);
		}
	enum { MOST = 65536 };
	int8_t *q = malloc(MOST);
	uint8_t *code = malloc(MOST);
	int32_t got;
	memset(q, -128, MOST);
	memset(code, 255, MOST);
	for_each_level(level) {
		vk_kernels(level)->code_dot(q, code, MOST, 1, MOST, NULL, &got);
		assert_int_equal(got, -128 * 255 * MOST);
	}
	free(q), free(code);
	fence_free(&query);
	fence_free(&rows);
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x < y) - (x > y); /* descending */
}

/* 1,000 clusters of 768 dims; unit rows. How many rows must be read again for k = 10. */
static void test_code_few_rows_are_read_again(void **state)
{
	(void)state;
	enum { D = 768, CLUSTERS = 1000, QUERIES = 6, K = 10 };
	const size_t N = 100000 / test_share();
	uint64_t rng = test_seed();
	const struct vk_kernels *k = vk_kernels(vk_cpu_best());
	float *centre = malloc(sizeof(float) * D * CLUSTERS), *x = malloc(sizeof(float) * D);
	float *bound = malloc(sizeof(float) * N * QUERIES * 2), *sorted = malloc(sizeof(float) * N);
	static struct vk_code_query cq[2][QUERIES];
	static int8_t sq[QUERIES][D];
	static const enum vk_metric metrics[] = {VK_METRIC_COSINE, VK_METRIC_L2};
	for (size_t i = 0; i < D * CLUSTERS; i++) centre[i] = normal(&rng);
	for (size_t q = 0; q < QUERIES; q++) {
		const float *c = centre + vk_rng(&rng) % CLUSTERS * D;
		for (size_t i = 0; i < D; i++) x[i] = c[i] + 0.7f * normal(&rng);
		vk_unit(x, x, D);
		vk_code_query(&cq[0][q], sq[q], D, x, D);
	}
	for (size_t m = 0; m < 2; m++) {
		uint64_t rows_rng = 99;
		float *lower = bound, *upper = bound + N * QUERIES;
		for (size_t r = 0; r < N; r++) {
			const float *c = centre + vk_rng(&rows_rng) % CLUSTERS * D;
			uint8_t code[D];
			struct vk_code_head h;
			for (size_t i = 0; i < D; i++) x[i] = c[i] + 0.7f * normal(&rows_rng);
			vk_unit(x, x, D);
			float inverse = vk_inverse_norm(x, D);
			vk_code_row(k, &h, code, D, x, D);
			for (size_t q = 0; q < QUERIES; q++) {
				int32_t dot;
				k->code_dot(sq[q], code, D, 1, D, NULL, &dot);
				vk_code_bounds(metrics[m], &cq[0][q], &h, &inverse, &dot, 1, &lower[q * N + r],
					       &upper[q * N + r]);
			}
		}
		size_t again = 0;
		for (size_t q = 0; q < QUERIES; q++) {
			memcpy(sorted, lower + q * N, N * sizeof(float));
			qsort(sorted, N, sizeof(float), by_value);
			for (size_t r = 0; r < N; r++) again += upper[q * N + r] >= sorted[K - 1];
		}
		print_message("%s: %.1f of %zu rows read again for k = %d (%.3f %%)\n", m ? "l2" : "cosine",
			      (double)again / QUERIES, N, K, 100.0 * (double)again / QUERIES / (double)N);
		assert_true(again >= QUERIES * K && again < QUERIES * N / (N < 100000 ? 20 : 100));
	}
	free(centre), free(x), free(bound), free(sorted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_code_bounds_hold_for_every_pair),
		cmocka_unit_test(test_code_heads_are_rounded_up),
		cmocka_unit_test(test_code_every_level_makes_the_same_code),
		cmocka_unit_test(test_code_dot_every_level_is_exact),
		cmocka_unit_test(test_code_few_rows_are_read_again),
	};
	return cmocka_run_group_tests_name("simd/code", tests, NULL, NULL);
}
