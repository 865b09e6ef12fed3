/*
 * GEMM: many queries against tiles of rows, selection fused with the tile; the whole matrix never is.
 *
 * Rows are copied into a tile (f16 widened on the way): blocks are small, and a matrix product packs its operands each
 * call, so a block at a time would pack the queries far too often. The product only nominates. With u = 2^-24, in any
 * order of summation |g - <q, x>| <= d u' ||q|| ||x||, and the canonical kernel is within (ceil(d/32) + 8) u' ||q|| ||x||
 * of the same number; so a row whose product is further below the floor than both together cannot reach it. In the
 * space of what is compared, s = g * times + plus:
 *   DOT     s = g            rank = s
 *   COSINE  s = g * inv_norm rank = s
 *   L2      s = 2 g - ||x||^2, rank = s - ||q||^2; the canonical difference is off by (ceil(d/32) + 10) u' (||q|| + ||x||)^2
 * The slack of a tile is that of its longest row. All of a candidate's arithmetic is the canonical kernel's.
 *
 * Rows and queries so long or so short that f32 may overflow or go subnormal have no such bound: they are scored
 * canonically. While a selection has no floor yet, the tile's own k-th best s, less twice the slack, is one.
 */
#include "index/exact_run.h"
#include "simd/gemm.h"

#include <math.h>

#define TILE_BYTES ((size_t)2 << 20)
#define TILE_ROWS_MIN 128
#define TILE_ROWS_MAX 1024
#define QUERY_ROWS 256 /* of one product: its result stays in the second-level cache */
#define LONG 1e30f     /* inverse norms beyond it or below 1 / LONG: no bound */
#define PRODUCT_MAX 1e37
#define UNIT 0x1.02p-24 /* u / (1 - d u) for d up to 65,536 */

struct tile { /* a worker's */
	size_t n, max, ld;
	float *x;              /* max rows of ld */
	const void **row;      /* where they came from */
	uint32_t *slot;
	float *inv_norm, *times, *plus;
	double longest;        /* norm */
	float *product;        /* QUERY_ROWS x max */
	float *s, *rank;
	uint32_t *idx;
	const void **candidate;
	float *candidate_inv_norm;
};
struct gemm_job {
	double *norm; /* of each query, not below the true one */
};

static size_t tile_rows(size_t dims)
{
	size_t n = TILE_BYTES / (dims * sizeof(float));
	n = n < TILE_ROWS_MIN ? TILE_ROWS_MIN : n > TILE_ROWS_MAX ? TILE_ROWS_MAX : n;
	return n;
}

static struct tile *tile_new(const struct vk_exact_job *job, struct vk_arena *a)
{
	struct tile *t = vk_arena_calloc(a, 1, sizeof *t);
	if (!t) return NULL;
	size_t m = t->max = tile_rows(job->scorer.dims), queries = job->query_n < QUERY_ROWS ? job->query_n : QUERY_ROWS;
	t->ld = (job->scorer.dims + 15) / 16 * 16;
	if (!(t->x = vk_arena_alloc(a, m * t->ld * sizeof *t->x))) return NULL;
	if (!(t->product = vk_arena_alloc(a, queries * m * sizeof *t->product))) return NULL;
	float *f = vk_arena_alloc(a, 6 * m * sizeof *f);
	const void **p = vk_arena_alloc(a, 2 * m * sizeof *p);
	uint32_t *u = vk_arena_alloc(a, 2 * m * sizeof *u);
	if (!f || !p || !u) return NULL;
	t->inv_norm = f;
	t->times = f + m;
	t->plus = f + 2 * m;
	t->s = f + 3 * m;
	t->rank = f + 4 * m;
	t->candidate_inv_norm = f + 5 * m;
	t->row = p;
	t->candidate = p + m;
	t->slot = u;
	t->idx = u + m;
	return t;
}

static enum vk_status prepare(struct vk_exact_job *job, struct vk_arena *a)
{
	struct gemm_job *gj = job->own = vk_arena_calloc(a, 1, sizeof *gj);
	if (!gj || !(gj->norm = vk_arena_alloc(a, job->query_n * sizeof *gj->norm))) return VK_E_NOMEM;
	for (size_t i = 0; i < job->query_n; i++) {
		double sum = 0;
		for (size_t j = 0; j < job->scorer.dims; j++) {
			double x = job->running[i].p.f[j];
			sum += x * x;
		}
		gj->norm[i] = sqrt(sum) * (1 + 0x1p-30);
	}
	for (unsigned j = 0; j < job->workers; j++)
		if (!(job->worker[j]->own = tile_new(job, a))) return VK_E_NOMEM;
	vk_gemm_init();
	return VK_OK;
}

/* --- one query against the tile --- */

static void rank_candidates(struct vk_exact_worker *w, size_t query, size_t n)
{
	struct tile *t = w->own;
	struct vk_running *r = &w->job->running[query];
	bool same = w->job->scorer.dtype == VK_DTYPE_F32; /* then the copy is as good and nearer */
	for (size_t i = 0; i < n; i++) {
		uint32_t at = t->idx[i];
		t->candidate[i] = same ? t->x + at * t->ld : t->row[at];
		t->candidate_inv_norm[i] = t->inv_norm[at];
	}
	vk_scorer_at(&w->job->scorer, &r->p, t->candidate, n, t->candidate_inv_norm, t->rank);
	for (size_t i = 0; i < n; i++) vk_topk_push(&w->top[query], t->slot[t->idx[i]], t->rank[i]);
	w->rows_reread += n;
	vk_exact_share(r, &w->top[query], -INFINITY);
}

