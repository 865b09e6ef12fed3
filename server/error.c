/* One table of paths, one of type words, one writer a shape. */
#include "server/error.h"

#include <stddef.h>

#include "base/json.h"

static const struct {
	const char *root; /* the path itself, or what is followed by a slash */
	enum vk_api api;
} roots[] = {
	{"/api", VK_API_OLLAMA},	 {"/v2", VK_API_COHERE},
	{"/collections", VK_API_QDRANT}, {"/aliases", VK_API_QDRANT},
	{"/snapshots", VK_API_QDRANT},	 {"/cluster", VK_API_QDRANT},
	{"/telemetry", VK_API_QDRANT},	 {"/locks", VK_API_QDRANT},
	{"/issues", VK_API_QDRANT},
};

enum vk_api vk_api_of_path(struct vk_bytes path)
{
	for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
		size_t n = strlen(roots[i].root);
		if (path.n < n || memcmp(path.p, roots[i].root, n)) continue;
		if (path.n == n || path.p[n] == '/') return roots[i].api;
	}
	return VK_API_OPENAI;
}

/* OpenAI's words. Its 404 for an unknown model says invalid_request_error, as recorded. */
static const char *openai_type(int http, const char *code)
{
	static const struct {
		int http;
		const char *type;
	} types[] = {{401, "authentication_error"}, {403, "permission_error"}, {404, "not_found_error"},
		     {409, "conflict_error"},	    {429, "rate_limit_error"}};
	if (!strcmp(code, "model_not_found")) return "invalid_request_error";
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (types[i].http == http) return types[i].type;
	return http >= 500 ? "server_error" : "invalid_request_error";
}

static void write_openai(struct vk_jw *w, const struct vk_error *e, int http)
{
	/* OpenAI leaves code null for a plain bad request; elsewhere the status's own word helps. */
	const char *code = e->code[0] ? e->code : e->st == VK_E_INVALID ? NULL : vk_status_text(e->st);
	vk_jw_object(w);
	vk_jw_key(w, "error");
	vk_jw_object(w);
	vk_jw_kv(w, "message", e->text);
	vk_jw_kv(w, "type", openai_type(http, e->code));
	vk_jw_kv(w, "param", e->param[0] ? e->param : NULL);
	vk_jw_kv(w, "code", code);
	vk_jw_object_end(w);
	vk_jw_object_end(w);
}

static void write_ollama(struct vk_jw *w, const struct vk_error *e, int http)
{
	(void)http;
	vk_jw_object(w);
	vk_jw_kv(w, "error", e->text);
	vk_jw_object_end(w);
}

static void write_cohere(struct vk_jw *w, const struct vk_error *e, int http)
{
	(void)http;
	vk_jw_object(w);
	vk_jw_kv(w, "message", e->text);
	vk_jw_object_end(w);
}

static void write_qdrant(struct vk_jw *w, const struct vk_error *e, int http)
{
	(void)http;
	vk_jw_object(w);
	vk_jw_key(w, "status");
	vk_jw_object(w);
	vk_jw_kv(w, "error", e->text);
	vk_jw_object_end(w);
	vk_jw_key(w, "time");
	vk_jw_raw(w, VK_LIT("0.0"));
	vk_jw_object_end(w);
}

static void add_headers(struct vk_req *req, const struct vk_error *e, int http)
{
	if (e->retry_after_ms > 0) {
		vk_reply_headerf(req, "Retry-After", "%d", e->retry_after_ms / 1000 + (e->retry_after_ms % 1000 != 0));
		vk_reply_headerf(req, "retry-after-ms", "%d", e->retry_after_ms);
	}
	if (e->no_retry) vk_reply_header(req, "x-should-retry", "false");
	if (http == 401) vk_reply_header(req, "WWW-Authenticate", "Bearer realm=\"veckeep\"");
}

void vk_reply_error(struct vk_req *req, const struct vk_error *err)
{
	static void (*const write[])(struct vk_jw *, const struct vk_error *, int) = {
		[VK_API_OPENAI] = write_openai,
		[VK_API_OLLAMA] = write_ollama,
		[VK_API_COHERE] = write_cohere,
		[VK_API_QDRANT] = write_qdrant,
	};
	struct vk_reply *r = &req->reply;
	int http = err->http ? err->http : vk_status_http(err->st);
	if (r->read_free) r->read_free(r->read_arg);
	r->read = NULL;
	r->read_free = NULL;
	vk_buf_free(&r->body); /* also takes `failed` off */
	r->content_type = NULL;
	r->may_gzip = false;
	r->status = http;
	struct vk_jw w;
	vk_jw_init(&w, &r->body);
	write[vk_api_of_path(req->path)](&w, err, http);
	add_headers(req, err, http);
}

void vk_reply_reject(void *app, struct vk_req *req, const struct vk_error *err)
{
	(void)app;
	vk_reply_error(req, err);
}
