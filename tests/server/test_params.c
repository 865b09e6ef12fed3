/*
 * Goal: passed parameters become one text a meaning: RFC 8785.
 * Method: the published vectors (tests/embed/golden/cache_key.json: params -> params_canonical);
 * ECMAScript's number texts, the appendix of RFC 8785 and the powers of two whose exact decimal
 * digits are no longer than the shortest ones; what is no parameter or too much.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "server/embedding.h"

#ifndef VK_SOURCE_DIR
#define VK_SOURCE_DIR "."
#endif

static char *read_file(const char *path, size_t *n)
{
	FILE *f = fopen(path, "re");
	if (!f) return NULL;
	char *text = malloc(1 << 20);
	*n = text ? fread(text, 1, 1 << 20, f) : 0;
	fclose(f);
	return text;
}

static const char *canonical(struct vk_arena *a, const char *body, const char *const *names,
			     struct vk_error *err)
{
	struct vk_json *doc;
	assert_int_equal(vk_json_parse(a, vk_bytes_of(body), NULL, &doc, err), VK_OK);
	const char *text = vk_params_canonical(a, vk_json_root(doc), names, err);
	vk_json_free(doc);
	return text;
}

static void test_params_golden_vectors_match(void **state)
{
	struct vk_arena a;
	struct vk_json *doc;
	struct vk_error err;
	size_t n = 0, seen = 0;
	(void)state;
	vk_arena_init(&a, 1 << 24);
	char *file = read_file(VK_SOURCE_DIR "/tests/embed/golden/cache_key.json", &n);
	assert_non_null(file);
	assert_int_equal(vk_json_parse(&a, (struct vk_bytes){file, n}, NULL, &doc, &err), VK_OK);
	const vk_jv *vectors = vk_jv_get(vk_json_root(doc), "vectors");
	for (const vk_jv *v = vk_jv_first(vectors); v; v = vk_jv_next(v)) {
		const vk_jv *params = vk_jv_get(v, "params");
		const char **names = vk_arena_calloc(&a, vk_jv_len(params) + 1, sizeof *names);
		size_t k = 0;
		for (const vk_jv *m = vk_jv_first(params); m; m = vk_jv_next(m))
			names[k++] = vk_arena_strndup(&a, vk_jv_key(m).p, vk_jv_key(m).n);
		struct vk_bytes want;
		assert_true(vk_jv_str(vk_jv_get(v, "params_canonical"), &want));
		const char *got = vk_params_canonical(&a, params, names, &err);
		assert_non_null(got);
		assert_string_equal(got[0] ? got : "{}", vk_arena_strndup(&a, want.p, want.n));
		seen++;
	}
	assert_true(seen > 5);
	vk_json_free(doc);
	vk_arena_free(&a);
	free(file);
}

static void test_params_numbers_print_as_ecmascript_does(void **state)
{
	static const struct {
		const char *in, *out;
	} numbers[] = {
		{"0", "0"}, {"-0.0", "0"}, {"1", "1"}, {"1.0", "1"}, {"-1.50", "-1.5"}, {"1e0", "1"},
		{"100", "100"}, {"123456789", "123456789"}, {"0.1", "0.1"}, {"1e-6", "0.000001"},
		{"1e-7", "1e-7"}, {"1.5e-7", "1.5e-7"}, {"0.00012", "0.00012"}, {"1e21", "1e+21"},
		{"1e20", "100000000000000000000"}, {"1e22", "1e+22"}, {"9007199254740991", "9007199254740991"},
		{"9007199254740993", "9007199254740992"}, {"333333333.33333329", "333333333.3333333"},
		{"4.50", "4.5"}, {"2e-3", "0.002"}, {"1e-27", "1e-27"}, {"5e-324", "5e-324"},
		{"1.7976931348623157e308", "1.7976931348623157e+308"},
		{"295147905179352825856", "295147905179352830000"}, /* 2^68 */
		{"73786976294838206464", "73786976294838210000"},   /* 2^66 */
		{"1180591620717411303424", "1.1805916207174113e+21"}, /* 2^70 */
		{"-295147905179352825856", "-295147905179352830000"},
		{"999999999999999900000", "999999999999999900000"},
		{"0.000001234567890123456789", "0.0000012345678901234567"},
	};
	static const char *const names[] = {"v", NULL};
	struct vk_arena a;
	struct vk_error err;
	(void)state;
	vk_arena_init(&a, 1 << 20);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		char body[128], want[128];
		snprintf(body, sizeof body, "{\"v\":%s}", numbers[i].in);
		snprintf(want, sizeof want, "{\"v\":%s}", numbers[i].out);
		const char *got = canonical(&a, body, names, &err);
		assert_non_null(got);
		assert_string_equal(got, want);
		/* In an array, which is read another way, the same. */
		snprintf(body, sizeof body, "{\"v\":[%s]}", numbers[i].in);
		snprintf(want, sizeof want, "{\"v\":[%s]}", numbers[i].out);
		got = canonical(&a, body, names, &err);
		assert_non_null(got);
		assert_string_equal(got, want);
	}
	vk_arena_free(&a);
}

static void test_params_members_sort_by_utf16_and_strings_escape_least(void **state)
{
	static const char *const names[] = {"z", "a", "missing", "gone", "\xf0\x9f\x98\x80", "\xef\xac\xb3", NULL};
	struct vk_arena a;
	struct vk_error err;
	(void)state;
	vk_arena_init(&a, 1 << 20);
	const char *got = canonical(&a,
				    "{\"z\": {\"b\": [true, null, \"x\"], \"a\": \"\\u000b\\n\\/\\u00e9\\\\\\\"\"},"
				    " \"gone\": null, \"other\": 1, \"\xef\xac\xb3\": 1, \"\xf0\x9f\x98\x80\": 2,"
				    " \"a\": false}",
				    names, &err);
	assert_non_null(got);
	/* U+1F600 is D83D DE00 in UTF-16 and so comes before U+FB33. */
	assert_string_equal(got, "{\"a\":false,\"z\":{\"a\":\"\\u000b\\n/\xc3\xa9\\\\\\\"\",\"b\":[true,null,\"x\"]},"
				 "\"\xf0\x9f\x98\x80\":2,\"\xef\xac\xb3\":1}");
	assert_string_equal(canonical(&a, "{\"model\":\"m\"}", names, &err), "");
	vk_arena_free(&a);
}

static void test_params_too_large_is_an_error(void **state)
{
	static const char *const names[] = {"v", NULL};
	struct vk_arena a;
	struct vk_error err = {0};
	(void)state;
	vk_arena_init(&a, 1 << 22);
	char *body = malloc(200100);
	assert_non_null(body);
	size_t n = (size_t)sprintf(body, "{\"v\":\"");
	memset(body + n, 'x', 200000);
	strcpy(body + n + 200000, "\"}");
	assert_null(canonical(&a, body, names, &err));
	assert_int_equal(err.st, VK_E_INVALID);
	free(body);
	vk_arena_free(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_params_golden_vectors_match),
		cmocka_unit_test(test_params_numbers_print_as_ecmascript_does),
		cmocka_unit_test(test_params_members_sort_by_utf16_and_strings_escape_least),
		cmocka_unit_test(test_params_too_large_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
