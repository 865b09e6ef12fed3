/* The journal's entries and the catalog's records. */
#include "store/record.h"

#include <assert.h>
#include <string.h>

#include "simd/crc32c.h"

#define PUT_FIXED (VK_CACHE_KEY_SIZE + 32)

static void put_f32(uint8_t *p, float v) { memcpy(p, &v, 4); }

static float get_f32(const uint8_t *p)
{
	float v;
	memcpy(&v, p, 4);
	return v;
}

void vk_segment_head_encode(uint8_t dst[VK_SEGMENT_HEAD_SIZE], const struct vk_segment_head *h,
			    enum vk_cpu_level cpu)
{
	memcpy(dst, "vkjrnl\1\0", 8);
	vk_put_u64le(dst + 8, h->salt);
	vk_put_u64le(dst + 16, h->first_seq);
	vk_put_u32le(dst + 24, vk_crc32c(cpu, 0, dst, 24));
	vk_put_u32le(dst + 28, 0);
}

bool vk_segment_head_decode(struct vk_segment_head *h, const void *bytes, size_t n,
			    enum vk_cpu_level cpu)
{
	const uint8_t *p = bytes;
	if (n < VK_SEGMENT_HEAD_SIZE || memcmp(p, "vkjrnl\1\0", 8) != 0) return false;
	if (vk_crc32c(cpu, 0, p, 24) != vk_get_u32le(p + 24)) return false;
	h->salt = vk_get_u64le(p + 8);
	h->first_seq = vk_get_u64le(p + 16);
	return true;
}

size_t vk_entry_size(const struct vk_cache_put *puts, size_t n)
{
	size_t size = VK_ENTRY_HEAD_SIZE + 4;
	for (size_t i = 0; i < n; i++) {
		size += PUT_FIXED + (puts[i].has_provenance ? VK_PROVENANCE_SIZE : 0) +
			(size_t)puts[i].meta.dims * 4;
		if (size > VK_ENTRY_MAX) return 0;
	}
	return size;
}

static uint8_t *encode_put(uint8_t *p, const struct vk_cache_put *put)
{
	const struct vk_cache_meta *m = &put->meta;
	memcpy(p, put->key.b, VK_CACHE_KEY_SIZE);
	p += VK_CACHE_KEY_SIZE;
	p[0] = (uint8_t)m->flags;
	p[1] = (uint8_t)(m->flags >> 8);
	p[2] = m->role;
	p[3] = (uint8_t)(put->has_provenance | put->replace << 1);
	vk_put_u32le(p + 4, m->dims);
	vk_put_u32le(p + 8, m->input_len);
	vk_put_u32le(p + 12, m->tokens);
	vk_put_u64le(p + 16, (uint64_t)m->created_ms);
	vk_put_u32le(p + 24, m->provider);
	put_f32(p + 28, m->norm);
	p += 32;
	if (put->has_provenance) {
		memcpy(p, put->provenance, VK_PROVENANCE_SIZE);
		p += VK_PROVENANCE_SIZE;
	}
	memcpy(p, put->row, (size_t)m->dims * 4);
	return p + (size_t)m->dims * 4;
}

void vk_entry_encode(uint8_t *dst, const struct vk_cache_put *puts, size_t n)
{
	uint8_t *p = dst + VK_ENTRY_HEAD_SIZE;
	vk_put_u32le(p, (uint32_t)n);
	p += 4;
	for (size_t i = 0; i < n; i++) p = encode_put(p, &puts[i]);
}

uint32_t vk_entry_payload_crc(const uint8_t *entry, size_t entry_n, enum vk_cpu_level cpu)
{
	return vk_crc32c(cpu, 0, entry + VK_ENTRY_HEAD_SIZE, entry_n - VK_ENTRY_HEAD_SIZE);
}

/* The payload's CRC is taken before the journal's lock, this one under it: it is short. */
static uint32_t entry_crc(uint32_t payload_crc, size_t payload_n, uint64_t salt, uint64_t seq,
			  enum vk_cpu_level cpu)
{
	uint8_t b[24];
	vk_put_u64le(b, salt);
	vk_put_u64le(b + 8, seq);
	vk_put_u32le(b + 16, (uint32_t)payload_n);
	vk_put_u32le(b + 20, payload_crc);
	return vk_crc32c(cpu, 0, b, sizeof b);
}

