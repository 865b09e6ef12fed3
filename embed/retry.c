/*
 * Faults are told apart by three tables, read in this order: phrases and code words that some
 * provider is known to use (the first row that matches decides), then the status. What a
 * provider means is often not what its status says: no money arrives as 429, a batch that is
 * too large as 400, an input that never fits as 500.
 */
#include "embed/retry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/utf8.h"

#define BACKOFF_BASE_MS 500
#define BACKOFF_CAP_MS 8000
#define ERROR_BODY_MAX ((size_t)64 << 10) /* a longer body is no error object */
#define BODY_SHOWN 200

#define FAILURES_MAX 5
#define PROBE_MS 120000
#define OPEN_MAX_MS ((uint64_t)3600 * 1000) /* whatever Retry-After says */
static const struct {
	uint64_t first_ms, max_ms;
} open_times[] = {{2000, 60000}, {60000, 900000}}; /* transient, billing */

/* ---- what an error body says ---- */

struct said {
	char text[200]; /* message */
	char code[48];
	char type[48];
};

/* Copies what is printable, as valid UTF-8, cut at a whole character. */
static void sanitise(struct vk_bytes s, char *dst, size_t cap)
{
	size_t n = 0;
	while (s.n && n + 1 < cap) {
		size_t good = vk_utf8_valid(s.p, s.n < 4 ? s.n : 4);
		uint32_t cp = '?';
		size_t step = 1;
		if (good) step = (size_t)(vk_utf8_next(s.p, s.p + good, &cp) - s.p);
		if (cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) cp = ' ';
		/* Direction marks and invisible letters could forge what a log shows. */
		if ((cp >= 0x200b && cp <= 0x200f) || (cp >= 0x2028 && cp <= 0x202e) ||
		    (cp >= 0x2060 && cp <= 0x206f) || cp == 0xfeff)
			cp = ' ';
		char c[4];
		size_t len = vk_utf8_put(c, cp);
		if (n + len >= cap) break;
		memcpy(dst + n, c, len);
		n += len;
		s.p += step;
		s.n -= step;
	}
	while (n && dst[n - 1] == ' ') n--;
	dst[n] = 0;
}

static bool take_str(const vk_jv *v, char *dst, size_t cap)
{
	struct vk_bytes s;
	if (!vk_jv_str(v, &s) || !s.n) return false;
	sanitise(s, dst, cap);
	return true;
}

/* A code word may be a number. */
static bool take_word(const vk_jv *v, char *dst, size_t cap)
{
	int64_t i;
	if (take_str(v, dst, cap)) return true;
	if (!vk_jv_i64(v, &i)) return false;
	snprintf(dst, cap, "%lld", (long long)i);
	return true;
}

static const vk_jv *first_of(const vk_jv *list)
{
	return vk_jv_type(list) == VK_J_ARRAY ? vk_jv_first(list) : NULL;
}

static void take_words(const vk_jv *from, const char *type_key, struct said *s)
{
	if (!*s->code) take_word(vk_jv_get(from, "code"), s->code, sizeof s->code);
	if (!*s->type) take_word(vk_jv_get(from, type_key), s->type, sizeof s->type);
}

static bool take_text(const vk_jv *root, struct said *s)
{
	const vk_jv *error = vk_jv_get(root, "error"), *detail = vk_jv_get(root, "detail");
	const vk_jv *tries[] = {
		vk_jv_get(error, "message"),
		error,
		vk_jv_get(root, "message"),
		vk_jv_get(root, "Message"),
		vk_jv_get(first_of(vk_jv_get(root, "errors")), "message"),
		detail,
		vk_jv_get(first_of(detail), "msg"),
	};
	for (size_t i = 0; i < sizeof tries / sizeof *tries; i++)
		if (take_str(tries[i], s->text, sizeof s->text)) return true;
	return false;
}

static void read_error(struct vk_bytes body, struct said *s)
{
	struct vk_arena arena;
	struct vk_json *doc = NULL;
	*s = (struct said){0};
	vk_arena_init(&arena, 4 << 20);
	bool said = false;
	if (body.n && body.n <= ERROR_BODY_MAX && !vk_json_parse(&arena, body, NULL, &doc, NULL)) {
		const vk_jv *root = vk_json_root(doc);
		if (vk_jv_type(root) == VK_J_ARRAY) root = vk_jv_first(root); /* Google: [{"error"...}] */
		said = take_text(root, s);
		take_words(vk_jv_get(root, "error"), "type", s);
		take_words(root, "type", s);
		take_words(root, "error_type", s);
		take_words(first_of(vk_jv_get(root, "errors")), "type", s);
		if (!*s->code) memcpy(s->code, s->type, sizeof s->code);
	}
	vk_json_free(doc);
	vk_arena_free(&arena);
	if (!said) {
		body.n = body.n < BODY_SHOWN ? body.n : BODY_SHOWN;
		sanitise(body, s->text, sizeof s->text);
	}
}

