/*
 * Filters, reading: JSON into the tree. An error names its place ("filter.must[1].match.any[0]") and what was
 * wanted there. A key condition with several tests (match and range, say) holds when one of them does, as in
 * Qdrant.
 */
#include "index/filter_parse.h"

#include <stdio.h>
#include <stdlib.h>

#include "index/id.h"

#define PLACE_MAX 400

static void print_place(struct vk_buf *b, const struct vk_fp_place *at)
{
	if (at->up) print_place(b, at->up);
	if (!at->name) vk_buf_printf(b, "[%zu]", at->index);
	else vk_buf_printf(b, "%s%s", at->up ? "." : "", at->name);
}

static enum vk_status refuse(const struct vk_fp *p, const struct vk_fp_place *at, const char *what,
			     const char *fmt)
{
	struct vk_buf b;
	if (p->no_memory) return vk_fail(p->err, VK_E_NOMEM, "out of memory while reading a filter");
	vk_buf_init(&b, PLACE_MAX);
	print_place(&b, at);
	enum vk_status st = vk_fail(p->err, VK_E_INVALID, fmt, b.failed ? "filter" : vk_buf_cstr(&b), what);
	vk_buf_free(&b);
	return st;
}

enum vk_status vk_fp_refuse(const struct vk_fp *p, const struct vk_fp_place *at, const char *what)
{
	return refuse(p, at, what, "Format error in JSON body: %s: %s");
}

enum vk_status vk_fp_invalid(const struct vk_fp *p, const struct vk_fp_place *at, const char *what)
{
	enum vk_status st = refuse(p, at, what, "Validation error in JSON body: [%s: %s]");
	if (p->err && st == VK_E_INVALID) p->err->http = 422;
	return st;
}

enum vk_status vk_fp_refuse_name(const struct vk_fp *p, const struct vk_fp_place *at, const char *what,
				 struct vk_bytes name)
{
	char text[256];
	size_t n = name.n < 100 ? name.n : 100;
	while (n && n < name.n && ((uint8_t)name.p[n] & 0xc0) == 0x80) n--; /* a whole character */
	snprintf(text, sizeof text, "%s `%.*s`", what, (int)n, name.p ? name.p : "");
	return vk_fp_refuse(p, at, text);
}

enum vk_status vk_fp_no_memory(const struct vk_fp *p)
{
	return vk_fail(p->err, VK_E_NOMEM, "out of memory while reading a filter");
}

enum vk_status vk_fp_count_values(struct vk_fp *p, const struct vk_fp_place *at, size_t n)
{
	p->values += n;
	return p->values > VK_FILTER_VALUES_MAX ? vk_fp_refuse(p, at, "the filter has too many values")
						: VK_OK;
}

bool vk_fp_given(const vk_jv *v) { return v && vk_jv_type(v) != VK_J_NULL; }

/* A string into the arena: the filter outlives the document that it came in. False: no string,
 * or no memory (which vk_fp_refuse() then says). */
bool vk_fp_str(struct vk_fp *p, const vk_jv *v, struct vk_bytes *out)
{
	if (!vk_jv_str(v, out)) return false;
	out->p = vk_arena_strndup(p->a, out->p, out->n);
	if (!out->p) p->no_memory = true;
	return out->p != NULL;
}

size_t vk_fp_sort_unique(void *items, size_t n, size_t size, int (*compare)(const void *, const void *))
{
	char *p = items;
	size_t kept = n > 0;
	if (n > 1) qsort(p, n, size, compare);
	for (size_t i = 1; i < n; i++)
		if (compare(p + (kept - 1) * size, p + i * size))
			memmove(p + kept++ * size, p + i * size, size);
	return kept;
}

static enum vk_status read_filter(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				  struct vk_filter **out);

/* --- conditions --- */

