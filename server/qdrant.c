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
 */
#include "server/qdrant.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "base/utf8.h"
#include "server/error.h"

#define PARSE_HERE_MAX ((size_t)256 << 10) /* larger bodies are read on the pool */
#define NAME_SHOWN 300

enum stage { HERE, AWAY };

/* --- errors --- */

static const char *const prefixes[] = {
	"Wrong input: ", "Not found: ", "Format error in ", "Validation error in ", "Deserialize error in ", "Bad request: ",
	"Service internal error: ", "Service error: ", "Forbidden: ", "Timeout: ", "Conflict: ", "Unauthorized: ", "Checksum mismatch: ",
	"Insufficient storage: ", "Rate limiting exceeded: ", "Pre-condition failure: ",
};

static bool has_prefix(const char *text)
{
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
		if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0) return true;
	return false;
}

static const char *prefix_of(int http)
{
	switch (http) {
	case 404: return "Not found: ";
	case 403: return "Forbidden: ";
	case 408: return "Timeout: ";
	case 429: return "Rate limiting exceeded: ";
	case 507: return "Insufficient storage: ";
	default: return http >= 500 ? "Service internal error: " : "Wrong input: ";
	}
}

/* The text with `prefix` before it, cut where it must be, never in the middle of a character. */
static void put_prefix(struct vk_error *e, const char *prefix)
{
	char text[VK_ERROR_TEXT_MAX];
	size_t p = strlen(prefix), n = strlen(e->text), room = sizeof text - 1 - p;
	if (n > room) n = vk_utf8_valid(e->text, room);
	memcpy(text, prefix, p);
	memcpy(text + p, e->text, n);
	text[p + n] = 0;
	memcpy(e->text, text, p + n + 1);
}

static enum vk_status fail_with(struct vk_error *err, int http, const char *prefix, const char *fmt, va_list ap)
{
	char text[VK_ERROR_TEXT_MAX];
	vsnprintf(text, sizeof text, fmt, ap);
	text[vk_utf8_valid(text, strlen(text))] = 0;
	vk_fail(err, VK_E_INVALID, "%s", text);
	if (!err) return VK_E_INVALID;
	put_prefix(err, prefix);
	err->http = http;
	return VK_E_INVALID;
}

enum vk_status vk_qd_format(struct vk_error *err, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	enum vk_status st = fail_with(err, 400, "Format error in JSON body: ", fmt, ap);
	va_end(ap);
	return st;
}

enum vk_status vk_qd_wrong(struct vk_error *err, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	enum vk_status st = fail_with(err, 400, "Wrong input: ", fmt, ap);
	va_end(ap);
	return st;
}

