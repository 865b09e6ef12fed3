/* What clients ask of a cluster, answered truly by one node; telemetry and issues. */
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "server/flows_qdrant.h"
#include "server/qdrant.h"
#include "server/qdrant_index.h"

static void cluster(struct vk_qd *q)
{
	struct vk_jw w;
	vk_qd_begin(q, &w);
	vk_jw_object(&w);
	vk_jw_kv(&w, "status", "disabled");
	vk_jw_object_end(&w);
	vk_qd_reply(q, &w);
}

void vk_flow_cluster(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, false, false);
	if (q) vk_qd_run(q, cluster);
}

static bool read_stats(struct vk_qd *q, struct vk_collection_stats *s)
{
	struct vk_error err;
	enum vk_status st = vk_collection_stats(q->c, s);
	if (!st) return true;
	vk_fail(&err, st, "the collection cannot be read: %s", vk_status_text(st));
	vk_qd_fail(q, &err);
	return false;
}

static void put_empty(struct vk_jw *w, const char *key)
{
	vk_jw_key(w, key);
	vk_jw_array(w);
	vk_jw_array_end(w);
}

static void collection_cluster(struct vk_qd *q)
{
	struct vk_collection_stats s;
	struct vk_jw w;
	if (!read_stats(q, &s)) return;
	vk_qd_begin(q, &w);
	vk_jw_object(&w);
	vk_jw_ki(&w, "peer_id", 0);
	vk_jw_ki(&w, "shard_count", 1);
	vk_jw_key(&w, "local_shards");
	vk_jw_array(&w);
	vk_jw_object(&w);
	vk_jw_ki(&w, "shard_id", 0);
	vk_jw_key(&w, "points_count");
	vk_jw_u64(&w, s.points);
	vk_jw_kv(&w, "state", "Active");
	vk_jw_object_end(&w);
	vk_jw_array_end(&w);
	put_empty(&w, "remote_shards");
	put_empty(&w, "shard_transfers");
	vk_jw_object_end(&w);
	vk_qd_reply(q, &w);
}

void vk_flow_collection_cluster(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, false);
	if (q) vk_qd_go(q, collection_cluster);
}

/* --- optimizations: what seals rows and builds payload indexes is not told one by one --- */

/* ?with=queued,completed,idle_segments */
static bool has_word(struct vk_bytes list, const char *word)
{
	size_t n = strlen(word);
	for (const char *p = list.p, *end = p + list.n; p < end;) {
		const char *comma = memchr(p, ',', (size_t)(end - p)), *stop = comma ? comma : end, *last = stop;
		while (p < last && *p == ' ') p++;
		while (last > p && last[-1] == ' ') last--;
		if ((size_t)(last - p) == n && memcmp(p, word, n) == 0) return true;
		p = stop + 1;
	}
	return false;
}

#define NO_UUID "00000000-0000-0000-0000-"

static void put_segment(struct vk_jw *w, uint32_t set, uint64_t points)
{
	char uuid[40];
	snprintf(uuid, sizeof uuid, NO_UUID "%012x", set);
	vk_jw_object(w);
	vk_jw_kv(w, "uuid", uuid);
	vk_jw_key(w, "points_count");
	vk_jw_u64(w, points);
	vk_jw_object_end(w);
}

static bool is_running(const struct vk_qd_index *x)
{
	return x->info.state == VK_ANN_BUILDING && x->info.total;
}

/* A vector's index that is being built. Its rows stand for a segment. */
static void put_running(struct vk_jw *w, const struct vk_qd_index *x)
{
	char uuid[40];
	snprintf(uuid, sizeof uuid, NO_UUID "%012x", x->vector->set.id);
	vk_jw_object(w);
	vk_jw_kv(w, "uuid", uuid);
	vk_jw_kv(w, "optimizer", "indexing");
	vk_jw_kv(w, "status", "optimizing");
	vk_jw_key(w, "segments");
	vk_jw_array(w);
	put_segment(w, x->vector->set.id, x->rows);
	vk_jw_array_end(w);
	vk_jw_key(w, "progress");
	vk_jw_object(w);
	vk_jw_kv(w, "name", x->vector->name[0] ? x->vector->name : "vector_index");
	vk_jw_ki(w, "done", x->info.done < x->info.total ? x->info.done : x->info.total);
	vk_jw_ki(w, "total", x->info.total);
	vk_jw_object_end(w);
	vk_jw_object_end(w);
}

static void put_summary(struct vk_jw *w, const struct vk_qd_index *x, size_t n, bool busy, uint64_t tail_rows)
{
	uint64_t queued = busy, points = busy ? tail_rows : 0, running = 0;
	for (size_t i = 0; i < n; i++) {
		bool waits = (x[i].due || x[i].behind) && !is_running(&x[i]);
		queued += waits;
		points += waits ? x[i].due ? x[i].rows : x[i].info.pending : 0;
		running += is_running(&x[i]);
	}
	vk_jw_key(w, "summary");
	vk_jw_object(w);
	vk_jw_ki(w, "queued_optimizations", (int64_t)queued);
	vk_jw_ki(w, "queued_segments", (int64_t)queued);
	vk_jw_ki(w, "queued_points", (int64_t)points);
	vk_jw_ki(w, "idle_segments", !queued && !running);
	vk_jw_object_end(w);
}

