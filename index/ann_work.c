/*
 * The worker: one thread a collection that gives each vector set what it needs next, a step at a time.
 *
 * A set's turn, first thing that there is: leave what the config no longer names; build (none serves, the plan builds differently,
 * too much has changed to follow, or somebody asked); settle what was opened; follow a batch of changes; save; measure recall; scrub
 * the file; repair a step. Where writes never pause, following pays for repair and saves itself. Between turns nothing is remembered
 * but in the set, so a plan may change at any moment.
 *
 * Whatever fails waits for pace.retry_ms and is no work meanwhile, so the worker rests. A build that failed or was cancelled is not
 * tried again before something was written, too, or somebody asks.
 */
#include "index/ann_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "index/collection_internal.h"

#define FEW_ROWS 2000           /* or, of a small index, four times as many as it has */
#define FAR_ROWS 20000          /* changes that are followed one by one, whatever the size */
#define STALE_PART 5            /* an engine that does not grow is built anew when a fifth has changed */
#define STALE_ROWS 1000         /* and that is no trifle */
#define SAVE_ROWS 2000          /* changes that are worth a file, and a tenth of the rows */
#define QUIET_PART 10           /* or any, after pace.save_every_ms and a tenth of it without a change */
#define STEP_ROWS 8             /* changes that pay for one step of repair; at 16 as many are dead as live (bench/graph_stream.c) */
#define MEASURE_EVERY_MS 300000
#define SCRUB_BYTES ((size_t)8 << 20)
#define NICE 10

struct turn {
	struct vk_ann *ann;
	struct vk_ann_set *s;
	struct vk_set set;
	uint64_t rows, sequence; /* of the collection now */
};

/* --- shown --- */

static void show_state(struct vk_ann *ann, struct vk_ann_set *s, enum vk_ann_state state)
{
	pthread_mutex_lock(&ann->lock);
	s->state = state;
	pthread_mutex_unlock(&ann->lock);
}

static void show_checkpoint(struct vk_ann *ann, struct vk_ann_set *s, uint64_t sequence)
{
	pthread_mutex_lock(&ann->lock);
	s->checkpoint = sequence;
	pthread_mutex_unlock(&ann->lock);
}

/* gen NULL: none serves from now on. Takes the references over. */
static void serve(struct vk_ann *ann, struct vk_ann_set *s, struct vk_gen *gen, struct vk_delta *delta)
{
	pthread_mutex_lock(&ann->lock);
	struct vk_gen *old = s->gen;
	struct vk_delta *before = s->delta;
	s->gen = gen;
	s->delta = delta;
	s->curve_n = 0;
	pthread_mutex_unlock(&ann->lock);
	vk_gen_unref(old);
	vk_delta_unref(before);
}

struct extend {
	const struct vk_delta *base;
	uint64_t from;
	struct vk_delta *out;
};

static enum vk_status extend(void *arg, struct vk_view *v)
{
	struct extend *e = arg;
	return vk_delta_extend(v, e->base, e->from, &e->out);
}

/* --- what is there --- */

struct survey {
	struct vk_ann *ann;
	uint64_t least;
};

static enum vk_status survey(void *arg, struct vk_view *v)
{
	struct survey *u = arg;
	for (struct vk_ann_set *s = u->ann->sets; s; s = s->next) s->named = false;
	for (size_t i = 0; i < v->conf->vectors_n; i++) {
		const struct vk_vector_conf *conf = &v->conf->vectors[i];
		struct vk_ann_plan p;
		vk_ann_plan_of(v->conf, conf, &p);
		if (p.engine != VK_ANN_NONE && p.rows_min < u->least) u->least = p.rows_min;
		pthread_mutex_lock(&u->ann->lock);
		struct vk_ann_set *s = vk_ann_add(u->ann, conf->set.id);
		if (s) {
			s->named = true;
			s->plan = p;
		}
		pthread_mutex_unlock(&u->ann->lock);
		if (!s) return VK_E_NOMEM;
	}
	return VK_OK;
}

/* Did that fail, and not long ago? */
static bool too_soon(const struct vk_ann *ann, uint64_t failed_ms)
{
	return failed_ms && vk_mono_ms() - failed_ms < ann->pace.retry_ms;
}

