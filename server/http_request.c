/*
 * A request's life as libmicrohttpd tells it, on its daemon's thread:
 *   on_uri       the request line is there: raw path and query are copied (libmicrohttpd would
 *                decode them in place)
 *   on_request   AT_HEAD: the head is complete: its checks (http_head.h), or a refusal
 *                AT_BODY: the body piece by piece, then the handler, once
 *                AT_DISCARD: refused, but the client is still sending: let it finish, so that it
 *                reads our answer and not a reset
 *                AT_PARKED: resumed: reply
 *   on_completed the reply is out or the client gone: memory is reset for the next request
 *
 * A body lies in memory, so its limit is known before its first byte: what the application says of
 * this request, or body_max. A Content-Length above it is refused before 100 Continue, a chunked
 * body when it has passed it; how much of a refused body is read has a limit, too.
 *
 * Each step tells the reaper which stage the connection is in, and gives up when it has been reaped.
 */
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "base/hash.h"
#include "server/gzip.h"
#include "server/http_head.h"
#include "server/http_internal.h"
#include "server/request.h"

#define BODY_KEEP_MAX ((size_t)64 << 10) /* a body buffer kept for the next request */
#define BODY_AHEAD_MAX ((size_t)1 << 20) /* allocated on a Content-Length's word alone */
#define DISCARD_FACTOR 4                 /* of body_max: read and thrown away for a clean 413 */
#define REPLY_MAX ((size_t)1 << 30)      /* unless the flow sets a smaller one */

/* ---- the head ---- */

void vk_http_make_id(struct vk_conn *c)
{
	uint64_t r[2] = {vk_rng(&c->rng), vk_rng(&c->rng)};
	vk_hex(c->req.id, r, sizeof r);
}

void *vk_http_on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
	(void)cls;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct vk_conn *c = info ? info->socket_context : NULL;
	if (!c) return NULL;
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	vk_reap_to(&c->reap, VK_REAP_HEAD, (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000);
	struct vk_req *r = &c->req;
	c->at = VK_AT_HEAD;
	c->discarded = c->bytes_out = 0;
	c->gzip_ok = c->counted = c->replied = false;
	atomic_store_explicit(&c->finish, VK_OPEN, memory_order_relaxed);
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

static enum MHD_Result on_header(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_n,
				 const char *value, size_t value_n)
{
	(void)kind;
	vk_head_field(cls, key, key_n, value, value_n);
	return MHD_YES;
}

/* Refused while the client may still be sending: read on to the end if that is not too far. */
static enum MHD_Result refuse_head(struct vk_conn *c, const struct vk_head *h, struct vk_error *e)
{
	uint64_t length = 0;
	bool sized = h->lengths == 1 && !h->encodings && vk_head_length(h->length, &length);
	vk_http_refuse(c, e);
	if (e->st != VK_E_INVALID && !h->expects && sized && length &&
	    length <= DISCARD_FACTOR * (uint64_t)c->http->limits.body_max) {
		c->at = VK_AT_DISCARD;
		return MHD_YES;
	}
	c->req.reply.close = true;
	return vk_http_reply(c);
}

static size_t body_limit(struct vk_conn *c)
{
	struct vk_http *h = c->http;
	size_t max = h->opts.body_max ? h->opts.body_max(h->opts.app, &c->req) : 0;
	return max ? max : h->limits.body_max;
}

/* MHD_YES: go on to the body (100 Continue is sent by libmicrohttpd then, if asked for). */
static enum MHD_Result head_done(struct vk_conn *c, const char *method, const char *version)
{
	struct vk_req *r = &c->req;
	struct vk_head h = {0};
	struct vk_error e;
	r->start_us = vk_mono_us();
	r->method = vk_head_method(method);
	r->draining = atomic_load_explicit(&c->http->draining, memory_order_relaxed);
	r->reply = (struct vk_reply){.body = {.max = REPLY_MAX}};
	atomic_fetch_add_explicit(&c->door->active, 1, memory_order_relaxed);
	c->counted = true;
	MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, on_header, &h);
	if (vk_request_id_sane(h.id)) {
		memcpy(r->id, h.id.p, h.id.n);
		r->id[h.id.n] = 0;
	} else {
		vk_http_make_id(c);
	}
	c->gzip_ok = h.accept.n && vk_gzip_accepted(h.accept);
	enum vk_status st = vk_head_check_framing(&h, version, &e);
	bool star = r->method == VK_OPTIONS && vk_bytes_is(r->path, "*");
	if (!st && !star && (!r->path.n || r->path.p[0] != '/'))
		st = vk_fail(&e, VK_E_INVALID, "The request target must begin with a slash.");
	if (!st) st = vk_head_check_host(&h, c->loopback_here, c->http->opts.hosts, &e);
	if (!st) c->body.max = body_limit(c);
	if (!st) st = vk_head_check_content(&h, c->body.max, &e);
	if (!st && !vk_reap_to(&c->reap, VK_REAP_BODY, r->start_us / 1000)) return MHD_NO;
	if (st) return refuse_head(c, &h, &e);
	uint64_t length = 0;
	if (h.lengths) vk_head_length(h.length, &length);
	if (length) vk_buf_reserve(&c->body, length < BODY_AHEAD_MAX ? length : BODY_AHEAD_MAX);
	c->at = VK_AT_BODY;
	return MHD_YES;
}

