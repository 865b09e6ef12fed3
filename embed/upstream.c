/*
 * One thread around one curl multi handle.
 *
 * Other threads only touch the inbox (under the lock) and wake the loop; everything else
 * belongs to the thread. A round of the loop: take the inbox, look for cancelled transfers,
 * start what is due, let curl work, hand out what has ended, sleep until a socket, a timer
 * or a wake-up. Callbacks run with no lock held, so they may submit.
 *
 * Cancelling is a flag in the transfer that the loop looks for: a list of pointers to
 * cancel could name a transfer that has ended meanwhile and whose memory is another's.
 *
 * Roads not taken: curl_multi_socket_action (pays from hundreds of sockets on; here there
 * are tens), a curl_share between several multi handles (HTTP/2 streams would not share a
 * connection), redirects (they would carry the key to another host).
 */
#include "embed/upstream.h"

#include <assert.h>
#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/clock.h"
#include "base/num.h"
#include "embed/due.h"
#include "embed/netaddr.h"

#define IDLE_MAX 64               /* easy handles kept for reuse */
#define HOST_CONNECTIONS_MIN 8    /* until a transfer asks for more */
#define CONNECTIONS_MAX 256L      /* open at once, all hosts */
#define CONNECTIONS_KEPT 128L     /* idle ones kept for reuse */
#define BUFFER_BYTES 65536L       /* read buffer of a transfer under way */
#define RESERVE_MAX ((size_t)64 << 20) /* believed of a Content-Length */
#define RETRY_AFTER_MAX_MS ((int64_t)7 * 24 * 3600 * 1000)
#define POLL_MAX_MS 60000

enum { WANTED, CANCELLED }; /* vk_xfer.state */

/* A curl easy handle and what belongs to the transfer that it carries. */
struct easy {
	CURL *curl;
	struct easy *prev, *next; /* active list, or idle list by next */
	struct vk_xfer *x;
	struct curl_slist *headers;
	bool refused;             /* by check_address() */
	bool no_memory;           /* in take_body() */
	double retry_after_s;     /* -1: none; the three forms of the header */
	double retry_after_ms;
	time_t retry_after_date, date; /* -1: none */
	char error[CURL_ERROR_SIZE];
	char why[160];            /* refused: curl overwrites `error` */
};

struct vk_upstream {
	CURLM *multi;
	pthread_t thread;

	pthread_mutex_t lock;     /* guards the inbox, nothing else */
	struct vk_xfer *inbox, **inbox_tail;
	struct vk_due_heap inbox_timers; /* as an array: never popped in order */
	bool cancels;             /* some transfer's state became CANCELLED */
	bool stopping;
	bool woken;               /* a wake-up is under way: no second one needed */

	/* The thread's own. */
	struct vk_due_heap due;
	struct easy *active, *idle;
	size_t idle_n;
	uint32_t host_connections_max;
};

/* ---- a transfer's end ---- */

static void reset_reply_headers(struct easy *e)
{
	e->x->status = 0;
	e->x->should_retry = -1;
	e->x->tokens_header = 0;
	e->retry_after_s = e->retry_after_ms = -1;
	e->retry_after_date = e->date = -1;
}

static int64_t clamp_ms(double ms)
{
	return ms > (double)RETRY_AFTER_MAX_MS ? RETRY_AFTER_MAX_MS : (int64_t)(ms + 0.999);
}

/* retry-after-ms, then seconds, then a date (against the server's own clock where it said
 * what that is). */
static int64_t retry_after(const struct easy *e)
{
	if (e->retry_after_ms >= 0) return clamp_ms(e->retry_after_ms);
	if (e->retry_after_s >= 0) return clamp_ms(e->retry_after_s * 1000);
	if (e->retry_after_date == -1) return -1;
	double now = e->date != -1 ? (double)e->date : (double)vk_wall_ms() / 1000;
	double wait = (double)e->retry_after_date - now;
	return wait > 0 ? clamp_ms(wait * 1000) : 0;
}

