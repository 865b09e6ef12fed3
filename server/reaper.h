/*
 * The reaper: closes connections whose client takes too long over a head, a body, the reading of
 * a reply, or over nothing at all. libmicrohttpd's own timeout counts inactivity and starts anew
 * with every byte, so a client that trickles lives for ever; here each stage has an end.
 *
 * The door says where a connection is (vk_reap_to), in one atomic word {stage, since}; the reaper's
 * thread looks at all of them a few times a second and, when one is overdue, swaps exactly the word
 * that it saw for REAPED. Who loses the swap has no say: either the reaper leaves the connection
 * alone, or the door learns from vk_reap_to() == false that the connection is dead. Then the reaper
 * may write on the socket (a 408: nothing else is being sent in those stages) and shuts it down;
 * libmicrohttpd notices and closes.
 *
 * Between requests the first byte of a head is not reported to us; the kernel's count of bytes
 * received (TCP_INFO) is, so a head's time starts with the tick that sees its first byte.
 *
 * Ownership: nodes are the door's; added when a connection begins, deleted before its descriptor
 * is closed. Threads: any.
 */
#ifndef VK_SERVER_REAPER_H
#define VK_SERVER_REAPER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum vk_reap_stage {
	VK_REAP_IDLE,   /* between requests, or no request yet */
	VK_REAP_HEAD,   /* a head has begun */
	VK_REAP_BODY,   /* head complete, body coming */
	VK_REAP_BUSY,   /* ours to answer: no limit here, the park has one */
	VK_REAP_SEND,   /* `since` is when a reader at 1 KB/s would be done */
	VK_REAP_REAPED
};

struct vk_reap_node {
	struct vk_reap_node *prev, *next;
	int fd;
	_Atomic uint64_t word;  /* stage << 56 | change << 48 | monotonic ms */
	uint64_t idle_word;     /* the reaper's: the idle period that idle_bytes was read in */
	uint64_t idle_bytes;
};

struct vk_reap_limits {
	uint64_t head_ms, body_ms, idle_ms; /* sending: body_ms beyond `since` */
};

struct vk_reaper;
struct vk_reaper *vk_reaper_new(const struct vk_reap_limits *limits);
void vk_reaper_free(struct vk_reaper *r);
void vk_reap_add(struct vk_reaper *r, struct vk_reap_node *n, int fd, uint64_t now_ms);
void vk_reap_del(struct vk_reaper *r, struct vk_reap_node *n);
uint64_t vk_reaper_count(struct vk_reaper *r); /* reaped so far */

#define VK_REAP_MS_MASK (((uint64_t)1 << 48) - 1)

/* The word after `old`. The change counter keeps two idle periods of one millisecond apart: a
 * request can be over within the millisecond that its connection began in. */
static inline uint64_t vk_reap_word(uint64_t old, enum vk_reap_stage stage, uint64_t ms)
{
	uint64_t change = ((old >> 48) + 1) & 0xff;
	return (uint64_t)stage << 56 | change << 48 | (ms & VK_REAP_MS_MASK);
}

static inline enum vk_reap_stage vk_reap_stage_of(uint64_t word)
{
	return (enum vk_reap_stage)(word >> 56);
}

/* The connection enters a stage. False: it has been reaped, have nothing more to do with it. */
static inline bool vk_reap_to(struct vk_reap_node *n, enum vk_reap_stage stage, uint64_t ms)
{
	uint64_t old = atomic_load_explicit(&n->word, memory_order_relaxed);
	do {
		if (vk_reap_stage_of(old) == VK_REAP_REAPED) return false;
		/* A head that the reaper has seen the first byte of keeps its earlier start. */
		if (stage == VK_REAP_HEAD && vk_reap_stage_of(old) == VK_REAP_HEAD) return true;
	} while (!atomic_compare_exchange_weak(&n->word, &old, vk_reap_word(old, stage, ms)));
	return true;
}

#endif
