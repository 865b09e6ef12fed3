/*
 * The builder's own threads: a loop cut into grains that they take in turn. The caller waits and does no work, so that a
 * niceness asked for holds for all of it, and searches on the server's own threads stay at full speed.
 *
 * What a grain does must depend on its number alone, never on the worker: then the outcome is the same for any number of them.
 * One caller at a time. Units: `nice` as setpriority(2) has it, added to the process's.
 */
#ifndef VK_INDEX_GRAPH_TEAM_H
#define VK_INDEX_GRAPH_TEAM_H

#include <stdint.h>

#include "base/status.h"

#define VK_GRAPH_TEAM_MAX 256u

struct vk_graph_team;
/* Items [from, to) of a loop; from is a multiple of the grain. */
typedef void vk_graph_team_fn(void *arg, unsigned worker, uint32_t from, uint32_t to);

/* threads 0: one a core. NULL: not one thread is to be had. */
struct vk_graph_team *vk_graph_team_new(unsigned threads, int nice);
void vk_graph_team_free(struct vk_graph_team *t);
unsigned vk_graph_team_threads(const struct vk_graph_team *t);
/* Returns when all `count` items are done; what they wrote is seen by the caller and by the next loop. */
void vk_graph_team_run(struct vk_graph_team *t, uint32_t count, uint32_t grain, vk_graph_team_fn *fn, void *arg);

#endif
