/*
 * Every byte that veckeep keeps on disk is laid out here, and nowhere else: layout tables,
 * version bytes, encode and decode side by side. Golden files of each version lie under
 * tests/store/golden/; a release that cannot read an older one's bytes does not ship.
 *
 * All integers are little-endian unless a table says BE (keys are BE: memcmp is their order).
 * Decoders take any bytes: they check lengths and CRC-32C before they believe anything, and
 * what they return points into the caller's bytes. Nothing allocates; any thread.
 *
 * Row head, version 1 (table `index`, value; the key is struct vk_cache_key)
 *   off size
 *     0   2  magic "vr"
 *     2   1  version, 1
 *     3   1  dtype, 0 = f32
 *     4   2  flags (enum vk_cache_flag)
 *     6   1  role
 *     7   1  parts: bit c set = there is a part of class c (c = 0..3)
 *     8   4  dims
 *    12   4  input_len
 *    16   4  tokens
 *    20   8  created_ms
 *    28   4  provider
 *    32   4  norm, f32
 *    36   4  CRC-32C of the row's bytes
 *    40   1  pages: how many whole-page pieces
 *    41   1  provenances
 *    42   2  zero
 *    44   6  id of the first page piece           (only when pages > 0)
 *         6  id of each part, ascending class     (only those that are there)
 *        28  nonce 12, tag 16                     (only with VK_CACHE_ENCRYPTED)
 *        16  each provenance
 *         n  inline: the row's last bytes
 *         4  CRC-32C of key and all of the above
 * The row is: page pieces (table `page`, ids id..id+pages-1), parts (table `part2`, `part4`,
 * `part8`, `part16`), inline, one after the other. Keys of the piece tables: u64 BE.
 *
 * Provenance (table `provenance`): key pool u32 BE, provenance 16; value tag 16, space u32 BE,
 * id 32 (a cache key without its pool).
 *
 * Totals, version 1 (table `totals`, key "totals"): magic "vt", version, zero, row_bytes u64,
 * journal_seq u64 (the last journal entry that this environment holds), CRC-32C u32.
 *
 * Journal segment: head {magic "vkjrnl" 6, version 1, zero 1, salt u64, first seq u64, CRC u32 of
 * the head, zero u32}, then entries {payload length u32, CRC u32 of salt, seq and payload, seq u64,
 * payload}. seq goes up by one. Payload: count u32, then each put: key 56, flags u16, role u8,
 * bits u8 (1 provenance, 2 replace), dims u32, input_len u32, tokens u32, created_ms i64, provider u32, norm f32,
 * [provenance 16], row. A tail that does not check ends the segment.
 *
 * Pool, version 1: magic "vp", version, zero, id u32, created_ms i64, count u32, count secrets
 * of 32 bytes newest first, CRC u32.
 * Canary, version 1: magic "vc", version, verdict u8, when_ms i64, cosine f32, dims u32, n u32,
 * n * dims f32, CRC u32.
 * Usage, version 1: magic "vu", version, zero, 11 counters u64 in struct order, CRC u32.
 * Name: u32.
 */
#ifndef VK_STORE_RECORD_H
#define VK_STORE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "simd/cpu.h"
#include "store/cachedb.h"

#define VK_PROVENANCE_SIZE 16
#define VK_PROVENANCES_MAX 16 /* a row and its Matryoshka cuts; more are not remembered */

/*
 * Where a row's bytes lie. LMDB gives a value of more than half a page whole pages of its own
 * (16 bytes of header), so a plain 1024-d row costs two pages, twice its size. So a row is cut:
 * whole-page pieces of exactly page-16 bytes, parts of which exactly 2, 4, 8 or 16 fill a leaf
 * (one table a class, ascending ids, so that leaves pack), and the rest beside the head.
 * One page a piece, never a run of pages: LMDB's free list then always fits (runs get broken up
 * by the single pages of the trees, and searching for runs is slow). Measured: tests/store/
 * test_space.c.
 */
#define VK_ROW_CLASSES 4
#define VK_ROW_INLINE_MAX 768

struct vk_row_split {
	uint32_t pages;			 /* whole-page pieces; the last may be short */
	uint32_t page_n;		 /* bytes of a full one */
	uint32_t last_page_n;		 /* bytes of the last one */
	uint32_t part_n[VK_ROW_CLASSES]; /* bytes of each part, 0: none */
	uint32_t inline_n;
	uint32_t cost; /* estimate of bytes on disk, head included */
};
/* The cheapest split of a row of row_n bytes with this page size of LMDB's. */
void vk_row_split_choose(struct vk_row_split *s, uint32_t row_n, uint32_t page_size);

struct vk_row_head {
	struct vk_cache_meta meta;
	uint32_t row_crc;
	uint32_t pages;
	uint64_t page_id; /* first; 48 bits */
	bool part_set[VK_ROW_CLASSES];
	uint64_t part_id[VK_ROW_CLASSES]; /* 48 bits */
	uint32_t provenances;
	uint8_t provenance[VK_PROVENANCES_MAX][VK_PROVENANCE_SIZE];
	const uint8_t *inline_p; /* borrowed */
	uint32_t inline_n;
};
#define VK_ROW_HEAD_MAX                                                                            \
	(44 + 6 * (1 + VK_ROW_CLASSES) + 28 + VK_PROVENANCES_MAX * VK_PROVENANCE_SIZE +            \
	 VK_ROW_INLINE_MAX + 4)

