/*
 * The cache's environment on disk: rows by key, with a byte budget and provenance.
 *
 * Key (56 bytes): pool u32 BE | tag 16 | space u32 BE | id 32. All spaces and roles of one text
 * are neighbours, so erasing a text and explaining a miss are one seek (docs/cache-key.md).
 *
 * Writing. put() appends the rows to a journal file (one write(2), about 15 us) and hands them
 * to the one writer thread, which commits what has gathered (for 25 ms at most) as one LMDB transaction. A row is
 * safe from kill -9 when put() returns, and from a power cut when `committed` is called. A
 * commit alone costs 220 us here (NOMETASYNC still flushes the data), more than a whole miss
 * may cost; the journal takes it out of the reply's way. open() replays what a crash left.
 *
 * First write wins: a key that is there is not written again (committed is still called OK), unless
 * the put says `replace`.
 * Full map or disk: the put fails with VK_E_NO_SPACE, nothing else stops.
 * A record that does not check (CRC, dims, lengths) is VK_E_NOT_FOUND and counted in stats.
 *
 * Threads: get/scan on any thread with a reader of its own (pooled, renewed); put, purge on
 * any thread; callbacks run on the writer thread and must be short and must not call put.
 */
#ifndef VK_STORE_CACHEDB_H
#define VK_STORE_CACHEDB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

#define VK_CACHE_KEY_SIZE 56
#define VK_CACHE_TAG_SIZE 16
#define VK_CACHE_ID_SIZE 32
#define VK_DIMS_MAX 65536

struct vk_cache_key {
	uint8_t b[VK_CACHE_KEY_SIZE];
};

/* Fills the key's parts; the accessors read them back. */
void vk_cache_key_set(struct vk_cache_key *k, uint32_t pool, const uint8_t tag[VK_CACHE_TAG_SIZE],
		      uint32_t space, const uint8_t id[VK_CACHE_ID_SIZE]);
uint32_t vk_cache_key_pool(const struct vk_cache_key *k);
uint32_t vk_cache_key_space(const struct vk_cache_key *k);
static inline const uint8_t *vk_cache_key_tag(const struct vk_cache_key *k)
{
	return k->b + 4;
}
static inline const uint8_t *vk_cache_key_id(const struct vk_cache_key *k)
{
	return k->b + 24;
}

enum vk_cache_flag {
	VK_CACHE_DERIVED = 1,         /* row was derived from another (never stored today) */
	VK_CACHE_MAYBE_TRUNCATED = 2, /* the provider's token count sits at its limit */
	VK_CACHE_EST_TOKENS = 4,      /* tokens is this row's share of a batch's count */
	VK_CACHE_IMPORTED = 8,
	VK_CACHE_ENCRYPTED = 16       /* reserved */
};

struct vk_cache_meta {
	uint16_t flags;
	uint8_t role;       /* numeric role, for `why`; what it means is embed/'s */
	uint32_t dims;
	uint32_t input_len; /* bytes of the input that was keyed */
	uint32_t tokens;    /* as the provider counted, or its share */
	int64_t created_ms; /* wall clock */
	uint32_t provider;  /* interned name, see catalog */
	float norm;
};

struct vk_cachedb_opts {
	uint64_t map_bytes;    /* 0: 64 GiB, halved until it opens */
	uint64_t budget_bytes; /* 0: no limit; else file bytes in use that eviction keeps below */
	bool read_only;        /* for the command line beside a running server: no writer, no replay */
};

struct vk_cachedb;
struct vk_cache_read; /* one read transaction; keep it short, never across an upstream call */

/* dir is created (0700) when missing. Refuses network file systems (VK_E_INVALID). */
enum vk_status vk_cachedb_open(const char *dir, const struct vk_cachedb_opts *opts,
			       struct vk_cachedb **out, struct vk_error *err);
/* Commits what is queued, then closes. All readers must have ended. */
void vk_cachedb_close(struct vk_cachedb *db);

