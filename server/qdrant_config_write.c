/*
 * A config's JSON, written anew from what was there and what a client says: one writer for creating and for every edit, so that no
 * edit can lose a member. What this file does not know (another room's) is copied.
 */
#include <stdio.h>

#include "base/utf8.h"
#include "server/qdrant.h"
#include "server/qdrant_config_internal.h"

#define TOP_KNOWN \
	"vectors sparse_vectors params hnsw_config optimizer_config wal_config quantization_config strict_mode_config metadata indexes veckeep"
#define OURS_KNOWN "text_from provenance ttl next_set next_field pool"

struct writer {
	const struct vk_qd_edit *e;     /* NULL: create */
	const struct vk_colconf *now;   /* NULL: create */
	const vk_jv *old;               /* now's root */
	const vk_jv *body;              /* CreateCollection or UpdateCollection; NULL: another edit */
	const vk_jv *ours;              /* body's metadata.veckeep */
	struct vk_registry *registry;
	uint32_t next_set;
	uint16_t next_field;
	struct vk_jw *w;
	struct vk_error *err;
};

static bool absent(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_NULL;
}

static bool in_list(struct vk_bytes key, const char *names)
{
	while (*names) {
		size_t n = strcspn(names, " ");
		if (vk_bytes_eq(key, (struct vk_bytes){names, n})) return true;
		names += n + (names[n] == ' ');
	}
	return false;
}

static bool is_edit(const struct writer *x, enum vk_qd_edit_kind kind)
{
	return x->e && x->e->kind == kind;
}

/* --- pieces --- */

/* The new word, else the old one, else the default. */
static void put_merged(struct vk_jw *w, const struct vk_qdc_member *table, const vk_jv *old, const vk_jv *new)
{
	vk_jw_object(w);
	for (; table->name; table++) {
		const vk_jv *v = vk_jv_get(new, table->name);
		if (absent(v)) v = vk_jv_get(old, table->name);
		if (absent(v) && !table->dflt) continue;
		vk_jw_key(w, table->name);
		if (absent(v)) vk_jw_raw(w, vk_bytes_of(table->dflt));
		else vk_jw_value(w, v);
	}
	vk_jw_object_end(w);
}

static void put_quant(struct vk_jw *w, const vk_jv *q)
{
	for (size_t i = 0; i < VK_QDC_QUANTS; i++) {
		const vk_jv *one = vk_jv_get(q, vk_qdc_quants[i].name);
		if (absent(one)) continue;
		vk_jw_object(w);
		vk_jw_key(w, vk_qdc_quants[i].name);
		put_merged(w, vk_qdc_quants[i].members, NULL, one);
		vk_jw_object_end(w);
		return;
	}
	vk_jw_null(w);
}

/* What a quantization is after a diff: "Disabled" takes it away, another one replaces it. */
static const vk_jv *quant_of(const vk_jv *old, const vk_jv *new)
{
	if (vk_jv_type(new) == VK_J_STRING) return NULL;
	return absent(new) ? old : new;
}

/* --- vectors --- */

/* The id that the client wants this vector bound to; NULL: nothing said. */
static const vk_jv *wanted_space(const struct writer *x, struct vk_bytes name)
{
	const vk_jv *spaces = vk_jv_get(x->ours, "spaces"), *v = vk_jv_get(spaces, name.n ? name.p : "");
	return v || name.n ? v : vk_jv_get(spaces, "default");
}

static enum vk_status find_space(const struct writer *x, struct vk_bytes name, struct vk_bytes id, uint64_t dims,
				 const struct vk_space **out)
{
	const struct vk_space *s = vk_registry_space(x->registry, id);
	int n = (int)vk_utf8_valid(id.p, id.n < 128 ? id.n : 128);
	if (!s)
		return vk_qd_wrong(x->err, "vector `%s` cannot be bound to space `%.*s`: no such space is configured here (GET /v1/spaces)",
				   vk_qdc_shown(name), n, id.p);
	if (s->dims != dims && !vk_space_gives_dims(s, dims))
		return vk_qd_wrong(x->err, "Vector dimension error: vector `%s` has %llu dimensions, space `%s` gives %u", vk_qdc_shown(name),
				   (unsigned long long)dims, s->id, s->dims);
	*out = s;
	return VK_OK;
}

