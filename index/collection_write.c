/*
 * Lists of operations: checked on the caller's thread, applied in order in one transaction. A list fails
 * whole: what it put before is undone by the store (store/kv.h tries it alone and gives the transaction
 * up).
 */
#include "index/ann.h"
#include "index/collection_internal.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#define SLOTS_STEP 1024

/* --- checks that need no store --- */

#define LANES 16

/* Exponents of all ones are infinities and NaNs. Lanes of fixed width, so that the compiler makes
 * vectors of them. */
static bool all_finite(const float *v, uint32_t n)
{
	uint32_t bad[LANES] = {0}, bits[LANES], any = 0, i = 0;
	for (; i + LANES <= n; i += LANES) {
		memcpy(bits, v + i, sizeof bits);
		for (int l = 0; l < LANES; l++) bad[l] |= (bits[l] & 0x7f800000) == 0x7f800000;
	}
	for (int l = 0; l < LANES; l++) any |= bad[l];
	for (; i < n; i++) any |= !isfinite(v[i]);
	return !any;
}

static enum vk_status check_vector(const struct vk_vec *v, struct vk_error *err)
{
	const char *name = v->conf->name;
	if (v->conf->sparse && v->n > VK_SPARSE_MAX)
		return vk_fail(err, VK_E_TOO_LARGE, "Wrong input: sparse vector %s has more than %u entries", name, VK_SPARSE_MAX);
	for (uint32_t i = 1; v->conf->sparse && i < v->n; i++)
		if (v->index[i] <= v->index[i - 1])
			return vk_fail(err, VK_E_INVALID, "Wrong input: indices of sparse vector %s do not ascend", name);
	if (!all_finite(v->row, v->conf->sparse ? v->n : v->conf->set.dims))
		return vk_fail(err, VK_E_INVALID, "Wrong input: vector %s has a component that is not finite", name);
	if (v->text.n > VK_PAYLOAD_MAX)
		return vk_fail(err, VK_E_TOO_LARGE, "Wrong input: a text has at most %zu bytes", VK_PAYLOAD_MAX);
	return VK_OK;
}

static enum vk_status check_point(const struct vk_point_in *p, struct vk_error *err)
{
	if (!vk_id_valid(p->id)) return vk_fail(err, VK_E_INVALID, "Wrong input: not a point ID");
	if (p->payload.n > VK_PAYLOAD_MAX)
		return vk_fail(err, VK_E_TOO_LARGE, "Wrong input: a payload has at most %zu bytes",
			       VK_PAYLOAD_MAX);
	for (size_t i = 0; i < p->vec_n; i++) {
		enum vk_status st = check_vector(&p->vec[i], err);
		if (st) return st;
	}
	return VK_OK;
}

static enum vk_status check(const struct vk_write *w, struct vk_error *err)
{
	for (size_t i = 0; i < w->op_n; i++) {
		const struct vk_op_in *op = &w->op[i];
		enum vk_status st = VK_OK;
		for (size_t k = 0; !st && k < op->point_n; k++) st = check_point(&op->point[k], err);
		for (size_t k = 0; !st && k < op->ids_n; k++)
			if (!vk_id_valid(op->ids[k]))
				st = vk_fail(err, VK_E_INVALID, "Wrong input: not a point ID");
		if (st) return st;
	}
	return VK_OK;
}

static size_t estimate(const struct vk_write *w)
{
	size_t n = 256;
	for (size_t i = 0; i < w->op_n; i++) {
		const struct vk_op_in *op = &w->op[i];
		n += 128 * op->ids_n;
		for (size_t k = 0; k < op->point_n; k++) {
			n += 512 + op->point[k].payload.n;
			const struct vk_vec *v = op->point[k].vec;
			for (const struct vk_vec *end = v + op->point[k].vec_n; v < end; v++)
				n += 4 * (size_t)v->conf->set.dims + 8 * (size_t)v->n + v->text.n;
		}
	}
	return n;
}

/* --- the list in the transaction --- */

struct apply {
	struct vk_writer w;
	struct vk_write *in;
	struct vk_op_in *op;
};

