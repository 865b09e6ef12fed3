/*
 * Goal: payload indexes hold what payloads say, after any order of writes, across commits and a restart;
 * facets count and ordered walks go through exactly that. Method: random payloads (gen.h) put, changed and
 * deleted in batches on a bare environment, several changes of one slot in one batch, slots in three chunks;
 * a model of payload texts by slot; each kind of key rebuilt from the model and held against the table, entry
 * by entry; facets and walks from the model by brute force. VK_TEST_SEED replays.
 */
#include "tests/store/util.h"

#include "index/field_read.h"
#include "index/id.h"
#include "index/tables.h"
#include "tests/index/gen.h"

#define SLOTS 900 /* spread over chunks */

static uint32_t slot_at(size_t i) { return (uint32_t)(i % 3 * 65536 + i * 61 % 65536); }

struct fix {
	struct temp dir;
	struct vk_kv_writers *writers;
	struct vk_kv *kv;
	struct vk_colconf conf;
	struct vk_field_conf field[GEN_FIELDS];
	char *payload[SLOTS]; /* the model; NULL: not live */
	bool set[SLOTS];
	uint64_t rng;
	int changes;
};

static void open_kv(struct fix *f)
{
	static const char *const tables[] = VK_TABLE_NAMES;
	struct vk_kv_opts o = {
	    .map_bytes = 1 << 28, .tables = tables, .tables_n = VK_T_COUNT, .writers = f->writers};
	struct vk_error err = {0};
	if (vk_kv_open(f->dir.path, &o, &f->kv, &err)) fail_msg("%s", err.text);
}

static enum vk_field_type type_named(const char *name)
{
	int t = 0;
	while (strcmp(vk_field_type_names[t], name)) t++;
	return (enum vk_field_type)t;
}

static void fix_make(struct fix *f, const char *name)
{
	memset(f, 0, sizeof *f);
	f->rng = test_seed(name);
	temp_make(&f->dir);
	assert_int_equal(vk_kv_writers_new(1, &f->writers), VK_OK);
	open_kv(f);
	for (size_t i = 0; i < GEN_FIELDS; i++)
		f->field[i] = (struct vk_field_conf){.path = gen_fields[i].path,
						     .field = (uint16_t)(i + 1),
						     .type = type_named(gen_fields[i].type),
						     .ready = true};
	f->conf.fields = f->field;
	f->conf.fields_n = GEN_FIELDS;
}

static void fix_free(struct fix *f)
{
	vk_kv_close(f->kv);
	vk_kv_writers_free(f->writers);
	for (size_t i = 0; i < SLOTS; i++) free(f->payload[i]);
	temp_free(&f->dir);
}

static const vk_jv *parse(struct vk_arena *a, const char *text, struct vk_json **doc)
{
	*doc = NULL;
	if (!text) return NULL;
	assert_int_equal(vk_json_parse(a, vk_bytes_of(text), NULL, doc, NULL), VK_OK);
	return vk_json_root(*doc);
}

/* One slot gets another payload, or none, in the batch, the payload table and the model. */
static void change(struct fix *f, struct vk_kv_txn *t, struct vk_field_batch *b, size_t i)
{
	struct vk_arena a;
	struct vk_json *was, *is;
	struct vk_buf text;
	uint8_t key[4];
	uint32_t slot = slot_at(i);
	bool go = f->payload[i] && gen_below(&f->rng, 5) == 0;
	vk_arena_init(&a, 1 << 24);
	vk_buf_init(&text, 1 << 20);
	gen_payload(&text, &f->rng);
	char *next = go ? NULL : strdup(vk_buf_cstr(&text));
	const vk_jv *before = parse(&a, f->payload[i], &was), *after = parse(&a, next, &is);
	assert_int_equal(vk_field_batch_payload(b, &f->conf, slot, before, after), VK_OK);
	vk_field_batch_live(b, slot, !go);
	f->set[i] = !go && gen_below(&f->rng, 2);
	vk_field_batch_set(b, 7, slot, f->set[i]);
	vk_put_u32be(key, slot);
	struct vk_bytes k = {(char *)key, 4};
	if (next) assert_int_equal(vk_kv_put(t, VK_T_PAYLOAD, k, vk_bytes_of(next)), VK_OK);
	else vk_kv_del(t, VK_T_PAYLOAD, k);
	free(f->payload[i]);
	f->payload[i] = next;
	vk_json_free(was);
	vk_json_free(is);
	vk_buf_free(&text);
	vk_arena_free(&a);
}

