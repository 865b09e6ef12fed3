/*
 * Goal: what is saved is what is opened, whole or half-built; damage is found or harmless, never a crash.
 * Method: sections compared byte by byte with the graph that was saved, answers with its answers; every truncation and every
 * flipped bit of head, table and checked sections must be VK_E_CORRUPT, flips in mapped sections must be found by the scrub and
 * searched without harm (run it under AddressSanitizer); promotion while other threads search must change no answer.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "index/graph_internal.h"
#include "store/guard.h"
#include "tests/index/graph_gen.h"

#define K 10u

static char dir[] = "/tmp/vk_graph_file_XXXXXX";
static const uint8_t tag_in[32] = {1, 2, 3, [31] = 9};

static const char *path_of(const char *name)
{
	static char path[128];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static enum vk_status row_of(void *arg, uint32_t i, float *dst, uint32_t *label)
{
	const struct gen_rows *r = arg;
	memcpy(dst, gen_at(r, i), r->dims * sizeof *dst);
	*label = 3 * i + 1; /* holes between labels */
	return VK_OK;
}

static struct vk_graph *build(struct gen_rows *r, uint32_t n, enum vk_metric m, enum vk_graph_profile p)
{
	struct vk_graph *g;
	struct vk_error err;
	struct vk_graph_conf c = {.dims = r->dims, .metric = m, .profile = p, .capacity = 2 * n, .seed = 5, .level = vk_cpu_best()};
	struct vk_graph_source src = {.n = n, .row = row_of, .arg = r};
	assert_int_equal(vk_graph_new(&c, &g, &err), VK_OK);
	assert_int_equal(vk_graph_build(g, &src, NULL, &err), VK_OK);
	return g;
}

static enum vk_status open_at(const char *path, struct vk_graph **g, struct vk_error *err)
{
	uint64_t sequence;
	uint8_t tag[32];
	return vk_graph_open(path, 4096, vk_cpu_best(), g, &sequence, tag, err);
}

static uint32_t ask(struct vk_graph *g, struct vk_graph_scratch *s, const float *v, uint32_t *label, float *near)
{
	struct vk_graph_query q = {.vector = v, .ef = 40, .want = K, .label = label, .near = near};
	assert_int_equal(vk_graph_search(g, s, &q), VK_OK);
	return q.n;
}

static void assert_same_sections(const struct vk_graph *a, const struct vk_graph *b)
{
	uint32_t n = atomic_load(&a->n);
	assert_int_equal(n, atomic_load(&b->n));
	assert_memory_equal(a->code.p, b->code.p, n * a->code.stride);
	assert_memory_equal(a->edge.p, b->edge.p, n * a->edge.stride);
	assert_memory_equal(a->label.p, b->label.p, n * a->label.stride);
	assert_memory_equal(a->chain.p, b->chain.p, n * a->chain.stride);
	assert_memory_equal(a->in.p, b->in.p, n * a->in.stride);
	assert_memory_equal(a->mean, b->mean, a->conf.dims * sizeof(float));
	assert_int_equal(a->entry_n, b->entry_n);
	assert_memory_equal(a->entry, b->entry, a->entry_n * sizeof *a->entry);
	assert_memory_equal(a->entry_code, b->entry_code, a->entry_n * a->code.stride);
}

static void assert_same_answers(struct vk_graph *a, struct vk_graph *b, const struct gen_rows *r, uint32_t queries)
{
	struct vk_graph_scratch *sa = vk_graph_scratch_take(a), *sb = vk_graph_scratch_take(b);
	for (uint32_t i = 0; i < queries; i++) {
		uint32_t la[K], lb[K], na, nb;
		float ra[K], rb[K];
		na = ask(a, sa, gen_at(r, r->n - 1 - i), la, ra);
		nb = ask(b, sb, gen_at(r, r->n - 1 - i), lb, rb);
		assert_int_equal(na, nb);
		assert_memory_equal(la, lb, na * sizeof *la);
		assert_memory_equal(ra, rb, na * sizeof *ra);
	}
	vk_graph_scratch_give(a, sa);
	vk_graph_scratch_give(b, sb);
}

/* --- there and back --- */

