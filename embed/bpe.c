/*
 * Byte-pair encoding by rank. A vocabulary is a list of byte strings; the place in the list
 * is the id and also the rank. Encoding a piece starts from single bytes and again and again
 * replaces the two neighbours whose joined bytes have the lowest rank. One hash table from
 * bytes to rank answers "are these two a token?", whichever pair they are.
 *
 * Short pieces (nearly all) look for the best pair by a scan over arrays on the stack: with
 * some dozen parts nothing is faster. Long pieces (a run of blanks, base64, Chinese without
 * stops) would be quadratic so; they use a linked list and a heap of (rank, place).
 *
 * Roads not taken: a table of mergeable id pairs (faster to look up, but the data file has
 * ranks only, and building it doubles the start time and the memory); dynamic programming
 * over a trie (fewest tokens is not what the published encoding finds); PCRE for the cuts
 * (bpe_cut.c).
 */
#include "embed/bpe.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "embed/bpe_cut.h"
#include "embed/data.h"

#define NONE UINT32_MAX
#define SHORT_MAX 96 /* bytes of a piece that is merged on the stack */

struct slot {
	uint32_t id; /* NONE: free */
	uint32_t tag; /* upper half of the hash: spares most comparisons */
};

struct vk_bpe {
	const char *(*cut)(const char *p, const char *end);
	const uint8_t *data; /* token i is data[at[i]..at[i + 1] - 1): length bytes lie between */
	uint32_t *at;        /* count + 1 */
	uint32_t count;
	uint32_t len_max;
	uint32_t mask; /* slots - 1 */
	struct slot *slots;
	uint32_t byte_id[256];
};

/* ---- vocabulary ---- */

static inline const uint8_t *token(const struct vk_bpe *b, uint32_t id, size_t *n)
{
	*n = b->at[id + 1] - b->at[id] - 1;
	return b->data + b->at[id];
}

static inline uint64_t hash(const uint8_t *p, size_t n)
{
	const uint64_t mul = 0x9e3779b97f4a7c15u;
	uint64_t h = n * mul, w;
	for (; n >= 8; p += 8, n -= 8) {
		memcpy(&w, p, 8);
		h = (h ^ w) * mul;
		h ^= h >> 32;
	}
	w = 0;
	for (size_t i = 0; i < n; i++) w |= (uint64_t)p[i] << (8 * i);
	h = (h ^ w) * mul;
	return h ^ h >> 29;
}

/* Rank of these bytes, or NONE. */
static uint32_t rank_of(const struct vk_bpe *b, const uint8_t *p, size_t n)
{
	if (n > b->len_max) return NONE;
	uint64_t h = hash(p, n);
	uint32_t tag = (uint32_t)(h >> 32);
	for (uint32_t i = (uint32_t)h & b->mask;; i = (i + 1) & b->mask) {
		struct slot s = b->slots[i];
		if (s.id == NONE) return NONE;
		if (s.tag != tag) continue;
		size_t len;
		const uint8_t *t = token(b, s.id, &len);
		if (len == n && memcmp(t, p, n) == 0) return s.id;
	}
}

static void index_token(struct vk_bpe *b, uint32_t id)
{
	size_t n;
	const uint8_t *p = token(b, id, &n);
	uint64_t h = hash(p, n);
	uint32_t i = (uint32_t)h & b->mask;
	while (b->slots[i].id != NONE) i = (i + 1) & b->mask;
	b->slots[i] = (struct slot){id, (uint32_t)(h >> 32)};
	if (n > b->len_max) b->len_max = (uint32_t)n;
	if (n == 1) b->byte_id[p[0]] = id;
}

static void bpe_free(struct vk_bpe *b)
{
	if (!b) return;
	free(b->at);
	free(b->slots);
	free(b);
}

/* From the data in the program: its layout is our own, so a flaw is a broken build. */
static struct vk_bpe *bpe_new(const uint8_t *data, size_t n,
			      const char *(*cut)(const char *, const char *))
{
	struct vk_bpe *b = calloc(1, sizeof *b);
	if (!b) return NULL;
	b->data = data;
	b->cut = cut;
	for (size_t i = 0; i < n; i += 1 + (size_t)data[i]) b->count++;
	uint32_t slots = 1;
	while (slots < 2 * b->count) slots *= 2;
	b->mask = slots - 1;
	b->at = malloc(((size_t)b->count + 1) * sizeof *b->at);
	b->slots = malloc(slots * sizeof *b->slots);
	if (!b->at || !b->slots) {
		bpe_free(b);
		return NULL;
	}
	memset(b->slots, 0xff, slots * sizeof *b->slots);
	memset(b->byte_id, 0xff, sizeof b->byte_id);
	uint32_t at = 0;
	for (uint32_t id = 0; id <= b->count; id++) {
		b->at[id] = at + 1;
		if (id < b->count) at += 1 + (uint32_t)data[at];
	}
	assert(at == n);
	for (uint32_t id = 0; id < b->count; id++) index_token(b, id);
	for (int i = 0; i < 256; i++) assert(b->byte_id[i] != NONE);
	return b;
}

