/*
 * Goal: a data file that is cut short under readers costs those who read it an error and nobody else anything; faults that are
 * not a guarded map's still end the process.
 * Method: environments of some megabytes, truncated under live views; children that shall die, by which signal is checked.
 */
#include "tests/store/util.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "store/guard.h"

#define ROWS 400
#define ROW_BYTES 9000

static const char *const tables[] = {"t"};

struct fix {
	struct temp dir;
	struct vk_kv_writers *writers;
	struct vk_kv *kv;
};

static enum vk_status fill(void *arg, struct vk_kv_txn *t)
{
	char key[16];
	void *dst;
	(void)arg;
	for (int i = 0; i < ROWS; i++) {
		snprintf(key, sizeof key, "%05d", i);
		enum vk_status st = vk_kv_put_reserve(t, 0, vk_bytes_of(key), ROW_BYTES, &dst);
		if (st) return st;
		memset(dst, i & 0xff, ROW_BYTES);
	}
	return VK_OK;
}

static void fix_make(struct fix *f)
{
	struct vk_error err = {0};
	struct vk_kv_job job = {.apply = fill};
	vk_guard_install(); /* cmocka sets its own handler for each test */
	temp_make(&f->dir);
	assert_int_equal(vk_kv_writers_new(1, &f->writers), VK_OK);
	struct vk_kv_opts o = {.map_bytes = 1 << 20, .tables = tables, .tables_n = 1, .writers = f->writers};
	if (vk_kv_open(f->dir.path, &o, &f->kv, &err)) fail_msg("%s", err.text);
	assert_int_equal(vk_kv_run(f->kv, &job), VK_OK); /* the map grows: its place is found anew */
}

static void fix_free(struct fix *f)
{
	vk_kv_close(f->kv);
	vk_kv_writers_free(f->writers);
	temp_free(&f->dir);
}

static void cut(struct fix *f)
{
	char path[400];
	snprintf(path, sizeof path, "%s/data.mdb", f->dir.path);
	assert_int_equal(truncate(path, 8 * 4096), 0);
}

/* Reads every byte there is. */
static enum vk_status scan(void *arg)
{
	struct vk_kv_txn *t = arg;
	struct vk_kv_cursor *c;
	struct vk_bytes k, v;
	uint64_t sum = 0, n = 0;
	enum vk_status st = vk_kv_cursor_open(t, 0, &c);
	if (st) return st;
	while ((st = vk_kv_next(c, &k, &v)) == VK_OK) {
		n++;
		for (size_t i = 0; i < v.n; i++) sum += (uint8_t)v.p[i];
	}
	vk_kv_cursor_close(c);
	if (st != VK_E_NOT_FOUND) return st;
	return n == ROWS && sum > 0 ? VK_OK : VK_E_INTERNAL;
}

static enum vk_status scan_own_view(void *arg)
{
	struct vk_kv_txn *t;
	enum vk_status st = vk_kv_view_begin(arg, &t);
	if (!st) st = scan(t);
	vk_kv_view_end(t);
	return st;
}

static enum vk_status pass(void *arg) { return *(enum vk_status *)arg; }

static void test_guard_whole_file_passes_status_through(void **state)
{
	(void)state;
	struct fix f;
	struct vk_kv_txn *t;
	fix_make(&f);
	assert_int_equal(vk_kv_view_begin(f.kv, &t), VK_OK);
	for (enum vk_status st = 0; st < VK_STATUS_COUNT; st++) assert_int_equal(vk_guard_run(f.kv, pass, &st), st);
	assert_int_equal(vk_guard_run(f.kv, scan, t), VK_OK);
	vk_kv_view_end(t);
	assert_int_equal(vk_guard_run(f.kv, scan_own_view, f.kv), VK_OK);
	fix_free(&f);
}

struct keep {
	struct vk_kv *kv;
	struct vk_kv_txn *t;
};

static enum vk_status begin_and_keep(void *arg)
{
	struct keep *k = arg;
	return vk_kv_view_begin(k->kv, &k->t);
}

static void test_guard_view_may_outlive_it(void **state)
{
	(void)state;
	struct fix f;
	fix_make(&f);
	struct keep k = {.kv = f.kv};
	assert_int_equal(vk_guard_run(f.kv, begin_and_keep, &k), VK_OK);
	assert_int_equal(scan(k.t), VK_OK);
	vk_kv_view_end(k.t);
	fix_free(&f);
}

static void test_guard_cut_file_is_an_error_for_its_readers_alone(void **state)
{
	(void)state;
	struct fix bad, good;
	struct vk_kv_txn *t, *u;
	struct vk_kv_stats s;
	fix_make(&bad);
	fix_make(&good);
	assert_int_equal(vk_kv_view_begin(bad.kv, &t), VK_OK);
	assert_int_equal(vk_kv_view_begin(good.kv, &u), VK_OK);
	cut(&bad);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(vk_guard_run(bad.kv, scan, t), VK_E_IO);
		assert_int_equal(vk_guard_run(bad.kv, scan_own_view, bad.kv), VK_E_IO);
		assert_int_equal(vk_guard_run(good.kv, scan, u), VK_OK);
		assert_int_equal(vk_guard_run(good.kv, scan_own_view, good.kv), VK_OK);
	}
	vk_kv_view_end(t);
	vk_kv_view_end(u);
	vk_kv_stats(bad.kv, &s);
	assert_true(s.broken);
	struct vk_kv_job job = {.apply = fill};
	assert_int_equal(vk_kv_run(bad.kv, &job), VK_E_IO);
	vk_kv_stats(good.kv, &s);
	assert_false(s.broken);
	assert_int_equal(vk_kv_run(good.kv, &job), VK_OK);
	fix_free(&bad); /* no reader is left: closing says so by an assert */
	fix_free(&good);
}

