/*
 * A generation built from the rows of one view.
 *
 * The view is held only while the engine reads rows (seconds), not while it builds (minutes): pages that a view can see are not
 * reused. All rows are found first, one pointer each: 16 bytes a row for the time of reading. What changes meanwhile is the
 * delta's, from the view's sequence on.
 */
#include "index/ann_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "index/exact_run.h"
#include "store/guard.h"

#define ROW_PLACES_MAX ((size_t)1 << 30) /* bytes of places of blocks */

struct rows {
	struct vk_ann *ann;
	struct vk_ann_set *s;
	struct vk_view v;
	bool open;
	struct vk_set set; /* a copy: it outlives the config */
	struct vk_arena arena;
	uint32_t n;
	uint64_t sequence;
	struct vk_row *row;
	uint32_t *slot;
	uint64_t saved_ms;
	const struct vk_ann_ops *ops;
};

static void let_go(void *arg)
{
	struct rows *r = arg;
	if (r->open) vk_view_end(&r->v);
	r->open = false;
	vk_arena_free(&r->arena);
	free(r->row);
	free(r->slot);
	r->row = NULL;
	r->slot = NULL;
}

struct one_row {
	struct rows *r;
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
	struct rows *r = arg;
	struct one_row o = {r, i, dst};
	*slot = r->slot[i];
	return vk_guard_run(vk_collection_kv(r->ann->c), copy_row, &o);
}

/* Pointers to all rows of the set, slots ascending. */
static enum vk_status find_rows(void *arg)
{
	struct rows *r = arg;
	struct vk_parts parts;
	enum vk_status st = vk_view_sequence(&r->v, &r->sequence);
	if (!st) st = vk_vset_parts(r->v.t, &r->set, NULL, &r->arena, &parts);
	if (st) return st;
	struct vk_bitmap *slots = vk_bitmap_new();
	struct vk_exact_source src = {.set = &r->set, .parts = &parts};
	struct vk_chunker walk = {.src = &src};
	struct vk_chunk *chunk = vk_arena_alloc(&r->arena, sizeof *chunk);
	uint32_t *take = vk_arena_alloc(&r->arena, VK_CHUNK_ROWS * sizeof *take);
	st = slots && chunk && take ? vk_vset_slots(r->v.t, &r->set, slots) : VK_E_NOMEM;
	uint64_t all = st ? 0 : vk_bitmap_count(slots);
	if (!st && all > VK_GRAPH_NODES_MAX) st = VK_E_TOO_LARGE;
	if (!st && all) {
		r->row = malloc(all * sizeof *r->row);
		r->slot = malloc(all * sizeof *r->slot);
		if (!r->row || !r->slot) st = VK_E_NOMEM;
	}
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
	vk_bitmap_free(slots);
	return st;
}

static enum vk_status begin(struct rows *r, struct vk_error *err)
{
	enum vk_status st = vk_view_begin(r->ann->c, 0, &r->v);
	if (st) return vk_fail(err, st, "the collection cannot be read: %s", vk_status_text(st));
	r->open = true;
	const struct vk_vector_conf *conf = vk_colconf_set(r->v.conf, r->s->set);
	if (!conf || conf->sparse) return vk_fail(err, VK_E_CANCELLED, "the vector is gone");
	r->set = conf->set;
	st = vk_guard_run(vk_collection_kv(r->ann->c), find_rows, r);
	return st ? vk_fail(err, st, "the rows of the vector cannot be read: %s", vk_status_text(st)) : VK_OK;
}

/* Keeps what is built so far; that it cannot be kept is no reason to stop building. */
static enum vk_status between(void *arg, void *self)
{
	struct rows *r = arg;
	struct vk_error err = {0};
	uint8_t made[VK_ANN_MADE];
	if (vk_mono_ms() - r->saved_ms < r->ann->pace.build_save_ms) return VK_OK;
	vk_ann_made(&r->s->plan, made);
	enum vk_status st = vk_ann_keep(r->ann, r->s, &r->s->plan, made, self, r->sequence, true, &err);
	if (st) vk_log(VK_LOG_WARN, "an index cannot be kept half built: %s", err.text);
	r->saved_ms = vk_mono_ms();
	return VK_OK;
}

