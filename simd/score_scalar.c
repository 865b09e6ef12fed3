/*
 * The meaning of every kernel, in plain C: what simd/score.h says, as directly as C can say it.
 * The other levels are measured against these bits; speed is not looked for here.
 *
 * Every NaN is given as the one quiet NaN, because machines differ in which payload and sign an
 * operation hands on.
 */
#include <math.h>

#include "simd/score_levels.h"

#define LANES 32

static float load_f32(const void *p, size_t i)
{
	float v;
	memcpy(&v, (const uint8_t *)p + i * sizeof v, sizeof v);
	return v;
}

static float load_f16(const void *p, size_t i)
{
	uint16_t v;
	memcpy(&v, (const uint8_t *)p + i * sizeof v, sizeof v);
	return vk_f32_of_f16(v);
}

static float fold(float lane[LANES])
{
	for (int half = LANES / 2; half; half /= 2)
		for (int l = 0; l < half; l++) lane[l] += lane[l + half];
	return isnan(lane[0]) ? NAN : lane[0];
}

static float step_dot(float q, float x, float acc)
{
	return fmaf(q, x, acc);
}

static float step_l2(float q, float x, float acc)
{
	float d = q - x;
	return fmaf(d, d, acc);
}

static float step_l1(float q, float x, float acc)
{
	return acc + fabsf(q - x);
}

static int64_t times(int q, int x)
{
	return (int64_t)q * x;
}

static int64_t square(int q, int x)
{
	return (int64_t)(q - x) * (q - x);
}

static int64_t distance(int q, int x)
{
	return q < x ? x - q : q - x;
}

/* One row of floats: LOAD says the row's type, STEP the kind. */
#define FLOAT_ROW(name, LOAD, STEP)                                             \
	static float name(const void *q, const void *x, size_t dims)            \
	{                                                                       \
		float lane[LANES] = {0};                                        \
		for (size_t i = 0; i < dims; i++)                               \
			lane[i % LANES] = STEP(load_f32(q, i), LOAD(x, i), lane[i % LANES]); \
		return fold(lane);                                              \
	}

#define INTEGER_ROW(name, type, TERM)                                           \
	static float name(const void *q, const void *x, size_t dims)            \
	{                                                                       \
		int64_t sum = 0;                                                \
		for (size_t i = 0; i < dims; i++)                               \
			sum += TERM(((const type *)q)[i], ((const type *)x)[i]); \
		return (float)sum;                                              \
	}

static float hamming_row(const void *q, const void *x, size_t dims)
{
	int64_t sum = 0;
	for (size_t i = 0; i < (dims + 7) / 8; i++)
		sum += __builtin_popcount((unsigned)((const uint8_t *)q)[i] ^ ((const uint8_t *)x)[i]);
	return (float)sum;
}

FLOAT_ROW(dot_f32_row, load_f32, step_dot)
FLOAT_ROW(dot_f16_row, load_f16, step_dot)
FLOAT_ROW(l2_f32_row, load_f32, step_l2)
FLOAT_ROW(l2_f16_row, load_f16, step_l2)
FLOAT_ROW(l1_f32_row, load_f32, step_l1)
FLOAT_ROW(l1_f16_row, load_f16, step_l1)
INTEGER_ROW(dot_u8_row, uint8_t, times)
INTEGER_ROW(dot_i8_row, int8_t, times)
INTEGER_ROW(l2_u8_row, uint8_t, square)
INTEGER_ROW(l2_i8_row, int8_t, square)
INTEGER_ROW(l1_u8_row, uint8_t, distance)
INTEGER_ROW(l1_i8_row, int8_t, distance)

#define FACES(name, ...)                                                                                   \
	static void name(const void *q, const void *rows, size_t stride, size_t n, size_t dims,            \
			 const void *next, float *raw)                                                     \
	{                                                                                                  \
		(void)next;                                                                                \
		for (size_t i = 0; i < n; i++)                                                             \
			raw[i] = name##_row(q, (const uint8_t *)rows + i * stride, dims);                  \
	}                                                                                                  \
	static void name##_at(const void *q, const void *const *row, size_t n, size_t dims, float *raw)    \
	{                                                                                                  \
		for (size_t i = 0; i < n; i++) {                                                           \
			if (i + 1 < n) vk_prefetch(row[i + 1]);                                            \
			raw[i] = name##_row(q, row[i], dims);                                              \
		}                                                                                          \
	}

