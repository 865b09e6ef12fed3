/* Operations: look-up without a lock, joining flights, handing rows over, ending once. */
#include "embed/engine_impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

#define TABLE_START 1024
#define CATCH_UP_MAX 4

enum vk_status vk_engine_new(const struct vk_engine_opts *opts, struct vk_engine **out)
{
	struct vk_engine *e = calloc(1, sizeof *e);
	*out = NULL;
	if (!e) return VK_E_NOMEM;
	e->table_n = TABLE_START;
	e->table = calloc(e->table_n, sizeof *e->table);
	if (!e->table) {
		free(e);
		return VK_E_NOMEM;
	}
	e->cache = opts->cache;
	e->catalog = opts->catalog;
	e->tenants = opts->tenants;
	e->upstream = opts->upstream;
	e->pool = opts->pool;
	e->queue_max = opts->queue_max ? opts->queue_max : VK_QUEUE_INPUTS_MAX;
	e->rng = opts->seed;
	pthread_mutex_init(&e->lock, NULL);
	*out = e;
	return VK_OK;
}

static void free_providers(struct vk_engine *e)
{
	while (e->providers) {
		struct provider_rt *rt = e->providers;
		e->providers = rt->next;
		while (rt->canaries) {
			struct canary *c = rt->canaries;
			rt->canaries = c->next;
			free(c);
		}
		free(rt->name);
		free(rt);
	}
}

void vk_engine_free(struct vk_engine *e)
{
	if (!e) return;
	for (size_t i = 0; i < e->table_n; i++) {
		while (e->table[i]) {
			struct flight *f = e->table[i];
			if (f->state == FLIGHT_QUEUED) {
				vk_lane_remove(f->group, f);
				e->queued--;
			}
			vk_flight_remove(e, f);
		}
	}
	while (e->groups) {
		struct group *g = e->groups;
		g->batches = 0;
		vk_group_put(e, g);
	}
	free_providers(e);
	while (e->spaces) {
		struct space_rt *s = e->spaces;
		e->spaces = s->next;
		free(s->id);
		free(s);
	}
	pthread_mutex_destroy(&e->lock);
	free(e->table);
	free(e);
}

void vk_engine_lock(struct vk_engine *e)
{
	pthread_mutex_lock(&e->lock);
}

/* Ended operations are chained through their waiters pointer: it is not needed any more. */
static void end_op(struct vk_engine *e, struct vk_op *op, struct todo *t)
{
	assert(!op->ended);
	op->ended = true;
	e->operations--;
	op->waiters = (struct vk_waiter *)(void *)t->ended;
	t->ended = op;
}

void vk_engine_unlock_do(struct vk_engine *e, struct todo *t)
{
	struct vk_op *ended = t->ended;
	struct batch *send = t->send;
	*t = (struct todo){0};
	pthread_mutex_unlock(&e->lock);
	while (ended) {
		struct vk_op *op = ended;
		ended = (struct vk_op *)(void *)op->waiters;
		op->waiters = NULL;
		op->done(op); /* op may be gone now */
	}
	while (send) {
		struct batch *b = send;
		send = b->next;
		b->next = NULL;
		vk_batch_send(b);
	}
}

/* --- look-up: no lock --- */

/* Folds equal inputs: slot_of[i] for each input, slots in order of first sight. */
static void fold(struct vk_op *op, const struct vk_key_plan *plan, uint32_t *bucket, size_t buckets)
{
	for (size_t i = 0; i < op->n; i++) {
		struct vk_cache_key key;
		vk_key_make(plan, &op->inputs[i], &key);
		size_t at = 0;
		if (buckets) { /* the id is a MAC: its bytes are the hash */
			at = vk_get_u64le(vk_cache_key_id(&key)) & (buckets - 1);
			while (bucket[at] &&
			       memcmp(&op->slots[bucket[at] - 1].key, &key, sizeof key) != 0)
				at = (at + 1) & (buckets - 1);
			if (bucket[at]) {
				op->slot_of[i] = bucket[at] - 1;
				continue;
			}
		}
		struct vk_slot *s = &op->slots[op->slots_n];
		*s = (struct vk_slot){.in = op->inputs[i], .key = key};
		op->slot_of[i] = (uint32_t)op->slots_n++;
		if (buckets) bucket[at] = (uint32_t)op->slots_n;
	}
}

