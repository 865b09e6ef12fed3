/* The graph as an engine of generations. */
#include "index/ann.h"

#include <stdio.h>
#include <math.h>
#include <stdlib.h>

#define STEP_NODES 64          /* of one repair step: some milliseconds */
#define EF_DEFAULT 64          /* before recall was measured */
#define DRIFT 1.5              /* codes that fit new rows so much worse than those of the build */
#define DRIFT_PART 10         /* and at least a tenth of them */
#define REBUILD_ROWS 1000
#define TUNE_MS 100
#define TWO_HOP_AS_WIDE 0.1 /* the fewer are allowed, the sparser what the walk sees of them: from here on its beam grows by the root */
#define TWO_HOP_WIDEST 4.0
#define WALK_ROWS 35          /* a unit of ef, without a filter */
#define TWO_HOP_ROWS 110.0    /* the same at most: two hops ahead */
#define SCAN_ROWS 1000        /* what a walk costs besides, as rows */
#define SEEDS 32
#define VISITS_PER_ALLOWED 2   /* a walk that costs more than looking at all that is allowed */
#define VISITS_MIN 20000
#define DRAWS_MAX 4096

static struct vk_graph_conf conf_of(const struct vk_ann_plan *p)
{
	return (struct vk_graph_conf){.dims = p->dims, .metric = p->metric, .degree = p->degree, .ef_build = p->ef_build,
				      .profile = p->profile, .seed = 1, .level = vk_cpu_best()};
}

struct hook {
	const struct vk_ann_build *b;
};

static enum vk_status between(void *arg, struct vk_graph *g, uint32_t done)
{
	const struct hook *h = arg;
	(void)done;
	return h->b->between(h->b->arg, g);
}

static struct vk_graph_build_opts opts_of(const struct vk_ann_build *b, struct hook *h)
{
	return (struct vk_graph_build_opts){.threads = b->threads, .nice = 10, .stop = b->stop, .progress = b->progress,
					    .between = b->between ? between : NULL, .arg = h};
}

static enum vk_status build(const struct vk_ann_plan *p, const struct vk_ann_source *src, const struct vk_ann_build *b, void **self,
			    struct vk_error *err)
{
	struct vk_graph_conf conf = conf_of(p);
	struct vk_graph_source rows = {.n = src->n, .row = src->row, .rows_done = src->rows_done, .arg = src->arg};
	struct hook h = {b};
	struct vk_graph_build_opts o = opts_of(b, &h);
	struct vk_graph *g;
	enum vk_status st = vk_graph_new(&conf, &g, err);
	if (st) return st;
	st = vk_graph_build(g, &rows, &o, err);
	if (st) {
		vk_graph_free(g);
		return st;
	}
	*self = g;
	return VK_OK;
}

static enum vk_status resume(void *self, const struct vk_ann_build *b, struct vk_error *err)
{
	struct hook h = {b};
	struct vk_graph_build_opts o = opts_of(b, &h);
	return vk_graph_build_resume(self, &o, err);
}

static bool partial(const void *self)
{
	return vk_graph_partial(self);
}

static enum vk_status open_file(const struct vk_ann_plan *p, const char *path, void **self, uint64_t *sequence, uint8_t tag[32],
				struct vk_error *err)
{
	(void)p;
	return vk_graph_open(path, 0, vk_cpu_best(), (struct vk_graph **)self, sequence, tag, err);
}

static enum vk_status save(void *self, const char *path, uint64_t sequence, const uint8_t tag[32], struct vk_error *err)
{
	return vk_graph_save(self, path, sequence, tag, err);
}

static void settle(void *self)
{
	(void)vk_graph_promote(self); /* it serves from the file's pages otherwise */
	vk_graph_tune(self, TUNE_MS);
}

static void close_graph(void *self)
{
	vk_graph_free(self);
}

static enum vk_status put(void *self, uint32_t slot, const float *row)
{
	return vk_graph_put(self, slot, row);
}

static enum vk_status del(void *self, uint32_t slot)
{
	return vk_graph_del(self, slot);
}

static enum vk_status step(void *self)
{
	return vk_graph_consolidate_step(self, STEP_NODES);
}

/* Allowed slots to start from, evenly drawn by a small generator: the same query starts the same. */
static uint32_t draw_seeds(const struct vk_ann_ask *ask, uint32_t seed[SEEDS])
{
	uint32_t n = 0;
	uint64_t x = 0x9e3779b97f4a7c15u;
	for (uint32_t i = 0; n < SEEDS && i < DRAWS_MAX; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		uint32_t slot = (uint32_t)((x >> 32) * ask->allow_n >> 32);
		if (ask->allow[slot / 64] >> (slot % 64) & 1) seed[n++] = slot;
	}
	return n;
}

