/*
 * The service that a self-hosted Qdrant's `inference.address` calls:
 *   {"inputs": [{"data": "text", "data_type": "text", "model": "m", "options": {}}],
 *    "inference": "update" | "search", "token": null}
 *   -> {"embeddings": [[...], ...], "usage": {"models": {"m": {"tokens": n}}}}
 * update is role document, search is query. Items of one call name one model (Qdrant groups them).
 */
#include <stdlib.h>

#include "server/embedding.h"
#include "server/error.h"
#include "server/flows.h"

#define FIELDS "inputs inference token options"

static void write_inference(struct vk_embedding *em)
{
	struct vk_jw w;
	size_t dims = em->dims ? em->dims : em->space->dims;
	float *scratch = vk_embedding_scratch(em);
	struct vk_op_counts c;
	if (!scratch) {
		em->req->reply.body.failed = true;
		return;
	}
	vk_op_counts(&em->op, &c);
	vk_buf_reserve(&em->req->reply.body, em->n * (dims * 13 + 8) + 512);
	vk_jw_init(&w, &em->req->reply.body);
	vk_jw_object(&w);
	vk_jw_key(&w, "embeddings");
	vk_jw_array(&w);
	for (size_t i = 0; i < em->n; i++)
		vk_jw_f32s(&w, vk_embedding_row(em, i, scratch), dims);
	vk_jw_array_end(&w);
	vk_jw_key(&w, "usage");
	vk_jw_object(&w);
	vk_jw_key(&w, "models");
	vk_jw_object(&w);
	vk_jw_key(&w, vk_arena_strndup(&em->req->arena, em->model.p, em->model.n));
	vk_jw_object(&w);
	vk_jw_ki(&w, "tokens", (int64_t)c.logical_tokens);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
}

static enum vk_status read_options(struct vk_embedding *em, const vk_jv *options, struct vk_error *err)
{
	const vk_jv *dims = vk_jv_get(options, "dimensions");
	uint64_t n = 0;
	for (const vk_jv *m = vk_jv_first(options); m; m = vk_jv_next(m))
		if (!vk_bytes_is(vk_jv_key(m), "dimensions"))
			return vk_fail_param(err, VK_E_INVALID, "unknown_parameter", "options",
					     "Unknown option '%.*s'; provider keys never come through options.",
					     (int)(vk_jv_key(m).n < 64 ? vk_jv_key(m).n : 64), vk_jv_key(m).p);
	if (dims && (!vk_jv_u64(dims, &n) || !n || (em->dims && em->dims != n)))
		return vk_fail_param(err, VK_E_INVALID, NULL, "options.dimensions",
				     "'dimensions' must be one whole number of at least 1.");
	if (n) em->dims = n;
	return VK_OK;
}

static enum vk_status read_item(struct vk_embedding *em, const vk_jv *item, size_t i,
				struct vk_error *err)
{
	struct vk_bytes text, type, model;
	if (!vk_jv_str(vk_jv_get(item, "data"), &text))
		return vk_fail_param(err, VK_E_INVALID, NULL, "inputs",
				     "The input at position %zu has no text in 'data'.", i);
	if (vk_jv_str(vk_jv_get(item, "data_type"), &type) && !vk_bytes_is(type, "text"))
		return vk_fail_param(err, VK_E_INVALID, NULL, "inputs",
				     "The input at position %zu is no text: only text is embedded here.", i);
	if (!vk_jv_str(vk_jv_get(item, "model"), &model))
		return vk_fail_param(err, VK_E_INVALID, NULL, "inputs",
				     "The input at position %zu names no model.", i);
	if (em->model.p && !vk_bytes_eq(em->model, model))
		return vk_fail_param(err, VK_E_INVALID, NULL, "inputs",
				     "All inputs of one call must name the same model.");
	if (text.n > em->app->config.text_bytes_max)
		return vk_fail_param(err, VK_E_INVALID, "string_above_max_length", "inputs",
				     "The text at position %zu is too long.", i);
	em->model = model;
	em->inputs[i].text = text.p ? text : VK_LIT("");
	return read_options(em, vk_jv_get(item, "options"), err);
}

static enum vk_status read_body(struct vk_embedding *em, struct vk_error *err)
{
	const vk_jv *inputs = vk_jv_get(em->body, "inputs");
	struct vk_bytes kind = VK_LIT("update");
	em->fields = FIELDS;
	if (vk_jv_get(em->body, "inference") && !vk_jv_str(vk_jv_get(em->body, "inference"), &kind))
		return vk_fail_param(err, VK_E_INVALID, NULL, "inference", "'inference' must be a string.");
	if (vk_bytes_is(kind, "search") || vk_bytes_is(kind, "Search"))
		em->role = VK_LIT("query");
	else if (vk_bytes_is(kind, "update") || vk_bytes_is(kind, "Update"))
		em->role = VK_LIT("document");
	else
		return vk_fail_param(err, VK_E_INVALID, NULL, "inference",
				     "'inference' must be \"update\" or \"search\".");
	em->n = vk_jv_type(inputs) == VK_J_ARRAY ? vk_jv_len(inputs) : 0;
	if (!em->n || em->n > em->app->config.inputs_max)
		return vk_fail_param(err, VK_E_INVALID, NULL, "inputs",
				     "'inputs' must be a list of 1 to %zu inputs.", em->app->config.inputs_max);
	em->inputs = vk_arena_calloc(&em->req->arena, em->n, sizeof *em->inputs);
	if (!em->inputs) return vk_fail(err, VK_E_NOMEM, "Out of memory; try again shortly.");
	enum vk_status st = VK_OK;
	size_t i = 0;
	for (const vk_jv *m = vk_jv_first(inputs); m && !st; m = vk_jv_next(m)) st = read_item(em, m, i++, err);
	return st;
}

void vk_flow_inference(void *app, struct vk_req *req)
{
	struct vk_error err;
	struct vk_embedding *em = vk_embedding_new(app, req);
	if (!em) return;
	em->write = write_inference;
	if (read_body(em, &err)) {
		err.no_retry = 1;
		vk_embedding_fail(em, &err);
		return;
	}
	vk_embedding_run(em);
}
