/*
 * Backup: each environment is copied by LMDB into a pipe, from the pipe into its file by us, so
 * that we can hash it, keep a pace and notice a full disk; then the copy is opened and every
 * record of it walked. manifest.json comes last.
 *
 * Restore lays the files into data_dir/restore.new, checks each hash as it copies, then moves them
 * into place, FORMAT last: without FORMAT nobody opens the directory. (Not a directory beside it
 * and one rename: a data directory is often a mount point.)
 *
 * A row of the cache that does not check in the copy did not check in the original, where it is a
 * miss: it is counted in the manifest and fails nothing.
 */
#include "store/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "store/cachedb_internal.h"
#include "store/file.h"
#include "store/internal.h"
#include "store/kv_internal.h"

/* 1: catalog and cache; 2: collections, too. Written with the lowest that tells all. */
#define MANIFEST_VERSION 2
#define MANIFEST_MAX ((size_t)64 << 20)
#define COLLECTIONS_MAX 200000
#define ROUNDS_MAX 10 /* of copying what was made since the catalog's copy */
#define PIPE_CHUNK ((size_t)64 << 10)

enum { F_CACHE, F_CATALOG, F_FORMAT, F_COUNT };

static const struct {
	const char *name;   /* in the backup */
	const char *target; /* in the data directory */
} files[F_COUNT] = {
    [F_CACHE] = {"cache.mdb", "cache/data.mdb"},
    [F_CATALOG] = {"catalog.mdb", "catalog/data.mdb"},
    [F_FORMAT] = {"FORMAT", "FORMAT"},
};

struct file_info {
	uint64_t bytes;
	uint8_t sha256[VK_SHA256_SIZE];
	bool seen;
};

struct collection_info {
	uint32_t id;
	struct file_info file;
};

struct manifest {
	struct file_info file[F_COUNT];
	struct collection_info *collection; /* malloc'd */
	size_t collections_n;
	uint64_t rows, corrupt_rows;
};

static const struct collection_info *find_collection(const struct manifest *m, uint32_t id)
{
	for (size_t i = 0; i < m->collections_n; i++)
		if (m->collection[i].id == id) return &m->collection[i];
	return NULL;
}

/* A place for one more, or NULL. */
static struct collection_info *add_collection(struct manifest *m, uint32_t id)
{
	size_t n = m->collections_n;
	if (n >= COLLECTIONS_MAX) return NULL;
	if ((n & (n - 1)) == 0) { /* full: 0, 1, 2, 4, ... */
		struct collection_info *more =
		    realloc(m->collection, (n ? 2 * n : 1) * sizeof *more);
		if (!more) return NULL;
		m->collection = more;
	}
	m->collection[n] = (struct collection_info){.id = id};
	m->collections_n++;
	return &m->collection[n];
}

/* The file of a collection in the backup, and in the data directory. */
static void collection_name(char *dst, size_t cap, uint32_t id)
{
	snprintf(dst, cap, "collection-%u.mdb", id);
}

static void collection_target(char *dst, size_t cap, uint32_t id)
{
	snprintf(dst, cap, "collections/%u/data.mdb", id);
}

/* Copying one environment */

struct copier {
	struct vk_env *env;
	int fd;
	enum vk_status st;
};

static void *copy_thread(void *arg)
{
	struct copier *c = arg;
	/* When the reading side gives up, its error is the one to tell. */
	sigset_t pipe_signal;
	sigemptyset(&pipe_signal);
	sigaddset(&pipe_signal, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe_signal, NULL);
	c->st = vk_env_copy(c->env, c->fd);
	close(c->fd);
	return NULL;
}

struct pace {
	const struct vk_backup_opts *opts;
	uint64_t start_us, done, total;
};

/* Sleeps when we are ahead of bytes_per_s, and reports. */
static void keep_pace(struct pace *p, size_t n)
{
	p->done += n;
	if (p->done > p->total) p->total = p->done; /* the file grew meanwhile */
	if (p->opts->progress) p->opts->progress(p->opts->arg, p->done, p->total);
	if (!p->opts->bytes_per_s) return;
	uint64_t due_us = p->done * 1000000 / p->opts->bytes_per_s;
	uint64_t gone_us = vk_mono_us() - p->start_us;
	if (due_us > gone_us)
		usleep((useconds_t)(due_us - gone_us < 500000 ? due_us - gone_us : 500000));
}

