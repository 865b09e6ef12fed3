/*
 * Random payloads and filters that fit each other: few values, so that conditions hit; now and then a value
 * of the wrong type, a null, an empty or nested array, so that indexes meet what they do not hold. From a
 * state alone: a printed seed replays.
 */
#ifndef VK_TESTS_INDEX_GEN_H
#define VK_TESTS_INDEX_GEN_H

#include <stdio.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/num.h"

/* What to index, and as what (index/config.h's names). */
static const struct gen_field {
	const char *path, *type;
} gen_fields[] = {
    {"city", "keyword"}, {"tags", "keyword"}, {"long", "keyword"},	   {"n", "integer"},
    {"price", "float"},	 {"ok", "bool"},      {"at", "datetime"},	   {"uid", "uuid"},
    {"loc", "geo"},	 {"body", "text"},    {"items[].kind", "keyword"}, {"items[].qty", "integer"},
    {"a.b", "float"},
};
#define GEN_FIELDS (sizeof gen_fields / sizeof gen_fields[0])

static inline unsigned gen_below(uint64_t *rng, unsigned n) { return (unsigned)(vk_rng(rng) % n); }

static inline const char *gen_city(uint64_t *rng)
{
	static const char *const v[] = {"Berlin", "berlin", "Bern",	"",	   "London",
					"Łódź",	  "ÖREBRO", "New York", "a\"b\\c", "1"};
	return v[gen_below(rng, 10)];
}

static inline const char *gen_text(uint64_t *rng)
{
	static const char *const v[] = {"the good cheap Hardware",
					"goodness, only",
					"Good-bye; cheap!",
					"ΟΔΟΣ και ÉCOLE",
					"école 42",
					"x_y under_score",
					"",
					"  ",
					"cheap good",
					"naïve café 3.14",
					"GOOD hardware the"};
	return v[gen_below(rng, 11)];
}

static inline const char *gen_query_text(uint64_t *rng)
{
	static const char *const v[] = {"good", "cheap good", "Hardware", "école", "οδος",     "score",
					"",	"good cheap", "3",	  "hard",  "the only", "!"};
	return v[gen_below(rng, 12)];
}

static inline const char *gen_time(uint64_t *rng)
{
	static const char *const v[] = {"2024-01-01",
					"2024-01-01T00:00:00Z",
					"2024-01-01 00:00:00.000001",
					"2024-06-15T12:30:00+02:00",
					"2024-06-15T10:30:00Z",
					"2023-12-31T23:59:59.999999Z",
					"1969-07-20T20:17:40Z",
					"2024-02-30",
					"not a time",
					"2024-06-15 12",
					"2024-06-15T10:30",
					"2024-06-15T12:30:00.123456789 +0200"};
	return v[gen_below(rng, 12)];
}

static inline const char *gen_good_time(uint64_t *rng)
{
	static const char *const v[] = {"2024-01-01",
					"2024-01-01T00:00:00Z",
					"2024-06-15T12:30:00+02:00",
					"2023-12-31T23:59:59.999999Z",
					"1969-07-20T20:17:40Z",
					"2024-06-15T10:30:00Z"};
	return v[gen_below(rng, 6)];
}

static inline const char *gen_uuid(uint64_t *rng)
{
	static const char *const v[] = {
	    "550e8400-e29b-41d4-a716-446655440000", "550E8400-E29B-41D4-A716-446655440000",
	    "550e8400e29b41d4a716446655440000", "00000000-0000-0000-0000-000000000001", "no uuid"};
	return v[gen_below(rng, 5)];
}

static inline void gen_long(struct vk_jw *w, uint64_t *rng)
{
	char text[300];
	size_t n = 195 + gen_below(rng, 12);
	memset(text, 'k', n);
	text[0] = (char)('a' + gen_below(rng, 3));
	vk_jw_str(w, (struct vk_bytes){text, n});
}

static inline double gen_number(uint64_t *rng)
{
	static const double v[] = {0, 1, 2, -1, 1.5, 2.5, 1e300, -1e-7, 9007199254740993.0, 100};
	return v[gen_below(rng, 10)];
}

static inline int64_t gen_integer(uint64_t *rng)
{
	static const int64_t v[] = {0, 1, 2, 3, -1, -7, 9007199254740993, INT64_MAX, INT64_MIN, 100};
	return v[gen_below(rng, 10)];
}

static inline void gen_point(struct vk_jw *w, uint64_t *rng)
{
	static const double lat[] = {52.52, 52.5201, 51.5074, 0, 90, -90, -17.7, 48.1},
			    lon[] = {13.405, 13.41, -0.1278, 180, -180, 179.9, -179.9, 11.6};
	unsigned i = gen_below(rng, 8), j = gen_below(rng, 3) ? i : gen_below(rng, 8);
	vk_jw_object(w);
	vk_jw_kf(w, "lat", lat[i]);
	vk_jw_kf(w, "lon", lon[j]);
	vk_jw_object_end(w);
}

