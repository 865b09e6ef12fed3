/*
 * The cache key (docs/cache-key.md publishes it, with test vectors):
 *
 *   pool u32 | tag 16 | space u32 | id 32
 *   tag = HMAC-SHA256(secret, input) cut to 16 bytes
 *   id  = HMAC-SHA256(secret, "veckeep-key" 01, then TLV ascending: 1 space id, 2 role, 3 kind,
 *         4 passed parameters as RFC 8785 JSON, 5 input)
 *
 * A plan absorbs everything but the input once a request; each input then costs two MACs.
 * Nothing is folded: the exact bytes count. Not in the key: encoding, user, request ids, dims
 * (a Matryoshka space keys native dims), the provider.
 */
#ifndef VK_EMBED_KEY_H
#define VK_EMBED_KEY_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "store/cachedb.h"

struct vk_input { /* one thing to embed, as the client sent it */
	struct vk_bytes text;   /* UTF-8; p == NULL: tokens */
	const uint32_t *tokens;
	size_t tokens_n;
};

static inline bool vk_input_is_text(const struct vk_input *in)
{
	return in->text.p != NULL;
}
/* Bytes that were keyed: the text's, or four a token. */
static inline size_t vk_input_len(const struct vk_input *in)
{
	return vk_input_is_text(in) ? in->text.n : in->tokens_n * 4;
}

struct vk_key_plan {
	const struct vk_hmac_key *secret; /* borrowed */
	uint32_t pool, space;
	struct vk_sha256 text, tokens;    /* inner state up to the input, one a kind */
};

/* params: the passed parameters in RFC 8785 form, or NULL for none ("{}"). */
void vk_key_plan_init(struct vk_key_plan *p, const struct vk_hmac_key *secret, uint32_t pool,
		      uint32_t space, const char *space_id, const char *role, const char *params);
void vk_key_make(const struct vk_key_plan *p, const struct vk_input *in, struct vk_cache_key *key);
/* The tag alone: for erasing and explaining by text, over all spaces and roles. */
void vk_key_tag(const struct vk_hmac_key *secret, const struct vk_input *in,
		uint8_t tag[VK_CACHE_TAG_SIZE]);
/* What a served row is recognised by: HMAC(secret, "veckeep-row" 01, f32 LE...) cut to 16. */
void vk_key_row(const struct vk_hmac_key *secret, const float *row, size_t dims, uint8_t out[16]);

#endif
