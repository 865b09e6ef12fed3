/*
 * A table that the handler reads without a lock: an entry counts while its `from` is there, which is written last and taken away first.
 * Nobody faults in a range that is being removed (its owner is done with it), so an entry is never given again under a reader's eyes.
 */
#include "store/patch.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store/guard.h"

struct range {
	_Atomic uintptr_t from; /* 0: free */
	_Atomic uintptr_t to;
	_Atomic(atomic_bool *) lost;
};

static struct range range[VK_PATCH_MAX];
static atomic_uint used; /* entries from here on were never given */
static uintptr_t page;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

bool vk_patch_add(void *p, size_t bytes, atomic_bool *lost)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, vk_guard_install);
	pthread_mutex_lock(&lock);
	page = (uintptr_t)sysconf(_SC_PAGESIZE);
	unsigned n = atomic_load(&used), i = 0;
	while (i < n && atomic_load(&range[i].from)) i++;
	if (i < VK_PATCH_MAX) {
		atomic_store(&range[i].to, (uintptr_t)p + bytes);
		atomic_store(&range[i].lost, lost);
		atomic_store(&range[i].from, (uintptr_t)p);
		if (i == n) atomic_store(&used, n + 1);
	}
	pthread_mutex_unlock(&lock);
	return i < VK_PATCH_MAX;
}

void vk_patch_remove(const void *p)
{
	pthread_mutex_lock(&lock);
	unsigned n = atomic_load(&used);
	for (unsigned i = 0; p && i < n; i++)
		if (atomic_load(&range[i].from) == (uintptr_t)p) atomic_store(&range[i].from, 0);
	pthread_mutex_unlock(&lock);
}

bool vk_patch_fault(uintptr_t at)
{
	unsigned n = atomic_load(&used);
	for (unsigned i = 0; i < n; i++) {
		uintptr_t from = atomic_load(&range[i].from);
		if (!from || at < from || at >= atomic_load(&range[i].to)) continue;
		atomic_store(atomic_load(&range[i].lost), true);
		return mmap((void *)(at / page * page), page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		       MAP_FAILED;
	}
	return false;
}
