/*
 * Goal: the code kernels for several queries, for rows out of order and for 4-bit codes give the exact sums
 * at every level, read nothing past a row or a padded query and write nothing but their answers.
 * Method: against a loop in 64 bits, over random shapes (no rows to hundreds, one query to dozens, any dims) and
 * values, a quarter of them at the extremes; every operand ends at a forbidden page or stands at an odd
 * address, answers lie between guards. VK_TEST_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simd/score.h"
#include "tests/simd/fence.h"
#include "tests/simd/levels.h"

enum { DIMS_MAX = 3000, ROWS_MAX = 150, QUERIES_MAX = 40, SPARE = 9, GUARD = 0x5a5a5a5a };

static size_t padded(size_t dims, size_t to)
{
	return (dims + to - 1) / to * to;
}

struct bench {
	uint64_t rng;
	struct fence rows, query[QUERIES_MAX];
	const int8_t *q[QUERIES_MAX];
	const uint8_t *row[ROWS_MAX];
	int32_t *out;
};

static struct bench *bench_new(void)
{
	struct bench *b = calloc(1, sizeof *b);
	b->rng = test_seed();
	b->rows = fence_new((size_t)(DIMS_MAX + 64 + SPARE) * ROWS_MAX);
	for (size_t j = 0; j < QUERIES_MAX; j++) b->query[j] = fence_new(DIMS_MAX + 128);
	b->out = malloc(sizeof *b->out * QUERIES_MAX * (ROWS_MAX + SPARE));
	return b;
}

static void bench_free(struct bench *b)
{
	fence_free(&b->rows);
	for (size_t j = 0; j < QUERIES_MAX; j++) fence_free(&b->query[j]);
	free(b->out);
	free(b);
}

static size_t below(struct bench *b, size_t n)
{
	return (size_t)(vk_rng(&b->rng) % n);
}

/* Mostly short, where every length counts. */
static size_t some_dims(struct bench *b)
{
	return 1 + below(b, below(b, 8) ? 300 : DIMS_MAX);
}

/* Queries of dims, zeros up to a multiple of `to`, there the page ends. */
static void make_queries(struct bench *b, size_t nq, size_t dims, size_t to, int extreme)
{
	for (size_t j = 0; j < nq; j++) {
		int8_t *q = (int8_t *)b->query[j].end - padded(dims, to);
		memset(q, 0, padded(dims, to));
		for (size_t i = 0; i < dims; i++)
			q[i] = (int8_t)(extreme == 1 ? -128 : extreme == 2 ? 127 : (int)(vk_rng(&b->rng) % 256) - 128);
		b->q[j] = q;
	}
}

/* n rows of `bytes`, stride apart, the last one at the page. */
static uint8_t *make_rows(struct bench *b, size_t n, size_t bytes, size_t stride, int extreme)
{
	uint8_t *rows = n ? b->rows.end - bytes - (n - 1) * stride : b->rows.end;
	for (uint8_t *p = rows; p < b->rows.end; p++) *p = extreme ? 255 : (uint8_t)vk_rng(&b->rng);
	return rows;
}

static int64_t dot(const int8_t *q, const uint8_t *x, size_t dims)
{
	int64_t sum = 0;
	for (size_t i = 0; i < dims; i++) sum += (int64_t)q[i] * x[i];
	return sum;
}

static int64_t nibble_dot(const int8_t *q, const uint8_t *x, size_t dims)
{
	int64_t sum = 0;
	for (size_t i = 0; i < dims; i++) {
		uint8_t byte = x[i / 128 * 64 + i % 64];
		sum += (int64_t)q[i] * (i % 128 < 64 ? byte & 15 : byte >> 4);
	}
	return sum;
}

static void dots_once(struct bench *b, enum vk_cpu_level level, size_t nq, size_t n, size_t dims)
{
	int extreme = below(b, 4) ? 0 : (int)(1 + below(b, 2));
	size_t stride = dims + below(b, SPARE), out_stride = n + below(b, SPARE);
	make_queries(b, nq, dims, 64, extreme);
	const uint8_t *rows = make_rows(b, n, dims, stride, extreme);
	for (size_t i = 0; i < QUERIES_MAX * (ROWS_MAX + SPARE); i++) b->out[i] = GUARD;
	vk_kernels(level)->code_dots(b->q, nq, rows, stride, n, dims, b->out, out_stride);
	for (size_t j = 0; j < nq; j++)
		for (size_t i = 0; i < out_stride; i++) {
			int64_t want = i < n ? dot(b->q[j], rows + i * stride, dims) : GUARD;
			if (b->out[j * out_stride + i] != want)
				fail_msg("level %d, %zu queries, %zu rows, %zu dims: query %zu row %zu: %d, not %lld", level, nq, n,
					 dims, j, i, b->out[j * out_stride + i], (long long)want);
		}
	for (size_t i = nq * out_stride; i < QUERIES_MAX * (ROWS_MAX + SPARE); i++) assert_int_equal(b->out[i], GUARD);
}

