/*
 * The rows that a build reads: all of a set, or those that a build of an earlier process still lacks.
 *
 * The view is held only while the engine reads rows (seconds), not while it builds (minutes): pages that a view can see are not
 * reused. All rows are found first, one pointer each: 16 bytes a row for the time of reading.
 *
 * What a build lacks. It began at sequence G and has the rows of some slots as they were then. Every slot that changed since is the
 * delta's, whatever becomes of its row here: searches pass it over in the engine and look at the row itself. So the rows to add are
 * those of slots that have not changed since G and are not there yet, and each of them is now what it was at G: the index stands for
 * G as if it had been built in one go, less rows that nobody would have been answered.
 */
#include "index/ann_internal.h"

#include <stdlib.h>

#include "index/exact_run.h"
#include "store/guard.h"

#define ROW_PLACES_MAX ((size_t)1 << 30) /* bytes of places of blocks */

void vk_ann_rows_close(void *arg)
{
	struct vk_ann_rows *r = arg;
	if (r->open) vk_view_end(&r->v);
	r->open = false;
	vk_arena_free(&r->arena);
	free(r->row);
	free(r->slot);
	r->row = NULL;
	r->slot = NULL;
}

/* --- reading --- */

struct one_row {
	struct vk_ann_rows *r;
	uint32_t i;
	float *dst;
};

static enum vk_status copy_row(void *arg)
{
	struct one_row *o = arg;
	vk_row_f32(&o->r->set, &o->r->row[o->i], o->r->set.metric == VK_METRIC_COSINE, o->dst);
	return VK_OK;
}

static enum vk_status read_row(void *arg, uint32_t i, float *dst, uint32_t *slot)
{
	struct vk_ann_rows *r = arg;
	struct one_row o = {r, i, dst};
	*slot = r->slot[i];
	return vk_guard_run(vk_collection_kv(r->ann->c), copy_row, &o);
}

struct vk_ann_source vk_ann_rows_source(struct vk_ann_rows *r)
{
	return (struct vk_ann_source){.n = r->n, .row = read_row, .rows_done = vk_ann_rows_close, .arg = r};
}

/* --- finding --- */

/* Out of the set's slots: those that a build has, and those that are the delta's. */
static enum vk_status leave_out(struct vk_ann_rows *r, struct vk_bitmap *slots)
{
	struct vk_delta *d;
	if (!r->have) return VK_OK;
	if (r->sequence < r->since) return VK_E_CORRUPT; /* ahead of the collection */
	enum vk_status st = vk_delta_extend(&r->v, NULL, r->since, &d);
	if (st) return st;
	vk_bitmap_andnot(slots, r->have);
	vk_bitmap_andnot(slots, d->slots);
	r->changed = d->count;
	vk_delta_unref(d);
	return vk_bitmap_failed(slots) ? VK_E_NOMEM : VK_OK;
}

static enum vk_status room_for(struct vk_ann_rows *r, uint64_t rows)
{
	if (rows > VK_GRAPH_NODES_MAX) return VK_E_TOO_LARGE;
	if (!rows) return VK_OK;
	r->row = malloc(rows * sizeof *r->row);
	r->slot = malloc(rows * sizeof *r->slot);
	return r->row && r->slot ? VK_OK : VK_E_NOMEM;
}

/* Where the rows of these slots are, slots ascending. */
static enum vk_status find(struct vk_ann_rows *r, const struct vk_parts *parts, const struct vk_bitmap *slots)
{
	struct vk_exact_source src = {.set = &r->set, .parts = parts};
	struct vk_chunker walk = {.src = &src};
	struct vk_chunk *chunk = vk_arena_alloc(&r->arena, sizeof *chunk);
	uint32_t *take = vk_arena_alloc(&r->arena, VK_CHUNK_ROWS * sizeof *take);
	uint64_t all = vk_bitmap_count(slots);
	enum vk_status st = chunk && take ? room_for(r, all) : VK_E_NOMEM;
	for (uint64_t from = 0; !st && from <= UINT32_MAX;) {
		size_t m = vk_bitmap_take(slots, (uint32_t)from, take, VK_CHUNK_ROWS);
		if (!m) break;
		vk_chunker_find(&walk, take, m, chunk);
		for (uint32_t i = 0; i < chunk->n && r->n < all; i++) {
			r->row[r->n] = (struct vk_row){vk_chunk_row(chunk, i), vk_chunk_inv_norm(chunk, i)};
			r->slot[r->n++] = vk_chunk_slot(chunk, i);
		}
		from = (uint64_t)take[m - 1] + 1;
	}
	return st;
}

static enum vk_status find_rows(void *arg)
{
	struct vk_ann_rows *r = arg;
	struct vk_parts parts;
	enum vk_status st = vk_view_sequence(&r->v, &r->sequence);
	if (!st) st = vk_vset_parts(r->v.t, &r->set, NULL, &r->arena, &parts);
	if (st) return st;
	struct vk_bitmap *slots = vk_bitmap_new();
	st = slots ? vk_vset_slots(r->v.t, &r->set, slots) : VK_E_NOMEM;
	if (!st) st = leave_out(r, slots);
	if (!st) st = find(r, &parts, slots);
	vk_bitmap_free(slots);
	return st;
}

enum vk_status vk_ann_rows_find(struct vk_ann_rows *r, uint32_t set, struct vk_error *err)
{
	vk_arena_init(&r->arena, ROW_PLACES_MAX);
	enum vk_status st = vk_view_begin(r->ann->c, 0, &r->v);
	if (st) return vk_fail(err, st, "the collection cannot be read: %s", vk_status_text(st));
	r->open = true;
	const struct vk_vector_conf *conf = vk_colconf_set(r->v.conf, set);
	if (!conf || conf->sparse) return vk_fail(err, VK_E_CANCELLED, "the vector is gone");
	r->set = conf->set;
	st = vk_guard_run(vk_collection_kv(r->ann->c), find_rows, r);
	return st ? vk_fail(err, st, "the rows of the vector cannot be read: %s", vk_status_text(st)) : VK_OK;
}
