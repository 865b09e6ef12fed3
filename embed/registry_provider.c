/*
 * Providers: what the config says over what is known of a provider of that name. A plain
 * http:// base is only for this machine and for providers labelled onprem; private addresses
 * likewise, unless they are written down as such.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "embed/registry_impl.h"

#define FIELDS                                                                                     \
	"dialect base_url api_key labels proxy ca_file cert_file key_file headers caps path "      \
	"auth_header auth_prefix dims_field role_field role_values extra_body api_version base64 " \
	"connect_timeout timeout attempts reply_bytes_max model_dir allow_plain allow_private "    \
	"tokens_ok"
#define DEFAULT_MODEL "models/all-MiniLM-L6-v2"

struct vk_provider *vk_registry_provider_find(struct vk_registry *r, const char *name)
{
	for (size_t i = 0; i < r->providers_n; i++)
		if (strcmp(r->providers[i]->name, name) == 0)
			return (struct vk_provider *)r->providers[i];
	return NULL;
}

/* The key: a string (perhaps ${ENV}), {"file": path}, {"from": "client"}; else the usual variable. */
static void read_secret(struct loading *l, const vk_jv *v, const char *path, const char *variable,
			struct vk_secret *s)
{
	struct vk_cfg *c = &l->cfg;
	struct vk_bytes text;
	*s = (struct vk_secret){VK_SECRET_NONE, NULL};
	if (!v || vk_jv_type(v) == VK_J_NULL) {
		const char *usual = variable ? c->getenv(c->getenv_arg, variable) : NULL;
		if (usual && usual[0])
			*s = (struct vk_secret){VK_SECRET_VALUE,
						vk_arena_strndup(c->arena, usual, strlen(usual))};
		return;
	}
	if (vk_jv_str(v, &text)) {
		*s = (struct vk_secret){VK_SECRET_VALUE, vk_cfg_expand(c, path, text)};
		return;
	}
	if (!vk_cfg_object(c, v, path, "file from")) return;
	const char *from = vk_cfg_str(c, v, path, "from", NULL);
	const char *file = vk_cfg_file(c, v, path, "file", NULL);
	if (from && strcmp(from, "client") == 0 && !file) {
		s->from = VK_SECRET_CLIENT;
		l->r->forwards = true;
	} else if (file && !from) {
		*s = (struct vk_secret){VK_SECRET_FILE, file};
		if (access(file, R_OK) != 0)
			vk_cfg_fail(c, path, "cannot read the secret file %s", file);
	} else {
		vk_cfg_fail(c, path, "expected a string, {\"file\": ...} or {\"from\": \"client\"}");
	}
}

/* The host part of a URL: is it this machine, or an address written as numbers? */
static void look_at_host(const char *url, bool *loopback, bool *literal)
{
	const char *p = strstr(url, "://");
	p = p ? p + 3 : url;
	size_t n = strcspn(p, "/?#");
	bool numbers = strspn(p, "0123456789.:") == n;
	size_t name = strcspn(p, ":/?#");
	*loopback = (numbers && strncmp(p, "127.", 4) == 0) ||
		    (name == 9 && strncmp(p, "localhost", 9) == 0) || strncmp(p, "[::1]", 5) == 0;
	*literal = *loopback || p[0] == '[' || numbers;
}

static bool labelled(const struct vk_provider *p, const char *label)
{
	for (size_t i = 0; p->labels[i]; i++)
		if (strcmp(p->labels[i], label) == 0) return true;
	return false;
}

static void check_url(struct loading *l, struct vk_provider *p, const vk_jv *v, const char *path)
{
	struct vk_cfg *c = &l->cfg;
	bool loopback, literal, onprem = labelled(p, "onprem");
	if (!p->base_url) {
		vk_cfg_fail(c, path, "base_url is missing");
		return;
	}
	const char *host = strstr(p->base_url, "://");
	host = host ? host + 3 : p->base_url;
	if (memchr(host, '@', strcspn(host, "/?#"))) { /* addresses are shown and logged */
		vk_cfg_fail(c, path, "base_url must not hold credentials: use api_key or headers");
		return;
	}
	look_at_host(p->base_url, &loopback, &literal);
	bool plain = strncmp(p->base_url, "http://", 7) == 0;
	if (!plain && strncmp(p->base_url, "https://", 8) != 0)
		vk_cfg_fail(c, path, "base_url must begin with https:// or http://");
	p->plain_ok = vk_cfg_bool(c, v, path, "allow_plain", loopback || onprem);
	p->private_ok = vk_cfg_bool(c, v, path, "allow_private", literal || onprem);
	if (plain && !p->plain_ok)
		vk_cfg_fail(c, path,
			    "base_url is plain http to another machine: use https, label the provider "
			    "onprem, or set \"allow_plain\": true");
}

