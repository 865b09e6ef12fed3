/*
 * Goal: a filter means what Qdrant's means; its bitmap over a collection is the set of points that match, whichever indexes
 * exist; estimates hold the truth between min and max; bad filters are refused with their place.
 * Method: a table of cases by hand; a table of refusals; random payloads and filters (gen.h) in three collections with
 * all, some and no payload indexes, after updates and deletes, each bitmap held against vk_filter_match() on every
 * point. VK_TEST_SEED replays.
 */
#include "tests/store/util.h"

#include "index/collection.h"
#include "index/field_read.h"
#include "index/geo.h"
#include "tests/index/gen.h"

/* --- by hand --- */

struct match_case {
	const char *payload, *filter;
	bool want;
};

#define KEY(key, rest) "{\"must\":[{\"key\":\"" key "\"," rest "}]}"
#define IS(what, key) "{\"must\":{\"" what "\":{\"key\":\"" key "\"}}}"

static const struct match_case cases[] = {
	/* match value: by type; any element of an array; one level */
	{"{\"a\":\"x\"}", KEY("a", "\"match\":{\"value\":\"x\"}"), true},
	{"{\"a\":\"X\"}", KEY("a", "\"match\":{\"value\":\"x\"}"), false},
	{"{\"a\":[\"y\",\"x\"]}", KEY("a", "\"match\":{\"value\":\"x\"}"), true},
	{"{\"a\":[[\"x\"]]}", KEY("a", "\"match\":{\"value\":\"x\"}"), false},
	{"{\"a\":1}", KEY("a", "\"match\":{\"value\":1}"), true},
	{"{\"a\":[3,2,1]}", KEY("a", "\"match\":{\"value\":1}"), true},
	{"{\"a\":[[1,2]]}", KEY("a", "\"match\":{\"value\":1}"), false},
	{"{\"a\":1.0}", KEY("a", "\"match\":{\"value\":1}"), false},
	{"{\"a\":\"1\"}", KEY("a", "\"match\":{\"value\":1}"), false},
	{"{\"a\":true}", KEY("a", "\"match\":{\"value\":1}"), false},
	{"{\"a\":true}", KEY("a", "\"match\":{\"value\":true}"), true},
	{"{\"a\":[true,false]}", KEY("a", "\"match\":{\"value\":false}"), true},
	{"{\"a\":9007199254740993}", KEY("a", "\"match\":{\"value\":9007199254740992}"), false},
	{"{}", KEY("a", "\"match\":{\"value\":\"x\"}"), false},
	/* any and except */
	{"{\"a\":\"x\"}", KEY("a", "\"match\":{\"any\":[\"z\",\"x\"]}"), true},
	{"{\"a\":7}", KEY("a", "\"match\":{\"any\":[1,7]}"), true},
	{"{\"a\":\"x\"}", KEY("a", "\"match\":{\"any\":[]}"), false},
	{"{\"a\":\"x\"}", KEY("a", "\"match\":{\"except\":[\"x\"]}"), false},
	{"{\"a\":[\"x\",\"y\"]}", KEY("a", "\"match\":{\"except\":[\"x\"]}"), true},
	{"{\"a\":5}", KEY("a", "\"match\":{\"except\":[\"x\"]}"), true},
	{"{\"a\":null}", KEY("a", "\"match\":{\"except\":[\"x\"]}"), false},
	{"{\"a\":[]}", KEY("a", "\"match\":{\"except\":[\"x\"]}"), false},
	{"{\"b\":1}", KEY("a", "\"match\":{\"except\":[\"x\"]}"), false},
	{"{\"a\":{\"b\":1}}", KEY("a", "\"match\":{\"except\":[\"x\"]}"), true},
	{"{\"a\":1.0}", KEY("a", "\"match\":{\"except\":[1]}"), true},
	{"{\"a\":\"x\"}", KEY("a", "\"match\":{\"except\":[]}"), true},
	/* words */
	{"{\"a\":\"The good, cheap hardware\"}", KEY("a", "\"match\":{\"text\":\"cheap GOOD\"}"), true},
	{"{\"a\":\"goodness\"}", KEY("a", "\"match\":{\"text\":\"good\"}"), false},
	{"{\"a\":\"good cheap\"}", KEY("a", "\"match\":{\"text\":\"\"}"), false},
	{"{\"a\":\"good\"}", KEY("a", "\"match\":{\"text\":\"cheap good\"}"), false},
	{"{\"a\":\"good\"}", KEY("a", "\"match\":{\"text_any\":\"cheap good\"}"), true},
	{"{\"a\":\"very good cheap\"}", KEY("a", "\"match\":{\"phrase\":\"good cheap\"}"), true},
	{"{\"a\":\"good good cheap\"}", KEY("a", "\"match\":{\"phrase\":\"good cheap\"}"), true},
	{"{\"a\":\"good very cheap\"}", KEY("a", "\"match\":{\"phrase\":\"good cheap\"}"), false},
	{"{\"a\":\"x_y\"}", KEY("a", "\"match\":{\"text\":\"y\"}"), true},
	{"{\"a\":\"\xc3\x89" "COLE\"}", KEY("a", "\"match\":{\"text\":\"\xc3\xa9" "cole\"}"), true},
	{"{\"a\":\"\xce\x9f\xce\x94\xce\x9f\xce\xa3\"}", KEY("a", "\"match\":{\"text\":\"\xce\xbf\xce\xb4\xce\xbf\xcf\x82\"}"), true},
	{"{\"a\":\"\xe4\xb8\xad\xe6\x96\x87\xe3\x80\x82\xe5\xad\x97\"}", KEY("a", "\"match\":{\"text\":\"\xe5\xad\x97\"}"), true},
	{"{\"a\":5}", KEY("a", "\"match\":{\"text\":\"5\"}"), false},
	{"{\"a\":\"Berlin\"}", KEY("a", "\"match\":{\"prefix\":\"Ber\"}"), true},
	{"{\"a\":\"Berlin\"}", KEY("a", "\"match\":{\"prefix\":\"ber\"}"), false},
	{"{\"a\":\"B\"}", KEY("a", "\"match\":{\"prefix\":\"\"}"), true},
	{"{\"a\":\"ORD20260921AB\"}", KEY("a", "\"match\":{\"substring\":\"20260921\"}"), true},
	/* ranges */
	{"{\"a\":1}", KEY("a", "\"range\":{\"gte\":1,\"lt\":2}"), true},
	{"{\"a\":2}", KEY("a", "\"range\":{\"gte\":1,\"lt\":2}"), false},
	{"{\"a\":1.5}", KEY("a", "\"range\":{\"gt\":1,\"lte\":1.5}"), true},
	{"{\"a\":[0,3]}", KEY("a", "\"range\":{\"gte\":1,\"lt\":2}"), false},
	{"{\"a\":true}", KEY("a", "\"range\":{\"gte\":0}"), false},
	{"{\"a\":\"5\"}", KEY("a", "\"range\":{\"gte\":0}"), false},
	{"{\"a\":18446744073709551615}", KEY("a", "\"range\":{\"gt\":1e19}"), true},
	{"{\"a\":5}", KEY("a", "\"range\":{}"), true},
	{"{\"a\":5}", KEY("a", "\"range\":{\"gt\":null,\"lt\":6}"), true},
	{"{\"a\":\"2024-06-15T12:30:00+02:00\"}", KEY("a", "\"range\":{\"gte\":\"2024-06-15T10:30:00Z\",\"lte\":\"2024-06-15T10:30:00Z\"}"), true},
	{"{\"a\":\"2024-06-15\"}", KEY("a", "\"range\":{\"lt\":\"2024-06-15\"}"), false},
	{"{\"a\":1718447400}", KEY("a", "\"range\":{\"gt\":\"2000-01-01\"}"), false},
	/* geo */
	{"{\"a\":{\"lat\":52.52,\"lon\":13.405}}", KEY("a", "\"geo_radius\":{\"center\":{\"lat\":52.52,\"lon\":13.4},\"radius\":400}"), true},
	{"{\"a\":{\"lat\":52.52,\"lon\":13.405}}", KEY("a", "\"geo_radius\":{\"center\":{\"lat\":52.52,\"lon\":13.4},\"radius\":300}"), false},
	{"{\"a\":[{\"lat\":0,\"lon\":0},{\"lat\":52.52,\"lon\":13.405}]}", KEY("a", "\"geo_bounding_box\":{\"top_left\":{\"lat\":53,\"lon\":13},\"bottom_right\":{\"lat\":52,\"lon\":14}}"), true},
	{"{\"a\":{\"lat\":0,\"lon\":179.5}}", KEY("a", "\"geo_bounding_box\":{\"top_left\":{\"lat\":1,\"lon\":179},\"bottom_right\":{\"lat\":-1,\"lon\":-179}}"), true},
	{"{\"a\":{\"lat\":0,\"lon\":0}}", KEY("a", "\"geo_bounding_box\":{\"top_left\":{\"lat\":1,\"lon\":179},\"bottom_right\":{\"lat\":-1,\"lon\":-179}}"), false},
	{"{\"a\":{\"lat\":1,\"lon\":0}}", KEY("a", "\"geo_bounding_box\":{\"top_left\":{\"lat\":1,\"lon\":-1},\"bottom_right\":{\"lat\":-1,\"lon\":1}}"), false},
	{"{\"a\":{\"lat\":1}}", KEY("a", "\"geo_radius\":{\"center\":{\"lat\":1,\"lon\":0},\"radius\":1e9}"), false},
	{"{\"a\":{\"lat\":1,\"lon\":1}}", KEY("a", "\"geo_polygon\":{\"exterior\":{\"points\":[{\"lat\":0,\"lon\":0},{\"lat\":0,\"lon\":3},{\"lat\":3,\"lon\":0},{\"lat\":0,\"lon\":0}]}}"), true},
	{"{\"a\":{\"lat\":0,\"lon\":1}}", KEY("a", "\"geo_polygon\":{\"exterior\":{\"points\":[{\"lat\":0,\"lon\":0},{\"lat\":0,\"lon\":3},{\"lat\":3,\"lon\":0},{\"lat\":0,\"lon\":0}]}}"), false},
	/* counts, empty, null */
	{"{\"a\":[1,2]}", KEY("a", "\"values_count\":{\"gte\":2}"), true},
	{"{\"a\":[1,\"x\",null]}", KEY("a", "\"values_count\":{\"gt\":2}"), true},
	{"{\"a\":\"x\"}", KEY("a", "\"values_count\":{\"gt\":0,\"lt\":2}"), true},
	{"{}", KEY("a", "\"values_count\":{\"lt\":1}"), true},
	{"{\"a\":null}", KEY("a", "\"values_count\":{\"lt\":1}"), true},
	{"{\"a\":[]}", KEY("a", "\"values_count\":{\"gte\":1}"), false},
	{"{}", IS("is_empty", "a"), true},
	{"{\"a\":null}", IS("is_empty", "a"), true},
	{"{\"a\":[]}", IS("is_empty", "a"), true},
	{"{\"a\":[null]}", IS("is_empty", "a"), false},
	{"{\"a\":\"\"}", IS("is_empty", "a"), false},
	{"{\"a\":[{\"b\":[]},{\"b\":1}]}", IS("is_empty", "a[].b"), false},
	{"{}", IS("is_null", "a"), false},
	{"{\"a\":null}", IS("is_null", "a"), true},
	{"{\"a\":[1,null]}", IS("is_null", "a"), true},
	{"{\"a\":[[null]]}", IS("is_null", "a"), false},
	{"{\"a\":[]}", IS("is_null", "a"), false},
	{"{\"a\":1}", KEY("a", "\"is_empty\":false"), true},
	{"{\"a\":1}", KEY("a", "\"is_null\":true"), false},
	/* paths */
	{"{\"a\":{\"b\":[{\"c\":1},{\"c\":2}]}}", KEY("a.b[].c", "\"match\":{\"value\":2}"), true},
	{"{\"a\":{\"b\":[{\"c\":1},{\"c\":2}]}}", KEY("a.b[0].c", "\"match\":{\"value\":2}"), false},
	{"{\"a\":{\"b\":[{\"c\":1}]}}", KEY("a.b.c", "\"match\":{\"value\":1}"), false},
	{"{\"a\":[5,6,7]}", KEY("a[1]", "\"match\":{\"value\":6}"), true},
	{"{\"a\":[[5],[6,7]]}", KEY("a[]", "\"match\":{\"value\":7}"), true},
	{"{\"a.b\":1}", KEY("\\\"a.b\\\"", "\"match\":{\"value\":1}"), true},
	/* nested */
	{"{\"a\":[{\"x\":1,\"y\":2},{\"x\":3,\"y\":4}]}", "{\"must\":[{\"nested\":{\"key\":\"a\",\"filter\":{\"must\":[{\"key\":\"x\",\"match\":{\"value\":1}},{\"key\":\"y\",\"match\":{\"value\":4}}]}}}]}", false},
	{"{\"a\":[{\"x\":1,\"y\":2},{\"x\":3,\"y\":4}]}", "{\"must\":[{\"nested\":{\"key\":\"a[]\",\"filter\":{\"must\":[{\"key\":\"x\",\"match\":{\"value\":3}},{\"key\":\"y\",\"match\":{\"value\":4}}]}}}]}", true},
	{"{\"a\":{\"x\":1}}", "{\"must\":[{\"nested\":{\"key\":\"a\",\"filter\":{\"must\":[{\"key\":\"x\",\"match\":{\"value\":1}}]}}}]}", false},
	{"{\"a\":[{\"x\":1}]}", "{\"must\":[{\"nested\":{\"key\":\"a\",\"filter\":{\"must\":[{\"has_id\":[7]}]}}}]}", false},
	/* the point */
	{"{}", "{\"must\":[{\"has_id\":[5,7]}]}", true},
	{"{}", "{\"must_not\":[{\"has_id\":[5,7]}]}", false},
	{"{}", "{\"must\":[{\"has_id\":[]}]}", false},
	{"{}", "{\"must\":[{\"has_vector\":\"\"}]}", true},
	{"{}", "{\"must\":[{\"has_vector\":\"title\"}]}", false},
	/* clauses */
	{"{\"a\":1}", "{}", true},
	{"{\"a\":1}", "{\"must\":[],\"should\":[],\"must_not\":[]}", true},
	{"{\"a\":1}", "{\"must\":null,\"should\":null}", true},
	{"{\"a\":1}", "{\"must\":{\"key\":\"a\",\"match\":{\"value\":1}}}", true},
	{"{\"a\":1}", "{\"should\":[{\"key\":\"a\",\"match\":{\"value\":2}},{\"key\":\"a\",\"match\":{\"value\":1}}]}", true},
	{"{\"a\":1}", "{\"should\":[{\"key\":\"a\",\"match\":{\"value\":2}}]}", false},
	{"{\"a\":1}", "{\"must\":[{\"should\":[{\"must_not\":[{\"key\":\"a\",\"match\":{\"value\":2}}]}]}]}", true},
	{"{\"a\":1}", "{\"must\":[{}]}", true},
	{"{\"a\":[1,2]}", "{\"min_should\":{\"min_count\":2,\"conditions\":[{\"key\":\"a\",\"match\":{\"value\":1}},{\"key\":\"a\",\"match\":{\"value\":9}},{\"key\":\"a\",\"match\":{\"value\":2}}]}}", true},
	{"{\"a\":[1,2]}", "{\"min_should\":{\"min_count\":3,\"conditions\":[{\"key\":\"a\",\"match\":{\"value\":1}},{\"key\":\"a\",\"match\":{\"value\":9}},{\"key\":\"a\",\"match\":{\"value\":2}}]}}", false},
	{"{\"a\":1}", "{\"min_should\":{\"min_count\":1,\"conditions\":[]}}", false},
	/* several tests on one key: one will do */
	{"{\"a\":5}", KEY("a", "\"match\":{\"value\":1},\"range\":{\"gt\":4}"), true},
};

