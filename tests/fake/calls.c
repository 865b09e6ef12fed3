/* One embeddings call: authorise, read, check the caps, count, make the vectors, answer; faults
 * come in at three fixed places (instead of the answer, in its rows, on the wire). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

int fake_refuse(struct fake_reply *reply, const struct fake_dialect *d, int status, const char *type,
	const char *code, const char *message)
{
	reply->status = status;
	reply->body.len = 0;
	d->error(&reply->body, status, type, code, message);
	return status;
}

bool fake_list_has(const char *list, const char *word)
{
	size_t n = strlen(word);
	for (const char *at = list; at && *at;) {
		const char *comma = strchr(at, ',');
		size_t len = comma ? (size_t)(comma - at) : strlen(at);
		if (len == n && !memcmp(at, word, n))
			return true;
		at = comma ? comma + 1 : NULL;
	}
	return false;
}

uint32_t fake_dims_of(const struct fake *f, const char *model)
{
	size_t n = strlen(model);
	for (const char *at = f->opt.dims_per_model; at && *at;) {
		if (!strncmp(at, model, n) && at[n] == '=')
			return (uint32_t)atoi(at + n + 1);
		at = strchr(at, ',');
		if (at)
			at++;
	}
	return f->opt.dims;
}

static int check_auth(struct fake *f, const struct fake_dialect *d, const struct fake_request *req,
	struct fake_reply *reply)
{
	if (!f->opt.api_key)
		return 0;
	const char *bearer = fake_request_header(req, "authorization");
	const char *key = fake_request_header(req, "api-key");
	if (bearer && !strncmp(bearer, "Bearer ", 7) && !strcmp(bearer + 7, f->opt.api_key))
		return 0;
	if (d == &fake_azure && key && !strcmp(key, f->opt.api_key))
		return 0;
	if (d == &fake_azure)
		return fake_refuse(reply, d, 401, NULL, "401",
			"Access denied due to invalid subscription key or wrong API endpoint.");
	return fake_refuse(reply, d, 401, "invalid_request_error", "invalid_api_key",
		"Incorrect API key provided.");
}

static int check_caps(struct fake *f, const struct fake_call *call, size_t body_n, struct fake_reply *reply)
{
	const struct fake_options *o = &f->opt;
	const struct fake_dialect *d = call->dialect;
	char why[160];
	if (o->caps_bytes && body_n > o->caps_bytes)
		return fake_refuse(reply, d, 413, "invalid_request_error", NULL, "Request body too large");
	if (o->caps_items && call->count > o->caps_items) {
		snprintf(why, sizeof why, d == &fake_tei ? "batch size %zu > maximum allowed batch size %zu"
			: "Invalid 'input': array too long. Got %zu inputs, the maximum is %zu.",
			call->count, o->caps_items);
		return fake_refuse(reply, d, d == &fake_tei ? 422 : 400, d == &fake_tei ? "Validation"
			: "invalid_request_error", NULL, why);
	}
	for (size_t i = 0; o->caps_input_tokens && i < call->count; i++) {
		if (call->inputs[i].tokens <= o->caps_input_tokens)
			continue;
		snprintf(why, sizeof why, "This model's maximum context length is %zu tokens, however you "
			"requested %zu tokens. Please reduce your prompt.", o->caps_input_tokens,
			call->inputs[i].tokens);
		return fake_refuse(reply, d, d == &fake_tei ? 422 : 400, d == &fake_tei ? "Validation"
			: "invalid_request_error", NULL, why);
	}
	if (o->caps_tokens && call->tokens > o->caps_tokens) {
		snprintf(why, sizeof why, "Requested %zu tokens, max %zu tokens per request", call->tokens,
			o->caps_tokens);
		return fake_refuse(reply, d, d == &fake_tei ? 422 : 400, d == &fake_tei ? "Validation"
			: "max_tokens_per_request", "max_tokens_per_request", why);
	}
	return 0;
}

static int check_model(struct fake *f, struct fake_call *call, struct fake_reply *reply)
{
	char why[300];
	if (f->opt.models && !fake_list_has(f->opt.models, call->model)) {
		snprintf(why, sizeof why, call->dialect == &fake_ollama || call->dialect == &fake_ollama_old
			? "model '%.200s' not found" : "The model '%.200s' does not exist or you do not have "
			"access to it.", call->model);
		return fake_refuse(reply, call->dialect, 404, "invalid_request_error",
			call->dialect == &fake_azure ? "DeploymentNotFound" : "model_not_found", why);
	}
	uint32_t native = fake_dims_of(f, call->model);
	if (!call->dims)
		call->dims = native;
	if (call->dims > native) {
		snprintf(why, sizeof why, "Invalid value for 'dimensions' = %u. Must be less than or equal "
			"to %u.", call->dims, native);
		return fake_refuse(reply, call->dialect, 400, "invalid_request_error", NULL, why);
	}
	call->space = f->opt.space ? f->opt.space : call->model;
	return 0;
}

static void make_rows(struct fake *f, struct fake_call *call)
{
	call->items = fake_arena_take(&f->arena, (call->count + 1) * sizeof *call->items);
	call->item_count = call->count;
	for (size_t i = 0; i < call->count; i++) {
		/* room for one component more: wrong_dims */
		float *row = fake_arena_take(&f->arena, ((size_t)call->dims + 1) * sizeof *row);
		const struct fake_input *in = &call->inputs[i];
		fake_vector(row, call->space, call->role, call->dims, in->bytes, in->n);
		if (f->opt.normalize)
			fake_normalize(row, call->dims);
		row[call->dims] = 0.5f;
		call->items[i] = (struct fake_item){.row = row, .dims = call->dims, .index = (long)i};
	}
}