/* A row past its space's TTL is bought anew, and the new one takes its place. */
static bool outlived(const struct vk_op *op, const struct vk_cache_meta *m)
{
	return op->space->ttl_ms && op->now_ms - m->created_ms > op->space->ttl_ms;
}

/* Young enough for this request? */
static bool fresh(const struct vk_op *op, const struct vk_cache_meta *m)
{
	int64_t age_ms = op->now_ms - m->created_ms;
	return op->max_age_ms < 0 || age_ms <= op->max_age_ms;
}

static void read_slots(struct vk_engine *e, struct vk_op *op, const struct vk_key_plan *plans,
		       size_t plans_n)
{
	struct vk_cache_read *r;
	if (op->no_cache || vk_tenant_provisional(op->tenant) || vk_cachedb_read_begin(e->cache, &r))
		return; /* all missing: serving goes on without the cache */
	for (size_t i = 0; i < op->slots_n; i++) {
		struct vk_slot *s = &op->slots[i];
		struct vk_cache_meta m;
		if (s->done) continue;
		enum vk_status st = vk_cachedb_get(r, &s->key, op->space->dims, s->row, &m);
		for (size_t p = 1; st && p < plans_n; p++) {
			struct vk_cache_key old;
			vk_key_make(&plans[p], &s->in, &old);
			st = vk_cachedb_get(r, &old, op->space->dims, s->row, &m);
		}
		s->outlived = !st && outlived(op, &m);
		if (st || s->outlived || !fresh(op, &m)) continue;
		s->done = true;
		s->from = VK_SLOT_HIT;
		s->tokens = m.tokens;
		s->truncated = (m.flags & VK_CACHE_MAYBE_TRUNCATED) != 0;
		s->est_tokens = (m.flags & VK_CACHE_EST_TOKENS) != 0;
		op->missing--;
	}
	vk_cachedb_read_end(r);
}

static void make_plans(const struct vk_op *op, struct vk_key_plan *plans)
{
	for (size_t i = 0; i < op->tenant->secrets_n; i++)
		vk_key_plan_init(&plans[i], &op->tenant->secret[i], op->tenant->id, op->space->num,
				 op->space->id, op->role->name, op->params);
}

enum vk_status vk_op_lookup(struct vk_engine *e, struct vk_op *op)
{
	struct vk_key_plan plans[VK_TENANT_SECRETS_MAX];
	size_t dims = op->space->dims, buckets = 0;
	uint32_t *bucket = NULL;
	if (op->n > 1) {
		for (buckets = 4; buckets < 2 * op->n;) buckets *= 2;
		bucket = vk_arena_calloc(op->arena, buckets, sizeof *bucket);
	}
	op->slots = vk_arena_alloc(op->arena, op->n * sizeof *op->slots);
	op->slot_of = vk_arena_alloc(op->arena, op->n * sizeof *op->slot_of);
	if (!op->slots || !op->slot_of || (buckets && !bucket)) return VK_E_NOMEM;
	op->slots_n = 0;
	make_plans(op, plans);
	fold(op, &plans[0], bucket, buckets);
	op->rows = vk_arena_alloc(op->arena, op->slots_n * dims * sizeof *op->rows);
	if (!op->rows) return VK_E_NOMEM;
	for (size_t i = 0; i < op->slots_n; i++) op->slots[i].row = op->rows + i * dims;
	op->missing = op->slots_n;
	op->epoch = atomic_load(&e->epoch);
	read_slots(e, op, plans, op->tenant->secrets_n);
	return VK_OK;
}

/* --- flights --- */

static size_t bucket_of(const struct vk_engine *e, const struct vk_cache_key *key)
{
	/* Not by pool: that changes when a provisional one is accepted (vk_flight_repool). */
	return vk_get_u64le(vk_cache_key_id(key)) & (e->table_n - 1);
}

