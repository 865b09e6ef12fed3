/*
 * Goal: ids of all three kinds read, print, sort and refuse as the header says.
 * Method: tables by hand; random u64 and UUIDs through read(print(x)); keys of random pairs compared with their numbers.
 */
#include "tests/store/util.h"

#include "index/id.h"

static enum vk_status read_json(struct vk_arena *a, const char *json, struct vk_bytes *key)
{
	struct vk_json *doc;
	struct vk_error err;
	assert_int_equal(vk_json_parse(a, vk_bytes_of(json), NULL, &doc, &err), VK_OK);
	enum vk_status st = vk_id_read(a, vk_json_root(doc), key, &err);
	vk_json_free(doc);
	return st;
}

static void test_id_reads_and_prints_each_kind(void **state)
{
	(void)state;
	static const struct {
		const char *json, *want;
	} t[] = {
	    {"0", "0"},
	    {"18446744073709551615", "18446744073709551615"},
	    {"\"7\"", "\"7\""}, /* a string stays one */
	    {"\"550E8400-e29b-41d4-a716-446655440000\"", "\"550e8400-e29b-41d4-a716-446655440000\""},
	    {"\"550e8400e29b41d4a716446655440000\"", "\"550e8400-e29b-41d4-a716-446655440000\""},
	    {"\"urn:uuid:550e8400-e29b-41d4-a716-446655440000\"", "\"550e8400-e29b-41d4-a716-446655440000\""},
	    {"\"{550e8400-e29b-41d4-a716-446655440000}\"", "\"550e8400-e29b-41d4-a716-446655440000\""},
	    {"\"doc/1\"", "\"doc/1\""},
	    {"\"550e8400-e29b-41d4-a716-44665544000g\"", "\"550e8400-e29b-41d4-a716-44665544000g\""},
	};
	static const char *const bad[] = {"-1", "1.0", "1e3", "18446744073709551616", "null", "true", "[1]", "{}", "\"\""};
	struct vk_arena a;
	struct vk_bytes key;
	vk_arena_init(&a, 1 << 20);
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct vk_buf b;
		struct vk_jw w;
		vk_buf_init(&b, 4096);
		vk_jw_init(&w, &b);
		assert_int_equal(read_json(&a, t[i].json, &key), VK_OK);
		assert_true(vk_id_valid(key));
		vk_id_write(&w, key);
		assert_string_equal(vk_buf_cstr(&b), t[i].want);
		vk_buf_free(&b);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(read_json(&a, bad[i], &key), VK_E_INVALID);
	char longest[VK_ID_TEXT_MAX + 4] = "\"";
	memset(longest + 1, 'x', VK_ID_TEXT_MAX);
	strcpy(longest + 1 + VK_ID_TEXT_MAX, "\"");
	assert_int_equal(read_json(&a, longest, &key), VK_OK);
	assert_int_equal(key.n, VK_ID_KEY_MAX);
	strcpy(longest + 1 + VK_ID_TEXT_MAX, "x");
	assert_int_equal(vk_id_from_text(&a, vk_bytes_of(longest + 1), &key, NULL), VK_E_INVALID);
	vk_arena_free(&a);
}

static void test_id_from_url_reads_digits_as_numbers(void **state)
{
	(void)state;
	struct vk_arena a;
	struct vk_bytes key;
	vk_arena_init(&a, 1 << 20);
	assert_int_equal(vk_id_from_text(&a, VK_LIT("42"), &key, NULL), VK_OK);
	assert_true(key.n == 9 && key.p[0] == 1 && vk_get_u64be((const uint8_t *)key.p + 1) == 42);
	assert_int_equal(vk_id_from_text(&a, VK_LIT("99999999999999999999"), &key, NULL), VK_OK);
	assert_int_equal(key.p[0], 3);
	assert_int_equal(vk_id_from_text(&a, VK_LIT("4x"), &key, NULL), VK_OK);
	assert_int_equal(key.p[0], 3);
	assert_int_equal(vk_id_from_text(&a, VK_LIT(""), &key, NULL), VK_E_INVALID);
	vk_arena_free(&a);
}

static void test_id_random_keys_sort_as_their_values(void **state)
{
	(void)state;
	uint64_t rng = test_seed("id_order");
	for (int i = 0; i < 20000; i++) {
		uint8_t x[9], y[9], uuid[16], back[16];
		uint64_t a = vk_rng(&rng) >> (vk_rng(&rng) % 64), b = vk_rng(&rng) >> (vk_rng(&rng) % 64);
		vk_id_u64(x, a);
		vk_id_u64(y, b);
		int c = vk_id_compare((struct vk_bytes){(char *)x, 9}, (struct vk_bytes){(char *)y, 9});
		assert_int_equal((c > 0) - (c < 0), (a > b) - (a < b));
		char text[37];
		for (int k = 0; k < 16; k++) uuid[k] = (uint8_t)vk_rng(&rng);
		vk_uuid_print(text, uuid);
		assert_true(vk_uuid_parse(vk_bytes_of(text), back));
		assert_memory_equal(uuid, back, 16);
		text[vk_rng(&rng) % 36] = 'g';
		assert_false(vk_uuid_parse(vk_bytes_of(text), back));
	}
	assert_true(vk_id_compare(VK_LIT("\3a"), VK_LIT("\3ab")) < 0);
	assert_int_equal(vk_id_compare(VK_LIT("\3a"), VK_LIT("\3a")), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_id_reads_and_prints_each_kind),
	    cmocka_unit_test(test_id_from_url_reads_digits_as_numbers),
	    cmocka_unit_test(test_id_random_keys_sort_as_their_values),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