struct binding {
	const char *space; /* NULL: none */
	uint32_t space_id;
	bool raw;
};

/* The space that the client names, when he names one. */
static enum vk_status take_wanted(const struct writer *x, struct vk_bytes name, uint64_t dims, struct binding *b)
{
	const struct vk_space *s = NULL;
	struct vk_bytes id;
	if (!vk_jv_str(wanted_space(x, name), &id) || !id.n) return VK_OK;
	enum vk_status st = find_space(x, name, id, dims, &s);
	if (st) return st;
	if (b->space && strcmp(b->space, s->id) != 0)
		return vk_fail(x->err, VK_E_CONFLICT,
			       "Conflict: vector `%s` is bound to space %s and cannot be bound to %s: vectors of two spaces do not "
			       "compare. Re-embed it into a new vector or collection.", vk_qdc_shown(name), b->space, s->id);
	b->space = s->id;
	b->space_id = s->num;
	return VK_OK;
}

/* What a write found out. It was judged by the config that the request came under; since then another one may have bound the vector, or
 * brought raw rows, so it is judged again by this moment's: here nobody comes between. */
static enum vk_status take_found(const struct writer *x, const struct vk_vector_conf *was, struct binding *b)
{
	const struct vk_qd_found *f = is_edit(x, VK_QD_FOUND) ? x->e->found : NULL, *end = f ? f + x->e->found_n : NULL;
	while (f < end && strcmp(f->name, was->name) != 0) f++;
	if (f == end) return VK_OK;
	enum vk_status st = f->space ? vk_qd_joins(was, f->space, f->text, true, x->err) : VK_OK;
	if (st) return st;
	b->raw |= f->raw;
	if (!f->space || b->space || b->raw) return VK_OK;
	const struct vk_space *s = vk_registry_space(x->registry, vk_bytes_of(f->space));
	b->space = f->space;
	b->space_id = s ? s->num : 0; /* cached rows of a space that is configured no more */
	return VK_OK;
}

/* {"set", "space", "space_id", "raw", "index"} and what else was there. was NULL: a new vector, of these params. */
static enum vk_status put_own(struct writer *x, struct vk_bytes name, uint64_t dims, const struct vk_vector_conf *was, const vk_jv *params)
{
	const vk_jv *old = was ? vk_jv_get(was->json, "veckeep") : NULL;
	struct binding b = {0};
	if (was) b = (struct binding){was->space, was->set.space, was->raw};
	enum vk_status st = take_wanted(x, name, dims, &b);
	if (!st && was) st = take_found(x, was, &b);
	if (st) return st;
	vk_jw_key(x->w, "veckeep");
	vk_jw_object(x->w);
	vk_jw_key(x->w, "set");
	vk_jw_u64(x->w, was ? was->set.id : x->next_set++);
	vk_jw_kv(x->w, "space", b.space);
	vk_jw_ki(x->w, "space_id", b.space_id);
	vk_jw_kb(x->w, "raw", b.raw);
	for (const vk_jv *m = vk_jv_first(old); m; m = vk_jv_next(m))
		if (!in_list(vk_jv_key(m), "set space space_id raw index")) vk_jw_member(x->w, m);
	bool single = x->now ? x->now->single : vk_qdc_is_single(vk_jv_get(x->body, "vectors"));
	st = vk_qdc_index_put(x->w, vk_jv_get(x->ours, "index"), single, name, was, params, x->err);
	vk_jw_object_end(x->w);
	return st;
}

