/*
 * Words of a text as Qdrant's default tokenizer has them: runs of letters and numbers, in lower case. For
 * match text, text_any and phrase (unindexed fields: qdrant 1.19.1 and later compare words there, not
 * substrings).
 */
#ifndef VK_INDEX_WORDS_H
#define VK_INDEX_WORDS_H

#include <stdbool.h>

#include "base/arena.h"

struct vk_words { /* a query's words, in its order */
	struct vk_bytes *word;
	size_t n;
};
/* text: valid UTF-8. False: no memory. */
bool vk_words_read(struct vk_arena *a, struct vk_bytes text, struct vk_words *out);

/* No word in the query: false, all three. Nothing allocates. */
bool vk_words_all(const struct vk_words *q, struct vk_bytes text);    /* each of them somewhere */
bool vk_words_any(const struct vk_words *q, struct vk_bytes text);    /* one of them */
bool vk_words_phrase(const struct vk_words *q, struct vk_bytes text); /* one after the other */

#endif
