/*
 * Snapshots of one collection: make, list, download, delete, upload, recover. Full-storage snapshots are POST /v1/backup here.
 *
 * ?wait (true unless said otherwise, unlike on writes) false: 202 at once, the work goes on as a task of its own.
 * Recovery reads local files only: an upload, or a file that is in the snapshots directory already. A URL to elsewhere is refused: a
 * server that fetches what its clients name is a way into the network it stands in.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "server/flows_qdrant.h"
#include "server/multipart.h"
#include "server/qdrant.h"
#include "server/request.h"
#include "store/file.h"

#define SHA256_HEX 64

/* --- the list --- */

static void put_snapshot(struct vk_jw *w, const struct vk_snapshot *s)
{
	char time[32];
	struct tm tm;
	time_t t = (time_t)(s->created_ms / 1000);
	gmtime_r(&t, &tm);
	strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &tm);
	vk_jw_object(w);
	vk_jw_kv(w, "name", s->name);
	vk_jw_kv(w, "creation_time", time);
	vk_jw_key(w, "size");
	vk_jw_u64(w, s->bytes);
	vk_jw_kv(w, "checksum", s->sha256[0] ? s->sha256 : NULL);
	vk_jw_object_end(w);
}

static bool put_one(void *arg, const struct vk_snapshot *s)
{
	put_snapshot(arg, s);
	return true;
}

static void list(struct vk_qd *q)
{
	struct vk_jw w;
	struct vk_error err = {0};
	vk_qd_begin(q, &w);
	vk_jw_array(&w);
	enum vk_status st = vk_snapshot_each(q->app->collections, q->name, put_one, &w);
	vk_jw_array_end(&w);
	if (!st) {
		vk_qd_reply(q, &w);
		return;
	}
	vk_fail(&err, st, "the list of snapshots cannot be read: %s", vk_status_text(st));
	vk_qd_fail(q, &err);
}

void vk_flow_snapshots(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, false);
	if (q) vk_qd_chore(q, list);
}

/* --- work that goes on without its request --- */

enum task_kind { CREATE, DELETE, RECOVER };

struct task {
	enum task_kind kind;
	struct vk_app *app;
	char collection[VK_NAME_MAX + 1], name[320];
	char path[PATH_MAX];
	bool unlink_path;
	char checksum[SHA256_HEX + 1];
	struct vk_snapshot made;
	struct vk_bytes upload; /* of the request's body, until it is in a file */
	bool wait;
};

static void drop_task(void *arg)
{
	struct task *t = arg;
	if (t->unlink_path) unlink(t->path);
	free(t);
}

static enum vk_status run_task(struct task *t, struct vk_error *err)
{
	struct vk_collections *cs = t->app->collections;
	struct vk_bytes collection = vk_bytes_of(t->collection);
	switch (t->kind) {
	case CREATE: return vk_snapshot_create(cs, collection, vk_wall_ms(), &t->made, err);
	case DELETE: return vk_snapshot_delete(cs, collection, vk_bytes_of(t->name), err);
	case RECOVER:
		return vk_snapshot_recover(cs, collection, t->path, vk_bytes_of(t->checksum), vk_wall_ms(), err);
	}
	return VK_E_INTERNAL;
}

/* A name that is none leads to no file. */
static void as_missing(const struct task *t, struct vk_error *err)
{
	if (t->kind == DELETE && err->st == VK_E_INVALID)
		vk_fail(err, VK_E_NOT_FOUND, "Not found: Snapshot %.200s not found", t->name);
}

static void waited(struct vk_qd *q)
{
	struct task *t = q->flow;
	struct vk_error err = {0};
	struct vk_jw w;
	enum vk_status st = run_task(t, &err);
	if (st) {
		as_missing(t, &err);
		vk_qd_fail(q, &err);
	} else if (t->kind == CREATE) {
		vk_qd_begin(q, &w);
		put_snapshot(&w, &t->made);
		vk_qd_reply(q, &w);
	} else {
		vk_qd_reply_bool(q, true);
	}
}

