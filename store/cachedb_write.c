/*
 * Writing: the queue, the one writer thread, group commit, durability, failures.
 *
 * put() seals an entry into the journal and queues the same bytes; journal order is queue order
 * (one lock). The writer takes what has gathered (at most 256 entries or 8 MB), commits it as
 * one transaction and goes on; with nothing waiting it commits at once, so there is no timer.
 *
 * Durability. The environment runs NOMETASYNC: a commit flushes its data, its meta page follows
 * with the next flush. So commit n makes n-1 proof against a power cut; `committed` of n's
 * entries is called after commit n+1, or after an mdb_env_sync when the queue is empty. Under
 * load that is one flush a commit in place of two. Kill -9 needs none of this: the kernel has
 * the journal.
 *
 * Each transaction stores the last journal seq that it decided (totals.journal_seq), in the same
 * commit: replay after a crash starts behind it, so a row that was purged does not come back from
 * the journal, and what a power cut took from LMDB is replayed if the journal's bytes survived.
 *
 * Failures. No room (map, disk, limit): the batch is given up, puts are refused for two seconds,
 * then one is let through to try. A failed sync (EIO) or LMDB's panic: nobody knows what the disk
 * holds, and asking again lies (the kernel may have dropped the pages). Writing stops until the
 * process starts anew; reads go on.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/cachedb_internal.h"

#define IDLE_WAKE_MS 1000

static void list_append(struct op_list *l, struct op *op)
{
	op->next = NULL;
	*l->end = op;
	l->end = &op->next;
}

static struct op *list_take(struct op_list *l)
{
	struct op *op = l->first;
	if (!op) return NULL;
	l->first = op->next;
	if (!l->first) l->end = &l->first;
	return op;
}

/* Failures */

static void set_full(struct vk_cachedb *db)
{
	if (!atomic_exchange(&db->full, true))
		vk_log(VK_LOG_WARN, "cache: no room left, caching stops until there is");
	atomic_store(&db->retry_at_ms, vk_mono_ms() + FULL_RETRY_MS);
}

static void set_broken(struct vk_cachedb *db, int rc)
{
	if (atomic_exchange(&db->broken, true)) return;
	vk_log(VK_LOG_ERROR, "cache: write failed (%s), nothing is stored until the next start",
	       mdb_strerror(rc));
}

/* After a panic LMDB gives nobody a transaction; opened again it can at least be read. */
static void rescue_readers(struct vk_cachedb *db)
{
	MDB_txn *txn;
	int rc = db->env->mdb ? mdb_txn_begin(db->env->mdb, NULL, MDB_RDONLY, &txn) : MDB_PANIC;
	if (!rc) mdb_txn_abort(txn);
	if (rc != MDB_PANIC) return;
	set_broken(db, rc);
	vk_env_reopen_read_only(db->env);
}

static void judge(struct vk_cachedb *db, int rc)
{
	enum vk_status st = vk_env_status(rc);
	if (!rc) return;
	if (st == VK_E_NO_SPACE) set_full(db);
	else if (st != VK_E_NOMEM && st != VK_E_BUSY) set_broken(db, rc);
	rescue_readers(db);
}

/* Transactions */

int vk_cachedb_txn_begin(struct vk_cachedb *db, struct write_txn *w)
{
	w->before = db->state;
	w->txn = NULL;
	if (atomic_load(&db->broken) || !db->env->mdb) return EIO;
	int rc = mdb_txn_begin(db->env->mdb, NULL, 0, &w->txn);
	judge(db, rc);
	return rc;
}

static int put_totals(struct vk_cachedb *db, MDB_txn *txn)
{
	uint8_t b[VK_TOTALS_SIZE];
	vk_totals_encode(b, &db->state.totals, db->cpu);
	MDB_val k = {6, "totals"}, v = {sizeof b, b};
	return mdb_put(txn, db->env->dbi[T_TOTALS], &k, &v, 0);
}

int vk_cachedb_txn_end(struct vk_cachedb *db, struct write_txn *w, int rc)
{
	if (!rc) rc = put_totals(db, w->txn);
	if (rc) mdb_txn_abort(w->txn);
	else rc = mdb_txn_commit(w->txn);
	if (!rc) {
		atomic_fetch_add(&db->commits, 1);
		return 0;
	}
	db->state = w->before;
	/* Their ids may be of rows that live again. */
	for (unsigned c = 0; c < VK_ROW_CLASSES; c++) db->holes[c].count = 0;
	judge(db, rc);
	return rc;
}

