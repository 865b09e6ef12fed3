/*
 * FAISS files of strangers: vectors come out as they went in (or as the codes remember them), and no file, however cut, flipped or made
 * up, does more than fail with words.
 * Method: files written by our own export; then truncations at every kind of place and seeded bit flips, and hand-made heads that
 * promise terabytes. The oracle of a right file is the rows it was made of. VK_TEST_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "index/faiss.h"
#include "index/faiss_import.h"
#include "store/file.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TRIES 30 /* a fork costs them ten times as much */
#define STEP 16
#else
#define TRIES 250
#define STEP 4
#endif

#define DIMS 24u
#define ROWS 500u

static uint64_t seed;
static char dir[64], path[100];
static float row[ROWS * DIMS];

#define NEEDS_FAISS() do { if (!vk_faiss_library(NULL)) skip(); } while (0)

static void export(const char *factory, enum vk_metric metric)
{
	struct vk_error err = {0};
	struct vk_faiss *f;
	uint32_t label[ROWS];
	for (uint32_t i = 0; i < ROWS; i++) label[i] = i;
	struct vk_faiss_conf c = {.factory = factory, .dims = DIMS, .metric = metric, .rows = ROWS};
	enum vk_status st = vk_faiss_new(&c, &f, &err);
	if (!st) st = vk_faiss_train(f, ROWS, row, NULL, &err);
	if (!st) st = vk_faiss_add(f, ROWS, row, label, NULL, &err);
	if (!st) st = vk_faiss_export(f, path, &err);
	if (st) fail_msg("%s: %s", factory, err.text);
	vk_faiss_free(f);
}

/* Reads all; how many rows came before the end or the error. */
static enum vk_status import(struct vk_faiss_import_head *head, int64_t *id, float *rows, uint64_t *n, struct vk_error *err)
{
	struct vk_faiss_import *im;
	uint32_t some;
	*n = 0;
	enum vk_status st = vk_faiss_import_open(path, &im, head, err);
	if (st) return st;
	/* A head that lies about dims or rows fits no buffer of ours. */
	bool fits = head->dims == DIMS && head->rows <= ROWS;
	for (uint32_t max = 7; fits; max = 64) {
		st = vk_faiss_import_next(im, max, id + *n, rows + *n * DIMS, &some, err);
		if (st || !some) break;
		*n += some;
		if (*n + 64 > ROWS) max = (uint32_t)(ROWS - *n) + 1; /* the end must still be said */
	}
	vk_faiss_import_close(im);
	return st;
}

static int64_t id[ROWS + 128];
static float got[(ROWS + 128) * DIMS];

static void check_comes_back(const char *factory, enum vk_metric metric, float within)
{
	struct vk_faiss_import_head head;
	struct vk_error err = {0};
	uint64_t n;
	bool seen[ROWS] = {false};
	double worst = 0;
	export(factory, metric);
	enum vk_status st = import(&head, id, got, &n, &err);
	if (st) fail_msg("%s: %s", factory, err.text);
	assert_int_equal(head.rows, ROWS);
	assert_int_equal(head.dims, DIMS);
	assert_int_equal(head.inner_product, metric != VK_METRIC_L2);
	assert_int_equal(n, ROWS);
	for (uint32_t i = 0; i < ROWS; i++) {
		assert_in_range(id[i], 0, ROWS - 1);
		assert_false(seen[id[i]]);
		seen[id[i]] = true;
		for (uint32_t j = 0; j < DIMS; j++) worst = fmax(worst, fabs(got[i * DIMS + j] - row[id[i] * DIMS + j]));
	}
	print_message("%-28s %-20s worst difference of a component %.4f\n", factory, head.type, worst);
	assert_true(worst <= within);
}

static void test_import_gives_back_what_was_added(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const struct {
		const char *factory;
		float within;
	} kinds[] = {{"Flat", 0}, {"HNSW16", 0}, {"IVF16,Flat", 0}, {"IVF16_HNSW8,Flat", 0}, {"PQ12,RFlat", 0}, {"SQ8", 0.01f},
		     {"IVF16,SQ8", 0.03f}, {"SQfp16", 0.001f}, {"PQ12", 1.2f}, {"IVF8,PQ12", 1.2f}, {"OPQ8,PQ8", 2.0f}, {"RR,Flat", 1e-5f}};
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		check_comes_back(kinds[i].factory, VK_METRIC_L2, kinds[i].within);
		check_comes_back(kinds[i].factory, VK_METRIC_DOT, kinds[i].within);
	}
}

static void expect(enum vk_status want, const char *word)
{
	struct vk_faiss_import_head head;
	struct vk_error err = {0};
	uint64_t n;
	enum vk_status st = import(&head, id, got, &n, &err);
	if (st != want || !strstr(err.text, word)) fail_msg("status %d \"%s\", expected %d \"%s\"", st, err.text, want, word);
}

static void spew(const void *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), (ssize_t)n);
	close(fd);
}

static void test_import_of_what_is_no_index_says_so(void **state)
{
	(void)state;
	NEEDS_FAISS();
	spew("hello, this is no index of anybody's", 36);
	expect(VK_E_CORRUPT, "not recognized");
	spew("I", 1);
	expect(VK_E_INVALID, "no FAISS file");
	unlink(path);
	expect(VK_E_NOT_FOUND, path);
	export("BFlat", VK_METRIC_L2);
	expect(VK_E_INVALID, "signs");
	export("PCAW12,Flat", VK_METRIC_L2); /* whitened: there is no way back */
	struct vk_faiss_import_head head;
	struct vk_error err = {0};
	uint64_t n;
	assert_int_not_equal(import(&head, id, got, &n, &err), VK_OK);
	assert_int_equal(n, 0);
	assert_true(err.text[0] != 0);
}

