/*
 * Goal: the curl door ends every transfer exactly once and in the right way, shares its
 * connections, keeps its limits, and connects, sends and follows nothing that it may not.
 * Method: a small server of our own on a loopback socket, a thread a connection, which does what
 * the request's path says; time limits are generous upwards and strict downwards.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "embed/upstream.h"

#define SEED 20261122u

/* ---- the server ---- */

static struct {
	int fd, port;
	unsigned accepted, requests, ok_hits;
	pthread_t thread;
} server;

static void reply(int fd, const char *head, const char *body, size_t n)
{
	char text[2048];
	int len = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n", head, n);
	if (send(fd, text, (size_t)len, MSG_NOSIGNAL | MSG_MORE) < 0) return;
	for (ssize_t sent; n && (sent = send(fd, body, n, MSG_NOSIGNAL)) > 0; body += sent, n -= (size_t)sent) {}
}

static void reset(int fd)
{
	struct linger hard = {1, 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
}

static void nap_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	nanosleep(&t, NULL);
}

/* Replies with head lines; "DATE+n" becomes an HTTP date. */
static const char *const heads[] = {
	"429 x\r\nretry-after-ms: 1500\r\nRetry-After: 9",
	"429 x\r\nRETRY-AFTER: 2.5",
	"429 x\r\nRetry-After:   7  ",
	"503 x\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:47 GMT",
	"503 x\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:07 GMT",
	"503 x\r\nRetry-After: soon",
	"503 x\r\nRetry-After: -3",
	"503 x\r\nretry-after-ms: nan\r\nRetry-After: 1",
	"503 x\r\nRetry-After: 1e300",
	"500 x\r\nX-Should-Retry: true",
	"500 x\r\nx-should-retry: FALSE",
	"500 x\r\nx-should-retry: maybe",
	"200 OK\r\nX-Compute-Tokens: 42",
	"200 OK\r\nx-compute-tokens: 4294967296",
	"100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nretry-after: 9\r\n\r\nHTTP/1.1 200 OK",
	"302 Found\r\nLocation: /ok",
};

/* False: close. */
static char big[1 << 20]; /* filled before any thread is made */

static bool answer(int fd, const char *path, const char *request, size_t n)
{
	long arg = strrchr(path, '/') ? atol(strrchr(path, '/') + 1) : 0;
#define IS(name) (!strncmp(path, name, strlen(name)))
	if (IS("/ok")) {
		__atomic_add_fetch(&server.ok_hits, 1, __ATOMIC_SEQ_CST);
		reply(fd, "200 OK", "{}", 2);
	} else if (IS("/echo")) reply(fd, "200 OK", request, n);
	else if (IS("/delay/")) nap_ms(arg), reply(fd, "200 OK", "{}", 2);
	else if (IS("/head/")) reply(fd, heads[arg], "", 0);
	else if (IS("/status/")) {
		char status[20];
		snprintf(status, sizeof status, "%ld x", arg);
		reply(fd, status, "words", 5);
	} else if (IS("/big/")) reply(fd, "200 OK", big, (size_t)arg);
	else if (IS("/chunked/")) {
		static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
		char chunk[1100];
		send(fd, head, sizeof head - 1, MSG_NOSIGNAL);
		for (long left = arg; left > 0; left -= 1000) {
			int len = snprintf(chunk, sizeof chunk, "3e8\r\n%01000d\r\n", 1);
			if (send(fd, chunk, (size_t)len, MSG_NOSIGNAL) < 0) return false;
		}
		send(fd, "0\r\n\r\n", 5, MSG_NOSIGNAL);
	} else if (IS("/reset")) return reset(fd), false;
	else if (IS("/close")) return false;
	else if (IS("/short")) {
		static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this";
		send(fd, text, sizeof text - 1, MSG_NOSIGNAL);
		return false;
	} else if (IS("/garbage")) return send(fd, "SSH-2.0-x\r\n", 11, MSG_NOSIGNAL), false;
	else if (IS("/then-close")) return reply(fd, "200 OK", "{}", 2), false;
	else if (IS("/hang")) {
		struct pollfd p = {fd, POLLIN, 0};
		poll(&p, 1, 20000);
		return false;
	} else reply(fd, "404 x", "", 0);
	return true;
}

