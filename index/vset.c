/*
 * Rows of a vector set: reading one, and what the other files share. Writing: vset_write.c, vset_seal.c;
 * walks: vset_scan.c.
 *
 * Model. A slot's row is the tail's, else its block's if present and not dead. Writing keeps that by order: a
 * row in the tail has its place in the block marked dead, a block that is written whole takes its tail rows
 * and dead bits away. So dead bits alone tell a scan which rows of a block count, and it never has to look a
 * slot up in the tail.
 */
#include "index/vset_internal.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/log.h"

_Static_assert(VK_BLOCK_BYTES_MAX == VK_REC_BLOCK_MAX, "one block, two names");

uint32_t vk_vset_rows(const struct vk_set *s)
{
	return vk_rec_block_slots(s->dtype, s->dims);
}

bool vk_vset_codes(const struct vk_set *s)
{
	return s->dims >= VK_CODE_DIMS_MIN && (s->dtype == VK_DTYPE_F32 || s->dtype == VK_DTYPE_F16);
}

struct vk_rec_block_shape vk_vset_shape(const struct vk_set *s, enum vk_rec_block_kind kind, uint32_t block)
{
	return (struct vk_rec_block_shape){
	    .kind = kind, .dtype = s->dtype, .set = s->id, .space = s->space, .dims = s->dims, .block = block};
}

/* --- damage --- */

#define TOLD_MAX 1024

/* A damaged block is met by every search: told once a place in memory (which another environment, or the
 * block once it is written anew, does not share). A lost entry costs a second line. */
enum vk_status vk_vset_damaged(const struct vk_set *s, const char *what, uint32_t n, struct vk_bytes value)
{
	static _Atomic uint64_t told[TOLD_MAX];
	uint64_t place = (uint64_t)(uintptr_t)value.p ^ (uint64_t)s->id << 52 ^ (uint64_t)n << 20;
	uint64_t hash = (place | 1) * 0x9e3779b97f4a7c15u;
	if (atomic_exchange(&told[hash >> 54], hash) != hash)
		vk_log(VK_LOG_ERROR, "vector set %u: %s %u does not check (%zu bytes)", s->id, what, n, value.n);
	return VK_E_CORRUPT;
}

/* --- reading --- */

struct vk_bytes vk_vset_key(uint8_t key[VK_REC_VSET_KEY], uint32_t set, uint32_t n)
{
	vk_rec_vset_key(key, set, n);
	return (struct vk_bytes){(const char *)key, VK_REC_VSET_KEY};
}

enum vk_status vk_vset_get(struct vk_kv_txn *t, enum vk_table table, uint32_t set, uint32_t n,
			   struct vk_bytes *value)
{
	uint8_t key[VK_REC_VSET_KEY];
	return vk_kv_get(t, table, vk_vset_key(key, set, n), value);
}

uint32_t vk_vset_count_words(const uint64_t *words, uint32_t n)
{
	uint32_t bits = 0;
	for (uint32_t i = 0; i < n; i++) bits += (uint32_t)__builtin_popcountll(words[i]);
	return bits;
}

uint32_t vk_vset_rank(const uint64_t *present, uint32_t i)
{
	return vk_vset_count_words(present, i / 64) +
	       (uint32_t)__builtin_popcountll(present[i / 64] & (((uint64_t)1 << (i & 63)) - 1));
}

static enum vk_status block_rows(struct vk_kv_txn *t, const struct vk_set *s, uint32_t block, struct vk_vset_block *b)
{
	struct vk_rec_block_shape shape = vk_vset_shape(s, VK_REC_BLOCK_ROWS, block);
	b->has_dead = false;
	enum vk_status st = vk_vset_get(t, VK_T_BLOCK, s->id, block, &b->value);
	if (st) return st;
	return vk_rec_block_decode(&b->rows, &shape, b->value) ? VK_OK : vk_vset_damaged(s, "block", block, b->value);
}

static enum vk_status block_dead(const struct vk_set *s, uint32_t block, struct vk_bytes dead, struct vk_vset_block *b)
{
	if (!vk_rec_dead_decode(b->dead, s->id, block, b->rows.slots, dead))
		return vk_vset_damaged(s, "dead bits", block, dead);
	b->has_dead = true;
	return VK_OK;
}

enum vk_status vk_vset_block(struct vk_kv_txn *t, const struct vk_set *s, uint32_t block, struct vk_vset_block *b)
{
	struct vk_bytes dead;
	enum vk_status st = block_rows(t, s, block, b);
	if (st) return st;
	st = vk_vset_get(t, VK_T_DEAD, s->id, block, &dead);
	if (st) return st == VK_E_NOT_FOUND ? VK_OK : st;
	return block_dead(s, block, dead, b);
}

static enum vk_status tail_row(const struct vk_set *s, uint32_t slot, struct vk_bytes value, struct vk_row *out)
{
	struct vk_rec_tail row;
	if (!vk_rec_tail_decode(&row, s->dtype, vk_row_bytes(s->dtype, s->dims), value))
		return vk_vset_damaged(s, "row of slot", slot, value);
	*out = (struct vk_row){.p = row.row, .inv_norm = row.inv_norm};
	return VK_OK;
}

static enum vk_status row_here(const struct vk_vset_block *b, uint32_t i, struct vk_row *out)
{
	if (!vk_vset_counts_here(b, i)) return VK_E_NOT_FOUND;
	uint32_t rank = vk_vset_rank(b->rows.present, i);
	*out = (struct vk_row){.p = b->rows.data + (size_t)rank * b->rows.stride, .inv_norm = b->rows.inv_norm[rank]};
	return VK_OK;
}

