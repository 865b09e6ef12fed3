/*
 * FAISS behind its door: every kind of factory string that we take nominates as well as it should, filters where it says so, is
 * saved and opened with the same answers, stops when told, and refuses what cannot be with words instead of a crash.
 *
 * Method: seeded clusters of rows; the oracle is flat search in f64 here; recall of the true 10 among the nominated is compared with
 * a floor a kind. Damage: every own file cut at many lengths and with flipped bits must open with the same answers or not at all.
 * VK_TEST_SEED replays. Where vk_faiss.so was not built the tests are skipped, and one checks what is said then.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "index/faiss.h"
#include "index/faiss_internal.h"
#include "store/file.h"

#if defined(__SANITIZE_THREAD__)
#define THREADS 1 /* its model of threads does not know OpenMP's */
#else
#define THREADS 2
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BRIEF 1 /* minutes otherwise: FAISS's loops are instrumented where they are templates */
#define ROWS 600u
#else
#define BRIEF 0
#define ROWS 1200u
#endif
#define DIMS 32u
#define QUERIES 50u
#define K 10u
#define CLUSTERS 8u

static uint64_t seed;
static char dir[64];

/* --- data and oracle --- */

static float normal(uint64_t *dice)
{
	double u = ((double)(vk_rng(dice) >> 11) + 1) * 0x1p-53, v = (double)(vk_rng(dice) >> 11) * 0x1p-53;
	return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

struct data {
	enum vk_metric metric;
	uint32_t dims, n, queries;
	float *row, *query;
	uint32_t *label;  /* 7 i + 3: never the row's number */
	uint32_t *truth;  /* queries x K, labels */
};

static double rank(const struct data *d, const float *q, const float *r)
{
	double sum = 0;
	for (uint32_t i = 0; i < d->dims; i++) {
		double diff = (double)q[i] - r[i];
		sum += d->metric == VK_METRIC_L2 ? -diff * diff : (double)q[i] * r[i];
	}
	return sum;
}

/* The K best among those that `wanted` (NULL: all) has. */
static void true_best(const struct data *d, const float *q, const bool *wanted, uint32_t *best)
{
	double at[K];
	uint32_t n = 0;
	for (uint32_t i = 0; i < d->n; i++) {
		if (wanted && !wanted[i]) continue;
		double r = rank(d, q, d->row + (size_t)i * d->dims);
		uint32_t p = n < K ? n++ : K;
		while (p > 0 && at[p - 1] < r) {
			if (p < K) at[p] = at[p - 1], best[p] = best[p - 1];
			p--;
		}
		if (p < K) at[p] = r, best[p] = d->label[i];
	}
	while (n < K) best[n++] = UINT32_MAX;
}

static void fill(const struct data *d, float *row, const float *centre, uint64_t *dice)
{
	const float *c = centre + vk_rng(dice) % CLUSTERS * d->dims;
	for (uint32_t i = 0; i < d->dims; i++) row[i] = c[i] + 1.5f * normal(dice);
	if (d->metric == VK_METRIC_COSINE) vk_unit(row, row, d->dims);
}

static struct data make(enum vk_metric metric, uint32_t n, uint32_t dims)
{
	struct data d = {.metric = metric, .dims = dims, .n = n, .queries = QUERIES};
	uint64_t dice = seed + metric;
	float *centre = malloc(CLUSTERS * dims * sizeof *centre);
	d.row = malloc((size_t)n * dims * sizeof *d.row);
	d.query = malloc(QUERIES * dims * sizeof *d.query);
	d.label = malloc(n * sizeof *d.label);
	d.truth = malloc(QUERIES * K * sizeof *d.truth);
	for (uint32_t i = 0; i < CLUSTERS * dims; i++) centre[i] = normal(&dice);
	for (uint32_t i = 0; i < n; i++) fill(&d, d.row + (size_t)i * dims, centre, &dice), d.label[i] = 7 * i + 3;
	for (uint32_t i = 0; i < QUERIES; i++) {
		fill(&d, d.query + (size_t)i * dims, centre, &dice);
		true_best(&d, d.query + (size_t)i * dims, NULL, d.truth + i * K);
	}
	free(centre);
	return d;
}

static void drop(struct data *d)
{
	free(d->row);
	free(d->query);
	free(d->label);
	free(d->truth);
}

/* --- the door --- */

static struct vk_faiss *built(const struct data *d, const char *factory, unsigned threads)
{
	struct vk_error err = {0};
	struct vk_faiss *f;
	struct vk_faiss_conf c = {.factory = factory, .dims = d->dims, .metric = d->metric, .rows = d->n, .seed = 7};
	struct vk_faiss_opts o = {.threads = threads};
	enum vk_status st = vk_faiss_new(&c, &f, &err);
	if (!st) st = vk_faiss_train(f, d->n, d->row, &o, &err);
	if (!st) st = vk_faiss_add(f, d->n, d->row, d->label, &o, &err);
	if (st) fail_msg("%s: %s", factory, err.text);
	return f;
}

struct found {
	uint32_t label[QUERIES * VK_FAISS_K_MAX], n[QUERIES];
	float near[QUERIES * VK_FAISS_K_MAX];
};

static void search(const struct vk_faiss *f, const struct data *d, uint32_t want, struct vk_faiss_query q, unsigned threads, struct found *r)
{
	struct vk_error err = {0};
	struct vk_faiss_opts o = {.threads = threads};
	q.vector = d->query;
	q.queries = d->queries;
	q.want = want;
	q.label = r->label;
	q.near = r->near;
	q.found = r->n;
	memset(r, 0xee, sizeof *r);
	enum vk_status st = vk_faiss_search(f, &q, &o, &err);
	if (st) fail_msg("search: %s", err.text);
	for (uint32_t i = 0; i < d->queries; i++) {
		assert_in_range(r->n[i], 0, want);
		for (uint32_t j = 1; j < r->n[i]; j++) assert_true(r->near[i * want + j] <= r->near[i * want + j - 1]);
	}
}

/* How many of the true K are among the nominated. */
static double recall(const struct data *d, const struct found *r, uint32_t want, const uint32_t *truth)
{
	uint32_t hits = 0, all = 0;
	for (uint32_t i = 0; i < d->queries; i++)
		for (uint32_t t = 0; t < K && truth[i * K + t] != UINT32_MAX; t++, all++)
			for (uint32_t j = 0; j < r->n[i]; j++)
				if (r->label[i * want + j] == truth[i * K + t]) {
					hits++;
					break;
				}
	return all ? (double)hits / all : 1;
}

static bool no_faiss(void)
{
	return !vk_faiss_library(NULL);
}

#define NEEDS_FAISS() do { if (no_faiss()) skip(); } while (0)

/* --- every kind --- */

static const struct kind {
	const char *factory;
	uint32_t want, nprobe, ef;
	double floor;      /* of the true 10 among `want` nominations */
	bool filters, l2_only; /* no inner product, or seconds of training that say nothing new */
} kinds[] = {
	{"Flat", 10, 0, 0, 1.0, true, false},
	{"SQ8", 20, 0, 0, 0.99, true, false},
	{"SQ4", 20, 0, 0, 0.95, true, false},
	{"SQfp16", 12, 0, 0, 0.99, true, false},
	{"PQ8", 50, 0, 0, 0.85, false, false},
	{"PQ16x6", 20, 0, 0, 0.85, false, true},
	{"IVF32,Flat", 10, 8, 0, 0.90, true, false},
	{"IVF32,Flat", 10, 32, 0, 0.999, true, false},
	{"IVF32_HNSW16,Flat", 10, 8, 0, 0.90, true, false},
	{"IVF32,SQ8", 20, 8, 0, 0.90, true, false},
	{"IVF32,PQ16", 20, 8, 0, 0.85, true, false},
	{"OPQ8_32,IVF16,PQ8", 50, 8, 0, 0.80, true, true},
	{"OPQ16,PQ16", 20, 0, 0, 0.85, false, true},
	{"PCA24,Flat", 40, 0, 0, 0.80, true, false},
	{"PCAR24,SQ8", 40, 0, 0, 0.80, true, true},
	{"RR,SQ8", 20, 0, 0, 0.98, true, false},
	{"L2norm,Flat", 100, 0, 0, 0.70, true, false},
	{"HNSW16", 10, 0, 64, 0.95, false, false},
	{"HNSW16,SQ8", 20, 0, 64, 0.93, false, false},
	{"HNSW16_PQ16", 20, 0, 128, 0.85, false, true},
	{"IVF32,PQ16,RFlat", 10, 8, 0, 0.85, true, false},
	{"OPQ8_32,IVF16,PQ8,Refine(SQ8)", 10, 8, 0, 0.70, true, true},
	{"HNSW16,RFlat", 10, 0, 64, 0.95, false, false},
};

static const enum vk_metric metrics[] = {VK_METRIC_L2, VK_METRIC_COSINE, VK_METRIC_DOT};
static const char *const metric_names[VK_METRICS] = {[VK_METRIC_L2] = "l2", [VK_METRIC_COSINE] = "cosine", [VK_METRIC_DOT] = "dot"};

static struct found answers, again;

static void check_kind(const struct kind *k, const struct data *d)
{
	struct vk_faiss_about about;
	struct vk_faiss *f = built(d, k->factory, THREADS);
	struct vk_faiss_query q = {.nprobe = k->nprobe, .ef = k->ef, .oversample = 8};
	search(f, d, k->want, q, 1, &answers);
	double r = recall(d, &answers, k->want, d->truth);
	assert_int_equal(vk_faiss_about(f, &about, NULL), VK_OK);
	print_message("%-30s %-6s recall of 10 in %3u: %.3f  %6.1f bytes a row  %s\n", k->factory, metric_names[d->metric], k->want, r,
		      (double)about.bytes / d->n, about.type);
	assert_true(r >= k->floor);
	assert_int_equal(about.rows, d->n);
	assert_int_equal(about.dims, d->dims);
	assert_int_equal(about.filters, k->filters);
	assert_true(about.trained);
	/* The plan promised no less memory than it takes. */
	assert_true(about.bytes <= vk_faiss_plan_bytes(vk_faiss_plan_of(f), d->n, d->n));
	/* More threads and queries in one call change nothing. */
	search(f, d, k->want, q, THREADS, &again);
	assert_memory_equal(answers.n, again.n, sizeof answers.n);
	assert_memory_equal(answers.label, again.label, QUERIES * k->want * sizeof(uint32_t));
	vk_faiss_free(f);
}

static void test_faiss_every_kind_reaches_its_recall(void **state)
{
	(void)state;
	NEEDS_FAISS();
	for (size_t m = 0; m < sizeof metrics / sizeof metrics[0]; m++) {
		struct data d = make(metrics[m], ROWS, DIMS);
		for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
			if (metrics[m] == VK_METRIC_L2 || (!kinds[i].l2_only && (!BRIEF || i % 3 == m))) check_kind(&kinds[i], &d);
		drop(&d);
	}
}

static void test_faiss_flat_gives_the_true_ranks(void **state)
{
	(void)state;
	NEEDS_FAISS();
	for (size_t m = 0; m < sizeof metrics / sizeof metrics[0]; m++) {
		struct data d = make(metrics[m], ROWS, DIMS);
		struct vk_faiss *f = built(&d, "Flat", 1);
		search(f, &d, K, (struct vk_faiss_query){0}, 1, &answers);
		for (uint32_t i = 0; i < QUERIES; i++) {
			uint32_t row = (answers.label[i * K] - 3) / 7;
			double want = rank(&d, d.query + (size_t)i * DIMS, d.row + (size_t)row * DIMS);
			assert_int_equal(answers.label[i * K], d.truth[i * K]);
			assert_true(fabs(answers.near[i * K] - want) <= 1e-4 * (1 + fabs(want)));
		}
		vk_faiss_free(f);
		drop(&d);
	}
}

/* Signs say less: many nominations; the Hamming order itself must be right to the bit. */
static void test_faiss_binary_nominates_by_signs(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const struct kind binary[] = {{"BFlat", 300, 0, 0, 0.75, false, false},
					     {"BIVF16", 300, 12, 0, 0.70, false, false},
					     {"BIVF16_HNSW16", 300, 12, 0, 0.70, false, false},
					     {"BHNSW16", 300, 0, 400, 0.70, false, false}};
	struct data d = make(VK_METRIC_COSINE, ROWS, 61); /* not a multiple of 8 */
	for (size_t i = 0; i < sizeof binary / sizeof binary[0]; i++) check_kind(&binary[i], &d);
	struct vk_faiss *f = built(&d, "BFlat", 1);
	search(f, &d, 300, (struct vk_faiss_query){0}, 1, &answers);
	for (uint32_t q = 0; q < QUERIES; q++)
		for (uint32_t j = 0; j < answers.n[q]; j += 37) {
			const float *a = d.query + (size_t)q * d.dims;
			const float *b = d.row + (size_t)((answers.label[q * 300 + j] - 3) / 7) * d.dims;
			int differ = 0;
			for (uint32_t x = 0; x < d.dims; x++) differ += (a[x] > 0) != (b[x] > 0);
			assert_true(answers.near[q * 300 + j] == (float)-differ);
		}
	vk_faiss_free(f);
	drop(&d);
}

/* --- filters --- */

static void check_filter(const struct vk_faiss *f, const struct data *d, unsigned permille)
{
	uint32_t words = (7 * d->n + 3) / 64 + 1, matches = 0;
	uint64_t *allow = calloc(words, sizeof *allow), dice = seed + permille;
	bool *wanted = calloc(d->n, sizeof *wanted);
	uint32_t *truth = malloc(QUERIES * K * sizeof *truth);
	for (uint32_t i = 0; i < d->n; i++) {
		if (vk_rng(&dice) % 1000 >= permille) continue;
		wanted[i] = true;
		matches++;
		allow[d->label[i] / 64] |= (uint64_t)1 << (d->label[i] % 64);
	}
	for (uint32_t i = 0; i < QUERIES; i++) true_best(d, d->query + (size_t)i * d->dims, wanted, truth + i * K);
	struct vk_faiss_query q = {.nprobe = 32, .allow = allow, .allow_n = words * 64, .oversample = 8};
	search(f, d, 60, q, 1, &answers);
	for (uint32_t i = 0; i < QUERIES; i++) {
		assert_int_equal(answers.n[i], matches < 60 ? matches : 60);
		for (uint32_t j = 0; j < answers.n[i]; j++) assert_true(wanted[(answers.label[i * 60 + j] - 3) / 7]);
	}
	double r = recall(d, &answers, 60, truth);
	print_message("%-18s %4u of 1000 allowed (%u): recall %.3f\n", vk_faiss_plan_of(f)->factory, permille, matches, r);
	assert_true(r >= 0.9);
	/* Labels past allow_n are not allowed. */
	q.allow_n = d->label[d->n / 2];
	search(f, d, 60, q, 1, &answers);
	for (uint32_t i = 0; i < QUERIES; i++)
		for (uint32_t j = 0; j < answers.n[i]; j++) assert_true(answers.label[i * 60 + j] < q.allow_n);
	free(allow);
	free(wanted);
	free(truth);
}

static void test_faiss_filter_answers_as_if_others_were_not_there(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const char *const factories[] = {"Flat", "SQ8", "IVF32,Flat", "IVF32,SQ8", "IVF32,PQ16,RFlat", "PCA24,IVF32,SQ8"};
	static const unsigned permille[] = {0, 3, 100, 500, 1000};
	struct data d = make(VK_METRIC_L2, ROWS, DIMS);
	for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
		struct vk_faiss *f = built(&d, factories[i], THREADS);
		for (size_t p = 0; p < sizeof permille / sizeof permille[0]; p++) check_filter(f, &d, permille[p]);
		vk_faiss_free(f);
	}
	drop(&d);
}

