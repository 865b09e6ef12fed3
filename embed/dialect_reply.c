/*
 * The one place where vectors from outside are believed, and what they must show before:
 * n of them, each in one place, of the space's dims, finite, not zero.
 *
 * A reply that breaks a rule is refused as a whole: which of its vectors belongs to which text
 * is then no longer known.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "embed/dialect_parts.h"
#include "simd/base64.h"
#include "simd/cpu.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "base64 rows are little-endian f32");

enum vk_status vk_reply_lie(const struct vk_reply *r, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return vk_fail(r->err, VK_E_UPSTREAM, "provider \"%s\": %s", r->call->provider->name, text);
}

static enum vk_status no_memory(const struct vk_reply *r)
{
	return vk_fail(r->err, VK_E_NOMEM, "no memory for the reply of provider \"%s\"", r->call->provider->name);
}

/* An error object inside a 200: "error" that says something, or an object that calls itself one. */
static bool is_error(const vk_jv *root)
{
	struct vk_bytes s;
	const vk_jv *error = vk_jv_get(root, "error");
	if (vk_jv_str(error, &s)) return s.n > 0;
	if (vk_jv_type(error) == VK_J_OBJECT) return vk_jv_len(error) > 0;
	return vk_jv_str(vk_jv_get(root, "object"), &s) && vk_bytes_is(s, "error");
}

enum vk_status vk_reply_open(struct vk_reply *r, const struct vk_call *call, struct vk_bytes body,
			     struct vk_arena *arena, struct vk_answer *out,
			     struct vk_verdict *verdict, struct vk_error *err)
{
	struct vk_error why = {0};
	*r = (struct vk_reply){.call = call, .arena = arena, .out = out, .err = err};
	*out = (struct vk_answer){0};
	*verdict = (struct vk_verdict){.retry_after_ms = -1};
	vk_arena_init(&r->own, body.n * 4 + ((size_t)1 << 20));
	if (!body.n) return vk_reply_lie(r, "the reply is empty");
	enum vk_status st = vk_json_parse(&r->own, body, NULL, &r->doc, &why);
	if (st == VK_E_NOMEM) return no_memory(r);
	if (st) return vk_reply_lie(r, "the reply is not JSON that can be read: %s", why.text);
	r->root = vk_json_root(r->doc);
	if (!is_error(r->root)) return VK_OK;
	vk_retry_judge_body(body, verdict);
	return vk_reply_lie(r, "a reply with status 200 holds an error: %s", verdict->text);
}

enum vk_status vk_reply_expect(struct vk_reply *r, size_t vectors)
{
	size_t n = r->call->n, dims = r->call->space->dims;
	if (vectors != n) return vk_reply_lie(r, "the reply has %zu vectors for %zu inputs", vectors, n);
	r->seen = vk_arena_calloc(&r->own, n, 1);
	r->decoded = vk_arena_alloc(&r->own, dims * sizeof(float) + 4);
	if (!r->seen || !r->decoded || n > SIZE_MAX / sizeof(float) / dims) return no_memory(r);
	r->out->rows = vk_arena_alloc(r->arena, n * dims * sizeof(float));
	r->out->tokens = vk_arena_calloc(r->arena, n, sizeof *r->out->tokens);
	return r->out->rows && r->out->tokens ? VK_OK : no_memory(r);
}

/* Exponent all ones: infinity or NaN. By bits, so that the loop is vectorised and no flag of the
 * compiler can argue NaN away. */
static enum vk_status check_row(const struct vk_reply *r, size_t place, const float *row)
{
	uint32_t any = 0, wild = 0;
	for (size_t i = 0; i < r->call->space->dims; i++) {
		uint32_t bits;
		memcpy(&bits, &row[i], sizeof bits);
		bits &= 0x7fffffff;
		any |= bits;
		wild |= (uint32_t)(bits >= 0x7f800000);
	}
	if (wild) return vk_reply_lie(r, "vector %zu holds NaN or infinity", place);
	if (!any) return vk_reply_lie(r, "vector %zu is all zeros", place);
	return VK_OK;
}

static enum vk_status wrong_dims(const struct vk_reply *r, size_t place, size_t dims)
{
	return vk_reply_lie(r, "vector %zu has %zu dimensions, the space \"%s\" has %u", place, dims,
			    r->call->space->id, (unsigned)r->call->space->dims);
}

