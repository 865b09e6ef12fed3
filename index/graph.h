/*
 * A graph for approximate nearest neighbours: one flat layer of fixed degree over quantised codes. It nominates; who asks
 * scores what it nominates with the full rows (index/ann.h). So a graph keeps no rows, and may be a little behind them.
 *
 * Nodes are numbered 0..n-1 in the order in which they came and carry a label, the point's slot. A label has at most one
 * live node: putting a label again makes a new node and kills the old one. Rows whose codes are the same are chained off
 * the first of them and never enter the graph. A dead node is walked through until it is repaired away, and never nominated.
 *
 * Sources: robust prune and batch building after Vamana and ParlayANN (alpha, frozen batches, sorted back-edges); two-pass
 * neighbour loop with prefetch after Glass; in-place deletion after IP-DiskANN; two-hop filtering after ACORN.
 *
 * Determinism: vk_graph_build() gives the same bytes for the same rows in the same order, whatever the number of threads and
 * the CPU's level. Growing gives the same for the same sequence of calls.
 *
 * Threads: any number search while one grows (vk_graph_put, _del, _consolidate are one thread's at a time); nobody waits
 * for anybody. A search sees each node's edges torn at worst between two right states. vk_graph_build() has the graph to itself.
 *
 * A file that cannot be read while it is still searched from its pages (before vk_graph_promote) ends no process: zeros take a page's
 * place (store/patch.h), the stats say `lost`, and it is to be built anew.
 *
 * Units: bytes, rows, nodes. Errors: VK_E_NOMEM, VK_E_NO_SPACE (capacity), VK_E_CANCELLED (stop), VK_E_CORRUPT and VK_E_IO (files).
 */
#ifndef VK_INDEX_GRAPH_H
#define VK_INDEX_GRAPH_H

#include <stdatomic.h>

#include "base/pool.h"
#include "base/status.h"
#include "simd/score.h"

#define VK_GRAPH_EF_MAX 65536u
#define VK_GRAPH_DEGREE_MAX 128u
#define VK_GRAPH_NODES_MAX ((uint32_t)1 << 30)
#define VK_GRAPH_NONE UINT32_MAX

struct vk_graph;

enum vk_graph_profile {
	VK_GRAPH_AUTO, /* build measures recall on a sample and takes the leanest profile that keeps it */
	VK_GRAPH_S8,   /* 8 bits a dimension */
	VK_GRAPH_S4,   /* 4 bits a dimension */
	VK_GRAPH_P8,   /* projected on the leading principal axes, 8 bits each */
	VK_GRAPH_PROFILES
};
extern const char *const vk_graph_profile_names[VK_GRAPH_PROFILES]; /* "auto", "s8", "s4", "p8" */

struct vk_graph_conf {
	uint32_t dims;
	enum vk_metric metric; /* DOT, COSINE (rows and queries come as unit vectors) or L2 */
	uint32_t degree;       /* edges a node, a multiple of 16; 0: 64 */
	uint32_t ef_build;     /* beam of a node's own search; 0: 128 */
	float alpha;           /* prune's second round; 0: 1.2 */
	enum vk_graph_profile profile;
	uint32_t capacity;     /* nodes; address space is reserved for them, halved until it is had. 0: 64 Mi */
	uint64_t seed;
	enum vk_cpu_level level;
};

struct vk_graph_source { /* the rows of a bulk build */
	uint32_t n;
	/* Row i (dims floats) and its label. Any thread, any order, more than once. */
	enum vk_status (*row)(void *arg, uint32_t i, float *dst, uint32_t *label);
	/* NULL, or called once when no row will be asked for any more (long before a build ends): what row() reads from can go. */
	void (*rows_done)(void *arg);
	void *arg;
};

struct vk_graph_progress { /* written by the builder, read by anyone */
	atomic_uint done, total;
};

struct vk_graph_build_opts {
	unsigned threads;         /* 0: one a core. Own threads of low priority, so that searches stay at full speed */
	int nice;                 /* added to them, 0..19 */
	const atomic_bool *stop;  /* NULL, or VK_E_CANCELLED when it turns true (looked at each batch) */
	struct vk_graph_progress *progress; /* NULL, or kept up to date */
	/* NULL, or called on the building thread between batches, when the graph is whole for its first `done` nodes: may
	 * save it (vk_graph_save) to go on after a crash. */
	enum vk_status (*between)(void *arg, struct vk_graph *g, uint32_t done);
	void *arg;
};

enum vk_status vk_graph_new(const struct vk_graph_conf *conf, struct vk_graph **out, struct vk_error *err);
void vk_graph_free(struct vk_graph *g);
/* Fills an empty graph. */
enum vk_status vk_graph_build(struct vk_graph *g, const struct vk_graph_source *src, const struct vk_graph_build_opts *o,
			      struct vk_error *err);
/* Goes on with a graph that was saved while it was built: the same bytes come out as without the crash. */
enum vk_status vk_graph_build_resume(struct vk_graph *g, const struct vk_graph_build_opts *o, struct vk_error *err);
bool vk_graph_partial(const struct vk_graph *g); /* saved while it was built and not finished since */