static double two_hop_wider(double share)
{
	double wider = sqrt(TWO_HOP_AS_WIDE / share);
	return wider < 1 ? 1 : wider > TWO_HOP_WIDEST ? TWO_HOP_WIDEST : wider;
}

static enum vk_status nominate(void *self, struct vk_ann_ask *ask)
{
	uint32_t seed[SEEDS];
	struct vk_graph_query q = {.vector = ask->vector, .ef = ask->ef ? ask->ef : EF_DEFAULT, .want = ask->want, .allow = ask->allow,
				   .allow_n = ask->allow_n, .label = ask->slot};
	if (ask->allow) {
		q.two_hop = (double)ask->allow_count < VK_ANN_TWO_HOP_SHARE * vk_graph_live(self);
		q.visit_max = VISITS_PER_ALLOWED * ask->allow_count;
		if (q.visit_max < VISITS_MIN) q.visit_max = VISITS_MIN;
		if (q.two_hop) {
			q.seed_n = draw_seeds(ask, seed);
			q.ef = (uint32_t)(q.ef * two_hop_wider((double)ask->allow_count / vk_graph_live(self)));
		}
		q.seed = seed;
	}
	float few[256], *near = ask->want <= 256 ? few : malloc(ask->want * sizeof *near);
	struct vk_graph_scratch *s = near ? vk_graph_scratch_take(self) : NULL;
	q.near = near;
	enum vk_status st = s ? vk_graph_search(self, s, &q) : VK_E_NOMEM;
	if (s) vk_graph_scratch_give(self, s);
	if (near != few) free(near);
	ask->n = q.n;
	ask->visited = q.visited;
	ask->gave_up = q.gave_up;
	return st;
}

/* By bench/ann filter: a step of the plain walk looks at 35 rows a unit of ef, the more the fewer of them are allowed; two hops ahead cost
 * as much as the plain walk where it takes over, and from there on grow with the beam. A row costs a walk what it costs a scan. */
static uint64_t scan_rows(uint64_t matches, uint64_t rows, uint32_t ef)
{
	double share = rows ? (double)matches / (double)rows : 1, walk = WALK_ROWS / (share > TWO_HOP_AS_WIDE ? share : TWO_HOP_AS_WIDE);
	if (walk > TWO_HOP_ROWS) walk = TWO_HOP_ROWS;
	return SCAN_ROWS + (uint64_t)((ef ? ef : EF_DEFAULT) * walk * two_hop_wider(share));
}

/* Nominations that are scored with their rows. Coarse codes rank less well, which shows where the beam is wide enough to have found
 * the others: at ef 48 no recall is gained by more than twice the limit, at 256 half a hundredth (GloVe, s4), at 1,024 as much again. */
static uint32_t want(const void *self, uint32_t limit, uint32_t ef)
{
	uint64_t least = 2 * (uint64_t)limit + 8, most = vk_graph_profile(self) == VK_GRAPH_S8 ? least : 2 * least, n = ef ? ef / 2 : most;
	n = n < least ? least : n > most ? most : n;
	return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static uint64_t rows(const void *self)
{
	return vk_graph_live(self);
}

static void about(const void *self, struct vk_ann_about *out)
{
	struct vk_graph_stats s;
	vk_graph_stats(self, &s);
	*out = (struct vk_ann_about){.rows = s.live, .dead = s.dead, .bytes = s.bytes};
	snprintf(out->detail, sizeof out->detail, "%s, degree %u", vk_graph_profile_names[s.profile], s.degree);
	/* A few odd rows are no drift. */
	bool drifted = s.code_error > DRIFT * s.code_error_built && s.code_error_built > 0 && s.coded > s.live / DRIFT_PART;
	out->lost = s.lost;
	out->wants_rebuild = s.lost || (s.live > REBUILD_ROWS && (drifted || s.dead > s.live));
}

const struct vk_ann_ops vk_ann_graph = {.name = "graph", .grows = true, .calibrates = true, .build = build, .resume = resume,
					.partial = partial, .open = open_file, .save = save, .scrub = vk_graph_scrub_step, .settle = settle,
					.close = close_graph, .put = put, .del = del, .step = step, .nominate = nominate, .want = want,
					.scan_rows = scan_rows, .rows = rows, .about = about};
