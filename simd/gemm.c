/*
 * OpenBLAS by dlopen. Its configuration is read from the environment by the library's
 * constructor, so the variables are set before it is loaded; what the user has set stays,
 * but for the number of threads: those are ours to make.
 *
 * On systems with 64-bit-index builds only (libopenblas64) the symbols have other names and
 * the built-in loop is used.
 */
#include "simd/gemm.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From the CBLAS standard; the header is not needed to load the library. */
enum { CBLAS_ROW_MAJOR = 101, CBLAS_NO_TRANS = 111, CBLAS_TRANS = 112 };
typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
		      int lda, const float *b, int ldb, float beta, float *c, int ldc);
typedef char *text_fn(void);
typedef void set_threads_fn(int n);

static struct {
	pthread_once_t once;
	sgemm_fn *sgemm; /* NULL: the built-in loop */
	struct vk_gemm_info info;
	char config[256];
} gemm = {.once = PTHREAD_ONCE_INIT,
	  .info = {.library = "built-in", .core_type = "", .config = ""}};

/* 0.3.21 has no newer name for AVX-512 than SkylakeX; later releases still know it. */
static const char *const core_types[VK_CPU_LEVELS] = {
	[VK_CPU_AVX2] = "Haswell",
	[VK_CPU_AVX512] = "SkylakeX",
};

static void load(void)
{
	static const char *const files[] = {"libopenblas.so.0", "libopenblas.so"};
	const char *core = core_types[vk_cpu_best()];
	if (core) setenv("OPENBLAS_CORETYPE", core, 0);
	setenv("OPENBLAS_NUM_THREADS", "1", 1);
	/* OpenMP's too, which FAISS brings along (index/faiss_load.c): threads that spin for each other while others want the
	 * cores make a build many times slower. Read when it is loaded, so it is set here, before there are threads. */
	setenv("OMP_WAIT_POLICY", "passive", 0);

	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		void *lib = dlopen(files[i], RTLD_NOW | RTLD_LOCAL);
		if (!lib) continue;
		void *found = dlsym(lib, "cblas_sgemm");
		if (!found) {
			dlclose(lib);
			continue;
		}
		void *core_name = dlsym(lib, "openblas_get_corename");
		void *config = dlsym(lib, "openblas_get_config");
		void *set_threads = dlsym(lib, "openblas_set_num_threads");
		/* dlsym's object pointers become function pointers the way POSIX wants it. */
		memcpy(&gemm.sgemm, &found, sizeof found);
		text_fn *text;
		gemm.info.openblas = true;
		gemm.info.library = files[i];
		gemm.info.core_type = "unknown";
		if (core_name) {
			memcpy(&text, &core_name, sizeof text);
			gemm.info.core_type = text();
		}
		if (config) {
			memcpy(&text, &config, sizeof text);
			snprintf(gemm.config, sizeof gemm.config, "%s", text());
			gemm.info.config = gemm.config;
		}
		if (set_threads) {
			set_threads_fn *set;
			memcpy(&set, &set_threads, sizeof set);
			set(1);
		}
		return;
	}
}

const struct vk_gemm_info *vk_gemm_init(void)
{
	pthread_once(&gemm.once, load);
	return &gemm.info;
}

/* C = beta * C; beta 0 clears, NaN included, as BLAS does. */
static void scale(size_t m, size_t n, float beta, float *c, size_t ldc)
{
	for (size_t i = 0; i < m; i++)
		for (size_t j = 0; j < n; j++) c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
}

/* The fallback: rows of B are streamed so that the inner loop runs over neighbours. */
static void loop(bool transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
		 const float *b, size_t ldb, float *c, size_t ldc)
{
	for (size_t i = 0; i < m; i++) {
		const float *row = a + i * lda;
		float *out = c + i * ldc;
		for (size_t j = 0; transpose_b && j < n; j++) {
			float sum[8] = {0};
			size_t l = 0;
			for (; l + 8 <= k; l += 8)
				for (int u = 0; u < 8; u++) sum[u] += row[l + u] * b[j * ldb + l + u];
			for (; l < k; l++) sum[l % 8] += row[l] * b[j * ldb + l];
			out[j] += alpha * (((sum[0] + sum[4]) + (sum[2] + sum[6])) +
					   ((sum[1] + sum[5]) + (sum[3] + sum[7])));
		}
		for (size_t l = 0; !transpose_b && l < k; l++) {
			float x = alpha * row[l];
			for (size_t j = 0; j < n; j++) out[j] += x * b[l * ldb + j];
		}
	}
}

void vk_gemm_f32_builtin(bool transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a,
			 size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
	if (beta != 1) scale(m, n, beta, c, ldc);
	loop(transpose_b, m, n, k, alpha, a, lda, b, ldb, c, ldc);
}

static bool fits_int(size_t v)
{
	return v <= INT_MAX;
}

void vk_gemm_f32(bool transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
		 const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
	vk_gemm_init();
	if (!m || !n) return;
	bool small = fits_int(m) && fits_int(n) && fits_int(k) && fits_int(lda) && fits_int(ldb) &&
		     fits_int(ldc);
	if (gemm.sgemm && small) {
		gemm.sgemm(CBLAS_ROW_MAJOR, CBLAS_NO_TRANS, transpose_b ? CBLAS_TRANS : CBLAS_NO_TRANS, (int)m,
			   (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
		return;
	}
	vk_gemm_f32_builtin(transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
