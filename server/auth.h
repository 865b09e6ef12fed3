/*
 * API keys: vkeep_<id>_<secret><crc>. Shown once, stored as SHA-256, scoped, with expiry.
 * id: 12 base62 characters; secret: 43 base62 characters (256 bits); crc: 6 base62 characters of
 * CRC-32C over "vkeep_<id>_<secret>", so that a scanner or a typo is told apart without the store.
 *
 * Sources: environment (VECKEEP_ADMIN_KEY, VECKEEP_ADMIN_KEY_FILE: an admin key of any form), the
 * config's `keys` (name, sha256 or key with {"file"}/${ENV}, scopes, collections, expires), and
 * the catalog (`veckeep keys`, /v1/keys). Comparison is over hashes and constant-time.
 * With no key anywhere, loopback callers are admin; a non-loopback bind is refused at start unless
 * `insecure: true` (the safe bind rule).
 *
 * Threads: authenticate on any thread; changes swap the set under a lock.
 */
#ifndef VK_SERVER_AUTH_H
#define VK_SERVER_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/status.h"
#include "store/catalog.h"

enum vk_scope {
	VK_SCOPE_READ = 1,
	VK_SCOPE_WRITE = 2,
	VK_SCOPE_EMBED = 4,
	VK_SCOPE_ADMIN = 8, /* everything */
	VK_SCOPE_METRICS = 16
};

/* Who a request is from. */
struct vk_auth {
	char key_id[64];          /* "" when no keys exist (open loopback) or the key is from the environment: "admin" */
	char name[64];
	uint32_t scopes;
	const char *collections;  /* pattern list for later; "*" = all */
	int64_t expires_ms;       /* 0: never */
	/* The bearer as the client sent it, for spaces whose provider forwards the caller's own; the
	 * request's memory; never logged. */
	struct vk_bytes bearer;
};

struct vk_keys;

enum vk_status vk_keys_open(struct vk_catalog *catalog, struct vk_keys **out, struct vk_error *err);
void vk_keys_close(struct vk_keys *k);
/* Replaces the keys that come from config ("keys" array, may be NULL) and environment. Names the entry at fault. */
enum vk_status vk_keys_set_config(struct vk_keys *k, const vk_jv *keys, const char *base_dir,
				  struct vk_error *err);
bool vk_keys_any(struct vk_keys *k);

/*
 * Who sends this request? authorization: the Authorization header's value or p == NULL ("Bearer X");
 * api_key: the api-key / x-api-key header's value. No keys configured: everybody is admin.
 * forward_ok: a bearer that is no veckeep key is allowed through as a caller with scope embed only
 * (spaces with {"from": "client"} exist); the pool then hangs on its HMAC.
 * VK_E_UNAUTHORIZED (missing, wrong, expired) with an OpenAI-style text and code invalid_api_key.
 */
enum vk_status vk_keys_authenticate(struct vk_keys *k, struct vk_bytes authorization,
				    struct vk_bytes api_key, bool forward_ok, int64_t now_ms,
				    struct vk_auth *out, struct vk_error *err);

struct vk_key_spec { /* for creating one */
	const char *name;
	uint32_t scopes;
	const char *collections; /* NULL = "*" */
	int64_t expires_ms;      /* 0: never */
};
#define VK_KEY_TEXT_MAX 96
/* Makes, stores (durable) and returns the key's text, shown this once. */
enum vk_status vk_keys_create(struct vk_keys *k, const struct vk_key_spec *spec, int64_t now_ms,
			      char text[VK_KEY_TEXT_MAX], char id[64], struct vk_error *err);
enum vk_status vk_keys_revoke(struct vk_keys *k, const char *id, struct vk_error *err);
/* Every key without its secret: {"id","name","scopes","collections","expires","created","source","last_used"}. */
void vk_keys_write(struct vk_keys *k, struct vk_jw *w);

/* "read,write" -> bits; false on an unknown word. And back: writes into dst. */
bool vk_scopes_parse(struct vk_bytes list, uint32_t *scopes);
void vk_scopes_print(char *dst, size_t cap, uint32_t scopes);

/* True when the host part of "host:port" is a loopback address (127/8, ::1, localhost). */
bool vk_listen_is_loopback(const char *listen);

#endif
