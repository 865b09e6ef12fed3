/*
 * Goal: approximate search over a living collection keeps its promises: every score is the row's exact score, no point that is gone
 * and no old vector is ever answered, a write is found by the next search however far the index is behind, answers have
 * min(limit, matches) points, recall has a floor; and the index survives what collections survive: reopening, damage, changes of its
 * plan, being cancelled. Method: seeded streams of writes against a model (id -> row), with exact search as the oracle, at moments
 * of all kinds: before the first build, while it runs, behind, level, after a reopening.
 */
#include <dirent.h>
#include <math.h>

#include "index/ann_internal.h"
#include "index/collection_internal.h"
#include "tests/index/collection_util.h"
#include "tests/index/graph_gen.h"

#define DIMS 32u
#define IDS 3000u
#define K 10u
#define QUERIES 40u
#define SCAN_KB 20
#define LEVEL_MS 300000 /* a build takes half a second, under a sanitizer beside other work minutes */

static const char config_format[] =
    "{\"vectors\":{\"\":{\"size\":32,\"distance\":\"%s\",\"veckeep\":{\"set\":1%s}}},\"indexes\":{},"
    "\"hnsw_config\":{\"m\":16,\"ef_construct\":100,\"full_scan_threshold\":%d},"
    "\"optimizer_config\":{\"indexing_threshold\":%d},\"veckeep\":{\"next_set\":2,\"next_field\":1}}";

struct world {
	struct fix f;
	struct gen_rows rows;
	uint32_t *row_of; /* id -> row, VK_GRAPH_NONE: no point */
	uint32_t points;
	uint64_t rng;
};

static void world_open(struct world *w, const char *metric, const char *index, int threshold_kb, enum gen_kind kind)
{
	char config[1024];
	snprintf(config, sizeof config, config_format, metric, index, SCAN_KB, threshold_kb);
	*w = (struct world){.rng = model_seed("ann")};
	w->rows = gen_rows(kind, 3 * IDS, DIMS, VK_METRIC_L2, w->rng);
	w->row_of = malloc(IDS * sizeof *w->row_of);
	memset(w->row_of, 0xff, IDS * sizeof *w->row_of);
	fix_open(&w->f, config);
}

static void world_close(struct world *w)
{
	fix_close(&w->f);
	free(w->rows.row);
	free(w->row_of);
}

static void world_reopen(struct world *w)
{
	struct vk_collection_opts o = {.writers = w->f.writers, .map_bytes = (uint64_t)1 << 30};
	struct vk_error err = {0};
	vk_collection_unref(w->f.c);
	if (vk_collection_open(w->f.path, (struct vk_bytes){0}, &o, &w->f.c, &err)) fail_msg("%s", err.text);
}

/* --- writing --- */

static void write_ids(struct world *w, enum vk_op_kind kind, const uint32_t *id, size_t n)
{
	struct mem m;
	mem_init(&m);
	struct vk_op_in op = {.kind = kind};
	struct vk_write in = {.op = &op, .op_n = 1, .conf = vk_collection_config(w->f.c), .now_ms = 1700000000000};
	op.point = vk_arena_calloc(&m.a, n, sizeof *op.point);
	op.ids = vk_arena_calloc(&m.a, n, sizeof *op.ids);
	for (size_t i = 0; i < n; i++) {
		uint8_t *key = vk_arena_alloc(&m.a, 9);
		struct vk_vec *v = vk_arena_calloc(&m.a, 1, sizeof *v);
		vk_id_u64(key, id[i]);
		op.ids[i] = (struct vk_bytes){(char *)key, 9};
		v->conf = vk_colconf_vector(in.conf, (struct vk_bytes){0});
		v->row = w->row_of[id[i]] == VK_GRAPH_NONE ? NULL : gen_at(&w->rows, w->row_of[id[i]]);
		op.point[i] = (struct vk_point_in){.id = op.ids[i], .vec = v, .vec_n = 1};
	}
	if (kind == VK_OP_UPSERT) op.point_n = n, op.ids = NULL;
	else op.ids_n = n, op.point = NULL;
	enum vk_status st = vk_collection_write_wait(w->f.c, &in);
	if (st) fail_msg("write: %s", in.err.text);
	vk_colconf_unref(in.conf);
	mem_free(&m);
}

