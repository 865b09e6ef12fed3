/*
 * What the cache database's files share (store/cachedb*.c, store/backup.c). Nobody else includes
 * it.
 *
 *   cachedb.c        open, close, get, scan, provenance, stats: the readers' side
 *   cachedb_row.c    one row in, one row out, inside a write transaction
 *   cachedb_write.c  the queue, the writer thread, group commit, what a failure means
 *   cachedb_replay.c the journal at open
 *   cachedb_evict.c  budget and purge
 *
 * Lock order: db->lock, then env->lock. The writer takes neither while it calls LMDB.
 */
#ifndef VK_STORE_CACHEDB_INTERNAL_H
#define VK_STORE_CACHEDB_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/cachedb.h"
#include "store/cachedb_recent.h"
#include "store/env.h"
#include "store/journal.h"
#include "store/record.h"

enum cache_table {
	T_INDEX, /* cache key -> row head */
	T_PAGE,	 /* pieces of a whole page */
	T_PART,	 /* T_PART + class: parts that fill 1/2, 1/4, 1/8, 1/16 of a leaf */
	T_PROVENANCE = T_PART + VK_ROW_CLASSES,
	T_TOTALS,
	T_COUNT
};
extern const char *const vk_cache_tables[T_COUNT];

#define QUEUE_BYTES_MAX ((uint64_t)64 << 20)
#define BATCH_OPS_MAX 256
#define GATHER_MS 25			  /* how long a first row may wait for company */
#define GATHER_BYTES ((uint64_t)256 << 10) /* this much is company enough */
#define BATCH_BYTES_MAX ((uint64_t)8 << 20)
#define FULL_RETRY_MS 2000
#define READER_CHECK_MS 60000

/* One bit a hash of the key: the row was hit since the clock's hand passed. 2 MiB. */
#define HOT_BITS ((size_t)1 << 24)

/* Ids whose part was deleted: a new part of the same size goes there, so that leaves stay full
 * though rows leave in random order. In memory only: a restart forgets holes, costs no more. */
#define HOLES_MAX 16384
struct holes {
	struct {
		uint64_t id;
		uint32_t n;
	} hole[HOLES_MAX];
	size_t count;
};

/* What the writer knows beside LMDB; copied before a transaction, put back when it aborts. */
struct cache_state {
	struct vk_totals totals;
	uint64_t next_page;
	uint64_t next_part[VK_ROW_CLASSES];
};

enum op_kind { OP_PUT, OP_PROVENANCE, OP_PURGE, OP_FLUSH };

struct op {
	struct op *next;
	enum op_kind kind;
	uint64_t seq; /* of the journal; 0: not journaled */
	size_t size;  /* counted in queued_bytes */
	vk_cachedb_done_fn *committed;
	void *arg;
	/* OP_PUT: the journal entry. OP_PROVENANCE: key and 16 bytes. */
	uint8_t *entry;
	size_t entry_n;
	/* OP_PURGE, OP_FLUSH: lies on the caller's stack, who waits for `done` under db->lock. */
	const struct vk_cachedb_filter *filter;
	bool dry_run, done;
	struct vk_cachedb_purged purged;
	enum vk_status result;
};

struct op_list {
	struct op *first, **end;
};

struct vk_cachedb {
	struct vk_env *env;
	struct vk_cachedb_opts opts;
	enum vk_cpu_level cpu;
	_Atomic uint64_t *hot;
	struct vk_recent *recent; /* provenance that LMDB may not have yet */
	_Atomic uint64_t puts, commits, evicted, corrupt, dropped;
	_Atomic bool full;   /* no room: puts are refused until retry_at_ms */
	_Atomic bool broken; /* a sync failed: no writing until the next start */
	_Atomic uint64_t retry_at_ms;

	pthread_mutex_t lock;	   /* from here to the blank line */
	pthread_cond_t work, done; /* the writer waits for work; callers for room or for their op */
	struct op_list queue;
	unsigned waited_for; /* callers that block on the writer (flush, purge): it does not gather */
	uint64_t queued_bytes;
	struct vk_journal journal;
	bool stop;

	/* The writer thread's own (and open's, before it starts). */
	pthread_t writer;
	bool writer_runs;
	struct cache_state state;
	struct holes *holes;	  /* [VK_ROW_CLASSES] */
	struct op_list undurable; /* committed; what a power cut may still take */
	uint64_t done_seq;	  /* all entries up to here are in LMDB or given up */
	struct vk_cache_key hand;
	bool evicting;
	uint64_t reader_check_at_ms;
};

/* cachedb.c */
size_t vk_cachedb_hot_slot(const struct vk_cache_key *key);
/* Gathers the row of a decoded head; VK_E_CORRUPT when it does not check. */
enum vk_status vk_cachedb_row_read(struct vk_cachedb *db, MDB_txn *txn, const struct vk_row_head *h,
				   void *dst);

/* cachedb_row.c. All return LMDB's codes; after one that is not 0 the transaction must abort. */
int vk_cachedb_row_insert(struct vk_cachedb *db, MDB_txn *txn, const struct vk_entry_put *put);
int vk_cachedb_row_delete(struct vk_cachedb *db, MDB_txn *txn, const struct vk_cache_key *key,
			  uint64_t *row_bytes);
int vk_cachedb_row_add_provenance(struct vk_cachedb *db, MDB_txn *txn,
				  const struct vk_cache_key *key, const uint8_t provenance[16]);
int vk_cachedb_state_load(struct vk_cachedb *db, MDB_txn *txn);
/* Estimate of a row's bytes on disk, all tables. */
uint64_t vk_cachedb_row_cost(const struct vk_cachedb *db, uint32_t dims);

/* cachedb_write.c */
enum vk_status vk_cachedb_writer_start(struct vk_cachedb *db, struct vk_error *err);
void vk_cachedb_writer_stop(struct vk_cachedb *db);
struct write_txn {
	MDB_txn *txn;
	struct cache_state before;
};
int vk_cachedb_txn_begin(struct vk_cachedb *db, struct write_txn *w);
/* Commits when rc is 0, else aborts and puts the state back. Returns rc or the commit's code, and
 * marks the database full or broken when it is one of those. */
int vk_cachedb_txn_end(struct vk_cachedb *db, struct write_txn *w, int rc);

/* Every put of an entry; LMDB's code. */
int vk_cachedb_apply_entry(struct vk_cachedb *db, MDB_txn *txn, const uint8_t *entry, size_t n);
/* Makes all that is committed proof against a power cut, says so to who waits, and empties the
 * journal as far as it is done (all of it, however little, when asked). */
enum vk_status vk_cachedb_make_durable(struct vk_cachedb *db, bool empty_journal);

/* cachedb_replay.c */
enum vk_status vk_cachedb_replay(struct vk_cachedb *db, struct vk_error *err);

/* cachedb_evict.c: on the writer thread, no transaction open. */
/* Room for need more bytes under budget and map; VK_E_NO_SPACE when there is none. */
enum vk_status vk_cachedb_make_room(struct vk_cachedb *db, uint64_t need);
/* One small step below the soft limit; false when there is nothing to do. */
bool vk_cachedb_evict_step(struct vk_cachedb *db);
enum vk_status vk_cachedb_purge_run(struct vk_cachedb *db, const struct vk_cachedb_filter *f,
				    bool dry_run, struct vk_cachedb_purged *out);

#endif
