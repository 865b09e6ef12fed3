/*
 * The kernels' one source. Included once by each kernels_<level>.c, which defines
 *   W           floats in a vector            ROWS    rows of a register tile
 *   TARGET      function attribute            TABLE   name of the table
 *   FMA(a,b,c)  a * b + c on vectors
 *
 * The GEMM's order: panel, then a depth of k that keeps its part of the panel in the first
 * cache (DEPTH x 32 floats = 24 KB), then row tiles that re-use it. What is carried between
 * depths goes through c.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "embed/encoder/kernels.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define VECS (VK_PANEL / W)
#define DEPTH 192
#define INLINE static inline __attribute__((always_inline)) TARGET

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef float vf_any __attribute__((vector_size(4 * W), aligned(4), may_alias));
#define LOAD(p) (*(const vf_any *)(p))
#define STORE(p, v) (*(vf_any *)(p) = (v))
#define ALL(x) ((x) - (vf){0}) /* minus: adding 0 would not be free for -0 */

/* 2^n by the exponent bits, e^r by its series; x is at most 0 here and cut at -87. */
INLINE vf exp_v(vf x)
{
	const float magic = 0x1.8p23f; /* adding it rounds to an integer in the low bits */
	vi low = x < ALL(-87.0f);
	x = (vf)((~low & (vi)x) | (low & (vi)ALL(-87.0f)));
	vf t = FMA(x, ALL(0x1.715476p0f), ALL(magic));
	vf n = t - magic;
	vf r = FMA(n, ALL(-0x1.62e4p-1f), x);
	r = FMA(n, ALL(-0x1.7f7d1cp-20f), r);
	vf p = ALL(1.0f / 5040);
	p = FMA(p, r, ALL(1.0f / 720));
	p = FMA(p, r, ALL(1.0f / 120));
	p = FMA(p, r, ALL(1.0f / 24));
	p = FMA(p, r, ALL(1.0f / 6));
	p = FMA(p, r, ALL(0.5f));
	p = FMA(p, r, ALL(1.0f));
	p = FMA(p, r, ALL(1.0f));
	return (vf)((vi)p + ((vi)t << 23));
}

/* x (1 + erf(x / sqrt 2)) / 2 with erf by Hastings' formula (Abramowitz and Stegun 7.1.26,
 * error 1.5e-7): with y = 1 - erf(|x| / sqrt 2) it is (x + |x| (1 - y)) / 2. */
INLINE vf gelu_v(vf x)
{
	vf size = (vf)((vi)x & 0x7fffffff);
	vf z = size * 0x1.6a09e6p-1f;
	vf t = 1.0f / FMA(z, ALL(0.3275911f), ALL(1.0f));
	vf p = ALL(1.061405429f);
	p = FMA(p, t, ALL(-1.453152027f));
	p = FMA(p, t, ALL(1.421413741f));
	p = FMA(p, t, ALL(-0.284496736f));
	p = FMA(p, t, ALL(0.254829592f));
	vf y = p * t * exp_v(-(z * z));
	return 0.5f * FMA(size, 1.0f - y, x);
}

INLINE float sum_v(vf v)
{
	float t[W];
	memcpy(t, &v, sizeof t);
	for (size_t w = W / 2; w; w /= 2)
		for (size_t i = 0; i < w; i++) t[i] += t[i + w];
	return t[0];
}

INLINE float max_v(vf v)
{
	float t[W];
	memcpy(t, &v, sizeof t);
	for (size_t w = W / 2; w; w /= 2)
		for (size_t i = 0; i < w; i++)
			if (t[i + w] > t[i]) t[i] = t[i + w];
	return t[0];
}

/* What is added to a tile's sums. */
struct step {
	const float *bias; /* of this panel, or NULL: none, or not the first depth */
	int carry;         /* c itself */
};

/* r rows (a constant where inlined) of one panel. */
INLINE void tile(size_t r, size_t k, const float *a, size_t lda, const float *b, float *c, size_t ldc,
		 struct step s)
{
	vf acc[ROWS][VECS];
	UNROLL
	for (size_t i = 0; i < r; i++)
		UNROLL
		for (size_t j = 0; j < VECS; j++) acc[i][j] = (vf){0};
	for (size_t d = 0; d < k; d++, b += VK_PANEL) {
		vf row[VECS];
		/* The next depth's rows (weights come from the third cache or memory). */
		__builtin_prefetch(b + DEPTH * VK_PANEL, 0, 2);
		__builtin_prefetch(b + DEPTH * VK_PANEL + VK_PANEL / 2, 0, 2);
		UNROLL
		for (size_t j = 0; j < VECS; j++) row[j] = LOAD(b + j * W);
		UNROLL
		for (size_t i = 0; i < r; i++) {
			vf x = ALL(a[i * lda + d]);
			UNROLL
			for (size_t j = 0; j < VECS; j++) acc[i][j] = FMA(x, row[j], acc[i][j]);
		}
	}
	UNROLL
	for (size_t i = 0; i < r; i++)
		UNROLL
		for (size_t j = 0; j < VECS; j++) {
			float *at = c + i * ldc + j * W;
			vf v = acc[i][j];
			if (s.bias) v += LOAD(s.bias + j * W);
			if (s.carry) v += LOAD(at);
			STORE(at, v);
		}
}

