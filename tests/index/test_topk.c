/*
 * The selection against a full sort: goal is that floors, ties and cuts never lose or reorder a hit.
 * Method: seeded streams with few distinct ranks, pushed singly, by compare-and-compress, and merged from several
 * selections whose floors are shared. VK_TEST_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "index/topk.h"
#include "tests/simd/levels.h"

#include <math.h>

#define N 5000

static uint32_t ids[N];

static int by_id(void *arg, uint32_t a, uint32_t b)
{
	++*(uint64_t *)arg;
	return ids[a] < ids[b] ? -1 : ids[a] > ids[b];
}

static int sorted(const void *a, const void *b)
{
	const struct vk_hit *x = a, *y = b;
	if (x->rank != y->rank) return x->rank > y->rank ? -1 : 1;
	return ids[x->slot] < ids[y->slot] ? -1 : ids[x->slot] > ids[y->slot];
}

static void stream(float *rank, size_t n, unsigned distinct, uint64_t *dice)
{
	for (size_t i = 0; i < n; i++) {
		rank[i] = distinct ? (float)(vk_rng(dice) % distinct) - 3 : (float)(i * 1237 % 5003); /* all different */
		if (distinct == 7 && vk_rng(dice) % 50 == 0) rank[i] = vk_rng(dice) % 2 ? NAN : -INFINITY;
		if (distinct == 7 && vk_rng(dice) % 50 == 0) rank[i] = INFINITY;
		ids[i] = (uint32_t)i;
	}
	for (size_t i = n; i > 1; i--) {
		size_t j = vk_rng(dice) % i;
		uint32_t x = ids[i - 1];
		ids[i - 1] = ids[j];
		ids[j] = x;
	}
}

static size_t expected(const float *rank, size_t n, size_t k, float floor, struct vk_hit *hit)
{
	size_t m = 0;
	for (uint32_t i = 0; i < n; i++) {
		float r = isnan(rank[i]) ? -INFINITY : rank[i];
		if (r >= floor) hit[m++] = (struct vk_hit){i, r};
	}
	qsort(hit, m, sizeof *hit, sorted);
	return m < k ? m : k;
}

static void same(const struct vk_topk *t, size_t n, const struct vk_hit *want, size_t want_n)
{
	assert_int_equal(n, want_n);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(t->hit[i].slot, want[i].slot);
		assert_memory_equal(&t->hit[i].rank, &want[i].rank, sizeof(float));
	}
}

static const size_t ks[] = {1, 2, 10, 64, 65, 100, 1000, 4999, 5000, 6000};
static const unsigned distincts[] = {1, 2, 7, 100, 0};

static void test_topk_stream_of_ties_equals_full_sort(void **state)
{
	(void)state;
	uint64_t dice = test_seed();
	static float rank[N];
	static struct vk_hit want[N], hit[2 * 6000];
	static uint32_t idx[N];
	for (size_t a = 0; a < sizeof ks / sizeof ks[0]; a++)
		for (size_t b = 0; b < sizeof distincts / sizeof distincts[0]; b++)
			for_each_level(level) {
				uint64_t calls = 0;
				struct vk_topk t;
				float floor = vk_rng(&dice) % 3 ? -INFINITY : -1;
				stream(rank, N, distincts[b], &dice);
				vk_topk_init(&t, hit, ks[a], floor, by_id, &calls);
				for (size_t at = 0; at < N;) {
					size_t n = 1 + vk_rng(&dice) % 300;
					if (n > N - at) n = N - at;
					size_t m = vk_topk_pick(&t, vk_kernels(level), rank + at, n, idx);
					for (size_t i = 0; i < m; i++)
						vk_topk_push(&t, (uint32_t)at + idx[i], rank[at + idx[i]]);
					at += n;
				}
				size_t n = expected(rank, N, ks[a], floor, want);
				same(&t, vk_topk_finish(&t), want, n);
				if (!distincts[b]) assert_int_equal(calls, 0); /* ids are asked for at ties alone */
			}
}

static void test_topk_merged_with_shared_floor_equals_full_sort(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 1;
	static float rank[N];
	static struct vk_hit want[N], hit[3][2 * 6000];
	for (size_t a = 0; a < sizeof ks / sizeof ks[0]; a++)
		for (size_t b = 0; b < sizeof distincts / sizeof distincts[0]; b++) {
			uint64_t calls = 0;
			float shared = -INFINITY;
			struct vk_topk t[3];
			stream(rank, N, distincts[b], &dice);
			for (int i = 0; i < 3; i++) vk_topk_init(&t[i], hit[i], ks[a], -INFINITY, by_id, &calls);
			for (uint32_t i = 0; i < N; i++) {
				struct vk_topk *one = &t[vk_rng(&dice) % 3];
				vk_topk_raise(one, shared);
				vk_topk_push(one, i, rank[i]);
				shared = fmaxf(shared, one->floor);
			}
			vk_topk_merge(&t[0], &t[1]);
			vk_topk_merge(&t[0], &t[2]);
			size_t n = expected(rank, N, ks[a], -INFINITY, want);
			same(&t[0], vk_topk_finish(&t[0]), want, n);
		}
}

static void test_topk_of_nothing_is_empty(void **state)
{
	(void)state;
	struct vk_hit hit[2];
	struct vk_topk t;
	vk_topk_init(&t, hit, 0, -INFINITY, NULL, NULL);
	vk_topk_push(&t, 1, 1);
	assert_int_equal(vk_topk_finish(&t), 0);
	vk_topk_init(&t, hit, 1, 2, NULL, NULL);
	vk_topk_push(&t, 1, 1);
	assert_int_equal(vk_topk_finish(&t), 0);
}

static int descending(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return x > y ? -1 : x < y;
}

static void test_kth_value_equals_full_sort(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 2;
	static float v[N], w[N];
	for (int round = 0; round < 400; round++) {
		size_t n = 1 + vk_rng(&dice) % (round % 10 ? 40 : 2000), k = 1 + vk_rng(&dice) % n;
		unsigned distinct = distincts[vk_rng(&dice) % 5];
		for (size_t i = 0; i < n; i++) v[i] = w[i] = (float)(distinct ? vk_rng(&dice) % distinct : vk_rng(&dice));
		qsort(w, n, sizeof *w, descending);
		assert_true(vk_topk_kth(v, n, k) == w[k - 1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_topk_stream_of_ties_equals_full_sort),
		cmocka_unit_test(test_topk_merged_with_shared_floor_equals_full_sort),
		cmocka_unit_test(test_topk_of_nothing_is_empty),
		cmocka_unit_test(test_kth_value_equals_full_sort),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
