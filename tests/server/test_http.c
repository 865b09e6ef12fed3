/*
 * Goal: every promise in the head of server/http.h, on the wire.
 * Method: a server on a free port with a small handler (paths say what it does), and raw sockets
 * that send what no client library would. Times are checked from both sides: not before the limit,
 * not long after it (long: sanitizers and a busy machine).
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/hash.h"
#include "server/gzip.h"
#include "server/http.h"
#include "server/request.h"
#include "tests/server/client.h"

#define LATE_MS 3000 /* what a loaded machine may add */
#define WORKERS 2

struct app;
struct op { /* a parked request's state, in its arena */
	struct op *next, *prev;
	struct vk_req *req;
	uint64_t ready_us;
};

struct app {
	struct vk_http *http;
	char address[64]; /* outlives the server */
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct op waiting; /* list head */
	bool stop;
	pthread_t worker[WORKERS];
	atomic_int gone[3];
	_Atomic uint64_t gone_ms;
	atomic_int handled, done, freed;
	char big[8413], text[4000];
};

static void op_unlink(struct op *op)
{
	op->prev->next = op->next;
	op->next->prev = op->prev;
	op->next = op->prev = NULL;
}

/* Whoever unlinks the op finishes the request: here the worker, below gone(). */
static void *work(void *arg)
{
	struct app *app = arg;
	pthread_mutex_lock(&app->lock);
	while (!app->stop) {
		struct op *op = app->waiting.next;
		uint64_t now = vk_mono_us();
		while (op != &app->waiting && op->ready_us > now) op = op->next;
		if (op == &app->waiting) {
			uint64_t until = vk_mono_us() + 100;
			struct timespec t = {(time_t)(until / 1000000), (long)(until % 1000000) * 1000};
			if (app->waiting.next == &app->waiting) pthread_cond_wait(&app->more, &app->lock);
			else pthread_cond_timedwait(&app->more, &app->lock, &t);
			continue;
		}
		op_unlink(op);
		pthread_mutex_unlock(&app->lock);
		op->req->reply.status = 200;
		vk_buf_puts(&op->req->reply.body, "worked");
		vk_req_finish(op->req);
		pthread_mutex_lock(&app->lock);
	}
	pthread_mutex_unlock(&app->lock);
	return NULL;
}

static struct app *the_app; /* gone() has no argument for it; one server a test */

static void gone(struct vk_req *req, enum vk_gone why)
{
	struct app *app = the_app;
	struct op *op = req->user;
	pthread_mutex_lock(&app->lock);
	bool mine = op->next != NULL;
	if (mine) op_unlink(op);
	pthread_mutex_unlock(&app->lock);
	if (!mine) return;
	atomic_store(&app->gone_ms, vk_mono_ms());
	atomic_fetch_add(&app->gone[why], 1);
	req->reply.status = 503;
	vk_buf_printf(&req->reply.body, "gone %d", why);
	vk_req_finish(req);
}

static uint64_t number(struct vk_req *req, const char *name, uint64_t otherwise)
{
	struct vk_bytes v = vk_req_query(req, name);
	return v.n ? strtoull(v.p, NULL, 10) : otherwise;
}

/* Handed to the workers first, parked after that, as flows do. ready=: us from now. */
static void park(struct app *app, struct vk_req *req, vk_gone_fn *on_gone)
{
	uint64_t deadline_ms = vk_mono_ms() + number(req, "deadline", 10000);
	struct op *op = vk_arena_calloc(&req->arena, 1, sizeof *op);
	op->req = req;
	op->ready_us = vk_mono_us() + number(req, "ready", UINT32_MAX);
	req->user = op;
	pthread_mutex_lock(&app->lock);
	op->next = app->waiting.next;
	op->prev = &app->waiting;
	op->next->prev = op->prev->next = op;
	pthread_cond_signal(&app->more);
	pthread_mutex_unlock(&app->lock);
	vk_req_park(req, deadline_ms, on_gone);
}

/* Of an operation that ends in its own time: the worker finishes it. */
static void not_hurried(struct vk_req *req, enum vk_gone why)
{
	(void)req, (void)why;
}

static int64_t read_stream(void *arg, uint64_t offset, char *dst, size_t n)
{
	(void)arg;
	const size_t total = 20000;
	if (offset >= total) return 0;
	if (n > total - offset) n = total - offset;
	if (n > 777) n = 777;
	for (size_t i = 0; i < n; i++) dst[i] = (char)('a' + (offset + i) % 26);
	return (int64_t)n;
}

static void free_stream(void *arg)
{
	atomic_fetch_add(&((struct app *)arg)->freed, 1);
}

static void show_query(struct vk_req *req)
{
	struct vk_bytes q = vk_req_query(req, "q");
	vk_buf_printf(&req->reply.body, "%.*s|%.*s|", (int)req->path.n, req->path.p, (int)req->query.n, req->query.p);
	vk_buf_put(&req->reply.body, q.p, q.n);
}

