/* Recursive descent over one body; depth is capped, so a hostile body cannot end the program. */
#include "json.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 32

struct reader {
	struct fake_arena *arena;
	const char *at, *end;
	const char *why;
	int depth;
};

static struct fake_json *read_value(struct reader *r);

static void *refuse(struct reader *r, const char *why)
{
	if (!r->why)
		r->why = why;
	return NULL;
}

static void skip_space(struct reader *r)
{
	while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
		r->at++;
}

static int read_hex4(struct reader *r)
{
	if (r->end - r->at < 4)
		return -1;
	int v = 0;
	for (int i = 0; i < 4; i++) {
		char c = *r->at++;
		int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
			: c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
		if (d < 0)
			return -1;
		v = v * 16 + d;
	}
	return v;
}

static char *put_utf8(char *to, unsigned c)
{
	if (c < 0x80) {
		*to++ = (char)c;
	} else if (c < 0x800) {
		*to++ = (char)(0xc0 | c >> 6);
		*to++ = (char)(0x80 | (c & 63));
	} else if (c < 0x10000) {
		*to++ = (char)(0xe0 | c >> 12);
		*to++ = (char)(0x80 | (c >> 6 & 63));
		*to++ = (char)(0x80 | (c & 63));
	} else {
		*to++ = (char)(0xf0 | c >> 18);
		*to++ = (char)(0x80 | (c >> 12 & 63));
		*to++ = (char)(0x80 | (c >> 6 & 63));
		*to++ = (char)(0x80 | (c & 63));
	}
	return to;
}

/* Bytes of the well-formed UTF-8 sequence at s, 0 if it is none (overlong, surrogate, cut). */
static size_t utf8_len(const unsigned char *s, size_t n)
{
	if (s[0] < 0x80)
		return 1;
	size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	if (s[0] < 0xc2 || s[0] > 0xf4 || n < len)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90)
		|| (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

static char *read_escape(struct reader *r, char *to)
{
	static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
	char c = *r->at++;
	const char *p = strchr(from, c);
	if (c && p) {
		*to++ = into[p - from];
		return to;
	}
	if (c != 'u')
		return refuse(r, "unknown escape");
	int v = read_hex4(r);
	if (v < 0 || (v >= 0xdc00 && v <= 0xdfff))
		return refuse(r, "bad \\u escape or lone surrogate");
	if (v >= 0xd800 && v <= 0xdbff) {
		if (r->end - r->at < 6 || r->at[0] != '\\' || r->at[1] != 'u')
			return refuse(r, "lone surrogate");
		r->at += 2;
		int low = read_hex4(r);
		if (low < 0xdc00 || low > 0xdfff)
			return refuse(r, "lone surrogate");
		v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
	}
	return put_utf8(to, (unsigned)v);
}

static const char *read_string(struct reader *r, size_t *n)
{
	const char *close = r->at + 1;
	while (close < r->end && *close != '"')
		close += *close == '\\' ? 2 : 1;
	if (close >= r->end)
		return refuse(r, "unterminated string");
	char *out = fake_arena_take(r->arena, (size_t)(close - r->at) + 1), *to = out;
	for (r->at++; *r->at != '"';) {
		unsigned char c = (unsigned char)*r->at;
		if (c < 0x20)
			return refuse(r, "control character in a string");
		if (c == '\\') {
			r->at++;
			if (!(to = read_escape(r, to)))
				return NULL;
			continue;
		}
		size_t len = utf8_len((const unsigned char *)r->at, (size_t)(r->end - r->at));
		if (!len)
			return refuse(r, "not UTF-8");
		memcpy(to, r->at, len);
		to += len;
		r->at += len;
	}
	r->at++;
	*to = 0;
	*n = (size_t)(to - out);
	return out;
}

static bool read_digits(struct reader *r)
{
	const char *first = r->at;
	while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
		r->at++;
	return r->at > first;
}

static bool read_number(struct reader *r, struct fake_json *v)
{
	const char *first = r->at;
	v->type = FAKE_NUMBER;
	v->is_int = true;
	if (*r->at == '-')
		r->at++;
	const char *digits = r->at;
	if (!read_digits(r) || (*digits == '0' && r->at - digits > 1))
		return refuse(r, "bad number");
	if (r->at < r->end && *r->at == '.') {
		v->is_int = false;
		r->at++;
		if (!read_digits(r))
			return refuse(r, "bad number");
	}
	if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
		v->is_int = false;
		r->at++;
		if (r->at < r->end && (*r->at == '+' || *r->at == '-'))
			r->at++;
		if (!read_digits(r))
			return refuse(r, "bad number");
	}
	if (v->is_int && r->at - digits < 16) { /* token ids: exact without strtod */
		int64_t n = 0;
		for (const char *p = digits; p < r->at; p++)
			n = n * 10 + (*p - '0');
		v->num = (double)(*first == '-' ? -n : n);
		return true;
	}
	char text[64];
	size_t n = (size_t)(r->at - first);
	if (n >= sizeof text)
		return refuse(r, "number too long");
	memcpy(text, first, n);
	text[n] = 0;
	v->num = strtod(text, NULL);
	return true;
}