/* old NULL: new, from its own parameters; else old with a diff over it (NULL: none). */
static enum vk_status put_vector(struct writer *x, struct vk_bytes name, const struct vk_vector_conf *old, const vk_jv *params)
{
	const vk_jv *was = old ? old->json : NULL, *first = was ? was : params;
	static const char *const fixed[] = {"size", "distance", "datatype"};
	static const char *const changing[] = {"on_disk", "memory"};
	uint64_t dims = 0;
	vk_jv_u64(vk_jv_get(first, "size"), &dims);
	vk_jw_key(x->w, name.n ? name.p : "");
	vk_jw_object(x->w);
	for (size_t i = 0; i < 3; i++)
		if (!absent(vk_jv_get(first, fixed[i]))) vk_jw_member(x->w, vk_jv_get(first, fixed[i]));
	for (size_t i = 0; i < 2; i++) {
		const vk_jv *v = vk_jv_get(params, changing[i]);
		if (absent(v)) v = vk_jv_get(was, changing[i]);
		if (!absent(v)) vk_jw_member(x->w, v);
	}
	const vk_jv *graph = vk_jv_get(params, "hnsw_config"), *graph_was = vk_jv_get(was, "hnsw_config");
	if (!absent(graph) || !absent(graph_was)) {
		vk_jw_key(x->w, "hnsw_config");
		put_merged(x->w, vk_qdc_hnsw_own, graph_was, graph);
	}
	const vk_jv *quant = quant_of(vk_jv_get(was, "quantization_config"), vk_jv_get(params, "quantization_config"));
	if (!absent(quant)) {
		vk_jw_key(x->w, "quantization_config");
		put_quant(x->w, quant);
	}
	enum vk_status st = put_own(x, name, dims, old, params);
	vk_jw_object_end(x->w);
	return st;
}

/* Every name in `spaces` must be a vector, and every vector of a diff, too. */
static enum vk_status check_names(struct writer *x, const vk_jv *vectors)
{
	const vk_jv *diff = is_edit(x, VK_QD_UPDATE) ? vk_jv_get(x->body, "vectors") : NULL;
	for (const vk_jv *v = vk_jv_first(diff); v; v = vk_jv_next(v))
		if (!vk_colconf_vector(x->now, vk_jv_key(v)))
			return vk_qd_wrong(x->err, "Not existing vector name error: %s", vk_jv_key(v).p);
	for (const vk_jv *v = vk_jv_first(vk_jv_get(x->ours, "spaces")); v; v = vk_jv_next(v)) {
		struct vk_bytes name = vk_jv_key(v);
		bool unnamed = !name.n || vk_bytes_is(name, "default"), there;
		if (x->now) there = vk_colconf_vector(x->now, name) || (unnamed && vk_colconf_vector(x->now, VK_LIT("")));
		else there = vk_qdc_is_single(vectors) ? unnamed : vk_jv_get(vectors, name.p) != NULL;
		if (!there)
			return vk_qd_wrong(x->err, "Not existing vector name error: %s (metadata.veckeep.spaces)", vk_qdc_shown(name));
	}
	return vk_qdc_index_names(vk_jv_get(x->ours, "index"), vectors, x->now, x->err);
}

static enum vk_status put_vectors(struct writer *x)
{
	const vk_jv *new = vk_jv_get(x->body, "vectors");
	enum vk_status st = check_names(x, new);
	vk_jw_key(x->w, "vectors");
	vk_jw_object(x->w);
	for (size_t i = 0; x->now && i < x->now->vectors_n && !st; i++) {
		const struct vk_vector_conf *v = &x->now->vectors[i];
		struct vk_bytes name = vk_bytes_of(v->name);
		if (is_edit(x, VK_QD_VECTOR_DROP) && vk_bytes_eq(name, x->e->name)) continue;
		st = put_vector(x, name, v, vk_jv_get(new, v->name));
	}
	if (!x->now && vk_qdc_is_single(new)) st = st ? st : put_vector(x, VK_LIT(""), NULL, new);
	else if (!x->now)
		for (const vk_jv *v = vk_jv_first(new); v && !st; v = vk_jv_next(v)) st = put_vector(x, vk_jv_key(v), NULL, v);
	if (is_edit(x, VK_QD_VECTOR_ADD) && !st && !vk_colconf_vector(x->now, x->e->name)) st = put_vector(x, x->e->name, NULL, x->e->body);
	vk_jw_object_end(x->w);
	return st;
}

