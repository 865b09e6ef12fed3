/*
 * The NEON twins. A row's 32 float lanes are eight registers of 32, so floats go two rows at a time;
 * bytes go four. Tails of floats are done lane by lane, tails of bytes by a copy into a full register.
 *
 * Dot products of bytes use UDOT and SDOT where the CPU has them (asked once), and widening
 * multiplications where not. Codes are unsigned and their query signed, which only newer CPUs multiply
 * at once (USDOT): codes are moved by 128 (xor 0x80) for SDOT, and 128 * sum(q) is put back. 32-bit
 * lanes hold 65,536 dims: the whole of 255^2 * 65,536 is below 2^32, of 128^2 * 65,536 below 2^31.
 */
#include "simd/score_levels.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <asm/hwcap.h>
#include <math.h>
#include <stdatomic.h>
#include <sys/auxv.h>

#define LEVEL
#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#define INLINE __attribute__((always_inline)) static inline
#define ROWS VK_SCORE_GROUP
#define EACH_ROW _Pragma("GCC unroll 4") for (int r = 0; r < ROWS; r++)
#define EACH_PART _Pragma("GCC unroll 8") for (size_t p = 0; p < 8; p++)

bool vk_neon_dotprod(void)
{
	static atomic_int known; /* 0: not asked yet */
	int got = atomic_load_explicit(&known, memory_order_relaxed);
	if (!got) {
		got = getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? 1 : -1;
		atomic_store_explicit(&known, got, memory_order_relaxed);
	}
	return got > 0;
}

/* ---- floats ---- */

INLINE float32x4_t load4(enum vk_dtype t, const uint8_t *p)
{
	if (t == VK_DTYPE_F16) return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
	return vreinterpretq_f32_u8(vld1q_u8(p));
}

INLINE float load1(enum vk_dtype t, const uint8_t *p)
{
	float f;
	uint16_t h;
	if (t == VK_DTYPE_F16) {
		memcpy(&h, p, sizeof h);
		return vk_f32_of_f16(h);
	}
	memcpy(&f, p, sizeof f);
	return f;
}

INLINE float32x4_t step(int kind, float32x4_t q, float32x4_t x, float32x4_t acc)
{
	float32x4_t d = vsubq_f32(q, x);
	if (kind == KIND_DOT) return vfmaq_f32(acc, q, x);
	if (kind == KIND_L2) return vfmaq_f32(acc, d, d);
	return vaddq_f32(acc, vabsq_f32(d));
}

INLINE float step1(int kind, float q, float x, float acc)
{
	float d = q - x;
	if (kind == KIND_DOT) return fmaf(q, x, acc);
	if (kind == KIND_L2) return fmaf(d, d, acc);
	return acc + fabsf(d);
}

/* What follows the last whole 32 components, into its lanes; then the fold. */
INLINE float finish(int kind, enum vk_dtype t, const uint8_t *q, const uint8_t *x, size_t rest, float32x4_t a[8])
{
	if (rest) {
		float lane[32];
		EACH_PART vst1q_f32(lane + 4 * p, a[p]);
		for (size_t l = 0; l < rest; l++)
			lane[l] = step1(kind, load1(VK_DTYPE_F32, q + 4 * l),
					load1(t, x + l * (t == VK_DTYPE_F16 ? 2 : 4)), lane[l]);
		EACH_PART a[p] = vld1q_f32(lane + 4 * p);
	}
	float32x4_t even = vaddq_f32(vaddq_f32(a[0], a[4]), vaddq_f32(a[2], a[6]));
	float32x4_t odd = vaddq_f32(vaddq_f32(a[1], a[5]), vaddq_f32(a[3], a[7]));
	float32x4_t four = vaddq_f32(even, odd);
	float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
	float one = vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
	return isnan(one) ? NAN : one;
}

