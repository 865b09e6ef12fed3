/*
 * Filters, reading: JSON into the tree. An error names its place ("filter.must[1].match.any[0]") and what was wanted there.
 * A key condition with several tests (match and range, say) holds when one of them does, as in Qdrant.
 */
#include <stdio.h>
#include <stdlib.h>

#include "index/filter_tree.h"
#include "index/id.h"

struct place { /* where we are, for errors: a chain on the stack */
	const struct place *up;
	const char *name; /* NULL: item `index` */
	size_t index;
};

struct parse {
	struct vk_arena *a;
	struct vk_error *err;
	size_t conditions, values;
	unsigned depth;
	bool reads_payload;
	bool no_memory;
};

#define PLACE_MAX 400

static void print_place(struct vk_buf *b, const struct place *at)
{
	if (at->up) print_place(b, at->up);
	if (!at->name) vk_buf_printf(b, "[%zu]", at->index);
	else vk_buf_printf(b, "%s%s", at->up ? "." : "", at->name);
}

static enum vk_status refuse(const struct parse *p, const struct place *at, const char *what)
{
	struct vk_buf b;
	if (p->no_memory) return vk_fail(p->err, VK_E_NOMEM, "out of memory while reading a filter");
	vk_buf_init(&b, PLACE_MAX);
	print_place(&b, at);
	enum vk_status st = vk_fail(p->err, VK_E_INVALID, "%s: %s", b.failed ? "filter" : vk_buf_cstr(&b), what);
	vk_buf_free(&b);
	return st;
}

static enum vk_status refuse_name(const struct parse *p, const struct place *at, const char *what, struct vk_bytes name)
{
	char text[256];
	size_t n = name.n < 100 ? name.n : 100;
	while (n && n < name.n && ((uint8_t)name.p[n] & 0xc0) == 0x80) n--; /* a whole character */
	snprintf(text, sizeof text, "%s `%.*s`", what, (int)n, name.p ? name.p : "");
	return refuse(p, at, text);
}

static enum vk_status no_memory(const struct parse *p)
{
	return vk_fail(p->err, VK_E_NOMEM, "out of memory while reading a filter");
}

static enum vk_status count_values(struct parse *p, const struct place *at, size_t n)
{
	p->values += n;
	return p->values > VK_FILTER_VALUES_MAX ? refuse(p, at, "the filter has too many values") : VK_OK;
}

static bool given(const vk_jv *v)
{
	return v && vk_jv_type(v) != VK_J_NULL;
}

/* A string into the arena: the filter outlives the document that it came in. False: no string,
 * or no memory (which refuse() then says). */
static bool read_str(struct parse *p, const vk_jv *v, struct vk_bytes *out)
{
	if (!vk_jv_str(v, out)) return false;
	out->p = vk_arena_strndup(p->a, out->p, out->n);
	if (!out->p) p->no_memory = true;
	return out->p != NULL;
}

static enum vk_status read_filter(struct parse *p, const struct place *at, const vk_jv *v, struct vk_filter **out);

/* --- parts of key conditions --- */

static enum vk_status read_path(struct parse *p, const struct place *at, const vk_jv *key, const struct vk_path **out)
{
	struct place here = {at, "key", 0};
	struct vk_bytes text;
	struct vk_error err = {0};
	struct vk_path *path = vk_arena_alloc(p->a, sizeof *path);
	if (!key) return refuse(p, at, "missing field `key`");
	if (!read_str(p, key, &text)) return refuse(p, &here, "invalid type, expected a string");
	if (!path) return no_memory(p);
	if (vk_path_parse(p->a, text, path, &err)) return refuse(p, &here, err.text);
	*out = path;
	p->reads_payload = true;
	return VK_OK;
}

static int compare_str(const void *x, const void *y)
{
	const struct vk_bytes *a = x, *b = y;
	size_t n = a->n < b->n ? a->n : b->n;
	int c = n ? memcmp(a->p, b->p, n) : 0;
	return c ? c : (a->n > b->n) - (a->n < b->n);
}

static int compare_i64(const void *x, const void *y)
{
	int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
	return (a > b) - (a < b);
}

