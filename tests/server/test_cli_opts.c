/*
 * The option parser, held to its table: every way to write an option gives the same struct, and
 * whatever is wrong is named. Method: command lines as people type them; a seeded mix of options
 * and arguments in any order must read as the sorted one does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "server/cli_opts.h"
#include "server/progress.h"

struct own {
	const char *model;
	struct vk_opt_list texts;
	uint64_t dims, wait_ms;
	bool quiet;
};
struct common {
	bool json;
	const char *url;
};

static const struct vk_opt own_table[] = {
	{"model", 'm', VK_OPT_STR, offsetof(struct own, model), "NAME", ""},
	{"text", 't', VK_OPT_LIST, offsetof(struct own, texts), "TEXT", ""},
	{"dims", 'd', VK_OPT_U64, offsetof(struct own, dims), "N", ""},
	{"wait", 0, VK_OPT_DURATION, offsetof(struct own, wait_ms), "TIME", ""},
	{"quiet", 'q', VK_OPT_FLAG, offsetof(struct own, quiet), NULL, ""},
	{0},
};
static const struct vk_opt common_table[] = {
	{"json", 'j', VK_OPT_FLAG, offsetof(struct common, json), NULL, ""},
	{"url", 'u', VK_OPT_STR, offsetof(struct common, url), "URL", ""},
	{0},
};

struct parsed {
	struct own own;
	struct common common;
	struct vk_opt_set sets[VK_OPT_SETS];
	struct vk_args args;
	char text[VK_OPT_TEXT_MAX];
};

/* words: NULL-terminated, without the program's name. */
static bool parse(struct parsed *p, char **words)
{
	char *argv[64] = {(char *)"prog"};
	int argc = 1;
	while (words[argc - 1]) {
		argv[argc] = words[argc - 1];
		argc++;
	}
	*p = (struct parsed){0};
	p->sets[0] = (struct vk_opt_set){own_table, &p->own};
	p->sets[1] = (struct vk_opt_set){common_table, &p->common};
	return vk_opts_parse(p->sets, argc, argv, &p->args, p->text);
}

static void drop(struct parsed *p)
{
	vk_opts_free(p->sets, &p->args);
}

#define PARSE(p, ...) parse(p, (char *[]){__VA_ARGS__, NULL})

static void assert_refused(const char *want, char **words)
{
	struct parsed p;
	assert_false(parse(&p, words));
	if (!strstr(p.text, want)) fail_msg("\"%s\" does not say \"%s\"", p.text, want);
	drop(&p);
}
#define REFUSED(want, ...) assert_refused(want, (char *[]){__VA_ARGS__, NULL})

static void test_opts_every_spelling_reads_the_same(void **state)
{
	(void)state;
	char *const spellings[][3] = {{"--model", "x"}, {"--model=x"}, {"-m", "x"}, {"-mx"}};
	for (size_t i = 0; i < 4; i++) {
		struct parsed p;
		char *words[] = {spellings[i][0], spellings[i][1], NULL};
		assert_true(parse(&p, words));
		assert_string_equal(p.own.model, "x");
		assert_int_equal(p.args.n, 0);
		drop(&p);
	}
}

static void test_opts_kinds_read_their_values(void **state)
{
	(void)state;
	struct parsed p;
	assert_true(PARSE(&p, "--dims", "256", "--wait=90d", "-qj", "--url", ""));
	assert_int_equal(p.own.dims, 256);
	assert_int_equal(p.own.wait_ms, 90ull * 86400 * 1000);
	assert_true(p.own.quiet && p.common.json);
	assert_string_equal(p.common.url, "");
	drop(&p);
}

static void test_opts_bundled_flags_end_in_a_value(void **state)
{
	(void)state;
	struct parsed p;
	assert_true(PARSE(&p, "-qjd8", "-qm", "name"));
	assert_int_equal(p.own.dims, 8);
	assert_string_equal(p.own.model, "name");
	drop(&p);
}

static void test_opts_list_keeps_every_value_in_order(void **state)
{
	(void)state;
	struct parsed p;
	char *words[41], numbers[20][4];
	for (int i = 0; i < 20; i++) {
		snprintf(numbers[i], sizeof numbers[i], "%d", i);
		words[2 * i] = (char *)"-t";
		words[2 * i + 1] = numbers[i];
	}
	words[40] = NULL;
	assert_true(parse(&p, words));
	assert_int_equal(p.own.texts.n, 20);
	for (int i = 0; i < 20; i++) assert_string_equal(p.own.texts.v[i], numbers[i]);
	drop(&p);
}

