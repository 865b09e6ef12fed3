/*
 * What is sent: a filled struct vk_reply becomes libmicrohttpd's response. On the daemon's thread,
 * but for a parked request's compression, which is its finisher's: gzip of a large body takes longer
 * than a handler may.
 *
 * Ownership: the reply's body, or its reader, is moved into the response; a stream outlives the
 * request. What cannot be sent as it was meant (no status, a body over its maximum) is a 500 here,
 * so that every request that reached us has an answer. The reaper is told when a reader at 1 KB/s
 * would be done: who is slower is cut off.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/gzip.h"
#include "server/http_internal.h"

#define GZIP_MIN 1024
#define GZIP_INLINE_MAX ((size_t)64 << 10) /* on a daemon's thread: about half a millisecond */
#define READ_BLOCK ((size_t)64 << 10)

void vk_http_refuse(struct vk_conn *c, struct vk_error *e)
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

void vk_http_compress(struct vk_conn *c, size_t max)
{
	struct vk_reply *p = &c->req.reply;
	if (!p->may_gzip || p->read || p->body.n <= GZIP_MIN || p->body.n > max) return;
	p->may_gzip = false; /* once is enough */
	if (p->headers + 2 > VK_REPLY_HEADERS_MAX) return;
	vk_reply_header(&c->req, "Vary", "Accept-Encoding");
	if (c->gzip_ok && vk_gzip(&p->body)) vk_reply_header(&c->req, "Content-Encoding", "gzip");
}

struct stream { /* outlives the request: libmicrohttpd destroys a response after on_completed */
	struct vk_conn *c;
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

static struct MHD_Response *stream_response(struct vk_conn *c)
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

static struct MHD_Response *body_response(struct vk_conn *c)
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

static void add_headers(struct vk_conn *c, struct MHD_Response *r, bool has_body)
{
	struct vk_reply *p = &c->req.reply;
	const char *type = p->content_type ? p->content_type : "application/json";
	if (has_body || p->content_type) MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (!c->req.id[0]) vk_http_make_id(c);
	MHD_add_response_header(r, "x-request-id", c->req.id);
	for (unsigned i = 0; i < p->headers; i++)
		MHD_add_response_header(r, p->header[i].name, p->header[i].value);
	/* Not req->draining: that is from when the head came. */
	bool draining = atomic_load_explicit(&c->http->draining, memory_order_relaxed);
	if (p->close || draining) MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
}

/* What cannot be sent as it was meant becomes a 500. */
static void settle(struct vk_conn *c)
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
	vk_http_refuse(c, &e);
}

enum MHD_Result vk_http_reply(struct vk_conn *c)
{
	struct vk_reply *p = &c->req.reply;
	settle(c);
	vk_http_compress(c, GZIP_INLINE_MAX);
	bool has_body = p->read || p->body.n;
	struct MHD_Response *r = p->read ? stream_response(c) : body_response(c);
	if (!r) return MHD_NO;
	add_headers(c, r, has_body);
	/* A reader at 1 KB/s is slow, but reading. */
	bool alive = vk_reap_to(&c->reap, VK_REAP_SEND, vk_mono_ms() + c->bytes_out);
	enum MHD_Result ok = alive ? MHD_queue_response(c->mhd, (unsigned)p->status, r) : MHD_NO;
	MHD_destroy_response(r);
	c->at = VK_AT_REPLIED;
	c->replied = ok == MHD_YES;
	return ok;
}
