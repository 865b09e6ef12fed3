/*
 * FAISS as an engine of generations. It does not grow: what changed since is searched exactly until there is enough of it for a
 * new generation.
 *
 * A build copies the rows out of the view first, so that the view is held for seconds; then it trains on a sample of the copy
 * and adds the rest from it, giving the copy's pages back as it goes. All of that on a thread of its own whose low priority
 * OpenMP's helpers inherit.
 *
 * Trained, and after each piece that is added, it can be saved. Gone on with, it is what FAISS read from its file, in memory; it is
 * not trained again, and the rows that it lacks are copied and added as the first ones were. Levels of an HNSW graph are drawn
 * from the seed's beginning again: they need to be random, not new.
 */
#include "index/ann.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "index/faiss.h"

#define SCAN_ROWS 4000
#define NICE 10
#define COPY_SHARE 0.05       /* of a build's progress */
#define TRAIN_SHARE 0.3
#define MEMORY_SHARE 0.8      /* of what the machine has free, for a build */
#define OVERFETCH 1.3         /* where FAISS cannot filter: nominations over what the filter's share asks for */
#define OVERFETCH_MORE 32
#define FEW 256               /* nominations held on the stack */
#define STOP_EVERY 1024       /* rows between looks at stop */
#define ADD_ROWS 8192         /* at most at a time: FAISS's own blocks have 4,096, and in between it is shown and saved */

/* --- building --- */

struct build {
	const struct vk_ann_plan *plan; /* NULL: goes on with f */
	const struct vk_ann_source *src;
	const struct vk_ann_build *b;
	struct vk_faiss *f;
	uint32_t dims, had; /* rows that f had before */
	float *copy;        /* n x dims, mapped; pages are given back once they are added */
	size_t copy_bytes;
	uint32_t *slot;
	double base, share; /* of the progress: where this phase begins, what it is */
	enum vk_status st;
	struct vk_error *err;
};

static void show(void *arg, uint64_t done, uint64_t total)
{
	struct build *b = arg;
	if (!b->b->progress || !total) return;
	double at = b->base + b->share * (double)done / (double)total;
	atomic_store(&b->b->progress->done, b->had + (unsigned)(at * b->src->n));
}

static void phase(struct build *b, double from, double to)
{
	b->base = from;
	b->share = to - from;
	show(b, 0, 1);
}

static struct vk_faiss_opts opts_of(struct build *b)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned threads = b->b->threads ? b->b->threads : cores > 0 ? (unsigned)cores : 1;
	return (struct vk_faiss_opts){.threads = threads, .stop = b->b->stop, .progress = show, .arg = b};
}

static uint64_t free_memory(void)
{
	unsigned long long kb = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "re");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "MemAvailable: %llu kB", &kb) == 1) break;
	if (f) fclose(f);
	return kb << 10; /* 0: not known, no limit */
}

static enum vk_status begin(struct build *b)
{
	struct vk_faiss_about had = {0};
	enum vk_status st = b->f ? vk_faiss_about(b->f, &had, b->err) : VK_OK;
	if (st) return st;
	b->copy_bytes = (size_t)b->src->n * b->dims * sizeof *b->copy;
	uint64_t room = (uint64_t)((double)free_memory() * MEMORY_SHARE);
	if (room && b->copy_bytes >= room)
		return vk_fail(b->err, VK_E_NOMEM, "the rows alone take %zu MB, %llu MB of memory are free", b->copy_bytes >> 20,
			       (unsigned long long)(room >> 20));
	if (b->f) return vk_faiss_expect(b->f, b->had + b->src->n, room ? room - b->copy_bytes + had.bytes : 0, b->err);
	struct vk_faiss_conf c = {.factory = b->plan->factory,
				  .dims = b->dims,
				  .metric = b->plan->metric,
				  .rows = b->src->n,
				  .bytes_max = room ? room - b->copy_bytes : 0,
				  .ef_build = b->plan->ef_build,
				  .seed = 1};
	return vk_faiss_new(&c, &b->f, b->err);
}