const struct vk_bpe *vk_bpe_cl100k(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static _Atomic(struct vk_bpe *) made;
	struct vk_bpe *b = atomic_load_explicit(&made, memory_order_acquire);
	if (b) return b;
	pthread_mutex_lock(&lock);
	b = atomic_load_explicit(&made, memory_order_relaxed);
	if (!b) {
		b = bpe_new(vk_data_cl100k, vk_data_cl100k_size, vk_bpe_cut_cl100k);
		atomic_store_explicit(&made, b, memory_order_release);
	}
	pthread_mutex_unlock(&lock);
	return b;
}

uint32_t vk_bpe_ids(const struct vk_bpe *b)
{
	return b->count;
}

/* ---- where ids go: written, counted, or compared with what they should be ---- */

struct sink {
	uint32_t *ids;          /* NULL: none are written */
	const uint32_t *expect; /* NULL: nothing is compared */
	size_t n, max;
};

/* False: stop, there is no room or the ids differ. */
static inline bool emit(struct sink *s, uint32_t id)
{
	if (s->n == s->max || (s->expect && s->expect[s->n] != id)) return false;
	if (s->ids) s->ids[s->n] = id;
	s->n++;
	return true;
}

/* ---- merging ---- */

static bool merge_short(const struct vk_bpe *b, const uint8_t *p, size_t n, struct sink *out)
{
	/* Part i is the bytes start[i]..start[i + 1] and token id[i]; rank[i] is that of part i
	 * joined with the next. */
	uint32_t start[SHORT_MAX + 1], rank[SHORT_MAX], id[SHORT_MAX];
	for (size_t i = 0; i < n; i++) {
		start[i] = (uint32_t)i;
		id[i] = b->byte_id[p[i]];
		rank[i] = i + 1 < n ? rank_of(b, p + i, 2) : NONE;
	}
	start[n] = (uint32_t)n;
	for (;;) {
		size_t at = 0;
		for (size_t i = 1; i < n; i++) {
			if (rank[i] < rank[at]) at = i;
		}
		if (rank[at] == NONE) break;
		id[at] = rank[at];
		n--;
		memmove(start + at + 1, start + at + 2, (n - at) * sizeof *start);
		memmove(id + at + 1, id + at + 2, (n - at - 1) * sizeof *id);
		memmove(rank + at, rank + at + 1, (n - at) * sizeof *rank);
		rank[at] = at + 1 < n ? rank_of(b, p + start[at], start[at + 2] - start[at]) : NONE;
		if (at) rank[at - 1] = rank_of(b, p + start[at - 1], start[at + 1] - start[at - 1]);
	}
	for (size_t i = 0; i < n; i++) {
		if (!emit(out, id[i])) return false;
	}
	return true;
}

/* A part of a long piece, at the index of its first byte. */
struct part {
	uint32_t prev, next; /* index of the neighbours; next of the last is the length */
	uint32_t rank;       /* of this part joined with the next; NONE too once it is merged away */
	uint32_t id;
};

/* A binary heap of rank << 32 | index: lowest rank first, leftmost among equals. Entries go
 * stale instead of being moved: one is good when the part there still has that rank, for
 * from one place a rank spells the same bytes. Each merge takes one out and puts at most two
 * in, so it never holds more than two a byte. */
struct heap {
	uint64_t *v;
	size_t n;
};

static void heap_push(struct heap *h, uint32_t rank, uint32_t at)
{
	if (rank == NONE) return;
	uint64_t x = (uint64_t)rank << 32 | at;
	size_t i = h->n++;
	for (; i && h->v[(i - 1) / 2] > x; i = (i - 1) / 2) h->v[i] = h->v[(i - 1) / 2];
	h->v[i] = x;
}

static uint64_t heap_pop(struct heap *h)
{
	uint64_t top = h->v[0], x = h->v[--h->n];
	size_t i = 0;
	for (size_t kid; (kid = 2 * i + 1) < h->n; i = kid) {
		if (kid + 1 < h->n && h->v[kid + 1] < h->v[kid]) kid++;
		if (h->v[kid] >= x) break;
		h->v[i] = h->v[kid];
	}
	h->v[i] = x;
	return top;
}

