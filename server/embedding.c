/*
 * The embed flow. Two exits are on the HTTP thread (everything was cached; the request is wrong),
 * the third goes through the park: vk_op_start() hands the misses to the engine, and whoever ends
 * the operation (the engine's done, or the park's gone after a cancel that won) writes the reply
 * and finishes the request, exactly once.
 */
#include "server/embedding.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "embed/bpe.h"
#include "server/error.h"
#include "simd/vec.h"

#define POSITIONS_SHOWN 50
#define WRITE_INLINE_FLOATS (1u << 18) /* larger answers are written on the compute pool */

struct vk_embedding *vk_embedding_new(struct vk_app *app, struct vk_req *req)
{
	struct vk_error err;
	struct vk_embedding *em = vk_arena_calloc(&req->arena, 1, sizeof *em);
	if (!em) {
		vk_fail(&err, VK_E_NOMEM, "Out of memory; try again shortly.");
		vk_reply_error(req, &err);
		return NULL;
	}
	em->app = app;
	em->req = req;
	em->encoding = VK_ENC_FLOAT;
	if (vk_json_parse(&req->arena, req->body, NULL, &em->doc, &err)) {
		err.no_retry = 1;
		vk_reply_error(req, &err);
		return NULL;
	}
	em->body = vk_json_root(em->doc);
	if (vk_jv_type(em->body) != VK_J_OBJECT) {
		vk_fail(&err, VK_E_INVALID, "The request body must be a JSON object.");
		vk_embedding_fail(em, &err);
		return NULL;
	}
	em->registry = vk_app_registry(app);
	return em;
}

void vk_embedding_drop(struct vk_embedding *em)
{
	vk_json_free(em->doc);
	vk_registry_unref(em->registry);
	em->doc = NULL;
	em->registry = NULL;
}

void vk_embedding_fail(struct vk_embedding *em, const struct vk_error *err)
{
	vk_reply_error(em->req, err);
	vk_embedding_drop(em);
}

/* --- decoding inputs --- */

static void put_positions(struct vk_buf *b, const uint32_t *at, size_t n)
{
	for (size_t i = 0; i < n && i < POSITIONS_SHOWN; i++)
		vk_buf_printf(b, "%s%u", i ? ", " : "", at[i]);
	if (n > POSITIONS_SHOWN) vk_buf_printf(b, " and %zu more", n - POSITIONS_SHOWN);
}

static enum vk_status one_text(struct vk_embedding *em, struct vk_bytes s, size_t i,
			       const char *field, struct vk_error *err)
{
	if (s.n > em->app->config.text_bytes_max)
		return vk_fail_param(err, VK_E_INVALID, "string_above_max_length", field,
				     "The text at position %zu has %zu bytes; the limit is %zu.", i, s.n,
				     em->app->config.text_bytes_max);
	/* An empty text of cJSON's is no NULL pointer: kind text is told by p. */
	em->inputs[i].text = s.p ? s : VK_LIT("");
	return VK_OK;
}

static enum vk_status one_token_array(struct vk_embedding *em, const vk_jv *v, size_t i,
				      const char *field, struct vk_error *err)
{
	size_t n = vk_jv_len(v);
	if (n > VK_LIMIT_TOKENS)
		return vk_fail_param(err, VK_E_INVALID, "array_above_max_length", field,
				     "The token array at position %zu has %zu tokens; the limit is %d.", i,
				     n, VK_LIMIT_TOKENS);
	uint32_t *tokens = vk_arena_alloc(&em->req->arena, n * sizeof *tokens);
	if (!tokens) return vk_fail(err, VK_E_NOMEM, "Out of memory; try again shortly.");
	if (!vk_jv_u32s(v, tokens))
		return vk_fail_param(err, VK_E_INVALID, NULL, field,
				     "The token array at position %zu holds something that is no token id.",
				     i);
	em->inputs[i].tokens = tokens;
	em->inputs[i].tokens_n = n;
	return VK_OK;
}

static enum vk_status refuse_empty(struct vk_embedding *em, const char *field, struct vk_error *err)
{
	uint32_t *at = vk_arena_alloc(&em->req->arena, em->n * sizeof *at);
	size_t n = 0;
	for (size_t i = 0; at && i < em->n; i++)
		if (vk_input_is_text(&em->inputs[i]) && !em->inputs[i].text.n) at[n++] = (uint32_t)i;
	if (!n) return VK_OK;
	struct vk_buf list;
	vk_buf_init(&list, 2048);
	put_positions(&list, at, n);
	enum vk_status st = vk_fail_param(err, VK_E_INVALID, "empty_string", field,
					  "Empty strings cannot be embedded in a list: position%s %s.",
					  n > 1 ? "s" : "", vk_buf_cstr(&list));
	vk_buf_free(&list);
	return st;
}

