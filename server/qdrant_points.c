/*
 * Writing points. Each route, and each operation of /points/batch, is one row of a table: the member's name in a batch and the
 * function that reads its body into a struct vk_op_in. All of a request is one commit, so a batch is all or nothing
 * (Qdrant applies its operations one after the other; a reader there may see half).
 */
#include <stdio.h>

#include "server/flows_qdrant.h"
#include "server/qdrant.h"

#define OPERATIONS_MAX 10000 /* of one batch */

typedef enum vk_status read_fn(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err);

struct points_flow {
	struct vk_op_in *op;
	size_t n;
	bool batch;
};

static bool absent(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_NULL;
}

static bool is_list(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_ARRAY || vk_jv_type(v) == VK_J_NUMBERS;
}

static enum vk_status no_memory(struct vk_error *err)
{
	return vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
}

static enum vk_status no_shard_key(const vk_jv *body, struct vk_error *err)
{
	if (absent(vk_jv_get(body, "shard_key"))) return VK_OK;
	return vk_qd_wrong(err, "shard_key: this server is one node without shard keys");
}

/* --- points --- */

static enum vk_status read_payload(const vk_jv *v, struct vk_point_in *p, struct vk_error *err)
{
	if (absent(v)) return VK_OK;
	if (!vk_jv_span(v, &p->payload)) return vk_qd_format(err, "a payload must be an object");
	p->payload_jv = v;
	return VK_OK;
}

static enum vk_status read_filter(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	struct vk_filter *f = NULL;
	enum vk_status st = vk_filter_parse(&q->req->arena, vk_jv_get(body, "update_filter"), &f, err);
	op->filter = f;
	return st;
}

static enum vk_status read_mode(const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	static const char *const modes[] = {[VK_UPDATE_UPSERT] = "upsert", [VK_UPDATE_INSERT_ONLY] = "insert_only",
					    [VK_UPDATE_UPDATE_ONLY] = "update_only"};
	const vk_jv *v = vk_jv_get(body, "update_mode");
	struct vk_bytes s = {0};
	op->mode = VK_UPDATE_UPSERT;
	if (absent(v)) return VK_OK;
	vk_jv_str(v, &s);
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
		if (vk_bytes_is(s, modes[i])) {
			op->mode = (enum vk_update_mode)i;
			return VK_OK;
		}
	return vk_qd_format(err, "update_mode: expected one of `upsert`, `insert_only`, `update_only`");
}

static enum vk_status alloc_points(struct vk_qd *q, size_t n, struct vk_op_in *op, struct vk_error *err)
{
	op->point = vk_arena_calloc(&q->req->arena, n + 1, sizeof *op->point);
	op->point_n = n;
	return op->point ? VK_OK : no_memory(err);
}

static enum vk_status read_id(struct vk_qd *q, const vk_jv *v, struct vk_bytes *id, struct vk_error *err)
{
	if (!v) return vk_qd_format(err, "a point: missing field `id`");
	enum vk_status st = vk_id_read(&q->req->arena, v, id, err);
	if (st != VK_E_INVALID || strncmp(err->text, "Format error", 12) == 0) return st;
	char text[VK_ERROR_TEXT_MAX];
	memcpy(text, err->text, sizeof text);
	return vk_qd_format(err, "%s", text);
}

static enum vk_status read_point(struct vk_qd *q, const vk_jv *v, struct vk_point_in *p, bool payload, struct vk_error *err)
{
	if (vk_jv_type(v) != VK_J_OBJECT) return vk_qd_format(err, "a point must be an object");
	const vk_jv *vector = vk_jv_get(v, "vector");
	enum vk_status st = read_id(q, vk_jv_get(v, "id"), &p->id, err);
	if (!st && absent(vector)) st = vk_qd_format(err, "a point: missing field `vector`");
	if (!st) st = vk_qd_vectors(q, vector, &p->vec, &p->vec_n, err);
	if (!st && payload) st = read_payload(vk_jv_get(v, "payload"), p, err);
	return st;
}

/* What is wrong in a point's `vector` is said with the point's place, as Qdrant says it. */
static void name_point(struct vk_error *err, size_t i)
{
	static const char head[] = "Validation error in JSON body: [";
	char rest[VK_ERROR_TEXT_MAX];
	if (err->http != 422 || strncmp(err->text, head, sizeof head - 1) != 0) return;
	if (strncmp(err->text + sizeof head - 1, "vector.", 7) != 0) return;
	snprintf(rest, sizeof rest, "%s", err->text + sizeof head - 1);
	snprintf(err->text, sizeof err->text, "%spoints[%zu].%.*s", head, i, (int)(sizeof rest - sizeof head - 32), rest);
}

