/* The wire families: which path speaks which, how a body is read, an answer and an error written.
 * Only facts from the providers' published references; README.md lists what is not copied. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

/* ---- inputs ---- */

static size_t count_words(const char *s, size_t n)
{
	size_t words = 0;
	bool inside = false;
	for (size_t i = 0; i < n; i++) {
		bool space = s[i] == ' ' || (s[i] >= '\t' && s[i] <= '\r');
		words += !space && !inside;
		inside = !space;
	}
	return words;
}

static struct fake_input input_text(const struct fake_json *v)
{
	return (struct fake_input){.bytes = v->str, .n = v->str_n, .tokens = count_words(v->str, v->str_n) + 1};
}

static bool input_tokens(struct fake *f, const struct fake_json *v, struct fake_input *in)
{
	unsigned char *bytes = fake_arena_take(&f->arena, 4 + 4 * v->count), *to = bytes + 4;
	memcpy(bytes, "\0tok", 4);
	for (const struct fake_json *id = v->child; id; id = id->next, to += 4) {
		if (id->type != FAKE_NUMBER || !id->is_int || id->num < 0 || id->num > 4294967295.0)
			return false;
		uint32_t n = (uint32_t)id->num;
		for (int i = 0; i < 4; i++)
			to[i] = (unsigned char)(n >> (8 * i));
	}
	*in = (struct fake_input){.bytes = (char *)bytes, .n = 4 + 4 * v->count, .is_tokens = true,
		.tokens = v->count};
	return v->count > 0;
}

/* text | text[] | tokens | tokens[][]; false when it is none of them. */
static bool inputs_read(struct fake *f, const struct fake_json *v, bool tokens_ok, struct fake_call *call)
{
	if (!v)
		return false;
	bool one = v->type == FAKE_STRING || (v->type == FAKE_ARRAY && v->child && v->child->type == FAKE_NUMBER);
	call->count = one ? 1 : v->count;
	call->inputs = fake_arena_take(&f->arena, (call->count + 1) * sizeof *call->inputs);
	if (v->type == FAKE_STRING) {
		call->inputs[0] = input_text(v);
		return true;
	}
	if (v->type != FAKE_ARRAY)
		return false;
	if (one)
		return tokens_ok && input_tokens(f, v, &call->inputs[0]);
	size_t i = 0;
	for (const struct fake_json *e = v->child; e; e = e->next, i++) {
		if (e->type != v->child->type)
			return false;
		if (e->type == FAKE_STRING)
			call->inputs[i] = input_text(e);
		else if (e->type != FAKE_ARRAY || !tokens_ok || !input_tokens(f, e, &call->inputs[i]))
			return false;
	}
	return true;
}

static const char *role_read(const struct fake_json *body)
{
	static const char *const fields[] = {"input_type", "task", "prompt_name", "task_type", "taskType"};
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		const char *role = fake_json_str(body, fields[i]);
		if (role)
			return role;
	}
	return "none";
}

/* With --strict a key that the provider does not know, or a null, is refused as it would. */
static int check_keys(struct fake *f, const struct fake_json *body, const char *known, struct fake_reply *reply,
	const struct fake_dialect *d)
{
	char why[200];
	for (const struct fake_json *m = body->child; f->opt.strict && m; m = m->next) {
		bool is_role = f->opt.role_field && !strcmp(m->key, f->opt.role_field);
		if (!is_role && !fake_list_has(known, m->key)) {
			snprintf(why, sizeof why, "Unrecognized request argument supplied: %.100s", m->key);
			return fake_refuse(reply, d, 400, "invalid_request_error", NULL, why);
		}
		if (m->type == FAKE_NULL) {
			snprintf(why, sizeof why, "None is not of the type of '%.100s'", m->key);
			return fake_refuse(reply, d, 400, "invalid_request_error", NULL, why);
		}
	}
	return 0;
}

static int read_dims(const struct fake_json *body, struct fake_call *call, struct fake_reply *reply)
{
	double dims = fake_json_num(body, "dimensions", 0);
	const struct fake_json *m = fake_json_get(body, "dimensions");
	if (m && m->type != FAKE_NULL && (m->type != FAKE_NUMBER || !m->is_int || dims < 1 || dims > FAKE_DIMS_MAX))
		return fake_refuse(reply, call->dialect, 400, "invalid_request_error", NULL,
			"Invalid type for 'dimensions': expected an integer of at least 1.");
	call->dims = (uint32_t)dims;
	return 0;
}

static int read_model(const struct fake_json *body, struct fake_call *call, struct fake_reply *reply)
{
	const char *model = fake_json_str(body, "model");
	if (model)
		call->model = model;
	if (call->deployment)
		call->model = call->deployment;
	if (!*call->model)
		return fake_refuse(reply, call->dialect, 400, "invalid_request_error", NULL,
			"you must provide a model parameter");
	return 0;
}

/* ---- OpenAI, Azure ---- */

