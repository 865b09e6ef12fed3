/*
 * The AVX2 twins. A row's 32 float lanes are four registers, so floats go two rows at a time (eight
 * additions under way, four registers of query); bytes go four. What is shorter than a register comes
 * by masked loads, or by a copy where the machine has none, so nothing is read past a row.
 *
 * Bytes are widened to 16 bits and multiplied by VPMADDWD: VPMADDUBSW would saturate. i8 rows are moved
 * to unsigned (xor 0x80) and 128 * sum(q) is taken off again, so that they share the code of the 8-bit
 * codes. i32 lanes hold 65,536 dims: 2 * 2 * 255^2 * 2,048 < 2^31.
 */
#include "simd/score_levels.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>

#define LEVEL __attribute__((target("avx2,fma,f16c,bmi2,popcnt")))
#define INLINE LEVEL __attribute__((always_inline)) static inline
#define ROWS VK_SCORE_GROUP
#define EACH_ROW _Pragma("GCC unroll 4") for (int r = 0; r < ROWS; r++)
#define EACH_PART _Pragma("GCC unroll 4") for (int p = 0; p < 4; p++)

/* ---- floats ---- */

INLINE __m256 load8(enum vk_dtype t, const uint8_t *p)
{
	if (t == VK_DTYPE_F16) return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
	return _mm256_loadu_ps((const float *)(const void *)p);
}

INLINE __m256i first(int n)
{
	return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n of eight, n <= 0 for none; the others are zero. */
INLINE __m256 load_some(enum vk_dtype t, const uint8_t *p, int n)
{
	uint8_t half[16] = {0};
	if (n >= 8) return load8(t, p);
	if (t == VK_DTYPE_F32) return _mm256_maskload_ps((const float *)(const void *)p, first(n));
	if (n > 0) memcpy(half, p, 2 * (size_t)n);
	return load8(t, half);
}

INLINE __m256 step(int kind, __m256 q, __m256 x, __m256 acc)
{
	__m256 d = _mm256_sub_ps(q, x);
	if (kind == KIND_DOT) return _mm256_fmadd_ps(q, x, acc);
	if (kind == KIND_L2) return _mm256_fmadd_ps(d, d, acc);
	return _mm256_add_ps(acc, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), d));
}

/* Lanes + 16, + 8 of one row. */
INLINE __m256 fold_parts(const __m256 a[4])
{
	return _mm256_add_ps(_mm256_add_ps(a[0], a[2]), _mm256_add_ps(a[1], a[3]));
}

/* Two rows of the group, down to eight lanes each. */
INLINE void float_pair(int kind, enum vk_dtype t, const uint8_t *q, const struct vk_score_group *g, int row,
		       size_t dims, __m256 out[2])
{
	const size_t size = t == VK_DTYPE_F16 ? 2 : 4;
	const uint8_t *x = g->x[row], *y = g->x[row + 1], *ahead_x = g->ahead[row], *ahead_y = g->ahead[row + 1];
	__m256 a[4], b[4];
	size_t i = 0;
	EACH_PART a[p] = b[p] = _mm256_setzero_ps();
	for (; dims - i >= 32; i += 32) {
		vk_prefetch(ahead_x + i * size);
		vk_prefetch(ahead_y + i * size);
		if (t == VK_DTYPE_F32) vk_prefetch(ahead_x + i * size + 64);
		if (t == VK_DTYPE_F32) vk_prefetch(ahead_y + i * size + 64);
		EACH_PART {
			__m256 v = load8(VK_DTYPE_F32, q + 4 * (i + 8 * (size_t)p));
			a[p] = step(kind, v, load8(t, x + (i + 8 * (size_t)p) * size), a[p]);
			b[p] = step(kind, v, load8(t, y + (i + 8 * (size_t)p) * size), b[p]);
		}
	}
	if (i < dims) EACH_PART {
		int n = (int)(dims - i) - 8 * p;
		size_t at = n > 0 ? i + 8 * (size_t)p : 0; /* no pointer past the row */
		__m256 some = _mm256_castsi256_ps(first(n)), v = load_some(VK_DTYPE_F32, q + 4 * at, n);
		/* A lane without a component must keep even a minus zero, which 0 * 0 would turn. */
		a[p] = _mm256_blendv_ps(a[p], step(kind, v, load_some(t, x + at * size, n), a[p]), some);
		b[p] = _mm256_blendv_ps(b[p], step(kind, v, load_some(t, y + at * size, n), b[p]), some);
	}
	out[0] = fold_parts(a);
	out[1] = fold_parts(b);
}