static enum vk_status apply_changes(void *arg, struct vk_kv_txn *t)
{
	struct fix *f = arg;
	struct vk_field_batch *b;
	assert_int_equal(vk_field_batch_new(t, &b), VK_OK);
	for (int i = 0; i < f->changes; i++) change(f, t, b, gen_below(&f->rng, SLOTS));
	return vk_field_batch_flush(b);
}

static void write_some(struct fix *f, int changes)
{
	struct vk_kv_job job = {.apply = apply_changes, .arg = f};
	f->changes = changes;
	assert_int_equal(vk_kv_run(f->kv, &job), VK_OK);
}

/* --- what a payload's keys must be, told a second time and differently --- */

struct expect {
	enum vk_field_type type;
	struct vk_fv fv[64];
	size_t n;
	bool null, exists, other, any;
};

static bool same_fv(const struct vk_fv *a, const struct vk_fv *b)
{
	return a->kind == b->kind && vk_bytes_eq(vk_fv_bytes(a), vk_fv_bytes(b));
}

static bool expect_item(void *arg, const vk_jv *v)
{
	struct expect *x = arg;
	struct vk_fv fv;
	if (vk_jv_type(v) == VK_J_NULL) return true;
	if (!vk_field_value(x->type, v, &fv)) {
		x->other = true;
		return true;
	}
	x->any = true;
	for (size_t i = 0; i < x->n; i++)
		if (same_fv(&x->fv[i], &fv)) return true;
	if (fv.kind) x->fv[x->n++] = fv;
	return true;
}

static bool expect_whole(void *arg, const vk_jv *v)
{
	struct expect *x = arg;
	enum vk_jtype t = vk_jv_type(v);
	if (t == VK_J_NULL) x->null = true;
	if (t == VK_J_ARRAY)
		for (const vk_jv *i = vk_jv_first(v); i; i = vk_jv_next(i))
			x->null |= vk_jv_type(i) == VK_J_NULL;
	x->exists |=
	    t == VK_J_NUMBERS || (t == VK_J_ARRAY && vk_jv_len(v)) || (t != VK_J_NULL && t != VK_J_ARRAY);
	return true;
}

static void expect_of(struct fix *f, size_t field, size_t i, struct expect *x)
{
	struct vk_arena a;
	struct vk_path p;
	struct vk_json *doc;
	vk_arena_init(&a, 1 << 24);
	*x = (struct expect){.type = f->field[field].type};
	const vk_jv *v = parse(&a, f->payload[i], &doc);
	assert_int_equal(vk_path_parse(&a, vk_bytes_of(f->field[field].path), &p, NULL), VK_OK);
	vk_path_each(v, &p, expect_whole, x);
	vk_path_values(v, &p, expect_item, x);
	vk_json_free(doc);
	vk_arena_free(&a);
}

static bool expect_has(const struct expect *x, const struct vk_field_key_parts *k)
{
	switch (k->kind) {
	case VK_FK_ANY: return x->any;
	case VK_FK_NULL: return x->null;
	case VK_FK_EXISTS: return x->exists;
	case VK_FK_OTHER: return x->other;
	case VK_FK_MULTI: return x->n > 1;
	default: break;
	}
	for (size_t i = 0; i < x->n; i++)
		if (x->fv[i].kind == k->kind && vk_bytes_eq(vk_fv_bytes(&x->fv[i]), k->value)) return true;
	return false;
}

static uint64_t expect_keys(const struct expect *x)
{
	return x->n + x->any + x->null + x->exists + x->other + (x->n > 1);
}

struct index_of {
	size_t at[3 * 65536]; /* slot -> place in the model, SLOTS: none */
};

