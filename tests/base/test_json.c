/*
 * Goal: the JSON door takes what RFC 8259 takes, refuses what our contract refuses, and loses
 * nothing: numbers keep their text, vectors their bits.
 * Method: tables of texts accepted and refused (with the offset the error must name); lifted
 * arrays and integers at their limits; and seeded random documents written by vk_jw, parsed,
 * written again by vk_jw_value: the two texts must be the same. VK_TEST_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/num.h"
#include "base/utf8.h"

#define ARENA_MAX ((size_t)64 << 20)

struct doc {
	struct vk_arena arena;
	struct vk_json *json;
	struct vk_error err;
	enum vk_status st;
};

static const vk_jv *parse(struct doc *d, struct vk_bytes text, const struct vk_json_opts *opts)
{
	memset(d, 0, sizeof *d);
	vk_arena_init(&d->arena, ARENA_MAX);
	d->st = vk_json_parse(&d->arena, text, opts, &d->json, &d->err);
	if (d->st) {
		assert_null(d->json);
		assert_int_equal(d->err.st, d->st);
	}
	return vk_json_root(d->json);
}

static void drop(struct doc *d)
{
	vk_json_free(d->json);
	vk_arena_free(&d->arena);
}

/* Parses text, writes it again. */
static void rewrite(struct vk_bytes text, const struct vk_json_opts *opts, struct vk_buf *out)
{
	struct doc d;
	struct vk_jw w;
	const vk_jv *root = parse(&d, text, opts);
	if (d.st) fail_msg("%.*s: %s", (int)(text.n < 200 ? text.n : 200), text.p, d.err.text);
	vk_jw_init(&w, out);
	vk_jw_value(&w, root);
	assert_false(out->failed);
	drop(&d);
}

static void test_json_good_text_is_accepted(void **state)
{
	(void)state;
	static const struct {
		const char *in, *out; /* NULL: as it came */
	} good[] = {
		{"null", NULL},
		{" true\n", "true"},
		{"false", NULL},
		{"0", NULL},
		{"-0", NULL},
		{"1.0", NULL},
		{"-12.5e+30", NULL},
		{"1E5", NULL},
		{"18446744073709551615", NULL},
		{"123456789012345678901234567890", NULL},
		{"1e999", NULL}, /* a number by the grammar; reading it as f64 fails */
		{"\"\"", NULL},
		{"\"\\u0041\\n\\/\\b\\f\\r\\t\\\\\\\"\"", "\"A\\n/\\b\\f\\r\\t\\\\\\\"\""},
		{"\"\\uD83D\\uDe00\"", "\"\xf0\x9f\x98\x80\""},
		{"\"\\u001f\\u007f\\u00e9\\uffff\"", "\"\\u001f\x7f\xc3\xa9\xef\xbf\xbf\""},
		{"\"\xe4\xb8\xad\xf0\x9f\x98\x80\"", NULL},
		{"[]", NULL},
		{"{}", NULL},
		{"[ ]", "[]"},
		{"[1,2,3]", NULL},
		{"[1, 2 ,3 ]", "[1, 2 ,3 ]"},
		{"[[1],[2.5],[],[\"0\"]]", NULL},
		{"[1,\"0\",2]", NULL},
		{"[1,[2,[3,null]]]", NULL},
		{"[0,0,0,false,0]", NULL},
		{"{\"a\":1,\"A\":2,\"b\":{\"a\":0}}", NULL},
		{"{\"\":1}", NULL},
		{"{\"a\":{\"a\":{\"a\":1}},\"b\":[{\"a\":1},{\"a\":2}]}", NULL},
		{" \t\r\n{ \"a\" : [ 1 , \"x\" ] , \"b\" : -0.0 } ", "{\"a\":[1,\"x\"],\"b\":-0.0}"},
	};
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct vk_buf out;
		vk_buf_init(&out, 1 << 20);
		rewrite(vk_bytes_of(good[i].in), NULL, &out);
		assert_string_equal(vk_buf_cstr(&out), good[i].out ? good[i].out : good[i].in);
		vk_buf_free(&out);
	}
}

