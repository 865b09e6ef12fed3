/* The cache database as its readers see it. */
#include "store/cachedb.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "simd/crc32c.h"
#include "store/cachedb_internal.h"

const char *const vk_cache_tables[T_COUNT] = {
    [T_INDEX] = "index",	   [T_PAGE] = "page",	   [T_PART] = "part2",
    [T_PART + 1] = "part4",	   [T_PART + 2] = "part8", [T_PART + 3] = "part16",
    [T_PROVENANCE] = "provenance", [T_TOTALS] = "totals",
};
_Static_assert(T_COUNT <= VK_ENV_TABLES_MAX, "LMDB is told how many tables there are");

enum vk_status vk_cachedb_open(const char *dir, const struct vk_cachedb_opts *opts,
			       struct vk_cachedb **out, struct vk_error *err)
{
	*out = NULL;
	struct vk_cachedb *db = calloc(1, sizeof *db);
	if (!db) return vk_fail(err, VK_E_NOMEM, "no memory");
	if (opts) db->opts = *opts;
	db->cpu = vk_cpu_best();
	db->queue.end = &db->queue.first;
	db->undurable.end = &db->undurable.first;
	db->journal.seg[0].fd = db->journal.seg[1].fd = -1;
	pthread_mutex_init(&db->lock, NULL);
	pthread_cond_init(&db->work, NULL);
	pthread_cond_init(&db->done, NULL);

	struct vk_env_opts env_opts = {
	    .map_bytes = db->opts.map_bytes,
	    .no_meta_sync = true,
	    .read_only = db->opts.read_only,
	    .tables = vk_cache_tables,
	    .tables_n = T_COUNT,
	};
	db->hot = calloc(HOT_BITS / 64, sizeof *db->hot);
	db->holes = calloc(VK_ROW_CLASSES, sizeof *db->holes);
	db->recent = vk_recent_new();
	enum vk_status st = db->hot && db->holes && db->recent ? VK_OK : vk_fail(err, VK_E_NOMEM, "no memory");
	if (!st) st = vk_env_open(dir, &env_opts, &db->env, err);
	if (!st) db->env->owner = db;
	if (!st && !db->opts.read_only) {
		st = vk_journal_open(&db->journal, dir, db->cpu, err);
		if (!st) st = vk_cachedb_writer_start(db, err);
	}
	if (st) {
		vk_cachedb_close(db);
		return st;
	}
	*out = db;
	return VK_OK;
}

void vk_cachedb_close(struct vk_cachedb *db)
{
	if (!db) return;
	vk_cachedb_writer_stop(db);
	vk_journal_close(&db->journal);
	vk_env_close(db->env);
	pthread_cond_destroy(&db->done);
	pthread_cond_destroy(&db->work);
	pthread_mutex_destroy(&db->lock);
	vk_recent_free(db->recent);
	free(db->holes);
	free(db->hot);
	free(db);
}

/* struct vk_cache_read is struct vk_env_read by another name: nothing is added to it. */
enum vk_status vk_cachedb_read_begin(struct vk_cachedb *db, struct vk_cache_read **r)
{
	return vk_env_read_begin(db->env, (struct vk_env_read **)r);
}

void vk_cachedb_read_end(struct vk_cache_read *r) { vk_env_read_end((struct vk_env_read *)r); }

size_t vk_cachedb_hot_slot(const struct vk_cache_key *key)
{
	/* The id is a MAC: its first bytes are as good as any hash. */
	return vk_get_u32le(vk_cache_key_id(key)) % HOT_BITS;
}

static void mark_hot(struct vk_cachedb *db, const struct vk_cache_key *key)
{
	size_t slot = vk_cachedb_hot_slot(key);
	uint64_t bit = (uint64_t)1 << (slot % 64);
	/* Look first: a hot row's cache line then stays shared between the cores. */
	if (!(atomic_load_explicit(&db->hot[slot / 64], memory_order_relaxed) & bit))
		atomic_fetch_or_explicit(&db->hot[slot / 64], bit, memory_order_relaxed);
}

/* Adds a piece to dst; false when there is none or it is too long. */
static bool gather(struct vk_cachedb *db, MDB_txn *txn, enum cache_table t, uint64_t id,
		   uint8_t *dst, size_t *at, size_t row_n)
{
	uint8_t b[VK_PIECE_KEY_SIZE];
	vk_put_u64be(b, id);
	MDB_val k = {sizeof b, b}, v;
	if (mdb_get(txn, db->env->dbi[t], &k, &v) != 0 || v.mv_size > row_n - *at) return false;
	memcpy(dst + *at, v.mv_data, v.mv_size);
	*at += v.mv_size;
	return true;
}

enum vk_status vk_cachedb_row_read(struct vk_cachedb *db, MDB_txn *txn, const struct vk_row_head *h,
				   void *dst)
{
	size_t row_n = (size_t)h->meta.dims * 4, at = 0;
	bool ok = !(h->meta.flags & VK_CACHE_ENCRYPTED);
	for (uint32_t i = 0; i < h->pages && ok; i++)
		ok = gather(db, txn, T_PAGE, h->page_id + i, dst, &at, row_n);
	for (unsigned c = 0; c < VK_ROW_CLASSES && ok; c++)
		if (h->part_set[c])
			ok = gather(db, txn, T_PART + c, h->part_id[c], dst, &at, row_n);
	if (!ok || h->inline_n != row_n - at) return VK_E_CORRUPT;
	memcpy((uint8_t *)dst + at, h->inline_p, h->inline_n);
	return vk_crc32c(db->cpu, 0, dst, row_n) == h->row_crc ? VK_OK : VK_E_CORRUPT;
}

