/*
 * CRoaring's door (libroaring 0.2.66).
 *
 * A stored chunk is the portable format with exactly one container, whose key is the chunk: 16 bytes of head
 * for an array or a bitset (cookie 12346, count 1, key, cardinality - 1, offset), 9 for runs (cookie 12347
 * with count - 1 above, one byte that marks the container as runs, key, cardinality - 1), then the container.
 * Version 0.2.66 checks only lengths when it reads, and unsorted containers make it misbehave later, so
 * check_chunk() looks at every value first.
 *
 * Not taken: roaring_bitmap_frozen_view over the map. It saves the copy, but its bytes are of this library's
 * making and alignment, and a chunk is or-ed into a result in any case.
 */
#include "index/bitmap.h"

#include <assert.h>
#include <stdlib.h>

#include <roaring/roaring.h>

#define CHUNK_SLOTS VK_BITMAP_CHUNK_SLOTS
#define CHUNK_WORDS (CHUNK_SLOTS / 64)
#define COOKIE_PLAIN 12346u /* no container of runs */
#define COOKIE_RUNS 12347u
#define PLAIN_HEAD 16u
#define RUNS_HEAD 9u
#define ARRAY_MAX 4096u /* the format: up to here an array, above a bitset */

struct vk_bitmap {
	roaring_bitmap_t *r;
	bool failed;
};

static struct vk_bitmap *wrap(roaring_bitmap_t *r)
{
	struct vk_bitmap *b = r ? malloc(sizeof *b) : NULL;
	if (!b) {
		if (r) roaring_bitmap_free(r);
		return NULL;
	}
	*b = (struct vk_bitmap){.r = r};
	return b;
}

struct vk_bitmap *vk_bitmap_new(void) { return wrap(roaring_bitmap_create()); }

void vk_bitmap_free(struct vk_bitmap *b)
{
	if (!b) return;
	if (b->r) roaring_bitmap_free(b->r);
	free(b);
}

struct vk_bitmap *vk_bitmap_copy(const struct vk_bitmap *b)
{
	struct vk_bitmap *copy = wrap(roaring_bitmap_copy(b->r));
	if (copy) copy->failed = b->failed;
	return copy;
}

bool vk_bitmap_failed(const struct vk_bitmap *b) { return b->failed; }

void vk_bitmap_add(struct vk_bitmap *b, uint32_t slot) { roaring_bitmap_add(b->r, slot); }

void vk_bitmap_add_many(struct vk_bitmap *b, const uint32_t *slots, size_t n)
{
	if (n) roaring_bitmap_add_many(b->r, n, slots);
}

void vk_bitmap_add_range(struct vk_bitmap *b, uint64_t from, uint64_t to)
{
	assert(to <= (uint64_t)UINT32_MAX + 1);
	if (from < to) roaring_bitmap_add_range_closed(b->r, (uint32_t)from, (uint32_t)(to - 1));
}

void vk_bitmap_remove(struct vk_bitmap *b, uint32_t slot) { roaring_bitmap_remove(b->r, slot); }

bool vk_bitmap_has(const struct vk_bitmap *b, uint32_t slot) { return roaring_bitmap_contains(b->r, slot); }

uint64_t vk_bitmap_count(const struct vk_bitmap *b) { return roaring_bitmap_get_cardinality(b->r); }

uint64_t vk_bitmap_count_and(const struct vk_bitmap *a, const struct vk_bitmap *b)
{
	return roaring_bitmap_and_cardinality(a->r, b->r);
}

bool vk_bitmap_empty(const struct vk_bitmap *b) { return roaring_bitmap_is_empty(b->r); }

void vk_bitmap_and(struct vk_bitmap *a, const struct vk_bitmap *b)
{
	if (a->r != b->r) roaring_bitmap_and_inplace(a->r, b->r);
	a->failed |= b->failed;
}

void vk_bitmap_or(struct vk_bitmap *a, const struct vk_bitmap *b)
{
	if (a->r != b->r) roaring_bitmap_or_inplace(a->r, b->r);
	a->failed |= b->failed;
}

void vk_bitmap_andnot(struct vk_bitmap *a, const struct vk_bitmap *b)
{
	if (a->r == b->r) roaring_bitmap_clear(a->r);
	else roaring_bitmap_andnot_inplace(a->r, b->r);
	a->failed |= b->failed;
}