static void test_faiss_filter_is_refused_where_there_is_none(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const char *const factories[] = {"PQ8", "HNSW16", "BFlat"};
	struct data d = make(VK_METRIC_COSINE, 600, DIMS);
	uint64_t allow[1] = {~(uint64_t)0};
	for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
		struct vk_error err = {0};
		struct vk_faiss *f = built(&d, factories[i], 1);
		struct vk_faiss_query q = {.vector = d.query, .queries = 1, .want = 5, .allow = allow, .allow_n = 64,
					   .label = answers.label, .near = answers.near, .found = answers.n};
		assert_int_equal(vk_faiss_search(f, &q, NULL, &err), VK_E_INVALID);
		assert_non_null(strstr(err.text, "filter"));
		assert_false(vk_faiss_filters(f));
		vk_faiss_free(f);
	}
	drop(&d);
}

/* --- determinism --- */

static void test_faiss_same_seed_gives_the_same_bytes(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const char *const factories[] = {"IVF32,PQ16", "HNSW16", "OPQ8_32,IVF16,PQ8", "BIVF16"};
	struct data d = make(VK_METRIC_COSINE, ROWS, DIMS);
	char a[128], b[128];
	snprintf(a, sizeof a, "%s/a", dir);
	snprintf(b, sizeof b, "%s/b", dir);
	for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
		uint8_t hash[2][VK_SHA256_SIZE], tag[32] = {1};
		uint64_t bytes;
		for (int j = 0; j < 2; j++) {
			struct vk_faiss *f = built(&d, factories[i], 1);
			assert_int_equal(vk_faiss_save(f, j ? b : a, 5, tag, NULL), VK_OK);
			vk_faiss_free(f);
			assert_int_equal(vk_file_hash(j ? b : a, hash[j], &bytes, NULL), VK_OK);
		}
		assert_memory_equal(hash[0], hash[1], VK_SHA256_SIZE);
	}
	drop(&d);
}

