/* Spaces, providers, usage, keys, backup: what nobody else has, as JSON lists. */
#include <stdlib.h>
#include <time.h>

#include "base/cfg.h"
#include "base/clock.h"
#include "embed/dialect.h"
#include "index/collections.h"
#include "server/app.h"
#include "server/error.h"
#include "server/flows.h"
#include "store/backup.h"
#include "store/record.h"

/* --- spaces --- */

static const char *const canary_words[] = {"none", "pending", "ok", "failed"};

static void put_price(struct vk_jw *w, const struct vk_price *p)
{
	vk_jw_key(w, "price");
	if (p->micros_per_mtok < 0) {
		vk_jw_null(w);
		return;
	}
	vk_jw_object(w);
	vk_jw_kf(w, "per_mtok", (double)p->micros_per_mtok / 1e6);
	vk_jw_kv(w, "currency", p->currency);
	vk_jw_kv(w, "date", p->date);
	vk_jw_object_end(w);
}

static void put_route(struct vk_jw *w, struct vk_app *app, const struct vk_space *s)
{
	vk_jw_key(w, "route");
	vk_jw_array(w);
	for (size_t i = 0; i < s->route_n; i++) {
		float cosine;
		enum vk_canary_state c =
			vk_engine_canary(app->engine, s, s->route[i].provider, &cosine);
		vk_jw_object(w);
		vk_jw_kv(w, "provider", s->route[i].provider->name);
		vk_jw_kv(w, "model", s->route[i].model);
		vk_jw_ki(w, "weight", s->route[i].weight);
		vk_jw_kv(w, "canary", canary_words[c]);
		if (cosine >= -1) vk_jw_kf(w, "cosine", cosine);
		vk_jw_object_end(w);
	}
	vk_jw_array_end(w);
}

struct find_usage {
	const char *id;
	struct vk_jw *w;
};

static void put_usage_of(void *arg, const struct vk_space_stats *s)
{
	struct find_usage *f = arg;
	if (strcmp(s->id, f->id) != 0) return;
#define PUT(field) vk_jw_ki(f->w, #field, (int64_t)s->field)
	PUT(requests);
	PUT(hits);
	PUT(misses);
	PUT(coalesced);
	PUT(errors);
	PUT(logical_tokens);
	PUT(billed_tokens);
	PUT(saved_tokens);
#undef PUT
}

static void put_space(struct vk_jw *w, struct vk_app *app, struct vk_registry *r,
		      const struct vk_space *s)
{
	size_t n;
	const struct vk_model_name *m = vk_registry_models(r, &n);
	vk_jw_object(w);
	vk_jw_kv(w, "id", s->id);
	vk_jw_kv(w, "object", "space");
	vk_jw_ki(w, "dims", s->dims);
	vk_jw_kb(w, "matryoshka", s->matryoshka);
	vk_jw_key(w, "roles");
	vk_jw_array(w);
	for (size_t i = 0; i < s->roles_n; i++) vk_jw_cstr(w, s->roles[i].name);
	vk_jw_array_end(w);
	vk_jw_ki(w, "tokens_max", s->tokens_max);
	vk_jw_kv(w, "tokenizer", s->tokenizer == VK_TOKENIZER_CL100K ? "cl100k" : NULL);
	vk_jw_ki(w, "ttl_ms", s->ttl_ms);
	put_price(w, &s->price);
	put_route(w, app, s);
	vk_jw_key(w, "models");
	vk_jw_array(w);
	for (size_t i = 0; i < n; i++)
		if (m[i].space == s) vk_jw_cstr(w, m[i].name);
	vk_jw_array_end(w);
	vk_jw_key(w, "usage");
	vk_jw_object(w);
	struct find_usage f = {s->id, w};
	vk_engine_space_stats(app->engine, put_usage_of, &f);
	vk_jw_object_end(w);
	vk_jw_object_end(w);
}

static void begin_list(struct vk_req *req, struct vk_jw *w)
{
	vk_flow_json(req, w);
	vk_jw_object(w);
	vk_jw_kv(w, "object", "list");
	vk_jw_key(w, "data");
	vk_jw_array(w);
}

void vk_flow_spaces(void *app, struct vk_req *req)
{
	struct vk_registry *r = vk_app_registry(app);
	size_t n;
	const struct vk_space *const *s = vk_registry_spaces(r, &n);
	struct vk_jw w;
	begin_list(req, &w);
	for (size_t i = 0; i < n; i++) put_space(&w, app, r, s[i]);
	vk_jw_array_end(&w);
	vk_jw_object_end(&w);
	vk_registry_unref(r);
}

