/*
 * Goal: what put() returned for is there after kill -9 at any moment, what was purged stays
 * purged, LMDB opens without repair, and a torn or damaged journal tail costs its own entry only.
 * Method: a child process puts and purges and notes its promises in shared memory; the parent
 * kills it after a random time, opens and compares; many rounds over one directory. Journals cut
 * and flipped at every byte are replayed through the same door. VK_CRASH_ROUNDS sets how many
 * kills.
 */
#include "tests/store/util.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/journal.h"
#include "store/record.h"

#define ROWS_MAX 200000
#define PURGE_EVERY 40

enum promise { NOTHING, PUTTING, PUT, PURGING, PURGED };

struct shared {
	_Atomic uint64_t next;
	_Atomic uint8_t row[ROWS_MAX]; /* enum promise */
	_Atomic bool failed;
};

static uint32_t dims_of(uint64_t n)
{
	static const uint32_t dims[] = {32, 384, 1024, 1536};
	return dims[n % 4];
}

static void purge_row(struct vk_cachedb *db, struct shared *sh, uint64_t n)
{
	struct vk_cache_key key;
	uint8_t tag[1][VK_CACHE_TAG_SIZE];
	struct vk_cachedb_purged out;
	key_of(&key, 1, 1, n);
	memcpy(tag[0], vk_cache_key_tag(&key), VK_CACHE_TAG_SIZE);
	struct vk_cachedb_filter f = {.pool_set = true, .pool = 1, .tags = tag, .tags_n = 1};
	sh->row[n] = PURGING;
	if (vk_cachedb_purge(db, &f, false, &out, NULL) || out.rows != 1) sh->failed = true;
	sh->row[n] = PURGED;
}

static void child(const char *dir, struct shared *sh)
{
	struct vk_cachedb *db;
	if (vk_cachedb_open(dir, NULL, &db, NULL)) {
		sh->failed = true;
		_exit(1);
	}
	while (sh->next < ROWS_MAX) {
		uint64_t n = sh->next;
		sh->row[n] = PUTTING;
		sh->next = n + 1;
		if (put_one(db, 1, 1, n, dims_of(n), NULL, NULL)) sh->failed = true;
		sh->row[n] = PUT;
		if (n % PURGE_EVERY == PURGE_EVERY - 1 && sh->row[n - 20] == PUT)
			purge_row(db, sh, n - 20);
	}
	_exit(0);
}

static void check_rows(const char *dir, struct shared *sh, uint64_t from)
{
	struct vk_cachedb *db = must_open(dir, NULL);
	for (uint64_t n = from; n < sh->next; n++) {
		enum vk_status st = get_one(db, 1, 1, n, dims_of(n));
		assert_true(st == VK_OK || st == VK_E_NOT_FOUND);
		if (sh->row[n] == PUT && st) fail_msg("row %llu was lost", (unsigned long long)n);
		if (sh->row[n] == PURGED && !st)
			fail_msg("row %llu came back", (unsigned long long)n);
	}
	struct vk_cachedb_stats s;
	vk_cachedb_stats(db, &s);
	assert_int_equal(s.corrupt, 0);
	vk_cachedb_close(db);
}

static void test_crash_kill_loses_no_put_and_no_purge(void **state)
{
	(void)state;
	struct temp t;
	const char *rounds_text = getenv("VK_CRASH_ROUNDS");
	int rounds = rounds_text ? atoi(rounds_text) : 120, replayed = 0;
	uint64_t rng = test_seed("crash_kill");
	struct shared *sh =
	    mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(sh, MAP_FAILED);
	temp_make(&t);
	for (int i = 0; i < rounds; i++) {
		uint64_t from = sh->next;
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) child(t.path, sh);
		usleep((useconds_t)(2000 + vk_rng(&rng) % 20000));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		assert_false(sh->failed);
		/* Not every round through the parent: a child must replay, too. */
		if (i % 3 == 2) {
			replayed++;
			check_rows(t.path, sh, from > 500 ? from - 500 : 0);
		}
	}
	check_rows(t.path, sh, 0);
	print_message("%d kills, %d looked at at once, %llu rows\n", rounds, replayed, (unsigned long long)sh->next);
	assert_true(rounds == 0 || sh->next > 100);
	temp_free(&t);
	munmap(sh, sizeof *sh);
}

/* Journals by hand */

#define ENTRIES 3
#define ENTRY_DIMS 9

static size_t make_journal(const char *dir, uint64_t first, size_t ends[ENTRIES])
{
	struct vk_journal j;
	struct vk_error err;
	enum vk_cpu_level cpu = vk_cpu_best();
	assert_int_equal(vk_journal_open(&j, dir, cpu, &err), VK_OK);
	j.next_seq = first;
	for (uint64_t i = 0; i < ENTRIES; i++) {
		float row[ENTRY_DIMS];
		uint64_t seq;
		struct vk_cache_put put = {
		    .meta = meta_of(ENTRY_DIMS, i), .row = row, .has_provenance = i == 1};
		key_of(&put.key, 1, 1, i);
		row_of(row, ENTRY_DIMS, i);
		size_t n = vk_entry_size(&put, 1);
		uint8_t *entry = malloc(n);
		vk_entry_encode(entry, &put, 1);
		assert_int_equal(
		    vk_journal_append(&j, entry, n, vk_entry_payload_crc(entry, n, cpu), &seq),
		    VK_OK);
		assert_int_equal(seq, first + i);
		ends[i] = vk_journal_bytes(&j);
		free(entry);
	}
	vk_journal_close(&j);
	return ends[ENTRIES - 1];
}

