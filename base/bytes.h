/*
 * Bytes: a borrowed span (struct vk_bytes, pointer and length, not NUL-terminated)
 * and a growing buffer with a maximum from birth (struct vk_buf).
 *
 * A buffer that met its maximum or ran out of memory turns `failed` and takes no more:
 * write a whole reply without checks, look at `failed` once at the end.
 * Threads: none of this locks; one owner at a time.
 */
#ifndef VK_BASE_BYTES_H
#define VK_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct vk_bytes {
	const char *p;
	size_t n;
};

#define VK_LIT(s) ((struct vk_bytes){(s), sizeof(s) - 1})

static inline struct vk_bytes vk_bytes_of(const char *cstr)
{
	return (struct vk_bytes){cstr, cstr ? strlen(cstr) : 0};
}

static inline bool vk_bytes_eq(struct vk_bytes a, struct vk_bytes b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool vk_bytes_is(struct vk_bytes a, const char *cstr)
{
	return vk_bytes_eq(a, vk_bytes_of(cstr));
}

struct vk_buf {
	char *p;     /* owned; NULL while empty */
	size_t n;    /* bytes used */
	size_t cap;  /* bytes held */
	size_t max;  /* never grows past this */
	bool failed; /* met max or no memory: content is cut, do not use it */
};

/* Starts empty; nothing is allocated until the first byte. */
static inline void vk_buf_init(struct vk_buf *b, size_t max)
{
	*b = (struct vk_buf){.max = max};
}

void vk_buf_free(struct vk_buf *b);

/* Makes room for n more bytes and returns where to write them, or NULL (failed). The
 * caller then adds what it wrote to b->n. */
char *vk_buf_reserve(struct vk_buf *b, size_t n);

void vk_buf_put(struct vk_buf *b, const void *p, size_t n);
void vk_buf_puts(struct vk_buf *b, const char *cstr);
void vk_buf_putc(struct vk_buf *b, char c);
void vk_buf_printf(struct vk_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* NUL-terminates (the NUL does not count in n) and returns the text; "" when failed. */
const char *vk_buf_cstr(struct vk_buf *b);

/* Hands the memory over to the caller (free()); the buffer is empty afterwards. */
char *vk_buf_take(struct vk_buf *b, size_t *n);

static inline struct vk_bytes vk_buf_bytes(const struct vk_buf *b)
{
	return (struct vk_bytes){b->p, b->n};
}

/* Little-endian stores and loads, for keys and records. */
static inline void vk_put_u32le(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}
static inline void vk_put_u64le(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> (8 * i));
}
static inline void vk_put_u32be(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}
static inline void vk_put_u64be(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> (56 - 8 * i));
}
static inline uint32_t vk_get_u32le(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t vk_get_u64le(const uint8_t *p)
{
	return (uint64_t)vk_get_u32le(p) | (uint64_t)vk_get_u32le(p + 4) << 32;
}
static inline uint32_t vk_get_u32be(const uint8_t *p)
{
	return (uint32_t)p[3] | (uint32_t)p[2] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[0] << 24;
}
static inline uint64_t vk_get_u64be(const uint8_t *p)
{
	return (uint64_t)vk_get_u32be(p) << 32 | (uint64_t)vk_get_u32be(p + 4);
}

/* Lower-case hex; dst holds 2n+1. vk_unhex: true when src is exactly 2n hex digits. */
void vk_hex(char *dst, const void *src, size_t n);
bool vk_unhex(void *dst, size_t n, const char *src, size_t src_n);

/* Same length and content, in time that does not depend on the content (secrets). */
bool vk_bytes_eq_secret(struct vk_bytes a, struct vk_bytes b);

#endif
