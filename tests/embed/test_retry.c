/*
 * Goal: every row of the retry table and every billing disguise gets the verdict that
 * providers' own documents ask for; backoff stays in its bounds; the breaker does what its
 * header says.
 * Method: tables of (status, headers, body) against verdicts; bounds over seeded runs; the
 * breaker against a model that knows only the rules, over random walks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "embed/retry.h"

#define SEED 20261122u

struct judged {
	int status;
	const char *body;
	enum vk_fault fault;
	const char *text, *code; /* NULL: not looked at */
	unsigned attempts_max;
};

static void judge(const struct judged *t, struct vk_verdict *v)
{
	struct vk_xfer x = {.end = VK_XFER_OK, .status = t->status, .retry_after_ms = -1, .should_retry = -1};
	vk_buf_init(&x.reply, 1 << 20);
	vk_buf_puts(&x.reply, t->body);
	vk_retry_judge(&x, v);
	vk_buf_free(&x.reply);
}

static const struct judged table[] = {
	{200, "{}", VK_FAULT_NONE, "", "", 0},
	{204, "", VK_FAULT_NONE, "", "", 0},
	{301, "<html>moved</html>", VK_FAULT_FATAL, NULL, NULL, 0},
	{400, "{}", VK_FAULT_INPUT, "{}", "", 0},
	{401, "{\"error\":{\"message\":\"bad key\",\"code\":\"invalid_api_key\"}}", VK_FAULT_AUTH, "bad key", "invalid_api_key", 0},
	{402, "{\"error\":{\"code\":402,\"message\":\"Insufficient credits\"}}", VK_FAULT_BILLING, "Insufficient credits", "402", 0},
	{403, "no", VK_FAULT_FATAL, "no", "", 0},
	{404, "{\"error\":\"model 'x' not found\"}", VK_FAULT_FATAL, "model 'x' not found", "", 0},
	{404, "{\"error\":{\"code\":\"DeploymentNotFound\",\"message\":\"m\"}}", VK_FAULT_FATAL, "m", "DeploymentNotFound", 0},
	{405, "", VK_FAULT_FATAL, "", "", 0},
	{408, "", VK_FAULT_TRANSIENT, NULL, NULL, 0},
	{409, "{\"code\":\"CONFLICT_RESOURCE_BUSY\"}", VK_FAULT_TRANSIENT, NULL, "CONFLICT_RESOURCE_BUSY", 0},
	{413, "{\"message\":\"batch size 40 > maximum allowed batch size 32\"}", VK_FAULT_SPLIT, NULL, NULL, 0},
	{418, "", VK_FAULT_FATAL, NULL, NULL, 0},
	{422, "{\"detail\":[{\"msg\":\"field required\",\"loc\":[\"body\"]}]}", VK_FAULT_INPUT, "field required", "", 0},
	{424, "{\"error\":\"backend\",\"error_type\":\"backend\"}", VK_FAULT_TRANSIENT, "backend", "backend", 2},
	{425, "", VK_FAULT_TRANSIENT, NULL, NULL, 0},
	{429, "{\"error\":{\"message\":\"Rate limit reached\",\"type\":\"requests\",\"param\":null,\"code\":\"rate_limit_exceeded\"}}", VK_FAULT_TRANSIENT, "Rate limit reached", "rate_limit_exceeded", 0},
	{429, "{\"message\":\"Model is overloaded\",\"code\":429,\"type\":\"Overloaded\"}", VK_FAULT_TRANSIENT, "Model is overloaded", "429", 0},
	{429, "{\"error\":\"Model is overloaded\",\"error_type\":\"Overloaded\"}", VK_FAULT_TRANSIENT, "Model is overloaded", "Overloaded", 0},
	{499, "", VK_FAULT_TRANSIENT, NULL, NULL, 0},
	{500, "", VK_FAULT_TRANSIENT, NULL, NULL, 0},
	{501, "", VK_FAULT_FATAL, NULL, NULL, 0},
	{502, "<html>Bad gateway</html>", VK_FAULT_TRANSIENT, "<html>Bad gateway</html>", "", 0},
	{503, "{\"error\":{\"code\":503,\"message\":\"Loading model\",\"type\":\"unavailable_error\"}}", VK_FAULT_TRANSIENT, "Loading model", "503", 0},
	{504, "", VK_FAULT_TRANSIENT, NULL, NULL, 0},
	{505, "", VK_FAULT_FATAL, NULL, NULL, 0},
	{529, "", VK_FAULT_TRANSIENT, NULL, NULL, 0},

	/* billing disguises */
	{429, "{\"error\":{\"message\":\"You exceeded your current quota\",\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}}", VK_FAULT_BILLING, NULL, "insufficient_quota", 0},
	{429, "{\"error\":{\"message\":\"m\",\"type\":\"insufficient_quota\",\"code\":null}}", VK_FAULT_BILLING, "m", "insufficient_quota", 0},
	{429, "{\"error\":{\"message\":\"m\",\"type\":\"insufficient_quota\",\"code\":\"credit_balance_exhausted\"}}", VK_FAULT_BILLING, NULL, "credit_balance_exhausted", 0},
	{429, "{\"error\":{\"message\":\"m\",\"type\":\"t\",\"code\":\"organization_spend_limit_exceeded\"}}", VK_FAULT_BILLING, NULL, NULL, 0},
	{429, "{\"error\":{\"message\":\"m\",\"code\":\"project_spend_limit_exceeded\"}}", VK_FAULT_BILLING, NULL, NULL, 0},
	{429, "{\"error\":{\"message\":\"m\",\"code\":\"organization_usage_limit_exceeded\"}}", VK_FAULT_BILLING, NULL, NULL, 0},
	{400, "{\"error\":{\"message\":\"m\",\"code\":\"billing_hard_limit_reached\"}}", VK_FAULT_BILLING, NULL, NULL, 0},
	{403, "{\"code\":\"AUTHZ_INSUFFICIENT_BALANCE\",\"message\":\"no money\",\"detail\":\"d\"}", VK_FAULT_BILLING, "no money", "AUTHZ_INSUFFICIENT_BALANCE", 0},
	{429, "{\"result\":null,\"success\":false,\"errors\":[{\"code\":3036,\"message\":\"You have used up your daily free allocation\"}]}", VK_FAULT_BILLING, NULL, "3036", 0},
	{429, "{\"result\":null,\"success\":false,\"errors\":[{\"code\":3040,\"message\":\"No more data centers to forward the request to\"}]}", VK_FAULT_TRANSIENT, "No more data centers to forward the request to", "3040", 0},

	/* batches that are too large */
	{400, "{\"error\":{\"message\":\"Requested 600000 tokens, max 300000 tokens per request\",\"code\":\"max_tokens_per_request\"}}", VK_FAULT_SPLIT, NULL, NULL, 0},
	{400, "{\"error\":{\"message\":\"Invalid 'input': maximum request size is 300000 tokens per request.\",\"code\":null}}", VK_FAULT_SPLIT, NULL, NULL, 0},
	{400, "{\"error\":{\"message\":\"Invalid 'input': array too long. Expected an array with maximum length 2048\",\"code\":\"array_above_max_length\"}}", VK_FAULT_SPLIT, NULL, NULL, 0},
	{400, "{\"error\":{\"message\":\"Too many inputs. The max number of inputs is 16.\"}}", VK_FAULT_SPLIT, NULL, NULL, 0},
	{400, "{\"object\":\"error\",\"message\":\"Too many tokens overall, split into more batches.\",\"type\":\"invalid_request_prompt\",\"param\":null,\"code\":\"3210\"}", VK_FAULT_SPLIT, NULL, "3210", 0},
	{400, "{\"object\":\"error\",\"message\":\"other words\",\"code\":3210}", VK_FAULT_SPLIT, NULL, "3210", 0},
	{400, "{\"detail\":\"Request to model 'voyage-code-3' failed. The max allowed tokens per submitted batch is 120000. ...\"}", VK_FAULT_SPLIT, NULL, NULL, 0},
	{422, "{\"error\":\"batch size 40 > maximum allowed batch size 32\",\"error_type\":\"Validation\"}", VK_FAULT_SPLIT, NULL, "Validation", 0},
	{422, "{\"detail\":[{\"msg\":\"List should have at most 2048 items after validation\"}]}", VK_FAULT_SPLIT, NULL, NULL, 0},

	/* one input that never fits */
	{400, "{\"error\":{\"message\":\"This model's maximum context length is 8192 tokens\",\"code\":\"context_length_exceeded\"}}", VK_FAULT_INPUT, NULL, "context_length_exceeded", 0},
	{400, "{\"error\":\"the input length exceeds the context length\"}", VK_FAULT_INPUT, NULL, NULL, 0},
	{400, "{\"error\":{\"code\":400,\"message\":\"the request exceeds the available context size\",\"type\":\"exceed_context_size_error\",\"n_ctx\":512}}", VK_FAULT_INPUT, NULL, "400", 0},
	{500, "{\"error\":{\"code\":500,\"message\":\"input is too large to process. increase the physical batch size\",\"type\":\"server_error\"}}", VK_FAULT_INPUT, NULL, NULL, 0},
	{422, "{\"error\":\"Input validation error: `inputs` must have less than 512 tokens. Given: 600\",\"error_type\":\"Validation\"}", VK_FAULT_INPUT, NULL, NULL, 0},

	/* the request and not the input */
	{400, "{\"code\":\"INPUT_MODEL_NOT_FOUND\",\"detail\":\"no model\"}", VK_FAULT_FATAL, "no model", NULL, 0},
	{400, "{\"success\":false,\"errors\":[{\"code\":5007,\"message\":\"No such model\"}]}", VK_FAULT_FATAL, "No such model", "5007", 0},
};

