/* Filters, reading: the tests that a condition puts to a key's values. */
#include <stdlib.h>

#include "index/filter_parse.h"

/* --- match --- */

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

static enum vk_status read_match_value(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				       struct vk_cond *c)
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
	if (!c->list.str || !c->list.i64) return vk_fp_no_memory(p);
	c->list.str_n = vk_fp_str(p, v, c->list.str);
	c->list.i64_n = vk_jv_i64(v, c->list.i64);
	if (c->list.str_n + c->list.i64_n == 0)
		return vk_fp_refuse(p, at, "invalid value, expected a string, an integer or a boolean");
	return vk_fp_count_values(p, at, 1);
}

struct list_read {
	struct vk_fp *p;
	const struct vk_fp_place *at;
	struct vk_value_list *list;
	enum vk_status st;
	size_t i;
};

static bool read_list_item(void *arg, const vk_jv *v)
{
	struct list_read *r = arg;
	struct vk_value_list *l = r->list;
	struct vk_fp_place here = {r->at, NULL, r->i++};
	if (vk_fp_str(r->p, v, &l->str[l->str_n])) l->str_n++;
	else if (vk_jv_i64(v, &l->i64[l->i64_n])) l->i64_n++;
	else r->st = vk_fp_refuse(r->p, &here, "invalid value, expected a string or an integer");
	if (!r->st && l->str_n && l->i64_n)
		r->st = vk_fp_refuse(r->p, &here, "strings and integers must not be mixed in one list");
	return !r->st;
}

static enum vk_status read_match_list(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				      struct vk_cond *c)
{
	struct list_read r = {.p = p, .at = at, .list = &c->list};
	size_t n = vk_jv_len(v);
	if (vk_jv_type(v) != VK_J_ARRAY && vk_jv_type(v) != VK_J_NUMBERS)
		return vk_fp_refuse(p, at, "invalid type, expected a list of strings or of integers");
	enum vk_status st = vk_fp_count_values(p, at, n);
	if (st) return st;
	c->list = (struct vk_value_list){.str = vk_arena_calloc(p->a, n + 1, sizeof *c->list.str),
					 .i64 = vk_arena_calloc(p->a, n + 1, sizeof *c->list.i64)};
	if (!c->list.str || !c->list.i64) return vk_fp_no_memory(p);
	vk_jv_each(v, read_list_item, &r);
	c->list.str_n = vk_fp_sort_unique(c->list.str, c->list.str_n, sizeof *c->list.str, compare_str);
	c->list.i64_n = vk_fp_sort_unique(c->list.i64, c->list.i64_n, sizeof *c->list.i64, compare_i64);
	return r.st;
}

static enum vk_status read_any(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
			       struct vk_cond *c)
{
	c->kind = VK_C_MATCH;
	return read_match_list(p, at, v, c);
}

static enum vk_status read_except(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				  struct vk_cond *c)
{
	c->kind = VK_C_EXCEPT;
	return read_match_list(p, at, v, c);
}

static enum vk_status read_words(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				 struct vk_cond *c)
{
	struct vk_bytes text;
	if (!vk_jv_str(v, &text)) return vk_fp_refuse(p, at, "invalid type, expected a string");
	if (!vk_words_read(p->a, text, &c->words)) return vk_fp_no_memory(p);
	return vk_fp_count_values(p, at, c->words.n);
}

static enum vk_status read_text(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				struct vk_cond *c)
{
	c->kind = VK_C_TEXT;
	return read_words(p, at, v, c);
}

static enum vk_status read_text_any(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				    struct vk_cond *c)
{
	c->kind = VK_C_TEXT_ANY;
	return read_words(p, at, v, c);
}

static enum vk_status read_phrase(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				  struct vk_cond *c)
{
	c->kind = VK_C_PHRASE;
	return read_words(p, at, v, c);
}

static enum vk_status read_prefix(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				  struct vk_cond *c)
{
	c->kind = VK_C_PREFIX;
	return vk_fp_str(p, v, &c->text) ? VK_OK : vk_fp_refuse(p, at, "invalid type, expected a string");
}

static enum vk_status read_substring(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				     struct vk_cond *c)
{
	c->kind = VK_C_SUBSTRING;
	return vk_fp_str(p, v, &c->text) ? VK_OK : vk_fp_refuse(p, at, "invalid type, expected a string");
}

/* In the order in which Qdrant tries them. */
static const struct vk_fp_reader match_readers[] = {
    {"value", read_match_value}, {"text", read_text},	  {"text_any", read_text_any},
    {"phrase", read_phrase},	 {"prefix", read_prefix}, {"substring", read_substring},
    {"any", read_any},		 {"except", read_except},
};

