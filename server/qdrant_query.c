/* Queries out of JSON; see the header. What Qdrant has and this version does not is named with what works instead. */
#include "server/qdrant_query.h"

#include <math.h>

#include "base/hash.h"
#include "base/utf8.h"

#define LIMIT_DEFAULT 10
#define SHOWN 200
#define SAME_FILTER_MAX ((size_t)64 << 10) /* longer filters are not looked for among those seen */

static enum vk_status no_memory(struct vk_error *err)
{
	return vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
}

static bool absent(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_NULL;
}

static int shown(struct vk_bytes s)
{
	return (int)vk_utf8_valid(s.p, s.n < SHOWN ? s.n : SHOWN);
}

/* --- small members --- */

enum vk_status vk_qd_size(const vk_jv *body, const char *name, const char *field, size_t least, size_t dflt, size_t *out,
			  struct vk_error *err)
{
	const vk_jv *v = vk_jv_get(body, name);
	uint64_t n;
	*out = dflt;
	if (absent(v)) return VK_OK;
	if (!vk_jv_u64(v, &n)) return vk_qd_format(err, "%s: expected a whole number", name);
	if (n < least) return vk_qd_validation(err, field, "value %llu invalid, must be %zu or larger", (unsigned long long)n, least);
	*out = n;
	return VK_OK;
}

static enum vk_status read_threshold(const vk_jv *body, struct vk_query *out, struct vk_error *err)
{
	const vk_jv *v = vk_jv_get(body, "score_threshold");
	double d;
	if (absent(v)) return VK_OK;
	if (!vk_jv_f64(v, &d)) return vk_qd_format(err, "score_threshold: expected a number");
	out->has_threshold = true;
	out->threshold = (float)d;
	return VK_OK;
}

/* The same text gives the same filter. */
static enum vk_status read_filter(struct vk_qd *q, struct vk_qd_queries *qs, const vk_jv *body, const struct vk_filter **out,
				  struct vk_error *err)
{
	const vk_jv *v = vk_jv_get(body, "filter");
	struct vk_filter *f = NULL;
	struct vk_buf text;
	struct vk_jw w;
	struct vk_qd_filter_seen *s;
	if (absent(v)) return VK_OK;
	vk_buf_init(&text, SAME_FILTER_MAX);
	vk_jw_init(&w, &text);
	if (qs->n > 1) vk_jw_value(&w, v);
	bool look = qs->n > 1 && !text.failed;
	for (s = qs->seen; look && s; s = s->next)
		if (vk_bytes_eq(s->text, vk_buf_bytes(&text))) break;
	enum vk_status st = VK_OK;
	if (look && s) {
		*out = s->filter;
	} else if (!(st = vk_filter_parse(&q->req->arena, v, &f, err))) {
		*out = f;
		s = look ? vk_arena_calloc(&q->req->arena, 1, sizeof *s) : NULL;
		char *kept = s ? vk_arena_strndup(&q->req->arena, text.p, text.n) : NULL;
		if (kept) {
			*s = (struct vk_qd_filter_seen){{kept, text.n}, f, qs->seen};
			qs->seen = s;
		}
	}
	vk_buf_free(&text);
	return st;
}

/* --- order_by --- */

static bool orders(const struct vk_field_conf *f)
{
	if (!f || !f->ready) return false;
	return f->type == VK_FIELD_FLOAT || f->type == VK_FIELD_DATETIME || (f->type == VK_FIELD_INTEGER && f->range);
}

static enum vk_status read_start(const vk_jv *v, struct vk_order_by *out, struct vk_error *err)
{
	bool whole = out->field->type != VK_FIELD_FLOAT;
	struct vk_bytes text;
	int64_t i;
	double d;
	out->has_start = true;
	if (vk_jv_i64(v, &i) || (vk_jv_str(v, &text) && vk_datetime_parse(text, &i))) {
		out->start = (struct vk_order_value){.is_i64 = whole, .i64 = i, .f64 = (double)i};
		return VK_OK;
	}
	if (!vk_jv_f64(v, &d)) return vk_qd_format(err, "start_from: expected a number or a datetime");
	double w = out->descending ? floor(d) : ceil(d); /* the next whole value on the way */
	out->start = (struct vk_order_value){.is_i64 = whole, .f64 = d};
	out->start.i64 = w >= 0x1p63 ? INT64_MAX : w < -0x1p63 ? INT64_MIN : (int64_t)w;
	return VK_OK;
}

