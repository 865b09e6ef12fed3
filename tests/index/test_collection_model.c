/*
 * Goal: a collection is what a plain map of id to (vectors, payload) would be, whatever is done to it in
 * whatever order. Method: seeded random operations run on a collection and on an in-memory model: upserts
 * of mixed old and new ids of all kinds in all modes, with dense and sparse vectors and texts in place of vectors, deletes, payload and vector operations by ids and
 * filter, lists of them, indexes and vectors that come and go, sealing, reopening, expiry; views held
 * across writes. Compared: outcome and counts of each write, points one by one, scrolls, filter bitmaps
 * (oracle: vk_filter_match on the model's payloads), approximate answers of vectors whose indexes come and go at a few dozen rows
 * (complete, rightly scored, of points that are there), a replica that only follows the change table and its
 * masks; and vk_collection_check() now and then. VECKEEP_SEED replays; VECKEEP_STEPS sets how many writes.
 */
#include <math.h>

#include "index/ann.h"
#include "tests/index/collection_util.h"

#define IDS 240
#define VECS 5
#define FIELDS 4
#define DIMS_MAX 70
#define PAYLOAD_TEXT 512

#define DENSE 3 /* of VECS; the others are sparse */
#define TEXT_MAX 24

static const char *const vec_name[VECS] = {"a", "b", "c", "s", "r"};
static const uint32_t vec_dims[DENSE] = {3, 70, 5}; /* b has codes, too */
static const bool vec_comes_and_goes[VECS] = {[2] = true, [4] = true};

struct mpoint {
	bool there, has[VECS];
	uint64_t version;
	int64_t at_ms; /* INT64_MAX: never */
	float vec[VECS][DIMS_MAX]; /* sparse: the values */
	uint32_t index[VECS][DIMS_MAX], n[VECS];
	char text[DENSE][TEXT_MAX]; /* "": none, or in the payload */
	char payload[PAYLOAD_TEXT]; /* "": none */
};

struct model {
	struct mpoint p[IDS];
	bool vec[VECS]; /* of the config */
};

struct held {
	struct vk_view v;
	struct model *m;
};

struct world {
	struct temp dir;
	char path[300], scratch[300];
	struct vk_kv_writers *writers;
	struct vk_collection *c;
	struct model m, before, replica;
	uint8_t key[IDS][64];
	struct vk_bytes id[IDS];
	int order[IDS]; /* in scroll order */
	uint64_t rng, followed, field_number;
	int64_t now_ms;
	uint32_t set_number;
	bool field[FIELDS];
	struct held held[2];
	uint64_t ops, refused, approximate;
};

static uint64_t below(struct world *w, uint64_t n) { return vk_rng(&w->rng) % n; }

/* --- the model's own reading of a payload --- */

static void model_settle(struct mpoint *p)
{
	struct mem m;
	int64_t s;
	p->at_ms = INT64_MAX;
	if (!strcmp(p->payload, "{}")) *p->payload = 0;
	if (!p->there || !*p->payload) return;
	mem_init(&m);
	if (vk_jv_i64(vk_jv_get(mem_json(&m, vk_bytes_of(p->payload)), "at"), &s)) p->at_ms = s * 1000;
	mem_free(&m);
}

static bool visible(const struct mpoint *p, int64_t now_ms) { return p->there && p->at_ms > now_ms; }

struct vector_of {
	const struct model *m;
	const struct mpoint *p;
};

static bool model_has(void *arg, struct vk_bytes name)
{
	struct vector_of *v = arg;
	for (int i = 0; i < VECS; i++)
		if (vk_bytes_is(name, vec_name[i])) return v->m->vec[i] && v->p->has[i];
	return false;
}

static bool model_match(struct world *w, const struct model *m, int i, const struct vk_filter *f)
{
	struct mem mem;
	const struct mpoint *p = &m->p[i];
	struct vector_of has = {m, p};
	if (!f) return true;
	mem_init(&mem);
	struct vk_filter_point fp = {.id = w->id[i],
				     .payload = *p->payload ? mem_json(&mem, vk_bytes_of(p->payload)) : NULL,
				     .has_vector = model_has,
				     .arg = &has};
	bool yes = vk_filter_match(f, &fp);
	mem_free(&mem);
	return yes;
}

/* --- random material --- */

static char *random_payload(struct world *w, struct mem *m)
{
	struct vk_buf b;
	vk_buf_init(&b, PAYLOAD_TEXT);
	vk_buf_puts(&b, "{");
	const char *comma = "";
#define MEMBER(...) (vk_buf_puts(&b, comma), vk_buf_printf(&b, __VA_ARGS__), comma = ",")
	if (below(w, 4)) MEMBER("\"k\": \"x%d\"", (int)below(w, 6));
	if (below(w, 2)) MEMBER("\"text\":\"say %d\"", (int)below(w, 4));
	if (below(w, 4)) MEMBER("\"n\":%d", (int)below(w, 20) - 5);
	if (!below(w, 3)) MEMBER("\"t\":[\"x%d\",\"x%d\"]", (int)below(w, 4), (int)below(w, 4));
	if (!below(w, 4)) MEMBER("\"o\":{\"z\":%d,\"y\":null}", (int)below(w, 9));
	if (!below(w, 6)) MEMBER("\"n2\":[1, 2,%d]", (int)below(w, 9));
	if (!below(w, 8)) MEMBER("\"at\":%lld", (long long)(w->now_ms / 1000 + (int64_t)below(w, 60)));
#undef MEMBER
	vk_buf_puts(&b, "}");
	char *text = vk_arena_strndup(&m->a, b.p, b.n);
	vk_buf_free(&b);
	return text;
}

