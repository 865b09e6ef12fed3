/*
 * Goal: paths reach what Qdrant's reach, edits mean what its payload operations mean, selection gives what
 * it gives, and what is not touched keeps its bytes. Method: tables by hand; and seeded random payloads,
 * paths and patches against a naive oracle: a small tree of values, edited by the book and printed,
 * compared with our edited text read into the same tree. VK_TEST_SEED replays.
 */
#include "tests/store/util.h"

#include "index/json_text.h"
#include "index/payload.h"

/* --- helpers --- */

struct doc {
	struct vk_arena a;
	struct vk_json *doc;
	const vk_jv *root;
};

static void doc_open(struct doc *d, struct vk_bytes text)
{
	struct vk_error err;
	vk_arena_init(&d->a, (size_t)64 << 20);
	if (vk_json_parse(&d->a, text, NULL, &d->doc, &err)) fail_msg("%s in %.*s", err.text, (int)text.n, text.p);
	d->root = vk_json_root(d->doc);
}

static void doc_close(struct doc *d)
{
	vk_json_free(d->doc);
	vk_arena_free(&d->a);
}

static void path_of(struct vk_path *p, const char *text)
{
	struct vk_error err;
	if (vk_path_parse(NULL, vk_bytes_of(text), p, &err)) fail_msg("%s", err.text);
}

static bool print_value(void *arg, const vk_jv *v)
{
	struct vk_jw w;
	if (((struct vk_buf *)arg)->n) vk_buf_putc(arg, ' ');
	vk_jw_init(&w, arg);
	vk_jw_value(&w, v);
	return true;
}

/* --- paths --- */

static void test_path_parse_takes_qdrants_grammar_alone(void **state)
{
	(void)state;
	static const char *const good[] = {"a", "a.b", "a[].b", "a[0]", "a[][1].c", "\"a.b\".c", "\"\"", "a-b_c", "\xc3\xa9t\xc3\xa9", "\"a b[]\"[]"};
	static const char *const bad[] = {"", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", "a]", "a b", "\"a", "\"a\"b", "[]", "a[]b",
					  "\"a\\\"b\"", "a.[]", "a[99999999999]",
					  "\"\xff\"", "a\xc3" /* no text: a merge would have written it as a key */};
	struct vk_path p;
	struct vk_error err;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_int_equal(vk_path_parse(NULL, vk_bytes_of(good[i]), &p, &err), VK_OK);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (vk_path_parse(NULL, vk_bytes_of(bad[i]), &p, &err) != VK_E_INVALID) fail_msg("%s was taken", bad[i]);
	char deep[200] = "a";
	for (int i = 0; i < 40; i++) strcat(deep, ".a");
	assert_int_equal(vk_path_parse(NULL, vk_bytes_of(deep), &p, &err), VK_E_INVALID);
}

