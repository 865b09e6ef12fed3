/*
 * Documents: what applications really have. PUT /collections/{c}/documents/{doc_id} replaces a document by its chunks in
 * one commit: chunks that stayed keep their points, chunks that are gone lose theirs, no reader sees half of either.
 *
 *   {"chunks": ["text", {"text": "...", "id": 7, "payload": {...}, "vector": [...]}], "payload": {...}, "model": "m", "using": "v"}
 *   -> {"operation_id", "status", "added", "kept", "removed", "tokens", "billed_tokens", "cached_chunks"}
 *
 * A chunk without an id gets one made of the document's id, its text and how often that text came before, so the same chunk is
 * the same point next time and its text is a hit in the cache. Payload of a point: the body's, then the chunk's, then
 * `document_id`, `chunk` (its place) and the text under the collection's text_from. The payload index on document_id is made
 * with the first document.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/hash.h"
#include "server/flows_qdrant.h"
#include "server/qdrant.h"
#include "server/qdrant_config.h"

#define CHUNKS_MAX 8192
#define DOC_ID_MAX 480
#define CHUNK_FIELDS "text id payload vector"
#define BODY_FIELDS "chunks payload model using"

/* How often a text came before: open addressing over at least twice as many cells as chunks, so a walk is short. */
struct repeats {
	uint32_t *cell;  /* 1 + the place of the text's first chunk; 0: free */
	uint32_t *times; /* by that place: how often so far */
	size_t mask;
	uint64_t seed;   /* fresh, so that nobody aims his chunks at one cell */
};

struct doc {
	struct vk_bytes id;
	const struct vk_vector_conf *vector;
	struct vk_bytes model;
	struct vk_point_in *point;
	struct vk_bytes *text;
	size_t n;
	struct repeats repeats;
	struct vk_op_in op[2];
};

/* The flow's state, with the document's id. */
static enum vk_status begin(struct vk_qd *q, struct doc **out, struct vk_error *err)
{
	struct doc *d = *out = q->flow = vk_arena_calloc(&q->req->arena, 1, sizeof *d);
	if (!d) return vk_fail(err, VK_E_NOMEM, "out of memory");
	d->id = vk_req_param(q->req, "doc_id");
	if (!d->id.n || d->id.n > DOC_ID_MAX)
		return vk_qd_wrong(err, "a document id has 1 to %d bytes", DOC_ID_MAX);
	return VK_OK;
}

/* The filter of this document's points: all of them, or those that are not among the chunks. */
static enum vk_status make_filter(struct vk_qd *q, struct doc *d, bool all, struct vk_filter **f, struct vk_error *err)
{
	struct vk_jw w;
	struct vk_buf b;
	vk_buf_init(&b, (size_t)16 << 20);
	vk_jw_init(&w, &b);
	vk_jw_object(&w);
	vk_jw_key(&w, "must");
	vk_jw_object(&w);
	vk_jw_kv(&w, "key", "document_id");
	vk_jw_key(&w, "match");
	vk_jw_object(&w);
	vk_jw_key(&w, "value");
	vk_jw_str(&w, d->id);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	if (!all) {
		vk_jw_key(&w, "must_not");
		vk_jw_object(&w);
		vk_jw_key(&w, "has_id");
		vk_jw_array(&w);
		for (size_t i = 0; i < d->n; i++) vk_id_write(&w, d->point[i].id);
		vk_jw_array_end(&w);
		vk_jw_object_end(&w);
	}
	vk_jw_object_end(&w);
	/* The parsed filter borrows the text: it must lie in the arena. */
	char *text = b.failed ? NULL : vk_arena_strndup(&q->req->arena, b.p, b.n);
	struct vk_bytes span = {text, b.n};
	vk_buf_free(&b);
	if (!text) return vk_fail(err, VK_E_NOMEM, "out of memory");
	enum vk_status st = vk_json_parse(&q->req->arena, span, NULL, &q->made[0], err);
	return st ? st : vk_filter_parse(&q->req->arena, vk_json_root(q->made[0]), f, err);
}

static bool new_repeats(struct repeats *r, struct vk_arena *a, size_t chunks)
{
	size_t cells = 4;
	while (cells < 2 * chunks) cells *= 2;
	r->cell = vk_arena_calloc(a, cells, sizeof *r->cell);
	r->times = vk_arena_calloc(a, chunks + 1, sizeof *r->times);
	r->mask = cells - 1;
	vk_random(&r->seed, sizeof r->seed);
	return r->cell && r->times;
}

