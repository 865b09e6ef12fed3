/*
 * Goal: what a point carries besides rows and payload is kept, found and let go of as it should: sparse vectors beside
 * dense ones, and texts in all the places that vk_view_text() knows. Method: small collections, each step's outcome said
 * here by hand; random steps are test_collection_model.c's. Each collection is checked whole at its end.
 */
#include "tests/index/collection_util.h"

#include <math.h>

#include "index/tables.h"

#define TWO "\"a\":{\"size\":2,\"distance\":\"Dot\",\"veckeep\":{\"set\":1}},\"b\":{\"size\":2,\"distance\":\"Dot\",\"veckeep\":{\"set\":2}}"
#define CONFIG(vectors, sparse, from) \
	"{\"vectors\":{" vectors "},\"sparse_vectors\":{" sparse "},\"indexes\":{},\"veckeep\":{\"text_from\":" from ",\"next_set\":5,\"next_field\":1}}"
#define WORDS "\"words\":{\"modifier\":\"idf\",\"veckeep\":{\"set\":3}}"

static const float row[2] = {1, 2};

/* One operation on point `id`: vectors by name (text NULL: a raw row), and sparse `words` with n entries. */
struct call {
	struct mem m;
	uint8_t key[9];
	struct vk_vec vec[4];
	struct vk_point_in point;
	struct vk_op_in op;
	struct vk_write w;
};

static void call_init(struct fix *f, struct call *c, enum vk_op_kind kind, uint64_t id, const char *payload)
{
	*c = (struct call){.op = {.kind = kind}, .w = {.op_n = 1, .conf = vk_collection_config(f->c), .now_ms = 1700000000000}};
	mem_init(&c->m);
	c->w.op = &c->op;
	vk_id_u64(c->key, id);
	c->point = (struct vk_point_in){.id = {(char *)c->key, 9}, .vec = c->vec};
	c->op.point = &c->point;
	c->op.point_n = 1;
	if (!payload) return;
	c->point.payload = vk_bytes_of(payload);
	c->point.payload_jv = mem_json(&c->m, c->point.payload);
}

static void call_vector(struct call *c, const char *name, const char *text)
{
	c->vec[c->point.vec_n++] = (struct vk_vec){
	    .conf = vk_colconf_vector(c->w.conf, vk_bytes_of(name)), .row = row, .text = text ? vk_bytes_of(text) : (struct vk_bytes){0}};
}

static void call_sparse(struct call *c, const uint32_t *index, const float *value, uint32_t n)
{
	c->vec[c->point.vec_n++] =
	    (struct vk_vec){.conf = vk_colconf_named(c->w.conf, VK_LIT("words")), .row = value, .index = index, .n = n};
}

static enum vk_status call_end(struct fix *f, struct call *c)
{
	enum vk_status st = vk_collection_write_wait(f->c, &c->w);
	vk_colconf_unref(c->w.conf);
	mem_free(&c->m);
	return st;
}

static enum vk_status put_text(struct fix *f, uint64_t id, const char *text, const char *payload)
{
	struct call c;
	call_init(f, &c, VK_OP_UPSERT, id, payload);
	call_vector(&c, "a", text);
	return call_end(f, &c);
}

/* What vk_view_text() says of point `id`, vector `name`; NULL: it must not find one. */
static void expect_text(struct fix *f, uint64_t id, const char *name, const char *want)
{
	struct vk_view v;
	struct vk_arena a;
	struct vk_bytes text;
	uint8_t key[9];
	uint32_t slot;
	vk_id_u64(key, id);
	vk_arena_init(&a, 1 << 20);
	assert_int_equal(vk_view_begin(f->c, 1700000000000, &v), VK_OK);
	assert_int_equal(vk_view_slot(&v, (struct vk_bytes){(char *)key, 9}, &slot), VK_OK);
	enum vk_status st = vk_view_text(&v, slot, vk_colconf_vector(v.conf, vk_bytes_of(name)), &a, &text);
	vk_view_end(&v); /* the text is the arena's */
	assert_int_equal(st, want ? VK_OK : VK_E_NOT_FOUND);
	if (want && !vk_bytes_is(text, want)) fail_msg("text %.*s, not %s", (int)text.n, text.p, want);
	vk_arena_free(&a);
}