/* One request with its body into `text`; 0 at the end. */
static size_t read_request(int fd, char *text, size_t cap, size_t *have)
{
	for (;;) {
		text[*have] = 0;
		char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "content-length:");
		size_t head = end ? (size_t)(end - text) + 4 : 0;
		/* Refused by what the head says alone. */
		if (end && !strncmp(text, "POST /early413", 14)) {
			reply(fd, "413 x", "{\"error\":\"too big\"}", 19);
			shutdown(fd, SHUT_WR);
			return 0;
		}
		if (end && *have >= head + (length && length < end ? strtoul(length + 15, NULL, 10) : 0)) return *have;
		ssize_t n = *have < cap ? recv(fd, text + *have, cap - *have, 0) : 0;
		if (n <= 0) return 0;
		*have += (size_t)n;
	}
}

static void *serve_connection(void *arg)
{
	int fd = (int)(intptr_t)arg;
	enum { CAP = 1 << 20 };
	char *text = malloc(CAP + 1);
	size_t have = 0, n;
	bool open = text != NULL;
	while (open && (n = read_request(fd, text, CAP, &have))) {
		char path[256] = "";
		__atomic_add_fetch(&server.requests, 1, __ATOMIC_SEQ_CST);
		sscanf(text, "%*s %255s", path);
		open = answer(fd, path, text, n);
		have = 0; /* no pipelining from our client */
	}
	free(text);
	close(fd);
	return NULL;
}

static void *serve(void *arg)
{
	(void)arg;
	for (;;) {
		int fd = accept(server.fd, NULL, NULL), one = 1;
		pthread_t t;
		if (fd < 0) return NULL;
		__atomic_add_fetch(&server.accepted, 1, __ATOMIC_SEQ_CST);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		if (pthread_create(&t, NULL, serve_connection, (void *)(intptr_t)fd)) close(fd);
		else pthread_detach(t);
	}
}

/* ---- the client's side ---- */

struct waiting {
	struct vk_xfer x;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	int done;
	char url[300];
};

static void done(struct vk_xfer *x)
{
	struct waiting *w = x->arg;
	pthread_mutex_lock(&w->lock);
	w->done++;
	pthread_cond_signal(&w->ended);
	pthread_mutex_unlock(&w->lock);
}

static struct waiting *new_xfer(const char *path)
{
	struct waiting *w = calloc(1, sizeof *w);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->ended, NULL);
	if (strstr(path, "://")) snprintf(w->url, sizeof w->url, "%s", path);
	else snprintf(w->url, sizeof w->url, "http://127.0.0.1:%d%s", server.port, path);
	w->x = (struct vk_xfer){.url = w->url, .private_ok = true, .connect_timeout_ms = 3000, .timeout_ms = 10000,
				.reply_bytes_max = 1 << 20, .host_connections_max = 8, .done = done, .arg = w};
	return w;
}

static struct vk_xfer *wait_for(struct waiting *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->done) pthread_cond_wait(&w->ended, &w->lock);
	pthread_mutex_unlock(&w->lock);
	return &w->x;
}

static void free_xfer(struct waiting *w)
{
	assert_int_equal(w->done, 1);
	vk_buf_free(&w->x.reply);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->ended);
	free(w);
}

static struct vk_upstream *up;

static int set_up(void **state)
{
	(void)state;
	struct vk_error err;
	__atomic_store_n(&server.accepted, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&server.requests, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&server.ok_hits, 0, __ATOMIC_SEQ_CST);
	return vk_upstream_start(&up, &err) != VK_OK;
}

static int tear_down(void **state)
{
	(void)state;
	vk_upstream_stop(up);
	up = NULL;
	return 0;
}

