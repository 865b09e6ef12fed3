/*
 * One row in, one row out, inside the writer's transaction. Where the bytes go is decided by
 * vk_row_split_choose (record.h explains it); here they are put there and taken away again.
 *
 * A row that is there stays (first write wins), unless it does not check: then it was a miss to
 * everybody who asked, and the new one takes its place; or the put says `replace`, because the
 * row has outlived its space's TTL.
 */
#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "simd/crc32c.h"
#include "store/cachedb_internal.h"

/* A provenance entry: key 20, value 52, node and index 10, at two thirds full. */
#define PROVENANCE_COST 125

uint64_t vk_cachedb_row_cost(const struct vk_cachedb *db, uint32_t dims)
{
	struct vk_row_split s;
	vk_row_split_choose(&s, dims * 4, db->env->page_size);
	return s.cost + PROVENANCE_COST;
}

static int put_piece(struct vk_cachedb *db, MDB_txn *txn, enum cache_table t, uint64_t id,
		     const uint8_t *p, size_t n, unsigned flags)
{
	uint8_t b[VK_PIECE_KEY_SIZE];
	vk_put_u64be(b, id);
	MDB_val k = {sizeof b, b}, v = {n, (void *)p};
	return mdb_put(txn, db->env->dbi[t], &k, &v, flags);
}

static int del_piece(struct vk_cachedb *db, MDB_txn *txn, enum cache_table t, uint64_t id,
		     size_t *n)
{
	uint8_t b[VK_PIECE_KEY_SIZE];
	vk_put_u64be(b, id);
	MDB_val k = {sizeof b, b}, v;
	*n = 0;
	int rc = mdb_get(txn, db->env->dbi[t], &k, &v);
	if (rc == MDB_NOTFOUND) return 0; /* a row that did not check */
	if (rc) return rc;
	*n = v.mv_size;
	return mdb_del(txn, db->env->dbi[t], &k, NULL);
}

static bool take_hole(struct holes *h, uint32_t n, uint64_t *id)
{
	/* Look at the newest few: with one size of rows the first one fits. */
	size_t seen = h->count < 16 ? h->count : 16;
	for (size_t i = h->count; i > h->count - seen; i--) {
		if (h->hole[i - 1].n != n) continue;
		*id = h->hole[i - 1].id;
		h->hole[i - 1] = h->hole[--h->count];
		return true;
	}
	return false;
}

static int put_part(struct vk_cachedb *db, MDB_txn *txn, unsigned class, const uint8_t *p,
		    uint32_t n, uint64_t *id)
{
	bool hole = take_hole(&db->holes[class], n, id);
	if (!hole) *id = db->state.next_part[class]++;
	return put_piece(db, txn, T_PART + class, *id, p, n, hole ? MDB_NOOVERWRITE : MDB_APPEND);
}

static int put_head(struct vk_cachedb *db, MDB_txn *txn, const struct vk_cache_key *key,
		    const struct vk_row_head *h)
{
	uint8_t b[VK_ROW_HEAD_MAX];
	MDB_val k = {sizeof key->b, (void *)key->b};
	MDB_val v = {vk_row_head_encode(b, key, h, db->cpu), b};
	return mdb_put(txn, db->env->dbi[T_INDEX], &k, &v, 0);
}

static int put_provenance(struct vk_cachedb *db, MDB_txn *txn, const struct vk_cache_key *key,
			  const uint8_t *provenance)
{
	uint8_t kb[VK_PROVENANCE_KEY_SIZE], vb[VK_PROVENANCE_VALUE_SIZE];
	vk_provenance_key(kb, vk_cache_key_pool(key), provenance);
	vk_provenance_value(vb, key);
	/* Two keys may have equal rows: the last one is named, it will live longer. */
	MDB_val k = {sizeof kb, kb}, v = {sizeof vb, vb};
	return mdb_put(txn, db->env->dbi[T_PROVENANCE], &k, &v, 0);
}

/* Deletes the entry if it still names this key. */
static int del_provenance(struct vk_cachedb *db, MDB_txn *txn, const struct vk_cache_key *key,
			  const uint8_t *provenance)
{
	vk_recent_drop(db->recent, vk_cache_key_pool(key), provenance); /* whatever becomes of the transaction */
	uint8_t kb[VK_PROVENANCE_KEY_SIZE], vb[VK_PROVENANCE_VALUE_SIZE];
	vk_provenance_key(kb, vk_cache_key_pool(key), provenance);
	vk_provenance_value(vb, key);
	MDB_val k = {sizeof kb, kb}, v;
	int rc = mdb_get(txn, db->env->dbi[T_PROVENANCE], &k, &v);
	if (rc == MDB_NOTFOUND) return 0;
	if (rc) return rc;
	if (v.mv_size != sizeof vb || memcmp(v.mv_data, vb, sizeof vb) != 0) return 0;
	return mdb_del(txn, db->env->dbi[T_PROVENANCE], &k, NULL);
}

