/*
 * Writing rows: batches, single rows, deletes.
 *
 * A batch is cut at block borders. A piece with every slot of its block is written as a block with its
 * siblings, straight into the reserved pages; other pieces go to the tail row by row. Counters of a set are
 * read and written once a call: the transaction that moves a row moves them, too.
 *
 * Not taken: rows of a batch straight into a block that is half full. It rewrites 256 KiB for one row; the
 * tail costs a row's own pages, and sealing pays the rewrite once for a quarter of a block.
 */
#include "index/vset_internal.h"

#include <stdlib.h>

/* --- a call --- */

enum vk_status vk_vset_writer_begin(struct vk_kv_txn *t, const struct vk_set *s, struct vk_vset_writer **out)
{
	struct vk_vset_writer *w = malloc(sizeof *w);
	*out = w;
	if (!w) return VK_E_NOMEM;
	w->t = t;
	w->s = s;
	w->k = vk_kernels(vk_cpu_best());
	w->slots = vk_vset_rows(s);
	w->row_n = vk_row_bytes(s->dtype, s->dims);
	w->written = 0;
	w->stored = NULL;
	w->pool = NULL;
	w->wide = malloc(s->dims * sizeof *w->wide);
	enum vk_status st = w->wide ? vk_vset_counts(t, s->id, &w->counts) : VK_E_NOMEM;
	w->was = w->counts;
	return st;
}

enum vk_status vk_vset_writer_room(struct vk_vset_writer *w)
{
	if (!w->stored) w->stored = malloc(w->slots * sizeof *w->stored);
	if (!w->pool) w->pool = malloc(w->slots * w->row_n);
	return w->stored && w->pool ? VK_OK : VK_E_NOMEM;
}

enum vk_status vk_vset_writer_end(struct vk_vset_writer *w, enum vk_status st)
{
	if (!w) return st;
	if (!st && memcmp(&w->was, &w->counts, sizeof w->was) != 0) st = vk_vset_counts_put(w->t, w->s->id, &w->counts);
	free(w->wide);
	free(w->pool);
	free(w->stored);
	free(w);
	return st;
}

/* Room for a value of n bytes; keeps counts.bytes. *fresh: there was none. */
static enum vk_status reserve(struct vk_vset_writer *w, enum vk_table table, uint32_t n, size_t size, uint8_t **dst,
			      bool *fresh)
{
	uint8_t key[VK_REC_VSET_KEY];
	struct vk_bytes old;
	void *p;
	enum vk_status st = vk_vset_get(w->t, table, w->s->id, n, &old);
	*fresh = st == VK_E_NOT_FOUND;
	if (st && !*fresh) return st;
	st = vk_kv_put_reserve(w->t, table, vk_vset_key(key, w->s->id, n), size, &p);
	*dst = p;
	w->counts.bytes += size - (*fresh ? 0 : old.n);
	w->written += size;
	return st;
}

/* Deletes a value; keeps counts.bytes. VK_E_NOT_FOUND: there was none. */
static enum vk_status forget(struct vk_vset_writer *w, enum vk_table table, uint32_t n)
{
	uint8_t key[VK_REC_VSET_KEY];
	struct vk_bytes old;
	enum vk_status st = vk_vset_get(w->t, table, w->s->id, n, &old);
	if (st) return st;
	w->counts.bytes -= old.n;
	return vk_kv_del(w->t, table, vk_vset_key(key, w->s->id, n));
}