/* Each entry's members must have it; and there must be as many members as the model has pairs. */
static void assert_table(struct fix *f)
{
	struct vk_kv_txn *t;
	struct vk_kv_cursor *c;
	struct vk_bytes k, v;
	uint64_t members = 0, wanted = 0;
	uint32_t *slots = malloc(VK_BITMAP_CHUNK_SLOTS * sizeof *slots);
	struct expect *x = malloc(GEN_FIELDS * SLOTS * sizeof *x);
	struct index_of *at = malloc(sizeof *at);
	for (size_t i = 0; i < 3 * 65536; i++) at->at[i] = SLOTS;
	for (size_t i = 0; i < SLOTS; i++) {
		at->at[slot_at(i)] = i;
		wanted += f->payload[i] != NULL;
		wanted += f->set[i];
		for (size_t n = 0; n < GEN_FIELDS; n++) {
			expect_of(f, n, i, &x[n * SLOTS + i]);
			wanted += expect_keys(&x[n * SLOTS + i]);
		}
	}
	assert_int_equal(vk_kv_view_begin(f->kv, &t), VK_OK);
	assert_int_equal(vk_kv_cursor_open(t, VK_T_FIELD, &c), VK_OK);
	for (enum vk_status st = vk_kv_seek(c, VK_LIT(""), &k, &v); !st; st = vk_kv_next(c, &k, &v)) {
		struct vk_field_key_parts p;
		size_t n;
		assert_true(vk_field_key_read(k, &p));
		assert_int_equal(vk_bitmap_chunk_slots(p.chunk, v, slots, &n), VK_OK);
		assert_true(n > 0);
		members += n;
		for (size_t i = 0; i < n; i++) {
			size_t m = at->at[slots[i]];
			assert_true(m < SLOTS);
			if (p.kind == VK_FK_LIVE) assert_non_null(f->payload[m]);
			else if (p.kind == VK_FK_SET) assert_true(f->set[m]);
			else assert_true(expect_has(&x[(size_t)(p.field - 1) * SLOTS + m], &p));
		}
	}
	assert_int_equal(members, wanted);
	vk_kv_cursor_close(c);
	vk_kv_view_end(t);
	free(slots);
	free(x);
	free(at);
}

static void test_field_batches_equal_the_model_over_a_restart(void **state)
{
	(void)state;
	static struct fix f;
	fix_make(&f, "batches");
	for (int round = 0; round < 12; round++) {
		write_some(&f, round == 3 ? 1 : 50 + (int)gen_below(&f.rng, 400));
		if (round % 4 == 3) {
			vk_kv_close(f.kv);
			open_kv(&f);
		}
		if (round % 3 == 2) assert_table(&f);
	}
	struct vk_kv_txn *t;
	struct vk_bitmap *live, *set;
	assert_int_equal(vk_kv_view_begin(f.kv, &t), VK_OK);
	assert_int_equal(vk_field_live(t, &live), VK_OK);
	assert_int_equal(vk_field_has_set(t, 7, &set), VK_OK);
	for (size_t i = 0; i < SLOTS; i++) {
		assert_int_equal(vk_bitmap_has(live, slot_at(i)), f.payload[i] != NULL);
		assert_int_equal(vk_bitmap_has(set, slot_at(i)), f.set[i]);
	}
	vk_bitmap_free(live);
	vk_bitmap_free(set);
	vk_kv_view_end(t);
	fix_free(&f);
}

/* --- facets --- */

struct facet_seen {
	struct fix *f;
	size_t field;
	const bool *in; /* by place; NULL: all */
	size_t hits;
	struct vk_fv last;
};

static bool check_hit(void *arg, const struct vk_facet_hit *h)
{
	struct facet_seen *s = arg;
	struct vk_fv v;
	uint8_t uuid[16];
	uint64_t n = 0;
	switch (h->type) {
	case VK_FIELD_KEYWORD: vk_fv_keyword(&v, h->text); break;
	case VK_FIELD_BOOL: vk_fv_bool(&v, h->b); break;
	case VK_FIELD_UUID:
		assert_true(vk_uuid_parse(h->text, uuid));
		vk_fv_uuid(&v, uuid);
		break;
	default: vk_fv_i64(&v, h->i64);
	}
	for (size_t i = 0; i < SLOTS; i++) {
		struct expect x;
		expect_of(s->f, s->field, i, &x);
		struct vk_field_key_parts k = {.kind = v.kind, .value = vk_fv_bytes(&v)};
		n += (!s->in || s->in[i]) && expect_has(&x, &k);
	}
	assert_int_equal(h->count, n);
	assert_true(n > 0);
	assert_false(s->hits && same_fv(&s->last, &v));
	s->last = v;
	s->hits++;
	return true;
}

static bool stop_at_once(void *arg, const struct vk_facet_hit *h)
{
	(void)h;
	++*(int *)arg;
	return false;
}

