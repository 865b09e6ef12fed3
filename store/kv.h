/*
 * An environment of ordered tables with transactions and one writer: what a collection is kept in.
 * LMDB below, not seen above.
 *
 * Reading: a view is a snapshot; every pointer it gives points into the map and lives until
 * vk_kv_view_end(). One thread at a time calls functions of a view (pointers may be shared). Keep it
 * under 30 seconds: pages that a view can see are not reused.
 *
 * Writing: jobs go to the environment's queue; a writer thread of the shared pool (struct
 * vk_kv_writers) takes what has gathered (VK_KV_GROUP_JOBS, VK_KV_GROUP_BYTES), calls each job's
 * apply() in one write transaction, commits with full sync, then calls each done(). A job checks
 * before it puts: apply() that fails with nothing put refuses that job alone (return the status). If a
 * put itself fails (map full, disk full, I/O), the group is aborted and its jobs are tried singly; apply()
 * may so run more than once and must not keep effects outside the transaction (`committed` is for
 * those). The map is grown between attempts. After a failed fsync or a panic the environment refuses
 * writes for good (VK_E_IO) and says so in vk_kv_stats.
 *
 * Background work (sealing, building an index) is a job that says so: it runs when no foreground job
 * waits (or 64 groups have passed it over), in its own commit, in steps of some milliseconds: apply() returns VK_E_BUSY to be
 * called again for the next step, after that step's commit.
 */
#ifndef VK_STORE_KV_H
#define VK_STORE_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

#define VK_KV_KEY_MAX 511
#define VK_KV_GROUP_JOBS 256
#define VK_KV_GROUP_BYTES ((size_t)16 << 20)
#define VK_KV_QUEUE_MAX 4096 /* jobs; past it VK_E_BUSY */
#define VK_KV_QUEUE_BYTES ((size_t)256 << 20)

struct vk_kv;
struct vk_kv_txn;    /* a view, or the writer's transaction inside apply() */
struct vk_kv_writers; /* the threads that all environments share */

/* threads: writer threads (an environment is only ever on one of them at a time). */
enum vk_status vk_kv_writers_new(unsigned threads, struct vk_kv_writers **out);
/* All environments must be closed. */
void vk_kv_writers_free(struct vk_kv_writers *w);

struct vk_kv_opts {
	uint64_t map_bytes; /* to begin with, it grows; 0: 64 GiB, halved until it opens */
	bool read_only;     /* no writer: the command line beside a server */
	const char *const *tables;
	size_t tables_n;    /* at most 16 */
	struct vk_kv_writers *writers;
};
enum vk_status vk_kv_open(const char *dir, const struct vk_kv_opts *opts, struct vk_kv **out,
			  struct vk_error *err);
/* Runs what is queued (background work stops after its step: done gets VK_E_UNAVAILABLE), then closes. No view
 * may live. */
void vk_kv_close(struct vk_kv *kv);

enum vk_status vk_kv_view_begin(struct vk_kv *kv, struct vk_kv_txn **out);
void vk_kv_view_end(struct vk_kv_txn *t); /* views only; NULL is fine */
/* Two views of one moment see the same at the same addresses: what one has found there serves the other. */
struct vk_kv_moment {
	uint64_t txn; /* grows with every commit */
	uint64_t map; /* which of the maps that the environment has had */
};
struct vk_kv_moment vk_kv_moment(const struct vk_kv_txn *view);

enum vk_status vk_kv_get(struct vk_kv_txn *t, unsigned table, struct vk_bytes key, struct vk_bytes *value);
/* Writer only. In a write transaction a value's pointer lives until the next put or del. */
enum vk_status vk_kv_put(struct vk_kv_txn *t, unsigned table, struct vk_bytes key, struct vk_bytes value);
/* Room for n bytes to fill in at once, before anything else is called. */
enum vk_status vk_kv_put_reserve(struct vk_kv_txn *t, unsigned table, struct vk_bytes key, size_t n, void **dst);
enum vk_status vk_kv_del(struct vk_kv_txn *t, unsigned table, struct vk_bytes key); /* missing: VK_E_NOT_FOUND */
uint64_t vk_kv_entries(struct vk_kv_txn *t, unsigned table);

struct vk_kv_cursor; /* dies with its transaction at the latest; close it before */
enum vk_status vk_kv_cursor_open(struct vk_kv_txn *t, unsigned table, struct vk_kv_cursor **out);
void vk_kv_cursor_close(struct vk_kv_cursor *c);
/* The first entry with key >= given; VK_E_NOT_FOUND past the end. */
enum vk_status vk_kv_seek(struct vk_kv_cursor *c, struct vk_bytes key, struct vk_bytes *k, struct vk_bytes *v);
/* The last entry with key < given (p == NULL: the very last). */
enum vk_status vk_kv_seek_before(struct vk_kv_cursor *c, struct vk_bytes key, struct vk_bytes *k, struct vk_bytes *v);
enum vk_status vk_kv_next(struct vk_kv_cursor *c, struct vk_bytes *k, struct vk_bytes *v);
enum vk_status vk_kv_prev(struct vk_kv_cursor *c, struct vk_bytes *k, struct vk_bytes *v);
enum vk_status vk_kv_cursor_del(struct vk_kv_cursor *c); /* then vk_kv_next gives the one after */

struct vk_kv_job {
	/* In the writer's transaction. VK_OK; a refusal; VK_E_BUSY: background, again please. */
	enum vk_status (*apply)(void *arg, struct vk_kv_txn *t);
	/* After the commit is durable, before done, on the writer's thread, in commit order: the place
	 * for effects in memory. May be NULL. Not called for refused jobs. */
	void (*committed)(void *arg);
	/* Once, at the end, whatever came. May be NULL. May free the job. */
	void (*done)(void *arg, enum vk_status st);
	void *arg;
	size_t bytes;    /* what it will roughly write, for grouping */
	bool background;
	struct vk_kv_job *next; /* the queue's */
};
/* VK_E_BUSY when the queue is full, VK_E_IO when the environment is broken, VK_E_NO_SPACE below the
 * disk's reserve, VK_E_UNAVAILABLE while it closes, VK_E_TOO_LARGE, VK_E_INVALID (read only): done is then
 * not called. The job's memory must live until done. */
enum vk_status vk_kv_submit(struct vk_kv *kv, struct vk_kv_job *job);
/* Submits and waits. Never from a writer's thread. */
enum vk_status vk_kv_run(struct vk_kv *kv, struct vk_kv_job *job);
/* Waits until everything submitted before has ended (background work not included). */
void vk_kv_drain(struct vk_kv *kv);

/* A consistent copy into a file descriptor, while reads and writes go on. */
enum vk_status vk_kv_copy(struct vk_kv *kv, int fd);

struct vk_kv_stats {
	uint64_t used_bytes, file_bytes, map_bytes;
	uint64_t commits, jobs, grouped_max, aborted_groups;
	uint64_t queued_jobs, reader_lag;
	bool broken; /* no writes any more: close and open again, or look at the disk */
	bool full;   /* below the disk's reserve */
};
void vk_kv_stats(struct vk_kv *kv, struct vk_kv_stats *out);
bool vk_kv_is_broken(const struct vk_kv *kv); /* any thread, no map read */
bool vk_kv_is_full(const struct vk_kv *kv);
const char *vk_kv_path(const struct vk_kv *kv);

#endif
