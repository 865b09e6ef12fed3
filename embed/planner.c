/*
 * Groups, lanes, and which provider gets what.
 *
 * One pass: the interactive lanes of all groups first, then the bulk lanes; each cut into batches
 * for the first hop of its route that is well and has room. Interactive work may use all of a
 * provider's calls, bulk all but a fifth. A hop that is only busy is waited for (its calls end,
 * then the planner runs again); when every hop is down, what waits fails at once with a 503 that
 * says when to come back: texts of one space are never sent to another.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "embed/engine_impl.h"

/* --- groups and lanes --- */

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_span(const char *owned, struct vk_bytes b)
{
	return vk_bytes_eq(vk_bytes_of(owned ? owned : ""), b);
}

struct group *vk_group_get(struct vk_engine *e, const struct vk_op *op, bool tokens)
{
	for (struct group *g = e->groups; g; g = g->next)
		if (g->registry == op->registry && g->space == op->space && g->role == op->role &&
		    g->tenant == op->tenant && g->tokens == tokens &&
		    same_text(g->params, op->params) && same_span(g->bearer, op->bearer))
			return g;
	struct group *g = calloc(1, sizeof *g);
	if (!g) return NULL;
	g->params = op->params ? strdup(op->params) : NULL;
	g->bearer = op->bearer.n ? strndup(op->bearer.p, op->bearer.n) : NULL;
	if ((op->params && !g->params) || (op->bearer.n && !g->bearer)) {
		free(g->params);
		free(g->bearer);
		free(g);
		return NULL;
	}
	g->registry = vk_registry_ref(op->registry);
	g->space = op->space;
	g->role = op->role;
	g->tenant = op->tenant;
	g->tokens = tokens;
	g->next = e->groups;
	e->groups = g;
	return g;
}

void vk_group_put(struct vk_engine *e, struct group *g)
{
	if (g->batches || g->lane[LANE_INTERACTIVE].n || g->lane[LANE_BULK].n) return;
	struct group **at = &e->groups;
	while (*at != g) at = &(*at)->next;
	*at = g->next;
	vk_registry_unref(g->registry);
	if (g->bearer) vk_wipe(g->bearer, strlen(g->bearer));
	free(g->params);
	free(g->bearer);
	free(g);
}

static struct lane *lane_of(struct group *g, const struct flight *f)
{
	return &g->lane[f->interactive ? LANE_INTERACTIVE : LANE_BULK];
}

void vk_lane_push(struct group *g, struct flight *f)
{
	struct lane *l = lane_of(g, f);
	f->prev = l->tail;
	f->next = NULL;
	if (l->tail)
		l->tail->next = f;
	else
		l->head = f;
	l->tail = f;
	l->n++;
}

void vk_lane_remove(struct group *g, struct flight *f)
{
	struct lane *l = lane_of(g, f);
	if (f->prev)
		f->prev->next = f->next;
	else
		l->head = f->next;
	if (f->next)
		f->next->prev = f->prev;
	else
		l->tail = f->prev;
	f->prev = f->next = NULL;
	l->n--;
}

/* --- providers --- */

struct provider_rt *vk_provider_rt(struct vk_engine *e, const struct vk_provider *p)
{
	struct provider_rt *rt = e->providers;
	while (rt && strcmp(rt->name, p->name) != 0) rt = rt->next;
	if (!rt) {
		rt = calloc(1, sizeof *rt);
		if (!rt || !(rt->name = strdup(p->name))) {
			free(rt);
			return NULL;
		}
		rt->stats.name = rt->name;
		rt->next = e->providers;
		e->providers = rt;
	}
	rt->limit = p->caps.concurrency ? p->caps.concurrency : 8;
	return rt;
}

static bool has_room(const struct provider_rt *rt, int lane)
{
	uint32_t reserved = rt->limit / 5 ? rt->limit / 5 : (rt->limit > 1 ? 1 : 0);
	return rt->in_flight < (lane == LANE_INTERACTIVE ? rt->limit : rt->limit - reserved);
}

