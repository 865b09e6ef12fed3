/*
 * The data directory. Order at open: the directory, LOCK, then FORMAT, so that of two servers
 * that start at once on an empty directory one writes FORMAT and the other reads it. LOCK is
 * never unlinked: a lock on a file without a name locks nobody out.
 */
#include "store/datadir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/json.h"
#include "store/env.h"
#include "store/file.h"
#include "store/internal.h"

#define FORMAT_VERSION 1
#define LOCK_POLL_MS 20
#define LMDB_MAJOR "0.9" /* 1.0's files are another format */

static const char format_name[] = "FORMAT";

static long page_size(void) { return sysconf(_SC_PAGESIZE); }

static enum vk_status write_format(const char *dir, struct vk_error *err)
{
	char text[128];
	int n = snprintf(text, sizeof text, "{\"veckeep\":%d,\"lmdb\":\"%s\",\"page_size\":%ld}\n",
			 FORMAT_VERSION, LMDB_MAJOR, page_size());
	return vk_file_replace(dir, format_name, text, (size_t)n, err);
}

/* What FORMAT says, against what this build can read. */
static enum vk_status judge_format(const char *path, const struct vk_json *doc,
				   struct vk_error *err)
{
	const vk_jv *root = vk_json_root(doc);
	int64_t version = 0, page = 0;
	struct vk_bytes lmdb = {0};
	if (!vk_jv_i64(vk_jv_get(root, "veckeep"), &version) ||
	    !vk_jv_str(vk_jv_get(root, "lmdb"), &lmdb) ||
	    !vk_jv_i64(vk_jv_get(root, "page_size"), &page))
		return vk_fail(err, VK_E_INVALID,
			       "%s is damaged; restore the directory from a backup", path);
	if (version != FORMAT_VERSION)
		return vk_fail(
		    err, VK_E_INVALID,
		    "%s: the data has format %lld, this veckeep reads format %d; use the "
		    "release that wrote it, or export there and import here",
		    path, (long long)version, FORMAT_VERSION);
	if (!vk_bytes_is(lmdb, LMDB_MAJOR))
		return vk_fail(
		    err, VK_E_INVALID,
		    "%s: the data was written by LMDB %.*s, this veckeep has LMDB " LMDB_MAJOR
		    "; export there and import here",
		    path, (int)(lmdb.n < 16 ? lmdb.n : 16), lmdb.p);
	if (page != page_size())
		return vk_fail(
		    err, VK_E_INVALID,
		    "%s: the data was written with pages of %lld bytes, this machine has %ld; "
		    "export there and import here",
		    path, (long long)page, page_size());
	return VK_OK;
}

enum vk_status vk_datadir_format_check(const char *dir, struct vk_error *err)
{
	char path[4200];
	struct vk_buf text;
	struct vk_arena arena;
	struct vk_json *doc = NULL;
	snprintf(path, sizeof path, "%s/%s", dir, format_name);
	vk_buf_init(&text, 4096);
	vk_arena_init(&arena, (size_t)1 << 20);
	enum vk_status st = vk_file_read(path, &text, err);
	if (!st && vk_json_parse(&arena, vk_buf_bytes(&text), NULL, &doc, NULL))
		st = vk_fail(err, VK_E_INVALID,
			     "%s is damaged; restore the directory from a backup", path);
	if (!st) st = judge_format(path, doc, err);
	vk_json_free(doc);
	vk_arena_free(&arena);
	vk_buf_free(&text);
	return st;
}

bool vk_datadir_is_fresh(const char *dir)
{
	DIR *d = opendir(dir);
	bool fresh = d != NULL;
	struct dirent *e;
	while (d && (e = readdir(d))) {
		const char *n = e->d_name;
		if (strcmp(n, ".") && strcmp(n, "..") && strcmp(n, "LOCK") &&
		    strcmp(n, "lost+found") && strcmp(n, "FORMAT.new"))
			fresh = false;
	}
	if (d) closedir(d);
	return fresh;
}

static enum vk_status make_or_check_format(const char *dir, struct vk_error *err)
{
	enum vk_status st = vk_datadir_format_check(dir, err);
	if (st != VK_E_NOT_FOUND) return st;
	if (!vk_datadir_is_fresh(dir))
		return vk_fail(
		    err, VK_E_INVALID,
		    "%s has files but no FORMAT: it is no data directory of veckeep; name an "
		    "empty one",
		    dir);
	return write_format(dir, err);
}