static void put_range(struct world *w, uint32_t first, uint32_t n, uint32_t row)
{
	uint32_t *id = malloc(n * sizeof *id);
	for (uint32_t i = 0; i < n; i++) {
		id[i] = first + i;
		w->points += w->row_of[first + i] == VK_GRAPH_NONE;
		w->row_of[first + i] = row + i;
	}
	write_ids(w, VK_OP_UPSERT, id, n);
	free(id);
}

static void del_one(struct world *w, uint32_t id)
{
	w->points -= w->row_of[id] != VK_GRAPH_NONE;
	w->row_of[id] = VK_GRAPH_NONE;
	write_ids(w, VK_OP_DELETE, &id, 1);
}

static void level(struct world *w)
{
	assert_int_equal(vk_ann_wait(vk_collection_ann(w->f.c), LEVEL_MS), VK_OK);
}

static struct vk_ann_info info(struct world *w)
{
	struct vk_ann_info i;
	assert_int_equal(vk_ann_info(vk_collection_ann(w->f.c), 1, &i), VK_OK);
	return i;
}

/* --- asking --- */

struct ask {
	struct world *w;
	size_t limit;
	uint32_t ef;
	unsigned keep_one_in; /* filter: slots drawn so; 0: none */
	double recall;
	struct vk_ann_found found;
};

static void judge(struct vk_view *v, const struct world *w, const struct vk_exact_query *truth, const struct vk_exact_query *got, size_t *good,
		  size_t *all)
{
	assert_int_equal(got->hits, truth->hits); /* min(limit, matches) */
	const struct vk_set *set = &v->conf->vectors[0].set;
	for (size_t i = 0; i < got->hits; i++) {
		struct vk_point p;
		uint64_t id = 0;
		float rank;
		assert_int_equal(vk_view_point(v, got->hit[i].slot, &p), VK_OK);
		for (int b = 1; b < 9; b++) id = id << 8 | (uint8_t)p.id.p[b];
		assert_true(id < IDS && w->row_of[id] != VK_GRAPH_NONE);
		assert_int_equal(vk_exact_rank(v, set, truth->vector, got->hit[i].slot, &rank), VK_OK);
		assert_true(rank == got->hit[i].rank);
		assert_true(!truth->in || vk_bitmap_has(truth->in, got->hit[i].slot));
		assert_true(!i || got->hit[i].rank <= got->hit[i - 1].rank);
		for (size_t j = 0; j < i; j++) assert_true(got->hit[j].slot != got->hit[i].slot);
		*good += rank >= truth->hit[truth->hits - 1].rank;
	}
	*all += truth->hits;
}

static enum vk_status run(void *arg, struct vk_view *v)
{
	struct ask *a = arg;
	struct vk_arena arena;
	struct vk_error err = {0};
	struct vk_exact_opts o = {.level = vk_cpu_best()};
	struct vk_exact_query truth[QUERIES];
	struct vk_ann_query got[QUERIES];
	struct vk_bitmap *in = NULL;
	size_t good = 0, all = 0;
	vk_arena_init(&arena, (size_t)1 << 30);
	if (a->keep_one_in) {
		const struct vk_bitmap *live;
		uint32_t slot[4 * IDS];
		assert_int_equal(vk_view_live(v, &live), VK_OK);
		size_t n = vk_bitmap_take(live, 0, slot, 4 * IDS);
		in = vk_bitmap_new();
		for (size_t i = 0; i < n; i++)
			if (vk_rng(&a->w->rng) % a->keep_one_in == 0) vk_bitmap_add(in, slot[i]);
	}
	for (uint32_t i = 0; i < QUERIES; i++) {
		truth[i] = (struct vk_exact_query){.vector = gen_at(&a->w->rows, 3 * IDS - 1 - i), .limit = a->limit, .floor = -INFINITY, .in = in};
		got[i] = (struct vk_ann_query){.q = truth[i], .ef = a->ef};
	}
	const struct vk_set *set = &v->conf->vectors[0].set;
	assert_int_equal(vk_exact_search(v, set, truth, QUERIES, &o, &arena, NULL, &err), VK_OK);
	assert_int_equal(vk_ann_search(v, set, got, QUERIES, &o, &arena, &a->found, &err), VK_OK);
	for (uint32_t i = 0; i < QUERIES; i++) judge(v, a->w, &truth[i], &got[i].q, &good, &all);
	a->recall = all ? (double)good / (double)all : 1;
	vk_bitmap_free(in);
	vk_arena_free(&arena);
	return VK_OK;
}