static void test_judge_each_row_gets_its_fault(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		const struct judged *t = &table[i];
		struct vk_verdict v;
		judge(t, &v);
		if (v.fault != t->fault) fail_msg("row %zu, %d %s: fault %d, not %d", i, t->status, t->body, v.fault, t->fault);
		if (t->text) assert_string_equal(v.text, t->text);
		if (t->code) assert_string_equal(v.code, t->code);
		assert_int_equal(v.attempts_max, t->attempts_max);
		assert_int_equal(v.retry_after_ms, -1);
	}
}

static void test_judge_end_without_reply(void **state)
{
	(void)state;
	static const struct {
		enum vk_xfer_end end;
		int status;
		enum vk_fault fault;
	} ends[] = {
		{VK_XFER_CONNECT, 0, VK_FAULT_TRANSIENT}, {VK_XFER_TIMEOUT, 0, VK_FAULT_TRANSIENT},
		{VK_XFER_TIMEOUT, 200, VK_FAULT_TRANSIENT}, {VK_XFER_BROKEN, 0, VK_FAULT_TRANSIENT},
		{VK_XFER_BROKEN, 200, VK_FAULT_TRANSIENT}, {VK_XFER_BROKEN, 413, VK_FAULT_SPLIT},
		{VK_XFER_BROKEN, 401, VK_FAULT_AUTH}, {VK_XFER_TOO_LARGE, 200, VK_FAULT_FATAL},
		{VK_XFER_REFUSED, 0, VK_FAULT_FATAL}, {VK_XFER_CANCELLED, 0, VK_FAULT_FATAL},
	};
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
		struct vk_xfer x = {.end = ends[i].end, .status = ends[i].status, .retry_after_ms = -1,
				    .should_retry = -1, .error = "curl's words"};
		struct vk_verdict v;
		vk_retry_judge(&x, &v);
		assert_int_equal(v.fault, ends[i].fault);
		if (!ends[i].status) assert_string_equal(v.text, "curl's words");
	}
}

