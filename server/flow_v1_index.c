/*
 * /v1/collections/{collection_name}/index: the indexes of a collection's vectors.
 * GET shows them; PATCH {"vector": "", "engine": ..., ...} says what one is to be, the same as PATCHing the collection with metadata
 * {"veckeep": {"index": {"": {...}}}}; POST .../rebuild and .../cancel {"vector": ""} begin a build or give one up.
 */
#include "server/flows.h"
#include "server/flows_qdrant.h"
#include "server/qdrant.h"
#include "server/qdrant_config.h"
#include "server/qdrant_index.h"

#define FIELDS "vector engine profile recall factory nprobe ef_search train_rows"
#define BODY_MAX ((size_t)64 << 10)

/* --- showing --- */

static enum vk_status answer_show(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	struct vk_qd_index *x = NULL;
	struct vk_collection_stats s;
	enum vk_status st = vk_collection_stats(q->c, &s);
	(void)err;
	if (!st) st = vk_qd_indexes(q->c, v, &q->req->arena, &x);
	if (st) return st;
	vk_flow_json(q->req, w);
	vk_jw_object(w);
	vk_jw_key(w, "collection");
	vk_jw_str(w, q->name);
	vk_jw_kv(w, "status", vk_qd_index_status(x, v->conf->vectors_n, s.sealing || s.building));
	vk_jw_ki(w, "sequence", (int64_t)s.sequence);
	vk_jw_key(w, "index");
	vk_qd_index_write(w, x, v->conf->vectors_n);
	vk_jw_object_end(w);
	return VK_OK;
}

static void show(struct vk_qd *q)
{
	struct vk_jw w;
	if (vk_qd_view(q, answer_show, &w)) vk_qd_end(q);
}

static enum vk_status nothing(struct vk_qd *q, struct vk_error *err)
{
	(void)q, (void)err;
	return VK_OK;
}

void vk_flow_v1_index(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, false, nothing, show);
}

/* --- which vector --- */

/* "vector" of the body; a collection of one vector need not say it. */
static enum vk_status find_vector(struct vk_qd *q, const struct vk_vector_conf **out, struct vk_error *err)
{
	const vk_jv *v = vk_jv_get(q->body, "vector");
	struct vk_bytes name = {0};
	bool said = vk_jv_type(v) != VK_J_NULL;
	if (said && !vk_jv_str(v, &name)) return vk_qd_format(err, "vector: expected a vector's name");
	if (!said && q->conf->vectors_n != 1) return vk_qd_format(err, "missing field `vector`: which of the collection's vectors?");
	*out = said ? vk_colconf_vector(q->conf, name) : &q->conf->vectors[0];
	return *out ? VK_OK : vk_qd_wrong(err, "Not existing vector name error: %s", name.n ? name.p : "default");
}

/* --- PATCH --- */

/* The same wish in the words of the collection's PATCH: one writer of configs. */
static void write_wish(struct vk_jw *w, const vk_jv *body, const char *name)
{
	static const char *const around[] = {"metadata", "veckeep", "index"};
	vk_jw_object(w);
	for (size_t i = 0; i < 3; i++) {
		vk_jw_key(w, around[i]);
		vk_jw_object(w);
	}
	vk_jw_key(w, name);
	vk_jw_object(w);
	for (const vk_jv *m = vk_jv_first(body); m; m = vk_jv_next(m))
		if (!vk_bytes_is(vk_jv_key(m), "vector")) vk_jw_member(w, m);
	vk_jw_object_end(w);
	for (size_t i = 0; i < 4; i++) vk_jw_object_end(w);
}

static enum vk_status decode_update(struct vk_qd *q, struct vk_error *err)
{
	const struct vk_vector_conf *v;
	struct vk_buf b;
	struct vk_jw w;
	enum vk_status st = vk_qd_fields(q->body, FIELDS, err);
	if (!st) st = find_vector(q, &v, err);
	if (st) return st;
	vk_buf_init(&b, BODY_MAX);
	vk_jw_init(&w, &b);
	write_wish(&w, q->body, v->name);
	char *text = b.failed ? NULL : vk_arena_strndup(&q->req->arena, b.p, b.n);
	size_t n = b.n;
	vk_buf_free(&b);
	if (!text) return vk_qd_wrong(err, "the body is too long");
	return vk_json_parse(&q->req->arena, (struct vk_bytes){text, n}, NULL, &q->made[0], err);
}

static void update(struct vk_qd *q)
{
	struct vk_error err = {0};
	struct vk_qd_edit edit = {.app = q->app, .registry = vk_app_registry(q->app), .kind = VK_QD_UPDATE,
				  .body = vk_json_root(q->made[0])};
	enum vk_status st = vk_qd_config_check(&edit, &err);
	if (!st) st = vk_collection_configure(q->c, vk_qd_config_edit, &edit, false, &err);
	vk_registry_unref(edit.registry);
	if (st) vk_qd_fail(q, &err);
	else show(q);
}

void vk_flow_v1_index_update(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_update, update);
}

/* --- rebuild, cancel --- */

static enum vk_status decode_vector(struct vk_qd *q, struct vk_error *err)
{
	const struct vk_vector_conf *v;
	enum vk_status st = vk_qd_fields(q->body, "vector", err);
	if (!st) st = find_vector(q, &v, err);
	if (st) return st;
	q->flow = (void *)(uintptr_t)v; /* of q->conf, a reference */
	return VK_OK;
}

static void end(struct vk_qd *q, enum vk_status st, const char *what)
{
	const struct vk_vector_conf *v = q->flow;
	struct vk_error err = {0};
	if (!st) {
		show(q);
		return;
	}
	vk_fail(&err, st == VK_E_NOT_FOUND ? VK_E_CONFLICT : st, "Conflict: vector `%s` %s", vk_qd_shown(v), what);
	vk_qd_fail(q, &err);
}

static void rebuild(struct vk_qd *q)
{
	const struct vk_vector_conf *v = q->flow;
	struct vk_ann_plan plan;
	vk_ann_plan_of(q->conf, v, &plan);
	end(q, plan.engine == VK_ANN_NONE ? VK_E_CONFLICT : vk_ann_rebuild(vk_collection_ann(q->c), v->set.id),
	    "has no index to build: its engine is `none`, or hnsw_config and optimizers_config ask for none");
}

static void cancel(struct vk_qd *q)
{
	const struct vk_vector_conf *v = q->flow;
	end(q, vk_ann_cancel(vk_collection_ann(q->c), v->set.id), "has no build that could be given up");
}

void vk_flow_v1_index_rebuild(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, false, decode_vector, rebuild);
}

void vk_flow_v1_index_cancel(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, false, decode_vector, cancel);
}
