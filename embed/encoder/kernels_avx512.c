/* The kernels for AVX-512: 12 rows x 2 vectors of 16 in 24 of the 32 registers. */
#if defined(__x86_64__)
#include <immintrin.h>
#define W 16
#define ROWS 12
#define TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define TABLE vk_encoder_kernels_avx512
#define FMA(a, b, c) ((vf)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#include "embed/encoder/kernels_impl.h"
#else
typedef int no_avx512_here;
#endif
