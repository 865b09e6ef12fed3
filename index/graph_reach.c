/*
 * The build's last pass: whatever cannot be reached from the entries is tied on. Pruning keeps directions, not paths, so groups of
 * near equals and lone outliers may end up with no edge that leads to them.
 *
 * A walk in breadth from the entries remembers by which edge it came to each node: those edges are a tree that reaches all it
 * met. An unreached node is searched for from the entries, and the nearest node met that has a free place, or an edge that is not
 * of the tree, gets an edge to it. Tree edges stay, so nothing that was reached is lost, one walk is enough, and no node loses its last
 * edge. The walk then goes on from the node that was tied on: most of a lost group comes with its first.
 */
#include <stdlib.h>
#include <string.h>

#include "index/graph_build.h"

struct reach {
	struct vk_graph *g;
	struct vk_graph_scratch *scratch;
	struct vk_graph_seen *pool;
	uint64_t *reached;
	uint32_t *parent; /* of each reached node: whose edge led to it; VK_GRAPH_NONE: an entry */
	uint32_t *queue;  /* every node enters once */
	uint32_t head, tail;
	uint32_t unreached;
};

static void meet(struct reach *r, uint32_t node, uint32_t parent)
{
	if (vk_graph_bit(r->reached, node)) return;
	r->reached[node / 64] |= (uint64_t)1 << (node % 64);
	r->parent[node] = parent;
	r->queue[r->tail++] = node;
}

static void walk(struct reach *r)
{
	while (r->head < r->tail) {
		uint32_t node = r->queue[r->head++];
		const uint32_t *e = vk_graph_edges_at(r->g, node);
		for (uint32_t i = 0; i < r->g->conf.degree && e[i] != VK_GRAPH_NONE; i++) meet(r, e[i], node);
	}
}

/* An edge from -> node: in a free place, or instead of the farthest edge that is not of the tree. */
static bool tie(struct reach *r, uint32_t from, uint32_t node)
{
	uint32_t *e = vk_graph_edges_at(r->g, from), degree = r->g->conf.degree, at = 0;
	while (at < degree && e[at] != VK_GRAPH_NONE) at++;
	if (at == degree) {
		while (at > 0 && r->parent[e[at - 1]] == from) at--;
		if (!at) return false;
		at--;
	}
	__atomic_store_n(e + at, node, __ATOMIC_RELEASE); /* a grown graph is walked meanwhile */
	meet(r, node, from);
	return true;
}

static bool tie_near(struct reach *r, uint32_t node)
{
	struct vk_graph_beam b = {.ef = r->g->conf.ef_build, .below = UINT32_MAX, .pool = r->pool};
	struct vk_graph_ready *ready = vk_graph_scratch_ready(r->scratch);
	vk_graph_ready_node(r->g, node, ready);
	vk_graph_beam(r->g, r->scratch, ready, &b);
	for (uint32_t i = 0; i < b.pool_n; i++)
		if (vk_graph_bit(r->reached, r->pool[i].node) && tie(r, r->pool[i].node, node)) return true;
	/* All near ones are full of tree edges: the last node met on the walk leads nowhere new, so it has room. */
	for (uint32_t i = r->tail; i-- > 0;)
		if (tie(r, r->queue[i], node)) return true;
	return false;
}

static enum vk_status reach_all(struct reach *r, const uint64_t *chained, uint32_t n)
{
	struct vk_graph *g = r->g;
	for (uint32_t i = 0; i < g->entry_n; i++) meet(r, g->entry[i], VK_GRAPH_NONE);
	walk(r);
	r->unreached = n - g->chained_n - r->tail;
	for (uint32_t i = 0; i < n; i++) {
		if (vk_graph_bit(chained, i) || vk_graph_bit(r->reached, i)) continue;
		if (!tie_near(r, i)) return VK_E_INTERNAL;
		walk(r);
	}
	return VK_OK;
}

enum vk_status vk_graph_reach(struct vk_graph *g, const uint64_t *chained, uint32_t *unreached, struct vk_error *err)
{
	const uint32_t n = atomic_load_explicit(&g->n, memory_order_acquire);
	struct reach r = {.g = g};
	enum vk_status st = VK_E_NOMEM;
	*unreached = 0;
	if (!n) return VK_OK;
	r.scratch = vk_graph_scratch_take(g);
	r.pool = malloc(g->conf.ef_build * sizeof *r.pool);
	r.reached = calloc((size_t)n / 64 + 1, sizeof *r.reached);
	r.parent = malloc(n * sizeof *r.parent);
	r.queue = malloc(n * sizeof *r.queue);
	if (r.scratch && r.pool && r.reached && r.parent && r.queue) st = reach_all(&r, chained, n);
	*unreached = r.unreached;
	if (st == VK_E_INTERNAL) vk_fail(err, st, "a node of the graph could not be tied on");
	if (r.scratch) vk_graph_scratch_give(g, r.scratch);
	free(r.pool);
	free(r.reached);
	free(r.parent);
	free(r.queue);
	return st;
}

enum vk_status vk_graph_count_in(struct vk_graph *g)
{
	const uint32_t n = atomic_load_explicit(&g->n, memory_order_acquire);
	uint16_t *in = (uint16_t *)(void *)g->in.p, *now = calloc((size_t)n + 1, sizeof *now);
	if (!now) return VK_E_NOMEM;
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t *e = vk_graph_edges_at(g, i);
		for (uint32_t j = 0; j < g->conf.degree && e[j] != VK_GRAPH_NONE; j++)
			if (now[e[j]] < UINT16_MAX) now[e[j]]++;
	}
	for (uint32_t i = 0; i < n; i++) __atomic_store_n(in + i, now[i], __ATOMIC_RELAXED); /* statistics look on */
	free(now);
	return VK_OK;
}
