/*
 * Goal: kill -9 at any moment of an index's life (building, half built and saved, following, repairing, saving) loses no acknowledged
 * write, spoils no answer and leaves nothing behind. Method: a child writes to a collection whose index begins at a few hundred
 * rows: upserts, replacements, deletes, a rebuild or a checkpoint now and then; it tells each acknowledged write over a pipe and is
 * killed after a random time. The parent opens what is left and replays the seeded writes in memory: the store is at the last
 * acknowledged write or at the one after it; exact and approximate answers are complete, rightly scored and of points that are
 * there, at once and when the index is level; the graph's own file, once saved, holds every invariant and stands for all rows; then
 * there is one file for one pointer, none half built, and the change table is pruned. VECKEEP_SEED replays the writes (not the
 * moments), VECKEEP_KILLS sets the rounds.
 *
 * And: a build that was killed goes on where it was last saved.
 */
#include "tests/index/collection_util.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>

#include "index/ann_internal.h"
#include "index/collection_internal.h"

#define ROUNDS 40
#define IDS 1500u
#define DIMS 16u
#define K 10u
#define QUERIES 12u
#define RECALL_LEAST 0.9

static const char config[] = "{\"vectors\":{\"\":{\"size\":16,\"distance\":\"Euclid\",\"veckeep\":{\"set\":1,\"index\":{\"profile\":\"s8\"}}}},"
			     "\"indexes\":{},\"hnsw_config\":{\"m\":8,\"ef_construct\":64,\"full_scan_threshold\":2},"
			     "\"optimizer_config\":{\"indexing_threshold\":20},\"veckeep\":{\"next_set\":2,\"next_field\":1}}";
static const struct vk_ann_pace pace = {.poll_ms = 5, .build_save_ms = 1, .retry_ms = 50, .save_every_ms = 20};

/* --- writes; all follows from seed and number --- */

struct plan {
	bool deletes;
	uint32_t first, count, step; /* ids first, first + step, ... mod IDS */
};

static struct plan plan_of(uint64_t seed, uint64_t n)
{
	uint64_t s = seed ^ n * 0x9e3779b97f4a7c15u;
	struct plan p = {.deletes = vk_rng(&s) % 4 == 0};
	p.first = (uint32_t)(vk_rng(&s) % IDS);
	p.count = 1 + (uint32_t)(vk_rng(&s) % (n % 16 ? 40 : 400));
	p.step = 1 + (uint32_t)(vk_rng(&s) % 6);
	return p;
}

static uint32_t id_at(const struct plan *p, uint32_t k) { return (p->first + p->step * k) % IDS; }

/* A row of one of 24 clusters; some rows are another id's, bit for bit: chains. */
static void make_row(float *row, uint64_t n, uint32_t id)
{
	uint64_t s = id % 9 ? n * IDS + id : n;
	uint64_t center = vk_rng(&s) % 24;
	for (uint32_t i = 0; i < DIMS; i++) {
		uint64_t c = center * DIMS + i;
		row[i] = (float)(vk_rng(&c) % 700 + vk_rng(&s) % 200); /* sums of squares are exact */
	}
}

static enum vk_status write_plan(struct vk_collection *c, uint64_t seed, uint64_t n)
{
	struct mem m;
	struct plan p = plan_of(seed, n);
	struct vk_op_in op = {.kind = p.deletes ? VK_OP_DELETE : VK_OP_UPSERT};
	struct vk_write in = {.op = &op, .op_n = 1, .conf = vk_collection_config(c), .now_ms = 1700000000000};
	mem_init(&m);
	op.ids = p.deletes ? vk_arena_calloc(&m.a, p.count, sizeof *op.ids) : NULL;
	op.point = vk_arena_calloc(&m.a, p.count, sizeof *op.point);
	for (uint32_t k = 0; k < p.count; k++) {
		uint32_t id = id_at(&p, k);
		struct vk_bytes key = id_number(vk_arena_alloc(&m.a, 64), id);
		if (p.deletes) {
			op.ids[op.ids_n++] = key;
			continue;
		}
		struct vk_point_in *in_p = &op.point[op.point_n++];
		float *row = vk_arena_alloc(&m.a, DIMS * sizeof *row);
		make_row(row, n, id);
		in_p->id = key;
		in_p->vec = vk_arena_calloc(&m.a, 1, sizeof *in_p->vec);
		in_p->vec[in_p->vec_n++] = (struct vk_vec){.conf = vk_colconf_vector(in.conf, (struct vk_bytes){0}), .row = row};
	}
	enum vk_status st = vk_collection_write_wait(c, &in);
	vk_colconf_unref(in.conf);
	mem_free(&m);
	return st;
}