static void test_path_reaches_values_in_order(void **state)
{
	(void)state;
	static const struct {
		const char *json, *path, *each, *values;
	} t[] = {
	    {"{\"a\":1}", "a", "1", "1"},
	    {"{\"a\":1}", "b", "", ""},
	    {"{\"a\":null}", "a", "null", "null"},
	    {"{\"a\":[1,2.50,3]}", "a", "[1,2.50,3]", "1 2.50 3"},
	    {"{\"a\":[1,2.50, 3 ]}", "a[]", "1 2.50 3", "1 2.50 3"},
	    {"{\"a\":[1,2.50,3]}", "a[1]", "2.50", "2.50"},
	    {"{\"a\":[1,2,3]}", "a[3]", "", ""},
	    {"{\"a\":[]}", "a", "[]", ""},
	    {"{\"a\":[\"x\",null,[4,5]]}", "a", "[\"x\",null,[4,5]]", "\"x\" null [4,5]"},
	    {"{\"a\":[\"x\",null,[4,5]]}", "a[]", "\"x\" null [4,5]", "\"x\" null 4 5"},
	    {"{\"a\":[{\"b\":1},{\"b\":[2,3]},{\"c\":4}]}", "a[].b", "1 [2,3]", "1 2 3"},
	    {"{\"a\":[{\"b\":1}]}", "a.b", "", ""},
	    {"{\"a\":{\"b\":1}}", "a[].b", "", ""},
	    {"{\"a.b\":{\"c\":7}}", "\"a.b\".c", "7", "7"},
	    {"{\"a\":{\"b\":{\"c\":true}}}", "a.b.c", "true", "true"},
	};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct doc d;
		struct vk_path p;
		struct vk_buf b;
		doc_open(&d, vk_bytes_of(t[i].json));
		path_of(&p, t[i].path);
		vk_buf_init(&b, 4096);
		vk_path_each(d.root, &p, print_value, &b);
		assert_string_equal(vk_buf_cstr(&b), t[i].each);
		b.n = 0;
		vk_path_values(d.root, &p, print_value, &b);
		assert_string_equal(vk_buf_cstr(&b), t[i].values);
		vk_buf_free(&b);
		doc_close(&d);
	}
}

/* --- edits by hand --- */

static void merged(struct vk_buf *out, const char *old, const char *patch, const char *at)
{
	struct doc d;
	struct vk_path p;
	struct vk_arena scratch;
	vk_arena_init(&scratch, 1 << 20);
	vk_buf_init(out, 1 << 20);
	doc_open(&d, vk_bytes_of(patch));
	if (at) path_of(&p, at);
	assert_int_equal(vk_payload_merge(out, &scratch, vk_bytes_of(old), d.root, at ? &p : NULL), VK_OK);
	doc_close(&d);
	vk_arena_free(&scratch);
}

static void test_payload_merge_keeps_the_bytes_of_what_stays(void **state)
{
	(void)state;
	static const struct {
		const char *old, *patch, *at, *want;
	} t[] = {
	    {"", "{\"a\":1}", NULL, "{\"a\":1}"},
	    {"{ \"a\" : 1.0e2 , \"b\":2}", "{\"b\":3,\"c\":[1, 2]}", NULL, "{\"a\" : 1.0e2,\"b\":3,\"c\":[1, 2]}"},
	    {"{\"a\":1,\"b\":2}", "{\"a\":null,\"z\":null}", NULL, "{\"b\":2}"},
	    {"{\"\\u0061\":1}", "{\"a\":2}", NULL, "{\"\\u0061\":2}"},
	    {"{\"a\":{\"x\": 1}}", "{\"y\":2}", "a", "{\"a\":{\"x\": 1,\"y\":2}}"},
	    {"{\"a\":5}", "{\"y\":2}", "a", "{\"a\":{\"y\":2}}"},
	    {"{}", "{\"y\":2}", "a.b", "{\"a\":{\"b\":{\"y\":2}}}"},
	    {"{\"a\":[{\"x\":1},7]}", "{\"y\":2}", "a[]", "{\"a\":[{\"x\":1,\"y\":2},{\"y\":2}]}"},
	    {"{\"a\":[{\"x\":1},7]}", "{\"y\":2}", "a[0]", "{\"a\":[{\"x\":1,\"y\":2},7]}"},
	    {"{\"a\":[{\"x\":1},7]}", "{\"y\":2}", "a[5].q", "{\"a\":[{\"x\":1},7]}"},
	    {"{\"a\":1}", "{\"y\":2}", "a[].q", "{\"a\":[]}"},
	    {"{\"a.b\":{}}", "{\"y\":2}", "\"a.b\"", "{\"a.b\":{\"y\":2}}"},
	    {"{\"k\":{\"d\":\"]}\\\\\\\"\"}}", "{\"y\":[]}", NULL, "{\"k\":{\"d\":\"]}\\\\\\\"\"},\"y\":[]}"},
	};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct vk_buf b;
		merged(&b, t[i].old, t[i].patch, t[i].at);
		assert_string_equal(vk_buf_cstr(&b), t[i].want);
		vk_buf_free(&b);
	}
}

