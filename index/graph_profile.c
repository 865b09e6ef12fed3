/*
 * Which profile: measured on a sample, never guessed from the number of dimensions.
 *
 * A sample of the rows is coded by each profile and scanned for some of its own rows; how many of the true nearest are among the
 * codes' best NOMINATED is the profile's recall. The leanest that keeps KEPT of what S8 keeps is taken. Few are nominated
 * here (twice what is wanted), fewer than a search re-ranks: neighbours in the sample are farther apart than in all rows, so
 * the probe must be the harder one.
 *
 * P8 keeps as many leading axes as hold HELD of the variance, in steps of 64; with less than half of the dimensions spared, it is
 * no leaner than S4, so AUTO does not try it then.
 */
#include <stdlib.h>
#include <string.h>

#include "index/graph_build.h"

#define MEAN_ROWS 1024u
#define QUERIES 128u
#define NEAREST 10u
#define NOMINATED 20u
#define KEPT 0.99
#define HELD 0.92f
#define AXES_STEP 64u
#define AXES_DIMS_MAX 4096u /* the covariance is dims x dims floats */
#define PROBE_ROWS_MIN 4096u /* fewer: S8, whose codes take a few MiB at most */

const char *const vk_graph_profile_names[VK_GRAPH_PROFILES] = {"auto", "s8", "s4", "p8"};

/* Sums in f64, rows in order. */
static enum vk_status set_mean(struct vk_graph *g, const struct vk_graph_sample *s)
{
	const uint32_t dims = g->conf.dims;
	double *sum = calloc(dims, sizeof *sum);
	if (!sum) return VK_E_NOMEM;
	for (uint32_t i = 0; i < s->n; i++)
		for (uint32_t d = 0; d < dims; d++) sum[d] += (double)s->row[(size_t)i * dims + d];
	for (uint32_t d = 0; d < dims; d++) g->mean[d] = s->n ? (float)(sum[d] / s->n) : 0;
	free(sum);
	return VK_OK;
}

/* Sum of the relative errors of some of the sample's codes. */
static enum vk_status code_error(const struct vk_graph *g, const struct vk_graph_sample *s, double *sum)
{
	const size_t dims = g->conf.dims, stride = vk_graph_code_stride(&vk_graph_s8, g->conf.dims);
	const uint32_t some = s->n < MEAN_ROWS ? s->n : MEAN_ROWS;
	struct vk_graph as_s8 = {.conf = g->conf, .k = g->k, .codec = &vk_graph_s8, .code_dims = g->conf.dims};
	as_s8.mean = g->mean;
	as_s8.code.stride = stride;
	float *scratch = malloc(2 * dims * sizeof *scratch);
	uint8_t *code = aligned_alloc(64, stride);
	*sum = 0;
	for (uint32_t i = 0; scratch && code && i < some; i++)
		*sum += vk_graph_encode(&as_s8, s->row + (uint64_t)i * s->n / some * dims, scratch, code);
	enum vk_status st = scratch && code ? VK_OK : VK_E_NOMEM;
	free(scratch);
	free(code);
	return st;
}

/* A mean that few long rows have made is far from most: their codes would all be the same. Then the origin serves better. */
static enum vk_status choose_mean(struct vk_graph *g, const struct vk_graph_sample *s)
{
	double with, without;
	const size_t bytes = g->conf.dims * sizeof *g->mean;
	float *mean = malloc(bytes);
	enum vk_status st = mean ? set_mean(g, s) : VK_E_NOMEM;
	if (!st) st = code_error(g, s, &with);
	if (!st) {
		memcpy(mean, g->mean, bytes);
		memset(g->mean, 0, bytes);
		st = code_error(g, s, &without);
	}
	if (!st && with <= without) memcpy(g->mean, mean, bytes);
	if (!st) vk_graph_mean_changed(g);
	free(mean);
	return st;
}

/* --- axes --- */

struct projection {
	float *axes; /* NULL: none, or not worth it */
	uint32_t dims;
};

static uint32_t up_to_step(uint32_t dims) { return (dims + AXES_STEP - 1) / AXES_STEP * AXES_STEP; }

/* The axes that hold enough, of at most `most`; as many as that when not. */
static enum vk_status project(struct vk_graph *g, const struct vk_graph_sample *s, struct vk_graph_team *t, uint32_t most,
			      struct projection *p, float *share)
{
	float *held = malloc(most * sizeof *held);
	enum vk_status st = held ? vk_graph_axes(g, s, t, most, &p->axes, held) : VK_E_NOMEM;
	if (!st) {
		p->dims = AXES_STEP;
		while (p->dims < most && held[p->dims - 1] < HELD) p->dims += AXES_STEP;
		if (p->dims > most) p->dims = most;
		*share = held[p->dims - 1];
	}
	free(held);
	return st;
}