/* --- the child --- */

static struct vk_collection *open_with(const char *dir, struct vk_kv_writers *w, const char *text)
{
	struct vk_collection_opts o = {.writers = w, .map_bytes = (uint64_t)1 << 30, .pace = &pace};
	struct vk_collection *c;
	struct vk_error err = {0};
	return vk_collection_open(dir, vk_bytes_of(text), &o, &c, &err) ? NULL : c;
}

static void *meddle(void *arg)
{
	struct vk_collection *c = arg;
	for (uint64_t rng = (uint64_t)getpid();;) {
		struct vk_ann *ann = vk_collection_ann(c);
		usleep(1000 * (unsigned)(vk_rng(&rng) % 60));
		switch (vk_rng(&rng) % 4) {
		case 0: (void)vk_ann_rebuild(ann, 1); break;
		case 1: (void)vk_ann_cancel(ann, 1); break;
		default: (void)vk_ann_checkpoint(ann);
		}
	}
	return NULL;
}

static void child(const char *dir, int pipe_fd, uint64_t seed, uint64_t next)
{
	struct vk_kv_writers *w;
	pthread_t thread;
	if (vk_kv_writers_new(2, &w)) _exit(2);
	struct vk_collection *c = open_with(dir, w, NULL);
	if (!c || pthread_create(&thread, NULL, meddle, c)) _exit(2);
	for (uint64_t n = next;; n++) {
		if (write_plan(c, seed, n)) _exit(5);
		if (write(pipe_fd, &n, sizeof n) != sizeof n) _exit(6);
		if (n % 8 == 0) usleep(20000); /* to be level now and then */
	}
}

/* The last acknowledged write, after the child is gone. */
static uint64_t run_child(const char *dir, uint64_t seed, uint64_t next, unsigned ms)
{
	int fd[2], status;
	uint64_t n, last = next - 1;
	assert_int_equal(pipe(fd), 0);
	pid_t pid = fork();
	if (!pid) {
		close(fd[0]);
		child(dir, fd[1], seed, next);
	}
	close(fd[1]);
	usleep(ms * 1000);
	kill(pid, SIGKILL);
	while (read(fd[0], &n, sizeof n) == sizeof n) last = n;
	close(fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status)) fail_msg("the child ended by itself: %d", WEXITSTATUS(status));
	return last;
}

/* --- the parent --- */

struct judge {
	uint64_t seed, *write_of; /* of each id; 0: not there */
	uint64_t rng;
	double recall;
	bool approximate;
};

static void apply(uint64_t *write_of, uint64_t seed, uint64_t n)
{
	struct plan p = plan_of(seed, n);
	for (uint32_t k = 0; k < p.count; k++) write_of[id_at(&p, k)] = p.deletes ? 0 : n;
}

static uint64_t points_of(const uint64_t *write_of)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < IDS; i++) n += write_of[i] != 0;
	return n;
}

/* Is the store what the model says? */
static bool agrees(struct vk_view *v, const uint64_t *write_of)
{
	const struct vk_set *set = &v->conf->vectors[0].set;
	for (uint32_t i = 0; i < IDS; i++) {
		uint8_t key[64];
		uint32_t slot;
		float row[DIMS], got[DIMS];
		struct vk_row r;
		enum vk_status st = vk_view_slot(v, id_number(key, i), &slot);
		if (!write_of[i] != (st == VK_E_NOT_FOUND)) return false;
		if (st) continue;
		if (vk_vset_row(v->t, set, slot, &r)) return false;
		make_row(row, write_of[i], i);
		vk_row_f32(set, &r, false, got);
		if (memcmp(row, got, sizeof row) != 0) return false;
	}
	return points_of(write_of) == vk_view_points(v);
}

static int descending(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x < y) - (x > y);
}

