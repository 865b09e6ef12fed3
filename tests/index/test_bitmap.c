/*
 * Goal: a bitmap is a set of u32 and its chunks come back as they went. Method: every operation also on a
 * plain array of bits (4 chunks), over densities that make arrays, bitsets and runs; then chunks with bytes
 * changed, which must be refused or decode to some set, never crash. VK_SEED replays a run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/hash.h"
#include "index/bitmap.h"

#define CHUNKS 4u
#define SLOTS (CHUNKS << 16)
#define FIRST_CHUNK 7u /* members start here, so that a chunk's number shows */
#define BASE (FIRST_CHUNK << 16)

static uint64_t seed(void)
{
	const char *text = getenv("VK_SEED");
	uint64_t s = text ? strtoull(text, NULL, 0) : 20250907;
	print_message("VK_SEED=%llu\n", (unsigned long long)s);
	return s;
}

struct twin {
	struct vk_bitmap *b;
	uint8_t *bit; /* SLOTS bytes */
};

static struct twin twin_new(void)
{
	struct twin t = {.b = vk_bitmap_new(), .bit = calloc(SLOTS, 1)};
	assert_non_null(t.b);
	assert_non_null(t.bit);
	return t;
}

static void twin_free(struct twin *t)
{
	vk_bitmap_free(t->b);
	free(t->bit);
}

/* Density by chunk: sparse, half, nearly full, runs. */
static void twin_fill(struct twin *t, uint64_t *rng)
{
	for (uint32_t c = 0; c < CHUNKS; c++) {
		unsigned kind = vk_rng(rng) % 6;
		for (uint32_t i = 0; i < 65536; i++) {
			uint32_t at = c << 16 | i;
			bool on = kind == 0   ? vk_rng(rng) % 500 == 0
				  : kind == 1 ? vk_rng(rng) & 1
				  : kind == 2 ? vk_rng(rng) % 500 != 0
				  : kind == 3 ? i / 700 % 2
				  : kind == 4 ? i == 12345
					      : false;
			if (!on) continue;
			t->bit[at] = 1;
			vk_bitmap_add(t->b, BASE + at);
		}
	}
}

static void assert_same(const struct vk_bitmap *b, const uint8_t *bit)
{
	uint64_t count = 0, least = UINT64_MAX, greatest = 0;
	for (uint32_t i = 0; i < SLOTS; i++) {
		if (!bit[i]) continue;
		count++;
		if (least == UINT64_MAX) least = BASE + i;
		greatest = BASE + i;
	}
	assert_int_equal(vk_bitmap_count(b), count);
	assert_int_equal(vk_bitmap_empty(b), count == 0);
	uint32_t lo, hi;
	assert_int_equal(vk_bitmap_bounds(b, &lo, &hi), count > 0);
	if (count) assert_true(lo == least && hi == greatest);
	uint32_t *all = malloc((count + 1) * sizeof *all);
	assert_int_equal(vk_bitmap_take(b, 0, all, count + 1), count);
	size_t k = 0;
	for (uint32_t i = 0; i < SLOTS; i++)
		if (bit[i]) assert_int_equal(all[k++], BASE + i);
	free(all);
	assert_false(vk_bitmap_failed(b));
}

static void assert_words(const struct vk_bitmap *b, const uint8_t *bit, uint32_t from, size_t n)
{
	uint64_t *words = malloc(n * sizeof *words);
	bool any = false;
	bool said = vk_bitmap_words(b, BASE + from, words, n);
	for (size_t i = 0; i < n * 64; i++) {
		bool want = from + i < SLOTS && bit[from + i];
		any |= want;
		assert_int_equal(words[i / 64] >> i % 64 & 1, want);
	}
	assert_int_equal(said, any);
	free(words);
}