static enum vk_status read_points(struct vk_qd *q, const vk_jv *list, struct vk_op_in *op, bool payload, struct vk_error *err)
{
	if (vk_jv_type(list) != VK_J_ARRAY) return vk_qd_format(err, "points: expected a list of points");
	enum vk_status st = alloc_points(q, vk_jv_len(list), op, err);
	struct vk_point_in *p = op->point;
	for (const vk_jv *v = vk_jv_first(list); v && !st; v = vk_jv_next(v)) {
		st = read_point(q, v, p++, payload, err);
		if (st) name_point(err, (size_t)(p - op->point) - 1);
		if (!st && !payload && !vk_jv_len(vk_jv_get(v, "vector"))) {
			char where[48];
			snprintf(where, sizeof where, "points[%zu].vector", (size_t)(p - op->point) - 1);
			st = vk_qd_validation(err, where, "must specify vectors to update for point");
		}
	}
	return st;
}

/* --- columns: {"ids": [], "vectors": [] or {"name": []}, "payloads": []} --- */

static enum vk_status read_named_columns(struct vk_qd *q, const vk_jv *vectors, struct vk_op_in *op, struct vk_error *err)
{
	size_t names = vk_jv_len(vectors);
	struct vk_vec *all = vk_arena_calloc(&q->req->arena, op->point_n * names + 1, sizeof *all);
	if (!all) return no_memory(err);
	for (size_t i = 0; i < op->point_n; i++) op->point[i].vec = all + i * names;
	for (const vk_jv *c = vk_jv_first(vectors); c; c = vk_jv_next(c)) {
		struct vk_point_in *p = op->point;
		if (!is_list(c) || (vk_jv_type(c) == VK_J_NUMBERS)) return vk_qd_format(err, "batch.vectors: expected lists of vectors");
		if (vk_jv_len(c) != op->point_n)
			return vk_qd_validation(err, "batch", "number of ids and vectors must be equal (%zu != %zu)", op->point_n, vk_jv_len(c));
		for (const vk_jv *v = vk_jv_first(c); v; v = vk_jv_next(v), p++) {
			enum vk_status st = vk_qd_vec(q, vk_jv_key(c), v, &p->vec[p->vec_n++], err);
			if (st) return st;
		}
	}
	return VK_OK;
}

static enum vk_status read_columns(struct vk_qd *q, const vk_jv *b, struct vk_op_in *op, struct vk_error *err)
{
	const vk_jv *vectors = vk_jv_get(b, "vectors"), *payloads = vk_jv_get(b, "payloads");
	struct vk_bytes *ids;
	size_t n;
	if (vk_jv_type(b) != VK_J_OBJECT) return vk_qd_format(err, "batch: expected an object");
	enum vk_status st = vk_qd_ids(q, vk_jv_get(b, "ids"), &ids, &n, err);
	if (!st) st = alloc_points(q, n, op, err);
	if (st) return st;
	for (size_t i = 0; i < n; i++) op->point[i].id = ids[i];
	struct vk_point_in *p = op->point;
	if (vk_jv_type(vectors) == VK_J_ARRAY) {
		if (vk_jv_len(vectors) != n)
			return vk_qd_validation(err, "batch", "number of ids and vectors must be equal (%zu != %zu)", n, vk_jv_len(vectors));
		for (const vk_jv *v = vk_jv_first(vectors); v && !st; v = vk_jv_next(v), p++) st = vk_qd_vectors(q, v, &p->vec, &p->vec_n, err);
	} else if (vk_jv_type(vectors) == VK_J_OBJECT) {
		st = read_named_columns(q, vectors, op, err);
	} else {
		st = vk_qd_format(err, "batch.vectors: expected a list of vectors, or an object of such lists");
	}
	if (st || absent(payloads)) return st;
	if (vk_jv_type(payloads) != VK_J_ARRAY) return vk_qd_format(err, "batch.payloads: expected a list");
	if (vk_jv_len(payloads) != n)
		return vk_qd_validation(err, "batch", "number of ids and payloads must be equal (%zu != %zu)", n, vk_jv_len(payloads));
	p = op->point;
	for (const vk_jv *v = vk_jv_first(payloads); v && !st; v = vk_jv_next(v)) st = read_payload(v, p++, err);
	return st;
}

/* --- the operations --- */

