/*
 * The door. Everything that knows libmicrohttpd is in this file; what does not need it stands
 * beside it: listen.c (sockets), park.c (deadlines and hang-ups of parked requests), reaper.c
 * (slow clients), request.c (plain data), gzip.c.
 *
 * Daemons. Each has one thread, one epoll set and no listening socket; one acceptor thread hands
 * every new connection to the daemon that has the fewest (MHD_add_connection).
 * So the kernel's hash decides nothing: 64 connections are 32 and 32. Measured on 2 cores, loopback,
 * wrk, an 8.4 KB reply (bench_http_floor --accept; thousands of requests a second, 3 runs each):
 *   64 connections: two daemons dealt to 102-106, SO_REUSEPORT 103-109, libmicrohttpd's pool 74-92,
 *   one daemon 53-122 (it has a core for itself or shares it with the client);
 *   1 connection: 16-18, all alike. SO_REUSEPORT is as fast but deals by hash, needs a daemon a
 *   listening address and core, and gives no place to count connections before they are taken on.
 *
 * A request's life, on its daemon's thread but for [F]:
 *   on_uri       the request line is there: raw path and query are copied (libmicrohttpd would
 *                decode them in place)
 *   on_request   AT_HEAD: the head is complete: check_head(), or a refusal
 *                AT_BODY: the body piece by piece, then the handler, once
 *                AT_DISCARD: refused, but the client is still sending: let it finish, so that it
 *                reads our answer and not a reset
 *                AT_PARKED: resumed: reply
 *   on_completed the reply is out or the client gone: memory is reset for the next request
 *
 * Parking and finishing race, by design: a flow hands its operation to others and parks after
 * that, so the finisher [F] may come first. One atomic per request decides:
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
 * Connection memory is never given back while the server runs (a free list): the park's late
 * events may look at it, and a connection costs no malloc.
 *
 * Not done: body memory has a limit a request but none over all connections; the connection limit
 * times body_max is the bound.
 */
#include "server/http.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "server/gzip.h"
#include "server/listen.h"
#include "server/park.h"
#include "server/peers.h"
#include "server/reaper.h"
#include "server/request.h"
#include "simd/cpu.h"

#define DAEMONS_MAX 64
#define BODY_KEEP_MAX ((size_t)64 << 10)     /* a body buffer kept for the next request */
#define BODY_AHEAD_MAX ((size_t)1 << 20)     /* allocated on a Content-Length's word alone */
#define DISCARD_FACTOR 4                     /* of body_max: read and thrown away for a clean 413 */
#define GZIP_MIN 1024
#define GZIP_INLINE_MAX ((size_t)64 << 10)   /* on a daemon's thread: about half a millisecond */
#define REPLY_MAX ((size_t)1 << 30)           /* unless the flow sets a smaller one */
#define READ_BLOCK ((size_t)64 << 10)
#define MEMORY_STEP ((size_t)8 << 10)        /* libmicrohttpd's read buffer grows by this */
#define STOP_GRACE_MS 30000                  /* for finishers to keep their word at shutdown */

enum at { AT_HEAD, AT_BODY, AT_DISCARD, AT_PARKED, AT_REPLIED };
enum finish { OPEN, PARKED, FINISHED };

struct door { /* a daemon and its counters, on cache lines of its own */
	_Alignas(128) struct MHD_Daemon *daemon;
	struct vk_http *http;
	_Atomic uint32_t connections;
	_Atomic uint32_t active; /* requests whose head is complete and whose reply is not out */
	_Atomic uint64_t rejected;
};

struct conn {
	struct vk_req req; /* first: a request is its connection */
	struct vk_park_entry park;
	struct vk_reap_node reap;
	struct vk_http *http;
	struct door *door;
	struct MHD_Connection *mhd;
	enum at at;
	_Atomic int finish;
	vk_gone_fn *gone;
	struct vk_buf body;
	uint64_t discarded;
	uint64_t bytes_out;
	uint64_t rng;       /* for request ids: seeded by the kernel once a connection */
	bool loopback_here; /* came in on a loopback address: the Host rule holds */
	bool gzip_ok, counted, replied;
	struct conn *next_free;
};

