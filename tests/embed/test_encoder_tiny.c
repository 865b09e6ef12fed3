/*
 * Goal: what the real model cannot show: every pooling, odd head sizes, F16 and BF16 weights,
 * nested tensor names, the directory's options, and a refusal by name for what is not done.
 * Method: a random BERT of a few kilobytes in a temporary directory; the oracle is the network
 * once more in double (tiny_model.h). The seed is printed and can be set (VECKEEP_TEST_SEED).
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "embed/encoder.h"
#include "tests/embed/tiny_model.h"

static uint64_t seed;

static const struct tiny_shape small = {20, 4, 40, 2, TINY_F32, ""};

static struct vk_encoder *open_good(const struct tiny *m)
{
	struct vk_encoder *e;
	struct vk_error err;
	if (vk_encoder_open(m->dir, &e, &err)) fail_msg("%s", err.text);
	return e;
}

static void run(const struct vk_encoder *e, struct vk_pool *pool, struct vk_encoder_text *t,
		size_t n, float *rows)
{
	struct vk_error err;
	if (vk_encoder_run(e, pool, t, n, rows, &err)) fail_msg("%s", err.text);
}

/* "ab.c" is [CLS] a ##b . c [SEP]. */
static const struct vk_bytes abc = {"ab.c", 4};
static const uint32_t abc_ids[] = {2, 5, 9, 11, 7, 3};
#define ABC_N 6

static void expect_mean(const struct tiny *m, struct vk_pool *pool, double within)
{
	size_t h = m->shape.hidden;
	struct vk_encoder *e = open_good(m);
	struct vk_encoder_text t = {.text = abc};
	float *row = malloc(h * sizeof *row);
	double *x = tiny_states(m, abc_ids, ABC_N);
	run(e, pool, &t, 1, row);
	assert_int_equal(t.tokens, ABC_N);
	for (size_t j = 0; j < h; j++) {
		double want = 0;
		for (size_t i = 0; i < ABC_N; i++) want += x[i * h + j] / ABC_N;
		assert_float_equal(row[j], want, within);
	}
	free(x);
	free(row);
	vk_encoder_close(e);
}

static void test_encoder_any_shape_and_type_matches_the_plain_network(void **state)
{
	(void)state;
	static const struct tiny_shape shapes[] = {
	    {20, 4, 40, 2, TINY_F32, ""},      {32, 1, 64, 1, TINY_F32, "bert."},
	    {64, 2, 100, 2, TINY_F16, ""},     {48, 1, 33, 3, TINY_BF16, ""},
	    {66, 3, 31, 2, TINY_F16, "bert."}, {96, 3, 256, 2, TINY_F32, ""},
	    {7, 7, 5, 2, TINY_F32, ""},
	};
	struct vk_pool *pool = vk_pool_new(3, 64, "test");
	for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
		struct tiny m;
		tiny_make(&m, shapes[i], seed + i);
		expect_mean(&m, NULL, 2e-4);
		expect_mean(&m, pool, 2e-4);
		tiny_remove(&m);
	}
	vk_pool_free(pool);
}

static void write_modules(const struct tiny *m, const char *pooling, bool normalize)
{
	char path[160], text[512];
	snprintf(path, sizeof path, "%s/1_Pooling", m->dir);
	mkdir(path, 0700);
	tiny_write_text(m, "1_Pooling/config.json", pooling);
	snprintf(text, sizeof text,
		 "[{\"idx\":0,\"path\":\"\",\"type\":\"sentence_transformers.models.Transformer\"},"
		 "{\"idx\":1,\"path\":\"1_Pooling\",\"type\":\"sentence_transformers.models."
		 "Pooling\"}%s]",
		 normalize ? ",{\"idx\":2,\"path\":\"2_Normalize\",\"type\":\"sentence_"
			     "transformers.models.Normalize\"}"
			   : "");
	tiny_write_text(m, "modules.json", text);
}

