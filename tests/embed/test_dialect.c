/*
 * Goal: each dialect sends exactly the bytes that its provider documents, and believes exactly
 * the replies that it may believe.
 * Method: golden requests; tables of good replies (decoded and compared) and lying ones (each
 * must be VK_E_UPSTREAM with its reason, and leave nothing in the answer); token shares over
 * seeded random sizes must add up; base64 and number lists of random rows must give equal bits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/num.h"
#include "embed/dialect.h"
#include "simd/base64.h"

#define SEED 20261122u

static const struct vk_role none = {.name = "none", .prefix = ""};
static const struct vk_space space2 = {.id = "test/two@1", .dims = 2};

static const struct vk_call_item *items_of(size_t n)
{
	static struct vk_call_item items[64];
	for (size_t i = 0; i < n; i++) items[i] = (struct vk_call_item){.text = VK_LIT("text")};
	return items;
}

static const struct vk_dialect *find(const char *name)
{
	const struct vk_dialect *d = vk_dialect_find(vk_bytes_of(name));
	assert_non_null(d);
	return d;
}

static void test_find_names_match_the_table(void **state)
{
	(void)state;
	char names[200], *rest = names;
	snprintf(names, sizeof names, "%s", vk_dialect_names());
	size_t n = 0;
	for (char *name; (name = strsep(&rest, ",")); n++) {
		while (*name == ' ') name++;
		assert_string_equal(find(name)->name, name);
		assert_int_equal(find(name)->local, !strcmp(name, "builtin"));
		assert_int_equal(find(name)->build == NULL, find(name)->local);
		assert_int_equal(find(name)->parse == NULL, find(name)->local);
	}
	assert_int_equal(n, 5);
	assert_null(vk_dialect_find(VK_LIT("openai2")));
	assert_null(vk_dialect_find(VK_LIT("")));
}

/* ---- requests ---- */

struct golden {
	const char *dialect;
	struct vk_provider p;
	struct vk_role role;
	const char *model, *params, *bearer;
	const char *texts[3]; /* to NULL */
	bool tokens;          /* instead of texts: [1,2] and [4294967295] */
	const char *url, *headers, *body;
};

#define JSON_HEADERS "Content-Type: application/json|Accept: application/json"
static const char *const extra_headers[] = {"OpenAI-Organization: org-1", "X-Team: rag", NULL};
static const char *const own_headers[] = {"content-type: application/json; charset=utf-8", NULL};