static enum vk_status read_match(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				 struct vk_cond *c)
{
	if (vk_jv_type(v) != VK_J_OBJECT) return vk_fp_refuse(p, at, "invalid type, expected an object");
	for (size_t i = 0; i < sizeof match_readers / sizeof match_readers[0]; i++) {
		const struct vk_fp_reader *r = &match_readers[i];
		const vk_jv *m = vk_jv_get(v, r->name);
		struct vk_fp_place here = {at, r->name, 0};
		if (vk_fp_given(m)) return r->read(p, &here, m, c);
	}
	if (!vk_jv_first(v))
		return vk_fp_refuse(p, at,
				    "expected one of value, text, text_any, phrase, prefix, any, except");
	return vk_fp_refuse_name(p, at,
				 "expected one of value, text, text_any, phrase, prefix, any, except, found",
				 vk_jv_key(vk_jv_first(v)));
}

/* --- ranges --- */

static const char *const bound_names[4] = {"gt", "gte", "lt", "lte"};

static enum vk_status read_numbers(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				   struct vk_cond *c)
{
	struct vk_bounds *r = &c->range;
	bool *has[4] = {&r->has_gt, &r->has_gte, &r->has_lt, &r->has_lte};
	double *bound[4] = {&r->gt, &r->gte, &r->lt, &r->lte};
	c->kind = VK_C_RANGE;
	*r = (struct vk_bounds){0};
	for (int i = 0; i < 4; i++) {
		const vk_jv *m = vk_jv_get(v, bound_names[i]);
		struct vk_fp_place here = {at, bound_names[i], 0};
		if (!vk_fp_given(m)) continue;
		if (!vk_jv_f64(m, bound[i]))
			return vk_fp_refuse(p, &here,
					    "invalid type, expected a number, or datetimes in all bounds");
		*has[i] = true;
	}
	return VK_OK;
}

static enum vk_status read_times(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				 struct vk_cond *c)
{
	struct vk_time_bounds *r = &c->time;
	bool *has[4] = {&r->has_gt, &r->has_gte, &r->has_lt, &r->has_lte};
	int64_t *bound[4] = {&r->gt, &r->gte, &r->lt, &r->lte};
	struct vk_bytes text;
	c->kind = VK_C_TIME;
	*r = (struct vk_time_bounds){0};
	for (int i = 0; i < 4; i++) {
		const vk_jv *m = vk_jv_get(v, bound_names[i]);
		struct vk_fp_place here = {at, bound_names[i], 0};
		if (!vk_fp_given(m)) continue;
		if (!vk_jv_str(m, &text))
			return vk_fp_refuse(p, &here,
					    "invalid type, expected a datetime as in the other bounds");
		if (!vk_datetime_parse(text, bound[i]))
			return vk_fp_refuse_name(p, &here, "not a datetime:", text);
		*has[i] = true;
	}
	return VK_OK;
}

static enum vk_status read_range(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				 struct vk_cond *c)
{
	if (vk_jv_type(v) != VK_J_OBJECT)
		return vk_fp_refuse(p, at, "invalid type, expected an object with gt, gte, lt or lte");
	for (int i = 0; i < 4; i++)
		if (vk_jv_type(vk_jv_get(v, bound_names[i])) == VK_J_STRING) return read_times(p, at, v, c);
	return read_numbers(p, at, v, c);
}

static enum vk_status read_values_count(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
					struct vk_cond *c)
{
	struct vk_count_bounds *r = &c->count;
	bool *has[4] = {&r->has_gt, &r->has_gte, &r->has_lt, &r->has_lte};
	uint64_t *bound[4] = {&r->gt, &r->gte, &r->lt, &r->lte};
	if (vk_jv_type(v) != VK_J_OBJECT)
		return vk_fp_refuse(p, at, "invalid type, expected an object with gt, gte, lt or lte");
	c->kind = VK_C_VALUES_COUNT;
	*r = (struct vk_count_bounds){0};
	for (int i = 0; i < 4; i++) {
		const vk_jv *m = vk_jv_get(v, bound_names[i]);
		struct vk_fp_place here = {at, bound_names[i], 0};
		if (!vk_fp_given(m)) continue;
		if (!vk_jv_u64(m, bound[i]))
			return vk_fp_refuse(p, &here, "invalid value, expected an integer of 0 or more");
		*has[i] = true;
	}
	return VK_OK;
}

/* --- geo --- */

static enum vk_status read_point(struct vk_fp *p, const struct vk_fp_place *up, const char *name,
				 const vk_jv *v, struct vk_geo_point *out)
{
	struct vk_fp_place at = {up, name, 0};
	if (vk_jv_type(v) != VK_J_OBJECT) return vk_fp_refuse(p, &at, "expected an object with lat and lon");
	if (!vk_jv_f64(vk_jv_get(v, "lon"), &out->lon))
		return vk_fp_refuse(p, &at, "missing or invalid field `lon`");
	if (!vk_jv_f64(vk_jv_get(v, "lat"), &out->lat))
		return vk_fp_refuse(p, &at, "missing or invalid field `lat`");
	if (out->lat < -90 || out->lat > 90 || out->lon < -180 || out->lon > 180)
		return vk_fp_refuse(p, &at, "lat must be in -90 to 90 and lon in -180 to 180");
	return VK_OK;
}

