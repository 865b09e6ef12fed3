/* Points as they are: by id, in order, counted, and the values of a field with their counts. */
#include "base/clock.h"
#include "base/utf8.h"
#include "server/flows_qdrant.h"
#include "server/qdrant_query.h"

#define HERE_BODY_MAX 2048 /* a request for a few ids is answered in place */

static void *new_flow(struct vk_qd *q, size_t size, struct vk_error *err)
{
	q->flow = vk_arena_calloc(&q->req->arena, 1, size);
	if (!q->flow) vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
	return q->flow;
}

static enum vk_status read_with(struct vk_qd *q, struct vk_qd_with *with, struct vk_error *err)
{
	const vk_jv *vectors = vk_jv_get(q->body, "with_vector");
	if (!vectors) vectors = vk_jv_get(q->body, "with_vectors");
	return vk_qd_with(q, vk_jv_get(q->body, "with_payload"), vectors, true, with, err);
}

static enum vk_status read_filter(struct vk_qd *q, struct vk_filter **out, struct vk_error *err)
{
	return vk_filter_parse(&q->req->arena, vk_jv_get(q->body, "filter"), out, err);
}

static bool absent(const vk_jv *body, const char *name)
{
	return vk_jv_type(vk_jv_get(body, name)) == VK_J_NULL;
}

/* --- by id --- */

struct retrieve {
	struct vk_bytes *id;
	size_t n;
	struct vk_qd_with with;
};

static enum vk_status write_one(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, uint32_t slot, const struct vk_qd_with *with)
{
	vk_jw_object(w);
	enum vk_status st = vk_qd_write_record(q, w, v, slot, with);
	vk_jw_object_end(w);
	return st;
}

static enum vk_status answer_retrieve(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	struct retrieve *f = q->flow;
	enum vk_status st = VK_OK;
	uint32_t slot;
	(void)err;
	vk_qd_begin(q, w);
	vk_jw_array(w);
	for (size_t i = 0; i < f->n && !st; i++) {
		if (vk_view_stopped(v)) { /* asked here, too: ids that are not there cost time as well */
			vk_jw_abandon(w);
			return VK_E_CANCELLED;
		}
		st = vk_view_slot(v, f->id[i], &slot);
		if (!st) st = write_one(q, w, v, slot, &f->with);
		else if (st == VK_E_NOT_FOUND) st = VK_OK; /* left out */
	}
	vk_jw_array_end(w);
	return st;
}

static void work_retrieve(struct vk_qd *q)
{
	vk_qd_read(q, answer_retrieve);
}

static enum vk_status decode_retrieve(struct vk_qd *q, struct vk_error *err)
{
	struct retrieve *f = new_flow(q, sizeof *f, err);
	if (!f) return VK_E_NOMEM;
	if (absent(q->body, "ids")) return vk_qd_format(err, "missing field `ids`");
	enum vk_status st = vk_qd_ids(q, vk_jv_get(q->body, "ids"), &f->id, &f->n, err);
	return st ? st : read_with(q, &f->with, err);
}

void vk_flow_points_retrieve(void *app, struct vk_req *req)
{
	struct vk_error err = {0};
	if (req->body.n > HERE_BODY_MAX) {
		vk_qd_serve(app, req, true, true, decode_retrieve, work_retrieve);
		return;
	}
	struct vk_qd *q = vk_qd_new(app, req, true, true);
	if (!q) return;
	if (decode_retrieve(q, &err)) vk_qd_fail(q, &err);
	else vk_qd_run(q, work_retrieve);
}

static enum vk_status answer_get(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	static const struct vk_qd_with all = {.payload.any = true, .vectors = true};
	struct vk_bytes text = vk_req_param(q->req, "id"), id;
	uint32_t slot;
	enum vk_status st = vk_id_from_text(&q->req->arena, text, &id, err);
	if (st == VK_E_INVALID) return vk_qd_wrong(err, "Can not recognize \"%.*s\" as point id", (int)text.n, text.p);
	if (!st) st = vk_view_slot(v, id, &slot);
	if (st == VK_E_NOT_FOUND)
		return vk_fail(err, st, "Not found: Point with id %.*s does not exists!", (int)text.n, text.p);
	if (st) return st;
	vk_qd_begin(q, w);
	return write_one(q, w, v, slot, &all);
}

