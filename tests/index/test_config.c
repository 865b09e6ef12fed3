/*
 * Goal: a collection's config is read whole, and refused where it cannot be honoured.
 * Method: one full config read back field by field; then the same text with one thing changed, each refused (or each taken).
 */
#include "tests/store/util.h"

#include "index/config.h"

static const char full[] =
    "{\"vectors\":{\"\":{\"size\":4,\"distance\":\"Cosine\",\"datatype\":\"float32\",\"quantization_config\":null,"
    "\"veckeep\":{\"set\":1,\"space\":\"openai/x@1\",\"raw\":true}},"
    "\"title\":{\"size\":8,\"distance\":\"Euclid\",\"datatype\":\"uint8\",\"quantization_config\":{\"binary\":{}},"
    "\"veckeep\":{\"set\":2,\"space\":null,\"raw\":false}}},"
    "\"quantization_config\":{\"scalar\":{\"type\":\"int8\"}},\"metadata\":{\"any\":[1,\"x\"]},"
    "\"indexes\":{\"city\":{\"field\":1,\"type\":\"keyword\",\"params\":null,\"state\":\"ready\"},"
    "\"n.m\":{\"field\":2,\"type\":\"integer\",\"params\":{\"lookup\":false,\"range\":true},\"state\":\"building\"}},"
    "\"veckeep\":{\"text_from\":\"text\",\"provenance\":\"require\",\"ttl\":{\"field\":\"at\",\"after_ms\":500},"
    "\"next_set\":3,\"next_field\":3,\"pool\":\"team\"}}";

static void test_config_reads_everything(void **state)
{
	(void)state;
	struct vk_colconf *c;
	struct vk_error err;
	if (vk_colconf_parse(vk_bytes_of(full), &c, &err)) fail_msg("%s", err.text);
	assert_int_equal(c->vectors_n, 2);
	assert_false(c->single);
	const struct vk_vector_conf *v = vk_colconf_vector(c, (struct vk_bytes){0});
	assert_non_null(v);
	assert_int_equal(v->set.id, 1);
	assert_int_equal(v->set.dims, 4);
	assert_int_equal(v->set.metric, VK_METRIC_COSINE);
	assert_int_equal(v->set.dtype, VK_DTYPE_F32);
	assert_int_equal(v->set.quant, VK_QUANT_SCALAR); /* the collection's */
	assert_string_equal(v->space, "openai/x@1");
	assert_true(v->raw);
	v = vk_colconf_vector(c, VK_LIT("title"));
	assert_non_null(v);
	assert_int_equal(v->set.metric, VK_METRIC_L2);
	assert_int_equal(v->set.dtype, VK_DTYPE_U8);
	assert_int_equal(v->set.quant, VK_QUANT_BINARY);
	assert_null(v->space);
	assert_null(vk_colconf_vector(c, VK_LIT("titl")));
	const struct vk_field_conf *f = vk_colconf_field(c, VK_LIT("n.m"));
	assert_non_null(f);
	assert_true(f->field == 2 && f->type == VK_FIELD_INTEGER && !f->ready && !f->lookup && f->range);
	f = vk_colconf_field(c, VK_LIT("city"));
	assert_true(f && f->ready && f->lookup && f->range);
	assert_string_equal(c->text_from, "text");
	assert_int_equal(c->provenance, VK_PROVENANCE_REQUIRE);
	assert_string_equal(c->ttl_field, "at");
	assert_int_equal(c->ttl_after_ms, 500);
	assert_string_equal(c->pool, "team");
	assert_true(c->next_set == 3 && c->next_field == 3);
	assert_true(vk_bytes_is(c->text, full));
	vk_colconf_unref(vk_colconf_ref(c));
	vk_colconf_unref(c);
}

/* full with the first `from` replaced by `to`. */
static enum vk_status parse_with(const char *from, const char *to)
{
	char text[4096];
	const char *at = strstr(full, from);
	struct vk_colconf *c;
	struct vk_error err = {0};
	if (!at) fail_msg("no %s", from);
	snprintf(text, sizeof text, "%.*s%s%s", (int)(at - full), full, to, at + strlen(from));
	enum vk_status st = vk_colconf_parse(vk_bytes_of(text), &c, &err);
	assert_true(st ? !c && err.text[0] : c != NULL);
	vk_colconf_unref(c);
	return st;
}

static void test_config_refuses_what_it_cannot_honour(void **state)
{
	(void)state;
	static const char *const bad[][2] = {
	    {"\"size\":4", "\"size\":0"}, {"\"size\":4", "\"size\":70000"}, {"\"size\":4", "\"size\":\"4\""},
	    {"Cosine", "cosine"}, {"float32", "float64"}, {"\"set\":2", "\"set\":1"}, {"\"set\":2", "\"set\":3"},
	    {"\"set\":1", "\"set\":0"}, {"keyword", "word"}, {"ready", "done"}, {"\"field\":2", "\"field\":1"},
	    {"\"field\":2", "\"field\":3"}, {"\"n.m\"", "\"n..m\""}, {"\"lookup\":false", "\"lookup\":1"}, {"require", "maybe"},
	    {"\"field\":\"at\"", "\"field\":7"}, {"\"field\":\"at\"", "\"field\":\"a b\""}, {"\"after_ms\":500", "\"after_ms\":1.5"},
	    {"\"next_set\":3", "\"next_set\":2"}, {"\"next_field\":3", "\"next_field\":70000"}, {"\"raw\":true", "\"raw\":1"},
	    {"\"vectors\":{", "\"vectors\":[],\"v\":{"}, {"\"indexes\":{", "\"indexes\":[],\"v\":{"}, {"{\"vectors\"", "[\"vectors\""},
	};
	static const char *const good[][2] = {
	    {"\"after_ms\":500", "\"after_ms\":-500"}, {"{\"field\":\"at\",\"after_ms\":500}", "null"}, {"\"text\"", "null"},
	    {",\"pool\":\"team\"", ""}, {"{\"binary\":{}}", "{\"product\":{}}"}, {"Cosine", "Manhattan"}, {"uint8", "float16"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (parse_with(bad[i][0], bad[i][1]) != VK_E_INVALID) fail_msg("%s was taken", bad[i][1]);
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		if (parse_with(good[i][0], good[i][1])) fail_msg("%s was refused", good[i][1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_config_reads_everything),
	    cmocka_unit_test(test_config_refuses_what_it_cannot_honour),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
