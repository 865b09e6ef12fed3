/*
 * Goal: names and aliases lead where they should, at once and after a restart; create and drop leave nothing half done; idle
 * environments close and open again without losing anything; snapshots come back whole, bad files are refused with nothing
 * changed; a backup has every collection that its catalog names.
 * Method: a registry over a real catalog in a directory of its own; random operations against a model; files cut, flipped and
 * forged; threads that write, drop and take snapshots meanwhile.
 */
#include "tests/store/util.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "index/collections.h"
#include "store/datadir.h"
#include "store/tar.h"

#define CONFIG                                                                                                                    \
	VK_LIT("{\"vectors\":{\"\":{\"size\":4,\"distance\":\"Dot\",\"datatype\":\"float32\",\"on_disk\":false,"                   \
	       "\"veckeep\":{\"set\":1,\"space\":null,\"raw\":true}}},\"indexes\":{},"                                             \
	       "\"veckeep\":{\"text_from\":null,\"provenance\":\"warn\",\"ttl\":null,\"next_set\":2,\"next_field\":1,\"pool\":\"default\"}}")

struct fix {
	struct temp dir;
	char data[300], catalog_dir[340], collections_dir[340], snapshots_dir[340];
	struct vk_catalog *catalog;
	struct vk_collections *cs;
	unsigned open_max;
};

static void fix_open(struct fix *f)
{
	struct vk_error err = {0};
	if (vk_catalog_open(f->catalog_dir, false, &f->catalog, &err)) fail_msg("%s", err.text);
	struct vk_collections_opts o = {.catalog = f->catalog, .dir = f->collections_dir, .snapshots_dir = f->snapshots_dir,
					.map_bytes = 1 << 20, .open_max = f->open_max};
	if (vk_collections_open(&o, &f->cs, &err)) fail_msg("%s", err.text);
}

static void fix_close(struct fix *f)
{
	vk_collections_close(f->cs);
	vk_catalog_close(f->catalog);
}

static void fix_reopen(struct fix *f)
{
	fix_close(f);
	fix_open(f);
}

static void fix_make(struct fix *f, unsigned open_max)
{
	*f = (struct fix){.open_max = open_max};
	temp_make(&f->dir);
	snprintf(f->data, sizeof f->data, "%s/data", f->dir.path);
	snprintf(f->catalog_dir, sizeof f->catalog_dir, "%s/catalog", f->data);
	snprintf(f->collections_dir, sizeof f->collections_dir, "%s/collections", f->data);
	snprintf(f->snapshots_dir, sizeof f->snapshots_dir, "%s/snapshots", f->data);
	assert_int_equal(vk_dir_make(f->data, NULL), VK_OK);
	fix_open(f);
}

static void fix_free(struct fix *f)
{
	fix_close(f);
	vk_dir_remove(f->data);
	temp_free(&f->dir);
}

static void must_create(struct fix *f, const char *name)
{
	struct vk_error err = {0};
	if (vk_collections_create(f->cs, vk_bytes_of(name), CONFIG, 1000, &err)) fail_msg("%s: %s", name, err.text);
}

static void must_drop(struct fix *f, const char *name)
{
	struct vk_error err = {0};
	if (vk_collections_drop(f->cs, vk_bytes_of(name), &err)) fail_msg("%s: %s", name, err.text);
}

static struct vk_collection *must_get(struct fix *f, const char *name)
{
	struct vk_error err = {0};
	struct vk_collection *c;
	if (vk_collections_get(f->cs, vk_bytes_of(name), &c, &err)) fail_msg("%s: %s", name, err.text);
	return c;
}

static bool is_there(struct fix *f, const char *name)
{
	struct vk_collection *c;
	struct vk_error err = {0};
	enum vk_status st = vk_collections_get(f->cs, vk_bytes_of(name), &c, &err);
	if (!st) vk_collection_unref(c);
	assert_true(st == VK_OK || st == VK_E_NOT_FOUND);
	return !st;
}