enum vk_status vk_qd_validation(struct vk_error *err, const char *field, const char *fmt, ...)
{
	char why[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	why[vk_utf8_valid(why, strlen(why))] = 0;
	vk_fail(err, VK_E_INVALID, "Validation error in JSON body: [%.200s: %s]", field, why);
	if (err) err->http = 422;
	return VK_E_INVALID;
}

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

static void end(struct vk_qd *q)
{
	struct vk_req *req = q->req;
	bool away = atomic_load(&q->stage) == AWAY;
	let_go(q);
	if (away) vk_req_finish(req);
}

/* --- replies --- */

void vk_qd_begin(struct vk_qd *q, struct vk_jw *w)
{
	struct vk_reply *r = &q->req->reply;
	vk_buf_free(&r->body);
	vk_buf_init(&r->body, VK_LIMIT_REPLY_BYTES);
	r->status = 200;
	vk_jw_init(w, &r->body);
	vk_jw_object(w);
	vk_jw_key(w, "result");
}

/* Qdrant's usage of inference: what was embedded for this request. */
static void write_usage(struct vk_qd *q, struct vk_jw *w)
{
	const struct vk_qd_text *t = q->texts;
	if (!t || !q->tokens) return;
	struct vk_bytes model = t->model.n ? t->model : vk_bytes_of(t->vector->space ? t->vector->space : "default");
	const char *name = vk_arena_strndup(&q->req->arena, model.p, model.n);
	vk_jw_key(w, "usage");
	vk_jw_object(w);
	vk_jw_key(w, "inference");
	vk_jw_object(w);
	vk_jw_key(w, "models");
	vk_jw_object(w);
	vk_jw_key(w, name ? name : "default");
	vk_jw_object(w);
	vk_jw_ki(w, "tokens", (int64_t)q->tokens);
	vk_jw_object_end(w);
	vk_jw_object_end(w);
	vk_jw_object_end(w);
	vk_jw_object_end(w);
}

static void write_tail(struct vk_qd *q, struct vk_jw *w, const char *status)
{
	vk_jw_kv(w, "status", status);
	vk_jw_kf(w, "time", (double)(vk_mono_us() - q->req->start_us) / 1e6);
	write_usage(q, w);
	vk_jw_object_end(w);
}

void vk_qd_reply(struct vk_qd *q, struct vk_jw *w)
{
	write_tail(q, w, "ok");
	end(q);
}

void vk_qd_end(struct vk_qd *q)
{
	end(q);
}

void vk_qd_reply_bool(struct vk_qd *q, bool result)
{
	struct vk_jw w;
	vk_qd_begin(q, &w);
	vk_jw_bool(&w, result);
	vk_qd_reply(q, &w);
}

void vk_qd_reply_update(struct vk_qd *q, uint64_t operation_id)
{
	struct vk_jw w;
	vk_qd_begin(q, &w);
	vk_jw_object(&w);
	vk_jw_key(&w, "operation_id");
	vk_jw_u64(&w, operation_id);
	vk_jw_kv(&w, "status", q->wait ? "completed" : "acknowledged");
	vk_jw_object_end(&w);
	vk_qd_reply(q, &w);
}

void vk_qd_reply_accepted(struct vk_qd *q)
{
	struct vk_reply *r = &q->req->reply;
	struct vk_jw w;
	vk_buf_free(&r->body);
	vk_buf_init(&r->body, VK_LIMIT_REPLY_BYTES);
	r->status = 202;
	vk_jw_init(&w, &r->body);
	vk_jw_object(&w);
	write_tail(q, &w, "accepted");
	end(q);
}

/* What a stopped request is told depends on who stopped it. */
static void say_why(struct vk_qd *q, struct vk_error *e)
{
	int gone = atomic_load(&q->gone);
	if (e->st != VK_E_CANCELLED || !gone) return;
	if (gone - 1 == VK_GONE_DEADLINE) {
		vk_fail(e, VK_E_CANCELLED, "Timeout: Operation timed out after %llu seconds",
			(unsigned long long)((vk_mono_us() - q->req->start_us + 500000) / 1000000));
		e->http = 408;
	} else if (gone - 1 == VK_GONE_SHUTDOWN) {
		vk_fail(e, VK_E_UNAVAILABLE, "Service error: the server is shutting down; send the request again");
		e->retry_after_ms = 1000;
	}
}

static void fill_error(struct vk_req *req, const struct vk_error *err)
{
	struct vk_error e = *err;
	int http = e.http ? e.http : vk_status_http(e.st);
	if (!has_prefix(e.text)) put_prefix(&e, prefix_of(http));
	vk_reply_error(req, &e);
}

void vk_qd_fail(struct vk_qd *q, const struct vk_error *err)
{
	struct vk_error e = *err;
	say_why(q, &e);
	if (e.st == VK_E_IO && !e.http && q->c) vk_qd_storage(&e, q->name);
	fill_error(q->req, &e);
	end(q);
}

/* --- a new request --- */

/* '*' is any bytes, none too. */
static bool fits(struct vk_bytes pattern, struct vk_bytes name)
{
	size_t p = 0, n = 0, star = SIZE_MAX, back = 0;
	while (n < name.n) {
		if (p < pattern.n && pattern.p[p] == '*') {
			star = p++;
			back = n;
		} else if (p < pattern.n && pattern.p[p] == name.p[n]) {
			p++, n++;
		} else if (star != SIZE_MAX) {
			p = star + 1;
			n = ++back;
		} else {
			return false;
		}
	}
	while (p < pattern.n && pattern.p[p] == '*') p++;
	return p == pattern.n;
}

enum vk_status vk_qd_access(const struct vk_req *req, struct vk_bytes name, struct vk_error *err)
{
	const char *list = req->auth && req->auth->collections ? req->auth->collections : "*";
	while (*list) {
		size_t n = strcspn(list, ",");
		struct vk_bytes one = {list, n};
		while (one.n && *one.p == ' ') one.p++, one.n--;
		while (one.n && one.p[one.n - 1] == ' ') one.n--;
		if (one.n && fits(one, name)) return VK_OK;
		list += n + (list[n] == ',');
	}
	return vk_fail(err, VK_E_FORBIDDEN, "Forbidden: Access to collection %.*s is required",
		       (int)(name.n < NAME_SHOWN ? vk_utf8_valid(name.p, name.n) : vk_utf8_valid(name.p, NAME_SHOWN)), name.p);
}

static enum vk_status bad_param(struct vk_error *err, const char *name, const char *why)
{
	return vk_fail(err, VK_E_INVALID, "Deserialize error in query parameters: %s: %s", name, why);
}

static bool one_of(struct vk_bytes s, const char *const *words)
{
	for (; *words; words++)
		if (vk_bytes_is(s, *words)) return true;
	return false;
}

static bool read_whole(struct vk_bytes s, uint64_t *out)
{
	*out = 0;
	if (!s.n || s.n > 18) return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9') return false;
		*out = *out * 10 + (uint64_t)(s.p[i] - '0');
	}
	return true;
}

