/*
 * Codes of rows, queries made ready for them, and distances from codes. The formula is in graph_internal.h.
 *
 * A record is head and code in `stride` bytes, a multiple of a cache line, and the query is laid out like a whole record with
 * zeros where the head is: the kernels run over records from their first byte, every load is aligned and nothing has a tail.
 *
 * S8   lo and step from the row's least and greatest component, each rounded to nearest.
 * S4   16 steps do not reach outliers, so the interval is the one of least squared error: from two first guesses (2.5 standard
 *      deviations; the whole range) a few rounds of "round to the grid, then fit lo and step to what was rounded" (least squares,
 *      closed form), the better one stays. Two dims a byte, 64 apart, so unpacking is a shift and a mask.
 * P8   S8 of the row on the leading principal axes.
 *
 * All sums are in f64 or by the canonical kernels, in one order: the same code at every CPU level.
 *
 * Not taken: one interval for all rows (an outlier row spoils all), non-uniform grids (no integer product), 4-bit queries.
 */
#include "index/graph_internal.h"

#include <math.h>
#include <string.h>

#define HEAD sizeof(struct vk_graph_head)
#define BLOCK 64u /* bytes: two rows of 64 dims in a block of 4-bit codes */
#define FIRST_DIMS ((uint32_t)(2 * (BLOCK - HEAD))) /* in the first block, beside the head */
#define S4_TOP 15
#define S4_ROUNDS 4

