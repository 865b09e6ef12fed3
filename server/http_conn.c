/*
 * Connections: the acceptor's thread deals each to the daemon that has the fewest
 * (MHD_add_connection), or answers it with a 503 in bytes when there are too many, over all or from
 * one address; the daemon's thread then opens and closes it here.
 *
 * Counts are taken before libmicrohttpd has the connection and given back when it tells of its end:
 * door->connections, and the peer's place. With one
 * acceptor, no limit is passed even for a moment.
 *
 * Connection memory is never given back while the server runs (a free list): the park's late
 * events may look at it, and a connection costs no malloc. The free list's lock is held for a few
 * instructions.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "server/http_internal.h"

/* ---- their memory, begin and end ---- */

static struct vk_conn *conn_get(struct vk_http *h)
{
	pthread_mutex_lock(&h->free_lock);
	struct vk_conn *c = h->free;
	if (c) h->free = c->next_free;
	pthread_mutex_unlock(&h->free_lock);
	if (c) return c;
	c = calloc(1, sizeof *c);
	if (!c) return NULL;
	vk_arena_init(&c->req.arena, h->arena_max);
	vk_buf_init(&c->body, h->limits.body_max);
	c->http = h;
	return c;
}

static void conn_put(struct vk_conn *c)
{
	struct vk_http *h = c->http;
	vk_arena_free(&c->req.arena);
	vk_buf_free(&c->body);
	pthread_mutex_lock(&h->free_lock);
	c->next_free = h->free;
	h->free = c;
	pthread_mutex_unlock(&h->free_lock);
}

void vk_http_free_connections(struct vk_http *h)
{
	while (h->free) {
		struct vk_conn *c = h->free;
		h->free = c->next_free;
		free(c);
	}
}

static void conn_open(struct vk_door *d, struct MHD_Connection *mhd, void **context)
{
	struct vk_conn *c = conn_get(d->http);
	*context = c;
	if (!c) return;
	/* One answer at a time: libmicrohttpd 1.0 keeps them all in one place, so the next call
	 * overwrites what the last one pointed to. */
	int fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	const union MHD_ConnectionInfo *peer = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	struct sockaddr_storage here = {0};
	socklen_t here_n = sizeof here;
	getsockname(fd, (struct sockaddr *)&here, &here_n);
	c->door = d;
	c->mhd = mhd;
	c->at = VK_AT_HEAD;
	c->replied = c->counted = false;
	c->req.peer_loopback = peer && vk_peer_is_loopback(peer->client_addr);
	c->loopback_here = vk_peer_is_loopback((struct sockaddr *)&here);
	vk_random(&c->rng, sizeof c->rng);
	vk_reap_add(d->http->reaper, &c->reap, fd, vk_mono_ms());
}

static void conn_close(struct vk_door *d, struct vk_conn *c)
{
	vk_reap_del(d->http->reaper, &c->reap);
	conn_put(c);
}

/* libmicrohttpd closes the descriptor after this returns. A connection that it took on but had no
 * memory for here (context NULL) is closed at its first request. */
void vk_http_on_connection(void *cls, struct MHD_Connection *mhd, void **context,
			   enum MHD_ConnectionNotificationCode code)
{
	struct vk_door *d = cls;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		conn_open(d, mhd, context);
		return;
	}
	const union MHD_ConnectionInfo *a = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	if (d->http->peers && a) vk_peers_give(d->http->peers, vk_peer_of(a->client_addr));
	if (*context) conn_close(d, *context);
	*context = NULL;
	atomic_fetch_sub(&d->connections, 1);
}

/* ---- dealing, and a refused connection: before libmicrohttpd, in bytes ---- */

static void turn_away(struct vk_http *h, int fd)
{
	static const char body[] = "{\"error\":{\"message\":\"Too many connections.\","
				   "\"type\":\"server_error\",\"param\":null,\"code\":\"overloaded\"}}";
	char text[512];
	int n = snprintf(text, sizeof text,
			 "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
			 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
			 sizeof body - 1, body);
	send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(fd, SHUT_WR);
	close(fd);
	atomic_fetch_add(&h->refused, 1);
}

static struct vk_door *least_loaded(struct vk_http *h, uint64_t *connections)
{
	struct vk_door *best = NULL;
	uint32_t least = UINT32_MAX;
	*connections = 0;
	for (unsigned i = 0; i < h->doors; i++) {
		uint32_t n = atomic_load_explicit(&h->door[i].connections, memory_order_relaxed);
		*connections += n;
		if (n < least) least = n, best = &h->door[i];
	}
	return best;
}

void vk_http_on_accept(void *arg, int fd, const struct sockaddr *peer, socklen_t peer_n)
{
	struct vk_http *h = arg;
	uint64_t connections;
	struct vk_door *d = least_loaded(h, &connections);
	atomic_fetch_add(&h->accepted, 1);
	if (connections >= h->limits.connections_max ||
	    (h->peers && !vk_peers_take(h->peers, vk_peer_of(peer)))) {
		turn_away(h, fd);
		return;
	}
	atomic_fetch_add(&d->connections, 1);
	/* On failure it closes the descriptor itself. */
	if (MHD_add_connection(d->daemon, fd, peer, peer_n) != MHD_YES) {
		vk_log(VK_LOG_WARN, "cannot take on a connection: %s", strerror(errno));
		if (h->peers) vk_peers_give(h->peers, vk_peer_of(peer));
		atomic_fetch_sub(&d->connections, 1);
	}
}
