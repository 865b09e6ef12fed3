/* A vector set in memory: struct vk_parts without an environment, and what stands in each slot. Included after cmocka.h. */
#ifndef VK_TESTS_INDEX_PARTS_H
#define VK_TESTS_INDEX_PARTS_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "index/exact_run.h"

struct memory_set {
	struct vk_set set;
	struct vk_parts parts;
	uint32_t slots;     /* slots 0 .. slots - 1 may hold a row */
	uint8_t *kept;      /* slots rows of row_bytes: what counts in a slot */
	size_t row_bytes;
	float *inv_norm;    /* of it */
	bool *has;
	uint32_t *id;       /* a permutation: the order of ids */
	uint64_t compared;  /* not atomic: a thread sanitizer sees comparisons side by side */
	void **owned;
	size_t owned_n;
};

static inline void *own(struct memory_set *m, size_t bytes)
{
	if (m->owned_n % 256 == 0) m->owned = realloc(m->owned, (m->owned_n + 256) * sizeof(void *));
	void *p = calloc(1, bytes ? bytes : 1);
	assert_non_null(p);
	return m->owned[m->owned_n++] = p;
}

static inline void memory_set_free(struct memory_set *m)
{
	for (size_t i = 0; i < m->owned_n; i++) free(m->owned[i]);
	free(m->owned);
}

static inline int memory_set_tie(void *arg, uint32_t a, uint32_t b)
{
	struct memory_set *m = arg;
	m->compared++;
	return m->id[a] < m->id[b] ? -1 : m->id[a] > m->id[b];
}

/* A row as the set keeps it, and widened again. */
static inline void keep_row(const struct vk_set *s, const float *row, uint8_t *dst, float *wide)
{
	const struct vk_kernels *k = vk_kernels(VK_CPU_SCALAR);
	uint16_t half;
	memcpy(wide, row, s->dims * sizeof *wide);
	switch (s->dtype) {
	case VK_DTYPE_F32: memcpy(dst, row, s->dims * sizeof *row); return;
	case VK_DTYPE_U8: k->f32_to_u8(dst, row, s->dims); break;
	case VK_DTYPE_BITS: k->f32_to_bits(dst, row, s->dims); return;
	default: break;
	}
	for (size_t i = 0; i < s->dims; i++) {
		if (s->dtype == VK_DTYPE_U8) {
			wide[i] = dst[i];
		} else if (s->dtype == VK_DTYPE_I8) {
			int8_t v = (int8_t)fmaxf(-128, fminf(127, truncf(row[i])));
			memcpy(dst + i, &v, 1);
			wide[i] = v;
		} else {
			float x = fmaxf(-60000, fminf(60000, row[i]));
			k->f32_to_f16(&half, &x, 1);
			memcpy(dst + 2 * i, &half, 2);
			k->f16_to_f32(wide + i, &half, 1);
		}
	}
}

struct scatter { /* out of 100: how slots are given and where rows are */
	unsigned hole;  /* a slot without a row */
	unsigned dead;  /* a row in its block that no longer counts, its slot empty */
	unsigned moved; /* a dead row in the block, the one that counts in the tail */
	unsigned tail;  /* a row in the tail alone */
	unsigned plain; /* parts without codes and bits */
};

static inline void put_row(struct memory_set *m, struct vk_part *p, const uint8_t *kept, const float *wide)
{
	const struct vk_kernels *k = vk_kernels(VK_CPU_SCALAR);
	uint32_t n = p->rows++;
	memcpy((uint8_t *)p->row + (size_t)n * p->stride, kept, m->row_bytes);
	((float *)p->inv_norm)[n] = vk_inverse_norm(wide, m->set.dims);
	if (p->code_head)
		vk_code_row(k, (struct vk_code_head *)p->code_head + n, (uint8_t *)p->code + (size_t)n * p->code_stride,
			    p->code_stride, wide, m->set.dims);
	if (p->bits) k->f32_to_bits((uint8_t *)p->bits + (size_t)n * p->bits_stride, wide, m->set.dims);
}

static inline struct vk_part *new_part(struct memory_set *m, uint32_t first, uint32_t per_part, bool codes, uint64_t *dice)
{
	struct vk_part *p = &m->parts.part[m->parts.part_n++];
	size_t dims = m->set.dims, words = per_part > 64 ? per_part / 64 : 1;
	*p = (struct vk_part){.first = first, .slots = per_part, .stride = (uint32_t)(m->row_bytes + 3) / 4 * 4};
	p->present = own(m, words * 8);
	if (vk_rng(dice) % 2) p->dead = own(m, words * 8);
	p->row = (uint8_t *)own(m, per_part * p->stride + 16) + vk_rng(dice) % 3 * 4; /* seldom aligned */
	p->inv_norm = own(m, per_part * sizeof(float));
	if (!codes) return p;
	p->code_head = own(m, per_part * sizeof *p->code_head);
	p->code_stride = (uint32_t)(dims + 63) / 64 * 64;
	p->code = own(m, (size_t)per_part * p->code_stride);
	p->bits_stride = (uint32_t)(dims + 63) / 64 * 8;
	p->bits = own(m, (size_t)per_part * p->bits_stride);
	return p;
}