struct each {
	bool (*fn)(void *arg, uint32_t slot);
	void *arg;
};

static bool each_slot(uint32_t slot, void *arg) /* the library has its arguments the other way round */
{
	const struct each *e = arg;
	return e->fn(e->arg, slot);
}

void vk_bitmap_each(const struct vk_bitmap *b, bool (*fn)(void *arg, uint32_t slot), void *arg)
{
	struct each e = {.fn = fn, .arg = arg};
	roaring_iterate(b->r, each_slot, &e);
}

size_t vk_bitmap_take(const struct vk_bitmap *b, uint32_t from, uint32_t *dst, size_t n)
{
	roaring_uint32_iterator_t it;
	roaring_init_iterator(b->r, &it);
	if (!roaring_move_uint32_iterator_equalorlarger(&it, from)) return 0;
	return roaring_read_uint32_iterator(&it, dst, n > UINT32_MAX ? UINT32_MAX : (uint32_t)n);
}

/* --- bits of one container, from word w0 of its 1024 on --- */

static void array_words(const array_container_t *c, size_t w0, uint64_t *words, size_t n)
{
	size_t first = w0 * 64, end = (w0 + n) * 64;
	int32_t lo = 0, hi = c->cardinality; /* the first member at `first` or behind */
	while (lo < hi) {
		int32_t mid = lo + (hi - lo) / 2;
		if (c->array[mid] < first) lo = mid + 1;
		else hi = mid;
	}
	for (int32_t i = lo; i < c->cardinality && c->array[i] < end; i++)
		words[c->array[i] / 64u - w0] |= (uint64_t)1 << c->array[i] % 64u;
}

static void set_bits(uint64_t *words, size_t from, size_t to) /* [from, to) */
{
	for (; from < to && from % 64; from++) words[from / 64] |= (uint64_t)1 << from % 64;
	for (; from + 64 <= to; from += 64) words[from / 64] = UINT64_MAX;
	for (; from < to; from++) words[from / 64] |= (uint64_t)1 << from % 64;
}

static void run_words(const run_container_t *c, size_t w0, uint64_t *words, size_t n)
{
	size_t first = w0 * 64, end = (w0 + n) * 64;
	int32_t lo = 0, hi = c->n_runs; /* the first run that ends behind `first` */
	while (lo < hi) {
		int32_t mid = lo + (hi - lo) / 2;
		if ((size_t)c->runs[mid].value + c->runs[mid].length < first) lo = mid + 1;
		else hi = mid;
	}
	for (int32_t i = lo; i < c->n_runs && c->runs[i].value < end; i++) {
		size_t from = c->runs[i].value, to = from + c->runs[i].length + 1;
		set_bits(words, (from > first ? from : first) - first, (to < end ? to : end) - first);
	}
}

static void container_words(const roaring_bitmap_t *r, uint16_t chunk, size_t w0, uint64_t *words, size_t n)
{
	int32_t i = ra_get_index(&r->high_low_container, chunk);
	if (i < 0) return;
	uint8_t type;
	const void *c = ra_get_container_at_index(&r->high_low_container, (uint16_t)i, &type);
	c = container_unwrap_shared(c, &type);
	switch (type) {
	case ARRAY_CONTAINER_TYPE_CODE: array_words(c, w0, words, n); break;
	case RUN_CONTAINER_TYPE_CODE: run_words(c, w0, words, n); break;
	default: memcpy(words, ((const bitset_container_t *)c)->array + w0, n * sizeof *words);
	}
}

bool vk_bitmap_words(const struct vk_bitmap *b, uint32_t first, uint64_t *words, size_t n)
{
	assert(first % 64 == 0);
	memset(words, 0, n * sizeof *words);
	uint64_t w = first / 64, end = w + n;
	while (w < end && w < (uint64_t)CHUNK_SLOTS * CHUNK_WORDS) {
		size_t in = (size_t)(w % CHUNK_WORDS), most = CHUNK_WORDS - in;
		size_t take = end - w < most ? (size_t)(end - w) : most;
		container_words(b->r, (uint16_t)(w / CHUNK_WORDS), in, words, take);
		words += take;
		w += take;
	}
	words -= w - first / 64;
	for (size_t i = 0; i < w - first / 64; i++)
		if (words[i]) return true;
	return false;
}