/* --- sparse vectors --- */

/* old NULL: new. params: SparseVectorParams over what was, or, when one is added, SparseVectorConfig; NULL: none. */
static void put_one_sparse(struct writer *x, struct vk_bytes name, const struct vk_vector_conf *old, const vk_jv *params)
{
	const vk_jv *was = old ? old->json : NULL, *index_was = vk_jv_get(was, "index"), *index = vk_jv_get(params, "index");
	const vk_jv *modifier = vk_jv_get(params, "modifier"), *datatype = vk_jv_get(params, "datatype");
	if (absent(modifier)) modifier = vk_jv_get(was, "modifier");
	vk_jw_key(x->w, name.p);
	vk_jw_object(x->w);
	if (is_edit(x, VK_QD_SPARSE_ADD) && !old && !absent(datatype)) {
		vk_jw_key(x->w, "index");
		vk_jw_object(x->w);
		vk_jw_member(x->w, datatype);
		vk_jw_object_end(x->w);
	} else if (!absent(index) || !absent(index_was)) {
		vk_jw_key(x->w, "index");
		put_merged(x->w, vk_qdc_sparse_index, index_was, index);
	}
	if (!absent(modifier)) vk_jw_member(x->w, modifier);
	vk_jw_key(x->w, "veckeep");
	vk_jw_object(x->w);
	vk_jw_ki(x->w, "set", old ? old->set.id : x->next_set++);
	vk_jw_object_end(x->w);
	vk_jw_object_end(x->w);
}

static enum vk_status put_sparse(struct writer *x)
{
	const vk_jv *said = vk_jv_get(x->body, "sparse_vectors");
	for (const vk_jv *v = x->now ? vk_jv_first(said) : NULL; v; v = vk_jv_next(v)) {
		const struct vk_vector_conf *c = vk_colconf_named(x->now, vk_jv_key(v));
		if (!c || !c->sparse) return vk_qd_wrong(x->err, "Not existing vector name error: %s", vk_jv_key(v).p);
	}
	vk_jw_key(x->w, "sparse_vectors");
	vk_jw_object(x->w);
	for (size_t i = 0; x->now && i < x->now->sparse_n; i++) {
		const struct vk_vector_conf *c = &x->now->sparse[i];
		struct vk_bytes name = vk_bytes_of(c->name);
		if (is_edit(x, VK_QD_VECTOR_DROP) && vk_bytes_eq(name, x->e->name)) continue;
		put_one_sparse(x, name, c, vk_jv_get(said, c->name));
	}
	for (const vk_jv *v = x->now ? NULL : vk_jv_first(said); v; v = vk_jv_next(v)) put_one_sparse(x, vk_jv_key(v), NULL, v);
	if (is_edit(x, VK_QD_SPARSE_ADD) && !vk_colconf_named(x->now, x->e->name)) put_one_sparse(x, x->e->name, NULL, x->e->body);
	vk_jw_object_end(x->w);
	return VK_OK;
}

/* --- the rest --- */

static void put_params(struct writer *x)
{
	const vk_jv *old = vk_jv_get(x->old, "params");
	const vk_jv *new = x->now ? vk_jv_get(x->body, "params") : x->body;
	vk_jw_key(x->w, "params");
	vk_jw_object(x->w);
	for (const struct vk_qdc_member *m = vk_qdc_params; m->name; m++) {
		const vk_jv *v = vk_jv_get(new, m->name);
		if (absent(v)) v = vk_jv_get(old, m->name);
		if (absent(v) && !m->dflt) continue;
		vk_jw_key(x->w, m->name);
		if (absent(v)) vk_jw_raw(x->w, vk_bytes_of(m->dflt));
		else vk_jw_value(x->w, v);
	}
	vk_jw_object_end(x->w);
}