static bool has_unnamed(void *arg, struct vk_bytes name)
{
	(void)arg;
	return name.n == 0;
}

static struct vk_filter *parse_filter(struct vk_arena *a, const char *text, struct vk_json **doc)
{
	struct vk_error err = {0};
	struct vk_filter *f;
	assert_int_equal(vk_json_parse(a, vk_bytes_of(text), NULL, doc, &err), VK_OK);
	if (vk_filter_parse(a, vk_json_root(*doc), &f, &err)) fail_msg("%s: %s", text, err.text);
	return f;
}

static void test_filter_cases_by_hand_hold(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct vk_arena a;
		struct vk_json *payload, *doc;
		uint8_t id[9];
		vk_arena_init(&a, 1 << 24);
		vk_id_u64(id, 7);
		struct vk_filter *f = parse_filter(&a, cases[i].filter, &doc);
		vk_json_free(doc); /* the filter must not need it */
		assert_int_equal(vk_json_parse(&a, vk_bytes_of(cases[i].payload), NULL, &payload, NULL), VK_OK);
		struct vk_filter_point p = {.id = {(char *)id, 9}, .payload = vk_json_root(payload), .has_vector = has_unnamed};
		if (vk_filter_match(f, &p) != cases[i].want)
			fail_msg("%s on %s: not %s", cases[i].filter, cases[i].payload, cases[i].want ? "true" : "false");
		vk_json_free(payload);
		vk_arena_free(&a);
	}
}

