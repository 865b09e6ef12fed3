/*
 * Any JSON as a filter, matched on any JSON as a payload: the first line is the filter, the rest the payload.
 * A filter is taken or refused with a text; matching reads nothing outside of the two; what a filter says
 * does not change when it is asked again; an indexable value becomes a key that checks, and its place and
 * time forms hold.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "base/utf8.h"
#include "index/field_read.h"
#include "index/filter.h"
#include "index/id.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool has_vector(void *arg, struct vk_bytes name)
{
	(void)arg;
	return name.n % 2 == 0;
}

static void check_values(const vk_jv *v)
{
	struct vk_fv fv;
	struct vk_field_key key;
	struct vk_field_key_parts parts;
	for (int type = 0; type < VK_FIELD_TYPES; type++) {
		if (!vk_field_value((enum vk_field_type)type, v, &fv) || !fv.kind) continue;
		vk_field_key_make(&key, 7, fv.kind, vk_fv_bytes(&fv), 65535);
		assert(vk_field_key_read(vk_field_key_bytes(&key), &parts));
		assert(parts.field == 7 && parts.kind == fv.kind && parts.chunk == 65535 &&
		       vk_bytes_eq(parts.value, vk_fv_bytes(&fv)));
	}
	if (vk_jv_type(v) != VK_J_OBJECT && vk_jv_type(v) != VK_J_ARRAY) return;
	for (const vk_jv *c = vk_jv_first(v); c; c = vk_jv_next(c)) check_values(c);
}

static void run(struct vk_arena *a, struct vk_bytes filter_text, struct vk_bytes payload_text)
{
	struct vk_json *filter_doc = NULL, *payload_doc = NULL;
	struct vk_filter *f;
	struct vk_error err = {0};
	uint8_t id[9];
	vk_id_u64(id, payload_text.n);
	if (vk_json_parse(a, filter_text, NULL, &filter_doc, NULL)) return;
	vk_json_parse(a, payload_text, NULL, &payload_doc, NULL);
	enum vk_status st = vk_filter_parse(a, vk_json_root(filter_doc), &f, &err);
	vk_json_free(filter_doc);
	struct vk_filter_point p = {
	    .id = {(char *)id, 9}, .payload = vk_json_root(payload_doc), .has_vector = has_vector};
	if (st) {
		assert(!f && (st == VK_E_NOMEM || (st == VK_E_INVALID && strstr(err.text, "filter"))));
		assert(vk_utf8_valid(err.text, strlen(err.text)) == strlen(err.text));
	} else {
		assert(vk_filter_match(f, &p) == vk_filter_match(f, &p));
	}
	if (payload_doc) check_values(p.payload);
	vk_json_free(payload_doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data, *line = size ? memchr(text, '\n', size) : NULL;
	size_t n = line ? (size_t)(line - text) : size;
	struct vk_arena a;
	vk_arena_init(&a, (size_t)64 << 20);
	run(&a, (struct vk_bytes){text, n}, (struct vk_bytes){text + n, size - n});
	vk_arena_free(&a);
	return 0;
}
