/* What vset.c (one row), vset_write.c (batches), vset_seal.c (sealing, dropping) and vset_scan.c (walks) share. */
#ifndef VK_INDEX_VSET_INTERNAL_H
#define VK_INDEX_VSET_INTERNAL_H

#include "index/tables.h"
#include "index/vset.h"
#include "store/record_vset.h"

/* A block as one transaction sees it. */
struct vk_vset_block {
	struct vk_rec_block rows;
	struct vk_bytes value;
	bool has_dead;
	uint64_t dead[VK_REC_BLOCK_WORDS_MAX]; /* when has_dead; only vk_rec_words(slots) of them are set */
};

struct vk_rec_block_shape vk_vset_shape(const struct vk_set *s, enum vk_rec_block_kind kind, uint32_t block);
/* Floats get codes; whole numbers are as short themselves. */
bool vk_vset_codes(const struct vk_set *s);

struct vk_bytes vk_vset_key(uint8_t key[VK_REC_VSET_KEY], uint32_t set, uint32_t n);
enum vk_status vk_vset_get(struct vk_kv_txn *t, enum vk_table table, uint32_t set, uint32_t n,
			   struct vk_bytes *value);
/* A row as kept, to f32. */
void vk_vset_widen(const struct vk_kernels *k, const struct vk_set *s, const void *p, float *dst);

/* Logs what does not check, once a place, and returns VK_E_CORRUPT. */
enum vk_status vk_vset_damaged(const struct vk_set *s, const char *what, uint32_t n, struct vk_bytes value);

/* VK_E_NOT_FOUND: no such block (and then no dead bits). */
enum vk_status vk_vset_block(struct vk_kv_txn *t, const struct vk_set *s, uint32_t block, struct vk_vset_block *b);
static inline bool vk_bit(const uint64_t *words, uint32_t i) { return words[i / 64] >> (i & 63) & 1; }
/* Does slot first + i count here? */
static inline bool vk_vset_counts_here(const struct vk_vset_block *b, uint32_t i)
{
	return vk_bit(b->rows.present, i) && !(b->has_dead && vk_bit(b->dead, i));
}
/* Bits below i: the rank of a row. */
uint32_t vk_vset_rank(const uint64_t *present, uint32_t i);
uint32_t vk_vset_count_words(const uint64_t *words, uint32_t n);

enum vk_status vk_vset_counts(struct vk_kv_txn *t, uint32_t set, struct vk_rec_vset_counts *c);
enum vk_status vk_vset_counts_put(struct vk_kv_txn *t, uint32_t set, const struct vk_rec_vset_counts *c);

/* A row in the set's dtype, to be written into a block. */
struct vk_vset_stored {
	const void *p;
	float inv_norm;
};

/* One call's writing: counters once, buffers as they are needed. */
struct vk_vset_writer {
	struct vk_kv_txn *t;
	const struct vk_set *s;
	const struct vk_kernels *k;
	uint32_t slots;  /* R */
	size_t row_n;    /* bytes of a row */
	size_t written;  /* bytes so far */
	struct vk_rec_vset_counts counts, was;
	struct vk_vset_stored *stored; /* R */
	uint8_t *pool;                 /* R rows */
	float *wide;                   /* one row as f32 */
	struct vk_vset_block b;
};
/* The writer is big: on the heap. */
enum vk_status vk_vset_writer_begin(struct vk_kv_txn *t, const struct vk_set *s, struct vk_vset_writer **out);
/* Puts the counters when st is good, frees. Returns st, or what putting said. */
enum vk_status vk_vset_writer_end(struct vk_vset_writer *w, enum vk_status st);
/* Makes stored and pool. */
enum vk_status vk_vset_writer_room(struct vk_vset_writer *w);

/* Writes a block and its siblings from w->stored (by rank; not from memory in the tables). */
enum vk_status vk_vset_block_put(struct vk_vset_writer *w, uint32_t block, const uint64_t *present, uint32_t rows);
enum vk_status vk_vset_block_del(struct vk_vset_writer *w, uint32_t block);
/* Puts or deletes (no bit set) a block's dead bits. Not the counters. */
enum vk_status vk_vset_dead_put(struct vk_vset_writer *w, uint32_t block, const uint64_t *dead);
/* Deletes a block's tail rows. Keeps counts.tail_rows and bytes; says how many. */
enum vk_status vk_vset_tail_clear(struct vk_vset_writer *w, uint32_t block, uint32_t *n);

/* Walks (struct vk_vset_walk). */
enum vk_status vk_vset_walk_open(struct vk_vset_walk *w, struct vk_kv_txn *t, enum vk_table table, uint32_t set);
void vk_vset_walk_close(struct vk_vset_walk *w);
/* To the first entry >= n. Past the last number: pass 2^32. */
enum vk_status vk_vset_walk_seek(struct vk_vset_walk *w, uint64_t n);
enum vk_status vk_vset_walk_next(struct vk_vset_walk *w);
/* To the first entry >= n from where the walk stands, by a step if that does it. */
enum vk_status vk_vset_walk_to(struct vk_vset_walk *w, uint64_t n);

#endif