void vk_retry_error_text(struct vk_bytes body, char *dst, size_t cap, char *code, size_t code_cap)
{
	struct said s;
	read_error(body, &s);
	sanitise(vk_bytes_of(s.text), dst, cap);
	sanitise(vk_bytes_of(s.code), code, code_cap);
}

/* ---- the judgement ---- */

/* A code word (whole, in code or type) or a phrase (anywhere in the text), in any case. */
static const struct phrase {
	int status; /* 0: any */
	const char *word, *phrase;
	enum vk_fault fault;
} phrases[] = {
	/* No money, whatever the status. */
	{0, "insufficient_quota", NULL, VK_FAULT_BILLING},
	{0, "credit_balance_exhausted", NULL, VK_FAULT_BILLING},
	{0, "organization_spend_limit_exceeded", NULL, VK_FAULT_BILLING},
	{0, "project_spend_limit_exceeded", NULL, VK_FAULT_BILLING},
	{0, "organization_usage_limit_exceeded", NULL, VK_FAULT_BILLING},
	{0, "billing_hard_limit_reached", NULL, VK_FAULT_BILLING},
	{0, "billing_not_active", NULL, VK_FAULT_BILLING},
	{0, "AUTHZ_INSUFFICIENT_BALANCE", NULL, VK_FAULT_BILLING},
	{0, "insufficient_balance", NULL, VK_FAULT_BILLING},
	{429, "3036", NULL, VK_FAULT_BILLING}, /* Cloudflare: the day's allocation is used up */
	{429, "3040", NULL, VK_FAULT_TRANSIENT}, /* Cloudflare: no capacity */
	{429, NULL, "exceeded your current quota", VK_FAULT_BILLING},
	{429, NULL, "daily free allocation", VK_FAULT_BILLING},

	/* The batch is too large: inputs, tokens, bytes. */
	{400, NULL, "tokens per request", VK_FAULT_SPLIT},                 /* OpenAI */
	{400, NULL, "maximum request size", VK_FAULT_SPLIT},               /* OpenAI */
	{400, "array_above_max_length", NULL, VK_FAULT_SPLIT},             /* OpenAI */
	{400, NULL, "array too long", VK_FAULT_SPLIT},                     /* OpenAI */
	{400, NULL, "too many inputs", VK_FAULT_SPLIT},                    /* Azure, Mistral */
	{400, "3210", NULL, VK_FAULT_SPLIT},                               /* Mistral */
	{400, NULL, "too many tokens overall", VK_FAULT_SPLIT},            /* Mistral */
	{400, NULL, "tokens per submitted batch", VK_FAULT_SPLIT},         /* Voyage */
	{400, NULL, "batch size limit", VK_FAULT_SPLIT},                   /* Voyage */
	{400, NULL, "total number of texts", VK_FAULT_SPLIT},              /* Cohere */
	{400, NULL, "requests can be in one batch", VK_FAULT_SPLIT},       /* Gemini */
	{400, NULL, "input token count is", VK_FAULT_SPLIT},               /* Vertex */
	{400, NULL, "maximum allowed batch size", VK_FAULT_SPLIT},         /* TEI */
	{422, NULL, "maximum allowed batch size", VK_FAULT_SPLIT},         /* TEI */
	{400, NULL, "maximum batch size", VK_FAULT_SPLIT},
	{422, NULL, "maximum batch size", VK_FAULT_SPLIT},
	{422, NULL, "should have at most", VK_FAULT_SPLIT},                /* Infinity and kin */
	{422, NULL, "has at most", VK_FAULT_SPLIT},

	/* One input never fits, though the status says otherwise. */
	{500, NULL, "too large to process", VK_FAULT_INPUT},               /* llama.cpp */
	{500, NULL, "exceeds the context length", VK_FAULT_INPUT},         /* Ollama */
	{500, "exceed_context_size_error", NULL, VK_FAULT_INPUT},
	{500, "context_length_exceeded", NULL, VK_FAULT_INPUT},

	/* It is not the input but the request. */
	{400, "INPUT_MODEL_NOT_FOUND", NULL, VK_FAULT_FATAL},              /* Jina */
	{400, "model_not_found", NULL, VK_FAULT_FATAL},
	{400, "5007", NULL, VK_FAULT_FATAL},                               /* Cloudflare: no such model */
	{400, "API_KEY_INVALID", NULL, VK_FAULT_AUTH},
	{400, NULL, "API key not valid", VK_FAULT_AUTH},                   /* Google */
};

