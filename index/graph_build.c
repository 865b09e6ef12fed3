/*
 * The bulk build, after ParlayANN and SVS: nodes go in by batches that double in size. A batch's nodes search the graph as it
 * stood before the batch, all in parallel, and prune what they met into their own edges; then the edges back are sorted by target,
 * and each target takes its own, in parallel again, appending while it has places and pruning when not. No step reads what
 * another of the same phase writes, so neither the number of threads nor their luck shows in the outcome, and no lock is taken.
 *
 * Nodes go in by an order shuffled by the seed. Rows often come sorted (by topic, by time); a batch of one topic whose nodes
 * cannot see each other would tie all of them to strangers. Numbers stay as they came, for the sake of whoever reads rows in order.
 *
 * Between batches the graph is whole for the first `built` of the order, and the order and the batches follow from what the
 * file of such a graph holds; so a build that was cut off goes on as if nothing had happened.
 *
 * Not taken: locks a node (hnswlib; the outcome depends on luck), a random graph and two passes over all (Vamana as
 * published: twice the time; measured in ARCHITECTURE.md), adding the batch's own nodes as candidates of each other.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "index/graph_build.h"

#define BATCH_SHARE 50u /* at most 1/50 of the nodes a batch */
#define BATCH_LEAST 64u
#define ENTRIES_SHARE 64u /* while it is built: one node of 64 that are there */
#define ENTRIES_BUILD 256u
#define SLACK 5u /* a full node is pruned to 4/5: each prune then pays for a dozen edges back, not for one */
#define BETWEEN_MS 60000u
#define NEAR_MAX 256u

struct worker {
	struct vk_graph_scratch *scratch;
	struct vk_graph_seen *pool, *seen; /* ef_build; and what prune is given */
};

struct build {
	struct vk_graph *g;
	const struct vk_graph_build_opts *o;
	struct vk_graph_team *team;
	struct worker *worker;
	uint32_t visited_max, batch_max;
	uint64_t *chained;
	uint32_t *order, order_n; /* nodes that are in the graph, as they go in */
	uint32_t from, to;        /* the batch, positions of the order */
	uint32_t *own;            /* a batch's edges, before they are shown */
	uint64_t *back, *back_tmp;
	uint32_t back_n;
	uint32_t *group, group_n; /* where each target begins in back, and the end */
	uint64_t between_ms;
	uint32_t between_at;
};

/* --- the order --- */

static enum vk_status make_order(struct build *b)
{
	struct vk_graph *g = b->g;
	uint32_t n = atomic_load(&g->n);
	b->chained = vk_graph_chained_bits(g);
	b->order = malloc((n ? n : 1) * sizeof *b->order);
	if (!b->chained || !b->order) return VK_E_NOMEM;
	for (uint32_t i = 0; i < n; i++)
		if (!vk_graph_bit(b->chained, i)) b->order[b->order_n++] = i;
	uint64_t rng = g->conf.seed;
	for (uint32_t i = b->order_n; i > 1; i--) {
		uint32_t j = (uint32_t)(vk_rng(&rng) % i), v = b->order[i - 1];
		b->order[i - 1] = b->order[j];
		b->order[j] = v;
	}
	return VK_OK;
}

static uint32_t batch_limit(uint32_t n)
{
	uint32_t share = n / BATCH_SHARE;
	return share > BATCH_LEAST ? share : BATCH_LEAST;
}

/* --- a batch: its own edges --- */

/* What the beam holds at its end, and what it expanded and lost again: that makes the long edges. */
static uint32_t candidates_of(struct build *b, struct worker *w, uint32_t node)
{
	struct vk_graph *g = b->g;
	struct vk_graph_ready *r = vk_graph_scratch_ready(w->scratch);
	struct vk_graph_beam beam = {
	    .ef = g->conf.ef_build,
	    .below = UINT32_MAX,
	    .pool = w->pool,
	    .visited = w->seen,
	    .visited_max = b->visited_max,
	};
	vk_graph_ready_node(g, node, r);
	vk_graph_beam(g, w->scratch, r, &beam);
	memcpy(w->seen + beam.visited_n, w->pool, beam.pool_n * sizeof *w->pool);
	return beam.visited_n + beam.pool_n;
}