enum found { ABSENT, SOUND, BROKEN };

/* Is there a row under the key, and does it check to its last byte? */
static int look(struct vk_cachedb *db, MDB_txn *txn, const struct vk_cache_key *key,
		struct vk_row_head *h, enum found *found)
{
	MDB_val k = {sizeof key->b, (void *)key->b}, v;
	int rc = mdb_get(txn, db->env->dbi[T_INDEX], &k, &v);
	*found = ABSENT;
	if (rc == MDB_NOTFOUND) return 0;
	if (rc) return rc;
	*found = BROKEN;
	if (!vk_row_head_decode(h, key, v.mv_data, v.mv_size, db->cpu)) return 0;
	/* A later version's encrypted row is not ours to judge: it stays. */
	static _Thread_local float row[VK_DIMS_MAX];
	if (h->meta.flags & VK_CACHE_ENCRYPTED) *found = SOUND;
	else if (vk_cachedb_row_read(db, txn, h, row) == VK_OK) *found = SOUND;
	return 0;
}

static int insert_pieces(struct vk_cachedb *db, MDB_txn *txn, struct vk_row_head *h,
			 const uint8_t *row, uint32_t row_n)
{
	struct vk_row_split s;
	const uint8_t *p = row;
	int rc = 0;
	vk_row_split_choose(&s, row_n, db->env->page_size);
	h->pages = s.pages;
	h->page_id = s.pages ? db->state.next_page : 0;
	for (uint32_t i = 0; i < s.pages && !rc; i++) {
		uint32_t n = i + 1 == s.pages ? s.last_page_n : s.page_n;
		rc = put_piece(db, txn, T_PAGE, db->state.next_page++, p, n, MDB_APPEND);
		p += n;
	}
	for (unsigned c = 0; c < VK_ROW_CLASSES && !rc; c++) {
		h->part_set[c] = s.part_n[c] > 0;
		if (!h->part_set[c]) continue;
		rc = put_part(db, txn, c, p, s.part_n[c], &h->part_id[c]);
		p += s.part_n[c];
	}
	h->inline_p = p;
	h->inline_n = s.inline_n;
	return rc;
}

int vk_cachedb_row_insert(struct vk_cachedb *db, MDB_txn *txn, const struct vk_entry_put *put)
{
	struct vk_row_head h;
	enum found found;
	int rc = look(db, txn, &put->key, &h, &found);
	if (rc) return rc;
	if (found == SOUND && !put->replace)
		return put->provenance
			   ? vk_cachedb_row_add_provenance(db, txn, &put->key, put->provenance)
			   : 0;
	if (found != ABSENT) {
		uint64_t bytes;
		if (found == BROKEN) atomic_fetch_add(&db->corrupt, 1);
		rc = vk_cachedb_row_delete(db, txn, &put->key, &bytes);
		if (rc) return rc;
	}

	uint32_t row_n = put->meta.dims * 4;
	h = (struct vk_row_head){.meta = put->meta,
				 .row_crc = vk_crc32c(db->cpu, 0, put->row, row_n)};
	h.meta.flags &= (uint16_t)~VK_CACHE_ENCRYPTED;
	if (put->provenance) {
		h.provenances = 1;
		memcpy(h.provenance[0], put->provenance, VK_PROVENANCE_SIZE);
		rc = put_provenance(db, txn, &put->key, put->provenance);
	}
	if (!rc) rc = insert_pieces(db, txn, &h, put->row, row_n);
	if (!rc) rc = put_head(db, txn, &put->key, &h);
	if (!rc) db->state.totals.row_bytes += row_n;
	return rc;
}

static int delete_pieces(struct vk_cachedb *db, MDB_txn *txn, const struct vk_row_head *h)
{
	size_t n;
	int rc = 0;
	for (uint32_t i = 0; i < h->pages && !rc; i++)
		rc = del_piece(db, txn, T_PAGE, h->page_id + i, &n);
	for (unsigned c = 0; c < VK_ROW_CLASSES && !rc; c++) {
		if (!h->part_set[c]) continue;
		rc = del_piece(db, txn, T_PART + c, h->part_id[c], &n);
		struct holes *holes = &db->holes[c];
		if (rc || n == 0 || holes->count == HOLES_MAX) continue;
		holes->hole[holes->count].id = h->part_id[c];
		holes->hole[holes->count++].n = (uint32_t)n;
	}
	return rc;
}

