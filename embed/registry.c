/*
 * The registry as a whole. Loading is three passes over the config and the known models
 * (providers, spaces, model names), all into one arena; anything wrong fails the whole load and
 * the old registry serves on.
 */
#include "embed/registry_impl.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/log.h"
#include "embed/data.h"

#define ARENA_MAX ((size_t)64 << 20)

uint32_t vk_registry_intern(struct loading *l, enum vk_name_kind kind, const char *name)
{
	uint32_t id = 0;
	if (!l->catalog) return (uint32_t)(l->r->spaces_n + l->r->providers_n + 1);
	if (vk_catalog_intern(l->catalog, kind, vk_bytes_of(name), &id))
		vk_cfg_fail(&l->cfg, name, "cannot write the name to the catalog");
	return id;
}

void vk_registry_add_model(struct loading *l, const char *path, const char *name,
			   const struct vk_space *space, const struct vk_role *role,
			   const char *collection, bool replace)
{
	struct vk_registry *r = l->r;
	struct vk_model_name m = {name, space, role, collection};
	if (!name || l->cfg.failed) return;
	for (size_t i = 0; i < r->models_n; i++) {
		if (strcmp(r->models[i].name, name) != 0) continue;
		if (replace) r->models[i] = m; /* the config's word over an alias */
		return;                        /* else whoever came first keeps it */
	}
	if (r->models_n == VK_MODELS_MAX) {
		vk_cfg_fail(&l->cfg, path, "too many model names");
		return;
	}
	r->models[r->models_n++] = m;
}

/* "name": "space", {"space": id, "role": r} or {"collection": c}. */
static void load_models(struct loading *l)
{
	struct vk_cfg *c = &l->cfg;
	const vk_jv *own = vk_jv_get(l->config, "models");
	if (own && vk_jv_type(own) != VK_J_OBJECT) vk_cfg_fail(c, "models", "expected an object");
	for (const vk_jv *m = vk_jv_first(own); m && !c->failed; m = vk_jv_next(m)) {
		const char *path = vk_cfg_path(c, "models", vk_jv_key(m));
		struct vk_bytes id;
		const char *role_name = NULL, *collection = NULL;
		if (!vk_jv_str(m, &id)) {
			if (!vk_cfg_object(c, m, path, "space role collection")) {
				vk_cfg_fail(c, path, "expected a space's id or an object");
				return;
			}
			const char *s = vk_cfg_str(c, m, path, "space", NULL);
			id = vk_bytes_of(s ? s : "");
			role_name = vk_cfg_str(c, m, path, "role", NULL);
			collection = vk_cfg_str(c, m, path, "collection", NULL);
		}
		const struct vk_space *space = vk_registry_space(l->r, id);
		if (!space && !collection)
			vk_cfg_fail(c, path, "no such space \"%.*s\"", (int)id.n, id.p);
		const struct vk_role *role =
			space && role_name ? vk_space_role(space, vk_bytes_of(role_name)) : NULL;
		if (role_name && space && !role)
			vk_cfg_fail(c, path, "space %s has no role \"%s\"", space->id, role_name);
		vk_registry_add_model(l, path,
				      vk_arena_strndup(c->arena, vk_jv_key(m).p, vk_jv_key(m).n), space,
				      role, collection, true);
	}
}

static enum vk_status make_room(struct vk_registry *r)
{
	r->providers = vk_arena_calloc(&r->arena, VK_PROVIDERS_MAX, sizeof *r->providers);
	r->encoders = vk_arena_calloc(&r->arena, VK_PROVIDERS_MAX + 1, sizeof *r->encoders);
	r->spaces = vk_arena_calloc(&r->arena, VK_SPACES_MAX, sizeof *r->spaces);
	r->states = vk_arena_calloc(&r->arena, VK_SPACES_MAX, sizeof *r->states);
	r->models = vk_arena_calloc(&r->arena, VK_MODELS_MAX, sizeof *r->models);
	return r->providers && r->encoders && r->spaces && r->states && r->models ? VK_OK : VK_E_NOMEM;
}

enum vk_status vk_registry_load(const vk_jv *config, const char *base_dir,
				const struct vk_registry_env *env, struct vk_catalog *catalog,
				struct vk_registry *old, struct vk_registry **out,
				struct vk_error *err)
{
	struct vk_registry *r = calloc(1, sizeof *r);
	struct vk_error local = {0};
	*out = NULL;
	if (!err) err = &local;
	if (!r) return vk_fail(err, VK_E_NOMEM, "out of memory");
	atomic_store(&r->refs, 1);
	vk_arena_init(&r->arena, ARENA_MAX);
	struct vk_bytes known = {vk_data_models_json, vk_data_models_json_size};
	enum vk_status st = make_room(r);
	if (st) vk_fail(err, st, "out of memory");
	if (!st) st = vk_json_parse(&r->arena, known, NULL, &r->known_doc, err);
	struct loading l = {
		.cfg = {.arena = &r->arena, .getenv = env->get, .getenv_arg = env->arg,
			.base_dir = base_dir, .err = err},
		.r = r, .old = old, .catalog = catalog, .config = config,
	};
	if (!st) {
		l.known = vk_json_root(r->known_doc);
		vk_registry_load_providers(&l);
		vk_registry_load_spaces(&l);
		load_models(&l);
		if (l.cfg.failed) st = err->st;
	}
	vk_json_free(r->known_doc); /* everything kept was copied into the arena */
	r->known_doc = NULL;
	if (st) {
		vk_registry_unref(r);
		return st;
	}
	*out = r;
	return VK_OK;
}

