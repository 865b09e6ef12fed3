/* POST /v1/embeddings and its other paths; GET /v1/models. OpenAI's API, byte for byte where
 * clients look. */
#include <stdio.h>

#include "server/embedding.h"
#include "server/error.h"
#include "server/flows.h"

#define FIELDS "model input encoding_format dimensions user input_type"

static void write_openai(struct vk_embedding *em)
{
	struct vk_jw w;
	struct vk_buf *b = &em->req->reply.body;
	size_t dims = em->dims ? em->dims : em->space->dims;
	float *scratch = vk_embedding_scratch(em);
	if (!scratch) {
		b->failed = true;
		return;
	}
	size_t row_bytes = em->encoding == VK_ENC_BASE64 ? dims * 16 / 3 + 64 : dims * 13 + 64;
	vk_buf_reserve(b, em->n * row_bytes + 512);
	vk_jw_init(&w, b);
	vk_jw_object(&w);
	vk_jw_kv(&w, "object", "list");
	vk_jw_key(&w, "data");
	vk_jw_array(&w);
	for (size_t i = 0; i < em->n; i++) {
		const float *row = vk_embedding_row(em, i, scratch);
		vk_jw_object(&w);
		vk_jw_kv(&w, "object", "embedding");
		vk_jw_ki(&w, "index", (int64_t)i);
		vk_jw_key(&w, "embedding");
		if (em->encoding == VK_ENC_BASE64)
			vk_jw_base64(&w, row, dims * sizeof *row);
		else
			vk_jw_f32s(&w, row, dims);
		vk_jw_object_end(&w);
	}
	vk_jw_array_end(&w);
	vk_jw_key(&w, "model");
	vk_jw_str(&w, em->model);
	vk_jw_key(&w, "id");
	vk_jw_raw(&w, (struct vk_bytes){vk_arena_printf(&em->req->arena, "\"embd-%s\"", em->req->id),
					strlen(em->req->id) + 7});
	struct vk_op_counts c;
	vk_op_counts(&em->op, &c);
	vk_jw_key(&w, "usage");
	vk_jw_object(&w);
	vk_jw_ki(&w, "prompt_tokens", (int64_t)c.logical_tokens);
	vk_jw_ki(&w, "total_tokens", (int64_t)c.logical_tokens);
	vk_jw_key(&w, "prompt_tokens_details");
	vk_jw_object(&w);
	vk_jw_ki(&w, "cached_tokens", (int64_t)c.saved_tokens);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
}

/* Does the Accept header name this type? */
static bool accepts(const struct vk_req *req, const char *type)
{
	struct vk_bytes a = vk_req_header(req, "accept");
	return a.p && memmem(a.p, a.n, type, strlen(type)) != NULL;
}

static enum vk_status read_encoding(struct vk_embedding *em, struct vk_error *err)
{
	const vk_jv *v = vk_jv_get(em->body, "encoding_format");
	struct vk_bytes s;
	em->encoding = VK_ENC_FLOAT;
	if (v && vk_jv_type(v) != VK_J_NULL) {
		if (vk_jv_str(v, &s) && vk_bytes_is(s, "base64"))
			em->encoding = VK_ENC_BASE64;
		else if (!vk_jv_str(v, &s) || !vk_bytes_is(s, "float"))
			return vk_fail_param(err, VK_E_INVALID, "invalid_value", "encoding_format",
					     "'encoding_format' must be \"float\" or \"base64\".");
	}
	if (accepts(em->req, "application/octet-stream")) em->encoding = VK_ENC_OCTETS;
	return VK_OK;
}

