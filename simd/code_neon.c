/*
 * The NEON kernels of codes: tiles of 4 queries by 4 rows, 16 accumulators of the 32 registers. With the
 * dot-product instructions (asked once, simd/score_levels.h) codes are moved by 128 (xor 0x80) for SDOT, which
 * wants both sides signed, and 128 * sum(q) is put back; without them bytes are widened to 16 bits.
 *
 * i32 lanes hold 65,536 dims: 128 * 255 * 65,536 < 2^31.
 */
#include "simd/code_levels.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include "simd/score_levels.h"

#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#define INLINE __attribute__((always_inline)) static inline
enum { ROWS = 4, QUERIES = 4 };
#define EACH_ROW _Pragma("GCC unroll 4") for (size_t r = 0; r < ROWS; r++)
#define EACH_QUERY _Pragma("GCC unroll 4") for (size_t j = 0; j < QUERIES; j++)

INLINE uint8x16_t load_some(const uint8_t *p, size_t n)
{
	uint8_t all[16] = {0};
	if (n >= 16) return vld1q_u8(p);
	memcpy(all, p, n);
	return vld1q_u8(all);
}

/* ---- products of 16 bytes, signed by unsigned ---- */

INLINE int32x4_t step_plain(int32x4_t acc, int8x16_t q, uint8x16_t x)
{
	int16x8_t q0 = vmovl_s8(vget_low_s8(q)), q1 = vmovl_high_s8(q);
	int16x8_t x0 = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x))), x1 = vreinterpretq_s16_u16(vmovl_high_u8(x));
	acc = vmlal_high_s16(vmlal_s16(acc, vget_low_s16(q0), vget_low_s16(x0)), q0, x0);
	return vmlal_high_s16(vmlal_s16(acc, vget_low_s16(q1), vget_low_s16(x1)), q1, x1);
}

/* Of codes moved by 128: what a query adds to its sums for that. */
DOTPROD static int32_t moved(const int8_t *q, size_t dims)
{
	int32x4_t sum = vdupq_n_s32(0);
	for (size_t i = 0; i < dims; i += 16) sum = vdotq_s32(sum, vld1q_s8(q + i), vdupq_n_s8(1)); /* padded with zeros */
	return 128 * vaddvq_s32(sum);
}

/* ---- tiles ---- */

#define STEP_FAST(acc, q, x) vdotq_s32(acc, q, vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(0x80))))

#define TILE(STEP, q, x, dims, sum)                                                                     \
	do {                                                                                            \
		int32x4_t a[QUERIES][ROWS];                                                             \
		EACH_QUERY EACH_ROW a[j][r] = vdupq_n_s32(0);                                           \
		for (size_t i = 0; i < (dims); i += 16) {                                               \
			uint8x16_t v[ROWS];                                                             \
			EACH_ROW v[r] = load_some((x)[r] + i, (dims) - i);                              \
			EACH_QUERY {                                                                    \
				int8x16_t s = vld1q_s8((q)[j] + i);                                     \
				EACH_ROW a[j][r] = STEP(a[j][r], s, v[r]);                              \
			}                                                                               \
		}                                                                                       \
		EACH_QUERY EACH_ROW (sum)[j][r] = vaddvq_s32(a[j][r]);                                  \
	} while (0)

static void tile_plain(const int8_t *const q[QUERIES], const uint8_t *const x[ROWS], size_t dims, int32_t sum[QUERIES][ROWS])
{
	TILE(step_plain, q, x, dims, sum);
}

DOTPROD static void tile_fast(const int8_t *const q[QUERIES], const uint8_t *const x[ROWS], size_t dims,
			      int32_t sum[QUERIES][ROWS])
{
	TILE(STEP_FAST, q, x, dims, sum);
}

/* Up to four queries. */
static void tiles(const int8_t *const *q, size_t nq, const uint8_t *codes, size_t stride, size_t n, size_t dims, int32_t *out,
		  size_t out_stride)
{
	const bool fast = vk_neon_dotprod();
	const int8_t *some[QUERIES];
	int32_t more[QUERIES] = {0}, sum[QUERIES][ROWS];
	EACH_QUERY some[j] = q[vk_or_last(j, nq)];
	if (fast) EACH_QUERY more[j] = moved(some[j], dims);
	for (size_t i = 0; i < n; i += ROWS) {
		const uint8_t *x[ROWS];
		EACH_ROW x[r] = codes + vk_or_last(i + r, n) * stride;
		if (fast) tile_fast(some, x, dims, sum);
		else tile_plain(some, x, dims, sum);
		for (size_t j = 0; j < QUERIES && j < nq; j++)
			for (size_t r = 0; r < ROWS && i + r < n; r++) out[j * out_stride + i + r] = sum[j][r] + more[j];
	}
}

