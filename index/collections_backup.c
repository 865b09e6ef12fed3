/* The collections' side of a backup: a list of ids, each opened in its turn. What is dropped meanwhile waits in `doomed`. */
#include <stdlib.h>

#include "index/collections_internal.h"

static enum vk_status list_ids(void *arg, uint32_t **ids, size_t *n, struct vk_error *err)
{
	struct vk_collections *cs = arg;
	size_t all = 0;
	*n = 0;
	pthread_mutex_lock(&cs->lock);
	for (struct vk_centry *e = cs->doomed; e; e = e->next_doomed) all++;
	all += cs->entry_n;
	*ids = calloc(all + 1, sizeof **ids);
	for (size_t i = 0; *ids && i < cs->entry_n; i++) (*ids)[(*n)++] = cs->entry[i]->id;
	for (struct vk_centry *e = *ids ? cs->doomed : NULL; e; e = e->next_doomed) (*ids)[(*n)++] = e->id;
	pthread_mutex_unlock(&cs->lock);
	return *ids ? VK_OK : vk_fail(err, VK_E_NOMEM, "no memory");
}

static struct vk_centry *find(struct vk_collections *cs, uint32_t id)
{
	struct vk_centry *e = cs->doomed;
	for (size_t i = 0; i < cs->entry_n; i++)
		if (cs->entry[i]->id == id) return cs->entry[i];
	while (e && e->id != id) e = e->next_doomed;
	return e;
}

static enum vk_status open_one(void *arg, uint32_t id, struct vk_kv **kv, void **ref, struct vk_error *err)
{
	struct vk_collections *cs = arg;
	struct vk_collection *c = NULL;
	enum vk_status st = VK_OK;
	pthread_mutex_lock(&cs->lock);
	struct vk_centry *e = find(cs, id);
	if (e) st = vk_centry_get(cs, e, &c, err);
	pthread_mutex_unlock(&cs->lock);
	if (!st && !c) st = vk_fail(err, VK_E_NOT_FOUND, "collection %u is gone", id);
	if (st) return st;
	*kv = vk_collection_kv(c);
	*ref = c;
	return VK_OK;
}

static void close_one(void *arg, void *ref)
{
	(void)arg;
	vk_collection_unref(ref);
}

void vk_collections_backup_begin(struct vk_collections *cs, struct vk_backup_source *out)
{
	*out = (struct vk_backup_source){cs, list_ids, open_one, close_one};
	pthread_mutex_lock(&cs->lock);
	cs->holds++;
	pthread_mutex_unlock(&cs->lock);
}

void vk_collections_backup_end(struct vk_collections *cs)
{
	struct vk_centry *doomed = NULL;
	pthread_mutex_lock(&cs->lock);
	if (--cs->holds == 0) {
		doomed = cs->doomed;
		cs->doomed = NULL;
		for (struct vk_centry *e = doomed; e; e = e->next_doomed) e->kept = false;
	}
	pthread_mutex_unlock(&cs->lock);
	while (doomed) {
		struct vk_centry *e = doomed;
		doomed = e->next_doomed;
		vk_centry_discard(cs, e);
		pthread_mutex_lock(&cs->lock);
		vk_centry_let_go(e);
		pthread_mutex_unlock(&cs->lock);
	}
}
