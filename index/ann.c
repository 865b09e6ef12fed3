/* Indexes of a collection: life, counting, what to show (ann_internal.h has the model). */
#include "index/ann_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "index/collection_internal.h"

/* The usual pace. */
#define POLL_MS 500
#define BUILD_SAVE_MS 60000
#define RETRY_MS 30000
#define SAVE_EVERY_MS 300000

const char *const vk_ann_state_names[VK_ANN_STATES] = {"idle", "building", "following", "ready", "failed", "cancelled"};

/* How wide to search: what is measured, and what `auto` chooses from. */
const uint32_t vk_ann_dials[VK_ANN_POINTS_MAX] = {1, 4, 10, 16, 24, 40, 64, 96, 144, 224, 384, 768};

const struct vk_ann_ops *vk_ann_ops_of(enum vk_ann_engine e)
{
	static const struct vk_ann_ops *const all[VK_ANN_ENGINES] = {[VK_ANN_GRAPH] = &vk_ann_graph, [VK_ANN_FAISS] = &vk_ann_faiss};
	return e < VK_ANN_ENGINES ? all[e] : NULL;
}

/* --- generations and deltas --- */

struct vk_gen *vk_gen_new(const struct vk_ann_ops *ops, void *self, const struct vk_ann_plan *p, uint64_t sequence)
{
	struct vk_gen *g = calloc(1, sizeof *g);
	if (!g) return NULL;
	g->ops = ops;
	g->self = self;
	g->plan = *p;
	vk_ann_made(p, g->made);
	atomic_init(&g->refs, 1);
	atomic_init(&g->sequence, sequence);
	return g;
}

bool vk_gen_is_of(const struct vk_gen *g, const struct vk_ann_plan *p)
{
	uint8_t made[VK_ANN_MADE];
	vk_ann_made(p, made);
	return !memcmp(made, g->made, sizeof made);
}

struct vk_gen *vk_gen_ref(struct vk_gen *g)
{
	if (g) atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
	return g;
}

void vk_gen_unref(struct vk_gen *g)
{
	if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1) return;
	g->ops->close(g->self);
	free(g);
}

struct vk_delta *vk_delta_ref(struct vk_delta *d)
{
	if (d) atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
	return d;
}

void vk_delta_unref(struct vk_delta *d)
{
	if (!d || atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1) return;
	vk_bitmap_free(d->slots);
	free(d);
}

enum vk_status vk_view_sequence(struct vk_view *v, uint64_t *sequence)
{
	struct vk_rec_state s;
	enum vk_status st = vk_state_get(v->t, &s);
	*sequence = st ? 0 : s.sequence;
	return st;
}

/* A payload alone changes no row; whatever else a change says, some vector may have. */
static bool add_change(void *arg, const struct vk_change *ch)
{
	if (ch->op == VK_CHANGE_DELETED || ch->mask & ~VK_REC_MASK_PAYLOAD) vk_bitmap_add(arg, ch->slot);
	return true;
}

enum vk_status vk_delta_extend(struct vk_view *v, const struct vk_delta *d, uint64_t from, struct vk_delta **out)
{
	struct vk_delta *n = calloc(1, sizeof *n);
	*out = NULL;
	if (!n) return VK_E_NOMEM;
	atomic_init(&n->refs, 1);
	n->from = d ? d->from : from;
	n->slots = d ? vk_bitmap_copy(d->slots) : vk_bitmap_new();
	enum vk_status st = n->slots ? vk_view_sequence(v, &n->upto) : VK_E_NOMEM;
	uint64_t after = d ? d->upto : from;
	if (!st && n->upto > after) st = vk_view_changes(v, after, add_change, n->slots);
	if (!st && vk_bitmap_failed(n->slots)) st = VK_E_NOMEM;
	if (st) {
		vk_delta_unref(n);
		return st;
	}
	n->count = vk_bitmap_count(n->slots);
	*out = n;
	return VK_OK;
}

struct vk_ann_set *vk_ann_find(struct vk_ann *ann, uint32_t set)
{
	struct vk_ann_set *s = ann->sets;
	while (s && s->set != set) s = s->next;
	return s;
}

