/*
 * Walks over a set: parts for a scan, slots, scrubbing.
 *
 * Parts are found by cursors that go side by side over block, code, bits, dead and tail, each step where it
 * can, a seek where blocks are left out. Only the first page of each value is touched here: headers, and the
 * presence bits.
 */
#include "index/vset_internal.h"

#include <string.h>

/* --- a walk --- */

enum vk_status vk_vset_walk_open(struct vk_vset_walk *w, struct vk_kv_txn *t, enum vk_table table, uint32_t set)
{
	*w = (struct vk_vset_walk){.set = set, .end = true};
	return vk_kv_cursor_open(t, table, &w->c);
}

void vk_vset_walk_close(struct vk_vset_walk *w)
{
	vk_kv_cursor_close(w->c);
	w->c = NULL;
}

static enum vk_status arrived(struct vk_vset_walk *w, enum vk_status st, struct vk_bytes key)
{
	uint32_t set;
	w->end = true;
	if (st) return st == VK_E_NOT_FOUND ? VK_OK : st;
	if (!vk_rec_vset_key_read(key, &set, &w->n)) return VK_E_CORRUPT;
	w->end = set != w->set;
	return VK_OK;
}

enum vk_status vk_vset_walk_seek(struct vk_vset_walk *w, uint64_t n)
{
	uint8_t at[VK_REC_VSET_KEY];
	struct vk_bytes key;
	w->end = true;
	if (n > UINT32_MAX) return VK_OK;
	vk_rec_vset_key(at, w->set, (uint32_t)n);
	enum vk_status st = vk_kv_seek(w->c, (struct vk_bytes){(const char *)at, sizeof at}, &key, &w->value);
	return arrived(w, st, key);
}

enum vk_status vk_vset_walk_next(struct vk_vset_walk *w)
{
	struct vk_bytes key;
	enum vk_status st = vk_kv_next(w->c, &key, &w->value);
	return arrived(w, st, key);
}

enum vk_status vk_vset_walk_to(struct vk_vset_walk *w, uint64_t n)
{
	if (w->end || w->n >= n) return VK_OK;
	enum vk_status st = vk_vset_walk_next(w);
	return st || w->end || w->n >= n ? st : vk_vset_walk_seek(w, n);
}

/* --- blocks, side by side --- */

enum { ROWS, CODES, BITS, DEAD, WALKS };

struct blocks {
	const struct vk_set *s;
	uint32_t slots, words;
	struct vk_vset_walk walk[WALKS];
	struct vk_rec_block rows; /* of walk[ROWS].n */
	bool has_dead;
	uint64_t dead[VK_REC_BLOCK_WORDS_MAX];
};

static void blocks_close(struct blocks *b)
{
	for (int i = 0; i < WALKS; i++) vk_vset_walk_close(&b->walk[i]);
}

static enum vk_status blocks_open(struct blocks *b, struct vk_kv_txn *t, const struct vk_set *s)
{
	static const enum vk_table table[WALKS] = {VK_T_BLOCK, VK_T_CODE, VK_T_BITS, VK_T_DEAD};
	enum vk_status st = VK_OK;
	b->s = s;
	b->slots = vk_vset_rows(s);
	b->words = vk_rec_words(b->slots);
	for (int i = 0; i < WALKS; i++) b->walk[i].c = NULL;
	for (int i = 0; !st && i < WALKS; i++) {
		st = vk_vset_walk_open(&b->walk[i], t, table[i], s->id);
		if (!st) st = vk_vset_walk_seek(&b->walk[i], 0);
	}
	return st;
}

static bool blocks_end(const struct blocks *b)
{
	return b->walk[ROWS].end;
}

/* Reads the block where the walk over rows stands, and its dead bits. */
static enum vk_status blocks_read(struct blocks *b)
{
	struct vk_vset_walk *rows = &b->walk[ROWS], *dead = &b->walk[DEAD];
	struct vk_rec_block_shape shape = vk_vset_shape(b->s, VK_REC_BLOCK_ROWS, rows->n);
	if (!vk_rec_block_decode(&b->rows, &shape, rows->value))
		return vk_vset_damaged(b->s, "block", rows->n, rows->value);
	enum vk_status st = vk_vset_walk_to(dead, rows->n);
	b->has_dead = !st && !dead->end && dead->n == rows->n;
	if (b->has_dead && !vk_rec_dead_decode(b->dead, b->s->id, dead->n, b->slots, dead->value))
		return vk_vset_damaged(b->s, "dead bits", dead->n, dead->value);
	return st;
}

