/*
 * The OpenAI shape: {"model", "input": [...]} and {"data": [{"index", "embedding"}], "usage"}.
 * The whole family speaks it (vLLM, llama.cpp, Infinity, Mistral, Voyage, ...; docs/providers.md);
 * what differs is in the provider's knobs. Azure differs in its address and its key's header.
 */
#include <string.h>

#include "embed/dialect_parts.h"

static void build_body(struct vk_build *b)
{
	vk_jw_kv(&b->w, "model", b->call->model);
	vk_build_inputs(b, "input", true);
	/* Absent means float everywhere; a null or "float" has made strict servers refuse. */
	if (b->call->provider->base64 && !vk_build_given(b, "encoding_format"))
		vk_jw_kv(&b->w, "encoding_format", "base64");
	vk_build_knobs(b);
}

static enum vk_status build(const struct vk_call *call, struct vk_arena *arena, struct vk_wire *out,
			    struct vk_error *err)
{
	struct vk_build b;
	vk_build_start(&b, call, arena, out, err);
	vk_build_url(&b, vk_dialect_openai.path, NULL, NULL);
	vk_build_headers(&b, &(struct vk_build_auth){"Authorization", "Bearer "});
	build_body(&b);
	return vk_build_finish(&b);
}

/* A dated API version belongs to the classic path, which names the deployment; without one it is
 * the v1 path, where the deployment is the model. */
static const char *azure_path(const struct vk_provider *p)
{
	static const char v1[] = "/openai/v1";
	size_t n = strlen(p->base_url);
	if (p->api_version) return "/openai/deployments/{model}/embeddings";
	if (n >= sizeof v1 - 1 && !strcmp(p->base_url + n - (sizeof v1 - 1), v1)) return "/embeddings";
	return vk_dialect_azure_openai.path;
}

static enum vk_status build_azure(const struct vk_call *call, struct vk_arena *arena,
				  struct vk_wire *out, struct vk_error *err)
{
	struct vk_build b;
	vk_build_start(&b, call, arena, out, err);
	vk_build_url(&b, azure_path(call->provider), "api-version", call->provider->api_version);
	vk_build_headers(&b, &(struct vk_build_auth){"api-key", ""});
	build_body(&b);
	return vk_build_finish(&b);
}

/* Where a vector belongs: its own index, or its position when no item has one. */
static enum vk_status place_of(struct vk_reply *r, const vk_jv *item, size_t position, bool indexed,
			       size_t *place)
{
	const vk_jv *index = vk_jv_get(item, "index");
	uint64_t i = position;
	if ((vk_jv_type(index) != VK_J_NULL) != indexed)
		return vk_reply_lie(r, "some vectors have an index and some have none");
	if (indexed && !vk_jv_u64(index, &i)) return vk_reply_lie(r, "an index is no whole number");
	*place = i < SIZE_MAX ? (size_t)i : SIZE_MAX;
	return VK_OK;
}

/* llama.cpp's route without /v1 wraps a pooled vector once more. */
static const vk_jv *embedding_of(const vk_jv *item)
{
	const vk_jv *v = vk_jv_get(item, "embedding");
	return vk_jv_type(v) == VK_J_ARRAY && vk_jv_len(v) == 1 ? vk_jv_first(v) : v;
}

static enum vk_status read_data(struct vk_reply *r, const vk_jv *data)
{
	if (vk_jv_type(data) != VK_J_ARRAY) return vk_reply_lie(r, "the reply has no list \"data\"");
	enum vk_status st = vk_reply_expect(r, vk_jv_len(data));
	bool indexed = vk_jv_type(vk_jv_get(vk_jv_first(data), "index")) != VK_J_NULL;
	size_t position = 0, place = 0;
	for (const vk_jv *item = vk_jv_first(data); item && !st; item = vk_jv_next(item)) {
		st = place_of(r, item, position++, indexed, &place);
		if (!st) st = vk_reply_row(r, place, embedding_of(item));
	}
	return st;
}

static enum vk_status parse(const struct vk_call *call, struct vk_bytes body, uint32_t tokens_header,
			    struct vk_arena *arena, struct vk_answer *out, struct vk_verdict *verdict,
			    struct vk_error *err)
{
	struct vk_reply r;
	uint32_t tokens = 0;
	(void)tokens_header;
	enum vk_status st = vk_reply_open(&r, call, body, arena, out, verdict, err);
	if (!st) {
		const vk_jv *data = vk_jv_get(r.root, "data"), *usage = vk_jv_get(r.root, "usage");
		/* And it sends the bare list. */
		st = read_data(&r, data || vk_jv_type(r.root) != VK_J_ARRAY ? data : r.root);
		tokens = vk_reply_tokens(vk_jv_get(usage, "prompt_tokens"));
		if (!tokens) tokens = vk_reply_tokens(vk_jv_get(usage, "total_tokens"));
	}
	return vk_reply_finish(&r, st, tokens);
}

const struct vk_dialect vk_dialect_openai = {
	.name = "openai",
	.tokens_ok = true,
	.caps = {.items = 2048, .tokens = 300000, .concurrency = 8},
	.path = "/embeddings",
	.key_variable_hint = "OPENAI_API_KEY",
	.build = build,
	.parse = parse,
};

const struct vk_dialect vk_dialect_azure_openai = {
	.name = "azure-openai",
	.tokens_ok = true,
	.caps = {.items = 2048, .tokens = 300000, .concurrency = 8},
	.path = "/openai/v1/embeddings",
	.key_variable_hint = "AZURE_OPENAI_API_KEY",
	.build = build_azure,
	.parse = parse,
};
