/* Typed reading of configs with errors that name the place. */
#include "base/cfg.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

void vk_cfg_fail(struct vk_cfg *c, const char *path, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	if (c->failed) return;
	c->failed = true;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	vk_fail(c->err, VK_E_INVALID, "%s: %s", path, text);
}

static bool plain_word(struct vk_bytes key)
{
	for (size_t i = 0; i < key.n; i++)
		if (!isalnum((unsigned char)key.p[i]) && key.p[i] != '_') return false;
	return key.n > 0;
}

const char *vk_cfg_path(struct vk_cfg *c, const char *parent, struct vk_bytes key)
{
	const char *form = plain_word(key) ? "%s%s%.*s" : "%s%s\"%.*s\"";
	char text[512];
	int n = snprintf(text, sizeof text, form, parent, parent[0] ? "." : "", (int)key.n, key.p);
	if (n >= (int)sizeof text) n = sizeof text - 1;
	const char *s = vk_arena_strndup(c->arena, text, (size_t)n);
	return s ? s : parent;
}

static bool in_list(const char *fields, struct vk_bytes key)
{
	for (const char *f = fields; *f;) {
		size_t n = strcspn(f, " ");
		if (n == key.n && memcmp(f, key.p, n) == 0) return true;
		f += n;
		f += strspn(f, " ");
	}
	return false;
}

bool vk_cfg_object(struct vk_cfg *c, const vk_jv *object, const char *path, const char *fields)
{
	if (!object || c->failed || vk_jv_type(object) == VK_J_NULL) return false;
	if (vk_jv_type(object) != VK_J_OBJECT) {
		vk_cfg_fail(c, path, "expected an object");
		return false;
	}
	for (const vk_jv *m = vk_jv_first(object); m; m = vk_jv_next(m))
		if (!in_list(fields, vk_jv_key(m))) {
			vk_cfg_fail(c, vk_cfg_path(c, path, vk_jv_key(m)),
				    "unknown field (known: %s)", fields);
			return false;
		}
	return true;
}

/* The member, or NULL when absent, null, or an error came before. */
static const vk_jv *member(struct vk_cfg *c, const vk_jv *object, const char *key)
{
	const vk_jv *v = c->failed ? NULL : vk_jv_get(object, key);
	return v && vk_jv_type(v) == VK_J_NULL ? NULL : v;
}

const char *vk_cfg_expand(struct vk_cfg *c, const char *path, struct vk_bytes s)
{
	struct vk_buf out;
	const char *result = NULL;
	vk_buf_init(&out, 1 << 20);
	for (size_t i = 0; i < s.n;) {
		const char *end = i + 2 < s.n && s.p[i] == '$' && s.p[i + 1] == '{'
					  ? memchr(s.p + i, '}', s.n - i)
					  : NULL;
		if (!end) {
			vk_buf_putc(&out, s.p[i++]);
			continue;
		}
		char name[128];
		snprintf(name, sizeof name, "%.*s", (int)(end - s.p - (ptrdiff_t)i - 2), s.p + i + 2);
		const char *value = c->getenv ? c->getenv(c->getenv_arg, name) : NULL;
		if (!value) {
			vk_cfg_fail(c, path, "environment variable %s is not set", name);
			goto out;
		}
		vk_buf_puts(&out, value);
		i = (size_t)(end - s.p) + 1;
	}
	result = vk_arena_strndup(c->arena, vk_buf_cstr(&out), out.n);
	if (!result || out.failed) vk_cfg_fail(c, path, "out of memory");
out:
	vk_buf_free(&out);
	return result;
}

const char *vk_cfg_str(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
		       const char *dflt)
{
	const vk_jv *v = member(c, object, key);
	struct vk_bytes s;
	if (!v) return dflt;
	path = vk_cfg_path(c, path, vk_bytes_of(key));
	if (!vk_jv_str(v, &s)) {
		vk_cfg_fail(c, path, "expected a string");
		return dflt;
	}
	const char *x = vk_cfg_expand(c, path, s);
	return x ? x : dflt;
}

const char *vk_cfg_file(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
			const char *dflt)
{
	const char *s = vk_cfg_str(c, object, path, key, dflt);
	if (!s || s[0] == '/' || !c->base_dir) return s;
	return vk_arena_printf(c->arena, "%s/%s", c->base_dir, s);
}

uint64_t vk_cfg_u64(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
		    uint64_t dflt, uint64_t min, uint64_t max)
{
	const vk_jv *v = member(c, object, key);
	uint64_t n;
	if (!v) return dflt;
	if (!vk_jv_u64(v, &n) || n < min || n > max) {
		vk_cfg_fail(c, vk_cfg_path(c, path, vk_bytes_of(key)),
			    "expected a whole number from %llu to %llu", (unsigned long long)min,
			    (unsigned long long)max);
		return dflt;
	}
	return n;
}