enum vk_status vk_vset_row(struct vk_kv_txn *t, const struct vk_set *s, uint32_t slot, struct vk_row *out)
{
	struct vk_vset_block b;
	struct vk_bytes tail;
	uint32_t slots = vk_vset_rows(s);
	enum vk_status st = vk_vset_get(t, VK_T_TAIL, s->id, slot, &tail);
	if (!st) return tail_row(s, slot, tail, out);
	if (st != VK_E_NOT_FOUND) return st;
	st = vk_vset_block(t, s, slot / slots, &b);
	return st ? st : row_here(&b, slot & (slots - 1), out);
}

enum vk_status vk_vset_ascend_begin(struct vk_vset_ascent *a, struct vk_kv_txn *t, const struct vk_set *s, uint32_t from)
{
	*a = (struct vk_vset_ascent){.t = t, .s = s, .slot = from};
	enum vk_status st = vk_vset_walk_open(&a->tail, t, VK_T_TAIL, s->id);
	if (!st) st = vk_vset_walk_open(&a->dead, t, VK_T_DEAD, s->id);
	if (!st) st = vk_vset_walk_seek(&a->tail, from);
	if (!st) st = vk_vset_walk_seek(&a->dead, from / vk_vset_rows(s));
	return st;
}

enum vk_status vk_vset_ascend(struct vk_vset_ascent *a, uint32_t slot, struct vk_row *out)
{
	struct vk_vset_block b;
	uint32_t slots = vk_vset_rows(a->s), block = slot / slots;
	if (slot < a->slot) return VK_E_INVALID;
	a->slot = slot;
	enum vk_status st = vk_vset_walk_to(&a->tail, slot);
	if (!st) st = vk_vset_walk_to(&a->dead, block);
	if (st) return st;
	if (!a->tail.end && a->tail.n == slot) return tail_row(a->s, slot, a->tail.value, out);
	st = block_rows(a->t, a->s, block, &b);
	if (!st && !a->dead.end && a->dead.n == block) st = block_dead(a->s, block, a->dead.value, &b);
	return st ? st : row_here(&b, slot & (slots - 1), out);
}

void vk_vset_ascend_end(struct vk_vset_ascent *a)
{
	vk_vset_walk_close(&a->tail);
	vk_vset_walk_close(&a->dead);
}

bool vk_vset_has(struct vk_kv_txn *t, const struct vk_set *s, uint32_t slot)
{
	struct vk_row row;
	return vk_vset_row(t, s, slot, &row) == VK_OK;
}

static float widen_bit(const uint8_t *p, size_t i)
{
	return (float)(p[i / 8] >> (i & 7) & 1);
}

void vk_vset_widen(const struct vk_kernels *k, const struct vk_set *s, const void *p, float *dst)
{
	const uint8_t *b = p;
	switch (s->dtype) {
	case VK_DTYPE_F16: k->f16_to_f32(dst, p, s->dims); break;
	case VK_DTYPE_U8:
		for (size_t i = 0; i < s->dims; i++) dst[i] = (float)b[i];
		break;
	case VK_DTYPE_I8:
		for (size_t i = 0; i < s->dims; i++) dst[i] = (float)(int8_t)b[i];
		break;
	case VK_DTYPE_BITS:
		for (size_t i = 0; i < s->dims; i++) dst[i] = widen_bit(b, i);
		break;
	default: memcpy(dst, p, s->dims * sizeof *dst);
	}
}

void vk_row_f32(const struct vk_set *s, const struct vk_row *r, bool unit, float *dst)
{
	vk_vset_widen(vk_kernels(vk_cpu_best()), s, r->p, dst);
	if (!unit) return;
	for (size_t i = 0; i < s->dims; i++) dst[i] *= r->inv_norm;
}

/* --- counters --- */

static struct vk_bytes counts_key(uint8_t key[VK_REC_VSET_COUNTS_KEY], uint32_t set)
{
	vk_rec_vset_counts_key(key, set);
	return (struct vk_bytes){(const char *)key, VK_REC_VSET_COUNTS_KEY};
}

enum vk_status vk_vset_counts(struct vk_kv_txn *t, uint32_t set, struct vk_rec_vset_counts *c)
{
	uint8_t key[VK_REC_VSET_COUNTS_KEY];
	struct vk_bytes value;
	struct vk_set s = {.id = set};
	*c = (struct vk_rec_vset_counts){0};
	enum vk_status st = vk_kv_get(t, VK_T_META, counts_key(key, set), &value);
	if (st) return st == VK_E_NOT_FOUND ? VK_OK : st;
	return vk_rec_vset_counts_decode(c, set, value) ? VK_OK : vk_vset_damaged(&s, "counters", 0, value);
}

enum vk_status vk_vset_counts_put(struct vk_kv_txn *t, uint32_t set, const struct vk_rec_vset_counts *c)
{
	uint8_t key[VK_REC_VSET_COUNTS_KEY], value[VK_REC_VSET_COUNTS_SIZE];
	vk_rec_vset_counts_encode(value, set, c);
	return vk_kv_put(t, VK_T_META, counts_key(key, set), (struct vk_bytes){(const char *)value, sizeof value});
}

enum vk_status vk_vset_stats(struct vk_kv_txn *t, const struct vk_set *s, struct vk_vset_stats *out)
{
	struct vk_rec_vset_counts c;
	enum vk_status st = vk_vset_counts(t, s->id, &c);
	*out = (struct vk_vset_stats){.rows = c.rows, .tail_rows = c.tail_rows, .dead_rows = c.dead_rows,
				      .blocks = c.blocks, .bytes = c.bytes};
	return st;
}