/* Point number n, whose payload says so. */
static enum vk_status put_point(struct vk_collection *c, uint64_t n)
{
	uint8_t id[9];
	char payload[64];
	float row[4] = {(float)n, 1, 2, 3};
	struct vk_arena arena;
	struct vk_json *doc = NULL;
	vk_arena_init(&arena, 1 << 20);
	vk_id_u64(id, n);
	snprintf(payload, sizeof payload, "{\"n\":%llu}", (unsigned long long)n);
	assert_int_equal(vk_json_parse(&arena, vk_bytes_of(payload), NULL, &doc, NULL), VK_OK);
	struct vk_colconf *conf = vk_collection_config(c);
	struct vk_vec vec = {.conf = vk_colconf_vector(conf, VK_LIT("")), .row = row};
	assert_non_null(vec.conf);
	struct vk_point_in p = {{(const char *)id, sizeof id}, &vec, 1, vk_bytes_of(payload), vk_json_root(doc)};
	struct vk_op_in op = {.kind = VK_OP_UPSERT, .point = &p, .point_n = 1};
	struct vk_write w = {.op = &op, .op_n = 1, .conf = conf, .now_ms = 5000};
	enum vk_status st = vk_collection_write_wait(c, &w);
	if (st) print_message("put: %s\n", w.err.text);
	vk_colconf_unref(conf);
	vk_json_free(doc);
	vk_arena_free(&arena);
	return st;
}

static bool has_point(struct vk_collection *c, uint64_t n)
{
	uint8_t id[9];
	char payload[64];
	struct vk_view v;
	uint32_t slot;
	struct vk_point p;
	vk_id_u64(id, n);
	snprintf(payload, sizeof payload, "{\"n\":%llu}", (unsigned long long)n);
	assert_int_equal(vk_view_begin(c, 6000, &v), VK_OK);
	bool found = vk_view_slot(&v, (struct vk_bytes){(const char *)id, sizeof id}, &slot) == VK_OK;
	if (found) {
		assert_int_equal(vk_view_point(&v, slot, &p), VK_OK);
		assert_true(vk_bytes_is(p.payload, payload));
	}
	vk_view_end(&v);
	return found;
}

static uint64_t points(struct vk_collection *c)
{
	struct vk_view v;
	assert_int_equal(vk_view_begin(c, 6000, &v), VK_OK);
	uint64_t n = vk_view_points(&v);
	vk_view_end(&v);
	return n;
}

static void put_points(struct fix *f, const char *name, uint64_t from, uint64_t to)
{
	struct vk_collection *c = must_get(f, name);
	for (uint64_t n = from; n < to; n++) assert_int_equal(put_point(c, n), VK_OK);
	vk_collection_unref(c);
}

static void check_points(struct fix *f, const char *name, uint64_t n)
{
	struct vk_collection *c = must_get(f, name);
	assert_int_equal(points(c), n);
	for (uint64_t i = 0; i < n; i++) assert_true(has_point(c, i));
	vk_collection_unref(c);
}

static unsigned directories(const char *path)
{
	unsigned n = 0;
	DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d))) n += e->d_name[0] != '.';
	if (d) closedir(d);
	return n;
}

/* Names */

static void test_collections_names_out_of_rule_are_refused(void **state)
{
	(void)state;
	static const char *const bad[] = {"", ".", "..", "a/b", "a\\b", "a:b", "a*", "a?", "a\"", "a<", "a>", "a|", "a\nb", "a\x7f"};
	static const char *const good[] = {"a", "A b", "...", ".a", "\xc3\xa4", "a-b_c.d", "100%", "$x"};
	char longest[257];
	memset(longest, 'x', sizeof longest);
	struct vk_error err;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(vk_collection_name_check(vk_bytes_of(bad[i]), &err), VK_E_INVALID);
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_int_equal(vk_collection_name_check(vk_bytes_of(good[i]), &err), VK_OK);
	assert_int_equal(vk_collection_name_check((struct vk_bytes){"a\0b", 3}, &err), VK_E_INVALID);
	assert_int_equal(vk_collection_name_check((struct vk_bytes){longest, 255}, &err), VK_OK);
	assert_int_equal(vk_collection_name_check((struct vk_bytes){longest, 256}, &err), VK_E_INVALID);
}

static void test_collections_errors_say_it_as_qdrant_does(void **state)
{
	(void)state;
	struct fix f;
	struct vk_error err;
	struct vk_collection *c;
	fix_make(&f, 0);
	assert_int_equal(vk_collections_get(f.cs, VK_LIT("x"), &c, &err), VK_E_NOT_FOUND);
	assert_string_equal(err.text, "Not found: Collection `x` doesn't exist!");
	assert_int_equal(vk_collections_drop(f.cs, VK_LIT("x"), &err), VK_E_NOT_FOUND);
	assert_string_equal(err.text, "Not found: Collection `x` doesn't exist!");
	must_create(&f, "x");
	assert_int_equal(vk_collections_create(f.cs, VK_LIT("x"), CONFIG, 0, &err), VK_E_EXISTS);
	assert_string_equal(err.text, "Wrong input: Collection `x` already exists!");
	struct vk_alias_op op = {VK_ALIAS_CREATE, VK_LIT("y"), VK_LIT("nope"), {0}};
	assert_int_equal(vk_collections_alias(f.cs, &op, 1, &err), VK_E_NOT_FOUND);
	assert_string_equal(err.text, "Not found: Collection `nope` doesn't exist!");
	/* A config that cannot be honoured makes no collection. */
	assert_int_not_equal(vk_collections_create(f.cs, VK_LIT("z"), VK_LIT("{\"vectors\":3}"), 0, &err), VK_OK);
	assert_false(is_there(&f, "z"));
	assert_int_equal(directories(f.collections_dir), 1);
	fix_free(&f);
}

