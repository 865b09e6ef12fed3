/*
 * Reading in a collection's view, for every route that does: one place that begins and ends it, gives it its time, and turns a file
 * that cannot be read into an answer.
 *
 * fn may be left in the middle of a read (store/guard.h): it holds no lock, and what it has allocated outside of the request's arena
 * is lost then, which is a leak once per fault. The reply's buffer is the request's and is begun anew by the error.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "server/qdrant.h"

#define NAME_SHOWN 300

enum vk_status vk_qd_storage(struct vk_error *err, struct vk_bytes name)
{
	size_t n = name.n < NAME_SHOWN ? name.n : NAME_SHOWN;
	vk_fail(err, VK_E_IO, "Service error: storage of collection `%.*s` has failed: its file could not be read or written. Its writes are "
			      "refused until it is restored (recover a snapshot, or drop it) or the server has opened it anew; other "
			      "collections are not concerned", (int)vk_utf8_valid(name.p, n), name.p);
	err->http = 503;
	return VK_E_IO;
}

enum vk_status vk_qd_collection(struct vk_qd *q, struct vk_bytes name, struct vk_collection **out, struct vk_error *err)
{
	enum vk_status st = vk_collections_get(q->app->collections, name, out, err);
	if (st != VK_E_IO && st != VK_E_CORRUPT) return st;
	vk_log(VK_LOG_ERROR, "collection %.*s: %s", (int)vk_utf8_valid(name.p, name.n), name.p, err->text);
	return vk_qd_storage(err, name);
}

struct read {
	struct vk_qd *q;
	vk_qd_read_fn *fn;
	struct vk_jw w;
	struct vk_error err;
};

static enum vk_status answer(void *arg, struct vk_view *v)
{
	struct read *r = arg;
	return r->fn(r->q, v, &r->w, &r->err);
}

static void explain(struct vk_qd *q, enum vk_status st, struct vk_error *err)
{
	if (st == VK_E_CANCELLED && !atomic_load(&q->stop)) { /* nobody stopped it: the view's own time */
		vk_fail(err, VK_E_CANCELLED, "Timeout: Operation timed out after %d seconds: ask for less, or create an index for what the "
					     "filter reads", VK_VIEW_MS_MAX / 1000);
		err->http = 408;
	} else if (st == VK_E_CANCELLED) {
		vk_fail(err, st, "the request was given up");
	} else if (!err->st || st == VK_E_IO) {
		vk_fail(err, st, "the collection cannot be read: %s", vk_status_text(st));
	}
}

bool vk_qd_view(struct vk_qd *q, vk_qd_read_fn *fn, struct vk_jw *w)
{
	struct read r = {.q = q, .fn = fn};
	enum vk_status st = vk_view_run(q->c, vk_wall_ms(), &q->stop, answer, &r);
	*w = r.w;
	if (!st) return true;
	if (st != VK_E_IO || !r.err.http) explain(q, st, &r.err);
	vk_qd_fail(q, &r.err);
	return false;
}

void vk_qd_read(struct vk_qd *q, vk_qd_read_fn *fn)
{
	struct vk_jw w;
	if (vk_qd_view(q, fn, &w)) vk_qd_reply(q, &w);
}
