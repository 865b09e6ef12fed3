/*
 * Hot backup and restore. A backup is a directory: catalog.mdb, cache.mdb (each copied under
 * load by mdb_env_copyfd2 through a rate-limited pipe, then opened and walked), FORMAT, and
 * manifest.json (version, when, sizes, SHA-256 of each file), written last: a directory
 * without it is no backup. The cache is copied before the catalog: every space, pool and
 * provider that a row names was interned before the row was written, so the later catalog
 * has it.
 */
#ifndef VK_STORE_BACKUP_H
#define VK_STORE_BACKUP_H

#include <stdint.h>

#include "base/status.h"
#include "store/cachedb.h"
#include "store/catalog.h"

struct vk_backup_opts {
	uint64_t bytes_per_s; /* 0: no limit */
	/* Called now and then; NULL for none. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};

/* dir must be missing or empty. Journal rows are committed first (vk_cachedb_flush). */
enum vk_status vk_backup_write(struct vk_catalog *catalog, struct vk_cachedb *cache,
			       const char *data_dir, const char *dir,
			       const struct vk_backup_opts *opts, struct vk_error *err);
/* Checks the manifest and every hash, then lays the files into data_dir, which must be missing or
 * empty and not in use. Nothing half-restored stays after a failure. */
enum vk_status vk_backup_restore(const char *dir, const char *data_dir, struct vk_error *err);

#endif
