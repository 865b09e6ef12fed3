/*
 * Goal: the catalog is all or nothing, durable across opens, and its names are u32 that never
 * change and are never given out twice.
 * Method: a plain table in memory beside seeded random commits; threads that intern the same names.
 */
#include "tests/store/util.h"

#include "store/catalog.h"
#include "store/record.h"

#define KEYS 200

static struct vk_catalog *must_open_catalog(const char *dir, bool read_only)
{
	struct vk_catalog *c;
	struct vk_error err;
	if (vk_catalog_open(dir, read_only, &c, &err)) fail_msg("open %s: %s", dir, err.text);
	return c;
}

struct model {
	bool there[KEYS];
	uint64_t value[KEYS];
	size_t seen;
	uint64_t last;
};

static struct vk_bytes key_text(char b[32], uint64_t k)
{
	int n = snprintf(b, 32, "key-%04llu", (unsigned long long)k);
	return (struct vk_bytes){b, (size_t)n};
}

static bool on_entry(void *arg, struct vk_bytes key, struct vk_bytes value)
{
	struct model *m = arg;
	char text[32] = "";
	assert_true(key.n < sizeof text);
	memcpy(text, key.p, key.n); /* what follows the key in the map may be digits, too */
	uint64_t k = strtoull(text + 4, NULL, 10);
	assert_true(k < KEYS);
	assert_true(m->there[k]);
	assert_true(m->seen == 0 || k > m->last);
	assert_int_equal(value.n, 8);
	assert_int_equal(vk_get_u64le((const uint8_t *)value.p), m->value[k]);
	m->last = k;
	m->seen++;
	return true;
}

static void check(struct vk_catalog *c, struct model *m)
{
	size_t want = 0;
	m->seen = 0;
	assert_int_equal(vk_catalog_scan(c, VK_TABLE_META, VK_LIT("key-"), on_entry, m), VK_OK);
	for (uint64_t k = 0; k < KEYS; k++) {
		char b[32];
		struct vk_buf v;
		vk_buf_init(&v, 100);
		enum vk_status st = vk_catalog_get(c, VK_TABLE_META, key_text(b, k), &v);
		assert_int_equal(st, m->there[k] ? VK_OK : VK_E_NOT_FOUND);
		if (!st) assert_int_equal(vk_get_u64le((const uint8_t *)v.p), m->value[k]);
		want += m->there[k];
		vk_buf_free(&v);
	}
	assert_int_equal(m->seen, want);
}

static void test_catalog_random_commits_match_model(void **state)
{
	(void)state;
	struct temp t;
	struct model m = {{0}, {0}, 0, 0};
	uint64_t rng = test_seed("catalog");
	temp_make(&t);
	struct vk_catalog *c = must_open_catalog(t.path, false);
	for (int round = 0; round < 150; round++) {
		struct vk_catalog_op ops[8];
		char keys[8][32];
		uint8_t values[8][8];
		size_t n = 1 + vk_rng(&rng) % 8;
		/* One op in twenty rounds that cannot be: nothing of the commit may happen. */
		bool bad = vk_rng(&rng) % 20 == 0;
		for (size_t i = 0; i < n; i++) {
			uint64_t k = vk_rng(&rng) % KEYS, v = vk_rng(&rng);
			bool del = v % 4 == 0;
			vk_put_u64le(values[i], v);
			ops[i] = (struct vk_catalog_op){VK_TABLE_META,
							key_text(keys[i], k),
							{del ? NULL : (const char *)values[i], 8}};
			if (bad) continue;
			m.there[k] = !del;
			m.value[k] = v;
		}
		if (bad) ops[n - 1].key.n = 0;
		assert_int_equal(vk_catalog_commit(c, ops, n), bad ? VK_E_INVALID : VK_OK);
		if (round % 50 == 49) {
			vk_catalog_close(c);
			c = must_open_catalog(t.path, false);
			check(c, &m);
		}
	}
	check(c, &m);
	vk_catalog_close(c);
	c = must_open_catalog(t.path, true);
	check(c, &m);
	struct vk_catalog_op op = {VK_TABLE_META, VK_LIT("x"), VK_LIT("y")};
	assert_int_equal(vk_catalog_commit(c, &op, 1), VK_E_INVALID);
	vk_catalog_close(c);
	temp_free(&t);
}

static bool count(void *arg, struct vk_bytes key, struct vk_bytes value)
{
	(void)key;
	(void)value;
	return ++*(int *)arg < 2; /* and stop at two */
}