static const struct golden goldens[] = {
	{.dialect = "openai", .p = {.base_url = "http://h/v1"}, .model = "text-embedding-3-small", .bearer = "sk-1",
	 .texts = {"alpha", "beta"}, .url = "http://h/v1/embeddings",
	 .headers = JSON_HEADERS "|Authorization: Bearer sk-1",
	 .body = "{\"model\":\"text-embedding-3-small\",\"input\":[\"alpha\",\"beta\"]}"},
	{.dialect = "openai", .p = {.base_url = "http://h/v1", .base64 = true, .headers = extra_headers}, .model = "m",
	 .texts = {"a\"b\\\n\x01\xc3\xa9\xf0\x9f\x98\x80"}, .url = "http://h/v1/embeddings",
	 .headers = JSON_HEADERS "|OpenAI-Organization: org-1|X-Team: rag",
	 .body = "{\"model\":\"m\",\"input\":[\"a\\\"b\\\\\\n\\u0001\xc3\xa9\xf0\x9f\x98\x80\"],\"encoding_format\":\"base64\"}"},
	{.dialect = "openai", .p = {.base_url = "http://h/v1"}, .model = "m", .tokens = true, .url = "http://h/v1/embeddings",
	 .headers = JSON_HEADERS, .body = "{\"model\":\"m\",\"input\":[[1,2],[4294967295]]}"},
	/* every knob */
	{.dialect = "openai",
	 .p = {.base_url = "http://h", .path = "/serving-endpoints/{model}/invocations", .auth_header = "X-Api-Key",
	       .dims_field = "output_dimension", .role_field = "input_type", .extra_body = " \"truncate\":\"NONE\" ",
	       .headers = own_headers},
	 .role = {.name = "query", .value = "query", .prefix = "query: "}, .model = "a/b c?", .bearer = "k",
	 .params = "{\"user_note\":1}", .texts = {"x", ""}, .url = "http://h/serving-endpoints/a%2Fb%20c%3F/invocations",
	 .headers = "Accept: application/json|X-Api-Key: k|content-type: application/json; charset=utf-8",
	 .body = "{\"model\":\"a/b c?\",\"input\":[\"query: x\",\"query: \"],\"output_dimension\":2,\"input_type\":\"query\","
		 "\"user_note\":1,\"truncate\":\"NONE\"}"},
	/* what the operator wrote goes before our own field; an empty dims_field sends none */
	{.dialect = "openai",
	 .p = {.base_url = "http://h/v1", .base64 = true, .dims_field = "", .role_field = "task",
	       .extra_body = "\"encoding_format\":\"float\",\"task\":\"t\""},
	 .role = {.name = "query", .value = "query", .prefix = ""}, .model = "m", .params = "{}", .texts = {"x"},
	 .url = "http://h/v1/embeddings", .headers = JSON_HEADERS,
	 .body = "{\"model\":\"m\",\"input\":[\"x\"],\"encoding_format\":\"float\",\"task\":\"t\"}"},
	{.dialect = "openai", .p = {.base_url = "http://h", .auth_prefix = "Token "}, .model = "m", .bearer = "k", .texts = {"x"},
	 .url = "http://h/embeddings", .headers = JSON_HEADERS "|Authorization: Token k",
	 .body = "{\"model\":\"m\",\"input\":[\"x\"]}"},
	{.dialect = "azure-openai", .p = {.base_url = "http://acme", .api_version = "2024-10-21"}, .model = "emb3s-prod", .bearer = "k",
	 .texts = {"x"}, .url = "http://acme/openai/deployments/emb3s-prod/embeddings?api-version=2024-10-21",
	 .headers = JSON_HEADERS "|api-key: k", .body = "{\"model\":\"emb3s-prod\",\"input\":[\"x\"]}"},
	{.dialect = "azure-openai", .p = {.base_url = "http://acme"}, .model = "emb3s-prod", .bearer = "k", .texts = {"x"},
	 .url = "http://acme/openai/v1/embeddings", .headers = JSON_HEADERS "|api-key: k",
	 .body = "{\"model\":\"emb3s-prod\",\"input\":[\"x\"]}"},
	{.dialect = "azure-openai", .p = {.base_url = "http://acme/openai/v1", .auth_header = "Authorization"}, .model = "d",
	 .bearer = "jwt", .texts = {"x"}, .url = "http://acme/openai/v1/embeddings",
	 .headers = JSON_HEADERS "|Authorization: Bearer jwt", .body = "{\"model\":\"d\",\"input\":[\"x\"]}"},
	{.dialect = "ollama", .p = {.base_url = "http://h:11434", .extra_body = "\"truncate\":false"}, .model = "all-minilm",
	 .texts = {"a", "b"}, .url = "http://h:11434/api/embed", .headers = JSON_HEADERS,
	 .body = "{\"model\":\"all-minilm\",\"input\":[\"a\",\"b\"],\"truncate\":false}"},
	{.dialect = "tei", .p = {.base_url = "http://h:3000", .role_field = "prompt_name", .extra_body = "\"truncate\":true"},
	 .role = {.name = "query", .value = "query", .prefix = ""}, .model = "ignored", .bearer = "k", .texts = {"alpha", "beta"},
	 .url = "http://h:3000/embed", .headers = JSON_HEADERS "|Authorization: Bearer k",
	 .body = "{\"inputs\":[\"alpha\",\"beta\"],\"normalize\":true,\"prompt_name\":\"query\",\"truncate\":true}"},
	{.dialect = "tei", .p = {.base_url = "http://h:3000", .extra_body = "\"normalize\":false"}, .model = "", .tokens = true,
	 .url = "http://h:3000/embed", .headers = JSON_HEADERS, .body = "{\"inputs\":[[1,2],[4294967295]],\"normalize\":false}"},
};