static void unwaited(void *arg)
{
	struct task *t = arg;
	struct vk_error err = {0};
	if (run_task(t, &err)) vk_log(VK_LOG_ERROR, "snapshot of collection %s: %s", t->collection, err.text);
	drop_task(t);
}

/* The request's, to be freed with it. NULL: it has failed. */
static struct task *new_task(struct vk_qd *q, enum task_kind kind)
{
	struct vk_error err;
	struct task *t = calloc(1, sizeof *t);
	if (!t) {
		vk_fail(&err, VK_E_NOMEM, "out of memory; try again shortly");
		vk_qd_fail(q, &err);
		return NULL;
	}
	t->kind = kind;
	t->app = q->app;
	t->wait = !vk_bytes_is(vk_req_query(q->req, "wait"), "false");
	snprintf(t->collection, sizeof t->collection, "%.*s", (int)q->name.n, q->name.p);
	q->flow = t;
	q->flow_free = drop_task;
	return t;
}

/* Queues the task for itself and answers. */
static void leave(struct vk_qd *q)
{
	struct vk_error err;
	struct task *t = q->flow;
	q->flow = NULL; /* the queue's, from here on */
	if (!vk_pool_submit(q->app->chores, unwaited, t)) {
		vk_qd_reply_accepted(q);
		return;
	}
	drop_task(t);
	vk_fail(&err, VK_E_BUSY, "Service error: the server has too much to do; try again shortly");
	vk_qd_fail(q, &err);
}

static void start(struct vk_qd *q, struct task *t)
{
	if (t->wait) vk_qd_chore(q, waited);
	else leave(q);
}

void vk_flow_snapshot_create(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, false);
	struct task *t = q ? new_task(q, CREATE) : NULL;
	if (t) start(q, t);
}

void vk_flow_snapshot_delete(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, false);
	struct task *t = q ? new_task(q, DELETE) : NULL;
	struct vk_bytes name = vk_req_param(req, "snapshot_name");
	if (!t) return;
	snprintf(t->name, sizeof t->name, "%.*s", (int)(name.n < sizeof t->name ? name.n : sizeof t->name - 1), name.p);
	start(q, t);
}

/* --- download --- */

struct download {
	int fd;
};

static int64_t read_file(void *arg, uint64_t offset, char *dst, size_t n)
{
	struct download *d = arg;
	ssize_t got;
	do got = pread(d->fd, dst, n, (off_t)offset);
	while (got < 0 && errno == EINTR);
	return got;
}

static void close_file(void *arg)
{
	struct download *d = arg;
	close(d->fd);
	free(d);
}

static void download(struct vk_qd *q)
{
	struct vk_error err = {0};
	struct vk_reply *r = &q->req->reply;
	struct vk_bytes name = vk_req_param(q->req, "snapshot_name");
	char path[4096];
	struct download *d = malloc(sizeof *d);
	enum vk_status st = d ? VK_OK : vk_fail(&err, VK_E_NOMEM, "out of memory; try again shortly");
	if (!st) st = vk_snapshot_path(q->app->collections, q->name, name, path, &err);
	int fd = st ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) {
		free(d);
		if (!st || st == VK_E_INVALID || st == VK_E_NOT_FOUND)
			vk_fail(&err, VK_E_NOT_FOUND, "Not found: Snapshot %.*s not found", (int)(name.n < 200 ? name.n : 200), name.p);
		vk_qd_fail(q, &err);
		return;
	}
	d->fd = fd;
	vk_buf_free(&r->body);
	r->status = 200;
	r->content_type = "application/octet-stream";
	r->read = read_file;
	r->read_free = close_file;
	r->read_arg = d;
	/* The name has passed the check of names: no quotes, no control characters. */
	vk_reply_headerf(q->req, "Content-Disposition", "attachment; filename=\"%.*s\"", (int)name.n, name.p);
	vk_qd_end(q);
}

void vk_flow_snapshot_get(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, false);
	if (q) vk_qd_run(q, download);
}

/* --- upload --- */

