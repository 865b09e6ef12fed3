/*
 * Making room: the budget, and purges.
 *
 * Budget. The clock's hand walks the index in key order. Keys are MACs, so that order says nothing
 * about texts or time: a walk in key order is a fair sample. A row whose hot bit is set loses the
 * bit and stays (second chance); one without goes. New rows do not start hot: a bulk load of texts
 * that nobody asks for again then pushes out itself, not the rows that are asked for.
 * The bits lie outside LMDB (a get must not write), by hash of the key: two rows may share one and
 * stay too long, none goes too early.
 *
 * Used bytes are the pages of all trees (vk_env_pages, O(1)). Above the soft limit (127/128 of the
 * budget) some rows go before every batch and while idle, down to 63/64; the budget itself is hard:
 * a batch waits until it fits. Small transactions, so that puts do not stall behind a large one.
 *
 * Roads not taken: an LRU list (a write per hit); the hand along the row ids, oldest first (leaves
 * would empty evenly, but then first in is first out; holes are refilled instead, see struct
 * holes).
 */
#include <string.h>

#include "store/cachedb_internal.h"

#define STEP_ROWS 256	 /* deleted in one transaction */
#define STEP_LOOKS 16384 /* looked at for them */
#define PURGE_ROWS 1024

/* Deletes need pages before they free some: this much of the map is theirs. */
static uint64_t map_reserve(uint64_t map_bytes)
{
	uint64_t least = (uint64_t)256 << 10, most = (uint64_t)64 << 20;
	uint64_t r = map_bytes / 16;
	return r < least ? least : r > most ? most : r;
}

/* The budget, or what of the map may be used when that is less. 0: no limit. Pages that a delete
 * frees are not free for the next commit nor the one after it, so a small map wants more air. */
static uint64_t budget_of(const struct vk_cachedb *db)
{
	uint64_t budget = db->opts.budget_bytes, map = db->env->map_bytes;
	uint64_t map_room = map - map / 4;
	return budget && budget > map_room ? map_room : budget;
}

/* How many rows go in one step: a small part of a small budget. */
static size_t step_rows(uint64_t budget)
{
	uint64_t rows = budget / 32 / 4096;
	return rows < 4 ? 4 : rows > STEP_ROWS ? STEP_ROWS : (size_t)rows;
}

static int used_bytes(struct vk_cachedb *db, uint64_t *used)
{
	MDB_txn *txn;
	uint64_t pages = 0, file;
	int rc = db->env->mdb ? mdb_txn_begin(db->env->mdb, NULL, MDB_RDONLY, &txn) : MDB_PANIC;
	if (rc) return rc;
	rc = vk_env_pages(db->env, txn, &pages, &file);
	mdb_txn_abort(txn);
	*used = pages * db->env->page_size;
	return rc;
}

/* True when the row was not hit since the hand passed; takes its bit. */
static bool take_chance(struct vk_cachedb *db, const struct vk_cache_key *key)
{
	size_t slot = vk_cachedb_hot_slot(key);
	uint64_t bit = (uint64_t)1 << (slot % 64);
	if (!(atomic_load_explicit(&db->hot[slot / 64], memory_order_relaxed) & bit)) return true;
	atomic_fetch_and_explicit(&db->hot[slot / 64], ~bit, memory_order_relaxed);
	return false;
}

