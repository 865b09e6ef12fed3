/*
 * Rows of a vector set on disk: blocks of rows, of their 8-bit codes and of their sign bits; dead bits; rows alone
 * (the tail); a set's counters. Used by index/vset.c.
 *
 * Keys are two big-endian u32. Values are little-endian and read straight from the map, so the machine must be,
 * too. Pages are 4096 bytes here whatever the machine's are: a block's value is k * 4096 - 16 bytes long and LMDB
 * lets it begin 16 bytes into a page, so that what stands 48 + 64 i bytes into it is 64-byte aligned in a view,
 * and hardly a byte is wasted.
 *
 * table  key                value, version 1
 * block  set u32, block u32 a block of kind 1: rows
 * code   set u32, block u32 a block of kind 2: 8-bit codes of the same rows
 * bits   set u32, block u32 a block of kind 3: sign bits of the same rows
 * dead   set u32, block u32 dead bits
 * tail   set u32, slot u32  a row alone
 * meta   "vset:" set u32    counters
 *
 * Block: header, sections padded with zeros to 64 bytes each, zeros up to k * 4096 - 16
 *   off size
 *     0   4  "vkbl"
 *     4   1  version
 *     5   1  kind
 *     6   1  dtype of the rows (enum vk_dtype)
 *     7   1  0
 *     8   4  set
 *    12   4  space that the set was bound to when this was written (0: none); told, never checked: binding
 *            rewrites no rows
 *    16   4  dims
 *    20   4  first slot: a multiple of slots
 *    24   4  slots, a power of two: vk_rec_block_slots()
 *    28   4  rows that are here, 1 to slots
 *    32   4  stride: bytes from one row (code, sign) to the next
 *    36   4  codes, bits: the CRC (offset 40) of the block that they were made of; rows: 0
 *    40   4  CRC-32C of all that follows the header
 *    44   4  CRC-32C of the 44 bytes before
 *    48      rows:  presence bits (u64 words, bit i: slot first + i is here; at least one word); f32 inverse
 *                   norms by rank; rows by rank, stride = bytes of a row
 *            codes: struct vk_code_head (24 bytes) by rank; codes by rank, stride = dims rounded up to 64
 *            bits:  sign bits by rank, stride = bytes of the bits rounded up to 8
 * Rank: how many rows are here in lower slots.
 *
 * Dead bits
 *     0   1  version
 *     1   3  0
 *     4   4  slots
 *     8   4  bits that are set, at least 1
 *    12   4  CRC-32C of key, the 12 bytes before, and the words
 *    16      words as in presence bits
 *
 * Row alone
 *     0   1  version
 *     1   1  dtype
 *     2   2  0
 *     4   4  f32 inverse norm
 *     8   4  CRC-32C of key, the 8 bytes before, and the row
 *    12      the row
 * (It spills into pages of its own where it is longer than about 2 KB: up to twice its size, until it is sealed.)
 *
 * Counters
 *     0   1  version
 *     1   8  rows that count
 *     9   8  rows in the tail
 *    17   8  rows in blocks that are dead
 *    25   8  blocks of rows
 *    33   8  bytes of values in block, code, bits and tail
 *    41   4  CRC-32C of key and the 41 bytes before
 *
 * Decoders take any bytes and say false. Block decoders look at the header (with its check), the size and the
 * presence bits, which is what reads need to stay within the value; vk_rec_block_check() reads all of it.
 */
#ifndef VK_STORE_RECORD_VSET_H
#define VK_STORE_RECORD_VSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "simd/code.h"

#define VK_REC_VSET_DIMS_MAX 65536u
#define VK_REC_BLOCK_MAX ((size_t)256 << 10) /* of a block of rows, unless one row is more */
#define VK_REC_BLOCK_SLOTS_MAX 65536u
#define VK_REC_BLOCK_WORDS_MAX (VK_REC_BLOCK_SLOTS_MAX / 64)
#define VK_REC_BLOCK_HEAD 48

enum vk_rec_block_kind { VK_REC_BLOCK_ROWS = 1, VK_REC_BLOCK_CODES = 2, VK_REC_BLOCK_BITS = 3 };

