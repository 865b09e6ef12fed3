/*
 * Goal: SHA-256 and HMAC are the published ones, in any number of pieces; the table hash
 * depends on every byte and on its seed.
 * Method: FIPS 180-4 and RFC 4231 vectors; random cuts against the whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"

static void assert_hex(const uint8_t *got, const char *want)
{
	char hex[2 * VK_SHA256_SIZE + 1];
	vk_hex(hex, got, VK_SHA256_SIZE);
	assert_string_equal(hex, want);
}

static void test_hash_sha256_published_vectors(void **state)
{
	(void)state;
	static const char *const t[][2] = {
		{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
	};
	uint8_t out[VK_SHA256_SIZE];
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		vk_sha256(t[i][0], strlen(t[i][0]), out);
		assert_hex(out, t[i][1]);
	}
	char *million = malloc(1000000);
	memset(million, 'a', 1000000);
	vk_sha256(million, 1000000, out);
	assert_hex(out, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	free(million);
}

static void test_hash_sha256_pieces_equal_the_whole(void **state)
{
	(void)state;
	uint64_t rng = 1;
	uint8_t data[700], want[VK_SHA256_SIZE], got[VK_SHA256_SIZE];
	for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)vk_rng(&rng);
	vk_sha256(data, sizeof data, want);
	for (int round = 0; round < 300; round++) {
		struct vk_sha256 s, fork;
		vk_sha256_init(&s);
		for (size_t at = 0; at < sizeof data;) {
			size_t n = vk_rng(&rng) % (sizeof data - at + 1);
			vk_sha256_update(&s, data + at, n);
			at += n;
			fork = s; /* a copied state goes on by itself */
			vk_sha256_update(&fork, "x", 1);
		}
		vk_sha256_final(&s, got);
		assert_memory_equal(got, want, sizeof got);
		vk_sha256_final(&fork, got);
		assert_memory_not_equal(got, want, sizeof got);
	}
}

static void test_hash_hmac_rfc4231_vectors(void **state)
{
	(void)state;
	uint8_t key[131], data[152], out[VK_SHA256_SIZE];
	struct vk_hmac_key k;

	memset(key, 0x0b, 20);
	vk_hmac_key_init(&k, key, 20);
	vk_hmac(&k, "Hi There", 8, out);
	assert_hex(out, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");

	vk_hmac_key_init(&k, "Jefe", 4);
	vk_hmac(&k, "what do ya want for nothing?", 28, out);
	assert_hex(out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");

	memset(key, 0xaa, sizeof key);
	memset(data, 0xdd, 50);
	vk_hmac_key_init(&k, key, 20);
	vk_hmac(&k, data, 50, out);
	assert_hex(out, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");

	for (uint8_t i = 0; i < 25; i++) key[i] = (uint8_t)(i + 1);
	memset(data, 0xcd, 50);
	vk_hmac_key_init(&k, key, 25);
	vk_hmac(&k, data, 50, out);
	assert_hex(out, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b");

	memset(key, 0xaa, sizeof key);
	vk_hmac_key_init(&k, key, 131); /* longer than a block: hashed first */
	const char *text = "Test Using Larger Than Block-Size Key - Hash Key First";
	vk_hmac(&k, text, strlen(text), out);
	assert_hex(out, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
	text = "This is a test using a larger than block-size key and a larger than block-size data. "
	       "The key needs to be hashed before being used by the HMAC algorithm.";
	vk_hmac(&k, text, strlen(text), out);
	assert_hex(out, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");

	/* In pieces, twice from one key. */
	for (int i = 0; i < 2; i++) {
		struct vk_sha256 s;
		vk_hmac_start(&k, &s);
		vk_sha256_update(&s, text, 10);
		vk_sha256_update(&s, text + 10, strlen(text) - 10);
		vk_hmac_final(&k, &s, out);
		assert_hex(out, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
	}
}

static void test_hash64_depends_on_every_bit_and_the_seed(void **state)
{
	(void)state;
	for (size_t n = 1; n <= 40; n++) {
		uint8_t data[40] = {0};
		uint64_t h = vk_hash64(1, data, n);
		assert_true(h == vk_hash64(1, data, n));
		assert_true(h != vk_hash64(2, data, n));
		assert_true(h != vk_hash64(1, data, n - 1)); /* zeros count by their number */
		for (size_t bit = 0; bit < 8 * n; bit++) {
			data[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_true(h != vk_hash64(1, data, n));
			data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
}

/* Like table indexes: 2^16 counters into 2^12 buckets, none more than thrice its share. */
static void test_hash64_spreads_counters(void **state)
{
	(void)state;
	static unsigned bucket[1 << 12];
	for (uint32_t i = 0; i < 1 << 16; i++) bucket[vk_hash64(7, &i, sizeof i) & 4095]++;
	for (int i = 0; i < 1 << 12; i++) assert_in_range(bucket[i], 1, 48);
}

static void test_hash_wipe_and_random(void **state)
{
	(void)state;
	uint8_t a[64] = {1}, b[64], zero[64] = {0};
	vk_random(a, sizeof a);
	vk_random(b, sizeof b);
	assert_memory_not_equal(a, b, sizeof a);
	vk_wipe(a, sizeof a);
	assert_memory_equal(a, zero, sizeof a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hash_sha256_published_vectors),
		cmocka_unit_test(test_hash_sha256_pieces_equal_the_whole),
		cmocka_unit_test(test_hash_hmac_rfc4231_vectors),
		cmocka_unit_test(test_hash64_depends_on_every_bit_and_the_seed),
		cmocka_unit_test(test_hash64_spreads_counters),
		cmocka_unit_test(test_hash_wipe_and_random),
	};
	return cmocka_run_group_tests_name("base/hash", tests, NULL, NULL);
}