struct nested {
	struct fix *outer, *inner;
	struct vk_kv_txn *outer_view;
	enum vk_status of_inner;
	bool after;
};

static enum vk_status scan_outer_inside(void *arg)
{
	struct nested *n = arg;
	return scan(n->outer_view);
}

static enum vk_status run_inner(void *arg)
{
	struct nested *n = arg;
	n->of_inner = vk_guard_run(n->inner->kv, scan_outer_inside, n);
	n->after = true;
	return n->of_inner;
}

static enum vk_status run_inner_own(void *arg)
{
	struct nested *n = arg;
	n->of_inner = vk_guard_run(n->inner->kv, scan_own_view, n->inner->kv);
	n->after = true;
	return VK_OK;
}

static void test_guard_nested_fault_ends_at_its_own(void **state)
{
	(void)state;
	struct fix bad, good;
	fix_make(&bad);
	fix_make(&good);
	struct nested n = {.outer = &bad, .inner = &good};
	assert_int_equal(vk_kv_view_begin(bad.kv, &n.outer_view), VK_OK);
	cut(&bad);
	/* The outer one's map, within the inner guard: past it. */
	assert_int_equal(vk_guard_run(bad.kv, run_inner, &n), VK_E_IO);
	assert_false(n.after);
	vk_kv_view_end(n.outer_view);
	/* The inner one's: the outer function goes on. */
	n = (struct nested){.outer = &good, .inner = &bad};
	assert_int_equal(vk_guard_run(good.kv, run_inner_own, &n), VK_OK);
	assert_true(n.after);
	assert_int_equal(n.of_inner, VK_E_IO);
	fix_free(&bad);
	fix_free(&good);
}

#define THREADS 4
struct reader {
	struct vk_kv *kv;
	_Atomic uint64_t whole, failed;
	_Atomic bool stop;
};

static void *read_on(void *arg)
{
	struct reader *r = arg;
	while (!r->stop) {
		enum vk_status st = vk_guard_run(r->kv, scan_own_view, r->kv);
		if (st == VK_OK) r->whole++;
		else if (st == VK_E_IO) r->failed++;
		else abort();
	}
	return NULL;
}

static void test_guard_threads_fault_each_for_itself(void **state)
{
	(void)state;
	struct fix f;
	pthread_t thread[THREADS];
	fix_make(&f);
	struct reader r = {.kv = f.kv};
	for (int i = 0; i < THREADS; i++) pthread_create(&thread[i], NULL, read_on, &r);
	while (r.whole < 20) usleep(1000);
	cut(&f);
	while (r.failed < 20) usleep(1000);
	r.stop = true;
	for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
	fix_free(&f);
}

static void test_guard_writer_sees_a_cut_file_before_it_writes(void **state)
{
	(void)state;
	struct fix f;
	struct vk_kv_stats s;
	struct vk_kv_job job = {.apply = fill};
	fix_make(&f);
	assert_int_equal(vk_kv_run(f.kv, &job), VK_OK);
	cut(&f);
	assert_int_equal(vk_kv_run(f.kv, &job), VK_E_IO);
	assert_int_equal(vk_kv_run(f.kv, &job), VK_E_IO);
	vk_kv_stats(f.kv, &s);
	assert_true(s.broken);
	fix_free(&f);
}

/* Deaths, in a child each */

static int death_of(void (*fn)(struct fix *f), struct fix *f)
{
	int how;
	struct temp dir; /* what the child leaves there */
	temp_make(&dir);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		setenv("TMPDIR", dir.path, 1);
		signal(SIGBUS, SIG_DFL); /* a sanitizer's handler would end it its own way */
		fn(f);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &how, 0), pid);
	temp_free(&dir);
	return WIFSIGNALED(how) ? WTERMSIG(how) : -WEXITSTATUS(how);
}

static void open_cut(struct fix *f)
{
	fix_make(f);
	cut(f);
}

static void read_unguarded(struct fix *f)
{
	struct vk_kv_txn *t;
	enum vk_status st = VK_OK;
	open_cut(f);
	if (vk_guard_run(f->kv, pass, &st) || vk_kv_view_begin(f->kv, &t)) _exit(1);
	scan(t);
}

static enum vk_status touch(void *arg) { return *(volatile char *)arg ? VK_OK : VK_E_END; }

/* A map of somebody else's, inside a guard. */
static void read_other_map(struct fix *f)
{
	char path[400];
	fix_make(f);
	snprintf(path, sizeof path, "%s/other", f->dir.path);
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) _exit(1);
	vk_guard_run(f->kv, touch, map);
}

static void test_guard_other_faults_end_the_process(void **state)
{
	(void)state;
	struct fix f;
	assert_int_equal(death_of(read_unguarded, &f), SIGBUS);
	assert_int_equal(death_of(read_other_map, &f), SIGBUS);
}

int main(void)
{
	vk_log_set_level(VK_LOG_OFF);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_guard_other_faults_end_the_process), /* before there are threads to fork with */
	    cmocka_unit_test(test_guard_whole_file_passes_status_through),
	    cmocka_unit_test(test_guard_view_may_outlive_it),
	    cmocka_unit_test(test_guard_cut_file_is_an_error_for_its_readers_alone),
	    cmocka_unit_test(test_guard_nested_fault_ends_at_its_own),
	    cmocka_unit_test(test_guard_threads_fault_each_for_itself),
	    cmocka_unit_test(test_guard_writer_sees_a_cut_file_before_it_writes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