/* --- growing; one thread at a time --- */
enum vk_status vk_graph_put(struct vk_graph *g, uint32_t label, const float *row);
enum vk_status vk_graph_del(struct vk_graph *g, uint32_t label); /* VK_E_NOT_FOUND: no live node */
/* About `budget` nodes of background repair: dead nodes are cut out and their places given again, thin nodes filled.
 * VK_E_BUSY: more to do. */
enum vk_status vk_graph_consolidate_step(struct vk_graph *g, uint32_t budget);

/* --- searching --- */
struct vk_graph_scratch; /* one thread's while it searches */
struct vk_graph_scratch *vk_graph_scratch_take(struct vk_graph *g); /* NULL: no memory. Kept by the graph for the next */
void vk_graph_scratch_give(struct vk_graph *g, struct vk_graph_scratch *s);

struct vk_graph_query {
	const float *vector; /* dims; COSINE: unit */
	uint32_t ef;         /* beam, at most VK_GRAPH_EF_MAX; raised to want */
	uint32_t want;       /* nominations wanted */
	const uint64_t *allow; /* bits over labels, NULL: all */
	uint32_t allow_n;      /* labels that allow speaks of; others are not allowed */
	bool two_hop;          /* few are allowed: walk through the others to theirs */
	const uint32_t *seed;  /* labels to start from besides the entries (two_hop: allowed ones) */
	uint32_t seed_n;
	uint64_t visit_max;    /* distances computed before giving up; 0: no limit */
	/* out, caller's arrays of `want`: best first by code distance */
	uint32_t *label;
	float *near;           /* the code's estimate of the rank, bigger is nearer */
	uint32_t n;
	uint64_t visited;      /* distances computed */
	bool gave_up;          /* visit_max was met */
};
enum vk_status vk_graph_search(struct vk_graph *g, struct vk_graph_scratch *s, struct vk_graph_query *q);

/* Times searches for vectors of the graph and sets how far ahead codes are fetched; about `budget_ms`. The pair is also to be had
 * and set, so that it can be kept per CPU. Any time. */
void vk_graph_tune(struct vk_graph *g, unsigned budget_ms);
struct vk_graph_prefetch {
	uint16_t ahead, lines; /* neighbours, cache lines of each */
};
struct vk_graph_prefetch vk_graph_prefetch_get(const struct vk_graph *g);
void vk_graph_prefetch_set(struct vk_graph *g, struct vk_graph_prefetch p);

/* --- what it is --- */
struct vk_graph_stats {
	uint32_t nodes, live, dead, chained, unreached; /* unreached: before the builder tied them on */
	uint32_t degree;
	enum vk_graph_profile profile; /* never AUTO once built */
	uint64_t edges, bytes;         /* bytes: hot memory */
	double code_error;             /* mean of ||x - x^|| / ||x|| of what was put since the build; 0: nothing */
	double code_error_built;       /* the same, of the build: drift shows */
	uint64_t coded;                /* rows that were put since the build */
	bool lost;                     /* pages of its file could not be read: it nominates worse, and cannot be saved */
};
void vk_graph_stats(const struct vk_graph *g, struct vk_graph_stats *out);
uint32_t vk_graph_live(const struct vk_graph *g);    /* rows; cheap, as the next two */
enum vk_graph_profile vk_graph_profile(const struct vk_graph *g);
bool vk_graph_has(const struct vk_graph *g, uint32_t label);
/* Every invariant: edges in range and none twice or to itself, labels and chains consistent, every live node reached from the
 * entries. VK_E_CORRUPT and err says which. The caller keeps growers away. */
enum vk_status vk_graph_check(const struct vk_graph *g, struct vk_error *err);

/* --- files --- */
/* The whole graph under a name of its own, durable before it returns: temporary file, fsync, rename, directory fsync. sequence and
 * tag are the caller's, kept in the head. Searches go on, growers are kept away by the caller. */
enum vk_status vk_graph_save(struct vk_graph *g, const char *path, uint64_t sequence, const uint8_t tag[32], struct vk_error *err);
/* Maps a saved graph (MAP_PRIVATE: growing changes memory, never the file). Checks head and size only: milliseconds, whatever the
 * size. VK_E_CORRUPT names what is wrong. */
enum vk_status vk_graph_open(const char *path, uint32_t capacity, enum vk_cpu_level level, struct vk_graph **out,
			     uint64_t *sequence, uint8_t tag[32], struct vk_error *err);
/* Checks the rest of the file, about budget bytes from *at on; VK_E_BUSY: more; VK_E_CORRUPT. For the background, on the file itself. */
enum vk_status vk_graph_scrub_step(const char *path, size_t budget, uint64_t *at, struct vk_error *err);
/* Copies what lies in mapped file pages into anonymous memory with huge pages; as fast as memory goes. Searches and growers wait not;
 * growers are kept away by the caller. */
enum vk_status vk_graph_promote(struct vk_graph *g);

#endif