static size_t max_of(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* --- sums in one order --- */

static double dot_f32(const struct vk_graph *g, const float *a, const float *b, size_t n)
{
	float raw;
	g->k->score[0][VK_DTYPE_F32](a, b, 0, 1, n, NULL, &raw);
	return (double)raw;
}

static double total(const double lane[4])
{
	return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

/* A row on a grid of `top` + 1 steps: codes, and the sums that fit and judge it. */
struct grid {
	float lo, step;
	uint32_t sum;     /* of c */
	uint64_t squares; /* of c */
	double product;   /* of c and x */
	double error;     /* ||x - x^||^2 */
};

static void grid_round(struct grid *g, uint8_t *code, const float *x, uint32_t dims, int top)
{
	double lo = (double)g->lo, step = (double)g->step, per_step = g->step > 0 ? 1 / step : 0;
	double product[4] = {0}, error[4] = {0};
	g->sum = 0;
	g->squares = 0;
	for (uint32_t i = 0; i < dims; i++) {
		double v = (double)x[i], t = (v - lo) * per_step + 0.5;
		int c = t > 0 ? t < top ? (int)t : top : 0;
		double off = v - (lo + step * c);
		code[i] = (uint8_t)c;
		g->sum += (uint32_t)c;
		g->squares += (uint64_t)(c * c);
		product[i & 3] += v * c;
		error[i & 3] += off * off;
	}
	g->product = total(product);
	g->error = total(error);
}

/* lo and step that fit the codes best: a line through (c, x). False: all codes alike. */
static bool grid_fit(struct grid *g, double sum_x, uint32_t dims)
{
	double n = dims, c = g->sum, spread = n * (double)g->squares - c * c;
	if (!(spread > 0)) return false;
	double step = (n * g->product - c * sum_x) / spread;
	if (!(step > 0)) return false;
	g->step = (float)step;
	g->lo = (float)((sum_x - step * c) / n);
	return true;
}

/* --- S8 --- */

static size_t s8_bytes(uint32_t dims)
{
	return dims;
}

static size_t s8_query_bytes(size_t stride)
{
	return stride;
}

static double s8_encode(struct vk_graph_head *h, uint8_t *dst, const float *row, uint32_t dims)
{
	float min = row[0], max = row[0];
	for (uint32_t i = 1; i < dims; i++) {
		min = row[i] < min ? row[i] : min;
		max = row[i] > max ? row[i] : max;
	}
	struct grid g = {.lo = min + 0.0f, .step = (float)(((double)max - (double)min) / 255)};
	grid_round(&g, dst, row, dims, 255);
	*h = (struct vk_graph_head){.lo = g.lo, .step = g.step, .sum = g.sum};
	return g.error;
}

static void s8_place(int8_t *q, const int8_t *s, uint32_t dims)
{
	memcpy(q + HEAD, s, dims);
}

/* Whole words to the record's end: what is no dim becomes -128, times a code that is 0 there. A prune makes hundreds of codes
 * queries. */
static void s8_expand(int8_t *q, const uint8_t *record, uint32_t dims)
{
	for (size_t i = HEAD; i < HEAD + dims; i += sizeof(uint64_t)) {
		uint64_t word;
		memcpy(&word, record + i, sizeof word);
		word ^= 0x8080808080808080u;
		memcpy(q + i, &word, sizeof word);
	}
}

static uint64_t s8_squares(const uint8_t *record, uint32_t dims)
{
	uint64_t squares = 0;
	for (uint32_t i = 0; i < dims; i++) squares += (uint64_t)record[HEAD + i] * record[HEAD + i];
	return squares;
}

static vk_graph_dot_fn *s8_kernel(const struct vk_kernels *k)
{
	return k->code_dot_at;
}

/* --- S4 --- */

static size_t s4_blocks(uint32_t dims)
{
	return dims <= FIRST_DIMS ? 1 : 1 + (dims - FIRST_DIMS + 2 * BLOCK - 1) / (2 * BLOCK);
}

static size_t s4_bytes(uint32_t dims)
{
	return s4_blocks(dims) * BLOCK - HEAD;
}

static size_t s4_query_bytes(size_t stride)
{
	return 2 * stride;
}

/* Where dim i lies: in the query; its byte in the record is the same without the block's upper half. */
static size_t s4_place_of(uint32_t i)
{
	if (i < FIRST_DIMS) return i < FIRST_DIMS / 2 ? HEAD + i : BLOCK + HEAD + (i - FIRST_DIMS / 2);
	return 2 * BLOCK + (i - FIRST_DIMS);
}

static struct grid s4_guess(double lo, double hi)
{
	return (struct grid){.lo = (float)lo, .step = (float)((hi - lo) / S4_TOP)};
}

/* The best of the rounds from one guess. code: dims bytes for the rounds. */
static struct grid s4_descend(struct grid g, uint8_t *code, const float *x, double sum_x, uint32_t dims)
{
	struct grid best = {.error = INFINITY};
	for (int round = 0; round <= S4_ROUNDS; round++) {
		grid_round(&g, code, x, dims, S4_TOP);
		if (!(g.error < best.error)) break;
		best = g;
		if (!grid_fit(&g, sum_x, dims)) break;
	}
	return best;
}

static struct grid s4_interval(uint8_t *code, const float *x, uint32_t dims)
{
	double sum[4] = {0}, squares[4] = {0};
	float min = x[0], max = x[0];
	for (uint32_t i = 0; i < dims; i++) {
		sum[i & 3] += (double)x[i];
		squares[i & 3] += (double)x[i] * (double)x[i];
		min = x[i] < min ? x[i] : min;
		max = x[i] > max ? x[i] : max;
	}
	double sum_x = total(sum), mean = sum_x / dims, var = total(squares) / dims - mean * mean;
	double reach = 2.5 * sqrt(var > 0 ? var : 0);
	struct grid whole = s4_descend(s4_guess((double)min, (double)max), code, x, sum_x, dims);
	if (!(reach > 0)) return whole;
	struct grid clipped = s4_descend(s4_guess(fmax(mean - reach, (double)min), fmin(mean + reach, (double)max)), code, x,
					 sum_x, dims);
	return clipped.error < whole.error ? clipped : whole;
}

static double s4_encode(struct vk_graph_head *h, uint8_t *dst, const float *row, uint32_t dims)
{
	uint8_t code[65536];
	struct grid g = s4_interval(code, row, dims);
	grid_round(&g, code, row, dims, S4_TOP);
	memset(dst, 0, s4_bytes(dims));
	for (uint32_t i = 0; i < dims; i++) {
		size_t at = s4_place_of(i), byte = at / (2 * BLOCK) * BLOCK + at % BLOCK;
		dst[byte - HEAD] |= (uint8_t)(code[i] << (at / BLOCK % 2 ? 4 : 0));
	}
	*h = (struct vk_graph_head){.lo = g.lo, .step = g.step, .sum = g.sum};
	return g.error;
}

static void s4_place(int8_t *q, const int8_t *s, uint32_t dims)
{
	for (uint32_t i = 0; i < dims; i++) q[s4_place_of(i)] = s[i];
}

/* Each byte 0..15 of a word less 8, no carry between them. */
static uint64_t less8(uint64_t word)
{
	return (word + 0x7878787878787878u) ^ 0x8080808080808080u;
}

/* By words. Places without a dim become -8, times a code that is 0 there. */
static void s4_expand(int8_t *q, const uint8_t *record, uint32_t dims)
{
	const uint64_t low = 0x0f0f0f0f0f0f0f0fu;
	for (size_t b = 0; b < s4_blocks(dims); b++)
		for (size_t j = b ? 0 : HEAD; j < BLOCK; j += sizeof(uint64_t)) {
			uint64_t word, lower, upper;
			memcpy(&word, record + b * BLOCK + j, sizeof word);
			lower = less8(word & low);
			upper = less8(word >> 4 & low);
			memcpy(q + b * 2 * BLOCK + j, &lower, sizeof lower);
			memcpy(q + b * 2 * BLOCK + BLOCK + j, &upper, sizeof upper);
		}
}

static uint64_t s4_squares(const uint8_t *record, uint32_t dims)
{
	uint64_t squares = 0;
	for (size_t b = HEAD; b < s4_blocks(dims) * BLOCK; b++) {
		uint64_t low = record[b] & 15, high = record[b] >> 4;
		squares += low * low + high * high;
	}
	return squares;
}

static vk_graph_dot_fn *s4_kernel(const struct vk_kernels *k)
{
	return k->nibble_dot_at;
}

/* --- the table --- */

const struct vk_graph_codec vk_graph_s8 = {
    .profile = VK_GRAPH_S8,
    .bytes = s8_bytes,
    .encode = s8_encode,
    .place = s8_place,
    .expand = s8_expand,
    .bias = 128,
    .squares = s8_squares,
    .query_bytes = s8_query_bytes,
    .kernel = s8_kernel,
};
const struct vk_graph_codec vk_graph_s4 = {
    .profile = VK_GRAPH_S4,
    .bytes = s4_bytes,
    .encode = s4_encode,
    .place = s4_place,
    .expand = s4_expand,
    .bias = 8,
    .squares = s4_squares,
    .query_bytes = s4_query_bytes,
    .kernel = s4_kernel,
};

const struct vk_graph_codec *vk_graph_codec_of(enum vk_graph_profile p)
{
	return p == VK_GRAPH_S4 ? &vk_graph_s4 : &vk_graph_s8;
}

size_t vk_graph_code_stride(const struct vk_graph_codec *c, uint32_t code_dims)
{
	size_t bytes = HEAD + c->bytes(code_dims);
	return (bytes + VK_GRAPH_CODE_ALIGN - 1) / VK_GRAPH_CODE_ALIGN * VK_GRAPH_CODE_ALIGN;
}

void vk_graph_mean_changed(struct vk_graph *g)
{
	g->mean2 = dot_f32(g, g->mean, g->mean, g->conf.dims);
}

/* --- rows --- */

static void centre(const struct vk_graph *g, float *dst, const float *row)
{
	for (uint32_t i = 0; i < g->conf.dims; i++) dst[i] = row[i] - g->mean[i];
}

static void project(const struct vk_graph *g, float *dst, const float *row)
{
	size_t dims = g->conf.dims;
	g->k->score[0][VK_DTYPE_F32](row, g->axes, dims * sizeof *row, g->code_dims, dims, NULL, dst);
}

/* ||r||^2 of what the code stands for. */
static double squares_of(const struct vk_graph *g, const struct vk_graph_head *h, const uint8_t *record)
{
	double lo = (double)h->lo, step = (double)h->step;
	return g->code_dims * lo * lo + 2 * lo * step * h->sum + step * step * (double)g->codec->squares(record, g->code_dims);
}

double vk_graph_encode(const struct vk_graph *g, const float *row, float *scratch, uint8_t *dst)
{
	size_t dims = g->conf.dims, stride = g->code.stride;
	float *flat = scratch, *seen = scratch;
	struct vk_graph_head h;
	centre(g, flat, row);
	double lost = 0, whole = dot_f32(g, row, row, dims);
	if (g->axes) {
		seen = scratch + max_of(dims, g->code_dims);
		project(g, seen, flat);
		lost = dot_f32(g, flat, flat, dims) - dot_f32(g, seen, seen, g->code_dims);
	}
	memset(dst, 0, stride);
	double error = g->codec->encode(&h, dst + HEAD, seen, g->code_dims) + (lost > 0 ? lost : 0);
	h.own = g->conf.metric == VK_METRIC_L2 ? (float)-squares_of(g, &h, dst) : (float)dot_f32(g, g->mean, flat, dims);
	memcpy(dst, &h, sizeof h);
	return whole > 0 ? sqrt(error / whole) : 0;
}

bool vk_graph_same_code(const struct vk_graph *g, uint32_t a, const uint8_t *code)
{
	return memcmp(vk_graph_code_at(g, a), code, g->code.stride) == 0;
}

/* --- queries --- */

size_t vk_graph_ready_bytes(const struct vk_graph *g)
{
	return g->codec->query_bytes(g->code.stride);
}

/* Signed bytes, nearest, by adding and taking off 1.5 * 2^23: no call a component, whatever the level. */
static int32_t quantise(int8_t *dst, float *step, const float *q, size_t n)
{
	float most = 0;
	int32_t sum = 0;
	for (size_t i = 0; i < n; i++) {
		float v = fabsf(q[i]);
		most = v > most ? v : most;
	}
	*step = most / 127;
	float per_step = *step > 0 ? 1 / *step : 0;
	if (!(per_step < INFINITY)) per_step = 0; /* a query of subnormals */
	for (size_t i = 0; i < n; i++) {
		int32_t c = (int32_t)((q[i] * per_step + 0x1.8p23f) - 0x1.8p23f);
		c = c > 127 ? 127 : c < -127 ? -127 : c;
		dst[i] = (int8_t)c;
		sum += c;
	}
	return sum;
}

void vk_graph_ready(const struct vk_graph *g, const float *query, float *scratch, struct vk_graph_ready *r)
{
	size_t dims = g->conf.dims;
	bool l2 = g->conf.metric == VK_METRIC_L2;
	const float *q = query;
	float *spare = scratch + max_of(dims, g->code_dims);
	if (l2) {
		centre(g, scratch, query);
		q = scratch;
	}
	double constant = l2 ? -dot_f32(g, q, q, dims) : dot_f32(g, q, g->mean, dims);
	if (g->axes) {
		project(g, spare, q);
		q = spare;
	}
	/* The signed bytes pass through the half of scratch that q does not use. */
	int8_t *s = (int8_t *)(q == spare ? scratch : spare);
	int32_t sum = quantise(s, &r->step, q, g->code_dims);
	memset(r->code, 0, vk_graph_ready_bytes(g));
	g->codec->place(r->code, s, g->code_dims);
	float scale = l2 ? 2 : 1;
	r->step *= scale;
	r->lo_factor = r->step * (float)sum;
	r->sum_factor = 0;
	r->own_factor = l2 ? 1 : 0;
	r->constant = (float)constant;
}

void vk_graph_ready_node(const struct vk_graph *g, uint32_t node, struct vk_graph_ready *r)
{
	const uint8_t *record = vk_graph_code_at(g, node);
	bool l2 = g->conf.metric == VK_METRIC_L2;
	struct vk_graph_head h;
	memcpy(&h, record, sizeof h);
	memset(r->code, 0, vk_graph_ready_bytes(g));
	g->codec->expand(r->code, record, g->code_dims);
	float scale = l2 ? 2 : 1;
	r->step = scale * h.step;
	r->lo_factor = scale * ((float)g->code_dims * h.lo + h.step * (float)h.sum);
	r->sum_factor = scale * (h.lo + h.step * (float)g->codec->bias);
	r->own_factor = 1;
	r->constant = l2 ? h.own : (float)(g->mean2 + (double)h.own);
}

/* --- distances --- */

void vk_graph_near_records(const struct vk_graph *g, const struct vk_graph_ready *r, const uint8_t *const *record, size_t n,
			   float *near)
{
	int32_t dot[256];
	g->codec->kernel(g->k)(r->code, record, n, vk_graph_ready_bytes(g), dot);
	for (size_t i = 0; i < n; i++) near[i] = vk_graph_near_of(r, record[i], dot[i]);
}

void vk_graph_near(const struct vk_graph *g, const struct vk_graph_ready *r, const uint32_t *node, size_t n, float *near)
{
	const uint8_t *record[256];
	for (size_t i = 0; i < n; i++) record[i] = vk_graph_code_at(g, node[i]);
	vk_graph_near_records(g, r, record, n, near);
}

void vk_graph_near_codes(const struct vk_graph *g, const struct vk_graph_ready *r, const uint8_t *codes, size_t n, float *near)
{
	const uint8_t *record[256];
	for (size_t from = 0; from < n; from += 256) {
		size_t some = n - from < 256 ? n - from : 256;
		for (size_t i = 0; i < some; i++) record[i] = codes + (from + i) * g->code.stride;
		vk_graph_near_records(g, r, record, some, near + from);
	}
}