INLINE void float_pair(int kind, enum vk_dtype t, const uint8_t *q, const struct vk_score_group *g, int row,
		       size_t dims, float raw[2])
{
	const size_t size = t == VK_DTYPE_F16 ? 2 : 4;
	const uint8_t *x = g->x[row], *y = g->x[row + 1];
	float32x4_t a[8], b[8];
	size_t i = 0;
	EACH_PART a[p] = b[p] = vdupq_n_f32(0);
	for (; dims - i >= 32; i += 32) {
		vk_prefetch(g->ahead[row] + i * size);
		vk_prefetch(g->ahead[row + 1] + i * size);
		if (t == VK_DTYPE_F32) vk_prefetch(g->ahead[row] + i * size + 64);
		if (t == VK_DTYPE_F32) vk_prefetch(g->ahead[row + 1] + i * size + 64);
		EACH_PART {
			float32x4_t v = load4(VK_DTYPE_F32, q + 4 * (i + 4 * p));
			a[p] = step(kind, v, load4(t, x + (i + 4 * p) * size), a[p]);
			b[p] = step(kind, v, load4(t, y + (i + 4 * p) * size), b[p]);
		}
	}
	raw[0] = finish(kind, t, q + 4 * i, x + i * size, dims - i, a);
	raw[1] = finish(kind, t, q + 4 * i, y + i * size, dims - i, b);
}

INLINE void float_group(int kind, enum vk_dtype t, const void *q, const struct vk_score_group *g, size_t dims,
			float raw[ROWS])
{
	float_pair(kind, t, q, g, 0, dims, raw);
	float_pair(kind, t, q, g, 2, dims, raw + 2);
}

/* ---- integers ---- */

INLINE uint8x16_t load16_some(const uint8_t *p, size_t n)
{
	uint8_t all[16] = {0};
	memcpy(all, p, n);
	return vld1q_u8(all);
}

/* 16 bytes of a row. Sums of signed products are kept as what they are modulo 2^32. */
INLINE uint32x4_t byte_step(int kind, enum vk_dtype t, uint8x16_t q, uint8x16_t x, uint32x4_t acc)
{
	if (kind == KIND_DOT && t == VK_DTYPE_U8) {
		acc = vpadalq_u16(acc, vmull_u8(vget_low_u8(q), vget_low_u8(x)));
		return vpadalq_u16(acc, vmull_high_u8(q, x));
	}
	int8x16_t sq = vreinterpretq_s8_u8(q), sx = vreinterpretq_s8_u8(x);
	if (kind == KIND_DOT) {
		int32x4_t s = vreinterpretq_s32_u32(acc);
		s = vpadalq_s16(s, vmull_s8(vget_low_s8(sq), vget_low_s8(sx)));
		return vreinterpretq_u32_s32(vpadalq_s16(s, vmull_high_s8(sq, sx)));
	}
	if (kind == KIND_HAMMING) return vpadalq_u16(acc, vpaddlq_u8(vcntq_u8(veorq_u8(q, x))));
	/* |q - x| fits u8 also where the bytes are signed. */
	uint8x16_t d = t == VK_DTYPE_I8 ? vreinterpretq_u8_s8(vabdq_s8(sq, sx)) : vabdq_u8(q, x);
	if (kind == KIND_L1) return vpadalq_u16(acc, vpaddlq_u8(d));
	acc = vpadalq_u16(acc, vmull_u8(vget_low_u8(d), vget_low_u8(d)));
	return vpadalq_u16(acc, vmull_high_u8(d, d));
}

INLINE int64_t total(bool is_signed, uint32x4_t a)
{
	return is_signed ? vaddlvq_s32(vreinterpretq_s32_u32(a)) : (int64_t)vaddlvq_u32(a);
}

/* STEP(q, x, acc): 16 bytes of a row into its accumulator. */
#define BYTE_ROWS(STEP, q, g, bytes, a)                                                         \
	do {                                                                                    \
		size_t i = 0;                                                                   \
		EACH_ROW a[r] = vdupq_n_u32(0);                                                 \
		for (; (bytes) - i >= 16; i += 16) {                                            \
			uint8x16_t v = vld1q_u8((q) + i);                                       \
			EACH_ROW {                                                              \
				if (i % 64 == 0) vk_prefetch(g->ahead[r] + i);                  \
				a[r] = STEP(v, vld1q_u8(g->x[r] + i), a[r]);                    \
			}                                                                       \
		}                                                                               \
		if (i < (bytes)) {                                                              \
			uint8x16_t v = load16_some((q) + i, (bytes) - i);                       \
			EACH_ROW a[r] = STEP(v, load16_some(g->x[r] + i, (bytes) - i), a[r]);   \
		}                                                                               \
	} while (0)

