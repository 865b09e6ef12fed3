/* A growable byte buffer and a per-request arena: all the memory that the fake provider uses.
 * Out of memory ends the program: it is a test tool, and a half answer would look like a fault
 * that nobody asked for. */
#ifndef FAKE_BUF_H
#define FAKE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct fake_buf {
	char *at;
	size_t len, cap;
};

void fake_buf_add(struct fake_buf *b, const void *bytes, size_t n);
void fake_buf_str(struct fake_buf *b, const char *s);
void fake_buf_fmt(struct fake_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Makes room for n more bytes and returns where they go; the caller adds to len itself. */
char *fake_buf_room(struct fake_buf *b, size_t n);
/* s as a JSON string with its quotes: UTF-8 ... */
void fake_buf_json(struct fake_buf *b, const char *s, size_t n);
/* ... or any bytes, those from 0x7f on as \u00xx. */
void fake_buf_json_bytes(struct fake_buf *b, const char *s, size_t n);
void fake_buf_free(struct fake_buf *b);

struct fake_arena {
	struct fake_block *head;
	size_t used;
};

void *fake_arena_take(struct fake_arena *a, size_t n);
/* Keeps one block for the next request. */
void fake_arena_reset(struct fake_arena *a);
void fake_arena_free(struct fake_arena *a);

#endif