/* Random creating, dropping, aliasing, restarting: against a model. */

#define NAMES 6
#define MODEL_ALIASES 5

struct model {
	uint64_t points[NAMES]; /* 0: the collection is not there; else points + 1 */
	int alias[MODEL_ALIASES]; /* -1: none */
};

static const char *name_of(int i)
{
	static const char *const names[NAMES] = {"a", "aa", "b", "B", "c d", "\xc3\xa4"};
	return names[i];
}

static const char *alias_of(int i)
{
	static const char *const names[MODEL_ALIASES] = {"ab", "a0", "zz", "B!", "~"};
	return names[i];
}

struct walk {
	unsigned n;
	char last[300];
	const struct model *m;
};

static bool walk_names(void *arg, struct vk_bytes name)
{
	struct walk *w = arg;
	char text[300];
	snprintf(text, sizeof text, "%.*s", (int)name.n, name.p);
	assert_true(w->n == 0 || strcmp(w->last, text) < 0);
	snprintf(w->last, sizeof w->last, "%s", text);
	w->n++;
	return true;
}

static bool walk_aliases(void *arg, struct vk_bytes alias, struct vk_bytes name)
{
	struct walk *w = arg;
	for (int i = 0; i < MODEL_ALIASES; i++)
		if (vk_bytes_is(alias, alias_of(i))) {
			assert_true(w->m->alias[i] >= 0);
			assert_true(vk_bytes_is(name, name_of(w->m->alias[i])));
			w->n++;
		}
	return true;
}

static void check_model(struct fix *f, const struct model *m)
{
	struct walk names = {.m = m}, aliases = {.m = m};
	unsigned n = 0, a = 0;
	for (int i = 0; i < NAMES; i++) {
		assert_int_equal(is_there(f, name_of(i)), m->points[i] > 0);
		if (!m->points[i]) continue;
		n++;
		struct vk_collection *c = must_get(f, name_of(i));
		assert_int_equal(points(c), m->points[i] - 1);
		vk_collection_unref(c);
	}
	for (int i = 0; i < MODEL_ALIASES; i++) {
		assert_int_equal(is_there(f, alias_of(i)), m->alias[i] >= 0);
		if (m->alias[i] < 0) continue;
		a++;
		struct vk_collection *c = must_get(f, alias_of(i)), *same = must_get(f, name_of(m->alias[i]));
		assert_ptr_equal(c, same);
		vk_collection_unref(c);
		vk_collection_unref(same);
	}
	assert_int_equal(vk_collections_each(f->cs, walk_names, &names), VK_OK);
	assert_int_equal(vk_collections_aliases(f->cs, walk_aliases, &aliases), VK_OK);
	assert_int_equal(names.n, n);
	assert_int_equal(aliases.n, a);
	assert_int_equal(directories(f->collections_dir), n);
}

/* Some alias operations at once; the model takes them all or none. */
static void random_aliases(struct fix *f, struct model *m, uint64_t *rng)
{
	struct vk_alias_op op[3];
	struct model next = *m;
	size_t n = 1 + vk_rng(rng) % 3;
	bool fails = false;
	for (size_t i = 0; i < n; i++) {
		int a = (int)(vk_rng(rng) % MODEL_ALIASES), b = (int)(vk_rng(rng) % MODEL_ALIASES), c = (int)(vk_rng(rng) % NAMES);
		op[i] = (struct vk_alias_op){(int)(vk_rng(rng) % 3), vk_bytes_of(alias_of(a)), vk_bytes_of(name_of(c)),
					     vk_bytes_of(alias_of(b))};
		if (fails) continue;
		if (op[i].kind == VK_ALIAS_CREATE) {
			fails = next.points[c] == 0;
			next.alias[a] = c;
		} else if (op[i].kind == VK_ALIAS_DELETE) {
			next.alias[a] = -1;
		} else {
			int to = next.alias[a];
			fails = to < 0;
			next.alias[a] = -1;
			next.alias[b] = to;
		}
	}
	assert_int_equal(vk_collections_alias(f->cs, op, n, NULL), fails ? VK_E_NOT_FOUND : VK_OK);
	if (!fails) *m = next;
}

