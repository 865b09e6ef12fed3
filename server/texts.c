/*
 * Texts in place of vectors (DESIGN section 1).
 *
 * Texts of one request are grouped by space and role; each group is one operation of the engine, so a text is paid for
 * once, whichever API it came through. The groups run side by side; the last one to end goes on with the request.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "server/qdrant.h"
#include "simd/vec.h"

struct group {
	struct vk_text_run *run;
	const struct vk_space *space;
	const struct vk_role *role;
	struct vk_qd_text **text; /* per input */
	struct vk_input *input;
	size_t n;
	struct vk_op op;
	bool started;
};

struct vk_text_run {
	struct vk_qd *q;
	void (*then)(struct vk_qd *q);
	struct vk_registry *registry;
	struct group *group;
	size_t groups;
	atomic_uint pending; /* groups under way, and one for who starts them */
	pthread_mutex_t lock; /* cancelled, started, error */
	bool cancelled, failed;
	enum vk_gone why;
	struct vk_error err;
};

/* --- texts --- */

static enum vk_status check_options(const struct vk_qd_text *t, struct vk_error *err)
{
	uint64_t dims;
	for (const vk_jv *m = vk_jv_first(t->options); m; m = vk_jv_next(m)) {
		struct vk_bytes k = vk_jv_key(m);
		if (!vk_bytes_is(k, "dimensions"))
			return vk_fail(err, VK_E_INVALID,
				       "Wrong input: unknown option `%.*s` of a document; credentials and parameters of providers "
				       "are the server's configuration, they never come with a request",
				       (int)(k.n < 64 ? k.n : 64), k.p);
		if (!vk_jv_u64(m, &dims) || dims != t->vector->set.dims)
			return vk_fail(err, VK_E_INVALID, "Wrong input: option `dimensions` must be vector `%s`'s %u",
				       vk_qd_shown(t->vector), t->vector->set.dims);
	}
	return VK_OK;
}

static const struct vk_space *space_of(struct vk_text_run *run, const struct vk_qd_text *t, const struct vk_role **role,
				       struct vk_error *err)
{
	const struct vk_space *s = NULL;
	*role = NULL;
	if (t->model.n) {
		const struct vk_model_name *m = vk_registry_model(run->registry, t->model, role);
		s = m ? m->space : NULL;
		if (!s)
			vk_fail(err, VK_E_NOT_FOUND, "Not found: model `%.*s` does not exist here: GET /v1/models lists what does",
				(int)(t->model.n < 128 ? t->model.n : 128), t->model.p);
	} else if (t->vector->space) {
		s = vk_registry_space(run->registry, vk_bytes_of(t->vector->space));
		if (!s)
			vk_fail(err, VK_E_UNAVAILABLE, "Service error: space %s of vector `%s` is in no configuration of this server",
				t->vector->space, vk_qd_shown(t->vector));
	} else {
		vk_fail(err, VK_E_INVALID, "Wrong input: vector `%s` is bound to no space yet: name a `model` with the text",
			vk_qd_shown(t->vector));
	}
	return s;
}

static enum vk_status check_text(struct vk_text_run *run, const struct vk_qd_text *t, const struct vk_space **space,
				 const struct vk_role **role, struct vk_error *err)
{
	struct vk_app *app = run->q->app;
	enum vk_status st = check_options(t, err);
	if (st) return st;
	if (!t->text.n) return vk_fail(err, VK_E_INVALID, "Wrong input: an empty text cannot be embedded");
	if (t->text.n > app->config.text_bytes_max)
		return vk_fail(err, VK_E_INVALID, "Wrong input: a text has %zu bytes; the limit is %zu", t->text.n,
			       app->config.text_bytes_max);
	const struct vk_space *s = space_of(run, t, role, err);
	if (!s) return err->st;
	/* Before dims: two spaces are told apart by their names, however long their vectors are. */
	if (t->vector->space && (st = vk_qd_joins(t->vector, s->id, true, t->write, err))) return st;
	if (s->dims != t->vector->set.dims && !vk_space_gives_dims(s, t->vector->set.dims))
		return vk_fail(err, VK_E_INVALID,
			       "Wrong input: Vector dimension error: expected dim: %u, got %u (vector `%s`, space %s)",
			       t->vector->set.dims, s->dims, vk_qd_shown(t->vector), s->id);
	if (!*role) *role = vk_space_role(s, t->write ? VK_LIT("document") : VK_LIT("query"));
	if (!*role) *role = &s->roles[0];
	*space = s;
	return vk_qd_meets(run->q, t->vector, s->id, true, t->write, err);
}

