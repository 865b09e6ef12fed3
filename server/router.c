/*
 * Routes are cut into segments once and sorted by how literal they are; a request's path is cut
 * once and compared down the list. A hundred routes cost well under a microsecond that way (the
 * segment count and the first bytes turn nearly all of them away), so there is no tree.
 */
#include "server/router.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "server/error.h"
#include "server/request.h"

#define SEGMENTS_MAX 16

enum kind { LITERAL, NAME, REST }; /* in order of preference */

struct segment {
	enum kind kind;
	const char *text; /* NUL-terminated, the router's */
	size_t n;
};

struct compiled {
	const struct vk_route *route;
	struct segment seg[SEGMENTS_MAX];
	unsigned n;
	char *copy; /* what seg points into */
};

struct vk_router {
	struct compiled *c;
	size_t n;
	struct vk_keys *keys;
	atomic_bool forward_ok, insecure;
};

/* ---- the table ---- */

static bool add_segment(struct compiled *c, char *text)
{
	size_t n = strlen(text);
	if (c->n == SEGMENTS_MAX || !n) return false;
	if (c->n && c->seg[c->n - 1].kind == REST) return false;
	struct segment *s = &c->seg[c->n++];
	*s = (struct segment){LITERAL, text, n};
	if (text[0] != '{') return true;
	if (n < 3 || text[n - 1] != '}') return false;
	text[n - 1] = 0;
	*s = (struct segment){NAME, text + 1, n - 2};
	if (s->n > 3 && !strcmp(s->text + s->n - 3, "...")) {
		s->kind = REST;
		s->n -= 3;
		text[1 + s->n] = 0;
	}
	return true;
}

static bool compile(struct compiled *c, const struct vk_route *route)
{
	c->route = route;
	c->copy = strdup(route->pattern);
	if (!c->copy || c->copy[0] != '/') return false;
	unsigned names = 0;
	char *save = NULL;
	for (char *s = strtok_r(c->copy, "/", &save); s; s = strtok_r(NULL, "/", &save)) {
		if (!add_segment(c, s)) return false;
		names += c->seg[c->n - 1].kind != LITERAL;
	}
	return names <= VK_REQ_PARAMS_MAX;
}

/* More literal first, then shorter, then the table's order: lexicographic, so the order is total. */
static int by_preference(const void *pa, const void *pb)
{
	const struct compiled *a = pa, *b = pb;
	for (unsigned i = 0; i < a->n && i < b->n; i++)
		if (a->seg[i].kind != b->seg[i].kind) return a->seg[i].kind < b->seg[i].kind ? -1 : 1;
	if (a->n != b->n) return a->n < b->n ? -1 : 1;
	return a->route < b->route ? -1 : a->route > b->route;
}

void vk_router_free(struct vk_router *r)
{
	if (!r) return;
	for (size_t i = 0; i < r->n; i++) free(r->c[i].copy);
	free(r->c);
	free(r);
}

enum vk_status vk_router_new(const struct vk_route *routes, size_t n, struct vk_keys *keys,
			     struct vk_router **out, struct vk_error *err)
{
	*out = NULL;
	struct vk_router *r = calloc(1, sizeof *r);
	if (r) r->c = calloc(n ? n : 1, sizeof *r->c);
	if (!r || !r->c) {
		free(r);
		return vk_fail(err, VK_E_NOMEM, "no memory");
	}
	r->n = n;
	r->keys = keys;
	for (size_t i = 0; i < n; i++)
		if (!compile(&r->c[i], &routes[i])) {
			vk_router_free(r);
			return vk_fail(err, VK_E_INVALID, "route pattern \"%s\" cannot be", routes[i].pattern);
		}
	qsort(r->c, n, sizeof *r->c, by_preference);
	*out = r;
	return VK_OK;
}

void vk_router_set_forward(struct vk_router *r, bool forward_ok)
{
	atomic_store(&r->forward_ok, forward_ok);
}

void vk_router_set_insecure(struct vk_router *r, bool insecure)
{
	atomic_store(&r->insecure, insecure);
}

/* ---- matching ---- */

struct target { /* a request's path, cut and decoded */
	struct vk_bytes seg[SEGMENTS_MAX];
	struct vk_bytes rest[SEGMENTS_MAX]; /* raw, from this segment to the end */
	unsigned n;
	bool deep; /* more than SEGMENTS_MAX: only a REST can match */
};