static enum vk_status read_path(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *key,
				const struct vk_path **out)
{
	struct vk_fp_place here = {at, "key", 0};
	struct vk_bytes text;
	struct vk_error err = {0};
	struct vk_path *path = vk_arena_alloc(p->a, sizeof *path);
	if (!key) return vk_fp_refuse(p, at, "missing field `key`");
	if (!vk_fp_str(p, key, &text)) return vk_fp_refuse(p, &here, "invalid type, expected a string");
	if (!path) return vk_fp_no_memory(p);
	if (vk_path_parse(p->a, text, path, &err)) return vk_fp_refuse(p, &here, err.text);
	*out = path;
	p->reads_payload = true;
	return VK_OK;
}

static enum vk_status no_test(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v)
{
	for (const vk_jv *m = vk_jv_first(v); m; m = vk_jv_next(m))
		if (!vk_bytes_is(vk_jv_key(m), "key") && vk_fp_given(m))
			return vk_fp_refuse_name(p, at, "unknown condition", vk_jv_key(m));
	return vk_fp_invalid(p, at, "At least one field condition must be specified");
}

/* {"key": ..., test...}: several tests become a `should` of them. */
static enum vk_status read_field(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				 struct vk_cond *c)
{
	struct vk_cond test[VK_FP_TESTS];
	const struct vk_path *path;
	size_t n = 0;
	enum vk_status st = read_path(p, at, vk_jv_get(v, "key"), &path);
	for (size_t i = 0; i < VK_FP_TESTS && !st; i++) {
		const vk_jv *m = vk_jv_get(v, vk_fp_tests[i].name);
		struct vk_fp_place here = {at, vk_fp_tests[i].name, 0};
		if (!vk_fp_given(m)) continue;
		test[n] = (struct vk_cond){.path = path};
		st = vk_fp_tests[i].read(p, &here, m, &test[n]);
		test[n++].path = path;
	}
	if (st) return st;
	if (n == 0) return no_test(p, at, v);
	*c = test[0];
	if (n == 1) return VK_OK;
	struct vk_filter *f = vk_arena_calloc(p->a, 1, sizeof *f);
	struct vk_cond *all = vk_arena_calloc(p->a, n, sizeof *all);
	if (!f || !all) return vk_fp_no_memory(p);
	memcpy(all, test, n * sizeof *all);
	f->should = (struct vk_cond_list){all, n};
	f->reads_payload = true;
	*c = (struct vk_cond){.kind = VK_C_FILTER, .filter = f};
	return VK_OK;
}

static enum vk_status read_is_empty(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				    struct vk_cond *c)
{
	*c = (struct vk_cond){.kind = VK_C_EMPTY, .want = true};
	return read_path(p, at, vk_jv_get(v, "key"), &c->path);
}

static enum vk_status read_is_null(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				   struct vk_cond *c)
{
	*c = (struct vk_cond){.kind = VK_C_NULL, .want = true};
	return read_path(p, at, vk_jv_get(v, "key"), &c->path);
}

struct id_read {
	struct vk_fp *p;
	const struct vk_fp_place *at;
	struct vk_cond *c;
	enum vk_status st;
};

static bool read_id(void *arg, const vk_jv *v)
{
	struct id_read *r = arg;
	struct vk_error err = {0};
	struct vk_fp_place here = {r->at, NULL, r->c->ids.n};
	r->st = vk_id_read(r->p->a, v, &r->c->ids.key[r->c->ids.n], &err);
	if (r->st == VK_E_INVALID) r->st = vk_fp_refuse(r->p, &here, err.text);
	else if (r->st) r->st = vk_fp_no_memory(r->p);
	r->c->ids.n++;
	return !r->st;
}

static int compare_ids(const void *a, const void *b)
{
	return vk_id_compare(*(const struct vk_bytes *)a, *(const struct vk_bytes *)b);
}

static enum vk_status read_has_id(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				  struct vk_cond *c)
{
	struct id_read r = {.p = p, .at = at, .c = c};
	size_t n = vk_jv_len(v);
	*c = (struct vk_cond){.kind = VK_C_ID};
	if (vk_jv_type(v) != VK_J_ARRAY && vk_jv_type(v) != VK_J_NUMBERS)
		return vk_fp_refuse(p, at, "invalid type, expected a list of ids");
	enum vk_status st = vk_fp_count_values(p, at, n);
	if (st) return st;
	c->ids.key = vk_arena_calloc(p->a, n + 1, sizeof *c->ids.key);
	if (!c->ids.key) return vk_fp_no_memory(p);
	vk_jv_each(v, read_id, &r);
	if (!r.st) c->ids.n = vk_fp_sort_unique(c->ids.key, c->ids.n, sizeof *c->ids.key, compare_ids);
	return r.st;
}

