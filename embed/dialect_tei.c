/*
 * Text Embeddings Inference, the native route /embed: {"inputs": [...], "normalize"} and a bare
 * list of lists; tokens come in a header. Native and not /v1/embeddings, because only here a
 * prompt's name can be given (role_field "prompt_name") and truncation be refused.
 */
#include "embed/dialect_parts.h"

static enum vk_status build(const struct vk_call *call, struct vk_arena *arena, struct vk_wire *out,
			    struct vk_error *err)
{
	struct vk_build b;
	vk_build_start(&b, call, arena, out, err);
	vk_build_url(&b, vk_dialect_tei.path, NULL, NULL);
	vk_build_headers(&b, &(struct vk_build_auth){"Authorization", "Bearer "});
	vk_build_inputs(&b, "inputs", true);
	/* The server's own default, said aloud: a vector's length is part of its space. */
	if (!vk_build_given(&b, "normalize")) vk_jw_kb(&b.w, "normalize", true);
	vk_build_knobs(&b);
	return vk_build_finish(&b);
}

static enum vk_status parse(const struct vk_call *call, struct vk_bytes body, uint32_t tokens_header,
			    struct vk_arena *arena, struct vk_answer *out, struct vk_verdict *verdict,
			    struct vk_error *err)
{
	struct vk_reply r;
	enum vk_status st = vk_reply_open(&r, call, body, arena, out, verdict, err);
	if (!st) st = vk_reply_lists(&r, r.root);
	return vk_reply_finish(&r, st, tokens_header);
}

const struct vk_dialect vk_dialect_tei = {
	.name = "tei",
	.role_field = "prompt_name",
	.tokens_ok = true,
	.caps = {.items = 32, .bytes = 2000000, .concurrency = 8},
	.path = "/embed",
	.key_variable_hint = "TEI_API_KEY",
	.build = build,
	.parse = parse,
};
