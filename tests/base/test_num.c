/*
 * Goal: what is printed reads back as the same bits, what is read is the nearest value, and
 * what is no JSON number is refused.
 * Method: 2^20 random bit patterns, all powers of two and ten and their neighbours, printed and
 * read back; random decimal texts of every length, and texts at and beside the midpoints of
 * neighbours, against the C library's strtof and strtod. VK_TEST_SEED replays.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/num.h"

static uint64_t seed_of_run(void)
{
	const char *s = getenv("VK_TEST_SEED");
	uint64_t seed = s ? strtoull(s, NULL, 0) : 20240611;
	print_message("VK_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static float f32_of(uint32_t bits)
{
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

static double f64_of(uint64_t bits)
{
	double f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

/* Printed, read back by us and by strtof. */
static void round_trip_f32(float v)
{
	char text[VK_F32_TEXT_MAX + 1], fewer[40];
	float back = 1, libc;
	if (!isfinite(v)) return;
	char *end = vk_f32_print(text, v);
	assert_true(end - text <= VK_F32_TEXT_MAX);
	*end = 0;
	if (vk_f32_read(text, end, &back) != end || memcmp(&back, &v, sizeof v) != 0)
		fail_msg("%a prints %s reads %a", (double)v, text, (double)back);
	libc = strtof(text, NULL);
	assert_memory_equal(&libc, &v, sizeof v);
	/* Shortest by characters: scientific notation with fewer of them must be another value. */
	for (int digits = 1; digits <= 9; digits++)
		if (snprintf(fewer, sizeof fewer, "%.*e", digits - 1, (double)v) < end - text &&
		    strtof(fewer, NULL) == v)
			fail_msg("%s is not shortest: %s", text, fewer);
}

static void round_trip_f64(double v)
{
	char text[VK_F64_TEXT_MAX + 1];
	double back = 1;
	if (!isfinite(v)) return;
	char *end = vk_f64_print(text, v);
	assert_true(end - text <= VK_F64_TEXT_MAX);
	*end = 0;
	if (vk_f64_read(text, end, &back) != end || memcmp(&back, &v, sizeof v) != 0)
		fail_msg("%a prints %s reads %a", v, text, back);
}

static void test_num_random_bits_round_trip(void **state)
{
	(void)state;
	uint64_t rng = seed_of_run();
	for (int i = 0; i < 1 << 20; i++) {
		uint64_t r = vk_rng(&rng);
		round_trip_f32(f32_of((uint32_t)r));
		if (i % 4 == 0) round_trip_f64(f64_of(r));
	}
}

static void test_num_boundaries_round_trip(void **state)
{
	(void)state;
	for (uint32_t e = 0; e < 255; e++)
		for (uint32_t sign = 0; sign < 2; sign++)
			for (uint32_t k = 0; k < 5; k++)
				round_trip_f32(f32_of(((sign << 31) | (e << 23)) + k - (e ? 2 : 0)));
	for (int e = -45; e <= 38; e++)
		for (int m = 1; m < 10; m++) {
			char text[20];
			snprintf(text, sizeof text, "%de%d", m, e);
			float v = strtof(text, NULL);
			round_trip_f32(v);
			round_trip_f32(nextafterf(v, 0));
			round_trip_f32(nextafterf(v, INFINITY));
		}
	for (int i = -40000; i < 40000; i++) {
		round_trip_f32((float)i);
		round_trip_f32((float)i / 1000);
		round_trip_f32((float)i * 4096.0f);
	}
	for (uint64_t e = 0; e < 2047; e++) round_trip_f64(f64_of(e << 52)), round_trip_f64(f64_of((e << 52) + 1));
	round_trip_f32(0.0f);
	round_trip_f32(-0.0f);
	round_trip_f32(3.4028235e38f);
	round_trip_f32(1e-45f);
	round_trip_f64(5e-324);
}

