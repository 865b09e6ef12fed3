/*
 * Goal: the known providers and models inside the program are complete and unambiguous, so
 * that {"providers": {"openai": {}}} is a configuration.
 * Method: parse the embedded text and hold every entry against docs/models.md: required
 * fields, closed lists of field names (a misspelt field is a field that nobody reads), no
 * alias twice, hops that name providers, prices with dates.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/json.h"
#include "embed/data.h"

static struct vk_arena arena;
static struct vk_json *doc;
static const vk_jv *providers, *spaces;

#define EACH(v, object) (const vk_jv *v = vk_jv_first(object); v; v = vk_jv_next(v))

static struct vk_bytes str(const vk_jv *object, const char *key)
{
	struct vk_bytes s = {0};
	if (!vk_jv_str(vk_jv_get(object, key), &s) || s.n == 0) {
		struct vk_bytes name = vk_jv_key(object);
		fail_msg("%.*s: no text in \"%s\"", (int)name.n, name.p, key);
	}
	return s;
}

static uint64_t num(const vk_jv *object, const char *key)
{
	uint64_t n = 0;
	if (!vk_jv_u64(vk_jv_get(object, key), &n) || n == 0) {
		struct vk_bytes name = vk_jv_key(object);
		fail_msg("%.*s: no number above 0 in \"%s\"", (int)name.n, name.p, key);
	}
	return n;
}

static bool flag(const vk_jv *object, const char *key)
{
	bool b = false;
	const vk_jv *v = vk_jv_get(object, key);
	if (v) assert_true(vk_jv_bool(v, &b));
	return b;
}

static bool is_one_of(struct vk_bytes s, const char *const *list)
{
	while (*list && !vk_bytes_is(s, *list)) list++;
	return *list != NULL;
}

/* Every member's name is in the list; what `unconfirmed` names is a member. */
static void assert_fields(const vk_jv *object, const char *const *known)
{
	struct vk_bytes name = vk_jv_key(object);
	for EACH (v, object) {
		struct vk_bytes key = vk_jv_key(v);
		if (!is_one_of(key, known))
			fail_msg("%.*s: what is \"%.*s\"?", (int)name.n, name.p, (int)key.n, key.p);
	}
	for EACH (v, vk_jv_get(object, "unconfirmed")) {
		struct vk_bytes mark = {0};
		assert_true(vk_jv_str(v, &mark));
		assert_false(vk_bytes_is(mark, "matryoshka")); /* certain, or dims_offered */
		char field[32];
		const char *dot = memchr(mark.p, '.', mark.n);
		snprintf(field, sizeof field, "%.*s", dot ? (int)(dot - mark.p) : (int)mark.n, mark.p);
		if (!vk_jv_get(object, field))
			fail_msg("%.*s: unconfirmed names \"%s\", which is not there", (int)name.n,
				 name.p, field);
	}
}

static const vk_jv *find(const vk_jv *object, struct vk_bytes key)
{
	for EACH (v, object) {
		if (vk_bytes_eq(vk_jv_key(v), key)) return v;
	}
	return NULL;
}

static void test_providers_all_have_what_a_call_needs(void **state)
{
	(void)state;
	static const char *const known[] = {"dialect",	 "base_url",   "key_variable", "labels",
					    "caps",	 "tokens_ok",  "base64",       "dims_field",
					    "role_field", "role_values", "extra_body",  "note",
					    "unconfirmed", NULL};
	static const char *const caps[] = {"items", "tokens", "tokens_input", "bytes", NULL};
	assert_true(vk_jv_len(providers) >= 9);
	for EACH (p, providers) {
		assert_fields(p, known);
		assert_true(vk_bytes_is(str(p, "dialect"), "openai"));
		struct vk_bytes url = str(p, "base_url");
		assert_true(url.n > 8 && memcmp(url.p, "https://", 8) == 0);
		assert_int_not_equal(url.p[url.n - 1], '/');
		for (struct vk_bytes k = str(p, "key_variable"); k.n; k.p++, k.n--)
			assert_true((*k.p >= 'A' && *k.p <= 'Z') || *k.p == '_');
		assert_true(vk_jv_len(vk_jv_get(p, "labels")) > 0);
		assert_fields(vk_jv_get(p, "caps"), caps);
		num(vk_jv_get(p, "caps"), "items");
		assert_non_null(vk_jv_get(p, "dims_field"));
		assert_int_equal(!vk_jv_get(p, "role_field"), !vk_jv_get(p, "role_values"));
		const vk_jv *extra = vk_jv_get(p, "extra_body");
		assert_true(!extra || (vk_jv_type(extra) == VK_J_OBJECT && vk_jv_len(extra)));
	}
}

