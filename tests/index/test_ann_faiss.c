/*
 * FAISS as an engine of generations (vk_ann_faiss): builds from a row source, nominates under filters of every size or says that it gave
 * up, is saved and opened, goes on with what was half built, stops, and fails with words.
 * Method: seeded rows, slots with holes; the oracle is a flat scan here. What is nominated must be allowed, distinct and, where the engine
 * did not give up, as many as asked for or as there are.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/hash.h"
#include "index/ann.h"
#include "index/faiss.h"
#include "store/file.h"

#define N 1500u
#define DIMS 40u
#define K 10u
#define SLOTS (N * 3 + 7)

static char dir[64];
static float row[N * DIMS];

#define NEEDS_FAISS() do { if (!vk_faiss_library(NULL)) skip(); } while (0)

static uint32_t slot_of(uint32_t i)
{
	return 3 * i + 7;
}

struct feed {
	unsigned rows_done, fail_at, stop_at, first; /* first: row 0 of the source is this one */
	const struct vk_graph_progress *progress;    /* NULL, or: it is never below `first` */
	atomic_bool stop;
};

static enum vk_status give(void *arg, uint32_t i, float *dst, uint32_t *slot)
{
	struct feed *f = arg;
	assert_int_equal(f->rows_done, 0); /* the view is let go */
	if (f->fail_at && i == f->fail_at) return VK_E_IO;
	if (f->stop_at && i == f->stop_at) atomic_store(&f->stop, true);
	if (f->progress) assert_true(atomic_load(&f->progress->done) >= f->first);
	memcpy(dst, row + (size_t)(f->first + i) * DIMS, DIMS * sizeof *dst);
	*slot = slot_of(f->first + i);
	return VK_OK;
}

static void done(void *arg)
{
	((struct feed *)arg)->rows_done++;
}

static enum vk_status build(const char *factory, uint32_t n, struct feed *f, struct vk_graph_progress *progress, void **self,
			    struct vk_error *err)
{
	struct vk_ann_plan p = {.engine = VK_ANN_FAISS, .metric = VK_METRIC_COSINE, .dims = DIMS};
	snprintf(p.factory, sizeof p.factory, "%s", factory);
	struct vk_ann_source src = {.n = n, .row = give, .rows_done = done, .arg = f};
	struct vk_ann_build b = {.threads = 1, .stop = &f->stop, .progress = progress};
	return vk_ann_faiss.build(&p, &src, &b, self, err);
}

static void *built(const char *factory)
{
	struct feed f = {0};
	struct vk_error err = {0};
	struct vk_graph_progress progress = {0};
	void *self = NULL;
	enum vk_status st = build(factory, N, &f, &progress, &self, &err);
	if (st) fail_msg("%s: %s", factory, err.text);
	assert_int_equal(f.rows_done, 1);
	assert_int_equal(atomic_load(&progress.total), N);
	assert_int_equal(atomic_load(&progress.done), N);
	return self;
}

static double dot(const float *a, const float *b)
{
	double sum = 0;
	for (uint32_t i = 0; i < DIMS; i++) sum += (double)a[i] * b[i];
	return sum;
}

/* Is the row among the K nearest of the allowed? */
static bool is_near(uint32_t i, const float *q, const bool *allowed)
{
	unsigned better = 0;
	double own = dot(q, row + (size_t)i * DIMS);
	for (uint32_t j = 0; j < N; j++) better += allowed[j] && dot(q, row + (size_t)j * DIMS) > own;
	return better < K;
}

struct tally {
	unsigned asked, gave_up, near, near_max;
};

static void ask_one(void *self, uint32_t from, const uint64_t *allow, const bool *allowed, uint32_t count, uint32_t ef, struct tally *t)
{
	static uint32_t slot[VK_FAISS_K_MAX];
	const float *q = row + (size_t)from * DIMS;
	uint32_t want = vk_ann_faiss.want(self, K, 0);
	bool seen[N] = {false};
	assert_in_range(want, K, VK_FAISS_K_MAX);
	struct vk_ann_ask a = {.vector = q, .want = want, .ef = ef, .allow = allow, .allow_n = SLOTS, .allow_count = count, .slot = slot};
	assert_int_equal(vk_ann_faiss.nominate(self, &a), VK_OK);
	assert_in_range(a.n, 0, want);
	for (uint32_t i = 0; i < a.n; i++) {
		uint32_t r = (slot[i] - 7) / 3;
		assert_true(slot[i] >= 7 && slot[i] == slot_of(r) && r < N);
		assert_false(seen[r]);
		seen[r] = true;
		assert_true(allowed[r]);
	}
	uint32_t most = allow && count < want ? count : want;
	t->asked++;
	t->gave_up += a.gave_up;
	if (a.gave_up) return;
	assert_int_equal(a.n, most);
	for (uint32_t i = 0; i < N; i++) {
		if (!allowed[i] || !is_near(i, q, allowed)) continue;
		t->near_max++;
		t->near += seen[i];
	}
}

