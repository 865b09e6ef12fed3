/*
 * The AVX-512 twins. Four rows at a time; a row's 32 lanes are two registers, so eight additions are
 * under way, which is what two ports of latency four can take. Tails are masked loads: they neither
 * read past a row nor change a lane that has no component.
 *
 * Bytes. VPDPBUSD multiplies unsigned by signed, so one side of u8 * u8 and of i8 * i8 is moved by 128
 * (xor 0x80) and the sum that this adds or takes is put back: 128 * sum(x) a row, 128 * sum(q) a group.
 * Its i32 lanes hold 65,536 dims: 4 * 255 * 128 * 1,024 < 2^31. Squares need 9 bits and sign: absolute
 * differences are widened to 16 bits for VPDPWSSD, 2 * 2 * 255^2 * 1,024 < 2^31. Sums leave the lanes
 * as i64.
 */
#include "simd/score_levels.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>

#define LEVEL                                                                                           \
	__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vpopcntdq,avx512vbmi," \
			      "avx2,fma,f16c,bmi2,popcnt")))
#define INLINE LEVEL __attribute__((always_inline)) static inline
#define ROWS VK_SCORE_GROUP
#define EACH_ROW _Pragma("GCC unroll 4") for (int r = 0; r < ROWS; r++)

/* ---- floats ---- */

INLINE __m512 load16(enum vk_dtype t, const uint8_t *p, __mmask16 some)
{
	if (t == VK_DTYPE_F16) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(some, p));
	return _mm512_maskz_loadu_ps(some, p);
}

INLINE __m512 step(int kind, __m512 q, __m512 x, __m512 acc, __mmask16 some)
{
	__m512 d = _mm512_sub_ps(q, x);
	/* A masked lane must keep even a minus zero, which 0 * 0 would turn; L2 and L1 have none. */
	if (kind == KIND_DOT) return _mm512_mask3_fmadd_ps(q, x, acc, some);
	if (kind == KIND_L2) return _mm512_fmadd_ps(d, d, acc);
	return _mm512_add_ps(acc, _mm512_abs_ps(d));
}

/* Lanes 0..15 of four rows: + 8, + 4, + 2, + 1, the rows side by side in 128 bits each. */
INLINE __m128 fold(const __m512 a[ROWS])
{
	__m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x44), _mm512_shuffle_f32x4(a[0], a[1], 0xee));
	__m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(a[2], a[3], 0x44), _mm512_shuffle_f32x4(a[2], a[3], 0xee));
	__m512 t = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
	t = _mm512_add_ps(t, _mm512_permute_ps(t, 0x4e));
	t = _mm512_add_ps(t, _mm512_permute_ps(t, 0xb1));
	__m128 s = _mm512_castps512_ps128(_mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0,
										 0, 0, 0, 0, 0), t));
	return _mm_mask_blend_ps(_mm_cmp_ps_mask(s, s, _CMP_UNORD_Q), s, _mm_set1_ps(NAN));
}

INLINE void float_group(int kind, enum vk_dtype t, const float *q, const struct vk_score_group *g, size_t dims,
			float raw[ROWS])
{
	const size_t size = t == VK_DTYPE_F16 ? 2 : 4;
	const uint8_t *qb = (const uint8_t *)q;
	__m512 a[ROWS], b[ROWS];
	size_t i = 0;
	EACH_ROW a[r] = b[r] = _mm512_setzero_ps();
	for (; dims - i >= 32; i += 32) {
		__m512 q0 = _mm512_loadu_ps(qb + 4 * i), q1 = _mm512_loadu_ps(qb + 4 * i + 64);
		EACH_ROW {
			vk_prefetch(g->ahead[r] + i * size);
			if (t == VK_DTYPE_F32) vk_prefetch(g->ahead[r] + i * size + 64);
			a[r] = step(kind, q0, load16(t, g->x[r] + i * size, 0xffff), a[r], 0xffff);
			b[r] = step(kind, q1, load16(t, g->x[r] + (i + 16) * size, 0xffff), b[r], 0xffff);
		}
	}
	if (i < dims) {
		uint32_t some = _bzhi_u32(0xffffffff, (unsigned)(dims - i));
		__mmask16 low = (__mmask16)some, high = (__mmask16)(some >> 16);
		__m512 q0 = _mm512_maskz_loadu_ps(low, qb + 4 * i), q1 = _mm512_maskz_loadu_ps(high, qb + 4 * i + 64);
		EACH_ROW {
			a[r] = step(kind, q0, load16(t, g->x[r] + i * size, low), a[r], low);
			b[r] = step(kind, q1, load16(t, g->x[r] + (i + 16) * size, high), b[r], high);
		}
	}
	EACH_ROW a[r] = _mm512_add_ps(a[r], b[r]);
	_mm_storeu_ps(raw, fold(a));
}