static void test_collections_random_operations_fit_the_model(void **state)
{
	(void)state;
	struct fix f;
	struct model m = {{0}, {-1, -1, -1, -1, -1}};
	uint64_t rng = test_seed("collections");
	fix_make(&f, 2); /* most are closed most of the time */
	for (int round = 0; round < 400; round++) {
		int i = (int)(vk_rng(&rng) % NAMES);
		switch (vk_rng(&rng) % 6) {
		case 0:
			if (!m.points[i]) must_create(&f, name_of(i));
			else assert_int_equal(vk_collections_create(f.cs, vk_bytes_of(name_of(i)), CONFIG, 0, NULL), VK_E_EXISTS);
			if (!m.points[i]) m.points[i] = 1;
			break;
		case 1:
			assert_int_equal(vk_collections_drop(f.cs, vk_bytes_of(name_of(i)), NULL),
					 m.points[i] ? VK_OK : VK_E_NOT_FOUND);
			m.points[i] = 0;
			for (int a = 0; a < MODEL_ALIASES; a++)
				if (m.alias[a] == i) m.alias[a] = -1;
			break;
		case 2:
			if (m.points[i]) put_points(&f, name_of(i), m.points[i] - 1, m.points[i]);
			if (m.points[i]) m.points[i]++;
			break;
		default:
			random_aliases(&f, &m, &rng);
		}
		if (round % 7 == 0) check_model(&f, &m);
		if (round % 40 == 39) fix_reopen(&f);
	}
	check_model(&f, &m);
	fix_free(&f);
}

static void test_collections_alias_and_collection_share_names(void **state)
{
	(void)state;
	struct fix f;
	struct vk_error err;
	fix_make(&f, 0);
	must_create(&f, "x");
	must_create(&f, "y");
	struct vk_alias_op to_y = {VK_ALIAS_CREATE, VK_LIT("x"), VK_LIT("y"), {0}};
	assert_int_equal(vk_collections_alias(f.cs, &to_y, 1, &err), VK_E_EXISTS);
	struct vk_alias_op alias = {VK_ALIAS_CREATE, VK_LIT("z"), VK_LIT("x"), {0}};
	assert_int_equal(vk_collections_alias(f.cs, &alias, 1, &err), VK_OK);
	assert_int_equal(vk_collections_create(f.cs, VK_LIT("z"), CONFIG, 0, &err), VK_E_EXISTS);
	assert_int_equal(vk_collections_drop(f.cs, VK_LIT("z"), &err), VK_E_NOT_FOUND);
	struct vk_alias_op rename = {VK_ALIAS_RENAME, VK_LIT("z"), {0}, VK_LIT("y")};
	assert_int_equal(vk_collections_alias(f.cs, &rename, 1, &err), VK_E_EXISTS);
	/* Taken over by another collection, in one go. */
	alias.collection = VK_LIT("y");
	assert_int_equal(vk_collections_alias(f.cs, &alias, 1, &err), VK_OK);
	struct vk_collection *y = must_get(&f, "y"), *z = must_get(&f, "z");
	assert_ptr_equal(y, z);
	vk_collection_unref(y);
	vk_collection_unref(z);
	fix_free(&f);
}

/* Life of environments */

static void test_collections_dropped_one_serves_who_has_it(void **state)
{
	(void)state;
	struct fix f;
	fix_make(&f, 0);
	must_create(&f, "x");
	put_points(&f, "x", 0, 10);
	struct vk_collection *old = must_get(&f, "x");
	must_drop(&f, "x");
	assert_false(is_there(&f, "x"));
	/* New ones of the name are others, however often. */
	for (int i = 0; i < 20; i++) {
		must_create(&f, "x");
		check_points(&f, "x", 0);
		put_points(&f, "x", 0, 1);
		if (i < 19) must_drop(&f, "x");
	}
	assert_int_equal(points(old), 10);
	assert_true(has_point(old, 9));
	vk_collection_unref(old);
	check_points(&f, "x", 1);
	fix_free(&f);
}