INLINE void byte_plain(int kind, enum vk_dtype t, const uint8_t *q, const struct vk_score_group *g, size_t bytes,
		       float raw[ROWS])
{
	uint32x4_t a[ROWS];
#define STEP(v, x, acc) byte_step(kind, t, v, x, acc)
	BYTE_ROWS(STEP, q, g, bytes, a);
#undef STEP
	EACH_ROW raw[r] = (float)total(kind == KIND_DOT && t == VK_DTYPE_I8, a[r]);
}

DOTPROD static void dot_u8_fast(const uint8_t *q, const struct vk_score_group *g, size_t bytes, float raw[ROWS])
{
	uint32x4_t a[ROWS];
#define STEP(v, x, acc) vdotq_u32(acc, v, x)
	BYTE_ROWS(STEP, q, g, bytes, a);
#undef STEP
	EACH_ROW raw[r] = (float)total(false, a[r]);
}

DOTPROD static void dot_i8_fast(const uint8_t *q, const struct vk_score_group *g, size_t bytes, float raw[ROWS])
{
	uint32x4_t a[ROWS];
#define STEP(v, x, acc)                                                                              \
	vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(acc), vreinterpretq_s8_u8(v), vreinterpretq_s8_u8(x)))
	BYTE_ROWS(STEP, q, g, bytes, a);
#undef STEP
	EACH_ROW raw[r] = (float)total(true, a[r]);
}

INLINE void byte_group(int kind, enum vk_dtype t, const void *q, const struct vk_score_group *g, size_t bytes,
		       float raw[ROWS])
{
	if (kind != KIND_DOT || !vk_neon_dotprod()) byte_plain(kind, t, q, g, bytes, raw);
	else if (t == VK_DTYPE_I8) dot_i8_fast(q, g, bytes, raw);
	else dot_u8_fast(q, g, bytes, raw);
}

VK_SCORE_EACH(VK_SCORE_TWIN)

/* ---- codes ---- */

INLINE uint32x4_t code_step(uint8x16_t q, uint8x16_t x, uint32x4_t acc)
{
	int8x16_t sq = vreinterpretq_s8_u8(q);
	int16x8_t q0 = vmovl_s8(vget_low_s8(sq)), q1 = vmovl_high_s8(sq);
	int16x8_t x0 = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x))), x1 = vreinterpretq_s16_u16(vmovl_high_u8(x));
	int32x4_t s = vreinterpretq_s32_u32(acc);
	s = vmlal_s16(s, vget_low_s16(q0), vget_low_s16(x0));
	s = vmlal_high_s16(s, q0, x0);
	s = vmlal_s16(s, vget_low_s16(q1), vget_low_s16(x1));
	return vreinterpretq_u32_s32(vmlal_high_s16(s, q1, x1));
}

static void code_plain(const uint8_t *q, const struct vk_score_group *g, size_t dims, int32_t out[ROWS])
{
	uint32x4_t a[ROWS];
	BYTE_ROWS(code_step, q, g, dims, a);
	EACH_ROW out[r] = (int32_t)total(true, a[r]);
}

DOTPROD static int64_t sum_of(const uint8_t *q, size_t dims)
{
	int32x4_t sum = vdupq_n_s32(0);
	size_t i = 0;
	for (; dims - i >= 16; i += 16) sum = vdotq_s32(sum, vreinterpretq_s8_u8(vld1q_u8(q + i)), vdupq_n_s8(1));
	sum = vdotq_s32(sum, vreinterpretq_s8_u8(load16_some(q + i, dims - i)), vdupq_n_s8(1));
	return vaddlvq_s32(sum);
}

DOTPROD static void code_fast(const uint8_t *q, const struct vk_score_group *g, size_t dims, int32_t out[ROWS])
{
	uint32x4_t a[ROWS];
#define STEP(v, x, acc)                                                                              \
	vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(acc), vreinterpretq_s8_u8(v),          \
					vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(0x80)))))
	BYTE_ROWS(STEP, q, g, dims, a);
#undef STEP
	int64_t moved = 128 * sum_of(q, dims);
	EACH_ROW out[r] = (int32_t)(total(true, a[r]) + moved);
}

static void code_group(const int8_t *q, const struct vk_score_group *g, size_t dims, int32_t out[ROWS])
{
	if (vk_neon_dotprod()) code_fast((const uint8_t *)q, g, dims, out);
	else code_plain((const uint8_t *)q, g, dims, out);
}