static void test_judge_should_retry_is_obeyed_but_not_for_money(void **state)
{
	(void)state;
	static const struct {
		int status, should;
		const char *body;
		enum vk_fault fault;
	} rows[] = {
		{429, 0, "{}", VK_FAULT_FATAL}, {500, 0, "{}", VK_FAULT_FATAL}, {429, 1, "{}", VK_FAULT_TRANSIENT},
		{400, 1, "{}", VK_FAULT_TRANSIENT}, {404, 1, "{}", VK_FAULT_TRANSIENT}, {400, 0, "{}", VK_FAULT_INPUT},
		{401, 1, "{}", VK_FAULT_AUTH}, {413, 1, "{}", VK_FAULT_SPLIT},
		{429, 1, "{\"error\":{\"code\":\"insufficient_quota\"}}", VK_FAULT_BILLING},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct vk_xfer x = {.end = VK_XFER_OK, .status = rows[i].status, .retry_after_ms = 1500,
				    .should_retry = (signed char)rows[i].should};
		struct vk_verdict v;
		vk_buf_init(&x.reply, 1000);
		vk_buf_puts(&x.reply, rows[i].body);
		vk_retry_judge(&x, &v);
		vk_buf_free(&x.reply);
		assert_int_equal(v.fault, rows[i].fault);
		assert_int_equal(v.retry_after_ms, 1500);
	}
}

