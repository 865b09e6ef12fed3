/*
 * Goal: a part of a form comes out byte for byte, and no body, however broken, makes the reader leave its bounds.
 * Method: tables of bodies and what must come out; forms built from seeded random data (boundaries' beginnings and whole look-alikes
 * inside), read again; every cut and every single-byte change of a good form under the sanitizers. VK_TEST_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/hash.h"
#include "server/multipart.h"

#define TYPE VK_LIT("multipart/form-data; boundary=XX")

static const char form[] = "--XX\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n"
			   "--XX\r\ncontent-disposition: form-data; name=\"snapshot\"; filename=\"a;b.snapshot\"\r\n"
			   "Content-Type: application/octet-stream\r\n\r\n\x01\r\n--X\r\n--XXy\0z\r\n--XX--\r\n";
static const char data[] = "\x01\r\n--X\r\n--XXy\0z";

static void test_multipart_named_part_is_found_whole(void **state)
{
	(void)state;
	struct vk_bytes got;
	struct vk_error err = {0};
	assert_int_equal(vk_multipart_part(TYPE, (struct vk_bytes){form, sizeof form - 1}, "snapshot", &got, &err), VK_OK);
	assert_int_equal(got.n, sizeof data - 1);
	assert_memory_equal(got.p, data, got.n);
	assert_int_equal(vk_multipart_part(TYPE, (struct vk_bytes){form, sizeof form - 1}, "note", &got, &err), VK_OK);
	assert_true(vk_bytes_is(got, "hello"));
}

static void test_multipart_odd_but_right_forms_are_read(void **state)
{
	(void)state;
	const struct {
		const char *type, *body, *want;
	} cases[] = {
		{"multipart/form-data;boundary=\"a b\"", "--a b\r\nContent-Disposition: form-data; name=f\r\n\r\nx\r\n--a b--", "x"},
		{"Multipart/Form-Data ; charset=utf-8; Boundary=q", "--q\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n\r\n--q--\r\n", ""},
		{"multipart/form-data; boundary=q", "preamble\r\n--q \t\r\nContent-Disposition:form-data;name=\"f\"\r\n\r\ny\r\n--q--epilogue", "y"},
		{"multipart/form-data; boundary=q", "--q\r\n\r\nanonymous\r\n--q\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\nz\r\n--q--", "z"},
		{"multipart/form-data; boundary=q", "--q\r\nContent-Disposition: form-data; name=\"a\\\"\"; name=\"f\"\r\n\r\nw\r\n--q\r\n"
						    "Content-Disposition: form-data; name=\"f\"\r\n\r\nv\r\n--q--", "v"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct vk_bytes got;
		struct vk_error err = {0};
		enum vk_status st = vk_multipart_part(vk_bytes_of(cases[i].type), vk_bytes_of(cases[i].body), "f", &got, &err);
		if (st) fail_msg("case %zu: %s", i, err.text);
		if (!vk_bytes_is(got, cases[i].want)) fail_msg("case %zu: got \"%.*s\"", i, (int)got.n, got.p);
	}
}

static void test_multipart_broken_forms_are_refused_with_why(void **state)
{
	(void)state;
	const struct {
		const char *type, *body, *why;
	} cases[] = {
		{"application/json", "{}", "must be multipart/form-data"},
		{"", "", "must be multipart/form-data"},
		{"multipart/form-data", "--q--", "wants a boundary"},
		{"multipart/form-data; boundary=", "--q--", "wants a boundary"},
		{"multipart/form-data; boundary=0123456789012345678901234567890123456789012345678901234567890123456789x", "", "wants a boundary"},
		{"multipart/form-data; boundary=q", "", "does not begin"},
		{"multipart/form-data; boundary=q", "--r\r\n", "does not begin"},
		{"multipart/form-data; boundary=q", "--q--", "no field"},
		{"multipart/form-data; boundary=q", "--q\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\nno end", "middle of a part"},
		{"multipart/form-data; boundary=q", "--q\r\nContent-Disposition: form-data; name=\"g\"\r\n\r\nx\r\n--q--", "no field"},
		{"multipart/form-data; boundary=q", "--q\r\nContent-Disposition: form-data; name=\"f\"\r\n--q\r\n\r\nx\r\n--q--", "no end of headers"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct vk_bytes got;
		struct vk_error err = {0};
		assert_int_equal(vk_multipart_part(vk_bytes_of(cases[i].type), vk_bytes_of(cases[i].body), "f", &got, &err), VK_E_INVALID);
		if (!strstr(err.text, cases[i].why)) fail_msg("case %zu: %s", i, err.text);
	}
}

/* The copy is exactly as long as the body, on the heap: a byte too far is the sanitizer's. */
static void read_copy(const char *body, size_t n)
{
	char *copy = malloc(n ? n : 1);
	struct vk_bytes got;
	struct vk_error err = {0};
	assert_non_null(copy);
	memcpy(copy, body, n);
	if (!vk_multipart_part(TYPE, (struct vk_bytes){copy, n}, "snapshot", &got, &err)) {
		assert_true(got.p >= copy && got.p + got.n <= copy + n);
	} else {
		assert_true(err.text[0]);
	}
	free(copy);
}

