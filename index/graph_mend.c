/*
 * Mending: a round over all nodes, some at a time, when more than a tenth of the graph is dead.
 *
 * The nodes that are dead when a round begins are doomed. Each node that is not gets edges without doomed ones: its living
 * neighbours and, for each doomed one, that one's (FreshDiskANN), pruned; chains lose their dead links. A node that is left with too few
 * is searched for anew. Edges that are made while the round goes on never name the dead. So at its end no edge names a doomed node: they
 * are cut out, and their places are spare when the searches of that moment are over. What only a doomed node named is linked again, and a
 * walk from the new entries ties on whatever that has left unreached.
 */
#include "index/graph_grow.h"

#include <stdlib.h>
#include <string.h>

#include "index/graph_build.h"

#define DEAD_SHARE 10u  /* a round begins when one of so many nodes in the graph is dead, */
#define DEAD_LEAST 64u  /* and so many are */
#define THIN_SHARE 4u   /* a node with fewer than degree / 4 edges is searched for anew */

/* --- places --- */

void vk_grow_reap(struct vk_graph *g, struct vk_grow *w)
{
	if (!w->retired) return;
	uint64_t oldest = vk_graph_oldest(g);
	for (struct vk_retired **at = &w->retired; *at;) {
		struct vk_retired *r = *at;
		if (r->epoch > oldest) {
			at = &r->next;
			continue;
		}
		if (g->spare_n + r->n > g->spare_cap) {
			uint32_t cap = g->spare_n + r->n;
			uint32_t *more = realloc(g->spare, cap * sizeof *more);
			if (!more) return; /* they wait */
			g->spare = more;
			g->spare_cap = cap;
		}
		memcpy(g->spare + g->spare_n, r->node, r->n * sizeof *r->node);
		g->spare_n += r->n;
		*at = r->next;
		free(r);
	}
}

static bool mark_out(struct vk_graph *g, struct vk_grow *w, uint32_t node)
{
	size_t words = (size_t)atomic_load(&g->n) / 64 + 1;
	if (words > w->out_words) {
		uint64_t *more = realloc(w->out, words * sizeof *more);
		if (!more) return false;
		memset(more + w->out_words, 0, (words - w->out_words) * sizeof *more);
		w->out = more;
		w->out_words = words;
	}
	w->out[node / 64] |= (uint64_t)1 << (node % 64);
	return true;
}

/* --- a round begins --- */

static bool worth_it(const struct vk_graph *g, const struct vk_grow *w)
{
	uint32_t in = atomic_load(&g->n) - g->spare_n;
	return w->dead_in >= DEAD_LEAST && w->dead_in > in / DEAD_SHARE;
}

static enum vk_status begin(struct vk_graph *g, struct vk_grow *w)
{
	w->end = atomic_load(&g->n);
	free(w->doomed);
	w->doomed = calloc((size_t)w->end / 64 + 1, sizeof *w->doomed);
	if (!w->doomed) return VK_E_NOMEM;
	w->doomed_n = 0;
	for (uint32_t i = 0; i < w->end; i++) {
		if (!vk_graph_is_dead(g, i) || vk_grow_out(w, i)) continue;
		w->doomed[i / 64] |= (uint64_t)1 << (i % 64);
		w->doomed_n++;
	}
	w->at = 0;
	w->mending = true;
	return VK_OK;
}

static bool is_doomed(const struct vk_grow *w, uint32_t node)
{
	return node < w->end && vk_graph_bit(w->doomed, node);
}

bool vk_grow_doomed(const struct vk_grow *w, uint32_t node)
{
	return vk_grow_out(w, node) || (w->mending && is_doomed(w, node));
}

/* --- a node --- */

static void mend_chain(struct vk_graph *g, struct vk_grow *w, uint32_t node)
{
	uint32_t *link = vk_graph_chain_at(g, node), at, steps = w->end; /* a damaged chain may be a ring */
	while ((at = *link) != VK_GRAPH_NONE && at < g->conf.capacity && steps--) {
		if (is_doomed(w, at)) {
			__atomic_store_n(link, *vk_graph_chain_at(g, at), __ATOMIC_RELEASE);
			__atomic_fetch_sub(&g->chained_n, 1, __ATOMIC_RELAXED);
		} else {
			link = vk_graph_chain_at(g, at);
		}
	}
}