static const struct {
	const char *filter, *says;
} refusals[] = {
	{"[]", "filter: invalid type"},
	{"{\"mst\":[]}", "filter: expected must, should, must_not, min_should or a condition, found unknown field `mst`"},
	{"{\"must\":5}", "filter.must: invalid type"},
	{"{\"must\":[5]}", "filter.must: invalid type"},
	{"{\"must\":[[1]]}", "filter.must[0]: invalid type"},
	{"{\"must\":[1,2]}", "filter.must: invalid type"},
	{"{\"must\":[{\"key\":\"a\"}]}", "filter.must[0]: At least one field condition must be specified"},
	{"{\"must\":[{\"key\":\"a\",\"mtch\":{\"value\":1}}]}", "filter.must[0]: unknown condition `mtch`"},
	{"{\"must\":[{\"match\":{\"value\":1}}]}", "filter.must[0]: missing field `key`"},
	{"{\"must\":[{\"key\":5,\"match\":{\"value\":1}}]}", "filter.must[0].key: invalid type"},
	{"{\"must\":[{\"key\":\"a[\",\"match\":{\"value\":1}}]}", "filter.must[0].key: Invalid json path"},
	{"{\"must\":[{\"key\":\"a\",\"match\":{\"value\":1.5}}]}", "filter.must[0].match.value: invalid value"},
	{"{\"must\":[{\"key\":\"a\",\"match\":{\"value\":9223372036854775808}}]}", "filter.must[0].match.value: invalid value"},
	{"{\"must\":[{\"key\":\"a\",\"match\":{\"vlue\":1}}]}", "filter.must[0].match: expected one of value"},
	{"{\"must\":[{\"key\":\"a\",\"match\":{}}]}", "filter.must[0].match: expected one of value"},
	{"{\"must\":[{\"key\":\"a\",\"match\":{\"any\":[1,\"x\"]}}]}", "filter.must[0].match.any[1]: strings and integers"},
	{"{\"must\":[{\"key\":\"a\",\"match\":{\"any\":[1,2.5]}}]}", "filter.must[0].match.any[1]: invalid value"},
	{"{\"must\":[{\"key\":\"a\",\"match\":{\"except\":\"x\"}}]}", "filter.must[0].match.except: invalid type"},
	{"{\"must\":[{\"key\":\"a\",\"range\":{\"gt\":true}}]}", "filter.must[0].range.gt: invalid type"},
	{"{\"must\":[{\"key\":\"a\",\"range\":{\"gt\":\"nope\"}}]}", "filter.must[0].range.gt: not a datetime: `nope`"},
	{"{\"must\":[{\"key\":\"a\",\"range\":{\"gt\":\"2024-01-01\",\"lt\":5}}]}", "filter.must[0].range.lt: invalid type"},
	{"{\"must\":[{\"key\":\"a\",\"values_count\":{\"gt\":-1}}]}", "filter.must[0].values_count.gt: invalid value"},
	{"{\"must\":[{\"key\":\"a\",\"geo_radius\":{\"radius\":5}}]}", "filter.must[0].geo_radius.center: expected an object"},
	{"{\"must\":[{\"key\":\"a\",\"geo_radius\":{\"radius\":5,\"center\":{\"lat\":95,\"lon\":1}}}]}", "filter.must[0].geo_radius.center: lat must"},
	{"{\"must\":[{\"key\":\"a\",\"geo_polygon\":{\"exterior\":{\"points\":[]}}}]}", "exterior.points: polygon invalid"},
	{"{\"must\":[{\"has_id\":[\"\\u0001\",{}]}]}", "filter.must[0].has_id[1]: "},
	{"{\"must\":[{\"has_id\":7}]}", "filter.must[0].has_id: invalid type"},
	{"{\"must\":[{\"slice\":{\"total\":2,\"index\":2}}]}", "filter.must[0].slice: `index`"},
	{"{\"must\":[{\"nested\":{\"key\":\"a\"}}]}", "filter.must[0].nested.filter: missing"},
	{"{\"must\":[{\"nested\":{\"filter\":{}}}]}", "filter.must[0].nested: missing field `key`"},
	{"{\"min_should\":{\"conditions\":[],\"min_count\":0}}", "filter.min_should.min_count: value 0 invalid"},
	{"{\"min_should\":{\"min_count\":1}}", "filter.min_should.conditions: missing"},
	{"{\"should\":[{\"must\":[{\"is_null\":{}}]}]}", "filter.should[0].must[0].is_null: missing field `key`"},
};