/* What is not wanted goes; true: all that there was. */
static bool tidy(struct vk_ann *ann, struct vk_ann_set *s)
{
	if (too_soon(ann, s->untidy_ms)) return false;
	enum vk_status st = vk_ann_tidy(ann, s);
	if (st && !s->untidy_ms)
		vk_log(VK_LOG_WARN, "%s: what the index of set %u has left cannot be deleted: %s", ann->dir, s->set, vk_status_text(st));
	s->untidy_ms = st ? vk_mono_ms() : 0;
	return !st;
}

/* No index from now on; true: nothing is left of it. */
static bool leave_set(struct vk_ann *ann, struct vk_ann_set *s)
{
	serve(ann, s, NULL, NULL);
	show_checkpoint(ann, s, 0);
	return tidy(ann, s);
}

static void drop_unnamed(struct vk_ann *ann)
{
	for (struct vk_ann_set **at = &ann->sets; *at;) {
		struct vk_ann_set *s = *at;
		if (s->named) {
			at = &s->next;
			continue;
		}
		if (!leave_set(ann, s)) { /* its cursor would hold tombstones */
			at = &s->next;
			continue;
		}
		pthread_mutex_lock(&ann->lock);
		*at = s->next;
		pthread_mutex_unlock(&ann->lock);
		free(s);
	}
}

static enum vk_status look(void *arg, struct vk_view *v)
{
	struct turn *t = arg;
	struct vk_vset_stats stats;
	const struct vk_vector_conf *conf = vk_colconf_set(v->conf, t->s->set);
	if (!conf || conf->sparse) return VK_E_NOT_FOUND;
	t->set = conf->set;
	enum vk_status st = vk_view_sequence(v, &t->sequence);
	if (!st) st = vk_vset_stats(v->t, &t->set, &stats);
	t->rows = st ? 0 : stats.rows;
	return st;
}

static uint64_t indexed_rows(const struct vk_ann_set *s)
{
	return s->gen ? s->gen->ops->rows(s->gen->self) : 0;
}

/* --- saving --- */

static bool wants_save(const struct turn *t, bool asked)
{
	const struct vk_ann_set *s = t->s;
	uint64_t now = vk_mono_ms(), rows = indexed_rows(s);
	if (!s->applied) return false;
	if (asked) return true;
	if (too_soon(t->ann, s->unsaved_ms)) return false;
	if (s->unsaved_ms || !s->has_file) return true;
	if (s->applied >= SAVE_ROWS && s->applied >= rows / 10) return true;
	return now - s->changed_ms >= t->ann->pace.save_every_ms / QUIET_PART && now - s->saved_ms >= t->ann->pace.save_every_ms;
}

/* Who waits for a checkpoint is told. */
static void tell_unsaved(struct vk_ann *ann, enum vk_status st)
{
	pthread_mutex_lock(&ann->lock);
	if (!ann->unsaved) ann->unsaved = st;
	pthread_mutex_unlock(&ann->lock);
}

static void save(struct turn *t)
{
	struct vk_ann_set *s = t->s;
	struct vk_error err = {0};
	uint64_t sequence = atomic_load(&s->gen->sequence);
	const struct vk_gen *g = s->gen;
	enum vk_status st = vk_ann_keep(t->ann, s, &g->plan, g->made, g->self, sequence, false, &err);
	s->saved_ms = vk_mono_ms();
	if (st) {
		if (!s->unsaved_ms)
			vk_log(VK_LOG_WARN, "%s: the index of set %u serves but cannot be saved: %s", t->ann->dir, s->set,
			       err.text[0] ? err.text : vk_status_text(st));
		s->unsaved_ms = s->saved_ms;
		tell_unsaved(t->ann, st);
		return;
	}
	s->applied = 0;
	s->unsaved_ms = 0;
	show_checkpoint(t->ann, s, sequence); /* tidy() raises the cursor */
}

/* --- building --- */

/* A reference: searches put newer ones in its place. */
static struct vk_delta *delta_now(const struct turn *t)
{
	pthread_mutex_lock(&t->ann->lock);
	struct vk_delta *d = vk_delta_ref(t->s->delta);
	pthread_mutex_unlock(&t->ann->lock);
	return d;
}

