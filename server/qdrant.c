/*
 * A request of the Qdrant face from its first byte to its last: new, on its way, ended.
 *
 * Who may end it. Until vk_qd_go() the handler owns the request and ends it on its own thread (stage HERE: the reply goes out when the
 * handler returns). From then on it is AWAY: exactly one party holds it at any time (the texts' run, the pool's job, the
 * collection's writer), and that one ends it with vk_req_finish(). The park's thread never ends a request: it says why through
 * `gone`, sets `stop` and cancels the texts, and the holder comes to its end soon. A write that is queued is not
 * called back: its commit is milliseconds away, and its answer is then simply not read.
 *
 * A reply from a writer's thread may not close a collection (the writer would wait for itself): its reference goes onto
 * app->parted, a lock-free stack that the pool empties; the tick looks, too, should the pool's queue be full.
 *
 * What it may ask for, Qdrant's words for errors, and the envelope: qdrant_admit.c, qdrant_error.c, qdrant_reply.c.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "server/qdrant_internal.h"

#define PARSE_HERE_MAX ((size_t)256 << 10) /* larger bodies are read on the pool */

enum stage { HERE, AWAY };

/* --- letting go --- */

static void drain_job(void *arg)
{
	vk_qd_part(arg);
}

void vk_qd_part(struct vk_app *app)
{
	struct vk_parted *p = atomic_exchange(&app->parted, NULL);
	while (p) {
		struct vk_parted *next = p->next;
		vk_collection_unref(p->c);
		free(p);
		p = next;
	}
}

static void leave(struct vk_app *app, struct vk_parted *p, struct vk_collection *c)
{
	struct vk_parted *top = atomic_load(&app->parted);
	p->c = c;
	do p->next = top;
	while (!atomic_compare_exchange_weak(&app->parted, &top, p));
	/* Whoever found it empty calls the pool; with a full queue the tick comes by. */
	if (!top) (void)vk_pool_submit(app->pool, drain_job, app);
}

static void let_go(struct vk_qd *q)
{
	if (q->flow && q->flow_free) q->flow_free(q->flow);
	q->flow = NULL;
	vk_json_free(q->doc);
	vk_json_free(q->made[0]);
	vk_json_free(q->made[1]);
	q->doc = q->made[0] = q->made[1] = NULL;
	if (q->conf) vk_colconf_unref(q->conf);
	q->conf = NULL;
	if (q->c && q->parted) leave(q->app, q->parted, q->c);
	else if (q->c) vk_collection_unref(q->c);
	else free(q->parted);
	q->c = NULL;
	q->parted = NULL;
}

void vk_qd_end(struct vk_qd *q)
{
	struct vk_req *req = q->req;
	bool away = atomic_load(&q->stage) == AWAY;
	let_go(q);
	if (away) vk_req_finish(req);
}

/* --- a new request --- */

static enum vk_status open_collection(struct vk_qd *q, struct vk_error *err)
{
	enum vk_status st = vk_qd_name(q, err);
	if (!st) st = vk_qd_collection(q, q->name, &q->c, err);
	if (!st && !(q->conf = vk_collection_config(q->c))) st = vk_fail(err, VK_E_NOMEM, "out of memory");
	return st;
}

static enum vk_status parse_body(struct vk_qd *q, struct vk_error *err)
{
	if (!q->req->body.n) return VK_OK;
	static const struct vk_json_opts keep = {.object_spans = true};
	enum vk_status st = vk_json_parse(&q->req->arena, q->req->body, &keep, &q->doc, err);
	if (st == VK_E_INVALID) vk_qd_prefix(err, "Format error in JSON body: ");
	if (st) return st;
	q->body = vk_json_root(q->doc);
	if (vk_jv_type(q->body) != VK_J_OBJECT) return vk_qd_format(err, "expected an object");
	return VK_OK;
}

static struct vk_qd *refuse(struct vk_req *req, const struct vk_error *err)
{
	vk_qd_error(req, err);
	return NULL;
}

/* All but the body. */
static struct vk_qd *begin(struct vk_app *app, struct vk_req *req, bool with_collection, bool body_required)
{
	struct vk_error err = {0};
	struct vk_qd *q = vk_arena_calloc(&req->arena, 1, sizeof *q);
	if (!q) {
		vk_fail(&err, VK_E_NOMEM, "out of memory; try again shortly");
		return refuse(req, &err);
	}
	q->app = app;
	q->req = req;
	q->name = vk_req_param(req, "collection_name");
	q->texts_tail = &q->texts;
	req->user = q;
	enum vk_status st = vk_qd_url_params(q, &err);
	if (!st && body_required && !req->body.n)
		st = vk_qd_format(&err, "EOF while parsing a value at line 1 column 0");
	if (!st && with_collection) st = open_collection(q, &err);
	if (!st) return q;
	let_go(q);
	return refuse(req, &err);
}