void vk_flow_space(void *app, struct vk_req *req)
{
	struct vk_registry *r = vk_app_registry(app);
	struct vk_bytes id = vk_req_param(req, "id");
	const struct vk_space *s = vk_registry_space(r, id);
	struct vk_jw w;
	if (s) {
		vk_flow_json(req, &w);
		put_space(&w, app, r, s);
	} else {
		struct vk_error err;
		vk_fail_param(&err, VK_E_NOT_FOUND, "space_not_found", "space", "There is no space '%.*s'.",
			      (int)(id.n < 128 ? id.n : 128), id.p);
		vk_reply_error(req, &err);
	}
	vk_registry_unref(r);
}

/* --- providers --- */

struct put_provider {
	struct vk_jw *w;
	const char *name;
	bool found;
};

static void put_provider_stats(void *arg, const struct vk_provider_stats *s)
{
	static const char *const breaker[] = {"closed", "open", "half_open"};
	struct put_provider *p = arg;
	if (strcmp(s->name, p->name) != 0) return;
	p->found = true;
	vk_jw_kv(p->w, "breaker", breaker[s->breaker]);
#define PUT(field) vk_jw_ki(p->w, #field, (int64_t)s->field)
	PUT(in_flight);
	PUT(limit);
	PUT(queued);
	PUT(calls);
	PUT(calls_ok);
	PUT(calls_transient);
	PUT(calls_refused);
	PUT(retries);
	PUT(inputs);
	PUT(tokens);
#undef PUT
	vk_jw_kf(p->w, "latency_ms_avg",
		 s->calls_ok ? (double)s->latency_us_sum / 1000 / (double)s->calls_ok : 0);
}

void vk_flow_providers(void *arg, struct vk_req *req)
{
	struct vk_app *app = arg;
	struct vk_registry *r = vk_app_registry(app);
	size_t n;
	const struct vk_provider *const *p = vk_registry_providers(r, &n);
	struct vk_jw w;
	begin_list(req, &w);
	for (size_t i = 0; i < n; i++) {
		vk_jw_object(&w);
		vk_jw_kv(&w, "name", p[i]->name);
		vk_jw_kv(&w, "dialect", p[i]->dialect->name);
		vk_jw_kv(&w, "base_url", p[i]->base_url);
		vk_jw_key(&w, "labels");
		vk_jw_array(&w);
		for (size_t l = 0; p[i]->labels[l]; l++) vk_jw_cstr(&w, p[i]->labels[l]);
		vk_jw_array_end(&w);
		struct put_provider put = {&w, p[i]->name, false};
		vk_engine_provider_stats(app->engine, put_provider_stats, &put);
		if (!put.found) { /* not called yet */
			struct vk_provider_stats none = {.name = p[i]->name, .limit = p[i]->caps.concurrency};
			put_provider_stats(&put, &none);
		}
		vk_jw_object_end(&w);
	}
	vk_jw_array_end(&w);
	vk_jw_object_end(&w);
	vk_registry_unref(r);
}

/* --- usage --- */

struct usage_list {
	struct vk_jw *w;
	struct vk_registry *registry;
	struct vk_bytes from, to; /* YYYY-MM-DD, inclusive; empty: open */
	struct vk_rec_usage total;
};

static void put_counters(struct vk_jw *w, const struct vk_rec_usage *u)
{
#define PUT(field) vk_jw_ki(w, #field, (int64_t)u->field)
	PUT(requests);
	PUT(inputs);
	PUT(hits);
	PUT(misses);
	PUT(coalesced);
	PUT(logical_tokens);
	PUT(billed_tokens);
	PUT(saved_tokens);
	PUT(errors);
#undef PUT
	vk_jw_kf(w, "billed", (double)u->billed_micros / 1e6);
	vk_jw_kf(w, "saved", (double)u->saved_micros / 1e6);
}

static void add_usage(struct vk_rec_usage *t, const struct vk_rec_usage *u)
{
	t->requests += u->requests;
	t->inputs += u->inputs;
	t->hits += u->hits;
	t->misses += u->misses;
	t->coalesced += u->coalesced;
	t->logical_tokens += u->logical_tokens;
	t->billed_tokens += u->billed_tokens;
	t->saved_tokens += u->saved_tokens;
	t->errors += u->errors;
	t->billed_micros += u->billed_micros;
	t->saved_micros += u->saved_micros;
}

