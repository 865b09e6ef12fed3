/*
 * Ids, vectors, selectors out of a body. A vector is numbers (Qdrant's dense list) or a text where one could stand; what Qdrant has
 * and this version does not (multi, images) is named in the error. Sparse vectors: qdrant_sparse.c.
 */
#include "server/qdrant.h"
#include "base/utf8.h"

#define SHOWN 200

static int shown(struct vk_bytes s)
{
	return (int)vk_utf8_valid(s.p, s.n < SHOWN ? s.n : SHOWN);
}

static enum vk_status no_memory(struct vk_error *err)
{
	return vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
}

static bool absent(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_NULL;
}

static bool is_list(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_ARRAY || vk_jv_type(v) == VK_J_NUMBERS;
}

enum vk_status vk_qd_fields(const vk_jv *obj, const char *names, struct vk_error *err)
{
	for (const vk_jv *m = vk_jv_first(obj); m; m = vk_jv_next(m)) {
		struct vk_bytes key = vk_jv_key(m);
		bool known = false;
		for (const char *p = names; *p && !known;) {
			size_t n = strcspn(p, " ");
			known = vk_bytes_eq(key, (struct vk_bytes){p, n});
			p += n + (p[n] == ' ');
		}
		if (!known) return vk_qd_format(err, "unknown field `%.*s`, expected one of: %s", shown(key), key.p, names);
	}
	return VK_OK;
}

/* --- ids --- */

static enum vk_status ids_of_numbers(struct vk_arena *a, const vk_jv *v, struct vk_bytes *ids, size_t n, struct vk_error *err)
{
	uint64_t *u = vk_arena_alloc(a, n * sizeof *u);
	uint8_t *keys = vk_arena_alloc(a, n * 9);
	if (!u || !keys) return no_memory(err);
	if (!vk_jv_u64s(v, u))
		return vk_qd_format(err, "a point ID is not valid, valid values are either an unsigned integer or a UUID");
	for (size_t i = 0; i < n; i++) {
		vk_id_u64(keys + 9 * i, u[i]);
		ids[i] = (struct vk_bytes){(const char *)keys + 9 * i, 9};
	}
	return VK_OK;
}

static enum vk_status one_id(struct vk_qd *q, const vk_jv *v, struct vk_bytes *key, struct vk_error *err)
{
	enum vk_status st = vk_id_read(&q->req->arena, v, key, err);
	if (st != VK_E_INVALID || strncmp(err->text, "Format error", 12) == 0) return st;
	char text[VK_ERROR_TEXT_MAX];
	memcpy(text, err->text, sizeof text);
	return vk_qd_format(err, "%s", text);
}

enum vk_status vk_qd_ids(struct vk_qd *q, const vk_jv *v, struct vk_bytes **ids, size_t *n, struct vk_error *err)
{
	if (!is_list(v)) return vk_qd_format(err, "expected a list of point ids");
	*n = vk_jv_len(v);
	*ids = vk_arena_calloc(&q->req->arena, *n + 1, sizeof **ids); /* never NULL: NULL means "by filter" */
	if (!*ids) return no_memory(err);
	if (vk_jv_type(v) == VK_J_NUMBERS) return ids_of_numbers(&q->req->arena, v, *ids, *n, err);
	size_t i = 0;
	for (const vk_jv *c = vk_jv_first(v); c; c = vk_jv_next(c)) {
		enum vk_status st = one_id(q, c, &(*ids)[i++], err);
		if (st) return st;
	}
	return VK_OK;
}

enum vk_status vk_qd_selector(struct vk_qd *q, const vk_jv *body, struct vk_op_in *op, struct vk_error *err)
{
	const vk_jv *points = vk_jv_get(body, "points"), *filter = vk_jv_get(body, "filter");
	if (vk_jv_type(body) != VK_J_OBJECT) return vk_qd_format(err, "expected an object with `points` or `filter`");
	if (!absent(points)) return vk_qd_ids(q, points, &op->ids, &op->ids_n, err);
	if (vk_jv_type(filter) != VK_J_OBJECT)
		return vk_qd_format(err, "Either list of point ids or filter must be provided");
	struct vk_filter *f = NULL;
	enum vk_status st = vk_filter_parse(&q->req->arena, filter, &f, err);
	op->filter = f;
	op->by_filter = true;
	return st;
}

/* --- vectors --- */

static enum vk_status wrong_dims(const struct vk_vector_conf *conf, size_t got, struct vk_error *err)
{
	return vk_qd_wrong(err, "Vector dimension error: expected dim: %u, got %zu", conf->set.dims, got);
}

static enum vk_status no_such_vector(struct vk_bytes name, struct vk_error *err)
{
	return vk_qd_wrong(err, "Not existing vector name error: %.*s", shown(name), name.p ? name.p : "");
}

