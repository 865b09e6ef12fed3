/* One loop: accept, read until a whole request is there, call the handler, send its reply, now or
 * when its time comes. A connection is in exactly one state; only READING parses.
 *
 *   READING --request--> WAITING (delay) --due--> SENDING --all sent--> READING or closed
 *                                                    `--hang, stall--> STUCK until the peer leaves
 *
 * Edge-triggered: every event reads until EAGAIN, so a peer that leaves is noticed in any state. */
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 128 * 1024, EVENTS_MAX = 256 };

enum state { READING, WAITING, SENDING, STUCK, DEAD };

struct conn {
	int fd;
	enum state state;
	struct fake_buf in;      /* unread bytes from `in_at` on */
	size_t in_at;
	bool continued;          /* "100 Continue" was sent for the request being read */
	bool last;               /* close after this reply */
	struct fake_buf out;
	size_t out_at, out_head; /* header bytes in out */
	struct fake_reply reply; /* how to send; its buffers are spent */
	int64_t due_ms;
	int heap_at;             /* -1: not in the heap */
	struct conn *prev, *next; /* all that live; `next` also chains the dead */
};

struct loop {
	const struct fake_http *server;
	int epoll_fd, listen_fd;
	struct conn **heap;      /* by due_ms, smallest first */
	int heap_n, heap_cap;
	struct conn *live, *dead;
};

int64_t fake_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- timers ---- */

static void heap_put(struct loop *l, int at, struct conn *c)
{
	l->heap[at] = c;
	c->heap_at = at;
}

