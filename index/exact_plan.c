/*
 * Which path AUTO takes. The model, in cost a row (bytes at memory bandwidth, once for all queries) and a pair of row and query
 * (arithmetic on what is in the cache):
 *   SCAN       4 d bytes (2 d for f16); a kernel's pass a pair: 33 ns at 768 d
 *   CERTIFIED  d bytes; d / 350 ns a pair and half a nanosecond for its look, once the queries are many: a third of what a
 *              product in f32 costs at 128 to 1,536 d, so nothing else is taken where codes are
 *   GEMM       4 d bytes and their copy; 2 d flops at the tuned rate a pair, 12 ns at 768 d once the queries are many
 *   FEW        no walk over parts: for at most FEW_SLOTS wanted slots
 * Figures of bench/search.c on one core with AVX-512; the thresholds only move time, never an answer.
 */
#include "index/exact_run.h"

#define FEW_SLOTS 2048
#define GEMM_QUERIES 24

static bool has_codes(const struct vk_parts *ps)
{
	return ps->part_n && ps->part[0].code_head && ps->part[ps->part_n - 1].code_head;
}

/* Codes and products know dot products of floats, and what can be made of them. */
static bool multiplies(const struct vk_set *s)
{
	return vk_dtype_is_float(s->dtype) &&
	       (s->metric == VK_METRIC_DOT || s->metric == VK_METRIC_COSINE || s->metric == VK_METRIC_L2);
}

static enum vk_exact_path choose(const struct vk_exact_source *src, size_t n)
{
	if (src->in && vk_bitmap_count(src->in) <= FEW_SLOTS) return VK_EXACT_FEW;
	if (!multiplies(src->set)) return VK_EXACT_SCAN;
	if (has_codes(src->parts)) return VK_EXACT_CERTIFIED;
	return n >= GEMM_QUERIES ? VK_EXACT_GEMM : VK_EXACT_SCAN;
}

enum vk_exact_path vk_exact_plan(const struct vk_exact_source *src, size_t n, enum vk_exact_path path)
{
	switch (path) {
	case VK_EXACT_AUTO: return choose(src, n);
	case VK_EXACT_CERTIFIED:
	case VK_EXACT_GEMM: return multiplies(src->set) ? path : VK_EXACT_SCAN;
	case VK_EXACT_FEW: return src->in ? path : VK_EXACT_SCAN;
	default: return path;
	}
}
