/*
 * Inside reading of filters: what filter_parse.c (the tree) and filter_parse_key.c (tests on a key) share.
 * Every function that fails has filled the error.
 */
#ifndef VK_INDEX_FILTER_PARSE_H
#define VK_INDEX_FILTER_PARSE_H

#include "index/filter_tree.h"

struct vk_fp_place { /* where we are, for errors: a chain on the stack */
	const struct vk_fp_place *up;
	const char *name; /* NULL: item `index` */
	size_t index;
};

struct vk_fp {
	struct vk_arena *a;
	struct vk_error *err;
	size_t conditions, values;
	unsigned depth;
	bool reads_payload;
	bool no_memory;
};

struct vk_fp_reader {
	const char *name;
	enum vk_status (*read)(struct vk_fp *p, const struct vk_fp_place *at, const vk_jv *v,
			       struct vk_cond *c);
};

extern const struct vk_fp_reader
    vk_fp_tests[]; /* match, range, ... in the order in which Qdrant tries them */
#define VK_FP_TESTS 8

/* 400: not of Qdrant's schema. */
enum vk_status vk_fp_refuse(const struct vk_fp *p, const struct vk_fp_place *at, const char *what);
/* 422: of the schema, refused by its validation. */
enum vk_status vk_fp_invalid(const struct vk_fp *p, const struct vk_fp_place *at, const char *what);
enum vk_status vk_fp_refuse_name(const struct vk_fp *p, const struct vk_fp_place *at, const char *what,
				 struct vk_bytes name);
enum vk_status vk_fp_no_memory(const struct vk_fp *p);
enum vk_status vk_fp_count_values(struct vk_fp *p, const struct vk_fp_place *at, size_t n);
bool vk_fp_given(const vk_jv *v); /* there, and not null */
/* A string into the arena: the filter outlives the document that it came in. False: no string,
 * or no memory (which refuse() then says). */
bool vk_fp_str(struct vk_fp *p, const vk_jv *v, struct vk_bytes *out);
/* Sorts n items of `size` bytes and drops repeated ones; how many stay. */
size_t vk_fp_sort_unique(void *items, size_t n, size_t size, int (*compare)(const void *, const void *));

#endif
