/*
 * The AVX2 kernels of codes. VPMADDUBSW would saturate for 8-bit codes (2 * 255 * 128 > 2^15), so bytes are
 * widened to 16 bits for VPMADDWD: of queries once a call and 1,024 dims, of rows once for four queries. For
 * nibbles it is exact, and eight of its results fit 16 bits: 8 * 2 * 15 * 128 < 2^15.
 *
 * i32 lanes hold 65,536 dims: 128 * 255 * 65,536 < 2^31.
 */
#include "simd/code_levels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "simd/score_levels.h"

#define LEVEL __attribute__((target("avx2,fma,f16c,bmi2,popcnt")))
#define INLINE LEVEL __attribute__((always_inline)) static inline
#define ROWS 4
#define EACH_ROW _Pragma("GCC unroll 4") for (int r = 0; r < ROWS; r++)

INLINE __m256i load32(const void *p)
{
	return _mm256_loadu_si256(p);
}

INLINE __m128i load16_some(const uint8_t *p, size_t n)
{
	uint8_t all[16] = {0};
	if (n >= 16) return _mm_loadu_si128((const __m128i *)(const void *)p);
	memcpy(all, p, n);
	return _mm_loadu_si128((const __m128i *)(const void *)all);
}

/* The sums of four accumulators. */
INLINE __m128i sums4(const __m256i a[4])
{
	__m256i t = _mm256_hadd_epi32(_mm256_hadd_epi32(a[0], a[1]), _mm256_hadd_epi32(a[2], a[3]));
	return _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
}

INLINE void store4(int32_t *out, __m128i sum, size_t n)
{
	int32_t some[4];
	_mm_storeu_si128((__m128i *)(void *)(n < 4 ? some : out), sum);
	if (n < 4) memcpy(out, some, n * sizeof *out);
}

/* ---- several queries ---- */

enum { QUERIES = 4, PAIR = 2, WIDE_DIMS = 1024 };

struct wide {
	int16_t q[QUERIES][WIDE_DIMS]; /* widened, padded with zeros to 16 */
	size_t dims;
	bool first; /* of the row's dims; else sums go on */
};

LEVEL static void widen(struct wide *w, const int8_t *const *q, size_t nq, size_t at)
{
	for (size_t j = 0; j < QUERIES; j++) {
		const int8_t *from = q[vk_or_last(j, nq)] + at;
		for (size_t i = 0; i < w->dims; i += 16) /* padded to 64 */
			_mm256_storeu_si256((__m256i *)(void *)(w->q[j] + i),
					    _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(from + i))));
	}
}

/* Two rows by four queries: eight accumulators. */
INLINE void pair_step(const struct wide *w, const uint8_t *const x[PAIR], size_t i, size_t n, __m256i a[PAIR][QUERIES])
{
	__m256i v[PAIR];
	_Pragma("GCC unroll 2") for (int r = 0; r < PAIR; r++) v[r] = _mm256_cvtepu8_epi16(load16_some(x[r] + i, n));
	_Pragma("GCC unroll 4") for (int j = 0; j < QUERIES; j++) {
		__m256i s = load32(w->q[j] + i);
		_Pragma("GCC unroll 2") for (int r = 0; r < PAIR; r++)
			a[r][j] = _mm256_add_epi32(a[r][j], _mm256_madd_epi16(s, v[r]));
	}
}

LEVEL static void pair(const struct wide *w, const uint8_t *const x[PAIR], int32_t sum[PAIR][QUERIES])
{
	__m256i a[PAIR][QUERIES];
	size_t i = 0;
	_Pragma("GCC unroll 2") for (int r = 0; r < PAIR; r++)
		_Pragma("GCC unroll 4") for (int j = 0; j < QUERIES; j++) a[r][j] = _mm256_setzero_si256();
	for (; w->dims - i >= 16; i += 16) pair_step(w, x, i, 16, a);
	if (i < w->dims) pair_step(w, x, i, w->dims - i, a);
	_Pragma("GCC unroll 2") for (int r = 0; r < PAIR; r++) _mm_storeu_si128((__m128i *)(void *)sum[r], sums4(a[r]));
}

LEVEL static void wide_rows(const struct wide *w, size_t nq, const uint8_t *codes, size_t stride, size_t n, int32_t *out,
			    size_t out_stride)
{
	for (size_t i = 0; i < n; i += PAIR) {
		const uint8_t *x[PAIR] = {codes + i * stride, codes + vk_or_last(i + 1, n) * stride};
		int32_t sum[PAIR][QUERIES];
		pair(w, x, sum);
		for (size_t r = 0; r < PAIR && i + r < n; r++)
			for (size_t j = 0; j < QUERIES && j < nq; j++) {
				int32_t *to = out + j * out_stride + i + r;
				*to = w->first ? sum[r][j] : *to + sum[r][j];
			}
	}
}

LEVEL void vk_code_dots_avx2(const int8_t *const *q, size_t nq, const uint8_t *codes, size_t stride, size_t n, size_t dims,
			     int32_t *out, size_t out_stride)
{
	struct wide w;
	for (size_t j = 0; j < nq; j += QUERIES)
		for (size_t at = 0; at < dims; at += WIDE_DIMS) {
			w.dims = dims - at < WIDE_DIMS ? dims - at : WIDE_DIMS;
			w.first = at == 0;
			widen(&w, q + j, nq - j, at);
			wide_rows(&w, nq - j, codes + at, stride, n, out + j * out_stride, out_stride);
		}
}

/* ---- rows out of order ---- */

LEVEL void vk_code_dot_at_avx2(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims, int32_t *out)
{
	for (size_t at = 0; at < n; at += ROWS) {
		const uint8_t *x[ROWS];
		__m256i a[ROWS];
		EACH_ROW x[r] = code[vk_or_last(at + (size_t)r, n)];
		EACH_ROW a[r] = _mm256_setzero_si256();
		for (size_t i = 0; i < dims; i += 16) {
			__m256i s = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(q + i)));
			EACH_ROW a[r] = _mm256_add_epi32(
				a[r], _mm256_madd_epi16(s, _mm256_cvtepu8_epi16(load16_some(x[r] + i, dims - i))));
		}
		store4(out + at, sums4(a), n - at);
	}
}

/* 32 bytes of a row: its low nibbles by q, its high ones by t, in 16 bits. */
INLINE __m256i nibbles(__m256i v, __m256i q, __m256i t)
{
	const __m256i four = _mm256_set1_epi8(15);
	return _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_and_si256(v, four), q),
				_mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(v, 4), four), t));
}

LEVEL void vk_nibble_dot_at_avx2(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims, int32_t *out)
{
	const __m256i one = _mm256_set1_epi16(1);
	for (size_t at = 0; at < n; at += ROWS) {
		const uint8_t *x[ROWS];
		__m256i a[ROWS];
		EACH_ROW x[r] = code[vk_or_last(at + (size_t)r, n)];
		EACH_ROW a[r] = _mm256_setzero_si256();
		for (size_t i = 0; 2 * i < dims; i += VK_NIBBLE_BYTES) {
			__m256i q0 = load32(q + 2 * i), q1 = load32(q + 2 * i + 32);
			__m256i t0 = load32(q + 2 * i + 64), t1 = load32(q + 2 * i + 96);
			EACH_ROW {
				__m256i sum = _mm256_add_epi16(nibbles(load32(x[r] + i), q0, t0),
							       nibbles(load32(x[r] + i + 32), q1, t1));
				a[r] = _mm256_add_epi32(a[r], _mm256_madd_epi16(sum, one));
			}
		}
		store4(out + at, sums4(a), n - at);
	}
}

#endif
