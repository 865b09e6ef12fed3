/*
 * Ollama's API inbound: POST /api/embed, the older POST /api/embeddings (one prompt), GET
 * /api/tags. Rows go out as the provider gave them: one text has one vector, whatever API it is
 * asked through (Ollama itself normalises on one route and not on the other).
 */
#include "base/clock.h"
#include "server/embedding.h"
#include "server/error.h"
#include "server/flows.h"

#define FIELDS_EMBED "model input truncate dimensions keep_alive options input_type"
#define FIELDS_OLD "model prompt keep_alive options input_type"

static void put_times(struct vk_embedding *em, struct vk_jw *w)
{
	struct vk_op_counts c;
	vk_op_counts(&em->op, &c);
	vk_jw_ki(w, "total_duration", (int64_t)(vk_mono_us() - em->req->start_us) * 1000);
	vk_jw_ki(w, "load_duration", 0);
	vk_jw_ki(w, "prompt_eval_count", (int64_t)c.logical_tokens);
}

static void write_embed(struct vk_embedding *em)
{
	struct vk_jw w;
	size_t dims = em->dims ? em->dims : em->space->dims;
	float *scratch = vk_embedding_scratch(em);
	if (!scratch) {
		em->req->reply.body.failed = true;
		return;
	}
	vk_buf_reserve(&em->req->reply.body, em->n * (dims * 13 + 8) + 512);
	vk_jw_init(&w, &em->req->reply.body);
	vk_jw_object(&w);
	vk_jw_key(&w, "model");
	vk_jw_str(&w, em->model);
	vk_jw_key(&w, "embeddings");
	vk_jw_array(&w);
	for (size_t i = 0; i < em->n; i++) vk_jw_f32s(&w, vk_embedding_row(em, i, scratch), dims);
	vk_jw_array_end(&w);
	put_times(em, &w);
	vk_jw_object_end(&w);
}

static void write_old(struct vk_embedding *em)
{
	struct vk_jw w;
	float *scratch = vk_embedding_scratch(em);
	if (!scratch) {
		em->req->reply.body.failed = true;
		return;
	}
	vk_jw_init(&w, &em->req->reply.body);
	vk_jw_object(&w);
	vk_jw_key(&w, "embedding");
	vk_jw_f32s(&w, vk_embedding_row(em, 0, scratch), em->dims ? em->dims : em->space->dims);
	vk_jw_object_end(&w);
}

static bool is_set(const vk_jv *v)
{
	return v && vk_jv_type(v) != VK_J_NULL;
}

static enum vk_status read_common(struct vk_embedding *em, struct vk_error *err)
{
	const vk_jv *model = vk_jv_get(em->body, "model"), *dims = vk_jv_get(em->body, "dimensions"),
		    *truncate = vk_jv_get(em->body, "truncate"),
		    *role = vk_jv_get(em->body, "input_type");
	bool cut = true;
	if (model && !vk_jv_str(model, &em->model))
		return vk_fail_param(err, VK_E_INVALID, NULL, "model", "model must be a string");
	if (is_set(dims) && (!vk_jv_u64(dims, &em->dims) || !em->dims))
		return vk_fail_param(err, VK_E_INVALID, NULL, "dimensions",
				     "dimensions must be a whole number of at least 1");
	if (is_set(truncate) && !vk_jv_bool(truncate, &cut))
		return vk_fail_param(err, VK_E_INVALID, NULL, "truncate", "truncate must be true or false");
	if (is_set(role) && !vk_jv_str(role, &em->role))
		return vk_fail_param(err, VK_E_INVALID, NULL, "input_type", "input_type must be a string");
	em->truncate_refused = !cut;
	return VK_OK;
}

static void run(struct vk_embedding *em, enum vk_status st, struct vk_error *err)
{
	if (st) {
		err->no_retry = 1;
		vk_embedding_fail(em, err);
		return;
	}
	vk_embedding_run(em);
}

/* Ollama answers an empty list with an empty list. */
static void reply_empty(struct vk_embedding *em)
{
	struct vk_jw w;
	vk_flow_json(em->req, &w);
	vk_jw_object(&w);
	vk_jw_key(&w, "model");
	vk_jw_str(&w, em->model);
	vk_jw_key(&w, "embeddings");
	vk_jw_array(&w);
	vk_jw_array_end(&w);
	vk_jw_object_end(&w);
	vk_embedding_drop(em);
}

void vk_flow_ollama_embed(void *app, struct vk_req *req)
{
	struct vk_error err;
	struct vk_embedding *em = vk_embedding_new(app, req);
	if (!em) return;
	em->write = write_embed;
	em->fields = FIELDS_EMBED;
	enum vk_status st = read_common(em, &err);
	const vk_jv *input = vk_jv_get(em->body, "input");
	if (!st && vk_jv_type(input) == VK_J_ARRAY && !vk_jv_len(input)) {
		reply_empty(em);
		return;
	}
	if (!st) st = vk_embedding_inputs(em, input, "input", &err);
	run(em, st, &err);
}

void vk_flow_ollama_embeddings(void *app, struct vk_req *req)
{
	struct vk_error err;
	struct vk_embedding *em = vk_embedding_new(app, req);
	struct vk_bytes ignored;
	if (!em) return;
	em->write = write_old;
	em->fields = FIELDS_OLD;
	enum vk_status st = read_common(em, &err);
	const vk_jv *prompt = vk_jv_get(em->body, "prompt");
	if (!st && prompt && !vk_jv_str(prompt, &ignored))
		st = vk_fail_param(&err, VK_E_INVALID, NULL, "prompt", "prompt must be a string");
	if (!st) st = vk_embedding_inputs(em, prompt, "prompt", &err);
	run(em, st, &err);
}

void vk_flow_ollama_tags(void *app, struct vk_req *req)
{
	struct vk_registry *r = vk_app_registry(app);
	size_t n;
	const struct vk_model_name *m = vk_registry_models(r, &n);
	struct vk_jw w;
	vk_flow_json(req, &w);
	vk_jw_object(&w);
	vk_jw_key(&w, "models");
	vk_jw_array(&w);
	for (size_t i = 0; i < n; i++) {
		vk_jw_object(&w);
		vk_jw_kv(&w, "name", m[i].name);
		vk_jw_kv(&w, "model", m[i].name);
		vk_jw_kv(&w, "modified_at", "2023-11-14T22:13:20Z");
		vk_jw_ki(&w, "size", 0);
		vk_jw_kv(&w, "digest", m[i].space ? m[i].space->id : "");
		vk_jw_key(&w, "details");
		vk_jw_object(&w);
		vk_jw_kv(&w, "format", "veckeep");
		vk_jw_kv(&w, "family", "embedding");
		vk_jw_object_end(&w);
		vk_jw_object_end(&w);
	}
	vk_jw_array_end(&w);
	vk_jw_object_end(&w);
	vk_registry_unref(r);
}

void vk_flow_ollama_version(void *app, struct vk_req *req)
{
	struct vk_jw w;
	(void)app;
	vk_flow_json(req, &w);
	vk_jw_object(&w);
	vk_jw_kv(&w, "version", "0.12.0");
	vk_jw_kv(&w, "veckeep", VK_VERSION);
	vk_jw_object_end(&w);
}
