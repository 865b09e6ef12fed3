/*
 * A beam's pool: the best keys met so far, in order, and which of them were expanded.
 *
 * A key is one u64 that sorts nearest first: nearness turned upside down in the high half, the node in bits 1 to 31 (so ties go by
 * node and the order is total), "expanded" in bit 0. A node that is in already is refused: whoever fills the pool may forget
 * whom it has met.
 *
 * Two shapes. Flat: one sorted array, binary search and memmove, a step's keys merged at once, everything inline; up to
 * VK_POOL_FLAT_MAX keys, where moving half of them costs less than a cache miss. Deep: sorted blocks of sorted keys, for wide beams and filtered walks (65,536 keys, where the
 * flat one moved 256 KB an insertion). Not taken: two heaps (no order to read out, no refusing of equals).
 *
 * One thread's; the caller allocates. Nothing fails once memory is had.
 */
#ifndef VK_INDEX_GRAPH_POOL_H
#define VK_INDEX_GRAPH_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define VK_POOL_FLAT_MAX 1024u
#define VK_POOL_NONE UINT32_MAX

static inline uint64_t vk_pool_key(float near, uint32_t node)
{
	uint32_t bits;
	memcpy(&bits, &near, sizeof bits);
	bits ^= bits >> 31 ? 0 : 0x7fffffffu; /* descending: big floats first, negative ones by their size */
	return (uint64_t)bits << 32 | (uint64_t)node << 1;
}

static inline uint32_t vk_pool_node(uint64_t key)
{
	return (uint32_t)key >> 1;
}

static inline float vk_pool_near(uint64_t key)
{
	uint32_t bits = (uint32_t)(key >> 32);
	float near;
	bits ^= bits >> 31 ? 0 : 0x7fffffffu;
	memcpy(&near, &bits, sizeof near);
	return near;
}

/* --- flat --- */

struct vk_pool_flat {
	uint64_t *key;   /* room for VK_POOL_FLAT_MAX + 1 */
	uint32_t n, cap; /* cap: at least 1 */
	uint32_t next;   /* the first that is not expanded; n: none */
};

static inline void vk_pool_flat_reset(struct vk_pool_flat *p, uint32_t cap)
{
	p->n = p->next = 0;
	p->cap = cap;
}

/* The first that is not below key, without a branch on the data. */
static inline uint32_t vk_pool_flat_place(const struct vk_pool_flat *p, uint64_t key)
{
	const uint64_t *at = p->key;
	uint32_t left = p->n;
	for (; left > 1; left -= left / 2) at += at[left / 2 - 1] < key ? left / 2 : 0;
	at += left && *at < key;
	return (uint32_t)(at - p->key);
}

/* Ascending; few keys, and mostly far fewer than that. */
static inline void vk_pool_sort(uint64_t *key, uint32_t n)
{
	for (uint32_t i = 1; i < n; i++) {
		uint64_t k = key[i];
		uint32_t j = i;
		for (; j && key[j - 1] > k; j--) key[j] = key[j - 1];
		key[j] = k;
	}
}

/* One step's keys at once, at most VK_POOL_STEP, in any order (they are sorted here): their places are found side by side, and what
 * stands behind them moves once instead of once a key. True when one of them became the next to expand. */
#define VK_POOL_STEP 256u
static inline bool vk_pool_flat_merge(struct vk_pool_flat *p, uint64_t *key, uint32_t n)
{
	uint32_t place[VK_POOL_STEP], m = 0, hi = p->n;
	vk_pool_sort(key, n);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = vk_pool_flat_place(p, key[i]);
		bool here = at < p->n && (p->key[at] | 1) == (key[i] | 1), twice = m && key[m - 1] == key[i];
		place[m] = at;
		key[m] = key[i];
		m += !here && !twice && at + m < p->cap;
	}
	if (!m) return false;
	for (uint32_t i = m; i-- > 0; hi = place[i]) { /* places below hi are as they were */
		uint32_t to = place[i] + i + 1, moved = hi - place[i];
		if (to < p->cap) memmove(p->key + to, p->key + place[i], (to + moved < p->cap ? moved : p->cap - to) * sizeof *key);
		p->key[place[i] + i] = key[i];
	}
	p->n = p->n + m < p->cap ? p->n + m : p->cap;
	if (place[0] > p->next) return false;
	p->next = place[0];
	return true;
}

/* Marks the next as expanded and returns its key; only when next < n. */
static inline uint64_t vk_pool_flat_pop(struct vk_pool_flat *p)
{
	uint64_t key = p->key[p->next];
	p->key[p->next++] |= 1;
	while (p->next < p->n && p->key[p->next] & 1) p->next++;
	return key;
}

/* --- deep --- */

#define VK_POOL_BLOCK 512u

struct vk_pool_block {
	uint32_t n, next; /* next: all before it are expanded */
	uint64_t key[VK_POOL_BLOCK];
};
struct vk_pool_deep {
	uint32_t n, cap;
	uint32_t blocks, open;       /* open: blocks before it are all expanded */
	uint32_t free_n, blocks_max; /* blocks are taken from `spare` and laid into `order` */
	struct vk_pool_block **order, **spare, *all;
};

/* Memory for up to cap_max keys; false: none. */
bool vk_pool_deep_new(struct vk_pool_deep *p, uint32_t cap_max);
void vk_pool_deep_free(struct vk_pool_deep *p);
void vk_pool_deep_reset(struct vk_pool_deep *p, uint32_t cap);
static inline uint64_t vk_pool_deep_bar(const struct vk_pool_deep *p)
{
	if (p->n < p->cap) return UINT64_MAX;
	const struct vk_pool_block *last = p->order[p->blocks - 1];
	return last->key[last->n - 1];
}
bool vk_pool_deep_insert(struct vk_pool_deep *p, uint64_t key); /* true: it is in */
/* The next that is not expanded, UINT64_MAX: none. pop marks it. */
uint64_t vk_pool_deep_peek(struct vk_pool_deep *p);
uint64_t vk_pool_deep_pop(struct vk_pool_deep *p);
/* Reads out in order: at {0}, then until UINT64_MAX. */
struct vk_pool_at {
	uint32_t block, i;
};
uint64_t vk_pool_deep_read(const struct vk_pool_deep *p, struct vk_pool_at *at);

#endif