/* 0, or the status of the refusal that is written. */
static int call_read(struct fake *f, struct fake_call *call, const struct fake_request *req,
	const struct fake_json **body, struct fake_reply *reply)
{
	const char *why = NULL;
	int status = check_auth(f, call->dialect, req, reply);
	if (status)
		return status;
	*body = fake_json_read(&f->arena, req->body, req->body_n, &why);
	if (!*body || (*body)->type != FAKE_OBJECT) {
		char text[120];
		snprintf(text, sizeof text, "We could not parse the JSON body of your request: %s",
			why ? why : "not an object");
		return fake_refuse(reply, call->dialect, 400, "invalid_request_error", NULL, text);
	}
	status = call->dialect->read(f, *body, call, reply);
	if (!status)
		status = check_model(f, call, reply);
	for (size_t i = 0; !status && i < call->count; i++)
		call->tokens += call->inputs[i].tokens;
	return status;
}

static void call_answer(struct fake *f, struct fake_call *call, struct fake_reply *reply)
{
	if (fake_faults_instead(f, call, reply))
		return;
	make_rows(f, call);
	fake_faults_rows(f, call);
	call->dialect->write(f, call, &reply->body, &reply->headers);
}

void fake_call_answer(struct fake *f, const struct fake_dialect *d, const char *deployment,
	const struct fake_request *req, struct fake_reply *reply)
{
	struct fake_call call = {.dialect = d, .deployment = deployment, .model = "", .space = "",
		.role = "none"};
	const struct fake_json *body = NULL;
	f->fired_count = 0;
	reply->counted = true;
	reply->delay_ms = f->opt.delay_ms;
	if (++f->stats.in_flight > f->stats.max_in_flight)
		f->stats.max_in_flight = f->stats.in_flight;
	int status = call_read(f, &call, req, &body, reply);
	if (status)
		call.count = 0; /* inputs may be half read */
	fake_stats_call(f, &call);
	if (!status)
		status = check_caps(f, &call, req->body_n, reply);
	if (!status) {
		call_answer(f, &call, reply);
		fake_faults_wire(f, &call, reply);
		if (reply->status == 200 && !f->fired_count) {
			f->stats.ok_calls++;
			f->stats.ok_inputs += call.count;
		}
	}
	fake_buf_fmt(&reply->headers, "x-request-id: req_fake_%llu\r\n", (unsigned long long)f->stats.calls);
	fake_stats_request(f, req, &call, reply->status, body != NULL);
}
