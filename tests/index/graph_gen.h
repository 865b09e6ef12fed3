/*
 * Rows for the graph's tests, from a seed alone: gaussian, clustered with a decaying spectrum (as embeddings are), and
 * degenerate ones. And the oracle: the k nearest by f64 over all rows.
 */
#ifndef VK_TESTS_INDEX_GRAPH_GEN_H
#define VK_TESTS_INDEX_GRAPH_GEN_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "index/graph.h"

enum gen_kind {
	GEN_GAUSSIAN,
	GEN_CLUSTERED,  /* n / 50 clusters, 8 of 9 parts of the variance between them */
	GEN_EQUAL,      /* all the same */
	GEN_DUPLICATES, /* each row about 20 times */
	GEN_TIGHT,      /* 20 clusters of a millionth's width, and one row in a hundred far away */
	GEN_NORMS,      /* gaussian directions, norms over six orders */
	GEN_ZEROS,      /* every third row is zero */
	GEN_LINE,       /* one dimension matters */
	GEN_SORTED,     /* clustered, cluster by cluster */
	GEN_KINDS
};

struct gen_rows {
	float *row;
	uint32_t n, dims;
};

static inline float gen_normal(uint64_t *rng)
{
	double u = (double)(vk_rng(rng) >> 11) * 0x1p-53 + 0x1p-54, v = (double)(vk_rng(rng) >> 11) * 0x1p-53;
	return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static inline float *gen_at(const struct gen_rows *r, uint32_t i) { return r->row + (size_t)i * r->dims; }

static inline void gen_unit(float *v, uint32_t dims)
{
	double s = 0;
	for (uint32_t d = 0; d < dims; d++) s += (double)v[d] * (double)v[d];
	for (uint32_t d = 0; s > 0 && d < dims; d++) v[d] = (float)((double)v[d] / sqrt(s));
}

static inline void gen_normals(float *v, uint32_t dims, float scale, uint64_t *rng)
{
	for (uint32_t d = 0; d < dims; d++) v[d] = scale * gen_normal(rng);
}

/* The shape of a row around its centre: variances that fall with the dimension, as spectra of embeddings do. */
static inline void gen_shaped(float *v, uint32_t dims, float scale, uint64_t *rng)
{
	for (uint32_t d = 0; d < dims; d++) v[d] += scale * gen_normal(rng) / sqrtf(1 + 8 * (float)d / (float)dims);
}

static inline void gen_clustered(struct gen_rows *r, uint64_t *rng, bool sorted)
{
	uint32_t clusters = r->n / 50 + 1;
	float *centre = malloc((size_t)clusters * r->dims * sizeof *centre);
	for (uint32_t c = 0; c < clusters; c++) {
		memset(centre + (size_t)c * r->dims, 0, r->dims * sizeof *centre);
		gen_shaped(centre + (size_t)c * r->dims, r->dims, 1, rng);
	}
	for (uint32_t i = 0; i < r->n; i++) {
		uint32_t c = sorted ? i / 50 : (uint32_t)(vk_rng(rng) % clusters);
		memcpy(gen_at(r, i), centre + (size_t)c * r->dims, r->dims * sizeof *centre);
		gen_shaped(gen_at(r, i), r->dims, 0.6f, rng);
	}
	free(centre);
}

static inline void gen_tight(struct gen_rows *r, uint64_t *rng)
{
	float *centre = malloc((size_t)20 * r->dims * sizeof *centre);
	gen_normals(centre, 20 * r->dims, 1, rng);
	for (uint32_t i = 0; i < r->n; i++) {
		float *v = gen_at(r, i), *c = centre + (size_t)(vk_rng(rng) % 20) * r->dims;
		gen_normals(v, r->dims, i % 100 == 0 ? 30.0f : 1e-6f, rng);
		for (uint32_t d = 0; d < r->dims; d++) v[d] += c[d];
	}
	free(centre);
}

static inline void gen_fill(struct gen_rows *r, enum gen_kind kind, uint64_t *rng)
{
	if (kind == GEN_CLUSTERED || kind == GEN_SORTED) {
		gen_clustered(r, rng, kind == GEN_SORTED);
		return;
	}
	if (kind == GEN_TIGHT) {
		gen_tight(r, rng);
		return;
	}
	for (uint32_t i = 0; i < r->n; i++) {
		float *v = gen_at(r, i);
		if (kind == GEN_DUPLICATES && i > 20 && i % 20) {
			memcpy(v, gen_at(r, (uint32_t)(vk_rng(rng) % i)), r->dims * sizeof *v);
			continue;
		}
		gen_normals(v, r->dims, 1, rng);
		if (kind == GEN_EQUAL && i) memcpy(v, r->row, r->dims * sizeof *v);
		if (kind == GEN_ZEROS && i % 3 == 0) memset(v, 0, r->dims * sizeof *v);
		if (kind == GEN_NORMS) {
			float scale = powf(10, (float)(vk_rng(rng) % 6001) / 1000 - 3);
			for (uint32_t d = 0; d < r->dims; d++) v[d] *= scale;
		}
		for (uint32_t d = 1; kind == GEN_LINE && d < r->dims; d++) v[d] *= 1e-4f;
	}
}

/* Rows and queries of one distribution: the last of `extra` are meant as queries. */
static inline struct gen_rows gen_rows(enum gen_kind kind, uint32_t n, uint32_t dims, enum vk_metric metric, uint64_t seed)
{
	struct gen_rows r = {.n = n, .dims = dims};
	r.row = malloc(((size_t)n * dims + 1) * sizeof *r.row);
	gen_fill(&r, kind, &seed);
	for (uint32_t i = 0; metric == VK_METRIC_COSINE && i < n; i++) gen_unit(gen_at(&r, i), dims);
	return r;
}

static inline double gen_rank(enum vk_metric metric, const float *q, const float *x, uint32_t dims)
{
	double s = 0;
	for (uint32_t d = 0; d < dims; d++) {
		double off = (double)q[d] - (double)x[d];
		s += metric == VK_METRIC_L2 ? -off * off : (double)q[d] * (double)x[d];
	}
	return s;
}

/* Of n rows, the rank of the k-th nearest: whoever reaches it is a right answer, ties and duplicates included. k at most 64. */
static inline double gen_kth(enum vk_metric metric, const struct gen_rows *r, uint32_t n, const float *q, uint32_t k)
{
	double best[64];
	uint32_t m = 0;
	for (uint32_t i = 0; i < n; i++) {
		double rank = gen_rank(metric, q, gen_at(r, i), r->dims);
		if (m == k && !(rank > best[m - 1])) continue;
		uint32_t at = m < k ? m++ : k - 1;
		for (; at && best[at - 1] < rank; at--) best[at] = best[at - 1];
		best[at] = rank;
	}
	return best[m - 1];
}

#endif
