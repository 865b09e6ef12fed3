/*
 * The deep pool. Only the last block shrinks (the worst key falls off its end); a full block is cut in two halves. So all but the last
 * hold at least half a block, and 2 * cap / VK_POOL_BLOCK + 3 blocks suffice.
 */
#include "index/graph_pool.h"

#include <assert.h>
#include <stdlib.h>

bool vk_pool_deep_new(struct vk_pool_deep *p, uint32_t cap_max)
{
	uint32_t blocks = 2 * cap_max / VK_POOL_BLOCK + 3;
	*p = (struct vk_pool_deep){.blocks_max = blocks};
	p->all = malloc(blocks * sizeof *p->all);
	p->order = malloc(blocks * sizeof(struct vk_pool_block *));
	p->spare = malloc(blocks * sizeof(struct vk_pool_block *));
	if (p->all && p->order && p->spare) return true;
	vk_pool_deep_free(p);
	return false;
}

void vk_pool_deep_free(struct vk_pool_deep *p)
{
	free(p->all);
	free(p->order);
	free(p->spare);
	*p = (struct vk_pool_deep){0};
}

static struct vk_pool_block *block_take(struct vk_pool_deep *p)
{
	assert(p->free_n);
	struct vk_pool_block *b = p->spare[--p->free_n];
	b->n = b->next = 0;
	return b;
}

void vk_pool_deep_reset(struct vk_pool_deep *p, uint32_t cap)
{
	p->n = p->open = 0;
	p->cap = cap;
	p->free_n = p->blocks_max;
	for (uint32_t i = 0; i < p->blocks_max; i++) p->spare[i] = p->all + (p->blocks_max - 1 - i);
	p->order[0] = block_take(p);
	p->blocks = 1;
}

/* The last block whose first key is not above key; block 0 when there is none. */
static uint32_t block_of(const struct vk_pool_deep *p, uint64_t key)
{
	uint32_t lo = 0, hi = p->blocks;
	while (hi - lo > 1) {
		uint32_t mid = (lo + hi) / 2;
		/* An expanded key is one above the same node's new one. */
		if (p->order[mid]->key[0] <= (key | 1))
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

static uint32_t place_of(const struct vk_pool_block *b, uint64_t key)
{
	uint32_t lo = 0, hi = b->n;
	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;
		if (b->key[mid] < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void block_split(struct vk_pool_deep *p, uint32_t i)
{
	struct vk_pool_block *b = p->order[i], *upper = block_take(p);
	uint32_t half = b->n / 2;
	upper->n = b->n - half;
	memcpy(upper->key, b->key + half, upper->n * sizeof *b->key);
	upper->next = b->next > half ? b->next - half : 0;
	b->n = half;
	b->next = b->next < half ? b->next : half;
	memmove(p->order + i + 2, p->order + i + 1, (p->blocks - i - 1) * sizeof(struct vk_pool_block *));
	p->order[i + 1] = upper;
	p->blocks++;
	if (p->open > i) p->open++;
}

static void worst_drop(struct vk_pool_deep *p)
{
	struct vk_pool_block *last = p->order[p->blocks - 1];
	p->n--;
	if (last->next > --last->n) last->next = last->n;
	if (last->n || p->blocks == 1) return;
	p->spare[p->free_n++] = last;
	p->blocks--;
	if (p->open > p->blocks) p->open = p->blocks;
}

bool vk_pool_deep_insert(struct vk_pool_deep *p, uint64_t key)
{
	if (key >= vk_pool_deep_bar(p)) return false;
	uint32_t i = block_of(p, key), at = place_of(p->order[i], key);
	if (at < p->order[i]->n && (p->order[i]->key[at] | 1) == (key | 1)) return false;
	if (p->order[i]->n == VK_POOL_BLOCK) {
		block_split(p, i);
		i += at > p->order[i]->n;
		at = place_of(p->order[i], key);
	}
	struct vk_pool_block *b = p->order[i];
	memmove(b->key + at + 1, b->key + at, (b->n - at) * sizeof *b->key);
	b->key[at] = key;
	b->n++;
	if (at < b->next) b->next = at;
	if (i < p->open) p->open = i;
	if (++p->n > p->cap) worst_drop(p);
	return true;
}

uint64_t vk_pool_deep_peek(struct vk_pool_deep *p)
{
	for (; p->open < p->blocks; p->open++) {
		struct vk_pool_block *b = p->order[p->open];
		while (b->next < b->n && b->key[b->next] & 1) b->next++;
		if (b->next < b->n) return b->key[b->next];
	}
	return UINT64_MAX;
}

uint64_t vk_pool_deep_pop(struct vk_pool_deep *p)
{
	uint64_t key = vk_pool_deep_peek(p);
	if (key != UINT64_MAX) p->order[p->open]->key[p->order[p->open]->next++] |= 1;
	return key;
}

uint64_t vk_pool_deep_read(const struct vk_pool_deep *p, struct vk_pool_at *at)
{
	while (at->block < p->blocks && at->i == p->order[at->block]->n) *at = (struct vk_pool_at){at->block + 1, 0};
	return at->block < p->blocks ? p->order[at->block]->key[at->i++] : UINT64_MAX;
}
