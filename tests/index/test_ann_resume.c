/*
 * Goal: a FAISS build whose process is killed goes on from what it had saved, and what it becomes is as good as if nothing had
 * happened: every row once, none that changed meanwhile and was not in it yet, right answers, nothing left behind. What cannot be
 * gone on with (damaged, another factory's, overtaken by changes) is built from the beginning.
 * Method: fsync of this program stops a build at its n-th half-built file, so that the one before is the last. A child writes all
 * rows, waits for that moment, replaces, deletes and adds points, and kills itself. The parent reads the labels of what was saved, opens
 * the collection, and holds the index that comes of it against them, the model of versions, and exact search. VECKEEP_SEED: queries.
 */
#include "tests/index/collection_util.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "index/ann_internal.h"
#include "index/faiss.h"

#define DIMS 16u
#define K 10u
#define QUERIES 60u
#define ROWS_MAX 41000u
#define BATCH 1000u
#define ADDED 150u
#define NOW_MS 1700000000000

#define NEEDS_FAISS() do { if (!vk_faiss_library(NULL)) skip(); } while (0)

/* --- the moment --- */

static atomic_int stop_at; /* at the fsync of this half-built file, until it is 0; 0: never */
static atomic_int saves;
static int reached[2];

static bool is_half_built(int fd)
{
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n < 0) return false;
	path[n] = 0;
	return strstr(path, ".part.new") != NULL;
}

int fsync(int fd)
{
	if (atomic_load(&stop_at) && is_half_built(fd) && atomic_fetch_add(&saves, 1) + 1 == atomic_load(&stop_at)) {
		if (write(reached[1], "!", 1) != 1) _exit(7);
		while (atomic_load(&stop_at)) usleep(1000);
	}
	return (int)syscall(SYS_fsync, fd);
}

/* --- a collection of n points; what becomes of them while it is built --- */

struct kind {
	const char *factory;
	uint32_t rows;
	int stop_at, stop_again; /* of the first process, of the second that goes on with it (0: there is none) */
	uint32_t ef;
	double floor;
};

/* FAISS adds 8,192 rows at a time, 4,096 of a graph; IVF and PQ are saved after training, too, unless that was quick. */
static const struct kind kinds[] = {{"IVF16,SQ8", 40000, 3, 0, 16, 0.99}, {"HNSW16", 20000, 2, 2, 300, 0.95},
				    {"PQ8", 40000, 3, 2, 0, 0.85}, {"IVF16,PQ8x4,RFlat", 40000, 2, 3, 16, 0.8},
				    {"BHNSW16", 20000, 3, 0, 300, 0}};

static const char config_format[] =
    "{\"vectors\":{\"\":{\"size\":16,\"distance\":\"Euclid\",\"veckeep\":{\"set\":1,\"index\":{\"engine\":\"faiss\",\"factory\":\"%s\"}}}},"
    "\"indexes\":{},\"hnsw_config\":{\"full_scan_threshold\":2,\"max_indexing_threads\":1},"
    "\"optimizer_config\":{\"indexing_threshold\":%u},\"veckeep\":{\"next_set\":2,\"next_field\":1}}";
static const struct vk_ann_pace pace = {.poll_ms = 5, .build_save_ms = 1, .retry_ms = 50, .save_every_ms = 20};

/* The build begins with the last batch, and stays due when some are deleted. */
static void config_of(char text[1024], const char *factory, uint32_t rows)
{
	snprintf(text, 1024, config_format, factory, rows * DIMS * 4 / 1024 - 50);
}

enum change { STAYS, REPLACED, DELETED };
/* One of `part` points is replaced; as many are deleted where few change. */
static enum change change_of(uint32_t id, uint32_t part)
{
	uint64_t s = id;
	uint64_t x = vk_rng(&s) % part;
	return x == 0 ? REPLACED : x == 1 && part > 50 ? DELETED : STAYS;
}

static void make_row(float *row, uint32_t id, uint32_t version)
{
	uint64_t s = ((uint64_t)version << 32 | id) + 1, center = vk_rng(&s) % 50;
	for (uint32_t i = 0; i < DIMS; i++) {
		uint64_t c = center * DIMS + i;
		row[i] = (float)((int64_t)(vk_rng(&c) % 700) - 350 + (int64_t)(vk_rng(&s) % 300)); /* sums of squares are exact */
	}
}