struct flight *vk_flight_find(struct vk_engine *e, const struct vk_cache_key *key)
{
	struct flight *f = e->table[bucket_of(e, key)];
	while (f && memcmp(&f->key, key, sizeof *key) != 0) f = f->hash_next;
	return f;
}

void vk_flight_repool(struct flight *f, uint32_t pool)
{
	vk_put_u32be(f->key.b, pool);
}

bool vk_flight_other_landed(struct vk_engine *e, const struct flight *f)
{
	for (const struct flight *o = vk_flight_find(e, &f->key); o; o = o->hash_next)
		if (o != f && o->state == FLIGHT_LANDED && memcmp(&o->key, &f->key, sizeof f->key) == 0)
			return true;
	return false;
}

/* The flight that this operation may join: one under way, or one whose row has landed and may be
 * shown to it. */
static struct flight *find_for(struct vk_engine *e, const struct vk_op *op,
			       const struct vk_cache_key *key)
{
	struct flight *landed = NULL;
	for (struct flight *f = vk_flight_find(e, key); f; f = f->hash_next) {
		if (memcmp(&f->key, key, sizeof *key) != 0) continue;
		if (f->state != FLIGHT_LANDED) return f;
		if (!op->no_cache && op->max_age_ms != 0 && !f->anew) landed = f;
	}
	return landed;
}

static void grow_table(struct vk_engine *e)
{
	size_t n = e->table_n * 2, old_n = e->table_n;
	struct flight **old = e->table, **table = calloc(n, sizeof *table);
	if (!table) return; /* longer chains are only slower */
	e->table = table;
	e->table_n = n;
	for (size_t i = 0; i < old_n; i++) {
		while (old[i]) {
			struct flight *f = old[i];
			old[i] = f->hash_next;
			struct flight **head = &e->table[bucket_of(e, &f->key)];
			f->hash_next = *head;
			*head = f;
		}
	}
	free(old);
}

/* What the planner reckons with: the tokens themselves, or a third of the bytes for text (a
 * cautious guess for English and code; a batch that is refused all the same is halved). */
static void weigh(struct flight *f)
{
	f->weight_bytes = vk_input_len(&f->in) + 16;
	f->weight_tokens = vk_input_is_text(&f->in) ? f->in.text.n / 3 + 1 : f->in.tokens_n;
}

static struct flight *flight_new(struct vk_engine *e, struct vk_op *op, struct vk_slot *s)
{
	size_t len = vk_input_len(&s->in);
	struct flight *f = calloc(1, sizeof *f + len + 1);
	if (!f) return NULL;
	f->key = s->key;
	f->owner = op;
	f->interactive = op->interactive;
	f->anew = op->no_cache || op->max_age_ms >= 0;
	f->dims = op->space->dims;
	if (vk_input_is_text(&s->in)) {
		memcpy(f->copy, s->in.text.p, len);
		f->in.text = (struct vk_bytes){f->copy, len};
	} else {
		memcpy(f->copy, s->in.tokens, len);
		f->in.tokens = (const uint32_t *)(const void *)f->copy;
		f->in.tokens_n = s->in.tokens_n;
	}
	weigh(f);
	f->group = vk_group_get(e, op, !vk_input_is_text(&s->in));
	if (!f->group) {
		free(f);
		return NULL;
	}
	if (e->flights > e->table_n) grow_table(e);
	struct flight **head = &e->table[bucket_of(e, &f->key)];
	f->hash_next = *head;
	*head = f;
	e->flights++;
	vk_lane_push(f->group, f);
	e->queued++;
	return f;
}

void vk_flight_remove(struct vk_engine *e, struct flight *f)
{
	struct flight **at = &e->table[bucket_of(e, &f->key)];
	while (*at != f) at = &(*at)->hash_next;
	*at = f->hash_next;
	e->flights--;
	if (f->state == FLIGHT_LANDED) e->landed_bytes -= f->dims * sizeof(float);
	free(f->row);
	free(f);
}