struct vk_qd *vk_qd_new(struct vk_app *app, struct vk_req *req, bool with_collection, bool body_required)
{
	struct vk_error err = {0};
	struct vk_qd *q = begin(app, req, with_collection, body_required);
	if (!q || !parse_body(q, &err)) return q;
	let_go(q);
	return refuse(req, &err);
}

/* --- on its way --- */

static void gone(struct vk_req *req, enum vk_gone why)
{
	struct vk_qd *q = req->user;
	atomic_store(&q->gone, 1 + (int)why);
	atomic_store(&q->stop, true);
	vk_texts_cancel(q, why);
}

static uint64_t deadline_of(const struct vk_qd *q)
{
	uint64_t ms = q->app->config.deadline_ms;
	if (q->timeout_ms && q->timeout_ms < ms) ms = q->timeout_ms;
	return q->req->start_us / 1000 + ms;
}

static void run_work(void *arg)
{
	struct vk_qd *q = arg;
	struct vk_error err;
	if (!atomic_load(&q->stop)) {
		vk_qd_work(q);
		return;
	}
	vk_fail(&err, VK_E_CANCELLED, "the request was given up before its turn came");
	vk_qd_fail(q, &err);
}

static void to_pool(struct vk_qd *q, vk_pool_fn *fn)
{
	struct vk_error err;
	if (!vk_pool_submit(q->chore ? q->app->chores : q->app->pool, fn, q)) return;
	vk_fail(&err, VK_E_BUSY, "Service error: the server has too much to do; try again shortly");
	err.retry_after_ms = 1000;
	vk_qd_fail(q, &err);
}

static void work_next(struct vk_qd *q)
{
	to_pool(q, run_work);
}

/* Where the request goes after decoding, on whichever thread that was. */
static void go_on(struct vk_qd *q)
{
	if (q->texts) vk_texts_run(q, work_next);
	else work_next(q);
}

void vk_qd_go(struct vk_qd *q, void (*work)(struct vk_qd *q))
{
	struct vk_req *req = q->req;
	uint64_t deadline_ms = deadline_of(q);
	q->work = work;
	atomic_store(&q->stage, AWAY);
	go_on(q); /* q may be over before this returns; req is not, until this handler is */
	vk_req_park(req, deadline_ms, gone);
}

void vk_qd_chore(struct vk_qd *q, void (*work)(struct vk_qd *q))
{
	q->chore = true;
	vk_qd_go(q, work);
}

void vk_qd_run(struct vk_qd *q, void (*work)(struct vk_qd *q))
{
	work(q);
}

static void read_on_pool(void *arg)
{
	struct vk_qd *q = arg;
	struct vk_error err = {0};
	enum vk_status st = parse_body(q, &err);
	if (!st) st = q->decode(q, &err);
	if (st) vk_qd_fail(q, &err);
	else if (q->texts) vk_texts_run(q, work_next);
	else run_work(q); /* this is the pool already */
}

void vk_qd_serve(struct vk_app *app, struct vk_req *req, bool with_collection, bool body_required,
		 enum vk_status (*decode)(struct vk_qd *q, struct vk_error *err), void (*work)(struct vk_qd *q))
{
	struct vk_error err = {0};
	struct vk_qd *q = begin(app, req, with_collection, body_required);
	if (!q) return;
	q->work = work;
	q->decode = decode;
	if (req->body.n > PARSE_HERE_MAX) {
		uint64_t deadline_ms = deadline_of(q);
		atomic_store(&q->stage, AWAY);
		to_pool(q, read_on_pool);
		vk_req_park(req, deadline_ms, gone);
		return;
	}
	enum vk_status st = parse_body(q, &err);
	if (!st) st = decode(q, &err);
	if (st) vk_qd_fail(q, &err);
	else if (vk_qd_is_light(q)) vk_qd_work(q);
	else vk_qd_go(q, work);
}

/* --- writes --- */

struct write {
	struct vk_write w;
	struct vk_qd *q;
	void (*done)(struct vk_qd *q, const struct vk_write *w);
};

static void written(struct vk_write *w)
{
	struct write *mine = w->arg;
	if (w->st) vk_qd_fail(mine->q, &w->err);
	else mine->done(mine->q, w);
}

void vk_qd_write(struct vk_qd *q, struct vk_op_in *ops, size_t n, void (*done)(struct vk_qd *q, const struct vk_write *w))
{
	struct vk_error err = {0};
	enum vk_status st = vk_qd_settle(q, ops, n, &err);
	struct write *mine = vk_arena_calloc(&q->req->arena, 1, sizeof *mine);
	if (!st && mine) q->parted = malloc(sizeof *q->parted);
	if (!st && (!mine || !q->parted)) st = vk_fail(&err, VK_E_NOMEM, "out of memory; try again shortly");
	if (st) {
		vk_qd_fail(q, &err);
		return;
	}
	mine->q = q;
	mine->done = done;
	mine->w = (struct vk_write){.op = ops, .op_n = n, .conf = q->conf, .now_ms = vk_wall_ms(), .done = written, .arg = mine};
	vk_collection_write(q->c, &mine->w);
}
