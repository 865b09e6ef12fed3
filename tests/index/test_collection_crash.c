/*
 * Goal: kill -9 at any moment loses no acknowledged write, leaves none half done, and no background work
 * unfinished for good. Method: a child writes to a collection and tells each acknowledged write over a
 * pipe, while sealing runs all the time, indexes are made and dropped and a vector comes and goes; it is
 * killed after a random time; the parent opens what is left, replays the same seeded writes in memory and
 * compares: the store is at the last acknowledged write, or at the one after it, whole. Every table is
 * checked against the others. Thirty rounds on one directory. VECKEEP_SEED replays the writes (not the
 * moments).
 */
#include "tests/index/collection_util.h"

#include <signal.h>
#include <sys/wait.h>

#define ROUNDS 30
#define IDS 600
#define DIMS 48

static const char config[] = "{\"vectors\":{\"\":{\"size\":48,\"distance\":\"Dot\",\"veckeep\":{\"set\":1}}},\"indexes\":{},"
			     "\"veckeep\":{\"next_set\":2,\"next_field\":1}}";

struct point {
	uint64_t write; /* number of the write that it is of; 0: not there */
};

/* Write number n: a third deletes, the rest upserts; all rows and payloads follow from n and the id. */
struct plan {
	bool deletes;
	uint32_t first, count; /* ids first, first + 7, ... mod IDS */
};

static struct plan plan_of(uint64_t seed, uint64_t n)
{
	uint64_t s = seed ^ n * 0x9e3779b97f4a7c15u;
	struct plan p;
	p.deletes = vk_rng(&s) % 4 == 0;
	p.first = (uint32_t)(vk_rng(&s) % IDS);
	p.count = 1 + (uint32_t)(vk_rng(&s) % 60);
	return p;
}

static uint32_t id_at(const struct plan *p, uint32_t k) { return (p->first + 7 * k) % IDS; }

static void payload_of(char text[64], uint64_t n, uint32_t id)
{
	sprintf(text, "{\"w\":%llu,\"k\":\"x%u\"}", (unsigned long long)n, id % 5);
}

static enum vk_status write_plan(struct vk_collection *c, uint64_t seed, uint64_t n)
{
	struct mem m;
	struct plan p = plan_of(seed, n);
	struct vk_op_in op = {.kind = p.deletes ? VK_OP_DELETE : VK_OP_UPSERT};
	struct vk_write in = {.op = &op, .op_n = 1, .conf = vk_collection_config(c), .now_ms = 1700000000000};
	const struct vk_vector_conf *extra = vk_colconf_vector(in.conf, VK_LIT("extra"));
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
		char *text = vk_arena_alloc(&m.a, 64);
		float *row = vk_arena_alloc(&m.a, DIMS * sizeof *row);
		payload_of(text, n, id);
		row_of(row, DIMS, n * IDS + id);
		in_p->id = key;
		in_p->vec = vk_arena_calloc(&m.a, 2, sizeof *in_p->vec);
		in_p->vec[in_p->vec_n++] = (struct vk_vec){.conf = vk_colconf_vector(in.conf, (struct vk_bytes){0}), .row = row};
		if (extra) in_p->vec[in_p->vec_n++] = (struct vk_vec){.conf = extra, .row = row};
		in_p->payload = vk_bytes_of(text);
		in_p->payload_jv = mem_json(&m, in_p->payload);
	}
	enum vk_status st = vk_collection_write_wait(c, &in);
	vk_colconf_unref(in.conf);
	mem_free(&m);
	return st;
}

/* --- the child --- */

struct toggle {
	int k;
};

/* An index on k or w, or a second vector, comes or goes. */
static enum vk_status edit_config(void *arg, const struct vk_colconf *now, struct vk_buf *b, struct vk_error *err)
{
	static const char *const path[2] = {"k", "w"}, *const type[2] = {"keyword", "integer"};
	const struct toggle *t = arg;
	uint32_t set = now->next_set, field = now->next_field;
	const struct vk_vector_conf *old = vk_colconf_vector(now, VK_LIT("extra"));
	(void)err;
	vk_buf_puts(b, "{\"vectors\":{\"\":{\"size\":48,\"distance\":\"Dot\",\"veckeep\":{\"set\":1}}");
	if ((old != NULL) != (t->k == 2))
		vk_buf_printf(b, ",\"extra\":{\"size\":9,\"distance\":\"Dot\",\"veckeep\":{\"set\":%u}}", old ? old->set.id : set++);
	vk_buf_puts(b, "},\"indexes\":{");
	const char *comma = "";
	for (int i = 0; i < 2; i++) {
		const struct vk_field_conf *f = vk_colconf_field(now, vk_bytes_of(path[i]));
		if ((f != NULL) == (t->k == i)) continue;
		vk_buf_printf(b, "%s\"%s\":{\"field\":%u,\"type\":\"%s\",\"state\":\"%s\"}", comma, path[i], f ? f->field : field++,
			      type[i], f && f->ready ? "ready" : "building");
		comma = ",";
	}
	vk_buf_printf(b, "},\"veckeep\":{\"next_set\":%u,\"next_field\":%u}}", set, field);
	return VK_OK;
}