/* --- files --- */

static void same_answers(const struct data *d, const struct vk_faiss *f, const struct found *want, struct vk_faiss_query q)
{
	search(f, d, 20, q, 1, &again);
	assert_memory_equal(want->n, again.n, sizeof again.n);
	assert_memory_equal(want->label, again.label, QUERIES * 20 * sizeof(uint32_t));
	assert_memory_equal(want->near, again.near, QUERIES * 20 * sizeof(float));
}

static void check_saved(const struct data *d, const char *factory)
{
	char path[128], other[128];
	uint8_t tag[32], got[32];
	uint64_t sequence;
	struct vk_error err = {0};
	struct vk_faiss_about about;
	struct vk_faiss_query q = {.nprobe = 8, .ef = 50};
	struct vk_faiss *f = built(d, factory, 1), *g;
	for (int i = 0; i < 32; i++) tag[i] = (uint8_t)(i * 3);
	snprintf(path, sizeof path, "%s/saved", dir);
	snprintf(other, sizeof other, "%s/saved-again", dir);
	search(f, d, 20, q, 1, &answers);
	for (int map = 0; map < 2; map++) {
		assert_int_equal(vk_faiss_save(f, path, 0x123456789abcull, tag, &err), VK_OK);
		enum vk_status st = vk_faiss_open(path, map, &g, &sequence, got, &err);
		if (st) fail_msg("%s: %s", factory, err.text);
		assert_true(sequence == 0x123456789abcull);
		assert_memory_equal(tag, got, 32);
		same_answers(d, g, &answers, q);
		assert_int_equal(vk_faiss_about(g, &about, NULL), VK_OK);
		assert_string_equal(about.factory, factory);
		assert_int_equal(about.metric, d->metric);
		assert_int_equal(about.mapped, map && strstr(factory, "IVF") ? true : false);
		/* Saved again, mapped or not, also when the file has lost its name. */
		assert_int_equal(unlink(path), 0);
		assert_int_equal(vk_faiss_save(g, other, 9, tag, &err), VK_OK);
		vk_faiss_free(g);
		assert_int_equal(vk_faiss_open(other, false, &g, &sequence, got, &err), VK_OK);
		assert_int_equal(sequence, 9);
		same_answers(d, g, &answers, q);
		vk_faiss_free(g);
	}
	vk_faiss_free(f);
}