void vk_code_dots_neon(const int8_t *const *q, size_t nq, const uint8_t *codes, size_t stride, size_t n, size_t dims,
		       int32_t *out, size_t out_stride)
{
	for (size_t j = 0; j < nq; j += QUERIES) tiles(q + j, nq - j, codes, stride, n, dims, out + j * out_stride, out_stride);
}

/* ---- rows out of order ---- */

#define AT(STEP, q, x, dims, sum)                                                                       \
	do {                                                                                            \
		int32x4_t a[ROWS];                                                                      \
		EACH_ROW a[r] = vdupq_n_s32(0);                                                         \
		for (size_t i = 0; i < (dims); i += 16) {                                               \
			int8x16_t s = vld1q_s8((q) + i);                                                \
			EACH_ROW a[r] = STEP(a[r], s, load_some((x)[r] + i, (dims) - i));               \
		}                                                                                       \
		EACH_ROW (sum)[r] = vaddvq_s32(a[r]);                                                   \
	} while (0)

static void at_plain(const int8_t *q, const uint8_t *const x[ROWS], size_t dims, int32_t sum[ROWS])
{
	AT(step_plain, q, x, dims, sum);
}

DOTPROD static void at_fast(const int8_t *q, const uint8_t *const x[ROWS], size_t dims, int32_t sum[ROWS])
{
	AT(STEP_FAST, q, x, dims, sum);
}

void vk_code_dot_at_neon(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims, int32_t *out)
{
	const bool fast = vk_neon_dotprod();
	const int32_t more = fast ? moved(q, dims) : 0;
	for (size_t i = 0; i < n; i += ROWS) {
		const uint8_t *x[ROWS];
		int32_t sum[ROWS];
		EACH_ROW x[r] = code[vk_or_last(i + r, n)];
		if (fast) at_fast(q, x, dims, sum);
		else at_plain(q, x, dims, sum);
		for (size_t r = 0; r < ROWS && i + r < n; r++) out[i + r] = sum[r] + more;
	}
}

/* ---- nibbles: small enough to be signed as they are ---- */

INLINE int32x4_t nibble_plain(int32x4_t acc, int8x16_t q, int8x16_t x)
{
	acc = vpadalq_s16(acc, vmull_s8(vget_low_s8(q), vget_low_s8(x)));
	return vpadalq_s16(acc, vmull_high_s8(q, x));
}

#define NIBBLES(STEP, q, x, dims, sum)                                                                  \
	do {                                                                                            \
		int32x4_t a[ROWS];                                                                      \
		EACH_ROW a[r] = vdupq_n_s32(0);                                                         \
		for (size_t i = 0; 2 * i < (dims); i += VK_NIBBLE_BYTES)                                \
			for (size_t b = 0; b < VK_NIBBLE_BYTES; b += 16) {                              \
				int8x16_t s = vld1q_s8((q) + 2 * i + b);                                \
				int8x16_t t = vld1q_s8((q) + 2 * i + VK_NIBBLE_BYTES + b);              \
				EACH_ROW {                                                              \
					uint8x16_t v = vld1q_u8((x)[r] + i + b);                        \
					a[r] = STEP(a[r], s, vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)))); \
					a[r] = STEP(a[r], t, vreinterpretq_s8_u8(vshrq_n_u8(v, 4)));    \
				}                                                                       \
			}                                                                               \
		EACH_ROW (sum)[r] = vaddvq_s32(a[r]);                                                   \
	} while (0)

static void nibbles_plain(const int8_t *q, const uint8_t *const x[ROWS], size_t dims, int32_t sum[ROWS])
{
	NIBBLES(nibble_plain, q, x, dims, sum);
}

DOTPROD static void nibbles_fast(const int8_t *q, const uint8_t *const x[ROWS], size_t dims, int32_t sum[ROWS])
{
	NIBBLES(vdotq_s32, q, x, dims, sum);
}

void vk_nibble_dot_at_neon(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims, int32_t *out)
{
	const bool fast = vk_neon_dotprod();
	for (size_t i = 0; i < n; i += ROWS) {
		const uint8_t *x[ROWS];
		int32_t sum[ROWS];
		EACH_ROW x[r] = code[vk_or_last(i + r, n)];
		if (fast) nibbles_fast(q, x, dims, sum);
		else nibbles_plain(q, x, dims, sum);
		for (size_t r = 0; r < ROWS && i + r < n; r++) out[i + r] = sum[r];
	}
}

#endif
