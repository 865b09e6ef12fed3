/*
 * Spaces and model names: the config's own, then the known ones that a configured provider can
 * serve, then the built-in encoder's.
 */
#include <stdlib.h>

#include "embed/registry_impl.h"

#define FIELDS                                                                                     \
	"dims matryoshka dims_min dims_allowed dims_offered roles role_required tokenizer "        \
	"tokens_max pass_params canary ttl price route aliases normalised truncation weights "     \
	"unconfirmed note open_weights"
#define CANARY_OPEN 0.9999
#define CANARY_CLOSED 0.999

/* How the APIs that clients come through spell the two roles that retrieval has. */
static const struct {
	const char *spelling, *role;
} spellings[] = {
	{"search_query", "query"},	 {"search_document", "document"},
	{"retrieval_query", "query"},	 {"retrieval_document", "document"},
	{"RETRIEVAL_QUERY", "query"},	 {"RETRIEVAL_DOCUMENT", "document"},
	{"retrieval.query", "query"},	 {"retrieval.passage", "document"},
	{"passage", "document"},	 {"query", "query"},
	{"classification", "none"},	 {"clustering", "none"},
	{"CLASSIFICATION", "none"},	 {"CLUSTERING", "none"},
	{"SEMANTIC_SIMILARITY", "none"}, {"text-matching", "none"},
	{"search", "query"},
	{"document", "document"},	 {"none", "none"},
	{"", "none"},
};

static const struct vk_role *role_named(const struct vk_space *s, struct vk_bytes name)
{
	for (size_t i = 0; i < s->roles_n; i++)
		if (vk_bytes_is(name, s->roles[i].name)) return &s->roles[i];
	return NULL;
}

const struct vk_role *vk_space_role(const struct vk_space *s, struct vk_bytes name)
{
	const struct vk_role *role = role_named(s, name);
	for (size_t i = 0; !role && i < sizeof spellings / sizeof *spellings; i++) {
		if (!vk_bytes_is(name, spellings[i].spelling)) continue;
		if (s->roles_n == 1) return &s->roles[0]; /* symmetric: every role is the same vector */
		/* A task that the space does not tell apart is not quietly made another one. */
		if (strcmp(spellings[i].role, "none") != 0 || vk_bytes_is(name, "none") || !name.n)
			role = role_named(s, vk_bytes_of(spellings[i].role));
	}
	return role;
}

bool vk_space_gives_dims(const struct vk_space *s, uint64_t dims)
{
	if (dims == s->dims) return true;
	if (!s->matryoshka || dims > s->dims || dims < s->dims_min) return false;
	if (!s->dims_allowed) return true;
	for (size_t i = 0; i < s->dims_allowed_n; i++)
		if (s->dims_allowed[i] == dims) return true;
	return false;
}

/* --- reading one --- */

static void read_roles(struct loading *l, struct vk_space *s, const vk_jv *v, const char *path)
{
	struct vk_cfg *c = &l->cfg;
	const vk_jv *roles = vk_jv_get(v, "roles");
	size_t n = vk_jv_len(roles) + 1;
	path = vk_cfg_path(c, path, VK_LIT("roles"));
	if (roles && vk_jv_type(roles) != VK_J_OBJECT) vk_cfg_fail(c, path, "expected an object");
	if (n > VK_ROLES_MAX) vk_cfg_fail(c, path, "too many roles");
	struct vk_role *list = c->failed ? NULL : vk_arena_calloc(c->arena, n, sizeof *list);
	if (!list) return;
	list[0] = (struct vk_role){.name = "none", .prefix = ""};
	size_t i = 1;
	for (const vk_jv *m = vk_jv_first(roles); m && !c->failed; m = vk_jv_next(m)) {
		const char *at = vk_cfg_path(c, path, vk_jv_key(m));
		vk_cfg_object(c, m, at, "value prefix");
		struct vk_role r = {.name = vk_arena_strndup(c->arena, vk_jv_key(m).p, vk_jv_key(m).n),
				    .value = vk_cfg_str(c, m, at, "value", NULL),
				    .prefix = vk_cfg_str(c, m, at, "prefix", ""),
				    .num = (uint8_t)i};
		if (r.name && strcmp(r.name, "none") == 0) {
			r.num = 0;
			list[0] = r;
		} else {
			list[i++] = r;
		}
	}
	s->roles = list;
	s->roles_n = i;
}