static enum vk_status read_numbers(struct vk_qd *q, struct vk_colconf *cc, const struct vk_vector_conf *conf, const vk_jv *v,
				   bool write, const float **row, struct vk_error *err)
{
	if (vk_jv_len(v) != conf->set.dims) return wrong_dims(conf, vk_jv_len(v), err);
	float *dst = vk_arena_alloc(&q->req->arena, (size_t)conf->set.dims * sizeof *dst);
	if (!dst) return no_memory(err);
	if (!vk_jv_f32s(v, dst)) return vk_qd_format(err, "a vector holds a number that is too large for a 32-bit float");
	*row = dst;
	return vk_qd_raw(q, cc, conf, dst, write, err);
}

static bool is_document(const vk_jv *v)
{
	return vk_jv_type(vk_jv_get(v, "text")) == VK_J_STRING;
}

static enum vk_status hang_text(struct vk_qd *q, struct vk_colconf *cc, const struct vk_vector_conf *conf, const vk_jv *v, bool write,
				const float **row, struct vk_error *err)
{
	const vk_jv *model = vk_jv_get(v, "model"), *options = vk_jv_get(v, "options");
	struct vk_qd_text *t = vk_arena_calloc(&q->req->arena, 1, sizeof *t);
	enum vk_status st = vk_qd_fields(v, "text model options", err);
	if (st) return st;
	if (q->texts_n == VK_QD_TEXTS_MAX) return vk_qd_wrong(err, "more than %d texts in one request", VK_QD_TEXTS_MAX);
	if (t) t->row = vk_arena_alloc(&q->req->arena, (size_t)conf->set.dims * sizeof *t->row);
	if (!t || !t->row) return no_memory(err);
	vk_jv_str(vk_jv_get(v, "text"), &t->text);
	if (!absent(model) && !vk_jv_str(model, &t->model)) return vk_qd_format(err, "`model` of a document must be a string");
	if (!absent(options) && vk_jv_type(options) != VK_J_OBJECT)
		return vk_qd_format(err, "`options` of a document must be an object");
	t->options = absent(options) ? NULL : options;
	t->conf = cc;
	t->vector = conf;
	t->write = write;
	*q->texts_tail = t;
	q->texts_tail = &t->next;
	q->texts_n++;
	*row = t->row;
	return VK_OK;
}

static enum vk_status not_dense(const struct vk_vector_conf *conf, const vk_jv *v, bool write, struct vk_error *err)
{
	if (vk_qd_is_sparse(v)) {
		enum vk_status st = vk_qd_sparse_check(v, err);
		if (st) return st;
		if (!write) return vk_qd_sparse_search(vk_bytes_of(conf ? conf->name : ""), err);
		return vk_qd_wrong(err, "Conversion between sparse and regular vectors failed: vector `%s` is dense", conf ? conf->name : "");
	}
	if (is_list(v) && vk_jv_first(v) && is_list(vk_jv_first(v)))
		return vk_qd_wrong(err, "Conversion between multi and regular vectors failed: this version keeps one row a vector");
	if (vk_jv_get(v, "image") || vk_jv_get(v, "object"))
		return vk_qd_wrong(err, "only texts can be embedded: {\"text\": ..., \"model\": ...}");
	return vk_qd_format(err, "a vector must be a list of numbers or {\"text\": ..., \"model\": ...}");
}

enum vk_status vk_qd_vector(struct vk_qd *q, struct vk_colconf *cc, const struct vk_vector_conf *conf, const vk_jv *v, bool write,
			    const float **row, struct vk_error *err)
{
	switch (vk_jv_type(v)) {
	case VK_J_NUMBERS: return read_numbers(q, cc, conf, v, write, row, err);
	case VK_J_ARRAY: return vk_jv_len(v) ? not_dense(conf, v, write, err) : wrong_dims(conf, 0, err);
	case VK_J_OBJECT: return is_document(v) ? hang_text(q, cc, conf, v, write, row, err) : not_dense(conf, v, write, err);
	default: return not_dense(conf, v, write, err);
	}
}

enum vk_status vk_qd_named(const struct vk_qd *q, struct vk_bytes name, const struct vk_vector_conf **out, struct vk_error *err)
{
	*out = vk_colconf_named(q->conf, name);
	return *out ? VK_OK : no_such_vector(name, err);
}

enum vk_status vk_qd_vec(struct vk_qd *q, struct vk_bytes name, const vk_jv *v, struct vk_vec *out, struct vk_error *err)
{
	enum vk_status st = VK_OK;
	out->conf = vk_colconf_named(q->conf, name);
	if (!out->conf) {
		/* Qdrant looks at the value before it knows the collection. */
		if (vk_qd_is_sparse(v)) st = vk_qd_sparse_check(v, err);
		return st ? st : no_such_vector(name, err);
	}
	if (out->conf->sparse && is_document(v))
		return vk_qd_wrong(err, "vector `%s` is sparse: texts are embedded into dense vectors only", out->conf->name);
	if (out->conf->sparse) return vk_qd_sparse(q, v, out, err);
	if (is_document(v)) vk_jv_str(vk_jv_get(v, "text"), &out->text);
	return vk_qd_vector(q, q->conf, out->conf, v, true, &out->row, err);
}

