/*
 * Payload text: the client's JSON object, kept and returned as it came. Reading follows Qdrant's paths: `a.b` steps into
 * objects, `a[].b` into every item of an array, `a[0]` into one, and a key with dots or brackets is quoted: `"a.b".c`.
 * An array that a path ends at stands for its items when values are asked for.
 *
 * Edits give new text: members that stay keep their bytes and their order.
 */
#ifndef VK_INDEX_PAYLOAD_H
#define VK_INDEX_PAYLOAD_H

#include "base/json.h"

#define VK_PATH_STEPS_MAX 32

struct vk_path_step {
	struct vk_bytes key; /* p == NULL: every item (index < 0), or item `index` */
	int64_t index;
};
struct vk_path {
	struct vk_bytes text;
	struct vk_path_step step[VK_PATH_STEPS_MAX];
	size_t n;
};
/* text must outlive the path (keys borrow; quoted ones are copied into the arena). */
enum vk_status vk_path_parse(struct vk_arena *a, struct vk_bytes text, struct vk_path *out, struct vk_error *err);

/* Calls fn for each value that the path reaches; an array at the end is passed whole. fn returns false to stop. */
void vk_path_each(const vk_jv *payload, const struct vk_path *p, bool (*fn)(void *arg, const vk_jv *v), void *arg);
/* As above, but an array at the path's end is opened: fn sees its items (nulls too). */
void vk_path_values(const vk_jv *payload, const struct vk_path *p, bool (*fn)(void *arg, const vk_jv *v), void *arg);

/* What with_payload asks for. Zero: nothing. */
struct vk_payload_select {
	bool any;                       /* true: give payload */
	const struct vk_path *include;  /* NULL: all */
	size_t include_n;
	const struct vk_path *exclude;
	size_t exclude_n;
};
/* Writes the selected payload as a value ("{}" when nothing is left). text is the stored JSON, n == 0: none. */
enum vk_status vk_payload_write(struct vk_jw *w, struct vk_arena *scratch, struct vk_bytes text,
				const struct vk_payload_select *sel);

/* Edits append the new text to dst. old.n == 0 is {}. */
enum vk_status vk_payload_merge(struct vk_buf *dst, struct vk_arena *scratch, struct vk_bytes old,
				const vk_jv *patch, const struct vk_path *at /* NULL: the top */);
enum vk_status vk_payload_delete(struct vk_buf *dst, struct vk_arena *scratch, struct vk_bytes old,
				 const struct vk_path *keys, size_t n);

#endif
