/*
 * Goal: every kernel gives the bits that simd/score.h defines, at every level, and touches nothing
 * behind a row.
 * Method: the scalar level against the header's words written down a second time; every other level
 * against the scalar one, bit by bit: all lengths to 700 and drawn ones to 20,000 (all of them with
 * VK_TEST_FULL=1), rows at every alignment that end where a forbidden page begins, ordinary and wild
 * values (subnormals, huge, zeros of both signs, infinities, NaN). Conversions over all 65,536 halves,
 * every midpoint between them, and random bits. VK_TEST_SEED replays.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simd/score.h"
#include "tests/simd/fence.h"
#include "tests/simd/levels.h"

#define DIMS_MAX 20000
#define ROWS_MAX 9

enum { DOT, L2, L1, HAMMING, KINDS };

/* ---- values ---- */

static float of_bits(uint32_t bits)
{
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

static uint32_t bits_of(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	return bits;
}

enum mood { ORDINARY, WIDE, TINY, HUGE_VALUES, ODD, MOODS };

static float value(uint64_t *rng, enum mood mood)
{
	static const float odd[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, -NAN, FLT_MAX, -FLT_MAX, 1e-45f, -1e-45f, 1};
	uint64_t r = vk_rng(rng);
	float unit = (float)((double)(int64_t)r / 9.3e18);
	switch (mood) {
	case ORDINARY: return unit;
	case WIDE: return ldexpf(unit, (int)(vk_rng(rng) % 120) - 60);
	case TINY: return of_bits((uint32_t)r & 0x81ffffff) * (r >> 40 & 1 ? 1e-20f : 1); /* and zeros */
	case HUGE_VALUES: return unit * 3e38f;
	default: return vk_rng(rng) % 8 ? unit : odd[r % (sizeof odd / sizeof odd[0])];
	}
}

/* A row of any type: its bytes are all that is compared. */
static void fill(uint64_t *rng, enum vk_dtype t, enum mood mood, uint8_t *dst, size_t dims)
{
	for (size_t i = 0; i < vk_row_bytes(t, dims); i++)
		dst[i] = mood == ORDINARY || mood == WIDE ? (uint8_t)vk_rng(rng)
							  : (uint8_t)("\0\xff\x7f\x80"[vk_rng(rng) % 4]);
	if (t == VK_DTYPE_BITS && dims % 8) dst[dims / 8] &= (uint8_t)((1u << dims % 8) - 1);
	if (t != VK_DTYPE_F32 && t != VK_DTYPE_F16) return;
	for (size_t i = 0; i < dims; i++) {
		float f = value(rng, mood);
		uint16_t h;
		vk_kernels(VK_CPU_SCALAR)->f32_to_f16(&h, &f, 1);
		if (t == VK_DTYPE_F16) memcpy(dst + 2 * i, &h, 2);
		else memcpy(dst + 4 * i, &f, 4);
	}
}

static enum vk_dtype query_type(enum vk_dtype t)
{
	return t == VK_DTYPE_F16 ? VK_DTYPE_F32 : t;
}

/* ---- the header's words ---- */

static float component(enum vk_dtype t, const uint8_t *row, size_t i)
{
	float f;
	uint16_t h;
	switch (t) {
	case VK_DTYPE_F32: memcpy(&f, row + 4 * i, 4); return f;
	case VK_DTYPE_F16:
		memcpy(&h, row + 2 * i, 2);
		int e = h >> 10 & 31, m = h & 1023;
		double size = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
		return (float)(h >> 15 ? -size : size);
	case VK_DTYPE_U8: return row[i];
	case VK_DTYPE_I8: return (int8_t)row[i];
	default: return row[i / 8] >> i % 8 & 1;
	}
}

static float by_the_words(int kind, enum vk_dtype t, const uint8_t *q, const uint8_t *x, size_t dims)
{
	float lane[32] = {0};
	double whole = 0; /* integers: exact in f64 */
	for (size_t l = 0; l < 32; l++)
		for (size_t i = l; i < dims; i += 32) {
			float a = component(query_type(t), q, i), b = component(t, x, i), d = a - b;
			lane[l] = kind == DOT ? fmaf(a, b, lane[l]) : kind == L2 ? fmaf(d, d, lane[l])
									       : lane[l] + fabsf(d);
			whole += kind == DOT ? (double)a * b : kind == L2 ? (double)d * d : fabs((double)d);
		}
	if (t != VK_DTYPE_F32 && t != VK_DTYPE_F16) return (float)whole;
	for (size_t l = 0; l < 16; l++) lane[l] += lane[l + 16];
	for (size_t l = 0; l < 8; l++) lane[l] += lane[l + 8];
	for (size_t l = 0; l < 4; l++) lane[l] += lane[l + 4];
	for (size_t l = 0; l < 2; l++) lane[l] += lane[l + 2];
	lane[0] += lane[1];
	return isnan(lane[0]) ? NAN : lane[0];
}

/* ---- scores ---- */

struct bench {
	struct fence query, rows;
	uint64_t rng;
};

static void compare(struct bench *b, enum vk_cpu_level level, int kind, enum vk_dtype t, size_t dims, enum mood mood)
{
	const struct vk_kernels *k = vk_kernels(level), *scalar = vk_kernels(VK_CPU_SCALAR);
	size_t bytes = vk_row_bytes(t, dims), n = 1 + vk_rng(&b->rng) % ROWS_MAX;
	size_t stride = bytes + vk_rng(&b->rng) % 9, q_bytes = vk_row_bytes(query_type(t), dims);
	/* The last row ends at the forbidden page; so does the query. */
	uint8_t *rows = b->rows.end - bytes - (n - 1) * stride, *q = b->query.end - q_bytes;
	fill(&b->rng, query_type(t), mood, q, dims);
	for (size_t i = 0; i < n; i++) fill(&b->rng, t, mood, rows + i * stride, dims);

	float want[ROWS_MAX], got[ROWS_MAX + 1];
	scalar->score[kind][t](q, rows, stride, n, dims, NULL, want);
	got[n] = 42;
	k->score[kind][t](q, rows, stride, n, dims, vk_rng(&b->rng) % 2 ? b->rows.end : NULL, got);
	for (size_t i = 0; i < n; i++) {
		float words = by_the_words(kind, t, q, rows + i * stride, dims);
		if (memcmp(&words, &want[i], 4) != 0)
			fail_msg("kind %d type %d dims %zu: words %a, scalar %a", kind, t, dims, (double)words,
				 (double)want[i]);
		if (memcmp(&got[i], &want[i], 4) != 0)
			fail_msg("%s kind %d type %d dims %zu mood %d row %zu of %zu: %a, scalar %a",
				 vk_cpu_level_name(level), kind, t, dims, mood, i, n, (double)got[i], (double)want[i]);
	}
	const void *row[ROWS_MAX];
	float at[ROWS_MAX + 1];
	size_t from[ROWS_MAX];
	for (size_t i = 0; i < n; i++) from[i] = vk_rng(&b->rng) % n, row[i] = rows + from[i] * stride;
	at[n] = 42;
	k->score_at[kind][t](q, row, n, dims, at);
	for (size_t i = 0; i < n; i++)
		if (memcmp(&at[i], &want[from[i]], 4) != 0)
			fail_msg("%s at, kind %d type %d dims %zu", vk_cpu_level_name(level), kind, t, dims);
	assert_true(got[n] == 42 && at[n] == 42);
}

static bool has_meaning(int kind, enum vk_dtype t)
{
	return (kind == HAMMING) == (t == VK_DTYPE_BITS);
}

static void test_score_every_level_equals_scalar(void **state)
{
	(void)state;
	struct bench b = {.rng = test_seed()};
	b.query = fence_new(4 * DIMS_MAX);
	b.rows = fence_new((4 * DIMS_MAX + 8) * ROWS_MAX);
	const bool full = getenv("VK_TEST_FULL") != NULL;
	for_each_level(level)
		for (int kind = 0; kind < KINDS; kind++)
			for (enum vk_dtype t = 0; t < VK_DTYPES; t++) {
				assert_int_equal(vk_kernels(level)->score[kind][t] != NULL, has_meaning(kind, t));
				assert_int_equal(vk_kernels(level)->score_at[kind][t] != NULL, has_meaning(kind, t));
				if (!has_meaning(kind, t)) continue;
				for (size_t dims = 1; dims <= 130 + 570 / test_share(); dims++)
					compare(&b, level, kind, t, dims, (enum mood)(dims % MOODS));
				for (size_t dims = 1; dims <= 100; dims++)
					for (enum mood m = 0; m < MOODS; m++) compare(&b, level, kind, t, dims, m);
				for (size_t i = 0; i < 3 + 9 / test_share(); i++)
					compare(&b, level, kind, t, 701 + vk_rng(&b.rng) % (DIMS_MAX - 700),
						(enum mood)(i % MOODS));
				for (size_t dims = 701; full && dims <= DIMS_MAX; dims++)
					compare(&b, level, kind, t, dims, (enum mood)(dims % MOODS));
			}
	fence_free(&b.query);
	fence_free(&b.rows);
}

/* What overflows first at the greatest length: every component at its extreme. */
static void test_score_extreme_bytes_do_not_overflow(void **state)
{
	(void)state;
	enum { DIMS = 65536 };
	uint8_t *q = malloc(DIMS), *x = malloc(DIMS);
	static const struct {
		uint8_t q, x;
		double u8[3], i8[3]; /* dot, L2, L1 of one component */
	} t[] = {{255, 255, {65025, 0, 0}, {1, 0, 0}},	  {255, 0, {0, 65025, 255}, {0, 1, 1}},
		 {0, 255, {0, 65025, 255}, {0, 1, 1}},	  {128, 128, {16384, 0, 0}, {16384, 0, 0}},
		 {128, 127, {16256, 1, 1}, {-16256, 65025, 255}}, {127, 128, {16256, 1, 1}, {-16256, 65025, 255}}};
	for_each_level(level)
		for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
			memset(q, t[i].q, DIMS);
			memset(x, t[i].x, DIMS);
			for (int kind = DOT; kind <= L1; kind++) {
				float raw = 0;
				vk_kernels(level)->score[kind][VK_DTYPE_U8](q, x, DIMS, 1, DIMS, NULL, &raw);
				assert_true(raw == (float)(t[i].u8[kind] * DIMS));
				vk_kernels(level)->score[kind][VK_DTYPE_I8](q, x, DIMS, 1, DIMS, NULL, &raw);
				assert_true(raw == (float)(t[i].i8[kind] * DIMS));
			}
		}
	free(q);
	free(x);
}