/* The model's own ranks, best first; how many. */
static size_t truth_of(const struct judge *j, const float *q, float *rank)
{
	size_t n = 0;
	for (uint32_t i = 0; i < IDS; i++) {
		float row[DIMS], sum = 0;
		if (!j->write_of[i]) continue;
		make_row(row, j->write_of[i], i);
		for (uint32_t d = 0; d < DIMS; d++) sum += (row[d] - q[d]) * (row[d] - q[d]);
		rank[n++] = -sum;
	}
	qsort(rank, n, sizeof *rank, descending);
	return n;
}

static size_t same_hits(struct vk_view *v, const struct vk_exact_query *q, const float *rank, size_t want)
{
	size_t good = 0;
	assert_int_equal(q->hits, want);
	for (size_t i = 0; i < q->hits; i++) {
		float own;
		struct vk_point p;
		assert_int_equal(vk_view_point(v, q->hit[i].slot, &p), VK_OK);
		assert_int_equal(vk_exact_rank(v, &v->conf->vectors[0].set, q->vector, q->hit[i].slot, &own), VK_OK);
		assert_true(own == q->hit[i].rank);
		assert_true(!i || own <= q->hit[i - 1].rank);
		for (size_t k = 0; k < i; k++) assert_true(q->hit[k].slot != q->hit[i].slot);
		good += q->hit[i].rank >= rank[want - 1];
	}
	return good;
}

static enum vk_status judge(void *arg, struct vk_view *v)
{
	struct judge *j = arg;
	struct vk_arena a;
	struct vk_error err;
	struct vk_exact_opts o = {.level = vk_cpu_best()};
	float *rank = malloc(IDS * sizeof *rank), vector[QUERIES][DIMS];
	size_t good = 0, all = 0;
	vk_arena_init(&a, (size_t)1 << 28);
	for (uint32_t i = 0; i < QUERIES; i++) {
		struct vk_ann_found found;
		make_row(vector[i], vk_rng(&j->rng), 1);
		struct vk_exact_query exact = {.vector = vector[i], .limit = i % 4 ? K : 1 + vk_rng(&j->rng) % (2 * IDS), .floor = -INFINITY};
		struct vk_ann_query near = {.q = exact, .ef = 200};
		size_t n = truth_of(j, vector[i], rank), want = exact.limit < n ? exact.limit : n;
		assert_int_equal(vk_exact_search(v, &v->conf->vectors[0].set, &exact, 1, &o, &a, NULL, &err), VK_OK);
		assert_int_equal(vk_ann_search(v, &v->conf->vectors[0].set, &near, 1, &o, &a, &found, &err), VK_OK);
		j->approximate |= found.approximate;
		if (!want) continue;
		assert_int_equal(same_hits(v, &exact, rank, want), want);
		for (size_t k = 0; k < want; k++) assert_true(exact.hit[k].rank == rank[k]);
		good += same_hits(v, &near.q, rank, want);
		all += want;
	}
	j->recall = all ? (double)good / (double)all : 1;
	vk_arena_free(&a);
	free(rank);
	return VK_OK;
}

static void judge_now(struct vk_collection *c, struct judge *j, int round)
{
	assert_int_equal(vk_view_run(c, 1700000000000, NULL, judge, j), VK_OK);
	if (j->recall < RECALL_LEAST) fail_msg("round %d: recall %.3f", round, j->recall);
}

/* The file that is left: one, whole, with every invariant, of all rows. */
static void check_file(const char *dir, uint64_t rows)
{
	DIR *d = opendir(dir);
	struct vk_graph *g;
	struct vk_error err = {0};
	char path[600];
	uint64_t sequence;
	uint8_t tag[32];
	int n = 0;
	for (struct dirent *e; (e = readdir(d));) {
		if (strncmp(e->d_name, "gen-", 4)) continue;
		snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
		assert_null(strstr(e->d_name, ".part"));
		assert_null(strstr(e->d_name, ".new"));
		n++;
	}
	closedir(d);
	assert_int_equal(n, 1);
	if (vk_graph_open(path, 0, vk_cpu_best(), &g, &sequence, tag, &err)) fail_msg("%s", err.text);
	if (vk_graph_check(g, &err)) fail_msg("%s: %s", path, err.text);
	assert_int_equal(vk_graph_live(g), rows);
	vk_graph_free(g);
}