static struct ask ask(struct world *w, size_t limit, uint32_t ef, unsigned keep_one_in)
{
	struct ask a = {.w = w, .limit = limit, .ef = ef, .keep_one_in = keep_one_in};
	assert_int_equal(vk_view_run(w->f.c, 1700000000000, NULL, run, &a), VK_OK);
	return a;
}

static size_t gen_files(struct world *w)
{
	DIR *d = opendir(w->f.path);
	size_t n = 0;
	for (struct dirent *e; (e = readdir(d));) n += !strncmp(e->d_name, "gen-", 4);
	closedir(d);
	return n;
}

/* --- tests --- */

static void test_ann_few_rows_have_no_index(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 100, GEN_CLUSTERED);
	put_range(&w, 0, 700, 0); /* 100 KB are 800 rows */
	level(&w);
	assert_int_equal(info(&w).state, VK_ANN_IDLE);
	assert_false(ask(&w, K, 0, 0).found.approximate);
	put_range(&w, 700, 200, 700);
	level(&w);
	assert_int_equal(info(&w).state, VK_ANN_READY);
	assert_int_equal(info(&w).rows, 900);
	struct ask a = ask(&w, K, 0, 0);
	assert_true(a.found.approximate);
	assert_true(a.recall >= 0.95);
	world_close(&w);
}

static void test_ann_every_metric_keeps_recall_and_scores(void **state)
{
	(void)state;
	static const char *const metrics[] = {"Cosine", "Dot", "Euclid"};
	for (size_t i = 0; i < 3; i++) {
		struct world w;
		world_open(&w, metrics[i], "", 50, GEN_CLUSTERED);
		put_range(&w, 0, 3000, 0);
		level(&w);
		struct vk_ann_info at = info(&w);
		assert_true(at.recall_queries > 0 && at.ef_auto > 0);
		struct ask a = ask(&w, K, 0, 0), wide = ask(&w, 100, 256, 0);
		print_message("%s: recall %.3f at ef %u (measured %.3f), k 100 %.3f\n", metrics[i], a.recall, at.ef_auto,
			      (double)at.recall, wide.recall);
		assert_true(a.found.approximate && a.recall >= 0.93 && wide.recall >= 0.93);
		world_close(&w);
	}
}

static void test_ann_manhattan_stays_exact(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Manhattan", "", 50, GEN_CLUSTERED);
	put_range(&w, 0, 2000, 0);
	level(&w);
	assert_int_equal(info(&w).state, VK_ANN_IDLE);
	struct ask a = ask(&w, K, 0, 0);
	assert_true(!a.found.approximate && a.recall == 1);
	world_close(&w);
}

static void test_ann_filters_never_starve_and_keep_recall(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	put_range(&w, 0, 3000, 0);
	level(&w);
	double plain = ask(&w, K, 0, 0).recall;
	static const unsigned keep[] = {2, 3, 5, 10, 15, 30, 100, 300, 2900};
	for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
		struct ask a = ask(&w, K, 0, keep[i]);
		print_message("1 in %u: recall %.3f, %s\n", keep[i], a.recall, a.found.approximate ? "walked" : "scanned");
		assert_true(a.recall >= plain - 0.02 - 0.01); /* 400 answers: a hundredth is noise */
	}
	world_close(&w);
}

static void test_ann_writes_are_found_before_the_index_has_them(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Euclid", "", 50, GEN_CLUSTERED);
	put_range(&w, 0, 2000, 0);
	level(&w);
	bool behind = false;
	for (uint32_t round = 0; round < 30; round++) {
		put_range(&w, 2000 + round * 20, 20, 2000 + round * 20); /* new */
		put_range(&w, round * 50, 30, 3000 + round * 30);	 /* moved */
		for (uint32_t i = 0; i < 10; i++) del_one(&w, 1500 + round * 10 + i);
		behind |= info(&w).sequence < fix_stats(&w.f).sequence;
		assert_true(ask(&w, K, 200, round % 3 ? 0 : 4).recall >= 0.97);
	}
	assert_true(behind); /* else this showed nothing */
	level(&w);
	assert_int_equal(info(&w).pending, 0);
	assert_int_equal(info(&w).rows, w.points);
	assert_true(ask(&w, K, 200, 0).recall >= 0.97);
	world_close(&w);
}

