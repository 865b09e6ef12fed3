/*
 * The AVX-512 VNNI kernels of codes. VPDPBUSD multiplies 64 bytes an instruction, two a cycle, so what
 * else a pair costs decides.
 *
 * Few queries: tiles of 4 queries by 4 rows. 16 accumulators share 8 loads a step, and are folded together,
 * 3 instructions a pair.
 * Many queries: 64 rows are turned so that a lane is a row: four groups of 16, a register holding the same
 * four dims of 16 rows. A query's four bytes go to all lanes by a load, 6 queries by 4 groups are under way,
 * the accumulators are the answer as they stand, and turning is paid once for all queries. Rows are turned
 * 512 dims at a time, which stays in the first-level cache.
 *
 * i32 lanes hold 65,536 dims: 128 * 255 * 65,536 < 2^31.
 */
#include "simd/code_levels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "simd/score_levels.h"

#define LEVEL __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,bmi2,popcnt")))
#define INLINE LEVEL __attribute__((always_inline)) static inline
#define ROWS 4
#define EACH_ROW _Pragma("GCC unroll 4") for (int r = 0; r < ROWS; r++)

INLINE __mmask64 first64(size_t n)
{
	return n < 64 ? _bzhi_u64(~(uint64_t)0, (unsigned)n) : ~(uint64_t)0;
}

/* Four accumulators: each 128 bits of the result have a partial sum of all four, in order. */
INLINE __m512i fold4(const __m512i a[4])
{
	__m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a[0], a[1]), _mm512_unpackhi_epi32(a[0], a[1]));
	__m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(a[2], a[3]), _mm512_unpackhi_epi32(a[2], a[3]));
	return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

INLINE __m128i sums4(const __m512i a[4])
{
	__m512i t = fold4(a);
	__m256i h = _mm256_add_epi32(_mm512_castsi512_si256(t), _mm512_extracti64x4_epi64(t, 1));
	return _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}

INLINE void store4(int32_t *out, __m128i sum, size_t n)
{
	_mm_mask_storeu_epi32(out, (__mmask8)(n < 4 ? (1u << n) - 1 : 15), sum);
}

/* ---- few queries: tiles ---- */

/* Four rows, and how far behind each the rows lie that come later; 0: nothing is to be fetched. */
struct four {
	const uint8_t *x[ROWS];
	size_t ahead;
};

/* One query. */
INLINE __m128i one(bool fetch, const int8_t *q, const struct four *f, size_t dims)
{
	__m512i a[ROWS];
	size_t i = 0;
	EACH_ROW a[r] = _mm512_setzero_si512();
	for (; dims - i >= 64; i += 64) {
		__m512i s = _mm512_loadu_si512(q + i);
		EACH_ROW {
			if (fetch) vk_prefetch(f->x[r] + f->ahead + i);
			a[r] = _mm512_dpbusd_epi32(a[r], _mm512_loadu_si512(f->x[r] + i), s);
		}
	}
	if (i < dims) {
		__m512i s = _mm512_loadu_si512(q + i); /* padded */
		EACH_ROW a[r] = _mm512_dpbusd_epi32(a[r], _mm512_maskz_loadu_epi8(first64(dims - i), f->x[r] + i), s);
	}
	return sums4(a);
}

/* Sixteen sums, those of a query side by side. */
INLINE __m512i sums16(const __m512i a[4][ROWS])
{
	__m512i u[4];
	EACH_ROW u[r] = fold4(a[r]);
	__m512i v = _mm512_add_epi32(_mm512_shuffle_i32x4(u[0], u[1], 0x44), _mm512_shuffle_i32x4(u[0], u[1], 0xee));
	__m512i w = _mm512_add_epi32(_mm512_shuffle_i32x4(u[2], u[3], 0x44), _mm512_shuffle_i32x4(u[2], u[3], 0xee));
	return _mm512_add_epi32(_mm512_shuffle_i32x4(v, w, 0x88), _mm512_shuffle_i32x4(v, w, 0xdd));
}