/* How many different values the chosen points have. */
static size_t count_values(struct fix *f, size_t field, const bool *in)
{
	static struct vk_fv seen[256];
	size_t n = 0;
	for (size_t i = 0; i < SLOTS; i++) {
		struct expect x;
		if (in && !in[i]) continue;
		expect_of(f, field, i, &x);
		for (size_t k = 0; k < x.n; k++) {
			size_t j = 0;
			while (j < n && !same_fv(&seen[j], &x.fv[k])) j++;
			if (j == n) seen[n++] = x.fv[k];
		}
	}
	return n;
}

static void test_field_facets_count_the_model(void **state)
{
	(void)state;
	static struct fix f;
	struct vk_kv_txn *t;
	bool in[SLOTS];
	fix_make(&f, "facets");
	write_some(&f, 1500);
	assert_int_equal(vk_kv_view_begin(f.kv, &t), VK_OK);
	for (size_t field = 0; field < GEN_FIELDS; field++) {
		enum vk_field_type type = f.field[field].type;
		struct vk_bitmap *b = vk_bitmap_new();
		int calls = 0;
		for (size_t i = 0; i < SLOTS; i++) {
			in[i] = gen_below(&f.rng, 3) == 0;
			if (in[i]) vk_bitmap_add(b, slot_at(i));
		}
		if (type == VK_FIELD_FLOAT || type == VK_FIELD_GEO || type == VK_FIELD_TEXT) {
			assert_int_equal(vk_field_facet(t, &f.field[field], NULL, stop_at_once, &calls),
					 VK_E_INVALID);
		} else if (type != VK_FIELD_DATETIME) {
			struct facet_seen all = {.f = &f, .field = field},
					  some = {.f = &f, .field = field, .in = in};
			assert_int_equal(vk_field_facet(t, &f.field[field], NULL, check_hit, &all), VK_OK);
			assert_int_equal(all.hits, count_values(&f, field, NULL));
			assert_int_equal(vk_field_facet(t, &f.field[field], b, check_hit, &some), VK_OK);
			assert_int_equal(some.hits, count_values(&f, field, in));
			assert_int_equal(vk_field_facet(t, &f.field[field], NULL, stop_at_once, &calls),
					 VK_OK);
			assert_int_equal(calls, 1);
		}
		uint64_t points, wanted = 0;
		assert_int_equal(vk_field_points(t, &f.field[field], &points), VK_OK);
		for (size_t i = 0; i < SLOTS; i++) {
			struct expect x;
			expect_of(&f, field, i, &x);
			wanted += x.any;
		}
		assert_int_equal(points, wanted);
		vk_bitmap_free(b);
	}
	vk_kv_view_end(t);
	fix_free(&f);
}

/* --- order --- */

struct pair {
	double d;
	int64_t i;
	uint32_t slot;
};
struct walk {
	bool is_i64, descending;
	struct pair *want;
	size_t n, at, stop;
};

