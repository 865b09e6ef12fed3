/*
 * How far ahead codes are fetched, by timing: the machine's caches and memory decide, and no formula knows them.
 */
#include "base/clock.h"
#include "index/graph_internal.h"

struct vk_graph_prefetch vk_graph_prefetch_get(const struct vk_graph *g)
{
	unsigned both = atomic_load_explicit(&g->prefetch, memory_order_relaxed);
	return (struct vk_graph_prefetch){(uint16_t)(both >> 16), (uint16_t)both};
}

void vk_graph_prefetch_set(struct vk_graph *g, struct vk_graph_prefetch p)
{
	atomic_store_explicit(&g->prefetch, (unsigned)p.ahead << 16 | p.lines, memory_order_relaxed);
}