static void test_collections_orphans_are_removed_at_open(void **state)
{
	(void)state;
	struct fix f;
	char path[400];
	fix_make(&f, 0);
	must_create(&f, "x");
	put_points(&f, "x", 0, 3);
	/* As a crash between environment and commit leaves it, and after a drop's commit. */
	static const char *const left[] = {"7", "4000000000"};
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "%s/%s", f.collections_dir, left[i]);
		assert_int_equal(vk_dir_make(path, NULL), VK_OK);
		assert_int_equal(vk_file_replace(path, "data.mdb", "torn", 4, NULL), VK_OK);
	}
	snprintf(path, sizeof path, "%s/notes", f.collections_dir); /* not ours to remove */
	assert_int_equal(vk_dir_make(path, NULL), VK_OK);
	fix_reopen(&f);
	assert_int_equal(directories(f.collections_dir), 2);
	must_create(&f, "y");
	check_points(&f, "x", 3);
	check_points(&f, "y", 0);
	fix_free(&f);
}

static void test_collections_missing_environment_fails_alone(void **state)
{
	(void)state;
	struct fix f;
	struct vk_collection *c;
	struct vk_error err;
	char path[400];
	fix_make(&f, 0);
	must_create(&f, "x");
	must_create(&f, "y");
	put_points(&f, "y", 0, 2);
	fix_close(&f);
	snprintf(path, sizeof path, "%s/1/data.mdb", f.collections_dir);
	assert_int_equal(vk_file_replace(f.collections_dir, "1/data.mdb", "no such thing", 13, NULL), VK_OK);
	fix_open(&f);
	assert_int_not_equal(vk_collections_get(f.cs, VK_LIT("x"), &c, &err), VK_OK);
	assert_int_not_equal(err.st, VK_E_NOT_FOUND);
	assert_true(err.text[0] != 0);
	check_points(&f, "y", 2);
	must_drop(&f, "x");
	must_create(&f, "x");
	check_points(&f, "x", 0);
	fix_free(&f);
}

#define THREADS 4
#define MANY 12
struct user {
	struct fix *f;
	uint64_t seed;
	_Atomic bool *stop;
	uint64_t writes;
};

static void *use(void *arg)
{
	struct user *u = arg;
	while (!*u->stop) {
		char name[16];
		struct vk_collection *c;
		snprintf(name, sizeof name, "c%u", (unsigned)(vk_rng(&u->seed) % MANY));
		enum vk_status st = vk_collections_get(u->f->cs, vk_bytes_of(name), &c, NULL);
		assert_int_equal(st, VK_OK);
		assert_int_equal(put_point(c, vk_rng(&u->seed) % 50), VK_OK);
		vk_collection_unref(c);
		u->writes++;
	}
	return NULL;
}

static void count_open(void *arg, struct vk_bytes name, struct vk_collection *c)
{
	(void)name;
	assert_non_null(vk_collection_kv(c));
	++*(unsigned *)arg;
}

static void test_collections_close_when_idle_under_threads(void **state)
{
	(void)state;
	struct fix f;
	struct user u[THREADS];
	pthread_t thread[THREADS];
	_Atomic bool stop = false;
	uint64_t seed = test_seed("collections_threads");
	unsigned open = 0, round = 0;
	fix_make(&f, 3);
	for (int i = 0; i < MANY; i++) {
		char name[16];
		snprintf(name, sizeof name, "c%d", i);
		must_create(&f, name);
	}
	for (int i = 0; i < THREADS; i++) {
		u[i] = (struct user){&f, vk_rng(&seed), &stop, 0};
		pthread_create(&thread[i], NULL, use, &u[i]);
	}
	uint64_t until = vk_mono_ms() + 500;
	for (; vk_mono_ms() < until; round++) { /* one that comes and goes */
		must_create(&f, "guest");
		put_points(&f, "guest", 0, 2);
		must_drop(&f, "guest");
		open = 0;
		vk_collections_each_open(f.cs, count_open, &open);
		assert_true(open <= 3 + THREADS + 1);
	}
	stop = true;
	for (int i = 0; i < THREADS; i++) {
		pthread_join(thread[i], NULL);
		assert_true(u[i].writes > 0);
	}
	assert_true(round > 0);
	fix_free(&f);
}

/* Snapshots */

static void must_snapshot(struct fix *f, const char *name, struct vk_snapshot *s, char path[4096])
{
	struct vk_error err = {0};
	if (vk_snapshot_create(f->cs, vk_bytes_of(name), vk_wall_ms(), s, &err)) fail_msg("%s", err.text);
	if (vk_snapshot_path(f->cs, vk_bytes_of(name), vk_bytes_of(s->name), path, &err)) fail_msg("%s", err.text);
}

struct writing {
	struct vk_collection *c;
	_Atomic uint64_t acked;
	_Atomic bool stop;
};

static void *write_on(void *arg)
{
	struct writing *w = arg;
	while (!w->stop) {
		assert_int_equal(put_point(w->c, w->acked), VK_OK);
		w->acked++;
	}
	return NULL;
}

