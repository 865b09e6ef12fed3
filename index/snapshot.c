/*
 * Snapshots of a collection: making, listing, deleting. Putting one back: snapshot_recover.c.
 *
 * The file is written in one go: LMDB copies itself behind room for a tar header, then one pass over what it wrote takes both
 * hashes, that of data.mdb for the manifest and that of the file for <name>.checksum; the manifest comes last. The sidecar is
 * a help to clients: without it a snapshot is listed with an empty checksum.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"
#include "index/collections_internal.h"
#include "index/snapshot.h"
#include "store/file.h"
#include "store/tar.h"

#define CHUNK ((size_t)256 << 10)
#define SUFFIX ".snapshot"
#define PREFIX_MAX 160 /* bytes of the collection's name in the file's, which may have 255 */
#define LIST_MAX 10000

/* Names and paths */

static enum vk_status dir_of(struct vk_collections *cs, struct vk_bytes collection, char dir[3600], struct vk_error *err)
{
	char real[VK_NAME_MAX + 1];
	enum vk_status st = vk_collection_name_check(collection, err);
	if (st) return st;
	if (!vk_collections_real_name(cs, collection, real)) return vk_collection_missing(collection, err);
	snprintf(dir, 3600, "%.3000s/%s", cs->snapshots_dir, real);
	return VK_OK;
}

static bool is_snapshot_name(struct vk_bytes name)
{
	size_t n = sizeof SUFFIX - 1;
	if (name.n <= n || name.n > 255 || name.p[0] == '.') return false;
	if (memchr(name.p, '/', name.n) || memchr(name.p, 0, name.n) || memchr(name.p, '\\', name.n)) return false;
	return memcmp(name.p + name.n - n, SUFFIX, n) == 0;
}

enum vk_status vk_snapshot_path(struct vk_collections *cs, struct vk_bytes collection, struct vk_bytes name, char path[4096],
				struct vk_error *err)
{
	char dir[3600];
	struct stat s;
	enum vk_status st = dir_of(cs, collection, dir, err);
	if (st) return st;
	if (!is_snapshot_name(name))
		return vk_fail(err, VK_E_INVALID, "Wrong input: %.*s is no name of a snapshot",
			       (int)vk_utf8_valid(name.p, name.n < 255 ? name.n : 255), name.p);
	snprintf(path, 4096, "%s/%.*s", dir, (int)name.n, name.p);
	if (lstat(path, &s) != 0 || !S_ISREG(s.st_mode))
		return vk_fail(err, VK_E_NOT_FOUND, "Not found: Snapshot %.*s not found", (int)name.n, name.p);
	return VK_OK;
}

/* <collection>-<UTC>-<ms>.snapshot; the collection's name cut where a character ends. */
static void make_name(char name[320], const char *collection, int64_t now_ms)
{
	size_t n = strlen(collection);
	time_t s = (time_t)(now_ms / 1000);
	struct tm tm;
	char when[32];
	if (n > PREFIX_MAX)
		for (n = PREFIX_MAX; n > 0 && ((unsigned char)collection[n] & 0xc0) == 0x80;) n--;
	gmtime_r(&s, &tm);
	strftime(when, sizeof when, "%Y-%m-%d-%H-%M-%S", &tm);
	snprintf(name, 320, "%.*s-%s-%03d" SUFFIX, (int)n, collection, when, (int)(now_ms % 1000));
}

/* Writing */

struct maker {
	struct vk_collection *c;
	const char *name; /* the collection's own */
	const char *path; /* of the temporary file */
	int fd;
	int64_t now_ms;
	uint64_t data_bytes, bytes;
	struct vk_sha256 whole;
	uint8_t data_sha256[VK_SHA256_SIZE], file_sha256[VK_SHA256_SIZE];
	struct vk_error *err;
};

static enum vk_status fail_io(struct maker *m)
{
	enum vk_status st = errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? VK_E_NO_SPACE : VK_E_IO;
	return vk_fail(m->err, st, "%s: %s", m->path, strerror(errno));
}

/* To the end of the file, counted and hashed. */
static enum vk_status append(struct maker *m, const void *p, size_t n)
{
	vk_sha256_update(&m->whole, p, n);
	m->bytes += n;
	return vk_fd_write(m->fd, p, n, m->path, m->err);
}

static enum vk_status append_padding(struct maker *m, uint64_t written)
{
	static const uint8_t zeros[VK_TAR_BLOCK];
	return append(m, zeros, (VK_TAR_BLOCK - written % VK_TAR_BLOCK) % VK_TAR_BLOCK);
}

