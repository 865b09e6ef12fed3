/*
 * Following: a batch of changes put into an engine that grows.
 *
 * Changes and their rows are copied in one short view, then put in without a view: a put is half a millisecond. A slot that changes
 * again meanwhile has a new entry in the change table and comes again.
 */
#include "index/ann_internal.h"

#include <stdlib.h>

#include "index/collection_internal.h"

#define BATCH_ROWS 256
#define BATCH_BYTES ((size_t)4 << 20)

struct batch {
	struct vk_ann *ann;
	struct vk_ann_set *s;
	struct vk_set set;
	uint64_t from, upto;   /* the changes in (from, upto] are in the batch */
	uint64_t seen;         /* the view's moment */
	size_t n, max;
	uint32_t slot[BATCH_ROWS];
	bool gone[BATCH_ROWS];
	float *row;            /* max rows */
	struct vk_view *v;
	enum vk_status st;
};

static bool take_change(void *arg, const struct vk_change *ch)
{
	struct batch *b = arg;
	struct vk_row row;
	if (b->n == b->max) return false;
	b->upto = ch->sequence;
	if (ch->op != VK_CHANGE_DELETED && !(ch->mask & ~VK_REC_MASK_PAYLOAD)) return true;
	b->slot[b->n] = ch->slot;
	enum vk_status st = ch->op == VK_CHANGE_DELETED ? VK_E_NOT_FOUND : vk_vset_row(b->v->t, &b->set, ch->slot, &row);
	b->gone[b->n] = st == VK_E_NOT_FOUND;
	if (!st) vk_row_f32(&b->set, &row, b->set.metric == VK_METRIC_COSINE, b->row + b->n * b->set.dims);
	else if (st != VK_E_NOT_FOUND) b->st = st;
	b->n++;
	return !b->st;
}

static enum vk_status take_batch(void *arg, struct vk_view *v)
{
	struct batch *b = arg;
	b->v = v;
	enum vk_status st = vk_view_sequence(v, &b->seen);
	b->upto = b->from;
	if (!st) st = vk_view_changes(v, b->from, take_change, b);
	if (!st) st = b->st;
	if (!st && b->n < b->max) b->upto = b->seen; /* no more behind */
	return st;
}

static enum vk_status put_in(struct batch *b, struct vk_gen *g)
{
	enum vk_status st = VK_OK;
	for (size_t i = 0; !st && i < b->n; i++) {
		st = b->gone[i] ? g->ops->del(g->self, b->slot[i]) : g->ops->put(g->self, b->slot[i], b->row + i * b->set.dims);
		if (st == VK_E_NOT_FOUND) st = VK_OK;
	}
	return st;
}

/* The slot of a point that went, with a row in it: another point's, which comes in a later batch. (Slots are not given again before
 * the cursor has passed; but a cursor may expire.) */
static bool given_again(const struct batch *b, size_t i, struct vk_view *v)
{
	struct vk_row row;
	return b->gone[i] && vk_vset_row(v->t, &b->set, b->slot[i], &row) == VK_OK;
}

/* The delta without what was put in, but with what has changed since: since the batch's view, or since the delta's own moment where
 * nobody has searched for longer than that. */
static enum vk_status trim(void *arg, struct vk_view *v)
{
	struct batch *b = arg;
	struct vk_ann *ann = b->ann;
	struct vk_ann_set *s = b->s;
	struct vk_delta *base = calloc(1, sizeof *base), *now = NULL, *old;
	if (!base) return VK_E_NOMEM;
	atomic_init(&base->refs, 1);
	pthread_mutex_lock(&ann->lock);
	old = vk_delta_ref(s->delta);
	pthread_mutex_unlock(&ann->lock);
	base->from = b->upto;
	base->upto = old->upto < b->seen ? old->upto : b->seen;
	if (base->upto < b->upto) base->upto = b->upto;
	base->slots = vk_bitmap_copy(old->slots);
	for (size_t i = 0; base->slots && i < b->n; i++)
		if (!given_again(b, i, v)) vk_bitmap_remove(base->slots, b->slot[i]);
	enum vk_status st = base->slots ? vk_delta_extend(v, base, 0, &now) : VK_E_NOMEM;
	vk_delta_unref(base);
	vk_delta_unref(old);
	if (st) return st;
	pthread_mutex_lock(&ann->lock);
	old = s->delta;
	s->delta = now;
	pthread_mutex_unlock(&ann->lock);
	vk_delta_unref(old);
	return VK_OK;
}

/* Memory of so many rows; false: none. */
static bool room(struct batch *b)
{
	b->max = BATCH_BYTES / (b->set.dims * sizeof *b->row);
	if (b->max > BATCH_ROWS) b->max = BATCH_ROWS;
	if (!b->max) b->max = 1;
	b->row = malloc(b->max * b->set.dims * sizeof *b->row);
	return b->row != NULL;
}

enum vk_status vk_ann_follow(struct vk_ann *ann, struct vk_ann_set *s, const struct vk_set *set, size_t *n, bool *engine)
{
	struct vk_gen *g = s->gen;
	struct batch b = {.ann = ann, .s = s, .set = *set, .from = atomic_load(&g->sequence)};
	*n = 0;
	*engine = false;
	if (!room(&b)) return VK_E_NOMEM;
	enum vk_status st = vk_view_run(ann->c, 0, NULL, take_batch, &b);
	if (!st) {
		st = put_in(&b, g);
		*engine = st != VK_OK;
	}
	if (!st) {
		atomic_store(&g->sequence, b.upto);
		*n = b.n;
		st = vk_view_run(ann->c, 0, NULL, trim, &b);
	}
	free(b.row);
	return st;
}
