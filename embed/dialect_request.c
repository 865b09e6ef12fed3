/* The pieces that requests are built from. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "embed/dialect_parts.h"

#define BODY_MAX ((size_t)256 << 20)

static void fail(struct vk_build *b, enum vk_status st)
{
	if (!b->st) b->st = st;
}

static void no_memory(struct vk_build *b)
{
	if (!b->st) b->st = vk_fail(b->err, VK_E_NOMEM, "no memory for the request to provider \"%s\"", b->call->provider->name);
}

static bool given(const char *s)
{
	return s && *s;
}

void vk_build_start(struct vk_build *b, const struct vk_call *call, struct vk_arena *arena,
		    struct vk_wire *out, struct vk_error *err)
{
	*b = (struct vk_build){.call = call, .arena = arena, .out = out, .err = err};
	*out = (struct vk_wire){0};
	vk_buf_init(&b->body, BODY_MAX);
	vk_jw_init(&b->w, &b->body);
	vk_jw_object(&b->w);
}

/* ---- address and headers ---- */

/* RFC 3986 unreserved stays; so a model's name can neither leave its path segment nor start a
 * query. */
static void put_encoded(struct vk_buf *b, const char *s)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
	for (; *s; s++) {
		if (strchr(plain, *s)) vk_buf_putc(b, *s);
		else vk_buf_printf(b, "%%%02X", (unsigned)(unsigned char)*s);
	}
}

void vk_build_url(struct vk_build *b, const char *path, const char *query, const char *value)
{
	static const char mark[] = "{model}";
	struct vk_buf url;
	vk_buf_init(&url, 8192);
	if (b->call->provider->path) path = b->call->provider->path;
	vk_buf_puts(&url, b->call->provider->base_url);
	for (const char *at; (at = strstr(path, mark)); path = at + sizeof mark - 1) {
		vk_buf_put(&url, path, (size_t)(at - path));
		put_encoded(&url, b->call->model);
	}
	vk_buf_puts(&url, path);
	if (given(value)) {
		vk_buf_puts(&url, memchr(url.p, '?', url.n) ? "&" : "?");
		vk_buf_puts(&url, query);
		vk_buf_putc(&url, '=');
		put_encoded(&url, value);
	}
	if (url.failed)
		fail(b, vk_fail(b->err, VK_E_INVALID, "provider \"%s\": the URL is too long", b->call->provider->name));
	else if (!(b->out->url = vk_arena_strndup(b->arena, url.p, url.n)))
		no_memory(b);
	vk_buf_free(&url);
}

static bool names(const char *line, const char *header)
{
	size_t n = strlen(header);
	return !strncasecmp(line, header, n) && line[n] == ':';
}

static bool provider_names(const struct vk_provider *p, const char *header)
{
	for (const char *const *h = p->headers; h && *h; h++)
		if (names(*h, header)) return true;
	return false;
}

static void add_header(struct vk_build *b, size_t *n, const char *line)
{
	if (!line) no_memory(b);
	else if (*n == VK_XFER_HEADERS_MAX)
		fail(b, vk_fail(b->err, VK_E_INVALID, "provider \"%s\" has more than %d headers",
				b->call->provider->name, VK_XFER_HEADERS_MAX));
	else b->out->headers[(*n)++] = line;
}

static bool printable(struct vk_bytes s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] <= 0x20 || (unsigned char)s.p[i] >= 0x7f) return false;
	return true;
}

static void add_auth(struct vk_build *b, size_t *n, const struct vk_build_auth *auth)
{
	const struct vk_provider *p = b->call->provider;
	struct vk_bytes key = b->call->bearer;
	if (!key.n) return;
	if (!printable(key)) { /* the text must not say what it was */
		fail(b, vk_fail(b->err, VK_E_INVALID, "provider \"%s\": the API key holds a space, a control "
				"character or a character outside ASCII", p->name));
		return;
	}
	struct vk_build_auth a = *auth;
	if (given(p->auth_header)) {
		a.header = p->auth_header;
		a.prefix = strcasecmp(a.header, "Authorization") ? "" : "Bearer ";
	}
	if (p->auth_prefix) a.prefix = p->auth_prefix;
	add_header(b, n, vk_arena_printf(b->arena, "%s: %s%.*s", a.header, a.prefix, (int)key.n, key.p));
}

void vk_build_headers(struct vk_build *b, const struct vk_build_auth *auth)
{
	const struct vk_provider *p = b->call->provider;
	size_t n = 0;
	if (!provider_names(p, "Content-Type")) add_header(b, &n, "Content-Type: application/json");
	if (!provider_names(p, "Accept")) add_header(b, &n, "Accept: application/json");
	add_auth(b, &n, auth);
	for (const char *const *h = p->headers; h && *h; h++) add_header(b, &n, *h);
	b->out->headers[n] = NULL;
}