/* One out-of-line copy for each number of rows. */
#define TILE(n)                                                                                \
	static __attribute__((noinline)) TARGET void tile_##n(                                 \
		size_t k, const float *a, size_t lda, const float *b, float *c, size_t ldc,    \
		struct step s)                                                                 \
	{                                                                                      \
		tile(n, k, a, lda, b, c, ldc, s);                                              \
	}
typedef void tile_fn(size_t k, const float *a, size_t lda, const float *b, float *c, size_t ldc,
		     struct step s);
TILE(1)
#if ROWS > 1
TILE(2)
TILE(3)
#endif
#if ROWS > 3
TILE(4)
TILE(5)
TILE(6)
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)
#endif
static tile_fn *const tiles[ROWS + 1] = {
	NULL,   tile_1,
#if ROWS > 1
	tile_2, tile_3,
#endif
#if ROWS > 3
	tile_4, tile_5, tile_6, tile_7, tile_8, tile_9, tile_10, tile_11, tile_12,
#endif
};

static TARGET void gelu(size_t rows, float *c, size_t ldc)
{
	for (size_t i = 0; i < rows; i++, c += ldc)
		for (size_t j = 0; j < VK_PANEL; j += W) STORE(c + j, gelu_v(LOAD(c + j)));
}

/* Rows split evenly: 13 rows are 7 + 6, not 12 + 1 (a tile of one row waits for its own sums). */
static TARGET void gemm(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
			const float *bias, float *c, size_t ldc, enum vk_gemm_end end)
{
	size_t steps = (m + ROWS - 1) / ROWS;
	for (size_t col = 0; col < n; col += VK_PANEL, b += k * VK_PANEL) {
		for (size_t d = 0; d < k; d += DEPTH) {
			size_t depth = k - d < DEPTH ? k - d : DEPTH;
			struct step s = {bias && d == 0 ? bias + col : NULL,
					 d > 0 || end == VK_GEMM_ADD};
			bool last = d + depth == k;
			for (size_t t = 0; t < steps; t++) {
				size_t row = m * t / steps, rows = m * (t + 1) / steps - row;
				tiles[rows](depth, a + row * lda + d, lda, b + d * VK_PANEL,
					    c + row * ldc + col, ldc, s);
				if (last && end == VK_GEMM_GELU) gelu(rows, c + row * ldc + col, ldc);
			}
		}
	}
}

static TARGET void softmax(float *row, size_t n, float scale)
{
	size_t full = n / W * W, padded = vk_panel_round(n);
	float most = row[0];
	if (full) {
		vf m = LOAD(row);
		for (size_t i = W; i < full; i += W) {
			vf v = LOAD(row + i);
			vi more = v > m;
			m = (vf)((more & (vi)v) | (~more & (vi)m));
		}
		most = max_v(m);
	}
	for (size_t i = full; i < n; i++)
		if (row[i] > most) most = row[i];
	for (size_t i = n; i < padded; i++) row[i] = most;
	vf sum = {0};
	for (size_t i = 0; i < padded; i += W) {
		vf e = exp_v((LOAD(row + i) - most) * scale);
		STORE(row + i, e);
		if (i < full) sum += e;
	}
	float total = sum_v(sum);
	for (size_t i = full; i < n; i++) total += row[i];
	float inverse = 1.0f / total;
	for (size_t i = 0; i < padded; i += W) STORE(row + i, LOAD(row + i) * inverse);
	for (size_t i = n; i < padded; i++) row[i] = 0;
}

static TARGET void layer_norm(float *row, size_t n, const float *gain, const float *shift, float eps)
{
	size_t full = n / W * W;
	vf s = {0};
	for (size_t i = 0; i < full; i += W) s += LOAD(row + i);
	float mean = sum_v(s);
	for (size_t i = full; i < n; i++) mean += row[i];
	mean /= (float)n;
	s = (vf){0};
	for (size_t i = 0; i < full; i += W) {
		vf d = LOAD(row + i) - mean;
		s = FMA(d, d, s);
	}
	float variance = sum_v(s);
	for (size_t i = full; i < n; i++) variance += (row[i] - mean) * (row[i] - mean);
	float scale = 1.0f / sqrtf(variance / (float)n + eps);
	for (size_t i = 0; i < full; i += W)
		STORE(row + i, FMA((LOAD(row + i) - mean) * scale, LOAD(gain + i), LOAD(shift + i)));
	for (size_t i = full; i < n; i++) row[i] = (row[i] - mean) * scale * gain[i] + shift[i];
}

const struct vk_encoder_kernels TABLE = {gemm, softmax, layer_norm};