static void test_encoder_cls_max_and_normalize_are_obeyed(void **state)
{
	(void)state;
	struct tiny m;
	struct vk_encoder_text t = {.text = abc};
	float row[20];
	char mean_print[65];
	tiny_make(&m, small, seed);
	double *x = tiny_states(&m, abc_ids, ABC_N);
	struct vk_encoder *e = open_good(&m);
	strcpy(mean_print, vk_encoder_info(e)->fingerprint);
	vk_encoder_close(e);

	write_modules(&m, "{\"pooling_mode_cls_token\":true,\"pooling_mode_mean_tokens\":false}",
		      true);
	e = open_good(&m);
	assert_string_equal(vk_encoder_info(e)->pooling, "cls");
	assert_string_not_equal(vk_encoder_info(e)->fingerprint, mean_print);
	run(e, NULL, &t, 1, row);
	double norm = 0;
	for (size_t j = 0; j < 20; j++) norm += x[j] * x[j];
	for (size_t j = 0; j < 20; j++) assert_float_equal(row[j], x[j] / sqrt(norm), 2e-5);
	vk_encoder_close(e);

	write_modules(&m, "{\"pooling_mode\":\"max\"}", false);
	e = open_good(&m);
	assert_string_equal(vk_encoder_info(e)->pooling, "max");
	run(e, NULL, &t, 1, row);
	for (size_t j = 0; j < 20; j++) {
		double most = x[j];
		for (size_t i = 1; i < ABC_N; i++) most = fmax(most, x[i * 20 + j]);
		assert_float_equal(row[j], most, 2e-4);
	}
	vk_encoder_close(e);
	free(x);
	tiny_remove(&m);
}

static void test_encoder_limit_and_prompts_come_from_the_directory(void **state)
{
	(void)state;
	struct tiny m;
	struct vk_encoder_text t = {.text = VK_LIT("a b c a b c")};
	float row[20];
	tiny_make(&m, small, seed);
	tiny_write_text(&m, "sentence_bert_config.json", "{\"max_seq_length\": 6}");
	tiny_write_text(
	    &m, "config_sentence_transformers.json",
	    "{\"prompts\":{\"query\":\"query: \",\"document\":\"\"},\"default_prompt_name\":null}");
	struct vk_encoder *e = open_good(&m);
	assert_int_equal(vk_encoder_info(e)->tokens_max, 6);
	assert_true(vk_bytes_is(vk_encoder_prompt(e, "query"), "query: "));
	assert_int_equal(vk_encoder_prompt(e, "other").n, 0);
	run(e, NULL, &t, 1, row);
	assert_int_equal(t.tokens, 6);
	assert_true(t.truncated);
	vk_encoder_close(e);
	/* Longer than there are positions: the positions decide. */
	tiny_write_text(&m, "sentence_bert_config.json", "{\"max_seq_length\": 512}");
	e = open_good(&m);
	assert_int_equal(vk_encoder_info(e)->tokens_max, TINY_POSITIONS);
	vk_encoder_close(e);
	tiny_remove(&m);
}

static const char tokenizer_json[] =
	"{\"version\":\"1.0\",\"added_tokens\":[{\"id\":2,\"content\":\"[CLS]\",\"normalized\":false}],"
	"\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":%s},\"pre_tokenizer\":{\"type\":"
	"\"BertPreTokenizer\"},"
	"\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"vocab\":{\"[PAD]\":0,\"[UNK]\":1,"
	"\"[CLS]\":2,\"[SEP]\":3,"
	"\"[MASK]\":4,\"a\":5,\"b\":6,\"c\":7,\"##a\":8,\"##b\":9,\"##c\":10,\".\":%d}}}";

static void test_encoder_tokenizer_json_equals_vocab_txt(void **state)
{
	(void)state;
	struct tiny m;
	struct vk_encoder_text t = {.text = VK_LIT("AB.c")};
	float row[20], again[20];
	char text[1024], cased[65];
	tiny_make(&m, small, seed);
	struct vk_encoder *e = open_good(&m);
	run(e, NULL, &t, 1, row);
	vk_encoder_close(e);
	snprintf(text, sizeof text, tokenizer_json, "true", 11);
	tiny_write_text(&m, "tokenizer.json", text);
	e = open_good(&m);
	run(e, NULL, &t, 1, again);
	assert_memory_equal(row, again, sizeof row);
	vk_encoder_close(e);
	/* A cased one reads [UNK] there, and is another space; tokenizer_config.json overrules it.
	 */
	snprintf(text, sizeof text, tokenizer_json, "false", 11);
	tiny_write_text(&m, "tokenizer.json", text);
	e = open_good(&m);
	strcpy(cased, vk_encoder_info(e)->fingerprint);
	run(e, NULL, &t, 1, again);
	assert_memory_not_equal(row, again, sizeof row);
	vk_encoder_close(e);
	tiny_write_text(&m, "tokenizer_config.json", "{\"do_lower_case\": true}");
	e = open_good(&m);
	run(e, NULL, &t, 1, again);
	assert_memory_equal(row, again, sizeof row);
	assert_string_not_equal(vk_encoder_info(e)->fingerprint, cased);
	vk_encoder_close(e);
	tiny_remove(&m);
}

