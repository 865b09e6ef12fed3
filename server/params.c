/*
 * Passed parameters in RFC 8785 form (JSON Canonicalization Scheme), because they are part of the
 * cache key: members sorted by UTF-16 code units, no white space, strings with the shortest
 * escapes, numbers as ECMAScript prints them. One meaning, one text, one key.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/num.h"
#include "base/utf8.h"
#include "server/embedding.h"

#define PARAMS_MAX 65536
#define MEMBERS_MAX 256

static void put_value(struct vk_buf *b, const vk_jv *v, bool *bad);

/* Bytewise order of UTF-8 is code point order; UTF-16 differs only where one side is above the
 * BMP and the other in E000..FFFF (surrogates sort below those). */
static int by_utf16(struct vk_bytes a, struct vk_bytes b)
{
	const char *p = a.p, *q = b.p, *pe = a.p + a.n, *qe = b.p + b.n;
	while (p < pe && q < qe) {
		uint32_t x, y;
		p = vk_utf8_next(p, pe, &x);
		q = vk_utf8_next(q, qe, &y);
		if (x == y) continue;
		if (x > 0xffff && y <= 0xffff && y >= 0xe000) return -1;
		if (y > 0xffff && x <= 0xffff && x >= 0xe000) return 1;
		return x < y ? -1 : 1;
	}
	return (p < pe) - (q < qe);
}

static int by_key(const void *a, const void *b)
{
	return by_utf16(vk_jv_key(*(const vk_jv *const *)a), vk_jv_key(*(const vk_jv *const *)b));
}

static void put_string(struct vk_buf *b, struct vk_bytes s)
{
	static const char short_escape[] = "btn\0fr"; /* 08 09 0a 0b 0c 0d */
	vk_buf_putc(b, '"');
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (c == '"' || c == '\\')
			vk_buf_printf(b, "\\%c", c);
		else if (c >= 8 && c <= 13 && c != 11)
			vk_buf_printf(b, "\\%c", short_escape[c - 8]);
		else if (c < 0x20)
			vk_buf_printf(b, "\\u%04x", c);
		else
			vk_buf_putc(b, (char)c);
	}
	vk_buf_putc(b, '"');
}

/* Large whole numbers come with all their digits where that is no longer than an exponent; the
 * fewest that read back as the same number are wanted. */
static void shortest(char *text, size_t cap, double v)
{
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, cap, "%.*e", digits - 1, v);
		if (strtod(text, NULL) == v) return;
	}
}

/* ECMAScript's Number::toString: shortest digits, plain from 1e-6 up to 1e21. */
static void put_number(struct vk_buf *b, double v, bool *bad)
{
	char text[VK_F64_TEXT_MAX + 1], digits[32];
	if (!isfinite(v)) {
		*bad = true;
		return;
	}
	if (v == 0) { /* -0 too */
		vk_buf_putc(b, '0');
		return;
	}
	if (v < 0) vk_buf_putc(b, '-');
	*vk_f64_print(text, fabs(v)) = 0;
	if (fabs(v) >= 1e15) shortest(text, sizeof text, fabs(v));
	int n = 0, point = 0, exponent = 0;
	bool after = false;
	for (const char *p = text; *p; p++) {
		if (*p == '.') {
			after = true;
		} else if (*p == 'e' || *p == 'E') {
			exponent = atoi(p + 1);
			break;
		} else {
			if (!after) point++;
			digits[n++] = *p;
		}
	}
	int lead = 0;
	while (lead < n - 1 && digits[lead] == '0') lead++;
	while (n > lead + 1 && digits[n - 1] == '0') n--;
	int k = n - lead, e = point - lead + exponent; /* value = 0.digits x 10^e */
	const char *d = digits + lead;
	if (e > 0 && e <= 21 && k <= e)
		vk_buf_printf(b, "%.*s%.*s", k, d, e - k, "000000000000000000000");
	else if (e > 0 && e <= 21)
		vk_buf_printf(b, "%.*s.%.*s", e, d, k - e, d + e);
	else if (e > -6 && e <= 0)
		vk_buf_printf(b, "0.%.*s%.*s", -e, "000000", k, d);
	else if (k == 1)
		vk_buf_printf(b, "%c%s%d", d[0], e - 1 < 0 ? "e" : "e+", e - 1);
	else
		vk_buf_printf(b, "%c.%.*s%s%d", d[0], k - 1, d + 1, e - 1 < 0 ? "e" : "e+", e - 1);
}