static enum vk_status missing(struct apply *a, struct vk_bytes id)
{
	struct vk_buf b;
	struct vk_jw w;
	vk_buf_init(&b, 2 * VK_ID_KEY_MAX + 64);
	vk_jw_init(&w, &b);
	vk_id_write(&w, id);
	/* Qdrant shows ids bare. */
	bool quoted = b.n >= 2 && b.p[0] == '"';
	enum vk_status st = vk_fail(a->w.err, VK_E_NOT_FOUND, "Not found: No point with id %.*s found",
				    (int)(b.n - 2 * quoted), b.n ? b.p + quoted : "");
	vk_buf_free(&b);
	return st;
}

/* The vector of the transaction's config that a decoded one means. */
static enum vk_status resolve(struct apply *a, const struct vk_vector_conf *v, const struct vk_vector_conf **out)
{
	*out = v;
	if (a->in->conf == a->w.conf) return VK_OK;
	*out = vk_colconf_named(a->w.conf, vk_bytes_of(v->name));
	if (!*out || (*out)->sparse != v->sparse)
		return vk_fail(a->w.err, VK_E_INVALID, "Wrong input: Not existing vector name error: %s",
			       v->name);
	if ((*out)->set.dims != v->set.dims)
		return vk_fail(a->w.err, VK_E_INVALID,
			       "Wrong input: Vector dimension error: expected dim: %u, got %u",
			       (*out)->set.dims, v->set.dims);
	return VK_OK;
}

static enum vk_status resolve_vectors(struct apply *a, const struct vk_point_in *p, struct vk_vec **vec)
{
	*vec = vk_arena_calloc(&a->w.scratch, p->vec_n + 1, sizeof **vec);
	if (!*vec) return VK_E_NOMEM;
	for (size_t i = 0; i < p->vec_n; i++) {
		(*vec)[i] = p->vec[i];
		enum vk_status st = resolve(a, p->vec[i].conf, &(*vec)[i].conf);
		if (st) return st;
	}
	return VK_OK;
}

static bool has_row(struct apply *a, const struct vk_vector_conf *v, uint32_t slot)
{
	return v->sparse ? vk_extra_has(a->w.t, slot, VK_EXTRA_SPARSE, v->set.id) : vk_vset_has(a->w.t, &v->set, slot);
}

/* Of an existing point, in the middle of an operation: nothing of it is gathered yet. */
struct has_vector {
	struct apply *a;
	uint32_t slot;
};

static bool has_vector(void *arg, struct vk_bytes name)
{
	struct has_vector *h = arg;
	const struct vk_vector_conf *v = vk_colconf_named(h->a->w.conf, name);
	return v && has_row(h->a, v, h->slot);
}

/* Is this existing point the filter's? */
static enum vk_status matches(struct apply *a, struct vk_old *o, const struct vk_filter *f, bool *yes)
{
	struct has_vector h = {a, o->slot};
	*yes = true;
	if (!f) return VK_OK;
	enum vk_status st = vk_old_parse(&a->w, o);
	if (st) return st;
	struct vk_filter_point p = {.id = o->id, .payload = o->jv, .has_vector = has_vector, .arg = &h};
	*yes = vk_filter_match(f, &p);
	return VK_OK;
}

/* --- upsert --- */

/* Which points of the list count: of one id the last. keep[i] per point. */
static int compare_points(const void *x, const void *y, void *arg)
{
	const uint32_t *i = x, *j = y;
	const struct vk_point_in *p = arg;
	int c = vk_id_compare(p[*i].id, p[*j].id);
	return c ? c : (*i > *j) - (*i < *j);
}

static enum vk_status find_last(const struct vk_op_in *op, bool **keep, bool *doubles)
{
	uint32_t *order = malloc((op->point_n + 1) * sizeof *order);
	*doubles = false;
	*keep = calloc(op->point_n + 1, 1);
	if (!order || !*keep) {
		free(order);
		return VK_E_NOMEM;
	}
	for (size_t i = 0; i < op->point_n; i++) order[i] = (uint32_t)i;
	qsort_r(order, op->point_n, sizeof *order, compare_points, op->point);
	for (size_t i = 0; i < op->point_n; i++) {
		bool last =
		    i + 1 == op->point_n || !vk_bytes_eq(op->point[order[i]].id, op->point[order[i + 1]].id);
		(*keep)[order[i]] = last;
		*doubles |= !last;
	}
	free(order);
	return VK_OK;
}