#define VK_REC_VSET_KEY 8
void vk_rec_vset_key(uint8_t key[VK_REC_VSET_KEY], uint32_t set, uint32_t n);
bool vk_rec_vset_key_read(struct vk_bytes key, uint32_t *set, uint32_t *n);

/* Slots of a block: the most for which a full one stays within VK_REC_BLOCK_MAX. Follows from these two, for good. */
uint32_t vk_rec_block_slots(enum vk_dtype dtype, uint32_t dims);
/* Words of presence or dead bits for so many slots. */
static inline uint32_t vk_rec_words(uint32_t slots) { return slots < 64 ? 1 : slots / 64; }

struct vk_rec_block_shape { /* what a block is expected to be */
	enum vk_rec_block_kind kind;
	enum vk_dtype dtype;
	uint32_t set, space, dims;
	uint32_t block; /* its number */
};
struct vk_rec_block_layout {
	uint32_t present_at; /* rows */
	uint32_t side_at;    /* rows: inverse norms; codes: heads */
	uint32_t data_at, stride;
	size_t size;
};
/* rows: 1 to the block's slots. */
void vk_rec_block_layout(struct vk_rec_block_layout *l, const struct vk_rec_block_shape *shape, uint32_t rows);
/* Writing: layout, clear (zeroes what is padding, before filling), fill the sections, seal: it returns the CRC at
 * offset 40. */
void vk_rec_block_clear(uint8_t *dst, const struct vk_rec_block_layout *l, uint32_t rows);
uint32_t vk_rec_block_seal(uint8_t *dst, const struct vk_rec_block_layout *l, const struct vk_rec_block_shape *shape,
			   uint32_t rows, uint32_t made_of);

struct vk_rec_block { /* borrowed from the value */
	uint32_t first, slots, rows, stride, space;
	uint32_t made_of, crc;
	const uint64_t *present;           /* rows */
	const float *inv_norm;             /* rows */
	const struct vk_code_head *head;   /* codes */
	const uint8_t *data;
};
/* The value must be 8-byte aligned (as spilled values are); else false. */
bool vk_rec_block_decode(struct vk_rec_block *b, const struct vk_rec_block_shape *shape, struct vk_bytes value);
/* After decode: does the CRC check? */
bool vk_rec_block_check(const struct vk_rec_block *b, struct vk_bytes value);

#define VK_REC_DEAD_HEAD 16
#define VK_REC_DEAD_MAX (VK_REC_DEAD_HEAD + VK_REC_BLOCK_WORDS_MAX * 8)
/* words: vk_rec_words(slots). Returns the size. */
size_t vk_rec_dead_encode(uint8_t dst[VK_REC_DEAD_MAX], uint32_t set, uint32_t block, const uint64_t *words,
			  uint32_t slots);
/* Copies the bits into words (the value is not aligned). */
bool vk_rec_dead_decode(uint64_t *words, uint32_t set, uint32_t block, uint32_t slots, struct vk_bytes value);

#define VK_REC_TAIL_HEAD 12
/* The row stands at dst + VK_REC_TAIL_HEAD already. */
void vk_rec_tail_seal(uint8_t *dst, uint32_t set, uint32_t slot, enum vk_dtype dtype, float inv_norm, size_t row_n);
struct vk_rec_tail {
	float inv_norm;
	const uint8_t *row; /* borrowed, perhaps unaligned */
};
bool vk_rec_tail_decode(struct vk_rec_tail *r, enum vk_dtype dtype, size_t row_n, struct vk_bytes value);
/* After decode: does the CRC check? */
bool vk_rec_tail_check(uint32_t set, uint32_t slot, struct vk_bytes value);

struct vk_rec_vset_counts {
	uint64_t rows, tail_rows, dead_rows, blocks, bytes;
};
#define VK_REC_VSET_COUNTS "vset:"
#define VK_REC_VSET_COUNTS_KEY 9
#define VK_REC_VSET_COUNTS_SIZE 45
void vk_rec_vset_counts_key(uint8_t key[VK_REC_VSET_COUNTS_KEY], uint32_t set);
void vk_rec_vset_counts_encode(uint8_t dst[VK_REC_VSET_COUNTS_SIZE], uint32_t set,
			       const struct vk_rec_vset_counts *c);
bool vk_rec_vset_counts_decode(struct vk_rec_vset_counts *c, uint32_t set, struct vk_bytes value);

#endif
