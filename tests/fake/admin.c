/* Everything that is not an embeddings call: the admin routes of the tests, and the small GET routes
 * by which a provider says what it is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

static void answer(struct fake_reply *reply, int status, const char *body)
{
	reply->status = status;
	reply->body.len = 0;
	fake_buf_str(&reply->body, body);
}

static void set_size(const struct fake_json *body, const char *key, size_t *value)
{
	*value = (size_t)fake_json_num(body, key, (double)*value);
}

/* Options that a test changes while the provider runs; an api_key of null or "" ends the check. */
static void configure(struct fake *f, const struct fake_json *body)
{
	struct fake_options *o = &f->opt;
	const struct fake_json *key = fake_json_get(body, "api_key");
	if (key) {
		free(o->api_key);
		o->api_key = key->type == FAKE_STRING && key->str_n ? strdup(key->str) : NULL;
	}
	o->delay_ms = (long)fake_json_num(body, "delay_ms", (double)o->delay_ms);
	o->strict = fake_json_num(body, "strict", o->strict) != 0;
	o->reject_empty = fake_json_num(body, "reject_empty", o->reject_empty) != 0;
	set_size(body, "caps_items", &o->caps_items);
	set_size(body, "caps_tokens", &o->caps_tokens);
	set_size(body, "caps_bytes", &o->caps_bytes);
	set_size(body, "caps_input_tokens", &o->caps_input_tokens);
}

static void admin(struct fake *f, const struct fake_request *req, struct fake_reply *reply)
{
	const char *what = req->path + strlen("/_fake/"), *why = NULL;
	if (!strcmp(what, "stats")) {
		fake_stats_json(f, &reply->body, strstr(req->query, "brief") != NULL);
		return;
	}
	if (!strcmp(what, "reset")) {
		fake_stats_reset(f);
		fake_faults_clear(f);
		f->rng = f->opt.seed;
		answer(reply, 200, "{\"ok\":true}\n");
		return;
	}
	if (!strcmp(what, "faults/clear")) {
		fake_faults_clear(f);
		answer(reply, 200, "{\"ok\":true}\n");
		return;
	}
	const struct fake_json *body = fake_json_read(&f->arena, req->body, req->body_n, &why);
	if (!why && !strcmp(what, "faults")) {
		const struct fake_json *one = body->type == FAKE_ARRAY ? body->child : body;
		for (; one && !why; one = body->type == FAKE_ARRAY ? one->next : NULL)
			why = fake_fault_add(f, one);
	} else if (!why && !strcmp(what, "config")) {
		configure(f, body);
	} else if (!why) {
		why = "unknown admin route";
	}
	reply->status = why ? 400 : 200;
	if (why)
		fake_buf_fmt(&reply->body, "{\"ok\":false,\"error\":\"%s\"}\n", why);
	else
		fake_buf_str(&reply->body, "{\"ok\":true}\n");
}

/* The models by name, each through `each`; "fake" when any name is taken. */
static void models_json(struct fake *f, struct fake_buf *out,
	void (*each)(struct fake *f, struct fake_buf *out, const char *name, size_t n))
{
	const char *list = f->opt.models ? f->opt.models : f->opt.space ? f->opt.space : "fake";
	for (const char *at = list; at;) {
		const char *comma = strchr(at, ',');
		if (at != list)
			fake_buf_str(out, ",");
		each(f, out, at, comma ? (size_t)(comma - at) : strlen(at));
		at = comma ? comma + 1 : NULL;
	}
}

static void model_openai(struct fake *f, struct fake_buf *out, const char *name, size_t n)
{
	(void)f;
	fake_buf_str(out, "{\"id\":");
	fake_buf_json(out, name, n);
	fake_buf_str(out, ",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"fake\"}");
}

static void model_ollama(struct fake *f, struct fake_buf *out, const char *name, size_t n)
{
	(void)f;
	fake_buf_str(out, "{\"name\":");
	fake_buf_json(out, name, n);
	fake_buf_str(out, ",\"model\":");
	fake_buf_json(out, name, n);
	fake_buf_str(out, ",\"modified_at\":\"2026-01-01T00:00:00Z\",\"size\":1000,\"digest\":"
		"\"fa6e000000000000000000000000000000000000000000000000000000000000\",\"details\":{}}");
}

static void info(struct fake *f, struct fake_buf *out)
{
	const struct fake_options *o = &f->opt;
	const char *name = o->space ? o->space : "tei";
	fake_buf_str(out, "{\"model_id\":");
	fake_buf_json(out, name, strlen(name));
	fake_buf_fmt(out, ",\"model_sha\":\"fa6e0000\",\"model_dtype\":\"float32\",\"model_type\":{\"embedding\":"
		"{\"pooling\":\"mean\"}},\"max_concurrent_requests\":512,\"max_input_length\":%zu,"
		"\"max_batch_tokens\":%zu,\"max_client_batch_size\":%zu,\"auto_truncate\":false,"
		"\"version\":\"1.9.3\"}", o->caps_input_tokens ? o->caps_input_tokens : 512,
		o->caps_tokens ? o->caps_tokens : 16384, o->caps_items ? o->caps_items : 32);
}

void fake_admin_answer(struct fake *f, const struct fake_request *req, struct fake_reply *reply)
{
	const char *path = req->path;
	if (!strncmp(path, "/_fake/", 7)) {
		admin(f, req, reply);
	} else if (!strcmp(path, "/health") || !strcmp(path, "/")) {
		answer(reply, 200, "{\"status\":\"ok\"}");
	} else if (!strcmp(path, "/info")) {
		info(f, &reply->body);
	} else if (!strcmp(path, "/v1/models") || !strcmp(path, "/models")) {
		fake_buf_str(&reply->body, "{\"object\":\"list\",\"data\":[");
		models_json(f, &reply->body, model_openai);
		fake_buf_str(&reply->body, "]}");
	} else if (!strcmp(path, "/api/tags")) {
		fake_buf_str(&reply->body, "{\"models\":[");
		models_json(f, &reply->body, model_ollama);
		fake_buf_str(&reply->body, "]}");
	} else if (!strcmp(path, "/api/version")) {
		answer(reply, 200, "{\"version\":\"0.12.0\"}");
	} else {
		answer(reply, 404, "{\"error\":{\"message\":\"no such route\",\"type\":\"invalid_request_error\","
			"\"param\":null,\"code\":\"unknown_url\"}}");
	}
}