static enum vk_status forget_if(struct vk_vset_writer *w, enum vk_table table, uint32_t n)
{
	enum vk_status st = forget(w, table, n);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

/* --- blocks --- */

static const float *as_f32(struct vk_vset_writer *w, const void *stored)
{
	if (w->s->dtype == VK_DTYPE_F32 && (uintptr_t)stored % sizeof(float) == 0) return stored;
	vk_vset_widen(w->k, w->s, stored, w->wide);
	return w->wide;
}

/* A block, or a sibling of one, being written. */
struct block_out {
	struct vk_rec_block_shape shape;
	struct vk_rec_block_layout l;
	uint8_t *dst;
	bool fresh;
};

/* Room for it; all but its rows is zero. */
static enum vk_status block_out(struct vk_vset_writer *w, enum vk_rec_block_kind kind, uint32_t block, uint32_t rows,
				struct block_out *b)
{
	static const enum vk_table table[] = {
	    [VK_REC_BLOCK_ROWS] = VK_T_BLOCK, [VK_REC_BLOCK_CODES] = VK_T_CODE, [VK_REC_BLOCK_BITS] = VK_T_BITS};
	b->shape = vk_vset_shape(w->s, kind, block);
	vk_rec_block_layout(&b->l, &b->shape, rows);
	enum vk_status st = reserve(w, table[kind], block, b->l.size, &b->dst, &b->fresh);
	if (!st) vk_rec_block_clear(b->dst, &b->l, rows);
	return st;
}

static uint8_t *row_of(const struct block_out *b, uint32_t i)
{
	return b->dst + b->l.data_at + (size_t)i * b->l.stride;
}

static enum vk_status put_rows(struct vk_vset_writer *w, uint32_t block, const uint64_t *present, uint32_t rows,
			       uint32_t *crc)
{
	struct block_out b;
	enum vk_status st = block_out(w, VK_REC_BLOCK_ROWS, block, rows, &b);
	if (st) return st;
	memcpy(b.dst + b.l.present_at, present, vk_rec_words(w->slots) * sizeof *present);
	for (uint32_t i = 0; i < rows; i++) {
		memcpy(b.dst + b.l.side_at + i * sizeof(float), &w->stored[i].inv_norm, sizeof(float));
		memcpy(row_of(&b, i), w->stored[i].p, w->row_n);
	}
	*crc = vk_rec_block_seal(b.dst, &b.l, &b.shape, rows, 0);
	w->counts.blocks += b.fresh;
	return VK_OK;
}

static enum vk_status put_codes(struct vk_vset_writer *w, uint32_t block, uint32_t rows, uint32_t crc)
{
	struct block_out b;
	enum vk_status st = block_out(w, VK_REC_BLOCK_CODES, block, rows, &b);
	if (st) return st;
	for (uint32_t i = 0; i < rows; i++) {
		struct vk_code_head head;
		vk_code_row(w->k, &head, row_of(&b, i), b.l.stride, as_f32(w, w->stored[i].p), w->s->dims);
		memcpy(b.dst + b.l.side_at + i * sizeof head, &head, sizeof head);
	}
	vk_rec_block_seal(b.dst, &b.l, &b.shape, rows, crc);
	return VK_OK;
}

static enum vk_status put_bits(struct vk_vset_writer *w, uint32_t block, uint32_t rows, uint32_t crc)
{
	struct block_out b;
	enum vk_status st = block_out(w, VK_REC_BLOCK_BITS, block, rows, &b);
	if (st) return st;
	memset(row_of(&b, 0), 0, (size_t)rows * b.l.stride); /* a row's bytes may end before its stride */
	for (uint32_t i = 0; i < rows; i++) w->k->f32_to_bits(row_of(&b, i), as_f32(w, w->stored[i].p), w->s->dims);
	vk_rec_block_seal(b.dst, &b.l, &b.shape, rows, crc);
	return VK_OK;
}

enum vk_status vk_vset_block_put(struct vk_vset_writer *w, uint32_t block, const uint64_t *present, uint32_t rows)
{
	uint32_t crc;
	enum vk_status st = put_rows(w, block, present, rows, &crc);
	if (!st) st = vk_vset_codes(w->s) ? put_codes(w, block, rows, crc) : forget_if(w, VK_T_CODE, block);
	if (!st) st = w->s->quant == VK_QUANT_BINARY ? put_bits(w, block, rows, crc) : forget_if(w, VK_T_BITS, block);
	return st;
}

enum vk_status vk_vset_block_del(struct vk_vset_writer *w, uint32_t block)
{
	enum vk_status st = forget(w, VK_T_BLOCK, block);
	w->counts.blocks -= !st;
	if (!st || st == VK_E_NOT_FOUND) st = forget_if(w, VK_T_CODE, block);
	return st ? st : forget_if(w, VK_T_BITS, block);
}

enum vk_status vk_vset_dead_put(struct vk_vset_writer *w, uint32_t block, const uint64_t *dead)
{
	uint8_t key[VK_REC_VSET_KEY], value[VK_REC_DEAD_MAX];
	if (vk_vset_count_words(dead, vk_rec_words(w->slots)) == 0) {
		enum vk_status st = vk_kv_del(w->t, VK_T_DEAD, vk_vset_key(key, w->s->id, block));
		return st == VK_E_NOT_FOUND ? VK_OK : st;
	}
	size_t n = vk_rec_dead_encode(value, w->s->id, block, dead, w->slots);
	w->written += n;
	return vk_kv_put(w->t, VK_T_DEAD, vk_vset_key(key, w->s->id, block), (struct vk_bytes){(const char *)value, n});
}

enum vk_status vk_vset_tail_clear(struct vk_vset_writer *w, uint32_t block, uint32_t *n)
{
	struct vk_vset_walk walk;
	uint64_t first = (uint64_t)block * w->slots, end = first + w->slots;
	*n = 0;
	if (w->counts.tail_rows == 0) return VK_OK;
	enum vk_status st = vk_vset_walk_open(&walk, w->t, VK_T_TAIL, w->s->id);
	if (!st) st = vk_vset_walk_seek(&walk, first);
	while (!st && !walk.end && walk.n < end) {
		w->counts.bytes -= walk.value.n;
		st = vk_kv_cursor_del(walk.c);
		++*n;
		if (!st) st = vk_vset_walk_next(&walk);
	}
	vk_vset_walk_close(&walk);
	w->counts.tail_rows -= *n;
	return st;
}

/* --- one row in --- */

static void to_i8(int8_t *dst, const float *src, size_t n)
{
	for (size_t i = 0; i < n; i++) dst[i] = (int8_t)(src[i] < -128 ? -128 : src[i] > 127 ? 127 : src[i]);
}

/* What overflows becomes the greatest number, not infinity: scores stay numbers. */
static void to_f16(const struct vk_kernels *k, uint16_t *dst, const float *src, size_t n)
{
	k->f32_to_f16(dst, src, n);
	for (size_t i = 0; i < n; i++) dst[i] = (uint16_t)(dst[i] - ((dst[i] & 0x7fff) == 0x7c00));
}

/* Converts into dst (aligned as malloc does, or as the dtype wants); returns the inverse norm of what is
 * there now. */
static float convert(struct vk_vset_writer *w, const float *row, void *dst)
{
	switch (w->s->dtype) {
	case VK_DTYPE_F16: to_f16(w->k, dst, row, w->s->dims); break;
	case VK_DTYPE_U8: w->k->f32_to_u8(dst, row, w->s->dims); break;
	case VK_DTYPE_I8: to_i8(dst, row, w->s->dims); break;
	case VK_DTYPE_BITS: w->k->f32_to_bits(dst, row, w->s->dims); break;
	default:
		memcpy(dst, row, w->row_n);
		return vk_inverse_norm(row, w->s->dims);
	}
	vk_vset_widen(w->k, w->s, dst, w->wide);
	return vk_inverse_norm(w->wide, w->s->dims);
}

/* The block as it stands, or an empty one. */
static enum vk_status look(struct vk_vset_writer *w, uint32_t block, bool *there)
{
	enum vk_status st = vk_vset_block(w->t, w->s, block, &w->b);
	*there = !st;
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

/* Every slot of the block is in the batch: written as a block at once, over whatever was there. */
static enum vk_status put_whole(struct vk_vset_writer *w, const struct vk_row_in *in, uint32_t block)
{
	uint64_t all[VK_REC_BLOCK_WORDS_MAX];
	uint32_t tail, words = vk_rec_words(w->slots);
	bool there, had_dead;
	enum vk_status st = vk_vset_writer_room(w);
	if (!st) st = look(w, block, &there);
	if (st) return st;
	had_dead = there && w->b.has_dead;
	uint32_t dead = had_dead ? vk_vset_count_words(w->b.dead, words) : 0;
	uint32_t old = there ? w->b.rows.rows - dead : 0;
	st = vk_vset_tail_clear(w, block, &tail);
	memset(all, 0, words * sizeof *all);
	if (!st && had_dead) st = vk_vset_dead_put(w, block, all);
	if (st) return st;
	for (uint32_t i = 0; i < w->slots; i++) {
		bool same = w->s->dtype == VK_DTYPE_F32; /* nothing to convert: copied once, into the map */
		uint8_t *to = w->pool + i * w->row_n;
		w->stored[i].p = same ? (const void *)in[i].row : to;
		w->stored[i].inv_norm = same ? vk_inverse_norm(in[i].row, w->s->dims) : convert(w, in[i].row, to);
	}
	memset(all, 0xff, words * sizeof *all);
	if (w->slots < 64) all[0] = ((uint64_t)1 << w->slots) - 1;
	w->counts.dead_rows -= dead;
	w->counts.rows += w->slots - old - tail;
	return vk_vset_block_put(w, block, all, w->slots);
}

/* A row into the tail. *fresh: there was none. */
static enum vk_status put_tail(struct vk_vset_writer *w, const struct vk_row_in *in, bool *fresh)
{
	uint8_t *dst;
	enum vk_status st = reserve(w, VK_T_TAIL, in->slot, VK_REC_TAIL_HEAD + w->row_n, &dst, fresh);
	if (st) return st;
	float inv_norm = convert(w, in->row, dst + VK_REC_TAIL_HEAD);
	vk_rec_tail_seal(dst, w->s->id, in->slot, w->s->dtype, inv_norm, w->row_n);
	w->counts.tail_rows += *fresh;
	return VK_OK;
}

/* Rows of one block, into the tail; those that count in the block are marked dead. */
static enum vk_status put_alone(struct vk_vset_writer *w, const struct vk_row_in *in, size_t n, uint32_t block)
{
	uint64_t present[VK_REC_BLOCK_WORDS_MAX], *dead = w->b.dead;
	uint32_t words = vk_rec_words(w->slots), newly_dead = 0;
	bool there, fresh;
	enum vk_status st = look(w, block, &there);
	if (st) return st;
	/* Puts may move the block: keep its bits. */
	if (there) memcpy(present, w->b.rows.present, words * sizeof *present);
	else memset(present, 0, words * sizeof *present);
	if (!there || !w->b.has_dead) memset(dead, 0, words * sizeof *dead);
	for (size_t j = 0; !st && j < n; j++) {
		uint32_t i = in[j].slot & (w->slots - 1);
		bool here = vk_bit(present, i) && !vk_bit(dead, i);
		st = put_tail(w, &in[j], &fresh);
		w->counts.rows += !st && fresh && !here;
		if (!here) continue;
		dead[i / 64] |= (uint64_t)1 << (i & 63);
		newly_dead++;
	}
	w->counts.dead_rows += newly_dead;
	return st || !newly_dead ? st : vk_vset_dead_put(w, block, dead);
}

enum vk_status vk_vset_put(struct vk_kv_txn *t, const struct vk_set *s, const struct vk_row_in *rows, size_t n)
{
	struct vk_vset_writer *w;
	enum vk_status st = vk_vset_writer_begin(t, s, &w);
	for (size_t i = 0, j; !st && i < n; i = j) {
		uint32_t block = rows[i].slot / w->slots;
		for (j = i + 1; j < n && rows[j].slot / w->slots == block;) j++;
		st = j - i == w->slots ? put_whole(w, rows + i, block) : put_alone(w, rows + i, j - i, block);
	}
	return vk_vset_writer_end(w, st);
}

static enum vk_status del_in_block(struct vk_vset_writer *w, uint32_t slot)
{
	uint32_t i = slot & (w->slots - 1);
	enum vk_status st = vk_vset_block(w->t, w->s, slot / w->slots, &w->b);
	if (st) return st;
	if (!vk_vset_counts_here(&w->b, i)) return VK_E_NOT_FOUND;
	if (!w->b.has_dead) memset(w->b.dead, 0, vk_rec_words(w->slots) * sizeof *w->b.dead);
	w->b.dead[i / 64] |= (uint64_t)1 << (i & 63);
	w->counts.dead_rows++;
	return vk_vset_dead_put(w, slot / w->slots, w->b.dead);
}

enum vk_status vk_vset_del(struct vk_kv_txn *t, const struct vk_set *s, uint32_t slot)
{
	struct vk_vset_writer *w;
	enum vk_status st = vk_vset_writer_begin(t, s, &w);
	if (!st) {
		st = forget(w, VK_T_TAIL, slot);
		w->counts.tail_rows -= !st;
		if (st == VK_E_NOT_FOUND) st = del_in_block(w, slot);
		w->counts.rows -= !st;
	}
	return vk_vset_writer_end(w, st);
}