static struct waiting *run(const char *path)
{
	struct waiting *w = new_xfer(path);
	vk_upstream_send(up, &w->x);
	wait_for(w);
	return w;
}

static void expect(const char *path, enum vk_xfer_end end, int status)
{
	struct waiting *w = run(path);
	if (w->x.end != end || w->x.status != status)
		fail_msg("%s: end %d status %d %s", path, w->x.end, w->x.status, w->x.error);
	assert_int_equal(end == VK_XFER_OK, w->x.error[0] == 0);
	free_xfer(w);
}

/* ---- tests ---- */

static void test_upstream_post_sends_what_was_given_and_no_more(void **state)
{
	(void)state;
	static const char *const headers[] = {"Content-Type: application/json", "Accept: application/json", "api-key: k", NULL};
	static char large[(512 << 10)];
	memset(large, 'y', sizeof large);
	struct waiting *w = new_xfer("/echo?a=b");
	char want[400];
	w->x.headers = headers;
	w->x.body = VK_LIT("{\"a\":\0 1}");
	vk_upstream_send(up, &w->x);
	wait_for(w);
	int n = snprintf(want, sizeof want, "POST /echo?a=b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: veckeep/%s\r\n"
			 "Content-Type: application/json\r\nAccept: application/json\r\napi-key: k\r\nContent-Length: 9\r\n\r\n",
			 server.port, VK_VERSION);
	assert_int_equal(w->x.end, VK_XFER_OK);
	assert_int_equal(w->x.reply.n, n + 9);
	assert_memory_equal(w->x.reply.p, want, n);
	assert_memory_equal(w->x.reply.p + n, "{\"a\":\0 1}", 9);
	assert_true(w->x.started_us && w->x.ended_us >= w->x.started_us);
	free_xfer(w);

	w = new_xfer("/echo"); /* no "Expect: 100-continue", which costs a second */
	w->x.body = (struct vk_bytes){large, sizeof large};
	vk_upstream_send(up, &w->x);
	wait_for(w);
	assert_int_equal(w->x.end, VK_XFER_OK);
	assert_true(w->x.reply.n > sizeof large);
	assert_null(memmem(w->x.reply.p, 300, "Expect", 6));
	assert_memory_equal(w->x.reply.p + w->x.reply.n - sizeof large, large, sizeof large);
	free_xfer(w);

	w = run("/echo");
	assert_memory_equal(w->x.reply.p, "GET /echo HTTP/1.1\r\n", 20);
	assert_null(memmem(w->x.reply.p, w->x.reply.n, "Encoding", 8));
	free_xfer(w);
}

static void test_upstream_connection_is_kept_and_replaced_when_stale(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++) expect("/ok", VK_XFER_OK, 200);
	assert_int_equal(__atomic_load_n(&server.accepted, __ATOMIC_SEQ_CST), 1);
	for (int i = 0; i < 5; i++) expect("/then-close", VK_XFER_OK, 200);
}

static void test_upstream_runs_as_many_at_once_as_was_asked(void **state)
{
	(void)state;
	struct waiting *w[20];
	uint64_t start = vk_mono_ms();
	for (int i = 0; i < 20; i++) {
		w[i] = new_xfer("/delay/200");
		w[i]->x.host_connections_max = 20;
		vk_upstream_send(up, &w[i]->x);
	}
	for (int i = 0; i < 20; i++) {
		assert_int_equal(wait_for(w[i])->end, VK_XFER_OK);
		free_xfer(w[i]);
	}
	assert_in_range(vk_mono_ms() - start, 200, 1500); /* one after the other: 4 s */
	assert_int_equal(__atomic_load_n(&server.accepted, __ATOMIC_SEQ_CST), 20);
}

static void test_upstream_start_at_delays(void **state)
{
	(void)state;
	struct waiting *w = new_xfer("/ok");
	uint64_t start = vk_mono_ms();
	w->x.start_at_ms = start + 120;
	vk_upstream_send(up, &w->x);
	wait_for(w);
	assert_in_range(vk_mono_ms(), start + 120, start + 2000);
	free_xfer(w);
}

