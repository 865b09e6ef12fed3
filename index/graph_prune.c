/*
 * Robust prune (Vamana): of a node's candidates those are kept that no kept one is clearly nearer to. Nearest first, a
 * candidate is occluded when a kept one is nearer to it than the node is, by the factor alpha; a first round with alpha 1
 * takes the directions, a second with the graph's own takes what is left while there are places.
 *
 * Ties do not occlude: of many points at the same distance from each other each would hide the others, and the group would
 * see nothing but itself.
 *
 * Lazily: a candidate is made a query and compared with the kept ones, nearest first, a few at a time, until one occludes it.
 * Most are hidden by one of the first, so this is a tenth of the distances from each kept to all (the other usual way,
 * which also makes all of them queries that are soon forgotten). A pair is computed once: the second round goes on where the
 * first stopped.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "index/graph_internal.h"

#define CANDIDATES_MAX 1024u /* the nearest of what is given; a beam and what it expanded are fewer */
#define CHUNK 8u             /* kept nodes a candidate is compared with at a time */

/* --- order --- */

/* Ascending keys mean nearest first, ties by node: the bits of a float in an order that unsigned integers have. */
static uint64_t key_of(const struct vk_graph_seen *c)
{
	uint32_t b;
	memcpy(&b, &c->near, sizeof b);
	b = b >> 31 ? ~b : b | 0x80000000u;
	return (uint64_t)~b << 32 | c->node;
}

static float near_of(uint64_t key)
{
	uint32_t b = ~(uint32_t)(key >> 32);
	b = b >> 31 ? b & 0x7fffffffu : ~b;
	float f;
	memcpy(&f, &b, sizeof f);
	return f;
}

static void insertion_sort(uint64_t *k, uint32_t n)
{
	for (uint32_t i = 1; i < n; i++) {
		uint64_t v = k[i];
		uint32_t j = i;
		for (; j && k[j - 1] > v; j--) k[j] = k[j - 1];
		k[j] = v;
	}
}

static void merge(uint64_t *dst, const uint64_t *a, const uint64_t *a_end, const uint64_t *b, const uint64_t *b_end)
{
	while (a < a_end && b < b_end) *dst++ = *b < *a ? *b++ : *a++;
	while (a < a_end) *dst++ = *a++;
	while (b < b_end) *dst++ = *b++;
}

/* A library's sort calls back for each comparison, which would be a fifth of a build. */
static uint64_t *sort_keys(uint64_t *k, uint64_t *tmp, uint32_t n)
{
	const uint32_t run = 16;
	for (uint32_t i = 0; i < n; i += run) insertion_sort(k + i, n - i < run ? n - i : run);
	for (uint32_t w = run; w < n; w *= 2) {
		for (uint32_t i = 0; i < n; i += 2 * w) {
			uint32_t mid = n - i < w ? n : i + w, end = n - i < 2 * w ? n : i + 2 * w;
			merge(tmp + i, k + i, k + mid, k + mid, k + end);
		}
		uint64_t *t = k;
		k = tmp, tmp = t;
	}
	return k;
}

/* --- when one hides another --- */

struct rule { /* kept j hides candidate c of node p when near(j, c) is above a bound that near(p, c) gives */
	enum vk_metric metric;
	float cap; /* nothing is nearer than this; estimates may say so */
};

static struct rule rule_of(enum vk_metric m)
{
	return (struct rule){m, m == VK_METRIC_L2 ? 0.0f : m == VK_METRIC_COSINE ? 1.0f : INFINITY};
}

/* Distances are squared: L2's own, cosine's 2 (1 - near). An inner product is no distance: the factor is on the product. */
static float bound_of(struct rule r, float near, float alpha)
{
	near = near < r.cap ? near : r.cap;
	switch (r.metric) {
	case VK_METRIC_L2:
		return near / alpha;
	case VK_METRIC_COSINE:
		return 1.0f - (1.0f - near) / alpha;
	default:
		return near > 0 ? near * alpha : near / alpha;
	}
}

/* --- the rounds --- */

struct candidate {
	uint32_t node;
	float near, most; /* most: the greatest near(j, c) of the kept ones it was compared with */
	uint16_t compared;
	bool out; /* kept, or hidden for good */
};

struct kept {
	uint32_t n;
	uint32_t node[VK_GRAPH_DEGREE_MAX];
	uint16_t at[VK_GRAPH_DEGREE_MAX]; /* among the candidates */
};