static enum vk_status build_golden(const struct golden *g, struct vk_arena *arena, struct vk_wire *w, struct vk_error *err)
{
	static const uint32_t one_two[] = {1, 2}, most[] = {UINT32_MAX};
	struct vk_call_item items[3] = {{.tokens = one_two, .tokens_n = 2}, {.tokens = most, .tokens_n = 1}};
	struct vk_provider p = g->p;
	struct vk_call call = {.provider = &p, .space = &space2, .role = g->role.name ? &g->role : &none, .model = g->model,
			       .params = g->params, .bearer = vk_bytes_of(g->bearer ? g->bearer : ""), .items = items, .n = 2};
	p.name = "p";
	if (!g->tokens)
		for (call.n = 0; g->texts[call.n]; call.n++)
			items[call.n] = (struct vk_call_item){.text = vk_bytes_of(g->texts[call.n])};
	return find(g->dialect)->build(&call, arena, w, err);
}

static void test_build_golden_requests(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
		struct vk_arena arena;
		struct vk_wire w;
		struct vk_error err;
		char headers[1000] = "";
		vk_arena_init(&arena, 1 << 20);
		assert_int_equal(build_golden(&goldens[i], &arena, &w, &err), VK_OK);
		for (size_t h = 0; w.headers[h]; h++) {
			if (h) strcat(headers, "|");
			strcat(headers, w.headers[h]);
		}
		assert_string_equal(w.url, goldens[i].url);
		assert_string_equal(headers, goldens[i].headers);
		assert_int_equal(w.body.n, strlen(goldens[i].body));
		assert_string_equal(w.body.p, goldens[i].body);
		struct vk_json *doc;
		assert_int_equal(vk_json_parse(&arena, w.body, NULL, &doc, &err), VK_OK);
		vk_json_free(doc);
		vk_arena_free(&arena);
	}
}

static void test_build_refuses_what_cannot_be_sent(void **state)
{
	(void)state;
	static const char *const many[] = {"A: 1", "A: 1", "A: 1", "A: 1", "A: 1", "A: 1", "A: 1", "A: 1", "A: 1", "A: 1",
					   "A: 1", "A: 1", "A: 1", "A: 1", "A: 1", "A: 1", "A: 1", "A: 1", "A: 1", "A: 1",
					   "A: 1", "A: 1", "A: 1", NULL};
	struct golden bad[] = {
		{.dialect = "openai", .p = {.base_url = "http://h"}, .model = "m", .bearer = "se\r\ncret: x", .texts = {"x"}},
		{.dialect = "openai", .p = {.base_url = "http://h"}, .model = "m", .bearer = "sec\xc3\xa9t", .texts = {"x"}},
		{.dialect = "openai", .p = {.base_url = "http://h", .headers = many}, .model = "m", .texts = {"x"}},
		{.dialect = "ollama", .p = {.base_url = "http://h"}, .model = "m", .tokens = true},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct vk_arena arena;
		struct vk_wire w;
		struct vk_error err;
		vk_arena_init(&arena, 1 << 20);
		assert_int_equal(build_golden(&bad[i], &arena, &w, &err), VK_E_INVALID);
		assert_null(strstr(err.text, "se"));
		assert_non_null(strstr(err.text, "provider \"p\""));
		vk_arena_free(&arena);
	}
	struct vk_arena tiny;
	struct vk_wire w;
	struct vk_error err;
	vk_arena_init(&tiny, 64);
	assert_int_equal(build_golden(&goldens[0], &tiny, &w, &err), VK_E_NOMEM);
	vk_arena_free(&tiny);
}

/* ---- replies ---- */

static enum vk_status parse(const char *dialect, size_t n, struct vk_bytes body, uint32_t tokens_header,
			    struct vk_arena *arena, struct vk_answer *a, struct vk_verdict *v, struct vk_error *err)
{
	static const struct vk_provider p = {.name = "p"};
	struct vk_call call = {.provider = &p, .space = &space2, .role = &none, .model = "m", .items = items_of(n), .n = n};
	return find(dialect)->parse(&call, body, tokens_header, arena, a, v, err);
}

