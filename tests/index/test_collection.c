/*
 * Goal: what a model of random steps does not show: errors in Qdrant's words, slots and tombstones against
 * cursors, refusals of configs, an index built over many points, writes that share a commit with one that
 * fails, expiry by each kind of time. Method: each its own small collection in a directory of its own.
 */
#include "tests/index/collection_util.h"

static const char plain[] = "{\"vectors\":{\"\":{\"size\":3,\"distance\":\"Dot\",\"veckeep\":{\"set\":1}},"
			    "\"t\":{\"size\":2,\"distance\":\"Dot\",\"veckeep\":{\"set\":2}}},\"indexes\":{},"
			    "\"veckeep\":{\"next_set\":3,\"next_field\":1}}";

static struct vk_bytes u64_key(struct mem *m, uint64_t id)
{
	uint8_t *key = vk_arena_alloc(&m->a, 9);
	vk_id_u64(key, id);
	return (struct vk_bytes){(char *)key, 9};
}

static const float one[3] = {1, 2, 3};

/* One operation on the points first..first+n-1, with one payload for all. */
struct call {
	struct mem m;
	struct vk_op_in op;
	struct vk_write w;
};

static void call_init(struct fix *f, struct call *c, enum vk_op_kind kind, uint64_t first, size_t n, const char *payload)
{
	*c = (struct call){.op = {.kind = kind}, .w = {.op_n = 1, .conf = vk_collection_config(f->c), .now_ms = 1700000000000}};
	c->w.op = &c->op;
	mem_init(&c->m);
	const vk_jv *jv = payload ? mem_json(&c->m, vk_bytes_of(payload)) : NULL;
	if (kind == VK_OP_UPSERT || kind == VK_OP_VECTORS_UPDATE) {
		c->op.point = vk_arena_calloc(&c->m.a, n, sizeof *c->op.point);
		for (size_t i = 0; i < n; i++) {
			struct vk_vec *v = vk_arena_alloc(&c->m.a, sizeof *v);
			*v = (struct vk_vec){.conf = vk_colconf_vector(c->w.conf, (struct vk_bytes){0}), .row = one};
			c->op.point[c->op.point_n++] = (struct vk_point_in){
			    .id = u64_key(&c->m, first + i), .vec = v, .vec_n = 1, .payload = vk_bytes_of(payload), .payload_jv = jv};
		}
		return;
	}
	c->op.payload = jv;
	c->op.ids = vk_arena_calloc(&c->m.a, n, sizeof *c->op.ids);
	for (size_t i = 0; i < n; i++) c->op.ids[c->op.ids_n++] = u64_key(&c->m, first + i);
}

static void call_free(struct call *c)
{
	vk_colconf_unref(c->w.conf);
	mem_free(&c->m);
}

static enum vk_status call(struct fix *f, enum vk_op_kind kind, uint64_t first, size_t n, const char *payload, char *text)
{
	struct call c;
	call_init(f, &c, kind, first, n, payload);
	enum vk_status st = vk_collection_write_wait(f->c, &c.w);
	if (text) strcpy(text, c.w.err.text);
	call_free(&c);
	return st;
}

static void test_collection_missing_points_are_named_as_qdrant_does(void **state)
{
	(void)state;
	struct fix f;
	char text[VK_ERROR_TEXT_MAX];
	static const enum vk_op_kind strict[] = {VK_OP_PAYLOAD_SET, VK_OP_PAYLOAD_OVERWRITE, VK_OP_PAYLOAD_DELETE, VK_OP_PAYLOAD_CLEAR,
						 VK_OP_VECTORS_UPDATE};
	fix_open(&f, plain);
	assert_int_equal(call(&f, VK_OP_UPSERT, 1, 2, "{\"a\":1}", NULL), VK_OK);
	for (size_t i = 0; i < sizeof strict / sizeof *strict; i++) {
		uint64_t before = fix_stats(&f).sequence;
		assert_int_equal(call(&f, strict[i], 2, 2, "{\"a\":2}", text), VK_E_NOT_FOUND);
		assert_string_equal(text, "Not found: No point with id 3 found");
		assert_int_equal(fix_stats(&f).sequence, before); /* point 2 is untouched */
	}
	assert_int_equal(call(&f, VK_OP_DELETE, 2, 5, NULL, text), VK_OK);
	assert_int_equal(call(&f, VK_OP_VECTORS_DELETE, 77, 1, NULL, text), VK_OK);
	assert_int_equal(fix_stats(&f).points, 1);
	fix_close(&f);
}

