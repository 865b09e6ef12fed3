/*
 * The wide walk: filters, budgets, beams past VK_POOL_FLAT_MAX; and from nodes to labels.
 *
 * Two pools. `front` is what to expand, `best` the answer: nodes that are live and allowed (with their chains). The walk ends when the
 * next to expand is no better than the worst of a full answer, so a filter makes it wider by itself, as much as it needs here
 * and not as much as a share of all would say. Without filter and dead nodes `front` is the answer, too.
 *
 * plain    every neighbour is scored and walked through; only allowed ones answer. For filters that let much through.
 * two hop  (ACORN-1) only allowed nodes are scored: an expanded node's allowed neighbours, then those of the others, up to a list
 *          full. Distances are spent on what may answer. Thousands of edges a step are looked at, so who may answer is laid out as a
 *          bit a node first (`may`, 2 ns an allowed label; asking each edge's label, then the filter, took two thirds of such a
 *          walk) and cleared as nodes are met; only behind a chain's first one looks. For filters in between; where few are allowed the caller scans them.
 *
 * Chains: a node answers for all rows of its code. With a filter a chain is walked to see whether any of it is allowed; a query
 * may take VK_WALK_CHAIN such steps in all (a million equal rows behind a filter are the caller's to scan).
 */
#include "index/graph_walk.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WAYS_AHEAD 4 /* lists of four or more lines: what the core can wait for at once */

/* --- who may answer --- */

static inline uint32_t label_of(const struct vk_graph *g, uint32_t node)
{
	return __atomic_load_n(vk_graph_label_at(g, node), __ATOMIC_RELAXED);
}

/* VK_GRAPH_NONE behind the last, and for what a damaged file may hold. */
static inline uint32_t chain_of(const struct vk_graph *g, uint32_t node)
{
	uint32_t next = __atomic_load_n(vk_graph_chain_at(g, node), __ATOMIC_ACQUIRE);
	return next < g->conf.capacity ? next : VK_GRAPH_NONE;
}

static inline bool label_allowed(const struct vk_graph_query *q, uint32_t label)
{
	return !q->allow || (label < q->allow_n && q->allow[label / 64] >> (label % 64) & 1);
}

static inline bool node_allowed(const struct vk_walk *w, uint32_t node)
{
	return !vk_graph_is_dead(w->g, node) && label_allowed(w->q, label_of(w->g, node));
}

/* Any of the chain. */
static bool answers(struct vk_walk *w, uint32_t node)
{
	if (node_allowed(w, node)) return true;
	if (!__atomic_load_n(&w->g->chained_n, __ATOMIC_RELAXED)) return false;
	while (w->chain_steps && (node = chain_of(w->g, node)) != VK_GRAPH_NONE) {
		w->chain_steps--;
		if (node_allowed(w, node)) return true;
	}
	return false;
}

/* --- nodes to labels --- */

enum vk_status vk_walk_emit_begin(struct vk_walk *w)
{
	struct vk_graph_scratch *s = w->s;
	if (w->q->want <= s->emitted_max) return VK_OK;
	uint32_t *more = realloc(s->emitted, w->q->want * sizeof *more);
	if (!more) return VK_E_NOMEM;
	s->emitted = more;
	s->emitted_max = w->q->want;
	return VK_OK;
}

bool vk_walk_emit(struct vk_walk *w, uint64_t key)
{
	struct vk_graph_query *q = w->q;
	bool chained = __atomic_load_n(&w->g->chained_n, __ATOMIC_RELAXED) != 0;
	w->chain_steps = w->chain_steps > q->want ? w->chain_steps : q->want; /* what fits the answer is always walked */
	for (uint32_t node = vk_pool_node(key); node != VK_GRAPH_NONE && q->n < q->want;) {
		uint32_t label = label_of(w->g, node);
		if (vk_graph_node_of(w->g, label) == node && label_allowed(q, label)) {
			w->s->emitted[q->n] = node;
			q->label[q->n] = label;
			q->near[q->n++] = vk_pool_near(key);
		}
		if (!chained || !w->chain_steps) break;
		w->chain_steps--;
		node = chain_of(w->g, node);
	}
	return q->n < q->want;
}