static enum vk_status cut(struct vk_req *req, struct target *t)
{
	struct vk_bytes path = req->path;
	t->n = 0;
	t->deep = false;
	if (path.n > 2 && path.p[path.n - 1] == '/') path.n--;
	while (path.n) {
		path.p++, path.n--; /* the slash */
		if (!path.n && !t->n) return VK_OK;
		if (t->n == SEGMENTS_MAX) {
			t->deep = true;
			return VK_OK;
		}
		const char *slash = path.n ? memchr(path.p, '/', path.n) : NULL;
		struct vk_bytes raw = {path.p, slash ? (size_t)(slash - path.p) : path.n};
		enum vk_status st = vk_percent_decode(&req->arena, raw, false, &t->seg[t->n]);
		if (st) return st;
		t->rest[t->n++] = path;
		path.p += raw.n, path.n -= raw.n;
	}
	return VK_OK;
}

static bool matches(const struct compiled *c, const struct target *t)
{
	bool rest = c->n && c->seg[c->n - 1].kind == REST;
	if (rest ? t->n < c->n : t->n != c->n || t->deep) return false;
	for (unsigned i = 0; i < c->n; i++) {
		const struct segment *s = &c->seg[i];
		if (s->kind == LITERAL && (t->seg[i].n != s->n || memcmp(t->seg[i].p, s->text, s->n))) return false;
		if (s->kind == NAME && !t->seg[i].n) return false;
	}
	return true;
}

static const struct compiled *find(const struct vk_router *r, const struct target *t, enum vk_method m)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->c[i].route->method == m && matches(&r->c[i], t)) return &r->c[i];
	return NULL;
}

/* "GET, HEAD, PUT": what any route on this path takes. "" when there is none. */
static void list_methods(const struct vk_router *r, const struct target *t, char out[96])
{
	static const char *const names[] = {[VK_GET] = "GET",	  [VK_HEAD] = "HEAD",	  [VK_POST] = "POST",
					    [VK_PUT] = "PUT",	  [VK_PATCH] = "PATCH",	  [VK_DELETE] = "DELETE",
					    [VK_OPTIONS] = "OPTIONS"};
	bool has[VK_METHOD_OTHER + 1] = {false};
	for (size_t i = 0; i < r->n; i++)
		if (matches(&r->c[i], t)) has[r->c[i].route->method] = true;
	has[VK_HEAD] |= has[VK_GET];
	out[0] = 0;
	for (unsigned m = 0; m < VK_METHOD_OTHER; m++) {
		if (!has[m]) continue;
		if (out[0]) strcat(out, ", ");
		strcat(out, names[m]);
	}
}

static enum vk_status bad_path(enum vk_status st, struct vk_error *e)
{
	if (st == VK_E_NOMEM) return vk_fail(e, st, "No memory for this path.");
	return vk_fail(e, VK_E_INVALID, "The path has a percent escape that is none, or a NUL.");
}

static enum vk_status bind_names(const struct compiled *c, const struct target *t, struct vk_req *req,
				 struct vk_error *e)
{
	for (unsigned i = 0; i < c->n; i++) {
		const struct segment *s = &c->seg[i];
		if (s->kind == LITERAL) continue;
		struct vk_bytes value = t->seg[i];
		if (s->kind == REST) {
			enum vk_status st = vk_percent_decode(&req->arena, t->rest[i], false, &value);
			if (st) return bad_path(st, e);
		}
		req->param[req->params].name = s->text;
		req->param[req->params++].value = value;
	}
	return VK_OK;
}

struct vk_bytes vk_req_param(const struct vk_req *req, const char *name)
{
	for (unsigned i = 0; i < req->params; i++)
		if (!strcmp(req->param[i].name, name)) return req->param[i].value;
	return (struct vk_bytes){NULL, 0};
}

/* ---- no route ---- */

/* Pointed here by an OPENAI_BASE_URL that serves both: say what to do instead. */
static bool is_chat(struct vk_bytes path)
{
	static const char *const chat[] = {"/chat/completions", "/completions", "/responses",
					   "/api/chat", "/api/generate"};
	if (path.n > 3 && !memcmp(path.p, "/v1", 3)) path.p += 3, path.n -= 3;
	if (path.n > 2 && path.p[path.n - 1] == '/') path.n--;
	for (size_t i = 0; i < sizeof chat / sizeof *chat; i++)
		if (vk_bytes_is(path, chat[i])) return true;
	return false;
}