static void test_judge_credentials_never_stand_in_text(void **state)
{
	(void)state;
	static const char *const headers[] = {"Content-Type: application/json", "Authorization: Bearer sk-abcdefgh12345678",
					      "X-Key: anothersecretvalue", NULL};
	char long_body[400];
	snprintf(long_body, sizeof long_body, "{\"message\":\"%0*d sk-abcdefgh12345678\"}", 185, 7);
	const char *bodies[] = {
		"{\"error\":{\"message\":\"Incorrect API key sk-abcdefgh12345678, twice: sk-abcdefgh12345678.\",\"code\":\"anothersecretvalue\"}}",
		"plain text that says Bearer sk-abcdefgh12345678 of application/json",
		long_body, /* the secret is cut by the text's own maximum */
	};
	for (size_t i = 0; i < 3; i++) {
		struct vk_xfer x = {.end = VK_XFER_OK, .status = 401, .should_retry = -1, .headers = headers};
		struct vk_verdict v;
		vk_buf_init(&x.reply, 1000);
		vk_buf_puts(&x.reply, bodies[i]);
		vk_retry_judge(&x, &v);
		vk_buf_free(&x.reply);
		assert_null(strstr(v.text, "sk-abcde"));
		assert_null(strstr(v.code, "anothers"));
		assert_non_null(strstr(v.text, "***"));
		if (i == 1) assert_non_null(strstr(v.text, "Bearer *** of application/json"));
	}
}