/* ---- integers: each kernel leaves eight i64 a row ---- */

/* Four rows of eight i64 become four sums. */
INLINE __m256i sums(const __m512i a[ROWS])
{
	__m512i ab = _mm512_add_epi64(_mm512_unpacklo_epi64(a[0], a[1]), _mm512_unpackhi_epi64(a[0], a[1]));
	__m512i cd = _mm512_add_epi64(_mm512_unpacklo_epi64(a[2], a[3]), _mm512_unpackhi_epi64(a[2], a[3]));
	__m512i t = _mm512_add_epi64(_mm512_shuffle_i64x2(ab, cd, 0x88), _mm512_shuffle_i64x2(ab, cd, 0xdd));
	/* ab cd now stand in the even and odd quarters' order ab ab cd cd. */
	t = _mm512_add_epi64(t, _mm512_shuffle_i64x2(t, t, 0xb1));
	return _mm512_castsi512_si256(_mm512_shuffle_i64x2(t, t, 0x08));
}

INLINE __m512i widen(__m512i a)
{
	return _mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(a)),
				_mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(a, 1)));
}

/* 64 bytes of a row into its two accumulators. */
INLINE void byte_step(int kind, enum vk_dtype t, __m512i q, __m512i x, __m512i *a, __m512i *b)
{
	const __m512i flip = _mm512_set1_epi8((char)0x80), zero = _mm512_setzero_si512();
	if (kind == KIND_HAMMING) {
		*a = _mm512_add_epi64(*a, _mm512_popcnt_epi64(_mm512_xor_si512(q, x)));
	} else if (kind == KIND_DOT && t == VK_DTYPE_U8) {
		*a = _mm512_dpbusd_epi32(*a, x, _mm512_xor_si512(q, flip));
		*b = _mm512_dpbusd_epi32(*b, x, _mm512_set1_epi8(1));
	} else if (kind == KIND_DOT) {
		*a = _mm512_dpbusd_epi32(*a, _mm512_xor_si512(x, flip), q);
	} else {
		if (t == VK_DTYPE_I8) q = _mm512_xor_si512(q, flip), x = _mm512_xor_si512(x, flip);
		if (kind == KIND_L1) {
			*a = _mm512_add_epi64(*a, _mm512_sad_epu8(q, x));
		} else {
			__m512i d = _mm512_sub_epi8(_mm512_max_epu8(q, x), _mm512_min_epu8(q, x));
			__m512i low = _mm512_unpacklo_epi8(d, zero), high = _mm512_unpackhi_epi8(d, zero);
			*a = _mm512_dpwssd_epi32(*a, low, low);
			*b = _mm512_dpwssd_epi32(*b, high, high);
		}
	}
}

/* What the accumulators mean; sum_q is sum(q) in i32 lanes. */
INLINE __m512i byte_total(int kind, enum vk_dtype t, __m512i a, __m512i b, __m512i sum_q)
{
	if (kind == KIND_HAMMING || kind == KIND_L1) return a;
	if (kind == KIND_L2) return _mm512_add_epi64(widen(a), widen(b));
	if (t == VK_DTYPE_U8) return _mm512_add_epi64(widen(a), _mm512_slli_epi64(widen(b), 7));
	return _mm512_sub_epi64(widen(a), _mm512_slli_epi64(widen(sum_q), 7));
}

