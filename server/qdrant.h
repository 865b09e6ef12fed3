/*
 * What all routes of the Qdrant face share: the envelope, errors in Qdrant's words, a request's state on its way
 * decode -> (embed texts) -> pool -> reply, and decoding of ids, vectors, selectors.
 *
 * A flow's life: vk_qd_new() parses the body and finds the collection; the flow decodes into its own struct, hanging every text that stands in
 * place of a vector on the request (vk_qd_text); vk_qd_go() parks, embeds the texts (server/texts.h) when there are any, then runs `work` on
 * the compute pool (or, for writes, `work` submits and the writer's done replies). Whoever ends it calls exactly one of
 * vk_qd_reply() and vk_qd_fail().
 *
 * Envelope: {"result": ..., "status": "ok", "time": seconds}; errors {"status": {"error": "..."}, "time": s}. Qdrant's words:
 * 404 "Not found: Collection `x` doesn't exist!", 400 "Wrong input: ...", 422 "Validation error in JSON body: [field: ...]", 400 "Format error in
 * JSON body: ..." for a body that does not parse into the schema, 409 "Wrong input: Collection `x` already exists!".
 */
#ifndef VK_SERVER_QDRANT_H
#define VK_SERVER_QDRANT_H

#include "index/collections.h"
#include "index/query.h"
#include "server/app.h"

#define VK_QD_TEXTS_MAX 8192 /* of one request */

struct vk_qd_text { /* a text where a vector could stand: a Document, Qdrant's or ours */
	struct vk_bytes text, model; /* model p == NULL: the space that the vector is bound to */
	const vk_jv *options;        /* NULL, or an object: {"dimensions": n} alone is taken */
	struct vk_colconf *conf;     /* the config that `vector` is of (another collection's with lookup_from) */
	const struct vk_vector_conf *vector;
	float *row;                  /* dims floats in the request's arena, filled by embedding */
	bool write;                  /* role document; else query */
	struct vk_qd_text *next;
};

struct vk_qd {
	struct vk_app *app;
	struct vk_req *req;
	struct vk_json *doc;         /* the body; NULL: none */
	const vk_jv *body;           /* NULL: none */
	struct vk_json *made[2];     /* documents that a flow made and parsed itself; freed with doc */
	struct vk_collection *c;     /* a reference, or NULL for routes without a collection */
	struct vk_bytes name;        /* as the URL has it */
	struct vk_colconf *conf;     /* a reference */
	bool chore;                  /* its work waits for others: see vk_qd_chore() */
	uint32_t plain;              /* decode's: 1 + the vector set of a plain search, see server/qdrant_light.c; 0: something else */
	bool wait;                   /* ?wait=true; ours are durable either way, so only the reply's word differs */
	uint64_t timeout_ms;         /* ?timeout=; 0: none */
	struct vk_qd_text *texts, **texts_tail;
	size_t texts_n;
	void (*work)(struct vk_qd *q); /* on the pool, or here when it is light: no lock held, may take long */
	void *flow;                  /* the flow's own */
	void (*flow_free)(void *flow); /* NULL, or what frees it when the request ends, however it does */
	atomic_bool stop;            /* the client left, or the deadline passed: long work looks at it */
	uint64_t tokens;             /* logical tokens of the texts, for usage */
	uint64_t billed_tokens, text_hits; /* of them bought now; texts that were cached */
	struct vk_text_run *run;      /* server/texts.c's */
	struct vk_qd_bind *binds;    /* what a write will bind or mark, see vk_qd_settle(); server/spaces.c's */
	atomic_int stage;            /* server/qdrant.c's: who may end it */
	atomic_int gone;             /* 0, or 1 + enum vk_gone: why `stop` was set */
	enum vk_status (*decode)(struct vk_qd *q, struct vk_error *err); /* vk_qd_serve()'s */
	float *scratch;              /* a row on its way out */
	size_t scratch_n;
	struct vk_parted *parted;    /* not NULL: the collection is let go of by another thread, see vk_qd_part() */
};

/* In the request's arena. NULL: the error reply is filled. with_collection: {collection_name} of the route is opened.
 * A body is parsed when there is one; body_required: none is a 400. */
struct vk_qd *vk_qd_new(struct vk_app *app, struct vk_req *req, bool with_collection, bool body_required);
/* The whole life of a route with a body: vk_qd_new(), decode (which fills q->flow), vk_qd_go(). A small body is parsed and decoded on this
 * thread, a large one on the pool, so that no HTTP thread is held; a plain search that is quick lately (server/qdrant_light.c) is
 * worked here, too, everything else on the pool. Call it last in the handler. */
void vk_qd_serve(struct vk_app *app, struct vk_req *req, bool with_collection, bool body_required,
		 enum vk_status (*decode)(struct vk_qd *q, struct vk_error *err), void (*work)(struct vk_qd *q));
