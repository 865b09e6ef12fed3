/*
 * Goal: whatever was acknowledged is there after kill -9 at any moment, and every batch is there whole or not at
 * all, in one environment and in two that share a writer; background work that was cut off leaves whole steps.
 * Method: a child writes batches with a sequence and reports each acknowledged one over a pipe; the parent kills
 * it after a random time, drains the pipe, opens and compares; the next child goes on in the same directory.
 * VK_CRASH_ROUNDS sets how many kills.
 */
#include "tests/store/util.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "store/kv.h"

#define ENVS 2
#define WRITERS 3	/* threads for each environment, with batches of their own */
#define BATCH_ROWS 7

enum { T_ROW, T_COUNT, T_STEP, T_N };
static const char *const tables[T_N] = {"row", "count", "step"};

struct ack {
	uint32_t env, writer;
	uint64_t sequence;
};

static void row_key(char key[64], unsigned writer, uint64_t sequence, unsigned row)
{
	snprintf(key, 64, "%u/%010llu/%u", writer, (unsigned long long)sequence, row);
}

/* A length that follows from the sequence: small, page-sized and overflowing ones. */
static size_t row_bytes(uint64_t sequence)
{
	static const size_t n[] = {10, 300, 1800, 5000};
	return n[sequence % 4];
}

struct batch {
	unsigned writer;
	uint64_t sequence;
};

static enum vk_status put_batch(void *arg, struct vk_kv_txn *t)
{
	const struct batch *b = arg;
	char key[64];
	void *dst;
	for (unsigned i = 0; i < BATCH_ROWS; i++) {
		row_key(key, b->writer, b->sequence, i);
		enum vk_status st = vk_kv_put_reserve(t, T_ROW, vk_bytes_of(key), row_bytes(b->sequence), &dst);
		if (st) return st;
		memset(dst, (int)(b->sequence & 0xff), row_bytes(b->sequence));
	}
	/* Every fifth batch takes an old one away: freed pages are used again. */
	for (unsigned i = 0; b->sequence % 5 == 4 && i < BATCH_ROWS; i++) {
		row_key(key, b->writer, b->sequence - 3, i);
		enum vk_status st = vk_kv_del(t, T_ROW, vk_bytes_of(key));
		if (st) return st;
	}
	snprintf(key, sizeof key, "%u", b->writer);
	struct vk_bytes now = {(const char *)&b->sequence, sizeof b->sequence};
	return vk_kv_put(t, T_COUNT, vk_bytes_of(key), now);
}

/* The last sequence of a writer; 0: none. */
static uint64_t last_of(struct vk_kv_txn *t, unsigned writer)
{
	char key[8];
	struct vk_bytes v;
	uint64_t n = 0;
	snprintf(key, sizeof key, "%u", writer);
	if (vk_kv_get(t, T_COUNT, vk_bytes_of(key), &v) == VK_OK) memcpy(&n, v.p, sizeof n);
	return n;
}

/* Background: pairs of entries, one pair a step. */
static enum vk_status step(void *arg, struct vk_kv_txn *t)
{
	char key[32];
	uint64_t n = vk_kv_entries(t, T_STEP) / 2;
	(void)arg;
	for (int half = 0; half < 2; half++) {
		snprintf(key, sizeof key, "%010llu/%d", (unsigned long long)n, half);
		enum vk_status st = vk_kv_put(t, T_STEP, vk_bytes_of(key), VK_LIT("half"));
		if (st) return st;
	}
	return VK_E_BUSY;
}

struct child_writer {
	struct vk_kv *kv;
	unsigned env, writer;
	int pipe;
};

static void *child_write(void *arg)
{
	struct child_writer *w = arg;
	struct vk_kv_txn *t;
	if (vk_kv_view_begin(w->kv, &t)) _exit(3);
	uint64_t sequence = last_of(t, w->writer);
	vk_kv_view_end(t);
	for (;;) {
		struct batch b = {w->writer, ++sequence};
		struct vk_kv_job job = {.apply = put_batch, .arg = &b, .bytes = BATCH_ROWS * row_bytes(sequence)};
		if (vk_kv_run(w->kv, &job)) _exit(4);
		struct ack ack = {w->env, w->writer, sequence};
		if (write(w->pipe, &ack, sizeof ack) != sizeof ack) _exit(5);
	}
	return NULL;
}

static struct vk_kv *must_open_kv(const char *dir, unsigned env, struct vk_kv_writers *writers)
{
	char path[512];
	struct vk_error err = {0};
	struct vk_kv_opts o = {.map_bytes = 1 << 20, .tables = tables, .tables_n = T_N, .writers = writers};
	struct vk_kv *kv;
	snprintf(path, sizeof path, "%s/%u", dir, env);
	if (vk_kv_open(path, &o, &kv, &err)) fail_msg("%s", err.text);
	return kv;
}

static void child(const char *dir, int pipe)
{
	static struct child_writer w[ENVS][WRITERS];
	static struct vk_kv_job background[ENVS];
	struct vk_kv_writers *writers;
	pthread_t thread;
	if (vk_kv_writers_new(1, &writers)) _exit(2);
	for (unsigned e = 0; e < ENVS; e++) {
		struct vk_kv *kv = must_open_kv(dir, e, writers);
		background[e] = (struct vk_kv_job){.apply = step, .background = true};
		if (vk_kv_submit(kv, &background[e])) _exit(2);
		for (unsigned i = 0; i < WRITERS; i++) {
			w[e][i] = (struct child_writer){kv, e, i, pipe};
			if (pthread_create(&thread, NULL, child_write, &w[e][i])) _exit(2);
		}
	}
	for (;;) pause();
}

