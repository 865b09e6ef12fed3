/*
 * The built-in encoder: text to vector on this machine's CPU, by the open weights of a
 * BERT-family sentence-transformers directory (MiniLM, bge, e5, gte-base v1, ...), so that a
 * team has one provider that no contract can take away. What it computes is what
 * sentence-transformers computes: the same token ids, the same pooling, cosine >= 0.9999
 * (tests/embed/golden is the reference's own answer).
 *
 * The directory: config.json, model.safetensors, and vocab.txt or tokenizer.json are needed;
 * modules.json, 1_Pooling/config.json, sentence_bert_config.json, tokenizer_config.json are
 * obeyed where present. Prompts (config_sentence_transformers.json) are offered by
 * vk_encoder_prompt(); which role gets which is the space's business, so a prompt comes in as
 * the text's prefix and is part of what is tokenised.
 *
 * Ownership: an encoder owns its memory and mapping and never changes after open, so any
 * number of threads may run it at once; close it when none does. Texts are borrowed for the
 * call, rows belong to the caller. Memory of one run is bounded by tiles of tokens (about
 * 5 MB a thread for a 384-d model), however many texts come.
 * Errors: a missing file is VK_E_NOT_FOUND; a damaged, hostile or unsupported directory is
 * VK_E_INVALID with a text that names the file and what is wrong or missing; VK_E_NOMEM.
 * Not done: XLM-R, RoBERTa and byte-level tokenizers, rotary or ALiBi positions, decoders.
 */
#ifndef VK_EMBED_ENCODER_H
#define VK_EMBED_ENCODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/pool.h"
#include "base/status.h"

struct vk_encoder; /* immutable after load; any number of threads */

struct vk_encoder_info {
	char model[128];      /* the directory's last name */
	uint32_t dims;        /* of a row */
	uint32_t tokens_max;  /* of a text, [CLS] and [SEP] included; what is longer is cut */
	const char *pooling;  /* "mean", "cls", "max" */
	bool normalize;       /* rows have unit length */
	char fingerprint[65]; /* SHA-256, hex, over weights, tokenizer and pooling: the space's identity */
};

enum vk_status vk_encoder_open(const char *dir, struct vk_encoder **out, struct vk_error *err);
void vk_encoder_close(struct vk_encoder *e); /* NULL is fine */
const struct vk_encoder_info *vk_encoder_info(const struct vk_encoder *e);

/* The model's own prompt of that name ("query", "document", "passage", ...), or an empty span. */
struct vk_bytes vk_encoder_prompt(const struct vk_encoder *e, const char *name);

struct vk_encoder_text {
	struct vk_bytes text;   /* UTF-8; empty is legal: just the two special tokens */
	struct vk_bytes prefix; /* put before the text as it is, or empty */
	uint32_t tokens;        /* out: what the model read, [CLS] and [SEP] included */
	bool truncated;         /* out: the text had more tokens than the model reads */
};

/* rows: n x dims f32 in the caller's order. pool may be NULL (the calling thread works alone).
 * Texts that are not valid UTF-8 are VK_E_INVALID, naming the position; nothing is computed. */
enum vk_status vk_encoder_run(const struct vk_encoder *e, struct vk_pool *pool,
			      struct vk_encoder_text *texts, size_t n, float *rows,
			      struct vk_error *err);

#endif
