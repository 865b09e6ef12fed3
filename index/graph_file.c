/*
 * A graph's file. One owner of its bytes: this file.
 *
 *   head        one page: struct head below, its CRC32C last
 *   table       CRC32C of each 1 MiB block of each section, in order; its own CRC is in the head
 *   sections    in the order of the enum, each from a page's beginning on, zeros up to the next page
 *
 * Numbers are the machine's own (little-endian where it runs; the head says so), since code and edges are mapped, not read. Sizes
 * and places of sections follow from the head's counts; they are written down for whoever looks at a file, and must agree.
 *
 * Trust. Head, table and the small sections (mean, axes, entries, labels, dead bits), which are read at open anyway, are checked then.
 * Codes, edges and chains are mapped unseen: a search bounds-checks every edge and chain, so damage makes wrong
 * neighbours at worst, never a wrong address, until the scrub finds it. Files never change under their name: they are
 * made under another and renamed, so a mapping cannot lose its pages.
 *
 * Promotion. Read-only file pages get no huge pages from the kernel, and walks touch everything. Piece by piece from the end, an
 * anonymous copy is moved over the mapping by mremap: one system call under the kernel's own lock, so a reader sees either.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "index/graph_internal.h"
#include "simd/crc32c.h"
#include "store/file.h"
#include "store/patch.h"

#define VERSION 1u
#define ENDIAN 0x01020304u
#define PAGE ((size_t)4096)
#define BLOCK ((size_t)1 << 20)
#define HUGE ((size_t)2 << 20)
#define PIECE ((size_t)64 << 20) /* of a promotion: what is held twice */
#define PATH_MAX_BYTES 4300
#define CAPACITY_DEFAULT (1u << 26)

static const char magic[8] = "vkgraph";

enum section { MEAN, AXES, ENTRY, ENTRY_CODE, SPARE, LABEL, DEAD, CHECKED, CHAIN = CHECKED, IN, CODE, EDGE, SECTIONS };
static const char *const section_names[SECTIONS] = {"mean",   "axes", "entries", "entry codes", "spare places", "labels",
						    "dead bits", "chains", "in-degrees", "codes", "edges"};

struct place {
	uint64_t offset, bytes;
};

struct head {
	char magic[8];
	uint32_t version, endian;
	uint64_t file_bytes;
	uint64_t sequence;
	uint8_t tag[32];
	/* conf */
	uint32_t dims, metric, degree, ef_build;
	float alpha;
	uint32_t profile_asked;
	uint64_t seed;
	/* what it is */
	uint32_t profile, code_dims;
	uint32_t n, built, entry_n, spare_n, dead_n, chained_n, unreached, prefetch;
	double error_sum, error_built;
	uint64_t error_n;
	/* where it is */
	uint32_t sections, blocks;
	struct place table, section[SECTIONS];
	uint32_t table_crc;
	uint32_t crc; /* of all before it */
};
_Static_assert(offsetof(struct head, crc) + 4 == sizeof(struct head), "the CRC ends the head");
_Static_assert(sizeof(struct head) <= PAGE, "a head is a page");

