/*
 * What the graph tests share: rows in clusters, and a graph made by hand, without the builder: each node's exact nearest neighbours and
 * some random ones. Included after cmocka.h.
 */
#ifndef VK_TESTS_INDEX_GRAPH_UTIL_H
#define VK_TESTS_INDEX_GRAPH_UTIL_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/graph_internal.h"
#include "simd/score.h"
#include "tests/simd/levels.h"

static inline float gu_gauss(uint64_t *dice)
{
	double sum = 0;
	for (int i = 0; i < 4; i++) sum += (double)(vk_rng(dice) >> 40) / (1 << 24);
	return (float)((sum - 2) * 1.7);
}

/* n rows around n / 50 + 1 centres, away from zero; unit vectors for cosine. */
static inline float *gu_rows(uint32_t n, uint32_t dims, enum vk_metric metric, uint64_t *dice)
{
	uint32_t centres = n / 50 + 1;
	float *centre = malloc((size_t)centres * dims * sizeof *centre), *row = malloc(((size_t)n + 1) * dims * sizeof *row);
	assert_true(centre && row);
	for (size_t i = 0; i < (size_t)centres * dims; i++) centre[i] = gu_gauss(dice) + 0.3f;
	for (uint32_t i = 0; i < n; i++) {
		float *x = row + (size_t)i * dims;
		const float *c = centre + vk_rng(dice) % centres * dims;
		for (uint32_t j = 0; j < dims; j++) x[j] = c[j] + 0.5f * gu_gauss(dice);
		if (metric == VK_METRIC_COSINE) vk_unit(x, x, dims);
	}
	free(centre);
	return row;
}

static inline void gu_mean(struct vk_graph *g, const float *row, uint32_t n)
{
	uint32_t dims = g->conf.dims;
	for (uint32_t j = 0; j < dims && n; j++) {
		double sum = 0;
		for (uint32_t i = 0; i < n; i++) sum += (double)row[(size_t)i * dims + j];
		g->mean[j] = (float)(sum / n);
	}
	vk_graph_mean_changed(g);
}

/* Ranks of all rows for a query, bigger is nearer. */
static inline void gu_ranks(const struct vk_graph_conf *c, const float *q, const float *row, uint32_t n, float *rank)
{
	const struct vk_kernels *k = vk_kernels(vk_cpu_best());
	k->score[vk_metric_kind(c->metric)][VK_DTYPE_F32](q, row, c->dims * sizeof *row, n, c->dims, NULL, rank);
	for (uint32_t i = 0; i < n; i++) rank[i] = vk_rank_of_raw(c->metric, rank[i]);
}

/* The place of the best rank that is not taken (taken ones are -infinity). */
static inline uint32_t gu_best(const float *rank, uint32_t n)
{
	uint32_t best = 0;
	for (uint32_t i = 1; i < n; i++)
		if (rank[i] > rank[best]) best = i;
	return best;
}

static inline void gu_node(struct vk_graph *g, const float *row, uint32_t label)
{
	uint32_t node = atomic_load(&g->n);
	float *scratch = malloc(2 * g->conf.dims * sizeof *scratch);
	vk_graph_encode(g, row, scratch, vk_graph_code_at(g, node));
	free(scratch);
	*vk_graph_label_at(g, node) = label;
	*vk_graph_chain_at(g, node) = VK_GRAPH_NONE;
	memset(vk_graph_edges_at(g, node), 0xff, g->edge.stride);
	assert_int_equal(vk_graph_bind(g, label, node), VK_OK);
	atomic_store(&g->n, node + 1);
}

static inline uint16_t *gu_in(struct vk_graph *g, uint32_t node)
{
	return (uint16_t *)(void *)g->in.p + node;
}

static inline bool gu_tie(struct vk_graph *g, uint32_t from, uint32_t to)
{
	uint32_t *edge = vk_graph_edges_at(g, from), i = 0;
	if (from == to) return false;
	for (; i < g->conf.degree && edge[i] != VK_GRAPH_NONE; i++)
		if (edge[i] == to) return false;
	if (i == g->conf.degree) return false;
	edge[i] = to;
	++*gu_in(g, to);
	return true;
}

/* Half of the degree to the nearest, half at random; entries. Labels are label0 + 3 * i. */
static inline struct vk_graph *gu_graph(const struct vk_graph_conf *conf, const float *row, uint32_t n, uint64_t *dice)
{
	struct vk_graph *g;
	struct vk_error err;
	assert_int_equal(vk_graph_new(conf, &g, &err), VK_OK);
	float *rank = malloc((n + 1) * sizeof *rank);
	gu_mean(g, row, n);
	for (uint32_t i = 0; i < n; i++) gu_node(g, row + (size_t)i * conf->dims, 3 * i);
	for (uint32_t i = 0; i < n; i++) {
		gu_ranks(conf, row + (size_t)i * conf->dims, row, n, rank);
		rank[i] = -INFINITY;
		for (uint32_t k = 0; k < g->conf.degree / 2 && k + 1 < n; k++) {
			uint32_t best = gu_best(rank, n);
			rank[best] = -INFINITY;
			gu_tie(g, i, best);
		}
		for (uint32_t k = 0; k < g->conf.degree / 2 && n > 1; k++) gu_tie(g, i, (uint32_t)(vk_rng(dice) % n));
	}
	free(rank);
	assert_int_equal(vk_graph_entries(g), VK_OK);
	return g;
}

static inline enum vk_status gu_search(struct vk_graph *g, struct vk_graph_query *q)
{
	struct vk_graph_scratch *s = vk_graph_scratch_take(g);
	assert_non_null(s);
	enum vk_status st = vk_graph_search(g, s, q);
	vk_graph_scratch_give(g, s);
	return st;
}

#endif
