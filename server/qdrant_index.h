/*
 * What the indexes of a collection's vectors are doing, for everyone who shows it: GET of a collection, our own routes, the list of
 * optimizations, metrics.
 *
 * The worker of index/ann.h looks at a changed config or at new rows a moment after the commit. What is shown goes ahead of it: a
 * vector whose index is due but not begun is "building", so that nobody who waits for green is let through too early.
 */
#ifndef VK_SERVER_QDRANT_INDEX_H
#define VK_SERVER_QDRANT_INDEX_H

#include "index/ann.h"
#include "index/collection.h"
#include "server/app.h"

struct vk_qd_index {
	const struct vk_vector_conf *vector;
	struct vk_ann_plan plan; /* of the config that is shown */
	struct vk_ann_info info;
	uint64_t rows;           /* of the vector */
	uint64_t indexed;        /* of them, what an index stands for; without one, those at their final place */
	bool due;                /* to be built, or being built */
	bool behind;             /* serves, and follows changes that it does not hold yet */
};
/* One a dense vector of the view's config, in its order, in the arena. */
enum vk_status vk_qd_indexes(struct vk_collection *c, struct vk_view *v, struct vk_arena *a, struct vk_qd_index **out);

/* As Qdrant has it: red when a build failed, yellow while there is work (busy: other work), grey when one was cancelled. */
const char *vk_qd_index_status(const struct vk_qd_index *x, size_t n, bool busy);
/* "ok", or {"error": ...} of the first build that failed. */
void vk_qd_index_optimizer(struct vk_jw *w, const struct vk_qd_index *x, size_t n);
/* {"<vector>": {"engine", "state", ...}} */
void vk_qd_index_write(struct vk_jw *w, const struct vk_qd_index *x, size_t n);

/* As people wrote it: 0.97, not 0.9700000286. */
static inline double vk_decimal(float v)
{
	return (double)(int64_t)((double)v * 1e6 + 0.5) / 1e6;
}

/* Prometheus families of every open collection's indexes. (server/metrics_index.c) */
void vk_index_gauges(struct vk_app *app, struct vk_buf *b);

#endif
