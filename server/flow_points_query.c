/*
 * Searching over HTTP: the universal query, the older search, both in batches and in groups. All are a list of struct vk_query over
 * one view, run on the pool, or on the HTTP thread when it is plain and such searches were quick lately (server/qdrant_light.c). What
 * differs is how the body is read and how the answer is wrapped.
 */
#include "base/clock.h"
#include "base/utf8.h"
#include "server/flows_qdrant.h"
#include "server/qdrant_query.h"
#include "store/guard.h"

#define PLAIN_EF 256u
#define PLAIN_LIMIT 100u

typedef enum vk_status read_fn(struct vk_qd *q, struct vk_qd_queries *qs, size_t i, const vk_jv *body, bool groups, struct vk_error *err);

struct lookup { /* the collection that group ids are looked up in; its view is begun outside of any guard */
	struct vk_collection *c;
	struct vk_view v;
	struct vk_qd_with with;
	bool open;
};

struct flow {
	struct vk_qd_queries *qs;
	bool batch;   /* a list of answers */
	bool bare;    /* search: a list of points, no {"points": ...} around */
	/* groups */
	struct vk_path by;
	size_t group_size;
	struct vk_bytes lookup; /* n == 0: none */
	struct lookup *opened;
	const vk_jv *lookup_payload, *lookup_vectors;
};

static enum vk_status new_flow(struct vk_qd *q, size_t n, struct flow **out, struct vk_error *err)
{
	struct flow *f = vk_arena_calloc(&q->req->arena, 1, sizeof *f);
	if (!f) return vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
	q->flow = *out = f;
	return vk_qd_queries_new(q, n, &f->qs, err);
}

static struct vk_query_env env_of(struct vk_qd *q)
{
	return (struct vk_query_env){.pool = q->app->pool, .stop = &q->stop};
}

static enum vk_status cannot_read(enum vk_status st, struct vk_error *err)
{
	if (st && !err->st) vk_fail(err, st, "the collection cannot be read");
	return st;
}

/* --- lists of points --- */

static enum vk_status write_points(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, const struct vk_found *found, size_t n,
				   const struct vk_qd_with *with)
{
	enum vk_status st = VK_OK;
	vk_jw_array(w);
	for (size_t i = 0; i < n && !st; i++) {
		vk_jw_object(w);
		st = vk_qd_write_scored(q, w, v, &found[i], with);
		vk_jw_object_end(w);
	}
	vk_jw_array_end(w);
	return st;
}

static enum vk_status write_answer(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, const struct vk_query_result *r, size_t i)
{
	struct flow *f = q->flow;
	if (f->bare) return write_points(q, w, v, r->found, r->n, &f->qs->with[i]);
	vk_jw_object(w);
	vk_jw_key(w, "points");
	enum vk_status st = write_points(q, w, v, r->found, r->n, &f->qs->with[i]);
	vk_jw_object_end(w);
	return st;
}

static enum vk_status answer(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	struct flow *f = q->flow;
	struct vk_query_env env = env_of(q);
	struct vk_query_result *r = vk_arena_calloc(&q->req->arena, f->qs->n + 1, sizeof *r);
	if (!r) return vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
	enum vk_status st = vk_qd_queries_ready(q, f->qs, v, err);
	if (!st) st = vk_query_run(v, f->qs->query, f->qs->n, &env, &q->req->arena, r, err);
	if (st) return cannot_read(st, err);
	vk_qd_begin(q, w);
	if (f->batch) vk_jw_array(w);
	for (size_t i = 0; i < f->qs->n && !st; i++) st = write_answer(q, w, v, &r[i], i);
	if (f->batch) vk_jw_array_end(w);
	return cannot_read(st, err);
}

static void work(struct vk_qd *q)
{
	vk_qd_read(q, answer);
}

static bool is_plain(const struct vk_query *x)
{
	return x->kind == VK_QUERY_NEAREST && !x->prefetch_n && !x->filter && !x->exact && x->ef <= PLAIN_EF && x->limit <= PLAIN_LIMIT &&
	       x->offset <= PLAIN_LIMIT;
}

static enum vk_status decode_one(struct vk_qd *q, read_fn *read, bool bare, struct vk_error *err)
{
	struct flow *f = NULL;
	enum vk_status st = new_flow(q, 1, &f, err);
	if (st) return st;
	f->bare = bare;
	st = read(q, f->qs, 0, q->body, false, err);
	if (!st && is_plain(f->qs->query)) q->plain = 1 + f->qs->query->using->set.id;
	return st;
}

