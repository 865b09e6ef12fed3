/*
 * The bulk build's first pass: a sample for mean and profile, then every row once: its code, label and hash, by blocks in
 * parallel. Labels are bound and equal codes chained afterwards by one thread in the order of nodes, which is a few
 * nanoseconds a row and the same for any number of threads.
 *
 * Equal codes are found by a hash and compared byte by byte; the lowest node stands for all of them, the others hang behind
 * it in ascending order.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "index/graph_build.h"

#define BLOCK 1024u                          /* rows of a grain; also of a partial sum, so that sums do not depend on threads */
#define SAMPLE_ROWS 16384u
#define SAMPLE_BYTES ((size_t)64 << 20)
#define HASH_SEED 0x6772617068u

struct load {
	struct vk_graph *g;
	const struct vk_graph_source *src;
	const struct vk_graph_build_opts *o;
	struct vk_graph_team *team;
	struct vk_graph_scratch **scratch; /* a worker's each */
	atomic_int status;                 /* the first failure stops all */
	uint64_t *hash;                    /* of each code */
	double *error;                     /* sum of each block */
	struct vk_graph_sample sample;
};

static bool stopped(struct load *l)
{
	if (l->o && l->o->stop && atomic_load_explicit(l->o->stop, memory_order_relaxed)) {
		int ok = VK_OK;
		atomic_compare_exchange_strong(&l->status, &ok, VK_E_CANCELLED);
	}
	return atomic_load_explicit(&l->status, memory_order_relaxed) != VK_OK;
}

static void failed(struct load *l, enum vk_status st)
{
	int ok = VK_OK;
	if (st) atomic_compare_exchange_strong(&l->status, &ok, st);
}

/* --- the sample --- */

static void sample_rows(void *arg, unsigned worker, uint32_t from, uint32_t to)
{
	(void)worker;
	struct load *l = arg;
	for (uint32_t i = from; i < to && !stopped(l); i++) {
		uint32_t label, row = (uint32_t)((uint64_t)i * l->src->n / l->sample.n);
		failed(l, l->src->row(l->src->arg, row, l->sample.row + (size_t)i * l->g->conf.dims, &label));
	}
}

static enum vk_status take_sample(struct load *l)
{
	const size_t row_bytes = l->g->conf.dims * sizeof(float);
	size_t n = SAMPLE_BYTES / row_bytes;
	if (n > SAMPLE_ROWS) n = SAMPLE_ROWS;
	if (n > l->src->n) n = l->src->n;
	l->sample.row = malloc(n * row_bytes);
	if (!l->sample.row) return VK_E_NOMEM;
	l->sample.n = (uint32_t)n;
	vk_graph_team_run(l->team, l->sample.n, 64, sample_rows, l);
	return (enum vk_status)atomic_load(&l->status);
}

/* --- rows to codes --- */

static void load_block(void *arg, unsigned worker, uint32_t from, uint32_t to)
{
	struct load *l = arg;
	struct vk_graph *g = l->g;
	const uint32_t widest = g->conf.dims > g->code_dims ? g->conf.dims : g->code_dims;
	float *row = vk_graph_scratch_floats(l->scratch[worker]), *scratch = row + widest;
	double error = 0;
	for (uint32_t i = from; i < to; i++) {
		if (i % 64 == 0 && stopped(l)) return;
		uint8_t *code = vk_graph_code_at(g, i);
		enum vk_status st = l->src->row(l->src->arg, i, row, vk_graph_label_at(g, i));
		if (st) {
			failed(l, st);
			return;
		}
		error += vk_graph_encode(g, row, scratch, code);
		l->hash[i] = vk_hash64(HASH_SEED, code, g->code.stride);
		*vk_graph_chain_at(g, i) = VK_GRAPH_NONE;
	}
	memset(vk_graph_edges_at(g, from), 0xff, (size_t)(to - from) * g->edge.stride);
	l->error[from / BLOCK] = error;
}

