/*
 * Goal: BERT's tokenizer by its rules, without a model at hand.
 * Method: a vocabulary of some pieces; a text's ids are compared by name. The reference's
 * own ids for 200 texts are in test_encoder.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/utf8.h"
#include "embed/encoder/wordpiece.h"

static const char vocab[] =
	"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nwor\n##ld\n##s\ncafe\ncaf\xc3\xa9\n,\n.\n"
	"!\nun\n##aff\n##able\na\n##a\n\xe4\xb8\xad\n\xe6\x96\x87\nHello\ni\n;\n##\n";

static struct vk_wordpiece *build(const struct vk_wordpiece_options *o)
{
	struct vk_error err;
	struct vk_wordpiece *w = vk_wordpiece_new(o);
	assert_non_null(w);
	assert_int_equal(vk_wordpiece_add_lines(w, VK_LIT(vocab), &err), VK_OK);
	for (uint32_t id = 0; id < 5; id++) {
		static const char *const names[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
		assert_int_equal(vk_wordpiece_add_special(w, vk_bytes_of(names[id]), id, &err),
				 VK_OK);
	}
	assert_int_equal(vk_wordpiece_seal(w, &err), VK_OK);
	return w;
}

/* The pieces between [CLS] and [SEP], joined by spaces. */
static void expect_with(const struct vk_wordpiece_options *o, struct vk_bytes text,
			const char *want)
{
	struct vk_wordpiece *w = build(o);
	uint32_t ids[512];
	bool truncated;
	char got[8192] = "";
	size_t n = vk_wordpiece_encode(w, text, ids, 512, &truncated);
	assert_true(n >= 2 && !truncated);
	assert_int_equal(ids[0], 2);
	assert_int_equal(ids[n - 1], 3);
	for (size_t i = 1; i + 1 < n; i++) {
		const char *p = vocab;
		for (uint32_t id = 0; id < ids[i]; id++) p = strchr(p, '\n') + 1;
		if (i > 1) strcat(got, " ");
		strncat(got, p, (size_t)(strchr(p, '\n') - p));
	}
	assert_string_equal(got, want);
	vk_wordpiece_free(w);
}

static void expect(const char *text, const char *want)
{
	expect_with(&VK_WORDPIECE_DEFAULTS, vk_bytes_of(text), want);
}

static void test_wordpiece_words_are_split_by_longest_piece(void **state)
{
	(void)state;
	expect("hello worlds", "hello wor ##ld ##s");
	expect("unaffable", "un ##aff ##able");
	expect("", "");
	expect(" \t\n ", "");
	expect("aaaa", "a ##a ##a ##a");
}

static void test_wordpiece_one_unknown_piece_makes_the_word_unknown(void **state)
{
	(void)state;
	expect("helloz", "[UNK]");
	expect("z hello", "[UNK] hello");
	expect("unaffzable a", "[UNK] a");
}

static void test_wordpiece_case_and_accents_are_folded(void **state)
{
	(void)state;
	expect("HeLLo CAF\xc3\x89 cafe\xcc\x81", "hello cafe cafe");
	expect("\xc4\xb0", "i"); /* dotted capital I: i and a mark, which goes */
	struct vk_wordpiece_options cased = VK_WORDPIECE_DEFAULTS;
	cased.lower_case = cased.strip_accents = false;
	expect_with(&cased, VK_LIT("Hello HELLO caf\xc3\xa9 caf\xc3\x89"),
		    "Hello [UNK] caf\xc3\xa9 [UNK]");
	struct vk_wordpiece_options accents = VK_WORDPIECE_DEFAULTS;
	accents.strip_accents = false;
	expect_with(&accents, VK_LIT("CAF\xc3\x89"), "caf\xc3\xa9");
}

static void test_wordpiece_punctuation_and_ideographs_stand_alone(void **state)
{
	(void)state;
	expect("hello,hello.!", "hello , hello . !");
	expect("hello\xe4\xb8\xad\xe6\x96\x87"
	       "a",
	       "hello \xe4\xb8\xad \xe6\x96\x87 a");
	expect("a\xcd\xbe"
	       "a",
	       "a ; a"); /* the Greek question mark decomposes to a semicolon */
}