void vk_entry_seal(uint8_t *entry, size_t entry_n, uint32_t payload_crc, uint64_t salt,
		   uint64_t seq, enum vk_cpu_level cpu)
{
	size_t payload_n = entry_n - VK_ENTRY_HEAD_SIZE;
	vk_put_u32le(entry, (uint32_t)payload_n);
	vk_put_u32le(entry + 4, entry_crc(payload_crc, payload_n, salt, seq, cpu));
	vk_put_u64le(entry + 8, seq);
}

size_t vk_entry_check(const void *bytes, size_t n, uint64_t salt, uint64_t seq,
		      enum vk_cpu_level cpu)
{
	const uint8_t *p = bytes;
	if (n < VK_ENTRY_HEAD_SIZE + 4) return 0;
	size_t payload_n = vk_get_u32le(p), entry_n = payload_n + VK_ENTRY_HEAD_SIZE;
	if (entry_n > n || entry_n > VK_ENTRY_MAX || payload_n < 4) return 0;
	if (vk_get_u64le(p + 8) != seq) return 0;
	uint32_t payload_crc = vk_entry_payload_crc(p, entry_n, cpu);
	return entry_crc(payload_crc, payload_n, salt, seq, cpu) == vk_get_u32le(p + 4) ? entry_n
											: 0;
}

bool vk_entry_walk_start(struct vk_entry_walk *w, const uint8_t *entry, size_t entry_n)
{
	if (entry_n < VK_ENTRY_HEAD_SIZE + 4) return false;
	w->p = entry + VK_ENTRY_HEAD_SIZE + 4;
	w->end = entry + entry_n;
	w->left = vk_get_u32le(w->p - 4);
	return true;
}

bool vk_entry_walk_next(struct vk_entry_walk *w, struct vk_entry_put *put)
{
	if (w->left == 0 || (size_t)(w->end - w->p) < PUT_FIXED) return false;
	memcpy(put->key.b, w->p, VK_CACHE_KEY_SIZE);
	const uint8_t *p = w->p + VK_CACHE_KEY_SIZE;
	put->meta = (struct vk_cache_meta){
	    .flags = (uint16_t)(p[0] | p[1] << 8),
	    .role = p[2],
	    .dims = vk_get_u32le(p + 4),
	    .input_len = vk_get_u32le(p + 8),
	    .tokens = vk_get_u32le(p + 12),
	    .created_ms = (int64_t)vk_get_u64le(p + 16),
	    .provider = vk_get_u32le(p + 24),
	    .norm = get_f32(p + 28),
	};
	unsigned bits = p[3];
	bool has_provenance = bits & 1;
	put->replace = (bits & 2) != 0;
	p += 32;
	if (bits > 3 || put->meta.dims == 0 || put->meta.dims > VK_DIMS_MAX) return false;
	size_t rest = (has_provenance ? VK_PROVENANCE_SIZE : 0) + (size_t)put->meta.dims * 4;
	if ((size_t)(w->end - p) < rest) return false;
	put->provenance = has_provenance ? p : NULL;
	put->row = has_provenance ? p + VK_PROVENANCE_SIZE : p;
	w->p = p + rest;
	w->left--;
	return true;
}

/* Catalog records share one frame: two magic letters, version 1, one byte, body, CRC. They are
 * few, so the scalar level (the meaning) does. */
static void frame_start(struct vk_buf *dst, size_t *at, const char magic[2], uint8_t byte)
{
	*at = dst->n;
	vk_buf_put(dst, magic, 2);
	vk_buf_putc(dst, 1);
	vk_buf_putc(dst, (char)byte);
}

static void frame_end(struct vk_buf *dst, size_t at)
{
	uint8_t crc[4];
	if (dst->failed) return;
	vk_put_u32le(crc, vk_crc32c(VK_CPU_SCALAR, 0, dst->p + at, dst->n - at));
	vk_buf_put(dst, crc, 4);
}

static bool frame_open(struct vk_bytes src, const char magic[2], const uint8_t **body, size_t *n)
{
	const uint8_t *p = (const uint8_t *)src.p;
	if (src.n < 8 || memcmp(p, magic, 2) != 0 || p[2] != 1) return false;
	if (vk_crc32c(VK_CPU_SCALAR, 0, p, src.n - 4) != vk_get_u32le(p + src.n - 4)) return false;
	*body = p + 4;
	*n = src.n - 8;
	return true;
}