/* What an engine that does not grow leaves to exact search must be known, or nobody sees that it is too much. */
static void note_changes(struct turn *t)
{
	struct vk_ann_set *s = t->s;
	struct vk_delta *base = s->gen->ops->grows ? NULL : delta_now(t);
	if (!base) return;
	struct extend e = {.base = base};
	if (base->upto < t->sequence && !vk_view_run(t->ann->c, 0, NULL, extend, &e)) {
		vk_ann_offer_delta(t->ann, s->set, s->gen, e.out);
		vk_delta_unref(e.out);
	}
	vk_delta_unref(base);
}

bool vk_ann_is_stale(uint64_t changed, uint64_t rows)
{
	return changed > rows / STALE_PART && changed > STALE_ROWS;
}

static bool too_far(const struct turn *t)
{
	struct vk_delta *delta = delta_now(t);
	uint64_t rows = indexed_rows(t->s), pending = delta ? delta->count : 0;
	vk_delta_unref(delta);
	if (t->s->gen->ops->grows) return (pending > FAR_ROWS && pending > rows / 2) || (pending > FEW_ROWS && pending > 4 * rows);
	return vk_ann_is_stale(pending, rows);
}

/* A rebuild of nothing is done. */
static bool ask_no_more(struct turn *t)
{
	pthread_mutex_lock(&t->ann->lock);
	t->s->rebuild = false;
	pthread_mutex_unlock(&t->ann->lock);
	return false;
}

static bool wants_build(struct turn *t)
{
	struct vk_ann_set *s = t->s;
	struct vk_ann_about about = {0};
	if (!t->rows) return ask_no_more(t);
	if (s->rebuild) return true;
	if (s->failed_ms && vk_ann_plan_builds_alike(&s->failed_plan, &s->plan) &&
	    (t->sequence == s->failed_sequence || too_soon(t->ann, s->failed_ms)))
		return false;
	if (!s->gen) return t->rows >= s->plan.rows_min;
	s->gen->ops->about(s->gen->self, &about);
	note_changes(t);
	if (about.lost) vk_log(VK_LOG_ERROR, "%s: pages of the index of set %u cannot be read, it is built anew", t->ann->dir, s->set);
	return !vk_gen_is_of(s->gen, &s->plan) || too_far(t) || about.wants_rebuild;
}

static void failed(struct turn *t, enum vk_status st, const struct vk_error *err)
{
	struct vk_ann_set *s = t->s;
	s->failed_ms = vk_mono_ms();
	s->failed_sequence = t->sequence;
	pthread_mutex_lock(&t->ann->lock);
	s->state = st == VK_E_CANCELLED ? VK_ANN_CANCELLED : VK_ANN_FAILED;
	s->failed_plan = s->plan;
	snprintf(s->error, sizeof s->error, "%.*s", (int)sizeof s->error - 1,
		 st == VK_E_CANCELLED ? "the build was cancelled" : err->text[0] ? err->text : vk_status_text(st));
	pthread_mutex_unlock(&t->ann->lock);
	if (st != VK_E_CANCELLED) vk_log(VK_LOG_ERROR, "%s: building the index of set %u failed: %s", t->ann->dir, s->set, s->error);
}

static enum vk_status swap_in(struct turn *t, struct vk_gen *gen, struct vk_error *err)
{
	uint64_t sequence = atomic_load(&gen->sequence);
	struct extend e = {.from = sequence};
	enum vk_status st = vk_view_run(t->ann->c, 0, NULL, extend, &e);
	if (st) return vk_fail(err, st, "the changes since the build cannot be read: %s", vk_status_text(st));
	if (gen->ops->settle) gen->ops->settle(gen->self);
	t->s->settled = true;
	serve(t->ann, t->s, vk_gen_ref(gen), e.out);
	t->s->applied = 1; /* it serves whether it can be saved or not */
	t->s->unmended = 0;
	t->s->unfollowed_ms = 0;
	save(t);
	(void)tidy(t->ann, t->s);
	t->s->measured_ms = 0;
	t->s->scrubbed = true; /* it has just been written */
	return VK_OK;
}

