/*
 * cJSON's door. The strict pass has accepted the text before cJSON sees it, so a parse that
 * fails here is memory. cJSON's tree is then walked once: number nodes get their spans,
 * containers their counts.
 *
 * What the tree's nodes hold afterwards (cJSON's fields, our meaning):
 *   number     valuestring = its struct vk_json_span in the arena, type | cJSON_IsReference so
 *              that cJSON_Delete leaves it alone; valuedouble and valueint mean nothing
 *   container  valueint = number of children
 *   object     valuedouble = the bits of its span's address, when object spans are kept (its valuestring
 *              would be freed, and a reference's children would not)
 */
#include "base/json.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

#include "base/json_scan.h"
#include "base/num.h"

struct vk_json {
	cJSON *root;
};

static const cJSON *node(const vk_jv *v)
{
	return (const cJSON *)(const void *)v;
}

static const vk_jv *value_of(const cJSON *n)
{
	return (const vk_jv *)(const void *)n;
}

struct cursor {
	struct vk_json_spans *block;
	size_t next;
};

struct walk {
	struct cursor numbers, objects;
	bool keep_objects;
};

static const struct vk_json_span *take_span(struct cursor *c)
{
	if (c->block && c->next == c->block->n) {
		c->block = c->block->next;
		c->next = 0;
	}
	assert(c->block && c->next < c->block->n);
	return &c->block->span[c->next++];
}

static bool used_up(const struct cursor *c)
{
	return !c->block || (c->next == c->block->n && !c->block->next);
}

static void keep_span(cJSON *n, const struct vk_json_span *s)
{
	uint64_t bits = (uintptr_t)s;
	memcpy(&n->valuedouble, &bits, sizeof bits);
}

/* Depth first, a parent before its children: the order of first bytes in the text. */
static void attach(struct walk *w, cJSON *n)
{
	int type = n->type & 0xff, count = 0;
	if (type == cJSON_Number) {
		n->valuestring = (char *)(uintptr_t)take_span(&w->numbers);
		n->type |= cJSON_IsReference;
	}
	if (type == cJSON_Object) keep_span(n, w->keep_objects ? take_span(&w->objects) : NULL);
	if (type != cJSON_Array && type != cJSON_Object) return;
	for (cJSON *c = n->child; c; c = c->next) {
		attach(w, c);
		count++;
	}
	n->valueint = count;
}

static enum vk_status build(struct vk_arena *arena, struct vk_bytes text, struct walk *w,
			    struct vk_json **out, struct vk_error *err)
{
	struct vk_json *doc = vk_arena_alloc(arena, sizeof *doc);
	cJSON *root = doc ? cJSON_ParseWithLengthOpts(text.p, text.n, NULL, 0) : NULL;
	if (!root) return vk_fail(err, VK_E_NOMEM, "out of memory while reading JSON");
	attach(w, root);
	assert(used_up(&w->numbers) && used_up(&w->objects));
	doc->root = root;
	*out = doc;
	return VK_OK;
}

enum vk_status vk_json_parse(struct vk_arena *arena, struct vk_bytes text,
			     const struct vk_json_opts *opts, struct vk_json **out,
			     struct vk_error *err)
{
	static const struct vk_json_opts defaults;
	if (!opts) opts = &defaults;
	struct vk_json_limits limits = {
		.depth_max = opts->depth_max && opts->depth_max < VK_JSON_DEPTH_MAX ? opts->depth_max
										    : VK_JSON_DEPTH_MAX,
		.values_max = opts->values_max ? opts->values_max : VK_JSON_VALUES_MAX,
		.lines = opts->comments,
		.objects = opts->object_spans,
	};
	struct vk_json_spans *spans = NULL, *objects = NULL;
	struct vk_buf rewritten;
	vk_buf_init(&rewritten, text.n); /* a span is never shorter than its 0 */
	*out = NULL;
	enum vk_status st = VK_OK;
	if (opts->comments) st = vk_json_strip(arena, text, &text, err);
	if (!st) st = vk_json_scan(arena, text, &limits, &rewritten, &spans, &objects, err);
	struct walk w = {.numbers = {.block = spans}, .objects = {.block = objects}, .keep_objects = limits.objects};
	if (!st) st = build(arena, spans ? vk_buf_bytes(&rewritten) : text, &w, out, err);
	vk_buf_free(&rewritten);
	return st;
}

void vk_json_free(struct vk_json *doc)
{
	if (!doc) return;
	cJSON_Delete(doc->root);
	doc->root = NULL;
}