/* That the config says for all searches; 0: it does not. */
static uint32_t fixed_width(const struct vk_ann_plan *p)
{
	if (p->engine != VK_ANN_FAISS) return 0;
	return p->nprobe ? p->nprobe : p->ef_search;
}

/* At the nearest that was measured below it; < 0: nothing was. */
static float recall_at(const struct vk_ann_set *s, uint32_t ef)
{
	float recall = s->curve_n ? s->curve[0].recall : -1;
	for (size_t i = 0; i < s->curve_n; i++)
		if (s->curve[i].ef <= ef) recall = s->curve[i].recall;
	return recall;
}

bool vk_ann_take(struct vk_ann *ann, uint32_t set, struct vk_ann_serving *out)
{
	*out = (struct vk_ann_serving){0};
	pthread_mutex_lock(&ann->lock);
	struct vk_ann_set *s = vk_ann_find(ann, set);
	bool serves = s && s->gen && s->delta;
	if (serves) {
		*out = (struct vk_ann_serving){vk_gen_ref(s->gen), vk_delta_ref(s->delta), s->plan.recall, s->plan.scan_rows_max, {{0}},
						s->curve_n};
		memcpy(out->curve, s->curve, sizeof out->curve);
		uint32_t fixed = fixed_width(&s->plan);
		if (fixed) {
			out->curve[0] = (struct vk_ann_point){fixed, 1};
			out->curve_n = 1;
		}
	}
	pthread_mutex_unlock(&ann->lock);
	return serves;
}

void vk_ann_give(struct vk_ann_serving *sv)
{
	vk_gen_unref(sv->gen);
	vk_delta_unref(sv->delta);
	*sv = (struct vk_ann_serving){0};
}

uint32_t vk_ann_auto(const struct vk_ann_point *curve, size_t n, float recall)
{
	for (size_t i = 0; i < n; i++)
		if (curve[i].recall >= recall) return curve[i].ef;
	return n ? curve[n - 1].ef : 0;
}

void vk_ann_count(struct vk_ann *ann, uint32_t set, uint64_t exact, uint64_t approximate)
{
	pthread_mutex_lock(&ann->lock);
	struct vk_ann_set *s = vk_ann_find(ann, set);
	if (s) {
		s->searches[0] += exact;
		s->searches[1] += approximate;
	}
	pthread_mutex_unlock(&ann->lock);
}

void vk_ann_offer_delta(struct vk_ann *ann, uint32_t set, const struct vk_gen *gen, struct vk_delta *d)
{
	struct vk_delta *old = NULL;
	pthread_mutex_lock(&ann->lock);
	struct vk_ann_set *s = vk_ann_find(ann, set);
	if (s && s->gen == gen && s->delta && s->delta->from <= d->from && s->delta->upto < d->upto) {
		old = s->delta;
		s->delta = vk_delta_ref(d);
	}
	pthread_mutex_unlock(&ann->lock);
	vk_delta_unref(old);
}

/* --- life --- */

static struct vk_ann_pace pace_of(const struct vk_ann_pace *p)
{
	return (struct vk_ann_pace){.poll_ms = p->poll_ms ? p->poll_ms : POLL_MS,
				    .build_save_ms = p->build_save_ms ? p->build_save_ms : BUILD_SAVE_MS,
				    .retry_ms = p->retry_ms ? p->retry_ms : RETRY_MS,
				    .save_every_ms = p->save_every_ms ? p->save_every_ms : SAVE_EVERY_MS};
}

static void free_set(struct vk_ann_set *s)
{
	vk_gen_unref(s->gen);
	vk_delta_unref(s->delta);
	free(s);
}

/* Under the lock. A thread that cannot be had is asked for again by the next poke. */
static void wake(struct vk_ann *ann)
{
	ann->poked = true;
	ann->idle = false;
	if (!ann->running && !ann->read_only && !atomic_load(&ann->stop))
		ann->running = !pthread_create(&ann->thread, NULL, vk_ann_worker, ann);
	pthread_cond_broadcast(&ann->changed);
}

/* Is there anything of the last process to go on with: a file to settle and follow, a build, an index that was never begun, what was
 * left when a set was dropped? Else the first write starts the worker. */