VK_SCORE_EACH(FACES)

static void code_dot(const int8_t *q, const uint8_t *codes, size_t stride, size_t n, size_t dims, const uint8_t *next,
		     int32_t *out)
{
	(void)next;
	for (size_t i = 0; i < n; i++) {
		int32_t sum = 0; /* 128 * 255 * 65,536 < 2^31 */
		for (size_t j = 0; j < dims; j++) sum += q[j] * codes[i * stride + j];
		out[i] = sum;
	}
}

/* IEEE binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits. A signalling NaN comes out quiet. */
float vk_f32_of_f16(uint16_t h)
{
	uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = h >> 10 & 31, fraction = h & 0x3ff, bits;
	if (exponent == 31)
		bits = sign | 0x7f800000u | (fraction ? 0x400000u | fraction << 13 : 0);
	else if (exponent)
		bits = sign | (exponent + 112) << 23 | fraction << 13;
	else {
		/* Zero or subnormal: fraction * 2^-24, exact in f32. */
		float f = (float)fraction * 0x1p-24f;
		memcpy(&bits, &f, sizeof bits);
		bits |= sign;
	}
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

uint16_t vk_f16_of_f32(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
	uint32_t size = bits & 0x7fffffff;
	if (size > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (size >> 13 & 0x3ff));
	if (size >= 0x477ff000) return sign | 0x7c00; /* 65,520 and above round to infinity */
	/* The value is whole * 2^(e - 150); halves keep 11 bits of it, fewer below 2^-14. */
	uint32_t e = size >> 23, whole = size & 0x7fffff;
	if (e) whole |= 0x800000;
	else e = 1;
	unsigned drop = e < 113 ? 13 + 113 - e : 13;
	if (drop > 25) return sign; /* below a quarter of the least subnormal */
	uint32_t kept = whole >> drop, rest = whole & ((1u << drop) - 1), half = 1u << (drop - 1);
	kept += rest > half || (rest == half && (kept & 1));
	/* A carry out of the fraction raises the exponent, which is what rounding up means. */
	return (uint16_t)(sign | (e < 113 ? kept : ((e - 113) << 10) + kept));
}

static void f32_to_f16(uint16_t *dst, const float *src, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t h = vk_f16_of_f32(load_f32(src, i));
		memcpy((uint8_t *)dst + i * sizeof h, &h, sizeof h);
	}
}

static void f16_to_f32(float *dst, const uint16_t *src, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float f = load_f16(src, i);
		memcpy((uint8_t *)dst + i * sizeof f, &f, sizeof f);
	}
}

static void f32_to_u8(uint8_t *dst, const float *src, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float v = load_f32(src, i);
		dst[i] = !(v > 0) ? 0 : v >= 255 ? 255 : (uint8_t)v; /* NaN: 0 */
	}
}

static void f32_to_bits(uint8_t *dst, const float *src, size_t n)
{
	memset(dst, 0, (n + 7) / 8);
	for (size_t i = 0; i < n; i++)
		if (load_f32(src, i) > 0) dst[i / 8] |= (uint8_t)(1u << i % 8);
}

static void f32_min_max(const float *src, size_t n, float *min, float *max)
{
	float lo = load_f32(src, 0), hi = lo;
	for (size_t i = 1; i < n; i++) {
		float v = load_f32(src, i);
		lo = v < lo ? v : lo;
		hi = v > hi ? v : hi;
	}
	*min = lo + 0.0f; /* -0 becomes +0: which of the two came first must not matter */
	*max = hi + 0.0f;
}

static size_t at_least(const float *rank, size_t n, float floor, uint32_t *idx)
{
	size_t kept = 0;
	for (size_t i = 0; i < n; i++)
		if (rank[i] >= floor) idx[kept++] = (uint32_t)i;
	return kept;
}

const struct vk_kernels vk_kernels_scalar = VK_KERNELS_TABLE(VK_CPU_SCALAR, scalar);