bool vk_bitmap_bounds(const struct vk_bitmap *b, uint32_t *least, uint32_t *greatest)
{
	if (vk_bitmap_empty(b)) return false;
	*least = roaring_bitmap_minimum(b->r);
	*greatest = roaring_bitmap_maximum(b->r);
	return true;
}

/* --- chunks --- */

/* A new bitmap of b's members in the chunk. */
static roaring_bitmap_t *cut_chunk(const struct vk_bitmap *b, uint16_t chunk)
{
	uint64_t first = (uint64_t)chunk << 16;
	roaring_bitmap_t *cut = roaring_bitmap_from_range(first, first + CHUNK_SLOTS, 1);
	if (cut) roaring_bitmap_and_inplace(cut, b->r);
	return cut;
}

void vk_bitmap_encode_chunk(const struct vk_bitmap *b, uint16_t chunk, struct vk_buf *dst)
{
	roaring_bitmap_t *cut = b->failed ? NULL : cut_chunk(b, chunk);
	if (!cut) {
		dst->failed = true;
		return;
	}
	if (!roaring_bitmap_is_empty(cut)) {
		roaring_bitmap_run_optimize(cut);
		char *p = vk_buf_reserve(dst, roaring_bitmap_portable_size_in_bytes(cut));
		if (p) dst->n += roaring_bitmap_portable_serialize(cut, p);
	}
	roaring_bitmap_free(cut);
}

static uint32_t u16_at(const char *p) { return (uint32_t)(uint8_t)p[0] | (uint32_t)(uint8_t)p[1] << 8; }

static bool check_array(const char *p, size_t n, uint32_t count)
{
	if (n != 2 * (size_t)count) return false;
	for (uint32_t i = 1; i < count; i++)
		if (u16_at(p + 2 * (size_t)i) <= u16_at(p + 2 * (size_t)i - 2)) return false;
	return true;
}

static bool check_bitset(const char *p, size_t n, uint32_t count)
{
	if (n != CHUNK_SLOTS / 8) return false;
	uint32_t bits = 0;
	for (size_t i = 0; i < n; i += 8)
		bits += (uint32_t)__builtin_popcountll(vk_get_u64le((const uint8_t *)p + i));
	return bits == count;
}

static bool check_runs(const char *p, size_t n, uint32_t count)
{
	if (n < 2 || n != 2 + 4 * (size_t)u16_at(p)) return false;
	uint32_t next = 0, total = 0; /* runs ascend and neither touch nor overlap */
	for (const char *run = p + 2; run < p + n; run += 4) {
		uint32_t from = u16_at(run), last = from + u16_at(run + 2);
		if (from < next || last >= CHUNK_SLOTS) return false;
		total += last - from + 1;
		next = last + 2;
	}
	return total == count;
}

/* True when the bytes are one whole container of this chunk. */
static bool check_chunk(uint16_t chunk, struct vk_bytes bytes)
{
	if (bytes.n < RUNS_HEAD) return false;
	const char *p = bytes.p;
	uint32_t cookie = vk_get_u32le((const uint8_t *)p);
	if (cookie == COOKIE_RUNS) { /* the count, less one, is in the high half: 0 */
		return p[4] == 1 && u16_at(p + 5) == chunk &&
		       check_runs(p + RUNS_HEAD, bytes.n - RUNS_HEAD, u16_at(p + 7) + 1);
	}
	if (cookie != COOKIE_PLAIN || bytes.n < PLAIN_HEAD || vk_get_u32le((const uint8_t *)p + 4) != 1)
		return false;
	if (u16_at(p + 8) != chunk || vk_get_u32le((const uint8_t *)p + 12) != PLAIN_HEAD) return false;
	uint32_t count = u16_at(p + 10) + 1;
	return count <= ARRAY_MAX ? check_array(p + PLAIN_HEAD, bytes.n - PLAIN_HEAD, count)
				  : check_bitset(p + PLAIN_HEAD, bytes.n - PLAIN_HEAD, count);
}