static void assert_refused(const char *text, size_t n, const char *says)
{
	struct vk_arena a;
	struct vk_json *doc;
	struct vk_error err = {0};
	struct vk_filter *f;
	vk_arena_init(&a, (size_t)1 << 28);
	assert_int_equal(vk_json_parse(&a, (struct vk_bytes){text, n}, NULL, &doc, &err), VK_OK);
	assert_int_equal(vk_filter_parse(&a, vk_json_root(doc), &f, &err), VK_E_INVALID);
	assert_null(f);
	if (!strstr(err.text, says)) fail_msg("%.200s\n  says: %s\n  not:  %s", text, err.text, says);
	vk_json_free(doc);
	vk_arena_free(&a);
}

static void test_filter_bad_ones_are_refused_with_their_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++)
		assert_refused(refusals[i].filter, strlen(refusals[i].filter), refusals[i].says);
}

static void test_filter_past_its_caps_is_refused(void **state)
{
	(void)state;
	struct vk_buf b;
	vk_buf_init(&b, 1 << 24);
	vk_buf_puts(&b, "{\"must\":[{}");
	for (int i = 0; i < VK_FILTER_CONDITIONS_MAX; i++) vk_buf_puts(&b, ",{}");
	vk_buf_puts(&b, "]}");
	assert_refused(b.p, b.n, "too many conditions");
	b.n = 0;
	vk_buf_puts(&b, "{\"must\":[{\"key\":\"a\",\"match\":{\"any\":[0");
	for (int i = 0; i < VK_FILTER_VALUES_MAX; i++) vk_buf_puts(&b, ",1");
	vk_buf_puts(&b, "]}}]}");
	assert_refused(b.p, b.n, "too many values");
	b.n = 0;
	for (int i = 0; i < VK_FILTER_DEPTH_MAX; i++) vk_buf_puts(&b, "{\"must\":");
	vk_buf_puts(&b, "{}");
	for (int i = 0; i < VK_FILTER_DEPTH_MAX; i++) vk_buf_puts(&b, "}");
	assert_refused(b.p, b.n, "nested too deep");
	vk_buf_free(&b);
}