static void put_configs(struct writer *x)
{
	const struct {
		const char *name, *in_body;
		const struct vk_qdc_member *table;
	} list[] = {{"hnsw_config", "hnsw_config", vk_qdc_hnsw},
		    {"optimizer_config", "optimizers_config", vk_qdc_optimizer},
		    {"wal_config", "wal_config", vk_qdc_wal}};
	for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
		vk_jw_key(x->w, list[i].name);
		put_merged(x->w, list[i].table, vk_jv_get(x->old, list[i].name), vk_jv_get(x->body, list[i].in_body));
	}
	vk_jw_key(x->w, "quantization_config");
	put_quant(x->w, quant_of(vk_jv_get(x->old, "quantization_config"), vk_qdc_quant_of_body(x->body)));
	const vk_jv *strict_was = vk_jv_get(x->old, "strict_mode_config"), *strict = vk_jv_get(x->body, "strict_mode_config");
	vk_jw_key(x->w, "strict_mode_config");
	if (absent(strict) && absent(strict_was)) vk_jw_null(x->w);
	else put_merged(x->w, vk_qdc_strict, strict_was, strict);
}

/* A null takes a key away, as in Qdrant; without any key left there is no metadata. */
static void put_metadata(struct writer *x)
{
	const vk_jv *old = vk_jv_get(x->old, "metadata"), *new = vk_jv_get(x->body, "metadata");
	vk_jw_key(x->w, "metadata");
	if (absent(old) && absent(new)) {
		vk_jw_null(x->w);
		return;
	}
	vk_jw_object(x->w);
	for (const vk_jv *m = vk_jv_first(old); m; m = vk_jv_next(m))
		if (!vk_jv_get(new, vk_jv_key(m).p)) vk_jw_member(x->w, m);
	for (const vk_jv *m = vk_jv_first(new); m; m = vk_jv_next(m))
		if (!absent(m) || !x->now) vk_jw_member(x->w, m);
	vk_jw_object_end(x->w);
}

static void put_new_index(struct writer *x)
{
	vk_jw_key(x->w, x->e->name.p);
	vk_jw_object(x->w);
	vk_jw_ki(x->w, "field", x->next_field++);
	vk_jw_kv(x->w, "type", vk_field_type_names[vk_qdc_index_type(x->e->body)]);
	vk_jw_key(x->w, "params");
	if (vk_jv_type(x->e->body) == VK_J_OBJECT) vk_jw_value(x->w, x->e->body);
	else vk_jw_null(x->w);
	vk_jw_kv(x->w, "state", "building");
	vk_jw_object_end(x->w);
}

/* An index asked for again stays; asked for otherwise, it is built anew under another number. */
static void put_indexes(struct writer *x)
{
	const vk_jv *old = vk_jv_get(x->old, "indexes");
	bool add = is_edit(x, VK_QD_INDEX_ADD);
	vk_jw_key(x->w, "indexes");
	vk_jw_object(x->w);
	for (const vk_jv *m = vk_jv_first(old); m; m = vk_jv_next(m)) {
		bool named = x->e && vk_bytes_eq(vk_jv_key(m), x->e->name);
		if (named && is_edit(x, VK_QD_INDEX_DROP)) continue;
		if (named && add) {
			struct vk_bytes type = {0};
			vk_jv_str(vk_jv_get(m, "type"), &type);
			const vk_jv *params = vk_jv_type(x->e->body) == VK_J_OBJECT ? x->e->body : NULL;
			if (!vk_bytes_is(type, vk_field_type_names[vk_qdc_index_type(x->e->body)]) ||
			    !vk_qdc_same_json(params, vk_jv_get(m, "params")))
				continue;
			add = false;
		}
		vk_jw_member(x->w, m);
	}
	if (add) put_new_index(x);
	vk_jw_object_end(x->w);
}

/* What the client says of ours now, an explicit null too; else what was. */
static const vk_jv *ours_or_old(const struct writer *x, const char *key)
{
	const vk_jv *said = vk_jv_get(x->ours, key);
	return said ? said : vk_jv_get(vk_jv_get(x->old, "veckeep"), key);
}

