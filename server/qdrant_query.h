/*
 * From Qdrant's JSON to struct vk_query: the universal query, the older search, order_by. What needs a point of a collection (a
 * query by id, perhaps another collection's: lookup_from) is only noted while decoding and read by vk_qd_queries_ready(), in the view
 * that is searched; so decoding holds nothing that must be given back. All memory is the request's arena.
 */
#ifndef VK_SERVER_QDRANT_QUERY_H
#define VK_SERVER_QDRANT_QUERY_H

#include "server/qdrant.h"

#define VK_QD_BATCH_MAX 4096 /* queries of one request */

struct vk_qd_ref { /* a query by the vector of a point */
	struct vk_query *query;
	struct vk_bytes id;         /* key */
	struct vk_bytes collection; /* n == 0: the searched one */
	struct vk_bytes vector;     /* whose name; p == NULL: as `using` */
	struct vk_qd_ref *next;
};
struct vk_qd_filter_seen { /* filters of a batch with the same text are one, so that their searches are one pass */
	struct vk_bytes text;
	const struct vk_filter *filter;
	struct vk_qd_filter_seen *next;
};

struct vk_qd_queries {
	struct vk_query *query;
	struct vk_qd_with *with; /* one a query */
	size_t n;
	struct vk_qd_ref *refs;
	struct vk_qd_filter_seen *seen;
};

enum vk_status vk_qd_queries_new(struct vk_qd *q, size_t n, struct vk_qd_queries **out, struct vk_error *err);
/* Fills query[i] and with[i] from a QueryRequest, or from a SearchRequest. groups: limit and offset are left to the caller. */
enum vk_status vk_qd_query(struct vk_qd *q, struct vk_qd_queries *qs, size_t i, const vk_jv *body, bool groups, struct vk_error *err);
enum vk_status vk_qd_search(struct vk_qd *q, struct vk_qd_queries *qs, size_t i, const vk_jv *body, bool groups, struct vk_error *err);
/* Reads the noted vectors, and makes sure that the view is of the config that the queries were decoded with. On the pool. */
enum vk_status vk_qd_queries_ready(struct vk_qd *q, struct vk_qd_queries *qs, struct vk_view *v, struct vk_error *err);

/* order_by: a key, or {"key", "direction", "start_from"}. */
enum vk_status vk_qd_order_by(struct vk_qd *q, const vk_jv *v, struct vk_order_by *out, struct vk_error *err);
/* "params" of a query or a search. (server/qdrant_params.c) */
enum vk_status vk_qd_params(const vk_jv *body, struct vk_query *out, struct vk_error *err);
/* A whole number in `name` of body, at least `least` (else 422 for `field`); absent: dflt. */
enum vk_status vk_qd_size(const vk_jv *body, const char *name, const char *field, size_t least, size_t dflt, size_t *out,
			  struct vk_error *err);

#endif
