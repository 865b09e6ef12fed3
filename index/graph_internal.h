/*
 * What the graph's files share; nobody else includes it.
 *
 *   graph_mem.c      reserved address space, sections, labels; new and free; stats
 *   graph_code.c     codes: quantise, a query made ready, distances of many nodes; per profile a const table
 *   graph_search.c   the beam: visited table, two-pass neighbour loop; scratches
 *   graph_filter.c   the general walk: filters, budgets, wide beams; from nodes to labels
 *   graph_pool.c     the beam's pool: the best keys so far, and which were expanded
 *   graph_prune.c    robust prune
 *   graph_build.c    bulk build by frozen batches; ties on what cannot be reached
 *   graph_grow.c     put, del, consolidate; grace periods
 *   graph_profile.c  mean, principal axes; which profile a sample's recall allows
 *   graph_tune.c     prefetch distances by timing
 *   graph_file.c     the file's format, scrub; graph_file.h says who else knows it
 *   graph_save.c     save
 *   graph_open.c     open
 *   graph_promote.c  from mapped pages to memory
 *   graph_check.c    invariants
 *
 * Memory. Each section is one array in address space of its own, reserved for `capacity` nodes and never moved, so readers need no
 * lock; only touched pages cost. A mapped file covers the beginning of a section by MAP_FIXED; what grows lies behind it. Codes and
 * edges ask for huge pages.
 *
 * Order of publishing. A node's code, label and edges are written first; then n goes up (release); then edges of others name it. A
 * reader that meets an edge loads it relaxed: a u32 that is a node below n or VK_GRAPH_NONE. Bits of `dead` and labels are
 * relaxed atomics, too. A node's place is given again only when every search that could have met it is over: searches write the
 * epoch at which they began into their scratch (0 when idle), the grower takes one epoch a release and looks at all scratches.
 *
 * Code distances. near(node) is an estimate of the rank in f32, bigger is nearer:
 *   DOT, COSINE  <q, x^>        L2  -||q - x^||^2
 * with x^ = mean + r, r = lo + step * code: rows are centred on `mean` before they are quantised. All metrics, and a stored code as
 * the query, are one formula without a branch (struct vk_graph_ready):
 *   near = constant + own_factor * own + lo_factor * lo + step * (step_q * dot(s, code) + sum_factor * sum)
 * L2 is centred on both sides. `own` is the row's share that no query changes: -||r||^2 (L2) or <mean, x - mean> (DOT, COSINE, of the
 * whole row), which only code by code needs: <a^, b^> = ||mean||^2 + own(a) + own(b) + <r(a), r(b)>.
 */
#ifndef VK_INDEX_GRAPH_INTERNAL_H
#define VK_INDEX_GRAPH_INTERNAL_H

#include <pthread.h>

#include "index/graph.h"

#define VK_GRAPH_CAPACITY_DEFAULT (1u << 26)
#define VK_GRAPH_ENTRIES_MAX 1024u
#define VK_GRAPH_CODE_ALIGN 64u
#define VK_GRAPH_SEEDS 4u /* entries that a search starts from */

struct vk_graph_head { /* before each code, 16 bytes */
	float lo, step;
	float own;    /* see above */
	uint32_t sum; /* of the codes */
};

/* One profile's arithmetic. A code is head and bytes, `stride` apart, stride a multiple of VK_GRAPH_CODE_ALIGN. */
struct vk_graph_ready { /* a query made ready */
	int8_t *code;      /* as the codec lays it out; vk_graph_ready_bytes, 64-byte aligned */
	float step, lo_factor, sum_factor, own_factor, constant; /* of the formula above */
};
/* out[i] = query by record[i], both `bytes` long as the query is laid out. */
typedef void vk_graph_dot_fn(const int8_t *q, const uint8_t *const *record, size_t n, size_t bytes, int32_t *out);
struct vk_graph_codec {
	enum vk_graph_profile profile;
	size_t (*bytes)(uint32_t code_dims);
	/* row: code_dims floats, centred and projected already. Fills all of h but `own`; returns ||row - r||^2. */
	double (*encode)(struct vk_graph_head *h, uint8_t *dst, const float *row, uint32_t code_dims);
	/* Signed bytes of a query into the places of their dims; the rest of q is zero already. */
	void (*place)(int8_t *q, const int8_t *s, uint32_t code_dims);
	/* A stored code as a query: signed bytes in their places, r = lo + step * (s + bias). */
	void (*expand)(int8_t *q, const uint8_t *record, uint32_t code_dims);
	uint32_t bias;
	uint64_t (*squares)(const uint8_t *record, uint32_t code_dims); /* sum of the codes' squares */
	size_t (*query_bytes)(size_t stride);
	/* Products of q with whole records: q is zero where heads are, so loads are aligned. */
	vk_graph_dot_fn *(*kernel)(const struct vk_kernels *k);
};

