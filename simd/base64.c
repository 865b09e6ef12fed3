/*
 * Base64 by table, by AVX2 and by AVX-512 VBMI. A twin does whole steps and says how far it
 * came; the scalar code does the rest, and the last quantum always. What a twin cannot decode
 * it leaves: the scalar code then refuses at the right place.
 *
 * The AVX2 and VBMI mappings are Mula and Lemire's (ACM TWEB 12(3), 2018, and "Base64 encoding
 * and decoding at almost the speed of a memory copy", 2020).
 */
#include "simd/base64.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#define BAD 0x80
/* Value of a character, BAD for what is none ('=' included). */
static const uint8_t value_of[256] = {
#define B8 BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD
	B8, B8, B8, B8, B8,
	BAD, BAD, BAD, 62, BAD, BAD, BAD, 63,
	52, 53, 54, 55, 56, 57, 58, 59, 60, 61, BAD, BAD, BAD, BAD, BAD, BAD,
	BAD, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
	15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, BAD, BAD, BAD, BAD, BAD,
	BAD, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
	41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, BAD, BAD, BAD, BAD, BAD,
	B8, B8, B8, B8, B8, B8, B8, B8, B8, B8, B8, B8, B8, B8, B8, B8
#undef B8
};

static void encode_quantum(char *d, const uint8_t *s)
{
	unsigned v = (unsigned)s[0] << 16 | (unsigned)s[1] << 8 | s[2];
	d[0] = alphabet[v >> 18];
	d[1] = alphabet[v >> 12 & 63];
	d[2] = alphabet[v >> 6 & 63];
	d[3] = alphabet[v & 63];
}

#if defined(__x86_64__)

/* 24 bytes in, 32 characters out. A step reads 4 bytes before and 4 behind its 24 (so that each
 * 128-bit lane holds the 12 it wants), hence the start by hand. Returns bytes taken. */
__attribute__((target("avx2"))) static size_t encode_avx2(char *dst, const uint8_t *src, size_t n)
{
	const __m256i spread = _mm256_setr_epi8(5, 4, 6, 5, 8, 7, 9, 8, 11, 10, 12, 11, 14, 13, 15, 14,
						1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
	/* What to add to a 6-bit value, by its class: 0..25 (index 13), 26..51 (0), digits (1..10),
	 * '+' (11), '/' (12). */
	const __m256i add = _mm256_setr_epi8(71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 65, 0, 0,
					     71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 65, 0, 0);
	if (n < 34) return 0;
	encode_quantum(dst, src);
	encode_quantum(dst + 4, src + 3);
	dst += 8;
	size_t i = 6;
	for (; n - i >= 28; i += 24, dst += 32) {
		__m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(src + i - 4));
		v = _mm256_shuffle_epi8(v, spread);
		__m256i ac = _mm256_mulhi_epu16(_mm256_and_si256(v, _mm256_set1_epi32(0x0fc0fc00)),
						_mm256_set1_epi32(0x04000040));
		__m256i bd = _mm256_mullo_epi16(_mm256_and_si256(v, _mm256_set1_epi32(0x003f03f0)),
						_mm256_set1_epi32(0x01000010));
		v = _mm256_or_si256(ac, bd);
		__m256i class = _mm256_subs_epu8(v, _mm256_set1_epi8(51));
		class = _mm256_or_si256(class, _mm256_and_si256(_mm256_cmpgt_epi8(_mm256_set1_epi8(26), v),
								_mm256_set1_epi8(13)));
		v = _mm256_add_epi8(v, _mm256_shuffle_epi8(add, class));
		_mm256_storeu_si256((__m256i *)(void *)dst, v);
	}
	return i;
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi"))) static size_t
encode_avx512(char *dst, const uint8_t *src, size_t n)
{
	const __m512i spread = _mm512_setr_epi32(
		0x01020001, 0x04050304, 0x07080607, 0x0a0b090a, 0x0d0e0c0d, 0x10110f10, 0x13141213,
		0x16171516, 0x191a1819, 0x1c1d1b1c, 0x1f201e1f, 0x22232122, 0x25262425, 0x28292728,
		0x2b2c2a2b, 0x2e2f2d2e);
	const __m512i shifts = _mm512_set1_epi64(0x3036242a1016040a);
	const __m512i letters = _mm512_loadu_si512(alphabet);
	const __mmask64 some = 0x0000ffffffffffff;
	size_t i = 0;
	for (; n - i >= 48; i += 48, dst += 64) {
		__m512i v = _mm512_maskz_loadu_epi8(some, src + i);
		v = _mm512_permutexvar_epi8(spread, v);
		v = _mm512_multishift_epi64_epi8(shifts, v);
		_mm512_storeu_si512(dst, _mm512_permutexvar_epi8(v, letters));
	}
	return i;
}

/* 32 characters in, 24 bytes out. Returns characters taken. */
__attribute__((target("avx2"))) static size_t decode_avx2(uint8_t *dst, const char *src, size_t n)
{
	/* A character is good when its bits by low and by high nibble do not meet. */
	const __m256i by_low = _mm256_broadcastsi128_si256(
		_mm_setr_epi8(0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13, 0x1a, 0x1b,
			      0x1b, 0x1b, 0x1a));
	const __m256i by_high = _mm256_broadcastsi128_si256(
		_mm_setr_epi8(0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10, 0x10, 0x10,
			      0x10, 0x10, 0x10));
	/* What to add, by high nibble; '/' is its own class (1). */
	const __m256i add = _mm256_broadcastsi128_si256(
		_mm_setr_epi8(0, 16, 19, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0));
	const __m256i slash = _mm256_set1_epi8(0x2f);
	const __m256i pack = _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1, 2, 1,
					      0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
	const __m256i gather = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 7, 7);
	const __m256i first_24 = _mm256_setr_epi32(-1, -1, -1, -1, -1, -1, 0, 0);
	size_t i = 0;
	for (; n - i >= 32; i += 32, dst += 24) {
		__m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(src + i));
		__m256i high = _mm256_and_si256(_mm256_srli_epi32(v, 4), slash);
		__m256i low = _mm256_and_si256(v, slash);
		__m256i bits = _mm256_shuffle_epi8(by_low, low);
		if (!_mm256_testz_si256(bits, _mm256_shuffle_epi8(by_high, high))) break;
		__m256i is_slash = _mm256_cmpeq_epi8(v, slash);
		v = _mm256_add_epi8(v, _mm256_shuffle_epi8(add, _mm256_add_epi8(is_slash, high)));
		v = _mm256_maddubs_epi16(v, _mm256_set1_epi32(0x01400140));
		v = _mm256_madd_epi16(v, _mm256_set1_epi32(0x00011000));
		v = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(v, pack), gather);
		_mm256_maskstore_epi32((int *)(void *)dst, first_24, v);
	}
	return i;
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi"))) static size_t
decode_avx512(uint8_t *dst, const char *src, size_t n)
{
	const __m512i low = _mm512_loadu_si512(value_of), high = _mm512_loadu_si512(value_of + 64);
	const __m512i pack = _mm512_setr_epi32(
		0x06000102, 0x090a0405, 0x0c0d0e08, 0x16101112, 0x191a1415, 0x1c1d1e18, 0x26202122,
		0x292a2425, 0x2c2d2e28, 0x36303132, 0x393a3435, 0x3c3d3e38, 0, 0, 0, 0);
	const __mmask64 some = 0x0000ffffffffffff;
	size_t i = 0;
	for (; n - i >= 64; i += 64, dst += 48) {
		__m512i text = _mm512_loadu_si512(src + i);
		__m512i v = _mm512_permutex2var_epi8(low, text, high); /* by the low 7 bits */
		if (_mm512_movepi8_mask(_mm512_or_si512(text, v))) break;
		v = _mm512_maddubs_epi16(v, _mm512_set1_epi32(0x01400140));
		v = _mm512_madd_epi16(v, _mm512_set1_epi32(0x00011000));
		_mm512_mask_storeu_epi8(dst, some, _mm512_permutexvar_epi8(pack, v));
	}
	return i;
}