static void test_catalog_scan_takes_a_prefix_and_stops(void **state)
{
	(void)state;
	struct temp t;
	temp_make(&t);
	struct vk_catalog *c = must_open_catalog(t.path, false);
	struct vk_catalog_op ops[] = {
	    {VK_TABLE_USAGE, VK_LIT("2026-11-22\0a"), VK_LIT("1")},
	    {VK_TABLE_USAGE, VK_LIT("2026-11-22\0b"), VK_LIT("2")},
	    {VK_TABLE_USAGE, VK_LIT("2026-11-22\0c"), VK_LIT("")},
	    {VK_TABLE_USAGE, VK_LIT("2026-11-23\0a"), VK_LIT("4")},
	};
	assert_int_equal(vk_catalog_commit(c, ops, 4), VK_OK);
	int n = 0;
	assert_int_equal(vk_catalog_scan(c, VK_TABLE_USAGE, VK_LIT("2026-11-23"), count, &n),
			 VK_OK);
	assert_int_equal(n, 1);
	n = 0;
	assert_int_equal(vk_catalog_scan(c, VK_TABLE_USAGE, VK_LIT(""), count, &n), VK_OK);
	assert_int_equal(n, 2);
	n = 0;
	assert_int_equal(vk_catalog_scan(c, VK_TABLE_SPACE, VK_LIT(""), count, &n), VK_OK);
	assert_int_equal(n, 0);
	vk_catalog_close(c);
	temp_free(&t);
}

struct interner {
	struct vk_catalog *c;
	uint32_t id[100];
};

static void *intern_all(void *arg)
{
	struct interner *in = arg;
	for (uint64_t i = 0; i < 100; i++) {
		char b[32];
		if (vk_catalog_intern(in->c, VK_NAME_SPACE, key_text(b, i), &in->id[i])) return in;
	}
	return NULL;
}

static void test_catalog_names_are_given_once(void **state)
{
	(void)state;
	struct temp t;
	struct interner in[3];
	pthread_t thread[3];
	bool taken[101] = {false};
	uint32_t id;
	temp_make(&t);
	struct vk_catalog *c = must_open_catalog(t.path, false);
	for (int i = 0; i < 3; i++) {
		in[i].c = c;
		assert_int_equal(pthread_create(&thread[i], NULL, intern_all, &in[i]), 0);
	}
	for (int i = 0; i < 3; i++) {
		void *failed;
		pthread_join(thread[i], &failed);
		assert_null(failed);
	}
	for (uint64_t i = 0; i < 100; i++) {
		char b[32];
		struct vk_buf name;
		id = in[0].id[i];
		assert_true(id >= 1 && id <= 100 && !taken[id]);
		taken[id] = true;
		assert_int_equal(in[1].id[i], id);
		assert_int_equal(in[2].id[i], id);
		vk_buf_init(&name, 100);
		assert_int_equal(vk_catalog_name(c, VK_NAME_SPACE, id, &name), VK_OK);
		assert_true(vk_bytes_eq(vk_buf_bytes(&name), key_text(b, i)));
		vk_buf_free(&name);
	}
	/* Kinds count on their own. */
	assert_int_equal(vk_catalog_intern(c, VK_NAME_PROVIDER, VK_LIT("openai"), &id), VK_OK);
	assert_int_equal(id, 1);
	/* A deleted name's id is not given to the next. */
	struct vk_catalog_op del = {VK_TABLE_NAME, VK_LIT("skey-0042"), {NULL, 0}};
	assert_int_equal(vk_catalog_commit(c, &del, 1), VK_OK);
	vk_catalog_close(c);
	c = must_open_catalog(t.path, false);
	assert_int_equal(vk_catalog_intern(c, VK_NAME_SPACE, VK_LIT("key-0042"), &id), VK_OK);
	assert_int_equal(id, 101);
	assert_int_equal(vk_catalog_intern(c, VK_NAME_SPACE, VK_LIT(""), &id), VK_E_INVALID);
	char longest[511];
	memset(longest, 'x', sizeof longest);
	assert_int_equal(vk_catalog_intern(c, VK_NAME_SPACE, (struct vk_bytes){longest, 511}, &id),
			 VK_E_INVALID);
	assert_int_equal(vk_catalog_intern(c, VK_NAME_SPACE, (struct vk_bytes){longest, 510}, &id),
			 VK_OK);
	vk_catalog_close(c);
	temp_free(&t);
}

static void test_catalog_read_only_of_nothing_is_not_found(void **state)
{
	(void)state;
	struct temp t;
	struct vk_catalog *c;
	struct vk_error err;
	char path[300];
	temp_make(&t);
	assert_int_equal(vk_catalog_open(t.path, true, &c, &err), VK_E_NOT_FOUND);
	snprintf(path, sizeof path, "%s/none", t.path);
	assert_int_equal(vk_catalog_open(path, true, &c, &err), VK_E_NOT_FOUND);
	assert_null(c);
	temp_free(&t);
}

int main(void)
{
	vk_log_set_level(VK_LOG_OFF);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_catalog_random_commits_match_model),
	    cmocka_unit_test(test_catalog_scan_takes_a_prefix_and_stops),
	    cmocka_unit_test(test_catalog_names_are_given_once),
	    cmocka_unit_test(test_catalog_read_only_of_nothing_is_not_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