void vk_walk_emitted(struct vk_walk *w)
{
	struct vk_graph_query *q = w->q;
	uint32_t kept = 0;
	for (uint32_t i = 0; i < q->n; i++) {
		if (vk_graph_node_of(w->g, q->label[i]) != w->s->emitted[i]) continue;
		q->label[kept] = q->label[i];
		q->near[kept++] = q->near[i];
	}
	q->n = kept;
}

/* --- met before, exactly --- */

/* Bits for so many nodes, clean when they are new. */
static enum vk_status bits_room(uint64_t **bits, size_t *words_max, uint32_t n)
{
	size_t words = ((size_t)n + 63) / 64;
	if (words <= *words_max) return VK_OK;
	words += words / 4;
	uint64_t *more = calloc(words, sizeof *more);
	if (!more) return VK_E_NOMEM;
	free(*bits);
	*bits = more;
	*words_max = words;
	return VK_OK;
}

static enum vk_status bits_begin(struct vk_graph_scratch *s, uint32_t n)
{
	if (!s->touched && !(s->touched = malloc(VK_WALK_TOUCHED * sizeof *s->touched))) return VK_E_NOMEM;
	return bits_room(&s->bits, &s->bits_words, n); /* clean, as between searches they always are */
}

static void bits_end(struct vk_graph_scratch *s)
{
	if (s->touched_n > VK_WALK_TOUCHED)
		memset(s->bits, 0, s->bits_words * sizeof *s->bits);
	else
		for (uint32_t i = 0; i < s->touched_n; i++) s->bits[s->touched[i]] = 0;
	s->touched_n = 0;
}

static inline bool bits_has(const struct vk_graph_scratch *s, uint32_t node)
{
	return s->bits[node / 64] >> (node % 64) & 1;
}

static inline void bits_add(struct vk_graph_scratch *s, uint32_t node)
{
	uint64_t *word = s->bits + node / 64;
	if (!*word) {
		if (s->touched_n < VK_WALK_TOUCHED) s->touched[s->touched_n] = node / 64;
		if (s->touched_n <= VK_WALK_TOUCHED) s->touched_n++; /* one more says: clear all */
	}
	*word |= (uint64_t)1 << (node % 64);
}

/* --- who may answer, node by node --- */

static inline uint64_t chains(const struct vk_graph *g, size_t word)
{
	return __atomic_load_n((const uint64_t *)(const void *)g->chains.p + word, __ATOMIC_RELAXED);
}

/* The allowed labels' nodes; and every chain's first, for whom somebody behind it may answer. */
static enum vk_status may_begin(const struct vk_walk *w, uint64_t **may)
{
	const struct vk_graph_query *q = w->q;
	enum vk_status st = bits_room(&w->s->may, &w->s->may_words, w->n);
	if (st) return st;
	*may = w->s->may;
	for (size_t word = 0; word < ((size_t)w->n + 63) / 64; word++) (*may)[word] = chains(w->g, word);
	for (uint64_t word = 0; word < (q->allow_n + 63) / 64; word++) {
		for (uint64_t left = q->allow[word]; left; left &= left - 1) {
			uint64_t label = word * 64 + (uint64_t)__builtin_ctzll(left);
			uint32_t node = label < q->allow_n ? vk_graph_node_of(w->g, (uint32_t)label) : VK_GRAPH_NONE;
			if (node < w->n) (*may)[node / 64] |= (uint64_t)1 << (node % 64);
		}
	}
	return VK_OK;
}

/* --- the walk --- */

