/*
 * The strict pass: a recursive descent over RFC 8259's grammar, depth-capped.
 *
 * Model. UTF-8 is checked once for the whole text, so everything after it looks at ASCII only:
 * no byte of a longer sequence can be taken for a quote or a bracket. Strings are skipped 16
 * bytes a step, digits 8. What is not a number is copied to the rewritten text in long runs
 * (s->run is where the current one began).
 *
 * Duplicate keys. Keys of all open objects lie on one stack; an open-addressing table over the
 * stack finds a key of the innermost object. Entries leave in the reverse order of their
 * arrival, so clearing their slots never breaks a probe chain. The hash is keyed per process:
 * a stranger cannot aim a megabyte of keys at one chain. Keys are compared unescaped, so
 * "a" and "\u0061" are the same key.
 *
 * Not taken: one hash table per object (allocation for each), sorting the keys at the object's
 * end (the error then names the wrong place), comparing pairwise (a 1 MB object of short keys
 * would take minutes).
 */
#include "base/json_scan.h"

#include <stdatomic.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/num.h"
#include "base/swar.h"
#include "base/utf8.h"

#define KEYS_MIN 32 /* of open objects, before anything is allocated */

struct key {
	const char *p; /* unescaped */
	uint32_t n;
	uint32_t slot;
	uint64_t hash;
};

struct scan {
	const char *p, *begin, *end;
	const char *run; /* copied into out up to here */
	struct vk_buf *out;
	struct vk_arena *arena;
	const struct vk_json_limits *limits;
	struct vk_error *err;
	unsigned depth;
	size_t values;
	struct vk_json_spans *first, *last;
	struct vk_json_spans *objects, *objects_last;

	uint64_t seed;
	struct key *keys;
	uint32_t *slots; /* index into keys + 1; 0: free */
	size_t keys_n, keys_cap, slots_cap; /* slots_cap = 2 * keys_cap, a power of two */
	struct key keys_small[KEYS_MIN];
	uint32_t slots_small[2 * KEYS_MIN];
};

static enum vk_status value(struct scan *s);

static uint64_t process_seed(void)
{
	static _Atomic uint64_t seed;
	uint64_t v = atomic_load_explicit(&seed, memory_order_relaxed);
	if (v) return v;
	uint64_t none = 0;
	vk_random(&v, sizeof v);
	v |= 1;
	return atomic_compare_exchange_strong(&seed, &none, v) ? v : none;
}

/* "line 3 (byte 41)" or "byte 41". */
static void place(const struct scan *s, const char *at, char dst[64])
{
	size_t offset = (size_t)(at - s->begin), line = 1;
	if (!s->limits->lines) {
		snprintf(dst, 64, "byte %zu", offset);
		return;
	}
	for (const char *p = s->begin; p < at; p++) line += *p == '\n';
	snprintf(dst, 64, "line %zu (byte %zu)", line, offset);
}

static enum vk_status bad(const struct scan *s, const char *at, const char *what)
{
	char where[64];
	place(s, at, where);
	return vk_fail(s->err, VK_E_INVALID, "invalid JSON at %s: %s", where, what);
}

/* The same with what stands there instead. */
static enum vk_status expected(const struct scan *s, const char *at, const char *what)
{
	char text[128];
	if (at >= s->end)
		snprintf(text, sizeof text, "expected %s, found the end of the text", what);
	else if (*at > 0x20 && *at < 0x7f)
		snprintf(text, sizeof text, "expected %s, found '%c'", what, *at);
	else
		snprintf(text, sizeof text, "expected %s, found byte 0x%02x", what, (unsigned char)*at);
	return bad(s, at, text);
}

static enum vk_status no_memory(const struct scan *s)
{
	return vk_fail(s->err, VK_E_NOMEM, "out of memory while reading JSON");
}

