/*
 * An LMDB environment with what every good user of LMDB adds to it:
 *  - one environment a file in a process (a second open would drop the first one's locks when it
 *    closes): VK_E_BUSY for the second;
 *  - read transactions from a pool, reset and renewed (about 0.2 us), on any thread (MDB_NOTLS);
 *  - a map that is large from the start, halved until it opens, and that grows only while no
 *    transaction lives (LMDB does not check that): a gate holds readers back meanwhile;
 *  - LMDB's numbers as our statuses;
 *  - network file systems refused: LMDB's locks and maps do not hold there.
 *
 * After MDB_PANIC (a meta page could not be written) LMDB gives no transactions at all until the
 * environment is opened again; vk_env_reopen_read_only() does that, so that reads go on.
 *
 * Threads: readers on any thread; one write transaction at a time, whose caller alone may grow.
 */
#ifndef VK_STORE_ENV_H
#define VK_STORE_ENV_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define VK_ENV_TABLES_MAX 16
#define VK_ENV_READERS_MAX 1024
#define VK_ENV_MAP_BYTES ((uint64_t)64 << 30)
#define VK_ENV_MAP_BYTES_MIN ((uint64_t)1 << 20)

struct vk_env_opts {
	uint64_t map_bytes; /* 0: VK_ENV_MAP_BYTES, halved until it opens, may grow; else fixed */
	bool map_grows;	    /* map_bytes is only where the map starts */
	bool no_meta_sync;  /* the last commit may be lost in a power cut, none is torn */
	bool read_only;
	bool single_file; /* path is the data file itself, nobody else has it open: no locks */
	const char *const *tables; /* named tables, made when missing; index = enum of the owner */
	size_t tables_n;
};

struct vk_env_read {
	MDB_txn *txn;
	struct vk_env *env;
	struct vk_env_read *next;
};

struct vk_env {
	MDB_env *mdb;
	MDB_dbi dbi[VK_ENV_TABLES_MAX];
	struct vk_env_opts opts;
	char path[4096];
	void *owner;	   /* whoever opened it; not used here */
	uint64_t dev, ino; /* who else has it open in this process */
	int hold_fd;	   /* keeps ino ours when the directory is unlinked while it is open */
	struct vk_env *next_open;
	uint64_t map_bytes;
	_Atomic uintptr_t map_addr; /* where the map begins; 0: not known (no /proc) */
	uint64_t maps;		    /* how often it was made; changes behind the shut gate */
	uint64_t seen_bytes;	    /* of the file; the writer's own */
	uint64_t reserved_bytes; /* of the file; the writer's own */
	uint32_t page_size;

	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	struct vk_env_read *idle; /* stack of reset transactions */
	unsigned active;	  /* readers between begin and end */
	unsigned pinned;	  /* copies that run: no growing meanwhile */
	bool gate_shut;		  /* new readers wait */
};

/* A table is missing in a read-only environment: VK_E_NOT_FOUND, as for no environment at all. */
enum vk_status vk_env_open(const char *path, const struct vk_env_opts *opts, struct vk_env **out,
			   struct vk_error *err);
void vk_env_close(struct vk_env *env); /* all readers must have ended */

enum vk_status vk_env_read_begin(struct vk_env *env, struct vk_env_read **out);
void vk_env_read_end(struct vk_env_read *r);
/* For who was thrown out of vk_env_read_begin() by a fault of the map: counted out, what it had is lost. */
void vk_env_read_abandon(struct vk_env *env);

/* Doubles the map if it may grow. Waits for the readers to end, longer than any request may read (35 s): VK_E_BUSY when one does
 * not (a copy that runs), VK_E_NO_SPACE when the map cannot be larger. Call it with no write transaction open. */
enum vk_status vk_env_grow(struct vk_env *env);

/* Opens the file again without writing: after MDB_PANIC. VK_E_BUSY while readers live. */
enum vk_status vk_env_reopen_read_only(struct vk_env *env);

/* Pages in use (of every tree, free list included) and pages of the file, as txn sees them. */
int vk_env_pages(const struct vk_env *env, MDB_txn *txn, uint64_t *used, uint64_t *file);

/* Has the file system give room for need more bytes behind the last page in use, and some to delete
 * with. LMDB cannot tell a full disk from a broken one (a short write is EIO to it), so the disk
 * must say so before. VK_E_NO_SPACE; file systems that cannot promise are believed. */
enum vk_status vk_env_reserve(struct vk_env *env, uint64_t need);

/* Somebody has cut the file short: a page that is gone would fault. The writer asks. */
bool vk_env_is_cut(struct vk_env *env);

/* How many commits behind the oldest reader is. */
uint64_t vk_env_reader_lag(struct vk_env *env);
uint64_t vk_env_reader_lag_seen(struct vk_env *env); /* for who is a reader himself */
/* Frees the slots of processes that died. */
void vk_env_reader_check(struct vk_env *env);

/* Writes a consistent copy of the file to fd (a long reader). */
enum vk_status vk_env_copy(struct vk_env *env, int fd);

enum vk_status vk_env_status(int mdb_rc);

/* True for NFS, CIFS, FUSE and their like, unless VECKEEP_ALLOW_NETWORK_FS=1. */
bool vk_fs_is_refused(const char *path);

#endif