static const char *random_filter(struct world *w, struct mem *m)
{
	char c[3][160];
	for (int i = 0; i < 3; i++) switch (below(w, 8)) {
		case 0: sprintf(c[i], "{\"key\":\"k\",\"match\":{\"value\":\"x%d\"}}", (int)below(w, 6)); break;
		case 1: sprintf(c[i], "{\"key\":\"n\",\"range\":{\"gte\":%d,\"lt\":%d}}", (int)below(w, 10) - 5, (int)below(w, 15)); break;
		case 2: sprintf(c[i], "{\"key\":\"t[]\",\"match\":{\"any\":[\"x1\",\"x%d\"]}}", (int)below(w, 4)); break;
		case 3: sprintf(c[i], "{\"is_empty\":{\"key\":\"%s\"}}", below(w, 2) ? "k" : "o.z"); break;
		case 4: sprintf(c[i], "{\"has_id\":[%d,%d,%d]}", (int)below(w, IDS / 3) * 21, (int)below(w, IDS / 3) * 21, 3); break;
		case 5: sprintf(c[i], "{\"has_vector\":\"%s\"}", vec_name[below(w, VECS)]); break;
		case 6: sprintf(c[i], "{\"key\":\"n\",\"match\":{\"value\":%d}}", (int)below(w, 10)); break;
		default: sprintf(c[i], "{\"key\":\"o.z\",\"range\":{\"gt\":%d}}", (int)below(w, 9)); break;
		}
	static const char *const forms[] = {"{\"must\":[%s,%s]}", "{\"should\":[%s,%s]}", "{\"must\":[%s],\"must_not\":[%s]}",
					    "{\"must_not\":[%s,%s,%s]}"};
	return vk_arena_printf(&m->a, forms[below(w, 4)], c[0], c[1], c[2]);
}

static void random_row(struct world *w, float *row, uint32_t dims)
{
	for (uint32_t i = 0; i < dims; i++) row[i] = (float)((int)below(w, 2001) - 1000) / 256;
	if (!below(w, 50)) memset(row, 0, dims * sizeof *row);
}

/* --- writes, on both sides --- */

static int find_id(struct world *w, struct vk_bytes id)
{
	for (int i = 0; i < IDS; i++)
		if (vk_bytes_eq(w->id[i], id)) return i;
	return -1;
}

static int vec_of(const struct vk_vector_conf *v)
{
	for (int i = 0; i < VECS; i++)
		if (!strcmp(v->name, vec_name[i])) return i;
	return -1;
}

/* The payload's text, "" for none. */
static void model_source(const struct mpoint *p, char out[TEXT_MAX])
{
	struct mem m;
	struct vk_bytes s = {0};
	*out = 0;
	if (!*p->payload) return;
	mem_init(&m);
	vk_jv_str(vk_jv_get(mem_json(&m, vk_bytes_of(p->payload)), "text"), &s);
	snprintf(out, TEXT_MAX, "%.*s", (int)s.n, s.n ? s.p : "");
	mem_free(&m);
}

/* After the payload: it decides whether a text is kept. */
static void model_put(struct mpoint *p, const struct vk_vec *v)
{
	int k = vec_of(v->conf);
	char source[TEXT_MAX];
	p->has[k] = true;
	memcpy(p->vec[k], v->row, (k < DENSE ? vec_dims[k] : v->n) * sizeof(float));
	if (k >= DENSE) {
		p->n[k] = v->n;
		memcpy(p->index[k], v->index, v->n * sizeof *v->index);
		return;
	}
	model_source(p, source);
	snprintf(p->text[k], TEXT_MAX, "%.*s", (int)v->text.n, v->text.n ? v->text.p : "");
	if (!strcmp(p->text[k], source)) *p->text[k] = 0;
}

static enum vk_status model_upsert(struct world *w, const struct vk_op_in *op)
{
	for (size_t i = 0; i < op->point_n; i++) {
		const struct vk_point_in *in = &op->point[i];
		bool later = false;
		for (size_t k = i + 1; k < op->point_n; k++) later |= vk_bytes_eq(in->id, op->point[k].id);
		int at = find_id(w, in->id);
		struct mpoint *p = &w->m.p[at];
		bool there = visible(p, w->now_ms);
		if (later || op->mode == (there ? VK_UPDATE_INSERT_ONLY : VK_UPDATE_UPDATE_ONLY)) continue;
		if (there && !model_match(w, &w->m, at, op->filter)) continue;
		memset(p->has, 0, sizeof p->has);
		memset(p->text, 0, sizeof p->text);
		p->there = true;
		snprintf(p->payload, sizeof p->payload, "%.*s", (int)in->payload.n, in->payload.n ? in->payload.p : "");
		p->version = 0;
		model_settle(p);
		for (size_t k = 0; k < in->vec_n; k++) model_put(p, &in->vec[k]);
	}
	return VK_OK;
}

