/*
 * The curl door: the sole user of curl.h (embed/upstream.c). One thread, one multi handle, so
 * that connections and HTTP/2 streams are shared; requests are submitted from any thread.
 *
 * A transfer (struct vk_xfer) is one HTTP exchange. The caller fills the request part, which must
 * stay untouched until `done` is called: exactly once, on the upstream thread; it must be short
 * and may submit further transfers. Retrying is the caller's business (embed/retry.h decides,
 * start_at_ms delays).
 *
 * Safe by construction: http and https only, no redirects, no .netrc, no environment proxies,
 * the connected address checked (link-local and metadata addresses always refused, private ones
 * unless private_ok), the reply capped, nothing secret in errors.
 */
#ifndef VK_EMBED_UPSTREAM_H
#define VK_EMBED_UPSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

#define VK_XFER_HEADERS_MAX 24

enum vk_xfer_end {
	VK_XFER_OK,        /* a whole HTTP reply, whatever its status */
	VK_XFER_CONNECT,   /* no connection (refused, DNS, TLS, timeout while connecting): retry may help */
	VK_XFER_TIMEOUT,   /* connected, no whole reply in time */
	VK_XFER_BROKEN,    /* reset, short or malformed reply: retry may help */
	VK_XFER_TOO_LARGE, /* reply over reply_bytes_max */
	VK_XFER_REFUSED,   /* address or scheme not allowed, bad URL, bad certificate file: no retry */
	VK_XFER_CANCELLED
};

struct vk_xfer {
	/* request: the caller's, borrowed until done */
	const char *url;
	const char *const *headers;      /* "Name: value", NULL-terminated; may hold secrets, never logged */
	const char *method;              /* NULL: POST when body.p != NULL, else GET */
	struct vk_bytes body;
	const char *proxy, *ca_file, *cert_file, *key_file;
	bool private_ok;
	uint32_t connect_timeout_ms, timeout_ms;
	uint64_t reply_bytes_max;
	uint64_t start_at_ms;            /* monotonic; 0: now */
	uint32_t host_connections_max;   /* provider's concurrency */
	/* Each header of the final reply (those of a 1xx before it, too), on the upstream thread; the
	 * spans live during the call. NULL: nobody wants them. */
	void (*header)(struct vk_xfer *x, struct vk_bytes name, struct vk_bytes value);
	void (*done)(struct vk_xfer *x);
	void *arg;
	/* result */
	enum vk_xfer_end end;
	int status;                      /* HTTP status, 0 when none */
	struct vk_buf reply;             /* the caller frees */
	char error[160];                 /* curl's words, no secrets */
	int64_t retry_after_ms;          /* parsed retry-after-ms, Retry-After (seconds, float, date); -1 none */
	signed char should_retry;        /* x-should-retry: 1, 0; -1 absent */
	uint32_t tokens_header;          /* x-compute-tokens (TEI) or 0 */
	uint64_t started_us, ended_us;   /* monotonic */
	/* private */
	struct vk_xfer *next;
	void *easy;
	uint8_t state;
};

struct vk_upstream;
enum vk_status vk_upstream_start(struct vk_upstream **out, struct vk_error *err);
/* Cancels what is left (done with VK_XFER_CANCELLED), joins the thread. */
void vk_upstream_stop(struct vk_upstream *u);

void vk_upstream_send(struct vk_upstream *u, struct vk_xfer *x);
/* Asks for an early end; done is still called (perhaps with VK_XFER_OK, when it was too late). */
void vk_upstream_cancel(struct vk_upstream *u, struct vk_xfer *x);
/* Runs fn(arg) once on the upstream thread at or after at_ms (monotonic). For backoff and breaker
 * probes of those who have no thread. Pending timers are dropped (fn with cancelled = true) at stop. */
void vk_upstream_timer(struct vk_upstream *u, uint64_t at_ms, void (*fn)(void *arg, bool cancelled),
		       void *arg);

/* The library's own words on its version and what it was built with. */
const char *vk_upstream_library(void);

#endif
