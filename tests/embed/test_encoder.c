/*
 * Goal: the built-in encoder is the reference implementation, for every script and oddity.
 * Method: tests/embed/golden/minilm.jsonl holds 200 texts with the reference's own token ids and
 * vectors (make_golden.py); ours must have the same ids and cosine >= 0.9999 for each, alone and
 * in one batch. Needs the model (script/fetch-model); without it the tests are skipped, unless
 * VECKEEP_REQUIRE_MODEL is set. VECKEEP_TEST_MODEL names another place of the same model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/json.h"
#include "embed/encoder.h"
#include "embed/encoder/config.h"
#include "simd/base64.h"
#include "simd/vec.h"

#define GOLDEN VK_SOURCE_DIR "/tests/embed/golden/minilm.jsonl"
#define TEXTS 200
#define DIMS 384

struct golden {
	struct vk_bytes text;
	const uint32_t *ids;
	size_t ids_n;
	bool truncated;
	float vector[DIMS];
};

struct fixture {
	char *file;
	struct vk_arena arena;
	struct golden golden[TEXTS];
	const char *dir;
	struct vk_encoder *encoder; /* NULL: no model, skip */
	struct vk_pool *pool;
	float rows[TEXTS * DIMS];
	struct vk_encoder_text texts[TEXTS];
};
static struct fixture fx;

static char *read_file(const char *path, size_t *n)
{
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	*n = (size_t)ftell(f);
	rewind(f);
	char *p = malloc(*n + 1);
	assert_int_equal(fread(p, 1, *n, f), *n);
	fclose(f);
	p[*n] = 0;
	return p;
}

static void read_line(struct vk_bytes line, struct golden *g)
{
	struct vk_json *doc;
	struct vk_error err;
	struct vk_bytes text, vector;
	if (vk_json_parse(&fx.arena, line, NULL, &doc, &err)) fail_msg("golden: %s", err.text);
	const vk_jv *root = vk_json_root(doc), *ids = vk_jv_get(root, "ids");
	assert_true(vk_jv_str(vk_jv_get(root, "text"), &text));
	assert_true(vk_jv_str(vk_jv_get(root, "vector"), &vector));
	assert_true(vk_jv_bool(vk_jv_get(root, "truncated"), &g->truncated));
	char *raw = vk_arena_alloc(&fx.arena, text.n + 1);
	g->text = (struct vk_bytes){raw, vk_base64_decode(vk_cpu_best(), raw, text.p, text.n)};
	g->ids_n = vk_jv_len(ids);
	uint32_t *copy = vk_arena_alloc(&fx.arena, g->ids_n * sizeof *copy);
	assert_true(vk_jv_u32s(ids, copy));
	g->ids = copy;
	/* base64 may write up to n/4*3 bytes: exactly the vector, whose size has no rest. */
	assert_int_equal(vector.n, VK_BASE64_LEN(sizeof g->vector));
	assert_int_equal(vk_base64_decode(vk_cpu_best(), g->vector, vector.p, vector.n),
			 sizeof g->vector);
	vk_json_free(doc);
}

static int set_up(void **state)
{
	(void)state;
	size_t n, i = 0;
	vk_arena_init(&fx.arena, (size_t)64 << 20);
	fx.file = read_file(GOLDEN, &n);
	for (char *p = fx.file, *nl; (nl = memchr(p, '\n', (size_t)(fx.file + n - p)));
	     p = nl + 1, i++) {
		assert_true(i < TEXTS);
		read_line((struct vk_bytes){p, (size_t)(nl - p)}, &fx.golden[i]);
		fx.texts[i].text = fx.golden[i].text;
	}
	assert_int_equal(i, TEXTS);
	fx.dir = getenv("VECKEEP_TEST_MODEL");
	if (!fx.dir) fx.dir = VK_SOURCE_DIR "/models/all-MiniLM-L6-v2";
	if (access(fx.dir, F_OK) != 0 && !getenv("VECKEEP_REQUIRE_MODEL")) {
		printf("no model at %s (script/fetch-model): skipping\n", fx.dir);
		return 0;
	}
	struct vk_error err;
	if (vk_encoder_open(fx.dir, &fx.encoder, &err)) fail_msg("%s", err.text);
	fx.pool = vk_pool_new(2, 64, "test");
	assert_non_null(fx.pool);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	vk_pool_free(fx.pool);
	vk_encoder_close(fx.encoder);
	vk_arena_free(&fx.arena);
	free(fx.file);
	return 0;
}

