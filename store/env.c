/*
 * Environments: open, the readers' pool, growing, counting pages.
 *
 * The gate. mdb_env_set_mapsize() and mdb_env_close() want no transaction in the process. A
 * reader counts itself in under `lock` before it renews and out after it has reset, and waits
 * while the gate is shut; whoever wants the environment for himself shuts the gate and waits for
 * the count to reach zero. A pthread_rwlock would do the same but may not be unlocked by another
 * thread than its locker, and a read may end on another thread than it began on.
 *
 * The list of open environments is the room's one global: LMDB's rule is per process.
 */
#include "store/env.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define GATE_WAIT_MS 1000
#define GROW_WAIT_MS 35000 /* a request's view lives 30 s at most */
#define GROW_POLITE_MS 1000
#define GROW_SLICE_MS 100
#define RESERVE_SLACK ((uint64_t)512 << 10)
#define RESERVE_STEP_MAX ((uint64_t)64 << 20)

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct vk_env *open_envs;

enum vk_status vk_env_status(int rc)
{
	switch (rc) {
	case MDB_SUCCESS:
		return VK_OK;
	case MDB_NOTFOUND:
	case ENOENT:
		return VK_E_NOT_FOUND;
	case MDB_KEYEXIST:
		return VK_E_EXISTS;
	case MDB_MAP_FULL:
	case MDB_TXN_FULL:
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return VK_E_NO_SPACE;
	case ENOMEM:
		return VK_E_NOMEM;
	case MDB_READERS_FULL:
	case EAGAIN:
	case EBUSY:
		return VK_E_BUSY;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
	case MDB_VERSION_MISMATCH:
		return VK_E_CORRUPT;
	default:
		return VK_E_IO;
	}
}

bool vk_fs_is_refused(const char *path)
{
	static const uint32_t network[] = {
	    0x6969,	/* NFS */
	    0x517B,	/* SMB */
	    0xFF534D42, /* CIFS */
	    0xFE534D42, /* SMB2 */
	    0x65735546, /* FUSE */
	    0x01021997, /* 9P */
	    0x00C36400, /* Ceph */
	    0x0BD00BD0, /* Lustre */
	    0x5346414F, /* AFS */
	    0x73757245, /* Coda */
	    0x47504653, /* GPFS */
	    0x01161970, /* GFS2 */
	};
	const char *allow = getenv("VECKEEP_ALLOW_NETWORK_FS");
	struct statfs fs;
	if (allow && strcmp(allow, "1") == 0) return false;
	if (statfs(path, &fs) != 0) return false;
	for (size_t i = 0; i < sizeof network / sizeof *network; i++)
		if ((uint32_t)fs.f_type == network[i]) return true;
	return false;
}

/* Enters env into the list of open ones; VK_E_BUSY when its file is there already. */
static enum vk_status claim(struct vk_env *env, struct vk_error *err)
{
	struct stat st;
	enum vk_status result = VK_OK;
	env->hold_fd = open(env->path, O_PATH | O_CLOEXEC);
	if (env->hold_fd < 0 || fstat(env->hold_fd, &st) != 0)
		return vk_fail(err, errno == ENOENT ? VK_E_NOT_FOUND : VK_E_IO, "%s: %s", env->path,
			       strerror(errno));
	env->dev = st.st_dev;
	env->ino = st.st_ino;
	pthread_mutex_lock(&open_lock);
	for (struct vk_env *e = open_envs; e; e = e->next_open)
		if (e->dev == env->dev && e->ino == env->ino) result = VK_E_BUSY;
	if (!result) {
		env->next_open = open_envs;
		open_envs = env;
	}
	pthread_mutex_unlock(&open_lock);
	return result ? vk_fail(err, result, "%s is open already in this process", env->path)
		      : VK_OK;
}

static void unclaim(struct vk_env *env)
{
	pthread_mutex_lock(&open_lock);
	for (struct vk_env **e = &open_envs; *e; e = &(*e)->next_open) {
		if (*e != env) continue;
		*e = env->next_open;
		break;
	}
	pthread_mutex_unlock(&open_lock);
}

