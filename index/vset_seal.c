/*
 * Sealing: tail rows go home, blocks that are more than a quarter dead are written anew; and dropping a set.
 *
 * A step walks the blocks that have tail rows or dead bits (both tables are small; of binary sets also the
 * keys of the others, for blocks that were written before sign bits were asked for), decides for each whether
 * it is worth a rewrite, and stops after its budget of bytes. Everything that goes into a block is checked
 * first by its CRC: what does not check is left as it is, told in the log, and passed over, so that damage is
 * neither spread under a fresh CRC nor keeps the rest from being sealed.
 *
 * A rewrite is worth it when a quarter of the block's slots wait in the tail: a collection that grows by
 * single points rewrites each block four times, and at most a quarter of all rows is ever in the tail. (A
 * quarter of the rows that are there would rewrite a young block at 1, 2, 3, ... rows.)
 */
#include "index/vset_internal.h"

#include <string.h>

#define LOOK_BYTES 4096 /* what looking at a block counts for, so that a step ends where nothing is worth it, too */

struct sealer {
	struct vk_vset_writer *w;
	struct vk_vset_walk tail, dead, rows, bits; /* rows, bits: of binary sets */
	bool all;
	/* The block at hand: */
	uint32_t block, tail_n, dead_n;
	bool there, lacks_bits;
};

static bool is_binary(const struct sealer *z)
{
	return z->w->s->quant == VK_QUANT_BINARY;
}

/* The first block >= from, and < z->block, that has no sign bits: then that one is at hand. */
static enum vk_status find_lacking(struct sealer *z, uint64_t from, bool *end)
{
	enum vk_status st = vk_vset_walk_seek(&z->rows, from);
	if (!st) st = vk_vset_walk_seek(&z->bits, from);
	while (!st && !z->rows.end && (*end || z->rows.n <= z->block)) {
		if (z->bits.end || z->bits.n != z->rows.n) {
			z->block = z->rows.n;
			z->lacks_bits = true;
			*end = false;
			return VK_OK;
		}
		st = vk_vset_walk_next(&z->rows);
		if (!st) st = vk_vset_walk_to(&z->bits, z->rows.n);
	}
	return st;
}

/* The first block >= from with tail rows or dead bits, or without bits that it should have. */
static enum vk_status find(struct sealer *z, uint64_t from, bool *end)
{
	uint32_t slots = z->w->slots;
	enum vk_status st = vk_vset_walk_seek(&z->tail, from * slots);
	if (!st) st = vk_vset_walk_seek(&z->dead, from);
	if (st) return st;
	*end = z->tail.end && z->dead.end;
	uint32_t home = z->tail.end ? UINT32_MAX : z->tail.n / slots, dead = z->dead.end ? UINT32_MAX : z->dead.n;
	z->block = home < dead ? home : dead;
	z->lacks_bits = false;
	return is_binary(z) ? find_lacking(z, from, end) : VK_OK;
}

/* Tail rows of the block. The walk stands before or at the first of them. */
static enum vk_status count_tail(struct sealer *z)
{
	uint64_t first = (uint64_t)z->block * z->w->slots;
	enum vk_status st = vk_vset_walk_seek(&z->tail, first);
	z->tail_n = 0;
	for (; !st && !z->tail.end && z->tail.n < first + z->w->slots; z->tail_n++) st = vk_vset_walk_next(&z->tail);
	return st;
}

static enum vk_status look(struct sealer *z)
{
	struct vk_vset_block *b = &z->w->b;
	enum vk_status st = vk_vset_block(z->w->t, z->w->s, z->block, b);
	z->there = !st;
	z->dead_n = z->there && b->has_dead ? vk_vset_count_words(b->dead, vk_rec_words(z->w->slots)) : 0;
	if (st && st != VK_E_NOT_FOUND) return st;
	if (z->there && !vk_rec_block_check(&b->rows, b->value))
		return vk_vset_damaged(z->w->s, "block", z->block, b->value);
	return count_tail(z);
}

static bool is_worth(const struct sealer *z)
{
	if (z->there && (z->lacks_bits || 4 * (uint64_t)z->dead_n > z->w->b.rows.rows)) return true;
	return z->tail_n > 0 && (z->all || 4 * (uint64_t)z->tail_n >= z->w->slots);
}

/* One row into the next place of the pool. */
static void take(struct vk_vset_writer *w, uint64_t *present, uint32_t *n, uint32_t i, const void *row,
		 float inv_norm)
{
	uint8_t *to = w->pool + *n * w->row_n;
	memcpy(to, row, w->row_n);
	w->stored[(*n)++] = (struct vk_vset_stored){.p = to, .inv_norm = inv_norm};
	present[i / 64] |= (uint64_t)1 << (i & 63);
}