static inline void add_tail(struct memory_set *m, uint32_t slot)
{
	m->parts.tail[m->parts.tail_n++] = (struct vk_tail_row){
	    .slot = slot, .inv_norm = m->inv_norm[slot], .row = m->kept + slot * m->row_bytes};
}

/* row(arg, slot, dst): the values of a slot. */
static inline struct memory_set memory_set_new(struct vk_set set, uint32_t slots, uint32_t per_part, struct scatter s,
					       void (*row)(void *arg, uint32_t slot, float *dst), void *arg, uint64_t *dice)
{
	struct memory_set m = {.set = set, .slots = slots, .row_bytes = vk_row_bytes(set.dtype, set.dims)};
	m.kept = own(&m, slots * m.row_bytes);
	m.inv_norm = own(&m, slots * sizeof(float));
	m.has = own(&m, slots * sizeof(bool));
	m.id = own(&m, slots * sizeof(uint32_t));
	m.parts.part = own(&m, (slots / per_part + 1) * sizeof(struct vk_part));
	m.parts.tail = own(&m, slots * sizeof(struct vk_tail_row));
	float *in = own(&m, set.dims * sizeof(float)), *wide = own(&m, set.dims * sizeof(float));
	uint8_t *old = own(&m, m.row_bytes);
	struct vk_part *p = NULL;
	for (uint32_t slot = 0; slot < slots; slot++) {
		uint32_t other = (uint32_t)(vk_rng(dice) % (slot + 1));
		m.id[slot] = m.id[other];
		m.id[other] = slot;
		if (slot % per_part == 0) {
			bool codes = set.dims >= VK_CODE_DIMS_MIN && vk_rng(dice) % 100 >= s.plain &&
				     (set.dtype == VK_DTYPE_F32 || set.dtype == VK_DTYPE_F16);
			p = new_part(&m, slot, per_part, codes, dice);
		}
		unsigned die = vk_rng(dice) % 100;
		if (die < s.hole) continue;
		row(arg, slot, in);
		keep_row(&set, in, m.kept + slot * m.row_bytes, wide);
		m.inv_norm[slot] = vk_inverse_norm(wide, set.dims);
		uint32_t at = slot - p->first;
		uint64_t bit = (uint64_t)1 << (at % 64);
		bool dead = p->dead && (die -= s.hole) < s.dead + s.moved, moved = dead && die >= s.dead;
		bool tail = !dead && die >= 100 - s.tail - s.hole && s.tail;
		m.has[slot] = !dead || moved;
		m.parts.rows += m.has[slot];
		if (moved || tail) add_tail(&m, slot);
		if (tail) continue;
		if (dead) { /* what lies there is another row */
			row(arg, slot + 1, in);
			keep_row(&set, in, old, wide);
			((uint64_t *)p->dead)[at / 64] |= bit;
		}
		put_row(&m, p, dead ? old : m.kept + slot * m.row_bytes, wide);
		((uint64_t *)p->present)[at / 64] |= bit;
	}
	return m;
}

/* --- the oracle: every row by the scalar kernel, one at a time, then a full sort --- */

static inline float oracle_rank(const struct memory_set *m, const float *vector, uint32_t slot)
{
	const struct vk_kernels *k = vk_kernels(VK_CPU_SCALAR);
	const struct vk_set *s = &m->set;
	float unit[2048], wide[2048], raw;
	_Alignas(64) uint8_t form[2048 * 4];
	bool floats = s->dtype == VK_DTYPE_F32 || s->dtype == VK_DTYPE_F16;
	memcpy(unit, vector, s->dims * sizeof *unit);
	if (floats && s->metric == VK_METRIC_COSINE) vk_unit(unit, vector, s->dims);
	if (!floats) keep_row(s, vector, form, wide);
	k->score[vk_metric_kind(s->metric)][s->dtype](floats ? (void *)unit : (void *)form, m->kept + slot * m->row_bytes,
						      m->row_bytes, 1, s->dims, NULL, &raw);
	if (s->metric == VK_METRIC_COSINE) {
		if (!floats) raw *= vk_inverse_norm(wide, s->dims);
		raw *= m->inv_norm[slot];
	}
	float rank = vk_rank_of_raw(s->metric, raw);
	return isnan(rank) ? -INFINITY : rank;
}

static inline int oracle_order(const void *a, const void *b, void *m)
{
	const struct vk_hit *x = a, *y = b;
	if (x->rank != y->rank) return x->rank > y->rank ? -1 : 1;
	return memory_set_tie(m, x->slot, y->slot);
}

/* hit has room for every slot. */
static inline size_t oracle_search(struct memory_set *m, const struct vk_exact_query *q, struct vk_hit *hit)
{
	size_t n = 0;
	for (uint32_t slot = 0; slot < m->slots; slot++) {
		if (!m->has[slot] || (q->in && !vk_bitmap_has(q->in, slot))) continue;
		float rank = oracle_rank(m, q->vector, slot);
		if (rank >= q->floor) hit[n++] = (struct vk_hit){slot, rank};
	}
	qsort_r(hit, n, sizeof *hit, oracle_order, m);
	return n < q->limit ? n : q->limit;
}

#endif
