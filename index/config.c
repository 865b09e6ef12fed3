/* A collection's config out of its JSON: one arena holds text, document and what is read from it. */
#include "index/config.h"

#include <stdlib.h>

#include "index/payload.h"
#include "store/cachedb.h" /* VK_DIMS_MAX */

#define CONFIG_BYTES_MAX ((size_t)16 << 20) /* metadata is the client's and may be long */

const char *const vk_field_type_names[VK_FIELD_TYPES] = {"keyword", "integer", "float", "bool",
							 "datetime", "uuid", "geo", "text"};

const char *const vk_metric_names[VK_METRICS] = {[VK_METRIC_DOT] = "Dot",
						 [VK_METRIC_COSINE] = "Cosine",
						 [VK_METRIC_L2] = "Euclid",
						 [VK_METRIC_L1] = "Manhattan"};
const char *const vk_dtype_names[VK_DTYPES] = {
    [VK_DTYPE_F32] = "float32", [VK_DTYPE_F16] = "float16", [VK_DTYPE_U8] = "uint8"};
const char *const vk_provenance_names[VK_PROVENANCE_MODES] = {
    [VK_PROVENANCE_WARN] = "warn", [VK_PROVENANCE_REQUIRE] = "require", [VK_PROVENANCE_OFF] = "off"};

/* Which of the names a string value is; -1: none of them. Absent and null: dflt. */
static int word(const vk_jv *v, const char *const *names, size_t n, int dflt)
{
	struct vk_bytes s;
	if (vk_jv_type(v) == VK_J_NULL) return dflt;
	if (!vk_jv_str(v, &s)) return -1;
	for (size_t i = 0; i < n; i++)
		if (names[i] && vk_bytes_is(s, names[i])) return (int)i;
	return -1;
}

/* A string, or NULL for null and absent; false for anything else. It lives as long as the document. */
static bool text_or_null(const vk_jv *v, const char **out)
{
	struct vk_bytes s;
	*out = NULL;
	if (vk_jv_type(v) == VK_J_NULL) return true;
	if (!vk_jv_str(v, &s)) return false;
	*out = s.p;
	return true;
}

static bool number(const vk_jv *v, uint64_t min, uint64_t max, uint64_t *out)
{
	return vk_jv_u64(v, out) && *out >= min && *out <= max;
}

static bool flag(const vk_jv *v, bool dflt, bool *out)
{
	*out = dflt;
	return vk_jv_type(v) == VK_J_NULL || vk_jv_bool(v, out);
}

static enum vk_status bad(struct vk_error *err, const char *where, const char *what)
{
	return vk_fail(err, VK_E_INVALID, "collection config: %s: bad %s", where, what);
}

/* The vector's own word goes before the collection's. */
static enum vk_quant read_quant(const vk_jv *own, const vk_jv *common)
{
	const vk_jv *q = vk_jv_type(own) == VK_J_OBJECT ? own : common;
	if (vk_jv_type(q) != VK_J_OBJECT || !vk_jv_len(q)) return VK_QUANT_NONE;
	if (vk_jv_get(q, "scalar")) return VK_QUANT_SCALAR;
	return vk_jv_get(q, "binary") ? VK_QUANT_BINARY : VK_QUANT_OTHER;
}