/* Off the map, or no point at all. */
static inline void gen_odd_point(struct vk_jw *w, uint64_t *rng)
{
	vk_jw_object(w);
	vk_jw_kf(w, "lat", gen_below(rng, 2) ? 91.5 : 10);
	if (gen_below(rng, 2)) vk_jw_kf(w, "lon", 13);
	else vk_jw_kv(w, "lon", "13");
	vk_jw_object_end(w);
}

static inline void gen_value(struct vk_jw *w, uint64_t *rng, unsigned field);

static inline void gen_odd_value(struct vk_jw *w, uint64_t *rng, unsigned field)
{
	unsigned n;
	switch (gen_below(rng, 8)) {
	case 0: vk_jw_null(w); break;
	case 1:
		vk_jw_array(w);
		vk_jw_array_end(w);
		break;
	case 2: vk_jw_bool(w, gen_below(rng, 2)); break;
	case 3:
		vk_jw_object(w);
		vk_jw_ki(w, "b", gen_integer(rng));
		vk_jw_object_end(w);
		break;
	case 4: vk_jw_f64(w, gen_number(rng)); break;
	case 5: vk_jw_raw(w, VK_LIT("1.0")); break;
	case 6: /* nested arrays and nulls inside */
		vk_jw_array(w);
		for (n = gen_below(rng, 3); n; n--) gen_value(w, rng, field);
		vk_jw_null(w);
		vk_jw_array(w);
		gen_value(w, rng, field);
		vk_jw_array_end(w);
		vk_jw_array_end(w);
		break;
	default: gen_value(w, rng, gen_below(rng, 10));
	}
}

/* One value of a field, of its own type. */
static inline void gen_value(struct vk_jw *w, uint64_t *rng, unsigned field)
{
	switch (field) {
	case 0:
	case 1:
	case 10: vk_jw_cstr(w, gen_city(rng)); break;
	case 2: gen_long(w, rng); break;
	case 3:
	case 11: vk_jw_i64(w, gen_integer(rng)); break;
	case 4:
	case 12:
		if (gen_below(rng, 2)) vk_jw_f64(w, gen_number(rng));
		else vk_jw_i64(w, gen_integer(rng));
		break;
	case 5: vk_jw_bool(w, gen_below(rng, 2)); break;
	case 6: vk_jw_cstr(w, gen_time(rng)); break;
	case 7: vk_jw_cstr(w, gen_uuid(rng)); break;
	case 8:
		if (gen_below(rng, 10)) gen_point(w, rng);
		else gen_odd_point(w, rng);
		break;
	default: vk_jw_cstr(w, gen_text(rng));
	}
}

static inline void gen_member(struct vk_jw *w, uint64_t *rng, unsigned field)
{
	unsigned kind = gen_below(rng, 20);
	if (kind == 0) {
		gen_odd_value(w, rng, field);
	} else if (kind < 6 || (field == 1 && kind < 15)) {
		vk_jw_array(w);
		for (unsigned n = gen_below(rng, 4); n; n--) gen_value(w, rng, field);
		if (gen_below(rng, 15) == 0) gen_odd_value(w, rng, field);
		vk_jw_array_end(w);
	} else {
		gen_value(w, rng, field);
	}
}

static inline void gen_item(struct vk_jw *w, uint64_t *rng)
{
	vk_jw_object(w);
	if (gen_below(rng, 5)) vk_jw_key(w, "kind"), gen_member(w, rng, 10);
	if (gen_below(rng, 5)) vk_jw_key(w, "qty"), gen_member(w, rng, 11);
	vk_jw_object_end(w);
}

/* A payload as JSON text. */
static inline void gen_payload(struct vk_buf *b, uint64_t *rng)
{
	struct vk_jw w;
	vk_jw_init(&w, b);
	vk_jw_object(&w);
	for (unsigned f = 0; f < 10; f++) {
		if (gen_below(rng, 3) == 0) continue;
		vk_jw_key(&w, gen_fields[f].path);
		gen_member(&w, rng, f);
	}
	if (gen_below(rng, 2)) {
		vk_jw_key(&w, "items");
		if (gen_below(rng, 8)) {
			vk_jw_array(&w);
			for (unsigned n = gen_below(rng, 4); n; n--) gen_item(&w, rng);
			if (gen_below(rng, 10) == 0) gen_odd_value(&w, rng, 10);
			vk_jw_array_end(&w);
		} else {
			gen_item(&w, rng);
		}
	}
	if (gen_below(rng, 2)) {
		vk_jw_key(&w, "a");
		vk_jw_object(&w);
		vk_jw_key(&w, "b");
		gen_member(&w, rng, 12);
		vk_jw_object_end(&w);
	}
	vk_jw_object_end(&w);
}