static void test_code_dots_every_shape_is_exact(void **state)
{
	(void)state;
	struct bench *b = bench_new();
	for_each_level(level) {
		/* No rows, no queries, and every small shape. */
		for (size_t n = 0; n <= 9; n++)
			for (size_t nq = 0; nq <= 9; nq++) dots_once(b, level, nq, n, some_dims(b));
		for (int round = 0; round < 600 / (int)test_share() + 20; round++)
			dots_once(b, level, 1 + below(b, QUERIES_MAX), below(b, ROWS_MAX + 1), some_dims(b));
		for (size_t dims = 1; dims <= 140; dims++) dots_once(b, level, 13, 33, dims);
	}
	bench_free(b);
}

/* Rows anywhere, the same row more than once; the last of them ends at the page. */
static void at_once(struct bench *b, enum vk_cpu_level level, size_t n, size_t dims, bool nibbles)
{
	int extreme = below(b, 4) ? 0 : (int)(1 + below(b, 2));
	size_t bytes = nibbles ? padded(dims, 128) / 2 : dims, places = n + 3, stride = bytes + below(b, SPARE);
	make_queries(b, 1, dims, nibbles ? 128 : 64, extreme);
	const uint8_t *rows = make_rows(b, places, bytes, stride, extreme);
	for (size_t i = 0; i < n; i++) b->row[i] = rows + below(b, places) * stride;
	if (n) b->row[n - 1] = rows + (places - 1) * stride;
	b->out[n] = GUARD;
	if (nibbles) vk_kernels(level)->nibble_dot_at(b->q[0], b->row, n, dims, b->out);
	else vk_kernels(level)->code_dot_at(b->q[0], b->row, n, dims, b->out);
	for (size_t i = 0; i < n; i++) {
		int64_t want = nibbles ? nibble_dot(b->q[0], b->row[i], padded(dims, 128)) : dot(b->q[0], b->row[i], dims);
		assert_int_equal(b->out[i], want);
	}
	assert_int_equal(b->out[n], GUARD);
}

static void test_code_dot_at_every_shape_is_exact(void **state)
{
	(void)state;
	struct bench *b = bench_new();
	for_each_level(level) {
		for (size_t n = 0; n <= 9; n++)
			for (size_t dims = 1; dims <= 200; dims += 1 + below(b, 3)) at_once(b, level, n, dims, false);
		for (int round = 0; round < 400 / (int)test_share(); round++)
			at_once(b, level, below(b, ROWS_MAX - 3), some_dims(b), false);
	}
	bench_free(b);
}

/* What stands in a row's padding meets zeros of the query, and the other way round. */
static void test_nibble_dot_at_every_shape_is_exact(void **state)
{
	(void)state;
	struct bench *b = bench_new();
	for_each_level(level) {
		for (size_t n = 0; n <= 9; n++)
			for (size_t dims = 1; dims <= 400; dims += 1 + below(b, 5)) at_once(b, level, n, dims, true);
		for (int round = 0; round < 400 / (int)test_share(); round++)
			at_once(b, level, below(b, ROWS_MAX - 3), some_dims(b), true);
	}
	bench_free(b);
}

static void test_code_kernels_longest_rows_do_not_overflow(void **state)
{
	(void)state;
	enum { MOST = 65536, N = 40, NQ = 14 };
	int8_t *q = malloc(MOST);
	uint8_t *rows = malloc((size_t)MOST * N);
	int32_t *out = malloc(sizeof *out * N * NQ);
	const int8_t *queries[NQ];
	const uint8_t *at[N];
	memset(rows, 255, (size_t)MOST * N);
	for (size_t i = 0; i < N; i++) at[i] = rows + i * MOST;
	for (size_t j = 0; j < NQ; j++) queries[j] = q;
	for (int sign = 0; sign < 2; sign++)
		for_each_level(level) {
			const struct vk_kernels *k = vk_kernels(level);
			int one = sign ? 127 : -128;
			memset(q, one, MOST);
			size_t n = level == VK_CPU_SCALAR ? 2 : N;
			k->code_dots(queries, NQ, rows, MOST, n, MOST, out, n);
			for (size_t i = 0; i < n * NQ; i++) assert_int_equal(out[i], one * 255 * MOST);
			k->code_dot_at(q, at, n, MOST, out);
			for (size_t i = 0; i < n; i++) assert_int_equal(out[i], one * 255 * MOST);
			k->nibble_dot_at(q, at, n, MOST, out);
			for (size_t i = 0; i < n; i++) assert_int_equal(out[i], one * 15 * MOST);
		}
	free(q), free(rows), free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_code_dots_every_shape_is_exact),
		cmocka_unit_test(test_code_dot_at_every_shape_is_exact),
		cmocka_unit_test(test_nibble_dot_at_every_shape_is_exact),
		cmocka_unit_test(test_code_kernels_longest_rows_do_not_overflow),
	};
	return cmocka_run_group_tests_name("simd/code_dots", tests, NULL, NULL);
}