static const struct {
	int from, to;
	enum vk_fault fault;
	unsigned attempts_max;
} statuses[] = {
	{400, 400, VK_FAULT_INPUT, 0},
	{401, 401, VK_FAULT_AUTH, 0},
	{402, 402, VK_FAULT_BILLING, 0},
	{403, 407, VK_FAULT_FATAL, 0},
	{408, 409, VK_FAULT_TRANSIENT, 0}, /* 409: lock timeout, resource busy */
	{413, 413, VK_FAULT_SPLIT, 0},
	{422, 422, VK_FAULT_INPUT, 0},
	{424, 424, VK_FAULT_TRANSIENT, 2}, /* TEI's backend failed: once more */
	{425, 425, VK_FAULT_TRANSIENT, 0},
	{429, 429, VK_FAULT_TRANSIENT, 0},
	{499, 499, VK_FAULT_TRANSIENT, 0}, /* Ollama: somebody between cancelled */
	{501, 501, VK_FAULT_FATAL, 0},
	{505, 506, VK_FAULT_FATAL, 0},
	{510, 511, VK_FAULT_FATAL, 0},
	{500, 599, VK_FAULT_TRANSIENT, 0},
};

static bool phrase_matches(const struct phrase *p, int status, const struct said *s)
{
	if (p->status && status && p->status != status) return false;
	if (p->word) return !strcasecmp(p->word, s->code) || !strcasecmp(p->word, s->type);
	return strcasestr(s->text, p->phrase) != NULL;
}

/* Status 0: not known, so every phrase counts. */
static void judge_status(int status, const struct said *s, struct vk_verdict *v)
{
	for (size_t i = 0; i < sizeof phrases / sizeof *phrases; i++)
		if (phrase_matches(&phrases[i], status, s)) {
			v->fault = phrases[i].fault;
			return;
		}
	v->fault = status ? VK_FAULT_FATAL /* redirects, unknown ones */ : VK_FAULT_TRANSIENT;
	for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
		if (status >= statuses[i].from && status <= statuses[i].to) {
			v->fault = statuses[i].fault;
			v->attempts_max = statuses[i].attempts_max;
			return;
		}
}

/* The provider knows better than the table, but not better than its own invoice. */
static void obey_should_retry(int should_retry, struct vk_verdict *v)
{
	if (should_retry == 0 && v->fault == VK_FAULT_TRANSIENT) v->fault = VK_FAULT_FATAL;
	if (should_retry == 1 && (v->fault == VK_FAULT_FATAL || v->fault == VK_FAULT_INPUT))
		v->fault = VK_FAULT_TRANSIENT;
}

static void redact_word(char *text, struct vk_bytes secret)
{
	size_t least = 8; /* not "Bearer" */
	if (secret.n < least) return;
	for (char *at; (at = memmem(text, strlen(text), secret.p, secret.n));) {
		memcpy(at, "***", 3);
		memmove(at + 3, at + secret.n, strlen(at + secret.n) + 1);
	}
	/* What the text's own maximum has cut is a secret's beginning all the same. */
	size_t len = strlen(text);
	for (size_t n = len < secret.n ? len : secret.n; n >= least; n--)
		if (!memcmp(text + len - n, secret.p, n)) {
			memcpy(text + len - n, "***", 4);
			return;
		}
}

/* Some servers repeat the key that they refuse. So every long word of every header value that
 * could be a credential goes. */
void vk_retry_redact(const char *const *headers, char *text)
{
	for (; headers && *headers; headers++) {
		const char *p = strchr(*headers, ':');
		if (!strncasecmp(*headers, "content-type:", 13) || !strncasecmp(*headers, "accept:", 7))
			continue;
		while (p && *p) {
			p += strspn(p, ": \t,");
			size_t n = strcspn(p, " \t,");
			redact_word(text, (struct vk_bytes){p, n});
			p += n;
		}
	}
}

