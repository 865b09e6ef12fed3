/* Unicode tables of index/words.c (words_table.c). */
#ifndef VK_INDEX_WORDS_TABLE_H
#define VK_INDEX_WORDS_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct vk_cp_range {
	uint32_t first, last;
};
struct vk_lower_run { /* first, first + stride, ... last: each becomes itself + delta */
	uint32_t first, last, stride;
	int32_t delta;
};
extern const struct vk_cp_range vk_word_ranges[];
extern const size_t vk_word_ranges_n;
extern const struct vk_lower_run vk_lower_runs[];
extern const size_t vk_lower_runs_n;

#endif