/* ---- conversions ---- */

static void test_score_halves_widen_exactly(void **state)
{
	(void)state;
	static uint16_t h[65536];
	static float got[65536];
	for (uint32_t i = 0; i < 65536; i++) h[i] = (uint16_t)i;
	for_each_level(level) {
		vk_kernels(level)->f16_to_f32(got, h, 65536);
		for (uint32_t i = 0; i < 65536; i++) {
			float want = component(VK_DTYPE_F16, (const uint8_t *)&h[i], 0);
			if (isnan(want)) /* quiet, sign and payload kept */
				want = of_bits((i >> 15) << 31 | 0x7fc00000u | (i & 1023) << 13);
			if (bits_of(got[i]) != bits_of(want))
				fail_msg("%s: half %04x gives %08x", vk_cpu_level_name(level), i, bits_of(got[i]));
		}
	}
}

/* The nearest half by looking at both neighbours of every midpoint. */
static void test_score_floats_round_to_the_nearest_half(void **state)
{
	(void)state;
	for_each_level(level)
		for (uint32_t h = 0; h < 0x7c00; h++) {
			uint16_t low = (uint16_t)h, got[6];
			float here = component(VK_DTYPE_F16, (const uint8_t *)&low, 0);
			uint16_t high = (uint16_t)(h + 1);
			float next = high == 0x7c00 ? 65536 : component(VK_DTYPE_F16, (const uint8_t *)&high, 0);
			float middle = (here + next) / 2; /* exact */
			float v[6] = {here, nextafterf(middle, 0), middle, nextafterf(middle, 1e9f), -middle, -here};
			uint16_t even = h & 1 ? high : low;
			uint16_t want[6] = {low, low, even, high, even | 0x8000, low | 0x8000};
			vk_kernels(level)->f32_to_f16(got, v, 6);
			assert_memory_equal(got, want, sizeof got);
		}
}

