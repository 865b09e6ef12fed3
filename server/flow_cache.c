/* /v1/cache: what it holds, erasing by text, space, pool or age, and why a text is or is not there. */
#include <stdlib.h>
#include <time.h>

#include "base/cfg.h"
#include "base/clock.h"
#include "server/app.h"
#include "server/error.h"
#include "server/flows.h"

#define PURGE_TEXTS_MAX 10000

/* Rows that were answered a moment ago may still wait for their commit; who asks what the cache
 * holds shall see them. Waiting for the writer is nothing for an HTTP thread: the compute pool does
 * it, then answers by fn. */
struct settled {
	struct vk_app *app;
	struct vk_req *req;
	void (*fn)(struct vk_app *app, struct vk_req *req);
};

static void run_settled(void *arg)
{
	struct settled *s = arg;
	struct vk_req *req = s->req;
	vk_cachedb_flush(s->app->cache);
	s->fn(s->app, req);
	vk_req_finish(req);
}

static void when_settled(struct vk_app *app, struct vk_req *req,
			 void (*fn)(struct vk_app *app, struct vk_req *req))
{
	struct settled *s = vk_arena_alloc(&req->arena, sizeof *s);
	if (s) *s = (struct settled){app, req, fn};
	if (!s || vk_pool_submit(app->pool, run_settled, s))
		fn(app, req); /* too busy to wait: what is committed, then */
	else
		vk_req_park(req, vk_mono_ms() + 600000, vk_flow_never_gone);
}

static void write_stats(struct vk_app *app, struct vk_req *req)
{
	struct vk_cachedb_stats s;
	struct vk_jw w;
	vk_cachedb_stats(app->cache, &s);
	vk_flow_json(req, &w);
	vk_jw_object(&w);
#define PUT(field) vk_jw_ki(&w, #field, (int64_t)s.field)
	PUT(rows);
	PUT(row_bytes);
	PUT(used_bytes);
	PUT(map_bytes);
	PUT(free_bytes);
	PUT(budget_bytes);
	PUT(puts);
	PUT(commits);
	PUT(evicted);
	PUT(corrupt);
	PUT(dropped);
	PUT(queued_bytes);
	PUT(journal_bytes);
#undef PUT
	vk_jw_kb(&w, "full", s.full);
	vk_jw_kb(&w, "offline", app->offline);
	vk_jw_object_end(&w);
}

void vk_flow_cache(void *app, struct vk_req *req)
{
	when_settled(app, req, write_stats);
}

static const vk_jv *parse(struct vk_req *req, const char *fields, struct vk_json **doc,
			  struct vk_error *err)
{
	struct vk_cfg c = {.arena = &req->arena, .err = err};
	if (vk_json_parse(&req->arena, req->body, NULL, doc, err)) return NULL;
	const vk_jv *root = vk_json_root(*doc);
	if (vk_cfg_object(&c, root, "body", fields)) return root;
	if (!c.failed) vk_fail(err, VK_E_INVALID, "The request body must be a JSON object.");
	return NULL;
}

static const struct vk_tenant *pool_named(struct vk_app *app, const vk_jv *v, struct vk_error *err)
{
	struct vk_bytes name;
	if (!v || vk_jv_type(v) == VK_J_NULL) return vk_tenants_default(app->tenants);
	const struct vk_tenant *t =
		vk_jv_str(v, &name) ? vk_tenants_find(app->tenants, name) : NULL;
	if (!t) vk_fail_param(err, VK_E_NOT_FOUND, "pool_not_found", "pool", "There is no such pool.");
	return t;
}

/* --- purge --- */

struct purge {
	struct vk_app *app;
	struct vk_req *req;
	struct vk_cachedb_filter filter;
	bool dry_run;
};