static void read_price(struct loading *l, struct vk_price *p, const vk_jv *v, const char *path)
{
	struct vk_cfg *c = &l->cfg;
	*p = (struct vk_price){.micros_per_mtok = -1, .currency = "USD", .date = ""};
	if (!v || vk_jv_type(v) == VK_J_NULL) return;
	path = vk_cfg_path(c, path, VK_LIT("price"));
	if (!vk_cfg_object(c, v, path, "per_mtok currency date source unit")) return;
	double amount = vk_cfg_f64(c, v, path, "per_mtok", -1, 0, 1e9);
	if (amount >= 0) p->micros_per_mtok = (int64_t)(amount * 1e6 + 0.5);
	p->currency = vk_cfg_str(c, v, path, "currency", "USD");
	p->date = vk_cfg_str(c, v, path, "date", "");
}

/* known: hops whose provider is not configured are left out instead of being an error. */
static void read_route(struct loading *l, struct vk_space *s, const vk_jv *v, const char *path,
		       bool known)
{
	struct vk_cfg *c = &l->cfg;
	const vk_jv *route = vk_jv_get(v, "route");
	struct vk_hop *hops = vk_arena_calloc(c->arena, VK_ROUTE_MAX, sizeof *hops);
	size_t n = 0, i = 0;
	if (!hops || (route && vk_jv_type(route) != VK_J_ARRAY)) {
		vk_cfg_fail(c, vk_cfg_path(c, path, VK_LIT("route")), "expected a list");
		return;
	}
	for (const vk_jv *m = vk_jv_first(route); m && !c->failed; m = vk_jv_next(m), i++) {
		const char *at = vk_arena_printf(c->arena, "%s.route[%zu]", path, i);
		if (!at) at = path;
		vk_cfg_object(c, m, at, "provider model weight price caps note unconfirmed");
		const char *name = vk_cfg_str(c, m, at, "provider", NULL);
		struct vk_provider *p = name ? vk_registry_provider_find(l->r, name) : NULL;
		if (!p && known) continue;
		if (!p) {
			vk_cfg_fail(c, vk_cfg_path(c, at, VK_LIT("provider")), "no such provider \"%s\"",
				    name ? name : "");
			return;
		}
		if (n == VK_ROUTE_MAX) vk_cfg_fail(c, at, "a route holds at most %d providers", VK_ROUTE_MAX);
		if (c->failed) return;
		hops[n].provider = p;
		hops[n].model = vk_cfg_str(c, m, at, "model", p->dialect->local ? "builtin" : NULL);
		hops[n].weight = (uint32_t)vk_cfg_u64(c, m, at, "weight", 0, 0, 1000000);
		vk_registry_read_caps(l, m, NULL, at, &p->caps, &hops[n].caps);
		if (!hops[n].model) vk_cfg_fail(c, at, "model is missing");
		if (n == 0 && s->price.micros_per_mtok < 0)
			read_price(l, &s->price, vk_jv_get(m, "price"), at);
		n++;
	}
	s->route = hops;
	s->route_n = n;
	if (!n && !known) vk_cfg_fail(c, path, "route is missing or empty");
}

static void read_dims(struct loading *l, struct vk_space *s, const vk_jv *v, const char *path)
{
	struct vk_cfg *c = &l->cfg;
	s->dims = (uint32_t)vk_cfg_u64(c, v, path, "dims", 0, 1, VK_DIMS_MAX);
	s->matryoshka = vk_cfg_bool(c, v, path, "matryoshka", false);
	s->dims_min = (uint32_t)vk_cfg_u64(c, v, path, "dims_min", 1, 1, s->dims ? s->dims : 1);
	const vk_jv *allowed = vk_jv_get(v, "dims_allowed");
	size_t n = vk_jv_len(allowed);
	uint32_t *list = n ? vk_arena_alloc(c->arena, n * sizeof *list) : NULL;
	if (n && (vk_jv_type(allowed) != VK_J_NUMBERS || !list || !vk_jv_u32s(allowed, list)))
		vk_cfg_fail(c, path, "dims_allowed: expected a list of whole numbers");
	s->dims_allowed = list;
	s->dims_allowed_n = n;
	/* The built-in encoder tells its own dims. */
	if (!s->dims && s->route_n && s->route[0].provider->encoder)
		s->dims = vk_encoder_info(s->route[0].provider->encoder)->dims;
	if (!s->dims) vk_cfg_fail(c, path, "dims is missing");
	for (size_t i = 0; i < s->route_n && !c->failed; i++) {
		const struct vk_encoder *e = s->route[i].provider->encoder;
		if (e && vk_encoder_info(e)->dims != s->dims)
			vk_cfg_fail(c, path, "dims is %u, but provider %s makes %u", s->dims,
				    s->route[i].provider->name, vk_encoder_info(e)->dims);
	}
}

