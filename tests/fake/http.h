/* A small HTTP/1.1 server on one thread and one edge-triggered epoll, written from the RFC and
 * sharing nothing with the house's server. It answers one request of a connection at a time (later
 * ones wait in its buffer) and can misbehave on purpose: a reply says how it is to be sent.
 *
 * The handler runs on the server's thread and must not block; a delay is a field of the reply. */
#ifndef FAKE_HTTP_H
#define FAKE_HTTP_H

#include <stdbool.h>

#include "buf.h"

enum { FAKE_HEADERS_MAX = 64 };

struct fake_header {
	char *name, *value; /* name in lower case */
};

struct fake_request {
	char *method, *path, *query; /* query "" when there is none */
	struct fake_header headers[FAKE_HEADERS_MAX];
	int header_count;
	char *body;
	size_t body_n;
};

struct fake_reply {
	int status;
	const char *type;         /* NULL: application/json */
	struct fake_buf headers;  /* further header lines, each ending in CRLF */
	struct fake_buf body;
	long delay_ms;
	bool counted;             /* the server's `finished` is called when it is sent or given up */
	/* faults on the wire; 0 = none */
	size_t cut_at;            /* send so many bytes of the body, then close; SIZE_MAX: none at all */
	bool rst;                 /* no reply: reset the connection */
	bool hang;                /* no reply, no close */
	bool stall_headers;       /* half of the header block, then silence */
	size_t drip_bytes;        /* body in pieces of so many bytes ... */
	long drip_ms;             /* ... one every so many milliseconds */
	size_t huge_bytes;        /* after the body so many spaces more */
	bool close_idle;          /* promise keep-alive, close right after the reply */
};

struct fake_http {
	void (*handle)(void *ctx, const struct fake_request *req, struct fake_reply *reply);
	void (*finished)(void *ctx, bool sent); /* once for each reply with `counted` */
	void (*connected)(void *ctx);
	void *ctx;
	size_t body_max;
};

const char *fake_request_header(const struct fake_request *req, const char *lower_name);
/* Binds host:port (0: any) and returns the listening socket, *port set; -1 with a message. */
int fake_http_listen(const char *host, int *port);
/* Serves until *stop is not 0 (a signal interrupts the wait). */
void fake_http_run(const struct fake_http *server, int listen_fd, volatile int *stop);
int64_t fake_now_ms(void);

#endif
