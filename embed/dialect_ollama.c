/*
 * Ollama's /api/embed: {"model", "input": [...]} and {"embeddings": [[...]], "prompt_eval_count"}.
 * Not /api/embeddings, the older route: one text a call and not normalised. Ollama cuts long
 * texts silently unless extra_body says "truncate": false.
 */
#include "embed/dialect_parts.h"

static enum vk_status build(const struct vk_call *call, struct vk_arena *arena, struct vk_wire *out,
			    struct vk_error *err)
{
	struct vk_build b;
	vk_build_start(&b, call, arena, out, err);
	vk_build_url(&b, vk_dialect_ollama.path, NULL, NULL);
	vk_build_headers(&b, &(struct vk_build_auth){"Authorization", "Bearer "});
	vk_jw_kv(&b.w, "model", call->model);
	vk_build_inputs(&b, "input", false);
	vk_build_knobs(&b);
	return vk_build_finish(&b);
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
		st = vk_reply_lists(&r, vk_jv_get(r.root, "embeddings"));
		tokens = vk_reply_tokens(vk_jv_get(r.root, "prompt_eval_count")); /* left out when 0 */
	}
	return vk_reply_finish(&r, st, tokens);
}

const struct vk_dialect vk_dialect_ollama = {
	.name = "ollama",
	.caps = {.concurrency = 8},
	.path = "/api/embed",
	.key_variable_hint = "OLLAMA_API_KEY",
	.build = build,
	.parse = parse,
};
