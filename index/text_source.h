/*
 * Where a point's text is when its payload has it: a string at the path text_from. LlamaIndex keeps
 * a whole node as JSON in the string `_node_content`: then the text is that object's member "text".
 */
#ifndef VK_INDEX_TEXT_SOURCE_H
#define VK_INDEX_TEXT_SOURCE_H

#include "base/json.h"

/* Where applications keep it: LangChain, LlamaIndex, Haystack, and by hand. The first that is found
 * becomes text_from. */
#define VK_TEXT_KEYS 5
extern const char *const vk_text_keys[VK_TEXT_KEYS];

/* False: there is none. The text lives in the payload's document or in the arena. */
bool vk_text_of_payload(const vk_jv *payload, const char *text_from, struct vk_arena *a,
			struct vk_bytes *text);

#endif