static enum vk_status model_vectors(struct world *w, const struct vk_op_in *op)
{
	for (size_t i = 0; i < op->point_n; i++) {
		int at = find_id(w, op->point[i].id);
		struct mpoint *p = &w->m.p[at];
		if (!visible(p, w->now_ms)) return VK_E_NOT_FOUND;
		if (!model_match(w, &w->m, at, op->filter)) continue;
		for (size_t k = 0; k < op->point[i].vec_n; k++) model_put(p, &op->point[i].vec[k]);
		if (op->point[i].vec_n) p->version = 0;
	}
	return VK_OK;
}

static void model_payload(struct mpoint *p, const struct vk_op_in *op)
{
	struct vk_arena scratch;
	struct vk_buf b;
	struct vk_jw jw;
	vk_arena_init(&scratch, 1 << 20);
	vk_buf_init(&b, 1 << 20);
	if (op->kind == VK_OP_PAYLOAD_SET)
		assert_int_equal(vk_payload_merge(&b, &scratch, vk_bytes_of(p->payload), op->payload, op->at), VK_OK);
	if (op->kind == VK_OP_PAYLOAD_DELETE)
		assert_int_equal(vk_payload_delete(&b, &scratch, vk_bytes_of(p->payload), op->keys, op->keys_n), VK_OK);
	if (op->kind == VK_OP_PAYLOAD_OVERWRITE) {
		vk_jw_init(&jw, &b);
		vk_jw_value(&jw, op->payload);
	}
	assert_true(b.n < PAYLOAD_TEXT);
	strcpy(p->payload, vk_buf_cstr(&b));
	vk_buf_free(&b);
	vk_arena_free(&scratch);
	model_settle(p);
	p->version = 0;
}

static void model_one(struct model *m, struct mpoint *p, const struct vk_op_in *op)
{
	if (op->kind == VK_OP_DELETE) {
		p->there = false;
		return;
	}
	if (op->kind != VK_OP_VECTORS_DELETE) {
		model_payload(p, op);
		return;
	}
	for (size_t i = 0; i < op->drop_n; i++) {
		int k = vec_of(op->drop[i]);
		if (m->vec[k] && p->has[k]) p->version = 0;
		p->has[k] = false;
		if (k < DENSE) *p->text[k] = 0;
	}
}

static enum vk_status model_selected(struct world *w, const struct vk_op_in *op)
{
	bool must = op->kind != VK_OP_DELETE && op->kind != VK_OP_VECTORS_DELETE, yes[IDS];
	for (size_t i = 0; i < op->ids_n; i++) {
		struct mpoint *p = &w->m.p[find_id(w, op->ids[i])];
		if (must && !visible(p, w->now_ms)) return VK_E_NOT_FOUND;
		if (p->there) model_one(&w->m, p, op);
	}
	if (op->ids) return VK_OK;
	for (int i = 0; i < IDS; i++) yes[i] = visible(&w->m.p[i], w->now_ms) && model_match(w, &w->m, i, op->filter);
	for (int i = 0; i < IDS; i++)
		if (yes[i]) model_one(&w->m, &w->m.p[i], op);
	return VK_OK;
}

static enum vk_status model_op(struct world *w, const struct vk_op_in *op)
{
	if (op->kind == VK_OP_UPSERT) return model_upsert(w, op);
	return op->kind == VK_OP_VECTORS_UPDATE ? model_vectors(w, op) : model_selected(w, op);
}

static void random_sparse(struct world *w, struct mem *m, struct vk_vec *v)
{
	uint32_t at = (uint32_t)below(w, 1000), *index = vk_arena_alloc(&m->a, DIMS_MAX * sizeof *index);
	float *row = vk_arena_alloc(&m->a, DIMS_MAX * sizeof *row);
	v->n = (uint32_t)below(w, below(w, 20) ? 8 : DIMS_MAX + 1);
	random_row(w, row, v->n);
	for (uint32_t i = 0; i < v->n; i++) index[i] = at, at += 1 + (uint32_t)below(w, 1u << 20);
	v->index = index;
	v->row = row;
}

static void random_vector(struct world *w, struct mem *m, struct vk_vec *v)
{
	if (v->conf->sparse) {
		random_sparse(w, m, v);
		return;
	}
	float *row = vk_arena_alloc(&m->a, DIMS_MAX * sizeof *row);
	random_row(w, row, v->conf->set.dims);
	v->row = row;
	if (!below(w, 3)) v->text = vk_bytes_of(vk_arena_printf(&m->a, "say %d", (int)below(w, 4)));
}

