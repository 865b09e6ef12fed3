/*
 * JSON text as spans: walking members and items of text that the strict pass (base/json.h) has accepted,
 * without parsing it into values. For edits that leave the rest of a payload byte for byte. Text that is
 * not JSON after all (a damaged store) ends a walk with `bad`; nothing is read past the end. Any thread,
 * nothing allocates.
 */
#ifndef VK_INDEX_JSON_TEXT_H
#define VK_INDEX_JSON_TEXT_H

#include "base/bytes.h"

struct vk_jt_walk {
	const char *p, *end;
	bool object, first, bad;
};
struct vk_jt_item {
	struct vk_bytes whole; /* from the key's quote, or the value's first byte, to the value's last byte */
	struct vk_bytes key;   /* with its quotes; n == 0 in arrays */
	struct vk_bytes value;
};

/* The value without white space around it. n == 0: broken. */
struct vk_bytes vk_jt_trim(struct vk_bytes text);
/* Starts on an object or array (trimmed); false when text is neither. */
bool vk_jt_open(struct vk_jt_walk *w, struct vk_bytes text);
bool vk_jt_next(struct vk_jt_walk *w, struct vk_jt_item *out);
/* Does the quoted key, unescaped, equal name? */
bool vk_jt_key_is(struct vk_bytes quoted, struct vk_bytes name);

#endif