/* More than the worker puts in at a time, and nobody searches before its first batch is in. */
static void test_ann_a_bulk_is_found_while_it_is_followed(void **state)
{
	(void)state;
	struct world w;
	unsigned between = 0;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	put_range(&w, 0, 1500, 0);
	level(&w);
	for (uint32_t round = 1; round <= 6 || (!between && round < 100); round++) {
		uint64_t before = fix_stats(&w.f).sequence;
		put_range(&w, 0, 1500, round % 6 * 1000);
		while (info(&w).sequence <= before) usleep(100);
		struct vk_ann_info at = info(&w);
		between += at.sequence < fix_stats(&w.f).sequence;
		struct ask a = ask(&w, K, 300, 0);
		if (a.recall < 0.97) fail_msg("round %u: recall %.3f, followed %llu of %llu, %llu pending", round, a.recall,
					      (unsigned long long)(at.sequence - before), (unsigned long long)(fix_stats(&w.f).sequence - before),
					      (unsigned long long)at.pending);
		level(&w);
	}
	assert_true(between > 0); /* else this showed nothing */
	assert_int_equal(info(&w).pending, 0);
	world_close(&w);
}

static void test_ann_random_stream_against_exact(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	for (int i = 0; i < 600; i++) {
		uint32_t id = (uint32_t)(vk_rng(&w.rng) % (IDS - 40)), what = (uint32_t)(vk_rng(&w.rng) % 10);
		if (what < 7) put_range(&w, id, 1 + (uint32_t)(vk_rng(&w.rng) % 40), (uint32_t)(vk_rng(&w.rng) % (2 * IDS)));
		else for (uint32_t j = 0; j < 20; j++) del_one(&w, id + j);
		if (i % 20 == 19) {
			struct ask a = ask(&w, 1 + (size_t)(vk_rng(&w.rng) % 30), 150, (unsigned)(vk_rng(&w.rng) % 4));
			struct vk_ann_info at = info(&w);
			if (a.recall < 0.95)
				fail_msg("step %d: recall %.3f of %zu, 1 in %u; %s, %llu rows, %llu dead, %llu pending; %u points", i, a.recall, a.limit,
					 a.keep_one_in, vk_ann_state_names[at.state], (unsigned long long)at.rows,
					 (unsigned long long)at.about.dead, (unsigned long long)at.pending, w.points);
		}
		if (i == 200 || i == 400) level(&w);
		if (i == 300) world_reopen(&w);
	}
	level(&w);
	assert_int_equal(info(&w).rows, w.points);
	assert_true(ask(&w, K, 150, 0).recall >= 0.97);
	world_close(&w);
}

static void test_ann_reopened_it_serves_at_once_and_follows(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	put_range(&w, 0, 2000, 0);
	level(&w);
	uint64_t saved = info(&w).checkpoint;
	put_range(&w, 100, 50, 3000);
	del_one(&w, 7);
	world_reopen(&w);
	struct vk_ann_info at = info(&w);
	assert_true(at.serving && at.checkpoint == saved);
	assert_true(ask(&w, K, 200, 0).found.approximate);
	level(&w);
	assert_int_equal(info(&w).rows, w.points);
	assert_int_equal(vk_ann_checkpoint(vk_collection_ann(w.f.c)), VK_OK);
	assert_true(info(&w).checkpoint > saved);
	assert_int_equal(gen_files(&w), 1);
	world_close(&w);
}

static void damage(struct world *w, long at, int what)
{
	char path[600];
	DIR *d = opendir(w->f.path);
	for (struct dirent *e; (e = readdir(d));) {
		if (strncmp(e->d_name, "gen-", 4)) continue;
		snprintf(path, sizeof path, "%s/%s", w->f.path, e->d_name);
		if (what == 0) {
			unlink(path);
			continue;
		}
		FILE *f = fopen(path, "r+b");
		if (what == 1) {
			assert_int_equal(ftruncate(fileno(f), at), 0);
		} else {
			int c;
			fseek(f, at, SEEK_SET);
			c = fgetc(f);
			fseek(f, at, SEEK_SET);
			fputc(c ^ 0x10, f);
		}
		fclose(f);
	}
	closedir(d);
}