static void code_dot(const int8_t *q, const uint8_t *codes, size_t stride, size_t n, size_t dims, const uint8_t *next,
		     int32_t *out)
{
	VK_CODE_ROWS(code_group, q, codes, stride, n, dims, next, out);
}

/* ---- conversions: whole registers here, the rest by the scalar level ---- */

static void f32_to_f16(uint16_t *dst, const float *src, size_t n)
{
	size_t i = 0;
	for (; n - i >= 4; i += 4)
		vst1_u8((uint8_t *)(dst + i), vreinterpret_u8_f16(vcvt_f16_f32(load4(VK_DTYPE_F32, (const uint8_t *)(src + i)))));
	if (i < n) vk_kernels_scalar.f32_to_f16(dst + i, src + i, n - i);
}

static void f16_to_f32(float *dst, const uint16_t *src, size_t n)
{
	size_t i = 0;
	for (; n - i >= 4; i += 4)
		vst1q_u8((uint8_t *)(dst + i), vreinterpretq_u8_f32(load4(VK_DTYPE_F16, (const uint8_t *)(src + i))));
	if (i < n) vk_kernels_scalar.f16_to_f32(dst + i, src + i, n - i);
}

/* Toward zero, saturating; NaN gives 0: what the instruction does. */
INLINE uint16x4_t small4(const float *src)
{
	return vqmovn_u32(vcvtq_u32_f32(load4(VK_DTYPE_F32, (const uint8_t *)src)));
}

static void f32_to_u8(uint8_t *dst, const float *src, size_t n)
{
	size_t i = 0;
	for (; n - i >= 8; i += 8) vst1_u8(dst + i, vqmovn_u16(vcombine_u16(small4(src + i), small4(src + i + 4))));
	if (i < n) vk_kernels_scalar.f32_to_u8(dst + i, src + i, n - i);
}

static void f32_to_bits(uint8_t *dst, const float *src, size_t n)
{
	static const uint32_t bit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
	size_t i = 0;
	for (; n - i >= 8; i += 8) {
		uint32x4_t low = vcgtzq_f32(load4(VK_DTYPE_F32, (const uint8_t *)(src + i)));
		uint32x4_t high = vcgtzq_f32(load4(VK_DTYPE_F32, (const uint8_t *)(src + i + 4)));
		low = vandq_u32(low, vld1q_u32(bit));
		high = vandq_u32(high, vld1q_u32(bit + 4));
		dst[i / 8] = (uint8_t)vaddvq_u32(vorrq_u32(low, high));
	}
	if (i < n) vk_kernels_scalar.f32_to_bits(dst + i / 8, src + i, n - i);
}

static void f32_min_max(const float *src, size_t n, float *min, float *max)
{
	size_t i = 4;
	if (n < 4) {
		vk_kernels_scalar.f32_min_max(src, n, min, max);
		return;
	}
	float32x4_t lo = load4(VK_DTYPE_F32, (const uint8_t *)src), hi = lo;
	for (; n - i >= 4; i += 4) {
		float32x4_t v = load4(VK_DTYPE_F32, (const uint8_t *)(src + i));
		lo = vminq_f32(lo, v);
		hi = vmaxq_f32(hi, v);
	}
	float32x4_t v = load4(VK_DTYPE_F32, (const uint8_t *)(src + n - 4)); /* some of them twice: no harm */
	*min = vminvq_f32(vminq_f32(lo, v)) + 0.0f;			       /* -0 becomes +0 */
	*max = vmaxvq_f32(vmaxq_f32(hi, v)) + 0.0f;
}

static size_t at_least(const float *rank, size_t n, float floor, uint32_t *idx)
{
	const float32x4_t least = vdupq_n_f32(floor);
	size_t kept = 0, i = 0;
	for (; n - i >= 8; i += 8) {
		uint32x4_t low = vcgeq_f32(vld1q_f32(rank + i), least), high = vcgeq_f32(vld1q_f32(rank + i + 4), least);
		if (!vmaxvq_u32(vorrq_u32(low, high))) continue; /* nearly always, once k good ones are known */
		for (size_t j = i; j < i + 8; j++)
			if (rank[j] >= floor) idx[kept++] = (uint32_t)j;
	}
	for (; i < n; i++)
		if (rank[i] >= floor) idx[kept++] = (uint32_t)i;
	return kept;
}

const struct vk_kernels vk_kernels_neon = VK_KERNELS_TABLE(VK_CPU_NEON, neon);

#endif