static enum vk_status wrong_type(const char *field, struct vk_error *err)
{
	return vk_fail_param(err, VK_E_INVALID, NULL, field,
			     "'%s' must be a string, a list of strings, a list of token ids or a list of "
			     "such lists.", field);
}

enum vk_status vk_embedding_inputs(struct vk_embedding *em, const vk_jv *v, const char *field,
				   struct vk_error *err)
{
	enum vk_jtype type = vk_jv_type(v);
	struct vk_bytes s;
	if (!v || type == VK_J_NULL)
		return vk_fail_param(err, VK_E_INVALID, "missing_required_parameter", field,
				     "Missing required parameter: '%s'.", field);
	em->lone = type == VK_J_STRING || type == VK_J_NUMBERS;
	em->n = em->lone ? 1 : vk_jv_len(v);
	if (!em->lone && type != VK_J_ARRAY) return wrong_type(field, err);
	if (!em->n)
		return vk_fail_param(err, VK_E_INVALID, "empty_array", field, "'%s' must not be an empty list.",
				     field);
	if (em->n > em->app->config.inputs_max)
		return vk_fail_param(err, VK_E_INVALID, "array_above_max_length", field,
				     "'%s' holds %zu inputs; the limit is %zu a request.", field, em->n,
				     em->app->config.inputs_max);
	em->inputs = vk_arena_calloc(&em->req->arena, em->n, sizeof *em->inputs);
	if (!em->inputs) return vk_fail(err, VK_E_NOMEM, "Out of memory; try again shortly.");
	if (vk_jv_str(v, &s)) return one_text(em, s, 0, field, err);
	if (type == VK_J_NUMBERS) return one_token_array(em, v, 0, field, err);
	bool texts = vk_jv_type(vk_jv_first(v)) == VK_J_STRING;
	enum vk_status st = VK_OK;
	size_t i = 0;
	for (const vk_jv *m = vk_jv_first(v); m && !st; m = vk_jv_next(m), i++) {
		if (texts && vk_jv_str(m, &s))
			st = one_text(em, s, i, field, err);
		else if (!texts && vk_jv_type(m) == VK_J_NUMBERS)
			st = one_token_array(em, m, i, field, err);
		else
			st = wrong_type(field, err);
	}
	return st ? st : refuse_empty(em, field, err);
}

/* Token arrays are the OpenAI API's way of saying cl100k text (LangChain's default): one that
 * decodes to valid UTF-8 and encodes back to itself is that text, for the key and upstream. Others
 * stay tokens, and only a space with that tokenizer can take them. */
static enum vk_status settle_tokens(struct vk_embedding *em, struct vk_error *err)
{
	const struct vk_bpe *bpe = NULL;
	for (size_t i = 0; i < em->n; i++) {
		struct vk_input *in = &em->inputs[i];
		struct vk_buf text;
		if (vk_input_is_text(in)) continue;
		if (!bpe && !(bpe = vk_bpe_cl100k()))
			return vk_fail(err, VK_E_NOMEM, "Out of memory; try again shortly.");
		vk_buf_init(&text, em->app->config.text_bytes_max);
		bool same = vk_bpe_text_of(bpe, in->tokens, in->tokens_n, &text);
		bool failed = !same && text.failed;
		char *copy = same ? vk_arena_strndup(&em->req->arena, text.p ? text.p : "", text.n) : NULL;
		size_t n = text.n;
		vk_buf_free(&text);
		if (failed || (same && !copy))
			return vk_fail_param(err, VK_E_INVALID, "string_above_max_length", "input",
					     "The token array at position %zu stands for more than %zu bytes "
					     "of text.", i, em->app->config.text_bytes_max);
		if (same) {
			*in = (struct vk_input){.text = {copy, n}};
		} else if (em->space->tokenizer != VK_TOKENIZER_CL100K) {
			return vk_fail_param(err, VK_E_INVALID, "tokens_not_supported", "input",
					     "The token array at position %zu is no canonical cl100k_base text, "
					     "and space %s has no tokenizer of that kind: send text "
					     "(LangChain: check_embedding_ctx_length=False).", i, em->space->id);
		}
	}
	return VK_OK;
}

/* --- resolving --- */