static void own_edges(void *arg, unsigned worker, uint32_t from, uint32_t to)
{
	struct build *b = arg;
	struct worker *w = &b->worker[worker];
	const uint32_t degree = b->g->conf.degree;
	for (uint32_t i = from; i < to; i++) {
		uint32_t node = b->order[b->from + i], *out = b->own + (size_t)i * degree;
		uint32_t n = candidates_of(b, w, node);
		n = vk_graph_prune(b->g, w->scratch, node, w->seen, n, out);
		memset(out + n, 0xff, (degree - n) * sizeof *out);
	}
}

/* --- a batch: the edges back --- */

/* By target, stable, so that sources keep the order's order: three rounds of 10 bits over nodes below 2^30. */
static void sort_back(struct build *b)
{
	for (int shift = 32; shift < 62; shift += 10) {
		uint32_t at[1024] = {0}, sum = 0;
		for (uint32_t i = 0; i < b->back_n; i++) at[b->back[i] >> shift & 1023]++;
		for (uint32_t i = 0; i < 1024; i++) {
			uint32_t n = at[i];
			at[i] = sum;
			sum += n;
		}
		for (uint32_t i = 0; i < b->back_n; i++) b->back_tmp[at[b->back[i] >> shift & 1023]++] = b->back[i];
		uint64_t *t = b->back;
		b->back = b->back_tmp, b->back_tmp = t;
	}
}

static void gather_back(struct build *b)
{
	const uint32_t degree = b->g->conf.degree;
	b->back_n = 0;
	for (uint32_t i = b->from; i < b->to; i++) {
		const uint32_t *e = b->own + (size_t)(i - b->from) * degree;
		memcpy(vk_graph_edges_at(b->g, b->order[i]), e, degree * sizeof *e);
		for (uint32_t j = 0; j < degree && e[j] != VK_GRAPH_NONE; j++)
			b->back[b->back_n++] = (uint64_t)e[j] << 32 | b->order[i];
	}
	sort_back(b);
	b->group_n = 0;
	for (uint32_t i = 0; i < b->back_n; i++)
		if (!i || b->back[i] >> 32 != b->back[i - 1] >> 32) b->group[b->group_n++] = i;
	b->group[b->group_n] = b->back_n;
}

static void near_all(struct vk_graph *g, const struct vk_graph_ready *r, struct vk_graph_seen *s, uint32_t n)
{
	uint32_t node[NEAR_MAX];
	float near[NEAR_MAX];
	for (uint32_t at = 0; at < n; at += NEAR_MAX) {
		uint32_t some = n - at < NEAR_MAX ? n - at : NEAR_MAX;
		for (uint32_t i = 0; i < some; i++) node[i] = s[at + i].node;
		vk_graph_near(g, r, node, some, near);
		for (uint32_t i = 0; i < some; i++) s[at + i].near = near[i];
	}
}

static void take_back(struct build *b, struct worker *w, uint32_t target, const uint64_t *back, uint32_t back_n)
{
	struct vk_graph *g = b->g;
	const uint32_t degree = g->conf.degree;
	uint32_t *e = vk_graph_edges_at(g, target), n = 0;
	while (n < degree && e[n] != VK_GRAPH_NONE) n++;
	if (back_n <= degree - n) {
		for (uint32_t i = 0; i < back_n; i++) e[n + i] = (uint32_t)back[i];
		return;
	}
	for (uint32_t i = 0; i < n; i++) w->seen[i].node = e[i];
	for (uint32_t i = 0; i < back_n; i++) w->seen[n + i].node = (uint32_t)back[i];
	struct vk_graph_ready *r = vk_graph_scratch_ready(w->scratch);
	vk_graph_ready_node(g, target, r);
	near_all(g, r, w->seen, n + back_n);
	n = vk_graph_prune_to(g, w->scratch, target, w->seen, n + back_n, degree - degree / SLACK, e);
	memset(e + n, 0xff, (degree - n) * sizeof *e);
}

