/* Encode and decode of a vector set's rows; the layout tables are in the header. */
#include "store/record_vset.h"

#include <assert.h>

#include "simd/cpu.h"
#include "simd/crc32c.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "rows are read straight from the map: little-endian machines only"
#endif
_Static_assert(sizeof(struct vk_code_head) == 24, "a record on disk");
_Static_assert(sizeof(float) == 4 && sizeof(void *) == 8, "a record on disk");

#define VERSION 1
#define PAGE 4096u
#define PAGE_HEAD 16u /* LMDB's, before a spilled value */
#define MAGIC 0x6c626b76u /* "vkbl" */

static uint32_t crc_of(uint32_t crc, const void *p, size_t n)
{
	return vk_crc32c(vk_cpu_best(), crc, p, n);
}

static uint32_t crc_of_key(uint32_t set, uint32_t n)
{
	uint8_t key[VK_REC_VSET_KEY];
	vk_rec_vset_key(key, set, n);
	return crc_of(0, key, sizeof key);
}

static const uint8_t *u8(struct vk_bytes b)
{
	return (const uint8_t *)b.p;
}

static void put_f32(uint8_t *p, float f)
{
	memcpy(p, &f, sizeof f);
}

void vk_rec_vset_key(uint8_t key[VK_REC_VSET_KEY], uint32_t set, uint32_t n)
{
	vk_put_u32be(key, set);
	vk_put_u32be(key + 4, n);
}

bool vk_rec_vset_key_read(struct vk_bytes key, uint32_t *set, uint32_t *n)
{
	if (key.n != VK_REC_VSET_KEY) return false;
	*set = vk_get_u32be(u8(key));
	*n = vk_get_u32be(u8(key) + 4);
	return true;
}

/* --- shape of blocks --- */

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

static uint32_t stride_of(enum vk_rec_block_kind kind, enum vk_dtype dtype, uint32_t dims)
{
	if (kind == VK_REC_BLOCK_CODES) return (uint32_t)round_up(dims, 64);
	if (kind == VK_REC_BLOCK_BITS) return (uint32_t)round_up((dims + 7) / 8, 8);
	return (uint32_t)vk_row_bytes(dtype, dims);
}

static void layout(struct vk_rec_block_layout *l, enum vk_rec_block_kind kind, enum vk_dtype dtype, uint32_t dims,
		   uint32_t slots, uint32_t rows)
{
	bool is_rows = kind == VK_REC_BLOCK_ROWS;
	size_t side = is_rows ? sizeof(float) : kind == VK_REC_BLOCK_CODES ? sizeof(struct vk_code_head) : 0;
	size_t at = VK_REC_BLOCK_HEAD;
	l->present_at = (uint32_t)at;
	if (is_rows) at += round_up((size_t)vk_rec_words(slots) * 8, 64);
	l->side_at = (uint32_t)at;
	at += round_up(side * rows, 64);
	l->data_at = (uint32_t)at;
	l->stride = stride_of(kind, dtype, dims);
	l->size = round_up(at + (size_t)l->stride * rows + PAGE_HEAD, PAGE) - PAGE_HEAD;
}

uint32_t vk_rec_block_slots(enum vk_dtype dtype, uint32_t dims)
{
	struct vk_rec_block_layout l;
	size_t most = VK_REC_BLOCK_MAX / stride_of(VK_REC_BLOCK_ROWS, dtype, dims); /* reads ask often: begin near it */
	uint32_t slots = VK_REC_BLOCK_SLOTS_MAX;
	while (slots > 1 && slots > most) slots /= 2;
	for (; slots > 1; slots /= 2) {
		layout(&l, VK_REC_BLOCK_ROWS, dtype, dims, slots, slots);
		if (l.size <= VK_REC_BLOCK_MAX) break;
	}
	return slots;
}

void vk_rec_block_layout(struct vk_rec_block_layout *l, const struct vk_rec_block_shape *shape, uint32_t rows)
{
	layout(l, shape->kind, shape->dtype, shape->dims, vk_rec_block_slots(shape->dtype, shape->dims), rows);
}

/* --- blocks --- */

void vk_rec_block_clear(uint8_t *dst, const struct vk_rec_block_layout *l, uint32_t rows)
{
	size_t end = l->data_at + (size_t)l->stride * rows;
	memset(dst, 0, l->data_at);
	memset(dst + end, 0, l->size - end);
}

