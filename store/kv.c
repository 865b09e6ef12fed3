/*
 * The readers' side of an environment, and what both sides do in a transaction. Writing: kv_write.c.
 *
 * A put that fails makes LMDB's transaction useless; put_rc remembers that, so that a job which
 * overlooks a status cannot have half of its work committed.
 */
#include "store/guard.h"
#include "store/kv_internal.h"
#include "store/mdbcheck.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <stdlib.h>

/* Open and close */

enum vk_status vk_kv_open(const char *dir, const struct vk_kv_opts *opts, struct vk_kv **out,
			  struct vk_error *err)
{
	struct vk_env_opts env_opts = {
	    .map_bytes = opts->map_bytes,
	    .map_grows = true,
	    .read_only = opts->read_only,
	    .tables = opts->tables,
	    .tables_n = opts->tables_n,
	};
	*out = NULL;
	if (!opts->read_only && !opts->writers)
		return vk_fail(err, VK_E_INVALID, "%s: no writer threads given", dir);
	char file[4096 + 16];
	snprintf(file, sizeof file, "%s/data.mdb", dir);
	enum vk_status st = vk_mdb_check_length(file, err); /* LMDB would map what is not there */
	if (st) return st;
	struct vk_kv *kv = calloc(1, sizeof *kv);
	if (!kv) return vk_fail(err, VK_E_NOMEM, "no memory");
	st = vk_env_open(dir, &env_opts, &kv->env, err);
	if (st) {
		free(kv);
		return st;
	}
	kv->env->owner = kv;
	kv->writers = opts->read_only ? NULL : opts->writers;
	pthread_mutex_init(&kv->rescue_lock, NULL);
	pthread_cond_init(&kv->changed, NULL);
	vk_kv_queues_init(kv);
	*out = kv;
	return VK_OK;
}

void vk_kv_close(struct vk_kv *kv)
{
	if (!kv) return;
	if (kv->writers) vk_kv_queues_end(kv);
	vk_env_close(kv->env);
	pthread_cond_destroy(&kv->changed);
	pthread_mutex_destroy(&kv->rescue_lock);
	free(kv);
}

const char *vk_kv_path(const struct vk_kv *kv)
{
	return kv->env->path;
}

/* Views */

void vk_kv_rescue_readers(struct vk_kv *kv)
{
	struct vk_env_read *r;
	pthread_mutex_lock(&kv->rescue_lock);
	enum vk_status st = vk_env_read_begin(kv->env, &r);
	if (!st) vk_env_read_end(r);
	if (st == VK_E_IO) {
		atomic_store(&kv->broken, true); /* first: no writer may begin meanwhile */
		vk_env_reopen_read_only(kv->env);
	}
	pthread_mutex_unlock(&kv->rescue_lock);
}

/* A fault in beginning a view costs one of LMDB's 1,024 reader slots: with the head pages gone every one would. */
static bool has_heads(const struct vk_kv *kv)
{
	int fd;
	struct stat now;
	if (!kv->env->mdb || mdb_env_get_fd(kv->env->mdb, &fd) || fstat(fd, &now) != 0) return true; /* others will tell */
	return now.st_size >= 2 * (off_t)kv->env->page_size;
}

enum vk_status vk_kv_view_begin(struct vk_kv *kv, struct vk_kv_txn **out)
{
	*out = NULL;
	if (atomic_load_explicit(&kv->broken, memory_order_relaxed) && !has_heads(kv)) return VK_E_IO;
	struct vk_kv_txn *t = calloc(1, sizeof *t);
	struct vk_guard *guard = vk_guard_of(kv);
	if (!t) return VK_E_NOMEM;
	if (guard) guard->entering = true;
	enum vk_status st = vk_env_read_begin(kv->env, &t->read);
	if (st == VK_E_IO && atomic_load(&kv->broken)) {
		vk_kv_rescue_readers(kv);
		st = vk_env_read_begin(kv->env, &t->read);
	}
	if (guard) guard->entering = false;
	if (st) {
		free(t);
		return st;
	}
	t->mdb = t->read->txn;
	t->kv = kv;
	if (guard) vk_guard_view_add(guard, t);
	*out = t;
	return VK_OK;
}

void vk_kv_view_end(struct vk_kv_txn *t)
{
	if (!t) return;
	assert(t->read);
	if (t->guard) vk_guard_view_remove(t);
	vk_kv_txn_close_cursors(t);
	vk_env_read_end(t->read);
	free(t);
}

struct vk_kv_moment vk_kv_moment(const struct vk_kv_txn *view)
{
	assert(view->read);
	return (struct vk_kv_moment){mdb_txn_id(view->mdb), view->kv->env->maps};
}

/* Tables */

static MDB_val val_of(struct vk_bytes b)
{
	return (MDB_val){b.n, (void *)(uintptr_t)b.p};
}

static struct vk_bytes bytes_of(const MDB_val *v)
{
	return (struct vk_bytes){v->mv_data, v->mv_size};
}

