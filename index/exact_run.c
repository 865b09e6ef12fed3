/*
 * A run: memory, workers, units, the shared floors, and the merge. The paths' own files say what is done with a chunk.
 *
 * Where the rows are a file's, reading them may fault. Each worker is guarded for itself, whichever thread it is on, and so is the
 * order of ids, since that is asked for under a lock that must be let go: the run then ends with VK_E_IO.
 */
#include "index/exact_run.h"

#include <math.h>

#include "base/clock.h"
#include "store/guard.h"

#define UNIT_BYTES ((size_t)1 << 20)

bool vk_exact_stopped(const struct vk_exact_job *job)
{
	if (atomic_load_explicit(&job->failed, memory_order_relaxed)) return true;
	if (job->opts->stop && atomic_load_explicit(job->opts->stop, memory_order_relaxed)) return true;
	return job->src->until_ms && vk_mono_ms() > job->src->until_ms;
}

static enum vk_status guarded(struct vk_exact_job *job, enum vk_status (*fn)(void *arg), void *arg)
{
	enum vk_status st = job->src->kv ? vk_guard_run(job->src->kv, fn, arg) : fn(arg);
	if (st) atomic_store(&job->failed, true);
	return st;
}

void vk_exact_share(struct vk_running *r, struct vk_topk *t, float also)
{
	vk_topk_raise(t, also);
	float seen = atomic_load_explicit(&r->floor, memory_order_relaxed);
	while (t->floor > seen && !atomic_compare_exchange_weak_explicit(&r->floor, &seen, t->floor, memory_order_relaxed,
									 memory_order_relaxed))
		;
	vk_topk_raise(t, seen);
}

struct tie {
	const struct vk_exact_source *src;
	uint32_t a, b;
	int order;
};

static enum vk_status ask_tie(void *arg)
{
	struct tie *t = arg;
	t->order = t->src->tie(t->src->tie_arg, t->a, t->b);
	return VK_OK;
}

int vk_exact_tie(void *arg, uint32_t a, uint32_t b)
{
	struct vk_exact_job *job = arg;
	struct tie t = {job->src, a, b, a < b ? -1 : a > b};
	pthread_mutex_lock(&job->tie_lock);
	(void)guarded(job, ask_tie, &t);
	pthread_mutex_unlock(&job->tie_lock);
	return t.order;
}

/* --- memory, all of it before the workers start --- */

static enum vk_status prepare_queries(struct vk_exact_job *job, struct vk_arena *a)
{
	size_t bytes = vk_scorer_query_bytes(&job->scorer), stride = (bytes + 63) / 64 * 64;
	bool floats = vk_dtype_is_float(job->scorer.dtype);
	if (floats) stride = bytes; /* the rows of one matrix */
	char *forms = vk_arena_alloc(a, job->query_n * stride + 64);
	job->running = vk_arena_calloc(a, job->query_n, sizeof *job->running);
	if (!forms || !job->running) return VK_E_NOMEM;
	uint64_t rows = job->src->parts->rows, wanted = job->src->in ? vk_bitmap_count(job->src->in) : rows;
	if (wanted < rows) rows = wanted;
	for (size_t i = 0; i < job->query_n; i++) {
		struct vk_exact_query *q = &job->query[i];
		struct vk_running *r = &job->running[i];
		r->k = q->limit < rows ? q->limit : (size_t)rows;
		atomic_init(&r->floor, q->floor > -INFINITY ? q->floor : -INFINITY);
		vk_scorer_prepare(&job->scorer, q->vector, forms + i * stride, &r->p);
	}
	job->matrix = floats ? (float *)(void *)forms : NULL;
	return VK_OK;
}

static struct vk_exact_worker *worker_new(struct vk_exact_job *job, struct vk_arena *a)
{
	struct vk_exact_worker *w = vk_arena_calloc(a, 1, sizeof *w);
	if (!w) return NULL;
	w->job = job;
	w->top = vk_arena_calloc(a, job->query_n, sizeof *w->top);
	w->walk.live = vk_arena_alloc(a, VK_PART_WORDS_MAX * sizeof *w->walk.live);
	w->walk.want = vk_arena_alloc(a, VK_CHUNK_ROWS * sizeof *w->walk.want);
	if (!w->top || !w->walk.live || !w->walk.want) return NULL;
	for (size_t i = 0; i < job->query_n; i++) {
		const struct vk_running *r = &job->running[i];
		struct vk_hit *hit = vk_arena_alloc(a, vk_topk_room(r->k) * sizeof *hit);
		if (!hit) return NULL;
		vk_topk_init(&w->top[i], hit, r->k, atomic_load(&r->floor), vk_exact_tie, job);
	}
	return w;
}

