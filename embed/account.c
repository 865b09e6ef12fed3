/*
 * What it cost: three numbers everywhere. Logical tokens are what a request would have cost
 * without a cache, billed ones what providers counted, saved the difference. Billed is added when
 * a reply lands (also for callers who have left), the rest when an operation has ended well.
 */
#include <stdlib.h>
#include <time.h>

#include "embed/engine_impl.h"
#include "store/record.h"

struct space_rt *vk_space_rt(struct vk_engine *e, const struct vk_space *s)
{
	struct space_rt *rt = e->spaces;
	while (rt && rt->num != s->num) rt = rt->next;
	if (!rt) {
		rt = calloc(1, sizeof *rt);
		if (!rt || !(rt->id = strdup(s->id))) {
			free(rt);
			return NULL;
		}
		rt->num = s->num;
		rt->stats.id = rt->id;
		rt->next = e->spaces;
		e->spaces = rt;
	}
	return rt;
}

int64_t vk_money_micros(const struct vk_price *p, uint64_t tokens, double *frac)
{
	if (p->micros_per_mtok <= 0) return 0;
	double exact = (double)tokens * (double)p->micros_per_mtok / 1e6 + *frac;
	int64_t whole = (int64_t)exact;
	*frac = exact - (double)whole; /* small requests add up instead of rounding to nothing */
	return whole;
}

void vk_account_bought(struct vk_engine *e, const struct vk_space *s, uint64_t tokens)
{
	struct space_rt *rt = vk_space_rt(e, s);
	if (!rt) return;
	rt->stats.billed_tokens += tokens;
	rt->stats.billed_micros += (uint64_t)vk_money_micros(&s->price, tokens, &rt->billed_frac);
}

void vk_account_call(struct provider_rt *rt, const struct batch *b, bool ok)
{
	struct vk_provider_stats *s = &rt->stats;
	uint64_t us = b->xfer.ended_us - b->xfer.started_us;
	s->calls++;
	if (!ok) return;
	s->calls_ok++;
	s->inputs += b->n;
	s->latency_us_sum += us;
	unsigned i = 0;
	while (i < 15 && us > (uint64_t)1000 << i) i++;
	s->bucket[i]++;
}

void vk_op_counts(const struct vk_op *op, struct vk_op_counts *c)
{
	*c = (struct vk_op_counts){.billed_tokens = op->billed_tokens};
	size_t fresh = 0; /* slots are numbered by first sight: a lower number is a repeat */
	for (size_t i = 0; i < op->n; i++) {
		const struct vk_slot *s = &op->slots[op->slot_of[i]];
		bool repeat = op->slot_of[i] < fresh;
		if (!repeat) fresh = op->slot_of[i] + 1;
		if (s->from == VK_SLOT_HIT)
			c->hits++;
		else if (s->from == VK_SLOT_COALESCED || repeat)
			c->coalesced++; /* a repeat of a text that this very request buys, too */
		else
			c->misses++;
		c->logical_tokens += s->tokens;
	}
	c->saved_tokens =
		c->logical_tokens > c->billed_tokens ? c->logical_tokens - c->billed_tokens : 0;
}

void vk_engine_account(struct vk_engine *e, const struct vk_op *op)
{
	struct vk_op_counts c;
	if (!op->error.st) vk_op_counts(op, &c);
	vk_engine_lock(e);
	struct space_rt *rt = vk_space_rt(e, op->space);
	if (rt) {
		rt->stats.requests++;
		if (op->error.st) {
			rt->stats.errors++;
		} else {
			rt->stats.hits += c.hits;
			rt->stats.misses += c.misses;
			rt->stats.coalesced += c.coalesced;
			rt->stats.logical_tokens += c.logical_tokens;
			rt->stats.saved_tokens += c.saved_tokens;
			rt->stats.saved_micros += (uint64_t)vk_money_micros(
				&op->space->price, c.saved_tokens, &rt->saved_frac);
		}
	}
	struct todo none = {0};
	vk_engine_unlock_do(e, &none);
}

