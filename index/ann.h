/*
 * Approximate search over a collection's vector sets: which set has an index (its plan), the indexes themselves (generations),
 * keeping them up with the writes, and answers that mix an index with what changed since.
 *
 * Generation. One derived index over one vector set: an engine's object in memory, a file beside the environment
 * (gen-<set>-<number>.<engine>) and a pointer to it in the environment (store/record_gen.h). It stands for the rows up to change
 * sequence G. Counted: a search holds the one that it uses; a new one is swapped in whole.
 *
 * Answers. An engine only nominates slots. Here they are scored with the rows of the view by the canonical kernel, so scores are
 * exact and a row that is gone is never answered. Slots that changed after G are left out of the nominations and searched
 * exactly (the delta); so a write is found by the next search, and writes never wait for an index. Where an engine gives fewer
 * than min(limit, matches), where few rows match, and where a filter starves a walk, exact search answers whole.
 *
 * Work. One thread a collection, started when a set's plan first asks for an index: builds (in own threads of low priority),
 * follows the changes, repairs, saves (checkpoints), measures recall on sampled rows and calibrates how wide to search. Writes
 * only poke it. Its cursor "gen<set>" keeps tombstones until a checkpoint has passed them. Killed at any moment, a collection
 * opens with the last checkpoint, or rebuilds; a damaged file is named in the log and built anew.
 *
 * Threads: any. Locks: struct vk_ann's own, nothing is called under it but reference counting.
 */
#ifndef VK_INDEX_ANN_H
#define VK_INDEX_ANN_H

#include "index/exact.h"
#include "index/graph.h"

#define VK_ANN_FACTORY_MAX 128
#define VK_ANN_RECALL_DEFAULT 0.97f

enum vk_ann_engine { VK_ANN_NONE, VK_ANN_GRAPH, VK_ANN_FAISS, VK_ANN_ENGINES };
extern const char *const vk_ann_engine_names[VK_ANN_ENGINES]; /* "none", "graph", "faiss" */

/* --- what a config asks for (ann_plan.c) --- */

#define VK_ANN_SCAN_AUTO UINT64_MAX /* the engine knows what its searches cost */
#define VK_ANN_FEW_IN_ALL 100       /* a hundredth of all rows is scanned, whatever its number */
/* Of the live rows: where more are allowed the graph's plain walk is faster (bench_ann_filter: even at a fifth when what is allowed
 * lies everywhere, two hops ahead twice over when it lies apart from the query). */
#define VK_ANN_TWO_HOP_SHARE 0.2

struct vk_ann_plan {
	enum vk_ann_engine engine;   /* NONE: exact search alone */
	enum vk_metric metric;
	uint32_t dims;
	uint64_t rows_min;           /* an index is built from so many rows on (indexing_threshold) */
	uint64_t scan_rows_max;      /* at most so many rows to look at are scanned (full_scan_threshold); VK_ANN_SCAN_AUTO */
	uint32_t threads;            /* of a build, 0: one a core (max_indexing_threads) */
	float recall;                /* that `ef: auto` aims at */
	/* graph */
	uint32_t degree, ef_build;   /* 0: the graph's choice (m and ef_construct at their defaults) */
	enum vk_graph_profile profile;
	/* faiss */
	char factory[VK_ANN_FACTORY_MAX];
	uint32_t nprobe, ef_search, train_rows; /* 0: the engine's choice */
};
/* Of the vector's config: hnsw_config (its own over the collection's), optimizer_config, and "index" in its veckeep entry:
 * {"engine": "graph" | "faiss" | "none", "profile": "auto" | "s8" | "s4" | "p8", "recall": 0.97, "factory": "IVF1024,PQ32",
 *  "nprobe": 16, "ef_search": 64, "train_rows": 100000}. */
void vk_ann_plan_of(const struct vk_colconf *conf, const struct vk_vector_conf *v, struct vk_ann_plan *out);
/* Checks such an "index" object; VK_E_INVALID names what is wrong. */
enum vk_status vk_ann_index_check(const vk_jv *index, const struct vk_set *s, struct vk_error *err);
/* Would an index built by a serve b? (Thresholds, recall, threads and search settings do not count.) */
bool vk_ann_plan_builds_alike(const struct vk_ann_plan *a, const struct vk_ann_plan *b);

/* --- an engine (ann_graph.c, ann_faiss.c): a const table --- */

