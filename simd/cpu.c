/* The one probe of CPU and operating system. */
#include "simd/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static struct {
	pthread_once_t once;
	enum vk_cpu_level best;
	char name[64];
} cpu = {.once = PTHREAD_ONCE_INIT};

static const char *const names[VK_CPU_LEVELS] = {"scalar", "neon", "avx2", "avx512"};

#if defined(__x86_64__)

/* Which register states the OS saves on a switch (XCR0), not only what the CPU has. */
static unsigned long long saved_states(void)
{
	unsigned low, high;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (unsigned long long)high << 32 | low;
}

static enum vk_cpu_level probe(void)
{
	enum { XCR_YMM = 0x6, XCR_ZMM = 0xe6 };
	const unsigned need1 = bit_SSE4_2 | bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C | bit_POPCNT;
	const unsigned wide7b = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
	const unsigned wide7c = bit_AVX512VNNI | bit_AVX512VPOPCNTDQ | bit_AVX512VBMI;
	unsigned a, b, c, d;
	if (!__get_cpuid(1, &a, &b, &c, &d) || (c & need1) != need1) return VK_CPU_SCALAR;
	unsigned long long saved = saved_states();
	if ((saved & XCR_YMM) != XCR_YMM) return VK_CPU_SCALAR;
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return VK_CPU_SCALAR;
	if (!(b & bit_AVX2) || !(b & bit_BMI2)) return VK_CPU_SCALAR;
	if ((b & wide7b) != wide7b || (c & wide7c) != wide7c) return VK_CPU_AVX2;
	return (saved & XCR_ZMM) == XCR_ZMM ? VK_CPU_AVX512 : VK_CPU_AVX2;
}

static void probe_name(char *dst, size_t n)
{
	unsigned text[13] = {0};
	if ((unsigned)__get_cpuid_max(0x80000000, NULL) < 0x80000004) return;
	for (unsigned i = 0; i < 3; i++)
		__get_cpuid(0x80000002 + i, &text[4 * i], &text[4 * i + 1], &text[4 * i + 2],
			    &text[4 * i + 3]);
	const char *s = (const char *)text;
	while (*s == ' ') s++;
	snprintf(dst, n, "%s", s);
}

#elif defined(__aarch64__)

static enum vk_cpu_level probe(void)
{
	return getauxval(AT_HWCAP) & HWCAP_CRC32 ? VK_CPU_NEON : VK_CPU_SCALAR;
}

static void probe_name(char *dst, size_t n)
{
	unsigned long long midr = 0;
	FILE *f = fopen("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1", "r");
	if (!f) return;
	if (fscanf(f, "%llx", &midr) == 1)
		snprintf(dst, n, "AArch64 implementer 0x%02llx part 0x%03llx", midr >> 24 & 0xff,
			 midr >> 4 & 0xfff);
	fclose(f);
}

#else

static enum vk_cpu_level probe(void)
{
	return VK_CPU_SCALAR;
}

static void probe_name(char *dst, size_t n)
{
	(void)dst;
	(void)n;
}

#endif

/* Every machine has scalar; an x86 with AVX-512 also has AVX2; NEON stands alone. */
static int machine_has(enum vk_cpu_level best, enum vk_cpu_level level)
{
	if (level == VK_CPU_SCALAR || level == best) return 1;
	return level == VK_CPU_AVX2 && best == VK_CPU_AVX512;
}

static void init(void)
{
	cpu.best = probe();
	probe_name(cpu.name, sizeof cpu.name);
	if (!cpu.name[0]) snprintf(cpu.name, sizeof cpu.name, "unknown");
	const char *wish = getenv("VECKEEP_CPU_LEVEL");
	for (int i = 0; wish && i < VK_CPU_LEVELS; i++)
		if (strcmp(wish, names[i]) == 0 && machine_has(cpu.best, (enum vk_cpu_level)i)) {
			cpu.best = (enum vk_cpu_level)i;
			break;
		}
}

enum vk_cpu_level vk_cpu_best(void)
{
	pthread_once(&cpu.once, init);
	return cpu.best;
}

const char *vk_cpu_level_name(enum vk_cpu_level level)
{
	return (unsigned)level < VK_CPU_LEVELS ? names[level] : "unknown";
}

const char *vk_cpu_name(void)
{
	pthread_once(&cpu.once, init);
	return cpu.name;
}

unsigned vk_cpu_cores(void)
{
	cpu_set_t set;
	/* Fails on machines with more cores than the set holds; then one is a safe answer. */
	if (sched_getaffinity(0, sizeof set, &set)) return 1;
	int n = CPU_COUNT(&set);
	return n > 0 ? (unsigned)n : 1;
}
