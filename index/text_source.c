/* Texts in payloads; the header says where. */
#include "index/text_source.h"

#include "index/payload.h"

const char *const vk_text_keys[VK_TEXT_KEYS] = {"page_content", "text", "content", "document",
						"_node_content"};

static bool first_string(void *arg, const vk_jv *v) { return !vk_jv_str(v, arg); }

static bool of_node(struct vk_arena *a, struct vk_bytes node, struct vk_bytes *text)
{
	struct vk_json *doc;
	struct vk_bytes s;
	if (vk_json_parse(a, node, NULL, &doc, NULL)) return false;
	bool found = vk_jv_str(vk_jv_get(vk_json_root(doc), "text"), &s);
	char *copy = found ? vk_arena_strndup(a, s.p, s.n) : NULL;
	if (copy) *text = (struct vk_bytes){copy, s.n};
	vk_json_free(doc);
	return copy != NULL;
}

bool vk_text_of_payload(const vk_jv *payload, const char *text_from, struct vk_arena *a,
			struct vk_bytes *text)
{
	struct vk_path path;
	struct vk_bytes s = {0};
	if (!payload || vk_path_parse(a, vk_bytes_of(text_from), &path, NULL)) return false;
	vk_path_each(payload, &path, first_string, &s);
	if (!s.p) return false;
	if (strcmp(text_from, "_node_content") == 0) return of_node(a, s, text);
	*text = s;
	return true;
}