/* ---- the body, the handler ---- */

static enum MHD_Result body_more(struct vk_conn *c, const char *data, size_t n)
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
	vk_http_refuse(c, &e);
	c->discarded = c->body.n + n;
	vk_buf_free(&c->body);
	c->body.failed = false;
	c->at = VK_AT_DISCARD;
	return MHD_YES;
}

static enum MHD_Result discard_more(struct vk_conn *c, size_t n)
{
	c->discarded += n;
	return c->discarded > DISCARD_FACTOR * (uint64_t)c->http->limits.body_max ? MHD_NO : MHD_YES;
}

/* Either the end sees this handler at work and waits for it, or the handler sees the end: each stores before it loads. */
static bool begin_handling(struct vk_door *d)
{
	atomic_store(&d->handling, true);
	if (!atomic_load(&d->http->closing)) return true;
	atomic_store(&d->handling, false);
	return false;
}

static enum MHD_Result handle(struct vk_conn *c)
{
	struct vk_http *h = c->http;
	struct vk_error e;
	c->req.body = vk_buf_bytes(&c->body);
	if (!vk_reap_to(&c->reap, VK_REAP_BUSY, 0)) return MHD_NO;
	if (!begin_handling(c->door)) {
		vk_fail(&e, VK_E_UNAVAILABLE, "The server is shutting down.");
		vk_http_refuse(c, &e);
		return vk_http_reply(c);
	}
	h->opts.handler(h->opts.app, &c->req);
	atomic_store_explicit(&c->door->handling, false, memory_order_release);
	/* Parked: not ours any more. c->at is only ever written on this thread. */
	return c->at == VK_AT_PARKED ? MHD_YES : vk_http_reply(c);
}

/* ---- libmicrohttpd's callbacks for a request, after its line ---- */

enum MHD_Result vk_http_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
				   const char *method, const char *version, const char *data,
				   size_t *data_n, void **context)
{
	(void)cls, (void)mhd, (void)url;
	struct vk_conn *c = *context;
	if (!c) return MHD_NO;
	size_t n = *data_n;
	switch (c->at) {
	case VK_AT_HEAD: return head_done(c, method, version);
	case VK_AT_BODY:
		*data_n = 0;
		return n ? body_more(c, data, n) : handle(c);
	case VK_AT_DISCARD:
		*data_n = 0;
		return n ? discard_more(c, n) : vk_http_reply(c);
	case VK_AT_PARKED: return vk_http_reply(c);
	case VK_AT_REPLIED: *data_n = 0; return MHD_YES;
	}
	return MHD_NO;
}

void vk_http_on_completed(void *cls, struct MHD_Connection *mhd, void **context,
			  enum MHD_RequestTerminationCode why)
{
	(void)cls, (void)mhd, (void)why;
	struct vk_conn *c = *context;
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
	const struct vk_conn *c = vk_conn_of(req);
	const char *value = NULL;
	size_t n = 0;
	if (MHD_lookup_connection_value_n(c->mhd, MHD_HEADER_KIND, name, strlen(name), &value, &n) != MHD_YES)
		return (struct vk_bytes){NULL, 0};
	return (struct vk_bytes){value ? value : "", n};
}
