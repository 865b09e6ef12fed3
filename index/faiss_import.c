/*
 * The reader in its own process. Through the pipe come frames: struct frame, then its bytes.
 *   HEAD   struct vk_faiss_import_head
 *   ROWS   n ids (i64), n rows
 *   ERROR  struct vk_error
 *   END    nothing
 * A pipe that ends without END or ERROR is a reader that died.
 */
#include "index/faiss_import.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "index/faiss_internal.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMIT_MEMORY 0 /* their shadow alone is terabytes */
#else
#define LIMIT_MEMORY 1
#endif

#define SILENCE_MS 60000
#define FRAME_BYTES ((size_t)256 << 10)
#define SPARE_BYTES ((uint64_t)256 << 20) /* of the reader's memory, over twice the file */

enum kind { HEAD = 0x48564b46, ROWS, ERROR, END };

struct frame {
	uint32_t kind, n;
};

struct vk_faiss_import {
	int fd;
	pid_t child;
	uint32_t dims;
	uint64_t rows, given;
	uint32_t left;   /* rows of the frame that was begun */
	int64_t *id;     /* the frame's */
	float *row;
	uint32_t at;
	bool ended;
};

/* --- the child --- */

static bool send_all(int fd, const void *p, size_t n)
{
	const char *from = p;
	while (n) {
		ssize_t done = write(fd, from, n);
		if (done < 0 && errno == EINTR) continue;
		if (done <= 0) return false; /* nobody listens any more */
		from += done;
		n -= (size_t)done;
	}
	return true;
}

static void send_frame(int fd, enum kind kind, uint32_t n, const void *p, size_t bytes)
{
	struct frame f = {kind, n};
	if (!send_all(fd, &f, sizeof f) || !send_all(fd, p, bytes)) _exit(1);
}

/* Address space: what there is already (libraries), and what a right index of this file can need. */
static void limit_memory(uint64_t file_bytes)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (f && fscanf(f, "%lu", &pages) != 1) pages = 0;
	if (f) fclose(f);
	uint64_t max = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) + 2 * file_bytes + SPARE_BYTES;
	if (LIMIT_MEMORY && pages) setrlimit(RLIMIT_AS, &(struct rlimit){max, max});
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
}

static uint32_t frame_rows(uint32_t dims)
{
	size_t n = FRAME_BYTES / (dims * sizeof(float) + sizeof(int64_t));
	return n ? (uint32_t)n : 1;
}

static enum vk_status send_rows(const struct vk_faiss_face *face, const struct vk_faiss_index *ix, const struct vk_faiss_info *info,
				int fd, struct vk_error *err)
{
	struct vk_faiss_cursor at = {0};
	uint32_t max = frame_rows(info->dims), n;
	int64_t *id = malloc(max * sizeof *id);
	float *rows = malloc((size_t)max * info->dims * sizeof *rows);
	if (!id || !rows) return vk_fail(err, VK_E_NOMEM, "no memory");
	for (uint64_t sent = 0;; sent += n) {
		enum vk_status st = face->rows(ix, &at, max, id, rows, &n, err);
		if (st) return st;
		if (!n && sent != info->rows)
			return vk_fail(err, VK_E_CORRUPT, "it says %llu rows and holds %llu", (unsigned long long)info->rows,
				       (unsigned long long)sent);
		if (!n) return VK_OK;
		struct frame f = {ROWS, n};
		if (!send_all(fd, &f, sizeof f) || !send_all(fd, id, n * sizeof *id) ||
		    !send_all(fd, rows, (size_t)n * info->dims * sizeof *rows))
			_exit(1);
	}
}

static enum vk_status send_index(const struct vk_faiss_face *face, const char *path, bool binary, int fd, struct vk_error *err)
{
	struct vk_faiss_index *ix;
	struct vk_faiss_info info;
	if (binary) return vk_fail(err, VK_E_INVALID, "a binary index holds signs, no vectors");
	enum vk_status st = face->read(path, false, VK_FAISS_NO_TABLES, &ix, err);
	if (!st) st = face->describe(ix, &info, err);
	if (st) return st;
	if (!info.dims || info.dims > VK_FAISS_DIMS_MAX || info.rows > VK_FAISS_ROWS_MAX)
		return vk_fail(err, VK_E_CORRUPT, "%llu rows of %u dims cannot be", (unsigned long long)info.rows, info.dims);
	struct vk_faiss_import_head head = {.rows = info.rows, .dims = info.dims, .inner_product = info.inner_product};
	memcpy(head.type, info.type, sizeof head.type);
	send_frame(fd, HEAD, 0, &head, sizeof head);
	return send_rows(face, ix, &info, fd, err);
}

static void child(const struct vk_faiss_face *face, const char *path, bool binary, uint64_t file_bytes, int fd)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGPIPE};
	struct vk_error err = {0};
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) signal(faults[i], SIG_DFL);
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (null >= 0) dup2(null, STDERR_FILENO); /* a library's last words say nothing to a user */
	limit_memory(file_bytes);
	if (send_index(face, path, binary, fd, &err)) send_frame(fd, ERROR, 0, &err, sizeof err);
	else send_frame(fd, END, 0, NULL, 0);
	_exit(0);
}

/* --- the parent --- */

/* The child is gone or stuck: say how. */
static enum vk_status died(struct vk_faiss_import *im, struct vk_error *err)
{
	int status = 0;
	if (im->child > 0) waitpid(im->child, &status, 0);
	im->child = -1;
	if (WIFSIGNALED(status))
		return vk_fail(err, VK_E_CORRUPT, "FAISS died of the file (%s): it is damaged, or no index", strsignal(WTERMSIG(status)));
	return vk_fail(err, VK_E_CORRUPT, "FAISS gave up on the file without a word: it is damaged, or no index");
}

