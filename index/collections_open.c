/* The registry's opening: names and aliases from the catalog into memory, and what a crash left behind away. */
#include "index/collections_internal.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "store/file.h"

#define OPEN_MAX 256
#define WRITERS 2

struct loading {
	struct vk_collections *cs;
	enum vk_status st;
};

static bool read_record(struct vk_bytes value, uint32_t *id, int64_t *created_ms)
{
	struct vk_arena arena;
	struct vk_json *doc = NULL;
	uint64_t n = 0;
	vk_arena_init(&arena, (size_t)64 << 10);
	bool ok = !vk_json_parse(&arena, value, NULL, &doc, NULL);
	const vk_jv *root = ok ? vk_json_root(doc) : NULL;
	ok = ok && vk_jv_u64(vk_jv_get(root, "id"), &n) && n > 0 && n < UINT32_MAX;
	ok = ok && vk_jv_i64(vk_jv_get(root, "created_ms"), created_ms);
	*id = (uint32_t)n;
	vk_json_free(doc);
	vk_arena_free(&arena);
	return ok;
}

static bool load_entry(void *arg, struct vk_bytes key, struct vk_bytes value)
{
	struct loading *l = arg;
	struct vk_collections *cs = l->cs;
	struct vk_centry *e = NULL;
	uint32_t id;
	int64_t created_ms = 0;
	if (vk_collection_name_check(key, NULL) || !read_record(value, &id, &created_ms)) {
		vk_log(VK_LOG_ERROR, "catalog: the record of collection %.*s does not check",
		       (int)(key.n < VK_NAME_MAX ? key.n : VK_NAME_MAX), key.p);
		l->st = VK_E_CORRUPT;
	} else if (!vk_collections_make_room(cs) || !(e = vk_centry_new(key, id, created_ms))) {
		l->st = VK_E_NOMEM;
	}
	if (l->st) return false;
	cs->entry[cs->entry_n++] = e; /* in key order */
	if (id >= cs->next_id) cs->next_id = id + 1;
	return true;
}

static bool load_alias(void *arg, struct vk_bytes key, struct vk_bytes value)
{
	struct loading *l = arg;
	struct vk_collections *cs = l->cs;
	struct vk_calias *a = realloc(cs->alias, (cs->alias_n + 1) * sizeof *a);
	if (a) cs->alias = a;
	if (!a) l->st = VK_E_NOMEM;
	else if (key.n > VK_NAME_MAX || value.n > VK_NAME_MAX) l->st = VK_E_CORRUPT;
	if (l->st) return false;
	a = &cs->alias[cs->alias_n++];
	*a = (struct vk_calias){0};
	memcpy(a->name, key.p, key.n);
	memcpy(a->collection, value.p, value.n);
	return true;
}

static enum vk_status load_next_id(struct vk_collections *cs)
{
	struct vk_buf b;
	vk_buf_init(&b, 64);
	enum vk_status st = vk_catalog_get(cs->catalog, VK_TABLE_META, VK_COLLECTIONS_NEXT_ID, &b);
	if (!st) {
		unsigned long id = strtoul(vk_buf_cstr(&b), NULL, 10);
		if (id > cs->next_id && id < UINT32_MAX) cs->next_id = (uint32_t)id;
	}
	vk_buf_free(&b);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

static enum vk_status load(struct vk_collections *cs)
{
	struct loading l = {.cs = cs};
	enum vk_status st = vk_catalog_scan(cs->catalog, VK_TABLE_COLLECTION, (struct vk_bytes){0}, load_entry, &l);
	if (!st) st = l.st;
	if (!st) st = vk_catalog_scan(cs->catalog, VK_TABLE_ALIAS, (struct vk_bytes){0}, load_alias, &l);
	if (!st) st = l.st;
	return st ? st : load_next_id(cs);
}

static bool has_id(const struct vk_collections *cs, unsigned long id)
{
	for (size_t i = 0; i < cs->entry_n; i++)
		if (cs->entry[i]->id == id) return true;
	return false;
}

/* Directories that no name leads to: a crash between the environment and the catalog's commit. */
static void remove_orphans(struct vk_collections *cs)
{
	DIR *d = opendir(cs->dir);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		char *end, path[4200];
		unsigned long id = strtoul(e->d_name, &end, 10);
		if (e->d_name[0] < '0' || e->d_name[0] > '9' || *end || id > UINT32_MAX || has_id(cs, id)) continue;
		vk_collections_dir_of(cs, (uint32_t)id, path);
		vk_log(VK_LOG_INFO, "%s: no collection leads here, removed", path);
		vk_dir_remove(path);
		if (id >= cs->next_id && id < UINT32_MAX) cs->next_id = (uint32_t)id + 1;
	}
	if (d) closedir(d);
}

enum vk_status vk_collections_open(const struct vk_collections_opts *o, struct vk_collections **out, struct vk_error *err)
{
	*out = NULL;
	struct vk_collections *cs = calloc(1, sizeof *cs);
	if (!cs) return vk_fail(err, VK_E_NOMEM, "no memory");
	cs->catalog = o->catalog;
	cs->open_max = o->open_max ? o->open_max : OPEN_MAX;
	cs->map_bytes = o->map_bytes;
	cs->read_only = o->read_only;
	cs->next_id = 1;
	pthread_mutex_init(&cs->admin, NULL);
	pthread_mutex_init(&cs->lock, NULL);
	pthread_cond_init(&cs->changed, NULL);
	enum vk_status st = VK_OK;
	if (snprintf(cs->dir, sizeof cs->dir, "%s", o->dir) >= 4000 ||
	    snprintf(cs->snapshots_dir, sizeof cs->snapshots_dir, "%s", o->snapshots_dir ? o->snapshots_dir : "") >= 3000)
		st = vk_fail(err, VK_E_INVALID, "path too long: %.64s...", o->dir);
	if (!st && !o->read_only) st = vk_dir_make(cs->dir, err);
	if (!st && (st = load(cs))) vk_fail(err, st, "the catalog's list of collections cannot be read: %s", vk_status_text(st));
	if (!st && !o->read_only && (st = vk_kv_writers_new(o->writers ? o->writers : WRITERS, &cs->writers)))
		vk_fail(err, st, "no threads for the collections' writers");
	if (!st && !o->read_only) remove_orphans(cs);
	if (st) {
		vk_collections_close(cs);
		return st;
	}
	*out = cs;
	return VK_OK;
}

void vk_collections_close(struct vk_collections *cs)
{
	if (!cs) return;
	for (size_t i = 0; i < cs->entry_n; i++) {
		if (cs->entry[i]->c) vk_collection_unref(cs->entry[i]->c);
		free(cs->entry[i]);
	}
	vk_kv_writers_free(cs->writers);
	free(cs->entry);
	free(cs->alias);
	pthread_cond_destroy(&cs->changed);
	pthread_mutex_destroy(&cs->lock);
	pthread_mutex_destroy(&cs->admin);
	free(cs);
}