static void test_ann_a_damaged_file_is_built_anew(void **state)
{
	(void)state;
	static const struct {
		long at;
		int what;
	} hurt[] = {{0, 0}, {100, 1}, {200000, 1}, {3, 2}, {40, 2}, {150000, 2}};
	for (size_t i = 0; i < sizeof hurt / sizeof *hurt; i++) {
		struct world w;
		world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
		put_range(&w, 0, 2500, 0);
		level(&w);
		vk_collection_unref(w.f.c);
		damage(&w, hurt[i].at, hurt[i].what);
		struct vk_collection_opts o = {.writers = w.f.writers, .map_bytes = (uint64_t)1 << 30};
		struct vk_error err = {0};
		assert_int_equal(vk_collection_open(w.f.path, (struct vk_bytes){0}, &o, &w.f.c, &err), VK_OK);
		ask(&w, K, 0, 0); /* complete and rightly scored, whoever answers */
		level(&w);
		struct vk_ann_info at = info(&w);
		assert_int_equal(at.state, VK_ANN_READY);
		assert_true(ask(&w, K, 200, 0).recall >= 0.97);
		assert_int_equal(gen_files(&w), 1);
		world_close(&w);
	}
}

struct new_config {
	const char *metric, *index;
	int threshold_kb, scan_kb;
};

static enum vk_status edit(void *arg, const struct vk_colconf *now, struct vk_buf *json, struct vk_error *err)
{
	struct new_config *n = arg;
	char text[1024];
	(void)now;
	int len = snprintf(text, sizeof text, config_format, n->metric, n->index, n->scan_kb, n->threshold_kb);
	vk_buf_put(json, text, (size_t)len);
	return json->failed ? vk_fail(err, VK_E_NOMEM, "out of memory") : VK_OK;
}

static void configure(struct world *w, const char *index, int threshold_kb)
{
	struct new_config n = {"Cosine", index, threshold_kb, SCAN_KB};
	struct vk_error err = {0};
	if (vk_collection_configure(w->f.c, edit, &n, false, &err)) fail_msg("%s", err.text);
}

static void test_ann_another_plan_takes_over_without_a_gap(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	put_range(&w, 0, 2000, 0);
	level(&w);
	assert_string_equal(info(&w).plan.engine == VK_ANN_GRAPH ? "graph" : "", "graph");
	configure(&w, ",\"index\":{\"engine\":\"graph\",\"profile\":\"s4\"}", 50);
	assert_true(ask(&w, K, 200, 0).found.approximate); /* the old one, until the new one stands */
	level(&w);
	assert_int_equal(info(&w).plan.profile, VK_GRAPH_S4);
	assert_non_null(strstr(info(&w).about.detail, "s4"));
	assert_true(ask(&w, K, 200, 0).recall >= 0.9);
	configure(&w, ",\"index\":{\"engine\":\"none\"}", 50);
	level(&w);
	assert_false(ask(&w, K, 0, 0).found.approximate);
	assert_int_equal(gen_files(&w), 0);
	configure(&w, "", 0); /* indexing_threshold 0: no index */
	level(&w);
	assert_false(info(&w).serving);
	configure(&w, "", 50);
	level(&w);
	assert_true(info(&w).serving);
	world_close(&w);
}

static void test_ann_a_cancelled_build_waits_for_a_word(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	assert_int_equal(vk_ann_cancel(vk_collection_ann(w.f.c), 1), VK_E_NOT_FOUND);
	put_range(&w, 0, 3000, 0);
	enum vk_status st = VK_E_NOT_FOUND;
	for (int i = 0; i < 2000 && st && info(&w).state != VK_ANN_READY; i++) {
		st = vk_ann_cancel(vk_collection_ann(w.f.c), 1);
		usleep(500);
	}
	if (!st) { /* else it was too fast to be cancelled: the next lines hold all the same */
		level(&w);
		assert_true(info(&w).state == VK_ANN_CANCELLED || info(&w).state == VK_ANN_READY);
	}
	assert_int_equal(vk_ann_rebuild(vk_collection_ann(w.f.c), 1), VK_OK);
	level(&w);
	assert_int_equal(info(&w).state, VK_ANN_READY);
	assert_int_equal(vk_ann_rebuild(vk_collection_ann(w.f.c), 99), VK_E_NOT_FOUND);
	world_close(&w);
}

static void test_ann_bulk_after_a_small_index_is_built_anew(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	put_range(&w, 0, 500, 0);
	level(&w);
	put_range(&w, 500, 2500, 500);
	struct ask a = ask(&w, K, 0, 0);
	assert_true(a.recall >= 0.95);
	level(&w);
	assert_int_equal(info(&w).rows, 3000);
	assert_true(ask(&w, K, 200, 0).recall >= 0.97);
	world_close(&w);
}

/* --- what is left behind --- */

static enum vk_status read_lowest(void *arg, struct vk_view *v)
{
	return vk_cursor_lowest(v->t, 0, arg);
}