size_t vk_row_head_encode(uint8_t dst[VK_ROW_HEAD_MAX], const struct vk_cache_key *key,
			  const struct vk_row_head *h, enum vk_cpu_level cpu);
bool vk_row_head_decode(struct vk_row_head *h, const struct vk_cache_key *key, const void *p,
			size_t n, enum vk_cpu_level cpu);

#define VK_PIECE_KEY_SIZE 8
#define VK_PROVENANCE_KEY_SIZE (4 + VK_PROVENANCE_SIZE)
#define VK_PROVENANCE_VALUE_SIZE (VK_CACHE_KEY_SIZE - 4)
void vk_provenance_key(uint8_t dst[VK_PROVENANCE_KEY_SIZE], uint32_t pool,
		       const uint8_t provenance[VK_PROVENANCE_SIZE]);
void vk_provenance_value(uint8_t dst[VK_PROVENANCE_VALUE_SIZE], const struct vk_cache_key *key);
bool vk_provenance_decode(struct vk_cache_key *key, uint32_t pool, const void *p, size_t n);

struct vk_totals {
	uint64_t row_bytes, journal_seq;
};
#define VK_TOTALS_SIZE 24
void vk_totals_encode(uint8_t dst[VK_TOTALS_SIZE], const struct vk_totals *t,
		      enum vk_cpu_level cpu);
bool vk_totals_decode(struct vk_totals *t, const void *p, size_t n, enum vk_cpu_level cpu);

/* The journal. */
#define VK_SEGMENT_HEAD_SIZE 32
#define VK_ENTRY_HEAD_SIZE 16
#define VK_ENTRY_MAX ((size_t)64 << 20)

struct vk_segment_head {
	uint64_t salt; /* random: bytes of an older segment do not check under it */
	uint64_t first_seq;
};
void vk_segment_head_encode(uint8_t dst[VK_SEGMENT_HEAD_SIZE], const struct vk_segment_head *h,
			    enum vk_cpu_level cpu);
bool vk_segment_head_decode(struct vk_segment_head *h, const void *p, size_t n,
			    enum vk_cpu_level cpu);

/* Bytes of the whole entry; 0 when it would pass VK_ENTRY_MAX. */
size_t vk_entry_size(const struct vk_cache_put *puts, size_t n);
/* Fills all but the head; seal() adds the head once the journal has given the seq. */
void vk_entry_encode(uint8_t *dst, const struct vk_cache_put *puts, size_t n);
uint32_t vk_entry_payload_crc(const uint8_t *entry, size_t entry_n, enum vk_cpu_level cpu);
void vk_entry_seal(uint8_t *entry, size_t entry_n, uint32_t payload_crc, uint64_t salt,
		   uint64_t seq, enum vk_cpu_level cpu);
/* The entry at p: its whole size, or 0 when there is none that checks and has this seq. */
size_t vk_entry_check(const void *p, size_t n, uint64_t salt, uint64_t seq, enum vk_cpu_level cpu);

/* Walks the puts of a checked (or own) entry. row points into the entry, unaligned. */
struct vk_entry_put {
	struct vk_cache_key key;
	struct vk_cache_meta meta;
	const uint8_t *row;	   /* meta.dims * 4 bytes */
	const uint8_t *provenance; /* 16 bytes or NULL */
	bool replace;
};
struct vk_entry_walk {
	const uint8_t *p, *end;
	uint32_t left;
};
bool vk_entry_walk_start(struct vk_entry_walk *w, const uint8_t *entry, size_t entry_n);
bool vk_entry_walk_next(struct vk_entry_walk *w, struct vk_entry_put *put);

/* The catalog's records. Encoders append to a buffer (its `failed` tells). */
#define VK_POOL_SECRET_SIZE 32
#define VK_POOL_SECRETS_MAX 16
struct vk_rec_pool {
	uint32_t id;
	int64_t created_ms;
	uint32_t secrets; /* at least 1; [0] is the newest: written under, all are looked up */
	uint8_t secret[VK_POOL_SECRETS_MAX][VK_POOL_SECRET_SIZE];
};
void vk_rec_pool_encode(struct vk_buf *dst, const struct vk_rec_pool *r);
bool vk_rec_pool_decode(struct vk_rec_pool *r, struct vk_bytes src);

#define VK_CANARY_ROWS_MAX 64
struct vk_rec_canary {
	int64_t when_ms;
	float cosine_min; /* the worst of the rows */
	uint8_t verdict;  /* what it means is embed/'s */
	uint32_t dims, n;
	const uint8_t *rows; /* n * dims f32, borrowed, unaligned: memcpy it out */
};
void vk_rec_canary_encode(struct vk_buf *dst, const struct vk_rec_canary *r);
bool vk_rec_canary_decode(struct vk_rec_canary *r, struct vk_bytes src);

struct vk_rec_usage {
	uint64_t requests, inputs, hits, misses, coalesced;
	uint64_t logical_tokens, billed_tokens, saved_tokens, errors;
	uint64_t billed_micros, saved_micros; /* millionths of the currency's unit */
};
void vk_rec_usage_encode(struct vk_buf *dst, const struct vk_rec_usage *r);
bool vk_rec_usage_decode(struct vk_rec_usage *r, struct vk_bytes src);

#endif
