/*
 * Eight bytes of text at a time in one register (sixteen to find the end of a run of digits),
 * for the number readers and the JSON pass. Little-endian loads: the first character is the
 * lowest byte. Usable from C and C++. No branch depends on how many digits there are: in a
 * vector's text that differs from number to number, and a wrong guess costs more than all else.
 */
#ifndef VK_BASE_SWAR_H
#define VK_BASE_SWAR_H

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

static inline uint64_t vk_swar_load(const char *p)
{
	uint64_t v;
	memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap64(v);
#endif
	return v;
}

/* How many of the 8 characters in v, from the first, are decimal digits. */
static inline unsigned vk_swar_digits(uint64_t v)
{
	uint64_t t = v ^ 0x3030303030303030u;
	/* A sum may carry out of a byte above 0x89, but only into later characters: the first
	 * flagged byte, the only one that counts, is right. */
	uint64_t other = ((t + 0x7676767676767676u) | t) & 0x8080808080808080u;
	return other ? (unsigned)__builtin_ctzll(other) / 8 : 8;
}

/* How many of the 16 characters at p, from the first, are decimal digits. */
static inline unsigned vk_swar_digits16(const char *p)
{
#if defined(__SSE2__)
	__m128i v = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), _mm_set1_epi8('0'));
	__m128i digit = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(9)), v);
	return (unsigned)__builtin_ctz(~(unsigned)_mm_movemask_epi8(digit));
#else
	unsigned a = vk_swar_digits(vk_swar_load(p)), b = vk_swar_digits(vk_swar_load(p + 8));
	return a == 8 ? 8 + b : a;
#endif
}

/* Value of the first k digits of v, 0 <= k <= 8: pairs, then fours, then eight. */
static inline uint32_t vk_swar_value(uint64_t v, unsigned k)
{
	uint64_t some = 0 - (uint64_t)(k != 0); /* a shift by 64 is none */
	v = ((v ^ 0x3030303030303030u) & some) << ((64 - 8 * k) & 63); /* zeros first */
	v = v * 10 + (v >> 8);
	return (uint32_t)(((v & 0x000000ff000000ffu) * 0x000f424000000064u +
			   (v >> 16 & 0x000000ff000000ffu) * 0x0000271000000001u) >> 32);
}

/* End of the run of digits that starts at p. */
static inline const char *vk_swar_skip_digits(const char *p, const char *end)
{
	while (end - p >= 16) {
		unsigned k = vk_swar_digits16(p);
		p += k;
		if (k < 16) return p;
	}
	while (p < end && (unsigned char)(*p - '0') <= 9) p++;
	return p;
}

#endif
