/* An index with its labels: limits, budget and conversion here, the work behind the face. */
#include "index/faiss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "index/faiss_internal.h"

#define EF_DEFAULT 64u
#define OVERSAMPLE_DEFAULT 4u
#define ROUNDS_DEFAULT 20u

/* --- what is asked of the face --- */

struct task {
	const struct vk_faiss_opts *o;
	struct vk_faiss_work w;
};

static bool stopped(void *arg)
{
	const struct vk_faiss_opts *o = arg;
	return o->stop && atomic_load_explicit(o->stop, memory_order_relaxed);
}

static void step(void *arg, uint64_t done, uint64_t total)
{
	const struct vk_faiss_opts *o = arg;
	if (o->progress) o->progress(o->arg, done, total);
}

static struct task task_of(const struct vk_faiss_opts *o)
{
	static const struct vk_faiss_opts none;
	struct task t = {.o = o ? o : &none};
	unsigned threads = t.o->threads < 1 ? 1 : t.o->threads;
	t.w = (struct vk_faiss_work){.threads = threads < VK_FAISS_THREADS_MAX ? threads : VK_FAISS_THREADS_MAX,
				     .stopped = stopped,
				     .step = step,
				     .arg = (void *)t.o};
	return t;
}

/* --- making --- */

const char *vk_faiss_library(struct vk_error *err)
{
	const struct vk_faiss_face *face = vk_faiss_face(err);
	return face ? face->library : NULL;
}

/* train: rows to train on at most. */
static enum vk_status within_budget(const struct vk_faiss_plan *p, uint64_t rows, uint64_t train, uint64_t bytes_max,
				    struct vk_error *err)
{
	uint64_t bytes = vk_faiss_plan_bytes(p, rows, train < p->train_good ? train : p->train_good);
	if (!bytes_max || bytes <= bytes_max) return VK_OK;
	return vk_fail(err, VK_E_NOMEM, "FAISS \"%s\" over %llu rows would take up to %llu MB, %llu MB are allowed", p->factory,
		       (unsigned long long)rows, (unsigned long long)(bytes >> 20), (unsigned long long)(bytes_max >> 20));
}

enum vk_status vk_faiss_new(const struct vk_faiss_conf *c, struct vk_faiss **out, struct vk_error *err)
{
	struct vk_faiss_plan plan;
	*out = NULL;
	enum vk_status st = vk_faiss_plan(c->factory, c->dims, &plan, err);
	if (st) return st;
	if (c->metric != VK_METRIC_DOT && c->metric != VK_METRIC_COSINE && c->metric != VK_METRIC_L2)
		return vk_fail(err, VK_E_INVALID, "FAISS has dot, cosine and Euclid, not this metric");
	if (c->rows > VK_FAISS_ROWS_MAX)
		return vk_fail(err, VK_E_INVALID, "FAISS takes at most %u rows here", VK_FAISS_ROWS_MAX);
	st = within_budget(&plan, c->rows, c->rows, c->bytes_max, err);
	if (st) return st;
	const struct vk_faiss_face *face = vk_faiss_face(err);
	if (!face) return VK_E_UNAVAILABLE;
	struct vk_faiss *f = calloc(1, sizeof *f);
	if (!f) return vk_fail(err, VK_E_NOMEM, "no memory");
	*f = (struct vk_faiss){.face = face, .plan = plan, .metric = c->metric, .bytes_max = c->bytes_max, .rows_expected = c->rows,
				 .file = -1};
	struct vk_faiss_make m = {.factory = plan.factory,
				  .dims = plan.binary ? plan.code_dims : plan.dims,
				  .inner_product = c->metric != VK_METRIC_L2,
				  .binary = plan.binary,
				  .ef_build = c->ef_build < VK_FAISS_WIDE_MAX ? c->ef_build : VK_FAISS_WIDE_MAX,
				  .rows_expected = c->rows,
				  .seed = (int)(c->seed & 0x3fffffff)};
	st = face->create(&m, &f->ix, err);
	struct vk_faiss_info info;
	if (!st) st = face->describe(f->ix, &info, err);
	if (st) {
		vk_faiss_free(f);
		return st;
	}
	f->trained = info.trained;
	f->filters = info.filters;
	*out = f;
	return VK_OK;
}