static void test_faiss_saved_opens_with_the_same_answers(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const char *const factories[] = {"Flat", "SQ8", "PQ8", "IVF32,Flat", "IVF32_HNSW16,SQ8", "IVF32,PQ16", "OPQ8_32,IVF16,PQ8",
						"HNSW16", "HNSW16,SQ8", "IVF32,PQ16,RFlat", "PCA24,Flat", "BFlat", "BIVF16", "BHNSW16"};
	static const enum vk_metric two[] = {VK_METRIC_L2, VK_METRIC_COSINE};
	for (size_t m = 0; m < 2; m++) {
		struct data d = make(two[m], ROWS, DIMS);
		for (size_t i = BRIEF * m; i < sizeof factories / sizeof factories[0]; i += 1 + BRIEF) check_saved(&d, factories[i]);
		drop(&d);
	}
}

static uint8_t *slurp(const char *path, size_t *n)
{
	struct stat s;
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0 && fstat(fd, &s) == 0);
	uint8_t *p = malloc((size_t)s.st_size);
	assert_int_equal(read(fd, p, (size_t)s.st_size), s.st_size);
	close(fd);
	*n = (size_t)s.st_size;
	return p;
}

static void spew(const char *path, const uint8_t *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), (ssize_t)n);
	close(fd);
}

static void must_not_open(const char *path)
{
	struct vk_error err = {0};
	struct vk_faiss *f;
	uint64_t sequence;
	uint8_t tag[32];
	for (int map = 0; map < 2; map++) {
		assert_int_equal(vk_faiss_open(path, map, &f, &sequence, tag, &err), VK_E_CORRUPT);
		assert_null(f);
		assert_non_null(strstr(err.text, path));
	}
}

