/*
 * Goal: our cl100k_base is the published one, to the id; what is not exactly that text's
 * encoding is never taken for it; no input makes it slow.
 * Method: the reference tokenizer's answers for some hundred texts (golden/cl100k.txt, made
 * by golden/make_cl100k.py); decode(encode(x)) == x on seeded random UTF-8
 * (VK_TEST_SEED=n replays); sequences broken on purpose.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "embed/bpe.h"
#include "embed/data.h"

#define IDS_MAX 20000

static const struct vk_bpe *bpe;
static uint32_t ids[IDS_MAX], want[IDS_MAX];

static size_t encode(struct vk_bytes text)
{
	size_t n = 12345;
	assert_int_equal(vk_bpe_encode(bpe, text, ids, IDS_MAX, &n), VK_OK);
	return n;
}

static void assert_ids(struct vk_bytes text, const uint32_t *expect, size_t n, const char *where)
{
	size_t got = encode(text);
	if (got == n && memcmp(ids, expect, n * sizeof *ids) == 0) return;
	size_t i = 0;
	while (i < got && i < n && ids[i] == expect[i]) i++;
	fail_msg("%s: %zu ids, %zu expected, first difference at %zu: '%.*s'", where, got, n, i,
		 (int)(text.n < 200 ? text.n : 200), text.p);
}

static void assert_text_of(const uint32_t *list, size_t n, struct vk_bytes text)
{
	struct vk_buf buf;
	vk_buf_init(&buf, 1 << 20);
	vk_buf_puts(&buf, "kept:");
	assert_true(vk_bpe_text_of(bpe, list, n, &buf));
	assert_int_equal(buf.n, text.n + 5);
	assert_memory_equal(buf.p, "kept:", 5);
	if (text.n) assert_memory_equal(buf.p + 5, text.p, text.n);
	vk_buf_free(&buf);
}

static void assert_no_text(const uint32_t *list, size_t n)
{
	struct vk_buf buf;
	vk_buf_init(&buf, 1 << 20);
	vk_buf_puts(&buf, "kept");
	assert_false(vk_bpe_text_of(bpe, list, n, &buf));
	assert_false(buf.failed);
	assert_int_equal(buf.n, 4);
	vk_buf_free(&buf);
}

/* ---- the reference ---- */

static size_t read_ids(char *list)
{
	size_t n = 0;
	for (char *p = strtok(list, ",\n"); p && *p != '-'; p = strtok(NULL, ",\n")) {
		assert_true(n < IDS_MAX);
		want[n++] = (uint32_t)strtoul(p, NULL, 10);
	}
	return n;
}

static void test_encode_golden_texts_give_the_reference_ids(void **state)
{
	(void)state;
	FILE *f = fopen(VK_SOURCE_DIR "/tests/embed/golden/cl100k.txt", "r");
	assert_non_null(f);
	char *line = NULL;
	size_t cap = 0, lines = 0;
	while (getline(&line, &cap, f) > 0) {
		char *list = strchr(line, ' ');
		assert_non_null(list);
		*list++ = 0;
		size_t len = line[0] == '-' ? 0 : strlen(line) / 2;
		char *text = malloc(len + 1);
		assert_true(vk_unhex(text, len, line, 2 * len));
		size_t n = read_ids(list);
		char where[32];
		snprintf(where, sizeof where, "cl100k.txt:%zu", ++lines);
		assert_ids((struct vk_bytes){text, len}, want, n, where);
		assert_int_equal(vk_bpe_count(bpe, (struct vk_bytes){text, len}), n);
		assert_text_of(want, n, (struct vk_bytes){text, len});
		free(text);
	}
	assert_true(lines >= 400);
	free(line);
	fclose(f);
}

/* ---- round trips ---- */

static size_t random_text(uint64_t *rng, char *text, size_t chars)
{
	static const char *const pieces[] = {" ",	 "\n",	   "\r\n", "a",	   "The",  "'s", "12",
					     "\xc2\xa0", "\xc3\xa9", ".",	   "  ",   "\t",   "!?", "\xe4\xbd\xa0"};
	size_t n = 0;
	for (size_t i = 0; i < chars; i++) {
		uint64_t r = vk_rng(rng);
		if (r % 3) {
			const char *s = pieces[(r >> 8) % (sizeof pieces / sizeof *pieces)];
			memcpy(text + n, s, strlen(s));
			n += strlen(s);
			continue;
		}
		uint32_t cp = (uint32_t)(r >> 8) % ((r >> 40) % 2 ? 0x110000 : 0x800);
		if (cp >= 0xd800 && cp < 0xe000) cp = '~';
		n += vk_utf8_put(text + n, cp);
	}
	return n;
}