static enum vk_status receive(struct vk_faiss_import *im, void *p, size_t n, struct vk_error *err)
{
	char *to = p;
	while (n) {
		struct pollfd f = {.fd = im->fd, .events = POLLIN};
		int ready = poll(&f, 1, SILENCE_MS);
		if (ready < 0 && errno == EINTR) continue;
		if (ready == 0) return vk_fail(err, VK_E_DEADLINE, "FAISS did not get on with the file for %d s", SILENCE_MS / 1000);
		ssize_t got = read(im->fd, to, n);
		if (got < 0 && errno == EINTR) continue;
		if (got <= 0) return died(im, err);
		to += got;
		n -= (size_t)got;
	}
	return VK_OK;
}

static enum vk_status receive_error(struct vk_faiss_import *im, struct vk_error *err)
{
	struct vk_error said;
	enum vk_status st = receive(im, &said, sizeof said, err);
	if (st) return st;
	if (err) *err = said;
	return said.st;
}

static enum vk_status receive_head(struct vk_faiss_import *im, struct vk_faiss_import_head *head, struct vk_error *err)
{
	struct frame f;
	enum vk_status st = receive(im, &f, sizeof f, err);
	if (st) return st;
	if (f.kind != HEAD) return receive_error(im, err);
	st = receive(im, head, sizeof *head, err);
	if (st) return st;
	im->dims = head->dims;
	im->rows = head->rows;
	uint32_t max = frame_rows(im->dims);
	im->id = malloc(max * sizeof *im->id);
	im->row = malloc((size_t)max * im->dims * sizeof *im->row);
	return im->id && im->row ? VK_OK : vk_fail(err, VK_E_NOMEM, "no memory");
}

static enum vk_status begin(struct vk_faiss_import *im, const char *path, struct vk_error *err)
{
	struct stat s;
	char magic[2];
	int pipes[2];
	const struct vk_faiss_face *face = vk_faiss_face(err);
	if (!face) return VK_E_UNAVAILABLE;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &s) != 0 || !S_ISREG(s.st_mode) || read(fd, magic, 2) != 2) {
		enum vk_status st = fd < 0 && errno == ENOENT ? VK_E_NOT_FOUND : VK_E_INVALID;
		vk_fail(err, st, "%s: %s", path, fd < 0 ? strerror(errno) : "no FAISS file");
		if (fd >= 0) close(fd);
		return st;
	}
	close(fd);
	if (pipe2(pipes, O_CLOEXEC) != 0) return vk_fail(err, VK_E_IO, "no pipe: %s", strerror(errno));
	im->child = fork();
	if (im->child == 0) {
		close(pipes[0]);
		child(face, path, magic[0] == 'I' && magic[1] == 'B', (uint64_t)s.st_size, pipes[1]);
	}
	close(pipes[1]);
	im->fd = pipes[0];
	return im->child > 0 ? VK_OK : vk_fail(err, VK_E_IO, "no process to read in: %s", strerror(errno));
}

enum vk_status vk_faiss_import_open(const char *path, struct vk_faiss_import **out, struct vk_faiss_import_head *head,
				    struct vk_error *err)
{
	*out = NULL;
	struct vk_faiss_import *im = calloc(1, sizeof *im);
	if (!im) return vk_fail(err, VK_E_NOMEM, "no memory");
	im->fd = im->child = -1;
	enum vk_status st = begin(im, path, err);
	if (!st) st = receive_head(im, head, err);
	if (st) vk_faiss_import_close(im);
	else *out = im;
	return st;
}

static enum vk_status next_frame(struct vk_faiss_import *im, struct vk_error *err)
{
	struct frame f;
	enum vk_status st = receive(im, &f, sizeof f, err);
	if (st) return st;
	if (f.kind == END) {
		im->ended = true;
		return VK_OK;
	}
	if (f.kind == ERROR) return receive_error(im, err);
	if (f.kind != ROWS || !f.n || f.n > frame_rows(im->dims) || f.n > im->rows - im->given)
		return vk_fail(err, VK_E_CORRUPT, "FAISS gives more rows than the file has");
	st = receive(im, im->id, f.n * sizeof *im->id, err);
	if (!st) st = receive(im, im->row, (size_t)f.n * im->dims * sizeof *im->row, err);
	im->left = st ? 0 : f.n;
	im->at = 0;
	im->given += f.n;
	return st;
}

enum vk_status vk_faiss_import_next(struct vk_faiss_import *im, uint32_t max, int64_t *id, float *rows, uint32_t *n,
				    struct vk_error *err)
{
	*n = 0;
	while (*n < max && !im->ended) {
		enum vk_status st = im->left ? VK_OK : next_frame(im, err);
		if (st) return st;
		uint32_t some = im->left < max - *n ? im->left : max - *n;
		memcpy(id + *n, im->id + im->at, some * sizeof *id);
		memcpy(rows + (size_t)*n * im->dims, im->row + (size_t)im->at * im->dims, (size_t)some * im->dims * sizeof *rows);
		im->at += some;
		im->left -= some;
		*n += some;
	}
	return VK_OK;
}

void vk_faiss_import_close(struct vk_faiss_import *im)
{
	if (!im) return;
	if (im->child > 0) {
		kill(im->child, SIGKILL);
		waitpid(im->child, NULL, 0);
	}
	if (im->fd >= 0) close(im->fd);
	free(im->id);
	free(im->row);
	free(im);
}
