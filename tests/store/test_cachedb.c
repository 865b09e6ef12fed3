/*
 * Goal: what is put can be got, exactly, and nothing else can; scans, purges, provenance and first
 * write wins agree with a plain table in memory; a row that does not check is a miss.
 * Method: seeded random operations against the model; damage done to the file's records by hand.
 * Crashes are tests/store/test_crash.c.
 */
#include "tests/store/util.h"

#include <lmdb.h>

#define POOLS 3
#define SPACES 2
#define KEYS 300
#define STEPS 4000

struct cell { /* the model: one possible key */
	bool there;
	uint32_t dims;
	uint64_t n; /* which row and meta */
};

struct model {
	struct cell cell[POOLS][SPACES][KEYS];
};

static const uint32_t dims_list[] = {1, 3, 100, 384, 505, 768, 1024, 1536, 3072, 4096};

static struct cell *cell_at(struct model *m, uint64_t r, uint32_t *pool, uint32_t *space,
			    uint32_t *k)
{
	*pool = (uint32_t)(r % POOLS);
	*space = (uint32_t)(r / 8 % SPACES);
	*k = (uint32_t)(r / 64 % KEYS);
	return &m->cell[*pool][*space][*k];
}

static void model_put(struct vk_cachedb *db, struct model *m, uint64_t r, uint64_t step)
{
	uint32_t pool, space, k,
	    dims = dims_list[(r >> 40) % (sizeof dims_list / sizeof *dims_list)];
	struct cell *c = cell_at(m, r, &pool, &space, &k);
	float *row = malloc(dims * sizeof *row);
	struct vk_cache_put put = {.meta = meta_of(dims, step), .row = row};
	key_of(&put.key, pool + 1, space + 1, k);
	row_of(row, dims, step);
	assert_int_equal(vk_cachedb_put(db, &put, 1, NULL, NULL), VK_OK);
	free(row);
	if (!c->there) *c = (struct cell){true, dims, step};
}

static void check_cell(struct vk_cachedb *db, const struct cell *c, uint32_t pool, uint32_t space,
		       uint32_t k)
{
	static float got[4096], want[4096];
	struct vk_cache_read *r;
	struct vk_cache_key key;
	struct vk_cache_meta meta;
	key_of(&key, pool + 1, space + 1, k);
	assert_int_equal(vk_cachedb_read_begin(db, &r), VK_OK);
	uint32_t dims = c->there ? c->dims : 384;
	enum vk_status st = vk_cachedb_get(r, &key, dims, got, &meta);
	enum vk_status other = vk_cachedb_get(r, &key, dims + 1, got + 2000, &meta);
	if (c->there) st = vk_cachedb_get(r, &key, dims, got, &meta);
	vk_cachedb_read_end(r);
	assert_int_equal(st, c->there ? VK_OK : VK_E_NOT_FOUND);
	assert_int_equal(other, VK_E_NOT_FOUND);
	if (!c->there) return;
	row_of(want, dims, c->n);
	assert_memory_equal(got, want, dims * sizeof *want);
	struct vk_cache_meta want_meta = meta_of(dims, c->n);
	same_meta(&meta, &want_meta);
}