static enum vk_status read_box(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
			       struct vk_cond *c)
{
	c->kind = VK_C_GEO;
	c->geo = (struct vk_geo){.shape = VK_GEO_BOX};
	enum vk_status st = read_point(p, at, "top_left", vk_jv_get(v, "top_left"), &c->geo.top_left);
	return st ? st
		  : read_point(p, at, "bottom_right", vk_jv_get(v, "bottom_right"), &c->geo.bottom_right);
}

static enum vk_status read_radius(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				  struct vk_cond *c)
{
	struct vk_fp_place here = {at, "radius", 0};
	c->kind = VK_C_GEO;
	c->geo = (struct vk_geo){.shape = VK_GEO_RADIUS};
	enum vk_status st = read_point(p, at, "center", vk_jv_get(v, "center"), &c->geo.center);
	if (st) return st;
	return vk_jv_f64(vk_jv_get(v, "radius"), &c->geo.radius_m)
		   ? VK_OK
		   : vk_fp_refuse(p, &here, "missing or no number (metres)");
}

static enum vk_status read_ring(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				struct vk_geo_ring *out)
{
	const vk_jv *points = vk_jv_get(v, "points");
	struct vk_fp_place list = {at, "points", 0};
	size_t n = vk_jv_len(points);
	if (vk_jv_type(points) != VK_J_ARRAY) return vk_fp_refuse(p, &list, "missing, or no list of points");
	if (n < 4) return vk_fp_refuse(p, &list, "polygon invalid, the size must be at least 4");
	enum vk_status st = vk_fp_count_values(p, &list, n);
	if (st) return st;
	*out = (struct vk_geo_ring){.point = vk_arena_calloc(p->a, n, sizeof *out->point), .n = n};
	if (!out->point) return vk_fp_no_memory(p);
	size_t i = 0;
	for (const vk_jv *item = vk_jv_first(points); item && !st; item = vk_jv_next(item), i++) {
		struct vk_fp_place here = {&list, NULL, i};
		st = read_point(p, &here, "point", item, &out->point[i]);
	}
	if (st) return st;
	struct vk_geo_point a = out->point[0], b = out->point[n - 1];
	return a.lat == b.lat && a.lon == b.lon
		   ? VK_OK
		   : vk_fp_refuse(p, &list,
				  "polygon invalid, the first and the last points should be the same to form "
				  "a closed line");
}

static enum vk_status read_polygon(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				   struct vk_cond *c)
{
	const vk_jv *inner = vk_jv_get(v, "interiors");
	struct vk_fp_place outer_at = {at, "exterior", 0}, inner_at = {at, "interiors", 0};
	size_t n = 1 + vk_jv_len(inner), i = 1;
	if (vk_fp_given(inner) && vk_jv_type(inner) != VK_J_ARRAY)
		return vk_fp_refuse(p, &inner_at, "invalid type, expected a list");
	enum vk_status st = vk_fp_count_values(p, at, n);
	if (st) return st;
	c->kind = VK_C_GEO;
	c->geo = (struct vk_geo){
	    .shape = VK_GEO_POLYGON, .ring = vk_arena_calloc(p->a, n, sizeof *c->geo.ring), .ring_n = n};
	if (!c->geo.ring) return vk_fp_no_memory(p);
	st = read_ring(p, &outer_at, vk_jv_get(v, "exterior"), &c->geo.ring[0]);
	if (vk_fp_given(inner))
		for (const vk_jv *r = vk_jv_first(inner); r && !st; r = vk_jv_next(r), i++) {
			struct vk_fp_place here = {&inner_at, NULL, i - 1};
			st = read_ring(p, &here, r, &c->geo.ring[i]);
		}
	return st;
}

/* --- is_empty, is_null --- */

static enum vk_status read_want(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				struct vk_cond *c)
{
	return vk_jv_bool(v, &c->want) ? VK_OK : vk_fp_refuse(p, at, "invalid type, expected a boolean");
}

static enum vk_status read_want_empty(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				      struct vk_cond *c)
{
	c->kind = VK_C_EMPTY;
	return read_want(p, at, v, c);
}

static enum vk_status read_want_null(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
				     struct vk_cond *c)
{
	c->kind = VK_C_NULL;
	return read_want(p, at, v, c);
}

const struct vk_fp_reader vk_fp_tests[VK_FP_TESTS] = {
    {"match", read_match},	   {"range", read_range},	  {"geo_bounding_box", read_box},
    {"geo_radius", read_radius},   {"geo_polygon", read_polygon}, {"values_count", read_values_count},
    {"is_empty", read_want_empty}, {"is_null", read_want_null},
};