static void test_error_text_precedence_and_hygiene(void **state)
{
	(void)state;
	static const struct {
		const char *body, *text, *code;
	} rows[] = {
		{"{\"error\":{\"message\":\"a\"},\"message\":\"b\"}", "a", ""},
		{"{\"error\":\"a\",\"message\":\"b\"}", "a", ""},
		{"{\"error\":{},\"message\":\"b\",\"Message\":\"c\"}", "b", ""},
		{"{\"Message\":\"c\",\"detail\":\"d\"}", "c", ""},
		{"{\"errors\":[{\"message\":\"e\",\"code\":12}],\"detail\":\"d\"}", "e", "12"},
		{"{\"detail\":\"d\"}", "d", ""},
		{"{\"detail\":[{\"msg\":\"m\"}]}", "m", ""},
		{"[{\"error\":{\"message\":\"g\",\"code\":403,\"status\":\"PERMISSION_DENIED\"}}]", "g", "403"},
		{"{\"error\":{\"message\":\"a\\nb\\u0007c\\u202ed\",\"code\":\"x\\ty\"}}", "a b c d", "x y"},
		{"plain \x01words\xff and \xc3\xa9", "plain  words? and \xc3\xa9", ""},
		{"{\"truncated\":", "{\"truncated\":", ""},
		{"", "", ""},
		{"{\"error\":{\"message\":\"\"},\"message\":\"b\"}", "b", ""},
	};
	char text[200], code[48];
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		vk_retry_error_text(vk_bytes_of(rows[i].body), text, sizeof text, code, sizeof code);
		assert_string_equal(text, rows[i].text);
		assert_string_equal(code, rows[i].code);
	}
	/* Cut at whole characters. */
	char body[1000] = "{\"message\":\"";
	for (int i = 0; i < 300; i++) strcat(body, "\xc3\xa9");
	strcat(body, "\"}");
	vk_retry_error_text(vk_bytes_of(body), text, 100, code, sizeof code);
	assert_int_equal(strlen(text), 98);
	assert_int_equal(vk_utf8_valid(text, 98), 98);
}

static void test_judge_body_takes_its_own_code_as_status(void **state)
{
	(void)state;
	static const struct {
		const char *body;
		enum vk_fault fault;
	} rows[] = {
		{"{\"error\":{\"code\":429,\"message\":\"slow\"}}", VK_FAULT_TRANSIENT},
		{"{\"error\":{\"code\":402,\"message\":\"pay\"}}", VK_FAULT_BILLING},
		{"{\"error\":{\"code\":401,\"message\":\"who\"}}", VK_FAULT_AUTH},
		{"{\"error\":{\"code\":400,\"message\":\"bad\"}}", VK_FAULT_INPUT},
		{"{\"error\":{\"code\":404,\"message\":\"gone\"}}", VK_FAULT_FATAL},
		{"{\"error\":{\"code\":200,\"message\":\"odd\"}}", VK_FAULT_TRANSIENT},
		{"{\"error\":{\"code\":99999999999999999999,\"message\":\"odd\"}}", VK_FAULT_TRANSIENT},
		{"{\"error\":\"loading\"}", VK_FAULT_TRANSIENT},
		{"{\"error\":{\"code\":\"insufficient_quota\",\"message\":\"m\"}}", VK_FAULT_BILLING},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct vk_verdict v;
		vk_retry_judge_body(vk_bytes_of(rows[i].body), &v);
		assert_int_equal(v.fault, rows[i].fault);
		assert_int_equal(v.retry_after_ms, -1);
	}
}

static void test_delay_stays_in_bounds_and_uses_them(void **state)
{
	(void)state;
	uint64_t rng = SEED;
	static const int64_t tops[] = {500, 1000, 2000, 4000, 8000, 8000, 8000};
	for (unsigned attempt = 0; attempt < 7; attempt++) {
		int64_t least = INT64_MAX, most = -1, sum = 0;
		for (int i = 0; i < 4000; i++) {
			int64_t d = vk_retry_delay_ms(attempt, -1, 60000, &rng);
			assert_in_range(d, 0, tops[attempt]);
			least = d < least ? d : least;
			most = d > most ? d : most;
			sum += d;
		}
		/* Uniform: both ends are met and the mean is the middle. */
		assert_true(least <= tops[attempt] / 100 && most >= tops[attempt] * 99 / 100);
		assert_in_range(sum / 4000, tops[attempt] * 47 / 100, tops[attempt] * 53 / 100);
	}
	assert_in_range(vk_retry_delay_ms(UINT32_MAX, -1, 60000, &rng), 0, 8000);
}