enum vk_status vk_qd_order_by(struct vk_qd *q, const vk_jv *v, struct vk_order_by *out, struct vk_error *err)
{
	const vk_jv *direction = vk_jv_get(v, "direction"), *start = vk_jv_get(v, "start_from");
	struct vk_bytes key, word = VK_LIT("asc");
	if (!vk_jv_str(v, &key) && !vk_jv_str(vk_jv_get(v, "key"), &key))
		return vk_qd_format(err, "Expected a string, or an object with a key, direction and/or start_from");
	if (!absent(direction) && !vk_jv_str(direction, &word)) return vk_qd_format(err, "direction: expected `asc` or `desc`");
	*out = (struct vk_order_by){.field = vk_colconf_field(q->conf, key), .descending = vk_bytes_is(word, "desc")};
	if (!out->descending && !vk_bytes_is(word, "asc"))
		return vk_qd_format(err, "unknown variant `%.*s`, expected `asc` or `desc`", shown(word), word.p);
	if (!orders(out->field))
		return vk_qd_wrong(err, "No range index for `order_by` key: `%.*s`. Please create one to use `order_by`. Indexes of "
					"integer, float and datetime support Range conditions%s",
				   shown(key), key.p, out->field && !out->field->ready ? "; this one is still being built" : "");
	return absent(start) ? VK_OK : read_start(start, out, err);
}

/* --- one query --- */

static enum vk_status find_vector(struct vk_colconf *cc, struct vk_bytes name, const struct vk_vector_conf **out, struct vk_error *err)
{
	*out = vk_colconf_vector(cc, name);
	const struct vk_vector_conf *other = *out ? NULL : vk_colconf_named(cc, name);
	if (other) return vk_qd_sparse_search(name, err);
	return *out ? VK_OK : vk_qd_wrong(err, "Not existing vector name error: %.*s", shown(name), name.p ? name.p : "");
}

struct level { /* of a tree, while it is read */
	struct vk_qd *q;
	struct vk_qd_queries *qs;
	struct vk_query *out;
	struct vk_bytes using;
	struct vk_bytes lookup, lookup_vector; /* lookup_from; p == NULL: the searched collection, the vector of `using` */
};

/* The collection must be there, whether the query reads a point of it or not. */
static enum vk_status read_lookup(struct level *l, const vk_jv *v, struct vk_error *err)
{
	const vk_jv *vector = vk_jv_get(v, "vector");
	struct vk_collection *c;
	if (absent(v)) return VK_OK;
	if (!vk_jv_str(vk_jv_get(v, "collection"), &l->lookup)) return vk_qd_format(err, "lookup_from: missing field `collection`");
	if (!absent(vector) && !vk_jv_str(vector, &l->lookup_vector))
		return vk_qd_format(err, "lookup_from: `vector` must be a string");
	enum vk_status st = vk_qd_access(l->q->req, l->lookup, err);
	if (!st && !(st = vk_collections_get(l->q->app->collections, l->lookup, &c, err))) vk_collection_unref(c);
	return st;
}

static enum vk_status note_id(struct level *l, const vk_jv *v, struct vk_error *err)
{
	struct vk_qd_ref *r = vk_arena_calloc(&l->q->req->arena, 1, sizeof *r);
	if (!r) return no_memory(err);
	enum vk_status st = vk_id_read(&l->q->req->arena, v, &r->id, err);
	if (st) return st;
	r->collection = l->lookup;
	r->vector = l->lookup_vector;
	r->query = l->out;
	r->next = l->qs->refs;
	l->qs->refs = r;
	return VK_OK;
}

static enum vk_status read_nearest(struct level *l, const vk_jv *v, struct vk_error *err)
{
	l->out->kind = VK_QUERY_NEAREST;
	enum vk_status st = find_vector(l->q->conf, l->using, &l->out->using, err);
	if (st) return st;
	if (vk_jv_type(v) == VK_J_NUMBER || vk_jv_type(v) == VK_J_STRING) return note_id(l, v, err);
	return vk_qd_vector(l->q, l->q->conf, l->out->using, v, false, &l->out->vector, err);
}