/* Sorts n items of `size` bytes and drops repeated ones; how many stay. */
static size_t sort_unique(void *items, size_t n, size_t size, int (*compare)(const void *, const void *))
{
	char *p = items;
	size_t kept = n > 0;
	if (n > 1) qsort(p, n, size, compare);
	for (size_t i = 1; i < n; i++)
		if (compare(p + (kept - 1) * size, p + i * size)) memmove(p + kept++ * size, p + i * size, size);
	return kept;
}

static enum vk_status read_match_value(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	bool b;
	c->kind = VK_C_MATCH;
	c->list = (struct vk_value_list){0};
	if (vk_jv_bool(v, &b)) {
		c->list.yes = b;
		c->list.no = !b;
		return VK_OK;
	}
	c->list.str = vk_arena_alloc(p->a, sizeof *c->list.str);
	c->list.i64 = vk_arena_alloc(p->a, sizeof *c->list.i64);
	if (!c->list.str || !c->list.i64) return no_memory(p);
	c->list.str_n = read_str(p, v, c->list.str);
	c->list.i64_n = vk_jv_i64(v, c->list.i64);
	if (c->list.str_n + c->list.i64_n == 0) return refuse(p, at, "invalid value, expected a string, an integer or a boolean");
	return count_values(p, at, 1);
}

struct list_read {
	struct parse *p;
	const struct place *at;
	struct vk_value_list *list;
	enum vk_status st;
	size_t i;
};

static bool read_list_item(void *arg, const vk_jv *v)
{
	struct list_read *r = arg;
	struct vk_value_list *l = r->list;
	struct place here = {r->at, NULL, r->i++};
	if (read_str(r->p, v, &l->str[l->str_n])) l->str_n++;
	else if (vk_jv_i64(v, &l->i64[l->i64_n])) l->i64_n++;
	else r->st = refuse(r->p, &here, "invalid value, expected a string or an integer");
	if (!r->st && l->str_n && l->i64_n) r->st = refuse(r->p, &here, "strings and integers must not be mixed in one list");
	return !r->st;
}

static enum vk_status read_match_list(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	struct list_read r = {.p = p, .at = at, .list = &c->list};
	size_t n = vk_jv_len(v);
	if (vk_jv_type(v) != VK_J_ARRAY && vk_jv_type(v) != VK_J_NUMBERS)
		return refuse(p, at, "invalid type, expected a list of strings or of integers");
	enum vk_status st = count_values(p, at, n);
	if (st) return st;
	c->list = (struct vk_value_list){.str = vk_arena_calloc(p->a, n + 1, sizeof *c->list.str),
					 .i64 = vk_arena_calloc(p->a, n + 1, sizeof *c->list.i64)};
	if (!c->list.str || !c->list.i64) return no_memory(p);
	vk_jv_each(v, read_list_item, &r);
	c->list.str_n = sort_unique(c->list.str, c->list.str_n, sizeof *c->list.str, compare_str);
	c->list.i64_n = sort_unique(c->list.i64, c->list.i64_n, sizeof *c->list.i64, compare_i64);
	return r.st;
}

static enum vk_status read_any(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	c->kind = VK_C_MATCH;
	return read_match_list(p, at, v, c);
}

static enum vk_status read_except(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	c->kind = VK_C_EXCEPT;
	return read_match_list(p, at, v, c);
}

static enum vk_status read_words(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	struct vk_bytes text;
	if (!vk_jv_str(v, &text)) return refuse(p, at, "invalid type, expected a string");
	if (!vk_words_read(p->a, text, &c->words)) return no_memory(p);
	return count_values(p, at, c->words.n);
}

static enum vk_status read_text(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	c->kind = VK_C_TEXT;
	return read_words(p, at, v, c);
}

static enum vk_status read_text_any(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	c->kind = VK_C_TEXT_ANY;
	return read_words(p, at, v, c);
}

static enum vk_status read_phrase(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	c->kind = VK_C_PHRASE;
	return read_words(p, at, v, c);
}

static enum vk_status read_prefix(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	c->kind = VK_C_PREFIX;
	return read_str(p, v, &c->text) ? VK_OK : refuse(p, at, "invalid type, expected a string");
}