/* The code or bits of the block, if there are any and they are of these rows: what does not check is left
 * out, for rows alone answer as well. */
static enum vk_status sibling(struct blocks *b, int which, struct vk_rec_block *out, bool *there)
{
	struct vk_vset_walk *w = &b->walk[which];
	enum vk_rec_block_kind kind = which == CODES ? VK_REC_BLOCK_CODES : VK_REC_BLOCK_BITS;
	struct vk_rec_block_shape shape = vk_vset_shape(b->s, kind, b->walk[ROWS].n);
	enum vk_status st = vk_vset_walk_to(w, shape.block);
	*there = false;
	if (st || w->end || w->n != shape.block) return st;
	*there = vk_rec_block_decode(out, &shape, w->value) && out->made_of == b->rows.crc && out->rows == b->rows.rows;
	if (!*there) vk_vset_damaged(b->s, which == CODES ? "codes of block" : "bits of block", w->n, w->value);
	return VK_OK;
}

static void live_words(const struct blocks *b, uint64_t *words)
{
	for (uint32_t i = 0; i < b->words; i++) words[i] = b->rows.present[i] & (b->has_dead ? ~b->dead[i] : ~(uint64_t)0);
}

/* --- parts --- */

struct finder {
	struct vk_kv_txn *t;
	const struct vk_bitmap *want;
	struct vk_arena *a;
	struct vk_parts *out;
	size_t part_cap, tail_cap;
	struct blocks b;
};

/* The first wanted slot from here on; 2^32: none. */
static uint64_t wanted_from(const struct finder *f, uint64_t slot)
{
	uint32_t got;
	if (!f->want || slot > UINT32_MAX) return slot;
	return vk_bitmap_take(f->want, (uint32_t)slot, &got, 1) ? got : (uint64_t)1 << 32;
}

/* Is a row that counts in this block wanted? */
static bool block_wanted(const struct finder *f)
{
	uint64_t live[VK_REC_BLOCK_WORDS_MAX], want[VK_REC_BLOCK_WORDS_MAX], any = 0;
	const struct blocks *b = &f->b;
	live_words(b, live);
	if (f->want) {
		if (!vk_bitmap_words(f->want, b->rows.first & ~63u, want, b->words)) return false;
		if (b->slots < 64) live[0] <<= b->rows.first & 63;
		for (uint32_t i = 0; i < b->words; i++) live[i] &= want[i];
	}
	for (uint32_t i = 0; i < b->words; i++) any |= live[i];
	return any != 0;
}

/* An array in the arena that grows: counters say how long it will be, but bytes on disk are only believed
 * for a start. */
static void *grown(struct vk_arena *a, void *old, size_t n, size_t *cap, size_t size)
{
	if (n < *cap) return old;
	size_t more = *cap ? 2 * *cap : 64;
	void *p = vk_arena_alloc(a, more * size);
	if (!p) return NULL;
	if (n) memcpy(p, old, n * size);
	*cap = more;
	return p;
}

static enum vk_status add_part(struct finder *f)
{
	struct blocks *b = &f->b;
	struct vk_rec_block codes, bits;
	bool has_codes, has_bits;
	enum vk_status st = sibling(b, CODES, &codes, &has_codes);
	if (!st) st = sibling(b, BITS, &bits, &has_bits);
	if (st) return st;
	struct vk_part *parts = grown(f->a, f->out->part, f->out->part_n, &f->part_cap, sizeof *parts);
	uint64_t *dead = b->has_dead ? vk_arena_alloc(f->a, b->words * sizeof *dead) : NULL;
	if (!parts || (b->has_dead && !dead)) return VK_E_NOMEM;
	if (dead) memcpy(dead, b->dead, b->words * sizeof *dead);
	f->out->part = parts;
	parts[f->out->part_n++] = (struct vk_part){
	    .first = b->rows.first,
	    .slots = b->slots,
	    .rows = b->rows.rows,
	    .present = b->rows.present,
	    .dead = dead,
	    .row = b->rows.data,
	    .stride = b->rows.stride,
	    .inv_norm = b->rows.inv_norm,
	    .code_head = has_codes ? codes.head : NULL,
	    .code = has_codes ? codes.data : NULL,
	    .code_stride = has_codes ? codes.stride : 0,
	    .bits = has_bits ? bits.data : NULL,
	    .bits_stride = has_bits ? bits.stride : 0,
	};
	return VK_OK;
}