static void test_snapshot_under_writes_comes_back_whole(void **state)
{
	(void)state;
	struct fix f;
	pthread_t thread;
	fix_make(&f, 0);
	must_create(&f, "x");
	struct writing w = {.c = must_get(&f, "x")};
	pthread_create(&thread, NULL, write_on, &w);
	for (int i = 0; i < 5; i++) {
		struct vk_snapshot s;
		struct vk_error err = {0};
		char path[4096];
		usleep(20000);
		uint64_t before = w.acked;
		must_snapshot(&f, "x", &s, path);
		uint64_t after = w.acked + 1;
		uint8_t hash[VK_SHA256_SIZE];
		char hex[65];
		uint64_t bytes;
		assert_int_equal(vk_file_hash(path, hash, &bytes, NULL), VK_OK);
		vk_hex(hex, hash, sizeof hash);
		assert_string_equal(hex, s.sha256);
		assert_int_equal(bytes, s.bytes);
		if (vk_snapshot_recover(f.cs, VK_LIT("y"), path, vk_bytes_of(s.sha256), 1, &err)) fail_msg("%s", err.text);
		struct vk_collection *y = must_get(&f, "y");
		uint64_t n = points(y);
		assert_true(n >= before && n <= after);
		for (uint64_t p = 0; p < n; p++) assert_true(has_point(y, p));
		assert_int_equal(put_point(y, 1000000), VK_OK);
		vk_collection_unref(y);
		assert_int_equal(directories(f.collections_dir), 2); /* the old y is gone */
	}
	w.stop = true;
	pthread_join(thread, NULL);
	vk_collection_unref(w.c);
	fix_reopen(&f);
	struct vk_collection *y = must_get(&f, "y");
	assert_true(has_point(y, 1000000));
	vk_collection_unref(y);
	fix_free(&f);
}

struct listing {
	unsigned n;
	const struct vk_snapshot *want;
};

static bool list_one(void *arg, const struct vk_snapshot *s)
{
	struct listing *l = arg;
	assert_string_equal(s->name, l->want[l->n].name);
	assert_string_equal(s->sha256, l->want[l->n].sha256);
	assert_int_equal(s->bytes, l->want[l->n].bytes);
	l->n++;
	return true;
}

static void test_snapshot_list_and_delete(void **state)
{
	(void)state;
	struct fix f;
	struct vk_snapshot s[3];
	struct vk_error err;
	char path[4096], longest[256];
	fix_make(&f, 0);
	memset(longest, 'l', 255);
	longest[255] = 0;
	must_create(&f, longest);
	struct vk_alias_op alias = {VK_ALIAS_CREATE, VK_LIT("short"), vk_bytes_of(longest), {0}};
	assert_int_equal(vk_collections_alias(f.cs, &alias, 1, &err), VK_OK);
	for (int i = 0; i < 3; i++) { /* in the same millisecond */
		if (vk_snapshot_create(f.cs, VK_LIT("short"), 1700000000123, &s[i], &err)) fail_msg("%s", err.text);
	}
	struct listing l = {.want = s};
	assert_int_equal(vk_snapshot_each(f.cs, vk_bytes_of(longest), list_one, &l), VK_OK);
	assert_int_equal(l.n, 3);
	assert_int_equal(vk_snapshot_delete(f.cs, VK_LIT("short"), vk_bytes_of(s[0].name), &err), VK_OK);
	assert_int_equal(vk_snapshot_delete(f.cs, VK_LIT("short"), vk_bytes_of(s[0].name), &err), VK_E_NOT_FOUND);
	l = (struct listing){.want = s + 1};
	assert_int_equal(vk_snapshot_each(f.cs, VK_LIT("short"), list_one, &l), VK_OK);
	assert_int_equal(l.n, 2);
	assert_int_equal(vk_snapshot_each(f.cs, VK_LIT("none"), list_one, &l), VK_E_NOT_FOUND);
	/* Names lead nowhere else. */
	static const char *const bad[] = {"../x.snapshot", "..", "", ".snapshot", "a/../b.snapshot", "/etc/passwd", "x.checksum"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(vk_snapshot_path(f.cs, VK_LIT("short"), vk_bytes_of(bad[i]), path, &err), VK_E_INVALID);
		assert_int_equal(vk_snapshot_delete(f.cs, VK_LIT("short"), vk_bytes_of(bad[i]), &err), VK_E_INVALID);
	}
	assert_int_equal(vk_snapshot_path(f.cs, VK_LIT(".."), vk_bytes_of(s[1].name), path, &err), VK_E_INVALID);
	fix_free(&f);
}