static void random_points(struct world *w, struct mem *m, struct vk_op_in *op, const struct vk_colconf *conf)
{
	op->point_n = 1 + below(w, below(w, 10) ? 6 : 40);
	op->point = vk_arena_calloc(&m->a, op->point_n, sizeof *op->point);
	for (size_t i = 0; i < op->point_n; i++) {
		struct vk_point_in *p = &op->point[i];
		p->id = w->id[below(w, IDS)];
		p->vec = vk_arena_calloc(&m->a, VECS, sizeof *p->vec);
		for (size_t k = 0; k < conf->vectors_n + conf->sparse_n; k++) {
			if (!below(w, 4)) continue;
			p->vec[p->vec_n].conf = &conf->vectors[k];
			random_vector(w, m, &p->vec[p->vec_n++]);
		}
		if (op->kind != VK_OP_UPSERT || !below(w, 5)) continue;
		p->payload = vk_bytes_of(random_payload(w, m));
		p->payload_jv = mem_json(m, p->payload);
	}
}

static void random_selection(struct world *w, struct mem *m, struct vk_op_in *op)
{
	op->by_filter = below(w, 3) == 0;
	if (op->by_filter) {
		op->filter = mem_filter(m, random_filter(w, m));
		return;
	}
	op->ids_n = 1 + below(w, 4);
	op->ids = vk_arena_calloc(&m->a, op->ids_n, sizeof *op->ids);
	for (size_t i = 0; i < op->ids_n; i++) {
		op->ids[i] = w->id[below(w, IDS)];
		for (int k = 0; k < 8 && !w->m.p[find_id(w, op->ids[i])].there; k++) op->ids[i] = w->id[below(w, IDS)];
	}
}

static void random_op(struct world *w, struct mem *m, struct vk_op_in *op, const struct vk_colconf *conf)
{
	static const enum vk_op_kind kinds[] = {VK_OP_UPSERT, VK_OP_UPSERT, VK_OP_UPSERT, VK_OP_UPSERT, VK_OP_DELETE, VK_OP_PAYLOAD_SET,
						VK_OP_PAYLOAD_SET, VK_OP_PAYLOAD_OVERWRITE, VK_OP_PAYLOAD_DELETE, VK_OP_PAYLOAD_CLEAR,
						VK_OP_VECTORS_UPDATE, VK_OP_VECTORS_DELETE};
	static const char *const ats[] = {"o", "o.deep", "t[0]", "n2"}, *const gone[] = {"k", "o.z", "t[]", "n2[1]", "at", "text"};
	*op = (struct vk_op_in){.kind = kinds[below(w, 12)]};
	switch (op->kind) {
	case VK_OP_UPSERT:
	case VK_OP_VECTORS_UPDATE:
		random_points(w, m, op, conf);
		op->mode = below(w, 3) ? VK_UPDATE_UPSERT : (enum vk_update_mode)below(w, 3);
		if (!below(w, 4)) op->filter = mem_filter(m, random_filter(w, m));
		break;
	case VK_OP_PAYLOAD_SET:
	case VK_OP_PAYLOAD_OVERWRITE:
		op->payload = mem_json(m, vk_bytes_of(random_payload(w, m)));
		if (op->kind == VK_OP_PAYLOAD_SET && !below(w, 3)) op->at = mem_path(m, ats[below(w, 4)]);
		if (op->at) op->payload = mem_json(m, VK_LIT("{\"z\":4,\"y\":[]}"));
		break;
	case VK_OP_PAYLOAD_DELETE:
		op->keys = mem_path(m, gone[below(w, 6)]);
		op->keys_n = 1;
		break;
	case VK_OP_VECTORS_DELETE:
		op->drop = vk_arena_calloc(&m->a, 1, sizeof *op->drop);
		op->drop[op->drop_n++] = &conf->vectors[below(w, conf->vectors_n + conf->sparse_n)];
		break;
	default: break;
	}
	if (op->kind != VK_OP_UPSERT && op->kind != VK_OP_VECTORS_UPDATE) random_selection(w, m, op);
}

/* Versions: what the list touched has one of the list's numbers, each its own; the rest has kept its. */
static void learn_versions(struct world *w, uint64_t from, uint64_t to)
{
	struct vk_view v;
	struct vk_point p;
	uint32_t slot;
	assert_int_equal(vk_view_begin(w->c, w->now_ms, &v), VK_OK);
	for (int i = 0; i < IDS; i++) {
		struct mpoint *mp = &w->m.p[i];
		if (!visible(mp, w->now_ms) || mp->version) continue;
		assert_int_equal(vk_view_slot(&v, w->id[i], &slot), VK_OK);
		assert_int_equal(vk_view_point(&v, slot, &p), VK_OK);
		assert_true(p.version > from && p.version <= to);
		mp->version = p.version;
	}
	vk_view_end(&v);
}

static void step_write(struct world *w)
{
	struct mem m;
	struct vk_op_in op[6];
	struct vk_collection_stats s;
	size_t n = 1 + below(w, 6);
	struct vk_write in = {.op = op, .op_n = n, .now_ms = w->now_ms};
	enum vk_status want = VK_OK;
	mem_init(&m);
	in.conf = vk_collection_config(w->c);
	w->before = w->m;
	assert_int_equal(vk_collection_stats(w->c, &s), VK_OK);
	for (size_t i = 0; i < n; i++) {
		random_op(w, &m, &op[i], in.conf);
		if (!want) want = model_op(w, &op[i]);
	}
	enum vk_status st = vk_collection_write_wait(w->c, &in);
	if (st != want) fail_msg("write: %s (%s), the model says %s", vk_status_text(st), in.err.text, vk_status_text(want));
	if (st) {
		assert_true(strncmp(in.err.text, "Not found: No point with id ", 28) == 0);
		w->m = w->before; /* all or none */
		w->refused++;
	} else {
		learn_versions(w, s.sequence, in.sequence);
	}
	w->ops += n;
	vk_colconf_unref(in.conf);
	mem_free(&m);
}