#define D1 "{\"index\":0,\"embedding\":[0.5,-2]}"
#define U(x) "{\"data\":[" D1 "],\"usage\":" x "}"

static const struct {
	const char *dialect;
	size_t n;
	const char *body;
	uint32_t header;
	float rows[4];
	uint32_t total;
	bool exact;
} good[] = {
	{"openai", 1, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.5,-2]}],\"model\":\"m\",\"usage\":{\"prompt_tokens\":2,\"total_tokens\":2}}", 0, {0.5f, -2}, 2, true},
	{"openai", 2, "{\"data\":[{\"index\":1,\"embedding\":[3,4]},{\"index\":0,\"embedding\":[1,2]}],\"usage\":{\"prompt_tokens\":5}}", 0, {1, 2, 3, 4}, 5, false},
	{"openai", 2, "{\"data\":[{\"embedding\":[1,2]},{\"embedding\":[3,4]}]}", 0, {1, 2, 3, 4}, 0, false},
	{"openai", 1, "{\"data\":[{\"index\":null,\"embedding\":[1,2]}]}", 0, {1, 2}, 0, false},
	/* base64 of 1.0, -2.5: with and without having asked */
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":\"AACAPwAAIMA=\",\"encoding_format\":\"base64\"}],\"usage\":{\"total_tokens\":7}}", 0, {1, -2.5f}, 7, true},
	{"openai", 2, "{\"data\":[{\"index\":1,\"embedding\":\"AACAPwAAIMA=\"},{\"index\":0,\"embedding\":[8,9]}]}", 0, {8, 9, 1, -2.5f}, 0, false},
	{"openai", 1, "[{\"index\":0,\"embedding\":[[0.5,-2]]}]", 0, {0.5f, -2}, 0, false},
	{"openai", 1, "{\"error\":null,\"data\":[" D1 "]}", 0, {0.5f, -2}, 0, false},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[1e-50,2]}]}", 0, {0, 2}, 0, false},
	/* usage in every shape */
	{"openai", 1, U("{\"prompt_tokens\":4.0,\"total_tokens\":4}"), 0, {0.5f, -2}, 4, true},
	{"openai", 1, U("{\"prompt_tokens\":2.6}"), 0, {0.5f, -2}, 3, true},
	{"openai", 1, U("{\"total_tokens\":9}"), 0, {0.5f, -2}, 9, true},
	{"openai", 1, U("{\"prompt_tokens\":\"4\"}"), 0, {0.5f, -2}, 0, false},
	{"openai", 1, U("{\"prompt_tokens\":-4}"), 0, {0.5f, -2}, 0, false},
	{"openai", 1, U("{\"prompt_tokens\":1e30}"), 0, {0.5f, -2}, 0, false},
	{"openai", 1, U("{\"prompt_tokens\":0,\"total_tokens\":0}"), 0, {0.5f, -2}, 0, false},
	{"openai", 1, U("null"), 0, {0.5f, -2}, 0, false},
	{"openai", 1, U("[]"), 0, {0.5f, -2}, 0, false},
	{"azure-openai", 1, U("{\"prompt_tokens\":3}"), 0, {0.5f, -2}, 3, true},
	{"ollama", 2, "{\"model\":\"m\",\"embeddings\":[[1,2],[3,4]],\"total_duration\":14143917,\"prompt_eval_count\":8}", 0, {1, 2, 3, 4}, 8, false},
	{"ollama", 1, "{\"embeddings\":[[1,2]]}", 0, {1, 2}, 0, false},
	{"tei", 2, "[[1,2],[3,4]]", 11, {1, 2, 3, 4}, 11, false},
	{"tei", 1, "[[1,2]]", 3, {1, 2}, 3, true},
	{"tei", 1, "[1,2]", 3, {1, 2}, 3, true},
	{"tei", 2, "[\"AACAPwAAIMA=\",[3,4]]", 0, {1, -2.5f, 3, 4}, 0, false},
};