uint32_t vk_rec_block_seal(uint8_t *dst, const struct vk_rec_block_layout *l, const struct vk_rec_block_shape *shape,
			   uint32_t rows, uint32_t made_of)
{
	uint32_t slots = vk_rec_block_slots(shape->dtype, shape->dims);
	uint32_t crc = crc_of(0, dst + VK_REC_BLOCK_HEAD, l->size - VK_REC_BLOCK_HEAD);
	assert(rows >= 1 && rows <= slots);
	vk_put_u32le(dst, MAGIC);
	dst[4] = VERSION;
	dst[5] = (uint8_t)shape->kind;
	dst[6] = (uint8_t)shape->dtype;
	dst[7] = 0;
	vk_put_u32le(dst + 8, shape->set);
	vk_put_u32le(dst + 12, shape->space);
	vk_put_u32le(dst + 16, shape->dims);
	vk_put_u32le(dst + 20, shape->block * slots);
	vk_put_u32le(dst + 24, slots);
	vk_put_u32le(dst + 28, rows);
	vk_put_u32le(dst + 32, l->stride);
	vk_put_u32le(dst + 36, made_of);
	vk_put_u32le(dst + 40, crc);
	vk_put_u32le(dst + 44, crc_of(0, dst, 44));
	return crc;
}

static bool head_checks(const uint8_t *p, const struct vk_rec_block_shape *shape, uint32_t slots)
{
	uint32_t rows = vk_get_u32le(p + 28);
	return vk_get_u32le(p) == MAGIC && p[4] == VERSION && p[5] == shape->kind && p[6] == shape->dtype && p[7] == 0 &&
	       vk_get_u32le(p + 8) == shape->set && vk_get_u32le(p + 16) == shape->dims &&
	       vk_get_u32le(p + 20) == shape->block * slots && vk_get_u32le(p + 24) == slots && rows >= 1 && rows <= slots &&
	       vk_get_u32le(p + 32) == stride_of(shape->kind, shape->dtype, shape->dims) &&
	       (shape->kind != VK_REC_BLOCK_ROWS || vk_get_u32le(p + 36) == 0) &&
	       vk_get_u32le(p + 44) == crc_of(0, p, 44);
}

/* As many bits as rows, none past the slots: else a rank could point past the rows. */
static bool present_checks(const uint64_t *words, uint32_t slots, uint32_t rows)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < vk_rec_words(slots); i++) n += (uint32_t)__builtin_popcountll(words[i]);
	return n == rows && (slots >= 64 || words[0] >> slots == 0);
}

bool vk_rec_block_decode(struct vk_rec_block *b, const struct vk_rec_block_shape *shape, struct vk_bytes value)
{
	struct vk_rec_block_layout l;
	const uint8_t *p = u8(value);
	uint32_t slots = vk_rec_block_slots(shape->dtype, shape->dims);
	if (value.n < VK_REC_BLOCK_HEAD || (uintptr_t)p % 8 != 0) return false;
	if ((uint64_t)shape->block * slots > UINT32_MAX) return false;
	if (!head_checks(p, shape, slots)) return false;
	uint32_t rows = vk_get_u32le(p + 28);
	layout(&l, shape->kind, shape->dtype, shape->dims, slots, rows);
	if (value.n != l.size) return false;
	*b = (struct vk_rec_block){
	    .first = shape->block * slots,
	    .slots = slots,
	    .rows = rows,
	    .stride = l.stride,
	    .space = vk_get_u32le(p + 12),
	    .made_of = vk_get_u32le(p + 36),
	    .crc = vk_get_u32le(p + 40),
	    .data = p + l.data_at,
	};
	if (shape->kind == VK_REC_BLOCK_CODES) b->head = (const void *)(p + l.side_at);
	if (shape->kind != VK_REC_BLOCK_ROWS) return true;
	b->present = (const void *)(p + l.present_at);
	b->inv_norm = (const void *)(p + l.side_at);
	return present_checks(b->present, slots, rows);
}

bool vk_rec_block_check(const struct vk_rec_block *b, struct vk_bytes value)
{
	return crc_of(0, u8(value) + VK_REC_BLOCK_HEAD, value.n - VK_REC_BLOCK_HEAD) == b->crc;
}

/* --- dead bits --- */

static uint32_t dead_crc(uint32_t set, uint32_t block, const uint8_t *p, size_t n)
{
	return crc_of(crc_of(crc_of_key(set, block), p, 12), p + VK_REC_DEAD_HEAD, n - VK_REC_DEAD_HEAD);
}

size_t vk_rec_dead_encode(uint8_t dst[VK_REC_DEAD_MAX], uint32_t set, uint32_t block, const uint64_t *words,
			  uint32_t slots)
{
	size_t words_n = vk_rec_words(slots), n = VK_REC_DEAD_HEAD + words_n * 8;
	uint32_t dead = 0;
	assert(slots <= VK_REC_BLOCK_SLOTS_MAX);
	for (size_t i = 0; i < words_n; i++) {
		dead += (uint32_t)__builtin_popcountll(words[i]);
		vk_put_u64le(dst + VK_REC_DEAD_HEAD + 8 * i, words[i]);
	}
	assert(dead >= 1);
	vk_put_u32le(dst, VERSION);
	vk_put_u32le(dst + 4, slots);
	vk_put_u32le(dst + 8, dead);
	vk_put_u32le(dst + 12, dead_crc(set, block, dst, n));
	return n;
}