/* Putting */

/* Where a put cannot begin: VK_OK when it can. */
static enum vk_status refuse(struct vk_cachedb *db, const struct vk_cache_put *puts, size_t n)
{
	if (db->opts.read_only || n == 0) return VK_E_INVALID;
	for (size_t i = 0; i < n; i++)
		if (puts[i].meta.dims == 0 || puts[i].meta.dims > VK_DIMS_MAX) return VK_E_INVALID;
	if (atomic_load_explicit(&db->broken, memory_order_relaxed)) return VK_E_IO;
	if (atomic_load_explicit(&db->full, memory_order_relaxed) &&
	    vk_mono_ms() < atomic_load(&db->retry_at_ms))
		return VK_E_NO_SPACE;
	return VK_OK;
}

/* One allocation: the op, then its entry. */
static struct op *new_op(enum op_kind kind, size_t entry_n)
{
	struct op *op = malloc(sizeof *op + entry_n);
	if (!op) return NULL;
	*op = (struct op){.kind = kind, .size = sizeof *op + entry_n, .entry_n = entry_n};
	op->entry = (uint8_t *)(op + 1);
	return op;
}

/* Is there something for the writer to do now, rather than in GATHER_MS? Lock held. */
static bool in_a_hurry(const struct vk_cachedb *db)
{
	return db->stop || db->waited_for || db->queued_bytes >= GATHER_BYTES;
}

/* The writer is woken by the first op and again when it should not wait for more: a wake-up for
 * each put would cost the one who puts more than the put. */
static void enqueue(struct vk_cachedb *db, struct op *op)
{
	bool first = !db->queue.first, hurried = in_a_hurry(db);
	db->queued_bytes += op->size;
	list_append(&db->queue, op);
	if (first || (!hurried && in_a_hurry(db))) pthread_cond_signal(&db->work);
}

static enum vk_status put_journaled(struct vk_cachedb *db, struct op *op)
{
	uint32_t crc = vk_entry_payload_crc(op->entry, op->entry_n, db->cpu);
	pthread_mutex_lock(&db->lock);
	while (db->queued_bytes >= QUEUE_BYTES_MAX && !db->stop)
		pthread_cond_wait(&db->done, &db->lock);
	enum vk_status st = db->stop ? VK_E_UNAVAILABLE : VK_OK;
	if (!st) st = vk_journal_append(&db->journal, op->entry, op->entry_n, crc, &op->seq);
	if (!st) enqueue(db, op);
	pthread_mutex_unlock(&db->lock);
	if (st == VK_E_NO_SPACE) set_full(db);
	return st;
}

enum vk_status vk_cachedb_put(struct vk_cachedb *db, const struct vk_cache_put *puts, size_t n,
			      vk_cachedb_done_fn *committed, void *arg)
{
	struct op *op = NULL;
	enum vk_status st = refuse(db, puts, n);
	size_t entry_n = st ? 0 : vk_entry_size(puts, n);
	if (!st && entry_n == 0) st = VK_E_TOO_LARGE;
	if (!st && !(op = new_op(OP_PUT, entry_n))) st = VK_E_NOMEM;
	if (!st) {
		op->committed = committed;
		op->arg = arg;
		vk_entry_encode(op->entry, puts, n);
		st = put_journaled(db, op);
	}
	if (st) {
		free(op);
		atomic_fetch_add(&db->dropped, n);
		return st;
	}
	atomic_fetch_add(&db->puts, n);
	for (size_t i = 0; i < n; i++)
		if (puts[i].has_provenance) vk_recent_add(db->recent, puts[i].provenance, &puts[i].key);
	return VK_OK;
}

void vk_cachedb_put_provenance(struct vk_cachedb *db, uint32_t pool, const uint8_t provenance[16],
			       const struct vk_cache_key *key)
{
	if (db->opts.read_only || atomic_load(&db->broken) || vk_cache_key_pool(key) != pool)
		return;
	struct op *op = new_op(OP_PROVENANCE, VK_CACHE_KEY_SIZE + VK_PROVENANCE_SIZE);
	if (!op) return;
	memcpy(op->entry, key->b, VK_CACHE_KEY_SIZE);
	memcpy(op->entry + VK_CACHE_KEY_SIZE, provenance, VK_PROVENANCE_SIZE);
	pthread_mutex_lock(&db->lock);
	bool room = db->queued_bytes < QUEUE_BYTES_MAX && !db->stop;
	if (room) {
		vk_recent_add(db->recent, provenance, key);
		enqueue(db, op);
	}
	pthread_mutex_unlock(&db->lock);
	if (!room) free(op);
}

