/*
 * The format of a graph's file (index/graph_file.h): where everything lies, reading with a judgement of what is
 * believed, and the scrub, which judges all of it and needs no graph.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "index/graph_file.h"
#include "simd/crc32c.h"

const char vk_graph_file_magic[8] = "vkgraph";

static const char *const section_names[VK_SECTIONS] = {
    "mean",      "axes",   "entries",    "entry codes", "spare places", "labels",
    "dead bits", "chains", "in-degrees", "codes",       "edges",
};

/* --- layout --- */

/* Places of everything from the counts. */
void vk_graph_file_lay_out(struct vk_graph_file_head *h)
{
	const struct vk_graph_codec *codec = vk_graph_codec_of((enum vk_graph_profile)h->profile);
	const uint64_t stride = vk_graph_code_stride(codec, h->code_dims);
	const uint64_t bytes[VK_SECTIONS] = {
	    [VK_SECTION_MEAN] = h->dims * sizeof(float),
	    [VK_SECTION_AXES] = h->profile == VK_GRAPH_P8 ? (uint64_t)h->code_dims * h->dims * sizeof(float) : 0,
	    [VK_SECTION_ENTRY] = h->entry_n * sizeof(uint32_t),
	    [VK_SECTION_ENTRY_CODE] = h->entry_n * stride,
	    [VK_SECTION_SPARE] = h->spare_n * sizeof(uint32_t),
	    [VK_SECTION_LABEL] = (uint64_t)h->n * sizeof(uint32_t),
	    [VK_SECTION_DEAD] = ((uint64_t)h->n + 63) / 64 * sizeof(uint64_t),
	    [VK_SECTION_CHAIN] = (uint64_t)h->n * sizeof(uint32_t),
	    [VK_SECTION_IN] = (uint64_t)h->n * sizeof(uint16_t),
	    [VK_SECTION_CODE] = h->n * stride,
	    [VK_SECTION_EDGE] = (uint64_t)h->n * h->degree * sizeof(uint32_t),
	};
	h->sections = VK_SECTIONS;
	h->blocks = 0;
	for (int i = 0; i < VK_SECTIONS; i++) h->blocks += (uint32_t)vk_graph_file_blocks(bytes[i]);
	h->table = (struct vk_graph_place){VK_GRAPH_FILE_PAGE, (uint64_t)h->blocks * sizeof(uint32_t)};
	uint64_t at = vk_graph_file_up(h->table.offset + h->table.bytes, VK_GRAPH_FILE_PAGE);
	for (int i = 0; i < VK_SECTIONS; i++) {
		h->section[i] = (struct vk_graph_place){at, bytes[i]};
		at = vk_graph_file_up(at + bytes[i], VK_GRAPH_FILE_PAGE);
	}
	h->file_bytes = at;
}

uint32_t vk_graph_file_head_crc(enum vk_cpu_level level, const struct vk_graph_file_head *h)
{
	return vk_crc32c(level, 0, h, offsetof(struct vk_graph_file_head, crc));
}

enum vk_status vk_graph_file_corrupt(struct vk_error *err, const char *path, const char *what)
{
	return vk_fail(err, VK_E_CORRUPT, "graph file %s is damaged: %s", path, what);
}

enum vk_status vk_graph_file_failed(struct vk_error *err, const char *path)
{
	enum vk_status st = errno == ENOENT ? VK_E_NOT_FOUND
			    : errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? VK_E_NO_SPACE
			    : errno == ENOMEM ? VK_E_NOMEM
					      : VK_E_IO;
	return vk_fail(err, st, "%s: %s", path, strerror(errno));
}

/* --- reading and judging --- */

enum vk_status vk_graph_reader_at(struct vk_graph_reader *r, void *dst, size_t n, uint64_t at)
{
	for (size_t done = 0; done < n;) {
		ssize_t got = pread(r->fd, (char *)dst + done, n - done, (off_t)(at + done));
		if (got < 0 && errno == EINTR) continue;
		if (got < 0) return vk_graph_file_failed(r->err, r->path);
		if (!got) return vk_graph_file_corrupt(r->err, r->path, "it is too short");
		done += (size_t)got;
	}
	return VK_OK;
}

/* Counts that a graph can have; NULL: fine. */
static const char *counts_wrong(const struct vk_graph_file_head *h)
{
	if (!h->dims || h->dims > 65536 || !h->degree || !h->ef_build) return "its dimensions";
	if (h->degree % 16 || h->degree > VK_GRAPH_DEGREE_MAX || h->ef_build > VK_GRAPH_EF_MAX) return "its degree";
	if (h->metric != VK_METRIC_DOT && h->metric != VK_METRIC_COSINE && h->metric != VK_METRIC_L2) return "its metric";
	if (h->profile <= VK_GRAPH_AUTO || h->profile >= VK_GRAPH_PROFILES || h->profile_asked >= VK_GRAPH_PROFILES)
		return "its profile";
	if (h->profile == VK_GRAPH_P8 ? !h->code_dims || h->code_dims > h->dims : h->code_dims != h->dims) return "its codes";
	if (h->n > VK_GRAPH_NODES_MAX || h->built > h->n || h->entry_n > VK_GRAPH_ENTRIES_MAX || h->entry_n > h->n) return "its nodes";
	if (h->spare_n > h->n || h->dead_n > h->n || h->chained_n > h->n || h->unreached > h->n) return "its counts";
	if (!(h->alpha > 0 && h->alpha <= 4)) return "its alpha";
	return NULL;
}