static enum vk_status answer_optimizations(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	struct vk_collection_stats s;
	struct vk_qd_index *x = NULL;
	struct vk_bytes with = vk_req_query(q->req, "with");
	size_t n = v->conf->vectors_n;
	enum vk_status st = vk_collection_stats(q->c, &s);
	(void)err;
	if (!st) st = vk_qd_indexes(q->c, v, &q->req->arena, &x);
	if (st) return st;
	bool busy = s.sealing || s.building, idle = strcmp(vk_qd_index_status(x, n, busy), "yellow") != 0;
	vk_qd_begin(q, w);
	vk_jw_object(w);
	put_summary(w, x, n, busy, s.tail_rows);
	vk_jw_key(w, "running");
	vk_jw_array(w);
	for (size_t i = 0; i < n; i++)
		if (is_running(&x[i])) put_running(w, &x[i]);
	vk_jw_array_end(w);
	if (with.n && has_word(with, "queued")) put_empty(w, "queued");
	if (with.n && has_word(with, "completed")) put_empty(w, "completed");
	if (with.n && has_word(with, "idle_segments")) {
		vk_jw_key(w, "idle_segments");
		vk_jw_array(w);
		if (idle) put_segment(w, 0, s.points);
		vk_jw_array_end(w);
	}
	vk_jw_object_end(w);
	return VK_OK;
}

static void optimizations(struct vk_qd *q)
{
	vk_qd_read(q, answer_optimizations);
}

void vk_flow_optimizations(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, false);
	if (q) vk_qd_go(q, optimizations);
}

/* --- telemetry --- */

static bool count(void *arg, struct vk_bytes name)
{
	(void)name;
	++*(uint64_t *)arg;
	return true;
}

/* What Qdrant may be built with, and this is not. */
static void put_features(struct vk_jw *w)
{
	static const char *const names[] = {"debug", "service_debug_feature", "recovery_mode", "gpu", "rocksdb", "staging"};
	vk_jw_key(w, "features");
	vk_jw_object(w);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) vk_jw_kb(w, names[i], false);
	vk_jw_object_end(w);
}

static void telemetry(struct vk_qd *q)
{
	struct vk_jw w;
	uint64_t n = 0;
	char startup[40], id[24];
	struct tm tm;
	int64_t started_ms = vk_wall_ms() - (int64_t)(vk_mono_ms() - q->app->started_ms);
	time_t t = (time_t)(started_ms / 1000);
	gmtime_r(&t, &tm);
	strftime(startup, sizeof startup, "%Y-%m-%dT%H:%M:%SZ", &tm);
	snprintf(id, sizeof id, "%016llx", (unsigned long long)q->app->started_ms);
	(void)vk_collections_each(q->app->collections, count, &n);
	vk_qd_begin(q, &w);
	vk_jw_object(&w);
	vk_jw_kv(&w, "id", id);
	vk_jw_key(&w, "app");
	vk_jw_object(&w);
	vk_jw_kv(&w, "name", "veckeep");
	vk_jw_kv(&w, "version", VK_VERSION);
	vk_jw_kv(&w, "startup", startup);
	put_features(&w);
	vk_jw_object_end(&w);
	vk_jw_key(&w, "collections");
	vk_jw_object(&w);
	vk_jw_key(&w, "number_of_collections");
	vk_jw_u64(&w, n);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_qd_reply(q, &w);
}

void vk_flow_telemetry(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, false, false);
	if (q) vk_qd_run(q, telemetry);
}

/* --- issues: nothing here is reported that way --- */

static void issues(struct vk_qd *q)
{
	struct vk_jw w;
	if (q->req->method == VK_DELETE) {
		vk_qd_reply_bool(q, true);
		return;
	}
	vk_qd_begin(q, &w);
	vk_jw_object(&w);
	put_empty(&w, "issues");
	vk_jw_object_end(&w);
	vk_qd_reply(q, &w);
}

void vk_flow_issues(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, false, false);
	if (q) vk_qd_run(q, issues);
}

static void not_distributed(struct vk_qd *q)
{
	struct vk_error err;
	vk_fail(&err, VK_E_METHOD, "Bad request: this server runs in standalone mode: one node, no peers, no shard keys");
	vk_qd_fail(q, &err);
}

void vk_flow_not_distributed(void *app, struct vk_req *req)
{
	req->body = (struct vk_bytes){NULL, 0}; /* whatever it says */
	struct vk_qd *q = vk_qd_new(app, req, false, false);
	if (q) vk_qd_run(q, not_distributed);
}