static bool is_hex(struct vk_bytes s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!strchr("0123456789abcdefABCDEF", s.p[i])) return false;
	return s.n == SHA256_HEX;
}

static enum vk_status take_checksum(struct task *t, struct vk_bytes sum, const char *where, struct vk_error *err)
{
	if (!sum.n) return VK_OK;
	if (!is_hex(sum)) {
		vk_fail(err, VK_E_INVALID, "Validation error in %s: [checksum: invalid sha256 hash]", where);
		err->http = 422;
		return VK_E_INVALID;
	}
	memcpy(t->checksum, sum.p, sum.n);
	return VK_OK;
}

static enum vk_status write_upload(struct task *t, struct vk_bytes data, struct vk_error *err)
{
	uint64_t r;
	vk_random(&r, sizeof r);
	snprintf(t->path, sizeof t->path, "%.4000s/snapshots", t->app->datadir.path);
	enum vk_status made = vk_dir_make(t->path, err); /* the first snapshot here may be somebody else's */
	if (made) return made;
	snprintf(t->path, sizeof t->path, "%.4000s/snapshots/upload-%016llx.tmp", t->app->datadir.path, (unsigned long long)r);
	int fd = open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return vk_fail(err, errno == ENOSPC || errno == EDQUOT ? VK_E_NO_SPACE : VK_E_IO, "the upload cannot be written: %s",
			       strerror(errno));
	t->unlink_path = true;
	while (data.n) {
		ssize_t n = write(fd, data.p, data.n);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) {
			enum vk_status st = errno == ENOSPC || errno == EDQUOT ? VK_E_NO_SPACE : VK_E_IO;
			vk_fail(err, st, "the upload cannot be written: %s", strerror(errno));
			close(fd);
			return st;
		}
		data.p += n;
		data.n -= (size_t)n;
	}
	return close(fd) ? vk_fail(err, VK_E_IO, "the upload cannot be written: %s", strerror(errno)) : VK_OK;
}

/* The body is the request's: the file is written before anybody is told that it was accepted. */
static void upload(struct vk_qd *q)
{
	struct task *t = q->flow;
	struct vk_error err = {0};
	if (write_upload(t, t->upload, &err)) vk_qd_fail(q, &err);
	else if (t->wait) waited(q);
	else leave(q);
}

static enum vk_status read_upload(struct vk_qd *q, struct task *t, struct vk_bytes body, struct vk_error *err)
{
	struct vk_error why = {0};
	enum vk_status st = vk_qd_name(q, err);
	if (!st) st = take_checksum(t, vk_req_query(q->req, "checksum"), "query parameters", err);
	if (st) return st;
	if (!vk_multipart_part(vk_req_header(q->req, "Content-Type"), body, "snapshot", &t->upload, &why)) return VK_OK;
	return vk_fail(err, VK_E_INVALID, "Bad request: %.700s", why.text);
}

void vk_flow_snapshot_upload(void *app, struct vk_req *req)
{
	struct vk_error err = {0};
	struct vk_bytes body = req->body;
	req->body = (struct vk_bytes){NULL, 0}; /* no JSON */
	struct vk_qd *q = vk_qd_new(app, req, false, false);
	struct task *t = q ? new_task(q, RECOVER) : NULL;
	if (!t) return;
	if (read_upload(q, t, body, &err)) vk_qd_fail(q, &err);
	else vk_qd_chore(q, upload);
}

/* --- recover --- */