static void test_json_bad_text_is_refused_at_its_byte(void **state)
{
	(void)state;
	static const struct {
		struct vk_bytes in;
		unsigned at;
	} bad[] = {
#define T(s, at) {{s, sizeof(s) - 1}, at}
		T("", 0), T(" ", 1), T("\xef\xbb\xbf{}", 0), T("nul", 0), T("nulL", 0), T("True", 0),
		T("truex", 4), T("1 2", 2), T("{} {}", 3), T("[1]]", 3), T("{}\0", 2),
		T("01", 0), T("-01", 0), T("-", 1), T("+1", 0), T(".5", 0), T("1.", 2), T("1.e5", 2),
		T("1e", 2), T("1e+", 3), T("0x10", 1), T("NaN", 0), T("-Infinity", 1), T("1_000", 1),
		T("[1,]", 3), T("[,1]", 1), T("[1 2]", 3), T("[1", 2), T("[", 1), T("[\"a\"", 4),
		T("[1,2,x]", 5), T("[1.5,2.]", 7), T("[01]", 1), T("[1,,2]", 3),
		T("{\"a\"}", 4), T("{\"a\":}", 5), T("{\"a\":1,}", 7), T("{a:1}", 1), T("{'a':1}", 1),
		T("{1:1}", 1), T("{\"a\":1", 6), T("{\"a\" 1}", 5), T("{", 1), T("{,}", 1),
		T("\"", 0), T("\"abc", 0), T("\"a\\\"", 0), T("\"\t\"", 1), T("\"a\nb\"", 2), T("\"\x1f\"", 1),
		T("\"\0\"", 1), T("\"\\x41\"", 1), T("\"\\u12\"", 1), T("\"\\u123g\"", 1),
		T("\"\\u0000\"", 1), T("\"ab\\u0000\"", 3), T("\"\\ud800\"", 1), T("\"\\udc00\"", 1),
		T("\"\\ud800\\u0041\"", 1), T("\"\\ud800\\ud800\"", 1), T("\"\\ud83d\\", 1),
		T("\"\xff\"", 1), T("\"\xc0\x80\"", 1), T("\"\xed\xa0\x80\"", 1), T("\"\xf4\x90\x80\x80\"", 1),
		T("\"\xe4\xb8\"", 1), T("[1,\xc2\xa0 2]", 3),
		T("{\"a\":1,\"a\":2}", 7), T("{\"a\":1,\"\\u0061\":2}", 7), T("{\"\\n\":1,\"\\u000a\":2}", 8),
		T("{\"x\":{\"a\":1,\"b\":2,\"a\":3}}", 18), T("{\"\":1,\"\":1}", 6),
		T("// x\n1", 0), T("/* */1", 0), T("[1,/**/2]", 3),
#undef T
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct doc d;
		char want[32];
		parse(&d, bad[i].in, NULL);
		if (d.st != VK_E_INVALID) fail_msg("accepted: %.*s", (int)bad[i].in.n, bad[i].in.p);
		snprintf(want, sizeof want, "at byte %u:", bad[i].at);
		if (!strstr(d.err.text, want))
			fail_msg("%.*s: wanted %s, got: %s", (int)bad[i].in.n, bad[i].in.p, want, d.err.text);
		drop(&d);
	}
}

static void test_json_depth_is_capped(void **state)
{
	(void)state;
	for (int n = 1; n <= 70; n++) {
		char text[300];
		struct doc d;
		memset(text, '[', (size_t)n);
		memset(text + n, ']', (size_t)n);
		parse(&d, (struct vk_bytes){text, 2 * (size_t)n}, NULL);
		assert_int_equal(d.st, n <= VK_JSON_DEPTH_MAX ? VK_OK : VK_E_INVALID);
		drop(&d);
		struct vk_json_opts opts = {.depth_max = 5};
		parse(&d, (struct vk_bytes){text, 2 * (size_t)n}, &opts);
		assert_int_equal(d.st, n <= 5 ? VK_OK : VK_E_INVALID);
		drop(&d);
	}
}

static void test_json_too_many_values_are_too_large(void **state)
{
	(void)state;
	struct doc d;
	struct vk_json_opts opts = {.values_max = 4};
	parse(&d, VK_LIT("[\"a\",[1,2,3,4,5,6],null]"), &opts);
	assert_int_equal(d.st, VK_OK);
	drop(&d);
	parse(&d, VK_LIT("[\"a\",[1,2,3,4,5,6],null,{}]"), &opts);
	assert_int_equal(d.st, VK_E_TOO_LARGE);
	drop(&d);
}