struct vk_http {
	struct vk_http_opts opts;
	struct vk_http_limits limits;
	size_t arena_max;
	struct door *door;
	unsigned doors;
	struct vk_listen *listen;
	struct vk_park *park;
	struct vk_reaper *reaper;
	struct vk_peers *peers; /* NULL: no limit */
	atomic_bool draining;
	_Atomic uint64_t accepted, refused;
	pthread_mutex_t free_lock;
	struct conn *free;
};

static struct conn *conn_of(const struct vk_req *req)
{
	return (struct conn *)(uintptr_t)req;
}

/* ---- connections ---- */

static struct conn *conn_get(struct vk_http *h)
{
	pthread_mutex_lock(&h->free_lock);
	struct conn *c = h->free;
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

static void conn_put(struct conn *c)
{
	struct vk_http *h = c->http;
	vk_arena_free(&c->req.arena);
	vk_buf_free(&c->body);
	pthread_mutex_lock(&h->free_lock);
	c->next_free = h->free;
	h->free = c;
	pthread_mutex_unlock(&h->free_lock);
}

static void conn_open(struct door *d, struct MHD_Connection *mhd, void **context)
{
	struct conn *c = conn_get(d->http);
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
	c->at = AT_HEAD;
	c->replied = c->counted = false;
	c->req.peer_loopback = peer && vk_peer_is_loopback(peer->client_addr);
	c->loopback_here = vk_peer_is_loopback((struct sockaddr *)&here);
	vk_random(&c->rng, sizeof c->rng);
	vk_reap_add(d->http->reaper, &c->reap, fd, vk_mono_ms());
}

static void conn_close(struct door *d, struct conn *c)
{
	vk_reap_del(d->http->reaper, &c->reap);
	conn_put(c);
}

/* libmicrohttpd closes the descriptor after this returns. A connection that it took on but had no
 * memory for here (context NULL) is closed at its first request. */
static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	struct door *d = cls;
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

/* ---- a refused connection: before libmicrohttpd, in bytes ---- */

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

static struct door *least_loaded(struct vk_http *h, uint64_t *connections)
{
	struct door *best = NULL;
	uint32_t least = UINT32_MAX;
	*connections = 0;
	for (unsigned i = 0; i < h->doors; i++) {
		uint32_t n = atomic_load_explicit(&h->door[i].connections, memory_order_relaxed);
		*connections += n;
		if (n < least) least = n, best = &h->door[i];
	}
	return best;
}

static void on_accept(void *arg, int fd, const struct sockaddr *peer, socklen_t peer_n)
{
	struct vk_http *h = arg;
	uint64_t connections;
	struct door *d = least_loaded(h, &connections);
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

/* ---- the head ---- */

static void make_id(struct conn *c)
{
	uint64_t r[2] = {vk_rng(&c->rng), vk_rng(&c->rng)};
	vk_hex(c->req.id, r, sizeof r);
}

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
	(void)cls;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct conn *c = info ? info->socket_context : NULL;
	if (!c) return NULL;
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	vk_reap_to(&c->reap, VK_REAP_HEAD, (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000);
	struct vk_req *r = &c->req;
	c->at = AT_HEAD;
	c->discarded = c->bytes_out = 0;
	c->gzip_ok = c->counted = c->replied = false;
	atomic_store_explicit(&c->finish, OPEN, memory_order_relaxed);
	r->user = NULL;
	r->auth = NULL;
	r->route = "other";
	r->params = 0;
	r->id[0] = 0;
	r->body = (struct vk_bytes){NULL, 0};
	size_t n = uri ? strlen(uri) : 0;
	char *copy = vk_arena_strndup(&r->arena, uri, n);
	char *mark = copy ? memchr(copy, '?', n) : NULL;
	r->path = (struct vk_bytes){copy, copy ? (mark ? (size_t)(mark - copy) : n) : 0};
	r->query = mark ? (struct vk_bytes){mark + 1, n - r->path.n - 1} : (struct vk_bytes){NULL, 0};
	return c;
}

static enum vk_method method_of(const char *s)
{
	static const struct {
		const char *name;
		enum vk_method method;
	} known[] = {{"GET", VK_GET},	    {"POST", VK_POST},	   {"PUT", VK_PUT},
		     {"DELETE", VK_DELETE}, {"HEAD", VK_HEAD},	   {"PATCH", VK_PATCH},
		     {"OPTIONS", VK_OPTIONS}};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(s, known[i].name)) return known[i].method;
	return VK_METHOD_OTHER;
}

struct head { /* what one pass over the headers finds */
	unsigned lengths, encodings, hosts;
	struct vk_bytes length, encoding, host, content_encoding, id, accept;
	bool expects, malformed;
};

/* RFC 9110 token characters: a name with anything else ("Content-Length ") is how a request is
 * smuggled past a proxy that reads it another way. */
static bool is_token(const char *s, size_t n)
{
	static const bool other[128] = {
		['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1,
		['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1, ['~'] = 1,
	};
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i], low = c | 0x20;
		if (!((low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') || (c < 128 && other[c])))
			return false;
	}
	return n > 0;
}

static bool is_field_value(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f) return false;
	return true;
}

static enum MHD_Result on_header(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_n,
				 const char *value, size_t value_n)
{
	(void)kind;
	struct head *h = cls;
	if (!is_token(key, key_n) || !is_field_value(value, value_n)) h->malformed = true;
	struct vk_bytes v = {value ? value : "", value_n};
#define IS(name) (key_n == sizeof name - 1 && strncasecmp(key, name, key_n) == 0)
	switch (key_n) {
	case 4:
		if (IS("Host")) h->hosts++, h->host = v;
		break;
	case 6:
		if (IS("Expect")) h->expects = true;
		break;
	case 12:
		if (IS("X-Request-Id")) h->id = v;
		break;
	case 14:
		if (IS("Content-Length")) h->lengths++, h->length = v;
		break;
	case 15:
		if (IS("Accept-Encoding")) h->accept = v;
		break;
	case 16:
		if (IS("Content-Encoding")) h->content_encoding = v;
		break;
	case 17:
		if (IS("Transfer-Encoding")) h->encodings++, h->encoding = v;
		break;
	}
#undef IS
	return MHD_YES;
}

static bool read_length(struct vk_bytes text, uint64_t *out)
{
	if (!text.n || text.n > 18) return false;
	*out = 0;
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9') return false;
		*out = *out * 10 + (uint64_t)(text.p[i] - '0');
	}
	return true;
}

static bool same_word(struct vk_bytes s, const char *word)
{
	return s.n == strlen(word) && strncasecmp(s.p, word, s.n) == 0;
}

/* Where does this request end? Two answers, or none, is how requests are smuggled. */
static enum vk_status check_framing(const struct head *h, const char *version, struct vk_error *e)
{
	bool v10 = strcmp(version, "HTTP/1.1") != 0;
	uint64_t length;
	if (h->malformed) return vk_fail(e, VK_E_INVALID, "A header has characters that HTTP does not allow.");
	if (h->lengths > 1) return vk_fail(e, VK_E_INVALID, "More than one Content-Length.");
	if (h->lengths && h->encodings)
		return vk_fail(e, VK_E_INVALID, "Content-Length and Transfer-Encoding in one request.");
	if (h->lengths && !read_length(h->length, &length))
		return vk_fail(e, VK_E_INVALID, "Content-Length is not a number.");
	if (h->encodings && (h->encodings > 1 || v10 || !same_word(h->encoding, "chunked")))
		return vk_fail(e, VK_E_INVALID, "Transfer-Encoding can only be chunked, once, in HTTP/1.1.");
	if (h->hosts > 1) return vk_fail(e, VK_E_INVALID, "More than one Host.");
	return VK_OK;
}

static enum vk_status check_host(const struct conn *c, const struct head *h, struct vk_error *e)
{
	const char *const *extra = c->http->opts.hosts;
	if (!c->loopback_here && !extra) return VK_OK;
	if (!h->hosts || vk_host_allowed(h->host, extra)) return VK_OK;
	return vk_fail_param(e, VK_E_FORBIDDEN, "host_not_allowed", "host",
			     "This Host is not one of this server's names; add it to \"hosts\" in the "
			     "configuration if it should be.");
}

static enum vk_status check_content(const struct conn *c, const struct head *h, struct vk_error *e)
{
	uint64_t length = 0;
	if (h->content_encoding.n && !same_word(h->content_encoding, "identity")) {
		enum vk_status st = vk_fail(e, VK_E_INVALID, "Content-Encoding is not supported: send the body as it is.");
		e->http = 415;
		return st;
	}
	if (h->lengths) read_length(h->length, &length);
	if (length > c->body.max)
		return vk_fail_param(e, VK_E_TOO_LARGE, "body_too_large", "",
				     "The body is larger than %zu bytes.", c->body.max);
	return VK_OK;
}

/* ---- replies ---- */

/* The reply of a request that never reaches the handler, in its API's own shape. */
static void refuse(struct conn *c, struct vk_error *e)
{
	struct vk_req *r = &c->req;
	if (!e->http) e->http = vk_status_http(e->st);
	atomic_fetch_add_explicit(&c->door->rejected, 1, memory_order_relaxed);
	if (c->http->opts.reject) {
		c->http->opts.reject(c->http->opts.app, r, e);
		return;
	}
	r->reply.status = e->http;
	r->reply.content_type = "text/plain; charset=utf-8";
	vk_buf_puts(&r->reply.body, e->text);
	vk_buf_putc(&r->reply.body, '\n');
}

static void compress(struct conn *c, size_t max)
{
	struct vk_reply *p = &c->req.reply;
	if (!p->may_gzip || p->read || p->body.n <= GZIP_MIN || p->body.n > max) return;
	p->may_gzip = false; /* once is enough */
	if (p->headers + 2 > VK_REPLY_HEADERS_MAX) return;
	vk_reply_header(&c->req, "Vary", "Accept-Encoding");
	if (c->gzip_ok && vk_gzip(&p->body)) vk_reply_header(&c->req, "Content-Encoding", "gzip");
}

struct stream { /* outlives the request: libmicrohttpd destroys a response after on_completed */
	struct conn *c;
	int64_t (*read)(void *arg, uint64_t offset, char *dst, size_t n);
	void (*read_free)(void *arg);
	void *arg;
};

static ssize_t on_stream(void *cls, uint64_t offset, char *dst, size_t n)
{
	struct stream *s = cls;
	if (!vk_reap_to(&s->c->reap, VK_REAP_SEND, vk_mono_ms())) return MHD_CONTENT_READER_END_WITH_ERROR;
	int64_t got = s->read(s->arg, offset, dst, n);
	if (got < 0) return MHD_CONTENT_READER_END_WITH_ERROR;
	if (got == 0) return MHD_CONTENT_READER_END_OF_STREAM;
	s->c->bytes_out += (uint64_t)got;
	return (ssize_t)got;
}

static void on_stream_free(void *cls)
{
	struct stream *s = cls;
	if (s->read_free) s->read_free(s->arg);
	free(s);
}

static struct MHD_Response *stream_response(struct conn *c)
{
	struct vk_reply *p = &c->req.reply;
	struct stream *s = malloc(sizeof *s);
	if (!s) return NULL;
	*s = (struct stream){c, p->read, p->read_free, p->read_arg};
	p->read_free = NULL; /* the stream's now */
	p->read = NULL;
	struct MHD_Response *r =
		MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, READ_BLOCK, on_stream, s, on_stream_free);
	if (!r) on_stream_free(s);
	return r;
}

static struct MHD_Response *body_response(struct conn *c)
{
	struct vk_reply *p = &c->req.reply;
	size_t n;
	char *text = vk_buf_take(&p->body, &n);
	c->bytes_out = n;
	if (!n) {
		free(text);
		return MHD_create_response_from_buffer(0, (void *)(uintptr_t)"", MHD_RESPMEM_PERSISTENT);
	}
	struct MHD_Response *r = MHD_create_response_from_buffer(n, text, MHD_RESPMEM_MUST_FREE);
	if (!r) free(text);
	return r;
}

static void add_headers(struct conn *c, struct MHD_Response *r, bool has_body)
{
	struct vk_reply *p = &c->req.reply;
	const char *type = p->content_type ? p->content_type : "application/json";
	if (has_body || p->content_type) MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (!c->req.id[0]) make_id(c);
	MHD_add_response_header(r, "x-request-id", c->req.id);
	for (unsigned i = 0; i < p->headers; i++)
		MHD_add_response_header(r, p->header[i].name, p->header[i].value);
	/* Not req->draining: that is from when the head came. */
	bool draining = atomic_load_explicit(&c->http->draining, memory_order_relaxed);
	if (p->close || draining) MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
}

/* What cannot be sent as it was meant becomes a 500. */
static void settle(struct conn *c)
{
	struct vk_reply *p = &c->req.reply;
	bool cut = !p->read && p->body.failed;
	if (p->status >= 200 && p->status <= 599 && !cut) return;
	vk_log(VK_LOG_ERROR, "route %s: %s", c->req.route, cut ? "reply too large or no memory" : "no reply was made");
	vk_buf_free(&p->body);
	p->body.failed = false;
	p->headers = 0;
	p->content_type = NULL;
	struct vk_error e;
	vk_fail(&e, VK_E_INTERNAL, "The server could not make this reply.");
	refuse(c, &e);
}

static enum MHD_Result reply(struct conn *c)
{
	struct vk_reply *p = &c->req.reply;
	settle(c);
	compress(c, GZIP_INLINE_MAX);
	bool has_body = p->read || p->body.n;
	struct MHD_Response *r = p->read ? stream_response(c) : body_response(c);
	if (!r) return MHD_NO;
	add_headers(c, r, has_body);
	/* A reader at 1 KB/s is slow, but reading. */
	bool alive = vk_reap_to(&c->reap, VK_REAP_SEND, vk_mono_ms() + c->bytes_out);
	enum MHD_Result ok = alive ? MHD_queue_response(c->mhd, (unsigned)p->status, r) : MHD_NO;
	MHD_destroy_response(r);
	c->at = AT_REPLIED;
	c->replied = ok == MHD_YES;
	return ok;
}

/* ---- the handler, parking ---- */

static enum MHD_Result handle(struct conn *c)
{
	struct vk_http *h = c->http;
	c->req.body = vk_buf_bytes(&c->body);
	if (!vk_reap_to(&c->reap, VK_REAP_BUSY, 0)) return MHD_NO;
	h->opts.handler(h->opts.app, &c->req);
	/* Parked: not ours any more. c->at is only ever written on this thread. */
	return c->at == AT_PARKED ? MHD_YES : reply(c);
}

static void leave_park(struct conn *c)
{
	if (vk_park_remove(c->http->park, &c->park)) MHD_resume_connection(c->mhd);
}

void vk_req_park(struct vk_req *req, uint64_t deadline_ms, vk_gone_fn *gone)
{
	struct conn *c = conn_of(req);
	assert(c->at != AT_PARKED && gone);
	if (atomic_load(&c->finish) == FINISHED) return;
	c->at = AT_PARKED;
	c->gone = gone;
	MHD_suspend_connection(c->mhd);
	vk_park_add(c->http->park, &c->park, c->reap.fd, deadline_ms);
	int open = OPEN;
	if (!atomic_compare_exchange_strong(&c->finish, &open, PARKED)) leave_park(c);
}

void vk_req_finish(struct vk_req *req)
{
	struct conn *c = conn_of(req);
	compress(c, SIZE_MAX);
	int was = atomic_exchange(&c->finish, FINISHED);
	assert(was != FINISHED);
	if (was == PARKED) leave_park(c);
}

static struct conn *conn_of_park(struct vk_park_entry *e)
{
	return (struct conn *)(void *)((char *)e - offsetof(struct conn, park));
}

static void on_gone(struct vk_park_entry *e, enum vk_park_why why)
{
	static const enum vk_gone map[] = {[VK_PARK_DEADLINE] = VK_GONE_DEADLINE,
					   [VK_PARK_HANGUP] = VK_GONE_HANGUP,
					   [VK_PARK_SHUTDOWN] = VK_GONE_SHUTDOWN};
	struct conn *c = conn_of_park(e);
	c->gone(&c->req, map[why]);
}

static void on_late_resume(struct vk_park_entry *e)
{
	MHD_resume_connection(conn_of_park(e)->mhd);
}

/* ---- libmicrohttpd's callbacks for a request ---- */

/* Refused while the client may still be sending: read on to the end if that is not too far. */
static enum MHD_Result refuse_head(struct conn *c, const struct head *h, struct vk_error *e)
{
	uint64_t length = 0;
	bool sized = h->lengths == 1 && !h->encodings && read_length(h->length, &length);
	refuse(c, e);
	if (e->st != VK_E_INVALID && !h->expects && sized && length &&
	    length <= DISCARD_FACTOR * (uint64_t)c->http->limits.body_max) {
		c->at = AT_DISCARD;
		return MHD_YES;
	}
	c->req.reply.close = true;
	return reply(c);
}

static size_t body_limit(struct conn *c)
{
	struct vk_http *h = c->http;
	size_t max = h->opts.body_max ? h->opts.body_max(h->opts.app, &c->req) : 0;
	return max ? max : h->limits.body_max;
}

/* MHD_YES: go on to the body (100 Continue is sent by libmicrohttpd then, if asked for). */
static enum MHD_Result head_done(struct conn *c, const char *method, const char *version)
{
	struct vk_req *r = &c->req;
	struct head h = {0};
	struct vk_error e;
	r->start_us = vk_mono_us();
	r->method = method_of(method);
	r->draining = atomic_load_explicit(&c->http->draining, memory_order_relaxed);
	r->reply = (struct vk_reply){.body = {.max = REPLY_MAX}};
	atomic_fetch_add_explicit(&c->door->active, 1, memory_order_relaxed);
	c->counted = true;
	MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, on_header, &h);
	if (vk_request_id_sane(h.id)) {
		memcpy(r->id, h.id.p, h.id.n);
		r->id[h.id.n] = 0;
	} else {
		make_id(c);
	}
	c->gzip_ok = h.accept.n && vk_gzip_accepted(h.accept);
	enum vk_status st = check_framing(&h, version, &e);
	bool star = r->method == VK_OPTIONS && vk_bytes_is(r->path, "*");
	if (!st && !star && (!r->path.n || r->path.p[0] != '/'))
		st = vk_fail(&e, VK_E_INVALID, "The request target must begin with a slash.");
	if (!st) st = check_host(c, &h, &e);
	if (!st) c->body.max = body_limit(c);
	if (!st) st = check_content(c, &h, &e);
	if (!st && !vk_reap_to(&c->reap, VK_REAP_BODY, r->start_us / 1000)) return MHD_NO;
	if (st) return refuse_head(c, &h, &e);
	uint64_t length = 0;
	if (h.lengths) read_length(h.length, &length);
	if (length) vk_buf_reserve(&c->body, length < BODY_AHEAD_MAX ? length : BODY_AHEAD_MAX);
	c->at = AT_BODY;
	return MHD_YES;
}