/* Eight lanes of four rows: + 4, + 2, + 1. */
INLINE __m128 fold(const __m256 a[ROWS])
{
	__m256 ab = _mm256_add_ps(_mm256_permute2f128_ps(a[0], a[1], 0x20), _mm256_permute2f128_ps(a[0], a[1], 0x31));
	__m256 cd = _mm256_add_ps(_mm256_permute2f128_ps(a[2], a[3], 0x20), _mm256_permute2f128_ps(a[2], a[3], 0x31));
	__m256 t = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
	t = _mm256_add_ps(_mm256_shuffle_ps(t, t, 0x88), _mm256_shuffle_ps(t, t, 0xdd)); /* a c . . b d . . */
	__m128 s = _mm_unpacklo_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
	return _mm_blendv_ps(s, _mm_set1_ps(NAN), _mm_cmpunord_ps(s, s));
}

INLINE void float_group(int kind, enum vk_dtype t, const void *q, const struct vk_score_group *g, size_t dims,
			float raw[ROWS])
{
	__m256 a[ROWS];
	float_pair(kind, t, q, g, 0, dims, a);
	float_pair(kind, t, q, g, 2, dims, a + 2);
	_mm_storeu_ps(raw, fold(a));
}

/* ---- integers: each kernel leaves four i64 a row ---- */

INLINE __m256i sums(const __m256i a[ROWS])
{
	__m256i ab = _mm256_add_epi64(_mm256_unpacklo_epi64(a[0], a[1]), _mm256_unpackhi_epi64(a[0], a[1]));
	__m256i cd = _mm256_add_epi64(_mm256_unpacklo_epi64(a[2], a[3]), _mm256_unpackhi_epi64(a[2], a[3]));
	return _mm256_add_epi64(_mm256_permute2x128_si256(ab, cd, 0x20), _mm256_permute2x128_si256(ab, cd, 0x31));
}

INLINE __m256i widen(__m256i a)
{
	return _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(a)),
				_mm256_cvtepi32_epi64(_mm256_extracti128_si256(a, 1)));
}

INLINE __m256i load32(const uint8_t *p)
{
	return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

INLINE __m256i load32_some(const uint8_t *p, size_t n)
{
	uint8_t all[32] = {0};
	memcpy(all, p, n);
	return load32(all);
}

/* What of the query is the same for every row of a group. */
struct query32 {
	__m256i v, low, high; /* low, high: 16 bits, in the order that unpacking leaves */
};

INLINE struct query32 query32(int kind, enum vk_dtype t, __m256i v)
{
	const __m256i zero = _mm256_setzero_si256(), flip = _mm256_set1_epi8((char)0x80);
	if (kind == KIND_DOT) {
		__m256i sign = t == VK_DTYPE_I8 ? _mm256_cmpgt_epi8(zero, v) : zero;
		return (struct query32){v, _mm256_unpacklo_epi8(v, sign), _mm256_unpackhi_epi8(v, sign)};
	}
	return (struct query32){t == VK_DTYPE_I8 ? _mm256_xor_si256(v, flip) : v, zero, zero};
}

INLINE __m256i ones(__m256i v)
{
	const __m256i count = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3,
					       1, 2, 2, 3, 2, 3, 3, 4);
	const __m256i four = _mm256_set1_epi8(15);
	__m256i n = _mm256_add_epi8(_mm256_shuffle_epi8(count, _mm256_and_si256(v, four)),
				    _mm256_shuffle_epi8(count, _mm256_and_si256(_mm256_srli_epi16(v, 4), four)));
	return _mm256_sad_epu8(n, _mm256_setzero_si256());
}