static void skip_space(struct scan *s)
{
	const char *p = s->p;
	while (p < s->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
	s->p = p;
}

static bool is_digit(const char *p, const char *end)
{
	return p < end && (unsigned char)(*p - '0') <= 9;
}

/* ---- strings ---- */

/* Four hex digits at p, or -1. */
static int hex4(const char *p, const char *end)
{
	uint8_t b[2];
	if (end - p < 4 || !vk_unhex(b, 2, p, 4)) return -1;
	return b[0] << 8 | b[1];
}

/* The code point of \uXXXX at p (after the u; its second half, too, when a pair), *next behind
 * it. Negative: not there. Surrogates that stand alone come back as they are. */
static int32_t unicode_escape(const char *p, const char *end, const char **next)
{
	int32_t cp = hex4(p, end);
	*next = p + 4;
	if (cp < 0xd800 || cp > 0xdbff || end - p < 10 || p[4] != '\\' || p[5] != 'u') return cp;
	int low = hex4(p + 6, end);
	if (low < 0xdc00 || low > 0xdfff) return cp;
	*next = p + 10;
	return 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
}

/* s->p is behind the backslash at `at`. */
static enum vk_status escape(struct scan *s, const char *at)
{
	if (s->p == s->end) return expected(s, s->p, "an escape");
	switch (*s->p++) {
	case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
		return VK_OK;
	case 'u':
		break;
	default:
		return bad(s, at, "a backslash is followed by no known escape");
	}
	int32_t cp = unicode_escape(s->p, s->end, &s->p);
	if (cp < 0) return bad(s, at, "\\u wants four hexadecimal digits");
	if (cp == 0) return bad(s, at, "\\u0000 is not accepted");
	if (cp >= 0xd800 && cp <= 0xdfff) return bad(s, at, "a surrogate stands alone");
	return VK_OK;
}

/* s->p at the opening quote; raw is what is between the quotes. */
static enum vk_status string(struct scan *s, struct vk_bytes *raw, bool *escaped)
{
	const char *start = ++s->p;
	*escaped = false;
	for (;;) {
		s->p = vk_json_plain(s->p, s->end);
		if (s->p == s->end) return bad(s, start - 1, "this string does not end");
		if (*s->p == '"') break;
		if (*s->p != '\\') return bad(s, s->p, "a control character in a string must be escaped");
		*escaped = true;
		const char *at = s->p++;
		enum vk_status st = escape(s, at);
		if (st) return st;
	}
	*raw = (struct vk_bytes){start, (size_t)(s->p - start)};
	s->p++;
	return VK_OK;
}

/* raw is checked already. The result is no longer than the source. */
static bool unescape(struct vk_arena *arena, struct vk_bytes raw, struct vk_bytes *out)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	char *dst = vk_arena_alloc(arena, raw.n), *d = dst;
	if (!dst) return false;
	for (const char *p = raw.p, *end = raw.p + raw.n; p < end;) {
		if (*p != '\\') {
			*d++ = *p++;
			continue;
		}
		char c = p[1];
		const char *known = strchr(from, c);
		p += 2;
		if (c == 'u')
			d += vk_utf8_put(d, (uint32_t)unicode_escape(p, end, &p));
		else
			*d++ = known ? to[known - from] : c;
	}
	*out = (struct vk_bytes){dst, (size_t)(d - dst)};
	return true;
}

/* ---- keys ---- */

static size_t free_slot(const struct scan *s, uint64_t hash)
{
	size_t i = hash & (s->slots_cap - 1);
	while (s->slots[i]) i = (i + 1) & (s->slots_cap - 1);
	return i;
}

static bool keys_grow(struct scan *s)
{
	size_t cap = s->keys_cap * 2;
	struct key *keys = vk_arena_calloc(s->arena, cap, sizeof *keys);
	uint32_t *slots = vk_arena_calloc(s->arena, 2 * cap, sizeof *slots);
	if (!keys || !slots) return false;
	memcpy(keys, s->keys, s->keys_n * sizeof *keys);
	s->keys = keys;
	s->slots = slots;
	s->keys_cap = cap;
	s->slots_cap = 2 * cap;
	/* In order of arrival: later entries never stand in an earlier one's way. */
	for (size_t i = 0; i < s->keys_n; i++) {
		size_t slot = free_slot(s, keys[i].hash);
		keys[i].slot = (uint32_t)slot;
		slots[slot] = (uint32_t)i + 1;
	}
	return true;
}