static void load(const char *dir, uint8_t *bytes, size_t n)
{
	char path[300];
	snprintf(path, sizeof path, "%s/journal.0", dir);
	int fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, bytes, n), n);
	close(fd);
}

static void store(const char *dir, const uint8_t *bytes, size_t n)
{
	char path[300];
	snprintf(path, sizeof path, "%s/journal.0", dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, bytes, n), n);
	close(fd);
}

struct counted {
	uint64_t entries, first;
};

static enum vk_status on_entry(void *arg, const uint8_t *entry, size_t n, uint64_t seq)
{
	struct counted *c = arg;
	struct vk_entry_walk w;
	struct vk_entry_put put;
	float want[ENTRY_DIMS];
	assert_int_equal(seq, c->first + c->entries);
	assert_true(vk_entry_walk_start(&w, entry, n));
	assert_true(vk_entry_walk_next(&w, &put));
	row_of(want, ENTRY_DIMS, c->entries);
	assert_memory_equal(put.row, want, sizeof want);
	assert_false(vk_entry_walk_next(&w, &put));
	c->entries++;
	return VK_OK;
}

static uint64_t replay_count(const char *dir, uint64_t first)
{
	struct vk_journal j;
	struct vk_error err;
	struct counted c = {.first = first};
	assert_int_equal(vk_journal_open(&j, dir, vk_cpu_best(), &err), VK_OK);
	assert_int_equal(vk_journal_replay(&j, 0, on_entry, &c), VK_OK);
	assert_true(j.next_seq >= (c.entries ? first + c.entries : 1));
	vk_journal_close(&j);
	return c.entries;
}

static void test_journal_cut_or_flipped_anywhere_keeps_what_is_before(void **state)
{
	(void)state;
	struct temp t;
	size_t ends[ENTRIES];
	temp_make(&t);
	size_t n = make_journal(t.path, 77, ends);
	uint8_t *bytes = malloc(n), *copy = malloc(n);
	load(t.path, bytes, n);
	assert_int_equal(replay_count(t.path, 77), ENTRIES);
	for (size_t cut = 0; cut < n; cut++) {
		uint64_t whole = 0;
		for (int i = 0; i < ENTRIES; i++) whole += ends[i] <= cut;
		store(t.path, bytes, cut);
		assert_int_equal(replay_count(t.path, 77), whole);
	}
	for (size_t at = 0; at < n; at++) {
		uint64_t whole = 0;
		for (int i = 0; i < ENTRIES; i++) whole += ends[i] <= at;
		if (at >= 28 && at < VK_SEGMENT_HEAD_SIZE) whole = ENTRIES; /* the head's padding */
		memcpy(copy, bytes, n);
		copy[at] ^= 0x40;
		store(t.path, copy, n);
		assert_int_equal(replay_count(t.path, 77), whole);
	}
	free(copy);
	free(bytes);
	temp_free(&t);
}

static void test_journal_left_behind_is_in_the_cache_after_open(void **state)
{
	(void)state;
	struct temp t;
	size_t ends[ENTRIES];
	temp_make(&t);
	make_journal(t.path, 1, ends);
	struct vk_cachedb *db = must_open(t.path, NULL);
	struct vk_cachedb_stats s;
	vk_cachedb_stats(db, &s);
	assert_int_equal(s.rows, ENTRIES);
	assert_int_equal(s.journal_bytes, 0);
	for (uint64_t i = 0; i < ENTRIES; i++)
		assert_int_equal(get_one(db, 1, 1, i, ENTRY_DIMS), VK_OK);
	vk_cachedb_close(db);

	/* The same entries again, under numbers that the cache has passed: a purge is not undone.
	 */
	db = must_open(t.path, NULL);
	struct vk_cachedb_filter f = {.pool_set = true, .pool = 1};
	struct vk_cachedb_purged out;
	assert_int_equal(vk_cachedb_purge(db, &f, false, &out, NULL), VK_OK);
	assert_int_equal(out.rows, ENTRIES);
	vk_cachedb_close(db);
	make_journal(t.path, 1, ends);
	db = must_open(t.path, NULL);
	vk_cachedb_stats(db, &s);
	assert_int_equal(s.rows, 0);
	vk_cachedb_close(db);
	temp_free(&t);
}

static void test_journal_swaps_segments_and_empties_them(void **state)
{
	(void)state;
	struct temp t;
	temp_make(&t);
	struct vk_cachedb *db = must_open(t.path, NULL);
	uint64_t most = 0;
	for (uint64_t n = 0; n < 3000; n++) {
		assert_int_equal(put_one(db, 1, 1, n, 4096, NULL, NULL), VK_OK);
		struct vk_cachedb_stats s;
		if (n % 100) continue;
		vk_cachedb_stats(db, &s);
		if (s.journal_bytes > most) most = s.journal_bytes;
	}
	assert_int_equal(vk_cachedb_flush(db), VK_OK);
	struct vk_cachedb_stats s;
	vk_cachedb_stats(db, &s);
	print_message("48 MB put, journal at most %llu bytes, %llu at rest\n",
		      (unsigned long long)most, (unsigned long long)s.journal_bytes);
	assert_true(s.journal_bytes < 2 << 20);
	vk_cachedb_close(db);
	temp_free(&t);
}

int main(void)
{
	vk_log_set_level(VK_LOG_ERROR);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_journal_cut_or_flipped_anywhere_keeps_what_is_before),
	    cmocka_unit_test(test_journal_left_behind_is_in_the_cache_after_open),
	    cmocka_unit_test(test_journal_swaps_segments_and_empties_them),
	    cmocka_unit_test(test_crash_kill_loses_no_put_and_no_purge),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