static uint64_t up(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

static uint64_t blocks_of(uint64_t bytes) { return (bytes + BLOCK - 1) / BLOCK; }

/* --- layout --- */

/* Places of everything from the counts. */
static void lay_out(struct head *h)
{
	const struct vk_graph_codec *codec = vk_graph_codec_of((enum vk_graph_profile)h->profile);
	const uint64_t stride = vk_graph_code_stride(codec, h->code_dims);
	const uint64_t bytes[SECTIONS] = {
	    [MEAN] = h->dims * sizeof(float),
	    [AXES] = h->profile == VK_GRAPH_P8 ? (uint64_t)h->code_dims * h->dims * sizeof(float) : 0,
	    [ENTRY] = h->entry_n * sizeof(uint32_t),
	    [ENTRY_CODE] = h->entry_n * stride,
	    [SPARE] = h->spare_n * sizeof(uint32_t),
	    [LABEL] = (uint64_t)h->n * sizeof(uint32_t),
	    [DEAD] = ((uint64_t)h->n + 63) / 64 * sizeof(uint64_t),
	    [CHAIN] = (uint64_t)h->n * sizeof(uint32_t),
	    [IN] = (uint64_t)h->n * sizeof(uint16_t),
	    [CODE] = h->n * stride,
	    [EDGE] = (uint64_t)h->n * h->degree * sizeof(uint32_t),
	};
	h->sections = SECTIONS;
	h->blocks = 0;
	for (int i = 0; i < SECTIONS; i++) h->blocks += (uint32_t)blocks_of(bytes[i]);
	h->table = (struct place){PAGE, (uint64_t)h->blocks * sizeof(uint32_t)};
	uint64_t at = up(h->table.offset + h->table.bytes, PAGE);
	for (int i = 0; i < SECTIONS; i++) {
		h->section[i] = (struct place){at, bytes[i]};
		at = up(at + bytes[i], PAGE);
	}
	h->file_bytes = at;
}

static uint32_t head_crc(enum vk_cpu_level level, const struct head *h)
{
	return vk_crc32c(level, 0, h, offsetof(struct head, crc));
}

static enum vk_status corrupt(struct vk_error *err, const char *path, const char *what)
{
	return vk_fail(err, VK_E_CORRUPT, "graph file %s is damaged: %s", path, what);
}

static enum vk_status failed(struct vk_error *err, const char *path)
{
	enum vk_status st = errno == ENOENT ? VK_E_NOT_FOUND
			    : errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? VK_E_NO_SPACE
			    : errno == ENOMEM ? VK_E_NOMEM
					      : VK_E_IO;
	return vk_fail(err, st, "%s: %s", path, strerror(errno));
}

/* --- saving --- */

static const void *section_of(const struct vk_graph *g, enum section s)
{
	const void *p[SECTIONS] = {g->mean,	g->axes,    g->entry,	g->entry_code, g->spare, g->label.p,
				   g->dead.p, g->chain.p, g->in.p, g->code.p,     g->edge.p};
	return p[s];
}

static struct head head_of(const struct vk_graph *g, uint64_t sequence, const uint8_t tag[32])
{
	struct head h;
	memset(&h, 0, sizeof h); /* the holes, too: all of it is under the CRC */
	memcpy(h.magic, magic, sizeof h.magic);
	h.version = VERSION, h.endian = ENDIAN, h.sequence = sequence;
	memcpy(h.tag, tag, sizeof h.tag);
	h.dims = g->conf.dims, h.metric = g->conf.metric, h.degree = g->conf.degree, h.ef_build = g->conf.ef_build;
	h.alpha = g->conf.alpha, h.profile_asked = g->conf.profile, h.seed = g->conf.seed;
	h.profile = g->axes ? VK_GRAPH_P8 : g->codec->profile, h.code_dims = g->code_dims;
	h.n = atomic_load(&g->n), h.built = g->built;
	h.entry_n = g->entry_n, h.spare_n = g->spare_n, h.dead_n = g->dead_n;
	h.chained_n = g->chained_n, h.unreached = g->unreached, h.prefetch = atomic_load(&g->prefetch);
	h.error_sum = g->error_sum, h.error_built = g->error_built, h.error_n = g->error_n;
	lay_out(&h);
	return h;
}

struct writer {
	int fd;
	const char *path;
	enum vk_cpu_level level;
	uint32_t *crc; /* the table, filled as blocks go by */
	struct vk_error *err;
};

static enum vk_status put_section(struct writer *w, const struct place *p, const uint8_t *src)
{
	static const uint8_t zeros[PAGE];
	enum vk_status st = VK_OK;
	for (uint64_t at = 0; !st && at < p->bytes; at += BLOCK) {
		size_t n = p->bytes - at < BLOCK ? (size_t)(p->bytes - at) : BLOCK;
		*w->crc++ = vk_crc32c(w->level, 0, src + at, n);
		st = vk_fd_write(w->fd, src + at, n, w->path, w->err);
	}
	if (!st) st = vk_fd_write(w->fd, zeros, (size_t)(up(p->bytes, PAGE) - p->bytes), w->path, w->err);
	return st;
}

/* Sections first; head and table when their sums are known. */
static enum vk_status put_all(struct writer *w, const struct vk_graph *g, struct head *h)
{
	enum vk_status st = VK_OK;
	uint32_t *table = calloc((size_t)h->blocks + 1, sizeof *table);
	if (!table) return vk_fail(w->err, VK_E_NOMEM, "no memory to save a graph");
	w->crc = table;
	if (lseek(w->fd, (off_t)h->section[0].offset, SEEK_SET) < 0) st = failed(w->err, w->path);
	for (int i = 0; !st && i < SECTIONS; i++) st = put_section(w, &h->section[i], section_of(g, (enum section)i));
	h->table_crc = vk_crc32c(w->level, 0, table, (size_t)h->table.bytes);
	h->crc = head_crc(w->level, h);
	if (!st && lseek(w->fd, (off_t)h->table.offset, SEEK_SET) < 0) st = failed(w->err, w->path);
	if (!st) st = vk_fd_write(w->fd, table, (size_t)h->table.bytes, w->path, w->err);
	if (!st && lseek(w->fd, 0, SEEK_SET) < 0) st = failed(w->err, w->path);
	if (!st) st = vk_fd_write(w->fd, h, sizeof *h, w->path, w->err);
	/* An empty graph's file must be as long as its head says, too. */
	if (!st && ftruncate(w->fd, (off_t)h->file_bytes)) st = failed(w->err, w->path);
	if (!st && fsync(w->fd)) st = failed(w->err, w->path);
	free(table);
	return st;
}

static enum vk_status sync_directory_of(const char *path, struct vk_error *err)
{
	char dir[PATH_MAX_BYTES];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;
	if (n >= sizeof dir) return vk_fail(err, VK_E_INVALID, "the path of a graph file is too long");
	memcpy(dir, path, n);
	dir[n] = 0;
	return vk_dir_sync(n ? dir : slash ? "/" : ".", err);
}

enum vk_status vk_graph_save(struct vk_graph *g, const char *path, uint64_t sequence, const uint8_t tag[32], struct vk_error *err)
{
	char tmp[PATH_MAX_BYTES];
	if (strlen(path) + sizeof ".new" > sizeof tmp) return vk_fail(err, VK_E_INVALID, "the path of a graph file is too long");
	strcpy(tmp, path);
	strcat(tmp, ".new");
	struct writer w = {.path = tmp, .level = g->conf.level, .err = err};
	w.fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (w.fd < 0) return failed(err, tmp);
	struct head h = head_of(g, sequence, tag);
	enum vk_status st = put_all(&w, g, &h);
	if (!st && atomic_load(&g->lost)) st = vk_fail(err, VK_E_CORRUPT, "pages of the graph could not be read from its file");
	if (close(w.fd) && !st) st = failed(err, tmp);
	if (!st && rename(tmp, path)) st = failed(err, path);
	if (st) {
		unlink(tmp);
		return st;
	}
	return sync_directory_of(path, err);
}

/* --- reading and judging --- */

struct reader {
	int fd;
	const char *path;
	enum vk_cpu_level level;
	struct head h;
	uint32_t *crc;
	struct vk_error *err;
};

static enum vk_status read_at(struct reader *r, void *dst, size_t n, uint64_t at)
{
	for (size_t done = 0; done < n;) {
		ssize_t got = pread(r->fd, (char *)dst + done, n - done, (off_t)(at + done));
		if (got < 0 && errno == EINTR) continue;
		if (got < 0) return failed(r->err, r->path);
		if (!got) return corrupt(r->err, r->path, "it is too short");
		done += (size_t)got;
	}
	return VK_OK;
}

/* Counts that a graph can have; NULL: fine. */
static const char *counts_wrong(const struct head *h)
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

static enum vk_status judge_head(struct reader *r)
{
	const struct head *h = &r->h;
	if (memcmp(h->magic, magic, sizeof magic)) return vk_fail(r->err, VK_E_CORRUPT, "%s is no graph file", r->path);
	if (h->endian != ENDIAN) return vk_fail(r->err, VK_E_CORRUPT, "graph file %s is of a machine of another kind", r->path);
	if (h->version != VERSION)
		return vk_fail(r->err, VK_E_CORRUPT, "graph file %s has version %u, this program knows %u", r->path, h->version,
			       VERSION);
	if (h->crc != head_crc(r->level, h)) return corrupt(r->err, r->path, "its head's checksum");
	const char *wrong = counts_wrong(h);
	if (wrong) return corrupt(r->err, r->path, wrong);
	struct head want = *h;
	lay_out(&want);
	if (memcmp(&want, h, sizeof want)) return corrupt(r->err, r->path, "the places of its sections");
	return VK_OK;
}

static enum vk_status read_head(struct reader *r)
{
	struct stat st;
	if (fstat(r->fd, &st)) return failed(r->err, r->path);
	enum vk_status s = read_at(r, &r->h, sizeof r->h, 0);
	if (!s) s = judge_head(r);
	if (!s && (uint64_t)st.st_size != r->h.file_bytes) s = corrupt(r->err, r->path, "its size");
	if (s) return s;
	r->crc = malloc((size_t)r->h.table.bytes + 1);
	if (!r->crc) return vk_fail(r->err, VK_E_NOMEM, "no memory for a graph's checksums");
	s = read_at(r, r->crc, (size_t)r->h.table.bytes, r->h.table.offset);
	if (!s && vk_crc32c(r->level, 0, r->crc, (size_t)r->h.table.bytes) != r->h.table_crc)
		s = corrupt(r->err, r->path, "its table of checksums");
	return s;
}

static enum vk_status reader_open(struct reader *r, const char *path, enum vk_cpu_level level, struct vk_error *err)
{
	*r = (struct reader){.path = path, .level = level, .err = err};
	r->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (r->fd < 0) return failed(err, path);
	return read_head(r);
}

static void reader_close(struct reader *r)
{
	if (r->fd >= 0) close(r->fd);
	free(r->crc);
}

/* Number in the table of a section's first block. */
static uint32_t first_block(const struct head *h, int section)
{
	uint64_t n = 0;
	for (int i = 0; i < section; i++) n += blocks_of(h->section[i].bytes);
	return (uint32_t)n;
}

static enum vk_status judge_bytes(struct reader *r, int section, uint32_t block, const void *p, size_t n)
{
	if (vk_crc32c(r->level, 0, p, n) == r->crc[first_block(&r->h, section) + block]) return VK_OK;
	return vk_fail(r->err, VK_E_CORRUPT, "graph file %s is damaged: its %s, in the MiB from byte %llu", r->path,
		       section_names[section], (unsigned long long)(r->h.section[section].offset + (uint64_t)block * BLOCK));
}

static enum vk_status judge_section(struct reader *r, int section, const uint8_t *p)
{
	enum vk_status st = VK_OK;
	uint64_t bytes = r->h.section[section].bytes;
	for (uint64_t at = 0; !st && at < bytes; at += BLOCK)
		st = judge_bytes(r, section, (uint32_t)(at / BLOCK), p + at, bytes - at < BLOCK ? (size_t)(bytes - at) : BLOCK);
	return st;
}

/* --- opening --- */

static struct vk_graph_slab *slab_of(struct vk_graph *g, int section)
{
	switch (section) {
	case LABEL:
		return &g->label;
	case DEAD:
		return &g->dead;
	case CHAIN:
		return &g->chain;
	case IN:
		return &g->in;
	case CODE:
		return &g->code;
	default:
		return &g->edge;
	}
}

static enum vk_status map_section(struct reader *r, struct vk_graph *g, int section)
{
	const struct place *p = &r->h.section[section];
	struct vk_graph_slab *s = slab_of(g, section);
	const size_t bytes = (size_t)up(p->bytes, PAGE);
	if (!bytes) return VK_OK;
	if (bytes > s->reserved) return vk_fail(r->err, VK_E_NO_SPACE, "no room for the graph of %s", r->path);
	void *at = mmap(s->p, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, r->fd, (off_t)p->offset);
	if (at == MAP_FAILED) return failed(r->err, r->path);
	s->mapped = bytes;
	(void)vk_patch_add(s->p, bytes, &g->lost); /* unwatched it serves, too */
	return section < CHECKED ? judge_section(r, section, s->p) : VK_OK;
}

/* A section that is memory of its own: read and checked. Empty: NULL. */
static enum vk_status load_section(struct reader *r, int section, size_t room, void *out)
{
	const struct place *p = &r->h.section[section];
	void **dst = out;
	*dst = NULL;
	if (!p->bytes) return VK_OK;
	*dst = aligned_alloc(64, up(room > p->bytes ? room : p->bytes, 64));
	if (!*dst) return vk_fail(r->err, VK_E_NOMEM, "no memory for the graph of %s", r->path);
	enum vk_status st = read_at(r, *dst, (size_t)p->bytes, p->offset);
	return st ? st : judge_section(r, section, *dst);
}

static enum vk_status nodes_below(struct reader *r, const uint32_t *node, uint32_t count, const char *what)
{
	for (uint32_t i = 0; i < count; i++)
		if (node[i] >= r->h.n) return corrupt(r->err, r->path, what);
	return VK_OK;
}

static enum vk_status load_small(struct reader *r, struct vk_graph *g)
{
	uint32_t *entry = NULL;
	free(g->mean);
	g->mean = NULL;
	enum vk_status st = load_section(r, MEAN, 0, &g->mean);
	if (!st) vk_graph_mean_changed(g);
	if (!st) st = load_section(r, AXES, 0, &g->axes);
	if (!st) st = load_section(r, SPARE, 0, &g->spare);
	if (!st) st = load_section(r, ENTRY_CODE, VK_GRAPH_ENTRIES_MAX * g->code.stride, &g->entry_code);
	if (!st) st = load_section(r, ENTRY, 0, &entry);
	if (!st) st = nodes_below(r, entry, r->h.entry_n, "its entries");
	if (!st) st = nodes_below(r, g->spare, r->h.spare_n, "its spare places");
	if (!st && r->h.entry_n) memcpy(g->entry, entry, r->h.entry_n * sizeof *entry);
	free(entry);
	return st;
}

/* Labels and chains are read once, in order; a few milliseconds a million. */
static enum vk_status bind_labels(struct reader *r, struct vk_graph *g)
{
	for (uint32_t i = 0; i < r->h.n; i++)
		if (!vk_graph_is_dead(g, i) && vk_graph_bind(g, *vk_graph_label_at(g, i), i))
			return corrupt(r->err, r->path, "its labels");
	if (r->h.chained_n) vk_graph_chains_find(g, r->h.n);
	return VK_OK;
}

/* An empty graph with room for what the file holds. */
static enum vk_status graph_for(struct reader *r, uint32_t capacity, struct vk_graph **out)
{
	if (!capacity) capacity = CAPACITY_DEFAULT;
	const struct head *h = &r->h;
	struct vk_graph_conf c = {
	    .dims = h->dims,
	    .metric = (enum vk_metric)h->metric,
	    .degree = h->degree,
	    .ef_build = h->ef_build,
	    .alpha = h->alpha,
	    .profile = h->profile == VK_GRAPH_S4 ? VK_GRAPH_S4 : VK_GRAPH_S8,
	    .capacity = capacity < h->n ? h->n : capacity,
	    .seed = h->seed,
	    .level = r->level,
	};
	enum vk_status st = vk_graph_new(&c, out, r->err);
	if (st) return st;
	struct vk_graph *g = *out;
	g->conf.profile = (enum vk_graph_profile)h->profile_asked;
	if (h->code_dims != h->dims) {
		g->code_dims = h->code_dims;
		st = vk_graph_reserve(g, r->err);
	}
	if (!st && g->conf.capacity < h->n) st = vk_fail(r->err, VK_E_NO_SPACE, "no address space for the graph of %s", r->path);
	return st;
}

static void take_counts(struct vk_graph *g, const struct head *h)
{
	g->built = h->built, g->entry_n = h->entry_n, g->dead_n = h->dead_n;
	g->spare_n = g->spare_cap = h->spare_n;
	g->chained_n = h->chained_n, g->unreached = h->unreached;
	g->error_sum = h->error_sum, g->error_built = h->error_built, g->error_n = h->error_n;
	atomic_store(&g->prefetch, h->prefetch);
	atomic_store(&g->n, h->n);
}

enum vk_status vk_graph_open(const char *path, uint32_t capacity, enum vk_cpu_level level, struct vk_graph **out,
			     uint64_t *sequence, uint8_t tag[32], struct vk_error *err)
{
	struct reader r;
	struct vk_graph *g = NULL;
	*out = NULL;
	enum vk_status st = reader_open(&r, path, level, err);
	if (!st) st = graph_for(&r, capacity, &g);
	if (!st) st = load_small(&r, g);
	for (int i = LABEL; !st && i < SECTIONS; i++) st = map_section(&r, g, i);
	if (!st) st = bind_labels(&r, g);
	if (!st) {
		take_counts(g, &r.h);
		*sequence = r.h.sequence;
		memcpy(tag, r.h.tag, sizeof r.h.tag);
		*out = g;
	} else {
		vk_graph_free(g);
	}
	reader_close(&r);
	return st;
}

/* --- scrubbing --- */

static enum vk_status scrub_block(struct reader *r, uint8_t *buf, uint64_t number, size_t *bytes)
{
	int s = 0;
	while (number >= blocks_of(r->h.section[s].bytes)) number -= blocks_of(r->h.section[s++].bytes);
	uint64_t at = number * BLOCK, left = r->h.section[s].bytes - at;
	*bytes = left < BLOCK ? (size_t)left : BLOCK;
	enum vk_status st = read_at(r, buf, *bytes, r->h.section[s].offset + at);
	return st ? st : judge_bytes(r, s, (uint32_t)number, buf, *bytes);
}

enum vk_status vk_graph_scrub_step(const char *path, size_t budget, uint64_t *at, struct vk_error *err)
{
	struct reader r;
	enum vk_status st = reader_open(&r, path, vk_cpu_best(), err);
	uint8_t *buf = malloc(BLOCK);
	if (!st && !buf) st = vk_fail(err, VK_E_NOMEM, "no memory to check a graph");
	/* At least one block a step, so that steps come to an end whatever the budget. */
	for (size_t done = 0, n = 0; !st && *at < r.h.blocks; done += n, ++*at) {
		if (done && done + BLOCK > budget) {
			st = VK_E_BUSY;
			break;
		}
		st = scrub_block(&r, buf, *at, &n);
		if (st) break;
	}
	free(buf);
	reader_close(&r);
	return st;
}

/* --- promotion --- */

/* The bytes [from, to) of a section, copied and moved over themselves. */
static bool promote_piece(struct vk_graph_slab *s, size_t from, size_t to)
{
	const size_t n = to - from;
	uint8_t *room = mmap(NULL, n + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED) return false;
	/* As far from a huge page's beginning as its future place, so that huge pages move whole; the rest is given back first,
	 * since after the move its neighbourhood may be another thread's. */
	const size_t before = (size_t)((uintptr_t)(s->p + from) - (uintptr_t)room) & (HUGE - 1);
	uint8_t *copy = room + before;
	if (before) munmap(room, before);
	if (before < HUGE) munmap(copy + n, HUGE - before);
	(void)madvise(copy, n, MADV_HUGEPAGE);
	memcpy(copy, s->p + from, n);
	if (mremap(copy, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, s->p + from) != MAP_FAILED) return true;
	munmap(copy, n);
	return false;
}

/* From the end, so that `mapped` stays what it is: file pages from the beginning on. */
static enum vk_status promote(struct vk_graph_slab *s)
{
	/* Cut where huge pages begin; to the end of the last one, since what lies behind the file's pages is memory already. */
	const size_t skew = (size_t)((uintptr_t)s->p & (HUGE - 1));
	size_t end = (size_t)up(s->mapped + skew, HUGE) - skew;
	if (end > s->reserved) end = s->reserved;
	while (s->mapped) {
		size_t from = end > PIECE ? (end - 1 + skew) / PIECE * PIECE - skew : 0;
		if (!promote_piece(s, from, end)) return VK_E_NOMEM;
		end = from;
		if (!from) vk_patch_remove(s->p); /* memory now */
		if (from < s->mapped) s->mapped = from;
	}
	return VK_OK;
}

enum vk_status vk_graph_promote(struct vk_graph *g)
{
	enum vk_status st = VK_OK;
	for (int i = LABEL; !st && i < SECTIONS; i++) st = promote(slab_of(g, i));
	return st;
}