static void start(struct vk_ann *ann)
{
	bool some = atomic_load(&ann->c->points) >= atomic_load(&ann->rows_least);
	pthread_mutex_lock(&ann->lock);
	for (struct vk_ann_set *s = ann->sets; s; s = s->next) some |= s->has_file || s->has_part || s->cursor != UINT64_MAX;
	if (some) wake(ann);
	pthread_mutex_unlock(&ann->lock);
}

enum vk_status vk_ann_new(struct vk_collection *c, const struct vk_ann_opts *o, struct vk_ann **out, struct vk_error *err)
{
	struct vk_ann *ann = calloc(1, sizeof *ann);
	*out = NULL;
	if (!ann || !(ann->dir = strdup(o->dir))) {
		free(ann);
		return vk_fail(err, VK_E_NOMEM, "out of memory");
	}
	ann->c = c;
	ann->read_only = o->read_only;
	ann->pace = pace_of(&o->pace);
	pthread_mutex_init(&ann->lock, NULL);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&ann->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	enum vk_status st = vk_ann_load(ann, err);
	if (st) {
		vk_ann_free(ann);
		return st;
	}
	*out = ann;
	start(ann);
	return VK_OK;
}

void vk_ann_free(struct vk_ann *ann)
{
	if (!ann) return;
	atomic_store(&ann->stop, true);
	pthread_mutex_lock(&ann->lock);
	bool join = ann->running;
	for (struct vk_ann_set *s = ann->sets; s; s = s->next) atomic_store(&s->cancel, true); /* a build begun later sees stop */
	pthread_cond_broadcast(&ann->changed);
	pthread_mutex_unlock(&ann->lock);
	if (join) pthread_join(ann->thread, NULL);
	for (struct vk_ann_set *s = ann->sets, *next; s; s = next) {
		next = s->next;
		free_set(s);
	}
	pthread_cond_destroy(&ann->changed);
	pthread_mutex_destroy(&ann->lock);
	free(ann->dir);
	free(ann);
}

void vk_ann_poke(struct vk_ann *ann)
{
	pthread_mutex_lock(&ann->lock);
	wake(ann);
	pthread_mutex_unlock(&ann->lock);
}

void vk_ann_configured(struct vk_ann *ann, const struct vk_colconf *conf)
{
	pthread_mutex_lock(&ann->lock);
	for (struct vk_ann_set *s = ann->sets; s; s = s->next) {
		const struct vk_vector_conf *v = vk_colconf_set(conf, s->set);
		struct vk_ann_plan p = {.engine = VK_ANN_NONE};
		if (s->state != VK_ANN_BUILDING) continue;
		if (v && !v->sparse) vk_ann_plan_of(conf, v, &p);
		if (!vk_ann_plan_builds_alike(&p, &s->plan)) atomic_store(&s->cancel, true);
	}
	wake(ann);
	pthread_mutex_unlock(&ann->lock);
}

void vk_ann_wrote(struct vk_ann *ann, uint64_t points)
{
	if (points >= atomic_load_explicit(&ann->rows_least, memory_order_relaxed)) vk_ann_poke(ann);
}

/* --- waiting and asking --- */

static struct timespec after_ms(uint64_t ms)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += (time_t)(ms / 1000);
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

/* Until done(ann) under the lock; VK_E_DEADLINE. */
static enum vk_status wait_for(struct vk_ann *ann, uint64_t timeout_ms, bool (*done)(const struct vk_ann *, uint64_t), uint64_t arg)
{
	struct timespec until = after_ms(timeout_ms);
	int rc = 0;
	pthread_mutex_lock(&ann->lock);
	wake(ann);
	while (!done(ann, arg) && rc != ETIMEDOUT && !atomic_load(&ann->stop)) rc = pthread_cond_timedwait(&ann->changed, &ann->lock, &until);
	enum vk_status st = done(ann, arg) ? VK_OK : VK_E_DEADLINE;
	pthread_mutex_unlock(&ann->lock);
	return st;
}

static bool is_idle(const struct vk_ann *ann, uint64_t arg)
{
	(void)arg;
	return ann->idle;
}

enum vk_status vk_ann_wait(struct vk_ann *ann, uint64_t timeout_ms)
{
	return ann->read_only ? VK_OK : wait_for(ann, timeout_ms, is_idle, 0);
}

