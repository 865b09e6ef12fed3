/*
 * libcrypto's door in this room. The low-level SHA256_* calls are used although OpenSSL 3
 * calls them old: they are the only ones whose state is a plain struct that can be copied
 * without allocation. EVP_MAC costs about 1 us a call in fetches and allocation, twice what
 * hashing a short text costs, and every cache look-up makes two MACs.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <sys/random.h>

_Static_assert(sizeof(SHA256_CTX) <= sizeof(struct vk_sha256), "room for libcrypto's state");

static SHA256_CTX *ctx(struct vk_sha256 *s)
{
	return (SHA256_CTX *)(void *)s->state;
}

void vk_sha256_init(struct vk_sha256 *s)
{
	SHA256_Init(ctx(s));
}

void vk_sha256_update(struct vk_sha256 *s, const void *p, size_t n)
{
	if (n) SHA256_Update(ctx(s), p, n);
}

void vk_sha256_final(struct vk_sha256 *s, uint8_t out[VK_SHA256_SIZE])
{
	SHA256_Final(out, ctx(s));
}

void vk_sha256(const void *p, size_t n, uint8_t out[VK_SHA256_SIZE])
{
	struct vk_sha256 s;
	vk_sha256_init(&s);
	vk_sha256_update(&s, p, n);
	vk_sha256_final(&s, out);
}

void vk_hmac_key_init(struct vk_hmac_key *k, const void *secret, size_t n)
{
	uint8_t block[64] = {0}, pad[64];
	if (n > sizeof block)
		vk_sha256(secret, n, block);
	else if (n)
		memcpy(block, secret, n);
	memset(k, 0, sizeof *k);
	for (int i = 0; i < 64; i++) pad[i] = block[i] ^ 0x36;
	vk_sha256_init(&k->inner);
	vk_sha256_update(&k->inner, pad, sizeof pad);
	for (int i = 0; i < 64; i++) pad[i] = block[i] ^ 0x5c;
	vk_sha256_init(&k->outer);
	vk_sha256_update(&k->outer, pad, sizeof pad);
	vk_wipe(block, sizeof block);
	vk_wipe(pad, sizeof pad);
}

void vk_hmac_start(const struct vk_hmac_key *k, struct vk_sha256 *s)
{
	*s = k->inner;
}

void vk_hmac_final(const struct vk_hmac_key *k, struct vk_sha256 *s, uint8_t out[VK_SHA256_SIZE])
{
	uint8_t digest[VK_SHA256_SIZE];
	struct vk_sha256 outer = k->outer;
	vk_sha256_final(s, digest);
	vk_sha256_update(&outer, digest, sizeof digest);
	vk_sha256_final(&outer, out);
}

void vk_hmac(const struct vk_hmac_key *k, const void *p, size_t n, uint8_t out[VK_SHA256_SIZE])
{
	struct vk_sha256 s;
	vk_hmac_start(k, &s);
	vk_sha256_update(&s, p, n);
	vk_hmac_final(k, &s, out);
}

/* Multiply-fold over 8-byte words: two multiplications a word are enough for a table
 * whose seed nobody outside knows. */
static uint64_t fold(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;
	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

uint64_t vk_hash64(uint64_t seed, const void *p, size_t n)
{
	const uint8_t *s = p;
	uint64_t h = seed ^ fold(n ^ 0xa0761d6478bd642fu, 0xe7037ed1a0b428dbu);
	for (; n >= 8; s += 8, n -= 8) h = fold(h ^ vk_get_u64le(s), 0x8ebc6af09c88c6e3u);
	uint64_t tail = 0;
	for (size_t i = 0; i < n; i++) tail |= (uint64_t)s[i] << (8 * i);
	h = fold(h ^ tail, 0x589965cc75374cc3u);
	return fold(h, 0x1d8e4e27c47d124fu);
}

void vk_random(void *p, size_t n)
{
	uint8_t *d = p;
	while (n) {
		ssize_t got = getrandom(d, n, 0);
		if (got < 0 && errno == EINTR) continue;
		if (got <= 0) abort();
		d += got;
		n -= (size_t)got;
	}
}

void vk_wipe(void *p, size_t n)
{
	OPENSSL_cleanse(p, n);
}
