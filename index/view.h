/*
 * A view: one moment of one collection, with everything that reads of it need. Slots, bitmaps, rows and payload come from
 * one transaction. Points past their time to live are not in it (`live` leaves them out), though the sweeper may not have come
 * by yet. One thread at a time; borrowed bytes live until vk_view_end().
 *
 * A view pins its moment's pages and holds back a map that must grow, so none of a request's may live long: vk_view_run()
 * gives it VK_VIEW_MS_MAX, and whatever loops over many points asks vk_view_stopped() now and then.
 *
 * A file that cannot be read faults (store/guard.h). vk_view_begin() and vk_view_run() make VK_E_IO of that; who reads in a view
 * that he began himself brings his own guard.
 */
#ifndef VK_INDEX_VIEW_H
#define VK_INDEX_VIEW_H

#include <stdatomic.h>

#include "index/config.h"
#include "index/bitmap.h"
#include "index/vset.h"
#include "store/kv.h"

#define VK_VIEW_MS_MAX 30000

struct vk_collection;

struct vk_view {
	struct vk_kv_txn *t;
	struct vk_colconf *conf;    /* a reference */
	struct vk_collection *c;    /* a reference, unless uncounted */
	bool uncounted;
	int64_t now_ms;             /* wall clock: who has expired */
	struct vk_bitmap *live;     /* NULL until asked for: vk_view_live() */
	struct vk_parts_kept *parts; /* a reference; NULL until asked for: vk_view_parts() */
	bool writing;               /* over a write transaction: nothing may be cached */
	const atomic_bool *stop;    /* NULL, or turns true when nobody waits for the answer any more */
	uint64_t until_ms;          /* monotonic, when to give up; 0: never */
};

enum vk_status vk_view_begin(struct vk_collection *c, int64_t now_ms, struct vk_view *v);
void vk_view_end(struct vk_view *v);
/* From now on views that the calling thread begins on c take no reference: for the thread that c joins before it ends, whose own
 * would be the last one now and then, and c would end on the thread that it waits for. */
void vk_view_thread_of(const struct vk_collection *c);
/* Begins, calls fn, ends. fn gives its status, VK_E_CANCELLED when the view said stop, VK_E_IO when the file cannot be read: then fn
 * was left in the middle, so it holds no lock and waits for no thread while it reads. */
enum vk_status vk_view_run(struct vk_collection *c, int64_t now_ms, const atomic_bool *stop,
			   enum vk_status (*fn)(void *arg, struct vk_view *v), void *arg);
/* Time to give up: VK_E_CANCELLED. Some 30 ns. */
bool vk_view_stopped(const struct vk_view *v);

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
/* Has the point this vector, dense or sparse? */
bool vk_view_has(struct vk_view *v, uint32_t slot, const struct vk_vector_conf *conf);
/* A point's sparse vector, in the arena. VK_E_NOT_FOUND: it has none. */
struct vk_sparse {
	uint32_t n;
	uint32_t *index; /* ascending */
	float *value;
};
enum vk_status vk_view_sparse(struct vk_view *v, uint32_t slot, const struct vk_vector_conf *conf, struct vk_arena *a,
			      struct vk_sparse *out);
/* The text that a point's vector can be embedded from again, in the arena: the one that was sent in its place, else what the
 * payload has under text_from. VK_E_NOT_FOUND: neither. conf: of the view's config. */
enum vk_status vk_view_text(struct vk_view *v, uint32_t slot, const struct vk_vector_conf *conf, struct vk_arena *a,
			    struct vk_bytes *text);
/* vk_vset_parts() of the view's moment; found once for all its views, unless so few slots are wanted that looking for theirs
 * alone is less. `want` may leave out less than it could: a scan looks at each row's bit anyway. The pointers live until
 * vk_view_end() or the arena's end. */
enum vk_status vk_view_parts(struct vk_view *v, const struct vk_set *s, const struct vk_bitmap *want, struct vk_arena *a,
			     struct vk_parts *out);
/* Live points, expired ones included: cheap. */
uint64_t vk_view_points(struct vk_view *v);

#endif
