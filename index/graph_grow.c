/*
 * Growing: rows come and go while others search.
 *
 * A row that comes is searched for, pruned and written like a node of the bulk build; then its neighbours take edges back. Its code
 * and edges stand before anybody's edge names it (release, and the walk's acquire). A label that comes again is a new node; the old
 * one dies when the new one is in.
 *
 * A row that goes: its node is dead at once. Repair in place, after IP-DiskANN: those of its neighbours that point back at it put one of
 * its other neighbours there, the nearest to them that they do not have. What still points at it is cut by graph_mend.c.
 *
 * In-degrees: an edge is only taken away from a node that has another, so pruning never orphans.
 *
 * Not taken: locks a node, deleting by marks alone (recall decays when places are never cut: big-ann's streaming track), putting the new
 * row into the old one's place (its neighbours are another point's).
 */
#include "index/graph_grow.h"

#include <stdlib.h>
#include <string.h>

#define NEAR_MAX 256u
#define SAME_LOOK 8u /* of the nearest are compared byte by byte */

/* --- the grower's state --- */

static void grow_free(struct vk_graph *g)
{
	struct vk_grow *w = g->grow;
	if (!w) return;
	if (w->scratch) vk_graph_scratch_give(g, w->scratch);
	while (w->retired) {
		struct vk_retired *r = w->retired;
		w->retired = r->next;
		free(r);
	}
	free(w->pool);
	free(w->cand);
	free(w->code);
	free(w->out);
	free(w->doomed);
	free(w);
	g->grow = NULL;
}

static uint32_t count_dead(const struct vk_graph *g)
{
	uint32_t n = atomic_load(&g->n), dead = 0;
	for (uint32_t i = 0; i < n; i++) dead += vk_graph_is_dead(g, i);
	return dead;
}

/* Spare places that came with the file are out already; to find them again would give them away twice. */
static bool mark_spare(const struct vk_graph *g, struct vk_grow *w)
{
	w->out_words = (size_t)atomic_load(&g->n) / 64 + 1;
	if (!(w->out = calloc(w->out_words, sizeof *w->out))) return false;
	for (uint32_t i = 0; i < g->spare_n; i++) w->out[g->spare[i] / 64] |= (uint64_t)1 << (g->spare[i] % 64);
	return true;
}

struct vk_grow *vk_grow_of(struct vk_graph *g)
{
	struct vk_grow *w = g->grow;
	if (w) return w;
	if (!(w = calloc(1, sizeof *w))) return NULL;
	g->grow = w;
	g->grow_free = grow_free;
	w->scratch = vk_graph_scratch_take(g);
	w->pool = malloc(g->conf.ef_build * sizeof *w->pool);
	w->cand = malloc(VK_GROW_CANDIDATES * sizeof *w->cand);
	w->code = aligned_alloc(VK_GRAPH_CODE_ALIGN, g->code.stride);
	if (!w->scratch || !w->pool || !w->cand || !w->code || !mark_spare(g, w)) {
		grow_free(g);
		return NULL;
	}
	w->dead_in = count_dead(g) - g->spare_n; /* what an earlier life cut out and had not made spare counts: a round finds it again */
	w->entries_at = atomic_load(&g->n);
	return w;
}

bool vk_grow_out(const struct vk_grow *w, uint32_t node)
{
	return node / 64 < w->out_words && w->out[node / 64] >> (node % 64) & 1;
}

/* --- edges --- */

static uint32_t degree_of(const struct vk_graph *g, const uint32_t *e)
{
	uint32_t n = 0;
	while (n < g->conf.degree && vk_grow_edge(e, n) != VK_GRAPH_NONE) n++;
	return n;
}

static bool has(const uint32_t *list, uint32_t n, uint32_t node)
{
	for (uint32_t i = 0; i < n; i++)
		if (vk_grow_edge(list, i) == node) return true;
	return false;
}

static void count_in(const struct vk_graph *g, uint32_t node, int by)
{
	uint16_t *in = vk_grow_in(g, node), v = __atomic_load_n(in, __ATOMIC_RELAXED);
	if (v == UINT16_MAX || (!v && by < 0)) return; /* a hub's count says no more than that it is one */
	__atomic_store_n(in, (uint16_t)(v + by), __ATOMIC_RELAXED);
}

/* Puts what would lose its last edge in the place of the farthest that would not. */
static uint32_t protect(const struct vk_graph *g, const uint32_t *before, uint32_t before_n, uint32_t *list, uint32_t n)
{
	for (uint32_t i = 0; i < before_n; i++) {
		uint32_t x = vk_grow_edge(before, i);
		if (has(list, n, x) || *vk_grow_in(g, x) > 1 || vk_graph_is_dead(g, x)) continue;
		if (n < g->conf.degree) {
			list[n++] = x;
			continue;
		}
		for (uint32_t j = n; j-- > 0;) {
			bool came = !has(before, before_n, list[j]); /* it is not counted yet */
			if (*vk_grow_in(g, list[j]) < (came ? 1 : 2)) continue;
			list[j] = x;
			break;
		}
	}
	return n;
}

