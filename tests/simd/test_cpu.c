/*
 * Goal: the probe names a level that this machine has, and VECKEEP_CPU_LEVEL lowers it but
 * never raises it.
 * Method: the probe is made once a process, so each case runs in a child; the kernel's own
 * reading of the CPU (/proc/cpuinfo) is the oracle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "simd/cpu.h"

static enum vk_cpu_level probe_with(const char *wish)
{
	int status = 0;
	pid_t pid = fork();
	if (!pid) {
		if (wish)
			setenv("VECKEEP_CPU_LEVEL", wish, 1);
		else
			unsetenv("VECKEEP_CPU_LEVEL");
		_exit((int)vk_cpu_best());
	}
	assert_true(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return (enum vk_cpu_level)WEXITSTATUS(status);
}

static int kernel_says(const char *flag)
{
	static char line[16384];
	char word[64];
	int found = 0;
	FILE *f = fopen("/proc/cpuinfo", "r");
	snprintf(word, sizeof word, " %s ", flag);
	while (f && !found && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = ' ';
		found = strstr(line, word) != NULL;
	}
	if (f) fclose(f);
	return found;
}

static void test_cpu_best_is_what_the_kernel_reports(void **state)
{
	(void)state;
	enum vk_cpu_level best = probe_with(NULL);
#if defined(__x86_64__)
	int avx2 = kernel_says("avx2") && kernel_says("fma") && kernel_says("f16c");
	int avx512 = avx2 && kernel_says("avx512bw") && kernel_says("avx512vbmi") &&
		     kernel_says("avx512_vnni") && kernel_says("avx512_vpopcntdq");
	assert_int_equal(best, avx512 ? VK_CPU_AVX512 : avx2 ? VK_CPU_AVX2 : VK_CPU_SCALAR);
#else
	assert_int_equal(best, kernel_says("crc32") ? VK_CPU_NEON : VK_CPU_SCALAR);
#endif
}

static void test_cpu_level_is_lowered_from_outside(void **state)
{
	(void)state;
	enum vk_cpu_level best = probe_with(NULL);
	assert_int_equal(probe_with("scalar"), VK_CPU_SCALAR);
	assert_int_equal(probe_with(vk_cpu_level_name(best)), best);
	assert_int_equal(probe_with("avx2"), best == VK_CPU_AVX512 ? VK_CPU_AVX2 : best);
	assert_int_equal(probe_with("avx512"), best);
	assert_int_equal(probe_with("quantum"), best);
	assert_int_equal(probe_with(""), best);
#if defined(__x86_64__)
	assert_int_equal(probe_with("neon"), best);
#endif
}

static void test_cpu_names(void **state)
{
	(void)state;
	assert_string_equal(vk_cpu_level_name(VK_CPU_SCALAR), "scalar");
	assert_string_equal(vk_cpu_level_name(VK_CPU_AVX512), "avx512");
	assert_string_equal(vk_cpu_level_name(VK_CPU_LEVELS), "unknown");
	assert_true(strlen(vk_cpu_name()) > 0);
	long online = sysconf(_SC_NPROCESSORS_CONF);
	assert_true(vk_cpu_cores() >= 1 && (long)vk_cpu_cores() <= online);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cpu_best_is_what_the_kernel_reports),
		cmocka_unit_test(test_cpu_level_is_lowered_from_outside),
		cmocka_unit_test(test_cpu_names),
	};
	return cmocka_run_group_tests_name("simd/cpu", tests, NULL, NULL);
}
