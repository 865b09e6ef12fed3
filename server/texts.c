/*
 * Texts in place of vectors, and raw vectors that are recognised (DESIGN section 1).
 *
 * Texts of one request are grouped by space and role; each group is one operation of the engine, so a text is paid for
 * once, whichever API it came through. The groups run side by side; the last one to end goes on with the request.
 *
 * Two spaces never meet in one vector: a text's space is the vector's, or becomes it (the first text binds a vector that
 * never held a raw row); a raw row that we have served is known by its HMAC and must be of the vector's space. Rows that
 * all come from one space bind an empty vector just as a text does: then unmodified applications, which send raw rows,
 * keep the rule without knowing it. A row nobody knows is taken and counted (warn), refused (require), or not looked at
 * (off); it marks the vector as raw, and from then on only an operator binds it.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "embed/key.h"
#include "index/text_source.h"
#include "server/qdrant.h"
#include "simd/vec.h"

enum { BIND_SPACE = 1, BIND_RAW = 2 };

struct vk_qd_bind { /* what this request found out about one vector of its collection */
	const struct vk_vector_conf *vector;
	const char *space; /* arena; NULL: none seen */
	unsigned what;
	uint64_t unknown;
	struct vk_qd_bind *next;
};

struct group {
	struct vk_text_run *run;
	const struct vk_space *space;
	const struct vk_role *role;
	struct vk_qd_text **text; /* per input */
	struct vk_input *input;
	size_t n;
	struct vk_op op;
	bool started;
};

struct vk_text_run {
	struct vk_qd *q;
	void (*then)(struct vk_qd *q);
	struct vk_registry *registry;
	struct group *group;
	size_t groups;
	atomic_uint pending; /* groups under way, and one for who starts them */
	pthread_mutex_t lock; /* cancelled, started, error */
	bool cancelled, failed;
	enum vk_gone why;
	struct vk_error err;
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

static const char *shown(const struct vk_vector_conf *v)
{
	return v->name[0] ? v->name : "default";
}

static enum vk_status other_space(const struct vk_vector_conf *v, const char *mine, const char *theirs,
				  const char *what, bool write, struct vk_error *err)
{
	return vk_fail_param(err, VK_E_CONFLICT, "space_mismatch", NULL,
			     "Conflict: vector `%s` holds space %s, but %s of space %s. Vectors of two spaces do not "
			     "compare: %s, or re-embed the collection into %s.",
			     shown(v), mine, what, theirs,
			     write ? "embed with a model of its own space, or write to another collection or named vector"
				   : "embed the query with a model of its own space",
			     theirs);
}

/* A row or text of `space` goes into the vector. */
static enum vk_status meets(struct vk_qd *q, const struct vk_vector_conf *v, const char *space, bool text, bool write,
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
				     shown(v), space, v->name, space);
	if (v->raw) return VK_OK;
	struct vk_qd_bind *b = bind_of(q, v);
	if (!b) return vk_fail(err, VK_E_NOMEM, "out of memory");
	if (b->space && strcmp(b->space, space) != 0) return other_space(v, b->space, space, what, write, err);
	if (!b->space) b->space = vk_arena_strndup(&q->req->arena, space, strlen(space));
	if (b->what & BIND_RAW && text)
		return vk_fail_param(err, VK_E_CONFLICT, "space_unknown", NULL,
				     "Conflict: one request holds text and vectors of no known space for vector `%s`.", shown(v));
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
		return meets(q, conf, space, false, write, err);
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

static void copy_member(struct vk_jw *w, struct vk_arena *a, const vk_jv *m)
{
	struct vk_bytes k = vk_jv_key(m);
	const char *key = vk_arena_strndup(a, k.p ? k.p : "", k.n);
	vk_jw_key(w, key ? key : "");
	vk_jw_value(w, m);
}

/* A vector's own veckeep object with what is known of it now. */
static enum vk_status write_vector_own(struct settle *s, struct vk_jw *w, struct vk_arena *a, const struct vk_vector_conf *now,
				       const vk_jv *own, const struct vk_qd_bind *b, struct vk_error *err)
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
		if (!vk_bytes_is(k, "space") && !vk_bytes_is(k, "raw") && !vk_bytes_is(k, "space_id")) copy_member(w, a, m);
	}
	vk_jw_kv(w, "space", space);
	if (sp) vk_jw_ki(w, "space_id", sp->num);
	vk_jw_kb(w, "raw", raw);
	vk_jw_object_end(w);
	return VK_OK;
}