static enum vk_status prepare_workers(struct vk_exact_job *job, struct vk_arena *a)
{
	job->worker = vk_arena_calloc(a, job->workers, sizeof(void *));
	if (!job->worker) return VK_E_NOMEM;
	for (unsigned i = 0; i < job->workers; i++)
		if (!(job->worker[i] = worker_new(job, a))) return VK_E_NOMEM;
	return VK_OK;
}

/* --- units --- */

/* Bytes of a row that the path reads. */
static size_t stride_read(const struct vk_exact_job *job, const struct vk_part *p)
{
	if (job->path == VK_EXACT_CERTIFIED && p->code_head) return p->code_stride;
	return job->path == VK_EXACT_BITS && p->bits ? p->bits_stride : p->stride;
}

static void cut_into_units(struct vk_exact_job *job)
{
	const struct vk_parts *ps = job->src->parts;
	if (job->path == VK_EXACT_FEW) {
		job->tail_units = 1; /* the wanted slots */
		return;
	}
	size_t part_bytes = ps->part_n ? (size_t)ps->part[0].slots * stride_read(job, &ps->part[0]) : 1;
	job->unit_parts = part_bytes < UNIT_BYTES ? UNIT_BYTES / (part_bytes ? part_bytes : 1) : 1;
	job->part_units = (ps->part_n + job->unit_parts - 1) / job->unit_parts;
	job->tail_units = (ps->tail_n + VK_CHUNK_ROWS - 1) / VK_CHUNK_ROWS;
}

static unsigned workers_for(const struct vk_exact_job *job)
{
	size_t units = job->part_units + job->tail_units;
	if (!job->opts->pool || units < 2) return 1;
	unsigned n = vk_pool_threads(job->opts->pool);
	if (job->opts->threads && job->opts->threads < n) n = job->opts->threads;
	return units < n ? (unsigned)units : n;
}

static void open_unit(const struct vk_exact_job *job, struct vk_chunker *c, size_t unit)
{
	const struct vk_parts *ps = job->src->parts;
	*c = (struct vk_chunker){.src = job->src, .live = c->live, .want = c->want};
	if (job->path == VK_EXACT_FEW) {
		c->few = true;
	} else if (unit < job->part_units) {
		c->part = unit * job->unit_parts;
		c->part_end = c->part + job->unit_parts < ps->part_n ? c->part + job->unit_parts : ps->part_n;
		c->sure_end = job->workers > 1 ? c->part_end : ps->part_n;
	} else {
		c->tail = (unit - job->part_units) * VK_CHUNK_ROWS;
		c->tail_end = c->tail + VK_CHUNK_ROWS < ps->tail_n ? c->tail + VK_CHUNK_ROWS : ps->tail_n;
	}
}

static void work(struct vk_exact_worker *w)
{
	struct vk_exact_job *job = w->job;
	size_t unit;
	while ((unit = atomic_fetch_add(&job->next, 1)) < job->part_units + job->tail_units) {
		open_unit(job, &w->walk, unit);
		while (!vk_exact_stopped(job) && vk_chunker_next(&w->walk, &w->chunk)) {
			job->ops->chunk(w);
			w->rows_scanned += w->chunk.n;
		}
		if (vk_exact_stopped(job)) return;
	}
	if (job->ops->last) job->ops->last(w);
}

struct fan {
	struct vk_exact_job *job;
	void (*fn)(struct vk_exact_worker *w);
};

struct one {
	struct fan *fan;
	size_t i;
};

static enum vk_status run_worker(void *arg)
{
	struct one *o = arg;
	o->fan->fn(o->fan->job->worker[o->i]);
	return VK_OK;
}

static void fan_out(void *arg, size_t i)
{
	struct fan *f = arg;
	struct one o = {f, i};
	(void)guarded(f->job, run_worker, &o);
}

void vk_exact_fan(struct vk_exact_job *job, void (*fn)(struct vk_exact_worker *w))
{
	struct fan f = {job, fn};
	vk_pool_for(job->workers > 1 ? job->opts->pool : NULL, job->workers, fan_out, &f);
}

