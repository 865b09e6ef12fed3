/*
 * Provenance of rows that are on their way into LMDB: the writer gathers for 25 ms, and an application that embeds a text
 * may write its vector to a collection sooner than that. A direct-mapped table: what is pushed out is only recognised late.
 * A row's entry stays after its commit, until another takes its place or clear(). Threads: any.
 */
#ifndef VK_STORE_CACHEDB_RECENT_H
#define VK_STORE_CACHEDB_RECENT_H

#include "store/cachedb.h"

struct vk_recent;
struct vk_recent *vk_recent_new(void); /* NULL: no memory */
void vk_recent_free(struct vk_recent *r);

void vk_recent_add(struct vk_recent *r, const uint8_t provenance[16], const struct vk_cache_key *key);
void vk_recent_drop(struct vk_recent *r, uint32_t pool, const uint8_t provenance[16]);
void vk_recent_clear(struct vk_recent *r); /* after a purge: what was erased is forgotten here, too */
bool vk_recent_find(struct vk_recent *r, uint32_t pool, const uint8_t provenance[16], struct vk_cache_key *key);

#endif