static void test_payload_delete_takes_out_what_the_paths_reach(void **state)
{
	(void)state;
	static const struct {
		const char *old, *key[2], *want;
	} t[] = {
	    {"{ \"a\" : 1, \"b\": 2 }", {"a"}, "{\"b\": 2}"},
	    {"{\"a\":1}", {"a"}, "{}"},
	    {"", {"a"}, "{}"},
	    {"{\"a\":1}", {"a.b", "c"}, "{\"a\":1}"},
	    {"{\"a\":{\"b\":1,\"c\":2}}", {"a.b"}, "{\"a\":{\"c\":2}}"},
	    {"{\"a\":[1,2,3]}", {"a[1]"}, "{\"a\":[1,3]}"},
	    {"{\"a\":[1,2,3]}", {"a[]"}, "{\"a\":[]}"},
	    {"{\"a\":[{\"b\":1},{\"b\":2,\"c\":3}]}", {"a[].b"}, "{\"a\":[{},{\"c\":3}]}"},
	    {"{\"a\":[1,2,3]}", {"a[0]", "a[0]"}, "{\"a\":[3]}"},
	};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct vk_path p[2];
		struct vk_buf b;
		size_t n = 0;
		for (; n < 2 && t[i].key[n]; n++) path_of(&p[n], t[i].key[n]);
		vk_buf_init(&b, 4096);
		assert_int_equal(vk_payload_delete(&b, NULL, vk_bytes_of(t[i].old), p, n), VK_OK);
		assert_string_equal(vk_buf_cstr(&b), t[i].want);
		vk_buf_free(&b);
	}
}

static void test_payload_edit_of_damaged_text_is_an_error(void **state)
{
	(void)state;
	static const char *const bad[] = {"x", "[1]", "{\"a\"", "{\"a\":}", "{\"a\":1 \"b\":2}", "{\"a", "{a:1}", "{\"a\":\"\\"};
	struct vk_path p;
	path_of(&p, "a.b");
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct vk_buf b;
		vk_buf_init(&b, 4096);
		/* An exact copy on the heap: reading past its end is seen by the sanitizers. */
		size_t n = strlen(bad[i]);
		char *copy = malloc(n);
		memcpy(copy, bad[i], n);
		assert_int_equal(vk_payload_delete(&b, NULL, (struct vk_bytes){copy, n}, &p, 1), VK_E_CORRUPT);
		free(copy);
		vk_buf_free(&b);
	}
}

/* --- selection --- */

static void test_payload_select_includes_and_excludes_as_qdrant(void **state)
{
	(void)state;
	static const struct {
		const char *old, *include, *exclude, *want;
	} t[] = {
	    {"{ \"a\" : 1 }", NULL, NULL, "{ \"a\" : 1 }"},
	    {"{\"a\":1,\"b\":{\"c\":2,\"d\": 3}}", "a", NULL, "{\"a\":1}"},
	    {"{\"a\":1,\"b\":{\"c\":2,\"d\": 3}}", "b.d", NULL, "{\"b\":{\"d\": 3}}"},
	    {"{\"a\":1,\"b\":{\"c\":2,\"d\": 3}}", "z", NULL, "{}"},
	    {"{\"a\":[{\"b\":1,\"c\":2},{\"c\":3}]}", "a[].b", NULL, "{\"a\":[{\"b\":1},{}]}"},
	    {"{\"a\":[{\"b\":1,\"c\":2},{\"c\":3}]}", "a.b", NULL, "{\"a\":[]}"},
	    {"{\"a\":5}", "a.b", NULL, "{\"a\":5}"},
	    {"{\"a\":1,\"b\":{\"c\":2,\"d\": 3}}", NULL, "b.c", "{\"a\":1,\"b\":{\"d\": 3}}"},
	    {"{\"a\":1,\"b\":2}", NULL, "a", "{\"b\":2}"},
	    {"{\"a\":[{\"b\":1,\"c\":2}]}", NULL, "a[].b", "{\"a\":[{\"c\":2}]}"},
	};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct vk_path in, out;
		struct vk_payload_select sel = {.any = true};
		struct vk_arena scratch;
		struct vk_buf b;
		struct vk_jw w;
		if (t[i].include) path_of(&in, t[i].include), sel.include = &in, sel.include_n = 1;
		if (t[i].exclude) path_of(&out, t[i].exclude), sel.exclude = &out, sel.exclude_n = 1;
		vk_arena_init(&scratch, 1 << 20);
		vk_buf_init(&b, 4096);
		vk_jw_init(&w, &b);
		assert_int_equal(vk_payload_write(&w, &scratch, vk_bytes_of(t[i].old), &sel), VK_OK);
		assert_string_equal(vk_buf_cstr(&b), t[i].want);
		vk_buf_free(&b);
		vk_arena_free(&scratch);
	}
}

