/*
 * Goal: norm, cosine and cut are right to f64's rounding, and the same bits at every level.
 * Method: every length 0..300 and every float alignment against the scalar level bit by bit,
 * and against a long double loop; NaN, infinities, subnormals and the largest values at every
 * place of a row. VK_TEST_SEED replays.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simd/vec.h"
#include "tests/simd/levels.h"

static float random_component(uint64_t *rng)
{
	return (float)((double)(int64_t)vk_rng(rng) / 9.3e18);
}

static void close_to(double got, long double want, double eps)
{
	if (fabsl((long double)got - want) > (long double)eps * (1 + fabsl(want)))
		fail_msg("got %.17g, wanted %.17Lg", got, want);
}

static void one_length(enum vk_cpu_level level, const float *a, const float *b, size_t n)
{
	long double aa = 0, bb = 0, ab = 0;
	for (size_t i = 0; i < n; i++) {
		aa += (long double)a[i] * a[i];
		bb += (long double)b[i] * b[i];
		ab += (long double)a[i] * b[i];
	}
	bool finite = false;
	double norm = vk_vec_norm(level, a, n, &finite), cosine = vk_vec_cosine(level, a, b, n);
	assert_true(finite);
	close_to(norm, sqrtl(aa), 1e-14);
	close_to(cosine, n ? ab / sqrtl(aa * bb) : 0, 1e-13);
	double norm1 = vk_vec_norm(VK_CPU_SCALAR, a, n, &finite), cosine1 = vk_vec_cosine(VK_CPU_SCALAR, a, b, n);
	assert_memory_equal(&norm, &norm1, sizeof norm);
	assert_memory_equal(&cosine, &cosine1, sizeof cosine);

	float *cut = malloc((n + 1) * sizeof *cut), *want = malloc((n + 1) * sizeof *want);
	cut[n] = 42;
	vk_vec_cut(level, cut, a, n);
	assert_true(cut[n] == 42);
	for (size_t i = 0; i < n; i++) want[i] = (float)((double)a[i] / norm);
	assert_memory_equal(cut, want, n * sizeof *cut);
	memcpy(cut, a, n * sizeof *cut);
	vk_vec_cut(level, cut, cut, n); /* in place */
	assert_memory_equal(cut, want, n * sizeof *cut);
	free(cut);
	free(want);
}

static void test_vec_every_length_equals_scalar(void **state)
{
	(void)state;
	uint64_t rng = test_seed();
	float a[320], b[320];
	for (int i = 0; i < 320; i++) a[i] = random_component(&rng), b[i] = random_component(&rng);
	for_each_level(level)
		for (size_t n = 0; n <= 300; n++)
			for (size_t shift = 0; shift < 16; shift += 5) one_length(level, a + shift, b + 15 - shift, n);
}

static void test_vec_byte_shifted_rows_are_read(void **state)
{
	(void)state;
	uint64_t rng = test_seed();
	float a[100];
	char raw[sizeof a + 3];
	for (int i = 0; i < 100; i++) a[i] = random_component(&rng);
	for_each_level(level)
		for (size_t shift = 1; shift < 4; shift++) {
			bool finite;
			memcpy(raw + shift, a, sizeof a);
			const float *row = (const float *)(const void *)(raw + shift);
			double got = vk_vec_norm(level, row, 100, &finite), want = vk_vec_norm(level, a, 100, &finite);
			assert_memory_equal(&got, &want, sizeof got);
		}
}

static void test_vec_a_nonfinite_component_is_seen_anywhere(void **state)
{
	(void)state;
	static const float odd[] = {NAN, -NAN, INFINITY, -INFINITY};
	for_each_level(level)
		for (size_t n = 1; n <= 100; n++)
			for (size_t at = 0; at < n; at++)
				for (int k = 0; k < 4; k++) {
					float v[100];
					bool finite = true;
					for (size_t i = 0; i < n; i++) v[i] = 1;
					v[at] = odd[k];
					vk_vec_norm(level, v, n, &finite);
					assert_false(finite);
				}
}

static void test_vec_extremes(void **state)
{
	(void)state;
	for_each_level(level) {
		float big[1536], small[1536], zero[1536] = {0};
		bool finite = false;
		for (int i = 0; i < 1536; i++) big[i] = 3.4028235e38f, small[i] = 1e-45f;
		close_to(vk_vec_norm(level, big, 1536, &finite) / 3.4028234663852886e38, sqrtl(1536), 1e-14);
		assert_true(finite);
		double tiny = vk_vec_norm(level, small, 1536, &finite);
		close_to(tiny / (double)small[0], sqrtl(1536), 1e-14);
		assert_true(vk_vec_norm(level, zero, 1536, &finite) == 0 && finite);
		assert_true(vk_vec_cosine(level, big, zero, 1536) == 0);
		assert_true(vk_vec_cosine(level, big, big, 1536) == 1);
		assert_true(vk_vec_cosine(level, small, big, 1536) == 1);
		for (int i = 0; i < 1536; i++) small[i] = -big[i];
		assert_true(vk_vec_cosine(level, small, big, 1536) == -1);
		vk_vec_cut(level, small, zero, 700);
		for (int i = 0; i < 700; i++) assert_true(small[i] == 0);
		assert_true(small[700] == -big[0]);
		vk_vec_cut(level, big, big, 4);
		assert_true(big[0] == 0.5f && big[3] == 0.5f && big[4] > 1e38f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vec_every_length_equals_scalar),
		cmocka_unit_test(test_vec_byte_shifted_rows_are_read),
		cmocka_unit_test(test_vec_a_nonfinite_component_is_seen_anywhere),
		cmocka_unit_test(test_vec_extremes),
	};
	return cmocka_run_group_tests_name("simd/vec", tests, NULL, NULL);
}