enum pick { PICK_ONE, PICK_WAIT, PICK_DOWN };

/* Weighted hops take turns by chance; the others keep the order in which they are written. */
static size_t first_hop(struct vk_engine *e, const struct vk_space *s)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < s->route_n; i++) sum += s->route[i].weight;
	if (!sum) return 0;
	uint64_t at = vk_rng(&e->rng) % sum;
	for (size_t i = 0; i < s->route_n; i++) {
		if (at < s->route[i].weight) return i;
		at -= s->route[i].weight;
	}
	return 0;
}

static enum pick pick_hop(struct vk_engine *e, struct group *g, int lane, uint64_t now_ms,
			  const struct vk_hop **hop, uint64_t *up_at_ms, struct todo *t)
{
	const struct vk_space *s = g->space;
	size_t start = first_hop(e, s);
	bool waiting = false;
	uint64_t soonest_ms = UINT64_MAX;
	*up_at_ms = now_ms + 1000;
	for (size_t i = 0; i < s->route_n; i++) {
		size_t h = (start + i) % s->route_n;
		struct provider_rt *rt = vk_provider_rt(e, s->route[h].provider);
		bool pending = false;
		if (!rt) continue;
		if (!vk_breaker_ready(&rt->breaker, now_ms)) {
			if (rt->breaker.until_ms > now_ms && rt->breaker.until_ms < soonest_ms)
				soonest_ms = rt->breaker.until_ms;
			if (rt->breaker.state == VK_BREAKER_HALF_OPEN) waiting = true; /* probe is out */
			continue;
		}
		if (!vk_canary_allows(e, g->registry, s, h, now_ms, &pending, t)) {
			waiting |= pending;
			continue;
		}
		if (!has_room(rt, lane)) {
			*hop = NULL;
			return PICK_WAIT;
		}
		*hop = &s->route[h];
		return PICK_ONE;
	}
	*hop = NULL;
	if (soonest_ms != UINT64_MAX && soonest_ms > *up_at_ms) *up_at_ms = soonest_ms;
	return waiting ? PICK_WAIT : PICK_DOWN;
}

const struct vk_hop *vk_plan_other(struct vk_engine *e, const struct batch *b)
{
	const struct vk_space *s = b->call.space;
	uint64_t now_ms = vk_mono_ms();
	for (size_t i = 0; i < s->route_n && b->group; i++) {
		const struct vk_hop *h = &s->route[i];
		struct provider_rt *rt = vk_provider_rt(e, h->provider);
		bool pending;
		if (h == b->hop || !rt || !vk_breaker_ready(&rt->breaker, now_ms)) continue;
		if (!vk_canary_allows(e, b->group->registry, s, i, now_ms, &pending, NULL)) continue;
		return h;
	}
	return NULL;
}

/* --- batches --- */

static bool fits(const struct vk_caps *c, size_t n, size_t tokens, size_t bytes)
{
	return n <= VK_BATCH_ITEMS_MAX && (!c->items || n <= c->items) &&
	       bytes <= VK_BATCH_BYTES_MAX && (!c->bytes || bytes <= c->bytes) &&
	       (!c->tokens || tokens <= c->tokens);
}

/* Takes flights from the head of the lane, as many as one call may hold, at least one. */
static struct batch *cut(struct vk_engine *e, struct group *g, struct lane *l,
			 const struct vk_hop *hop)
{
	const struct vk_caps *caps = &hop->caps;
	size_t n = 0, tokens = 0, bytes = 0;
	for (struct flight *f = l->head; f; f = f->next, n++) {
		tokens += f->weight_tokens;
		bytes += f->weight_bytes;
		if (n && !fits(caps, n + 1, tokens, bytes)) break;
		if (n >= VK_BATCH_ITEMS_MAX) break;
	}
	struct flight **flights = malloc(n * sizeof *flights);
	struct batch *b = flights ? vk_batch_new(e, g, hop, flights, n) : NULL;
	if (!b) {
		free(flights);
		return NULL;
	}
	for (size_t i = 0; i < n; i++) {
		flights[i] = l->head;
		vk_lane_remove(g, flights[i]);
		flights[i]->state = FLIGHT_SENT;
		e->queued--;
	}
	return b;
}