static enum vk_status not_found(const struct vk_req *req, struct vk_error *e)
{
	enum vk_status st =
		is_chat(req->path)
			? vk_fail_param(e, VK_E_NOT_FOUND, "not_an_embedding_route", NULL,
					"veckeep keeps embeddings; it does not answer chat or completions. Point the "
					"client's chat model at its provider directly, and only its embedding model here.")
			: vk_fail_param(e, VK_E_NOT_FOUND, "unknown_url", NULL, "There is nothing at this path.");
	e->no_retry = 1;
	return st;
}

/* ---- dispatch ---- */

static enum vk_status pick(struct vk_router *r, struct vk_req *req, const struct compiled **out,
			   struct target *t, char allow[96], struct vk_error *e)
{
	enum vk_status st = cut(req, t);
	if (st) return bad_path(st, e);
	*out = find(r, t, req->method);
	if (!*out && req->method == VK_HEAD) *out = find(r, t, VK_GET);
	if (*out) return VK_OK;
	list_methods(r, t, allow);
	if (!allow[0]) return not_found(req, e);
	st = vk_fail(e, VK_E_METHOD, "This path does not take this method; it takes %s.", allow);
	e->no_retry = 1;
	return st;
}

static enum vk_status authorize(struct vk_router *r, const struct vk_route *route, struct vk_req *req,
				int64_t now_ms, struct vk_error *e)
{
	struct vk_auth *a = vk_arena_calloc(&req->arena, 1, sizeof *a);
	if (!a) return vk_fail(e, VK_E_NOMEM, "no memory");
	req->auth = a;
	if (route->always || !r->keys) {
		a->scopes = route->always ? 0 : VK_SCOPE_ADMIN;
		a->collections = "*";
		return VK_OK;
	}
	if (!req->peer_loopback && !vk_keys_any(r->keys) && !atomic_load(&r->insecure))
		return vk_fail_param(e, VK_E_UNAUTHORIZED, "invalid_api_key", NULL,
				     "This server has no API keys yet and answers only callers on its own machine.");
	struct vk_bytes key = vk_req_header(req, "api-key");
	if (!key.p) key = vk_req_header(req, "x-api-key");
	enum vk_status st = vk_keys_authenticate(r->keys, vk_req_header(req, "Authorization"), key,
						 atomic_load_explicit(&r->forward_ok, memory_order_relaxed),
						 now_ms, a, e);
	if (st) {
		e->no_retry = 1;
		return st;
	}
	if ((a->scopes & VK_SCOPE_ADMIN) || (a->scopes & route->scope) == route->scope) return VK_OK;
	char needs[64];
	vk_scopes_print(needs, sizeof needs, route->scope & ~a->scopes);
	st = vk_fail_param(e, VK_E_FORBIDDEN, "insufficient_scope", NULL, "This key lacks the scope %s.", needs);
	e->no_retry = 1;
	return st;
}

static enum vk_status check_drain(const struct vk_route *route, const struct vk_req *req, struct vk_error *e)
{
	if (!req->draining || route->always) return VK_OK;
	vk_fail(e, VK_E_UNAVAILABLE, "This server is shutting down; send the request again.");
	e->retry_after_ms = 1000;
	return e->st;
}

void vk_router_dispatch(struct vk_router *r, void *app, struct vk_req *req, int64_t now_ms)
{
	const struct compiled *c = NULL;
	struct target t;
	char allow[96] = "";
	struct vk_error e;
	req->params = 0;
	enum vk_status st = pick(r, req, &c, &t, allow, &e);
	if (st == VK_E_METHOD && req->method == VK_OPTIONS) {
		req->reply.status = 204;
		vk_reply_headerf(req, "Allow", "%s", allow);
		return;
	}
	if (c) req->route = c->route->name;
	if (!st) st = check_drain(c->route, req, &e);
	if (!st) st = authorize(r, c->route, req, now_ms, &e);
	if (!st) st = bind_names(c, &t, req, &e);
	if (!st) {
		c->route->handler(app, req);
		return;
	}
	vk_reply_error(req, &e);
	if (st == VK_E_METHOD) vk_reply_headerf(req, "Allow", "%s", allow);
}