static void test_score_conversions_equal_scalar(void **state)
{
	(void)state;
	enum { N = 257 };
	uint64_t rng = test_seed();
	struct fence in = fence_new(4 * N), out = fence_new(4 * N);
	const struct vk_kernels *scalar = vk_kernels(VK_CPU_SCALAR);
	const int rounds = 3000 / (int)test_share();
	for_each_level(level)
		for (int round = 0; round < rounds; round++) {
			const struct vk_kernels *k = vk_kernels(level);
			size_t n = vk_rng(&rng) % N;
			uint8_t want[4 * N];
			float *src = (float *)(void *)(in.end - 4 * n);
			for (size_t i = 0; i < n; i++)
				src[i] = round % 2 ? of_bits((uint32_t)vk_rng(&rng))
						   : value(&rng, (enum mood)(vk_rng(&rng) % MOODS)) * 300;
			scalar->f32_to_f16((uint16_t *)(void *)want, src, n);
			k->f32_to_f16((uint16_t *)(void *)(out.end - 2 * n), src, n);
			assert_memory_equal(out.end - 2 * n, want, 2 * n);
			scalar->f16_to_f32((float *)(void *)want, (uint16_t *)(void *)src, n);
			k->f16_to_f32((float *)(void *)(out.end - 4 * n), (uint16_t *)(void *)src, n);
			assert_memory_equal(out.end - 4 * n, want, 4 * n);
			scalar->f32_to_u8(want, src, n);
			k->f32_to_u8(out.end - n, src, n);
			assert_memory_equal(out.end - n, want, n);
			scalar->f32_to_bits(want, src, n);
			k->f32_to_bits(out.end - (n + 7) / 8, src, n);
			assert_memory_equal(out.end - (n + 7) / 8, want, (n + 7) / 8);
			for (size_t i = 0; i < n; i++)
				if (!isfinite(src[i])) src[i] = -0.0f;
			float min, max, min1, max1;
			if (!n) continue;
			scalar->f32_min_max(src, n, &min, &max);
			k->f32_min_max(src, n, &min1, &max1);
			assert_int_equal(bits_of(min), bits_of(min1));
			assert_int_equal(bits_of(max), bits_of(max1));
		}
	fence_free(&in);
	fence_free(&out);
}