static MDB_dbi dbi_of(const struct vk_kv_txn *t, unsigned table)
{
	assert(table < t->kv->env->opts.tables_n);
	return t->kv->env->dbi[table];
}

/* A longer or an empty key cannot be in a table. */
static bool is_key(struct vk_bytes key)
{
	return key.n > 0 && key.n <= VK_KV_KEY_MAX;
}

enum vk_status vk_kv_get(struct vk_kv_txn *t, unsigned table, struct vk_bytes key, struct vk_bytes *value)
{
	MDB_val k = val_of(key), v;
	*value = (struct vk_bytes){0};
	if (!is_key(key)) return VK_E_NOT_FOUND;
	int rc = mdb_get(t->mdb, dbi_of(t, table), &k, &v);
	if (!rc) *value = bytes_of(&v);
	return vk_env_status(rc);
}

static uint64_t table_pages(MDB_txn *mdb, MDB_dbi dbi, unsigned *depth)
{
	MDB_stat s;
	if (mdb_stat(mdb, dbi, &s)) return 0;
	if (depth) *depth = s.ms_depth;
	return s.ms_branch_pages + s.ms_leaf_pages + s.ms_overflow_pages;
}

/* Counts a change that is about to be made. */
static void touch(struct vk_kv_txn *t, unsigned table)
{
	assert(!t->read);
	if (t->touched[table]++ == 0) t->pages[table] = table_pages(t->mdb, dbi_of(t, table), NULL);
	t->puts++;
}

static enum vk_status note_put(struct vk_kv_txn *t, int rc)
{
	if (rc && rc != MDB_NOTFOUND && !t->put_rc) t->put_rc = rc;
	return vk_env_status(rc);
}

/*
 * A change copies the pages from root to leaf, each at most once a transaction; the rest is growth.
 * The free list may give some of them, but who knows how much of it: this is the upper bound.
 */
uint64_t vk_kv_txn_need(struct vk_kv_txn *t)
{
	uint64_t pages = 0;
	for (unsigned i = 0; i < t->kv->env->opts.tables_n; i++) {
		unsigned depth = 0;
		if (!t->touched[i]) continue;
		uint64_t now = table_pages(t->mdb, dbi_of(t, i), &depth);
		uint64_t copied = t->touched[i] * depth;
		pages += now > t->pages[i] ? now - t->pages[i] : 0;
		pages += copied < t->pages[i] ? copied : t->pages[i];
	}
	return pages * t->kv->env->page_size;
}

static enum vk_status put(struct vk_kv_txn *t, unsigned table, struct vk_bytes key, MDB_val *v, unsigned flags)
{
	MDB_val k = val_of(key);
	if (!is_key(key)) return VK_E_INVALID;
	touch(t, table);
	return note_put(t, mdb_put(t->mdb, dbi_of(t, table), &k, v, flags));
}

enum vk_status vk_kv_put(struct vk_kv_txn *t, unsigned table, struct vk_bytes key, struct vk_bytes value)
{
	MDB_val v = val_of(value);
	return put(t, table, key, &v, 0);
}

enum vk_status vk_kv_put_reserve(struct vk_kv_txn *t, unsigned table, struct vk_bytes key, size_t n, void **dst)
{
	MDB_val v = {n, NULL};
	enum vk_status st = put(t, table, key, &v, MDB_RESERVE);
	*dst = st ? NULL : v.mv_data;
	return st;
}

enum vk_status vk_kv_del(struct vk_kv_txn *t, unsigned table, struct vk_bytes key)
{
	MDB_val k = val_of(key), v;
	if (!is_key(key)) return VK_E_NOT_FOUND;
	/* A key that is missing changes nothing: the job may still refuse. */
	int rc = mdb_get(t->mdb, dbi_of(t, table), &k, &v);
	if (rc == MDB_NOTFOUND) return VK_E_NOT_FOUND;
	touch(t, table);
	return note_put(t, rc ? rc : mdb_del(t->mdb, dbi_of(t, table), &k, NULL));
}

uint64_t vk_kv_entries(struct vk_kv_txn *t, unsigned table)
{
	MDB_stat s;
	return mdb_stat(t->mdb, dbi_of(t, table), &s) ? 0 : s.ms_entries;
}

/* Cursors */

enum vk_status vk_kv_cursor_open(struct vk_kv_txn *t, unsigned table, struct vk_kv_cursor **out)
{
	MDB_stat s;
	*out = NULL;
	/* Has the table's root looked up now: if the map faults there, nothing is allocated yet (store/guard.h). */
	int rc = mdb_stat(t->mdb, dbi_of(t, table), &s);
	if (rc) return vk_env_status(rc);
	struct vk_kv_cursor *c = calloc(1, sizeof *c);
	if (!c) return VK_E_NOMEM;
	rc = mdb_cursor_open(t->mdb, dbi_of(t, table), &c->mdb);
	if (rc) {
		free(c);
		return vk_env_status(rc);
	}
	c->t = t;
	c->table = table;
	c->next = t->cursors;
	if (c->next) c->next->prev = c;
	t->cursors = c;
	*out = c;
	return VK_OK;
}

