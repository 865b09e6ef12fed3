/*
 * How far ahead codes are fetched, by timing: the machine's caches and memory decide, and no formula knows them.
 *
 * Beams for stored codes, a few for each setting in turn, round after round until the time is up; the setting that took least in sum
 * stays. Turns make a noisy neighbour cost all settings alike; every beam is for another node, so that none finds the caches warm
 * by the one before. Searches that run meanwhile use whatever is being tried: slower or faster, never wrong.
 */
#include "base/clock.h"
#include "base/hash.h"
#include "index/graph_internal.h"

#include <stdlib.h>

#define EF 64u
#define BEAMS 8u         /* a turn */
#define NODES_LEAST 1000u /* below it all lies in the caches: nothing to tune */

static const uint16_t aheads[] = {4, 8, 12, 16, 24};
static const uint16_t lines[] = {2, 4, 8, 16, 32};
#define AHEADS (sizeof aheads / sizeof *aheads)
#define LINES (sizeof lines / sizeof *lines)

struct vk_graph_prefetch vk_graph_prefetch_get(const struct vk_graph *g)
{
	unsigned both = atomic_load_explicit(&g->prefetch, memory_order_relaxed);
	return (struct vk_graph_prefetch){(uint16_t)(both >> 16), (uint16_t)both};
}

void vk_graph_prefetch_set(struct vk_graph *g, struct vk_graph_prefetch p)
{
	atomic_store_explicit(&g->prefetch, (unsigned)p.ahead << 16 | p.lines, memory_order_relaxed);
}

/* More lines than a code has are the same as all of them: one such setting is enough. */
static uint32_t settings_of(const struct vk_graph *g, struct vk_graph_prefetch *p)
{
	size_t code_lines = g->code.stride / 64;
	uint32_t n = 0;
	for (size_t l = 0; l < LINES; l++) {
		for (size_t a = 0; a < AHEADS; a++) p[n++] = (struct vk_graph_prefetch){aheads[a], lines[l]};
		if (lines[l] >= code_lines) break;
	}
	return n;
}

struct tuning {
	struct vk_graph *g;
	struct vk_graph_scratch *s;
	uint64_t dice;
	uint32_t n;
};

static uint64_t turn(struct tuning *t)
{
	struct vk_graph_seen pool[EF];
	struct vk_graph_ready *r = vk_graph_scratch_ready(t->s);
	uint64_t start = vk_mono_us();
	for (uint32_t i = 0; i < BEAMS; i++) {
		struct vk_graph_beam b = {.ef = EF, .below = UINT32_MAX, .pool = pool};
		vk_graph_ready_node(t->g, (uint32_t)(vk_rng(&t->dice) % t->n), r);
		vk_graph_beam(t->g, t->s, r, &b);
	}
	return vk_mono_us() - start;
}

static void tune(struct tuning *t, unsigned budget_ms)
{
	struct vk_graph_prefetch p[AHEADS * LINES];
	uint64_t took[AHEADS * LINES] = {0}, until = vk_mono_us() + (uint64_t)budget_ms * 1000;
	uint32_t settings = settings_of(t->g, p), best = 0;
	turn(t); /* first touches of pages are nobody's */
	do {
		for (uint32_t i = 0; i < settings; i++) {
			vk_graph_prefetch_set(t->g, p[i]);
			took[i] += turn(t);
		}
	} while (vk_mono_us() < until);
	for (uint32_t i = 1; i < settings; i++)
		if (took[i] < took[best]) best = i;
	vk_graph_prefetch_set(t->g, p[best]);
}

void vk_graph_tune(struct vk_graph *g, unsigned budget_ms)
{
	struct tuning t = {.g = g, .dice = g->conf.seed + 1, .n = atomic_load_explicit(&g->n, memory_order_acquire)};
	if (t.n < NODES_LEAST || !budget_ms) return;
	t.s = vk_graph_scratch_take(g);
	if (!t.s) return;
	vk_graph_search_begin(g, t.s);
	tune(&t, budget_ms);
	vk_graph_search_end(t.s);
	vk_graph_scratch_give(g, t.s);
}