/* Once for every chunk, in their order; those that bring an id count, too. */
static uint32_t times_before(struct repeats *r, const struct vk_bytes *text, size_t i)
{
	size_t at = vk_hash64(r->seed, text[i].p, text[i].n) & r->mask;
	while (r->cell[at] && !vk_bytes_eq(text[r->cell[at] - 1], text[i])) at = (at + 1) & r->mask;
	if (!r->cell[at]) r->cell[at] = (uint32_t)i + 1;
	return r->times[r->cell[at] - 1]++;
}

static enum vk_status chunk_id(struct vk_qd *q, struct doc *d, size_t i, uint32_t before, struct vk_error *err)
{
	struct vk_sha256 s;
	uint8_t hash[VK_SHA256_SIZE], *key = vk_arena_alloc(&q->req->arena, 17);
	uint8_t n[4];
	if (!key) return vk_fail(err, VK_E_NOMEM, "out of memory");
	vk_put_u32le(n, before);
	vk_sha256_init(&s);
	vk_sha256_update(&s, "veckeep-chunk\1", 14);
	vk_sha256_update(&s, d->id.p, d->id.n);
	vk_sha256_update(&s, "\0", 1);
	vk_sha256_update(&s, n, 4);
	vk_sha256_update(&s, d->text[i].p, d->text[i].n);
	vk_sha256_final(&s, hash);
	key[0] = 2;
	memcpy(key + 1, hash, 16);
	key[7] = (uint8_t)((key[7] & 0x0f) | 0x80); /* RFC 9562, version 8: our own kind */
	key[9] = (uint8_t)((key[9] & 0x3f) | 0x80);
	d->point[i].id = (struct vk_bytes){(char *)key, 17};
	return VK_OK;
}

/* All but the text, and but what `over` says, too. */
static void copy_members(struct vk_jw *w, const vk_jv *payload, const vk_jv *over, const char *text_from)
{
	for (const vk_jv *m = vk_jv_first(payload); m; m = vk_jv_next(m))
		if (!vk_jv_get(over, vk_jv_key(m).p) && !vk_bytes_is(vk_jv_key(m), text_from)) vk_jw_member(w, m);
}

static enum vk_status check_payload(const vk_jv *p, const char *where, struct vk_error *err)
{
	if (!p || vk_jv_type(p) == VK_J_NULL) return VK_OK;
	if (vk_jv_type(p) != VK_J_OBJECT)
		return vk_qd_format(err, "%s must be an object", where);
	if (vk_jv_get(p, "document_id") || vk_jv_get(p, "chunk"))
		return vk_qd_wrong(err, "%s: `document_id` and `chunk` are set by the server", where);
	return VK_OK;
}

static enum vk_status read_text_and_vector(struct vk_qd *q, struct doc *d, const vk_jv *m, size_t i, struct vk_error *err)
{
	struct vk_bytes text = {0};
	bool bare = vk_jv_str(m, &text);
	const vk_jv *vector = bare ? NULL : vk_jv_get(m, "vector");
	if (!bare && (vk_jv_type(m) != VK_J_OBJECT || !vk_jv_str(vk_jv_get(m, "text"), &text)))
		return vk_qd_format(err, "chunks[%zu]: a chunk is a text, or an object with `text`", i);
	if (!text.n) return vk_qd_wrong(err, "chunks[%zu]: an empty text is no chunk", i);
	d->text[i] = text;
	if (vector) return vk_qd_vectors(q, vector, &d->point[i].vec, &d->point[i].vec_n, err);
	struct vk_vec *vec = vk_arena_calloc(&q->req->arena, 1, sizeof *vec);
	struct vk_qd_text *t = vk_arena_calloc(&q->req->arena, 1, sizeof *t);
	float *row = vk_arena_alloc(&q->req->arena, d->vector->set.dims * sizeof *row);
	if (!vec || !t || !row) return vk_fail(err, VK_E_NOMEM, "out of memory");
	*t = (struct vk_qd_text){.text = text, .model = d->model, .conf = q->conf, .vector = d->vector, .row = row, .write = true};
	*q->texts_tail = t;
	q->texts_tail = &t->next;
	q->texts_n++;
	*vec = (struct vk_vec){.conf = d->vector, .row = row, .text = text};
	d->point[i].vec = vec;
	d->point[i].vec_n = 1;
	return VK_OK;
}

