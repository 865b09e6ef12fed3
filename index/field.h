/*
 * Payload indexes: for each indexed field, typed value -> slots, as bitmap chunks in VK_T_FIELD.
 *
 * Kinds of a key: a value of the field's type (keyword bytes, a long one by its hash, then candidates are
 * checked; i64 and f64 order-preserving; bool; datetime as i64 microseconds; UUID; geo as a Morton cell of 64 bits), and beside them `any` (has
 * at least one value of this type), `null` (has a null) and `exists` (the path reaches something other than [] and null), so that is_null and
 * is_empty are answered exactly. Field number 0 is the collection's own: kind `live` holds all live slots, kind
 * `set` with a set's id the slots that have that vector.
 *
 * Reading gives new bitmaps; `exact` says whether every member is right or must be checked against payload.
 */
#ifndef VK_INDEX_FIELD_H
#define VK_INDEX_FIELD_H

#include "index/bitmap.h"
#include "index/config.h"
#include "store/kv.h"

/* --- writing, inside apply(); changes gather and flush once a job, a chunk is read and written once --- */
struct vk_field_batch;
enum vk_status vk_field_batch_new(struct vk_kv_txn *t, struct vk_field_batch **out);
/* What the payload says now (NULL: none / the point is going) against what it said: before and after. */
enum vk_status vk_field_batch_payload(struct vk_field_batch *b, const struct vk_colconf *c, uint32_t slot,
				      const vk_jv *before, const vk_jv *after);
/* The same for one field alone: building an index over points that are there. */
enum vk_status vk_field_batch_one(struct vk_field_batch *b, const struct vk_field_conf *f, uint32_t slot, const vk_jv *after);
void vk_field_batch_live(struct vk_field_batch *b, uint32_t slot, bool live);
void vk_field_batch_set(struct vk_field_batch *b, uint32_t set_id, uint32_t slot, bool has);
enum vk_status vk_field_batch_flush(struct vk_field_batch *b); /* puts; frees b whatever comes */
void vk_field_batch_drop(struct vk_field_batch *b);            /* frees b, nothing is put */
/* Deletes all of a field (or of a set: field 0) step by step; VK_E_BUSY: more. */
enum vk_status vk_field_drop_step(struct vk_kv_txn *t, uint16_t field, size_t budget);
enum vk_status vk_field_drop_set(struct vk_kv_txn *t, uint32_t set_id);

/* --- reading --- */
enum vk_status vk_field_live(struct vk_kv_txn *t, struct vk_bitmap **out);
enum vk_status vk_field_has_set(struct vk_kv_txn *t, uint32_t set_id, struct vk_bitmap **out);
/* Each value of a keyword, integer, bool or uuid field with its count among `in` (NULL: all live): for facets. */
struct vk_facet_hit {
	enum vk_field_type type;
	struct vk_bytes text; /* keyword; uuid as text */
	int64_t i64;
	bool b;
	uint64_t count;
};
enum vk_status vk_field_facet(struct vk_kv_txn *t, const struct vk_field_conf *f, const struct vk_bitmap *in,
			      bool (*fn)(void *arg, const struct vk_facet_hit *h), void *arg);
/* Walks an integer, float or datetime field's (value, slot) in order; from (may be NULL) is where to start, inclusive,
 * as f64 or, for datetime and integer, i64. A slot with several values comes several times. fn returns false to stop. */
struct vk_order_value {
	bool is_i64; /* integer; datetime in microseconds */
	int64_t i64;
	double f64;
};
enum vk_status vk_field_order(struct vk_kv_txn *t, const struct vk_field_conf *f, bool descending,
			      const struct vk_order_value *from,
			      bool (*fn)(void *arg, const struct vk_order_value *v, uint32_t slot), void *arg);
/* Points that hold a value of this type. */
enum vk_status vk_field_points(struct vk_kv_txn *t, const struct vk_field_conf *f, uint64_t *n);

/* Qdrant's datetime forms (RFC 3339, with or without zone, fraction, time) -> microseconds UTC. */
bool vk_datetime_parse(struct vk_bytes text, int64_t *us);

#endif