INLINE void tile_step(const int8_t *const q[4], const struct four *f, size_t i, __mmask64 some, __m512i a[4][ROWS])
{
	__m512i v[ROWS];
	EACH_ROW v[r] = _mm512_maskz_loadu_epi8(some, f->x[r] + i);
	_Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) {
		__m512i s = _mm512_loadu_si512(q[j] + i); /* padded */
		EACH_ROW a[j][r] = _mm512_dpbusd_epi32(a[j][r], v[r], s);
	}
}

INLINE __m512i tile(bool fetch, const int8_t *const q[4], const struct four *f, size_t dims)
{
	__m512i a[4][ROWS];
	size_t i = 0;
	_Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) EACH_ROW a[j][r] = _mm512_setzero_si512();
	for (; dims - i >= 64; i += 64) {
		if (fetch) EACH_ROW vk_prefetch(f->x[r] + f->ahead + i);
		tile_step(q, f, i, ~(__mmask64)0, a);
	}
	if (i < dims) tile_step(q, f, i, first64(dims - i), a);
	return sums16(a);
}

/* All queries by four rows; left: how many of the rows there are. */
LEVEL static void tiles(const int8_t *const *q, size_t nq, struct four *f, size_t left, size_t dims, int32_t *out,
			size_t out_stride)
{
	for (size_t j = 0; j < nq; j += 4, f->ahead = 0) {
		if (nq - j <= 2) { /* alone they are quicker than with others' places empty */
			store4(out + j * out_stride, f->ahead ? one(true, q[j], f, dims) : one(false, q[j], f, dims), left);
			if (nq - j == 2) store4(out + (j + 1) * out_stride, one(false, q[j + 1], f, dims), left);
			return;
		}
		const int8_t *some[4];
		__m128i sum[4];
		for (size_t l = 0; l < 4; l++) some[l] = q[vk_or_last(j + l, nq)];
		_mm512_storeu_si512(sum, f->ahead ? tile(true, some, f, dims) : tile(false, some, f, dims));
		for (size_t l = 0; l < 4 && j + l < nq; l++) store4(out + (j + l) * out_stride, sum[l], left);
	}
}

LEVEL static void tiled_rows(const int8_t *const *q, size_t nq, const uint8_t *codes, size_t stride, size_t n, size_t dims,
			     int32_t *out, size_t out_stride)
{
	/* As far ahead as code_dot's streams (simd/score_levels.h). */
	const size_t hop = stride ? ROWS * ((VK_SCORE_AHEAD_BYTES + stride - 1) / stride) : n;
	for (size_t i = 0; i < n; i += ROWS) {
		struct four f = {.ahead = i + hop < n ? hop * stride : 0};
		EACH_ROW f.x[r] = codes + vk_or_last(i + (size_t)r, n) * stride;
		tiles(q, nq, &f, n - i, dims, out + i, out_stride);
	}
}

/* ---- many queries: rows in the lanes ---- */

enum { GROUP = 16, GROUPS = 4, TURNED = GROUP * GROUPS, QUERIES = 6, TURNED_DIMS = 512 };
/* Fewer do not pay for turning. */
enum { MANY_QUERIES = 12, MANY_ROWS = 32 };

#define EACH_LANE _Pragma("GCC unroll 16") for (int l = 0; l < GROUP; l++)

/* 64 dims of 16 rows: step s of them, four dims, to dst + s * step_bytes. */
INLINE void turn(__m512i a[GROUP], uint8_t *dst, size_t step_bytes)
{
	__m512i b[GROUP];
	_Pragma("GCC unroll 4") for (int l = 0; l < GROUP; l += 4) {
		__m512i p = _mm512_unpacklo_epi32(a[l], a[l + 1]), q = _mm512_unpackhi_epi32(a[l], a[l + 1]);
		__m512i r = _mm512_unpacklo_epi32(a[l + 2], a[l + 3]), s = _mm512_unpackhi_epi32(a[l + 2], a[l + 3]);
		b[l] = _mm512_unpacklo_epi64(p, r), b[l + 1] = _mm512_unpackhi_epi64(p, r);
		b[l + 2] = _mm512_unpacklo_epi64(q, s), b[l + 3] = _mm512_unpackhi_epi64(q, s);
	}
	/* b[4 r + c] has rows 4 r .. 4 r + 3; its 128 bits number k are step 4 k + c. */
	_Pragma("GCC unroll 4") for (int c = 0; c < 4; c++) {
		__m512i p = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x44), q = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x44);
		__m512i r = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xee), s = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xee);
		_mm512_store_si512(dst + (size_t)c * step_bytes, _mm512_shuffle_i32x4(p, q, 0x88));
		_mm512_store_si512(dst + (size_t)(4 + c) * step_bytes, _mm512_shuffle_i32x4(p, q, 0xdd));
		_mm512_store_si512(dst + (size_t)(8 + c) * step_bytes, _mm512_shuffle_i32x4(r, s, 0x88));
		_mm512_store_si512(dst + (size_t)(12 + c) * step_bytes, _mm512_shuffle_i32x4(r, s, 0xdd));
	}
}

