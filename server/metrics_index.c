/* Gauges of indexes: gathered once, written a family at a time, as Prometheus wants them. */
#include <stdio.h>
#include <stdlib.h>

#include "index/collections.h"
#include "server/metrics.h"
#include "server/qdrant_index.h"

#define SHOWN_MAX 1024 /* vectors with an index, of all open collections */

struct one {
	char labels[1200];
	struct vk_ann_info info;
};
struct gauges {
	struct one *one;
	size_t n, room;
};

static struct one *add(struct gauges *g)
{
	if (g->n == SHOWN_MAX) return NULL;
	if (g->n == g->room) {
		size_t room = g->room ? 2 * g->room : 16;
		struct one *more = realloc(g->one, room * sizeof *more);
		if (!more) return NULL;
		g->one = more;
		g->room = room;
	}
	return &g->one[g->n++];
}

static void gather(void *arg, struct vk_bytes name, struct vk_collection *c)
{
	struct gauges *g = arg;
	struct vk_colconf *conf = vk_collection_config(c);
	char plain[VK_NAME_MAX + 1], collection[2 * sizeof plain], vector[2 * sizeof plain];
	snprintf(plain, sizeof plain, "%.*s", (int)name.n, name.p);
	vk_metrics_escape(collection, sizeof collection, plain);
	for (size_t i = 0; conf && i < conf->vectors_n; i++) {
		struct vk_ann_info info;
		if (vk_ann_info(vk_collection_ann(c), conf->vectors[i].set.id, &info)) continue;
		if (!info.serving && (info.plan.engine == VK_ANN_NONE || info.state == VK_ANN_IDLE)) continue;
		struct one *o = add(g);
		if (!o) break;
		o->info = info;
		vk_metrics_escape(vector, sizeof vector, conf->vectors[i].name);
		snprintf(o->labels, sizeof o->labels, "collection=\"%s\",vector=\"%s\"", collection, vector);
	}
	vk_colconf_unref(conf);
}

static double g_rows(const struct vk_ann_info *i) { return i->serving ? (double)i->rows : 0; }
static double g_pending(const struct vk_ann_info *i) { return (double)i->pending; }
static double g_bytes(const struct vk_ann_info *i) { return i->serving ? (double)i->about.bytes : 0; }
static double g_serving(const struct vk_ann_info *i) { return i->serving; }
static double g_building(const struct vk_ann_info *i) { return i->state == VK_ANN_BUILDING; }
static double g_failed(const struct vk_ann_info *i) { return i->state == VK_ANN_FAILED; }
static double g_target(const struct vk_ann_info *i) { return vk_decimal(i->plan.recall); }

static double g_progress(const struct vk_ann_info *i)
{
	if (i->state != VK_ANN_BUILDING) return i->serving;
	return i->total ? (double)(i->done < i->total ? i->done : i->total) / i->total : 0;
}

static void family(struct vk_buf *b, const struct gauges *g, const char *name, const char *help,
		   double (*value)(const struct vk_ann_info *i))
{
	for (size_t i = 0; i < g->n; i++)
		vk_metrics_gauge(b, name, i ? NULL : help, g->one[i].labels, value(&g->one[i].info));
}

/* Only where it was measured. */
static void recall(struct vk_buf *b, const struct gauges *g)
{
	bool head = true;
	for (size_t i = 0; i < g->n; i++) {
		if (g->one[i].info.recall < 0) continue;
		vk_metrics_gauge(b, "veckeep_index_recall", head ? "Measured recall of its ten nearest against exact search" : NULL,
				 g->one[i].labels, vk_decimal(g->one[i].info.recall));
		head = false;
	}
}

static void searches(struct vk_buf *b, const struct gauges *g)
{
	static const char *const path[] = {"exact", "approximate"};
	char labels[sizeof g->one->labels + 32];
	for (size_t i = 0; i < g->n; i++)
		for (size_t p = 0; p < 2; p++) {
			snprintf(labels, sizeof labels, "%s,path=\"%s\"", g->one[i].labels, path[p]);
			vk_metrics_gauge(b, "veckeep_index_searches_total",
					 i || p ? NULL : "Searches of a vector with an index by what answered", labels,
					 (double)g->one[i].info.searches[p]);
		}
}

void vk_index_gauges(struct vk_app *app, struct vk_buf *b)
{
	struct gauges g = {0};
	vk_collections_each_open(app->collections, gather, &g);
	family(b, &g, "veckeep_index_rows", "Rows that the index stands for", g_rows);
	family(b, &g, "veckeep_index_pending", "Changed slots that exact search answers for until the index has them", g_pending);
	family(b, &g, "veckeep_index_bytes", "Memory of the index", g_bytes);
	family(b, &g, "veckeep_index_serving", "1: searches use it", g_serving);
	family(b, &g, "veckeep_index_building", "1: one is being built", g_building);
	family(b, &g, "veckeep_index_build_progress", "Share of the running build that is done; 1: none runs and one serves", g_progress);
	family(b, &g, "veckeep_index_failed", "1: the last build failed, exact search answers", g_failed);
	family(b, &g, "veckeep_index_recall_target", "Recall that searches aim at", g_target);
	recall(b, &g);
	searches(b, &g);
	free(g.one);
}
