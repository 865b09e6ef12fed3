/* A point as Qdrant shows it: id, (version, score,) payload, vector, each from one view. */
#include "server/qdrant.h"

#include <math.h>

#include "base/num.h"

#define SELECT_MAX ((size_t)256 << 20) /* memory for cutting one payload */

/* The set of this name as the view's moment has it; the request may have been decoded against another config. */
static const struct vk_vector_conf *of_view(const struct vk_view *v, const struct vk_qd *q, const struct vk_vector_conf *c)
{
	return v->conf == q->conf ? c : vk_colconf_named(v->conf, vk_bytes_of(c->name));
}

static enum vk_status write_row(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, const struct vk_vector_conf *c, uint32_t slot,
				bool keyed)
{
	struct vk_row row;
	enum vk_status st = vk_vset_row(v->t, &c->set, slot, &row);
	if (st) return st;
	if (q->scratch_n < c->set.dims) {
		q->scratch = vk_arena_alloc(&q->req->arena, (size_t)c->set.dims * sizeof *q->scratch);
		q->scratch_n = q->scratch ? c->set.dims : 0;
		if (!q->scratch) return VK_E_NOMEM;
	}
	vk_row_f32(&c->set, &row, c->set.metric == VK_METRIC_COSINE, q->scratch);
	if (keyed) vk_jw_key(w, c->name);
	vk_jw_f32s(w, q->scratch, c->set.dims);
	return VK_OK;
}

/* The i-th that is asked for; NULL: the view has it no more. */
static const struct vk_vector_conf *asked(const struct vk_qd *q, const struct vk_view *v, const struct vk_qd_with *with, size_t i)
{
	return with->only ? of_view(v, q, with->only[i]) : &v->conf->vectors[i];
}

/* An unnamed vector alone is shown bare, all else as an object; a point without any has {}. */
static enum vk_status write_vectors(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, uint32_t slot,
				    const struct vk_qd_with *with)
{
	size_t n = with->only ? with->only_n : v->conf->vectors_n + v->conf->sparse_n;
	const struct vk_vector_conf *bare = NULL;
	enum vk_status st = VK_OK;
	bool sparse = false;
	vk_jw_key(w, "vector");
	for (size_t i = 0; i < n; i++) {
		const struct vk_vector_conf *c = asked(q, v, with, i);
		if (c && c->sparse) sparse |= vk_view_has(v, slot, c);
		else if (c && v->conf->single) bare = c;
	}
	if (bare && !sparse && (st = write_row(q, w, v, bare, slot, false)) != VK_E_NOT_FOUND) return st;
	vk_jw_object(w);
	st = VK_OK;
	for (size_t i = 0; i < n && !st; i++) {
		const struct vk_vector_conf *c = asked(q, v, with, i);
		if (c) st = c->sparse ? vk_qd_sparse_write(w, v, slot, c) : write_row(q, w, v, c, slot, true);
		if (st == VK_E_NOT_FOUND) st = VK_OK;
	}
	vk_jw_object_end(w);
	return st;
}

static enum vk_status write_payload(struct vk_jw *w, struct vk_bytes text, const struct vk_payload_select *sel)
{
	struct vk_arena scratch;
	vk_arena_init(&scratch, SELECT_MAX);
	vk_jw_key(w, "payload");
	enum vk_status st = vk_payload_write(w, &scratch, text, sel);
	vk_arena_free(&scratch);
	return st;
}

static enum vk_status write_rest(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, const struct vk_point *p,
				 const struct vk_qd_with *with)
{
	enum vk_status st = with->payload.any ? write_payload(w, p->payload, &with->payload) : VK_OK;
	if (!st && with->vectors) st = write_vectors(q, w, v, p->slot, with);
	if (st) vk_jw_abandon(w); /* a key may stand without its value */
	return st;
}

static void write_id(struct vk_jw *w, struct vk_bytes id)
{
	vk_jw_key(w, "id");
	vk_id_write(w, id);
}

static void write_f32(struct vk_jw *w, float f)
{
	char text[VK_F32_TEXT_MAX];
	if (isfinite(f)) vk_jw_raw(w, (struct vk_bytes){text, (size_t)(vk_f32_print(text, f) - text)});
	else vk_jw_null(w);
}

/* Whoever writes many asks here whether anybody still waits for them. */
static enum vk_status read_point(struct vk_jw *w, struct vk_view *v, uint32_t slot, struct vk_point *p)
{
	enum vk_status st = vk_view_stopped(v) ? VK_E_CANCELLED : vk_view_point(v, slot, p);
	if (st) vk_jw_abandon(w);
	return st;
}

enum vk_status vk_qd_write_record(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, uint32_t slot, const struct vk_qd_with *with)
{
	struct vk_point p;
	enum vk_status st = read_point(w, v, slot, &p);
	if (st) return st;
	write_id(w, p.id);
	return write_rest(q, w, v, &p, with);
}

enum vk_status vk_qd_write_scored(struct vk_qd *q, struct vk_jw *w, struct vk_view *v, const struct vk_found *found,
				  const struct vk_qd_with *with)
{
	struct vk_point p;
	enum vk_status st = read_point(w, v, found->slot, &p);
	if (st) return st;
	write_id(w, p.id);
	vk_jw_key(w, "version");
	vk_jw_u64(w, p.version);
	vk_jw_key(w, "score");
	write_f32(w, found->score);
	st = write_rest(q, w, v, &p, with);
	if (!st && found->has_order) {
		vk_jw_key(w, "order_value");
		if (found->order.is_i64) vk_jw_i64(w, found->order.i64);
		else vk_jw_f64(w, found->order.f64);
	}
	return st;
}
