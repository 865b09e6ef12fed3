/*
 * Which space a vector of a collection is of, and what may join it (DESIGN section 1).
 *
 * Two spaces never meet in one vector: a text's space is the vector's, or becomes it (the first text binds a vector that
 * never held a raw row); a raw row that we have served is known by its HMAC and must be of the vector's space. Rows that
 * all come from one space bind an empty vector just as a text does: then unmodified applications, which send raw rows,
 * keep the rule without knowing it. A row nobody knows is taken and counted (warn), refused (require), or not looked at
 * (off); it marks the vector as raw, and from then on only an operator binds it.
 */
#include "embed/key.h"
#include "index/text_source.h"
#include "server/qdrant.h"

enum { BIND_SPACE = 1, BIND_RAW = 2 };

struct vk_qd_bind { /* what this request found out about one vector of its collection */
	const struct vk_vector_conf *vector;
	const char *space; /* arena; NULL: none seen */
	unsigned what;
	uint64_t unknown;
	struct vk_qd_bind *next;
};

/* --- what a request finds out about a vector --- */

static struct vk_qd_bind *bind_of(struct vk_qd *q, const struct vk_vector_conf *vector)
{
	struct vk_qd_bind *b;
	for (b = q->binds; b; b = b->next)
		if (b->vector == vector) return b;
	if (!(b = vk_arena_calloc(&q->req->arena, 1, sizeof *b))) return NULL;
	b->vector = vector;
	b->next = q->binds;
	q->binds = b;
	return b;
}

static enum vk_status other_space(const struct vk_vector_conf *v, const char *mine, const char *theirs,
				  const char *what, bool write, struct vk_error *err)
{
	return vk_fail_param(err, VK_E_CONFLICT, "space_mismatch", NULL,
			     "Conflict: vector `%s` holds space %s, but %s of space %s. Vectors of two spaces do not "
			     "compare: %s, or re-embed the collection into %s.",
			     vk_qd_shown(v), mine, what, theirs,
			     write ? "embed with a model of its own space, or write to another collection or named vector"
				   : "embed the query with a model of its own space",
			     theirs);
}

/* A row or text of `space` goes into the vector. */
enum vk_status vk_qd_meets(struct vk_qd *q, const struct vk_vector_conf *v, const char *space, bool text, bool write,
			    struct vk_error *err)
{
	const char *what = text ? "the text's model makes vectors" : "this vector is";
	if (v->space)
		return strcmp(v->space, space) == 0 ? VK_OK : other_space(v, v->space, space, what, write, err);
	if (!write) return VK_OK;
	if (v->raw && text)
		return vk_fail_param(err, VK_E_CONFLICT, "space_unknown", NULL,
				     "Conflict: vector `%s` holds raw vectors of no known space, so text cannot join them. If "
				     "they are of space %s, say so: PATCH the collection with metadata "
				     "{\"veckeep\": {\"spaces\": {\"%s\": \"%s\"}}}.",
				     vk_qd_shown(v), space, v->name, space);
	if (v->raw) return VK_OK;
	struct vk_qd_bind *b = bind_of(q, v);
	if (!b) return vk_fail(err, VK_E_NOMEM, "out of memory");
	if (b->space && strcmp(b->space, space) != 0) return other_space(v, b->space, space, what, write, err);
	if (!b->space) b->space = vk_arena_strndup(&q->req->arena, space, strlen(space));
	if (b->what & BIND_RAW && text)
		return vk_fail_param(err, VK_E_CONFLICT, "space_unknown", NULL,
				     "Conflict: one request holds text and vectors of no known space for vector `%s`.", vk_qd_shown(v));
	b->what |= BIND_SPACE;
	return b->space ? VK_OK : vk_fail(err, VK_E_NOMEM, "out of memory");
}

/* --- raw rows --- */