/* One group a space and role, inputs in the request's order. */
static enum vk_status make_groups(struct vk_text_run *run, struct vk_error *err)
{
	struct vk_qd *q = run->q;
	struct vk_arena *a = &q->req->arena;
	run->group = vk_arena_calloc(a, q->texts_n, sizeof *run->group);
	if (!run->group) return vk_fail(err, VK_E_NOMEM, "out of memory");
	for (struct vk_qd_text *t = q->texts; t; t = t->next) {
		const struct vk_space *space = NULL;
		const struct vk_role *role = NULL;
		enum vk_status st = check_text(run, t, &space, &role, err);
		if (st) return st;
		size_t g = 0;
		while (g < run->groups && (run->group[g].space != space || run->group[g].role != role)) g++;
		struct group *gr = &run->group[g];
		if (g == run->groups) {
			*gr = (struct group){.run = run, .space = space, .role = role,
					     .text = vk_arena_calloc(a, q->texts_n, sizeof *gr->text),
					     .input = vk_arena_calloc(a, q->texts_n, sizeof *gr->input)};
			run->groups++;
			if (!gr->text || !gr->input) return vk_fail(err, VK_E_NOMEM, "out of memory");
		}
		gr->text[gr->n] = t;
		gr->input[gr->n++].text = t->text;
	}
	return VK_OK;
}

static enum vk_status set_up(struct group *g, struct vk_error *err)
{
	struct vk_qd *q = g->run->q;
	struct vk_op *op = &g->op;
	const struct vk_auth *auth = q->req->auth;
	enum vk_status pin = vk_space_pin(g->run->registry, g->space, q->app->catalog);
	if (pin == VK_E_EXISTS)
		return vk_fail(err, VK_E_EXISTS, "Conflict: space %s is pinned to another definition", g->space->id);
	if (pin) return vk_fail(err, VK_E_IO, "Service error: the catalog does not take writes");
	*op = (struct vk_op){.arena = &q->req->arena, .registry = g->run->registry, .space = g->space, .role = g->role,
			     .tenant = vk_tenants_default(q->app->tenants), .inputs = g->input, .n = g->n,
			     .interactive = !g->text[0]->write || g->n <= VK_INTERACTIVE_INPUTS, .max_age_ms = -1,
			     .now_ms = vk_wall_ms()};
	if (g->space->route[0].provider->api_key.from == VK_SECRET_CLIENT) {
		if (!auth || !auth->bearer.n || auth->key_id[0])
			return vk_fail(err, VK_E_UNAUTHORIZED,
				       "Unauthorized: space %s forwards its caller's own provider key: send that as the bearer",
				       g->space->id);
		op->bearer = auth->bearer;
		if (vk_tenants_client(q->app->tenants, auth->bearer, &op->tenant))
			return vk_fail(err, VK_E_BUSY, "Service error: too many different provider keys; try again later");
	}
	if (vk_op_lookup(q->app->engine, op)) return vk_fail(err, VK_E_NOMEM, "out of memory");
	if (op->missing && q->app->offline) {
		vk_op_landed(q->app->engine, op);
		if (op->missing)
			return vk_fail(err, VK_E_UNAVAILABLE,
				       "Service error: the server is offline (hits only) and %zu texts are not cached", op->missing);
	}
	return VK_OK;
}

/* Rows into their places, in the vector's dims. */
static void take_rows(struct group *g)
{
	struct vk_op_counts c;
	for (size_t i = 0; i < g->n; i++) {
		struct vk_qd_text *t = g->text[i];
		const float *row = g->op.slots[g->op.slot_of[i]].row;
		if (t->vector->set.dims == g->space->dims)
			memcpy(t->row, row, g->space->dims * sizeof *row);
		else
			vk_vec_cut(vk_cpu_best(), t->row, row, t->vector->set.dims);
	}
	vk_op_counts(&g->op, &c);
	g->run->q->tokens += c.logical_tokens;
	g->run->q->billed_tokens += c.billed_tokens;
	g->run->q->text_hits += c.hits;
}