/* --- the probe --- */

struct probe {
	struct vk_graph g; /* only what encodes and compares: conf, kernels, codec, mean, axes, stride */
	const struct vk_graph_sample *s;
	struct vk_graph_team *team;
	uint8_t *code;
	double *kth;       /* of each query: the rank of its NEAREST-th */
	uint32_t *hits;
	struct probe_room {
		float *floats, *rank; /* 3 * dims; a rank a row */
		struct vk_graph_ready ready;
	} *room;
};

struct best {
	float rank;
	uint32_t row;
};

/* The n best of rank[], best first, the row `self` left out. */
static uint32_t best_of(const float *rank, uint32_t rows, uint32_t self, struct best *best, uint32_t n)
{
	uint32_t m = 0;
	for (uint32_t i = 0; i < rows; i++) {
		if (i == self || (m == n && !(rank[i] > best[m - 1].rank))) continue;
		uint32_t at = m < n ? m++ : n - 1;
		for (; at && best[at - 1].rank < rank[i]; at--) best[at] = best[at - 1];
		best[at] = (struct best){rank[i], i};
	}
	return m;
}

static uint32_t query_row(const struct probe *p, uint32_t i)
{
	return (uint32_t)((uint64_t)i * p->s->n / QUERIES);
}

static const float *row_at(const struct probe *p, uint32_t i) { return p->s->row + (size_t)i * p->g.conf.dims; }

static float true_rank(const struct probe *p, const float *q, uint32_t row)
{
	float raw;
	const uint32_t dims = p->g.conf.dims;
	p->g.k->score[vk_metric_kind(p->g.conf.metric)][VK_DTYPE_F32](q, row_at(p, row), 0, 1, dims, NULL, &raw);
	return vk_rank_of_raw(p->g.conf.metric, raw);
}

static void find_truth(void *arg, unsigned worker, uint32_t from, uint32_t to)
{
	struct probe *p = arg;
	float *rank = p->room[worker].rank;
	const uint32_t dims = p->g.conf.dims;
	for (uint32_t i = from; i < to; i++) {
		struct best best[NEAREST];
		uint32_t self = query_row(p, i);
		p->g.k->score[vk_metric_kind(p->g.conf.metric)][VK_DTYPE_F32](row_at(p, self), p->s->row, dims * sizeof(float),
									      p->s->n, dims, NULL, rank);
		for (uint32_t j = 0; j < p->s->n; j++) rank[j] = vk_rank_of_raw(p->g.conf.metric, rank[j]);
		uint32_t n = best_of(rank, p->s->n, self, best, NEAREST);
		p->kth[i] = (double)best[n - 1].rank;
	}
}

static void encode_rows(void *arg, unsigned worker, uint32_t from, uint32_t to)
{
	struct probe *p = arg;
	for (uint32_t i = from; i < to; i++)
		(void)vk_graph_encode(&p->g, row_at(p, i), p->room[worker].floats, p->code + (size_t)i * p->g.code.stride);
}

static void nominate(void *arg, unsigned worker, uint32_t from, uint32_t to)
{
	struct probe *p = arg;
	struct probe_room *room = &p->room[worker];
	for (uint32_t i = from; i < to; i++) {
		struct best best[NOMINATED];
		uint32_t self = query_row(p, i), hits = 0;
		vk_graph_ready(&p->g, row_at(p, self), room->floats, &room->ready);
		vk_graph_near_codes(&p->g, &room->ready, p->code, p->s->n, room->rank);
		uint32_t n = best_of(room->rank, p->s->n, self, best, NOMINATED);
		for (uint32_t j = 0; j < n; j++) hits += (double)true_rank(p, row_at(p, self), best[j].row) >= p->kth[i];
		p->hits[i] = hits < NEAREST ? hits : NEAREST;
	}
}

static double recall_of(struct probe *p, enum vk_graph_profile profile, const struct projection *a)
{
	uint64_t hits = 0;
	p->g.codec = vk_graph_codec_of(profile);
	p->g.axes = profile == VK_GRAPH_P8 ? a->axes : NULL;
	p->g.code_dims = p->g.axes ? a->dims : p->g.conf.dims;
	p->g.code.stride = vk_graph_code_stride(p->g.codec, p->g.code_dims);
	vk_graph_team_run(p->team, p->s->n, 256, encode_rows, p);
	vk_graph_team_run(p->team, QUERIES, 1, nominate, p);
	for (uint32_t i = 0; i < QUERIES; i++) hits += p->hits[i];
	return (double)hits / (double)(QUERIES * NEAREST);
}