static enum vk_status decode_batch(struct vk_qd *q, read_fn *read, bool bare, struct vk_error *err)
{
	const vk_jv *searches = vk_jv_get(q->body, "searches");
	struct flow *f = NULL;
	size_t i = 0;
	if (vk_jv_type(searches) != VK_J_ARRAY) return vk_qd_format(err, "missing field `searches`");
	enum vk_status st = new_flow(q, vk_jv_len(searches), &f, err);
	if (st) return st;
	f->batch = true;
	f->bare = bare;
	for (const vk_jv *s = vk_jv_first(searches); s && !st; s = vk_jv_next(s)) st = read(q, f->qs, i++, s, false, err);
	return st;
}

static enum vk_status decode_query(struct vk_qd *q, struct vk_error *err)
{
	return decode_one(q, vk_qd_query, false, err);
}

static enum vk_status decode_query_batch(struct vk_qd *q, struct vk_error *err)
{
	return decode_batch(q, vk_qd_query, false, err);
}

static enum vk_status decode_search(struct vk_qd *q, struct vk_error *err)
{
	return decode_one(q, vk_qd_search, true, err);
}

static enum vk_status decode_search_batch(struct vk_qd *q, struct vk_error *err)
{
	return decode_batch(q, vk_qd_search, true, err);
}

void vk_flow_points_query(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_query, work);
}

void vk_flow_points_query_batch(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_query_batch, work);
}

void vk_flow_points_search(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_search, work);
}

void vk_flow_points_search_batch(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_search_batch, work);
}

/* --- groups --- */

static enum vk_status open_lookup(struct vk_qd *q, struct lookup *l, struct vk_error *err)
{
	struct flow *f = q->flow;
	if (!f->lookup.n) return VK_OK;
	enum vk_status st = vk_qd_access(q->req, f->lookup, err);
	if (!st) st = vk_qd_collection(q, f->lookup, &l->c, err);
	if (st == VK_E_NOT_FOUND)
		vk_fail(err, st, "Not found: Collection %.*s not found", (int)vk_utf8_valid(f->lookup.p, f->lookup.n), f->lookup.p);
	if (st) return st;
	st = vk_view_begin(l->c, vk_wall_ms(), &l->v);
	if (st == VK_E_IO) return vk_qd_storage(err, f->lookup);
	if (st) return vk_fail(err, st, "the collection cannot be read: %s", vk_status_text(st));
	l->open = true;
	/* Names of vectors are those of that collection. */
	struct vk_colconf *mine = q->conf;
	q->conf = l->v.conf;
	st = vk_qd_with(q, f->lookup_payload, f->lookup_vectors, true, &l->with, err);
	q->conf = mine;
	return st;
}

static void close_lookup(struct lookup *l)
{
	if (l->open) vk_view_end(&l->v);
	if (l->c) vk_collection_unref(l->c);
}

static enum vk_status write_lookup(struct vk_qd *q, struct vk_jw *w, struct lookup *l, const struct vk_group *g)
{
	struct vk_error ignored;
	uint8_t number[9];
	struct vk_bytes id = {(const char *)number, sizeof number};
	uint32_t slot;
	if (g->type == VK_FIELD_INTEGER && !g->is_u64) return VK_OK;
	if (g->type == VK_FIELD_INTEGER) vk_id_u64(number, g->u64);
	else if (vk_id_from_text(&q->req->arena, g->text, &id, &ignored)) return VK_OK; /* no id, no record */
	enum vk_status st = vk_view_slot(&l->v, id, &slot);
	if (st) return st == VK_E_NOT_FOUND ? VK_OK : st;
	vk_jw_key(w, "lookup");
	vk_jw_object(w);
	st = vk_qd_write_record(q, w, &l->v, slot, &l->with);
	vk_jw_object_end(w);
	return st;
}

struct looking {
	struct vk_qd *q;
	struct vk_jw *w;
	const struct vk_group *g;
};

static enum vk_status look_up(void *arg)
{
	struct looking *a = arg;
	struct flow *f = a->q->flow;
	return write_lookup(a->q, a->w, f->opened, a->g);
}

