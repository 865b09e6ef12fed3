/*
 * Parked requests: libmicrohttpd's connection is suspended, the park (park.h) has its deadline and its
 * socket, and somebody else makes the reply.
 *
 * Parking and finishing race, by design: a flow hands its operation to others and parks after
 * that, so the finisher may come first. One atomic per request decides:
 *
 *     OPEN --park: suspend, enter the park, swap--> PARKED --finish--> FINISHED, finisher resumes
 *     OPEN --finish------------------------------> FINISHED
 *         park not reached, or sees FINISHED first: nothing is suspended, the reply goes at once
 *         park has suspended and its swap fails: park leaves the park and resumes itself
 *
 * So exactly one side resumes, only what was suspended, and never while a `gone` callback runs
 * (park.h). MHD_suspend_connection takes effect inside the handler and MHD_resume_connection only
 * marks, so a resume that overtakes the handler's return is served after it, by the same thread.
 *
 * Threads: vk_req_park() is the handler's, vk_req_finish() anybody's, `gone` the park's.
 */
#include <assert.h>

#include "server/http_internal.h"

void vk_req_park(struct vk_req *req, uint64_t deadline_ms, vk_gone_fn *gone)
{
	struct vk_conn *c = vk_conn_of(req);
	assert(c->at != VK_AT_PARKED && gone);
	if (atomic_load(&c->finish) == VK_FINISHED) return;
	c->at = VK_AT_PARKED;
	c->gone = gone;
	MHD_suspend_connection(c->mhd);
	vk_park_add(c->http->park, &c->park, c->reap.fd, deadline_ms);
	int open = VK_OPEN;
	if (!atomic_compare_exchange_strong(&c->finish, &open, VK_PARKED)) vk_park_leave(c->http->park, &c->park);
}

void vk_req_finish(struct vk_req *req)
{
	struct vk_conn *c = vk_conn_of(req);
	vk_http_compress(c, SIZE_MAX);
	int was = atomic_exchange(&c->finish, VK_FINISHED);
	assert(was != VK_FINISHED);
	if (was == VK_PARKED) vk_park_leave(c->http->park, &c->park);
}

static struct vk_conn *conn_of_park(struct vk_park_entry *e)
{
	return (struct vk_conn *)(void *)((char *)e - offsetof(struct vk_conn, park));
}

static void on_gone(struct vk_park_entry *e, enum vk_park_why why)
{
	static const enum vk_gone map[] = {[VK_PARK_DEADLINE] = VK_GONE_DEADLINE,
					   [VK_PARK_HANGUP] = VK_GONE_HANGUP,
					   [VK_PARK_SHUTDOWN] = VK_GONE_SHUTDOWN};
	struct vk_conn *c = conn_of_park(e);
	c->gone(&c->req, map[why]);
}

static void on_resume(struct vk_park_entry *e)
{
	MHD_resume_connection(conn_of_park(e)->mhd);
}

const struct vk_park_ops vk_http_park_ops = {.gone = on_gone, .resume = on_resume};
