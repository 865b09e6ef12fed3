/*
 * Golden files: bytes that a version wrote, in tests/store/golden/v1. What is encoded today must be those
 * bytes, and those bytes must decode. VK_GOLDEN_WRITE=1 writes a file that is not there yet; one that is
 * there is never touched.
 */
#ifndef VK_TESTS_STORE_GOLDEN_H
#define VK_TESTS_STORE_GOLDEN_H

#include "tests/store/util.h"

#define GOLDEN_DIR VK_SOURCE_DIR "/tests/store/golden/v1/"

/* The whole file, which must be shorter than cap; its length. */
static inline size_t golden_read(const char *name, uint8_t *dst, size_t cap)
{
	char path[512];
	snprintf(path, sizeof path, GOLDEN_DIR "%s", name);
	FILE *f = fopen(path, "rb");
	if (!f) fail_msg("%s is missing", path);
	size_t n = fread(dst, 1, cap, f);
	fclose(f);
	assert_true(n > 0 && n < cap);
	return n;
}

static inline void golden_check(const char *name, const uint8_t *made, size_t n)
{
	char path[512];
	snprintf(path, sizeof path, GOLDEN_DIR "%s", name);
	FILE *f = getenv("VK_GOLDEN_WRITE") ? fopen(path, "wbx") : NULL;
	if (f) {
		assert_int_equal(fwrite(made, 1, n, f), n);
		assert_int_equal(fclose(f), 0);
	}
	uint8_t *kept = malloc(n + 1);
	assert_int_equal(golden_read(name, kept, n + 1), n);
	assert_memory_equal(kept, made, n);
	free(kept);
}

#endif