static void test_encode_random_utf8_comes_back(void **state)
{
	(void)state;
	const char *env = getenv("VK_TEST_SEED");
	uint64_t seed = env ? strtoull(env, NULL, 0) : 20261122, rng = seed;
	print_message("VK_TEST_SEED=%llu\n", (unsigned long long)seed);
	char text[4 * 300];
	for (int round = 0; round < 3000; round++) {
		size_t n = random_text(&rng, text, vk_rng(&rng) % 300);
		size_t count = encode((struct vk_bytes){text, n});
		assert_true(count <= n);
		assert_text_of(ids, count, (struct vk_bytes){text, n});
	}
}

static void test_decode_every_id_gives_its_bytes(void **state)
{
	(void)state;
	struct vk_buf buf;
	vk_buf_init(&buf, 1 << 20);
	assert_int_equal(vk_bpe_ids(bpe), 100256);
	const uint8_t *p = vk_data_cl100k;
	for (uint32_t id = 0; id < vk_bpe_ids(bpe); id++, p += 1 + *p) {
		buf.n = 0;
		assert_int_equal(vk_bpe_decode(bpe, &id, 1, &buf), VK_OK);
		assert_int_equal(buf.n, *p);
		assert_memory_equal(buf.p, p + 1, *p);
	}
	assert_ptr_equal(p, vk_data_cl100k + vk_data_cl100k_size);
	vk_buf_free(&buf);
}

/* ---- refusals ---- */

static void test_decode_unknown_id_is_refused(void **state)
{
	(void)state;
	/* The last two are special tokens: control, not text. */
	const uint32_t unknown[] = {100256, UINT32_MAX, 100257, 100276};
	for (size_t i = 0; i < 4; i++) {
		struct vk_buf buf;
		vk_buf_init(&buf, 100);
		vk_buf_puts(&buf, "kept");
		uint32_t list[] = {9906, unknown[i]};
		assert_int_equal(vk_bpe_decode(bpe, list, 2, &buf), VK_E_INVALID);
		assert_int_equal(buf.n, 4);
		assert_false(buf.failed);
		vk_buf_free(&buf);
		assert_no_text(list, 2);
	}
}

static void test_text_of_half_a_character_is_refused(void **state)
{
	(void)state;
	size_t n = encode(VK_LIT("\xf0\x9f\x8f\xb3\xe1\x9a\xa0")); /* one character over several ids */
	assert_true(n > 2);
	memcpy(want, ids, n * sizeof *ids);
	assert_no_text(want, 1);
	assert_no_text(want + 1, n - 1);
	uint32_t byte_80;
	for (byte_80 = 0; byte_80 < 256; byte_80++) {
		struct vk_buf buf;
		vk_buf_init(&buf, 8);
		assert_int_equal(vk_bpe_decode(bpe, &byte_80, 1, &buf), VK_OK);
		bool found = buf.n == 1 && (uint8_t)buf.p[0] == 0x80;
		vk_buf_free(&buf);
		if (found) break;
	}
	assert_true(byte_80 < 256);
	assert_no_text(&byte_80, 1);
}

static void test_text_of_other_spelling_is_refused(void **state)
{
	(void)state;
	size_t n = encode(VK_LIT("Hello world"));
	assert_int_equal(n, 2);
	assert_int_equal(ids[0], 9906);
	assert_int_equal(ids[1], 1917);
	/* "Hello" by letters: the same text, not its encoding. */
	const uint32_t letters[] = {39, 68, 75, 75, 78};
	struct vk_buf buf;
	vk_buf_init(&buf, 100);
	assert_int_equal(vk_bpe_decode(bpe, letters, 5, &buf), VK_OK);
	assert_true(vk_bytes_is(vk_buf_bytes(&buf), "Hello"));
	vk_buf_free(&buf);
	assert_no_text(letters, 5);
	/* Right up to the last id, and cut where the encoding does not cut. */
	const uint32_t tail[] = {9906, 220, 14957}; /* "Hello" " " "world" */
	assert_no_text(tail, 3);
	/* A true prefix of a text is that shorter text's own encoding. */
	assert_text_of(ids, 1, VK_LIT("Hello"));
}

static void test_text_of_chunks_cut_by_clients_are_texts_or_refused(void **state)
{
	(void)state;
	/* LangChain cuts long texts every 8191 ids: each chunk stands or falls by itself. */
	size_t n = encode(VK_LIT("It\xe2\x80\x99s  12345 caf\xc3\xa9s \xf0\x9f\xa4\x96\xf0\x9f\xa4\x96!"));
	size_t texts = 0, refused = 0;
	memcpy(want, ids, n * sizeof *ids);
	for (size_t cut = 1; cut < n; cut++) {
		struct vk_buf buf;
		vk_buf_init(&buf, 1000);
		if (vk_bpe_text_of(bpe, want + cut, n - cut, &buf)) {
			texts++;
			size_t again = encode(vk_buf_bytes(&buf));
			assert_int_equal(again, n - cut);
			assert_memory_equal(ids, want + cut, again * sizeof *ids);
		} else {
			refused++;
		}
		vk_buf_free(&buf);
	}
	assert_true(texts > 0 && refused > 0);
}