/* Moves the hand over the index and collects victims; at the end it starts again. */
static int pick(struct vk_cachedb *db, MDB_txn *txn, struct vk_cache_key *victims, size_t max,
		size_t *count)
{
	MDB_cursor *cur;
	size_t laps = 0;
	*count = 0;
	int rc = mdb_cursor_open(txn, db->env->dbi[T_INDEX], &cur);
	if (rc) return rc;
	MDB_val k = {sizeof db->hand.b, db->hand.b}, v;
	rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	for (size_t looks = 0; *count < max && looks < STEP_LOOKS; looks++) {
		if (rc == MDB_NOTFOUND) {
			if (++laps > 2) break;
			rc = mdb_cursor_get(cur, &k, &v, MDB_FIRST);
			if (rc == MDB_NOTFOUND) break;
		}
		if (rc) break;
		if (k.mv_size == sizeof db->hand.b) {
			memcpy(db->hand.b, k.mv_data, sizeof db->hand.b);
			/* Round the clock within one step: what is there was taken already. */
			if (*count && memcmp(&victims[0], &db->hand, sizeof db->hand) == 0) break;
			if (take_chance(db, &db->hand)) victims[(*count)++] = db->hand;
		}
		rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
	}
	/* Past the last key that was looked at; at the table's end SET_RANGE finds none and wraps.
	 */
	for (int i = VK_CACHE_KEY_SIZE - 1; i >= 0 && ++db->hand.b[i] == 0; i--) {
	}
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

/* One transaction's worth. *gone: rows deleted; 0 with no error when only bits were taken. */
static int evict_some(struct vk_cachedb *db, size_t max, size_t *gone)
{
	struct write_txn w;
	struct vk_cache_key victims[STEP_ROWS];
	uint64_t bytes;
	*gone = 0;
	int rc = vk_cachedb_txn_begin(db, &w);
	if (rc) return rc;
	size_t n = 0;
	rc = pick(db, w.txn, victims, max, &n);
	if (!rc && n == 0) { /* only bits were taken */
		mdb_txn_abort(w.txn);
		return 0;
	}
	for (size_t i = 0; i < n && !rc; i++)
		rc = vk_cachedb_row_delete(db, w.txn, &victims[i], &bytes);
	rc = vk_cachedb_txn_end(db, &w, rc);
	if (rc) return rc;
	*gone = n;
	atomic_fetch_add(&db->evicted, n);
	return 0;
}

bool vk_cachedb_evict_step(struct vk_cachedb *db)
{
	uint64_t budget = budget_of(db), used;
	size_t gone;
	if (!budget || atomic_load(&db->broken) || used_bytes(db, &used)) return false;
	if (used > budget - budget / 128) db->evicting = true;
	if (used <= budget - budget / 64) db->evicting = false;
	return db->evicting && evict_some(db, step_rows(budget), &gone) == 0;
}

/* Frees rows until need more bytes fit; a few even when they do but the soft limit is near. */
static enum vk_status keep_budget(struct vk_cachedb *db, uint64_t need, uint64_t budget)
{
	uint64_t used, soft = budget - budget / 128;
	size_t gone, idle_steps = 0;
	int rc = used_bytes(db, &used);
	if (!rc && used + need > soft) rc = evict_some(db, step_rows(budget), &gone);
	if (!rc) rc = used_bytes(db, &used);
	while (!rc && used + need > budget) {
		rc = evict_some(db, step_rows(budget), &gone);
		/* Only bits were taken: two rounds of the clock at most, then all is cold. */
		idle_steps = gone ? 0 : idle_steps + 1;
		if (!rc && idle_steps > 2 + (used / 1024) / STEP_LOOKS) return VK_E_NO_SPACE;
		if (!rc) rc = used_bytes(db, &used);
	}
	return rc ? vk_env_status(rc) : VK_OK;
}

enum vk_status vk_cachedb_make_room(struct vk_cachedb *db, uint64_t need)
{
	uint64_t used, budget = budget_of(db);
	enum vk_status st = VK_OK;
	if (atomic_load(&db->broken)) return VK_E_IO;
	if (budget) {
		st = keep_budget(db, need, budget);
	} else {
		uint64_t map = db->env->map_bytes;
		if (used_bytes(db, &used)) return VK_E_IO;
		if (used + need + map_reserve(map) > map) st = vk_env_grow(db->env) ? VK_E_NO_SPACE : VK_OK;
	}
	/* Copied pages come on top of new ones: twice the rows is plenty. */
	return st ? st : vk_env_reserve(db->env, 2 * need);
}

/* Purge */

struct purge {
	struct vk_cachedb *db;
	const struct vk_cachedb_filter *f;
	bool dry_run;
	struct vk_cachedb_purged *out;
	size_t rows_max; /* in one transaction; halved when there is no room for more */
};

static bool matches(struct vk_cachedb *db, const struct vk_cachedb_filter *f,
		    const struct vk_cache_key *key, const MDB_val *v, uint64_t *bytes)
{
	struct vk_row_head h;
	*bytes = 0;
	if (f->space_set && vk_cache_key_space(key) != f->space) return false;
	if (f->pool_set && vk_cache_key_pool(key) != f->pool) return false;
	/* A head that does not check is no answer to anybody; of unknown age, it goes too. */
	if (!vk_row_head_decode(&h, key, v->mv_data, v->mv_size, db->cpu)) return true;
	*bytes = (uint64_t)h.meta.dims * 4;
	return f->older_than_ms == 0 || h.meta.created_ms < f->older_than_ms;
}

/* The next keys from *at on that have the prefix and match. *more: the range goes on. */
static int collect(struct purge *p, MDB_txn *txn, const uint8_t *prefix, size_t prefix_n,
		   struct vk_cache_key *at, struct vk_cache_key *keys, size_t max, size_t *count,
		   uint64_t *bytes, bool *more)
{
	MDB_cursor *cur;
	*count = 0;
	*more = false;
	int rc = mdb_cursor_open(txn, p->db->env->dbi[T_INDEX], &cur);
	if (rc) return rc;
	MDB_val k = {sizeof at->b, at->b}, v;
	rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	for (; !rc; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		struct vk_cache_key key;
		uint64_t row_bytes;
		if (k.mv_size != sizeof key.b) continue;
		memcpy(key.b, k.mv_data, sizeof key.b);
		if (memcmp(key.b, prefix, prefix_n) != 0) break;
		if (!matches(p->db, p->f, &key, &v, &row_bytes)) continue;
		if (*count == max) {
			*at = key;
			*more = true;
			break;
		}
		keys[(*count)++] = key;
		*bytes += row_bytes;
	}
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int purge_step(struct purge *p, const uint8_t *prefix, size_t prefix_n,
		      struct vk_cache_key *at, bool *more)
{
	static _Thread_local struct vk_cache_key keys[PURGE_ROWS];
	struct write_txn w;
	struct vk_cache_key from = *at;
	size_t n;
	uint64_t bytes = 0, row_bytes;
	int rc = vk_cachedb_txn_begin(p->db, &w);
	if (rc) return rc;
	rc = collect(p, w.txn, prefix, prefix_n, at, keys, p->rows_max, &n, &bytes, more);
	for (size_t i = 0; i < n && !rc && !p->dry_run; i++)
		rc = vk_cachedb_row_delete(p->db, w.txn, &keys[i], &row_bytes);
	if (!rc && (p->dry_run || n == 0)) mdb_txn_abort(w.txn);
	else rc = vk_cachedb_txn_end(p->db, &w, rc);
	if (vk_env_status(rc) == VK_E_NO_SPACE && p->rows_max > 1) {
		/* Too many pages at once for a full map: the same again in smaller bites. */
		p->rows_max /= 2;
		*at = from;
		*more = true;
		return 0;
	}
	if (rc) return rc;
	p->out->rows += n;
	p->out->bytes += bytes;
	return 0;
}

static int purge_range(struct purge *p, const uint8_t *prefix, size_t prefix_n)
{
	struct vk_cache_key at = {{0}};
	bool more = true;
	int rc = 0;
	memcpy(at.b, prefix, prefix_n);
	while (more && !rc) rc = purge_step(p, prefix, prefix_n, &at, &more);
	return rc;
}

enum vk_status vk_cachedb_purge_run(struct vk_cachedb *db, const struct vk_cachedb_filter *f,
				    bool dry_run, struct vk_cachedb_purged *out)
{
	struct purge p = {.db = db, .f = f, .dry_run = dry_run, .out = out, .rows_max = PURGE_ROWS};
	uint8_t prefix[4 + VK_CACHE_TAG_SIZE];
	int rc = 0;
	vk_put_u32be(prefix, f->pool);
	if (f->tags_n == 0) return vk_env_status(purge_range(&p, prefix, f->pool_set ? 4 : 0));
	for (size_t i = 0; i < f->tags_n && !rc; i++) {
		memcpy(prefix + 4, f->tags[i], VK_CACHE_TAG_SIZE);
		rc = purge_range(&p, prefix, sizeof prefix);
	}
	return vk_env_status(rc);
}
