/*
 * Request bodies: any bytes as the body of an embedding request, through the strict pass and into
 * the canonical form that the cache key holds. Oracle: what is accepted has one canonical text, and
 * that text is its own canonical form.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/embedding.h"

#define NAMES_MAX 64

static const char *canonical(struct vk_arena *a, struct vk_bytes body, bool *accepted)
{
	const char *names[NAMES_MAX + 1];
	size_t n = 0;
	struct vk_json *doc = NULL;
	struct vk_error err;
	const char *text = NULL;
	*accepted = !vk_json_parse(a, body, NULL, &doc, &err);
	if (*accepted && vk_jv_type(vk_json_root(doc)) == VK_J_OBJECT) {
		for (const vk_jv *m = vk_jv_first(vk_json_root(doc)); m && n < NAMES_MAX; m = vk_jv_next(m))
			names[n++] = vk_arena_strndup(a, vk_jv_key(m).p, vk_jv_key(m).n);
		names[n] = NULL;
		text = vk_params_canonical(a, vk_json_root(doc), names, &err);
	}
	vk_json_free(doc);
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vk_arena a;
	bool accepted;
	vk_arena_init(&a, (size_t)256 << 20);
	const char *once = canonical(&a, (struct vk_bytes){(const char *)data, size}, &accepted);
	if (once && once[0]) {
		const char *twice = canonical(&a, vk_bytes_of(once), &accepted);
		assert(accepted && twice && strcmp(once, twice) == 0);
	}
	vk_arena_free(&a);
	return 0;
}
