/*
 * What a model's directory says about itself, read from its JSON files and checked: shape of
 * the network, tokenizer, pooling, limit, prompts. A file that asks for something this encoder
 * does not do is refused here, by name, before any weight is touched.
 */
#ifndef VK_EMBED_ENCODER_CONFIG_H
#define VK_EMBED_ENCODER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/status.h"
#include "embed/encoder/wordpiece.h"

#define VK_MODEL_HIDDEN_MAX 4096
#define VK_MODEL_INNER_MAX 16384
#define VK_MODEL_LAYERS_MAX 96
#define VK_MODEL_POSITIONS_MAX 32768
#define VK_MODEL_PROMPTS_MAX 64

enum vk_pooling { VK_POOL_MEAN, VK_POOL_CLS, VK_POOL_MAX };

struct vk_model_prompt {
	const char *name;
	struct vk_bytes text;
};

struct vk_model_config {
	char name[128];
	uint32_t hidden, inner, heads, layers, positions, vocab;
	float eps; /* LayerNorm */
	enum vk_pooling pooling;
	bool normalize;
	uint32_t tokens_max;		 /* [CLS] and [SEP] included */
	struct vk_model_prompt *prompts; /* in the arena */
	size_t prompts_n;
	struct vk_wordpiece *tokenizer; /* the caller's to free */
	uint8_t
	    tokenizer_sha256[32]; /* over the vocabulary file's bytes and the options in force */
};

/* Reads dir into *c; strings live in the arena. On failure nothing is left to free. */
enum vk_status vk_model_config_read(const char *dir, struct vk_arena *arena,
				    struct vk_model_config *c, struct vk_error *err);

#endif
