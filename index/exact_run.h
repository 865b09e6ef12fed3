/*
 * What the paths of exact search share: a run of one group of queries (those with the same `in`) over struct vk_parts.
 * It knows rows, not collections: where the parts come from and how ids are ordered are arguments, so tests build parts
 * in memory.
 *
 * A run is cut into units (about a megabyte of whole parts, or up to 1,024 tail rows, or of wanted slots); workers take
 * units off one counter. Each worker has a selection of its own per query; the k-th best ranks meet in the query's shared
 * floor, which only rises: whoever publishes f has k rows of rank >= f, so rows below it are no part of the answer.
 * Rows come to a path in chunks (struct vk_chunk) that hold only rows that count: present, not dead, wanted.
 *
 * All memory is taken from the arena before workers start; workers allocate nothing.
 */
#ifndef VK_INDEX_EXACT_RUN_H
#define VK_INDEX_EXACT_RUN_H

#include <pthread.h>
#include <stdatomic.h>

#include "index/topk.h"

#define VK_CHUNK_ROWS 1024

struct vk_exact_source {
	const struct vk_set *set;
	const struct vk_parts *parts;
	const struct vk_bitmap *in; /* of every query of the run, or NULL */
	vk_topk_tie_fn *tie;        /* order of two slots by id; called under a lock */
	void *tie_arg;
	struct vk_kv *kv;           /* whose map the rows are in: each worker guards itself (store/guard.h); NULL: plain memory */
	uint64_t until_ms;          /* monotonic: give up then with VK_E_CANCELLED; 0: never */
};
/* vk_exact_search() over rows at hand; q[i].in is not looked at, source->in is. */
enum vk_status vk_exact_run(const struct vk_exact_source *src, struct vk_exact_query *q, size_t n,
			    const struct vk_exact_opts *o, struct vk_arena *a, struct vk_exact_stats *stats,
			    struct vk_error *err);
/* The path that AUTO takes for n queries (exact_plan.c has the model), or `path` where it can serve the set, else SCAN. */
enum vk_exact_path vk_exact_plan(const struct vk_exact_source *src, size_t n, enum vk_exact_path path);

/* --- a query made ready (exact_score.c) --- */

struct vk_scorer {
	const struct vk_kernels *k;
	vk_score_fn *rows;
	vk_score_at_fn *at;
	enum vk_metric metric;
	enum vk_dtype dtype;
	size_t dims;
};
struct vk_prepared {
	const void *v;  /* of the kernel's query type */
	const float *f; /* f32; under cosine the unit vector. NULL: integers and bits */
	float scale;    /* cosine over integers: the query's inverse norm; else 1 */
};
void vk_scorer_init(struct vk_scorer *s, const struct vk_set *set, enum vk_cpu_level level);
bool vk_dtype_is_float(enum vk_dtype t);
/* Bytes that the query's own form takes at dst in vk_scorer_prepare. */
size_t vk_scorer_query_bytes(const struct vk_scorer *s);
void vk_scorer_prepare(const struct vk_scorer *s, const float *vector, void *dst, struct vk_prepared *p);
/* Canonical ranks of rows in order, or at pointers. inv_norm: one a row (cosine; else not read). next: vk_score_fn's. */
void vk_scorer_rows(const struct vk_scorer *s, const struct vk_prepared *p, const void *rows, size_t stride, size_t n,
		    const void *next, const float *inv_norm, float *rank);
void vk_scorer_at(const struct vk_scorer *s, const struct vk_prepared *p, const void *const *row, size_t n,
		  const float *inv_norm, float *rank);

/* --- rows that count, a chunk at a time (exact_chunk.c) --- */

struct vk_chunk {
	const struct vk_part *part; /* NULL: rows of the tail, or of many parts (FEW) */
	uint32_t n;
	bool dense;                 /* rows [at, at + n) of part, in order; the lists below are empty */
	uint32_t at;
	uint32_t slot[VK_CHUNK_ROWS];
	uint32_t number[VK_CHUNK_ROWS]; /* row number in part */
	const void *row[VK_CHUNK_ROWS];
	float inv_norm[VK_CHUNK_ROWS];
};
struct vk_chunker { /* walks the chunks of one unit */
	const struct vk_exact_source *src;
	size_t part, part_end; /* the next part to open, and the unit's end */
	size_t sure_end;       /* parts below it, from `part` on, are this worker's for sure: they are worth fetching */
	const struct vk_part *open;
	uint64_t *live;        /* words of the open part's rows that count; VK_PART_WORDS_MAX */
	bool dense;
	uint32_t next, left;   /* dense: the next row number; listed: the next slot's offset; rows left */
	uint32_t rank;         /* listed: row number of the first present slot at or after next */
	size_t tail, tail_end;
	bool few;              /* the unit is wanted slots from `from` on */
	uint64_t from;
	size_t few_part, few_tail;
	uint32_t *want;        /* VK_CHUNK_ROWS */
};
#define VK_PART_WORDS_MAX (VK_BLOCK_BYTES_MAX / 64) /* one-byte rows */