static enum vk_status read_substring(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	c->kind = VK_C_SUBSTRING;
	return read_str(p, v, &c->text) ? VK_OK : refuse(p, at, "invalid type, expected a string");
}

struct reader {
	const char *name;
	enum vk_status (*read)(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c);
};

/* In the order in which Qdrant tries them. */
static const struct reader match_readers[] = {
	{"value", read_match_value}, {"text", read_text}, {"text_any", read_text_any}, {"phrase", read_phrase},
	{"prefix", read_prefix}, {"substring", read_substring}, {"any", read_any}, {"except", read_except},
};

static enum vk_status read_match(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	if (vk_jv_type(v) != VK_J_OBJECT) return refuse(p, at, "invalid type, expected an object");
	for (size_t i = 0; i < sizeof match_readers / sizeof match_readers[0]; i++) {
		const struct reader *r = &match_readers[i];
		const vk_jv *m = vk_jv_get(v, r->name);
		struct place here = {at, r->name, 0};
		if (given(m)) return r->read(p, &here, m, c);
	}
	if (!vk_jv_first(v)) return refuse(p, at, "expected one of value, text, text_any, phrase, prefix, any, except");
	return refuse_name(p, at, "expected one of value, text, text_any, phrase, prefix, any, except, found",
			   vk_jv_key(vk_jv_first(v)));
}

/* --- ranges --- */

static const char *const bound_names[4] = {"gt", "gte", "lt", "lte"};

static enum vk_status read_numbers(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	struct vk_bounds *r = &c->range;
	bool *has[4] = {&r->has_gt, &r->has_gte, &r->has_lt, &r->has_lte};
	double *bound[4] = {&r->gt, &r->gte, &r->lt, &r->lte};
	c->kind = VK_C_RANGE;
	*r = (struct vk_bounds){0};
	for (int i = 0; i < 4; i++) {
		const vk_jv *m = vk_jv_get(v, bound_names[i]);
		struct place here = {at, bound_names[i], 0};
		if (!given(m)) continue;
		if (!vk_jv_f64(m, bound[i])) return refuse(p, &here, "invalid type, expected a number, or datetimes in all bounds");
		*has[i] = true;
	}
	return VK_OK;
}

static enum vk_status read_times(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	struct vk_time_bounds *r = &c->time;
	bool *has[4] = {&r->has_gt, &r->has_gte, &r->has_lt, &r->has_lte};
	int64_t *bound[4] = {&r->gt, &r->gte, &r->lt, &r->lte};
	struct vk_bytes text;
	c->kind = VK_C_TIME;
	*r = (struct vk_time_bounds){0};
	for (int i = 0; i < 4; i++) {
		const vk_jv *m = vk_jv_get(v, bound_names[i]);
		struct place here = {at, bound_names[i], 0};
		if (!given(m)) continue;
		if (!vk_jv_str(m, &text)) return refuse(p, &here, "invalid type, expected a datetime as in the other bounds");
		if (!vk_datetime_parse(text, bound[i])) return refuse_name(p, &here, "not a datetime:", text);
		*has[i] = true;
	}
	return VK_OK;
}

static enum vk_status read_range(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	if (vk_jv_type(v) != VK_J_OBJECT) return refuse(p, at, "invalid type, expected an object with gt, gte, lt or lte");
	for (int i = 0; i < 4; i++)
		if (vk_jv_type(vk_jv_get(v, bound_names[i])) == VK_J_STRING) return read_times(p, at, v, c);
	return read_numbers(p, at, v, c);
}

static enum vk_status read_values_count(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	struct vk_count_bounds *r = &c->count;
	bool *has[4] = {&r->has_gt, &r->has_gte, &r->has_lt, &r->has_lte};
	uint64_t *bound[4] = {&r->gt, &r->gte, &r->lt, &r->lte};
	if (vk_jv_type(v) != VK_J_OBJECT) return refuse(p, at, "invalid type, expected an object with gt, gte, lt or lte");
	c->kind = VK_C_VALUES_COUNT;
	*r = (struct vk_count_bounds){0};
	for (int i = 0; i < 4; i++) {
		const vk_jv *m = vk_jv_get(v, bound_names[i]);
		struct place here = {at, bound_names[i], 0};
		if (!given(m)) continue;
		if (!vk_jv_u64(m, bound[i])) return refuse(p, &here, "invalid value, expected an integer of 0 or more");
		*has[i] = true;
	}
	return VK_OK;
}

