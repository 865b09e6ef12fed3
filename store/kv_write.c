/*
 * Writing: the queues, the writer threads, group commit, what a failure means.
 *
 * Threads. Environments with work stand in one ready list; a thread takes the first, gives it one turn
 * (a group of foreground jobs, or one step of a background job) and puts it back at the end while there
 * is more. So an environment is on one thread at a time, and none waits longer than one turn of each
 * other. A thread an environment would be simpler, and 10,000 of them on a host of small tenants.
 *
 * Grouping has no timer: what queues while a commit runs goes with the next one. A lone writer pays one
 * flush a write, many share it.
 *
 * Background steps run when no foreground job waits, or after PASSED_OVER_MAX groups: under writes that
 * never pause, the tail that sealing should shorten would else grow without bound.
 *
 * Failures. A group that cannot commit as a whole is aborted and its jobs run singly, in order, so that
 * only who is at fault fails. Map full: the map grows, then the same again. The disk is asked for room
 * before each commit (vk_env_reserve), since LMDB cannot tell a full disk from a broken one. A commit that
 * fails otherwise leaves unknown what the disk holds, and asking again lies (the kernel may have dropped
 * the pages): no writes until the environment is opened anew.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/kv_internal.h"

#define WRITERS_MAX 64
#define PASSED_OVER_MAX 64
#define FULL_RETRY_MS 2000
#define READER_CHECK_MS 60000

struct vk_kv_writers {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct vk_kv *first, **end; /* ready */
	bool stop;
	unsigned threads_n;
	pthread_t threads[WRITERS_MAX];
};

struct batch {
	struct vk_kv_job *job[VK_KV_GROUP_JOBS];
	enum vk_status st[VK_KV_GROUP_JOBS];
	unsigned n;
	bool background;
};

/* Queues; all under writers->lock */

static void queue_init(struct vk_kv_queue *q)
{
	q->first = NULL;
	q->end = &q->first;
}

static void queue_append(struct vk_kv_queue *q, struct vk_kv_job *job)
{
	job->next = NULL;
	*q->end = job;
	q->end = &job->next;
}

static void queue_put_back(struct vk_kv_queue *q, struct vk_kv_job *job)
{
	job->next = q->first;
	if (!q->first) q->end = &job->next;
	q->first = job;
}

static struct vk_kv_job *queue_take(struct vk_kv *kv, struct vk_kv_queue *q)
{
	struct vk_kv_job *job = q->first;
	q->first = job->next;
	if (!q->first) q->end = &q->first;
	kv->queued--;
	kv->queued_bytes -= job->bytes;
	return job;
}

void vk_kv_queues_init(struct vk_kv *kv)
{
	queue_init(&kv->foreground);
	queue_init(&kv->background);
}

/* Into the ready list, if there is work and nobody has it. */
static void make_ready(struct vk_kv *kv)
{
	struct vk_kv_writers *w = kv->writers;
	if (kv->ready || kv->on_thread || !kv->queued) return;
	kv->ready = true;
	kv->next_ready = NULL;
	*w->end = kv;
	w->end = &kv->next_ready;
	pthread_cond_signal(&w->work);
}

static struct vk_kv *take_ready(struct vk_kv_writers *w)
{
	struct vk_kv *kv = w->first;
	w->first = kv->next_ready;
	if (!w->first) w->end = &w->first;
	kv->ready = false;
	kv->on_thread = true;
	return kv;
}

/* Submitting */

static enum vk_status refuse(struct vk_kv *kv, const struct vk_kv_job *job)
{
	if (!kv->writers) return VK_E_INVALID;
	if (job->bytes > VK_KV_QUEUE_BYTES) return VK_E_TOO_LARGE;
	if (atomic_load(&kv->broken)) return VK_E_IO;
	if (atomic_load(&kv->full) && vk_mono_ms() < atomic_load(&kv->retry_at_ms)) return VK_E_NO_SPACE;
	return VK_OK;
}

