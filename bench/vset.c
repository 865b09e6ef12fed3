/*
 * bench_vset [DIR]: rows into a vector set, beside the least that could be done instead, in one run:
 *   put     256 rows of 1536 d a commit with full sync, slots in order: blocks and codes at once
 *   single  the same rows, each its own vk_vset_put in one commit of 256: into the tail
 *   seal    what `single` left in the tail into blocks and codes, steps of 8 MiB, each its own commit
 *   write   the bytes that `put` left on disk, appended by write(2) with an fdatasync a batch
 *   cpu_us  microseconds a row in vk_vset_put during `put`, by the clock of the writer's thread: no sync in it
 * Prints one JSON line, rows a second. Rounds are interleaved; the best of them count.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "index/tables.h"
#include "index/vset.h"
#include "store/file.h"
#include "store/kv.h"

#define DIMS 1536
#define BATCH 256
#define BATCHES 60
#define ROWS (BATCH * BATCHES)
#define ROUNDS 3

static const char *const tables[VK_T_COUNT] = VK_TABLE_NAMES;
static const struct vk_set set = {.id = 1, .dims = DIMS, .metric = VK_METRIC_COSINE, .dtype = VK_DTYPE_F32};

struct bench {
	char dir[256];
	struct vk_kv_writers *writers;
	struct vk_kv *kv;
	float *rows; /* BATCH */
	uint32_t first;
	bool single;
	uint64_t cpu_ns;
	uint32_t from;
};

static void die(const char *what)
{
	fprintf(stderr, "bench_vset: %s failed\n", what);
	exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
static uint64_t thread_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

static enum vk_status apply_put(void *arg, struct vk_kv_txn *t)
{
	struct bench *b = arg;
	struct vk_row_in in[BATCH];
	uint64_t start = thread_ns();
	enum vk_status st = VK_OK;
	for (uint32_t i = 0; i < BATCH; i++) in[i] = (struct vk_row_in){.slot = b->first + i, .row = b->rows + (size_t)i * DIMS};
	if (!b->single) st = vk_vset_put(t, &set, in, BATCH);
	for (uint32_t i = 0; b->single && !st && i < BATCH; i++) st = vk_vset_put(t, &set, in + i, 1);
	b->cpu_ns += thread_ns() - start;
	return st;
}

static enum vk_status apply_seal(void *arg, struct vk_kv_txn *t)
{
	struct bench *b = arg;
	return vk_vset_seal_step(t, &set, true, (size_t)8 << 20, &b->from);
}

static void open_fresh(struct bench *b)
{
	struct vk_error err;
	struct vk_kv_opts o = {.map_bytes = (uint64_t)4 << 30, .tables = tables, .tables_n = VK_T_COUNT, .writers = b->writers};
	vk_kv_close(b->kv);
	vk_dir_remove(b->dir);
	if (vk_kv_open(b->dir, &o, &b->kv, &err)) die(err.text);
}

static double rate(uint64_t start_ns) { return ROWS / ((double)(now_ns() - start_ns) / 1e9); }

static double put_all(struct bench *b, bool single)
{
	struct vk_kv_job job = {.apply = apply_put, .arg = b, .bytes = BATCH * DIMS * 5};
	open_fresh(b);
	b->single = single;
	b->cpu_ns = 0;
	uint64_t start = now_ns();
	for (uint32_t i = 0; i < BATCHES; i++) {
		b->first = i * BATCH;
		if (vk_kv_run(b->kv, &job)) die("put");
	}
	return rate(start);
}

static double seal_all(struct bench *b)
{
	struct vk_kv_job job = {.apply = apply_seal, .arg = b, .background = true};
	uint64_t start = now_ns();
	if (vk_kv_run(b->kv, &job)) die("seal");
	return rate(start);
}

static double write_all(struct bench *b, size_t bytes)
{
	char path[300];
	size_t n = bytes / BATCHES;
	char *p = malloc(n);
	for (size_t i = 0; i < n; i++) p[i] = (char)((const char *)b->rows)[i % (BATCH * DIMS * sizeof(float))];
	snprintf(path, sizeof path, "%s.raw", b->dir);
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	if (fd < 0) die("open");
	uint64_t start = now_ns();
	for (int i = 0; i < BATCHES; i++)
		if (write(fd, p, n) != (ssize_t)n || fdatasync(fd)) die("write");
	double r = rate(start);
	close(fd);
	unlink(path);
	free(p);
	return r;
}

static void keep(double *best, double now)
{
	if (now > *best) *best = now;
}

int main(int argc, char **argv)
{
	struct bench b = {0};
	double put = 0, single = 0, seal = 0, raw = 0, cpu = 1e9;
	uint64_t rng = 1;
	vk_log_set_level(VK_LOG_WARN);
	snprintf(b.dir, sizeof b.dir, "%s/vk-bench-vset-%d", argc > 1 ? argv[1] : "/tmp", (int)getpid());
	b.rows = malloc(BATCH * DIMS * sizeof(float));
	if (!b.rows || vk_kv_writers_new(1, &b.writers)) die("start");
	for (size_t i = 0; i < BATCH * DIMS; i++) b.rows[i] = (float)(vk_rng(&rng) >> 40) / 8388608.0f - 1.0f;
	for (int round = 0; round < ROUNDS; round++) {
		struct vk_kv_stats s;
		keep(&put, put_all(&b, false));
		double us = (double)b.cpu_ns / 1e3 / ROWS;
		if (us < cpu) cpu = us;
		vk_kv_stats(b.kv, &s);
		keep(&raw, write_all(&b, (size_t)s.used_bytes));
		keep(&single, put_all(&b, true));
		keep(&seal, seal_all(&b));
	}
	vk_kv_close(b.kv);
	vk_kv_writers_free(b.writers);
	vk_dir_remove(b.dir);
	free(b.rows);
	printf("{\"bench\": \"vset\", \"dims\": %d, \"batch\": %d, \"put\": %.0f, \"single\": %.0f, \"seal\": %.0f, "
	       "\"write\": %.0f, \"put_of_write\": %.2f, \"cpu_us\": %.2f}\n",
	       DIMS, BATCH, put, single, seal, raw, put / raw, cpu);
	return 0;
}
