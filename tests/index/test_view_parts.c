/*
 * Parts kept from view to view: goal is that a view gets the parts of its own moment, whoever searched before, whatever is
 * written meanwhile and wherever the map has moved. Oracle: vk_vset_parts(), which walks the view's own transaction; pointers
 * must be equal, not only what they point at. VECKEEP_SEED replays the writes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "tests/index/collection_util.h"

#define DIMS 96
#define READERS 2
#define WRITES 400
#define BATCH 16
#define IDS 3000

static const char *const config =
    "{\"optimizer_config\":{\"indexing_threshold\":0},\"vectors\":{"
    "\"a\":{\"size\":96,\"distance\":\"Cosine\",\"datatype\":\"float32\",\"veckeep\":{\"set\":1,\"space\":null,\"raw\":true}},"
    "\"b\":{\"size\":96,\"distance\":\"Manhattan\",\"datatype\":\"float32\",\"veckeep\":{\"set\":2,\"space\":null,\"raw\":true}}},"
    "\"indexes\":{},\"veckeep\":{\"text_from\":null,\"provenance\":\"off\",\"ttl\":null,\"next_set\":3,\"next_field\":1,\"pool\":\"default\"}}";

static void write_points(struct vk_collection *c, uint32_t first, bool erase)
{
	static float row[BATCH][2][DIMS]; /* one writer at a time */
	uint8_t key[BATCH][64];
	struct vk_vec vec[BATCH][2];
	struct vk_point_in point[BATCH];
	struct vk_bytes id[BATCH];
	struct vk_colconf *conf = vk_collection_config(c);
	for (uint32_t i = 0; i < BATCH; i++) {
		uint64_t dice = first + i + 1;
		for (int s = 0; s < 2; s++) {
			for (int j = 0; j < DIMS; j++) row[i][s][j] = (float)(vk_rng(&dice) % 41) - 20;
			vec[i][s] = (struct vk_vec){.conf = &conf->vectors[s], .row = row[i][s]};
		}
		id[i] = id_number(key[i], (first + i) % IDS);
		point[i] = (struct vk_point_in){.id = id[i], .vec = vec[i], .vec_n = 2};
	}
	struct vk_op_in op = {.kind = VK_OP_UPSERT, .point = point, .point_n = BATCH};
	if (erase) op = (struct vk_op_in){.kind = VK_OP_DELETE, .ids = id, .ids_n = BATCH};
	struct vk_write w = {.op = &op, .op_n = 1, .conf = conf, .now_ms = 1000};
	assert_int_equal(vk_collection_write_wait(c, &w), VK_OK);
	vk_colconf_unref(conf);
}

/* "" or what differs. */
static const char *difference(const struct vk_parts *a, const struct vk_parts *b)
{
	if (a->part_n != b->part_n || a->tail_n != b->tail_n || a->rows != b->rows) return "counts";
	for (size_t i = 0; i < a->part_n; i++) {
		const struct vk_part *x = &a->part[i], *y = &b->part[i];
		if (x->first != y->first || x->slots != y->slots || x->rows != y->rows || x->stride != y->stride) return "shape";
		if (x->row != y->row || x->present != y->present || x->inv_norm != y->inv_norm) return "rows";
		if (x->code != y->code || x->code_head != y->code_head || x->code_stride != y->code_stride) return "codes";
		if (x->bits != y->bits || x->bits_stride != y->bits_stride) return "bits";
		if (!x->dead != !y->dead || (x->dead && memcmp(x->dead, y->dead, (x->slots + 63) / 64 * 8) != 0)) return "dead bits";
	}
	for (size_t i = 0; i < a->tail_n; i++)
		if (a->tail[i].slot != b->tail[i].slot || a->tail[i].row != b->tail[i].row) return "tail";
	return "";
}

/* The view's parts of a set, of the arena or kept; "" or how they differ from a walk. */
static const char *look(struct vk_view *v, int set, struct vk_arena *a, struct vk_parts *out)
{
	const struct vk_set *s = &v->conf->vectors[set].set;
	struct vk_parts walked;
	if (vk_view_parts(v, s, NULL, a, out)) return "status";
	if (vk_vset_parts(v->t, s, NULL, a, &walked)) return "status of a walk";
	return difference(out, &walked);
}

static struct vk_view view_of(struct vk_collection *c)
{
	struct vk_view v;
	assert_int_equal(vk_view_begin(c, 2000, &v), VK_OK);
	return v;
}

static void fill(struct fix *f)
{
	fix_open(f, config);
	for (uint32_t i = 0; i < 40; i++) write_points(f->c, i * BATCH, false);
	assert_int_equal(vk_collection_seal(f->c), VK_OK);
	write_points(f->c, 77, true);
	write_points(f->c, IDS / 2, false);
}

static void test_views_of_one_moment_share_parts(void **state)
{
	(void)state;
	struct fix f;
	struct vk_arena a;
	struct vk_parts p[2][2];
	fill(&f);
	vk_arena_init(&a, (size_t)1 << 28);
	for (int i = 0; i < 2; i++) {
		struct vk_view v = view_of(f.c);
		for (int set = 0; set < 2; set++) {
			assert_string_equal(look(&v, set, &a, &p[i][set]), "");
			assert_string_equal(look(&v, set, &a, &p[i][set]), "");
		}
		vk_view_end(&v);
	}
	assert_ptr_equal(p[0][0].part, p[1][0].part);
	assert_ptr_equal(p[0][1].tail, p[1][1].tail);
	assert_ptr_not_equal(p[0][0].part, p[0][1].part);
	assert_true(p[0][0].part_n > 1 && p[0][0].tail_n > 0);
	vk_arena_free(&a);
	fix_close(&f);
}