static void check_damage(const struct data *d, const char *factory)
{
	char path[128];
	uint8_t tag[32] = {0};
	size_t n;
	uint64_t dice = seed + 5;
	struct vk_faiss *f = built(d, factory, 1);
	snprintf(path, sizeof path, "%s/damaged", dir);
	assert_int_equal(vk_faiss_save(f, path, 1, tag, NULL), VK_OK);
	vk_faiss_free(f);
	uint8_t *good = slurp(path, &n), *bad = malloc(n);
	for (int i = 0; i < 150; i++) {
		memcpy(bad, good, n);
		size_t at = i < 60 ? vk_rng(&dice) % n : i < 120 ? vk_rng(&dice) % 128 : n - 1 - vk_rng(&dice) % 256;
		bad[at] ^= (uint8_t)(1 << vk_rng(&dice) % 8);
		spew(path, bad, n);
		must_not_open(path);
	}
	for (int i = 0; i < 60; i++) {
		spew(path, good, i < 20 ? (size_t)i * 13 : i < 40 ? n - 1 - (size_t)(i - 20) * 17 : vk_rng(&dice) % n);
		must_not_open(path);
	}
	memset(bad, 0, n);
	spew(path, bad, n);
	must_not_open(path);
	free(good);
	free(bad);
}

static void test_faiss_damaged_file_is_refused(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const char *const factories[] = {"Flat", "IVF32,Flat", "IVF16,PQ8", "HNSW16", "BIVF16", "IVF16,SQ8,RFlat"};
	struct data d = make(VK_METRIC_L2, 400, DIMS);
	for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) check_damage(&d, factories[i]);
	drop(&d);
}

static void test_faiss_missing_file_is_not_found(void **state)
{
	(void)state;
	NEEDS_FAISS();
	struct vk_error err = {0};
	struct vk_faiss *f;
	uint64_t sequence;
	uint8_t tag[32];
	assert_int_equal(vk_faiss_open("/nowhere/index", false, &f, &sequence, tag, &err), VK_E_NOT_FOUND);
	assert_int_equal(vk_faiss_open(dir, false, &f, &sequence, tag, &err), VK_E_IO); /* a directory */
}

static void test_faiss_save_that_fails_leaves_the_old_file(void **state)
{
	(void)state;
	NEEDS_FAISS();
	struct vk_error err = {0};
	uint8_t tag[32] = {0};
	struct data d = make(VK_METRIC_L2, 400, DIMS);
	struct vk_faiss *f = built(&d, "Flat", 1);
	assert_int_equal(vk_faiss_save(f, "/nowhere/at/all", 1, tag, &err), VK_E_NOT_FOUND);
	assert_int_equal(vk_faiss_save(f, "/dev/full/x", 1, tag, &err), VK_E_IO);
	vk_faiss_free(f);
	drop(&d);
}

/* --- what cannot be --- */

static void expect_invalid(enum vk_status st, const struct vk_error *err, const char *word)
{
	if (st != VK_E_INVALID || !strstr(err->text, word)) fail_msg("status %d, \"%s\": expected \"%s\"", st, err->text, word);
}

static void test_faiss_bad_factory_is_refused_with_the_reason(void **state)
{
	(void)state;
	static const struct {
		const char *factory, *word;
	} bad[] = {
		{"", "known"}, {"flat", "known"}, {"Flat,", "known"}, {"Flat,RFlat,RFlat", "known"}, {"IVF", "lists"}, {"IVF0,Flat", "lists"},
		{"IVF99999999999999999999,Flat", "lists"}, {"IVF2000000000,Flat", "lists"}, {"IVF32", "known"}, {"IVF32,", "known"},
		{"PQ5", "divide"}, {"PQ0", "m must be"}, {"PQ8x32", "bits"}, {"PQ8x4fs", "FastScan"}, {"OPQ5,PQ4", "divide"}, {"OPQ8", "known"},
		{"PCA33,Flat", "PCA"}, {"HNSW100000", "HNSW"}, {"HNSW1", "HNSW"}, {"IVF10(Index5),Flat", "known"}, {"IVF10(IVF10,Flat),Flat", "known"},
		{"LSQ8x8", "known"}, {"RQ4x8", "known"}, {"NSG32", "known"}, {"LSH", "known"}, {"Residual2x14,PQ8", "known"},
		{"IDMap,Flat", "known"}, {"B", "known"}, {"BHash8", "known"}, {"BIVF0", "lists"}, {"Flat\n", "ASCII"}, {"Fl\xc3\xa4t", "ASCII"},
		{"Flat,Refine(PQ8)", "known"}, {"RR65537,Flat", "RR"},
	};
	struct vk_faiss_plan plan;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct vk_error err = {0};
		enum vk_status st = vk_faiss_plan(bad[i].factory, 32, &plan, &err);
		if (st != VK_E_INVALID || !strstr(err.text, bad[i].word)) fail_msg("\"%s\": %d \"%s\"", bad[i].factory, st, err.text);
	}
	char longer[200];
	memset(longer, 'x', sizeof longer - 1);
	longer[sizeof longer - 1] = 0;
	assert_int_equal(vk_faiss_plan(longer, 32, &plan, NULL), VK_E_INVALID);
	assert_int_equal(vk_faiss_plan(NULL, 32, &plan, NULL), VK_E_INVALID);
	assert_int_equal(vk_faiss_plan("Flat", 0, &plan, NULL), VK_E_INVALID);
}

