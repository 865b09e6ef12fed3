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
	long digits; /* of m, leading zeros apart */
	bool neg;
};

inline bool is_digit(char c)
{
	return (unsigned char)(c - '0') <= 9;
}

/* A run of digits appended to d; returns its end. */
inline const char *read_digits(const char *p, const char *end, decimal &d)
{
	const char *start = p;
	while (end - p >= 8) {
		uint64_t v = vk_swar_load(p);
		unsigned k = vk_swar_digits(v);
		if (!k) break;
		static const uint32_t power[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
		d.m = d.m * power[k] + vk_swar_value(v, k);
		p += k;
		if (k < 8) break;
	}
	for (; p < end && is_digit(*p); p++) d.m = d.m * 10 + (uint64_t)(*p - '0');
	d.digits += p - start;
	return p;
}

/* One number by JSON's grammar, -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)?; its end or NULL. */
inline const char *read_decimal(const char *p, const char *end, decimal &d)
{
	d = decimal{0, 0, 0, false};
	if (p < end && *p == '-') {
		d.neg = true;
		p++;
	}
	if (p == end || !is_digit(*p)) return nullptr;
	if (*p == '0') {
		p++;
		if (p < end && is_digit(*p)) return nullptr;
	} else {
		p = read_digits(p, end, d);
	}
	long fraction = 0;
	if (p < end && *p == '.') {
		const char *start = ++p;
		if (!d.m)
			while (p < end && *p == '0') p++;
		p = read_digits(p, end, d);
		fraction = p - start;
		if (!fraction) return nullptr;
	}
	int e = 0;
	if (p < end && (*p | 0x20) == 'e') {
		bool neg = false;
		p++;
		if (p < end && (*p == '+' || *p == '-')) neg = *p++ == '-';
		if (p == end || !is_digit(*p)) return nullptr;
		for (; p < end && is_digit(*p); p++)
			if (e < exponent_max) e = e * 10 + (*p - '0');
		if (neg) e = -e;
	}
	d.e = d.digits <= digits_max ? e - (int)fraction : 0;
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
template <typename T> const char *read_slow(const char *p, const char *end, T *out)
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

inline const char *read_f32(const char *p, const char *end, float *out)
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
		uint64_t bits;
		memcpy(&bits, &v, sizeof bits);
		const uint64_t slack = 8; /* units in the last place of f64, 2 needed */
		uint64_t below = bits & ((1u << 29) - 1), middle = 1u << 28;
		bool clear = below - (middle - slack) > 2 * slack;
		/* Between the smallest normal f32 and well below the largest. */
		if (d.m == 0 || (clear && v >= 0x1p-126 && v < 0x1p127)) {
			*out = (float)(d.neg ? -v : v);
			return stop;
		}
	}
	return read_slow(p, stop, out);
}

inline const char *skip_space(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
	return p;
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
	size_t count = 0;
	p = skip_space(p, end);
	if (p == end || *p != '[') return nullptr;
	p = skip_space(p + 1, end);
	if (p < end && *p == ']') {
		*n = 0;
		return p + 1;
	}
	for (;;) {
		if (count == max) return nullptr;
		p = read_f32(p, end, &dst[count]);
		if (!p) return nullptr;
		count++;
		p = skip_space(p, end);
		if (p == end) return nullptr;
		if (*p == ']') break;
		if (*p != ',') return nullptr;
		p = skip_space(p + 1, end);
	}
	*n = count;
	return p + 1;
}