/* Who commits a config after this has looked meets a set that is building, and cancels. */
static bool still_asked(const struct turn *t)
{
	struct vk_colconf *conf = vk_collection_config(t->ann->c);
	const struct vk_vector_conf *v = vk_colconf_set(conf, t->s->set);
	struct vk_ann_plan p = {.engine = VK_ANN_NONE};
	if (v && !v->sparse) vk_ann_plan_of(conf, v, &p);
	vk_colconf_unref(conf);
	return vk_ann_plan_builds_alike(&p, &t->s->plan);
}

static void build(struct turn *t)
{
	struct vk_ann_set *s = t->s;
	struct vk_gen *gen = NULL;
	struct vk_error err = {0};
	uint64_t began_ms = vk_mono_ms();
	enum vk_ann_state before = s->state;
	pthread_mutex_lock(&t->ann->lock);
	s->state = VK_ANN_BUILDING;
	s->error[0] = 0;
	s->rebuild = false;
	atomic_store(&s->cancel, atomic_load(&t->ann->stop));
	pthread_mutex_unlock(&t->ann->lock);
	if (!still_asked(t)) { /* the next survey knows more */
		show_state(t->ann, s, before);
		return;
	}
	enum vk_status st = vk_ann_make(t->ann, s, &gen, &err);
	if (!st) st = swap_in(t, gen, &err);
	vk_gen_unref(gen);
	pthread_mutex_lock(&t->ann->lock);
	s->build_ms = vk_mono_ms() - began_ms;
	pthread_mutex_unlock(&t->ann->lock);
	atomic_store(&s->progress.total, 0);
	if (st && !atomic_load(&t->ann->stop)) {
		failed(t, st, &err);
		(void)tidy(t->ann, s);
	} else {
		s->failed_ms = 0;
	}
}

/* --- the file --- */

static bool wants_measure(const struct turn *t)
{
	const struct vk_ann_set *s = t->s;
	if (!s->measured_ms) return true;
	return s->applied_measured > indexed_rows(s) / 10 + 100 && vk_mono_ms() - s->measured_ms > MEASURE_EVERY_MS;
}

static bool wants_scrub(const struct vk_ann_set *s)
{
	return s->has_file && !s->scrubbed && s->gen->ops->scrub;
}

static void scrub(struct turn *t)
{
	struct vk_ann_set *s = t->s;
	char path[VK_ANN_PATH_MAX];
	struct vk_error err = {0};
	vk_ann_path(t->ann, s, &s->file, false, path);
	enum vk_status st = s->gen->ops->scrub(path, SCRUB_BYTES, &s->scrub_at, &err);
	if (st == VK_E_BUSY) return;
	s->scrubbed = true;
	s->scrub_at = 0;
	if (!st || st == VK_E_NOMEM) return;
	vk_log(VK_LOG_ERROR, "%s; the index is built anew, exact search answers meanwhile", err.text[0] ? err.text : path);
	(void)leave_set(t->ann, s);
	show_state(t->ann, s, VK_ANN_IDLE);
}

/* --- a turn --- */

/* No index is wanted. */
static bool leave(struct turn *t)
{
	struct vk_ann_set *s = t->s;
	(void)ask_no_more(t);
	if (!s->gen && !s->has_file && !s->has_part && s->cursor == UINT64_MAX && s->state == VK_ANN_IDLE) return false;
	s->failed_ms = 0;
	bool left = leave_set(t->ann, s);
	show_state(t->ann, s, VK_ANN_IDLE);
	return left;
}

static void unfollowed(struct turn *t, enum vk_status st, bool engine)
{
	struct vk_error err = {0};
	t->s->unfollowed_ms = vk_mono_ms();
	vk_fail(&err, st, "following the changes: %s", vk_status_text(st));
	failed(t, st, &err);
	if (engine) {
		t->s->failed_sequence = 0; /* built anew whether somebody writes or not */
		(void)leave_set(t->ann, t->s);
	} else {
		t->s->failed_ms = 0; /* no build did */
	}
}