static uint64_t lowest_cursor(struct world *w)
{
	uint64_t lowest = 0;
	assert_int_equal(vk_view_run(w->f.c, 0, NULL, read_lowest, &lowest), VK_OK);
	return lowest;
}

static void test_ann_an_index_that_goes_after_a_reopening_takes_its_cursor_along(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	put_range(&w, 0, 1000, 0);
	level(&w);
	assert_true(lowest_cursor(&w) <= info(&w).sequence);
	world_reopen(&w);
	configure(&w, ",\"index\":{\"engine\":\"none\"}", 50);
	level(&w);
	assert_true(lowest_cursor(&w) == UINT64_MAX);
	assert_int_equal(gen_files(&w), 0);
	world_close(&w);
}

static enum vk_status put_pointer(void *arg, struct vk_kv_txn *t)
{
	struct vk_rec_gen r = {.engine = VK_ANN_GRAPH, .number = 7, .sequence = 3};
	uint8_t key[VK_REC_GEN_KEY_SIZE], value[VK_REC_GEN_SIZE];
	vk_rec_gen_key(key, 99, *(bool *)arg);
	vk_rec_gen_encode(value, (struct vk_bytes){(char *)key, sizeof key}, &r);
	return vk_kv_put(t, VK_T_META, (struct vk_bytes){(char *)key, sizeof key}, (struct vk_bytes){(char *)value, sizeof value});
}

static enum vk_status no_pointer(void *arg, struct vk_view *v)
{
	uint8_t key[VK_REC_GEN_KEY_SIZE];
	struct vk_bytes value;
	vk_rec_gen_key(key, 99, *(bool *)arg);
	return vk_kv_get(v->t, VK_T_META, (struct vk_bytes){(char *)key, sizeof key}, &value) == VK_E_NOT_FOUND ? VK_OK : VK_E_EXISTS;
}

/* As when a process dies between the config that drops a vector and the worker's next look. */
static void test_ann_what_a_dropped_set_has_left_goes_at_the_next_opening(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	for (int building = 0; building < 2; building++) {
		bool b = building;
		struct vk_kv_job job = {.apply = put_pointer, .arg = &b};
		assert_int_equal(vk_kv_run(vk_collection_kv(w.f.c), &job), VK_OK);
	}
	assert_int_equal(vk_collection_cursor(w.f.c, "gen99", 3, INT64_MAX), VK_OK);
	world_reopen(&w);
	level(&w);
	assert_true(lowest_cursor(&w) == UINT64_MAX);
	for (int building = 0; building < 2; building++) {
		bool b = building;
		assert_int_equal(vk_view_run(w.f.c, 0, NULL, no_pointer, &b), VK_OK);
	}
	world_close(&w);
}

static void test_ann_opened_it_follows_without_being_asked(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	put_range(&w, 0, 1000, 0);
	level(&w);
	put_range(&w, 100, 50, 3000);
	world_reopen(&w);
	struct vk_ann_info at = info(&w);
	for (int i = 0; i < 20000 && (at.pending || at.state != VK_ANN_READY || at.recall < 0); i++) {
		usleep(5000);
		at = info(&w);
	}
	assert_int_equal(at.pending, 0);
	assert_int_equal(at.state, VK_ANN_READY);
	assert_true(at.recall > 0);
	world_close(&w);
}

static void test_ann_a_file_of_an_older_config_is_not_taken_for_the_new_ones(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", ",\"index\":{\"profile\":\"s8\"}", 50, GEN_CLUSTERED);
	put_range(&w, 0, 2000, 0);
	level(&w);
	configure(&w, ",\"index\":{\"profile\":\"s4\"}", 50);
	world_reopen(&w); /* gives up the build that has just begun */
	assert_true(info(&w).serving); /* the old one, meanwhile */
	level(&w);
	assert_non_null(strstr(info(&w).about.detail, "s4"));
	assert_int_equal(gen_files(&w), 1);
	world_close(&w);
}