static bool passes(const struct vk_space *s, struct vk_bytes name)
{
	for (size_t i = 0; s->pass_params[i]; i++)
		if (vk_bytes_is(name, s->pass_params[i])) return true;
	return false;
}

static bool known_field(const char *fields, struct vk_bytes name)
{
	for (const char *f = fields; *f;) {
		size_t n = strcspn(f, " ");
		if (n == name.n && memcmp(f, name.p, n) == 0) return true;
		f += n + (f[n] == ' ');
	}
	return false;
}

static enum vk_status check_fields(struct vk_embedding *em, struct vk_error *err)
{
	struct vk_buf list;
	unsigned n = 0;
	char first[64] = "";
	vk_buf_init(&list, 1024);
	for (const vk_jv *m = vk_jv_first(em->body); m; m = vk_jv_next(m)) {
		struct vk_bytes k = vk_jv_key(m);
		if (known_field(em->fields, k) || passes(em->space, k)) continue;
		if (!n++) snprintf(first, sizeof first, "%.*s", (int)k.n, k.p);
		vk_buf_printf(&list, "%s'%.*s'", n > 1 ? ", " : "", (int)(k.n < 64 ? k.n : 64), k.p);
	}
	enum vk_status st = VK_OK;
	if (n)
		st = vk_fail_param(err, VK_E_INVALID, "unknown_parameter", first,
				   "Unknown parameter%s: %s. A space passes on what its pass_params list.",
				   n > 1 ? "s" : "", vk_buf_cstr(&list));
	vk_buf_free(&list);
	return st;
}

static enum vk_status resolve_role(struct vk_embedding *em, const struct vk_role *by_name,
				   struct vk_error *err)
{
	const struct vk_space *s = em->space;
	em->op.role = by_name ? by_name : &s->roles[0];
	if (em->role.p && em->role.n) {
		em->op.role = vk_space_role(s, em->role);
		if (!em->op.role) {
			struct vk_buf list;
			vk_buf_init(&list, 1024);
			for (size_t i = 0; i < s->roles_n; i++)
				vk_buf_printf(&list, "%s%s", i ? ", " : "", s->roles[i].name);
			enum vk_status st = vk_fail_param(
				err, VK_E_INVALID, "unknown_role", "input_type",
				"Space %s has no role '%.*s' (it has: %s).", s->id,
				(int)(em->role.n < 64 ? em->role.n : 64), em->role.p, vk_buf_cstr(&list));
			vk_buf_free(&list);
			return st;
		}
	}
	if (s->role_required && em->op.role->num == 0 && !s->roles[0].value)
		return vk_fail_param(err, VK_E_INVALID, "missing_required_parameter", "input_type",
				     "Space %s needs a role: set input_type, or use the model name %.*s#query.",
				     s->id, (int)em->model.n, em->model.p);
	return VK_OK;
}

static enum vk_status resolve(struct vk_embedding *em, struct vk_error *err)
{
	const struct vk_role *role;
	if (!em->model.p || !em->model.n)
		return vk_fail_param(err, VK_E_INVALID, "missing_required_parameter", "model",
				     "Missing required parameter: 'model'.");
	const struct vk_model_name *m = vk_registry_model(em->registry, em->model, &role);
	if (!m || !m->space)
		return vk_fail_param(err, VK_E_NOT_FOUND, "model_not_found", "model",
				     "The model '%.*s' does not exist here: GET /v1/models lists what does.",
				     (int)(em->model.n < 128 ? em->model.n : 128), em->model.p);
	em->space = m->space;
	enum vk_status st = check_fields(em, err);
	if (!st) st = resolve_role(em, role, err);
	if (!st && em->dims && !vk_space_gives_dims(em->space, em->dims)) {
		const char *how = em->space->matryoshka ? "or fewer, as its Matryoshka training allows"
							: "and no other: it is no Matryoshka space";
		st = vk_fail_param(err, VK_E_INVALID, "invalid_dimensions", "dimensions",
				   "Space %s cannot give %llu dimensions; it has %u %s.", em->space->id,
				   (unsigned long long)em->dims, em->space->dims, how);
	}
	if (!st) st = settle_tokens(em, err);
	if (!st && em->space->pass_params[0]) {
		const char *p = vk_params_canonical(&em->req->arena, em->body, em->space->pass_params, err);
		if (!p) return err->st;
		em->op.params = p[0] ? p : NULL;
	}
	enum vk_status pin = st ? VK_OK : vk_space_pin(em->registry, em->space, em->app->catalog);
	if (pin == VK_E_EXISTS)
		st = vk_fail(err, VK_E_EXISTS, "Space %s is pinned to another definition; give this one an id "
					       "of its own.", em->space->id);
	else if (pin)
		st = vk_fail(err, VK_E_IO, "The space cannot be pinned: the catalog does not take writes.");
	return st;
}

