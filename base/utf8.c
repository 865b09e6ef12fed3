/* UTF-8 checking and stepping. ASCII goes 32 bytes a step, the rest by the table of D92. */
#include "base/utf8.h"

#include "base/swar.h"

#define HIGH_BITS 0x8080808080808080u

/* End of the run of ASCII at p. */
static const char *skip_ascii(const char *p, const char *end)
{
	while (end - p >= 32) {
		uint64_t a = vk_swar_load(p), b = vk_swar_load(p + 8);
		uint64_t c = vk_swar_load(p + 16), d = vk_swar_load(p + 24);
		if ((a | b | c | d) & HIGH_BITS) break;
		p += 32;
	}
	while (end - p >= 8) {
		uint64_t high = vk_swar_load(p) & HIGH_BITS;
		if (high) return p + __builtin_ctzll(high) / 8;
		p += 8;
	}
	while (p < end && !(*p & 0x80)) p++;
	return p;
}

static int is_tail(unsigned char c)
{
	return (c & 0xc0) == 0x80;
}

/* Length of the well-formed sequence at s (first byte >= 0x80), 0 when there is none.
 * Unicode 15, table 3-7: only the second byte's range depends on the first. */
static size_t sequence(const unsigned char *s, size_t n)
{
	unsigned char c = s[0];
	if (c < 0xc2 || c > 0xf4 || n < 2) return 0;
	if (c < 0xe0) return is_tail(s[1]) ? 2 : 0;
	unsigned char low = 0x80, high = 0xbf;
	if (c == 0xe0) low = 0xa0;
	if (c == 0xed) high = 0x9f;
	if (c == 0xf0) low = 0x90;
	if (c == 0xf4) high = 0x8f;
	if (s[1] < low || s[1] > high || n < 3 || !is_tail(s[2])) return 0;
	if (c < 0xf0) return 3;
	return n >= 4 && is_tail(s[3]) ? 4 : 0;
}

size_t vk_utf8_valid(const char *p, size_t n)
{
	const char *start = p, *end = p + n;
	if (!n) return 0;
	for (;;) {
		p = skip_ascii(p, end);
		/* Text that is not ASCII seldom is so for one character only. */
		while (p < end && (*p & 0x80)) {
			size_t k = sequence((const unsigned char *)p, (size_t)(end - p));
			if (!k) return (size_t)(p - start);
			p += k;
		}
		if (p == end) return n;
	}
}

const char *vk_utf8_next(const char *p, const char *end, uint32_t *cp)
{
	const unsigned char *s = (const unsigned char *)p;
	size_t n = (size_t)(end - p);
	if (s[0] < 0x80) {
		*cp = s[0];
		return p + 1;
	}
	if (s[0] < 0xe0 && n >= 2) {
		*cp = (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
		return p + 2;
	}
	if (s[0] < 0xf0 && n >= 3) {
		*cp = (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
		return p + 3;
	}
	if (n >= 4) {
		*cp = (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 |
		      (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3f);
		return p + 4;
	}
	*cp = 0xfffd; /* not valid text: our caller's bug, but never a read past the end */
	return p + 1;
}

size_t vk_utf8_put(char *dst, uint32_t cp)
{
	if (cp < 0x80) {
		dst[0] = (char)cp;
		return 1;
	}
	if (cp < 0x800) {
		dst[0] = (char)(0xc0 | cp >> 6);
		dst[1] = (char)(0x80 | (cp & 0x3f));
		return 2;
	}
	if (cp < 0x10000) {
		dst[0] = (char)(0xe0 | cp >> 12);
		dst[1] = (char)(0x80 | (cp >> 6 & 0x3f));
		dst[2] = (char)(0x80 | (cp & 0x3f));
		return 3;
	}
	dst[0] = (char)(0xf0 | cp >> 18);
	dst[1] = (char)(0x80 | (cp >> 12 & 0x3f));
	dst[2] = (char)(0x80 | (cp >> 6 & 0x3f));
	dst[3] = (char)(0x80 | (cp & 0x3f));
	return 4;
}
