/*
 * BERT's tokenizer: text to token ids, the same as the reference's, id for id.
 *
 *   text -> added tokens ("[SEP]" written out is the special token, as in the reference)
 *        -> clean text, CJK spacing, NFD, accents off, lower case -> words and punctuation
 *        -> per word the longest piece of the vocabulary, then the longest "##" piece, ...
 *
 * It streams: memory does not grow with the text, and it stops at ids_max.
 * Threads: immutable after build; encode works on the stack.
 */
#ifndef VK_EMBED_ENCODER_WORDPIECE_H
#define VK_EMBED_ENCODER_WORDPIECE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

#define VK_WORDPIECE_VOCAB_MAX 1000000u /* pieces; also the largest id + 1 */
#define VK_WORDPIECE_ADDED_MAX 256
#define VK_WORDPIECE_CHARS_MAX 1000 /* bound of max_chars */

struct vk_wordpiece_options {
	bool clean_text;    /* drop controls, formats, private use */
	bool cjk_spacing;   /* ideographs are words */
	bool strip_accents; /* NFD, then drop the marks */
	bool lower_case;
	uint32_t max_chars;    /* longer words are [UNK]; BERT: 100 */
	const char *unk_token; /* "[UNK]" */
	const char *cls_token; /* "[CLS]" */
	const char *sep_token; /* "[SEP]" */
	const char *continuing; /* "##" */
};

/* BERT uncased. */
#define VK_WORDPIECE_DEFAULTS                                                                  \
	((struct vk_wordpiece_options){true, true, true, true, 100, "[UNK]", "[CLS]", "[SEP]", "##"})

struct vk_wordpiece;

/* Building: new, add every piece (a span copied) and added token, then seal. */
struct vk_wordpiece *vk_wordpiece_new(const struct vk_wordpiece_options *o); /* NULL: no memory */
enum vk_status vk_wordpiece_add(struct vk_wordpiece *w, struct vk_bytes piece, uint32_t id,
				struct vk_error *err);
/* Matched in the raw text before anything else. */
enum vk_status vk_wordpiece_add_special(struct vk_wordpiece *w, struct vk_bytes text, uint32_t id,
					struct vk_error *err);
/* Every line of a vocab.txt is a piece, its number the id. */
enum vk_status vk_wordpiece_add_lines(struct vk_wordpiece *w, struct vk_bytes vocab_txt,
				      struct vk_error *err);
/* Checks that [UNK], [CLS] and [SEP] are there. No more adding afterwards. */
enum vk_status vk_wordpiece_seal(struct vk_wordpiece *w, struct vk_error *err);
void vk_wordpiece_free(struct vk_wordpiece *w);

/* Largest id + 1: what the embedding table must have at least. */
uint32_t vk_wordpiece_ids(const struct vk_wordpiece *w);
/* The id of a piece as the vocabulary spells it, or UINT32_MAX. */
uint32_t vk_wordpiece_find(const struct vk_wordpiece *w, struct vk_bytes piece);

/* [CLS] pieces [SEP] into ids[0 .. returned), at most ids_max (at least 2) of them; *truncated
 * when the text had more. The text must be valid UTF-8. */
size_t vk_wordpiece_encode(const struct vk_wordpiece *w, struct vk_bytes text, uint32_t *ids,
			   size_t ids_max, bool *truncated);

#endif
