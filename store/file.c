/* Plain files, done durably. */
#include "store/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK ((size_t)256 << 10)

static enum vk_status fail_errno(struct vk_error *err, const char *path)
{
	enum vk_status st = VK_E_IO;
	if (errno == ENOENT) st = VK_E_NOT_FOUND;
	if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) st = VK_E_NO_SPACE;
	return vk_fail(err, st, "%s: %s", path, strerror(errno));
}

enum vk_status vk_dir_make(const char *path, struct vk_error *err)
{
	char b[4096];
	size_t n = strlen(path);
	if (n == 0 || n >= sizeof b) return vk_fail(err, VK_E_INVALID, "no such path can be made");
	memcpy(b, path, n + 1);
	for (size_t i = 1; i <= n; i++) {
		if (b[i] != '/' && b[i] != 0) continue;
		b[i] = 0;
		if (mkdir(b, 0700) != 0 && errno != EEXIST) return fail_errno(err, b);
		b[i] = path[i];
	}
	struct stat st;
	if (stat(path, &st) != 0) return fail_errno(err, path);
	if (!S_ISDIR(st.st_mode)) return vk_fail(err, VK_E_INVALID, "%s is no directory", path);
	return VK_OK;
}

enum vk_status vk_dir_sync(const char *path, struct vk_error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) return fail_errno(err, path);
	int rc = fsync(fd);
	enum vk_status st = rc ? fail_errno(err, path) : VK_OK;
	close(fd);
	return st;
}

enum vk_status vk_dir_sync_of(const char *path, struct vk_error *err)
{
	char dir[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;
	if (n >= sizeof dir) return vk_fail(err, VK_E_INVALID, "%.64s...: the path is too long", path);
	memcpy(dir, path, n);
	dir[n] = 0;
	return vk_dir_sync(n ? dir : slash ? "/" : ".", err);
}

bool vk_dir_is_empty(const char *path)
{
	DIR *d = opendir(path);
	bool empty = d || errno == ENOENT;
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) empty = false;
	if (d) closedir(d);
	return empty;
}

static void remove_files(const char *path, int depth)
{
	DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		char b[4400];
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
		if (snprintf(b, sizeof b, "%s/%s", path, e->d_name) >= (int)sizeof b) continue;
		if (unlink(b) != 0 && depth > 0) remove_files(b, depth - 1);
	}
	if (d) closedir(d);
	rmdir(path);
}

void vk_dir_remove(const char *path) { remove_files(path, 3); }

enum vk_status vk_fd_write(int fd, const void *bytes, size_t n, const char *path,
			   struct vk_error *err)
{
	const char *p = bytes;
	while (n) {
		ssize_t done = write(fd, p, n);
		if (done < 0 && errno == EINTR) continue;
		if (done < 0) return fail_errno(err, path);
		p += done;
		n -= (size_t)done;
	}
	return VK_OK;
}

enum vk_status vk_file_replace(const char *dir, const char *name, const void *p, size_t n,
			       struct vk_error *err)
{
	char to[4300], tmp[4310];
	snprintf(to, sizeof to, "%s/%s", dir, name);
	snprintf(tmp, sizeof tmp, "%s.new", to);
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) return fail_errno(err, tmp);
	enum vk_status st = vk_fd_write(fd, p, n, tmp, err);
	if (!st && fsync(fd) != 0) st = fail_errno(err, tmp);
	close(fd);
	if (!st && rename(tmp, to) != 0) st = fail_errno(err, to);
	if (st) {
		unlink(tmp);
		return st;
	}
	return vk_dir_sync(dir, err);
}

enum vk_status vk_file_read(const char *path, struct vk_buf *b, struct vk_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return fail_errno(err, path);
	enum vk_status st = VK_OK;
	for (;;) {
		char chunk[4096];
		ssize_t n = read(fd, chunk, sizeof chunk);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) st = fail_errno(err, path);
		if (n <= 0) break;
		vk_buf_put(b, chunk, (size_t)n);
	}
	close(fd);
	if (!st && b->failed) st = vk_fail(err, VK_E_TOO_LARGE, "%s is too large", path);
	return st;
}

/* Reads src to its end, hashes, and writes to fd when it is not -1. */
static enum vk_status pump(const char *src, int fd, const char *dst, uint8_t sha256[VK_SHA256_SIZE],
			   uint64_t *bytes, struct vk_error *err)
{
	struct vk_sha256 s;
	char *chunk = malloc(CHUNK);
	int in = open(src, O_RDONLY | O_CLOEXEC);
	enum vk_status st = VK_OK;
	*bytes = 0;
	vk_sha256_init(&s);
	if (!chunk) st = vk_fail(err, VK_E_NOMEM, "no memory");
	else if (in < 0) st = fail_errno(err, src);
	while (!st) {
		ssize_t n = read(in, chunk, CHUNK);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) st = fail_errno(err, src);
		if (n <= 0) break;
		vk_sha256_update(&s, chunk, (size_t)n);
		*bytes += (uint64_t)n;
		if (fd >= 0) st = vk_fd_write(fd, chunk, (size_t)n, dst, err);
	}
	vk_sha256_final(&s, sha256);
	if (in >= 0) close(in);
	free(chunk);
	return st;
}

enum vk_status vk_file_hash(const char *path, uint8_t sha256[VK_SHA256_SIZE], uint64_t *bytes,
			    struct vk_error *err)
{
	return pump(path, -1, NULL, sha256, bytes, err);
}

enum vk_status vk_file_copy(const char *src, const char *dst, uint8_t sha256[VK_SHA256_SIZE],
			    struct vk_error *err)
{
	uint64_t bytes;
	int fd = open(dst, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) return fail_errno(err, dst);
	enum vk_status st = pump(src, fd, dst, sha256, &bytes, err);
	if (!st && fsync(fd) != 0) st = fail_errno(err, dst);
	if (close(fd) != 0 && !st) st = fail_errno(err, dst);
	return st;
}
