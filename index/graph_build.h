/*
 * What the files of the bulk build share; nobody else includes it.
 *
 *   graph_build.c    the passes, and the frozen batches
 *   graph_load.c     rows to codes, labels, chains of equal codes
 *   graph_reach.c    what the batches left alone is tied on; in-degrees
 *   graph_profile.c  mean; which profile, by the recall of a sample
 *   graph_axes.c     principal axes
 *   graph_team.c     threads
 */
#ifndef VK_INDEX_GRAPH_BUILD_H
#define VK_INDEX_GRAPH_BUILD_H

#include "index/graph_internal.h"
#include "index/graph_team.h"

struct vk_graph_sample { /* rows as they came, evenly from all of them; n 0: there are none */
	float *row;      /* n x dims, owned */
	uint32_t n;
};

/* Sets mean, codec, code_dims and axes of an empty graph by its conf and the sample, and reserves again if need be. */
enum vk_status vk_graph_profile_set(struct vk_graph *g, const struct vk_graph_sample *s, struct vk_graph_team *t,
				    struct vk_error *err);

/* `count` orthonormal rows of dims floats that span the leading principal axes of the sample around g->mean (free()), and how
 * much of its variance the first 1, 2, ... of them hold. */
enum vk_status vk_graph_axes(const struct vk_graph *g, const struct vk_graph_sample *s, struct vk_graph_team *t, uint32_t count,
			     float **out, float *held);

/* Reads every row: codes, labels, chains; empty edge lists; n. */
enum vk_status vk_graph_load(struct vk_graph *g, const struct vk_graph_source *src, struct vk_graph_team *t,
			     const struct vk_graph_build_opts *o, struct vk_error *err);

/* Bits over nodes: those that hang in a chain behind another, so are not in the graph. NULL: no memory. The caller's. */
uint64_t *vk_graph_chained_bits(const struct vk_graph *g);

/* Every node that is in the graph is reached from the entries afterwards; *unreached: how many were not. Others may search meanwhile. */
enum vk_status vk_graph_reach(struct vk_graph *g, const uint64_t *chained, uint32_t *unreached, struct vk_error *err);
/* Counts the edges that name each node into its section. Others may search meanwhile. */
enum vk_status vk_graph_count_in(struct vk_graph *g);

static inline bool vk_graph_bit(const uint64_t *bits, uint32_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

#endif