/* --- filters --- */

static inline const char *gen_path(uint64_t *rng)
{
	static const char *const odd[] = {"missing", "tags[]",	      "tags[0]", "n[1]",     "a",
					  "items",   "items[0].kind", "price[]", "\"city\"", "loc.lat"};
	if (gen_below(rng, 8) == 0) return odd[gen_below(rng, 10)];
	return gen_fields[gen_below(rng, GEN_FIELDS)].path;
}

static inline void gen_bounds(struct vk_jw *w, uint64_t *rng, int kind) /* 0 numbers, 1 times, 2 counts */
{
	static const char *const names[] = {"gt", "gte", "lt", "lte"};
	vk_jw_object(w);
	for (int i = 0; i < 4; i++) {
		if (gen_below(rng, 5) > 1) continue;
		vk_jw_key(w, names[i]);
		if (kind == 0) vk_jw_f64(w, gen_number(rng));
		else if (kind == 1) vk_jw_cstr(w, gen_good_time(rng));
		else vk_jw_u64(w, gen_below(rng, 4));
	}
	vk_jw_object_end(w);
}

static inline void gen_match_one(struct vk_jw *w, uint64_t *rng, bool strings)
{
	if (!strings) {
		vk_jw_i64(w, gen_integer(rng));
		return;
	}
	switch (gen_below(rng, 6)) {
	case 0: gen_long(w, rng); break;
	case 1: vk_jw_cstr(w, gen_uuid(rng)); break;
	case 2: vk_jw_cstr(w, gen_time(rng)); break;
	default: vk_jw_cstr(w, gen_city(rng));
	}
}

static inline void gen_match(struct vk_jw *w, uint64_t *rng)
{
	static const char *const words[] = {"text", "text_any", "phrase", "prefix"};
	unsigned kind = gen_below(rng, 10);
	bool strings = gen_below(rng, 3) > 0;
	vk_jw_object(w);
	if (kind < 4) {
		vk_jw_key(w, "value");
		if (kind == 0) vk_jw_bool(w, gen_below(rng, 2));
		else gen_match_one(w, rng, strings);
	} else if (kind < 7) {
		vk_jw_key(w, kind == 4 ? "except" : gen_below(rng, 4) ? "any" : "except");
		vk_jw_array(w);
		for (unsigned n = gen_below(rng, 4); n; n--) gen_match_one(w, rng, strings);
		vk_jw_array_end(w);
	} else {
		const char *word = words[gen_below(rng, 4)];
		vk_jw_kv(w, word,
			 word[1] == 'r' || gen_below(rng, 5) == 0
			     ? (gen_below(rng, 2) ? "Ber" : gen_city(rng))
			     : gen_query_text(rng));
	}
	vk_jw_object_end(w);
}

static inline void gen_geo(struct vk_jw *w, uint64_t *rng)
{
	static const double lat[] = {53, 52.52, 10, 90, 0, -17},
			    lon[] = {13, -10, 179, -179.5, 13.4051, -180};
	unsigned kind = gen_below(rng, 3);
	if (kind == 0) {
		vk_jw_key(w, "geo_radius");
		vk_jw_object(w);
		vk_jw_key(w, "center");
		gen_point(w, rng);
		vk_jw_kf(w, "radius", gen_below(rng, 2) ? 500 : gen_below(rng, 2) ? 2e6 : 1.9e7);
		vk_jw_object_end(w);
	} else if (kind == 1) {
		vk_jw_key(w, "geo_bounding_box");
		vk_jw_object(w);
		for (int i = 0; i < 2; i++) {
			vk_jw_key(w, i ? "bottom_right" : "top_left");
			vk_jw_object(w);
			vk_jw_kf(w, "lat",
				 i ? lat[gen_below(rng, 6)] - 40 < -90 ? -90 : 20 : lat[gen_below(rng, 6)]);
			vk_jw_kf(w, "lon", lon[gen_below(rng, 6)]);
			vk_jw_object_end(w);
		}
		vk_jw_object_end(w);
	} else {
		double d = 1 + gen_below(rng, 60), y = gen_below(rng, 30), x = -60.0 + gen_below(rng, 90);
		vk_jw_key(w, "geo_polygon");
		vk_jw_object(w);
		vk_jw_key(w, "exterior");
		vk_jw_object(w);
		vk_jw_key(w, "points");
		vk_jw_array(w);
		for (int i = 0; i < 5; i++) {
			static const int at[5][2] = {{0, 0}, {0, 1}, {1, 1}, {1, 0}, {0, 0}};
			vk_jw_object(w);
			vk_jw_kf(w, "lat", y + at[i][0] * (d < 50 ? d : 50));
			vk_jw_kf(w, "lon", x + at[i][1] * d);
			vk_jw_object_end(w);
		}
		vk_jw_array_end(w);
		vk_jw_object_end(w);
		vk_jw_object_end(w);
	}
}

