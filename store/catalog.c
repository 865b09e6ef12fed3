/*
 * The catalog: one LMDB environment with full sync, a table each, records as they come.
 *
 * Names. Table `name` maps kind byte + name to u32; the way back (`name_of`: kind byte + u32 BE to
 * name) and the last id given out (`name_last`: kind byte to u32) are tables of their own, so that
 * an id is not given out again when its name is deleted. All three change in one commit.
 */
#include "store/catalog.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "store/env.h"
#include "store/internal.h"

enum { T_NAME_OF = VK_TABLE_COUNT, T_NAME_LAST, T_COUNT };

const char *const vk_catalog_tables[T_COUNT] = {
    [VK_TABLE_SPACE] = "space",	  [VK_TABLE_POOL] = "pool",   [VK_TABLE_KEY] = "key",
    [VK_TABLE_CANARY] = "canary", [VK_TABLE_USAGE] = "usage", [VK_TABLE_NAME] = "name",
    [VK_TABLE_META] = "meta",	  [VK_TABLE_COLLECTION] = "collection", [VK_TABLE_ALIAS] = "alias",
    [T_NAME_OF] = "name_of",    [T_NAME_LAST] = "name_last",
};
const size_t vk_catalog_tables_n = T_COUNT;
_Static_assert(T_COUNT <= VK_ENV_TABLES_MAX, "LMDB is told how many tables there are");

#define KEY_MAX 511 /* LMDB's own */
#define NAME_MAX_BYTES (KEY_MAX - 1)

struct vk_catalog {
	struct vk_env *env;
	pthread_mutex_t write_lock; /* one commit at a time; held while the environment may grow */
};

enum vk_status vk_catalog_open(const char *dir, bool read_only, struct vk_catalog **out,
			       struct vk_error *err)
{
	*out = NULL;
	struct vk_catalog *c = calloc(1, sizeof *c);
	if (!c) return vk_fail(err, VK_E_NOMEM, "no memory");
	struct vk_env_opts opts = {
	    .read_only = read_only, .tables = vk_catalog_tables, .tables_n = T_COUNT};
	enum vk_status st = vk_env_open(dir, &opts, &c->env, err);
	if (st) {
		free(c);
		return st;
	}
	pthread_mutex_init(&c->write_lock, NULL);
	c->env->owner = c;
	*out = c;
	return VK_OK;
}

void vk_catalog_close(struct vk_catalog *c)
{
	if (!c) return;
	vk_env_close(c->env);
	pthread_mutex_destroy(&c->write_lock);
	free(c);
}

struct vk_env *vk_catalog_env(struct vk_catalog *c) { return c->env; }

static enum vk_status get_in(struct vk_catalog *c, MDB_txn *txn, int table, struct vk_bytes key,
			     struct vk_buf *value)
{
	MDB_val k = {key.n, (void *)key.p}, v;
	if (key.n == 0 || key.n > KEY_MAX) return VK_E_NOT_FOUND;
	int rc = mdb_get(txn, c->env->dbi[table], &k, &v);
	if (rc) return vk_env_status(rc);
	vk_buf_put(value, v.mv_data, v.mv_size);
	return value->failed ? VK_E_NOMEM : VK_OK;
}

static enum vk_status get_from(struct vk_catalog *c, int table, struct vk_bytes key,
			       struct vk_buf *value)
{
	struct vk_env_read *r;
	enum vk_status st = vk_env_read_begin(c->env, &r);
	if (st) return st;
	st = get_in(c, r->txn, table, key, value);
	vk_env_read_end(r);
	return st;
}

enum vk_status vk_catalog_get(struct vk_catalog *c, enum vk_catalog_table t, struct vk_bytes key,
			      struct vk_buf *value)
{
	assert(t < VK_TABLE_COUNT);
	return get_from(c, t, key, value);
}

static int scan_in(MDB_cursor *cur, struct vk_bytes prefix,
		   bool (*fn)(void *arg, struct vk_bytes key, struct vk_bytes value), void *arg)
{
	MDB_val k = {prefix.n, (void *)prefix.p}, v;
	int rc = mdb_cursor_get(cur, &k, &v, prefix.n ? MDB_SET_RANGE : MDB_FIRST);
	for (; !rc; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		if (k.mv_size < prefix.n ||
		    (prefix.n && memcmp(k.mv_data, prefix.p, prefix.n) != 0))
			break;
		struct vk_bytes key = {k.mv_data, k.mv_size}, value = {v.mv_data, v.mv_size};
		if (!fn(arg, key, value)) break;
	}
	return rc == MDB_NOTFOUND ? 0 : rc;
}

enum vk_status vk_catalog_scan(struct vk_catalog *c, enum vk_catalog_table t,
			       struct vk_bytes prefix,
			       bool (*fn)(void *arg, struct vk_bytes key, struct vk_bytes value),
			       void *arg)
{
	assert(t < VK_TABLE_COUNT);
	struct vk_env_read *r;
	MDB_cursor *cur;
	if (prefix.n > KEY_MAX) return VK_OK; /* no key is that long */
	enum vk_status st = vk_env_read_begin(c->env, &r);
	if (st) return st;
	int rc = mdb_cursor_open(r->txn, c->env->dbi[t], &cur);
	if (!rc) {
		rc = scan_in(cur, prefix, fn, arg);
		mdb_cursor_close(cur);
	}
	vk_env_read_end(r);
	return vk_env_status(rc);
}

