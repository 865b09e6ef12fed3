/* Memory that ends at a page nobody may touch: a read or write one byte too far ends the test. */
#ifndef VK_TESTS_SIMD_FENCE_H
#define VK_TESTS_SIMD_FENCE_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct fence {
	uint8_t *map, *end; /* end: the forbidden page */
	size_t bytes;
};

static inline struct fence fence_new(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct fence f = {.bytes = (bytes + page - 1) / page * page};
	f.map = mmap(NULL, f.bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f.map == MAP_FAILED) abort();
	f.end = f.map + f.bytes;
	if (mprotect(f.end, page, PROT_NONE)) abort();
	return f;
}

static inline void fence_free(struct fence *f)
{
	munmap(f->map, f->bytes + (size_t)sysconf(_SC_PAGESIZE));
}

#endif
