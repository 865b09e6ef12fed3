/*
 * Goal: what LMDB wrote passes, at any moment of its life; a file that lies is told so, and never crashes, hangs or is
 * believed where that would.
 * Method: environments churned at random and checked after each copy; every bit of reachable structure flipped at random, in
 * an exact copy: either the check refuses it, or LMDB reads all of it (walked here, in a child) without harm.
 */
#include "tests/store/util.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/kv.h"
#include "store/mdbcheck.h"

#define TABLES 3
static const char *const tables[TABLES] = {"a", "b", "empty"};

struct fix {
	struct temp dir, copy;
	struct vk_kv_writers *writers;
	struct vk_kv *kv;
	char path[400]; /* of the copy */
};

static void fix_make(struct fix *f)
{
	struct vk_error err = {0};
	temp_make(&f->dir);
	temp_make(&f->copy);
	snprintf(f->path, sizeof f->path, "%s/data.mdb", f->copy.path);
	assert_int_equal(vk_kv_writers_new(1, &f->writers), VK_OK);
	struct vk_kv_opts o = {.tables = tables, .tables_n = TABLES, .writers = f->writers};
	if (vk_kv_open(f->dir.path, &o, &f->kv, &err)) fail_msg("%s", err.text);
}

static void fix_free(struct fix *f)
{
	vk_kv_close(f->kv);
	vk_kv_writers_free(f->writers);
	temp_free(&f->dir);
	temp_free(&f->copy);
}

static void copy(struct fix *f)
{
	int fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(vk_kv_copy(f->kv, fd), VK_OK);
	close(fd);
}

struct churn {
	uint64_t *rng;
	unsigned n;
};

static enum vk_status churn(void *arg, struct vk_kv_txn *t)
{
	struct churn *c = arg;
	for (unsigned i = 0; i < c->n; i++) {
		char key[200];
		unsigned table = vk_rng(c->rng) % 2;
		void *dst;
		snprintf(key, sizeof key, "%0*llu", 20 + (int)(vk_rng(c->rng) % 60), (unsigned long long)(vk_rng(c->rng) % 3000));
		if (vk_rng(c->rng) % 3 == 0) {
			enum vk_status st = vk_kv_del(t, table, vk_bytes_of(key));
			if (st && st != VK_E_NOT_FOUND) return st;
			continue;
		}
		size_t n = vk_rng(c->rng) % 20 ? vk_rng(c->rng) % 400 : vk_rng(c->rng) % 30000;
		enum vk_status st = vk_kv_put_reserve(t, table, vk_bytes_of(key), n, &dst);
		if (st) return st;
		memset(dst, 'v', n);
	}
	return VK_OK;
}

static void churn_some(struct fix *f, uint64_t *rng, unsigned n)
{
	struct churn c = {rng, n};
	struct vk_kv_job job = {.apply = churn, .arg = &c};
	assert_int_equal(vk_kv_run(f->kv, &job), VK_OK);
}

static void test_mdbcheck_passes_what_lmdb_wrote(void **state)
{
	(void)state;
	struct fix f;
	struct vk_error err = {0};
	uint64_t rng = test_seed("mdbcheck_churn");
	fix_make(&f);
	for (int round = 0; round < 80; round++) {
		copy(&f);
		if (vk_mdb_check(f.path, &err)) fail_msg("round %d: %s", round, err.text);
		churn_some(&f, &rng, (unsigned)(vk_rng(&rng) % 300));
	}
	fix_free(&f);
}

static void test_mdbcheck_other_files_are_refused(void **state)
{
	(void)state;
	struct temp dir;
	struct vk_error err;
	char path[400], junk[20000];
	uint64_t rng = test_seed("mdbcheck_junk");
	temp_make(&dir);
	snprintf(path, sizeof path, "%s/f", dir.path);
	assert_int_equal(vk_mdb_check(path, &err), VK_E_NOT_FOUND);
	for (size_t n = 0; n <= sizeof junk; n += 1 + n) {
		for (size_t i = 0; i < n; i++) junk[i] = (char)vk_rng(&rng);
		assert_int_equal(vk_file_replace(dir.path, "f", junk, n, NULL), VK_OK);
		assert_int_equal(vk_mdb_check(path, &err), VK_E_CORRUPT);
	}
	temp_free(&dir);
}