/* --- configs --- */

static const struct {
	const char *path, *type;
} fields[FIELDS] = {{"k", "keyword"}, {"n", "integer"}, {"t", "keyword"}, {"at", "integer"}}; /* at: the time to live's, too */

static void print_config(struct world *w, struct vk_buf *b, const struct vk_colconf *now)
{
	const char *comma = "";
	vk_buf_puts(b, "{\"vectors\":{");
	for (int i = 0; i < DENSE; i++) {
		const struct vk_vector_conf *v = now ? vk_colconf_vector(now, vk_bytes_of(vec_name[i])) : NULL;
		if (!w->m.vec[i]) continue;
		vk_buf_printf(b, "%s\"%s\":{\"size\":%u,\"distance\":\"%s\",\"veckeep\":{\"set\":%u}}", comma, vec_name[i], vec_dims[i],
			      i ? "Dot" : "Cosine", v ? v->set.id : w->set_number++);
		comma = ",";
	}
	vk_buf_puts(b, "},\"sparse_vectors\":{");
	comma = "";
	for (int i = DENSE; i < VECS; i++) {
		const struct vk_vector_conf *v = now ? vk_colconf_named(now, vk_bytes_of(vec_name[i])) : NULL;
		if (!w->m.vec[i]) continue;
		vk_buf_printf(b, "%s\"%s\":{\"veckeep\":{\"set\":%u}}", comma, vec_name[i], v ? v->set.id : w->set_number++);
		comma = ",";
	}
	vk_buf_puts(b, "},\"indexes\":{");
	comma = "";
	for (int i = 0; i < FIELDS; i++) {
		const struct vk_field_conf *f = now ? vk_colconf_field(now, vk_bytes_of(fields[i].path)) : NULL;
		if (!w->field[i]) continue;
		vk_buf_printf(b, "%s\"%s\":{\"field\":%u,\"type\":\"%s\",\"state\":\"%s\"}", comma, fields[i].path,
			      f ? f->field : (unsigned)w->field_number++, fields[i].type, f && f->ready ? "ready" : "building");
		comma = ",";
	}
	vk_buf_printf(b, "},\"veckeep\":{\"text_from\":\"text\",\"ttl\":{\"field\":\"at\",\"after_ms\":0},\"next_set\":%u,\"next_field\":%u},"
			 "\"hnsw_config\":{\"m\":%d,\"full_scan_threshold\":0},\"optimizer_config\":{\"indexing_threshold\":1}}", w->set_number,
		      (unsigned)w->field_number, w->m.vec[2] ? 8 : 16);
}

static enum vk_status edit_config(void *arg, const struct vk_colconf *now, struct vk_buf *json, struct vk_error *err)
{
	(void)err;
	print_config(arg, json, now);
	return VK_OK;
}

static void step_config(struct world *w)
{
	struct vk_error err = {0};
	int i = (int)below(w, FIELDS + VECS), v = i - FIELDS;
	if (i < FIELDS) w->field[i] = !w->field[i];
	if (v >= 0 && !vec_comes_and_goes[v]) return;
	if (v >= 0) w->m.vec[v] = !w->m.vec[v];
	for (int k = 0; v >= 0 && k < IDS; k++) {
		w->m.p[k].has[v] = w->replica.p[k].has[v] = false;
		if (v < DENSE) *w->m.p[k].text[v] = *w->replica.p[k].text[v] = 0;
	}
	if (vk_collection_configure(w->c, edit_config, w, below(w, 2), &err)) fail_msg("configure: %s", err.text);
}

/* --- comparing --- */

static void same_sparse(struct vk_view *v, uint32_t slot, const struct vk_vector_conf *vc, const struct mpoint *want, int k)
{
	struct vk_arena a;
	struct vk_sparse s;
	vk_arena_init(&a, 1 << 16);
	assert_int_equal(vk_view_sparse(v, slot, vc, &a, &s), VK_OK);
	assert_int_equal(s.n, want->n[k]);
	if (s.n) assert_memory_equal(s.index, want->index[k], s.n * sizeof *s.index);
	if (s.n) assert_memory_equal(s.value, want->vec[k], s.n * sizeof *s.value);
	vk_arena_free(&a);
}

static void same_text(struct vk_view *v, uint32_t slot, const struct vk_vector_conf *vc, const struct mpoint *want, int k)
{
	struct vk_arena a;
	struct vk_bytes text;
	char source[TEXT_MAX];
	model_source(want, source);
	const char *expect = *want->text[k] ? want->text[k] : source;
	vk_arena_init(&a, 1 << 20);
	assert_int_equal(vk_view_text(v, slot, vc, &a, &text), *expect ? VK_OK : VK_E_NOT_FOUND);
	if (*expect && !vk_bytes_is(text, expect)) fail_msg("text %.*s, not %s", (int)text.n, text.p, expect);
	vk_arena_free(&a);
}

