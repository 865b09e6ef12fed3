/*
 * Goal: the properties that tokenizers are defined by are the regex's own, on old libraries
 * too, and NFD is canonical and linear.
 * Method: counts over all code points and single cases from the standard; the white-space
 * list in full; NFD against examples of UAX #15 and against a slow model on seeded random
 * marks (VK_TEST_SEED=n replays).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "embed/unicode.h"

static void test_is_space_all_code_points_are_white_space_exactly(void **state)
{
	(void)state;
	static const uint32_t spaces[] = {0x9,	  0xa,	  0xb,	  0xc,	  0xd,	  0x20,	  0x85,
					  0xa0,	  0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004,
					  0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200a, 0x2028,
					  0x2029, 0x202f, 0x205f, 0x3000};
	size_t at = 0;
	for (uint32_t cp = 0; cp < 0x110100; cp++) {
		bool want = at < sizeof spaces / sizeof *spaces && spaces[at] == cp;
		if (vk_u_is_space(cp) != want) fail_msg("U+%04X", cp);
		at += want;
	}
	assert_int_equal(at, 25);
}

static void test_category_known_characters_have_their_own(void **state)
{
	(void)state;
	static const struct {
		uint32_t cp;
		enum vk_ucat cat;
	} known[] = {
		{'A', VK_U_LU},	    {'a', VK_U_LL},	{0x1c5, VK_U_LT},    {0x2b0, VK_U_LM},
		{0x4e2d, VK_U_LO},  {0x301, VK_U_MN},	{0x903, VK_U_MC},    {0x20dd, VK_U_ME},
		{0x663, VK_U_ND},   {0x216b, VK_U_NL},	{0xbd, VK_U_NO},     {'_', VK_U_PC},
		{'-', VK_U_PD},	    {'(', VK_U_PS},	{')', VK_U_PE},	     {0xab, VK_U_PI},
		{0xbb, VK_U_PF},    {'!', VK_U_PO},	{'+', VK_U_SM},	     {'$', VK_U_SC},
		{'^', VK_U_SK},	    {0x1f600, VK_U_SO}, {' ', VK_U_ZS},	     {0x2028, VK_U_ZL},
		{0x2029, VK_U_ZP},  {0, VK_U_CC},	{0x200d, VK_U_CF},   {0xe000, VK_U_CO},
		{0x378, VK_U_CN},   {0x110000, VK_U_CN}, {UINT32_MAX, VK_U_CN},
		/* Unicode 15.1 and 16, whatever the library knows */
		{0x2ebf0, VK_U_LO}, {0x1c89, VK_U_LU},	{0x116e3, VK_U_ND},  {0x10d50, VK_U_LU},
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (vk_u_category(known[i].cp) != known[i].cat) fail_msg("U+%04X", known[i].cp);
	}
	assert_true(vk_u_is_letter(0xe9) && !vk_u_is_letter(0x301) && !vk_u_is_letter('1'));
	assert_true(vk_u_is_number(0x2462) && !vk_u_is_number('x'));
	assert_true(vk_u_is_punct(0x3002) && !vk_u_is_punct('+') && !vk_u_is_punct('a'));
}

static void test_letters_and_numbers_count_at_least_unicode_16(void **state)
{
	(void)state;
	size_t letters = 0, numbers = 0;
	for (uint32_t cp = 0; cp < 0x110000; cp++) {
		letters += vk_u_is_letter(cp);
		numbers += vk_u_is_number(cp);
	}
	/* What the published tokenizer counts; a library newer than that may know more. */
	assert_in_range(letters, 141028, 141028 + 20000);
	assert_in_range(numbers, 1911, 1911 + 1000);
}

static void test_lower_maps_one_to_one(void **state)
{
	(void)state;
	assert_int_equal(vk_u_lower('A'), 'a');
	assert_int_equal(vk_u_lower('['), '[');
	assert_int_equal(vk_u_lower(0xc9), 0xe9);
	assert_int_equal(vk_u_lower(0x416), 0x436);
	assert_int_equal(vk_u_lower(0x130), 'i');
	assert_int_equal(vk_u_lower(0x10400), 0x10428);
	assert_int_equal(vk_u_lower(0x4e2d), 0x4e2d);
	assert_int_equal(vk_u_lower(0x110000), 0x110000);
}

static void assert_nfd(const char *text, const char *want)
{
	struct vk_buf out;
	vk_buf_init(&out, 1000);
	assert_int_equal(vk_u_nfd(vk_bytes_of(text), &out), VK_OK);
	assert_string_equal(vk_buf_cstr(&out), want);
	vk_buf_free(&out);
}