/* 32 bytes of a row: i64 lanes for Hamming and L1, i32 lanes else. i8 rows of a dot come moved by 128. */
INLINE __m256i byte_step(int kind, enum vk_dtype t, struct query32 q, __m256i x, __m256i acc)
{
	const __m256i zero = _mm256_setzero_si256();
	if (kind == KIND_HAMMING) return _mm256_add_epi64(acc, ones(_mm256_xor_si256(q.v, x)));
	if (t == VK_DTYPE_I8) x = _mm256_xor_si256(x, _mm256_set1_epi8((char)0x80));
	if (kind == KIND_L1) return _mm256_add_epi64(acc, _mm256_sad_epu8(q.v, x));
	if (kind == KIND_L2) {
		__m256i d = _mm256_sub_epi8(_mm256_max_epu8(q.v, x), _mm256_min_epu8(q.v, x));
		q.low = _mm256_unpacklo_epi8(d, zero);
		q.high = _mm256_unpackhi_epi8(d, zero);
		return _mm256_add_epi32(_mm256_add_epi32(acc, _mm256_madd_epi16(q.low, q.low)),
					_mm256_madd_epi16(q.high, q.high));
	}
	return _mm256_add_epi32(_mm256_add_epi32(acc, _mm256_madd_epi16(q.low, _mm256_unpacklo_epi8(x, zero))),
				_mm256_madd_epi16(q.high, _mm256_unpackhi_epi8(x, zero)));
}

INLINE __m256i sum_of(struct query32 q, __m256i acc)
{
	return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_add_epi16(q.low, q.high), _mm256_set1_epi16(1)));
}

INLINE __m256i byte_rows(int kind, enum vk_dtype t, const uint8_t *q, const struct vk_score_group *g, size_t bytes)
{
	__m256i a[ROWS], sum_q = _mm256_setzero_si256();
	const bool moved = kind == KIND_DOT && t == VK_DTYPE_I8, narrow = kind == KIND_DOT || kind == KIND_L2;
	size_t i = 0;
	EACH_ROW a[r] = _mm256_setzero_si256();
	for (; bytes - i >= 32; i += 32) {
		struct query32 v = query32(kind, t, load32(q + i));
		if (moved) sum_q = sum_of(v, sum_q);
		EACH_ROW {
			vk_prefetch(g->ahead[r] + i);
			a[r] = byte_step(kind, t, v, load32(g->x[r] + i), a[r]);
		}
	}
	if (i < bytes) {
		struct query32 v = query32(kind, t, load32_some(q + i, bytes - i));
		if (moved) sum_q = sum_of(v, sum_q);
		EACH_ROW a[r] = byte_step(kind, t, v, load32_some(g->x[r] + i, bytes - i), a[r]);
	}
	if (narrow) EACH_ROW a[r] = widen(a[r]);
	if (moved) EACH_ROW a[r] = _mm256_sub_epi64(a[r], _mm256_slli_epi64(widen(sum_q), 7));
	return sums(a);
}

INLINE void byte_group(int kind, enum vk_dtype t, const void *q, const struct vk_score_group *g, size_t bytes,
		       float raw[ROWS])
{
	int64_t sum[ROWS];
	_mm256_storeu_si256((__m256i *)(void *)sum, byte_rows(kind, t, q, g, bytes));
	EACH_ROW raw[r] = (float)sum[r];
}

VK_SCORE_EACH(VK_SCORE_TWIN)

/* ---- codes: query signed, rows unsigned as they are ---- */

INLINE __m256i code_step(__m256i low, __m256i high, __m256i x, __m256i acc)
{
	const __m256i zero = _mm256_setzero_si256();
	acc = _mm256_add_epi32(acc, _mm256_madd_epi16(low, _mm256_unpacklo_epi8(x, zero)));
	return _mm256_add_epi32(acc, _mm256_madd_epi16(high, _mm256_unpackhi_epi8(x, zero)));
}

LEVEL static void code_group(const int8_t *query, const struct vk_score_group *g, size_t dims, int32_t out[ROWS])
{
	const uint8_t *q = (const uint8_t *)query;
	__m256i a[ROWS];
	size_t i = 0;
	EACH_ROW a[r] = _mm256_setzero_si256();
	for (; dims - i >= 32; i += 32) {
		struct query32 v = query32(KIND_DOT, VK_DTYPE_I8, load32(q + i));
		EACH_ROW {
			vk_prefetch(g->ahead[r] + i);
			a[r] = code_step(v.low, v.high, load32(g->x[r] + i), a[r]);
		}
	}
	if (i < dims) {
		struct query32 v = query32(KIND_DOT, VK_DTYPE_I8, load32_some(q + i, dims - i));
		EACH_ROW a[r] = code_step(v.low, v.high, load32_some(g->x[r] + i, dims - i), a[r]);
	}
	int64_t sum[ROWS];
	EACH_ROW a[r] = widen(a[r]);
	_mm256_storeu_si256((__m256i *)(void *)sum, sums(a));
	EACH_ROW out[r] = (int32_t)sum[r];
}

