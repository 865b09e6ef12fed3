/*
 * What the files of approximate search share; nobody else includes it.
 *
 *   ann_plan.c     what a config asks for
 *   ann.c          life, generations and deltas counted, what to show
 *   ann_work.c     the worker: what each set needs next
 *   ann_follow.c   a batch of changes put in
 *   ann_measure.c  recall of sampled rows
 *   ann_build.c    a generation built from a view's rows, or gone on with
 *   ann_rows.c     the rows that a build reads
 *   ann_file.c     pointers, files, cursors; opening what the last process left
 *   ann_search.c   nominations, rows, deltas made one answer
 *   ann_graph.c, ann_faiss.c   engines
 *
 * Who may touch what. ann->lock guards the list of sets and, of each, everything under "shown". "own" is the worker's alone (or
 * vk_ann_new()'s, before there is one). A generation's sequence G only rises; the worker stores it after the engine holds the rows.
 *
 * Delta. The slots whose last change lies in (from, upto]: immutable, counted, replaced whole. A search in a view of sequence V
 * takes the newest delta, then G. Since from <= G, the delta holds every slot that changed in (G, upto]; what changed in (upto, V]
 * it adds itself from the view. Slots too many only cost time: they are searched exactly in the view. So a search never waits for the
 * worker, and the worker never for a search.
 */
#ifndef VK_INDEX_ANN_INTERNAL_H
#define VK_INDEX_ANN_INTERNAL_H

#include <pthread.h>

#include "index/ann.h"
#include "index/collection.h"
#include "store/record_gen.h"

#define VK_ANN_PATH_MAX 4096
#define VK_ANN_CURSOR_MS ((int64_t)30 * 24 * 3600 * 1000) /* a cursor that nobody renews holds tombstones so long */

/* A plan's fingerprint, what searches ask for left out: the second half of a file's tag, so that a file of an older config
 * is not taken for one of this. */
#define VK_ANN_MADE 16
void vk_ann_made(const struct vk_ann_plan *p, uint8_t made[VK_ANN_MADE]);

struct vk_gen {
	atomic_int refs;
	const struct vk_ann_ops *ops;
	void *self;
	struct vk_ann_plan plan;
	uint8_t made[VK_ANN_MADE]; /* of what plan its builder was: plan's, or an older config's */
	atomic_ullong sequence;
};
struct vk_delta {
	atomic_int refs;
	uint64_t from, upto;
	struct vk_bitmap *slots;
	uint64_t count;
};

struct vk_ann_set {
	struct vk_ann_set *next;
	uint32_t set;
	/* shown */
	struct vk_gen *gen;     /* NULL: none serves */
	struct vk_delta *delta; /* of gen */
	enum vk_ann_state state;
	struct vk_ann_plan plan;
	struct vk_graph_progress progress;
	atomic_bool cancel;
	bool rebuild;
	uint64_t build_ms, checkpoint;
	uint32_t recall_queries;
	int64_t recall_at_ms;
	struct vk_ann_point curve[VK_ANN_POINTS_MAX];
	size_t curve_n;
	char error[200];
	struct vk_ann_plan failed_plan; /* of the build that failed or was cancelled; another plan is tried at once */
	uint64_t searches[2];   /* exact, approximate */
	/* own */
	bool named;               /* still in the config */
	uint32_t number;          /* of the newest file */
	uint32_t resumed;         /* builds that went on where a process had ended */
	bool has_file, has_part;  /* a pointer stands; to a finished file, to one that is being built */
	struct vk_rec_gen file, part;
	uint64_t cursor;          /* registered; UINT64_MAX: none */
	uint64_t applied;         /* changes since the file */
	uint64_t saved_ms, changed_ms, measured_ms, failed_ms; /* monotonic */
	uint64_t unsaved_ms, unfollowed_ms, untidy_ms; /* when that failed last; 0: it did not */
	uint64_t cursor_ms;       /* when the cursor was renewed; 0: not in this life */
	bool settled;             /* gen has been promoted and tuned */
	uint64_t applied_measured; /* changes since recall was measured */
	uint64_t unmended;        /* changes that are still owed a repair step */
	uint64_t failed_sequence; /* of the collection when a build failed or was cancelled */
	uint64_t scrub_at;
	bool scrubbed;
};

struct vk_ann {
	struct vk_collection *c; /* not counted */
	char *dir;
	bool read_only;
	struct vk_ann_pace pace; /* defaults filled in */
	pthread_mutex_t lock;
	pthread_cond_t changed;  /* poked, stopped, a round done */
	struct vk_ann_set *sets;
	pthread_t thread;
	bool running;            /* thread is to be joined */
	bool idle;               /* the last round found nothing to do */
	bool poked, checkpoint;
	enum vk_status unsaved;  /* why the checkpoint that was asked for could not be saved */
	uint64_t rounds;
	atomic_bool stop;
	atomic_ullong rows_least; /* a poke below so many points is nothing */
};

