/*
 * Rows of one vector set in LMDB, read straight from the map (DESIGN section 4).
 *
 * Slot s has its home in block s / R (R a power of two, vk_vset_rows(), the block at most 256 KiB unless one row
 * is more). A row written alone goes to the tail, and its place in the block, if it has one there, is marked
 * dead; sealing moves tail rows home and rewrites blocks that are more than a quarter dead. A batch that fills whole
 * blocks is written as blocks at once. So for every slot at most one row counts: the tail's, else the block's
 * that is present and not dead. Each block has a sibling with 8-bit codes (f32 and f16, dims >= VK_CODE_DIMS_MIN)
 * and, with binary quantisation, one with sign bits; blocks written before that was asked for get theirs by a seal.
 *
 * Rows are kept as they came, in the set's dtype, with the f32 inverse norm of what is kept; under cosine the API's view
 * is the unit vector. Borrowed pointers live as long as the view (or until the next put in a write transaction).
 * A block whose CRC or head does not check is VK_E_CORRUPT and named in the log once; the CRC is checked
 * by scrubbing and sealing, the head's shape at every read.
 */
#ifndef VK_INDEX_VSET_H
#define VK_INDEX_VSET_H

#include "base/arena.h"
#include "index/bitmap.h"
#include "index/config.h"
#include "simd/code.h"
#include "store/kv.h"

#define VK_BLOCK_BYTES_MAX ((size_t)256 << 10)
#define VK_CODE_DIMS_MIN 64

uint32_t vk_vset_rows(const struct vk_set *s); /* R: slots a block */

/* --- writing, inside a job's apply() --- */
struct vk_row_in {
	uint32_t slot;
	const float *row; /* dims finite components */
};
/* Stores n rows (slots ascending, each once). f16 keeps what overflows as the greatest number, not as infinity. */
enum vk_status vk_vset_put(struct vk_kv_txn *t, const struct vk_set *s, const struct vk_row_in *rows, size_t n);
/* VK_E_NOT_FOUND: the slot had no row. */
enum vk_status vk_vset_del(struct vk_kv_txn *t, const struct vk_set *s, uint32_t slot);
/* One step of sealing and compaction, about budget bytes written. *from is the block to look at first (0 to
 * start). all: seal whatever the tail holds; else only blocks worth it (a quarter of their rows in the tail, or
 * dead). VK_E_BUSY: more to do, call again in a new transaction; VK_OK: nothing left, *from is 0 again. Damage is
 * logged and passed over. */
enum vk_status vk_vset_seal_step(struct vk_kv_txn *t, const struct vk_set *s, bool all, size_t budget,
				 uint32_t *from);
/* Deletes the set's rows step by step; VK_E_BUSY: more. */
enum vk_status vk_vset_drop_step(struct vk_kv_txn *t, uint32_t set_id, size_t budget);

/* --- reading --- */
struct vk_row {
	const void *p;    /* in the set's dtype, perhaps unaligned */
	float inv_norm;
};
enum vk_status vk_vset_row(struct vk_kv_txn *t, const struct vk_set *s, uint32_t slot, struct vk_row *out);
/* A cursor's walk over one set's entries of one table. */
struct vk_vset_walk {
	struct vk_kv_cursor *c;
	uint32_t set;
	uint32_t n;  /* block or slot */
	struct vk_bytes value;
	bool end;    /* n and value mean nothing */
};
/* Rows of ascending slots out of one view: walks of the tail and the dead bits go along, so that most rows cost one look-up instead of
 * three. A slot below an earlier one's is VK_E_INVALID. End it, whatever begin said. */
struct vk_vset_ascent {
	struct vk_kv_txn *t;
	const struct vk_set *s;
	uint32_t slot; /* the least that may be asked for */
	struct vk_vset_walk tail, dead;
};
enum vk_status vk_vset_ascend_begin(struct vk_vset_ascent *a, struct vk_kv_txn *t, const struct vk_set *s, uint32_t from);
enum vk_status vk_vset_ascend(struct vk_vset_ascent *a, uint32_t slot, struct vk_row *out);
void vk_vset_ascend_end(struct vk_vset_ascent *a);
bool vk_vset_has(struct vk_kv_txn *t, const struct vk_set *s, uint32_t slot);
/* Widened to f32; unit: times the inverse norm (what the API shows under cosine). */
void vk_row_f32(const struct vk_set *s, const struct vk_row *r, bool unit, float *dst);

/* A block as scans see it. Rows are packed by rank: the row of slot first + i, when bit i of present is set, is row
 * number popcount(present below i). */
struct vk_part {
	uint32_t first, slots, rows; /* slots: R */
	const uint64_t *present;     /* slots / 64 words, at least one */
	const uint64_t *dead;        /* the same shape, or NULL */
	const uint8_t *row;
	uint32_t stride;
	const float *inv_norm;       /* by rank */
	const struct vk_code_head *code_head; /* by rank; NULL: no codes */
	const uint8_t *code;
	uint32_t code_stride;
	const uint8_t *bits;         /* by rank; NULL: none */
	uint32_t bits_stride;
};
struct vk_tail_row {
	uint32_t slot;
	float inv_norm;
	const void *row;
};
struct vk_parts {
	struct vk_part *part; /* ascending first */
	size_t part_n;
	struct vk_tail_row *tail; /* ascending slot */
	size_t tail_n;
	uint64_t rows; /* that count, in all of them (want not applied) */
};
/* Everything a scan needs, found by one walk on this thread; the pointers may then be read by many threads while
 * the view lives. want (NULL: all) leaves out blocks and tail rows without a wanted slot. Memory: the arena. */
enum vk_status vk_vset_parts(struct vk_kv_txn *t, const struct vk_set *s, const struct vk_bitmap *want,
			     struct vk_arena *a, struct vk_parts *out);

struct vk_vset_stats {
	uint64_t rows, tail_rows, dead_rows, blocks, bytes;
};
enum vk_status vk_vset_stats(struct vk_kv_txn *t, const struct vk_set *s, struct vk_vset_stats *out);
/* The slots that have a row. */
enum vk_status vk_vset_slots(struct vk_kv_txn *t, const struct vk_set *s, struct vk_bitmap *into);
/* Checks the CRCs of blocks from *block on, about budget bytes; VK_E_BUSY: more; VK_E_CORRUPT names it in err, and
 * *block is behind it. */
enum vk_status vk_vset_scrub_step(struct vk_kv_txn *t, const struct vk_set *s, size_t budget, uint32_t *block,
				  struct vk_error *err);

#endif