void vk_faiss_free(struct vk_faiss *f)
{
	if (!f) return;
	if (f->ix) f->face->destroy(f->ix);
	if (f->file >= 0) close(f->file);
	free(f->label);
	free(f);
}

const struct vk_faiss_plan *vk_faiss_plan_of(const struct vk_faiss *f)
{
	return &f->plan;
}

uint64_t vk_faiss_rows(const struct vk_faiss *f)
{
	return f->rows;
}

bool vk_faiss_filters(const struct vk_faiss *f)
{
	return f->filters;
}

void vk_faiss_mark_partial(struct vk_faiss *f, bool partial)
{
	f->partial = partial;
}

bool vk_faiss_partial(const struct vk_faiss *f)
{
	return f->partial;
}

enum vk_status vk_faiss_expect(struct vk_faiss *f, uint64_t rows, uint64_t bytes_max, struct vk_error *err)
{
	if (rows > VK_FAISS_ROWS_MAX)
		return vk_fail(err, VK_E_INVALID, "FAISS takes at most %u rows here", VK_FAISS_ROWS_MAX);
	enum vk_status st = within_budget(&f->plan, rows, f->trained ? 0 : rows, bytes_max, err);
	if (st) return st;
	f->rows_expected = rows;
	f->bytes_max = bytes_max;
	return VK_OK;
}

/* --- rows as the index wants them --- */

/* Floats as they are, or in *own (free it) their signs, padded to whole bytes. */
static const void *rows_of(const struct vk_faiss *f, size_t n, const float *rows, uint8_t **own)
{
	*own = NULL;
	if (!f->plan.binary) return rows;
	const struct vk_kernels *k = vk_kernels(vk_cpu_best());
	size_t bytes = f->plan.code_dims / 8;
	uint8_t *bits = calloc(n ? n : 1, bytes);
	for (size_t i = 0; bits && i < n; i++) k->f32_to_bits(bits + i * bytes, rows + i * f->plan.dims, f->plan.dims);
	return *own = bits;
}

enum vk_status vk_faiss_train(struct vk_faiss *f, size_t n, const float *rows, const struct vk_faiss_opts *o, struct vk_error *err)
{
	if (!f->plan.train_min) return VK_OK;
	if (n < f->plan.train_min)
		return vk_fail(err, VK_E_INVALID, "FAISS \"%s\" wants at least %u rows to train on, there are %zu", f->plan.factory,
			       f->plan.train_min, n);
	struct task t = task_of(o);
	uint8_t *own;
	const void *in = rows_of(f, n, rows, &own);
	if (!in) return vk_fail(err, VK_E_NOMEM, "no memory");
	enum vk_status st = f->face->train(f->ix, n, in, &t.w, err);
	free(own);
	if (!st) f->trained = true;
	return st;
}

enum vk_status vk_faiss_train_sample(struct vk_faiss *f, size_t n, const float *rows, uint32_t want, const struct vk_faiss_opts *o,
				     struct vk_error *err)
{
	const struct vk_faiss_plan *p = &f->plan;
	if (!want) want = p->train_good;
	if (want < p->train_min) want = p->train_min;
	if (!p->train_min || want >= n) return vk_faiss_train(f, n, rows, o, err);
	float *sample = malloc((size_t)want * p->dims * sizeof *sample);
	if (!sample) return vk_fail(err, VK_E_NOMEM, "no memory to train on %u rows", want);
	for (uint32_t i = 0; i < want; i++)
		memcpy(sample + (size_t)i * p->dims, rows + (size_t)((uint64_t)i * n / want) * p->dims, p->dims * sizeof *sample);
	enum vk_status st = vk_faiss_train(f, want, sample, o, err);
	free(sample);
	return st;
}

