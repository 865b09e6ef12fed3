/*
 * Private to server/http*.c, which are the HTTP door between them and all that knows libmicrohttpd:
 *   http.c          the daemons: started, drained, stopped, counted
 *   http_conn.c     connections: dealt to the daemons, turned away, their memory
 *   http_request.c  a request's life as libmicrohttpd tells it: head, body, handler, end
 *   http_park.c     suspended and resumed: the race of parking and finishing
 *   http_reply.c    what is sent: refusals, gzip, streams, headers
 * What needs no HTTP library stands beside them: http_head.c (what a head may say), listen.c
 * (sockets), park.c (deadlines and hang-ups), reaper.c (slow clients), request.c (plain data), gzip.c.
 *
 * Ownership: a connection is libmicrohttpd's socket context from vk_http_on_connection(STARTED) to the
 * same call at its end; then its memory goes onto the free list, and back to malloc in vk_http_stop()
 * alone.
 * Threads: all of a connection is its daemon's thread's, but for `finish` (an atomic), `reap` and
 * `park` (their modules' locks), and `req`, which is the finisher's while the request is parked.
 * Errors: MHD_NO from a callback closes the connection without an answer; a client that is to be
 * told why goes through vk_http_refuse(). Times: microseconds or milliseconds, monotonic.
 */
#ifndef VK_SERVER_HTTP_INTERNAL_H
#define VK_SERVER_HTTP_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "server/http.h"
#include "server/listen.h"
#include "server/park.h"
#include "server/peers.h"
#include "server/reaper.h"

enum vk_at { VK_AT_HEAD, VK_AT_BODY, VK_AT_DISCARD, VK_AT_PARKED, VK_AT_REPLIED };
enum vk_finish { VK_OPEN, VK_PARKED, VK_FINISHED }; /* http_park.c's */

struct vk_door { /* a daemon and its counters, on cache lines of its own */
	_Alignas(128) struct MHD_Daemon *daemon;
	struct vk_http *http;
	_Atomic uint32_t connections;
	_Atomic uint32_t active; /* requests whose head is complete and whose reply is not out */
	_Atomic uint64_t rejected;
	atomic_bool handling;    /* in a handler, which may park; see vk_http.closing */
};

struct vk_conn {
	struct vk_req req; /* first: a request is its connection */
	struct vk_park_entry park;
	struct vk_reap_node reap;
	struct vk_http *http;
	struct vk_door *door;
	struct MHD_Connection *mhd;
	enum vk_at at;
	_Atomic int finish;
	vk_gone_fn *gone;
	struct vk_buf body;
	uint64_t discarded;
	uint64_t bytes_out;
	uint64_t rng;       /* for request ids: seeded by the kernel once a connection */
	bool loopback_here; /* came in on a loopback address: the Host rule holds */
	bool gzip_ok, counted, replied;
	struct vk_conn *next_free;
};

struct vk_http {
	struct vk_http_opts opts;
	struct vk_http_limits limits;
	size_t arena_max;
	struct vk_door *door;
	unsigned doors;
	struct vk_listen *listen;
	struct vk_park *park;
	struct vk_reaper *reaper;
	struct vk_peers *peers; /* NULL: no limit */
	atomic_bool draining;
	atomic_bool closing; /* no handler begins any more: what it parked nobody would wait for */
	_Atomic uint64_t accepted, refused;
	pthread_mutex_t free_lock;
	struct vk_conn *free;
};

static inline struct vk_conn *vk_conn_of(const struct vk_req *req)
{
	return (struct vk_conn *)(uintptr_t)req;
}

/* http_conn.c. On the acceptor's thread: deals fd to the daemon with the fewest, or turns it away; owns fd. */
void vk_http_on_accept(void *http, int fd, const struct sockaddr *peer, socklen_t peer_n);
/* A connection has begun or ended, on the daemon's thread. */
void vk_http_on_connection(void *door, struct MHD_Connection *mhd, void **context,
			   enum MHD_ConnectionNotificationCode code);
void vk_http_free_connections(struct vk_http *h); /* the free list; no daemon runs any more */

/* http_request.c: libmicrohttpd's callbacks, on the daemon's thread. */
void *vk_http_on_uri(void *door, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result vk_http_on_request(void *door, struct MHD_Connection *mhd, const char *url,
				   const char *method, const char *version, const char *data,
				   size_t *data_n, void **context);
void vk_http_on_completed(void *door, struct MHD_Connection *mhd, void **context,
			  enum MHD_RequestTerminationCode why);
void vk_http_make_id(struct vk_conn *c);

/* http_park.c: what the park calls, on its thread. */
extern const struct vk_park_ops vk_http_park_ops;

/* http_reply.c. Refuse fills the reply of a request that never reaches the handler, in its API's own
 * shape. Reply queues what is filled, on the daemon's thread. */
void vk_http_refuse(struct vk_conn *c, struct vk_error *e);
/* Bodies up to max bytes; any thread that holds the request. */
void vk_http_compress(struct vk_conn *c, size_t max);
enum MHD_Result vk_http_reply(struct vk_conn *c);

#endif