static enum vk_status put(struct vk_collection *c, const uint32_t *id, uint32_t n, uint32_t version)
{
	struct mem m;
	struct vk_op_in op = {.kind = VK_OP_UPSERT, .point_n = n};
	struct vk_write in = {.op = &op, .op_n = 1, .conf = vk_collection_config(c), .now_ms = NOW_MS};
	mem_init(&m);
	op.point = vk_arena_calloc(&m.a, n, sizeof *op.point);
	for (uint32_t i = 0; i < n; i++) {
		float *row = vk_arena_alloc(&m.a, DIMS * sizeof *row);
		struct vk_vec *v = vk_arena_calloc(&m.a, 1, sizeof *v);
		make_row(row, id[i], version);
		*v = (struct vk_vec){.conf = vk_colconf_vector(in.conf, (struct vk_bytes){0}), .row = row};
		op.point[i] = (struct vk_point_in){.id = id_number(vk_arena_alloc(&m.a, 64), id[i]), .vec = v, .vec_n = 1};
	}
	enum vk_status st = vk_collection_write_wait(c, &in);
	vk_colconf_unref(in.conf);
	mem_free(&m);
	return st;
}

static enum vk_status delete(struct vk_collection *c, const uint32_t *id, uint32_t n)
{
	struct mem m;
	struct vk_op_in op = {.kind = VK_OP_DELETE};
	struct vk_write in = {.op = &op, .op_n = 1, .conf = vk_collection_config(c), .now_ms = NOW_MS};
	mem_init(&m);
	op.ids = vk_arena_calloc(&m.a, n, sizeof *op.ids);
	for (; op.ids_n < n; op.ids_n++) op.ids[op.ids_n] = id_number(vk_arena_alloc(&m.a, 64), id[op.ids_n]);
	enum vk_status st = vk_collection_write_wait(c, &in);
	vk_colconf_unref(in.conf);
	mem_free(&m);
	return st;
}

/* All points for which `which` is what becomes of them (or all), in batches. */
static enum vk_status each_batch(struct vk_collection *c, uint32_t rows, uint32_t part, enum change which, uint32_t version)
{
	uint32_t id[BATCH], n = 0;
	enum vk_status st = VK_OK;
	for (uint32_t i = 0; !st && i <= rows; i++) {
		if (i < rows && (!version || change_of(i, part) == which)) id[n++] = i;
		if (!n || (n < BATCH && i < rows)) continue;
		st = version && which == DELETED ? delete(c, id, n) : put(c, id, n, version);
		n = 0;
	}
	return st;
}

static enum vk_status change_points(struct vk_collection *c, uint32_t rows, uint32_t part)
{
	uint32_t id[ADDED];
	enum vk_status st = each_batch(c, rows, part, REPLACED, 1);
	if (!st) st = each_batch(c, rows, part, DELETED, 1);
	for (uint32_t i = 0; i < ADDED; i++) id[i] = rows + i;
	return st ? st : put(c, id, ADDED, 0);
}

static struct vk_collection *open_at(const char *dir, struct vk_kv_writers *w, const char *text)
{
	struct vk_collection_opts o = {.writers = w, .map_bytes = (uint64_t)1 << 30, .pace = &pace};
	struct vk_collection *c;
	struct vk_error err = {0};
	return vk_collection_open(dir, vk_bytes_of(text), &o, &c, &err) ? NULL : c;
}

/* --- the child --- */

static enum vk_status edit(void *arg, const struct vk_colconf *now, struct vk_buf *json, struct vk_error *err)
{
	(void)now;
	(void)err;
	vk_buf_put(json, arg, strlen(arg));
	return VK_OK;
}

struct story {
	const char *dir;
	const struct kind *kind;
	uint32_t part;       /* of change_of(); 0: nothing changes */
	const char *factory; /* the config asks for this one then; NULL: stays */
	bool first;
};