static void check(void *self, const char *factory, unsigned permille, uint32_t ef, double floor, bool may_give_up)
{
	uint64_t dice = permille + 3, allow[SLOTS / 64 + 1] = {0};
	bool allowed[N];
	uint32_t count = 0;
	struct tally t = {0};
	for (uint32_t i = 0; i < N; i++) {
		allowed[i] = vk_rng(&dice) % 1000 < permille;
		count += allowed[i];
		if (allowed[i]) allow[slot_of(i) / 64] |= (uint64_t)1 << (slot_of(i) % 64);
	}
	for (uint32_t from = 0; from < N; from += 97) ask_one(self, from, permille < 1000 ? allow : NULL, allowed, count, ef, &t);
	double recall = t.near_max ? (double)t.near / t.near_max : 1;
	print_message("%-16s %4u of 1000 allowed: recall %.3f, gave up %u of %u\n", factory, permille, recall, t.gave_up, t.asked);
	assert_true(recall >= floor);
	if (!may_give_up) assert_int_equal(t.gave_up, 0);
}

static const struct {
	const char *factory;
	uint32_t ef;
	double floor;
	bool filters;
} kinds[] = {{"Flat", 0, 1, true}, {"SQ8", 0, 0.99, true}, {"IVF16,Flat", 16, 0.99, true}, {"IVF16,PQ20,RFlat", 16, 0.8, true},
	     {"HNSW16", 200, 0.95, false}, {"PQ20", 0, 0.85, false}, {"BFlat", 0, 0.6, false}};

static void test_ann_faiss_nominates_what_is_allowed(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static const unsigned permille[] = {1000, 600, 100, 5, 0};
	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
		void *self = built(kinds[k].factory);
		for (size_t p = 0; p < sizeof permille / sizeof permille[0]; p++)
			check(self, kinds[k].factory, permille[p], kinds[k].ef, kinds[k].floor,
			      permille[p] == 0 || (!kinds[k].filters && permille[p] < 600));
		vk_ann_faiss.close(self);
	}
}

static void test_ann_faiss_opens_what_it_saved(void **state)
{
	(void)state;
	NEEDS_FAISS();
	char path[128];
	snprintf(path, sizeof path, "%s/gen-1-1.faiss", dir);
	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
		struct vk_ann_plan p = {.engine = VK_ANN_FAISS, .metric = VK_METRIC_COSINE, .dims = DIMS, .nprobe = 16, .ef_search = 200};
		struct vk_error err = {0};
		struct vk_ann_about a, b;
		uint8_t tag[32] = {9, 8, 7}, got[32];
		uint64_t sequence = 0;
		void *self = built(kinds[k].factory), *again = NULL;
		assert_int_equal(vk_ann_faiss.save(self, path, 77, tag, &err), VK_OK);
		if (vk_ann_faiss.open(&p, path, &again, &sequence, got, &err)) fail_msg("%s", err.text);
		assert_int_equal(sequence, 77);
		assert_memory_equal(tag, got, 32);
		vk_ann_faiss.about(self, &a);
		vk_ann_faiss.about(again, &b);
		assert_int_equal(a.rows, N);
		assert_int_equal(b.rows, N);
		assert_non_null(strstr(b.detail, kinds[k].factory));
		check(again, kinds[k].factory, 1000, 0, kinds[k].floor, false); /* by the plan's own dials */
		/* A mapped one is saved again, its file gone. */
		assert_int_equal(unlink(path), 0);
		assert_int_equal(vk_ann_faiss.save(again, path, 78, tag, &err), VK_OK);
		vk_ann_faiss.close(again);
		vk_ann_faiss.close(self);
	}
}

static bool is_in(const struct vk_bitmap *b, uint32_t from, uint32_t to)
{
	bool all = vk_bitmap_count(b) == to - from;
	for (uint32_t i = from; i < to; i++) all &= vk_bitmap_has(b, slot_of(i));
	return all;
}

/* An index of the first rows, saved as one that is half built, opened. */
static void *half_built(const char *factory, uint32_t rows)
{
	char path[128];
	struct feed f = {0};
	struct vk_error err = {0};
	struct vk_ann_plan p = {.engine = VK_ANN_FAISS, .metric = VK_METRIC_COSINE, .dims = DIMS, .nprobe = 16, .ef_search = 200};
	struct vk_ann_about about;
	uint8_t tag[32] = {1};
	uint64_t sequence;
	void *self, *again;
	snprintf(path, sizeof path, "%s/gen-1-2.faiss.part", dir);
	if (build(factory, rows, &f, NULL, &self, &err)) fail_msg("%s: %s", factory, err.text);
	assert_false(vk_ann_faiss.partial(self));
	vk_faiss_mark_partial(self, true);
	assert_int_equal(vk_ann_faiss.save(self, path, 5, tag, &err), VK_OK);
	vk_ann_faiss.close(self);
	if (vk_ann_faiss.open(&p, path, &again, &sequence, tag, &err)) fail_msg("%s", err.text);
	assert_true(vk_ann_faiss.partial(again));
	vk_ann_faiss.about(again, &about);
	assert_null(strstr(about.detail, "mapped")); /* it is to be added to */
	return again;
}