static void test_json_members_are_found_by_exact_key(void **state)
{
	(void)state;
	struct doc d;
	struct vk_bytes s;
	bool b;
	const vk_jv *r = parse(&d, VK_LIT("{\"Model\":\"x\",\"model\":\"y\\u00e9\",\"t\":true,\"n\":null,"
					  "\"e\":[],\"o\":{\"k\":[1,\"2\"]}}"), NULL);
	assert_int_equal(vk_jv_type(r), VK_J_OBJECT);
	assert_int_equal(vk_jv_len(r), 6);
	assert_true(vk_jv_str(vk_jv_get(r, "model"), &s));
	assert_true(vk_bytes_is(s, "y\xc3\xa9"));
	assert_true(vk_jv_bool(vk_jv_get(r, "t"), &b) && b);
	assert_false(vk_jv_bool(vk_jv_get(r, "model"), &b));
	assert_false(vk_jv_str(vk_jv_get(r, "t"), &s));
	assert_null(vk_jv_get(r, "MODEL"));
	assert_null(vk_jv_get(vk_jv_get(r, "model"), "x"));
	assert_non_null(vk_jv_get(r, "n"));
	assert_int_equal(vk_jv_type(vk_jv_get(r, "n")), VK_J_NULL);
	assert_int_equal(vk_jv_type(vk_jv_get(r, "e")), VK_J_ARRAY);
	assert_null(vk_jv_first(vk_jv_get(r, "e")));
	const vk_jv *k = vk_jv_get(vk_jv_get(r, "o"), "k");
	assert_int_equal(vk_jv_type(k), VK_J_ARRAY);
	assert_int_equal(vk_jv_len(k), 2);
	assert_int_equal(vk_jv_type(vk_jv_first(k)), VK_J_NUMBER);
	assert_int_equal(vk_jv_type(vk_jv_next(vk_jv_first(k))), VK_J_STRING);
	assert_null(vk_jv_next(vk_jv_next(vk_jv_first(k))));
	assert_true(vk_bytes_is(vk_jv_key(vk_jv_first(r)), "Model"));
	drop(&d);
	/* Absent values answer, too. */
	assert_int_equal(vk_jv_type(NULL), VK_J_NULL);
	assert_int_equal(vk_jv_len(NULL), 0);
	assert_null(vk_jv_first(NULL));
	assert_null(vk_jv_next(NULL));
	assert_null(vk_jv_get(NULL, "a"));
	assert_false(vk_jv_f32s(NULL, NULL));
}

static void test_json_integers_are_exact_or_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool i64, u64;
		int64_t i;
		uint64_t u;
	} t[] = {
		{"0", true, true, 0, 0},
		{"-0", true, true, 0, 0},
		{"-1", true, false, -1, 0},
		{"9007199254740993", true, true, 9007199254740993, 9007199254740993},
		{"9223372036854775807", true, true, INT64_MAX, INT64_MAX},
		{"9223372036854775808", false, true, 0, 9223372036854775808u},
		{"-9223372036854775808", true, false, INT64_MIN, 0},
		{"-9223372036854775809", false, false, 0, 0},
		{"18446744073709551615", false, true, 0, UINT64_MAX},
		{"18446744073709551616", false, false, 0, 0},
		{"184467440737095516150", false, false, 0, 0},
		{"1.0", false, false, 0, 0},
		{"1e2", false, false, 0, 0},
		{"\"5\"", false, false, 0, 0},
		{"[5]", false, false, 0, 0},
		{"true", false, false, 0, 0},
	};
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		struct doc d;
		int64_t si = 0;
		uint64_t ui = 0;
		const vk_jv *r = parse(&d, vk_bytes_of(t[i].text), NULL);
		assert_int_equal(vk_jv_i64(r, &si), t[i].i64);
		assert_int_equal(vk_jv_u64(r, &ui), t[i].u64);
		assert_true(si == t[i].i && ui == t[i].u);
		drop(&d);
	}
}