static int openai_read(struct fake *f, const struct fake_json *body, struct fake_call *call,
	struct fake_reply *reply)
{
	const struct fake_dialect *d = call->dialect;
	int status = check_keys(f, body, "model,input,encoding_format,dimensions,user", reply, d);
	if (!status)
		status = read_model(body, call, reply);
	if (!status)
		status = read_dims(body, call, reply);
	if (status)
		return status;
	const struct fake_json *format = fake_json_get(body, "encoding_format");
	if (format && format->type == FAKE_STRING && !strcmp(format->str, "base64"))
		call->base64 = true;
	else if (format && (format->type != FAKE_STRING || strcmp(format->str, "float")))
		return fake_refuse(reply, d, 400, "invalid_request_error", NULL,
			"Invalid value for 'encoding_format': expected 'float' or 'base64'.");
	call->role = role_read(body);
	if (!inputs_read(f, fake_json_get(body, "input"), true, call) || !call->count)
		return fake_refuse(reply, d, 400, "invalid_request_error", NULL, "'$.input' is invalid. Please "
			"check the API reference.");
	for (size_t i = 0; i < call->count; i++)
		if (!call->inputs[i].n && (call->count > 1 || f->opt.reject_empty))
			return fake_refuse(reply, d, 400, "invalid_request_error", NULL,
				"'$.input' is invalid. Please check the API reference.");
	return 0;
}

static void item_write(const struct fake_item *item, bool base64, struct fake_buf *out)
{
	if (item->is_null)
		fake_buf_str(out, "null");
	else if (base64)
		fake_vector_base64(out, item->row, item->dims);
	else
		fake_vector_json(out, item->row, item->dims);
}

static void openai_write(struct fake *f, const struct fake_call *call, struct fake_buf *out,
	struct fake_buf *headers)
{
	(void)f;
	fake_buf_str(out, "{\"object\":\"list\",\"data\":[");
	for (size_t i = 0; i < call->item_count; i++) {
		const struct fake_item *item = &call->items[i];
		fake_buf_str(out, i ? ",{\"object\":\"embedding\"" : "{\"object\":\"embedding\"");
		if (item->index_raw)
			fake_buf_fmt(out, ",\"index\":%s", item->index_raw);
		else if (!item->no_index)
			fake_buf_fmt(out, ",\"index\":%ld", item->index);
		fake_buf_str(out, ",\"embedding\":");
		item_write(item, call->base64, out);
		fake_buf_str(out, "}");
	}
	fake_buf_str(out, "],\"model\":");
	fake_buf_json(out, call->model, strlen(call->model));
	fake_buf_fmt(out, ",\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu}}\n", call->tokens, call->tokens);
	fake_buf_str(headers, "openai-processing-ms: 1\r\nx-ratelimit-limit-requests: 10000\r\n"
		"x-ratelimit-remaining-requests: 9999\r\nx-ratelimit-reset-requests: 6ms\r\n");
}

static void openai_error(struct fake_buf *out, int status, const char *type, const char *code,
	const char *message)
{
	(void)status;
	fake_buf_str(out, "{\"error\":{\"message\":");
	fake_buf_json_bytes(out, message, strlen(message));
	fake_buf_str(out, ",\"type\":");
	fake_buf_json(out, type, strlen(type));
	fake_buf_str(out, ",\"param\":null,\"code\":");
	if (code)
		fake_buf_json(out, code, strlen(code));
	else
		fake_buf_str(out, "null");
	fake_buf_str(out, "}}\n");
}

static void azure_error(struct fake_buf *out, int status, const char *type, const char *code,
	const char *message)
{
	(void)type;
	fake_buf_str(out, "{\"error\":{\"code\":");
	if (code)
		fake_buf_json(out, code, strlen(code));
	else
		fake_buf_fmt(out, "\"%d\"", status);
	fake_buf_str(out, ",\"message\":");
	fake_buf_json_bytes(out, message, strlen(message));
	fake_buf_str(out, "}}\n");
}

/* ---- Ollama ---- */

static int ollama_read(struct fake *f, const struct fake_json *body, struct fake_call *call,
	struct fake_reply *reply)
{
	int status = check_keys(f, body, call->dialect == &fake_ollama ? "model,input,truncate,dimensions,"
		"keep_alive,options" : "model,prompt,keep_alive,options", reply, call->dialect);
	if (!status)
		status = read_model(body, call, reply);
	if (!status)
		status = read_dims(body, call, reply);
	if (status)
		return status;
	call->role = role_read(body);
	if (call->dialect == &fake_ollama_old) {
		call->single = true;
		const struct fake_json *prompt = fake_json_get(body, "prompt");
		if (!prompt || prompt->type != FAKE_STRING || !inputs_read(f, prompt, false, call))
			return fake_refuse(reply, call->dialect, 400, NULL, NULL, "prompt must be a string");
		return 0;
	}
	if (!inputs_read(f, fake_json_get(body, "input"), false, call))
		return fake_refuse(reply, call->dialect, 400, NULL, NULL, "invalid input type");
	return 0;
}