/* --- geo --- */

static enum vk_status read_point(struct parse *p, const struct place *up, const char *name, const vk_jv *v,
				 struct vk_geo_point *out)
{
	struct place at = {up, name, 0};
	if (vk_jv_type(v) != VK_J_OBJECT) return refuse(p, &at, "expected an object with lat and lon");
	if (!vk_jv_f64(vk_jv_get(v, "lon"), &out->lon)) return refuse(p, &at, "missing or invalid field `lon`");
	if (!vk_jv_f64(vk_jv_get(v, "lat"), &out->lat)) return refuse(p, &at, "missing or invalid field `lat`");
	if (out->lat < -90 || out->lat > 90 || out->lon < -180 || out->lon > 180)
		return refuse(p, &at, "lat must be in -90 to 90 and lon in -180 to 180");
	return VK_OK;
}

static enum vk_status read_box(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	c->kind = VK_C_GEO;
	c->geo = (struct vk_geo){.shape = VK_GEO_BOX};
	enum vk_status st = read_point(p, at, "top_left", vk_jv_get(v, "top_left"), &c->geo.top_left);
	return st ? st : read_point(p, at, "bottom_right", vk_jv_get(v, "bottom_right"), &c->geo.bottom_right);
}

static enum vk_status read_radius(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	struct place here = {at, "radius", 0};
	c->kind = VK_C_GEO;
	c->geo = (struct vk_geo){.shape = VK_GEO_RADIUS};
	enum vk_status st = read_point(p, at, "center", vk_jv_get(v, "center"), &c->geo.center);
	if (st) return st;
	return vk_jv_f64(vk_jv_get(v, "radius"), &c->geo.radius_m) ? VK_OK : refuse(p, &here, "missing or no number (metres)");
}

static enum vk_status read_ring(struct parse *p, const struct place *at, const vk_jv *v, struct vk_geo_ring *out)
{
	const vk_jv *points = vk_jv_get(v, "points");
	struct place list = {at, "points", 0};
	size_t n = vk_jv_len(points);
	if (vk_jv_type(points) != VK_J_ARRAY) return refuse(p, &list, "missing, or no list of points");
	if (n < 4) return refuse(p, &list, "polygon invalid, the size must be at least 4");
	enum vk_status st = count_values(p, &list, n);
	if (st) return st;
	*out = (struct vk_geo_ring){.point = vk_arena_calloc(p->a, n, sizeof *out->point), .n = n};
	if (!out->point) return no_memory(p);
	size_t i = 0;
	for (const vk_jv *item = vk_jv_first(points); item && !st; item = vk_jv_next(item), i++) {
		struct place here = {&list, NULL, i};
		st = read_point(p, &here, "point", item, &out->point[i]);
	}
	if (st) return st;
	struct vk_geo_point a = out->point[0], b = out->point[n - 1];
	return a.lat == b.lat && a.lon == b.lon ? VK_OK
		: refuse(p, &list, "polygon invalid, the first and the last points should be the same to form a closed line");
}

static enum vk_status read_polygon(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	const vk_jv *inner = vk_jv_get(v, "interiors");
	struct place outer_at = {at, "exterior", 0}, inner_at = {at, "interiors", 0};
	size_t n = 1 + vk_jv_len(inner), i = 1;
	if (given(inner) && vk_jv_type(inner) != VK_J_ARRAY) return refuse(p, &inner_at, "invalid type, expected a list");
	enum vk_status st = count_values(p, at, n);
	if (st) return st;
	c->kind = VK_C_GEO;
	c->geo = (struct vk_geo){.shape = VK_GEO_POLYGON, .ring = vk_arena_calloc(p->a, n, sizeof *c->geo.ring), .ring_n = n};
	if (!c->geo.ring) return no_memory(p);
	st = read_ring(p, &outer_at, vk_jv_get(v, "exterior"), &c->geo.ring[0]);
	if (given(inner))
		for (const vk_jv *r = vk_jv_first(inner); r && !st; r = vk_jv_next(r), i++) {
			struct place here = {&inner_at, NULL, i - 1};
			st = read_ring(p, &here, r, &c->geo.ring[i]);
		}
	return st;
}

