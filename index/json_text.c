/* Spans of JSON text: one bounded scanner, no values. */
#include "index/json_text.h"

#include "base/utf8.h"

static bool space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static const char *skip_space(const char *p, const char *end)
{
	while (p < end && space(*p)) p++;
	return p;
}

/* p at the opening quote: one past the closing one, or NULL. A quote is escaped when an odd number of
 * backslashes stands before it. By memchr: payloads are mostly long strings, and filters skip over them. */
static const char *skip_string(const char *p, const char *end)
{
	for (const char *q = p + 1; q < end && (q = memchr(q, '"', (size_t)(end - q))); q++) {
		const char *b = q;
		while (b > p + 1 && b[-1] == '\\') b--;
		if ((q - b) % 2 == 0) return q + 1;
	}
	return NULL;
}

static const char *skip_container(const char *p, const char *end)
{
	size_t depth = 0;
	while (p && p < end) {
		char c = *p;
		if (c == '"') {
			p = skip_string(p, end);
			continue;
		}
		p++;
		if (c == '{' || c == '[') depth++;
		if ((c == '}' || c == ']') && --depth == 0) return p;
	}
	return NULL;
}

static const char *skip_value(const char *p, const char *end)
{
	if (p >= end) return NULL;
	if (*p == '"') return skip_string(p, end);
	if (*p == '{' || *p == '[') return skip_container(p, end);
	const char *start = p;
	while (p < end && !space(*p) && *p != ',' && *p != '}' && *p != ']' && *p != ':') p++;
	return p > start ? p : NULL;
}

struct vk_bytes vk_jt_trim(struct vk_bytes text)
{
	const char *end = text.p + text.n, *p = text.n ? skip_space(text.p, end) : end;
	const char *stop = skip_value(p, end);
	return (struct vk_bytes){p, stop ? (size_t)(stop - p) : 0};
}

bool vk_jt_open(struct vk_jt_walk *w, struct vk_bytes text)
{
	*w = (struct vk_jt_walk){.bad = true};
	if (text.n < 2 || (*text.p != '{' && *text.p != '[')) return false;
	*w = (struct vk_jt_walk){
	    .p = text.p + 1, .end = text.p + text.n - 1, .object = *text.p == '{', .first = true};
	return true;
}

static bool broken(struct vk_jt_walk *w)
{
	w->bad = true;
	return false;
}

bool vk_jt_next(struct vk_jt_walk *w, struct vk_jt_item *out)
{
	if (w->bad) return false;
	const char *p = skip_space(w->p, w->end), *stop;
	if (p == w->end) return false;
	if (!w->first) {
		if (*p != ',') return broken(w);
		p = skip_space(p + 1, w->end);
	}
	w->first = false;
	const char *start = p;
	out->key = (struct vk_bytes){0};
	if (w->object) {
		stop = p < w->end && *p == '"' ? skip_string(p, w->end) : NULL;
		if (!stop) return broken(w);
		out->key = (struct vk_bytes){p, (size_t)(stop - p)};
		p = skip_space(stop, w->end);
		if (p == w->end || *p != ':') return broken(w);
		p = skip_space(p + 1, w->end);
	}
	stop = skip_value(p, w->end);
	if (!stop) return broken(w);
	out->value = (struct vk_bytes){p, (size_t)(stop - p)};
	out->whole = (struct vk_bytes){start, (size_t)(stop - start)};
	w->p = stop;
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9') return c - '0';
	if (c >= 'a' && c <= 'f') return c - 'a' + 10;
	if (c >= 'A' && c <= 'F') return c - 'A' + 10;
	return -1;
}

static bool read_hex4(const char *p, const char *end, uint32_t *out)
{
	*out = 0;
	if (end - p < 4) return false;
	for (int i = 0; i < 4; i++) {
		int d = hex_digit(p[i]);
		if (d < 0) return false;
		*out = *out << 4 | (uint32_t)d;
	}
	return true;
}

/* The character that the escape at p (behind the backslash) stands for; where to go on, or NULL. */
static const char *unescape(const char *p, const char *end, char dst[4], size_t *n)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	uint32_t c, low;
	const char *at = p < end && *p ? strchr(from, *p) : NULL;
	if (at) {
		dst[0] = to[at - from];
		*n = 1;
		return p + 1;
	}
	if (p >= end || *p != 'u' || !read_hex4(p + 1, end, &c)) return NULL;
	p += 5;
	if (c >= 0xd800 && c < 0xdc00) {
		if (end - p < 6 || p[0] != '\\' || p[1] != 'u' || !read_hex4(p + 2, end, &low)) return NULL;
		c = 0x10000 + ((c - 0xd800) << 10) + ((low - 0xdc00) & 0x3ff);
		p += 6;
	}
	*n = vk_utf8_put(dst, c);
	return p;
}

bool vk_jt_key_is(struct vk_bytes quoted, struct vk_bytes name)
{
	if (quoted.n < 2) return false;
	const char *p = quoted.p + 1, *end = quoted.p + quoted.n - 1;
	if (!memchr(p, '\\', (size_t)(end - p)))
		return vk_bytes_eq((struct vk_bytes){p, (size_t)(end - p)}, name);
	size_t at = 0;
	while (p < end) {
		char c[4] = {*p};
		size_t n = 1;
		p = *p == '\\' ? unescape(p + 1, end, c, &n) : p + 1;
		if (!p || name.n - at < n || memcmp(name.p + at, c, n) != 0) return false;
		at += n;
	}
	return at == name.n;
}
