/*
 * One collection: its environment, its points, its writes.
 *
 * Writes are lists of operations applied in order in one commit: all of a list or none. A 2xx means the commit is on
 * disk. Checks (dims, finite, ids, sizes) come before the first put. Each operation that touches a point gives that
 * point the commit's next change sequence number, its `version`.
 *
 * Slots: given ascending, kept on update, free after a delete and given again when no registered cursor is older than the
 * delete. Change table: the newest entry of a point only, tombstones for deletes until the lowest cursor has passed.
 *
 * Threads: any. Collections are counted; the environment closes with the last reference.
 */
#ifndef VK_INDEX_COLLECTION_H
#define VK_INDEX_COLLECTION_H

#include "index/filter.h"
#include "index/id.h"
#include "index/view.h"

#define VK_SPARSE_MAX ((uint32_t)1 << 20) /* entries of one sparse vector */

struct vk_collection;

struct vk_collection_opts {
	struct vk_kv_writers *writers;
	uint64_t map_bytes;
	bool read_only;
	const struct vk_ann_pace *pace; /* index/ann.h: of its indexes' worker; NULL: the usual */
};
/* Creates (config text given) or opens (NULL) the environment in dir. */
enum vk_status vk_collection_open(const char *dir, struct vk_bytes config, const struct vk_collection_opts *o,
				  struct vk_collection **out, struct vk_error *err);
struct vk_collection *vk_collection_ref(struct vk_collection *c);
void vk_collection_unref(struct vk_collection *c); /* the last one closes: never from a writer's callback */
struct vk_kv *vk_collection_kv(struct vk_collection *c);
struct vk_ann *vk_collection_ann(struct vk_collection *c); /* index/ann.h; lives as long as c */
/* The config of now, a reference. */
struct vk_colconf *vk_collection_config(struct vk_collection *c);

enum vk_op_kind {
	VK_OP_UPSERT,
	VK_OP_DELETE,
	VK_OP_PAYLOAD_SET, VK_OP_PAYLOAD_OVERWRITE, VK_OP_PAYLOAD_DELETE, VK_OP_PAYLOAD_CLEAR,
	VK_OP_VECTORS_UPDATE, VK_OP_VECTORS_DELETE
};
enum vk_update_mode { VK_UPDATE_UPSERT, VK_UPDATE_INSERT_ONLY, VK_UPDATE_UPDATE_ONLY };

struct vk_vec { /* one named vector of a point */
	const struct vk_vector_conf *conf; /* of the config that the write was decoded with */
	const float *row;      /* conf->set.dims floats; sparse: n values */
	const uint32_t *index; /* sparse: n indices, ascending, none twice */
	uint32_t n;            /* sparse: at most VK_SPARSE_MAX */
	/* Dense: what row was embedded from, p == NULL when it came as numbers. Kept beside the point unless its payload holds it. */
	struct vk_bytes text;
};
struct vk_point_in {
	struct vk_bytes id;      /* key */
	struct vk_vec *vec;
	size_t vec_n;
	struct vk_bytes payload; /* JSON object text; n == 0: none */
	const vk_jv *payload_jv; /* the same, parsed (NULL when none) */
};
struct vk_op_in {
	enum vk_op_kind kind;
	/* UPSERT, VECTORS_UPDATE */
	struct vk_point_in *point;
	size_t point_n;
	enum vk_update_mode mode;
	/* UPSERT, VECTORS_UPDATE: a point that is there is only changed when it matches (update_filter). The others: which
	 * points, when ids is NULL. */
	const struct vk_filter *filter;
	bool by_filter;
	struct vk_bytes *ids;
	size_t ids_n;
	/* PAYLOAD_*: */
	const vk_jv *payload;
	const struct vk_path *at;   /* SET: NULL the top */
	const struct vk_path *keys; /* DELETE */
	size_t keys_n;
	/* VECTORS_DELETE */
	const struct vk_vector_conf **drop;
	size_t drop_n;
	/* out */
	uint64_t touched, added;
};
struct vk_write {
	struct vk_op_in *op;
	size_t op_n;
	struct vk_colconf *conf; /* that it was decoded with; another one by the time of the commit is checked anew by name */
	int64_t now_ms;
	/* out, valid in done: */
	enum vk_status st;
	struct vk_error err;
	uint64_t sequence;       /* of the last change; Qdrant's operation_id */
	void (*done)(struct vk_write *w); /* once, on a writer's thread or before submit returns */
	void *arg;
	struct vk_kv_job job;    /* the collection's */
	struct vk_collection *c;
};
/* Queues; everything in w lives until done. */
void vk_collection_write(struct vk_collection *c, struct vk_write *w);
/* The same, waiting; w->done is not used. */
enum vk_status vk_collection_write_wait(struct vk_collection *c, struct vk_write *w);

/* Changes the config in the writer: edit() gets the config of that moment and appends the new JSON text, or refuses. A set that is
 * no longer named is dropped and an index that is no longer named deleted in the background; a new index (state "building") is
 * built in the background and turns "ready". Waits for the commit, and with wait_built for the indexes. */
enum vk_status vk_collection_configure(struct vk_collection *c,
				       enum vk_status (*edit)(void *arg, const struct vk_colconf *now, struct vk_buf *json, struct vk_error *err),
				       void *arg, bool wait_built, struct vk_error *err);

/* Seals everything in the tail, waits: for tests, bench and snapshots. Sealing as such goes on by itself. */
enum vk_status vk_collection_seal(struct vk_collection *c);
/* Deletes points past their time to live; how many. The server calls it each few seconds. */
enum vk_status vk_collection_sweep(struct vk_collection *c, int64_t now_ms, uint64_t *swept);

/* Cursors: whoever follows the change sequence (jobs, generations, mirrors) registers, so that tombstones and freed slots wait
 * for it. expires_ms: wall clock, after which it counts no more. sequence UINT64_MAX removes it. */
enum vk_status vk_collection_cursor(struct vk_collection *c, const char *name, uint64_t sequence, int64_t expires_ms);
struct vk_change {
	uint64_t sequence;
	uint32_t slot;
	uint8_t op;       /* 1 written, 2 deleted */
	uint64_t mask;    /* bit 0 payload, bit 1 + i: the vector set that is i-th in the config, sparse ones behind the dense */
	struct vk_bytes id;
};
/* Changes after `after`, ascending; fn returns false to stop. */
enum vk_status vk_view_changes(struct vk_view *v, uint64_t after, bool (*fn)(void *arg, const struct vk_change *ch), void *arg);

/* Checks every invariant across the tables in one view: ids and slots, heads and changes, free slots, payloads, rows, sparse
 * vectors, texts, live and set bitmaps; and payload indexes against the payloads, by building them anew in the directory scratch (made, and left to
 * the caller to delete; NULL leaves them out). VK_E_CORRUPT: err says what is wrong first. */
enum vk_status vk_collection_check(struct vk_collection *c, const char *scratch, struct vk_error *err);

struct vk_collection_stats {
	uint64_t points, sequence, next_slot, tail_rows, rows;
	uint64_t texts; /* kept beside points; those of a vector that is being dropped count until they are gone */
	bool sealing, building; /* background work under way: status yellow */
	struct vk_kv_stats kv;
};
enum vk_status vk_collection_stats(struct vk_collection *c, struct vk_collection_stats *out);

#endif