static void test_upstream_broken_replies_are_told_apart(void **state)
{
	(void)state;
	char dead[100];
	expect("/reset", VK_XFER_BROKEN, 0);
	expect("/close", VK_XFER_BROKEN, 0);
	expect("/short", VK_XFER_BROKEN, 200);
	expect("/garbage", VK_XFER_BROKEN, 0);
	expect("/status/404", VK_XFER_OK, 404);
	expect("/status/529", VK_XFER_OK, 529);
	expect("http://no-such-host.invalid/", VK_XFER_CONNECT, 0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0); /* bound, not listening */
	getsockname(fd, (struct sockaddr *)&a, &len);
	snprintf(dead, sizeof dead, "http://127.0.0.1:%d/", ntohs(a.sin_port));
	expect(dead, VK_XFER_CONNECT, 0);
	close(fd);
}

static void test_upstream_early_refusal_of_a_large_body_keeps_its_status(void **state)
{
	(void)state;
	static char large[8 << 20];
	memset(large, 'y', sizeof large);
	int status = 0;
	/* The peer's reset may overtake its answer: then nobody can know it, and another try tells. */
	for (int i = 0; i < 20 && !status; i++) {
		struct waiting *w = new_xfer("/early413");
		w->x.body = (struct vk_bytes){large, sizeof large};
		vk_upstream_send(up, &w->x);
		wait_for(w);
		assert_true(w->x.end == VK_XFER_OK || w->x.end == VK_XFER_BROKEN);
		status = w->x.status;
		free_xfer(w);
	}
	assert_int_equal(status, 413);
}

static void test_upstream_timeout_ends_a_hanging_reply(void **state)
{
	(void)state;
	struct waiting *w = new_xfer("/hang");
	uint64_t start = vk_mono_ms();
	w->x.timeout_ms = 150;
	vk_upstream_send(up, &w->x);
	wait_for(w);
	assert_int_equal(w->x.end, VK_XFER_TIMEOUT);
	assert_in_range(vk_mono_ms() - start, 140, 3000);
	free_xfer(w);
}

static void test_upstream_cap_is_exact(void **state)
{
	(void)state;
	static const struct {
		const char *path;
		enum vk_xfer_end end;
	} rows[] = {
		{"/big/5000", VK_XFER_OK}, {"/big/5001", VK_XFER_TOO_LARGE}, {"/big/900000", VK_XFER_TOO_LARGE},
		{"/chunked/5000", VK_XFER_OK}, {"/chunked/6000", VK_XFER_TOO_LARGE}, {"/chunked/100000", VK_XFER_TOO_LARGE},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct waiting *w = new_xfer(rows[i].path);
		w->x.reply_bytes_max = 5000;
		vk_upstream_send(up, &w->x);
		wait_for(w);
		assert_int_equal(w->x.end, rows[i].end);
		assert_true(w->x.reply.n <= 5000);
		if (rows[i].end == VK_XFER_OK) assert_int_equal(w->x.reply.n, 5000);
		free_xfer(w);
	}
	expect("/big/900000", VK_XFER_OK, 200);
}

static void test_upstream_headers_are_read_in_every_form(void **state)
{
	(void)state;
	static const struct {
		int status, should;
		int64_t after;
		uint32_t tokens;
	} want[] = {
		{429, -1, 1500, 0}, {429, -1, 2500, 0}, {429, -1, 7000, 0}, {503, -1, 10000, 0}, {503, -1, 0, 0},
		{503, -1, -1, 0}, {503, -1, -1, 0}, {503, -1, 1000, 0}, {503, -1, 7 * 86400000LL, 0}, {500, 1, -1, 0},
		{500, 0, -1, 0}, {500, -1, -1, 0}, {200, -1, -1, 42}, {200, -1, -1, 0}, {200, -1, -1, 0}, {302, -1, -1, 0},
	};
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		char path[40];
		snprintf(path, sizeof path, "/head/%zu", i);
		struct waiting *w = run(path);
		assert_int_equal(w->x.end, VK_XFER_OK);
		assert_int_equal(w->x.status, want[i].status);
		assert_int_equal(w->x.should_retry, want[i].should);
		assert_int_equal(w->x.retry_after_ms, want[i].after);
		assert_int_equal(w->x.tokens_header, want[i].tokens);
		free_xfer(w);
	}
	assert_int_equal(__atomic_load_n(&server.ok_hits, __ATOMIC_SEQ_CST), 0); /* the redirect went nowhere */
}

