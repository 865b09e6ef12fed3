/*
 * Blocks, dead bits, rows alone and counters of a vector set out of arbitrary bytes: decoders must not read
 * outside of them, and what they accept must point inside. First byte: what the rest is taken for; its top
 * bit mends the checks, so that the fuzzer gets behind them.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "simd/crc32c.h"
#include "store/record_vset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct vk_rec_block_shape shapes[] = {
    {.kind = VK_REC_BLOCK_ROWS, .dtype = VK_DTYPE_F32, .set = 1, .dims = 64, .block = 3},
    {.kind = VK_REC_BLOCK_CODES, .dtype = VK_DTYPE_F32, .set = 1, .dims = 100, .block = 3},
    {.kind = VK_REC_BLOCK_BITS, .dtype = VK_DTYPE_F16, .set = 9, .dims = 130, .block = 0},
    {.kind = VK_REC_BLOCK_ROWS, .dtype = VK_DTYPE_BITS, .set = UINT32_MAX, .dims = 1, .block = 1},
    {.kind = VK_REC_BLOCK_ROWS, .dtype = VK_DTYPE_F32, .set = 5, .dims = 1536, .block = 1000},
};
#define SHAPES (sizeof shapes / sizeof *shapes)

static uint32_t crc(uint32_t from, const uint8_t *p, size_t n)
{
	return vk_crc32c(VK_CPU_SCALAR, from, p, n);
}

static uint32_t crc_of_key(uint32_t set, uint32_t n)
{
	uint8_t key[VK_REC_VSET_KEY];
	vk_rec_vset_key(key, set, n);
	return crc(0, key, sizeof key);
}

/* Reads every row as a scan does: rank by rank of the presence bits. */
static void read_block(const struct vk_rec_block *b, const uint8_t *p, size_t n)
{
	volatile uint8_t sum = 0;
	uint32_t rank = 0;
	assert(b->rows >= 1 && b->rows <= b->slots);
	assert(b->data >= p && b->data + (size_t)b->rows * b->stride <= p + n);
	for (size_t i = 0; i < (size_t)b->rows * b->stride; i++) sum ^= b->data[i];
	for (uint32_t i = 0; b->present && i < vk_rec_words(b->slots) * 64; i++) {
		if (!(b->present[i / 64] >> (i & 63) & 1)) continue;
		assert(i < b->slots && rank < b->rows);
		sum ^= ((const uint8_t *)&b->inv_norm[rank])[3];
		rank++;
	}
	assert(!b->present || rank == b->rows);
	for (uint32_t i = 0; b->head && i < b->rows; i++) sum ^= ((const uint8_t *)&b->head[i])[23];
	(void)sum; /* every byte was read: that is the test */
}

/* An input is seldom as long as a block: its bytes are the beginning of one. */
static void block(uint8_t *p, size_t n, const struct vk_rec_block_shape *s, int mend)
{
	struct vk_rec_block b;
	if (mend && n >= VK_REC_BLOCK_HEAD) {
		struct vk_rec_block_layout l;
		uint32_t slots = vk_rec_block_slots(s->dtype, s->dims), rows = 1 + vk_get_u32le(p + 28) % slots;
		vk_rec_block_layout(&l, s, rows);
		uint8_t *whole = calloc(1, l.size);
		memcpy(whole, p, n < l.size ? n : l.size);
		vk_rec_block_seal(whole, &l, s, rows, 0);
		if (vk_rec_block_decode(&b, s, (struct vk_bytes){(char *)whole, l.size})) {
			assert(vk_rec_block_check(&b, (struct vk_bytes){(char *)whole, l.size}));
			read_block(&b, whole, l.size);
		}
		free(whole);
		return;
	}
	if (vk_rec_block_decode(&b, s, (struct vk_bytes){(char *)p, n})) read_block(&b, p, n);
}

static void dead(uint8_t *p, size_t n, int mend)
{
	uint64_t words[VK_REC_BLOCK_WORDS_MAX];
	uint8_t again[VK_REC_DEAD_MAX];
	for (uint32_t slots = 1; slots <= VK_REC_BLOCK_SLOTS_MAX; slots *= 2) {
		if (mend && n >= VK_REC_DEAD_HEAD) {
			uint32_t c = crc(crc_of_key(1, 2), p, 12);
			vk_put_u32le(p + 12, crc(c, p + VK_REC_DEAD_HEAD, n - VK_REC_DEAD_HEAD));
		}
		if (!vk_rec_dead_decode(words, 1, 2, slots, (struct vk_bytes){(char *)p, n})) continue;
		assert(vk_rec_dead_encode(again, 1, 2, words, slots) == n && memcmp(again, p, n) == 0);
	}
}

static void tail(uint8_t *p, size_t n, int mend)
{
	struct vk_rec_tail row;
	struct vk_bytes value = {(char *)p, n};
	volatile uint8_t sum = 0;
	if (mend && n >= VK_REC_TAIL_HEAD) vk_rec_tail_seal(p, 1, 2, VK_DTYPE_U8, 1, n - VK_REC_TAIL_HEAD);
	for (size_t row_n = 0; row_n <= n; row_n++) {
		if (!vk_rec_tail_decode(&row, VK_DTYPE_U8, row_n, value)) continue;
		assert(row.row >= p && row.row + row_n == p + n);
		for (size_t i = 0; i < row_n; i++) sum ^= row.row[i];
		assert(vk_rec_tail_check(1, 2, value) || !mend);
	}
	vk_rec_tail_check(3, 4, value);
	(void)sum;
}

static void counts(uint8_t *p, size_t n, int mend)
{
	struct vk_rec_vset_counts c;
	uint8_t key[VK_REC_VSET_COUNTS_KEY], again[VK_REC_VSET_COUNTS_SIZE];
	vk_rec_vset_counts_key(key, 1);
	if (mend && n >= 4) vk_put_u32le(p + n - 4, crc(crc(0, key, sizeof key), p, n - 4));
	if (!vk_rec_vset_counts_decode(&c, 1, (struct vk_bytes){(char *)p, n})) return;
	vk_rec_vset_counts_encode(again, 1, &c);
	assert(n == sizeof again && memcmp(again, p, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1) return 0;
	int mend = data[0] & 0x80, what = data[0] & 0x7f;
	uint8_t *p = malloc(size - 1 ? size - 1 : 1); /* of just this length: a read past it is caught */
	memcpy(p, data + 1, size - 1);
	switch (what % (SHAPES + 3)) {
	case SHAPES: dead(p, size - 1, mend); break;
	case SHAPES + 1: tail(p, size - 1, mend); break;
	case SHAPES + 2: counts(p, size - 1, mend); break;
	default: block(p, size - 1, &shapes[what % (SHAPES + 3)], mend);
	}
	free(p);
	return 0;
}
