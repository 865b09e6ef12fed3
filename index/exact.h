/*
 * Exact search: the definition of right. The answer is the `limit` rows of highest rank, ties by id,
 * among the rows of the set that `in` holds; every path below gives the same ids and the same bits of rank.
 *
 * Paths, chosen by a plan (or forced, for tests and bench):
 *   SCAN       rows from the map, one query: bytes are the limit
 *   CERTIFIED  8-bit codes with a certain bound, then the rows that could matter (simd/code.h)
 *   GEMM       many queries by tiles, selection fused with the tile, candidates scored by the canonical kernel
 *   FEW        few wanted slots: rows one by one
 *   BITS       binary quantisation asked for: Hamming nominates limit * oversampling, rows score; NOT exact, only when
 *              the request says so (params.quantization with rescore, exact not set)
 * Rank is vk_rank_of_raw's; a floor (score threshold) cuts before selection.
 *
 * Threads: the caller's, helped by the pool up to `threads`. Everything from the arena; results live there.
 */
#ifndef VK_INDEX_EXACT_H
#define VK_INDEX_EXACT_H

#include "base/pool.h"
#include "index/view.h"

enum vk_exact_path { VK_EXACT_AUTO, VK_EXACT_SCAN, VK_EXACT_CERTIFIED, VK_EXACT_GEMM, VK_EXACT_FEW, VK_EXACT_BITS };

struct vk_hit {
	uint32_t slot;
	float rank;
};

struct vk_exact_query {
	const float *vector; /* dims components as the client sent them */
	size_t limit;        /* at most VK_EXACT_LIMIT_MAX */
	float floor;         /* least rank, -INFINITY for none */
	const struct vk_bitmap *in; /* NULL: every row of the set (then no point may be expired) */
	/* out */
	struct vk_hit *hit; /* best first */
	size_t hits;
};

struct vk_exact_opts {
	struct vk_pool *pool;    /* NULL: this thread alone */
	unsigned threads;        /* 0: all of the pool */
	enum vk_exact_path path;
	float oversampling;      /* BITS; 0: 3 */
	enum vk_cpu_level level; /* vk_cpu_best() but for tests */
	atomic_bool *stop;       /* NULL, or: give up with VK_E_CANCELLED when it turns true */
};

#define VK_EXACT_LIMIT_MAX ((size_t)1 << 20)

struct vk_exact_stats { /* of the last call, for bench, metrics and tests */
	enum vk_exact_path path;
	uint64_t rows_scanned, rows_reread, bytes;
};

/* n queries of one set in one view. */
enum vk_status vk_exact_search(struct vk_view *v, const struct vk_set *s, struct vk_exact_query *q, size_t n,
			       const struct vk_exact_opts *o, struct vk_arena *a, struct vk_exact_stats *stats,
			       struct vk_error *err);
/* The rank of one stored row for a query, by the canonical kernel. */
enum vk_status vk_exact_rank(struct vk_view *v, const struct vk_set *s, const float *vector, uint32_t slot, float *rank);

#endif