void vk_grow_set_edges(struct vk_graph *g, uint32_t node, const uint32_t *wanted, uint32_t n)
{
	uint32_t *e = vk_graph_edges_at(g, node), before[VK_GRAPH_DEGREE_MAX], list[VK_GRAPH_DEGREE_MAX];
	uint32_t before_n = degree_of(g, e);
	memcpy(before, e, before_n * sizeof *before);
	memcpy(list, wanted, n * sizeof *list);
	n = protect(g, before, before_n, list, n);
	for (uint32_t i = 0; i < n; i++)
		if (!has(before, before_n, list[i])) count_in(g, list[i], 1);
	for (uint32_t i = 0; i < before_n; i++)
		if (!has(list, n, before[i])) count_in(g, before[i], -1);
	for (uint32_t i = 0; i < g->conf.degree; i++) __atomic_store_n(e + i, i < n ? list[i] : VK_GRAPH_NONE, __ATOMIC_RELEASE);
}

void vk_grow_near(struct vk_graph *g, uint32_t node, struct vk_graph_seen *cand, uint32_t n)
{
	struct vk_graph_ready *r = vk_graph_scratch_ready(((struct vk_grow *)g->grow)->scratch);
	uint32_t list[NEAR_MAX];
	float near[NEAR_MAX];
	vk_graph_ready_node(g, node, r);
	for (uint32_t at = 0; at < n; at += NEAR_MAX) {
		uint32_t some = n - at < NEAR_MAX ? n - at : NEAR_MAX;
		for (uint32_t i = 0; i < some; i++) list[i] = cand[at + i].node;
		vk_graph_near(g, r, list, some, near);
		for (uint32_t i = 0; i < some; i++) cand[at + i].near = near[i];
	}
}

bool vk_grow_link(struct vk_graph *g, uint32_t from, uint32_t to, bool force)
{
	struct vk_grow *w = g->grow;
	uint32_t *e = vk_graph_edges_at(g, from), n = degree_of(g, e), out[VK_GRAPH_DEGREE_MAX];
	struct vk_graph_seen cand[VK_GRAPH_DEGREE_MAX + 1];
	if (from == to || has(e, n, to)) return true;
	if (n < g->conf.degree) {
		count_in(g, to, 1);
		__atomic_store_n(e + n, to, __ATOMIC_RELEASE);
		return true;
	}
	for (uint32_t i = 0; i < n; i++) cand[i].node = vk_grow_edge(e, i);
	cand[n].node = to;
	vk_grow_near(g, from, cand, n + 1);
	uint32_t m = vk_graph_prune(g, w->scratch, from, cand, n + 1, out);
	if (has(out, m, to)) {
		vk_grow_set_edges(g, from, out, m);
		return has(e, degree_of(g, e), to);
	}
	if (!force) return false;
	for (uint32_t i = n; i-- > 0;) {
		uint32_t x = vk_grow_edge(e, i);
		if (*vk_grow_in(g, x) < 2 && !vk_graph_is_dead(g, x)) continue;
		count_in(g, to, 1);
		count_in(g, x, -1);
		__atomic_store_n(e + i, to, __ATOMIC_RELEASE);
		return true;
	}
	return false;
}

/* --- putting --- */

/* What a beam found, the living first wanted: the dead only where nothing else is. */
static uint32_t living(struct vk_graph *g, struct vk_graph_seen *cand, uint32_t n, uint32_t self)
{
	uint32_t m = 0, dead = 0;
	for (uint32_t i = 0; i < n; i++) {
		if (cand[i].node == self || vk_grow_doomed(g->grow, cand[i].node)) continue;
		if (vk_graph_is_dead(g, cand[i].node)) dead++;
		else cand[m++] = cand[i];
	}
	if (m || !dead) return m;
	for (uint32_t i = 0; i < n; i++)
		if (cand[i].node != self && !vk_grow_doomed(g->grow, cand[i].node)) cand[m++] = cand[i];
	return m;
}

static uint32_t beam(struct vk_graph *g, struct vk_grow *w, uint32_t self)
{
	struct vk_graph_beam b = {.ef = g->conf.ef_build, .below = UINT32_MAX, .pool = w->pool, .visited = w->cand};
	b.visited_max = VK_GROW_CANDIDATES > g->conf.ef_build ? VK_GROW_CANDIDATES - g->conf.ef_build : 0;
	vk_graph_beam(g, w->scratch, vk_graph_scratch_ready(w->scratch), &b);
	uint32_t room = VK_GROW_CANDIDATES - b.visited_n, n = b.pool_n < room ? b.pool_n : room;
	memcpy(w->cand + b.visited_n, b.pool, n * sizeof *b.pool);
	return living(g, w->cand, b.visited_n + n, self);
}