static void test_json_f64_is_strtods(void **state)
{
	(void)state;
	static const char *const t[] = {"0", "-0", "1.5", "-1e-3", "0.1", "1e22", "1e23", "123456789012345678",
					"2.2250738585072014e-308", "4.9e-324", "1.7976931348623157e308", "5"};
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		struct doc d;
		double v, want = strtod(t[i], NULL);
		assert_true(vk_jv_f64(parse(&d, vk_bytes_of(t[i]), NULL), &v));
		assert_memory_equal(&v, &want, sizeof v);
		drop(&d);
	}
	struct doc d;
	double v;
	assert_false(vk_jv_f64(parse(&d, VK_LIT("1e309"), NULL), &v));
	drop(&d);
	assert_false(vk_jv_f64(parse(&d, VK_LIT("[1]"), NULL), &v));
	drop(&d);
}

static void test_json_number_arrays_are_lifted(void **state)
{
	(void)state;
	struct doc d;
	float f[3];
	uint32_t u[3];
	struct vk_bytes text;
	const vk_jv *r = parse(&d, VK_LIT("{\"v\":[ 1 ,-2.5e0,\n3e-2 ],\"u\":[0, 4294967295,7 ],"
					  "\"over\":[1,4294967296],\"neg\":[-1],\"frac\":[1.0],"
					  "\"inf\":[1,1e39],\"one\":[5],\"mixed\":[1,null]}"), NULL);
	assert_int_equal(vk_jv_type(vk_jv_get(r, "v")), VK_J_NUMBERS);
	assert_int_equal(vk_jv_len(vk_jv_get(r, "v")), 3);
	assert_null(vk_jv_first(vk_jv_get(r, "v")));
	double d64[3];
	assert_true(vk_jv_f64s(vk_jv_get(r, "v"), d64));
	assert_true(d64[0] == 1 && d64[1] == -2.5 && d64[2] == 3e-2);
	assert_true(vk_jv_f64s(vk_jv_get(r, "inf"), d64) && d64[1] == 1e39);
	assert_false(vk_jv_f64s(vk_jv_get(r, "mixed"), d64));
	assert_true(vk_jv_f32s(vk_jv_get(r, "v"), f));
	assert_true(f[0] == 1 && f[1] == -2.5f && f[2] == 3e-2f);
	assert_false(vk_jv_u32s(vk_jv_get(r, "v"), u));
	assert_true(vk_jv_text(vk_jv_get(r, "v"), &text));
	assert_true(vk_bytes_is(text, "[ 1 ,-2.5e0,\n3e-2 ]"));
	assert_true(vk_jv_u32s(vk_jv_get(r, "u"), u));
	assert_true(u[0] == 0 && u[1] == UINT32_MAX && u[2] == 7);
	assert_false(vk_jv_u32s(vk_jv_get(r, "over"), u));
	assert_false(vk_jv_u32s(vk_jv_get(r, "neg"), u));
	assert_false(vk_jv_u32s(vk_jv_get(r, "frac"), u));
	assert_false(vk_jv_f32s(vk_jv_get(r, "inf"), f));
	assert_int_equal(vk_jv_type(vk_jv_get(r, "one")), VK_J_NUMBERS);
	assert_int_equal(vk_jv_type(vk_jv_get(r, "mixed")), VK_J_ARRAY);
	assert_false(vk_jv_f32s(vk_jv_get(r, "mixed"), f));
	drop(&d);
}