struct vk_ann_source { /* the rows of a build: as the engine wants them, f32, under COSINE unit vectors */
	uint32_t n;
	/* Row i and its slot; slots ascend with i. Any thread, any order, more than once, until rows_done. */
	enum vk_status (*row)(void *arg, uint32_t i, float *dst, uint32_t *slot);
	/* The engine has read all that it needs: the view behind row() is let go. NULL: none to call. Called at most once. */
	void (*rows_done)(void *arg);
	void *arg;
};
struct vk_ann_build {
	unsigned threads;
	const atomic_bool *stop;
	struct vk_graph_progress *progress;
	/* NULL, or called now and then with what is built so far, to be saved for going on after a crash. */
	enum vk_status (*between)(void *arg, void *self);
	void *arg;
};
struct vk_ann_ask {
	const float *vector;   /* f32; COSINE: unit */
	uint32_t want;         /* nominations */
	uint32_t ef;           /* how wide: beam, or nprobe's like; 0: the engine's default */
	const uint64_t *allow; /* bits over slots, NULL: all */
	uint32_t allow_n;
	uint64_t allow_count;  /* bits set */
	uint32_t *slot;        /* out, room for want, best first */
	uint32_t n;
	uint64_t visited;
	bool gave_up;          /* the filter starves it: ask exact search */
};
struct vk_ann_about {
	uint64_t rows, dead, bytes; /* bytes: of hot memory */
	char detail[160];           /* "s8, degree 64", "IVF1024,PQ32" */
	bool wants_rebuild;         /* drifted, worn or lost: a new generation would be better */
	bool lost;                  /* pages of its file cannot be read */
};
struct vk_ann_ops {
	const char *name; /* also the file name's end */
	bool grows;       /* put and del work; else a generation is built anew when much has changed */
	bool calibrates;  /* ef is a dial from 1 up that trades time for recall */
	enum vk_status (*build)(const struct vk_ann_plan *p, const struct vk_ann_source *src, const struct vk_ann_build *b, void **self, struct vk_error *err);
	/* Goes on with one that was saved by `between`. An engine keeps the rows of a build in its file (resume), or is given those that
	 * it lacks (resume_from) and says whose it has (slots: adds them). Both NULL: builds do not go on. */
	enum vk_status (*resume)(void *self, const struct vk_ann_build *b, struct vk_error *err);
	enum vk_status (*resume_from)(void *self, const struct vk_ann_source *src, const struct vk_ann_build *b, struct vk_error *err);
	void (*slots)(const void *self, struct vk_bitmap *out);
	bool (*partial)(const void *self); /* half built; NULL: never */
	enum vk_status (*open)(const struct vk_ann_plan *p, const char *path, void **self, uint64_t *sequence, uint8_t tag[32], struct vk_error *err);
	enum vk_status (*save)(void *self, const char *path, uint64_t sequence, const uint8_t tag[32], struct vk_error *err);
	/* Checks the file beyond what open() looked at, about budget bytes from *at; VK_E_BUSY: more. NULL: nothing to check. */
	enum vk_status (*scrub)(const char *path, size_t budget, uint64_t *at, struct vk_error *err);
	/* After open or build, on the background thread: promote to memory, tune. NULL: nothing. */
	void (*settle)(void *self);
	void (*close)(void *self);
	enum vk_status (*put)(void *self, uint32_t slot, const float *row);
	enum vk_status (*del)(void *self, uint32_t slot); /* VK_E_NOT_FOUND: it was not there */
	enum vk_status (*step)(void *self);               /* some milliseconds of repair; VK_E_BUSY: more */
	enum vk_status (*nominate)(void *self, struct vk_ann_ask *ask); /* any thread, many at once */
	/* Nominations to ask for when `limit` answers are wanted by a search so wide (ef; 0: the default): coarser codes want more. */
	uint32_t (*want)(const void *self, uint32_t limit, uint32_t ef);
	/* Looking at so many rows exactly takes no longer than such a search, when `matches` of all `rows` are allowed. */
	uint64_t (*scan_rows)(uint64_t matches, uint64_t rows, uint32_t ef);
	uint64_t (*rows)(const void *self); /* that count; cheap */
	void (*about)(const void *self, struct vk_ann_about *out);
};
extern const struct vk_ann_ops vk_ann_graph, vk_ann_faiss;

/* --- a collection's indexes (ann.c, ann_work.c) --- */

struct vk_ann;

struct vk_ann_pace { /* of the worker; 0: the usual */
	unsigned poll_ms;       /* how often it looks by itself: 500 */
	unsigned build_save_ms; /* between two saves of what is built so far: a minute */
	unsigned retry_ms;      /* after something failed: 30 s */
	unsigned save_every_ms; /* between two checkpoints of what changes little, and a tenth of it is quiet enough: five minutes */
};
struct vk_ann_opts {
	const char *dir;   /* the collection's */
	bool read_only;    /* opens what is there, changes nothing */
	struct vk_ann_pace pace;
};
/* Opens generations that the environment points to, cheaply; the worker starts when there may be something to do. c is not counted: the
 * collection owns its indexes and frees them before its environment. */
