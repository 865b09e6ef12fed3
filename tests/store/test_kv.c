/*
 * Goal: tables behave as ordered maps; what is committed stays and is seen whole; views do not move; groups fail
 * only for who is at fault; background work lets foreground work pass; maps grow; full and broken disks are
 * told apart and cost no reads; closing loses nothing.
 * Method: random jobs against a model (sorted arrays, copied for each view); a job that waits at a gate lets a test
 * fill the queue behind it; pwrite and fdatasync of LMDB replaced and failed on demand; a tmpfs of 8 MiB (as root).
 */
#include "tests/store/disk_faults.h"
#include "tests/store/util.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>

#include "store/env.h"
#include "store/kv.h"

enum { T_A, T_B, T_N };
static const char *const tables[T_N] = {"a", "b"};

struct fix {
	struct temp dir;
	struct vk_kv_writers *writers;
	struct vk_kv *kv;
};

static void reopen(struct fix *f, uint64_t map_bytes)
{
	struct vk_error err = {0};
	struct vk_kv_opts o = {.map_bytes = map_bytes, .tables = tables, .tables_n = T_N, .writers = f->writers};
	vk_kv_close(f->kv);
	if (vk_kv_open(f->dir.path, &o, &f->kv, &err)) fail_msg("%s", err.text);
}

static void fix_make(struct fix *f, uint64_t map_bytes)
{
	*f = (struct fix){0};
	temp_make(&f->dir);
	assert_int_equal(vk_kv_writers_new(2, &f->writers), VK_OK);
	reopen(f, map_bytes);
}

static void fix_free(struct fix *f)
{
	vk_kv_close(f->kv);
	vk_kv_writers_free(f->writers);
	temp_free(&f->dir);
}

/* The model: two sorted arrays. */

#define MODEL_MAX 4096
#define VALUE_MAX 9000

struct entry {
	uint8_t key_n;
	char key[24];
	uint32_t value_n, value_seed;
};
struct model {
	struct entry e[T_N][MODEL_MAX];
	size_t n[T_N];
};

static int key_cmp(struct vk_bytes a, struct vk_bytes b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = n ? memcmp(a.p, b.p, n) : 0;
	return c ? c : (a.n > b.n) - (a.n < b.n);
}

static struct vk_bytes entry_key(const struct entry *e)
{
	return (struct vk_bytes){e->key, e->key_n};
}

/* Index of the first entry >= key. */
static size_t model_at(const struct model *m, unsigned t, struct vk_bytes key)
{
	size_t lo = 0, hi = m->n[t];
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (key_cmp(entry_key(&m->e[t][mid]), key) < 0) lo = mid + 1;
		else hi = mid;
	}
	return lo;
}

static bool model_has(const struct model *m, unsigned t, struct vk_bytes key)
{
	size_t i = model_at(m, t, key);
	return i < m->n[t] && vk_bytes_eq(entry_key(&m->e[t][i]), key);
}

static void model_put(struct model *m, unsigned t, const struct entry *e)
{
	size_t i = model_at(m, t, entry_key(e));
	if (!model_has(m, t, entry_key(e))) {
		assert_true(m->n[t] < MODEL_MAX);
		memmove(&m->e[t][i + 1], &m->e[t][i], (m->n[t] - i) * sizeof *e);
		m->n[t]++;
	}
	m->e[t][i] = *e;
}

static void model_cut(struct model *m, unsigned t, size_t from, size_t to)
{
	memmove(&m->e[t][from], &m->e[t][to], (m->n[t] - to) * sizeof(struct entry));
	m->n[t] -= to - from;
}

static void value_of(const struct entry *e, char *dst)
{
	uint64_t s = e->value_seed;
	for (uint32_t i = 0; i < e->value_n; i++) dst[i] = (char)(vk_rng(&s) >> 56);
}

static void same_value(const struct entry *e, struct vk_bytes v)
{
	static __thread char want[VALUE_MAX];
	assert_int_equal(v.n, e->value_n);
	value_of(e, want);
	assert_memory_equal(v.p, want, v.n ? v.n : 0);
}

static void same_entry(const struct entry *e, struct vk_bytes k, struct vk_bytes v)
{
	assert_true(vk_bytes_eq(entry_key(e), k));
	same_value(e, v);
}

static struct entry random_entry(uint64_t *rng)
{
	struct entry e = {0};
	e.key_n = (uint8_t)(1 + vk_rng(rng) % 6);
	for (int i = 0; i < e.key_n; i++) e.key[i] = "\0abz\xff"[vk_rng(rng) % 5];
	uint64_t kind = vk_rng(rng) % 10;
	e.value_n = (uint32_t)(kind == 0 ? 0 : kind == 1 ? vk_rng(rng) % VALUE_MAX : vk_rng(rng) % 100);
	e.value_seed = (uint32_t)vk_rng(rng);
	return e;
}