static void back_edges(void *arg, unsigned worker, uint32_t from, uint32_t to)
{
	struct build *b = arg;
	for (uint32_t i = from; i < to; i++) {
		uint32_t at = b->group[i], end = b->group[i + 1];
		take_back(b, &b->worker[worker], (uint32_t)(b->back[at] >> 32), b->back + at, end - at);
	}
}

/* --- the batches --- */

/* The first of the order: evenly spread by the shuffle. Nobody searches yet but the team, so the table is changed in place. */
static enum vk_status set_entries(struct build *b)
{
	struct vk_graph *g = b->g;
	const size_t stride = g->code.stride;
	uint32_t n = b->from / ENTRIES_SHARE;
	n = n < 1 ? 1 : n > ENTRIES_BUILD ? ENTRIES_BUILD : n;
	if (!g->entry_code) g->entry_code = aligned_alloc(64, VK_GRAPH_ENTRIES_MAX * stride);
	if (!g->entry_code) return VK_E_NOMEM;
	for (uint32_t i = 0; i < n; i++) {
		g->entry[i] = b->order[i];
		memcpy(g->entry_code + i * stride, vk_graph_code_at(g, b->order[i]), stride);
	}
	g->entry_n = n;
	return VK_OK;
}

static bool stopped(const struct build *b)
{
	return b->o->stop && atomic_load_explicit(b->o->stop, memory_order_relaxed);
}

static void show(const struct build *b)
{
	struct vk_graph_progress *p = b->o->progress;
	if (!p) return;
	atomic_store_explicit(&p->total, b->order_n, memory_order_relaxed);
	atomic_store_explicit(&p->done, b->from, memory_order_relaxed);
}

/* The hook, when a tenth of the nodes or a minute went by. */
static enum vk_status between(struct build *b)
{
	if (!b->o->between || b->from == b->order_n) return VK_OK;
	if (b->from - b->between_at < b->order_n / 10 && vk_mono_ms() - b->between_ms < BETWEEN_MS) return VK_OK;
	enum vk_status st = b->o->between(b->o->arg, b->g, b->from);
	b->between_at = b->from;
	b->between_ms = vk_mono_ms();
	return st;
}

static enum vk_status batch(struct build *b)
{
	enum vk_status st = set_entries(b);
	if (st) return st;
	vk_graph_team_run(b->team, b->to - b->from, 4, own_edges, b);
	gather_back(b);
	vk_graph_team_run(b->team, b->group_n, 8, back_edges, b);
	b->g->built = b->from = b->to;
	show(b);
	return stopped(b) ? VK_E_CANCELLED : between(b);
}

static enum vk_status batches(struct build *b)
{
	enum vk_status st = VK_OK;
	const uint32_t limit = batch_limit(b->order_n);
	b->from = b->between_at = b->g->built;
	b->between_ms = vk_mono_ms();
	if (!b->from && b->order_n) b->from = b->g->built = 1; /* the first has nobody to know */
	show(b);
	while (!st && b->from < b->order_n) {
		uint32_t size = b->from < limit ? b->from : limit;
		b->to = size < b->order_n - b->from ? b->from + size : b->order_n;
		st = batch(b);
	}
	return st;
}

/* --- the build --- */

static enum vk_status build_begin(struct build *b, struct vk_graph *g, const struct vk_graph_build_opts *o)
{
	static const struct vk_graph_build_opts none;
	*b = (struct build){.g = g, .o = o ? o : &none};
	b->team = vk_graph_team_new(b->o->threads, b->o->nice);
	return b->team ? VK_OK : VK_E_NOMEM;
}