static void add_waiter(struct flight *f, struct vk_waiter *w)
{
	w->flight = f;
	w->prev = NULL;
	w->next = f->waiters;
	if (f->waiters) f->waiters->prev = w;
	f->waiters = w;
	w->op->pending++;
	if (!w->op->no_store) f->store = true;
}

static void remove_waiter(struct vk_waiter *w)
{
	struct flight *f = w->flight;
	if (w->prev)
		w->prev->next = w->next;
	else
		f->waiters = w->next;
	if (w->next) w->next->prev = w->prev;
	w->flight = NULL;
	w->op->pending--;
}

/* Takes the operation out of every flight it still waits for. A flight that was not sent and that
 * nobody is left to wait for is dropped; one that is on its way goes on and fills the cache. */
static void leave_all(struct vk_engine *e, struct vk_op *op)
{
	for (size_t i = 0; i < op->waiters_n; i++) {
		struct flight *f = op->waiters[i].flight;
		if (!f) continue;
		remove_waiter(&op->waiters[i]);
		if (f->owner == op) f->owner = f->waiters ? f->waiters->op : NULL;
		if (f->state == FLIGHT_QUEUED && !f->waiters) {
			struct group *g = f->group;
			vk_lane_remove(g, f);
			e->queued--;
			vk_flight_remove(e, f);
			vk_group_put(e, g);
		}
	}
}

static void fill_slot(struct vk_op *op, struct vk_slot *s, const struct flight *f)
{
	memcpy(s->row, f->row, f->dims * sizeof(float));
	s->tokens = f->tokens;
	s->truncated = f->truncated;
	s->est_tokens = f->est_tokens;
	s->done = true;
	op->provider = f->provider;
}

void vk_flight_land(struct vk_engine *e, struct flight *f, struct todo *t)
{
	f->state = FLIGHT_LANDED;
	e->landed_bytes += f->dims * sizeof(float);
	if (f->owner) f->owner->billed_tokens += f->tokens;
	while (f->waiters) {
		struct vk_waiter *w = f->waiters;
		struct vk_op *op = w->op;
		fill_slot(op, &op->slots[w->slot], f);
		remove_waiter(w);
		if (!op->pending) end_op(e, op, t);
	}
	f->owner = NULL;
	f->group = NULL;
}

/* The provider refused one text: which of the caller's? */
static void name_position(struct vk_op *op, uint32_t slot)
{
	size_t i = 0, n = strlen(op->error.text);
	while (i < op->n && op->slot_of[i] != slot) i++;
	if (op->n > 1 && i < op->n)
		snprintf(op->error.text + n, sizeof op->error.text - n, " (position %zu)", i);
}

void vk_flight_fail(struct vk_engine *e, struct flight *f, const struct vk_error *err,
		    struct todo *t)
{
	while (f->waiters) {
		struct vk_op *op = f->waiters->op;
		uint32_t slot = f->waiters->slot;
		remove_waiter(f->waiters);
		op->error = *err;
		if (err->st == VK_E_INVALID) name_position(op, slot);
		leave_all(e, op); /* its other texts go on for others and for the cache */
		end_op(e, op, t);
	}
	vk_flight_remove(e, f);
}

/* Rows that were committed and left the table between look-up and now are in LMDB: look again.
 * Called with the lock held, returns with it held. */
static void catch_up(struct vk_engine *e, struct vk_op *op)
{
	/* Each look takes as long as the misses are many, and commits go on meanwhile: after a few
	 * rounds rather buy a text twice than look for ever. */
	for (int round = 0; round < CATCH_UP_MAX && !op->no_cache; round++) {
		if (op->epoch == atomic_load(&e->epoch)) return;
		op->epoch = atomic_load(&e->epoch);
		pthread_mutex_unlock(&e->lock);
		struct vk_key_plan plans[VK_TENANT_SECRETS_MAX];
		make_plans(op, plans);
		read_slots(e, op, plans, op->tenant->secrets_n);
		pthread_mutex_lock(&e->lock);
	}
}