struct wide {
	struct vk_walk *w;
	struct vk_pool_deep *front, *best; /* best NULL: front answers */
	uint64_t *may; /* two hops: bits, not met and may answer; NULL: plain */
	uint32_t list[VK_WALK_LIST], list_n;
};

static inline void meet(struct wide *x, uint32_t node)
{
	bits_add(x->w->s, node);
	if (x->may) x->may[node / 64] &= ~((uint64_t)1 << (node % 64));
}

static inline void list_take(struct wide *x, uint32_t node)
{
	meet(x, node);
	x->list[x->list_n++] = node;
}

static inline bool edge_ok(const struct vk_walk *w, uint32_t node)
{
	return node < w->n;
}

static void gather_plain(struct wide *x, uint32_t node)
{
	const uint32_t *edge = vk_graph_edges_at(x->w->g, node);
	for (uint32_t i = 0; i < x->w->g->conf.degree && x->list_n < VK_WALK_LIST; i++) {
		uint32_t id = vk_walk_edge(edge, i);
		if (id == VK_GRAPH_NONE) break;
		if (edge_ok(x->w, id) && !bits_has(x->w->s, id)) list_take(x, id);
	}
}

/* Not met and may answer. */
static inline bool wanted(struct wide *x, uint32_t node)
{
	uint64_t bit = (uint64_t)1 << (node % 64);
	if (!(x->may[node / 64] & bit)) return false;
	if (!(chains(x->w->g, node / 64) & bit) || answers(x->w, node)) return true;
	x->may[node / 64] &= ~bit;
	return false;
}

/* Neighbours that may answer go on the list; the others that were not walked through before are the ways on. */
static uint32_t gather_ways(struct wide *x, uint32_t node, uint32_t *way)
{
	const uint32_t *edge = vk_graph_edges_at(x->w->g, node);
	uint32_t degree = x->w->g->conf.degree, ways = 0;
	for (uint32_t i = 0; i < degree && x->list_n < VK_WALK_LIST; i++) {
		uint32_t id = vk_walk_edge(edge, i);
		if (id == VK_GRAPH_NONE) break;
		if (!edge_ok(x->w, id)) continue;
		if (wanted(x, id))
			list_take(x, id);
		else if (!bits_has(x->w->s, id))
			way[ways++] = id;
	}
	return ways;
}

static void gather_two_hop(struct wide *x, uint32_t node)
{
	uint32_t way[VK_GRAPH_DEGREE_MAX], degree = x->w->g->conf.degree, ways = gather_ways(x, node, way);
	uint32_t limit = 2 * degree < VK_WALK_LIST ? 2 * degree : VK_WALK_LIST;
	for (uint32_t k = 0; k < ways && k < WAYS_AHEAD; k++) vk_walk_fetch_edges(x->w, way[k]);
	for (uint32_t k = 0; k < ways && x->list_n < limit; k++) {
		const uint32_t *edge = vk_graph_edges_at(x->w->g, way[k]);
		if (k + WAYS_AHEAD < ways) vk_walk_fetch_edges(x->w, way[k + WAYS_AHEAD]);
		bits_add(x->w->s, way[k]);
		for (uint32_t i = 0; i < degree && x->list_n < limit; i++) {
			uint32_t id = vk_walk_edge(edge, i);
			if (id == VK_GRAPH_NONE) break;
			if (edge_ok(x->w, id) && wanted(x, id)) list_take(x, id);
		}
	}
}

static bool better(const struct wide *x, uint64_t key)
{
	return !x->best || key < vk_pool_deep_bar(x->best);
}

static void offer(struct wide *x, uint32_t node, float near)
{
	uint64_t key = vk_pool_key(near, node);
	if (!better(x, key) || !vk_pool_deep_insert(x->front, key)) return;
	if (x->best && answers(x->w, node)) vk_pool_deep_insert(x->best, key);
}

