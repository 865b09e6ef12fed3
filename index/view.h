/*
 * A view: one moment of one collection, with everything that reads of it need. Slots, bitmaps, rows and payload come from
 * one transaction. Points past their time to live are not in it (`live` leaves them out), though the sweeper may not have come
 * by yet. One thread at a time; borrowed bytes live until vk_view_end().
 */
#ifndef VK_INDEX_VIEW_H
#define VK_INDEX_VIEW_H

#include "index/config.h"
#include "index/bitmap.h"
#include "index/vset.h"
#include "store/kv.h"

struct vk_collection;

struct vk_view {
	struct vk_kv_txn *t;
	struct vk_colconf *conf;    /* a reference */
	struct vk_collection *c;    /* a reference */
	int64_t now_ms;             /* wall clock: who has expired */
	struct vk_bitmap *live;     /* NULL until asked for: vk_view_live() */
	bool writing;               /* over a write transaction: nothing may be cached */
};

enum vk_status vk_view_begin(struct vk_collection *c, int64_t now_ms, struct vk_view *v);
void vk_view_end(struct vk_view *v);

/* All live, unexpired slots; the view's own, do not free. */
enum vk_status vk_view_live(struct vk_view *v, const struct vk_bitmap **out);
bool vk_view_has_ttl(const struct vk_view *v);
/* The slot of an id, if it is live and not expired: VK_E_NOT_FOUND. */
enum vk_status vk_view_slot(struct vk_view *v, struct vk_bytes id, uint32_t *slot);
struct vk_point {
	uint32_t slot;
	struct vk_bytes id;
	uint64_t version;         /* change sequence */
	struct vk_bytes payload;  /* JSON text; n == 0: none */
};
enum vk_status vk_view_point(struct vk_view *v, uint32_t slot, struct vk_point *out);
/* Order of two slots by id, for ties. */
int vk_view_compare_ids(struct vk_view *v, uint32_t a, uint32_t b);
/* Walks live, unexpired points in id order from `from` (inclusive; p == NULL: the first). fn returns false to stop. */
enum vk_status vk_view_scroll(struct vk_view *v, struct vk_bytes from,
			      bool (*fn)(void *arg, uint32_t slot, struct vk_bytes id), void *arg);
/* Live points, expired ones included: cheap. */
uint64_t vk_view_points(struct vk_view *v);

#endif
