/*
 * The leading principal axes of a sample: its covariance, and a few rounds of block power iteration on it.
 *
 * Only the space that the axes span matters, not each axis: what is kept of a row is its projection. So no eigenvalue is
 * ever solved for: from random vectors, four times "multiply by the covariance, make orthonormal" holds within a percent of the
 * variance that the true axes hold (the randomised range finder), and the first p of the vectors are what p vectors alone
 * would have given, so one run serves every p.
 *
 * All sums are by the canonical kernels or a loop of one order: the same axes at every CPU level and number of threads.
 * Not taken: LAPACK (one library more, and bits that depend on the CPU), Jacobi (n^3 with a large factor: a minute at 1536 d).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "index/graph_build.h"

#define CHUNK 512u /* rows of the sample at a time: what is held transposed stays in the second-level cache */
#define ROUNDS 4
#define LANES 4u

struct axes {
	const struct vk_graph *g;
	const struct vk_graph_sample *s;
	struct vk_graph_team *team;
	uint32_t dims, count;
	float *turned; /* dims x CHUNK: a chunk of the sample, centred, components in rows */
	float *cov;    /* dims x dims, not divided by the number of rows */
	float *from, *to; /* count x dims */
	float *raw;    /* dims a worker */
	uint32_t first, rows; /* the chunk */
};

static void dots(const struct axes *a, const float *q, const float *rows, uint32_t n, uint32_t len, float *out)
{
	a->g->k->score[0][VK_DTYPE_F32](q, rows, (size_t)len * sizeof *rows, n, len, NULL, out);
}

/* --- covariance --- */

static void turn(void *arg, unsigned worker, uint32_t from, uint32_t to)
{
	(void)worker;
	struct axes *a = arg;
	for (uint32_t d = from; d < to; d++) {
		float *dst = a->turned + (size_t)d * CHUNK, mean = a->g->mean[d];
		for (uint32_t i = 0; i < a->rows; i++) dst[i] = a->s->row[(size_t)(a->first + i) * a->dims + d] - mean;
		memset(dst + a->rows, 0, (CHUNK - a->rows) * sizeof *dst);
	}
}

static void add_products(void *arg, unsigned worker, uint32_t from, uint32_t to)
{
	struct axes *a = arg;
	float *raw = a->raw + (size_t)worker * a->dims;
	for (uint32_t d = from; d < to; d++) {
		const float *row = a->turned + (size_t)d * CHUNK;
		float *c = a->cov + (size_t)d * a->dims + d;
		dots(a, row, row, a->dims - d, CHUNK, raw);
		for (uint32_t i = 0; i < a->dims - d; i++) c[i] += raw[i];
	}
}

static void covariance(struct axes *a)
{
	const uint32_t dims = a->dims;
	for (a->first = 0; a->first < a->s->n; a->first += CHUNK) {
		a->rows = a->s->n - a->first < CHUNK ? a->s->n - a->first : CHUNK;
		vk_graph_team_run(a->team, dims, 8, turn, a);
		vk_graph_team_run(a->team, dims, 8, add_products, a);
	}
	for (uint32_t d = 0; d < dims; d++)
		for (uint32_t i = d + 1; i < dims; i++) a->cov[(size_t)i * dims + d] = a->cov[(size_t)d * dims + i];
}

/* --- the iteration --- */

static void multiply(void *arg, unsigned worker, uint32_t from, uint32_t to)
{
	(void)worker;
	struct axes *a = arg;
	for (uint32_t i = from; i < to; i++)
		dots(a, a->from + (size_t)i * a->dims, a->cov, a->dims, a->dims, a->to + (size_t)i * a->dims);
}

typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));

