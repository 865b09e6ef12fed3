/*
 * Goal: exactly the well-formed UTF-8 of Unicode 15 (D92, table 3-7) is accepted, wherever it
 * stands.
 * Method: every code point is put, checked and read back; every sequence of 1 to 3 bytes, and
 * of 4 with sampled tails, against a decoder written from the definition; an error is placed at
 * every offset of texts of every length 0..300.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"

static void test_utf8_every_code_point_round_trips(void **state)
{
	(void)state;
	for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
		char b[8] = "";
		uint32_t back = 0;
		size_t n = vk_utf8_put(b, cp);
		assert_int_equal(n, cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4);
		bool surrogate = cp >= 0xd800 && cp <= 0xdfff;
		assert_int_equal(vk_utf8_valid(b, n), surrogate ? 0 : n);
		assert_ptr_equal(vk_utf8_next(b, b + n, &back), b + n);
		assert_int_equal(back, cp);
		for (size_t cut = 1; cut < n; cut++) assert_int_equal(vk_utf8_valid(b, cut), 0);
	}
}

/* By the definition: take the length from the first byte, decode, ask whether the shortest
 * encoding of the result is this one and the result a scalar value. */
static size_t slow_valid(const unsigned char *s, size_t n)
{
	size_t at = 0;
	while (at < n) {
		size_t k = s[at] < 0x80 ? 1 : s[at] >> 5 == 6 ? 2 : s[at] >> 4 == 14 ? 3 : s[at] >> 3 == 30 ? 4 : 0;
		if (!k || at + k > n) return at;
		uint32_t cp = k == 1 ? s[at] : s[at] & (0x7fu >> k);
		for (size_t i = 1; i < k; i++) {
			if (s[at + i] >> 6 != 2) return at;
			cp = cp << 6 | (s[at + i] & 63);
		}
		size_t want = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
		if (want != k || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) return at;
		at += k;
	}
	return n;
}

static void compare(const unsigned char *s, size_t n)
{
	size_t got = vk_utf8_valid((const char *)s, n), want = slow_valid(s, n);
	if (got != want)
		fail_msg("%02x %02x %02x %02x (%zu bytes): %zu, wanted %zu", s[0], s[1], s[2], s[3], n, got, want);
}

static void test_utf8_every_short_sequence_is_judged(void **state)
{
	(void)state;
	static const unsigned char tails[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
	unsigned char s[5] = {0};
	for (unsigned a = 0; a < 256; a++)
		for (unsigned b = 0; b < 256; b++) {
			s[0] = (unsigned char)a, s[1] = (unsigned char)b;
			for (size_t n = 1; n <= 2; n++) compare(s, n);
			for (unsigned c = 0; c < 256; c++) {
				s[2] = (unsigned char)c;
				compare(s, 3);
				for (size_t d = 0; a >= 0xe0 && d < sizeof tails; d++) {
					s[3] = tails[d];
					compare(s, 4);
				}
			}
		}
}

static void test_utf8_an_error_is_found_at_every_place(void **state)
{
	(void)state;
	static const char *const fill[] = {"a", "\xc3\xa9", "\xe4\xb8\xad", "\xf0\x9f\x98\x80"};
	for (size_t f = 0; f < 4; f++) {
		size_t k = strlen(fill[f]);
		for (size_t n = 0; n <= 300; n += k) {
			char *s = malloc(n + 1);
			for (size_t i = 0; i < n; i++) s[i] = fill[f][i % k];
			assert_int_equal(vk_utf8_valid(s, n), n);
			for (size_t at = 0; at < n; at++) {
				char was = s[at];
				s[at] = (char)0xff;
				assert_int_equal(vk_utf8_valid(s, n), at - at % k);
				s[at] = was;
			}
			if (n && k > 1) assert_int_equal(vk_utf8_valid(s, n - 1), n - k);
			free(s);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_utf8_every_code_point_round_trips),
		cmocka_unit_test(test_utf8_every_short_sequence_is_judged),
		cmocka_unit_test(test_utf8_an_error_is_found_at_every_place),
	};
	return cmocka_run_group_tests_name("base/utf8", tests, NULL, NULL);
}
