/*
 * What the collection's files share; nobody else includes it.
 *
 *   collection.c             open and close, the config in memory, statistics, cursors, changes
 *   collection_write.c       lists of operations in the writer's transaction
 *   collection_point.c       one point written: slots, heads, change table, rows, payload indexes
 *   collection_extra.c       sparse vectors and texts of a point
 *   collection_config.c      a config changed
 *   collection_background.c  dropping, index building, sealing; expiry
 *   collection_check.c       every invariant across the tables
 *   view.c                   reading
 *
 * Config. The truth is in the environment, with an epoch in the state record that goes up with each. In
 * memory is the newest that a reader or `committed` has met. Whoever has a transaction asks
 * vk_collection_conf_of(): the answer is always the config of that transaction, so config, rows and indexes
 * never disagree, with no lock across commits.
 *
 * Locks: c->lock guards conf, epoch and the background job's flags; nothing is called under it but
 * vk_kv_submit.
 */
#ifndef VK_INDEX_COLLECTION_INTERNAL_H
#define VK_INDEX_COLLECTION_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "index/collection.h"
#include "index/tables.h"
#include "store/record_extra.h"
#include "store/record_point.h"

#define VK_PAYLOAD_MAX ((size_t)32 << 20) /* bytes of one point's payload */

struct vk_background { /* the one background job of a collection; its thread's alone but for the flags */
	struct vk_kv_job job;
	bool queued, again;      /* under c->lock */
	enum vk_status last;     /* how it ended last, under c->lock */
	bool all;                /* this round seals all there is */
	size_t set_at;           /* sealing: which vector of the config, from which block */
	uint32_t block;
	uint64_t pruned;         /* tombstones up to here are gone */
};

struct vk_collection {
	atomic_int refs;
	struct vk_kv *kv;
	bool read_only;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* config or background job */
	struct vk_colconf *conf;
	uint64_t epoch;
	bool closing;
	struct vk_background background;
	atomic_bool seal_all;     /* asked for: seal all there is, not only what is worth it */
	atomic_bool sealing, building;
	atomic_uint tail_rows;    /* put since sealing last looked */
	atomic_llong wrote_at_ms; /* the last write's own clock */
	struct vk_ann *ann;       /* its indexes; NULL while opening and closing */
	atomic_ullong points;     /* after the last write */
	struct vk_parts_kept *parts; /* of the newest moment that was searched (index/view_parts.c), or NULL; under lock */
};

/* NULL is fine. */
void vk_parts_kept_unref(struct vk_parts_kept *k);

/* The state record. */
enum vk_status vk_state_get(struct vk_kv_txn *t, struct vk_rec_state *s);
enum vk_status vk_state_put(struct vk_kv_txn *t, const struct vk_rec_state *s);

/* The config of t's moment, a reference. committed: t sees nothing but commits, so a newer config is kept. */
enum vk_status vk_collection_conf_of(struct vk_collection *c, struct vk_kv_txn *t, uint64_t epoch, bool committed,
				     struct vk_colconf **out);
void vk_collection_conf_adopt(struct vk_collection *c, struct vk_colconf *conf, uint64_t epoch);
/* Puts a config text under the next epoch into s (which the caller then puts). */
enum vk_status vk_collection_conf_put(struct vk_kv_txn *t, struct vk_bytes text, struct vk_rec_state *s);

/* The sequence of the slowest cursor that has not expired; UINT64_MAX: there is none. */
enum vk_status vk_cursor_lowest(struct vk_kv_txn *t, int64_t now_ms, uint64_t *lowest);

/* Starts the background job if it does not run. */
void vk_background_kick(struct vk_collection *c);
void vk_background_init(struct vk_collection *c);

/* --- one writer's transaction, one list of operations --- */
struct vk_point_row {
	uint32_t slot;
	const struct vk_vector_conf *vector; /* of w->conf */
	const float *row;
};
struct vk_writer {
	struct vk_collection *c;
	struct vk_kv_txn *t;
	struct vk_colconf *conf;
	struct vk_rec_state state, was; /* was: when it began */
	uint64_t lowest;              /* where the slowest cursor is; UINT64_MAX: there is none */
	int64_t now_ms;
	struct vk_field_batch *batch; /* NULL until something changes */
	struct vk_point_row *row;     /* gathered, put by vk_writer_rows() */
	size_t row_n, row_cap;
	uint32_t rows_put;
	struct vk_arena scratch;      /* of one point */
	struct vk_error *err;         /* may be NULL */
};
enum vk_status vk_writer_begin(struct vk_writer *w, struct vk_collection *c, struct vk_kv_txn *t, int64_t now_ms,
			       struct vk_error *err);
/* Puts what is gathered, and the state, when st is VK_OK; frees. */
enum vk_status vk_writer_end(struct vk_writer *w, enum vk_status st);
/* Puts the gathered rows; and with the indexes: what a filter needs to see all that was written. */
enum vk_status vk_writer_rows(struct vk_writer *w);
enum vk_status vk_writer_indexes(struct vk_writer *w);
/* The slots that match, expired points left out, in the transaction as it is. */
enum vk_status vk_writer_filter(struct vk_writer *w, const struct vk_filter *f, struct vk_bitmap **out);

struct vk_old { /* a point as it is; borrowed from w->scratch */
	bool there;
	uint32_t slot;
	uint64_t sequence;
	struct vk_bytes id;
	struct vk_bytes payload; /* a copy */
	struct vk_json *doc;     /* parsed on demand */
	const vk_jv *jv;
};
/* By id (not there is no error) and by slot (not there is VK_E_CORRUPT). Ends the old one before: one at
 * a time. */
enum vk_status vk_old_by_id(struct vk_writer *w, struct vk_bytes id, struct vk_old *o);
enum vk_status vk_old_by_slot(struct vk_writer *w, uint32_t slot, struct vk_old *o);
enum vk_status vk_old_parse(struct vk_writer *w, struct vk_old *o);
bool vk_old_expired(struct vk_writer *w, struct vk_old *o, enum vk_status *st);
void vk_old_end(struct vk_writer *w, struct vk_old *o);

struct vk_new { /* what a point becomes */
	struct vk_bytes id;
	const struct vk_vec *vec; /* conf: of w->conf */
	size_t vec_n;
	bool replace;             /* vectors that are not named go */
	bool payload_set;         /* false: payload stays */
	struct vk_bytes payload;  /* n == 0: none */
	const vk_jv *payload_jv;
	const struct vk_vector_conf **drop; /* vectors that go */
	size_t drop_n;
};
/* A new point, or o changed. *changed: was there anything to do. */
enum vk_status vk_point_write(struct vk_writer *w, struct vk_old *o, const struct vk_new *n);
enum vk_status vk_point_delete(struct vk_writer *w, struct vk_old *o);

/* Sparse vectors and texts, as n says, into the transaction; *mask collects the bits of what came and went. After place(). */
enum vk_status vk_extra_write(struct vk_writer *w, struct vk_old *o, uint32_t slot, const struct vk_new *n, uint64_t *mask);
/* Everything that the slot carries. */
enum vk_status vk_extra_delete(struct vk_writer *w, uint32_t slot);
bool vk_extra_has(struct vk_kv_txn *t, uint32_t slot, uint8_t kind, uint32_t set);
/* Deletes what a dropped set has, in steps; *slot is where to go on. VK_E_BUSY: more. */
enum vk_status vk_extra_drop_step(struct vk_kv_txn *t, uint32_t set, size_t budget, uint64_t *slot);

#endif
