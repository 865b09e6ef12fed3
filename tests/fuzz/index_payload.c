/*
 * Payload edits and paths under bytes that strangers send: line one of the input is a path, line two a patch, the rest the stored
 * payload. Whatever they are, nothing is read out of bounds; and when patch and payload are JSON objects, what an edit gives
 * is one, too, and selecting by the path after deleting by it finds nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "index/payload.h"

static struct vk_bytes line(const char **p, const char *end)
{
	const char *start = *p, *stop = start < end ? memchr(start, '\n', (size_t)(end - start)) : NULL;
	*p = stop ? stop + 1 : end;
	return (struct vk_bytes){start, (size_t)((stop ? stop : end) - start)};
}

static struct vk_json *object(struct vk_arena *a, struct vk_bytes text)
{
	struct vk_json *doc;
	if (vk_json_parse(a, text, NULL, &doc, NULL)) return NULL;
	if (vk_jv_type(vk_json_root(doc)) == VK_J_OBJECT) return doc;
	vk_json_free(doc);
	return NULL;
}

/* Edits can nest deeper than JSON is read: that alone may make a good result unreadable. */
static void must_be_object(struct vk_arena *a, struct vk_bytes text)
{
	struct vk_error err;
	struct vk_json *doc;
	enum vk_status st = vk_json_parse(a, text, NULL, &doc, &err);
	if (st == VK_E_INVALID && strstr(err.text, "deep")) return;
	if (st || vk_jv_type(vk_json_root(doc)) != VK_J_OBJECT) abort();
	vk_json_free(doc);
}

static bool found(void *arg, const vk_jv *v)
{
	(void)v;
	*(bool *)arg = true;
	return false;
}

static void check_deleted(struct vk_arena *a, struct vk_bytes text, const struct vk_path *path)
{
	bool any = false;
	struct vk_json *doc = object(a, text);
	if (!doc) abort();
	vk_path_each(vk_json_root(doc), path, found, &any);
	/* [0] moves up what stood behind it. */
	for (size_t i = 0; i < path->n; i++) any &= path->step[i].key.p != NULL || path->step[i].index < 0;
	vk_json_free(doc);
	if (any) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data, *end = p + size;
	struct vk_bytes path_text = line(&p, end), patch_text = line(&p, end), old = {p, (size_t)(end - p)};
	struct vk_arena a;
	struct vk_path path;
	struct vk_buf out;
	vk_arena_init(&a, (size_t)64 << 20);
	bool has_path = vk_path_parse(&a, path_text, &path, NULL) == VK_OK;
	struct vk_json *patch = object(&a, patch_text), *payload = object(&a, old);
	vk_buf_init(&out, 1 << 20);
	if (patch && !vk_payload_merge(&out, &a, old, vk_json_root(patch), has_path ? &path : NULL) && payload)
		must_be_object(&a, vk_buf_bytes(&out));
	out.n = 0;
	if (has_path && !vk_payload_delete(&out, &a, old, &path, 1) && payload) check_deleted(&a, vk_buf_bytes(&out), &path);
	out.n = 0;
	struct vk_payload_select sel = {.any = true, .include = has_path ? &path : NULL, .include_n = has_path};
	struct vk_jw w;
	vk_jw_init(&w, &out);
	if (!vk_payload_write(&w, &a, old, &sel) && payload) must_be_object(&a, vk_buf_bytes(&out));
	vk_buf_free(&out);
	vk_json_free(patch);
	vk_json_free(payload);
	vk_arena_free(&a);
	return 0;
}