/* What is read straight from a chunk's bytes: count, members, members among every third slot. */
static void assert_chunk_bytes(const struct twin *t, uint32_t chunk, struct vk_bytes bytes)
{
	static uint32_t slots[VK_BITMAP_CHUNK_SLOTS];
	const uint8_t *bit = t->bit + ((size_t)(chunk - FIRST_CHUNK) << 16);
	struct vk_bitmap *third = vk_bitmap_new();
	size_t n, k = 0, both = 0;
	uint64_t counted;
	for (uint32_t i = 0; i < 65536; i += 3) vk_bitmap_add(third, chunk << 16 | i);
	assert_int_equal(vk_bitmap_chunk_slots((uint16_t)chunk, bytes, slots, &n), VK_OK);
	assert_int_equal(vk_bitmap_chunk_count(bytes), n);
	for (uint32_t i = 0; i < 65536; i++) {
		if (!bit[i]) continue;
		assert_int_equal(slots[k++], chunk << 16 | i);
		both += i % 3 == 0;
	}
	assert_int_equal(k, n);
	assert_int_equal(vk_bitmap_chunk_count_and(third, (uint16_t)chunk, bytes, &counted), VK_OK);
	assert_int_equal(counted, both);
	vk_bitmap_free(third);
}

static void roundtrip_chunks(const struct twin *t)
{
	struct vk_bitmap *again = vk_bitmap_new();
	for (uint32_t c = 0; c < CHUNKS; c++) {
		struct vk_buf buf;
		vk_buf_init(&buf, 1 << 20);
		vk_bitmap_encode_chunk(t->b, (uint16_t)(FIRST_CHUNK + c), &buf);
		assert_false(buf.failed);
		bool any = memchr(t->bit + ((size_t)c << 16), 1, 65536) != NULL;
		assert_int_equal(buf.n > 0, any);
		assert_true(buf.n <= 8192 + 16);
		if (any) {
			assert_int_equal(vk_bitmap_or_chunk(again, (uint16_t)(c), vk_buf_bytes(&buf)),
					 VK_E_CORRUPT);
			assert_int_equal(
			    vk_bitmap_or_chunk(again, (uint16_t)(FIRST_CHUNK + c), vk_buf_bytes(&buf)),
			    VK_OK);
			assert_chunk_bytes(t, FIRST_CHUNK + c, vk_buf_bytes(&buf));
		}
		vk_buf_free(&buf);
	}
	assert_same(again, t->bit);
	vk_bitmap_free(again);
}

static void test_bitmap_random_operations_equal_plain_bits(void **state)
{
	(void)state;
	uint64_t rng = seed();
	for (int round = 0; round < 40; round++) {
		struct twin a = twin_new(), b = twin_new();
		twin_fill(&a, &rng);
		twin_fill(&b, &rng);
		uint32_t from = (uint32_t)(vk_rng(&rng) % SLOTS),
			 to = from + (uint32_t)(vk_rng(&rng) % (SLOTS - from + 1));
		vk_bitmap_add_range(b.b, BASE + from, BASE + to);
		memset(b.bit + from, 1, to - from);
		for (int i = 0; i < 2000; i++) {
			uint32_t at = (uint32_t)(vk_rng(&rng) % SLOTS);
			vk_bitmap_remove(a.b, BASE + at);
			a.bit[at] = 0;
		}
		assert_same(a.b, a.bit);
		assert_same(b.b, b.bit);
		uint64_t both = 0;
		for (uint32_t i = 0; i < SLOTS; i++) both += a.bit[i] & b.bit[i];
		assert_int_equal(vk_bitmap_count_and(a.b, b.b), both);
		struct vk_bitmap *copy = vk_bitmap_copy(a.b);
		int op = round % 3;
		if (op == 0) vk_bitmap_and(a.b, b.b);
		if (op == 1) vk_bitmap_or(a.b, b.b);
		if (op == 2) vk_bitmap_andnot(a.b, b.b);
		for (uint32_t i = 0; i < SLOTS; i++) {
			assert_int_equal(vk_bitmap_has(copy, BASE + i), a.bit[i]);
			a.bit[i] = op == 0   ? a.bit[i] & b.bit[i]
				   : op == 1 ? a.bit[i] | b.bit[i]
					     : a.bit[i] & !b.bit[i];
		}
		assert_same(a.b, a.bit);
		assert_words(a.b, a.bit, 0, SLOTS / 64);
		assert_words(a.b, a.bit, (uint32_t)(vk_rng(&rng) % (SLOTS / 64)) * 64,
			     1 + vk_rng(&rng) % 3000);
		roundtrip_chunks(&a);
		roundtrip_chunks(&b);
		vk_bitmap_free(copy);
		twin_free(&a);
		twin_free(&b);
	}
}

