/* TLV into HMAC, with the request's fixed part absorbed once. */
#include "embed/key.h"

enum { T_SPACE = 1, T_ROLE, T_KIND, T_PARAMS, T_INPUT };

static void tl(struct vk_sha256 *s, uint8_t tag, size_t n)
{
	uint8_t head[5] = {tag};
	vk_put_u32le(head + 1, (uint32_t)n);
	vk_sha256_update(s, head, sizeof head);
}

static void tlv(struct vk_sha256 *s, uint8_t tag, const char *value)
{
	size_t n = strlen(value);
	tl(s, tag, n);
	vk_sha256_update(s, value, n);
}

/* Tokens as u32 LE: on the little-endian machines we build for, the array itself. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tokens and rows are hashed in place");

static void absorb(struct vk_sha256 *s, const struct vk_input *in)
{
	if (vk_input_is_text(in))
		vk_sha256_update(s, in->text.p, in->text.n);
	else
		vk_sha256_update(s, in->tokens, in->tokens_n * 4);
}

void vk_key_plan_init(struct vk_key_plan *p, const struct vk_hmac_key *secret, uint32_t pool,
		      uint32_t space, const char *space_id, const char *role, const char *params)
{
	p->secret = secret;
	p->pool = pool;
	p->space = space;
	struct vk_sha256 s;
	vk_hmac_start(secret, &s);
	vk_sha256_update(&s, "veckeep-key\x01", 12);
	tlv(&s, T_SPACE, space_id);
	tlv(&s, T_ROLE, role);
	p->text = p->tokens = s;
	tlv(&p->text, T_KIND, "text");
	tlv(&p->tokens, T_KIND, "tokens");
	tlv(&p->text, T_PARAMS, params ? params : "{}");
	tlv(&p->tokens, T_PARAMS, params ? params : "{}");
}

void vk_key_make(const struct vk_key_plan *p, const struct vk_input *in, struct vk_cache_key *key)
{
	uint8_t tag[VK_CACHE_TAG_SIZE], id[VK_SHA256_SIZE];
	struct vk_sha256 s = vk_input_is_text(in) ? p->text : p->tokens;
	tl(&s, T_INPUT, vk_input_len(in));
	absorb(&s, in);
	vk_hmac_final(p->secret, &s, id);
	vk_key_tag(p->secret, in, tag);
	vk_cache_key_set(key, p->pool, tag, p->space, id);
}

void vk_key_tag(const struct vk_hmac_key *secret, const struct vk_input *in,
		uint8_t tag[VK_CACHE_TAG_SIZE])
{
	uint8_t mac[VK_SHA256_SIZE];
	struct vk_sha256 s;
	vk_hmac_start(secret, &s);
	absorb(&s, in);
	vk_hmac_final(secret, &s, mac);
	memcpy(tag, mac, VK_CACHE_TAG_SIZE);
}

void vk_key_row(const struct vk_hmac_key *secret, const float *row, size_t dims, uint8_t out[16])
{
	uint8_t mac[VK_SHA256_SIZE];
	struct vk_sha256 s;
	vk_hmac_start(secret, &s);
	vk_sha256_update(&s, "veckeep-row\x01", 12);
	vk_sha256_update(&s, row, dims * sizeof *row);
	vk_hmac_final(secret, &s, mac);
	memcpy(out, mac, 16);
}
