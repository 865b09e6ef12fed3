/*
 * Goal: keys of payload indexes sort as their values do, come back as they went, and stay readable.
 * Method: random values of every kind, sorted as values and as bytes; keys of the wrong length refused; the
 * golden file of version 1 read and made again.
 */
#include "tests/store/golden.h"

#include "store/record_field.h"

static int compare_keys(const struct vk_field_key *a, const struct vk_field_key *b)
{
	int c = memcmp(a->b, b->b, a->n < b->n ? a->n : b->n);
	return c ? c : (a->n > b->n) - (a->n < b->n);
}

static struct vk_field_key key_with(const struct vk_fv *v, uint16_t chunk)
{
	struct vk_field_key k;
	vk_field_key_make(&k, 3, v->kind, vk_fv_bytes(v), chunk);
	return k;
}

static void test_field_numbers_sort_as_their_keys(void **state)
{
	(void)state;
	uint64_t rng = test_seed("numbers");
	static const double edge[] = {
	    0, -0.0, 1, -1, 5e-324, -5e-324, 1.7976931348623157e308, -1.7976931348623157e308};
	for (int i = 0; i < 200000; i++) {
		struct vk_fv a, b;
		int64_t x = (int64_t)vk_rng(&rng) >> vk_rng(&rng) % 64,
			y = (int64_t)vk_rng(&rng) >> vk_rng(&rng) % 64;
		vk_fv_i64(&a, x);
		vk_fv_i64(&b, y);
		struct vk_field_key ka = key_with(&a, 9), kb = key_with(&b, 9);
		assert_int_equal(compare_keys(&ka, &kb) < 0, x < y);
		assert_true(vk_fv_read_i64(vk_fv_bytes(&a)) == x);
		double d = i < 64 ? edge[i % 8] : (double)x / 7, e = i < 64 ? edge[i / 8] : (double)y * 1e-5;
		vk_fv_f64(&a, d);
		vk_fv_f64(&b, e);
		ka = key_with(&a, 9), kb = key_with(&b, 9);
		assert_int_equal(compare_keys(&ka, &kb) < 0, d < e);
		assert_int_equal(compare_keys(&ka, &kb) == 0, d == e); /* 0 and -0 are one value */
		assert_true(vk_fv_read_f64(vk_fv_bytes(&a)) == d);
	}
}

/* No keyword's chunks lie among another's, however keywords and chunks are chosen. */
static void test_field_keywords_keep_their_chunks_together(void **state)
{
	(void)state;
	uint64_t rng = test_seed("keywords");
	for (int i = 0; i < 100000; i++) {
		char text[2][8];
		struct vk_bytes s[2];
		struct vk_fv v[2];
		for (int k = 0; k < 2; k++) {
			s[k] = (struct vk_bytes){text[k], vk_rng(&rng) % 6};
			for (size_t j = 0; j < s[k].n; j++) text[k][j] = (char)(1 + vk_rng(&rng) % 3);
			vk_fv_keyword(&v[k], s[k]);
			assert_true(vk_bytes_eq(vk_fv_read_keyword(vk_fv_bytes(&v[k])), s[k]));
		}
		struct vk_field_key x = key_with(&v[0], (uint16_t)vk_rng(&rng)),
				    y = key_with(&v[1], (uint16_t)vk_rng(&rng));
		if (vk_bytes_eq(s[0], s[1])) continue;
		size_t n = s[0].n < s[1].n ? s[0].n : s[1].n;
		int c = memcmp(text[0], text[1], n);
		bool less = c < 0 || (c == 0 && s[0].n < s[1].n);
		assert_int_equal(compare_keys(&x, &y) < 0, less);
	}
}

static void test_field_long_keywords_go_by_hash(void **state)
{
	(void)state;
	char text[VK_FV_KEYWORD_MAX + 1];
	struct vk_fv v, w;
	memset(text, 'x', sizeof text);
	vk_fv_keyword(&v, (struct vk_bytes){text, VK_FV_KEYWORD_MAX});
	assert_true(v.kind == VK_FK_KEYWORD && v.n == VK_FV_KEYWORD_MAX + 1);
	vk_fv_keyword(&v, (struct vk_bytes){text, sizeof text});
	assert_true(v.kind == VK_FK_KEYWORD_HASH && v.n == 16);
	text[100] = 'y';
	vk_fv_keyword(&w, (struct vk_bytes){text, sizeof text});
	assert_memory_not_equal(v.b, w.b, 16);
}