static void test_delay_obeys_the_provider_and_the_deadline(void **state)
{
	(void)state;
	uint64_t rng = SEED;
	for (int i = 0; i < 1000; i++) {
		assert_in_range(vk_retry_delay_ms(0, 3000, 5000, &rng), 3000, 3000);
		assert_in_range(vk_retry_delay_ms(3, 3000, 5000, &rng), 3000, 4000);
		assert_in_range(vk_retry_delay_ms(6, -1, 100, &rng), 0, 100);
		assert_int_equal(vk_retry_delay_ms(0, 5001, 5000, &rng), -1);
		assert_int_equal(vk_retry_delay_ms(0, 5000, 5000, &rng), 5000);
		assert_int_equal(vk_retry_delay_ms(0, -1, 0, &rng), 0);
	}
	uint64_t a = 7, b = 7;
	for (int i = 0; i < 100; i++)
		assert_int_equal(vk_retry_delay_ms(4, -1, 9000, &a), vk_retry_delay_ms(4, -1, 9000, &b));
}

/* ---- breaker ---- */

static void test_breaker_opens_after_five_and_probes_once(void **state)
{
	(void)state;
	struct vk_breaker b = {0};
	for (int i = 0; i < 4; i++) vk_breaker_failure(&b, VK_FAULT_TRANSIENT, -1, 1000);
	assert_true(vk_breaker_take(&b, 1000));
	vk_breaker_success(&b); /* in a row means in a row */
	for (int i = 0; i < 4; i++) vk_breaker_failure(&b, VK_FAULT_TRANSIENT, -1, 1000);
	assert_true(vk_breaker_ready(&b, 1000));
	vk_breaker_failure(&b, VK_FAULT_TRANSIENT, -1, 1000);
	assert_false(vk_breaker_take(&b, 1000));
	assert_false(vk_breaker_take(&b, 2999));
	assert_true(vk_breaker_ready(&b, 3000));
	assert_true(vk_breaker_take(&b, 3000));
	assert_false(vk_breaker_take(&b, 3001)); /* the probe is out */
	vk_breaker_failure(&b, VK_FAULT_TRANSIENT, -1, 3500);
	assert_false(vk_breaker_take(&b, 3500 + 3999)); /* doubled */
	assert_true(vk_breaker_take(&b, 3500 + 4000));
	vk_breaker_success(&b);
	assert_int_equal(b.state, VK_BREAKER_CLOSED);
	assert_true(vk_breaker_take(&b, 7501) && vk_breaker_take(&b, 7501));
}

static void test_breaker_billing_opens_at_once_and_longer(void **state)
{
	(void)state;
	struct vk_breaker b = {0};
	vk_breaker_failure(&b, VK_FAULT_BILLING, -1, 0);
	assert_false(vk_breaker_ready(&b, 59999));
	vk_breaker_success(&b); /* a call that went before */
	assert_false(vk_breaker_ready(&b, 59999));
	assert_true(vk_breaker_ready(&b, 60000));
}

static void test_breaker_retry_after_lengthens_and_is_capped(void **state)
{
	(void)state;
	struct vk_breaker b = {0};
	for (int i = 0; i < 5; i++) vk_breaker_failure(&b, VK_FAULT_TRANSIENT, 30000, 0);
	assert_int_equal(b.until_ms, 30000);
	b = (struct vk_breaker){0};
	vk_breaker_failure(&b, VK_FAULT_BILLING, INT64_MAX, 0);
	assert_int_equal(b.until_ms, 3600 * 1000);
}

static void test_breaker_lost_probe_is_given_up(void **state)
{
	(void)state;
	struct vk_breaker b = {0};
	vk_breaker_failure(&b, VK_FAULT_BILLING, -1, 0);
	assert_true(vk_breaker_take(&b, 60000));
	assert_false(vk_breaker_take(&b, 60000 + 119999));
	assert_true(vk_breaker_take(&b, 60000 + 120000));
	vk_breaker_failure(&b, VK_FAULT_FATAL, -1, 200000); /* a probe that fails otherwise reopens */
	assert_int_equal(b.state, VK_BREAKER_OPEN);
	assert_true(vk_breaker_take(&b, b.until_ms));
	vk_breaker_failure(&b, VK_FAULT_INPUT, -1, 400000); /* it works: it only dislikes the input */
	assert_int_equal(b.state, VK_BREAKER_CLOSED);
}