static void end_run(struct vk_text_run *run)
{
	struct vk_qd *q = run->q;
	struct vk_error err = run->err;
	bool failed = run->failed;
	for (size_t i = 0; !failed && i < run->groups; i++) take_rows(&run->group[i]);
	vk_registry_unref(run->registry);
	run->registry = NULL;
	if (failed)
		vk_qd_fail(q, &err);
	else
		run->then(q);
}

static void one_less(struct vk_text_run *run)
{
	if (atomic_fetch_sub(&run->pending, 1) == 1) end_run(run);
}

static void note_failure(struct vk_text_run *run, const struct vk_error *err)
{
	pthread_mutex_lock(&run->lock);
	if (!run->failed) run->err = *err;
	run->failed = true;
	pthread_mutex_unlock(&run->lock);
}

static void on_done(struct vk_op *op)
{
	struct group *g = op->arg;
	vk_engine_account(g->run->q->app->engine, op);
	if (op->error.st) note_failure(g->run, &op->error);
	one_less(g->run);
}

static void cancel_group(struct group *g)
{
	struct vk_error err;
	struct vk_text_run *run = g->run;
	if (!vk_op_cancel(run->q->app->engine, &g->op)) return; /* done comes, or has come */
	if (run->why == VK_GONE_HANGUP)
		vk_fail(&err, VK_E_CANCELLED, "The client closed the connection.");
	else if (run->why == VK_GONE_SHUTDOWN)
		vk_fail(&err, VK_E_UNAVAILABLE, "Service error: the server is shutting down; what was embedded is kept");
	else
		vk_fail(&err, VK_E_DEADLINE,
			"Service error: the deadline passed before all texts were embedded; what is done is kept, send the same "
			"request again to go on");
	err.retry_after_ms = 1000;
	g->op.error = err;
	on_done(&g->op);
}

void vk_texts_cancel(struct vk_qd *q, enum vk_gone why)
{
	struct vk_text_run *run = q->run;
	if (!run) return;
	pthread_mutex_lock(&run->lock);
	bool first = !run->cancelled;
	run->cancelled = true;
	if (first) run->why = why;
	pthread_mutex_unlock(&run->lock);
	for (size_t i = 0; first && i < run->groups; i++) {
		pthread_mutex_lock(&run->lock);
		bool started = run->group[i].started;
		run->group[i].started = false;
		pthread_mutex_unlock(&run->lock);
		if (started) cancel_group(&run->group[i]);
	}
}

/* A cancel that came while it was being started is ours to carry out. */
static void start_group(struct group *g)
{
	struct vk_text_run *run = g->run;
	atomic_fetch_add(&run->pending, 1);
	vk_op_start(run->q->app->engine, &g->op, on_done, g);
	pthread_mutex_lock(&run->lock);
	bool cancel = run->cancelled;
	g->started = !cancel;
	pthread_mutex_unlock(&run->lock);
	if (cancel) cancel_group(g);
}

void vk_texts_run(struct vk_qd *q, void (*then)(struct vk_qd *q))
{
	struct vk_error err;
	const struct vk_auth *auth = q->req->auth;
	bool may = !auth || auth->scopes & (VK_SCOPE_EMBED | VK_SCOPE_ADMIN);
	struct vk_text_run *run = vk_arena_calloc(&q->req->arena, 1, sizeof *run);
	if (!run || !may) {
		if (may)
			vk_fail(&err, VK_E_NOMEM, "out of memory");
		else
			vk_fail(&err, VK_E_FORBIDDEN, "Forbidden: texts are embedded, and this key lacks the scope `embed`");
		vk_qd_fail(q, &err);
		return;
	}
	run->q = q;
	run->then = then;
	run->registry = vk_app_registry(q->app);
	pthread_mutex_init(&run->lock, NULL);
	atomic_store(&run->pending, 1);
	enum vk_status st = make_groups(run, &err);
	for (size_t i = 0; i < run->groups && !st; i++) st = set_up(&run->group[i], &err);
	if (st) {
		vk_registry_unref(run->registry);
		vk_qd_fail(q, &err);
		return;
	}
	q->run = run; /* from here on a cancel finds it */
	for (size_t i = 0; i < run->groups; i++) {
		if (run->group[i].op.missing)
			start_group(&run->group[i]);
		else
			vk_engine_account(q->app->engine, &run->group[i].op);
	}
	one_less(run);
}
