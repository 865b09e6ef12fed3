/* The JSON writer: straight into the buffer, separators by itself, misuse asserted. */
#include <assert.h>
#include <math.h>

#include "base/json.h"
#include "base/json_scan.h"
#include "base/num.h"
#include "simd/base64.h"
#include "simd/cpu.h"

#define DEPTH_MAX 255

static bool in_object(const struct vk_jw *w)
{
	return w->depth && (w->objects[w->depth / 64] >> (w->depth % 64) & 1);
}

/* Before every value: the comma when one is due, and the key when the place wants one. */
static void begin_value(struct vk_jw *w)
{
	if (w->buf->failed) return; /* nobody reads it: misuse is no matter any more */
	assert(in_object(w) == w->keyed);
	if (w->comma) vk_buf_putc(w->buf, ',');
	w->comma = true; /* for whoever comes after this value */
	w->keyed = false;
}

static void open(struct vk_jw *w, char bracket)
{
	begin_value(w);
	if (w->buf->failed) return;
	assert(w->depth < DEPTH_MAX);
	w->depth++;
	uint64_t bit = (uint64_t)1 << (w->depth % 64);
	if (bracket == '{')
		w->objects[w->depth / 64] |= bit;
	else
		w->objects[w->depth / 64] &= ~bit;
	w->comma = false;
	vk_buf_putc(w->buf, bracket);
}

static void close(struct vk_jw *w, char bracket)
{
	if (w->buf->failed) return;
	assert(w->depth && in_object(w) == (bracket == '}') && !w->keyed);
	w->depth--;
	w->comma = w->depth > 0;
	vk_buf_putc(w->buf, bracket);
}

void vk_jw_object(struct vk_jw *w)
{
	open(w, '{');
}

void vk_jw_object_end(struct vk_jw *w)
{
	close(w, '}');
}

void vk_jw_array(struct vk_jw *w)
{
	open(w, '[');
}

void vk_jw_array_end(struct vk_jw *w)
{
	close(w, ']');
}

