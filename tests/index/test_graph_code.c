/*
 * A graph's codes against the floats that they stand for. Goal: every profile and metric estimates the rank as well as its bits allow, a
 * stored code as query agrees with the floats of both, and codes are the same bytes at every CPU level. Method: rows in clusters off
 * zero, outliers, equal components, one dim; decoded codes are the oracle. VK_TEST_SEED replays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/index/graph_util.h"

#define N 200

static const enum vk_metric metrics[] = {VK_METRIC_DOT, VK_METRIC_COSINE, VK_METRIC_L2};
static const uint32_t sizes[] = {1, 2, 3, 15, 48, 49, 95, 96, 97, 100, 128, 224, 225, 300, 384, 768, 1500};

static struct vk_graph *coded(const struct vk_graph_conf *conf, const float *row, uint32_t n)
{
	struct vk_graph *g;
	struct vk_error err;
	assert_int_equal(vk_graph_new(conf, &g, &err), VK_OK);
	gu_mean(g, row, n);
	for (uint32_t i = 0; i < n; i++) gu_node(g, row + (size_t)i * conf->dims, i);
	return g;
}

/* x^ of a node, from the head and the codes as the layout says, not by the code under test. */
static void decode(const struct vk_graph *g, uint32_t node, double *x)
{
	const uint8_t *p = vk_graph_code_at(g, node);
	struct vk_graph_head h;
	memcpy(&h, p, sizeof h);
	for (uint32_t i = 0; i < g->code_dims; i++) {
		unsigned c;
		if (g->codec->profile == VK_GRAPH_S8) {
			c = p[16 + i];
		} else if (i < 96) {
			c = i < 48 ? p[16 + i] & 15 : p[16 + i - 48] >> 4;
		} else {
			unsigned j = (i - 96) % 128;
			const uint8_t *block = p + 64 + (i - 96) / 128 * 64;
			c = j < 64 ? block[j] & 15 : block[j - 64] >> 4;
		}
		x[i] = (double)g->mean[i] + (double)h.lo + (double)h.step * c;
	}
}

static double rank_of(enum vk_metric m, const double *a, const double *b, uint32_t dims)
{
	double dot = 0, off = 0;
	for (uint32_t i = 0; i < dims; i++) {
		dot += a[i] * b[i];
		off += (a[i] - b[i]) * (a[i] - b[i]);
	}
	return m == VK_METRIC_L2 ? -off : dot;
}

static double norm_of(const double *a, uint32_t dims)
{
	return sqrt(rank_of(VK_METRIC_DOT, a, a, dims));
}

static struct vk_graph_conf conf_of(uint32_t dims, enum vk_metric metric, enum vk_graph_profile p)
{
	return (struct vk_graph_conf){.dims = dims, .metric = metric, .profile = p, .capacity = 4096, .level = vk_cpu_best()};
}

/* The query's 8 bits are all that is lost against a decoded row: half a step a component. */
static void check_query(struct vk_graph *g, struct vk_graph_scratch *s, const float *query, uint32_t n)
{
	uint32_t dims = g->conf.dims, node[N];
	double q[1500], x[1500], most = 0;
	float near[N];
	for (uint32_t i = 0; i < dims; i++) {
		q[i] = (double)query[i];
		double used = g->conf.metric == VK_METRIC_L2 ? q[i] - (double)g->mean[i] : q[i];
		most = fmax(most, fabs(used));
	}
	vk_graph_ready(g, query, vk_graph_scratch_floats(s), vk_graph_scratch_ready(s));
	for (uint32_t i = 0; i < n; i++) node[i] = i;
	vk_graph_near(g, vk_graph_scratch_ready(s), node, n, near);
	for (uint32_t i = 0; i < n; i++) {
		decode(g, i, x);
		double want = rank_of(g->conf.metric, q, x, dims), r = 0;
		for (uint32_t j = 0; j < dims; j++) r += fabs(x[j] - (double)g->mean[j]);
		double slack = 2 * (most / 254) * r * 1.01 + 1e-4 * (1 + fabs(want) + norm_of(q, dims) * norm_of(x, dims));
		if (fabs((double)near[i] - want) > slack) {
			print_message("dims %u metric %d node %u: %g, not %g (+- %g)\n", dims, (int)g->conf.metric, i,
				      (double)near[i], want, slack);
			fail();
		}
	}
}

static void check_pairs(struct vk_graph *g, struct vk_graph_scratch *s, uint32_t n)
{
	uint32_t dims = g->conf.dims, node[N];
	double a[1500], b[1500];
	float near[N];
	for (uint32_t i = 0; i < n; i++) node[i] = i;
	for (uint32_t i = 0; i < n; i += 17) {
		decode(g, i, a);
		vk_graph_ready_node(g, i, vk_graph_scratch_ready(s));
		vk_graph_near(g, vk_graph_scratch_ready(s), node, n, near);
		for (uint32_t j = 0; j < n; j++) {
			decode(g, j, b);
			double want = rank_of(g->conf.metric, a, b, dims), scale = 1 + norm_of(a, dims) * norm_of(b, dims);
			/* Dot's own share is of the whole row: within the codes' error of the decoded one. */
			double slack = g->conf.metric == VK_METRIC_L2 ? 1e-4 * scale
				       : g->codec->profile == VK_GRAPH_S8 ? 0.02 * scale
									  : 0.25 * scale;
			if (fabs((double)near[j] - want) > slack) {
				print_message("dims %u metric %d pair %u %u: %g, not %g\n", dims, (int)g->conf.metric, i, j,
					      (double)near[j], want);
				fail();
			}
		}
	}
}

