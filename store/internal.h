/* What the room's files need of each other beyond the public headers. */
#ifndef VK_STORE_INTERNAL_H
#define VK_STORE_INTERNAL_H

#include "base/status.h"
#include "store/catalog.h"
#include "store/datadir.h"
#include "store/env.h"

struct vk_env *vk_catalog_env(struct vk_catalog *c);
extern const char *const vk_catalog_tables[];
extern const size_t vk_catalog_tables_n;

/* FORMAT of dir: VK_OK, VK_E_NOT_FOUND when there is none, VK_E_INVALID when it is not ours. */
enum vk_status vk_datadir_format_check(const char *dir, struct vk_error *err);
/* The directory, made when missing, and its LOCK; FORMAT is not looked at. */
enum vk_status vk_datadir_lock(struct vk_datadir *d, const char *path, uint64_t wait_ms,
			       struct vk_error *err);
/* True when nothing but what we (or a file system) put there first is in it. */
bool vk_datadir_is_fresh(const char *dir);

#endif