static void append_u32(struct vk_buf *dst, uint32_t v)
{
	uint8_t b[4];
	vk_put_u32le(b, v);
	vk_buf_put(dst, b, 4);
}

static void append_u64(struct vk_buf *dst, uint64_t v)
{
	uint8_t b[8];
	vk_put_u64le(b, v);
	vk_buf_put(dst, b, 8);
}

void vk_rec_pool_encode(struct vk_buf *dst, const struct vk_rec_pool *r)
{
	size_t at;
	assert(r->secrets >= 1 && r->secrets <= VK_POOL_SECRETS_MAX);
	frame_start(dst, &at, "vp", 0);
	append_u32(dst, r->id);
	append_u64(dst, (uint64_t)r->created_ms);
	append_u32(dst, r->secrets);
	vk_buf_put(dst, r->secret, (size_t)r->secrets * VK_POOL_SECRET_SIZE);
	frame_end(dst, at);
}

bool vk_rec_pool_decode(struct vk_rec_pool *r, struct vk_bytes src)
{
	const uint8_t *p;
	size_t n;
	if (!frame_open(src, "vp", &p, &n) || n < 16) return false;
	r->id = vk_get_u32le(p);
	r->created_ms = (int64_t)vk_get_u64le(p + 4);
	r->secrets = vk_get_u32le(p + 12);
	if (r->secrets < 1 || r->secrets > VK_POOL_SECRETS_MAX) return false;
	if (n != 16 + (size_t)r->secrets * VK_POOL_SECRET_SIZE) return false;
	memcpy(r->secret, p + 16, n - 16);
	return true;
}

void vk_rec_canary_encode(struct vk_buf *dst, const struct vk_rec_canary *r)
{
	size_t at;
	uint8_t cosine[4];
	assert(r->dims >= 1 && r->dims <= VK_DIMS_MAX && r->n <= VK_CANARY_ROWS_MAX);
	frame_start(dst, &at, "vc", r->verdict);
	append_u64(dst, (uint64_t)r->when_ms);
	put_f32(cosine, r->cosine_min);
	vk_buf_put(dst, cosine, 4);
	append_u32(dst, r->dims);
	append_u32(dst, r->n);
	if (r->n) vk_buf_put(dst, r->rows, (size_t)r->n * r->dims * 4);
	frame_end(dst, at);
}

bool vk_rec_canary_decode(struct vk_rec_canary *r, struct vk_bytes src)
{
	const uint8_t *p;
	size_t n;
	if (!frame_open(src, "vc", &p, &n) || n < 20) return false;
	r->verdict = (uint8_t)src.p[3];
	r->when_ms = (int64_t)vk_get_u64le(p);
	r->cosine_min = get_f32(p + 8);
	r->dims = vk_get_u32le(p + 12);
	r->n = vk_get_u32le(p + 16);
	if (r->dims < 1 || r->dims > VK_DIMS_MAX || r->n > VK_CANARY_ROWS_MAX) return false;
	if (n != 20 + (size_t)r->n * r->dims * 4) return false;
	r->rows = p + 20;
	return true;
}

#define USAGE_COUNTERS 11
_Static_assert(sizeof(struct vk_rec_usage) == USAGE_COUNTERS * 8, "every counter is written");

void vk_rec_usage_encode(struct vk_buf *dst, const struct vk_rec_usage *r)
{
	uint64_t v[USAGE_COUNTERS];
	size_t at;
	memcpy(v, r, sizeof v);
	frame_start(dst, &at, "vu", 0);
	for (int i = 0; i < USAGE_COUNTERS; i++) append_u64(dst, v[i]);
	frame_end(dst, at);
}

bool vk_rec_usage_decode(struct vk_rec_usage *r, struct vk_bytes src)
{
	uint64_t v[USAGE_COUNTERS];
	const uint8_t *p;
	size_t n;
	if (!frame_open(src, "vu", &p, &n) || n != sizeof v) return false;
	for (int i = 0; i < USAGE_COUNTERS; i++) v[i] = vk_get_u64le(p + 8 * i);
	memcpy(r, v, sizeof v);
	return true;
}