static void handle(void *arg, struct vk_req *req)
{
	struct app *app = arg;
	atomic_fetch_add(&app->handled, 1);
	if (vk_bytes_is(req->path, "/park")) {
		park(app, req, gone);
		return;
	}
	if (vk_bytes_is(req->path, "/late")) {
		park(app, req, not_hurried);
		return;
	}
	if (vk_bytes_is(req->path, "/none")) return;
	req->reply.status = 200;
	if (vk_bytes_is(req->path, "/early")) {
		vk_buf_puts(&req->reply.body, "early");
		vk_req_finish(req);
		vk_req_park(req, vk_mono_ms() + 10000, gone);
	} else if (vk_bytes_is(req->path, "/big")) {
		vk_buf_put(&req->reply.body, app->big, sizeof app->big);
	} else if (vk_bytes_is(req->path, "/text")) {
		req->reply.may_gzip = true;
		vk_buf_put(&req->reply.body, app->text, sizeof app->text);
	} else if (vk_bytes_is(req->path, "/stream")) {
		req->reply.read = read_stream;
		req->reply.read_free = free_stream;
		req->reply.read_arg = app;
	} else if (vk_bytes_is(req->path, "/empty")) {
		req->reply.status = 204;
	} else if (vk_bytes_is(req->path, "/query")) {
		show_query(req);
	} else if (vk_bytes_is(req->path, "/header")) {
		struct vk_bytes v = vk_req_header(req, "x-test");
		vk_buf_put(&req->reply.body, v.p, v.n);
		vk_reply_headerf(req, "x-made", "%d-%s", 7, "up");
		req->reply.content_type = "text/plain";
	} else if (vk_bytes_is(req->path, "/drain")) {
		vk_buf_puts(&req->reply.body, req->draining ? "draining" : "open");
	} else {
		vk_buf_put(&req->reply.body, req->body.p, req->body.n);
	}
}

static void on_done(void *arg, const struct vk_req *req, int status, uint64_t us, uint64_t bytes)
{
	(void)req, (void)us, (void)bytes;
	struct app *app = arg;
	assert_true(status >= 200);
	atomic_fetch_add(&app->done, 1);
}

static struct app *start_with(struct vk_http_limits limits, unsigned threads, const char *const *hosts)
{
	static const char *const listen[] = {"127.0.0.1:0"};
	struct app *app = calloc(1, sizeof *app);
	assert_non_null(app);
	the_app = app;
	memset(app->big, 'b', sizeof app->big);
	for (size_t i = 0; i < sizeof app->text; i++) app->text[i] = (char)('a' + i % 7);
	app->waiting.next = app->waiting.prev = &app->waiting;
	pthread_mutex_init(&app->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&app->more, &attr);
	for (int i = 0; i < WORKERS; i++) assert_int_equal(pthread_create(&app->worker[i], NULL, work, app), 0);
	struct vk_http_opts opts = {.listen = listen, .listen_n = 1, .threads = threads, .limits = limits,
				    .hosts = hosts, .handler = handle, .app = app, .done = on_done};
	struct vk_error err;
	assert_int_equal(vk_http_start(&opts, &app->http, &err), VK_OK);
	snprintf(app->address, sizeof app->address, "%s", vk_http_address(app->http, 0));
	return app;
}

static struct app *start(struct vk_http_limits limits)
{
	return start_with(limits, 0, NULL);
}

static void stop(struct app *app)
{
	vk_http_stop(app->http); /* NULL when the test has stopped it */
	pthread_mutex_lock(&app->lock);
	app->stop = true;
	pthread_cond_broadcast(&app->more);
	pthread_mutex_unlock(&app->lock);
	for (int i = 0; i < WORKERS; i++) pthread_join(app->worker[i], NULL);
	free(app);
}

#define HOST "Host: localhost\r\n"
#define GET(path) "GET " path " HTTP/1.1\r\n" HOST "\r\n"

/* Sends one request on a connection of its own and expects this status. */
static void expect(struct app *app, const char *request, int status)
{
	struct answer a;
	int fd = dial(app->address);
	assert_true(fd >= 0);
	ask(fd, &a, request);
	if (a.status != status) fail_msg("want %d, got %d for:\n%.300s", status, a.status, request);
	close(fd);
}

/* ---- plain requests ---- */

static void test_http_keep_alive_serves_many_on_one_connection(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	struct answer a;
	int fd = dial(app->address);
	for (int i = 0; i < 50; i++) {
		ask(fd, &a, GET("/big"));
		assert_int_equal(a.status, 200);
		assert_int_equal(a.body_n, sizeof app->big);
		assert_string_equal(header_of(&a, "Content-Type"), "application/json");
		assert_int_equal(strlen(header_of(&a, "x-request-id")), 32);
		assert_null(header_of(&a, "Server"));
	}
	struct vk_http_stats s;
	vk_http_stats(app->http, &s);
	assert_int_equal(s.accepted, 1);
	assert_int_equal(s.connections, 1);
	close(fd);
	stop(app);
}