/* Parks, embeds, runs work. Call it last in the handler. */
void vk_qd_go(struct vk_qd *q, void (*work)(struct vk_qd *q));
/* The same on app->chores: for work that waits (commits of configs, indexes being built, snapshots), so that no compute thread does. */
void vk_qd_chore(struct vk_qd *q, void (*work)(struct vk_qd *q));
/* Runs on this thread: for routes that take microseconds. work must end it before it returns. */
void vk_qd_run(struct vk_qd *q, void (*work)(struct vk_qd *q));

/* The reply: begin gives a writer that stands behind "result":; the flow writes one value; then vk_qd_reply. */
void vk_qd_begin(struct vk_qd *q, struct vk_jw *w);
void vk_qd_reply(struct vk_qd *q, struct vk_jw *w);
/* The flow has filled the reply itself, without the envelope. */
void vk_qd_end(struct vk_qd *q);
void vk_qd_reply_bool(struct vk_qd *q, bool result);
/* {"operation_id": n, "status": "acknowledged" | "completed"} */
void vk_qd_reply_update(struct vk_qd *q, uint64_t operation_id);
/* The status decides the HTTP status (err->http goes before); Qdrant's prefix is put before the text unless it has one. */
void vk_qd_fail(struct vk_qd *q, const struct vk_error *err);

/* Is the route's {collection_name} one, and may the key use it? For routes that take no collection (vk_qd_new() asks for the others). */
enum vk_status vk_qd_name(struct vk_qd *q, struct vk_error *err);
/* May this request's key use that collection? VK_E_FORBIDDEN in Qdrant's words. vk_qd_new() asks for the route's own. */
enum vk_status vk_qd_access(const struct vk_req *req, struct vk_bytes name, struct vk_error *err);

/* From a writer's thread no collection may be closed: with a node (malloc'd before the write) the reply leaves its reference
 * in app->parted, and the pool, or the next tick, lets go of it. */
struct vk_parted {
	struct vk_parted *next;
	struct vk_collection *c;
};
void vk_qd_part(struct vk_app *app); /* lets go of all that are waiting; not on a writer's thread */

/* {"result": ..., "status": "ok"} with another HTTP status, e.g. 202 with "accepted" and no result. */
void vk_qd_reply_accepted(struct vk_qd *q);

/* Settles, writes the operations in one commit, replies with done(): false from done means that it has made the reply itself. Call it
 * from work, on the pool. ops in the request's arena. done may run on a writer's thread: it only writes the reply. */
void vk_qd_write(struct vk_qd *q, struct vk_op_in *ops, size_t n, void (*done)(struct vk_qd *q, const struct vk_write *w));

/* Answers in a view of the collection: fn writes the reply after vk_qd_begin() and gives its status; then the request ends. Its time is
 * the request's, and VK_VIEW_MS_MAX at most; what fn is not allowed is in server/qdrant_read.c. */
typedef enum vk_status vk_qd_read_fn(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err);
void vk_qd_read(struct vk_qd *q, vk_qd_read_fn *fn);
/* The same without the envelope's end: true, and the caller ends the request; false: it has ended with the error. */
bool vk_qd_view(struct vk_qd *q, vk_qd_read_fn *fn, struct vk_jw *w);
/* vk_collections_get(), and a collection that cannot be opened is told by its name, not by our paths (those are logged). */
enum vk_status vk_qd_collection(struct vk_qd *q, struct vk_bytes name, struct vk_collection **out, struct vk_error *err);
/* VK_E_IO with the words for a collection whose file cannot be read or written: 503. */
enum vk_status vk_qd_storage(struct vk_error *err, struct vk_bytes name);