/* Curl's words without anything that could hold a URL's user or password. */
static void set_error(struct vk_xfer *x, const char *words, const char *fallback)
{
	if (!*words || strchr(words, '@')) words = fallback;
	size_t n = 0;
	for (; words[n] && n < sizeof x->error - 1; n++) {
		unsigned char c = (unsigned char)words[n];
		x->error[n] = c < 0x20 || c > 0x7e ? ' ' : (char)c;
	}
	x->error[n] = 0;
}

static void finish(struct vk_xfer *x, enum vk_xfer_end end)
{
	x->end = end;
	x->ended_us = vk_mono_us();
	x->easy = NULL;
	x->next = NULL;
	x->done(x);
}

static void fail(struct vk_xfer *x, enum vk_xfer_end end, const char *words)
{
	set_error(x, words, words);
	finish(x, end);
}

static enum vk_xfer_end end_of(const struct easy *e, CURLcode rc)
{
	curl_off_t before_request = 0;
	if (e->refused) return VK_XFER_REFUSED;
	switch (rc) {
	case CURLE_OK:
		return e->x->status ? VK_XFER_OK : VK_XFER_BROKEN;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_PROXY:
	case CURLE_OUT_OF_MEMORY:
		return VK_XFER_CONNECT;
	case CURLE_OPERATION_TIMEDOUT:
		curl_easy_getinfo(e->curl, CURLINFO_PRETRANSFER_TIME_T, &before_request);
		return before_request ? VK_XFER_TIMEOUT : VK_XFER_CONNECT;
	case CURLE_UNSUPPORTED_PROTOCOL: /* the URL's, or a reply that is no HTTP */
		curl_easy_getinfo(e->curl, CURLINFO_PRETRANSFER_TIME_T, &before_request);
		return before_request ? VK_XFER_BROKEN : VK_XFER_REFUSED;
	case CURLE_URL_MALFORMAT:
	case CURLE_ABORTED_BY_CALLBACK:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CIPHER:
	case CURLE_BAD_FUNCTION_ARGUMENT:
		return VK_XFER_REFUSED;
	case CURLE_FILESIZE_EXCEEDED:
		return VK_XFER_TOO_LARGE;
	case CURLE_WRITE_ERROR: /* by take_body() */
		return e->no_memory ? VK_XFER_BROKEN : VK_XFER_TOO_LARGE;
	default:
		return VK_XFER_BROKEN;
	}
}

/* Only a handle whose transfer went well is used again: curl 7.88 keeps the read buffer of one
 * that failed early, and then refuses CURLOPT_BUFFERSIZE for ever. */
static void release(struct vk_upstream *u, struct easy *e, bool reusable)
{
	curl_slist_free_all(e->headers);
	e->headers = NULL;
	e->x = NULL;
	if (reusable && u->idle_n < IDLE_MAX) {
		curl_easy_reset(e->curl);
		e->next = u->idle;
		u->idle = e;
		u->idle_n++;
		return;
	}
	curl_easy_cleanup(e->curl);
	free(e);
}

static void end_active(struct vk_upstream *u, struct easy *e, CURLcode rc, bool cancelled)
{
	struct vk_xfer *x = e->x;
	enum vk_xfer_end end = cancelled ? VK_XFER_CANCELLED : end_of(e, rc);
	if (end == VK_XFER_OK) x->error[0] = 0;
	else if (cancelled) set_error(x, "cancelled", "");
	else if (end == VK_XFER_TOO_LARGE) set_error(x, "the reply is larger than the limit", "");
	else set_error(x, e->refused ? e->why : e->error, curl_easy_strerror(rc));
	x->retry_after_ms = retry_after(e);

	curl_multi_remove_handle(u->multi, e->curl);
	if (e->prev) e->prev->next = e->next;
	else u->active = e->next;
	if (e->next) e->next->prev = e->prev;
	release(u, e, end == VK_XFER_OK);
	finish(x, end);
}

