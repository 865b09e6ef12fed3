/*
 * What the levels' files share: the shape in which rows come to a kernel, and the names of the
 * tables. Internal to simd/score*.c.
 *
 * A twin works on VK_SCORE_GROUP rows at once: they share the query's registers, and that many
 * streams keep memory busy. Each level writes one group kernel a kind and dtype; the two drivers
 * here make vk_score_fn and vk_score_at_fn of it. A group that is not full names its last row
 * several times: one row alone would wait for its own additions as long as four do.
 */
#ifndef VK_SIMD_SCORE_LEVELS_H
#define VK_SIMD_SCORE_LEVELS_H

#include <string.h>

#include "simd/code_levels.h"
#include "simd/score.h"

enum { KIND_DOT, KIND_L2, KIND_L1, KIND_HAMMING };

extern const struct vk_kernels vk_kernels_scalar;
#if defined(__x86_64__)
extern const struct vk_kernels vk_kernels_avx2, vk_kernels_avx512;
#elif defined(__aarch64__)
extern const struct vk_kernels vk_kernels_neon;
bool vk_neon_dotprod(void); /* has this CPU UDOT and SDOT? */
#endif

/* The scalar meaning of what twins use for their rest. */
float vk_f32_of_f16(uint16_t h);
uint16_t vk_f16_of_f32(float f);

enum { VK_SCORE_GROUP = 4 };

/* Four rows, and four places to prefetch at the same pace (a row's own place when none follows). */
struct vk_score_group {
	const uint8_t *x[VK_SCORE_GROUP], *ahead[VK_SCORE_GROUP];
};

/* How far ahead of each stream rows in order are fetched, at least: four streams of 1 KB are more than
 * bandwidth times latency; 2 KB measured alike, 4 KB worse for short rows. */
enum { VK_SCORE_AHEAD_BYTES = 1024 };

/* Rows in order are four streams, each a quarter of them: streams that lie apart cross into new pages at
 * different times, and page walks overlap with work (four neighbouring rows were 4 to 20 % slower in
 * 4 KB pages, at any distance ahead). What four does not divide makes one last group. */
struct vk_score_streams {
	const uint8_t *rows, *next;
	size_t stride, n, quarter, hop;
};

static inline struct vk_score_streams vk_score_streams(const void *rows, size_t stride, size_t n, const void *next)
{
	size_t hop = stride ? (VK_SCORE_AHEAD_BYTES + stride - 1) / stride : 0;
	return (struct vk_score_streams){rows, next, stride, n, n / VK_SCORE_GROUP, hop};
}

static inline size_t vk_score_row_of(const struct vk_score_streams *s, size_t i, size_t r)
{
	if (i < s->quarter) return r * s->quarter + i;
	size_t k = VK_SCORE_GROUP * s->quarter + r; /* the last group */
	return k < s->n ? k : s->n - 1;
}

/* What is fetched for place i of stream r: past the stream's end, the same stream of the next rows. */
static inline const uint8_t *vk_score_ahead_of(const struct vk_score_streams *s, size_t i, size_t r, const uint8_t *none)
{
	if (i < s->quarter) return s->rows + (r * s->quarter + i) * s->stride;
	i -= s->quarter;
	return s->next && i < s->quarter ? s->next + (r * s->quarter + i) * s->stride : none;
}

/* Group i, i < quarter + 1. */
static inline void vk_score_group_of(struct vk_score_group *g, const struct vk_score_streams *s, size_t i)
{
	for (size_t r = 0; r < VK_SCORE_GROUP; r++) {
		g->x[r] = s->rows + vk_score_row_of(s, i, r) * s->stride;
		g->ahead[r] = vk_score_ahead_of(s, i + s->hop, r, g->x[r]);
	}
}

static inline void vk_score_group_at(struct vk_score_group *g, const void *const *row, size_t n, size_t i)
{
	for (size_t r = 0; r < VK_SCORE_GROUP; r++) {
		size_t k = i + r < n ? i + r : n - 1;
		g->x[r] = row[k];
		g->ahead[r] = row[k + VK_SCORE_GROUP < n ? k + VK_SCORE_GROUP : n - 1];
	}
}

/* Not __builtin_prefetch: GCC 12 drops all but the first of a loop over cache lines. */
static inline __attribute__((always_inline)) void vk_prefetch(const void *p)
{
#if defined(__x86_64__)
	__asm__ volatile("prefetcht0 %0" : : "m"(*(const char *)p));
#elif defined(__aarch64__)
	__asm__ volatile("prfm pldl1keep, [%0]" : : "r"(p));
#else
	(void)p;
#endif
}

/* The two faces of a group kernel `void group(const void *q, const struct vk_score_group *g,
 * size_t dims, float raw[VK_SCORE_GROUP])`. LEVEL: the twin's function attribute. */
