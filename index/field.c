/*
 * Payload indexes, reading: walks over keys in order. Everything here costs by how many different values are
 * touched, and by how many chunks; payload is opened only to name a long keyword in a facet.
 */
#include "index/field.h"

#include <math.h>
#include <stdlib.h>

#include "index/field_read.h"
#include "index/id.h"
#include "index/tables.h"
#include "store/record_point.h"

/* --- values --- */

static const uint8_t kind_of_type[VK_FIELD_TYPES] = {
    [VK_FIELD_KEYWORD] = VK_FK_KEYWORD, [VK_FIELD_INTEGER] = VK_FK_I64,
    [VK_FIELD_FLOAT] = VK_FK_F64,	[VK_FIELD_BOOL] = VK_FK_BOOL,
    [VK_FIELD_DATETIME] = VK_FK_I64,	[VK_FIELD_UUID] = VK_FK_UUID,
    [VK_FIELD_GEO] = VK_FK_GEO,		[VK_FIELD_TEXT] = 0,
};

uint8_t vk_field_value_kind(enum vk_field_type type) { return kind_of_type[type]; }

bool vk_geo_value(const vk_jv *v, double *lat, double *lon)
{
	return vk_jv_type(v) == VK_J_OBJECT && vk_jv_f64(vk_jv_get(v, "lat"), lat) &&
	       vk_jv_f64(vk_jv_get(v, "lon"), lon);
}

static bool geo_in_range(double lat, double lon)
{
	return lat >= -90 && lat <= 90 && lon >= -180 && lon <= 180;
}

bool vk_field_value(enum vk_field_type type, const vk_jv *v, struct vk_fv *out)
{
	struct vk_bytes s;
	int64_t i;
	double d, lon;
	bool b;
	uint8_t uuid[16];
	switch (type) {
	case VK_FIELD_KEYWORD:
		if (!vk_jv_str(v, &s)) return false;
		vk_fv_keyword(out, s);
		return true;
	case VK_FIELD_INTEGER:
		if (!vk_jv_i64(v, &i)) return false;
		vk_fv_i64(out, i);
		return true;
	case VK_FIELD_FLOAT:
		if (!vk_jv_f64(v, &d)) return false;
		vk_fv_f64(out, d);
		return true;
	case VK_FIELD_BOOL:
		if (!vk_jv_bool(v, &b)) return false;
		vk_fv_bool(out, b);
		return true;
	case VK_FIELD_DATETIME:
		if (!vk_jv_str(v, &s) || !vk_datetime_parse(s, &i)) return false;
		vk_fv_i64(out, i);
		return true;
	case VK_FIELD_UUID:
		if (!vk_jv_str(v, &s) || !vk_uuid_parse(s, uuid)) return false;
		vk_fv_uuid(out, uuid);
		return true;
	case VK_FIELD_GEO:
		if (!vk_geo_value(v, &d, &lon) || !geo_in_range(d, lon)) return false;
		vk_fv_geo(out, d, lon);
		return true;
	default: out->kind = 0; return vk_jv_type(v) == VK_J_STRING;
	}
}

/* --- walks --- */