enum vk_status vk_kv_submit(struct vk_kv *kv, struct vk_kv_job *job)
{
	enum vk_status st = refuse(kv, job);
	if (st) return st;
	pthread_mutex_lock(&kv->writers->lock);
	if (kv->closing) {
		st = VK_E_UNAVAILABLE;
	} else if (kv->queued >= VK_KV_QUEUE_MAX || kv->queued_bytes + job->bytes > VK_KV_QUEUE_BYTES) {
		st = VK_E_BUSY;
	} else {
		kv->queued++;
		kv->queued_bytes += job->bytes;
		if (!job->background) kv->submitted++;
		queue_append(job->background ? &kv->background : &kv->foreground, job);
		make_ready(kv);
	}
	pthread_mutex_unlock(&kv->writers->lock);
	return st;
}

struct run {
	struct vk_kv_job job, *asked;
	struct vk_kv *kv;
	enum vk_status st;
	bool ended;
};

static enum vk_status run_apply(void *arg, struct vk_kv_txn *t)
{
	struct run *r = arg;
	return r->asked->apply(r->asked->arg, t);
}

static void run_committed(void *arg)
{
	struct run *r = arg;
	if (r->asked->committed) r->asked->committed(r->asked->arg);
}

static void run_done(void *arg, enum vk_status st)
{
	struct run *r = arg;
	if (r->asked->done) r->asked->done(r->asked->arg, st);
	pthread_mutex_lock(&r->kv->writers->lock);
	r->st = st;
	r->ended = true;
	pthread_cond_broadcast(&r->kv->changed);
	pthread_mutex_unlock(&r->kv->writers->lock);
}

enum vk_status vk_kv_run(struct vk_kv *kv, struct vk_kv_job *job)
{
	struct run r = {.asked = job, .kv = kv};
	r.job = (struct vk_kv_job){.apply = run_apply,
				   .committed = run_committed,
				   .done = run_done,
				   .arg = &r,
				   .bytes = job->bytes,
				   .background = job->background};
	enum vk_status st = vk_kv_submit(kv, &r.job);
	if (st) return st;
	pthread_mutex_lock(&kv->writers->lock);
	while (!r.ended) pthread_cond_wait(&kv->changed, &kv->writers->lock);
	pthread_mutex_unlock(&kv->writers->lock);
	return r.st;
}

void vk_kv_drain(struct vk_kv *kv)
{
	if (!kv->writers) return;
	pthread_mutex_lock(&kv->writers->lock);
	uint64_t until = kv->submitted;
	while (kv->ended < until) pthread_cond_wait(&kv->changed, &kv->writers->lock);
	pthread_mutex_unlock(&kv->writers->lock);
}

void vk_kv_queues_end(struct vk_kv *kv)
{
	pthread_mutex_lock(&kv->writers->lock);
	kv->closing = true;
	while (kv->queued || kv->on_thread || kv->ready)
		pthread_cond_wait(&kv->changed, &kv->writers->lock);
	pthread_mutex_unlock(&kv->writers->lock);
}

uint64_t vk_kv_queued(struct vk_kv *kv)
{
	if (!kv->writers) return 0;
	pthread_mutex_lock(&kv->writers->lock);
	uint64_t n = kv->queued;
	pthread_mutex_unlock(&kv->writers->lock);
	return n;
}

/* What a failure means */

static void set_full(struct vk_kv *kv)
{
	if (!atomic_exchange(&kv->full, true))
		vk_log(VK_LOG_WARN, "%s: the disk is full, writes are refused until there is room", kv->env->path);
	atomic_store(&kv->retry_at_ms, vk_mono_ms() + FULL_RETRY_MS);
}

static void clear_full(struct vk_kv *kv)
{
	if (atomic_load_explicit(&kv->full, memory_order_relaxed) && atomic_exchange(&kv->full, false))
		vk_log(VK_LOG_INFO, "%s: there is room again", kv->env->path);
}

static void set_broken(struct vk_kv *kv, const char *why)
{
	if (!atomic_exchange(&kv->broken, true))
		vk_log(VK_LOG_ERROR, "%s: write failed (%s), no more of them until it is opened anew", kv->env->path, why);
}

/* Of a begin or a commit that failed. */
static enum vk_status judge(struct vk_kv *kv, int rc)
{
	enum vk_status st = vk_env_status(rc);
	if (st == VK_E_NOMEM || st == VK_E_BUSY) return st;
	if (st == VK_E_NO_SPACE) {
		if (rc != MDB_MAP_FULL && rc != MDB_TXN_FULL) set_full(kv);
	} else {
		set_broken(kv, mdb_strerror(rc));
	}
	vk_kv_rescue_readers(kv);
	return st == VK_E_NO_SPACE ? st : VK_E_IO;
}

