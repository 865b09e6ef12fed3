/*
 * Preloaded into every process that bench/ann measures: anonymous mappings of 4 MiB and more are advised to huge pages, so that
 * libraries that ask for memory by mmap get what those that use malloc get by GLIBC_TUNABLES=glibc.malloc.hugetlb=1, and what
 * ours asks for itself. Nothing of the machine is changed; the kernel must allow it ("madvise" or "always").
 */
#include <dlfcn.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/types.h>

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
	static void *(*real)(void *, size_t, int, int, int, off_t);
	if (!real) *(void **)&real = dlsym(RTLD_NEXT, "mmap");
	void *p = real(at, n, protection, flags, fd, offset);
	if (p != MAP_FAILED && (flags & MAP_ANONYMOUS) && n >= (size_t)4 << 20) madvise(p, n, MADV_HUGEPAGE);
	return p;
}

void *mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
	return mmap(at, n, protection, flags, fd, offset);
}