static void live(const struct story *s)
{
	struct vk_kv_writers *w;
	struct vk_error err = {0};
	char text[1024];
	struct pollfd p = {.fd = reached[0], .events = POLLIN};
	config_of(text, s->kind->factory, s->kind->rows);
	if (vk_kv_writers_new(1, &w)) _exit(2);
	struct vk_collection *c = open_at(s->dir, w, s->first ? text : NULL);
	if (!c) _exit(2);
	if (s->first && each_batch(c, s->kind->rows, 0, STAYS, 0)) _exit(3);
	if (poll(&p, 1, 60000) != 1) _exit(4); /* it was built without being saved so often */
	if (s->part && change_points(c, s->kind->rows, s->part)) _exit(5);
	if (s->factory) {
		config_of(text, s->factory, s->kind->rows);
		if (vk_collection_configure(c, edit, text, false, &err)) _exit(6);
	}
	kill(getpid(), SIGKILL);
}

static void stop_builds(int at)
{
	assert_int_equal(pipe(reached), 0);
	atomic_store(&saves, 0);
	atomic_store(&stop_at, at);
}

static void let_builds_go(void)
{
	atomic_store(&stop_at, 0);
	close(reached[0]);
	close(reached[1]);
}

static void tell(const struct story *s, int at)
{
	int status;
	stop_builds(at);
	pid_t pid = fork();
	if (!pid) live(s);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	let_builds_go();
	if (!WIFSIGNALED(status)) fail_msg("%s: the child ended by itself: %d", s->kind->factory, WEXITSTATUS(status));
}

/* --- what was saved --- */

/* The half-built file; strays that no pointer names may lie beside it. */
static bool part_path(const char *dir, char path[600])
{
	DIR *d = opendir(dir);
	bool has = false;
	for (struct dirent *e; (e = readdir(d));) {
		size_t n = strlen(e->d_name);
		if (strncmp(e->d_name, "gen-", 4) || n < 5 || strcmp(e->d_name + n - 5, ".part")) continue;
		assert_false(has);
		has = true;
		snprintf(path, 600, "%s/%s", dir, e->d_name);
	}
	closedir(d);
	return has;
}

/* A byte a slot: 1, it is in there. */
static uint32_t labels_of(const struct vk_faiss *f, uint8_t *in)
{
	uint32_t n = (uint32_t)vk_faiss_rows(f);
	memset(in, 0, ROWS_MAX);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t slot = vk_faiss_label(f, i);
		assert_in_range(slot, 0, ROWS_MAX - 1);
		assert_int_equal(in[slot], 0);
		in[slot] = 1;
	}
	return n;
}

static uint32_t saved_labels(const char *dir, uint8_t *in)
{
	char path[600];
	struct vk_faiss *f;
	struct vk_error err = {0};
	uint64_t sequence;
	uint8_t tag[32];
	assert_true(part_path(dir, path));
	if (vk_faiss_open(path, true, &f, &sequence, tag, &err)) fail_msg("%s", err.text);
	assert_true(vk_faiss_partial(f));
	uint32_t n = labels_of(f, in);
	vk_faiss_free(f);
	return n;
}

/* --- what became of it --- */

struct world {
	struct temp dir;
	char path[300], scratch[300];
	struct vk_kv_writers *writers;
	struct vk_collection *c;
	const struct kind *kind;
	uint32_t part, live, changed;
	uint8_t was[ROWS_MAX], is[ROWS_MAX]; /* slots in the half-built index, in the finished one */
	uint64_t rng;
	unsigned good, all;
};

static void world_make(struct world *w, const struct kind *k, uint32_t part)
{
	memset(w, 0, sizeof *w);
	w->kind = k;
	w->part = part;
	w->rng = model_seed("ann_resume");
	w->live = k->rows;
	for (uint32_t i = 0; part && i < k->rows; i++) {
		w->live -= change_of(i, part) == DELETED;
		w->changed += change_of(i, part) != STAYS;
	}
	if (part) w->live += ADDED, w->changed += ADDED;
	temp_make(&w->dir);
	snprintf(w->path, sizeof w->path, "%s/c", w->dir.path);
	snprintf(w->scratch, sizeof w->scratch, "%s/s", w->dir.path);
}

static void world_open(struct world *w)
{
	assert_int_equal(vk_kv_writers_new(1, &w->writers), VK_OK);
	assert_non_null(w->c = open_at(w->path, w->writers, NULL));
}

