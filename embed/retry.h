/*
 * What to do with a failed call: pure functions over what came back, time and randomness as
 * arguments (providers.md section 1: retry table and billing disguises).
 */
#ifndef VK_EMBED_RETRY_H
#define VK_EMBED_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "embed/upstream.h"

enum vk_fault {
	VK_FAULT_NONE,      /* 2xx */
	VK_FAULT_TRANSIENT, /* retry with backoff */
	VK_FAULT_SPLIT,     /* too many inputs, tokens or bytes: halve the batch; one input alone: as INPUT */
	VK_FAULT_INPUT,     /* the input is refused (400, 422): with several inputs bisect to find it */
	VK_FAULT_AUTH,      /* 401: read the secret again once, then fail */
	VK_FAULT_BILLING,   /* no money, no quota: never retried, the provider's breaker opens */
	VK_FAULT_FATAL      /* 403, 404, 405, refused address, reply that cannot be believed: no retry here */
};

struct vk_verdict {
	enum vk_fault fault;
	int64_t retry_after_ms; /* -1: none said */
	unsigned attempts_max;  /* tries in all that this fault is worth; 0: no limit of its own */
	char text[200];         /* the provider's own words, cut, control characters removed; "" if none */
	char code[48];          /* the provider's code word or "" */
};

/* Judges a finished transfer by its end, status, headers and body. What the request's own
 * headers hold as credentials never stands in text or code. */
void vk_retry_judge(const struct vk_xfer *x, struct vk_verdict *v);

/* Takes a request's credentials out of a text that its provider said. */
void vk_retry_redact(const char *const *headers, char *text);

/* Judges an error object that came with a 200; its words are not redacted yet: by its own code where that is an HTTP status,
 * else by its words, else as transient. Never VK_FAULT_NONE. */
void vk_retry_judge_body(struct vk_bytes body, struct vk_verdict *v);

/* The provider's message in an error body: error.message > error > message > Message >
 * errors[0].message > detail > detail[0].msg > first 200 bytes; sanitised into dst. */
void vk_retry_error_text(struct vk_bytes body, char *dst, size_t cap, char *code, size_t code_cap);

/* Full jitter: uniform in [0, min(cap, base * 2^attempt)], at least what the provider asked for
 * (attempt counts from 0; rng is SplitMix64 state). -1: the provider asks for more than max_wait_ms. */
int64_t vk_retry_delay_ms(unsigned attempt, int64_t retry_after_ms, int64_t max_wait_ms,
			  uint64_t *rng);

/*
 * A circuit breaker. Closed: calls go. After 5 transient failures in a row, or one billing
 * fault, it opens (2 s, billing 60 s, doubling to 60 s and 15 min, or what Retry-After said if
 * that is longer); then one probe may go (half-open): its outcome closes or reopens. A probe
 * whose outcome nobody tells is given up after two minutes. INPUT and SPLIT show a provider that
 * works and count as success; AUTH and FATAL do not open it but fail a probe. While open,
 * outcomes of calls that went before change nothing, except that billing opens it for longer.
 * Not locked: the caller's lock.
 */
enum vk_breaker_state { VK_BREAKER_CLOSED, VK_BREAKER_OPEN, VK_BREAKER_HALF_OPEN };
struct vk_breaker {
	enum vk_breaker_state state;
	unsigned failures;       /* in a row */
	unsigned opened;         /* times in a row, for doubling */
	uint64_t until_ms;       /* open until then; half-open: the probe is given up then */
	bool probing;            /* half-open: the one probe is out */
};
/* May a call go now? In half-open state taking it makes it the probe. */
bool vk_breaker_take(struct vk_breaker *b, uint64_t now_ms);
/* Would vk_breaker_take() say yes? Changes nothing. */
bool vk_breaker_ready(const struct vk_breaker *b, uint64_t now_ms);
void vk_breaker_success(struct vk_breaker *b);
void vk_breaker_failure(struct vk_breaker *b, enum vk_fault fault, int64_t retry_after_ms,
			uint64_t now_ms);

#endif
