/* What BERT's text normalisation does with a code point (tables: see make_bert_chars.py). */
#ifndef VK_EMBED_ENCODER_BERT_CHARS_H
#define VK_EMBED_ENCODER_BERT_CHARS_H

#include <stdbool.h>
#include <stdint.h>

bool vk_bert_is_removed(uint32_t cp); /* dropped by "clean text" */
bool vk_bert_is_space(uint32_t cp);   /* ends a word */
bool vk_bert_is_cjk(uint32_t cp);     /* a word of its own, spaces put around it */
bool vk_bert_is_accent(uint32_t cp);  /* dropped after NFD when accents are stripped */
bool vk_bert_is_punct(uint32_t cp);   /* a word of its own */

#endif