static void test_num_printed_text(void **state)
{
	(void)state;
	static const struct {
		float v;
		const char *text;
	} t[] = {{0, "0"},	       {-0.0f, "-0"},	      {1, "1"},		  {-1.5f, "-1.5"},
		 {0.1f, "0.1"},	       {16777216, "16777216"}, {1e10f, "1e+10"},	  {0.0001f, "1e-04"},
		 {1e-7f, "1e-07"},     {3.4028235e38f, "3.4028235e+38"}, {1e-45f, "1e-45"},
		 {0.00012345679f, "0.00012345679"}, {123456.79f, "123456.79"}, {1e5f, "1e+05"},
		 {100, "100"}, {-0.03125f, "-0.03125"}};
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		char text[VK_F32_TEXT_MAX + 1];
		*vk_f32_print(text, t[i].v) = 0;
		assert_string_equal(text, t[i].text);
	}
	char row[64];
	float v[] = {1, -2.5f, 3};
	*vk_f32s_print(row, v, 3) = 0;
	assert_string_equal(row, "1,-2.5,3");
	assert_ptr_equal(vk_f32s_print(row, v, 0), row);
}

/* text by us against the C library, with a character behind it that must not be read. */
static void same_as_libc(const char *text)
{
	char padded[2048];
	size_t n = strlen(text);
	snprintf(padded, sizeof padded, "%s,12345678", text);
	float f = 77, lf = strtof(text, NULL);
	double d = 77, ld = strtod(text, NULL);
	const char *fe = vk_f32_read(padded, padded + n, &f), *de = vk_f64_read(padded, padded + n, &d);
	if (isinf(lf) ? fe != NULL : fe != padded + n) fail_msg("%s: f32 stops", text);
	if (isinf(ld) ? de != NULL : de != padded + n) fail_msg("%s: f64 stops", text);
	if (fe && memcmp(&f, &lf, sizeof f) != 0) {
		/* Subnormals that vanish become 0 with the sign kept; nothing else may differ. */
		fail_msg("%s: f32 %a, libc %a", text, (double)f, (double)lf);
	}
	if (de && memcmp(&d, &ld, sizeof d) != 0) fail_msg("%s: f64 %a, libc %a", text, d, ld);
	/* More text behind changes nothing. */
	float g = 77;
	const char *ge = vk_f32_read(padded, padded + strlen(padded), &g);
	assert_true(ge == fe && (!ge || memcmp(&f, &g, sizeof f) == 0));
}

static void test_num_random_decimals_are_nearest(void **state)
{
	(void)state;
	uint64_t rng = seed_of_run();
	for (int i = 0; i < 400000; i++) {
		char text[128], *p = text;
		uint64_t r = vk_rng(&rng);
		unsigned whole = (unsigned)(r & 3 ? 1 : r >> 8 & 31), fraction = (unsigned)(r >> 16 & 31);
		if (r & 4) *p++ = '-';
		if (whole <= 1 && r & 8) *p++ = '0';
		else {
			*p++ = (char)('1' + vk_rng(&rng) % 9);
			for (unsigned k = 1; k < whole; k++) *p++ = (char)('0' + vk_rng(&rng) % 10);
		}
		if (fraction) *p++ = '.';
		for (unsigned k = 0; k < fraction; k++)
			*p++ = (char)(r & 16 && k < 6 ? '0' : '0' + vk_rng(&rng) % 10);
		*p = 0;
		if (r & 32) sprintf(p, "%c%d", r & 64 ? 'e' : 'E', (int)(vk_rng(&rng) % 100) - 50);
		same_as_libc(text);
	}
}

/* The exact midpoint between two f32, and one unit beside it in the 25th digit. */
static void test_num_midpoints_go_to_even(void **state)
{
	(void)state;
	uint64_t rng = seed_of_run();
	for (int i = 0; i < 100000; i++) {
		uint32_t bits = (uint32_t)vk_rng(&rng) & 0x7fffffff;
		if ((i & 3) == 0) bits = (bits & 0x03ffffff) + 0x3c000000; /* what embeddings hold */
		float a = f32_of(bits), b = f32_of(bits + 1);
		char text[256];
		if (!isfinite(a) || !isfinite(b)) continue;
		double mid = ((double)a + (double)b) / 2;
		snprintf(text, sizeof text, "%.*g", 17, mid);
		same_as_libc(text);
		snprintf(text, sizeof text, "%.180g", mid);
		same_as_libc(text);
		snprintf(text, sizeof text, "%.*g", (int)(8 + vk_rng(&rng) % 12), mid);
		same_as_libc(text);
	}
}

