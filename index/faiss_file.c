/*
 * A saved index. One file, written under another name and renamed:
 *
 *   0            FAISS's own file (index_io.h): other programs read it and stop where it ends
 *   a            labels, u32 a row                      a = faiss_bytes rounded up to 64
 *   a + 4 rows   foot, 256 bytes, at the end of the file:
 *       0  magic "VKFAISS\n"      8  u32 version      12  u32 metric (enum vk_metric)
 *      16  u64 sequence          24  u64 rows         32  u64 faiss_bytes
 *      40  u32 CRC32C of FAISS's part                 44  u32 CRC32C of the labels
 *      48  u32 dims              52  u32 flags        56  tag, 32 bytes
 *      88  factory, 128 bytes, NUL-padded            216  zeros
 *     252  u32 CRC32C of the foot's first 252 bytes
 * Little-endian. Flags: bit 0, half built: rows are still to be added.
 *
 * Roads not taken: a sidecar for the labels (two files cannot appear at once, and backups link one file a generation); a head in
 * front (then FAISS elsewhere could not open the file).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "index/faiss_internal.h"
#include "simd/crc32c.h"
#include "store/file.h"

#define MAGIC "VKFAISS\n"
#define VERSION 1u
#define FOOT 256u
#define ALIGN 64u
#define PARTIAL 1u /* of the flags */
#define BUFFER ((size_t)1 << 20)

struct foot {
	enum vk_metric metric;
	uint64_t sequence, rows, faiss_bytes;
	uint32_t faiss_crc, label_crc, dims;
	bool partial;
	uint8_t tag[32];
	char factory[VK_FAISS_FACTORY_MAX];
};

static uint32_t crc(uint32_t from, const void *p, size_t n)
{
	return vk_crc32c(vk_cpu_best(), from, p, n);
}