static enum vk_status read_vector(struct vk_colconf *c, const vk_jv *v, struct vk_vector_conf *out,
				  struct vk_error *err)
{
	const char *name = vk_jv_key(v).p;
	const vk_jv *ours = vk_jv_get(v, "veckeep");
	int metric = word(vk_jv_get(v, "distance"), vk_metric_names, VK_METRICS, -1);
	int dtype = word(vk_jv_get(v, "datatype"), vk_dtype_names, VK_DTYPES, VK_DTYPE_F32);
	uint64_t dims, set, space = 0;
	*out = (struct vk_vector_conf){.name = name, .json = v};
	if (strlen(name) > VK_NAME_MAX) return bad(err, "a vector", "name: it is too long");
	if (!number(vk_jv_get(v, "size"), 1, VK_DIMS_MAX, &dims)) return bad(err, name, "size");
	if (metric < 0) return bad(err, name, "distance");
	if (dtype < 0) return bad(err, name, "datatype");
	if (!number(vk_jv_get(ours, "set"), 1, UINT32_MAX, &set)) return bad(err, name, "veckeep.set");
	if (!text_or_null(vk_jv_get(ours, "space"), &out->space)) return bad(err, name, "veckeep.space");
	const vk_jv *id = vk_jv_get(ours, "space_id");
	if (vk_jv_type(id) != VK_J_NULL && !number(id, 0, UINT32_MAX, &space))
		return bad(err, name, "veckeep.space_id");
	if (!flag(vk_jv_get(ours, "raw"), false, &out->raw)) return bad(err, name, "veckeep.raw");
	out->set = (struct vk_set){
	    .id = (uint32_t)set,
	    .space = (uint32_t)space,
	    .dims = (uint32_t)dims,
	    .metric = (enum vk_metric)metric,
	    .dtype = (enum vk_dtype)dtype,
	    .quant = read_quant(vk_jv_get(v, "quantization_config"), vk_jv_get(c->root, "quantization_config")),
	};
	if (vk_colconf_set(c, out->set.id)) return bad(err, name, "veckeep.set, which another vector has");
	return VK_OK;
}

static enum vk_status read_sparse(struct vk_colconf *c, const vk_jv *v, struct vk_vector_conf *out, struct vk_error *err)
{
	const char *name = vk_jv_key(v).p;
	uint64_t set;
	*out = (struct vk_vector_conf){.name = name, .sparse = true, .json = v};
	if (!*name || strlen(name) > VK_NAME_MAX) return bad(err, "a sparse vector", "name");
	if (vk_jv_type(v) != VK_J_OBJECT) return bad(err, name, "object");
	if (!number(vk_jv_get(vk_jv_get(v, "veckeep"), "set"), 1, UINT32_MAX, &set)) return bad(err, name, "veckeep.set");
	out->set.id = (uint32_t)set;
	if (vk_colconf_named(c, vk_bytes_of(name))) return bad(err, name, "name, which a dense vector has");
	if (vk_colconf_set(c, out->set.id)) return bad(err, name, "veckeep.set, which another vector has");
	return VK_OK;
}

static enum vk_status read_vectors(struct vk_colconf *c, struct vk_error *err)
{
	const vk_jv *all = vk_jv_get(c->root, "vectors"), *sparse = vk_jv_get(c->root, "sparse_vectors");
	size_t n = vk_jv_len(all) + vk_jv_len(sparse);
	if (vk_jv_type(all) != VK_J_OBJECT) return bad(err, "vectors", "object");
	if (vk_jv_type(sparse) != VK_J_OBJECT && vk_jv_type(sparse) != VK_J_NULL) return bad(err, "sparse_vectors", "object");
	if (n > VK_VECTORS_MAX)
		return vk_fail(err, VK_E_INVALID, "a collection has at most %d vectors", VK_VECTORS_MAX);
	c->vectors = vk_arena_calloc(&c->arena, n + 1, sizeof *c->vectors);
	if (!c->vectors) return vk_fail(err, VK_E_NOMEM, "out of memory");
	for (const vk_jv *v = vk_jv_first(all); v; v = vk_jv_next(v)) {
		enum vk_status st = read_vector(c, v, &c->vectors[c->vectors_n], err);
		if (st) return st;
		c->vectors_n++;
	}
	c->single = c->vectors_n == 1 && !c->vectors[0].name[0];
	c->sparse = c->vectors + c->vectors_n;
	for (const vk_jv *v = vk_jv_first(sparse); v; v = vk_jv_next(v)) {
		enum vk_status st = read_sparse(c, v, &c->sparse[c->sparse_n], err);
		if (st) return st;
		c->sparse_n++;
	}
	return VK_OK;
}