static enum vk_status find_blocks(struct finder *f, const struct vk_set *s)
{
	struct blocks *b = &f->b;
	enum vk_status st = blocks_open(b, f->t, s);
	while (!st && !blocks_end(b)) {
		uint64_t block = b->walk[ROWS].n, next = wanted_from(f, block * b->slots) / b->slots;
		if (next > block) { /* nobody wants this one */
			st = vk_vset_walk_to(&b->walk[ROWS], next);
			continue;
		}
		st = blocks_read(b);
		if (!st && block_wanted(f)) st = add_part(f);
		if (!st) st = vk_vset_walk_next(&b->walk[ROWS]);
	}
	blocks_close(b);
	return st;
}

static enum vk_status add_tail(struct finder *f, const struct vk_set *s, const struct vk_vset_walk *w)
{
	struct vk_rec_tail row;
	if (!vk_rec_tail_decode(&row, s->dtype, vk_row_bytes(s->dtype, s->dims), w->value))
		return vk_vset_damaged(s, "row of slot", w->n, w->value);
	struct vk_tail_row *tail = grown(f->a, f->out->tail, f->out->tail_n, &f->tail_cap, sizeof *tail);
	if (!tail) return VK_E_NOMEM;
	f->out->tail = tail;
	tail[f->out->tail_n++] = (struct vk_tail_row){.slot = w->n, .inv_norm = row.inv_norm, .row = row.row};
	return VK_OK;
}

static enum vk_status find_tail(struct finder *f, const struct vk_set *s)
{
	struct vk_vset_walk w;
	enum vk_status st = vk_vset_walk_open(&w, f->t, VK_T_TAIL, s->id);
	if (!st) st = vk_vset_walk_seek(&w, 0);
	while (!st && !w.end) {
		uint64_t next = wanted_from(f, w.n);
		if (next > w.n) {
			st = vk_vset_walk_to(&w, next);
			continue;
		}
		st = add_tail(f, s, &w);
		if (!st) st = vk_vset_walk_next(&w);
	}
	vk_vset_walk_close(&w);
	return st;
}

enum vk_status vk_vset_parts(struct vk_kv_txn *t, const struct vk_set *s, const struct vk_bitmap *want,
			     struct vk_arena *a, struct vk_parts *out)
{
	struct finder f = {.t = t, .want = want, .a = a, .out = out};
	struct vk_rec_vset_counts c;
	*out = (struct vk_parts){0};
	enum vk_status st = vk_vset_counts(t, s->id, &c);
	if (st) return st;
	out->rows = c.rows;
	if (c.blocks) st = find_blocks(&f, s);
	if (!st && c.tail_rows) st = find_tail(&f, s);
	return st;
}

/* --- slots --- */

static void add_words(struct vk_bitmap *into, uint32_t first, const uint64_t *words, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t slot[64], slots = 0;
		uint64_t at = first + (uint64_t)64 * i;
		if (words[i] == ~(uint64_t)0) {
			vk_bitmap_add_range(into, at, at + 64);
			continue;
		}
		for (uint64_t left = words[i]; left; left &= left - 1)
			slot[slots++] = (uint32_t)(at + (uint32_t)__builtin_ctzll(left));
		vk_bitmap_add_many(into, slot, slots);
	}
}

enum vk_status vk_vset_slots(struct vk_kv_txn *t, const struct vk_set *s, struct vk_bitmap *into)
{
	uint64_t live[VK_REC_BLOCK_WORDS_MAX];
	struct vk_vset_walk tail;
	struct blocks b;
	enum vk_status st = blocks_open(&b, t, s);
	while (!st && !blocks_end(&b)) {
		st = blocks_read(&b);
		if (st) break;
		live_words(&b, live);
		add_words(into, b.rows.first, live, b.words);
		st = vk_vset_walk_next(&b.walk[ROWS]);
	}
	blocks_close(&b);
	if (st) return st;
	st = vk_vset_walk_open(&tail, t, VK_T_TAIL, s->id);
	if (!st) st = vk_vset_walk_seek(&tail, 0);
	while (!st && !tail.end) {
		vk_bitmap_add(into, tail.n);
		st = vk_vset_walk_next(&tail);
	}
	vk_vset_walk_close(&tail);
	return !st && vk_bitmap_failed(into) ? VK_E_NOMEM : st;
}