/* ---- body ---- */

static void put_text(struct vk_build *b, struct vk_bytes text)
{
	struct vk_bytes prefix = vk_bytes_of(b->call->role ? b->call->role->prefix : NULL);
	if (prefix.n) {
		char *both = vk_arena_alloc(b->arena, prefix.n + text.n);
		if (!both) {
			no_memory(b);
			return;
		}
		memcpy(both, prefix.p, prefix.n);
		if (text.n) memcpy(both + prefix.n, text.p, text.n);
		text = (struct vk_bytes){both, prefix.n + text.n};
	}
	vk_jw_str(&b->w, text);
}

static void put_tokens(struct vk_build *b, const struct vk_call_item *item)
{
	vk_jw_array(&b->w);
	for (size_t i = 0; i < item->tokens_n; i++) vk_jw_u64(&b->w, item->tokens[i]);
	vk_jw_array_end(&b->w);
}

void vk_build_inputs(struct vk_build *b, const char *key, bool tokens_ok)
{
	vk_jw_key(&b->w, key);
	vk_jw_array(&b->w);
	for (size_t i = 0; i < b->call->n && !b->st; i++) {
		const struct vk_call_item *item = &b->call->items[i];
		if (item->text.p) put_text(b, item->text);
		else if (tokens_ok) put_tokens(b, item);
		else fail(b, vk_fail(b->err, VK_E_INVALID, "provider \"%s\" takes texts, no token arrays",
				     b->call->provider->name));
	}
	vk_jw_array_end(&b->w);
}

/* The key as a JSON string somewhere in it: also below the top, where it does no harm to leave
 * our own out. */
static bool has_key(const char *json, const char *key)
{
	size_t n = strlen(key);
	for (const char *p = json; p && (p = strchr(p, '"')); p++)
		if (!strncmp(p + 1, key, n) && p[n + 1] == '"') return true;
	return false;
}

bool vk_build_given(const struct vk_build *b, const char *key)
{
	return has_key(b->call->params, key) || has_key(b->call->provider->extra_body, key);
}

/* The provider's word for the call's role: the space's own, the provider's, or the role's name where
 * nothing else tells it (no prefix, not the role "none"). NULL: say nothing. */
static const char *role_word(const struct vk_call *call)
{
	const struct vk_role *role = call->role;
	if (!role) return NULL;
	if (given(role->value)) return role->value;
	for (const char *const *w = call->provider->role_values; w && w[0]; w += 2)
		if (strcmp(w[0], role->name) == 0) return w[1];
	return role->num && !given(role->prefix) ? role->name : NULL;
}

void vk_build_knobs(struct vk_build *b)
{
	const struct vk_provider *p = b->call->provider;
	const char *word = role_word(b->call);
	/* Native dims are bought, and strict servers refuse the field: so only on demand. */
	if (given(p->dims_field) && !vk_build_given(b, p->dims_field))
		vk_jw_ki(&b->w, p->dims_field, b->call->space->dims);
	if (given(p->role_field) && word && !vk_build_given(b, p->role_field))
		vk_jw_kv(&b->w, p->role_field, word);
}

/* The members of a JSON object, written without its braces. */
static void put_members(struct vk_build *b, struct vk_bytes inside)
{
	while (inside.n && strchr(" \t\r\n", inside.p[0])) inside.p++, inside.n--;
	while (inside.n && strchr(" \t\r\n", inside.p[inside.n - 1])) inside.n--;
	if (!inside.n) return;
	if (b->body.n && b->body.p[b->body.n - 1] != '{') vk_buf_putc(&b->body, ',');
	vk_buf_put(&b->body, inside.p, inside.n);
}

enum vk_status vk_build_finish(struct vk_build *b)
{
	struct vk_bytes params = vk_bytes_of(b->call->params);
	if (params.n >= 2) put_members(b, (struct vk_bytes){params.p + 1, params.n - 2});
	put_members(b, vk_bytes_of(b->call->provider->extra_body));
	vk_jw_object_end(&b->w);
	if (b->body.failed && !b->st)
		b->st = vk_fail(b->err, VK_E_TOO_LARGE, "the request to provider \"%s\" is larger than %zu bytes",
				b->call->provider->name, BODY_MAX);
	if (!b->st) {
		/* A copy, so that the caller frees one arena and nothing else. */
		char *p = vk_arena_strndup(b->arena, b->body.p, b->body.n);
		if (p) b->out->body = (struct vk_bytes){p, b->body.n};
		else no_memory(b);
	}
	vk_buf_free(&b->body);
	return b->st;
}