static int open_mdb(struct vk_env *env, uint64_t map_bytes)
{
	/* NORDAHEAD: rows are read at random; read-ahead would push hot pages out. */
	unsigned flags = MDB_NOTLS | MDB_NORDAHEAD;
	if (env->opts.read_only) flags |= MDB_RDONLY;
	if (env->opts.single_file) flags |= MDB_NOSUBDIR | MDB_NOLOCK;
	if (env->opts.no_meta_sync && !env->opts.read_only) flags |= MDB_NOMETASYNC;
	int rc = mdb_env_create(&env->mdb);
	if (rc) return rc;
	if (!rc) rc = mdb_env_set_maxdbs(env->mdb, VK_ENV_TABLES_MAX);
	if (!rc) rc = mdb_env_set_maxreaders(env->mdb, VK_ENV_READERS_MAX);
	if (!rc) rc = mdb_env_set_mapsize(env->mdb, map_bytes);
	if (!rc) rc = mdb_env_open(env->mdb, env->path, flags, 0600);
	if (rc) {
		mdb_env_close(env->mdb);
		env->mdb = NULL;
	}
	return rc;
}

/* Address space may be scarce (a container's limit): half the map is still a large one. */
static int open_mdb_that_fits(struct vk_env *env)
{
	uint64_t map_bytes = env->opts.map_bytes ? env->opts.map_bytes : VK_ENV_MAP_BYTES;
	int rc = open_mdb(env, map_bytes);
	while ((rc == ENOMEM || rc == EINVAL) && !env->opts.map_bytes &&
	       map_bytes / 2 >= VK_ENV_MAP_BYTES_MIN) {
		map_bytes /= 2;
		rc = open_mdb(env, map_bytes);
	}
	return rc;
}