static void test_http_body_arrives_whole(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	struct answer a;
	int fd = dial(app->address);
	ask(fd, &a, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 11\r\n\r\nhello world");
	assert_memory_equal(a.body, "hello world", 11);
	ask(fd, &a, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
		    "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
	assert_int_equal(a.body_n, 11);
	assert_memory_equal(a.body, "hello world", 11);
	ask(fd, &a, "DELETE /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nhi");
	assert_memory_equal(a.body, "hi", 2);
	/* In pieces, with pauses, over several reads. */
	puts_to(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3000\r\n\r\n");
	char piece[1000];
	for (int i = 0; i < 3; i++) {
		memset(piece, '0' + i, sizeof piece);
		usleep(20000);
		put(fd, piece, sizeof piece);
	}
	read_answer(fd, &a, 0, 5000);
	assert_int_equal(a.body_n, 3000);
	assert_int_equal(a.body[0], '0');
	assert_int_equal(a.body[2999], '2');
	close(fd);
	stop(app);
}

static void test_http_pipelined_requests_are_answered_in_order(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	struct answer a;
	int fd = dial(app->address);
	puts_to(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\none"
		    "GET /park?ready=20000 HTTP/1.1\r\n" HOST "\r\n"
		    "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nthree" GET("/big"));
	static const char *const want[] = {"one", "worked", "three"};
	for (int i = 0; i < 3; i++) {
		read_answer(fd, &a, 0, 5000);
		assert_int_equal(a.body_n, strlen(want[i]));
		assert_memory_equal(a.body, want[i], a.body_n);
	}
	read_answer(fd, &a, 0, 5000);
	assert_int_equal(a.body_n, sizeof app->big);
	close(fd);
	stop(app);
}

static void test_http_head_is_get_without_body(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	struct answer a;
	int fd = dial(app->address);
	ask(fd, &a, "HEAD /big HTTP/1.1\r\n" HOST "\r\n");
	assert_int_equal(a.status, 200);
	assert_string_equal(header_of(&a, "Content-Length"), "8413");
	ask(fd, &a, GET("/big")); /* nothing of a body came in between */
	assert_int_equal(a.status, 200);
	ask(fd, &a, GET("/empty"));
	assert_int_equal(a.status, 204);
	assert_null(header_of(&a, "Content-Type"));
	close(fd);
	stop(app);
}

static void test_http_path_and_query_come_raw(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	struct answer a;
	int fd = dial(app->address);
	ask(fd, &a, GET("/query?x=1&q=a%20b%2Bc+d&y"));
	assert_int_equal(a.status, 200);
	static const char want[] = "/query|x=1&q=a%20b%2Bc+d&y|a b+c d";
	assert_int_equal(a.body_n, strlen(want));
	assert_memory_equal(a.body, want, a.body_n);
	ask(fd, &a, "GET /header HTTP/1.1\r\n" HOST "X-TEST: Some value\r\nx-request-id: my.id-1\r\n\r\n");
	assert_memory_equal(a.body, "Some value", 10);
	assert_string_equal(header_of(&a, "x-made"), "7-up");
	assert_string_equal(header_of(&a, "Content-Type"), "text/plain");
	assert_string_equal(header_of(&a, "x-request-id"), "my.id-1");
	ask(fd, &a, "GET /header HTTP/1.1\r\n" HOST "x-request-id: no<script>\r\n\r\n");
	assert_int_equal(strlen(header_of(&a, "x-request-id")), 32);
	close(fd);
	stop(app);
}

static void test_http_stream_is_sent_and_freed(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	struct answer a;
	int fd = dial(app->address);
	puts_to(fd, "GET /stream HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n");
	read_answer(fd, &a, 0, 2000);
	assert_int_equal(a.status, 200);
	assert_string_equal(header_of(&a, "Transfer-Encoding"), "chunked");
	assert_true(a.body_n > 20000);
	close(fd);
	/* HEAD never reads it, a client that leaves never gets it; it is freed all the same. */
	fd = dial(app->address);
	ask(fd, &a, "HEAD /stream HTTP/1.1\r\n" HOST "\r\n");
	puts_to(fd, GET("/stream"));
	close(fd);
	stop(app);
}

static void test_http_gzip_only_when_allowed_and_wanted(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	struct answer a;
	int fd = dial(app->address);
	ask(fd, &a, "GET /text HTTP/1.1\r\n" HOST "Accept-Encoding: deflate, gzip;q=0.5\r\n\r\n");
	assert_string_equal(header_of(&a, "Content-Encoding"), "gzip");
	assert_true(a.body_n < 1000);
	assert_memory_equal(a.body, "\x1f\x8b", 2);
	ask(fd, &a, "GET /text HTTP/1.1\r\n" HOST "Accept-Encoding: gzip;q=0, br\r\n\r\n");
	assert_null(header_of(&a, "Content-Encoding"));
	assert_string_equal(header_of(&a, "Vary"), "Accept-Encoding");
	assert_int_equal(a.body_n, sizeof app->text);
	ask(fd, &a, "GET /big HTTP/1.1\r\n" HOST "Accept-Encoding: gzip\r\n\r\n");
	assert_null(header_of(&a, "Content-Encoding"));
	assert_true(vk_gzip_accepted(VK_LIT("*")) && vk_gzip_accepted(VK_LIT("br,x-gzip")));
	assert_false(vk_gzip_accepted(VK_LIT("*;q=0")) || vk_gzip_accepted(VK_LIT("gzipped")));
	close(fd);
	stop(app);
}

static void test_http_reply_never_made_is_500(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	expect(app, GET("/none"), 500);
	stop(app);
}

/* ---- what no honest client sends ---- */

static void test_http_two_ends_of_a_request_are_refused(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	static const char *const bad[] = {
		"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
		"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3, 3\r\n\r\nabc",
		"POST /echo HTTP/1.1\r\n" HOST "Content-Length: +3\r\n\r\nabc",
		"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\nabc",
		"POST /echo HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /echo HTTP/1.1\r\n" HOST "Content-Length : 3\r\n\r\nabc",
		"GET /echo HTTP/1.1\r\n" HOST "Host: localhost\r\n\r\n",
		"GET /echo HTTP/1.1\r\n\r\n",
		"GET /echo HTTP/1.1\r\n" HOST "x-a: a\001b\r\n\r\n",
		"GET echo HTTP/1.1\r\n" HOST "\r\n",
		"GET http://localhost/echo HTTP/1.1\r\n" HOST "\r\n",
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct answer a;
		int fd = dial(app->address);
		/* A second request behind it must never be answered: that is the smuggled one. */
		puts_to(fd, bad[i]);
		puts_to(fd, GET("/big"));
		read_answer(fd, &a, 0, 5000);
		if (a.status != 400 && a.status != 0) fail_msg("case %zu: got %d", i, a.status);
		if (a.status) assert_true(a.closed);
		assert_true(is_ended(fd, LATE_MS));
		close(fd);
	}
	assert_int_equal(app->handled, 0);
	expect(app, GET("/big"), 200);
	stop(app);
}

/* libmicrohttpd answers these itself or hangs up; either way the server lives on. */
static void test_http_garbage_does_not_stop_the_server(void **state)
{
	(void)state;
	/* A FIN that comes with the last bytes is not always seen (one epoll edge for both): then the
	 * reaper ends the connection, so its limits are what this test waits for. */
	struct app *app = start((struct vk_http_limits){
		.head_timeout_ms = 300, .body_timeout_ms = 300, .idle_timeout_ms = 300});
	static const struct {
		const char *p;
		size_t n;
	} bad[] = {
#define B(s) {s, sizeof s - 1}
		B("\r\n\r\n\r\n"), B("GET\r\n\r\n"), B("GET  \r\n\r\n"), B(" / HTTP/1.1\r\n\r\n"), B("\0\0\0\0\r\n\r\n"),
		B("GET /a\0b HTTP/1.1\r\n" HOST "\r\n"), B("GET / HTTP/9.9\r\n" HOST "\r\n"),
		B("GET / HTTP/1.1\r\n" HOST "a\0b: c\r\n\r\n"), B("GET / HTTP/1.1\r\n" HOST "novalue\r\n\r\n"),
		B("GET / HTTP/1.1\r\n" HOST ": empty\r\n\r\n"), B("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		B("POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
		B("POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
		B("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\n"),
		B("GET /%zz%00?%%=%%&&== HTTP/1.1\r\n" HOST "\r\n"), B("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
		B("GET /\xff\xfe\x80 HTTP/1.1\r\n" HOST "\r\n"), B("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"),
#undef B
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		int fd = dial(app->address);
		put(fd, bad[i].p, bad[i].n);
		shutdown(fd, SHUT_WR);
		assert_true(is_ended(fd, LATE_MS + 500));
		close(fd);
	}
	/* And bytes of no design: seed printed, so that a failure replays. */
	uint64_t seed = 20261122;
	print_message("seed %llu\n", (unsigned long long)seed);
	for (int round = 0; round < 40; round++) {
		char noise[300] = "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 20\r\n\r\n01234567890123456789";
		size_t n = strlen(noise);
		for (int k = 0; k < 4; k++) noise[vk_rng(&seed) % n] = (char)vk_rng(&seed);
		int fd = dial(app->address);
		put(fd, noise, n);
		shutdown(fd, SHUT_WR);
		assert_true(is_ended(fd, LATE_MS + 500));
		close(fd);
	}
	expect(app, GET("/big"), 200);
	stop(app);
}

static void test_http_host_must_be_ours_on_loopback(void **state)
{
	(void)state;
	static const char *const hosts[] = {"vectors.example", NULL};
	struct app *app = start_with((struct vk_http_limits){0}, 0, hosts);
	expect(app, "GET /big HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403);
	expect(app, "GET /big HTTP/1.1\r\nHost: localhost.evil.example:80\r\n\r\n", 403);
	expect(app, "GET /big HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", 403);
	expect(app, "GET /big HTTP/1.1\r\nHost:\r\n\r\n", 403);
	expect(app, "GET /big HTTP/1.1\r\nHost: LocalHost:99\r\n\r\n", 200);
	expect(app, "GET /big HTTP/1.1\r\nHost: 127.0.0.1:8325\r\n\r\n", 200);
	expect(app, "GET /big HTTP/1.1\r\nHost: [::1]:8325\r\n\r\n", 200);
	expect(app, "GET /big HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 200);
	expect(app, "GET /big HTTP/1.1\r\nHost: Vectors.Example.\r\n\r\n", 200);
	stop(app);
}

static void test_http_encoded_body_is_415(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	expect(app, "POST /echo HTTP/1.1\r\n" HOST "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 415);
	expect(app, "POST /echo HTTP/1.1\r\n" HOST "Content-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", 200);
	stop(app);
}

/* ---- sizes ---- */

static void test_http_expect_continue_is_answered_before_the_body(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){.body_max = 1000});
	struct answer a;
	int fd = dial(app->address);
	ask(fd, &a, "POST /echo HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
	assert_int_equal(a.status, 100);
	puts_to(fd, "abc");
	read_answer(fd, &a, 0, 5000);
	assert_int_equal(a.status, 200);
	/* Too large by its own word: 413 in the place of 100. */
	ask(fd, &a, "POST /echo HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n");
	assert_int_equal(a.status, 413);
	assert_true(a.closed);
	assert_true(is_ended(fd, LATE_MS));
	close(fd);
	stop(app);
}

static void test_http_body_too_large_is_413_that_the_client_can_read(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){.body_max = 100000});
	struct answer a;
	static char body[400001];
	memset(body, 'x', sizeof body);
	/* By Content-Length; the client sends it all before it looks. */
	int fd = dial(app->address);
	puts_to(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 300000\r\n\r\n");
	assert_int_equal(put(fd, body, 300000), 0);
	read_answer(fd, &a, 0, 5000);
	assert_int_equal(a.status, 413);
	close(fd);
	/* By count. */
	fd = dial(app->address);
	puts_to(fd, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 3; i++) {
		puts_to(fd, "c350\r\n"); /* 50000 */
		put(fd, body, 50000);
		puts_to(fd, "\r\n");
	}
	puts_to(fd, "0\r\n\r\n");
	read_answer(fd, &a, 0, 5000);
	assert_int_equal(a.status, 413);
	close(fd);
	/* Without end: cut off, not read for ever. */
	fd = dial(app->address);
	puts_to(fd, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n");
	int sent = 0;
	while (sent < 2000 && !puts_to(fd, "c350\r\n") && !put(fd, body, 50000) && !puts_to(fd, "\r\n")) sent++;
	assert_true(sent < 2000);
	close(fd);
	/* The limit itself passes. */
	fd = dial(app->address);
	puts_to(fd, "POST /none2 HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n");
	put(fd, body, 100000);
	read_answer(fd, &a, 0, 5000);
	assert_int_equal(a.status, 200);
	close(fd);
	assert_int_equal(app->handled, 1);
	stop(app);
}

static void test_http_head_too_large_is_refused(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){.header_max = 16384});
	static char head[40000];
	struct answer a;
	size_t n = (size_t)sprintf(head, "GET /big HTTP/1.1\r\n" HOST "x-long: ");
	memset(head + n, 'y', sizeof head - n - 5);
	memcpy(head + sizeof head - 5, "\r\n\r\n", 5);
	int fd = dial(app->address);
	put(fd, head, sizeof head - 1);
	read_answer(fd, &a, 0, 5000);
	print_message("oversize header: %d, %.*s\n", a.status, (int)strcspn(a.head, "\r"), a.head);
	assert_true(a.status == 431 || a.status == 413 || a.status == 0);
	assert_true(is_ended(fd, LATE_MS));
	close(fd);
	/* A line without end; and many small headers. */
	memset(head, '/', sizeof head);
	memcpy(head, "GET ", 4);
	fd = dial(app->address);
	put(fd, head, sizeof head);
	read_answer(fd, &a, 0, 5000);
	print_message("oversize request line: %d\n", a.status);
	assert_true(a.status == 414 || a.status == 431 || a.status == 413 || a.status == 0);
	assert_true(is_ended(fd, LATE_MS));
	close(fd);
	fd = dial(app->address);
	puts_to(fd, "GET /big HTTP/1.1\r\n" HOST);
	for (int i = 0; i < 4000 && !puts_to(fd, "a: b\r\n"); i++) {}
	puts_to(fd, "\r\n");
	read_answer(fd, &a, 0, 5000);
	print_message("too many headers: %d\n", a.status);
	assert_true(a.status != 200);
	close(fd);
	expect(app, GET("/big"), 200);
	stop(app);
}

/* ---- slow clients ---- */

/* Sends a byte every 20 ms until the server hangs up; how long that took. */
static uint64_t trickle(int fd, const char *text, int for_ms)
{
	uint64_t start_ms = vk_mono_ms();
	while (vk_mono_ms() - start_ms < (uint64_t)for_ms) {
		if (*text && put(fd, text++, 1)) break;
		struct pollfd set = {.fd = fd, .events = POLLIN | POLLRDHUP};
		if (poll(&set, 1, 20) == 1 && (set.revents & (POLLRDHUP | POLLHUP | POLLERR))) break;
	}
	return vk_mono_ms() - start_ms;
}

static void slow_client(struct vk_http_limits limits, const char *first, const char *slow, int status)
{
	struct app *app = start(limits);
	struct answer a;
	int fd = dial(app->address);
	if (first) puts_to(fd, first);
	uint64_t took = trickle(fd, slow, 400 + LATE_MS);
	if (took < 300 || took >= 400 + LATE_MS) fail_msg("hung up after %llu ms", (unsigned long long)took);
	read_answer(fd, &a, 0, 100);
	assert_int_equal(a.status, status);
	struct vk_http_stats s;
	vk_http_stats(app->http, &s);
	assert_int_equal(s.reaped, 1);
	assert_int_equal(app->handled, 0);
	close(fd);
	stop(app);
}

static char drops[8192]; /* a header that never ends */

static void test_http_trickled_head_is_408(void **state)
{
	(void)state;
	memset(drops, 'z', sizeof drops - 1);
	memcpy(drops, "GET / HTTP/1.1\r\nx: ", 19);
	slow_client((struct vk_http_limits){.head_timeout_ms = 400}, NULL, drops, 408);
}

static void test_http_trickled_request_line_is_408(void **state)
{
	(void)state;
	memset(drops, 'z', sizeof drops - 1);
	memcpy(drops, "GET /", 5);
	slow_client((struct vk_http_limits){.head_timeout_ms = 400}, NULL, drops, 408);
}

static void test_http_trickled_body_is_408(void **state)
{
	(void)state;
	memset(drops, 'z', sizeof drops - 1);
	slow_client((struct vk_http_limits){.body_timeout_ms = 400},
		    "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 8000\r\n\r\n", drops, 408);
}

static void test_http_idle_connection_is_closed(void **state)
{
	(void)state;
	slow_client((struct vk_http_limits){.idle_timeout_ms = 400}, NULL, "", 0);
}

/* The second request of a connection trickles: nobody reports its first byte to us. */
static void test_http_trickled_second_head_is_408(void **state)
{
	(void)state;
	memset(drops, 'z', sizeof drops - 1);
	memcpy(drops, "GET /", 5);
	struct app *app = start((struct vk_http_limits){.head_timeout_ms = 400});
	struct answer a;
	int fd = dial(app->address);
	ask(fd, &a, GET("/big"));
	usleep(200000); /* idle is fine for longer than a head may take */
	usleep(400000);
	ask(fd, &a, GET("/big"));
	assert_int_equal(a.status, 200);
	usleep(150000);
	uint64_t took = trickle(fd, drops, 400 + LATE_MS);
	assert_in_range(took, 300, 399 + LATE_MS);
	read_answer(fd, &a, 0, 100);
	assert_int_equal(a.status, 408);
	close(fd);
	stop(app);
}

static void test_http_slow_reader_is_cut_off(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){.body_timeout_ms = 400});
	int fd = dial(app->address), small = 4096;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
	/* Enough pipelined replies to fill both sockets; none is read. */
	for (int i = 0; i < 1500; i++)
		if (puts_to(fd, GET("/big"))) break;
	struct vk_http_stats s = {0};
	uint64_t until = vk_mono_ms() + 9000 + LATE_MS; /* 8413 bytes at 1 KB/s, and body_timeout */
	while (!s.reaped && vk_mono_ms() < until) {
		usleep(50000);
		vk_http_stats(app->http, &s);
	}
	assert_int_equal(s.reaped, 1);
	close(fd);
	stop(app);
}

/* ---- parking ---- */

static void test_http_parked_request_is_finished_by_another_thread(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	struct answer a;
	int fd = dial(app->address);
	for (int i = 0; i < 20; i++) {
		ask(fd, &a, GET("/park?ready=2000"));
		assert_int_equal(a.status, 200);
		assert_memory_equal(a.body, "worked", 6);
	}
	struct vk_http_stats s = {.parked = 1}; /* the last one's finisher may still be on its way out */
	for (int i = 0; i < LATE_MS && s.parked; i++, usleep(1000)) vk_http_stats(app->http, &s);
	assert_int_equal(s.parked, 0);
	close(fd);
	stop(app);
}

static void test_http_parked_request_meets_its_deadline(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	struct answer a;
	int fd = dial(app->address);
	uint64_t start_ms = vk_mono_ms();
	ask(fd, &a, GET("/park?deadline=250"));
	uint64_t took = vk_mono_ms() - start_ms;
	assert_int_equal(a.status, 503);
	assert_memory_equal(a.body, "gone 0", 6);
	assert_in_range(took, 249, 250 + LATE_MS);
	print_message("deadline of 250 ms kept after %llu ms\n", (unsigned long long)took);
	ask(fd, &a, GET("/park?deadline=0")); /* past already */
	assert_memory_equal(a.body, "gone 0", 6);
	/* Longer than a turn of the wheel, beside short ones. */
	int far = dial(app->address);
	puts_to(far, GET("/park?deadline=8500"));
	start_ms = vk_mono_ms();
	ask(fd, &a, GET("/park?deadline=300"));
	assert_memory_equal(a.body, "gone 0", 6);
	read_answer(far, &a, 0, 8500 + LATE_MS);
	assert_memory_equal(a.body, "gone 0", 6);
	assert_in_range(vk_mono_ms() - start_ms, 8400, 8500 + LATE_MS);
	close(far);
	close(fd);
	stop(app);
}

static void test_http_hang_up_of_a_parked_client_is_noticed(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	for (int reset = 0; reset < 2; reset++) {
		int fd = dial(app->address);
		puts_to(fd, GET("/park?deadline=60000"));
		struct vk_http_stats s = {0};
		for (int i = 0; i < 1000 && !s.parked; i++, usleep(1000)) vk_http_stats(app->http, &s);
		assert_int_equal(s.parked, 1);
		struct linger abrupt = {.l_onoff = 1, .l_linger = 0};
		if (reset) setsockopt(fd, SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt);
		uint64_t start_ms = vk_mono_ms();
		close(fd);
		while (atomic_load(&app->gone[VK_GONE_HANGUP]) <= reset && vk_mono_ms() - start_ms < LATE_MS) usleep(500);
		assert_int_equal(atomic_load(&app->gone[VK_GONE_HANGUP]), reset + 1);
		uint64_t took = atomic_load(&app->gone_ms) - start_ms;
		print_message("hang-up noticed after %llu ms\n", (unsigned long long)took);
		assert_in_range(took, 0, 200);
	}
	stop(app);
}

static void test_http_finish_before_park_replies_at_once(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	struct answer a;
	int fd = dial(app->address);
	for (int i = 0; i < 100; i++) {
		ask(fd, &a, GET("/early"));
		assert_int_equal(a.status, 200);
		assert_memory_equal(a.body, "early", 5);
	}
	close(fd);
	stop(app);
}

/* Finisher, deadline and hang-up all within the same few microseconds, for a while. */
static void *hammer(void *arg)
{
	struct app *app = arg;
	uint64_t seed = (uint64_t)(uintptr_t)&seed ^ 7, until = vk_mono_ms() + 1500;
	int fd = -1;
	while (vk_mono_ms() < until) {
		char request[128];
		struct answer a;
		if (fd < 0) fd = dial(app->address);
		unsigned deadline = (unsigned)(vk_rng(&seed) % 3), ready = (unsigned)(vk_rng(&seed) % 3000);
		if (vk_rng(&seed) % 2) ready = 0, deadline = 1000;
		sprintf(request, "GET /park?deadline=%u&ready=%u HTTP/1.1\r\n" HOST "\r\n", deadline, ready);
		if (vk_rng(&seed) % 16 == 0) { /* leave */
			puts_to(fd, request);
			usleep((useconds_t)(vk_rng(&seed) % 2000));
			close(fd);
			fd = -1;
			continue;
		}
		ask(fd, &a, request);
		if (a.status != 200 && a.status != 503) return (void *)"a parked request was not answered";
		if (!a.whole) return (void *)"a reply was cut";
	}
	if (fd >= 0) close(fd);
	return NULL;
}

static void test_http_finish_deadline_and_hang_up_race_safely(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	pthread_t t[6];
	void *why = NULL;
	for (int i = 0; i < 6; i++) pthread_create(&t[i], NULL, hammer, app);
	for (int i = 0; i < 6; i++) {
		void *one;
		pthread_join(t[i], &one);
		if (one) why = one;
	}
	if (why) fail_msg("%s", (char *)why);
	print_message("%d handled: %d by deadline, %d by hang-up\n", app->handled, app->gone[VK_GONE_DEADLINE],
		      app->gone[VK_GONE_HANGUP]);
	assert_true(app->gone[VK_GONE_DEADLINE] > 0);
	stop(app);
}

/* 64 connections on keep-alive, half of them parked all the time: libmicrohttpd up to 1.0.2 is said
 * to skip ready connections while others suspend. The longest wait of any of them is the measure. */
struct soak {
	struct app *app;
	bool parks;
	uint64_t worst_us, answers;
};

static void *soak(void *arg)
{
	struct soak *s = arg;
	enum { N = 16 };
	int fd[N];
	uint64_t sent_us[N], until = vk_mono_ms() + 3000;
	size_t got[N];
	const char *request = s->parks ? GET("/park?ready=3000") : GET("/big");
	for (int i = 0; i < N; i++) {
		fd[i] = dial(s->app->address);
		sent_us[i] = vk_mono_us();
		got[i] = 0;
		puts_to(fd[i], request);
	}
	while (vk_mono_ms() < until) {
		struct pollfd set[N];
		for (int i = 0; i < N; i++) set[i] = (struct pollfd){.fd = fd[i], .events = POLLIN};
		poll(set, N, 100);
		for (int i = 0; i < N; i++) {
			char text[16384];
			uint64_t waited = vk_mono_us() - sent_us[i];
			if (waited > s->worst_us) s->worst_us = waited;
			if (!set[i].revents) continue;
			ssize_t n = recv(fd[i], text, sizeof text, 0);
			if (n <= 0) return (void *)"the server hung up";
			got[i] += (size_t)n;
			if (got[i] < (s->parks ? 100u : sizeof s->app->big)) continue;
			got[i] = 0;
			s->answers++;
			sent_us[i] = vk_mono_us();
			if (puts_to(fd[i], request)) return (void *)"cannot send";
		}
	}
	for (int i = 0; i < N; i++) close(fd[i]);
	return NULL;
}

static void test_http_ready_connections_are_served_while_others_park(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	pthread_t t[4];
	struct soak s[4];
	void *why = NULL;
	for (int i = 0; i < 4; i++) {
		s[i] = (struct soak){.app = app, .parks = i % 2};
		pthread_create(&t[i], NULL, soak, &s[i]);
	}
	for (int i = 0; i < 4; i++) {
		void *one;
		pthread_join(t[i], &one);
		if (one) why = one;
		print_message("%s: %llu answers, longest wait %llu us\n", s[i].parks ? "parked" : "inline",
			      (unsigned long long)s[i].answers, (unsigned long long)s[i].worst_us);
	}
	if (why) fail_msg("%s", (char *)why);
	for (int i = 0; i < 4; i++) {
		assert_true(s[i].answers > 100);
		assert_true(s[i].worst_us < 1000000);
	}
	stop(app);
}

/* ---- limits on connections, drain ---- */

static void test_http_connections_over_the_limit_get_503(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){.connections_max = 4});
	struct answer a;
	int fd[5];
	for (int i = 0; i < 4; i++) {
		fd[i] = dial(app->address);
		ask(fd[i], &a, GET("/big"));
		assert_int_equal(a.status, 200);
	}
	fd[4] = dial(app->address);
	read_answer(fd[4], &a, 0, 5000);
	assert_int_equal(a.status, 503);
	assert_string_equal(header_of(&a, "Retry-After"), "1");
	assert_true(a.whole);
	for (int i = 0; i < 5; i++) close(fd[i]);
	struct vk_http_stats s = {.connections = 1};
	for (int i = 0; i < LATE_MS && s.connections; i++, usleep(1000)) vk_http_stats(app->http, &s);
	assert_int_equal(s.connections, 0);
	assert_int_equal(s.rejected, 1);
	expect(app, GET("/big"), 200);
	stop(app);
}

static void test_http_connections_per_address_are_limited(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){.per_ip_max = 2});
	struct answer a;
	for (int round = 0; round < 5; round++) { /* and what was taken is given back */
		int fd[3];
		for (int i = 0; i < 2; i++) {
			fd[i] = dial(app->address);
			ask(fd[i], &a, GET("/big"));
			assert_int_equal(a.status, 200);
		}
		fd[2] = dial(app->address);
		read_answer(fd[2], &a, 0, 5000);
		assert_int_equal(a.status, 503);
		for (int i = 0; i < 3; i++) close(fd[i]);
		struct vk_http_stats s = {.connections = 1};
		for (int i = 0; i < LATE_MS && s.connections; i++, usleep(1000)) vk_http_stats(app->http, &s);
	}
	stop(app);
}