static void test_faiss_plan_knows_what_training_needs(void **state)
{
	(void)state;
	static const struct {
		const char *factory;
		uint32_t min;
		uint64_t row_bytes;
	} good[] = {{"Flat", 0, 128}, {"SQ8", 1, 32}, {"SQ4", 1, 16}, {"SQfp16", 0, 64}, {"PQ8", 256, 8}, {"PQ8x10", 1024, 10},
		    {"IVF32,Flat", 32, 136}, {"IVF1000,PQ8", 1000, 16}, {"OPQ8,IVF10,PQ8", 256, 16}, {"BFlat", 0, 4}, {"BIVF64", 64, 12},
		    {"IVF32,PQ8np,RFlat", 256, 144}, {"HNSW32,RFlat", 0, 128 + 128 + 277}};
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct vk_faiss_plan p;
		struct vk_error err = {0};
		if (vk_faiss_plan(good[i].factory, 32, &p, &err)) fail_msg("%s", err.text);
		assert_int_equal(p.train_min, good[i].min);
		assert_int_equal(p.row_bytes, good[i].row_bytes);
		assert_true(p.train_good >= p.train_min);
	}
}

static void test_faiss_misuse_is_said(void **state)
{
	(void)state;
	NEEDS_FAISS();
	struct vk_error err = {0};
	struct data d = make(VK_METRIC_L2, 600, DIMS);
	struct vk_faiss_conf c = {.factory = "IVF100,Flat", .dims = DIMS, .metric = VK_METRIC_L2, .rows = 600};
	struct vk_faiss *f;
	struct vk_faiss_query q = {.vector = d.query, .queries = 1, .want = 5, .label = answers.label, .near = answers.near,
				   .found = answers.n};
	assert_int_equal(vk_faiss_new(&c, &f, &err), VK_OK);
	expect_invalid(vk_faiss_train(f, 99, d.row, NULL, &err), &err, "at least 100 rows");
	expect_invalid(vk_faiss_add(f, 10, d.row, d.label, NULL, &err), &err, "not trained");
	expect_invalid(vk_faiss_search(f, &q, NULL, &err), &err, "not trained");
	uint8_t tag[32] = {0};
	expect_invalid(vk_faiss_save(f, "/tmp/never", 1, tag, &err), &err, "not trained");
	d.row[5] = NAN;
	expect_invalid(vk_faiss_train(f, 600, d.row, NULL, &err), &err, "NaN");
	d.row[5] = 1;
	assert_int_equal(vk_faiss_train(f, 600, d.row, NULL, &err), VK_OK);
	assert_int_equal(vk_faiss_search(f, &q, NULL, &err), VK_OK); /* empty */
	assert_int_equal(answers.n[0], 0);
	q.want = VK_FAISS_K_MAX + 1;
	expect_invalid(vk_faiss_search(f, &q, NULL, &err), &err, "2048");
	q.want = 0;
	expect_invalid(vk_faiss_search(f, &q, NULL, &err), &err, "2048");
	vk_faiss_free(f);
	c.metric = VK_METRIC_L1;
	expect_invalid(vk_faiss_new(&c, &f, &err), &err, "metric");
	c = (struct vk_faiss_conf){.factory = "HNSW16_PQ16", .dims = DIMS, .metric = VK_METRIC_DOT, .rows = 600};
	if (vk_faiss_new(&c, &f, &err) == VK_OK) vk_faiss_free(f); /* newer releases have it */
	else assert_non_null(strstr(err.text, "inner product"));
	drop(&d);
}

static void test_faiss_more_than_the_rows_there_are(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const char *const factories[] = {"Flat", "SQ8", "HNSW16", "IVF1,Flat", "BFlat", "BHNSW16", "HNSW16,RFlat"};
	for (uint32_t n = 1; n <= 4; n += 3) {
		struct data d = make(VK_METRIC_COSINE, n, DIMS);
		for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
			struct vk_faiss *f = built(&d, factories[i], 1);
			search(f, &d, 100, (struct vk_faiss_query){.ef = 200}, 1, &answers);
			for (uint32_t q = 0; q < QUERIES; q++) assert_int_equal(answers.n[q], n);
			vk_faiss_free(f);
		}
		drop(&d);
	}
}

static void test_faiss_memory_budget_is_kept(void **state)
{
	(void)state;
	NEEDS_FAISS();
	struct vk_error err = {0};
	struct vk_faiss *f;
	struct vk_faiss_conf c = {.factory = "Flat", .dims = 1000, .metric = VK_METRIC_L2, .rows = 1000000, .bytes_max = (uint64_t)1 << 30};
	assert_int_equal(vk_faiss_new(&c, &f, &err), VK_E_NOMEM);
	assert_non_null(strstr(err.text, "1024 MB are allowed"));
	c = (struct vk_faiss_conf){.factory = "Flat", .dims = DIMS, .metric = VK_METRIC_L2, .rows = 10, .bytes_max = 32 << 20};
	assert_int_equal(vk_faiss_new(&c, &f, &err), VK_OK);
	/* More rows than were announced: checked again. */
	size_t n = 300000;
	float *rows = calloc(n * DIMS, sizeof *rows);
	uint32_t *label = calloc(n, sizeof *label);
	assert_int_equal(vk_faiss_add(f, 100, rows, label, NULL, &err), VK_OK);
	assert_int_equal(vk_faiss_add(f, n, rows, label, NULL, &err), VK_E_NOMEM);
	free(rows);
	free(label);
	vk_faiss_free(f);
}

/* --- stopping and progress --- */

struct watch {
	atomic_bool stop;
	uint64_t calls, stop_after, last, total;
	bool backwards;
};

static void watched(void *arg, uint64_t done, uint64_t total)
{
	struct watch *w = arg;
	if (w->calls && w->total == total && done < w->last) w->backwards = true;
	w->last = done;
	w->total = total;
	if (++w->calls == w->stop_after) atomic_store(&w->stop, true);
}