static enum vk_status read_chunk(struct vk_qd *q, struct doc *d, struct vk_jw *w, const vk_jv *m, const vk_jv *common, size_t i,
				 struct vk_error *err)
{
	const char *text_from = q->conf->text_from && strcmp(q->conf->text_from, "_node_content") ? q->conf->text_from : "text";
	const vk_jv *own = vk_jv_type(m) == VK_J_OBJECT ? vk_jv_get(m, "payload") : NULL;
	const vk_jv *id = vk_jv_type(m) == VK_J_OBJECT ? vk_jv_get(m, "id") : NULL;
	enum vk_status st = read_text_and_vector(q, d, m, i, err);
	if (!st && vk_jv_type(m) == VK_J_OBJECT) st = vk_qd_fields(m, CHUNK_FIELDS, err);
	if (!st) st = check_payload(own, "a chunk's payload", err);
	if (st) return st;
	uint32_t before = times_before(&d->repeats, d->text, i);
	st = id && vk_jv_type(id) != VK_J_NULL ? vk_id_read(&q->req->arena, id, &d->point[i].id, err)
					       : chunk_id(q, d, i, before, err);
	if (st) return st;
	vk_jw_object(w);
	copy_members(w, common, own, text_from);
	copy_members(w, own, NULL, text_from);
	vk_jw_key(w, "document_id");
	vk_jw_str(w, d->id);
	vk_jw_ki(w, "chunk", (int64_t)i);
	vk_jw_key(w, text_from);
	vk_jw_str(w, d->text[i]);
	vk_jw_object_end(w);
	return VK_OK;
}

static enum vk_status read_vector_name(struct vk_qd *q, struct doc *d, struct vk_error *err)
{
	struct vk_bytes using = {0};
	const vk_jv *v = vk_jv_get(q->body, "using");
	if (v && vk_jv_type(v) != VK_J_NULL && !vk_jv_str(v, &using))
		return vk_qd_format(err, "using must be a string");
	d->vector = using.n ? vk_colconf_vector(q->conf, using) : q->conf->vectors_n == 1 ? &q->conf->vectors[0] : vk_colconf_vector(q->conf, VK_LIT(""));
	if (!d->vector)
		return vk_qd_wrong(err, "Not existing vector name error: %.*s",
			       using.n ? (int)using.n : 23, using.n ? using.p : "say which one by `using`");
	return VK_OK;
}

/* The joined payloads, read back once: the writer wants them parsed. */
static enum vk_status parse_payloads(struct vk_qd *q, struct doc *d, const struct vk_buf *json, const size_t *end,
				     struct vk_error *err)
{
	char *text = json->failed ? NULL : vk_arena_strndup(&q->req->arena, json->p, json->n);
	if (!text) return vk_fail(err, VK_E_NOMEM, "out of memory");
	enum vk_status st = vk_json_parse(&q->req->arena, (struct vk_bytes){text, json->n}, NULL, &q->made[1], err);
	if (st) return st;
	const vk_jv *m = vk_jv_first(vk_json_root(q->made[1]));
	for (size_t i = 0, from = 1; i < d->n; i++, m = vk_jv_next(m)) {
		d->point[i].payload = (struct vk_bytes){text + from, end[i] - from};
		d->point[i].payload_jv = m;
		from = end[i] + 1;
	}
	return VK_OK;
}