static void test_collection_bad_input_is_refused_before_it_is_queued(void **state)
{
	(void)state;
	struct fix f;
	struct call c;
	static const float bad[2][3] = {{1, NAN, 0}, {0, 0, -INFINITY}};
	fix_open(&f, plain);
	for (int i = 0; i < 2; i++) {
		call_init(&f, &c, VK_OP_UPSERT, 1, 1, NULL);
		c.op.point[0].vec[0].row = bad[i];
		assert_int_equal(vk_collection_write_wait(f.c, &c.w), VK_E_INVALID);
		call_free(&c);
	}
	call_init(&f, &c, VK_OP_UPSERT, 1, 1, NULL);
	c.op.point[0].id = VK_LIT("\7x");
	assert_int_equal(vk_collection_write_wait(f.c, &c.w), VK_E_INVALID);
	call_free(&c);
	/* A payload that an edit would nest too deep to be read back. */
	char deep[256] = "{\"a\":";
	for (int i = 0; i < 60; i++) strcat(deep, "[");
	for (int i = 0; i < 60; i++) strcat(deep, "]");
	strcat(deep, "}");
	assert_int_equal(call(&f, VK_OP_UPSERT, 1, 1, NULL, NULL), VK_OK);
	call_init(&f, &c, VK_OP_PAYLOAD_SET, 1, 1, deep);
	c.op.at = mem_path(&c.m, "b.b.b.b.b.b");
	assert_int_equal(vk_collection_write_wait(f.c, &c.w), VK_E_INVALID);
	call_free(&c);
	assert_int_equal(fix_stats(&f).sequence, 1);
	fix_close(&f);
}

static uint64_t changes_seen;
static bool count_changes(void *arg, const struct vk_change *ch)
{
	changes_seen++;
	*(uint64_t *)arg += ch->op == 2;
	return true;
}

static uint64_t tombstones(struct fix *f)
{
	struct vk_view v;
	uint64_t n = 0;
	changes_seen = 0;
	assert_int_equal(vk_view_begin(f->c, 0, &v), VK_OK);
	assert_int_equal(vk_view_changes(&v, 0, count_changes, &n), VK_OK);
	vk_view_end(&v);
	return n;
}

static void test_collection_freed_slots_wait_for_the_slowest_cursor(void **state)
{
	(void)state;
	struct fix f;
	fix_open(&f, plain);
	/* No cursor: slots come back at once, nobody wants tombstones. */
	assert_int_equal(call(&f, VK_OP_UPSERT, 1, 10, NULL, NULL), VK_OK);
	assert_int_equal(call(&f, VK_OP_DELETE, 1, 4, NULL, NULL), VK_OK);
	assert_int_equal(tombstones(&f), 0);
	assert_int_equal(call(&f, VK_OP_UPSERT, 101, 4, NULL, NULL), VK_OK);
	assert_int_equal(fix_stats(&f).next_slot, 10);
	/* A cursor behind holds slots and keeps tombstones, */
	assert_int_equal(vk_collection_cursor(f.c, "job", fix_stats(&f).sequence, INT64_MAX), VK_OK);
	assert_int_equal(call(&f, VK_OP_DELETE, 101, 4, NULL, NULL), VK_OK);
	assert_int_equal(tombstones(&f), 4);
	assert_int_equal(call(&f, VK_OP_UPSERT, 201, 3, NULL, NULL), VK_OK);
	assert_int_equal(fix_stats(&f).next_slot, 13);
	collection_check(f.c, f.scratch);
	/* one that has expired does not, */
	assert_int_equal(vk_collection_cursor(f.c, "old", 0, 5), VK_OK);
	/* and one that has gone past lets them go. */
	assert_int_equal(vk_collection_cursor(f.c, "job", fix_stats(&f).sequence, INT64_MAX), VK_OK);
	for (int i = 0; i < 500 && tombstones(&f); i++) usleep(10000);
	assert_int_equal(tombstones(&f), 0);
	assert_int_equal(changes_seen, fix_stats(&f).points);
	assert_int_equal(call(&f, VK_OP_UPSERT, 301, 4, NULL, NULL), VK_OK);
	assert_int_equal(fix_stats(&f).next_slot, 13);
	assert_int_equal(vk_collection_cursor(f.c, "job", UINT64_MAX, 0), VK_OK);
	assert_int_equal(vk_collection_cursor(f.c, "", 0, 0), VK_E_INVALID);
	fix_close(&f);
}