/* Queues an op that lies on our stack and waits until the writer is done with it. */
static enum vk_status run_op(struct vk_cachedb *db, struct op *op)
{
	pthread_mutex_lock(&db->lock);
	if (db->stop) {
		pthread_mutex_unlock(&db->lock);
		return VK_E_UNAVAILABLE;
	}
	db->waited_for++;
	enqueue(db, op);
	pthread_cond_signal(&db->work);
	while (!op->done) pthread_cond_wait(&db->done, &db->lock);
	db->waited_for--;
	pthread_mutex_unlock(&db->lock);
	return op->result;
}

enum vk_status vk_cachedb_flush(struct vk_cachedb *db)
{
	struct op op = {.kind = OP_FLUSH};
	return db->opts.read_only ? VK_OK : run_op(db, &op);
}

enum vk_status vk_cachedb_purge(struct vk_cachedb *db, const struct vk_cachedb_filter *f,
				bool dry_run, struct vk_cachedb_purged *out, struct vk_error *err)
{
	*out = (struct vk_cachedb_purged){0};
	if (!f->pool_set && !f->space_set && f->older_than_ms == 0)
		return vk_fail(err, VK_E_INVALID, "a purge wants a pool, a space, texts or an age");
	if (f->tags_n && !f->pool_set)
		return vk_fail(err, VK_E_INVALID, "texts are purged from one pool: name it");
	if (db->opts.read_only)
		return vk_fail(err, VK_E_INVALID, "the cache is open for reading only");
	struct op op = {.kind = OP_PURGE, .filter = f, .dry_run = dry_run};
	enum vk_status st = run_op(db, &op);
	*out = op.purged;
	return st ? vk_fail(err, st, "the purge stopped after %llu rows: %s",
			    (unsigned long long)out->rows, vk_status_text(st))
		  : VK_OK;
}

/* The writer: finishing ops */

static void give_back(struct vk_cachedb *db, uint64_t bytes)
{
	pthread_mutex_lock(&db->lock);
	db->queued_bytes -= bytes;
	pthread_cond_broadcast(&db->done);
	pthread_mutex_unlock(&db->lock);
}

/* Calls back and frees every op of the list. */
static void finish(struct vk_cachedb *db, struct op_list *l, enum vk_status st)
{
	struct op *op;
	uint64_t bytes = 0;
	while ((op = list_take(l))) {
		if (op->committed) op->committed(op->arg, st);
		bytes += op->size;
		free(op);
	}
	if (bytes) give_back(db, bytes);
}

static void finish_waiter(struct vk_cachedb *db, struct op *op, enum vk_status st)
{
	pthread_mutex_lock(&db->lock);
	op->result = st;
	op->done = true;
	pthread_cond_broadcast(&db->done);
	pthread_mutex_unlock(&db->lock);
}

/* Empties the segments whose entries are all decided and durable. */
static void settle_journal(struct vk_cachedb *db, bool all)
{
	for (int i = 0; i < 2; i++) {
		pthread_mutex_lock(&db->lock);
		int segment = vk_journal_settle_begin(&db->journal, db->done_seq, all);
		pthread_mutex_unlock(&db->lock);
		if (segment < 0 || !vk_journal_settle_empty(&db->journal, segment)) return;
		pthread_mutex_lock(&db->lock);
		vk_journal_settle_end(&db->journal, segment);
		pthread_mutex_unlock(&db->lock);
	}
}

/* Makes all that is committed proof against a power cut, and says so. */
enum vk_status vk_cachedb_make_durable(struct vk_cachedb *db, bool empty_journal)
{
	int rc = atomic_load(&db->broken) ? EIO : mdb_env_sync(db->env->mdb, 1);
	if (rc) set_broken(db, rc);
	finish(db, &db->undurable, rc ? VK_E_IO : VK_OK);
	if (!rc) settle_journal(db, empty_journal);
	return rc ? VK_E_IO : VK_OK;
}