/* ?wait, ?timeout, ?ordering, ?consistency: one node keeps every promise of the last two. */
static enum vk_status read_params(struct vk_qd *q, struct vk_error *err)
{
	static const char *const orderings[] = {"weak", "medium", "strong", NULL};
	static const char *const levels[] = {"majority", "quorum", "all", NULL};
	if (!q->req->query.n) return VK_OK;
	uint64_t n;
	struct vk_bytes wait = vk_req_query(q->req, "wait"), timeout = vk_req_query(q->req, "timeout");
	struct vk_bytes ordering = vk_req_query(q->req, "ordering"), level = vk_req_query(q->req, "consistency");
	q->wait = vk_bytes_is(wait, "true");
	if (wait.p && !q->wait && !vk_bytes_is(wait, "false"))
		return bad_param(err, "wait", "provided string was not `true` or `false`");
	if (ordering.p && !one_of(ordering, orderings))
		return bad_param(err, "ordering", "unknown variant, expected one of `weak`, `medium`, `strong`");
	if (level.p && !one_of(level, levels) && (!read_whole(level, &n) || !n))
		return bad_param(err, "consistency", "expected a positive number, `majority`, `quorum` or `all`");
	if (!timeout.p) return VK_OK;
	if (!read_whole(timeout, &n)) return bad_param(err, "timeout", "invalid digit found in string");
	if (!n) {
		vk_fail(err, VK_E_INVALID, "Validation error in query parameters: [timeout: value 0 invalid, must be 1 or larger]");
		err->http = 422;
		return VK_E_INVALID;
	}
	q->timeout_ms = n < 1000000 ? n * 1000 : 1000000000;
	return VK_OK;
}

enum vk_status vk_qd_name(struct vk_qd *q, struct vk_error *err)
{
	struct vk_error why = {0};
	enum vk_status st = vk_collection_name_check(q->name, &why);
	if (!st) return vk_qd_access(q->req, q->name, err);
	const char *text = why.text, *prefix = "Wrong input: ";
	if (strncmp(text, prefix, strlen(prefix)) == 0) text += strlen(prefix);
	vk_fail(err, st, "Validation error in path parameters: [collection_name: %.500s]", text);
	err->http = 422;
	return st;
}

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
	if (st == VK_E_INVALID) put_prefix(err, "Format error in JSON body: ");
	if (st) return st;
	q->body = vk_json_root(q->doc);
	if (vk_jv_type(q->body) != VK_J_OBJECT) return vk_qd_format(err, "expected an object");
	return VK_OK;
}

static struct vk_qd *refuse(struct vk_req *req, const struct vk_error *err)
{
	fill_error(req, err);
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
	enum vk_status st = read_params(q, &err);
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
		q->work(q);
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