static bool count_deleted(void *arg, const struct vk_change *ch)
{
	*(uint64_t *)arg += ch->op == VK_CHANGE_DELETED;
	return true;
}

static enum vk_status tombstones(void *arg, struct vk_view *v)
{
	return vk_view_changes(v, 0, count_deleted, arg);
}

/* No file wants them any more. */
static void wait_for_pruning(struct vk_collection *c)
{
	uint64_t n = 1;
	for (int i = 0; i < 500 && n; i++) {
		n = 0;
		assert_int_equal(vk_view_run(c, 0, NULL, tombstones, &n), VK_OK);
		if (n) usleep(10000);
	}
	assert_int_equal(n, 0);
}

static int rounds(void)
{
	const char *text = getenv("VECKEEP_KILLS");
	return text ? atoi(text) : ROUNDS;
}

struct world {
	struct temp dir;
	char path[300], scratch[300];
	struct vk_kv_writers *writers;
	struct vk_collection *c;
};

static void world_make(struct world *w)
{
	temp_make(&w->dir);
	snprintf(w->path, sizeof w->path, "%s/c", w->dir.path);
	snprintf(w->scratch, sizeof w->scratch, "%s/s", w->dir.path);
	assert_int_equal(vk_kv_writers_new(1, &w->writers), VK_OK);
	assert_non_null(w->c = open_with(w->path, w->writers, config));
}

static void world_close(struct world *w)
{
	vk_collection_unref(w->c);
	vk_kv_writers_free(w->writers); /* no thread may live over a fork */
}

static void world_open(struct world *w)
{
	assert_int_equal(vk_kv_writers_new(1, &w->writers), VK_OK);
	assert_non_null(w->c = open_with(w->path, w->writers, NULL));
}

static void test_ann_killed_keeps_every_write_and_leaves_nothing(void **state)
{
	(void)state;
	struct world w;
	struct judge j = {.seed = model_seed("ann_crash"), .write_of = calloc(IDS, sizeof *j.write_of)};
	uint64_t moment = (uint64_t)getpid() ^ vk_mono_us(), done = 0, lucky = 0, served = 0, indexed = 0;
	j.rng = j.seed;
	world_make(&w);
	world_close(&w);
	for (int round = 0; round < rounds(); round++) {
		struct vk_ann_info at;
		struct vk_view v;
		uint64_t acked = run_child(w.path, j.seed, done + 1, 10 + (unsigned)(vk_rng(&moment) % 300));
		while (done < acked) apply(j.write_of, j.seed, ++done);
		world_open(&w);
		assert_int_equal(vk_view_begin(w.c, 0, &v), VK_OK);
		if (!agrees(&v, j.write_of)) {
			apply(j.write_of, j.seed, ++done); /* committed, its word did not get out */
			lucky++;
			if (!agrees(&v, j.write_of)) fail_msg("round %d: the store is at neither write %llu nor the next", round,
							      (unsigned long long)acked);
		}
		vk_view_end(&v);
		j.approximate = false;
		judge_now(w.c, &j, round);
		served += j.approximate;
		assert_int_equal(vk_ann_wait(vk_collection_ann(w.c), 60000), VK_OK);
		judge_now(w.c, &j, round);
		assert_int_equal(vk_ann_info(vk_collection_ann(w.c), 1, &at), VK_OK);
		assert_int_equal(vk_ann_checkpoint(vk_collection_ann(w.c)), VK_OK);
		if (points_of(j.write_of) > 20 * 1024 / (4 * DIMS) || at.serving) {
			assert_int_equal(at.state, VK_ANN_READY);
			assert_int_equal(at.rows, points_of(j.write_of));
			assert_int_equal(at.pending, 0);
			wait_for_pruning(w.c);
			indexed++;
		}
		collection_check(w.c, w.scratch);
		world_close(&w);
		if (at.serving) check_file(w.path, points_of(j.write_of));
	}
	print_message("%llu writes, %llu committed unacknowledged; the index answered at once in %llu of %llu rounds\n",
		      (unsigned long long)done, (unsigned long long)lucky, (unsigned long long)served, (unsigned long long)indexed);
	assert_true(indexed > (uint64_t)rounds() / 2 && served > (uint64_t)rounds() / 4);
	free(j.write_of);
	temp_free(&w.dir);
}