static enum vk_status read_nearest_object(struct level *l, const vk_jv *v, struct vk_error *err)
{
	if (!absent(vk_jv_get(v, "mmr")))
		return vk_qd_wrong(err, "`mmr` is not supported yet; a nearest query without it is");
	return read_nearest(l, vk_jv_get(v, "nearest"), err);
}

static enum vk_status read_order(struct level *l, const vk_jv *v, struct vk_error *err)
{
	l->out->kind = VK_QUERY_ORDER_BY;
	return vk_qd_order_by(l->q, vk_jv_get(v, "order_by"), &l->out->order, err);
}

static enum vk_status no_using(struct level *l, struct vk_error *err)
{
	if (!l->using.n) return VK_OK;
	return vk_fail(err, VK_E_INVALID, "Bad request: Fusion queries cannot be combined with the 'using' field.");
}

static enum vk_status read_fusion(struct level *l, const vk_jv *v, struct vk_error *err)
{
	struct vk_bytes word = {0};
	vk_jv_str(vk_jv_get(v, "fusion"), &word);
	if (!vk_bytes_is(word, "rrf") && !vk_bytes_is(word, "dbsf"))
		return vk_qd_format(err, "unknown variant `%.*s`, expected `rrf` or `dbsf`", shown(word), word.p ? word.p : "");
	l->out->kind = vk_bytes_is(word, "rrf") ? VK_QUERY_RRF : VK_QUERY_DBSF;
	return no_using(l, err);
}

static enum vk_status read_rrf(struct level *l, const vk_jv *v, struct vk_error *err)
{
	const vk_jv *rrf = vk_jv_get(v, "rrf"), *weights = vk_jv_get(rrf, "weights");
	size_t k, n = vk_jv_len(weights);
	if (vk_jv_type(rrf) != VK_J_OBJECT) return vk_qd_format(err, "rrf: expected an object");
	enum vk_status st = vk_qd_size(rrf, "k", "query.rrf.k", 1, 0, &k, err);
	if (st) return st;
	l->out->kind = VK_QUERY_RRF;
	l->out->rrf_k = k < UINT32_MAX ? (uint32_t)k : UINT32_MAX;
	if (absent(weights)) return no_using(l, err);
	if (n != l->out->prefetch_n)
		return vk_qd_wrong(err, "Validation failed: Number of weights in RRF should match number of pre-fetches: got %zu, "
					"expected %zu", n, l->out->prefetch_n);
	float *row = vk_arena_calloc(&l->q->req->arena, n + 1, sizeof *row);
	if (!row) return no_memory(err);
	if (n && !vk_jv_f32s(weights, row)) return vk_qd_format(err, "weights: expected a list of numbers");
	l->out->rrf_weight = row;
	return no_using(l, err);
}

static enum vk_status read_sample(struct level *l, const vk_jv *v, struct vk_error *err)
{
	struct vk_bytes word = {0};
	if (!vk_jv_str(vk_jv_get(v, "sample"), &word) || !vk_bytes_is(word, "random"))
		return vk_qd_format(err, "unknown variant `%.*s`, expected `random`", shown(word), word.p ? word.p : "");
	l->out->kind = VK_QUERY_SAMPLE;
	vk_random(&l->out->seed, sizeof l->out->seed);
	return VK_OK;
}

static const struct {
	const char *name;
	enum vk_status (*read)(struct level *l, const vk_jv *v, struct vk_error *err); /* NULL: later */
} kinds[] = {
	{"nearest", read_nearest_object}, {"order_by", read_order}, {"fusion", read_fusion}, {"rrf", read_rrf}, {"sample", read_sample},
	{"recommend", NULL}, {"discover", NULL}, {"context", NULL}, {"formula", NULL}, {"relevance_feedback", NULL},
};

static enum vk_status read_kind(struct level *l, const vk_jv *v, struct vk_error *err)
{
	if (absent(v)) return VK_OK; /* scroll */
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds && vk_jv_type(v) == VK_J_OBJECT; i++) {
		if (!vk_jv_get(v, kinds[i].name)) continue;
		if (kinds[i].read) return kinds[i].read(l, v, err);
		return vk_qd_wrong(err, "`%s` queries are not supported yet; nearest, order_by, fusion, rrf and sample are", kinds[i].name);
	}
	return read_nearest(l, v, err);
}