void vk_registry_read_caps(struct loading *l, const vk_jv *v, const vk_jv *known, const char *path,
			   const struct vk_caps *dflt, struct vk_caps *caps)
{
	struct vk_cfg *c = &l->cfg;
	const vk_jv *k = vk_jv_get(known, "caps");
	const vk_jv *own = vk_jv_get(v, "caps");
	path = vk_cfg_path(c, path, VK_LIT("caps"));
	vk_cfg_object(c, own, path, "items tokens bytes concurrency tokens_input");
#define CAP(field, max)                                                                            \
	caps->field = (uint32_t)vk_cfg_u64(                                                        \
		c, own, path, #field, vk_cfg_u64(c, k, path, #field, dflt->field, 0, max), 0, max)
	CAP(items, 1000000);
	CAP(tokens, 1000000000);
	CAP(bytes, 1000000000);
	CAP(concurrency, 1024);
#undef CAP
	if (!caps->concurrency) caps->concurrency = 8;
}

/* "extra_body": an object, kept as the text between its braces. */
static const char *read_extra_body(struct loading *l, const vk_jv *v, const char *path)
{
	if (!v) return NULL;
	if (vk_jv_type(v) != VK_J_OBJECT) {
		vk_cfg_fail(&l->cfg, path, "extra_body: expected an object");
		return NULL;
	}
	struct vk_buf text;
	vk_buf_init(&text, 65536);
	struct vk_jw w;
	vk_jw_init(&w, &text);
	vk_jw_value(&w, v);
	const char *inside =
		text.failed || text.n < 2 ? NULL : vk_arena_strndup(l->cfg.arena, text.p + 1, text.n - 2);
	vk_buf_free(&text);
	return inside && inside[0] ? inside : NULL;
}

/* "role_values": {"query": "q", ...} as pairs, NULL-terminated. */
static const char *const *read_role_values(struct loading *l, const vk_jv *v, const char *path)
{
	struct vk_cfg *c = &l->cfg;
	const char **list = vk_arena_calloc(c->arena, 2 * vk_jv_len(v) + 1, sizeof *list);
	size_t n = 0;
	if (!list || (v && vk_jv_type(v) != VK_J_OBJECT)) {
		vk_cfg_fail(c, path, "role_values: expected an object of strings");
		return NULL;
	}
	for (const vk_jv *m = vk_jv_first(v); m && !c->failed; m = vk_jv_next(m)) {
		const char *role = vk_arena_strndup(c->arena, vk_jv_key(m).p, vk_jv_key(m).n);
		const char *word = role ? vk_cfg_str(c, v, path, role, NULL) : NULL;
		if (!word) continue;
		list[n++] = role;
		list[n++] = word;
	}
	return list;
}

static void read_http(struct loading *l, struct vk_provider *p, const vk_jv *v, const vk_jv *known,
		      const char *path)
{
	struct vk_cfg *c = &l->cfg;
#define STR(field) vk_cfg_str(c, v, path, #field, vk_cfg_str(c, known, path, #field, NULL))
	p->base_url = STR(base_url);
	p->proxy = vk_cfg_str(c, v, path, "proxy", NULL);
	p->ca_file = vk_cfg_file(c, v, path, "ca_file", NULL);
	p->cert_file = vk_cfg_file(c, v, path, "cert_file", NULL);
	p->key_file = vk_cfg_file(c, v, path, "key_file", NULL);
	p->path = STR(path);
	p->auth_header = STR(auth_header);
	p->auth_prefix = STR(auth_prefix);
	p->dims_field = vk_cfg_str(c, v, path, "dims_field", NULL); /* sent only when asked for */
	p->role_field = STR(role_field);
	if (!p->role_field) p->role_field = p->dialect->role_field;
	p->api_version = STR(api_version);
#undef STR
	const vk_jv *words = vk_jv_get(v, "role_values");
	p->role_values = read_role_values(l, words ? words : vk_jv_get(known, "role_values"), path);
	p->headers = vk_cfg_list(c, v, path, "headers");
	for (size_t i = 0; p->headers[i]; i++)
		if (!strchr(p->headers[i], ':') || strpbrk(p->headers[i], "\r\n"))
			vk_cfg_fail(c, path, "headers[%zu]: expected \"Name: value\"", i);
	const vk_jv *extra = vk_jv_get(v, "extra_body");
	p->extra_body = read_extra_body(l, extra ? extra : vk_jv_get(known, "extra_body"), path);
	p->base64 = vk_cfg_bool(c, v, path, "base64", vk_cfg_bool(c, known, path, "base64", false));
	p->connect_timeout_ms =
		(uint32_t)vk_cfg_duration_ms(c, v, path, "connect_timeout", 3000);
	p->timeout_ms = (uint32_t)vk_cfg_duration_ms(c, v, path, "timeout", 60000);
	p->attempts_max = (uint32_t)vk_cfg_u64(c, v, path, "attempts", 4, 1, 20);
	p->reply_bytes_max = vk_cfg_size(c, v, path, "reply_bytes_max", (uint64_t)256 << 20);
	if (p->base_url) {
		size_t n = strlen(p->base_url);
		while (n && p->base_url[n - 1] == '/') n--;
		p->base_url = vk_arena_strndup(c->arena, p->base_url, n);
	}
	check_url(l, p, v, path);
}

/* The encoder of this directory: the old registry's when it has it, else opened. */
static struct encoder_ref *encoder_for(struct loading *l, const char *dir, struct vk_error *err)
{
	for (size_t i = 0; l->old && i < l->old->providers_n; i++) {
		struct encoder_ref *e = l->old->encoders[i];
		if (e && strcmp(e->dir, dir) == 0) {
			atomic_fetch_add(&e->refs, 1);
			return e;
		}
	}
	struct encoder_ref *e = calloc(1, sizeof *e);
	if (!e || !(e->dir = strdup(dir))) {
		free(e);
		vk_fail(err, VK_E_NOMEM, "out of memory");
		return NULL;
	}
	if (vk_encoder_open(dir, &e->encoder, err)) {
		free(e->dir);
		free(e);
		return NULL;
	}
	atomic_store(&e->refs, 1);
	return e;
}

/* Where the default model lies: said by the environment, below the config, below the working
 * directory, beside the program. */
static const char *default_model_dir(struct loading *l)
{
	struct vk_cfg *c = &l->cfg;
	const char *said = c->getenv(c->getenv_arg, "VECKEEP_MODEL_DIR");
	if (said) return said;
	char self[1024];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	self[n > 0 ? n : 0] = 0;
	char *slash = strrchr(self, '/');
	if (slash) *slash = 0;
	const char *const dirs[] = {c->base_dir ? c->base_dir : ".", ".",
				    vk_arena_printf(c->arena, "%s/..", self),
				    vk_arena_printf(c->arena, "%s/../share/veckeep", self)};
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
		const char *dir = vk_arena_printf(c->arena, "%s/" DEFAULT_MODEL, dirs[i]);
		const char *file = vk_arena_printf(c->arena, "%s/model.safetensors", dir);
		if (file && access(file, R_OK) == 0) return dir;
	}
	return NULL;
}

