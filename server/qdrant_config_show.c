/* A config as Qdrant shows it: result.config of GET, and its warnings. */
#include <stdio.h>

#include "server/qdrant_config.h"

static bool absent(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_NULL;
}

static void show_vector(struct vk_jw *w, const struct vk_vector_conf *v)
{
	vk_jw_object(w);
	for (const vk_jv *m = vk_jv_first(v->json); m; m = vk_jv_next(m))
		if (!vk_bytes_is(vk_jv_key(m), "veckeep") && !absent(m)) vk_jw_member(w, m);
	vk_jw_object_end(w);
}

static void show_params(const struct vk_colconf *c, struct vk_jw *w)
{
	vk_jw_key(w, "params");
	vk_jw_object(w);
	vk_jw_key(w, "vectors");
	if (c->single) {
		show_vector(w, &c->vectors[0]);
	} else {
		vk_jw_object(w);
		for (size_t i = 0; i < c->vectors_n; i++) {
			vk_jw_key(w, c->vectors[i].name);
			show_vector(w, &c->vectors[i]);
		}
		vk_jw_object_end(w);
	}
	if (c->sparse_n) {
		vk_jw_key(w, "sparse_vectors");
		vk_jw_object(w);
		for (size_t i = 0; i < c->sparse_n; i++) {
			vk_jw_key(w, c->sparse[i].name);
			show_vector(w, &c->sparse[i]);
		}
		vk_jw_object_end(w);
	}
	for (const vk_jv *m = vk_jv_first(vk_jv_get(c->root, "params")); m; m = vk_jv_next(m)) vk_jw_member(w, m);
	vk_jw_object_end(w);
}

static const vk_jv *index_of(const struct vk_vector_conf *v)
{
	const vk_jv *index = vk_jv_get(vk_jv_get(v->json, "veckeep"), "index");
	return absent(index) ? NULL : index;
}

void vk_qd_config_index(const struct vk_vector_conf *v, struct vk_jw *w, const char *key)
{
	const vk_jv *index = index_of(v);
	if (!index) return;
	vk_jw_key(w, key);
	vk_jw_value(w, index);
}

/* Nothing where nothing was said. */
static void show_indexes(const struct vk_colconf *c, struct vk_jw *w)
{
	size_t said = 0;
	for (size_t i = 0; i < c->vectors_n; i++) said += index_of(&c->vectors[i]) != NULL;
	if (!said) return;
	vk_jw_key(w, "index");
	vk_jw_object(w);
	for (size_t i = 0; i < c->vectors_n; i++) vk_qd_config_index(&c->vectors[i], w, c->vectors[i].name);
	vk_jw_object_end(w);
}

/* In place of what the client once sent: what holds now, in the words that it can send again. */
static void show_ours(const struct vk_colconf *c, struct vk_jw *w)
{
	vk_jw_object(w);
	vk_jw_key(w, "spaces");
	vk_jw_object(w);
	for (size_t i = 0; i < c->vectors_n; i++)
		if (c->vectors[i].space) vk_jw_kv(w, c->vectors[i].name, c->vectors[i].space);
	vk_jw_object_end(w);
	show_indexes(c, w);
	vk_jw_kv(w, "text_from", c->text_from);
	vk_jw_kv(w, "provenance", vk_provenance_names[c->provenance]);
	vk_jw_key(w, "ttl");
	if (c->ttl_field) {
		vk_jw_object(w);
		vk_jw_kv(w, "field", c->ttl_field);
		vk_jw_kf(w, "after", (double)c->ttl_after_ms / 1000);
		vk_jw_object_end(w);
	} else {
		vk_jw_null(w);
	}
	vk_jw_object_end(w);
}

static void show_metadata(const struct vk_colconf *c, struct vk_jw *w)
{
	const vk_jv *metadata = vk_jv_get(c->root, "metadata");
	if (absent(metadata)) return;
	vk_jw_key(w, "metadata");
	vk_jw_object(w);
	for (const vk_jv *m = vk_jv_first(metadata); m; m = vk_jv_next(m)) {
		if (!vk_bytes_is(vk_jv_key(m), "veckeep")) {
			vk_jw_member(w, m);
			continue;
		}
		vk_jw_key(w, "veckeep");
		show_ours(c, w);
	}
	vk_jw_object_end(w);
}

void vk_qd_config_show(const struct vk_colconf *c, struct vk_jw *w)
{
	static const char *const always[] = {"hnsw_config", "optimizer_config", "wal_config", "quantization_config"};
	vk_jw_object(w);
	show_params(c, w);
	for (size_t i = 0; i < sizeof always / sizeof *always; i++) {
		vk_jw_key(w, always[i]);
		vk_jw_value(w, vk_jv_get(c->root, always[i]));
	}
	const vk_jv *strict = vk_jv_get(c->root, "strict_mode_config");
	if (!absent(strict)) {
		vk_jw_key(w, "strict_mode_config");
		vk_jw_value(w, strict);
	}
	show_metadata(c, w);
	vk_jw_object_end(w);
}

static bool wants_inline(const vk_jv *graph, bool dflt)
{
	bool b = dflt;
	return vk_jv_bool(vk_jv_get(graph, "inline_storage"), &b) ? b : dflt;
}

/* Qdrant's own warning: vectors inside the graph need codes. */
void vk_qd_config_warn(const struct vk_colconf *c, struct vk_jw *w)
{
	bool common = wants_inline(vk_jv_get(c->root, "hnsw_config"), false), open = false;
	for (size_t i = 0; i < c->vectors_n; i++) {
		const struct vk_vector_conf *v = &c->vectors[i];
		if (!wants_inline(vk_jv_get(v->json, "hnsw_config"), common) || v->set.quant != VK_QUANT_NONE) continue;
		char text[VK_NAME_MAX + 128];
		snprintf(text, sizeof text, "The `hnsw_config.inline_storage` option for vector '%s' is only effective with quantization enabled",
			 v->name);
		if (!open) {
			vk_jw_key(w, "warnings");
			vk_jw_array(w);
			open = true;
		}
		vk_jw_object(w);
		vk_jw_kv(w, "message", text);
		vk_jw_object_end(w);
	}
	if (open) vk_jw_array_end(w);
}