static void test_code_of_any_size_and_metric_estimates_the_rank(void **state)
{
	(void)state;
	uint64_t dice = test_seed();
	for (int p = VK_GRAPH_S8; p <= VK_GRAPH_S4; p++)
		for (size_t m = 0; m < 3; m++)
			for (size_t d = 0; d < sizeof sizes / sizeof *sizes; d++) {
				struct vk_graph_conf c = conf_of(sizes[d], metrics[m], (enum vk_graph_profile)p);
				float *row = gu_rows(N, c.dims, c.metric, &dice);
				struct vk_graph *g = coded(&c, row, N - 20);
				struct vk_graph_scratch *s = vk_graph_scratch_take(g);
				check_query(g, s, row + (size_t)(N - 1) * c.dims, N - 20);
				check_pairs(g, s, N - 20);
				vk_graph_scratch_give(g, s);
				vk_graph_free(g);
				free(row);
			}
}

static double error_mean(enum vk_graph_profile p, uint32_t dims, const float *row, uint32_t n)
{
	struct vk_graph_conf c = conf_of(dims, VK_METRIC_L2, p);
	struct vk_graph *g = coded(&c, row, 0);
	float *scratch = malloc(2 * dims * sizeof *scratch);
	double sum = 0;
	for (uint32_t i = 0; i < n; i++) {
		uint8_t *at = vk_graph_code_at(g, i);
		double x[1500], off = 0, whole = 0, told = vk_graph_encode(g, row + (size_t)i * dims, scratch, at);
		decode(g, i, x);
		for (uint32_t j = 0; j < dims; j++) {
			double v = (double)row[(size_t)i * dims + j];
			off += (v - x[j]) * (v - x[j]);
			whole += v * v;
		}
		if (whole > 0) assert_true(fabs(told - sqrt(off / whole)) < 1e-6);
		sum += told;
	}
	free(scratch);
	vk_graph_free(g);
	return sum / n;
}

static void test_error_is_what_was_lost_and_as_small_as_bits_allow(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 1;
	float *row = gu_rows(N, 384, VK_METRIC_COSINE, &dice);
	double s8 = error_mean(VK_GRAPH_S8, 384, row, N), s4 = error_mean(VK_GRAPH_S4, 384, row, N);
	print_message("error: s8 %.5f s4 %.5f\n", s8, s4);
	assert_true(s8 > 0.001 && s8 < 0.01);
	assert_true(s4 > 0.05 && s4 < 0.12);
	for (uint32_t i = 0; i < N; i++) row[(size_t)i * 384 + i] = 3; /* one component far out: the interval must not follow it */
	double outlier = error_mean(VK_GRAPH_S4, 384, row, N), plain = 0;
	for (uint32_t i = 0; i < N; i++) row[(size_t)i * 384 + i] = 0;
	plain = error_mean(VK_GRAPH_S4, 384, row, N);
	print_message("s4 with an outlier %.4f, without %.4f\n", outlier, plain);
	assert_true(outlier < 0.35); /* the whole range would lose 0.39 */
	free(row);
}

static void test_degenerate_rows_are_coded_exactly(void **state)
{
	(void)state;
	float row[4][96] = {{0}};
	for (int i = 0; i < 96; i++) {
		row[1][i] = 2.5f;
		row[2][i] = i % 2 ? 1 : -1;
		row[3][i] = 1e-42f;
	}
	for (int p = VK_GRAPH_S8; p <= VK_GRAPH_S4; p++)
		for (int i = 0; i < 3; i++) assert_true(error_mean((enum vk_graph_profile)p, 96, row[i], 1) < 1e-6);
	error_mean(VK_GRAPH_S8, 96, row[3], 1);
	error_mean(VK_GRAPH_S4, 96, row[3], 1);
}

static void test_codes_are_the_same_at_every_level(void **state)
{
	(void)state;
	uint64_t dice = test_seed() + 2;
	for (size_t d = 0; d < sizeof sizes / sizeof *sizes; d++)
		for (int p = VK_GRAPH_S8; p <= VK_GRAPH_S4; p++) {
			struct vk_graph_conf c = conf_of(sizes[d], metrics[d % 3], (enum vk_graph_profile)p);
			float *row = gu_rows(N, c.dims, c.metric, &dice), near[N], first[N];
			struct vk_graph *one = NULL;
			uint32_t node[N];
			for (uint32_t i = 0; i < N; i++) node[i] = i;
			for_each_level(level)
			{
				c.level = level;
				struct vk_graph *g = coded(&c, row, N);
				struct vk_graph_scratch *s = vk_graph_scratch_take(g);
				vk_graph_ready(g, row, vk_graph_scratch_floats(s), vk_graph_scratch_ready(s));
				vk_graph_near(g, vk_graph_scratch_ready(s), node, N, near);
				vk_graph_scratch_give(g, s);
				if (!one) {
					one = g;
					memcpy(first, near, sizeof near);
					continue;
				}
				assert_memory_equal(vk_graph_code_at(g, 0), vk_graph_code_at(one, 0), N * g->code.stride);
				assert_memory_equal(near, first, sizeof near);
				assert_true(vk_graph_same_code(g, 5, vk_graph_code_at(one, 5)));
				vk_graph_free(g);
			}
			vk_graph_free(one);
			free(row);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_code_of_any_size_and_metric_estimates_the_rank),
	    cmocka_unit_test(test_error_is_what_was_lost_and_as_small_as_bits_allow),
	    cmocka_unit_test(test_degenerate_rows_are_coded_exactly),
	    cmocka_unit_test(test_codes_are_the_same_at_every_level),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
