/*
 * What a client asks of a collection -> the collection's own JSON (index/config.h), and back as Qdrant shows it.
 *
 * Everything that Qdrant's schema knows is checked as Qdrant checks it and kept; what changes nothing here (graph, optimizer, log,
 * replication) is shown again with Qdrant's defaults. What this version cannot honour (multivectors, turbo4
 * rows) is refused by name.
 */
#ifndef VK_SERVER_QDRANT_CONFIG_H
#define VK_SERVER_QDRANT_CONFIG_H

#include "index/collection.h"
#include "server/app.h"

/* CreateCollection -> config. */
enum vk_status vk_qd_config_create(struct vk_app *app, const vk_jv *body, struct vk_buf *json, struct vk_error *err);

enum vk_qd_edit_kind {
	VK_QD_UPDATE, VK_QD_VECTOR_ADD, VK_QD_SPARSE_ADD, VK_QD_VECTOR_DROP, VK_QD_INDEX_ADD, VK_QD_INDEX_DROP,
	VK_QD_FOUND /* nobody's wish: what a write found out, see server/spaces.c */
};
struct vk_qd_found { /* what goes into one vector */
	const char *name;  /* a vector that is gone by now does not matter */
	const char *space; /* rows of this space; NULL: of none that is known. Binds the vector, unless it holds raw rows */
	bool text;         /* made of texts, among them: these may not join raw rows (409) */
	bool raw;          /* rows of no known space, too */
};
struct vk_qd_edit { /* arg of vk_qd_config_edit(), for vk_collection_configure() */
	struct vk_app *app;
	struct vk_registry *registry;
	enum vk_qd_edit_kind kind;
	const vk_jv *body;      /* UPDATE: UpdateCollection; VECTOR_ADD: VectorParams; SPARSE_ADD: SparseVectorConfig; INDEX_ADD: the schema, a string or an object */
	struct vk_bytes name;   /* of the vector, or the field's path */
	/* FOUND: */
	const struct vk_qd_found *found;
	size_t found_n;
	const char *text_from;  /* where the first texts stood; NULL: nothing found. Kept when the collection has none yet */
};
enum vk_status vk_qd_config_edit(void *arg, const struct vk_colconf *now, struct vk_buf *json, struct vk_error *err);
/* Everything about the edit that needs no config: for the handler's thread, so that nonsense is refused before the writer. */
enum vk_status vk_qd_config_check(const struct vk_qd_edit *e, struct vk_error *err);

/* "warnings": [...] into an open object, when there are any. */
void vk_qd_config_warn(const struct vk_colconf *c, struct vk_jw *w);
/* key: what was said of the vector's index, into an open object; nothing when nothing was. */
void vk_qd_config_index(const struct vk_vector_conf *v, struct vk_jw *w, const char *key);
/* result.config of GET. */
void vk_qd_config_show(const struct vk_colconf *c, struct vk_jw *w);

#endif