static void same_point(struct world *w, const struct model *m, struct vk_view *v, uint32_t slot, int i)
{
	const struct mpoint *want = &m->p[i];
	struct vk_point p;
	float row[DIMS_MAX];
	assert_int_equal(vk_view_point(v, slot, &p), VK_OK);
	assert_true(vk_bytes_eq(p.id, w->id[i]));
	assert_int_equal(p.version, want->version);
	if (!vk_bytes_is(p.payload, want->payload)) fail_msg("payload %.*s, not %s", (int)p.payload.n, p.payload.p, want->payload);
	for (int k = 0; k < VECS; k++) {
		const struct vk_vector_conf *vc = vk_colconf_named(v->conf, vk_bytes_of(vec_name[k]));
		struct vk_row r;
		assert_int_equal(vc != NULL, m->vec[k]);
		if (!vc) continue;
		assert_int_equal(vk_view_has(v, slot, vc), want->has[k]);
		if (k < DENSE) same_text(v, slot, vc, want, k);
		if (k >= DENSE && want->has[k]) same_sparse(v, slot, vc, want, k);
		if (k >= DENSE || !want->has[k]) continue;
		assert_int_equal(vk_vset_row(v->t, &vc->set, slot, &r), VK_OK);
		vk_row_f32(&vc->set, &r, false, row);
		assert_memory_equal(row, want->vec[k], vec_dims[k] * sizeof(float));
	}
}

struct scroll {
	struct world *w;
	const struct model *m;
	struct vk_view *v;
	int at; /* place in the order to come */
};

static int skip_unseen(const struct scroll *s, int at)
{
	while (at < IDS && !visible(&s->m->p[s->w->order[at]], s->v->now_ms)) at++;
	return at;
}

static bool see(void *arg, uint32_t slot, struct vk_bytes id)
{
	struct scroll *s = arg;
	s->at = skip_unseen(s, s->at);
	if (s->at == IDS) fail_msg("more points than the model has");
	assert_true(vk_bytes_eq(id, s->w->id[s->w->order[s->at]]));
	same_point(s->w, s->m, s->v, slot, s->w->order[s->at++]);
	return true;
}

static void same_all(struct world *w, const struct model *m, struct vk_view *v)
{
	struct scroll s = {w, m, v, (int)below(w, IDS)};
	if (below(w, 2)) s.at = 0;
	assert_int_equal(vk_view_scroll(v, s.at ? w->id[w->order[s.at]] : (struct vk_bytes){0}, see, &s), VK_OK);
	assert_int_equal(skip_unseen(&s, s.at), IDS);
}

static void same_filter(struct world *w, const struct model *m, struct vk_view *v)
{
	struct mem mem;
	struct vk_bitmap *b;
	struct vk_error err;
	uint32_t slot;
	uint64_t n = 0;
	mem_init(&mem);
	const char *text = random_filter(w, &mem);
	const struct vk_filter *f = mem_filter(&mem, text);
	if (vk_filter_bitmap(v, f, &b, &err)) fail_msg("filter %s: %s", text, err.text);
	for (int i = 0; i < IDS; i++) {
		if (!visible(&m->p[i], v->now_ms)) continue;
		bool want = model_match(w, m, i, f);
		assert_int_equal(vk_view_slot(v, w->id[i], &slot), VK_OK);
		if (vk_bitmap_has(b, slot) != want) fail_msg("filter %s: %s is %d", text, m->p[i].payload, !want);
		n += want;
	}
	assert_int_equal(vk_bitmap_count(b), n);
	vk_bitmap_free(b);
	mem_free(&mem);
}

static void same_few(struct world *w)
{
	struct vk_view v;
	uint32_t slot;
	assert_int_equal(vk_view_begin(w->c, w->now_ms, &v), VK_OK);
	for (int k = 0; k < 4; k++) {
		int i = (int)below(w, IDS);
		bool want = visible(&w->m.p[i], w->now_ms);
		assert_int_equal(vk_view_slot(&v, w->id[i], &slot), want ? VK_OK : VK_E_NOT_FOUND);
		if (want) same_point(w, &w->m, &v, slot, i);
	}
	vk_view_end(&v);
}

/* Rows of a vector that a search must find: of visible points, in the filter. */
static struct vk_bitmap *among(struct world *w, struct vk_view *v, int k, uint64_t one_in)
{
	struct vk_bitmap *in = vk_bitmap_new();
	for (int i = 0; i < IDS; i++) {
		uint32_t slot;
		if (!visible(&w->m.p[i], w->now_ms) || !w->m.p[i].has[k] || below(w, one_in)) continue;
		assert_int_equal(vk_view_slot(v, w->id[i], &slot), VK_OK);
		vk_bitmap_add(in, slot);
	}
	return in;
}