/* All of the view is the model, by every way of reading. */
static void same_as_model(struct vk_kv_txn *v, const struct model *m, uint64_t *rng)
{
	struct vk_bytes k, val;
	for (unsigned t = 0; t < T_N; t++) {
		struct vk_kv_cursor *c;
		assert_int_equal(vk_kv_entries(v, t), m->n[t]);
		assert_int_equal(vk_kv_cursor_open(v, t, &c), VK_OK);
		for (size_t i = 0; i < m->n[t]; i++) {
			assert_int_equal(vk_kv_next(c, &k, &val), VK_OK);
			same_entry(&m->e[t][i], k, val);
		}
		assert_int_equal(vk_kv_next(c, &k, &val), VK_E_NOT_FOUND);
		enum vk_status st = vk_kv_seek_before(c, (struct vk_bytes){0}, &k, &val);
		for (size_t i = m->n[t]; i-- > 0; st = vk_kv_prev(c, &k, &val)) {
			assert_int_equal(st, VK_OK);
			same_entry(&m->e[t][i], k, val);
		}
		assert_int_equal(st, VK_E_NOT_FOUND);
		for (int i = 0; i < 50; i++) {
			struct entry e = random_entry(rng);
			size_t at = model_at(m, t, entry_key(&e));
			st = vk_kv_seek(c, entry_key(&e), &k, &val);
			assert_int_equal(st, at < m->n[t] ? VK_OK : VK_E_NOT_FOUND);
			if (!st) same_entry(&m->e[t][at], k, val);
			st = vk_kv_seek_before(c, entry_key(&e), &k, &val);
			assert_int_equal(st, at ? VK_OK : VK_E_NOT_FOUND);
			if (!st) same_entry(&m->e[t][at - 1], k, val);
			st = vk_kv_get(v, t, entry_key(&e), &val);
			assert_int_equal(st, model_has(m, t, entry_key(&e)) ? VK_OK : VK_E_NOT_FOUND);
			if (!st) same_value(&m->e[t][at], val);
		}
		vk_kv_cursor_close(c);
	}
}

/* A random job: some changes to both, and how it ends. */

enum ending { ENDS_WELL, REFUSES_FIRST, FAILS_LATE };
struct random_job {
	struct model *m; /* changed by apply as well; the caller keeps the old one */
	struct model *work;
	uint64_t seed;
	enum ending ending;
	unsigned applied, committed, done;
};

static void random_range_del(struct vk_kv_txn *t, struct model *m, uint64_t *rng)
{
	unsigned table = vk_rng(rng) % T_N;
	struct entry at = random_entry(rng);
	struct vk_kv_cursor *c;
	struct vk_bytes k, v;
	size_t from = model_at(m, table, entry_key(&at)), i = from, n = vk_rng(rng) % 40;
	assert_int_equal(vk_kv_cursor_open(t, table, &c), VK_OK);
	enum vk_status st = vk_kv_seek(c, entry_key(&at), &k, &v);
	for (; n-- > 0 && i < m->n[table]; i++) {
		assert_int_equal(st, VK_OK);
		same_entry(&m->e[table][i], k, v);
		assert_int_equal(vk_kv_cursor_del(c), VK_OK);
		st = vk_kv_next(c, &k, &v);
	}
	assert_int_equal(st, i < m->n[table] ? VK_OK : VK_E_NOT_FOUND);
	if (!st) same_entry(&m->e[table][i], k, v);
	model_cut(m, table, from, i);
	if (vk_rng(rng) % 2) vk_kv_cursor_close(c); /* else with the transaction */
}

static void random_change(struct vk_kv_txn *t, struct model *m, uint64_t *rng)
{
	unsigned table = vk_rng(rng) % T_N;
	struct entry e = random_entry(rng);
	char value[VALUE_MAX];
	void *dst;
	value_of(&e, value);
	switch (vk_rng(rng) % 4) {
	case 0:
	case 1:
		assert_int_equal(vk_kv_put(t, table, entry_key(&e), (struct vk_bytes){value, e.value_n}), VK_OK);
		model_put(m, table, &e);
		break;
	case 2:
		assert_int_equal(vk_kv_put_reserve(t, table, entry_key(&e), e.value_n, &dst), VK_OK);
		memcpy(dst, value, e.value_n);
		model_put(m, table, &e);
		break;
	default: {
		bool has = model_has(m, table, entry_key(&e));
		size_t i = model_at(m, table, entry_key(&e));
		assert_int_equal(vk_kv_del(t, table, entry_key(&e)), has ? VK_OK : VK_E_NOT_FOUND);
		if (has) model_cut(m, table, i, i + 1);
	}
	}
}

