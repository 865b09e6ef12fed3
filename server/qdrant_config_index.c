/*
 * metadata.veckeep.index: which engine nominates for a vector, and how (index/ann.h: vk_ann_plan_of()). An object for a collection's
 * single vector, or {"<vector>": {...}}; each is a patch: what it does not name stays, a null takes a member, or all of them,
 * away. The whole that comes out is checked, so that a patch may name one member alone.
 */
#include <stdio.h>

#include "index/ann.h"
#include "index/faiss.h"
#include "server/qdrant.h"
#include "server/qdrant_config_internal.h"

#define WHERE "metadata.veckeep.index"
#define JSON_MAX ((size_t)64 << 10)

static bool absent(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_NULL;
}

/* The unnamed vector is also called "default", as in spaces. */
static bool is_unnamed(struct vk_bytes name)
{
	return !name.n || vk_bytes_is(name, "default");
}

/* Names no vector: it is the single vector's own. */
static bool is_own(const vk_jv *index, bool single)
{
	return single && !vk_jv_get(index, "") && !vk_jv_get(index, "default");
}

enum vk_status vk_qdc_index_check(const vk_jv *index, struct vk_error *err)
{
	if (absent(index) || vk_jv_type(index) == VK_J_OBJECT) return VK_OK;
	return vk_qd_validation(err, WHERE, "expected an object, of the single vector or {vector name: object}");
}

enum vk_status vk_qdc_index_names(const vk_jv *index, const vk_jv *vectors, const struct vk_colconf *now, struct vk_error *err)
{
	bool single = now ? now->single : vk_qdc_is_single(vectors);
	if (is_own(index, single)) return VK_OK;
	for (const vk_jv *v = vk_jv_first(index); v; v = vk_jv_next(v)) {
		struct vk_bytes name = vk_jv_key(v);
		bool there = single && is_unnamed(name);
		if (!there) there = now ? vk_colconf_vector(now, name) != NULL : !single && vk_jv_get(vectors, name.p);
		if (!there) return vk_qd_wrong(err, "Not existing vector name error: %s (" WHERE ")", vk_qdc_shown(name));
		if (!absent(v) && vk_jv_type(v) != VK_J_OBJECT)
			return vk_qd_validation(err, WHERE, "vector `%s`: expected an object", vk_qdc_shown(name));
	}
	return VK_OK;
}

/* NULL: nothing said of this vector; a JSON null: forget what was. */
static const vk_jv *said_of(const vk_jv *index, bool single, struct vk_bytes name)
{
	const vk_jv *v;
	if (!index || absent(index) || is_own(index, single)) return index;
	v = vk_jv_get(index, name.n ? name.p : "");
	return v || name.n ? v : vk_jv_get(index, "default");
}

static void write_patched(struct vk_jw *w, const vk_jv *was, const vk_jv *said)
{
	vk_jw_object(w);
	for (const vk_jv *m = vk_jv_first(was); m; m = vk_jv_next(m))
		if (!vk_jv_get(said, vk_jv_key(m).p)) vk_jw_member(w, m);
	for (const vk_jv *m = vk_jv_first(said); m; m = vk_jv_next(m))
		if (!absent(m)) vk_jw_member(w, m);
	vk_jw_object_end(w);
}

/* A factory that FAISS would refuse, or FAISS that is not there, is better told now than when the build fails. */
static enum vk_status check_faiss(const vk_jv *index, const struct vk_set *set, struct vk_error *err)
{
	struct vk_bytes engine, factory;
	struct vk_faiss_plan plan;
	if (!vk_jv_str(vk_jv_get(index, "engine"), &engine) || !vk_bytes_is(engine, vk_ann_engine_names[VK_ANN_FAISS])) return VK_OK;
	if (!vk_jv_str(vk_jv_get(index, "factory"), &factory)) return VK_OK;
	enum vk_status st = vk_faiss_plan(factory.p, set->dims, &plan, err);
	return st || vk_faiss_library(err) ? st : err->st;
}

/* Of a vector that is there, or of the parameters of one that will be. */
static struct vk_set set_of(const struct vk_vector_conf *was, const vk_jv *params)
{
	struct vk_set set = {.metric = VK_METRICS};
	struct vk_bytes distance;
	uint64_t dims = 0;
	if (was) return was->set;
	if (vk_jv_u64(vk_jv_get(params, "size"), &dims)) set.dims = (uint32_t)dims;
	for (int i = 0; i < VK_METRICS && vk_jv_str(vk_jv_get(params, "distance"), &distance); i++)
		if (vk_metric_names[i] && vk_bytes_is(distance, vk_metric_names[i])) set.metric = (enum vk_metric)i;
	return set;
}

static enum vk_status check_whole(const vk_jv *index, const struct vk_set *set, struct vk_bytes name, struct vk_error *err)
{
	struct vk_error why = {0};
	enum vk_status st = vk_ann_index_check(index, set, &why);
	if (!st) st = check_faiss(index, set, &why);
	if (!st) return VK_OK;
	if (st != VK_E_INVALID) {
		*err = why;
		return st;
	}
	return vk_qd_validation(err, WHERE, "vector `%s`: %.300s", vk_qdc_shown(name), why.text);
}

enum vk_status vk_qdc_index_put(struct vk_jw *w, const vk_jv *index, bool single, struct vk_bytes name,
				const struct vk_vector_conf *was, const vk_jv *params, struct vk_error *err)
{
	const vk_jv *old = was ? vk_jv_get(vk_jv_get(was->json, "veckeep"), "index") : NULL, *said = said_of(index, single, name);
	struct vk_set set = set_of(was, params);
	struct vk_arena arena;
	struct vk_buf text;
	struct vk_json *doc = NULL;
	struct vk_jw whole;
	if (said && absent(said)) return VK_OK;
	vk_arena_init(&arena, JSON_MAX * 16);
	vk_buf_init(&text, JSON_MAX);
	vk_jw_init(&whole, &text);
	write_patched(&whole, old, said);
	enum vk_status st = text.failed ? vk_qd_validation(err, WHERE, "vector `%s`: too long", vk_qdc_shown(name)) : VK_OK;
	if (!st) st = vk_json_parse(&arena, vk_buf_bytes(&text), NULL, &doc, err);
	if (!st && said) st = check_whole(vk_json_root(doc), &set, name, err);
	if (!st && vk_jv_len(vk_json_root(doc))) {
		vk_jw_key(w, "index");
		vk_jw_value(w, vk_json_root(doc));
	}
	vk_json_free(doc);
	vk_arena_free(&arena);
	vk_buf_free(&text);
	return st;
}