/* Whoever answers: min(limit, matches) points of those that match, each with its own exact score, best first. */
static void same_answer(struct vk_view *v, const struct vk_set *set, const struct vk_exact_query *exact, const struct vk_exact_query *near)
{
	assert_int_equal(near->hits, exact->hits);
	for (size_t i = 0; i < near->hits; i++) {
		float rank;
		assert_true(vk_bitmap_has(near->in, near->hit[i].slot));
		assert_int_equal(vk_exact_rank(v, set, near->vector, near->hit[i].slot, &rank), VK_OK);
		assert_true(rank == near->hit[i].rank);
		assert_true(!i || rank <= near->hit[i - 1].rank);
		for (size_t j = 0; j < i; j++) assert_int_not_equal(near->hit[j].slot, near->hit[i].slot);
	}
}

static void same_search(struct world *w)
{
	struct vk_view v;
	struct mem m;
	struct vk_error err;
	struct vk_ann_found found;
	struct vk_exact_opts o = {.level = vk_cpu_best()};
	int k = (int)below(w, DENSE);
	float row[DIMS_MAX];
	assert_int_equal(vk_view_begin(w->c, w->now_ms, &v), VK_OK);
	const struct vk_vector_conf *conf = vk_colconf_vector(v.conf, vk_bytes_of(vec_name[k]));
	mem_init(&m);
	random_row(w, row, vec_dims[k]);
	struct vk_bitmap *in = conf ? among(w, &v, k, 1 + below(w, 3)) : NULL;
	struct vk_exact_query exact = {.vector = row, .limit = 1 + below(w, below(w, 4) ? 12 : 2 * IDS), .floor = -INFINITY, .in = in};
	struct vk_ann_query near = {.q = exact, .ef = (uint32_t)below(w, 3) * 60};
	if (conf) {
		assert_int_equal(vk_exact_search(&v, &conf->set, &exact, 1, &o, &m.a, NULL, &err), VK_OK);
		assert_int_equal(vk_ann_search(&v, &conf->set, &near, 1, &o, &m.a, &found, &err), VK_OK);
		w->approximate += found.approximate;
		same_answer(&v, &conf->set, &exact, &near.q);
		assert_int_equal(exact.hits, exact.limit < vk_bitmap_count(in) ? exact.limit : vk_bitmap_count(in));
	}
	vk_bitmap_free(in);
	mem_free(&m);
	vk_view_end(&v);
}

static void same_now(struct world *w)
{
	struct vk_view v;
	const struct vk_bitmap *live;
	uint64_t want = 0;
	assert_int_equal(vk_view_begin(w->c, w->now_ms, &v), VK_OK);
	for (int i = 0; i < IDS; i++) want += visible(&w->m.p[i], w->now_ms);
	if (below(w, 2)) {
		assert_int_equal(vk_view_live(&v, &live), VK_OK);
		assert_int_equal(vk_bitmap_count(live), want);
	}
	same_all(w, &w->m, &v);
	same_filter(w, &w->m, &v);
	vk_view_end(&v);
}

/* --- the replica --- */

static bool follow(void *arg, const struct vk_change *ch)
{
	struct world *w = arg;
	int i = find_id(w, ch->id);
	struct mpoint *r = &w->replica.p[i];
	const struct mpoint *now = &w->m.p[i];
	struct vk_colconf *conf = vk_collection_config(w->c);
	assert_true(i >= 0 && ch->sequence > w->followed);
	w->followed = ch->sequence;
	if (ch->op == 2) *r = (struct mpoint){0};
	for (size_t k = 0; ch->op == 1 && k < conf->vectors_n + conf->sparse_n; k++) {
		int vec = vec_of(&conf->vectors[k]);
		if (!(ch->mask >> (1 + k) & 1)) continue;
		r->has[vec] = now->has[vec];
		r->n[vec] = now->n[vec];
		memcpy(r->index[vec], now->index[vec], sizeof now->index[vec]);
		if (vec < DENSE) memcpy(r->text[vec], now->text[vec], TEXT_MAX);
		memcpy(r->vec[vec], now->vec[vec], sizeof now->vec[vec]);
	}
	if (ch->op == 1) r->there = true;
	if (ch->op == 1 && (ch->mask & 1)) memcpy(r->payload, now->payload, sizeof now->payload);
	vk_colconf_unref(conf);
	return true;
}

