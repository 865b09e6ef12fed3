/*
 * Who sends this? The presented text is hashed and the hash looked up: the table's place depends on
 * the hash alone, which a stranger cannot steer towards a stored one, and the comparison of the
 * whole hash takes the same time whatever it finds.
 */
#include <stdio.h>
#include <strings.h>

#include "server/keys_internal.h"

/* "Bearer X" -> X; anything else, or nothing after it, is no bearer. */
static struct vk_bytes bearer_of(struct vk_bytes authorization)
{
	static const char scheme[] = "Bearer ";
	size_t n = sizeof scheme - 1;
	if (authorization.n <= n || strncasecmp(authorization.p, scheme, n)) return (struct vk_bytes){NULL, 0};
	struct vk_bytes b = {authorization.p + n, authorization.n - n};
	while (b.n && *b.p == ' ') b.p++, b.n--;
	while (b.n && b.p[b.n - 1] == ' ') b.n--;
	return b.n ? b : (struct vk_bytes){NULL, 0};
}

static void fill(struct vk_auth *a, const char *id, const char *name, uint32_t scopes)
{
	snprintf(a->key_id, sizeof a->key_id, "%s", id);
	snprintf(a->name, sizeof a->name, "%s", name);
	a->scopes = scopes;
	a->collections = "*";
	a->expires_ms = 0;
}

enum found { FOUND, UNKNOWN, EXPIRED };

/* A second's resolution is enough, and spares the line that all threads would write. */
static void touch(struct vk_key *key, int64_t now_ms)
{
	int64_t last = atomic_load_explicit(&key->last_used_ms, memory_order_relaxed);
	if (now_ms - last >= 1000) atomic_store_explicit(&key->last_used_ms, now_ms, memory_order_relaxed);
}

static enum found look_up(struct vk_keys *k, struct vk_bytes text, int64_t now_ms, struct vk_auth *a)
{
	if (!text.n) return UNKNOWN;
	uint8_t sha[VK_SHA256_SIZE];
	vk_sha256(text.p, text.n, sha);
	enum found found = UNKNOWN;
	pthread_rwlock_rdlock(&k->lock);
	struct vk_key *key = vk_keys_find(k, sha);
	if (key && key->expires_ms && now_ms >= key->expires_ms) {
		found = EXPIRED;
	} else if (key) {
		fill(a, key->id, key->name, key->scopes);
		a->collections = key->collections;
		a->expires_ms = key->expires_ms;
		touch(key, now_ms);
		found = FOUND;
	}
	pthread_rwlock_unlock(&k->lock);
	return found;
}

static enum vk_status refuse(struct vk_bytes key, enum found found, struct vk_error *err)
{
	const char *text = "Incorrect API key provided.";
	if (!key.n)
		text = "You didn't provide an API key. Send it as \"Authorization: Bearer KEY\" or as the header api-key.";
	else if (found == EXPIRED)
		text = "This API key has expired.";
	else if (vk_key_form_of(key) == VK_KEY_DAMAGED)
		text = "Incorrect API key provided: it is damaged (its checksum does not agree). Was it cut or mistyped?";
	return vk_fail_param(err, VK_E_UNAUTHORIZED, "invalid_api_key", NULL, "%s", text);
}

enum vk_status vk_keys_authenticate(struct vk_keys *k, struct vk_bytes authorization, struct vk_bytes api_key,
				    bool forward_ok, int64_t now_ms, struct vk_auth *out, struct vk_error *err)
{
	memset(out, 0, sizeof *out);
	struct vk_bytes bearer = bearer_of(authorization);
	struct vk_bytes key = bearer.n ? bearer : api_key;
	out->bearer = key;
	if (!vk_keys_any(k)) {
		fill(out, "", "", VK_SCOPE_ADMIN);
		return VK_OK;
	}
	enum found found = look_up(k, key, now_ms, out);
	/* A proxy in between may have an Authorization of its own. */
	if (found == UNKNOWN && bearer.n && api_key.n) {
		enum found second = look_up(k, api_key, now_ms, out);
		if (second != UNKNOWN) found = second;
	}
	if (found == FOUND) return VK_OK;
	if (forward_ok && found == UNKNOWN && key.n && vk_key_form_of(key) == VK_KEY_FOREIGN) {
		fill(out, "client", "", VK_SCOPE_EMBED);
		return VK_OK;
	}
	return refuse(key, found, err);
}
