/*
 * Goal: what fails under an index costs time, never an answer: a disk that is full or broken while an index is saved, rows that
 * cannot be read while one is built, no memory for one. The collection serves on, the reason is shown, it is tried again later and
 * not without a pause. Method: fsync, fdatasync and the data file fail on demand; a child whose address space is limited.
 */
#include "tests/index/collection_util.h"
#include "tests/store/disk_faults.h"

#include <math.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "index/ann_internal.h"
#include "store/guard.h"

#define DIMS 16u
#define ROWS 1200u
#define RETRY_MS 200
#define WAIT_MS 300000 /* a build takes a tenth of a second, under a sanitizer beside other work half a minute */

/* Only graphs and directories are synced so; LMDB takes fdatasync. */
static _Atomic int fail_fsync;
static atomic_uint fsyncs_failed;

int fsync(int fd)
{
	if (fail_fsync) {
		atomic_fetch_add(&fsyncs_failed, 1);
		errno = fail_fsync;
		return -1;
	}
	return (int)syscall(SYS_fsync, fd);
}

static const char config[] = "{\"vectors\":{\"\":{\"size\":16,\"distance\":\"Euclid\",\"veckeep\":{\"set\":1,\"index\":{\"profile\":\"s8\"}}}},"
			     "\"indexes\":{},\"hnsw_config\":{\"m\":8,\"ef_construct\":64,\"full_scan_threshold\":2},"
			     "\"optimizer_config\":{\"indexing_threshold\":20},\"veckeep\":{\"next_set\":2,\"next_field\":1}}";
static const struct vk_ann_pace pace = {.poll_ms = 10, .retry_ms = RETRY_MS, .save_every_ms = 20};

struct world {
	struct temp dir;
	char path[300];
	struct vk_kv_writers *writers;
	struct vk_collection *c;
};

static void world_make(struct world *w)
{
	struct vk_collection_opts o = {.map_bytes = (uint64_t)1 << 30, .pace = &pace};
	struct vk_error err = {0};
	vk_guard_install(); /* cmocka sets its own handler for each test */
	temp_make(&w->dir);
	snprintf(w->path, sizeof w->path, "%s/c", w->dir.path);
	assert_int_equal(vk_kv_writers_new(1, &w->writers), VK_OK);
	o.writers = w->writers;
	if (vk_collection_open(w->path, vk_bytes_of(config), &o, &w->c, &err)) fail_msg("%s", err.text);
}

static void world_free(struct world *w)
{
	vk_collection_unref(w->c);
	vk_kv_writers_free(w->writers);
	temp_free(&w->dir);
}

static void make_row(float *row, uint64_t n)
{
	for (uint32_t i = 0; i < DIMS; i++) row[i] = (float)(vk_rng(&n) % 900);
}

static enum vk_status put(struct world *w, uint32_t first, uint32_t n)
{
	struct mem m;
	struct vk_op_in op = {.kind = VK_OP_UPSERT, .point_n = n};
	struct vk_write in = {.op = &op, .op_n = 1, .conf = vk_collection_config(w->c), .now_ms = 1700000000000};
	mem_init(&m);
	op.point = vk_arena_calloc(&m.a, n, sizeof *op.point);
	for (uint32_t i = 0; i < n; i++) {
		float *row = vk_arena_alloc(&m.a, DIMS * sizeof *row);
		struct vk_vec *v = vk_arena_calloc(&m.a, 1, sizeof *v);
		make_row(row, first + i);
		*v = (struct vk_vec){.conf = vk_colconf_vector(in.conf, (struct vk_bytes){0}), .row = row};
		op.point[i] = (struct vk_point_in){.id = id_number(vk_arena_alloc(&m.a, 64), first + i), .vec = v, .vec_n = 1};
	}
	enum vk_status st = vk_collection_write_wait(w->c, &in);
	vk_colconf_unref(in.conf);
	mem_free(&m);
	return st;
}

static struct vk_ann_info info(struct world *w)
{
	struct vk_ann_info i;
	assert_int_equal(vk_ann_info(vk_collection_ann(w->c), 1, &i), VK_OK);
	return i;
}