static void work_get(struct vk_qd *q)
{
	vk_qd_read(q, answer_get);
}

void vk_flow_point_get(void *app, struct vk_req *req)
{
	struct vk_qd *q = vk_qd_new(app, req, true, false);
	if (q) vk_qd_run(q, work_get);
}

/* --- in order --- */

struct scroll {
	struct vk_qd_queries *qs;
	size_t limit;
};

static enum vk_status write_page(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, const struct vk_query_result *r)
{
	struct scroll *f = q->flow;
	size_t n = r->n < f->limit ? r->n : f->limit;
	enum vk_status st = VK_OK;
	struct vk_point next;
	vk_jw_object(w);
	vk_jw_key(w, "points");
	vk_jw_array(w);
	for (size_t i = 0; i < n && !st; i++) {
		const struct vk_found *p = &r->found[i];
		vk_jw_object(w);
		st = vk_qd_write_record(q, w, v, p->slot, &f->qs->with[0]);
		if (p->has_order) {
			vk_jw_key(w, "order_value");
			if (p->order.is_i64) vk_jw_i64(w, p->order.i64);
			else vk_jw_f64(w, p->order.f64);
		}
		vk_jw_object_end(w);
	}
	vk_jw_array_end(w);
	vk_jw_key(w, "next_page_offset");
	if (r->n > n && !st && !(st = vk_view_point(v, r->found[n].slot, &next))) vk_id_write(w, next.id);
	else vk_jw_null(w);
	vk_jw_object_end(w);
	return st;
}

static enum vk_status answer_scroll(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	struct scroll *f = q->flow;
	const struct vk_query_env env = {.pool = q->app->pool, .stop = &q->stop};
	struct vk_query_result r;
	enum vk_status st = vk_qd_queries_ready(q, f->qs, v, err);
	if (!st) st = vk_query_run(v, f->qs->query, 1, &env, &q->req->arena, &r, err);
	if (st) return st;
	vk_qd_begin(q, w);
	return write_page(q, w, v, &r);
}

static void work_scroll(struct vk_qd *q)
{
	vk_qd_read(q, answer_scroll);
}

static enum vk_status read_order(struct vk_qd *q, struct vk_query *out, struct vk_error *err)
{
	if (!absent(q->body, "offset"))
		return vk_qd_wrong(err, "Cannot use an `offset` when using `order_by`. The alternative for paging is to use "
					"`order_by.start_from` and a filter to exclude the IDs that you've already seen for the "
					"`order_by.start_from` value");
	out->kind = VK_QUERY_ORDER_BY;
	return vk_qd_order_by(q, vk_jv_get(q->body, "order_by"), &out->order, err);
}

static enum vk_status decode_scroll(struct vk_qd *q, struct vk_error *err)
{
	struct scroll *f = new_flow(q, sizeof *f, err);
	struct vk_filter *filter = NULL;
	bool ordered = !absent(q->body, "order_by");
	enum vk_status st = f ? vk_qd_queries_new(q, 1, &f->qs, err) : VK_E_NOMEM;
	if (st) return st;
	struct vk_query *out = f->qs->query;
	st = vk_qd_size(q->body, "limit", "scroll_request.limit", 1, 10, &f->limit, err);
	if (!st && !absent(q->body, "offset") && !ordered)
		st = vk_id_read(&q->req->arena, vk_jv_get(q->body, "offset"), &out->from, err);
	if (!st && ordered) st = read_order(q, out, err);
	if (!st) st = read_filter(q, &filter, err);
	out->filter = filter;
	/* A page by id may be shorter than asked for: the client goes on at its next_page_offset. */
	if (f->limit > VK_QUERY_LIMIT_MAX - !ordered) f->limit = VK_QUERY_LIMIT_MAX - !ordered;
	out->limit = f->limit + !ordered;
	return st ? st : read_with(q, &f->qs->with[0], err);
}