#define NEED_MODEL()                                                                               \
	if (!fx.encoder) skip()

static void run(struct vk_pool *pool, struct vk_encoder_text *texts, size_t n, float *rows)
{
	struct vk_error err;
	if (vk_encoder_run(fx.encoder, pool, texts, n, rows, &err)) fail_msg("%s", err.text);
}

static double cosine(const float *a, const float *b)
{
	return vk_vec_cosine(VK_CPU_SCALAR, a, b, DIMS);
}

static void test_encoder_minilm_says_what_it_is(void **state)
{
	(void)state;
	NEED_MODEL();
	const struct vk_encoder_info *i = vk_encoder_info(fx.encoder);
	assert_int_equal(i->dims, DIMS);
	assert_int_equal(i->tokens_max, 256);
	assert_string_equal(i->pooling, "mean");
	assert_true(i->normalize);
	assert_int_equal(strlen(i->fingerprint), 64);
	assert_int_equal(vk_encoder_prompt(fx.encoder, "query").n, 0);
}

static void test_encoder_every_golden_text_has_the_reference_ids(void **state)
{
	(void)state;
	NEED_MODEL();
	struct vk_arena arena;
	struct vk_model_config c;
	struct vk_error err;
	vk_arena_init(&arena, 1 << 20);
	assert_int_equal(vk_model_config_read(fx.dir, &arena, &c, &err), VK_OK);
	for (size_t i = 0; i < TEXTS; i++) {
		uint32_t ids[256];
		bool truncated;
		const struct golden *g = &fx.golden[i];
		size_t n = vk_wordpiece_encode(c.tokenizer, g->text, ids, 256, &truncated);
		for (size_t j = 0; j < n && j < g->ids_n; j++)
			if (ids[j] != g->ids[j])
				fail_msg("text %zu: token %zu is %u, the reference has %u", i, j,
					 ids[j], g->ids[j]);
		if (n != g->ids_n || truncated != g->truncated)
			fail_msg("text %zu: %zu tokens (truncated %d), the reference has %zu (%d)",
				 i, n, truncated, g->ids_n, g->truncated);
	}
	vk_wordpiece_free(c.tokenizer);
	vk_arena_free(&arena);
}

static void check_golden(const struct vk_encoder_text *texts, const float *rows, const char *how)
{
	double least = 1;
	for (size_t i = 0; i < TEXTS; i++) {
		double c = cosine(rows + i * DIMS, fx.golden[i].vector);
		if (c < least) least = c;
		if (!(c >= 0.9999)) fail_msg("%s: text %zu: cosine %.6f", how, i, c);
		assert_int_equal(texts[i].tokens, fx.golden[i].ids_n);
		assert_int_equal(texts[i].truncated, fx.golden[i].truncated);
	}
	printf("%s: least cosine with the reference %.9f\n", how, least);
}

static void test_encoder_golden_texts_alone_match_the_reference(void **state)
{
	(void)state;
	NEED_MODEL();
	for (size_t i = 0; i < TEXTS; i++) run(NULL, &fx.texts[i], 1, fx.rows + i * DIMS);
	check_golden(fx.texts, fx.rows, "alone");
}