static void model_purge(struct vk_cachedb *db, struct model *m, uint64_t r)
{
	uint32_t pool, space, k;
	cell_at(m, r, &pool, &space, &k);
	struct vk_cache_key key;
	struct vk_cachedb_filter f = {0};
	uint8_t tag[1][VK_CACHE_TAG_SIZE];
	key_of(&key, pool + 1, space + 1, k);
	memcpy(tag[0], vk_cache_key_tag(&key), VK_CACHE_TAG_SIZE);
	unsigned kind = r >> 32 & 7;
	if (kind < 6) { /* one text: all its spaces go */
		f = (struct vk_cachedb_filter){
		    .pool_set = true, .pool = pool + 1, .tags = tag, .tags_n = 1};
	} else if (kind == 6) {
		f = (struct vk_cachedb_filter){
		    .space_set = true, .space = space + 1, .pool_set = true, .pool = pool + 1};
	} else {
		f = (struct vk_cachedb_filter){.older_than_ms = (int64_t)(r >> 20 & 1023)};
	}
	uint64_t rows = 0, bytes = 0;
	bool dry = r >> 50 & 1;
	for (uint32_t p = 0; p < POOLS; p++)
		for (uint32_t s = 0; s < SPACES; s++)
			for (uint32_t i = 0; i < KEYS; i++) {
				struct cell *c = &m->cell[p][s][i];
				if (!c->there) continue;
				if (f.pool_set && p != pool) continue;
				if (f.space_set && s != space) continue;
				if (f.tags_n && i != k) continue;
				if (f.older_than_ms &&
				    meta_of(1, c->n).created_ms >= f.older_than_ms)
					continue;
				rows++;
				bytes += c->dims * 4;
				if (!dry) c->there = false;
			}
	struct vk_cachedb_purged out;
	struct vk_error err;
	assert_int_equal(vk_cachedb_purge(db, &f, dry, &out, &err), VK_OK);
	assert_int_equal(out.rows, rows);
	assert_int_equal(out.bytes, bytes);
}

static void check_all(struct vk_cachedb *db, struct model *m)
{
	uint64_t rows = 0, bytes = 0;
	for (uint32_t p = 0; p < POOLS; p++)
		for (uint32_t s = 0; s < SPACES; s++)
			for (uint32_t k = 0; k < KEYS; k++) {
				check_cell(db, &m->cell[p][s][k], p, s, k);
				rows += m->cell[p][s][k].there;
				if (m->cell[p][s][k].there) bytes += m->cell[p][s][k].dims * 4;
			}
	struct vk_cachedb_stats stats;
	vk_cachedb_stats(db, &stats);
	assert_int_equal(stats.rows, rows);
	assert_int_equal(stats.row_bytes, bytes);
	assert_int_equal(stats.corrupt, 0);
}

struct scanned {
	struct model *m;
	uint32_t pool;
	size_t rows;
	struct vk_cache_key last;
};

static bool on_scan(void *arg, const struct vk_cache_key *key, const struct vk_cache_meta *meta)
{
	struct scanned *s = arg;
	assert_true(s->rows == 0 || memcmp(s->last.b, key->b, sizeof key->b) < 0);
	assert_int_equal(vk_cache_key_pool(key), s->pool);
	assert_true(meta->dims > 0);
	s->last = *key;
	s->rows++;
	return true;
}

static void check_scan(struct vk_cachedb *db, struct model *m, uint32_t pool)
{
	uint8_t prefix[4];
	size_t want = 0;
	struct scanned s = {.m = m, .pool = pool + 1};
	struct vk_cache_read *r;
	vk_put_u32be(prefix, pool + 1);
	for (uint32_t sp = 0; sp < SPACES; sp++)
		for (uint32_t k = 0; k < KEYS; k++) want += m->cell[pool][sp][k].there;
	assert_int_equal(vk_cachedb_read_begin(db, &r), VK_OK);
	assert_int_equal(vk_cachedb_scan(r, prefix, sizeof prefix, on_scan, &s), VK_OK);
	vk_cachedb_read_end(r);
	assert_int_equal(s.rows, want);
}

static void test_cachedb_random_ops_match_model(void **state)
{
	(void)state;
	struct temp t;
	struct model *m = calloc(1, sizeof *m);
	uint64_t rng = test_seed("cachedb_random_ops");
	temp_make(&t);
	struct vk_cachedb *db = must_open(t.path, NULL);
	for (uint64_t step = 1; step <= STEPS; step++) {
		uint64_t r = vk_rng(&rng), what = r >> 56;
		uint32_t pool, space, k;
		if (what < 200) {
			model_put(db, m, r, step);
		} else if (what < 245) {
			const struct cell *c = cell_at(m, r, &pool, &space, &k);
			assert_int_equal(vk_cachedb_flush(db), VK_OK);
			check_cell(db, c, pool, space, k);
		} else if (what < 254) {
			model_purge(db, m, r);
		} else {
			vk_cachedb_close(db);
			db = must_open(t.path, NULL);
		}
		if (step % 1000 == 0) {
			assert_int_equal(vk_cachedb_flush(db), VK_OK);
			check_all(db, m);
			check_scan(db, m, (uint32_t)(r % POOLS));
		}
	}
	vk_cachedb_close(db);
	db = must_open(t.path, NULL);
	check_all(db, m);
	vk_cachedb_close(db);
	temp_free(&t);
	free(m);
}

