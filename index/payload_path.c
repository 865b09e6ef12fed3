/* Paths into payloads: Qdrant's grammar, and the values that a path reaches. */
#include "index/payload.h"

#include "base/utf8.h"

/* An unquoted key: letters, digits, _ and -; beyond ASCII anything. */
static bool plain(char c)
{
	unsigned char u = (unsigned char)c;
	return u >= 0x80 || (u >= '0' && u <= '9') || ((u | 32) >= 'a' && (u | 32) <= 'z') || u == '_' ||
	       u == '-';
}

/* A key at p, plain or quoted; where it ends, or NULL. */
static const char *read_key(const char *p, const char *end, struct vk_bytes *key)
{
	const char *start = p;
	if (p < end && *p == '"') {
		for (p = ++start; p < end && *p != '"' && *p != '\\'; p++) {}
		if (p == end || *p != '"') return NULL;
		*key = (struct vk_bytes){start, (size_t)(p - start)};
		return p + 1;
	}
	while (p < end && plain(*p)) p++;
	*key = (struct vk_bytes){start, (size_t)(p - start)};
	return p > start ? p : NULL;
}

/* `[]` or `[12]`, p behind the bracket; where it ends, or NULL. */
static const char *read_index(const char *p, const char *end, int64_t *index)
{
	const char *start = p;
	int64_t v = 0;
	for (; p < end && *p >= '0' && *p <= '9'; p++) {
		if (v > INT32_MAX) return NULL;
		v = v * 10 + (*p - '0');
	}
	*index = p == start ? -1 : v;
	return p < end && *p == ']' ? p + 1 : NULL;
}

#define SHOWN_MAX 300

static enum vk_status refuse(struct vk_error *err, struct vk_bytes text)
{
	size_t n = vk_utf8_valid(text.p, text.n) == text.n ? text.n : 0;
	if (n > SHOWN_MAX) n = vk_utf8_valid(text.p, SHOWN_MAX); /* whole characters */
	return vk_fail(err, VK_E_INVALID, "Invalid json path: '%.*s'", (int)n, n ? text.p : "");
}

enum vk_status vk_path_parse(struct vk_arena *a, struct vk_bytes text, struct vk_path *out, struct vk_error *err)
{
	(void)a; /* Qdrant's quoted keys know no escapes: every key borrows */
	const char *p = text.p, *end = text.p + text.n;
	out->text = text;
	out->n = 0;
	/* A key goes into payload text as it is: what is no text, or has a NUL, could not be read back. */
	if (!text.n || vk_utf8_valid(p, text.n) != text.n || memchr(p, 0, text.n)) return refuse(err, text);
	do {
		struct vk_path_step *s = &out->step[out->n];
		if (out->n == VK_PATH_STEPS_MAX)
			return vk_fail(err, VK_E_INVALID, "json path has more than %d steps", VK_PATH_STEPS_MAX);
		*s = (struct vk_path_step){.index = -1};
		if (out->n && *p == '[')
			p = read_index(p + 1, end, &s->index);
		else if (!out->n || *p == '.')
			p = read_key(p + (out->n > 0), end, &s->key);
		else
			p = NULL;
		if (!p) return refuse(err, text);
		out->n++;
	} while (p < end);
	return VK_OK;
}

struct reach {
	const struct vk_path *path;
	size_t at; /* step to take next */
	bool open; /* an array at the end is opened */
	bool (*fn)(void *arg, const vk_jv *v);
	void *arg;
};

/* Keys are compared by hand: the step's key is no C string. */
static const vk_jv *member(const vk_jv *object, struct vk_bytes key)
{
	if (vk_jv_type(object) != VK_J_OBJECT) return NULL;
	for (const vk_jv *m = vk_jv_first(object); m; m = vk_jv_next(m))
		if (vk_bytes_eq(vk_jv_key(m), key)) return m;
	return NULL;
}

static bool reach(struct reach *r, const vk_jv *v);

static bool reach_item(void *arg, const vk_jv *item)
{
	struct reach next = *(struct reach *)arg;
	return reach(&next, item);
}

static bool reach(struct reach *r, const vk_jv *v)
{
	for (; r->at < r->path->n; r->at++) {
		const struct vk_path_step *s = &r->path->step[r->at];
		if (!s->key.p) {
			struct reach next = *r;
			next.at++;
			if (s->index < 0) return vk_jv_each(v, reach_item, &next);
			return vk_jv_at(v, (size_t)s->index, reach_item, &next);
		}
		if (!(v = member(v, s->key))) return true;
	}
	enum vk_jtype type = vk_jv_type(v);
	if (r->open && (type == VK_J_ARRAY || type == VK_J_NUMBERS)) return vk_jv_each(v, r->fn, r->arg);
	return r->fn(r->arg, v);
}

void vk_path_each(const vk_jv *payload, const struct vk_path *p, bool (*fn)(void *arg, const vk_jv *v), void *arg)
{
	if (payload) reach(&(struct reach){.path = p, .fn = fn, .arg = arg}, payload);
}

void vk_path_values(const vk_jv *payload, const struct vk_path *p, bool (*fn)(void *arg, const vk_jv *v),
		    void *arg)
{
	if (payload) reach(&(struct reach){.path = p, .open = true, .fn = fn, .arg = arg}, payload);
}