#endif

size_t vk_base64_encode(enum vk_cpu_level level, char *dst, const void *src, size_t n)
{
	const uint8_t *s = src;
	char *d = dst;
	size_t i = 0;
#if defined(__x86_64__)
	if (level == VK_CPU_AVX512) i = encode_avx512(d, s, n);
	if (level == VK_CPU_AVX2) i = encode_avx2(d, s, n);
#else
	(void)level;
#endif
	d += i / 3 * 4;
	for (; n - i >= 3; i += 3, d += 4) encode_quantum(d, s + i);
	if (n - i) {
		unsigned v = (unsigned)s[i] << 16 | (n - i == 2 ? (unsigned)s[i + 1] << 8 : 0);
		d[0] = alphabet[v >> 18];
		d[1] = alphabet[v >> 12 & 63];
		d[2] = n - i == 2 ? alphabet[v >> 6 & 63] : '=';
		d[3] = '=';
		d += 4;
	}
	return (size_t)(d - dst);
}

/* Four characters, no padding; false when one is bad. */
static bool decode_quantum(uint8_t *dst, const unsigned char *s)
{
	unsigned a = value_of[s[0]], b = value_of[s[1]], c = value_of[s[2]], d = value_of[s[3]];
	if ((a | b | c | d) & BAD) return false;
	dst[0] = (uint8_t)(a << 2 | b >> 4);
	dst[1] = (uint8_t)(b << 4 | c >> 2);
	dst[2] = (uint8_t)(c << 6 | d);
	return true;
}

/* The last four characters, padded or not. Returns the bytes, 0 when bad. */
static size_t decode_last(uint8_t *dst, const unsigned char *s)
{
	if (s[3] != '=') return decode_quantum(dst, s) ? 3 : 0;
	unsigned a = value_of[s[0]], b = value_of[s[1]];
	if ((a | b) & BAD) return 0;
	dst[0] = (uint8_t)(a << 2 | b >> 4);
	if (s[2] == '=') return b & 15 ? 0 : 1;
	unsigned c = value_of[s[2]];
	if (c & BAD || c & 3) return 0;
	dst[1] = (uint8_t)(b << 4 | c >> 2);
	return 2;
}

size_t vk_base64_decode(enum vk_cpu_level level, void *dst, const char *src, size_t n)
{
	const unsigned char *s = (const unsigned char *)src;
	uint8_t *d = dst;
	size_t i = 0;
	if (n % 4) return (size_t)-1;
	if (!n) return 0;
#if defined(__x86_64__)
	if (level == VK_CPU_AVX512) i = decode_avx512(d, src, n - 4);
	if (level == VK_CPU_AVX2) i = decode_avx2(d, src, n - 4);
#else
	(void)level;
#endif
	d += i / 4 * 3;
	for (; i < n - 4; i += 4, d += 3)
		if (!decode_quantum(d, s + i)) return (size_t)-1;
	size_t last = decode_last(d, s + i);
	if (!last) return (size_t)-1;
	return (size_t)(d - (uint8_t *)dst) + last;
}