void vk_flow_points_scroll(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_scroll, work_scroll);
}

/* --- counted --- */

struct count {
	struct vk_filter *filter;
	bool exact;
};

static enum vk_status count(const struct count *f, struct vk_view *v, uint64_t *n, struct vk_error *err)
{
	struct vk_cardinality about;
	struct vk_bitmap *match;
	if (!f->exact) {
		enum vk_status st = vk_filter_estimate(v, f->filter, &about);
		*n = about.likely;
		return st;
	}
	if (!f->filter && !vk_view_has_ttl(v)) {
		*n = vk_view_points(v);
		return VK_OK;
	}
	enum vk_status st = vk_filter_bitmap(v, f->filter, &match, err);
	if (st) return st;
	*n = vk_bitmap_count(match);
	vk_bitmap_free(match);
	return VK_OK;
}

static enum vk_status answer_count(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	uint64_t n = 0;
	enum vk_status st = count(q->flow, v, &n, err);
	if (st) return st;
	vk_qd_begin(q, w);
	vk_jw_object(w);
	vk_jw_key(w, "count");
	vk_jw_u64(w, n);
	vk_jw_object_end(w);
	return VK_OK;
}

static void work_count(struct vk_qd *q)
{
	vk_qd_read(q, answer_count);
}

static enum vk_status decode_count(struct vk_qd *q, struct vk_error *err)
{
	struct count *f = new_flow(q, sizeof *f, err);
	if (!f) return VK_E_NOMEM;
	f->exact = true;
	if (!absent(q->body, "exact") && !vk_jv_bool(vk_jv_get(q->body, "exact"), &f->exact))
		return vk_qd_format(err, "exact: expected a boolean");
	return read_filter(q, &f->filter, err);
}

void vk_flow_points_count(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_count, work_count);
}

/* --- facets --- */

struct facet {
	const struct vk_field_conf *field;
	struct vk_filter *filter;
	size_t limit;
	/* a heap whose top is the worst of the best `limit` so far */
	struct vk_facet_hit *hit;
	size_t n;
	struct vk_qd *q;
	bool no_memory;
};