struct called {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int times;
	enum vk_status st;
};

static void on_done(void *arg, enum vk_status st)
{
	struct called *c = arg;
	pthread_mutex_lock(&c->lock);
	c->times++;
	c->st = st;
	pthread_cond_signal(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static void wait_called(struct called *c, int times)
{
	pthread_mutex_lock(&c->lock);
	while (c->times < times) pthread_cond_wait(&c->changed, &c->lock);
	pthread_mutex_unlock(&c->lock);
}

static void test_cachedb_committed_row_is_read(void **state)
{
	(void)state;
	struct temp t;
	struct called c = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
	temp_make(&t);
	struct vk_cachedb *db = must_open(t.path, NULL);
	for (int n = 1; n <= 50; n++) {
		assert_int_equal(put_one(db, 1, 1, (uint64_t)n, 256, on_done, &c), VK_OK);
		wait_called(&c, n);
		assert_int_equal(c.st, VK_OK);
		assert_int_equal(get_one(db, 1, 1, (uint64_t)n, 256), VK_OK);
	}
	/* A key that is there: called once, OK, the first row stays. */
	struct vk_cache_put put = {.meta = meta_of(256, 7)};
	float row[256];
	key_of(&put.key, 1, 1, 7);
	row_of(row, 256, 999);
	put.row = row;
	assert_int_equal(vk_cachedb_put(db, &put, 1, on_done, &c), VK_OK);
	wait_called(&c, 51);
	assert_int_equal(c.st, VK_OK);
	assert_int_equal(get_one(db, 1, 1, 7, 256), VK_OK);
	vk_cachedb_close(db);
	assert_int_equal(c.times, 51);
	temp_free(&t);
}

static void test_cachedb_bad_put_is_refused(void **state)
{
	(void)state;
	struct temp t;
	temp_make(&t);
	struct vk_cachedb *db = must_open(t.path, NULL);
	float row[4] = {0};
	struct vk_cache_put put = {.row = row};
	assert_int_equal(vk_cachedb_put(db, &put, 1, NULL, NULL), VK_E_INVALID);
	put.meta.dims = VK_DIMS_MAX + 1;
	assert_int_equal(vk_cachedb_put(db, &put, 1, NULL, NULL), VK_E_INVALID);
	assert_int_equal(vk_cachedb_put(db, &put, 0, NULL, NULL), VK_E_INVALID);
	struct vk_cachedb_filter f = {0};
	struct vk_cachedb_purged out;
	struct vk_error err;
	assert_int_equal(vk_cachedb_purge(db, &f, false, &out, &err), VK_E_INVALID);
	vk_cachedb_close(db);
	temp_free(&t);
}

static void test_cachedb_largest_row_comes_back(void **state)
{
	(void)state;
	struct temp t;
	temp_make(&t);
	struct vk_cachedb *db = must_open(t.path, NULL);
	assert_int_equal(put_one(db, 1, 1, 5, VK_DIMS_MAX, NULL, NULL), VK_OK);
	assert_int_equal(vk_cachedb_flush(db), VK_OK);
	assert_int_equal(get_one(db, 1, 1, 5, VK_DIMS_MAX), VK_OK);
	vk_cachedb_close(db);
	temp_free(&t);
}

static void test_cachedb_second_open_in_process_is_busy(void **state)
{
	(void)state;
	struct temp t;
	struct vk_cachedb *other;
	struct vk_error err;
	temp_make(&t);
	struct vk_cachedb *db = must_open(t.path, NULL);
	assert_int_equal(vk_cachedb_open(t.path, NULL, &other, &err), VK_E_BUSY);
	assert_null(other);
	vk_cachedb_close(db);
	db = must_open(t.path, &(struct vk_cachedb_opts){.read_only = true});
	assert_int_equal(put_one(db, 1, 1, 5, 8, NULL, NULL), VK_E_INVALID);
	vk_cachedb_close(db);
	temp_free(&t);
}

static void provenance_of(uint8_t p[16], uint64_t n)
{
	uint8_t mac[VK_SHA256_SIZE];
	vk_sha256(&n, sizeof n, mac);
	memcpy(p, mac, 16);
}

static enum vk_status ask_provenance(struct vk_cachedb *db, uint64_t n, struct vk_cache_key *key)
{
	uint8_t p[16];
	struct vk_cache_read *r;
	provenance_of(p, n);
	assert_int_equal(vk_cachedb_read_begin(db, &r), VK_OK);
	enum vk_status st = vk_cachedb_get_provenance(r, 1, p, key);
	vk_cachedb_read_end(r);
	return st;
}

static void test_cachedb_provenance_goes_with_its_row(void **state)
{
	(void)state;
	struct temp t;
	struct vk_cache_key key, got;
	uint8_t p[16];
	float row[1536];
	temp_make(&t);
	struct vk_cachedb *db = must_open(t.path, NULL);
	struct vk_cache_put put = {.meta = meta_of(1536, 3), .row = row, .has_provenance = true};
	key_of(&put.key, 1, 1, 3);
	key = put.key;
	row_of(row, 1536, 3);
	provenance_of(put.provenance, 100);
	assert_int_equal(vk_cachedb_put(db, &put, 1, NULL, NULL), VK_OK);
	/* Cuts of the row: remembered until there are too many, and deleted with it. */
	for (uint64_t n = 101; n < 130; n++) {
		provenance_of(p, n);
		vk_cachedb_put_provenance(db, 1, p, &key);
	}
	struct vk_cache_key absent;
	key_of(&absent, 1, 1, 4);
	provenance_of(p, 200);
	vk_cachedb_put_provenance(db, 1, p, &absent);
	assert_int_equal(vk_cachedb_flush(db), VK_OK);
	for (uint64_t n = 100; n < 116; n++) {
		assert_int_equal(ask_provenance(db, n, &got), VK_OK);
		assert_memory_equal(&got, &key, sizeof key);
	}
	assert_int_equal(ask_provenance(db, 116, &got), VK_E_NOT_FOUND);
	assert_int_equal(ask_provenance(db, 200, &got), VK_E_NOT_FOUND);
	assert_int_equal(get_one(db, 1, 1, 3, 1536), VK_OK);

	uint8_t tag[1][VK_CACHE_TAG_SIZE];
	memcpy(tag[0], vk_cache_key_tag(&key), VK_CACHE_TAG_SIZE);
	struct vk_cachedb_filter f = {.pool_set = true, .pool = 1, .tags = tag, .tags_n = 1};
	struct vk_cachedb_purged out;
	assert_int_equal(vk_cachedb_purge(db, &f, false, &out, NULL), VK_OK);
	assert_int_equal(out.rows, 1);
	for (uint64_t n = 100; n < 130; n++)
		assert_int_equal(ask_provenance(db, n, &got), VK_E_NOT_FOUND);
	vk_cachedb_close(db);
	temp_free(&t);
}

/* Flips a byte of the n-th value of a table of the closed environment. */
static void damage(const char *dir, const char *table, size_t at)
{
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_cursor *cur;
	MDB_val k, v;
	assert_int_equal(mdb_env_create(&env), 0);
	mdb_env_set_maxdbs(env, 12);
	mdb_env_set_mapsize(env, 1 << 28);
	assert_int_equal(mdb_env_open(env, dir, 0, 0600), 0);
	assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_dbi_open(txn, table, 0, &dbi), 0);
	assert_int_equal(mdb_cursor_open(txn, dbi, &cur), 0);
	assert_int_equal(mdb_cursor_get(cur, &k, &v, MDB_FIRST), 0);
	uint8_t key[64], value[8192];
	size_t key_n = k.mv_size, n = v.mv_size;
	memcpy(key, k.mv_data, key_n);
	memcpy(value, v.mv_data, n);
	value[at % n] ^= 0x10;
	mdb_cursor_close(cur);
	k = (MDB_val){key_n, key};
	v = (MDB_val){n, value};
	assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
}

static void test_cachedb_damaged_record_is_a_miss_and_heals(void **state)
{
	(void)state;
	static const char *const tables[] = {"index", "page", "part2"};
	uint64_t rng = test_seed("cachedb_damage");
	for (int round = 0; round < 30; round++) {
		struct temp t;
		temp_make(&t);
		struct vk_cachedb *db = must_open(t.path, NULL);
		assert_int_equal(put_one(db, 1, 1, 1, 1536, NULL, NULL), VK_OK);
		vk_cachedb_close(db);
		damage(t.path, tables[round % 3], vk_rng(&rng) % 100000);
		db = must_open(t.path, NULL);
		assert_int_equal(get_one(db, 1, 1, 1, 1536), VK_E_NOT_FOUND);
		struct vk_cachedb_stats stats;
		vk_cachedb_stats(db, &stats);
		assert_int_equal(stats.corrupt, 1);
		/* Bought again, it is stored again: the broken one does not count as the first. */
		assert_int_equal(put_one(db, 1, 1, 1, 1536, NULL, NULL), VK_OK);
		assert_int_equal(vk_cachedb_flush(db), VK_OK);
		assert_int_equal(get_one(db, 1, 1, 1, 1536), VK_OK);
		vk_cachedb_close(db);
		temp_free(&t);
	}
}

struct putter {
	struct vk_cachedb *db;
	uint64_t from;
	struct called called;
};

static void *put_many(void *arg)
{
	struct putter *p = arg;
	for (uint64_t n = 0; n < 400; n++) {
		/* Threads overlap in half of their keys. */
		uint64_t k = p->from / 2 + n;
		if (put_one(p->db, 1, 1, k, 512, on_done, &p->called)) return p;
		if (n % 50 == 49) {
			wait_called(&p->called, (int)n + 1);
			if (get_one(p->db, 1, 1, k, 512)) return p;
		}
	}
	return NULL;
}

static void test_cachedb_threads_put_and_get(void **state)
{
	(void)state;
	struct temp t;
	struct putter p[4];
	pthread_t thread[4];
	temp_make(&t);
	struct vk_cachedb *db = must_open(t.path, NULL);
	for (int i = 0; i < 4; i++) {
		p[i] = (struct putter){.db = db,
				       .from = (uint64_t)i * 400,
				       .called = {.lock = PTHREAD_MUTEX_INITIALIZER,
						  .changed = PTHREAD_COND_INITIALIZER}};
		assert_int_equal(pthread_create(&thread[i], NULL, put_many, &p[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		void *failed;
		pthread_join(thread[i], &failed);
		assert_null(failed);
	}
	assert_int_equal(vk_cachedb_flush(db), VK_OK);
	for (uint64_t n = 0; n < 1000; n++) assert_int_equal(get_one(db, 1, 1, n, 512), VK_OK);
	struct vk_cachedb_stats stats;
	vk_cachedb_stats(db, &stats);
	assert_int_equal(stats.rows, 1000);
	assert_int_equal(stats.puts, 1600);
	assert_int_equal(stats.queued_bytes, 0);
	vk_cachedb_close(db);
	temp_free(&t);
}

int main(void)
{
	vk_log_set_level(VK_LOG_ERROR);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_cachedb_random_ops_match_model),
	    cmocka_unit_test(test_cachedb_committed_row_is_read),
	    cmocka_unit_test(test_cachedb_bad_put_is_refused),
	    cmocka_unit_test(test_cachedb_largest_row_comes_back),
	    cmocka_unit_test(test_cachedb_second_open_in_process_is_busy),
	    cmocka_unit_test(test_cachedb_provenance_goes_with_its_row),
	    cmocka_unit_test(test_cachedb_damaged_record_is_a_miss_and_heals),
	    cmocka_unit_test(test_cachedb_threads_put_and_get),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