static void *stop_http(void *arg)
{
	vk_http_stop(((struct app *)arg)->http);
	return NULL;
}

static void test_http_drain_lets_parked_requests_finish(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){.drain_ms = 10000});
	struct answer a;
	int fd = dial(app->address), parked = dial(app->address);
	ask(fd, &a, GET("/drain"));
	assert_memory_equal(a.body, "open", 4);
	puts_to(parked, GET("/park?ready=400000"));
	usleep(50000);
	vk_http_quiesce(app->http);
	ask(fd, &a, GET("/drain"));
	assert_memory_equal(a.body, "draining", 8);
	assert_true(a.closed);
	uint64_t start_ms = vk_mono_ms();
	vk_http_stop(app->http);
	assert_in_range(vk_mono_ms() - start_ms, 200, 4000);
	read_answer(parked, &a, 0, 1000);
	assert_int_equal(a.status, 200);
	assert_memory_equal(a.body, "worked", 6);
	assert_true(a.closed);
	assert_true(dial(app->address) < 0);
	close(fd);
	close(parked);
	app->http = NULL;
	stop(app);
}

static void test_http_drain_wakes_what_does_not_finish(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){.drain_ms = 200});
	struct answer a;
	int parked[8];
	pthread_t t;
	for (int i = 0; i < 8; i++) {
		parked[i] = dial(app->address);
		puts_to(parked[i], GET("/park?deadline=60000"));
	}
	usleep(50000);
	uint64_t start_ms = vk_mono_ms();
	pthread_create(&t, NULL, stop_http, app);
	for (int i = 0; i < 8; i++) {
		read_answer(parked[i], &a, 0, 5000);
		assert_int_equal(a.status, 503);
		assert_memory_equal(a.body, "gone 2", 6);
		close(parked[i]);
	}
	pthread_join(t, NULL);
	assert_in_range(vk_mono_ms() - start_ms, 200, 200 + LATE_MS);
	assert_int_equal(app->gone[VK_GONE_SHUTDOWN], 8);
	app->http = NULL;
	stop(app);
}

