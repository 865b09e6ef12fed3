/*
 * Goal: a filter finds rows that hang behind another row of the same code, by either walk, however they came there: by the bulk build,
 * by growing, by inheriting the first's place, by being read from a file.
 * Method: rows that stand there COPIES times; allowed are some of them that are never the first of their chain. Asked with its own
 * vector, each must be its walk's first answer. The seed is printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "index/graph_internal.h"
#include "tests/index/graph_gen.h"
#include "tests/simd/levels.h"

#define DIMS 32u
#define BASES 2000u
#define COPIES 3u
#define ROWS (BASES * COPIES)
#define EVERY 10u /* of the bases, those that have an allowed copy */

struct world {
	struct gen_rows base;
	struct vk_graph *g;
	uint64_t allow[ROWS / 64 + 1];
};

/* Copies of a base stand BASES apart, so a label says which base it is. */
static enum vk_status row_of(void *arg, uint32_t i, float *dst, uint32_t *label)
{
	const struct world *w = arg;
	memcpy(dst, gen_at(&w->base, i % BASES), DIMS * sizeof *dst);
	*label = i;
	return VK_OK;
}

static void world_begin(struct world *w, uint32_t built)
{
	struct vk_error err;
	struct vk_graph_conf c = {.dims = DIMS, .metric = VK_METRIC_L2, .profile = VK_GRAPH_S8, .capacity = 2 * ROWS, .seed = 5,
				  .level = vk_cpu_best()};
	struct vk_graph_source src = {.n = built, .row = row_of, .arg = w};
	memset(w, 0, sizeof *w);
	w->base = gen_rows(GEN_CLUSTERED, BASES, DIMS, VK_METRIC_L2, test_seed());
	assert_int_equal(vk_graph_new(&c, &w->g, &err), VK_OK);
	assert_int_equal(vk_graph_build(w->g, &src, NULL, &err), VK_OK);
}

static void world_end(struct world *w)
{
	vk_graph_free(w->g);
	free(w->base.row);
}

static void grow(struct world *w, uint32_t from)
{
	float row[DIMS];
	uint32_t label;
	for (uint32_t i = from; i < ROWS; i++) {
		assert_int_equal(row_of(w, i, row, &label), VK_OK);
		assert_int_equal(vk_graph_put(w->g, label, row), VK_OK);
	}
}

static void allow_copy(struct world *w, uint32_t copy)
{
	memset(w->allow, 0, sizeof w->allow);
	for (uint32_t b = 0; b < BASES; b += EVERY) {
		uint32_t label = copy * BASES + b;
		w->allow[label / 64] |= (uint64_t)1 << (label % 64);
	}
}

/* Of the allowed, how many are the first answer to their own vector. */
static uint32_t found_of(struct world *w, bool two_hop)
{
	struct vk_graph_scratch *s = vk_graph_scratch_take(w->g);
	uint32_t found = 0;
	for (uint32_t b = 0; b < BASES; b += EVERY) {
		uint32_t label[10];
		float near[10];
		struct vk_graph_query q = {.vector = gen_at(&w->base, b), .ef = 200, .want = 10, .label = label, .near = near,
					   .allow = w->allow, .allow_n = ROWS, .two_hop = two_hop};
		assert_int_equal(vk_graph_search(w->g, s, &q), VK_OK);
		for (uint32_t i = 0; i < q.n; i++) assert_true(w->allow[label[i] / 64] >> (label[i] % 64) & 1);
		found += q.n && label[0] % BASES == b;
	}
	vk_graph_scratch_give(w->g, s);
	return found;
}

/* Of the copies first to last, each when it alone is allowed. */
static void assert_found(struct world *w, uint32_t first, uint32_t last)
{
	const uint32_t all = BASES / EVERY, floor = all - all / 20;
	for (uint32_t copy = first; copy <= last; copy++) {
		allow_copy(w, copy);
		uint32_t plain = found_of(w, false), hop = found_of(w, true);
		print_message("copy %u, of %u: plain %u, two hop %u\n", copy, all, plain, hop);
		assert_true(plain >= floor && hop >= floor);
	}
}

static void test_chained_rows_of_a_build_are_found(void **state)
{
	(void)state;
	struct world w;
	world_begin(&w, ROWS);
	struct vk_graph_stats st;
	vk_graph_stats(w.g, &st);
	assert_true(st.chained >= ROWS - BASES);
	assert_found(&w, 0, COPIES - 1); /* whichever the first of a chain is, two of three are not */
	world_end(&w);
}

static void test_chained_rows_that_came_later_are_found(void **state)
{
	(void)state;
	struct world w;
	world_begin(&w, BASES);
	allow_copy(&w, 1);
	assert_int_equal(found_of(&w, true), 0);
	grow(&w, BASES);
	assert_found(&w, 1, 2);
	world_end(&w);
}

static void test_chained_rows_outlive_their_first(void **state)
{
	(void)state;
	struct world w;
	world_begin(&w, BASES);
	grow(&w, BASES);
	for (uint32_t b = 0; b < BASES; b++) assert_int_equal(vk_graph_del(w.g, b), VK_OK);
	assert_found(&w, 1, COPIES - 1);
	allow_copy(&w, 0);
	assert_int_equal(found_of(&w, true), 0);
	assert_int_equal(found_of(&w, false), 0);
	world_end(&w);
}

static void test_chained_rows_of_a_file_are_found(void **state)
{
	(void)state;
	char path[] = "/tmp/vk_graph_chain_XXXXXX";
	uint8_t tag[32] = {1};
	uint64_t sequence;
	struct vk_error err;
	struct world w;
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	world_begin(&w, ROWS);
	assert_int_equal(vk_graph_save(w.g, path, 7, tag, &err), VK_OK);
	vk_graph_free(w.g);
	assert_int_equal(vk_graph_open(path, 2 * ROWS, vk_cpu_best(), &w.g, &sequence, tag, &err), VK_OK);
	assert_found(&w, 0, COPIES - 1);
	world_end(&w);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_chained_rows_of_a_build_are_found),
	    cmocka_unit_test(test_chained_rows_that_came_later_are_found),
	    cmocka_unit_test(test_chained_rows_outlive_their_first),
	    cmocka_unit_test(test_chained_rows_of_a_file_are_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