bool vk_rec_dead_decode(uint64_t *words, uint32_t set, uint32_t block, uint32_t slots, struct vk_bytes value)
{
	const uint8_t *p = u8(value);
	size_t words_n = vk_rec_words(slots);
	uint32_t dead = 0;
	if (value.n != VK_REC_DEAD_HEAD + words_n * 8) return false;
	if (vk_get_u32le(p) != VERSION || vk_get_u32le(p + 4) != slots) return false;
	if (vk_get_u32le(p + 12) != dead_crc(set, block, p, value.n)) return false;
	for (size_t i = 0; i < words_n; i++) {
		words[i] = vk_get_u64le(p + VK_REC_DEAD_HEAD + 8 * i);
		dead += (uint32_t)__builtin_popcountll(words[i]);
	}
	return dead >= 1 && dead == vk_get_u32le(p + 8) && (slots >= 64 || words[0] >> slots == 0);
}

/* --- rows alone --- */

static uint32_t tail_crc(uint32_t set, uint32_t slot, const uint8_t *p, size_t row_n)
{
	return crc_of(crc_of(crc_of_key(set, slot), p, 8), p + VK_REC_TAIL_HEAD, row_n);
}

void vk_rec_tail_seal(uint8_t *dst, uint32_t set, uint32_t slot, enum vk_dtype dtype, float inv_norm, size_t row_n)
{
	vk_put_u32le(dst, VERSION | (uint32_t)dtype << 8);
	put_f32(dst + 4, inv_norm);
	vk_put_u32le(dst + 8, tail_crc(set, slot, dst, row_n));
}

bool vk_rec_tail_decode(struct vk_rec_tail *r, enum vk_dtype dtype, size_t row_n, struct vk_bytes value)
{
	const uint8_t *p = u8(value);
	if (value.n != VK_REC_TAIL_HEAD + row_n || vk_get_u32le(p) != (VERSION | (uint32_t)dtype << 8)) return false;
	memcpy(&r->inv_norm, p + 4, sizeof r->inv_norm);
	r->row = p + VK_REC_TAIL_HEAD;
	return true;
}

bool vk_rec_tail_check(uint32_t set, uint32_t slot, struct vk_bytes value)
{
	const uint8_t *p = u8(value);
	if (value.n < VK_REC_TAIL_HEAD) return false;
	return tail_crc(set, slot, p, value.n - VK_REC_TAIL_HEAD) == vk_get_u32le(p + 8);
}

/* --- counters --- */

void vk_rec_vset_counts_key(uint8_t key[VK_REC_VSET_COUNTS_KEY], uint32_t set)
{
	memcpy(key, VK_REC_VSET_COUNTS, 5);
	vk_put_u32be(key + 5, set);
}

static uint32_t counts_crc(uint32_t set, const uint8_t *p)
{
	uint8_t key[VK_REC_VSET_COUNTS_KEY];
	vk_rec_vset_counts_key(key, set);
	return crc_of(crc_of(0, key, sizeof key), p, VK_REC_VSET_COUNTS_SIZE - 4);
}

void vk_rec_vset_counts_encode(uint8_t dst[VK_REC_VSET_COUNTS_SIZE], uint32_t set, const struct vk_rec_vset_counts *c)
{
	dst[0] = VERSION;
	vk_put_u64le(dst + 1, c->rows);
	vk_put_u64le(dst + 9, c->tail_rows);
	vk_put_u64le(dst + 17, c->dead_rows);
	vk_put_u64le(dst + 25, c->blocks);
	vk_put_u64le(dst + 33, c->bytes);
	vk_put_u32le(dst + 41, counts_crc(set, dst));
}

bool vk_rec_vset_counts_decode(struct vk_rec_vset_counts *c, uint32_t set, struct vk_bytes value)
{
	const uint8_t *p = u8(value);
	if (value.n != VK_REC_VSET_COUNTS_SIZE || p[0] != VERSION) return false;
	if (vk_get_u32le(p + 41) != counts_crc(set, p)) return false;
	*c = (struct vk_rec_vset_counts){
	    .rows = vk_get_u64le(p + 1),
	    .tail_rows = vk_get_u64le(p + 9),
	    .dead_rows = vk_get_u64le(p + 17),
	    .blocks = vk_get_u64le(p + 25),
	    .bytes = vk_get_u64le(p + 33),
	};
	return true;
}
