/*
 * The parts of a set (index/vset.h), kept from view to view of one moment (store/kv.h).
 *
 * To find them is to walk over all blocks: a page each for rows and for codes, neither in any cache, on one thread. At
 * 1,000,000 rows of 768 dims (15,625 blocks) that was 14 of the 72 ms of a search by codes on one thread, and of the 44 ms on
 * two. Here only the first search after a commit walks; the others take what it found.
 *
 * A collection keeps the parts of its newest moment that was searched, of every set; each view that uses them holds a
 * reference, so older ones go with their last view. A view older than what is kept, and a writer's, walks for itself. What is
 * kept is a hundred bytes a block of 256 KB of rows, and a copy of the dead bits.
 *
 * Not taken: parts that outlive a commit. Blocks whose values are not written again stay where they are, so a walk over what
 * changed would do; but tail and dead bits change with nearly every write, and under steady writes a walk a commit is little.
 *
 * Locks: the collection's for its `parts`, then `lock` for that one's list. Neither is held while the map is read, which may
 * fault (store/guard.h): parts are found into the caller's arena, and copied from there.
 */
#include <stdlib.h>
#include <string.h>

#include "index/collection_internal.h"
#include "index/view.h"
#include "store/record_vset.h"

/* What may be spent on a wanted slot instead of seeking its block in the map: */
#define BLOCKS_A_SLOT 4 /* walked over, once a moment */
#define STEPS_A_SLOT 64 /* over parts in memory */

struct one { /* a set's */
	struct one *next;
	uint32_t set;
	struct vk_parts parts; /* in the same piece of memory */
};
struct vk_parts_kept {
	atomic_int refs;
	struct vk_kv_moment at;
	pthread_mutex_t lock;
	struct one *first; /* only grows: views read what they found without the lock */
};

void vk_parts_kept_unref(struct vk_parts_kept *k)
{
	if (!k || atomic_fetch_sub(&k->refs, 1) > 1) return;
	for (struct one *o = k->first, *next; o; o = next) {
		next = o->next;
		free(o);
	}
	pthread_mutex_destroy(&k->lock);
	free(k);
}

static struct vk_parts_kept *kept_new(struct vk_kv_moment at)
{
	struct vk_parts_kept *k = calloc(1, sizeof *k);
	if (!k) return NULL;
	atomic_init(&k->refs, 1);
	k->at = at;
	pthread_mutex_init(&k->lock, NULL);
	return k;
}

static bool same(struct vk_kv_moment a, struct vk_kv_moment b)
{
	return a.txn == b.txn && a.map == b.map;
}

/* Only a grown map and a commit come later; a map that was opened anew may have fewer commits than the one before. */
static bool later(struct vk_kv_moment a, struct vk_kv_moment than)
{
	return a.map > than.map || (a.map == than.map && a.txn > than.txn);
}

/* What is kept of the view's moment, a reference that the view holds; NULL: the view is older than that (or memory is out). */
static struct vk_parts_kept *kept_of(struct vk_view *v)
{
	struct vk_collection *c = v->c;
	if (v->parts || v->writing) return v->parts;
	struct vk_kv_moment at = vk_kv_moment(v->t);
	struct vk_parts_kept *old = NULL;
	pthread_mutex_lock(&c->lock);
	if (!c->parts || later(at, c->parts->at)) {
		struct vk_parts_kept *fresh = kept_new(at);
		if (fresh) {
			old = c->parts;
			c->parts = fresh;
		}
	}
	if (c->parts && same(c->parts->at, at)) {
		v->parts = c->parts;
		atomic_fetch_add(&v->parts->refs, 1);
	}
	pthread_mutex_unlock(&c->lock);
	vk_parts_kept_unref(old);
	return v->parts;
}

/* Under its lock. */
static const struct one *find(const struct vk_parts_kept *k, uint32_t set)
{
	const struct one *o = k->first;
	while (o && o->set != set) o = o->next;
	return o;
}

static const struct vk_parts *look(struct vk_parts_kept *k, uint32_t set)
{
	pthread_mutex_lock(&k->lock);
	const struct one *o = find(k, set);
	pthread_mutex_unlock(&k->lock);
	return o ? &o->parts : NULL;
}

static size_t dead_words(const struct vk_part *p)
{
	return p->dead ? vk_rec_words(p->slots) : 0;
}

static struct one *copy(uint32_t set, const struct vk_parts *p)
{
	size_t words = 0;
	for (size_t i = 0; i < p->part_n; i++) words += dead_words(&p->part[i]);
	struct one *o = malloc(sizeof *o + p->part_n * sizeof *p->part + p->tail_n * sizeof *p->tail + words * sizeof(uint64_t));
	if (!o) return NULL;
	*o = (struct one){.set = set, .parts = *p};
	o->parts.part = (struct vk_part *)(void *)(o + 1);
	o->parts.tail = (struct vk_tail_row *)(void *)(o->parts.part + p->part_n);
	uint64_t *dead = (uint64_t *)(void *)(o->parts.tail + p->tail_n);
	if (p->part_n) memcpy(o->parts.part, p->part, p->part_n * sizeof *p->part);
	if (p->tail_n) memcpy(o->parts.tail, p->tail, p->tail_n * sizeof *p->tail);
	for (size_t i = 0; i < p->part_n; i++) {
		size_t n = dead_words(&p->part[i]);
		if (n) o->parts.part[i].dead = memcpy(dead, p->part[i].dead, n * sizeof *dead);
		dead += n;
	}
	return o;
}
_Static_assert(_Alignof(struct vk_part) <= 8 && sizeof(struct one) % 8 == 0 && sizeof(struct vk_part) % 8 == 0 &&
		   sizeof(struct vk_tail_row) % 8 == 0,
	       "what follows what in copy() is aligned");

/* Another view may have been as quick: its parts stay, and p is used once. */
static void keep(struct vk_parts_kept *k, uint32_t set, const struct vk_parts *p)
{
	struct one *mine = copy(set, p);
	if (!mine) return;
	pthread_mutex_lock(&k->lock);
	bool known = find(k, set) != NULL;
	if (!known) {
		mine->next = k->first;
		k->first = mine;
	}
	pthread_mutex_unlock(&k->lock);
	if (known) free(mine);
}

/* Is a walk over all blocks, whose outcome is kept, worth it for so many slots? */
static bool worth_walking(struct vk_view *v, const struct vk_set *s, uint64_t wanted)
{
	struct vk_vset_stats size;
	return !vk_vset_stats(v->t, s, &size) && size.blocks + size.tail_rows <= BLOCKS_A_SLOT * wanted;
}

enum vk_status vk_view_parts(struct vk_view *v, const struct vk_set *s, const struct vk_bitmap *want, struct vk_arena *a,
			     struct vk_parts *out)
{
	uint64_t wanted = want ? vk_bitmap_count(want) : UINT64_MAX / STEPS_A_SLOT;
	struct vk_parts_kept *k = kept_of(v);
	const struct vk_parts *known = k ? look(k, s->id) : NULL;
	if (known && known->part_n + known->tail_n <= STEPS_A_SLOT * wanted) {
		*out = *known;
		return VK_OK;
	}
	if (!k || known || !worth_walking(v, s, wanted)) return vk_vset_parts(v->t, s, want, a, out);
	enum vk_status st = vk_vset_parts(v->t, s, NULL, a, out);
	if (!st) keep(k, s->id, out);
	return st;
}
