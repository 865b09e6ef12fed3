/*
 * Goal: blocks, dead bits, rows alone and counters decode to what was encoded, version 1 stays readable, and
 * no flipped bit passes the check, nor a record under another key. Blocks hardly waste a page, and rows stand
 * where they are aligned. Method: seeded random records of several shapes; every single bit of small ones
 * flipped, random bits of large ones; a golden file of one of each, encoded again to the same bytes.
 */
#include "tests/store/golden.h"

#include "store/record_vset.h"

static const struct vk_rec_block_shape shapes[] = {
    {.kind = VK_REC_BLOCK_ROWS, .dtype = VK_DTYPE_F32, .set = 1, .space = 7, .dims = 64, .block = 3},
    {.kind = VK_REC_BLOCK_CODES, .dtype = VK_DTYPE_F32, .set = 1, .space = 7, .dims = 100, .block = 3},
    {.kind = VK_REC_BLOCK_BITS, .dtype = VK_DTYPE_F16, .set = 9, .dims = 130, .block = 0},
    {.kind = VK_REC_BLOCK_ROWS, .dtype = VK_DTYPE_BITS, .set = UINT32_MAX, .dims = 1, .block = 1},
    {.kind = VK_REC_BLOCK_ROWS, .dtype = VK_DTYPE_F32, .set = 5, .dims = 1536, .block = 1000},
    {.kind = VK_REC_BLOCK_ROWS, .dtype = VK_DTYPE_F32, .set = 6, .dims = 65536, .block = UINT32_MAX},
    {.kind = VK_REC_BLOCK_CODES, .dtype = VK_DTYPE_F16, .set = 6, .dims = 65536, .block = 4},
};
#define SHAPES (sizeof shapes / sizeof *shapes)

static uint32_t slots_of(const struct vk_rec_block_shape *s) { return vk_rec_block_slots(s->dtype, s->dims); }

/* Which of the slots are here: rows of them. */
static void spread(uint64_t *rng, uint64_t *words, uint32_t slots, uint32_t rows)
{
	memset(words, 0, vk_rec_words(slots) * sizeof *words);
	for (uint32_t i = 0, left = rows; i < slots && left; i++) {
		if (vk_rng(rng) % (slots - i) >= left) continue;
		words[i / 64] |= (uint64_t)1 << i % 64;
		left--;
	}
}

/* A block with random contents; its size. dst: 64-byte aligned plus 16, as in a page. */
static size_t make_block(uint64_t *rng, const struct vk_rec_block_shape *s, uint32_t rows, uint8_t *dst)
{
	struct vk_rec_block_layout l;
	uint64_t words[VK_REC_BLOCK_WORDS_MAX];
	vk_rec_block_layout(&l, s, rows);
	for (size_t i = 0; i < l.size; i++) dst[i] = 0xaa; /* nothing of it may stay */
	vk_rec_block_clear(dst, &l, rows);
	spread(rng, words, slots_of(s), rows);
	if (s->kind == VK_REC_BLOCK_ROWS) memcpy(dst + l.present_at, words, vk_rec_words(slots_of(s)) * 8);
	for (size_t i = 0; i < (size_t)l.stride * rows; i++) dst[l.data_at + i] = (uint8_t)vk_rng(rng);
	vk_rec_block_seal(dst, &l, s, rows, s->kind == VK_REC_BLOCK_ROWS ? 0 : (uint32_t)vk_rng(rng));
	return l.size;
}

static uint8_t *new_page(void) { return (uint8_t *)aligned_alloc(4096, 1 << 20) + 16; }
static void free_page(uint8_t *p) { free(p - 16); }

static struct vk_bytes span(const void *p, size_t n) { return (struct vk_bytes){p, n}; }

static bool decodes(const struct vk_rec_block_shape *s, const uint8_t *p, size_t n)
{
	struct vk_rec_block b;
	return vk_rec_block_decode(&b, s, span(p, n)) && vk_rec_block_check(&b, span(p, n));
}

static void test_blocks_decode_to_what_was_encoded(void **state)
{
	(void)state;
	uint64_t rng = test_seed("vset_blocks");
	uint8_t *p = new_page();
	for (int round = 0; round < 20; round++) {
		for (size_t k = 0; k < SHAPES; k++) {
			struct vk_rec_block_shape s = shapes[k], other;
			struct vk_rec_block b;
			uint32_t slots = slots_of(&s), rows = 1 + (uint32_t)(vk_rng(&rng) % slots);
			size_t n = make_block(&rng, &s, rows, p);
			uint64_t first = (uint64_t)s.block * slots;
			assert_int_equal(vk_rec_block_decode(&b, &s, span(p, n)), first <= UINT32_MAX);
			if (first > UINT32_MAX) continue;
			assert_true(vk_rec_block_check(&b, span(p, n)));
			assert_int_equal(b.first, first);
			assert_int_equal(b.rows, rows);
			assert_int_equal(b.space, s.space);
			assert_int_equal((uintptr_t)b.data % 64, 0);
			assert_int_equal(n % 4096, 4080);
			assert_false(decodes(&s, p, n - 1 - vk_rng(&rng) % (n - 1)));
			other = s, other.set ^= 1;
			assert_false(decodes(&other, p, n));
			other = s, other.block ^= 1;
			assert_false(decodes(&other, p, n));
			other = s, other.dims += 1;
			assert_false(decodes(&other, p, n));
			other = s, other.kind = s.kind % 3 + 1;
			assert_false(decodes(&other, p, n));
			other = s, other.space += 1; /* told, not checked */
			assert_true(decodes(&other, p, n));
		}
	}
	free_page(p);
}