static void test_json_comments_config_is_read(void **state)
{
	(void)state;
	static const struct vk_json_opts opts = {.comments = true};
	static const char *const text =
		"// head\n{ /* a\n b */ \"a\": [1, 2, 3, /* x */], // tail, }\n"
		"\"url\": \"http://x/*y*/,]\", \"o\": {\"k\": \"\\\"//\",},\n}\n//end";
	struct vk_buf out;
	struct doc d;
	float f[3];
	vk_buf_init(&out, 1 << 16);
	rewrite(vk_bytes_of(text), &opts, &out);
	/* A lifted array keeps its text, the blanked comment included. */
	assert_string_equal(vk_buf_cstr(&out), "{\"a\":[1, 2, 3         ],\"url\":\"http://x/*y*/,]\","
					       "\"o\":{\"k\":\"\\\"//\"}}");
	vk_buf_free(&out);
	assert_true(vk_jv_f32s(vk_jv_get(parse(&d, vk_bytes_of(text), &opts), "a"), f));
	assert_true(f[2] == 3);
	drop(&d);

	static const struct {
		const char *text, *where;
	} bad[] = {
		{"{\n\"a\": 1,\n\"b\": x\n}", "line 3 (byte 15)"},
		{"[1,\n,2]", "line 2 (byte 4)"},
		{"[,]", "line 1 (byte 1)"},
		{"{,}", "line 1 (byte 1)"},
		{"[1,,]", "line 1 (byte 3)"},
		{"\n/* never", "line 2 (byte 1)"},
		{"[1 / 2]", "line 1 (byte 3)"},
		{"/*/ 1", "line 1 (byte 0)"},
		{"{\"a\":,}", "line 1 (byte 5)"},
		{"[1]\n,", "line 2 (byte 4)"},
		{"\"abc\\", "line 1 (byte 5)"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		parse(&d, vk_bytes_of(bad[i].text), &opts);
		assert_int_equal(d.st, VK_E_INVALID);
		if (!strstr(d.err.text, bad[i].where)) fail_msg("%s: %s", bad[i].text, d.err.text);
		drop(&d);
	}
}

/* 200,000 keys in one object, and objects inside objects so that the key table grows while outer
 * keys are on it. The last key repeats the first. */
static void test_json_many_keys_duplicate_is_found_in_time(void **state)
{
	(void)state;
	enum { KEYS = 200000 };
	struct vk_buf b;
	struct doc d;
	vk_buf_init(&b, (size_t)16 << 20);
	vk_buf_puts(&b, "{\"o\":{\"p\":1,\"q\":{");
	for (int i = 0; i < KEYS; i++) vk_buf_printf(&b, "\"k%d\":%d,", i, i);
	size_t end = b.n;
	vk_buf_puts(&b, "\"p\":1},\"r\":2},\"q\":3}");
	clock_t t = clock();
	parse(&d, vk_buf_bytes(&b), NULL);
	assert_int_equal(d.st, VK_OK);
	drop(&d);
	b.n = end;
	vk_buf_puts(&b, "\"k0\":1},\"r\":2},\"q\":3}");
	parse(&d, vk_buf_bytes(&b), NULL);
	assert_int_equal(d.st, VK_E_INVALID);
	assert_non_null(strstr(d.err.text, "duplicate key \"k0\""));
	drop(&d);
	b.n = end;
	vk_buf_puts(&b, "\"p\":1},\"r\":2,\"p\":3}}");
	parse(&d, vk_buf_bytes(&b), NULL);
	assert_int_equal(d.st, VK_E_INVALID);
	assert_non_null(strstr(d.err.text, "duplicate key \"p\""));
	drop(&d);
	/* Pairwise it would be 2 * 10^10 comparisons a parse. */
	assert_true((double)(clock() - t) / CLOCKS_PER_SEC < 20);
	vk_buf_free(&b);
}

static void test_json_small_arena_is_out_of_memory(void **state)
{
	(void)state;
	struct vk_arena arena;
	struct vk_json *json;
	struct vk_error err;
	vk_arena_init(&arena, 512); /* less than one block of spans */
	assert_int_equal(vk_json_parse(&arena, VK_LIT("{\"a\":1}"), NULL, &json, &err), VK_E_NOMEM);
	assert_null(json);
	vk_arena_free(&arena);
	vk_json_free(NULL);
}

static uint64_t seed_of_run(void)
{
	const char *s = getenv("VK_TEST_SEED");
	uint64_t seed = s ? strtoull(s, NULL, 0) : 20240611;
	print_message("VK_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static size_t random_text(uint64_t *rng, char *dst)
{
	size_t n = 0, count = vk_rng(rng) % 40;
	for (size_t i = 0; i < count; i++) {
		static const uint32_t top[] = {0x20, 0x80, 0x800, 0x10000, 0x110000};
		uint32_t cp = 1 + (uint32_t)(vk_rng(rng) % (top[vk_rng(rng) % 5] - 1));
		if (cp >= 0xd800 && cp <= 0xdfff) cp = '"';
		n += vk_utf8_put(dst + n, cp);
	}
	return n;
}

static void random_value(uint64_t *rng, struct vk_jw *w, int depth)
{
	char text[256];
	float f[40];
	uint64_t r = vk_rng(rng);
	size_t n = vk_rng(rng) % 40;
	switch (r % (depth ? 10 : 8)) {
	case 0: vk_jw_null(w); break;
	case 1: vk_jw_bool(w, r >> 32 & 1); break;
	case 2: vk_jw_i64(w, (int64_t)vk_rng(rng) >> (r >> 32) % 64); break;
	case 3: vk_jw_u64(w, vk_rng(rng) >> (r >> 32) % 64); break;
	case 4: vk_jw_f64(w, (double)(int64_t)vk_rng(rng) / (double)(vk_rng(rng) | 1)); break;
	case 5: vk_jw_str(w, (struct vk_bytes){text, random_text(rng, text)}); break;
	case 6:
		for (size_t i = 0; i < n; i++) f[i] = (float)(int32_t)vk_rng(rng) / 1e9f;
		vk_jw_f32s(w, f, n);
		break;
	case 7: vk_jw_base64(w, text, (memset(text, (int)r, sizeof text), n)); break;
	case 8:
		vk_jw_array(w);
		for (size_t i = 0; i < n / 4; i++) random_value(rng, w, depth - 1);
		vk_jw_array_end(w);
		break;
	default:
		vk_jw_object(w);
		for (size_t i = 0; i < n; i++) {
			char key[16];
			snprintf(key, sizeof key, "%zu\n", i);
			vk_jw_key(w, key);
			random_value(rng, w, depth - 1);
		}
		vk_jw_object_end(w);
	}
}

static void test_json_random_document_round_trips(void **state)
{
	(void)state;
	uint64_t rng = seed_of_run();
	for (int i = 0; i < 3000; i++) {
		struct vk_buf a, b;
		struct vk_jw w;
		vk_buf_init(&a, (size_t)16 << 20);
		vk_buf_init(&b, (size_t)16 << 20);
		vk_jw_init(&w, &a);
		random_value(&rng, &w, i % 4);
		assert_int_equal(w.depth, 0);
		assert_false(a.failed);
		rewrite(vk_buf_bytes(&a), NULL, &b);
		assert_string_equal(vk_buf_cstr(&b), vk_buf_cstr(&a));
		vk_buf_free(&a);
		vk_buf_free(&b);
	}
}

/* Each object's span, read as a document of its own, is that object; without being asked for there is none. */
static size_t check_spans(const vk_jv *v)
{
	struct vk_bytes span;
	size_t n = 0;
	if (vk_jv_type(v) == VK_J_OBJECT) {
		struct vk_buf alone, inside;
		struct vk_jw w;
		assert_true(vk_jv_span(v, &span));
		assert_true(span.n >= 2 && span.p[0] == '{' && span.p[span.n - 1] == '}');
		vk_buf_init(&alone, ARENA_MAX);
		vk_buf_init(&inside, ARENA_MAX);
		rewrite(span, NULL, &alone);
		vk_jw_init(&w, &inside);
		vk_jw_value(&w, v);
		assert_string_equal(vk_buf_cstr(&alone), vk_buf_cstr(&inside));
		vk_buf_free(&alone);
		vk_buf_free(&inside);
		n++;
	} else {
		assert_false(vk_jv_span(v, &span));
	}
	for (const vk_jv *c = vk_jv_first(v); c; c = vk_jv_next(c)) n += check_spans(c);
	return n;
}

static void test_json_object_spans_are_the_objects_text(void **state)
{
	(void)state;
	static const char text[] = " { \"a{\" : [ {} , { \"b\":{ \"c\" : [ 1 , 2 ] } } , \"}{\" ],\"d\":[[{\"e\":1.50}]] } ";
	const struct vk_json_opts keep = {.object_spans = true};
	struct vk_bytes span;
	struct doc d;
	const vk_jv *root = parse(&d, VK_LIT(text), &keep);
	assert_int_equal(d.st, VK_OK);
	assert_int_equal(check_spans(root), 5);
	assert_true(vk_jv_span(vk_jv_first(vk_jv_get(root, "a{")), &span));
	assert_true(vk_bytes_is(span, "{}"));
	assert_true(vk_jv_span(vk_jv_next(vk_jv_first(vk_jv_get(root, "a{"))), &span));
	assert_true(vk_bytes_is(span, "{ \"b\":{ \"c\" : [ 1 , 2 ] } }"));
	drop(&d);
	root = parse(&d, VK_LIT(text), NULL);
	assert_false(vk_jv_span(root, &span));
	drop(&d);
	/* More than a block of them. */
	struct vk_buf many;
	vk_buf_init(&many, ARENA_MAX);
	vk_buf_puts(&many, "[{\"k\":{}}");
	for (int i = 0; i < 300; i++) vk_buf_printf(&many, ",{\"k\":%d,\"o\":{\"n\":[%d]}}", i, i);
	vk_buf_puts(&many, "]");
	root = parse(&d, vk_buf_bytes(&many), &keep);
	assert_int_equal(check_spans(root), 602);
	drop(&d);
	vk_buf_free(&many);
}

static void test_json_u64_arrays_are_exact_or_refused(void **state)
{
	(void)state;
	const struct {
		const char *text;
		bool good;
		uint64_t first, last;
	} cases[] = {{"[0]", true, 0, 0},
		     {"[ 1 , 18446744073709551615 ]", true, 1, UINT64_MAX},
		     {"[9007199254740993,2]", true, 9007199254740993u, 2},
		     {"[1,18446744073709551616]", false, 0, 0},
		     {"[1,-1]", false, 0, 0},
		     {"[1.0]", false, 0, 0},
		     {"[1e3]", false, 0, 0}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct doc d;
		uint64_t v[2] = {7, 7};
		const vk_jv *root = parse(&d, vk_bytes_of(cases[i].text), NULL);
		assert_int_equal(vk_jv_u64s(root, v), cases[i].good);
		if (cases[i].good) {
			assert_true(v[0] == cases[i].first);
			assert_true(v[vk_jv_len(root) - 1] == cases[i].last);
		}
		drop(&d);
	}
}

/* Every single-byte change of a good text parses or fails cleanly, and what parses is written
 * and read again the same. */
static void test_json_mutated_text_never_breaks(void **state)
{
	(void)state;
	static const char text[] = "{\"a\":[1,2.5e-3,-0],\"b\":[\"x\\u00e9\\ud83d\\ude00\",null,{\"c\":true}],"
				   "\"d\":18446744073709551615}";
	size_t n = sizeof text - 1, accepted = 0;
	for (size_t i = 0; i < n; i++)
		for (int c = 0; c < 256; c++) {
			struct doc d;
			struct vk_buf once, twice;
			struct vk_jw w;
			char copy[sizeof text];
			memcpy(copy, text, sizeof text);
			copy[i] = (char)c;
			const vk_jv *r = parse(&d, (struct vk_bytes){copy, n}, NULL);
			if (!d.st) {
				accepted++;
				vk_buf_init(&once, 4096);
				vk_buf_init(&twice, 4096);
				vk_jw_init(&w, &once);
				vk_jw_value(&w, r);
				rewrite(vk_buf_bytes(&once), NULL, &twice);
				assert_string_equal(vk_buf_cstr(&once), vk_buf_cstr(&twice));
				vk_buf_free(&once);
				vk_buf_free(&twice);
			}
			drop(&d);
		}
	assert_true(accepted > n); /* at least every unchanged text */
}

static void test_json_writer_specials(void **state)
{
	(void)state;
	struct vk_buf b;
	struct vk_jw w;
	const float f[] = {1, 0.1f, -0.0f, (float)(1e30 * 1e30), 16777216};
	vk_buf_init(&b, 4096);
	vk_jw_init(&w, &b);
	vk_jw_object(&w);
	vk_jw_kv(&w, "s", "a\"\\\b\x01\x7f/");
	vk_jw_kv(&w, "null", NULL);
	vk_jw_ki(&w, "min", INT64_MIN);
	vk_jw_kb(&w, "t", true);
	vk_jw_kf(&w, "third", 1.0 / 3);
	vk_jw_kf(&w, "nan", (double)(f[3] - f[3]));
	vk_jw_key(&w, "f");
	vk_jw_f32s(&w, f, 5);
	vk_jw_key(&w, "none");
	vk_jw_f32s(&w, f, 0);
	vk_jw_key(&w, "b64");
	vk_jw_base64(&w, "foob", 4);
	vk_jw_key(&w, "raw");
	vk_jw_raw(&w, VK_LIT("[1]"));
	vk_jw_key(&w, "a");
	vk_jw_array(&w);
	vk_jw_i64(&w, -7);
	vk_jw_object(&w);
	vk_jw_object_end(&w);
	vk_jw_array_end(&w);
	vk_jw_object_end(&w);
	assert_string_equal(vk_buf_cstr(&b),
			    "{\"s\":\"a\\\"\\\\\\b\\u0001\x7f/\",\"null\":null,\"min\":-9223372036854775808,"
			    "\"t\":true,\"third\":0.3333333333333333,\"nan\":null,"
			    "\"f\":[1,0.1,-0,null,16777216],\"none\":[],\"b64\":\"Zm9vYg==\",\"raw\":[1],"
			    "\"a\":[-7,{}]}");
	vk_buf_free(&b);
}

static bool is_wanted(struct vk_bytes key, const char *const *names)
{
	for (; *names; names++)
		if (vk_bytes_is(key, *names)) return true;
	return false;
}

/* Members go from one object into another with keys escaped anew and numbers in their own text; what is not named stays behind. */
static void test_json_members_are_copied_as_they_came(void **state)
{
	static const char *const wanted[] = {"", "a\"\\\n\xc3\xa9", "n", "f", "list", "object", "null", NULL};
	(void)state;
	struct vk_arena a;
	struct vk_json *doc;
	struct vk_error err;
	struct vk_buf b;
	struct vk_jw w;
	struct vk_bytes text = VK_LIT("{\"gone\": 1, \"\": \"no key\", \"a\\\"\\\\\\n\\u00e9\": true, \"n\": 18446744073709551615, "
				      "\"f\": [1.0, 2e0], \"list\": [\"x\", {}], \"object\": {\"k\\\"\": [ ]}, \"null\": null}");
	vk_arena_init(&a, (size_t)1 << 20);
	assert_int_equal(vk_json_parse(&a, text, NULL, &doc, &err), VK_OK);
	vk_buf_init(&b, 4096);
	vk_jw_init(&w, &b);
	vk_jw_object(&w);
	vk_jw_kb(&w, "before", false);
	for (const vk_jv *m = vk_jv_first(vk_json_root(doc)); m; m = vk_jv_next(m))
		if (is_wanted(vk_jv_key(m), wanted)) vk_jw_member(&w, m);
	vk_jw_ki(&w, "after", 2);
	vk_jw_object_end(&w);
	assert_string_equal(vk_buf_cstr(&b),
			    "{\"before\":false,\"\":\"no key\",\"a\\\"\\\\\\n\xc3\xa9\":true,\"n\":18446744073709551615,"
			    "\"f\":[1.0, 2e0],\"list\":[\"x\",{}],\"object\":{\"k\\\"\":[]},\"null\":null,\"after\":2}");
	vk_buf_free(&b);
	vk_json_free(doc);
	vk_arena_free(&a);
}

/* A reply that is longer than its buffer's maximum fails as a whole, and not before. */
static void test_json_writer_meets_the_maximum_and_fails(void **state)
{
	(void)state;
	const float f[] = {1, 2, 3};
	for (size_t max = 0; max < 12; max++) {
		struct vk_buf b;
		struct vk_jw w;
		vk_buf_init(&b, max);
		vk_jw_init(&w, &b);
		vk_jw_array(&w);
		vk_jw_f32s(&w, f, 3);
		vk_jw_array_end(&w);
		assert_int_equal(b.failed, max < strlen("[[1,2,3]]"));
		vk_buf_free(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_good_text_is_accepted),
		cmocka_unit_test(test_json_bad_text_is_refused_at_its_byte),
		cmocka_unit_test(test_json_depth_is_capped),
		cmocka_unit_test(test_json_too_many_values_are_too_large),
		cmocka_unit_test(test_json_members_are_found_by_exact_key),
		cmocka_unit_test(test_json_integers_are_exact_or_refused),
		cmocka_unit_test(test_json_f64_is_strtods),
		cmocka_unit_test(test_json_number_arrays_are_lifted),
		cmocka_unit_test(test_json_comments_config_is_read),
		cmocka_unit_test(test_json_many_keys_duplicate_is_found_in_time),
		cmocka_unit_test(test_json_small_arena_is_out_of_memory),
		cmocka_unit_test(test_json_random_document_round_trips),
		cmocka_unit_test(test_json_object_spans_are_the_objects_text),
		cmocka_unit_test(test_json_u64_arrays_are_exact_or_refused),
		cmocka_unit_test(test_json_mutated_text_never_breaks),
		cmocka_unit_test(test_json_writer_specials),
		cmocka_unit_test(test_json_members_are_copied_as_they_came),
		cmocka_unit_test(test_json_writer_meets_the_maximum_and_fails),
	};
	return cmocka_run_group_tests_name("base/json", tests, NULL, NULL);
}