struct vk_graph_slab { /* a section */
	uint8_t *p;
	size_t stride;     /* bytes a node */
	size_t reserved;   /* bytes */
	size_t mapped;     /* bytes from the beginning that are file pages */
};

struct vk_graph {
	struct vk_graph_conf conf; /* with its defaults filled in */
	const struct vk_kernels *k;
	const struct vk_graph_codec *codec;
	uint32_t code_dims;        /* dims, or what the projection leaves */
	float *mean;               /* dims */
	double mean2;              /* ||mean||^2: vk_graph_mean_changed() */
	float *axes;               /* P8: code_dims x dims, orthonormal; else NULL */
	struct vk_graph_slab code; /* head and code */
	struct vk_graph_slab edge; /* u32[degree], nearest first as far as known, VK_GRAPH_NONE behind the last */
	struct vk_graph_slab label;   /* u32 */
	struct vk_graph_slab chain;   /* u32: next node with the same code, VK_GRAPH_NONE the last */
	struct vk_graph_slab in;      /* u16 saturating: edges that name the node (chained nodes: 0) */
	struct vk_graph_slab dead;    /* bits, u64 words: stride counts 8 bytes for 64 nodes */
	struct vk_graph_slab chains;  /* bits like dead's: rows hang behind it, or did; not in the file */
	struct vk_graph_slab node_of; /* u32 a label: its live node + 1, 0 none. Grown by labels, not nodes; rebuilt at open */
	atomic_uint n;             /* nodes */
	uint32_t labels;           /* labels that node_of holds */
	uint32_t entry_n;
	uint32_t entry[VK_GRAPH_ENTRIES_MAX];
	uint8_t *entry_code;       /* copies of their codes, contiguous */
	atomic_uint entry_version; /* odd while the table is being changed */
	uint32_t built;            /* bulk build: nodes whose edges are there; == n when it is done */
	uint32_t dead_n, chained_n, unreached;
	double error_sum, error_built;
	uint64_t error_n;
	atomic_uint prefetch;      /* ahead << 16 | lines */
	atomic_bool lost;          /* a page of the file could not be read: what stands there is zeros */
	/* growing */
	uint32_t *spare;           /* places that may be given again */
	uint32_t spare_n, spare_cap;
	void *grow;                /* graph_grow.c's own */
	void (*grow_free)(struct vk_graph *g); /* NULL, or called by vk_graph_free before anything else */
	atomic_ullong epoch;
	/* scratches */
	pthread_mutex_t scratch_lock;
	struct vk_graph_scratch *scratch; /* all, a list that only grows */
	void *entries_old;         /* entry codes that a search may still read; graph_search.c's own */
};

/* --- graph_mem.c --- */
static inline uint8_t *vk_graph_code_at(const struct vk_graph *g, uint32_t node)
{
	return g->code.p + (size_t)node * g->code.stride;
}
static inline uint32_t *vk_graph_edges_at(const struct vk_graph *g, uint32_t node)
{
	return (uint32_t *)(void *)(g->edge.p + (size_t)node * g->edge.stride);
}
static inline uint32_t *vk_graph_label_at(const struct vk_graph *g, uint32_t node)
{
	return (uint32_t *)(void *)g->label.p + node;
}
static inline uint32_t *vk_graph_chain_at(const struct vk_graph *g, uint32_t node)
{
	return (uint32_t *)(void *)g->chain.p + node;
}
static inline bool vk_graph_is_dead(const struct vk_graph *g, uint32_t node)
{
	return __atomic_load_n((const uint64_t *)(const void *)g->dead.p + node / 64, __ATOMIC_RELAXED) >> (node % 64) & 1;
}
void vk_graph_set_dead(struct vk_graph *g, uint32_t node, bool dead); /* keeps dead_n, too */
void vk_graph_chains_note(struct vk_graph *g, uint32_t first); /* before something is hung behind it */
void vk_graph_chains_find(struct vk_graph *g, uint32_t n);     /* of a graph that is being read */
/* Live node of a label, VK_GRAPH_NONE: none. */
uint32_t vk_graph_node_of(const struct vk_graph *g, uint32_t label);
enum vk_status vk_graph_bind(struct vk_graph *g, uint32_t label, uint32_t node); /* node VK_GRAPH_NONE: unbind. Grows node_of */
/* Sections of a graph whose conf, codec and code_dims stand; what it had before is dropped (a builder that chose another profile).
 * Capacity is lowered to what is had. */