struct side {
	struct vk_collection *c;
	uint64_t rng;
};

static void *seal_all_the_time(void *arg)
{
	struct side *s = arg;
	for (;;) {
		struct toggle t = {(int)(vk_rng(&s->rng) % 3)};
		if (vk_collection_seal(s->c)) _exit(3);
		if (vk_rng(&s->rng) % 3 == 0 && vk_collection_configure(s->c, edit_config, &t, false, NULL)) _exit(4);
	}
	return NULL;
}

static void child(const char *dir, int pipe_fd, uint64_t seed, uint64_t next)
{
	struct vk_kv_writers *w;
	struct vk_error err;
	struct vk_collection_opts o = {.map_bytes = (uint64_t)1 << 30};
	struct side s = {.rng = seed ^ next};
	pthread_t thread;
	if (vk_kv_writers_new(2, &w)) _exit(2);
	o.writers = w;
	if (vk_collection_open(dir, (struct vk_bytes){0}, &o, &s.c, &err)) _exit(2);
	if (pthread_create(&thread, NULL, seal_all_the_time, &s)) _exit(2);
	for (uint64_t n = next;; n++) {
		enum vk_status st;
		while ((st = write_plan(s.c, seed, n)) == VK_E_INVALID) {} /* the second vector went meanwhile */
		if (st) _exit(5);
		if (write(pipe_fd, &n, sizeof n) != sizeof n) _exit(6);
	}
}

/* --- the parent --- */

static void apply(struct point *model, uint64_t seed, uint64_t n)
{
	struct plan p = plan_of(seed, n);
	for (uint32_t k = 0; k < p.count; k++) model[id_at(&p, k)].write = p.deletes ? 0 : n;
}

/* Is the store what the model says? */
static bool agrees(struct vk_view *v, const struct point *model)
{
	const struct vk_vector_conf *conf = vk_colconf_vector(v->conf, (struct vk_bytes){0});
	uint64_t points = 0;
	for (uint32_t i = 0; i < IDS; i++) {
		uint8_t key[64];
		uint32_t slot;
		char want[64];
		float row[DIMS], got[DIMS];
		struct vk_point p;
		struct vk_row r;
		enum vk_status st = vk_view_slot(v, id_number(key, i), &slot);
		if (!model[i].write != (st == VK_E_NOT_FOUND)) return false;
		if (st) continue;
		points++;
		if (vk_view_point(v, slot, &p)) return false;
		payload_of(want, model[i].write, i);
		row_of(row, DIMS, model[i].write * IDS + i);
		if (!vk_bytes_is(p.payload, want) || vk_vset_row(v->t, &conf->set, slot, &r)) return false;
		vk_row_f32(&conf->set, &r, false, got);
		if (memcmp(row, got, sizeof row) != 0) return false;
	}
	return points == vk_view_points(v);
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

static void wait_for_background(struct vk_collection *c)
{
	struct vk_collection_stats s;
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(vk_collection_stats(c, &s), VK_OK);
		if (!s.building) return;
		usleep(10000);
	}
	fail_msg("an index is never ready");
}

static void test_collection_killed_keeps_what_it_acknowledged(void **state)
{
	(void)state;
	struct temp dir;
	char path[300], scratch[300];
	struct vk_kv_writers *w;
	struct point *model = calloc(IDS, sizeof *model);
	uint64_t seed = model_seed("collection_crash"), moment = seed, done = 0, lucky = 0;
	temp_make(&dir);
	snprintf(path, sizeof path, "%s/c", dir.path);
	snprintf(scratch, sizeof scratch, "%s/s", dir.path);
	assert_int_equal(vk_kv_writers_new(1, &w), VK_OK);
	vk_collection_unref(collection_open(path, config, w));
	vk_kv_writers_free(w); /* no thread may live over the fork */
	for (int round = 0; round < ROUNDS; round++) {
		struct vk_view v;
		uint64_t acked = run_child(path, seed, done + 1, 20 + (unsigned)(vk_rng(&moment) % 250));
		while (done < acked) apply(model, seed, ++done);
		assert_int_equal(vk_kv_writers_new(1, &w), VK_OK);
		struct vk_collection *c = collection_open(path, NULL, w);
		assert_int_equal(vk_view_begin(c, 0, &v), VK_OK);
		if (!agrees(&v, model)) {
			apply(model, seed, ++done); /* committed, its word did not get out */
			lucky++;
			if (!agrees(&v, model)) fail_msg("round %d: the store is at neither write %llu nor %llu", round,
							 (unsigned long long)done - 1, (unsigned long long)done);
		}
		vk_view_end(&v);
		wait_for_background(c);
		collection_check(c, scratch);
		vk_collection_unref(c);
		vk_kv_writers_free(w);
	}
	print_message("%llu writes, %llu committed unacknowledged\n", (unsigned long long)done, (unsigned long long)lucky);
	assert_true(done > ROUNDS);
	free(model);
	temp_free(&dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_collection_killed_keeps_what_it_acknowledged),
	};
	vk_log_set_level(VK_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