static void test_score_conversions_known_values(void **state)
{
	(void)state;
	static const float v[] = {0.99f, 1, 254.999f, 255, 256, 1e30f, INFINITY, -0.5f, -1e30f, -INFINITY, NAN, 1e-45f};
	static const uint8_t u8[] = {0, 1, 254, 255, 255, 255, 255, 0, 0, 0, 0, 0};
	static const uint8_t bits[] = {0x7f, 0x08};
	static const float big[] = {65504, 65519.996f, 65520, 1e38f, -65520, INFINITY, -INFINITY};
	static const uint16_t halves[] = {0x7bff, 0x7bff, 0x7c00, 0x7c00, 0xfc00, 0x7c00, 0xfc00};
	for_each_level(level) {
		uint8_t got[12];
		uint16_t h[7];
		vk_kernels(level)->f32_to_u8(got, v, 12);
		assert_memory_equal(got, u8, 12);
		vk_kernels(level)->f32_to_bits(got, v, 12);
		assert_memory_equal(got, bits, 2);
		vk_kernels(level)->f32_to_f16(h, big, 7);
		assert_memory_equal(h, halves, sizeof h);
		float min, max;
		vk_kernels(level)->f32_min_max(v, 5, &min, &max);
		assert_true(min == 0.99f && max == 256);
	}
}