enum vk_status vk_graph_reserve(struct vk_graph *g, struct vk_error *err);

/* --- graph_code.c --- */
extern const struct vk_graph_codec vk_graph_s8, vk_graph_s4; /* P8 is S8 over projected rows */
const struct vk_graph_codec *vk_graph_codec_of(enum vk_graph_profile p);
size_t vk_graph_code_stride(const struct vk_graph_codec *c, uint32_t code_dims);
/* scratch: 2 * max(dims, code_dims) floats. Returns ||x - x^|| / ||x||. */
double vk_graph_encode(const struct vk_graph *g, const float *row, float *scratch, uint8_t *dst);
void vk_graph_mean_changed(struct vk_graph *g); /* whoever sets the mean says so */
/* Bytes of r->code; at most 2 * (code_dims + 128). */
size_t vk_graph_ready_bytes(const struct vk_graph *g);
void vk_graph_ready(const struct vk_graph *g, const float *query, float *scratch, struct vk_graph_ready *r);
void vk_graph_ready_node(const struct vk_graph *g, uint32_t node, struct vk_graph_ready *r); /* a stored code as a query */
static inline float vk_graph_near_of(const struct vk_graph_ready *r, const uint8_t *record, int32_t dot)
{
	const struct vk_graph_head *h = (const void *)record;
	float whole = r->step * (float)dot + r->sum_factor * (float)h->sum;
	return (r->constant + r->own_factor * h->own) + (r->lo_factor * h->lo + h->step * whole);
}
/* near[i] of node[i]; no prefetch. n <= 256. */
void vk_graph_near(const struct vk_graph *g, const struct vk_graph_ready *r, const uint32_t *node, size_t n, float *near);
void vk_graph_near_records(const struct vk_graph *g, const struct vk_graph_ready *r, const uint8_t *const *record, size_t n,
			   float *near); /* n <= 256 */
void vk_graph_near_codes(const struct vk_graph *g, const struct vk_graph_ready *r, const uint8_t *codes, size_t n, float *near);
bool vk_graph_same_code(const struct vk_graph *g, uint32_t a, const uint8_t *code);

/* --- graph_search.c --- */
struct vk_graph_seen { /* a node and its nearness, as the beam met it */
	uint32_t node;
	float near;
};
struct vk_graph_beam { /* an internal search: nodes, dead ones included, chains not expanded */
	uint32_t ef;
	uint32_t below;             /* nodes from here on do not exist (a frozen batch); UINT32_MAX: all */
	struct vk_graph_seen *pool; /* out, best first, room for ef */
	uint32_t pool_n;
	struct vk_graph_seen *visited; /* NULL, or out: expanded nodes, at most visited_max (the best stay in pool anyway) */
	uint32_t visited_n, visited_max;
};
void vk_graph_beam(struct vk_graph *g, struct vk_graph_scratch *s, const struct vk_graph_ready *r, struct vk_graph_beam *b);
struct vk_graph_ready *vk_graph_scratch_ready(struct vk_graph_scratch *s); /* its own, with room */
float *vk_graph_scratch_floats(struct vk_graph_scratch *s); /* 4 * max(dims, code_dims) */
/* Around beams of who is not the grower: what they may meet is not given again meanwhile. */
void vk_graph_search_begin(struct vk_graph *g, struct vk_graph_scratch *s);
void vk_graph_search_end(struct vk_graph_scratch *s);
/* The oldest epoch that a running search began at; UINT64_MAX: none runs. */
uint64_t vk_graph_oldest(struct vk_graph *g);
void vk_graph_search_free(struct vk_graph *g); /* scratches and entries */
/* Chooses entries evenly among live nodes that are in the graph, copies their codes. */
enum vk_status vk_graph_entries(struct vk_graph *g);

/* --- graph_prune.c --- */
/* Robust prune: from candidates (any order, duplicates and `node` itself allowed) at most `degree` edges of `node`, nearest first, into
 * out. near: of candidate to node. Ties do not occlude. s: for distances between candidates. Returns how many. */
uint32_t vk_graph_prune(struct vk_graph *g, struct vk_graph_scratch *s, uint32_t node, struct vk_graph_seen *cand, uint32_t n,
			uint32_t *out);
/* The same, at most `most` edges: places left free are places for edges back, which then cost no prune. */
uint32_t vk_graph_prune_to(struct vk_graph *g, struct vk_graph_scratch *s, uint32_t node, struct vk_graph_seen *cand, uint32_t n,
			   uint32_t most, uint32_t *out);

#endif