static void test_faiss_training_shows_progress_and_stops(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const char *const factories[] = {"IVF64,Flat", "PQ8", "IVF32,PQ16", "OPQ8_32,IVF16,PQ8", "IVF32_HNSW16,Flat", "BIVF64"};
	struct data d = make(VK_METRIC_L2, ROWS, DIMS);
	for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
		for (int round = 0; round < 2; round++) {
			struct vk_error err = {0};
			struct vk_faiss *f;
			struct watch w = {.stop_after = round ? 3 : 0};
			struct vk_faiss_opts o = {.threads = THREADS, .stop = &w.stop, .progress = watched, .arg = &w};
			struct vk_faiss_conf c = {.factory = factories[i], .dims = DIMS, .metric = VK_METRIC_L2, .rows = ROWS};
			assert_int_equal(vk_faiss_new(&c, &f, &err), VK_OK);
			enum vk_status st = vk_faiss_train(f, ROWS, d.row, &o, &err);
			if (st != (round ? VK_E_CANCELLED : VK_OK)) fail_msg("%s: %d %s", factories[i], st, err.text);
			if (round) assert_in_range(w.calls, 3, 4);
			else assert_int_equal(w.last, w.total); /* the count was right */
			assert_false(w.backwards);
			vk_faiss_free(f);
		}
	}
	drop(&d);
}

static void *stop_soon(void *arg)
{
	usleep(100000);
	atomic_store((atomic_bool *)arg, true);
	return NULL;
}

static void test_faiss_building_a_graph_stops_soon(void **state)
{
	(void)state;
	NEEDS_FAISS();
	struct vk_error err = {0};
	atomic_bool stop = false;
	uint32_t n = 200000;
	struct data d = {.metric = VK_METRIC_L2, .dims = 64, .n = n};
	uint64_t dice = seed;
	d.row = malloc((size_t)n * 64 * sizeof *d.row);
	d.label = calloc(n, sizeof *d.label);
	for (size_t i = 0; i < (size_t)n * 64; i++) d.row[i] = (float)(vk_rng(&dice) >> 40);
	struct vk_faiss *f;
	struct vk_faiss_conf c = {.factory = "HNSW32", .dims = 64, .metric = VK_METRIC_L2, .rows = n};
	struct vk_faiss_opts o = {.threads = THREADS, .stop = &stop};
	assert_int_equal(vk_faiss_new(&c, &f, &err), VK_OK);
	pthread_t t;
	assert_int_equal(pthread_create(&t, NULL, stop_soon, &stop), 0);
	uint64_t from = vk_mono_ms();
	assert_int_equal(vk_faiss_add(f, n, d.row, d.label, &o, &err), VK_E_CANCELLED);
	uint64_t took = vk_mono_ms() - from;
	print_message("gave up after %llu ms\n", (unsigned long long)took);
	assert_true(took < 8000); /* some machines are busy; the whole takes a minute */
	pthread_join(t, NULL);
	vk_faiss_free(f);
	drop(&d);
}

/* --- threads --- */

struct searcher {
	const struct vk_faiss *f;
	const struct data *d;
	const struct found *want;
	uint32_t nprobe, ef;
	int wrong;
};

static void *search_often(void *arg)
{
	struct searcher *s = arg;
	struct found *r = malloc(sizeof *r);
	for (int i = 0; i < 20; i++) {
		struct vk_faiss_query q = {.vector = s->d->query, .queries = QUERIES, .want = 20, .nprobe = s->nprobe, .ef = s->ef,
					   .label = r->label, .near = r->near, .found = r->n};
		if (vk_faiss_search(s->f, &q, NULL, NULL) || memcmp(r->label, s->want->label, QUERIES * 20 * sizeof(uint32_t))) s->wrong++;
	}
	free(r);
	return NULL;
}

/* Two threads with other dials at once: each gets what it gets alone. */
static void test_faiss_searches_side_by_side_keep_their_dials(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const char *const factories[] = {"IVF32,Flat", "HNSW16", "IVF32,PQ16,RFlat", "BIVF16", "BHNSW16"};
	struct data d = make(VK_METRIC_COSINE, ROWS, DIMS);
	for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
		struct vk_faiss *f = built(&d, factories[i], 1);
		search(f, &d, 20, (struct vk_faiss_query){.nprobe = 2, .ef = 20}, 1, &answers);
		search(f, &d, 20, (struct vk_faiss_query){.nprobe = 9, .ef = 200}, 1, &again);
		struct searcher s[2] = {{f, &d, &answers, 2, 20, 0}, {f, &d, &again, 9, 200, 0}};
		pthread_t t[2];
		for (int j = 0; j < 2; j++) assert_int_equal(pthread_create(&t[j], NULL, search_often, &s[j]), 0);
		for (int j = 0; j < 2; j++) pthread_join(t[j], NULL);
		assert_int_equal(s[0].wrong + s[1].wrong, 0);
		vk_faiss_free(f);
	}
	drop(&d);
}

