/*
 * Spaces, roles, models, providers, routes: what the config file and the known-models data say,
 * resolved and checked once, then never changed. A changed file makes a new registry; requests
 * under way keep the one that they began with (counted references).
 *
 * Everything is found by a linear look or a small hash at request time; strings live in the
 * registry's arena. Threads: a registry is read-only after vk_registry_load(), any thread.
 * Errors of loading name the place: `spaces."x".route[1].provider: no such provider "y"`.
 */
#ifndef VK_EMBED_REGISTRY_H
#define VK_EMBED_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/status.h"
#include "store/cachedb.h"
#include "store/catalog.h"

struct vk_dialect; /* embed/dialect.h */
struct vk_encoder; /* embed/encoder.h */
struct vk_registry;

struct vk_role {
	const char *name;   /* "query", "document", "none", or the provider's own word */
	const char *value;  /* what goes into the provider's role field; NULL: nothing */
	const char *prefix; /* put before the text upstream; "" for none */
	uint8_t num;        /* position in the space's list, 0 = none */
};

struct vk_caps { /* 0 = unlimited or unknown */
	uint32_t items;            /* inputs a call */
	uint32_t tokens;           /* tokens a call (estimated: bytes / 3, or counted by the tokenizer) */
	uint32_t bytes;            /* body bytes a call */
	uint32_t concurrency;      /* calls at once; default 8 */
};

enum vk_secret_from { VK_SECRET_NONE, VK_SECRET_VALUE, VK_SECRET_FILE, VK_SECRET_CLIENT };

struct vk_secret {
	enum vk_secret_from from;
	const char *value; /* VALUE: the secret itself; FILE: the absolute path (read when used, re-read
			    * when it changes and once after a 401) */
};

struct vk_provider {
	const char *name;
	uint32_t num; /* interned in the catalog */
	const struct vk_dialect *dialect;
	const char *base_url; /* no trailing slash */
	struct vk_secret api_key;
	const char *const *labels; /* NULL-terminated */
	bool plain_ok;             /* http:// was allowed (loopback, labels onprem, or allow_plain) */
	bool private_ok;           /* may connect to private addresses (labels onprem, or set) */
	const char *proxy, *ca_file, *cert_file, *key_file;        /* NULL = none */
	const char *const *headers;                                /* "Name: value", NULL-terminated */
	struct vk_caps caps;
	/* The generic knobs of the OpenAI family (providers.md section 4, last line). */
	const char *path;          /* NULL = the dialect's own, e.g. "/embeddings" */
	const char *auth_header;   /* NULL = the dialect's own, "Authorization" */
	const char *auth_prefix;   /* NULL = the dialect's own, "Bearer " */
	const char *dims_field;    /* NULL or "" = never sent: native dims are bought */
	const char *role_field;    /* NULL = none, e.g. "input_type" */
	const char *const *role_values; /* role, the provider's word, role, word, ..., NULL; for roles of
					 * spaces that say no value of their own */
	const char *extra_body;    /* NULL or a JSON object's inside: "\"truncate\":true" */
	const char *api_version;   /* azure-openai */
	bool base64;               /* ask upstream for base64 (proved or known) */
	uint32_t connect_timeout_ms, timeout_ms; /* per attempt; defaults 3,000 and 60,000 */
	uint32_t attempts_max;     /* default 4 */
	uint64_t reply_bytes_max;  /* default 256 MiB */
	const char *model_dir;     /* builtin */
	struct vk_encoder *encoder;/* builtin, opened at load, shared between registries by path */
};

struct vk_hop { /* one entry of a route */
	const struct vk_provider *provider;
	const char *model; /* the provider's name for it */
	struct vk_caps caps; /* the hop's own, else the provider's */
	uint32_t weight;   /* 0: in order; else share among the weighted */
};

enum vk_tokenizer { VK_TOKENIZER_NONE, VK_TOKENIZER_CL100K };

struct vk_price { /* money in micro-units of the currency per million input tokens */
	int64_t micros_per_mtok; /* -1: not known */
	const char *currency, *date;
};

struct vk_space {
	const char *id;
	uint32_t num; /* interned in the catalog */
	uint32_t dims;
	bool matryoshka;
	uint32_t dims_min;            /* smallest that may be asked, Matryoshka only */
	const uint32_t *dims_allowed; /* NULL = any in [dims_min, dims] */
	size_t dims_allowed_n;
	const struct vk_role *roles;  /* roles[0] is "none"; roles_n == 1: symmetric */
	size_t roles_n;
	enum vk_tokenizer tokenizer;
	uint32_t tokens_max;          /* an input; 0 unknown */
	const char *const *pass_params; /* request fields that are hashed and forwarded; NULL-terminated */
	float canary_min;             /* cosine a joining provider must reach */
	int64_t ttl_ms;               /* 0: rows do not age */
	struct vk_price price;
	const struct vk_hop *route;
	size_t route_n;
	bool open_weights;
	bool role_required;           /* a request without a role is refused */
};

struct vk_model_name {
	const char *name;
	const struct vk_space *space;  /* NULL: follows a collection */
	const struct vk_role *role;    /* NULL: the request says it */
	const char *collection;
};

/* Loads from a config's root (may be NULL: known models and environment alone). base_dir is what
 * relative paths hang on. env looks up variables (getenv in the program, a table in tests). Interns
 * names and checks pinned identities in the catalog (NULL: none, for `doctor` and tests). old lends its
 * opened encoders (NULL: none). err may be NULL. */
struct vk_registry_env {
	const char *(*get)(void *arg, const char *name);
	void *arg;
};
enum vk_status vk_registry_load(const vk_jv *config, const char *base_dir,
				const struct vk_registry_env *env, struct vk_catalog *catalog,
				struct vk_registry *old, struct vk_registry **out,
				struct vk_error *err);
struct vk_registry *vk_registry_ref(struct vk_registry *r);
void vk_registry_unref(struct vk_registry *r);

/* "name" or "name#role"; the exact name first. NULL: no such model. *role is the name's own, or NULL. */
const struct vk_model_name *vk_registry_model(const struct vk_registry *r, struct vk_bytes name,
					      const struct vk_role **role);
const struct vk_space *vk_registry_space(const struct vk_registry *r, struct vk_bytes id);
const struct vk_space *vk_registry_space_num(const struct vk_registry *r, uint32_t num);
/* The space's role of that name; a symmetric space gives "none" for every known role word; NULL when
 * the space has roles and none is called so. */
const struct vk_role *vk_space_role(const struct vk_space *s, struct vk_bytes name);
bool vk_space_gives_dims(const struct vk_space *s, uint64_t dims);

const struct vk_space *const *vk_registry_spaces(const struct vk_registry *r, size_t *n);
const struct vk_provider *const *vk_registry_providers(const struct vk_registry *r, size_t *n);
const struct vk_model_name *vk_registry_models(const struct vk_registry *r, size_t *n);
/* Pins the space's identity in the catalog (durable), at its first use; free afterwards. Call it
 * before the first row of the space is keyed. VK_E_EXISTS: pinned to another definition meanwhile. */
enum vk_status vk_space_pin(struct vk_registry *r, const struct vk_space *s, struct vk_catalog *catalog);
const char *vk_space_identity(struct vk_registry *r, const struct vk_space *s);
/* True when some provider forwards its caller's bearer. */
bool vk_registry_forwards(const struct vk_registry *r);

#endif
