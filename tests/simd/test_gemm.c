/*
 * Goal: the matrix product is right whichever library stands behind it, rows apart (leading
 * dimensions) are left alone, and the library runs with this CPU's kernels.
 * Method: random shapes 0..40, both forms of B, alpha and beta of all kinds, against a loop in
 * f64 with the error bound of a k-term f32 sum. VK_TEST_SEED replays.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simd/gemm.h"
#include "tests/simd/levels.h"

typedef void gemm_fn(bool transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
		     const float *b, size_t ldb, float beta, float *c, size_t ldc);

static float *random_matrix(uint64_t *rng, size_t n)
{
	float *p = malloc((n + 1) * sizeof *p);
	for (size_t i = 0; i < n; i++) p[i] = (float)(int32_t)vk_rng(rng) / 2147483648.0f;
	return p;
}

static void one_product(uint64_t *rng, gemm_fn *gemm)
{
	static const float factors[] = {0, 1, -1, 0.5f};
	size_t m = vk_rng(rng) % 40, n = vk_rng(rng) % 40, k = vk_rng(rng) % 40;
	bool t = vk_rng(rng) & 1;
	size_t lda = k + 1 + vk_rng(rng) % 3, ldb = (t ? k : n) + 1 + vk_rng(rng) % 3, ldc = n + 1 + vk_rng(rng) % 3;
	float alpha = factors[vk_rng(rng) % 4], beta = factors[vk_rng(rng) % 4];
	float *a = random_matrix(rng, m * lda), *b = random_matrix(rng, (t ? n : k) * ldb);
	float *c = random_matrix(rng, m * ldc), *was = malloc((m * ldc + 1) * sizeof *was);
	if (beta == 0 && m && n) c[0] = NAN; /* must be cleared, not multiplied */
	memcpy(was, c, m * ldc * sizeof *c);
	gemm(t, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
	for (size_t i = 0; i < m; i++)
		for (size_t j = 0; j < ldc; j++) {
			if (j >= n) { /* between the rows */
				assert_memory_equal(&c[i * ldc + j], &was[i * ldc + j], sizeof *c);
				continue;
			}
			double sum = 0, size = 1;
			for (size_t l = 0; l < k; l++) {
				double x = (double)a[i * lda + l] * (double)(t ? b[j * ldb + l] : b[l * ldb + j]);
				sum += x;
				size += fabs(x);
			}
			double want = (double)alpha * sum + (beta == 0 ? 0 : (double)beta * (double)was[i * ldc + j]);
			if (!(fabs((double)c[i * ldc + j] - want) <= size * (double)(k + 3) * 6e-8))
				fail_msg("m %zu n %zu k %zu t %d: got %g, wanted %g", m, n, k, t,
					 (double)c[i * ldc + j], want);
		}
	free(a), free(b), free(c), free(was);
}

static void test_gemm_random_shapes_equal_the_plain_loop(void **state)
{
	(void)state;
	uint64_t rng = test_seed();
	for (int i = 0; i < 1000; i++) {
		one_product(&rng, vk_gemm_f32);
		one_product(&rng, vk_gemm_f32_builtin);
	}
}

static void test_gemm_library_runs_this_cpus_kernels(void **state)
{
	(void)state;
	const struct vk_gemm_info *info = vk_gemm_init();
	print_message("%s, %s, %s\n", info->library, info->core_type, info->config);
	assert_ptr_equal(info, vk_gemm_init());
	if (!info->openblas) {
		assert_string_equal(info->library, "built-in");
		return;
	}
	assert_string_equal(getenv("OPENBLAS_NUM_THREADS"), "1");
	const char *core = getenv("OPENBLAS_CORETYPE");
	if (core) assert_string_equal(info->core_type, core);
	if (vk_cpu_best() == VK_CPU_AVX512) assert_non_null(core);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gemm_random_shapes_equal_the_plain_loop),
		cmocka_unit_test(test_gemm_library_runs_this_cpus_kernels),
	};
	return cmocka_run_group_tests_name("simd/gemm", tests, NULL, NULL);
}