static int open_tables(struct vk_env *env)
{
	MDB_txn *txn;
	unsigned ro = env->opts.read_only;
	int rc = mdb_txn_begin(env->mdb, NULL, ro ? MDB_RDONLY : 0, &txn);
	if (rc) return rc;
	for (size_t i = 0; i < env->opts.tables_n && !rc; i++)
		rc = mdb_dbi_open(txn, env->opts.tables[i], ro ? 0 : MDB_CREATE, &env->dbi[i]);
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

/* LMDB does not tell where its map is. The kernel does: the mapping of this length of the data file. */
static void find_map(struct vk_env *env)
{
	int fd;
	struct stat st;
	char line[4500];
	uintptr_t found = 0;
	FILE *f = mdb_env_get_fd(env->mdb, &fd) == 0 && fstat(fd, &st) == 0
		      ? fopen("/proc/self/maps", "re")
		      : NULL;
	while (f && !found && fgets(line, sizeof line, f)) {
		unsigned long start, end;
		unsigned long long offset, ino;
		if (sscanf(line, "%lx-%lx %*s %llx %*s %llu", &start, &end, &offset, &ino) != 4)
			continue;
		/* Not the device: some file systems show another one here than to stat(). */
		if (ino == st.st_ino && offset == 0 && end - start >= env->map_bytes) found = start;
	}
	if (f) fclose(f);
	atomic_store(&env->map_addr, found);
	env->maps++;
}

static int open_all(struct vk_env *env)
{
	int rc = open_mdb_that_fits(env);
	if (rc) return rc;
	int dead;
	mdb_reader_check(env->mdb, &dead);
	rc = open_tables(env);
	if (rc) {
		mdb_env_close(env->mdb);
		env->mdb = NULL;
		return rc;
	}
	MDB_envinfo info;
	MDB_stat stat;
	mdb_env_info(env->mdb, &info);
	mdb_env_stat(env->mdb, &stat);
	env->map_bytes = info.me_mapsize;
	env->page_size = stat.ms_psize;
	find_map(env);
	return 0;
}

static void free_env(struct vk_env *env)
{
	if (env->hold_fd >= 0) close(env->hold_fd);
	pthread_cond_destroy(&env->changed);
	pthread_mutex_destroy(&env->lock);
	free(env);
}

enum vk_status vk_env_open(const char *path, const struct vk_env_opts *opts, struct vk_env **out,
			   struct vk_error *err)
{
	assert(opts->tables_n <= VK_ENV_TABLES_MAX);
	*out = NULL;
	struct vk_env *env = calloc(1, sizeof *env);
	if (!env) return vk_fail(err, VK_E_NOMEM, "no memory");
	env->opts = *opts;
	env->hold_fd = -1;
	pthread_mutex_init(&env->lock, NULL);
	pthread_cond_init(&env->changed, NULL);

	enum vk_status st = VK_OK;
	if (snprintf(env->path, sizeof env->path, "%s", path) >= (int)sizeof env->path)
		st = vk_fail(err, VK_E_INVALID, "path too long: %.64s...", path);
	if (!st && !opts->read_only && !opts->single_file && mkdir(path, 0700) != 0 &&
	    errno != EEXIST)
		st = vk_fail(err, VK_E_IO, "mkdir %s: %s", path, strerror(errno));
	if (!st && vk_fs_is_refused(path))
		st = vk_fail(err, VK_E_INVALID,
			     "%s is on a network file system, where LMDB is not safe "
			     "(VECKEEP_ALLOW_NETWORK_FS=1 to insist)",
			     path);
	if (!st) st = claim(env, err);
	if (st) goto out;

	int rc = open_all(env);
	if (rc) {
		st = vk_fail(err, vk_env_status(rc), "%s: %s", path, mdb_strerror(rc));
		unclaim(env);
	}
out:
	if (st) {
		free_env(env);
		return st;
	}
	*out = env;
	return VK_OK;
}

static void drop_idle(struct vk_env *env)
{
	while (env->idle) {
		struct vk_env_read *r = env->idle;
		env->idle = r->next;
		mdb_txn_abort(r->txn);
		free(r);
	}
}

void vk_env_close(struct vk_env *env)
{
	if (!env) return;
	assert(env->active == 0);
	drop_idle(env);
	if (env->mdb) mdb_env_close(env->mdb);
	unclaim(env);
	free_env(env);
}

static void leave(struct vk_env *env, struct vk_env_read *r)
{
	pthread_mutex_lock(&env->lock);
	if (r) {
		r->next = env->idle;
		env->idle = r;
	}
	if (--env->active == 0 && env->gate_shut) pthread_cond_broadcast(&env->changed);
	pthread_mutex_unlock(&env->lock);
}

/* LMDB reads which commit is the last, then copies that commit's roots from one of two meta pages. When two more
 * commits come in between, the page has the second's: the view would see what is not acknowledged yet, and
 * the next view would not. Nobody has touched the page while the newest meta page is at most one ahead. */
static bool overtaken(struct vk_env *env, MDB_txn *txn)
{
	MDB_envinfo info;
	return mdb_env_info(env->mdb, &info) == 0 && info.me_last_txnid > mdb_txn_id(txn) + 1;
}

enum vk_status vk_env_read_begin(struct vk_env *env, struct vk_env_read **out)
{
	*out = NULL;
	pthread_mutex_lock(&env->lock);
	while (env->gate_shut) pthread_cond_wait(&env->changed, &env->lock);
	env->active++;
	struct vk_env_read *r = env->idle;
	if (r) env->idle = r->next;
	pthread_mutex_unlock(&env->lock);

	int rc = env->mdb ? 0 : EIO;
	if (r) {
		rc = mdb_txn_renew(r->txn);
	} else if (!rc) {
		r = calloc(1, sizeof *r);
		rc = r ? mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &r->txn) : ENOMEM;
		if (r) r->env = env;
	}
	while (!rc && overtaken(env, r->txn)) {
		mdb_txn_reset(r->txn);
		rc = mdb_txn_renew(r->txn);
	}
	if (rc) {
		if (r && r->txn) mdb_txn_abort(r->txn);
		free(r);
		leave(env, NULL);
		return vk_env_status(rc);
	}
	*out = r;
	return VK_OK;
}