/* Whose part of the cache, and whose money. A veckeep key is never forwarded to a provider. */
static enum vk_status resolve_tenant(struct vk_embedding *em, struct vk_error *err)
{
	const struct vk_auth *auth = em->req->auth;
	em->op.tenant = vk_tenants_default(em->app->tenants);
	if (em->space->route[0].provider->api_key.from != VK_SECRET_CLIENT) return VK_OK;
	if (!auth || !auth->bearer.n || auth->key_id[0])
		return vk_fail_param(err, VK_E_UNAUTHORIZED, "invalid_api_key", NULL,
				     "Space %s forwards its caller's own provider key: send that as the bearer.",
				     em->space->id);
	em->op.bearer = auth->bearer;
	if (vk_tenants_client(em->app->tenants, auth->bearer, &em->op.tenant))
		return vk_fail(err, VK_E_BUSY, "Too many different provider keys; try again later.");
	return VK_OK;
}

/* Cache-Control, the lane, and how long the client is going to wait. */
static void read_controls(struct vk_embedding *em)
{
	struct vk_req *req = em->req;
	struct vk_bytes cc = vk_req_header(req, "cache-control");
	em->op.max_age_ms = -1;
	for (size_t i = 0; i < cc.n;) {
		size_t n = 0;
		while (i + n < cc.n && cc.p[i + n] != ',') n++;
		struct vk_bytes word = {cc.p + i, n};
		i += n + 1;
		while (word.n && word.p[0] == ' ') word.p++, word.n--;
		while (word.n && word.p[word.n - 1] == ' ') word.n--;
		if (word.n == 8 && strncasecmp(word.p, "no-cache", 8) == 0) em->op.no_cache = true;
		if (word.n == 8 && strncasecmp(word.p, "no-store", 8) == 0) em->op.no_store = true;
		if (word.n == 14 && strncasecmp(word.p, "only-if-cached", 14) == 0)
			em->only_if_cached = true;
		if (word.n > 8 && word.n < 20 && strncasecmp(word.p, "max-age=", 8) == 0)
			em->op.max_age_ms = isdigit((unsigned char)word.p[8])
						    ? strtoll(word.p + 8, NULL, 10) * 1000
						    : 0; /* RFC 9111: what cannot be read is stale */
	}
	em->op.interactive = strcmp(em->op.role->name, "query") == 0 || em->n <= VK_INTERACTIVE_INPUTS;
	uint64_t wait_ms = em->app->config.deadline_ms;
	static const char *const names[] = {"x-stainless-read-timeout", "x-stainless-timeout"};
	for (size_t i = 0; i < 2; i++) {
		struct vk_bytes v = vk_req_header(req, names[i]);
		char text[32];
		snprintf(text, sizeof text, "%.*s", (int)(v.n < 31 ? v.n : 31), v.n ? v.p : "");
		double s = strtod(text, NULL);
		if (s > 0 && s < 1e6 && s * 1000 < (double)wait_ms) wait_ms = (uint64_t)(s * 1000);
	}
	wait_ms = wait_ms > 1000 ? wait_ms - 500 : wait_ms / 2;
	em->deadline_ms = req->start_us / 1000 + wait_ms;
}

/* --- replying --- */

float *vk_embedding_scratch(struct vk_embedding *em)
{
	return vk_arena_alloc(&em->req->arena, em->space->dims * sizeof(float));
}

/* A cut row that goes out is remembered, so that it is known again when it comes back as a vector. A
 * small table of lately written ones keeps hits from writing each time. */
static void remember(struct vk_embedding *em, const struct vk_slot *s, const float *row)
{
	uint8_t mac[16];
	if (vk_tenant_provisional(em->op.tenant)) return;
	vk_key_row(&em->op.tenant->secret[0], row, em->dims, mac);
	uint64_t h = vk_get_u64le(mac);
	_Atomic uint64_t *seen =
		&em->app->seen[h & (sizeof em->app->seen / sizeof *em->app->seen - 1)];
	if (atomic_load_explicit(seen, memory_order_relaxed) == h) return;
	atomic_store_explicit(seen, h, memory_order_relaxed);
	struct vk_cache_key key = s->key;
	vk_put_u32be(key.b, em->op.tenant->id); /* the pool was provisional, perhaps, when it was keyed */
	vk_cachedb_put_provenance(em->app->cache, em->op.tenant->id, mac, &key);
}