static void test_encoder_golden_texts_shared_by_two_threads_match_the_reference(void **state)
{
	(void)state;
	NEED_MODEL();
	static float rows[TEXTS * DIMS];
	for (size_t i = 0; i < TEXTS; i++) run(fx.pool, &fx.texts[i], 1, rows + i * DIMS);
	check_golden(fx.texts, rows, "alone, two threads");
}

static void test_encoder_batch_equals_single(void **state)
{
	(void)state;
	NEED_MODEL();
	static float rows[TEXTS * DIMS];
	struct vk_encoder_text texts[TEXTS];
	memcpy(texts, fx.texts, sizeof texts);
	run(fx.pool, texts, TEXTS, rows);
	check_golden(texts, rows, "one batch");
	for (size_t i = 0; i < TEXTS; i++) {
		float one[DIMS];
		run(NULL, &texts[i], 1, one);
		assert_true(cosine(one, rows + i * DIMS) >= 0.99999);
	}
}

static void test_encoder_prefix_reads_as_part_of_the_text(void **state)
{
	(void)state;
	NEED_MODEL();
	float rows[2 * DIMS];
	struct vk_encoder_text t[2] = {
	    {.text = VK_LIT("words of a query"), .prefix = VK_LIT("query: pass")},
	    {.text = VK_LIT("query: passwords of a query")}};
	run(NULL, t, 2, rows);
	assert_int_equal(t[0].tokens, t[1].tokens);
	assert_true(cosine(rows, rows + DIMS) >= 0.9999999);
}

static void test_encoder_rows_have_unit_length(void **state)
{
	(void)state;
	NEED_MODEL();
	bool finite;
	float row[DIMS];
	struct vk_encoder_text t = {.text = VK_LIT("")};
	run(NULL, &t, 1, row);
	assert_int_equal(t.tokens, 2);
	assert_float_equal(vk_vec_norm(VK_CPU_SCALAR, row, DIMS, &finite), 1, 1e-6);
}

static void test_encoder_many_texts_go_in_waves(void **state)
{
	(void)state;
	NEED_MODEL();
	enum { N = 2100 };
	static struct vk_encoder_text texts[N];
	float *rows = malloc(N * DIMS * sizeof *rows), one[DIMS];
	struct vk_encoder_text hello = {.text = VK_LIT("hello")};
	assert_non_null(rows);
	for (size_t i = 0; i < N; i++) texts[i].text = i % 7 ? VK_LIT("") : VK_LIT("hello");
	run(fx.pool, texts, N, rows);
	run(NULL, &hello, 1, one);
	for (size_t i = 0; i < N; i += 7) assert_true(cosine(one, rows + i * DIMS) > 0.9999999);
	free(rows);
}

static void test_encoder_invalid_utf8_is_refused_by_position(void **state)
{
	(void)state;
	NEED_MODEL();
	struct vk_error err;
	float rows[2 * DIMS];
	struct vk_encoder_text t[2] = {{.text = VK_LIT("fine")}, {.text = VK_LIT("\xff\xfe")}};
	assert_int_equal(vk_encoder_run(fx.encoder, NULL, t, 2, rows, &err), VK_E_INVALID);
	assert_non_null(strstr(err.text, "text 1"));
	assert_int_equal(vk_encoder_run(fx.encoder, NULL, t, 0, rows, &err), VK_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_encoder_minilm_says_what_it_is),
	    cmocka_unit_test(test_encoder_every_golden_text_has_the_reference_ids),
	    cmocka_unit_test(test_encoder_golden_texts_alone_match_the_reference),
	    cmocka_unit_test(test_encoder_golden_texts_shared_by_two_threads_match_the_reference),
	    cmocka_unit_test(test_encoder_batch_equals_single),
	    cmocka_unit_test(test_encoder_prefix_reads_as_part_of_the_text),
	    cmocka_unit_test(test_encoder_rows_have_unit_length),
	    cmocka_unit_test(test_encoder_many_texts_go_in_waves),
	    cmocka_unit_test(test_encoder_invalid_utf8_is_refused_by_position),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