/* --- the end --- */

static void merge(struct vk_exact_job *job)
{
	for (size_t i = 0; i < job->query_n; i++) {
		struct vk_topk *t = &job->worker[0]->top[i];
		for (unsigned j = 1; j < job->workers; j++) vk_topk_merge(t, &job->worker[j]->top[i]);
		job->query[i].hits = vk_topk_finish(t);
		job->query[i].hit = t->hit;
	}
}

static void count(const struct vk_exact_job *job, struct vk_exact_stats *stats)
{
	if (!stats) return;
	stats->path = job->path;
	for (unsigned i = 0; i < job->workers; i++) {
		stats->rows_scanned += job->worker[i]->rows_scanned;
		stats->rows_reread += job->worker[i]->rows_reread;
		stats->bytes += job->worker[i]->bytes;
	}
}

static enum vk_status why_stopped(const struct vk_exact_job *job)
{
	return atomic_load(&job->failed) ? VK_E_IO : VK_E_CANCELLED;
}

static enum vk_status run(struct vk_exact_job *job, struct vk_arena *a, struct vk_exact_stats *stats)
{
	vk_scorer_init(&job->scorer, job->src->set, job->opts->level);
	cut_into_units(job);
	job->workers = workers_for(job);
	enum vk_status st = prepare_queries(job, a);
	if (!st) st = prepare_workers(job, a);
	if (!st && job->ops->prepare) st = job->ops->prepare(job, a);
	if (st) return st;
	vk_exact_fan(job, work);
	if (vk_exact_stopped(job)) return why_stopped(job);
	if (job->ops->finish) st = job->ops->finish(job, a);
	if (vk_exact_stopped(job)) return why_stopped(job);
	if (st) return st;
	merge(job);
	if (atomic_load(&job->failed)) return VK_E_IO;
	count(job, stats);
	return VK_OK;
}

/* Queries that want nothing are answered here, so that every running query has k >= 1. */
static size_t leave_out_empty(struct vk_exact_query *q, size_t n, uint64_t rows)
{
	size_t wanting = 0;
	for (size_t i = 0; i < n; i++) {
		q[i].hit = NULL;
		q[i].hits = 0;
		if (q[i].limit && rows) wanting++;
	}
	return wanting;
}

static const struct vk_exact_ops *const paths[] = {
	[VK_EXACT_SCAN] = &vk_exact_scan,
	[VK_EXACT_CERTIFIED] = &vk_exact_certified,
	[VK_EXACT_GEMM] = &vk_exact_gemm,
	[VK_EXACT_FEW] = &vk_exact_scan, /* over another walk */
	[VK_EXACT_BITS] = &vk_exact_bits,
};

enum vk_status vk_exact_run(const struct vk_exact_source *src, struct vk_exact_query *q, size_t n,
			    const struct vk_exact_opts *o, struct vk_arena *a, struct vk_exact_stats *stats,
			    struct vk_error *err)
{
	if (stats) *stats = (struct vk_exact_stats){0};
	size_t wanting = leave_out_empty(q, n, src->parts->rows);
	if (!wanting) return VK_OK;
	struct vk_exact_query *asked = vk_arena_alloc(a, wanting * sizeof *asked);
	if (!asked) return vk_fail(err, VK_E_NOMEM, "not enough memory for the search");
	size_t at = 0;
	for (size_t i = 0; i < n; i++)
		if (q[i].limit) asked[at++] = q[i];

	struct vk_exact_job job = {.src = src, .opts = o, .query = asked, .query_n = wanting};
	job.path = vk_exact_plan(src, wanting, o->path);
	job.ops = paths[job.path];
	pthread_mutex_init(&job.tie_lock, NULL);
	enum vk_status st = run(&job, a, stats);
	pthread_mutex_destroy(&job.tie_lock);
	if (st == VK_E_CANCELLED) return vk_fail(err, st, "the search was cancelled");
	if (st == VK_E_IO) return vk_fail(err, st, "the rows of a vector set cannot be read");
	if (st) return vk_fail(err, st, "not enough memory for the search");
	at = 0;
	for (size_t i = 0; i < n; i++)
		if (q[i].limit) q[i] = asked[at++];
	return VK_OK;
}
