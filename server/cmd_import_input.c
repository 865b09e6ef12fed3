/* Lines by getline(), each parsed in an arena that is reset for the next. */
#include "server/cmd_import_input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define LINE_MAX_BYTES ((size_t)32 << 20)

static const char *const text_keys[] = {"text", "page_content", "content", "document"};

bool vk_import_open(struct vk_import_input *in, const struct vk_cli *cli, const char *file, const char *text_field,
		    const char *id_field)
{
	bool standard = !strcmp(file, "-");
	*in = (struct vk_import_input){.cli = cli, .name = standard ? "standard input" : file, .text_field = text_field,
				       .id_field = id_field};
	vk_arena_init(&in->arena, 16 * LINE_MAX_BYTES);
	in->file = standard ? stdin : fopen(file, "re");
	if (!in->file) vk_cli_say(cli, 0, "%s: %s", file, strerror(errno));
	return in->file != NULL;
}

void vk_import_close(struct vk_import_input *in)
{
	if (in->file && in->file != stdin) fclose(in->file);
	vk_json_free(in->doc);
	vk_arena_free(&in->arena);
	free(in->line);
}

static int wrong(const struct vk_import_input *in, const char *what)
{
	vk_cli_say(in->cli, 0, "%s, line %llu: %s", in->name, (unsigned long long)in->at, what);
	return -1;
}

static bool take_text(const struct vk_import_input *in, const vk_jv *object, struct vk_import_line *out)
{
	if (in->text_field) {
		out->text_key = in->text_field;
		return vk_jv_str(vk_jv_get(object, in->text_field), &out->text) && out->text.n;
	}
	for (size_t i = 0; i < sizeof text_keys / sizeof *text_keys; i++) {
		out->text_key = text_keys[i];
		if (vk_jv_str(vk_jv_get(object, text_keys[i]), &out->text) && out->text.n) return true;
	}
	return false;
}

static int read_object(struct vk_import_input *in, struct vk_bytes line, struct vk_import_line *out)
{
	struct vk_error err = {0};
	char what[VK_ERROR_TEXT_MAX + 32];
	vk_json_free(in->doc);
	in->doc = NULL;
	vk_arena_reset(&in->arena);
	if (vk_json_parse(&in->arena, line, NULL, &in->doc, &err)) {
		snprintf(what, sizeof what, "no JSON: %s", err.text);
		return wrong(in, what);
	}
	const vk_jv *o = vk_json_root(in->doc);
	if (vk_jv_type(o) != VK_J_OBJECT) return wrong(in, "not an object");
	*out = (struct vk_import_line){.object = o, .vector = vk_jv_get(o, "vector"), .id = vk_jv_get(o, in->id_field)};
	if (vk_jv_type(vk_jv_get(o, "payload")) == VK_J_OBJECT) out->payload = vk_jv_get(o, "payload");
	if (out->id && vk_jv_type(out->id) != VK_J_NUMBER && vk_jv_type(out->id) != VK_J_STRING) return wrong(in, "the id is neither a number nor a string");
	if (!take_text(in, o, out) && !out->vector && !(out->payload && take_text(in, out->payload, out))) {
		if (in->text_field) {
			snprintf(what, sizeof what, "no text in the field \"%.100s\"", in->text_field);
			return wrong(in, what);
		}
		return wrong(in, "no text: --text-field names the field that has it");
	}
	return 1;
}

int vk_import_next(struct vk_import_input *in, struct vk_import_line *out)
{
	for (;;) {
		ssize_t n = getline(&in->line, &in->line_cap, in->file);
		if (n < 0) return ferror(in->file) ? wrong(in, "cannot be read") : 0;
		in->at++;
		in->offset += (uint64_t)n;
		while (n && (in->line[n - 1] == '\n' || in->line[n - 1] == '\r')) n--;
		if (!n) continue;
		if ((size_t)n > LINE_MAX_BYTES) return wrong(in, "longer than 32 MiB");
		return read_object(in, (struct vk_bytes){in->line, (size_t)n}, out);
	}
}

/* The same text is the same point. */
static void write_id(struct vk_jw *w, const struct vk_import_line *l)
{
	uint8_t h[VK_SHA256_SIZE];
	char hex[33], uuid[40];
	struct vk_sha256 s;
	if (l->id) {
		vk_jw_value(w, l->id);
		return;
	}
	vk_sha256_init(&s);
	vk_sha256_update(&s, "veckeep-import\1", 15);
	vk_sha256_update(&s, l->text.p, l->text.n);
	vk_sha256_final(&s, h);
	h[6] = (uint8_t)((h[6] & 0x0f) | 0x80); /* RFC 9562, version 8 */
	h[8] = (uint8_t)((h[8] & 0x3f) | 0x80);
	vk_hex(hex, h, 16);
	snprintf(uuid, sizeof uuid, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
	vk_jw_cstr(w, uuid);
}

static void write_vector(struct vk_jw *w, const struct vk_import_line *l, const char *model)
{
	if (l->vector) {
		vk_jw_value(w, l->vector);
		return;
	}
	vk_jw_object(w);
	vk_jw_key(w, "text");
	vk_jw_str(w, l->text);
	if (model) vk_jw_kv(w, "model", model);
	vk_jw_object_end(w);
}

static void write_payload(struct vk_jw *w, const struct vk_import_line *l)
{
	const vk_jv *from = l->payload ? l->payload : l->object;
	bool has_text = false;
	vk_jw_object(w);
	for (const vk_jv *m = vk_jv_first(from); m; m = vk_jv_next(m)) {
		if (!l->payload && (m == l->id || m == l->vector)) continue;
		has_text |= l->text_key && vk_bytes_is(vk_jv_key(m), l->text_key);
		vk_jw_member(w, m);
	}
	if (!has_text && l->text.n) {
		vk_jw_key(w, l->text_key);
		vk_jw_str(w, l->text);
	}
	vk_jw_object_end(w);
}

void vk_import_write(struct vk_jw *w, const struct vk_import_line *l, const char *model, const char *using)
{
	vk_jw_object(w);
	vk_jw_key(w, "id");
	write_id(w, l);
	vk_jw_key(w, "vector");
	if (*using) {
		vk_jw_object(w);
		vk_jw_key(w, using);
	}
	write_vector(w, l, model);
	if (*using) vk_jw_object_end(w);
	vk_jw_key(w, "payload");
	write_payload(w, l);
	vk_jw_object_end(w);
}