static bool is_saved(const struct vk_ann *ann, uint64_t arg)
{
	(void)arg;
	return !ann->checkpoint;
}

enum vk_status vk_ann_checkpoint(struct vk_ann *ann)
{
	if (ann->read_only) return VK_E_FORBIDDEN;
	pthread_mutex_lock(&ann->lock);
	ann->checkpoint = true;
	ann->unsaved = VK_OK;
	wake(ann);
	bool runs = ann->running;
	pthread_mutex_unlock(&ann->lock);
	if (!runs) return VK_E_NOMEM; /* no thread to be had */
	enum vk_status st = wait_for(ann, UINT32_MAX, is_saved, 0);
	pthread_mutex_lock(&ann->lock);
	if (!st) st = ann->unsaved;
	pthread_mutex_unlock(&ann->lock);
	return st;
}

enum vk_status vk_ann_cancel(struct vk_ann *ann, uint32_t set)
{
	pthread_mutex_lock(&ann->lock);
	struct vk_ann_set *s = vk_ann_find(ann, set);
	bool runs = s && (s->state == VK_ANN_BUILDING || s->rebuild);
	if (runs) {
		s->rebuild = false; /* asked for, not begun */
		atomic_store(&s->cancel, true);
	}
	pthread_mutex_unlock(&ann->lock);
	return runs ? VK_OK : VK_E_NOT_FOUND;
}

enum vk_status vk_ann_rebuild(struct vk_ann *ann, uint32_t set)
{
	if (ann->read_only) return VK_E_FORBIDDEN;
	pthread_mutex_lock(&ann->lock);
	struct vk_ann_set *s = vk_ann_find(ann, set);
	if (s) {
		s->rebuild = true;
		wake(ann);
	}
	pthread_mutex_unlock(&ann->lock);
	return s ? VK_OK : VK_E_NOT_FOUND;
}

static void describe(const struct vk_ann_set *s, struct vk_ann_info *out)
{
	uint32_t fixed = fixed_width(&s->plan), ef = fixed ? fixed : vk_ann_auto(s->curve, s->curve_n, s->plan.recall);
	*out = (struct vk_ann_info){.state = s->state, .plan = s->plan, .serving = s->gen != NULL, .recall = recall_at(s, ef),
				    .recall_queries = s->recall_queries, .recall_ms = s->recall_at_ms, .ef_auto = ef,
				    .curve_n = s->curve_n, .checkpoint = s->checkpoint, .build_ms = s->build_ms,
				    .done = atomic_load(&s->progress.done), .total = atomic_load(&s->progress.total)};
	memcpy(out->curve, s->curve, sizeof out->curve);
	memcpy(out->error, s->error, sizeof out->error);
	memcpy(out->searches, s->searches, sizeof out->searches);
	if (s->gen) out->sequence = atomic_load(&s->gen->sequence);
	out->outdated = s->rebuild || (s->gen && !vk_gen_is_of(s->gen, &s->plan)) ||
			((s->state == VK_ANN_FAILED || s->state == VK_ANN_CANCELLED) && !vk_ann_plan_builds_alike(&s->failed_plan, &s->plan));
	if (s->delta) out->pending = s->delta->count;
}

enum vk_status vk_ann_info(struct vk_ann *ann, uint32_t set, struct vk_ann_info *out)
{
	struct vk_gen *gen = NULL;
	pthread_mutex_lock(&ann->lock);
	struct vk_ann_set *s = vk_ann_find(ann, set);
	if (s) {
		describe(s, out);
		gen = vk_gen_ref(s->gen);
	}
	pthread_mutex_unlock(&ann->lock);
	if (gen) {
		gen->ops->about(gen->self, &out->about);
		out->rows = gen->ops->rows(gen->self);
	}
	vk_gen_unref(gen);
	return s ? VK_OK : VK_E_NOT_FOUND;
}

bool vk_ann_busy(struct vk_ann *ann)
{
	bool busy = false;
	pthread_mutex_lock(&ann->lock);
	for (struct vk_ann_set *s = ann->sets; s; s = s->next)
		busy |= s->state == VK_ANN_BUILDING || s->state == VK_ANN_FOLLOWING;
	pthread_mutex_unlock(&ann->lock);
	return busy;
}
