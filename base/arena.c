/* Bump allocation in a list of blocks. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK_MIN 4096
#define BLOCK_MAX ((size_t)1 << 20)
#define ALIGN 16

struct vk_arena_block {
	struct vk_arena_block *older;
	size_t cap, used;
	_Alignas(ALIGN) char data[];
};

static void free_chain(struct vk_arena_block *b)
{
	while (b) {
		struct vk_arena_block *older = b->older;
		free(b);
		b = older;
	}
}

void vk_arena_free(struct vk_arena *a)
{
	free_chain(a->top);
	*a = (struct vk_arena){.max = a->max};
}

void vk_arena_reset(struct vk_arena *a)
{
	struct vk_arena_block *b = a->top;
	while (b && b->older) {
		struct vk_arena_block *older = b->older;
		free(b);
		b = older;
	}
	/* A first block that was one giant piece is not worth keeping. */
	if (b && b->cap > BLOCK_MAX) {
		free(b);
		b = NULL;
	}
	if (b) b->used = 0;
	a->top = b;
	a->used = 0;
}

static struct vk_arena_block *grow(struct vk_arena *a, size_t n)
{
	size_t cap = a->top ? a->top->cap * 2 : BLOCK_MIN;
	if (cap > BLOCK_MAX) cap = BLOCK_MAX;
	if (cap < n) cap = n;
	struct vk_arena_block *b = malloc(sizeof *b + cap);
	if (!b) return NULL;
	b->cap = cap;
	b->used = 0;
	b->older = a->top;
	a->top = b;
	return b;
}

void *vk_arena_alloc(struct vk_arena *a, size_t n)
{
	if (n > a->max || a->used > a->max - n) return NULL;
	n = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	if (n == 0) n = ALIGN;
	struct vk_arena_block *b = a->top;
	if (!b || b->cap - b->used < n) b = grow(a, n);
	if (!b) return NULL;
	void *p = b->data + b->used;
	b->used += n;
	a->used += n;
	return p;
}

void *vk_arena_calloc(struct vk_arena *a, size_t count, size_t size)
{
	if (size && count > SIZE_MAX / size) return NULL;
	void *p = vk_arena_alloc(a, count * size);
	if (p) memset(p, 0, count * size);
	return p;
}

char *vk_arena_strndup(struct vk_arena *a, const char *p, size_t n)
{
	char *s = vk_arena_alloc(a, n + 1);
	if (!s) return NULL;
	if (n) memcpy(s, p, n);
	s[n] = 0;
	return s;
}

char *vk_arena_printf(struct vk_arena *a, const char *fmt, ...)
{
	va_list ap, again;
	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	char *s = n < 0 ? NULL : vk_arena_alloc(a, (size_t)n + 1);
	if (s) vsnprintf(s, (size_t)n + 1, fmt, again);
	va_end(again);
	va_end(ap);
	return s;
}
