/*
 * Collections themselves: list, create, show, change, drop; their named vectors and payload indexes. What commits runs on
 * app->chores: it waits for the disk, with ?wait=true on an index for its being built.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "server/flows_qdrant.h"
#include "server/qdrant.h"
#include "server/qdrant_config.h"
#include "server/qdrant_index.h"

#define CONFIG_BYTES_MAX ((size_t)16 << 20)

static void end(struct vk_qd *q, enum vk_status st, const struct vk_error *err)
{
	if (st) vk_qd_fail(q, err);
	else vk_qd_reply_bool(q, true);
}

/* --- the list --- */

struct list {
	struct vk_qd *q;
	struct vk_jw *w;
};

static bool put_name(void *arg, struct vk_bytes name)
{
	struct list *l = arg;
	if (vk_qd_access(l->q->req, name, NULL)) return true; /* not this key's */
	vk_jw_object(l->w);
	vk_jw_key(l->w, "name");
	vk_jw_str(l->w, name);
	vk_jw_object_end(l->w);
	return true;
}

static void list(struct vk_qd *q)
{
	struct vk_jw w;
	struct vk_error err = {0};
	struct list l = {q, &w};
	vk_qd_begin(q, &w);
	vk_jw_object(&w);
	vk_jw_key(&w, "collections");
	vk_jw_array(&w);
	enum vk_status st = vk_collections_each(q->app->collections, put_name, &l);
	vk_jw_array_end(&w);
	vk_jw_object_end(&w);
	if (st) {
		vk_fail(&err, st, "the list of collections cannot be read");
		vk_qd_fail(q, &err);
		return;
	}
	vk_qd_reply(q, &w);
}

void vk_flow_collections(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, false, false);
	if (q) vk_qd_run(q, list);
}

/* --- one --- */

static enum vk_status put_index(struct vk_jw *w, struct vk_view *v, const struct vk_field_conf *f)
{
	uint64_t points = 0;
	enum vk_status st = f->ready ? vk_field_points(v->t, f, &points) : VK_OK;
	vk_jw_key(w, f->path);
	vk_jw_object(w);
	vk_jw_kv(w, "data_type", vk_field_type_names[f->type]);
	const vk_jv *params = vk_jv_get(f->json, "params");
	if (vk_jv_type(params) == VK_J_OBJECT) {
		vk_jw_key(w, "params");
		vk_jw_value(w, params);
	}
	vk_jw_key(w, "points");
	vk_jw_u64(w, points);
	vk_jw_object_end(w);
	return st;
}

/* Rows that an index stands for; where none is wanted, those at their final place with their codes: what scans read at full speed. A
 * threshold of 0 asks for no index. */
static uint64_t indexed_of(const struct vk_colconf *conf, const struct vk_qd_index *x)
{
	uint64_t threshold = 1, sum = 0;
	vk_jv_u64(vk_jv_get(vk_jv_get(conf->root, "optimizer_config"), "indexing_threshold"), &threshold);
	for (size_t i = 0; threshold && i < conf->vectors_n; i++) sum += x[i].indexed;
	return sum;
}

static enum vk_status put_info(struct vk_jw *w, struct vk_view *v, const struct vk_collection_stats *s, const struct vk_qd_index *x)
{
	enum vk_status st = VK_OK;
	vk_jw_object(w);
	vk_jw_kv(w, "status", vk_qd_index_status(x, v->conf->vectors_n, s->sealing || s->building));
	vk_qd_index_optimizer(w, x, v->conf->vectors_n);
	vk_qd_config_warn(v->conf, w);
	vk_jw_key(w, "indexed_vectors_count");
	vk_jw_u64(w, indexed_of(v->conf, x));
	vk_jw_key(w, "points_count");
	vk_jw_u64(w, s->points);
	vk_jw_ki(w, "segments_count", 1);
	vk_jw_key(w, "config");
	vk_qd_config_show(v->conf, w);
	vk_jw_key(w, "payload_schema");
	vk_jw_object(w);
	for (size_t i = 0; i < v->conf->fields_n && !st; i++) st = put_index(w, v, &v->conf->fields[i]);
	vk_jw_object_end(w);
	vk_jw_key(w, "veckeep");
	vk_jw_object(w);
	vk_jw_key(w, "index");
	vk_qd_index_write(w, x, v->conf->vectors_n);
	vk_jw_object_end(w);
	vk_jw_object_end(w);
	return st;
}

static enum vk_status answer_info(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	struct vk_collection_stats stats;
	struct vk_qd_index *x = NULL;
	enum vk_status st = vk_collection_stats(q->c, &stats);
	(void)err;
	if (!st) st = vk_qd_indexes(q->c, v, &q->req->arena, &x);
	if (st) return st;
	vk_qd_begin(q, w);
	return put_info(w, v, &stats, x);
}

static void show(struct vk_qd *q)
{
	vk_qd_read(q, answer_info);
}

void vk_flow_collection(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, false);
	if (q) vk_qd_go(q, show);
}

static void exists(struct vk_qd *q)
{
	struct vk_collection *c = NULL;
	struct vk_error err = {0};
	struct vk_jw w;
	enum vk_status st = vk_collections_get(q->app->collections, q->name, &c, &err);
	if (c) vk_collection_unref(c);
	if (st && st != VK_E_NOT_FOUND) {
		vk_qd_fail(q, &err);
		return;
	}
	vk_qd_begin(q, &w);
	vk_jw_object(&w);
	vk_jw_kb(&w, "exists", !st);
	vk_jw_object_end(&w);
	vk_qd_reply(q, &w);
}