static void test_file_saved_graph_opens_the_same(void **state)
{
	(void)state;
	static const struct {
		enum vk_metric metric;
		enum vk_graph_profile profile;
		uint32_t n, dims;
	} cases[] = {
	    {VK_METRIC_DOT, VK_GRAPH_S8, 1500, 24},	{VK_METRIC_COSINE, VK_GRAPH_S4, 1500, 200},
	    {VK_METRIC_L2, VK_GRAPH_P8, 1500, 256}, {VK_METRIC_L2, VK_GRAPH_S8, 1, 3},
	    {VK_METRIC_L2, VK_GRAPH_S8, 0, 3},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct gen_rows r = gen_rows(GEN_CLUSTERED, cases[i].n + 50, cases[i].dims, cases[i].metric, 11);
		struct vk_graph *g = build(&r, cases[i].n, cases[i].metric, cases[i].profile), *o;
		struct vk_error err = {0};
		uint64_t sequence = 0;
		uint8_t tag[32];
		assert_int_equal(vk_graph_save(g, path_of("a"), 77 + i, tag_in, &err), VK_OK);
		assert_int_equal(vk_graph_open(path_of("a"), 0, vk_cpu_best(), &o, &sequence, tag, &err), VK_OK);
		assert_int_equal(sequence, 77 + i);
		assert_memory_equal(tag, tag_in, sizeof tag);
		assert_false(vk_graph_partial(o));
		assert_same_sections(g, o);
		assert_same_answers(g, o, &r, 50);
		assert_int_equal(vk_graph_check(o, &err), VK_OK);
		for (uint32_t l = 0; l < 3 * cases[i].n; l++) assert_int_equal(vk_graph_has(o, l), l % 3 == 1);
		struct vk_graph_stats a, b;
		vk_graph_stats(g, &a);
		vk_graph_stats(o, &b);
		assert_memory_equal(&a, &b, sizeof a);
		/* What was opened is saved again, to the byte. */
		assert_int_equal(vk_graph_promote(o), VK_OK);
		assert_same_sections(g, o);
		assert_same_answers(g, o, &r, 50);
		vk_graph_free(o);
		vk_graph_free(g);
		free(r.row);
	}
}

static void test_file_missing_is_not_found(void **state)
{
	(void)state;
	struct vk_graph *g;
	struct vk_error err;
	assert_int_equal(open_at(path_of("nothing"), &g, &err), VK_E_NOT_FOUND);
	assert_null(g);
}

static void test_file_saved_into_a_missing_directory_fails_and_leaves_nothing(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_GAUSSIAN, 20, 4, VK_METRIC_L2, 1);
	struct vk_graph *g = build(&r, 20, VK_METRIC_L2, VK_GRAPH_S8);
	struct vk_error err;
	assert_int_equal(vk_graph_save(g, path_of("no/such"), 1, tag_in, &err), VK_E_NOT_FOUND);
	vk_graph_free(g);
	free(r.row);
}

/* --- damage --- */

struct bytes {
	uint8_t *p;
	size_t n;
};

static struct bytes read_all(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	struct bytes b = {malloc((size_t)st.st_size), (size_t)st.st_size};
	assert_int_equal(read(fd, b.p, b.n), st.st_size);
	close(fd);
	return b;
}

static void write_all(const char *path, const uint8_t *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), n);
	close(fd);
}

static struct bytes small_file(struct gen_rows *r, enum vk_graph_profile p)
{
	struct vk_error err;
	struct vk_graph *g = build(r, r->n - 10, VK_METRIC_L2, p);
	assert_int_equal(vk_graph_save(g, path_of("whole"), 1, tag_in, &err), VK_OK);
	vk_graph_free(g);
	return read_all(path_of("whole"));
}

static void test_file_cut_anywhere_is_corrupt(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_CLUSTERED, 210, 20, VK_METRIC_L2, 3);
	struct bytes b = small_file(&r, VK_GRAPH_S8);
	for (size_t n = 0; n < b.n; n += n < 4200 ? 7 : 509) {
		struct vk_graph *g;
		struct vk_error err;
		write_all(path_of("cut"), b.p, n);
		assert_int_equal(open_at(path_of("cut"), &g, &err), VK_E_CORRUPT);
		assert_non_null(strstr(err.text, "cut"));
		uint64_t at = 0;
		assert_int_equal(vk_graph_scrub_step(path_of("cut"), 1 << 20, &at, &err), VK_E_CORRUPT);
	}
	free(b.p);
	free(r.row);
}

static bool scrub_finds(const char *path)
{
	uint64_t at = 0;
	struct vk_error err;
	enum vk_status st;
	while ((st = vk_graph_scrub_step(path, 1, &at, &err)) == VK_E_BUSY) {
	}
	assert_true(st == VK_OK || st == VK_E_CORRUPT);
	return st == VK_E_CORRUPT;
}