static const struct {
	const char *text;
	int64_t us; /* -1: none */
} times[] = {
	{"1970-01-01", 0}, {"1970-01-01T00:00:01Z", 1000000}, {"2000-02-29T23:59:59.5+00:00", 951868799500000},
	{"2024-06-15 12:30:00+02:00", 1718447400000000}, {"2024-06-15T12:30:00+0200", 1718447400000000},
	{"2024-06-15T12:30:00 +02", 1718447400000000}, {"2024-06-15T10:30:00 UTC", 1718447400000000},
	{"2024-06-15T10:30", 1718447400000000}, {"2024-06-15t10:30:00z", 1718447400000000}, {" 2024-06-15T10:30:00", 1718447400000000},
	{"1969-12-31T23:59:59.999999999Z", 1000000 - 1000001}, {"0001-01-01", -62135596800000000}, {"9999-12-31T23:59:59Z", 253402300799000000},
	{"", -2}, {"2023-02-29", -2}, {"2024-13-01", -2}, {"2024-1-1", -2}, {"2024-06-15 12", -2}, {"2024-06-15T24:00:00", -2},
	{"2024-06-15T10:30Z", -2}, {"2024-06-15T10:30:00.Z", -2}, {"2024-06-15T10:30:00+2", -2}, {"2024-06-15Z", -2},
	{"2024-06-15T10:30:00Zx", -2}, {"2024-06-15T10:30:00+25:00", -2}, {"20240615", -2},
};