static enum vk_status duplicate(const struct scan *s, const char *at, struct vk_bytes key)
{
	size_t n = key.n < 64 ? key.n : 64;
	char text[128];
	n = vk_utf8_valid(key.p, n); /* do not cut a character in two */
	snprintf(text, sizeof text, "duplicate key \"%.*s\"", (int)n, key.p);
	return bad(s, at, text);
}

/* Adds a key of the object whose first key is keys[base]. */
static enum vk_status key_add(struct scan *s, size_t base, struct vk_bytes key, const char *at)
{
	if (s->keys_n == s->keys_cap && !keys_grow(s)) return no_memory(s);
	uint64_t hash = vk_hash64(s->seed + base, key.p, key.n);
	size_t i = hash & (s->slots_cap - 1);
	for (; s->slots[i]; i = (i + 1) & (s->slots_cap - 1)) {
		const struct key *k = &s->keys[s->slots[i] - 1];
		if (k->hash == hash && s->slots[i] - 1 >= base &&
		    vk_bytes_eq(key, (struct vk_bytes){k->p, k->n}))
			return duplicate(s, at, key);
	}
	s->keys[s->keys_n++] = (struct key){key.p, (uint32_t)key.n, (uint32_t)i, hash};
	s->slots[i] = (uint32_t)s->keys_n;
	return VK_OK;
}

static void keys_drop(struct scan *s, size_t base)
{
	while (s->keys_n > base) s->slots[s->keys[--s->keys_n].slot] = 0;
}

/* ---- numbers ---- */

/* End of the number at p, or NULL and *at where the grammar breaks. */
static const char *number_end(const char *p, const char *end, const char **at)
{
	if (p < end && *p == '-') p++;
	*at = p;
	if (!is_digit(p, end)) return NULL;
	if (*p == '0')
		p++;
	else
		p = vk_swar_skip_digits(p, end);
	if (p < end && *p == '.') {
		*at = ++p;
		if (!is_digit(p, end)) return NULL;
		p = vk_swar_skip_digits(p, end);
	}
	if (p < end && (*p == 'e' || *p == 'E')) {
		p++;
		if (p < end && (*p == '+' || *p == '-')) p++;
		*at = p;
		if (!is_digit(p, end)) return NULL;
		p = vk_swar_skip_digits(p, end);
	}
	*at = p;
	return is_digit(p, end) ? NULL : p; /* 01 */
}

/* A place at the end of a list of spans; NULL: no memory. */
static struct vk_json_span *append(struct scan *s, struct vk_json_spans **first, struct vk_json_spans **last)
{
	if (!*last || (*last)->n == VK_JSON_SPANS) {
		struct vk_json_spans *b = vk_arena_alloc(s->arena, sizeof *b);
		if (!b) return NULL;
		b->next = NULL;
		b->n = 0;
		if (*last)
			(*last)->next = b;
		else
			*first = b;
		*last = b;
	}
	return &(*last)->span[(*last)->n++];
}

/* Replaces [p, s->p) by a 0 in the rewritten text and notes the span. */
static enum vk_status lift(struct scan *s, const char *p, uint32_t count)
{
	struct vk_json_span *span = append(s, &s->first, &s->last);
	if (!span) return no_memory(s);
	*span = (struct vk_json_span){p, (uint32_t)(s->p - p), count};
	vk_buf_put(s->out, s->run, (size_t)(p - s->run));
	vk_buf_putc(s->out, '0');
	s->run = s->p;
	return s->out->failed ? no_memory(s) : VK_OK;
}

static enum vk_status number(struct scan *s)
{
	const char *start = s->p, *at, *stop = number_end(s->p, s->end, &at);
	if (!stop) {
		if (is_digit(at, s->end)) return bad(s, start, "a number must not start with 0");
		return expected(s, at, "a digit");
	}
	s->p = stop;
	return lift(s, start, 0);
}