enum vk_status vk_field_scan(struct vk_kv_txn *t, uint16_t field, uint8_t kind, struct vk_bytes from,
			     vk_field_scan_fn *fn, void *arg)
{
	struct vk_kv_cursor *c;
	struct vk_field_key start;
	struct vk_field_key_parts parts;
	struct vk_bytes k, v;
	enum vk_status st = vk_kv_cursor_open(t, VK_T_FIELD, &c);
	if (st) return st;
	vk_field_key_make(&start, field, kind, from, 0);
	if (!from.n) vk_field_key_head(&start, field, kind);
	st = vk_kv_seek(c, vk_field_key_bytes(&start), &k, &v);
	while (!st && k.n >= VK_FIELD_KEY_HEAD && memcmp(k.p, start.b, VK_FIELD_KEY_HEAD) == 0) {
		if (!vk_field_key_read(k, &parts)) st = VK_E_CORRUPT;
		else if (!fn(arg, &parts, v)) break;
		else st = vk_kv_next(c, &k, &v);
	}
	vk_kv_cursor_close(c);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

struct one_value {
	struct vk_bytes value;
	struct vk_bitmap *b; /* NULL: count only */
	uint64_t n;
	enum vk_status st;
};

static bool take_chunk(void *arg, const struct vk_field_key_parts *k, struct vk_bytes chunk)
{
	struct one_value *o = arg;
	if (!vk_bytes_eq(k->value, o->value)) return false;
	o->n += vk_bitmap_chunk_count(chunk);
	if (o->b) o->st = vk_bitmap_or_chunk(o->b, k->chunk, chunk);
	return !o->st;
}

enum vk_status vk_field_or(struct vk_kv_txn *t, uint16_t field, uint8_t kind, struct vk_bytes value,
			   struct vk_bitmap *b)
{
	struct one_value o = {.value = value, .b = b};
	enum vk_status st = vk_field_scan(t, field, kind, value, take_chunk, &o);
	return st ? st : o.st ? o.st : vk_bitmap_failed(b) ? VK_E_NOMEM : VK_OK;
}

enum vk_status vk_field_count(struct vk_kv_txn *t, uint16_t field, uint8_t kind, struct vk_bytes value,
			      uint64_t *n)
{
	struct one_value o = {.value = value};
	enum vk_status st = vk_field_scan(t, field, kind, value, take_chunk, &o);
	*n = o.n;
	return st;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static void gather_flush(struct vk_gather *g)
{
	qsort(g->slot, g->n, sizeof g->slot[0], compare_u32); /* neighbours then share a container */
	vk_bitmap_add_many(g->into, g->slot, g->n);
	g->n = 0;
}

void vk_gather_chunk(struct vk_gather *g, uint16_t chunk, struct vk_bytes bytes)
{
	uint32_t few[16];
	size_t n;
	if (g->st) return;
	if (vk_bitmap_chunk_count(bytes) > 16) {
		g->st = vk_bitmap_or_chunk(g->into, chunk, bytes);
		return;
	}
	g->st = vk_bitmap_chunk_slots(chunk, bytes, few, &n);
	if (g->n + n > VK_GATHER_SLOTS) gather_flush(g);
	memcpy(g->slot + g->n, few, n * sizeof few[0]);
	g->n += n;
}

enum vk_status vk_gather_end(struct vk_gather *g)
{
	if (g->n) gather_flush(g);
	return g->st ? g->st : vk_bitmap_failed(g->into) ? VK_E_NOMEM : VK_OK;
}

static enum vk_status read_value(struct vk_kv_txn *t, uint16_t field, uint8_t kind, struct vk_bytes value,
				 struct vk_bitmap **out)
{
	struct vk_bitmap *b = vk_bitmap_new();
	if (!b) return VK_E_NOMEM;
	enum vk_status st = vk_field_or(t, field, kind, value, b);
	if (st) vk_bitmap_free(b);
	else *out = b;
	return st;
}

enum vk_status vk_field_live(struct vk_kv_txn *t, struct vk_bitmap **out)
{
	return read_value(t, 0, VK_FK_LIVE, (struct vk_bytes){0}, out);
}

enum vk_status vk_field_has_set(struct vk_kv_txn *t, uint32_t set_id, struct vk_bitmap **out)
{
	uint8_t id[4];
	vk_put_u32be(id, set_id);
	return read_value(t, 0, VK_FK_SET, (struct vk_bytes){(char *)id, 4}, out);
}

enum vk_status vk_field_points(struct vk_kv_txn *t, const struct vk_field_conf *f, uint64_t *n)
{
	return vk_field_count(t, f->field, VK_FK_ANY, (struct vk_bytes){0}, n);
}

/* --- facets --- */

struct facet {
	struct vk_kv_txn *t;
	const struct vk_field_conf *f;
	const struct vk_bitmap *in;
	bool (*fn)(void *arg, const struct vk_facet_hit *h);
	void *arg;
	struct vk_fv value; /* whose chunks are being counted; n == 0: none yet */
	uint64_t count;
	uint32_t member; /* a slot that has it */
	bool stopped;
	enum vk_status st;
};

struct find_text {
	struct vk_fv want;
	struct vk_bytes text;
};

static bool is_wanted(void *arg, const vk_jv *v)
{
	struct find_text *find = arg;
	struct vk_fv fv;
	struct vk_bytes s;
	if (!vk_jv_str(v, &s)) return true;
	vk_fv_keyword(&fv, s);
	if (fv.kind != find->want.kind || !vk_bytes_eq(vk_fv_bytes(&fv), vk_fv_bytes(&find->want)))
		return true;
	find->text = s;
	return false;
}

/* A long keyword's text is in the payload of a slot that has it. */
static enum vk_status give_long(struct facet *x, struct vk_facet_hit *h)
{
	struct find_text find = {.want = x->value};
	struct vk_arena a;
	struct vk_path path;
	struct vk_json *doc = NULL;
	struct vk_bytes payload;
	uint8_t slot[4];
	vk_arena_init(&a, (size_t)256 << 20);
	vk_rec_slot_key(slot, x->member);
	enum vk_status st = vk_kv_get(x->t, VK_T_PAYLOAD, (struct vk_bytes){(char *)slot, 4}, &payload);
	if (!st) st = vk_path_parse(&a, vk_bytes_of(x->f->path), &path, NULL);
	if (!st) st = vk_json_parse(&a, payload, NULL, &doc, NULL);
	if (!st) vk_path_values(vk_json_root(doc), &path, is_wanted, &find);
	h->text = find.text;
	if (!st && !find.text.n) st = VK_E_CORRUPT;
	if (!st) x->stopped = !x->fn(x->arg, h);
	vk_json_free(doc);
	vk_arena_free(&a);
	return st == VK_E_NOT_FOUND ? VK_E_CORRUPT : st;
}

static void give_facet(struct facet *x)
{
	struct vk_facet_hit h = {.type = x->f->type, .count = x->count};
	struct vk_bytes v = vk_fv_bytes(&x->value);
	char uuid[37];
	if (!x->count || x->st || x->stopped) return;
	switch (x->value.kind) {
	case VK_FK_KEYWORD: h.text = vk_fv_read_keyword(v); break;
	case VK_FK_KEYWORD_HASH: x->st = give_long(x, &h); return;
	case VK_FK_I64: h.i64 = vk_fv_read_i64(v); break;
	case VK_FK_BOOL: h.b = v.p[0] != 0; break;
	default: vk_uuid_print(uuid, x->value.b); h.text = (struct vk_bytes){uuid, 36};
	}
	x->stopped = !x->fn(x->arg, &h);
}

static bool count_chunk(void *arg, const struct vk_field_key_parts *k, struct vk_bytes chunk)
{
	struct facet *x = arg;
	uint64_t n = vk_bitmap_chunk_count(chunk);
	if (!vk_bytes_eq(k->value, vk_fv_bytes(&x->value)) || x->value.kind != k->kind) {
		give_facet(x);
		x->value.kind = k->kind;
		x->value.n = (uint8_t)k->value.n;
		memcpy(x->value.b, k->value.p, k->value.n);
		x->count = 0;
		struct vk_bitmap *b = k->kind == VK_FK_KEYWORD_HASH ? vk_bitmap_new() : NULL;
		uint32_t last;
		if (b) x->st = x->st ? x->st : vk_bitmap_or_chunk(b, k->chunk, chunk);
		if (b) vk_bitmap_bounds(b, &x->member, &last);
		vk_bitmap_free(b);
	}
	if (!x->st && x->in) x->st = vk_bitmap_chunk_count_and(x->in, k->chunk, chunk, &n);
	x->count += n;
	return !x->st && !x->stopped;
}

enum vk_status vk_field_facet(struct vk_kv_txn *t, const struct vk_field_conf *f, const struct vk_bitmap *in,
			      bool (*fn)(void *arg, const struct vk_facet_hit *h), void *arg)
{
	struct facet x = {.t = t, .f = f, .in = in, .fn = fn, .arg = arg};
	uint8_t kind = vk_field_value_kind(f->type);
	if (kind != VK_FK_KEYWORD && kind != VK_FK_I64 && kind != VK_FK_BOOL && kind != VK_FK_UUID)
		return VK_E_INVALID;
	enum vk_status st = vk_field_scan(t, f->field, kind, (struct vk_bytes){0}, count_chunk, &x);
	if (!st && !x.st && !x.stopped && kind == VK_FK_KEYWORD)
		st = vk_field_scan(t, f->field, VK_FK_KEYWORD_HASH, (struct vk_bytes){0}, count_chunk, &x);
	if (!st && x.value.kind) give_facet(&x);
	return st ? st : x.st;
}

/* --- order --- */

struct order {
	const struct vk_field_conf *f;
	bool descending;
	bool (*fn)(void *arg, const struct vk_order_value *v, uint32_t slot);
	void *arg;
	uint32_t *slots;
};

/* The key at which the walk begins; false when nothing can come. Ascending: the first entry >= it;
 * descending: the last < it. */
static bool order_start(const struct order *o, const struct vk_order_value *from, struct vk_field_key *key)
{
	struct vk_fv v;
	uint8_t kind = vk_field_value_kind(o->f->type);
	if (!from) {
		vk_field_key_head(key, o->f->field, (uint8_t)(kind + o->descending));
		return true;
	}
	if (kind == VK_FK_F64) {
		double d = from->is_i64 ? (double)from->i64 : from->f64;
		if (isnan(d)) return false;
		vk_fv_f64(&v, d);
	} else if (from->is_i64) {
		vk_fv_i64(&v, from->i64);
	} else { /* between two integers: the next one on the walk's way */
		double d = o->descending ? floor(from->f64) : ceil(from->f64);
		if (isnan(d) || (o->descending ? d < -0x1p63 : d >= 0x1p63)) return false;
		vk_fv_i64(&v, d >= 0x1p63 ? INT64_MAX : d < -0x1p63 ? INT64_MIN : (int64_t)d);
	}
	vk_field_key_make(key, o->f->field, kind, vk_fv_bytes(&v), o->descending ? UINT16_MAX : 0);
	if (o->descending) key->b[key->n++] = 0; /* behind the value's last chunk */
	return true;
}

/* The chunk's slots in the walk's direction; *stop when fn has enough. */
static enum vk_status order_chunk(const struct order *o, const struct vk_field_key_parts *k,
				  struct vk_bytes chunk, bool *stop)
{
	struct vk_order_value v = {.is_i64 = k->kind == VK_FK_I64};
	size_t n;
	if (v.is_i64) v.i64 = vk_fv_read_i64(k->value);
	else v.f64 = vk_fv_read_f64(k->value);
	enum vk_status st = vk_bitmap_chunk_slots(k->chunk, chunk, o->slots, &n);
	for (size_t i = 0; i < n && !*stop; i++)
		*stop = !o->fn(o->arg, &v, o->slots[o->descending ? n - 1 - i : i]);
	return st;
}

static enum vk_status order_walk(const struct order *o, struct vk_kv_cursor *c,
				 const struct vk_field_key *start)
{
	struct vk_field_key_parts parts;
	struct vk_bytes k, v;
	bool stop = false;
	uint8_t kind = vk_field_value_kind(o->f->type);
	enum vk_status st = o->descending ? vk_kv_seek_before(c, vk_field_key_bytes(start), &k, &v)
					  : vk_kv_seek(c, vk_field_key_bytes(start), &k, &v);
	while (!st) {
		if (!vk_field_key_read(k, &parts) || parts.field != o->f->field || parts.kind != kind) break;
		st = order_chunk(o, &parts, v, &stop);
		if (stop) break;
		if (!st) st = o->descending ? vk_kv_prev(c, &k, &v) : vk_kv_next(c, &k, &v);
	}
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

enum vk_status vk_field_order(struct vk_kv_txn *t, const struct vk_field_conf *f, bool descending,
			      const struct vk_order_value *from,
			      bool (*fn)(void *arg, const struct vk_order_value *v, uint32_t slot), void *arg)
{
	struct order o = {.f = f, .descending = descending, .fn = fn, .arg = arg};
	struct vk_field_key start;
	struct vk_kv_cursor *c = NULL;
	uint8_t kind = vk_field_value_kind(f->type);
	if (kind != VK_FK_I64 && kind != VK_FK_F64) return VK_E_INVALID;
	if (!order_start(&o, from, &start)) return VK_OK;
	o.slots = malloc(VK_BITMAP_CHUNK_SLOTS * sizeof *o.slots);
	enum vk_status st = o.slots ? vk_kv_cursor_open(t, VK_T_FIELD, &c) : VK_E_NOMEM;
	if (!st) st = order_walk(&o, c, &start);
	if (c) vk_kv_cursor_close(c);
	free(o.slots);
	return st;
}