static enum vk_status read_field(struct vk_colconf *c, const vk_jv *v, struct vk_field_conf *out,
				 struct vk_error *err)
{
	static const char *const states[] = {"ready", "building"};
	const char *path = vk_jv_key(v).p;
	const vk_jv *params = vk_jv_get(v, "params");
	int type = word(vk_jv_get(v, "type"), vk_field_type_names, VK_FIELD_TYPES, -1);
	int state = word(vk_jv_get(v, "state"), states, 2, -1);
	uint64_t field;
	struct vk_path *parsed = vk_arena_alloc(&c->arena, sizeof *parsed);
	*out = (struct vk_field_conf){.path = path, .json = v};
	if (!parsed) return vk_fail(err, VK_E_NOMEM, "out of memory");
	if (strlen(path) > VK_FIELD_PATH_MAX) return bad(err, "an index", "path: it is too long");
	enum vk_status st = vk_path_parse(&c->arena, vk_bytes_of(path), parsed, err);
	if (st) return st;
	if (type < 0) return bad(err, path, "type");
	if (state < 0) return bad(err, path, "state");
	if (!number(vk_jv_get(v, "field"), 1, UINT16_MAX, &field)) return bad(err, path, "field");
	if (!flag(vk_jv_get(params, "lookup"), true, &out->lookup)) return bad(err, path, "lookup");
	if (!flag(vk_jv_get(params, "range"), true, &out->range)) return bad(err, path, "range");
	out->field = (uint16_t)field;
	out->type = (enum vk_field_type)type;
	out->ready = state == 0;
	for (size_t i = 0; i < c->fields_n; i++)
		if (c->fields[i].field == out->field) return bad(err, path, "field, which another index has");
	return VK_OK;
}

static enum vk_status read_fields(struct vk_colconf *c, struct vk_error *err)
{
	const vk_jv *all = vk_jv_get(c->root, "indexes");
	size_t n = vk_jv_len(all);
	if (vk_jv_type(all) != VK_J_OBJECT && vk_jv_type(all) != VK_J_NULL) return bad(err, "indexes", "object");
	if (n > VK_FIELDS_MAX)
		return vk_fail(err, VK_E_INVALID, "a collection has at most %d payload indexes",
			       VK_FIELDS_MAX);
	c->fields = vk_arena_calloc(&c->arena, n + 1, sizeof *c->fields);
	if (!c->fields) return vk_fail(err, VK_E_NOMEM, "out of memory");
	for (const vk_jv *v = vk_jv_first(all); v; v = vk_jv_next(v)) {
		enum vk_status st = read_field(c, v, &c->fields[c->fields_n], err);
		if (st) return st;
		c->fields_n++;
	}
	return VK_OK;
}

static enum vk_status read_ttl(struct vk_colconf *c, const vk_jv *ttl, struct vk_error *err)
{
	const vk_jv *after = vk_jv_get(ttl, "after_ms");
	struct vk_path *parsed = vk_arena_alloc(&c->arena, sizeof *parsed);
	if (!parsed) return vk_fail(err, VK_E_NOMEM, "out of memory");
	if (vk_jv_type(ttl) == VK_J_NULL) return VK_OK;
	if (!text_or_null(vk_jv_get(ttl, "field"), &c->ttl_field) || !c->ttl_field)
		return bad(err, "veckeep.ttl", "field");
	if (vk_jv_type(after) != VK_J_NULL && !vk_jv_i64(after, &c->ttl_after_ms))
		return bad(err, "veckeep.ttl", "after_ms");
	return vk_path_parse(&c->arena, vk_bytes_of(c->ttl_field), parsed, err);
}

