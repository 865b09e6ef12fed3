/*
 * What is to happen at a time: transfers to start and timers to fire, a binary heap by
 * (time, order of arrival). One owner, no locks; grows by malloc.
 */
#ifndef VK_EMBED_DUE_H
#define VK_EMBED_DUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vk_xfer;

struct vk_due { /* a transfer (xfer) or a timer (fn) */
	uint64_t at_ms; /* monotonic */
	uint64_t order; /* given by push */
	struct vk_xfer *xfer;
	void (*fn)(void *arg, bool cancelled);
	void *arg;
};

struct vk_due_heap {
	struct vk_due *v; /* owned */
	size_t n, cap;
	uint64_t order;
};

/* False: no memory, nothing changed. */
bool vk_due_push(struct vk_due_heap *h, struct vk_due d);
/* Takes the earliest out when it is due at now_ms. */
bool vk_due_pop(struct vk_due_heap *h, uint64_t now_ms, struct vk_due *out);
/* Keeps what keep(d, arg) says, in heap order again. */
void vk_due_filter(struct vk_due_heap *h, bool (*keep)(const struct vk_due *d, void *arg), void *arg);
void vk_due_free(struct vk_due_heap *h);

#endif