static enum vk_status read_level(struct vk_qd *q, struct vk_qd_queries *qs, const vk_jv *body, struct vk_query *out, unsigned depth,
				 struct vk_error *err);

/* One or a list. */
static enum vk_status read_prefetches(struct vk_qd *q, struct vk_qd_queries *qs, const vk_jv *v, struct vk_query *out, unsigned depth,
				      struct vk_error *err)
{
	bool list = vk_jv_type(v) == VK_J_ARRAY;
	size_t n = list ? vk_jv_len(v) : 1, i = 0;
	if (absent(v)) return VK_OK;
	if (!list && vk_jv_type(v) != VK_J_OBJECT) return vk_qd_format(err, "prefetch: expected an object or a list of objects");
	if (n > VK_QUERY_PREFETCH_MAX)
		return vk_qd_wrong(err, "%zu prefetches at one level, at most %d are possible", n, VK_QUERY_PREFETCH_MAX);
	if (depth > VK_QUERY_DEPTH_MAX)
		return vk_qd_wrong(err, "prefetches are nested too deeply, at most %d levels are possible", VK_QUERY_DEPTH_MAX);
	out->prefetch = vk_arena_calloc(&q->req->arena, n + 1, sizeof *out->prefetch);
	if (!out->prefetch) return no_memory(err);
	out->prefetch_n = n;
	enum vk_status st = VK_OK;
	for (const vk_jv *p = list ? vk_jv_first(v) : v; p && !st; p = list ? vk_jv_next(p) : NULL, i++)
		st = read_level(q, qs, p, &out->prefetch[i], depth, err);
	return st;
}

static enum vk_status read_level(struct vk_qd *q, struct vk_qd_queries *qs, const vk_jv *body, struct vk_query *out, unsigned depth,
				 struct vk_error *err)
{
	struct level l = {.q = q, .qs = qs, .out = out, .using = VK_LIT("")};
	const char *limit = depth ? "internal.prefetch.limit" : "internal.limit";
	const vk_jv *using = vk_jv_get(body, "using"), *query = vk_jv_get(body, "query"), *prefetch = vk_jv_get(body, "prefetch");
	if (vk_jv_type(body) != VK_J_OBJECT) return vk_qd_format(err, "expected an object");
	if (!absent(using) && !vk_jv_str(using, &l.using)) return vk_qd_format(err, "using: expected a string");
	/* What is wrong with any query goes before what this one asks for: it may be of a kind that we do not have. */
	enum vk_status st = vk_qd_size(body, "limit", limit, 1, LIMIT_DEFAULT, &out->limit, err);
	if (!st && absent(query) && (vk_jv_type(prefetch) == VK_J_OBJECT || vk_jv_len(prefetch))) st = vk_query_no_merge(err);
	if (!st) st = read_lookup(&l, vk_jv_get(body, "lookup_from"), err);
	if (!st) st = read_prefetches(q, qs, prefetch, out, depth + 1, err);
	if (!st) st = read_filter(q, qs, body, &out->filter, err);
	if (!st) st = read_kind(&l, query, err);
	if (!st) st = vk_qd_params(body, out, err);
	return st ? st : read_threshold(body, out, err);
}

/* --- whole requests --- */

enum vk_status vk_qd_queries_new(struct vk_qd *q, size_t n, struct vk_qd_queries **out, struct vk_error *err)
{
	struct vk_qd_queries *qs = vk_arena_calloc(&q->req->arena, 1, sizeof *qs);
	if (n > VK_QD_BATCH_MAX) return vk_qd_wrong(err, "%zu queries in one batch, at most %d are possible", n, VK_QD_BATCH_MAX);
	if (!qs || !(qs->query = vk_arena_calloc(&q->req->arena, n + 1, sizeof *qs->query)) ||
	    !(qs->with = vk_arena_calloc(&q->req->arena, n + 1, sizeof *qs->with)))
		return no_memory(err);
	qs->n = n;
	*out = qs;
	return VK_OK;
}