static enum vk_status read_upsert(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	const vk_jv *points = vk_jv_get(body, "points"), *batch = vk_jv_get(body, "batch");
	op->kind = VK_OP_UPSERT;
	enum vk_status st = no_shard_key(body, err);
	if (!st) st = read_mode(body, op, err);
	if (!st) st = read_filter(q, body, op, err);
	if (st) return st;
	if (!absent(points)) return read_points(q, points, op, true, err);
	if (!absent(batch)) return read_columns(q, batch, op, err);
	return vk_qd_format(err, "data did not match any variant of untagged enum PointInsertOperations: expected `points` or `batch`");
}

static enum vk_status read_delete(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	op->kind = VK_OP_DELETE;
	enum vk_status st = no_shard_key(body, err);
	return st ? st : vk_qd_selector(q, body, op, err);
}

static enum vk_status read_update_vectors(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	const vk_jv *points = vk_jv_get(body, "points");
	op->kind = VK_OP_VECTORS_UPDATE;
	enum vk_status st = no_shard_key(body, err);
	if (!st) st = read_filter(q, body, op, err);
	if (st) return st;
	if (vk_jv_type(points) == VK_J_ARRAY && !vk_jv_len(points))
		return vk_qd_validation(err, "points", "must specify points to update");
	return read_points(q, points, op, false, err);
}

static enum vk_status read_delete_vectors(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	const vk_jv *names = vk_jv_get(body, "vector");
	struct vk_bytes name;
	op->kind = VK_OP_VECTORS_DELETE;
	enum vk_status st = no_shard_key(body, err);
	if (!st && vk_jv_type(names) != VK_J_ARRAY) st = vk_qd_format(err, "vector: expected a list of vector names");
	if (!st && !vk_jv_len(names)) st = vk_qd_validation(err, "vector", "must specify vector names to delete");
	if (!st) st = vk_qd_selector(q, body, op, err);
	if (st) return st;
	op->drop = vk_arena_calloc(&q->req->arena, vk_jv_len(names) + 1, sizeof *op->drop);
	if (!op->drop) return no_memory(err);
	for (const vk_jv *v = vk_jv_first(names); v; v = vk_jv_next(v)) {
		if (!vk_jv_str(v, &name)) return vk_qd_format(err, "vector: a vector's name is a string");
		st = vk_qd_named(q, name, &op->drop[op->drop_n++], err);
		if (st) return st;
	}
	return VK_OK;
}

static enum vk_status read_payload_patch(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	op->payload = vk_jv_get(body, "payload");
	enum vk_status st = no_shard_key(body, err);
	if (!st && vk_jv_type(op->payload) != VK_J_OBJECT) st = vk_qd_format(err, "payload: expected an object");
	return st ? st : vk_qd_selector(q, body, op, err);
}

static enum vk_status read_set_payload(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	const vk_jv *key = vk_jv_get(body, "key");
	struct vk_bytes text;
	op->kind = VK_OP_PAYLOAD_SET;
	enum vk_status st = read_payload_patch(q, body, op, err);
	if (st || absent(key)) return st;
	if (!vk_jv_str(key, &text)) return vk_qd_format(err, "key: expected a path of payload keys");
	struct vk_path *at = vk_arena_alloc(&q->req->arena, sizeof *at);
	if (!at) return no_memory(err);
	op->at = at;
	return vk_path_parse(&q->req->arena, text, at, err);
}

static enum vk_status read_overwrite_payload(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	op->kind = VK_OP_PAYLOAD_OVERWRITE;
	return read_payload_patch(q, body, op, err);
}

static enum vk_status read_delete_payload(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	const vk_jv *keys = vk_jv_get(body, "keys");
	struct vk_bytes text;
	op->kind = VK_OP_PAYLOAD_DELETE;
	enum vk_status st = no_shard_key(body, err);
	if (!st && vk_jv_type(keys) != VK_J_ARRAY) st = vk_qd_format(err, "keys: expected a list of payload keys");
	if (!st) st = vk_qd_selector(q, body, op, err);
	if (st) return st;
	struct vk_path *path = vk_arena_calloc(&q->req->arena, vk_jv_len(keys) + 1, sizeof *path);
	if (!path) return no_memory(err);
	op->keys = path;
	for (const vk_jv *v = vk_jv_first(keys); v && !st; v = vk_jv_next(v)) {
		if (!vk_jv_str(v, &text)) return vk_qd_format(err, "keys: a payload key is a string");
		st = vk_path_parse(&q->req->arena, text, &path[op->keys_n++], err);
	}
	return st;
}

