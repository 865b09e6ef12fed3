/*
 * Goal: what is scraped is what was counted, and is text that a Prometheus parser takes.
 * Method: a small parser of the text form reads the output back; sums are checked against a model.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "server/metrics.h"

/* The value of the sample with exactly this name and label text; NAN when absent. */
static double sample(struct vk_buf *b, const char *series)
{
	size_t n = strlen(series);
	for (const char *line = vk_buf_cstr(b); line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!strncmp(line, series, n) && line[n] == ' ') return strtod(line + n + 1, NULL);
	return NAN;
}

/* Every line is a comment of the two kinds or "name{labels} number". */
static void check_grammar(struct vk_buf *b)
{
	char *text = strdup(vk_buf_cstr(b)), *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!strncmp(line, "# HELP ", 7) || !strncmp(line, "# TYPE ", 7)) continue;
		size_t name = strspn(line, "abcdefghijklmnopqrstuvwxyz_");
		assert_true(name > 0);
		char *at = line + name;
		if (*at == '{') {
			bool quoted = false;
			for (at++; *at && (quoted || *at != '}'); at++) {
				if (*at == '\\') at++;
				else if (*at == '"') quoted = !quoted;
			}
			assert_int_equal(*at++, '}');
		}
		assert_int_equal(*at++, ' ');
		char *end;
		strtod(at, &end);
		assert_true(end > at && !*end);
	}
	free(text);
}

static void test_metrics_counters_write_what_was_added(void **state)
{
	(void)state;
	struct vk_metrics *m = vk_metrics_new();
	struct vk_series *a = vk_metric(m, VK_M_HTTP_REQUESTS, "embed", "POST", "200");
	vk_metric_add(a, 3);
	vk_metric_add(vk_metric(m, VK_M_HTTP_REQUESTS, "embed", "POST", "200"), 4);
	vk_metric_add(vk_metric(m, VK_M_HTTP_REQUESTS, "em\"b\\e\nd", "POST", "500"), 1);
	assert_int_equal(vk_metric_value(a), 7);
	struct vk_buf b;
	vk_buf_init(&b, 1 << 20);
	vk_metrics_write(m, &b);
	vk_metrics_gauge(&b, "veckeep_up", "Whether.", "a=\"b\"", 1.5);
	vk_metrics_gauge(&b, "veckeep_inf", NULL, "", INFINITY);
	check_grammar(&b);
	assert_true(sample(&b, "veckeep_http_requests_total{route=\"embed\",method=\"POST\",code=\"200\"}") == 7);
	assert_true(sample(&b, "veckeep_http_requests_total{route=\"em\\\"b\\\\e\\nd\",method=\"POST\",code=\"500\"}") == 1);
	assert_true(sample(&b, "veckeep_up{a=\"b\"}") == 1.5);
	assert_true(isinf(sample(&b, "veckeep_inf")));
	vk_buf_free(&b);
	vk_metrics_free(m);
}

static void test_metrics_histogram_buckets_are_cumulative_and_sum_up(void **state)
{
	(void)state;
	struct vk_metrics *m = vk_metrics_new();
	struct vk_series *h = vk_metric(m, VK_M_HTTP_SECONDS, "embed");
	static const uint64_t us[] = {0, 25, 26, 1000, 1001, 999999, 70000000};
	for (size_t i = 0; i < sizeof us / sizeof *us; i++) vk_metric_observe_us(h, us[i]);
	struct vk_buf b;
	vk_buf_init(&b, 1 << 20);
	vk_metrics_write(m, &b);
	check_grammar(&b);
#define AT(le) sample(&b, "veckeep_http_request_duration_seconds_bucket{route=\"embed\",le=\"" le "\"}")
	assert_true(AT("2.5e-05") == 2 && AT("5e-05") == 3 && AT("0.001") == 4 && AT("0.0025") == 5);
	assert_true(AT("0.5") == 5 && AT("1") == 6 && AT("60") == 6 && AT("+Inf") == 7);
	assert_true(sample(&b, "veckeep_http_request_duration_seconds_count{route=\"embed\"}") == 7);
	assert_true(fabs(sample(&b, "veckeep_http_request_duration_seconds_sum{route=\"embed\"}") - 71.002051) < 1e-9);
	vk_buf_free(&b);
	vk_metrics_free(m);
}

static void test_metrics_labels_past_the_cap_go_to_other(void **state)
{
	(void)state;
	struct vk_metrics *m = vk_metrics_new();
	char name[32];
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof name, "provider-%d", i);
		vk_metric_add(vk_metric(m, VK_M_PROVIDER_RETRIES, name), 1);
	}
	struct vk_buf b;
	vk_buf_init(&b, 1 << 20);
	vk_metrics_write(m, &b);
	assert_true(sample(&b, "veckeep_provider_retries_total{provider=\"provider-255\"}") == 1);
	assert_true(isnan(sample(&b, "veckeep_provider_retries_total{provider=\"provider-256\"}")));
	assert_true(sample(&b, "veckeep_provider_retries_total{provider=\"other\"}") == 744);
	vk_buf_free(&b);
	vk_metrics_free(m);
}

static void *count(void *arg)
{
	struct vk_metrics *m = arg;
	for (int i = 0; i < 20000; i++) {
		vk_metric_add(vk_metric(m, VK_M_EMBED_INPUTS, "s", i % 2 ? "hit" : "miss"), 1);
		vk_metric_observe_us(vk_metric(m, VK_M_HTTP_SECONDS, "embed"), 10);
	}
	return NULL;
}

static void test_metrics_threads_lose_nothing(void **state)
{
	(void)state;
	struct vk_metrics *m = vk_metrics_new();
	pthread_t t[4];
	struct vk_buf b;
	vk_buf_init(&b, 1 << 20);
	for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, count, m);
	for (int i = 0; i < 20; i++) { /* scrapes meanwhile */
		b.n = 0;
		vk_metrics_write(m, &b);
	}
	for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
	b.n = 0;
	vk_metrics_write(m, &b);
	assert_true(sample(&b, "veckeep_embed_inputs_total{space=\"s\",result=\"hit\"}") == 40000);
	assert_true(sample(&b, "veckeep_http_request_duration_seconds_count{route=\"embed\"}") == 80000);
	assert_true(fabs(sample(&b, "veckeep_http_request_duration_seconds_sum{route=\"embed\"}") - 0.8) < 1e-9);
	vk_buf_free(&b);
	vk_metrics_free(m);
}

static void test_metrics_escape_cuts_at_a_character(void **state)
{
	(void)state;
	char text[6];
	vk_metrics_escape(text, sizeof text, "a\"b\\c");
	assert_string_equal(text, "a\\\"b");
	vk_metrics_escape(text, 4, "ab\xc3\xa9z");
	assert_string_equal(text, "ab");
	vk_metrics_escape(text, 5, "ab\xc3\xa9z");
	assert_string_equal(text, "ab\xc3\xa9");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_metrics_counters_write_what_was_added),
		cmocka_unit_test(test_metrics_histogram_buckets_are_cumulative_and_sum_up),
		cmocka_unit_test(test_metrics_labels_past_the_cap_go_to_other),
		cmocka_unit_test(test_metrics_threads_lose_nothing),
		cmocka_unit_test(test_metrics_escape_cuts_at_a_character),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