static void check_batch(struct vk_kv_txn *t, unsigned writer, uint64_t sequence, uint64_t last)
{
	/* Taken away by the batch three later, if that was committed. */
	uint64_t by = sequence + 3;
	bool gone = by % 5 == 4 && by <= last;
	for (unsigned i = 0; i < BATCH_ROWS; i++) {
		char key[64];
		struct vk_bytes v;
		row_key(key, writer, sequence, i);
		enum vk_status st = vk_kv_get(t, T_ROW, vk_bytes_of(key), &v);
		if (st != (gone || sequence > last ? VK_E_NOT_FOUND : VK_OK))
			fail_msg("writer %u, batch %llu of %llu, row %u: %s", writer, (unsigned long long)sequence,
				 (unsigned long long)last, i, vk_status_text(st));
		if (st) continue;
		assert_int_equal(v.n, row_bytes(sequence));
		for (size_t b = 0; b < v.n; b++) assert_int_equal((uint8_t)v.p[b], sequence & 0xff);
	}
}

static void check_env(struct vk_kv *kv, const uint64_t acked[WRITERS], const uint64_t from[WRITERS])
{
	struct vk_kv_txn *t;
	struct vk_kv_cursor *c;
	struct vk_bytes k, v;
	assert_int_equal(vk_kv_view_begin(kv, &t), VK_OK);
	for (unsigned w = 0; w < WRITERS; w++) {
		uint64_t last = last_of(t, w);
		if (last < acked[w])
			fail_msg("writer %u: %llu was acknowledged, %llu is there", w, (unsigned long long)acked[w],
				 (unsigned long long)last);
		/* At most the one in flight more. */
		assert_true(last <= acked[w] + 1);
		for (uint64_t s = from[w] > 10 ? from[w] - 10 : 1; s <= last + 2; s++) check_batch(t, w, s, last);
	}
	assert_int_equal(vk_kv_entries(t, T_STEP) % 2, 0);
	/* Nothing but what was written: every row is one of a batch that is there. */
	uint64_t rows = 0, want = 0;
	assert_int_equal(vk_kv_cursor_open(t, T_ROW, &c), VK_OK);
	while (vk_kv_next(c, &k, &v) == VK_OK) rows++;
	for (unsigned w = 0; w < WRITERS; w++) {
		uint64_t last = last_of(t, w);
		want += (last - (last + 1) / 5) * BATCH_ROWS;
	}
	assert_int_equal(rows, want);
	vk_kv_view_end(t);
}

static void test_kv_kill_keeps_what_was_acknowledged(void **state)
{
	(void)state;
	struct temp dir;
	const char *rounds_text = getenv("VK_CRASH_ROUNDS");
	int rounds = rounds_text ? atoi(rounds_text) : 50;
	uint64_t rng = test_seed("kv_crash"), acked[ENVS][WRITERS] = {0}, total = 0;
	temp_make(&dir);
	for (int round = 0; round < rounds; round++) {
		uint64_t from[ENVS][WRITERS];
		struct vk_kv_writers *writers;
		struct ack ack;
		int fds[2];
		memcpy(from, acked, sizeof from);
		assert_int_equal(pipe(fds), 0);
		assert_true(fcntl(fds[0], F_SETPIPE_SZ, 1 << 20) > 0);
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			close(fds[0]);
			child(dir.path, fds[1]);
		}
		close(fds[1]);
		/* From its first word on, so that slow machines write, too; but each fifth dies while it opens. */
		struct pollfd first = {.fd = fds[0], .events = POLLIN};
		if (round % 5) assert_int_equal(poll(&first, 1, 20000), 1);
		usleep((useconds_t)(vk_rng(&rng) % 40000));
		kill(pid, SIGKILL);
		int how;
		assert_int_equal(waitpid(pid, &how, 0), pid);
		assert_true(WIFSIGNALED(how)); /* it did not end by itself */
		while (read(fds[0], &ack, sizeof ack) == sizeof ack) {
			assert_int_equal(ack.sequence, acked[ack.env][ack.writer] + 1);
			acked[ack.env][ack.writer] = ack.sequence;
			total++;
		}
		close(fds[0]);
		assert_int_equal(vk_kv_writers_new(1, &writers), VK_OK);
		for (unsigned e = 0; e < ENVS; e++) {
			struct vk_kv *kv = must_open_kv(dir.path, e, writers);
			struct vk_kv_txn *t;
			check_env(kv, acked[e], from[e]);
			/* A batch that was committed but not told counts from now on. */
			assert_int_equal(vk_kv_view_begin(kv, &t), VK_OK);
			for (unsigned w = 0; w < WRITERS; w++) acked[e][w] = last_of(t, w);
			vk_kv_view_end(t);
			vk_kv_close(kv);
		}
		vk_kv_writers_free(writers);
	}
	print_message("%d kills, %llu batches acknowledged\n", rounds, (unsigned long long)total);
	assert_true(total >= (uint64_t)(rounds - (rounds + 4) / 5)); /* each round that waited has one at least */
	temp_free(&dir);
}

int main(void)
{
	vk_log_set_level(VK_LOG_OFF);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_kv_kill_keeps_what_was_acknowledged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