static inline void gen_filter_in(struct vk_jw *w, uint64_t *rng, unsigned depth, bool nested);

static inline void gen_condition(struct vk_jw *w, uint64_t *rng, unsigned depth, bool nested)
{
	unsigned kind = gen_below(rng, 18);
	vk_jw_object(w);
	if (kind >= 16 && depth == 0) kind = gen_below(rng, 14);
	switch (kind) {
	case 9:
		vk_jw_key(w, gen_below(rng, 2) ? "is_empty" : "is_null");
		vk_jw_object(w);
		vk_jw_kv(w, "key", nested ? "kind" : gen_path(rng));
		vk_jw_object_end(w);
		break;
	case 14:
		vk_jw_key(w, "has_id");
		vk_jw_array(w);
		for (unsigned n = 1 + gen_below(rng, 5); n; n--) vk_jw_u64(w, gen_below(rng, 2500));
		vk_jw_array_end(w);
		break;
	case 15: vk_jw_kv(w, "has_vector", gen_below(rng, 2) ? "" : "title"); break;
	case 16:
	case 17:
		vk_jw_key(w, "nested");
		vk_jw_object(w);
		vk_jw_kv(w, "key",
			 nested		     ? "kind"
			 : gen_below(rng, 2) ? "items"
			 : gen_below(rng, 2) ? "items[]"
					     : "tags");
		vk_jw_key(w, "filter");
		gen_filter_in(w, rng, depth - 1, true);
		vk_jw_object_end(w);
		break;
	case 13:
		vk_jw_key(w, "slice");
		vk_jw_object(w);
		vk_jw_ki(w, "total", 3);
		vk_jw_ki(w, "index", gen_below(rng, 3));
		vk_jw_object_end(w);
		break;
	default:
		vk_jw_kv(w, "key", nested ? (gen_below(rng, 2) ? "kind" : "qty") : gen_path(rng));
		if (kind < 4) vk_jw_key(w, "match"), gen_match(w, rng);
		else if (kind < 6) vk_jw_key(w, "range"), gen_bounds(w, rng, 0);
		else if (kind == 6) vk_jw_key(w, "range"), gen_bounds(w, rng, 1);
		else if (kind < 9) gen_geo(w, rng);
		else if (kind == 10) vk_jw_key(w, "values_count"), gen_bounds(w, rng, 2);
		else vk_jw_kb(w, kind == 11 ? "is_empty" : "is_null", gen_below(rng, 2));
	}
	vk_jw_object_end(w);
}

static inline void gen_list(struct vk_jw *w, uint64_t *rng, unsigned depth, bool nested, unsigned n)
{
	if (gen_below(rng, 8) == 0) {
		gen_condition(w, rng, depth, nested);
		return;
	}
	vk_jw_array(w);
	for (n = gen_below(rng, 12) ? n : 0; n; n--)
		if (depth && gen_below(rng, 5) == 0) gen_filter_in(w, rng, depth - 1, nested);
		else gen_condition(w, rng, depth, nested);
	vk_jw_array_end(w);
}

static inline void gen_filter_in(struct vk_jw *w, uint64_t *rng, unsigned depth, bool nested)
{
	static const char *const clauses[] = {"must", "should", "must_not"};
	unsigned which = 1 + gen_below(rng, 15);
	vk_jw_object(w);
	for (unsigned i = 0; i < 3; i++) {
		if (!(which >> i & 1) || (i && gen_below(rng, 2))) continue;
		vk_jw_key(w, clauses[i]);
		gen_list(w, rng, depth, nested, i == 1 ? 1 + gen_below(rng, 4) : 1 + gen_below(rng, 4) / 3);
	}
	if (which & 8 && gen_below(rng, 3) == 0) {
		vk_jw_key(w, "min_should");
		vk_jw_object(w);
		vk_jw_ki(w, "min_count", 1 + gen_below(rng, 3));
		vk_jw_key(w, "conditions");
		vk_jw_array(w);
		for (unsigned n = gen_below(rng, 7); n; n--) gen_condition(w, rng, depth, nested);
		vk_jw_array_end(w);
		vk_jw_object_end(w);
	}
	vk_jw_object_end(w);
}

/* A filter as JSON text, nested at most depth deep. */
static inline void gen_filter(struct vk_buf *b, uint64_t *rng, unsigned depth)
{
	struct vk_jw w;
	vk_jw_init(&w, b);
	gen_filter_in(&w, rng, depth, false);
}

#endif