static void test_upstream_refuses_addresses_schemes_and_injection(void **state)
{
	(void)state;
	static const char *const urls[] = {
		"http://169.254.169.254/latest/meta-data", "http://2852039166/", "http://0xa9fea9fe/", "http://[::ffff:a9fe:a9fe]/",
		"http://[fe80::1]/", "http://0.0.0.0/", "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:1/x",
		"http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", "http://", "http://127.0.0.1:99999/",
	};
	for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) expect(urls[i], VK_XFER_REFUSED, 0);

	static const char *const bad[] = {"X: y\r\nInjected: 1", "X: y\nInjected: 1", "no colon", ": no name", "X: \x01"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		const char *headers[] = {bad[i], NULL};
		struct waiting *w = new_xfer("/ok");
		w->x.headers = headers;
		vk_upstream_send(up, &w->x);
		assert_int_equal(wait_for(w)->end, VK_XFER_REFUSED);
		assert_null(strstr(w->x.error, "Injected"));
		free_xfer(w);
	}
	/* Connected, looked at, hung up: also when a connection to it stands already. */
	expect("/status/200", VK_XFER_OK, 200);
	for (int i = 0; i < 2; i++) {
		struct waiting *w = new_xfer("/ok");
		w->x.private_ok = false;
		vk_upstream_send(up, &w->x);
		assert_int_equal(wait_for(w)->end, VK_XFER_REFUSED);
		assert_non_null(strstr(w->x.error, "127.0.0.1 is a private address"));
		free_xfer(w);
	}
	struct waiting *w = new_xfer("/ok");
	w->x.ca_file = "/nonexistent/ca.pem"; /* of no use to http, and no harm */
	w->x.proxy = "http://127.0.0.1:1";
	snprintf(w->url, sizeof w->url, "http://169.254.169.254/");
	vk_upstream_send(up, &w->x);
	assert_int_equal(wait_for(w)->end, VK_XFER_REFUSED); /* and not told to a proxy either */
	free_xfer(w);
	assert_int_equal(__atomic_load_n(&server.ok_hits, __ATOMIC_SEQ_CST), 0);
}

static void test_upstream_proxy_is_the_given_one_only(void **state)
{
	(void)state;
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
	setenv("no_proxy", "*", 1);
	expect("/ok", VK_XFER_OK, 200);
	char proxy[60];
	snprintf(proxy, sizeof proxy, "http://127.0.0.1:%d", server.port);
	struct waiting *w = new_xfer("http://no-such-host.invalid/echo");
	w->x.proxy = proxy;
	w->x.private_ok = false; /* the proxy is the operator's */
	vk_upstream_send(up, &w->x);
	wait_for(w);
	assert_int_equal(w->x.end, VK_XFER_OK);
	assert_int_equal(w->x.status, 404); /* the server's word for an absolute URL: it got the request */
	free_xfer(w);
	unsetenv("http_proxy");
	unsetenv("ALL_PROXY");
	unsetenv("no_proxy");
}

static void test_upstream_errors_hold_no_secrets(void **state)
{
	(void)state;
	static const char *const urls[] = {"http://user:hunter2@127.0.0.1:1/?key=hunter2", "http://user:hunter2@no-such-host.invalid/",
					   "http://user:hunter2@[bad/", "foo://user:hunter2@h/"};
	for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
		struct waiting *w = run(urls[i]);
		assert_int_not_equal(w->x.end, VK_XFER_OK);
		assert_null(strstr(w->x.error, "hunter2"));
		assert_true(w->x.error[0] != 0);
		free_xfer(w);
	}
}