static enum vk_status read_body(struct vk_qd *q, struct doc *d, struct vk_error *err)
{
	const vk_jv *chunks = vk_jv_get(q->body, "chunks"), *common = vk_jv_get(q->body, "payload");
	struct vk_arena *a = &q->req->arena;
	struct vk_buf json;
	struct vk_jw w;
	enum vk_status st = vk_qd_fields(q->body, BODY_FIELDS, err);
	if (!st) st = read_vector_name(q, d, err);
	if (!st) st = check_payload(common, "payload", err);
	if (st) return st;
	if (vk_jv_type(chunks) != VK_J_ARRAY || vk_jv_len(chunks) > CHUNKS_MAX)
		return vk_qd_format(err, "chunks must be a list of at most %d chunks", CHUNKS_MAX);
	vk_jv_str(vk_jv_get(q->body, "model"), &d->model);
	d->n = vk_jv_len(chunks);
	size_t *end = vk_arena_calloc(a, d->n + 1, sizeof *end);
	d->point = vk_arena_calloc(a, d->n + 1, sizeof *d->point);
	d->text = vk_arena_calloc(a, d->n + 1, sizeof *d->text);
	if (!end || !d->point || !d->text || !new_repeats(&d->repeats, a, d->n)) return vk_fail(err, VK_E_NOMEM, "out of memory");
	vk_buf_init(&json, (size_t)256 << 20);
	vk_jw_init(&w, &json);
	vk_jw_array(&w);
	size_t i = 0;
	for (const vk_jv *m = vk_jv_first(chunks); m && !st; m = vk_jv_next(m), i++) {
		st = read_chunk(q, d, &w, m, common, i, err);
		end[i] = json.n;
	}
	if (!st) {
		vk_jw_array_end(&w);
		st = parse_payloads(q, d, &json, end, err);
	}
	vk_buf_free(&json);
	return st;
}

/* --- an index on document_id, once --- */

static enum vk_status make_index(struct vk_qd *q, struct vk_error *err)
{
	struct vk_arena a;
	struct vk_json *schema = NULL;
	vk_arena_init(&a, 65536);
	enum vk_status st = vk_json_parse(&a, VK_LIT("{\"schema\": \"keyword\"}"), NULL, &schema, err);
	if (!st) {
		struct vk_qd_edit edit = {.app = q->app, .registry = vk_app_registry(q->app), .kind = VK_QD_INDEX_ADD,
					  .body = vk_jv_get(vk_json_root(schema), "schema"), .name = VK_LIT("document_id")};
		st = vk_collection_configure(q->c, vk_qd_config_edit, &edit, true, err);
		vk_registry_unref(edit.registry);
	}
	vk_json_free(schema);
	vk_arena_free(&a);
	return st;
}

/* --- the write --- */

static void write_head(struct vk_jw *w, const struct vk_write *done)
{
	vk_jw_object(w);
	vk_jw_key(w, "operation_id");
	vk_jw_u64(w, done->sequence);
	vk_jw_kv(w, "status", "completed");
}

static void on_put(struct vk_qd *q, const struct vk_write *done)
{
	const struct doc *d = q->flow;
	struct vk_jw w;
	vk_qd_begin(q, &w);
	write_head(&w, done);
	vk_jw_ki(&w, "added", (int64_t)d->op[1].added);
	vk_jw_ki(&w, "kept", (int64_t)(d->op[1].touched - d->op[1].added));
	vk_jw_ki(&w, "removed", (int64_t)d->op[0].touched);
	vk_jw_ki(&w, "tokens", (int64_t)q->tokens);
	vk_jw_ki(&w, "billed_tokens", (int64_t)q->billed_tokens);
	vk_jw_ki(&w, "cached_chunks", (int64_t)q->text_hits);
	vk_jw_object_end(&w);
	vk_qd_reply(q, &w);
}

static void put_work(struct vk_qd *q)
{
	struct doc *d = q->flow;
	struct vk_filter *gone = NULL;
	struct vk_error err = {0};
	enum vk_status st = make_filter(q, d, d->n == 0, &gone, &err);
	if (!st && !vk_colconf_field(q->conf, VK_LIT("document_id")) && q->conf->fields_n < VK_FIELDS_MAX)
		st = make_index(q, &err);
	if (st) {
		vk_qd_fail(q, &err);
		return;
	}
	d->op[0] = (struct vk_op_in){.kind = VK_OP_DELETE, .by_filter = true, .filter = gone};
	d->op[1] = (struct vk_op_in){.kind = VK_OP_UPSERT, .point = d->point, .point_n = d->n};
	vk_qd_write(q, d->op, d->n ? 2 : 1, on_put);
}

static enum vk_status decode_put(struct vk_qd *q, struct vk_error *err)
{
	struct doc *d;
	enum vk_status st = begin(q, &d, err);
	return st ? st : read_body(q, d, err);
}

void vk_flow_document_put(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, true, decode_put, put_work);
}

static enum vk_status decode_id(struct vk_qd *q, struct vk_error *err)
{
	struct doc *d;
	return begin(q, &d, err);
}