struct vk_registry *vk_registry_ref(struct vk_registry *r)
{
	atomic_fetch_add(&r->refs, 1);
	return r;
}

void vk_registry_unref(struct vk_registry *r)
{
	if (!r || atomic_fetch_sub(&r->refs, 1) != 1) return;
	for (size_t i = 0; r->encoders && i <= VK_PROVIDERS_MAX; i++) {
		struct encoder_ref *e = r->encoders[i];
		if (!e || atomic_fetch_sub(&e->refs, 1) != 1) continue;
		vk_encoder_close(e->encoder);
		free(e->dir);
		free(e);
	}
	vk_arena_free(&r->arena);
	free(r);
}

/* --- look-ups --- */

static const struct vk_model_name *exact(const struct vk_registry *r, struct vk_bytes name)
{
	for (size_t i = 0; i < r->models_n; i++)
		if (vk_bytes_is(name, r->models[i].name)) return &r->models[i];
	return NULL;
}

const struct vk_model_name *vk_registry_model(const struct vk_registry *r, struct vk_bytes name,
					      const struct vk_role **role)
{
	const struct vk_model_name *m = exact(r, name);
	*role = m ? m->role : NULL;
	if (m || !name.n) return m;
	const char *hash = memrchr(name.p, '#', name.n);
	if (!hash) return NULL;
	size_t n = (size_t)(hash - name.p);
	m = exact(r, (struct vk_bytes){name.p, n});
	if (!m || !m->space) return m;
	*role = vk_space_role(m->space, (struct vk_bytes){hash + 1, name.n - n - 1});
	return *role ? m : NULL;
}

const struct vk_space *vk_registry_space(const struct vk_registry *r, struct vk_bytes id)
{
	for (size_t i = 0; i < r->spaces_n; i++)
		if (vk_bytes_is(id, r->spaces[i]->id)) return r->spaces[i];
	return NULL;
}

const struct vk_space *vk_registry_space_num(const struct vk_registry *r, uint32_t num)
{
	for (size_t i = 0; i < r->spaces_n; i++)
		if (r->spaces[i]->num == num) return r->spaces[i];
	return NULL;
}

const struct vk_space *const *vk_registry_spaces(const struct vk_registry *r, size_t *n)
{
	*n = r->spaces_n;
	return r->spaces;
}

const struct vk_provider *const *vk_registry_providers(const struct vk_registry *r, size_t *n)
{
	*n = r->providers_n;
	return r->providers;
}

const struct vk_model_name *vk_registry_models(const struct vk_registry *r, size_t *n)
{
	*n = r->models_n;
	return r->models;
}

bool vk_registry_forwards(const struct vk_registry *r)
{
	return r->forwards;
}

/* Two registries may be alive for a while and must not pin one id twice. */
static pthread_mutex_t pinning = PTHREAD_MUTEX_INITIALIZER;

static struct space_state *state_of(struct vk_registry *r, const struct vk_space *s)
{
	for (size_t i = 0; i < r->spaces_n; i++)
		if (r->spaces[i] == s) return &r->states[i];
	return NULL;
}

const char *vk_space_identity(struct vk_registry *r, const struct vk_space *s)
{
	struct space_state *state = state_of(r, s);
	return state ? state->identity : "";
}

enum vk_status vk_space_pin(struct vk_registry *r, const struct vk_space *s, struct vk_catalog *catalog)
{
	struct space_state *state = state_of(r, s);
	if (!state || atomic_load_explicit(&state->pinned, memory_order_relaxed)) return VK_OK;
	struct vk_catalog_op op = {VK_TABLE_SPACE, vk_bytes_of(s->id), vk_bytes_of(state->identity)};
	struct vk_buf pinned;
	vk_buf_init(&pinned, 65536);
	pthread_mutex_lock(&pinning);
	/* A registry that was loaded meanwhile may have pinned another definition: the first one holds. */
	enum vk_status st = vk_catalog_get(catalog, VK_TABLE_SPACE, op.key, &pinned);
	if (st == VK_E_NOT_FOUND)
		st = vk_catalog_commit(catalog, &op, 1);
	else if (!st && !vk_bytes_eq(vk_buf_bytes(&pinned), op.value))
		st = VK_E_EXISTS;
	pthread_mutex_unlock(&pinning);
	vk_buf_free(&pinned);
	if (!st) atomic_store(&state->pinned, true);
	return st;
}