/* Is the point to be written, as update_mode and update_filter say? An expired one is as good as gone. */
static enum vk_status wanted(struct apply *a, struct vk_old *o, bool *yes)
{
	enum vk_status st = VK_OK;
	bool there = o->there && !vk_old_expired(&a->w, o, &st);
	*yes = a->op->mode != (there ? VK_UPDATE_INSERT_ONLY : VK_UPDATE_UPDATE_ONLY);
	if (!st && *yes && there) st = matches(a, o, a->op->filter, yes);
	return st;
}

static enum vk_status upsert_one(struct apply *a, const struct vk_point_in *p)
{
	struct vk_old o;
	struct vk_vec *vec;
	bool yes = false;
	enum vk_status st = vk_old_by_id(&a->w, p->id, &o);
	if (!st) st = wanted(a, &o, &yes);
	if (!st && yes) st = resolve_vectors(a, p, &vec);
	if (!st && yes) {
		bool empty = !vk_jv_len(p->payload_jv); /* {} is stored as none */
		struct vk_new n = {
		    .id = p->id, .vec = vec, .vec_n = p->vec_n, .replace = true, .payload_set = true};
		if (!empty) n.payload = p->payload, n.payload_jv = p->payload_jv;
		st = vk_point_write(&a->w, &o, &n);
		a->op->touched++;
		a->op->added += !o.there;
	}
	vk_old_end(&a->w, &o);
	return st;
}

static enum vk_status upsert(struct apply *a)
{
	bool *keep, doubles;
	enum vk_status st = find_last(a->op, &keep, &doubles);
	for (size_t i = 0; !st && i < a->op->point_n; i++)
		if (keep[i]) st = upsert_one(a, &a->op->point[i]);
	free(keep);
	return st;
}

/* --- vectors --- */

/* Loads a point that must be there. */
static enum vk_status load_present(struct apply *a, struct vk_bytes id, struct vk_old *o)
{
	enum vk_status st = vk_old_by_id(&a->w, id, o);
	bool gone = !st && (!o->there || vk_old_expired(&a->w, o, &st));
	return !st && gone ? missing(a, id) : st;
}

static enum vk_status update_vectors_one(struct apply *a, const struct vk_point_in *p)
{
	struct vk_old o;
	struct vk_vec *vec;
	bool yes = false;
	enum vk_status st = load_present(a, p->id, &o);
	if (!st) st = matches(a, &o, a->op->filter, &yes);
	if (!st && yes) st = resolve_vectors(a, p, &vec);
	if (!st && yes && p->vec_n) {
		struct vk_new n = {.id = o.id, .vec = vec, .vec_n = p->vec_n};
		st = vk_point_write(&a->w, &o, &n);
		a->op->touched++;
	}
	vk_old_end(&a->w, &o);
	return st;
}

static enum vk_status update_vectors(struct apply *a)
{
	bool *keep, doubles;
	enum vk_status st = find_last(a->op, &keep, &doubles);
	free(keep);
	for (size_t i = 0; !st && i < a->op->point_n; i++) {
		st = update_vectors_one(a, &a->op->point[i]);
		if (!st && doubles) st = vk_writer_rows(&a->w); /* a row is gathered once */
	}
	return st;
}

/* --- operations on selected points --- */

static enum vk_status delete_point(struct apply *a, struct vk_old *o)
{
	return vk_point_delete(&a->w, o);
}

