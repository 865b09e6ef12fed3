/*
 * Numbers as text. Printing is std::to_chars. Reading takes a short way that is exact and,
 * where it cannot prove that, std::from_chars.
 *
 * The short way for f32: read up to 19 digits into an integer m and a decimal exponent e, and
 * compute d = m * 10^e in f64. m, the power and the product are each off by at most half a
 * unit in the last place of f64, so d is within 2 of the true value. f32 keeps 29 bits
 * less: rounding d to f32 gives what rounding the true value gives, unless d lies within
 * those units of a midpoint between two f32 (about one number in 2^25). Those, what is near
 * overflow or subnormal, and longer texts take the long way.
 * For f64 it is the classic one (Clinger 1990): m <= 2^53 and |e| <= 22 make one exact
 * operation with one rounding.
 */
#include "base/num.h"

#include <charconv>
#include <cmath>
#include <cstring>

#include "base/swar.h"

namespace {

/* One call fewer a number: a third of the time. The results then stay in registers. */
#define INLINE inline __attribute__((always_inline))

const double power10[] = {1e0,	1e1,  1e2,  1e3,  1e4,	1e5,  1e6,  1e7,  1e8,	1e9,  1e10, 1e11,
			  1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23,
			  1e24, 1e25, 1e26, 1e27, 1e28, 1e29, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35,
			  1e36, 1e37, 1e38, 1e39, 1e40, 1e41, 1e42, 1e43, 1e44, 1e45};
const int power10_max = 45;
const int digits_max = 19; /* any 19 digits fit 64 bits */
const int exponent_max = 99999; /* beyond any text's effect; more digits do not count on */

struct decimal {
	uint64_t m;  /* all digits as one integer, valid when digits <= digits_max */
	int e;	     /* value = m * 10^e */
	long digits; /* of m, zeros of the fraction in front included */
	bool neg;
};

inline bool is_digit(char c)
{
	return (unsigned char)(c - '0') <= 9;
}

/* A run of digits appended to m; returns its end. */
INLINE const char *read_digits(const char *p, const char *end, uint64_t &m)
{
	static const uint32_t power[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
	while (end - p >= 16) {
		unsigned k = vk_swar_digits16(p), first = k < 8 ? k : 8, second = k - first;
		m = m * power[first] + vk_swar_value(vk_swar_load(p), first);
		m = m * power[second] + vk_swar_value(vk_swar_load(p + 8), second);
		p += k;
		if (k < 16) return p;
	}
	for (; p < end && is_digit(*p); p++) m = m * 10 + (uint64_t)(*p - '0');
	return p;
}

/* What follows the e, without it. NULL: no digit. */
__attribute__((noinline)) const char *read_exponent(const char *p, const char *end, int &e)
{
	bool neg = false;
	e = 0;
	if (p < end && (*p == '+' || *p == '-')) neg = *p++ == '-';
	if (p == end || !is_digit(*p)) return nullptr;
	for (; p < end && is_digit(*p); p++)
		if (e < exponent_max) e = e * 10 + (*p - '0');
	if (neg) e = -e;
	return p;
}

/* Zeros in front of a number's first other digit do not count against the 64 bits of m. */
__attribute__((noinline)) long leading_zeros(const char *p, const char *end)
{
	long n = 0;
	for (; p < end && (*p == '0' || *p == '.' || *p == '-'); p++) n += *p == '0';
	return n;
}

/* One number by JSON's grammar, -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)?; its end or NULL. */
INLINE const char *read_decimal(const char *p, const char *end, decimal &d)
{
	const char *start = p, *first, *stop;
	if (p == end) return nullptr;
	d.m = 0;
	d.neg = *p == '-';
	p += d.neg;
	if (p == end || !is_digit(*p)) return nullptr;
	first = p;
	if (*p == '0') {
		p++;
		if (p < end && is_digit(*p)) return nullptr;
	} else {
		p = read_digits(p, end, d.m);
	}
	d.digits = p - first;
	long fraction = 0;
	if (p < end && *p == '.') {
		stop = read_digits(p + 1, end, d.m);
		fraction = stop - p - 1;
		if (!fraction) return nullptr;
		d.digits += fraction;
		p = stop;
	}
	if (d.digits > digits_max) d.digits -= leading_zeros(start, p);
	d.e = 0;
	if (p < end && (*p | 0x20) == 'e') {
		p = read_exponent(p + 1, end, d.e);
		if (!p) return nullptr;
	}
	d.e -= fraction < 4 * exponent_max ? (int)fraction : 4 * exponent_max;
	return p;
}

/* from_chars says "out of range" for both ends: true when it means the small one. The text
 * is a number; what counts is where its first digit other than 0 stands. */
bool is_tiny(const char *p, const char *end)
{
	long lead = 0, e = 0;
	bool found = false, point = false, neg = false;
	for (; p < end && (*p | 0x20) != 'e'; p++) {
		if (*p == '.') {
			point = true;
		} else if (*p != '-') {
			if (found || *p != '0') {
				found = true;
				if (!point) lead++;
			} else if (point) {
				lead--;
			}
		}
	}
	if (p < end) p++;
	for (; p < end; p++) {
		if (*p == '-') neg = true;
		if (is_digit(*p) && e < (1L << 40)) e = e * 10 + (*p - '0');
	}
	return !found || lead + (neg ? -e : e) <= 0;
}

/* The long way, for a text that is known to be a number. */
template <typename T> __attribute__((noinline, cold)) const char *read_slow(const char *p, const char *end, T *out)
{
	std::from_chars_result r = std::from_chars(p, end, *out, std::chars_format::general);
	if (r.ec == std::errc()) {
		/* An implementation may also hand infinity back with a good code. */
		return std::isfinite(*out) ? end : nullptr;
	}
	if (r.ec != std::errc::result_out_of_range || !is_tiny(p, end)) return nullptr;
	*out = *p == '-' ? T(-0.0) : T(0);
	return end;
}

/* v, within 2 units of m * 10^e, as f32; false when that does not decide it. */
INLINE bool round_f32(uint64_t m, double v, bool neg, float *out)
{
	uint64_t bits;
	memcpy(&bits, &v, sizeof bits);
	const uint64_t slack = 8; /* units in the last place of f64; 2 would do */
	uint64_t below = bits & ((1u << 29) - 1), middle = 1u << 28;
	bool clear = below - (middle - slack) > 2 * slack;
	/* Between the smallest normal f32 and well below the largest. */
	if (m != 0 && !(clear && v >= 0x1p-126 && v < 0x1p127)) return false;
	static const double sign[2] = {1, -1}; /* as good as random: no branch */
	*out = (float)(v * sign[neg]);
	return true;
}

INLINE const char *read_f32(const char *p, const char *end, float *out)
{
	decimal d;
	const char *stop = read_decimal(p, end, d);
	if (!stop) return nullptr;
	if (d.digits <= digits_max && d.e <= power10_max && d.e >= -power10_max) {
		double v = (double)d.m;
		if (d.e < 0)
			v /= power10[-d.e];
		else if (d.e > 0)
			v *= power10[d.e];
		if (round_f32(d.m, v, d.neg, out)) return stop;
	}
	return read_slow(p, stop, out);
}

inline const char *skip_space(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
	return p;
}

/* ---- arrays ---- */

struct no_values { /* only the grammar */
	bool put(const char *p, const char *end, const char **stop)
	{
		decimal d;
		*stop = read_decimal(p, end, d);
		return *stop;
	}
	bool put_fast(uint64_t, unsigned, bool) { return true; }
	static constexpr bool wanted = false;
};

struct f32_values {
	float *dst;
	size_t left;
	bool put(const char *p, const char *end, const char **stop)
	{
		if (!left) return false;
		*stop = read_f32(p, end, dst);
		dst++;
		left--;
		return *stop;
	}
	/* m * 10^-fraction; false: not decided, nothing stored. */
	INLINE bool put_fast(uint64_t m, unsigned fraction, bool neg)
	{
		if (!left || !round_f32(m, (double)m / power10[fraction], neg, dst)) return false;
		dst++;
		left--;
		return true;
	}
	static constexpr bool wanted = true;
};

/* The item in [p, stop), white space around it allowed. */
template <typename V> __attribute__((noinline)) bool item_slow(const char *p, const char *stop, V &v)
{
	const char *at;
	p = skip_space(p, stop);
	return v.put(p, stop, &at) && skip_space(at, stop) == stop;
}

#if defined(__SSE2__)

INLINE __m128i bytes_from(int k) /* 0xff in byte k and above, -1 <= k <= 16 */
{
	static const uint8_t ramp[33] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255,
					 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
					 255, 255, 255};
	return _mm_loadu_si128((const __m128i *)(const void *)(ramp + 16 - k));
}

/* Value of eight digits (0 to 9, not characters), the first in the lowest byte. */
INLINE uint32_t eight_digits(uint64_t v)
{
	v = v * 10 + (v >> 8);
	return (uint32_t)(((v & 0x000000ff000000ffu) * 0x000f424000000064u +
			   (v >> 16 & 0x000000ff000000ffu) * 0x0000271000000001u) >> 32);
}

/* The item in [p, stop) by one look at its last 16 bytes, which are in memory (from `begin` on):
 * any number without exponent of up to 16 characters and a sign. False: not of that kind. */
template <typename V> INLINE bool item_fast(const char *begin, const char *p, const char *stop, V &v)
{
	while (*p == ' ') p++; /* ends at stop at the latest: a separator stands there */
	bool neg = *p == '-';
	p += neg;
	size_t len = (size_t)(stop - p);
	if (len - 1 >= 16 || stop - begin < 16) return false;

	__m128i text = _mm_loadu_si128((const __m128i *)(const void *)(stop - 16));
	__m128i value = _mm_sub_epi8(text, _mm_set1_epi8('0'));
	unsigned field = 0xffffu << (16 - len) & 0xffff, first = 1u << (16 - len);
	unsigned digit = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(value, _mm_set1_epi8(9)), value));
	unsigned dot = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(text, _mm_set1_epi8('.')));
	digit &= field;
	dot &= field;
	/* Digits and at most one point; digits at both ends; no 0 before another digit. */
	if ((digit | dot) != field || (dot & (dot - 1)) || !(digit & first) || !(digit & 0x8000)) return false;
	if (*p == '0' && (digit & first << 1)) return false;
	if (!V::wanted) return true;

	/* Close the gap that the point leaves. Without one it is thought in front of the field. */
	int at = dot ? __builtin_ctz(dot) : 15 - (int)len;
	unsigned fraction = dot ? 15 - (unsigned)at : 0;
	__m128i after = _mm_and_si128(value, bytes_from(at + 1));
	__m128i before = _mm_andnot_si128(bytes_from(at), _mm_and_si128(value, bytes_from(16 - (int)len)));
	__m128i digits = _mm_or_si128(_mm_slli_si128(before, 1), after);
	uint64_t high = (uint64_t)_mm_cvtsi128_si64(digits);
	uint64_t low = (uint64_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(digits, digits));
	return v.put_fast((uint64_t)eight_digits(high) * 100000000 + eight_digits(low), fraction, neg);
}

