/* The kernels for AVX2 and FMA: 3 rows x 4 vectors of 8 in 12 of the 16 registers. */
#if defined(__x86_64__)
#include <immintrin.h>
#define W 8
#define ROWS 3
#define TARGET __attribute__((target("avx2,fma")))
#define TABLE vk_encoder_kernels_avx2
#define FMA(a, b, c) ((vf)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#include "embed/encoder/kernels_impl.h"
#else
typedef int no_avx2_here;
#endif
