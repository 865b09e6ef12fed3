/*
 * The door's daemons: started, drained, stopped, counted. The rest of the door, and who owns what in
 * it: http_internal.h.
 *
 * Each daemon has one thread, one epoll set and no listening socket; one acceptor thread hands
 * every new connection to the daemon that has the fewest (http_conn.c).
 * So the kernel's hash decides nothing: 64 connections are 32 and 32. Measured on 2 cores, loopback,
 * wrk, an 8.4 KB reply (bench_http_floor --accept; thousands of requests a second, 3 runs each):
 *   64 connections: two daemons dealt to 102-106, SO_REUSEPORT 103-109, libmicrohttpd's pool 74-92,
 *   one daemon 53-122 (it has a core for itself or shares it with the client);
 *   1 connection: 16-18, all alike. SO_REUSEPORT is as fast but deals by hash, needs a daemon a
 *   listening address and core, and gives no place to count connections before they are taken on.
 *
 * The end is a drain in this order: replies close their connections (quiesce), drain_ms for what is
 * under way, no more accepting, no handler begins any more (503), the park wakes what still waits,
 * STOP_GRACE_MS for its finishers, the last replies go out, the daemons stop.
 *
 * Threads: start and stop are one thread's; quiesce, stats and the addresses are anybody's.
 *
 * Not done: body memory has a limit a request but none over all connections; the connection limit
 * times body_max is the bound.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/http_internal.h"
#include "simd/cpu.h"

#define DAEMONS_MAX 64
#define MEMORY_STEP ((size_t)8 << 10) /* libmicrohttpd's read buffer grows by this */
#define STOP_GRACE_MS 30000           /* for finishers to keep their word at shutdown */

/* ---- start ---- */

static size_t keep_escaped(void *cls, struct MHD_Connection *mhd, char *s)
{
	(void)cls, (void)mhd;
	return strlen(s);
}

