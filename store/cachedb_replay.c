/*
 * What a crash left in the journal goes into LMDB before the writer starts. Entries that LMDB has
 * (totals.journal_seq) are skipped; rows that are there stay, so doing it twice is harmless.
 */
#include <errno.h>

#include "base/log.h"
#include "store/cachedb_internal.h"

struct replay {
	struct vk_cachedb *db;
	struct write_txn w;
	bool open;
	uint64_t bytes, bytes_max; /* of entries in one transaction */
	size_t entries, lost;
};

static int replay_commit(struct replay *r)
{
	int rc = r->open ? vk_cachedb_txn_end(r->db, &r->w, 0) : 0;
	r->open = false;
	r->bytes = 0;
	return rc;
}

static int replay_apply(struct replay *r, const uint8_t *entry, size_t n, uint64_t seq)
{
	if (!r->open) {
		if (vk_cachedb_make_room(r->db, n * 2)) return ENOSPC;
		int rc = vk_cachedb_txn_begin(r->db, &r->w);
		if (rc) return rc;
		r->open = true;
	}
	r->db->state.totals.journal_seq = seq;
	int rc = vk_cachedb_apply_entry(r->db, r->w.txn, entry, n);
	if (rc) {
		r->open = false;
		return vk_cachedb_txn_end(r->db, &r->w, rc);
	}
	r->bytes += n;
	return r->bytes >= r->bytes_max ? replay_commit(r) : 0;
}

static enum vk_status replay_entry(void *arg, const uint8_t *entry, size_t n, uint64_t seq)
{
	struct replay *r = arg;
	int rc = replay_apply(r, entry, n, seq);
	r->entries++;
	if (rc) r->lost++;
	return atomic_load(&r->db->broken) ? VK_E_IO : VK_OK;
}

static enum vk_status replay_pass(struct replay *r)
{
	struct vk_cachedb *db = r->db;
	r->entries = r->lost = 0;
	enum vk_status st =
	    vk_journal_replay(&db->journal, db->state.totals.journal_seq, replay_entry, r);
	if (replay_commit(r)) r->lost++;
	return st ? st : atomic_load(&db->broken) ? VK_E_IO : VK_OK;
}

enum vk_status vk_cachedb_replay(struct vk_cachedb *db, struct vk_error *err)
{
	struct replay r = {.db = db, .bytes_max = BATCH_BYTES_MAX};
	MDB_txn *txn;
	int rc = mdb_txn_begin(db->env->mdb, NULL, MDB_RDONLY, &txn);
	if (!rc) {
		rc = vk_cachedb_state_load(db, txn);
		mdb_txn_abort(txn);
	}
	if (rc) return vk_fail(err, vk_env_status(rc), "%s: %s", db->env->path, mdb_strerror(rc));
	uint64_t after_seq = db->state.totals.journal_seq;
	enum vk_status st = replay_pass(&r);
	if (!st && r.lost) {
		/* One that found no room took its batch with it: again, each on its own. What is
		 * there already stays as it is. */
		db->state.totals.journal_seq = after_seq;
		r.bytes_max = 1;
		st = replay_pass(&r);
	}
	db->done_seq = db->journal.next_seq - 1;
	if (st) return vk_fail(err, st, "%s: the journal cannot be replayed", db->env->path);
	if (r.entries)
		vk_log(VK_LOG_INFO, "cache: %zu journal entries replayed, %zu lost", r.entries,
		       r.lost);
	/* The journal is emptied only now that LMDB has it for good; what found no room is dropped.
	 */
	if (vk_cachedb_make_durable(db, true) || vk_journal_bytes(&db->journal))
		return vk_fail(err, VK_E_IO, "%s: the journal cannot be emptied", db->env->path);
	return VK_OK;
}
