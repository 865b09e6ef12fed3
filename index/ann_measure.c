/*
 * Recall, measured: sampled rows, a little moved, searched for exactly and by a generation at each dial. The curve is what `auto`
 * chooses from, and what a collection shows as its recall. Of the rows that the generation stands for: what changed since is searched
 * exactly anyway, so what is measured is what searches get, or a little less.
 */
#include "index/ann_internal.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "index/collection_internal.h"

#define PROBES 100 /* sampled rows that are searched for */
#define PROBE_K 10

struct probe {
	struct vk_ann *ann;
	struct vk_ann_set *s;
	const struct vk_set *set;
	uint64_t seed;
	struct vk_delta *delta;
	struct vk_bitmap *in; /* without it */
	struct vk_arena arena;
	struct vk_ann_point curve[VK_ANN_POINTS_MAX];
	size_t curve_n;
	uint32_t queries;
};

static size_t alike(const struct vk_exact_query *truth, const struct vk_exact_query *got)
{
	size_t n = 0;
	if (!truth->hits) return 0;
	float least = truth->hit[truth->hits - 1].rank;
	for (size_t i = 0; i < got->hits; i++) n += got->hit[i].rank >= least;
	return n < truth->hits ? n : truth->hits;
}

/* Sampled rows, a little moved, so that none is just found again as itself. */
static size_t sample(struct probe *p, struct vk_view *v, struct vk_exact_query *q)
{
	const struct vk_set *set = p->set;
	uint64_t rng = p->seed, next_slot;
	struct vk_rec_state state;
	size_t n = 0;
	if (vk_state_get(v->t, &state) || !(next_slot = state.next_slot)) return 0;
	for (unsigned tries = 0; n < PROBES && tries < 20 * PROBES; tries++) {
		struct vk_row row;
		uint32_t slot = (uint32_t)(vk_rng(&rng) % next_slot);
		if (vk_vset_row(v->t, set, slot, &row)) continue;
		float *vec = vk_arena_alloc(&p->arena, set->dims * sizeof *vec);
		if (!vec) return n;
		vk_row_f32(set, &row, set->metric == VK_METRIC_COSINE, vec);
		double norm = 0;
		for (uint32_t i = 0; i < set->dims; i++) norm += (double)vec[i] * vec[i];
		float step = (float)(0.2 * __builtin_sqrt(norm / set->dims));
		for (uint32_t i = 0; i < set->dims; i++)
			vec[i] += step * ((float)(vk_rng(&rng) >> 40) / (float)(1 << 23) - 1);
		q[n++] = (struct vk_exact_query){.vector = vec, .limit = PROBE_K, .floor = -INFINITY};
	}
	return n;
}

static enum vk_status probe_of_it(struct probe *p, struct vk_view *v)
{
	struct vk_exact_query *truth = vk_arena_calloc(&p->arena, PROBES, sizeof *truth);
	struct vk_exact_query *got = vk_arena_calloc(&p->arena, PROBES, sizeof *got);
	struct vk_exact_opts o = {.level = vk_cpu_best(), .stop = &p->ann->stop};
	struct vk_error err;
	struct vk_arena scratch;
	if (!truth || !got) return VK_E_NOMEM;
	size_t n = sample(p, v, truth), wanted = 0;
	if (!n) return VK_OK;
	for (size_t i = 0; i < n; i++) truth[i].in = p->in;
	enum vk_status st = vk_exact_search(v, p->set, truth, n, &o, &p->arena, NULL, &err);
	for (size_t i = 0; i < n; i++) wanted += truth[i].hits;
	bool one = !p->s->gen->ops->calibrates;
	for (size_t d = 0; !st && d < VK_ANN_POINTS_MAX && !atomic_load(&p->ann->stop); d++) {
		size_t good = 0;
		vk_arena_init(&scratch, p->arena.max);
		memcpy(got, truth, n * sizeof *got);
		st = vk_ann_probe(v, p->set, p->s->gen, p->delta, got, n, one ? 0 : vk_ann_dials[d], &scratch);
		for (size_t i = 0; !st && i < n; i++) good += alike(&truth[i], &got[i]);
		vk_arena_free(&scratch);
		if (st) break;
		float recall = wanted ? (float)good / (float)wanted : 1;
		p->curve[p->curve_n++] = (struct vk_ann_point){vk_ann_dials[d], recall};
		if (one || recall >= 0.999f) break;
	}
	p->queries = (uint32_t)n;
	return st;
}

/* The slots that the generation stands for in this view. */
static enum vk_status probe(void *arg, struct vk_view *v)
{
	struct probe *p = arg;
	struct vk_delta *known;
	pthread_mutex_lock(&p->ann->lock);
	known = vk_delta_ref(p->s->delta);
	pthread_mutex_unlock(&p->ann->lock);
	enum vk_status st = known ? vk_delta_extend(v, known, 0, &p->delta) : VK_OK;
	vk_delta_unref(known);
	if (st || !p->delta) return st;
	p->in = vk_bitmap_new();
	st = p->in ? vk_vset_slots(v->t, p->set, p->in) : VK_E_NOMEM;
	if (!st) vk_bitmap_andnot(p->in, p->delta->slots);
	if (!st && vk_bitmap_failed(p->in)) st = VK_E_NOMEM;
	if (!st && !vk_bitmap_empty(p->in)) st = probe_of_it(p, v);
	vk_bitmap_free(p->in);
	vk_delta_unref(p->delta);
	return st;
}

void vk_ann_measure(struct vk_ann *ann, struct vk_ann_set *s, const struct vk_set *set, uint64_t seed)
{
	struct probe p = {.ann = ann, .s = s, .set = set, .seed = seed};
	vk_arena_init(&p.arena, (size_t)1 << 30);
	enum vk_status st = vk_view_run(ann->c, 0, &ann->stop, probe, &p);
	vk_arena_free(&p.arena);
	if (st || !p.queries) return;
	pthread_mutex_lock(&ann->lock);
	memcpy(s->curve, p.curve, sizeof s->curve);
	s->curve_n = p.curve_n;
	s->recall_queries = p.queries;
	s->recall_at_ms = vk_wall_ms();
	pthread_mutex_unlock(&ann->lock);
}