static enum vk_status random_apply(void *arg, struct vk_kv_txn *t)
{
	struct random_job *j = arg;
	uint64_t rng = j->seed;
	j->applied++;
	if (j->ending == REFUSES_FIRST) return VK_E_CONFLICT;
	*j->work = *j->m;
	for (uint64_t n = vk_rng(&rng) % 30 + 1; n-- > 0;) random_change(t, j->work, &rng);
	if (vk_rng(&rng) % 4 == 0) random_range_del(t, j->work, &rng);
	if (j->ending == FAILS_LATE) {
		assert_int_equal(vk_kv_put(t, T_A, VK_LIT("late"), VK_LIT("x")), VK_OK);
		return VK_E_INVALID;
	}
	same_as_model(t, j->work, &rng);
	return VK_OK;
}

static void random_committed(void *arg)
{
	struct random_job *j = arg;
	j->committed++;
	*j->m = *j->work;
}

static void random_done(void *arg, enum vk_status st)
{
	struct random_job *j = arg;
	(void)st;
	j->done++;
}

#define VIEWS 4

static void test_kv_random_jobs_behave_as_a_map(void **state)
{
	(void)state;
	struct fix f;
	uint64_t rng = test_seed("kv_random");
	struct model *m = calloc(VIEWS + 2, sizeof *m), *work = m + 1, *seen = m + 2;
	struct vk_kv_txn *view[VIEWS] = {0};
	uint64_t id[VIEWS] = {0};
	fix_make(&f, 0);
	for (int round = 0; round < 600; round++) {
		static const enum vk_status want[] = {VK_OK, VK_E_CONFLICT, VK_E_INVALID};
		uint64_t dice = vk_rng(&rng) % 10;
		struct random_job j = {.m = m, .work = work, .seed = vk_rng(&rng)};
		struct vk_kv_job job = {.apply = random_apply, .committed = random_committed, .done = random_done,
					.arg = &j, .bytes = 100, .background = dice == 9};
		j.ending = dice == 0 ? REFUSES_FIRST : dice == 1 ? FAILS_LATE : ENDS_WELL;
		assert_int_equal(vk_kv_run(f.kv, &job), want[j.ending]);
		assert_int_equal(j.done, 1);
		assert_int_equal(j.committed, j.ending == ENDS_WELL);
		/* One view a slot, opened now and looked at again much later. */
		int slot = (int)(vk_rng(&rng) % VIEWS);
		if (view[slot]) {
			assert_int_equal(vk_kv_moment(view[slot]).txn, id[slot]);
			same_as_model(view[slot], &seen[slot], &rng);
			vk_kv_view_end(view[slot]);
		}
		assert_int_equal(vk_kv_view_begin(f.kv, &view[slot]), VK_OK);
		id[slot] = vk_kv_moment(view[slot]).txn;
		seen[slot] = *m;
		if (round % 100 == 99) {
			for (int i = 0; i < VIEWS; i++) vk_kv_view_end(view[i]);
			memset(view, 0, sizeof view);
			reopen(&f, 0);
		}
	}
	for (int i = 0; i < VIEWS; i++) vk_kv_view_end(view[i]);
	fix_free(&f);
	free(m);
}

static enum vk_status odd_keys(void *arg, struct vk_kv_txn *t)
{
	static char longest[VK_KV_KEY_MAX + 1];
	struct vk_bytes ok = {longest, VK_KV_KEY_MAX}, over = {longest, VK_KV_KEY_MAX + 1}, v;
	(void)arg;
	memset(longest, 'k', sizeof longest);
	assert_int_equal(vk_kv_put(t, T_A, over, ok), VK_E_INVALID);
	assert_int_equal(vk_kv_put(t, T_A, (struct vk_bytes){"", 0}, ok), VK_E_INVALID);
	assert_int_equal(vk_kv_del(t, T_A, over), VK_E_NOT_FOUND);
	assert_int_equal(vk_kv_get(t, T_A, over, &v), VK_E_NOT_FOUND);
	assert_int_equal(vk_kv_get(t, T_A, (struct vk_bytes){"", 0}, &v), VK_E_NOT_FOUND);
	assert_int_equal(vk_kv_put(t, T_A, ok, ok), VK_OK);
	return vk_kv_get(t, T_A, ok, &v);
}

static void test_kv_keys_out_of_range_are_refused_alone(void **state)
{
	(void)state;
	struct fix f;
	struct vk_kv_job job = {.apply = odd_keys};
	fix_make(&f, 0);
	assert_int_equal(vk_kv_run(f.kv, &job), VK_OK);
	fix_free(&f);
}

/* A gate: a job whose apply waits. */

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool reached, open;
	struct vk_kv_job job;
};

static enum vk_status gate_apply(void *arg, struct vk_kv_txn *t)
{
	struct gate *g = arg;
	(void)t;
	pthread_mutex_lock(&g->lock);
	g->reached = true;
	pthread_cond_broadcast(&g->cond);
	while (!g->open) pthread_cond_wait(&g->cond, &g->lock);
	pthread_mutex_unlock(&g->lock);
	return VK_OK;
}