static void test_field_places_come_back_to_their_cell(void **state)
{
	(void)state;
	uint64_t rng = test_seed("places");
	for (int i = 0; i < 100000; i++) {
		double lat = (double)(vk_rng(&rng) % 180000001) / 1e6 - 90,
		       lon = (double)(vk_rng(&rng) % 360000001) / 1e6 - 180;
		struct vk_fv v;
		uint32_t y, x;
		vk_fv_geo(&v, lat, lon);
		vk_geo_unmorton(vk_get_u64be(v.b), &y, &x);
		assert_true(y == vk_geo_lat_cell(lat) && x == vk_geo_lon_cell(lon));
		assert_true(vk_geo_morton(y, x) == vk_get_u64be(v.b));
		assert_true(fabs((y + 0.5) / VK_GEO_CELLS * 180 - 90 - lat) < 1e-7 &&
			    fabs((x + 0.5) / VK_GEO_CELLS * 360 - 180 - lon) < 1e-7);
	}
	assert_true(vk_geo_lat_cell(90) == UINT32_MAX && vk_geo_lon_cell(180) == UINT32_MAX);
	assert_true(vk_geo_lat_cell(-90) == 0 && vk_geo_lon_cell(-180) == 0);
}

static void test_field_keys_of_wrong_length_are_refused(void **state)
{
	(void)state;
	uint64_t rng = test_seed("lengths");
	struct vk_field_key_parts parts;
	for (int i = 0; i < 200000; i++) {
		uint8_t b[40];
		size_t n = vk_rng(&rng) % sizeof b;
		for (size_t k = 0; k < n; k++) b[k] = (uint8_t)(vk_rng(&rng) % 4 ? vk_rng(&rng) : 0);
		if (n > 2) b[2] = (uint8_t)(vk_rng(&rng) % 25);
		if (!vk_field_key_read((struct vk_bytes){(char *)b, n}, &parts)) continue;
		struct vk_field_key again; /* what is accepted is exactly what would be made */
		vk_field_key_make(&again, parts.field, parts.kind, parts.value, parts.chunk);
		assert_true(again.n == n && memcmp(again.b, b, n) == 0);
	}
	assert_false(vk_field_key_read((struct vk_bytes){"\0\1\22\0\0\0\0\0\0\0\0\0", 12},
				       &parts)); /* 7 bytes of an i64 */
	assert_false(
	    vk_field_key_read((struct vk_bytes){"\0\1\20ab\0\0", 7}, &parts)); /* a keyword without its end */
}

/* One key of each kind, each behind its length. */
static size_t make_golden(uint8_t *dst)
{
	static const uint8_t uuid[16] = {0x55, 0x0e, 0x84, 0,	 0xe2, 0x9b, 0x41, 0xd4,
					 0xa7, 0x16, 0x44, 0x66, 0x55, 0x44, 0,	   0};
	struct vk_fv v[12];
	struct vk_field_key k;
	char longer[VK_FV_KEYWORD_MAX + 1];
	size_t n = 0;
	memset(v, 0, sizeof v);
	memset(longer, 'q', sizeof longer);
	v[0].kind = VK_FK_LIVE;
	v[1].kind = VK_FK_MULTI;
	v[2].kind = VK_FK_SET;
	v[2].n = 4;
	vk_put_u32be(v[2].b, 0x01020304);
	vk_fv_keyword(&v[3], VK_LIT("Łódź"));
	vk_fv_keyword(&v[4], (struct vk_bytes){longer, sizeof longer});
	vk_fv_i64(&v[5], -2);
	vk_fv_i64(&v[6], 1718447400000000);
	vk_fv_f64(&v[7], -0.75);
	vk_fv_f64(&v[8], 3e200);
	vk_fv_bool(&v[9], true);
	vk_fv_uuid(&v[10], uuid);
	vk_fv_geo(&v[11], 52.52, 13.405);
	for (int i = 0; i < 12; i++) {
		vk_field_key_make(&k, (uint16_t)(i < 3 ? 0 : 0x0102), v[i].kind, vk_fv_bytes(&v[i]),
				  (uint16_t)(0xfe00 + i));
		dst[n++] = (uint8_t)k.n;
		memcpy(dst + n, k.b, k.n);
		n += k.n;
	}
	return n;
}

static void test_field_golden_keys_stay(void **state)
{
	(void)state;
	uint8_t made[4096], kept[4096];
	struct vk_field_key_parts parts;
	size_t n = make_golden(made);
	golden_check("field_keys", made, n);
	golden_read("field_keys", kept, sizeof kept);
	for (size_t at = 0, i = 0; at < n; at += 1u + kept[at], i++) {
		assert_true(vk_field_key_read((struct vk_bytes){(char *)kept + at + 1, kept[at]}, &parts));
		assert_int_equal(parts.chunk, 0xfe00 + i);
		if (parts.kind == VK_FK_KEYWORD)
			assert_true(vk_bytes_is(vk_fv_read_keyword(parts.value), "Łódź"));
		if (i == 6) assert_true(vk_fv_read_i64(parts.value) == 1718447400000000);
		if (i == 7) assert_true(vk_fv_read_f64(parts.value) == -0.75);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_field_numbers_sort_as_their_keys),
	    cmocka_unit_test(test_field_keywords_keep_their_chunks_together),
	    cmocka_unit_test(test_field_long_keywords_go_by_hash),
	    cmocka_unit_test(test_field_places_come_back_to_their_cell),
	    cmocka_unit_test(test_field_keys_of_wrong_length_are_refused),
	    cmocka_unit_test(test_field_golden_keys_stay),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
