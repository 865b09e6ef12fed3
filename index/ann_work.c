/*
 * The worker: one thread a collection that gives each vector set what it needs next, a step at a time.
 *
 * A set's turn, first thing that there is: leave what the config no longer names; build (none serves, the plan builds differently,
 * too much has changed to follow, or somebody asked); follow a batch of changes; repair a step; save; measure recall; scrub the file.
 * Between turns nothing is remembered but in the set, so a plan may change at any moment.
 *
 * Following takes a batch of changes and copies their rows in one short view, then puts them in without a view: a put is half a
 * millisecond. A slot that changes again meanwhile has a new entry in the change table and comes again.
 *
 * A build that failed or was cancelled is not tried again before something was written or somebody asks, and not within RETRY_MS.
 */
#include "index/ann_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "index/collection_internal.h"

#define BATCH_ROWS 256
#define BATCH_BYTES ((size_t)4 << 20)
#define FAR_ROWS 20000          /* changes that are followed one by one, whatever the size */
#define STALE_PART 5            /* an engine that does not grow is built anew when a fifth has changed */
#define SAVE_ROWS 2000          /* changes that are worth a file, and a tenth of the rows */
#define SAVE_QUIET_MS 30000     /* or any, after so long without a change */
#define SAVE_EVERY_MS 300000
#define RETRY_MS 30000
#define MEASURE_EVERY_MS 300000
#define PROBES 100              /* sampled rows that are searched for */
#define PROBE_K 10
#define SCRUB_BYTES ((size_t)8 << 20)
#define NICE 10

struct turn {
	struct vk_ann *ann;
	struct vk_ann_set *s;
	struct vk_set set;
	uint64_t rows, sequence; /* of the collection now */
	bool said;               /* something was done */
};

/* --- shown --- */

