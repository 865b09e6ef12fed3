/* What the kernel tests use of cmocka, for targets that have no cmocka: the first failure ends the
 * program. neon.sh puts this directory before the system's headers. */
#ifndef VK_TESTS_SIMD_NEON_CMOCKA_H
#define VK_TESTS_SIMD_NEON_CMOCKA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simd/cpu.h"

struct CMUnitTest {
	const char *name;
	void (*run)(void **state);
};

#define cmocka_unit_test(f) {#f, f}
#define print_message(...) printf(__VA_ARGS__)
#define fail_msg(...)                                                   \
	do {                                                            \
		printf("%s:%d: ", __FILE__, __LINE__);                  \
		printf(__VA_ARGS__);                                    \
		puts("");                                               \
		fflush(stdout);                                         \
		exit(1);                                                \
	} while (0)
#define assert_true(c)                                                  \
	do {                                                            \
		if (!(c)) fail_msg("%s", #c);                           \
	} while (0)
#define assert_false(c) assert_true(!(c))
#define assert_non_null(p) assert_true((p) != NULL)
#define assert_int_equal(a, b)                                          \
	do {                                                            \
		long long va_ = (long long)(a), vb_ = (long long)(b);   \
		if (va_ != vb_) fail_msg("%s = %lld, %s = %lld", #a, va_, #b, vb_); \
	} while (0)
#define assert_int_not_equal(a, b) assert_true((a) != (b))
#define assert_string_equal(a, b) assert_true(strcmp(a, b) == 0)
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)

static inline int vk_run_tests(const char *name, const struct CMUnitTest *t, size_t n)
{
	/* On the scalar level alone the twins would pass by not running. */
	if (vk_cpu_best() != VK_CPU_NEON) fail_msg("level %s", vk_cpu_level_name(vk_cpu_best()));
	for (size_t i = 0; i < n; i++) {
		void *state = NULL;
		t[i].run(&state);
		printf("ok %s: %s\n", name, t[i].name);
		fflush(stdout);
	}
	return 0;
}
#define cmocka_run_group_tests_name(name, t, setup, teardown) vk_run_tests(name, t, sizeof(t) / sizeof((t)[0]))

#endif
