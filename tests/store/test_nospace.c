/*
 * Goal: when the map, the disk or a file limit is full, caching stops and says so, reads go on, and
 * caching resumes when there is room; when a sync fails, writing stops for good and reads go on,
 * even after LMDB's panic (its meta page could not be written).
 * Method: a map of two megabytes; RLIMIT_FSIZE in a child; pwrite and fdatasync of LMDB itself
 * replaced in this program (the library calls them through the linker) and failed on demand.
 */
#include "tests/store/disk_faults.h"
#include "tests/store/util.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define DIMS 512

struct outcome {
	_Atomic int ok, no_space, io, other;
};

static void on_done(void *arg, enum vk_status st)
{
	struct outcome *o = arg;
	if (st == VK_OK) o->ok++;
	else if (st == VK_E_NO_SPACE) o->no_space++;
	else if (st == VK_E_IO) o->io++;
	else o->other++;
}

/* Puts until one is refused; how many were taken. */
static uint64_t fill(struct vk_cachedb *db, uint64_t from, uint64_t max, struct outcome *o,
		     enum vk_status *last)
{
	uint64_t n = from;
	for (; n < from + max; n++) {
		*last = put_one(db, 1, 1, n, DIMS, on_done, o);
		if (*last) break;
		if (n % 16 == 15) vk_cachedb_flush(db);
	}
	return n - from;
}

static void test_nospace_map_full_stops_caching_until_purged(void **state)
{
	(void)state;
	struct temp t;
	struct outcome o = {0};
	enum vk_status last;
	struct vk_cachedb_stats s;
	temp_make(&t);
	struct vk_cachedb *db = must_open(t.path, &(struct vk_cachedb_opts){.map_bytes = 2 << 20});
	uint64_t n = fill(db, 0, 100000, &o, &last);
	assert_int_equal(last, VK_E_NO_SPACE);
	vk_cachedb_flush(db);
	vk_cachedb_stats(db, &s);
	/* After a batch that found no room a smaller one may have: go on until none does. */
	for (int i = 0; i < 100 && !s.full; i++) {
		n += fill(db, n, 100000, &o, &last);
		vk_cachedb_flush(db);
		vk_cachedb_stats(db, &s);
	}
	assert_true(s.full);
	assert_true(s.rows > 300);
	assert_true(o.no_space >= 1);
	assert_int_equal(o.ok, s.rows);
	assert_int_equal(o.ok + o.no_space, n);
	assert_int_equal(o.io + o.other, 0);
	for (uint64_t i = 0; i < s.rows; i++) assert_int_equal(get_one(db, 1, 1, i, DIMS), VK_OK);

	/* A purge finds the pages that it needs for deleting, and caching goes on at once. */
	struct vk_cachedb_filter f = {.older_than_ms = 1000 + (int64_t)s.rows / 2};
	struct vk_cachedb_purged out;
	struct vk_error err;
	assert_int_equal(vk_cachedb_purge(db, &f, false, &out, &err), VK_OK);
	assert_int_equal(out.rows, s.rows / 2);
	uint64_t again = fill(db, 500000, 100, &o, &last);
	assert_int_equal(last, VK_OK);
	assert_int_equal(again, 100);
	vk_cachedb_flush(db);
	for (uint64_t i = 500000; i < 500100; i++)
		assert_int_equal(get_one(db, 1, 1, i, DIMS), VK_OK);
	vk_cachedb_stats(db, &s);
	assert_false(s.full);
	vk_cachedb_close(db);
	temp_free(&t);
}

static void test_nospace_budget_above_a_small_map_evicts_instead(void **state)
{
	(void)state;
	struct temp t;
	struct outcome o = {0};
	enum vk_status last;
	struct vk_cachedb_stats s;
	temp_make(&t);
	struct vk_cachedb *db = must_open(
	    t.path, &(struct vk_cachedb_opts){.map_bytes = 4 << 20, .budget_bytes = 64 << 20});
	assert_int_equal(fill(db, 0, 5000, &o, &last), 5000);
	vk_cachedb_flush(db);
	vk_cachedb_stats(db, &s);
	assert_false(s.full);
	assert_int_equal(o.ok, 5000);
	assert_true(s.evicted > 3000);
	vk_cachedb_close(db);
	temp_free(&t);
}

