/*
 * Exact search over a view: the queries fall into groups with the same `in`, each group is one run over the parts that hold a
 * wanted slot (exact_run.h).
 *
 * Roads not taken: madvise over the map. Reading the parts' heads already touches each block's first page, and the kernel's
 * read-ahead serves the rest of a block, which lies in neighbouring pages.
 */
#include "index/exact.h"

#include <math.h>
#include <stdlib.h>

#include "index/collection.h"
#include "index/exact_run.h"

static int compare_ids(void *view, uint32_t a, uint32_t b)
{
	return vk_view_compare_ids(view, a, b);
}

static bool finite_vector(const float *v, size_t dims)
{
	for (size_t i = 0; i < dims; i++)
		if (!isfinite(v[i])) return false;
	return true;
}

static enum vk_status check(const struct vk_set *s, const struct vk_exact_query *q, size_t n, struct vk_error *err)
{
	for (size_t i = 0; i < n; i++) {
		if (q[i].limit > VK_EXACT_LIMIT_MAX)
			return vk_fail(err, VK_E_INVALID, "limit must be at most %zu", VK_EXACT_LIMIT_MAX);
		if (isnan(q[i].floor)) return vk_fail(err, VK_E_INVALID, "the score threshold is not a number");
		if (!finite_vector(q[i].vector, s->dims))
			return vk_fail(err, VK_E_INVALID, "the query vector has a component that is not finite");
	}
	return VK_OK;
}

static void add_stats(struct vk_exact_stats *sum, const struct vk_exact_stats *one)
{
	if (!sum) return;
	sum->path = one->path;
	sum->rows_scanned += one->rows_scanned;
	sum->rows_reread += one->rows_reread;
	sum->bytes += one->bytes;
}

static enum vk_status run_group(struct vk_view *v, const struct vk_set *s, struct vk_exact_query *q, size_t n,
				const struct vk_exact_opts *o, struct vk_arena *a, struct vk_exact_stats *stats,
				struct vk_error *err)
{
	struct vk_parts parts;
	enum vk_status st = vk_view_parts(v, s, q[0].in, a, &parts);
	if (st) return vk_fail(err, st, "the rows of a vector set cannot be read: %s", vk_status_text(st));
	struct vk_exact_source src = {.set = s, .parts = &parts, .in = q[0].in, .tie = compare_ids, .tie_arg = v,
				      .kv = vk_collection_kv(v->c), .until_ms = v->until_ms};
	struct vk_exact_stats one;
	st = vk_exact_run(&src, q, n, o, a, &one, err);
	if (!st) add_stats(stats, &one);
	return st;
}

/* Gathers the queries from `first` on that share its bitmap and have not run yet; runs them; puts their answers back. */
static enum vk_status run_alike(struct vk_view *v, const struct vk_set *s, struct vk_exact_query *q, size_t n, size_t first,
				bool *done, struct vk_exact_query *group, const struct vk_exact_opts *o,
				struct vk_arena *a, struct vk_exact_stats *stats, struct vk_error *err)
{
	size_t m = 0;
	for (size_t i = first; i < n; i++)
		if (!done[i] && q[i].in == q[first].in) group[m++] = q[i];
	enum vk_status st = run_group(v, s, group, m, o, a, stats, err);
	if (st) return st;
	m = 0;
	for (size_t i = first; i < n; i++)
		if (!done[i] && q[i].in == q[first].in) {
			q[i] = group[m++];
			done[i] = true;
		}
	return VK_OK;
}

enum vk_status vk_exact_search(struct vk_view *v, const struct vk_set *s, struct vk_exact_query *q, size_t n,
			       const struct vk_exact_opts *o, struct vk_arena *a, struct vk_exact_stats *stats,
			       struct vk_error *err)
{
	if (stats) *stats = (struct vk_exact_stats){0};
	enum vk_status st = check(s, q, n, err);
	if (st || !n) return st;
	bool *done = vk_arena_calloc(a, n, sizeof *done);
	struct vk_exact_query *group = vk_arena_alloc(a, n * sizeof *group);
	if (!done || !group) return vk_fail(err, VK_E_NOMEM, "not enough memory for the search");
	for (size_t i = 0; i < n && !st; i++)
		if (!done[i]) st = run_alike(v, s, q, n, i, done, group, o, a, stats, err);
	return st;
}

enum vk_status vk_exact_rank(struct vk_view *v, const struct vk_set *s, const float *vector, uint32_t slot, float *rank)
{
	struct vk_row row;
	enum vk_status st = vk_vset_row(v->t, s, slot, &row);
	if (st) return st;
	struct vk_scorer scorer;
	struct vk_prepared p;
	vk_scorer_init(&scorer, s, vk_cpu_best());
	_Alignas(64) char few[4096];
	char *form = few;
	if (vk_scorer_query_bytes(&scorer) > sizeof few && !(form = malloc(vk_scorer_query_bytes(&scorer)))) return VK_E_NOMEM;
	vk_scorer_prepare(&scorer, vector, form, &p);
	vk_scorer_at(&scorer, &p, &row.p, 1, &row.inv_norm, rank);
	if (isnan(*rank)) *rank = -INFINITY; /* as in a selection */
	if (form != few) free(form);
	return VK_OK;
}