static void test_score_at_least_keeps_what_may_enter(void **state)
{
	(void)state;
	enum { N = 300 };
	uint64_t rng = test_seed();
	struct fence in = fence_new(4 * N), out = fence_new(4 * N);
	static const float floors[] = {0, -0.0f, 0.5f, -2, 2, INFINITY, -INFINITY, NAN};
	for_each_level(level)
		for (size_t n = 0; n <= N; n++)
			for (size_t f = 0; f < 8; f++) {
				float *rank = (float *)(void *)(in.end - 4 * n);
				uint32_t *idx = (uint32_t *)(void *)(out.end - 4 * n), want[N];
				size_t kept = 0;
				for (size_t i = 0; i < n; i++) {
					rank[i] = value(&rng, n % 3 ? ORDINARY : ODD);
					if (vk_rng(&rng) % 5 == 0) rank[i] = floors[f];
					if (!isnan(rank[i]) && rank[i] >= floors[f]) want[kept++] = (uint32_t)i;
				}
				assert_int_equal(vk_kernels(level)->at_least(rank, n, floors[f], idx), kept);
				assert_memory_equal(idx, want, 4 * kept);
			}
	fence_free(&in);
	fence_free(&out);
}

/* ---- metrics ---- */

static void test_score_threshold_is_the_least_rank_let_through(void **state)
{
	(void)state;
	uint64_t rng = test_seed();
	for (size_t i = 0; i < 200000 / test_share(); i++) {
		float t = fabsf(value(&rng, (enum mood)(i % HUGE_VALUES))), floor = vk_rank_of_threshold(VK_METRIC_L2, t);
		assert_true(vk_score_of_rank(VK_METRIC_L2, floor) <= t);
		assert_true(vk_score_of_rank(VK_METRIC_L2, nextafterf(floor, -INFINITY)) > t);
	}
	assert_true(vk_rank_of_threshold(VK_METRIC_DOT, -3) == -3 && vk_rank_of_threshold(VK_METRIC_COSINE, 0.5f) == 0.5f);
	assert_true(vk_rank_of_threshold(VK_METRIC_L1, 3) == -3 && vk_rank_of_threshold(VK_METRIC_HAMMING, 7) == -7);
	for (enum vk_metric m = VK_METRIC_L2; m < VK_METRICS; m++) {
		assert_true(vk_rank_of_threshold(m, -1e-30f) == INFINITY);
		assert_true(vk_rank_of_threshold(m, 0) == 0);
		assert_true(vk_rank_of_threshold(m, INFINITY) == -INFINITY);
		assert_true(isnan(vk_rank_of_threshold(m, NAN)));
	}
	assert_true(vk_rank_of_threshold(VK_METRIC_L2, 3e38f) == -FLT_MAX);
}