enum vk_status vk_bitmap_or_chunk(struct vk_bitmap *b, uint16_t chunk, struct vk_bytes bytes)
{
	if (!check_chunk(chunk, bytes)) return VK_E_CORRUPT;
	if (u16_at(bytes.p) == COOKIE_PLAIN &&
	    bytes.n == PLAIN_HEAD + 2) { /* one member: most chunks of a rare value */
		roaring_bitmap_add(b->r, (uint32_t)chunk << 16 | u16_at(bytes.p + PLAIN_HEAD));
		return VK_OK;
	}
	roaring_bitmap_t *r = roaring_bitmap_portable_deserialize_safe(bytes.p, bytes.n);
	if (!r) {
		b->failed = true;
		return VK_E_NOMEM;
	}
	roaring_bitmap_or_inplace(b->r, r);
	roaring_bitmap_free(r);
	return VK_OK;
}

uint32_t vk_bitmap_chunk_count(struct vk_bytes bytes)
{
	if (bytes.n < RUNS_HEAD) return 0;
	uint32_t cookie = vk_get_u32le((const uint8_t *)bytes.p);
	if (cookie == COOKIE_RUNS) return u16_at(bytes.p + 7) + 1;
	return cookie == COOKIE_PLAIN && bytes.n >= PLAIN_HEAD ? u16_at(bytes.p + 10) + 1 : 0;
}

/* Calls fn for each stretch [from, to) of members of a checked chunk's bytes. */
static void each_stretch(struct vk_bytes bytes, void (*fn)(void *arg, uint32_t from, uint32_t to), void *arg)
{
	const char *p = bytes.p, *end = p + bytes.n;
	if (vk_get_u32le((const uint8_t *)p) == COOKIE_RUNS) {
		for (p += RUNS_HEAD + 2; p < end; p += 4) fn(arg, u16_at(p), u16_at(p) + u16_at(p + 2) + 1);
		return;
	}
	if (vk_bitmap_chunk_count(bytes) <= ARRAY_MAX) {
		for (p += PLAIN_HEAD; p < end; p += 2) fn(arg, u16_at(p), u16_at(p) + 1);
		return;
	}
	for (uint32_t w = 0; w < CHUNK_WORDS; w++) {
		uint64_t word = vk_get_u64le((const uint8_t *)p + PLAIN_HEAD + 8 * (size_t)w);
		for (; word; word &= word - 1) {
			uint32_t at = w * 64 + (uint32_t)__builtin_ctzll(word);
			fn(arg, at, at + 1);
		}
	}
}

struct fill {
	uint32_t *dst, base;
	size_t n;
};

static void fill_stretch(void *arg, uint32_t from, uint32_t to)
{
	struct fill *f = arg;
	for (; from < to; from++) f->dst[f->n++] = f->base + from;
}

enum vk_status vk_bitmap_chunk_slots(uint16_t chunk, struct vk_bytes bytes, uint32_t *dst, size_t *n)
{
	struct fill f = {.dst = dst, .base = (uint32_t)chunk << 16};
	*n = 0;
	if (!check_chunk(chunk, bytes)) return VK_E_CORRUPT;
	each_stretch(bytes, fill_stretch, &f);
	*n = f.n;
	return VK_OK;
}

struct tally {
	const roaring_bitmap_t *r;
	uint32_t base;
	uint64_t n;
};

static void tally_stretch(void *arg, uint32_t from, uint32_t to)
{
	struct tally *t = arg;
	if (to == from + 1) t->n += roaring_bitmap_contains(t->r, t->base + from);
	else t->n += roaring_bitmap_range_cardinality(t->r, t->base + from, (uint64_t)t->base + to);
}

enum vk_status vk_bitmap_chunk_count_and(const struct vk_bitmap *b, uint16_t chunk, struct vk_bytes bytes,
					 uint64_t *n)
{
	struct tally t = {.r = b->r, .base = (uint32_t)chunk << 16};
	*n = 0;
	if (!check_chunk(chunk, bytes)) return VK_E_CORRUPT;
	if (u16_at(bytes.p) == COOKIE_PLAIN && vk_bitmap_chunk_count(bytes) > ARRAY_MAX) {
		uint64_t words[CHUNK_WORDS];
		vk_bitmap_words(b, t.base, words, CHUNK_WORDS);
		for (size_t i = 0; i < CHUNK_WORDS; i++)
			t.n += (uint64_t)__builtin_popcountll(
			    words[i] & vk_get_u64le((const uint8_t *)bytes.p + PLAIN_HEAD + 8 * i));
	} else {
		each_stretch(bytes, tally_stretch, &t);
	}
	*n = t.n;
	return VK_OK;
}