static uint64_t kept(struct fix *f)
{
	return fix_stats(f).texts;
}

static void test_text_without_payload_is_kept_beside_the_point(void **state)
{
	(void)state;
	struct fix f;
	struct call c;
	fix_open(&f, CONFIG(TWO, "", "null"));
	assert_int_equal(put_text(&f, 1, "first", NULL), VK_OK);
	assert_int_equal(put_text(&f, 2, "", "{\"n\":1}"), VK_OK); /* an empty text is one */
	expect_text(&f, 1, "a", "first");
	expect_text(&f, 2, "a", "");
	expect_text(&f, 1, "b", NULL); /* of one vector, not of the point */
	assert_int_equal(kept(&f), 2);
	/* Another text, then a raw row in its place. */
	call_init(&f, &c, VK_OP_VECTORS_UPDATE, 1, NULL);
	call_vector(&c, "a", "second");
	call_vector(&c, "b", "other");
	assert_int_equal(call_end(&f, &c), VK_OK);
	expect_text(&f, 1, "a", "second");
	expect_text(&f, 1, "b", "other");
	call_init(&f, &c, VK_OP_VECTORS_UPDATE, 1, NULL);
	call_vector(&c, "a", NULL);
	assert_int_equal(call_end(&f, &c), VK_OK);
	expect_text(&f, 1, "a", NULL);
	expect_text(&f, 1, "b", "other");
	/* The point replaced: what is not named goes. */
	assert_int_equal(put_text(&f, 1, NULL, NULL), VK_OK);
	expect_text(&f, 1, "b", NULL);
	assert_int_equal(kept(&f), 1);
	fix_close(&f);
}

static void test_text_that_the_payload_holds_is_not_stored_twice(void **state)
{
	(void)state;
	struct fix f;
	struct call c;
	fix_open(&f, CONFIG(TWO, "", "\"doc.body\""));
	assert_int_equal(put_text(&f, 1, "same", "{\"doc\":{\"body\":\"same\"}}"), VK_OK);
	assert_int_equal(kept(&f), 0);
	expect_text(&f, 1, "a", "same");
	/* Beside another text it is kept, and goes before it. */
	assert_int_equal(put_text(&f, 2, "mine", "{\"doc\":{\"body\":\"theirs\"},\"text\":\"mine\"}"), VK_OK);
	assert_int_equal(kept(&f), 1);
	expect_text(&f, 2, "a", "mine");
	expect_text(&f, 2, "b", "theirs"); /* a raw row's only source */
	/* Vectors updated: the payload that is there counts. */
	call_init(&f, &c, VK_OP_VECTORS_UPDATE, 2, NULL);
	call_vector(&c, "a", "theirs");
	assert_int_equal(call_end(&f, &c), VK_OK);
	assert_int_equal(kept(&f), 0);
	expect_text(&f, 2, "a", "theirs");
	/* What is no string is no text. */
	assert_int_equal(put_text(&f, 3, NULL, "{\"doc\":{\"body\":[\"x\"]}}"), VK_OK);
	expect_text(&f, 3, "a", NULL);
	fix_close(&f);
}

static void test_text_inside_a_llamaindex_node_is_found(void **state)
{
	(void)state;
	struct fix f;
	static const char node[] = "{\"_node_content\":\"{\\\"id_\\\":\\\"7\\\",\\\"text\\\":\\\"a \\\\\\\"node\\\\\\\"\\\"}\"}";
	fix_open(&f, CONFIG(TWO, "", "\"_node_content\""));
	assert_int_equal(put_text(&f, 1, NULL, node), VK_OK);
	expect_text(&f, 1, "a", "a \"node\"");
	assert_int_equal(put_text(&f, 2, "a \"node\"", node), VK_OK);
	assert_int_equal(kept(&f), 0);
	expect_text(&f, 2, "a", "a \"node\"");
	/* Not JSON, JSON without a text: no text, and no error. */
	assert_int_equal(put_text(&f, 3, NULL, "{\"_node_content\":\"{\"}"), VK_OK);
	assert_int_equal(put_text(&f, 4, NULL, "{\"_node_content\":\"{\\\"text\\\":4}\"}"), VK_OK);
	expect_text(&f, 3, "a", NULL);
	expect_text(&f, 4, "a", NULL);
	fix_close(&f);
}