/* --- conditions --- */

static enum vk_status read_want(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	return vk_jv_bool(v, &c->want) ? VK_OK : refuse(p, at, "invalid type, expected a boolean");
}

static enum vk_status read_want_empty(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	c->kind = VK_C_EMPTY;
	return read_want(p, at, v, c);
}

static enum vk_status read_want_null(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	c->kind = VK_C_NULL;
	return read_want(p, at, v, c);
}

static const struct reader test_readers[] = {
	{"match", read_match}, {"range", read_range}, {"geo_bounding_box", read_box}, {"geo_radius", read_radius},
	{"geo_polygon", read_polygon}, {"values_count", read_values_count}, {"is_empty", read_want_empty},
	{"is_null", read_want_null},
};
#define TESTS (sizeof test_readers / sizeof test_readers[0])

static enum vk_status no_test(struct parse *p, const struct place *at, const vk_jv *v)
{
	for (const vk_jv *m = vk_jv_first(v); m; m = vk_jv_next(m))
		if (!vk_bytes_is(vk_jv_key(m), "key") && given(m)) return refuse_name(p, at, "unknown condition", vk_jv_key(m));
	/* Qdrant's schema lets it pass; its validation, which answers otherwise, does not. */
	enum vk_status st = refuse(p, at, "At least one field condition must be specified");
	if (!p->err || st != VK_E_INVALID) return st;
	char text[VK_ERROR_TEXT_MAX];
	memcpy(text, p->err->text, sizeof text);
	vk_fail(p->err, st, "Validation error in JSON body: [%.700s]", text);
	p->err->http = 422;
	return st;
}

/* {"key": ..., test...}: several tests become a `should` of them. */
static enum vk_status read_field(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	struct vk_cond test[TESTS];
	const struct vk_path *path;
	size_t n = 0;
	enum vk_status st = read_path(p, at, vk_jv_get(v, "key"), &path);
	for (size_t i = 0; i < TESTS && !st; i++) {
		const vk_jv *m = vk_jv_get(v, test_readers[i].name);
		struct place here = {at, test_readers[i].name, 0};
		if (!given(m)) continue;
		test[n] = (struct vk_cond){.path = path};
		st = test_readers[i].read(p, &here, m, &test[n]);
		test[n++].path = path;
	}
	if (st) return st;
	if (n == 0) return no_test(p, at, v);
	*c = test[0];
	if (n == 1) return VK_OK;
	struct vk_filter *f = vk_arena_calloc(p->a, 1, sizeof *f);
	struct vk_cond *all = vk_arena_calloc(p->a, n, sizeof *all);
	if (!f || !all) return no_memory(p);
	memcpy(all, test, n * sizeof *all);
	f->should = (struct vk_cond_list){all, n};
	f->reads_payload = true;
	*c = (struct vk_cond){.kind = VK_C_FILTER, .filter = f};
	return VK_OK;
}

static enum vk_status read_is_empty(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	*c = (struct vk_cond){.kind = VK_C_EMPTY, .want = true};
	return read_path(p, at, vk_jv_get(v, "key"), &c->path);
}

static enum vk_status read_is_null(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	*c = (struct vk_cond){.kind = VK_C_NULL, .want = true};
	return read_path(p, at, vk_jv_get(v, "key"), &c->path);
}

struct id_read {
	struct parse *p;
	const struct place *at;
	struct vk_cond *c;
	enum vk_status st;
};