static void test_ann_closing_gives_up_a_build(void **state)
{
	(void)state;
	struct world w;
	struct vk_collection_opts o;
	struct vk_error err = {0};
	char config[1024];
	world_open(&w, "Cosine", "", 50, GEN_GAUSSIAN);
	vk_collection_unref(w.f.c);
	vk_dir_remove(w.f.path);
	snprintf(config, sizeof config, "{\"vectors\":{\"\":{\"size\":32,\"distance\":\"Cosine\",\"veckeep\":{\"set\":1}}},\"indexes\":{},"
		 "\"hnsw_config\":{\"m\":32,\"ef_construct\":4000,\"max_indexing_threads\":1},"
		 "\"optimizer_config\":{\"indexing_threshold\":370},\"veckeep\":{\"next_set\":2,\"next_field\":1}}");
	o = (struct vk_collection_opts){.writers = w.f.writers, .map_bytes = (uint64_t)1 << 30};
	assert_int_equal(vk_collection_open(w.f.path, vk_bytes_of(config), &o, &w.f.c, &err), VK_OK);
	put_range(&w, 0, 3000, 0); /* seconds of building */
	for (int i = 0; i < 20000 && info(&w).state != VK_ANN_BUILDING; i++) usleep(100);
	assert_int_equal(info(&w).state, VK_ANN_BUILDING);
	uint64_t began = vk_mono_ms();
	vk_collection_unref(w.f.c);
	print_message("closed after %llu ms\n", (unsigned long long)(vk_mono_ms() - began));
	assert_int_equal(gen_files(&w), 0); /* it was not waited for */
	assert_int_equal(vk_collection_open(w.f.path, (struct vk_bytes){0}, &o, &w.f.c, &err), VK_OK);
	world_close(&w);
}

static void test_ann_the_scan_threshold_follows_the_config(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	put_range(&w, 0, 1000, 0);
	level(&w);
	assert_true(ask(&w, K, 0, 0).found.approximate);
	struct new_config n = {"Cosine", "", 50, 900};
	struct vk_error err = {0};
	assert_int_equal(vk_collection_configure(w.f.c, edit, &n, false, &err), VK_OK);
	level(&w);
	assert_false(ask(&w, K, 0, 0).found.approximate);
	world_close(&w);
}

/* At Qdrant's default of full_scan_threshold: whichever of walk and scan looks at fewer rows. */
static void test_ann_without_a_wish_the_cheaper_way_is_taken(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	struct new_config n = {"Cosine", "", 50, 10000};
	struct vk_error err = {0};
	assert_int_equal(vk_collection_configure(w.f.c, edit, &n, false, &err), VK_OK);
	put_range(&w, 0, IDS, 0);
	level(&w);
	assert_true(ask(&w, K, 16, 0).found.approximate);
	assert_false(ask(&w, K, 16, 4).found.approximate);
	assert_false(ask(&w, K, 256, 0).found.approximate);
	uint64_t few = vk_ann_graph.scan_rows(20000, 1000000, 64), many = vk_ann_graph.scan_rows(500000, 1000000, 64);
	assert_true(few < 20000 && many < 500000 && few > many);
	assert_true(vk_ann_graph.scan_rows(0, 0, 0) > 0);
	world_close(&w);
}

/* --- many at once --- */

struct searcher {
	struct world *w;
	struct vk_pool *pool;
	atomic_bool *stop;
	uint64_t searches;
	uint32_t n;
};

static enum vk_status search_some(void *arg, struct vk_view *v)
{
	struct searcher *x = arg;
	struct vk_arena arena;
	struct vk_error err = {0};
	struct vk_exact_opts o = {.level = vk_cpu_best(), .pool = x->pool};
	struct vk_ann_query got[4];
	vk_arena_init(&arena, (size_t)1 << 28);
	for (uint32_t i = 0; i < 4; i++, x->n++)
		got[i] = (struct vk_ann_query){.q = {.vector = gen_at(&x->w->rows, x->n * 37 % (3 * IDS)), .limit = 1 + x->n % 20, .floor = -INFINITY}};
	assert_int_equal(vk_ann_search(v, &v->conf->vectors[0].set, got, 4, &o, &arena, NULL, &err), VK_OK);
	for (uint32_t i = 0; i < 4; i++) {
		assert_true(got[i].q.hits == (got[i].q.limit < vk_view_points(v) ? got[i].q.limit : vk_view_points(v)));
		for (size_t k = 0; k < got[i].q.hits; k++) {
			float rank;
			assert_int_equal(vk_exact_rank(v, &v->conf->vectors[0].set, got[i].q.vector, got[i].q.hit[k].slot, &rank), VK_OK);
			assert_true(rank == got[i].q.hit[k].rank);
		}
	}
	vk_arena_free(&arena);
	x->searches++;
	return VK_OK;
}