/* Error texts. All return VK_E_INVALID. */
enum vk_status vk_qd_format(struct vk_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* 400 */
enum vk_status vk_qd_wrong(struct vk_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));  /* 400 "Wrong input: " */
/* 422 "Validation error in JSON body: [field: why]". */
enum vk_status vk_qd_validation(struct vk_error *err, const char *field, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Decoding. Errors are "Format error in JSON body: ..." (400) unless said otherwise. */
/* Refuses members of obj that the space-separated list does not name. Qdrant ignores unknown members of most bodies, so we do, too: this is for ours. */
enum vk_status vk_qd_fields(const vk_jv *obj, const char *names, struct vk_error *err);
/* "vector"/"vectors" of a point: a list of numbers, a Document, or an object of named ones; checks names and dims
 * ("Wrong input: Vector dimension error: expected dim: 4, got 3"). Texts are hung on q. */
enum vk_status vk_qd_vectors(struct vk_qd *q, const vk_jv *v, struct vk_vec **out, size_t *n, struct vk_error *err);
/* One vector for `conf`, numbers or Document: *row points at dims floats (perhaps filled later). write: role document. */
enum vk_status vk_qd_vector(struct vk_qd *q, struct vk_colconf *cc, const struct vk_vector_conf *conf, const vk_jv *v, bool write,
			    const float **row, struct vk_error *err);
/* One named vector of a point: dense (numbers, a text) or sparse ({"indices", "values"}), as the config has the name. */
enum vk_status vk_qd_vec(struct vk_qd *q, struct vk_bytes name, const vk_jv *v, struct vk_vec *out, struct vk_error *err);
/* The vector of this name in q->conf, dense or sparse, or the error that there is none. */
enum vk_status vk_qd_named(const struct vk_qd *q, struct vk_bytes name, const struct vk_vector_conf **out, struct vk_error *err);
/* Is this a sparse vector's value, and if so, a good one? 422 when it is not. */
bool vk_qd_is_sparse(const vk_jv *v);
enum vk_status vk_qd_sparse_check(const vk_jv *v, struct vk_error *err);
enum vk_status vk_qd_sparse(struct vk_qd *q, const vk_jv *v, struct vk_vec *out, struct vk_error *err);
/* The 400 for searching one. */
enum vk_status vk_qd_sparse_search(struct vk_bytes name, struct vk_error *err);
/* {"indices": [], "values": []} of a point; VK_E_NOT_FOUND, and nothing written, when it has none. */
enum vk_status vk_qd_sparse_write(struct vk_jw *w, struct vk_view *v, uint32_t slot, const struct vk_vector_conf *c);
/* "points": [ids] and/or "filter": {...} -> op. */
enum vk_status vk_qd_selector(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err);
enum vk_status vk_qd_ids(struct vk_qd *q, const vk_jv *v, struct vk_bytes **ids, size_t *n, struct vk_error *err);

/* with_payload / with_vector(s): booleans, lists, {"include"|"exclude"}. dflt: what absence means. */
struct vk_qd_with {
	struct vk_payload_select payload;
	bool vectors;                       /* any */
	const struct vk_vector_conf **only; /* NULL: all */
	size_t only_n;
};
enum vk_status vk_qd_with(struct vk_qd *q, const vk_jv *with_payload, const vk_jv *with_vector, bool payload_dflt,
			  struct vk_qd_with *out, struct vk_error *err);
/* Writes the members of a record into an open object: id, payload, vector (null ones as Qdrant has them). Reads the view.
 * Any error abandons w, VK_E_CANCELLED of a view that is stopped among them: a loop over points needs no check of its own. A slot
 * without its point (VK_E_NOT_FOUND) is damage. */
enum vk_status vk_qd_write_record(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, uint32_t slot, const struct vk_qd_with *with);
/* The same with version and score before (and order_value, when found->has_order). */
enum vk_status vk_qd_write_scored(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, const struct vk_found *found, const struct vk_qd_with *with);

/* Raw rows that a request brings: recognised by provenance, judged by the collection's mode. Fails with the 409 that names both
 * spaces. written: rows of a write; else a query's. (server/spaces.c) */
enum vk_status vk_qd_raw(struct vk_qd *q, struct vk_colconf *cc, const struct vk_vector_conf *conf, const float *row, bool write,
			 struct vk_error *err);
/* May rows (text: made of texts) of `space` join the vector, or be compared with it (write false)? As v says; the 409 that names both
 * spaces, or the 409 for text among raw rows. Raw rows of a known space may join raw ones. (server/spaces.c) */
enum vk_status vk_qd_joins(const struct vk_vector_conf *v, const char *space, bool text, bool write, struct vk_error *err);
/* A vector's name for errors: the unnamed one is `default`. */
static inline const char *vk_qd_shown(const struct vk_vector_conf *v)
{
	return v->name[0] ? v->name : "default";
}
/* A row or text of `space` is to go into the vector, or to be compared with it: VK_OK, or the 409. (server/spaces.c) */
enum vk_status vk_qd_meets(struct vk_qd *q, const struct vk_vector_conf *v, const char *space, bool text, bool write,
			   struct vk_error *err);
/* Embeds q->texts, then calls then(q) on any thread, perhaps before this returns. When it fails, the reply is made by
 * vk_qd_fail() and then is not called. (server/texts.c) */
void vk_texts_run(struct vk_qd *q, void (*then)(struct vk_qd *q));
/* For gone(): stops waiting for providers; vk_texts_run() then fails soon with why. Any thread; harmless when nothing runs. */
void vk_texts_cancel(struct vk_qd *q, enum vk_gone why);
/* Writes only, after the texts and before vk_collection_write(): makes the config say what this request found out (a vector bound by its
 * first text or its first recognised row; a vector that now holds raw rows). Waits for a commit the first time, costs nothing after. Also
 * finds text_from in the first payloads. Never on an HTTP thread. (server/spaces.c) */
enum vk_status vk_qd_settle(struct vk_qd *q, const struct vk_op_in *ops, size_t n, struct vk_error *err);

#endif
