/* The growing buffer, hex, and the constant-time comparison. */
#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void vk_buf_free(struct vk_buf *b)
{
	free(b->p);
	*b = (struct vk_buf){.max = b->max};
}

char *vk_buf_reserve(struct vk_buf *b, size_t n)
{
	if (b->failed) return NULL;
	/* One byte more than asked, so that vk_buf_cstr() can always end the text. */
	if (n > b->max || b->n > b->max - n) goto fail;
	if (b->n + n + 1 > b->cap) {
		size_t cap = b->cap ? b->cap : 256;
		while (cap < b->n + n + 1) cap += cap / 2;
		if (cap > b->max + 1) cap = b->max + 1;
		char *p = realloc(b->p, cap);
		if (!p) goto fail;
		b->p = p;
		b->cap = cap;
	}
	return b->p + b->n;
fail:
	b->failed = true;
	return NULL;
}

void vk_buf_put(struct vk_buf *b, const void *p, size_t n)
{
	char *dst = vk_buf_reserve(b, n);
	if (!dst || !n) return;
	memcpy(dst, p, n);
	b->n += n;
}

void vk_buf_puts(struct vk_buf *b, const char *cstr)
{
	vk_buf_put(b, cstr, strlen(cstr));
}

void vk_buf_putc(struct vk_buf *b, char c)
{
	vk_buf_put(b, &c, 1);
}

void vk_buf_printf(struct vk_buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	char text[512];
	va_list again;
	va_copy(again, ap);
	int n = vsnprintf(text, sizeof text, fmt, ap);
	if (n >= 0 && (size_t)n < sizeof text) {
		vk_buf_put(b, text, (size_t)n);
	} else if (n >= 0) {
		char *dst = vk_buf_reserve(b, (size_t)n);
		if (dst) {
			vsnprintf(dst, (size_t)n + 1, fmt, again);
			b->n += (size_t)n;
		}
	}
	va_end(again);
	va_end(ap);
}

const char *vk_buf_cstr(struct vk_buf *b)
{
	if (!vk_buf_reserve(b, 0)) return "";
	b->p[b->n] = 0;
	return b->p;
}

char *vk_buf_take(struct vk_buf *b, size_t *n)
{
	char *p = b->p;
	*n = b->n;
	*b = (struct vk_buf){.max = b->max};
	return p;
}

void vk_hex(char *dst, const void *src, size_t n)
{
	static const char digit[] = "0123456789abcdef";
	const uint8_t *s = src;
	for (size_t i = 0; i < n; i++) {
		dst[2 * i] = digit[s[i] >> 4];
		dst[2 * i + 1] = digit[s[i] & 15];
	}
	dst[2 * n] = 0;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9') return c - '0';
	if (c >= 'a' && c <= 'f') return c - 'a' + 10;
	if (c >= 'A' && c <= 'F') return c - 'A' + 10;
	return -1;
}

bool vk_unhex(void *dst, size_t n, const char *src, size_t src_n)
{
	uint8_t *d = dst;
	if (src_n != 2 * n) return false;
	for (size_t i = 0; i < n; i++) {
		int hi = hex_value(src[2 * i]), lo = hex_value(src[2 * i + 1]);
		if (hi < 0 || lo < 0) return false;
		d[i] = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

bool vk_bytes_eq_secret(struct vk_bytes a, struct vk_bytes b)
{
	if (a.n != b.n) return false;
	volatile uint8_t diff = 0;
	for (size_t i = 0; i < a.n; i++) diff |= (uint8_t)(a.p[i] ^ b.p[i]);
	return diff == 0;
}