static void test_datetime_forms_are_read_or_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
		int64_t us = -2;
		bool ok = vk_datetime_parse(vk_bytes_of(times[i].text), &us);
		if (ok != (times[i].us != -2) || (ok && us != times[i].us))
			fail_msg("%s: %d %lld", times[i].text, ok, (long long)us);
	}
}

/* --- geo: the cover holds every point, and a cell's verdict is no lie --- */

static double between(uint64_t *rng, double low, double high)
{
	return low + (double)(vk_rng(rng) >> 11) / 9007199254740992.0 * (high - low);
}

static void test_geo_cover_and_cells_never_lose_a_point(void **state)
{
	(void)state;
	uint64_t rng = test_seed("geo"), seen[3] = {0};
	for (int round = 0; round < 3000; round++) {
		struct vk_geo g = {.shape = round % 2 ? VK_GEO_RADIUS : VK_GEO_BOX};
		double at_lat = between(&rng, -90, 90), at_lon = between(&rng, -180, 180), size = between(&rng, 0, 1);
		size *= size * size * size;
		g.center = (struct vk_geo_point){at_lat, at_lon};
		g.radius_m = size * 2.1e7;
		g.top_left = (struct vk_geo_point){fmin(90, at_lat + 90 * size), at_lon - 180 * size};
		g.bottom_right = (struct vk_geo_point){fmax(-90, at_lat - 90 * size), at_lon + 180 * size};
		if (g.top_left.lon < -180) g.top_left.lon += 360;
		if (g.bottom_right.lon > 180) g.bottom_right.lon -= 360;
		struct vk_geo_range range[VK_GEO_RANGES_MAX];
		size_t n = vk_geo_cover(&g, range);
		assert_true(n <= VK_GEO_RANGES_MAX);
		for (int i = 0; i < 200; i++) {
			double d = size * between(&rng, 0.9, 1.1) * (i % 2 ? 1 : -1);
			struct vk_geo_point p = {i % 3 ? at_lat + 90 * d : between(&rng, -90, 90),
						 i % 3 == 1 ? at_lon + 180 * between(&rng, -1.1, 1.1) * size : between(&rng, -180, 180)};
			p.lat = fmax(-90, fmin(90, p.lat));
			p.lon = remainder(p.lon, 360);
			struct vk_fv v;
			vk_fv_geo(&v, p.lat, p.lon);
			uint64_t code = vk_get_u64be(v.b);
			enum vk_geo_verdict verdict = vk_geo_cell(&g, code);
			bool holds = vk_geo_holds(&g, p), covered = false;
			for (size_t k = 0; k < n; k++) covered |= code >= range[k].first && code <= range[k].last;
			seen[verdict]++;
			if (holds) assert_true(covered && verdict != VK_GEO_NONE);
			if (!holds) assert_true(verdict != VK_GEO_ALL);
		}
	}
	assert_true(seen[VK_GEO_NONE] > 10000 && seen[VK_GEO_ALL] > 10000);
}

/* --- over collections --- */

#define POINTS 2000
#define FILTERS 1000
#define QUEUE 64

struct queued {
	struct vk_point_in in;
	struct vk_arena arena;
	struct vk_json *doc;
	char *text;
	uint8_t key[9];
	bool deletes;
};

struct world {
	struct temp dir;
	struct vk_kv_writers *writers;
	struct vk_collection *c[3]; /* all, some, no indexes */
	char *payload[POINTS + 1];  /* by id; NULL: not there. What the collections must hold */
	bool title[POINTS + 1];
	struct queued queue[QUEUE];
	size_t queue_n, live_n;
};

