/*
 * Goal: a damaged or hostile weights file is VK_E_INVALID, never a crash or a read outside it.
 * Method: hand-made headers, each with one lie; every truncation of a good file (each copied to
 * a heap block of its exact size, so that a sanitizer sees a read past its end); the 16-bit
 * types against their values over all 65,536 patterns.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "embed/encoder/safetensors.h"

static const char good[] =
	"{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_"
	"offsets\":[0,8]},"
	"\"a\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[8,14]},\"s\":{\"dtype\":\"BF16\","
	"\"shape\":[],"
	"\"data_offsets\":[14,16]},\"i\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[16,16]}}";

/* Length, header, `data` bytes of data; malloc'd at its exact size. */
static struct vk_bytes file_of(const char *header, uint64_t length, size_t data)
{
	size_t n = strlen(header);
	uint8_t *p = malloc(8 + n + data);
	vk_put_u64le(p, length);
	memcpy(p + 8, header, n);
	for (size_t i = 0; i < data; i++) p[8 + n + i] = (uint8_t)(0x40 + i);
	return (struct vk_bytes){(char *)p, 8 + n + data};
}

static void expect_invalid(struct vk_bytes file)
{
	struct vk_safetensors *s = (struct vk_safetensors *)1;
	struct vk_error err;
	enum vk_status st = vk_safetensors_parse(file, &s, &err);
	if (st != VK_E_INVALID || s)
		fail_msg("status %d: %.*s", st, (int)(file.n > 8 ? file.n - 8 : 0), file.p + 8);
	assert_true(strlen(err.text) > 0);
}

static void test_safetensors_good_file_gives_its_tensors(void **state)
{
	(void)state;
	struct vk_bytes file = file_of(good, strlen(good), 16);
	struct vk_safetensors *s;
	struct vk_error err;
	float v[3], want;
	if (vk_safetensors_parse(file, &s, &err)) fail_msg("%s", err.text);
	const struct vk_tensor *t = vk_safetensors_find(s, "b");
	assert_non_null(t);
	assert_int_equal(t->type, VK_TENSOR_F32);
	assert_int_equal(t->rank, 2);
	assert_int_equal(t->shape[0], 2);
	assert_int_equal(t->count, 2);
	vk_tensor_read(t, 1, 1, v);
	memcpy(&want, "\x44\x45\x46\x47", 4);
	assert_true(v[0] == want);
	t = vk_safetensors_find(s, "s");
	assert_int_equal(t->rank, 0);
	assert_int_equal(t->count, 1);
	vk_tensor_read(t, 0, 1, v);
	memcpy(&want, "\0\0\x4e\x4f", 4);
	assert_true(v[0] == want);
	assert_int_equal(vk_safetensors_find(s, "i")->type, VK_TENSOR_OTHER);
	assert_null(vk_safetensors_find(s, "c"));
	assert_null(vk_safetensors_find(s, "__metadata__"));
	assert_true(vk_bytes_eq(vk_safetensors_bytes(s), file));
	vk_safetensors_close(s);
	free((void *)file.p);
}

static void test_safetensors_every_truncation_is_invalid(void **state)
{
	(void)state;
	struct vk_bytes file = file_of(good, strlen(good), 16);
	for (size_t n = 0; n < file.n; n++) {
		char *p = malloc(n ? n : 1);
		memcpy(p, file.p, n);
		expect_invalid((struct vk_bytes){p, n});
		free(p);
	}
	free((void *)file.p);
}

static void test_safetensors_lengths_that_do_not_fit_are_invalid(void **state)
{
	(void)state;
	static const uint64_t lengths[] = {
	    0, 1, 1000000, (uint64_t)1 << 32, INT64_MAX, UINT64_MAX - 7, UINT64_MAX};
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		struct vk_bytes file = file_of(good, lengths[i], 16);
		expect_invalid(file);
		free((void *)file.p);
	}
}

static void test_safetensors_each_lie_of_a_header_is_invalid(void **state)
{
	(void)state;
	static const char *const headers[] = {
	    "[]",
	    "1",
	    "null",
	    "{\"a\":1}",
	    "{\"a\":{}}",
	    "{\"a\":[]}",
	    "{",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"shape\":[4],\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":\"F31\",\"shape\":[4],\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":32,\"shape\":[4],\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[\"4\"],\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[4.5],\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16,16]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[4,20]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[4294967280,4294967296]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967295,4294967295,4294967295],\"data_"
	    "offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":\"F64\",\"shape\":[4294967295,1073741824],\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[2147483648,2147483648,1],\"data_offsets\":[0,0]}"
	    "}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,4],\"data_offsets\":[0,16]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":"
	    "\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
	    "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":"
	    "\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
	    "{\"a\\u0000\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
	    "{} {}",
	};
	for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
		struct vk_bytes file = file_of(headers[i], strlen(headers[i]), 16);
		expect_invalid(file);
		free((void *)file.p);
	}
}

static void test_safetensors_file_that_is_none_is_refused(void **state)
{
	(void)state;
	struct vk_safetensors *s;
	struct vk_error err;
	char path[] = "/tmp/veckeep-safetensors-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(vk_safetensors_open(path, &s, &err), VK_E_INVALID);
	assert_int_equal(vk_safetensors_open("/tmp", &s, &err), VK_E_INVALID);
	unlink(path);
	assert_int_equal(vk_safetensors_open(path, &s, &err), VK_E_NOT_FOUND);
	assert_null(s);
}

/* By the definition of binary16, not by bits: sign, 2^(exponent - 15), fraction / 1024. */
static double f16_value(unsigned h)
{
	int exponent = (int)(h >> 10 & 31);
	double fraction = (h & 1023) / 1024.0, size;
	if (exponent == 31) size = (h & 1023) ? NAN : INFINITY;
	else size = exponent ? ldexp(1 + fraction, exponent - 15) : ldexp(fraction, -14);
	return h & 0x8000 ? -size : size;
}

static void test_tensor_read_every_16_bit_pattern_has_its_value(void **state)
{
	(void)state;
	uint8_t data[2 * 65536];
	float v[65536];
	for (unsigned i = 0; i < 65536; i++)
		data[2 * i] = (uint8_t)i, data[2 * i + 1] = (uint8_t)(i >> 8);
	struct vk_tensor t = {
	    .name = "t", .type = VK_TENSOR_F16, .count = 65536, .data = data, .size = sizeof data};
	vk_tensor_read(&t, 0, 65536, v);
	for (unsigned i = 0; i < 65536; i++) {
		double want = f16_value(i);
		if (isnan(want)) assert_true(isnan(v[i]));
		else if ((double)v[i] != want || !signbit(v[i]) == (i >> 15 == 1))
			fail_msg("f16 %#x is %g", i, (double)v[i]);
	}
	t.type = VK_TENSOR_BF16;
	vk_tensor_read(&t, 3, 65533, v);
	for (unsigned i = 3; i < 65536; i++) {
		uint32_t bits = i << 16;
		assert_memory_equal(&v[i - 3], &bits, 4);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_safetensors_good_file_gives_its_tensors),
	    cmocka_unit_test(test_safetensors_every_truncation_is_invalid),
	    cmocka_unit_test(test_safetensors_lengths_that_do_not_fit_are_invalid),
	    cmocka_unit_test(test_safetensors_each_lie_of_a_header_is_invalid),
	    cmocka_unit_test(test_safetensors_file_that_is_none_is_refused),
	    cmocka_unit_test(test_tensor_read_every_16_bit_pattern_has_its_value),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