/* Of up to TURNED rows, dims up to TURNED_DIMS; what is missing comes out as zeros. */
LEVEL static void turn_rows(const uint8_t *codes, size_t stride, size_t n, size_t dims, size_t groups, uint8_t *dst)
{
	for (size_t g = 0; g < groups; g++)
		for (size_t i = 0; i < dims; i += 64) {
			__m512i a[GROUP];
			__mmask64 some = first64(dims - i);
			EACH_LANE {
				size_t row = g * GROUP + (size_t)l;
				a[l] = row < n ? _mm512_maskz_loadu_epi8(some, codes + row * stride + i) : _mm512_setzero_si512();
			}
			turn(a, dst + (i / 4 * groups + g) * 64, groups * 64);
		}
}

struct turned {
	const uint8_t *rows;
	size_t steps, n; /* steps: of four dims */
	bool first;      /* of the row's dims; else sums go on */
};

INLINE void lanes(const int8_t *const q[QUERIES], const struct turned *t, int groups, size_t nq, int32_t *out, size_t out_stride)
{
	__m512i a[QUERIES][GROUPS];
	const uint8_t *x = t->rows;
	_Pragma("GCC unroll 6") for (int j = 0; j < QUERIES; j++)
		_Pragma("GCC unroll 4") for (int g = 0; g < groups; g++) a[j][g] = _mm512_setzero_si512();
	for (size_t i = 0; i < t->steps; i++, x += 64 * (size_t)groups) {
		__m512i v[GROUPS];
		_Pragma("GCC unroll 4") for (int g = 0; g < groups; g++) v[g] = _mm512_load_si512(x + 64 * g);
		_Pragma("GCC unroll 6") for (int j = 0; j < QUERIES; j++) {
			int32_t four;
			memcpy(&four, q[j] + 4 * i, 4);
			__m512i s = _mm512_set1_epi32(four);
			_Pragma("GCC unroll 4") for (int g = 0; g < groups; g++) a[j][g] = _mm512_dpbusd_epi32(a[j][g], v[g], s);
		}
	}
	_Pragma("GCC unroll 6") for (int j = 0; j < QUERIES; j++) {
		if ((size_t)j >= nq) break;
		_Pragma("GCC unroll 4") for (int g = 0; g < groups; g++) {
			size_t at = (size_t)(GROUP * g);
			__mmask16 some = (__mmask16)(t->n - at < GROUP ? (1u << (t->n - at)) - 1 : 0xffff);
			int32_t *to = out + (size_t)j * out_stride + at;
			__m512i sum = t->first ? a[j][g] : _mm512_add_epi32(a[j][g], _mm512_maskz_loadu_epi32(some, to));
			_mm512_mask_storeu_epi32(to, some, sum);
		}
	}
}

LEVEL static void lanes1(const int8_t *const q[QUERIES], const struct turned *t, size_t nq, int32_t *out, size_t out_stride)
{
	lanes(q, t, 1, nq, out, out_stride);
}
LEVEL static void lanes2(const int8_t *const q[QUERIES], const struct turned *t, size_t nq, int32_t *out, size_t out_stride)
{
	lanes(q, t, 2, nq, out, out_stride);
}
LEVEL static void lanes3(const int8_t *const q[QUERIES], const struct turned *t, size_t nq, int32_t *out, size_t out_stride)
{
	lanes(q, t, 3, nq, out, out_stride);
}
LEVEL static void lanes4(const int8_t *const q[QUERIES], const struct turned *t, size_t nq, int32_t *out, size_t out_stride)
{
	lanes(q, t, 4, nq, out, out_stride);
}