static char *read_all(const char *path, size_t *n)
{
	struct vk_buf b;
	vk_buf_init(&b, (size_t)64 << 20);
	assert_int_equal(vk_file_read(path, &b, NULL), VK_OK);
	return vk_buf_take(&b, n);
}

/* The file with these bytes is refused, and x is as it was. */
static void check_refused(struct fix *f, const char *p, size_t n, const char *what)
{
	char path[400];
	struct vk_error err = {0};
	snprintf(path, sizeof path, "%s/upload", f->data);
	assert_int_equal(vk_file_replace(f->data, "upload", p, n, NULL), VK_OK);
	enum vk_status st = vk_snapshot_recover(f->cs, VK_LIT("x"), path, (struct vk_bytes){0}, 1, &err);
	if (st != VK_E_INVALID) fail_msg("%s: %s (%s)", what, vk_status_text(st), err.text);
	assert_true(strlen(err.text) > 20);
	assert_int_equal(directories(f->collections_dir), 1);
	check_points(f, "x", 20);
}

/* Puts a right checksum into a forged header. */
static void seal_header(char *header)
{
	unsigned sum = 0;
	memset(header + 148, ' ', 8);
	for (int i = 0; i < 512; i++) sum += (uint8_t)header[i];
	snprintf(header + 148, 7, "%06o", sum);
}

static void test_snapshot_damaged_files_are_refused(void **state)
{
	(void)state;
	struct fix f;
	struct vk_snapshot s;
	struct vk_error err;
	char path[4096];
	size_t n;
	uint64_t rng = test_seed("snapshot_damage");
	fix_make(&f, 0);
	must_create(&f, "x");
	put_points(&f, "x", 0, 20);
	must_snapshot(&f, "x", &s, path);
	char *whole = read_all(path, &n), *copy = malloc(n);
	check_refused(&f, whole, 0, "empty");
	check_refused(&f, "hello", 5, "no tar");
	for (int i = 0; i < 40; i++) {
		size_t cut = vk_rng(&rng) % (n - 1024);
		check_refused(&f, whole, cut, "cut");
	}
	for (int i = 0; i < 60; i++) {
		/* All but mode, owner, time, device and what pads. */
		size_t at = i < 50 ? 512 + vk_rng(&rng) % s.bytes : vk_rng(&rng) % 100;
		if (at >= n) continue;
		bool padding = at >= 512 && at >= n - 3072;
		memcpy(copy, whole, n);
		copy[at] ^= (char)(1 << vk_rng(&rng) % 8);
		if (!padding) check_refused(&f, copy, n, "flipped");
	}
	/* Forged with right checksums: names that lead out, links, other files, sizes past the end. */
	static const char *const names[] = {"../data.mdb", "/etc/passwd", "a/b", "..", "", "other", "manifest.json"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		memcpy(copy, whole, n);
		memset(copy, 0, 100);
		memcpy(copy, names[i], strlen(names[i]));
		seal_header(copy);
		check_refused(&f, copy, n, names[i]);
	}
	static const char types[] = {'1', '2', '5', 'L', 'x', 'g'};
	for (size_t i = 0; i < sizeof types; i++) {
		memcpy(copy, whole, n);
		copy[156] = types[i];
		seal_header(copy);
		check_refused(&f, copy, n, "type");
	}
	static const char *const sizes[] = {"77777777777", "-0000000001", "00000000000", "9", "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		memcpy(copy, whole, n);
		memset(copy + 124, 0, 12);
		memcpy(copy + 124, sizes[i], strlen(sizes[i]));
		seal_header(copy);
		check_refused(&f, copy, n, "size");
	}
	/* A checksum that is not the file's, and a file that is not there. */
	char wrong[65];
	memcpy(wrong, s.sha256, 65);
	wrong[5] = wrong[5] == 'a' ? 'b' : 'a';
	assert_int_equal(vk_snapshot_recover(f.cs, VK_LIT("x"), path, vk_bytes_of(wrong), 1, &err), VK_E_INVALID);
	assert_int_equal(vk_snapshot_recover(f.cs, VK_LIT("x"), path, VK_LIT("zz"), 1, &err), VK_E_INVALID);
	assert_int_equal(vk_snapshot_recover(f.cs, VK_LIT("x"), "/nonexistent/file", (struct vk_bytes){0}, 1, &err), VK_E_NOT_FOUND);
	assert_int_equal(vk_snapshot_recover(f.cs, VK_LIT("x"), "/", (struct vk_bytes){0}, 1, &err), VK_E_INVALID);
	assert_int_equal(vk_snapshot_recover(f.cs, VK_LIT("../x"), path, (struct vk_bytes){0}, 1, &err), VK_E_INVALID);
	/* And the whole one is taken. */
	assert_int_equal(vk_snapshot_recover(f.cs, VK_LIT("x"), path, (struct vk_bytes){0}, 1, &err), VK_OK);
	check_points(&f, "x", 20);
	free(whole);
	free(copy);
	fix_free(&f);
}

