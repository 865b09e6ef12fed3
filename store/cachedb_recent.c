/* One lock, one slot a MAC: a look-up is a comparison. */
#include "store/cachedb_recent.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 16384 /* rows of half a second at 32,000 a second */

struct slot {
	bool used;
	uint8_t provenance[16];
	struct vk_cache_key key;
};

struct vk_recent {
	pthread_mutex_t lock;
	struct slot slot[SLOTS];
};

struct vk_recent *vk_recent_new(void)
{
	struct vk_recent *r = calloc(1, sizeof *r); /* pages come with use */
	if (r) pthread_mutex_init(&r->lock, NULL);
	return r;
}

void vk_recent_free(struct vk_recent *r)
{
	if (r) pthread_mutex_destroy(&r->lock);
	free(r);
}

static struct slot *slot_of(struct vk_recent *r, const uint8_t provenance[16])
{
	return &r->slot[vk_get_u32le(provenance) % SLOTS]; /* a MAC is its own hash */
}

static bool holds(const struct slot *s, uint32_t pool, const uint8_t provenance[16])
{
	return s->used && vk_cache_key_pool(&s->key) == pool && memcmp(s->provenance, provenance, 16) == 0;
}

void vk_recent_add(struct vk_recent *r, const uint8_t provenance[16], const struct vk_cache_key *key)
{
	struct slot *s = slot_of(r, provenance);
	pthread_mutex_lock(&r->lock);
	s->used = true;
	memcpy(s->provenance, provenance, 16);
	s->key = *key;
	pthread_mutex_unlock(&r->lock);
}

void vk_recent_drop(struct vk_recent *r, uint32_t pool, const uint8_t provenance[16])
{
	struct slot *s = slot_of(r, provenance);
	pthread_mutex_lock(&r->lock);
	if (holds(s, pool, provenance)) s->used = false;
	pthread_mutex_unlock(&r->lock);
}

void vk_recent_clear(struct vk_recent *r)
{
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < SLOTS; i++)
		if (r->slot[i].used) r->slot[i].used = false;
	pthread_mutex_unlock(&r->lock);
}

bool vk_recent_find(struct vk_recent *r, uint32_t pool, const uint8_t provenance[16], struct vk_cache_key *key)
{
	struct slot *s = slot_of(r, provenance);
	pthread_mutex_lock(&r->lock);
	bool found = holds(s, pool, provenance);
	if (found) *key = s->key;
	pthread_mutex_unlock(&r->lock);
	return found;
}
