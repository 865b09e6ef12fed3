/*
 * A graph into its file (index/graph_file.h): under another name, sections first, head and table when their sums are known, then
 * synced and renamed. Whoever looks meanwhile sees the old file or the new one; what fails before the
 * rename leaves the old one alone.
 *
 * Threads: the caller has the graph to itself as far as growing goes; searches go on.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "index/graph_file.h"
#include "simd/crc32c.h"
#include "store/file.h"

#define PATH_MAX_BYTES 4300

static const void *section_of(const struct vk_graph *g, enum vk_graph_section s)
{
	const void *p[VK_SECTIONS] = {g->mean,	g->axes,    g->entry,	g->entry_code, g->spare, g->label.p,
				   g->dead.p, g->chain.p, g->in.p, g->code.p,     g->edge.p};
	return p[s];
}

static struct vk_graph_file_head head_of(const struct vk_graph *g, uint64_t sequence, const uint8_t tag[32])
{
	struct vk_graph_file_head h;
	memset(&h, 0, sizeof h); /* the holes, too: all of it is under the CRC */
	memcpy(h.magic, vk_graph_file_magic, sizeof h.magic);
	h.version = VK_GRAPH_FILE_VERSION, h.endian = VK_GRAPH_FILE_ENDIAN, h.sequence = sequence;
	memcpy(h.tag, tag, sizeof h.tag);
	h.dims = g->conf.dims, h.metric = g->conf.metric, h.degree = g->conf.degree, h.ef_build = g->conf.ef_build;
	h.alpha = g->conf.alpha, h.profile_asked = g->conf.profile, h.seed = g->conf.seed;
	h.profile = g->axes ? VK_GRAPH_P8 : g->codec->profile, h.code_dims = g->code_dims;
	h.n = atomic_load(&g->n), h.built = g->built;
	h.entry_n = g->entry_n, h.spare_n = g->spare_n, h.dead_n = g->dead_n;
	h.chained_n = g->chained_n, h.unreached = g->unreached, h.prefetch = atomic_load(&g->prefetch);
	h.error_sum = g->error_sum, h.error_built = g->error_built, h.error_n = g->error_n;
	vk_graph_file_lay_out(&h);
	return h;
}

struct writer {
	int fd;
	const char *path;
	enum vk_cpu_level level;
	uint32_t *crc; /* the table, filled as blocks go by */
	struct vk_error *err;
};

static enum vk_status put_section(struct writer *w, const struct vk_graph_place *p, const uint8_t *src)
{
	static const uint8_t zeros[VK_GRAPH_FILE_PAGE];
	const size_t fill = (size_t)(vk_graph_file_up(p->bytes, VK_GRAPH_FILE_PAGE) - p->bytes);
	enum vk_status st = VK_OK;
	for (uint64_t at = 0; !st && at < p->bytes; at += VK_GRAPH_FILE_BLOCK) {
		size_t n = p->bytes - at < VK_GRAPH_FILE_BLOCK ? (size_t)(p->bytes - at) : VK_GRAPH_FILE_BLOCK;
		*w->crc++ = vk_crc32c(w->level, 0, src + at, n);
		st = vk_fd_write(w->fd, src + at, n, w->path, w->err);
	}
	if (!st) st = vk_fd_write(w->fd, zeros, fill, w->path, w->err);
	return st;
}

/* Sections first; head and table when their sums are known. */
static enum vk_status put_all(struct writer *w, const struct vk_graph *g, struct vk_graph_file_head *h)
{
	enum vk_status st = VK_OK;
	uint32_t *table = calloc((size_t)h->blocks + 1, sizeof *table);
	if (!table) return vk_fail(w->err, VK_E_NOMEM, "no memory to save a graph");
	w->crc = table;
	if (lseek(w->fd, (off_t)h->section[0].offset, SEEK_SET) < 0) st = vk_graph_file_failed(w->err, w->path);
	for (int i = 0; !st && i < VK_SECTIONS; i++) st = put_section(w, &h->section[i], section_of(g, (enum vk_graph_section)i));
	h->table_crc = vk_crc32c(w->level, 0, table, (size_t)h->table.bytes);
	h->crc = vk_graph_file_head_crc(w->level, h);
	if (!st && lseek(w->fd, (off_t)h->table.offset, SEEK_SET) < 0) st = vk_graph_file_failed(w->err, w->path);
	if (!st) st = vk_fd_write(w->fd, table, (size_t)h->table.bytes, w->path, w->err);
	if (!st && lseek(w->fd, 0, SEEK_SET) < 0) st = vk_graph_file_failed(w->err, w->path);
	if (!st) st = vk_fd_write(w->fd, h, sizeof *h, w->path, w->err);
	/* An empty graph's file must be as long as its head says, too. */
	if (!st && ftruncate(w->fd, (off_t)h->file_bytes)) st = vk_graph_file_failed(w->err, w->path);
	if (!st && fsync(w->fd)) st = vk_graph_file_failed(w->err, w->path);
	free(table);
	return st;
}

enum vk_status vk_graph_save(struct vk_graph *g, const char *path, uint64_t sequence, const uint8_t tag[32], struct vk_error *err)
{
	char tmp[PATH_MAX_BYTES];
	if (strlen(path) + sizeof ".new" > sizeof tmp) return vk_fail(err, VK_E_INVALID, "the path of a graph file is too long");
	strcpy(tmp, path);
	strcat(tmp, ".new");
	struct writer w = {.path = tmp, .level = g->conf.level, .err = err};
	w.fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (w.fd < 0) return vk_graph_file_failed(err, tmp);
	struct vk_graph_file_head h = head_of(g, sequence, tag);
	enum vk_status st = put_all(&w, g, &h);
	if (!st && atomic_load(&g->lost)) st = vk_fail(err, VK_E_CORRUPT, "pages of the graph could not be read from its file");
	if (close(w.fd) && !st) st = vk_graph_file_failed(err, tmp);
	if (!st && rename(tmp, path)) st = vk_graph_file_failed(err, path);
	if (st) {
		unlink(tmp);
		return st;
	}
	return vk_dir_sync_of(path, err);
}