static bool put_usage(void *arg, struct vk_bytes key, struct vk_bytes value)
{
	struct usage_list *l = arg;
	struct vk_rec_usage u;
	const char *nul = memchr(key.p, 0, key.n);
	if (!nul || !vk_rec_usage_decode(&u, value)) return true;
	struct vk_bytes day = {key.p, (size_t)(nul - key.p)}, rest = {nul + 1, key.n - day.n - 1};
	const char *end = memchr(rest.p, 0, rest.n);
	struct vk_bytes space = {rest.p, end ? (size_t)(end - rest.p) : rest.n};
	if (l->from.n == 10 && day.n == 10 && memcmp(day.p, l->from.p, 10) < 0) return true;
	if (l->to.n == 10 && day.n == 10 && memcmp(day.p, l->to.p, 10) > 0) return true;
	const struct vk_space *s = vk_registry_space(l->registry, space);
	add_usage(&l->total, &u);
	vk_jw_object(l->w);
	vk_jw_key(l->w, "day");
	vk_jw_str(l->w, day);
	vk_jw_key(l->w, "space");
	vk_jw_str(l->w, space);
	put_counters(l->w, &u);
	vk_jw_kv(l->w, "currency", s ? s->price.currency : "USD");
	vk_jw_object_end(l->w);
	return true;
}

void vk_flow_usage(void *arg, struct vk_req *req)
{
	struct vk_app *app = arg;
	struct vk_jw w;
	struct usage_list l = {.w = &w, .from = vk_req_query(req, "from"), .to = vk_req_query(req, "to")};
	struct vk_error err;
	if ((l.from.p && l.from.n != 10) || (l.to.p && l.to.n != 10)) {
		vk_fail_param(&err, VK_E_INVALID, NULL, "from", "'from' and 'to' are days: YYYY-MM-DD.");
		vk_reply_error(req, &err);
		return;
	}
	vk_engine_flush_usage(app->engine, vk_wall_ms());
	l.registry = vk_app_registry(app);
	begin_list(req, &w);
	vk_catalog_scan(app->catalog, VK_TABLE_USAGE, VK_LIT(""), put_usage, &l);
	vk_jw_array_end(&w);
	vk_jw_key(&w, "totals");
	vk_jw_object(&w);
	put_counters(&w, &l.total);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_registry_unref(l.registry);
}

/* --- keys --- */

void vk_flow_keys(void *arg, struct vk_req *req)
{
	struct vk_app *app = arg;
	struct vk_jw w;
	vk_flow_json(req, &w);
	vk_jw_object(&w);
	vk_jw_kv(&w, "object", "list");
	vk_jw_key(&w, "data");
	vk_keys_write(app->keys, &w);
	vk_jw_object_end(&w);
}

static enum vk_status read_key_spec(struct vk_req *req, const vk_jv *root, struct vk_key_spec *spec,
				    struct vk_error *err)
{
	struct vk_cfg c = {.arena = &req->arena, .err = err};
	if (!vk_cfg_object(&c, root, "body", "name scopes collections expires"))
		return c.failed ? err->st : vk_fail(err, VK_E_INVALID, "The body must be a JSON object.");
	spec->name = vk_cfg_str(&c, root, "body", "name", "");
	spec->collections = vk_cfg_str(&c, root, "body", "collections", NULL);
	const char *const *scopes = vk_cfg_list(&c, root, "body", "scopes");
	for (size_t i = 0; scopes[i]; i++) {
		uint32_t bits;
		if (!vk_scopes_parse(vk_bytes_of(scopes[i]), &bits))
			vk_cfg_fail(&c, "body.scopes", "unknown scope \"%s\" (read, write, embed, admin, metrics)",
				    scopes[i]);
		else
			spec->scopes |= bits;
	}
	if (!scopes[0]) spec->scopes = VK_SCOPE_EMBED | VK_SCOPE_READ;
	uint64_t at_ms; /* a number is a point in time (Unix ms), a string how long from now */
	if (vk_jv_u64(vk_jv_get(root, "expires"), &at_ms) && at_ms < INT64_MAX) {
		spec->expires_ms = (int64_t)at_ms;
	} else {
		uint64_t ms = vk_cfg_duration_ms(&c, root, "body", "expires", 0);
		if (ms) spec->expires_ms = vk_wall_ms() + (int64_t)ms;
	}
	if (!c.failed && !spec->name[0]) vk_cfg_fail(&c, "body.name", "a name is needed");
	return c.failed ? err->st : VK_OK;
}