static void test_parse_good_replies(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		struct vk_arena arena;
		struct vk_answer a;
		struct vk_verdict v;
		struct vk_error err = {0};
		vk_arena_init(&arena, 1 << 20);
		enum vk_status st = parse(good[i].dialect, good[i].n, vk_bytes_of(good[i].body), good[i].header, &arena, &a, &v, &err);
		if (st) fail_msg("row %zu: %s", i, err.text);
		assert_memory_equal(a.rows, good[i].rows, good[i].n * 2 * sizeof(float));
		assert_int_equal(a.tokens_total, good[i].total);
		assert_int_equal(a.tokens_exact, good[i].exact);
		assert_int_equal(v.fault, VK_FAULT_NONE);
		assert_null(a.truncated);
		uint64_t sum = 0;
		for (size_t k = 0; k < good[i].n; k++) sum += a.tokens[k];
		assert_int_equal(sum, good[i].total);
		vk_arena_free(&arena);
	}
}

static const struct {
	const char *dialect;
	size_t n;
	const char *body, *why;
} lies[] = {
	{"openai", 1, "", "empty"},
	{"openai", 1, "<html><body>Welcome</body></html>", "not JSON"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[0.5,", "not JSON"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[NaN,1]}]}", "not JSON"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[Infinity,1]}]}", "not JSON"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[-Infinity,1]}]}", "not JSON"},
	{"openai", 1, "{\"data\":[" D1 "]} trailing", "not JSON"},
	{"openai", 1, "{\"data\":[" D1 "],\"data\":[]}", "not JSON"},
	{"openai", 1, "null", "no list \"data\""},
	{"openai", 1, "7", "no list \"data\""},
	{"openai", 1, "{}", "no list \"data\""},
	{"openai", 1, "{\"data\":null}", "no list \"data\""},
	{"openai", 1, "{\"data\":{}}", "no list \"data\""},
	{"openai", 1, "{\"data\":[1,2]}", "no list \"data\""},
	{"openai", 1, "{\"data\":[]}", "0 vectors for 1"},
	{"openai", 2, "{\"data\":[" D1 "]}", "1 vectors for 2"},
	{"openai", 1, "{\"data\":[" D1 ",{\"index\":1,\"embedding\":[1,2]}]}", "2 vectors for 1"},
	{"openai", 2, "{\"data\":[" D1 "," D1 "]}", "index 0 came twice"},
	{"openai", 2, "{\"data\":[" D1 ",{\"index\":2,\"embedding\":[1,2]}]}", "index 2 of 2"},
	{"openai", 2, "{\"data\":[" D1 ",{\"index\":18446744073709551615,\"embedding\":[1,2]}]}", "of 2 inputs"},
	{"openai", 1, "{\"data\":[{\"index\":-1,\"embedding\":[1,2]}]}", "no whole number"},
	{"openai", 1, "{\"data\":[{\"index\":0.5,\"embedding\":[1,2]}]}", "no whole number"},
	{"openai", 1, "{\"data\":[{\"index\":\"0\",\"embedding\":[1,2]}]}", "no whole number"},
	{"openai", 2, "{\"data\":[" D1 ",{\"embedding\":[1,2]}]}", "some have none"},
	{"openai", 2, "{\"data\":[{\"embedding\":[1,2]}," D1 "]}", "some have none"},
	{"openai", 1, "{\"data\":[{\"index\":0}]}", "missing"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":null}]}", "missing"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[]}]}", "missing"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[1,null]}]}", "missing"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[1,\"NaN\"]}]}", "missing"},
	{"openai", 1, "{\"data\":[null]}", "missing"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[1]}]}", "1 dimensions, the space \"test/two@1\" has 2"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[1,2,3]}]}", "3 dimensions"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[1,1e39]}]}", "too large"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[0,0]}]}", "all zeros"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[0,-0.0]}]}", "all zeros"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[1e-60,0]}]}", "all zeros"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":\"\"}]}", "dimensions"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":\"AACAPw==\"}]}", "1 dimensions"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":\"AACAPwAAIMA*\"}]}", "not base64"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":\"AACAPwAAIMAA\"}]}", "not base64"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":\"AACAPwAAIM\"}]}", "not base64"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":\"AADAfwAAIMA=\"}]}", "NaN or infinity"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":\"AACAfwAAIMA=\"}]}", "NaN or infinity"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":\"AAAAAAAAAIA=\"}]}", "all zeros"},
	{"openai", 1, "{\"data\":[{\"index\":0,\"embedding\":[[1,2],[3,4]]}]}", "missing"},
	{"ollama", 1, "{\"model\":\"m\",\"embeddings\":[]}", "0 vectors for 1"},
	{"ollama", 1, "{\"embedding\":[1,2]}", "no list of vectors"},
	{"ollama", 2, "{\"embeddings\":[1,2]}", "no list of vectors"},
	{"ollama", 2, "{\"embeddings\":[[1,2],[3]]}", "vector 1 has 1 dimensions"},
	{"tei", 1, "[[[1,2]]]", "missing"},
	{"tei", 2, "[[1,2]]", "1 vectors for 2"},
	{"tei", 2, "[1,2]", "no list of vectors"},
	{"tei", 1, "{\"data\":[" D1 "]}", "no list of vectors"},
	{"tei", 1, "[]", "0 vectors for 1"},
};