static enum vk_status read_has_vector(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				      struct vk_cond *c)
{
	*c = (struct vk_cond){.kind = VK_C_VECTOR};
	return vk_fp_str(p, v, &c->text) ? VK_OK
					 : vk_fp_refuse(p, at, "invalid type, expected a vector's name");
}

static enum vk_status read_slice(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				 struct vk_cond *c)
{
	uint64_t total, index;
	if (!vk_jv_u64(vk_jv_get(v, "total"), &total) || total < 1 || total > UINT32_MAX)
		return vk_fp_refuse(p, at, "`total` must be an integer of 1 or more");
	if (!vk_jv_u64(vk_jv_get(v, "index"), &index))
		return vk_fp_refuse(p, at, "`index` must be an integer of 0 or more");
	if (index >= total) return vk_fp_invalid(p, at, "`index` must be less than `total`");
	*c = (struct vk_cond){.kind = VK_C_SLICE, .slice = {(uint32_t)index, (uint32_t)total}};
	return VK_OK;
}

/* `a` and `a[]` name the same elements. */
static const struct vk_path *without_brackets(struct vk_fp *p, const struct vk_path *path)
{
	const struct vk_path_step *last = &path->step[path->n - 1];
	if (path->n < 2 || last->key.p || last->index >= 0) return path;
	struct vk_path *cut = vk_arena_alloc(p->a, sizeof *cut);
	if (!cut) return NULL;
	*cut = *path;
	cut->n--;
	return cut;
}

static enum vk_status read_nested(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				  struct vk_cond *c)
{
	struct vk_fp_place here = {at, "filter", 0};
	const vk_jv *filter = vk_jv_get(v, "filter");
	*c = (struct vk_cond){.kind = VK_C_NESTED};
	enum vk_status st = read_path(p, at, vk_jv_get(v, "key"), &c->path);
	if (!st && vk_jv_type(filter) != VK_J_OBJECT) st = vk_fp_refuse(p, &here, "missing, or no object");
	if (!st) st = read_filter(p, &here, filter, &c->filter);
	if (!st && !(c->path = without_brackets(p, c->path))) st = vk_fp_no_memory(p);
	return st;
}

static const struct vk_fp_reader condition_readers[] = {
    {"is_empty", read_is_empty},     {"is_null", read_is_null}, {"has_id", read_has_id},
    {"has_vector", read_has_vector}, {"slice", read_slice},	{"nested", read_nested},
};

static enum vk_status read_condition(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				     struct vk_cond *c)
{
	if (++p->conditions > VK_FILTER_CONDITIONS_MAX)
		return vk_fp_refuse(p, at, "the filter has too many conditions");
	if (vk_jv_type(v) != VK_J_OBJECT)
		return vk_fp_refuse(p, at, "invalid type, expected a condition (an object)");
	if (vk_jv_get(v, "key")) return read_field(p, at, v, c);
	for (size_t i = 0; i < sizeof condition_readers / sizeof condition_readers[0]; i++) {
		const struct vk_fp_reader *r = &condition_readers[i];
		const vk_jv *m = vk_jv_get(v, r->name);
		struct vk_fp_place here = {at, r->name, 0};
		if (vk_fp_given(m)) return r->read(p, &here, m, c);
	}
	for (size_t i = 0; i < VK_FP_TESTS; i++)
		if (vk_jv_get(v, vk_fp_tests[i].name)) return vk_fp_refuse(p, at, "missing field `key`");
	*c = (struct vk_cond){.kind = VK_C_FILTER};
	return read_filter(p, at, v, &c->filter);
}