static void show_state(struct vk_ann *ann, struct vk_ann_set *s, enum vk_ann_state state)
{
	pthread_mutex_lock(&ann->lock);
	s->state = state;
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
	s->recall = -1;
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

static void leave_set(struct vk_ann *ann, struct vk_ann_set *s)
{
	serve(ann, s, NULL, NULL);
	enum vk_status st = vk_ann_forget(ann, s, false);
	if (!st) st = vk_ann_forget(ann, s, true);
	if (!st) st = vk_ann_cursor(ann, s, UINT64_MAX);
	s->checkpoint = 0;
	s->failed_ms = 0;
	show_state(ann, s, VK_ANN_IDLE);
}

static void drop_unnamed(struct vk_ann *ann)
{
	for (struct vk_ann_set **at = &ann->sets; *at;) {
		struct vk_ann_set *s = *at;
		if (s->named) {
			at = &s->next;
			continue;
		}
		leave_set(ann, s);
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

/* --- building --- */

static uint64_t indexed_rows(const struct vk_ann_set *s)
{
	return s->gen ? s->gen->ops->rows(s->gen->self) : 0;
}

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

static bool too_far(const struct turn *t)
{
	struct vk_delta *delta = delta_now(t);
	uint64_t rows = indexed_rows(t->s), pending = delta ? delta->count : 0;
	vk_delta_unref(delta);
	if (t->s->gen->ops->grows) return pending > FAR_ROWS && pending > rows / 2;
	return pending > rows / STALE_PART && pending > 1000;
}

static bool wants_build(struct turn *t)
{
	struct vk_ann_set *s = t->s;
	struct vk_ann_about about = {0};
	if (s->plan.engine == VK_ANN_NONE || !t->rows) return false;
	if (s->rebuild) return true;
	if (s->failed_ms && vk_ann_plan_builds_alike(&s->failed_plan, &s->plan) && (t->sequence == s->failed_sequence || vk_mono_ms() - s->failed_ms < RETRY_MS)) return false;
	if (!s->gen) return t->rows >= s->plan.rows_min;
	s->gen->ops->about(s->gen->self, &about);
	note_changes(t);
	return !vk_ann_plan_builds_alike(&s->gen->plan, &s->plan) || too_far(t) || about.wants_rebuild;
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
	serve(t->ann, t->s, vk_gen_ref(gen), e.out);
	st = vk_ann_keep(t->ann, t->s, gen->ops, gen->plan.engine, gen->self, sequence, false, err);
	if (!st) st = vk_ann_forget(t->ann, t->s, true);
	if (!st) st = vk_ann_cursor(t->ann, t->s, UINT64_MAX);
	if (st) { /* it serves all the same; the next save tries again */
		vk_log(VK_LOG_WARN, "%s: the index of set %u serves but is not saved: %s", t->ann->dir, t->s->set, err->text);
		t->s->applied = SAVE_ROWS;
	} else {
		t->s->applied = 0;
		t->s->checkpoint = sequence;
	}
	t->s->saved_ms = vk_mono_ms();
	t->s->measured_ms = 0;
	t->s->scrubbed = true; /* it has just been written */
	return VK_OK;
}

static void build(struct turn *t)
{
	struct vk_ann_set *s = t->s;
	struct vk_gen *gen = NULL;
	struct vk_error err = {0};
	uint64_t began_ms = vk_mono_ms();
	pthread_mutex_lock(&t->ann->lock);
	s->state = VK_ANN_BUILDING;
	s->error[0] = 0;
	s->rebuild = false;
	atomic_store(&s->cancel, atomic_load(&t->ann->stop));
	pthread_mutex_unlock(&t->ann->lock);
	enum vk_status st = vk_ann_make(t->ann, s, &gen, &err);
	if (!st) st = swap_in(t, gen, &err);
	vk_gen_unref(gen);
	s->build_ms = vk_mono_ms() - began_ms;
	atomic_store(&s->progress.total, 0);
	if (st && !atomic_load(&t->ann->stop)) {
		failed(t, st, &err);
		(void)vk_ann_forget(t->ann, s, true);
		(void)vk_ann_cursor(t->ann, s, UINT64_MAX);
	} else {
		s->failed_ms = 0;
	}
}

/* --- following --- */

struct batch {
	struct turn *t;
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

/* The delta without what was put in, but with what has changed since the batch's view. */
static enum vk_status trim(void *arg, struct vk_view *v)
{
	struct batch *b = arg;
	struct vk_ann *ann = b->t->ann;
	struct vk_ann_set *s = b->t->s;
	struct vk_delta *base = calloc(1, sizeof *base), *now = NULL, *old;
	if (!base) return VK_E_NOMEM;
	atomic_init(&base->refs, 1);
	base->from = b->upto;
	base->upto = b->seen;
	pthread_mutex_lock(&ann->lock);
	old = vk_delta_ref(s->delta);
	pthread_mutex_unlock(&ann->lock);
	base->slots = vk_bitmap_copy(old->slots);
	for (size_t i = 0; base->slots && i < b->n; i++) vk_bitmap_remove(base->slots, b->slot[i]);
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

static enum vk_status follow(struct turn *t)
{
	struct vk_gen *g = t->s->gen;
	struct batch b = {.t = t, .set = t->set, .from = atomic_load(&g->sequence)};
	b.max = BATCH_BYTES / (t->set.dims * sizeof(float));
	if (b.max > BATCH_ROWS) b.max = BATCH_ROWS;
	if (!b.max) b.max = 1;
	if (!(b.row = malloc(b.max * t->set.dims * sizeof *b.row))) return VK_E_NOMEM;
	show_state(t->ann, t->s, VK_ANN_FOLLOWING);
	enum vk_status st = vk_view_run(t->ann->c, 0, NULL, take_batch, &b);
	if (!st) st = put_in(&b, g);
	if (!st) {
		atomic_store(&g->sequence, b.upto);
		st = vk_view_run(t->ann->c, 0, NULL, trim, &b);
		t->s->applied += b.n;
		t->s->applied_measured += b.n;
		if (b.n) t->s->changed_ms = vk_mono_ms();
	}
	free(b.row);
	return st;
}

/* --- saving --- */

static bool wants_save(const struct turn *t, bool asked)
{
	const struct vk_ann_set *s = t->s;
	uint64_t now = vk_mono_ms(), rows = indexed_rows(s);
	if (!s->applied) return false;
	if (asked || !s->has_file) return true;
	if (s->applied >= SAVE_ROWS && s->applied >= rows / 10) return true;
	return now - s->changed_ms >= SAVE_QUIET_MS && now - s->saved_ms >= SAVE_EVERY_MS;
}

static void save(struct turn *t)
{
	struct vk_ann_set *s = t->s;
	struct vk_error err = {0};
	uint64_t sequence = atomic_load(&s->gen->sequence);
	enum vk_status st = vk_ann_keep(t->ann, s, s->gen->ops, s->gen->plan.engine, s->gen->self, sequence, false, &err);
	if (!st) st = vk_ann_cursor(t->ann, s, UINT64_MAX);
	if (st) vk_log(VK_LOG_WARN, "%s: the index of set %u cannot be saved: %s", t->ann->dir, s->set, err.text);
	else s->checkpoint = sequence, s->applied = 0;
	s->saved_ms = vk_mono_ms();
}

/* --- measuring --- */

struct probe {
	struct turn *t;
	struct vk_arena arena;
	struct vk_ann_point curve[VK_ANN_POINTS_MAX];
	size_t curve_n;
	uint32_t queries;
};

static size_t alike(const struct vk_exact_query *truth, const struct vk_exact_query *got)
{
	size_t n = 0;
	if (!truth->hits) return 0;
	float least = truth->hit[truth->hits - 1].rank;
	for (size_t i = 0; i < got->hits; i++) n += got->hit[i].rank >= least;
	return n < truth->hits ? n : truth->hits;
}

/* Sampled rows, a little moved, so that none is just found again as itself. */
static size_t sample(struct probe *p, struct vk_view *v, struct vk_exact_query *q)
{
	const struct vk_set *set = &p->t->set;
	uint64_t rng = p->t->sequence, next_slot;
	struct vk_rec_state state;
	size_t n = 0;
	if (vk_state_get(v->t, &state) || !(next_slot = state.next_slot)) return 0;
	for (unsigned tries = 0; n < PROBES && tries < 20 * PROBES; tries++) {
		struct vk_row row;
		uint32_t slot = (uint32_t)(vk_rng(&rng) % next_slot);
		if (vk_vset_row(v->t, set, slot, &row)) continue;
		float *vec = vk_arena_alloc(&p->arena, set->dims * sizeof *vec);
		if (!vec) return n;
		vk_row_f32(set, &row, set->metric == VK_METRIC_COSINE, vec);
		double norm = 0;
		for (uint32_t i = 0; i < set->dims; i++) norm += (double)vec[i] * vec[i];
		float step = (float)(0.2 * __builtin_sqrt(norm / set->dims));
		for (uint32_t i = 0; i < set->dims; i++)
			vec[i] += step * ((float)(vk_rng(&rng) >> 40) / (float)(1 << 23) - 1);
		q[n++] = (struct vk_exact_query){.vector = vec, .limit = PROBE_K, .floor = -INFINITY};
	}
	return n;
}

static enum vk_status probe(void *arg, struct vk_view *v)
{
	struct probe *p = arg;
	struct vk_exact_query *truth = vk_arena_calloc(&p->arena, PROBES, sizeof *truth);
	struct vk_exact_query *got = vk_arena_calloc(&p->arena, PROBES, sizeof *got);
	struct vk_exact_opts o = {.level = vk_cpu_best(), .stop = &p->t->ann->stop};
	struct vk_error err;
	struct vk_arena scratch;
	if (!truth || !got) return VK_E_NOMEM;
	size_t n = sample(p, v, truth), wanted = 0;
	if (!n) return VK_OK;
	enum vk_status st = vk_exact_search(v, &p->t->set, truth, n, &o, &p->arena, NULL, &err);
	for (size_t i = 0; i < n; i++) wanted += truth[i].hits;
	bool one = !p->t->s->gen->ops->calibrates;
	for (size_t d = 0; !st && d < VK_ANN_POINTS_MAX && !atomic_load(&p->t->ann->stop); d++) {
		size_t good = 0;
		vk_arena_init(&scratch, p->arena.max);
		memcpy(got, truth, n * sizeof *got);
		st = vk_ann_probe(v, &p->t->set, p->t->s->gen, got, n, one ? 0 : vk_ann_dials[d], &scratch);
		for (size_t i = 0; !st && i < n; i++) good += alike(&truth[i], &got[i]);
		vk_arena_free(&scratch);
		if (st) break;
		float recall = wanted ? (float)good / (float)wanted : 1;
		p->curve[p->curve_n++] = (struct vk_ann_point){vk_ann_dials[d], recall};
		if (one || recall >= 0.999f) break;
	}
	p->queries = (uint32_t)n;
	return st;
}

static bool wants_measure(const struct turn *t)
{
	const struct vk_ann_set *s = t->s;
	if (!s->measured_ms) return true;
	return s->applied_measured > indexed_rows(s) / 10 + 100 && vk_mono_ms() - s->measured_ms > MEASURE_EVERY_MS;
}

static void measure(struct turn *t)
{
	struct vk_ann_set *s = t->s;
	struct probe p = {.t = t};
	vk_arena_init(&p.arena, (size_t)1 << 30);
	enum vk_status st = vk_view_run(t->ann->c, 0, &t->ann->stop, probe, &p);
	vk_arena_free(&p.arena);
	s->measured_ms = vk_mono_ms();
	s->applied_measured = 0;
	if (st || !p.queries) return;
	pthread_mutex_lock(&t->ann->lock);
	memcpy(s->curve, p.curve, sizeof s->curve);
	s->curve_n = p.curve_n;
	s->recall_queries = p.queries;
	s->recall_at_ms = vk_wall_ms();
	uint32_t ef = vk_ann_auto(s->curve, s->curve_n, s->plan.recall);
	for (size_t i = 0; i < s->curve_n; i++)
		if (s->curve[i].ef == ef) s->recall = s->curve[i].recall;
	pthread_mutex_unlock(&t->ann->lock);
}

/* --- the file --- */

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
	if (!st) return;
	vk_log(VK_LOG_ERROR, "%s; the index is built anew, exact search answers meanwhile", err.text[0] ? err.text : path);
	leave_set(t->ann, s);
}

/* --- a turn --- */

static bool take_turn(struct turn *t, bool asked)
{
	struct vk_ann_set *s = t->s;
	enum vk_status st = vk_view_run(t->ann->c, 0, NULL, look, t);
	if (st) return false;
	if (s->plan.engine == VK_ANN_NONE && (s->gen || s->has_file || s->has_part || s->state != VK_ANN_IDLE)) {
		leave_set(t->ann, s);
		return true;
	}
	if (wants_build(t)) {
		build(t);
		return true;
	}
	if (!s->gen) return false;
	bool behind = atomic_load(&s->gen->sequence) < t->sequence;
	if (behind && s->gen->ops->grows) {
		st = follow(t);
		if (st) {
			struct vk_error err = {0};
			vk_fail(&err, st, "following the changes: %s", vk_status_text(st));
			failed(t, st, &err);
			leave_set(t->ann, s);
		}
		return true;
	}
	show_state(t->ann, s, VK_ANN_READY);
	if (wants_save(t, asked)) {
		save(t);
		return true;
	}
	if (wants_measure(t)) {
		measure(t);
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
	if (vk_view_run(ann->c, 0, NULL, survey, &u)) return false;
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
	t.tv_sec += ann->poll_ms / 1000;
	t.tv_nsec += (long)(ann->poll_ms % 1000) * 1000000;
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
		bool asked = ann->checkpoint;
		ann->poked = false;
		pthread_mutex_unlock(&ann->lock);
		bool did = work(ann, asked);
		pthread_mutex_lock(&ann->lock);
		if (!did && !ann->poked) ann->idle = true;
		if (!did && asked) ann->checkpoint = false;
		pthread_cond_broadcast(&ann->changed);
		bool sleep = ann->idle;
		pthread_mutex_unlock(&ann->lock);
		if (sleep) rest(ann);
	}
	return NULL;
}
