/*
 * What a point may carry besides dense rows and payload, on disk: sparse vectors, and the texts that stood in place of
 * vectors. Conventions as in record_point.h; all that a point carries stands side by side, by slot.
 *
 * table   key                         value, version 1
 * extra   slot u32, kind 1, set u32   version u8, n u32, n indices u32 ascending, n values f32, CRC
 * extra   slot u32, kind 2, set u32   version u8, key n u8, key, text (the rest), CRC
 * meta    "drop:s" set u32            nothing, or version u8, slot u64, CRC: extras of lower slots are gone already
 *
 * A text has either itself or a key: then it is the member of the payload that has this name, and is kept there alone.
 */
#ifndef VK_STORE_RECORD_EXTRA_H
#define VK_STORE_RECORD_EXTRA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

enum { VK_EXTRA_SPARSE = 1, VK_EXTRA_TEXT = 2 };

#define VK_REC_EXTRA_KEY_SIZE 9
void vk_rec_extra_key(uint8_t key[VK_REC_EXTRA_KEY_SIZE], uint32_t slot, uint8_t kind, uint32_t set);
/* False for other lengths and kinds. */
bool vk_rec_extra_key_read(struct vk_bytes key, uint32_t *slot, uint8_t *kind, uint32_t *set);

#define VK_REC_SPARSE_MAX ((uint32_t)1 << 20) /* entries of one sparse vector */
struct vk_rec_sparse {
	uint32_t n;
	const uint8_t *index, *value; /* n little-endian words each, unaligned, borrowed */
};
static inline size_t vk_rec_sparse_size(uint32_t n) { return 9 + (size_t)8 * n; }
/* dst: vk_rec_sparse_size(n) bytes. index: ascending, none twice. */
void vk_rec_sparse_encode(uint8_t *dst, uint32_t slot, uint32_t set, const uint32_t *index, const float *value, uint32_t n);
bool vk_rec_sparse_decode(struct vk_rec_sparse *r, uint32_t slot, uint32_t set, struct vk_bytes value);

struct vk_rec_text {
	struct vk_bytes key;  /* n == 0: text it is */
	struct vk_bytes text; /* both borrowed */
};
static inline size_t vk_rec_text_size(const struct vk_rec_text *r) { return 6 + r->key.n + r->text.n; }
/* key.n at most 255. */
void vk_rec_text_encode(uint8_t *dst, uint32_t slot, uint32_t set, const struct vk_rec_text *r);
bool vk_rec_text_decode(struct vk_rec_text *r, uint32_t slot, uint32_t set, struct vk_bytes value);

#define VK_REC_DROP_AT_SIZE 13
void vk_rec_drop_at_encode(uint8_t dst[VK_REC_DROP_AT_SIZE], uint32_t set, uint64_t slot);
bool vk_rec_drop_at_decode(uint32_t set, struct vk_bytes value, uint64_t *slot); /* nothing is slot 0 */

#endif