static void score(struct wide *x)
{
	struct vk_walk *w = x->w;
	const uint8_t *record[VK_WALK_LIST];
	float near[4];
	uint32_t m = x->list_n;
	for (uint32_t i = 0; i < m; i++) record[i] = vk_graph_code_at(w->g, x->list[i]);
	for (uint32_t i = 0; i < m && i < w->ahead; i++) vk_walk_fetch(record[i], w->lines);
	for (uint32_t i = 0; i < m; i += 4) {
		uint32_t some = m - i < 4 ? m - i : 4;
		for (uint32_t j = i + w->ahead; j < i + w->ahead + 4 && j < m; j++) vk_walk_fetch(record[j], w->lines);
		vk_graph_near_records(w->g, w->r, record + i, some, near);
		for (uint32_t j = 0; j < some; j++) offer(x, x->list[i + j], near[j]);
	}
	w->visited += m;
	x->list_n = 0;
}

/* Labels that the caller names, so far as they are in the graph: a chained row answers through its chain's first. */
static void seeds_named(struct wide *x)
{
	const struct vk_graph_query *q = x->w->q;
	for (uint32_t i = 0; q && i < q->seed_n; i++) {
		uint32_t node = vk_graph_node_of(x->w->g, q->seed[i]);
		if (node >= x->w->n || bits_has(x->w->s, node)) continue;
		if (vk_walk_edge(vk_graph_edges_at(x->w->g, node), 0) == VK_GRAPH_NONE) continue;
		list_take(x, node);
		if (x->list_n == VK_WALK_LIST) score(x);
	}
	score(x);
}

static void walk(struct wide *x)
{
	struct vk_walk *w = x->w;
	struct vk_graph_seen seed[VK_GRAPH_SEEDS];
	uint32_t seeds = vk_walk_seeds(w, seed);
	uint64_t budget = w->q && w->q->visit_max ? w->q->visit_max : UINT64_MAX, key;
	for (uint32_t i = 0; i < seeds; i++) {
		meet(x, seed[i].node);
		offer(x, seed[i].node, seed[i].near);
	}
	seeds_named(x);
	while ((key = vk_pool_deep_peek(x->front)) != UINT64_MAX && better(x, key)) {
		if (w->visited >= budget) {
			w->q->gave_up = true;
			return;
		}
		vk_pool_deep_pop(x->front);
		vk_walk_note(w, key);
		uint64_t next = vk_pool_deep_peek(x->front);
		if (next != UINT64_MAX) vk_walk_fetch_edges(w, vk_pool_node(next));
		if (x->may)
			gather_two_hop(x, vk_pool_node(key));
		else
			gather_plain(x, vk_pool_node(key));
		score(x);
	}
}

static enum vk_status deep_begin(struct vk_pool_deep *p, uint32_t *max, uint32_t cap)
{
	if (*max < cap) {
		uint32_t want = cap < 4096 ? 4096 : cap;
		vk_pool_deep_free(p);
		*max = 0;
		if (!vk_pool_deep_new(p, want)) return VK_E_NOMEM;
		*max = want;
	}
	vk_pool_deep_reset(p, cap);
	return VK_OK;
}

enum vk_status vk_walk_wide(struct vk_walk *w, uint32_t ef, bool live_only, bool *from_front)
{
	struct vk_graph_scratch *s = w->s;
	struct wide x = {.w = w, .front = &s->front};
	if (live_only || (w->q && w->q->allow)) x.best = &s->best;
	*from_front = !x.best;
	enum vk_status st = deep_begin(x.front, &s->front_max, x.best ? VK_GRAPH_EF_MAX : ef);
	if (!st && x.best) st = deep_begin(x.best, &s->best_max, ef);
	if (!st) st = bits_begin(s, w->n);
	if (!st && w->q && w->q->allow && w->q->two_hop) st = may_begin(w, &x.may);
	if (st) return st;
	walk(&x);
	bits_end(s);
	return VK_OK;
}