static enum vk_status rooms(struct build *b)
{
	const struct vk_graph_conf *c = &b->g->conf;
	const unsigned threads = vk_graph_team_threads(b->team);
	const uint32_t limit = batch_limit(b->order_n);
	const size_t back_max = (size_t)limit * c->degree;
	b->visited_max = 2 * c->ef_build;
	size_t seen = (size_t)b->visited_max + c->ef_build, gathered = (size_t)c->degree + limit;
	b->worker = calloc(threads, sizeof *b->worker);
	b->own = malloc(back_max * sizeof *b->own);
	b->back = malloc(back_max * sizeof *b->back);
	b->back_tmp = malloc(back_max * sizeof *b->back_tmp);
	b->group = malloc((back_max + 1) * sizeof *b->group);
	if (!b->worker || !b->own || !b->back || !b->back_tmp || !b->group) return VK_E_NOMEM;
	for (unsigned i = 0; i < threads; i++) {
		struct worker *w = &b->worker[i];
		w->scratch = vk_graph_scratch_take(b->g);
		w->pool = malloc(c->ef_build * sizeof *w->pool);
		w->seen = malloc((seen > gathered ? seen : gathered) * sizeof *w->seen);
		if (!w->scratch || !w->pool || !w->seen) return VK_E_NOMEM;
	}
	return VK_OK;
}

static void build_end(struct build *b)
{
	for (unsigned i = 0; b->worker && i < vk_graph_team_threads(b->team); i++) {
		if (b->worker[i].scratch) vk_graph_scratch_give(b->g, b->worker[i].scratch);
		free(b->worker[i].pool);
		free(b->worker[i].seen);
	}
	vk_graph_team_free(b->team);
	free(b->worker);
	free(b->chained);
	free(b->order);
	free(b->own);
	free(b->back);
	free(b->back_tmp);
	free(b->group);
}

/* From codes and chains to a graph. */
static enum vk_status connect_all(struct build *b, struct vk_error *err)
{
	enum vk_status st = make_order(b);
	if (!st) st = rooms(b);
	if (!st) st = batches(b);
	if (!st) st = vk_graph_entries(b->g);
	if (!st) st = vk_graph_reach(b->g, b->chained, &b->g->unreached, err);
	if (!st) st = vk_graph_count_in(b->g);
	if (st) return st;
	b->g->built = atomic_load(&b->g->n);
	return VK_OK;
}

static enum vk_status told(enum vk_status st, struct vk_error *err)
{
	if (st == VK_E_CANCELLED) return vk_fail(err, st, "the graph's build was stopped");
	if (st == VK_E_NOMEM) return vk_fail(err, st, "no memory to build a graph");
	return st;
}

enum vk_status vk_graph_build(struct vk_graph *g, const struct vk_graph_source *src, const struct vk_graph_build_opts *o,
			      struct vk_error *err)
{
	struct build b;
	if (atomic_load(&g->n)) return vk_fail(err, VK_E_INVALID, "only an empty graph can be built");
	enum vk_status st = build_begin(&b, g, o);
	if (!st && src->n) st = vk_graph_load(g, src, b.team, b.o, err);
	if (src->rows_done) src->rows_done(src->arg);
	if (!st) st = connect_all(&b, err);
	build_end(&b);
	return told(st, err);
}

/* The file's edges and chains were mapped unseen, and the build follows them without looking. */
static enum vk_status judge(const struct vk_graph *g, struct vk_error *err)
{
	const uint32_t n = atomic_load(&g->n), degree = g->conf.degree;
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t *e = vk_graph_edges_at(g, i), chain = *vk_graph_chain_at(g, i);
		bool good = chain < n || chain == VK_GRAPH_NONE;
		for (uint32_t j = 0; j < degree; j++) good &= e[j] < n || e[j] == VK_GRAPH_NONE;
		if (!good) return vk_fail(err, VK_E_CORRUPT, "the half-built graph is damaged at node %u", i);
	}
	return VK_OK;
}

enum vk_status vk_graph_build_resume(struct vk_graph *g, const struct vk_graph_build_opts *o, struct vk_error *err)
{
	struct build b;
	if (!vk_graph_partial(g)) return VK_OK;
	enum vk_status st = judge(g, err);
	if (st) return st;
	st = build_begin(&b, g, o);
	if (!st) st = connect_all(&b, err);
	build_end(&b);
	if (!st && atomic_load(&g->lost)) st = vk_fail(err, VK_E_CORRUPT, "pages of the graph could not be read from its file");
	return told(st, err);
}

bool vk_graph_partial(const struct vk_graph *g) { return g->built < atomic_load(&g->n); }
