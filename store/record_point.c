/* Encode and decode of a point's small records; the layout table is in the header. */
#include "store/record_point.h"

#include <assert.h>

#include "store/record_seal.h"

static struct vk_bytes span(const void *p, size_t n)
{
	return (struct vk_bytes){p, n};
}

void vk_rec_slot_key(uint8_t key[4], uint32_t slot)
{
	vk_put_u32be(key, slot);
}

bool vk_rec_slot_key_read(struct vk_bytes key, uint32_t *slot)
{
	if (key.n != 4) return false;
	*slot = vk_get_u32be((const uint8_t *)key.p);
	return true;
}

void vk_rec_slot_encode(uint8_t dst[VK_REC_SLOT_SIZE], struct vk_bytes id, uint32_t slot)
{
	vk_put_u32le(dst + 1, slot);
	vk_rec_seal(dst, 5, id);
}

bool vk_rec_slot_decode(struct vk_bytes id, struct vk_bytes value, uint32_t *slot)
{
	size_t n;
	const uint8_t *p = vk_rec_open(value, id, &n);
	if (!p || n != 4) return false;
	*slot = vk_get_u32le(p);
	return true;
}

size_t vk_rec_point_encode(uint8_t dst[VK_REC_POINT_MAX], uint32_t slot, const struct vk_rec_point *r)
{
	uint8_t key[4];
	assert(r->id.n >= 1 && r->id.n <= VK_REC_ID_KEY_MAX);
	vk_rec_slot_key(key, slot);
	vk_put_u64le(dst + 1, r->sequence);
	memcpy(dst + 9, r->id.p, r->id.n);
	return vk_rec_seal(dst, 9 + r->id.n, span(key, sizeof key));
}

bool vk_rec_point_decode(struct vk_rec_point *r, uint32_t slot, struct vk_bytes value)
{
	uint8_t key[4];
	size_t n;
	vk_rec_slot_key(key, slot);
	const uint8_t *p = vk_rec_open(value, span(key, sizeof key), &n);
	if (!p || n < 9 || n > 8 + VK_REC_ID_KEY_MAX) return false;
	r->sequence = vk_get_u64le(p);
	r->id = span(p + 8, n - 8);
	return true;
}

void vk_rec_sequence_key(uint8_t key[8], uint64_t sequence)
{
	vk_put_u64be(key, sequence);
}

bool vk_rec_sequence_key_read(struct vk_bytes key, uint64_t *sequence)
{
	if (key.n != 8) return false;
	*sequence = vk_get_u64be((const uint8_t *)key.p);
	return true;
}

size_t vk_rec_change_encode(uint8_t dst[VK_REC_CHANGE_MAX], uint64_t sequence, const struct vk_rec_change *r)
{
	uint8_t key[8];
	assert(r->id.n >= 1 && r->id.n <= VK_REC_ID_KEY_MAX);
	vk_rec_sequence_key(key, sequence);
	dst[1] = r->op;
	vk_put_u32le(dst + 2, r->slot);
	vk_put_u64le(dst + 6, r->mask);
	memcpy(dst + 14, r->id.p, r->id.n);
	return vk_rec_seal(dst, 14 + r->id.n, span(key, sizeof key));
}

bool vk_rec_change_decode(struct vk_rec_change *r, uint64_t sequence, struct vk_bytes value)
{
	uint8_t key[8];
	size_t n;
	vk_rec_sequence_key(key, sequence);
	const uint8_t *p = vk_rec_open(value, span(key, sizeof key), &n);
	if (!p || n < 14 || n > 13 + VK_REC_ID_KEY_MAX) return false;
	if (p[0] != VK_CHANGE_WRITTEN && p[0] != VK_CHANGE_DELETED) return false;
	r->op = p[0];
	r->slot = vk_get_u32le(p + 1);
	r->mask = vk_get_u64le(p + 5);
	r->id = span(p + 13, n - 13);
	return true;
}

void vk_rec_free_key(uint8_t key[12], uint64_t sequence, uint32_t slot)
{
	vk_put_u64be(key, sequence);
	vk_put_u32be(key + 8, slot);
}

