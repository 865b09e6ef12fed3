/* The registry's insides: registry.c (loading as a whole, look-ups), registry_provider.c,
 * registry_space.c. */
#ifndef VK_EMBED_REGISTRY_IMPL_H
#define VK_EMBED_REGISTRY_IMPL_H

#include <stdatomic.h>

#include "base/cfg.h"
#include "embed/dialect.h"
#include "embed/encoder.h"
#include "embed/registry.h"

/* The registry's maxima, in one list. */
#define VK_PROVIDERS_MAX 256
#define VK_SPACES_MAX 4096
#define VK_MODELS_MAX 16384
#define VK_ROUTE_MAX 16
#define VK_ROLES_MAX 32

/* An encoder that several registries hold, so that a changed config does not load weights again. */
struct encoder_ref {
	struct vk_encoder *encoder;
	char *dir;
	_Atomic unsigned refs;
};

struct space_state { /* what is not part of the definition */
	_Atomic bool pinned;
	const char *identity; /* canonical JSON of what makes the space itself */
};

struct vk_registry {
	_Atomic unsigned refs;
	struct vk_arena arena;
	struct vk_json *known_doc;
	const struct vk_provider **providers;
	struct encoder_ref **encoders; /* per provider, NULL where it has none */
	size_t providers_n;
	const struct vk_space **spaces;
	struct space_state *states;
	size_t spaces_n;
	struct vk_model_name *models;
	size_t models_n;
	bool forwards;
};

struct loading {
	struct vk_cfg cfg;
	struct vk_registry *r;
	struct vk_registry *old;    /* lends its encoders; may be NULL */
	struct vk_catalog *catalog; /* may be NULL */
	const vk_jv *known;         /* root of the known-models data */
	const vk_jv *config;        /* root of the config, or NULL */
};

uint32_t vk_registry_intern(struct loading *l, enum vk_name_kind kind, const char *name);
struct vk_provider *vk_registry_provider_find(struct vk_registry *r, const char *name);

/* registry_provider.c */
void vk_registry_load_providers(struct loading *l);
/* v's `caps` over known's over dflt. */
void vk_registry_read_caps(struct loading *l, const vk_jv *v, const vk_jv *known, const char *path,
			   const struct vk_caps *dflt, struct vk_caps *caps);
/* registry_space.c */
void vk_registry_load_spaces(struct loading *l);
void vk_registry_add_model(struct loading *l, const char *path, const char *name,
			   const struct vk_space *space, const struct vk_role *role,
			   const char *collection, bool replace);

#endif