static bool stop_after(void *arg, uint32_t slot)
{
	uint32_t *left = arg;
	assert_int_equal(slot, 10 * (6 - *left));
	return --*left > 0;
}

static void test_bitmap_each_and_take_stop_where_asked(void **state)
{
	(void)state;
	struct vk_bitmap *b = vk_bitmap_new();
	uint32_t in[9], out[4], left = 5;
	for (uint32_t i = 0; i < 9; i++) in[i] = 10 * (i + 1);
	vk_bitmap_add_many(b, in, 9);
	vk_bitmap_add_many(b, in, 0);
	vk_bitmap_each(b, stop_after, &left);
	assert_int_equal(left, 0);
	assert_int_equal(vk_bitmap_take(b, 31, out, 4), 4);
	assert_true(out[0] == 40 && out[3] == 70);
	assert_int_equal(vk_bitmap_take(b, 91, out, 4), 0);
	vk_bitmap_andnot(b, b);
	assert_true(vk_bitmap_empty(b));
	vk_bitmap_add(b, UINT32_MAX);
	uint64_t word;
	assert_true(vk_bitmap_words(b, UINT32_MAX - 63, &word, 1));
	assert_true(word == (uint64_t)1 << 63);
	vk_bitmap_add_range(b, UINT32_MAX - 9ull, (uint64_t)UINT32_MAX + 1);
	assert_int_equal(vk_bitmap_count(b), 10);
	vk_bitmap_free(b);
}

/* A changed byte may still be a set (another member), but then one that encodes to the same bytes or a
 * canonical form of them; anything else is refused. */
static void test_bitmap_changed_chunk_is_refused_or_a_set(void **state)
{
	(void)state;
	uint64_t rng = seed();
	int refused = 0;
	for (int round = 0; round < 3000; round++) {
		struct twin t = twin_new();
		if (round % 3 == 0) vk_bitmap_add_range(t.b, BASE, BASE + 1 + vk_rng(&rng) % 65536);
		if (round % 3 == 1)
			for (int i = 0; i < 20; i++)
				vk_bitmap_add(t.b, BASE + (uint32_t)(vk_rng(&rng) % 65536));
		if (round % 3 == 2)
			for (uint32_t i = 0; i < 65536; i += 3) vk_bitmap_add(t.b, BASE + i);
		struct vk_buf buf;
		vk_buf_init(&buf, 1 << 20);
		vk_bitmap_encode_chunk(t.b, FIRST_CHUNK, &buf);
		size_t n = buf.n;
		if (vk_rng(&rng) & 1)
			buf.p[vk_rng(&rng) % (n < 24 ? n : 24)] ^= (char)(1 << vk_rng(&rng) % 8);
		else n = vk_rng(&rng) % n;
		char *exact = malloc(n ? n : 1); /* so that a read past the end is seen */
		memcpy(exact, buf.p, n);
		struct vk_bitmap *b = vk_bitmap_new();
		enum vk_status st = vk_bitmap_or_chunk(b, FIRST_CHUNK, (struct vk_bytes){exact, n});
		assert_true(st == VK_OK || st == VK_E_CORRUPT);
		refused += st != VK_OK;
		uint32_t lo = BASE, hi = BASE;
		if (vk_bitmap_bounds(b, &lo, &hi)) assert_int_equal(lo >> 16, FIRST_CHUNK);
		assert_int_equal(hi >> 16, FIRST_CHUNK);
		vk_bitmap_free(b);
		free(exact);
		vk_buf_free(&buf);
		twin_free(&t);
	}
	assert_true(refused > 1500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_bitmap_random_operations_equal_plain_bits),
	    cmocka_unit_test(test_bitmap_each_and_take_stop_where_asked),
	    cmocka_unit_test(test_bitmap_changed_chunk_is_refused_or_a_set),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
