/*
 * A request's memory: many small allocations, one free. What lives as long as the
 * request comes from its arena and goes in one sweep; nothing is freed singly.
 *
 * Blocks grow by doubling up to 1 MiB; a larger piece gets a block of its own. The
 * maximum is set at birth: past it alloc returns NULL (a 413 or 503, never a crash).
 * Threads: one owner at a time, no locks. Pointers are 16-byte aligned.
 */
#ifndef VK_BASE_ARENA_H
#define VK_BASE_ARENA_H

#include <stddef.h>

#include "base/bytes.h"

struct vk_arena_block;

struct vk_arena {
	struct vk_arena_block *top; /* newest block, links to older ones */
	size_t used;                /* bytes handed out, rounding included */
	size_t max;
};

static inline void vk_arena_init(struct vk_arena *a, size_t max)
{
	*a = (struct vk_arena){.max = max};
}

void vk_arena_free(struct vk_arena *a);

/* Frees all but the first block and starts again: for a keep-alive connection's next request. */
void vk_arena_reset(struct vk_arena *a);

void *vk_arena_alloc(struct vk_arena *a, size_t n);  /* not cleared; NULL past max or no memory */
void *vk_arena_calloc(struct vk_arena *a, size_t count, size_t size); /* zeroed; checks overflow */
char *vk_arena_strndup(struct vk_arena *a, const char *p, size_t n);  /* NUL-terminated copy */
char *vk_arena_printf(struct vk_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