static void test_blocks_every_flipped_bit_is_caught(void **state)
{
	(void)state;
	uint64_t rng = test_seed("vset_flips");
	uint8_t *p = new_page();
	for (size_t k = 0; k < SHAPES; k++) {
		if ((uint64_t)shapes[k].block * slots_of(&shapes[k]) > UINT32_MAX) continue;
		size_t n = make_block(&rng, &shapes[k], slots_of(&shapes[k]) > 2 ? 3 : 1, p);
		for (size_t i = 0; i < 4000; i++) {
			size_t bit = i < 8 * 128 ? i : vk_rng(&rng) % (8 * n);
			p[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_false(decodes(&shapes[k], p, n));
			p[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		assert_true(decodes(&shapes[k], p, n));
	}
	free_page(p);
}

/* What keeps reads inside of the value is checked at each of them, by decode alone: a header and presence
 * bits that were made to fit a CRC are no way around it. */
static void test_blocks_with_too_many_presence_bits_are_refused(void **state)
{
	(void)state;
	uint64_t rng = test_seed("vset_present");
	const struct vk_rec_block_shape *s = &shapes[4];
	struct vk_rec_block_layout l;
	struct vk_rec_block b;
	uint8_t *p = new_page();
	size_t n = make_block(&rng, s, 5, p);
	uint64_t words;
	vk_rec_block_layout(&l, s, 5);
	memcpy(&words, p + l.present_at, 8);
	for (int bit = 0; bit < 64; bit++) {
		uint64_t more = words ^ (uint64_t)1 << bit;
		memcpy(p + l.present_at, &more, 8);
		vk_rec_block_seal(p, &l, s, 5, 0);
		assert_false(vk_rec_block_decode(&b, s, span(p, n)));
	}
	/* As many, but past the slots (there are 32). */
	words = (words & (words - 1)) | (uint64_t)1 << 40;
	memcpy(p + l.present_at, &words, 8);
	vk_rec_block_seal(p, &l, s, 5, 0);
	assert_false(vk_rec_block_decode(&b, s, span(p, n)));
	free_page(p);
}

static void test_block_slots_fill_the_block_and_waste_little(void **state)
{
	(void)state;
	for (enum vk_dtype t = 0; t < VK_DTYPES; t++) {
		for (uint32_t dims = 1; dims <= VK_REC_VSET_DIMS_MAX; dims += dims < 3000 ? 1 : 997) {
			struct vk_rec_block_shape s = {.kind = VK_REC_BLOCK_ROWS, .dtype = t, .dims = dims};
			struct vk_rec_block_layout l, twice;
			uint32_t slots = vk_rec_block_slots(t, dims);
			assert_true(slots >= 1 && (slots & (slots - 1)) == 0 && slots <= VK_REC_BLOCK_SLOTS_MAX);
			vk_rec_block_layout(&l, &s, slots);
			vk_rec_block_layout(&twice, &s, 2 * slots);
			assert_true(l.size <= VK_REC_BLOCK_MAX || slots == 1);
			assert_true(twice.size > VK_REC_BLOCK_MAX || slots == VK_REC_BLOCK_SLOTS_MAX);
			double payload = (double)slots * ((double)vk_row_bytes(t, dims) + 4 + 0.125);
			assert_true((double)(l.size + 16) <= 1.045 * payload);
			assert_int_equal((l.data_at + 16) % 64, 0);
		}
	}
}

static void test_dead_bits_rows_alone_and_counters_round_trip_and_catch_flips(void **state)
{
	(void)state;
	uint64_t rng = test_seed("vset_small");
	uint8_t dead[VK_REC_DEAD_MAX], tail[VK_REC_TAIL_HEAD + 256], counts[VK_REC_VSET_COUNTS_SIZE];
	uint64_t words[VK_REC_BLOCK_WORDS_MAX], got[VK_REC_BLOCK_WORDS_MAX];
	for (int round = 0; round < 50; round++) {
		uint32_t set = (uint32_t)vk_rng(&rng), no = (uint32_t)vk_rng(&rng), slots = 1u << vk_rng(&rng) % 12;
		struct vk_rec_vset_counts c = {.rows = vk_rng(&rng), .tail_rows = 5, .dead_rows = vk_rng(&rng), .blocks = 9,
					       .bytes = vk_rng(&rng)}, c2;
		struct vk_rec_tail row;
		spread(&rng, words, slots, 1 + (uint32_t)(vk_rng(&rng) % slots));
		size_t n = vk_rec_dead_encode(dead, set, no, words, slots);
		assert_true(vk_rec_dead_decode(got, set, no, slots, span(dead, n)));
		assert_memory_equal(got, words, vk_rec_words(slots) * 8);
		assert_false(vk_rec_dead_decode(got, set, no ^ 1, slots, span(dead, n)));
		assert_false(vk_rec_dead_decode(got, set, no, 2 * slots, span(dead, n)));
		size_t row_n = 1 + vk_rng(&rng) % 256;
		for (size_t i = 0; i < row_n; i++) tail[VK_REC_TAIL_HEAD + i] = (uint8_t)vk_rng(&rng);
		vk_rec_tail_seal(tail, set, no, VK_DTYPE_U8, 0.25f, row_n);
		struct vk_bytes alone = span(tail, VK_REC_TAIL_HEAD + row_n);
		assert_true(vk_rec_tail_decode(&row, VK_DTYPE_U8, row_n, alone) && vk_rec_tail_check(set, no, alone));
		assert_true(row.inv_norm == 0.25f && row.row == tail + VK_REC_TAIL_HEAD);
		assert_false(vk_rec_tail_check(set, no + 1, alone));
		assert_false(vk_rec_tail_decode(&row, VK_DTYPE_I8, row_n, alone));
		assert_false(vk_rec_tail_decode(&row, VK_DTYPE_U8, row_n + 1, alone));
		vk_rec_vset_counts_encode(counts, set, &c);
		assert_true(vk_rec_vset_counts_decode(&c2, set, span(counts, sizeof counts)));
		assert_memory_equal(&c, &c2, sizeof c);
		assert_false(vk_rec_vset_counts_decode(&c2, set + 1, span(counts, sizeof counts)));
		for (size_t bit = 0; bit < 8 * n; bit++) {
			dead[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_false(vk_rec_dead_decode(got, set, no, slots, span(dead, n)));
			dead[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		for (size_t bit = 0; bit < 8 * alone.n; bit++) {
			tail[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_false(vk_rec_tail_decode(&row, VK_DTYPE_U8, row_n, alone) && vk_rec_tail_check(set, no, alone));
			tail[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		for (size_t bit = 0; bit < 8 * sizeof counts; bit++) {
			counts[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_false(vk_rec_vset_counts_decode(&c2, set, span(counts, sizeof counts)));
			counts[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
}

/* One of each, small, one after the other. */
static size_t golden_bytes(uint8_t *dst)
{
	uint64_t rng = 1, words = 0x5;
	struct vk_rec_vset_counts c = {.rows = 1, .tail_rows = 2, .dead_rows = 3, .blocks = 4, .bytes = 5};
	uint8_t *page = new_page();
	size_t n = 0;
	for (size_t k = 0; k < 4; k++) {
		size_t size = make_block(&rng, &shapes[k], 3, page);
		memcpy(dst + n, page, size);
		n += size;
	}
	n += vk_rec_dead_encode(dst + n, 1, 3, &words, 32);
	memcpy(dst + n + VK_REC_TAIL_HEAD, "a row of 16 byte", 16);
	vk_rec_tail_seal(dst + n, 1, 77, VK_DTYPE_F32, 0.5f, 16);
	n += VK_REC_TAIL_HEAD + 16;
	vk_rec_vset_counts_encode(dst + n, 1, &c);
	vk_rec_vset_key(dst + n + VK_REC_VSET_COUNTS_SIZE, 1, 2);
	free_page(page);
	return n + VK_REC_VSET_COUNTS_SIZE + VK_REC_VSET_KEY;
}

static void test_golden_records_of_version_1_are_encoded_as_ever(void **state)
{
	(void)state;
	uint8_t *made = malloc(1 << 20), *kept = malloc(1 << 20);
	size_t n = golden_bytes(made);
	golden_check("vset.bin", made, n);
	golden_read("vset.bin", kept, 1 << 20);
	/* And what lies in the file decodes. */
	uint8_t *page = new_page();
	size_t at = 0;
	for (size_t k = 0; k < 4; k++) {
		struct vk_rec_block_layout l;
		vk_rec_block_layout(&l, &shapes[k], 3);
		memcpy(page, kept + at, l.size);
		assert_true(decodes(&shapes[k], page, l.size));
		at += l.size;
	}
	free_page(page);
	free(made);
	free(kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_blocks_decode_to_what_was_encoded),
	    cmocka_unit_test(test_blocks_every_flipped_bit_is_caught),
	    cmocka_unit_test(test_blocks_with_too_many_presence_bits_are_refused),
	    cmocka_unit_test(test_block_slots_fill_the_block_and_waste_little),
	    cmocka_unit_test(test_dead_bits_rows_alone_and_counters_round_trip_and_catch_flips),
	    cmocka_unit_test(test_golden_records_of_version_1_are_encoded_as_ever),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