static enum vk_status drain(int in, int out, struct pace *pace, struct file_info *info,
			    const char *path, struct vk_error *err)
{
	struct vk_sha256 s;
	char *chunk = malloc(PIPE_CHUNK);
	enum vk_status st = chunk ? VK_OK : vk_fail(err, VK_E_NOMEM, "no memory");
	vk_sha256_init(&s);
	while (!st) {
		ssize_t n = read(in, chunk, PIPE_CHUNK);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) st = vk_fail(err, VK_E_IO, "backup pipe: %s", strerror(errno));
		if (n <= 0) break;
		vk_sha256_update(&s, chunk, (size_t)n);
		info->bytes += (uint64_t)n;
		st = vk_fd_write(out, chunk, (size_t)n, path, err);
		keep_pace(pace, (size_t)n);
	}
	vk_sha256_final(&s, info->sha256);
	free(chunk);
	return st;
}

static enum vk_status copy_env(struct vk_env *env, const char *path, struct pace *pace,
			       struct file_info *info, struct vk_error *err)
{
	int fds[2];
	pthread_t thread;
	*info = (struct file_info){0};
	int out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0) return vk_fail(err, VK_E_IO, "%s: %s", path, strerror(errno));
	if (pipe2(fds, O_CLOEXEC) != 0) {
		close(out);
		return vk_fail(err, VK_E_IO, "pipe: %s", strerror(errno));
	}
	struct copier c = {.env = env, .fd = fds[1]};
	enum vk_status st = VK_OK;
	if (pthread_create(&thread, NULL, copy_thread, &c)) {
		close(fds[0]);
		close(fds[1]);
		close(out);
		return vk_fail(err, VK_E_NOMEM, "no thread for the copy");
	}
	st = drain(fds[0], out, pace, info, path, err);
	close(fds[0]);
	pthread_join(thread, NULL);
	if (!st && c.st) st = vk_fail(err, c.st, "copy to %s: %s", path, vk_status_text(c.st));
	if (!st && fsync(out) != 0) st = vk_fail(err, VK_E_IO, "%s: %s", path, strerror(errno));
	close(out);
	return st;
}

/* Walking a copy */

static int walk_table(MDB_txn *txn, MDB_dbi dbi,
		      void (*fn)(void *arg, MDB_txn *txn, const MDB_val *k, const MDB_val *v),
		      void *arg)
{
	MDB_cursor *cur;
	MDB_val k, v;
	int rc = mdb_cursor_open(txn, dbi, &cur);
	if (rc) return rc;
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_FIRST); !rc;
	     rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT))
		if (fn) fn(arg, txn, &k, &v);
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

struct row_walk {
	struct vk_cachedb db; /* only env and cpu: enough to read rows */
	struct manifest *m;
	float *row;
};

static void walk_row(void *arg, MDB_txn *txn, const MDB_val *k, const MDB_val *v)
{
	struct row_walk *w = arg;
	struct vk_cache_key key;
	struct vk_row_head h;
	bool ok = k->mv_size == sizeof key.b;
	if (ok) memcpy(key.b, k->mv_data, sizeof key.b);
	ok = ok && vk_row_head_decode(&h, &key, v->mv_data, v->mv_size, w->db.cpu) &&
	     vk_cachedb_row_read(&w->db, txn, &h, w->row) == VK_OK;
	w->m->rows++;
	w->m->corrupt_rows += !ok;
}