static struct MHD_Daemon *start_daemon(struct vk_door *d)
{
	const struct vk_http_limits *l = &d->http->limits;
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET;
	return MHD_start_daemon(flags, 0, NULL, NULL, vk_http_on_request, d,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, l->header_max,
				MHD_OPTION_CONNECTION_MEMORY_INCREMENT, MEMORY_STEP,
				MHD_OPTION_CONNECTION_LIMIT, l->connections_max + 16,
				MHD_OPTION_CONNECTION_TIMEOUT, 0u, /* the reaper's */
				MHD_OPTION_NOTIFY_CONNECTION, vk_http_on_connection, d,
				MHD_OPTION_NOTIFY_COMPLETED, vk_http_on_completed, d,
				MHD_OPTION_URI_LOG_CALLBACK, vk_http_on_uri, d,
				MHD_OPTION_UNESCAPE_CALLBACK, keep_escaped, NULL,
				MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
}

static void fill_limits(struct vk_http_limits *l)
{
	if (!l->body_max) l->body_max = (size_t)32 << 20;
	if (!l->header_max) l->header_max = (size_t)64 << 10;
	if (!l->connections_max) l->connections_max = 4096;
	if (!l->head_timeout_ms) l->head_timeout_ms = 10 * 1000;
	if (!l->body_timeout_ms) l->body_timeout_ms = 60 * 1000;
	if (!l->idle_timeout_ms) l->idle_timeout_ms = 75 * 1000;
	if (!l->drain_ms) l->drain_ms = 20 * 1000;
}

static unsigned pick_threads(unsigned wanted)
{
	unsigned n = wanted ? wanted : vk_cpu_cores();
	return n > DAEMONS_MAX ? DAEMONS_MAX : n;
}

static void free_http(struct vk_http *h)
{
	vk_reaper_free(h->reaper);
	vk_park_free(h->park);
	vk_listen_free(h->listen);
	vk_peers_free(h->peers);
	vk_http_free_connections(h);
	pthread_mutex_destroy(&h->free_lock);
	free(h->door);
	free(h);
}

static enum vk_status start_doors(struct vk_http *h, struct vk_error *err)
{
	unsigned n = pick_threads(h->opts.threads);
	h->door = aligned_alloc(128, n * sizeof *h->door);
	if (!h->door) return vk_fail(err, VK_E_NOMEM, "no memory");
	memset(h->door, 0, n * sizeof *h->door);
	for (; h->doors < n; h->doors++) {
		struct vk_door *d = &h->door[h->doors];
		d->http = h;
		d->daemon = start_daemon(d);
		if (!d->daemon) return vk_fail(err, VK_E_UNAVAILABLE, "cannot start an HTTP thread: %s", strerror(errno));
	}
	return VK_OK;
}

static void stop_doors(struct vk_http *h)
{
	for (unsigned i = 0; i < h->doors; i++) MHD_stop_daemon(h->door[i].daemon);
}

enum vk_status vk_http_start(const struct vk_http_opts *opts, struct vk_http **out, struct vk_error *err)
{
	*out = NULL;
	struct vk_http *h = calloc(1, sizeof *h);
	if (!h) return vk_fail(err, VK_E_NOMEM, "no memory");
	h->opts = *opts;
	h->limits = opts->limits;
	fill_limits(&h->limits);
	h->arena_max = 4 * h->limits.body_max + ((size_t)1 << 20);
	pthread_mutex_init(&h->free_lock, NULL);
	struct vk_reap_limits reap = {h->limits.head_timeout_ms, h->limits.body_timeout_ms,
				      h->limits.idle_timeout_ms};
	enum vk_status st = vk_listen_open(opts->listen, opts->listen_n, &h->listen, err);
	if (st) goto fail;
	h->park = vk_park_new(&vk_http_park_ops);
	h->reaper = vk_reaper_new(&reap);
	h->peers = h->limits.per_ip_max ? vk_peers_new(h->limits.per_ip_max) : NULL;
	if (!h->park || !h->reaper || (h->limits.per_ip_max && !h->peers)) {
		st = vk_fail(err, VK_E_UNAVAILABLE, "cannot start the HTTP door: no memory, threads or descriptors");
		goto fail;
	}
	st = start_doors(h, err);
	if (!st) st = vk_listen_start(h->listen, vk_http_on_accept, h, err);
	if (st) goto fail;
	*out = h;
	return VK_OK;
fail:
	stop_doors(h);
	free_http(h);
	return st;
}

/* ---- while it runs ---- */

const char *vk_http_address(const struct vk_http *h, size_t i)
{
	return vk_listen_address(h->listen, i);
}

size_t vk_http_addresses(const struct vk_http *h)
{
	return vk_listen_count(h->listen);
}

void vk_http_quiesce(struct vk_http *h)
{
	atomic_store(&h->draining, true);
}

void vk_http_stats(struct vk_http *h, struct vk_http_stats *out)
{
	*out = (struct vk_http_stats){0};
	for (unsigned i = 0; i < h->doors; i++) {
		out->connections += atomic_load(&h->door[i].connections);
		out->rejected += atomic_load(&h->door[i].rejected);
	}
	out->rejected += atomic_load(&h->refused);
	out->accepted = atomic_load(&h->accepted);
	out->parked = vk_park_count(h->park);
	out->reaped = vk_reaper_count(h->reaper);
}

const char *vk_http_library(void)
{
	static char text[64];
	snprintf(text, sizeof text, "libmicrohttpd %s", MHD_get_version());
	return text;
}

/* ---- stop ---- */

static uint64_t active(struct vk_http *h)
{
	uint64_t n = 0;
	for (unsigned i = 0; i < h->doors; i++) n += atomic_load(&h->door[i].active);
	return n;
}

static bool wait_idle(struct vk_http *h, uint64_t ms)
{
	uint64_t until = vk_mono_ms() + ms;
	while (active(h)) {
		if (vk_mono_ms() >= until) return false;
		nanosleep(&(struct timespec){.tv_nsec = 2 * 1000 * 1000}, NULL);
	}
	return true;
}

static bool handling(struct vk_http *h)
{
	for (unsigned i = 0; i < h->doors; i++)
		if (atomic_load(&h->door[i].handling)) return true;
	return false;
}

/* True: nothing is suspended, and nothing will be. */
static bool empty_park(struct vk_http *h)
{
	uint64_t until = vk_mono_ms() + STOP_GRACE_MS;
	atomic_store(&h->closing, true); /* before handlers are looked for: begin_handling() */
	vk_park_close(h->park);
	while (handling(h) || vk_park_count(h->park)) { /* in this order: a handler may park */
		if (vk_mono_ms() >= until) return false;
		nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
	}
	return true;
}

/* libmicrohttpd aborts the process when a daemon is stopped with suspended connections: better to
 * leave everything as it is and let the process end. */
void vk_http_stop(struct vk_http *h)
{
	if (!h) return;
	vk_http_quiesce(h);
	if (!wait_idle(h, h->limits.drain_ms)) vk_log(VK_LOG_WARN, "drain: out of time, waking the parked requests");
	vk_listen_stop(h->listen);
	if (!empty_park(h)) {
		vk_log(VK_LOG_ERROR, "drain: parked requests were not finished; left behind");
		return;
	}
	wait_idle(h, 500); /* the replies of those just woken */
	stop_doors(h);
	free_http(h);
}
