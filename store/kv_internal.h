/*
 * What kv.c (open, views, tables, cursors), kv_write.c (queue, writer threads, commits) and guard.c share.
 * Nobody else includes it.
 *
 * Lock order: writers->lock, then env->lock. No lock is held over LMDB, apply, committed or done.
 */
#ifndef VK_STORE_KV_INTERNAL_H
#define VK_STORE_KV_INTERNAL_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>

#include "store/env.h"
#include "store/kv.h"

struct vk_kv_txn {
	MDB_txn *mdb;
	struct vk_kv *kv;
	struct vk_env_read *read; /* a view's; NULL: the writer's */
	struct vk_kv_cursor *cursors;
	struct vk_guard *guard; /* begun inside it, by this thread: it ends what a fault leaves; NULL: none */
	struct vk_kv_txn *guard_next;

	/* The writer's: */
	int put_rc;	       /* LMDB's code of the first put that failed: the transaction is lost */
	uint32_t puts;	       /* since the job began */
	uint64_t touched[VK_ENV_TABLES_MAX]; /* puts and deletes of the transaction */
	uint64_t pages[VK_ENV_TABLES_MAX];   /* of the table before the first of them */
};

struct vk_kv_cursor {
	MDB_cursor *mdb;
	struct vk_kv_txn *t;
	unsigned table;
	struct vk_kv_cursor *prev, *next; /* of the transaction */
};

struct vk_kv_queue {
	struct vk_kv_job *first, **end;
};

struct vk_kv {
	struct vk_env *env;
	struct vk_kv_writers *writers; /* NULL: reads only */
	_Atomic bool broken;	       /* nobody knows what the disk holds: no writes any more */
	_Atomic bool full;	       /* the disk: submissions are refused until retry_at_ms */
	_Atomic uint64_t retry_at_ms;
	_Atomic uint64_t commits, jobs, grouped_max, aborted_groups;
	pthread_mutex_t rescue_lock; /* one thread opens the environment again */

	/* Under writers->lock: */
	struct vk_kv_queue foreground, background;
	size_t queued, queued_bytes;  /* both queues */
	uint64_t submitted, ended;    /* foreground jobs; they end in order */
	unsigned passed_over;	      /* groups since a background job waits */
	bool ready, on_thread;	      /* in the ready list; a writer thread has it */
	bool closing;
	struct vk_kv *next_ready;
	pthread_cond_t changed; /* a job has ended, a thread has let go */

	/* The thread's that has it: */
	uint64_t reader_check_at_ms;
};

/* kv.c */
void vk_kv_txn_close_cursors(struct vk_kv_txn *t);
/* After a panic LMDB gives nobody a transaction: opens again for reading, if that is it. */
void vk_kv_rescue_readers(struct vk_kv *kv);
/* Bytes of new pages that the open write transaction will want, at most. */
uint64_t vk_kv_txn_need(struct vk_kv_txn *t);

/* guard.c */
struct vk_guard { /* one vk_guard_run, on its stack */
	sigjmp_buf jump;
	struct vk_kv *kv;
	struct vk_guard *outer;
	struct vk_kv_txn *views; /* begun inside */
	bool entering;           /* between the reader count and the view */
};
/* The thread's innermost guard of kv, or NULL. */
struct vk_guard *vk_guard_of(const struct vk_kv *kv);
void vk_guard_view_add(struct vk_guard *g, struct vk_kv_txn *t);
void vk_guard_view_remove(struct vk_kv_txn *t);

/* kv_write.c */
void vk_kv_queues_init(struct vk_kv *kv);
/* Refuses what comes, waits for what is queued; nothing touches kv afterwards. */
void vk_kv_queues_end(struct vk_kv *kv);
uint64_t vk_kv_queued(struct vk_kv *kv);

#endif