struct raw_op { /* an op over all tables, the names' own included */
	int table;
	struct vk_bytes key, value;
};

static int apply(struct vk_catalog *c, MDB_txn *txn, const struct raw_op *op)
{
	MDB_val k = {op->key.n, (void *)op->key.p}, v = {op->value.n, (void *)op->value.p};
	if (op->value.p) return mdb_put(txn, c->env->dbi[op->table], &k, &v, 0);
	int rc = mdb_del(txn, c->env->dbi[op->table], &k, NULL);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int commit_once(struct vk_catalog *c, const struct raw_op *ops, size_t n)
{
	MDB_txn *txn;
	int rc = c->env->mdb ? mdb_txn_begin(c->env->mdb, NULL, 0, &txn) : MDB_PANIC;
	if (rc) return rc;
	for (size_t i = 0; i < n && !rc; i++) rc = apply(c, txn, &ops[i]);
	if (!rc) return mdb_txn_commit(txn);
	mdb_txn_abort(txn);
	return rc;
}

/* Holds write_lock. */
static enum vk_status commit_locked(struct vk_catalog *c, const struct raw_op *ops, size_t n)
{
	int rc = commit_once(c, ops, n);
	if (rc == MDB_MAP_FULL && vk_env_grow(c->env) == VK_OK) rc = commit_once(c, ops, n);
	if (rc == MDB_PANIC) vk_env_reopen_read_only(c->env); /* reads go on */
	if (rc) vk_log(VK_LOG_ERROR, "catalog: commit failed: %s", mdb_strerror(rc));
	return vk_env_status(rc);
}

enum vk_status vk_catalog_commit(struct vk_catalog *c, const struct vk_catalog_op *ops, size_t n)
{
	if (c->env->opts.read_only) return VK_E_INVALID;
	if (n == 0) return VK_OK;
	struct raw_op *raw = calloc(n, sizeof *raw);
	if (!raw) return VK_E_NOMEM;
	enum vk_status st = VK_OK;
	for (size_t i = 0; i < n; i++) {
		assert(ops[i].table < VK_TABLE_COUNT);
		if (ops[i].key.n == 0 || ops[i].key.n > KEY_MAX) st = VK_E_INVALID;
		raw[i] = (struct raw_op){ops[i].table, ops[i].key, ops[i].value};
	}
	if (!st) {
		pthread_mutex_lock(&c->write_lock);
		st = commit_locked(c, raw, n);
		pthread_mutex_unlock(&c->write_lock);
	}
	free(raw);
	return st;
}

/* VK_E_CORRUPT when the value is no u32. */
static enum vk_status get_u32(struct vk_catalog *c, int table, struct vk_bytes key, uint32_t *out)
{
	struct vk_buf b;
	vk_buf_init(&b, 64);
	enum vk_status st = get_from(c, table, key, &b);
	if (!st && b.n != 4) st = VK_E_CORRUPT;
	if (!st) *out = vk_get_u32le((const uint8_t *)b.p);
	vk_buf_free(&b);
	return st;
}

/* Holds write_lock: nobody else gives out ids. */
static enum vk_status intern_new(struct vk_catalog *c, char kind, struct vk_bytes name_key,
				 struct vk_bytes name, uint32_t *id)
{
	uint32_t last = 0;
	uint8_t id_value[4], of_key[5];
	struct vk_bytes kind_key = {&kind, 1};
	enum vk_status st = get_u32(c, T_NAME_LAST, kind_key, &last);
	if (st && st != VK_E_NOT_FOUND) return st;
	if (last == UINT32_MAX) return VK_E_NO_SPACE;
	vk_put_u32le(id_value, ++last);
	of_key[0] = (uint8_t)kind;
	vk_put_u32be(of_key + 1, last);
	struct vk_bytes value = {(const char *)id_value, 4};
	struct raw_op ops[] = {
	    {VK_TABLE_NAME, name_key, value},
	    {T_NAME_OF, {(const char *)of_key, sizeof of_key}, name},
	    {T_NAME_LAST, kind_key, value},
	};
	st = commit_locked(c, ops, 3);
	if (!st) *id = last;
	return st;
}

enum vk_status vk_catalog_intern(struct vk_catalog *c, enum vk_name_kind kind, struct vk_bytes name,
				 uint32_t *id)
{
	char b[KEY_MAX];
	*id = 0;
	if (name.n == 0 || name.n > NAME_MAX_BYTES) return VK_E_INVALID;
	b[0] = (char)kind;
	memcpy(b + 1, name.p, name.n);
	struct vk_bytes key = {b, name.n + 1};
	enum vk_status st = get_u32(c, VK_TABLE_NAME, key, id);
	if (st != VK_E_NOT_FOUND || c->env->opts.read_only) return st;
	pthread_mutex_lock(&c->write_lock);
	st = get_u32(c, VK_TABLE_NAME, key, id); /* somebody may have been quicker */
	if (st == VK_E_NOT_FOUND) st = intern_new(c, (char)kind, key, name, id);
	pthread_mutex_unlock(&c->write_lock);
	return st;
}

enum vk_status vk_catalog_name(struct vk_catalog *c, enum vk_name_kind kind, uint32_t id,
			       struct vk_buf *name)
{
	uint8_t key[5] = {(uint8_t)kind};
	vk_put_u32be(key + 1, id);
	return get_from(c, T_NAME_OF, (struct vk_bytes){(const char *)key, sizeof key}, name);
}