static enum vk_status read_clear_payload(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	op->kind = VK_OP_PAYLOAD_CLEAR;
	enum vk_status st = no_shard_key(body, err);
	return st ? st : vk_qd_selector(q, body, op, err);
}

static const struct {
	const char *name;
	read_fn *read;
} operations[] = {{"upsert", read_upsert},
		  {"delete", read_delete},
		  {"set_payload", read_set_payload},
		  {"overwrite_payload", read_overwrite_payload},
		  {"delete_payload", read_delete_payload},
		  {"clear_payload", read_clear_payload},
		  {"update_vectors", read_update_vectors},
		  {"delete_vectors", read_delete_vectors}};

/* --- the flow --- */

static enum vk_status alloc_flow(struct vk_qd *q, size_t n, bool batch, struct vk_error *err)
{
	struct points_flow *f = vk_arena_calloc(&q->req->arena, 1, sizeof *f);
	if (f) f->op = vk_arena_calloc(&q->req->arena, n + 1, sizeof *f->op);
	if (!f || !f->op) return no_memory(err);
	f->n = n;
	f->batch = batch;
	q->flow = f;
	return VK_OK;
}

static enum vk_status decode_one(struct vk_qd *q, read_fn *read, struct vk_error *err)
{
	enum vk_status st = alloc_flow(q, 1, false, err);
	return st ? st : read(q, q->body, ((struct points_flow *)q->flow)->op, err);
}

static enum vk_status decode_operation(struct vk_qd *q, const vk_jv *v, struct vk_op_in *op, struct vk_error *err)
{
	for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
		const vk_jv *body = vk_jv_get(v, operations[i].name);
		if (vk_jv_type(body) == VK_J_OBJECT) return operations[i].read(q, body, op, err);
	}
	return vk_qd_format(err, "data did not match any variant of untagged enum UpdateOperation");
}

static enum vk_status decode_batch(struct vk_qd *q, struct vk_error *err)
{
	const vk_jv *list = vk_jv_get(q->body, "operations");
	if (vk_jv_type(list) != VK_J_ARRAY) return vk_qd_format(err, "operations: expected a list of operations");
	if (vk_jv_len(list) > OPERATIONS_MAX) return vk_qd_wrong(err, "more than %d operations in one batch", OPERATIONS_MAX);
	enum vk_status st = alloc_flow(q, vk_jv_len(list), true, err);
	struct points_flow *f = q->flow;
	size_t i = 0;
	for (const vk_jv *v = vk_jv_first(list); v && !st; v = vk_jv_next(v)) st = decode_operation(q, v, &f->op[i++], err);
	return st;
}

static void write_result(struct vk_qd *q, struct vk_jw *w, uint64_t sequence)
{
	vk_jw_object(w);
	vk_jw_key(w, "operation_id");
	vk_jw_u64(w, sequence);
	vk_jw_kv(w, "status", q->wait ? "completed" : "acknowledged");
	vk_jw_object_end(w);
}

static void reply_batch(struct vk_qd *q, size_t n, uint64_t sequence)
{
	struct vk_jw w;
	vk_qd_begin(q, &w);
	vk_jw_array(&w);
	for (size_t i = 0; i < n; i++) write_result(q, &w, sequence);
	vk_jw_array_end(&w);
	vk_qd_reply(q, &w);
}

static void done(struct vk_qd *q, const struct vk_write *w)
{
	const struct points_flow *f = q->flow;
	if (f->batch) reply_batch(q, f->n, w->sequence);
	else vk_qd_reply_update(q, w->sequence);
}

static void work(struct vk_qd *q)
{
	struct points_flow *f = q->flow;
	if (f->n) vk_qd_write(q, f->op, f->n, done);
	else reply_batch(q, 0, 0);
}

#define FLOW(route, read)                                                                  \
	static enum vk_status decode_##route(struct vk_qd *q, struct vk_error *err)          \
	{                                                                                  \
		return decode_one(q, read, err);                                           \
	}                                                                                  \
	void vk_flow_##route(void *app, struct vk_req *req)                                \
	{                                                                                  \
		vk_qd_serve(app, req, true, true, decode_##route, work);                   \
	}

FLOW(points_upsert, read_upsert)
FLOW(points_delete, read_delete)
FLOW(vectors_update, read_update_vectors)
FLOW(vectors_delete, read_delete_vectors)
FLOW(payload_set, read_set_payload)
FLOW(payload_overwrite, read_overwrite_payload)
FLOW(payload_delete, read_delete_payload)
FLOW(payload_clear, read_clear_payload)

void vk_flow_points_batch(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_batch, work);
}