#define VK_SCORE_FACES(LEVEL, name, group)                                                              \
	LEVEL static void name(const void *q, const void *rows, size_t stride, size_t n, size_t dims,   \
			       const void *next, float *raw)                                            \
	{                                                                                               \
		struct vk_score_streams s = vk_score_streams(rows, stride, n, next);                    \
		struct vk_score_group g;                                                                \
		float some[VK_SCORE_GROUP];                                                             \
		for (size_t i = 0; i < s.quarter + (n % VK_SCORE_GROUP != 0); i++) {                    \
			vk_score_group_of(&g, &s, i);                                                   \
			group(q, &g, dims, some);                                                       \
			for (size_t r = 0; r < VK_SCORE_GROUP; r++)                                     \
				raw[vk_score_row_of(&s, i, r)] = some[r];                               \
		}                                                                                       \
	}                                                                                               \
	LEVEL static void name##_at(const void *q, const void *const *row, size_t n, size_t dims,       \
				    float *raw)                                                         \
	{                                                                                               \
		struct vk_score_group g;                                                                \
		float some[VK_SCORE_GROUP];                                                             \
		for (size_t i = 0; i < n; i += VK_SCORE_GROUP) {                                        \
			size_t left = n - i;                                                            \
			vk_score_group_at(&g, row, n, i);                                               \
			/* The group behind the next: its first lines, the rest follows next time. */   \
			for (size_t r = 2 * VK_SCORE_GROUP; r < 3 * VK_SCORE_GROUP && r < left; r++)    \
				vk_prefetch(row[i + r]);                                                \
			group(q, &g, dims, left < VK_SCORE_GROUP ? some : raw + i);                     \
			if (left < VK_SCORE_GROUP) memcpy(raw + i, some, left * sizeof *raw);           \
		}                                                                                       \
	}

/* Every kernel: its name, the group kernel it is made of, kind, dtype, and how long a row is. */
#define VK_SCORE_EACH(X)                                                                                \
	X(dot_f32, float_group, KIND_DOT, VK_DTYPE_F32, dims)                                           \
	X(dot_f16, float_group, KIND_DOT, VK_DTYPE_F16, dims)                                           \
	X(dot_u8, byte_group, KIND_DOT, VK_DTYPE_U8, dims)                                              \
	X(dot_i8, byte_group, KIND_DOT, VK_DTYPE_I8, dims)                                              \
	X(l2_f32, float_group, KIND_L2, VK_DTYPE_F32, dims)                                             \
	X(l2_f16, float_group, KIND_L2, VK_DTYPE_F16, dims)                                             \
	X(l2_u8, byte_group, KIND_L2, VK_DTYPE_U8, dims)                                                \
	X(l2_i8, byte_group, KIND_L2, VK_DTYPE_I8, dims)                                                \
	X(l1_f32, float_group, KIND_L1, VK_DTYPE_F32, dims)                                             \
	X(l1_f16, float_group, KIND_L1, VK_DTYPE_F16, dims)                                             \
	X(l1_u8, byte_group, KIND_L1, VK_DTYPE_U8, dims)                                                \
	X(l1_i8, byte_group, KIND_L1, VK_DTYPE_I8, dims)                                                \
	X(hamming, byte_group, KIND_HAMMING, VK_DTYPE_BITS, (dims + 7) / 8)

/* One of them in a file of twins, VK_SCORE_EACH(VK_SCORE_TWIN) for all. The file defines LEVEL and, always
 * inlined so that kind and dtype are constants there, float_group and byte_group:
 * `(int kind, enum vk_dtype, const void *q, const struct vk_score_group *, size_t length, float raw[])`. */
#define VK_SCORE_TWIN(name, group, kind, dtype, length)                                                 \
	LEVEL static void name##_group(const void *q, const struct vk_score_group *g, size_t dims,      \
				       float *raw)                                                      \
	{                                                                                               \
		group(kind, dtype, q, g, length, raw);                                                  \
	}                                                                                               \
	VK_SCORE_FACES(LEVEL, name, name##_group)

/* The loop of code_dot over a group kernel. */
#define VK_CODE_ROWS(group, q, codes, stride, n, dims, next, out)                                       \
	do {                                                                                            \
		struct vk_score_streams s = vk_score_streams(codes, stride, n, next);                   \
		struct vk_score_group g;                                                                \
		int32_t some[VK_SCORE_GROUP];                                                           \
		for (size_t i = 0; i < s.quarter + ((n) % VK_SCORE_GROUP != 0); i++) {                  \
			vk_score_group_of(&g, &s, i);                                                   \
			group(q, &g, dims, some);                                                       \
			for (size_t r = 0; r < VK_SCORE_GROUP; r++)                                     \
				(out)[vk_score_row_of(&s, i, r)] = some[r];                             \
		}                                                                                       \
	} while (0)

/* A level's table: every level names its kernels alike, those of code_<level>.c by `suffix`. What is not named
 * stays NULL. */
#define VK_SCORE_ENTRY(name, group, kind, dtype, length) [kind][dtype] = name,
#define VK_SCORE_ENTRY_AT(name, group, kind, dtype, length) [kind][dtype] = name##_at,
#define VK_KERNELS_TABLE(which, suffix)                                                                 \
	{                                                                                               \
		.level = which,                                                                         \
		.score = {VK_SCORE_EACH(VK_SCORE_ENTRY)},                                               \
		.score_at = {VK_SCORE_EACH(VK_SCORE_ENTRY_AT)},                                         \
		.code_dot = code_dot, .f32_to_f16 = f32_to_f16, .f16_to_f32 = f16_to_f32,               \
		.f32_to_u8 = f32_to_u8, .f32_to_bits = f32_to_bits, .f32_min_max = f32_min_max,         \
		.at_least = at_least,                                                                   \
		.code_dots = vk_code_dots_##suffix, .code_dot_at = vk_code_dot_at_##suffix,             \
		.nibble_dot_at = vk_nibble_dot_at_##suffix,                                             \
	}

#endif