/* Merges block and tail by slot into stored and pool. */
static enum vk_status gather(struct sealer *z, uint64_t *present, uint32_t *n)
{
	struct vk_vset_writer *w = z->w;
	const struct vk_vset_block *b = &w->b;
	uint64_t first = (uint64_t)z->block * w->slots;
	enum vk_status st = vk_vset_walk_seek(&z->tail, first);
	uint32_t rank = 0;
	*n = 0;
	memset(present, 0, vk_rec_words(w->slots) * sizeof *present);
	for (uint32_t i = 0; !st && i < w->slots; i++) {
		bool here = z->there && vk_bit(b->rows.present, i);
		if (!z->tail.end && z->tail.n == first + i) {
			struct vk_rec_tail row;
			if (!vk_rec_tail_decode(&row, w->s->dtype, w->row_n, z->tail.value) ||
			    !vk_rec_tail_check(w->s->id, z->tail.n, z->tail.value))
				return vk_vset_damaged(w->s, "row of slot", z->tail.n, z->tail.value);
			take(w, present, n, i, row.row, row.inv_norm);
			st = vk_vset_walk_next(&z->tail);
		} else if (here && !(b->has_dead && vk_bit(b->dead, i))) {
			take(w, present, n, i, b->rows.data + (size_t)rank * b->rows.stride, b->rows.inv_norm[rank]);
		}
		rank += here;
	}
	return st;
}

static enum vk_status rewrite(struct sealer *z)
{
	static const uint64_t none[VK_REC_BLOCK_WORDS_MAX];
	uint64_t present[VK_REC_BLOCK_WORDS_MAX];
	struct vk_vset_writer *w = z->w;
	uint32_t n, cleared;
	enum vk_status st = vk_vset_writer_room(w);
	if (!st) st = gather(z, present, &n);
	if (st) return st;
	/* From here on what the tables gave is gone: rows are in the pool. */
	st = vk_vset_tail_clear(w, z->block, &cleared);
	if (!st) st = vk_vset_dead_put(w, z->block, none);
	if (st) return st;
	w->counts.dead_rows -= z->dead_n;
	return n ? vk_vset_block_put(w, z->block, present, n) : vk_vset_block_del(w, z->block);
}

static enum vk_status seal(struct sealer *z, size_t budget, uint32_t *from)
{
	uint64_t at = *from;
	for (;;) {
		bool end;
		enum vk_status st = find(z, at, &end);
		if (st) return st;
		*from = end ? 0 : z->block;
		if (end) return VK_OK;
		if (z->w->written && z->w->written >= budget) return VK_E_BUSY;
		z->w->written += LOOK_BYTES;
		st = look(z);
		if (!st && is_worth(z)) st = rewrite(z);
		if (st && st != VK_E_CORRUPT) return st;
		at = (uint64_t)z->block + 1;
	}
}

enum vk_status vk_vset_seal_step(struct vk_kv_txn *t, const struct vk_set *s, bool all, size_t budget, uint32_t *from)
{
	struct sealer z = {.all = all};
	enum vk_status st = vk_vset_writer_begin(t, s, &z.w), ended;
	bool busy = false;
	if (!st) st = vk_vset_walk_open(&z.tail, t, VK_T_TAIL, s->id);
	if (!st) st = vk_vset_walk_open(&z.dead, t, VK_T_DEAD, s->id);
	if (!st && is_binary(&z)) st = vk_vset_walk_open(&z.rows, t, VK_T_BLOCK, s->id);
	if (!st && is_binary(&z)) st = vk_vset_walk_open(&z.bits, t, VK_T_BITS, s->id);
	if (!st) {
		st = seal(&z, budget, from);
		busy = st == VK_E_BUSY;
	}
	vk_vset_walk_close(&z.tail);
	vk_vset_walk_close(&z.dead);
	vk_vset_walk_close(&z.rows);
	vk_vset_walk_close(&z.bits);
	ended = vk_vset_writer_end(z.w, busy ? VK_OK : st);
	return ended || !busy ? ended : VK_E_BUSY;
}

/* --- dropping --- */

static enum vk_status drop_table(struct vk_kv_txn *t, enum vk_table table, uint32_t set_id, size_t budget,
				 size_t *bytes)
{
	struct vk_vset_walk w;
	enum vk_status st = vk_vset_walk_open(&w, t, table, set_id);
	if (!st) st = vk_vset_walk_seek(&w, 0);
	while (!st && !w.end) {
		if (*bytes && *bytes >= budget) {
			st = VK_E_BUSY;
			break;
		}
		*bytes += w.value.n;
		st = vk_kv_cursor_del(w.c);
		if (!st) st = vk_vset_walk_next(&w);
	}
	vk_vset_walk_close(&w);
	return st;
}

enum vk_status vk_vset_drop_step(struct vk_kv_txn *t, uint32_t set_id, size_t budget)
{
	static const enum vk_table table[] = {VK_T_TAIL, VK_T_DEAD, VK_T_BITS, VK_T_CODE, VK_T_BLOCK};
	uint8_t key[VK_REC_VSET_COUNTS_KEY];
	enum vk_status st = VK_OK;
	size_t bytes = 0;
	for (size_t i = 0; !st && i < sizeof table / sizeof *table; i++)
		st = drop_table(t, table[i], set_id, budget, &bytes);
	if (st) return st;
	vk_rec_vset_counts_key(key, set_id);
	st = vk_kv_del(t, VK_T_META, (struct vk_bytes){(const char *)key, sizeof key});
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}
