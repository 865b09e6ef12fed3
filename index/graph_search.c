/*
 * The search: a beam over codes.
 *
 *   seeds     the entry codes lie side by side and are scored in one go; the walk starts from the best few
 *   next      the nearest node that is not expanded; its edges were asked for when it became the next
 *   gather    pass A: its neighbours that were not met before, packed into a list
 *   score     pass B: codes are fetched some neighbours ahead, four distances a kernel call, and what beats the pool's worst goes in,
 *             a step's keys at once
 *
 * All of a narrow walk's state (table, pool, list) lies in the second-level cache; what it waits for is codes and edges. Hence the
 * prefetches, by inline assembly: GCC 12 drops all but the first of a loop. How far ahead is the machine's business (graph_tune.c).
 *
 * Wide beams, filters and budgets go through graph_filter.c: more state, exact bookkeeping.
 */
#include "index/graph_walk.h"
#include "index/graph_build.h"

#include <math.h>
#include <stdlib.h>

#define SEEN_MASK (VK_WALK_SEEN - 1)

/* --- scratches --- */

static size_t lines_of(size_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

/* One block: the parts behind the struct. Sizes by dims alone: a builder may choose another profile later. */
static struct vk_graph_scratch *scratch_new(const struct vk_graph *g)
{
	size_t dims = g->conf.dims, head = lines_of(sizeof(struct vk_graph_scratch)), code = lines_of(2 * (dims + 128));
	size_t floats = lines_of(4 * dims * sizeof(float)), key = lines_of((VK_POOL_FLAT_MAX + 1) * sizeof(uint64_t));
	size_t near = lines_of(VK_GRAPH_ENTRIES_MAX * sizeof(float)), seen = VK_WALK_SEEN * sizeof(uint64_t);
	size_t bytes = head + code + floats + key + near + seen;
	uint8_t *p = aligned_alloc(64, bytes);
	if (!p) return NULL;
	memset(p, 0, bytes);
	struct vk_graph_scratch *s = (void *)p;
	s->ready.code = (int8_t *)(p += head);
	s->floats = (void *)(p += code);
	s->key = (void *)(p += floats);
	s->near = (void *)(p += key);
	s->seen = (void *)(p += near);
	return s;
}

static void scratch_free(struct vk_graph_scratch *s)
{
	vk_pool_deep_free(&s->front);
	vk_pool_deep_free(&s->best);
	free(s->bits);
	free(s->touched);
	free(s->may);
	free(s->emitted);
	free(s);
}

struct vk_graph_scratch *vk_graph_scratch_take(struct vk_graph *g)
{
	pthread_mutex_lock(&g->scratch_lock);
	struct vk_graph_scratch *s = g->scratch;
	while (s && s->busy) s = s->next;
	if (!s && (s = scratch_new(g))) {
		s->next = g->scratch;
		g->scratch = s;
	}
	if (s) s->busy = true;
	pthread_mutex_unlock(&g->scratch_lock);
	return s;
}

void vk_graph_scratch_give(struct vk_graph *g, struct vk_graph_scratch *s)
{
	if (!s) return;
	pthread_mutex_lock(&g->scratch_lock);
	s->busy = false;
	pthread_mutex_unlock(&g->scratch_lock);
}

struct vk_graph_ready *vk_graph_scratch_ready(struct vk_graph_scratch *s)
{
	return &s->ready;
}

float *vk_graph_scratch_floats(struct vk_graph_scratch *s)
{
	return s->floats;
}

/* Whoever takes an epoch after unlinking a node either sees this search's epoch, or this search sees the node unlinked: the
 * store here and the grower's loads are sequentially consistent, edges are loaded with acquire (no fence: TSan knows none). */
void vk_graph_search_begin(struct vk_graph *g, struct vk_graph_scratch *s)
{
	atomic_store(&s->epoch, atomic_load(&g->epoch));
}

void vk_graph_search_end(struct vk_graph_scratch *s)
{
	atomic_store_explicit(&s->epoch, 0, memory_order_release);
}

uint64_t vk_graph_oldest(struct vk_graph *g)
{
	uint64_t oldest = UINT64_MAX;
	pthread_mutex_lock(&g->scratch_lock);
	for (struct vk_graph_scratch *s = g->scratch; s; s = s->next) {
		uint64_t epoch = atomic_load(&s->epoch);
		if (epoch && epoch < oldest) oldest = epoch;
	}
	pthread_mutex_unlock(&g->scratch_lock);
	return oldest;
}

/* --- entries --- */

struct entry_codes { /* a table that was replaced; freed with the graph or when no search can read it */
	struct entry_codes *next;
	uint64_t epoch;
	uint8_t *code;
};

static void entries_sweep(struct vk_graph *g, uint64_t oldest)
{
	struct entry_codes **at = (struct entry_codes **)&g->entries_old;
	while (*at) {
		struct entry_codes *e = *at;
		if (e->epoch > oldest) {
			at = &e->next;
			continue;
		}
		*at = e->next;
		free(e->code);
		free(e);
	}
}

void vk_graph_search_free(struct vk_graph *g)
{
	entries_sweep(g, UINT64_MAX);
	free(g->entry_code);
	while (g->scratch) {
		struct vk_graph_scratch *s = g->scratch;
		g->scratch = s->next;
		scratch_free(s);
	}
}

/* In the graph: it has edges, or there is no other. */
static bool linked(const struct vk_graph *g, uint32_t node, uint32_t n)
{
	return n == 1 || vk_walk_edge(vk_graph_edges_at(g, node), 0) != VK_GRAPH_NONE;
}

/* More entries find a nearer start, and are scored by every query. */
static uint32_t entries_wanted(uint32_t n)
{
	uint32_t want = (uint32_t)sqrt((double)n) / 2;
	return want < 16 ? 16 : want > VK_GRAPH_ENTRIES_MAX ? VK_GRAPH_ENTRIES_MAX : want;
}

/* Nearly all died and no edge was left: whoever lives is where a walk begins, and what new nodes tie themselves to. */
static uint32_t entries_unlinked(const struct vk_graph *g, uint32_t *entry, uint32_t want, uint32_t n)
{
	uint64_t *chained = vk_graph_chained_bits(g);
	uint32_t got = 0;
	for (uint32_t i = 0; chained && got < want && i < n; i++)
		if (!vk_graph_is_dead(g, i) && !vk_graph_bit(chained, i)) entry[got++] = i;
	free(chained);
	return got;
}

static uint32_t entries_choose(const struct vk_graph *g, uint32_t *entry)
{
	uint32_t n = atomic_load(&g->n), want = entries_wanted(n), got = 0;
	for (uint32_t i = 0; i < want && n; i++) {
		uint32_t from = (uint32_t)((uint64_t)n * i / want), to = (uint32_t)((uint64_t)n * (i + 1) / want);
		while (from < to && (vk_graph_is_dead(g, from) || !linked(g, from, n))) from++;
		if (from < to) entry[got++] = from;
	}
	return got ? got : entries_unlinked(g, entry, want, n);
}

/* Searches go on: the codes are a new table, published by its pointer; a node whose code is another's for a moment only starts a
 * walk somewhere else. */
enum vk_status vk_graph_entries(struct vk_graph *g)
{
	uint32_t entry[VK_GRAPH_ENTRIES_MAX], n = entries_choose(g, entry);
	size_t stride = g->code.stride;
	uint8_t *code = aligned_alloc(64, VK_GRAPH_ENTRIES_MAX * stride);
	struct entry_codes *old = malloc(sizeof *old);
	if (!code || !old) {
		free(code);
		free(old);
		return VK_E_NOMEM;
	}
	memset(code, 0, VK_GRAPH_ENTRIES_MAX * stride);
	for (uint32_t i = 0; i < n; i++) memcpy(code + i * stride, vk_graph_code_at(g, entry[i]), stride);
	*old = (struct entry_codes){.next = g->entries_old, .code = g->entry_code};
	atomic_fetch_add(&g->entry_version, 1);
	__atomic_store_n(&g->entry_code, code, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < n; i++) __atomic_store_n(g->entry + i, entry[i], __ATOMIC_RELAXED);
	__atomic_store_n(&g->entry_n, n, __ATOMIC_RELEASE);
	atomic_fetch_add(&g->entry_version, 1);
	old->epoch = atomic_fetch_add(&g->epoch, 1) + 1;
	g->entries_old = old;
	entries_sweep(g, vk_graph_oldest(g));
	return VK_OK;
}

/* --- seeds --- */

static uint32_t seed_keep(struct vk_graph_seen *seed, uint32_t n, uint32_t node, float near)
{
	uint32_t at = n;
	for (uint32_t i = 0; i < n; i++)
		if (seed[i].node == node) return n;
	while (at && seed[at - 1].near < near) at--;
	if (at == VK_GRAPH_SEEDS) return n;
	uint32_t last = n < VK_GRAPH_SEEDS ? n : VK_GRAPH_SEEDS - 1;
	for (uint32_t i = last; i > at; i--) seed[i] = seed[i - 1];
	seed[at] = (struct vk_graph_seen){node, near};
	return n < VK_GRAPH_SEEDS ? n + 1 : n;
}

/* No table yet (a graph that begins): the first node and some others that are linked. */
static uint32_t seeds_without_table(struct vk_walk *w, struct vk_graph_seen *seed)
{
	uint32_t node[32], m = 0, kept = 0;
	float near[32];
	for (uint32_t i = 0; i < 32 && i < w->n; i++) {
		uint32_t at = (uint32_t)((uint64_t)w->n * i / 32);
		if (!at || linked(w->g, at, w->n)) node[m++] = at;
	}
	vk_graph_near(w->g, w->r, node, m, near);
	w->visited += m;
	for (uint32_t i = 0; i < m; i++) kept = seed_keep(seed, kept, node[i], near[i]);
	return kept;
}

uint32_t vk_walk_seeds(struct vk_walk *w, struct vk_graph_seen seed[VK_GRAPH_SEEDS])
{
	const struct vk_graph *g = w->g;
	uint32_t n = __atomic_load_n(&g->entry_n, __ATOMIC_ACQUIRE), kept = 0;
	const uint8_t *code = __atomic_load_n(&g->entry_code, __ATOMIC_ACQUIRE);
	float *near = w->s->near, bar = -INFINITY;
	if (n && code) {
		vk_graph_near_codes(g, w->r, code, n, near);
		w->visited += n;
		for (uint32_t i = 0; i < n; i++) {
			if (near[i] < bar) continue;
			uint32_t node = __atomic_load_n(g->entry + i, __ATOMIC_RELAXED);
			if (node >= w->n) continue;
			kept = seed_keep(seed, kept, node, near[i]);
			if (kept == VK_GRAPH_SEEDS) bar = seed[kept - 1].near;
		}
	}
	return kept ? kept : seeds_without_table(w, seed);
}

/* --- the narrow walk --- */

static void seen_reset(struct vk_graph_scratch *s)
{
	if (++s->seen_epoch) return;
	memset(s->seen, 0, VK_WALK_SEEN * sizeof *s->seen);
	s->seen_epoch = 1;
}

static inline uint32_t seen_add(uint64_t *seen, uint64_t epoch, uint32_t node)
{
	uint64_t *slot = seen + (node & SEEN_MASK), mine = epoch | node;
	uint32_t fresh = *slot != mine;
	*slot = mine;
	return fresh;
}

/* Pass A. */
static inline uint32_t gather(const struct vk_walk *w, uint32_t node, uint32_t *list)
{
	const uint32_t *edge = vk_graph_edges_at(w->g, node);
	uint64_t *seen = w->s->seen, epoch = (uint64_t)w->s->seen_epoch << 32;
	uint32_t m = 0, degree = w->g->conf.degree;
	for (uint32_t i = 0; i < degree; i++) {
		uint32_t id = vk_walk_edge(edge, i);
		if (id >= w->n) {
			if (id == VK_GRAPH_NONE) break;
			continue;
		}
		list[m] = id;
		m += seen_add(seen, epoch, id);
	}
	return m;
}

static inline void near4(const struct vk_walk *w, const uint8_t *const *record, uint32_t n, float *near)
{
	int32_t dot[4];
	w->dot_at(w->r->code, record, n, w->dot_dims, dot);
	for (uint32_t i = 0; i < n; i++) near[i] = vk_graph_near_of(w->r, record[i], dot[i]);
}

/* Pass B. */
static inline void score(const struct vk_walk *w, struct vk_pool_flat *pool, const uint32_t *list, uint32_t m)
{
	const uint8_t *record[VK_GRAPH_DEGREE_MAX];
	uint64_t key[VK_GRAPH_DEGREE_MAX + 1];
	uint32_t keys = 0, ahead = w->ahead;
	float near[4], bar = pool->n < pool->cap ? -INFINITY : vk_pool_near(pool->key[pool->n - 1]);
	for (uint32_t i = 0; i < m; i++) record[i] = vk_graph_code_at(w->g, list[i]);
	for (uint32_t i = 0; i < m && i < ahead; i++) vk_walk_fetch(record[i], w->lines);
	for (uint32_t i = 0; i < m; i += 4) {
		uint32_t some = m - i < 4 ? m - i : 4;
		for (uint32_t j = i + ahead; j < i + ahead + 4 && j < m; j++) vk_walk_fetch(record[j], w->lines);
		near4(w, record + i, some, near);
		for (uint32_t j = 0; j < some; j++) {
			key[keys] = vk_pool_key(near[j], list[i + j]);
			keys += near[j] >= bar;
		}
	}
	if (keys && vk_pool_flat_merge(pool, key, keys)) vk_walk_fetch_edges(w, vk_pool_node(pool->key[pool->next]));
}

void vk_walk_note(struct vk_walk *w, uint64_t key)
{
	struct vk_graph_beam *b = w->b;
	if (!b || !b->visited || b->visited_n == b->visited_max) return;
	b->visited[b->visited_n++] = (struct vk_graph_seen){vk_pool_node(key), vk_pool_near(key)};
}

static void walk_narrow(struct vk_walk *w, struct vk_pool_flat *pool)
{
	struct vk_graph_seen seed[VK_GRAPH_SEEDS];
	uint32_t list[VK_GRAPH_DEGREE_MAX + 1], seeds = vk_walk_seeds(w, seed);
	uint64_t epoch, key[VK_GRAPH_SEEDS];
	seen_reset(w->s);
	epoch = (uint64_t)w->s->seen_epoch << 32;
	for (uint32_t i = 0; i < seeds; i++) {
		seen_add(w->s->seen, epoch, seed[i].node);
		key[i] = vk_pool_key(seed[i].near, seed[i].node);
		vk_walk_fetch_edges(w, seed[i].node);
	}
	vk_pool_flat_merge(pool, key, seeds);
	while (pool->next < pool->n) {
		uint64_t best = vk_pool_flat_pop(pool);
		if (pool->next < pool->n) vk_walk_fetch_edges(w, vk_pool_node(pool->key[pool->next]));
		vk_walk_note(w, best);
		uint32_t m = gather(w, vk_pool_node(best), list);
		score(w, pool, list, m);
		w->visited += m;
	}
}

/* --- the doors --- */

static struct vk_walk walk_of(struct vk_graph *g, struct vk_graph_scratch *s, const struct vk_graph_ready *r, uint32_t below)
{
	uint32_t n = atomic_load_explicit(&g->n, memory_order_acquire), code_lines = (uint32_t)(g->code.stride / 64);
	struct vk_graph_prefetch p = vk_graph_prefetch_get(g);
	return (struct vk_walk){
	    .g = g,
	    .s = s,
	    .r = r,
	    .n = n < below ? n : below,
	    .ahead = p.ahead,
	    .lines = p.lines < code_lines ? p.lines : code_lines,
	    .chain_steps = VK_WALK_CHAIN,
	    .dot_at = g->codec->kernel(g->k),
	    .dot_dims = vk_graph_ready_bytes(g),
	};
}

static void beam_wide(struct vk_walk *w, struct vk_graph_beam *b)
{
	bool from_front;
	if (vk_walk_wide(w, b->ef, false, &from_front)) return; /* no memory: nothing found */
	struct vk_pool_at at = {0};
	for (uint64_t key; b->pool_n < b->ef && (key = vk_pool_deep_read(&w->s->front, &at)) != UINT64_MAX;)
		b->pool[b->pool_n++] = (struct vk_graph_seen){vk_pool_node(key), vk_pool_near(key)};
}

void vk_graph_beam(struct vk_graph *g, struct vk_graph_scratch *s, const struct vk_graph_ready *r, struct vk_graph_beam *b)
{
	struct vk_walk w = walk_of(g, s, r, b->below);
	b->pool_n = b->visited_n = 0;
	w.b = b;
	if (!w.n || !b->ef) return;
	if (b->ef > VK_POOL_FLAT_MAX) {
		beam_wide(&w, b);
		return;
	}
	struct vk_pool_flat pool = {.key = s->key};
	vk_pool_flat_reset(&pool, b->ef);
	walk_narrow(&w, &pool);
	b->pool_n = pool.n;
	for (uint32_t i = 0; i < pool.n; i++)
		b->pool[i] = (struct vk_graph_seen){vk_pool_node(pool.key[i]), vk_pool_near(pool.key[i])};
}

static void query_narrow(struct vk_walk *w, uint32_t ef)
{
	struct vk_pool_flat pool = {.key = w->s->key};
	vk_pool_flat_reset(&pool, ef);
	walk_narrow(w, &pool);
	for (uint32_t i = 0; i < pool.n && vk_walk_emit(w, pool.key[i]); i++) {
	}
}

static enum vk_status query_wide(struct vk_walk *w, uint32_t ef, bool live_only)
{
	bool from_front;
	enum vk_status st = vk_walk_wide(w, ef, live_only, &from_front);
	if (st) return st;
	struct vk_pool_deep *from = from_front ? &w->s->front : &w->s->best;
	struct vk_pool_at at = {0};
	uint64_t key;
	while ((key = vk_pool_deep_read(from, &at)) != UINT64_MAX && vk_walk_emit(w, key)) {
	}
	return VK_OK;
}

/* Live nodes were fewer than asked in the narrow beam, and dead ones took their places: once more, counting the live. */
static bool starved(const struct vk_walk *w)
{
	uint32_t dead = __atomic_load_n(&w->g->dead_n, __ATOMIC_RELAXED);
	return dead && w->q->n < w->q->want && w->q->n < w->n - (dead < w->n ? dead : w->n);
}

static enum vk_status query_run(struct vk_walk *w, uint32_t ef)
{
	struct vk_graph_query *q = w->q;
	bool plain = !q->allow && !q->visit_max && !q->seed_n && ef <= VK_POOL_FLAT_MAX;
	if (!plain) return query_wide(w, ef, __atomic_load_n(&w->g->dead_n, __ATOMIC_RELAXED) != 0);
	query_narrow(w, ef);
	if (!starved(w)) return VK_OK;
	q->n = 0;
	return query_wide(w, ef, true);
}

enum vk_status vk_graph_search(struct vk_graph *g, struct vk_graph_scratch *s, struct vk_graph_query *q)
{
	uint32_t ef = q->ef > q->want ? q->ef : q->want;
	enum vk_status st = VK_OK;
	q->n = 0;
	q->visited = 0;
	q->gave_up = false;
	if (ef > VK_GRAPH_EF_MAX) return VK_E_INVALID;
	vk_graph_search_begin(g, s);
	struct vk_walk w = walk_of(g, s, &s->ready, UINT32_MAX);
	w.q = q;
	if (w.n && q->want) {
		vk_graph_ready(g, q->vector, s->floats, &s->ready);
		st = vk_walk_emit_begin(&w);
		if (!st) st = query_run(&w, ef);
		vk_walk_emitted(&w);
		q->visited = w.visited;
	}
	vk_graph_search_end(s);
	return st;
}