/* Bit i: p[i] ends an item. 64 bytes are read. */
INLINE uint64_t separators(const char *p)
{
	uint64_t mask = 0;
#pragma GCC unroll 4
	for (int i = 0; i < 4; i++) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i));
		__m128i hit = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(',')),
					   _mm_cmpeq_epi8(v, _mm_set1_epi8(']')));
		mask |= (uint64_t)(unsigned)_mm_movemask_epi8(hit) << (16 * i);
	}
	return mask;
}

/* Whole blocks of 64 bytes. p: after '['. Each item's place comes from the mask, not from where
 * the one before ended, so the CPU works on several at a time. Returns the ']', or NULL when an
 * item is no number; *item is where the item begins that was not done with when blocks ran out. */
template <typename V>
const char *blocks(const char *begin, const char *end, const char **item, size_t *count, V &v)
{
	const char *start = *item;
	for (const char *p = start; end - p >= 64; p += 64)
		for (uint64_t mask = separators(p); mask; mask &= mask - 1) {
			const char *stop = p + __builtin_ctzll(mask);
			if (!item_fast(begin, start, stop, v) && !item_slow(start, stop, v)) return nullptr;
			++*count;
			if (*stop == ']') return stop;
			start = stop + 1;
		}
	*item = start;
	return end;
}

