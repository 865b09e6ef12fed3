/*
 * Every invariant across the tables, for tests and for `veckeep verify`. One view, one pass a table;
 * payload indexes are built anew from the payloads in an environment of their own and compared entry by
 * entry, so nothing here knows how their keys are made.
 */
#include "index/collection_internal.h"

#include <stdlib.h>

#include "store/record_field.h"
#include "store/record_vset.h"

#define SCRATCH_MAX (16 * VK_PAYLOAD_MAX)
#define BUILD_POINTS 2000

struct check {
	struct vk_view v;
	struct vk_rec_state s;
	struct vk_bitmap *live; /* as the id table says */
	struct vk_bitmap *sparse[VK_VECTORS_MAX]; /* who has it, by place in the config */
	struct vk_error *err;
};

static struct vk_bytes span(const void *p, size_t n)
{
	return (struct vk_bytes){p, n};
}

#define BAD(x, ...) vk_fail((x)->err, VK_E_CORRUPT, __VA_ARGS__)

typedef enum vk_status entry_fn(struct check *x, struct vk_bytes k, struct vk_bytes v);

static enum vk_status each_entry(struct check *x, unsigned table, entry_fn *fn)
{
	struct vk_kv_cursor *cur;
	struct vk_bytes k, v;
	enum vk_status st = vk_kv_cursor_open(x->v.t, table, &cur);
	if (st) return st;
	st = vk_kv_seek(cur, (struct vk_bytes){0}, &k, &v);
	while (!st && !(st = fn(x, k, v))) st = vk_kv_next(cur, &k, &v);
	vk_kv_cursor_close(cur);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

/* --- points --- */

static bool head_of(struct check *x, uint32_t slot, struct vk_rec_point *r)
{
	uint8_t key[4];
	struct vk_bytes v;
	vk_rec_slot_key(key, slot);
	return !vk_kv_get(x->v.t, VK_T_POINT, span(key, 4), &v) && vk_rec_point_decode(r, slot, v);
}

static enum vk_status check_id(struct check *x, struct vk_bytes k, struct vk_bytes v)
{
	uint32_t slot;
	struct vk_rec_point head;
	if (!vk_id_valid(k) || !vk_rec_slot_decode(k, v, &slot))
		return BAD(x, "id table: an entry does not check");
	if (vk_bitmap_has(x->live, slot)) return BAD(x, "id table: two ids lead to slot %u", slot);
	if (!head_of(x, slot, &head)) return BAD(x, "id table: slot %u has no head that checks", slot);
	if (!vk_bytes_eq(head.id, k)) return BAD(x, "slot %u: its head names another id", slot);
	vk_bitmap_add(x->live, slot);
	return VK_OK;
}

static enum vk_status check_point(struct check *x, struct vk_bytes k, struct vk_bytes v)
{
	uint32_t slot;
	uint8_t key[8];
	struct vk_rec_point head;
	struct vk_rec_change ch;
	if (!vk_rec_slot_key_read(k, &slot) || !vk_rec_point_decode(&head, slot, v))
		return BAD(x, "a point's head does not check");
	if (!vk_bitmap_has(x->live, slot)) return BAD(x, "slot %u: no id leads to it", slot);
	if (slot >= x->s.next_slot) return BAD(x, "slot %u was never given", slot);
	if (head.sequence > x->s.sequence) return BAD(x, "slot %u: its version is of the future", slot);
	vk_rec_sequence_key(key, head.sequence);
	if (vk_kv_get(x->v.t, VK_T_CHANGE, span(key, 8), &v) || !vk_rec_change_decode(&ch, head.sequence, v))
		return BAD(x, "slot %u: no change entry %llu", slot, (unsigned long long)head.sequence);
	if (ch.op != VK_CHANGE_WRITTEN || ch.slot != slot || !vk_bytes_eq(ch.id, head.id))
		return BAD(x, "slot %u: its change entry is another point's", slot);
	return VK_OK;
}

static enum vk_status check_change(struct check *x, struct vk_bytes k, struct vk_bytes v)
{
	uint64_t sequence;
	uint8_t key[12];
	struct vk_rec_change ch;
	struct vk_rec_point head;
	if (!vk_rec_sequence_key_read(k, &sequence) || !vk_rec_change_decode(&ch, sequence, v))
		return BAD(x, "change table: an entry does not check");
	if (ch.op == VK_CHANGE_WRITTEN) {
		if (!head_of(x, ch.slot, &head) || head.sequence != sequence)
			return BAD(x, "change %llu is not the newest of slot %u",
				   (unsigned long long)sequence, ch.slot);
		return VK_OK;
	}
	vk_rec_free_key(key, sequence, ch.slot);
	if (vk_kv_get(x->v.t, VK_T_FREE, span(key, 12), &v))
		return BAD(x, "tombstone %llu: slot %u is not free", (unsigned long long)sequence, ch.slot);
	return VK_OK;
}

static enum vk_status check_free(struct check *x, struct vk_bytes k, struct vk_bytes v)
{
	uint64_t sequence;
	uint32_t slot;
	if (!vk_rec_free_key_read(k, &sequence, &slot) || v.n)
		return BAD(x, "free list: an entry does not check");
	if (vk_bitmap_has(x->live, slot) || slot >= x->s.next_slot)
		return BAD(x, "free list: slot %u is not free", slot);
	vk_bitmap_add(x->live, slot); /* taken out again below: finds doubles */
	return VK_OK;
}

static enum vk_status check_payload(struct check *x, struct vk_bytes k, struct vk_bytes v)
{
	uint32_t slot;
	struct vk_arena a;
	struct vk_json *doc;
	if (!vk_rec_slot_key_read(k, &slot)) return BAD(x, "payload table: a key does not check");
	if (!vk_bitmap_has(x->live, slot)) return BAD(x, "slot %u: a payload without a point", slot);
	vk_arena_init(&a, SCRATCH_MAX);
	enum vk_status st = vk_json_parse(&a, v, NULL, &doc, NULL);
	bool object = !st && vk_jv_type(vk_json_root(doc)) == VK_J_OBJECT && vk_jv_len(vk_json_root(doc));
	vk_json_free(doc);
	vk_arena_free(&a);
	return object ? VK_OK : BAD(x, "slot %u: its payload cannot be read", slot);
}

static enum vk_status check_points(struct check *x)
{
	struct vk_kv_txn *t = x->v.t;
	enum vk_status st = each_entry(x, VK_T_ID, check_id);
	if (!st) st = each_entry(x, VK_T_POINT, check_point);
	if (!st && (vk_bitmap_count(x->live) != x->s.points || vk_kv_entries(t, VK_T_POINT) != x->s.points))
		st = BAD(x, "%llu points are counted, %llu are there", (unsigned long long)x->s.points,
			 (unsigned long long)vk_kv_entries(t, VK_T_POINT));
	if (!st) st = each_entry(x, VK_T_CHANGE, check_change);
	return st ? st : each_entry(x, VK_T_PAYLOAD, check_payload);
}

static enum vk_status check_free_list(struct check *x)
{
	struct vk_bitmap *live = vk_bitmap_copy(x->live);
	if (!live) return VK_E_NOMEM;
	enum vk_status st = each_entry(x, VK_T_FREE, check_free);
	if (!st && vk_bitmap_count(x->live) != x->s.next_slot) st = BAD(x, "a slot is neither taken nor free");
	vk_bitmap_free(x->live);
	x->live = live;
	return st;
}

/* --- bitmaps and rows --- */

static bool same(const struct vk_bitmap *a, const struct vk_bitmap *b)
{
	uint64_t n = vk_bitmap_count(a);
	return n == vk_bitmap_count(b) && n == vk_bitmap_count_and(a, b);
}

static enum vk_status check_live(struct check *x)
{
	struct vk_bitmap *live;
	enum vk_status st = vk_field_live(x->v.t, &live);
	if (!st && !same(live, x->live)) st = BAD(x, "the live bitmap is not the id table's");
	vk_bitmap_free(live);
	return st;
}

static enum vk_status check_set(struct check *x, const struct vk_vector_conf *v)
{
	struct vk_bitmap *has = NULL, *rows = vk_bitmap_new();
	if (!rows) return VK_E_NOMEM;
	enum vk_status st = vk_field_has_set(x->v.t, v->set.id, &has);
	if (!st) st = vk_vset_slots(x->v.t, &v->set, rows);
	if (!st && !same(has, rows))
		st = BAD(x, "vector %s: %llu rows, %llu in its bitmap", v->name,
			 (unsigned long long)vk_bitmap_count(rows), (unsigned long long)vk_bitmap_count(has));
	if (!st && vk_bitmap_count_and(rows, x->live) != vk_bitmap_count(rows))
		st = BAD(x, "vector %s: a row without a point", v->name);
	vk_bitmap_free(has);
	vk_bitmap_free(rows);
	return st;
}

/* --- sparse vectors and texts --- */

/* Of a set that the config has: a sparse one counts among its points, a text belongs to a row. */
static enum vk_status check_carried(struct check *x, uint32_t slot, const struct vk_vector_conf *v, bool sparse)
{
	size_t i = (size_t)(v - x->v.conf->vectors);
	if (v->sparse != sparse) return BAD(x, "vector %s: slot %u carries something of another kind", v->name, slot);
	if (sparse) vk_bitmap_add(x->sparse[i], slot);
	else if (!vk_vset_has(x->v.t, &v->set, slot)) return BAD(x, "vector %s: slot %u has a text without a row", v->name, slot);
	return VK_OK;
}

static enum vk_status check_extra(struct check *x, struct vk_bytes k, struct vk_bytes v)
{
	uint32_t slot, set;
	uint8_t kind, key[10];
	struct vk_bytes word;
	struct vk_rec_sparse sparse;
	struct vk_rec_text text;
	if (!vk_rec_extra_key_read(k, &slot, &kind, &set)) return BAD(x, "extras: a key does not check");
	if (!vk_bitmap_has(x->live, slot)) return BAD(x, "slot %u: it carries something without a point", slot);
	bool good = kind == VK_EXTRA_SPARSE ? vk_rec_sparse_decode(&sparse, slot, set, v) : vk_rec_text_decode(&text, slot, set, v);
	if (!good) return BAD(x, "slot %u: what it carries of vector set %u does not check", slot, set);
	const struct vk_vector_conf *conf = vk_colconf_set(x->v.conf, set);
	if (conf) return check_carried(x, slot, conf, kind == VK_EXTRA_SPARSE);
	vk_rec_drop_set_key(key, set);
	if (vk_kv_get(x->v.t, VK_T_META, span(key, sizeof key), &word))
		return BAD(x, "slot %u: it carries something of vector set %u, which is no more", slot, set);
	return VK_OK;
}

static enum vk_status check_extras(struct check *x)
{
	const struct vk_colconf *c = x->v.conf;
	struct vk_bitmap *has;
	enum vk_status st = VK_OK;
	for (size_t i = c->vectors_n; i < c->vectors_n + c->sparse_n; i++)
		if (!(x->sparse[i] = vk_bitmap_new())) return VK_E_NOMEM;
	st = each_entry(x, VK_T_EXTRA, check_extra);
	for (size_t i = c->vectors_n; !st && i < c->vectors_n + c->sparse_n; i++) {
		st = vk_field_has_set(x->v.t, c->vectors[i].set.id, &has);
		if (st) break;
		if (!same(has, x->sparse[i]))
			st = BAD(x, "sparse vector %s: %llu points have it, %llu are in its bitmap", c->vectors[i].name,
				 (unsigned long long)vk_bitmap_count(x->sparse[i]), (unsigned long long)vk_bitmap_count(has));
		vk_bitmap_free(has);
	}
	return st;
}

/* --- what nobody names any more --- */

static bool word(struct check *x, const uint8_t *key, size_t n)
{
	struct vk_bytes v;
	return !vk_kv_get(x->v.t, VK_T_META, span(key, n), &v);
}

/* In the config, or being dropped. */
static bool set_known(struct check *x, uint32_t set)
{
	uint8_t key[10];
	if (vk_colconf_set(x->v.conf, set)) return true;
	vk_rec_drop_set_key(key, set);
	return word(x, key, sizeof key);
}

static bool field_known(struct check *x, uint16_t field)
{
	uint8_t key[8];
	for (size_t i = 0; i < x->v.conf->fields_n; i++)
		if (x->v.conf->fields[i].field == field) return true;
	vk_rec_drop_field_key(key, field);
	return word(x, key, sizeof key);
}

static enum vk_status check_row_key(struct check *x, struct vk_bytes k, struct vk_bytes v)
{
	uint32_t set, n;
	(void)v;
	if (!vk_rec_vset_key_read(k, &set, &n)) return BAD(x, "rows: a key does not check");
	return set_known(x, set) ? VK_OK : BAD(x, "rows of vector set %u, which is no more", set);
}

static enum vk_status check_field_key(struct check *x, struct vk_bytes k, struct vk_bytes v)
{
	struct vk_field_key_parts p;
	(void)v;
	if (!vk_field_key_read(k, &p)) return BAD(x, "payload indexes: a key does not check");
	if (p.field)
		return field_known(x, p.field)
			   ? VK_OK
			   : BAD(x, "entries of payload index %u, which is no more", p.field);
	if (p.kind == VK_FK_SET && (p.value.n != 4 || !set_known(x, vk_get_u32be((const uint8_t *)p.value.p))))
		return BAD(x, "a bitmap of a vector set which is no more");
	return VK_OK;
}

static enum vk_status check_strays(struct check *x)
{
	static const unsigned rows[] = {VK_T_TAIL, VK_T_BLOCK, VK_T_CODE, VK_T_BITS, VK_T_DEAD};
	enum vk_status st = VK_OK;
	for (size_t i = 0; !st && i < sizeof rows / sizeof *rows; i++) st = each_entry(x, rows[i], check_row_key);
	return st ? st : each_entry(x, VK_T_FIELD, check_field_key);
}

/* --- payload indexes --- */

struct rebuild {
	struct check *x;
	struct vk_kv_txn *to;
	struct vk_field_batch *batch;
	size_t n;
	enum vk_status st;
};

static enum vk_status rebuild_point(struct rebuild *r, uint32_t slot, struct vk_bytes text)
{
	const struct vk_colconf *c = r->x->v.conf;
	struct vk_arena a;
	struct vk_json *doc;
	vk_arena_init(&a, SCRATCH_MAX);
	enum vk_status st = vk_json_parse(&a, text, NULL, &doc, NULL);
	for (size_t i = 0; !st && i < c->fields_n; i++)
		st = vk_field_batch_one(r->batch, &c->fields[i], slot, vk_json_root(doc));
	vk_json_free(doc);
	vk_arena_free(&a);
	if (!st && ++r->n % BUILD_POINTS == 0) {
		st = vk_field_batch_flush(r->batch);
		r->batch = NULL;
		if (!st) st = vk_field_batch_new(r->to, &r->batch);
	}
	return st;
}

static enum vk_status apply_rebuild(void *arg, struct vk_kv_txn *t)
{
	struct rebuild *r = arg;
	struct vk_kv_cursor *cur;
	struct vk_bytes k, v;
	uint32_t slot;
	r->to = t;
	r->n = 0;
	enum vk_status st = vk_field_batch_new(t, &r->batch);
	if (!st) st = vk_kv_cursor_open(r->x->v.t, VK_T_PAYLOAD, &cur);
	if (st) return st;
	st = vk_kv_seek(cur, (struct vk_bytes){0}, &k, &v);
	while (!st) {
		st = vk_rec_slot_key_read(k, &slot) ? rebuild_point(r, slot, v) : VK_E_CORRUPT;
		if (!st) st = vk_kv_next(cur, &k, &v);
	}
	vk_kv_cursor_close(cur);
	if (st == VK_E_NOT_FOUND) st = vk_field_batch_flush(r->batch);
	else vk_field_batch_drop(r->batch);
	return st;
}

static enum vk_status compare_chunk(struct check *x, const struct vk_field_conf *f, struct vk_bytes is,
				    struct vk_bytes want)
{
	struct vk_bitmap *a = vk_bitmap_new(), *b = vk_bitmap_new();
	enum vk_status st = a && b ? VK_OK : VK_E_NOMEM;
	if (!st) st = vk_bitmap_or_chunk(a, 0, is);
	if (!st) st = vk_bitmap_or_chunk(b, 0, want);
	if (!st && !same(a, b))
		st = BAD(x, "index %s: a value has other points than the payloads say", f->path);
	vk_bitmap_free(a);
	vk_bitmap_free(b);
	return st;
}

static bool of_field(struct vk_bytes k, uint16_t field)
{
	return k.n >= 2 && (uint8_t)k.p[0] == field >> 8 && (uint8_t)k.p[1] == (field & 255);
}

/* Both tables' entries of one field, side by side. */
static enum vk_status compare_field(struct check *x, struct vk_kv_txn *built, const struct vk_field_conf *f)
{
	const uint8_t prefix[2] = {(uint8_t)(f->field >> 8), (uint8_t)f->field};
	struct vk_kv_cursor *is = NULL, *want = NULL;
	struct vk_bytes ik, iv, wk, wv;
	enum vk_status st = vk_kv_cursor_open(x->v.t, VK_T_FIELD, &is);
	if (!st) st = vk_kv_cursor_open(built, VK_T_FIELD, &want);
	enum vk_status a = st ? st : vk_kv_seek(is, span(prefix, 2), &ik, &iv);
	enum vk_status b = st ? st : vk_kv_seek(want, span(prefix, 2), &wk, &wv);
	while (!st) {
		bool more_is = !a && of_field(ik, f->field), more_want = !b && of_field(wk, f->field);
		if (!more_is && !more_want) break;
		if (more_is != more_want || !vk_bytes_eq(ik, wk))
			st = BAD(x, "index %s: it holds other values than the payloads", f->path);
		else if (!vk_bytes_eq(iv, wv))
			st = compare_chunk(x, f, iv, wv);
		a = vk_kv_next(is, &ik, &iv);
		b = vk_kv_next(want, &wk, &wv);
	}
	vk_kv_cursor_close(is);
	vk_kv_cursor_close(want);
	return st;
}

static enum vk_status compare_fields(struct check *x, struct vk_kv *kv)
{
	struct rebuild r = {.x = x};
	struct vk_kv_job job = {.apply = apply_rebuild, .arg = &r};
	struct vk_kv_txn *built;
	enum vk_status st = vk_kv_run(kv, &job);
	if (!st) st = vk_kv_view_begin(kv, &built);
	if (st) return vk_fail(x->err, st, "building the payload indexes anew: %s", vk_status_text(st));
	for (size_t i = 0; !st && i < x->v.conf->fields_n; i++)
		if (x->v.conf->fields[i].ready) st = compare_field(x, built, &x->v.conf->fields[i]);
	vk_kv_view_end(built);
	return st;
}

static enum vk_status check_fields(struct check *x, const char *scratch)
{
	static const char *const tables[VK_T_COUNT] = VK_TABLE_NAMES;
	struct vk_kv_opts o = {.map_bytes = (uint64_t)1 << 30, .tables = tables, .tables_n = VK_T_COUNT};
	struct vk_kv *kv;
	enum vk_status st = vk_kv_writers_new(1, &o.writers);
	if (!st) st = vk_kv_open(scratch, &o, &kv, x->err);
	if (!st) {
		st = compare_fields(x, kv);
		vk_kv_close(kv);
	}
	vk_kv_writers_free(o.writers);
	return st;
}

enum vk_status vk_collection_check(struct vk_collection *c, const char *scratch, struct vk_error *err)
{
	struct check x = {.err = err, .live = vk_bitmap_new()};
	enum vk_status st = x.live ? vk_view_begin(c, 0, &x.v) : VK_E_NOMEM;
	if (!st) st = vk_state_get(x.v.t, &x.s);
	if (!st) st = check_points(&x);
	if (!st) st = check_free_list(&x);
	if (!st) st = check_live(&x);
	for (size_t i = 0; !st && i < x.v.conf->vectors_n; i++) st = check_set(&x, &x.v.conf->vectors[i]);
	if (!st) st = check_extras(&x);
	if (!st) st = check_strays(&x);
	if (!st && scratch && x.v.conf->fields_n) st = check_fields(&x, scratch);
	vk_view_end(&x.v);
	vk_bitmap_free(x.live);
	for (size_t i = 0; i < VK_VECTORS_MAX; i++) vk_bitmap_free(x.sparse[i]);
	return st;
}