static bool has_key(const struct fake_json *object, const char *key, size_t n)
{
	for (const struct fake_json *m = object->child; m; m = m->next)
		if (m->key_n == n && !memcmp(m->key, key, n))
			return true;
	return false;
}

static bool read_members(struct reader *r, struct fake_json *v, char close)
{
	struct fake_json **tail = &v->child;
	r->at++;
	skip_space(r);
	if (r->at < r->end && *r->at == close) {
		r->at++;
		return true;
	}
	for (;;) {
		const char *key = NULL;
		size_t key_n = 0;
		skip_space(r);
		if (close == '}') {
			if (r->at >= r->end || *r->at != '"' || !(key = read_string(r, &key_n)))
				return refuse(r, "a member needs a name");
			if (has_key(v, key, key_n))
				return refuse(r, "duplicate key");
			skip_space(r);
			if (r->at >= r->end || *r->at++ != ':')
				return refuse(r, "':' expected");
		}
		struct fake_json *child = read_value(r);
		if (!child)
			return false;
		child->key = key;
		child->key_n = key_n;
		*tail = child;
		tail = &child->next;
		v->count++;
		skip_space(r);
		if (r->at >= r->end)
			return refuse(r, "unexpected end");
		char c = *r->at++;
		if (c == close)
			return true;
		if (c != ',')
			return refuse(r, "',' expected");
	}
}

static bool read_word(struct reader *r, const char *word)
{
	size_t n = strlen(word);
	if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n))
		return refuse(r, "unknown word");
	r->at += n;
	return true;
}

static bool read_into(struct reader *r, struct fake_json *v)
{
	switch (*r->at) {
	case '{':
		v->type = FAKE_OBJECT;
		return read_members(r, v, '}');
	case '[':
		v->type = FAKE_ARRAY;
		return read_members(r, v, ']');
	case '"':
		v->type = FAKE_STRING;
		return (v->str = read_string(r, &v->str_n)) != NULL;
	case 't':
		v->type = FAKE_BOOL;
		v->num = 1;
		return read_word(r, "true");
	case 'f':
		v->type = FAKE_BOOL;
		return read_word(r, "false");
	case 'n':
		v->type = FAKE_NULL;
		return read_word(r, "null");
	default:
		return read_number(r, v);
	}
}

static struct fake_json *read_value(struct reader *r)
{
	skip_space(r);
	if (r->at >= r->end)
		return refuse(r, "unexpected end");
	if (++r->depth > DEPTH_MAX)
		return refuse(r, "too deep");
	struct fake_json *v = fake_arena_take(r->arena, sizeof *v);
	memset(v, 0, sizeof *v);
	bool ok = read_into(r, v);
	r->depth--;
	return ok ? v : NULL;
}

struct fake_json *fake_json_read(struct fake_arena *a, const char *text, size_t n, const char **why)
{
	struct reader r = {.arena = a, .at = text, .end = text + n};
	struct fake_json *v = read_value(&r);
	skip_space(&r);
	if (v && r.at != r.end)
		v = refuse(&r, "trailing bytes");
	*why = r.why;
	return v;
}

const struct fake_json *fake_json_get(const struct fake_json *object, const char *key)
{
	if (!object || object->type != FAKE_OBJECT)
		return NULL;
	size_t n = strlen(key);
	for (const struct fake_json *m = object->child; m; m = m->next)
		if (m->key_n == n && !memcmp(m->key, key, n))
			return m;
	return NULL;
}

double fake_json_num(const struct fake_json *object, const char *key, double otherwise)
{
	const struct fake_json *m = fake_json_get(object, key);
	return m && (m->type == FAKE_NUMBER || m->type == FAKE_BOOL) ? m->num : otherwise;
}

const char *fake_json_str(const struct fake_json *object, const char *key)
{
	const struct fake_json *m = fake_json_get(object, key);
	return m && m->type == FAKE_STRING ? m->str : NULL;
}