static bool read_id(void *arg, const vk_jv *v)
{
	struct id_read *r = arg;
	struct vk_error err = {0};
	struct place here = {r->at, NULL, r->c->ids.n};
	r->st = vk_id_read(r->p->a, v, &r->c->ids.key[r->c->ids.n], &err);
	if (r->st == VK_E_INVALID) r->st = refuse(r->p, &here, err.text);
	else if (r->st) r->st = no_memory(r->p);
	r->c->ids.n++;
	return !r->st;
}

static int compare_ids(const void *a, const void *b)
{
	return vk_id_compare(*(const struct vk_bytes *)a, *(const struct vk_bytes *)b);
}

static enum vk_status read_has_id(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	struct id_read r = {.p = p, .at = at, .c = c};
	size_t n = vk_jv_len(v);
	*c = (struct vk_cond){.kind = VK_C_ID};
	if (vk_jv_type(v) != VK_J_ARRAY && vk_jv_type(v) != VK_J_NUMBERS) return refuse(p, at, "invalid type, expected a list of ids");
	enum vk_status st = count_values(p, at, n);
	if (st) return st;
	c->ids.key = vk_arena_calloc(p->a, n + 1, sizeof *c->ids.key);
	if (!c->ids.key) return no_memory(p);
	vk_jv_each(v, read_id, &r);
	if (!r.st) c->ids.n = sort_unique(c->ids.key, c->ids.n, sizeof *c->ids.key, compare_ids);
	return r.st;
}

static enum vk_status read_has_vector(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	*c = (struct vk_cond){.kind = VK_C_VECTOR};
	return read_str(p, v, &c->text) ? VK_OK : refuse(p, at, "invalid type, expected a vector's name");
}

static enum vk_status read_slice(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	uint64_t total, index;
	if (!vk_jv_u64(vk_jv_get(v, "total"), &total) || total < 1 || total > UINT32_MAX)
		return refuse(p, at, "`total` must be an integer of 1 or more");
	if (!vk_jv_u64(vk_jv_get(v, "index"), &index) || index >= total)
		return refuse(p, at, "`index` must be an integer of 0 or more and less than `total`");
	*c = (struct vk_cond){.kind = VK_C_SLICE, .slice = {(uint32_t)index, (uint32_t)total}};
	return VK_OK;
}

/* `a` and `a[]` name the same elements. */
static const struct vk_path *without_brackets(struct parse *p, const struct vk_path *path)
{
	const struct vk_path_step *last = &path->step[path->n - 1];
	if (path->n < 2 || last->key.p || last->index >= 0) return path;
	struct vk_path *cut = vk_arena_alloc(p->a, sizeof *cut);
	if (!cut) return NULL;
	*cut = *path;
	cut->n--;
	return cut;
}

static enum vk_status read_nested(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	struct place here = {at, "filter", 0};
	const vk_jv *filter = vk_jv_get(v, "filter");
	*c = (struct vk_cond){.kind = VK_C_NESTED};
	enum vk_status st = read_path(p, at, vk_jv_get(v, "key"), &c->path);
	if (!st && vk_jv_type(filter) != VK_J_OBJECT) st = refuse(p, &here, "missing, or no object");
	if (!st) st = read_filter(p, &here, filter, &c->filter);
	if (!st && !(c->path = without_brackets(p, c->path))) st = no_memory(p);
	return st;
}

static const struct reader condition_readers[] = {
	{"is_empty", read_is_empty}, {"is_null", read_is_null}, {"has_id", read_has_id}, {"has_vector", read_has_vector},
	{"slice", read_slice}, {"nested", read_nested},
};

static enum vk_status read_condition(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond *c)
{
	if (++p->conditions > VK_FILTER_CONDITIONS_MAX) return refuse(p, at, "the filter has too many conditions");
	if (vk_jv_type(v) != VK_J_OBJECT) return refuse(p, at, "invalid type, expected a condition (an object)");
	if (vk_jv_get(v, "key")) return read_field(p, at, v, c);
	for (size_t i = 0; i < sizeof condition_readers / sizeof condition_readers[0]; i++) {
		const struct reader *r = &condition_readers[i];
		const vk_jv *m = vk_jv_get(v, r->name);
		struct place here = {at, r->name, 0};
		if (given(m)) return r->read(p, &here, m, c);
	}
	for (size_t i = 0; i < TESTS; i++)
		if (vk_jv_get(v, test_readers[i].name)) return refuse(p, at, "missing field `key`");
	*c = (struct vk_cond){.kind = VK_C_FILTER};
	return read_filter(p, at, v, &c->filter);
}