/* Returns false when the provider is to be left out (the default one without weights). */
static bool read_builtin(struct loading *l, struct vk_provider *p, const vk_jv *v, const char *path,
			 bool by_default)
{
	struct vk_error err = {0};
	p->model_dir = vk_cfg_file(&l->cfg, v, path, "model_dir", NULL);
	if (!p->model_dir) p->model_dir = default_model_dir(l);
	if (!p->model_dir) {
		if (by_default)
			vk_log(VK_LOG_WARN, "no weights for the built-in encoder (%s): "
					    "script/fetch-model gets them", DEFAULT_MODEL);
		else
			vk_cfg_fail(&l->cfg, path, "model_dir is missing and %s is not there",
				    DEFAULT_MODEL);
		return false;
	}
	struct encoder_ref *e = encoder_for(l, p->model_dir, &err);
	if (!e) {
		vk_cfg_fail(&l->cfg, path, "%s", err.text);
		return false;
	}
	p->encoder = e->encoder;
	l->r->encoders[l->r->providers_n] = e;
	return true;
}

static void add_provider(struct loading *l, struct vk_bytes name, const vk_jv *v, const char *path,
			 bool by_default)
{
	struct vk_cfg *c = &l->cfg;
	struct vk_registry *r = l->r;
	char key[128];
	snprintf(key, sizeof key, "%.*s", (int)name.n, name.p);
	const vk_jv *known = vk_jv_get(vk_jv_get(l->known, "providers"), key);
	if (v) vk_cfg_object(c, v, path, FIELDS);
	if (r->providers_n == VK_PROVIDERS_MAX) vk_cfg_fail(c, path, "too many providers");
	struct vk_provider *p = vk_arena_calloc(c->arena, 1, sizeof *p);
	if (!p) vk_cfg_fail(c, path, "out of memory");
	if (c->failed) return;
	p->name = vk_arena_strndup(c->arena, name.p, name.n);
	const char *dialect = vk_cfg_str(c, v, path, "dialect", vk_cfg_str(c, known, path, "dialect", NULL));
	if (!dialect && strcmp(p->name, "builtin") == 0) dialect = "builtin";
	if (!dialect && vk_dialect_find(name)) dialect = p->name; /* "ollama": {"base_url": ...} */
	if (!dialect)
		vk_cfg_fail(c, path, "dialect is missing (one of %s), and no provider of this name is known",
			    vk_dialect_names());
	else if (!(p->dialect = vk_dialect_find(vk_bytes_of(dialect))))
		vk_cfg_fail(c, path, "unknown dialect \"%s\" (one of %s)", dialect, vk_dialect_names());
	if (c->failed) return;
	const char *const *labels = vk_cfg_list(c, v, path, "labels");
	p->labels = labels[0] ? labels : vk_cfg_list(c, known, path, "labels");
	struct vk_caps caps = p->dialect->caps;
	if (!caps.concurrency) caps.concurrency = p->dialect->local ? 2 : 8;
	vk_registry_read_caps(l, v, known, path, &caps, &p->caps);
	read_secret(l, vk_jv_get(v, "api_key"), vk_cfg_path(c, path, VK_LIT("api_key")),
		    vk_cfg_str(c, known, path, "key_variable", NULL), &p->api_key);
	p->num = vk_registry_intern(l, VK_NAME_PROVIDER, p->name);
	if (p->dialect->local) {
		p->headers = vk_cfg_list(c, NULL, path, "headers");
		p->attempts_max = 1;
		if (!read_builtin(l, p, v, path, by_default)) return;
	} else {
		read_http(l, p, v, known, path);
	}
	r->providers[r->providers_n++] = p;
}

void vk_registry_load_providers(struct loading *l)
{
	struct vk_cfg *c = &l->cfg;
	const vk_jv *own = vk_jv_get(l->config, "providers");
	if (own && vk_jv_type(own) != VK_J_OBJECT) {
		vk_cfg_fail(c, "providers", "expected an object");
		return;
	}
	for (const vk_jv *m = vk_jv_first(own); m && !c->failed; m = vk_jv_next(m))
		add_provider(l, vk_jv_key(m), m, vk_cfg_path(c, "providers", vk_jv_key(m)), false);
	if (own || c->failed) return;
	/* No word about providers: the encoder, and whatever the environment has keys for. */
	add_provider(l, VK_LIT("builtin"), NULL, "providers.builtin", true);
	for (const vk_jv *m = vk_jv_first(vk_jv_get(l->known, "providers")); m && !c->failed;
	     m = vk_jv_next(m)) {
		const char *variable = vk_cfg_str(c, m, "known", "key_variable", NULL);
		const char *key = variable ? c->getenv(c->getenv_arg, variable) : NULL;
		if (key && key[0])
			add_provider(l, vk_jv_key(m), NULL, vk_cfg_path(c, "providers", vk_jv_key(m)), true);
	}
}