static void test_upstream_cancel_ends_early_wherever_it_is(void **state)
{
	(void)state;
	struct waiting *flying = new_xfer("/hang"), *later = new_xfer("/ok"), *fresh = new_xfer("/hang");
	uint64_t start = vk_mono_ms();
	later->x.start_at_ms = start + 60000;
	vk_upstream_send(up, &flying->x);
	vk_upstream_send(up, &later->x);
	nap_ms(50);
	vk_upstream_cancel(up, &flying->x);
	vk_upstream_cancel(up, &later->x);
	vk_upstream_send(up, &fresh->x);
	vk_upstream_cancel(up, &fresh->x);
	struct waiting *all[] = {flying, later, fresh};
	for (int i = 0; i < 3; i++) {
		assert_int_equal(wait_for(all[i])->end, VK_XFER_CANCELLED);
		free_xfer(all[i]);
	}
	assert_in_range(vk_mono_ms() - start, 50, 3000);
	expect("/ok", VK_XFER_OK, 200);
}

static struct {
	int fired[8], n, cancelled;
} timers;

static void on_timer(void *arg, bool cancelled)
{
	if (cancelled) timers.cancelled++;
	else timers.fired[timers.n++] = (int)(intptr_t)arg;
}

static void test_upstream_timers_fire_in_order_and_are_dropped_at_stop(void **state)
{
	(void)state;
	memset(&timers, 0, sizeof timers);
	uint64_t now = vk_mono_ms();
	vk_upstream_timer(up, now + 60, on_timer, (void *)3);
	vk_upstream_timer(up, now + 30, on_timer, (void *)2);
	vk_upstream_timer(up, now, on_timer, (void *)1);
	vk_upstream_timer(up, now + 60, on_timer, (void *)4);
	vk_upstream_timer(up, now + 600000, on_timer, (void *)5);
	nap_ms(200);
	vk_upstream_stop(up); /* joins: what the thread wrote may be read */
	assert_int_equal(timers.n, 4);
	for (int i = 0; i < 4; i++) assert_int_equal(timers.fired[i], i + 1);
	assert_int_equal(timers.cancelled, 1);
	set_up(NULL);
}

static unsigned chained;

static void done_and_again(struct vk_xfer *x)
{
	if (++chained % 4) {
		vk_buf_free(&x->reply);
		vk_upstream_send(up, x);
	} else done(x);
}

static void test_upstream_stop_ends_everything_once(void **state)
{
	(void)state;
	const char *const paths[] = {"/hang", "/hang", "/delay/5000", "/ok", "http://no-such-host.invalid/"};
	struct waiting *w[20];
	for (int i = 0; i < 20; i++) {
		w[i] = new_xfer(paths[i % 5]);
		if (i >= 15) w[i]->x.start_at_ms = vk_mono_ms() + 60000;
		vk_upstream_send(up, &w[i]->x);
	}
	struct waiting *again = new_xfer("/hang"); /* its callback submits it again, also while stopping */
	chained = 0;
	again->x.done = done_and_again;
	vk_upstream_send(up, &again->x);
	nap_ms(50);
	uint64_t start = vk_mono_ms();
	vk_upstream_stop(up);
	assert_in_range(vk_mono_ms() - start, 0, 3000);
	assert_int_equal(chained, 4);
	assert_int_equal(again->x.end, VK_XFER_CANCELLED);
	free_xfer(again);
	for (int i = 0; i < 20; i++) {
		if (i >= 15 || i % 5 < 3) assert_int_equal(w[i]->x.end, VK_XFER_CANCELLED);
		free_xfer(w[i]);
	}
	set_up(NULL);
}