LEVEL static void code_dot(const int8_t *q, const uint8_t *codes, size_t stride, size_t n, size_t dims, const uint8_t *next,
		     int32_t *out)
{
	VK_CODE_ROWS(code_group, q, codes, stride, n, dims, next, out);
}

/* ---- conversions: whole registers here, the rest by the scalar level ---- */

LEVEL static void f32_to_f16(uint16_t *dst, const float *src, size_t n)
{
	size_t i = 0;
	for (; n - i >= 8; i += 8) {
		__m128i v = _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT);
		_mm_storeu_si128((__m128i *)(void *)(dst + i), v);
	}
	if (i < n) vk_kernels_scalar.f32_to_f16(dst + i, src + i, n - i);
}

LEVEL static void f16_to_f32(float *dst, const uint16_t *src, size_t n)
{
	size_t i = 0;
	for (; n - i >= 8; i += 8) _mm256_storeu_ps(dst + i, load8(VK_DTYPE_F16, (const uint8_t *)(src + i)));
	if (i < n) vk_kernels_scalar.f16_to_f32(dst + i, src + i, n - i);
}

LEVEL static void f32_to_u8(uint8_t *dst, const float *src, size_t n)
{
	size_t i = 0;
	for (; n - i >= 8; i += 8) {
		/* Of a NaN, max gives its second operand: 0. */
		__m256 v = _mm256_max_ps(_mm256_loadu_ps(src + i), _mm256_setzero_ps());
		__m256i w = _mm256_cvttps_epi32(_mm256_min_ps(v, _mm256_set1_ps(255)));
		__m128i h = _mm_packus_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
		_mm_storel_epi64((__m128i *)(void *)(dst + i), _mm_packus_epi16(h, h));
	}
	if (i < n) vk_kernels_scalar.f32_to_u8(dst + i, src + i, n - i);
}

LEVEL static void f32_to_bits(uint8_t *dst, const float *src, size_t n)
{
	size_t i = 0;
	for (; n - i >= 8; i += 8)
		dst[i / 8] = (uint8_t)_mm256_movemask_ps(
			_mm256_cmp_ps(_mm256_loadu_ps(src + i), _mm256_setzero_ps(), _CMP_GT_OQ));
	if (i < n) vk_kernels_scalar.f32_to_bits(dst + i / 8, src + i, n - i);
}

LEVEL static void f32_min_max(const float *src, size_t n, float *min, float *max)
{
	float some[8], low, high;
	size_t i = 8;
	if (n < 16) {
		vk_kernels_scalar.f32_min_max(src, n, min, max);
		return;
	}
	__m256 lo = _mm256_loadu_ps(src), hi = lo;
	for (; n - i >= 8; i += 8) {
		__m256 v = _mm256_loadu_ps(src + i);
		lo = _mm256_min_ps(lo, v);
		hi = _mm256_max_ps(hi, v);
	}
	__m256 v = _mm256_loadu_ps(src + n - 8); /* some of them twice: no harm */
	_mm256_storeu_ps(some, _mm256_min_ps(lo, v));
	vk_kernels_scalar.f32_min_max(some, 8, min, &high);
	_mm256_storeu_ps(some, _mm256_max_ps(hi, v));
	vk_kernels_scalar.f32_min_max(some, 8, &low, max);
}

LEVEL static size_t at_least(const float *rank, size_t n, float floor, uint32_t *idx)
{
	const __m256 least = _mm256_set1_ps(floor);
	size_t kept = 0, i = 0;
	for (; n - i >= 8; i += 8) {
		unsigned pass = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(rank + i), least, _CMP_GE_OQ));
		if (!pass) continue; /* nearly always, once k good ones are known */
		/* The numbers of the set bits, a byte each: eight are written, kept + 8 <= i + 8. */
		uint64_t which = _pext_u64(0x0706050403020100, _pdep_u64(pass, 0x0101010101010101) * 255);
		__m256i id = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)which));
		_mm256_storeu_si256((__m256i *)(void *)(idx + kept), _mm256_add_epi32(id, _mm256_set1_epi32((int)i)));
		kept += (size_t)__builtin_popcount(pass);
	}
	for (; i < n; i++)
		if (rank[i] >= floor) idx[kept++] = (uint32_t)i;
	return kept;
}

const struct vk_kernels vk_kernels_avx2 = VK_KERNELS_TABLE(VK_CPU_AVX2, avx2);

#endif