static enum vk_status probe_begin(struct probe *p, const struct vk_graph *g)
{
	const unsigned threads = vk_graph_team_threads(p->team);
	const size_t dims = g->conf.dims, stride = vk_graph_code_stride(&vk_graph_s8, g->conf.dims);
	p->g.conf = g->conf;
	p->g.k = g->k;
	p->g.mean = g->mean;
	p->g.mean2 = g->mean2;
	p->code = aligned_alloc(64, p->s->n * stride);
	p->kth = malloc(QUERIES * sizeof *p->kth);
	p->hits = malloc(QUERIES * sizeof *p->hits);
	p->room = calloc(threads, sizeof *p->room);
	if (!p->code || !p->kth || !p->hits || !p->room) return VK_E_NOMEM;
	for (unsigned i = 0; i < threads; i++) {
		struct probe_room *r = &p->room[i];
		r->floats = malloc(3 * dims * sizeof *r->floats);
		r->rank = malloc(p->s->n * sizeof *r->rank);
		r->ready.code = aligned_alloc(64, (2 * (dims + 128) + 63) / 64 * 64);
		if (!r->floats || !r->rank || !r->ready.code) return VK_E_NOMEM;
	}
	return VK_OK;
}

static void probe_end(struct probe *p)
{
	for (unsigned i = 0; p->room && i < vk_graph_team_threads(p->team); i++) {
		free(p->room[i].floats);
		free(p->room[i].rank);
		free(p->room[i].ready.code);
	}
	free(p->room);
	free(p->code);
	free(p->kth);
	free(p->hits);
}

/* The leanest first: the first that keeps enough. */
static enum vk_status measure(struct vk_graph *g, const struct vk_graph_sample *s, struct vk_graph_team *t,
			      const struct projection *a, enum vk_graph_profile *best)
{
	struct probe p = {.s = s, .team = t};
	enum vk_status st = probe_begin(&p, g);
	if (!st) {
		vk_graph_team_run(t, QUERIES, 1, find_truth, &p);
		double floor = KEPT * recall_of(&p, VK_GRAPH_S8, a);
		*best = VK_GRAPH_S8;
		if (a->axes && recall_of(&p, VK_GRAPH_P8, a) >= floor)
			*best = VK_GRAPH_P8;
		else if (recall_of(&p, VK_GRAPH_S4, a) >= floor)
			*best = VK_GRAPH_S4;
	}
	probe_end(&p);
	return st;
}

/* --- the choice --- */

static enum vk_status choose(struct vk_graph *g, const struct vk_graph_sample *s, struct vk_graph_team *t, struct projection *a,
			     enum vk_graph_profile *best)
{
	float share = 0;
	uint32_t half = g->conf.dims / 2 / AXES_STEP * AXES_STEP;
	*best = VK_GRAPH_S8;
	if (s->n < PROBE_ROWS_MIN) return VK_OK;
	enum vk_status st = VK_OK;
	if (half >= AXES_STEP && g->conf.dims <= AXES_DIMS_MAX) st = project(g, s, t, half, a, &share);
	if (!st && share < HELD) {
		free(a->axes);
		a->axes = NULL;
	}
	return st ? st : measure(g, s, t, a, best);
}

static enum vk_status apply(struct vk_graph *g, enum vk_graph_profile profile, struct projection *a, struct vk_error *err)
{
	const size_t stride = g->code.stride;
	g->codec = vk_graph_codec_of(profile);
	g->code_dims = g->conf.dims;
	if (profile == VK_GRAPH_P8) {
		free(g->axes);
		g->axes = a->axes;
		g->code_dims = a->dims;
		a->axes = NULL;
	}
	return stride == vk_graph_code_stride(g->codec, g->code_dims) ? VK_OK : vk_graph_reserve(g, err);
}

enum vk_status vk_graph_profile_set(struct vk_graph *g, const struct vk_graph_sample *s, struct vk_graph_team *t,
				    struct vk_error *err)
{
	struct projection a = {0};
	float share;
	enum vk_graph_profile profile = g->conf.profile;
	uint32_t dims = g->conf.dims, most = up_to_step(dims / 2 + 1);
	if (profile == VK_GRAPH_P8 && dims > AXES_DIMS_MAX)
		return vk_fail(err, VK_E_INVALID, "profile p8 takes at most %u dims", AXES_DIMS_MAX);
	enum vk_status st = choose_mean(g, s);
	if (!st && profile == VK_GRAPH_P8) st = project(g, s, t, most < dims ? most : dims, &a, &share);
	if (!st && profile == VK_GRAPH_AUTO) st = choose(g, s, t, &a, &profile);
	if (!st) st = apply(g, profile, &a, err);
	free(a.axes);
	return st;
}