/* The space that served this row, in any of the caller's pools; false: nobody knows it. */
static bool recognise(struct vk_qd *q, const float *row, size_t dims, char *space, size_t cap)
{
	const struct vk_tenant *pool[2] = {vk_tenants_default(q->app->tenants), NULL};
	struct vk_cache_read *r;
	bool found = false;
	const struct vk_auth *auth = q->req->auth;
	if (auth && auth->bearer.n && !auth->key_id[0] &&
	    vk_tenants_client(q->app->tenants, auth->bearer, &pool[1]))
		pool[1] = NULL;
	if (vk_cachedb_read_begin(q->app->cache, &r)) return false;
	for (size_t p = 0; p < 2 && !found; p++)
		for (size_t s = 0; pool[p] && !vk_tenant_provisional(pool[p]) && s < pool[p]->secrets_n && !found; s++) {
			uint8_t mac[VK_CACHE_TAG_SIZE];
			struct vk_cache_key key;
			struct vk_buf name;
			vk_key_row(&pool[p]->secret[s], row, dims, mac);
			if (vk_cachedb_get_provenance(r, pool[p]->id, mac, &key)) continue;
			vk_buf_init(&name, cap);
			found = !vk_catalog_name(q->app->catalog, VK_NAME_SPACE, vk_cache_key_space(&key), &name) &&
				name.n < cap;
			if (found) memcpy(space, name.p, name.n), space[name.n] = 0;
			vk_buf_free(&name);
		}
	vk_cachedb_read_end(r);
	return found;
}

enum vk_status vk_qd_raw(struct vk_qd *q, struct vk_colconf *cc, const struct vk_vector_conf *conf, const float *row,
			 bool write, struct vk_error *err)
{
	char space[512];
	if (cc->provenance != VK_PROVENANCE_OFF && recognise(q, row, conf->set.dims, space, sizeof space))
		return vk_qd_meets(q, conf, space, false, write, err);
	if (cc->provenance == VK_PROVENANCE_REQUIRE)
		return vk_fail_param(err, VK_E_CONFLICT, "vector_unknown", NULL,
				     "Conflict: this vector was not served by veckeep, and the collection takes none of unknown "
				     "origin (provenance: require). Send the text in its place, or embed it through "
				     "/v1/embeddings.");
	if (!write) return VK_OK;
	struct vk_qd_bind *b = bind_of(q, conf);
	if (!b) return vk_fail(err, VK_E_NOMEM, "out of memory");
	if (b->what & BIND_SPACE && !conf->space) b->what &= ~(unsigned)BIND_SPACE;
	b->what |= BIND_RAW;
	b->unknown++;
	return VK_OK;
}

/* --- making the config say it --- */

struct settle {
	struct vk_qd *q;
	const char *text_from;
	struct vk_registry *registry;
};

static const struct vk_qd_bind *bind_named(const struct vk_qd *q, struct vk_bytes name)
{
	for (const struct vk_qd_bind *b = q->binds; b; b = b->next)
		if (vk_bytes_is(name, b->vector->name)) return b;
	return NULL;
}

/* A vector's own veckeep object with what is known of it now. */
static enum vk_status write_vector_own(struct settle *s, struct vk_jw *w, const struct vk_vector_conf *now, const vk_jv *own, const struct vk_qd_bind *b, struct vk_error *err)
{
	const char *space = now->space;
	bool raw = now->raw || (b && b->what & BIND_RAW);
	if (b && b->what & BIND_SPACE && b->space) {
		if (now->space && strcmp(now->space, b->space) != 0)
			return other_space(now, now->space, b->space, "this request's vectors are", true, err);
		if (!now->raw && !(b->what & BIND_RAW)) space = b->space;
	}
	const struct vk_space *sp = space ? vk_registry_space(s->registry, vk_bytes_of(space)) : NULL;
	vk_jw_object(w);
	for (const vk_jv *m = vk_jv_first(own); m; m = vk_jv_next(m)) {
		struct vk_bytes k = vk_jv_key(m);
		if (!vk_bytes_is(k, "space") && !vk_bytes_is(k, "raw") && !vk_bytes_is(k, "space_id")) vk_jw_member(w, m);
	}
	vk_jw_kv(w, "space", space);
	if (sp) vk_jw_ki(w, "space_id", sp->num);
	vk_jw_kb(w, "raw", raw);
	vk_jw_object_end(w);
	return VK_OK;
}