/* --- the oracle: a tree of values --- */

struct tree {
	char kind; /* o object, a array, v a scalar's text */
	char key[8], text[16];
	struct tree *child[12];
	int n;
};

static struct tree *tree_new(char kind)
{
	struct tree *t = calloc(1, sizeof *t);
	t->kind = kind;
	return t;
}

static void tree_free(struct tree *t)
{
	for (int i = 0; i < t->n; i++) tree_free(t->child[i]);
	free(t);
}

static void tree_clear(struct tree *t, char kind)
{
	for (int i = 0; i < t->n; i++) tree_free(t->child[i]);
	t->n = 0;
	t->kind = kind;
}

static void tree_remove(struct tree *t, int i)
{
	tree_free(t->child[i]);
	memmove(&t->child[i], &t->child[i + 1], (size_t)(--t->n - i) * sizeof t->child[0]);
}

static int tree_find(const struct tree *t, const char *key)
{
	for (int i = 0; i < t->n; i++)
		if (!strcmp(t->child[i]->key, key)) return i;
	return -1;
}

static struct tree *tree_copy(const struct tree *t)
{
	struct tree *c = malloc(sizeof *c);
	*c = *t;
	for (int i = 0; i < t->n; i++) c->child[i] = tree_copy(t->child[i]);
	return c;
}

static const char *const keys[] = {"a", "b", "c", "d.e"};

static struct tree *tree_random(uint64_t *rng, int depth, char kind)
{
	static const char *const scalars[] = {"1", "-2.50", "\"x\"", "null", "true", "\"}\\\",\"", "1e3"};
	if (!kind) kind = depth > 3 ? 'v' : "oav"[vk_rng(rng) % 3];
	struct tree *t = tree_new(kind);
	if (kind == 'v') strcpy(t->text, scalars[vk_rng(rng) % 7]);
	for (int i = 0, n = kind == 'v' ? 0 : (int)(vk_rng(rng) % 4); i < n; i++) {
		const char *key = keys[vk_rng(rng) % 4];
		if (kind == 'o' && tree_find(t, key) >= 0) continue;
		struct tree *c = tree_random(rng, depth + 1, 0);
		if (kind == 'o') strcpy(c->key, key);
		t->child[t->n++] = c;
	}
	return t;
}