static enum vk_status walk_copy(const char *path, const char *const *tables, size_t tables_n,
				struct manifest *rows, struct vk_error *err)
{
	struct vk_env_opts opts = {
	    .read_only = true, .single_file = true, .tables = tables, .tables_n = tables_n};
	struct stat s;
	struct vk_env *env;
	struct vk_env_read *r = NULL;
	struct row_walk *w = calloc(1, sizeof *w);
	float *row = malloc(VK_DIMS_MAX * sizeof *row);
	enum vk_status st = w && row ? VK_OK : vk_fail(err, VK_E_NOMEM, "no memory");
	/* The copy does not grow: no more address space than it has bytes. */
	if (stat(path, &s) == 0) opts.map_bytes = (uint64_t)s.st_size;
	if (!st) st = vk_env_open(path, &opts, &env, err);
	if (st) goto out;
	*w = (struct row_walk){.db = {.env = env, .cpu = vk_cpu_best()}, .m = rows, .row = row};
	st = vk_env_read_begin(env, &r);
	for (size_t i = 0; i < tables_n && !st; i++) {
		bool is_index = rows && i == T_INDEX;
		st = vk_env_status(walk_table(r->txn, env->dbi[i], is_index ? walk_row : NULL, w));
	}
	if (r) vk_env_read_end(r);
	vk_env_close(env);
	if (st) vk_fail(err, st, "the copy %s cannot be read back", path);
out:
	free(row);
	free(w);
	return st;
}

/* Writing */

static void write_file_entry(struct vk_jw *w, const char *name, const struct file_info *f)
{
	char hex[2 * VK_SHA256_SIZE + 1];
	vk_hex(hex, f->sha256, VK_SHA256_SIZE);
	vk_jw_object(w);
	vk_jw_kv(w, "name", name);
	vk_jw_ki(w, "bytes", (int64_t)f->bytes);
	vk_jw_kv(w, "sha256", hex);
	vk_jw_object_end(w);
}

static enum vk_status write_manifest(const char *dir, const struct manifest *m,
				     struct vk_error *err)
{
	struct vk_buf text;
	struct vk_jw w;
	char when[32];
	time_t now = (time_t)(vk_wall_ms() / 1000);
	struct tm tm;
	gmtime_r(&now, &tm);
	strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
	vk_buf_init(&text, MANIFEST_MAX);
	vk_jw_init(&w, &text);
	vk_jw_object(&w);
	vk_jw_ki(&w, "veckeep_backup", m->collections_n ? MANIFEST_VERSION : 1);
	vk_jw_kv(&w, "program", VK_VERSION);
	vk_jw_kv(&w, "created", when);
	vk_jw_ki(&w, "cache_rows", (int64_t)m->rows);
	vk_jw_ki(&w, "cache_rows_corrupt", (int64_t)m->corrupt_rows);
	vk_jw_key(&w, "files");
	vk_jw_array(&w);
	for (int i = 0; i < F_COUNT; i++) write_file_entry(&w, files[i].name, &m->file[i]);
	for (size_t i = 0; i < m->collections_n; i++) {
		char name[64];
		collection_name(name, sizeof name, m->collection[i].id);
		write_file_entry(&w, name, &m->collection[i].file);
	}
	vk_jw_array_end(&w);
	vk_jw_object_end(&w);
	vk_buf_putc(&text, '\n');
	enum vk_status st = text.failed
				? vk_fail(err, VK_E_NOMEM, "no memory")
				: vk_file_replace(dir, "manifest.json", text.p, text.n, err);
	vk_buf_free(&text);
	return st;
}

static void path_in(char *dst, size_t cap, const char *dir, const char *name)
{
	snprintf(dst, cap, "%.4000s/%s", dir, name);
}

