/*
 * A generation built from the rows of one view (ann_rows.c), or the one that the last process was building, gone on with.
 *
 * What changes while it is built is the delta's, from the view's sequence on. What is built so far is saved now and then with that
 * sequence, under a pointer of its own, so that it is never taken for a finished one; the cursor keeps what changed since. An engine
 * that keeps its rows (the graph) goes on from the file alone; one that does not (FAISS) is given the rows that it lacks. What cannot
 * be gone on with is forgotten, and built from the beginning.
 */
#include "index/ann_internal.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* A save that takes so long doubles the time until the next: no more than a twelfth of a build's time goes into saving. */
#define SLOW_SAVE_MS 5000

struct making {
	struct vk_ann *ann;
	struct vk_ann_set *s;
	const struct vk_ann_ops *ops;
	struct vk_ann_rows rows;
	uint64_t sequence;           /* that what is built stands for */
	uint64_t saved_ms, pause_ms; /* the last save's end; until the next */
};

/* Keeps what is built so far; that it cannot be kept is no reason to stop building. */
static enum vk_status between(void *arg, void *self)
{
	struct making *m = arg;
	struct vk_error err = {0};
	uint8_t made[VK_ANN_MADE];
	uint64_t now = vk_mono_ms();
	if (now - m->saved_ms < m->pause_ms) return VK_OK;
	vk_ann_made(&m->s->plan, made);
	enum vk_status st = vk_ann_keep(m->ann, m->s, &m->s->plan, made, self, m->sequence, true, &err);
	if (st) vk_log(VK_LOG_WARN, "an index cannot be kept half built: %s", err.text);
	m->saved_ms = vk_mono_ms();
	m->pause_ms = m->ann->pace.build_save_ms * (1 + (m->saved_ms - now) / SLOW_SAVE_MS);
	return VK_OK;
}

static bool goes_on(const struct vk_ann_ops *ops)
{
	return ops->resume || ops->resume_from;
}

static struct vk_ann_build opts_of(struct making *m)
{
	return (struct vk_ann_build){.threads = m->s->plan.threads, .stop = &m->s->cancel, .progress = &m->s->progress,
				     .between = goes_on(m->ops) ? between : NULL, .arg = m};
}

/* --- going on --- */

static enum vk_status open_part(struct making *m, const char *path, void **self, struct vk_error *why)
{
	const struct vk_rec_gen *part = &m->s->part;
	uint8_t tag[32];
	uint64_t sequence = 0;
	enum vk_status st = m->ops->open(&m->s->plan, path, self, &sequence, tag, why);
	if (st) return st;
	if (sequence != part->sequence || memcmp(tag, part->tag, sizeof tag) != 0)
		return vk_fail(why, VK_E_CORRUPT, "not the file that the collection points to");
	if (m->ops->partial && !m->ops->partial(*self)) return vk_fail(why, VK_E_CORRUPT, "it is not half built");
	if (m->s->cursor > sequence) return vk_fail(why, VK_E_CORRUPT, "its cursor is gone, and perhaps tombstones with it");
	m->sequence = sequence;
	/* Nobody has renewed it since that process ended. */
	st = vk_ann_cursor(m->ann, m->s, UINT64_MAX);
	return st ? vk_fail(why, st, "the change cursor cannot be registered: %s", vk_status_text(st)) : VK_OK;
}

/* Finds what it lacks; fails, too, where so much has changed that a new one would soon be due. */
static enum vk_status rows_left(struct making *m, const void *self, struct vk_error *why)
{
	struct vk_bitmap *have = vk_bitmap_new();
	if (!have) return vk_fail(why, VK_E_NOMEM, "no memory");
	m->rows.have = have;
	m->rows.since = m->sequence;
	m->ops->slots(self, have);
	uint64_t rows = vk_bitmap_count(have);
	enum vk_status st = VK_OK;
	if (vk_bitmap_failed(have)) st = vk_fail(why, VK_E_NOMEM, "no memory");
	else if (rows != m->ops->rows(self)) st = vk_fail(why, VK_E_CORRUPT, "it has a row twice");
	if (!st) st = vk_ann_rows_find(&m->rows, m->s->set, why);
	if (!st && vk_ann_is_stale(m->rows.changed, rows + m->rows.n))
		st = vk_fail(why, VK_E_CONFLICT, "%llu points have changed since", (unsigned long long)m->rows.changed);
	m->rows.have = NULL;
	vk_bitmap_free(have);
	return st;
}