static void test_nfd_examples_decompose_canonically(void **state)
{
	(void)state;
	assert_nfd("", "");
	assert_nfd("plain ASCII", "plain ASCII");
	assert_nfd("caf\u00e9!", "cafe\u0301!");
	assert_nfd("\u1e69", "s\u0323\u0307");		  /* two steps deep */
	assert_nfd("s\u0307\u0323", "s\u0323\u0307");	  /* order of the marks */
	assert_nfd("a\u0301\u0300b", "a\u0301\u0300b");	  /* one class keeps its order */
	assert_nfd("\u1e9b\u0323", "\u017f\u0323\u0307"); /* the standard's own example */
	assert_nfd("\ud55c\uae00", "\u1112\u1161\u11ab\u1100\u1173\u11af");
	assert_nfd("\u212b\u2126", "A\u030a\u03a9");
	assert_nfd("\ufb01\u00bd", "\ufb01\u00bd"); /* compatibility forms stay */
	assert_nfd("\u0301\u0323x", "\u0323\u0301x");
	assert_nfd("\u0344", "\u0308\u0301");
}

static void test_nfd_bad_utf8_and_full_buffer_are_refused(void **state)
{
	(void)state;
	struct vk_buf out;
	vk_buf_init(&out, 3);
	assert_int_equal(vk_u_nfd(VK_LIT("a\xff"), &out), VK_E_INVALID);
	assert_int_equal(out.n, 0);
	assert_int_equal(vk_u_nfd(VK_LIT("\xc3\xa9\xc3\xa9"), &out), VK_E_TOO_LARGE);
	vk_buf_free(&out);
}

/* Some marks of different combining classes, with them. */
static const struct {
	uint32_t cp;
	int ccc;
} marks[] = {{0x301, 230}, {0x323, 220}, {0x327, 202}, {0x345, 240}, {0x300, 230},
	     {0x5b0, 10},  {0x64b, 27},	 {0x334, 1},   {0x31b, 216}, {0x360, 234}};

static void test_nfd_random_marks_are_in_stable_order(void **state)
{
	(void)state;
	const char *env = getenv("VK_TEST_SEED");
	uint64_t seed = env ? strtoull(env, NULL, 0) : 20261122, rng = seed;
	print_message("VK_TEST_SEED=%llu\n", (unsigned long long)seed);
	for (int round = 0; round < 200; round++) {
		size_t n = vk_rng(&rng) % 100, len = 0, want_len = 0;
		char text[500] = "x", want[500] = "x";
		size_t pick[100];
		len = want_len = 1;
		for (size_t i = 0; i < n; i++) {
			pick[i] = vk_rng(&rng) % (sizeof marks / sizeof *marks);
			len += vk_utf8_put(text + len, marks[pick[i]].cp);
		}
		for (int ccc = 1; ccc < 255; ccc++) {
			for (size_t i = 0; i < n; i++) {
				if (marks[pick[i]].ccc == ccc)
					want_len += vk_utf8_put(want + want_len, marks[pick[i]].cp);
			}
		}
		struct vk_buf out;
		vk_buf_init(&out, 1000);
		assert_int_equal(vk_u_nfd((struct vk_bytes){text, len}, &out), VK_OK);
		assert_int_equal(out.n, want_len);
		assert_memory_equal(out.p, want, want_len);
		vk_buf_free(&out);
	}
}

static void test_nfd_a_million_marks_take_no_quadratic_time(void **state)
{
	(void)state;
	size_t n = 1000000;
	struct vk_buf text, out;
	vk_buf_init(&text, 4 * n);
	vk_buf_init(&out, 4 * n);
	for (size_t i = 0; i < n; i++) vk_buf_put(&text, i % 2 ? "\u0323" : "\u0301", 2);
	assert_int_equal(vk_u_nfd(vk_buf_bytes(&text), &out), VK_OK); /* hours if it were */
	assert_int_equal(out.n, 2 * n);
	for (size_t i = 0; i < n; i++)
		assert_memory_equal(out.p + 2 * i, i < n / 2 ? "\u0323" : "\u0301", 2);
	vk_buf_free(&text);
	vk_buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_is_space_all_code_points_are_white_space_exactly),
		cmocka_unit_test(test_category_known_characters_have_their_own),
		cmocka_unit_test(test_letters_and_numbers_count_at_least_unicode_16),
		cmocka_unit_test(test_lower_maps_one_to_one),
		cmocka_unit_test(test_nfd_examples_decompose_canonically),
		cmocka_unit_test(test_nfd_bad_utf8_and_full_buffer_are_refused),
		cmocka_unit_test(test_nfd_random_marks_are_in_stable_order),
		cmocka_unit_test(test_nfd_a_million_marks_take_no_quadratic_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