/* ---- curl's callbacks ---- */

/* The value of a header line that has this name, or NULL; ends at the line's end. */
static bool header_is(struct vk_bytes line, const char *name, struct vk_bytes *value)
{
	size_t n = strlen(name);
	if (line.n <= n || line.p[n] != ':' || strncasecmp(line.p, name, n)) return false;
	const char *p = line.p + n + 1, *end = line.p + line.n;
	while (p < end && (*p == ' ' || *p == '\t')) p++;
	while (end > p && (unsigned char)end[-1] <= ' ') end--;
	*value = (struct vk_bytes){p, (size_t)(end - p)};
	return true;
}

/* A number of zero or more that fills the whole value; -1 otherwise. */
static double number_of(struct vk_bytes v)
{
	double d;
	if (vk_f64_read(v.p, v.p + v.n, &d) != v.p + v.n || !(d >= 0)) return -1;
	return d;
}

static time_t date_of(struct vk_bytes v)
{
	char text[64];
	if (v.n >= sizeof text) return -1;
	memcpy(text, v.p, v.n);
	text[v.n] = 0;
	return curl_getdate(text, NULL);
}

/* "HTTP/1.1 200 OK" or "HTTP/2 200". */
static int status_of(struct vk_bytes line)
{
	const char *sp = memchr(line.p, ' ', line.n);
	int status = 0;
	for (const char *p = sp + 1; sp && p < line.p + line.n && *p >= '0' && *p <= '9' && status < 100; p++)
		status = status * 10 + (*p - '0');
	return status;
}

static void tell_header(struct vk_xfer *x, struct vk_bytes line)
{
	const char *colon = memchr(line.p, ':', line.n);
	if (!x->header || !colon) return;
	struct vk_bytes name = {line.p, (size_t)(colon - line.p)};
	const char *p = colon + 1, *end = line.p + line.n;
	while (p < end && (*p == ' ' || *p == '\t')) p++;
	while (end > p && (unsigned char)end[-1] <= ' ') end--;
	x->header(x, name, (struct vk_bytes){p, (size_t)(end - p)});
}

static size_t take_header(char *p, size_t size, size_t n, void *arg)
{
	struct easy *e = arg;
	struct vk_bytes line = {p, size * n}, v;
	if (line.n >= 5 && !memcmp(p, "HTTP/", 5)) { /* again after a 1xx */
		reset_reply_headers(e);
		e->x->status = status_of(line);
		return line.n;
	}
	tell_header(e->x, line);
	if (header_is(line, "retry-after-ms", &v)) {
		e->retry_after_ms = number_of(v);
	} else if (header_is(line, "retry-after", &v)) {
		e->retry_after_s = number_of(v);
		if (e->retry_after_s < 0) e->retry_after_date = date_of(v);
	} else if (header_is(line, "date", &v)) {
		e->date = date_of(v);
	} else if (header_is(line, "x-should-retry", &v)) {
		if (v.n == 4 && !strncasecmp(v.p, "true", 4)) e->x->should_retry = 1;
		if (v.n == 5 && !strncasecmp(v.p, "false", 5)) e->x->should_retry = 0;
	} else if (header_is(line, "x-compute-tokens", &v)) {
		double d = number_of(v);
		e->x->tokens_header = d > 0 && d <= UINT32_MAX ? (uint32_t)d : 0;
	}
	return line.n;
}

static size_t take_body(char *p, size_t size, size_t n, void *arg)
{
	struct easy *e = arg;
	struct vk_buf *reply = &e->x->reply;
	curl_off_t length = 0;
	n *= size;
	/* The whole body in one piece: growing by halves copies a large reply twice. */
	if (!reply->n && !curl_easy_getinfo(e->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length) &&
	    length > (curl_off_t)n && (size_t)length <= reply->max && (size_t)length <= RESERVE_MAX)
		vk_buf_reserve(reply, (size_t)length);
	vk_buf_put(reply, p, n);
	if (!reply->failed) return n;
	e->no_memory = n <= reply->max - reply->n;
	return 0;
}

