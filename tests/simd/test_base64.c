/*
 * Goal: base64 at every level this machine has writes RFC 4648 and reads nothing else.
 * Method: the RFC's vectors; every length 0..300 at every alignment 0..15 against a scalar
 * twin, buffers of exact size so that sanitizers see a byte too far; every byte value at every
 * place of a text that spans all step widths. VK_TEST_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simd/base64.h"
#include "tests/simd/levels.h"

static void test_base64_rfc4648_vectors(void **state)
{
	(void)state;
	static const char *const t[][2] = {{"", ""},	       {"f", "Zg=="},	      {"fo", "Zm8="},
					   {"foo", "Zm9v"},    {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="},
					   {"foobar", "Zm9vYmFy"}};
	for_each_level(level)
		for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
			char out[16] = {0};
			assert_int_equal(vk_base64_encode(level, out, t[i][0], strlen(t[i][0])), strlen(t[i][1]));
			assert_string_equal(out, t[i][1]);
			memset(out, 0, sizeof out);
			assert_int_equal(vk_base64_decode(level, out, t[i][1], strlen(t[i][1])), strlen(t[i][0]));
			assert_string_equal(out, t[i][0]);
		}
}

static void one_length(uint64_t *rng, enum vk_cpu_level level, size_t n, size_t shift)
{
	size_t text_n = VK_BASE64_LEN(n);
	uint8_t *src = malloc(n + shift + 1), *back = malloc(text_n / 4 * 3 + shift + 1);
	char *text = malloc(text_n + shift + 1), *want = malloc(text_n + 1);
	for (size_t i = 0; i < n; i++) src[shift + i] = (uint8_t)vk_rng(rng);
	text[text_n + shift] = '#';
	vk_base64_encode(VK_CPU_SCALAR, want, src + shift, n);
	assert_int_equal(vk_base64_encode(level, text + shift, src + shift, n), text_n);
	assert_memory_equal(text + shift, want, text_n);
	assert_int_equal(text[text_n + shift], '#');
	back[n + shift] = 0x5a;
	assert_int_equal(vk_base64_decode(level, back + shift, text + shift, text_n), n);
	assert_memory_equal(back + shift, src + shift, n);
	if (n % 3 == 0) assert_int_equal(back[n + shift], 0x5a);
	free(src), free(back), free(text), free(want);
}

static void test_base64_every_length_equals_scalar(void **state)
{
	(void)state;
	uint64_t rng = test_seed();
	for_each_level(level) {
		for (size_t n = 0; n <= 300; n++)
			for (size_t shift = 0; shift < 16; shift++) one_length(&rng, level, n, shift);
		one_length(&rng, level, 6144, 0);
		one_length(&rng, level, 100001, 3);
	}
}

static void test_base64_every_byte_value_is_judged_alike(void **state)
{
	(void)state;
	enum { N = 132 }; /* two AVX-512 steps, one of AVX2 behind, a quantum */
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char text[N];
	uint8_t want[N], got[N];
	for_each_level(level)
		for (size_t at = 0; at < N; at++)
			for (int c = 0; c < 256; c++) {
				for (size_t i = 0; i < N; i++) text[i] = alphabet[i * 7 % 64];
				text[at] = (char)c;
				/* '=' may stand at the end alone, and there only over zero bits. */
				bool good = c && strchr(alphabet, c);
				if (c == '=' && at == N - 1) text[N - 2] = 'A', good = true;
				size_t n = vk_base64_decode(level, got, text, N);
				if (!good) {
					assert_true(n == (size_t)-1);
					continue;
				}
				assert_int_equal(n, vk_base64_decode(VK_CPU_SCALAR, want, text, N));
				assert_int_equal(n, c == '=' ? N / 4 * 3 - 1 : N / 4 * 3);
				assert_memory_equal(got, want, n);
			}
}

static void test_base64_loose_text_is_refused(void **state)
{
	(void)state;
	static const char *const t[] = {"Z",	 "Zg",	     "Zg=",	 "Zg==\n",   " Zg==",  "====",
					"Z===",	 "=g==",     "Zh==",	 "Zm9=",     "Zm=v",   "Zg==Zg==",
					"Zm8=A", "Zm9v=",    "Zm9v====", "Zm9-",     "Zm9_",   "Zm\n9v"};
	uint8_t out[16];
	for_each_level(level)
		for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
			if (vk_base64_decode(level, out, t[i], strlen(t[i])) != (size_t)-1)
				fail_msg("accepted: %s", t[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base64_rfc4648_vectors),
		cmocka_unit_test(test_base64_every_length_equals_scalar),
		cmocka_unit_test(test_base64_every_byte_value_is_judged_alike),
		cmocka_unit_test(test_base64_loose_text_is_refused),
	};
	return cmocka_run_group_tests_name("simd/base64", tests, NULL, NULL);
}