/* Writes that never pause leave no other time for it. */
static void mend_along(struct turn *t, size_t n)
{
	struct vk_ann_set *s = t->s;
	s->unmended += n;
	for (; s->unmended >= STEP_ROWS && s->gen->ops->step && !atomic_load(&t->ann->stop); s->unmended -= STEP_ROWS)
		if (s->gen->ops->step(s->gen->self) != VK_E_BUSY) s->unmended = STEP_ROWS;
}

static bool follow(struct turn *t)
{
	struct vk_ann_set *s = t->s;
	size_t n;
	bool engine;
	if (too_soon(t->ann, s->unfollowed_ms)) return false;
	show_state(t->ann, s, VK_ANN_FOLLOWING);
	enum vk_status st = vk_ann_follow(t->ann, s, &t->set, &n, &engine);
	s->applied += n;
	s->applied_measured += n;
	if (n) s->changed_ms = vk_mono_ms();
	if (st) {
		unfollowed(t, st, engine);
		return true;
	}
	s->unfollowed_ms = 0;
	mend_along(t, n);
	if (wants_save(t, false)) save(t);
	return true;
}

static bool take_turn(struct turn *t, bool asked)
{
	struct vk_ann_set *s = t->s;
	enum vk_status st = vk_view_run(t->ann->c, 0, NULL, look, t);
	if (st) {
		if (asked) tell_unsaved(t->ann, st);
		return false;
	}
	if (s->plan.engine == VK_ANN_NONE) return leave(t);
	if (wants_build(t)) {
		build(t);
		return true;
	}
	(void)tidy(t->ann, s);
	if (!s->gen) return false;
	if (!s->settled) {
		if (s->gen->ops->settle) s->gen->ops->settle(s->gen->self);
		s->settled = true;
		return true;
	}
	if (atomic_load(&s->gen->sequence) < t->sequence && s->gen->ops->grows) return follow(t);
	show_state(t->ann, s, VK_ANN_READY);
	if (wants_save(t, asked)) {
		save(t);
		return true;
	}
	if (wants_measure(t)) {
		vk_ann_measure(t->ann, s, &t->set, t->sequence);
		s->measured_ms = vk_mono_ms();
		s->applied_measured = 0;
		return true;
	}
	if (wants_scrub(s)) {
		scrub(t);
		return true;
	}
	return s->gen->ops->step && s->gen->ops->step(s->gen->self) == VK_E_BUSY;
}

/* True when there was something to do. */
static bool work(struct vk_ann *ann, bool asked)
{
	struct survey u = {ann, UINT64_MAX};
	bool did = false, kept = false;
	enum vk_status st = vk_view_run(ann->c, 0, NULL, survey, &u);
	if (st) {
		if (asked) tell_unsaved(ann, st);
		return false;
	}
	drop_unnamed(ann);
	for (struct vk_ann_set *s = ann->sets; s && !atomic_load(&ann->stop); s = s->next) {
		struct turn t = {.ann = ann, .s = s};
		did |= take_turn(&t, asked);
		kept |= s->gen != NULL;
	}
	atomic_store(&ann->rows_least, kept ? 0 : u.least);
	return did;
}

static void rest(struct vk_ann *ann)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ann->pace.poll_ms / 1000;
	t.tv_nsec += (long)(ann->pace.poll_ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
	pthread_mutex_lock(&ann->lock);
	while (!ann->poked && !atomic_load(&ann->stop))
		if (pthread_cond_timedwait(&ann->changed, &ann->lock, &t) == ETIMEDOUT) break;
	pthread_mutex_unlock(&ann->lock);
}

void *vk_ann_worker(void *arg)
{
	struct vk_ann *ann = arg;
	vk_view_thread_of(ann->c);
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	while (!atomic_load(&ann->stop)) {
		pthread_mutex_lock(&ann->lock);
		bool due = ann->checkpoint, asked = due && !ann->unsaved; /* what is asked for and fails is told, not tried again */
		ann->poked = false;
		pthread_mutex_unlock(&ann->lock);
		bool did = work(ann, asked);
		pthread_mutex_lock(&ann->lock);
		ann->idle = !did && !ann->poked;
		if (ann->idle && due) ann->checkpoint = false;
		pthread_cond_broadcast(&ann->changed);
		bool sleep = ann->idle;
		pthread_mutex_unlock(&ann->lock);
		if (sleep) rest(ann);
	}
	return NULL;
}