static void check_price(const vk_jv *price)
{
	static const char *const known[] = {"per_mtok", "currency", "date", "source", NULL};
	double amount = -1;
	assert_fields(price, known);
	assert_true(vk_jv_f64(vk_jv_get(price, "per_mtok"), &amount));
	assert_true(amount > 0 && amount < 100);
	assert_int_equal(str(price, "currency").n, 3);
	struct vk_bytes date = str(price, "date");
	assert_int_equal(date.n, 10);
	for (size_t i = 0; i < 10; i++)
		assert_true(i == 4 || i == 7 ? date.p[i] == '-' : date.p[i] >= '0' && date.p[i] <= '9');
	str(price, "source");
}

static void check_route(const vk_jv *space)
{
	static const char *const known[] = {"provider", "model", "price", "caps", "note",
					    "unconfirmed", NULL};
	const vk_jv *route = vk_jv_get(space, "route"), *weights = vk_jv_get(space, "weights");
	assert_int_equal(vk_jv_type(route), VK_J_ARRAY);
	assert_true(vk_jv_len(route) > 0 || weights);
	for EACH (hop, route) {
		assert_fields(hop, known);
		str(hop, "model");
		const vk_jv *p = find(providers, str(hop, "provider"));
		assert_non_null(p);
		for EACH (other, route) {
			if (other == hop) break;
			assert_false(vk_bytes_eq(str(other, "provider"), str(hop, "provider")));
		}
		if (vk_jv_get(hop, "price")) check_price(vk_jv_get(hop, "price"));
		/* A provider that wants the role in a field must find a word for each. */
		for EACH (role, vk_jv_get(space, "roles")) {
			if (vk_jv_get(role, "value")) assert_non_null(vk_jv_get(p, "role_field"));
		}
	}
	if (weights) {
		static const char *const fields[] = {"repo", "revision", "pooling", NULL};
		assert_fields(weights, fields);
		str(weights, "repo");
		str(weights, "pooling");
		assert_non_null(vk_jv_get(weights, "revision"));
	}
}

static void check_dims(const vk_jv *space)
{
	static const char *const offered[] = {"allowed", "min", "max", NULL};
	uint64_t dims = num(space, "dims");
	assert_true(dims >= 64 && dims <= 8192);
	/* A cut space says how far; nothing else may. */
	assert_int_equal(!vk_jv_get(space, "dims_min"), !flag(space, "matryoshka"));
	if (flag(space, "matryoshka")) assert_true(num(space, "dims_min") < dims);
	const vk_jv *offer = vk_jv_get(space, "dims_offered");
	if (!offer) return;
	assert_fields(offer, offered);
	assert_int_equal(!vk_jv_get(offer, "allowed"), !!vk_jv_get(offer, "min"));
	if (vk_jv_get(offer, "min")) assert_true(num(offer, "min") < num(offer, "max"));
	else assert_int_equal(vk_jv_type(vk_jv_get(offer, "allowed")), VK_J_NUMBERS);
}

static void check_roles(const vk_jv *space)
{
	const vk_jv *roles = vk_jv_get(space, "roles");
	assert_int_equal(vk_jv_type(roles), VK_J_OBJECT);
	if (!vk_jv_len(roles)) {
		assert_null(vk_jv_get(space, "role_required"));
		return;
	}
	assert_non_null(vk_jv_get(roles, "query"));
	assert_non_null(vk_jv_get(roles, "document"));
	assert_null(vk_jv_get(roles, "none"));
	for EACH (role, roles) {
		struct vk_bytes s;
		bool value = vk_jv_str(vk_jv_get(role, "value"), &s);
		bool prefix = vk_jv_str(vk_jv_get(role, "prefix"), &s);
		assert_true(value != prefix);
		assert_int_equal(vk_jv_len(role), 1);
	}
}

