/* The cache's records: row heads, where a row's bytes lie, provenance, totals. */
#include <assert.h>
#include <string.h>

#include "simd/crc32c.h"
#include "store/record.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "rows are stored as the machine has them");

#define HEAD_FIXED 44
#define ID_SIZE 6
#define SEAL_SIZE 28 /* nonce 12, tag 16 */

/* LMDB's arithmetic, checked by tests/store/test_space.c: 16 bytes of page header; a node costs 8
 * and its key and 2 in the page's index, and is even; more than half a page goes to pages of its
 * own, and 8 bytes of page number stay in the node. */
#define PAGE_HEAD 16
#define NODE_COST (8 + VK_PIECE_KEY_SIZE + 2)
#define PAGE_REF_COST (NODE_COST + 8)
#define INDEX_NODE_COST (8 + VK_CACHE_KEY_SIZE + 2)
/* Leaves with random keys are about two thirds full. */
#define RANDOM_FILL_PERCENT 68
/* Each piece is one more descent on every hit; it must save this many bytes. */
#define LOOKUP_COST 24

static uint32_t part_max(uint32_t page_size, unsigned class)
{
	uint32_t share = (page_size - PAGE_HEAD) / (2u << class);
	return (share & ~1u) - NODE_COST;
}

static uint32_t part_cost(uint32_t page_size, uint32_t n)
{
	return page_size / ((page_size - PAGE_HEAD) / (NODE_COST + ((n + 1) & ~1u)));
}

/* What a split with this many pages and this set of parts costs; parts are filled from the
 * largest down, what is left is inline. False when the rest does not fit beside the head. */
static bool try_split(struct vk_row_split *s, uint32_t row_n, uint32_t page_size, uint32_t pages,
		      unsigned classes)
{
	uint32_t page_n = page_size - PAGE_HEAD, left = row_n;
	*s = (struct vk_row_split){.pages = pages, .page_n = page_n};
	for (uint32_t i = 0; i < pages; i++) {
		if (left == 0) return false;
		s->last_page_n = left < page_n ? left : page_n;
		left -= s->last_page_n;
		s->cost += page_size + PAGE_REF_COST + LOOKUP_COST;
	}
	/* A short piece must still get a page of its own, else it would sit among the references.
	 */
	if (pages && s->last_page_n <= part_max(page_size, 0)) return false;
	for (unsigned c = 0; c < VK_ROW_CLASSES; c++) {
		if (!(classes >> c & 1)) continue;
		if (left == 0) return false;
		uint32_t n = part_max(page_size, c);
		s->part_n[c] = left < n ? left : n;
		left -= s->part_n[c];
		s->cost += part_cost(page_size, s->part_n[c]) + LOOKUP_COST;
	}
	if (left > VK_ROW_INLINE_MAX) return false;
	s->inline_n = left;
	s->cost += (INDEX_NODE_COST + HEAD_FIXED + 4 + left) * 100 / RANDOM_FILL_PERCENT;
	return true;
}

void vk_row_split_choose(struct vk_row_split *best, uint32_t row_n, uint32_t page_size)
{
	uint32_t full = row_n / (page_size - PAGE_HEAD);
	bool any = false;
	for (uint32_t pages = full; pages <= full + 1; pages++) {
		for (unsigned classes = 0; classes < 1u << VK_ROW_CLASSES; classes++) {
			struct vk_row_split s;
			if (!try_split(&s, row_n, page_size, pages, classes)) continue;
			if (any && s.cost >= best->cost) continue;
			*best = s;
			any = true;
		}
	}
	assert(any);
}

static uint8_t *put_id(uint8_t *p, uint64_t id)
{
	assert(id >> 48 == 0);
	for (int i = 0; i < ID_SIZE; i++) p[i] = (uint8_t)(id >> (8 * i));
	return p + ID_SIZE;
}