static enum vk_status load_rows(struct load *l)
{
	struct vk_graph *g = l->g;
	const unsigned threads = vk_graph_team_threads(l->team);
	const uint32_t n = l->src->n, blocks = (n + BLOCK - 1) / BLOCK;
	l->hash = malloc(n * sizeof *l->hash);
	l->error = calloc(blocks, sizeof *l->error);
	l->scratch = calloc(threads, sizeof *l->scratch);
	if (!l->hash || !l->error || !l->scratch) return VK_E_NOMEM;
	for (unsigned i = 0; i < threads; i++)
		if (!(l->scratch[i] = vk_graph_scratch_take(g))) return VK_E_NOMEM;
	vk_graph_team_run(l->team, n, BLOCK, load_block, l);
	double sum = 0;
	for (uint32_t i = 0; i < blocks; i++) sum += l->error[i];
	g->error_built = sum / n;
	return (enum vk_status)atomic_load(&l->status);
}

/* --- labels and chains --- */

/* A label that comes again kills the node that had it. */
static enum vk_status bind_labels(struct vk_graph *g, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t label = *vk_graph_label_at(g, i), before = vk_graph_node_of(g, label);
		if (before != VK_GRAPH_NONE) vk_graph_set_dead(g, before, true);
		enum vk_status st = vk_graph_bind(g, label, i);
		if (st) return st;
	}
	return VK_OK;
}

/* From the last node to the first: who comes takes the place of the one that stood for the code, and hangs it behind itself. */
static enum vk_status chain_equals(struct load *l)
{
	struct vk_graph *g = l->g;
	const uint32_t n = l->src->n;
	size_t slots = 64;
	while (slots < (size_t)n * 2) slots *= 2;
	uint32_t *table = malloc(slots * sizeof *table);
	if (!table) return VK_E_NOMEM;
	memset(table, 0xff, slots * sizeof *table);
	g->chained_n = 0;
	for (uint32_t i = n; i-- > 0;) {
		size_t at = l->hash[i] & (slots - 1);
		while (table[at] != VK_GRAPH_NONE &&
		       (l->hash[table[at]] != l->hash[i] || !vk_graph_same_code(g, table[at], vk_graph_code_at(g, i))))
			at = (at + 1) & (slots - 1);
		if (table[at] != VK_GRAPH_NONE) {
			*vk_graph_chain_at(g, i) = table[at];
			vk_graph_chains_note(g, i);
			g->chained_n++;
		}
		table[at] = i;
	}
	free(table);
	return VK_OK;
}

uint64_t *vk_graph_chained_bits(const struct vk_graph *g)
{
	uint32_t n = atomic_load_explicit(&g->n, memory_order_acquire);
	uint64_t *bits = calloc((size_t)n / 64 + 1, sizeof *bits);
	for (uint32_t i = 0; bits && i < n; i++) {
		uint32_t next = *vk_graph_chain_at(g, i);
		if (next < n) bits[next / 64] |= (uint64_t)1 << (next % 64);
	}
	return bits;
}

/* --- the pass --- */

static void load_end(struct load *l)
{
	for (unsigned i = 0; l->scratch && i < vk_graph_team_threads(l->team); i++)
		if (l->scratch[i]) vk_graph_scratch_give(l->g, l->scratch[i]);
	free(l->scratch);
	free(l->hash);
	free(l->error);
	free(l->sample.row);
}

enum vk_status vk_graph_load(struct vk_graph *g, const struct vk_graph_source *src, struct vk_graph_team *t,
			     const struct vk_graph_build_opts *o, struct vk_error *err)
{
	struct load l = {.g = g, .src = src, .o = o, .team = t};
	if (src->n > g->conf.capacity)
		return vk_fail(err, VK_E_NO_SPACE, "the graph has room for %u nodes, not %u", g->conf.capacity, src->n);
	enum vk_status st = take_sample(&l);
	if (!st) st = vk_graph_profile_set(g, &l.sample, t, err);
	free(l.sample.row);
	l.sample.row = NULL;
	if (!st) st = load_rows(&l);
	if (!st) st = bind_labels(g, src->n);
	if (!st) st = chain_equals(&l);
	if (!st) atomic_store_explicit(&g->n, src->n, memory_order_release);
	load_end(&l);
	return st;
}
