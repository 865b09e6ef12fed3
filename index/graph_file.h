/*
 * A graph's file, as its own files share it; nobody else includes it.
 *
 *   graph_file.c     the format: places from counts, what is checked and how; scrub
 *   graph_save.c     a graph into a new file
 *   graph_open.c     a graph over a file: what is mapped, what is read
 *   graph_promote.c  mapped sections become memory of their own
 *
 *   head        one page: struct vk_graph_file_head below, its CRC32C last
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
 * Ownership: a reader owns its descriptor and its copy of the table; close it, opened or not. It borrows path and err.
 * Threads: a reader is one thread's; any number may read one file. Units: bytes, offsets from the file's beginning.
 * Errors: VK_E_CORRUPT with what does not fit, VK_E_NOT_FOUND without a file, VK_E_NO_SPACE, VK_E_NOMEM, VK_E_IO.
 */
#ifndef VK_INDEX_GRAPH_FILE_H
#define VK_INDEX_GRAPH_FILE_H

#include "index/graph_internal.h"

#define VK_GRAPH_FILE_VERSION 1u
#define VK_GRAPH_FILE_ENDIAN 0x01020304u
#define VK_GRAPH_FILE_PAGE ((size_t)4096)
#define VK_GRAPH_FILE_BLOCK ((size_t)1 << 20)

extern const char vk_graph_file_magic[8];

/* Those below VK_SECTION_CHECKED are checked at open; those from VK_SECTION_LABEL on are mapped. */
enum vk_graph_section {
	VK_SECTION_MEAN,
	VK_SECTION_AXES,
	VK_SECTION_ENTRY,
	VK_SECTION_ENTRY_CODE,
	VK_SECTION_SPARE,
	VK_SECTION_LABEL,
	VK_SECTION_DEAD,
	VK_SECTION_CHECKED,
	VK_SECTION_CHAIN = VK_SECTION_CHECKED,
	VK_SECTION_IN,
	VK_SECTION_CODE,
	VK_SECTION_EDGE,
	VK_SECTIONS
};

struct vk_graph_place {
	uint64_t offset, bytes;
};

struct vk_graph_file_head {
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
	struct vk_graph_place table, section[VK_SECTIONS];
	uint32_t table_crc;
	uint32_t crc; /* of all before it */
};
_Static_assert(offsetof(struct vk_graph_file_head, crc) + 4 == sizeof(struct vk_graph_file_head), "the CRC ends the head");
_Static_assert(sizeof(struct vk_graph_file_head) <= VK_GRAPH_FILE_PAGE, "a head is a page");

static inline uint64_t vk_graph_file_up(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

static inline uint64_t vk_graph_file_blocks(uint64_t bytes)
{
	return (bytes + VK_GRAPH_FILE_BLOCK - 1) / VK_GRAPH_FILE_BLOCK;
}

/* --- graph_file.c --- */
/* Places of everything from the counts. */
void vk_graph_file_lay_out(struct vk_graph_file_head *h);
uint32_t vk_graph_file_head_crc(enum vk_cpu_level level, const struct vk_graph_file_head *h);
enum vk_status vk_graph_file_corrupt(struct vk_error *err, const char *path, const char *what);
enum vk_status vk_graph_file_failed(struct vk_error *err, const char *path); /* what errno says */

struct vk_graph_reader {
	int fd;
	const char *path;
	enum vk_cpu_level level;
	struct vk_graph_file_head h;
	uint32_t *crc;
	struct vk_error *err;
};
/* Opens, and checks head and table. */
enum vk_status vk_graph_reader_open(struct vk_graph_reader *r, const char *path, enum vk_cpu_level level, struct vk_error *err);
void vk_graph_reader_close(struct vk_graph_reader *r);
enum vk_status vk_graph_reader_at(struct vk_graph_reader *r, void *dst, size_t n, uint64_t at);
/* A whole section's bytes against the table. */
enum vk_status vk_graph_reader_judge(struct vk_graph_reader *r, int section, const uint8_t *p);

/* --- graph_open.c --- */
/* Where a section from VK_SECTION_LABEL on is mapped to. */
struct vk_graph_slab *vk_graph_slab_of(struct vk_graph *g, int section);

#endif