/* space: sprinkles white space, as a client's text may have it. */
static void tree_print(const struct tree *t, struct vk_buf *b, uint64_t *space)
{
#define GAP() (space && vk_rng(space) % 3 == 0 ? vk_buf_putc(b, " \t\n"[vk_rng(space) % 3]) : (void)0)
	if (t->kind == 'v') {
		vk_buf_puts(b, t->text);
		return;
	}
	vk_buf_putc(b, t->kind == 'o' ? '{' : '[');
	for (int i = 0; i < t->n; i++) {
		if (i) vk_buf_putc(b, ',');
		GAP();
		if (t->kind == 'o') vk_buf_printf(b, "\"%s\"", t->child[i]->key);
		if (t->kind == 'o') {
			GAP();
			vk_buf_putc(b, ':');
		}
		GAP();
		tree_print(t->child[i], b, space);
		GAP();
	}
	vk_buf_putc(b, t->kind == 'o' ? '}' : ']');
#undef GAP
}

static void tree_merge(struct tree *t, const struct tree *patch)
{
	if (t->kind != 'o') tree_clear(t, 'o');
	for (int i = 0; i < patch->n; i++) {
		int at = tree_find(t, patch->child[i]->key);
		bool null = patch->child[i]->kind == 'v' && !strcmp(patch->child[i]->text, "null");
		if (null && at >= 0) tree_remove(t, at);
		if (null) continue;
		struct tree *c = tree_copy(patch->child[i]);
		if (at >= 0) {
			tree_free(t->child[at]);
			t->child[at] = c;
		} else {
			t->child[t->n++] = c;
		}
	}
}

struct step {
	const char *key;
	int index;
};

static void tree_set(struct tree *t, const struct step *s, int n, const struct tree *patch)
{
	if (!n) {
		tree_merge(t, patch);
		return;
	}
	if (s->key) {
		if (t->kind != 'o') tree_clear(t, 'o');
		int at = tree_find(t, s->key);
		if (at < 0) {
			struct tree *c = tree_new('v');
			strcpy(c->key, s->key);
			strcpy(c->text, "null");
			t->child[at = t->n++] = c;
		}
		tree_set(t->child[at], s + 1, n - 1, patch);
		return;
	}
	if (t->kind != 'a') tree_clear(t, 'a');
	for (int i = 0; i < t->n; i++)
		if (s->index < 0 || s->index == i) tree_set(t->child[i], s + 1, n - 1, patch);
}

static void tree_delete(struct tree *t, const struct step *s, int n)
{
	if (t->kind != (s->key ? 'o' : 'a')) return;
	for (int i = t->n - 1; i >= 0; i--) {
		if (s->key ? strcmp(t->child[i]->key, s->key) != 0 : s->index >= 0 && s->index != i) continue;
		if (n == 1) tree_remove(t, i);
		else tree_delete(t->child[i], s + 1, n - 1);
	}
}

static int random_path(uint64_t *rng, struct step s[4], char text[64])
{
	int n = 1 + (int)(vk_rng(rng) % 4);
	*text = 0;
	for (int i = 0; i < n; i++) {
		s[i] = (struct step){NULL, (int)(vk_rng(rng) % 4) - 1};
		if (!i || vk_rng(rng) % 2) s[i].key = keys[vk_rng(rng) % 4];
		char *end = text + strlen(text);
		if (s[i].key) sprintf(end, "%s\"%s\"", i ? "." : "", s[i].key);
		else if (s[i].index < 0) strcpy(end, "[]");
		else sprintf(end, "[%d]", s[i].index);
	}
	return n;
}

/* Both texts without white space outside strings must be the same: printed by the JSON room's own reader
 * and writer. */
static void same_json(struct vk_bytes got, struct vk_bytes want, const char *what)
{
	struct doc x, y;
	struct vk_buf a, b;
	struct vk_jw w;
	doc_open(&x, got);
	doc_open(&y, want);
	vk_buf_init(&a, 1 << 20);
	vk_buf_init(&b, 1 << 20);
	vk_jw_init(&w, &a);
	vk_jw_value(&w, x.root);
	vk_jw_init(&w, &b);
	vk_jw_value(&w, y.root);
	for (struct vk_buf *p = &a;; p = &b) { /* lifted arrays keep their white space */
		size_t n = 0;
		for (size_t i = 0; i < p->n; i++)
			if (!strchr(" \t\n", p->p[i])) p->p[n++] = p->p[i];
		p->n = n;
		if (p == &b) break;
	}
	if (!vk_bytes_eq(vk_buf_bytes(&a), vk_buf_bytes(&b)))
		fail_msg("%s: got %.*s want %.*s", what, (int)a.n, a.p, (int)b.n, b.p);
	vk_buf_free(&a);
	vk_buf_free(&b);
	doc_close(&x);
	doc_close(&y);
}