struct swap {
	const char *from, *to;
};

static enum vk_status swap_edit(void *arg, const struct vk_colconf *now, struct vk_buf *json, struct vk_error *err)
{
	struct swap *s = arg;
	const char *at = memmem(now->text.p, now->text.n, s->from, strlen(s->from));
	(void)err;
	assert_non_null(at);
	vk_buf_put(json, now->text.p, (size_t)(at - now->text.p));
	vk_buf_puts(json, s->to);
	at += strlen(s->from);
	vk_buf_put(json, at, (size_t)(now->text.p + now->text.n - at));
	return VK_OK;
}

static void swap(struct fix *f, const char *from, const char *to)
{
	struct vk_error err = {0};
	if (vk_collection_configure(f->c, swap_edit, &(struct swap){from, to}, true, &err)) fail_msg("%s", err.text);
}

static void test_text_noted_before_text_from_is_known_is_found_after(void **state)
{
	(void)state;
	struct fix f;
	fix_open(&f, CONFIG(TWO, "", "null"));
	assert_int_equal(put_text(&f, 1, "hello", "{\"document\":\"hello\"}"), VK_OK);
	assert_int_equal(put_text(&f, 2, "kept", "{\"document\":\"other\"}"), VK_OK);
	assert_int_equal(put_text(&f, 3, NULL, "{\"document\":\"raw\"}"), VK_OK);
	expect_text(&f, 1, "a", "hello");
	expect_text(&f, 3, "a", NULL); /* nobody said that this is its text */
	swap(&f, "\"text_from\":null", "\"text_from\":\"page_content\"");
	expect_text(&f, 1, "a", "hello");
	expect_text(&f, 2, "a", "kept");
	expect_text(&f, 3, "a", NULL);
	swap(&f, "\"text_from\":\"page_content\"", "\"text_from\":\"document\"");
	expect_text(&f, 3, "a", "raw");
	fix_close(&f);
}

/* --- sparse vectors --- */

static bool see_mask(void *arg, const struct vk_change *ch)
{
	*(uint64_t *)arg = ch->mask;
	return true;
}

static void expect_sparse(struct fix *f, uint64_t id, const uint32_t *index, const float *value, int n)
{
	struct vk_view v;
	struct vk_arena a;
	struct vk_sparse s;
	struct vk_bitmap *has;
	uint8_t key[9];
	uint32_t slot;
	vk_id_u64(key, id);
	vk_arena_init(&a, 1 << 20);
	assert_int_equal(vk_view_begin(f->c, 1700000000000, &v), VK_OK);
	const struct vk_vector_conf *conf = vk_colconf_named(v.conf, VK_LIT("words"));
	assert_int_equal(vk_view_slot(&v, (struct vk_bytes){(char *)key, 9}, &slot), VK_OK);
	assert_int_equal(vk_view_sparse(&v, slot, conf, &a, &s), n < 0 ? VK_E_NOT_FOUND : VK_OK);
	assert_int_equal(vk_field_has_set(v.t, conf->set.id, &has), VK_OK);
	assert_int_equal(vk_bitmap_has(has, slot), n >= 0);
	vk_bitmap_free(has);
	if (n >= 0) {
		assert_int_equal(s.n, n);
		if (n) assert_memory_equal(s.index, index, (size_t)n * sizeof *index);
		if (n) assert_memory_equal(s.value, value, (size_t)n * sizeof *value);
	}
	vk_view_end(&v);
	vk_arena_free(&a);
}