/* Runs when the connection stands and before the request goes, on reuse too. Behind a proxy
 * the address is the proxy's, which the operator chose. */
static int check_address(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	struct easy *e = arg;
	(void)local_ip, (void)port, (void)local_port;
	enum vk_netaddr is = vk_netaddr_of(ip);
	if (is == VK_NETADDR_PUBLIC) return CURL_PREREQFUNC_OK;
	if (is == VK_NETADDR_PRIVATE && (e->x->private_ok || e->x->proxy)) return CURL_PREREQFUNC_OK;
	snprintf(e->why, sizeof e->why,
		 is == VK_NETADDR_PRIVATE
			 ? "%s is a private address: label the provider \"onprem\" to allow it"
			 : "%s is never connected to (link-local, metadata or special address)",
		 ip);
	e->refused = true;
	return CURL_PREREQFUNC_ABORT;
}

/* ---- a transfer's start ---- */

/* The URL's own address, as curl normalises it ("http://2852039166"). check_address() would
 * refuse it too, but only once connected, and never sees where a proxy connects to. */
static bool host_ok(const char *url)
{
	char *host = NULL;
	CURLU *parts = curl_url();
	/* What does not parse is left for curl to refuse, in its own words. */
	bool ok = !parts || curl_url_set(parts, CURLUPART_URL, url, 0) ||
		  curl_url_get(parts, CURLUPART_HOST, &host, 0) ||
		  vk_netaddr_of(host) != VK_NETADDR_NEVER;
	curl_free(host);
	curl_url_cleanup(parts);
	return ok;
}

static bool printable(const char *s, unsigned char least)
{
	for (; *s; s++)
		if ((unsigned char)*s < least || *s == 0x7f) return false;
	return true;
}

/* What the transfer must not be; NULL when it is fine. */
static const char *objection(const struct vk_xfer *x)
{
	if (!x->url || !printable(x->url, '!')) return "the URL holds a space or a control character";
	for (size_t i = 0; x->headers && x->headers[i]; i++) {
		const char *colon = strchr(x->headers[i], ':');
		if (i == VK_XFER_HEADERS_MAX) return "too many request headers";
		if (!colon || colon == x->headers[i]) return "a request header has no name";
		if (!printable(x->headers[i], ' ')) return "a request header holds a control character";
	}
	if (!host_ok(x->url)) return "the URL's address is never connected to (link-local, metadata or special)";
	return NULL;
}

static bool add_header(struct easy *e, const char *line)
{
	struct curl_slist *list = curl_slist_append(e->headers, line);
	if (list) e->headers = list;
	return list != NULL;
}

static bool set_headers(struct easy *e)
{
	/* Curl would wait a second for "100 Continue" before bodies of 1 MB and more. */
	bool ok = add_header(e, "Expect:");
	for (size_t i = 0; ok && e->x->headers && e->x->headers[i]; i++)
		ok = add_header(e, e->x->headers[i]);
	return ok;
}