static void world_close(struct world *w)
{
	vk_collection_unref(w->c);
	vk_kv_writers_free(w->writers); /* no thread may live over a fork */
}

static struct vk_ann_info info(struct world *w)
{
	struct vk_ann_info i;
	assert_int_equal(vk_ann_info(vk_collection_ann(w->c), 1, &i), VK_OK);
	return i;
}

/* Slots of points that stayed as they were are in it; of the others only what had been saved. */
static enum vk_status each_row_once(void *arg, struct vk_view *v)
{
	struct world *w = arg;
	uint32_t stayed_slots = 0, want = 0, is = 0, *stays = calloc(ROWS_MAX, sizeof *stays);
	for (uint32_t i = 0; i < w->kind->rows; i++) {
		uint8_t key[64];
		uint32_t slot;
		if (w->part && change_of(i, w->part) != STAYS) continue;
		assert_int_equal(vk_view_slot(v, id_number(key, i), &slot), VK_OK);
		stays[slot] = 1;
		stayed_slots++;
	}
	for (uint32_t slot = 0; slot < ROWS_MAX; slot++) {
		if (w->is[slot] != (stays[slot] || w->was[slot])) fail_msg("slot %u: %s", slot, w->is[slot] ? "too much" : "missing");
		want += stays[slot] || w->was[slot];
		is += w->is[slot];
	}
	assert_int_equal(is, want);
	assert_true(stayed_slots > w->kind->rows / 2);
	free(stays);
	return VK_OK;
}

static void judge_query(struct world *w, struct vk_view *v, uint32_t i, struct vk_arena *a)
{
	struct vk_error err = {0};
	struct vk_exact_opts o = {.level = vk_cpu_best()};
	struct vk_ann_found found;
	float row[DIMS];
	/* Where points are, were (version 0 of one that was replaced or deleted), or came to be. */
	uint32_t id = (uint32_t)(vk_rng(&w->rng) % (w->kind->rows + ADDED));
	for (uint32_t to = id + w->kind->rows / 2; w->part && i % 3 && id < to && change_of(id, w->part) == STAYS;) id++;
	make_row(row, id, i % 3 == 2);
	struct vk_exact_query exact = {.vector = row, .limit = K, .floor = -INFINITY};
	struct vk_ann_query near = {.q = exact, .ef = w->kind->ef};
	assert_int_equal(vk_exact_search(v, &v->conf->vectors[0].set, &exact, 1, &o, a, NULL, &err), VK_OK);
	assert_int_equal(vk_ann_search(v, &v->conf->vectors[0].set, &near, 1, &o, a, &found, &err), VK_OK);
	assert_true(found.approximate);
	assert_int_equal(exact.hits, K);
	assert_int_equal(near.q.hits, K);
	for (size_t h = 0; h < K; h++) {
		struct vk_point p;
		float own;
		assert_int_equal(vk_view_point(v, near.q.hit[h].slot, &p), VK_OK);
		assert_int_equal(vk_exact_rank(v, &v->conf->vectors[0].set, row, near.q.hit[h].slot, &own), VK_OK);
		assert_true(own == near.q.hit[h].rank); /* by the vector that it has now */
		for (size_t j = 0; j < h; j++) assert_true(near.q.hit[j].slot != near.q.hit[h].slot);
		w->good += near.q.hit[h].rank >= exact.hit[K - 1].rank;
		w->all++;
	}
}

static enum vk_status judge(void *arg, struct vk_view *v)
{
	struct world *w = arg;
	struct vk_arena a;
	vk_arena_init(&a, (size_t)1 << 28);
	for (uint32_t i = 0; i < QUERIES; i++) judge_query(w, v, i, &a);
	vk_arena_free(&a);
	assert_int_equal(vk_view_points(v), w->live);
	return VK_OK;
}

static void answers_well(struct world *w)
{
	w->good = w->all = 0;
	assert_int_equal(vk_view_run(w->c, NOW_MS, NULL, judge, w), VK_OK);
	double recall = (double)w->good / w->all;
	print_message("%-18s recall %.3f\n", w->kind->factory, recall);
	assert_true(recall >= w->kind->floor);
}

