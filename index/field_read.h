/*
 * Inside the payload indexes: what field.c, field_write.c and the filter's planner share. Values as they
 * stand in keys (store/record_field.h), walks over them.
 */
#ifndef VK_INDEX_FIELD_READ_H
#define VK_INDEX_FIELD_READ_H

#include "index/field.h"
#include "index/payload.h"
#include "store/record_field.h"

/* The kind under which values of a type stand; 0: text, whose values are not indexed. A long keyword has its
 * own. */
uint8_t vk_field_value_kind(enum vk_field_type type);
/* How an index of this type holds the value; false when it does not hold it. kind 0: held as `any` alone
 * (text). */
bool vk_field_value(enum vk_field_type type, const vk_jv *v, struct vk_fv *out);
bool vk_geo_value(const vk_jv *v, double *lat, double *lon); /* {"lat": number, "lon": number} */

/* Chunks of a field's kind from the value `from` on (n == 0: the first), in key order. fn returns false to
 * stop. */
typedef bool vk_field_scan_fn(void *arg, const struct vk_field_key_parts *k, struct vk_bytes chunk);
enum vk_status vk_field_scan(struct vk_kv_txn *t, uint16_t field, uint8_t kind, struct vk_bytes from,
			     vk_field_scan_fn *fn, void *arg);
/* All slots of one value, or-ed into b; how many there are. */
enum vk_status vk_field_or(struct vk_kv_txn *t, uint16_t field, uint8_t kind, struct vk_bytes value,
			   struct vk_bitmap *b);
enum vk_status vk_field_count(struct vk_kv_txn *t, uint16_t field, uint8_t kind, struct vk_bytes value,
			      uint64_t *n);

/* A union of many small chunks: single slots are gathered and added in batches. Give, then end (in any case).
 */
#define VK_GATHER_SLOTS 4096
struct vk_gather {
	struct vk_bitmap *into;
	enum vk_status st;
	size_t n;
	uint32_t slot[VK_GATHER_SLOTS];
};
void vk_gather_chunk(struct vk_gather *g, uint16_t chunk, struct vk_bytes bytes);
enum vk_status vk_gather_end(struct vk_gather *g);

#endif