static enum vk_status not_sound(struct vk_cachedb *db)
{
	atomic_fetch_add_explicit(&db->corrupt, 1, memory_order_relaxed);
	return VK_E_NOT_FOUND;
}

enum vk_status vk_cachedb_get(struct vk_cache_read *read, const struct vk_cache_key *key,
			      size_t dims, float *dst, struct vk_cache_meta *meta)
{
	struct vk_env_read *r = (struct vk_env_read *)read;
	struct vk_cachedb *db = r->env->owner;
	struct vk_row_head h;
	MDB_val k = {sizeof key->b, (void *)key->b}, v;
	int rc = mdb_get(r->txn, r->env->dbi[T_INDEX], &k, &v);
	if (rc == MDB_NOTFOUND) return VK_E_NOT_FOUND;
	if (rc) return vk_env_status(rc);
	if (!vk_row_head_decode(&h, key, v.mv_data, v.mv_size, db->cpu)) return not_sound(db);
	if (h.meta.dims != dims || h.meta.flags & VK_CACHE_ENCRYPTED) return VK_E_NOT_FOUND;
	if (vk_cachedb_row_read(db, r->txn, &h, dst)) return not_sound(db);
	*meta = h.meta;
	mark_hot(db, key);
	return VK_OK;
}

enum vk_status vk_cachedb_scan(struct vk_cache_read *read, const void *prefix, size_t prefix_n,
			       vk_cachedb_scan_fn *fn, void *arg)
{
	struct vk_env_read *r = (struct vk_env_read *)read;
	struct vk_cachedb *db = r->env->owner;
	struct vk_cache_key start = {{0}};
	if (prefix_n > VK_CACHE_KEY_SIZE) return VK_E_INVALID;
	if (prefix_n) memcpy(start.b, prefix, prefix_n);

	MDB_cursor *cur;
	MDB_val k = {sizeof start.b, start.b}, v;
	int rc = mdb_cursor_open(r->txn, r->env->dbi[T_INDEX], &cur);
	if (rc) return vk_env_status(rc);
	rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	for (; !rc; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		struct vk_cache_key key;
		struct vk_row_head h;
		if (k.mv_size != sizeof key.b) continue;
		memcpy(key.b, k.mv_data, sizeof key.b);
		if (memcmp(key.b, start.b, prefix_n) != 0) break;
		if (!vk_row_head_decode(&h, &key, v.mv_data, v.mv_size, db->cpu)) not_sound(db);
		else if (!fn(arg, &key, &h.meta)) break;
	}
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? VK_OK : vk_env_status(rc);
}

enum vk_status vk_cachedb_get_provenance(struct vk_cache_read *read, uint32_t pool,
					 const uint8_t provenance[16], struct vk_cache_key *key)
{
	struct vk_env_read *r = (struct vk_env_read *)read;
	uint8_t b[VK_PROVENANCE_KEY_SIZE];
	vk_provenance_key(b, pool, provenance);
	MDB_val k = {sizeof b, b}, v;
	int rc = mdb_get(r->txn, r->env->dbi[T_PROVENANCE], &k, &v);
	if (rc == MDB_NOTFOUND && vk_recent_find(((struct vk_cachedb *)r->env->owner)->recent, pool, provenance, key))
		return VK_OK;
	if (rc) return vk_env_status(rc);
	return vk_provenance_decode(key, pool, v.mv_data, v.mv_size) ? VK_OK
								     : not_sound(r->env->owner);
}

/* What only the environment knows, as one reader sees it. */
static void env_stats(struct vk_cachedb *db, struct vk_cachedb_stats *out)
{
	struct vk_env_read *r;
	if (vk_env_read_begin(db->env, &r)) return;
	uint64_t used = 0, file = 0;
	struct vk_totals totals;
	MDB_stat index;
	MDB_val k = {6, "totals"}, v;
	if (vk_env_pages(db->env, r->txn, &used, &file) == 0) {
		out->used_bytes = used * db->env->page_size;
		out->free_bytes = file > used ? (file - used) * db->env->page_size : 0;
	}
	if (mdb_stat(r->txn, db->env->dbi[T_INDEX], &index) == 0) out->rows = index.ms_entries;
	if (mdb_get(r->txn, db->env->dbi[T_TOTALS], &k, &v) == 0 &&
	    vk_totals_decode(&totals, v.mv_data, v.mv_size, db->cpu))
		out->row_bytes = totals.row_bytes;
	vk_env_read_end(r);
}

void vk_cachedb_stats(struct vk_cachedb *db, struct vk_cachedb_stats *out)
{
	*out = (struct vk_cachedb_stats){
	    .budget_bytes = db->opts.budget_bytes,
	    .puts = atomic_load(&db->puts),
	    .commits = atomic_load(&db->commits),
	    .evicted = atomic_load(&db->evicted),
	    .corrupt = atomic_load(&db->corrupt),
	    .dropped = atomic_load(&db->dropped),
	    .full = atomic_load(&db->full) || atomic_load(&db->broken),
	};
	env_stats(db, out);
	out->oldest_reader_lag_txns = vk_env_reader_lag(db->env);
	pthread_mutex_lock(&db->env->lock);
	out->map_bytes = db->env->map_bytes;
	pthread_mutex_unlock(&db->env->lock);
	pthread_mutex_lock(&db->lock);
	out->queued_bytes = db->queued_bytes;
	out->journal_bytes = vk_journal_bytes(&db->journal);
	pthread_mutex_unlock(&db->lock);
}