/* Candidates instead of what is doomed: into w->cand, how many. False: no edge is doomed. */
static bool around(struct vk_graph *g, struct vk_grow *w, uint32_t node, uint32_t *live, uint32_t *cand_n)
{
	const uint32_t *e = vk_graph_edges_at(g, node);
	uint32_t n = 0;
	bool doomed = false;
	*live = 0;
	for (uint32_t i = 0; i < g->conf.degree && e[i] != VK_GRAPH_NONE; i++) {
		if (is_doomed(w, e[i])) doomed = true;
		else if (n < VK_GROW_CANDIDATES) w->cand[n++].node = e[i];
	}
	*live = n;
	for (uint32_t i = 0; doomed && i < g->conf.degree && e[i] != VK_GRAPH_NONE; i++) {
		if (!is_doomed(w, e[i])) continue;
		const uint32_t *beyond = vk_graph_edges_at(g, e[i]);
		for (uint32_t j = 0; j < g->conf.degree && beyond[j] != VK_GRAPH_NONE && n < VK_GROW_CANDIDATES; j++)
			if (beyond[j] != node && !vk_graph_is_dead(g, beyond[j])) w->cand[n++].node = beyond[j];
	}
	*cand_n = n;
	return doomed;
}

/* A dead one that is not doomed yet only forgets the doomed: it is walked through for one more round. */
static void forget_doomed(struct vk_graph *g, struct vk_grow *w, uint32_t node)
{
	uint32_t list[VK_GRAPH_DEGREE_MAX], n = 0;
	const uint32_t *e = vk_graph_edges_at(g, node);
	bool doomed = false;
	for (uint32_t i = 0; i < g->conf.degree && e[i] != VK_GRAPH_NONE; i++) {
		if (is_doomed(w, e[i])) doomed = true;
		else list[n++] = e[i];
	}
	if (doomed) vk_grow_set_edges(g, node, list, n);
}

static void mend_node(struct vk_graph *g, struct vk_grow *w, uint32_t node)
{
	uint32_t live, out[VK_GRAPH_DEGREE_MAX];
	if (vk_grow_out(w, node)) return;
	/* A doomed first of a chain has none that lives behind it: dying, it would have handed over to one. */
	if (is_doomed(w, node)) return;
	if (*vk_graph_chain_at(g, node) != VK_GRAPH_NONE) mend_chain(g, w, node);
	if (vk_graph_is_dead(g, node)) {
		forget_doomed(g, w, node);
		return;
	}
	uint32_t n;
	bool doomed = around(g, w, node, &live, &n);
	bool chained = !live && !doomed && !*vk_grow_in(g, node);
	if (chained) return; /* it hangs behind another and has no edges */
	if (doomed) {
		vk_grow_near(g, node, w->cand, n);
		n = vk_graph_prune(g, w->scratch, node, w->cand, n, out);
		vk_grow_set_edges(g, node, out, n);
		live = n;
	}
	if (live >= g->conf.degree / THIN_SHARE) return;
	n = vk_grow_candidates(g, w, node);
	n = vk_graph_prune(g, w->scratch, node, w->cand, n, out);
	if (n <= live) return;
	vk_grow_set_edges(g, node, out, n);
	for (uint32_t i = 0; i < n; i++) (void)vk_grow_link(g, out[i], node, false);
}

/* --- a round ends --- */

static void relink(struct vk_graph *g, struct vk_grow *w, uint32_t node)
{
	uint32_t n = vk_grow_candidates(g, w, node), out[VK_GRAPH_DEGREE_MAX];
	n = vk_graph_prune(g, w->scratch, node, w->cand, n, out);
	bool named = false;
	for (uint32_t i = 0; i < n; i++) named |= vk_grow_link(g, out[i], node, false);
	for (uint32_t i = 0; i < n && !named; i++) named = vk_grow_link(g, out[i], node, true);
}

