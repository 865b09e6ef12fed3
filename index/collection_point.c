/*
 * One point written, and what goes along with it, in the writer's transaction.
 *
 * Rows gather and are put together per set, so that a batch that fills blocks is written as blocks; payload
 * indexes gather in the field batch. Between gathering and vk_writer_rows() a point may be touched once:
 * the caller sees to that.
 *
 * The change table keeps one entry a point: the entry under the head's sequence goes when a newer one
 * comes. Its mask is what changed since the slowest cursor: the new entry takes the old one's bits along
 * unless every cursor has passed it.
 */
#include "index/collection_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "index/ttl.h"

#define SCRATCH_MAX (16 * VK_PAYLOAD_MAX)

static struct vk_bytes span(const void *p, size_t n)
{
	return (struct vk_bytes){p, n};
}

static enum vk_status corrupt(struct vk_writer *w, const char *what, uint64_t number)
{
	return vk_fail(w->err, VK_E_CORRUPT, "the collection's store is damaged: %s %llu", what,
		       (unsigned long long)number);
}

enum vk_status vk_cursor_lowest(struct vk_kv_txn *t, int64_t now_ms, uint64_t *lowest)
{
	const struct vk_bytes prefix = VK_LIT(VK_REC_CURSOR_PREFIX);
	struct vk_kv_cursor *cur;
	struct vk_bytes k, v;
	struct vk_rec_cursor r;
	*lowest = UINT64_MAX;
	enum vk_status st = vk_kv_cursor_open(t, VK_T_META, &cur);
	if (st) return st;
	st = vk_kv_seek(cur, prefix, &k, &v);
	for (; !st && k.n >= prefix.n && memcmp(k.p, prefix.p, prefix.n) == 0; st = vk_kv_next(cur, &k, &v)) {
		/* One that does not check holds everything back: better than losing a follower's changes. */
		if (!vk_rec_cursor_decode(&r, k, v))
			r = (struct vk_rec_cursor){.sequence = 0, .expires_ms = INT64_MAX};
		if (r.expires_ms > now_ms && r.sequence < *lowest) *lowest = r.sequence;
	}
	vk_kv_cursor_close(cur);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

enum vk_status vk_writer_begin(struct vk_writer *w, struct vk_collection *c, struct vk_kv_txn *t, int64_t now_ms,
			       struct vk_error *err)
{
	*w = (struct vk_writer){.c = c, .t = t, .now_ms = now_ms, .err = err};
	vk_arena_init(&w->scratch, SCRATCH_MAX);
	enum vk_status st = vk_state_get(t, &w->state);
	w->was = w->state;
	if (!st) st = vk_collection_conf_of(c, t, w->state.config_epoch, false, &w->conf);
	if (!st) st = vk_cursor_lowest(t, now_ms, &w->lowest);
	return st;
}

enum vk_status vk_writer_end(struct vk_writer *w, enum vk_status st)
{
	if (!st) st = vk_writer_indexes(w);
	if (!st && memcmp(&w->was, &w->state, sizeof w->was) != 0) st = vk_state_put(w->t, &w->state);
	vk_field_batch_drop(w->batch);
	vk_colconf_unref(w->conf);
	vk_arena_free(&w->scratch);
	free(w->row);
	return st;
}

/* --- gathered rows and indexes --- */

static int compare_rows(const void *x, const void *y)
{
	const struct vk_point_row *a = x, *b = y;
	if (a->vector != b->vector) return a->vector < b->vector ? -1 : 1;
	return (a->slot > b->slot) - (a->slot < b->slot);
}

static enum vk_status put_set(struct vk_writer *w, const struct vk_point_row *r, size_t n)
{
	struct vk_row_in *in = malloc(n * sizeof *in);
	if (!in) return VK_E_NOMEM;
	for (size_t i = 0; i < n; i++) in[i] = (struct vk_row_in){.slot = r[i].slot, .row = r[i].row};
	enum vk_status st = vk_vset_put(w->t, &r->vector->set, in, n);
	free(in);
	return st;
}

enum vk_status vk_writer_rows(struct vk_writer *w)
{
	enum vk_status st = VK_OK;
	if (w->row_n > 1) qsort(w->row, w->row_n, sizeof *w->row, compare_rows);
	for (size_t i = 0, j; !st && i < w->row_n; i = j) {
		for (j = i + 1; j < w->row_n && w->row[j].vector == w->row[i].vector;) j++;
		st = put_set(w, w->row + i, j - i);
	}
	w->rows_put += (uint32_t)w->row_n;
	w->row_n = 0;
	return st;
}

enum vk_status vk_writer_indexes(struct vk_writer *w)
{
	enum vk_status st = vk_writer_rows(w);
	struct vk_field_batch *b = w->batch;
	w->batch = NULL;
	if (st) vk_field_batch_drop(b);
	else if (b) st = vk_field_batch_flush(b);
	return st;
}

static enum vk_status gather_row(struct vk_writer *w, uint32_t slot, const struct vk_vector_conf *v,
				 const float *row)
{
	if (w->row_n == w->row_cap) {
		size_t cap = w->row_cap ? 2 * w->row_cap : 64;
		struct vk_point_row *more = realloc(w->row, cap * sizeof *more);
		if (!more) return VK_E_NOMEM;
		w->row = more;
		w->row_cap = cap;
	}
	w->row[w->row_n++] = (struct vk_point_row){.slot = slot, .vector = v, .row = row};
	vk_field_batch_set(w->batch, v->set.id, slot, true);
	return VK_OK;
}

static enum vk_status drop_row(struct vk_writer *w, uint32_t slot, const struct vk_vector_conf *v, bool *had)
{
	enum vk_status st = vk_vset_del(w->t, &v->set, slot);
	*had = st == VK_OK;
	if (st == VK_E_NOT_FOUND) return VK_OK;
	if (!st) vk_field_batch_set(w->batch, v->set.id, slot, false);
	return st;
}

static enum vk_status need_batch(struct vk_writer *w)
{
	return w->batch ? VK_OK : vk_field_batch_new(w->t, &w->batch);
}

enum vk_status vk_writer_filter(struct vk_writer *w, const struct vk_filter *f, struct vk_bitmap **out)
{
	*out = NULL;
	enum vk_status st = vk_writer_indexes(w);
	if (st) return st;
	struct vk_view v = {.t = w->t, .conf = w->conf, .c = w->c, .now_ms = w->now_ms, .writing = true};
	st = vk_filter_bitmap(&v, f, out, w->err);
	vk_bitmap_free(v.live);
	return st;
}

/* --- a point as it is --- */

static enum vk_status load(struct vk_writer *w, struct vk_old *o)
{
	uint8_t key[4];
	struct vk_bytes v;
	struct vk_rec_point head;
	vk_rec_slot_key(key, o->slot);
	enum vk_status st = vk_kv_get(w->t, VK_T_POINT, span(key, 4), &v);
	if (st == VK_E_NOT_FOUND || (!st && !vk_rec_point_decode(&head, o->slot, v)))
		return corrupt(w, "point", o->slot);
	if (st) return st;
	o->sequence = head.sequence;
	o->id = span(vk_arena_strndup(&w->scratch, head.id.p, head.id.n), head.id.n);
	st = vk_kv_get(w->t, VK_T_PAYLOAD, span(key, 4), &v);
	if (st && st != VK_E_NOT_FOUND) return st;
	/* A copy: the map's bytes move with the next put. */
	if (!st) o->payload = span(vk_arena_strndup(&w->scratch, v.p, v.n), v.n);
	if (!o->id.p || (o->payload.n && !o->payload.p)) return VK_E_NOMEM;
	o->there = true;
	return VK_OK;
}

enum vk_status vk_old_by_slot(struct vk_writer *w, uint32_t slot, struct vk_old *o)
{
	*o = (struct vk_old){.slot = slot};
	return load(w, o);
}

enum vk_status vk_old_by_id(struct vk_writer *w, struct vk_bytes id, struct vk_old *o)
{
	struct vk_bytes v;
	*o = (struct vk_old){0};
	enum vk_status st = vk_kv_get(w->t, VK_T_ID, id, &v);
	if (st) return st == VK_E_NOT_FOUND ? VK_OK : st;
	if (!vk_rec_slot_decode(id, v, &o->slot))
		return corrupt(w, "the id of a point, table of", w->state.points);
	st = load(w, o);
	if (!st && !vk_bytes_eq(o->id, id)) return corrupt(w, "point", o->slot);
	return st;
}

enum vk_status vk_old_parse(struct vk_writer *w, struct vk_old *o)
{
	struct vk_error err;
	if (o->doc || !o->payload.n) return VK_OK;
	enum vk_status st = vk_json_parse(&w->scratch, o->payload, NULL, &o->doc, &err);
	if (st == VK_E_INVALID) return corrupt(w, "payload of point", o->slot);
	if (!st) o->jv = vk_json_root(o->doc);
	return st;
}

bool vk_old_expired(struct vk_writer *w, struct vk_old *o, enum vk_status *st)
{
	if (!o->there || !vk_ttl_on(w->conf)) return false;
	*st = vk_old_parse(w, o);
	return !*st && vk_ttl_expired(w->conf, o->jv, w->now_ms);
}

void vk_old_end(struct vk_writer *w, struct vk_old *o)
{
	vk_json_free(o->doc);
	o->doc = NULL;
	vk_arena_reset(&w->scratch);
}

/* --- slots --- */

/* The slot that was freed longest ago, if nobody can still ask for what it held. VK_E_NOT_FOUND: none. */
static enum vk_status take_free(struct vk_writer *w, uint32_t *slot)
{
	struct vk_kv_cursor *cur;
	struct vk_bytes k, v;
	uint64_t sequence = 0;
	uint8_t key[8];
	if (!vk_kv_entries(w->t, VK_T_FREE)) return VK_E_NOT_FOUND;
	enum vk_status st = vk_kv_cursor_open(w->t, VK_T_FREE, &cur);
	if (st) return st;
	st = vk_kv_seek(cur, (struct vk_bytes){0}, &k, &v);
	if (!st && !vk_rec_free_key_read(k, &sequence, slot)) st = corrupt(w, "free slot", 0);
	if (!st && sequence > w->lowest) st = VK_E_NOT_FOUND;
	if (!st) st = vk_kv_cursor_del(cur);
	vk_kv_cursor_close(cur);
	if (st) return st;
	/* Its tombstone, if a cursor wanted one. */
	vk_rec_sequence_key(key, sequence);
	st = vk_kv_del(w->t, VK_T_CHANGE, span(key, 8));
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

static enum vk_status take_slot(struct vk_writer *w, uint32_t *slot)
{
	enum vk_status st = take_free(w, slot);
	if (st != VK_E_NOT_FOUND) return st;
	if (w->state.next_slot > UINT32_MAX)
		return vk_fail(w->err, VK_E_NO_SPACE, "the collection is full: 2^32 points");
	*slot = (uint32_t)w->state.next_slot++;
	return VK_OK;
}

/* --- the change table --- */

/* Takes the point's older entry out; its mask, if a cursor may not have seen it. */
static enum vk_status forget_change(struct vk_writer *w, const struct vk_old *o, uint64_t *mask)
{
	uint8_t key[8];
	struct vk_bytes v;
	struct vk_rec_change ch;
	*mask = 0;
	vk_rec_sequence_key(key, o->sequence);
	enum vk_status st = vk_kv_get(w->t, VK_T_CHANGE, span(key, 8), &v);
	if (st == VK_E_NOT_FOUND || (!st && !vk_rec_change_decode(&ch, o->sequence, v)))
		return corrupt(w, "change", o->sequence);
	if (st) return st;
	bool seen = w->lowest != UINT64_MAX && o->sequence <= w->lowest;
	if (!seen) *mask = ch.mask;
	return vk_kv_del(w->t, VK_T_CHANGE, span(key, 8));
}

static enum vk_status put_change(struct vk_writer *w, uint32_t slot, struct vk_bytes id, uint8_t op,
				 uint64_t mask)
{
	uint8_t key[8], value[VK_REC_CHANGE_MAX];
	struct vk_rec_change ch = {.op = op, .slot = slot, .mask = mask, .id = id};
	vk_rec_sequence_key(key, w->state.sequence);
	size_t n = vk_rec_change_encode(value, w->state.sequence, &ch);
	return vk_kv_put(w->t, VK_T_CHANGE, span(key, 8), span(value, n));
}

/* Head and change entry under the next sequence. */
static enum vk_status stamp(struct vk_writer *w, const struct vk_old *o, uint32_t slot, struct vk_bytes id,
			    uint64_t mask)
{
	uint8_t key[4], value[VK_REC_POINT_MAX];
	uint64_t before = 0;
	enum vk_status st = o->there ? forget_change(w, o, &before) : VK_OK;
	if (st) return st;
	struct vk_rec_point head = {.sequence = ++w->state.sequence, .id = id};
	st = put_change(w, slot, id, VK_CHANGE_WRITTEN, mask | before);
	if (st) return st;
	vk_rec_slot_key(key, slot);
	return vk_kv_put(w->t, VK_T_POINT, span(key, 4), span(value, vk_rec_point_encode(value, slot, &head)));
}

/* --- writing --- */

static bool names(const struct vk_new *n, const struct vk_vector_conf *v)
{
	for (size_t i = 0; i < n->vec_n; i++)
		if (n->vec[i].conf == v) return true;
	return false;
}

/* Rows that come and rows that go; *mask collects their bits. */
static enum vk_status write_vectors(struct vk_writer *w, const struct vk_old *o, uint32_t slot,
				    const struct vk_new *n, uint64_t *mask)
{
	enum vk_status st = VK_OK;
	bool had;
	for (size_t i = 0; !st && i < n->vec_n; i++) {
		if (n->vec[i].conf->sparse) continue; /* collection_extra.c's */
		*mask |= vk_rec_mask_set(n->vec[i].conf->set.id);
		st = gather_row(w, slot, n->vec[i].conf, n->vec[i].row);
	}
	for (size_t i = 0; !st && i < n->drop_n; i++) {
		if (n->drop[i]->sparse) continue;
		st = drop_row(w, slot, n->drop[i], &had);
		*mask |= vk_rec_mask_set(n->drop[i]->set.id);
	}
	for (size_t i = 0; !st && o->there && n->replace && i < w->conf->vectors_n; i++) {
		const struct vk_vector_conf *v = &w->conf->vectors[i];
		if (names(n, v)) continue;
		st = drop_row(w, slot, v, &had);
		if (had) *mask |= vk_rec_mask_set(v->set.id);
	}
	return st;
}

static enum vk_status write_payload(struct vk_writer *w, struct vk_old *o, uint32_t slot, const struct vk_new *n)
{
	uint8_t key[4];
	vk_rec_slot_key(key, slot);
	enum vk_status st = w->conf->fields_n ? vk_old_parse(w, o) : VK_OK;
	if (!st && w->conf->fields_n) st = vk_field_batch_payload(w->batch, w->conf, slot, o->jv, n->payload_jv);
	if (st) return st;
	if (n->payload.n) return vk_kv_put(w->t, VK_T_PAYLOAD, span(key, 4), n->payload);
	st = o->payload.n ? vk_kv_del(w->t, VK_T_PAYLOAD, span(key, 4)) : VK_OK;
	return st;
}

static enum vk_status place(struct vk_writer *w, struct vk_bytes id, uint32_t *slot)
{
	uint8_t value[VK_REC_SLOT_SIZE];
	enum vk_status st = take_slot(w, slot);
	if (st) return st;
	w->state.points++;
	vk_field_batch_live(w->batch, *slot, true);
	vk_rec_slot_encode(value, id, *slot);
	return vk_kv_put(w->t, VK_T_ID, id, span(value, sizeof value));
}

enum vk_status vk_point_write(struct vk_writer *w, struct vk_old *o, const struct vk_new *n)
{
	uint32_t slot = o->slot;
	uint64_t mask = n->payload_set && (n->payload.n || o->payload.n || !o->there) ? VK_REC_MASK_PAYLOAD : 0;
	enum vk_status st = need_batch(w);
	if (!st && !o->there) st = place(w, n->id, &slot);
	if (!st) st = write_vectors(w, o, slot, n, &mask);
	if (!st) st = vk_extra_write(w, o, slot, n, &mask);
	if (!st && n->payload_set) st = write_payload(w, o, slot, n);
	return st ? st : stamp(w, o, slot, n->id, mask);
}

enum vk_status vk_point_delete(struct vk_writer *w, struct vk_old *o)
{
	uint8_t slot_key[4], free_key[12];
	uint64_t mask;
	bool had;
	enum vk_status st = need_batch(w);
	for (size_t i = 0; !st && i < w->conf->vectors_n; i++)
		st = drop_row(w, o->slot, &w->conf->vectors[i], &had);
	if (!st) st = vk_extra_delete(w, o->slot);
	if (!st) st = write_payload(w, o, o->slot, &(struct vk_new){0});
	if (!st) st = forget_change(w, o, &mask);
	vk_rec_slot_key(slot_key, o->slot);
	if (!st) st = vk_kv_del(w->t, VK_T_POINT, span(slot_key, 4));
	if (!st) st = vk_kv_del(w->t, VK_T_ID, o->id);
	if (st) return st;
	vk_field_batch_live(w->batch, o->slot, false);
	assert(w->state.points > 0);
	w->state.points--;
	w->state.sequence++;
	vk_rec_free_key(free_key, w->state.sequence, o->slot);
	st = vk_kv_put(w->t, VK_T_FREE, span(free_key, 12), (struct vk_bytes){0});
	/* Without cursors nobody will ask, and who comes later starts from a view. */
	if (!st && w->lowest != UINT64_MAX)
		st = put_change(w, o->slot, o->id, VK_CHANGE_DELETED, VK_REC_MASK_PAYLOAD);
	return st;
}
