/*
 * LMDB 0.9's layout, little-endian, 64 bit:
 *   page   pgno u64, pad u16, flags u16, lower u16, upper u16 (overflow: pages u32), then u16 offsets of nodes
 *   node   lo u16, hi u16, flags u16, key size u16, key, data. Leaf: data size lo | hi << 16, BIGDATA: a page number
 *          in place of data. Branch: child lo | hi << 16 | flags << 32
 *   meta   behind the page header: magic u32, version u32, address u64, map size u64, table free, table main, last page
 *          u64, transaction u64
 *   table  pad u32 (free: page size), flags u16, depth u16, branch, leaf, overflow pages u64, entries u64, root u64
 */
#include "store/mdbcheck.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"

#define PAGE_HEAD 16u
#define NODE_HEAD 8u
#define TABLE_BYTES 48u
#define META_BYTES 136u
#define MAGIC 0xBEEFC0DEu
#define FORMAT 1u
#define NO_ROOT UINT64_MAX
#define KEY_MAX 511u
#define DEPTH_MAX 32u
#define FREE_FLAGS 0x08u	/* integer keys; what else stands there would be the environment's */
#define PAGES_AHEAD 65536u	/* given out and let go in one transaction: past the file's end */

enum { P_BRANCH = 1, P_LEAF = 2, P_OVERFLOW = 4, P_META = 8 };
enum { N_BIG = 1, N_TABLE = 2 };
enum kind { FREE, MAIN, TABLE };

struct table {
	uint32_t pad;
	uint16_t flags, depth;
	uint64_t entries, root;
};

struct check {
	int fd;
	uint64_t file_bytes, last_page;
	uint32_t page_size;
	uint8_t *seen; /* a bit a page */
	struct vk_error *err;
};

static uint16_t get_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static enum vk_status bad(struct check *c, uint64_t page, const char *what)
{
	return vk_fail(c->err, VK_E_CORRUPT, "page %llu of the data file: %s", (unsigned long long)page, what);
}

static enum vk_status read_at(struct check *c, uint64_t at, void *dst, size_t n)
{
	size_t done = 0;
	while (done < n) {
		ssize_t got = pread(c->fd, (char *)dst + done, n - done, (off_t)(at + done));
		if (got < 0 && errno == EINTR) continue;
		if (got < 0) return vk_fail(c->err, VK_E_IO, "the data file cannot be read: %s", strerror(errno));
		if (got == 0) return vk_fail(c->err, VK_E_CORRUPT, "the data file is cut short");
		done += (size_t)got;
	}
	return VK_OK;
}

/* Each page has one use. */
static bool mark(struct check *c, uint64_t page, uint64_t n)
{
	if (page < 2 || page > c->last_page || n > c->last_page - page + 1) return false;
	for (uint64_t i = page; i < page + n; i++) {
		if (c->seen[i / 8] & 1 << i % 8) return false;
		c->seen[i / 8] |= (uint8_t)(1 << i % 8);
	}
	return true;
}

static void decode_table(struct table *t, const uint8_t *p)
{
	t->pad = vk_get_u32le(p);
	t->flags = get_u16(p + 4);
	t->depth = get_u16(p + 6);
	t->entries = vk_get_u64le(p + 32);
	t->root = vk_get_u64le(p + 40);
}

static enum vk_status check_tree(struct check *c, enum kind kind, const struct table *t);

/* A run of overflow pages that holds n bytes; the first is read for its header. */
static enum vk_status check_overflow(struct check *c, uint64_t page, uint64_t n)
{
	uint8_t head[PAGE_HEAD];
	if (page > c->last_page) return bad(c, page, "past the last one");
	enum vk_status st = read_at(c, page * c->page_size, head, sizeof head);
	if (st) return st;
	uint64_t pages = vk_get_u32le(head + 12);
	if (vk_get_u64le(head) != page || get_u16(head + 10) != P_OVERFLOW) return bad(c, page, "no overflow page");
	if (pages == 0 || pages * c->page_size < PAGE_HEAD + n) return bad(c, page, "an overflow run that is too short");
	if (!mark(c, page, pages)) return bad(c, page, "used twice, or past the last one");
	if ((page + pages) * c->page_size > c->file_bytes) return bad(c, page, "cut short");
	return VK_OK;
}