static struct vk_retired *retire(struct vk_graph *g, struct vk_grow *w)
{
	struct vk_retired *r = malloc(sizeof *r + (size_t)w->doomed_n * sizeof *r->node);
	if (!r) return NULL;
	r->n = 0;
	for (uint32_t i = 0; i < w->end; i++) {
		if (!vk_graph_bit(w->doomed, i)) continue;
		if (!mark_out(g, w, i)) {
			free(r);
			return NULL;
		}
		r->node[r->n++] = i;
	}
	return r;
}

/* Nodes that nothing must lead to: chained, dead, cut out. */
static uint64_t *apart(const struct vk_graph *g, const struct vk_grow *w)
{
	uint64_t *bits = vk_graph_chained_bits(g);
	uint32_t n = atomic_load(&g->n);
	for (uint32_t i = 0; bits && i < n; i++)
		if (vk_graph_is_dead(g, i) || vk_grow_out(w, i)) bits[i / 64] |= (uint64_t)1 << (i % 64);
	return bits;
}

/* A chain whose first was cut out went with it, dead as it was. */
static void count_chained(struct vk_graph *g)
{
	uint32_t n = atomic_load(&g->n), links = 0;
	for (uint32_t i = 0; i < n; i++) links += *vk_graph_chain_at(g, i) != VK_GRAPH_NONE;
	__atomic_store_n(&g->chained_n, links, __ATOMIC_RELAXED);
}

static enum vk_status finish(struct vk_graph *g, struct vk_grow *w)
{
	struct vk_retired *r = retire(g, w);
	if (!r) return VK_E_NOMEM;
	enum vk_status st = vk_graph_entries(g);
	if (st) {
		free(r);
		return st;
	}
	for (uint32_t i = 0; i < r->n; i++) {
		uint32_t *e = vk_graph_edges_at(g, r->node[i]);
		for (uint32_t j = 0; j < g->conf.degree && e[j] != VK_GRAPH_NONE; j++) {
			uint16_t *in = vk_grow_in(g, e[j]);
			if (*in && *in < UINT16_MAX) __atomic_store_n(in, (uint16_t)(*in - 1), __ATOMIC_RELAXED);
			if (!*in && !vk_graph_is_dead(g, e[j])) relink(g, w, e[j]);
		}
		for (uint32_t j = 0; j < g->conf.degree; j++) __atomic_store_n(e + j, VK_GRAPH_NONE, __ATOMIC_RELAXED);
		__atomic_store_n(vk_graph_chain_at(g, r->node[i]), VK_GRAPH_NONE, __ATOMIC_RELAXED);
	}
	count_chained(g);
	uint64_t *skip = apart(g, w);
	struct vk_error err;
	uint32_t unreached;
	st = skip ? vk_graph_reach(g, skip, &unreached, &err) : VK_E_NOMEM;
	if (st == VK_E_INTERNAL) st = VK_OK; /* next to nothing lives: exact search answers until it is built anew */
	free(skip);
	enum vk_status counted = vk_graph_count_in(g);
	if (!st) st = counted;
	r->epoch = atomic_fetch_add(&g->epoch, 1) + 1;
	r->next = w->retired;
	w->retired = r;
	w->dead_in = w->dead_in > r->n ? w->dead_in - r->n : 0;
	w->mending = false;
	w->entries_at = atomic_load(&g->n);
	return st;
}

enum vk_status vk_graph_consolidate_step(struct vk_graph *g, uint32_t budget)
{
	struct vk_grow *w = vk_grow_of(g);
	if (!w) return VK_E_NOMEM;
	if (atomic_load(&g->lost)) return VK_E_CORRUPT;
	vk_grow_reap(g, w);
	if (!w->mending) {
		if (!worth_it(g, w)) return VK_OK;
		enum vk_status st = begin(g, w);
		if (st) return st;
	}
	for (uint32_t i = 0; i < budget && w->at < w->end; i++) mend_node(g, w, w->at++);
	if (w->at < w->end) return VK_E_BUSY;
	enum vk_status st = finish(g, w);
	return st ? st : VK_E_BUSY; /* perhaps another round */
}
