/*
 * Goal: CRC-32C at every level is the one of RFC 3720, in one piece or many.
 * Method: the RFC's vectors; every length 0..300, long ones around the interleaved block sizes,
 * at every alignment, against a bit-by-bit loop; random cuts. VK_TEST_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simd/crc32c.h"
#include "tests/simd/levels.h"

static uint32_t bitwise(uint32_t crc, const uint8_t *p, size_t n)
{
	crc = ~crc;
	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void test_crc32c_published_vectors(void **state)
{
	(void)state;
	uint8_t b[32];
	static const uint8_t iscsi_read[48] = {
		0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
		0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0};
	for_each_level(level) {
		assert_int_equal(vk_crc32c(level, 0, "123456789", 9), 0xe3069283);
		assert_int_equal(vk_crc32c(level, 0, "", 0), 0);
		memset(b, 0, sizeof b);
		assert_int_equal(vk_crc32c(level, 0, b, 32), 0x8a9136aa);
		memset(b, 0xff, sizeof b);
		assert_int_equal(vk_crc32c(level, 0, b, 32), 0x62a8ab43);
		for (int i = 0; i < 32; i++) b[i] = (uint8_t)i;
		assert_int_equal(vk_crc32c(level, 0, b, 32), 0x46dd794e);
		for (int i = 0; i < 32; i++) b[i] = (uint8_t)(31 - i);
		assert_int_equal(vk_crc32c(level, 0, b, 32), 0x113fdb5c);
		assert_int_equal(vk_crc32c(level, 0, iscsi_read, 48), 0xd9963a56);
	}
}

static void test_crc32c_every_length_equals_bitwise(void **state)
{
	(void)state;
	enum { MAX = 20000 };
	uint64_t rng = test_seed();
	uint8_t *buf = malloc(MAX + 16);
	for (size_t i = 0; i < MAX + 16; i++) buf[i] = (uint8_t)vk_rng(&rng);
	for_each_level(level) {
		for (size_t n = 0; n <= 300; n++)
			for (size_t shift = 0; shift < 16; shift++) {
				uint32_t start = (uint32_t)vk_rng(&rng);
				assert_int_equal(vk_crc32c(level, start, buf + shift, n),
						 bitwise(start, buf + shift, n));
			}
		static const size_t edge[] = {767, 768, 769, 1535, 1536, 6143, 6144, 6145, 6912, 12288, 13057, MAX};
		for (size_t i = 0; i < sizeof edge / sizeof edge[0]; i++)
			for (size_t shift = 0; shift < 9; shift++)
				assert_int_equal(vk_crc32c(level, 7, buf + shift, edge[i]),
						 bitwise(7, buf + shift, edge[i]));
	}
	free(buf);
}

static void test_crc32c_pieces_equal_the_whole(void **state)
{
	(void)state;
	uint64_t rng = test_seed();
	uint8_t buf[9000];
	for (size_t i = 0; i < sizeof buf; i++) buf[i] = (uint8_t)vk_rng(&rng);
	for_each_level(level)
		for (int round = 0; round < 200; round++) {
			uint32_t crc = 0;
			for (size_t at = 0; at < sizeof buf;) {
				size_t n = 1 + vk_rng(&rng) % (sizeof buf - at);
				crc = vk_crc32c(level, crc, buf + at, n);
				at += n;
			}
			assert_int_equal(crc, bitwise(0, buf, sizeof buf));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc32c_published_vectors),
		cmocka_unit_test(test_crc32c_every_length_equals_bitwise),
		cmocka_unit_test(test_crc32c_pieces_equal_the_whole),
	};
	return cmocka_run_group_tests_name("simd/crc32c", tests, NULL, NULL);
}