static CURLcode set_options(struct easy *e)
{
	struct vk_xfer *x = e->x;
	CURLcode rc = CURLE_OK;
#define SET(option, value) \
	if (!rc) rc = curl_easy_setopt(e->curl, option, value)
	SET(CURLOPT_URL, x->url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_ERRORBUFFER, e->error);
	SET(CURLOPT_PRIVATE, e);
	SET(CURLOPT_HTTPHEADER, e->headers);
	SET(CURLOPT_USERAGENT, "veckeep/" VK_VERSION);
	if (x->body.p) {
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)x->body.n);
		SET(CURLOPT_POSTFIELDS, x->body.p);
	}
	if (x->method) SET(CURLOPT_CUSTOMREQUEST, x->method);
	SET(CURLOPT_HEADERFUNCTION, take_header);
	SET(CURLOPT_HEADERDATA, e);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(CURLOPT_WRITEFUNCTION, take_body);
	SET(CURLOPT_WRITEDATA, e);
	SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)x->reply_bytes_max);
	SET(CURLOPT_BUFFERSIZE, BUFFER_BYTES);
	SET(CURLOPT_PREREQFUNCTION, check_address);
	SET(CURLOPT_PREREQDATA, e);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)x->connect_timeout_ms);
	SET(CURLOPT_TIMEOUT_MS, (long)x->timeout_ms);
	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_TCP_KEEPIDLE, 30L);
	SET(CURLOPT_TCP_KEEPINTVL, 15L);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_PIPEWAIT, !strncasecmp(x->url, "https:", 6) ? 1L : 0L);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	/* "" and not NULL: the environment's proxies are not ours to follow. */
	SET(CURLOPT_PROXY, x->proxy ? x->proxy : "");
	SET(CURLOPT_NOPROXY, "");
	if (x->ca_file) {
		SET(CURLOPT_CAINFO, x->ca_file);
		SET(CURLOPT_PROXY_CAINFO, x->ca_file);
	}
	if (x->cert_file) SET(CURLOPT_SSLCERT, x->cert_file);
	if (x->key_file) SET(CURLOPT_SSLKEY, x->key_file);
#undef SET
	return rc;
}

static struct easy *take_easy(struct vk_upstream *u)
{
	struct easy *e = u->idle;
	if (e) {
		u->idle = e->next;
		u->idle_n--;
		return e;
	}
	e = calloc(1, sizeof *e);
	if (e && !(e->curl = curl_easy_init())) {
		free(e);
		return NULL;
	}
	return e;
}

static void allow_connections(struct vk_upstream *u, uint32_t max)
{
	if (max <= u->host_connections_max) return;
	u->host_connections_max = max < CONNECTIONS_MAX ? max : (uint32_t)CONNECTIONS_MAX;
	curl_multi_setopt(u->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)u->host_connections_max);
}

static void begin(struct vk_upstream *u, struct vk_xfer *x)
{
	x->started_us = vk_mono_us();
	if (__atomic_load_n(&x->state, __ATOMIC_ACQUIRE) == CANCELLED) {
		fail(x, VK_XFER_CANCELLED, "cancelled");
		return;
	}
	const char *bad = objection(x);
	if (bad) {
		fail(x, VK_XFER_REFUSED, bad);
		return;
	}
	struct easy *e = take_easy(u);
	if (!e) {
		fail(x, VK_XFER_CONNECT, "out of memory");
		return;
	}
	e->x = x;
	e->refused = e->no_memory = false;
	e->error[0] = 0;
	reset_reply_headers(e);
	allow_connections(u, x->host_connections_max);
	CURLcode rc = set_headers(e) ? set_options(e) : CURLE_OUT_OF_MEMORY;
	if (!rc && curl_multi_add_handle(u->multi, e->curl)) rc = CURLE_OUT_OF_MEMORY;
	if (rc) {
		release(u, e, false);
		fail(x, rc == CURLE_OUT_OF_MEMORY ? VK_XFER_CONNECT : VK_XFER_REFUSED,
		     curl_easy_strerror(rc));
		return;
	}
	x->easy = e;
	e->prev = NULL;
	e->next = u->active;
	if (u->active) u->active->prev = e;
	u->active = e;
}

/* ---- the loop ---- */

struct inbox {
	struct vk_xfer *xfers;
	struct vk_due_heap timers;
	bool cancels, stopping;
};

static struct inbox take_inbox(struct vk_upstream *u)
{
	pthread_mutex_lock(&u->lock);
	struct inbox in = {u->inbox, u->inbox_timers, u->cancels, u->stopping};
	u->inbox = NULL;
	u->inbox_tail = &u->inbox;
	u->inbox_timers = (struct vk_due_heap){0};
	u->cancels = false;
	u->woken = false;
	pthread_mutex_unlock(&u->lock);
	return in;
}