static void test_multipart_every_cut_and_change_stays_in_bounds(void **state)
{
	(void)state;
	char copy[sizeof form];
	for (size_t n = 0; n < sizeof form; n++) read_copy(form, n);
	for (size_t i = 0; i < sizeof form - 1; i++)
		for (unsigned c = 0; c < 256; c++) {
			memcpy(copy, form, sizeof form);
			copy[i] = (char)c;
			read_copy(copy, sizeof form - 1);
		}
}

static uint64_t seed_of_run(void)
{
	const char *s = getenv("VK_TEST_SEED");
	uint64_t seed = s ? strtoull(s, NULL, 0) : (uint64_t)time(NULL);
	print_message("VK_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static void test_multipart_random_data_round_trips(void **state)
{
	(void)state;
	uint64_t rng = seed_of_run();
	static const char *const bits[] = {"\r\n", "--", "X", "XX", "\r\n--X", "\r\n--XXX", "\n", "-"};
	for (int i = 0; i < 20000; i++) {
		char blob[256], body[512];
		size_t n = 0;
		for (uint64_t k = vk_rng(&rng) % 24; k; k--) {
			const char *s = bits[vk_rng(&rng) % (sizeof bits / sizeof *bits)];
			memcpy(blob + n, s, strlen(s));
			n += strlen(s);
		}
		/* What is a delimiter by the grammar ends the data, in whoever's form: keep such ones out. */
		blob[n] = 0;
		if (strstr(blob, "\r\n--XX\r\n") || strstr(blob, "\r\n--XX--")) continue;
		if (n >= 6 && memcmp(blob + n - 6, "\r\n--XX", 6) == 0) continue; /* followed by the CRLF of the real one */
		size_t head = (size_t)snprintf(body, sizeof body, "--XX\r\nContent-Disposition: form-data; name=\"snapshot\"\r\n\r\n");
		memcpy(body + head, blob, n);
		memcpy(body + head + n, "\r\n--XX--\r\n", 10);
		struct vk_bytes got;
		struct vk_error err = {0};
		enum vk_status st = vk_multipart_part(TYPE, (struct vk_bytes){body, head + n + 10}, "snapshot", &got, &err);
		const char *first = body + head; /* an empty part's end right behind the headers */
		if (memcmp(first, "--XX\r\n", 6) == 0 || memcmp(first, "--XX--", 6) == 0) continue;
		if (st) fail_msg("round %d: %s", i, err.text);
		assert_int_equal(got.n, n);
		assert_memory_equal(got.p, blob, n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_multipart_named_part_is_found_whole),
		cmocka_unit_test(test_multipart_odd_but_right_forms_are_read),
		cmocka_unit_test(test_multipart_broken_forms_are_refused_with_why),
		cmocka_unit_test(test_multipart_every_cut_and_change_stays_in_bounds),
		cmocka_unit_test(test_multipart_random_data_round_trips),
	};
	return cmocka_run_group_tests_name("server/multipart", tests, NULL, NULL);
}