static void test_opts_dash_and_double_dash_are_no_options(void **state)
{
	(void)state;
	struct parsed p;
	assert_true(PARSE(&p, "-", "--quiet", "--", "--json", "-m"));
	assert_true(p.own.quiet);
	assert_false(p.common.json);
	assert_int_equal(p.args.n, 3);
	assert_string_equal(p.args.v[0], "-");
	assert_string_equal(p.args.v[1], "--json");
	assert_string_equal(p.args.v[2], "-m");
	drop(&p);
	assert_true(PARSE(&p, "--model", "--", "a")); /* an option's value is whatever follows */
	assert_string_equal(p.own.model, "--");
	drop(&p);
}

static void test_opts_wrong_ones_are_named(void **state)
{
	(void)state;
	REFUSED("--model wants a value", "--model");
	REFUSED("--model wants a value", "-qm");
	REFUSED("--quiet takes no value", "--quiet=1");
	REFUSED("unknown option -x", "-qx");
	REFUSED("did you mean --model?", "--modle", "x");
	REFUSED("did you mean --json?", "--jsno");
	REFUSED("unknown option --zzzzzz", "--zzzzzz=1");
	REFUSED("unknown option --a-name-that-is-longer-than-any", "--a-name-that-is-longer-than-any");
	REFUSED("--wait: expected a duration", "--wait", "soon");
}

static void test_opts_numbers_are_whole_and_in_range(void **state)
{
	(void)state;
	static const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "1.5", "0x10", "18446744073709551616", "1e3"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) REFUSED("--dims: expected a whole number", "--dims", (char *)bad[i]);
	struct parsed p;
	assert_true(PARSE(&p, "--dims=18446744073709551615"));
	assert_true(p.own.dims == UINT64_MAX);
	drop(&p);
}

/* Options and arguments in a random order: arguments keep theirs, options are all seen. */
static void test_opts_any_order_reads_the_same(void **state)
{
	(void)state;
	const char *said = getenv("VK_SEED");
	uint64_t seed = said ? strtoull(said, NULL, 0) : 20261122, rng = seed;
	for (int round = 0; round < 2000; round++) {
		char *options[] = {"--model=m", "-q", "--dims=4", "-j", "-tx"}, *args[] = {"a", "b", "-", "c d"};
		char *words[10] = {0};
		size_t o = 0, a = 0, n = 0;
		for (size_t i = 4; i > 0; i--) { /* shuffle the options */
			size_t j = vk_rng(&rng) % (i + 1);
			char *swap = options[i];
			options[i] = options[j];
			options[j] = swap;
		}
		while (o < 5 || a < 4) {
			bool option = a == 4 || (o < 5 && vk_rng(&rng) % 2);
			words[n++] = option ? options[o++] : args[a++];
		}
		struct parsed p;
		bool ok = parse(&p, words) && p.args.n == 4 && p.own.quiet && p.common.json && p.own.dims == 4 &&
			  p.own.model && !strcmp(p.own.model, "m") && p.own.texts.n == 1;
		for (size_t i = 0; ok && i < 4; i++) ok = !strcmp(p.args.v[i], args[i]);
		drop(&p);
		if (!ok) fail_msg("round %d of VK_SEED=%llu", round, (unsigned long long)seed);
	}
}

static void test_word_distance_counts_edits(void **state)
{
	(void)state;
	assert_int_equal(vk_word_distance("", ""), 0);
	assert_int_equal(vk_word_distance("", "abc"), 3);
	assert_int_equal(vk_word_distance("model", "modle"), 2);
	assert_int_equal(vk_word_distance("kitten", "sitting"), 3);
	assert_int_equal(vk_word_distance("abc", "abc"), 0);
	assert_int_equal(vk_word_distance("a-word-of-17-long", "x"), 99);
}

static void test_progress_line_shows_share_rate_and_time_left(void **state)
{
	(void)state;
	char line[160];
	vk_progress_line(line, sizeof line, "embedding", 4500, 25, 100, 10000000);
	assert_string_equal(line, "embedding [######..................]  25%  4,500  450/s  ETA 0:30");
	vk_progress_line(line, sizeof line, "embedding", 7, 3, 0, 0);
	assert_string_equal(line, "embedding  7  0/s");
	vk_progress_line(line, sizeof line, "x", 1, 200, 100, 2000000); /* a file that grew meanwhile */
	assert_string_equal(line, "x [########################] 100%  1  0/s  ETA 0:00");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_opts_every_spelling_reads_the_same),
		cmocka_unit_test(test_opts_kinds_read_their_values),
		cmocka_unit_test(test_opts_bundled_flags_end_in_a_value),
		cmocka_unit_test(test_opts_list_keeps_every_value_in_order),
		cmocka_unit_test(test_opts_dash_and_double_dash_are_no_options),
		cmocka_unit_test(test_opts_wrong_ones_are_named),
		cmocka_unit_test(test_opts_numbers_are_whole_and_in_range),
		cmocka_unit_test(test_opts_any_order_reads_the_same),
		cmocka_unit_test(test_word_distance_counts_edits),
		cmocka_unit_test(test_progress_line_shows_share_rate_and_time_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