/* One transaction */

struct attempt {
	enum vk_status st; /* VK_OK: committed, the batch says who was refused. Else nothing is. */
	bool map_full;
};

static enum vk_status apply_all(struct vk_kv_txn *t, struct batch *b, unsigned from, unsigned n)
{
	for (unsigned i = from; i < from + n; i++) {
		struct vk_kv_job *job = b->job[i];
		t->puts = 0;
		b->st[i] = job->apply(job->arg, t);
		vk_kv_txn_close_cursors(t);
		if (t->put_rc) return vk_env_status(t->put_rc);
		bool again = job->background && b->st[i] == VK_E_BUSY;
		if (b->st[i] && !again && t->puts) return b->st[i];
	}
	return VK_OK;
}

static bool has_changes(const struct vk_kv_txn *t)
{
	for (unsigned i = 0; i < t->kv->env->opts.tables_n; i++)
		if (t->touched[i]) return true;
	return false;
}

static struct attempt attempt(struct vk_kv *kv, struct batch *b, unsigned from, unsigned n)
{
	struct vk_kv_txn t = {.kv = kv};
	struct attempt a = {VK_E_IO, false};
	if (atomic_load(&kv->broken) || !kv->env->mdb) return a;
	if (vk_env_is_cut(kv->env)) { /* not judge(): a reader of this thread would fault */
		set_broken(kv, "the file is shorter than it was");
		return a;
	}
	int rc = mdb_txn_begin(kv->env->mdb, NULL, 0, &t.mdb);
	if (rc) {
		a.st = judge(kv, rc);
		return a;
	}
	a.st = apply_all(&t, b, from, n);
	a.map_full = t.put_rc == MDB_MAP_FULL;
	if (!a.st && has_changes(&t)) {
		a.st = vk_env_reserve(kv->env, vk_kv_txn_need(&t));
		if (a.st == VK_E_NO_SPACE) set_full(kv);
	}
	if (a.st || !has_changes(&t)) {
		mdb_txn_abort(t.mdb);
		return a;
	}
	rc = mdb_txn_commit(t.mdb);
	a.map_full = rc == MDB_MAP_FULL; /* the free list needs pages, too */
	if (rc) {
		a.st = a.map_full ? VK_E_NO_SPACE : judge(kv, rc);
		return a;
	}
	atomic_fetch_add(&kv->commits, 1);
	clear_full(kv);
	return a;
}

/* The same with as much map as it takes. */
static enum vk_status attempt_growing(struct vk_kv *kv, struct batch *b, unsigned from, unsigned n)
{
	struct attempt a = attempt(kv, b, from, n);
	while (a.st && a.map_full) {
		enum vk_status st = vk_env_grow(kv->env);
		if (st) return st;
		a = attempt(kv, b, from, n);
	}
	return a.st;
}

/* Turns */

/* Jobs that have had their turn: tells them, and then drain(). */
static void finish(struct vk_kv *kv, struct batch *b, unsigned from, unsigned n)
{
	unsigned foreground = 0;
	for (unsigned i = from; i < from + n; i++) {
		struct vk_kv_job *job = b->job[i];
		if (!b->st[i] && job->committed) job->committed(job->arg);
	}
	for (unsigned i = from; i < from + n; i++) {
		struct vk_kv_job *job = b->job[i];
		foreground += !job->background;
		if (job->done) job->done(job->arg, b->st[i]); /* job may be gone now */
	}
	atomic_fetch_add(&kv->jobs, n);
	pthread_mutex_lock(&kv->writers->lock);
	kv->ended += foreground;
	pthread_cond_broadcast(&kv->changed);
	pthread_mutex_unlock(&kv->writers->lock);
}

static void run_group(struct vk_kv *kv, struct batch *b)
{
	enum vk_status st = attempt_growing(kv, b, 0, b->n);
	if (!st) {
		if (b->n > atomic_load(&kv->grouped_max)) atomic_store(&kv->grouped_max, b->n);
		finish(kv, b, 0, b->n);
		return;
	}
	if (b->n > 1) atomic_fetch_add(&kv->aborted_groups, 1);
	for (unsigned i = 0; i < b->n; i++) {
		if (b->n > 1) st = attempt_growing(kv, b, i, 1);
		if (st) b->st[i] = st;
		finish(kv, b, i, 1);
	}
}