static enum vk_status judge_head(struct vk_graph_reader *r)
{
	const struct vk_graph_file_head *h = &r->h;
	if (memcmp(h->magic, vk_graph_file_magic, sizeof h->magic)) return vk_fail(r->err, VK_E_CORRUPT, "%s is no graph file", r->path);
	if (h->endian != VK_GRAPH_FILE_ENDIAN)
		return vk_fail(r->err, VK_E_CORRUPT, "graph file %s is of a machine of another kind", r->path);
	if (h->version != VK_GRAPH_FILE_VERSION)
		return vk_fail(r->err, VK_E_CORRUPT, "graph file %s has version %u, this program knows %u", r->path, h->version,
			       VK_GRAPH_FILE_VERSION);
	if (h->crc != vk_graph_file_head_crc(r->level, h)) return vk_graph_file_corrupt(r->err, r->path, "its head's checksum");
	const char *wrong = counts_wrong(h);
	if (wrong) return vk_graph_file_corrupt(r->err, r->path, wrong);
	struct vk_graph_file_head want = *h;
	vk_graph_file_lay_out(&want);
	if (memcmp(&want, h, sizeof want)) return vk_graph_file_corrupt(r->err, r->path, "the places of its sections");
	return VK_OK;
}

static enum vk_status read_head(struct vk_graph_reader *r)
{
	struct stat st;
	if (fstat(r->fd, &st)) return vk_graph_file_failed(r->err, r->path);
	enum vk_status s = vk_graph_reader_at(r, &r->h, sizeof r->h, 0);
	if (!s) s = judge_head(r);
	if (!s && (uint64_t)st.st_size != r->h.file_bytes) s = vk_graph_file_corrupt(r->err, r->path, "its size");
	if (s) return s;
	r->crc = malloc((size_t)r->h.table.bytes + 1);
	if (!r->crc) return vk_fail(r->err, VK_E_NOMEM, "no memory for a graph's checksums");
	s = vk_graph_reader_at(r, r->crc, (size_t)r->h.table.bytes, r->h.table.offset);
	if (!s && vk_crc32c(r->level, 0, r->crc, (size_t)r->h.table.bytes) != r->h.table_crc)
		s = vk_graph_file_corrupt(r->err, r->path, "its table of checksums");
	return s;
}

enum vk_status vk_graph_reader_open(struct vk_graph_reader *r, const char *path, enum vk_cpu_level level, struct vk_error *err)
{
	*r = (struct vk_graph_reader){.path = path, .level = level, .err = err};
	r->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (r->fd < 0) return vk_graph_file_failed(err, path);
	return read_head(r);
}

void vk_graph_reader_close(struct vk_graph_reader *r)
{
	if (r->fd >= 0) close(r->fd);
	free(r->crc);
}

/* Number in the table of a section's first block. */
static uint32_t first_block(const struct vk_graph_file_head *h, int section)
{
	uint64_t n = 0;
	for (int i = 0; i < section; i++) n += vk_graph_file_blocks(h->section[i].bytes);
	return (uint32_t)n;
}

static enum vk_status judge_bytes(struct vk_graph_reader *r, int section, uint32_t block, const void *p, size_t n)
{
	if (vk_crc32c(r->level, 0, p, n) == r->crc[first_block(&r->h, section) + block]) return VK_OK;
	return vk_fail(r->err, VK_E_CORRUPT, "graph file %s is damaged: its %s, in the MiB from byte %llu", r->path,
		       section_names[section], (unsigned long long)(r->h.section[section].offset + (uint64_t)block * VK_GRAPH_FILE_BLOCK));
}

enum vk_status vk_graph_reader_judge(struct vk_graph_reader *r, int section, const uint8_t *p)
{
	enum vk_status st = VK_OK;
	uint64_t bytes = r->h.section[section].bytes;
	for (uint64_t at = 0; !st && at < bytes; at += VK_GRAPH_FILE_BLOCK) {
		const size_t n = bytes - at < VK_GRAPH_FILE_BLOCK ? (size_t)(bytes - at) : VK_GRAPH_FILE_BLOCK;
		st = judge_bytes(r, section, (uint32_t)(at / VK_GRAPH_FILE_BLOCK), p + at, n);
	}
	return st;
}

/* --- scrubbing --- */

static enum vk_status scrub_block(struct vk_graph_reader *r, uint8_t *buf, uint64_t number, size_t *bytes)
{
	int s = 0;
	while (number >= vk_graph_file_blocks(r->h.section[s].bytes)) number -= vk_graph_file_blocks(r->h.section[s++].bytes);
	uint64_t at = number * VK_GRAPH_FILE_BLOCK, left = r->h.section[s].bytes - at;
	*bytes = left < VK_GRAPH_FILE_BLOCK ? (size_t)left : VK_GRAPH_FILE_BLOCK;
	enum vk_status st = vk_graph_reader_at(r, buf, *bytes, r->h.section[s].offset + at);
	return st ? st : judge_bytes(r, s, (uint32_t)number, buf, *bytes);
}

enum vk_status vk_graph_scrub_step(const char *path, size_t budget, uint64_t *at, struct vk_error *err)
{
	struct vk_graph_reader r;
	enum vk_status st = vk_graph_reader_open(&r, path, vk_cpu_best(), err);
	uint8_t *buf = malloc(VK_GRAPH_FILE_BLOCK);
	if (!st && !buf) st = vk_fail(err, VK_E_NOMEM, "no memory to check a graph");
	/* At least one block a step, so that steps come to an end whatever the budget. */
	for (size_t done = 0, n = 0; !st && *at < r.h.blocks; done += n, ++*at) {
		if (done && done + VK_GRAPH_FILE_BLOCK > budget) {
			st = VK_E_BUSY;
			break;
		}
		st = scrub_block(&r, buf, *at, &n);
		if (st) break;
	}
	free(buf);
	vk_graph_reader_close(&r);
	return st;
}