static void test_spaces_all_have_what_an_answer_needs(void **state)
{
	(void)state;
	static const char *const known[] = {
		"dims",	      "matryoshka",	"dims_min", "dims_offered", "tokens_max",
		"normalised", "tokenizer",	"truncation", "roles",	    "role_required",
		"weights",    "aliases",	"route",    "unconfirmed",  "note",
		NULL};
	static const char *const truncation[] = {"error", "cut", NULL};
	assert_true(vk_jv_len(spaces) >= 40);
	for EACH (s, spaces) {
		struct vk_bytes id = vk_jv_key(s);
		assert_fields(s, known);
		const char *at = memchr(id.p, '@', id.n), *slash = memchr(id.p, '/', id.n);
		assert_true(at && slash && slash > id.p && slash < at && at + 1 < id.p + id.n);
		assert_true(num(s, "tokens_max") >= 256);
		check_dims(s);
		check_roles(s);
		check_route(s);
		if (vk_jv_get(s, "tokenizer")) assert_true(vk_bytes_is(str(s, "tokenizer"), "cl100k"));
		if (vk_jv_get(s, "truncation")) assert_true(is_one_of(str(s, "truncation"), truncation));
	}
}

static void test_aliases_each_name_one_space(void **state)
{
	(void)state;
	size_t names = 0;
	for EACH (s, spaces) {
		assert_true(vk_jv_len(vk_jv_get(s, "aliases")) > 0);
		for EACH (a, vk_jv_get(s, "aliases")) {
			struct vk_bytes name = {0};
			size_t seen = 0;
			assert_true(vk_jv_str(a, &name) && name.n > 0);
			assert_null(memchr(name.p, '#', name.n)); /* name#role is the grammar */
			assert_null(memchr(name.p, '@', name.n)); /* ids have it, names not */
			for EACH (s2, spaces) {
				for EACH (a2, vk_jv_get(s2, "aliases")) {
					struct vk_bytes other = {0};
					seen += vk_jv_str(a2, &other) && vk_bytes_eq(name, other);
				}
			}
			if (seen != 1) fail_msg("%.*s: %zu times", (int)name.n, name.p, seen);
			names++;
		}
	}
	assert_true(names > vk_jv_len(spaces));
}

static void test_openai_alone_serves_its_models(void **state)
{
	(void)state;
	static const struct {
		const char *id, *model;
		uint64_t dims;
		bool matryoshka;
	} want[] = {
		{"openai/text-embedding-3-small@1", "text-embedding-3-small", 1536, true},
		{"openai/text-embedding-3-large@1", "text-embedding-3-large", 3072, true},
		{"openai/text-embedding-ada-002@2", "text-embedding-ada-002", 1536, false},
	};
	for (size_t i = 0; i < 3; i++) {
		const vk_jv *s = vk_jv_get(spaces, want[i].id), *hop;
		assert_non_null(s);
		assert_int_equal(num(s, "dims"), want[i].dims);
		assert_int_equal(flag(s, "matryoshka"), want[i].matryoshka);
		assert_true(vk_bytes_is(str(s, "tokenizer"), "cl100k"));
		assert_int_equal(vk_jv_len(vk_jv_get(s, "roles")), 0);
		hop = vk_jv_first(vk_jv_get(s, "route"));
		assert_true(vk_bytes_is(str(hop, "provider"), "openai"));
		assert_true(vk_bytes_is(str(hop, "model"), want[i].model));
		assert_non_null(vk_jv_get(hop, "price"));
	}
}

static int setup(void **state)
{
	(void)state;
	struct vk_error err = {0};
	vk_arena_init(&arena, 8 << 20);
	if (vk_json_parse(&arena, (struct vk_bytes){vk_data_models_json, vk_data_models_json_size},
			  NULL, &doc, &err)) {
		print_error("models.json: %s\n", err.text);
		return -1;
	}
	providers = vk_jv_get(vk_json_root(doc), "providers");
	spaces = vk_jv_get(vk_json_root(doc), "spaces");
	uint64_t version = 0;
	vk_jv_u64(vk_jv_get(vk_json_root(doc), "version"), &version);
	return providers && spaces && version == 1 ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	vk_json_free(doc);
	vk_arena_free(&arena);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_providers_all_have_what_a_call_needs),
		cmocka_unit_test(test_spaces_all_have_what_an_answer_needs),
		cmocka_unit_test(test_aliases_each_name_one_space),
		cmocka_unit_test(test_openai_alone_serves_its_models),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