static enum vk_status resume(struct making *m, const char *path, void *self, struct vk_error *why)
{
	struct vk_ann_build o = opts_of(m);
	enum vk_status st = m->ops->resume ? VK_OK : rows_left(m, self, why);
	if (st) return st;
	vk_log(VK_LOG_INFO, "%s: going on with it", path);
	m->s->resumed++;
	if (m->ops->resume) return m->ops->resume(self, &o, why);
	struct vk_ann_source src = vk_ann_rows_source(&m->rows);
	return m->ops->resume_from(self, &src, &o, why);
}

/* What was being built when the last process ended; *self stays NULL when it is of no use. */
static enum vk_status go_on(struct making *m, void **self, struct vk_error *err)
{
	char path[VK_ANN_PATH_MAX];
	uint8_t made[VK_ANN_MADE];
	struct vk_error why = {0};
	if (!m->s->has_part || !goes_on(m->ops)) return VK_OK;
	vk_ann_made(&m->s->plan, made);
	if (memcmp(m->s->part.tag + sizeof m->s->part.tag - sizeof made, made, sizeof made) != 0) return VK_OK; /* of another plan */
	vk_ann_path(m->ann, m->s, &m->s->part, true, path);
	enum vk_status st = open_part(m, path, self, &why);
	if (!st) st = resume(m, path, *self, &why);
	vk_ann_rows_close(&m->rows);
	if (!st) return VK_OK;
	if (*self) m->ops->close(*self);
	*self = NULL;
	if (st == VK_E_CANCELLED) return vk_fail(err, st, "%s", why.text);
	vk_log(VK_LOG_WARN, "%s: cannot be gone on with (%s), building from the beginning", path, why.text[0] ? why.text : vk_status_text(st));
	return VK_OK;
}

/* --- from the beginning --- */

static enum vk_status moment(void *sequence, struct vk_view *v)
{
	return vk_view_sequence(v, sequence);
}

static enum vk_status from_rows(struct making *m, void **self, struct vk_error *err)
{
	uint64_t before;
	(void)vk_ann_forget(m->ann, m->s, true); /* it would hold tombstones, and be tried again */
	enum vk_status st = vk_view_run(m->ann->c, 0, NULL, moment, &before);
	if (st) return vk_fail(err, st, "the collection cannot be read: %s", vk_status_text(st));
	st = vk_ann_cursor(m->ann, m->s, before);
	if (st) return vk_fail(err, st, "the change cursor cannot be registered: %s", vk_status_text(st));
	m->rows = (struct vk_ann_rows){.ann = m->ann};
	if ((st = vk_ann_rows_find(&m->rows, m->s->set, err))) return st;
	m->sequence = m->rows.sequence;
	struct vk_ann_source src = vk_ann_rows_source(&m->rows);
	struct vk_ann_build o = opts_of(m);
	return m->ops->build(&m->s->plan, &src, &o, self, err);
}

enum vk_status vk_ann_make(struct vk_ann *ann, struct vk_ann_set *s, struct vk_gen **gen, struct vk_error *err)
{
	struct making m = {.ann = ann, .s = s, .ops = vk_ann_ops_of(s->plan.engine), .rows = {.ann = ann}, .saved_ms = vk_mono_ms(),
			   .pause_ms = ann->pace.build_save_ms};
	void *self = NULL;
	*gen = NULL;
	enum vk_status st = go_on(&m, &self, err);
	if (!st && !self) st = from_rows(&m, &self, err);
	vk_ann_rows_close(&m.rows);
	if (!st && !(*gen = vk_gen_new(m.ops, self, &s->plan, m.sequence))) st = vk_fail(err, VK_E_NOMEM, "out of memory");
	if (st && self) m.ops->close(self);
	return st;
}