static void refused(const struct tiny *m, enum vk_status want, const char *word)
{
	struct vk_encoder *e = (struct vk_encoder *)1;
	struct vk_error err = {0};
	enum vk_status st = vk_encoder_open(m->dir, &e, &err);
	if (st != want || !strstr(err.text, word) || e)
		fail_msg("expected status %d with '%s', got %d: %s", want, word, st, err.text);
}

static void test_encoder_what_it_does_not_do_is_refused_by_name(void **state)
{
	(void)state;
	static const struct {
		const char *file, *text, *word;
	} cases[] = {
	    {"config.json", "{\"model_type\":\"xlm-roberta\"}", "xlm-roberta"},
	    {"config.json", "{\"model_type\":\"bert\",\"hidden_act\":\"relu\"}", "relu"},
	    {"config.json",
	     "{\"model_type\":\"bert\",\"position_embedding_type\":\"relative_key\"}",
	     "relative_key"},
	    {"config.json", "{\"model_type\":\"bert\",\"hidden_size\":0}", "hidden_size"},
	    {"config.json", "{\"model_type\":\"bert\",\"hidden_size\":1e9}", "hidden_size"},
	    {"config.json", "[]", "config.json"},
	    {"config.json", "{", "config.json"},
	    {"config.json", "null", "config.json"},
	    {"tokenizer_config.json", "{\"tokenizer_class\":\"XLMRobertaTokenizer\"}",
	     "XLMRobertaTokenizer"},
	    {"modules.json",
	     "[{\"type\":\"sentence_transformers.models.Dense\",\"path\":\"2_Dense\"}]", "Dense"},
	    {"modules.json",
	     "[{\"type\":\"sentence_transformers.models.Transformer\",\"path\":\"\"}]", "Pooling"},
	    {"modules.json", "[{\"type\":\"x.Pooling\",\"path\":\"../../etc\"}]", "path"},
	    {"tokenizer.json", "{\"model\":{\"type\":\"Unigram\"}}", "Unigram"},
	    {"tokenizer.json", "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "[UNK]"},
	    {"tokenizer.json", "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":-1}}}",
	     "out of range"},
	    {"tokenizer.json",
	     "{\"model\":{\"type\":\"WordPiece\",\"max_input_chars_per_word\":100000,\"vocab\":{}}"
	     "}",
	     "max_input"},
	    {"vocab.txt", "hello\n", "[UNK]"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct tiny m;
		tiny_make(&m, small, seed);
		tiny_write_text(&m, cases[i].file, cases[i].text);
		refused(&m, VK_E_INVALID, cases[i].word);
		tiny_remove(&m);
	}
}

static void test_encoder_pooling_it_does_not_do_is_refused(void **state)
{
	(void)state;
	static const char *const poolings[] = {
	    "{\"pooling_mode\":\"lasttoken\"}",
	    "{}",
	    "{\"pooling_mode\":\"mean\",\"include_prompt\":false}",
	    "{\"pooling_mode_mean_tokens\":true,\"pooling_mode_cls_token\":true}",
	    "{\"pooling_mode_mean_tokens\":true,\"pooling_mode_lasttoken\":true}",
	};
	struct tiny m;
	tiny_make(&m, small, seed);
	for (size_t i = 0; i < sizeof poolings / sizeof poolings[0]; i++) {
		write_modules(&m, poolings[i], false);
		refused(&m, VK_E_INVALID, "pooling");
	}
	tiny_remove(&m);
}