static void rows_write(const struct fake_call *call, struct fake_buf *out)
{
	fake_buf_str(out, "[");
	for (size_t i = 0; i < call->item_count; i++) {
		if (i)
			fake_buf_str(out, ",");
		item_write(&call->items[i], false, out);
	}
	fake_buf_str(out, "]");
}

static void ollama_write(struct fake *f, const struct fake_call *call, struct fake_buf *out,
	struct fake_buf *headers)
{
	(void)f;
	(void)headers;
	if (call->single) {
		fake_buf_str(out, "{\"embedding\":");
		item_write(&call->items[0], false, out);
		fake_buf_str(out, "}");
		return;
	}
	fake_buf_str(out, "{\"model\":");
	fake_buf_json(out, call->model, strlen(call->model));
	fake_buf_str(out, ",\"embeddings\":");
	rows_write(call, out);
	fake_buf_str(out, ",\"total_duration\":14143917,\"load_duration\":1019500");
	if (call->tokens)
		fake_buf_fmt(out, ",\"prompt_eval_count\":%zu", call->tokens);
	fake_buf_str(out, "}");
}

static void ollama_error(struct fake_buf *out, int status, const char *type, const char *code,
	const char *message)
{
	(void)status;
	(void)type;
	(void)code;
	fake_buf_str(out, "{\"error\":");
	fake_buf_json_bytes(out, message, strlen(message));
	fake_buf_str(out, "}");
}

/* ---- TEI, native routes ---- */

static int tei_read(struct fake *f, const struct fake_json *body, struct fake_call *call,
	struct fake_reply *reply)
{
	int status = check_keys(f, body, "inputs,normalize,truncate,truncation_direction,prompt_name,dimensions",
		reply, call->dialect);
	if (!status)
		status = read_dims(body, call, reply);
	if (status)
		return status;
	call->model = f->opt.space ? f->opt.space : "tei";
	call->role = role_read(body);
	if (!inputs_read(f, fake_json_get(body, "inputs"), true, call))
		return fake_refuse(reply, call->dialect, 422, "Validation", NULL, "`inputs` is of no known type");
	if (!call->count)
		return fake_refuse(reply, call->dialect, 400, "Empty", NULL, "`inputs` cannot be empty");
	for (size_t i = 0; i < call->count; i++)
		if (!call->inputs[i].n)
			return fake_refuse(reply, call->dialect, 422, "Validation", NULL, "`inputs` cannot be empty");
	return 0;
}

static void tei_write(struct fake *f, const struct fake_call *call, struct fake_buf *out,
	struct fake_buf *headers)
{
	(void)f;
	rows_write(call, out);
	fake_buf_fmt(headers, "x-compute-tokens: %zu\r\nx-compute-time: 1\r\nx-total-time: 1\r\n", call->tokens);
}

static void tei_error(struct fake_buf *out, int status, const char *type, const char *code,
	const char *message)
{
	(void)status;
	(void)code;
	fake_buf_str(out, "{\"error\":");
	fake_buf_json_bytes(out, message, strlen(message));
	fake_buf_fmt(out, ",\"error_type\":\"%s\"}", type ? type : "Unknown");
}

const struct fake_dialect fake_openai = {"openai", false, openai_read, openai_write, openai_error};
const struct fake_dialect fake_azure = {"azure", false, openai_read, openai_write, azure_error};
const struct fake_dialect fake_ollama = {"ollama", true, ollama_read, ollama_write, ollama_error};
const struct fake_dialect fake_ollama_old = {"ollama-legacy", true, ollama_read, ollama_write, ollama_error};
const struct fake_dialect fake_tei = {"tei", true, tei_read, tei_write, tei_error};

const struct fake_dialect *fake_route(struct fake *f, const struct fake_request *req, const char **deployment)
{
	static const struct { const char *path; const struct fake_dialect *dialect; } routes[] = {
		{"/v1/embeddings", &fake_openai}, {"/embeddings", &fake_openai},
		{"/openai/v1/embeddings", &fake_azure}, {"/api/embed", &fake_ollama},
		{"/api/embeddings", &fake_ollama_old}, {"/embed", &fake_tei},
	};
	static const char azure[] = "/openai/deployments/", tail[] = "/embeddings";
	*deployment = NULL;
	if (strcmp(req->method, "POST"))
		return NULL;
	for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
		if (!strcmp(req->path, routes[i].path))
			return routes[i].dialect;
	size_t n = strlen(req->path), fixed = sizeof azure - 1 + sizeof tail - 1;
	if (n <= fixed || strncmp(req->path, azure, sizeof azure - 1)
		|| strcmp(req->path + n - (sizeof tail - 1), tail) || !strstr(req->query, "api-version="))
		return NULL;
	char *name = fake_arena_take(&f->arena, n);
	memcpy(name, req->path + sizeof azure - 1, n - fixed);
	name[n - fixed] = 0;
	*deployment = name;
	return &fake_azure;
}
