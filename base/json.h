/*
 * JSON in: one strict pass over every body, then cJSON for what is left, behind this door.
 *
 * The strict pass (base/json_scan.c) refuses what cJSON would let through: bad UTF-8, lone
 * surrogates, control characters, \u0000, numbers out of grammar, depth, duplicate keys,
 * bytes after the end. It lifts numbers and arrays of numbers out of the text (cJSON needs
 * 300 us to read one 1536-d vector, rounds u64 ids and turns 1.0 into 1), so they stay spans
 * of the body until somebody asks for them as f32, u32, u64, f64 or text.
 *
 * Lifetimes: a document borrows the body and lives in the arena; values (struct vk_jv *)
 * live as long as the document. Call vk_json_free() before the arena goes (cJSON's own
 * nodes are malloc'd). Keys are compared case-sensitively. Threads: one at a time.
 * Errors: VK_E_INVALID with a text that names the byte offset and what was expected.
 */
#ifndef VK_BASE_JSON_H
#define VK_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/status.h"

#define VK_JSON_DEPTH_MAX 64
#define VK_JSON_VALUES_MAX ((size_t)1 << 20) /* cJSON spends about 80 bytes on each */

struct vk_json_opts { /* zero = defaults */
	bool comments;       /* config files: // and block comments, trailing commas allowed */
	unsigned depth_max;  /* 0: VK_JSON_DEPTH_MAX, which is also the most */
	size_t values_max;   /* 0: VK_JSON_VALUES_MAX; a lifted array counts as one, keys do not count */
	bool object_spans;   /* remember where each object stood, for vk_jv_span() */
};

struct vk_json;          /* a parsed document */
typedef struct vk_jv vk_jv; /* one value of it, borrowed */

enum vk_jtype {
	VK_J_NULL,
	VK_J_BOOL,
	VK_J_NUMBER,
	VK_J_STRING,
	VK_J_ARRAY,   /* of values: strings, objects, arrays, mixed; an empty array too */
	VK_J_NUMBERS, /* lifted: an array of one or more numbers and nothing else */
	VK_J_OBJECT
};

/* Parses text (any byte string). On failure *out is NULL and nothing needs freeing. */
enum vk_status vk_json_parse(struct vk_arena *arena, struct vk_bytes text,
			     const struct vk_json_opts *opts, struct vk_json **out,
			     struct vk_error *err);
void vk_json_free(struct vk_json *doc); /* NULL is fine */

const vk_jv *vk_json_root(const struct vk_json *doc);

/* All take NULL for the value and then say "absent" (type NULL, false, 0 length). */
enum vk_jtype vk_jv_type(const vk_jv *v);
const vk_jv *vk_jv_get(const vk_jv *object, const char *key); /* NULL when absent */
size_t vk_jv_len(const vk_jv *v);          /* members of an object, items of an array or of numbers */
const vk_jv *vk_jv_first(const vk_jv *v);  /* first child of an object or VK_J_ARRAY, or NULL */
const vk_jv *vk_jv_next(const vk_jv *v);   /* next sibling, or NULL */
struct vk_bytes vk_jv_key(const vk_jv *member); /* key of an object's member; a NUL stands behind it */
/* Calls fn for each item of an array, lifted or not; an item of a lifted array is a value that lives only during
 * the call. False when fn returned false (that stops), true otherwise, for what is no array too. */
bool vk_jv_each(const vk_jv *array, bool (*fn)(void *arg, const vk_jv *item), void *arg);
/* The same for item `index` alone; nothing happens past the end. */
bool vk_jv_at(const vk_jv *array, size_t index, bool (*fn)(void *arg, const vk_jv *item), void *arg);

/* Each is true and fills *out only when the value has that type (and, for the integers,
 * is one: no fraction, no exponent, in range; "1.0" is no integer). */
bool vk_jv_str(const vk_jv *v, struct vk_bytes *out);
bool vk_jv_bool(const vk_jv *v, bool *out);
bool vk_jv_f64(const vk_jv *v, double *out);
bool vk_jv_i64(const vk_jv *v, int64_t *out);
bool vk_jv_u64(const vk_jv *v, uint64_t *out);
/* The exact text of a number, or of a lifted array with its brackets, as it came. */
bool vk_jv_text(const vk_jv *v, struct vk_bytes *out);
/* The exact text of an object, braces and white space inside as they came. Documents parsed with
 * vk_json_opts.object_spans only. */
bool vk_jv_span(const vk_jv *object, struct vk_bytes *out);

/* A lifted array into dst[0..vk_jv_len). False when one number does not fit: f32 rounds to
 * nearest and refuses what overflows to infinity; u32 wants plain integers. */
bool vk_jv_f32s(const vk_jv *numbers, float *dst);
bool vk_jv_u32s(const vk_jv *numbers, uint32_t *dst);
bool vk_jv_u64s(const vk_jv *numbers, uint64_t *dst);
bool vk_jv_f64s(const vk_jv *numbers, double *dst); /* as vk_jv_f64 reads each */

/*
 * JSON out: straight into a buffer, commas by itself. A key or value in the wrong place is
 * our bug (assert), unless the buffer has failed: then nothing is written or asked any more, so a reply that
 * is given up half-way (vk_jw_abandon) may be left as it stands. Strings are escaped; they must be valid UTF-8. A float that is not
 * finite is written as null.
 */
struct vk_jw {
	struct vk_buf *buf;
	unsigned depth;
	bool comma;          /* a separator is due before the next item */
	bool keyed;          /* a key was written and waits for its value */
	uint64_t objects[4]; /* bit d: depth d is an object; the writer goes 255 deep */
};

static inline void vk_jw_init(struct vk_jw *w, struct vk_buf *buf)
{
	*w = (struct vk_jw){.buf = buf};
}
/* The text will not be used: whatever is still written is ignored. */
static inline void vk_jw_abandon(struct vk_jw *w)
{
	w->buf->failed = true;
}
void vk_jw_object(struct vk_jw *w);
void vk_jw_object_end(struct vk_jw *w);
void vk_jw_array(struct vk_jw *w);
void vk_jw_array_end(struct vk_jw *w);
void vk_jw_key(struct vk_jw *w, const char *key);
void vk_jw_str(struct vk_jw *w, struct vk_bytes s);
void vk_jw_cstr(struct vk_jw *w, const char *s); /* NULL writes null */
void vk_jw_i64(struct vk_jw *w, int64_t v);
void vk_jw_u64(struct vk_jw *w, uint64_t v);
void vk_jw_f64(struct vk_jw *w, double v); /* shortest that reads back the same */
void vk_jw_bool(struct vk_jw *w, bool v);
void vk_jw_null(struct vk_jw *w);
void vk_jw_f32s(struct vk_jw *w, const float *v, size_t n); /* an array; shortest f32 text */
void vk_jw_base64(struct vk_jw *w, const void *p, size_t n); /* a string */
void vk_jw_raw(struct vk_jw *w, struct vk_bytes json);       /* a value that is JSON already */
void vk_jw_value(struct vk_jw *w, const vk_jv *v); /* a parsed value again, numbers in their own text */
void vk_jw_member(struct vk_jw *w, const vk_jv *m); /* the same with its key, of an object's member */
/* A key and a value in one call, for the plain cases. */
void vk_jw_kv(struct vk_jw *w, const char *key, const char *cstr);
void vk_jw_ki(struct vk_jw *w, const char *key, int64_t v);
void vk_jw_kb(struct vk_jw *w, const char *key, bool v);
void vk_jw_kf(struct vk_jw *w, const char *key, double v);

#endif