/* v -= sum of c[i] * row i: four components at a time, each by itself in ascending i. */
static void take_away(float *v, const float *rows, const float *c, uint32_t n, uint32_t dims)
{
	uint32_t whole = dims / LANES * LANES;
	for (uint32_t i = 0; i < n; i++) {
		const float *row = rows + (size_t)i * dims, by = c[i];
		for (uint32_t d = 0; d < whole; d += LANES) *(lanes *)(v + d) -= by * *(const lanes *)(row + d);
		for (uint32_t d = whole; d < dims; d++) v[d] -= by * row[d];
	}
}

static void random_vector(float *v, uint32_t dims, uint64_t *rng)
{
	for (uint32_t d = 0; d < dims; d++) v[d] = (float)((double)(int64_t)vk_rng(rng) * 0x1p-63);
}

static float length(const struct axes *a, const float *v)
{
	float squares;
	dots(a, v, v, 1, a->dims, &squares);
	return sqrtf(squares);
}

/* Gram and Schmidt, twice for rounding. A vector that vanishes (fewer directions than asked) starts again as a random one. */
static void orthonormal(struct axes *a, float *v, uint64_t *rng)
{
	const uint32_t dims = a->dims;
	for (uint32_t i = 0; i < a->count; i++) {
		float *x = v + (size_t)i * dims, size = length(a, x);
		for (int round = 0; round < 8; round++) {
			if (!(size > 0) || !isfinite(size)) {
				random_vector(x, dims, rng);
				size = length(a, x);
			}
			for (uint32_t d = 0; d < dims; d++) x[d] /= size;
			dots(a, x, v, i, dims, a->raw);
			take_away(x, v, a->raw, i, dims);
			size = length(a, x);
			if (round && size > 0.5f) break;
			if (size < 1e-4f) size = 0;
		}
		for (uint32_t d = 0; d < dims; d++) x[d] /= size;
	}
}

static void iterate(struct axes *a)
{
	uint64_t rng = a->g->conf.seed ^ 0x61786573u;
	for (uint32_t i = 0; i < a->count; i++) random_vector(a->from + (size_t)i * a->dims, a->dims, &rng);
	orthonormal(a, a->from, &rng);
	for (int round = 0; round < ROUNDS; round++) {
		vk_graph_team_run(a->team, a->count, 4, multiply, a);
		orthonormal(a, a->to, &rng);
		float *t = a->from;
		a->from = a->to, a->to = t;
	}
}

/* Share of the sample's variance that the first p hold, for each p. */
static void shares(struct axes *a, float *held)
{
	double all = 0, sum = 0;
	for (uint32_t d = 0; d < a->dims; d++) all += (double)a->cov[(size_t)d * a->dims + d];
	vk_graph_team_run(a->team, a->count, 4, multiply, a);
	for (uint32_t i = 0; i < a->count; i++) {
		float along;
		dots(a, a->from + (size_t)i * a->dims, a->to + (size_t)i * a->dims, 1, a->dims, &along);
		sum += (double)along;
		held[i] = all > 0 ? (float)(sum / all) : 1.0f;
	}
}

enum vk_status vk_graph_axes(const struct vk_graph *g, const struct vk_graph_sample *s, struct vk_graph_team *t, uint32_t count,
			     float **out, float *held)
{
	const size_t dims = g->conf.dims;
	struct axes a = {.g = g, .s = s, .team = t, .dims = g->conf.dims, .count = count};
	a.turned = malloc(dims * CHUNK * sizeof(float));
	a.cov = calloc(dims * dims, sizeof(float));
	a.from = malloc(count * dims * sizeof(float));
	a.to = malloc(count * dims * sizeof(float));
	a.raw = malloc(vk_graph_team_threads(t) * dims * sizeof(float));
	enum vk_status st = a.turned && a.cov && a.from && a.to && a.raw ? VK_OK : VK_E_NOMEM;
	*out = NULL;
	if (!st) {
		covariance(&a);
		iterate(&a);
		shares(&a, held);
		*out = a.from;
		a.from = NULL;
	}
	free(a.turned);
	free(a.cov);
	free(a.from);
	free(a.to);
	free(a.raw);
	return st;
}