static void test_encoder_missing_files_are_named(void **state)
{
	(void)state;
	static const char *const names[] = {"config.json", "model.safetensors", "vocab.txt"};
	for (size_t i = 0; i < 3; i++) {
		struct tiny m;
		char path[160];
		tiny_make(&m, small, seed);
		snprintf(path, sizeof path, "%s/%s", m.dir, names[i]);
		remove(path);
		refused(&m, VK_E_NOT_FOUND, names[i]);
		tiny_remove(&m);
	}
}

static void test_encoder_weights_that_do_not_fit_the_config_are_refused(void **state)
{
	(void)state;
	struct tiny m;
	tiny_make(&m, small, seed);
	tiny_write_text(&m, "vocab.txt", "[UNK]\n[CLS]\n[SEP]\na\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n");
	refused(&m, VK_E_INVALID, "vocab_size");
	tiny_write_text(&m, "vocab.txt", tiny_vocab);
	tiny_write_config(&m, "");
	m.shape.layers = 3;
	tiny_write_config(&m, "");
	refused(&m, VK_E_INVALID, "encoder.layer.2.");
	m.shape.layers = 90;
	tiny_write_config(&m, "");
	refused(&m, VK_E_INVALID, "too small");
	m.shape.layers = 2;
	m.shape.inner = 41;
	tiny_write_config(&m, "");
	refused(&m, VK_E_INVALID, "intermediate.dense");
	m.shape.inner = 40;
	m.shape.heads = 3;
	tiny_write_config(&m, "");
	refused(&m, VK_E_INVALID, "heads");
	tiny_remove(&m);
}

struct runner {
	const struct vk_encoder *e;
	struct vk_pool *pool;
	const float *want;
	bool ok;
};

static void *run_many(void *arg)
{
	struct runner *r = arg;
	r->ok = true;
	for (int i = 0; i < 100; i++) {
		struct vk_encoder_text t[3] = {{.text = abc}, {.text = VK_LIT("a")}, {.text = abc}};
		float rows[3 * 20];
		size_t n = i % 2 ? 1 : 3;
		struct vk_error err;
		if (vk_encoder_run(r->e, r->pool, t, n, rows, &err)) r->ok = false;
		for (size_t j = 0; j < 20; j++)
			if (fabsf(rows[j] - r->want[j]) > 1e-5f ||
			    fabsf(rows[(n - 1) * 20 + j] - r->want[j]) > 1e-5f)
				r->ok = false;
	}
	return NULL;
}

static void test_encoder_many_threads_share_one(void **state)
{
	(void)state;
	struct tiny m;
	struct vk_encoder_text t = {.text = abc};
	float want[20];
	pthread_t threads[4];
	struct runner r[4];
	tiny_make(&m, small, seed);
	struct vk_encoder *e = open_good(&m);
	struct vk_pool *pool = vk_pool_new(2, 4, "test");
	run(e, NULL, &t, 1, want);
	for (size_t i = 0; i < 4; i++) {
		r[i] = (struct runner){e, i % 2 ? pool : NULL, want, false};
		assert_int_equal(pthread_create(&threads[i], NULL, run_many, &r[i]), 0);
	}
	for (size_t i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_true(r[i].ok);
	}
	vk_pool_free(pool);
	vk_encoder_close(e);
	tiny_remove(&m);
}

int main(void)
{
	const char *given = getenv("VECKEEP_TEST_SEED");
	if (given) seed = strtoull(given, NULL, 0);
	else vk_random(&seed, sizeof seed);
	printf("VECKEEP_TEST_SEED=%llu\n", (unsigned long long)seed);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_encoder_any_shape_and_type_matches_the_plain_network),
	    cmocka_unit_test(test_encoder_cls_max_and_normalize_are_obeyed),
	    cmocka_unit_test(test_encoder_limit_and_prompts_come_from_the_directory),
	    cmocka_unit_test(test_encoder_tokenizer_json_equals_vocab_txt),
	    cmocka_unit_test(test_encoder_what_it_does_not_do_is_refused_by_name),
	    cmocka_unit_test(test_encoder_pooling_it_does_not_do_is_refused),
	    cmocka_unit_test(test_encoder_missing_files_are_named),
	    cmocka_unit_test(test_encoder_weights_that_do_not_fit_the_config_are_refused),
	    cmocka_unit_test(test_encoder_many_threads_share_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