/* Bodies that end when the drain is over, and whose operations take their time: none is parked when the daemons are stopped,
 * which libmicrohttpd answers with abort(). */
static void test_http_requests_that_end_during_the_drain_are_not_parked(void **state)
{
	(void)state;
	enum { N = 30, EACH_MS = 20, DRAIN_MS = 100 };
	struct app *app = start((struct vk_http_limits){.drain_ms = DRAIN_MS});
	int fd[N], answered = 0;
	pthread_t t;
	for (int i = 0; i < N; i++) {
		fd[i] = dial(app->address);
		puts_to(fd[i], "POST /late?ready=300000 HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\na");
	}
	usleep(50000);
	pthread_create(&t, NULL, stop_http, app);
	usleep(2 * DRAIN_MS * 1000);
	for (int i = 0; i < N; i++, usleep(EACH_MS * 1000)) puts_to(fd[i], "b");
	pthread_join(t, NULL);
	for (int i = 0; i < N; i++) {
		struct answer a;
		read_answer(fd[i], &a, 0, 1000);
		if (a.whole) {
			assert_int_equal(a.status, 503);
			answered++;
		}
		close(fd[i]);
	}
	assert_true(answered > 0); /* the others were cut off */
	app->http = NULL;
	stop(app);
}

static void test_http_done_is_called_once_a_reply(void **state)
{
	(void)state;
	struct app *app = start((struct vk_http_limits){0});
	struct answer a;
	int fd = dial(app->address);
	for (int i = 0; i < 10; i++) ask(fd, &a, i % 2 ? GET("/big") : GET("/park?ready=0"));
	ask(fd, &a, "POST / HTTP/1.1\r\n" HOST "Content-Encoding: br\r\nContent-Length: 0\r\n\r\n");
	assert_int_equal(a.status, 415);
	close(fd);
	vk_http_stop(app->http);
	app->http = NULL;
	assert_int_equal(app->done, 11);
	stop(app);
}

