/*
 * bench_store [DIR]: the cache database beside the least that could be done instead, in one run:
 *   get     one 1536-d row by a random key, in a read of its own
 *   raw get the same bytes (6144) as one plain LMDB value, renewed transaction, copied
 *   put     one row a call, until put() returns (journaled: safe from kill -9)
 *   durable puts until `committed` was called for all, rows a second
 *   write   the same bytes by write(2)
 * Prints one JSON line. Rounds are interleaved; the best of them count.
 */
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/cachedb.h"
#include "store/file.h"

#define DIMS 1536
#define ROWS 20000
#define GETS 100000
#define ROUNDS 3

static void die(const char *what)
{
	fprintf(stderr, "bench_store: %s failed\n", what);
	exit(1);
}

static void key_of(struct vk_cache_key *k, uint64_t n)
{
	uint8_t mac[VK_SHA256_SIZE];
	vk_sha256(&n, sizeof n, mac);
	vk_cache_key_set(k, 1, mac, 1, mac);
}

static struct vk_cache_key *make_keys(void)
{
	struct vk_cache_key *k = malloc(ROWS * sizeof *k);
	if (!k) die("malloc");
	for (uint64_t n = 0; n < ROWS; n++) key_of(&k[n], n);
	return k;
}

struct raw {
	MDB_env *env;
	MDB_dbi dbi;
	MDB_txn *read;
};

static void raw_open(struct raw *r, const char *dir, const struct vk_cache_key *keys,
		     const float *row)
{
	MDB_txn *txn;
	if (mkdir(dir, 0700) || mdb_env_create(&r->env) ||
	    mdb_env_set_mapsize(r->env, (size_t)4 << 30) ||
	    mdb_env_open(r->env, dir, MDB_NOTLS | MDB_NOSYNC | MDB_NORDAHEAD, 0600) ||
	    mdb_txn_begin(r->env, NULL, 0, &txn) || mdb_dbi_open(txn, NULL, 0, &r->dbi))
		die("raw open");
	for (size_t n = 0; n < ROWS; n++) {
		MDB_val k = {sizeof keys[n].b, (void *)keys[n].b}, v = {DIMS * 4, (void *)row};
		if (mdb_put(txn, r->dbi, &k, &v, 0)) die("raw put");
	}
	if (mdb_txn_commit(txn) || mdb_txn_begin(r->env, NULL, MDB_RDONLY, &r->read))
		die("raw commit");
	mdb_txn_reset(r->read);
}

static double raw_gets(struct raw *r, const struct vk_cache_key *keys, float *dst)
{
	uint64_t rng = 7, start_us = vk_mono_us();
	for (int i = 0; i < GETS; i++) {
		const struct vk_cache_key *key = &keys[vk_rng(&rng) % ROWS];
		MDB_val k = {sizeof key->b, (void *)key->b}, v;
		if (mdb_txn_renew(r->read) || mdb_get(r->read, r->dbi, &k, &v)) die("raw get");
		memcpy(dst, v.mv_data, v.mv_size);
		mdb_txn_reset(r->read);
	}
	return GETS * 1e6 / (double)(vk_mono_us() - start_us);
}