static void step_follow(struct world *w)
{
	struct vk_view v;
	struct vk_collection_stats s;
	uint64_t swept;
	assert_int_equal(vk_collection_sweep(w->c, w->now_ms, &swept), VK_OK);
	for (int i = 0; i < IDS; i++) w->m.p[i].there &= visible(&w->m.p[i], w->now_ms);
	assert_int_equal(vk_view_begin(w->c, w->now_ms, &v), VK_OK);
	assert_int_equal(vk_view_changes(&v, w->followed, follow, w), VK_OK);
	vk_view_end(&v);
	for (int i = 0; i < IDS; i++) {
		const struct mpoint *a = &w->m.p[i], *r = &w->replica.p[i];
		assert_int_equal(a->there, r->there);
		if (!a->there) continue;
		assert_string_equal(a->payload, r->payload);
		for (int k = 0; k < VECS; k++) {
			if (!w->m.vec[k]) continue;
			assert_int_equal(a->has[k], r->has[k]);
			if (k < DENSE) assert_string_equal(a->text[k], r->text[k]);
			if (k >= DENSE) assert_true(!a->has[k] || a->n[k] == r->n[k]);
			if (a->has[k]) assert_memory_equal(a->vec[k], r->vec[k], (k < DENSE ? vec_dims[k] : a->n[k]) * sizeof(float));
			if (k >= DENSE && a->has[k]) assert_memory_equal(a->index[k], r->index[k], a->n[k] * sizeof(uint32_t));
		}
	}
	/* A dropped point that came back later starts from nothing, too. */
	for (int i = 0; i < IDS; i++)
		if (!w->m.p[i].there) w->replica.p[i] = (struct mpoint){0};
	assert_int_equal(vk_collection_stats(w->c, &s), VK_OK);
	w->followed = s.sequence;
	assert_int_equal(vk_collection_cursor(w->c, "follower", w->followed, INT64_MAX), VK_OK);
}

/* --- other steps --- */

static void step_view(struct world *w)
{
	struct held *h = &w->held[below(w, 2)];
	if (h->m) {
		same_all(w, h->m, &h->v);
		same_filter(w, h->m, &h->v);
		vk_view_end(&h->v);
		free(h->m);
		h->m = NULL;
		return;
	}
	h->m = malloc(sizeof *h->m);
	*h->m = w->m;
	assert_int_equal(vk_view_begin(w->c, w->now_ms, &h->v), VK_OK);
}

static void end_views(struct world *w)
{
	for (int i = 0; i < 2; i++)
		if (w->held[i].m) vk_view_end(&w->held[i].v), free(w->held[i].m), w->held[i].m = NULL;
}

static void step_reopen(struct world *w)
{
	end_views(w);
	vk_collection_unref(w->c);
	w->c = collection_open(w->path, NULL, w->writers);
}

static void step(struct world *w, int i)
{
	w->now_ms += (int64_t)below(w, 300);
	step_write(w);
	same_few(w);
	if (i % 3 == 0) same_search(w);
	if (i % 8 == 0) same_now(w);
	if (i % 11 == 0) step_view(w);
	if (i % 37 == 0) step_follow(w);
	if (i % 53 == 0) step_config(w);
	if (i % 97 == 0) assert_int_equal(vk_collection_seal(w->c), VK_OK);
	if (i % 401 == 0) step_reopen(w);
	if (i % 499 == 0) collection_check(w->c, w->scratch);
}

static int compare_ids(const void *x, const void *y, void *arg)
{
	struct world *w = arg;
	return vk_id_compare(w->id[*(const int *)x], w->id[*(const int *)y]);
}

static void world_open(struct world *w)
{
	struct vk_buf b;
	temp_make(&w->dir);
	snprintf(w->path, sizeof w->path, "%s/c", w->dir.path);
	snprintf(w->scratch, sizeof w->scratch, "%s/s", w->dir.path);
	w->rng = model_seed("collection_model");
	w->now_ms = 1700000000000;
	w->set_number = 1;
	w->field_number = 1;
	w->m.vec[0] = w->m.vec[1] = w->m.vec[3] = true;
	for (int i = 0; i < IDS; i++) {
		w->id[i] = id_number(w->key[i], (uint32_t)i);
		w->order[i] = i;
		w->m.p[i].at_ms = INT64_MAX;
	}
	qsort_r(w->order, IDS, sizeof w->order[0], compare_ids, w);
	assert_int_equal(vk_kv_writers_new(2, &w->writers), VK_OK);
	vk_buf_init(&b, 1 << 16);
	print_config(w, &b, NULL);
	w->c = collection_open(w->path, vk_buf_cstr(&b), w->writers);
	vk_buf_free(&b);
	assert_int_equal(vk_collection_cursor(w->c, "follower", 0, INT64_MAX), VK_OK);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 3000 /* the index's worker may never come level here with a writer that waits for nothing */
#else
#define STEPS 29000 /* 100,000 operations */
#define APPROXIMATE_LEAST 100
#endif

static void test_collection_random_operations_agree_with_the_model(void **state)
{
	(void)state;
	struct world *w = calloc(1, sizeof *w);
	const char *steps = getenv("VECKEEP_STEPS");
	uint64_t start = vk_mono_ms();
	world_open(w);
	for (int i = 1, n = steps ? atoi(steps) : STEPS; i <= n; i++) step(w, i);
	same_now(w);
	step_follow(w);
	collection_check(w->c, w->scratch);
#ifdef APPROXIMATE_LEAST
	assert_true(w->approximate >= APPROXIMATE_LEAST);
#endif
	print_message("%llu operations, %llu lists refused, %llu approximate answers, %.1f s\n", (unsigned long long)w->ops,
		      (unsigned long long)w->refused, (unsigned long long)w->approximate, (double)(vk_mono_ms() - start) / 1000);
	end_views(w);
	vk_collection_unref(w->c);
	vk_kv_writers_free(w->writers);
	temp_free(&w->dir);
	free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_collection_random_operations_agree_with_the_model),
	};
	vk_log_set_level(VK_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