static const vk_jv *either(const vk_jv *body, const char *a, const char *b)
{
	const vk_jv *v = vk_jv_get(body, a);
	return v ? v : vk_jv_get(body, b);
}

static enum vk_status read_with(struct vk_qd *q, struct vk_qd_queries *qs, size_t i, const vk_jv *body, struct vk_error *err)
{
	return vk_qd_with(q, vk_jv_get(body, "with_payload"), either(body, "with_vector", "with_vectors"), false, &qs->with[i], err);
}

enum vk_status vk_qd_query(struct vk_qd *q, struct vk_qd_queries *qs, size_t i, const vk_jv *body, bool groups, struct vk_error *err)
{
	struct vk_query *out = &qs->query[i];
	enum vk_status st = read_level(q, qs, body, out, 0, err);
	if (!st && !groups) st = vk_qd_size(body, "offset", "internal.offset", 0, 0, &out->offset, err);
	return st ? st : read_with(q, qs, i, body, err);
}

/* A vector, {"name": ..., "vector": ...}, or a text. */
static enum vk_status read_search_vector(struct vk_qd *q, const vk_jv *v, struct vk_query *out, struct vk_error *err)
{
	const vk_jv *named = vk_jv_get(v, "vector");
	struct vk_bytes name = VK_LIT("");
	if (absent(v)) return vk_qd_format(err, "missing field `vector`");
	if (named && !vk_jv_str(vk_jv_get(v, "name"), &name)) return vk_qd_format(err, "vector: missing field `name`");
	out->kind = VK_QUERY_NEAREST;
	enum vk_status st = find_vector(q->conf, name, &out->using, err);
	return st ? st : vk_qd_vector(q, q->conf, out->using, named ? named : v, false, &out->vector, err);
}

enum vk_status vk_qd_search(struct vk_qd *q, struct vk_qd_queries *qs, size_t i, const vk_jv *body, bool groups, struct vk_error *err)
{
	struct vk_query *out = &qs->query[i];
	const char *limit = vk_jv_get(body, "limit") || !vk_jv_get(body, "top") ? "limit" : "top";
	if (vk_jv_type(body) != VK_J_OBJECT) return vk_qd_format(err, "expected an object");
	enum vk_status st = read_search_vector(q, vk_jv_get(body, "vector"), out, err);
	if (!st && absent(vk_jv_get(body, limit))) return vk_qd_format(err, "missing field `limit`");
	if (!st) st = read_filter(q, qs, body, &out->filter, err);
	if (!st) st = vk_qd_params(body, out, err);
	if (!st) st = read_threshold(body, out, err);
	if (!st) st = vk_qd_size(body, limit, "search_request.limit", 1, 0, &out->limit, err);
	if (!st && !groups) st = vk_qd_size(body, "offset", "search_request.offset", 0, 0, &out->offset, err);
	return st ? st : read_with(q, qs, i, body, err);
}

/* --- vectors of points --- */

static enum vk_status not_there(struct vk_qd *q, struct vk_bytes id, struct vk_error *err)
{
	struct vk_buf text;
	struct vk_jw w;
	(void)q;
	vk_buf_init(&text, 1024);
	vk_jw_init(&w, &text);
	vk_id_write(&w, id);
	const char *s = vk_buf_cstr(&text);
	size_t n = strlen(s);
	if (n > 1 && *s == '"') s++, n -= 2;
	vk_fail(err, VK_E_NOT_FOUND, "Not found: No point with id %.*s found", (int)n, s);
	vk_buf_free(&text);
	return VK_E_NOT_FOUND;
}

static enum vk_status spaces_meet(const struct vk_qd *q, const struct vk_vector_conf *theirs, const struct vk_vector_conf *ours,
				  struct vk_error *err)
{
	bool judged = q->conf->provenance != VK_PROVENANCE_OFF && theirs->space && ours->space;
	if (!judged || strcmp(theirs->space, ours->space) == 0) {
		if (theirs->set.dims == ours->set.dims) return VK_OK;
		return vk_qd_wrong(err, "Vector dimension error: expected dim: %u, got %u", ours->set.dims, theirs->set.dims);
	}
	return vk_fail_param(err, VK_E_CONFLICT, "space_mismatch", NULL,
			     "Conflict: vector `%s` holds space %s, but the point that is looked up has a vector of space %s. Vectors of "
			     "two spaces do not compare.", ours->name[0] ? ours->name : "default", ours->space, theirs->space);
}

