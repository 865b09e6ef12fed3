/*
 * Payload indexes, writing. A point's payload gives a sorted list of terms (kind and value as in keys) per
 * field; what is in the list before and not after is taken out, the other way round put in. The changes of a
 * whole group gather as (key, slot) and are sorted at the flush, so that a chunk is read and written once
 * however many points touched it.
 */
#include <stdlib.h>

#include "index/field_read.h"
#include "index/id.h"
#include "index/tables.h"

#define KEYS_BYTES_MAX ((size_t)3 << 30) /* keys of one group; a group's payload is capped far below */

/* --- terms of one payload --- */

struct term {
	uint32_t at; /* kind and value in `bytes` */
	uint8_t n;
};
struct terms {
	struct vk_buf bytes;
	struct term *v;
	size_t n, cap;
	bool failed;
};

static void push_term(struct terms *t, uint8_t kind, const void *value, size_t n)
{
	if (t->n == t->cap) {
		size_t cap = t->cap ? 2 * t->cap : 16;
		struct term *v = realloc(t->v, cap * sizeof *v);
		if (!v) {
			t->failed = true;
			return;
		}
		t->v = v;
		t->cap = cap;
	}
	t->v[t->n++] = (struct term){.at = (uint32_t)t->bytes.n, .n = (uint8_t)(n + 1)};
	vk_buf_putc(&t->bytes, (char)kind);
	vk_buf_put(&t->bytes, value, n);
	t->failed |= t->bytes.failed;
}

static void terms_free(struct terms *t)
{
	vk_buf_free(&t->bytes);
	free(t->v);
}

static int compare_spans(const char *a, size_t an, const char *b, size_t bn)
{
	int c = memcmp(a, b, an < bn ? an : bn);
	return c ? c : (an > bn) - (an < bn);
}

static int compare_terms(const void *x, const void *y, void *arg)
{
	const struct term *a = x, *b = y;
	const char *bytes = arg;
	return compare_spans(bytes + a->at, a->n, bytes + b->at, b->n);
}

static void sort_terms(struct terms *t)
{
	size_t kept = 0;
	if (t->n < 2 || t->failed) return;
	qsort_r(t->v, t->n, sizeof *t->v, compare_terms, t->bytes.p);
	for (size_t i = 0; i < t->n; i++)
		if (!kept || compare_terms(&t->v[kept - 1], &t->v[i], t->bytes.p)) t->v[kept++] = t->v[i];
	t->n = kept;
}

/* --- a payload's terms for one field --- */

struct extract {
	enum vk_field_type type;
	struct terms *terms;
	bool null, exists, other, any;
};

static bool take_value(void *arg, const vk_jv *v)
{
	struct extract *x = arg;
	struct vk_fv fv;
	if (vk_jv_type(v) == VK_J_NULL) return true;
	if (!vk_field_value(x->type, v, &fv)) {
		x->other = true;
		return true;
	}
	x->any = true;
	if (fv.kind) push_term(x->terms, fv.kind, fv.b, fv.n);
	return true;
}

static bool see_null(void *arg, const vk_jv *v)
{
	bool *null = arg;
	*null |= vk_jv_type(v) == VK_J_NULL;
	return !*null;
}

static bool take_reached(void *arg, const vk_jv *v)
{
	struct extract *x = arg;
	switch (vk_jv_type(v)) {
	case VK_J_NULL: x->null = true; return true;
	case VK_J_ARRAY:
	case VK_J_NUMBERS:
		x->exists |= vk_jv_len(v) > 0;
		vk_jv_each(v, see_null, &x->null);
		return vk_jv_each(v, take_value, x);
	default: x->exists = true; return take_value(x, v);
	}
}

static enum vk_status extract(const struct vk_field_conf *f, const vk_jv *payload, struct terms *terms)
{
	struct vk_path path;
	struct vk_arena none;
	struct extract x = {.type = f->type, .terms = terms};
	vk_arena_init(&none, 0);
	vk_buf_init(&terms->bytes, KEYS_BYTES_MAX);
	if (!payload) return VK_OK;
	enum vk_status st = vk_path_parse(&none, vk_bytes_of(f->path), &path, NULL);
	if (st) return st;
	vk_path_each(payload, &path, take_reached, &x);
	sort_terms(terms);
	bool multi = terms->n > 1;
	if (x.any) push_term(terms, VK_FK_ANY, NULL, 0);
	if (x.null) push_term(terms, VK_FK_NULL, NULL, 0);
	if (x.exists) push_term(terms, VK_FK_EXISTS, NULL, 0);
	if (x.other) push_term(terms, VK_FK_OTHER, NULL, 0);
	if (multi) push_term(terms, VK_FK_MULTI, NULL, 0);
	sort_terms(terms);
	return terms->failed ? VK_E_NOMEM : VK_OK;
}