enum vk_status vk_ann_new(struct vk_collection *c, const struct vk_ann_opts *o, struct vk_ann **out, struct vk_error *err);
/* Stops the worker (a build gives up within some 100 ms) and lets go of everything. */
void vk_ann_free(struct vk_ann *ann);
void vk_ann_poke(struct vk_ann *ann); /* something may be to do; cheap, any thread */
/* A new config was committed: pokes, and gives up a build that is no longer asked for. */
void vk_ann_configured(struct vk_ann *ann, const struct vk_colconf *conf);
void vk_ann_wrote(struct vk_ann *ann, uint64_t points); /* the same after a commit; nothing while points are too few for an index */
/* Waits until every set's index stands for all that is written now, or timeout: VK_E_DEADLINE. For tests, snapshots, `wait`. */
enum vk_status vk_ann_wait(struct vk_ann *ann, uint64_t timeout_ms);
/* Gives up a running build; the plan stays, a build starts anew at the next change or vk_ann_rebuild(). VK_E_NOT_FOUND: none runs. */
enum vk_status vk_ann_cancel(struct vk_ann *ann, uint32_t set);
enum vk_status vk_ann_rebuild(struct vk_ann *ann, uint32_t set);
/* Saves what has changed, waits: for tests and shutdown. What kept it from being saved, if something did. */
enum vk_status vk_ann_checkpoint(struct vk_ann *ann);

/* --- searching (ann_search.c) --- */

struct vk_ann_query {
	struct vk_exact_query q; /* in and out as in exact search */
	uint32_t ef;             /* params.hnsw_ef; 0: auto */
	float recall;            /* 0: the plan's */
};
struct vk_ann_found { /* how it was answered; for metrics, tests and bench */
	bool approximate;
	uint64_t visited, delta_rows, rescored, whole; /* whole: queries that exact search answered after all */
};
/* True when an index may answer queries of this set in this view now. */
bool vk_ann_serves(struct vk_view *v, const struct vk_set *s);
/* As vk_exact_search, approximately; falls back to it wherever an index would not do. */
enum vk_status vk_ann_search(struct vk_view *v, const struct vk_set *s, struct vk_ann_query *q, size_t n,
			     const struct vk_exact_opts *o, struct vk_arena *a, struct vk_ann_found *found, struct vk_error *err);

/* --- what to show --- */

enum vk_ann_state {
	VK_ANN_IDLE,     /* no index wanted, or too few rows yet */
	VK_ANN_BUILDING, /* none serves yet, or a new one is being built */
	VK_ANN_FOLLOWING,/* serves; changes are waiting to be put in */
	VK_ANN_READY,
	VK_ANN_FAILED,   /* the last build failed: error says why; exact search answers */
	VK_ANN_CANCELLED,
	VK_ANN_STATES
};
extern const char *const vk_ann_state_names[VK_ANN_STATES];
struct vk_ann_point { /* of a calibration */
	uint32_t ef;
	float recall;
};
#define VK_ANN_POINTS_MAX 12
struct vk_ann_info {
	enum vk_ann_state state;
	struct vk_ann_plan plan;
	bool serving;
	uint64_t rows, pending;    /* in the index; slots changed since */
	uint64_t sequence;         /* G */
	uint32_t done, total;      /* of the running build */
	struct vk_ann_about about;
	float recall;              /* measured at auto ef, k = 10, against exact search; < 0: not yet */
	uint32_t recall_queries;
	int64_t recall_ms;         /* when, wall clock */
	uint32_t ef_auto;          /* for k = 10 */
	struct vk_ann_point curve[VK_ANN_POINTS_MAX];
	size_t curve_n;
	uint64_t checkpoint;       /* G of the file */
	bool outdated;             /* what serves is of another plan, or somebody asked for a new one: a build is due */
	uint64_t searches[2];      /* queries since the collection was opened: [0] exact search answered, [1] the index */
	uint64_t build_ms;
	char error[200];
};
/* VK_E_NOT_FOUND: no such set. */
enum vk_status vk_ann_info(struct vk_ann *ann, uint32_t set, struct vk_ann_info *out);
/* Is any index being built or behind? (status yellow) */
bool vk_ann_busy(struct vk_ann *ann);

#endif