static enum vk_status read_row(struct vk_qd *q, struct vk_qd_ref *r, struct vk_view *v, struct vk_error *err)
{
	const struct vk_vector_conf *ours = r->query->using, *theirs;
	struct vk_row row;
	uint32_t slot;
	enum vk_status st = find_vector(v->conf, r->vector.p ? r->vector : vk_bytes_of(ours->name), &theirs, err);
	if (!st) st = spaces_meet(q, theirs, ours, err);
	if (st) return st;
	if ((st = vk_view_slot(v, r->id, &slot)) == VK_E_NOT_FOUND) return not_there(q, r->id, err);
	if (!st) st = vk_vset_row(v->t, &theirs->set, slot, &row);
	if (st == VK_E_NOT_FOUND)
		return vk_qd_wrong(err, "Not existing vector name error: the point that is asked for has no vector `%s`", theirs->name);
	if (st) return vk_fail(err, st, "a point's vector cannot be read");
	float *dst = vk_arena_alloc(&q->req->arena, (size_t)theirs->set.dims * sizeof *dst);
	if (!dst) return no_memory(err);
	vk_row_f32(&theirs->set, &row, theirs->set.metric == VK_METRIC_COSINE, dst);
	r->query->vector = dst;
	return VK_OK;
}

struct elsewhere {
	struct vk_qd *q;
	struct vk_qd_ref *r;
	struct vk_error *err;
};

static enum vk_status read_there(void *arg, struct vk_view *v)
{
	struct elsewhere *e = arg;
	return read_row(e->q, e->r, v, e->err);
}

static enum vk_status read_elsewhere(struct vk_qd *q, struct vk_qd_ref *r, int64_t now_ms, struct vk_error *err)
{
	struct vk_collection *c;
	enum vk_status st = vk_qd_access(q->req, r->collection, err);
	if (!st) st = vk_qd_collection(q, r->collection, &c, err);
	if (st) return st;
	bool same = c == q->c; /* its own name, or an alias of it */
	struct elsewhere e = {q, r, err};
	st = vk_view_run(c, now_ms, &q->stop, read_there, &e);
	vk_collection_unref(c);
	if (st == VK_E_IO) return vk_qd_storage(err, r->collection);
	if (st && !err->st) vk_fail(err, st, "the collection cannot be read: %s", vk_status_text(st));
	if (!st && same) r->query->not_id = r->id;
	return st;
}

/* A config that changed between decoding and now may have another set in the vector's place, or no index. */
static bool still_true(const struct vk_query *q, const struct vk_colconf *now)
{
	if (q->kind == VK_QUERY_NEAREST) {
		const struct vk_vector_conf *c = vk_colconf_vector(now, vk_bytes_of(q->using->name));
		if (!c || c->set.id != q->using->set.id) return false;
	}
	if (q->kind == VK_QUERY_ORDER_BY) {
		const struct vk_field_conf *f = vk_colconf_field(now, vk_bytes_of(q->order.field->path));
		if (!f || f->field != q->order.field->field || !f->ready) return false;
	}
	for (size_t i = 0; i < q->prefetch_n; i++)
		if (!still_true(&q->prefetch[i], now)) return false;
	return true;
}

enum vk_status vk_qd_queries_ready(struct vk_qd *q, struct vk_qd_queries *qs, struct vk_view *v, struct vk_error *err)
{
	for (size_t i = 0; i < qs->n && v->conf != q->conf; i++) {
		if (still_true(&qs->query[i], v->conf)) continue;
		vk_fail(err, VK_E_UNAVAILABLE, "Service error: the collection changed while the query ran; send it again");
		err->retry_after_ms = 100;
		return err->st;
	}
	for (struct vk_qd_ref *r = qs->refs; r; r = r->next) {
		enum vk_status st = r->collection.n ? read_elsewhere(q, r, v->now_ms, err) : read_row(q, r, v, err);
		if (st) return st;
		if (!r->collection.n) r->query->not_id = r->id;
	}
	return VK_OK;
}