const vk_jv *vk_json_root(const struct vk_json *doc)
{
	return doc ? value_of(doc->root) : NULL;
}

static const struct vk_json_span *span(const vk_jv *v)
{
	const cJSON *n = node(v);
	if (!n || (n->type & 0xff) != cJSON_Number) return NULL;
	return (const struct vk_json_span *)(const void *)n->valuestring;
}

enum vk_jtype vk_jv_type(const vk_jv *v)
{
	if (!v) return VK_J_NULL;
	switch (node(v)->type & 0xff) {
	case cJSON_False:
	case cJSON_True: return VK_J_BOOL;
	case cJSON_Number: return span(v)->count ? VK_J_NUMBERS : VK_J_NUMBER;
	case cJSON_String: return VK_J_STRING;
	case cJSON_Array: return VK_J_ARRAY;
	case cJSON_Object: return VK_J_OBJECT;
	default: return VK_J_NULL;
	}
}

const vk_jv *vk_jv_get(const vk_jv *object, const char *key)
{
	if (vk_jv_type(object) != VK_J_OBJECT) return NULL;
	return value_of(cJSON_GetObjectItemCaseSensitive(node(object), key));
}

size_t vk_jv_len(const vk_jv *v)
{
	switch (vk_jv_type(v)) {
	case VK_J_NUMBERS: return span(v)->count;
	case VK_J_ARRAY:
	case VK_J_OBJECT: return (size_t)node(v)->valueint;
	default: return 0;
	}
}

const vk_jv *vk_jv_first(const vk_jv *v)
{
	return v ? value_of(node(v)->child) : NULL;
}

const vk_jv *vk_jv_next(const vk_jv *v)
{
	return v ? value_of(node(v)->next) : NULL;
}

struct vk_bytes vk_jv_key(const vk_jv *member)
{
	return vk_bytes_of(member ? node(member)->string : NULL);
}

bool vk_jv_str(const vk_jv *v, struct vk_bytes *out)
{
	if (vk_jv_type(v) != VK_J_STRING) return false;
	*out = vk_bytes_of(node(v)->valuestring);
	return true;
}

bool vk_jv_bool(const vk_jv *v, bool *out)
{
	if (vk_jv_type(v) != VK_J_BOOL) return false;
	*out = (node(v)->type & 0xff) == cJSON_True;
	return true;
}

bool vk_jv_text(const vk_jv *v, struct vk_bytes *out)
{
	const struct vk_json_span *s = span(v);
	if (!s) return false;
	*out = (struct vk_bytes){s->p, s->n};
	return true;
}

/* The span of a single number. */
static bool number(const vk_jv *v, struct vk_bytes *out)
{
	return vk_jv_type(v) == VK_J_NUMBER && vk_jv_text(v, out);
}

/* -?[0-9]+ of at most max in size; false for anything else, overflow included. */
static bool read_integer(const char *p, const char *end, uint64_t max, bool *negative, uint64_t *out)
{
	uint64_t v = 0;
	*negative = p < end && *p == '-';
	p += *negative;
	if (p == end) return false;
	for (; p < end; p++) {
		unsigned d = (unsigned char)(*p - '0');
		if (d > 9 || v > (max - d) / 10) return false;
		v = v * 10 + d;
	}
	*out = v;
	return true;
}

bool vk_jv_f64(const vk_jv *v, double *out)
{
	struct vk_bytes t;
	return number(v, &t) && vk_f64_read(t.p, t.p + t.n, out);
}

bool vk_jv_u64(const vk_jv *v, uint64_t *out)
{
	struct vk_bytes t;
	bool negative;
	uint64_t u;
	if (!number(v, &t) || !read_integer(t.p, t.p + t.n, UINT64_MAX, &negative, &u)) return false;
	if (negative && u) return false;
	*out = u;
	return true;
}

bool vk_jv_i64(const vk_jv *v, int64_t *out)
{
	struct vk_bytes t;
	bool negative;
	uint64_t u;
	if (!number(v, &t)) return false;
	if (!read_integer(t.p, t.p + t.n, (uint64_t)INT64_MAX + 1, &negative, &u)) return false;
	if (!negative && u > INT64_MAX) return false;
	*out = negative ? (int64_t)(0 - u) : (int64_t)u;
	return true;
}

bool vk_jv_f32s(const vk_jv *numbers, float *dst)
{
	const struct vk_json_span *s = span(numbers);
	size_t n;
	return s && s->count && vk_f32s_read(s->p, s->p + s->n, dst, s->count, &n) && n == s->count;
}