static void write_holder(int fd)
{
	char host[256] = "?", text[512], since[32];
	gethostname(host, sizeof host - 1);
	for (char *p = host; *p; p++)
		if (*p == '"' || *p == '\\' || (unsigned char)*p < 0x20) *p = '?';
	time_t now = (time_t)(vk_wall_ms() / 1000);
	struct tm tm;
	gmtime_r(&now, &tm);
	strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", &tm);
	int n = snprintf(text, sizeof text, "{\"pid\":%ld,\"host\":\"%s\",\"since\":\"%s\"}\n",
			 (long)getpid(), host, since);
	/* For people who wonder who holds it; the lock itself is the kernel's. */
	if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) return;
}

static enum vk_status busy(const char *dir, int fd, uint64_t wait_ms, struct vk_error *err)
{
	char holder[400] = "";
	ssize_t n = pread(fd, holder, sizeof holder - 1, 0);
	if (n < 0) n = 0;
	holder[n] = 0;
	holder[strcspn(holder, "\n")] = 0;
	return vk_fail(err, VK_E_BUSY, "%.2000s is in use by another veckeep %s (waited %llu ms)",
		       dir, holder, (unsigned long long)wait_ms);
}

static enum vk_status take_lock(struct vk_datadir *d, uint64_t wait_ms, struct vk_error *err)
{
	char path[4200];
	snprintf(path, sizeof path, "%s/LOCK", d->path);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) return vk_fail(err, VK_E_IO, "%s: %s", path, strerror(errno));
	uint64_t until_ms = vk_mono_ms() + wait_ms;
	while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		enum vk_status st = VK_OK;
		if (errno != EWOULDBLOCK && errno != EINTR)
			st = vk_fail(err, VK_E_IO, "%s: %s", path, strerror(errno));
		else if (vk_mono_ms() >= until_ms) st = busy(d->path, fd, wait_ms, err);
		if (st) {
			close(fd);
			return st;
		}
		usleep(LOCK_POLL_MS * 1000);
	}
	write_holder(fd);
	d->lock_fd = fd;
	return VK_OK;
}

static enum vk_status set_path(struct vk_datadir *d, const char *path, struct vk_error *err)
{
	char *real = realpath(path, NULL);
	d->lock_fd = -1;
	if (!real)
		return vk_fail(err, errno == ENOENT || errno == ENOTDIR ? VK_E_NOT_FOUND : VK_E_IO,
			       "%s: %s", path, strerror(errno));
	int n = snprintf(d->path, sizeof d->path, "%s", real);
	free(real);
	/* Room for the longest name that we append. */
	if (n >= (int)sizeof d->path - 64)
		return vk_fail(err, VK_E_INVALID, "path too long: %s", path);
	return VK_OK;
}

enum vk_status vk_datadir_lock(struct vk_datadir *d, const char *path, uint64_t wait_ms,
			       struct vk_error *err)
{
	*d = (struct vk_datadir){.lock_fd = -1};
	enum vk_status st = vk_dir_make(path, err);
	if (!st) st = set_path(d, path, err);
	if (!st && vk_fs_is_refused(d->path))
		st = vk_fail(
		    err, VK_E_INVALID,
		    "%s is on a network file system, where LMDB is not safe; use a local disk "
		    "(VECKEEP_ALLOW_NETWORK_FS=1 to insist)",
		    d->path);
	return st ? st : take_lock(d, wait_ms, err);
}

enum vk_status vk_datadir_open(struct vk_datadir *d, const char *path, uint64_t wait_ms,
			       struct vk_error *err)
{
	enum vk_status st = vk_datadir_lock(d, path, wait_ms, err);
	if (!st) st = make_or_check_format(d->path, err);
	if (st) vk_datadir_close(d);
	return st;
}

enum vk_status vk_datadir_open_read(struct vk_datadir *d, const char *path, struct vk_error *err)
{
	*d = (struct vk_datadir){.lock_fd = -1};
	enum vk_status st = set_path(d, path, err);
	return st ? st : vk_datadir_format_check(d->path, err);
}

void vk_datadir_close(struct vk_datadir *d)
{
	if (d->lock_fd < 0) return;
	/* Emptied, so that a stale holder is not named later; then closed, which unlocks. */
	if (ftruncate(d->lock_fd, 0) != 0) errno = 0;
	close(d->lock_fd);
	d->lock_fd = -1;
}

const char *vk_store_library(void) { return mdb_version(NULL, NULL, NULL); }