static void config_text(struct vk_buf *b, int which)
{
	vk_buf_puts(b, "{\"vectors\":{\"\":{\"size\":2,\"distance\":\"Dot\",\"veckeep\":{\"set\":1,\"space\":null,\"raw\":true}},"
		       "\"title\":{\"size\":2,\"distance\":\"Dot\",\"veckeep\":{\"set\":2,\"space\":null,\"raw\":true}}},"
		       "\"params\":{},\"indexes\":{");
	for (size_t i = 0, n = 0; i < GEN_FIELDS; i++) {
		if (which == 2 || (which == 1 && i % 3 == 0)) continue;
		vk_buf_printf(b, "%s\"%s\":{\"field\":%zu,\"type\":\"%s\",\"params\":null,\"state\":\"ready\"}", n++ ? "," : "",
			      gen_fields[i].path, i + 1, gen_fields[i].type);
	}
	vk_buf_puts(b, "},\"veckeep\":{\"next_set\":3,\"next_field\":100,\"pool\":\"default\"}}");
}

static void open_collection(struct world *w, int which)
{
	char path[300];
	struct vk_buf config;
	struct vk_error err = {0};
	struct vk_collection_opts o = {.writers = w->writers, .map_bytes = 1 << 28};
	vk_buf_init(&config, 1 << 16);
	config_text(&config, which);
	snprintf(path, sizeof path, "%s/%d", w->dir.path, which);
	if (vk_collection_open(path, vk_buf_bytes(&config), &o, &w->c[which], &err)) fail_msg("%s", err.text);
	vk_buf_free(&config);
}

/* What is queued, to each collection in one commit. */
static void flush(struct world *w)
{
	static const float row[2] = {1, 2};
	for (int i = 0; i < 3 && w->queue_n; i++) {
		struct vk_colconf *conf = vk_collection_config(w->c[i]);
		struct vk_vec vec[2] = {{.conf = vk_colconf_vector(conf, VK_LIT("")), .row = row},
					{.conf = vk_colconf_vector(conf, VK_LIT("title")), .row = row}};
		struct vk_op_in op[QUEUE];
		memset(op, 0, sizeof op);
		for (size_t k = 0; k < w->queue_n; k++) {
			struct queued *q = &w->queue[k];
			q->in.id = (struct vk_bytes){(char *)q->key, 9};
			q->in.vec = vec;
			op[k] = (struct vk_op_in){.kind = q->deletes ? VK_OP_DELETE : VK_OP_UPSERT, .point = &q->in, .point_n = 1,
						  .ids = &q->in.id, .ids_n = 1};
		}
		struct vk_write write = {.op = op, .op_n = w->queue_n, .conf = conf, .now_ms = 1000};
		if (vk_collection_write_wait(w->c[i], &write)) fail_msg("write: %s", write.err.text);
		vk_colconf_unref(conf);
	}
	for (size_t k = 0; k < w->queue_n; k++) {
		vk_json_free(w->queue[k].doc);
		free(w->queue[k].text);
		vk_arena_free(&w->queue[k].arena);
	}
	w->queue_n = 0;
}

/* Puts or deletes one point in each collection and in the model. */
static void write_point(struct world *w, uint64_t id, const char *payload, bool title)
{
	struct queued *q = &w->queue[w->queue_n++];
	*q = (struct queued){.deletes = !payload, .in = {.vec_n = title ? 2 : 1}};
	vk_arena_init(&q->arena, 1 << 24);
	vk_id_u64(q->key, id);
	if (payload && strcmp(payload, "{}")) {
		q->text = strdup(payload);
		assert_int_equal(vk_json_parse(&q->arena, vk_bytes_of(q->text), NULL, &q->doc, NULL), VK_OK);
		q->in.payload = vk_bytes_of(q->text);
		q->in.payload_jv = vk_json_root(q->doc);
	}
	free(w->payload[id]);
	w->payload[id] = payload ? strdup(payload) : NULL;
	w->title[id] = payload && title;
	if (w->queue_n == QUEUE) flush(w);
}

static void write_random(struct world *w, uint64_t id, uint64_t *rng)
{
	struct vk_buf b;
	vk_buf_init(&b, 1 << 20);
	gen_payload(&b, rng);
	if (gen_below(rng, 20) == 0) b.n = 0, vk_buf_puts(&b, "{}");
	write_point(w, id, vk_buf_cstr(&b), gen_below(rng, 2));
	vk_buf_free(&b);
}

static void world_make(struct world *w, uint64_t *rng)
{
	memset(w, 0, sizeof *w);
	temp_make(&w->dir);
	assert_int_equal(vk_kv_writers_new(2, &w->writers), VK_OK);
	for (int i = 0; i < 3; i++) open_collection(w, i);
	for (uint64_t id = 1; id <= POINTS; id++) write_random(w, id, rng);
	for (int i = 0; i < POINTS / 4; i++) write_random(w, 1 + gen_below(rng, POINTS), rng);
	for (int i = 0; i < POINTS / 8; i++) write_point(w, 1 + gen_below(rng, POINTS), NULL, false);
	flush(w);
	for (size_t id = 1; id <= POINTS; id++) w->live_n += w->payload[id] != NULL;
}