static void test_ann_faiss_goes_on_with_a_half_built_one(void **state)
{
	(void)state;
	NEEDS_FAISS();
	const uint32_t had = 600;
	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
		struct vk_graph_progress progress = {0};
		struct feed f = {.first = had, .progress = &progress}, stopped = {.first = had, .stop_at = 500};
		struct vk_ann_source src = {.n = N - had, .row = give, .rows_done = done, .arg = &f};
		struct vk_ann_build b = {.threads = 1, .stop = &f.stop, .progress = &progress};
		struct vk_error err = {0};
		struct vk_bitmap *in = vk_bitmap_new();
		void *self = half_built(kinds[k].factory, had);
		vk_ann_faiss.slots(self, in);
		assert_true(is_in(in, 0, had));
		atomic_store(&progress.done, had);
		if (vk_ann_faiss.resume_from(self, &src, &b, &err)) fail_msg("%s: %s", kinds[k].factory, err.text);
		assert_int_equal(f.rows_done, 1);
		assert_int_equal(atomic_load(&progress.total), N);
		assert_int_equal(atomic_load(&progress.done), N);
		assert_false(vk_ann_faiss.partial(self));
		assert_int_equal(vk_ann_faiss.rows(self), N);
		vk_ann_faiss.slots(self, in);
		assert_true(is_in(in, 0, N));
		check(self, kinds[k].factory, 1000, kinds[k].ef, kinds[k].floor, false);
		vk_ann_faiss.close(self);
		self = half_built(kinds[k].factory, had);
		src.arg = &stopped;
		b.stop = &stopped.stop;
		assert_int_equal(vk_ann_faiss.resume_from(self, &src, &b, &err), VK_E_CANCELLED);
		assert_true(vk_ann_faiss.partial(self));
		vk_ann_faiss.close(self);
		vk_bitmap_free(in);
	}
}

static void test_ann_faiss_failing_build_is_said(void **state)
{
	(void)state;
	NEEDS_FAISS();
	struct vk_error err = {0};
	void *self = NULL;
	struct feed unreadable = {.fail_at = 700}, stopped = {.stop_at = 900}, fine = {0};
	assert_int_equal(build("Flat", N, &unreadable, NULL, &self, &err), VK_E_IO);
	assert_non_null(strstr(err.text, "row"));
	assert_int_equal(build("IVF16,Flat", N, &stopped, NULL, &self, &err), VK_E_CANCELLED);
	assert_int_equal(build("IVF100,Flat", 50, &fine, NULL, &self, &err), VK_E_INVALID);
	assert_non_null(strstr(err.text, "at least 100 rows"));
	fine = (struct feed){0};
	assert_int_equal(build("Nonsense", N, &fine, NULL, &self, &err), VK_E_INVALID);
	assert_null(self);
	/* Nothing at all to build of is an index of nothing. */
	fine = (struct feed){0};
	assert_int_equal(build("Flat", 0, &fine, NULL, &self, &err), VK_OK);
	check(self, "Flat, no rows", 0, 0, 1, true);
	vk_ann_faiss.close(self);
}

static void test_ann_faiss_build_leaves_the_callers_priority(void **state)
{
	(void)state;
	NEEDS_FAISS();
	int before = getpriority(PRIO_PROCESS, 0);
	vk_ann_faiss.close(built("Flat"));
	assert_int_equal(getpriority(PRIO_PROCESS, 0), before);
}

int main(void)
{
	uint64_t dice = 11;
	snprintf(dir, sizeof dir, "/tmp/vk_ann_faiss.XXXXXX");
	if (!mkdtemp(dir)) return 1;
	for (uint32_t i = 0; i < N; i++) {
		for (uint32_t j = 0; j < DIMS; j++)
			row[i * DIMS + j] = (float)((double)(vk_rng(&dice) >> 11) * 0x1p-53 - 0.5) + (j == i % 8 ? 1.0f : 0);
		vk_unit(row + (size_t)i * DIMS, row + (size_t)i * DIMS, DIMS);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ann_faiss_nominates_what_is_allowed),
		cmocka_unit_test(test_ann_faiss_opens_what_it_saved),
		cmocka_unit_test(test_ann_faiss_goes_on_with_a_half_built_one),
		cmocka_unit_test(test_ann_faiss_failing_build_is_said),
		cmocka_unit_test(test_ann_faiss_build_leaves_the_callers_priority),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	vk_dir_remove(dir);
	return failed;
}