INLINE __m256i byte_rows(int kind, enum vk_dtype t, const uint8_t *q, const struct vk_score_group *g, size_t bytes)
{
	__m512i a[ROWS], b[ROWS], sum_q = _mm512_setzero_si512();
	size_t i = 0;
	EACH_ROW a[r] = b[r] = _mm512_setzero_si512();
	for (; bytes - i >= 64; i += 64) {
		__m512i v = _mm512_loadu_si512(q + i);
		if (kind == KIND_DOT && t == VK_DTYPE_I8) sum_q = _mm512_dpbusd_epi32(sum_q, _mm512_set1_epi8(1), v);
		EACH_ROW {
			vk_prefetch(g->ahead[r] + i);
			byte_step(kind, t, v, _mm512_loadu_si512(g->x[r] + i), &a[r], &b[r]);
		}
	}
	if (i < bytes) {
		__mmask64 some = _bzhi_u64(~(uint64_t)0, (unsigned)(bytes - i));
		__m512i v = _mm512_maskz_loadu_epi8(some, q + i);
		if (kind == KIND_DOT && t == VK_DTYPE_I8) sum_q = _mm512_dpbusd_epi32(sum_q, _mm512_set1_epi8(1), v);
		EACH_ROW byte_step(kind, t, v, _mm512_maskz_loadu_epi8(some, g->x[r] + i), &a[r], &b[r]);
	}
	EACH_ROW a[r] = byte_total(kind, t, a[r], b[r], sum_q);
	return sums(a);
}

INLINE void byte_group(int kind, enum vk_dtype t, const void *q, const struct vk_score_group *g, size_t bytes,
		       float raw[ROWS])
{
	_mm_storeu_ps(raw, _mm256_cvtepi64_ps(byte_rows(kind, t, q, g, bytes)));
}

VK_SCORE_EACH(VK_SCORE_TWIN)

/* ---- codes: unsigned by signed as they come ---- */

LEVEL static void code_group(const int8_t *q, const struct vk_score_group *g, size_t dims, int32_t out[ROWS])
{
	__m512i a[ROWS];
	size_t i = 0;
	EACH_ROW a[r] = _mm512_setzero_si512();
	for (; dims - i >= 64; i += 64) {
		__m512i v = _mm512_loadu_si512(q + i);
		EACH_ROW {
			vk_prefetch(g->ahead[r] + i);
			a[r] = _mm512_dpbusd_epi32(a[r], _mm512_loadu_si512(g->x[r] + i), v);
		}
	}
	if (i < dims) {
		__mmask64 some = _bzhi_u64(~(uint64_t)0, (unsigned)(dims - i));
		__m512i v = _mm512_maskz_loadu_epi8(some, q + i);
		EACH_ROW a[r] = _mm512_dpbusd_epi32(a[r], _mm512_maskz_loadu_epi8(some, g->x[r] + i), v);
	}
	EACH_ROW a[r] = widen(a[r]);
	_mm_storeu_si128((__m128i *)(void *)out, _mm256_cvtepi64_epi32(sums(a)));
}

LEVEL static void code_dot(const int8_t *q, const uint8_t *codes, size_t stride, size_t n, size_t dims, const uint8_t *next,
		     int32_t *out)
{
	VK_CODE_ROWS(code_group, q, codes, stride, n, dims, next, out);
}

/* ---- conversions ---- */