static void *search_on(void *arg)
{
	struct searcher *x = arg;
	while (!atomic_load(x->stop)) {
		assert_int_equal(vk_view_run(x->w->f.c, 1700000000000, NULL, search_some, x), VK_OK);
		usleep(1000); /* the worker is polite, and has two cores at most */
	}
	return NULL;
}

#define SEARCHERS 3
#ifdef __SANITIZE_THREAD__
#define CHANGES 20
#else
#define CHANGES 60
#endif

static void test_ann_searches_of_many_threads_while_all_changes(void **state)
{
	(void)state;
	struct world w;
	struct searcher x[SEARCHERS];
	pthread_t thread[SEARCHERS];
	atomic_bool stop = false;
	uint64_t searches = 0;
	world_open(&w, "Cosine", "", 50, GEN_CLUSTERED);
	put_range(&w, 0, 1500, 0);
	struct vk_pool *pool = vk_pool_new(2, 64, "search");
	for (uint32_t i = 0; i < SEARCHERS; i++) {
		x[i] = (struct searcher){.w = &w, .pool = pool, .stop = &stop, .n = 1000 * i};
		assert_int_equal(pthread_create(&thread[i], NULL, search_on, &x[i]), 0);
	}
	for (uint32_t i = 0; i < CHANGES; i++) {
		uint32_t id = (uint32_t)(vk_rng(&w.rng) % (IDS - 40));
		put_range(&w, id, 40, (uint32_t)(vk_rng(&w.rng) % (2 * IDS)));
		for (uint32_t k = 0; k < 10; k++) del_one(&w, (id + 50 * k) % IDS);
		if (i % 10 == 3) (void)vk_ann_rebuild(vk_collection_ann(w.f.c), 1);
		if (i % 10 == 5) assert_int_equal(vk_ann_checkpoint(vk_collection_ann(w.f.c)), VK_OK);
		if (i % 10 == 7) level(&w);
		if (i % 20 == 9) configure(&w, i % 40 == 9 ? ",\"index\":{\"profile\":\"s4\"}" : "", 50);
		(void)info(&w);
		(void)vk_ann_busy(vk_collection_ann(w.f.c));
	}
	atomic_store(&stop, true);
	for (uint32_t i = 0; i < SEARCHERS; i++) pthread_join(thread[i], NULL), searches += x[i].searches;
	vk_pool_free(pool);
	print_message("%llu searches\n", (unsigned long long)searches);
	assert_true(searches > SEARCHERS);
	level(&w);
	assert_int_equal(info(&w).rows, w.points);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ann_an_index_that_goes_after_a_reopening_takes_its_cursor_along),
	    cmocka_unit_test(test_ann_what_a_dropped_set_has_left_goes_at_the_next_opening),
	    cmocka_unit_test(test_ann_opened_it_follows_without_being_asked),
	    cmocka_unit_test(test_ann_a_file_of_an_older_config_is_not_taken_for_the_new_ones),
	    cmocka_unit_test(test_ann_closing_gives_up_a_build),
	    cmocka_unit_test(test_ann_the_scan_threshold_follows_the_config),
	    cmocka_unit_test(test_ann_searches_of_many_threads_while_all_changes),
	    cmocka_unit_test(test_ann_writes_are_found_before_the_index_has_them),
	    cmocka_unit_test(test_ann_a_bulk_is_found_while_it_is_followed),
	    cmocka_unit_test(test_ann_reopened_it_serves_at_once_and_follows),
	    cmocka_unit_test(test_ann_another_plan_takes_over_without_a_gap),
	    cmocka_unit_test(test_ann_a_cancelled_build_waits_for_a_word),
	    cmocka_unit_test(test_ann_without_a_wish_the_cheaper_way_is_taken),
	    cmocka_unit_test(test_ann_few_rows_have_no_index),
	    cmocka_unit_test(test_ann_every_metric_keeps_recall_and_scores),
	    cmocka_unit_test(test_ann_manhattan_stays_exact),
	    cmocka_unit_test(test_ann_filters_never_starve_and_keep_recall),
	    cmocka_unit_test(test_ann_random_stream_against_exact),
	    cmocka_unit_test(test_ann_a_damaged_file_is_built_anew),
	    cmocka_unit_test(test_ann_bulk_after_a_small_index_is_built_anew),
	};
#ifdef __SANITIZE_THREAD__ /* the others show recall and scores, with the same threads, and take minutes there */
	return _cmocka_run_group_tests("tests", tests, 12, NULL, NULL);
#else
	return cmocka_run_group_tests(tests, NULL, NULL);
#endif
}
