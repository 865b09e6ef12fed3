/*
 * Exact search over a real collection: goal is that what the map holds (sealed blocks, codes, dead rows, the tail) and real ids
 * give the same answers on every path. Method: points with many equal rows, partly sealed, some deleted and some written
 * again; the oracle ranks every slot by vk_exact_rank() and sorts by rank and id. VECKEEP_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "index/exact.h"
#include "tests/index/collection_util.h"

#define DIMS 72
#define POINTS 900

static const char *const kinds[][2] = {
	{"Cosine", "float32"}, {"Dot", "float32"}, {"Euclid", "float32"}, {"Manhattan", "float32"},
	{"Cosine", "float16"}, {"Euclid", "float16"}, {"Cosine", "uint8"}, {"Dot", "uint8"},
};

static void draw_row(uint64_t dice, float *row)
{
	dice = dice % 300 + 1; /* three points share a row */
	for (int i = 0; i < DIMS; i++) row[i] = (float)(int)(vk_rng(&dice) % 41) - (dice % 2 ? 3 : 10);
}

static void upsert(struct vk_collection *c, uint32_t id, uint64_t dice)
{
	uint8_t key[64];
	float row[DIMS];
	struct vk_colconf *conf = vk_collection_config(c);
	struct vk_vec vec = {.conf = &conf->vectors[0], .row = row};
	struct vk_point_in point = {.id = id_number(key, id), .vec = &vec, .vec_n = 1};
	struct vk_op_in op = {.kind = VK_OP_UPSERT, .point = &point, .point_n = 1};
	struct vk_write w = {.op = &op, .op_n = 1, .conf = conf, .now_ms = 1000};
	draw_row(dice, row);
	assert_int_equal(vk_collection_write_wait(c, &w), VK_OK);
	vk_colconf_unref(conf);
}

static void erase(struct vk_collection *c, uint32_t id)
{
	uint8_t key[64];
	struct vk_bytes one = id_number(key, id);
	struct vk_colconf *conf = vk_collection_config(c);
	struct vk_op_in op = {.kind = VK_OP_DELETE, .ids = &one, .ids_n = 1};
	struct vk_write w = {.op = &op, .op_n = 1, .conf = conf, .now_ms = 1000};
	assert_int_equal(vk_collection_write_wait(c, &w), VK_OK);
	vk_colconf_unref(conf);
}

static int order(const void *a, const void *b, void *view)
{
	const struct vk_hit *x = a, *y = b;
	if (x->rank != y->rank) return x->rank > y->rank ? -1 : 1;
	return x->slot == y->slot ? 0 : vk_view_compare_ids(view, x->slot, y->slot);
}

static size_t oracle(struct vk_view *v, const struct vk_set *s, const float *vector, const struct vk_bitmap *in, struct vk_hit *hit)
{
	size_t n = 0;
	for (uint32_t slot = 0; slot < 2 * POINTS; slot++) {
		if (in && !vk_bitmap_has(in, slot)) continue;
		enum vk_status st = vk_exact_rank(v, s, vector, slot, &hit[n].rank);
		if (st) {
			assert_int_equal(st, VK_E_NOT_FOUND);
			continue;
		}
		hit[n++].slot = slot;
	}
	qsort_r(hit, n, sizeof *hit, order, v);
	return n;
}

static void compare(struct vk_view *v, const struct vk_set *s, struct vk_pool *pool, const struct vk_bitmap *some, uint64_t *dice)
{
	static struct vk_hit want[3][2 * POINTS];
	size_t want_n[3], limits[] = {10, 200, 5000};
	float vector[3][DIMS];
	const struct vk_bitmap *in[] = {NULL, some, some};
	for (int i = 0; i < 3; i++) {
		draw_row(vk_rng(dice), vector[i]);
		want_n[i] = oracle(v, s, vector[i], in[i], want[i]);
	}
	for (int path = VK_EXACT_AUTO; path < VK_EXACT_BITS; path++) {
		struct vk_exact_query q[3];
		struct vk_exact_opts o = {.pool = path % 2 ? pool : NULL, .path = path, .level = vk_cpu_best()};
		struct vk_exact_stats stats;
		struct vk_error err = {0};
		struct vk_arena a;
		vk_arena_init(&a, (size_t)1 << 28);
		for (int i = 0; i < 3; i++)
			q[i] = (struct vk_exact_query){.vector = vector[i], .limit = limits[i], .floor = -INFINITY, .in = in[i]};
		if (vk_exact_search(v, s, q, 3, &o, &a, &stats, &err)) fail_msg("path %d: %s", path, err.text);
		for (int i = 0; i < 3; i++) {
			size_t n = want_n[i] < limits[i] ? want_n[i] : limits[i];
			assert_int_equal(q[i].hits, n);
			for (size_t j = 0; j < n; j++) {
				if (q[i].hit[j].slot != want[i][j].slot) fail_msg("path %d query %d hit %zu: slot %u, want %u", path, i, j, q[i].hit[j].slot, want[i][j].slot);
				assert_memory_equal(&q[i].hit[j].rank, &want[i][j].rank, sizeof(float));
			}
		}
		vk_arena_free(&a);
	}
}

