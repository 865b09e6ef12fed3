/*
 * Pools: whose part of the cache a request reads and fills. A pool is its id and its HMAC
 * secrets, newest first: look up under each, write under the newest (so they can be rotated).
 *
 * There is `default`, and one for each bearer that a provider with {"from": "client"} forwards:
 * named by the bearer's MAC, provisional (in memory only) until a provider has accepted that
 * bearer, so that strangers cannot fill the catalog. Pools live until close; any thread.
 */
#ifndef VK_EMBED_TENANT_H
#define VK_EMBED_TENANT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/status.h"
#include "store/catalog.h"

#define VK_TENANT_SECRETS_MAX 8
#define VK_TENANTS_CLIENT_MAX 4096 /* bearers remembered; past it VK_E_BUSY */

struct vk_tenant {
	_Atomic uint32_t id;    /* high bit set while provisional */
	char name[48];
	struct vk_hmac_key secret[VK_TENANT_SECRETS_MAX];
	size_t secrets_n;
	uint8_t raw[32];        /* the newest secret itself, until it is stored */
	struct vk_tenant *next;
};

static inline bool vk_tenant_provisional(const struct vk_tenant *t)
{
	return (t->id & 0x80000000u) != 0;
}

struct vk_tenants;
/* Makes the default pool with a fresh secret when the catalog has none. */
enum vk_status vk_tenants_open(struct vk_catalog *catalog, struct vk_tenants **out,
			       struct vk_error *err);
void vk_tenants_close(struct vk_tenants *t);

const struct vk_tenant *vk_tenants_default(const struct vk_tenants *t);
/* The bearer's own pool, made provisionally at first sight. */
enum vk_status vk_tenants_client(struct vk_tenants *t, struct vk_bytes bearer,
				 const struct vk_tenant **out);
/* A provider accepted the bearer: store the pool (durable). Cheap when it is stored already. */
enum vk_status vk_tenants_accept(struct vk_tenants *t, const struct vk_tenant *tenant);
/* By name; NULL: none. */
const struct vk_tenant *vk_tenants_find(struct vk_tenants *t, struct vk_bytes name);
/* Puts a fresh secret before the others of the default pool (the oldest beyond the list is dropped). */
enum vk_status vk_tenants_rotate(struct vk_tenants *t, struct vk_error *err);

#endif