static enum vk_status room_for(struct vk_faiss *f, size_t n, struct vk_error *err)
{
	uint64_t rows = f->rows + n;
	if (rows > VK_FAISS_ROWS_MAX)
		return vk_fail(err, VK_E_INVALID, "FAISS takes at most %u rows here", VK_FAISS_ROWS_MAX);
	enum vk_status st = rows > f->rows_expected ? within_budget(&f->plan, rows, rows, f->bytes_max, err) : VK_OK;
	if (st || rows <= f->cap) return st;
	uint64_t cap = rows > f->rows_expected ? rows + rows / 2 : f->rows_expected;
	uint32_t *label = realloc(f->label, cap * sizeof *label);
	if (!label) return vk_fail(err, VK_E_NOMEM, "no memory");
	f->label = label;
	f->cap = cap;
	return VK_OK;
}

static enum vk_status add_some(struct vk_faiss *f, size_t n, const float *rows, const struct task *t, struct vk_error *err)
{
	uint8_t *own;
	const void *in = rows_of(f, n, rows, &own);
	if (!in) return vk_fail(err, VK_E_NOMEM, "no memory");
	enum vk_status st = f->face->add(f->ix, n, in, &t->w, err);
	free(own);
	return st;
}

enum vk_status vk_faiss_add(struct vk_faiss *f, size_t n, const float *rows, const uint32_t *label, const struct vk_faiss_opts *o,
			    struct vk_error *err)
{
	if (!f->trained) return vk_fail(err, VK_E_INVALID, "FAISS \"%s\" is not trained", f->plan.factory);
	enum vk_status st = room_for(f, n, err);
	struct task t = task_of(o);
	for (size_t i = 0, some; !st && i < n; i += some) {
		some = n - i < f->plan.add_rows ? n - i : f->plan.add_rows;
		if (stopped(t.w.arg)) return vk_fail(err, VK_E_CANCELLED, "stopped");
		st = add_some(f, some, rows + i * f->plan.dims, &t, err);
		if (st) break;
		memcpy(f->label + f->rows, label + i, some * sizeof *label);
		f->rows += some;
		step(t.w.arg, i + some, n);
	}
	return st;
}

/* --- searching --- */

static enum vk_status check_query(const struct vk_faiss *f, const struct vk_faiss_query *q, struct vk_error *err)
{
	if (!f->trained) return vk_fail(err, VK_E_INVALID, "FAISS \"%s\" is not trained", f->plan.factory);
	if (q->want < 1 || q->want > VK_FAISS_K_MAX)
		return vk_fail(err, VK_E_INVALID, "FAISS gives 1 to %u nominations, not %u", VK_FAISS_K_MAX, q->want);
	if (q->nprobe > VK_FAISS_NPROBE_MAX || q->ef > VK_FAISS_WIDE_MAX || q->oversample > VK_FAISS_WIDE_MAX)
		return vk_fail(err, VK_E_INVALID, "nprobe is at most %u, ef and oversample %u", VK_FAISS_NPROBE_MAX, VK_FAISS_WIDE_MAX);
	if (q->allow && !f->filters)
		return vk_fail(err, VK_E_INVALID, "FAISS \"%s\" takes no filter", f->plan.factory);
	return VK_OK;
}

void vk_faiss_dial(struct vk_faiss *f, uint32_t nprobe, uint32_t ef)
{
	f->nprobe = nprobe < VK_FAISS_NPROBE_MAX ? nprobe : VK_FAISS_NPROBE_MAX;
	f->ef = ef < VK_FAISS_WIDE_MAX ? ef : VK_FAISS_WIDE_MAX;
}

static uint32_t nprobe_of(const struct vk_faiss *f, uint32_t asked)
{
	uint32_t n = asked ? asked : f->nprobe;
	if (!n) n = (uint32_t)ceil(sqrt(f->plan.nlist));
	return n < f->plan.nlist ? n : f->plan.nlist;
}

static uint32_t ef_of(const struct vk_faiss *f, uint32_t asked)
{
	if (!f->plan.hnsw_m) return 0;
	if (asked) return asked;
	return f->ef ? f->ef : EF_DEFAULT;
}