static void sort_in(struct vk_upstream *u, struct inbox *in, uint64_t now_ms)
{
	for (struct vk_xfer *x = in->xfers, *next; x; x = next) {
		next = x->next;
		if (x->start_at_ms <= now_ms) begin(u, x);
		else if (!vk_due_push(&u->due, (struct vk_due){.at_ms = x->start_at_ms, .xfer = x}))
			fail(x, VK_XFER_CONNECT, "out of memory");
	}
	struct vk_due d;
	while (vk_due_pop(&in->timers, UINT64_MAX, &d))
		if (!vk_due_push(&u->due, d)) d.fn(d.arg, true);
	vk_due_free(&in->timers);
}

static bool keep_wanted(const struct vk_due *d, void *arg)
{
	struct vk_xfer **dropped = arg;
	if (!d->xfer || __atomic_load_n(&d->xfer->state, __ATOMIC_ACQUIRE) != CANCELLED) return true;
	d->xfer->next = *dropped;
	*dropped = d->xfer;
	return false;
}

static void end_cancelled(struct vk_upstream *u)
{
	struct vk_xfer *dropped = NULL;
	vk_due_filter(&u->due, keep_wanted, &dropped);
	for (struct vk_xfer *x = dropped, *next; x; x = next) {
		next = x->next;
		x->started_us = vk_mono_us();
		fail(x, VK_XFER_CANCELLED, "cancelled");
	}
	for (struct easy *e = u->active, *next; e; e = next) {
		next = e->next;
		if (__atomic_load_n(&e->x->state, __ATOMIC_ACQUIRE) == CANCELLED)
			end_active(u, e, CURLE_OK, true);
	}
}

static void run_due(struct vk_upstream *u, uint64_t now_ms)
{
	struct vk_due d;
	while (vk_due_pop(&u->due, now_ms, &d)) {
		if (d.xfer) begin(u, d.xfer);
		else d.fn(d.arg, false);
	}
}

static void reap(struct vk_upstream *u)
{
	int left;
	for (CURLMsg *m; (m = curl_multi_info_read(u->multi, &left));) {
		struct easy *e = NULL;
		if (m->msg != CURLMSG_DONE) continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&e);
		end_active(u, e, m->data.result, false);
	}
}

/* Sleeps until there is something to do. Curl looks after its own timers. */
static void nap(struct vk_upstream *u)
{
	int ms = POLL_MAX_MS;
	if (u->due.n) {
		uint64_t now = vk_mono_ms(), at = u->due.v[0].at_ms;
		if (at <= now) ms = 0;
		else if (at - now < POLL_MAX_MS) ms = (int)(at - now);
	}
	curl_multi_poll(u->multi, NULL, 0, ms, NULL);
}

/* Everything that is left ends as cancelled, and so does what the callbacks still submit. */
static void drain(struct vk_upstream *u, struct inbox *in)
{
	struct vk_due d;
	do {
		while (u->active) end_active(u, u->active, CURLE_OK, true);
		for (struct vk_xfer *x = in->xfers, *next; x; x = next) {
			next = x->next;
			fail(x, VK_XFER_CANCELLED, "cancelled");
		}
		while (vk_due_pop(&in->timers, UINT64_MAX, &d)) d.fn(d.arg, true);
		vk_due_free(&in->timers);
		while (vk_due_pop(&u->due, UINT64_MAX, &d)) {
			if (d.xfer) fail(d.xfer, VK_XFER_CANCELLED, "cancelled");
			else d.fn(d.arg, true);
		}
		*in = take_inbox(u);
	} while (in->xfers || in->timers.n);
	vk_due_free(&in->timers);
}

static void *run(void *arg)
{
	struct vk_upstream *u = arg;
	for (;;) {
		struct inbox in = take_inbox(u);
		if (in.stopping) {
			drain(u, &in);
			return NULL;
		}
		uint64_t now_ms = vk_mono_ms();
		sort_in(u, &in, now_ms);
		if (in.cancels) end_cancelled(u);
		run_due(u, now_ms);
		int running;
		curl_multi_perform(u->multi, &running);
		reap(u);
		nap(u);
	}
}