static void test_collection_open_says_what_is_there(void **state)
{
	(void)state;
	struct fix f;
	struct vk_collection *c;
	struct vk_error err;
	char other[320];
	fix_open(&f, plain);
	struct vk_collection_opts o = {.writers = f.writers, .map_bytes = 1 << 28}, ro = {.map_bytes = 1 << 28, .read_only = true};
	assert_int_equal(call(&f, VK_OP_UPSERT, 1, 3, NULL, NULL), VK_OK);
	vk_collection_unref(f.c);
	assert_int_equal(vk_collection_open(f.path, vk_bytes_of(plain), &o, &c, &err), VK_E_EXISTS);
	snprintf(other, sizeof other, "%s/none", f.dir.path);
	assert_int_equal(vk_collection_open(other, (struct vk_bytes){0}, &o, &c, &err), VK_E_NOT_FOUND);
	assert_int_equal(vk_collection_open(other, VK_LIT("{}"), &o, &c, &err), VK_E_INVALID);
	assert_int_equal(vk_collection_open(f.path, (struct vk_bytes){0}, &ro, &f.c, &err), VK_OK);
	assert_int_equal(fix_stats(&f).points, 3);
	assert_int_equal(call(&f, VK_OP_UPSERT, 1, 1, NULL, NULL), VK_E_FORBIDDEN);
	assert_int_equal(vk_collection_seal(f.c), VK_E_FORBIDDEN);
	vk_collection_unref(f.c);
	f.c = collection_open(f.path, NULL, f.writers);
	fix_close(&f);
}

/* --- configs --- */

static enum vk_status give_text(void *arg, const struct vk_colconf *now, struct vk_buf *json, struct vk_error *err)
{
	(void)now, (void)err;
	vk_buf_puts(json, arg);
	return VK_OK;
}

static enum vk_status configure(struct fix *f, const char *from, const char *to, struct vk_error *err)
{
	struct vk_colconf *conf = vk_collection_config(f->c);
	char text[4096];
	const char *at = strstr(conf->text.p, from);
	assert_non_null(at);
	snprintf(text, sizeof text, "%.*s%s%s", (int)(at - conf->text.p), conf->text.p, to, at + strlen(from));
	vk_colconf_unref(conf);
	return vk_collection_configure(f->c, give_text, text, true, err);
}

#define INDEX(number, state) "\"indexes\":{\"k\":{\"field\":" number ",\"type\":\"keyword\",\"state\":\"" state "\"}}"

static void test_collection_config_must_agree_with_what_is_stored(void **state)
{
	(void)state;
	static const char *const bad[][2] = {
	    {"\"size\":2", "\"size\":4"},
	    {"\"distance\":\"Dot\"", "\"distance\":\"Cosine\""},
	    {"\"next_set\":3", "\"next_set\":2"},
	    {"\"indexes\":{}", "\"indexes\":{\"k\":{\"field\":1,\"type\":\"keyword\",\"state\":\"building\"}}"}, /* next_field stays 1 */
	    {"{\"vectors\"", "{\"vectors\":7,\"v\""},
	};
	struct fix f;
	struct vk_error err;
	fix_open(&f, plain);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_true(configure(&f, bad[i][0], bad[i][1], &err) != VK_OK && err.text[0]);
	struct vk_colconf *c = vk_collection_config(f.c);
	assert_true(vk_bytes_is(c->text, plain));
	vk_colconf_unref(c);
	fix_close(&f);
}