static void test_payload_random_edits_agree_with_the_tree(void **state)
{
	(void)state;
	uint64_t rng = test_seed("payload_edits");
	struct vk_arena scratch;
	vk_arena_init(&scratch, (size_t)64 << 20);
	for (int round = 0; round < 20000; round++) {
		struct tree *t = tree_random(&rng, 0, 'o'), *patch = tree_random(&rng, 1, 'o');
		struct step s[4];
		struct vk_path p;
		struct vk_buf old, text, got, want;
		struct doc d;
		char path[64];
		int n = random_path(&rng, s, path);
		bool top = vk_rng(&rng) % 4 == 0, del = vk_rng(&rng) % 2;
		path_of(&p, path);
		vk_buf_init(&old, 1 << 20), vk_buf_init(&text, 1 << 20), vk_buf_init(&got, 1 << 20), vk_buf_init(&want, 1 << 20);
		tree_print(t, &old, &rng);
		tree_print(patch, &text, &rng);
		doc_open(&d, vk_buf_bytes(&text));
		if (del) {
			assert_int_equal(vk_payload_delete(&got, &scratch, vk_buf_bytes(&old), &p, 1), VK_OK);
			tree_delete(t, s, n);
		} else {
			assert_int_equal(vk_payload_merge(&got, &scratch, vk_buf_bytes(&old), d.root, top ? NULL : &p), VK_OK);
			tree_set(t, s, top ? 0 : n, patch);
		}
		tree_print(t, &want, NULL);
		same_json(vk_buf_bytes(&got), vk_buf_bytes(&want), path);
		doc_close(&d);
		vk_buf_free(&old), vk_buf_free(&text), vk_buf_free(&got), vk_buf_free(&want);
		tree_free(t);
		tree_free(patch);
		vk_arena_reset(&scratch);
	}
	vk_arena_free(&scratch);
}

static void test_json_text_keys_compare_unescaped(void **state)
{
	(void)state;
	static const struct {
		const char *quoted, *name;
		bool same;
	} t[] = {
	    {"\"a\"", "a", true},	      {"\"a\"", "b", false},	 {"\"\\u0061\\n\"", "a\n", true},
	    {"\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80", true}, {"\"\\u00e9\"", "\xc3\xa9", true}, {"\"\\u20ac\"", "\xe2\x82\xac", true},
	    {"\"\\\"\\\\\\/\"", "\"\\/", true}, {"\"a\\n\"", "a", false}, {"\"\"", "", true}, {"\"a\"", "ab", false},
	};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++)
		assert_int_equal(vk_jt_key_is(vk_bytes_of(t[i].quoted), vk_bytes_of(t[i].name)), t[i].same);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_path_parse_takes_qdrants_grammar_alone),
	    cmocka_unit_test(test_path_reaches_values_in_order),
	    cmocka_unit_test(test_payload_merge_keeps_the_bytes_of_what_stays),
	    cmocka_unit_test(test_payload_delete_takes_out_what_the_paths_reach),
	    cmocka_unit_test(test_payload_edit_of_damaged_text_is_an_error),
	    cmocka_unit_test(test_payload_select_includes_and_excludes_as_qdrant),
	    cmocka_unit_test(test_payload_random_edits_agree_with_the_tree),
	    cmocka_unit_test(test_json_text_keys_compare_unescaped),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