static void test_num_overflow_is_refused_and_tiny_is_zero(void **state)
{
	(void)state;
	static const char *const t[] = {
		"3.4028235e38", "3.4028235677973366e38", "3.4028235677973365e38", "3.40282357e38", "1e39", "-1e39",
		"1e308", "1.7976931348623157e308", "1.7976931348623159e308", "1e309", "-1e400", "1e99999",
		"1e999999999999999999999", "-1e-999999999999999999999", "1e-45", "7e-46", "7.1e-46", "1e-46", "-1e-50",
		"4.9e-324", "2e-324", "1e-400", "0e999999", "-0.0e5", "0.0000000000000000000000000000000000000001e80",
		"1000000000000000000000000000000000000000000000000e-45", "1.17549435e-38", "1.1754943e-38"};
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) same_as_libc(t[i]);
	/* Zeros enough to move any exponent back. */
	char text[1100] = "0.";
	memset(text + 2, '0', 1000);
	strcpy(text + 1002, "12345e1003");
	same_as_libc(text);
	text[1007] = 0;
	same_as_libc(text);
}

static void test_num_other_text_is_refused(void **state)
{
	(void)state;
	static const char *const t[] = {"",    "-",    "+1",  ".5",   "1.",   "-.5", "01",  "00",	"-01", "1e",
					"1e+", "1e-",  "e5",  "inf",  "nan",  "NaN", "Infinity", "-inf", "x",  " 1",
					"1.e5", "--1", "-+1", "\xb2"};
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		float f;
		double d;
		const char *end = t[i] + strlen(t[i]);
		if (vk_f32_read(t[i], end, &f) || vk_f64_read(t[i], end, &d)) fail_msg("accepted: %s", t[i]);
	}
	/* What may stand behind a number is its caller's business. */
	static const char *const stop[] = {"1x", "1 ", "1-", "1.5.5", "1e5e5", "0x10", "1,", "1_0"};
	static const int at[] = {1, 1, 1, 3, 3, 1, 1, 1};
	for (size_t i = 0; i < sizeof stop / sizeof stop[0]; i++) {
		float f;
		assert_ptr_equal(vk_f32_read(stop[i], stop[i] + strlen(stop[i]), &f), stop[i] + at[i]);
	}
}

static void test_num_arrays(void **state)
{
	(void)state;
	float v[4];
	size_t n = 99;
	static const struct {
		const char *text;
		int stop, n; /* stop -1: refused */
	} t[] = {{"[]", 2, 0},	       {"[ ]x", 3, 0},	  {" [1]", 4, 1},      {"[1,2,3,4]", 9, 4},
		 {"[1,2,3,4,5]", -1, 0}, {"[ 1 , 2\t]\n", 9, 2}, {"[1,]", -1, 0}, {"[,1]", -1, 0},
		 {"[1 2]", -1, 0},     {"[1", -1, 0},	  {"[1,", -1, 0},      {"[", -1, 0},
		 {"", -1, 0},	       {"1", -1, 0},	  {"[1e39]", -1, 0},   {"[\"1\"]", -1, 0},
		 {"[1,null]", -1, 0},  {"[[1]]", -1, 0},  {"[1]]", 3, 1}};
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		const char *end = vk_f32s_read(t[i].text, t[i].text + strlen(t[i].text), v, 4, &n);
		if (t[i].stop < 0) {
			if (end) fail_msg("accepted: %s", t[i].text);
			continue;
		}
		assert_ptr_equal(end, t[i].text + t[i].stop);
		assert_int_equal(n, t[i].n);
		for (int k = 0; k < t[i].n; k++) assert_true(v[k] == (float)(k + 1));
	}
}