#else

template <typename V>
const char *blocks(const char *, const char *end, const char **, size_t *, V &)
{
	return end;
}

#endif

/* "[ n, n, ... ]" at p, at least one number. Returns one past the ']', or NULL. */
template <typename V> const char *read_array(const char *p, const char *end, size_t *count, V v)
{
	const char *begin = p, *stop;
	*count = 0;
	p++;
	stop = blocks(begin, end, &p, count, v);
	if (!stop) return nullptr;
	if (stop != end) return stop + 1;
	for (;;) {
		p = skip_space(p, end);
		if (!v.put(p, end, &stop)) return nullptr;
		++*count;
		p = skip_space(stop, end);
		if (p == end) return nullptr;
		if (*p == ']') return p + 1;
		if (*p++ != ',') return nullptr;
	}
}

} // namespace

extern "C" char *vk_f32_print(char *dst, float v)
{
	return std::to_chars(dst, dst + VK_F32_TEXT_MAX, v).ptr;
}

extern "C" char *vk_f64_print(char *dst, double v)
{
	return std::to_chars(dst, dst + VK_F64_TEXT_MAX, v).ptr;
}

extern "C" char *vk_f32s_print(char *dst, const float *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (i) *dst++ = ',';
		dst = vk_f32_print(dst, v[i]);
	}
	return dst;
}

extern "C" const char *vk_f32_read(const char *p, const char *end, float *out)
{
	return read_f32(p, end, out);
}

extern "C" const char *vk_f64_read(const char *p, const char *end, double *out)
{
	decimal d;
	const char *stop = read_decimal(p, end, d);
	if (!stop) return nullptr;
	if (d.digits <= digits_max && d.m <= (uint64_t)1 << 53 && d.e <= 22 && d.e >= -22) {
		double v = (double)d.m;
		v = d.e < 0 ? v / power10[-d.e] : v * power10[d.e];
		*out = d.neg ? -v : v;
		return stop;
	}
	return read_slow(p, stop, out);
}

extern "C" const char *vk_f32s_read(const char *p, const char *end, float *dst, size_t max, size_t *n)
{
	p = skip_space(p, end);
	if (p == end || *p != '[') return nullptr;
	const char *first = skip_space(p + 1, end);
	if (first < end && *first == ']') {
		*n = 0;
		return first + 1;
	}
	return read_array(p, end, n, f32_values{dst, max});
}

extern "C" const char *vk_numbers_skip(const char *p, const char *end, size_t *n)
{
	return read_array(p, end, n, no_values{});
}