static enum vk_status read_base64(struct vk_reply *r, size_t place, struct vk_bytes text, float *row)
{
	size_t want = r->call->space->dims * sizeof(float);
	if (text.n != VK_BASE64_LEN(want)) {
		if (text.n % 4 == 0 && text.n / 4 * 3 / sizeof(float) != r->call->space->dims)
			return wrong_dims(r, place, text.n / 4 * 3 / sizeof(float));
		return vk_reply_lie(r, "vector %zu is a text that is not base64", place);
	}
	/* Not straight into the row: padding makes the decoder write up to two bytes past it. */
	if (vk_base64_decode(vk_cpu_best(), r->decoded, text.p, text.n) != want)
		return vk_reply_lie(r, "vector %zu is a text that is not base64 of %zu floats", place,
				    (size_t)r->call->space->dims);
	memcpy(row, r->decoded, want);
	return VK_OK;
}

static enum vk_status read_numbers(struct vk_reply *r, size_t place, const vk_jv *v, float *row)
{
	if (vk_jv_type(v) != VK_J_NUMBERS)
		return vk_reply_lie(r, "vector %zu is missing or is not a list of numbers", place);
	if (vk_jv_len(v) != r->call->space->dims) return wrong_dims(r, place, vk_jv_len(v));
	if (!vk_jv_f32s(v, row)) return vk_reply_lie(r, "vector %zu holds a number too large for a float", place);
	return VK_OK;
}

enum vk_status vk_reply_row(struct vk_reply *r, size_t place, const vk_jv *vector)
{
	struct vk_bytes text;
	if (place >= r->call->n) return vk_reply_lie(r, "index %zu of %zu inputs", place, r->call->n);
	if (r->seen[place]) return vk_reply_lie(r, "index %zu came twice", place);
	r->seen[place] = 1;
	float *row = r->out->rows + place * r->call->space->dims;
	enum vk_status st = vk_jv_str(vector, &text) ? read_base64(r, place, text, row)
						     : read_numbers(r, place, vector, row);
	return st ? st : check_row(r, place, row);
}

enum vk_status vk_reply_lists(struct vk_reply *r, const vk_jv *lists)
{
	if (vk_jv_type(lists) == VK_J_NUMBERS && r->call->n == 1) {
		enum vk_status one = vk_reply_expect(r, 1);
		return one ? one : vk_reply_row(r, 0, lists);
	}
	if (vk_jv_type(lists) != VK_J_ARRAY) return vk_reply_lie(r, "the reply holds no list of vectors");
	enum vk_status st = vk_reply_expect(r, vk_jv_len(lists));
	size_t place = 0;
	for (const vk_jv *v = vk_jv_first(lists); v && !st; v = vk_jv_next(v)) st = vk_reply_row(r, place++, v);
	return st;
}

/* ---- tokens ---- */

uint32_t vk_reply_tokens(const vk_jv *v)
{
	double d;
	if (!vk_jv_f64(v, &d) || !(d >= 0) || d > UINT32_MAX) return 0;
	return (uint32_t)(d + 0.5);
}

static uint64_t weight(const struct vk_call *call, size_t i)
{
	const struct vk_call_item *item = &call->items[i];
	uint64_t prefix = call->role && call->role->prefix ? strlen(call->role->prefix) : 0;
	return item->text.p ? item->text.n + prefix + 1 : (uint64_t)item->tokens_n * 4 + 1;
}

/* Shares by bytes; each is the difference of two rounded-down running sums, so together they are
 * the total exactly. */
static void share_tokens(struct vk_reply *r, uint32_t total)
{
	const struct vk_call *call = r->call;
	uint64_t sum = 0, before = 0, given = 0;
	for (size_t i = 0; i < call->n; i++) sum += weight(call, i);
	for (size_t i = 0; i < call->n; i++) {
		before += weight(call, i);
		uint64_t upto = (uint64_t)((unsigned __int128)total * before / sum);
		r->out->tokens[i] = (uint32_t)(upto - given);
		given = upto;
	}
	r->out->tokens_total = total;
	r->out->tokens_exact = call->n == 1 && total > 0;
}

enum vk_status vk_reply_finish(struct vk_reply *r, enum vk_status st, uint32_t tokens_total)
{
	/* The count is right and no place came twice: so every place has its row. */
	if (st) *r->out = (struct vk_answer){0};
	else share_tokens(r, tokens_total);
	vk_json_free(r->doc);
	vk_arena_free(&r->own);
	return st;
}