/* The environment's copy, behind the place of its header. */
static enum vk_status copy_data(struct maker *m)
{
	if (lseek(m->fd, VK_TAR_BLOCK, SEEK_SET) < 0) return fail_io(m);
	enum vk_status st = vk_kv_copy(vk_collection_kv(m->c), m->fd);
	if (st) return vk_fail(m->err, st, "%s: the copy failed: %s", m->path, vk_status_text(st));
	off_t end = lseek(m->fd, 0, SEEK_CUR);
	if (end < (off_t)VK_TAR_BLOCK) return fail_io(m);
	m->data_bytes = (uint64_t)end - VK_TAR_BLOCK;
	return VK_OK;
}

/* Header and hashes of what copy_data() wrote; leaves the file at its end. */
static enum vk_status seal_data(struct maker *m)
{
	uint8_t header[VK_TAR_BLOCK];
	struct vk_sha256 data;
	char *chunk = malloc(CHUNK);
	enum vk_status st = chunk ? VK_OK : vk_fail(m->err, VK_E_NOMEM, "no memory");
	vk_tar_header(header, VK_SNAPSHOT_DATA, m->data_bytes, m->now_ms / 1000);
	if (!st && pwrite(m->fd, header, sizeof header, 0) != sizeof header) st = fail_io(m);
	vk_sha256_update(&m->whole, header, sizeof header);
	vk_sha256_init(&data);
	uint64_t left = m->data_bytes;
	while (!st && left) {
		size_t want = left < CHUNK ? (size_t)left : CHUNK;
		ssize_t n = pread(m->fd, chunk, want, (off_t)(VK_TAR_BLOCK + m->data_bytes - left));
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) {
			if (n == 0) errno = EIO;
			st = fail_io(m);
			break;
		}
		vk_sha256_update(&data, chunk, (size_t)n);
		vk_sha256_update(&m->whole, chunk, (size_t)n);
		left -= (uint64_t)n;
	}
	vk_sha256_final(&data, m->data_sha256);
	free(chunk);
	m->bytes = VK_TAR_BLOCK + m->data_bytes;
	return st ? st : append_padding(m, m->data_bytes);
}

static void write_manifest(struct maker *m, struct vk_buf *text)
{
	struct vk_jw w;
	char hex[2 * VK_SHA256_SIZE + 1];
	struct vk_colconf *conf = vk_collection_config(m->c);
	vk_hex(hex, m->data_sha256, VK_SHA256_SIZE);
	vk_buf_init(text, VK_SNAPSHOT_MANIFEST_MAX);
	vk_jw_init(&w, text);
	vk_jw_object(&w);
	vk_jw_ki(&w, "veckeep_snapshot", VK_SNAPSHOT_FORMAT);
	vk_jw_kv(&w, "program", VK_VERSION);
	vk_jw_kv(&w, "collection", m->name);
	vk_jw_ki(&w, "created_ms", m->now_ms);
	vk_jw_key(&w, "data");
	vk_jw_object(&w);
	vk_jw_kv(&w, "name", VK_SNAPSHOT_DATA);
	vk_jw_ki(&w, "bytes", (int64_t)m->data_bytes);
	vk_jw_kv(&w, "sha256", hex);
	vk_jw_object_end(&w);
	vk_jw_key(&w, "config"); /* to be read by people: what counts is in the data */
	vk_jw_raw(&w, conf->text);
	vk_jw_object_end(&w);
	vk_buf_putc(text, '\n');
	vk_colconf_unref(conf);
}

static enum vk_status append_manifest(struct maker *m)
{
	static const uint8_t end[2 * VK_TAR_BLOCK];
	uint8_t header[VK_TAR_BLOCK];
	struct vk_buf text;
	write_manifest(m, &text);
	enum vk_status st = text.failed ? vk_fail(m->err, VK_E_NOMEM, "no memory for the manifest") : VK_OK;
	vk_tar_header(header, VK_SNAPSHOT_MANIFEST, text.n, m->now_ms / 1000);
	if (!st) st = append(m, header, sizeof header);
	if (!st) st = append(m, text.p, text.n);
	if (!st) st = append_padding(m, text.n);
	if (!st) st = append(m, end, sizeof end);
	vk_buf_free(&text);
	vk_sha256_final(&m->whole, m->file_sha256);
	return st;
}