/* Up to TURNED rows. */
LEVEL static void turned_rows(const int8_t *const *q, size_t nq, const uint8_t *codes, size_t stride, size_t n, size_t dims,
			      int32_t *out, size_t out_stride)
{
	static void (*const by_groups[])(const int8_t *const *, const struct turned *, size_t, int32_t *, size_t) = {
		lanes1, lanes2, lanes3, lanes4};
	_Alignas(64) uint8_t rows[TURNED * TURNED_DIMS];
	size_t groups = (n + GROUP - 1) / GROUP, pieces = (dims + TURNED_DIMS - 1) / TURNED_DIMS;
	size_t piece = ((dims + pieces - 1) / pieces + 63) / 64 * 64;
	for (size_t at = 0; at < dims; at += piece) {
		size_t some = dims - at < piece ? dims - at : piece;
		struct turned t = {rows, (some + 3) / 4, n, at == 0};
		turn_rows(codes + at, stride, n, some, groups, rows);
		for (size_t j = 0; j < nq; j += QUERIES) {
			const int8_t *from[QUERIES];
			for (size_t l = 0; l < QUERIES; l++) from[l] = q[vk_or_last(j + l, nq)] + at;
			by_groups[groups - 1](from, &t, nq - j, out + j * out_stride, out_stride);
		}
	}
}

LEVEL void vk_code_dots_avx512(const int8_t *const *q, size_t nq, const uint8_t *codes, size_t stride, size_t n, size_t dims,
			       int32_t *out, size_t out_stride)
{
	size_t i = 0;
	if (nq >= MANY_QUERIES)
		for (; n - i >= MANY_ROWS; i += n - i < TURNED ? n - i : TURNED)
			turned_rows(q, nq, codes + i * stride, stride, n - i < TURNED ? n - i : TURNED, dims, out + i, out_stride);
	tiled_rows(q, nq, codes + i * stride, stride, n - i, dims, out + i, out_stride);
}

/* ---- rows out of order ---- */

LEVEL void vk_code_dot_at_avx512(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims, int32_t *out)
{
	for (size_t at = 0; at < n; at += ROWS) {
		struct four f = {.ahead = 0};
		EACH_ROW f.x[r] = code[vk_or_last(at + (size_t)r, n)];
		store4(out + at, one(false, q, &f, dims), n - at);
	}
}

/* High nibbles are multiplied where they stand, 16 times too much, and their sum is put right: that sum is
 * below 240 * 128 * 32,768 < 2^31. */
LEVEL void vk_nibble_dot_at_avx512(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims, int32_t *out)
{
	const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8((char)0xf0);
	for (size_t at = 0; at < n; at += ROWS) {
		const uint8_t *x[ROWS];
		__m512i a[ROWS], b[ROWS];
		EACH_ROW x[r] = code[vk_or_last(at + (size_t)r, n)];
		EACH_ROW a[r] = b[r] = _mm512_setzero_si512();
		for (size_t i = 0; 2 * i < dims; i += VK_NIBBLE_BYTES) {
			__m512i s = _mm512_loadu_si512(q + 2 * i), t = _mm512_loadu_si512(q + 2 * i + VK_NIBBLE_BYTES);
			EACH_ROW {
				__m512i v = _mm512_loadu_si512(x[r] + i);
				a[r] = _mm512_dpbusd_epi32(a[r], _mm512_and_si512(v, low), s);
				b[r] = _mm512_dpbusd_epi32(b[r], _mm512_and_si512(v, high), t);
			}
		}
		EACH_ROW a[r] = _mm512_add_epi32(a[r], _mm512_srai_epi32(b[r], 4));
		store4(out + at, sums4(a), n - at);
	}
}

#endif