/* Heads that promise what no machine has; the right answer is an error, soon. */
static void test_import_of_a_made_up_size_allocates_nothing(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const char *const kinds[] = {"Flat", "IVF16,Flat", "HNSW16", "PQ12", "IVF8,PQ12", "SQ8", "OPQ8,PQ8"};
	struct stat s;
	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
		export(kinds[k], VK_METRIC_L2);
		int fd = open(path, O_RDONLY);
		assert_true(fd >= 0 && fstat(fd, &s) == 0);
		size_t n = (size_t)s.st_size;
		uint8_t *good = malloc(n), *bad = malloc(n);
		assert_int_equal(read(fd, good, n), s.st_size);
		close(fd);
		/* A count of 2^37 at each place of the head, and dims of 2^30. */
		for (size_t at = 4; at + 8 <= 132 && at + 8 <= n; at += STEP) {
			struct vk_faiss_import_head head;
			struct vk_error err = {0};
			uint64_t rows, huge = (uint64_t)1 << 37, from = vk_mono_ms();
			memcpy(bad, good, n);
			memcpy(bad + at, &huge, 8);
			spew(bad, n);
			enum vk_status st = import(&head, id, got, &rows, &err);
			if (st) assert_true(err.text[0] != 0);
			if (at == 8 || at == 4) assert_int_not_equal(st, VK_OK); /* ntotal itself */
			assert_true(vk_mono_ms() - from < 30000);
			uint32_t wide = 1u << 30;
			memcpy(bad, good, n);
			memcpy(bad + at, &wide, 4);
			spew(bad, n);
			st = import(&head, id, got, &rows, &err);
			if (st) assert_true(err.text[0] != 0);
		}
		free(good);
		free(bad);
	}
}

static void test_import_of_damaged_files_never_hurts(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const char *const kinds[] = {"Flat", "IVF16,Flat", "HNSW16", "IVF8,PQ12", "OPQ8,IVF8,SQ8,RFlat"};
	struct stat s;
	uint64_t dice = seed;
	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
		export(kinds[k], VK_METRIC_DOT);
		int fd = open(path, O_RDONLY), whole = 0, refused = 0;
		assert_true(fd >= 0 && fstat(fd, &s) == 0);
		size_t n = (size_t)s.st_size;
		uint8_t *good = malloc(n), *bad = malloc(n);
		assert_int_equal(read(fd, good, n), s.st_size);
		close(fd);
		for (int i = 0; i < TRIES; i++) {
			struct vk_faiss_import_head head;
			struct vk_error err = {0};
			uint64_t rows;
			size_t cut = n;
			memcpy(bad, good, n);
			if (i % 2) cut = vk_rng(&dice) % n;
			else
				for (unsigned flips = 1 + vk_rng(&dice) % 3; flips; flips--)
					bad[vk_rng(&dice) % (i % 4 ? n : n < 200 ? n : 200)] ^= (uint8_t)(1u << vk_rng(&dice) % 8);
			spew(bad, cut);
			enum vk_status st = import(&head, id, got, &rows, &err);
			if (st) assert_true(err.text[0] != 0);
			if (i % 2 && cut < n) assert_int_not_equal(st, VK_OK);
			st ? refused++ : whole++;
		}
		print_message("%-20s %d refused, %d read whole\n", kinds[k], refused, whole);
		free(good);
		free(bad);
	}
}

/* Whoever gives up early leaves no process behind. */
static void test_import_closed_early_ends_its_reader(void **state)
{
	(void)state;
	NEEDS_FAISS();
	struct vk_faiss_import *im;
	struct vk_faiss_import_head head;
	struct vk_error err = {0};
	uint32_t n;
	export("Flat", VK_METRIC_L2);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(vk_faiss_import_open(path, &im, &head, &err), VK_OK);
		if (i % 2) assert_int_equal(vk_faiss_import_next(im, 5, id, got, &n, &err), VK_OK);
		vk_faiss_import_close(im);
	}
	char own[64];
	snprintf(own, sizeof own, "/proc/self/task/%d/children", (int)getpid());
	FILE *f = fopen(own, "re");
	if (!f) return;
	assert_int_equal(fgetc(f), EOF);
	fclose(f);
}

int main(int argc, char **argv)
{
	if (argc > 1) cmocka_set_test_filter(argv[1]);
	const char *given = getenv("VK_TEST_SEED");
	seed = given ? strtoull(given, NULL, 0) : 20240612;
	print_message("VK_TEST_SEED=%llu\n", (unsigned long long)seed);
	snprintf(dir, sizeof dir, "/tmp/vk_faiss_import.XXXXXX");
	if (!mkdtemp(dir)) return 1;
	snprintf(path, sizeof path, "%s/file", dir);
	uint64_t dice = seed;
	for (size_t i = 0; i < ROWS * DIMS; i++) row[i] = (float)((double)(vk_rng(&dice) >> 11) * 0x1p-53 * 2 - 1);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_import_gives_back_what_was_added),
		cmocka_unit_test(test_import_of_what_is_no_index_says_so),
		cmocka_unit_test(test_import_of_a_made_up_size_allocates_nothing),
		cmocka_unit_test(test_import_of_damaged_files_never_hurts),
		cmocka_unit_test(test_import_closed_early_ends_its_reader),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	vk_dir_remove(dir);
	return failed;
}