void vk_flow_key_create(void *arg, struct vk_req *req)
{
	struct vk_app *app = arg;
	struct vk_error err = {0};
	struct vk_json *doc = NULL;
	struct vk_key_spec spec = {0};
	char text[VK_KEY_TEXT_MAX], id[64], scopes[64];
	enum vk_status st = vk_json_parse(&req->arena, req->body, NULL, &doc, &err);
	if (!st) st = read_key_spec(req, vk_json_root(doc), &spec, &err);
	if (!st) st = vk_keys_create(app->keys, &spec, vk_wall_ms(), text, id, &err);
	if (st) {
		vk_reply_error(req, &err);
	} else {
		struct vk_jw w;
		vk_flow_json(req, &w);
		vk_jw_object(&w);
		vk_jw_kv(&w, "id", id);
		vk_jw_kv(&w, "key", text);
		vk_jw_kv(&w, "name", spec.name);
		vk_scopes_print(scopes, sizeof scopes, spec.scopes);
		vk_jw_kv(&w, "scopes", scopes);
		vk_jw_object_end(&w);
		vk_wipe(text, sizeof text);
	}
	vk_json_free(doc);
}

void vk_flow_key_revoke(void *arg, struct vk_req *req)
{
	struct vk_app *app = arg;
	struct vk_error err = {0};
	struct vk_bytes id = vk_req_param(req, "id");
	const char *text = vk_arena_strndup(&req->arena, id.p, id.n);
	if (!text || vk_keys_revoke(app->keys, text, &err)) {
		if (!text) vk_fail(&err, VK_E_NOMEM, "Out of memory; try again shortly.");
		vk_reply_error(req, &err);
		return;
	}
	struct vk_jw w;
	vk_flow_json(req, &w);
	vk_jw_object(&w);
	vk_jw_kv(&w, "id", text);
	vk_jw_kb(&w, "deleted", true);
	vk_jw_object_end(&w);
}

/* --- backup --- */

struct backup {
	struct vk_app *app;
	struct vk_req *req;
	const char *dir;
	uint64_t bytes, bytes_per_s;
};

static void backup_progress(void *arg, uint64_t done, uint64_t total)
{
	(void)total;
	((struct backup *)arg)->bytes = done;
}

static void run_backup(void *arg)
{
	struct backup *b = arg;
	struct vk_error err = {0};
	struct vk_backup_source collections;
	struct vk_backup_opts opts = {b->bytes_per_s, backup_progress, b, &collections};
	vk_engine_flush_usage(b->app->engine, vk_wall_ms());
	vk_collections_backup_begin(b->app->collections, &collections);
	enum vk_status st =
		vk_backup_write(b->app->catalog, b->app->cache, b->app->datadir.path, b->dir, &opts, &err);
	vk_collections_backup_end(b->app->collections);
	if (st) {
		vk_reply_error(b->req, &err);
	} else {
		struct vk_jw w;
		vk_flow_json(b->req, &w);
		vk_jw_object(&w);
		vk_jw_kv(&w, "dir", b->dir);
		vk_jw_ki(&w, "bytes", (int64_t)b->bytes);
		vk_jw_object_end(&w);
	}
	vk_req_finish(b->req);
}

void vk_flow_backup(void *arg, struct vk_req *req)
{
	struct vk_error err = {0};
	struct vk_json *doc = NULL;
	struct vk_cfg c = {.arena = &req->arena, .err = &err};
	struct backup *b = vk_arena_calloc(&req->arena, 1, sizeof *b);
	bool ok = b && !vk_json_parse(&req->arena, req->body, NULL, &doc, &err);
	if (ok) {
		const vk_jv *root = vk_json_root(doc);
		b->app = arg;
		b->req = req;
		if (!vk_cfg_object(&c, root, "body", "dir bytes_per_s"))
			vk_cfg_fail(&c, "body", "expected an object");
		b->dir = vk_cfg_str(&c, root, "body", "dir", "");
		b->bytes_per_s = vk_cfg_size(&c, root, "body", "bytes_per_s", 0);
		if (b->dir[0] != '/')
			vk_cfg_fail(&c, "body.dir", "expected an absolute path on the server's machine");
		ok = !c.failed;
	}
	vk_json_free(doc);
	if (ok && vk_pool_submit(b->app->pool, run_backup, b)) {
		vk_fail(&err, VK_E_BUSY, "The server is busy; try again shortly.");
		ok = false;
	}
	if (ok)
		vk_req_park(req, vk_mono_ms() + 24ull * 3600 * 1000, vk_flow_never_gone);
	else
		vk_reply_error(req, &err);
}