static enum MHD_Result body_more(struct conn *c, const char *data, size_t n)
{
	struct vk_error e;
	vk_buf_put(&c->body, data, n);
	if (!c->body.failed) return MHD_YES;
	/* Only a chunked body comes this far, or memory is short. */
	if (c->body.n + n > c->body.max)
		vk_fail_param(&e, VK_E_TOO_LARGE, "body_too_large", "", "The body is larger than %zu bytes.",
			      c->body.max);
	else
		vk_fail(&e, VK_E_NOMEM, "No memory for this body.");
	refuse(c, &e);
	c->discarded = c->body.n + n;
	vk_buf_free(&c->body);
	c->body.failed = false;
	c->at = AT_DISCARD;
	return MHD_YES;
}

static enum MHD_Result discard_more(struct conn *c, size_t n)
{
	c->discarded += n;
	return c->discarded > DISCARD_FACTOR * (uint64_t)c->http->limits.body_max ? MHD_NO : MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *data_n, void **context)
{
	(void)cls, (void)mhd, (void)url;
	struct conn *c = *context;
	if (!c) return MHD_NO;
	size_t n = *data_n;
	switch (c->at) {
	case AT_HEAD: return head_done(c, method, version);
	case AT_BODY:
		*data_n = 0;
		return n ? body_more(c, data, n) : handle(c);
	case AT_DISCARD:
		*data_n = 0;
		return n ? discard_more(c, n) : reply(c);
	case AT_PARKED: return reply(c);
	case AT_REPLIED: *data_n = 0; return MHD_YES;
	}
	return MHD_NO;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **context,
			 enum MHD_RequestTerminationCode why)
{
	(void)cls, (void)mhd, (void)why;
	struct conn *c = *context;
	if (!c) return;
	struct vk_req *r = &c->req;
	struct vk_http *h = c->http;
	*context = NULL;
	if (c->counted) {
		uint64_t now_us = vk_mono_us();
		if (c->replied && h->opts.done)
			h->opts.done(h->opts.app, r, r->reply.status, now_us - r->start_us, c->bytes_out);
		if (r->reply.read_free) r->reply.read_free(r->reply.read_arg);
		vk_buf_free(&r->reply.body);
		c->counted = false;
		vk_reap_to(&c->reap, VK_REAP_IDLE, now_us / 1000);
		atomic_fetch_sub(&c->door->active, 1);
	}
	if (c->body.cap > BODY_KEEP_MAX || c->body.failed) vk_buf_free(&c->body);
	c->body.n = 0;
	vk_arena_reset(&r->arena);
}