/* The writer: batches */

static uint64_t put_cost(struct vk_cachedb *db, const struct op *op)
{
	struct vk_entry_walk w;
	struct vk_entry_put put;
	uint64_t cost = 0;
	if (op->kind != OP_PUT || !vk_entry_walk_start(&w, op->entry, op->entry_n)) return cost;
	while (vk_entry_walk_next(&w, &put)) cost += vk_cachedb_row_cost(db, put.meta.dims);
	return cost;
}

int vk_cachedb_apply_entry(struct vk_cachedb *db, MDB_txn *txn, const uint8_t *entry, size_t n)
{
	struct vk_entry_walk w;
	struct vk_entry_put put;
	int rc = vk_entry_walk_start(&w, entry, n) ? 0 : EINVAL;
	while (!rc && vk_entry_walk_next(&w, &put)) rc = vk_cachedb_row_insert(db, txn, &put);
	return rc;
}

static int apply_op(struct vk_cachedb *db, MDB_txn *txn, const struct op *op)
{
	if (op->kind == OP_PROVENANCE)
		return vk_cachedb_row_add_provenance(
		    db, txn, (const struct vk_cache_key *)op->entry, op->entry + VK_CACHE_KEY_SIZE);
	if (op->seq) db->state.totals.journal_seq = op->seq;
	return vk_cachedb_apply_entry(db, txn, op->entry, op->entry_n);
}

static int commit_ops(struct vk_cachedb *db, const struct op *first)
{
	struct write_txn w;
	int rc = vk_cachedb_txn_begin(db, &w);
	if (rc) return rc;
	for (const struct op *op = first; op && !rc; op = op->next) rc = apply_op(db, w.txn, op);
	rc = vk_cachedb_txn_end(db, &w, rc);
	/* A derived row's provenance stands or falls with the row that LMDB has by now. */
	for (const struct op *op = first; op && !rc; op = op->next)
		if (op->kind == OP_PROVENANCE)
			vk_recent_drop(db->recent, vk_cache_key_pool((const struct vk_cache_key *)op->entry),
				       op->entry + VK_CACHE_KEY_SIZE);
	return rc;
}

static void commit_batch(struct vk_cachedb *db, struct op_list *batch)
{
	uint64_t cost = 0, last_seq = 0;
	for (struct op *op = batch->first; op; op = op->next) {
		cost += put_cost(db, op);
		if (op->seq) last_seq = op->seq;
	}
	enum vk_status st = vk_cachedb_make_room(db, cost);
	if (st == VK_E_NO_SPACE) set_full(db);
	int rc = st ? 0 : commit_ops(db, batch->first);
	if (vk_env_status(rc) == VK_E_NO_SPACE && vk_env_grow(db->env) == VK_OK) {
		atomic_store(&db->full, false);
		rc = commit_ops(db, batch->first);
	}
	if (!st) st = vk_env_status(rc);
	if (st && st != VK_E_NO_SPACE) st = VK_E_IO;

	if (!st) {
		if (atomic_exchange(&db->full, false))
			vk_log(VK_LOG_INFO, "cache: there is room again");
		/* The commit flushed the meta page of the one before it. */
		finish(db, &db->undurable, VK_OK);
		if (last_seq) settle_journal(db, false);
		*db->undurable.end = batch->first;
		db->undurable.end = batch->end;
		*batch = (struct op_list){.end = &batch->first};
	} else {
		for (struct op *op = batch->first; op; op = op->next)
			atomic_fetch_add(&db->dropped, op->kind == OP_PUT);
		finish(db, batch, st);
	}
	if (last_seq) db->done_seq = last_seq;
}

static bool is_batched(const struct op *op)
{
	return op->kind == OP_PUT || op->kind == OP_PROVENANCE;
}