static void one_kind(const char *distance, const char *datatype, struct vk_kv_writers *writers, struct vk_pool *pool, uint64_t *dice)
{
	struct temp dir;
	char config[600];
	temp_make(&dir);
	snprintf(config, sizeof config,
		 "{\"vectors\":{\"\":{\"size\":%d,\"distance\":\"%s\",\"datatype\":\"%s\",\"veckeep\":{\"set\":1,\"space\":null,\"raw\":true}}},"
		 "\"indexes\":{},\"veckeep\":{\"text_from\":null,\"provenance\":\"off\",\"ttl\":null,\"next_set\":2,\"next_field\":1,\"pool\":\"default\"}}",
		 DIMS, distance, datatype);
	struct vk_collection *c = collection_open(dir.path, config, writers);
	struct vk_bitmap *some = vk_bitmap_new();
	for (uint32_t i = 0; i < POINTS; i++) {
		upsert(c, i, vk_rng(dice));
		if (i == 2 * POINTS / 3) assert_int_equal(vk_collection_seal(c), VK_OK);
	}
	for (int i = 0; i < 40; i++) erase(c, (uint32_t)(vk_rng(dice) % POINTS));
	for (int i = 0; i < 60; i++) upsert(c, (uint32_t)(vk_rng(dice) % POINTS), vk_rng(dice));
	for (int i = 0; i < 500; i++) vk_bitmap_add(some, (uint32_t)(vk_rng(dice) % POINTS));
	for (int sealed = 0; sealed < 2; sealed++) {
		struct vk_view v;
		assert_int_equal(vk_view_begin(c, 2000, &v), VK_OK);
		for (int i = 0; i < 3; i++) compare(&v, &v.conf->vectors[0].set, pool, some, dice);
		vk_view_end(&v);
		if (!sealed) assert_int_equal(vk_collection_seal(c), VK_OK);
	}
	vk_bitmap_free(some);
	vk_collection_unref(c);
	temp_free(&dir);
}

static void test_search_over_collection_equals_sorted_ranks(void **state)
{
	(void)state;
	uint64_t dice = model_seed("exact_view");
	struct vk_kv_writers *writers;
	struct vk_pool *pool = vk_pool_new(2, 64, "test");
	assert_int_equal(vk_kv_writers_new(1, &writers), VK_OK);
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) one_kind(kinds[i][0], kinds[i][1], writers, pool, &dice);
	vk_kv_writers_free(writers);
	vk_pool_free(pool);
}

static void test_search_that_cannot_be_is_refused(void **state)
{
	(void)state;
	struct vk_kv_writers *writers;
	struct temp dir;
	struct vk_view v;
	struct vk_arena a;
	struct vk_error err = {0};
	float vector[4] = {1, 2, 3, 4};
	struct vk_exact_opts o = {.level = vk_cpu_best()};
	temp_make(&dir);
	assert_int_equal(vk_kv_writers_new(1, &writers), VK_OK);
	struct vk_collection *c = collection_open(dir.path,
		"{\"vectors\":{\"\":{\"size\":4,\"distance\":\"Dot\",\"datatype\":\"float32\",\"veckeep\":{\"set\":1,\"space\":null,\"raw\":true}}},"
		"\"indexes\":{},\"veckeep\":{\"text_from\":null,\"provenance\":\"off\",\"ttl\":null,\"next_set\":2,\"next_field\":1,\"pool\":\"default\"}}", writers);
	assert_int_equal(vk_view_begin(c, 1, &v), VK_OK);
	vk_arena_init(&a, 1 << 20);
	const struct vk_set *s = &v.conf->vectors[0].set;
	struct vk_exact_query q = {.vector = vector, .limit = VK_EXACT_LIMIT_MAX + 1, .floor = -INFINITY};
	assert_int_equal(vk_exact_search(&v, s, &q, 1, &o, &a, NULL, &err), VK_E_INVALID);
	q.limit = VK_EXACT_LIMIT_MAX;
	q.floor = NAN;
	assert_int_equal(vk_exact_search(&v, s, &q, 1, &o, &a, NULL, &err), VK_E_INVALID);
	q.floor = 0;
	vector[2] = INFINITY;
	assert_int_equal(vk_exact_search(&v, s, &q, 1, &o, &a, NULL, &err), VK_E_INVALID);
	vector[2] = 0;
	assert_int_equal(vk_exact_search(&v, s, &q, 1, &o, &a, NULL, &err), VK_OK); /* an empty collection */
	assert_int_equal(q.hits, 0);
	assert_int_equal(vk_exact_rank(&v, s, vector, 0, &vector[0]), VK_E_NOT_FOUND);
	vk_arena_free(&a);
	vk_view_end(&v);
	vk_collection_unref(c);
	vk_kv_writers_free(writers);
	temp_free(&dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_search_over_collection_equals_sorted_ranks),
		cmocka_unit_test(test_search_that_cannot_be_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
