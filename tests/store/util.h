/* What the store tests share: a directory of their own, rows and keys that follow from a number. */
#ifndef VK_TESTS_STORE_UTIL_H
#define VK_TESTS_STORE_UTIL_H

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/log.h"
#include "store/cachedb.h"
#include "store/file.h"

/* A new directory under TMPDIR (or /tmp); temp_free deletes it with what is in it. */
struct temp {
	char path[256];
};

static inline void temp_make(struct temp *t)
{
	const char *base = getenv("TMPDIR");
	snprintf(t->path, sizeof t->path, "%s/veckeep-test-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(t->path));
}

static inline void temp_free(struct temp *t) { vk_dir_remove(t->path); }

/* VK_TEST_SEED replays a run; otherwise a fixed seed. Printed either way. */
static inline uint64_t test_seed(const char *name)
{
	const char *s = getenv("VK_TEST_SEED");
	uint64_t seed = s ? strtoull(s, NULL, 0) : 20261122;
	print_message("%s: VK_TEST_SEED=%llu\n", name, (unsigned long long)seed);
	return seed;
}

/* Key number n of a pool: tag and id look like MACs, as real ones do. */
static inline void key_of(struct vk_cache_key *k, uint32_t pool, uint32_t space, uint64_t n)
{
	uint8_t mac[VK_SHA256_SIZE], id[VK_SHA256_SIZE];
	uint64_t of_id[2] = {n, space};
	vk_sha256(&n, sizeof n, mac);
	vk_sha256(of_id, sizeof of_id, id);
	vk_cache_key_set(k, pool, mac, space, id);
}

/* Row number n: finite, follows from n. */
static inline void row_of(float *row, uint32_t dims, uint64_t n)
{
	uint64_t state = n * 0x9e3779b97f4a7c15u + dims;
	for (uint32_t i = 0; i < dims; i++)
		row[i] = (float)(vk_rng(&state) >> 40) / 8388608.0f - 1.0f;
}

static inline struct vk_cache_meta meta_of(uint32_t dims, uint64_t n)
{
	return (struct vk_cache_meta){
	    .flags = n % 3 ? 0 : VK_CACHE_EST_TOKENS,
	    .role = (uint8_t)(n % 5),
	    .dims = dims,
	    .input_len = (uint32_t)(n * 7),
	    .tokens = (uint32_t)(n * 3),
	    .created_ms = (int64_t)(1000 + n),
	    .provider = (uint32_t)(n % 11),
	    .norm = (float)n,
	};
}

/* Field by field: the struct has padding. */
static inline void same_meta(const struct vk_cache_meta *a, const struct vk_cache_meta *b)
{
	assert_int_equal(a->flags, b->flags);
	assert_int_equal(a->role, b->role);
	assert_int_equal(a->dims, b->dims);
	assert_int_equal(a->input_len, b->input_len);
	assert_int_equal(a->tokens, b->tokens);
	assert_int_equal(a->created_ms, b->created_ms);
	assert_int_equal(a->provider, b->provider);
	assert_memory_equal(&a->norm, &b->norm, sizeof a->norm);
}

static inline struct vk_cachedb *must_open(const char *dir, const struct vk_cachedb_opts *opts)
{
	struct vk_cachedb *db;
	struct vk_error err;
	if (vk_cachedb_open(dir, opts, &db, &err)) fail_msg("open %s: %s", dir, err.text);
	return db;
}

/* Puts row n under key n; what put said. */
static inline enum vk_status put_one(struct vk_cachedb *db, uint32_t pool, uint32_t space,
				     uint64_t n, uint32_t dims, vk_cachedb_done_fn *fn, void *arg)
{
	float *row = malloc(dims * sizeof *row);
	struct vk_cache_put put = {.meta = meta_of(dims, n), .row = row};
	key_of(&put.key, pool, space, n);
	row_of(row, dims, n);
	enum vk_status st = vk_cachedb_put(db, &put, 1, fn, arg);
	free(row);
	return st;
}

/* Is row n there, and is it row n to the last bit? Another answer fails the test. */
static inline enum vk_status get_one(struct vk_cachedb *db, uint32_t pool, uint32_t space,
				     uint64_t n, uint32_t dims)
{
	struct vk_cache_read *r;
	struct vk_cache_key key;
	struct vk_cache_meta meta, want_meta = meta_of(dims, n);
	float *got = malloc(dims * sizeof *got), *want = malloc(dims * sizeof *want);
	key_of(&key, pool, space, n);
	row_of(want, dims, n);
	assert_int_equal(vk_cachedb_read_begin(db, &r), VK_OK);
	enum vk_status st = vk_cachedb_get(r, &key, dims, got, &meta);
	vk_cachedb_read_end(r);
	if (!st) {
		assert_memory_equal(got, want, dims * sizeof *got);
		same_meta(&meta, &want_meta);
	}
	free(got);
	free(want);
	return st;
}

#endif