/* A request about a name that need not be a collection yet. NULL: replied. */
static struct vk_qd *new_by_name(void *app, struct vk_req *req, bool body_required)
{
	struct vk_error err = {0};
	struct vk_qd *q = vk_qd_new(app, req, false, body_required);
	if (!q || !vk_qd_name(q, &err)) return q;
	vk_qd_fail(q, &err);
	return NULL;
}

void vk_flow_collection_exists(void *app, struct vk_req *req)
{
	struct vk_qd *q = new_by_name(app, req, false);
	if (q) vk_qd_go(q, exists);
}

/* --- create and drop --- */

static void create(struct vk_qd *q)
{
	struct vk_error err = {0};
	struct vk_buf json;
	vk_buf_init(&json, CONFIG_BYTES_MAX);
	enum vk_status st = vk_qd_config_create(q->app, q->body, &json, &err);
	if (!st) st = vk_collections_create(q->app->collections, q->name, vk_buf_bytes(&json), vk_wall_ms(), &err);
	/* Qdrant's words for this one are a 400. */
	if (st == VK_E_EXISTS && strstr(err.text, "Alias with the same name")) err.http = 400;
	vk_buf_free(&json);
	end(q, st, &err);
}

void vk_flow_collection_create(void *app, struct vk_req *req)
{
	struct vk_qd *q = new_by_name(app, req, true);
	if (q) vk_qd_chore(q, create);
}

static void drop(struct vk_qd *q)
{
	struct vk_error err = {0};
	enum vk_status st = vk_collections_drop(q->app->collections, q->name, &err);
	if (st == VK_E_NOT_FOUND) vk_qd_reply_bool(q, false);
	else end(q, st, &err);
}

void vk_flow_collection_drop(void *app, struct vk_req *req)
{
	struct vk_qd *q = new_by_name(app, req, false);
	if (q) vk_qd_chore(q, drop);
}

/* --- edits of the config --- */

struct edit_flow {
	struct vk_qd_edit edit;
	bool update_result; /* {"operation_id", "status"} in place of true */
};

static void run_edit(struct vk_qd *q)
{
	struct edit_flow *f = q->flow;
	struct vk_collection_stats stats = {0};
	struct vk_error err = {0};
	f->edit.registry = vk_app_registry(q->app);
	enum vk_status st = vk_collection_configure(q->c, vk_qd_config_edit, &f->edit, q->wait, &err);
	vk_registry_unref(f->edit.registry);
	if (st || !f->update_result) {
		end(q, st, &err);
		return;
	}
	(void)vk_collection_stats(q->c, &stats);
	vk_qd_reply_update(q, stats.sequence);
}

static void start_edit(struct vk_qd *q, enum vk_qd_edit_kind kind, const vk_jv *body, struct vk_bytes name, bool update_result)
{
	struct vk_error err = {0};
	struct edit_flow *f = vk_arena_calloc(&q->req->arena, 1, sizeof *f);
	/* Names become keys of JSON: NUL-terminated. */
	char *copy = vk_arena_strndup(&q->req->arena, name.p ? name.p : "", name.n);
	enum vk_status st = f && copy ? VK_OK : vk_fail(&err, VK_E_NOMEM, "out of memory; try again shortly");
	if (!st) {
		f->edit = (struct vk_qd_edit){.app = q->app, .kind = kind, .body = body, .name = {copy, name.n}};
		f->update_result = update_result;
		q->flow = f;
		st = vk_qd_config_check(&f->edit, &err);
	}
	if (st) vk_qd_fail(q, &err);
	else vk_qd_chore(q, run_edit);
}

void vk_flow_collection_update(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, true);
	if (q) start_edit(q, VK_QD_UPDATE, q->body, (struct vk_bytes){0}, false);
}

void vk_flow_vector_add(void *app, struct vk_req *req)
{
	struct vk_error err = {0};
	struct vk_qd *q = vk_qd_new(app, req, true, true);
	if (!q) return;
	const vk_jv *dense = vk_jv_get(q->body, "dense"), *sparse = vk_jv_get(q->body, "sparse");
	bool is_dense = vk_jv_type(dense) == VK_J_OBJECT;
	if (is_dense || vk_jv_type(sparse) == VK_J_OBJECT) {
		start_edit(q, is_dense ? VK_QD_VECTOR_ADD : VK_QD_SPARSE_ADD, is_dense ? dense : sparse, vk_req_param(req, "vector_name"), true);
		return;
	}
	vk_qd_format(&err, "data did not match any variant of untagged enum VectorNameConfig: expected `dense` or `sparse`");
	vk_qd_fail(q, &err);
}

void vk_flow_vector_drop(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, false);
	if (q) start_edit(q, VK_QD_VECTOR_DROP, NULL, vk_req_param(req, "vector_name"), true);
}

void vk_flow_index_add(void *app, struct vk_req *req)
{
	struct vk_error err = {0};
	struct vk_bytes name;
	struct vk_qd *q = vk_qd_new(app, req, true, true);
	if (!q) return;
	const vk_jv *schema = vk_jv_get(q->body, "field_schema");
	if (vk_jv_type(schema) == VK_J_NULL) schema = vk_jv_get(q->body, "field_type"); /* its older name */
	enum vk_status st = VK_OK;
	if (!vk_jv_str(vk_jv_get(q->body, "field_name"), &name)) st = vk_qd_format(&err, "missing field `field_name`");
	else if (vk_jv_type(schema) == VK_J_NULL)
		st = vk_fail(&err, VK_E_INVALID, "Bad request: Can't auto-detect field type, please specify `field_schema` in the request");
	if (st) vk_qd_fail(q, &err);
	else start_edit(q, VK_QD_INDEX_ADD, schema, name, true);
}

void vk_flow_index_drop(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, false);
	if (q) start_edit(q, VK_QD_INDEX_DROP, NULL, vk_req_param(req, "field_name"), true);
}