static uint64_t data_bytes(struct vk_env *env)
{
	char path[4300];
	struct stat st;
	path_in(path, sizeof path, env->path, "data.mdb");
	return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static enum vk_status copy_collection(const struct vk_backup_source *src, uint32_t id,
				      const char *dir, struct pace *pace, struct manifest *m,
				      struct vk_error *err)
{
	char name[64], path[4300];
	struct vk_kv *kv;
	void *ref;
	collection_name(name, sizeof name, id);
	path_in(path, sizeof path, dir, name);
	enum vk_status st = src->open(src->arg, id, &kv, &ref, err);
	if (st) return st;
	struct collection_info *c = add_collection(m, id);
	if (!c) st = vk_fail(err, VK_E_NOMEM, "too many collections for one backup");
	pace->total += data_bytes(kv->env);
	if (!st) st = copy_env(kv->env, path, pace, &c->file, err);
	if (!st)
		st = walk_copy(path, kv->env->opts.tables, kv->env->opts.tables_n, NULL, err);
	src->close(src->arg, ref);
	return st;
}

/* Those that are not copied yet; *copied: how many there were. */
static enum vk_status copy_collections(const struct vk_backup_source *src, const char *dir,
				       struct pace *pace, struct manifest *m, size_t *copied,
				       struct vk_error *err)
{
	uint32_t *ids = NULL;
	size_t n = 0;
	*copied = 0;
	if (!src) return VK_OK;
	enum vk_status st = src->list(src->arg, &ids, &n, err);
	for (size_t i = 0; i < n && !st; i++) {
		if (find_collection(m, ids[i])) continue;
		st = copy_collection(src, ids[i], dir, pace, m, err);
		++*copied;
	}
	free(ids);
	return st;
}

/*
 * Collections, then the catalog, so that it knows the spaces that their rows name; then what was made between
 * the two, and the catalog once more, until its copy names no collection that is not here.
 */
static enum vk_status copy_named(struct vk_env *catalog, const char *catalog_path, const char *dir,
				 struct pace *pace, struct manifest *m, struct vk_error *err)
{
	const struct vk_backup_source *src = pace->opts->collections;
	size_t copied;
	enum vk_status st = copy_collections(src, dir, pace, m, &copied, err);
	for (int round = 0; !st; round++) {
		if (round == ROUNDS_MAX)
			return vk_fail(err, VK_E_BUSY,
				       "collections are made faster than they can be copied");
		unlink(catalog_path);
		st = copy_env(catalog, catalog_path, pace, &m->file[F_CATALOG], err);
		if (!st) st = copy_collections(src, dir, pace, m, &copied, err);
		if (!st && copied == 0) break;
	}
	return st;
}

static enum vk_status write_files(struct vk_catalog *catalog, struct vk_cachedb *cache,
				  const char *data_dir, const char *dir, struct pace *pace,
				  struct manifest *m, struct vk_error *err)
{
	char path[F_COUNT][4300], format[4300];
	for (int i = 0; i < F_COUNT; i++) path_in(path[i], sizeof path[i], dir, files[i].name);
	path_in(format, sizeof format, data_dir, files[F_FORMAT].name);
	struct vk_env *catalog_env = vk_catalog_env(catalog);

	/* The cache first: what its rows name is in every later catalog. */
	enum vk_status st = copy_env(cache->env, path[F_CACHE], pace, &m->file[F_CACHE], err);
	if (!st) st = copy_named(catalog_env, path[F_CATALOG], dir, pace, m, err);
	if (!st) st = vk_file_copy(format, path[F_FORMAT], m->file[F_FORMAT].sha256, err);
	if (!st)
		st = vk_file_hash(path[F_FORMAT], m->file[F_FORMAT].sha256,
				  &m->file[F_FORMAT].bytes, err);
	if (!st) st = walk_copy(path[F_CACHE], vk_cache_tables, T_COUNT, m, err);
	if (!st) st = walk_copy(path[F_CATALOG], vk_catalog_tables, vk_catalog_tables_n, NULL, err);
	return st;
}

enum vk_status vk_backup_write(struct vk_catalog *catalog, struct vk_cachedb *cache,
			       const char *data_dir, const char *dir,
			       const struct vk_backup_opts *opts, struct vk_error *err)
{
	static const struct vk_backup_opts none;
	struct manifest m = {0};
	if (!vk_dir_is_empty(dir))
		return vk_fail(err, VK_E_EXISTS, "%s is not empty; name a new directory", dir);
	enum vk_status st = vk_dir_make(dir, err);
	if (st) return st;
	st = vk_cachedb_flush(cache);
	if (st) vk_fail(err, st, "the cache's journal cannot be committed");
	struct pace pace = {.opts = opts ? opts : &none, .start_us = vk_mono_us()};
	pace.total = data_bytes(cache->env) + data_bytes(vk_catalog_env(catalog));
	if (!st) st = write_files(catalog, cache, data_dir, dir, &pace, &m, err);
	if (!st) st = vk_dir_sync(dir, err);
	if (!st) st = write_manifest(dir, &m, err);
	free(m.collection);
	if (st) {
		vk_dir_remove(dir);
		return st;
	}
	if (m.corrupt_rows)
		vk_log(VK_LOG_WARN,
		       "backup: %llu of %llu rows do not check (they are misses in the cache)",
		       (unsigned long long)m.corrupt_rows, (unsigned long long)m.rows);
	return VK_OK;
}

/* Restoring */

static bool read_collection_entry(struct vk_bytes name, const struct file_info *info,
				  struct manifest *m)
{
	char text[64], again[64];
	unsigned id;
	if (name.n >= sizeof text) return false;
	memcpy(text, name.p, name.n);
	text[name.n] = 0;
	if (sscanf(text, "collection-%u.mdb", &id) != 1) return false;
	collection_name(again, sizeof again, id);
	if (strcmp(text, again) != 0 || find_collection(m, id)) return false;
	struct collection_info *c = add_collection(m, id);
	if (c) c->file = *info;
	return c != NULL;
}

static bool read_file_entry(const vk_jv *v, struct manifest *m)
{
	struct vk_bytes name, hex;
	uint64_t bytes;
	struct file_info info = {.seen = true};
	if (!vk_jv_str(vk_jv_get(v, "name"), &name) || !vk_jv_str(vk_jv_get(v, "sha256"), &hex) ||
	    !vk_jv_u64(vk_jv_get(v, "bytes"), &bytes) ||
	    !vk_unhex(info.sha256, sizeof info.sha256, hex.p, hex.n))
		return false;
	info.bytes = bytes;
	for (int i = 0; i < F_COUNT; i++) {
		if (!vk_bytes_is(name, files[i].name)) continue;
		if (m->file[i].seen) return false;
		m->file[i] = info;
		return true;
	}
	return read_collection_entry(name, &info, m);
}

static enum vk_status read_manifest(const char *dir, struct manifest *m, struct vk_error *err)
{
	char path[4300];
	struct vk_buf text;
	struct vk_arena arena;
	struct vk_json *doc = NULL;
	int64_t version = 0;
	*m = (struct manifest){0};
	path_in(path, sizeof path, dir, "manifest.json");
	vk_buf_init(&text, MANIFEST_MAX);
	vk_arena_init(&arena, 4 * MANIFEST_MAX);
	enum vk_status st = vk_file_read(path, &text, err);
	if (st == VK_E_NOT_FOUND)
		vk_fail(err, st, "%s is no complete backup: it has no manifest.json", dir);
	if (!st && vk_json_parse(&arena, vk_buf_bytes(&text), NULL, &doc, NULL))
		st = vk_fail(err, VK_E_CORRUPT, "%s is damaged", path);
	const vk_jv *root = st ? NULL : vk_json_root(doc);
	if (!st && vk_jv_i64(vk_jv_get(root, "veckeep_backup"), &version) &&
	    (version < 1 || version > MANIFEST_VERSION))
		st = vk_fail(err, VK_E_INVALID, "%s: backups of version %lld are not known here",
			     path, (long long)version);
	bool ok = !st && version > 0;
	for (const vk_jv *v = st ? NULL : vk_jv_first(vk_jv_get(root, "files")); v;
	     v = vk_jv_next(v))
		ok = ok && read_file_entry(v, m);
	for (int i = 0; i < F_COUNT; i++) ok = ok && m->file[i].seen;
	if (!st && !ok) st = vk_fail(err, VK_E_CORRUPT, "%s is damaged", path);
	vk_json_free(doc);
	vk_arena_free(&arena);
	vk_buf_free(&text);
	return st;
}

static enum vk_status lay_file(const char *dir, const char *name, const char *staging,
			       const char *target, const struct file_info *info,
			       struct vk_error *err)
{
	char from[4300], to[4300];
	struct stat s;
	uint8_t sha256[VK_SHA256_SIZE];
	path_in(from, sizeof from, dir, name);
	path_in(to, sizeof to, staging, target);
	if (stat(from, &s) != 0) return vk_fail(err, VK_E_CORRUPT, "%s: %s", from, strerror(errno));
	if ((uint64_t)s.st_size != info->bytes)
		return vk_fail(err, VK_E_CORRUPT, "%s has %lld bytes, the manifest says %llu", from,
			       (long long)s.st_size, (unsigned long long)info->bytes);
	enum vk_status st = vk_file_copy(from, to, sha256, err);
	if (!st && memcmp(sha256, info->sha256, sizeof sha256) != 0)
		st = vk_fail(err, VK_E_CORRUPT, "%s is damaged: its hash is not the manifest's",
			     from);
	return st;
}

static enum vk_status stage_collection(const char *dir, const char *staging,
				       const struct collection_info *c, struct vk_error *err)
{
	char name[64], target[64], path[4300];
	snprintf(target, sizeof target, "collections/%u", c->id);
	path_in(path, sizeof path, staging, target);
	enum vk_status st = vk_dir_make(path, err);
	collection_name(name, sizeof name, c->id);
	collection_target(target, sizeof target, c->id);
	if (!st) st = lay_file(dir, name, staging, target, &c->file, err);
	return st ? st : vk_dir_sync(path, err);
}

static const char *const subdirs[] = {"catalog", "cache", "collections"};
#define SUBDIRS ((int)(sizeof subdirs / sizeof *subdirs))

static enum vk_status stage(const char *dir, const char *staging, const struct manifest *m,
			    struct vk_error *err)
{
	char path[4300];
	enum vk_status st = vk_dir_make(staging, err);
	for (int i = 0; i < SUBDIRS && !st; i++) {
		path_in(path, sizeof path, staging, subdirs[i]);
		st = vk_dir_make(path, err);
	}
	for (int i = 0; i < F_COUNT && !st; i++)
		st = lay_file(dir, files[i].name, staging, files[i].target, &m->file[i], err);
	for (size_t i = 0; i < m->collections_n && !st; i++)
		st = stage_collection(dir, staging, &m->collection[i], err);
	for (int i = 0; i < SUBDIRS && !st; i++) {
		path_in(path, sizeof path, staging, subdirs[i]);
		st = vk_dir_sync(path, err);
	}
	return st ? st : vk_dir_sync(staging, err);
}

static enum vk_status move_into_place(const char *staging, const char *data_dir,
				      struct vk_error *err)
{
	static const char *const names[] = {"catalog", "cache", "collections", "FORMAT"};
	for (int i = 0; i < 4; i++) {
		char from[4300], to[4300];
		path_in(from, sizeof from, staging, names[i]);
		path_in(to, sizeof to, data_dir, names[i]);
		if (rename(from, to) != 0)
			return vk_fail(err, VK_E_IO, "%s: %s", to, strerror(errno));
		enum vk_status st = vk_dir_sync(data_dir, err);
		if (st) return st;
	}
	rmdir(staging);
	return VK_OK;
}

/* Takes away what a failed restore left; the directory itself only when it was not there before. */
static void clean_up(const char *data_dir, const char *staging, bool made)
{
	static const char *const names[] = {"FORMAT", "catalog", "cache", "collections", "LOCK"};
	vk_dir_remove(staging);
	for (int i = 0; i < 5; i++) {
		char path[4300];
		path_in(path, sizeof path, data_dir, names[i]);
		if (unlink(path) != 0) vk_dir_remove(path);
	}
	if (made) rmdir(data_dir);
}

enum vk_status vk_backup_restore(const char *dir, const char *data_dir, struct vk_error *err)
{
	struct manifest m;
	struct vk_datadir lock;
	struct stat s;
	char staging[4300];
	enum vk_status st = read_manifest(dir, &m, err);
	if (!st) st = vk_datadir_format_check(dir, err);
	bool made = stat(data_dir, &s) != 0;
	if (!st) st = vk_datadir_lock(&lock, data_dir, 0, err);
	if (st) {
		free(m.collection);
		return st;
	}
	path_in(staging, sizeof staging, lock.path, "restore.new");
	if (!vk_datadir_is_fresh(lock.path)) {
		st = vk_fail(err, VK_E_EXISTS, "%s is not empty; restore into a new directory",
			     data_dir);
	} else {
		st = stage(dir, staging, &m, err);
		if (!st) st = move_into_place(staging, lock.path, err);
		if (st) clean_up(lock.path, staging, made);
	}
	vk_datadir_close(&lock);
	free(m.collection);
	return st;
}