static void put_numbers(struct vk_buf *b, const vk_jv *v, bool *bad)
{
	size_t n = vk_jv_len(v);
	double *list = malloc(n * sizeof *list + 1);
	if (!list || !vk_jv_f64s(v, list)) *bad = true;
	vk_buf_putc(b, '[');
	for (size_t i = 0; i < n && !*bad; i++) {
		if (i) vk_buf_putc(b, ',');
		put_number(b, list[i], bad);
	}
	vk_buf_putc(b, ']');
	free(list);
}

static void put_object(struct vk_buf *b, const vk_jv *v, bool *bad)
{
	const vk_jv *list[MEMBERS_MAX];
	size_t n = 0;
	for (const vk_jv *m = vk_jv_first(v); m; m = vk_jv_next(m)) {
		if (n == MEMBERS_MAX) {
			*bad = true;
			return;
		}
		list[n++] = m;
	}
	qsort(list, n, sizeof *list, by_key);
	vk_buf_putc(b, '{');
	for (size_t i = 0; i < n; i++) {
		if (i) vk_buf_putc(b, ',');
		put_string(b, vk_jv_key(list[i]));
		vk_buf_putc(b, ':');
		put_value(b, list[i], bad);
	}
	vk_buf_putc(b, '}');
}

static void put_value(struct vk_buf *b, const vk_jv *v, bool *bad)
{
	struct vk_bytes s;
	double d;
	bool flag;
	switch (vk_jv_type(v)) {
	case VK_J_NULL:
		vk_buf_puts(b, "null");
		break;
	case VK_J_BOOL:
		vk_jv_bool(v, &flag);
		vk_buf_puts(b, flag ? "true" : "false");
		break;
	case VK_J_NUMBER:
		if (vk_jv_f64(v, &d))
			put_number(b, d, bad);
		else
			*bad = true;
		break;
	case VK_J_STRING:
		vk_jv_str(v, &s);
		put_string(b, s);
		break;
	case VK_J_NUMBERS:
		put_numbers(b, v, bad);
		break;
	case VK_J_ARRAY:
		vk_buf_putc(b, '[');
		for (const vk_jv *m = vk_jv_first(v); m; m = vk_jv_next(m)) {
			if (m != vk_jv_first(v)) vk_buf_putc(b, ',');
			put_value(b, m, bad);
		}
		vk_buf_putc(b, ']');
		break;
	case VK_J_OBJECT:
		put_object(b, v, bad);
		break;
	}
}

const char *vk_params_canonical(struct vk_arena *a, const vk_jv *body, const char *const *names,
				struct vk_error *err)
{
	const vk_jv *list[MEMBERS_MAX];
	struct vk_buf b;
	size_t n = 0;
	bool bad = false;
	const char *text = NULL;
	for (size_t i = 0; names[i] && n < MEMBERS_MAX; i++) {
		const vk_jv *v = vk_jv_get(body, names[i]);
		if (v && vk_jv_type(v) != VK_J_NULL) list[n++] = v;
	}
	if (!n) return "";
	qsort(list, n, sizeof *list, by_key);
	vk_buf_init(&b, PARAMS_MAX);
	vk_buf_putc(&b, '{');
	for (size_t i = 0; i < n; i++) {
		if (i) vk_buf_putc(&b, ',');
		put_string(&b, vk_jv_key(list[i]));
		vk_buf_putc(&b, ':');
		put_value(&b, list[i], &bad);
	}
	vk_buf_putc(&b, '}');
	if (bad || b.failed)
		vk_fail_param(err, VK_E_INVALID, NULL, NULL,
			      "The passed parameters are too large or hold numbers out of range.");
	else
		text = vk_arena_strndup(a, b.p, b.n);
	vk_buf_free(&b);
	return text;
}
