/*
 * CRC-32C by tables (eight bytes a step), by the CRC instruction of SSE4.2 on three streams at
 * once, and by AArch64's.
 *
 * The instruction takes 3 cycles but one can start every cycle, so three neighbouring blocks
 * are fed side by side and joined: a CRC over A|B is crc(A) * x^(8 * len(B)) xor crc(B). The
 * multiplication is one carry-less product by a constant, reduced by one more CRC step; that
 * step brings x^32 and the reflected product x^1, hence the constants x^(8 * len - 33) mod P.
 */
#include "simd/crc32c.h"

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#endif

#define POLY 0x82f63b78u

static struct {
	pthread_once_t once;
	uint32_t t[8][256]; /* t[k][b]: byte b, then k zero bytes */
} table = {.once = PTHREAD_ONCE_INIT};

static void init(void)
{
	for (uint32_t b = 0; b < 256; b++) {
		uint32_t c = b;
		for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? POLY : 0);
		table.t[0][b] = c;
	}
	for (int k = 1; k < 8; k++)
		for (uint32_t b = 0; b < 256; b++) {
			uint32_t c = table.t[k - 1][b];
			table.t[k][b] = c >> 8 ^ table.t[0][c & 255];
		}
}

static uint64_t load64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap64(v);
#endif
	return v;
}

static uint32_t crc_scalar(uint32_t c, const uint8_t *p, size_t n)
{
	pthread_once(&table.once, init);
	for (; n >= 8; p += 8, n -= 8) {
		uint64_t v = load64(p) ^ c;
		c = table.t[7][v & 255] ^ table.t[6][v >> 8 & 255] ^ table.t[5][v >> 16 & 255] ^
		    table.t[4][v >> 24 & 255] ^ table.t[3][v >> 32 & 255] ^ table.t[2][v >> 40 & 255] ^
		    table.t[1][v >> 48 & 255] ^ table.t[0][v >> 56];
	}
	for (; n; p++, n--) c = c >> 8 ^ table.t[0][(c ^ *p) & 255];
	return c;
}

#if defined(__x86_64__)

#define SHORT 256 /* bytes a stream */
#define LONG 2048
/* x^(8 * len - 33) mod P, reflected, for one and two blocks behind. */
#define SHORT_1 0xb9e02b86u
#define SHORT_2 0xdd7e3b0cu
#define LONG_1 0xa51b6135u
#define LONG_2 0x82f89c77u

__attribute__((target("sse4.2,pclmul"))) static uint64_t times(uint64_t crc, uint32_t k)
{
	__m128i v = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc),
					 _mm_cvtsi64_si128((long long)k), 0);
	return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(v));
}

/* Three blocks of len bytes from p. */
__attribute__((target("sse4.2,pclmul"))) static uint64_t
three(uint64_t a, const uint8_t *p, size_t len, uint32_t one, uint32_t two)
{
	uint64_t b = 0, c = 0;
	for (size_t i = 0; i < len; i += 8) {
		a = _mm_crc32_u64(a, load64(p + i));
		b = _mm_crc32_u64(b, load64(p + len + i));
		c = _mm_crc32_u64(c, load64(p + 2 * len + i));
	}
	return times(a, two) ^ times(b, one) ^ c;
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t crc_sse42(uint32_t crc, const uint8_t *p, size_t n)
{
	uint64_t c = crc;
	for (; n >= 3 * LONG; p += 3 * LONG, n -= 3 * LONG) c = three(c, p, LONG, LONG_1, LONG_2);
	for (; n >= 3 * SHORT; p += 3 * SHORT, n -= 3 * SHORT) c = three(c, p, SHORT, SHORT_1, SHORT_2);
	for (; n >= 8; p += 8, n -= 8) c = _mm_crc32_u64(c, load64(p));
	for (; n; p++, n--) c = _mm_crc32_u8((uint32_t)c, *p);
	return (uint32_t)c;
}

#elif defined(__aarch64__)

__attribute__((target("+crc"))) static uint32_t crc_neon(uint32_t c, const uint8_t *p, size_t n)
{
	for (; n >= 8; p += 8, n -= 8) c = __crc32cd(c, load64(p));
	for (; n; p++, n--) c = __crc32cb(c, *p);
	return c;
}

#endif

uint32_t vk_crc32c(enum vk_cpu_level level, uint32_t crc, const void *p, size_t n)
{
	crc = ~crc;
#if defined(__x86_64__)
	if (level == VK_CPU_AVX2 || level == VK_CPU_AVX512) return ~crc_sse42(crc, p, n);
#elif defined(__aarch64__)
	if (level == VK_CPU_NEON) return ~crc_neon(crc, p, n);
#endif
	(void)level;
	return ~crc_scalar(crc, p, n);
}