/* file:///path or file://localhost/path -> path. */
static enum vk_status path_of_url(struct vk_qd *q, struct vk_bytes url, char path[PATH_MAX], struct vk_error *err)
{
	static const char scheme[] = "file://", local[] = "localhost";
	struct vk_bytes out;
	if (url.n >= 7 && (strncmp(url.p, "http://", 7) == 0 || strncmp(url.p, "https://", 8) == 0))
		return vk_fail(err, VK_E_FORBIDDEN,
			       "Forbidden: Snapshot recovery from remote URLs is disabled: upload the file (POST "
			       "/collections/{name}/snapshots/upload), or put it into the snapshots directory and name it by file://");
	if (url.n < sizeof scheme - 1 || strncmp(url.p, scheme, sizeof scheme - 1) != 0)
		return vk_fail(err, VK_E_INVALID, "Bad request: Invalid snapshot URI, expected file://");
	url.p += sizeof scheme - 1, url.n -= sizeof scheme - 1;
	if (url.n >= sizeof local - 1 && strncmp(url.p, local, sizeof local - 1) == 0)
		url.p += sizeof local - 1, url.n -= sizeof local - 1;
	if (!url.n || url.p[0] != '/' || vk_percent_decode(&q->req->arena, url, false, &out) || out.n >= PATH_MAX)
		return vk_fail(err, VK_E_INVALID, "Bad request: Invalid snapshot URI, file path must be absolute or on localhost");
	memcpy(path, out.p, out.n);
	path[out.n] = 0;
	return VK_OK;
}

/* The real file, symbolic links followed, must lie below the snapshots directory. */
static enum vk_status check_place(struct vk_app *app, char path[PATH_MAX], struct vk_error *err)
{
	char real[PATH_MAX], dir[PATH_MAX], snapshots[PATH_MAX];
	struct stat s;
	snprintf(snapshots, sizeof snapshots, "%.4000s/snapshots", app->datadir.path);
	if (!realpath(path, real) || stat(real, &s))
		return vk_fail(err, VK_E_INVALID, "Bad request: Snapshot file \"%.500s\" does not exist", path);
	size_t n = realpath(snapshots, dir) ? strlen(dir) : 0;
	if (!n || strncmp(real, dir, n) != 0 || real[n] != '/')
		return vk_fail(err, VK_E_FORBIDDEN, "Forbidden: Snapshot file path must be inside the snapshots directory");
	if (!S_ISREG(s.st_mode)) return vk_fail(err, VK_E_INVALID, "Bad request: \"%.500s\" is no file", path);
	memcpy(path, real, strlen(real) + 1);
	return VK_OK;
}

static enum vk_status read_recover(struct vk_qd *q, struct task *t, struct vk_error *err)
{
	struct vk_bytes url, sum = {0};
	const vk_jv *checksum = vk_jv_get(q->body, "checksum");
	enum vk_status st = vk_qd_name(q, err);
	if (st) return st;
	if (!vk_jv_str(vk_jv_get(q->body, "location"), &url)) return vk_qd_format(err, "missing field `location`");
	if (vk_jv_type(checksum) != VK_J_NULL && !vk_jv_str(checksum, &sum))
		return vk_qd_format(err, "checksum: invalid type, expected a string");
	st = take_checksum(t, sum, "JSON body", err);
	if (!st) st = path_of_url(q, url, t->path, err);
	return st ? st : check_place(q->app, t->path, err);
}

void vk_flow_snapshot_recover(void *app, struct vk_req *req)
{
	struct vk_error err = {0};
	struct vk_qd *q = vk_qd_new(app, req, false, true);
	struct task *t = q ? new_task(q, RECOVER) : NULL;
	if (!t) return;
	if (read_recover(q, t, &err)) vk_qd_fail(q, &err);
	else start(q, t);
}

/* --- of the whole storage --- */

static void full(struct vk_qd *q)
{
	struct vk_error err;
	struct vk_jw w;
	if (q->req->method == VK_GET && !vk_req_param(q->req, "snapshot_name").p) {
		vk_qd_begin(q, &w);
		vk_jw_array(&w);
		vk_jw_array_end(&w);
		vk_qd_reply(q, &w);
		return;
	}
	if (q->req->method == VK_POST) {
		vk_fail(&err, VK_E_INVALID,
			"Bad request: snapshots of the whole storage are not supported: POST /v1/backup makes a backup of everything");
		err.http = 501;
	} else {
		vk_fail(&err, VK_E_NOT_FOUND, "Not found: there are no snapshots of the whole storage: POST /v1/backup makes a backup");
	}
	vk_qd_fail(q, &err);
}

void vk_flow_snapshots_full(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, false, false);
	if (q) vk_qd_run(q, full);
}