/* In a child: limits cannot be raised again for files that are open. */
static int run_under_file_limit(const char *dir)
{
	struct outcome o = {0};
	enum vk_status last = VK_OK;
	struct rlimit limit = {4 << 20, RLIM_INFINITY};
	signal(SIGXFSZ, SIG_IGN);
	struct vk_cachedb *db;
	if (vk_cachedb_open(dir, NULL, &db, NULL)) return 1;
	setrlimit(RLIMIT_FSIZE, &limit);
	fill(db, 0, 20000, &o, &last);
	if (last != VK_E_NO_SPACE) return 2;
	if (o.ok < 500) return 3;
	for (uint64_t n = 0; n < 400; n++)
		if (get_one(db, 1, 1, n, DIMS)) return 4;
	struct vk_cachedb_stats s;
	vk_cachedb_stats(db, &s);
	if (!s.full) return 5;
	limit.rlim_cur = RLIM_INFINITY;
	setrlimit(RLIMIT_FSIZE, &limit);
	/* Tried again by itself after a while. */
	for (int i = 0; i < 60; i++) {
		last = put_one(db, 1, 1, 900000, DIMS, on_done, &o);
		if (!last && vk_cachedb_flush(db) == VK_OK &&
		    get_one(db, 1, 1, 900000, DIMS) == VK_OK)
			break;
		usleep(100000);
	}
	if (last) return 6;
	vk_cachedb_stats(db, &s);
	if (s.full) return 7;
	vk_cachedb_close(db);
	return 0;
}

static void test_nospace_file_limit_stops_caching_and_lets_it_resume(void **state)
{
	(void)state;
	struct temp t;
	int status;
	temp_make(&t);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) _exit(run_under_file_limit(t.path));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	struct vk_cachedb *db = must_open(t.path, NULL);
	assert_int_equal(get_one(db, 1, 1, 0, DIMS), VK_OK);
	vk_cachedb_close(db);
	temp_free(&t);
}

static void check_broken(const char *dir, _Atomic int *fault, int code)
{
	struct outcome o = {0};
	struct vk_cachedb_stats s;
	struct vk_cachedb *db = must_open(dir, NULL);
	for (uint64_t n = 0; n < 100; n++)
		assert_int_equal(put_one(db, 1, 1, n, DIMS, on_done, &o), VK_OK);
	assert_int_equal(vk_cachedb_flush(db), VK_OK);
	*fault = code;
	assert_int_equal(put_one(db, 1, 1, 100, DIMS, on_done, &o), VK_OK);
	assert_int_equal(vk_cachedb_flush(db), VK_E_IO);
	*fault = 0;
	/* Nothing is written any more, though it would work again: nobody knows what the disk has.
	 */
	assert_int_equal(put_one(db, 1, 1, 101, DIMS, on_done, &o), VK_E_IO);
	assert_int_equal(vk_cachedb_flush(db), VK_E_IO);
	vk_cachedb_stats(db, &s);
	assert_true(s.full);
	assert_int_equal(o.ok, 100);
	assert_int_equal(o.ok + o.io + o.no_space, 101);
	for (uint64_t n = 0; n < 100; n++) assert_int_equal(get_one(db, 1, 1, n, DIMS), VK_OK);
	vk_cachedb_close(db);
	/* The next start has all that was promised: row 100 was in the journal. */
	db = must_open(dir, NULL);
	for (uint64_t n = 0; n <= 100; n++) assert_int_equal(get_one(db, 1, 1, n, DIMS), VK_OK);
	assert_int_equal(put_one(db, 1, 1, 101, DIMS, NULL, NULL), VK_OK);
	vk_cachedb_close(db);
}

static void test_nospace_failed_sync_stops_writing_not_reading(void **state)
{
	(void)state;
	struct temp t;
	temp_make(&t);
	check_broken(t.path, &fail_fdatasync, EIO);
	temp_free(&t);
}

static void test_nospace_lmdb_panic_leaves_the_cache_readable(void **state)
{
	(void)state;
	struct temp t;
	temp_make(&t);
	check_broken(t.path, &fail_meta_write, EIO);
	temp_free(&t);
	temp_make(&t);
	check_broken(t.path, &fail_meta_write, ENOSPC);
	temp_free(&t);
}

int main(void)
{
	vk_log_set_level(VK_LOG_OFF);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_nospace_map_full_stops_caching_until_purged),
	    cmocka_unit_test(test_nospace_budget_above_a_small_map_evicts_instead),
	    cmocka_unit_test(test_nospace_file_limit_stops_caching_and_lets_it_resume),
	    cmocka_unit_test(test_nospace_failed_sync_stops_writing_not_reading),
	    cmocka_unit_test(test_nospace_lmdb_panic_leaves_the_cache_readable),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