static int compare_pairs(const void *a, const void *b)
{
	const struct pair *x = a, *y = b;
	if (x->i != y->i) return x->i < y->i ? -1 : 1;
	if (x->d != y->d) return x->d < y->d ? -1 : 1;
	return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static bool check_step(void *arg, const struct vk_order_value *v, uint32_t slot)
{
	struct walk *w = arg;
	assert_true(w->at < w->n);
	const struct pair *p = &w->want[w->descending ? w->n - 1 - w->at : w->at];
	assert_int_equal(v->is_i64, w->is_i64);
	assert_true(w->is_i64 ? v->i64 == p->i : v->f64 == p->d);
	assert_int_equal(slot, p->slot);
	return ++w->at != w->stop;
}

static bool reaches(const struct pair *p, const struct vk_order_value *from, bool is_i64, bool descending)
{
	if (!from) return true;
	if (is_i64 && from->is_i64) return descending ? p->i <= from->i64 : p->i >= from->i64;
	double v = is_i64 ? (double)p->i : p->d, f = from->is_i64 ? (double)from->i64 : from->f64;
	return descending ? v <= f : v >= f;
}

static void assert_walk(struct fix *f, struct vk_kv_txn *t, size_t field, bool descending,
			const struct vk_order_value *from)
{
	struct walk w = {.is_i64 = f->field[field].type != VK_FIELD_FLOAT, .descending = descending};
	w.want = malloc(SLOTS * 64 * sizeof *w.want);
	for (size_t i = 0; i < SLOTS; i++) {
		struct expect x;
		expect_of(f, field, i, &x);
		for (size_t k = 0; k < x.n; k++) {
			struct pair p = {.slot = slot_at(i)};
			if (w.is_i64) p.i = vk_fv_read_i64(vk_fv_bytes(&x.fv[k]));
			else p.d = vk_fv_read_f64(vk_fv_bytes(&x.fv[k]));
			if (reaches(&p, from, w.is_i64, descending)) w.want[w.n++] = p;
		}
	}
	qsort(w.want, w.n, sizeof *w.want, compare_pairs);
	assert_int_equal(vk_field_order(t, &f->field[field], descending, from, check_step, &w), VK_OK);
	assert_int_equal(w.at, w.n);
	if (w.n > 5) {
		w.at = 0;
		w.stop = 5;
		assert_int_equal(vk_field_order(t, &f->field[field], descending, from, check_step, &w),
				 VK_OK);
		assert_int_equal(w.at, 5);
	}
	free(w.want);
}

static void test_field_order_walks_both_ways_from_anywhere(void **state)
{
	(void)state;
	static struct fix f;
	struct vk_kv_txn *t;
	int calls = 0;
	fix_make(&f, "order");
	write_some(&f, 1500);
	assert_int_equal(vk_kv_view_begin(f.kv, &t), VK_OK);
	for (size_t field = 0; field < GEN_FIELDS; field++) {
		enum vk_field_type type = f.field[field].type;
		if (type != VK_FIELD_INTEGER && type != VK_FIELD_FLOAT && type != VK_FIELD_DATETIME) {
			assert_int_equal(vk_field_order(t, &f.field[field], false, NULL, NULL, &calls),
					 VK_E_INVALID);
			continue;
		}
		for (int way = 0; way < 2; way++) {
			assert_walk(&f, t, field, way, NULL);
			for (int i = 0; i < 12; i++) {
				struct vk_order_value from = {
				    .is_i64 = i % 2, .i64 = gen_integer(&f.rng), .f64 = gen_number(&f.rng)};
				if (type == VK_FIELD_DATETIME) {
					from.is_i64 = true;
					assert_true(
					    vk_datetime_parse(vk_bytes_of(gen_good_time(&f.rng)), &from.i64));
				}
				assert_walk(&f, t, field, way, &from);
			}
		}
	}
	vk_kv_view_end(t);
	fix_free(&f);
}

/* --- building and dropping --- */

static enum vk_status drop_then_build(void *arg, struct vk_kv_txn *t)
{
	struct fix *f = arg;
	enum vk_status st;
	struct vk_field_batch *b;
	int steps = 0;
	while ((st = vk_field_drop_step(t, 1, 5)) == VK_E_BUSY) steps++;
	assert_int_equal(st, VK_OK);
	assert_true(steps > 2);
	assert_int_equal(vk_field_drop_set(t, 7), VK_OK);
	struct vk_bitmap *set;
	assert_int_equal(vk_field_has_set(t, 7, &set), VK_OK);
	assert_true(vk_bitmap_empty(set));
	vk_bitmap_free(set);
	uint64_t points;
	assert_int_equal(vk_field_points(t, &f->field[0], &points), VK_OK);
	assert_int_equal(points, 0);
	assert_int_equal(vk_field_batch_new(t, &b), VK_OK);
	for (size_t i = 0; i < SLOTS; i++) {
		struct vk_arena a;
		struct vk_json *doc;
		vk_arena_init(&a, 1 << 24);
		assert_int_equal(
		    vk_field_batch_one(b, &f->field[0], slot_at(i), parse(&a, f->payload[i], &doc)), VK_OK);
		vk_field_batch_set(b, 7, slot_at(i), f->set[i]);
		vk_json_free(doc);
		vk_arena_free(&a);
	}
	return vk_field_batch_flush(b);
}

static void test_field_dropped_and_built_anew_is_the_same(void **state)
{
	(void)state;
	static struct fix f;
	fix_make(&f, "build");
	write_some(&f, 1200);
	struct vk_kv_job job = {.apply = drop_then_build, .arg = &f};
	assert_int_equal(vk_kv_run(f.kv, &job), VK_OK);
	assert_table(&f);
	fix_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_field_batches_equal_the_model_over_a_restart),
	    cmocka_unit_test(test_field_facets_count_the_model),
	    cmocka_unit_test(test_field_order_walks_both_ways_from_anywhere),
	    cmocka_unit_test(test_field_dropped_and_built_anew_is_the_same),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