int vk_cachedb_row_delete(struct vk_cachedb *db, MDB_txn *txn, const struct vk_cache_key *key,
			  uint64_t *row_bytes)
{
	struct vk_row_head h;
	MDB_val k = {sizeof key->b, (void *)key->b}, v;
	*row_bytes = 0;
	int rc = mdb_get(txn, db->env->dbi[T_INDEX], &k, &v);
	if (rc == MDB_NOTFOUND) return 0;
	if (rc) return rc;
	/* A head that does not check names nothing that may be deleted; its pieces stay behind. */
	if (vk_row_head_decode(&h, key, v.mv_data, v.mv_size, db->cpu)) {
		rc = delete_pieces(db, txn, &h);
		for (uint32_t i = 0; i < h.provenances && !rc; i++)
			rc = del_provenance(db, txn, key, h.provenance[i]);
		*row_bytes = (uint64_t)h.meta.dims * 4;
	}
	if (!rc) rc = mdb_del(txn, db->env->dbi[T_INDEX], &k, NULL);
	uint64_t *total = &db->state.totals.row_bytes;
	if (!rc) *total -= *row_bytes < *total ? *row_bytes : *total;
	return rc;
}

int vk_cachedb_row_add_provenance(struct vk_cachedb *db, MDB_txn *txn,
				  const struct vk_cache_key *key, const uint8_t provenance[16])
{
	struct vk_row_head h;
	uint8_t inline_copy[VK_ROW_INLINE_MAX];
	MDB_val k = {sizeof key->b, (void *)key->b}, v;
	int rc = mdb_get(txn, db->env->dbi[T_INDEX], &k, &v);
	if (rc == MDB_NOTFOUND) return 0; /* evicted: nothing would ever delete the entry */
	if (rc) return rc;
	if (!vk_row_head_decode(&h, key, v.mv_data, v.mv_size, db->cpu)) return 0;
	for (uint32_t i = 0; i < h.provenances; i++)
		if (memcmp(h.provenance[i], provenance, VK_PROVENANCE_SIZE) == 0) return 0;
	if (h.provenances == VK_PROVENANCES_MAX) return 0;

	memcpy(h.provenance[h.provenances++], provenance, VK_PROVENANCE_SIZE);
	memcpy(inline_copy, h.inline_p, h.inline_n);
	h.inline_p = inline_copy;
	rc = put_provenance(db, txn, key, provenance);
	return rc ? rc : put_head(db, txn, key, &h);
}

/* One past the last id of a piece table. */
static int next_id(struct vk_cachedb *db, MDB_txn *txn, enum cache_table t, uint64_t *next)
{
	MDB_cursor *cur;
	MDB_val k, v;
	*next = 1;
	int rc = mdb_cursor_open(txn, db->env->dbi[t], &cur);
	if (rc) return rc;
	rc = mdb_cursor_get(cur, &k, &v, MDB_LAST);
	if (!rc && k.mv_size == VK_PIECE_KEY_SIZE) {
		const uint8_t *p = k.mv_data;
		*next = ((uint64_t)vk_get_u32be(p) << 32 | vk_get_u32be(p + 4)) + 1;
	}
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

int vk_cachedb_state_load(struct vk_cachedb *db, MDB_txn *txn)
{
	MDB_val k = {6, "totals"}, v;
	db->state = (struct cache_state){0};
	int rc = mdb_get(txn, db->env->dbi[T_TOTALS], &k, &v);
	if (!rc && !vk_totals_decode(&db->state.totals, v.mv_data, v.mv_size, db->cpu)) {
		/* Replaying too much is safe, replaying too little is not. */
		vk_log(VK_LOG_WARN, "%s: totals do not check, counting from zero", db->env->path);
		db->state.totals = (struct vk_totals){0};
	}
	if (rc == MDB_NOTFOUND) rc = 0;
	if (!rc) rc = next_id(db, txn, T_PAGE, &db->state.next_page);
	for (unsigned c = 0; c < VK_ROW_CLASSES && !rc; c++)
		rc = next_id(db, txn, T_PART + c, &db->state.next_part[c]);
	return rc;
}