/* The index serves from this moment on, resumed so often. */
static void becomes_ready(struct world *w, unsigned resumed)
{
	char path[600];
	struct vk_ann *ann = vk_collection_ann(w->c);
	assert_int_equal(vk_ann_wait(ann, 120000), VK_OK);
	assert_int_equal(vk_ann_find(ann, 1)->resumed, resumed);
	if (info(w).state != VK_ANN_READY) fail_msg("%s: %s", vk_ann_state_names[info(w).state], info(w).error);
	assert_false(vk_ann_find(ann, 1)->has_part);
	assert_false(part_path(w->path, path));
	assert_false(vk_faiss_partial(vk_ann_find(ann, 1)->gen->self));
	uint32_t n = labels_of(vk_ann_find(ann, 1)->gen->self, w->is);
	assert_int_equal(info(w).rows, n);
}

static void ready_again_after_a_restart(struct world *w)
{
	collection_check(w->c, w->scratch);
	world_close(w);
	world_open(w);
	assert_true(info(w).serving); /* at once: its file is a finished one */
	answers_well(w);
	becomes_ready(w, 0);
	world_close(w);
	temp_free(&w->dir);
}

static void goes_on(const struct kind *k)
{
	static struct world w;
	uint32_t again[] = {5, 77, 1234, 9000}, had, n = 0;
	world_make(&w, k, 130);
	tell(&(struct story){.dir = w.path, .kind = k, .part = w.part, .first = true}, k->stop_at);
	had = saved_labels(w.path, w.was);
	if (k->stop_again) {
		tell(&(struct story){.dir = w.path, .kind = k}, k->stop_again);
		uint32_t before = had;
		had = saved_labels(w.path, w.was);
		assert_true(had > before);
	}
	print_message("%-18s %u of %u rows were saved\n", k->factory, had, k->rows);
	assert_in_range(had, 1, k->rows - 2000);
	world_open(&w);
	for (uint32_t i = 0; i < sizeof again / sizeof *again; i++) /* while it goes on; of points that are the delta's as it is */
		for (uint32_t id = again[i]; ; id++)
			if (change_of(id, w.part) == REPLACED) {
				again[n++] = id;
				break;
			}
	assert_int_equal(put(w.c, again, n, 1), VK_OK);
	becomes_ready(&w, 1);
	assert_int_equal(info(&w).pending, w.changed);
	assert_int_equal(vk_view_run(w.c, NOW_MS, NULL, each_row_once, &w), VK_OK);
	answers_well(&w);
	ready_again_after_a_restart(&w);
}

static void test_ann_resume_of_lists_goes_on(void **state)
{
	(void)state;
	NEEDS_FAISS();
	goes_on(&kinds[0]);
}

static void test_ann_resume_of_a_graph_goes_on_twice(void **state)
{
	(void)state;
	NEEDS_FAISS();
	goes_on(&kinds[1]);
}

static void test_ann_resume_of_codes_goes_on(void **state)
{
	(void)state;
	NEEDS_FAISS();
	goes_on(&kinds[2]);
	goes_on(&kinds[3]);
}

static void test_ann_resume_of_signs_goes_on(void **state)
{
	(void)state;
	NEEDS_FAISS();
	goes_on(&kinds[4]);
}

/* The parent's own build, gone on with, stands still at its first save. */
static void stand_in_the_middle(struct world *w)
{
	world_make(w, &kinds[0], 130);
	tell(&(struct story){.dir = w->path, .kind = w->kind, .part = w->part, .first = true}, 3);
	uint32_t had = saved_labels(w->path, w->was);
	stop_builds(1);
	world_open(w);
	struct pollfd p = {.fd = reached[0], .events = POLLIN};
	assert_int_equal(poll(&p, 1, 60000), 1);
	struct vk_ann_info at = info(w);
	assert_int_equal(at.state, VK_ANN_BUILDING);
	assert_true(had > 0 && at.done > had); /* what was there counts */
	assert_in_range(at.total, w->kind->rows - w->changed, w->kind->rows);
	assert_true(at.done < at.total);
}

