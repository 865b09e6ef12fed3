/*
 * Eight bytes of text at a time in one register, for the number readers and the JSON pass.
 * Little-endian loads: the first character is the lowest byte. Usable from C and C++.
 */
#ifndef VK_BASE_SWAR_H
#define VK_BASE_SWAR_H

#include <stdint.h>
#include <string.h>

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

/* Value of the first k digits of v, 1 <= k <= 8: pairs, then fours, then eight. */
static inline uint32_t vk_swar_value(uint64_t v, unsigned k)
{
	v = (v ^ 0x3030303030303030u) << (8 * (8 - k)); /* leading zeros instead of what follows */
	v = v * 10 + (v >> 8);
	return (uint32_t)(((v & 0x000000ff000000ffu) * 0x000f424000000064u +
			   (v >> 16 & 0x000000ff000000ffu) * 0x0000271000000001u) >> 32);
}

/* End of the run of digits that starts at p. */
static inline const char *vk_swar_skip_digits(const char *p, const char *end)
{
	while (end - p >= 8) {
		unsigned k = vk_swar_digits(vk_swar_load(p));
		p += k;
		if (k < 8) return p;
	}
	while (p < end && (unsigned char)(*p - '0') <= 9) p++;
	return p;
}

#endif
