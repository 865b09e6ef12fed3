/*
 * Goal: no body breaks the JSON door, and what it accepts means one thing.
 * Method: parse as a request and as a config file, touch every value through every accessor;
 * what is accepted must be accepted by cJSON alone, and written again it must parse to the
 * same text (one more round changes nothing).
 */
#include <stdint.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

#include "base/json.h"
#include "base/utf8.h"

#define INPUT_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok) abort();
}

static void touch_numbers(const vk_jv *v)
{
	size_t n = vk_jv_len(v);
	float *f = malloc(n * sizeof *f);
	uint32_t *u = malloc(n * sizeof *u);
	struct vk_bytes text;
	check(f && u && n >= 1);
	bool floats = vk_jv_f32s(v, f), words = vk_jv_u32s(v, u);
	if (words) {
		check(floats); /* no u32 is too large for f32 */
		for (size_t i = 0; i < n; i++) check(f[i] == (float)u[i]);
	}
	check(vk_jv_text(v, &text) && text.p[0] == '[' && text.p[text.n - 1] == ']');
	free(f);
	free(u);
}

static void touch_number(const vk_jv *v)
{
	int64_t i;
	uint64_t u;
	double d;
	bool f = vk_jv_f64(v, &d);
	if (vk_jv_u64(v, &u)) check(f && d == (double)u);
	if (vk_jv_i64(v, &i)) check(f && d == (double)i);
}

static void touch(const vk_jv *v)
{
	struct vk_bytes s;
	bool b;
	size_t n = 0;
	switch (vk_jv_type(v)) {
	case VK_J_NULL: break;
	case VK_J_BOOL: check(vk_jv_bool(v, &b)); break;
	case VK_J_NUMBER: touch_number(v); break;
	case VK_J_NUMBERS: touch_numbers(v); break;
	case VK_J_STRING: check(vk_jv_str(v, &s) && vk_utf8_valid(s.p, s.n) == s.n); break;
	case VK_J_ARRAY:
	case VK_J_OBJECT:
		for (const vk_jv *c = vk_jv_first(v); c; c = vk_jv_next(c), n++) {
			/* No duplicates: the first of this name is this one. Large objects are spared. */
			if (vk_jv_type(v) == VK_J_OBJECT && vk_jv_len(v) < 100)
				check(vk_jv_get(v, vk_jv_key(c).p) == c);
			touch(c);
		}
		check(n == vk_jv_len(v));
	}
}

static void rewrite(const vk_jv *v, struct vk_buf *out)
{
	struct vk_jw w;
	vk_buf_init(out, (size_t)8 << 20);
	vk_jw_init(&w, out);
	vk_jw_value(&w, v);
	check(!out->failed && w.depth == 0);
}

/* cJSON alone knows no comments, so only what came without may be asked; and it reads no
 * number of more than 63 characters. */
static void cjson_agrees(struct vk_bytes text)
{
	size_t run = 0;
	for (size_t i = 0; i < text.n; i++) {
		run = text.p[i] && strchr("+-.eE0123456789", text.p[i]) ? run + 1 : 0;
		if (run > 63) return;
	}
	cJSON *root = cJSON_ParseWithLength(text.p, text.n);
	check(root != NULL);
	cJSON_Delete(root);
}

static void one_way(struct vk_bytes text, const struct vk_json_opts *opts)
{
	struct vk_arena arena;
	struct vk_json *doc, *again;
	struct vk_error err;
	struct vk_buf first, second;
	vk_arena_init(&arena, (size_t)64 << 20);
	enum vk_status st = vk_json_parse(&arena, text, opts, &doc, &err);
	if (st) {
		check(!doc && err.st == st && err.text[0]);
		check(vk_utf8_valid(err.text, strlen(err.text)) == strlen(err.text));
	} else {
		if (!opts->comments) cjson_agrees(text);
		touch(vk_json_root(doc));
		rewrite(vk_json_root(doc), &first);
		check(vk_json_parse(&arena, vk_buf_bytes(&first), NULL, &again, &err) == VK_OK);
		rewrite(vk_json_root(again), &second);
		check(vk_bytes_eq(vk_buf_bytes(&first), vk_buf_bytes(&second)));
		vk_json_free(again);
		vk_json_free(doc);
		vk_buf_free(&first);
		vk_buf_free(&second);
	}
	vk_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > INPUT_MAX) return 0;
	/* A copy of exact size, so that a read behind it is seen. */
	char *copy = malloc(size ? size : 1);
	check(copy);
	if (size) memcpy(copy, data, size);
	struct vk_bytes text = {copy, size};
	one_way(text, &(struct vk_json_opts){0});
	one_way(text, &(struct vk_json_opts){.comments = true});
	free(copy);
	return 0;
}