/* A list of conditions, or one alone. */
static enum vk_status read_list(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				struct vk_cond_list *out)
{
	size_t n = vk_jv_type(v) == VK_J_OBJECT ? 1 : vk_jv_len(v), i = 0;
	if (!vk_fp_given(v)) return VK_OK;
	if (vk_jv_type(v) != VK_J_OBJECT && vk_jv_type(v) != VK_J_ARRAY)
		return vk_fp_refuse(p, at, "invalid type, expected a list of conditions");
	if (p->conditions + n > VK_FILTER_CONDITIONS_MAX)
		return vk_fp_refuse(p, at, "the filter has too many conditions");
	out->v = vk_arena_calloc(p->a, n ? n : 1, sizeof *out->v);
	if (!out->v) return vk_fp_no_memory(p);
	out->n = n;
	if (vk_jv_type(v) == VK_J_OBJECT) return read_condition(p, at, v, &out->v[0]);
	enum vk_status st = VK_OK;
	for (const vk_jv *item = vk_jv_first(v); item && !st; item = vk_jv_next(item), i++) {
		struct vk_fp_place here = {at, NULL, i};
		st = read_condition(p, &here, item, &out->v[i]);
	}
	return st;
}

static enum vk_status read_min_should(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				      struct vk_filter *f)
{
	const vk_jv *list = vk_jv_get(v, "conditions");
	struct vk_fp_place list_at = {at, "conditions", 0}, count_at = {at, "min_count", 0};
	if (vk_jv_type(v) != VK_J_OBJECT)
		return vk_fp_refuse(p, at, "invalid type, expected an object with conditions and min_count");
	if (vk_jv_type(list) != VK_J_ARRAY)
		return vk_fp_refuse(p, &list_at, "missing, or no list of conditions");
	if (!vk_jv_u64(vk_jv_get(v, "min_count"), &f->min_count))
		return vk_fp_refuse(p, &count_at, "missing, or no integer");
	if (f->min_count < 1) return vk_fp_refuse(p, &count_at, "value 0 invalid, must be 1 or larger");
	f->has_min_should = true;
	return read_list(p, &list_at, list, &f->min_should);
}

static enum vk_status read_clause(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *clause,
				  struct vk_filter *f)
{
	struct vk_bytes name = vk_jv_key(clause);
	const char *const names[4] = {"must", "must_not", "should", "min_should"};
	struct vk_cond_list *const lists[3] = {&f->must, &f->must_not, &f->should};
	for (int i = 0; i < 4; i++) {
		struct vk_fp_place here = {at, names[i], 0};
		if (!vk_bytes_is(name, names[i])) continue;
		if (i < 3) return read_list(p, &here, clause, lists[i]);
		return vk_fp_given(clause) ? read_min_should(p, &here, clause, f) : VK_OK;
	}
	return vk_fp_refuse_name(
	    p, at, "expected must, should, must_not, min_should or a condition, found unknown field", name);
}

static enum vk_status read_filter(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				  struct vk_filter **out)
{
	enum vk_status st = VK_OK;
	if (p->depth == VK_FILTER_DEPTH_MAX) return vk_fp_refuse(p, at, "the filter is nested too deep");
	struct vk_filter *f = vk_arena_calloc(p->a, 1, sizeof *f);
	if (!f) return vk_fp_no_memory(p);
	bool outer = p->reads_payload;
	p->reads_payload = false;
	p->depth++;
	for (const vk_jv *m = vk_jv_first(v); m && !st; m = vk_jv_next(m)) st = read_clause(p, at, m, f);
	p->depth--;
	f->reads_payload = p->reads_payload;
	p->reads_payload |= outer;
	*out = f;
	return st;
}

enum vk_status vk_filter_parse(struct vk_arena *a, const vk_jv *v, struct vk_filter **out,
			       struct vk_error *err)
{
	struct vk_fp p = {.a = a, .err = err};
	struct vk_fp_place top = {NULL, "filter", 0};
	*out = NULL;
	if (!vk_fp_given(v)) return VK_OK;
	if (vk_jv_type(v) != VK_J_OBJECT) return vk_fp_refuse(&p, &top, "invalid type, expected an object");
	if (!vk_jv_first(v)) return VK_OK;
	enum vk_status st = read_filter(&p, &top, v, out);
	if (st) *out = NULL;
	return st;
}
