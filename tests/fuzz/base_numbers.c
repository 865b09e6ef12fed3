/*
 * Goal: the number readers never leave their bytes, agree with the C library, and print what
 * reads back the same.
 * Method: the input is read as an array and as single numbers; every value is printed and
 * read again; strtof and strtod are the oracle for what was taken.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

#define INPUT_MAX 16384

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
	if (!ok) abort();
}

static void print_and_reread(const float *v, size_t n)
{
	char *text = malloc(n * (VK_F32_TEXT_MAX + 1) + 2), *end;
	float *back = malloc((n + 1) * sizeof *back);
	size_t got;
	check(text && back);
	text[0] = '[';
	end = vk_f32s_print(text + 1, v, n);
	*end++ = ']';
	check(vk_f32s_read(text, end, back, n, &got) == end && got == n);
	check(n == 0 || memcmp(v, back, n * sizeof *v) == 0);
	free(text);
	free(back);
}

static void array(const char *p, size_t size)
{
	float *v = malloc((size / 2 + 1) * sizeof *v);
	size_t n;
	check(v != NULL);
	const char *end = vk_f32s_read(p, p + size, v, size / 2 + 1, &n);
	if (end) {
		check(end <= p + size && end[-1] == ']');
		for (size_t i = 0; i < n; i++) check(isfinite(v[i]));
		if (n) check(!vk_f32s_read(p, p + size, v, n - 1, &n));
		print_and_reread(v, n);
	}
	free(v);
}

static void single(const char *p, size_t size)
{
	float f, back_f;
	double d, back_d;
	char out[VK_F64_TEXT_MAX], *text = malloc(size + 1);
	check(text != NULL);
	const char *fe = vk_f32_read(p, p + size, &f), *de = vk_f64_read(p, p + size, &d);
	if (de) {
		memcpy(text, p, (size_t)(de - p));
		text[de - p] = 0;
		char *stop;
		double want = strtod(text, &stop);
		check(*stop == 0 && memcmp(&want, &d, sizeof d) == 0);
		float want_f = strtof(text, NULL);
		check(isfinite(want_f) ? fe == de && memcmp(&want_f, &f, sizeof f) == 0 : !fe);
		char *end = vk_f64_print(out, d);
		check(vk_f64_read(out, end, &back_d) == end && memcmp(&back_d, &d, sizeof d) == 0);
	} else {
		check(!fe); /* what overflows f64 overflows f32 */
	}
	if (fe) {
		char *end = vk_f32_print(out, f);
		check(end - out <= VK_F32_TEXT_MAX);
		check(vk_f32_read(out, end, &back_f) == end && memcmp(&back_f, &f, sizeof f) == 0);
	}
	free(text);
}

/* The input's bytes as they are: any bit pattern prints and reads back. */
static void bits(const uint8_t *data, size_t size)
{
	size_t n = size / 4, kept = 0;
	float *v = malloc((n + 1) * sizeof *v);
	check(v != NULL);
	for (size_t i = 0; i < n; i++) {
		memcpy(&v[kept], data + 4 * i, 4);
		kept += isfinite(v[kept]) != 0;
	}
	print_and_reread(v, kept);
	free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > INPUT_MAX) return 0;
	char *copy = malloc(size ? size : 1);
	check(copy != NULL);
	if (size) memcpy(copy, data, size);
	array(copy, size);
	single(copy, size);
	bits(data, size);
	free(copy);
	return 0;
}
