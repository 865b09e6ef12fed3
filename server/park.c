/*
 * A hashed wheel of deadlines and one epoll set, served by one thread.
 *
 * The wheel has SLOTS slots of TICK_MS; an entry sits in the slot of its deadline whatever the
 * turn, so that adding and removing are a list operation. The thread sleeps until the next slot
 * that holds anything: nothing parked, no wake-ups; one entry with a far deadline, one a turn.
 *
 * The watch is EPOLLRDHUP: a client that has shut down its sending side counts as gone. A client
 * of an API that half-closes after its request and then waits is not to be told from one that
 * left (the kernel reports the same FIN); those who matter do not do that.
 *
 * Late events: epoll may hand out an event for a descriptor that was taken off the set a moment
 * ago and whose entry is parked again by now. So an event is only a hint: under the lock the
 * entry must be linked, and a poll() of its present descriptor must agree.
 */
#include "server/park.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"

#define TICK_MS 8
#define SLOTS 1024
#define EVENTS_MAX 64
#define NEVER UINT64_MAX

struct vk_park {
	struct vk_park_ops ops;
	int epoll_fd, wake_fd;
	pthread_t thread;
	pthread_mutex_t lock; /* all below; never held while a callback runs */
	struct vk_park_entry *slot[SLOTS];
	uint64_t tick;    /* first tick that is not yet expired */
	uint64_t wake_ms; /* when the thread wakes without being asked */
	size_t count;     /* entries that are not resumed: linked, in gone, or just about to be */
	size_t linked;
	bool closing, stop;
};

static void kick(struct vk_park *p)
{
	uint64_t one = 1;
	ssize_t n = write(p->wake_fd, &one, sizeof one);
	(void)n; /* full counter: it is awake already */
}

/* The first tick at whose start the deadline has passed. */
static uint64_t tick_of(uint64_t deadline_ms)
{
	return deadline_ms / TICK_MS + 1;
}

static void link_entry(struct vk_park *p, struct vk_park_entry *e)
{
	uint64_t tick = e->deadline_ms == NEVER ? 0 : tick_of(e->deadline_ms);
	if (tick < p->tick) tick = p->tick;
	e->slot = (unsigned)(tick % SLOTS);
	e->prev = NULL;
	e->next = p->slot[e->slot];
	if (e->next) e->next->prev = e;
	p->slot[e->slot] = e;
	e->linked = true;
	p->linked++;
}

static void unlink_entry(struct vk_park *p, struct vk_park_entry *e)
{
	if (e->next) e->next->prev = e->prev;
	if (e->prev) e->prev->next = e->next;
	else p->slot[e->slot] = e->next;
	e->linked = false;
	p->linked--;
	if (e->fd >= 0) epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, e->fd, NULL);
}

/* Without the lock. Counted until it is done, and not looked at after that: it may be parked again. */
static void resume(struct vk_park *p, struct vk_park_entry *e)
{
	p->ops.resume(e);
	pthread_mutex_lock(&p->lock);
	p->count--;
	pthread_mutex_unlock(&p->lock);
}

/* Tells the owner, with the lock given up meanwhile. */
static void fire(struct vk_park *p, struct vk_park_entry *e, enum vk_park_why why)
{
	unlink_entry(p, e);
	e->in_gone = true;
	pthread_mutex_unlock(&p->lock);
	p->ops.gone(e, why);
	pthread_mutex_lock(&p->lock);
	e->in_gone = false;
	if (!e->resume_late) return;
	e->resume_late = false;
	pthread_mutex_unlock(&p->lock);
	resume(p, e);
	pthread_mutex_lock(&p->lock);
}

static struct vk_park_entry *find_due(struct vk_park *p, unsigned slot, uint64_t now_ms)
{
	struct vk_park_entry *e = p->slot[slot];
	while (e && e->deadline_ms > now_ms) e = e->next;
	return e;
}

static void expire(struct vk_park *p, uint64_t now_ms)
{
	uint64_t until = now_ms / TICK_MS + 1, from = p->tick;
	if (until - from > SLOTS) from = until - SLOTS; /* slept more than a turn: each slot once */
	for (; from < until; from++) {
		struct vk_park_entry *e;
		while ((e = find_due(p, (unsigned)(from % SLOTS), now_ms))) fire(p, e, VK_PARK_DEADLINE);
	}
	p->tick = until;
}

