/*
 * What graph_search.c and graph_filter.c share: a thread's scratch, and the small steps of a walk.
 *
 * Met before? Two answers. The narrow walk asks a direct-mapped table of {epoch, node}: 128 KiB that stay in the second-level cache,
 * nothing to clear, and a node that was pushed out is computed again and refused by the pool. The wide walk needs an exact answer (a
 * budget counts, a two-hop list must not repeat): a bit a node, the touched words cleared afterwards.
 */
#ifndef VK_INDEX_GRAPH_WALK_H
#define VK_INDEX_GRAPH_WALK_H

#include "index/graph_internal.h"
#include "index/graph_pool.h"
#include "simd/score_levels.h"

#define VK_WALK_SEEN 16384u /* slots, a power of two */
#define VK_WALK_LIST 256u   /* nodes that one step scores at most */
#define VK_WALK_TOUCHED 65536u
#define VK_WALK_CHAIN 262144u /* chain steps a query may take */

struct vk_graph_scratch {
	struct vk_graph_scratch *next; /* the graph's list; set once */
	bool busy;                     /* under scratch_lock */
	atomic_ullong epoch;           /* at which the running search began; 0: idle */
	struct vk_graph_ready ready;
	float *floats;
	uint64_t *key;                 /* the flat pool's */
	uint64_t *seen;                /* VK_WALK_SEEN slots: epoch << 32 | node */
	uint32_t seen_epoch;
	float *near;                   /* VK_GRAPH_ENTRIES_MAX */
	/* the wide walk's, had when first wanted */
	struct vk_pool_deep front, best;
	uint32_t front_max, best_max;
	uint64_t *bits;
	size_t bits_words;
	uint32_t *touched, touched_n;
	uint64_t *may; /* a two-hop walk's */
	size_t may_words;
	/* the answer's nodes */
	uint32_t *emitted, emitted_max;
};

/* One running walk. */
struct vk_walk {
	const struct vk_graph *g;
	struct vk_graph_scratch *s;
	const struct vk_graph_ready *r;
	struct vk_graph_query *q; /* NULL: a beam */
	struct vk_graph_beam *b;  /* NULL: a query */
	uint32_t n;               /* nodes that exist for it */
	uint32_t ahead, lines;
	vk_graph_dot_fn *dot_at;  /* of the codec, without its detour */
	size_t dot_dims;
	uint64_t visited;
	uint32_t chain_steps; /* left: an answer's chains are walked this far and no further */
};

static inline void vk_walk_fetch(const uint8_t *p, uint32_t lines)
{
	for (uint32_t i = 0; i < lines; i++) vk_prefetch(p + (size_t)i * 64);
}

static inline void vk_walk_fetch_edges(const struct vk_walk *w, uint32_t node)
{
	vk_walk_fetch((const uint8_t *)vk_graph_edges_at(w->g, node), w->g->conf.degree / 16);
}

/* Acquire: on a place that was given again, the code was written before the edge. */
static inline uint32_t vk_walk_edge(const uint32_t *edge, uint32_t i)
{
	return __atomic_load_n(edge + i, __ATOMIC_ACQUIRE);
}

/* Seeds of a walk, best first, none twice; at most VK_GRAPH_SEEDS. Counts what it scored. */
uint32_t vk_walk_seeds(struct vk_walk *w, struct vk_graph_seen seed[VK_GRAPH_SEEDS]);
void vk_walk_note(struct vk_walk *w, uint64_t key); /* an expanded node, for who asked (vk_graph_beam.visited) */

/* --- graph_filter.c --- */
/* The general walk for query or beam; leaves its keys in s->best or, when *from_front, in s->front. */
enum vk_status vk_walk_wide(struct vk_walk *w, uint32_t ef, bool live_only, bool *from_front);
/* Keys, nearest first, to labels that are live and allowed, chains expanded, until there are q->want. A label's node may be another when
 * it is over: emitted() looks again and drops what changed hands, so that no label comes twice. */
enum vk_status vk_walk_emit_begin(struct vk_walk *w);
bool vk_walk_emit(struct vk_walk *w, uint64_t key); /* false: enough */
void vk_walk_emitted(struct vk_walk *w);

#endif
