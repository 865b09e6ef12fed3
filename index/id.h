/*
 * Point ids. A key is a type byte and bytes, in scroll order and tie order: 1 + u64 big-endian,
 * 2 + 16 bytes of a UUID, 3 + 1 to 480 bytes of UTF-8 (our extension). A string that is a UUID in any of its four
 * written forms (plain 32 digits, hyphenated, urn:uuid:, braces) is that UUID; it is shown hyphenated in lower case.
 */
#ifndef VK_INDEX_ID_H
#define VK_INDEX_ID_H

#include "base/json.h"

#define VK_ID_TEXT_MAX 480
#define VK_ID_KEY_MAX (1 + VK_ID_TEXT_MAX)

/* The key, in the arena. VK_E_INVALID in Qdrant's manner for anything that is no id. */
enum vk_status vk_id_read(struct vk_arena *a, const vk_jv *v, struct vk_bytes *key, struct vk_error *err);
/* From a URL segment: digits are a u64, else as a string. */
enum vk_status vk_id_from_text(struct vk_arena *a, struct vk_bytes text, struct vk_bytes *key, struct vk_error *err);
void vk_id_u64(uint8_t dst[9], uint64_t id);
void vk_id_write(struct vk_jw *w, struct vk_bytes key);
bool vk_id_valid(struct vk_bytes key); /* is it a key at all? */
int vk_id_compare(struct vk_bytes a, struct vk_bytes b);
bool vk_uuid_parse(struct vk_bytes text, uint8_t out[16]);
void vk_uuid_print(char dst[37], const uint8_t uuid[16]);

#endif
