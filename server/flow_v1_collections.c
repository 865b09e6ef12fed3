/*
 * /v1/collections/{collection_name}: what veckeep knows of a collection that Qdrant's API has no word for: which space each
 * vector is of, where its texts are, who may bring raw vectors, when points end, what lies on disk.
 * PUT .../spaces {"spaces": {"": "space id"}}: an operator's word on what a vector is of; the same as PATCHing the collection
 * with metadata {"veckeep": {"spaces": ...}}.
 */
#include "base/clock.h"
#include "server/flows.h"
#include "server/flows_qdrant.h"
#include "server/qdrant.h"
#include "server/qdrant_config.h"

static void write_vector(struct vk_jw *w, struct vk_view *v, const struct vk_vector_conf *c)
{
	struct vk_vset_stats s = {0};
	vk_vset_stats(v->t, &c->set, &s);
	vk_jw_key(w, c->name);
	vk_jw_object(w);
	vk_jw_ki(w, "set", c->set.id);
	vk_jw_ki(w, "dims", c->set.dims);
	vk_jw_kv(w, "distance", vk_metric_names[c->set.metric]);
	vk_jw_kv(w, "datatype", vk_dtype_names[c->set.dtype]);
	vk_jw_kv(w, "space", c->space);
	vk_jw_kb(w, "raw", c->raw);
	vk_jw_ki(w, "rows", (int64_t)s.rows);
	vk_jw_ki(w, "tail_rows", (int64_t)s.tail_rows);
	vk_jw_ki(w, "dead_rows", (int64_t)s.dead_rows);
	vk_jw_ki(w, "bytes", (int64_t)s.bytes);
	vk_qd_config_index(c, w, "index");
	vk_jw_object_end(w);
}

static void write_sparse(struct vk_jw *w, struct vk_view *v, const struct vk_vector_conf *c)
{
	struct vk_bitmap *has = NULL;
	uint64_t points = vk_field_has_set(v->t, c->set.id, &has) ? 0 : vk_bitmap_count(has);
	vk_bitmap_free(has);
	vk_jw_key(w, c->name);
	vk_jw_object(w);
	vk_jw_ki(w, "set", c->set.id);
	vk_jw_ki(w, "points", (int64_t)points);
	vk_jw_object_end(w);
}

static void write_collection(struct vk_qd *q, struct vk_jw *w, struct vk_view *v)
{
	const struct vk_colconf *c = v->conf;
	struct vk_collection_stats s = {0};
	vk_collection_stats(q->c, &s);
	vk_jw_object(w);
	vk_jw_key(w, "name");
	vk_jw_str(w, q->name);
	vk_jw_kv(w, "pool", c->pool);
	vk_jw_ki(w, "points", (int64_t)s.points);
	vk_jw_ki(w, "sequence", (int64_t)s.sequence);
	vk_jw_key(w, "vectors");
	vk_jw_object(w);
	for (size_t i = 0; i < c->vectors_n; i++) write_vector(w, v, &c->vectors[i]);
	vk_jw_object_end(w);
	vk_jw_key(w, "sparse_vectors");
	vk_jw_object(w);
	for (size_t i = 0; i < c->sparse_n; i++) write_sparse(w, v, &c->sparse[i]);
	vk_jw_object_end(w);
	vk_jw_ki(w, "texts", (int64_t)s.texts);
	vk_jw_kv(w, "text_from", c->text_from);
	vk_jw_kv(w, "provenance", vk_provenance_names[c->provenance]);
	vk_jw_key(w, "ttl");
	if (c->ttl_field) {
		vk_jw_object(w);
		vk_jw_kv(w, "field", c->ttl_field);
		vk_jw_ki(w, "after_ms", c->ttl_after_ms);
		vk_jw_object_end(w);
	} else {
		vk_jw_null(w);
	}
	vk_jw_key(w, "storage");
	vk_jw_object(w);
	vk_jw_ki(w, "used_bytes", (int64_t)s.kv.used_bytes);
	vk_jw_ki(w, "file_bytes", (int64_t)s.kv.file_bytes);
	vk_jw_ki(w, "map_bytes", (int64_t)s.kv.map_bytes);
	vk_jw_ki(w, "commits", (int64_t)s.kv.commits);
	vk_jw_ki(w, "oldest_reader_lag_txns", (int64_t)s.kv.reader_lag);
	vk_jw_kb(w, "sealing", s.sealing);
	vk_jw_kb(w, "building", s.building);
	vk_jw_kb(w, "broken", s.kv.broken);
	vk_jw_kb(w, "full", s.kv.full);
	vk_jw_object_end(w);
	vk_jw_object_end(w);
}

/* Writes the answer whole, without Qdrant's envelope. */
static enum vk_status answer_show(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	(void)err;
	vk_flow_json(q->req, w);
	write_collection(q, w, v);
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

void vk_flow_v1_collection(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, false, nothing, show);
}

/* --- binding --- */

static enum vk_status decode_spaces(struct vk_qd *q, struct vk_error *err)
{
	const vk_jv *spaces = vk_jv_get(q->body, "spaces");
	struct vk_buf b;
	struct vk_jw w;
	enum vk_status st = vk_qd_fields(q->body, "spaces", err);
	if (st) return st;
	if (vk_jv_type(spaces) != VK_J_OBJECT) return vk_qd_format(err, "spaces must be an object: vector name to space id");
	vk_buf_init(&b, (size_t)1 << 20);
	vk_jw_init(&w, &b);
	vk_jw_object(&w);
	vk_jw_key(&w, "metadata");
	vk_jw_object(&w);
	vk_jw_key(&w, "veckeep");
	vk_jw_object(&w);
	vk_jw_key(&w, "spaces");
	vk_jw_value(&w, spaces);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	char *text = b.failed ? NULL : vk_arena_strndup(&q->req->arena, b.p, b.n);
	size_t n = b.n;
	vk_buf_free(&b);
	if (!text) return vk_fail(err, VK_E_NOMEM, "out of memory");
	return vk_json_parse(&q->req->arena, (struct vk_bytes){text, n}, NULL, &q->made[0], err);
}

static void bind_spaces(struct vk_qd *q)
{
	struct vk_error err = {0};
	struct vk_qd_edit edit = {.app = q->app, .registry = vk_app_registry(q->app), .kind = VK_QD_UPDATE,
				  .body = vk_json_root(q->made[0])};
	enum vk_status st = vk_collection_configure(q->c, vk_qd_config_edit, &edit, false, &err);
	vk_registry_unref(edit.registry);
	if (st)
		vk_qd_fail(q, &err);
	else
		show(q);
}

void vk_flow_v1_spaces(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_spaces, bind_spaces);
}