static void test_upstream_callback_may_submit(void **state)
{
	(void)state;
	struct waiting *w = new_xfer("/ok");
	chained = 0;
	w->x.done = done_and_again;
	vk_upstream_send(up, &w->x);
	wait_for(w);
	assert_int_equal(__atomic_load_n(&server.ok_hits, __ATOMIC_SEQ_CST), 4);
	free_xfer(w);
}

static unsigned soak_ends[VK_XFER_CANCELLED + 1];

static void *soak(void *arg)
{
	static const char *const paths[] = {"/ok", "/delay/5", "/reset", "/big/70000", "/hang", "/short"};
	uint64_t rng = SEED + (uint64_t)(uintptr_t)arg;
	struct waiting *w[8];
	for (int round = 0; round < 25; round++) {
		for (int i = 0; i < 8; i++) {
			w[i] = new_xfer(paths[vk_rng(&rng) % 6]);
			w[i]->x.timeout_ms = 200; /* an answer must be possible under a sanitizer, too */
			if (vk_rng(&rng) % 3 == 0) w[i]->x.start_at_ms = vk_mono_ms() + vk_rng(&rng) % 20;
			vk_upstream_send(up, &w[i]->x);
		}
		for (int i = 0; i < 8; i++)
			if (vk_rng(&rng) % 4 == 0) vk_upstream_cancel(up, &w[i]->x);
		for (int i = 0; i < 8; i++) {
			__atomic_add_fetch(&soak_ends[wait_for(w[i])->end], 1, __ATOMIC_SEQ_CST);
			free_xfer(w[i]);
		}
	}
	return NULL;
}

static void test_upstream_many_threads_each_transfer_ends_once(void **state)
{
	(void)state;
	pthread_t t[4];
	for (size_t i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, soak, (void *)i), 0);
	for (size_t i = 0; i < 4; i++) pthread_join(t[i], NULL);
	unsigned sum = 0;
	for (size_t i = 0; i <= VK_XFER_CANCELLED; i++) sum += soak_ends[i];
	assert_int_equal(sum, 4 * 25 * 8);
	assert_true(soak_ends[VK_XFER_OK] > 100 && soak_ends[VK_XFER_CANCELLED] > 10 && soak_ends[VK_XFER_BROKEN] > 10);
}

int main(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	memset(big, 'x', sizeof big);
	server.fd = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(server.fd, (struct sockaddr *)&a, sizeof a) || listen(server.fd, 256) ||
	    getsockname(server.fd, (struct sockaddr *)&a, &len) || pthread_create(&server.thread, NULL, serve, NULL)) {
		perror("server");
		return 1;
	}
	server.port = ntohs(a.sin_port);
	print_message("seed %u\n", SEED);
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_upstream_post_sends_what_was_given_and_no_more),
		TEST(test_upstream_connection_is_kept_and_replaced_when_stale),
		TEST(test_upstream_runs_as_many_at_once_as_was_asked),
		TEST(test_upstream_start_at_delays),
		TEST(test_upstream_broken_replies_are_told_apart),
		TEST(test_upstream_early_refusal_of_a_large_body_keeps_its_status),
		TEST(test_upstream_timeout_ends_a_hanging_reply),
		TEST(test_upstream_cap_is_exact),
		TEST(test_upstream_headers_are_read_in_every_form),
		TEST(test_upstream_refuses_addresses_schemes_and_injection),
		TEST(test_upstream_proxy_is_the_given_one_only),
		TEST(test_upstream_errors_hold_no_secrets),
		TEST(test_upstream_cancel_ends_early_wherever_it_is),
		TEST(test_upstream_timers_fire_in_order_and_are_dropped_at_stop),
		TEST(test_upstream_stop_ends_everything_once),
		TEST(test_upstream_callback_may_submit),
		TEST(test_upstream_many_threads_each_transfer_ends_once),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	shutdown(server.fd, SHUT_RDWR);
	close(server.fd);
	pthread_join(server.thread, NULL);
	return failed;
}