/* How far s may be from the canonical rank (plus the query's own part under L2), for any row of the tile. */
static double slack(const struct vk_scorer *s, double q, double x)
{
	double d = (double)s->dims, lanes = ceil(d / 32), small = d * 0x1p-140;
	double product = (d + 2 + lanes + 8) * UNIT * q;
	if (s->metric == VK_METRIC_COSINE) return product * (1 + 0x1p-20) + 4 * UNIT * q + small * LONG;
	if (s->metric == VK_METRIC_DOT) return product * x + small;
	return 2 * product * x + (lanes + 16) * UNIT * (q + x) * (q + x) + 8 * UNIT * (2 * q * x + x * x + q * q) + small;
}

static float below(double v)
{
	float f = (float)v;
	return (double)f > v ? nextafterf(f, -INFINITY) : f;
}

static void select_candidates(struct vk_exact_worker *w, size_t query, const float *g)
{
	struct tile *t = w->own;
	const struct vk_scorer *s = &w->job->scorer;
	struct vk_topk *top = &w->top[query];
	double q = ((struct gemm_job *)w->job->own)->norm[query], off = s->metric == VK_METRIC_L2 ? q * q : 0;
	vk_exact_share(&w->job->running[query], top, -INFINITY);
	if (!(q * t->longest < PRODUCT_MAX && off < PRODUCT_MAX && t->longest * t->longest < PRODUCT_MAX)) {
		for (uint32_t i = 0; i < t->n; i++) t->idx[i] = i;
		rank_candidates(w, query, t->n);
		return;
	}
	if (s->metric != VK_METRIC_DOT) {
		for (size_t i = 0; i < t->n; i++) t->s[i] = g[i] * t->times[i] + t->plus[i];
		g = t->s;
	}
	double e = slack(s, q, t->longest), least = (double)top->floor + off - e - 0x1p-22 * (fabs((double)top->floor) + off);
	size_t k = w->job->running[query].k;
	if (!(top->floor > -INFINITY) && k <= t->n) { /* these k rows are at least as good as the tile says */
		memcpy(t->rank, g, t->n * sizeof *g);
		double kth = vk_topk_kth(t->rank, t->n, k);
		least = kth - 2 * e - 0x1p-22 * fabs(kth);
	}
	size_t n = t->n;
	if (least > -INFINITY) n = s->k->at_least(g, t->n, below(least), t->idx);
	else for (uint32_t i = 0; i < t->n; i++) t->idx[i] = i;
	if (n) rank_candidates(w, query, n);
}

/* --- the tile --- */

static void flush(struct vk_exact_worker *w)
{
	struct tile *t = w->own;
	const struct vk_exact_job *job = w->job;
	size_t dims = job->scorer.dims;
	for (size_t q = 0; t->n && q < job->query_n && !vk_exact_stopped(job); q += QUERY_ROWS) {
		size_t m = job->query_n - q < QUERY_ROWS ? job->query_n - q : QUERY_ROWS;
		vk_gemm_f32(true, m, t->n, dims, 1, job->matrix + q * dims, dims, t->x, t->ld, 0, t->product, t->max);
		for (size_t i = 0; i < m; i++) select_candidates(w, q + i, t->product + i * t->max);
	}
	t->n = 0;
	t->longest = 0;
}

/* The row's norm from its inverse, within 2 u; false: it has none that bounds can be built on. */
static bool norm_of(float inv_norm, double *norm)
{
	*norm = inv_norm ? 1 / (double)inv_norm : 0;
	return !inv_norm || (inv_norm < LONG && inv_norm > 1 / LONG);
}

static void add_row(struct vk_exact_worker *w, uint32_t i, double norm)
{
	struct tile *t = w->own;
	const struct vk_scorer *s = &w->job->scorer;
	const void *row = vk_chunk_row(&w->chunk, i);
	float inv_norm = vk_chunk_inv_norm(&w->chunk, i);
	if (t->n == t->max) flush(w);
	size_t at = t->n++;
	float *x = t->x + at * t->ld;
	if (s->dtype == VK_DTYPE_F16) s->k->f16_to_f32(x, row, s->dims);
	else memcpy(x, row, s->dims * sizeof *x);
	t->row[at] = row;
	t->slot[at] = vk_chunk_slot(&w->chunk, i);
	t->inv_norm[at] = inv_norm;
	t->times[at] = s->metric == VK_METRIC_COSINE ? inv_norm : s->metric == VK_METRIC_L2 ? 2 : 1;
	t->plus[at] = s->metric == VK_METRIC_L2 ? (float)-(norm * norm) : 0;
	if (norm * (1 + 0x1p-20) > t->longest) t->longest = norm * (1 + 0x1p-20);
}

static void score_alone(struct vk_exact_worker *w, uint32_t i)
{
	const void *row = vk_chunk_row(&w->chunk, i);
	float inv_norm = vk_chunk_inv_norm(&w->chunk, i), rank;
	for (size_t q = 0; q < w->job->query_n; q++) {
		vk_scorer_at(&w->job->scorer, &w->job->running[q].p, &row, 1, &inv_norm, &rank);
		vk_topk_push(&w->top[q], vk_chunk_slot(&w->chunk, i), rank);
	}
	w->rows_reread++;
}

static void chunk(struct vk_exact_worker *w)
{
	for (uint32_t i = 0; i < w->chunk.n; i++) {
		double norm;
		if (norm_of(vk_chunk_inv_norm(&w->chunk, i), &norm)) add_row(w, i, norm);
		else score_alone(w, i);
	}
	w->bytes += (uint64_t)w->chunk.n * vk_row_bytes(w->job->scorer.dtype, w->job->scorer.dims);
}

const struct vk_exact_ops vk_exact_gemm = {.prepare = prepare, .chunk = chunk, .last = flush};