/* Texts become tags under every secret of the pool: rows of older secrets go too. */
static enum vk_status read_texts(struct purge *p, const struct vk_tenant *t, const vk_jv *texts,
				 struct vk_error *err)
{
	size_t n = vk_jv_len(texts), k = 0;
	if (vk_jv_type(texts) != VK_J_ARRAY || !n || n > PURGE_TEXTS_MAX)
		return vk_fail_param(err, VK_E_INVALID, NULL, "texts",
				     "'texts' must be a list of 1 to %d strings.", PURGE_TEXTS_MAX);
	uint8_t(*tags)[VK_CACHE_TAG_SIZE] = vk_arena_alloc(&p->req->arena, n * t->secrets_n * sizeof *tags);
	if (!tags) return vk_fail(err, VK_E_NOMEM, "Out of memory; try again shortly.");
	for (const vk_jv *m = vk_jv_first(texts); m; m = vk_jv_next(m)) {
		struct vk_input in = {0};
		if (!vk_jv_str(m, &in.text))
			return vk_fail_param(err, VK_E_INVALID, NULL, "texts", "'texts' must hold strings.");
		if (!in.text.p) in.text = VK_LIT("");
		for (size_t s = 0; s < t->secrets_n; s++) vk_key_tag(&t->secret[s], &in, tags[k++]);
	}
	p->filter.tags = (const uint8_t(*)[VK_CACHE_TAG_SIZE])tags;
	p->filter.tags_n = k;
	return VK_OK;
}

static enum vk_status read_space(struct purge *p, const vk_jv *v, struct vk_error *err)
{
	struct vk_bytes id;
	if (!v || vk_jv_type(v) == VK_J_NULL) return VK_OK;
	struct vk_registry *r = vk_app_registry(p->app);
	const struct vk_role *role;
	const struct vk_space *s = NULL;
	if (vk_jv_str(v, &id)) {
		const struct vk_model_name *m = vk_registry_model(r, id, &role);
		s = m ? m->space : NULL;
	}
	if (s) {
		p->filter.space_set = true;
		p->filter.space = s->num;
	}
	vk_registry_unref(r);
	return s ? VK_OK
		 : vk_fail_param(err, VK_E_NOT_FOUND, "space_not_found", "space", "There is no such space.");
}

static enum vk_status read_purge(struct purge *p, const vk_jv *root, struct vk_error *err)
{
	struct vk_cfg c = {.arena = &p->req->arena, .err = err};
	const vk_jv *texts = vk_jv_get(root, "texts"), *pool = vk_jv_get(root, "pool"),
		    *older = vk_jv_get(root, "older_than");
	const struct vk_tenant *t = pool_named(p->app, pool, err);
	if (!t) return err->st;
	bool has_texts = texts && vk_jv_type(texts) != VK_J_NULL;
	bool has_pool = pool && vk_jv_type(pool) != VK_J_NULL;
	enum vk_status st = has_texts ? read_texts(p, t, texts, err) : VK_OK;
	if (!st) st = read_space(p, vk_jv_get(root, "space"), err);
	p->dry_run = vk_cfg_bool(&c, root, "body", "dry_run", false);
	if (older && vk_jv_type(older) != VK_J_NULL) {
		uint64_t age_ms = vk_cfg_duration_ms(&c, root, "body", "older_than", 0);
		int64_t now_ms = vk_wall_ms();
		/* An age before all time must not wrap round into "everything". */
		p->filter.older_than_ms = age_ms < (uint64_t)now_ms ? now_ms - (int64_t)age_ms : 1;
	}
	if (st || c.failed) return err->st;
	if (!has_texts && !has_pool && !p->filter.space_set && !p->filter.older_than_ms)
		return vk_fail_param(err, VK_E_INVALID, "filter_required", NULL,
				     "Say what to erase: texts, space, pool or older_than.");
	p->filter.pool_set = has_texts || has_pool;
	p->filter.pool = t->id;
	return VK_OK;
}

/* On the compute pool: the writer's walk over the whole cache may take a while. */
static void run_purge(void *arg)
{
	struct purge *p = arg;
	struct vk_cachedb_purged done = {0};
	struct vk_error err = {0};
	if (vk_cachedb_purge(p->app->cache, &p->filter, p->dry_run, &done, &err)) {
		vk_reply_error(p->req, &err);
	} else {
		struct vk_jw w;
		vk_flow_json(p->req, &w);
		vk_jw_object(&w);
		vk_jw_ki(&w, "purged", (int64_t)done.rows);
		vk_jw_ki(&w, "rows", (int64_t)done.rows);
		vk_jw_ki(&w, "bytes", (int64_t)done.bytes);
		vk_jw_kb(&w, "dry_run", p->dry_run);
		vk_jw_object_end(&w);
	}
	vk_req_finish(p->req);
}

void vk_flow_never_gone(struct vk_req *req, enum vk_gone why)
{
	(void)req; /* the work goes on and finishes the request itself */
	(void)why;
}