uint32_t vk_grow_candidates(struct vk_graph *g, struct vk_grow *w, uint32_t node)
{
	vk_graph_ready_node(g, node, vk_graph_scratch_ready(w->scratch));
	return beam(g, w, node);
}

/* A living node among the nearest whose code is the same. */
static uint32_t same_as(const struct vk_graph *g, const struct vk_graph_seen *cand, uint32_t n, const uint8_t *code)
{
	struct vk_graph_seen best[SAME_LOOK];
	uint32_t m = 0;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = m;
		while (at && best[at - 1].near < cand[i].near) at--;
		if (at == SAME_LOOK) continue;
		if (m < SAME_LOOK) m++;
		for (uint32_t j = m - 1; j > at; j--) best[j] = best[j - 1];
		best[at] = cand[i];
	}
	for (uint32_t i = 0; i < m; i++)
		if (!vk_graph_is_dead(g, best[i].node) && vk_graph_same_code(g, best[i].node, code)) return best[i].node;
	return VK_GRAPH_NONE;
}

/* A place with code and label, of no edges, dead until it is linked. */
static enum vk_status take_place(struct vk_graph *g, struct vk_grow *w, uint32_t label, uint32_t *node)
{
	uint32_t n = atomic_load_explicit(&g->n, memory_order_relaxed);
	bool spare = g->spare_n > 0;
	if (!spare && n == g->conf.capacity) return VK_E_NO_SPACE;
	*node = spare ? g->spare[--g->spare_n] : n;
	memcpy(vk_graph_code_at(g, *node), w->code, g->code.stride);
	__atomic_store_n(vk_graph_label_at(g, *node), label, __ATOMIC_RELAXED);
	__atomic_store_n(vk_graph_chain_at(g, *node), VK_GRAPH_NONE, __ATOMIC_RELAXED);
	__atomic_store_n(vk_grow_in(g, *node), 0, __ATOMIC_RELAXED);
	uint32_t *e = vk_graph_edges_at(g, *node);
	for (uint32_t i = 0; i < g->conf.degree; i++) __atomic_store_n(e + i, VK_GRAPH_NONE, __ATOMIC_RELAXED);
	if (spare) {
		w->out[*node / 64] &= ~((uint64_t)1 << (*node % 64));
		vk_graph_set_dead(g, *node, false);
	} else {
		atomic_store_explicit(&g->n, n + 1, memory_order_release);
		g->built = n + 1;
	}
	return VK_OK;
}

static void chain_behind(struct vk_graph *g, uint32_t first, uint32_t node)
{
	uint32_t next = __atomic_load_n(vk_graph_chain_at(g, first), __ATOMIC_RELAXED);
	__atomic_store_n(vk_graph_chain_at(g, node), next, __ATOMIC_RELAXED);
	vk_graph_chains_note(g, first);
	__atomic_store_n(vk_graph_chain_at(g, first), node, __ATOMIC_RELEASE);
	__atomic_fetch_add(&g->chained_n, 1, __ATOMIC_RELAXED);
}

static enum vk_status connect(struct vk_graph *g, struct vk_grow *w, uint32_t node, uint32_t cand_n)
{
	uint32_t out[VK_GRAPH_DEGREE_MAX], n = vk_graph_prune(g, w->scratch, node, w->cand, cand_n, out);
	bool named = false;
	vk_grow_set_edges(g, node, out, n);
	for (uint32_t i = 0; i < n; i++) named |= vk_grow_link(g, out[i], node, false);
	for (uint32_t i = 0; i < n && !named; i++) named = vk_grow_link(g, out[i], node, true);
	uint32_t all = atomic_load_explicit(&g->n, memory_order_relaxed);
	if (named && all < 2 * w->entries_at) return VK_OK;
	/* Nobody had room for it, or there are twice as many: let the entries know. */
	w->entries_at = all;
	return vk_graph_entries(g);
}

static void note_error(struct vk_graph *g, double error)
{
	double sum;
	__atomic_load(&g->error_sum, &sum, __ATOMIC_RELAXED);
	sum += error;
	__atomic_store(&g->error_sum, &sum, __ATOMIC_RELAXED);
	__atomic_fetch_add(&g->error_n, 1, __ATOMIC_RELAXED);
}

static void kill_node(struct vk_graph *g, struct vk_grow *w, uint32_t node);