static void test_parse_lying_replies_are_refused_whole(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
		struct vk_arena arena;
		struct vk_answer a;
		struct vk_verdict v;
		struct vk_error err = {0};
		vk_arena_init(&arena, 1 << 20);
		enum vk_status st = parse(lies[i].dialect, lies[i].n, vk_bytes_of(lies[i].body), 5, &arena, &a, &v, &err);
		if (st != VK_E_UPSTREAM || !strstr(err.text, lies[i].why)) fail_msg("row %zu %s: %d %s", i, lies[i].body, st, err.text);
		assert_null(a.rows);
		assert_null(a.tokens);
		assert_int_equal(v.fault, VK_FAULT_NONE);
		vk_arena_free(&arena);
	}
}

static void test_parse_error_inside_200_gets_a_verdict(void **state)
{
	(void)state;
	static const struct {
		const char *dialect, *body;
		enum vk_fault fault;
		const char *text;
	} rows[] = {
		{"openai", "{\"error\":{\"code\":429,\"message\":\"slow down\",\"metadata\":{}}}", VK_FAULT_TRANSIENT, "slow down"},
		{"openai", "{\"error\":{\"code\":402,\"message\":\"pay\"},\"data\":[" D1 "]}", VK_FAULT_BILLING, "pay"},
		{"openai", "{\"object\":\"error\",\"message\":\"too many tokens overall\",\"code\":\"3210\"}", VK_FAULT_SPLIT, "too many tokens overall"},
		{"ollama", "{\"error\":\"model is loading\"}", VK_FAULT_TRANSIENT, "model is loading"},
		{"tei", "{\"error\":\"Model is overloaded\",\"error_type\":\"Overloaded\"}", VK_FAULT_TRANSIENT, "Model is overloaded"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct vk_arena arena;
		struct vk_answer a;
		struct vk_verdict v;
		struct vk_error err;
		vk_arena_init(&arena, 1 << 20);
		assert_int_equal(parse(rows[i].dialect, 1, vk_bytes_of(rows[i].body), 0, &arena, &a, &v, &err), VK_E_UPSTREAM);
		assert_int_equal(v.fault, rows[i].fault);
		assert_string_equal(v.text, rows[i].text);
		assert_non_null(strstr(err.text, rows[i].text));
		assert_null(a.rows);
		vk_arena_free(&arena);
	}
}

static void test_parse_shares_add_up_exactly(void **state)
{
	(void)state;
	uint64_t rng = SEED;
	static const struct vk_provider p = {.name = "p"};
	static const char bytes[4096];
	for (int round = 0; round < 500; round++) {
		struct vk_call_item items[40];
		size_t n = 1 + vk_rng(&rng) % 40;
		char body[2000];
		int at = snprintf(body, sizeof body, "{\"embeddings\":[");
		for (size_t i = 0; i < n; i++) {
			items[i] = (struct vk_call_item){.text = {bytes, vk_rng(&rng) % sizeof bytes}};
			at += snprintf(body + at, sizeof body - (size_t)at, "%s[1,%zu]", i ? "," : "", i);
		}
		uint32_t total = (uint32_t)(vk_rng(&rng) >> (32 + vk_rng(&rng) % 30));
		snprintf(body + at, sizeof body - (size_t)at, "],\"prompt_eval_count\":%u}", total);
		struct vk_call call = {.provider = &p, .space = &space2, .role = &none, .model = "m", .items = items, .n = n};
		struct vk_arena arena;
		struct vk_answer a;
		struct vk_verdict v;
		vk_arena_init(&arena, 1 << 20);
		assert_int_equal(find("ollama")->parse(&call, vk_bytes_of(body), 0, &arena, &a, &v, NULL), VK_OK);
		uint64_t sum = 0, weights = 0;
		for (size_t i = 0; i < n; i++) sum += a.tokens[i], weights += items[i].text.n + 1;
		assert_int_equal(sum, total);
		for (size_t i = 0; i < n; i++) {
			double share = (double)total * (double)(items[i].text.n + 1) / (double)weights;
			assert_true(a.tokens[i] >= share - 1 && a.tokens[i] <= share + 1);
		}
		vk_arena_free(&arena);
	}
}

static void put_row(struct vk_buf *body, const float *row, size_t dims, bool base64)
{
	struct vk_jw w;
	vk_jw_init(&w, body);
	if (base64) vk_jw_base64(&w, row, dims * sizeof *row);
	else vk_jw_f32s(&w, row, dims);
}

/* Lists and base64 mixed, in a shuffled order, at dims around the paddings of base64. */
static void test_parse_random_rows_come_back_to_the_bit(void **state)
{
	(void)state;
	uint64_t rng = SEED;
	static const struct vk_provider p = {.name = "p"};
	for (uint32_t dims = 1; dims < 70; dims++) {
		struct vk_space space = {.id = "s", .dims = dims};
		enum { N = 9 };
		float rows[N][70];
		size_t order[N];
		struct vk_buf body;
		vk_buf_init(&body, 1 << 20);
		vk_buf_puts(&body, "{\"data\":[");
		for (size_t i = 0; i < N; i++) order[i] = i;
		for (size_t i = N - 1; i; i--) {
			size_t k = vk_rng(&rng) % (i + 1), t = order[i];
			order[i] = order[k];
			order[k] = t;
		}
		for (size_t i = 0; i < N; i++) {
			float *row = rows[order[i]];
			for (uint32_t k = 0; k < dims; k++) {
				uint32_t bits;
				do bits = (uint32_t)vk_rng(&rng); while ((bits & 0x7f800000) == 0x7f800000 || !(bits & 0x7f800000));
				memcpy(&row[k], &bits, 4);
			}
			vk_buf_printf(&body, "%s{\"index\":%zu,\"embedding\":", i ? "," : "", order[i]);
			put_row(&body, row, dims, vk_rng(&rng) % 2);
			vk_buf_putc(&body, '}');
		}
		vk_buf_puts(&body, "]}");
		struct vk_call call = {.provider = &p, .space = &space, .role = &none, .model = "m", .items = items_of(N), .n = N};
		struct vk_arena arena;
		struct vk_answer a;
		struct vk_verdict v;
		struct vk_error err = {0};
		vk_arena_init(&arena, 1 << 20);
		if (find("openai")->parse(&call, vk_buf_bytes(&body), 0, &arena, &a, &v, &err)) fail_msg("dims %u: %s", dims, err.text);
		for (size_t i = 0; i < N; i++) assert_memory_equal(a.rows + i * dims, rows[i], dims * sizeof(float));
		vk_arena_free(&arena);
		vk_buf_free(&body);
	}
}

int main(void)
{
	print_message("seed %u\n", SEED);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find_names_match_the_table),
		cmocka_unit_test(test_build_golden_requests),
		cmocka_unit_test(test_build_refuses_what_cannot_be_sent),
		cmocka_unit_test(test_parse_good_replies),
		cmocka_unit_test(test_parse_lying_replies_are_refused_whole),
		cmocka_unit_test(test_parse_error_inside_200_gets_a_verdict),
		cmocka_unit_test(test_parse_shares_add_up_exactly),
		cmocka_unit_test(test_parse_random_rows_come_back_to_the_bit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
