/*
 * What this CPU and this OS can do, asked once; the level is passed to whoever has twins,
 * and tests ask for lower ones. VECKEEP_CPU_LEVEL=scalar|avx2|avx512|neon lowers it from outside.
 */
#ifndef VK_SIMD_CPU_H
#define VK_SIMD_CPU_H

enum vk_cpu_level {
	VK_CPU_SCALAR, /* plain C: the meaning, the fallback, the oracle */
	VK_CPU_NEON,   /* AArch64 with CRC */
	VK_CPU_AVX2,   /* AVX2, FMA, F16C, SSE4.2 */
	VK_CPU_AVX512, /* F, BW, DQ, VL, VNNI, VPOPCNTDQ, VBMI, on top of AVX2 */
	VK_CPU_LEVELS
};

/* The best level of this machine (CPUID and XGETBV, so the OS saves the registers), lowered
 * by VECKEEP_CPU_LEVEL when that is set to a level the machine has. Probed once, any thread. */
enum vk_cpu_level vk_cpu_best(void);

const char *vk_cpu_level_name(enum vk_cpu_level level); /* "scalar", "neon", "avx2", "avx512" */
/* The CPU's own name for doctor and bench, e.g. "Intel(R) Xeon(R) Processor"; "unknown". */
const char *vk_cpu_name(void);
/* Cores this process may run on (sched_getaffinity), at least 1. */
unsigned vk_cpu_cores(void);

#endif