void vk_flow_purge(void *app, struct vk_req *req)
{
	struct vk_error err = {0};
	struct vk_json *doc = NULL;
	struct purge *p = vk_arena_calloc(&req->arena, 1, sizeof *p);
	const vk_jv *root = parse(req, "texts space pool older_than dry_run", &doc, &err);
	if (!p) vk_fail(&err, VK_E_NOMEM, "Out of memory; try again shortly.");
	bool ok = p && root;
	if (ok) {
		p->app = app;
		p->req = req;
		ok = !read_purge(p, root, &err);
	}
	vk_json_free(doc);
	if (ok && vk_pool_submit(p->app->pool, run_purge, p)) {
		vk_fail(&err, VK_E_BUSY, "The server is busy; try again shortly.");
		err.retry_after_ms = 1000;
		ok = false;
	}
	if (ok)
		vk_req_park(req, vk_mono_ms() + 600000, vk_flow_never_gone);
	else
		vk_reply_error(req, &err);
}

/* --- why --- */

struct found {
	struct vk_app *app;
	struct vk_registry *registry;
	struct vk_jw *w; /* NULL: only count */
	size_t n;
};

static void put_time(struct vk_jw *w, const char *key, int64_t ms)
{
	char text[32];
	time_t s = (time_t)(ms / 1000);
	struct tm tm;
	gmtime_r(&s, &tm);
	strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
	vk_jw_kv(w, key, text);
}

static void put_name(struct found *f, const char *key, enum vk_name_kind kind, uint32_t id)
{
	struct vk_buf name;
	vk_buf_init(&name, 1024);
	vk_jw_key(f->w, key);
	if (vk_catalog_name(f->app->catalog, kind, id, &name))
		vk_jw_null(f->w);
	else
		vk_jw_str(f->w, vk_buf_bytes(&name));
	vk_buf_free(&name);
}

static bool put_row(void *arg, const struct vk_cache_key *key, const struct vk_cache_meta *m)
{
	struct found *f = arg;
	f->n++;
	if (!f->w) return false;
	const struct vk_space *s = vk_registry_space_num(f->registry, vk_cache_key_space(key));
	vk_jw_object(f->w);
	put_name(f, "space", VK_NAME_SPACE, vk_cache_key_space(key));
	vk_jw_kv(f->w, "role", s && m->role < s->roles_n ? s->roles[m->role].name : NULL);
	vk_jw_ki(f->w, "dims", m->dims);
	vk_jw_ki(f->w, "tokens", m->tokens);
	put_time(f->w, "created", m->created_ms);
	put_name(f, "provider", VK_NAME_PROVIDER, m->provider);
	vk_jw_kb(f->w, "truncated", (m->flags & VK_CACHE_MAYBE_TRUNCATED) != 0);
	vk_jw_object_end(f->w);
	return true;
}

/* All rows of one text in the pool: a prefix scan a secret. */
static void scan_text(struct found *f, struct vk_cache_read *r, const struct vk_tenant *t,
		      struct vk_bytes text)
{
	struct vk_input in = {.text = text};
	for (size_t s = 0; s < t->secrets_n; s++) {
		uint8_t prefix[4 + VK_CACHE_TAG_SIZE];
		vk_put_u32be(prefix, t->id);
		vk_key_tag(&t->secret[s], &in, prefix + 4);
		vk_cachedb_scan(r, prefix, sizeof prefix, put_row, f);
	}
}

/* The differences that near misses are made of: white space at the ends, line ends, case. */
static char *trimmed(struct vk_arena *a, struct vk_bytes t, bool front, bool back, const char *set)
{
	while (back && t.n && strchr(set, t.p[t.n - 1])) t.n--;
	while (front && t.n && strchr(set, t.p[0])) t.p++, t.n--;
	return vk_arena_strndup(a, t.p, t.n);
}

