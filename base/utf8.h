/* UTF-8 as Unicode defines it (D92): no overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef VK_BASE_UTF8_H
#define VK_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the longest valid prefix: n when all is valid. ASCII runs go 8 bytes a step or better. */
size_t vk_utf8_valid(const char *p, size_t n);

/* Decodes the code point at p (valid text, p < end) and returns the next position. */
const char *vk_utf8_next(const char *p, const char *end, uint32_t *cp);

/* Writes cp (a scalar value) into dst[4], returns its length 1..4. */
size_t vk_utf8_put(char *dst, uint32_t cp);

#endif