void vk_env_read_end(struct vk_env_read *r)
{
	mdb_txn_reset(r->txn);
	leave(r->env, r);
}

void vk_env_read_abandon(struct vk_env *env) { leave(env, NULL); }

/* With the gate shut and no reader left: true, and the lock is held. */
static bool shut_gate(struct vk_env *env, unsigned wait_ms)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += wait_ms / 1000;
	until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&env->lock);
	env->gate_shut = true;
	while (env->active && !env->pinned)
		if (pthread_cond_timedwait(&env->changed, &env->lock, &until)) break;
	if (env->active == 0 && !env->pinned) return true;
	env->gate_shut = false;
	pthread_cond_broadcast(&env->changed);
	pthread_mutex_unlock(&env->lock);
	return false;
}

/* The same for whom it is worth a long wait. For a second new readers are let in between tries; but where there is always one, none of
 * those tries succeeds: then they wait for the old ones' end. */
static bool shut_gate_for_long(struct vk_env *env)
{
	for (unsigned waited_ms = 0; waited_ms < GROW_POLITE_MS; waited_ms += 2 * GROW_SLICE_MS) {
		if (shut_gate(env, GROW_SLICE_MS)) return true;
		usleep(GROW_SLICE_MS * 1000);
	}
	uint64_t until_ms = vk_mono_ms() + GROW_WAIT_MS;
	while (!shut_gate(env, GROW_WAIT_MS)) { /* a copy does not let us wait at the gate */
		if (vk_mono_ms() >= until_ms) return false;
		usleep(GROW_SLICE_MS * 1000);
	}
	return true;
}

/* Behind the shut gate: closes the environment and opens it anew. */
static int reopen(struct vk_env *env, uint64_t map_bytes)
{
	drop_idle(env);
	if (env->mdb) mdb_env_close(env->mdb);
	env->mdb = NULL;
	uint64_t asked = env->opts.map_bytes;
	env->opts.map_bytes = map_bytes;
	int rc = open_all(env);
	env->opts.map_bytes = asked;
	return rc;
}

static void open_gate(struct vk_env *env)
{
	env->gate_shut = false;
	pthread_cond_broadcast(&env->changed);
	pthread_mutex_unlock(&env->lock);
}