const float *vk_embedding_row(struct vk_embedding *em, size_t i, float *scratch)
{
	const struct vk_slot *s = &em->op.slots[em->op.slot_of[i]];
	if (!em->dims || em->dims == em->space->dims) return s->row;
	vk_vec_cut(vk_cpu_best(), scratch, s->row, em->dims);
	if (!em->op.no_store) remember(em, s, scratch);
	return scratch;
}

static size_t truncated(const struct vk_embedding *em)
{
	size_t cut = 0;
	for (size_t i = 0; i < em->n; i++) cut += em->op.slots[em->op.slot_of[i]].truncated;
	return cut;
}

static void reply_headers(struct vk_embedding *em, const struct vk_op_counts *c)
{
	struct vk_req *req = em->req;
	vk_reply_headerf(req, "x-veckeep-cache", "hits=%llu, misses=%llu, coalesced=%llu",
			 (unsigned long long)c->hits, (unsigned long long)c->misses,
			 (unsigned long long)c->coalesced);
	vk_reply_header(req, "Cache-Status",
			c->hits == em->n ? "veckeep; hit"
			: c->hits	 ? "veckeep; fwd=partial"
			: em->op.no_cache ? "veckeep; fwd=request"
					  : "veckeep; fwd=miss");
	vk_reply_headerf(req, "x-veckeep-tokens-logical", "%llu", (unsigned long long)c->logical_tokens);
	vk_reply_headerf(req, "x-veckeep-tokens-billed", "%llu", (unsigned long long)c->billed_tokens);
	vk_reply_headerf(req, "x-veckeep-tokens-saved", "%llu", (unsigned long long)c->saved_tokens);
	/* The registry may go before the reply is sent. */
	vk_reply_headerf(req, "x-veckeep-space", "%s", em->space->id);
	if (em->op.provider) vk_reply_header(req, "x-veckeep-provider", em->op.provider);
	size_t cut = truncated(em);
	if (cut) vk_reply_headerf(req, "x-veckeep-truncated", "%zu", cut);
	double total_ms = (double)(vk_mono_us() - req->start_us) / 1000;
	if (em->op.upstream_us)
		vk_reply_headerf(req, "Server-Timing", "upstream;dur=%.1f, total;dur=%.2f",
				 (double)em->op.upstream_us / 1000, total_ms);
	else
		vk_reply_headerf(req, "Server-Timing", "cache;dur=%.2f", total_ms);
}

static void reply_octets(struct vk_embedding *em, float *scratch)
{
	struct vk_buf *b = &em->req->reply.body;
	size_t dims = em->dims ? em->dims : em->space->dims;
	em->req->reply.content_type = "application/octet-stream";
	vk_reply_headerf(em->req, "x-veckeep-dims", "%zu", dims);
	vk_reply_headerf(em->req, "x-veckeep-rows", "%zu", em->n);
	if (!vk_buf_reserve(b, em->n * dims * sizeof(float))) return;
	for (size_t i = 0; i < em->n; i++)
		vk_buf_put(b, vk_embedding_row(em, i, scratch), dims * sizeof(float));
}

/* The operation has ended: writes the answer or the error. The request is not finished here. */
static void reply(struct vk_embedding *em)
{
	struct vk_req *req = em->req;
	vk_engine_account(em->app->engine, &em->op);
	if (em->op.error.st) {
		vk_embedding_fail(em, &em->op.error);
		return;
	}
	if (em->truncate_refused && truncated(em)) {
		struct vk_error err;
		vk_fail(&err, VK_E_INVALID, "the input length exceeds the context length");
		err.no_retry = 1;
		vk_embedding_fail(em, &err);
		return;
	}
	struct vk_op_counts c;
	float *scratch = vk_embedding_scratch(em);
	vk_op_counts(&em->op, &c);
	vk_buf_init(&req->reply.body, VK_LIMIT_REPLY_BYTES);
	req->reply.status = 200;
	reply_headers(em, &c);
	if (scratch && em->encoding == VK_ENC_OCTETS)
		reply_octets(em, scratch);
	else if (scratch)
		em->write(em);
	if (!scratch || req->reply.body.failed) {
		vk_buf_free(&req->reply.body);
		vk_fail(&em->op.error, VK_E_NOMEM, "Out of memory; try again with fewer inputs.");
		em->op.error.retry_after_ms = 1000;
		vk_embedding_fail(em, &em->op.error);
		return;
	}
	vk_embedding_drop(em);
}

