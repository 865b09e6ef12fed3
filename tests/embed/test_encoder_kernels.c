/*
 * Goal: every CPU level's kernels compute what the formulas say, for every shape that a model
 * can have. Method: random matrices of awkward sizes against sums in double, each level that
 * this machine has; the seed is printed and can be set (VECKEEP_TEST_SEED).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "embed/encoder/kernels.h"

static uint64_t seed;

static float rnd(void) { return (float)((double)(vk_rng(&seed) >> 11) * 0x1p-52 - 1); }

static void each_level(void (*check)(const struct vk_encoder_kernels *k))
{
	check(&vk_encoder_kernels_plain);
	for (int l = VK_CPU_SCALAR; l <= (int)vk_cpu_best(); l++)
		check(vk_encoder_kernels((enum vk_cpu_level)l));
}

static float *random_floats(size_t n)
{
	float *p = malloc(n * sizeof *p);
	for (size_t i = 0; i < n; i++) p[i] = rnd();
	return p;
}

static double gelu(double x) { return 0.5 * x * (1 + erf(x / sqrt(2))); }

static void check_gemm_of(const struct vk_encoder_kernels *k, size_t m, size_t n, size_t depth,
			  bool with_bias, enum vk_gemm_end end)
{
	size_t lda = depth + 3, cols = vk_panel_round(n), ldc = cols + 5;
	float *a = random_floats(m * lda), *b = random_floats(cols * depth),
	      *bias = random_floats(cols);
	float *c = random_floats(m * ldc), *before = malloc(m * ldc * sizeof *before);
	memcpy(before, c, m * ldc * sizeof *c);
	k->gemm(m, n, depth, a, lda, b, with_bias ? bias : NULL, c, ldc, end);
	for (size_t i = 0; i < m; i++)
		for (size_t j = 0; j < ldc; j++) {
			double want = before[i * ldc + j];
			if (j < cols) {
				double sum = with_bias ? bias[j] : 0;
				const float *panel =
				    b + j / VK_PANEL * VK_PANEL * depth + j % VK_PANEL;
				for (size_t d = 0; d < depth; d++)
					sum += (double)a[i * lda + d] * panel[d * VK_PANEL];
				want = end == VK_GEMM_ADD    ? want + sum
				       : end == VK_GEMM_GELU ? gelu(sum)
							     : sum;
			}
			if (fabs(c[i * ldc + j] - want) > 2e-6 * sqrt((double)depth) + 1e-6)
				fail_msg("gemm %zux%zux%zu end %d: [%zu,%zu] is %.9g, want %.9g", m,
					 n, depth, end, i, j, (double)c[i * ldc + j], want);
		}
	free(a), free(b), free(bias), free(c), free(before);
}

static void check_gemm(const struct vk_encoder_kernels *k)
{
	static const size_t ms[] = {1, 2, 3, 5, 11, 12, 13, 25, 37}, ns[] = {1, 31, 32, 33, 96},
			    ds[] = {1, 7, 32, 192, 193, 400};
	for (size_t i = 0; i < 9; i++)
		for (size_t j = 0; j < 5; j++)
			for (size_t d = 0; d < 6; d++) {
				check_gemm_of(k, ms[i], ns[j], ds[d], true, VK_GEMM_STORE);
				check_gemm_of(k, ms[i], ns[j], ds[d], false, VK_GEMM_STORE);
				check_gemm_of(k, ms[i], ns[j], ds[d], true, VK_GEMM_GELU);
				check_gemm_of(k, ms[i], ns[j], ds[d], true, VK_GEMM_ADD);
			}
}

static void test_gemm_every_shape_matches_double(void **state)
{
	(void)state;
	each_level(check_gemm);
}

static void check_gelu(const struct vk_encoder_kernels *k)
{
	float b[VK_PANEL], c[VK_PANEL];
	for (size_t i = 0; i < VK_PANEL; i++) b[i] = 1;
	for (double x = -40; x <= 40; x += 0.0007) {
		float a = (float)x;
		k->gemm(1, VK_PANEL, 1, &a, 1, b, NULL, c, VK_PANEL, VK_GEMM_GELU);
		assert_float_equal(c[7], gelu((double)a), 5e-7);
	}
	/* What a damaged model can produce must not trap; far values saturate. */
	float far[] = {1e30f, -1e30f, 0.0f};
	double want[] = {1e30, 0, 0};
	for (size_t i = 0; i < 3; i++) {
		k->gemm(1, VK_PANEL, 1, &far[i], 1, b, NULL, c, VK_PANEL, VK_GEMM_GELU);
		assert_true(fabs(c[0] - want[i]) <= 1e-6 * fabs(want[i]));
	}
}

static void test_gelu_matches_the_erf_form(void **state)
{
	(void)state;
	each_level(check_gelu);
}

static void check_softmax(const struct vk_encoder_kernels *k)
{
	for (size_t n = 1; n < 140; n++) {
		size_t padded = vk_panel_round(n);
		float row[160], scale = 0.17f;
		double e[160], total = 0, most = -1e30;
		for (size_t i = 0; i < padded; i++) row[i] = rnd() * (n % 3 ? 30 : 3000);
		for (size_t i = 0; i < n; i++) most = row[i] > most ? row[i] : most;
		for (size_t i = 0; i < n; i++) total += e[i] = exp((row[i] - most) * (double)scale);
		k->softmax(row, n, scale);
		for (size_t i = 0; i < padded; i++)
			assert_float_equal(row[i], i < n ? e[i] / total : 0, 1e-6);
	}
}

static void test_softmax_every_length_matches_double(void **state)
{
	(void)state;
	each_level(check_softmax);
}

static void check_layer_norm(const struct vk_encoder_kernels *k)
{
	for (size_t n = 1; n < 100; n++) {
		float row[100], was[100], gain[100], shift[100];
		double mean = 0, variance = 0;
		for (size_t i = 0; i < n; i++)
			row[i] = was[i] = rnd() * 3 + 1, gain[i] = rnd(), shift[i] = rnd();
		for (size_t i = 0; i < n; i++) mean += row[i] / (double)n;
		for (size_t i = 0; i < n; i++)
			variance += (row[i] - mean) * (row[i] - mean) / (double)n;
		k->layer_norm(row, n, gain, shift, 1e-5f);
		for (size_t i = 0; i < n; i++)
			assert_float_equal(
			    row[i], (was[i] - mean) / sqrt(variance + 1e-5) * gain[i] + shift[i],
			    2e-5);
	}
}

static void test_layer_norm_every_width_matches_double(void **state)
{
	(void)state;
	each_level(check_layer_norm);
}

int main(void)
{
	const char *given = getenv("VECKEEP_TEST_SEED");
	if (given) seed = strtoull(given, NULL, 0);
	else vk_random(&seed, sizeof seed);
	printf("VECKEEP_TEST_SEED=%llu\n", (unsigned long long)seed);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_gemm_every_shape_matches_double),
	    cmocka_unit_test(test_gelu_matches_the_erf_form),
	    cmocka_unit_test(test_softmax_every_length_matches_double),
	    cmocka_unit_test(test_layer_norm_every_width_matches_double),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