/* ---- the face ---- */

static void free_all(struct vk_upstream *u)
{
	while (u->idle) {
		struct easy *e = u->idle;
		u->idle = e->next;
		curl_easy_cleanup(e->curl);
		free(e);
	}
	if (u->multi) curl_multi_cleanup(u->multi);
	vk_due_free(&u->due);
	vk_due_free(&u->inbox_timers);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

static void init_curl(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* Signals are for the main thread; a blocked SIGPIPE is the EPIPE that curl expects. */
static int start_thread(struct vk_upstream *u)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(&u->thread, NULL, run, u);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!rc) pthread_setname_np(u->thread, "vk-upstream");
	return rc;
}

enum vk_status vk_upstream_start(struct vk_upstream **out, struct vk_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, init_curl);
	*out = NULL;
	struct vk_upstream *u = calloc(1, sizeof *u);
	if (!u) return vk_fail(err, VK_E_NOMEM, "no memory for the upstream client");
	pthread_mutex_init(&u->lock, NULL);
	u->inbox_tail = &u->inbox;
	u->multi = curl_multi_init();
	if (!u->multi) {
		free_all(u);
		return vk_fail(err, VK_E_NOMEM, "no memory for the upstream client");
	}
	curl_multi_setopt(u->multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
	curl_multi_setopt(u->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, CONNECTIONS_MAX);
	curl_multi_setopt(u->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_KEPT);
	allow_connections(u, HOST_CONNECTIONS_MIN);
	int rc = start_thread(u);
	if (rc) {
		free_all(u);
		return vk_fail(err, VK_E_INTERNAL, "cannot start the upstream thread: %s", strerror(rc));
	}
	*out = u;
	return VK_OK;
}

void vk_upstream_stop(struct vk_upstream *u)
{
	if (!u) return;
	pthread_mutex_lock(&u->lock);
	u->stopping = true;
	pthread_mutex_unlock(&u->lock);
	curl_multi_wakeup(u->multi);
	pthread_join(u->thread, NULL);
	free_all(u);
}

/* Call with the lock held; wakes the loop once for all that came since its last look. */
static void unlock_and_wake(struct vk_upstream *u)
{
	bool wake = !u->woken;
	u->woken = true;
	pthread_mutex_unlock(&u->lock);
	if (wake) curl_multi_wakeup(u->multi);
}

void vk_upstream_send(struct vk_upstream *u, struct vk_xfer *x)
{
	assert(x->done);
	x->state = WANTED;
	x->easy = NULL;
	x->next = NULL;
	x->end = VK_XFER_OK;
	x->status = 0;
	x->error[0] = 0;
	x->retry_after_ms = -1;
	x->should_retry = -1;
	x->tokens_header = 0;
	x->started_us = x->ended_us = 0;
	vk_buf_init(&x->reply, x->reply_bytes_max);
	pthread_mutex_lock(&u->lock);
	*u->inbox_tail = x;
	u->inbox_tail = &x->next;
	unlock_and_wake(u);
}

void vk_upstream_cancel(struct vk_upstream *u, struct vk_xfer *x)
{
	pthread_mutex_lock(&u->lock);
	__atomic_store_n(&x->state, CANCELLED, __ATOMIC_RELEASE);
	u->cancels = true;
	unlock_and_wake(u);
}

void vk_upstream_timer(struct vk_upstream *u, uint64_t at_ms, void (*fn)(void *arg, bool cancelled),
		       void *arg)
{
	pthread_mutex_lock(&u->lock);
	bool taken = vk_due_push(&u->inbox_timers, (struct vk_due){.at_ms = at_ms, .fn = fn, .arg = arg});
	if (!taken) {
		pthread_mutex_unlock(&u->lock);
		fn(arg, true);
		return;
	}
	unlock_and_wake(u);
}

const char *vk_upstream_library(void)
{
	return curl_version();
}
