/*
 * The strict pass over JSON text, private to base/json*.c: checks everything, and writes a
 * copy in which every number and every array of nothing but numbers is one `0`. cJSON then
 * never reads a number: the k-th number node of its tree, in text order, is the k-th span
 * found here. No token has to be told from a client's string.
 */
#ifndef VK_BASE_JSON_SCAN_H
#define VK_BASE_JSON_SCAN_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "base/arena.h"
#include "base/bytes.h"
#include "base/status.h"

struct vk_json_span {
	const char *p;
	uint32_t n;     /* bytes; texts of 4 GiB and more are refused */
	uint32_t count; /* numbers of a lifted array, brackets in the span; 0: one number */
};

#define VK_JSON_SPANS 62 /* a block of spans is 1 KiB */

struct vk_json_spans { /* blocks in order; spans never move */
	struct vk_json_spans *next;
	size_t n;
	struct vk_json_span span[VK_JSON_SPANS];
};

struct vk_json_limits {
	unsigned depth_max;
	size_t values_max;
	bool lines; /* errors name the line, too (config files) */
	bool objects; /* find the objects' spans, too */
};

/* Checks text. *spans gets the first block (NULL without numbers), from arena. rewritten gets
 * the copy for cJSON; it stays empty when there is no number: then text itself will do. *objects gets
 * the spans of objects in the order of their opening braces (NULL unless asked for, or without any). */
enum vk_status vk_json_scan(struct vk_arena *arena, struct vk_bytes text,
			    const struct vk_json_limits *limits, struct vk_buf *rewritten,
			    struct vk_json_spans **spans, struct vk_json_spans **objects,
			    struct vk_error *err);

/* Replaces comments and trailing commas by spaces, so that offsets and lines stay, in a copy. */
enum vk_status vk_json_strip(struct vk_arena *arena, struct vk_bytes text, struct vk_bytes *out,
			     struct vk_error *err);

/* First byte of [p, end) that may not stand in a JSON string as it is: a quote, a backslash or
 * a control character; end when there is none. */
static inline const char *vk_json_plain(const char *p, const char *end)
{
#if defined(__x86_64__)
	const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');
	const __m128i control = _mm_set1_epi8(0x1f);
	while (end - p >= 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
		__m128i hit = _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash));
		hit = _mm_or_si128(hit, _mm_cmpeq_epi8(_mm_min_epu8(v, control), v));
		unsigned mask = (unsigned)_mm_movemask_epi8(hit);
		if (mask) return p + __builtin_ctz(mask);
		p += 16;
	}
#elif defined(__aarch64__)
	const uint8x16_t quote = vdupq_n_u8('"'), slash = vdupq_n_u8('\\');
	const uint8x16_t space = vdupq_n_u8(0x20);
	while (end - p >= 16) {
		uint8x16_t v = vld1q_u8((const uint8_t *)p);
		uint8x16_t hit = vorrq_u8(vceqq_u8(v, quote), vceqq_u8(v, slash));
		hit = vorrq_u8(hit, vcltq_u8(v, space));
		if (vmaxvq_u8(hit)) break; /* the loop below finds the place */
		p += 16;
	}
#endif
	while (p < end && (unsigned char)*p >= 0x20 && *p != '"' && *p != '\\') p++;
	return p;
}

#endif