/* ann.c */
struct vk_gen *vk_gen_new(const struct vk_ann_ops *ops, void *self, const struct vk_ann_plan *p, uint64_t sequence);
bool vk_gen_is_of(const struct vk_gen *g, const struct vk_ann_plan *p); /* would p build the like? */
struct vk_gen *vk_gen_ref(struct vk_gen *g); /* NULL stays NULL */
void vk_gen_unref(struct vk_gen *g);
struct vk_delta *vk_delta_ref(struct vk_delta *d);
void vk_delta_unref(struct vk_delta *d);
/* d (NULL: nothing known, from) and what changed since, up to the view's moment; a reference. */
enum vk_status vk_delta_extend(struct vk_view *v, const struct vk_delta *d, uint64_t from, struct vk_delta **out);
enum vk_status vk_view_sequence(struct vk_view *v, uint64_t *sequence);
struct vk_ann_set *vk_ann_find(struct vk_ann *ann, uint32_t set); /* under the lock */
/* What serves a set now: references, and how wide to search. False: nothing. */
struct vk_ann_serving {
	struct vk_gen *gen;
	struct vk_delta *delta;
	float recall;           /* the plan's target */
	uint64_t scan_rows_max; /* the plan's */
	struct vk_ann_point curve[VK_ANN_POINTS_MAX];
	size_t curve_n;
};
bool vk_ann_take(struct vk_ann *ann, uint32_t set, struct vk_ann_serving *out);
void vk_ann_give(struct vk_ann_serving *sv);
/* The narrowest search of a curve that reaches the recall; 0: nothing measured. */
uint32_t vk_ann_auto(const struct vk_ann_point *curve, size_t n, float recall);
/* Counts queries of a set by how they were answered. */
void vk_ann_count(struct vk_ann *ann, uint32_t set, uint64_t exact, uint64_t approximate);
/* Puts d in the place of the set's delta, if gen still serves and d knows more. */
void vk_ann_offer_delta(struct vk_ann *ann, uint32_t set, const struct vk_gen *gen, struct vk_delta *d);
const struct vk_ann_ops *vk_ann_ops_of(enum vk_ann_engine e);
extern const uint32_t vk_ann_dials[VK_ANN_POINTS_MAX];

/* ann_file.c */
/* The set of this number, made when it is not there; under the lock once there is a worker. NULL: no memory. */
struct vk_ann_set *vk_ann_add(struct vk_ann *ann, uint32_t set);
void vk_ann_path(const struct vk_ann *ann, const struct vk_ann_set *s, const struct vk_rec_gen *r, bool building, char path[VK_ANN_PATH_MAX]);
/* Reads the pointers of all sets of the config, opens what serves; deletes files that no pointer names. */
enum vk_status vk_ann_load(struct vk_ann *ann, struct vk_error *err);
/* Saves self, built by a plan of this fingerprint, under a new number and points to it; the file before goes. sequence: what it
 * stands for. */
enum vk_status vk_ann_keep(struct vk_ann *ann, struct vk_ann_set *s, const struct vk_ann_plan *plan, const uint8_t made[VK_ANN_MADE],
			   void *self, uint64_t sequence, bool building, struct vk_error *err);
/* Forgets pointer and file. */
enum vk_status vk_ann_forget(struct vk_ann *ann, struct vk_ann_set *s, bool building);
/* Registers the lowest sequence that files of the set stand for (also: that a build beginning now will), or removes it. */
enum vk_status vk_ann_cursor(struct vk_ann *ann, struct vk_ann_set *s, uint64_t also);
/* Lets go of what was begun and is not wanted (a half-built index, a file that cannot be used, a cursor); cheap when there is none. */
enum vk_status vk_ann_tidy(struct vk_ann *ann, struct vk_ann_set *s);

/* ann_build.c */
/* Builds what s->plan asks for, or goes on with what was being built; VK_E_CANCELLED when stopped. On success *gen is new. */
enum vk_status vk_ann_make(struct vk_ann *ann, struct vk_ann_set *s, struct vk_gen **gen, struct vk_error *err);

/* ann_rows.c */
struct vk_ann_rows {
	struct vk_ann *ann;
	/* in: NULL, or the slots whose rows a build that began at sequence `since` has; not read once they are found */
	const struct vk_bitmap *have;
	uint64_t since;
	/* out */
	uint64_t sequence; /* of the view that they were found in */
	uint64_t changed;  /* with `have`: slots that changed since, all of them the delta's */
	uint32_t n;
	/* own */
	struct vk_view v;
	bool open;
	struct vk_set set; /* a copy: it outlives the config */
	struct vk_arena arena;
	struct vk_row *row;
	uint32_t *slot;
};
/* Finds the rows of a set, all or what such a build lacks, slots ascending, and holds the view. VK_E_CANCELLED: the set is gone;
 * VK_E_CORRUPT: `since` is ahead of the collection. Closed in any case. */
enum vk_status vk_ann_rows_find(struct vk_ann_rows *r, uint32_t set, struct vk_error *err);
/* To read what was found; closes when the engine has read it. */
struct vk_ann_source vk_ann_rows_source(struct vk_ann_rows *r);
void vk_ann_rows_close(void *rows); /* any number of times, also of what was never found */

/* ann_work.c */
void *vk_ann_worker(void *ann);
/* Have too many changed for an engine that does not grow? */
bool vk_ann_is_stale(uint64_t changed, uint64_t rows);

/* ann_follow.c: the next changes into s->gen, *n rows. *engine: that it failed is the engine's doing, it may be half done. */
enum vk_status vk_ann_follow(struct vk_ann *ann, struct vk_ann_set *s, const struct vk_set *set, size_t *n, bool *engine);

/* ann_measure.c: recall of s->gen, shown when it could be measured. */
void vk_ann_measure(struct vk_ann *ann, struct vk_ann_set *s, const struct vk_set *set, uint64_t seed);

/* ann_search.c: one set of queries against a generation of one's own choosing, less what the delta (NULL: nothing) says is not its
 * business: for measuring. */
enum vk_status vk_ann_probe(struct vk_view *v, const struct vk_set *s, struct vk_gen *gen, const struct vk_delta *delta,
			    struct vk_exact_query *q, size_t n, uint32_t ef, struct vk_arena *a);

#endif