/* In a child, under an alarm: opens, reads all, deletes and puts some; ends with 0 unless it crashes. */
static void use_all(const char *dir)
{
	struct vk_kv_writers *w;
	struct vk_kv *kv;
	struct vk_kv_txn *t;
	uint64_t rng = 1;
	alarm(20);
	if (vk_kv_writers_new(1, &w)) _exit(0);
	struct vk_kv_opts o = {.map_bytes = 64 << 20, .tables = tables, .tables_n = TABLES, .writers = w};
	if (vk_kv_open(dir, &o, &kv, NULL)) _exit(0);
	if (vk_kv_view_begin(kv, &t)) _exit(0);
	for (unsigned i = 0; i < TABLES; i++) {
		struct vk_kv_cursor *c;
		struct vk_bytes k, v;
		uint64_t sum = 0;
		if (vk_kv_cursor_open(t, i, &c)) _exit(0);
		while (vk_kv_next(c, &k, &v) == VK_OK) {
			for (size_t b = 0; b < k.n; b++) sum += (uint8_t)k.p[b];
			for (size_t b = 0; b < v.n; b++) sum += (uint8_t)v.p[b];
		}
		if (sum == 1) _exit(0);
	}
	vk_kv_view_end(t);
	struct churn c = {&rng, 200};
	struct vk_kv_job job = {.apply = churn, .arg = &c};
	for (int i = 0; i < 5; i++) vk_kv_run(kv, &job);
	_exit(0);
}

static void test_mdbcheck_what_passes_does_no_harm(void **state)
{
	(void)state;
	struct fix f;
	struct vk_error err;
	struct stat s;
	uint64_t rng = test_seed("mdbcheck_flips");
	unsigned refused = 0, passed = 0;
	fix_make(&f);
	for (int i = 0; i < 20; i++) churn_some(&f, &rng, 200);
	copy(&f);
	assert_int_equal(stat(f.path, &s), 0);
	size_t n = (size_t)s.st_size;
	char *whole = malloc(n), *bad = malloc(n);
	int fd = open(f.path, O_RDONLY);
	assert_int_equal(read(fd, whole, n), n);
	close(fd);
	for (int round = 0; round < 500; round++) {
		memcpy(bad, whole, n);
		/* Mostly where structure is: heads of pages, offsets, the metas. */
		size_t page = vk_rng(&rng) % (n / 4096) * 4096;
		size_t at = round % 3 == 0 ? vk_rng(&rng) % 152 + vk_rng(&rng) % 2 * 4096
			    : round % 3 == 1 ? page + vk_rng(&rng) % 64 : page + vk_rng(&rng) % 4096;
		uint8_t other = (uint8_t)vk_rng(&rng);
		bad[at] = (char)(round % 2 ? bad[at] ^ 1 << other % 8 : other);
		fd = open(f.path, O_WRONLY | O_TRUNC);
		assert_int_equal(write(fd, bad, n), n);
		close(fd);
		enum vk_status st = vk_mdb_check(f.path, &err);
		assert_true(st == VK_OK || st == VK_E_CORRUPT);
		if (st) {
			refused++;
			continue;
		}
		if (passed++ % 5) continue; /* a child for each fifth: time */
		int how;
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			signal(SIGSEGV, SIG_DFL);
			signal(SIGABRT, SIG_DFL);
			signal(SIGBUS, SIG_DFL);
			use_all(f.copy.path);
		}
		assert_int_equal(waitpid(pid, &how, 0), pid);
		if (!WIFEXITED(how)) fail_msg("byte %zu (page %zu) in round %d: signal %d", at, at / 4096, round, WTERMSIG(how));
		char lock[400];
		snprintf(lock, sizeof lock, "%s/lock.mdb", f.copy.path);
		unlink(lock);
	}
	print_message("%u refused, %u passed\n", refused, passed);
	assert_true(refused > 30 && passed > 100);
	free(whole);
	free(bad);
	fix_free(&f);
}

int main(void)
{
	vk_log_set_level(VK_LOG_OFF);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_mdbcheck_passes_what_lmdb_wrote),
	    cmocka_unit_test(test_mdbcheck_other_files_are_refused),
	    cmocka_unit_test(test_mdbcheck_what_passes_does_no_harm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
