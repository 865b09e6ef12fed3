/*
 * The one list of outcomes. A function that can fail returns enum vk_status; 0 is
 * good. Whoever can say more fills a struct vk_error (it may be NULL when nobody
 * listens): the words a person reads, the parameter at fault, and what the API's
 * error object wants. Nothing here allocates, so failing works when memory is gone.
 *
 * Misuse by our own code (a broken invariant) is an assert, never a status.
 */
#ifndef VK_BASE_STATUS_H
#define VK_BASE_STATUS_H

#include <stdarg.h>
#include <stdint.h>

/* X(NAME, HTTP status, stable text): the text is part of the API, do not reword. */
#define VK_STATUS_MAP(X)                                                        \
	X(OK, 200, "ok")                                                        \
	X(INVALID, 400, "invalid_request")                                      \
	X(UNAUTHORIZED, 401, "unauthorized")                                    \
	X(FORBIDDEN, 403, "forbidden")                                          \
	X(NOT_FOUND, 404, "not_found")                                          \
	X(METHOD, 405, "method_not_allowed")                                    \
	X(CONFLICT, 409, "conflict")                                            \
	X(TOO_LARGE, 413, "too_large")                                          \
	X(RATE_LIMITED, 429, "rate_limited")                                    \
	X(INTERNAL, 500, "internal_error")                                      \
	X(UPSTREAM, 502, "upstream_error")                                      \
	X(NOMEM, 503, "out_of_memory")                                          \
	X(UNAVAILABLE, 503, "unavailable")                                      \
	X(BUSY, 503, "busy")                                                    \
	X(DEADLINE, 503, "deadline")                                            \
	X(CANCELLED, 499, "cancelled")                                          \
	X(ONLY_IF_CACHED, 504, "not_cached")                                    \
	X(NO_SPACE, 507, "no_space")                                            \
	X(IO, 500, "io_error")                                                  \
	X(CORRUPT, 500, "corrupt")                                              \
	X(EXISTS, 409, "exists")                                                \
	X(END, 500, "end")

enum vk_status {
#define X(name, http, text) VK_E_##name,
	VK_STATUS_MAP(X)
#undef X
	VK_STATUS_COUNT
};
#define VK_OK VK_E_OK

/* Longest error text that a client ever sees, NUL included. */
#define VK_ERROR_TEXT_MAX 768

/* What went wrong, for a person and for an API's error object. Plain data: copy freely. */
struct vk_error {
	enum vk_status st;
	int http;                     /* 0: the status's own */
	int retry_after_ms;           /* 0: none; what a Retry-After header shall say */
	char no_retry;                /* 1: a retry cannot help (x-should-retry: false) */
	char code[48];                /* "" or a machine word, e.g. model_not_found */
	char param[64];               /* "" or the request field at fault */
	char text[VK_ERROR_TEXT_MAX]; /* one sentence, no secrets, valid UTF-8 */
};

const char *vk_status_text(enum vk_status st);
int vk_status_http(enum vk_status st);

/* Fills e (if not NULL) with st and the formatted text, clears the rest, returns st:
 * `return vk_fail(e, VK_E_INVALID, "dims must be 1 to %d", max);` */
enum vk_status vk_fail(struct vk_error *e, enum vk_status st, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same with the request field and the API's code word ("" or NULL for none). */
enum vk_status vk_fail_param(struct vk_error *e, enum vk_status st, const char *code,
			     const char *param, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

#endif
