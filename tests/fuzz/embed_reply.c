/*
 * Arbitrary bytes as every dialect's reply and as an error body. First byte: how many inputs and
 * dims were asked for. What is believed must hold the promises of embed/dialect.h.
 */
#include <math.h>
#include <stdlib.h>

#include "embed/dialect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct vk_call *call, const struct vk_answer *a)
{
	uint64_t tokens = 0;
	for (size_t i = 0; i < call->n; i++) {
		bool any = false;
		for (size_t k = 0; k < call->space->dims; k++) {
			float v = a->rows[i * call->space->dims + k];
			if (!isfinite(v)) abort();
			any |= v != 0;
		}
		if (!any) abort();
		tokens += a->tokens[i];
	}
	if (tokens != a->tokens_total) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"openai", "azure-openai", "ollama", "tei"};
	static const struct vk_provider provider = {.name = "p"};
	static const struct vk_role role = {.name = "none", .prefix = ""};
	if (!size) return 0;
	struct vk_space space = {.id = "s", .dims = 1 + (data[0] >> 4)};
	struct vk_call_item items[4] = {{.text = VK_LIT("a")}, {.text = VK_LIT("bc")}, {.text = VK_LIT("")}, {.text = VK_LIT("d")}};
	struct vk_call call = {.provider = &provider, .space = &space, .role = &role, .model = "m", .items = items,
			       .n = 1 + (data[0] & 3)};
	struct vk_bytes body = {(const char *)data + 1, size - 1};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct vk_arena arena;
		struct vk_answer a;
		struct vk_verdict v;
		struct vk_error err;
		vk_arena_init(&arena, 1 << 20);
		enum vk_status st = vk_dialect_find(vk_bytes_of(names[i]))->parse(&call, body, 3, &arena, &a, &v, &err);
		if (!st) check(&call, &a);
		else if (a.rows || a.tokens) abort();
		vk_arena_free(&arena);
	}
	char text[200], code[48];
	vk_retry_error_text(body, text, sizeof text, code, sizeof code);
	struct vk_verdict v;
	vk_retry_judge_body(body, &v);
	if (v.fault == VK_FAULT_NONE) abort();
	return 0;
}