static void reply_and_finish(void *arg)
{
	struct vk_embedding *em = arg;
	struct vk_req *req = em->req;
	reply(em);
	vk_req_finish(req);
}

/* The engine's done: on the upstream thread, a pool thread, or inside vk_op_start(). */
static void on_done(struct vk_op *op)
{
	struct vk_embedding *em = op->arg;
	size_t floats = em->n * (em->dims ? em->dims : em->space->dims);
	if (floats <= WRITE_INLINE_FLOATS || vk_pool_submit(em->app->pool, reply_and_finish, em))
		reply_and_finish(em);
}

/* The park's: the deadline passed, the client left, or the server goes. */
static void on_gone(struct vk_req *req, enum vk_gone why)
{
	struct vk_embedding *em = req->user;
	if (!vk_op_cancel(em->app->engine, &em->op)) return; /* done comes, or has come */
	size_t done = 0;
	for (size_t i = 0; i < em->n; i++) done += em->op.slots[em->op.slot_of[i]].done;
	struct vk_error *err = &em->op.error;
	if (why == VK_GONE_HANGUP)
		vk_fail(err, VK_E_CANCELLED, "The client closed the connection.");
	else if (why == VK_GONE_SHUTDOWN)
		vk_fail_param(err, VK_E_UNAVAILABLE, "shutting_down", NULL,
			      "The server is shutting down; %zu of %zu inputs are done and kept.", done, em->n);
	else
		vk_fail_param(err, VK_E_DEADLINE, "deadline", NULL,
			      "The deadline passed with %zu of %zu inputs done and kept: the same request, sent "
			      "again, goes on from there.", done, em->n);
	err->retry_after_ms = 1000;
	reply_and_finish(em);
}

/* --- the flow --- */

static void missing_error(struct vk_embedding *em, struct vk_error *err)
{
	uint32_t *at = vk_arena_alloc(&em->req->arena, em->n * sizeof *at);
	struct vk_buf list;
	size_t n = 0;
	for (size_t i = 0; at && i < em->n; i++)
		if (!em->op.slots[em->op.slot_of[i]].done) at[n++] = (uint32_t)i;
	vk_buf_init(&list, 2048);
	put_positions(&list, at, n);
	bool offline = !em->only_if_cached;
	vk_fail_param(err, offline ? VK_E_UNAVAILABLE : VK_E_ONLY_IF_CACHED,
		      offline ? "offline" : "not_cached", "input",
		      "%s%zu of %zu inputs are not cached: position%s %s.",
		      offline ? "The server is offline (hits only) and " : "", n, em->n, n > 1 ? "s" : "",
		      vk_buf_cstr(&list));
	err->no_retry = 1;
	const char *header = vk_arena_strndup(&em->req->arena, vk_buf_cstr(&list), list.n);
	if (header) vk_reply_header(em->req, "x-veckeep-missing", header);
	vk_buf_free(&list);
}

void vk_embedding_run(struct vk_embedding *em)
{
	struct vk_app *app = em->app;
	struct vk_op *op = &em->op;
	struct vk_error err;
	enum vk_status st = resolve(em, &err);
	if (!st) st = resolve_tenant(em, &err);
	if (st) {
		if (!err.retry_after_ms) err.no_retry = 1;
		vk_embedding_fail(em, &err);
		return;
	}
	read_controls(em);
	op->arena = &em->req->arena;
	op->registry = em->registry;
	op->space = em->space;
	op->inputs = em->inputs;
	op->n = em->n;
	op->now_ms = vk_wall_ms();
	if (vk_op_lookup(app->engine, op)) {
		vk_fail(&err, VK_E_NOMEM, "Out of memory; try again shortly.");
		err.retry_after_ms = 1000;
		vk_embedding_fail(em, &err);
		return;
	}
	if (!op->missing) {
		reply(em);
		return;
	}
	if (em->only_if_cached || app->offline) {
		vk_op_landed(app->engine, op);
		if (!op->missing) {
			reply(em);
			return;
		}
		missing_error(em, &err);
		vk_embedding_fail(em, &err);
		return;
	}
	em->req->user = em;
	uint64_t deadline_ms = em->deadline_ms;
	struct vk_req *req = em->req;
	vk_op_start(app->engine, op, on_done, em); /* the reply may be written when this returns */
	vk_req_park(req, deadline_ms, on_gone);
}