/* Returns when the writer stands at it. */
static void gate_shut(struct gate *g, struct vk_kv *kv)
{
	*g = (struct gate){.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
	g->job = (struct vk_kv_job){.apply = gate_apply, .arg = g};
	assert_int_equal(vk_kv_submit(kv, &g->job), VK_OK);
	pthread_mutex_lock(&g->lock);
	while (!g->reached) pthread_cond_wait(&g->cond, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->open = true;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
}

/* Jobs that put one number each and note the order of things. */

struct events {
	_Atomic unsigned n;
	_Atomic int what[100000];
};

struct one {
	struct vk_kv_job job;
	struct vk_kv *kv;
	struct events *events;
	int number;
	size_t value_n;
	enum ending ending;
	int steps; /* background: how many more */
	struct one *submit_in_step; /* by the second step */
	unsigned applied, committed, done;
	enum vk_status st;
};

static void note(struct events *e, int what)
{
	if (e) e->what[e->n++ % 100000] = what;
}

static enum vk_status one_apply(void *arg, struct vk_kv_txn *t)
{
	struct one *o = arg;
	char key[16];
	void *dst;
	snprintf(key, sizeof key, "%08d", o->number);
	o->applied++;
	if (o->ending == REFUSES_FIRST) return VK_E_CONFLICT;
	note(o->events, o->number);
	enum vk_status st = vk_kv_put_reserve(t, T_A, vk_bytes_of(key), o->value_n, &dst);
	if (!st) memset(dst, o->number, o->value_n);
	if (!st) st = vk_kv_put(t, T_B, vk_bytes_of(key), VK_LIT("x"));
	if (st) return st;
	if (o->ending == FAILS_LATE) return VK_E_INVALID;
	if (o->submit_in_step && o->applied == 2) {
		assert_int_equal(vk_kv_submit(o->kv, &o->submit_in_step->job), VK_OK);
		o->submit_in_step = NULL;
	}
	return o->job.background && --o->steps > 0 ? VK_E_BUSY : VK_OK;
}

static void one_committed(void *arg)
{
	struct one *o = arg;
	assert_int_equal(o->done, 0);
	o->committed++;
}

static void one_done(void *arg, enum vk_status st)
{
	struct one *o = arg;
	o->st = st;
	o->done++;
}

static void one_make(struct one *o, struct vk_kv *kv, int number)
{
	*o = (struct one){.kv = kv, .number = number};
	o->job = (struct vk_kv_job){.apply = one_apply, .committed = one_committed, .done = one_done, .arg = o};
}

static bool has_number(struct vk_kv *kv, int number)
{
	struct vk_kv_txn *v;
	struct vk_bytes a, b;
	char key[16];
	snprintf(key, sizeof key, "%08d", number);
	assert_int_equal(vk_kv_view_begin(kv, &v), VK_OK);
	enum vk_status st = vk_kv_get(v, T_A, vk_bytes_of(key), &a);
	assert_int_equal(vk_kv_get(v, T_B, vk_bytes_of(key), &b), st); /* both or none */
	vk_kv_view_end(v);
	return st == VK_OK;
}

static enum vk_status run_one(struct vk_kv *kv, int number, size_t value_n)
{
	struct one o;
	one_make(&o, kv, number);
	o.value_n = o.job.bytes = value_n;
	return vk_kv_run(kv, &o.job);
}

#define GROUP 20

/* Twenty jobs in one group, one of which ends badly. */
static void check_group(enum ending ending, unsigned aborted, enum vk_status want)
{
	struct fix f;
	struct gate g;
	struct one o[GROUP];
	struct vk_kv_stats s;
	fix_make(&f, 0);
	gate_shut(&g, f.kv);
	for (int i = 0; i < GROUP; i++) {
		one_make(&o[i], f.kv, i);
		if (i == 7) o[i].ending = ending;
		assert_int_equal(vk_kv_submit(f.kv, &o[i].job), VK_OK);
	}
	gate_open(&g);
	vk_kv_drain(f.kv);
	for (int i = 0; i < GROUP; i++) {
		assert_int_equal(o[i].done, 1);
		assert_int_equal(o[i].st, i == 7 ? want : VK_OK);
		assert_int_equal(o[i].committed, o[i].st == VK_OK);
		assert_int_equal(has_number(f.kv, i), o[i].st == VK_OK);
	}
	vk_kv_stats(f.kv, &s);
	assert_int_equal(s.aborted_groups, aborted);
	assert_int_equal(s.jobs, GROUP + 1);
	assert_int_equal(s.queued_jobs, 0);
	/* The gate's transaction had nothing to commit. */
	assert_int_equal(s.commits, aborted ? GROUP - 1 : 1);
	if (!aborted) assert_int_equal(s.grouped_max, GROUP);
	fix_free(&f);
}

static void test_kv_group_goes_in_one_commit(void **state)
{
	(void)state;
	check_group(ENDS_WELL, 0, VK_OK);
}

static void test_kv_refusal_before_a_put_leaves_the_group(void **state)
{
	(void)state;
	check_group(REFUSES_FIRST, 0, VK_E_CONFLICT);
}

static void test_kv_failure_after_a_put_fails_alone(void **state)
{
	(void)state;
	check_group(FAILS_LATE, 1, VK_E_INVALID);
}

static void test_kv_map_grows_from_tiny(void **state)
{
	(void)state;
	struct fix f;
	struct vk_kv_stats s;
	fix_make(&f, VK_ENV_MAP_BYTES_MIN);
	for (int i = 0; i < 40; i++) assert_int_equal(run_one(f.kv, i, 400000), VK_OK);
	for (int i = 0; i < 40; i++) assert_true(has_number(f.kv, i));
	vk_kv_stats(f.kv, &s);
	assert_true(s.map_bytes >= 16000000);
	assert_true(s.used_bytes >= 16000000 && s.used_bytes <= s.file_bytes);
	assert_false(s.full || s.broken);
	/* A group that does not fit is tried again whole. */
	struct gate g;
	struct one o[8];
	gate_shut(&g, f.kv);
	for (int i = 0; i < 8; i++) {
		one_make(&o[i], f.kv, 100 + i);
		o[i].value_n = 4000000;
		assert_int_equal(vk_kv_submit(f.kv, &o[i].job), VK_OK);
	}
	gate_open(&g);
	vk_kv_drain(f.kv);
	for (int i = 0; i < 8; i++) assert_int_equal(o[i].st, VK_OK);
	vk_kv_stats(f.kv, &s);
	assert_int_equal(s.aborted_groups, 0);
	reopen(&f, VK_ENV_MAP_BYTES_MIN); /* smaller than the file */
	for (int i = 0; i < 8; i++) assert_true(has_number(f.kv, 100 + i));
	assert_int_equal(run_one(f.kv, 200, 400000), VK_OK);
	fix_free(&f);
}

/* Holds a view for longer than the second that growing once waited, begins another one, and so on. */
static void *hold_views(void *arg)
{
	struct fix *f = arg;
	struct vk_kv_txn *t;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(vk_kv_view_begin(f->kv, &t), VK_OK);
		usleep(1500000);
		vk_kv_view_end(t);
	}
	return NULL;
}

static void test_kv_map_grows_past_long_readers_and_new_ones_are_let_in(void **state)
{
	(void)state;
	struct fix f;
	struct vk_kv_stats s;
	struct vk_kv_txn *t;
	pthread_t thread;
	struct one o[4];
	struct timespec from, to;
	fix_make(&f, VK_ENV_MAP_BYTES_MIN);
	assert_int_equal(run_one(f.kv, 1, 1000), VK_OK);
	pthread_create(&thread, NULL, hold_views, &f);
	usleep(100000);
	for (int i = 0; i < 4; i++) {
		one_make(&o[i], f.kv, 100 + i);
		o[i].value_n = 4000000;
		assert_int_equal(vk_kv_submit(f.kv, &o[i].job), VK_OK);
	}
	usleep(100000);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < 5; i++) { /* a reader that comes meanwhile is not kept, for a second */
		assert_int_equal(vk_kv_view_begin(f.kv, &t), VK_OK);
		vk_kv_view_end(t);
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	assert_true(to.tv_sec - from.tv_sec <= 1);
	vk_kv_drain(f.kv);
	pthread_join(thread, NULL);
	for (int i = 0; i < 4; i++) assert_int_equal(o[i].st, VK_OK);
	for (int i = 0; i < 4; i++) assert_true(has_number(f.kv, 100 + i));
	vk_kv_stats(f.kv, &s);
	assert_true(s.map_bytes >= 16000000);
	assert_false(s.full || s.broken);
	fix_free(&f);
}

static void test_kv_background_lets_foreground_pass(void **state)
{
	(void)state;
	struct fix f;
	struct gate g;
	struct events *e = calloc(1, sizeof *e);
	struct one slow, quick[4], within;
	fix_make(&f, 0);
	gate_shut(&g, f.kv);
	one_make(&slow, f.kv, 1000);
	slow.job.background = true;
	slow.events = e;
	slow.steps = 5;
	slow.submit_in_step = &within;
	assert_int_equal(vk_kv_submit(f.kv, &slow.job), VK_OK);
	for (int i = 0; i < 4; i++) {
		one_make(&quick[i], f.kv, i);
		quick[i].events = e;
		assert_int_equal(vk_kv_submit(f.kv, &quick[i].job), VK_OK);
	}
	one_make(&within, f.kv, 77);
	within.events = e;
	gate_open(&g);
	for (int i = 0; i < 5000 && !has_number(f.kv, 77); i++) usleep(1000);
	/* Background jobs run in order: when this one has ended the first has. */
	struct one last;
	one_make(&last, f.kv, 2000);
	last.job.background = true;
	assert_int_equal(vk_kv_run(f.kv, &last.job), VK_OK);
	static const int want[] = {0, 1, 2, 3, 1000, 1000, 77, 1000, 1000, 1000};
	assert_int_equal(e->n, 10);
	for (int i = 0; i < 10; i++) assert_int_equal(e->what[i], want[i]);
	assert_int_equal(slow.st, VK_OK);
	assert_int_equal(slow.committed, 1);
	assert_int_equal(slow.done, 1);
	fix_free(&f);
	free(e);
}

/* Puts itself into the queue again as long as it is wanted. */
struct endless {
	struct one one;
	_Atomic bool stop;
};

static void endless_done(void *arg, enum vk_status st)
{
	struct endless *n = arg;
	one_done(&n->one, st);
	if (!n->stop) assert_int_equal(vk_kv_submit(n->one.kv, &n->one.job), VK_OK);
}

static enum vk_status endless_apply(void *arg, struct vk_kv_txn *t)
{
	struct endless *n = arg;
	n->one.done = 0;
	return one_apply(&n->one, t);
}

static void test_kv_background_ends_under_writes_without_pause(void **state)
{
	(void)state;
	struct fix f;
	struct endless n = {0};
	struct one slow;
	fix_make(&f, 0);
	one_make(&n.one, f.kv, 1);
	n.one.job = (struct vk_kv_job){.apply = endless_apply, .done = endless_done, .arg = &n};
	assert_int_equal(vk_kv_submit(f.kv, &n.one.job), VK_OK);
	one_make(&slow, f.kv, 2);
	slow.job.background = true;
	slow.steps = 3;
	assert_int_equal(vk_kv_run(f.kv, &slow.job), VK_OK);
	n.stop = true;
	vk_kv_close(f.kv);
	f.kv = NULL;
	fix_free(&f);
}

struct closer {
	struct vk_kv *kv;
	_Atomic bool closed;
};

static void *close_thread(void *arg)
{
	struct closer *c = arg;
	vk_kv_close(c->kv);
	c->closed = true;
	return NULL;
}

#define LATE_MAX 3000

static void test_kv_close_runs_what_is_queued(void **state)
{
	(void)state;
	struct fix f;
	struct gate g;
	struct one o[GROUP], slow;
	pthread_t thread;
	fix_make(&f, 0);
	gate_shut(&g, f.kv);
	one_make(&slow, f.kv, 500);
	slow.job.background = true;
	slow.steps = 1000000;
	assert_int_equal(vk_kv_submit(f.kv, &slow.job), VK_OK);
	for (int i = 0; i < GROUP; i++) {
		one_make(&o[i], f.kv, i);
		assert_int_equal(vk_kv_submit(f.kv, &o[i].job), VK_OK);
	}
	struct closer c = {.kv = f.kv};
	assert_int_equal(pthread_create(&thread, NULL, close_thread, &c), 0);
	/* Until closing refuses them. */
	struct one *late = calloc(LATE_MAX, sizeof *late);
	enum vk_status st = VK_OK;
	for (int i = 0; i < LATE_MAX && !st; i++) {
		one_make(&late[i], f.kv, 1000 + i);
		st = vk_kv_submit(f.kv, &late[i].job);
		if (!st) usleep(1000);
	}
	assert_int_equal(st, VK_E_UNAVAILABLE);
	assert_false(c.closed);
	gate_open(&g);
	pthread_join(thread, NULL);
	f.kv = NULL;
	for (int i = 0; i < GROUP; i++) assert_int_equal(o[i].st, VK_OK);
	assert_int_equal(slow.done, 1);
	assert_int_equal(slow.st, VK_E_UNAVAILABLE);
	reopen(&f, 0);
	for (int i = 0; i < GROUP; i++) assert_true(has_number(f.kv, i));
	fix_free(&f);
	free(late);
}

static void test_kv_queue_has_a_maximum(void **state)
{
	(void)state;
	struct fix f;
	struct gate g;
	struct one *o = calloc(VK_KV_QUEUE_MAX, sizeof *o), over;
	fix_make(&f, 0);
	one_make(&over, f.kv, 1);
	over.job.bytes = VK_KV_QUEUE_BYTES + 1;
	assert_int_equal(vk_kv_submit(f.kv, &over.job), VK_E_TOO_LARGE);
	gate_shut(&g, f.kv);
	one_make(&o[0], f.kv, 0);
	o[0].job.bytes = VK_KV_QUEUE_BYTES;
	assert_int_equal(vk_kv_submit(f.kv, &o[0].job), VK_OK);
	over.job.bytes = 1;
	assert_int_equal(vk_kv_submit(f.kv, &over.job), VK_E_BUSY);
	for (int i = 1; i < VK_KV_QUEUE_MAX; i++) {
		one_make(&o[i], f.kv, i);
		assert_int_equal(vk_kv_submit(f.kv, &o[i].job), VK_OK);
	}
	over.job.bytes = 0;
	assert_int_equal(vk_kv_submit(f.kv, &over.job), VK_E_BUSY);
	gate_open(&g);
	vk_kv_drain(f.kv);
	for (int i = 0; i < VK_KV_QUEUE_MAX; i++) assert_int_equal(o[i].st, VK_OK);
	fix_free(&f);
	free(o);
}

/* Threads that write counters in step, threads that look, over several environments. */

#define ENVS 3
struct load {
	struct vk_kv *kv;
	_Atomic bool stop;
	_Atomic uint64_t acked, looks;
	uint64_t seed;
};

static enum vk_status step_apply(void *arg, struct vk_kv_txn *t)
{
	struct vk_bytes v;
	uint64_t n = 0;
	(void)arg;
	if (vk_kv_get(t, T_A, VK_LIT("n"), &v) == VK_OK) memcpy(&n, v.p, sizeof n);
	n++;
	struct vk_bytes now = {(const char *)&n, sizeof n};
	enum vk_status st = vk_kv_put(t, T_A, VK_LIT("n"), now);
	if (!st) st = vk_kv_put(t, T_B, VK_LIT("n"), now);
	return st;
}

static void *load_writer(void *arg)
{
	struct load *l = arg;
	while (!l->stop) {
		struct vk_kv_job job = {.apply = step_apply, .bytes = 100};
		assert_int_equal(vk_kv_run(l->kv, &job), VK_OK);
		l->acked++;
	}
	return NULL;
}

static uint64_t counter(struct vk_kv *kv)
{
	struct vk_kv_txn *t;
	struct vk_bytes a, b;
	uint64_t n = 0, m = 0;
	assert_int_equal(vk_kv_view_begin(kv, &t), VK_OK);
	if (vk_kv_get(t, T_A, VK_LIT("n"), &a) == VK_OK) memcpy(&n, a.p, sizeof n);
	if (vk_kv_get(t, T_B, VK_LIT("n"), &b) == VK_OK) memcpy(&m, b.p, sizeof m);
	assert_int_equal(n, m);
	vk_kv_view_end(t);
	return n;
}

static void *load_reader(void *arg)
{
	struct load *l = arg;
	uint64_t last = 0;
	while (!l->stop) {
		uint64_t before = l->acked, n = counter(l->kv);
		assert_true(n >= last && n >= before); /* what was acknowledged is seen */
		last = n;
		l->looks++;
	}
	return NULL;
}

static void test_kv_threads_see_what_was_acknowledged(void **state)
{
	(void)state;
	struct fix f[ENVS] = {0};
	struct load load[ENVS] = {0};
	pthread_t w[ENVS][3], r[ENVS];
	for (int i = 0; i < ENVS; i++) {
		fix_make(&f[i], 0);
		load[i].kv = f[i].kv;
		for (int j = 0; j < 3; j++) pthread_create(&w[i][j], NULL, load_writer, &load[i]);
		pthread_create(&r[i], NULL, load_reader, &load[i]);
	}
	usleep(400000);
	for (int i = 0; i < ENVS; i++) {
		load[i].stop = true;
		for (int j = 0; j < 3; j++) pthread_join(w[i][j], NULL);
		pthread_join(r[i], NULL);
		assert_int_equal(counter(f[i].kv), load[i].acked);
		assert_true(load[i].acked > 0 && load[i].looks > 0);
		fix_free(&f[i]);
	}
}

static void test_kv_copy_under_writes_is_one_moment(void **state)
{
	(void)state;
	struct fix f;
	struct load load = {0};
	pthread_t w;
	char path[512];
	fix_make(&f, 0);
	load.kv = f.kv;
	for (int i = 0; i < 50; i++) assert_int_equal(run_one(f.kv, i, 20000), VK_OK);
	pthread_create(&w, NULL, load_writer, &load);
	for (int i = 0; i < 5; i++) {
		struct vk_kv_opts o = {.read_only = true, .tables = tables, .tables_n = T_N};
		struct vk_kv *copy;
		struct temp dir;
		temp_make(&dir);
		uint64_t before = load.acked;
		snprintf(path, sizeof path, "%s/data.mdb", dir.path);
		int fd = open(path, O_WRONLY | O_CREAT, 0600);
		assert_int_equal(vk_kv_copy(f.kv, fd), VK_OK);
		close(fd);
		assert_int_equal(vk_kv_open(dir.path, &o, &copy, NULL), VK_OK);
		assert_true(counter(copy) >= before);
		for (int j = 0; j < 50; j++) assert_true(has_number(copy, j));
		struct vk_kv_job job = {.apply = step_apply};
		assert_int_equal(vk_kv_submit(copy, &job), VK_E_INVALID);
		vk_kv_close(copy);
		temp_free(&dir);
	}
	load.stop = true;
	pthread_join(w, NULL);
	fix_free(&f);
}

/* Disks that fail */

static void check_broken(_Atomic int *fault, int error, enum vk_status want)
{
	struct fix f;
	struct vk_kv_stats s;
	struct vk_kv_txn *v;
	fix_make(&f, 0);
	assert_int_equal(run_one(f.kv, 1, 100), VK_OK);
	assert_int_equal(vk_kv_view_begin(f.kv, &v), VK_OK); /* lives on through it */
	*fault = error;
	assert_int_equal(run_one(f.kv, 2, 100), want);
	*fault = 0;
	assert_int_equal(run_one(f.kv, 3, 100), VK_E_IO);
	struct vk_bytes value;
	assert_int_equal(vk_kv_get(v, T_A, VK_LIT("00000001"), &value), VK_OK);
	vk_kv_view_end(v);
	assert_true(has_number(f.kv, 1));
	assert_false(has_number(f.kv, 3));
	vk_kv_stats(f.kv, &s);
	assert_true(s.broken);
	assert_int_equal(run_one(f.kv, 4, 100), VK_E_IO);
	reopen(&f, 0);
	assert_true(has_number(f.kv, 1));
	assert_false(has_number(f.kv, 4));
	assert_int_equal(run_one(f.kv, 5, 100), VK_OK);
	fix_free(&f);
}

static void test_kv_failed_sync_stops_writing_for_good(void **state)
{
	(void)state;
	check_broken(&fail_fdatasync, EIO, VK_E_IO);
}

static void test_kv_panic_leaves_reading(void **state)
{
	(void)state;
	check_broken(&fail_meta_write, EIO, VK_E_IO);
	check_broken(&fail_meta_write, ENOSPC, VK_E_NO_SPACE);
}

static void test_kv_full_disk_is_no_space_and_passes(void **state)
{
	(void)state;
	struct fix f;
	struct vk_kv_stats s;
	char dir[sizeof f.dir.path];
	fix_make(&f, 0);
	vk_kv_close(f.kv);
	f.kv = NULL;
	snprintf(dir, sizeof dir, "%s", f.dir.path);
	if (mount("none", dir, "tmpfs", 0, "size=8m") != 0) {
		fix_free(&f);
		print_message("no tmpfs here (%s)\n", strerror(errno));
		skip();
	}
	reopen(&f, 0);
	int n = 0;
	enum vk_status st;
	while ((st = run_one(f.kv, n, 300000)) == VK_OK && n < 100) n++;
	assert_int_equal(st, VK_E_NO_SPACE);
	assert_true(n > 10);
	vk_kv_stats(f.kv, &s);
	assert_true(s.full && !s.broken);
	for (int i = 0; i < n; i++) assert_true(has_number(f.kv, i));
	assert_false(has_number(f.kv, n));
	assert_int_equal(run_one(f.kv, n, 10), VK_E_NO_SPACE); /* not tried */
	assert_int_equal(mount("none", dir, "tmpfs", MS_REMOUNT, "size=32m"), 0);
	for (int i = 0; i < 50 && (st = run_one(f.kv, n, 300000)) == VK_E_NO_SPACE; i++) usleep(100000);
	assert_int_equal(st, VK_OK);
	vk_kv_stats(f.kv, &s);
	assert_false(s.full || s.broken);
	vk_kv_close(f.kv);
	f.kv = NULL;
	umount2(dir, MNT_DETACH);
	fix_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_kv_random_jobs_behave_as_a_map),
	    cmocka_unit_test(test_kv_keys_out_of_range_are_refused_alone),
	    cmocka_unit_test(test_kv_group_goes_in_one_commit),
	    cmocka_unit_test(test_kv_refusal_before_a_put_leaves_the_group),
	    cmocka_unit_test(test_kv_failure_after_a_put_fails_alone),
	    cmocka_unit_test(test_kv_map_grows_from_tiny),
	    cmocka_unit_test(test_kv_map_grows_past_long_readers_and_new_ones_are_let_in),
	    cmocka_unit_test(test_kv_background_lets_foreground_pass),
	    cmocka_unit_test(test_kv_background_ends_under_writes_without_pause),
	    cmocka_unit_test(test_kv_close_runs_what_is_queued),
	    cmocka_unit_test(test_kv_queue_has_a_maximum),
	    cmocka_unit_test(test_kv_threads_see_what_was_acknowledged),
	    cmocka_unit_test(test_kv_copy_under_writes_is_one_moment),
	    cmocka_unit_test(test_kv_failed_sync_stops_writing_for_good),
	    cmocka_unit_test(test_kv_panic_leaves_reading),
	    cmocka_unit_test(test_kv_full_disk_is_no_space_and_passes),
	};
	signal(SIGXFSZ, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
