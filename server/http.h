/*
 * The HTTP door: the sole user of microhttpd.h (server/http_internal.h), everything above sees this.
 *
 * A request arrives whole: headers checked, body read and capped, then the handler runs once on
 * one of the daemon's threads. It either fills the reply and returns (hits: never suspended), or
 * parks the request and returns; then some other thread fills the reply and calls
 * vk_req_finish(), exactly once. Nothing slower than about a millisecond runs in a handler.
 *
 * Closed here, each with a test (ops.md 2.1): duplicate Content-Length, Content-Length with
 * Transfer-Encoding, header and body timeouts against trickling clients (a reaper, because
 * libmicrohttpd's timeout is inactivity only), suspended connections that never time out (the
 * park's deadline wheel), clients that leave while suspended (the park's hang-up watch), oversize
 * headers (431) and bodies (413, before 100 Continue), Host check against DNS rebinding,
 * drain on shutdown.
 *
 * Ownership: a request and its arena belong to this module and live until the reply has been
 * sent or the connection is gone, and never before a parked request was finished. Threads: one
 * thread at a time touches a request: the handler's, then the finisher's.
 */
#ifndef VK_SERVER_HTTP_H
#define VK_SERVER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/status.h"

enum vk_method { VK_GET, VK_HEAD, VK_POST, VK_PUT, VK_PATCH, VK_DELETE, VK_OPTIONS, VK_METHOD_OTHER };

#define VK_REPLY_HEADERS_MAX 24
#define VK_REQ_PARAMS_MAX 8

struct vk_reply {
	int status;               /* HTTP status; 0 = not filled yet */
	const char *content_type; /* static or in the arena; NULL = application/json */
	struct vk_buf body;       /* moved into the response */
	bool may_gzip;            /* text that compresses; never vectors */
	struct {
		const char *name, *value; /* static or in the arena */
	} header[VK_REPLY_HEADERS_MAX];
	unsigned headers;
	bool close;               /* Connection: close after this reply */
	/* A body that is made while it is sent (a file download): read fills dst with up to n bytes
	 * at the offset and returns how many, 0 at the end, -1 on failure. NULL: the body above. */
	int64_t (*read)(void *arg, uint64_t offset, char *dst, size_t n);
	void (*read_free)(void *arg);
	void *read_arg;
};

struct vk_req {
	enum vk_method method;
	struct vk_bytes path;    /* percent-decoded as a whole is NOT done: segments are decoded by the router */
	struct vk_bytes query;   /* raw, without '?' */
	struct vk_bytes body;    /* whole; borrowed until the request ends */
	struct vk_arena arena;   /* the request's memory */
	struct vk_reply reply;
	uint64_t start_us;       /* monotonic, when the head was complete */
	bool peer_loopback;
	char id[33];             /* x-request-id: the client's own if sane, else made here */
	const char *route;       /* set by the router: low-cardinality name for metrics */
	void *user;              /* the flow's own state while parked */
	struct vk_auth *auth;    /* set by the router after authentication, arena memory */
	bool draining;           /* the server is on its way out: the router answers 503 */
	struct {                 /* what the route's {names} matched, decoded: vk_req_param() */
		const char *name;
		struct vk_bytes value;
	} param[VK_REQ_PARAMS_MAX];
	unsigned params;
};

/* The value of a request header (case-insensitive), or a span with p == NULL. */
struct vk_bytes vk_req_header(const struct vk_req *req, const char *name);
/* The value of a query parameter, percent-decoded into the arena; p == NULL when absent. */
struct vk_bytes vk_req_query(struct vk_req *req, const char *name);

/* Adds a reply header; silently dropped past VK_REPLY_HEADERS_MAX (an assert in tests). value must
 * live in the arena or be static; control characters in it are an assert. */
void vk_reply_header(struct vk_req *req, const char *name, const char *value);
void vk_reply_headerf(struct vk_req *req, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Why a parked request is being woken without an answer. */
enum vk_gone { VK_GONE_DEADLINE, VK_GONE_HANGUP, VK_GONE_SHUTDOWN };
typedef void vk_gone_fn(struct vk_req *req, enum vk_gone why);

/*
 * Parks: suspends the connection. `gone` is called at most once, on the park's own thread, at
 * the deadline (monotonic ms), when the client hangs up, or at the end of a drain; it must see to
 * it that vk_req_finish() is called soon, by whoever wins (the flow's own lock decides; gone and
 * a finisher may race). Call it last in the handler: the request may finish before this returns.
 */
void vk_req_park(struct vk_req *req, uint64_t deadline_ms, vk_gone_fn *gone);
/* The reply is filled (or, after a hang-up, does not matter): resume and send. Once a request,
 * from any thread; do not touch req afterwards. */
void vk_req_finish(struct vk_req *req);

typedef void vk_handler_fn(void *app, struct vk_req *req);

struct vk_http_limits { /* zero = the default in brackets */
	size_t body_max;            /* [32 MiB] */
	size_t header_max;          /* [64 KiB] memory a connection may use for its head */
	unsigned connections_max;   /* [4096] */
	unsigned per_ip_max;        /* [0 = none] */
	uint64_t head_timeout_ms;   /* [10 s] first byte to end of head */
	uint64_t body_timeout_ms;   /* [60 s] end of head to end of body */
	uint64_t idle_timeout_ms;   /* [75 s] keep-alive */
	uint64_t drain_ms;          /* [20 s] */
};

struct vk_http_opts {
	const char *const *listen; /* "host:port" each, port 0 = any; [v6]:port */
	size_t listen_n;
	unsigned threads;          /* 0: a daemon a core where that measures best, see http.c */
	struct vk_http_limits limits;
	const char *const *hosts;  /* extra Host names that are accepted (DNS rebinding); NULL-terminated or NULL */
	vk_handler_fn *handler;
	void *app;
	/* Called after each reply, for metrics and the access log. NULL for none. */
	void (*done)(void *app, const struct vk_req *req, int status, uint64_t duration_us,
		     uint64_t bytes_out);
	/* The most that this request's body may have, asked when the head is complete (headers can be read); 0, or NULL for all: body_max.
	 * A body lies in memory, so more is for callers who are known. */
	size_t (*body_max)(void *app, const struct vk_req *req);
	/* Fills the reply of a request that never reached the handler (400, 408, 413, 431, 503), in the
	 * manner of the API that its path belongs to. */
	void (*reject)(void *app, struct vk_req *req, const struct vk_error *err);
};

struct vk_http;
enum vk_status vk_http_start(const struct vk_http_opts *opts, struct vk_http **out,
			     struct vk_error *err);
/* The address that listener i is bound to, "127.0.0.1:8325". */
const char *vk_http_address(const struct vk_http *h, size_t i);
size_t vk_http_addresses(const struct vk_http *h);
/* From now on requests come with req->draining set, for which the router answers 503 with
 * Retry-After (health routes go on), and every reply closes its connection; parked ones may finish. */
void vk_http_quiesce(struct vk_http *h);
/* Waits up to drain_ms for requests under way, wakes the parked ones with VK_GONE_SHUTDOWN, stops. */
void vk_http_stop(struct vk_http *h);

struct vk_http_stats {
	uint64_t connections, accepted, parked, reaped, rejected;
};
void vk_http_stats(struct vk_http *h, struct vk_http_stats *out);

/* The library and its version. */
const char *vk_http_library(void);

#endif