/* Until the state is that; false: 20 s were not enough. */
static bool becomes(struct world *w, enum vk_ann_state state)
{
	for (int i = 0; i < 4000; i++) {
		if (info(w).state == state) return true;
		usleep(5000);
	}
	return false;
}

struct seek {
	uint32_t row;
	bool approximate;
};

/* The row that lies at the query is found, with the score that it has. */
static enum vk_status find(void *arg, struct vk_view *v)
{
	struct seek *s = arg;
	struct vk_arena a;
	struct vk_error err;
	struct vk_exact_opts o = {.level = vk_cpu_best()};
	struct vk_ann_found found;
	float row[DIMS];
	make_row(row, s->row);
	struct vk_ann_query q = {.q = {.vector = row, .limit = 5, .floor = -INFINITY}, .ef = 100};
	vk_arena_init(&a, (size_t)1 << 26);
	enum vk_status st = vk_ann_search(v, &v->conf->vectors[0].set, &q, 1, &o, &a, &found, &err);
	if (!st && (q.q.hits != 5 || q.q.hit[0].rank != 0)) st = VK_E_INTERNAL;
	s->approximate = found.approximate;
	vk_arena_free(&a);
	return st;
}

static bool serves_on(struct world *w, uint32_t rows)
{
	for (uint32_t i = 0; i < rows; i += 97) {
		struct seek s = {.row = i};
		if (vk_view_run(w->c, 1700000000000, NULL, find, &s)) return false;
	}
	return true;
}

static void unsaved(int error, enum vk_status told)
{
	struct world w;
	world_make(&w);
	fail_fsync = error;
	atomic_store(&fsyncs_failed, 0);
	assert_int_equal(put(&w, 0, ROWS), VK_OK);
	assert_int_equal(vk_ann_wait(vk_collection_ann(w.c), WAIT_MS), VK_OK);
	assert_int_equal(info(&w).state, VK_ANN_READY); /* it serves whether it can be saved or not */
	assert_int_equal(info(&w).checkpoint, 0);
	assert_true(serves_on(&w, ROWS));
	uint64_t began = vk_mono_ms();
	assert_int_equal(vk_ann_checkpoint(vk_collection_ann(w.c)), told);
	assert_int_equal(put(&w, ROWS, 50), VK_OK);
	usleep(3 * RETRY_MS * 1000);
	unsigned tries = atomic_load(&fsyncs_failed), most = 5 + (unsigned)((vk_mono_ms() - began) / RETRY_MS);
	print_message("%u tries\n", tries);
	assert_true(tries >= 2 && tries <= most);
	assert_true(serves_on(&w, ROWS + 50));
	fail_fsync = 0;
	for (int i = 0; i < 2000 && !info(&w).checkpoint; i++) usleep(5000);
	assert_true(info(&w).checkpoint > 0);
	assert_int_equal(vk_ann_checkpoint(vk_collection_ann(w.c)), VK_OK);
	assert_int_equal(info(&w).rows, ROWS + 50);
	world_free(&w);
}

static void test_ann_a_full_disk_delays_a_checkpoint(void **state)
{
	(void)state;
	unsaved(ENOSPC, VK_E_NO_SPACE);
}

static void test_ann_a_broken_disk_delays_a_checkpoint(void **state)
{
	(void)state;
	unsaved(EIO, VK_E_IO);
}

/* The environment takes no writes any more: neither pointer nor cursor can be put. */
static void test_ann_a_store_that_broke_is_searched_on(void **state)
{
	(void)state;
	struct world w;
	world_make(&w);
	assert_int_equal(put(&w, 0, ROWS), VK_OK);
	assert_int_equal(vk_ann_wait(vk_collection_ann(w.c), WAIT_MS), VK_OK);
	fail_fdatasync = EIO;
	assert_int_not_equal(put(&w, ROWS, 10), VK_OK);
	assert_int_equal(vk_ann_rebuild(vk_collection_ann(w.c), 1), VK_OK);
	assert_int_equal(vk_ann_wait(vk_collection_ann(w.c), WAIT_MS), VK_OK); /* ends, whatever came of it */
	assert_true(serves_on(&w, ROWS));
	vk_collection_unref(w.c);
	fail_fdatasync = 0;
	vk_kv_writers_free(w.writers);
	temp_free(&w.dir);
}