static uint64_t labels_at(uint64_t faiss_bytes)
{
	return (faiss_bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static void encode(const struct foot *f, uint8_t b[FOOT])
{
	memset(b, 0, FOOT);
	memcpy(b, MAGIC, 8);
	vk_put_u32le(b + 8, VERSION);
	vk_put_u32le(b + 12, (uint32_t)f->metric);
	vk_put_u64le(b + 16, f->sequence);
	vk_put_u64le(b + 24, f->rows);
	vk_put_u64le(b + 32, f->faiss_bytes);
	vk_put_u32le(b + 40, f->faiss_crc);
	vk_put_u32le(b + 44, f->label_crc);
	vk_put_u32le(b + 48, f->dims);
	vk_put_u32le(b + 52, f->partial ? PARTIAL : 0);
	memcpy(b + 56, f->tag, 32);
	memcpy(b + 88, f->factory, sizeof f->factory);
	vk_put_u32le(b + 252, crc(0, b, 252));
}

static enum vk_status decode(const uint8_t b[FOOT], uint64_t file_bytes, struct foot *f, const char *path, struct vk_error *err)
{
	if (memcmp(b, MAGIC, 8)) return vk_fail(err, VK_E_CORRUPT, "%s is no saved FAISS index, or its end is missing", path);
	if (vk_get_u32le(b + 8) != VERSION)
		return vk_fail(err, VK_E_CORRUPT, "%s has version %u, this program reads %u", path, vk_get_u32le(b + 8), VERSION);
	if (vk_get_u32le(b + 252) != crc(0, b, 252)) return vk_fail(err, VK_E_CORRUPT, "%s: the foot is damaged", path);
	*f = (struct foot){.metric = (enum vk_metric)vk_get_u32le(b + 12),
			   .sequence = vk_get_u64le(b + 16),
			   .rows = vk_get_u64le(b + 24),
			   .faiss_bytes = vk_get_u64le(b + 32),
			   .faiss_crc = vk_get_u32le(b + 40),
			   .label_crc = vk_get_u32le(b + 44),
			   .dims = vk_get_u32le(b + 48),
			   .partial = vk_get_u32le(b + 52) & PARTIAL};
	memcpy(f->tag, b + 56, 32);
	memcpy(f->factory, b + 88, sizeof f->factory);
	f->factory[sizeof f->factory - 1] = 0;
	if (f->rows > VK_FAISS_ROWS_MAX || f->faiss_bytes > file_bytes ||
	    labels_at(f->faiss_bytes) + f->rows * 4 + FOOT != file_bytes)
		return vk_fail(err, VK_E_CORRUPT, "%s: its parts do not add up to its size", path);
	return VK_OK;
}

static enum vk_status fail_errno(struct vk_error *err, const char *path)
{
	enum vk_status st = errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? VK_E_NO_SPACE : VK_E_IO;
	if (errno == ENOENT) st = VK_E_NOT_FOUND;
	return vk_fail(err, st, "%s: %s", path, strerror(errno));
}

/* Read, not mapped: a disk that fails is an error then, not a fault. */
static enum vk_status read_at(int fd, uint64_t at, void *dst, size_t n, const char *path, struct vk_error *err)
{
	char *p = dst;
	while (n) {
		ssize_t got = pread(fd, p, n, (off_t)at);
		if (got < 0 && errno == EINTR) continue;
		if (got < 0) return fail_errno(err, path);
		if (got == 0) return vk_fail(err, VK_E_CORRUPT, "%s became shorter", path);
		p += got;
		at += (uint64_t)got;
		n -= (size_t)got;
	}
	return VK_OK;
}

/* --- writing --- */

struct out {
	int fd;
	const char *path;
	struct vk_error *err;
	uint8_t *buffer; /* BUFFER; lists of IVF come in small pieces */
	size_t n;
	uint64_t bytes;
	uint32_t crc;
};

static enum vk_status flush(struct out *o)
{
	size_t n = o->n;
	o->n = 0;
	return vk_fd_write(o->fd, o->buffer, n, o->path, o->err);
}

static enum vk_status put(void *arg, const void *p, size_t n)
{
	struct out *o = arg;
	enum vk_status st = VK_OK;
	o->crc = crc(o->crc, p, n);
	o->bytes += n;
	if (o->n + n > BUFFER) st = flush(o);
	if (!st && n > BUFFER) return vk_fd_write(o->fd, p, n, o->path, o->err);
	if (st || !n) return st;
	memcpy(o->buffer + o->n, p, n);
	o->n += n;
	return VK_OK;
}

static enum vk_status put_section(struct out *o, const struct vk_faiss *f, struct foot *foot)
{
	static const uint8_t zeros[ALIGN];
	uint8_t b[FOOT];
	foot->faiss_bytes = o->bytes;
	foot->faiss_crc = o->crc;
	foot->label_crc = crc(0, f->label, f->rows * sizeof *f->label);
	encode(foot, b);
	enum vk_status st = put(o, zeros, labels_at(foot->faiss_bytes) - foot->faiss_bytes);
	if (!st) st = put(o, f->label, f->rows * sizeof *f->label);
	if (!st) st = put(o, b, sizeof b);
	return st;
}

/* Lists that are mapped are FAISS's part as it was written: copied from the file that they are in. */
static enum vk_status copy_faiss_part(const struct vk_faiss *f, struct out *o)
{
	uint8_t *b = malloc(BUFFER);
	enum vk_status st = b ? VK_OK : vk_fail(o->err, VK_E_NOMEM, "no memory");
	for (uint64_t at = 0, n; !st && at < f->faiss_bytes; at += n) {
		n = f->faiss_bytes - at < BUFFER ? f->faiss_bytes - at : BUFFER;
		st = read_at(f->file, at, b, n, "the index's file", o->err);
		if (!st) st = put(o, b, n);
	}
	free(b);
	return st;
}

/* foot NULL: FAISS's part alone. */
static enum vk_status write_file(const struct vk_faiss *f, const char *path, struct foot *foot, struct vk_error *err)
{
	char tmp[PATH_MAX];
	if ((size_t)snprintf(tmp, sizeof tmp, "%s.new", path) >= sizeof tmp)
		return vk_fail(err, VK_E_INVALID, "the path is too long");
	struct out o = {.path = tmp, .err = err, .buffer = malloc(BUFFER)};
	if (!o.buffer) return vk_fail(err, VK_E_NOMEM, "no memory");
	enum vk_status st = VK_OK;
	o.fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (o.fd < 0) st = fail_errno(err, tmp);
	if (!st) st = f->file >= 0 ? copy_faiss_part(f, &o) : f->face->write(f->ix, put, &o, err);
	if (!st && foot) st = put_section(&o, f, foot);
	if (!st) st = flush(&o);
	if (!st && fsync(o.fd) != 0) st = fail_errno(err, tmp);
	if (o.fd >= 0 && close(o.fd) != 0 && !st) st = fail_errno(err, tmp);
	if (!st && rename(tmp, path) != 0) st = fail_errno(err, path);
	if (!st) st = vk_dir_sync_of(path, err);
	else if (o.fd >= 0) unlink(tmp);
	free(o.buffer);
	return st;
}

enum vk_status vk_faiss_save(const struct vk_faiss *f, const char *path, uint64_t sequence, const uint8_t tag[32],
			     struct vk_error *err)
{
	if (!f->trained) return vk_fail(err, VK_E_INVALID, "FAISS \"%s\" is not trained: nothing to save", f->plan.factory);
	struct foot foot = {.metric = f->metric, .sequence = sequence, .rows = f->rows, .dims = f->plan.dims, .partial = f->partial};
	memcpy(foot.tag, tag, 32);
	memcpy(foot.factory, f->plan.factory, sizeof foot.factory);
	return write_file(f, path, &foot, err);
}

enum vk_status vk_faiss_export(const struct vk_faiss *f, const char *path, struct vk_error *err)
{
	return write_file(f, path, NULL, err);
}

/* --- opening --- */

static enum vk_status check_faiss_part(int fd, const struct foot *foot, const char *path, struct vk_error *err)
{
	uint8_t *b = malloc(BUFFER);
	if (!b) return vk_fail(err, VK_E_NOMEM, "no memory");
	uint32_t sum = 0;
	enum vk_status st = VK_OK;
	for (uint64_t at = 0, n; !st && at < foot->faiss_bytes; at += n) {
		n = foot->faiss_bytes - at < BUFFER ? foot->faiss_bytes - at : BUFFER;
		st = read_at(fd, at, b, n, path, err);
		if (!st) sum = crc(sum, b, n);
	}
	free(b);
	if (!st && sum != foot->faiss_crc) st = vk_fail(err, VK_E_CORRUPT, "%s: FAISS's part is damaged", path);
	return st;
}

static enum vk_status read_labels(int fd, const struct foot *foot, uint32_t **label, const char *path, struct vk_error *err)
{
	size_t n = foot->rows * sizeof **label;
	*label = malloc(n ? n : 1);
	if (!*label) return vk_fail(err, VK_E_NOMEM, "no memory");
	enum vk_status st = read_at(fd, labels_at(foot->faiss_bytes), *label, n, path, err);
	if (!st && crc(0, *label, n) != foot->label_crc) st = vk_fail(err, VK_E_CORRUPT, "%s: the labels are damaged", path);
	for (uint64_t i = 0; !st && i < foot->rows; i++) (*label)[i] = vk_get_u32le((const uint8_t *)&(*label)[i]);
	return st;
}

/* Every checksum, before FAISS may look. */
static enum vk_status check_file(const char *path, struct foot *foot, uint32_t **label, struct vk_error *err)
{
	struct stat s;
	uint8_t b[FOOT];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return fail_errno(err, path);
	enum vk_status st = fstat(fd, &s) == 0 ? VK_OK : fail_errno(err, path);
	if (!st && s.st_size < (off_t)FOOT) st = vk_fail(err, VK_E_CORRUPT, "%s is too short", path);
	if (!st) st = read_at(fd, (uint64_t)s.st_size - FOOT, b, FOOT, path, err);
	if (!st) st = decode(b, (uint64_t)s.st_size, foot, path, err);
	if (!st) st = check_faiss_part(fd, foot, path, err);
	if (!st) st = read_labels(fd, foot, label, path, err);
	close(fd);
	return st;
}

/* What FAISS made of its part must be what the foot speaks of. */
static enum vk_status agree(const struct vk_faiss *f, const struct vk_faiss_info *i, const char *path, struct vk_error *err)
{
	uint32_t dims = f->plan.binary ? f->plan.code_dims : f->plan.dims;
	bool metric = f->plan.binary || i->inner_product == (f->metric != VK_METRIC_L2);
	if (i->rows == f->rows && i->dims == dims && i->trained && metric) return VK_OK;
	return vk_fail(err, VK_E_CORRUPT, "%s: FAISS finds another index in it than was saved", path);
}

enum vk_status vk_faiss_open(const char *path, bool map, struct vk_faiss **out, uint64_t *sequence, uint8_t tag[32],
			     struct vk_error *err)
{
	struct foot foot;
	struct vk_faiss_info info;
	*out = NULL;
	const struct vk_faiss_face *face = vk_faiss_face(err);
	if (!face) return VK_E_UNAVAILABLE;
	struct vk_faiss *f = calloc(1, sizeof *f);
	if (!f) return vk_fail(err, VK_E_NOMEM, "no memory");
	f->face = face;
	f->file = -1;
	enum vk_status st = check_file(path, &foot, &f->label, err);
	if (!st && vk_faiss_plan(foot.factory, foot.dims, &f->plan, err))
		st = vk_fail(err, VK_E_CORRUPT, "%s: \"%s\" is not a factory string of this program", path, foot.factory);
	if (!st) st = face->read(path, f->plan.binary, map && !foot.partial ? VK_FAISS_MAP : 0, &f->ix, err);
	if (!st) st = face->describe(f->ix, &info, err);
	if (st) goto out;
	f->metric = foot.metric;
	f->rows = f->cap = f->rows_expected = foot.rows;
	f->trained = info.trained;
	f->filters = info.filters;
	f->faiss_bytes = foot.faiss_bytes;
	f->partial = foot.partial;
	st = agree(f, &info, path, err);
	if (!st && info.mapped && (f->file = open(path, O_RDONLY | O_CLOEXEC)) < 0) st = fail_errno(err, path);
	*sequence = foot.sequence;
	memcpy(tag, foot.tag, 32);
out:
	if (st) vk_faiss_free(f);
	else *out = f;
	return st;
}