LEVEL static void f32_to_f16(uint16_t *dst, const float *src, size_t n)
{
	for (size_t i = 0; i < n; i += 16) {
		__mmask16 some = (__mmask16)_bzhi_u32(0xffff, n - i < 16 ? (unsigned)(n - i) : 16);
		__m512 v = _mm512_maskz_loadu_ps(some, (const uint8_t *)src + 4 * i);
		_mm256_mask_storeu_epi16((uint8_t *)dst + 2 * i, some,
					 _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
	}
}

LEVEL static void f16_to_f32(float *dst, const uint16_t *src, size_t n)
{
	for (size_t i = 0; i < n; i += 16) {
		__mmask16 some = (__mmask16)_bzhi_u32(0xffff, n - i < 16 ? (unsigned)(n - i) : 16);
		_mm512_mask_storeu_ps((uint8_t *)dst + 4 * i, some,
				      load16(VK_DTYPE_F16, (const uint8_t *)src + 2 * i, some));
	}
}

LEVEL static void f32_to_u8(uint8_t *dst, const float *src, size_t n)
{
	for (size_t i = 0; i < n; i += 16) {
		__mmask16 some = (__mmask16)_bzhi_u32(0xffff, n - i < 16 ? (unsigned)(n - i) : 16);
		__m512 v = _mm512_maskz_loadu_ps(some, (const uint8_t *)src + 4 * i);
		v = _mm512_max_ps(v, _mm512_setzero_ps()); /* of a NaN, the second operand: 0 */
		v = _mm512_min_ps(v, _mm512_set1_ps(255));
		_mm512_mask_cvtepi32_storeu_epi8(dst + i, some, _mm512_cvttps_epi32(v));
	}
}

LEVEL static void f32_to_bits(uint8_t *dst, const float *src, size_t n)
{
	for (size_t i = 0; i < n; i += 16) {
		__mmask16 some = (__mmask16)_bzhi_u32(0xffff, n - i < 16 ? (unsigned)(n - i) : 16);
		__m512 v = _mm512_maskz_loadu_ps(some, (const uint8_t *)src + 4 * i);
		unsigned bits = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_GT_OQ);
		dst[i / 8] = (uint8_t)bits;
		if (n - i > 8) dst[i / 8 + 1] = (uint8_t)(bits >> 8);
	}
}

LEVEL static void f32_min_max(const float *src, size_t n, float *min, float *max)
{
	__m512 lo = _mm512_set1_ps(INFINITY), hi = _mm512_set1_ps(-INFINITY);
	for (size_t i = 0; i < n; i += 16) {
		__mmask16 some = (__mmask16)_bzhi_u32(0xffff, n - i < 16 ? (unsigned)(n - i) : 16);
		__m512 v = _mm512_maskz_loadu_ps(some, (const uint8_t *)src + 4 * i);
		lo = _mm512_mask_min_ps(lo, some, lo, v);
		hi = _mm512_mask_max_ps(hi, some, hi, v);
	}
	*min = _mm512_reduce_min_ps(lo) + 0.0f; /* -0 becomes +0 */
	*max = _mm512_reduce_max_ps(hi) + 0.0f;
}

LEVEL static size_t at_least(const float *rank, size_t n, float floor, uint32_t *idx)
{
	const __m512 least = _mm512_set1_ps(floor);
	__m512i id = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	size_t kept = 0;
	for (size_t i = 0; i < n; i += 16) {
		__mmask16 some = (__mmask16)_bzhi_u32(0xffff, n - i < 16 ? (unsigned)(n - i) : 16);
		__mmask16 pass = _mm512_mask_cmp_ps_mask(some, _mm512_maskz_loadu_ps(some, rank + i), least, _CMP_GE_OQ);
		if (pass) { /* seldom: nearly all rows fail once k good ones are known */
			_mm512_mask_storeu_epi32(idx + kept, (__mmask16)_bzhi_u32(0xffff, (unsigned)__builtin_popcount(pass)),
						 _mm512_maskz_compress_epi32(pass, id));
			kept += (size_t)__builtin_popcount(pass);
		}
		id = _mm512_add_epi32(id, _mm512_set1_epi32(16));
	}
	return kept;
}

const struct vk_kernels vk_kernels_avx512 = VK_KERNELS_TABLE(VK_CPU_AVX512, avx512);

#endif