void vk_engine_provider_stats(struct vk_engine *e,
			      void (*fn)(void *arg, const struct vk_provider_stats *s), void *arg)
{
	struct todo none = {0};
	vk_engine_lock(e);
	for (struct provider_rt *rt = e->providers; rt; rt = rt->next) {
		rt->stats.breaker = rt->breaker.state;
		rt->stats.in_flight = rt->in_flight;
		rt->stats.limit = rt->limit;
		rt->stats.queued = 0;
		for (struct group *g = e->groups; g; g = g->next)
			for (size_t i = 0; i < g->space->route_n; i++)
				if (strcmp(g->space->route[i].provider->name, rt->name) == 0)
					rt->stats.queued += g->lane[0].n + g->lane[1].n;
		fn(arg, &rt->stats);
	}
	vk_engine_unlock_do(e, &none);
}

void vk_engine_space_stats(struct vk_engine *e,
			   void (*fn)(void *arg, const struct vk_space_stats *s), void *arg)
{
	struct todo none = {0};
	vk_engine_lock(e);
	for (struct space_rt *rt = e->spaces; rt; rt = rt->next) fn(arg, &rt->stats);
	vk_engine_unlock_do(e, &none);
}

void vk_engine_gauges(struct vk_engine *e, struct vk_engine_gauges *g)
{
	struct todo none = {0};
	vk_engine_lock(e);
	*g = (struct vk_engine_gauges){e->flights, e->queued, e->operations, e->landed_bytes};
	vk_engine_unlock_do(e, &none);
}

/* --- the ledger: one record a day and space, added to --- */

static void add_difference(struct vk_rec_usage *u, const struct vk_space_stats *now,
			   const struct vk_space_stats *then)
{
	u->requests += now->requests - then->requests;
	u->hits += now->hits - then->hits;
	u->misses += now->misses - then->misses;
	u->coalesced += now->coalesced - then->coalesced;
	u->errors += now->errors - then->errors;
	u->logical_tokens += now->logical_tokens - then->logical_tokens;
	u->billed_tokens += now->billed_tokens - then->billed_tokens;
	u->saved_tokens += now->saved_tokens - then->saved_tokens;
	u->billed_micros += now->billed_micros - then->billed_micros;
	u->saved_micros += now->saved_micros - then->saved_micros;
	u->inputs = u->hits + u->misses + u->coalesced;
}

static enum vk_status flush_space(struct vk_engine *e, const struct vk_space_stats *now,
				  const struct vk_space_stats *then, const char *day)
{
	struct vk_buf key, value;
	struct vk_rec_usage u = {0};
	vk_buf_init(&key, 512);
	vk_buf_init(&value, 4096);
	vk_buf_puts(&key, day);
	vk_buf_putc(&key, 0);
	vk_buf_puts(&key, now->id);
	vk_buf_putc(&key, 0);
	if (!vk_catalog_get(e->catalog, VK_TABLE_USAGE, vk_buf_bytes(&key), &value) &&
	    !vk_rec_usage_decode(&u, vk_buf_bytes(&value)))
		u = (struct vk_rec_usage){0};
	add_difference(&u, now, then);
	value.n = 0;
	vk_rec_usage_encode(&value, &u);
	struct vk_catalog_op op = {VK_TABLE_USAGE, vk_buf_bytes(&key), vk_buf_bytes(&value)};
	enum vk_status st = key.failed || value.failed ? VK_E_NOMEM
						       : vk_catalog_commit(e->catalog, &op, 1);
	vk_buf_free(&key);
	vk_buf_free(&value);
	return st;
}

void vk_engine_flush_usage(struct vk_engine *e, int64_t now_ms)
{
	char day[16];
	time_t s = (time_t)(now_ms / 1000);
	struct tm tm;
	gmtime_r(&s, &tm);
	strftime(day, sizeof day, "%Y-%m-%d", &tm);
	struct todo none = {0};
	vk_engine_lock(e);
	struct space_rt *rt = e->spaces; /* the list only grows at its head */
	vk_engine_unlock_do(e, &none);
	for (; rt; rt = rt->next) {
		vk_engine_lock(e);
		struct vk_space_stats now = rt->stats, then = rt->flushed;
		vk_engine_unlock_do(e, &none);
		if (memcmp(&now, &then, sizeof now) == 0) continue;
		then.id = now.id;
		if (flush_space(e, &now, &then, day)) continue; /* next time */
		vk_engine_lock(e);
		rt->flushed = now;
		vk_engine_unlock_do(e, &none);
	}
}