/* What makes the space itself, in one canonical line; prices, routes and limits may change. */
static const char *identity_of(struct loading *l, const struct vk_space *s, const char *truncation)
{
	struct vk_buf text;
	struct vk_jw w;
	vk_buf_init(&text, 65536);
	vk_jw_init(&w, &text);
	vk_jw_object(&w);
	vk_jw_ki(&w, "dims", s->dims);
	const char *fingerprint = "";
	for (size_t i = 0; i < s->route_n; i++)
		if (s->route[i].provider->encoder)
			fingerprint = vk_encoder_info(s->route[i].provider->encoder)->fingerprint;
	vk_jw_kv(&w, "fingerprint", fingerprint);
	vk_jw_kb(&w, "matryoshka", s->matryoshka);
	vk_jw_key(&w, "roles");
	vk_jw_object(&w);
	for (size_t i = 0; i < s->roles_n; i++) {
		vk_jw_key(&w, s->roles[i].name);
		vk_jw_array(&w);
		vk_jw_cstr(&w, s->roles[i].value ? s->roles[i].value : "");
		vk_jw_cstr(&w, s->roles[i].prefix);
		vk_jw_array_end(&w);
	}
	vk_jw_object_end(&w);
	vk_jw_kv(&w, "tokenizer", s->tokenizer == VK_TOKENIZER_CL100K ? "cl100k" : "");
	vk_jw_kv(&w, "truncation", truncation);
	vk_jw_object_end(&w);
	const char *id = vk_arena_strndup(l->cfg.arena, vk_buf_cstr(&text), text.n);
	vk_buf_free(&text);
	return id ? id : "";
}

/* A space that was used before under this id must still be the same. */
static void check_pin(struct loading *l, const struct vk_space *s, struct space_state *state,
		      const char *path)
{
	struct vk_buf pinned;
	vk_buf_init(&pinned, 65536);
	if (l->catalog &&
	    !vk_catalog_get(l->catalog, VK_TABLE_SPACE, vk_bytes_of(s->id), &pinned)) {
		if (vk_bytes_is(vk_buf_bytes(&pinned), state->identity))
			state->pinned = true;
		else
			vk_cfg_fail(&l->cfg, path,
				    "this id is pinned to another definition (%s, now %s); vectors of two "
				    "definitions must not mix: give the new one an id of its own, e.g. with "
				    "another @revision", vk_buf_cstr(&pinned), state->identity);
	}
	vk_buf_free(&pinned);
}