static void heap_sift(struct loop *l, int at)
{
	struct conn *c = l->heap[at];
	while (at && l->heap[(at - 1) / 2]->due_ms > c->due_ms) {
		heap_put(l, at, l->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	for (;;) {
		int kid = 2 * at + 1;
		if (kid + 1 < l->heap_n && l->heap[kid + 1]->due_ms < l->heap[kid]->due_ms)
			kid++;
		if (kid >= l->heap_n || l->heap[kid]->due_ms >= c->due_ms)
			break;
		heap_put(l, at, l->heap[kid]);
		at = kid;
	}
	heap_put(l, at, c);
}

static void timer_set(struct loop *l, struct conn *c, long in_ms)
{
	c->due_ms = fake_now_ms() + in_ms;
	if (l->heap_n == l->heap_cap) {
		l->heap_cap = l->heap_cap ? l->heap_cap * 2 : 256;
		l->heap = realloc(l->heap, (size_t)l->heap_cap * sizeof *l->heap);
		if (!l->heap)
			abort();
	}
	heap_put(l, l->heap_n++, c);
	heap_sift(l, l->heap_n - 1);
}

static void timer_clear(struct loop *l, struct conn *c)
{
	if (c->heap_at < 0)
		return;
	int at = c->heap_at;
	c->heap_at = -1;
	struct conn *last = l->heap[--l->heap_n];
	if (last == c)
		return;
	heap_put(l, at, last);
	heap_sift(l, at);
}

/* ---- connections ---- */

static void conn_finish(struct loop *l, struct conn *c, bool sent)
{
	if (c->reply.counted)
		l->server->finished(l->server->ctx, sent);
	c->reply.counted = false;
}

/* Freed after the batch of events: a later event of the batch may still name it. */
static void conn_close(struct loop *l, struct conn *c)
{
	if (c->state == DEAD)
		return;
	timer_clear(l, c);
	conn_finish(l, c, false);
	close(c->fd);
	c->state = DEAD;
	*(c->prev ? &c->prev->next : &l->live) = c->next;
	if (c->next)
		c->next->prev = c->prev;
	c->next = l->dead;
	l->dead = c;
}

static void conn_reset(struct loop *l, struct conn *c)
{
	struct linger hard = {.l_onoff = 1, .l_linger = 0};
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
	conn_close(l, c);
}

static void reap(struct loop *l)
{
	while (l->dead) {
		struct conn *c = l->dead;
		l->dead = c->next;
		fake_buf_free(&c->in);
		fake_buf_free(&c->out);
		free(c);
	}
}

static void accept_all(struct loop *l)
{
	for (;;) {
		int fd = accept4(l->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		int one = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		struct conn *c = calloc(1, sizeof *c);
		if (!c)
			abort();
		c->fd = fd;
		c->heap_at = -1;
		c->next = l->live;
		if (l->live)
			l->live->prev = c;
		l->live = c;
		struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
		epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e);
		l->server->connected(l->server->ctx);
	}
}

/* ---- reading ---- */

const char *fake_request_header(const struct fake_request *req, const char *lower_name)
{
	for (int i = 0; i < req->header_count; i++)
		if (!strcmp(req->headers[i].name, lower_name))
			return req->headers[i].value;
	return NULL;
}

static char *trim(char *s)
{
	while (*s == ' ' || *s == '\t')
		s++;
	char *end = s + strlen(s);
	while (end > s && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = 0;
	return s;
}

/* Cuts `head` (0-terminated, without the last blank line) into the request's fields. */
static bool head_read(char *head, struct fake_request *req)
{
	char *rest = NULL, *line = strtok_r(head, "\r\n", &rest), *word = NULL;
	if (!line)
		return false;
	req->method = strtok_r(line, " ", &word);
	req->path = strtok_r(NULL, " ", &word);
	char *version = strtok_r(NULL, " ", &word);
	if (!req->path || !version || strncmp(version, "HTTP/1.", 7))
		return false;
	char *mark = strchr(req->path, '?');
	req->query = mark ? mark + 1 : "";
	if (mark)
		*mark = 0;
	while ((line = strtok_r(NULL, "\r\n", &rest))) {
		char *colon = strchr(line, ':');
		if (!colon || req->header_count == FAKE_HEADERS_MAX)
			return false;
		*colon = 0;
		for (char *p = line; *p; p++)
			if (*p >= 'A' && *p <= 'Z')
				*p = (char)(*p + 32);
		req->headers[req->header_count++] = (struct fake_header){line, trim(colon + 1)};
	}
	return true;
}

/* Decodes chunks in place. 1: whole, *used bytes of input; 0: more is needed; -1: broken. */
static int chunks_read(char *at, size_t n, size_t *body_n, size_t *used)
{
	char *to = at;
	size_t i = 0, out = 0;
	/* First pass without writing: decoding in place twice would garble what came before. */
	for (int pass = 0; pass < 2; pass++) {
		i = out = 0;
		for (;;) {
			char *eol = memmem(at + i, n - i, "\r\n", 2);
			if (!eol)
				return n - i > 64 ? -1 : 0;
			char *end;
			unsigned long long size = strtoull(at + i, &end, 16);
			if (end == at + i || size > (1u << 30))
				return -1;
			i = (size_t)(eol - at) + 2;
			if (!size)
				break;
			if (n - i < size + 2)
				return 0;
			if (pass)
				memmove(to + out, at + i, size);
			out += size;
			i += size;
			if (memcmp(at + i, "\r\n", 2))
				return -1;
			i += 2;
		}
		for (;;) { /* trailers */
			char *eol = memmem(at + i, n - i, "\r\n", 2);
			if (!eol)
				return 0;
			bool blank = eol == at + i;
			i = (size_t)(eol - at) + 2;
			if (blank)
				break;
		}
	}
	*body_n = out;
	*used = i;
	return 1;
}

/* 1: a whole request, *used its bytes; 0: more is needed; -1: broken. The strings live in `head`
 * (a copy) and in the connection's input buffer. */
static int request_read(struct loop *l, struct conn *c, struct fake_buf *head, struct fake_request *req,
	size_t *used)
{
	char *at = c->in.at + c->in_at;
	size_t n = c->in.len - c->in_at;
	char *blank = n ? memmem(at, n, "\r\n\r\n", 4) : NULL;
	if (!blank)
		return n > HEAD_MAX ? -1 : 0;
	size_t head_n = (size_t)(blank - at) + 4;
	head->len = 0;
	fake_buf_add(head, at, head_n);
	fake_buf_add(head, "", 1);
	if (!head_read(head->at, req))
		return -1;
	const char *expect = fake_request_header(req, "expect");
	if (expect && !strcasecmp(expect, "100-continue") && !c->continued) {
		static const char go[] = "HTTP/1.1 100 Continue\r\n\r\n";
		c->continued = true;
		if (n == head_n && send(c->fd, go, sizeof go - 1, MSG_NOSIGNAL) < 0)
			return -1;
	}
	const char *coding = fake_request_header(req, "transfer-encoding");
	const char *length = fake_request_header(req, "content-length");
	req->body = at + head_n;
	if (coding && !strcasecmp(coding, "chunked")) {
		size_t body_used;
		int got = n > l->server->body_max ? -1
			: chunks_read(req->body, n - head_n, &req->body_n, &body_used);
		*used = got > 0 ? head_n + body_used : 0;
		return got;
	}
	req->body_n = length ? strtoull(length, NULL, 10) : 0;
	if (req->body_n > l->server->body_max)
		return -1;
	*used = head_n + req->body_n;
	return n >= *used;
}

/* False when the peer is gone. */
static bool read_all(struct loop *l, struct conn *c)
{
	for (;;) {
		char *to = fake_buf_room(&c->in, 16384);
		size_t room = c->in.cap - c->in.len - 1; /* one byte is kept: strtoull may look past */
		ssize_t got = recv(c->fd, to, room, 0);
		if (got > 0) {
			c->in.len += (size_t)got;
			to[got] = 0;
			if (c->in.len - c->in_at > l->server->body_max + HEAD_MAX)
				return false;
			if ((size_t)got < room)
				return true;
		} else if (!got) {
			return false;
		} else if (errno != EINTR) {
			return errno == EAGAIN;
		}
	}
}

/* ---- sending ---- */

static const char *reason_of(int status)
{
	static const struct { int status; const char *reason; } reasons[] = {
		{200, "OK"}, {301, "Moved Permanently"}, {302, "Found"}, {307, "Temporary Redirect"},
		{308, "Permanent Redirect"}, {400, "Bad Request"}, {401, "Unauthorized"},
		{402, "Payment Required"}, {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"},
		{413, "Payload Too Large"}, {422, "Unprocessable Entity"}, {429, "Too Many Requests"},
		{500, "Internal Server Error"}, {502, "Bad Gateway"}, {503, "Service Unavailable"},
		{504, "Gateway Timeout"},
	};
	for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Status";
}

static void reply_render(struct conn *c)
{
	struct fake_reply *r = &c->reply;
	c->out.len = c->out_at = 0;
	fake_buf_fmt(&c->out, "HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %zu\r\n", r->status,
		reason_of(r->status), r->type ? r->type : "application/json", r->body.len + r->huge_bytes);
	fake_buf_add(&c->out, r->headers.at, r->headers.len);
	if (c->last && !r->close_idle)
		fake_buf_str(&c->out, "connection: close\r\n");
	fake_buf_str(&c->out, "\r\n");
	c->out_head = c->out.len;
	if (r->cut_at && r->cut_at != SIZE_MAX && r->cut_at < r->body.len)
		r->body.len = r->cut_at;
	if (r->cut_at != SIZE_MAX)
		fake_buf_add(&c->out, r->body.at, r->body.len);
	if (r->cut_at)
		c->last = true;
	if (r->stall_headers)
		c->out.len = c->out_head / 2;
	fake_buf_free(&r->headers);
	fake_buf_free(&r->body);
}


static void reply_sent(struct loop *l, struct conn *c)
{
	if (c->reply.stall_headers) {
		c->state = STUCK;
		return;
	}
	conn_finish(l, c, true);
	if (c->last || c->reply.close_idle) {
		shutdown(c->fd, SHUT_WR);
		conn_close(l, c);
		return;
	}
	c->state = READING;
}

/* What may go out now: all of it, or up to the next drip. */
static size_t send_limit(const struct conn *c)
{
	size_t left = c->out.len - c->out_at;
	if (!c->reply.drip_bytes)
		return left;
	if (c->out_at < c->out_head)
		return c->out_head - c->out_at;
	return left < c->reply.drip_bytes ? left : c->reply.drip_bytes;
}

static void reply_send(struct loop *l, struct conn *c)
{
	while (c->state == SENDING) {
		if (c->out_at == c->out.len && c->reply.huge_bytes) {
			size_t n = c->reply.huge_bytes < 65536 ? c->reply.huge_bytes : 65536;
			c->out.len = c->out_at = 0;
			memset(fake_buf_room(&c->out, n), ' ', n);
			c->out.len = n;
			c->out_head = 0;
			c->reply.huge_bytes -= n;
		}
		if (c->out_at == c->out.len) {
			reply_sent(l, c);
			return;
		}
		size_t want = send_limit(c);
		ssize_t sent = send(c->fd, c->out.at + c->out_at, want, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0) {
			if (errno != EAGAIN)
				conn_close(l, c);
			return; /* the next writable edge goes on */
		}
		c->out_at += (size_t)sent;
		if (c->reply.drip_bytes && c->out_at < c->out.len) {
			c->state = WAITING;
			timer_set(l, c, c->reply.drip_ms);
		}
	}
}

static void reply_begin(struct loop *l, struct conn *c)
{
	if (c->reply.rst) {
		conn_reset(l, c);
	} else if (c->reply.hang) {
		c->state = STUCK;
	} else {
		c->state = SENDING;
		reply_send(l, c);
	}
}

/* ---- the loop ---- */

static void request_answer(struct loop *l, struct conn *c, const struct fake_request *req)
{
	c->reply = (struct fake_reply){.status = 200};
	l->server->handle(l->server->ctx, req, &c->reply);
	const char *keep = fake_request_header(req, "connection");
	c->last = keep && !strcasecmp(keep, "close");
	c->continued = false;
	long delay_ms = c->reply.delay_ms;
	reply_render(c);
	if (delay_ms > 0) {
		c->state = WAITING;
		timer_set(l, c, delay_ms);
	} else {
		reply_begin(l, c);
	}
}

static void conn_step(struct loop *l, struct conn *c)
{
	static struct fake_buf head; /* one thread */
	while (c->state == READING) {
		struct fake_request req = {0};
		size_t used = 0;
		int got = request_read(l, c, &head, &req, &used);
		if (got < 0) {
			static const char no[] = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n"
						 "connection: close\r\n\r\n";
			(void)!send(c->fd, no, sizeof no - 1, MSG_NOSIGNAL);
			conn_close(l, c);
			return;
		}
		if (!got)
			return;
		request_answer(l, c, &req);
		c->in_at += used;
		if (c->in_at == c->in.len)
			c->in.len = c->in_at = 0;
	}
}

static void conn_event(struct loop *l, struct conn *c, uint32_t events)
{
	if (c->state == DEAD)
		return;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR) && !read_all(l, c)) {
		conn_close(l, c);
		return;
	}
	if (c->state == SENDING)
		reply_send(l, c);
	conn_step(l, c);
}

static void timers_run(struct loop *l)
{
	int64_t now = fake_now_ms();
	while (l->heap_n && l->heap[0]->due_ms <= now) {
		struct conn *c = l->heap[0];
		timer_clear(l, c);
		reply_begin(l, c);
		conn_step(l, c);
	}
}

int fake_http_listen(const char *host, int *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
	socklen_t n = sizeof to;
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (inet_pton(AF_INET, host, &to.sin_addr) != 1 || bind(fd, (struct sockaddr *)&to, n)
		|| listen(fd, 4096) || getsockname(fd, (struct sockaddr *)&to, &n)) {
		fprintf(stderr, "fake_provider: cannot listen on %s:%d: %s\n", host, *port, strerror(errno));
		close(fd);
		return -1;
	}
	*port = ntohs(to.sin_port);
	return fd;
}

void fake_http_run(const struct fake_http *server, int listen_fd, volatile int *stop)
{
	struct loop l = {.server = server, .listen_fd = listen_fd, .epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
	struct epoll_event accepting = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS_MAX];
	epoll_ctl(l.epoll_fd, EPOLL_CTL_ADD, listen_fd, &accepting);
	while (!*stop) {
		int wait_ms = -1;
		if (l.heap_n) {
			int64_t left = l.heap[0]->due_ms - fake_now_ms();
			wait_ms = left > 0 ? (int)left : 0;
		}
		int n = epoll_wait(l.epoll_fd, events, EVENTS_MAX, wait_ms);
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				conn_event(&l, events[i].data.ptr, events[i].events);
			else
				accept_all(&l);
		}
		timers_run(&l);
		reap(&l);
	}
	while (l.live)
		conn_close(&l, l.live);
	reap(&l);
	free(l.heap);
	close(l.epoll_fd);
}