static uint64_t get_id(const uint8_t *p)
{
	return (uint64_t)vk_get_u32le(p) | (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40;
}

static void put_f32(uint8_t *p, float v) { memcpy(p, &v, 4); }

static float get_f32(const uint8_t *p)
{
	float v;
	memcpy(&v, p, 4);
	return v;
}

size_t vk_row_head_encode(uint8_t dst[VK_ROW_HEAD_MAX], const struct vk_cache_key *key,
			  const struct vk_row_head *h, enum vk_cpu_level cpu)
{
	assert(h->pages <= UINT8_MAX && h->inline_n <= VK_ROW_INLINE_MAX);
	assert(h->provenances <= VK_PROVENANCES_MAX && !(h->meta.flags & VK_CACHE_ENCRYPTED));
	unsigned parts = 0;
	for (unsigned c = 0; c < VK_ROW_CLASSES; c++) parts |= (unsigned)h->part_set[c] << c;

	memcpy(dst, "vr\1\0", 4);
	dst[4] = (uint8_t)h->meta.flags;
	dst[5] = (uint8_t)(h->meta.flags >> 8);
	dst[6] = h->meta.role;
	dst[7] = (uint8_t)parts;
	vk_put_u32le(dst + 8, h->meta.dims);
	vk_put_u32le(dst + 12, h->meta.input_len);
	vk_put_u32le(dst + 16, h->meta.tokens);
	vk_put_u64le(dst + 20, (uint64_t)h->meta.created_ms);
	vk_put_u32le(dst + 28, h->meta.provider);
	put_f32(dst + 32, h->meta.norm);
	vk_put_u32le(dst + 36, h->row_crc);
	dst[40] = (uint8_t)h->pages;
	dst[41] = (uint8_t)h->provenances;
	dst[42] = dst[43] = 0;

	uint8_t *p = dst + HEAD_FIXED;
	if (h->pages) p = put_id(p, h->page_id);
	for (unsigned c = 0; c < VK_ROW_CLASSES; c++)
		if (h->part_set[c]) p = put_id(p, h->part_id[c]);
	memcpy(p, h->provenance, (size_t)h->provenances * VK_PROVENANCE_SIZE);
	p += (size_t)h->provenances * VK_PROVENANCE_SIZE;
	if (h->inline_n) memcpy(p, h->inline_p, h->inline_n);
	p += h->inline_n;
	uint32_t crc = vk_crc32c(cpu, 0, key->b, sizeof key->b);
	vk_put_u32le(p, vk_crc32c(cpu, crc, dst, (size_t)(p - dst)));
	return (size_t)(p + 4 - dst);
}

bool vk_row_head_decode(struct vk_row_head *h, const struct vk_cache_key *key, const void *bytes,
			size_t n, enum vk_cpu_level cpu)
{
	const uint8_t *p = bytes;
	if (n < HEAD_FIXED + 4 || n > VK_ROW_HEAD_MAX || memcmp(p, "vr\1\0", 4) != 0) return false;
	uint32_t crc = vk_crc32c(cpu, 0, key->b, sizeof key->b);
	if (vk_crc32c(cpu, crc, p, n - 4) != vk_get_u32le(p + n - 4)) return false;

	h->meta = (struct vk_cache_meta){
	    .flags = (uint16_t)(p[4] | p[5] << 8),
	    .role = p[6],
	    .dims = vk_get_u32le(p + 8),
	    .input_len = vk_get_u32le(p + 12),
	    .tokens = vk_get_u32le(p + 16),
	    .created_ms = (int64_t)vk_get_u64le(p + 20),
	    .provider = vk_get_u32le(p + 28),
	    .norm = get_f32(p + 32),
	};
	h->row_crc = vk_get_u32le(p + 36);
	h->pages = p[40];
	h->provenances = p[41];
	unsigned parts = p[7];
	if (h->meta.dims == 0 || h->meta.dims > VK_DIMS_MAX || parts >> VK_ROW_CLASSES ||
	    h->provenances > VK_PROVENANCES_MAX)
		return false;

	size_t fixed =
	    HEAD_FIXED + 4 + (h->pages ? ID_SIZE : 0) + (size_t)h->provenances * VK_PROVENANCE_SIZE;
	for (unsigned c = 0; c < VK_ROW_CLASSES; c++) fixed += (parts >> c & 1) * ID_SIZE;
	if (h->meta.flags & VK_CACHE_ENCRYPTED) fixed += SEAL_SIZE;
	if (n < fixed || n - fixed > VK_ROW_INLINE_MAX) return false;

	p += HEAD_FIXED;
	h->page_id = 0;
	if (h->pages) {
		h->page_id = get_id(p);
		p += ID_SIZE;
	}
	for (unsigned c = 0; c < VK_ROW_CLASSES; c++) {
		h->part_set[c] = parts >> c & 1;
		h->part_id[c] = 0;
		if (!h->part_set[c]) continue;
		h->part_id[c] = get_id(p);
		p += ID_SIZE;
	}
	if (h->meta.flags & VK_CACHE_ENCRYPTED) p += SEAL_SIZE;
	memcpy(h->provenance, p, (size_t)h->provenances * VK_PROVENANCE_SIZE);
	h->inline_p = p + (size_t)h->provenances * VK_PROVENANCE_SIZE;
	h->inline_n = (uint32_t)(n - fixed);
	return true;
}

void vk_provenance_key(uint8_t dst[VK_PROVENANCE_KEY_SIZE], uint32_t pool,
		       const uint8_t provenance[VK_PROVENANCE_SIZE])
{
	vk_put_u32be(dst, pool);
	memcpy(dst + 4, provenance, VK_PROVENANCE_SIZE);
}

void vk_provenance_value(uint8_t dst[VK_PROVENANCE_VALUE_SIZE], const struct vk_cache_key *key)
{
	memcpy(dst, key->b + 4, VK_PROVENANCE_VALUE_SIZE);
}

bool vk_provenance_decode(struct vk_cache_key *key, uint32_t pool, const void *p, size_t n)
{
	if (n != VK_PROVENANCE_VALUE_SIZE) return false;
	vk_put_u32be(key->b, pool);
	memcpy(key->b + 4, p, n);
	return true;
}

void vk_totals_encode(uint8_t dst[VK_TOTALS_SIZE], const struct vk_totals *t, enum vk_cpu_level cpu)
{
	memcpy(dst, "vt\1\0", 4);
	vk_put_u64le(dst + 4, t->row_bytes);
	vk_put_u64le(dst + 12, t->journal_seq);
	vk_put_u32le(dst + 20, vk_crc32c(cpu, 0, dst, 20));
}

bool vk_totals_decode(struct vk_totals *t, const void *bytes, size_t n, enum vk_cpu_level cpu)
{
	const uint8_t *p = bytes;
	if (n != VK_TOTALS_SIZE || memcmp(p, "vt\1\0", 4) != 0) return false;
	if (vk_crc32c(cpu, 0, p, 20) != vk_get_u32le(p + 20)) return false;
	t->row_bytes = vk_get_u64le(p + 4);
	t->journal_seq = vk_get_u64le(p + 12);
	return true;
}

void vk_cache_key_set(struct vk_cache_key *k, uint32_t pool, const uint8_t tag[VK_CACHE_TAG_SIZE],
		      uint32_t space, const uint8_t id[VK_CACHE_ID_SIZE])
{
	vk_put_u32be(k->b, pool);
	memcpy(k->b + 4, tag, VK_CACHE_TAG_SIZE);
	vk_put_u32be(k->b + 20, space);
	memcpy(k->b + 24, id, VK_CACHE_ID_SIZE);
}

uint32_t vk_cache_key_pool(const struct vk_cache_key *k) { return vk_get_u32be(k->b); }

uint32_t vk_cache_key_space(const struct vk_cache_key *k) { return vk_get_u32be(k->b + 20); }
