/*
 * A query as data, and its run on a view: nearest, order_by, sample, scroll, fusion over prefetches; groups over
 * any of them. JSON, text and HTTP are above (server/); here all vectors are numbers.
 *
 * Meaning follows Qdrant 1.19: prefetches are run first, each with its own filter (the outer filter is joined to every leaf's);
 * a nearest query over prefetches re-scores only what they found; fusion merges their orders; offset and limit
 * count at each level on its own result; score_threshold cuts each level's scores (strictly for vectors: a score that equals
 * it is out; fusion keeps it). A point that any part of a tree names by id (not_id) is in no answer of that tree. A point
 * whose order_by field has several values comes once a value. Equal scores and values go by id.
 *
 * Ownership: queries, filters and vectors are the caller's and live until the call ends; results are the arena's. Threads: the
 * view's, exact search takes the pool's help.
 */
#ifndef VK_INDEX_QUERY_H
#define VK_INDEX_QUERY_H

#include "index/ann.h"
#include "index/exact.h"
#include "index/filter.h"

#define VK_QUERY_LIMIT_MAX ((size_t)100000)
#define VK_QUERY_PREFETCH_MAX 64 /* of one level */
#define VK_QUERY_DEPTH_MAX 8

enum vk_query_kind {
	VK_QUERY_SCROLL,  /* no query: points in id order; scores are 1, as of ORDER_BY and SAMPLE */
	VK_QUERY_NEAREST,
	VK_QUERY_ORDER_BY,
	VK_QUERY_SAMPLE,  /* random */
	VK_QUERY_RRF,
	VK_QUERY_DBSF
};

struct vk_order_by {
	const struct vk_field_conf *field; /* range-indexed */
	bool descending;
	bool has_start;
	struct vk_order_value start;
};

struct vk_query {
	enum vk_query_kind kind;
	const struct vk_vector_conf *using;  /* NEAREST */
	const float *vector;                 /* NEAREST: dims of `using` */
	struct vk_bytes not_id;              /* NEAREST by id: the point itself is left out; n == 0: nobody */
	struct vk_bytes from;                /* SCROLL: the least id, n == 0: from the first */
	struct vk_order_by order;
	uint32_t rrf_k;                      /* RRF: 0 means Qdrant's 2 */
	const float *rrf_weight;             /* NULL, or one a prefetch */
	uint64_t seed;                       /* SAMPLE */
	const struct vk_filter *filter;
	size_t limit, offset;
	bool has_threshold;
	float threshold;                     /* in the API's scores */
	bool exact;                          /* params.exact */
	uint32_t ef;                         /* params.hnsw_ef, 0: auto */
	float recall;                        /* params.recall, 0: the plan's */
	bool quant_ignore, quant_rescore_off;
	bool quant;                          /* params.quantization was given: sign bits may answer, where they are kept */
	float oversampling;                  /* 0: none said */
	struct vk_query *prefetch;
	size_t prefetch_n;
};

struct vk_found {
	uint32_t slot;
	float score;     /* as the API shows it */
	bool has_order;
	struct vk_order_value order;
};
struct vk_query_result {
	struct vk_found *found;
	size_t n;
};

struct vk_query_env {
	struct vk_pool *pool;
	atomic_bool *stop;
};

/* Says that prefetches need a query: for who finds it earlier than vk_query_run() does. */
enum vk_status vk_query_no_merge(struct vk_error *err);

/* Queries of one view that share filter and vector set are run as one batch. */
enum vk_status vk_query_run(struct vk_view *v, const struct vk_query *q, size_t n, const struct vk_query_env *env,
			    struct vk_arena *a, struct vk_query_result *out, struct vk_error *err);

struct vk_group {
	enum vk_field_type type;  /* KEYWORD or INTEGER (any whole number) */
	bool is_u64;
	struct vk_bytes text;
	int64_t i64;
	uint64_t u64;
	struct vk_found *found;
	size_t n;
};
/* The best `limit` groups of at most group_size points by the value at `path` (a point with several values is in several
 * groups); groups ordered by their best point. Looks on until groups are full or matches run out. */
enum vk_status vk_query_groups(struct vk_view *v, const struct vk_query *q, const struct vk_path *path, size_t limit,
			       size_t group_size, const struct vk_query_env *env, struct vk_arena *a,
			       struct vk_group **groups, size_t *n, struct vk_error *err);

#endif
