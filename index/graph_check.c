/*
 * Every invariant of a graph at rest, in the order in which a fault would lead to others: sections, edges, labels, chains, in-degrees,
 * reach. For tests, for `veckeep check`, and after a file was opened that nobody trusts.
 */
#include "index/graph_internal.h"

#include <stdlib.h>
#include <string.h>

struct check {
	const struct vk_graph *g;
	uint32_t n;
	uint64_t *chained;  /* bits: hangs in a chain, so is not in the graph */
	uint64_t *met;      /* bits of the walk */
	uint32_t *in;       /* edges that name the node, counted */
	uint32_t *queue;
	struct vk_error *err;
};

#define BAD(c, ...) vk_fail((c)->err, VK_E_CORRUPT, __VA_ARGS__)

static bool bit(const uint64_t *bits, uint32_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

static void bit_set(uint64_t *bits, uint32_t i)
{
	bits[i / 64] |= (uint64_t)1 << (i % 64);
}

/* A row's edges are few: insertion sort of a copy shows what comes twice. */
static bool twice(const uint32_t *edge, uint32_t n)
{
	uint32_t sorted[VK_GRAPH_DEGREE_MAX];
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = i;
		for (; j && edge[i] < sorted[j - 1]; j--) sorted[j] = sorted[j - 1];
		sorted[j] = edge[i];
		if (j && sorted[j - 1] == edge[i]) return true;
	}
	return false;
}

static enum vk_status check_edges(struct check *c)
{
	uint32_t degree = c->g->conf.degree;
	for (uint32_t node = 0; node < c->n; node++) {
		const uint32_t *edge = vk_graph_edges_at(c->g, node);
		uint32_t m = 0;
		for (; m < degree && edge[m] != VK_GRAPH_NONE; m++) {
			if (edge[m] >= c->n) return BAD(c, "node %u has an edge to %u of %u nodes", node, edge[m], c->n);
			if (edge[m] == node) return BAD(c, "node %u has an edge to itself", node);
			c->in[edge[m]]++;
		}
		for (uint32_t i = m; i < degree; i++)
			if (edge[i] != VK_GRAPH_NONE) return BAD(c, "node %u has an edge behind its last", node);
		if (twice(edge, m)) return BAD(c, "node %u has an edge twice", node);
	}
	return VK_OK;
}

static enum vk_status check_labels(struct check *c)
{
	uint32_t dead = 0, live = 0;
	for (uint32_t node = 0; node < c->n; node++) {
		if (vk_graph_is_dead(c->g, node)) {
			dead++;
			continue;
		}
		uint32_t label = *vk_graph_label_at(c->g, node), named = vk_graph_node_of(c->g, label);
		if (named != node) return BAD(c, "label %u of live node %u names node %u", label, node, named);
	}
	for (uint32_t label = 0; label < c->g->labels; label++) {
		uint32_t node = vk_graph_node_of(c->g, label);
		if (node == VK_GRAPH_NONE) continue;
		if (node >= c->n || vk_graph_is_dead(c->g, node) || *vk_graph_label_at(c->g, node) != label)
			return BAD(c, "label %u names node %u, which is not its own", label, node);
		live++;
	}
	if (dead != c->g->dead_n) return BAD(c, "%u nodes are dead, not %u", dead, c->g->dead_n);
	if (live != c->n - dead) return BAD(c, "%u labels for %u live nodes", live, c->n - dead);
	return VK_OK;
}

static enum vk_status chain_link(struct check *c, uint32_t node, uint32_t next)
{
	if (next >= c->n) return BAD(c, "node %u is chained to %u of %u nodes", node, next, c->n);
	if (next == node || bit(c->chained, next)) return BAD(c, "node %u is chained twice", next);
	if (c->in[next]) return BAD(c, "chained node %u has %u edges to it", next, c->in[next]);
	if (*vk_graph_edges_at(c->g, next) != VK_GRAPH_NONE) return BAD(c, "chained node %u has edges", next);
	if (!vk_graph_same_code(c->g, node, vk_graph_code_at(c->g, next)))
		return BAD(c, "nodes %u and %u are chained and differ", node, next);
	bit_set(c->chained, next);
	return VK_OK;
}

static enum vk_status chain_walk(struct check *c, uint32_t node, uint32_t *links)
{
	enum vk_status st = VK_OK;
	for (uint32_t next; !st && (next = *vk_graph_chain_at(c->g, node)) != VK_GRAPH_NONE; node = next) {
		st = chain_link(c, node, next); /* none is met twice: it ends */
		++*links;
	}
	return st;
}