/* One step; the job stands first in its queue again when it wants more. */
static void run_step(struct vk_kv *kv, struct batch *b)
{
	struct vk_kv_job *job = b->job[0];
	enum vk_status st = attempt_growing(kv, b, 0, 1);
	if (st) b->st[0] = st;
	bool again = !st && b->st[0] == VK_E_BUSY;
	pthread_mutex_lock(&kv->writers->lock);
	if (again && kv->closing) b->st[0] = VK_E_UNAVAILABLE;
	again = again && !kv->closing;
	if (again) {
		queue_put_back(&kv->background, job);
		kv->queued++;
		kv->queued_bytes += job->bytes;
	}
	pthread_mutex_unlock(&kv->writers->lock);
	if (!again) finish(kv, b, 0, 1);
}

/* Under writers->lock. */
static void take_batch(struct vk_kv *kv, struct batch *b)
{
	size_t bytes = 0;
	bool starved = kv->background.first && kv->passed_over >= PASSED_OVER_MAX;
	b->n = 0;
	b->background = !kv->foreground.first || (starved && !kv->closing);
	kv->passed_over = b->background || !kv->background.first ? 0 : kv->passed_over + 1;
	if (b->background) {
		b->job[b->n++] = queue_take(kv, &kv->background);
		return;
	}
	while (kv->foreground.first && b->n < VK_KV_GROUP_JOBS) {
		size_t more = kv->foreground.first->bytes;
		if (b->n && bytes + more > VK_KV_GROUP_BYTES) break;
		bytes += more;
		b->job[b->n++] = queue_take(kv, &kv->foreground);
	}
}

static void keep_house(struct vk_kv *kv)
{
	uint64_t now_ms = vk_mono_ms();
	if (atomic_load(&kv->broken) || now_ms < kv->reader_check_at_ms) return;
	kv->reader_check_at_ms = now_ms + READER_CHECK_MS;
	vk_env_reader_check(kv->env);
}

static void take_turn(struct vk_kv *kv, struct batch *b, bool closing)
{
	if (!b->background) {
		run_group(kv, b);
	} else if (closing) {
		b->st[0] = VK_E_UNAVAILABLE;
		finish(kv, b, 0, 1);
	} else {
		run_step(kv, b);
	}
	keep_house(kv);
}

static void *write_loop(void *arg)
{
	struct vk_kv_writers *w = arg;
	struct batch b;
	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->first && !w->stop) pthread_cond_wait(&w->work, &w->lock);
		if (!w->first) break;
		struct vk_kv *kv = take_ready(w);
		bool closing = kv->closing;
		take_batch(kv, &b);
		pthread_mutex_unlock(&w->lock);
		take_turn(kv, &b, closing);
		pthread_mutex_lock(&w->lock);
		kv->on_thread = false;
		make_ready(kv);
		/* The last touch of kv: whoever closes it may go on once the lock is free. */
		pthread_cond_broadcast(&kv->changed);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* Start and stop */

enum vk_status vk_kv_writers_new(unsigned threads, struct vk_kv_writers **out)
{
	*out = NULL;
	if (threads == 0 || threads > WRITERS_MAX) return VK_E_INVALID;
	struct vk_kv_writers *w = calloc(1, sizeof *w);
	if (!w) return VK_E_NOMEM;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->work, NULL);
	w->end = &w->first;
	while (w->threads_n < threads && pthread_create(&w->threads[w->threads_n], NULL, write_loop, w) == 0)
		w->threads_n++;
	if (w->threads_n == 0) {
		vk_kv_writers_free(w);
		return VK_E_NOMEM;
	}
	*out = w;
	return VK_OK;
}

void vk_kv_writers_free(struct vk_kv_writers *w)
{
	if (!w) return;
	pthread_mutex_lock(&w->lock);
	assert(!w->first);
	w->stop = true;
	pthread_cond_broadcast(&w->work);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->threads_n; i++) pthread_join(w->threads[i], NULL);
	pthread_cond_destroy(&w->work);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