/* A row printed and read back whole: the path that every vector takes. */
static void test_num_rows_round_trip(void **state)
{
	(void)state;
	enum { N = 1536 };
	uint64_t rng = seed_of_run();
	static float row[N], back[N];
	static char text[N * (VK_F32_TEXT_MAX + 1) + 2];
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < N; i++) {
			do row[i] = f32_of((uint32_t)vk_rng(&rng));
			while (!isfinite(row[i]));
			if (round & 1) row[i] = (float)(int32_t)vk_rng(&rng) / 5e10f;
		}
		size_t n = 0;
		text[0] = '[';
		char *end = vk_f32s_print(text + 1, row, N);
		*end++ = ']';
		assert_ptr_equal(vk_f32s_read(text, end, back, N, &n), end);
		assert_int_equal(n, N);
		assert_memory_equal(row, back, sizeof row);
	}
}

/* Number by number with vk_f32_read: the array reader's oracle. */
static const char *slow_array(const char *p, const char *end, float *dst, size_t *n)
{
	static const char space[] = " \t\r\n";
	*n = 0;
	for (p++;; p++) {
		while (p < end && strchr(space, *p)) p++;
		p = vk_f32_read(p, end, &dst[(*n)++]);
		if (!p) return NULL;
		while (p < end && strchr(space, *p)) p++;
		if (p == end) return NULL;
		if (*p == ']') return p + 1;
		if (*p != ',') return NULL;
	}
}

/* Items of all shapes, lengths on both sides of the 16-byte look, spaces and now and then a
 * fault, so that each falls on each place of a 64-byte block. */
static void test_num_mixed_arrays_equal_one_by_one(void **state)
{
	(void)state;
	static const char *const forms[] = {"%.8g", "%.3f", "%.15f", "%.17g", "%.0f", "%.2e", "%.13f", "%.14f"};
	static const char *const faults[] = {"01", "1.", ".5", "--1", "1 2", "null", "", "1e", "0x1", "1.2.3", "-", "]"};
	uint64_t rng = seed_of_run();
	float got[64], want[64];
	size_t refused = 0;
	for (int round = 0; round < 60000; round++) {
		char text[4096], *p = text;
		*p++ = '[';
		for (size_t i = 0, n = 1 + vk_rng(&rng) % 60; i < n; i++) {
			uint64_t r = vk_rng(&rng);
			if (i) *p++ = ',';
			if (r % 5 == 0) *p++ = " \t\n "[r >> 8 & 3];
			if (i && r % 600 == 1) /* "[]" is a matter of its own */
				p += sprintf(p, "%s", faults[(r >> 16) % (sizeof faults / sizeof faults[0])]);
			else
				p += sprintf(p, forms[r >> 24 & 7], (double)(int64_t)vk_rng(&rng) / 9.3e17);
			if (r % 7 == 0) *p++ = ' ';
		}
		*p++ = ']';
		size_t got_n = 0, want_n = 0, skip_n = 0;
		const char *a = slow_array(text, p, want, &want_n), *b = vk_f32s_read(text, p, got, 64, &got_n);
		const char *c = vk_numbers_skip(text, p, &skip_n);
		if (a != b || a != c) fail_msg("%.*s", (int)(p - text), text);
		refused += !a;
		if (a) assert_true(got_n == want_n && skip_n == want_n);
		if (a) assert_memory_equal(got, want, want_n * sizeof *got);
	}
	assert_in_range(refused, 100, 20000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_num_random_bits_round_trip),
		cmocka_unit_test(test_num_boundaries_round_trip),
		cmocka_unit_test(test_num_printed_text),
		cmocka_unit_test(test_num_random_decimals_are_nearest),
		cmocka_unit_test(test_num_midpoints_go_to_even),
		cmocka_unit_test(test_num_overflow_is_refused_and_tiny_is_zero),
		cmocka_unit_test(test_num_other_text_is_refused),
		cmocka_unit_test(test_num_arrays),
		cmocka_unit_test(test_num_rows_round_trip),
		cmocka_unit_test(test_num_mixed_arrays_equal_one_by_one),
	};
	return cmocka_run_group_tests_name("base/num", tests, NULL, NULL);
}