/* Lifts the array at s->p when it holds one or more numbers and nothing else. *lifted false:
 * it is another array or a broken one; s->p is where it was, and the ordinary way finds out. */
static enum vk_status number_array(struct scan *s, bool *lifted)
{
	const char *start = s->p, *first = start + 1;
	size_t count;
	*lifted = false;
	while (first < s->end && (*first == ' ' || *first == '\n' || *first == '\r' || *first == '\t')) first++;
	if (first == s->end || (*first != '-' && !is_digit(first, s->end))) return VK_OK;
	const char *stop = vk_numbers_skip(start, s->end, &count);
	if (!stop) return VK_OK;
	s->p = stop;
	*lifted = true;
	return lift(s, start, (uint32_t)count);
}

/* ---- values ---- */

static enum vk_status enter(struct scan *s)
{
	if (s->depth++ < s->limits->depth_max) return VK_OK;
	char text[64];
	snprintf(text, sizeof text, "more than %u levels deep", s->limits->depth_max);
	return bad(s, s->p, text);
}

/* After an item: a comma (true, *done false), the closing bracket (*done true), or an error. */
static enum vk_status separator(struct scan *s, char close, bool *done)
{
	skip_space(s);
	*done = s->p < s->end && *s->p == close;
	if (!*done && (s->p == s->end || *s->p != ','))
		return expected(s, s->p, close == ']' ? "',' or ']'" : "',' or '}'");
	s->p++;
	return VK_OK;
}

static enum vk_status array(struct scan *s)
{
	bool done = false;
	enum vk_status st = enter(s);
	if (!st) st = number_array(s, &done);
	if (st) return st;
	if (!done) {
		s->p++;
		skip_space(s);
		if (s->p < s->end && *s->p == ']') {
			s->p++;
			done = true;
		}
	}
	while (!done) {
		st = value(s);
		if (!st) st = separator(s, ']', &done);
		if (st) return st;
	}
	s->depth--;
	return VK_OK;
}

static enum vk_status member(struct scan *s, size_t base)
{
	struct vk_bytes key;
	bool escaped;
	skip_space(s);
	const char *at = s->p;
	if (at == s->end || *at != '"') return expected(s, at, "a key in quotes");
	enum vk_status st = string(s, &key, &escaped);
	if (st) return st;
	if (escaped && !unescape(s->arena, key, &key)) return no_memory(s);
	st = key_add(s, base, key, at);
	if (st) return st;
	skip_space(s);
	if (s->p == s->end || *s->p != ':') return expected(s, s->p, "':'");
	s->p++;
	return value(s);
}

static enum vk_status object(struct scan *s)
{
	const char *start = s->p;
	struct vk_json_span *span = NULL;
	size_t base = s->keys_n;
	bool done = false;
	enum vk_status st = enter(s);
	if (st) return st;
	if (s->limits->objects && !(span = append(s, &s->objects, &s->objects_last))) return no_memory(s);
	s->p++;
	skip_space(s);
	if (s->p < s->end && *s->p == '}') {
		s->p++;
		done = true;
	}
	while (!done) {
		st = member(s, base);
		if (!st) st = separator(s, '}', &done);
		if (st) return st;
	}
	if (span) *span = (struct vk_json_span){start, (uint32_t)(s->p - start), 0};
	keys_drop(s, base);
	s->depth--;
	return VK_OK;
}

static enum vk_status literal(struct scan *s, const char *word)
{
	size_t n = strlen(word);
	if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0) return expected(s, s->p, "a value");
	s->p += n;
	return VK_OK;
}

static enum vk_status value(struct scan *s)
{
	struct vk_bytes raw;
	bool escaped;
	skip_space(s);
	if (s->p == s->end) return expected(s, s->p, "a value");
	if (++s->values > s->limits->values_max)
		return vk_fail(s->err, VK_E_TOO_LARGE, "JSON has more than %zu values", s->limits->values_max);
	switch (*s->p) {
	case '{': return object(s);
	case '[': return array(s);
	case '"': return string(s, &raw, &escaped);
	case 't': return literal(s, "true");
	case 'f': return literal(s, "false");
	case 'n': return literal(s, "null");
	case '-': case '0': case '1': case '2': case '3': case '4':
	case '5': case '6': case '7': case '8': case '9':
		return number(s);
	default: return expected(s, s->p, "a value");
	}
}