/* An entry of the free list: a count, then as many page numbers. */
static enum vk_status check_free(struct check *c, const uint8_t *data, size_t n, uint64_t page)
{
	uint64_t count = n >= 8 ? vk_get_u64le(data) : UINT64_MAX;
	if (n % 8 || count > n / 8 - 1) return bad(c, page, "a list of free pages with a wrong length");
	for (uint64_t i = 1; i <= count; i++) {
		if (i > 1 && vk_get_u64le(data + 8 * i) >= vk_get_u64le(data + 8 * (i - 1)))
			return bad(c, page, "a list of free pages out of order");
		if (!mark(c, vk_get_u64le(data + 8 * i), 1)) return bad(c, page, "a free page is in use, or past the last one");
	}
	return VK_OK;
}

static enum vk_status check_value(struct check *c, enum kind kind, uint64_t page, unsigned flags, const uint8_t *data, uint32_t n)
{
	struct table t;
	uint8_t *copy = NULL;
	uint64_t at = 0;
	enum vk_status st = VK_OK;
	if (flags & N_BIG) {
		at = vk_get_u64le(data);
		st = check_overflow(c, at, n);
		if (st || kind != FREE) return st;
		if (!(copy = malloc(n))) return vk_fail(c->err, VK_E_NOMEM, "no memory");
		st = read_at(c, at * c->page_size + PAGE_HEAD, copy, n);
	}
	if (kind == FREE) {
		if (!st) st = check_free(c, copy ? copy : data, n, page);
		free(copy);
	} else if (kind == MAIN) {
		if (flags != N_TABLE || n != TABLE_BYTES) return bad(c, page, "an entry that is no table");
		decode_table(&t, data);
		st = check_tree(c, TABLE, &t);
	}
	return st;
}

static enum vk_status check_leaf(struct check *c, enum kind kind, uint64_t page, const uint8_t *p, unsigned keys)
{
	for (unsigned i = 0; i < keys; i++) {
		uint32_t at = get_u16(p + PAGE_HEAD + 2 * i);
		/* LMDB's pages of 64 KiB count offsets less the header; ours are smaller. */
		if (at < PAGE_HEAD + 2 * keys || at + NODE_HEAD > c->page_size) return bad(c, page, "a node outside of it");
		const uint8_t *node = p + at;
		uint32_t n = get_u16(node) | (uint32_t)get_u16(node + 2) << 16;
		uint32_t flags = get_u16(node + 4), key_n = get_u16(node + 6), room = c->page_size - at - NODE_HEAD;
		if (flags & ~(unsigned)(N_BIG | N_TABLE) || (kind == FREE && key_n != 8)) return bad(c, page, "a node of another kind");
		if (key_n == 0 || key_n > KEY_MAX || key_n > room) return bad(c, page, "a key outside of it");
		if ((flags & N_BIG ? 8 : n) > room - key_n) return bad(c, page, "a value outside of it");
		if (kind != MAIN && flags & N_TABLE) return bad(c, page, "a table within a table");
		enum vk_status st = check_value(c, kind, page, flags, node + NODE_HEAD + key_n, n);
		if (st) return st;
	}
	return VK_OK;
}

struct walk {
	enum kind kind;
	unsigned depth; /* of the leaves */
	uint64_t entries;
};

static enum vk_status check_page(struct check *c, struct walk *w, uint64_t page, unsigned depth);

static enum vk_status check_branch(struct check *c, struct walk *w, uint64_t page, const uint8_t *p, unsigned keys, unsigned depth)
{
	if (keys < 2 && w->kind != FREE) return bad(c, page, "a branch with one child");
	for (unsigned i = 0; i < keys; i++) {
		uint32_t at = get_u16(p + PAGE_HEAD + 2 * i);
		if (at < PAGE_HEAD + 2 * keys || at + NODE_HEAD > c->page_size) return bad(c, page, "a node outside of it");
		const uint8_t *node = p + at;
		if (get_u16(node + 6) > KEY_MAX || get_u16(node + 6) > c->page_size - at - NODE_HEAD)
			return bad(c, page, "a key outside of it");
		uint64_t child = get_u16(node) | (uint64_t)get_u16(node + 2) << 16 | (uint64_t)get_u16(node + 4) << 32;
		enum vk_status st = check_page(c, w, child, depth + 1);
		if (st) return st;
	}
	return VK_OK;
}

static enum vk_status check_page(struct check *c, struct walk *w, uint64_t page, unsigned depth)
{
	if (!mark(c, page, 1)) return bad(c, page, "used twice, or past the last one");
	uint8_t *p = malloc(c->page_size);
	if (!p) return vk_fail(c->err, VK_E_NOMEM, "no memory");
	enum vk_status st = read_at(c, page * c->page_size, p, c->page_size);
	unsigned flags = get_u16(p + 10), lower = get_u16(p + 12), upper = get_u16(p + 14);
	unsigned want = depth == w->depth ? P_LEAF : P_BRANCH;
	if (!st && (vk_get_u64le(p) != page || flags != want)) st = bad(c, page, "of another kind than its place wants");
	if (!st && (lower < PAGE_HEAD + 2 || lower % 2 || lower > upper || upper > c->page_size)) st = bad(c, page, "its bounds are wrong");
	unsigned keys = (lower - PAGE_HEAD) / 2;
	if (!st && want == P_LEAF) {
		w->entries += keys;
		st = check_leaf(c, w->kind, page, p, keys);
	} else if (!st) {
		st = check_branch(c, w, page, p, keys, depth);
	}
	free(p);
	return st;
}

