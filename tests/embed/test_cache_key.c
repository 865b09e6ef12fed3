/*
 * Goal: the cache key is the published one, and the published page is true.
 * Method: the vectors that docs/cache_key.py wrote (golden/cache_key.json) through
 * embed/key.h, byte for byte; the same tags and ids in docs/cache-key.md; what is keyed as
 * tokens is what the tokenizer refuses to call a text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/json.h"
#include "embed/bpe.h"
#include "embed/key.h"

#define TOKENS_MAX 16

static struct vk_arena arena;
static struct vk_json *doc;
static struct vk_hmac_key secret;
static char *page;

static char *read_file(const char *path, size_t *n)
{
	static const size_t max = 1 << 20;
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	char *text = malloc(max + 1);
	assert_non_null(text);
	*n = fread(text, 1, max, f);
	text[*n] = 0;
	assert_true(*n < max);
	fclose(f);
	return text;
}

static struct vk_bytes str(const vk_jv *object, const char *key)
{
	struct vk_bytes s = {0};
	if (!vk_jv_str(vk_jv_get(object, key), &s)) fail_msg("no text in \"%s\"", key);
	return s;
}

static const char *cstr(const vk_jv *object, const char *key)
{
	struct vk_bytes s = str(object, key);
	return vk_arena_strndup(&arena, s.p, s.n);
}

static uint32_t u32(const vk_jv *object, const char *key)
{
	uint64_t n = 0;
	assert_true(vk_jv_u64(vk_jv_get(object, key), &n) && n <= UINT32_MAX);
	return (uint32_t)n;
}

static struct vk_input input_of(const vk_jv *v, uint32_t tokens[TOKENS_MAX])
{
	const vk_jv *list = vk_jv_get(v, "tokens");
	if (!list) return (struct vk_input){.text = str(v, "text")};
	assert_true(vk_jv_len(list) <= TOKENS_MAX && vk_jv_u32s(list, tokens));
	return (struct vk_input){.tokens = tokens, .tokens_n = vk_jv_len(list)};
}

static void make(const vk_jv *v, const struct vk_input *in, char hex[2 * VK_CACHE_KEY_SIZE + 1])
{
	struct vk_key_plan plan;
	struct vk_cache_key key;
	vk_key_plan_init(&plan, &secret, u32(v, "pool"), u32(v, "space_num"), cstr(v, "space"),
			 cstr(v, "role"), cstr(v, "params_canonical"));
	vk_key_make(&plan, in, &key);
	vk_hex(hex, key.b, sizeof key.b);
}

#define EACH(v) \
	(const vk_jv *v = vk_jv_first(vk_jv_get(vk_json_root(doc), "vectors")); v; v = vk_jv_next(v))

static const vk_jv *vector(const char *name)
{
	for EACH (v) {
		if (vk_bytes_is(str(v, "name"), name)) return v;
	}
	fail_msg("no vector \"%s\"", name);
	return NULL;
}

static void test_key_published_vectors_are_made(void **state)
{
	(void)state;
	size_t n = 0;
	for EACH (v) {
		char hex[2 * VK_CACHE_KEY_SIZE + 1], tag_hex[2 * VK_CACHE_TAG_SIZE + 1];
		uint32_t tokens[TOKENS_MAX];
		uint8_t tag[VK_CACHE_TAG_SIZE];
		struct vk_input in = input_of(v, tokens);
		make(v, &in, hex);
		vk_key_tag(&secret, &in, tag);
		vk_hex(tag_hex, tag, sizeof tag);
		assert_string_equal(hex, cstr(v, "key"));
		assert_string_equal(tag_hex, cstr(v, "tag"));
		n++;
	}
	assert_true(n >= 19);
}

static void test_key_no_parameters_are_an_empty_object(void **state)
{
	(void)state;
	struct vk_input in = {.text = VK_LIT("Hello world")};
	struct vk_key_plan none, empty;
	struct vk_cache_key a, b;
	vk_key_plan_init(&none, &secret, 1, 1, "s", "none", NULL);
	vk_key_plan_init(&empty, &secret, 1, 1, "s", "none", "{}");
	vk_key_make(&none, &in, &a);
	vk_key_make(&empty, &in, &b);
	assert_memory_equal(a.b, b.b, sizeof a.b);
}

static void test_page_holds_each_vector(void **state)
{
	(void)state;
	for EACH (v) {
		char *row = vk_arena_printf(&arena, "| %s | `%s` | `%s` |\n", cstr(v, "name"),
					    cstr(v, "tag"), cstr(v, "id"));
		if (!strstr(page, row)) fail_msg("docs/cache-key.md lacks %s", row);
	}
}

static void test_token_vectors_are_no_text(void **state)
{
	(void)state;
	size_t lists = 0;
	for EACH (v) {
		uint32_t tokens[TOKENS_MAX];
		struct vk_input in = input_of(v, tokens);
		if (vk_input_is_text(&in)) continue;
		struct vk_buf text;
		vk_buf_init(&text, 1000);
		assert_false(vk_bpe_text_of(vk_bpe_cl100k(), tokens, in.tokens_n, &text));
		assert_false(text.failed);
		vk_buf_free(&text);
		lists++;
	}
	assert_int_equal(lists, 2);
}

static void test_tokens_that_are_a_text_have_its_key(void **state)
{
	(void)state;
	const uint32_t hello_world[] = {9906, 1917};
	struct vk_buf text;
	vk_buf_init(&text, 1000);
	assert_true(vk_bpe_text_of(vk_bpe_cl100k(), hello_world, 2, &text));
	struct vk_input in = {.text = vk_buf_bytes(&text)};
	char hex[2 * VK_CACHE_KEY_SIZE + 1];
	make(vector("ascii"), &in, hex);
	assert_string_equal(hex, cstr(vector("ascii"), "key"));
	vk_buf_free(&text);
}

static int setup(void **state)
{
	(void)state;
	size_t n;
	struct vk_error err = {0};
	uint8_t bytes[32];
	vk_arena_init(&arena, 4 << 20);
	char *text = read_file(VK_SOURCE_DIR "/tests/embed/golden/cache_key.json", &n);
	char *kept = vk_arena_strndup(&arena, text, n);
	free(text);
	page = read_file(VK_SOURCE_DIR "/docs/cache-key.md", &n);
	if (vk_json_parse(&arena, vk_bytes_of(kept), NULL, &doc, &err)) {
		print_error("cache_key.json: %s\n", err.text);
		return -1;
	}
	struct vk_bytes hex = str(vk_json_root(doc), "secret");
	if (!vk_unhex(bytes, sizeof bytes, hex.p, hex.n)) return -1;
	vk_hmac_key_init(&secret, bytes, sizeof bytes);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	vk_json_free(doc);
	vk_arena_free(&arena);
	free(page);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_key_published_vectors_are_made),
		cmocka_unit_test(test_key_no_parameters_are_an_empty_object),
		cmocka_unit_test(test_page_holds_each_vector),
		cmocka_unit_test(test_token_vectors_are_no_text),
		cmocka_unit_test(test_tokens_that_are_a_text_have_its_key),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
