/* What the kernel tests share: the levels of this machine, and a seed that replays. Included
 * after cmocka.h. The generator is base's inline one: no library above simd is linked. */
#ifndef VK_TESTS_SIMD_LEVELS_H
#define VK_TESTS_SIMD_LEVELS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/hash.h"
#include "simd/cpu.h"

static inline bool level_here(enum vk_cpu_level level)
{
	enum vk_cpu_level best = vk_cpu_best();
	return level == VK_CPU_SCALAR || level == best || (level == VK_CPU_AVX2 && best == VK_CPU_AVX512);
}

#define for_each_level(level)                                                                 \
	for (enum vk_cpu_level level = VK_CPU_SCALAR; level < VK_CPU_LEVELS; level++)         \
		if (level_here(level))

/* By how much to shorten what only repeats: 1, or VK_TEST_SHARE (for emulators). */
static inline size_t test_share(void)
{
	const char *s = getenv("VK_TEST_SHARE");
	size_t share = s ? strtoull(s, NULL, 0) : 1;
	return share ? share : 1;
}

static inline uint64_t test_seed(void)
{
	const char *s = getenv("VK_TEST_SEED");
	uint64_t seed = s ? strtoull(s, NULL, 0) : 20240611;
	print_message("VK_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

#endif