/* A flip is refused at open, or it is in a mapped section: then searches and checks must come back whole. */
static bool survives(const char *path, const struct gen_rows *r)
{
	struct vk_graph *g;
	struct vk_error err;
	enum vk_status st = open_at(path, &g, &err);
	if (st) {
		assert_int_equal(st, VK_E_CORRUPT);
		return false;
	}
	struct vk_graph_scratch *s = vk_graph_scratch_take(g);
	for (uint32_t i = 0; i < 10; i++) {
		uint32_t label[K];
		float near[K];
		ask(g, s, gen_at(r, r->n - 1 - i), label, near);
	}
	vk_graph_scratch_give(g, s);
	(void)vk_graph_check(g, &err);
	vk_graph_free(g);
	return true;
}

static void test_file_any_flipped_bit_is_refused_or_harmless_and_scrubbed(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_CLUSTERED, 110, 20, VK_METRIC_L2, 4);
	struct bytes b = small_file(&r, VK_GRAPH_S8);
	uint64_t rng = 99;
	uint32_t opened = 0, padding = 0;
	assert_false(scrub_finds(path_of("whole")));
	for (size_t at = 0; at < b.n; at += at < 600 ? 1 : 1 + (size_t)(vk_rng(&rng) % 41)) {
		uint8_t bit = (uint8_t)(1u << (vk_rng(&rng) % 8));
		b.p[at] ^= bit;
		write_all(path_of("flip"), b.p, b.n);
		b.p[at] ^= bit;
		bool open_ok = survives(path_of("flip"), &r), found = scrub_finds(path_of("flip"));
		if (!open_ok) assert_true(found);
		if (open_ok && !found) assert_int_equal(b.p[at], 0); /* nothing lies there */
		opened += open_ok;
		padding += open_ok && !found;
	}
	print_message("%u flips were opened, %u of them in padding\n", opened, padding);
	assert_true(opened > 100);
	free(b.p);
	free(r.row);
}

/* Whole sections of noise behind a right head: all that a stranger could have put there. */
static void test_file_mapped_sections_of_noise_are_searched_without_harm(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_CLUSTERED, 410, 20, VK_METRIC_L2, 5);
	struct bytes b = small_file(&r, VK_GRAPH_S4);
	size_t mapped = b.n - (400 * 64 + 400 * 128 + 3 * 4096) / 4096 * 4096;
	for (uint64_t round = 0; round < 200; round++) {
		uint64_t rng = round;
		for (size_t at = mapped; at < b.n; at += 1 + (size_t)(vk_rng(&rng) % (1 + round))) b.p[at] = (uint8_t)vk_rng(&rng);
		write_all(path_of("noise"), b.p, b.n);
		(void)survives(path_of("noise"), &r);
	}
	free(b.p);
	free(r.row);
}

/* --- half-built --- */

struct cut {
	const char *path;
	uint32_t calls, stop_at;
};

static enum vk_status save_and_stop(void *arg, struct vk_graph *g, uint32_t done)
{
	struct cut *c = arg;
	struct vk_error err;
	assert_true(done > 0 && done < atomic_load(&g->n));
	if (++c->calls < c->stop_at) return VK_OK;
	assert_int_equal(vk_graph_save(g, c->path, done, tag_in, &err), VK_OK);
	return VK_E_CANCELLED;
}

static void test_file_build_that_was_cut_off_goes_on_to_the_same_bytes(void **state)
{
	(void)state;
	for (uint32_t stop_at = 1; stop_at < 8; stop_at += 3) {
		struct gen_rows r = gen_rows(GEN_DUPLICATES, 4000, 32, VK_METRIC_COSINE, 6);
		for (uint32_t i = 0; i < r.n; i += 3) gen_normals(gen_at(&r, i), r.dims, 1, &(uint64_t){i});
		for (uint32_t i = 0; i < r.n; i++) gen_unit(gen_at(&r, i), r.dims);
		struct vk_graph *whole = build(&r, r.n, VK_METRIC_COSINE, VK_GRAPH_S8), *g, *again;
		struct vk_graph_conf c = whole->conf;
		struct cut cut = {path_of("part"), 0, stop_at};
		struct vk_graph_source src = {.n = r.n, .row = row_of, .arg = &r};
		struct vk_graph_build_opts o = {.threads = 2, .between = save_and_stop, .arg = &cut}, plain = {.threads = 3};
		struct vk_error err;
		assert_int_equal(vk_graph_new(&c, &g, &err), VK_OK);
		assert_int_equal(vk_graph_build(g, &src, &o, &err), VK_E_CANCELLED);
		assert_true(vk_graph_partial(g));
		vk_graph_free(g);
		assert_int_equal(open_at(path_of("part"), &again, &err), VK_OK);
		assert_true(vk_graph_partial(again));
		assert_int_equal(vk_graph_build_resume(again, &plain, &err), VK_OK);
		assert_false(vk_graph_partial(again));
		assert_same_sections(whole, again);
		assert_int_equal(vk_graph_build_resume(again, &plain, &err), VK_OK); /* nothing to do */
		vk_graph_free(whole);
		vk_graph_free(again);
		free(r.row);
	}
}