static void test_ann_resume_is_cancelled_as_a_first_build(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static struct world w;
	char path[600];
	stand_in_the_middle(&w);
	struct vk_ann *ann = vk_collection_ann(w.c);
	assert_int_equal(vk_ann_cancel(ann, 1), VK_OK);
	let_builds_go();
	assert_int_equal(vk_ann_wait(ann, 60000), VK_OK);
	assert_int_equal(info(&w).state, VK_ANN_CANCELLED);
	assert_false(info(&w).serving);
	assert_false(part_path(w.path, path));
	assert_int_equal(vk_ann_rebuild(ann, 1), VK_OK);
	becomes_ready(&w, 1); /* the one that was cancelled */
	assert_int_equal(info(&w).rows, w.live);
	answers_well(&w);
	ready_again_after_a_restart(&w);
}

static void *let_go_soon(void *arg)
{
	usleep(200000);
	let_builds_go();
	return arg;
}

static void test_ann_resume_goes_on_after_it_was_closed_in_the_middle(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static struct world w;
	pthread_t thread;
	stand_in_the_middle(&w);
	uint32_t had = saved_labels(w.path, w.was);
	assert_int_equal(pthread_create(&thread, NULL, let_go_soon, NULL), 0);
	world_close(&w); /* waits for the build to give up */
	pthread_join(thread, NULL);
	assert_true(saved_labels(w.path, w.was) > had); /* by the save that stood */
	world_open(&w);
	becomes_ready(&w, 1);
	assert_int_equal(vk_view_run(w.c, NOW_MS, NULL, each_row_once, &w), VK_OK);
	answers_well(&w);
	ready_again_after_a_restart(&w);
}

/* Built from the beginning: of all that is there now, whatever was saved. */
static void begins_again(struct world *w)
{
	world_open(w);
	becomes_ready(w, 0);
	assert_int_equal(info(w).rows, w->live);
	assert_int_equal(info(w).pending, 0);
	answers_well(w);
	ready_again_after_a_restart(w);
}

static void test_ann_resume_of_a_damaged_file_begins_again(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static struct world w;
	char path[600];
	struct stat s;
	world_make(&w, &kinds[0], 130);
	tell(&(struct story){.dir = w.path, .kind = w.kind, .part = w.part, .first = true}, 3);
	assert_true(part_path(w.path, path));
	int fd = open(path, O_RDWR);
	uint8_t byte;
	assert_int_equal(fstat(fd, &s), 0);
	assert_int_equal(pread(fd, &byte, 1, s.st_size / 2), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, s.st_size / 2), 1);
	close(fd);
	begins_again(&w);
}

static void test_ann_resume_of_another_factory_begins_again(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static struct world w;
	static const struct kind other = {"IVF8,Flat", 40000, 0, 0, 8, 0.99};
	world_make(&w, &kinds[0], 130);
	tell(&(struct story){.dir = w.path, .kind = w.kind, .part = w.part, .factory = other.factory, .first = true}, 3);
	w.kind = &other;
	begins_again(&w);
}

static void test_ann_resume_of_what_was_overtaken_begins_again(void **state)
{
	(void)state;
	NEEDS_FAISS();
	static struct world w;
	world_make(&w, &kinds[0], 4);
	assert_true(w.changed > w.kind->rows / 5);
	tell(&(struct story){.dir = w.path, .kind = w.kind, .part = w.part, .first = true}, 3);
	assert_true(saved_labels(w.path, w.was) > 0);
	begins_again(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ann_resume_of_lists_goes_on),
	    cmocka_unit_test(test_ann_resume_of_a_graph_goes_on_twice),
	    cmocka_unit_test(test_ann_resume_of_codes_goes_on),
	    cmocka_unit_test(test_ann_resume_of_signs_goes_on),
	    cmocka_unit_test(test_ann_resume_is_cancelled_as_a_first_build),
	    cmocka_unit_test(test_ann_resume_goes_on_after_it_was_closed_in_the_middle),
	    cmocka_unit_test(test_ann_resume_of_a_damaged_file_begins_again),
	    cmocka_unit_test(test_ann_resume_of_another_factory_begins_again),
	    cmocka_unit_test(test_ann_resume_of_what_was_overtaken_begins_again),
	};
	vk_log_set_level(VK_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
