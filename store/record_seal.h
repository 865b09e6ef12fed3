/* The envelope of a small record: version u8 before, CRC-32C of its key and of what stands before it behind. */
#ifndef VK_STORE_RECORD_SEAL_H
#define VK_STORE_RECORD_SEAL_H

#include "base/bytes.h"
#include "simd/cpu.h"
#include "simd/crc32c.h"

static inline uint32_t vk_rec_crc(struct vk_bytes key, const uint8_t *p, size_t n)
{
	uint32_t crc = vk_crc32c(vk_cpu_best(), 0, key.p, key.n);
	return vk_crc32c(vk_cpu_best(), crc, p, n);
}

/* Puts version 1 and CRC around what the caller wrote into dst[1..n). Returns the whole size. */
static inline size_t vk_rec_seal(uint8_t *dst, size_t n, struct vk_bytes key)
{
	dst[0] = 1;
	vk_put_u32le(dst + n, vk_rec_crc(key, dst, n));
	return n + 4;
}

/* The bytes behind the version, and how many before the CRC; NULL when it does not check. */
static inline const uint8_t *vk_rec_open(struct vk_bytes value, struct vk_bytes key, size_t *n)
{
	const uint8_t *p = (const uint8_t *)value.p;
	if (value.n < 5 || p[0] != 1) return NULL;
	if (vk_rec_crc(key, p, value.n - 4) != vk_get_u32le(p + value.n - 4)) return NULL;
	*n = value.n - 5;
	return p + 1;
}

/* A record that is one u64: how far a long job has come. */
enum { VK_REC_U64_SIZE = 1 + 8 + 4 };

static inline void vk_rec_u64_encode(uint8_t dst[VK_REC_U64_SIZE], struct vk_bytes key, uint64_t v)
{
	vk_put_u64le(dst + 1, v);
	vk_rec_seal(dst, 9, key);
}

static inline bool vk_rec_u64_decode(struct vk_bytes key, struct vk_bytes value, uint64_t *v)
{
	size_t n;
	const uint8_t *p = vk_rec_open(value, key, &n);
	if (!p || n != 8) return false;
	*v = vk_get_u64le(p);
	return true;
}

#endif