static void test_an_older_view_keeps_to_its_moment(void **state)
{
	(void)state;
	struct fix f;
	struct vk_arena a;
	struct vk_parts p, before;
	fill(&f);
	vk_arena_init(&a, (size_t)1 << 28);
	struct vk_view old = view_of(f.c), asked = view_of(f.c);
	for (int i = 0; i < 2; i++) assert_string_equal(look(&asked, 0, &a, &before), ""); /* found, then kept */
	write_points(f.c, IDS / 2 + BATCH, false);
	struct vk_view new = view_of(f.c);
	assert_string_equal(look(&new, 0, &a, &p), "");
	assert_true(p.tail_n > before.tail_n);
	assert_string_equal(look(&old, 0, &a, &p), "");
	assert_int_equal(p.tail_n, before.tail_n);
	assert_string_equal(look(&asked, 0, &a, &p), ""); /* its own are not taken from it */
	assert_ptr_equal(p.part, before.part);
	vk_view_end(&old);
	vk_view_end(&new);
	vk_view_end(&asked);
	vk_arena_free(&a);
	fix_close(&f);
}

static void test_few_wanted_slots_are_sought_alone(void **state)
{
	(void)state;
	struct fix f;
	struct vk_arena a;
	struct vk_parts p, all;
	struct vk_bitmap *want = vk_bitmap_new();
	fill(&f);
	vk_arena_init(&a, (size_t)1 << 28);
	vk_bitmap_add(want, 3);
	struct vk_view v = view_of(f.c);
	const struct vk_set *s = &v.conf->vectors[0].set;
	assert_int_equal(vk_view_parts(&v, s, want, &a, &p), VK_OK);
	assert_int_equal(p.part_n, 1);
	assert_int_equal(p.tail_n, 0);
	vk_bitmap_add_range(want, 0, 100000); /* more than are sought: all parts, and kept */
	assert_int_equal(vk_view_parts(&v, s, want, &a, &p), VK_OK);
	assert_string_equal(look(&v, 0, &a, &all), "");
	assert_ptr_equal(vk_view_parts(&v, s, want, &a, &p) ? NULL : p.part, all.part);
	vk_view_end(&v);
	vk_bitmap_free(want);
	vk_arena_free(&a);
	fix_close(&f);
}

struct race {
	struct vk_collection *c;
	atomic_bool stop;
	_Atomic(const char *) wrong;
	atomic_uint looks;
};

static void *reader(void *arg)
{
	struct race *r = arg;
	while (!atomic_load(&r->stop) && !*atomic_load(&r->wrong)) {
		struct vk_arena a;
		struct vk_parts p;
		struct vk_view v;
		vk_arena_init(&a, (size_t)1 << 28);
		const char *wrong = vk_view_begin(r->c, 2000, &v) ? "view" : "";
		for (int i = 0; i < 3 && !*wrong && v.c; i++) wrong = look(&v, i % 2, &a, &p);
		vk_view_end(&v);
		vk_arena_free(&a);
		if (*wrong) atomic_store(&r->wrong, wrong);
		atomic_fetch_add(&r->looks, 1);
	}
	return NULL;
}

/* Writes, deletions and sealing, in a map of a megabyte that must grow again and again. */
static void test_parts_under_writes_are_those_of_the_moment(void **state)
{
	(void)state;
	struct temp dir;
	struct vk_kv_writers *writers;
	struct vk_error err = {0};
	struct race r = {.wrong = ""};
	pthread_t thread[READERS];
	uint64_t dice = model_seed("parts");
	temp_make(&dir);
	assert_int_equal(vk_kv_writers_new(2, &writers), VK_OK);
	struct vk_collection_opts o = {.writers = writers, .map_bytes = (uint64_t)1 << 20};
	if (vk_collection_open(dir.path, vk_bytes_of(config), &o, &r.c, &err)) fail_msg("open: %s", err.text);
	for (int i = 0; i < READERS; i++) assert_int_equal(pthread_create(&thread[i], NULL, reader, &r), 0);
	for (int i = 0; i < WRITES && !*atomic_load(&r.wrong); i++) {
		write_points(r.c, (uint32_t)(vk_rng(&dice) % IDS), vk_rng(&dice) % 4 == 0);
		if (i % 50 == 49) assert_int_equal(vk_collection_seal(r.c), VK_OK);
	}
	atomic_store(&r.stop, true);
	for (int i = 0; i < READERS; i++) pthread_join(thread[i], NULL);
	assert_string_equal(atomic_load(&r.wrong), "");
	assert_true(atomic_load(&r.looks) > READERS);
	vk_collection_unref(r.c);
	vk_kv_writers_free(writers);
	temp_free(&dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_views_of_one_moment_share_parts),
		cmocka_unit_test(test_an_older_view_keeps_to_its_moment),
		cmocka_unit_test(test_few_wanted_slots_are_sought_alone),
		cmocka_unit_test(test_parts_under_writes_are_those_of_the_moment),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