/* The rules again, as words would have them: how many failures since the last good answer, until
 * when nothing goes, how often in a row it has opened. */
struct model {
	bool open, probe_out;
	unsigned bad, times;
	uint64_t until;
};

static void model_open(struct model *m, bool billing, int64_t after, uint64_t now)
{
	uint64_t first = billing ? 60000 : 2000, max = billing ? 900000 : 60000, ms = first;
	for (unsigned i = 0; i < m->times; i++) ms = ms * 2 < max ? ms * 2 : max;
	if (after > (int64_t)ms) ms = (uint64_t)after;
	m->until = now + ms;
	m->open = true;
	m->probe_out = false;
	m->times++;
}

static void test_breaker_random_walk_agrees_with_model(void **state)
{
	(void)state;
	uint64_t rng = SEED;
	size_t opened = 0, closed = 0;
	for (int walk = 0; walk < 300; walk++) {
		struct vk_breaker b = {0};
		struct model m = {0};
		uint64_t now = vk_rng(&rng) % 1000;
		for (int step = 0; step < 400; step++) {
			now += vk_rng(&rng) % 3000;
			bool half = m.open && m.probe_out;
			switch (vk_rng(&rng) % 4) {
			case 0: {
				bool may = !m.open || (now >= m.until);
				assert_int_equal(vk_breaker_ready(&b, now), may);
				assert_int_equal(vk_breaker_take(&b, now), may);
				if (m.open && may) m.probe_out = true, m.until = now + 120000;
				break;
			}
			case 1:
				vk_breaker_success(&b);
				if (!m.open || half) {
					closed += half;
					m = (struct model){0};
				}
				break;
			case 2: {
				int64_t after = vk_rng(&rng) % 3 ? -1 : (int64_t)(vk_rng(&rng) % 100000);
				vk_breaker_failure(&b, VK_FAULT_TRANSIENT, after, now);
				if (m.open && !half) break;
				if (half || ++m.bad >= 5) model_open(&m, false, after, now), opened++;
				break;
			}
			default:
				if (vk_rng(&rng) % 8) {
					vk_breaker_failure(&b, VK_FAULT_FATAL, -1, now);
					if (half) model_open(&m, false, -1, now), opened++;
				} else if (!m.open || half) {
					vk_breaker_failure(&b, VK_FAULT_BILLING, -1, now);
					model_open(&m, true, -1, now);
				}
			}
			assert_int_equal(b.state != VK_BREAKER_CLOSED, m.open);
			assert_int_equal(b.state == VK_BREAKER_HALF_OPEN, m.open && m.probe_out);
			if (m.open) assert_int_equal(b.until_ms, m.until);
		}
	}
	assert_true(opened > 100 && closed > 100); /* the walk saw what it is for */
}

int main(void)
{
	print_message("seed %u\n", SEED);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judge_each_row_gets_its_fault),
		cmocka_unit_test(test_judge_end_without_reply),
		cmocka_unit_test(test_judge_should_retry_is_obeyed_but_not_for_money),
		cmocka_unit_test(test_judge_credentials_never_stand_in_text),
		cmocka_unit_test(test_error_text_precedence_and_hygiene),
		cmocka_unit_test(test_judge_body_takes_its_own_code_as_status),
		cmocka_unit_test(test_delay_stays_in_bounds_and_uses_them),
		cmocka_unit_test(test_delay_obeys_the_provider_and_the_deadline),
		cmocka_unit_test(test_breaker_opens_after_five_and_probes_once),
		cmocka_unit_test(test_breaker_billing_opens_at_once_and_longer),
		cmocka_unit_test(test_breaker_retry_after_lengthens_and_is_capped),
		cmocka_unit_test(test_breaker_lost_probe_is_given_up),
		cmocka_unit_test(test_breaker_random_walk_agrees_with_model),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