/* A landed row is in the journal and on its way into LMDB: as good as cached. Not for those who ask
 * for a fresh one; and what was fetched for such a one is not shown to others, because the row
 * that was stored first stays. */
static void take_landed(struct vk_op *op, struct vk_slot *s, const struct flight *f)
{
	const char *provider = op->provider;
	fill_slot(op, s, f);
	op->provider = provider; /* it was not asked on this one's behalf */
	s->from = VK_SLOT_HIT;
}

void vk_op_landed(struct vk_engine *e, struct vk_op *op)
{
	struct todo none = {0};
	vk_engine_lock(e);
	catch_up(e, op);
	for (size_t i = 0; i < op->slots_n; i++) {
		struct vk_slot *s = &op->slots[i];
		struct flight *f = s->done ? NULL : find_for(e, op, &s->key);
		if (!f || f->state != FLIGHT_LANDED) continue;
		take_landed(op, s, f);
		op->missing--;
	}
	vk_engine_unlock_do(e, &none);
}

/* Puts one missing slot into a flight. False: no memory. */
static bool join(struct vk_engine *e, struct vk_op *op, uint32_t slot)
{
	struct vk_slot *s = &op->slots[slot];
	struct flight *f = find_for(e, op, &s->key);
	if (f && f->state == FLIGHT_LANDED) {
		take_landed(op, s, f);
		return true;
	}
	s->from = f ? VK_SLOT_COALESCED : VK_SLOT_MISS;
	if (!f) f = flight_new(e, op, s);
	if (!f) return false;
	f->replace |= s->outlived;
	struct vk_waiter *w = &op->waiters[op->waiters_n++];
	*w = (struct vk_waiter){.op = op, .slot = slot};
	add_waiter(f, w);
	if (f->state == FLIGHT_QUEUED && op->interactive && !f->interactive) {
		vk_lane_remove(f->group, f); /* somebody is waiting at a screen now */
		f->interactive = true;
		vk_lane_push(f->group, f);
	}
	return true;
}

static void busy_error(struct vk_error *err)
{
	vk_fail_param(err, VK_E_BUSY, "queue_full", NULL,
		      "Too many inputs are waiting for the provider; try again shortly.");
	err->retry_after_ms = 1000;
}

void vk_op_start(struct vk_engine *e, struct vk_op *op, void (*done)(struct vk_op *op), void *arg)
{
	struct todo t = {0};
	op->done = done;
	op->arg = arg;
	op->waiters = vk_arena_calloc(op->arena, op->missing ? op->missing : 1, sizeof *op->waiters);
	vk_engine_lock(e);
	e->operations++;
	if (op->waiters) catch_up(e, op);
	bool ok = op->waiters != NULL;
	if (ok && e->queued + op->missing > e->queue_max) {
		busy_error(&op->error);
		end_op(e, op, &t);
		vk_engine_unlock_do(e, &t);
		return;
	}
	for (uint32_t i = 0; ok && i < op->slots_n; i++)
		if (!op->slots[i].done) ok = join(e, op, i);
	if (!ok) {
		leave_all(e, op);
		vk_fail(&op->error, VK_E_NOMEM, "Out of memory; try again shortly.");
		op->error.retry_after_ms = 1000;
		end_op(e, op, &t);
	} else if (!op->pending) {
		end_op(e, op, &t);
	}
	vk_plan(e, &t);
	vk_engine_unlock_do(e, &t);
}

bool vk_op_cancel(struct vk_engine *e, struct vk_op *op)
{
	struct todo t = {0};
	vk_engine_lock(e);
	bool won = !op->ended;
	if (won) {
		leave_all(e, op);
		op->ended = true;
		e->operations--;
	}
	vk_engine_unlock_do(e, &t);
	return won;
}

void vk_engine_kick(struct vk_engine *e)
{
	struct todo t = {0};
	vk_engine_lock(e);
	vk_plan(e, &t);
	vk_engine_unlock_do(e, &t);
}
