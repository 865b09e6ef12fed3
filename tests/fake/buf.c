/* The fake provider's memory: growable buffers and an arena that is emptied after each request. */
#include "buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake_block {
	struct fake_block *next;
	size_t size;
	_Alignas(16) char bytes[];
};

static void *take_or_die(void *p)
{
	if (!p) {
		fputs("fake_provider: out of memory\n", stderr);
		abort();
	}
	return p;
}

char *fake_buf_room(struct fake_buf *b, size_t n)
{
	if (b->cap - b->len < n) {
		size_t cap = b->cap ? b->cap : 1024;
		while (cap - b->len < n)
			cap *= 2;
		b->at = take_or_die(realloc(b->at, cap));
		b->cap = cap;
	}
	return b->at + b->len;
}

void fake_buf_add(struct fake_buf *b, const void *bytes, size_t n)
{
	if (!n)
		return;
	memcpy(fake_buf_room(b, n), bytes, n);
	b->len += n;
}

void fake_buf_str(struct fake_buf *b, const char *s)
{
	fake_buf_add(b, s, strlen(s));
}

void fake_buf_fmt(struct fake_buf *b, const char *fmt, ...)
{
	for (size_t room = 256;;) {
		char *to = fake_buf_room(b, room);
		va_list ap;
		va_start(ap, fmt);
		int n = vsnprintf(to, room, fmt, ap);
		va_end(ap);
		if ((size_t)n < room) {
			b->len += (size_t)n;
			return;
		}
		room = (size_t)n + 1;
	}
}

static void json_string(struct fake_buf *b, const char *s, size_t n, unsigned char high)
{
	size_t clean = 0;
	fake_buf_add(b, "\"", 1);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		if (c != '"' && c != '\\' && c >= 0x20 && c < high)
			continue;
		fake_buf_add(b, s + clean, i - clean);
		fake_buf_fmt(b, "\\u%04x", c);
		clean = i + 1;
	}
	fake_buf_add(b, s + clean, n - clean);
	fake_buf_add(b, "\"", 1);
}

void fake_buf_json(struct fake_buf *b, const char *s, size_t n)
{
	json_string(b, s, n, 255);
}

void fake_buf_json_bytes(struct fake_buf *b, const char *s, size_t n)
{
	json_string(b, s, n, 0x7f);
}

void fake_buf_free(struct fake_buf *b)
{
	free(b->at);
	*b = (struct fake_buf){0};
}

void *fake_arena_take(struct fake_arena *a, size_t n)
{
	n = (n + 15) & ~(size_t)15;
	if (!a->head || a->head->size - a->used < n) {
		size_t size = n > 65536 ? n : 65536;
		struct fake_block *block = take_or_die(malloc(sizeof *block + size));
		block->next = a->head;
		block->size = size;
		a->head = block;
		a->used = 0;
	}
	void *p = a->head->bytes + a->used;
	a->used += n;
	return p;
}

void fake_arena_reset(struct fake_arena *a)
{
	while (a->head && a->head->next) {
		struct fake_block *next = a->head->next;
		free(a->head);
		a->head = next;
	}
	a->used = 0;
}

void fake_arena_free(struct fake_arena *a)
{
	fake_arena_reset(a);
	free(a->head);
	a->head = NULL;
}
