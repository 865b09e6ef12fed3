/*
 * The envelope around every answer of the Qdrant face: result, status, time, and the usage of inference when texts were embedded; or the
 * error, for a stopped request in the words of who stopped it.
 *
 * Whoever holds the request replies, on any thread, and each function here but vk_qd_begin() ends it (vk_qd_end()): q is not to be touched
 * afterwards. The reply's buffer is bounded by VK_LIMIT_REPLY_BYTES; one that is cut off becomes a 500 at the door. Time: seconds since the head
 * was complete.
 */
#include "base/clock.h"
#include "server/qdrant_internal.h"

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
	vk_qd_end(q);
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
	vk_qd_end(q);
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

void vk_qd_fail(struct vk_qd *q, const struct vk_error *err)
{
	struct vk_error e = *err;
	say_why(q, &e);
	if (e.st == VK_E_IO && !e.http && q->c) vk_qd_storage(&e, q->name);
	vk_qd_error(q->req, &e);
	vk_qd_end(q);
}