static bool add_space(struct loading *l, const char *id, const vk_jv *v, const char *path, bool known)
{
	struct vk_cfg *c = &l->cfg;
	struct vk_registry *r = l->r;
	if (!vk_cfg_object(c, v, path, FIELDS)) return false;
	if (r->spaces_n == VK_SPACES_MAX) vk_cfg_fail(c, path, "too many spaces");
	struct vk_space *s = vk_arena_calloc(c->arena, 1, sizeof *s);
	if (!s || c->failed) return false;
	s->id = id;
	vk_cfg_u64(c, v, path, "dims", 0, 1, VK_DIMS_MAX); /* the plainest mistake first */
	read_price(l, &s->price, vk_jv_get(v, "price"), path);
	read_route(l, s, v, path, known);
	if (known && !s->route_n) return false;
	read_dims(l, s, v, path);
	read_roles(l, s, v, path);
	const char *tokenizer = vk_cfg_str(c, v, path, "tokenizer", "");
	if (strcmp(tokenizer, "cl100k") == 0)
		s->tokenizer = VK_TOKENIZER_CL100K;
	else if (tokenizer[0])
		vk_cfg_fail(c, vk_cfg_path(c, path, VK_LIT("tokenizer")), "only \"cl100k\" is known");
	s->tokens_max = (uint32_t)vk_cfg_u64(c, v, path, "tokens_max", 0, 0, 100000000);
	s->pass_params = vk_cfg_list(c, v, path, "pass_params");
	s->open_weights = vk_cfg_bool(c, v, path, "open_weights", vk_jv_get(v, "weights") != NULL);
	s->role_required = vk_cfg_bool(c, v, path, "role_required", false);
	s->canary_min = (float)vk_cfg_f64(c, v, path, "canary",
					  s->open_weights ? CANARY_OPEN : CANARY_CLOSED, -1, 1);
	s->ttl_ms = (int64_t)vk_cfg_duration_ms(c, v, path, "ttl", 0);
	const char *truncation = vk_cfg_str(c, v, path, "truncation", "provider");
	if (c->failed) return false;
	s->num = vk_registry_intern(l, VK_NAME_SPACE, s->id);
	struct space_state *state = &r->states[r->spaces_n];
	state->identity = identity_of(l, s, truncation);
	check_pin(l, s, state, path);
	r->spaces[r->spaces_n++] = s;
	vk_registry_add_model(l, path, s->id, s, NULL, NULL, false);
	const char *const *aliases = vk_cfg_list(c, v, path, "aliases");
	for (size_t i = 0; aliases[i]; i++)
		vk_registry_add_model(l, path, aliases[i], s, NULL, NULL, false);
	return !c->failed;
}

/* --- the encoder's own space --- */

/* The known open-weights space of the same model, for its prefixes; NULL: none. */
static const vk_jv *known_weights(struct loading *l, const char *model)
{
	const char *slash = strrchr(model, '/');
	model = slash ? slash + 1 : model;
	for (const vk_jv *m = vk_jv_first(vk_jv_get(l->known, "spaces")); m; m = vk_jv_next(m)) {
		struct vk_bytes repo = {0};
		if (!vk_jv_str(vk_jv_get(vk_jv_get(m, "weights"), "repo"), &repo)) continue;
		size_t n = strlen(model);
		if (repo.n > n && repo.p[repo.n - n - 1] == '/' &&
		    memcmp(repo.p + repo.n - n, model, n) == 0)
			return m;
	}
	return NULL;
}

static bool routed(const struct vk_registry *r, const struct vk_provider *p)
{
	for (size_t i = 0; i < r->spaces_n; i++)
		for (size_t h = 0; h < r->spaces[i]->route_n; h++)
			if (r->spaces[i]->route[h].provider == p) return true;
	return false;
}

/* A space of its own for a built-in encoder that no space of the config routes to: its id
 * carries the fingerprint of the weights, so other weights can never be taken for it. */
static void add_builtin_space(struct loading *l, const struct vk_provider *p)
{
	struct vk_cfg *c = &l->cfg;
	const struct vk_encoder_info *info = vk_encoder_info(p->encoder);
	const char *base = strrchr(info->model, '/');
	base = base ? base + 1 : info->model;
	const vk_jv *known = known_weights(l, info->model);
	struct vk_buf text;
	struct vk_jw w;
	struct vk_json *doc = NULL;
	vk_buf_init(&text, 65536);
	vk_jw_init(&w, &text);
	vk_jw_object(&w);
	vk_jw_ki(&w, "dims", info->dims);
	vk_jw_ki(&w, "tokens_max", info->tokens_max);
	vk_jw_kv(&w, "truncation", "cut");
	vk_jw_kb(&w, "open_weights", true);
	vk_jw_key(&w, "price");
	vk_jw_object(&w);
	vk_jw_kf(&w, "per_mtok", 0);
	vk_jw_object_end(&w);
	if (vk_jv_get(known, "roles")) {
		vk_jw_key(&w, "roles");
		vk_jw_value(&w, vk_jv_get(known, "roles"));
	}
	vk_jw_key(&w, "route");
	vk_jw_array(&w);
	vk_jw_object(&w);
	vk_jw_kv(&w, "provider", p->name);
	vk_jw_object_end(&w);
	vk_jw_array_end(&w);
	vk_jw_object_end(&w);
	const char *id = vk_arena_printf(c->arena, "builtin/%s@%.8s", base, info->fingerprint);
	struct vk_bytes body = {vk_arena_strndup(c->arena, vk_buf_cstr(&text), text.n), text.n};
	vk_buf_free(&text);
	if (!id || !body.p || vk_json_parse(c->arena, body, NULL, &doc, c->err)) {
		vk_cfg_fail(c, "providers.builtin", "out of memory");
		return;
	}
	if (add_space(l, id, vk_json_root(doc), id, false)) {
		const struct vk_space *s = l->r->spaces[l->r->spaces_n - 1];
		vk_registry_add_model(l, id, vk_arena_printf(c->arena, "%s", base), s, NULL, NULL, false);
		vk_registry_add_model(l, id, p->name, s, NULL, NULL, false);
		const char *const *aliases = vk_cfg_list(c, known, id, "aliases");
		for (size_t i = 0; aliases[i]; i++)
			vk_registry_add_model(l, id, aliases[i], s, NULL, NULL, false);
	}
	vk_json_free(doc);
}