static void test_collection_index_over_many_points_is_built_and_dropped(void **state)
{
	(void)state;
	struct fix f;
	struct vk_error err;
	char payload[64];
	uint64_t n;
	struct vk_view v;
	fix_open(&f, plain);
	for (int i = 0; i < 60; i++) {
		sprintf(payload, "{\"k\":\"x%d\",\"i\":%d}", i % 7, i);
		assert_int_equal(call(&f, VK_OP_UPSERT, (uint64_t)i * 100, 100, payload, NULL), VK_OK);
	}
	assert_int_equal(configure(&f, "\"next_field\":1", "\"next_field\":2", &err), VK_OK);
	struct vk_colconf *c = vk_collection_config(f.c);
	char text[4096], ready[4096];
	const char *at = strstr(c->text.p, "\"indexes\":{}");
	snprintf(text, sizeof text, "%.*s%s%s", (int)(at - c->text.p), c->text.p, INDEX("2", "building"), at + strlen("\"indexes\":{}"));
	*strstr(text, "\"next_field\":2") = 0;
	strcat(text, "\"next_field\":3}}");
	vk_colconf_unref(c);
	if (vk_collection_configure(f.c, give_text, text, true, &err)) fail_msg("%s", err.text);
	c = vk_collection_config(f.c);
	assert_int_equal(c->fields_n, 1);
	assert_true(c->fields[0].ready);
	snprintf(ready, sizeof ready, "%.*s", (int)c->text.n, c->text.p);
	assert_int_equal(vk_view_begin(f.c, 0, &v), VK_OK);
	assert_int_equal(vk_field_points(v.t, &v.conf->fields[0], &n), VK_OK);
	assert_int_equal(n, 6000);
	vk_view_end(&v);
	vk_colconf_unref(c);
	collection_check(f.c, f.scratch);
	/* gone again, entries and all */
	assert_int_equal(configure(&f, INDEX("2", "ready"), "\"indexes\":{}", &err), VK_OK);
	for (int i = 0; i < 500; i++) {
		assert_int_equal(vk_view_begin(f.c, 0, &v), VK_OK);
		struct vk_field_conf gone = {.path = "k", .field = 2, .type = VK_FIELD_KEYWORD};
		assert_int_equal(vk_field_points(v.t, &gone, &n), VK_OK);
		vk_view_end(&v);
		if (!n) break;
		usleep(10000);
	}
	assert_int_equal(n, 0);
	fix_close(&f);
}

static void test_collection_write_of_an_older_config_is_checked_by_name(void **state)
{
	(void)state;
	struct fix f;
	struct call c;
	struct vk_error err;
	static const float two[2] = {1, 1};
	fix_open(&f, plain);
	call_init(&f, &c, VK_OP_UPSERT, 1, 1, NULL);
	c.op.point[0].vec[0] = (struct vk_vec){.conf = vk_colconf_vector(c.w.conf, VK_LIT("t")), .row = two};
	/* Another config, the same vector: still good. */
	assert_int_equal(configure(&f, "\"next_set\":3", "\"next_set\":4", &err), VK_OK);
	assert_int_equal(vk_collection_write_wait(f.c, &c.w), VK_OK);
	/* The vector is gone: refused, in Qdrant's words. */
	if (configure(&f, ",\"t\":{\"size\":2,\"distance\":\"Dot\",\"veckeep\":{\"set\":2}}", "", &err)) fail_msg("%s", err.text);
	assert_int_equal(vk_collection_write_wait(f.c, &c.w), VK_E_INVALID);
	assert_string_equal(c.w.err.text, "Wrong input: Not existing vector name error: t");
	call_free(&c);
	fix_close(&f);
}

/* --- many writes in one commit --- */

struct async {
	struct call c;
	atomic_int *left;
};

static void async_done(struct vk_write *w)
{
	atomic_fetch_sub(((struct async *)w->arg)->left, 1);
}

