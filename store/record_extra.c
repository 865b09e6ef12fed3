/* Encode and decode of sparse vectors and texts; the layout table is in the header. */
#include "store/record_extra.h"

#include <assert.h>

#include "store/record_point.h"
#include "store/record_seal.h"

static struct vk_bytes span(const void *p, size_t n) { return (struct vk_bytes){p, n}; }

void vk_rec_extra_key(uint8_t key[VK_REC_EXTRA_KEY_SIZE], uint32_t slot, uint8_t kind, uint32_t set)
{
	vk_put_u32be(key, slot);
	key[4] = kind;
	vk_put_u32be(key + 5, set);
}

bool vk_rec_extra_key_read(struct vk_bytes key, uint32_t *slot, uint8_t *kind, uint32_t *set)
{
	const uint8_t *p = (const uint8_t *)key.p;
	if (key.n != VK_REC_EXTRA_KEY_SIZE || p[4] < VK_EXTRA_SPARSE || p[4] > VK_EXTRA_TEXT)
		return false;
	*slot = vk_get_u32be(p);
	*kind = p[4];
	*set = vk_get_u32be(p + 5);
	return true;
}

void vk_rec_sparse_encode(uint8_t *dst, uint32_t slot, uint32_t set, const uint32_t *index,
			  const float *value, uint32_t n)
{
	uint8_t key[VK_REC_EXTRA_KEY_SIZE];
	assert(n <= VK_REC_SPARSE_MAX);
	vk_rec_extra_key(key, slot, VK_EXTRA_SPARSE, set);
	vk_put_u32le(dst + 1, n);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t bits;
		memcpy(&bits, &value[i], sizeof bits);
		vk_put_u32le(dst + 5 + (size_t)4 * i, index[i]);
		vk_put_u32le(dst + 5 + (size_t)4 * (n + i), bits);
	}
	vk_rec_seal(dst, 5 + (size_t)8 * n, span(key, sizeof key));
}

bool vk_rec_sparse_decode(struct vk_rec_sparse *r, uint32_t slot, uint32_t set,
			  struct vk_bytes value)
{
	uint8_t key[VK_REC_EXTRA_KEY_SIZE];
	size_t n;
	vk_rec_extra_key(key, slot, VK_EXTRA_SPARSE, set);
	const uint8_t *p = vk_rec_open(value, span(key, sizeof key), &n);
	if (!p || n < 4) return false;
	r->n = vk_get_u32le(p);
	if (r->n > VK_REC_SPARSE_MAX || n != 4 + (size_t)8 * r->n) return false;
	r->index = p + 4;
	r->value = r->index + (size_t)4 * r->n;
	for (uint32_t i = 1; i < r->n; i++)
		if (vk_get_u32le(r->index + (size_t)4 * (i - 1)) >=
		    vk_get_u32le(r->index + (size_t)4 * i))
			return false;
	return true;
}

void vk_rec_text_encode(uint8_t *dst, uint32_t slot, uint32_t set, const struct vk_rec_text *r)
{
	uint8_t key[VK_REC_EXTRA_KEY_SIZE];
	assert(r->key.n <= UINT8_MAX);
	vk_rec_extra_key(key, slot, VK_EXTRA_TEXT, set);
	dst[1] = (uint8_t)r->key.n;
	if (r->key.n) memcpy(dst + 2, r->key.p, r->key.n);
	if (r->text.n) memcpy(dst + 2 + r->key.n, r->text.p, r->text.n);
	vk_rec_seal(dst, 2 + r->key.n + r->text.n, span(key, sizeof key));
}

bool vk_rec_text_decode(struct vk_rec_text *r, uint32_t slot, uint32_t set, struct vk_bytes value)
{
	uint8_t key[VK_REC_EXTRA_KEY_SIZE];
	size_t n;
	vk_rec_extra_key(key, slot, VK_EXTRA_TEXT, set);
	const uint8_t *p = vk_rec_open(value, span(key, sizeof key), &n);
	if (!p || n < 1 || n < 1 + (size_t)p[0]) return false;
	r->key = span(p + 1, p[0]);
	r->text = span(p + 1 + p[0], n - 1 - p[0]);
	return !r->key.n || !r->text.n;
}

void vk_rec_drop_at_encode(uint8_t dst[VK_REC_DROP_AT_SIZE], uint32_t set, uint64_t slot)
{
	uint8_t key[10];
	vk_rec_drop_set_key(key, set);
	vk_rec_u64_encode(dst, span(key, sizeof key), slot);
}

bool vk_rec_drop_at_decode(uint32_t set, struct vk_bytes value, uint64_t *slot)
{
	uint8_t key[10];
	*slot = 0;
	if (!value.n) return true;
	vk_rec_drop_set_key(key, set);
	return vk_rec_u64_decode(span(key, sizeof key), value, slot) && *slot <= (uint64_t)1 << 32;
}