static void down_error(const struct group *g, uint64_t wait_ms, struct vk_error *err)
{
	vk_fail_param(err, VK_E_UNAVAILABLE, "provider_unavailable", NULL,
		      "No provider of space %s is available now; cached inputs are still answered.",
		      g->space->id);
	err->retry_after_ms = (int)(wait_ms > VK_WAIT_MS_MAX ? VK_WAIT_MS_MAX : wait_ms);
}

static void fail_lane(struct vk_engine *e, struct group *g, struct lane *l,
		      const struct vk_error *err, struct todo *t)
{
	while (l->head) { /* failing one may drop others that nobody waits for any more */
		struct flight *f = l->head;
		vk_lane_remove(g, f);
		e->queued--;
		f->state = FLIGHT_SENT;
		vk_flight_fail(e, f, err, t);
	}
}

/* Sends one batch of the lane, or fails what waits in it. False: it has to wait. */
static bool plan_one(struct vk_engine *e, struct group *g, int lane, uint64_t now_ms,
		     struct todo *t)
{
	struct lane *l = &g->lane[lane];
	const struct vk_hop *hop;
	uint64_t up_at_ms;
	struct vk_error err;
	switch (pick_hop(e, g, lane, now_ms, &hop, &up_at_ms, t)) {
	case PICK_WAIT:
		return false;
	case PICK_DOWN:
		down_error(g, up_at_ms - now_ms, &err);
		fail_lane(e, g, l, &err, t);
		return true;
	case PICK_ONE:
		break;
	}
	struct batch *b = cut(e, g, l, hop);
	if (!b) {
		vk_fail(&err, VK_E_NOMEM, "Out of memory; try again shortly.");
		err.retry_after_ms = 1000;
		fail_lane(e, g, l, &err, t);
		return true;
	}
	b->interactive = lane == LANE_INTERACTIVE;
	b->rt = vk_provider_rt(e, hop->provider);
	vk_breaker_take(&b->rt->breaker, now_ms);
	b->rt->in_flight++;
	b->holds_slot = true;
	b->next = t->send;
	t->send = b;
	return true;
}

/* The group that was served longest ago and is not known to wait in this pass. */
static struct group *next_group(struct vk_engine *e, int lane, uint64_t pass)
{
	struct group *best = NULL;
	for (struct group *g = e->groups; g; g = g->next)
		if (g->lane[lane].n && g->waits_in_pass != pass &&
		    (!best || g->served < best->served))
			best = g;
	return best;
}

/* Nothing goes out any more: whoever waits is told so. */
static void fail_queued(struct vk_engine *e, struct todo *t)
{
	struct vk_error err;
	vk_stopping_error(&err);
	for (int lane = 0; lane < LANES; lane++) {
		uint64_t pass = ++e->passes;
		for (struct group *g; (g = next_group(e, lane, pass));) {
			g->batches++; /* stays while we work on it */
			fail_lane(e, g, &g->lane[lane], &err, t);
			g->batches--;
			vk_group_put(e, g);
		}
	}
}

void vk_plan(struct vk_engine *e, struct todo *t)
{
	if (!e->queued) return;
	if (e->stopping) {
		fail_queued(e, t);
		return;
	}
	uint64_t now_ms = vk_mono_ms();
	for (int lane = 0; lane < LANES; lane++) {
		uint64_t pass = ++e->passes;
		for (struct group *g; (g = next_group(e, lane, pass));) {
			g->batches++; /* stays while we work on it */
			if (plan_one(e, g, lane, now_ms, t))
				g->served = ++e->served;
			else
				g->waits_in_pass = pass;
			g->batches--;
			vk_group_put(e, g);
		}
	}
}