static enum vk_status copy_rows(struct build *b)
{
	uint32_t n = b->src->n;
	void *p = b->copy_bytes ? mmap(NULL, b->copy_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : NULL;
	b->slot = malloc(n ? n * sizeof *b->slot : 1);
	if (p == MAP_FAILED || !b->slot) return vk_fail(b->err, VK_E_NOMEM, "no memory for a copy of the rows");
	b->copy = p;
	enum vk_status st = VK_OK;
	for (uint32_t i = 0; !st && i < n; i++) {
		st = b->src->row(b->src->arg, i, b->copy + (size_t)i * b->dims, &b->slot[i]);
		if (st) return vk_fail(b->err, st, "a row cannot be read: %s", vk_status_text(st));
		if (i % STOP_EVERY) continue;
		if (b->b->stop && atomic_load(b->b->stop)) return vk_fail(b->err, VK_E_CANCELLED, "stopped");
		show(b, i, n);
	}
	if (b->src->rows_done) b->src->rows_done(b->src->arg);
	return VK_OK;
}

static enum vk_status train(struct build *b)
{
	struct vk_faiss_opts o = opts_of(b);
	return vk_faiss_train_sample(b->f, b->src->n, b->copy, b->plan->train_rows, &o, b->err);
}

static enum vk_status between(struct build *b)
{
	return b->b->between ? b->b->between(b->b->arg, b->f) : VK_OK;
}

static enum vk_status add(struct build *b)
{
	uint32_t n = b->src->n, some = vk_faiss_plan_of(b->f)->add_rows;
	size_t row = b->dims * sizeof *b->copy, page = (size_t)sysconf(_SC_PAGESIZE);
	struct vk_faiss_opts o = opts_of(b);
	o.progress = NULL;
	if (some > ADD_ROWS) some = ADD_ROWS;
	for (uint32_t i = 0; i < n; i += some) {
		if (some > n - i) some = n - i;
		enum vk_status st = vk_faiss_add(b->f, some, b->copy + (size_t)i * b->dims, b->slot + i, &o, b->err);
		if (st) return st;
		madvise(b->copy, (size_t)(i + some) * row / page * page, MADV_DONTNEED);
		show(b, i + some, n);
		if (i + some < n && (st = between(b))) return st;
	}
	return VK_OK;
}

static void *run(void *arg)
{
	struct build *b = arg;
	bool trains = b->plan && vk_faiss_plan_of(b->f)->train_min;
	setpriority(PRIO_PROCESS, 0, NICE); /* this thread's alone, on Linux */
	phase(b, 0, COPY_SHARE);
	b->st = copy_rows(b);
	phase(b, COPY_SHARE, TRAIN_SHARE);
	if (!b->st && trains) b->st = train(b);
	if (!b->st && trains) b->st = between(b);
	phase(b, trains ? TRAIN_SHARE : COPY_SHARE, 1);
	if (!b->st) b->st = add(b);
	return NULL;
}

static enum vk_status run_aside(struct build *b)
{
	pthread_t thread;
	if (b->b->progress) atomic_store(&b->b->progress->total, b->had + b->src->n);
	enum vk_status st = begin(b);
	if (st) return st;
	vk_faiss_mark_partial(b->f, true);
	if (pthread_create(&thread, NULL, run, b) == 0) {
		pthread_join(thread, NULL);
		st = b->st;
	} else {
		st = vk_fail(b->err, VK_E_NOMEM, "no thread to build on");
	}
	if (b->copy) munmap(b->copy, b->copy_bytes);
	free(b->slot);
	if (!st) vk_faiss_mark_partial(b->f, false);
	return st;
}

static enum vk_status build(const struct vk_ann_plan *p, const struct vk_ann_source *src, const struct vk_ann_build *how, void **self,
			    struct vk_error *err)
{
	struct build b = {.plan = p, .src = src, .b = how, .dims = p->dims, .err = err};
	enum vk_status st = run_aside(&b);
	if (st) {
		vk_faiss_free(b.f);
		return st;
	}
	vk_faiss_dial(b.f, p->nprobe, p->ef_search);
	*self = b.f;
	return VK_OK;
}

static enum vk_status resume_from(void *self, const struct vk_ann_source *src, const struct vk_ann_build *how, struct vk_error *err)
{
	struct build b = {.src = src, .b = how, .f = self, .dims = vk_faiss_plan_of(self)->dims, .err = err};
	b.had = (uint32_t)vk_faiss_rows(self); /* VK_FAISS_ROWS_MAX at most */
	return run_aside(&b);
}

static void slots(const void *self, struct vk_bitmap *out)
{
	for (uint64_t i = 0; i < vk_faiss_rows(self); i++) vk_bitmap_add(out, vk_faiss_label(self, (uint32_t)i));
}

static bool partial(const void *self)
{
	return vk_faiss_partial(self);
}

/* --- files --- */

static enum vk_status open_file(const struct vk_ann_plan *p, const char *path, void **self, uint64_t *sequence, uint8_t tag[32],
				struct vk_error *err)
{
	struct vk_faiss *f;
	enum vk_status st = vk_faiss_open(path, true, &f, sequence, tag, err);
	if (st) return st;
	vk_faiss_dial(f, p->nprobe, p->ef_search);
	*self = f;
	return VK_OK;
}

static enum vk_status save(void *self, const char *path, uint64_t sequence, const uint8_t tag[32], struct vk_error *err)
{
	return vk_faiss_save(self, path, sequence, tag, err);
}

static void close_index(void *self)
{
	vk_faiss_free(self);
}

/* --- searching --- */

/* Nominations to ask FAISS for; 0: so few rows are allowed that it would be no use. */
static uint32_t fetch(const struct vk_ann_ask *ask, const struct vk_faiss *f)
{
	uint64_t want = ask->want < VK_FAISS_K_MAX ? ask->want : VK_FAISS_K_MAX;
	if (!ask->allow || vk_faiss_filters(f)) return (uint32_t)want;
	if (!ask->allow_count) return 0;
	double k = (double)want * (double)vk_faiss_rows(f) / (double)ask->allow_count * OVERFETCH + OVERFETCH_MORE;
	return k <= VK_FAISS_K_MAX ? (uint32_t)k : 0;
}

static bool allowed(const struct vk_ann_ask *ask, uint32_t slot)
{
	return !ask->allow || (slot < ask->allow_n && ask->allow[slot / 64] >> (slot % 64) & 1);
}

/* What FAISS found, less what is not allowed. */
static void take(struct vk_ann_ask *ask, const uint32_t *label, uint32_t found)
{
	for (uint32_t i = 0; i < found && ask->n < ask->want; i++)
		if (allowed(ask, label[i])) ask->slot[ask->n++] = label[i];
	/* Behind a filter the lists looked at may hold few that are allowed, and the nearest lie elsewhere. Without one it is the width
	 * that was measured; who gets fewer than asked for sees that itself. */
	ask->gave_up = ask->allow && ask->n < ask->want && ask->n < ask->allow_count;
}

static uint64_t visited(const struct vk_faiss *f, uint32_t nprobe, uint32_t k)
{
	uint32_t nlist = vk_faiss_plan_of(f)->nlist;
	return nlist && nprobe ? vk_faiss_rows(f) * (nprobe < nlist ? nprobe : nlist) / nlist : k;
}

static enum vk_status nominate(void *self, struct vk_ann_ask *ask)
{
	struct vk_faiss *f = self;
	uint32_t k = fetch(ask, f), found = 0, few_labels[FEW], *label = few_labels;
	float few_near[FEW], *near = few_near;
	ask->n = 0;
	ask->visited = 0;
	ask->gave_up = !k && ask->want;
	if (!k) return VK_OK;
	if (k > FEW) {
		label = malloc(k * (sizeof *label + sizeof *near));
		if (!label) return VK_E_NOMEM;
		near = (float *)(label + k);
	}
	bool filter = ask->allow && vk_faiss_filters(f);
	struct vk_faiss_query q = {.vector = ask->vector, .queries = 1, .want = k, .nprobe = ask->ef, .ef = ask->ef,
				   .allow = filter ? ask->allow : NULL, .allow_n = ask->allow_n, .label = label, .near = near,
				   .found = &found};
	if (q.nprobe > VK_FAISS_NPROBE_MAX) q.nprobe = VK_FAISS_NPROBE_MAX;
	if (q.ef > VK_FAISS_WIDE_MAX) q.ef = VK_FAISS_WIDE_MAX;
	enum vk_status st = vk_faiss_search(f, &q, NULL, NULL);
	if (!st) take(ask, label, found);
	ask->visited = visited(f, q.nprobe, k);
	if (label != few_labels) free(label);
	return st;
}

/* Coarse codes rank less well: more of their nominations must be scored for the same recall. By one bit a dimension no beam finds
 * what the codes cannot tell apart, so the wider search is the one that scores more. */
static uint32_t want(const void *self, uint32_t limit, uint32_t ef)
{
	static const uint32_t of_code[] = {[VK_FAISS_FLAT] = 1, [VK_FAISS_SQ4] = 4, [VK_FAISS_SQ6] = 2,
					   [VK_FAISS_SQ8] = 2, [VK_FAISS_FP16] = 1, [VK_FAISS_PQ] = 8};
	const struct vk_faiss_plan *p = vk_faiss_plan_of(self);
	uint32_t factor = p->binary ? 16 : of_code[p->refine ? p->refine_code : p->code];
	if (factor == 1) return limit;
	uint32_t n = limit > VK_FAISS_K_MAX / factor ? VK_FAISS_K_MAX : limit * factor + 8;
	if (p->binary && !p->nlist && ef > n) n = ef < VK_FAISS_K_MAX ? ef : VK_FAISS_K_MAX; /* with lists, ef is lists to look at */
	return n > limit ? n : limit;
}

static uint64_t rows(const void *self)
{
	return vk_faiss_rows(self);
}

static void about(const void *self, struct vk_ann_about *out)
{
	struct vk_faiss_about a;
	*out = (struct vk_ann_about){0};
	if (vk_faiss_about(self, &a, NULL)) return;
	out->rows = a.rows;
	out->bytes = a.bytes;
	snprintf(out->detail, sizeof out->detail, "%.100s, %s%s", a.factory, a.type, a.mapped ? ", mapped" : "");
}

/* Its kinds cost too differently to say more: about what an HNSW of it takes at 384 dimensions (bench/ann filter). */
static uint64_t scan_rows(uint64_t matches, uint64_t rows, uint32_t ef)
{
	(void)matches, (void)rows, (void)ef;
	return SCAN_ROWS;
}

const struct vk_ann_ops vk_ann_faiss = {.name = "faiss", .grows = false, .calibrates = true, .build = build,
					.resume_from = resume_from, .slots = slots, .partial = partial, .open = open_file, .save = save,
					.close = close_index, .nominate = nominate, .want = want,
					.scan_rows = scan_rows, .rows = rows, .about = about};