static int compare_text(struct vk_bytes a, struct vk_bytes b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = n ? memcmp(a.p, b.p, n) : 0;
	return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* More points first, then the lesser value. */
static bool better(const struct vk_facet_hit *a, const struct vk_facet_hit *b)
{
	if (a->count != b->count) return a->count > b->count;
	if (a->type == VK_FIELD_INTEGER) return a->i64 < b->i64;
	if (a->type == VK_FIELD_BOOL) return !a->b && b->b;
	return compare_text(a->text, b->text) < 0;
}

static void swap(struct vk_facet_hit *a, struct vk_facet_hit *b)
{
	struct vk_facet_hit t = *a;
	*a = *b;
	*b = t;
}

static void sift_down(struct vk_facet_hit *h, size_t n, size_t i)
{
	for (size_t kid; (kid = 2 * i + 1) < n; i = kid) {
		if (kid + 1 < n && better(&h[kid], &h[kid + 1])) kid++;
		if (!better(&h[i], &h[kid])) return;
		swap(&h[i], &h[kid]);
	}
}

static void sift_up(struct vk_facet_hit *h, size_t i)
{
	for (; i && better(&h[(i - 1) / 2], &h[i]); i = (i - 1) / 2) swap(&h[i], &h[(i - 1) / 2]);
}

static bool take_value(void *arg, const struct vk_facet_hit *h)
{
	struct facet *f = arg;
	struct vk_facet_hit mine = *h;
	if (atomic_load_explicit(&f->q->stop, memory_order_relaxed)) return false;
	if (!h->count || (f->n == f->limit && !better(h, &f->hit[0]))) return true;
	if (h->text.n && !(mine.text.p = vk_arena_strndup(&f->q->req->arena, h->text.p, h->text.n))) {
		f->no_memory = true;
		return false;
	}
	if (f->n < f->limit) {
		f->hit[f->n] = mine;
		sift_up(f->hit, f->n++);
	} else {
		f->hit[0] = mine;
		sift_down(f->hit, f->n, 0);
	}
	return true;
}

static enum vk_status gather(struct facet *f, struct vk_view *v, struct vk_error *err)
{
	struct vk_bitmap *match = NULL;
	enum vk_status st = VK_OK;
	if (f->filter || vk_view_has_ttl(v)) st = vk_filter_bitmap(v, f->filter, &match, err);
	if (!st) st = vk_field_facet(v->t, f->field, match, take_value, f);
	vk_bitmap_free(match);
	if (f->no_memory) return vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
	if (!st && atomic_load(&f->q->stop)) st = VK_E_CANCELLED;
	return st;
}

static void write_hits(struct facet *f, struct vk_jw *w)
{
	for (size_t left = f->n; left > 1; left--) { /* the worst to the end: best first */
		swap(&f->hit[0], &f->hit[left - 1]);
		sift_down(f->hit, left - 1, 0);
	}
	vk_jw_object(w);
	vk_jw_key(w, "hits");
	vk_jw_array(w);
	for (size_t i = 0; i < f->n; i++) {
		vk_jw_object(w);
		vk_jw_key(w, "value");
		if (f->hit[i].type == VK_FIELD_INTEGER) vk_jw_i64(w, f->hit[i].i64);
		else if (f->hit[i].type == VK_FIELD_BOOL) vk_jw_bool(w, f->hit[i].b);
		else vk_jw_str(w, f->hit[i].text);
		vk_jw_key(w, "count");
		vk_jw_u64(w, f->hit[i].count);
		vk_jw_object_end(w);
	}
	vk_jw_array_end(w);
	vk_jw_object_end(w);
}

static enum vk_status answer_facet(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	struct facet *f = q->flow;
	enum vk_status st = gather(f, v, err);
	if (st) return st;
	vk_qd_begin(q, w);
	write_hits(f, w);
	return VK_OK;
}

static void work_facet(struct vk_qd *q)
{
	vk_qd_read(q, answer_facet);
}

static bool counts_values(const struct vk_field_conf *f)
{
	if (!f || !f->ready) return false;
	return f->type == VK_FIELD_KEYWORD || f->type == VK_FIELD_BOOL || f->type == VK_FIELD_UUID ||
	       (f->type == VK_FIELD_INTEGER && f->lookup);
}

static enum vk_status decode_facet(struct vk_qd *q, struct vk_error *err)
{
	struct facet *f = new_flow(q, sizeof *f, err);
	struct vk_bytes key;
	bool exact;
	if (!f) return VK_E_NOMEM;
	if (!vk_jv_str(vk_jv_get(q->body, "key"), &key)) return vk_qd_format(err, "missing field `key`");
	if (!absent(q->body, "exact") && !vk_jv_bool(vk_jv_get(q->body, "exact"), &exact))
		return vk_qd_format(err, "exact: expected a boolean"); /* counts are exact either way */
	f->q = q;
	f->field = vk_colconf_field(q->conf, key);
	if (!counts_values(f->field))
		return vk_qd_wrong(err, "No appropriate index for faceting: `%.*s`. Please create one to facet on this field. Indexes of "
					"keyword, integer, bool and uuid support Match conditions%s",
				   (int)(key.n < 200 ? vk_utf8_valid(key.p, key.n) : vk_utf8_valid(key.p, 200)), key.p,
				   f->field && !f->field->ready ? "; this one is still being built" : "");
	enum vk_status st = vk_qd_size(q->body, "limit", "facet_request.limit", 1, 10, &f->limit, err);
	if (st) return st;
	if (f->limit > VK_QUERY_LIMIT_MAX) f->limit = VK_QUERY_LIMIT_MAX;
	f->hit = vk_arena_calloc(&q->req->arena, f->limit, sizeof *f->hit);
	if (!f->hit) return vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
	return read_filter(q, &f->filter, err);
}

void vk_flow_facet(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_facet, work_facet);
}