static struct vk_ann_build opts_of(struct rows *r)
{
	return (struct vk_ann_build){.threads = r->s->plan.threads, .stop = &r->s->cancel, .progress = &r->s->progress,
				     .between = r->ops->resume ? between : NULL, .arg = r};
}

/* What was being built when the last process ended; *self stays NULL when it is of no use. */
static enum vk_status go_on(struct rows *r, void **self, struct vk_error *err)
{
	char path[VK_ANN_PATH_MAX];
	uint8_t tag[32], made[VK_ANN_MADE];
	uint64_t sequence = 0;
	struct vk_error why = {0};
	if (!r->s->has_part || !r->ops->resume) return VK_OK;
	vk_ann_made(&r->s->plan, made);
	if (memcmp(r->s->part.tag + sizeof tag - sizeof made, made, sizeof made) != 0) return VK_OK; /* of an older plan */
	vk_ann_path(r->ann, r->s, &r->s->part, true, path);
	enum vk_status st = (enum vk_ann_engine)r->s->part.engine == r->s->plan.engine
				? r->ops->open(&r->s->plan, path, self, &sequence, tag, &why) : VK_E_INVALID;
	if (!st && (sequence != r->s->part.sequence || memcmp(tag, r->s->part.tag, sizeof tag) != 0)) st = VK_E_CORRUPT;
	r->sequence = sequence;
	struct vk_ann_build o = opts_of(r);
	if (!st) {
		vk_log(VK_LOG_INFO, "%s: going on with it", path);
		r->s->resumed++;
		st = r->ops->resume(*self, &o, err);
	}
	if (!st || st == VK_E_CANCELLED) return st;
	if (*self) r->ops->close(*self);
	*self = NULL;
	vk_log(VK_LOG_WARN, "%s: cannot be gone on with (%s), building from the beginning", path, why.text[0] ? why.text : vk_status_text(st));
	return VK_OK;
}

static enum vk_status moment(void *sequence, struct vk_view *v)
{
	return vk_view_sequence(v, sequence);
}

static enum vk_status from_rows(struct rows *r, void **self, struct vk_error *err)
{
	struct vk_ann_source src = {.row = read_row, .rows_done = let_go, .arg = r};
	uint64_t before;
	enum vk_status st = vk_view_run(r->ann->c, 0, NULL, moment, &before);
	if (st) return vk_fail(err, st, "the collection cannot be read: %s", vk_status_text(st));
	st = vk_ann_cursor(r->ann, r->s, before);
	if (st) return vk_fail(err, st, "the change cursor cannot be registered: %s", vk_status_text(st));
	if ((st = begin(r, err))) return st;
	src.n = r->n;
	struct vk_ann_build o = opts_of(r);
	return r->ops->build(&r->s->plan, &src, &o, self, err);
}

enum vk_status vk_ann_make(struct vk_ann *ann, struct vk_ann_set *s, struct vk_gen **gen, struct vk_error *err)
{
	struct rows r = {.ann = ann, .s = s, .saved_ms = vk_mono_ms(), .ops = vk_ann_ops_of(s->plan.engine)};
	void *self = NULL;
	*gen = NULL;
	vk_arena_init(&r.arena, ROW_PLACES_MAX);
	enum vk_status st = go_on(&r, &self, err);
	if (!st && !self) st = from_rows(&r, &self, err);
	let_go(&r);
	if (!st && !(*gen = vk_gen_new(r.ops, self, &s->plan, r.sequence))) st = vk_fail(err, VK_E_NOMEM, "out of memory");
	if (st && self) r.ops->close(self);
	return st;
}