static void test_collection_failing_write_takes_no_neighbour_with_it(void **state)
{
	(void)state;
	enum { N = 200 };
	struct fix f;
	struct async *a = calloc(N, sizeof *a);
	atomic_int left = N;
	fix_open(&f, plain);
	for (int i = 0; i < N; i++) {
		a[i].left = &left;
		/* Every tenth fails after its first put: points 2i there, the next one missing. */
		if (i % 10 == 9) {
			call_init(&f, &a[i].c, VK_OP_PAYLOAD_SET, (uint64_t)i * 2 - 2, 2, "{\"no\":1}");
			a[i].c.op.ids[1] = u64_key(&a[i].c.m, 999999);
		} else {
			call_init(&f, &a[i].c, VK_OP_UPSERT, (uint64_t)i * 2, 1, "{\"yes\":1}");
		}
		a[i].c.w.done = async_done;
		a[i].c.w.arg = &a[i];
		vk_collection_write(f.c, &a[i].c.w);
	}
	while (atomic_load(&left)) usleep(1000);
	for (int i = 0; i < N; i++) {
		assert_int_equal(a[i].c.w.st, i % 10 == 9 ? VK_E_NOT_FOUND : VK_OK);
		call_free(&a[i].c);
	}
	struct vk_collection_stats s = fix_stats(&f);
	assert_int_equal(s.points, N - N / 10);
	assert_int_equal(s.sequence, N - N / 10);
	assert_true(s.kv.commits < N); /* they did share commits */
	struct vk_view v;
	struct vk_point p;
	assert_int_equal(vk_view_begin(f.c, 0, &v), VK_OK);
	for (uint32_t slot = 0; slot < s.next_slot; slot++) {
		assert_int_equal(vk_view_point(&v, slot, &p), VK_OK);
		assert_true(vk_bytes_is(p.payload, "{\"yes\":1}"));
	}
	vk_view_end(&v);
	free(a);
	fix_close(&f);
}

/* --- expiry --- */

static const char ttl_config[] = "{\"vectors\":{\"\":{\"size\":3,\"distance\":\"Dot\",\"veckeep\":{\"set\":1}}},\"indexes\":{%s},"
				 "\"veckeep\":{\"ttl\":{\"field\":\"at\",\"after_ms\":1000},\"next_set\":2,\"next_field\":2}}";

static void test_collection_points_expire_with_and_without_an_index(void **state)
{
	(void)state;
	static const struct {
		const char *index, *payload;
		bool expires;
	} t[] = {
	    {"", "{\"at\":1700000000}", true},
	    {"", "{\"at\":1700000000.5}", true},
	    {"", "{\"at\":\"2023-11-14T22:13:20Z\"}", true},
	    {"", "{\"at\":[1600000000,1700000000]}", true},
	    {"", "{\"at\":\"soon\"}", false},
	    {"", "{\"at\":null}", false},
	    {"", "{\"at\":9223372036854775807}", false},
	    {"\"at\":{\"field\":1,\"type\":\"datetime\",\"state\":\"ready\"}", "{\"at\":\"2023-11-14T22:13:20Z\"}", true},
	    {"\"at\":{\"field\":1,\"type\":\"datetime\",\"state\":\"ready\"}", "{\"at\":1700000000}", false}, /* not the index's type */
	    {"\"at\":{\"field\":1,\"type\":\"integer\",\"state\":\"ready\"}", "{\"at\":1700000000}", true},
	    {"\"at\":{\"field\":1,\"type\":\"integer\",\"state\":\"ready\"}", "{\"at\":[1700000000,5]}", true},
	    {"\"at\":{\"field\":1,\"type\":\"float\",\"state\":\"ready\"}", "{\"at\":1700000000.25}", true},
	    {"\"at\":{\"field\":1,\"type\":\"integer\",\"params\":{\"range\":false},\"state\":\"ready\"}", "{\"at\":1700000000}", true},
	};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct fix f;
		struct vk_view v;
		const struct vk_bitmap *live;
		char config[1024];
		uint64_t swept;
		uint32_t slot;
		uint8_t key[9];
		const int64_t before = 1700000000999, after = 1700000002000;
		snprintf(config, sizeof config, ttl_config, t[i].index);
		fix_open(&f, config);
		assert_int_equal(call(&f, VK_OP_UPSERT, 1, 1500, t[i].payload, NULL), VK_OK);
		assert_int_equal(call(&f, VK_OP_UPSERT, 5000, 2, "{\"other\":1}", NULL), VK_OK);
		vk_id_u64(key, 1);
		for (int late = 0; late < 2; late++) {
			bool gone = late && t[i].expires;
			assert_int_equal(vk_view_begin(f.c, late ? after : before, &v), VK_OK);
			assert_true(vk_view_has_ttl(&v));
			assert_int_equal(vk_view_slot(&v, (struct vk_bytes){(char *)key, 9}, &slot), gone ? VK_E_NOT_FOUND : VK_OK);
			assert_int_equal(vk_view_live(&v, &live), VK_OK);
			assert_int_equal(vk_bitmap_count(live), gone ? 2 : 1502);
			assert_int_equal(vk_view_slot(&v, (struct vk_bytes){(char *)key, 9}, &slot), gone ? VK_E_NOT_FOUND : VK_OK);
			assert_int_equal(vk_view_points(&v), 1502);
			vk_view_end(&v);
		}
		assert_int_equal(vk_collection_sweep(f.c, before, &swept), VK_OK);
		assert_int_equal(swept, 0);
		assert_int_equal(vk_collection_sweep(f.c, after, &swept), VK_OK);
		assert_int_equal(swept, t[i].expires ? 1500 : 0);
		assert_int_equal(fix_stats(&f).points, t[i].expires ? 2 : 1502);
		fix_close(&f);
	}
}