static enum vk_status delete_vectors(struct apply *a, struct vk_old *o)
{
	const struct vk_vector_conf **drop = vk_arena_calloc(&a->w.scratch, a->op->drop_n + 1, sizeof *drop);
	size_t n = 0;
	if (!drop) return VK_E_NOMEM;
	for (size_t i = 0; i < a->op->drop_n; i++) {
		const struct vk_vector_conf *v;
		enum vk_status st = resolve(a, a->op->drop[i], &v);
		if (st) return st;
		if (has_row(a, v, o->slot)) drop[n++] = v;
	}
	if (!n) return VK_OK;
	return vk_point_write(&a->w, o, &(struct vk_new){.id = o->id, .drop = drop, .drop_n = n});
}

/* The new payload as text; an empty object is none. */
static enum vk_status edit(struct apply *a, const struct vk_old *o, struct vk_buf *text)
{
	const struct vk_op_in *op = a->op;
	struct vk_jw w;
	switch (op->kind) {
	case VK_OP_PAYLOAD_SET: return vk_payload_merge(text, &a->w.scratch, o->payload, op->payload, op->at);
	case VK_OP_PAYLOAD_DELETE:
		return vk_payload_delete(text, &a->w.scratch, o->payload, op->keys, op->keys_n);
	case VK_OP_PAYLOAD_OVERWRITE:
		vk_jw_init(&w, text);
		vk_jw_value(&w, op->payload);
		return text->failed ? VK_E_TOO_LARGE : VK_OK;
	default: return VK_OK;
	}
}

static enum vk_status edit_payload(struct apply *a, struct vk_old *o)
{
	struct vk_buf text;
	struct vk_json *doc = NULL;
	struct vk_error why;
	struct vk_new n = {.id = o->id, .payload_set = true};
	vk_buf_init(&text, VK_PAYLOAD_MAX);
	enum vk_status st = edit(a, o, &text);
	/* Parsed even where no index wants it: edits can nest deeper than JSON is read back. */
	if (!st && text.n) st = vk_json_parse(&a->w.scratch, vk_buf_bytes(&text), NULL, &doc, &why);
	if (st == VK_E_TOO_LARGE)
		vk_fail(a->w.err, st, "Wrong input: a payload has at most %zu bytes", VK_PAYLOAD_MAX);
	if (st == VK_E_INVALID)
		vk_fail(a->w.err, st, "Wrong input: the payload would not be one: %s", why.text);
	if (!st) {
		n.payload_jv = vk_json_root(doc);
		if (vk_jv_len(n.payload_jv)) n.payload = vk_buf_bytes(&text);
		else n.payload_jv = NULL;
		st = vk_point_write(&a->w, o, &n);
	}
	vk_json_free(doc);
	vk_buf_free(&text);
	return st;
}

typedef enum vk_status point_fn(struct apply *a, struct vk_old *o);

static enum vk_status by_ids(struct apply *a, point_fn *fn, bool must_be)
{
	enum vk_status st = VK_OK;
	for (size_t i = 0; !st && i < a->op->ids_n; i++) {
		struct vk_old o;
		st = must_be ? load_present(a, a->op->ids[i], &o) : vk_old_by_id(&a->w, a->op->ids[i], &o);
		if (!st && o.there) {
			st = fn(a, &o);
			a->op->touched++;
		}
		vk_old_end(&a->w, &o);
	}
	return st;
}

static enum vk_status by_filter(struct apply *a, point_fn *fn)
{
	struct vk_bitmap *slots;
	uint32_t step[SLOTS_STEP];
	uint64_t from = 0;
	size_t n = SLOTS_STEP;
	enum vk_status st = vk_writer_filter(&a->w, a->op->filter, &slots);
	while (!st && n == SLOTS_STEP && from <= UINT32_MAX) {
		n = vk_bitmap_take(slots, (uint32_t)from, step, SLOTS_STEP);
		for (size_t i = 0; !st && i < n; i++) {
			struct vk_old o;
			st = vk_old_by_slot(&a->w, step[i], &o);
			if (!st) st = fn(a, &o);
			a->op->touched++;
			vk_old_end(&a->w, &o);
		}
		if (n) from = (uint64_t)step[n - 1] + 1;
	}
	vk_bitmap_free(slots);
	return st;
}