bool vk_chunker_next(struct vk_chunker *w, struct vk_chunk *c);
/* The rows of n <= VK_CHUNK_ROWS slots, ascending from call to call; slots without a row are left out. */
void vk_chunker_find(struct vk_chunker *w, const uint32_t *slot, size_t n, struct vk_chunk *c);
uint32_t vk_chunk_slot(const struct vk_chunk *c, uint32_t i);
/* The part that is opened after the chunk's, so far as that is known; or NULL. */
const struct vk_part *vk_chunker_coming(const struct vk_chunker *w);
/* The row behind a dense chunk: its part (or NULL: not known) and its number there. */
const struct vk_part *vk_chunker_behind(const struct vk_chunker *w, const struct vk_chunk *c, uint32_t *number);
/* The slot of a part's row by its number. */
uint32_t vk_part_slot(const struct vk_part *p, uint32_t number);
static inline const void *vk_chunk_row(const struct vk_chunk *c, uint32_t i)
{
	return c->dense ? c->part->row + (size_t)(c->at + i) * c->part->stride : c->row[i];
}
static inline float vk_chunk_inv_norm(const struct vk_chunk *c, uint32_t i)
{
	return c->dense ? c->part->inv_norm[c->at + i] : c->inv_norm[i];
}

/* --- the run --- */

struct vk_exact_job;
struct vk_exact_worker;

struct vk_exact_ops { /* one path */
	/* Takes the path's memory; NULL: nothing to take. */
	enum vk_status (*prepare)(struct vk_exact_job *job, struct vk_arena *a);
	/* The rows of one chunk, all queries. */
	void (*chunk)(struct vk_exact_worker *w);
	/* No more chunks for this worker; may be NULL. */
	void (*last)(struct vk_exact_worker *w);
	/* After all workers, on the calling thread; may start them again. May be NULL. */
	enum vk_status (*finish)(struct vk_exact_job *job, struct vk_arena *a);
};
extern const struct vk_exact_ops vk_exact_scan, vk_exact_certified, vk_exact_gemm, vk_exact_bits;

struct vk_running { /* one query of a run */
	struct vk_prepared p;
	size_t k;
	_Atomic float floor; /* shared by the workers, only rises */
};
struct vk_exact_worker {
	struct vk_exact_job *job;
	struct vk_topk *top; /* one a query */
	struct vk_chunker walk;
	struct vk_chunk chunk;
	float rank[VK_CHUNK_ROWS];
	uint32_t idx[VK_CHUNK_ROWS];
	uint64_t rows_scanned, rows_reread, bytes;
	void *own; /* the path's */
};
struct vk_exact_job {
	const struct vk_exact_source *src;
	const struct vk_exact_opts *opts;
	const struct vk_exact_ops *ops;
	enum vk_exact_path path;
	struct vk_scorer scorer;
	struct vk_exact_query *query;
	struct vk_running *running;
	size_t query_n;
	float *matrix; /* the f32 queries, query_n rows of dims; NULL: integers and bits */
	struct vk_exact_worker **worker;
	unsigned workers;
	size_t unit_parts, part_units, tail_units;
	atomic_size_t next;
	atomic_bool failed; /* the map could not be read: VK_E_IO */
	pthread_mutex_t tie_lock;
	void *own; /* the path's */
};

bool vk_exact_stopped(const struct vk_exact_job *job);
/* Brings a worker's selection and the query's shared floor together; `also`: one more floor that is known. */
void vk_exact_share(struct vk_running *r, struct vk_topk *t, float also);
/* Scores the worker's chunk canonically into w->rank. */
void vk_exact_score_chunk(struct vk_exact_worker *w, const struct vk_running *r);
/* The same for one query, selection included: what SCAN does, and other paths with rows that they cannot bound. */
void vk_exact_scan_chunk(struct vk_exact_worker *w, size_t query);
/* Runs fn(worker) on every worker, side by side. */
void vk_exact_fan(struct vk_exact_job *job, void (*fn)(struct vk_exact_worker *w));
int vk_exact_tie(void *job, uint32_t a, uint32_t b);

#endif