static enum vk_status read_body(struct vk_embedding *em, struct vk_error *err)
{
	const vk_jv *model = vk_jv_get(em->body, "model"), *dims = vk_jv_get(em->body, "dimensions"),
		    *role = vk_jv_get(em->body, "input_type"), *user = vk_jv_get(em->body, "user");
	struct vk_bytes ignored, deployment = vk_req_param(em->req, "deployment");
	em->fields = FIELDS;
	if (deployment.p)
		em->model = deployment; /* Azure's path names it; the body's is decoration */
	else if (model && !vk_jv_str(model, &em->model))
		return vk_fail_param(err, VK_E_INVALID, NULL, "model", "'model' must be a string.");
	if (em->model.n > VK_LIMIT_MODEL_BYTES)
		return vk_fail_param(err, VK_E_INVALID, NULL, "model", "'model' is too long.");
	if (dims && vk_jv_type(dims) != VK_J_NULL &&
	    (!vk_jv_u64(dims, &em->dims) || !em->dims))
		return vk_fail_param(err, VK_E_INVALID, "invalid_dimensions", "dimensions",
				     "'dimensions' must be a whole number of at least 1.");
	if (role && vk_jv_type(role) != VK_J_NULL && !vk_jv_str(role, &em->role))
		return vk_fail_param(err, VK_E_INVALID, NULL, "input_type", "'input_type' must be a string.");
	if (user && vk_jv_type(user) != VK_J_NULL && !vk_jv_str(user, &ignored))
		return vk_fail_param(err, VK_E_INVALID, NULL, "user", "'user' must be a string.");
	enum vk_status st = read_encoding(em, err);
	return st ? st : vk_embedding_inputs(em, vk_jv_get(em->body, "input"), "input", err);
}

void vk_flow_embeddings(void *app, struct vk_req *req)
{
	struct vk_error err;
	struct vk_embedding *em = vk_embedding_new(app, req);
	if (!em) return;
	em->write = write_openai;
	if (read_body(em, &err)) {
		err.no_retry = 1;
		vk_embedding_fail(em, &err);
		return;
	}
	vk_embedding_run(em);
}

/* --- models --- */

static void put_model(struct vk_jw *w, const struct vk_model_name *m)
{
	vk_jw_object(w);
	vk_jw_kv(w, "id", m->name);
	vk_jw_kv(w, "object", "model");
	vk_jw_ki(w, "created", 1700000000);
	vk_jw_kv(w, "owned_by", m->space ? m->space->route[0].provider->name : "veckeep");
	if (m->space) {
		vk_jw_kv(w, "space", m->space->id);
		vk_jw_ki(w, "dims", m->space->dims);
		if (m->role) vk_jw_kv(w, "role", m->role->name);
	}
	if (m->collection) vk_jw_kv(w, "collection", m->collection);
	vk_jw_object_end(w);
}

void vk_flow_models(void *app, struct vk_req *req)
{
	struct vk_registry *r = vk_app_registry(app);
	size_t n;
	const struct vk_model_name *m = vk_registry_models(r, &n);
	struct vk_jw w;
	vk_flow_json(req, &w);
	vk_jw_object(&w);
	vk_jw_kv(&w, "object", "list");
	vk_jw_key(&w, "data");
	vk_jw_array(&w);
	for (size_t i = 0; i < n; i++) put_model(&w, &m[i]);
	vk_jw_array_end(&w);
	vk_jw_object_end(&w);
	vk_registry_unref(r);
}

void vk_flow_model(void *app, struct vk_req *req)
{
	struct vk_registry *r = vk_app_registry(app);
	const struct vk_role *role;
	struct vk_bytes id = vk_req_param(req, "id");
	const struct vk_model_name *m = vk_registry_model(r, id, &role);
	if (m) {
		struct vk_jw w;
		struct vk_model_name named = *m;
		named.role = role;
		named.name = vk_arena_strndup(&req->arena, id.p, id.n);
		vk_flow_json(req, &w);
		put_model(&w, &named);
	} else {
		struct vk_error err;
		vk_fail_param(&err, VK_E_NOT_FOUND, "model_not_found", "model",
			      "The model '%.*s' does not exist here.", (int)(id.n < 128 ? id.n : 128), id.p);
		vk_reply_error(req, &err);
	}
	vk_registry_unref(r);
}