static void test_sparse_vectors_are_written_replaced_and_deleted(void **state)
{
	(void)state;
	struct fix f;
	struct call c;
	struct vk_view v;
	static const uint32_t i3[3] = {1, 7, UINT32_MAX}, i2[2] = {0, 5};
	static const float v3[3] = {0.5f, -0.0f, 1e-40f}, v2[2] = {2, 3};
	uint64_t mask = 0;
	fix_open(&f, CONFIG(TWO, WORDS, "null"));
	assert_int_equal(vk_collection_cursor(f.c, "follower", 0, INT64_MAX), VK_OK);
	call_init(&f, &c, VK_OP_UPSERT, 1, NULL);
	call_vector(&c, "a", "beside it");
	call_sparse(&c, i3, v3, 3);
	assert_int_equal(call_end(&f, &c), VK_OK);
	expect_sparse(&f, 1, i3, v3, 3);
	assert_int_equal(kept(&f), 1); /* a sparse vector is no text */
	call_init(&f, &c, VK_OP_VECTORS_UPDATE, 1, NULL);
	call_sparse(&c, i2, v2, 2);
	assert_int_equal(call_end(&f, &c), VK_OK);
	expect_sparse(&f, 1, i2, v2, 2);
	expect_text(&f, 1, "a", "beside it");
	assert_int_equal(vk_view_begin(f.c, 0, &v), VK_OK);
	assert_int_equal(vk_view_changes(&v, 0, see_mask, &mask), VK_OK);
	vk_view_end(&v);
	assert_int_equal(mask & ~(uint64_t)1, 1 << 1 | 1 << 3); /* a is first, words third */
	call_init(&f, &c, VK_OP_VECTORS_UPDATE, 1, NULL);
	call_sparse(&c, NULL, NULL, 0); /* empty is a vector, too */
	assert_int_equal(call_end(&f, &c), VK_OK);
	expect_sparse(&f, 1, NULL, NULL, 0);
	call_init(&f, &c, VK_OP_VECTORS_DELETE, 1, NULL);
	const struct vk_vector_conf *drop = vk_colconf_named(c.w.conf, VK_LIT("words"));
	c.op = (struct vk_op_in){.kind = VK_OP_VECTORS_DELETE, .ids = &c.point.id, .ids_n = 1, .drop = &drop, .drop_n = 1};
	assert_int_equal(call_end(&f, &c), VK_OK);
	expect_sparse(&f, 1, NULL, NULL, -1);
	expect_text(&f, 1, "a", "beside it");
	fix_close(&f);
}

static void test_sparse_vectors_that_are_wrong_are_refused(void **state)
{
	(void)state;
	struct fix f;
	struct call c;
	static const uint32_t twice[2] = {5, 5}, good[2] = {5, 6};
	static const float fine[2] = {1, 2}, bad[2] = {1, NAN};
	fix_open(&f, CONFIG(TWO, WORDS, "null"));
	const struct {
		const uint32_t *index;
		const float *value;
		uint32_t n;
		enum vk_status want;
	} t[] = {{twice, fine, 2, VK_E_INVALID}, {good, bad, 2, VK_E_INVALID}, {good, fine, VK_SPARSE_MAX + 1, VK_E_TOO_LARGE}, {good, fine, 2, VK_OK}};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		call_init(&f, &c, VK_OP_UPSERT, 1, NULL);
		call_sparse(&c, t[i].index, t[i].value, t[i].n);
		assert_int_equal(call_end(&f, &c), t[i].want);
	}
	fix_close(&f);
}

/* Until nothing is left of what was dropped: the check knows no half-dropped set by then. */
static void wait_dropped(struct fix *f, uint32_t set)
{
	uint8_t key[10];
	struct vk_bytes v;
	struct vk_kv_txn *t;
	enum vk_status st = VK_OK;
	memcpy(key, "drop:s", 6);
	vk_put_u32be(key + 6, set);
	for (int i = 0; i < 1000 && !st; i++) {
		assert_int_equal(vk_kv_view_begin(vk_collection_kv(f->c), &t), VK_OK);
		st = vk_kv_get(t, VK_T_META, (struct vk_bytes){(char *)key, 10}, &v);
		vk_kv_view_end(t);
		if (!st) usleep(10000);
	}
	assert_int_equal(st, VK_E_NOT_FOUND);
}

/* More points than one step of the background looks at. */
#define MANY 12000

