/*
 * Layout of table `field`: which slots hold what, per indexed payload field. All integers are BE, so that
 * memcmp is order.
 *
 * Key, version 1
 *   off size
 *     0   2  field u16; 0: the collection's own
 *     2   1  kind (enum vk_field_kind); a new layout of a kind gets a new number, that is the version
 *     3   n  value, by kind:
 *              live any null exists other multi   nothing
 *              set            set u32
 *              keyword        1..200 bytes of UTF-8 (an empty one too) and a 0, which no keyword holds: so
 * none is another's beginning keyword_hash   16: the first half of SHA-256 of a longer keyword i64 8: with
 * the sign bit turned over (integers; datetimes in microseconds) f64            8: IEEE bits, the sign bit
 * turned over, all bits of negative ones; -0 is 0 bool           1: 0 or 1 uuid           16 geo 8: Morton
 * code, bit 63 is the top bit of longitude, 62 of latitude, and so on, of 32-bit cells 3+n   2  chunk u16:
 * slot >> 16 Value: the chunk's slots as one container of the portable roaring format (index/bitmap.h). An
 * empty chunk has no entry.
 */
#ifndef VK_STORE_RECORD_FIELD_H
#define VK_STORE_RECORD_FIELD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

enum vk_field_kind {
	VK_FK_LIVE = 1,	  /* field 0: all live slots */
	VK_FK_SET = 2,	  /* field 0: slots that have a row in this vector set */
	VK_FK_ANY = 3,	  /* has a value of the field's type */
	VK_FK_NULL = 4,	  /* has a null, or an array with a null */
	VK_FK_EXISTS = 5, /* has something other than null and [] */
	VK_FK_OTHER = 6,  /* has a value (not null) that the index does not hold: another type */
	VK_FK_MULTI = 7,  /* has two or more different values of the field's type */
	VK_FK_KEYWORD = 16,
	VK_FK_KEYWORD_HASH = 17,
	VK_FK_I64 = 18,
	VK_FK_F64 = 19,
	VK_FK_BOOL = 20,
	VK_FK_UUID = 21,
	VK_FK_GEO = 22
};

#define VK_FV_KEYWORD_MAX 200 /* bytes; a longer one goes by its hash */
#define VK_FV_MAX (VK_FV_KEYWORD_MAX + 1)
#define VK_FIELD_KEY_HEAD 3
#define VK_FIELD_KEY_SIZE_MAX (VK_FIELD_KEY_HEAD + VK_FV_MAX + 2)

struct vk_field_key {
	uint8_t b[VK_FIELD_KEY_SIZE_MAX];
	size_t n;
};
struct vk_field_key_parts {
	uint16_t field;
	uint8_t kind;
	struct vk_bytes value; /* into the key */
	uint16_t chunk;
};
void vk_field_key_make(struct vk_field_key *k, uint16_t field, uint8_t kind, struct vk_bytes value,
		       uint16_t chunk);
/* Field and kind alone: where their entries begin. */
void vk_field_key_head(struct vk_field_key *k, uint16_t field, uint8_t kind);
/* False when the length does not fit the kind. */
bool vk_field_key_read(struct vk_bytes key, struct vk_field_key_parts *out);

static inline struct vk_bytes vk_field_key_bytes(const struct vk_field_key *k)
{
	return (struct vk_bytes){(const char *)k->b, k->n};
}

struct vk_fv { /* a value as it stands in keys */
	uint8_t kind;
	uint8_t n;
	uint8_t b[VK_FV_MAX];
};
void vk_fv_keyword(struct vk_fv *v, struct vk_bytes text); /* or its hash */
void vk_fv_i64(struct vk_fv *v, int64_t i);
void vk_fv_f64(struct vk_fv *v, double d); /* no NaN */
void vk_fv_bool(struct vk_fv *v, bool b);
void vk_fv_uuid(struct vk_fv *v, const uint8_t uuid[16]);
void vk_fv_geo(struct vk_fv *v, double lat, double lon); /* in [-90, 90] and [-180, 180] */

static inline struct vk_bytes vk_fv_bytes(const struct vk_fv *v)
{
	return (struct vk_bytes){(const char *)v->b, v->n};
}

/* Of the value bytes of a checked key. */
struct vk_bytes vk_fv_read_keyword(struct vk_bytes value);
int64_t vk_fv_read_i64(struct vk_bytes value);
double vk_fv_read_f64(struct vk_bytes value);

/* Cells: a coordinate's 32-bit number, and back to the cell's lower edge. */
#define VK_GEO_CELLS 4294967296.0
uint32_t vk_geo_lon_cell(double lon);
uint32_t vk_geo_lat_cell(double lat);
uint64_t vk_geo_morton(uint32_t lat_cell, uint32_t lon_cell);
void vk_geo_unmorton(uint64_t code, uint32_t *lat_cell, uint32_t *lon_cell);

#endif
