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
#include "server/qdrant_config.h"

enum { BIND_SPACE = 1, BIND_RAW = 2, BIND_TEXT = 4 };

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

static const char *what_came(bool text)
{
	return text ? "the text's model makes vectors" : "this vector is";
}

enum vk_status vk_qd_joins(const struct vk_vector_conf *v, const char *space, bool text, bool write, struct vk_error *err)
{
	if (v->space)
		return strcmp(v->space, space) == 0 ? VK_OK : other_space(v, v->space, space, what_came(text), write, err);
	if (write && v->raw && text)
		return vk_fail_param(err, VK_E_CONFLICT, "space_unknown", NULL,
				     "Conflict: vector `%s` holds raw vectors of no known space, so text cannot join them. If "
				     "they are of space %s, say so: PATCH the collection with metadata "
				     "{\"veckeep\": {\"spaces\": {\"%s\": \"%s\"}}}.",
				     vk_qd_shown(v), space, v->name, space);
	return VK_OK;
}

/* A row or text of `space` goes into the vector. */
enum vk_status vk_qd_meets(struct vk_qd *q, const struct vk_vector_conf *v, const char *space, bool text, bool write,
			    struct vk_error *err)
{
	enum vk_status st = vk_qd_joins(v, space, text, write, err);
	if (st || v->space || v->raw || !write) return st;
	struct vk_qd_bind *b = bind_of(q, v);
	if (!b) return vk_fail(err, VK_E_NOMEM, "out of memory");
	if (b->space && strcmp(b->space, space) != 0) return other_space(v, b->space, space, what_came(text), write, err);
	if (!b->space) b->space = vk_arena_strndup(&q->req->arena, space, strlen(space));
	if (b->what & BIND_RAW && text)
		return vk_fail_param(err, VK_E_CONFLICT, "space_unknown", NULL,
				     "Conflict: one request holds text and vectors of no known space for vector `%s`.", vk_qd_shown(v));
	b->what |= BIND_SPACE | (text ? BIND_TEXT : 0);
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

static enum vk_status tell_config(struct vk_qd *q, const char *text_from, struct vk_error *err)
{
	struct vk_qd_found found[VK_VECTORS_MAX]; /* there is one bind a vector */
	struct vk_qd_edit e = {.app = q->app, .kind = VK_QD_FOUND, .found = found, .text_from = text_from};
	for (const struct vk_qd_bind *b = q->binds; b; b = b->next)
		found[e.found_n++] = (struct vk_qd_found){.name = b->vector->name, .space = b->what & BIND_SPACE ? b->space : NULL,
							  .text = b->what & BIND_TEXT, .raw = b->what & BIND_RAW};
	e.registry = vk_app_registry(q->app);
	enum vk_status st = vk_collection_configure(q->c, vk_qd_config_edit, &e, false, err);
	vk_registry_unref(e.registry);
	return st;
}

enum vk_status vk_qd_settle(struct vk_qd *q, const struct vk_op_in *ops, size_t n, struct vk_error *err)
{
	bool news = false;
	uint64_t unknown = 0;
	const char *text_from = q->conf->text_from ? NULL : find_text_from(ops, n);
	for (const struct vk_qd_bind *b = q->binds; b; b = b->next) {
		news |= is_news(b);
		unknown += b->unknown;
	}
	if (unknown && q->conf->provenance == VK_PROVENANCE_WARN)
		vk_reply_headerf(q->req, "x-veckeep-unknown-vectors", "%llu", (unsigned long long)unknown);
	return news || text_from ? tell_config(q, text_from, err) : VK_OK;
}
