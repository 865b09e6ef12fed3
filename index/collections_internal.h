/*
 * What collections*.c and snapshot*.c share; nobody else includes it.
 *
 *   collections.c         names; environments opened, closed, created, dropped
 *   collections_open.c    the registry from the catalog, orphans
 *   collections_alias.c   aliases
 *   collections_backup.c  what a backup asks for
 *   snapshot.c            snapshots made, listed, deleted; snapshot_recover.c puts one back
 *
 * In memory: two arrays in name order, the truth being the catalog. A commit to the catalog is made under `admin` alone, so that
 * reading goes on; the arrays then change under `lock`. Lock order: admin, lock. Environments are opened and closed without
 * `lock`: the entry is `busy` meanwhile and who wants it waits.
 */
#ifndef VK_INDEX_COLLECTIONS_INTERNAL_H
#define VK_INDEX_COLLECTIONS_INTERNAL_H

#include <pthread.h>

#include "index/collections.h"

struct vk_centry { /* a collection */
	char name[VK_NAME_MAX + 1];
	uint32_t id;
	int64_t created_ms;
	struct vk_collection *c; /* the registry's own reference; NULL: closed */
	bool busy;               /* being opened or closed */
	bool dropped;            /* not in the array any more */
	bool kept;               /* but a backup may still want it: in `doomed` */
	bool gone;               /* nor its files */
	unsigned waiting;        /* who looks at the entry: not freed before */
	uint64_t used;           /* the registry's tick when it was last asked for */
	struct vk_centry *next_doomed;
};

struct vk_calias {
	char name[VK_NAME_MAX + 1], collection[VK_NAME_MAX + 1];
};

struct vk_collections {
	struct vk_catalog *catalog;
	char dir[4096], snapshots_dir[4096];
	unsigned open_max;
	uint64_t map_bytes;
	bool read_only;
	struct vk_kv_writers *writers;

	pthread_mutex_t admin; /* create, drop, alias, recover: one at a time */
	pthread_mutex_t lock;  /* all below */
	pthread_cond_t changed;
	struct vk_centry **entry;
	size_t entry_n, entry_cap;
	struct vk_calias *alias;
	size_t alias_n;
	uint32_t next_id; /* never given out before */
	uint64_t tick;
	unsigned holds;           /* backups that run: what is dropped meanwhile stays readable */
	struct vk_centry *doomed; /* dropped since */
};

/* Index of the first that is not less; *found: it is the name. Under lock. */
size_t vk_centry_at(const struct vk_collections *cs, struct vk_bytes name, bool *found);
size_t vk_calias_at(const struct vk_calias *alias, size_t n, struct vk_bytes name, bool *found);

#define VK_COLLECTIONS_NEXT_ID VK_LIT("collection_next_id") /* in VK_TABLE_META: decimal text */

/* Room for one entry more, so that inserting after a commit cannot fail. */
bool vk_collections_make_room(struct vk_collections *cs);
struct vk_centry *vk_centry_new(struct vk_bytes name, uint32_t id, int64_t created_ms); /* NULL: no memory */
void vk_collections_dir_of(const struct vk_collections *cs, uint32_t id, char path[4200]);

enum vk_status vk_collection_missing(struct vk_bytes name, struct vk_error *err);
enum vk_status vk_collection_there(struct vk_bytes name, struct vk_error *err);

/* A reference to e's collection, opened if need be; *out stays NULL (and VK_OK) when e is gone. Under lock, which it
 * lets go meanwhile. */
enum vk_status vk_centry_get(struct vk_collections *cs, struct vk_centry *e, struct vk_collection **out, struct vk_error *err);
/* Under lock: e is looked at no more (see `waiting`) and may be freed. */
void vk_centry_let_go(struct vk_centry *e);
/* Lets the environment of an entry that was taken out go, and its files; not while it is kept. */
void vk_centry_discard(struct vk_collections *cs, struct vk_centry *e);

/* The collection's own name for a name or an alias; false: there is none. */
bool vk_collections_real_name(struct vk_collections *cs, struct vk_bytes name, char real[VK_NAME_MAX + 1]);

/* A new id and its directory's path, which nothing leads to yet. */
void vk_collections_new_dir(struct vk_collections *cs, uint32_t *id, char path[4200]);
/* c lies in id's directory: puts it under name, in one commit, in the place of what is there (replace) or as a new one. Takes the
 * reference when all went well. Holds nothing; locks admin. */
enum vk_status vk_collections_install(struct vk_collections *cs, struct vk_bytes name, uint32_t id, struct vk_collection *c,
				      bool replace, int64_t now_ms, struct vk_error *err);

#endif
