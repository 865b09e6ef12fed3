/*
 * Goal: buffers and arenas keep their maximum and their content, hex and the constant-time
 * comparison are right.
 * Method: random operations beside a plain array as the model; limits hit exactly.
 * VK_TEST_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/hash.h"

static uint64_t seed_of_run(void)
{
	const char *s = getenv("VK_TEST_SEED");
	uint64_t seed = s ? strtoull(s, NULL, 0) : 20240611;
	print_message("VK_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static void test_buf_random_puts_equal_the_model(void **state)
{
	(void)state;
	enum { MAX = 20000 };
	uint64_t rng = seed_of_run();
	static char model[MAX + 1000], piece[700];
	for (int round = 0; round < 200; round++) {
		struct vk_buf b;
		size_t n = 0, max = vk_rng(&rng) % MAX;
		vk_buf_init(&b, max);
		while (!b.failed && n <= max) {
			size_t k = vk_rng(&rng) % sizeof piece;
			memset(piece, (int)(n % 251), k);
			switch (vk_rng(&rng) % 3) {
			case 0: vk_buf_put(&b, piece, k); break;
			case 1:
				piece[k ? k - 1 : 0] = 0;
				k = strlen(piece);
				vk_buf_printf(&b, "%s", piece);
				break;
			default:
				k = 1;
				vk_buf_putc(&b, piece[0]);
			}
			if (b.failed) {
				assert_true(n + k > max);
				break;
			}
			memcpy(model + n, piece, k);
			n += k;
			assert_int_equal(b.n, n);
		}
		if (!b.failed) {
			assert_memory_equal(b.p, model, n);
			assert_int_equal(strlen(vk_buf_cstr(&b)), strnlen(model, n));
		}
		vk_buf_free(&b);
	}
}

static void test_buf_exact_maximum_fits_and_one_more_fails(void **state)
{
	(void)state;
	struct vk_buf b;
	vk_buf_init(&b, 5);
	vk_buf_puts(&b, "hello");
	assert_string_equal(vk_buf_cstr(&b), "hello");
	assert_false(b.failed);
	vk_buf_putc(&b, '!');
	assert_true(b.failed);
	assert_string_equal(vk_buf_cstr(&b), "");
	assert_null(vk_buf_reserve(&b, 0)); /* once failed, always failed */
	vk_buf_free(&b);
	vk_buf_init(&b, 10);
	assert_null(vk_buf_reserve(&b, SIZE_MAX));
	assert_true(b.failed);
	vk_buf_free(&b);
}

static void test_buf_take_hands_over(void **state)
{
	(void)state;
	struct vk_buf b;
	size_t n;
	vk_buf_init(&b, 100);
	vk_buf_puts(&b, "abc");
	char *p = vk_buf_take(&b, &n);
	assert_int_equal(n, 3);
	assert_memory_equal(p, "abc", 3);
	assert_null(b.p);
	vk_buf_puts(&b, "again");
	assert_string_equal(vk_buf_cstr(&b), "again");
	free(p);
	vk_buf_free(&b);
}

/* Every piece is aligned, keeps what was written into it, and the sum stays under max. */
static void test_arena_pieces_do_not_overlap(void **state)
{
	(void)state;
	enum { PIECES = 500 };
	uint64_t rng = seed_of_run();
	struct vk_arena a;
	vk_arena_init(&a, (size_t)1 << 24);
	for (int round = 0; round < 20; round++) {
		unsigned char *p[PIECES];
		size_t n[PIECES];
		for (int i = 0; i < PIECES; i++) {
			n[i] = vk_rng(&rng) % (i % 50 ? 300 : 100000);
			p[i] = vk_arena_alloc(&a, n[i]);
			assert_non_null(p[i]);
			assert_int_equal((uintptr_t)p[i] % 16, 0);
			memset(p[i], i & 255, n[i]);
		}
		for (int i = 0; i < PIECES; i++)
			for (size_t k = 0; k < n[i]; k++) assert_int_equal(p[i][k], i & 255);
		assert_true(a.used <= a.max);
		vk_arena_reset(&a);
		assert_int_equal(a.used, 0);
	}
	vk_arena_free(&a);
}

static void test_arena_maximum_is_kept(void **state)
{
	(void)state;
	struct vk_arena a;
	vk_arena_init(&a, 1024);
	assert_null(vk_arena_alloc(&a, 1025));
	assert_non_null(vk_arena_alloc(&a, 1000));
	assert_null(vk_arena_alloc(&a, 100));
	assert_null(vk_arena_alloc(&a, SIZE_MAX));
	assert_null(vk_arena_calloc(&a, SIZE_MAX / 2, 3));
	assert_null(vk_arena_strndup(&a, "x", 2000));
	vk_arena_reset(&a);
	assert_non_null(vk_arena_alloc(&a, 1024));
	vk_arena_free(&a);
}

static void test_arena_texts(void **state)
{
	(void)state;
	struct vk_arena a;
	vk_arena_init(&a, 1 << 16);
	assert_string_equal(vk_arena_strndup(&a, "hello", 3), "hel");
	assert_string_equal(vk_arena_strndup(&a, NULL, 0), "");
	assert_string_equal(vk_arena_printf(&a, "%d-%s", 7, "x"), "7-x");
	const uint64_t *z = vk_arena_calloc(&a, 10, sizeof *z);
	for (int i = 0; i < 10; i++) assert_true(z[i] == 0);
	vk_arena_free(&a);
}

static void test_bytes_hex_round_trips_and_refuses(void **state)
{
	(void)state;
	uint8_t in[256], out[256];
	char hex[513];
	for (int i = 0; i < 256; i++) in[i] = (uint8_t)i;
	vk_hex(hex, in, 256);
	assert_true(vk_unhex(out, 256, hex, 512));
	assert_memory_equal(in, out, 256);
	assert_true(vk_unhex(out, 1, "aF", 2) && out[0] == 0xaf);
	assert_false(vk_unhex(out, 1, "a", 1));
	assert_false(vk_unhex(out, 1, "0g", 2));
	assert_false(vk_unhex(out, 1, " 1", 2));
	assert_false(vk_unhex(out, 2, "0011f", 5));
}

static void test_bytes_secret_comparison(void **state)
{
	(void)state;
	char a[40] = "", b[40] = "";
	for (size_t i = 0; i < sizeof a; i++) {
		assert_true(vk_bytes_eq_secret((struct vk_bytes){a, sizeof a}, (struct vk_bytes){b, sizeof b}));
		b[i] = 1;
		assert_false(vk_bytes_eq_secret((struct vk_bytes){a, sizeof a}, (struct vk_bytes){b, sizeof b}));
		b[i] = 0;
	}
	assert_false(vk_bytes_eq_secret(VK_LIT("abc"), VK_LIT("ab")));
	assert_true(vk_bytes_eq_secret(VK_LIT(""), (struct vk_bytes){NULL, 0}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buf_random_puts_equal_the_model),
		cmocka_unit_test(test_buf_exact_maximum_fits_and_one_more_fails),
		cmocka_unit_test(test_buf_take_hands_over),
		cmocka_unit_test(test_arena_pieces_do_not_overlap),
		cmocka_unit_test(test_arena_maximum_is_kept),
		cmocka_unit_test(test_arena_texts),
		cmocka_unit_test(test_bytes_hex_round_trips_and_refuses),
		cmocka_unit_test(test_bytes_secret_comparison),
	};
	return cmocka_run_group_tests_name("base/buf_arena", tests, NULL, NULL);
}