/* --- pages that cannot be read --- */

static void assert_lost(struct vk_graph *g)
{
	struct vk_graph_stats s;
	struct vk_error err;
	vk_graph_stats(g, &s);
	assert_true(s.lost);
	assert_int_equal(vk_graph_save(g, path_of("lost"), 1, tag_in, &err), VK_E_CORRUPT);
}

/* Cut anywhere behind its head while it is mapped, it is searched, grown, checked and promoted without harm, and known to be lost. */
static void test_file_cut_short_while_it_is_mapped_is_lost_and_no_more(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_DUPLICATES, 4000, 32, VK_METRIC_L2, 7);
	struct vk_graph *g = build(&r, r.n - 100, VK_METRIC_L2, VK_GRAPH_S8);
	struct vk_error err;
	vk_guard_install(); /* cmocka sets its own handler for each test */
	assert_int_equal(vk_graph_save(g, path_of("whole"), 1, tag_in, &err), VK_OK);
	vk_graph_free(g);
	struct bytes b = read_all(path_of("whole"));
	uint64_t rng = 8;
	for (uint32_t round = 0; round < 40; round++) {
		off_t left = (off_t)(4096 * (1 + vk_rng(&rng) % (b.n / 4096 - 1)));
		write_all(path_of("lost"), b.p, b.n);
		assert_int_equal(open_at(path_of("lost"), &g, &err), VK_OK);
		assert_int_equal(truncate(path_of("lost"), left), 0);
		struct vk_graph_scratch *s = vk_graph_scratch_take(g);
		uint32_t label[K];
		float near[K];
		for (uint32_t i = 0; i < 50; i++) ask(g, s, gen_at(&r, r.n - 1 - i), label, near);
		vk_graph_scratch_give(g, s);
		for (uint32_t i = 0; i < 50; i++) {
			enum vk_status put = vk_graph_put(g, r.n - 1 - i, gen_at(&r, r.n - 1 - i)), del = vk_graph_del(g, i * 7);
			assert_true((put == VK_OK || put == VK_E_CORRUPT) && (del == VK_OK || del == VK_E_CORRUPT));
		}
		(void)vk_graph_consolidate_step(g, 100000);
		(void)vk_graph_check(g, &err);
		assert_int_equal(vk_graph_promote(g), VK_OK); /* touches every page */
		assert_lost(g);
		assert_int_equal(vk_graph_put(g, 9000, gen_at(&r, 0)), VK_E_CORRUPT);
		vk_graph_free(g);
	}
	free(b.p);
	free(r.row);
}

#ifdef __SANITIZE_THREAD__ /* to it, a handler that puts a page in writes to all of the page */
#define RESUME_THREADS 1
#else
#define RESUME_THREADS 2
#endif

static void test_file_half_built_and_cut_short_does_not_go_on(void **state)
{
	(void)state;
	struct gen_rows r = gen_rows(GEN_CLUSTERED, 4000, 32, VK_METRIC_L2, 9);
	struct vk_graph_conf c = {.dims = 32, .metric = VK_METRIC_L2, .profile = VK_GRAPH_S8, .capacity = 4096, .level = vk_cpu_best()};
	struct cut cut = {path_of("part"), 0, 2};
	struct vk_graph_source src = {.n = r.n, .row = row_of, .arg = &r};
	struct vk_graph_build_opts o = {.threads = 2, .between = save_and_stop, .arg = &cut}, plain = {.threads = RESUME_THREADS};
	struct vk_graph *g;
	struct vk_error err;
	vk_guard_install();
	assert_int_equal(vk_graph_new(&c, &g, &err), VK_OK);
	assert_int_equal(vk_graph_build(g, &src, &o, &err), VK_E_CANCELLED);
	vk_graph_free(g);
	assert_int_equal(open_at(path_of("part"), &g, &err), VK_OK);
	assert_int_equal(truncate(path_of("part"), 4096 * 20), 0);
	assert_int_equal(vk_graph_build_resume(g, &plain, &err), VK_E_CORRUPT);
	vk_graph_free(g);
	free(r.row);
}