static double gets(struct vk_cachedb *db, const struct vk_cache_key *keys, float *dst)
{
	uint64_t rng = 7, start_us = vk_mono_us();
	for (int i = 0; i < GETS; i++) {
		struct vk_cache_read *r;
		struct vk_cache_meta meta;
		if (vk_cachedb_read_begin(db, &r) ||
		    vk_cachedb_get(r, &keys[vk_rng(&rng) % ROWS], DIMS, dst, &meta))
			die("get");
		vk_cachedb_read_end(r);
	}
	return GETS * 1e6 / (double)(vk_mono_us() - start_us);
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

struct puts {
	double durable_per_s; /* rows, until all are committed */
	uint32_t p50_us;      /* one put(), with pauses: a miss that comes alone */
};

static struct puts puts_of(const char *dir, const struct vk_cache_key *keys, const float *row)
{
	struct vk_cachedb *db;
	struct vk_error err;
	static uint32_t us[1000];
	if (vk_cachedb_open(dir, NULL, &db, &err)) die("open");
	struct vk_cache_put put = {.meta = {.dims = DIMS, .norm = 1}, .row = row};
	for (size_t i = 0; i < sizeof us / sizeof *us; i++) {
		struct vk_cache_key other;
		key_of(&other, 1000000 + i);
		put.key = other;
		uint64_t at_us = vk_mono_us();
		if (vk_cachedb_put(db, &put, 1, NULL, NULL)) die("put");
		us[i] = (uint32_t)(vk_mono_us() - at_us);
		usleep(200);
	}
	if (vk_cachedb_flush(db)) die("flush");
	uint64_t start_us = vk_mono_us();
	for (size_t n = 0; n < ROWS; n++) {
		put.key = keys[n];
		if (vk_cachedb_put(db, &put, 1, NULL, NULL)) die("put");
	}
	if (vk_cachedb_flush(db)) die("flush");
	double per_s = ROWS * 1e6 / (double)(vk_mono_us() - start_us);
	vk_cachedb_close(db);
	qsort(us, sizeof us / sizeof *us, sizeof *us, compare_u32);
	return (struct puts){per_s, us[sizeof us / sizeof *us / 2]};
}

static double writes_of(const char *path, const float *row, uint32_t *p50_us)
{
	static uint32_t us[ROWS];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) die("open");
	uint64_t start_us = vk_mono_us();
	for (size_t n = 0; n < ROWS; n++) {
		uint64_t at_us = vk_mono_us();
		if (write(fd, row, DIMS * 4) != DIMS * 4) die("write");
		us[n] = (uint32_t)(vk_mono_us() - at_us);
	}
	double per_s = ROWS * 1e6 / (double)(vk_mono_us() - start_us);
	close(fd);
	unlink(path);
	qsort(us, ROWS, sizeof *us, compare_u32);
	*p50_us = us[ROWS / 2];
	return per_s;
}

static double best(double a, double b) { return a > b ? a : b; }

int main(int argc, char **argv)
{
	char dir[512], path[600];
	static float row[DIMS], dst[DIMS];
	double get = 0, raw_get = 0, durable = 0, written = 0;
	uint32_t put_us = UINT32_MAX, write_us = UINT32_MAX, p50_us;
	struct vk_cachedb *db;
	struct raw raw;
	struct vk_cache_key *keys = make_keys();
	uint64_t rng = 1;
	vk_log_set_level(VK_LOG_ERROR);
	for (int i = 0; i < DIMS; i++) row[i] = (float)(vk_rng(&rng) >> 40) / 8388608.0f - 1.0f;
	snprintf(dir, sizeof dir, "%s/veckeep-bench-XXXXXX", argc > 1 ? argv[1] : "/tmp");
	if (!mkdtemp(dir)) die("mkdtemp");

	for (int i = 0; i < ROUNDS; i++) {
		snprintf(path, sizeof path, "%s/db", dir);
		vk_dir_remove(path);
		struct puts p = puts_of(path, keys, row);
		durable = best(durable, p.durable_per_s);
		if (p.p50_us < put_us) put_us = p.p50_us;
		snprintf(path, sizeof path, "%s/file", dir);
		written = best(written, writes_of(path, row, &p50_us));
		if (p50_us < write_us) write_us = p50_us;
	}
	snprintf(path, sizeof path, "%s/raw", dir);
	raw_open(&raw, path, keys, row);
	snprintf(path, sizeof path, "%s/db", dir);
	if (vk_cachedb_open(path, NULL, &db, NULL)) die("open");
	for (int i = 0; i < ROUNDS; i++) {
		raw_get = best(raw_get, raw_gets(&raw, keys, dst));
		get = best(get, gets(db, keys, dst));
	}
	vk_cachedb_close(db);
	mdb_txn_abort(raw.read);
	mdb_env_close(raw.env);
	printf(
	    "{\"bench\":\"store\",\"dims\":%d,\"rows\":%d,\"get_per_s\":%.0f,\"raw_lmdb_get_per_"
	    "s\":%.0f,"
	    "\"get_ratio\":%.3f,\"put_p50_us\":%u,\"write_p50_us\":%u,\"durable_put_per_s\":%.0f,"
	    "\"write_per_s\":%.0f,\"put_ratio\":%.3f}\n",
	    DIMS, ROWS, get, raw_get, get / raw_get, put_us, write_us, durable, written,
	    durable / written);
	snprintf(path, sizeof path, "%s/db", dir);
	vk_dir_remove(path);
	vk_dir_remove(dir);
	free(keys);
	return 0;
}