static void on_delete(struct vk_qd *q, const struct vk_write *done)
{
	const struct doc *d = q->flow;
	struct vk_jw w;
	vk_qd_begin(q, &w);
	write_head(&w, done);
	vk_jw_ki(&w, "removed", (int64_t)d->op[0].touched);
	vk_jw_object_end(&w);
	vk_qd_reply(q, &w);
}

static void delete_work(struct vk_qd *q)
{
	struct doc *d = q->flow;
	struct vk_filter *all = NULL;
	struct vk_error err = {0};
	if (make_filter(q, d, true, &all, &err)) {
		vk_qd_fail(q, &err);
		return;
	}
	d->op[0] = (struct vk_op_in){.kind = VK_OP_DELETE, .by_filter = true, .filter = all};
	vk_qd_write(q, d->op, 1, on_delete);
}

void vk_flow_document_delete(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, false, decode_id, delete_work);
}

/* --- reading one --- */

struct chunk_order {
	uint32_t slot;
	int64_t place;
};

static int by_place(const void *a, const void *b)
{
	const struct chunk_order *x = a, *y = b;
	return x->place != y->place ? (x->place < y->place ? -1 : 1) : x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* A point's place in its document; the payload is small, so it is read for it. */
static int64_t place_of(struct vk_view *v, uint32_t slot, struct vk_arena *a)
{
	struct vk_point p;
	struct vk_json *doc;
	int64_t place = INT64_MAX;
	if (vk_view_point(v, slot, &p) || !p.payload.n || vk_json_parse(a, p.payload, NULL, &doc, NULL)) return place;
	vk_jv_i64(vk_jv_get(vk_json_root(doc), "chunk"), &place);
	vk_json_free(doc);
	return place;
}

static enum vk_status list_chunks(struct vk_view *v, const struct vk_filter *f, struct vk_arena *a, struct chunk_order **out,
				  size_t *n, struct vk_error *err)
{
	struct vk_bitmap *slots;
	struct vk_arena scratch;
	enum vk_status st = vk_filter_bitmap(v, f, &slots, err);
	if (st) return st;
	*n = vk_bitmap_count(slots);
	*out = vk_arena_calloc(a, *n + 1, sizeof **out);
	uint32_t *slot = vk_arena_calloc(a, *n + 1, sizeof *slot);
	if (*out && slot) {
		vk_bitmap_take(slots, 0, slot, *n);
		for (size_t i = 0; i < *n; i++) {
			vk_arena_init(&scratch, (size_t)64 << 20);
			(*out)[i] = (struct chunk_order){slot[i], place_of(v, slot[i], &scratch)};
			vk_arena_free(&scratch);
		}
		qsort(*out, *n, sizeof **out, by_place);
	} else {
		st = vk_fail(err, VK_E_NOMEM, "out of memory");
	}
	vk_bitmap_free(slots);
	return st;
}

static enum vk_status write_document(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, const struct chunk_order *chunk, size_t n)
{
	const struct doc *d = q->flow;
	const struct vk_qd_with with = {.payload = {.any = true}};
	enum vk_status st = VK_OK;
	vk_qd_begin(q, w);
	vk_jw_object(w);
	vk_jw_key(w, "document_id");
	vk_jw_str(w, d->id);
	vk_jw_key(w, "chunks");
	vk_jw_array(w);
	for (size_t i = 0; i < n && !st; i++) {
		vk_jw_object(w);
		st = vk_qd_write_record(q, w, v, chunk[i].slot, &with);
		vk_jw_object_end(w);
	}
	vk_jw_array_end(w);
	vk_jw_object_end(w);
	return st;
}

static enum vk_status answer_document(struct vk_qd *q, struct vk_view *v, struct vk_jw *w, struct vk_error *err)
{
	const struct doc *d = q->flow;
	struct vk_filter *all = NULL;
	struct chunk_order *chunk = NULL;
	size_t n = 0;
	enum vk_status st = make_filter(q, q->flow, true, &all, err);
	if (!st) st = list_chunks(v, all, &q->req->arena, &chunk, &n, err);
	if (!st && !n)
		st = vk_fail(err, VK_E_NOT_FOUND, "Not found: No document with id %.*s found", (int)d->id.n, d->id.p);
	return st ? st : write_document(q, v, w, chunk, n);
}

static void get_work(struct vk_qd *q)
{
	vk_qd_read(q, answer_document);
}

void vk_flow_document_get(void *app, struct vk_req *req)
{
	vk_qd_serve(app, req, true, false, decode_id, get_work);
}
