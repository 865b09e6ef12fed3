/* Pointers to generations (record_gen.h). */
#include "store/record_gen.h"

#include <string.h>

#include "store/record_seal.h"

static const char *const prefix[2] = {VK_REC_GEN_PREFIX, VK_REC_GEN_BUILDING_PREFIX};
enum { PREFIX = sizeof VK_REC_GEN_PREFIX - 1, BODY = VK_REC_GEN_SIZE - 4 };

void vk_rec_gen_key(uint8_t key[VK_REC_GEN_KEY_SIZE], uint32_t set, bool building)
{
	memcpy(key, prefix[building], PREFIX);
	vk_put_u32be(key + PREFIX, set);
}

bool vk_rec_gen_key_read(struct vk_bytes key, uint32_t *set, bool *building)
{
	if (key.n != VK_REC_GEN_KEY_SIZE) return false;
	*building = !memcmp(key.p, prefix[1], PREFIX);
	if (!*building && memcmp(key.p, prefix[0], PREFIX) != 0) return false;
	*set = vk_get_u32be((const uint8_t *)key.p + PREFIX);
	return true;
}

void vk_rec_gen_encode(uint8_t dst[VK_REC_GEN_SIZE], struct vk_bytes key, const struct vk_rec_gen *r)
{
	dst[1] = r->engine;
	vk_put_u32le(dst + 2, r->number);
	vk_put_u64le(dst + 6, r->sequence);
	vk_put_u64le(dst + 14, r->bytes);
	memcpy(dst + 22, r->tag, VK_REC_GEN_TAG);
	vk_rec_seal(dst, BODY, key);
}

bool vk_rec_gen_decode(struct vk_rec_gen *r, struct vk_bytes key, struct vk_bytes value)
{
	size_t n;
	const uint8_t *p = vk_rec_open(value, key, &n);
	if (!p || n != BODY - 1) return false;
	r->engine = p[0];
	r->number = vk_get_u32le(p + 1);
	r->sequence = vk_get_u64le(p + 5);
	r->bytes = vk_get_u64le(p + 13);
	memcpy(r->tag, p + 21, VK_REC_GEN_TAG);
	return true;
}
