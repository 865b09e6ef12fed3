/*
 * Sets of slots: CRoaring's door. Plain values on the heap; one owner at a time, readers on many
 * threads once nobody writes. Memory failure makes the bitmap `failed` (contents then mean nothing):
 * look once at the end, as with struct vk_buf.
 */
#ifndef VK_INDEX_BITMAP_H
#define VK_INDEX_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

struct vk_bitmap;

struct vk_bitmap *vk_bitmap_new(void); /* NULL: no memory */
void vk_bitmap_free(struct vk_bitmap *b);
struct vk_bitmap *vk_bitmap_copy(const struct vk_bitmap *b);
bool vk_bitmap_failed(const struct vk_bitmap *b);

void vk_bitmap_add(struct vk_bitmap *b, uint32_t slot);
void vk_bitmap_add_many(struct vk_bitmap *b, const uint32_t *slots, size_t n);
void vk_bitmap_add_range(struct vk_bitmap *b, uint64_t from, uint64_t to); /* [from, to) */
void vk_bitmap_remove(struct vk_bitmap *b, uint32_t slot);
bool vk_bitmap_has(const struct vk_bitmap *b, uint32_t slot);
uint64_t vk_bitmap_count(const struct vk_bitmap *b);
uint64_t vk_bitmap_count_and(const struct vk_bitmap *a, const struct vk_bitmap *b);
bool vk_bitmap_empty(const struct vk_bitmap *b);
void vk_bitmap_and(struct vk_bitmap *a, const struct vk_bitmap *b); /* a &= b, and so on */
void vk_bitmap_or(struct vk_bitmap *a, const struct vk_bitmap *b);
void vk_bitmap_andnot(struct vk_bitmap *a, const struct vk_bitmap *b);

/* Ascending; fn returns false to stop. */
void vk_bitmap_each(const struct vk_bitmap *b, bool (*fn)(void *arg, uint32_t slot), void *arg);
/* Up to n members >= from, ascending, into dst; how many. */
size_t vk_bitmap_take(const struct vk_bitmap *b, uint32_t from, uint32_t *dst, size_t n);
/* Bits of slots [first, first + 64 * words) as words, first a multiple of 64. False: all zero. */
bool vk_bitmap_words(const struct vk_bitmap *b, uint32_t first, uint64_t *words, size_t n);
/* Least and greatest member; false when empty. */
bool vk_bitmap_bounds(const struct vk_bitmap *b, uint32_t *least, uint32_t *greatest);

/* One chunk (64 Ki slots from chunk << 16) as portable bytes, appended; nothing when it has no member. */
void vk_bitmap_encode_chunk(const struct vk_bitmap *b, uint16_t chunk, struct vk_buf *dst);
/* Adds a chunk's members; VK_E_CORRUPT for bytes that do not check. */
enum vk_status vk_bitmap_or_chunk(struct vk_bitmap *b, uint16_t chunk, struct vk_bytes bytes);
/* Straight from the bytes, without a bitmap. How many members, by the head alone (0: no chunk). */
uint32_t vk_bitmap_chunk_count(struct vk_bytes bytes);
/* The members, ascending, into dst[VK_BITMAP_CHUNK_SLOTS]. */
#define VK_BITMAP_CHUNK_SLOTS 65536u
enum vk_status vk_bitmap_chunk_slots(uint16_t chunk, struct vk_bytes bytes, uint32_t *dst, size_t *n);
/* How many of the members are in b. */
enum vk_status vk_bitmap_chunk_count_and(const struct vk_bitmap *b, uint16_t chunk, struct vk_bytes bytes, uint64_t *n);

#endif