static void world_free(struct world *w)
{
	for (int i = 0; i < 3; i++) vk_collection_unref(w->c[i]);
	vk_kv_writers_free(w->writers);
	for (size_t i = 0; i <= POINTS; i++) free(w->payload[i]);
	temp_free(&w->dir);
}

static bool model_has(void *arg, struct vk_bytes name)
{
	return name.n == 0 || (vk_bytes_is(name, "title") && *(bool *)arg);
}

struct truth {
	bool matches[POINTS + 1];
	uint64_t n;
};

static void model_answer(struct world *w, struct vk_json **docs, const struct vk_filter *f, struct truth *t)
{
	memset(t, 0, sizeof *t);
	for (size_t id = 1; id <= POINTS; id++) {
		uint8_t key[9];
		if (!w->payload[id]) continue;
		vk_id_u64(key, id);
		struct vk_filter_point p = {.id = {(char *)key, 9}, .payload = vk_json_root(docs[id]), .has_vector = model_has, .arg = &w->title[id]};
		t->matches[id] = vk_filter_match(f, &p);
		t->n += t->matches[id];
	}
}

static void assert_answer(struct vk_view *v, int which, const char *text, const struct vk_filter *f, const struct truth *t)
{
	struct vk_bitmap *b;
	struct vk_error err = {0};
	struct vk_cardinality n;
	if (vk_filter_bitmap(v, f, &b, &err)) fail_msg("%s: %s", text, err.text);
	uint64_t found = 0;
	for (uint64_t id = 1; id <= POINTS; id++) {
		uint8_t key[9];
		uint32_t slot;
		vk_id_u64(key, id);
		enum vk_status st = vk_view_slot(v, (struct vk_bytes){(char *)key, 9}, &slot);
		bool in = !st && vk_bitmap_has(b, slot);
		if (in != t->matches[id]) fail_msg("indexes %d, point %d: %d, filter %s", which, (int)id, in, text);
		found += in;
	}
	assert_int_equal(vk_bitmap_count(b), found);
	assert_int_equal(vk_filter_estimate(v, f, &n), VK_OK);
	if (n.min > t->n || n.max < t->n || n.likely < n.min || n.likely > n.max)
		fail_msg("indexes %d: %llu <= %llu (%llu) <= %llu does not hold: %s", which, (unsigned long long)n.min,
			 (unsigned long long)t->n, (unsigned long long)n.likely, (unsigned long long)n.max, text);
	vk_bitmap_free(b);
}

static void test_filter_bitmaps_equal_matches_with_any_indexes(void **state)
{
	(void)state;
	uint64_t rng = test_seed("filter"), some = 0;
	struct world *w = malloc(sizeof *w);
	struct vk_json **docs = calloc(POINTS + 1, sizeof *docs);
	struct vk_arena a;
	struct vk_view view[3];
	static struct truth truth;
	world_make(w, &rng);
	vk_arena_init(&a, (size_t)1 << 30);
	for (size_t id = 1; id <= POINTS; id++)
		if (w->payload[id]) assert_int_equal(vk_json_parse(&a, vk_bytes_of(w->payload[id]), NULL, &docs[id], NULL), VK_OK);
	for (int i = 0; i < 3; i++) assert_int_equal(vk_view_begin(w->c[i], 1000, &view[i]), VK_OK);
	for (int i = 0; i < FILTERS; i++) {
		struct vk_buf b;
		struct vk_arena fa;
		struct vk_json *doc;
		vk_buf_init(&b, 1 << 20);
		vk_arena_init(&fa, 1 << 24);
		gen_filter(&b, &rng, 2);
		struct vk_filter *f = parse_filter(&fa, vk_buf_cstr(&b), &doc);
		model_answer(w, docs, f, &truth);
		some += truth.n > 0 && truth.n < w->live_n;
		for (int k = 0; k < 3; k++) assert_answer(&view[k], k, vk_buf_cstr(&b), f, &truth);
		vk_json_free(doc);
		vk_arena_free(&fa);
		vk_buf_free(&b);
	}
	print_message("%llu of %d filters took some points and left some\n", (unsigned long long)some, FILTERS);
	assert_true(some > FILTERS / 3); /* else the generator asks nothing */
	for (int i = 0; i < 3; i++) vk_view_end(&view[i]);
	for (size_t id = 1; id <= POINTS; id++) vk_json_free(docs[id]);
	vk_arena_free(&a);
	free(docs);
	world_free(w);
	free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filter_cases_by_hand_hold),
		cmocka_unit_test(test_filter_bad_ones_are_refused_with_their_place),
		cmocka_unit_test(test_filter_past_its_caps_is_refused),
		cmocka_unit_test(test_datetime_forms_are_read_or_refused),
		cmocka_unit_test(test_geo_cover_and_cells_never_lose_a_point),
		cmocka_unit_test(test_filter_bitmaps_equal_matches_with_any_indexes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
