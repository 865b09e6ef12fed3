/* A parsed filter, as the files index/filter*.c see it. Everything lies in the arena of the parse and never
 * changes. */
#ifndef VK_INDEX_FILTER_TREE_H
#define VK_INDEX_FILTER_TREE_H

#include "index/filter.h"
#include "index/geo.h"
#include "index/words.h"

enum vk_cond_kind {
	/* on the values of a key, arrays opened; any value will do */
	VK_C_MATCH,
	VK_C_EXCEPT,
	VK_C_TEXT,
	VK_C_TEXT_ANY,
	VK_C_PHRASE,
	VK_C_PREFIX,
	VK_C_SUBSTRING,
	VK_C_RANGE,
	VK_C_TIME,
	VK_C_GEO,
	/* on what the key reaches, arrays whole */
	VK_C_VALUES_COUNT,
	VK_C_EMPTY,
	VK_C_NULL,
	VK_C_NESTED,
	/* on the point */
	VK_C_ID,
	VK_C_VECTOR,
	VK_C_SLICE,
	/* a filter inside */
	VK_C_FILTER
};

struct vk_value_list { /* sorted, each once */
	struct vk_bytes *str;
	int64_t *i64;
	size_t str_n, i64_n;
	bool yes, no; /* true, false */
};
struct vk_bounds { /* of numbers */
	bool has_gt, has_gte, has_lt, has_lte;
	double gt, gte, lt, lte;
};
struct vk_time_bounds { /* microseconds */
	bool has_gt, has_gte, has_lt, has_lte;
	int64_t gt, gte, lt, lte;
};
struct vk_count_bounds {
	bool has_gt, has_gte, has_lt, has_lte;
	uint64_t gt, gte, lt, lte;
};

struct vk_cond {
	enum vk_cond_kind kind;
	const struct vk_path *path; /* those that have a key */
	union {
		struct vk_value_list list; /* MATCH, EXCEPT */
		struct vk_words words;	   /* TEXT, TEXT_ANY, PHRASE */
		struct vk_bytes text;	   /* PREFIX, SUBSTRING; VECTOR: its name */
		struct vk_bounds range;
		struct vk_time_bounds time;
		struct vk_count_bounds count;
		struct vk_geo geo;
		bool want; /* EMPTY, NULL */
		struct {
			struct vk_bytes *key; /* ID: sorted keys */
			size_t n;
		} ids;
		struct {
			uint32_t index, total;
		} slice;
		struct vk_filter *filter; /* NESTED, FILTER; NULL matches everything */
	};
};

struct vk_cond_list {
	struct vk_cond *v;
	size_t n;
};
struct vk_filter {
	struct vk_cond_list must, must_not, should, min_should;
	uint64_t min_count;
	bool has_min_should;
	bool reads_payload; /* some condition does */
};

/* Does one value satisfy a condition of the first group? Texts, numbers and times also without a document: an
 * index has them. */
bool vk_cond_value(const struct vk_cond *c, const vk_jv *v);
bool vk_cond_text(const struct vk_cond *c, struct vk_bytes text); /* MATCH to SUBSTRING */
bool vk_cond_number(const struct vk_cond *c, double v);		  /* RANGE */
bool vk_cond_time(const struct vk_cond *c, int64_t us);		  /* TIME */
bool vk_cond_count(const struct vk_cond *c, uint64_t n);	  /* VALUES_COUNT */
bool vk_cond_has_id(const struct vk_cond *c, struct vk_bytes key);
bool vk_cond_in_slice(const struct vk_cond *c, struct vk_bytes key);
bool vk_list_has_i64(const struct vk_value_list *l, int64_t v);

#endif