static const char *member_name(struct vk_cfg *c, const vk_jv *member)
{
	const char *name = vk_arena_strndup(c->arena, vk_jv_key(member).p, vk_jv_key(member).n);
	return name ? name : "";
}

static void write_member(struct vk_jw *w, struct vk_cfg *c, const vk_jv *member)
{
	vk_jw_key(w, member_name(c, member));
	vk_jw_value(w, member);
}

/* A space of the config; where its id is a known one, the config's fields win one by one. */
static void add_own(struct loading *l, const vk_jv *m)
{
	struct vk_cfg *c = &l->cfg;
	const char *path = vk_cfg_path(c, "spaces", vk_jv_key(m));
	const char *id = vk_arena_strndup(c->arena, vk_jv_key(m).p, vk_jv_key(m).n);
	const vk_jv *known = id ? vk_jv_get(vk_jv_get(l->known, "spaces"), id) : NULL;
	if (!known || !vk_cfg_object(c, m, path, FIELDS)) {
		if (id && !c->failed) add_space(l, id, m, path, false);
		return;
	}
	struct vk_buf text;
	struct vk_jw w;
	struct vk_json *doc = NULL;
	vk_buf_init(&text, 1 << 20);
	vk_jw_init(&w, &text);
	vk_jw_object(&w);
	for (const vk_jv *f = vk_jv_first(m); f; f = vk_jv_next(f)) write_member(&w, c, f);
	for (const vk_jv *f = vk_jv_first(known); f; f = vk_jv_next(f))
		if (!vk_jv_get(m, member_name(c, f))) write_member(&w, c, f);
	vk_jw_object_end(&w);
	struct vk_bytes body = {vk_arena_strndup(c->arena, vk_buf_cstr(&text), text.n), text.n};
	if (!body.p || vk_json_parse(c->arena, body, NULL, &doc, c->err))
		vk_cfg_fail(c, path, "out of memory");
	else /* the known route's hops without a configured provider fall away, as always */
		add_space(l, id, vk_json_root(doc), path, !vk_jv_get(m, "route"));
	if (!c->failed && !vk_registry_space(l->r, vk_bytes_of(id)))
		vk_cfg_fail(c, path, "no configured provider serves this space: add one, or a route");
	vk_json_free(doc);
	vk_buf_free(&text);
}

void vk_registry_load_spaces(struct loading *l)
{
	struct vk_cfg *c = &l->cfg;
	const vk_jv *own = vk_jv_get(l->config, "spaces");
	if (own && vk_jv_type(own) != VK_J_OBJECT) vk_cfg_fail(c, "spaces", "expected an object");
	for (const vk_jv *m = vk_jv_first(own); m && !c->failed; m = vk_jv_next(m)) add_own(l, m);
	for (size_t i = 0; i < l->r->providers_n && !c->failed; i++)
		if (l->r->providers[i]->encoder && !routed(l->r, l->r->providers[i]))
			add_builtin_space(l, l->r->providers[i]);
	for (const vk_jv *m = vk_jv_first(vk_jv_get(l->known, "spaces")); m && !c->failed;
	     m = vk_jv_next(m)) {
		const char *id = vk_arena_strndup(c->arena, vk_jv_key(m).p, vk_jv_key(m).n);
		if (id && !vk_registry_space(l->r, vk_bytes_of(id)))
			add_space(l, id, m, vk_cfg_path(c, "known.spaces", vk_jv_key(m)), true);
	}
}