static void test_faiss_beam_and_probes_buy_recall(void **state)
{
	(void)state;
	NEEDS_FAISS();
	struct data d = make(VK_METRIC_L2, ROWS, DIMS);
	struct vk_faiss *ivf = built(&d, "IVF64,Flat", 1), *hnsw = built(&d, "HNSW4", 1);
	double before[2] = {0, 0};
	for (uint32_t dial = 1; dial <= 256; dial *= 4) {
		search(ivf, &d, K, (struct vk_faiss_query){.nprobe = dial}, 1, &answers);
		double a = recall(&d, &answers, K, d.truth);
		search(hnsw, &d, K, (struct vk_faiss_query){.ef = dial}, 1, &answers);
		double b = recall(&d, &answers, K, d.truth);
		print_message("dial %3u: IVF %.3f HNSW %.3f\n", dial, a, b);
		assert_true(a >= before[0] && b >= before[1] - 0.01);
		before[0] = a;
		before[1] = b;
	}
	assert_true(before[0] > 0.999 && before[1] > 0.9);
	vk_faiss_free(ivf);
	vk_faiss_free(hnsw);
	drop(&d);
}

/* --- k-means --- */

static void test_faiss_means_find_the_clusters(void **state)
{
	(void)state;
	NEEDS_FAISS();
	enum { N = 600, SIZE = 8 };
	float rows[N * SIZE], centroid[3 * SIZE], same[3 * SIZE];
	uint64_t dice = seed;
	for (int i = 0; i < N * SIZE; i++) rows[i] = 10.0f * (float)(i / SIZE % 3 == i % SIZE) + 0.1f * normal(&dice);
	struct vk_faiss_means m = {.rows = rows, .n = N, .dims = SIZE, .k = 3, .seed = 4, .centroid = centroid};
	struct vk_error err = {0};
	assert_int_equal(vk_faiss_means(&m, NULL, &err), VK_OK);
	assert_true(m.loss < 0.2);
	unsigned seen = 0;
	for (int c = 0; c < 3; c++)
		for (int j = 0; j < 3; j++)
			if (fabsf(centroid[c * SIZE + j] - 10) < 0.1f) seen |= 1u << j;
	assert_int_equal(seen, 7);
	m.centroid = same;
	assert_int_equal(vk_faiss_means(&m, NULL, &err), VK_OK);
	assert_memory_equal(centroid, same, sizeof same);
	m.spherical = true;
	assert_int_equal(vk_faiss_means(&m, NULL, &err), VK_OK);
	for (int c = 0; c < 3; c++) assert_true(fabs(vk_inverse_norm(same + c * SIZE, SIZE) - 1) < 1e-3);
	m.k = N + 1;
	expect_invalid(vk_faiss_means(&m, NULL, &err), &err, "at least k");
	atomic_bool stop = true;
	m.k = 3;
	assert_int_equal(vk_faiss_means(&m, &(struct vk_faiss_opts){.stop = &stop}, &err), VK_E_CANCELLED);
}

/* --- without it --- */

static void test_faiss_missing_object_is_said(void **state)
{
	(void)state;
	struct vk_error err = {0};
	assert_null(vk_faiss_face_at("/nowhere/vk_faiss.so", &err));
	assert_int_equal(err.st, VK_E_UNAVAILABLE);
	assert_non_null(strstr(err.text, "/nowhere/vk_faiss.so"));
	assert_null(vk_faiss_face_at("libm.so.6", &err));
	assert_non_null(strstr(err.text, "version"));
	if (!no_faiss()) return;
	struct vk_faiss *f;
	struct vk_faiss_conf c = {.factory = "Flat", .dims = 8, .metric = VK_METRIC_L2};
	assert_int_equal(vk_faiss_new(&c, &f, &err), VK_E_UNAVAILABLE);
	assert_non_null(strstr(err.text, "libfaiss-dev"));
}

int main(int argc, char **argv)
{
	if (argc > 1) cmocka_set_test_filter(argv[1]); /* a pattern of names */
	const char *given = getenv("VK_TEST_SEED");
	seed = given ? strtoull(given, NULL, 0) : 20240611;
	print_message("VK_TEST_SEED=%llu, %s\n", (unsigned long long)seed, no_faiss() ? "without FAISS" : vk_faiss_library(NULL));
	snprintf(dir, sizeof dir, "/tmp/vk_faiss.XXXXXX");
	if (!mkdtemp(dir)) return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faiss_every_kind_reaches_its_recall),
		cmocka_unit_test(test_faiss_flat_gives_the_true_ranks),
		cmocka_unit_test(test_faiss_binary_nominates_by_signs),
		cmocka_unit_test(test_faiss_filter_answers_as_if_others_were_not_there),
		cmocka_unit_test(test_faiss_filter_is_refused_where_there_is_none),
		cmocka_unit_test(test_faiss_same_seed_gives_the_same_bytes),
		cmocka_unit_test(test_faiss_saved_opens_with_the_same_answers),
		cmocka_unit_test(test_faiss_damaged_file_is_refused),
		cmocka_unit_test(test_faiss_missing_file_is_not_found),
		cmocka_unit_test(test_faiss_save_that_fails_leaves_the_old_file),
		cmocka_unit_test(test_faiss_bad_factory_is_refused_with_the_reason),
		cmocka_unit_test(test_faiss_plan_knows_what_training_needs),
		cmocka_unit_test(test_faiss_misuse_is_said),
		cmocka_unit_test(test_faiss_more_than_the_rows_there_are),
		cmocka_unit_test(test_faiss_memory_budget_is_kept),
		cmocka_unit_test(test_faiss_training_shows_progress_and_stops),
		cmocka_unit_test(test_faiss_building_a_graph_stops_soon),
		cmocka_unit_test(test_faiss_searches_side_by_side_keep_their_dials),
		cmocka_unit_test(test_faiss_beam_and_probes_buy_recall),
		cmocka_unit_test(test_faiss_means_find_the_clusters),
		cmocka_unit_test(test_faiss_missing_object_is_said),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	vk_dir_remove(dir);
	return failed;
}