static enum vk_status write_file(struct maker *m)
{
	m->fd = open(m->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (m->fd < 0) return fail_io(m);
	vk_sha256_init(&m->whole);
	enum vk_status st = copy_data(m);
	if (!st) st = seal_data(m);
	if (!st) st = append_manifest(m);
	if (!st && fsync(m->fd) != 0) st = fail_io(m);
	close(m->fd);
	return st;
}

/* The first name from now on that is not taken, and holds it with the temporary file's. */
static void find_name(const char *dir, const char *collection, int64_t now_ms, char name[320], char path[4096], char tmp[4200])
{
	struct stat s;
	do {
		make_name(name, collection, now_ms++);
		snprintf(path, 4096, "%.3599s/%s", dir, name);
		snprintf(tmp, 4200, "%s.tmp", path);
	} while (lstat(path, &s) == 0 || lstat(tmp, &s) == 0);
}

enum vk_status vk_snapshot_create(struct vk_collections *cs, struct vk_bytes collection, int64_t now_ms, struct vk_snapshot *out,
				  struct vk_error *err)
{
	/* One at a time: two copies would only make each other slower, and names stay apart. */
	static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
	char dir[3600], path[4096], tmp[4200], real[VK_NAME_MAX + 1], sidecar[340];
	struct maker m = {.name = real, .path = tmp, .now_ms = now_ms, .err = err};
	*out = (struct vk_snapshot){.created_ms = now_ms};
	enum vk_status st = dir_of(cs, collection, dir, err);
	if (!st && !vk_collections_real_name(cs, collection, real)) st = vk_collection_missing(collection, err);
	if (!st) st = vk_collections_get(cs, collection, &m.c, err);
	if (st) return st;
	pthread_mutex_lock(&one);
	st = vk_dir_make(dir, err);
	if (!st) {
		find_name(dir, real, now_ms, out->name, path, tmp);
		st = write_file(&m);
		vk_hex(out->sha256, m.file_sha256, VK_SHA256_SIZE);
		out->bytes = m.bytes;
		snprintf(sidecar, sizeof sidecar, "%s.checksum", out->name);
		if (!st) st = vk_file_replace(dir, sidecar, out->sha256, strlen(out->sha256), err);
		if (!st && rename(tmp, path) != 0) st = fail_io(&m);
		if (!st) st = vk_dir_sync(dir, err);
		if (st) unlink(tmp);
	}
	pthread_mutex_unlock(&one);
	vk_collection_unref(m.c);
	return st;
}

/* Listing and deleting */

static void read_checksum(const char *path, char sha256[65])
{
	char sidecar[4200];
	uint8_t raw[VK_SHA256_SIZE];
	struct vk_buf b;
	vk_buf_init(&b, 256);
	snprintf(sidecar, sizeof sidecar, "%s.checksum", path);
	sha256[0] = 0;
	if (vk_file_read(sidecar, &b, NULL) == VK_OK && b.n == 64 && vk_unhex(raw, sizeof raw, b.p, b.n)) {
		memcpy(sha256, b.p, 64);
		sha256[64] = 0;
	}
	vk_buf_free(&b);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct vk_snapshot *)a)->name, ((const struct vk_snapshot *)b)->name);
}

static enum vk_status list(const char *dir, struct vk_snapshot **out, size_t *n)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	size_t cap = 0;
	*out = NULL;
	*n = 0;
	while (d && *n < LIST_MAX && (e = readdir(d))) {
		char path[4096];
		struct stat s;
		if (!is_snapshot_name(vk_bytes_of(e->d_name))) continue;
		snprintf(path, sizeof path, "%.3599s/%s", dir, e->d_name);
		if (lstat(path, &s) != 0 || !S_ISREG(s.st_mode)) continue;
		if (*n == cap) {
			cap = cap ? cap * 2 : 16;
			struct vk_snapshot *more = realloc(*out, cap * sizeof *more);
			if (!more) {
				closedir(d);
				return VK_E_NOMEM;
			}
			*out = more;
		}
		struct vk_snapshot *one = &(*out)[(*n)++];
		*one = (struct vk_snapshot){.bytes = (uint64_t)s.st_size, .created_ms = (int64_t)s.st_mtim.tv_sec * 1000};
		snprintf(one->name, sizeof one->name, "%s", e->d_name);
		read_checksum(path, one->sha256);
	}
	if (d) closedir(d);
	if (*n) qsort(*out, *n, sizeof **out, by_name);
	return VK_OK;
}

enum vk_status vk_snapshot_each(struct vk_collections *cs, struct vk_bytes collection, bool (*fn)(void *arg, const struct vk_snapshot *s),
				void *arg)
{
	char dir[3600];
	struct vk_snapshot *all = NULL;
	size_t n = 0;
	enum vk_status st = dir_of(cs, collection, dir, NULL);
	if (!st) st = list(dir, &all, &n);
	for (size_t i = 0; i < n && !st; i++)
		if (!fn(arg, &all[i])) break;
	free(all);
	return st;
}

enum vk_status vk_snapshot_delete(struct vk_collections *cs, struct vk_bytes collection, struct vk_bytes name, struct vk_error *err)
{
	char path[4096], sidecar[4200], dir[3600];
	enum vk_status st = vk_snapshot_path(cs, collection, name, path, err);
	if (!st) st = dir_of(cs, collection, dir, err);
	if (st) return st;
	if (unlink(path) != 0) return vk_fail(err, VK_E_IO, "%s: %s", path, strerror(errno));
	snprintf(sidecar, sizeof sidecar, "%s.checksum", path);
	unlink(sidecar);
	return vk_dir_sync(dir, err);
}
