/*
 * Hashes. SHA-256 and HMAC-SHA256 (libcrypto, in hash.c alone) for keys, tags and
 * secrets; a keyed 64-bit hash for in-memory tables, seeded per process so that a
 * stranger cannot aim for one bucket.
 *
 * struct vk_hmac_key holds a secret with both padded blocks already absorbed: a MAC of
 * a short text then costs two compressions, and nothing is allocated. It is the secret:
 * wipe it with vk_wipe().
 */
#ifndef VK_BASE_HASH_H
#define VK_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

#define VK_SHA256_SIZE 32

struct vk_sha256 { /* a running digest; plain data, copy it to fork the state */
	_Alignas(16) uint8_t state[128];
};
void vk_sha256_init(struct vk_sha256 *s);
void vk_sha256_update(struct vk_sha256 *s, const void *p, size_t n);
void vk_sha256_final(struct vk_sha256 *s, uint8_t out[VK_SHA256_SIZE]);
void vk_sha256(const void *p, size_t n, uint8_t out[VK_SHA256_SIZE]);

struct vk_hmac_key {
	struct vk_sha256 inner, outer;
};
void vk_hmac_key_init(struct vk_hmac_key *k, const void *secret, size_t n);
/* MAC of one span; and of several: start, update..., final. RFC 2104, FIPS 180-4. */
void vk_hmac(const struct vk_hmac_key *k, const void *p, size_t n, uint8_t out[VK_SHA256_SIZE]);
void vk_hmac_start(const struct vk_hmac_key *k, struct vk_sha256 *s);
void vk_hmac_final(const struct vk_hmac_key *k, struct vk_sha256 *s, uint8_t out[VK_SHA256_SIZE]);

/* 64 bits for tables; `seed` from vk_random(). Not for keys that leave the process. */
uint64_t vk_hash64(uint64_t seed, const void *p, size_t n);

/* n bytes from the kernel's generator; aborts when the kernel has none to give. */
void vk_random(void *p, size_t n);

/* Clears memory in a way that the compiler may not drop. */
void vk_wipe(void *p, size_t n);

/* A small generator for tests, jitter and sampling: SplitMix64 (Steele et al. 2014).
 * The state is the argument, so a printed seed replays. */
static inline uint64_t vk_rng(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

#endif