enum vk_status vk_cachedb_read_begin(struct vk_cachedb *db, struct vk_cache_read **r);
void vk_cachedb_read_end(struct vk_cache_read *r);

/* Copies the row into dst[0..dims) and fills meta. VK_E_NOT_FOUND: no such key, a record that
 * does not check, or one of other dims. Marks the row as lately used. */
enum vk_status vk_cachedb_get(struct vk_cache_read *r, const struct vk_cache_key *key, size_t dims,
			      float *dst, struct vk_cache_meta *meta);

/* Calls fn for each row whose key starts with prefix, in key order, without reading the row;
 * fn returns false to stop. */
typedef bool vk_cachedb_scan_fn(void *arg, const struct vk_cache_key *key,
				const struct vk_cache_meta *meta);
enum vk_status vk_cachedb_scan(struct vk_cache_read *r, const void *prefix, size_t prefix_n,
			       vk_cachedb_scan_fn *fn, void *arg);

/* What one put stores. row and meta are copied before put returns. */
struct vk_cache_put {
	struct vk_cache_key key;
	struct vk_cache_meta meta;
	const float *row;    /* meta.dims components */
	bool replace;        /* an older row of the key has outlived its TTL: overwrite it */
	bool has_provenance; /* write provenance[] -> key as well */
	uint8_t provenance[16];
};

/* Journals and queues n rows (n >= 1) as one unit. committed(arg, st) is called once when the
 * writer has them in LMDB (VK_OK), or gave up (VK_E_NO_SPACE, VK_E_IO); it may be NULL. When
 * put itself fails, committed is not called. Blocks only while more than 64 MiB are queued. */
typedef void vk_cachedb_done_fn(void *arg, enum vk_status st);
enum vk_status vk_cachedb_put(struct vk_cachedb *db, const struct vk_cache_put *puts, size_t n,
			      vk_cachedb_done_fn *committed, void *arg);

/* Remembers where a served row came from (a derived one has no record of its own). No
 * journal: losing one costs a recognition, not a vector. It lives and goes with the row under key:
 * a key that holds no row is not remembered, nor more than 16 provenances of one row. */
void vk_cachedb_put_provenance(struct vk_cachedb *db, uint32_t pool, const uint8_t provenance[16],
			       const struct vk_cache_key *key);
enum vk_status vk_cachedb_get_provenance(struct vk_cache_read *r, uint32_t pool,
					 const uint8_t provenance[16], struct vk_cache_key *key);

/* What purge deletes: rows that match every given part. At least one of tags, space_set,
 * pool_set, older_than_ms must be given (VK_E_INVALID). */
struct vk_cachedb_filter {
	bool pool_set, space_set;
	uint32_t pool, space;
	const uint8_t (*tags)[VK_CACHE_TAG_SIZE]; /* wants pool_set */
	size_t tags_n;
	int64_t older_than_ms; /* 0: any age; else created before this wall time */
};
struct vk_cachedb_purged {
	uint64_t rows, bytes;
};
/* Runs on the writer thread after everything queued before it; returns when committed. Also
 * deletes the provenance of what it deletes. dry_run only counts. */
enum vk_status vk_cachedb_purge(struct vk_cachedb *db, const struct vk_cachedb_filter *f,
				bool dry_run, struct vk_cachedb_purged *out, struct vk_error *err);

/* Waits until everything put so far is committed and synced to disk. */
enum vk_status vk_cachedb_flush(struct vk_cachedb *db);

struct vk_cachedb_stats {
	uint64_t rows, row_bytes;       /* records held; bytes of their vectors */
	uint64_t used_bytes, map_bytes; /* pages in use, map size */
	uint64_t free_bytes;            /* pages free inside the file */
	uint64_t budget_bytes;
	uint64_t puts, commits, evicted, corrupt, dropped; /* counters since open */
	uint64_t queued_bytes, journal_bytes;
	uint64_t oldest_reader_lag_txns;
	bool full; /* map or disk full: caching stopped until there is room */
};
void vk_cachedb_stats(struct vk_cachedb *db, struct vk_cachedb_stats *out);

#endif