static void fire_all(struct vk_park *p)
{
	for (unsigned s = 0; s < SLOTS; s++)
		while (p->slot[s]) fire(p, p->slot[s], VK_PARK_SHUTDOWN);
}

static void hangup(struct vk_park *p, struct vk_park_entry *e)
{
	if (!e->linked || e->fd < 0) return;
	struct pollfd fd = {.fd = e->fd, .events = POLLRDHUP};
	if (poll(&fd, 1, 0) == 1 && (fd.revents & (POLLRDHUP | POLLHUP | POLLERR)))
		fire(p, e, VK_PARK_HANGUP);
}

/* Milliseconds to sleep, -1 for ever; remembers it in wake_ms for those who add. */
static int plan_sleep(struct vk_park *p, uint64_t now_ms)
{
	p->wake_ms = NEVER;
	if (!p->linked) return -1;
	uint64_t tick = p->tick;
	while (!p->slot[tick % SLOTS]) tick++;
	p->wake_ms = tick * TICK_MS;
	return p->wake_ms > now_ms ? (int)(p->wake_ms - now_ms) : 0;
}

static void *run(void *arg)
{
	struct vk_park *p = arg;
	struct epoll_event event[EVENTS_MAX];
	pthread_mutex_lock(&p->lock);
	while (!p->stop) {
		int timeout_ms = plan_sleep(p, vk_mono_ms());
		pthread_mutex_unlock(&p->lock);
		int n = epoll_wait(p->epoll_fd, event, EVENTS_MAX, timeout_ms);
		pthread_mutex_lock(&p->lock);
		for (int i = 0; i < n; i++) {
			uint64_t drained;
			if (event[i].data.ptr) hangup(p, event[i].data.ptr);
			else if (read(p->wake_fd, &drained, sizeof drained) < 0) continue;
		}
		expire(p, vk_mono_ms());
		if (p->closing) fire_all(p);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

struct vk_park *vk_park_new(const struct vk_park_ops *ops)
{
	struct vk_park *p = calloc(1, sizeof *p);
	if (!p) return NULL;
	p->ops = *ops;
	p->tick = vk_mono_ms() / TICK_MS;
	p->wake_ms = NEVER;
	pthread_mutex_init(&p->lock, NULL);
	p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event wake = {.events = EPOLLIN};
	if (p->wake_fd < 0 || p->epoll_fd < 0) goto fail;
	if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->wake_fd, &wake)) goto fail;
	if (pthread_create(&p->thread, NULL, run, p)) goto fail;
	pthread_setname_np(p->thread, "vk-park");
	return p;
fail:
	if (p->wake_fd >= 0) close(p->wake_fd);
	if (p->epoll_fd >= 0) close(p->epoll_fd);
	pthread_mutex_destroy(&p->lock);
	free(p);
	return NULL;
}

void vk_park_free(struct vk_park *p)
{
	if (!p) return;
	pthread_mutex_lock(&p->lock);
	assert(p->count == 0);
	p->stop = true;
	pthread_mutex_unlock(&p->lock);
	kick(p);
	pthread_join(p->thread, NULL);
	close(p->wake_fd);
	close(p->epoll_fd);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void vk_park_add(struct vk_park *p, struct vk_park_entry *e, int fd, uint64_t deadline_ms)
{
	pthread_mutex_lock(&p->lock);
	assert(!e->linked && !e->in_gone);
	e->fd = fd;
	e->deadline_ms = deadline_ms;
	e->resume_late = false;
	link_entry(p, e);
	p->count++;
	struct epoll_event watch = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.ptr = e};
	if (fd >= 0 && epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &watch)) e->fd = -1;
	bool early = p->closing || deadline_ms < p->wake_ms;
	pthread_mutex_unlock(&p->lock);
	if (early) kick(p);
}

void vk_park_leave(struct vk_park *p, struct vk_park_entry *e)
{
	pthread_mutex_lock(&p->lock);
	if (e->linked) unlink_entry(p, e);
	bool mine = !e->in_gone;
	if (!mine) e->resume_late = true;
	pthread_mutex_unlock(&p->lock);
	if (mine) resume(p, e);
}

void vk_park_close(struct vk_park *p)
{
	pthread_mutex_lock(&p->lock);
	p->closing = true;
	pthread_mutex_unlock(&p->lock);
	kick(p);
}

size_t vk_park_count(struct vk_park *p)
{
	pthread_mutex_lock(&p->lock);
	size_t n = p->count;
	pthread_mutex_unlock(&p->lock);
	return n;
}