static void test_wordpiece_controls_vanish_and_spaces_split(void **state)
{
	(void)state;
	expect_with(&VK_WORDPIECE_DEFAULTS, VK_LIT("hel\x00lo\x7f wor\xe2\x80\x8bld"),
		    "hello wor ##ld");
	expect("hello\xe3\x80\x80hello\xc2\xa0"
	       "a\xe2\x80\xa8"
	       "a",
	       "hello hello a a");
	expect("hel\vlo \xef\xbf\xbd\xee\x80\x80", "hello");
}

static void test_wordpiece_special_tokens_are_read_in_the_text(void **state)
{
	(void)state;
	expect("hello[SEP]a [MASK]", "hello [SEP] a [MASK]");
	expect("[sep]", "[UNK] [UNK] [UNK]");
	expect("[CLS", "[UNK] [UNK]");
}

static void test_wordpiece_words_past_100_characters_are_unknown(void **state)
{
	(void)state;
	char text[512], want[1024] = "a";
	memset(text, 'a', 100);
	text[100] = 0;
	for (int i = 1; i < 100; i++) strcat(want, " ##a");
	expect(text, want);
	strcpy(text + 100, "a");
	expect(text, "[UNK]");
	for (int i = 0; i < 100; i++) memcpy(text + 3 * i, "a\xcc\x81", 3); /* marks do not count */
	text[300] = 0;
	expect(text, want);
}

static void test_wordpiece_texts_at_the_limit_are_cut_and_say_so(void **state)
{
	(void)state;
	struct vk_wordpiece *w = build(&VK_WORDPIECE_DEFAULTS);
	uint32_t ids[8];
	bool truncated;
	assert_int_equal(vk_wordpiece_encode(w, VK_LIT("a a a a a a"), ids, 8, &truncated), 8);
	assert_false(truncated);
	assert_int_equal(vk_wordpiece_encode(w, VK_LIT("a a a a a a  \n"), ids, 8, &truncated), 8);
	assert_false(truncated);
	assert_int_equal(vk_wordpiece_encode(w, VK_LIT("a a a a a aa"), ids, 8, &truncated), 8);
	assert_true(truncated);
	assert_int_equal(ids[7], 3);
	/* Pieces that would not fit but turn out to be one [UNK] that does. */
	assert_int_equal(vk_wordpiece_encode(w, VK_LIT("a a a a a aaz"), ids, 8, &truncated), 8);
	assert_false(truncated);
	assert_int_equal(ids[6], 1);
	assert_int_equal(vk_wordpiece_encode(w, VK_LIT("a"), ids, 2, &truncated), 2);
	assert_true(truncated);
	vk_wordpiece_free(w);
}

static void test_wordpiece_vocabulary_without_its_specials_is_refused(void **state)
{
	(void)state;
	struct vk_error err;
	struct vk_wordpiece *w = vk_wordpiece_new(&VK_WORDPIECE_DEFAULTS);
	assert_int_equal(vk_wordpiece_add_lines(w, VK_LIT("[UNK]\n[CLS]\r\nhello"), &err), VK_OK);
	assert_int_equal(vk_wordpiece_find(w, VK_LIT("[CLS]")), 1);
	assert_int_equal(vk_wordpiece_ids(w), 3);
	assert_int_equal(vk_wordpiece_seal(w, &err), VK_E_INVALID);
	assert_non_null(strstr(err.text, "[SEP]"));
	assert_int_equal(vk_wordpiece_add(w, VK_LIT("x"), VK_WORDPIECE_VOCAB_MAX, &err),
			 VK_E_INVALID);
	vk_wordpiece_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_wordpiece_words_are_split_by_longest_piece),
	    cmocka_unit_test(test_wordpiece_one_unknown_piece_makes_the_word_unknown),
	    cmocka_unit_test(test_wordpiece_case_and_accents_are_folded),
	    cmocka_unit_test(test_wordpiece_punctuation_and_ideographs_stand_alone),
	    cmocka_unit_test(test_wordpiece_controls_vanish_and_spaces_split),
	    cmocka_unit_test(test_wordpiece_special_tokens_are_read_in_the_text),
	    cmocka_unit_test(test_wordpiece_words_past_100_characters_are_unknown),
	    cmocka_unit_test(test_wordpiece_texts_at_the_limit_are_cut_and_say_so),
	    cmocka_unit_test(test_wordpiece_vocabulary_without_its_specials_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