static enum vk_status write_group(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, const struct vk_group *g, struct vk_error *err)
{
	struct flow *f = q->flow;
	struct looking a = {q, w, g};
	vk_jw_object(w);
	vk_jw_key(w, "hits");
	enum vk_status st = write_points(q, w, v, g->found, g->n, &f->qs->with[0]);
	if (st) return st;
	vk_jw_key(w, "id");
	if (g->type == VK_FIELD_KEYWORD) vk_jw_str(w, g->text);
	else if (g->is_u64) vk_jw_u64(w, g->u64);
	else vk_jw_i64(w, g->i64);
	if (f->opened->open) st = vk_guard_run(vk_collection_kv(f->opened->c), look_up, &a);
	if (st) vk_jw_abandon(w); /* a fault leaves the record in the middle */
	vk_jw_object_end(w);
	return st == VK_E_IO ? vk_qd_storage(err, f->lookup) : st;
}

static enum vk_status answer_groups(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	struct flow *f = q->flow;
	struct vk_query_env env = env_of(q);
	struct vk_group *group;
	size_t n;
	enum vk_status st = vk_qd_queries_ready(q, f->qs, v, err);
	if (!st) st = vk_query_groups(v, f->qs->query, &f->by, f->qs->query->limit, f->group_size, &env, &q->req->arena, &group, &n, err);
	if (st) return cannot_read(st, err);
	vk_qd_begin(q, w);
	vk_jw_object(w);
	vk_jw_key(w, "groups");
	vk_jw_array(w);
	for (size_t i = 0; i < n && !st; i++) st = write_group(q, w, v, &group[i], err);
	vk_jw_array_end(w);
	vk_jw_object_end(w);
	return cannot_read(st, err);
}

static void work_groups(struct vk_qd *q)
{
	struct flow *f = q->flow;
	struct lookup l = {0};
	struct vk_error err = {0};
	struct vk_jw w;
	f->opened = &l;
	bool answered = false;
	if (open_lookup(q, &l, &err)) vk_qd_fail(q, &err);
	else answered = vk_qd_view(q, answer_groups, &w);
	close_lookup(&l);
	if (answered) vk_qd_reply(q, &w);
}

static enum vk_status read_lookup(struct flow *f, const vk_jv *v, struct vk_error *err)
{
	if (vk_jv_type(v) == VK_J_NULL || vk_jv_str(v, &f->lookup)) return VK_OK;
	if (!vk_jv_str(vk_jv_get(v, "collection"), &f->lookup)) return vk_qd_format(err, "with_lookup: missing field `collection`");
	f->lookup_payload = vk_jv_get(v, "with_payload");
	f->lookup_vectors = vk_jv_get(v, vk_jv_get(v, "with_vectors") ? "with_vectors" : "with_vector");
	return VK_OK;
}

/* size_dflt 0: group_size must be there. */
static enum vk_status decode_groups(struct vk_qd *q, read_fn *read, size_t size_dflt, struct vk_error *err)
{
	struct flow *f = NULL;
	struct vk_bytes by = {0};
	enum vk_status st = new_flow(q, 1, &f, err);
	if (st) return st;
	if (!vk_jv_str(vk_jv_get(q->body, "group_by"), &by)) return vk_qd_format(err, "missing field `group_by`");
	if (!size_dflt && vk_jv_type(vk_jv_get(q->body, "group_size")) == VK_J_NULL)
		return vk_qd_format(err, "missing field `group_size`");
	st = vk_path_parse(&q->req->arena, by, &f->by, err);
	if (!st) st = vk_qd_size(q->body, "group_size", "group_request.group_size", 1, size_dflt, &f->group_size, err);
	if (!st) st = read_lookup(f, vk_jv_get(q->body, "with_lookup"), err);
	return st ? st : read(q, f->qs, 0, q->body, true, err);
}

static enum vk_status decode_query_groups(struct vk_qd *q, struct vk_error *err)
{
	return decode_groups(q, vk_qd_query, 3, err);
}

static enum vk_status decode_search_groups(struct vk_qd *q, struct vk_error *err)
{
	return decode_groups(q, vk_qd_search, 0, err);
}

void vk_flow_points_query_groups(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_query_groups, work_groups);
}

void vk_flow_points_search_groups(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_search_groups, work_groups);
}

/* --- later --- */

void vk_flow_points_later(void *app, struct vk_req *req)
{
	struct vk_error err;
	struct vk_qd *q = vk_qd_new(app, req, true, false);
	if (!q) return;
	vk_qd_wrong(&err, "recommend, discover and distance matrices are not supported yet; /points/query with nearest (also by id), "
			  "order_by, fusion, rrf and sample is");
	vk_qd_fail(q, &err);
}
