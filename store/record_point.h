/*
 * Points of a collection on disk: heads, changes, state, cursors, the free list, background work. Everything
 * here is small; rows are in record_vset.h, payload indexes in record_field.h.
 *
 * Integers in keys are big-endian, in values little-endian. Every value begins with its version, 1, and
 * ends with the CRC-32C of its key and of what stands before: so a record under another key does not check.
 * Decoders take any bytes and say false.
 *
 * table   key                     value, version 1
 * id      id key                  version u8, slot u32, CRC
 * point   slot u32                version u8, sequence u64, id key (the rest), CRC
 * payload slot u32                the client's JSON text, as it came: no version, no CRC (index/ parses it strictly)
 * change  sequence u64            version u8, op u8, slot u32, mask u64, id key (the rest), CRC
 * free    sequence u64, slot u32  nothing
 * meta    "state"                 version u8, next_slot u64, sequence u64, points u64, config_epoch u64, CRC
 * meta    "config"                the JSON text
 * meta    "cursor:" name          version u8, sequence u64, expires_ms i64, CRC
 * meta    "drop:s" set u32        nothing: a vector set whose rows are being deleted (record_extra.h may put a place there)
 * meta    "drop:f" field u16      nothing: a payload index that is being deleted
 * meta    "build:" field u16      version u8, next slot u64, CRC: a payload index that is being built
 *
 * The mask of a change: bit 0 payload, bit 1 + (set id mod 63) each vector set. Two sets may share a bit
 * when a collection has had more than 63: then a change is told of too many, never of too few.
 */
#ifndef VK_STORE_RECORD_POINT_H
#define VK_STORE_RECORD_POINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

#define VK_REC_ID_KEY_MAX 481 /* index/id.h's VK_ID_KEY_MAX */
#define VK_REC_CURSOR_NAME_MAX 200

#define VK_REC_SLOT_SIZE 9
void vk_rec_slot_key(uint8_t key[4], uint32_t slot);
bool vk_rec_slot_key_read(struct vk_bytes key, uint32_t *slot);
void vk_rec_slot_encode(uint8_t dst[VK_REC_SLOT_SIZE], struct vk_bytes id, uint32_t slot);
bool vk_rec_slot_decode(struct vk_bytes id, struct vk_bytes value, uint32_t *slot);

struct vk_rec_point {
	uint64_t sequence;
	struct vk_bytes id; /* borrowed */
};
#define VK_REC_POINT_MAX (13 + VK_REC_ID_KEY_MAX)
size_t vk_rec_point_encode(uint8_t dst[VK_REC_POINT_MAX], uint32_t slot, const struct vk_rec_point *r);
bool vk_rec_point_decode(struct vk_rec_point *r, uint32_t slot, struct vk_bytes value);

enum { VK_CHANGE_WRITTEN = 1, VK_CHANGE_DELETED = 2 };
struct vk_rec_change {
	uint8_t op;
	uint32_t slot;
	uint64_t mask;
	struct vk_bytes id; /* borrowed */
};
#define VK_REC_CHANGE_MAX (18 + VK_REC_ID_KEY_MAX)
#define VK_REC_MASK_PAYLOAD ((uint64_t)1)
static inline uint64_t vk_rec_mask_set(uint32_t set) { return (uint64_t)1 << (1 + set % 63); }
void vk_rec_sequence_key(uint8_t key[8], uint64_t sequence);
bool vk_rec_sequence_key_read(struct vk_bytes key, uint64_t *sequence);
size_t vk_rec_change_encode(uint8_t dst[VK_REC_CHANGE_MAX], uint64_t sequence, const struct vk_rec_change *r);
bool vk_rec_change_decode(struct vk_rec_change *r, uint64_t sequence, struct vk_bytes value);

void vk_rec_free_key(uint8_t key[12], uint64_t sequence, uint32_t slot);
bool vk_rec_free_key_read(struct vk_bytes key, uint64_t *sequence, uint32_t *slot);

#define VK_REC_STATE_KEY "state"
#define VK_REC_CONFIG_KEY "config"
struct vk_rec_state {
	uint64_t next_slot;    /* the least slot that was never given; up to 2^32 */
	uint64_t sequence;     /* of the last change */
	uint64_t points;       /* that are there */
	uint64_t config_epoch; /* goes up with each config */
};
#define VK_REC_STATE_SIZE 37
void vk_rec_state_encode(uint8_t dst[VK_REC_STATE_SIZE], const struct vk_rec_state *r);
bool vk_rec_state_decode(struct vk_rec_state *r, struct vk_bytes value);

#define VK_REC_CURSOR_PREFIX "cursor:"
struct vk_rec_cursor {
	uint64_t sequence;
	int64_t expires_ms;
};
#define VK_REC_CURSOR_SIZE 21
void vk_rec_cursor_encode(uint8_t dst[VK_REC_CURSOR_SIZE], struct vk_bytes key, const struct vk_rec_cursor *r);
bool vk_rec_cursor_decode(struct vk_rec_cursor *r, struct vk_bytes key, struct vk_bytes value);

/* Background work. */
#define VK_REC_DROP_SET "drop:s"
#define VK_REC_DROP_FIELD "drop:f"
#define VK_REC_BUILD "build:"
void vk_rec_drop_set_key(uint8_t key[10], uint32_t set);
void vk_rec_drop_field_key(uint8_t key[8], uint16_t field);
/* The number at the key's end; false when the key has not this prefix and width. */
bool vk_rec_drop_set_read(struct vk_bytes key, uint32_t *set);
bool vk_rec_drop_field_read(struct vk_bytes key, uint16_t *field);
void vk_rec_build_key(uint8_t key[8], uint16_t field);
#define VK_REC_BUILD_SIZE 13
void vk_rec_build_encode(uint8_t dst[VK_REC_BUILD_SIZE], uint16_t field, uint64_t next_slot);
bool vk_rec_build_decode(uint16_t field, struct vk_bytes value, uint64_t *next_slot);

#endif