static void test_encode_bad_utf8_is_refused(void **state)
{
	(void)state;
	const struct vk_bytes bad[] = {VK_LIT("a\xff"), VK_LIT("\xc0\xaf"), VK_LIT("\xed\xa0\x80"),
				       VK_LIT("abc\xe4\xbd")};
	for (size_t i = 0; i < 4; i++) {
		size_t n = 1;
		assert_int_equal(vk_bpe_encode(bpe, bad[i], ids, IDS_MAX, &n), VK_E_INVALID);
		assert_int_equal(n, 0);
		assert_int_equal(vk_bpe_count(bpe, bad[i]), bad[i].n);
	}
}

static void test_encode_without_room_is_too_large(void **state)
{
	(void)state;
	size_t n = 1;
	memset(ids, 0x55, sizeof ids);
	assert_int_equal(vk_bpe_encode(bpe, VK_LIT("one two three"), ids, 2, &n), VK_E_TOO_LARGE);
	assert_int_equal(n, 0);
	assert_int_equal(ids[2], 0x55555555);
	assert_int_equal(vk_bpe_encode(bpe, VK_LIT("one two three"), ids, 3, &n), VK_OK);
	assert_int_equal(n, 3);
	struct vk_buf buf;
	vk_buf_init(&buf, 4);
	assert_false(vk_bpe_text_of(bpe, ids, 3, &buf));
	assert_true(buf.failed); /* not "no text": not known */
	vk_buf_free(&buf);
}

/* ---- time ---- */

static void test_encode_long_runs_take_no_quadratic_time(void **state)
{
	(void)state;
	/* Quadratic merging takes minutes for each of these; the bound leaves room for
	 * sanitizers and a busy machine. */
	static const char *const runs[] = {"a", " ", "ab", "\xe4\xbd\xa0", "=", "\xcc\x81", "ACGTTGCA"};
	size_t n = (size_t)1 << 20;
	char *text = malloc(n);
	uint32_t *out = malloc(n * sizeof *out);
	assert_true(text && out);
	for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
		size_t unit = strlen(runs[i]), len = n / unit * unit, got;
		for (size_t at = 0; at < len; at += unit) memcpy(text + at, runs[i], unit);
		struct timespec a, b;
		clock_gettime(CLOCK_MONOTONIC, &a);
		assert_int_equal(vk_bpe_encode(bpe, (struct vk_bytes){text, len}, out, n, &got), VK_OK);
		clock_gettime(CLOCK_MONOTONIC, &b);
		double s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9;
		print_message("1 MiB of '%s': %zu ids in %.0f ms\n", runs[i], got, s * 1e3);
		assert_true(s < 15);
		struct vk_buf buf;
		vk_buf_init(&buf, n);
		assert_int_equal(vk_bpe_decode(bpe, out, got, &buf), VK_OK);
		assert_int_equal(buf.n, len);
		assert_memory_equal(buf.p, text, len);
		vk_buf_free(&buf);
	}
	free(text);
	free(out);
}

static void test_encode_text_past_the_limit_is_too_large(void **state)
{
	(void)state;
	size_t len = VK_BPE_TEXT_MAX + 1, n;
	char *text = malloc(len);
	assert_non_null(text);
	memset(text, ' ', len);
	assert_int_equal(vk_bpe_encode(bpe, (struct vk_bytes){text, len}, ids, IDS_MAX, &n),
			 VK_E_TOO_LARGE);
	assert_int_equal(vk_bpe_count(bpe, (struct vk_bytes){text, len}), len);
	free(text);
}

static int setup(void **state)
{
	(void)state;
	bpe = vk_bpe_cl100k();
	return bpe && bpe == vk_bpe_cl100k() ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_encode_golden_texts_give_the_reference_ids),
		cmocka_unit_test(test_encode_random_utf8_comes_back),
		cmocka_unit_test(test_decode_every_id_gives_its_bytes),
		cmocka_unit_test(test_decode_unknown_id_is_refused),
		cmocka_unit_test(test_text_of_half_a_character_is_refused),
		cmocka_unit_test(test_text_of_other_spelling_is_refused),
		cmocka_unit_test(test_text_of_chunks_cut_by_clients_are_texts_or_refused),
		cmocka_unit_test(test_encode_bad_utf8_is_refused),
		cmocka_unit_test(test_encode_without_room_is_too_large),
		cmocka_unit_test(test_encode_long_runs_take_no_quadratic_time),
		cmocka_unit_test(test_encode_text_past_the_limit_is_too_large),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