static void test_http_bad_address_is_named(void **state)
{
	(void)state;
	static const char *const bad[] = {"nohost", "127.0.0.1:", "127.0.0.1:99999", "::1:80", "127.0.0.1:http", "203.0.113.9:80"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct vk_http *h = NULL;
		struct vk_error err;
		struct vk_http_opts opts = {.listen = &bad[i], .listen_n = 1, .handler = handle};
		assert_int_not_equal(vk_http_start(&opts, &h, &err), VK_OK);
		assert_null(h);
		assert_non_null(strstr(err.text, bad[i]));
	}
	/* In use. */
	struct app *app = start((struct vk_http_limits){0});
	struct vk_http *h = NULL;
	struct vk_error err;
	const char *taken = app->address;
	struct vk_http_opts opts = {.listen = &taken, .listen_n = 1, .handler = handle};
	assert_int_equal(vk_http_start(&opts, &h, &err), VK_E_UNAVAILABLE);
	stop(app);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_http_keep_alive_serves_many_on_one_connection),
		cmocka_unit_test(test_http_body_arrives_whole),
		cmocka_unit_test(test_http_pipelined_requests_are_answered_in_order),
		cmocka_unit_test(test_http_head_is_get_without_body),
		cmocka_unit_test(test_http_path_and_query_come_raw),
		cmocka_unit_test(test_http_stream_is_sent_and_freed),
		cmocka_unit_test(test_http_gzip_only_when_allowed_and_wanted),
		cmocka_unit_test(test_http_reply_never_made_is_500),
		cmocka_unit_test(test_http_two_ends_of_a_request_are_refused),
		cmocka_unit_test(test_http_garbage_does_not_stop_the_server),
		cmocka_unit_test(test_http_host_must_be_ours_on_loopback),
		cmocka_unit_test(test_http_encoded_body_is_415),
		cmocka_unit_test(test_http_expect_continue_is_answered_before_the_body),
		cmocka_unit_test(test_http_body_too_large_is_413_that_the_client_can_read),
		cmocka_unit_test(test_http_head_too_large_is_refused),
		cmocka_unit_test(test_http_trickled_head_is_408),
		cmocka_unit_test(test_http_trickled_request_line_is_408),
		cmocka_unit_test(test_http_trickled_body_is_408),
		cmocka_unit_test(test_http_trickled_second_head_is_408),
		cmocka_unit_test(test_http_idle_connection_is_closed),
		cmocka_unit_test(test_http_slow_reader_is_cut_off),
		cmocka_unit_test(test_http_parked_request_is_finished_by_another_thread),
		cmocka_unit_test(test_http_parked_request_meets_its_deadline),
		cmocka_unit_test(test_http_hang_up_of_a_parked_client_is_noticed),
		cmocka_unit_test(test_http_finish_before_park_replies_at_once),
		cmocka_unit_test(test_http_finish_deadline_and_hang_up_race_safely),
		cmocka_unit_test(test_http_ready_connections_are_served_while_others_park),
		cmocka_unit_test(test_http_connections_over_the_limit_get_503),
		cmocka_unit_test(test_http_connections_per_address_are_limited),
		cmocka_unit_test(test_http_drain_lets_parked_requests_finish),
		cmocka_unit_test(test_http_drain_wakes_what_does_not_finish),
		cmocka_unit_test(test_http_requests_that_end_during_the_drain_are_not_parked),
		cmocka_unit_test(test_http_done_is_called_once_a_reply),
		cmocka_unit_test(test_http_bad_address_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