/* A list of conditions, or one alone. */
static enum vk_status read_list(struct parse *p, const struct place *at, const vk_jv *v, struct vk_cond_list *out)
{
	size_t n = vk_jv_type(v) == VK_J_OBJECT ? 1 : vk_jv_len(v), i = 0;
	if (!given(v)) return VK_OK;
	if (vk_jv_type(v) != VK_J_OBJECT && vk_jv_type(v) != VK_J_ARRAY) return refuse(p, at, "invalid type, expected a list of conditions");
	if (p->conditions + n > VK_FILTER_CONDITIONS_MAX) return refuse(p, at, "the filter has too many conditions");
	out->v = vk_arena_calloc(p->a, n ? n : 1, sizeof *out->v);
	if (!out->v) return no_memory(p);
	out->n = n;
	if (vk_jv_type(v) == VK_J_OBJECT) return read_condition(p, at, v, &out->v[0]);
	enum vk_status st = VK_OK;
	for (const vk_jv *item = vk_jv_first(v); item && !st; item = vk_jv_next(item), i++) {
		struct place here = {at, NULL, i};
		st = read_condition(p, &here, item, &out->v[i]);
	}
	return st;
}

static enum vk_status read_min_should(struct parse *p, const struct place *at, const vk_jv *v, struct vk_filter *f)
{
	const vk_jv *list = vk_jv_get(v, "conditions");
	struct place list_at = {at, "conditions", 0}, count_at = {at, "min_count", 0};
	if (vk_jv_type(v) != VK_J_OBJECT) return refuse(p, at, "invalid type, expected an object with conditions and min_count");
	if (vk_jv_type(list) != VK_J_ARRAY) return refuse(p, &list_at, "missing, or no list of conditions");
	if (!vk_jv_u64(vk_jv_get(v, "min_count"), &f->min_count)) return refuse(p, &count_at, "missing, or no integer");
	if (f->min_count < 1) return refuse(p, &count_at, "value 0 invalid, must be 1 or larger");
	f->has_min_should = true;
	return read_list(p, &list_at, list, &f->min_should);
}

static enum vk_status read_clause(struct parse *p, const struct place *at, const vk_jv *clause, struct vk_filter *f)
{
	struct vk_bytes name = vk_jv_key(clause);
	const char *const names[4] = {"must", "must_not", "should", "min_should"};
	struct vk_cond_list *const lists[3] = {&f->must, &f->must_not, &f->should};
	for (int i = 0; i < 4; i++) {
		struct place here = {at, names[i], 0};
		if (!vk_bytes_is(name, names[i])) continue;
		if (i < 3) return read_list(p, &here, clause, lists[i]);
		return given(clause) ? read_min_should(p, &here, clause, f) : VK_OK;
	}
	return refuse_name(p, at, "expected must, should, must_not, min_should or a condition, found unknown field", name);
}

static enum vk_status read_filter(struct parse *p, const struct place *at, const vk_jv *v, struct vk_filter **out)
{
	enum vk_status st = VK_OK;
	if (p->depth == VK_FILTER_DEPTH_MAX) return refuse(p, at, "the filter is nested too deep");
	struct vk_filter *f = vk_arena_calloc(p->a, 1, sizeof *f);
	if (!f) return no_memory(p);
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

enum vk_status vk_filter_parse(struct vk_arena *a, const vk_jv *v, struct vk_filter **out, struct vk_error *err)
{
	struct parse p = {.a = a, .err = err};
	struct place top = {NULL, "filter", 0};
	*out = NULL;
	if (!given(v)) return VK_OK;
	if (vk_jv_type(v) != VK_J_OBJECT) return refuse(&p, &top, "invalid type, expected an object");
	if (!vk_jv_first(v)) return VK_OK;
	enum vk_status st = read_filter(&p, &top, v, out);
	if (st) *out = NULL;
	return st;
}
