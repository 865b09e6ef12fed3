/*
 * The park: requests that wait for somebody else, with a deadline each, and a watch on their
 * sockets. No HTTP library in it: it knows file descriptors, milliseconds and two callbacks.
 *
 * An entry is in the park from vk_park_add() until it has been resumed, and that is once, by exactly
 * one of two: the thread that calls vk_park_leave(), or the park's own when `gone` was running just
 * then. So nobody ever waits for a callback, an entry is never resumed under a running `gone`, the
 * finisher may hold any lock that `gone` wants, and a park that counts none has nobody left to resume.
 *
 * Ownership: entries are embedded in their owner's memory, which must stay an entry (type-stable,
 * zeroed at birth) until vk_park_free(): a late epoll event may still point at it.
 * Threads: any. `gone` runs on the park's thread, `resume` on one of the two, both without the park's lock.
 */
#ifndef VK_SERVER_PARK_H
#define VK_SERVER_PARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vk_park_why { VK_PARK_DEADLINE, VK_PARK_HANGUP, VK_PARK_SHUTDOWN };

struct vk_park_entry {
	struct vk_park_entry *prev, *next; /* in the wheel's slot */
	uint64_t deadline_ms;
	unsigned slot;
	int fd;
	bool linked;      /* in the wheel: gone has not been called */
	bool in_gone;     /* the park's thread is inside gone() */
	bool resume_late; /* left while in gone: the park's thread resumes it */
};

struct vk_park_ops {
	void (*gone)(struct vk_park_entry *e, enum vk_park_why why); /* at most once an entry */
	void (*resume)(struct vk_park_entry *e);                     /* e is its owner's again */
};

struct vk_park;
struct vk_park *vk_park_new(const struct vk_park_ops *ops); /* NULL: no thread or descriptors */
void vk_park_free(struct vk_park *p);                       /* the park must be empty */

/* fd < 0: no watch. deadline_ms is monotonic; UINT64_MAX: none. */
void vk_park_add(struct vk_park *p, struct vk_park_entry *e, int fd, uint64_t deadline_ms);
/* Out of the park, and resumed: here, or soon by the park's thread. */
void vk_park_leave(struct vk_park *p, struct vk_park_entry *e);
/* Calls gone(VK_PARK_SHUTDOWN) for all that are in it, and at once for all that come. */
void vk_park_close(struct vk_park *p);
size_t vk_park_count(struct vk_park *p); /* not resumed yet */

#endif