/* The face's numbers, in q->label, become labels and close up. */
static void settle_answers(const struct vk_faiss *f, const struct vk_faiss_query *q)
{
	bool up = !f->plan.binary && f->metric != VK_METRIC_L2;
	for (size_t i = 0; i < q->queries; i++) {
		uint32_t *label = q->label + i * q->want, n = 0;
		float *near = q->near + i * q->want;
		for (uint32_t j = 0; j < q->want; j++) {
			if (label[j] >= f->rows) continue; /* nobody */
			label[n] = f->label[label[j]];
			near[n++] = up ? near[j] : -near[j];
		}
		q->found[i] = n;
	}
}

enum vk_status vk_faiss_search(const struct vk_faiss *f, const struct vk_faiss_query *q, const struct vk_faiss_opts *o,
			       struct vk_error *err)
{
	enum vk_status st = check_query(f, q, err);
	if (st) return st;
	struct task t = task_of(o);
	uint64_t base_k = (uint64_t)q->want * (q->oversample ? q->oversample : OVERSAMPLE_DEFAULT);
	uint8_t *own;
	const void *query = rows_of(f, q->queries, q->vector, &own);
	if (!query) return vk_fail(err, VK_E_NOMEM, "no memory");
	struct vk_faiss_ask ask = {.query = query,
				   .queries = q->queries,
				   .k = q->want,
				   .nprobe = nprobe_of(f, q->nprobe),
				   .ef = ef_of(f, q->ef),
				   .base_k = !f->plan.refine ? 0 : base_k < VK_FAISS_WIDE_MAX ? (uint32_t)base_k : VK_FAISS_WIDE_MAX,
				   .allow = q->allow,
				   .allow_n = q->allow_n,
				   .label = f->label,
				   .number = q->label,
				   .distance = q->near};
	st = f->face->search(f->ix, &ask, &t.w, err);
	if (!st) settle_answers(f, q);
	free(own);
	return st;
}

enum vk_status vk_faiss_about(const struct vk_faiss *f, struct vk_faiss_about *out, struct vk_error *err)
{
	struct vk_faiss_info info;
	enum vk_status st = f->face->describe(f->ix, &info, err);
	*out = (struct vk_faiss_about){.rows = f->rows,
				       .bytes = info.bytes + f->cap * sizeof *f->label,
				       .dims = f->plan.dims,
				       .nlist = info.nlist,
				       .metric = f->metric,
				       .trained = info.trained,
				       .filters = info.filters,
				       .mapped = info.mapped};
	memcpy(out->factory, f->plan.factory, sizeof out->factory);
	memcpy(out->type, info.type, sizeof out->type);
	return st;
}

uint32_t vk_faiss_label(const struct vk_faiss *f, uint32_t number)
{
	return f->label[number];
}

/* --- k-means --- */

enum vk_status vk_faiss_means(struct vk_faiss_means *m, const struct vk_faiss_opts *o, struct vk_error *err)
{
	const struct vk_faiss_face *face = vk_faiss_face(err);
	if (!face) return VK_E_UNAVAILABLE;
	if (!m->dims || m->dims > VK_FAISS_DIMS_MAX || !m->k || m->n < m->k || m->n > VK_FAISS_ROWS_MAX)
		return vk_fail(err, VK_E_INVALID, "k-means wants at least k rows: %zu rows of %u dims, k = %u", m->n, m->dims, m->k);
	struct task t = task_of(o);
	struct vk_faiss_kmeans k = {.rows = m->rows,
				    .n = m->n,
				    .dims = m->dims,
				    .k = m->k,
				    .rounds = m->rounds ? m->rounds : ROUNDS_DEFAULT,
				    .seed = (int)(m->seed & 0x3fffffff),
				    .spherical = m->spherical,
				    .centroid = m->centroid};
	enum vk_status st = face->kmeans(&k, &t.w, err);
	m->loss = k.loss;
	return st;
}