/* Backup */

struct churn {
	struct fix *f;
	_Atomic bool stop;
};

static void *churn(void *arg)
{
	struct churn *c = arg;
	for (unsigned i = 0; !c->stop; i++) {
		char name[16];
		snprintf(name, sizeof name, "n%u", i % 5);
		if (is_there(c->f, name)) must_drop(c->f, name);
		else must_create(c->f, name);
		usleep(2000);
	}
	return NULL;
}

static void test_backup_has_every_collection_that_it_names(void **state)
{
	(void)state;
	struct fix f;
	struct vk_datadir d;
	struct vk_cachedb *cache;
	struct vk_error err = {0};
	pthread_t thread;
	char copy[300], cache_dir[340];
	fix_make(&f, 2);
	fix_close(&f);
	vk_dir_remove(f.data);
	if (vk_datadir_open(&d, f.data, 0, &err)) fail_msg("%s", err.text);
	snprintf(cache_dir, sizeof cache_dir, "%s/cache", f.data);
	assert_int_equal(vk_cachedb_open(cache_dir, NULL, &cache, &err), VK_OK);
	fix_open(&f);
	must_create(&f, "steady");
	put_points(&f, "steady", 0, 30);
	struct vk_collection *held = must_get(&f, "steady");
	struct churn c = {.f = &f};
	pthread_create(&thread, NULL, churn, &c);
	snprintf(copy, sizeof copy, "%s/copy", f.dir.path);
	for (int i = 0; i < 8; i++) {
		struct fix r = {0};
		struct vk_backup_source source;
		struct vk_backup_opts opts = {.collections = &source};
		vk_collections_backup_begin(f.cs, &source);
		enum vk_status st = vk_backup_write(f.catalog, cache, f.data, copy, &opts, &err);
		vk_collections_backup_end(f.cs);
		if (st == VK_E_BUSY) continue; /* made faster than copied */
		if (st) fail_msg("%s", err.text);
		snprintf(r.data, sizeof r.data, "%s/back", f.dir.path);
		snprintf(r.catalog_dir, sizeof r.catalog_dir, "%s/catalog", r.data);
		snprintf(r.collections_dir, sizeof r.collections_dir, "%s/collections", r.data);
		snprintf(r.snapshots_dir, sizeof r.snapshots_dir, "%s/snapshots", r.data);
		if (vk_backup_restore(copy, r.data, &err)) fail_msg("%s", err.text);
		fix_open(&r);
		check_points(&r, "steady", 30);
		for (unsigned n = 0; n < 5; n++) {
			char name[16];
			snprintf(name, sizeof name, "n%u", n);
			is_there(&r, name); /* named means there: another status fails */
		}
		fix_close(&r);
		vk_dir_remove(copy);
		vk_dir_remove(r.data);
	}
	c.stop = true;
	pthread_join(thread, NULL);
	vk_collection_unref(held);
	vk_cachedb_close(cache);
	struct walk w = {0};
	vk_collections_each(f.cs, walk_names, &w);
	assert_int_equal(directories(f.collections_dir), w.n); /* nothing is kept after it */
	vk_datadir_close(&d);
	fix_free(&f);
}

int main(void)
{
	vk_log_set_level(VK_LOG_OFF);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_collections_names_out_of_rule_are_refused),
	    cmocka_unit_test(test_collections_errors_say_it_as_qdrant_does),
	    cmocka_unit_test(test_collections_random_operations_fit_the_model),
	    cmocka_unit_test(test_collections_alias_and_collection_share_names),
	    cmocka_unit_test(test_collections_dropped_one_serves_who_has_it),
	    cmocka_unit_test(test_collections_orphans_are_removed_at_open),
	    cmocka_unit_test(test_collections_missing_environment_fails_alone),
	    cmocka_unit_test(test_collections_close_when_idle_under_threads),
	    cmocka_unit_test(test_snapshot_under_writes_comes_back_whole),
	    cmocka_unit_test(test_snapshot_list_and_delete),
	    cmocka_unit_test(test_snapshot_damaged_files_are_refused),
	    cmocka_unit_test(test_backup_has_every_collection_that_it_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
