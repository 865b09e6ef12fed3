/*
 * What the growing graph's files share; nobody else includes it.
 *
 *   graph_grow.c   put and del
 *   graph_mend.c   cutting dead nodes out, giving their places again
 *
 * A node's life: spare or new -> in the graph, or chained behind its like -> dead (walked through, never answered) -> cut out (no edge
 * names it) -> its place is spare once every search that could have met it is over.
 */
#ifndef VK_INDEX_GRAPH_GROW_H
#define VK_INDEX_GRAPH_GROW_H

#include "index/graph_internal.h"

#define VK_GROW_CANDIDATES 1024u

struct vk_retired { /* nodes cut out together */
	struct vk_retired *next;
	uint64_t epoch; /* searches of this one and later cannot meet them */
	uint32_t n, node[];
};
struct vk_grow {
	struct vk_graph_scratch *scratch;
	struct vk_graph_seen *pool, *cand; /* conf.ef_build; VK_GROW_CANDIDATES */
	uint8_t *code;            /* of the row that comes */
	uint32_t entries_at;      /* nodes when entries were last chosen */
	uint32_t dead_in;         /* dead nodes that are still in the graph or in a chain */
	bool counted;             /* dead_in was counted */
	uint64_t *out;            /* bits: cut out, waiting or spare */
	size_t out_words;
	/* a round of mending */
	bool mending;
	uint32_t at, end;         /* the next node to look at; nodes of this round */
	uint64_t *doomed;         /* bits of nodes that were dead when it began */
	uint32_t doomed_n;
	struct vk_retired *retired;
};
/* The grower's state, made when first wanted; NULL: no memory. */
struct vk_grow *vk_grow_of(struct vk_graph *g);
bool vk_grow_out(const struct vk_grow *w, uint32_t node);
/* Cut out, or to be when this round ends: no edge to it may be made any more. */
bool vk_grow_doomed(const struct vk_grow *w, uint32_t node);
/* Edges of node := list, n of them; in-degrees follow, and no node loses its last edge: then the farthest that can be spared goes. */
void vk_grow_set_edges(struct vk_graph *g, uint32_t node, const uint32_t *list, uint32_t n);
/* An edge from -> to, in a free place or by pruning; force: even when pruning would leave it out. False: there is no way. */
bool vk_grow_link(struct vk_graph *g, uint32_t from, uint32_t to, bool force);
/* Nearness of candidates to a node. */
void vk_grow_near(struct vk_graph *g, uint32_t node, struct vk_graph_seen *cand, uint32_t n);
/* Live nodes near to a node's code, by a search; into w->cand, how many. */
uint32_t vk_grow_candidates(struct vk_graph *g, struct vk_grow *w, uint32_t node);
static inline uint16_t *vk_grow_in(const struct vk_graph *g, uint32_t node)
{
	return (uint16_t *)(void *)g->in.p + node;
}
static inline uint32_t vk_grow_edge(const uint32_t *e, uint32_t i)
{
	return __atomic_load_n(e + i, __ATOMIC_RELAXED);
}
/* Places whose searches are over become spare. */
void vk_grow_reap(struct vk_graph *g, struct vk_grow *w);

#endif
