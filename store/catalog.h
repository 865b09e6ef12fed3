/*
 * The catalog's environment: small things that must be exact and durable. Full sync; a commit
 * returns when it is on disk. Read at start into memory by its users, so reads are not hot.
 *
 * Tables hold typed records; store/record.h owns their bytes. A name table interns strings as
 * u32 (spaces, providers, pools): ids start at 1, are never reused, and 0 means none.
 *
 * Threads: any; one commit at a time (a mutex inside).
 */
#ifndef VK_STORE_CATALOG_H
#define VK_STORE_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

enum vk_catalog_table {
	VK_TABLE_SPACE,  /* key: space name;      value: its pinned identity, JSON text */
	VK_TABLE_POOL,   /* key: pool name;       value: record vk_rec_pool (id, secrets newest first) */
	VK_TABLE_KEY,    /* key: API key id;      value: record, JSON text with sha256, scopes, expiry */
	VK_TABLE_CANARY, /* key: space NUL provider NUL definition; value: canary record (when, cosine, verdict, rows) */
	VK_TABLE_USAGE,  /* key: day NUL space NUL provider; value: counters, see record.h */
	VK_TABLE_NAME,   /* key: kind byte + name; value: u32 (interned) */
	VK_TABLE_META,   /* key: word;            value: bytes */
	VK_TABLE_COLLECTION, /* key: collection name; value: JSON text with id, created_ms, pool */
	VK_TABLE_ALIAS, /* key: alias;           value: collection name */
	VK_TABLE_COUNT
};

enum vk_name_kind { VK_NAME_SPACE = 's', VK_NAME_PROVIDER = 'p', VK_NAME_POOL = 'o' };

struct vk_catalog;

enum vk_status vk_catalog_open(const char *dir, bool read_only, struct vk_catalog **out,
			       struct vk_error *err);
void vk_catalog_close(struct vk_catalog *c);

/* Appends the value to *value. VK_E_NOT_FOUND. */
enum vk_status vk_catalog_get(struct vk_catalog *c, enum vk_catalog_table t, struct vk_bytes key,
			      struct vk_buf *value);
/* Every entry of a table in key order; fn returns false to stop. Spans live during the call;
 * fn must not call the catalog. */
enum vk_status vk_catalog_scan(struct vk_catalog *c, enum vk_catalog_table t, struct vk_bytes prefix,
			       bool (*fn)(void *arg, struct vk_bytes key, struct vk_bytes value),
			       void *arg);

struct vk_catalog_op { /* value.p == NULL deletes (a missing key is fine) */
	enum vk_catalog_table table;
	struct vk_bytes key, value;
};
/* All or nothing, durable on return. */
enum vk_status vk_catalog_commit(struct vk_catalog *c, const struct vk_catalog_op *ops, size_t n);

/* The u32 of a name, given out at first sight (a commit). */
enum vk_status vk_catalog_intern(struct vk_catalog *c, enum vk_name_kind kind, struct vk_bytes name,
				 uint32_t *id);
/* The name of an id, appended to *name. VK_E_NOT_FOUND. */
enum vk_status vk_catalog_name(struct vk_catalog *c, enum vk_name_kind kind, uint32_t id,
			       struct vk_buf *name);

#endif