enum vk_status vk_graph_put(struct vk_graph *g, uint32_t label, const float *row)
{
	struct vk_grow *w = vk_grow_of(g);
	uint32_t old = vk_graph_node_of(g, label), node;
	if (!w) return VK_E_NOMEM;
	if (atomic_load(&g->lost)) return VK_E_CORRUPT;
	float *floats = vk_graph_scratch_floats(w->scratch);
	memset(w->code, 0, g->code.stride);
	note_error(g, vk_graph_encode(g, row, floats, w->code));
	if (old != VK_GRAPH_NONE && vk_graph_same_code(g, old, w->code)) return VK_OK;
	vk_grow_reap(g, w);
	uint32_t cand_n = 0;
	if (atomic_load_explicit(&g->n, memory_order_relaxed)) {
		vk_graph_ready(g, row, floats, vk_graph_scratch_ready(w->scratch));
		cand_n = beam(g, w, VK_GRAPH_NONE);
	}
	uint32_t same = same_as(g, w->cand, cand_n, w->code);
	enum vk_status st = take_place(g, w, label, &node);
	if (st) return st;
	if ((st = vk_graph_bind(g, label, node))) {
		vk_graph_set_dead(g, node, true);
		w->dead_in++;
		return st;
	}
	if (same != VK_GRAPH_NONE) chain_behind(g, same, node);
	else st = connect(g, w, node, cand_n);
	if (old != VK_GRAPH_NONE) kill_node(g, w, old);
	return st;
}

/* --- deleting --- */

/* Of x's other neighbours the nearest to p that p does not have. */
static uint32_t replacement(struct vk_graph *g, uint32_t p, const uint32_t *p_edges, uint32_t x, const uint32_t *near_x, uint32_t n)
{
	struct vk_graph_seen cand[VK_GRAPH_DEGREE_MAX];
	uint32_t m = 0, best = VK_GRAPH_NONE;
	float most = 0;
	for (uint32_t i = 0; i < n; i++)
		if (near_x[i] != p && near_x[i] != x && !vk_graph_is_dead(g, near_x[i]) && !has(p_edges, g->conf.degree, near_x[i]))
			cand[m++].node = near_x[i];
	vk_grow_near(g, p, cand, m);
	for (uint32_t i = 0; i < m; i++)
		if (best == VK_GRAPH_NONE || cand[i].near > most) best = cand[i].node, most = cand[i].near;
	return best;
}

static void repair_around(struct vk_graph *g, uint32_t x)
{
	uint32_t *e = vk_graph_edges_at(g, x), n = degree_of(g, e), near_x[VK_GRAPH_DEGREE_MAX];
	memcpy(near_x, e, n * sizeof *near_x);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t p = near_x[i], *pe = vk_graph_edges_at(g, p);
		for (uint32_t j = 0; j < g->conf.degree && vk_grow_edge(pe, j) != VK_GRAPH_NONE; j++) {
			if (vk_grow_edge(pe, j) != x) continue;
			uint32_t c = replacement(g, p, pe, x, near_x, n);
			if (c == VK_GRAPH_NONE) break; /* mending prunes it away */
			count_in(g, c, 1);
			count_in(g, x, -1);
			__atomic_store_n(pe + j, c, __ATOMIC_RELEASE);
			break;
		}
	}
}

/* The first of a chain stands for the others: one of them gives it its label and goes in its stead. */
static bool hand_over(struct vk_graph *g, struct vk_grow *w, uint32_t node)
{
	uint32_t steps = atomic_load_explicit(&g->n, memory_order_relaxed); /* a damaged chain may be a ring */
	for (uint32_t at = *vk_graph_chain_at(g, node); at != VK_GRAPH_NONE && steps--; at = *vk_graph_chain_at(g, at)) {
		if (at >= g->conf.capacity) break;
		if (vk_graph_is_dead(g, at)) continue;
		uint32_t label = *vk_graph_label_at(g, at);
		vk_graph_set_dead(g, at, true);
		w->dead_in++;
		__atomic_store_n(vk_graph_label_at(g, node), label, __ATOMIC_RELAXED);
		(void)vk_graph_bind(g, label, node); /* the label is known: there is room */
		return true;
	}
	return false;
}

static void kill_node(struct vk_graph *g, struct vk_grow *w, uint32_t node)
{
	if (hand_over(g, w, node)) return;
	vk_graph_set_dead(g, node, true);
	w->dead_in++;
	if (*vk_grow_in(g, node)) repair_around(g, node); /* a chained one has no edges */
}

enum vk_status vk_graph_del(struct vk_graph *g, uint32_t label)
{
	struct vk_grow *w = vk_grow_of(g);
	uint32_t node = vk_graph_node_of(g, label);
	if (!w) return VK_E_NOMEM;
	if (atomic_load(&g->lost)) return VK_E_CORRUPT;
	if (node == VK_GRAPH_NONE) return VK_E_NOT_FOUND;
	enum vk_status st = vk_graph_bind(g, label, VK_GRAPH_NONE);
	if (!st) kill_node(g, w, node);
	return st;
}