void vk_kv_cursor_close(struct vk_kv_cursor *c)
{
	if (!c) return;
	if (c->prev) c->prev->next = c->next;
	else c->t->cursors = c->next;
	if (c->next) c->next->prev = c->prev;
	mdb_cursor_close(c->mdb);
	free(c);
}

void vk_kv_txn_close_cursors(struct vk_kv_txn *t)
{
	while (t->cursors) vk_kv_cursor_close(t->cursors);
}

static enum vk_status step(struct vk_kv_cursor *c, MDB_cursor_op op, MDB_val at, struct vk_bytes *k, struct vk_bytes *v)
{
	MDB_val value = {0};
	int rc = mdb_cursor_get(c->mdb, &at, &value, op);
	*k = rc ? (struct vk_bytes){0} : bytes_of(&at);
	*v = rc ? (struct vk_bytes){0} : bytes_of(&value);
	return vk_env_status(rc);
}

enum vk_status vk_kv_seek(struct vk_kv_cursor *c, struct vk_bytes key, struct vk_bytes *k, struct vk_bytes *v)
{
	return step(c, key.n ? MDB_SET_RANGE : MDB_FIRST, val_of(key), k, v);
}

enum vk_status vk_kv_seek_before(struct vk_kv_cursor *c, struct vk_bytes key, struct vk_bytes *k, struct vk_bytes *v)
{
	MDB_val none = {0};
	if (!key.p) return step(c, MDB_LAST, none, k, v);
	enum vk_status st = vk_kv_seek(c, key, k, v);
	if (st == VK_E_NOT_FOUND) return step(c, MDB_LAST, none, k, v);
	return st ? st : step(c, MDB_PREV, none, k, v);
}

enum vk_status vk_kv_next(struct vk_kv_cursor *c, struct vk_bytes *k, struct vk_bytes *v)
{
	return step(c, MDB_NEXT, (MDB_val){0}, k, v);
}

enum vk_status vk_kv_prev(struct vk_kv_cursor *c, struct vk_bytes *k, struct vk_bytes *v)
{
	return step(c, MDB_PREV, (MDB_val){0}, k, v);
}

enum vk_status vk_kv_cursor_del(struct vk_kv_cursor *c)
{
	touch(c->t, c->table);
	return note_put(c->t, mdb_cursor_del(c->mdb, 0));
}

/* Copy and stats */

enum vk_status vk_kv_copy(struct vk_kv *kv, int fd)
{
	char file[64];
	int own;
	struct stat now;
	if (!kv->env->mdb || mdb_env_get_fd(kv->env->mdb, &own) || fstat(own, &now) != 0 || !now.st_size) return VK_E_IO;
	/* Of a file that was cut LMDB would copy what is left, or fault with its own locks held. It may be unlinked by now. */
	snprintf(file, sizeof file, "/proc/self/fd/%d", own);
	enum vk_status st = vk_mdb_check_length(file, NULL);
	return st ? st : vk_env_copy(kv->env, fd);
}

struct page_stats {
	struct vk_kv *kv;
	struct vk_kv_stats *out;
};

static enum vk_status page_stats(void *arg)
{
	struct page_stats *s = arg;
	struct vk_kv_txn *t;
	uint64_t used = 0, file = 0, page = s->kv->env->page_size;
	enum vk_status st = vk_kv_view_begin(s->kv, &t);
	if (st) return st;
	if (vk_env_pages(s->kv->env, t->mdb, &used, &file) == 0) {
		s->out->used_bytes = used * page;
		s->out->file_bytes = file * page;
	}
	s->out->map_bytes = s->kv->env->map_bytes; /* grows only while no view lives */
	s->out->reader_lag = vk_env_reader_lag_seen(s->kv->env);
	vk_kv_view_end(t);
	return VK_OK;
}

bool vk_kv_is_broken(const struct vk_kv *kv)
{
	return atomic_load(&kv->broken);
}

bool vk_kv_is_full(const struct vk_kv *kv)
{
	return atomic_load(&kv->full);
}

void vk_kv_stats(struct vk_kv *kv, struct vk_kv_stats *out)
{
	*out = (struct vk_kv_stats){0};
	struct page_stats pages = {kv, out};
	vk_guard_run(kv, page_stats, &pages); /* whoever watches asks for broken ones, too */
	out->commits = atomic_load(&kv->commits);
	out->jobs = atomic_load(&kv->jobs);
	out->grouped_max = atomic_load(&kv->grouped_max);
	out->aborted_groups = atomic_load(&kv->aborted_groups);
	out->queued_jobs = vk_kv_queued(kv);
	out->broken = atomic_load(&kv->broken);
	out->full = atomic_load(&kv->full);
}