struct vk_bytes vk_req_header(const struct vk_req *req, const char *name)
{
	const struct conn *c = conn_of(req);
	const char *value = NULL;
	size_t n = 0;
	if (MHD_lookup_connection_value_n(c->mhd, MHD_HEADER_KIND, name, strlen(name), &value, &n) != MHD_YES)
		return (struct vk_bytes){NULL, 0};
	return (struct vk_bytes){value ? value : "", n};
}

/* ---- start and stop ---- */

static size_t keep_escaped(void *cls, struct MHD_Connection *mhd, char *s)
{
	(void)cls, (void)mhd;
	return strlen(s);
}

static struct MHD_Daemon *start_daemon(struct door *d)
{
	const struct vk_http_limits *l = &d->http->limits;
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET;
	return MHD_start_daemon(flags, 0, NULL, NULL, on_request, d,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, l->header_max,
				MHD_OPTION_CONNECTION_MEMORY_INCREMENT, MEMORY_STEP,
				MHD_OPTION_CONNECTION_LIMIT, l->connections_max + 16,
				MHD_OPTION_CONNECTION_TIMEOUT, 0u, /* the reaper's */
				MHD_OPTION_NOTIFY_CONNECTION, on_connection, d,
				MHD_OPTION_NOTIFY_COMPLETED, on_completed, d,
				MHD_OPTION_URI_LOG_CALLBACK, on_uri, d,
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
	while (h->free) {
		struct conn *c = h->free;
		h->free = c->next_free;
		free(c);
	}
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
		struct door *d = &h->door[h->doors];
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
	static const struct vk_park_ops park_ops = {.gone = on_gone, .resume = on_late_resume};
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
	h->park = vk_park_new(&park_ops);
	h->reaper = vk_reaper_new(&reap);
	h->peers = h->limits.per_ip_max ? vk_peers_new(h->limits.per_ip_max) : NULL;
	if (!h->park || !h->reaper || (h->limits.per_ip_max && !h->peers)) {
		st = vk_fail(err, VK_E_UNAVAILABLE, "cannot start the HTTP door: no memory, threads or descriptors");
		goto fail;
	}
	st = start_doors(h, err);
	if (!st) st = vk_listen_start(h->listen, on_accept, h, err);
	if (st) goto fail;
	*out = h;
	return VK_OK;
fail:
	stop_doors(h);
	free_http(h);
	return st;
}

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

/* libmicrohttpd aborts the process when a daemon is stopped with suspended connections: better to
 * leave everything as it is and let the process end. */
void vk_http_stop(struct vk_http *h)
{
	if (!h) return;
	vk_http_quiesce(h);
	if (!wait_idle(h, h->limits.drain_ms)) vk_log(VK_LOG_WARN, "drain: out of time, waking the parked requests");
	vk_listen_stop(h->listen);
	vk_park_close(h->park);
	uint64_t until = vk_mono_ms() + STOP_GRACE_MS;
	while (vk_park_count(h->park) && vk_mono_ms() < until)
		nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
	if (vk_park_count(h->park)) {
		vk_log(VK_LOG_ERROR, "drain: parked requests were not finished; left behind");
		return;
	}
	wait_idle(h, 500); /* the replies of those just woken */
	stop_doors(h);
	free_http(h);
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