/* Chains begin at nodes that are in the graph: named by an edge, or entries. What was cut out keeps its link for whoever is on it. */
static enum vk_status check_chains(struct check *c)
{
	enum vk_status st = VK_OK;
	uint32_t links = 0;
	for (uint32_t node = 0; node < c->n && !st; node++)
		if (c->in[node]) st = chain_walk(c, node, &links);
	for (uint32_t i = 0; i < c->g->entry_n && !st; i++)
		if (!c->in[c->g->entry[i]]) st = chain_walk(c, c->g->entry[i], &links);
	if (!st && !c->g->entry_n && c->n && !c->in[0]) st = chain_walk(c, 0, &links);
	if (st) return st;
	/* A dead first that no edge names any more takes its dead chain along, which is counted until the next round of mending ends. */
	if (links > c->g->chained_n || (links < c->g->chained_n && !c->g->dead_n)) return BAD(c, "%u nodes are chained, not %u", links, c->g->chained_n);
	return VK_OK;
}

static enum vk_status check_in(struct check *c)
{
	for (uint32_t node = 0; node < c->n; node++) {
		uint16_t told = ((const uint16_t *)(const void *)c->g->in.p)[node];
		if (told != UINT16_MAX && told != c->in[node])
			return BAD(c, "node %u has %u edges to it, not %u", node, c->in[node], told);
	}
	return VK_OK;
}

static void meet(struct check *c, uint32_t node, uint32_t *queued)
{
	if (node >= c->n || bit(c->met, node)) return;
	bit_set(c->met, node);
	c->queue[(*queued)++] = node;
}

static enum vk_status check_reach(struct check *c)
{
	const struct vk_graph *g = c->g;
	uint32_t queued = 0;
	for (uint32_t i = 0; i < g->entry_n; i++) {
		if (bit(c->chained, g->entry[i])) return BAD(c, "entry %u is chained node %u", i, g->entry[i]);
		if (memcmp(g->entry_code + i * g->code.stride, vk_graph_code_at(g, g->entry[i]), g->code.stride))
			return BAD(c, "the code of entry %u is not its node's", i);
		meet(c, g->entry[i], &queued);
	}
	if (!g->entry_n) meet(c, 0, &queued); /* as a search begins when there is no table */
	for (uint32_t at = 0; at < queued; at++) {
		const uint32_t *edge = vk_graph_edges_at(g, c->queue[at]);
		for (uint32_t i = 0; i < g->conf.degree && edge[i] != VK_GRAPH_NONE; i++) meet(c, edge[i], &queued);
	}
	for (uint32_t node = 0; node < c->n; node++)
		if (!bit(c->met, node) && !bit(c->chained, node) && !vk_graph_is_dead(g, node))
			return BAD(c, "node %u is not reached from the entries", node);
	return VK_OK;
}

static enum vk_status check_sections(struct check *c)
{
	const struct vk_graph *g = c->g;
	if (c->n > g->conf.capacity) return BAD(c, "%u nodes where %u fit", c->n, g->conf.capacity);
	if (g->entry_n > VK_GRAPH_ENTRIES_MAX) return BAD(c, "%u entries", g->entry_n);
	for (uint32_t i = 0; i < g->entry_n; i++)
		if (g->entry[i] >= c->n) return BAD(c, "entry %u is node %u of %u", i, g->entry[i], c->n);
	if (g->built > c->n) return BAD(c, "%u nodes built of %u", g->built, c->n);
	return VK_OK;
}

/* A graph that is still being built is checked but for reach and in-degrees, which its last phases see to. */
enum vk_status vk_graph_check(const struct vk_graph *g, struct vk_error *err)
{
	struct check c = {.g = g, .n = atomic_load(&g->n), .err = err};
	size_t words = (size_t)c.n / 64 + 1;
	c.chained = calloc(words, sizeof *c.chained);
	c.met = calloc(words, sizeof *c.met);
	c.in = calloc((size_t)c.n + 1, sizeof *c.in);
	c.queue = malloc(((size_t)c.n + 1) * sizeof *c.queue);
	enum vk_status st = c.chained && c.met && c.in && c.queue ? VK_OK : vk_fail(err, VK_E_NOMEM, "no memory to check a graph");
	if (!st) st = check_sections(&c);
	if (!st) st = check_edges(&c);
	if (!st) st = check_labels(&c);
	if (!st) st = check_chains(&c);
	if (!st && g->built == c.n) st = check_in(&c);
	if (!st && g->built == c.n) st = check_reach(&c);
	free(c.chained);
	free(c.met);
	free(c.in);
	free(c.queue);
	return st;
}