static void put_escape(struct vk_buf *b, unsigned char c)
{
	static const char short_form[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f',
					  ['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\'};
	char text[7] = "\\u00";
	if (c < sizeof short_form && short_form[c]) {
		text[1] = short_form[c];
		vk_buf_put(b, text, 2);
		return;
	}
	vk_hex(text + 4, &c, 1);
	vk_buf_put(b, text, 6);
}

static void put_string(struct vk_buf *b, struct vk_bytes s)
{
	const char *p = s.p, *end = p + s.n;
	vk_buf_putc(b, '"');
	while (p < end) {
		const char *stop = vk_json_plain(p, end);
		vk_buf_put(b, p, (size_t)(stop - p));
		p = stop;
		if (p < end) put_escape(b, (unsigned char)*p++);
	}
	vk_buf_putc(b, '"');
}

static void put_key(struct vk_jw *w, struct vk_bytes key)
{
	if (w->buf->failed) return;
	assert(in_object(w) && !w->keyed);
	if (w->comma) vk_buf_putc(w->buf, ',');
	put_string(w->buf, key);
	vk_buf_putc(w->buf, ':');
	w->comma = false;
	w->keyed = true;
}

void vk_jw_key(struct vk_jw *w, const char *key)
{
	put_key(w, vk_bytes_of(key));
}

void vk_jw_str(struct vk_jw *w, struct vk_bytes s)
{
	begin_value(w);
	put_string(w->buf, s);
}

void vk_jw_cstr(struct vk_jw *w, const char *s)
{
	if (s)
		vk_jw_str(w, vk_bytes_of(s));
	else
		vk_jw_null(w);
}

void vk_jw_raw(struct vk_jw *w, struct vk_bytes json)
{
	begin_value(w);
	vk_buf_put(w->buf, json.p, json.n);
}

void vk_jw_null(struct vk_jw *w)
{
	vk_jw_raw(w, VK_LIT("null"));
}

void vk_jw_bool(struct vk_jw *w, bool v)
{
	vk_jw_raw(w, v ? VK_LIT("true") : VK_LIT("false"));
}

static void put_integer(struct vk_jw *w, bool negative, uint64_t v)
{
	char text[21], *end = text + sizeof text, *p = end;
	do *--p = (char)('0' + v % 10);
	while (v /= 10);
	if (negative) *--p = '-';
	vk_jw_raw(w, (struct vk_bytes){p, (size_t)(end - p)});
}

void vk_jw_u64(struct vk_jw *w, uint64_t v)
{
	put_integer(w, false, v);
}

void vk_jw_i64(struct vk_jw *w, int64_t v)
{
	put_integer(w, v < 0, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void vk_jw_f64(struct vk_jw *w, double v)
{
	char text[VK_F64_TEXT_MAX];
	if (!isfinite(v)) {
		vk_jw_null(w);
		return;
	}
	vk_jw_raw(w, (struct vk_bytes){text, (size_t)(vk_f64_print(text, v) - text)});
}

void vk_jw_f32s(struct vk_jw *w, const float *v, size_t n)
{
	begin_value(w);
	if (n > SIZE_MAX / (VK_F32_TEXT_MAX + 1) - 2) {
		w->buf->failed = true;
		return;
	}
	/* Room for the longest text, so nothing is checked on the way. A buffer whose maximum is
	 * nearer than that takes the slow way below. */
	size_t room = n * (VK_F32_TEXT_MAX + 1) + 2;
	bool finite = true;
	for (size_t i = 0; i < n; i++) finite &= isfinite(v[i]) != 0;
	if (finite && !w->buf->failed && w->buf->n <= w->buf->max && room <= w->buf->max - w->buf->n) {
		char *dst = vk_buf_reserve(w->buf, room), *start = dst;
		if (!dst) return;
		*dst++ = '[';
		dst = vk_f32s_print(dst, v, n);
		*dst++ = ']';
		w->buf->n += (size_t)(dst - start);
		return;
	}
	vk_buf_putc(w->buf, '[');
	for (size_t i = 0; i < n; i++) {
		char text[VK_F32_TEXT_MAX];
		if (i) vk_buf_putc(w->buf, ',');
		if (isfinite(v[i]))
			vk_buf_put(w->buf, text, (size_t)(vk_f32_print(text, v[i]) - text));
		else
			vk_buf_puts(w->buf, "null");
	}
	vk_buf_putc(w->buf, ']');
}

void vk_jw_base64(struct vk_jw *w, const void *p, size_t n)
{
	begin_value(w);
	char *dst = n < SIZE_MAX / 2 ? vk_buf_reserve(w->buf, VK_BASE64_LEN(n) + 2) : NULL;
	if (!dst) {
		w->buf->failed = true;
		return;
	}
	*dst++ = '"';
	dst += vk_base64_encode(vk_cpu_best(), dst, p, n);
	*dst = '"';
	w->buf->n += VK_BASE64_LEN(n) + 2;
}

static void put_children(struct vk_jw *w, const vk_jv *v, bool keys)
{
	for (const vk_jv *c = vk_jv_first(v); c; c = vk_jv_next(c)) (keys ? vk_jw_member : vk_jw_value)(w, c);
}

void vk_jw_value(struct vk_jw *w, const vk_jv *v)
{
	struct vk_bytes text = {0};
	bool b = false;
	switch (vk_jv_type(v)) {
	case VK_J_NULL: vk_jw_null(w); break;
	case VK_J_BOOL:
		vk_jv_bool(v, &b);
		vk_jw_bool(w, b);
		break;
	case VK_J_NUMBER:
	case VK_J_NUMBERS:
		vk_jv_text(v, &text);
		vk_jw_raw(w, text);
		break;
	case VK_J_STRING:
		vk_jv_str(v, &text);
		vk_jw_str(w, text);
		break;
	case VK_J_ARRAY:
		vk_jw_array(w);
		put_children(w, v, false);
		vk_jw_array_end(w);
		break;
	case VK_J_OBJECT:
		vk_jw_object(w);
		put_children(w, v, true);
		vk_jw_object_end(w);
		break;
	}
}

void vk_jw_member(struct vk_jw *w, const vk_jv *m)
{
	put_key(w, vk_jv_key(m));
	vk_jw_value(w, m);
}

void vk_jw_kv(struct vk_jw *w, const char *key, const char *cstr)
{
	vk_jw_key(w, key);
	vk_jw_cstr(w, cstr);
}

void vk_jw_ki(struct vk_jw *w, const char *key, int64_t v)
{
	vk_jw_key(w, key);
	vk_jw_i64(w, v);
}

void vk_jw_kb(struct vk_jw *w, const char *key, bool v)
{
	vk_jw_key(w, key);
	vk_jw_bool(w, v);
}

void vk_jw_kf(struct vk_jw *w, const char *key, double v)
{
	vk_jw_key(w, key);
	vk_jw_f64(w, v);
}