bool vk_cfg_bool(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key, bool dflt)
{
	const vk_jv *v = member(c, object, key);
	bool b = dflt;
	if (v && !vk_jv_bool(v, &b))
		vk_cfg_fail(c, vk_cfg_path(c, path, vk_bytes_of(key)), "expected true or false");
	return b;
}

double vk_cfg_f64(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
		  double dflt, double min, double max)
{
	const vk_jv *v = member(c, object, key);
	double d;
	if (!v) return dflt;
	if (!vk_jv_f64(v, &d) || !(d >= min && d <= max)) {
		vk_cfg_fail(c, vk_cfg_path(c, path, vk_bytes_of(key)),
			    "expected a number from %g to %g", min, max);
		return dflt;
	}
	return d;
}

/* A number and a unit of the table: true when the whole string is that. */
struct unit {
	const char *name;
	double factor;
};

static bool parse_unit(const char *s, const struct unit *units, size_t n, uint64_t *out)
{
	char *end;
	if (!isdigit((unsigned char)*s)) return false;
	double v = strtod(s, &end);
	while (*end == ' ') end++;
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(end, units[i].name) == 0 && v * units[i].factor < 1.8e19) {
			*out = (uint64_t)(v * units[i].factor);
			return true;
		}
	return false;
}

bool vk_parse_size(const char *s, uint64_t *bytes)
{
	static const struct unit units[] = {
		{"", 1},       {"b", 1},	  {"kb", 1e3},	      {"mb", 1e6},
		{"gb", 1e9},   {"tb", 1e12},	  {"kib", 1024.0},    {"mib", 1048576.0},
		{"gib", 1073741824.0}, {"tib", 1099511627776.0}, {"k", 1024.0}, {"m", 1048576.0},
		{"g", 1073741824.0},
	};
	return parse_unit(s, units, sizeof units / sizeof *units, bytes);
}

bool vk_parse_duration_ms(const char *s, uint64_t *ms)
{
	static const struct unit units[] = {{"ms", 1}, {"s", 1e3}, {"m", 6e4}, {"h", 3.6e6},
					    {"d", 8.64e7}};
	return parse_unit(s, units, sizeof units / sizeof *units, ms);
}

uint64_t vk_cfg_size(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
		     uint64_t dflt)
{
	const vk_jv *v = member(c, object, key);
	uint64_t n = dflt;
	if (!v || vk_jv_u64(v, &n)) return n;
	const char *s = vk_cfg_str(c, object, path, key, NULL);
	if (s && !vk_parse_size(s, &n))
		vk_cfg_fail(c, vk_cfg_path(c, path, vk_bytes_of(key)),
			    "expected a size such as 20GiB, not \"%s\"", s);
	return n;
}

uint64_t vk_cfg_duration_ms(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
			    uint64_t dflt_ms)
{
	const vk_jv *v = member(c, object, key);
	double seconds;
	uint64_t ms = dflt_ms;
	if (!v) return dflt_ms;
	if (vk_jv_f64(v, &seconds) && seconds >= 0 && seconds < 1e12) return (uint64_t)(seconds * 1000);
	const char *s = vk_cfg_str(c, object, path, key, NULL);
	if (s && !vk_parse_duration_ms(s, &ms))
		vk_cfg_fail(c, vk_cfg_path(c, path, vk_bytes_of(key)),
			    "expected a duration such as 30s, 5m, 12h or 30d, not \"%s\"", s);
	return ms;
}

const char *const *vk_cfg_list(struct vk_cfg *c, const vk_jv *object, const char *path,
			       const char *key)
{
	static const char *const none[] = {NULL};
	const vk_jv *v = member(c, object, key);
	struct vk_bytes s;
	if (!v) return none;
	path = vk_cfg_path(c, path, vk_bytes_of(key));
	bool one = vk_jv_str(v, &s);
	size_t n = one ? 1 : vk_jv_len(v), i = 0;
	if (!one && vk_jv_type(v) != VK_J_ARRAY) {
		vk_cfg_fail(c, path, "expected a list of strings");
		return none;
	}
	const char **list = vk_arena_calloc(c->arena, n + 1, sizeof *list);
	if (!list) {
		vk_cfg_fail(c, path, "out of memory");
		return none;
	}
	if (one) {
		list[0] = vk_cfg_expand(c, path, s);
		return c->failed ? none : list;
	}
	for (const vk_jv *m = vk_jv_first(v); m && !c->failed; m = vk_jv_next(m)) {
		if (vk_jv_str(m, &s))
			list[i++] = vk_cfg_expand(c, path, s);
		else
			vk_cfg_fail(c, path, "expected a list of strings");
	}
	return c->failed ? none : list;
}