enum vk_status vk_qd_vectors(struct vk_qd *q, const vk_jv *v, struct vk_vec **out, size_t *n, struct vk_error *err)
{
	bool named = vk_jv_type(v) == VK_J_OBJECT && !is_document(v);
	size_t count = named ? vk_jv_len(v) : 1, i = 0;
	struct vk_vec *vec = vk_arena_calloc(&q->req->arena, count + 1, sizeof *vec);
	enum vk_status st = VK_OK;
	if (!vec) return no_memory(err);
	if (named && vk_jv_type(vk_jv_get(v, "model")) == VK_J_STRING) return not_dense(NULL, v, true, err); /* an image and its model, say */
	if (!named) {
		if (!is_list(v) && !is_document(v)) return not_dense(NULL, v, true, err);
		st = vk_qd_vec(q, VK_LIT(""), v, vec, err);
	}
	for (const vk_jv *m = named ? vk_jv_first(v) : NULL; m && !st; m = vk_jv_next(m)) st = vk_qd_vec(q, vk_jv_key(m), m, &vec[i++], err);
	*out = vec;
	*n = count;
	return st;
}

/* --- with_payload, with_vector --- */

static enum vk_status paths_of(struct vk_qd *q, const vk_jv *list, const struct vk_path **out, size_t *n, struct vk_error *err)
{
	struct vk_bytes text;
	if (vk_jv_type(list) != VK_J_ARRAY) return vk_qd_format(err, "expected a list of payload fields");
	struct vk_path *p = vk_arena_calloc(&q->req->arena, vk_jv_len(list) + 1, sizeof *p); /* never NULL: that means all */
	if (!p) return no_memory(err);
	*out = p;
	*n = 0;
	for (const vk_jv *i = vk_jv_first(list); i; i = vk_jv_next(i)) {
		if (!vk_jv_str(i, &text)) return vk_qd_format(err, "a payload field must be a string");
		enum vk_status st = vk_path_parse(&q->req->arena, text, &p[(*n)++], err);
		if (st) return st;
	}
	return VK_OK;
}

static enum vk_status read_with_payload(struct vk_qd *q, const vk_jv *v, bool dflt, struct vk_payload_select *sel,
					struct vk_error *err)
{
	const vk_jv *include = vk_jv_get(v, "include"), *exclude = vk_jv_get(v, "exclude");
	*sel = (struct vk_payload_select){.any = dflt};
	if (absent(v) || vk_jv_bool(v, &sel->any)) return VK_OK;
	sel->any = true;
	if (vk_jv_type(v) == VK_J_ARRAY) return paths_of(q, v, &sel->include, &sel->include_n, err);
	if (vk_jv_len(v) == 1 && include) return paths_of(q, include, &sel->include, &sel->include_n, err);
	if (vk_jv_len(v) == 1 && exclude) return paths_of(q, exclude, &sel->exclude, &sel->exclude_n, err);
	return vk_qd_format(err, "data did not match any variant of untagged enum WithPayloadInterface");
}

static enum vk_status read_with_vector(struct vk_qd *q, const vk_jv *v, struct vk_qd_with *out, struct vk_error *err)
{
	struct vk_bytes name;
	out->vectors = false;
	out->only = NULL;
	out->only_n = 0;
	if (absent(v) || vk_jv_bool(v, &out->vectors)) return VK_OK;
	if (vk_jv_type(v) != VK_J_ARRAY) return vk_qd_format(err, "data did not match any variant of untagged enum WithVector");
	out->only = vk_arena_calloc(&q->req->arena, vk_jv_len(v) + 1, sizeof *out->only);
	if (!out->only) return no_memory(err);
	out->vectors = true;
	for (const vk_jv *i = vk_jv_first(v); i; i = vk_jv_next(i)) {
		if (!vk_jv_str(i, &name)) return vk_qd_format(err, "a vector name must be a string");
		enum vk_status st = vk_qd_named(q, name, &out->only[out->only_n++], err);
		if (st) return st;
	}
	return VK_OK;
}

enum vk_status vk_qd_with(struct vk_qd *q, const vk_jv *with_payload, const vk_jv *with_vector, bool payload_dflt,
			  struct vk_qd_with *out, struct vk_error *err)
{
	enum vk_status st = read_with_payload(q, with_payload, payload_dflt, &out->payload, err);
	return st ? st : read_with_vector(q, with_vector, out, err);
}