static char *with_newline(struct vk_arena *a, struct vk_bytes t)
{
	return vk_arena_printf(a, "%.*s\n", (int)t.n, t.p);
}
static char *without_newline(struct vk_arena *a, struct vk_bytes t)
{
	return trimmed(a, t, false, true, "\r\n");
}
static char *without_space(struct vk_arena *a, struct vk_bytes t)
{
	return trimmed(a, t, true, true, " \t\r\n");
}
static char *newlines_to_spaces(struct vk_arena *a, struct vk_bytes t)
{
	char *s = vk_arena_strndup(a, t.p, t.n);
	for (size_t i = 0; s && i < t.n; i++)
		if (s[i] == '\n') s[i] = ' ';
	return s;
}
static char *crlf_to_lf(struct vk_arena *a, struct vk_bytes t)
{
	char *s = vk_arena_strndup(a, t.p, t.n), *d = s;
	for (size_t i = 0; s && i < t.n; i++)
		if (!(t.p[i] == '\r' && i + 1 < t.n && t.p[i + 1] == '\n')) *d++ = t.p[i];
	if (s) *d = 0;
	return s;
}
static char *lower(struct vk_arena *a, struct vk_bytes t)
{
	char *s = vk_arena_strndup(a, t.p, t.n);
	for (size_t i = 0; s && i < t.n; i++)
		if (s[i] >= 'A' && s[i] <= 'Z') s[i] = (char)(s[i] + 32);
	return s;
}
static char *upper_first(struct vk_arena *a, struct vk_bytes t)
{
	char *s = vk_arena_strndup(a, t.p, t.n);
	if (s && t.n && s[0] >= 'a' && s[0] <= 'z') s[0] = (char)(s[0] - 32);
	return s;
}

static const struct {
	const char *how;
	char *(*change)(struct vk_arena *a, struct vk_bytes text);
} changes[] = {
	{"with a newline at the end", with_newline},
	{"without its last newline", without_newline},
	{"without white space at its ends", without_space},
	{"with newlines as spaces (LangChain for JavaScript does that)", newlines_to_spaces},
	{"with CR LF as LF", crlf_to_lf},
	{"in lower case", lower},
	{"with a capital first letter", upper_first},
};

static void put_found(struct found *f, struct vk_jw *w, struct vk_cache_read *r,
		      const struct vk_tenant *t, struct vk_bytes text)
{
	f->w = w;
	f->n = 0;
	vk_jw_key(w, "found");
	vk_jw_array(w);
	scan_text(f, r, t, text);
	vk_jw_array_end(w);
}

static void put_near(struct found *f, struct vk_jw *w, struct vk_cache_read *r,
		     const struct vk_tenant *t, struct vk_bytes text, struct vk_arena *a)
{
	vk_jw_key(w, "near");
	vk_jw_array(w);
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		const char *other = changes[i].change(a, text);
		if (!other || vk_bytes_is(text, other)) continue;
		f->w = NULL;
		f->n = 0;
		scan_text(f, r, t, vk_bytes_of(other));
		if (!f->n) continue;
		vk_jw_object(w);
		vk_jw_kv(w, "how", changes[i].how);
		put_found(f, w, r, t, vk_bytes_of(other));
		vk_jw_object_end(w);
	}
	vk_jw_array_end(w);
}

static void write_why(struct vk_app *app, struct vk_req *req)
{
	struct vk_error err = {0};
	struct vk_json *doc = NULL;
	struct vk_bytes text;
	struct vk_cache_read *r = NULL;
	const vk_jv *root = parse(req, "text pool", &doc, &err);
	const struct vk_tenant *t = root ? pool_named(app, vk_jv_get(root, "pool"), &err) : NULL;
	if (t && !vk_jv_str(vk_jv_get(root, "text"), &text)) {
		vk_fail_param(&err, VK_E_INVALID, NULL, "text", "'text' must be a string.");
		t = NULL;
	}
	if (t && vk_cachedb_read_begin(app->cache, &r)) {
		vk_fail(&err, VK_E_UNAVAILABLE, "The cache cannot be read now.");
		t = NULL;
	}
	if (t) {
		struct vk_jw w;
		struct found f = {.app = app, .registry = vk_app_registry(app)};
		if (!text.p) text = VK_LIT("");
		vk_flow_json(req, &w);
		vk_jw_object(&w);
		vk_jw_kv(&w, "pool", t->name);
		vk_jw_ki(&w, "bytes", (int64_t)text.n);
		put_found(&f, &w, r, t, text);
		put_near(&f, &w, r, t, text, &req->arena);
		vk_jw_object_end(&w);
		vk_registry_unref(f.registry);
		vk_cachedb_read_end(r);
	} else {
		vk_reply_error(req, &err);
	}
	vk_json_free(doc);
}

void vk_flow_why(void *app, struct vk_req *req)
{
	when_settled(app, req, write_why);
}
