/* The table for a level. */
#include "embed/encoder/kernels.h"

const struct vk_encoder_kernels *vk_encoder_kernels(enum vk_cpu_level level)
{
#if defined(__x86_64__)
	if (level == VK_CPU_AVX512) return &vk_encoder_kernels_avx512;
	if (level == VK_CPU_AVX2) return &vk_encoder_kernels_avx2;
#endif
	(void)level;
	return &vk_encoder_kernels_plain;
}
