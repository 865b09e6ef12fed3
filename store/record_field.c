/* Keys of the payload indexes: encode and decode side by side (layout: record_field.h). */
#include "store/record_field.h"

#include <assert.h>

#include "base/hash.h"

#define SIGN ((uint64_t)1 << 63)

static void put_u16be(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint16_t get_u16be(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

void vk_field_key_head(struct vk_field_key *k, uint16_t field, uint8_t kind)
{
	put_u16be(k->b, field);
	k->b[2] = kind;
	k->n = VK_FIELD_KEY_HEAD;
}

void vk_field_key_make(struct vk_field_key *k, uint16_t field, uint8_t kind, struct vk_bytes value,
		       uint16_t chunk)
{
	assert(value.n <= VK_FV_MAX);
	vk_field_key_head(k, field, kind);
	if (value.n) memcpy(k->b + VK_FIELD_KEY_HEAD, value.p, value.n);
	put_u16be(k->b + VK_FIELD_KEY_HEAD + value.n, chunk);
	k->n = VK_FIELD_KEY_HEAD + value.n + 2;
}

static bool value_fits(uint8_t kind, struct vk_bytes v)
{
	switch (kind) {
	case VK_FK_LIVE:
	case VK_FK_ANY:
	case VK_FK_NULL:
	case VK_FK_EXISTS:
	case VK_FK_OTHER:
	case VK_FK_MULTI: return v.n == 0;
	case VK_FK_SET: return v.n == 4;
	case VK_FK_KEYWORD: return v.n >= 1 && v.n <= VK_FV_MAX && memchr(v.p, 0, v.n) == v.p + v.n - 1;
	case VK_FK_I64:
	case VK_FK_F64:
	case VK_FK_GEO: return v.n == 8;
	case VK_FK_BOOL: return v.n == 1 && (uint8_t)v.p[0] <= 1;
	case VK_FK_KEYWORD_HASH:
	case VK_FK_UUID: return v.n == 16;
	default: return false;
	}
}

bool vk_field_key_read(struct vk_bytes key, struct vk_field_key_parts *out)
{
	if (key.n < VK_FIELD_KEY_HEAD + 2) return false;
	const uint8_t *p = (const uint8_t *)key.p;
	*out =
	    (struct vk_field_key_parts){.field = get_u16be(p),
					.kind = p[2],
					.chunk = get_u16be(p + key.n - 2),
					.value = {key.p + VK_FIELD_KEY_HEAD, key.n - VK_FIELD_KEY_HEAD - 2}};
	return value_fits(out->kind, out->value);
}

void vk_fv_keyword(struct vk_fv *v, struct vk_bytes text)
{
	if (text.n <= VK_FV_KEYWORD_MAX) {
		v->kind = VK_FK_KEYWORD;
		v->n = (uint8_t)(text.n + 1);
		if (text.n) memcpy(v->b, text.p, text.n);
		v->b[text.n] = 0;
		return;
	}
	uint8_t digest[VK_SHA256_SIZE];
	vk_sha256(text.p, text.n, digest);
	v->kind = VK_FK_KEYWORD_HASH;
	v->n = 16;
	memcpy(v->b, digest, 16);
}

struct vk_bytes vk_fv_read_keyword(struct vk_bytes value) { return (struct vk_bytes){value.p, value.n - 1}; }

void vk_fv_i64(struct vk_fv *v, int64_t i)
{
	v->kind = VK_FK_I64;
	v->n = 8;
	vk_put_u64be(v->b, (uint64_t)i ^ SIGN);
}

int64_t vk_fv_read_i64(struct vk_bytes value)
{
	return (int64_t)(vk_get_u64be((const uint8_t *)value.p) ^ SIGN);
}

void vk_fv_f64(struct vk_fv *v, double d)
{
	uint64_t bits;
	d += 0.0; /* -0 */
	memcpy(&bits, &d, 8);
	v->kind = VK_FK_F64;
	v->n = 8;
	vk_put_u64be(v->b, bits & SIGN ? ~bits : bits | SIGN);
}

double vk_fv_read_f64(struct vk_bytes value)
{
	uint64_t bits = vk_get_u64be((const uint8_t *)value.p);
	double d;
	bits = bits & SIGN ? bits ^ SIGN : ~bits;
	memcpy(&d, &bits, 8);
	return d;
}

void vk_fv_bool(struct vk_fv *v, bool b)
{
	v->kind = VK_FK_BOOL;
	v->n = 1;
	v->b[0] = b;
}

void vk_fv_uuid(struct vk_fv *v, const uint8_t uuid[16])
{
	v->kind = VK_FK_UUID;
	v->n = 16;
	memcpy(v->b, uuid, 16);
}

/* [low, low + width] in 2^32 cells; the upper edge belongs to the last one. */
static uint32_t cell(double x, double low, double width)
{
	double c = (x - low) / width * VK_GEO_CELLS;
	return c <= 0 ? 0 : c >= VK_GEO_CELLS - 1 ? UINT32_MAX : (uint32_t)c;
}

uint32_t vk_geo_lon_cell(double lon) { return cell(lon, -180, 360); }

uint32_t vk_geo_lat_cell(double lat) { return cell(lat, -90, 180); }

static uint64_t spread(uint32_t x) /* bit i to bit 2i */
{
	uint64_t v = x;
	v = (v | v << 16) & 0x0000ffff0000ffffu;
	v = (v | v << 8) & 0x00ff00ff00ff00ffu;
	v = (v | v << 4) & 0x0f0f0f0f0f0f0f0fu;
	v = (v | v << 2) & 0x3333333333333333u;
	return (v | v << 1) & 0x5555555555555555u;
}

static uint32_t gather(uint64_t v)
{
	v &= 0x5555555555555555u;
	v = (v | v >> 1) & 0x3333333333333333u;
	v = (v | v >> 2) & 0x0f0f0f0f0f0f0f0fu;
	v = (v | v >> 4) & 0x00ff00ff00ff00ffu;
	v = (v | v >> 8) & 0x0000ffff0000ffffu;
	return (uint32_t)(v | v >> 16);
}

uint64_t vk_geo_morton(uint32_t lat_cell, uint32_t lon_cell)
{
	return spread(lon_cell) << 1 | spread(lat_cell);
}

void vk_geo_unmorton(uint64_t code, uint32_t *lat_cell, uint32_t *lon_cell)
{
	*lat_cell = gather(code);
	*lon_cell = gather(code >> 1);
}

void vk_fv_geo(struct vk_fv *v, double lat, double lon)
{
	v->kind = VK_FK_GEO;
	v->n = 8;
	vk_put_u64be(v->b, vk_geo_morton(vk_geo_lat_cell(lat), vk_geo_lon_cell(lon)));
}