bool vk_rec_free_key_read(struct vk_bytes key, uint64_t *sequence, uint32_t *slot)
{
	if (key.n != 12) return false;
	*sequence = vk_get_u64be((const uint8_t *)key.p);
	*slot = vk_get_u32be((const uint8_t *)key.p + 8);
	return true;
}

void vk_rec_state_encode(uint8_t dst[VK_REC_STATE_SIZE], const struct vk_rec_state *r)
{
	vk_put_u64le(dst + 1, r->next_slot);
	vk_put_u64le(dst + 9, r->sequence);
	vk_put_u64le(dst + 17, r->points);
	vk_put_u64le(dst + 25, r->config_epoch);
	vk_rec_seal(dst, 33, VK_LIT(VK_REC_STATE_KEY));
}

bool vk_rec_state_decode(struct vk_rec_state *r, struct vk_bytes value)
{
	size_t n;
	const uint8_t *p = vk_rec_open(value, VK_LIT(VK_REC_STATE_KEY), &n);
	if (!p || n != 32) return false;
	*r = (struct vk_rec_state){
	    .next_slot = vk_get_u64le(p),
	    .sequence = vk_get_u64le(p + 8),
	    .points = vk_get_u64le(p + 16),
	    .config_epoch = vk_get_u64le(p + 24),
	};
	return r->next_slot <= (uint64_t)1 << 32 && r->points <= r->next_slot;
}

void vk_rec_cursor_encode(uint8_t dst[VK_REC_CURSOR_SIZE], struct vk_bytes key, const struct vk_rec_cursor *r)
{
	vk_put_u64le(dst + 1, r->sequence);
	vk_put_u64le(dst + 9, (uint64_t)r->expires_ms);
	vk_rec_seal(dst, 17, key);
}

bool vk_rec_cursor_decode(struct vk_rec_cursor *r, struct vk_bytes key, struct vk_bytes value)
{
	size_t n;
	const uint8_t *p = vk_rec_open(value, key, &n);
	if (!p || n != 16) return false;
	*r = (struct vk_rec_cursor){.sequence = vk_get_u64le(p), .expires_ms = (int64_t)vk_get_u64le(p + 8)};
	return true;
}

void vk_rec_drop_set_key(uint8_t key[10], uint32_t set)
{
	memcpy(key, VK_REC_DROP_SET, 6);
	vk_put_u32be(key + 6, set);
}

bool vk_rec_drop_set_read(struct vk_bytes key, uint32_t *set)
{
	if (key.n != 10 || memcmp(key.p, VK_REC_DROP_SET, 6) != 0) return false;
	*set = vk_get_u32be((const uint8_t *)key.p + 6);
	return true;
}

static void put_u16be(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

void vk_rec_drop_field_key(uint8_t key[8], uint16_t field)
{
	memcpy(key, VK_REC_DROP_FIELD, 6);
	put_u16be(key + 6, field);
}

bool vk_rec_drop_field_read(struct vk_bytes key, uint16_t *field)
{
	if (key.n != 8 || memcmp(key.p, VK_REC_DROP_FIELD, 6) != 0) return false;
	*field = (uint16_t)((uint8_t)key.p[6] << 8 | (uint8_t)key.p[7]);
	return true;
}

void vk_rec_build_key(uint8_t key[8], uint16_t field)
{
	memcpy(key, VK_REC_BUILD, 6);
	put_u16be(key + 6, field);
}

void vk_rec_build_encode(uint8_t dst[VK_REC_BUILD_SIZE], uint16_t field, uint64_t next_slot)
{
	uint8_t key[8];
	vk_rec_build_key(key, field);
	vk_rec_u64_encode(dst, span(key, sizeof key), next_slot);
}

bool vk_rec_build_decode(uint16_t field, struct vk_bytes value, uint64_t *next_slot)
{
	uint8_t key[8];
	vk_rec_build_key(key, field);
	return vk_rec_u64_decode(span(key, sizeof key), value, next_slot);
}