/* --- a build that goes on --- */

#define BULK_IDS 6000u

static const char bulk_config[] = "{\"vectors\":{\"\":{\"size\":16,\"distance\":\"Euclid\",\"veckeep\":{\"set\":1,\"index\":{\"profile\":\"s8\"}}}},"
				  "\"indexes\":{},\"hnsw_config\":{\"m\":16,\"ef_construct\":300,\"max_indexing_threads\":1},"
				  "\"optimizer_config\":{\"indexing_threshold\":370},\"veckeep\":{\"next_set\":2,\"next_field\":1}}";

static void put_bulk(struct vk_collection *c, uint32_t first, uint32_t n)
{
	struct mem m;
	struct vk_op_in op = {.kind = VK_OP_UPSERT, .point_n = n};
	struct vk_write in = {.op = &op, .op_n = 1, .conf = vk_collection_config(c), .now_ms = 1700000000000};
	mem_init(&m);
	op.point = vk_arena_calloc(&m.a, n, sizeof *op.point);
	for (uint32_t i = 0; i < n; i++) {
		float *row = vk_arena_alloc(&m.a, DIMS * sizeof *row);
		struct vk_vec *v = vk_arena_calloc(&m.a, 1, sizeof *v);
		make_row(row, 7 * (first + i) + 1, 1);
		*v = (struct vk_vec){.conf = vk_colconf_vector(in.conf, (struct vk_bytes){0}), .row = row};
		op.point[i] = (struct vk_point_in){.id = id_number(vk_arena_alloc(&m.a, 64), first + i), .vec = v, .vec_n = 1};
	}
	assert_int_equal(vk_collection_write_wait(c, &in), VK_OK);
	vk_colconf_unref(in.conf);
	mem_free(&m);
}

static bool has_part(const char *dir)
{
	DIR *d = opendir(dir);
	bool has = false;
	for (struct dirent *e; (e = readdir(d));) has |= !strncmp(e->d_name, "gen-", 4) && strlen(e->d_name) > 5 && !strcmp(e->d_name + strlen(e->d_name) - 5, ".part");
	closedir(d);
	return has;
}

/* Its pointer is committed a moment after its file is there. */
static void build_until_saved(const char *dir)
{
	pid_t pid = fork();
	if (!pid) {
		struct vk_kv_writers *w;
		if (vk_kv_writers_new(1, &w) || !open_with(dir, w, NULL)) _exit(2);
		for (;;) pause();
	}
	for (int i = 0; i < 60000 && !has_part(dir); i++) usleep(1000);
	assert_true(has_part(dir));
	usleep(100000);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_ann_a_killed_build_goes_on_where_it_was_saved(void **state)
{
	(void)state;
	struct world w;
	struct vk_ann_info at;
	temp_make(&w.dir);
	snprintf(w.path, sizeof w.path, "%s/c", w.dir.path);
	assert_int_equal(vk_kv_writers_new(1, &w.writers), VK_OK);
	assert_non_null(w.c = open_with(w.path, w.writers, bulk_config));
	for (uint32_t i = 0; i < BULK_IDS; i += 100) put_bulk(w.c, i, 100); /* the last of them make a build due */
	world_close(&w);
	build_until_saved(w.path);
	world_open(&w);
	put_bulk(w.c, 17, 200); /* goes in when what was saved is built */
	assert_int_equal(vk_ann_wait(vk_collection_ann(w.c), 120000), VK_OK);
	assert_int_equal(vk_ann_info(vk_collection_ann(w.c), 1, &at), VK_OK);
	assert_int_equal(at.state, VK_ANN_READY);
	assert_int_equal(at.rows, BULK_IDS);
	assert_int_equal(vk_ann_find(vk_collection_ann(w.c), 1)->resumed, 1);
	assert_int_equal(vk_ann_checkpoint(vk_collection_ann(w.c)), VK_OK);
	wait_for_pruning(w.c);
	world_close(&w);
	check_file(w.path, BULK_IDS);
	temp_free(&w.dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ann_a_killed_build_goes_on_where_it_was_saved),
	    cmocka_unit_test(test_ann_killed_keeps_every_write_and_leaves_nothing),
	};
	vk_log_set_level(VK_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
