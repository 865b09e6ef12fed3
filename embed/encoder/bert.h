/*
 * The network: embeddings, N layers of attention and feed-forward, pooling.
 *
 * Texts of a tile stand one after the other with no padding between them: the GEMMs see one
 * tall matrix of tokens, attention sees each text by itself. So a batch wastes nothing on
 * short texts, and a row does not depend on its neighbours in the batch.
 *
 * Weights are packed into panels by the first text (embed/encoder/kernels.h): as much memory as they
 * take as f32, and some ten milliseconds; the embedding tables stay in the file's map, read row by
 * row. Threads: any number may call forward, which allocates what it works on; those that meet the
 * packing wait for it.
 */
#ifndef VK_EMBED_ENCODER_BERT_H
#define VK_EMBED_ENCODER_BERT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "embed/encoder/config.h"
#include "embed/encoder/kernels.h"
#include "embed/encoder/safetensors.h"
#include "embed/encoder/team.h"

struct vk_bert;

/* Takes what it needs of config; borrows the tensors' file until vk_bert_free(). */
enum vk_status vk_bert_load(const struct vk_safetensors *file, const struct vk_model_config *c,
			    const struct vk_encoder_kernels *kernels, struct vk_bert **out,
			    struct vk_error *err);
void vk_bert_free(struct vk_bert *b);

/* One text of a tile. */
struct vk_bert_text {
	const uint32_t *ids; /* each below the vocabulary's size */
	uint32_t n;	     /* 1 to the model's positions */
	float *row;	     /* out: hidden floats */
};

/* Runs the texts through the network. With a team, several threads share each step: for a
 * tile that is alone; without (NULL) the calling thread does all. VK_E_NOMEM only. */
enum vk_status vk_bert_forward(struct vk_bert *b, struct vk_team *team,
			       const struct vk_bert_text *texts, size_t n);

#endif