static enum vk_status put_ttl(struct writer *x)
{
	const vk_jv *said = vk_jv_get(x->ours, "ttl"), *ttl = ours_or_old(x, "ttl");
	int64_t ms = 0;
	vk_jw_key(x->w, "ttl");
	if (absent(ttl) || !said) {
		if (absent(ttl)) vk_jw_null(x->w);
		else vk_jw_value(x->w, ttl);
		return VK_OK;
	}
	enum vk_status st = vk_qdc_read_after(vk_jv_get(ttl, "after"), &ms, x->err);
	vk_jw_object(x->w);
	vk_jw_member(x->w, vk_jv_get(ttl, "field"));
	vk_jw_ki(x->w, "after_ms", ms);
	vk_jw_object_end(x->w);
	return st;
}

static enum vk_status put_ours(struct writer *x)
{
	const vk_jv *old = vk_jv_get(x->old, "veckeep");
	const char *found = is_edit(x, VK_QD_FOUND) && !x->now->text_from ? x->e->text_from : NULL;
	const vk_jv *from = ours_or_old(x, "text_from"), *mode = ours_or_old(x, "provenance"), *pool = vk_jv_get(old, "pool");
	vk_jw_key(x->w, "veckeep");
	vk_jw_object(x->w);
	vk_jw_key(x->w, "text_from");
	if (absent(from)) vk_jw_cstr(x->w, found);
	else vk_jw_value(x->w, from);
	vk_jw_key(x->w, "provenance");
	if (absent(mode)) vk_jw_cstr(x->w, "warn");
	else vk_jw_value(x->w, mode);
	enum vk_status st = put_ttl(x);
	vk_jw_ki(x->w, "next_set", x->next_set);
	vk_jw_ki(x->w, "next_field", x->next_field);
	vk_jw_key(x->w, "pool");
	if (absent(pool)) vk_jw_cstr(x->w, "default");
	else vk_jw_value(x->w, pool);
	for (const vk_jv *m = vk_jv_first(old); m; m = vk_jv_next(m))
		if (!in_list(vk_jv_key(m), OURS_KNOWN)) vk_jw_member(x->w, m);
	vk_jw_object_end(x->w);
	return st;
}

static enum vk_status write_config(struct writer *x, struct vk_buf *json)
{
	struct vk_jw w;
	vk_jw_init(&w, json);
	x->w = &w;
	vk_jw_object(&w);
	enum vk_status st = put_vectors(x);
	if (!st) st = put_sparse(x);
	if (st) return st;
	put_params(x);
	put_configs(x);
	put_metadata(x);
	put_indexes(x);
	st = put_ours(x);
	if (st) return st;
	for (const vk_jv *m = vk_jv_first(x->old); m; m = vk_jv_next(m))
		if (!in_list(vk_jv_key(m), TOP_KNOWN)) vk_jw_member(&w, m);
	vk_jw_object_end(&w);
	return json->failed ? vk_fail(x->err, VK_E_TOO_LARGE, "the collection's config would be too long") : VK_OK;
}

enum vk_status vk_qd_config_create(struct vk_app *app, const vk_jv *body, struct vk_buf *json, struct vk_error *err)
{
	enum vk_status st = vk_qdc_check_create(body, err);
	if (st) return st;
	struct writer x = {.body = body, .ours = vk_jv_get(vk_jv_get(body, "metadata"), "veckeep"), .registry = vk_app_registry(app),
			   .next_set = 1, .next_field = 1, .err = err};
	st = write_config(&x, json);
	vk_registry_unref(x.registry);
	return st;
}

enum vk_status vk_qd_config_edit(void *arg, const struct vk_colconf *now, struct vk_buf *json, struct vk_error *err)
{
	struct vk_qd_edit *e = arg;
	enum vk_status st = vk_qdc_check_now(e, now, err);
	if (st) return st;
	const vk_jv *body = e->kind == VK_QD_UPDATE ? e->body : NULL;
	struct writer x = {.e = e, .now = now, .old = now->root, .body = body, .registry = e->registry,
			   .ours = vk_jv_get(vk_jv_get(body, "metadata"), "veckeep"), .next_set = now->next_set,
			   .next_field = now->next_field, .err = err};
	return write_config(&x, json);
}