/* Cut to a part of its pages: the fewer, the earlier a build meets what is gone. True: a build failed for it. */
static bool cut_and_build(unsigned eighths)
{
	struct world w;
	struct stat sb;
	char path[400];
	world_make(&w);
	assert_int_equal(put(&w, 0, ROWS), VK_OK);
	assert_int_equal(vk_ann_wait(vk_collection_ann(w.c), WAIT_MS), VK_OK);
	snprintf(path, sizeof path, "%s/data.mdb", w.path);
	assert_int_equal(stat(path, &sb), 0);
	assert_int_equal(truncate(path, sb.st_size / 4096 * eighths / 8 * 4096), 0);
	assert_int_equal(vk_ann_rebuild(vk_collection_ann(w.c), 1), VK_OK);
	assert_int_equal(vk_ann_wait(vk_collection_ann(w.c), WAIT_MS), VK_OK);
	struct vk_ann_info at = info(&w);
	bool failed = at.state == VK_ANN_FAILED || at.error[0];
	print_message("%u/8: %s %s\n", eighths, vk_ann_state_names[at.state], at.error);
	assert_true(failed == (at.error[0] != 0));
	struct seek s = {.row = 3};
	enum vk_status st = vk_view_run(w.c, 1700000000000, NULL, find, &s);
	assert_true(st == VK_E_IO || st == VK_OK);
	world_free(&w);
	return failed;
}

/* Where the first page that is gone is one that every view wants, the worker gets no view, and there is nothing to say. */
static void test_ann_rows_that_cannot_be_read_fail_a_build_alone(void **state)
{
	(void)state;
	unsigned failed = 0;
	for (unsigned eighths = 0; eighths < 8; eighths++) failed += cut_and_build(eighths);
	assert_true(failed > 0);
}

/* --- no memory --- */

static uint64_t address_space(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (!f || fscanf(f, "%lu", &pages) != 1) pages = 0;
	if (f) fclose(f);
	return (uint64_t)pages * 4096;
}

static int starve(void)
{
	struct world w;
	struct rlimit was, little;
	world_make(&w);
	if (put(&w, 0, 100) || vk_ann_wait(vk_collection_ann(w.c), WAIT_MS)) return 1; /* too few for an index: threads and arenas are there */
	if (!serves_on(&w, 100)) return 2;
	getrlimit(RLIMIT_AS, &was);
	little = (struct rlimit){.rlim_cur = address_space() + ((uint64_t)4 << 20), .rlim_max = was.rlim_max};
	if (setrlimit(RLIMIT_AS, &little)) return 3;
	for (uint32_t i = 100; i < ROWS; i += 100)
		if (put(&w, i, 100)) return 4;
	if (!becomes(&w, VK_ANN_FAILED)) return 5;
	if (!info(&w).error[0] || info(&w).serving) return 6;
	if (!serves_on(&w, ROWS)) return 7;
	setrlimit(RLIMIT_AS, &was);
	usleep(RETRY_MS * 1000);
	if (put(&w, ROWS, 1)) return 8;
	if (!becomes(&w, VK_ANN_READY)) return 9;
	if (!serves_on(&w, ROWS) || info(&w).error[0]) return 10;
	world_free(&w);
	return 0;
}

static void test_ann_without_memory_it_serves_exactly_and_builds_later(void **state)
{
	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(); /* their shadows have no limit to live under */
#endif
	int status;
	pid_t pid = fork();
	if (!pid) _exit(starve());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status)) fail_msg("the child ended with %#x", (unsigned)status);
}

/* A read that faults loses what it had allocated (store/guard.h), so these programs are not asked for leaks. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ann_without_memory_it_serves_exactly_and_builds_later),
	    cmocka_unit_test(test_ann_a_full_disk_delays_a_checkpoint),
	    cmocka_unit_test(test_ann_a_broken_disk_delays_a_checkpoint),
	    cmocka_unit_test(test_ann_rows_that_cannot_be_read_fail_a_build_alone),
	    cmocka_unit_test(test_ann_a_store_that_broke_is_searched_on),
	};
	vk_log_set_level(VK_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