/* Compares c with the kept ones that it has not met, until one is above bound. */
static void compare(struct vk_graph *g, struct vk_graph_ready *r, struct rule rule, struct candidate *c, float bound,
		    const struct kept *kept)
{
	if (c->most > bound || c->compared >= kept->n) return;
	vk_graph_ready_node(g, c->node, r);
	while (c->compared < kept->n && !(c->most > bound)) {
		float near[CHUNK];
		uint32_t n = kept->n - c->compared < CHUNK ? kept->n - c->compared : CHUNK;
		vk_graph_near(g, r, kept->node + c->compared, n, near);
		for (uint32_t i = 0; i < n; i++) {
			float v = near[i] < rule.cap ? near[i] : rule.cap;
			if (v > c->most) c->most = v;
		}
		c->compared = (uint16_t)(c->compared + n);
	}
}

static bool keeps(const struct kept *kept, uint32_t node)
{
	for (uint32_t i = 0; i < kept->n; i++)
		if (kept->node[i] == node) return true;
	return false;
}

static void keep_round(struct vk_graph *g, struct vk_graph_ready *r, float alpha, struct candidate *c, uint32_t n,
		       struct kept *kept, uint32_t most)
{
	const struct rule rule = rule_of(g->conf.metric);
	for (uint32_t i = 0; i < n && kept->n < most; i++) {
		if (c[i].out) continue;
		float bound = bound_of(rule, c[i].near, alpha);
		compare(g, r, rule, &c[i], bound, kept);
		c[i].out = !(c[i].most > bound) || c[i].most > bound_of(rule, c[i].near, g->conf.alpha);
		if (c[i].most > bound || keeps(kept, c[i].node)) continue;
		kept->at[kept->n] = (uint16_t)i;
		kept->node[kept->n++] = c[i].node;
	}
}

/* The second round appended its own; candidates stand nearest first. */
static void put_out(const struct candidate *c, struct kept *kept, uint32_t *out)
{
	for (uint32_t i = 1; i < kept->n; i++) {
		uint16_t v = kept->at[i];
		uint32_t j = i;
		for (; j && kept->at[j - 1] > v; j--) kept->at[j] = kept->at[j - 1];
		kept->at[j] = v;
	}
	for (uint32_t i = 0; i < kept->n; i++) out[i] = c[kept->at[i]].node;
}

/* --- the candidates --- */

struct keys {
	uint64_t a[2 * CANDIDATES_MAX], b[2 * CANDIDATES_MAX];
	uint64_t *p;
	uint32_t n;
};

static void tidy(struct keys *k) /* sorted, each once, the nearest CANDIDATES_MAX */
{
	k->p = sort_keys(k->a, k->b, k->n);
	uint32_t m = 0;
	for (uint32_t i = 0; i < k->n && m < CANDIDATES_MAX; i++)
		if (!m || k->p[i] != k->p[m - 1]) k->p[m++] = k->p[i];
	k->n = m;
}

static uint32_t gather(uint32_t node, const struct vk_graph_seen *cand, uint32_t n, struct candidate *out)
{
	struct keys k;
	k.n = 0;
	for (uint32_t i = 0; i < n; i++) {
		if (cand[i].node == node) continue;
		if (k.n == 2 * CANDIDATES_MAX) {
			tidy(&k);
			if (k.p != k.a) memcpy(k.a, k.p, k.n * sizeof *k.a);
		}
		k.a[k.n++] = key_of(&cand[i]);
	}
	tidy(&k);
	for (uint32_t i = 0; i < k.n; i++)
		out[i] = (struct candidate){.node = (uint32_t)k.p[i], .near = near_of(k.p[i]), .most = -INFINITY};
	return k.n;
}

uint32_t vk_graph_prune_to(struct vk_graph *g, struct vk_graph_scratch *s, uint32_t node, struct vk_graph_seen *cand, uint32_t n,
			   uint32_t most, uint32_t *out)
{
	assert(most <= VK_GRAPH_DEGREE_MAX);
	struct candidate c[CANDIDATES_MAX];
	struct kept kept = {.n = 0};
	struct vk_graph_ready *r = vk_graph_scratch_ready(s);
	n = gather(node, cand, n, c);
	keep_round(g, r, 1.0f, c, n, &kept, most);
	if (g->conf.alpha > 1.0f) keep_round(g, r, g->conf.alpha, c, n, &kept, most);
	put_out(c, &kept, out);
	return kept.n;
}

uint32_t vk_graph_prune(struct vk_graph *g, struct vk_graph_scratch *s, uint32_t node, struct vk_graph_seen *cand, uint32_t n,
			uint32_t *out)
{
	return vk_graph_prune_to(g, s, node, cand, n, g->conf.degree, out);
}
