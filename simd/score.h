/*
 * The similarity core's contract: scores of one query against many rows, at every CPU level the
 * same bits. Scalar is the meaning and the oracle; AVX2, AVX-512 and NEON are twins.
 *
 * One arithmetic. Over f32 values a sum has 32 lanes: lane l takes the components i with
 * i mod 32 == l in ascending order by fma (dot: fma(q, x, acc); squared L2: d = q - x,
 * fma(d, d, acc); L1: acc + |q - x|), lanes without a component keep +0. Then one fold: lane l +=
 * lane l+16 for l < 16, then +8, +4, +2, +1. f16 rows are widened exactly to f32 first and follow
 * the same rule. u8, i8 and bits are summed as integers (64 bits), then converted once to f32:
 * any order gives the same bits. A NaN (infinities that cancel) is always the one quiet NaN.
 *
 * Shapes: rows are `stride` bytes apart and may be unaligned (rows in the map of a write
 * transaction are); dims counts components, 1 to VK_DIMS_MAX; for bits it counts bits, and bits
 * past dims in the last byte are zero. Kernels never read past a row's last component.
 *
 * What a kernel gives is `raw`: dot (bigger is nearer), squared L2, L1, Hamming count (smaller is
 * nearer). vk_rank_of_raw() turns it into a rank (bigger is nearer), vk_score_of_rank() into what
 * the API shows (Euclid: the root). Cosine is dot by a unit query times the row's inverse norm,
 * one multiplication after the fold. Any thread, nothing allocates.
 */
#ifndef VK_SIMD_SCORE_H
#define VK_SIMD_SCORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "simd/cpu.h"

enum vk_metric { VK_METRIC_DOT, VK_METRIC_COSINE, VK_METRIC_L2, VK_METRIC_L1, VK_METRIC_HAMMING, VK_METRICS };
enum vk_dtype { VK_DTYPE_F32, VK_DTYPE_F16, VK_DTYPE_U8, VK_DTYPE_I8, VK_DTYPE_BITS, VK_DTYPES };

/* raw[i] = kernel(query, rows + i * stride), i < n. query has the type the table says. next: rows of the same
 * stride that will be asked for after these, whose beginnings are fetched meanwhile (never read), or NULL. */
typedef void vk_score_fn(const void *query, const void *rows, size_t stride, size_t n, size_t dims,
			 const void *next, float *raw);
/* The same over rows that do not lie in order: row[i] points at row i. Prefetches ahead. */
typedef void vk_score_at_fn(const void *query, const void *const *row, size_t n, size_t dims,
			    float *raw);

struct vk_kernels {
	enum vk_cpu_level level;
	/* [kind][dtype]; kind: 0 dot, 1 squared L2, 2 L1, 3 Hamming. NULL where it has no meaning
	 * (Hamming is for bits alone, bits have Hamming alone). Query type: f32 for F32 and F16 rows,
	 * the row's own type for U8, I8, BITS. */
	vk_score_fn *score[4][VK_DTYPES];
	vk_score_at_fn *score_at[4][VK_DTYPES];

	/* 8-bit codes (simd/code.h): out[i] = sum q[j] * code[i][j], q signed, codes unsigned; exact. next: as in
	 * vk_score_fn. */
	void (*code_dot)(const int8_t *q, const uint8_t *codes, size_t stride, size_t n, size_t dims,
			 const uint8_t *next, int32_t *out);
	/* The same for nq queries: out[j * out_stride + i] = q[j] by row i. Queries are padded with zeros to a
	 * multiple of 64 dims; rows are read up to dims. Fastest where the rows are in the second-level cache
	 * and n is a multiple of 64. Takes up to 32 KB of stack. */
	void (*code_dots)(const int8_t *const *q, size_t nq, const uint8_t *codes, size_t stride, size_t n,
			  size_t dims, int32_t *out, size_t out_stride);
	/* The same for rows that do not lie in order: out[i] = q by code[i]. q is padded with zeros to a
	 * multiple of 64 dims. Prefetches nothing: the caller knows earlier what comes. */
	void (*code_dot_at)(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims, int32_t *out);
	/* 4-bit codes: 64 bytes a block of 128 dims, byte j of a block holds dim j in its low and dim j + 64 in
	 * its high bits. Rows and query are padded with zeros to whole blocks, which are read whole. Exact, no
	 * prefetch. */
	void (*nibble_dot_at)(const int8_t *q, const uint8_t *const *code, size_t n, size_t dims, int32_t *out);

	void (*f32_to_f16)(uint16_t *dst, const float *src, size_t n); /* nearest even; overflow gives infinity */
	void (*f16_to_f32)(float *dst, const uint16_t *src, size_t n);
	/* Qdrant's uint8: toward zero, clamped to 0..255. */
	void (*f32_to_u8)(uint8_t *dst, const float *src, size_t n);
	/* Bit j of dst (little-endian within bytes) = src[j] > 0. dst holds (n + 7) / 8 bytes, rest zero. */
	void (*f32_to_bits)(uint8_t *dst, const float *src, size_t n);
	/* Min and max of n >= 1 finite values. */
	void (*f32_min_max)(const float *src, size_t n, float *min, float *max);

	/* Keeps what may enter a top-k: appends i (ascending) with rank[i] >= floor to idx, returns how
	 * many; compare and compress. n <= 65,536. */
	size_t (*at_least)(const float *rank, size_t n, float floor, uint32_t *idx);
};

/* The table of a level; levels that this build or machine lacks fall to the next lower one. */
const struct vk_kernels *vk_kernels(enum vk_cpu_level level);

/* Which kind of kernel a metric runs on: DOT and COSINE 0, L2 1, L1 2, HAMMING 3. */
int vk_metric_kind(enum vk_metric m);
/* Bytes of a row of this type. */
size_t vk_row_bytes(enum vk_dtype t, size_t dims);

static inline float vk_rank_of_raw(enum vk_metric m, float raw)
{
	return m == VK_METRIC_DOT || m == VK_METRIC_COSINE ? raw : -raw;
}
float vk_score_of_rank(enum vk_metric m, float rank); /* DOT, COSINE: rank; L2: sqrt(-rank); else -rank */
/* The least rank that a score threshold of the API lets through (>= for dot and cosine, <= for distances). */
float vk_rank_of_threshold(enum vk_metric m, float threshold);
/* Is a the nearer of two scores as the API shows them? */
static inline bool vk_metric_bigger_is_nearer(enum vk_metric m)
{
	return m == VK_METRIC_DOT || m == VK_METRIC_COSINE;
}

/* 1 / Euclidean norm, norm in f64 by the level-independent order of simd/vec.h; 0 for a zero row. */
float vk_inverse_norm(const float *v, size_t dims);
/* dst = src * vk_inverse_norm(src): the unit vector that cosine queries and answers use. */
void vk_unit(float *dst, const float *src, size_t dims);

#endif