/* --- the batch --- */

struct change {
	size_t at; /* key without its chunk, in `keys` */
	uint32_t slot, order;
	uint8_t n;
	bool add;
};
struct vk_field_batch {
	struct vk_kv_txn *t;
	struct vk_buf keys;
	struct change *v;
	size_t n, cap;
	bool failed;
};

enum vk_status vk_field_batch_new(struct vk_kv_txn *t, struct vk_field_batch **out)
{
	*out = calloc(1, sizeof **out);
	if (!*out) return VK_E_NOMEM;
	(*out)->t = t;
	vk_buf_init(&(*out)->keys, KEYS_BYTES_MAX);
	return VK_OK;
}

void vk_field_batch_drop(struct vk_field_batch *b)
{
	if (!b) return;
	vk_buf_free(&b->keys);
	free(b->v);
	free(b);
}

/* value: kind and value bytes, as a term has them. */
static void push_change(struct vk_field_batch *b, uint16_t field, const void *value, size_t n, uint32_t slot,
			bool add)
{
	if (b->n == b->cap) {
		size_t cap = b->cap ? 2 * b->cap : 256;
		struct change *v = cap <= UINT32_MAX ? realloc(b->v, cap * sizeof *v) : NULL;
		if (!v) {
			b->failed = true;
			return;
		}
		b->v = v;
		b->cap = cap;
	}
	const char head[2] = {(char)(field >> 8), (char)field};
	b->v[b->n] = (struct change){
	    .at = b->keys.n, .n = (uint8_t)(n + 2), .slot = slot, .order = (uint32_t)b->n, .add = add};
	b->n++;
	vk_buf_put(&b->keys, head, 2);
	vk_buf_put(&b->keys, value, n);
	b->failed |= b->keys.failed;
}

static void push_difference(struct vk_field_batch *b, uint16_t field, uint32_t slot, const struct terms *was,
			    const struct terms *is)
{
	size_t i = 0, j = 0;
	while (i < was->n || j < is->n) {
		const struct term *x = i < was->n ? &was->v[i] : NULL, *y = j < is->n ? &is->v[j] : NULL;
		int c = !x ? 1 : !y ? -1 : compare_spans(was->bytes.p + x->at, x->n, is->bytes.p + y->at, y->n);
		if (c < 0) push_change(b, field, was->bytes.p + x->at, x->n, slot, false);
		if (c > 0) push_change(b, field, is->bytes.p + y->at, y->n, slot, true);
		i += c <= 0;
		j += c >= 0;
	}
}

static enum vk_status batch_field(struct vk_field_batch *b, const struct vk_field_conf *f, uint32_t slot,
				  const vk_jv *before, const vk_jv *after)
{
	struct terms was = {0}, is = {0};
	enum vk_status st = extract(f, before, &was);
	if (!st) st = extract(f, after, &is);
	if (!st) push_difference(b, f->field, slot, &was, &is);
	terms_free(&was);
	terms_free(&is);
	return st ? st : b->failed ? VK_E_NOMEM : VK_OK;
}

enum vk_status vk_field_batch_payload(struct vk_field_batch *b, const struct vk_colconf *c, uint32_t slot,
				      const vk_jv *before, const vk_jv *after)
{
	enum vk_status st = VK_OK;
	for (size_t i = 0; i < c->fields_n && !st; i++)
		st = batch_field(b, &c->fields[i], slot, before, after);
	return st;
}

enum vk_status vk_field_batch_one(struct vk_field_batch *b, const struct vk_field_conf *f, uint32_t slot,
				  const vk_jv *after)
{
	return batch_field(b, f, slot, NULL, after);
}

void vk_field_batch_live(struct vk_field_batch *b, uint32_t slot, bool live)
{
	const uint8_t kind = VK_FK_LIVE;
	push_change(b, 0, &kind, 1, slot, live);
}

void vk_field_batch_set(struct vk_field_batch *b, uint32_t set_id, uint32_t slot, bool has)
{
	uint8_t value[5] = {VK_FK_SET};
	vk_put_u32be(value + 1, set_id);
	push_change(b, 0, value, sizeof value, slot, has);
}

/* --- flush --- */

/* By key, chunk, then the order they came in. */
static int compare_changes(const void *x, const void *y, void *arg)
{
	const struct change *a = x, *b = y;
	const char *keys = arg;
	int c = compare_spans(keys + a->at, a->n, keys + b->at, b->n);
	if (c) return c;
	uint32_t ca = a->slot >> 16, cb = b->slot >> 16;
	if (ca != cb) return ca < cb ? -1 : 1;
	return a->order < b->order ? -1 : 1;
}