/* The next item of a lifted array from p: [p, *stop) is its text. Returns where to go on. */
static const char *next_item(const char *p, const char *end, const char **item, const char **stop)
{
	while (strchr(" \t\r\n", *p)) p++;
	*item = p;
	while (p < end && !strchr(" \t\r\n,", *p)) p++;
	*stop = p;
	while (p < end && *p != ',') p++;
	return p + 1;
}

bool vk_jv_f64s(const vk_jv *numbers, double *dst)
{
	const struct vk_json_span *s = span(numbers);
	if (!s || !s->count) return false;
	const char *p = s->p + 1, *end = s->p + s->n - 1, *item, *stop; /* without the brackets */
	for (uint32_t i = 0; i < s->count; i++) {
		p = next_item(p, end, &item, &stop);
		if (!vk_f64_read(item, stop, &dst[i])) return false;
	}
	return true;
}

bool vk_jv_span(const vk_jv *object, struct vk_bytes *out)
{
	uint64_t bits;
	if (vk_jv_type(object) != VK_J_OBJECT) return false;
	memcpy(&bits, &node(object)->valuedouble, sizeof bits);
	const struct vk_json_span *s = (const struct vk_json_span *)(uintptr_t)bits;
	if (!s) return false;
	*out = (struct vk_bytes){s->p, s->n};
	return true;
}

bool vk_jv_u64s(const vk_jv *numbers, uint64_t *dst)
{
	const struct vk_json_span *s = span(numbers);
	if (!s || !s->count) return false;
	const char *p = s->p + 1, *end = s->p + s->n - 1, *item, *stop;
	for (uint32_t i = 0; i < s->count; i++) {
		bool negative;
		p = next_item(p, end, &item, &stop);
		if (!read_integer(item, stop, UINT64_MAX, &negative, &dst[i]) || (negative && dst[i])) return false;
	}
	return true;
}

bool vk_jv_u32s(const vk_jv *numbers, uint32_t *dst)
{
	const struct vk_json_span *s = span(numbers);
	if (!s || !s->count) return false;
	const char *p = s->p + 1, *end = s->p + s->n - 1, *item, *stop;
	for (uint32_t i = 0; i < s->count; i++) {
		bool negative;
		uint64_t u;
		p = next_item(p, end, &item, &stop);
		if (!read_integer(item, stop, UINT32_MAX, &negative, &u) || (negative && u)) return false;
		dst[i] = (uint32_t)u;
	}
	return true;
}

/* fn on one item of a lifted array, as a number value of its own. */
static bool give_number(const char *item, const char *stop, bool (*fn)(void *arg, const vk_jv *item), void *arg)
{
	struct vk_json_span one = {.p = item, .n = (uint32_t)(stop - item)};
	cJSON n = {.type = cJSON_Number | cJSON_IsReference, .valuestring = (char *)(uintptr_t)&one};
	return fn(arg, value_of(&n));
}

static bool each_number(const struct vk_json_span *s, size_t from, size_t to,
			bool (*fn)(void *arg, const vk_jv *item), void *arg)
{
	const char *p = s->p + 1, *end = s->p + s->n - 1, *item, *stop;
	for (size_t i = 0; i < to; i++) {
		p = next_item(p, end, &item, &stop);
		if (i >= from && !give_number(item, stop, fn, arg)) return false;
	}
	return true;
}

bool vk_jv_each(const vk_jv *array, bool (*fn)(void *arg, const vk_jv *item), void *arg)
{
	enum vk_jtype type = vk_jv_type(array);
	if (type == VK_J_NUMBERS) return each_number(span(array), 0, span(array)->count, fn, arg);
	if (type != VK_J_ARRAY) return true;
	for (const vk_jv *i = vk_jv_first(array); i; i = vk_jv_next(i))
		if (!fn(arg, i)) return false;
	return true;
}

bool vk_jv_at(const vk_jv *array, size_t index, bool (*fn)(void *arg, const vk_jv *item), void *arg)
{
	enum vk_jtype type = vk_jv_type(array);
	if (type == VK_J_NUMBERS)
		return index >= span(array)->count || each_number(span(array), index, index + 1, fn, arg);
	if (type != VK_J_ARRAY) return true;
	const vk_jv *i = vk_jv_first(array);
	while (i && index--) i = vk_jv_next(i);
	return !i || fn(arg, i);
}