static void rerank(const struct vk_bpe *b, const uint8_t *p, size_t n, struct part *parts,
		   uint32_t at, struct heap *h)
{
	uint32_t next = parts[at].next;
	parts[at].rank = next < n ? rank_of(b, p + at, parts[next].next - at) : NONE;
	heap_push(h, parts[at].rank, at);
}

static void merge_parts(const struct vk_bpe *b, const uint8_t *p, size_t n, struct part *parts,
			struct heap *h)
{
	for (uint32_t i = 0; i < n; i++)
		parts[i] = (struct part){i - 1, i + 1, NONE, b->byte_id[p[i]]};
	for (uint32_t i = 0; i < n; i++) rerank(b, p, n, parts, i, h);
	while (h->n) {
		uint64_t best = heap_pop(h);
		uint32_t at = (uint32_t)best, rank = (uint32_t)(best >> 32);
		struct part *a = &parts[at];
		if (a->rank != rank) continue;
		struct part *gone = &parts[a->next];
		a->id = rank;
		a->next = gone->next;
		gone->rank = NONE;
		if (a->next < n) parts[a->next].prev = at;
		rerank(b, p, n, parts, at, h);
		if (at) rerank(b, p, n, parts, a->prev, h);
	}
}

static enum vk_status merge_long(const struct vk_bpe *b, const uint8_t *p, size_t n,
				 struct sink *out)
{
	struct part *parts = malloc(n * sizeof *parts);
	struct heap h = {.v = malloc(2 * n * sizeof *h.v)};
	enum vk_status st = parts && h.v ? VK_OK : VK_E_NOMEM;
	if (!st) {
		merge_parts(b, p, n, parts, &h);
		for (size_t i = 0; i < n && !st; i = parts[i].next) {
			if (!emit(out, parts[i].id)) st = VK_E_TOO_LARGE;
		}
	}
	free(parts);
	free(h.v);
	return st;
}

/* VK_E_TOO_LARGE: the sink wants no more. */
static enum vk_status encode(const struct vk_bpe *b, struct vk_bytes utf8, struct sink *out)
{
	if (utf8.n > VK_BPE_TEXT_MAX) return VK_E_TOO_LARGE;
	if (vk_utf8_valid(utf8.p, utf8.n) != utf8.n) return VK_E_INVALID;
	enum vk_status st = VK_OK;
	for (const char *p = utf8.p, *end = p + utf8.n, *next; !st && p < end; p = next) {
		next = b->cut(p, end);
		const uint8_t *piece = (const uint8_t *)p;
		size_t n = (size_t)(next - p);
		uint32_t whole = rank_of(b, piece, n);
		if (whole != NONE)
			st = emit(out, whole) ? VK_OK : VK_E_TOO_LARGE;
		else if (n <= SHORT_MAX)
			st = merge_short(b, piece, n, out) ? VK_OK : VK_E_TOO_LARGE;
		else
			st = merge_long(b, piece, n, out);
	}
	return st;
}

/* ---- the calls ---- */

enum vk_status vk_bpe_encode(const struct vk_bpe *b, struct vk_bytes utf8, uint32_t *ids,
			     size_t max, size_t *n)
{
	struct sink out = {.ids = ids, .max = max};
	enum vk_status st = encode(b, utf8, &out);
	*n = st ? 0 : out.n;
	return st;
}

size_t vk_bpe_count(const struct vk_bpe *b, struct vk_bytes utf8)
{
	struct sink out = {.max = SIZE_MAX};
	return encode(b, utf8, &out) ? utf8.n : out.n;
}

enum vk_status vk_bpe_decode(const struct vk_bpe *b, const uint32_t *ids, size_t n,
			     struct vk_buf *out)
{
	size_t total = 0, len;
	for (size_t i = 0; i < n; i++) {
		if (ids[i] >= b->count) return VK_E_INVALID;
		token(b, ids[i], &len);
		total += len;
	}
	char *p = vk_buf_reserve(out, total);
	if (!p) return total > out->max - out->n ? VK_E_TOO_LARGE : VK_E_NOMEM;
	for (size_t i = 0; i < n; i++) {
		const uint8_t *t = token(b, ids[i], &len);
		memcpy(p, t, len);
		p += len;
	}
	out->n += total;
	return VK_OK;
}

bool vk_bpe_text_of(const struct vk_bpe *b, const uint32_t *ids, size_t n, struct vk_buf *text)
{
	size_t before = text->n;
	if (vk_bpe_decode(b, ids, n, text)) return false;
	struct sink out = {.expect = ids, .max = n};
	struct vk_bytes utf8 = {text->p ? text->p + before : "", text->n - before};
	enum vk_status st = encode(b, utf8, &out);
	if (!st && out.n == n) return true;
	text->n = before;
	if (st == VK_E_NOMEM || utf8.n > VK_BPE_TEXT_MAX) text->failed = true;
	return false;
}