/* Takes what may be committed together; or, alone, an op that stands for itself. */
static struct op *take_batch(struct vk_cachedb *db, struct op_list *batch)
{
	uint64_t bytes = 0;
	/* A small budget must not be overrun by one batch. */
	uint64_t bytes_max = BATCH_BYTES_MAX;
	if (db->opts.budget_bytes && db->opts.budget_bytes / 16 < bytes_max)
		bytes_max = db->opts.budget_bytes / 16;
	pthread_mutex_lock(&db->lock);
	struct op *single = NULL;
	for (size_t n = 0; n < BATCH_OPS_MAX && db->queue.first; n++) {
		struct op *op = db->queue.first;
		if (!is_batched(op)) {
			if (n == 0) single = list_take(&db->queue);
			break;
		}
		if (n && bytes + op->size > bytes_max) break;
		bytes += op->size;
		list_append(batch, list_take(&db->queue));
	}
	pthread_mutex_unlock(&db->lock);
	return single;
}

static void run_single(struct vk_cachedb *db, struct op *op)
{
	enum vk_status st = VK_OK;
	if (op->kind == OP_PURGE) {
		st = vk_cachedb_purge_run(db, op->filter, op->dry_run, &op->purged);
		if (!op->dry_run) vk_recent_clear(db->recent);
	}
	/* What was purged shall not lie in the journal either. */
	enum vk_status durable = vk_cachedb_make_durable(db, op->kind == OP_PURGE && !op->dry_run);
	if (op->kind == OP_PURGE && op->purged.rows && !op->dry_run) atomic_store(&db->full, false);
	finish_waiter(db, op, st ? st : durable);
}

/* The writer: its loop */

static struct timespec in_ms(long ms)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += ms % 1000 * 1000000;
	t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return t;
}

/*
 * Waits for work, and then a moment for more of it; false when asked to stop and nothing is left.
 * The moment costs nobody anything: rows are in the journal, and their flights serve them until
 * the commit. Without it each row of a quiet server gets an fdatasync of its own, which was 70 % of
 * the CPU of a miss and made it slower.
 */
static bool wait_for_work(struct vk_cachedb *db)
{
	pthread_mutex_lock(&db->lock);
	if (!db->queue.first && !db->stop) {
		struct timespec until = in_ms(IDLE_WAKE_MS);
		pthread_cond_timedwait(&db->work, &db->lock, &until);
	}
	if (db->queue.first && !in_a_hurry(db)) {
		struct timespec until = in_ms(GATHER_MS);
		while (!in_a_hurry(db) &&
		       pthread_cond_timedwait(&db->work, &db->lock, &until) == 0) {
		}
	}
	bool go_on = db->queue.first || !db->stop;
	pthread_mutex_unlock(&db->lock);
	return go_on;
}

static bool is_idle(struct vk_cachedb *db)
{
	pthread_mutex_lock(&db->lock);
	bool idle = !db->queue.first;
	pthread_mutex_unlock(&db->lock);
	return idle;
}

static void keep_house(struct vk_cachedb *db)
{
	uint64_t now_ms = vk_mono_ms();
	while (is_idle(db) && vk_cachedb_evict_step(db)) {
	}
	if (atomic_load(&db->broken)) rescue_readers(db);
	if (now_ms < db->reader_check_at_ms) return;
	db->reader_check_at_ms = now_ms + READER_CHECK_MS;
	if (!atomic_load(&db->broken)) vk_env_reader_check(db->env);
}

static void *write_loop(void *arg)
{
	struct vk_cachedb *db = arg;
	while (wait_for_work(db)) {
		struct op_list batch = {.end = &batch.first};
		struct op *single = take_batch(db, &batch);
		if (batch.first) commit_batch(db, &batch);
		if (single) run_single(db, single);
		if (db->undurable.first && is_idle(db)) vk_cachedb_make_durable(db, false);
		keep_house(db);
	}
	vk_cachedb_make_durable(db, true);
	return NULL;
}

/* Start and stop */

enum vk_status vk_cachedb_writer_start(struct vk_cachedb *db, struct vk_error *err)
{
	enum vk_status st = vk_cachedb_replay(db, err);
	if (st) return st;
	if (pthread_create(&db->writer, NULL, write_loop, db))
		return vk_fail(err, VK_E_NOMEM, "no thread for the cache's writer");
	db->writer_runs = true;
	return VK_OK;
}

void vk_cachedb_writer_stop(struct vk_cachedb *db)
{
	if (!db->writer_runs) return;
	pthread_mutex_lock(&db->lock);
	db->stop = true;
	pthread_cond_broadcast(&db->work);
	pthread_cond_broadcast(&db->done);
	pthread_mutex_unlock(&db->lock);
	pthread_join(db->writer, NULL);
	db->writer_runs = false;
}