static enum vk_status read_ours(struct vk_colconf *c, struct vk_error *err)
{
	const vk_jv *ours = vk_jv_get(c->root, "veckeep");
	int mode = word(vk_jv_get(ours, "provenance"), vk_provenance_names, VK_PROVENANCE_MODES, VK_PROVENANCE_WARN);
	uint64_t next_set, next_field;
	if (!text_or_null(vk_jv_get(ours, "text_from"), &c->text_from)) return bad(err, "veckeep", "text_from");
	if (!text_or_null(vk_jv_get(ours, "pool"), &c->pool)) return bad(err, "veckeep", "pool");
	if (mode < 0) return bad(err, "veckeep", "provenance");
	if (!number(vk_jv_get(ours, "next_set"), 1, UINT32_MAX, &next_set))
		return bad(err, "veckeep", "next_set");
	if (!number(vk_jv_get(ours, "next_field"), 1, UINT16_MAX, &next_field))
		return bad(err, "veckeep", "next_field");
	c->provenance = (enum vk_provenance_mode)mode;
	c->next_set = (uint32_t)next_set;
	c->next_field = (uint16_t)next_field;
	if (!c->pool) c->pool = "default";
	for (size_t i = 0; i < c->vectors_n + c->sparse_n; i++)
		if (c->vectors[i].set.id >= next_set) return bad(err, "veckeep", "next_set: a vector is past it");
	for (size_t i = 0; i < c->fields_n; i++)
		if (c->fields[i].field >= next_field)
			return bad(err, "veckeep", "next_field: an index is past it");
	return read_ttl(c, vk_jv_get(ours, "ttl"), err);
}

static enum vk_status parse(struct vk_colconf *c, struct vk_bytes text, struct vk_error *err)
{
	if (text.n > CONFIG_BYTES_MAX) return vk_fail(err, VK_E_TOO_LARGE, "collection config: too long");
	char *copy = vk_arena_strndup(&c->arena, text.p, text.n);
	if (!copy) return vk_fail(err, VK_E_NOMEM, "out of memory");
	c->text = (struct vk_bytes){copy, text.n};
	enum vk_status st = vk_json_parse(&c->arena, c->text, NULL, &c->doc, err);
	if (st) return st;
	c->root = vk_json_root(c->doc);
	if (vk_jv_type(c->root) != VK_J_OBJECT) return bad(err, "top", "object");
	st = read_vectors(c, err);
	if (!st) st = read_fields(c, err);
	return st ? st : read_ours(c, err);
}

enum vk_status vk_colconf_parse(struct vk_bytes text, struct vk_colconf **out, struct vk_error *err)
{
	struct vk_colconf *c = calloc(1, sizeof *c);
	*out = NULL;
	if (!c) return vk_fail(err, VK_E_NOMEM, "out of memory");
	atomic_init(&c->refs, 1);
	vk_arena_init(&c->arena, 8 * CONFIG_BYTES_MAX);
	enum vk_status st = parse(c, text, err);
	if (st)
		vk_colconf_unref(c);
	else
		*out = c;
	return st;
}

struct vk_colconf *vk_colconf_ref(struct vk_colconf *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void vk_colconf_unref(struct vk_colconf *c)
{
	if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
	vk_json_free(c->doc);
	vk_arena_free(&c->arena);
	free(c);
}

const struct vk_vector_conf *vk_colconf_vector(const struct vk_colconf *c, struct vk_bytes name)
{
	for (size_t i = 0; i < c->vectors_n; i++)
		if (vk_bytes_is(name, c->vectors[i].name)) return &c->vectors[i];
	return NULL;
}

const struct vk_vector_conf *vk_colconf_named(const struct vk_colconf *c, struct vk_bytes name)
{
	for (size_t i = 0; i < c->vectors_n + c->sparse_n; i++)
		if (vk_bytes_is(name, c->vectors[i].name)) return &c->vectors[i];
	return NULL;
}

const struct vk_vector_conf *vk_colconf_set(const struct vk_colconf *c, uint32_t set)
{
	for (size_t i = 0; i < c->vectors_n + c->sparse_n; i++)
		if (c->vectors[i].set.id == set) return &c->vectors[i];
	return NULL;
}

const struct vk_field_conf *vk_colconf_field(const struct vk_colconf *c, struct vk_bytes path)
{
	for (size_t i = 0; i < c->fields_n; i++)
		if (vk_bytes_is(path, c->fields[i].path)) return &c->fields[i];
	return NULL;
}