void vk_retry_judge(const struct vk_xfer *x, struct vk_verdict *v)
{
	struct said s = {0};
	*v = (struct vk_verdict){.retry_after_ms = x->retry_after_ms};
	/* A server that stops reading a large body and hangs up has said what it thinks. */
	bool answered = x->end == VK_XFER_OK || (x->end == VK_XFER_BROKEN && x->status >= 400);
	if (!answered) {
		bool again = x->end == VK_XFER_CONNECT || x->end == VK_XFER_TIMEOUT || x->end == VK_XFER_BROKEN;
		v->fault = again ? VK_FAULT_TRANSIENT : VK_FAULT_FATAL;
		sanitise(vk_bytes_of(x->error), v->text, sizeof v->text);
		vk_retry_redact(x->headers, v->text);
		return;
	}
	if (x->status >= 200 && x->status < 300) return;
	read_error(vk_buf_bytes(&x->reply), &s);
	judge_status(x->status, &s, v);
	obey_should_retry(x->should_retry, v);
	if (x->status >= 300 && x->status < 400)
		snprintf(s.text, sizeof s.text, "a redirect, which is never followed: correct the base_url");
	memcpy(v->text, s.text, sizeof v->text);
	memcpy(v->code, s.code, sizeof v->code);
	vk_retry_redact(x->headers, v->text);
	vk_retry_redact(x->headers, v->code);
}

void vk_retry_judge_body(struct vk_bytes body, struct vk_verdict *v)
{
	struct said s;
	*v = (struct vk_verdict){.retry_after_ms = -1};
	read_error(body, &s);
	char *end;
	long status = strtol(s.code, &end, 10);
	if (*end || status < 400 || status > 599) status = 0;
	judge_status((int)status, &s, v);
	memcpy(v->text, s.text, sizeof v->text);
	memcpy(v->code, s.code, sizeof v->code);
}

/* ---- backoff ---- */

int64_t vk_retry_delay_ms(unsigned attempt, int64_t retry_after_ms, int64_t max_wait_ms,
			  uint64_t *rng)
{
	if (retry_after_ms > max_wait_ms) return -1;
	int64_t top = attempt < 5 ? (int64_t)BACKOFF_BASE_MS << attempt : BACKOFF_CAP_MS;
	if (top > BACKOFF_CAP_MS) top = BACKOFF_CAP_MS;
	int64_t wait = (int64_t)(vk_rng(rng) % (uint64_t)(top + 1));
	if (wait > max_wait_ms) wait = max_wait_ms > 0 ? max_wait_ms : 0;
	return wait > retry_after_ms ? wait : retry_after_ms;
}

/* ---- the breaker ---- */

bool vk_breaker_ready(const struct vk_breaker *b, uint64_t now_ms)
{
	if (b->state == VK_BREAKER_CLOSED) return true;
	return now_ms >= b->until_ms || (b->state == VK_BREAKER_HALF_OPEN && !b->probing);
}

bool vk_breaker_take(struct vk_breaker *b, uint64_t now_ms)
{
	if (!vk_breaker_ready(b, now_ms)) return false;
	if (b->state == VK_BREAKER_CLOSED) return true;
	b->state = VK_BREAKER_HALF_OPEN;
	b->probing = true;
	b->until_ms = now_ms + PROBE_MS;
	return true;
}

void vk_breaker_success(struct vk_breaker *b)
{
	if (b->state != VK_BREAKER_OPEN) *b = (struct vk_breaker){0};
}

static void open_breaker(struct vk_breaker *b, bool billing, int64_t retry_after_ms, uint64_t now_ms)
{
	uint64_t ms = open_times[billing].first_ms;
	for (unsigned i = 0; i < b->opened && ms < open_times[billing].max_ms; i++) ms *= 2;
	if (ms > open_times[billing].max_ms) ms = open_times[billing].max_ms;
	if (retry_after_ms > 0 && (uint64_t)retry_after_ms > ms) ms = (uint64_t)retry_after_ms;
	if (ms > OPEN_MAX_MS) ms = OPEN_MAX_MS;
	bool was_open = b->state == VK_BREAKER_OPEN;
	b->state = VK_BREAKER_OPEN;
	b->probing = false;
	if (!was_open) b->opened++;
	if (!was_open || now_ms + ms > b->until_ms) b->until_ms = now_ms + ms;
}

void vk_breaker_failure(struct vk_breaker *b, enum vk_fault fault, int64_t retry_after_ms,
			uint64_t now_ms)
{
	switch (fault) {
	case VK_FAULT_NONE:
	case VK_FAULT_SPLIT:
	case VK_FAULT_INPUT:
		vk_breaker_success(b);
		return;
	case VK_FAULT_AUTH:
	case VK_FAULT_FATAL:
		if (b->state == VK_BREAKER_HALF_OPEN) open_breaker(b, false, retry_after_ms, now_ms);
		return;
	case VK_FAULT_BILLING:
		b->failures++;
		open_breaker(b, true, retry_after_ms, now_ms);
		return;
	case VK_FAULT_TRANSIENT:
		if (b->state == VK_BREAKER_OPEN) return;
		b->failures++;
		if (b->state == VK_BREAKER_HALF_OPEN || b->failures >= FAILURES_MAX)
			open_breaker(b, false, retry_after_ms, now_ms);
	}
}