static enum vk_status selected(struct apply *a, point_fn *fn, bool must_be)
{
	return a->op->by_filter && !a->op->ids ? by_filter(a, fn) : by_ids(a, fn, must_be);
}

static enum vk_status apply_op(struct apply *a)
{
	enum vk_status st = VK_OK;
	a->op->touched = a->op->added = 0; /* this may run a second time */
	switch (a->op->kind) {
	case VK_OP_UPSERT: st = upsert(a); break;
	case VK_OP_VECTORS_UPDATE: st = update_vectors(a); break;
	case VK_OP_DELETE: st = selected(a, delete_point, false); break;
	case VK_OP_VECTORS_DELETE: st = selected(a, delete_vectors, false); break;
	case VK_OP_PAYLOAD_SET:
	case VK_OP_PAYLOAD_OVERWRITE:
	case VK_OP_PAYLOAD_DELETE:
	case VK_OP_PAYLOAD_CLEAR: st = selected(a, edit_payload, true); break;
	}
	/* The next operation may touch the same points. */
	return st ? st : vk_writer_rows(&a->w);
}

static enum vk_status apply(void *arg, struct vk_kv_txn *t)
{
	struct vk_write *in = arg;
	struct apply a = {.in = in};
	in->err = (struct vk_error){0};
	enum vk_status st = vk_writer_begin(&a.w, in->c, t, in->now_ms, &in->err);
	for (size_t i = 0; !st && i < in->op_n; i++) {
		a.op = &in->op[i];
		st = apply_op(&a);
	}
	in->sequence = a.w.state.sequence;
	st = vk_writer_end(&a.w, st);
	if (!st) atomic_fetch_add_explicit(&in->c->tail_rows, a.w.rows_put, memory_order_relaxed);
	if (!st) atomic_store_explicit(&in->c->points, a.w.state.points, memory_order_relaxed);
	return st;
}

#define KICK_ROWS 512 /* so many rows in the tail make a look worth it */

static void committed(void *arg)
{
	struct vk_write *in = arg;
	atomic_store_explicit(&in->c->wrote_at_ms, in->now_ms, memory_order_relaxed);
	if (atomic_load_explicit(&in->c->tail_rows, memory_order_relaxed) >= KICK_ROWS) vk_background_kick(in->c);
	if (in->c->ann) vk_ann_wrote(in->c->ann, atomic_load_explicit(&in->c->points, memory_order_relaxed));
}

/* Makes sure that a failure has words. */
static void settle(struct vk_write *w, enum vk_status st)
{
	static const char *const words[VK_STATUS_COUNT] = {
	    [VK_E_BUSY] = "too many writes are waiting, try again",
	    [VK_E_NO_SPACE] = "no space left on the disk",
	    [VK_E_IO] = "the store failed and takes no writes any more",
	    [VK_E_TOO_LARGE] = "the write is too large",
	    [VK_E_UNAVAILABLE] = "the collection is being closed",
	};
	w->st = st;
	if (st && w->err.st != st) vk_fail(&w->err, st, "%s", words[st] ? words[st] : vk_status_text(st));
}

static void finished(void *arg, enum vk_status st)
{
	struct vk_write *w = arg;
	settle(w, st);
	w->done(w);
}

static enum vk_status prepare(struct vk_collection *c, struct vk_write *w)
{
	w->c = c;
	w->err = (struct vk_error){0};
	w->sequence = 0;
	w->job = (struct vk_kv_job){.apply = apply, .committed = committed, .arg = w, .bytes = estimate(w)};
	return c->read_only ? VK_E_FORBIDDEN : check(w, &w->err);
}

void vk_collection_write(struct vk_collection *c, struct vk_write *w)
{
	enum vk_status st = prepare(c, w);
	w->job.done = finished;
	if (!st) st = vk_kv_submit(c->kv, &w->job);
	if (st) finished(w, st);
}

enum vk_status vk_collection_write_wait(struct vk_collection *c, struct vk_write *w)
{
	enum vk_status st = prepare(c, w);
	if (!st) st = vk_kv_run(c->kv, &w->job);
	settle(w, st);
	return st;
}
