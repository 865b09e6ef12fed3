/*
 * Hot backup and restore. A backup is a directory: catalog.mdb, cache.mdb, collection-<n>.mdb (each
 * copied under load by mdb_env_copyfd2 through a rate-limited pipe, then opened and walked), FORMAT,
 * and manifest.json (version, when, sizes, SHA-256 of each file), written last: a directory
 * without it is no backup. Cache and collections are copied before the catalog: every space, pool and
 * provider that a row names was interned before the row was written, so the later catalog
 * has it. Snapshots are not in it.
 */
#ifndef VK_STORE_BACKUP_H
#define VK_STORE_BACKUP_H

#include <stdint.h>

#include "base/status.h"
#include "store/cachedb.h"
#include "store/catalog.h"
#include "store/kv.h"

/* The environments beside catalog and cache: collections, by their numbers. A backup asks for the list again after it has
 * copied the catalog, until the catalog's copy knows none that is not copied; so one that is dropped must stay there while
 * the backup runs. */
struct vk_backup_source {
	void *arg;
	/* malloc'd; those dropped since the backup began are in it. */
	enum vk_status (*list)(void *arg, uint32_t **ids, size_t *n, struct vk_error *err);
	enum vk_status (*open)(void *arg, uint32_t id, struct vk_kv **kv, void **ref, struct vk_error *err);
	void (*close)(void *arg, void *ref);
};

struct vk_backup_opts {
	uint64_t bytes_per_s; /* 0: no limit */
	/* Called now and then; NULL for none. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
	const struct vk_backup_source *collections; /* NULL: there are none */
};

/* dir must be missing or empty. Journal rows are committed first (vk_cachedb_flush). */
enum vk_status vk_backup_write(struct vk_catalog *catalog, struct vk_cachedb *cache,
			       const char *data_dir, const char *dir,
			       const struct vk_backup_opts *opts, struct vk_error *err);
/* Checks the manifest and every hash, then lays the files into data_dir, which must be missing or
 * empty and not in use. Nothing half-restored stays after a failure. */
enum vk_status vk_backup_restore(const char *dir, const char *data_dir, struct vk_error *err);

#endif