enum vk_status vk_json_scan(struct vk_arena *arena, struct vk_bytes text,
			    const struct vk_json_limits *limits, struct vk_buf *rewritten,
			    struct vk_json_spans **spans, struct vk_json_spans **objects,
			    struct vk_error *err)
{
	struct scan s;
	memset(&s, 0, offsetof(struct scan, keys_small));
	memset(s.slots_small, 0, sizeof s.slots_small);
	if (!text.p) text.p = "";
	s.p = s.begin = s.run = text.p;
	s.end = text.p + text.n;
	s.out = rewritten;
	s.arena = arena;
	s.limits = limits;
	s.err = err;
	s.seed = process_seed();
	s.keys = s.keys_small;
	s.keys_cap = KEYS_MIN;
	s.slots = s.slots_small;
	s.slots_cap = 2 * KEYS_MIN;
	*spans = *objects = NULL;

	if (text.n >= UINT32_MAX) return vk_fail(err, VK_E_TOO_LARGE, "JSON text is 4 GiB or longer");
	size_t valid = vk_utf8_valid(text.p, text.n);
	if (valid < text.n) return bad(&s, text.p + valid, "not UTF-8");
	enum vk_status st = value(&s);
	if (st) return st;
	skip_space(&s);
	if (s.p < s.end) return expected(&s, s.p, "the end of the text");
	if (s.first) vk_buf_put(rewritten, s.run, (size_t)(s.end - s.run));
	if (rewritten->failed) return no_memory(&s);
	*spans = s.first;
	*objects = s.objects;
	return VK_OK;
}

/* ---- comments and trailing commas ---- */

/* Blanks the comment at p (a slash); its end, or NULL when it is none or does not end. */
static char *strip_comment(char *p, char *end)
{
	char *start = p, *stop;
	if (end - p < 2) return NULL;
	if (p[1] == '/') {
		stop = memchr(p, '\n', (size_t)(end - p));
		if (!stop) stop = end;
	} else if (p[1] == '*') {
		stop = memmem(p + 2, (size_t)(end - p - 2), "*/", 2);
		if (!stop) return NULL;
		stop += 2;
	} else {
		return NULL;
	}
	for (p = start; p < stop; p++)
		if (*p != '\n') *p = ' ';
	return stop;
}

/* Past the string whose opening quote is at p; an unfinished one is left for the strict pass. */
static char *strip_string(char *p, char *end)
{
	for (p++; p < end; p++) {
		if (*p == '\\')
			p++;
		else if (*p == '"')
			return p + 1;
	}
	return end;
}

enum vk_status vk_json_strip(struct vk_arena *arena, struct vk_bytes text, struct vk_bytes *out,
			     struct vk_error *err)
{
	char *copy = vk_arena_strndup(arena, text.p, text.n);
	if (!copy) return vk_fail(err, VK_E_NOMEM, "out of memory while reading JSON");
	char *end = copy + text.n, *comma = NULL; /* the last thing seen, after an item */
	char before = 0;                          /* last character that is no space or comment */
	for (char *p = copy; p < end;) {
		char c = *p;
		if (c == '/') {
			char *stop = strip_comment(p, end);
			if (!stop) {
				struct vk_json_limits limits = {.lines = true};
				struct scan s = {.begin = copy, .limits = &limits, .err = err};
				return bad(&s, p, "a comment does not end, or is none");
			}
			p = stop;
			continue;
		}
		if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
			p++;
			continue;
		}
		if ((c == ']' || c == '}') && comma) *comma = ' ';
		comma = c == ',' && before && !strchr("[{,:", before) ? p : NULL;
		before = c;
		p = c == '"' ? strip_string(p, end) : p + 1;
	}
	*out = (struct vk_bytes){copy, text.n};
	return VK_OK;
}
