/*
 * Which path AUTO takes. The model, in cost a row and query:
 *   SCAN       its bytes at memory bandwidth once for all queries, and a kernel's pass over cached rows a query
 *   CERTIFIED  the same with a byte a dimension instead of four (two), and bounds: always the better one where codes are
 *   GEMM       2 d flops at the tuned rate: ahead of a scan's pass from a few queries on, once the tile's copy is shared
 *   FEW        no walk over parts: for at most FEW_SLOTS wanted slots
 * The thresholds below are from bench/search.c; they only move time, never an answer.
 */
#include "index/exact_run.h"

#define FEW_SLOTS 2048
#define GEMM_QUERIES 24	      /* without codes */
#define GEMM_QUERIES_CODES 64 /* with: the code kernel costs less a pair than a product in f32 does */

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
	bool codes = has_codes(src->parts);
	if (n >= (codes ? GEMM_QUERIES_CODES : GEMM_QUERIES)) return VK_EXACT_GEMM;
	return codes ? VK_EXACT_CERTIFIED : VK_EXACT_SCAN;
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
