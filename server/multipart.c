/*
 * A body is [preamble] --B CRLF part ... CRLF --B-- [epilogue], a part is headers, an empty line, data. The delimiter of data is the
 * whole of CRLF "--" B, which must be followed by CRLF, by "--", or by blanks and CRLF: data that only begins like it is data.
 */
#include "server/multipart.h"

#include <strings.h>

struct cut {
	struct vk_bytes body;
	char mark[4 + VK_MULTIPART_BOUNDARY_MAX]; /* CRLF "--" B */
	size_t mark_n;
};

static struct vk_bytes trim(struct vk_bytes s)
{
	while (s.n && (*s.p == ' ' || *s.p == '\t')) s.p++, s.n--;
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) s.n--;
	return s;
}

static bool same_word(struct vk_bytes s, const char *word)
{
	return s.n == strlen(word) && strncasecmp(s.p, word, s.n) == 0;
}

/* One "; name=value" or "; name="value"" off the front of rest; a quoted value is without its quotes, escapes are left. */
static bool next_param(struct vk_bytes *rest, struct vk_bytes *name, struct vk_bytes *value)
{
	const char *p = rest->p, *end = p + rest->n;
	while (p < end && *p != ';') p++;
	if (p == end) return false;
	const char *start = ++p;
	while (p < end && *p != '=' && *p != ';') p++;
	*name = trim((struct vk_bytes){start, (size_t)(p - start)});
	*value = (struct vk_bytes){p, 0};
	if (p < end && *p == '=') {
		p++;
		while (p < end && (*p == ' ' || *p == '\t')) p++;
		if (p < end && *p == '"') {
			start = ++p;
			while (p < end && *p != '"') p += *p == '\\' && end - p > 1 ? 2 : 1;
			*value = (struct vk_bytes){start, (size_t)(p - start)};
		} else {
			start = p;
			while (p < end && *p != ';') p++;
			*value = trim((struct vk_bytes){start, (size_t)(p - start)});
		}
	}
	*rest = (struct vk_bytes){p, (size_t)(end - p)};
	return true;
}

static bool param(struct vk_bytes header, const char *name, struct vk_bytes *value)
{
	struct vk_bytes key;
	while (next_param(&header, &key, value))
		if (same_word(key, name)) return true;
	return false;
}

static enum vk_status read_type(struct vk_bytes type, struct cut *c, struct vk_error *err)
{
	struct vk_bytes b;
	size_t n = 0;
	while (n < type.n && type.p[n] != ';') n++;
	if (!same_word(trim((struct vk_bytes){type.p, n}), "multipart/form-data"))
		return vk_fail(err, VK_E_INVALID, "the body must be multipart/form-data");
	if (!param(type, "boundary", &b) || !b.n || b.n > VK_MULTIPART_BOUNDARY_MAX)
		return vk_fail(err, VK_E_INVALID, "multipart/form-data wants a boundary of 1 to %d bytes", VK_MULTIPART_BOUNDARY_MAX);
	memcpy(c->mark, "\r\n--", 4);
	memcpy(c->mark + 4, b.p, b.n);
	c->mark_n = 4 + b.n;
	return VK_OK;
}

/* What follows a delimiter at p: behind its line (*last: it was the closing one); NULL: it was none. */
static const char *delimiter_end(const char *p, const char *end, bool *last)
{
	*last = end - p >= 2 && p[0] == '-' && p[1] == '-';
	if (*last) return p + 2;
	while (p < end && (*p == ' ' || *p == '\t')) p++;
	return end - p >= 2 && p[0] == '\r' && p[1] == '\n' ? p + 2 : NULL;
}

/* The next delimiter from p on: *data_end is where data before it ends. NULL: none. */
static const char *next_delimiter(const struct cut *c, const char *p, const char **data_end, bool *last)
{
	const char *end = c->body.p + c->body.n;
	while (p < end) {
		const char *at = memmem(p, (size_t)(end - p), c->mark, c->mark_n);
		if (!at) return NULL;
		const char *next = delimiter_end(at + c->mark_n, end, last);
		*data_end = at;
		if (next) return next;
		p = at + 1;
	}
	return NULL;
}

/* The first delimiter may stand at the very beginning, without the CRLF. */
static const char *first_delimiter(const struct cut *c, bool *last)
{
	const char *p = c->body.p, *end = p + c->body.n, *ignored;
	size_t n = c->mark_n - 2;
	if (c->body.n >= n && memcmp(p, c->mark + 2, n) == 0) {
		const char *next = delimiter_end(p + n, end, last);
		if (next) return next;
	}
	return next_delimiter(c, p, &ignored, last);
}

/* Is this part called so? *data is where its data begin; false also for headers that do not end. */
static bool is_named(const char *p, const char *end, const char *name, const char **data)
{
	static const char disposition[] = "Content-Disposition:";
	struct vk_bytes value;
	bool named = false;
	*data = NULL;
	while (p < end) {
		const char *eol = memmem(p, (size_t)(end - p), "\r\n", 2);
		if (!eol) return false;
		size_t n = (size_t)(eol - p);
		if (n == 0) {
			*data = eol + 2;
			return named;
		}
		if (n >= sizeof disposition - 1 && strncasecmp(p, disposition, sizeof disposition - 1) == 0)
			named |= param((struct vk_bytes){p, n}, "name", &value) && vk_bytes_is(value, name);
		p = eol + 2;
	}
	return false;
}

enum vk_status vk_multipart_part(struct vk_bytes content_type, struct vk_bytes body, const char *name, struct vk_bytes *data,
				 struct vk_error *err)
{
	struct cut c = {.body = body};
	bool last = false;
	enum vk_status st = read_type(content_type, &c, err);
	if (st) return st;
	const char *p = first_delimiter(&c, &last), *end = body.p + body.n;
	if (!p) return vk_fail(err, VK_E_INVALID, "the body does not begin with its boundary");
	while (!last) {
		/* An empty line may follow the delimiter's own: then data begin at once, and the CRLF before the mark is the line's. */
		const char *start, *stop, *next = next_delimiter(&c, p - 2, &stop, &last);
		if (!next) return vk_fail(err, VK_E_INVALID, "the body ends in the middle of a part");
		if (is_named(p, end, name, &start)) {
			if (start > stop) return vk_fail(err, VK_E_INVALID, "a part of the body has no end of headers");
			*data = (struct vk_bytes){start, (size_t)(stop - start)};
			return VK_OK;
		}
		p = next;
	}
	return vk_fail(err, VK_E_INVALID, "the form has no field `%s`", name);
}
