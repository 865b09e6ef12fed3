/* The kernels for any CPU: vectors of four, which compilers lower to what there is. */
#define W 4
#define TARGET
#define TABLE vk_encoder_kernels_plain
#if defined(__aarch64__)
#include <arm_neon.h>
#define ROWS 3
#define FMA(a, b, c) ((vf)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#else
#define ROWS 1
#define FMA(a, b, c) ((a) * (b) + (c))
#endif
#include "embed/encoder/kernels_impl.h"