static enum vk_status write_vectors(struct settle *s, struct vk_jw *w, const struct vk_colconf *now, const vk_jv *vectors, struct vk_error *err)
{
	enum vk_status st = VK_OK;
	vk_jw_object(w);
	for (const vk_jv *v = vk_jv_first(vectors); v && !st; v = vk_jv_next(v)) {
		struct vk_bytes name = vk_jv_key(v);
		const struct vk_vector_conf *conf = vk_colconf_vector(now, name);
		vk_jw_key(w, name.p);
		vk_jw_object(w);
		for (const vk_jv *m = vk_jv_first(v); m && !st; m = vk_jv_next(m)) {
			if (!vk_bytes_is(vk_jv_key(m), "veckeep")) {
				vk_jw_member(w, m);
				continue;
			}
			vk_jw_key(w, "veckeep");
			st = write_vector_own(s, w, conf, m, bind_named(s->q, name), err);
		}
		vk_jw_object_end(w);
	}
	vk_jw_object_end(w);
	return st;
}

static enum vk_status edit(void *arg, const struct vk_colconf *now, struct vk_buf *json, struct vk_error *err)
{
	struct settle *s = arg;
	struct vk_jw w;
	enum vk_status st = VK_OK;
	vk_jw_init(&w, json);
	vk_jw_object(&w);
	for (const vk_jv *m = vk_jv_first(now->root); m && !st; m = vk_jv_next(m)) {
		struct vk_bytes k = vk_jv_key(m);
		if (vk_bytes_is(k, "vectors")) {
			vk_jw_key(&w, "vectors");
			st = write_vectors(s, &w, now, m, err);
		} else if (vk_bytes_is(k, "veckeep") && s->text_from && !now->text_from) {
			vk_jw_key(&w, "veckeep");
			vk_jw_object(&w);
			for (const vk_jv *o = vk_jv_first(m); o; o = vk_jv_next(o))
				if (!vk_bytes_is(vk_jv_key(o), "text_from")) vk_jw_member(&w, o);
			vk_jw_kv(&w, "text_from", s->text_from);
			vk_jw_object_end(&w);
		} else {
			vk_jw_member(&w, m);
		}
	}
	if (!st) vk_jw_object_end(&w);
	return st;
}

static const char *find_text_from(const struct vk_op_in *ops, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; ops[i].kind == VK_OP_UPSERT && ops[i].point_n &&
				   k < VK_TEXT_KEYS; k++)
			if (vk_jv_type(vk_jv_get(ops[i].point[0].payload_jv, vk_text_keys[k])) == VK_J_STRING)
				return vk_text_keys[k];
	return NULL;
}

/* Does this bind say something that the config does not? */
static bool is_news(const struct vk_qd_bind *b)
{
	if (b->what & BIND_RAW) return !b->vector->raw && !b->vector->space;
	return b->what & BIND_SPACE && !b->vector->space && !b->vector->raw;
}

enum vk_status vk_qd_settle(struct vk_qd *q, const struct vk_op_in *ops, size_t n, struct vk_error *err)
{
	struct settle s = {.q = q};
	bool news = false;
	uint64_t unknown = 0;
	if (!q->conf->text_from) s.text_from = find_text_from(ops, n);
	for (const struct vk_qd_bind *b = q->binds; b; b = b->next) {
		news |= is_news(b);
		unknown += b->unknown;
	}
	if (unknown && q->conf->provenance == VK_PROVENANCE_WARN)
		vk_reply_headerf(q->req, "x-veckeep-unknown-vectors", "%llu", (unsigned long long)unknown);
	if (!news && !s.text_from) return VK_OK;
	s.registry = vk_app_registry(q->app);
	enum vk_status st = vk_collection_configure(q->c, edit, &s, false, err);
	vk_registry_unref(s.registry);
	return st;
}