static void test_collection_sweep_of_an_idle_collection_seals_its_tail(void **state)
{
	(void)state;
	struct fix f;
	uint64_t swept;
	fix_open(&f, plain);
	for (uint64_t i = 0; i < 20; i++) assert_int_equal(call(&f, VK_OP_UPSERT, i, 1, NULL, NULL), VK_OK);
	assert_true(fix_stats(&f).tail_rows > 0);
	assert_int_equal(vk_collection_sweep(f.c, 1700000000000 + 5000, &swept), VK_OK);
	for (int i = 0; i < 500 && fix_stats(&f).tail_rows; i++) usleep(10000);
	assert_int_equal(fix_stats(&f).tail_rows, 0);
	assert_int_equal(fix_stats(&f).rows, 20);
	fix_close(&f);
}

/* A client that waits for green after a restart waits for nothing when no row does. */
static void test_collection_opened_without_a_tail_seals_nothing(void **state)
{
	(void)state;
	struct fix f;
	fix_open(&f, plain);
	for (uint64_t i = 0; i < 20; i++) assert_int_equal(call(&f, VK_OP_UPSERT, i, 1, NULL, NULL), VK_OK);
	assert_int_equal(vk_collection_seal(f.c), VK_OK);
	for (int round = 0; round < 50; round++) {
		vk_collection_unref(f.c);
		f.c = collection_open(f.path, NULL, f.writers);
		for (int i = 0; i < 100; i++) assert_false(fix_stats(&f).sealing);
	}
	fix_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_collection_missing_points_are_named_as_qdrant_does),
	    cmocka_unit_test(test_collection_bad_input_is_refused_before_it_is_queued),
	    cmocka_unit_test(test_collection_freed_slots_wait_for_the_slowest_cursor),
	    cmocka_unit_test(test_collection_open_says_what_is_there),
	    cmocka_unit_test(test_collection_config_must_agree_with_what_is_stored),
	    cmocka_unit_test(test_collection_index_over_many_points_is_built_and_dropped),
	    cmocka_unit_test(test_collection_write_of_an_older_config_is_checked_by_name),
	    cmocka_unit_test(test_collection_failing_write_takes_no_neighbour_with_it),
	    cmocka_unit_test(test_collection_points_expire_with_and_without_an_index),
	    cmocka_unit_test(test_collection_sweep_of_an_idle_collection_seals_its_tail),
	    cmocka_unit_test(test_collection_opened_without_a_tail_seals_nothing),
	};
	vk_log_set_level(VK_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
