/*
 * All collections of a server: names, aliases, opening lazily, creating and dropping; snapshots of one.
 *
 * The catalog holds VK_TABLE_COLLECTION: name -> {id u32, created_ms, pool}, and VK_TABLE_ALIAS: alias -> collection name.
 * Create: environment first (collections/<id>/), then the catalog's commit; drop: the catalog's commit, then unlink once the last
 * reference is gone. What a crash left between (a directory that no name leads to) is removed at open. Names and aliases share one
 * name space. At most open_max environments stay open without a user, the least recently used is closed.
 *
 * Threads: any.
 */
#ifndef VK_INDEX_COLLECTIONS_H
#define VK_INDEX_COLLECTIONS_H

#include "index/collection.h"
#include "store/backup.h"
#include "store/catalog.h"

struct vk_collections;
struct vk_collections_opts {
	struct vk_catalog *catalog;
	const char *dir;           /* <data>/collections */
	const char *snapshots_dir; /* <data>/snapshots */
	unsigned writers;          /* threads; 0: 2 */
	unsigned open_max;         /* 0: 256 */
	uint64_t map_bytes;
	bool read_only;
};
enum vk_status vk_collections_open(const struct vk_collections_opts *o, struct vk_collections **out, struct vk_error *err);
void vk_collections_close(struct vk_collections *cs); /* no reference may be out */

/* Qdrant's rules: 1 to 255 bytes, none of <>:"/\|?* NUL and control characters, not . or .. */
enum vk_status vk_collection_name_check(struct vk_bytes name, struct vk_error *err);

/* By name or alias; a reference. VK_E_NOT_FOUND: "Not found: Collection `x` doesn't exist!" */
enum vk_status vk_collections_get(struct vk_collections *cs, struct vk_bytes name, struct vk_collection **out, struct vk_error *err);
/* VK_E_EXISTS: a collection or alias of that name. */
enum vk_status vk_collections_create(struct vk_collections *cs, struct vk_bytes name, struct vk_bytes config, int64_t now_ms,
				     struct vk_error *err);
/* VK_E_NOT_FOUND when there is none (an alias is none). Its aliases go with it. */
enum vk_status vk_collections_drop(struct vk_collections *cs, struct vk_bytes name, struct vk_error *err);
/* Names in order; fn returns false to stop. Called with no lock held. */
enum vk_status vk_collections_each(struct vk_collections *cs, bool (*fn)(void *arg, struct vk_bytes name), void *arg);
enum vk_status vk_collections_aliases(struct vk_collections *cs, bool (*fn)(void *arg, struct vk_bytes alias, struct vk_bytes name), void *arg);

struct vk_alias_op {
	enum { VK_ALIAS_CREATE, VK_ALIAS_DELETE, VK_ALIAS_RENAME } kind;
	struct vk_bytes alias, collection, to; /* RENAME: alias -> to */
};
/* In order, one commit, all or nothing. CREATE takes an alias over from another collection, as Qdrant does. */
enum vk_status vk_collections_alias(struct vk_collections *cs, const struct vk_alias_op *ops, size_t n, struct vk_error *err);

/* Calls fn for each open collection (sweeping, metrics), a reference held meanwhile. */
void vk_collections_each_open(struct vk_collections *cs, void (*fn)(void *arg, struct vk_bytes name, struct vk_collection *c), void *arg);

/* What store/backup.h wants to know of the collections. Between begin and end what is dropped stays readable for the backup. */
void vk_collections_backup_begin(struct vk_collections *cs, struct vk_backup_source *out);
void vk_collections_backup_end(struct vk_collections *cs);

/* Snapshots: one file, snapshots_dir/<collection>/<collection>-<time>.snapshot: a tar of manifest.json (format, name, config, SHA-256
 * and size of the data file) and data.mdb, written to a temporary name, synced, renamed. */
struct vk_snapshot {
	char name[320];
	uint64_t bytes;
	int64_t created_ms;
	char sha256[65]; /* of the file */
};
enum vk_status vk_snapshot_create(struct vk_collections *cs, struct vk_bytes collection, int64_t now_ms, struct vk_snapshot *out, struct vk_error *err);
enum vk_status vk_snapshot_each(struct vk_collections *cs, struct vk_bytes collection, bool (*fn)(void *arg, const struct vk_snapshot *s), void *arg);
enum vk_status vk_snapshot_delete(struct vk_collections *cs, struct vk_bytes collection, struct vk_bytes name, struct vk_error *err);
/* The file's path, for download; the name is checked against traversal. */
enum vk_status vk_snapshot_path(struct vk_collections *cs, struct vk_bytes collection, struct vk_bytes name, char path[4096], struct vk_error *err);
/* Puts the snapshot file in the place of the collection (made when missing): checks it whole first, then one catalog commit. checksum
 * (hex SHA-256 of the file) may be empty. */
enum vk_status vk_snapshot_recover(struct vk_collections *cs, struct vk_bytes collection, const char *path, struct vk_bytes checksum,
				   int64_t now_ms, struct vk_error *err);

#endif