/* --- promotion --- */

struct searcher {
	pthread_t thread;
	struct vk_graph *g;
	const struct gen_rows *r;
	const uint32_t *want; /* K a query */
	uint32_t queries, rounds;
	atomic_bool *stop;
	atomic_uint wrong;
};

static void *search_on(void *arg)
{
	struct searcher *t = arg;
	struct vk_graph_scratch *s = vk_graph_scratch_take(t->g);
	while (!atomic_load(t->stop)) {
		for (uint32_t i = 0; i < t->queries; i++) {
			uint32_t label[K];
			float near[K];
			struct vk_graph_query q = {.vector = gen_at(t->r, t->r->n - 1 - i), .ef = 40, .want = K, .label = label, .near = near};
			if (vk_graph_search(t->g, s, &q) || memcmp(label, t->want + i * K, sizeof label)) atomic_fetch_add(&t->wrong, 1);
		}
		t->rounds++;
	}
	vk_graph_scratch_give(t->g, s);
	return NULL;
}

static void test_file_promotion_under_searches_changes_no_answer(void **state)
{
	(void)state;
	enum { QUERIES = 20, THREADS = 2 };
	struct gen_rows r = gen_rows(GEN_CLUSTERED, 3000 + QUERIES, 64, VK_METRIC_COSINE, 8);
	struct vk_graph *g = build(&r, 3000, VK_METRIC_COSINE, VK_GRAPH_S8);
	struct vk_error err;
	assert_int_equal(vk_graph_save(g, path_of("p"), 1, tag_in, &err), VK_OK);
	uint32_t want[QUERIES * K];
	float near[K];
	struct vk_graph_scratch *s = vk_graph_scratch_take(g);
	for (uint32_t i = 0; i < QUERIES; i++)
		assert_int_equal(ask(g, s, gen_at(&r, r.n - 1 - i), want + i * K, near), K);
	vk_graph_scratch_give(g, s);
	for (int round = 0; round < 10; round++) {
		struct vk_graph *o;
		atomic_bool stop = false;
		struct searcher t[THREADS];
		assert_int_equal(open_at(path_of("p"), &o, &err), VK_OK);
		for (int i = 0; i < THREADS; i++) {
			t[i] = (struct searcher){.g = o, .r = &r, .want = want, .queries = QUERIES, .stop = &stop};
			assert_int_equal(pthread_create(&t[i].thread, NULL, search_on, &t[i]), 0);
		}
		usleep(2000);
		assert_int_equal(vk_graph_promote(o), VK_OK);
		assert_int_equal(o->code.mapped + o->edge.mapped, 0);
		assert_int_equal(vk_graph_promote(o), VK_OK); /* nothing left */
		usleep(2000);
		atomic_store(&stop, true);
		for (int i = 0; i < THREADS; i++) {
			pthread_join(t[i].thread, NULL);
			assert_int_equal(atomic_load(&t[i].wrong), 0);
		}
		assert_same_sections(g, o);
		/* It grows behind what was mapped, and the file stays as it was. */
		for (uint32_t i = 0; i < 20; i++) assert_int_equal(vk_graph_is_dead(o, i), false);
		vk_graph_free(o);
		assert_false(scrub_finds(path_of("p")));
	}
	vk_graph_free(g);
	free(r.row);
}

static int setup(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	static const char *const names[] = {"a", "whole", "cut", "flip", "noise", "part", "lost", "p"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unlink(path_of(names[i]));
	return rmdir(dir); /* fails when a temporary file was left */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_file_saved_graph_opens_the_same),
	    cmocka_unit_test(test_file_missing_is_not_found),
	    cmocka_unit_test(test_file_saved_into_a_missing_directory_fails_and_leaves_nothing),
	    cmocka_unit_test(test_file_cut_anywhere_is_corrupt),
	    cmocka_unit_test(test_file_any_flipped_bit_is_refused_or_harmless_and_scrubbed),
	    cmocka_unit_test(test_file_mapped_sections_of_noise_are_searched_without_harm),
	    cmocka_unit_test(test_file_build_that_was_cut_off_goes_on_to_the_same_bytes),
	    cmocka_unit_test(test_file_cut_short_while_it_is_mapped_is_lost_and_no_more),
	    cmocka_unit_test(test_file_half_built_and_cut_short_does_not_go_on),
	    cmocka_unit_test(test_file_promotion_under_searches_changes_no_answer),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