enum vk_status vk_env_grow(struct vk_env *env)
{
	if ((env->opts.map_bytes && !env->opts.map_grows) || !env->mdb) return VK_E_NO_SPACE;
	if (!shut_gate_for_long(env)) return VK_E_BUSY;
	/* mdb_env_set_mapsize() lets the old map go before it knows that the new one fits: ask
	 * first. */
	uint64_t want = env->map_bytes * 2;
	void *room =
	    mmap(NULL, want, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int rc = room == MAP_FAILED ? ENOMEM : 0;
	if (!rc) {
		munmap(room, want);
		rc = mdb_env_set_mapsize(env->mdb, want);
		if (!rc) env->map_bytes = want;
		if (!rc) find_map(env);
		else reopen(env, env->map_bytes);
	}
	open_gate(env);
	vk_log(rc ? VK_LOG_WARN : VK_LOG_INFO, "%s: map %s %llu bytes", env->path,
	       rc ? "stays at" : "grown to", (unsigned long long)env->map_bytes);
	return rc ? VK_E_NO_SPACE : VK_OK;
}

enum vk_status vk_env_reopen_read_only(struct vk_env *env)
{
	if (!shut_gate(env, GATE_WAIT_MS)) return VK_E_BUSY;
	env->opts.read_only = true;
	int rc = reopen(env, env->map_bytes);
	open_gate(env);
	return vk_env_status(rc);
}

int vk_env_pages(const struct vk_env *env, MDB_txn *txn, uint64_t *used, uint64_t *file)
{
	MDB_envinfo info;
	MDB_stat s;
	uint64_t pages = 2; /* the two meta pages */
	int rc = 0;
	/* 0 is LMDB's free list, 1 its table of tables, then ours. */
	for (size_t i = 0; i < env->opts.tables_n + 2 && !rc; i++) {
		rc = mdb_stat(txn, i < 2 ? (MDB_dbi)i : env->dbi[i - 2], &s);
		if (!rc) pages += s.ms_branch_pages + s.ms_leaf_pages + s.ms_overflow_pages;
	}
	*used = pages;
	mdb_env_info(env->mdb, &info);
	*file = info.me_last_pgno + 1;
	return rc;
}

enum vk_status vk_env_reserve(struct vk_env *env, uint64_t need)
{
	MDB_envinfo info;
	int fd;
	if (!env->mdb || mdb_env_get_fd(env->mdb, &fd)) return VK_E_IO;
	mdb_env_info(env->mdb, &info);
	uint64_t used = ((uint64_t)info.me_last_pgno + 1) * env->page_size;
	uint64_t want = used + need + RESERVE_SLACK;
	if (want > env->map_bytes) want = env->map_bytes;
	if (want <= env->reserved_bytes) return VK_OK;
	/* In steps: a call for every commit would cost as much as the commit. */
	uint64_t step = want / 8 < RESERVE_STEP_MAX ? want / 8 : RESERVE_STEP_MAX;
	uint64_t ahead = want + step < env->map_bytes ? want + step : env->map_bytes;
	if (fallocate(fd, 0, 0, (off_t)ahead) == 0) want = ahead;
	else if (fallocate(fd, 0, 0, (off_t)want) != 0 && vk_env_status(errno) == VK_E_NO_SPACE)
		return VK_E_NO_SPACE;
	env->reserved_bytes = want;
	return VK_OK;
}

bool vk_env_is_cut(struct vk_env *env)
{
	int fd;
	struct stat st;
	if (!env->mdb || mdb_env_get_fd(env->mdb, &fd) || fstat(fd, &st) != 0) return false;
	bool cut = (uint64_t)st.st_size < env->seen_bytes;
	if (!cut) env->seen_bytes = (uint64_t)st.st_size;
	return cut;
}

/* LMDB prints its reader table; each line is "pid thread txnid" ("-" for none). */
static int oldest_of(const char *line, void *arg)
{
	uint64_t *oldest = arg;
	char *end;
	const char *p = strrchr(line, ' ');
	if (!p) return 0;
	unsigned long long txnid = strtoull(p + 1, &end, 10);
	if (end != p + 1 && txnid < *oldest) *oldest = txnid;
	return 0;
}

uint64_t vk_env_reader_lag(struct vk_env *env)
{
	struct vk_env_read *r;
	/* A reader of our own: the environment must not be reopened while we look. */
	if (vk_env_read_begin(env, &r)) return 0;
	uint64_t lag = vk_env_reader_lag_seen(env);
	vk_env_read_end(r);
	return lag;
}

uint64_t vk_env_reader_lag_seen(struct vk_env *env)
{
	MDB_envinfo info;
	uint64_t oldest = UINT64_MAX;
	mdb_env_info(env->mdb, &info);
	mdb_reader_list(env->mdb, oldest_of, &oldest);
	return oldest < info.me_last_txnid ? info.me_last_txnid - oldest : 0;
}

void vk_env_reader_check(struct vk_env *env)
{
	int dead = 0;
	if (!env->mdb) return;
	mdb_reader_check(env->mdb, &dead);
	if (dead) vk_log(VK_LOG_INFO, "%s: freed %d slots of readers that died", env->path, dead);
}

enum vk_status vk_env_copy(struct vk_env *env, int fd)
{
	pthread_mutex_lock(&env->lock);
	while (env->gate_shut) pthread_cond_wait(&env->changed, &env->lock);
	env->active++;
	env->pinned++;
	pthread_mutex_unlock(&env->lock);
	int rc = env->mdb ? mdb_env_copyfd2(env->mdb, fd, 0) : EIO;
	pthread_mutex_lock(&env->lock);
	env->pinned--;
	pthread_mutex_unlock(&env->lock);
	leave(env, NULL);
	return vk_env_status(rc);
}