static void test_score_metrics(void **state)
{
	(void)state;
	assert_int_equal(vk_metric_kind(VK_METRIC_COSINE), vk_metric_kind(VK_METRIC_DOT));
	assert_int_equal(vk_metric_kind(VK_METRIC_L2), 1);
	assert_int_equal(vk_metric_kind(VK_METRIC_L1), 2);
	assert_int_equal(vk_metric_kind(VK_METRIC_HAMMING), 3);
	assert_int_equal(vk_row_bytes(VK_DTYPE_F32, 5), 20);
	assert_int_equal(vk_row_bytes(VK_DTYPE_F16, 5), 10);
	assert_int_equal(vk_row_bytes(VK_DTYPE_I8, 5), 5);
	assert_int_equal(vk_row_bytes(VK_DTYPE_BITS, 8), 1);
	assert_int_equal(vk_row_bytes(VK_DTYPE_BITS, 9), 2);
	assert_true(vk_score_of_rank(VK_METRIC_L2, vk_rank_of_raw(VK_METRIC_L2, 9)) == 3);
	assert_true(vk_score_of_rank(VK_METRIC_L1, vk_rank_of_raw(VK_METRIC_L1, 9)) == 9);
	assert_true(vk_score_of_rank(VK_METRIC_DOT, vk_rank_of_raw(VK_METRIC_DOT, -9)) == -9);
	assert_true(vk_metric_bigger_is_nearer(VK_METRIC_COSINE) && !vk_metric_bigger_is_nearer(VK_METRIC_L1));
}

static void test_score_levels_fall_to_what_is_there(void **state)
{
	(void)state;
	for (enum vk_cpu_level level = 0; level < VK_CPU_LEVELS; level++) {
		enum vk_cpu_level got = vk_kernels(level)->level;
		assert_true(level_here(got) && got <= level);
		if (level_here(level)) assert_int_equal(got, level);
	}
}

static void test_score_inverse_norm_makes_units(void **state)
{
	(void)state;
	uint64_t rng = test_seed();
	static float row[3000], unit[3000];
	char shifted[sizeof row + 1];
	for (size_t dims = 1; dims < 3000; dims += 1 + dims / 7) {
		long double squares = 0, back = 0;
		for (size_t i = 0; i < dims; i++) row[i] = value(&rng, ORDINARY) * 1e10f, squares += (long double)row[i] * row[i];
		memcpy(shifted + 1, row, dims * 4);
		float inverse = vk_inverse_norm(row, dims);
		assert_true(fabsl(inverse * sqrtl(squares) - 1) < 1e-7L);
		assert_true(vk_inverse_norm((const float *)(const void *)(shifted + 1), dims) == inverse);
		vk_unit(unit, row, dims);
		for (size_t i = 0; i < dims; i++) {
			assert_true(unit[i] == row[i] * inverse);
			back += (long double)unit[i] * unit[i];
		}
		assert_true(fabsl(back - 1) < 1e-6L);
		vk_unit(row, row, dims);
		assert_memory_equal(row, unit, dims * 4);
	}
	memset(row, 0, sizeof row);
	assert_true(vk_inverse_norm(row, 3000) == 0);
	vk_unit(unit, row, 3000);
	assert_memory_equal(unit, row, sizeof row);
	row[0] = 1e-45f; /* 1 / norm does not fit: stays finite */
	assert_true(vk_inverse_norm(row, 1) == FLT_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_score_every_level_equals_scalar),
		cmocka_unit_test(test_score_extreme_bytes_do_not_overflow),
		cmocka_unit_test(test_score_halves_widen_exactly),
		cmocka_unit_test(test_score_floats_round_to_the_nearest_half),
		cmocka_unit_test(test_score_conversions_equal_scalar),
		cmocka_unit_test(test_score_conversions_known_values),
		cmocka_unit_test(test_score_at_least_keeps_what_may_enter),
		cmocka_unit_test(test_score_threshold_is_the_least_rank_let_through),
		cmocka_unit_test(test_score_metrics),
		cmocka_unit_test(test_score_levels_fall_to_what_is_there),
		cmocka_unit_test(test_score_inverse_norm_makes_units),
	};
	return cmocka_run_group_tests_name("simd/score", tests, NULL, NULL);
}