static void put_many(struct fix *f)
{
	static const uint32_t index[1] = {9};
	static const float value[1] = {1};
	struct vk_colconf *conf = vk_collection_config(f->c);
	struct vk_point_in *p = calloc(MANY, sizeof *p);
	struct vk_vec *vec = calloc(2 * MANY, sizeof *vec);
	uint8_t(*key)[9] = calloc(MANY, sizeof *key);
	for (uint32_t i = 0; i < MANY; i++) {
		vk_id_u64(key[i], i);
		vec[2 * i] = (struct vk_vec){.conf = vk_colconf_vector(conf, VK_LIT("b")), .row = row, .text = VK_LIT("some text")};
		vec[2 * i + 1] = (struct vk_vec){.conf = vk_colconf_named(conf, VK_LIT("words")), .row = value, .index = index, .n = 1};
		p[i] = (struct vk_point_in){.id = {(char *)key[i], 9}, .vec = &vec[2 * i], .vec_n = 2};
	}
	struct vk_op_in op = {.kind = VK_OP_UPSERT, .point = p, .point_n = MANY};
	struct vk_write w = {.op = &op, .op_n = 1, .conf = conf, .now_ms = 1700000000000};
	assert_int_equal(vk_collection_write_wait(f->c, &w), VK_OK);
	vk_colconf_unref(conf);
	free(p);
	free(vec);
	free(key);
}

static void test_dropped_vectors_take_what_points_carry_of_them_along(void **state)
{
	(void)state;
	struct fix f;
	struct vk_kv_txn *t;
	fix_open(&f, CONFIG(TWO, WORDS, "null"));
	put_many(&f);
	assert_int_equal(kept(&f), MANY);
	swap(&f, ",\"b\":{\"size\":2,\"distance\":\"Dot\",\"veckeep\":{\"set\":2}}", "");
	collection_check(f.c, f.scratch); /* half dropped is no damage */
	wait_dropped(&f, 2);
	assert_int_equal(kept(&f), 0);
	swap(&f, WORDS, "");
	wait_dropped(&f, 3);
	assert_int_equal(vk_kv_view_begin(vk_collection_kv(f.c), &t), VK_OK);
	assert_int_equal(vk_kv_entries(t, VK_T_EXTRA), 0);
	vk_kv_view_end(t);
	/* The name comes back under another number, with nothing of the old. */
#define REST ",\"indexes\":{},\"veckeep\":{\"text_from\":null,\"next_set\":"
	swap(&f, "\"sparse_vectors\":{}" REST "5", "\"sparse_vectors\":{\"words\":{\"veckeep\":{\"set\":5}}}" REST "6");
	expect_sparse(&f, 0, NULL, NULL, -1);
	fix_close(&f);
}

static void test_sparse_configs_that_contradict_are_refused(void **state)
{
	(void)state;
	static const char *const bad[] = {
	    CONFIG(TWO, "\"a\":{\"veckeep\":{\"set\":3}}", "null"),     /* a dense vector's name */
	    CONFIG(TWO, "\"words\":{\"veckeep\":{\"set\":2}}", "null"), /* a dense vector's set */
	    CONFIG(TWO, "\"words\":{\"veckeep\":{\"set\":5}}", "null"), /* past next_set */
	    CONFIG(TWO, "\"words\":{}", "null"),
	    CONFIG(TWO, "\"\":{\"veckeep\":{\"set\":3}}", "null"),
	};
	struct vk_colconf *c;
	struct vk_error err;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(vk_colconf_parse(vk_bytes_of(bad[i]), &c, &err), VK_E_INVALID);
	assert_int_equal(vk_colconf_parse(VK_LIT(CONFIG(TWO, WORDS, "null")), &c, &err), VK_OK);
	assert_int_equal(c->vectors_n, 2);
	assert_int_equal(c->sparse_n, 1);
	assert_null(vk_colconf_vector(c, VK_LIT("words")));
	assert_ptr_equal(vk_colconf_named(c, VK_LIT("words")), c->sparse);
	assert_ptr_equal(vk_colconf_set(c, 3), c->sparse);
	vk_colconf_unref(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_text_without_payload_is_kept_beside_the_point),
	    cmocka_unit_test(test_text_that_the_payload_holds_is_not_stored_twice),
	    cmocka_unit_test(test_text_inside_a_llamaindex_node_is_found),
	    cmocka_unit_test(test_text_noted_before_text_from_is_known_is_found_after),
	    cmocka_unit_test(test_sparse_vectors_are_written_replaced_and_deleted),
	    cmocka_unit_test(test_sparse_vectors_that_are_wrong_are_refused),
	    cmocka_unit_test(test_dropped_vectors_take_what_points_carry_of_them_along),
	    cmocka_unit_test(test_sparse_configs_that_contradict_are_refused),
	};
	vk_log_set_level(VK_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
