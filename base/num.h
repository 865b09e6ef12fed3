/*
 * Numbers as text, both ways, by std::to_chars and std::from_chars (base/num.cpp, the
 * room's only C++), with a shorter way in front where one is proven to give the same.
 * Locale-free. Nothing allocates; any thread.
 */
#ifndef VK_BASE_NUM_H
#define VK_BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VK_F32_TEXT_MAX 16 /* bytes that any f32 needs, no NUL */
#define VK_F64_TEXT_MAX 32

/* Shortest text that reads back as the same bits (a JSON number; -0 stays "-0"). v must be
 * finite. Returns the end of what was written; no NUL. */
char *vk_f32_print(char *dst, float v);
char *vk_f64_print(char *dst, double v);
/* v[0..n) with commas between; dst has room for n * (VK_F32_TEXT_MAX + 1). */
char *vk_f32s_print(char *dst, const float *v, size_t n);

/* Reads one JSON number at p (end: one past the last byte): value rounded to nearest, and
 * where it stopped. NULL when it is no number, or overflows. Tiny values become 0. */
const char *vk_f32_read(const char *p, const char *end, float *out);
const char *vk_f64_read(const char *p, const char *end, double *out);

/* Reads "[ n, n, ... ]" with JSON white space into dst, at most max numbers; *n is how many.
 * Returns one past the ']', or NULL (no such array, overflow, more than max). */
const char *vk_f32s_read(const char *p, const char *end, float *dst, size_t max, size_t *n);

/* The same walk without values, for an array of one or more numbers of any size whose '[' is at
 * p: one past the ']', or NULL when it is another array or a broken one. */
const char *vk_numbers_skip(const char *p, const char *end, size_t *n);

#ifdef __cplusplus
}
#endif

#endif