static bool same_chunk(const struct vk_field_batch *b, const struct change *x, const struct change *y)
{
	return x->n == y->n && x->slot >> 16 == y->slot >> 16 &&
	       memcmp(b->keys.p + x->at, b->keys.p + y->at, x->n) == 0;
}

static enum vk_status store_chunk(struct vk_kv_txn *t, const struct vk_field_key *key,
				  const struct vk_bitmap *bits, uint16_t chunk, bool was_there)
{
	struct vk_buf buf;
	enum vk_status st = VK_OK;
	vk_buf_init(&buf, (size_t)1 << 16);
	vk_bitmap_encode_chunk(bits, chunk, &buf);
	if (buf.failed) st = VK_E_NOMEM;
	else if (buf.n) st = vk_kv_put(t, VK_T_FIELD, vk_field_key_bytes(key), vk_buf_bytes(&buf));
	else if (was_there) st = vk_kv_del(t, VK_T_FIELD, vk_field_key_bytes(key));
	vk_buf_free(&buf);
	return st;
}

/* Changes [c, c + n) are of one chunk. */
static enum vk_status flush_chunk(struct vk_field_batch *b, const struct change *c, size_t n)
{
	const char *p = b->keys.p + c->at;
	uint16_t chunk = (uint16_t)(c->slot >> 16);
	struct vk_field_key key;
	struct vk_bytes old = {0};
	vk_field_key_make(&key, (uint16_t)((uint8_t)p[0] << 8 | (uint8_t)p[1]), (uint8_t)p[2],
			  (struct vk_bytes){p + 3, (size_t)c->n - 3}, chunk);
	struct vk_bitmap *bits = vk_bitmap_new();
	if (!bits) return VK_E_NOMEM;
	enum vk_status st = vk_kv_get(b->t, VK_T_FIELD, vk_field_key_bytes(&key), &old);
	bool there = st == VK_OK;
	if (there) st = vk_bitmap_or_chunk(bits, chunk, old);
	else if (st == VK_E_NOT_FOUND) st = VK_OK;
	for (size_t i = 0; i < n && !st; i++)
		if (c[i].add) vk_bitmap_add(bits, c[i].slot);
		else vk_bitmap_remove(bits, c[i].slot);
	if (!st) st = store_chunk(b->t, &key, bits, chunk, there);
	vk_bitmap_free(bits);
	return st;
}

enum vk_status vk_field_batch_flush(struct vk_field_batch *b)
{
	enum vk_status st = b->failed ? VK_E_NOMEM : VK_OK;
	if (!st && b->n) qsort_r(b->v, b->n, sizeof *b->v, compare_changes, b->keys.p);
	for (size_t i = 0, end; i < b->n && !st; i = end) {
		for (end = i + 1; end < b->n && same_chunk(b, &b->v[i], &b->v[end]);) end++;
		st = flush_chunk(b, b->v + i, end - i);
	}
	vk_field_batch_drop(b);
	return st;
}

/* --- dropping --- */

/* Deletes entries that begin with prefix, at most budget; VK_E_BUSY: there are more. */
static enum vk_status drop_prefix(struct vk_kv_txn *t, struct vk_bytes prefix, size_t budget)
{
	struct vk_kv_cursor *c;
	struct vk_bytes k, v;
	enum vk_status st = vk_kv_cursor_open(t, VK_T_FIELD, &c);
	if (st) return st;
	st = vk_kv_seek(c, prefix, &k, &v);
	while (!st && k.n >= prefix.n && memcmp(k.p, prefix.p, prefix.n) == 0) {
		if (budget-- == 0) {
			st = VK_E_BUSY;
			break;
		}
		st = vk_kv_cursor_del(c);
		if (!st) st = vk_kv_next(c, &k, &v);
	}
	vk_kv_cursor_close(c);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

enum vk_status vk_field_drop_step(struct vk_kv_txn *t, uint16_t field, size_t budget)
{
	const char prefix[2] = {(char)(field >> 8), (char)field};
	return drop_prefix(t, (struct vk_bytes){prefix, 2}, budget);
}

enum vk_status vk_field_drop_set(struct vk_kv_txn *t, uint32_t set_id)
{
	struct vk_field_key key;
	uint8_t id[4];
	vk_put_u32be(id, set_id);
	vk_field_key_make(&key, 0, VK_FK_SET, (struct vk_bytes){(char *)id, 4}, 0);
	return drop_prefix(t, (struct vk_bytes){(char *)key.b, key.n - 2}, SIZE_MAX);
}
