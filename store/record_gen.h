/*
 * A generation's pointer on disk: which file is the index of a vector set, and what it stands for.
 *
 * table  key                value, version 1
 * meta   "gen:" set u32     version u8, engine u8, number u32, sequence u64, bytes u64, tag 32, CRC
 * meta   "gnb:" set u32     the same, of one that was saved while it was built
 *
 * The file's name follows from set, number and engine; tag is random and stands in the file, too, so that a file of the same name
 * from another life of the collection is never taken.
 */
#ifndef VK_STORE_RECORD_GEN_H
#define VK_STORE_RECORD_GEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

#define VK_REC_GEN_PREFIX "gen:"
#define VK_REC_GEN_BUILDING_PREFIX "gnb:"
#define VK_REC_GEN_KEY_SIZE 8
#define VK_REC_GEN_TAG 32
#define VK_REC_GEN_SIZE (1 + 1 + 4 + 8 + 8 + VK_REC_GEN_TAG + 4)

struct vk_rec_gen {
	uint8_t engine;
	uint32_t number;
	uint64_t sequence, bytes;
	uint8_t tag[VK_REC_GEN_TAG];
};
void vk_rec_gen_key(uint8_t key[VK_REC_GEN_KEY_SIZE], uint32_t set, bool building);
bool vk_rec_gen_key_read(struct vk_bytes key, uint32_t *set, bool *building);
/* key: the record's, which the CRC covers. */
void vk_rec_gen_encode(uint8_t dst[VK_REC_GEN_SIZE], struct vk_bytes key, const struct vk_rec_gen *r);
bool vk_rec_gen_decode(struct vk_rec_gen *r, struct vk_bytes key, struct vk_bytes value);

#endif