static enum vk_status check_tree(struct check *c, enum kind kind, const struct table *t)
{
	struct walk w = {.kind = kind, .depth = t->depth};
	if (t->flags != (kind == FREE ? FREE_FLAGS : 0)) return bad(c, t->root, "a table of another kind");
	if (t->root == NO_ROOT) return t->entries || t->depth ? bad(c, 0, "an empty table with entries") : VK_OK;
	if (t->depth == 0 || t->depth > DEPTH_MAX) return bad(c, t->root, "a depth that cannot be");
	enum vk_status st = check_page(c, &w, t->root, 1);
	if (!st && w.entries != t->entries) st = bad(c, t->root, "its table has another number of entries");
	return st;
}

static bool is_meta(const uint8_t *page)
{
	return get_u16(page + 10) == P_META && vk_get_u32le(page + PAGE_HEAD) == MAGIC && vk_get_u32le(page + PAGE_HEAD + 4) == FORMAT;
}

/* The newer meta page, into meta. */
static enum vk_status read_metas(struct check *c, uint8_t meta[META_BYTES])
{
	uint8_t a[PAGE_HEAD + META_BYTES], b[PAGE_HEAD + META_BYTES];
	enum vk_status st = read_at(c, 0, a, sizeof a);
	if (st) return st;
	c->page_size = vk_get_u32le(a + PAGE_HEAD + 24);
	if (!is_meta(a) || c->page_size < 4096 || c->page_size > 32768 || c->page_size & (c->page_size - 1))
		return bad(c, 0, "no head of an LMDB file");
	st = read_at(c, c->page_size, b, sizeof b);
	if (st) return st;
	if (!is_meta(b) || vk_get_u32le(b + PAGE_HEAD + 24) != c->page_size) return bad(c, 1, "no head of an LMDB file");
	bool second = vk_get_u64le(a + PAGE_HEAD + 128) < vk_get_u64le(b + PAGE_HEAD + 128);
	memcpy(meta, (second ? b : a) + PAGE_HEAD, META_BYTES);
	c->last_page = vk_get_u64le(meta + 120);
	if (c->last_page < 1 || c->last_page >= c->file_bytes / c->page_size + PAGES_AHEAD) return bad(c, second, "more pages than the file has");
	return VK_OK;
}

static enum vk_status open_file(struct check *c, const char *path, struct vk_error *err)
{
	struct stat s;
	c->err = err;
	c->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (c->fd >= 0 && fstat(c->fd, &s) == 0) {
		c->file_bytes = (uint64_t)s.st_size;
		return VK_OK;
	}
	int e = errno;
	if (c->fd >= 0) close(c->fd);
	return vk_fail(err, e == ENOENT ? VK_E_NOT_FOUND : VK_E_IO, "%s: %s", path, strerror(e));
}

enum vk_status vk_mdb_check(const char *path, struct vk_error *err)
{
	struct check c;
	uint8_t meta[META_BYTES];
	struct table t;
	memset(&c, 0, sizeof c);
	enum vk_status st = open_file(&c, path, err);
	if (st) return st;
	st = read_metas(&c, meta);
	if (!st && !(c.seen = calloc(c.last_page / 8 + 1, 1))) st = vk_fail(err, VK_E_NOMEM, "no memory");
	if (!st) {
		decode_table(&t, meta + 24);
		st = check_tree(&c, FREE, &t);
	}
	if (!st) {
		decode_table(&t, meta + 72);
		st = check_tree(&c, MAIN, &t);
	}
	free(c.seen);
	close(c.fd);
	return st;
}

enum vk_status vk_mdb_check_length(const char *path, struct vk_error *err)
{
	struct check c;
	uint8_t meta[META_BYTES];
	memset(&c, 0, sizeof c);
	enum vk_status st = open_file(&c, path, err);
	if (st) return st == VK_E_NOT_FOUND ? VK_OK : st;
	if (c.file_bytes) st = read_metas(&c, meta);
	bool whole = !c.file_bytes || (!st && c.file_bytes / c.page_size > c.last_page);
	close(c.fd);
	return st || whole ? st : vk_mdb_check(path, err);
}