/* --- scrubbing --- */

static enum vk_status bad(const struct vk_set *s, const char *what, const struct vk_vset_walk *w,
			  struct vk_error *err)
{
	vk_vset_damaged(s, what, w->n, w->value);
	return vk_fail(err, VK_E_CORRUPT, "vector set %u: %s %u does not check", s->id, what, w->n);
}

static enum vk_status scrub_sibling(struct blocks *b, int which, size_t *bytes, struct vk_error *err)
{
	struct vk_vset_walk *w = &b->walk[which];
	struct vk_rec_block sib;
	bool there;
	enum vk_status st = sibling(b, which, &sib, &there);
	if (st || w->end || w->n != b->walk[ROWS].n) return st;
	*bytes += w->value.n;
	if (there && vk_rec_block_check(&sib, w->value)) return VK_OK;
	return bad(b->s, which == CODES ? "codes of block" : "bits of block", w, err);
}

static enum vk_status scrub_block(struct blocks *b, size_t *bytes, struct vk_error *err)
{
	struct vk_vset_walk *rows = &b->walk[ROWS];
	enum vk_status st = blocks_read(b);
	if (st == VK_E_CORRUPT) return bad(b->s, "block (or its dead bits)", rows, err);
	if (st) return st;
	*bytes += rows->value.n;
	if (!vk_rec_block_check(&b->rows, rows->value)) return bad(b->s, "block", rows, err);
	for (uint32_t i = 0; b->has_dead && i < b->words; i++)
		if (b->dead[i] & ~b->rows.present[i]) return bad(b->s, "dead bits of block", rows, err);
	st = scrub_sibling(b, CODES, bytes, err);
	return st ? st : scrub_sibling(b, BITS, bytes, err);
}

/* The tail rows of one block. */
static enum vk_status scrub_tail(const struct vk_set *s, struct vk_vset_walk *w, uint64_t end, size_t *bytes,
				 struct vk_error *err)
{
	size_t row_n = vk_row_bytes(s->dtype, s->dims);
	enum vk_status st = VK_OK;
	while (!st && !w->end && w->n < end) {
		struct vk_rec_tail row;
		*bytes += w->value.n;
		if (!vk_rec_tail_decode(&row, s->dtype, row_n, w->value) || !vk_rec_tail_check(s->id, w->n, w->value))
			return bad(s, "row of slot", w, err);
		st = vk_vset_walk_next(w);
	}
	return st;
}

static enum vk_status scrub(struct blocks *b, struct vk_vset_walk *tail, size_t budget, uint32_t *block,
			    struct vk_error *err)
{
	struct vk_vset_walk *rows = &b->walk[ROWS];
	size_t bytes = 0;
	enum vk_status st = vk_vset_walk_seek(rows, *block);
	if (!st) st = vk_vset_walk_seek(tail, (uint64_t)*block * b->slots);
	while (!st && (!rows->end || !tail->end)) {
		uint32_t at = rows->end || (!tail->end && tail->n / b->slots < rows->n) ? tail->n / b->slots : rows->n;
		bool here = !rows->end && rows->n == at;
		*block = at;
		if (bytes && bytes >= budget) return VK_E_BUSY;
		*block = at + 1; /* damage is told, then the caller goes on behind it */
		st = scrub_tail(b->s, tail, ((uint64_t)at + 1) * b->slots, &bytes, err);
		if (!st && here) st = scrub_block(b, &bytes, err);
		if (!st && here) st = vk_vset_walk_next(rows);
	}
	return st;
}

enum vk_status vk_vset_scrub_step(struct vk_kv_txn *t, const struct vk_set *s, size_t budget, uint32_t *block,
				  struct vk_error *err)
{
	struct vk_vset_walk tail = {0};
	struct blocks b;
	enum vk_status st = blocks_open(&b, t, s);
	if (!st) st = vk_vset_walk_open(&tail, t, VK_T_TAIL, s->id);
	if (!st) st = scrub(&b, &tail, budget, block, err);
	vk_vset_walk_close(&tail);
	blocks_close(&b);
	return st;
}
