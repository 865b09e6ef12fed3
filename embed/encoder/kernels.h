/*
 * The encoder's arithmetic: one GEMM over packed panels with its epilogues, softmax, LayerNorm.
 *
 * Why not simd/gemm.h here: weights never change, so they are packed once at load into panels
 * of VK_PANEL columns, and a call reads them front to back. A BLAS packs them again in every
 * call, which for the few rows of one short text is most of the work; and bias, GELU and the
 * residual happen while the tile is still in the first cache. Measured at k 384, n 1536 on one
 * core with AVX-512, panels and tuned OpenBLAS, GFLOP/s: 184 and 38 at 8 rows, 180 and 142 at
 * 96 rows, 175 and 167 at 384 rows.
 *
 * A panel: k rows of VK_PANEL floats; a matrix k x n is ceil(n / VK_PANEL) panels, the last
 * one padded with zeros. Kernels write whole panels: c has room for n rounded up.
 * Any alignment, any thread. One source (kernels_impl.h) for every CPU level, with the vector
 * width as its parameter; gelu and softmax are good to 5e-7.
 */
#ifndef VK_EMBED_ENCODER_KERNELS_H
#define VK_EMBED_ENCODER_KERNELS_H

#include <stddef.h>

#include "simd/cpu.h"

#define VK_PANEL 32

static inline size_t vk_panel_round(size_t n)
{
	return (n + VK_PANEL - 1) / VK_PANEL * VK_PANEL;
}

enum vk_gemm_end {
	VK_GEMM_STORE, /* c = a b + bias */
	VK_GEMM_GELU,  /* c = gelu(a b + bias), the erf form */
	VK_GEMM_ADD    /* c = c + a b + bias */
};

struct vk_encoder_kernels {
	/* a: m x k, b: panels, bias: n rounded up, or NULL; c: m x n rounded up. */
	void (*gemm)(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
		     const float *bias, float *c, size_t ldc, enum vk_gemm_end end);
	/* row[0, n) = softmax(scale * row); row[n, n rounded up) = 0. */
	void (*softmax)(float *row, size_t n, float scale);
	/* In place: (row - mean) / sqrt(variance + eps) * gain + shift. */
	void (*layer_norm)(float *row, size_t n, const float *gain, const float *shift, float eps);
};

/* The table for that level or the nearest below it. */
const struct vk_encoder_kernels *vk_encoder_kernels(enum vk_cpu_level level);

extern const struct vk_encoder_kernels vk_encoder_kernels_plain;
extern const struct vk_encoder_kernels vk_encoder_kernels_avx2;
extern const struct vk_encoder_kernels vk_encoder_kernels_avx512;

#endif