static enum vk_status write_vectors(struct settle *s, struct vk_jw *w, struct vk_arena *a, const struct vk_colconf *now,
				    const vk_jv *vectors, struct vk_error *err)
{
	enum vk_status st = VK_OK;
	vk_jw_object(w);
	for (const vk_jv *v = vk_jv_first(vectors); v && !st; v = vk_jv_next(v)) {
		struct vk_bytes name = vk_jv_key(v);
		const struct vk_vector_conf *conf = vk_colconf_vector(now, name);
		const char *key = vk_arena_strndup(a, name.p ? name.p : "", name.n);
		if (!key || !conf) return vk_fail(err, VK_E_NOMEM, "out of memory");
		vk_jw_key(w, key);
		vk_jw_object(w);
		for (const vk_jv *m = vk_jv_first(v); m && !st; m = vk_jv_next(m)) {
			if (!vk_bytes_is(vk_jv_key(m), "veckeep")) {
				copy_member(w, a, m);
				continue;
			}
			vk_jw_key(w, "veckeep");
			st = write_vector_own(s, w, a, conf, m, bind_named(s->q, name), err);
		}
		vk_jw_object_end(w);
	}
	vk_jw_object_end(w);
	return st;
}

static enum vk_status edit(void *arg, const struct vk_colconf *now, struct vk_buf *json, struct vk_error *err)
{
	struct settle *s = arg;
	struct vk_arena a;
	struct vk_jw w;
	enum vk_status st = VK_OK;
	vk_arena_init(&a, (size_t)1 << 20);
	vk_jw_init(&w, json);
	vk_jw_object(&w);
	for (const vk_jv *m = vk_jv_first(now->root); m && !st; m = vk_jv_next(m)) {
		struct vk_bytes k = vk_jv_key(m);
		if (vk_bytes_is(k, "vectors")) {
			vk_jw_key(&w, "vectors");
			st = write_vectors(s, &w, &a, now, m, err);
		} else if (vk_bytes_is(k, "veckeep") && s->text_from && !now->text_from) {
			vk_jw_key(&w, "veckeep");
			vk_jw_object(&w);
			for (const vk_jv *o = vk_jv_first(m); o; o = vk_jv_next(o))
				if (!vk_bytes_is(vk_jv_key(o), "text_from")) copy_member(&w, &a, o);
			vk_jw_kv(&w, "text_from", s->text_from);
			vk_jw_object_end(&w);
		} else {
			copy_member(&w, &a, m);
		}
	}
	if (!st) vk_jw_object_end(&w);
	vk_arena_free(&a);
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

/* --- texts --- */

static enum vk_status check_options(const struct vk_qd_text *t, struct vk_error *err)
{
	uint64_t dims;
	for (const vk_jv *m = vk_jv_first(t->options); m; m = vk_jv_next(m)) {
		struct vk_bytes k = vk_jv_key(m);
		if (!vk_bytes_is(k, "dimensions"))
			return vk_fail(err, VK_E_INVALID,
				       "Wrong input: unknown option `%.*s` of a document; credentials and parameters of providers "
				       "are the server's configuration, they never come with a request",
				       (int)(k.n < 64 ? k.n : 64), k.p);
		if (!vk_jv_u64(m, &dims) || dims != t->vector->set.dims)
			return vk_fail(err, VK_E_INVALID, "Wrong input: option `dimensions` must be vector `%s`'s %u",
				       shown(t->vector), t->vector->set.dims);
	}
	return VK_OK;
}

static const struct vk_space *space_of(struct vk_text_run *run, const struct vk_qd_text *t, const struct vk_role **role,
				       struct vk_error *err)
{
	const struct vk_space *s = NULL;
	*role = NULL;
	if (t->model.n) {
		const struct vk_model_name *m = vk_registry_model(run->registry, t->model, role);
		s = m ? m->space : NULL;
		if (!s)
			vk_fail(err, VK_E_NOT_FOUND, "Not found: model `%.*s` does not exist here: GET /v1/models lists what does",
				(int)(t->model.n < 128 ? t->model.n : 128), t->model.p);
	} else if (t->vector->space) {
		s = vk_registry_space(run->registry, vk_bytes_of(t->vector->space));
		if (!s)
			vk_fail(err, VK_E_UNAVAILABLE, "Service error: space %s of vector `%s` is in no configuration of this server",
				t->vector->space, shown(t->vector));
	} else {
		vk_fail(err, VK_E_INVALID, "Wrong input: vector `%s` is bound to no space yet: name a `model` with the text",
			shown(t->vector));
	}
	return s;
}

static enum vk_status check_text(struct vk_text_run *run, const struct vk_qd_text *t, const struct vk_space **space,
				 const struct vk_role **role, struct vk_error *err)
{
	struct vk_app *app = run->q->app;
	enum vk_status st = check_options(t, err);
	if (st) return st;
	if (!t->text.n) return vk_fail(err, VK_E_INVALID, "Wrong input: an empty text cannot be embedded");
	if (t->text.n > app->config.text_bytes_max)
		return vk_fail(err, VK_E_INVALID, "Wrong input: a text has %zu bytes; the limit is %zu", t->text.n,
			       app->config.text_bytes_max);
	const struct vk_space *s = space_of(run, t, role, err);
	if (!s) return err->st;
	if (s->dims != t->vector->set.dims && !vk_space_gives_dims(s, t->vector->set.dims))
		return vk_fail(err, VK_E_INVALID,
			       "Wrong input: Vector dimension error: expected dim: %u, got %u (vector `%s`, space %s)",
			       t->vector->set.dims, s->dims, shown(t->vector), s->id);
	if (!*role) *role = vk_space_role(s, t->write ? VK_LIT("document") : VK_LIT("query"));
	if (!*role) *role = &s->roles[0];
	*space = s;
	return meets(run->q, t->vector, s->id, true, t->write, err);
}

/* One group a space and role, inputs in the request's order. */
static enum vk_status make_groups(struct vk_text_run *run, struct vk_error *err)
{
	struct vk_qd *q = run->q;
	struct vk_arena *a = &q->req->arena;
	run->group = vk_arena_calloc(a, q->texts_n, sizeof *run->group);
	if (!run->group) return vk_fail(err, VK_E_NOMEM, "out of memory");
	for (struct vk_qd_text *t = q->texts; t; t = t->next) {
		const struct vk_space *space = NULL;
		const struct vk_role *role = NULL;
		enum vk_status st = check_text(run, t, &space, &role, err);
		if (st) return st;
		size_t g = 0;
		while (g < run->groups && (run->group[g].space != space || run->group[g].role != role)) g++;
		struct group *gr = &run->group[g];
		if (g == run->groups) {
			*gr = (struct group){.run = run, .space = space, .role = role,
					     .text = vk_arena_calloc(a, q->texts_n, sizeof *gr->text),
					     .input = vk_arena_calloc(a, q->texts_n, sizeof *gr->input)};
			run->groups++;
			if (!gr->text || !gr->input) return vk_fail(err, VK_E_NOMEM, "out of memory");
		}
		gr->text[gr->n] = t;
		gr->input[gr->n++].text = t->text;
	}
	return VK_OK;
}

static enum vk_status set_up(struct group *g, struct vk_error *err)
{
	struct vk_qd *q = g->run->q;
	struct vk_op *op = &g->op;
	const struct vk_auth *auth = q->req->auth;
	enum vk_status pin = vk_space_pin(g->run->registry, g->space, q->app->catalog);
	if (pin == VK_E_EXISTS)
		return vk_fail(err, VK_E_EXISTS, "Conflict: space %s is pinned to another definition", g->space->id);
	if (pin) return vk_fail(err, VK_E_IO, "Service error: the catalog does not take writes");
	*op = (struct vk_op){.arena = &q->req->arena, .registry = g->run->registry, .space = g->space, .role = g->role,
			     .tenant = vk_tenants_default(q->app->tenants), .inputs = g->input, .n = g->n,
			     .interactive = !g->text[0]->write || g->n <= VK_INTERACTIVE_INPUTS, .max_age_ms = -1,
			     .now_ms = vk_wall_ms()};
	if (g->space->route[0].provider->api_key.from == VK_SECRET_CLIENT) {
		if (!auth || !auth->bearer.n || auth->key_id[0])
			return vk_fail(err, VK_E_UNAUTHORIZED,
				       "Unauthorized: space %s forwards its caller's own provider key: send that as the bearer",
				       g->space->id);
		op->bearer = auth->bearer;
		if (vk_tenants_client(q->app->tenants, auth->bearer, &op->tenant))
			return vk_fail(err, VK_E_BUSY, "Service error: too many different provider keys; try again later");
	}
	if (vk_op_lookup(q->app->engine, op)) return vk_fail(err, VK_E_NOMEM, "out of memory");
	if (op->missing && q->app->offline) {
		vk_op_landed(q->app->engine, op);
		if (op->missing)
			return vk_fail(err, VK_E_UNAVAILABLE,
				       "Service error: the server is offline (hits only) and %zu texts are not cached", op->missing);
	}
	return VK_OK;
}

/* Rows into their places, in the vector's dims. */
static void take_rows(struct group *g)
{
	struct vk_op_counts c;
	for (size_t i = 0; i < g->n; i++) {
		struct vk_qd_text *t = g->text[i];
		const float *row = g->op.slots[g->op.slot_of[i]].row;
		if (t->vector->set.dims == g->space->dims)
			memcpy(t->row, row, g->space->dims * sizeof *row);
		else
			vk_vec_cut(vk_cpu_best(), t->row, row, t->vector->set.dims);
	}
	vk_op_counts(&g->op, &c);
	g->run->q->tokens += c.logical_tokens;
	g->run->q->billed_tokens += c.billed_tokens;
	g->run->q->text_hits += c.hits;
}

static void end_run(struct vk_text_run *run)
{
	struct vk_qd *q = run->q;
	struct vk_error err = run->err;
	bool failed = run->failed;
	for (size_t i = 0; !failed && i < run->groups; i++) take_rows(&run->group[i]);
	vk_registry_unref(run->registry);
	run->registry = NULL;
	if (failed)
		vk_qd_fail(q, &err);
	else
		run->then(q);
}

static void one_less(struct vk_text_run *run)
{
	if (atomic_fetch_sub(&run->pending, 1) == 1) end_run(run);
}

static void note_failure(struct vk_text_run *run, const struct vk_error *err)
{
	pthread_mutex_lock(&run->lock);
	if (!run->failed) run->err = *err;
	run->failed = true;
	pthread_mutex_unlock(&run->lock);
}

static void on_done(struct vk_op *op)
{
	struct group *g = op->arg;
	vk_engine_account(g->run->q->app->engine, op);
	if (op->error.st) note_failure(g->run, &op->error);
	one_less(g->run);
}

static void cancel_group(struct group *g)
{
	struct vk_error err;
	struct vk_text_run *run = g->run;
	if (!vk_op_cancel(run->q->app->engine, &g->op)) return; /* done comes, or has come */
	if (run->why == VK_GONE_HANGUP)
		vk_fail(&err, VK_E_CANCELLED, "The client closed the connection.");
	else if (run->why == VK_GONE_SHUTDOWN)
		vk_fail(&err, VK_E_UNAVAILABLE, "Service error: the server is shutting down; what was embedded is kept");
	else
		vk_fail(&err, VK_E_DEADLINE,
			"Service error: the deadline passed before all texts were embedded; what is done is kept, send the same "
			"request again to go on");
	err.retry_after_ms = 1000;
	g->op.error = err;
	on_done(&g->op);
}

void vk_texts_cancel(struct vk_qd *q, enum vk_gone why)
{
	struct vk_text_run *run = q->run;
	if (!run) return;
	pthread_mutex_lock(&run->lock);
	bool first = !run->cancelled;
	run->cancelled = true;
	if (first) run->why = why;
	pthread_mutex_unlock(&run->lock);
	for (size_t i = 0; first && i < run->groups; i++) {
		pthread_mutex_lock(&run->lock);
		bool started = run->group[i].started;
		run->group[i].started = false;
		pthread_mutex_unlock(&run->lock);
		if (started) cancel_group(&run->group[i]);
	}
}

/* A cancel that came while it was being started is ours to carry out. */
static void start_group(struct group *g)
{
	struct vk_text_run *run = g->run;
	atomic_fetch_add(&run->pending, 1);
	vk_op_start(run->q->app->engine, &g->op, on_done, g);
	pthread_mutex_lock(&run->lock);
	bool cancel = run->cancelled;
	g->started = !cancel;
	pthread_mutex_unlock(&run->lock);
	if (cancel) cancel_group(g);
}

void vk_texts_run(struct vk_qd *q, void (*then)(struct vk_qd *q))
{
	struct vk_error err;
	const struct vk_auth *auth = q->req->auth;
	bool may = !auth || auth->scopes & (VK_SCOPE_EMBED | VK_SCOPE_ADMIN);
	struct vk_text_run *run = vk_arena_calloc(&q->req->arena, 1, sizeof *run);
	if (!run || !may) {
		if (may)
			vk_fail(&err, VK_E_NOMEM, "out of memory");
		else
			vk_fail(&err, VK_E_FORBIDDEN, "Forbidden: texts are embedded, and this key lacks the scope `embed`");
		vk_qd_fail(q, &err);
		return;
	}
	run->q = q;
	run->then = then;
	run->registry = vk_app_registry(q->app);
	pthread_mutex_init(&run->lock, NULL);
	atomic_store(&run->pending, 1);
	enum vk_status st = make_groups(run, &err);
	for (size_t i = 0; i < run->groups && !st; i++) st = set_up(&run->group[i], &err);
	if (st) {
		vk_registry_unref(run->registry);
		vk_qd_fail(q, &err);
		return;
	}
	q->run = run; /* from here on a cancel finds it */
	for (size_t i = 0; i < run->groups; i++) {
		if (run->group[i].op.missing)
			start_group(&run->group[i]);
		else
			vk_engine_account(q->app->engine, &run->group[i].op);
	}
	one_less(run);
}
