/*
 * One upstream call's life: build, send, judge, and then one of: land its rows, wait and try
 * again, go to another provider of the route, halve to find the input that is refused, fail.
 *
 * A batch belongs to whoever holds it: the planner, then the upstream thread (or the compute pool
 * for a local encoder and for large replies), one at a time. Rows are journalled before anybody is
 * told, and the flights stay findable until LMDB has them (struct landed).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "embed/bpe.h"
#include "embed/encoder.h"
#include "embed/engine_impl.h"
#include "simd/vec.h"

#define SECRET_FILE_MAX 16384

static void judge(void *arg);
static void send_again(void *arg, bool cancelled);

struct batch *vk_batch_new(struct vk_engine *e, struct group *g, const struct vk_hop *hop,
			   struct flight **flights, size_t n)
{
	struct batch *b = calloc(1, sizeof *b);
	if (!b) return NULL;
	b->e = e;
	b->group = g;
	b->hop = hop;
	b->flights = flights;
	b->n = n;
	vk_arena_init(&b->arena, VK_BATCH_ARENA_MAX);
	if (g) {
		g->batches++;
		b->call.space = g->space;
		b->call.role = g->role;
		b->call.params = g->params;
	}
	return b;
}

void vk_batch_free(struct batch *b)
{
	if (b->group) {
		b->group->batches--;
		vk_group_put(b->e, b->group);
	}
	if (b->budget && --b->budget->refs == 0) free(b->budget);
	if (b->registry) vk_registry_unref(b->registry);
	vk_buf_free(&b->xfer.reply);
	vk_arena_free(&b->arena);
	free(b->flights);
	free(b);
}

static void release_slot(struct batch *b)
{
	if (b->holds_slot) b->rt->in_flight--;
	b->holds_slot = false;
}

/* --- building and sending: no lock --- */

/* The secret is read anew for each call, so a rotated file is taken up without asking. */
static enum vk_status secret(struct batch *b, struct vk_bytes *out, struct vk_error *err)
{
	const struct vk_secret *s = &b->hop->provider->api_key;
	*out = VK_LIT("");
	switch (s->from) {
	case VK_SECRET_NONE:
		return VK_OK;
	case VK_SECRET_VALUE:
		*out = vk_bytes_of(s->value);
		return VK_OK;
	case VK_SECRET_CLIENT:
		if (b->group && b->group->bearer) *out = vk_bytes_of(b->group->bearer);
		return VK_OK;
	case VK_SECRET_FILE:
		break;
	}
	int fd = open(s->value, O_RDONLY | O_CLOEXEC);
	char *text = vk_arena_alloc(&b->arena, SECRET_FILE_MAX);
	ssize_t n = fd < 0 || !text ? -1 : read(fd, text, SECRET_FILE_MAX);
	if (fd >= 0) close(fd);
	if (n < 0)
		return vk_fail_param(err, VK_E_UPSTREAM, "secret_unreadable", NULL,
				     "The secret file of provider %s cannot be read.",
				     b->hop->provider->name);
	while (n && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' ')) n--;
	*out = (struct vk_bytes){text, (size_t)n};
	return VK_OK;
}

static enum vk_status build(struct batch *b, struct vk_error *err)
{
	const struct vk_provider *p = b->hop->provider;
	struct vk_call_item *items = (struct vk_call_item *)(void *)b->call.items;
	vk_arena_reset(&b->arena);
	if (!b->canary) {
		items = vk_arena_alloc(&b->arena, b->n * sizeof *items);
		if (!items) return vk_fail(err, VK_E_NOMEM, "out of memory");
		for (size_t i = 0; i < b->n; i++)
			items[i] = (struct vk_call_item){b->flights[i]->in.text,
							 b->flights[i]->in.tokens,
							 b->flights[i]->in.tokens_n};
		b->call.items = items;
	}
	b->call.n = b->n;
	b->call.provider = p;
	b->call.model = b->hop->model;
	memset(&b->wire, 0, sizeof b->wire);
	enum vk_status st = p->dialect->local ? VK_OK : secret(b, &b->call.bearer, err);
	if (!st && !p->dialect->local) st = p->dialect->build(&b->call, &b->arena, &b->wire, err);
	return st;
}

static void xfer_done(struct vk_xfer *x)
{
	struct batch *b = x->arg;
	if (x->reply.n <= VK_PARSE_INLINE_MAX || vk_pool_submit(b->e->pool, judge, b)) judge(b);
}

static void fail_all(struct batch *b, const struct vk_error *err);

/* While this holds, the upstream is there to be called: vk_engine_stop() waits for the last one out. */
static bool enter(struct vk_engine *e)
{
	atomic_fetch_add(&e->inside, 1);
	if (!e->stopping) return true;
	atomic_fetch_sub(&e->inside, 1);
	return false;
}

static void leave(struct vk_engine *e)
{
	atomic_fetch_sub(&e->inside, 1);
}

void vk_engine_stop(struct vk_engine *e)
{
	e->stopping = true;
	while (atomic_load(&e->inside)) usleep(500);
	vk_engine_kick(e); /* fails what is queued */
}

static void send_now(struct batch *b);

void vk_stopping_error(struct vk_error *err)
{
	vk_fail_param(err, VK_E_UNAVAILABLE, "shutting_down", NULL, "The server is shutting down.");
	err->retry_after_ms = 1000;
}

void vk_batch_send(struct batch *b)
{
	struct vk_engine *e = b->e;
	struct vk_error err;
	if (enter(e)) {
		send_now(b);
		leave(e);
	} else {
		vk_stopping_error(&err);
		fail_all(b, &err);
	}
}

static void build_failed(void *arg, bool cancelled)
{
	struct batch *b = arg;
	struct vk_error err = b->refused;
	(void)cancelled;
	fail_all(b, &err);
}

static void send_now(struct batch *b)
{
	const struct vk_provider *p = b->hop->provider;
	struct vk_error err;
	vk_buf_free(&b->xfer.reply);
	if (build(b, &err)) { /* by way of a timer: failing plans the next batch, which may fail like this */
		b->refused = err;
		vk_upstream_timer(b->e->upstream, 0, build_failed, b);
		return;
	}
	b->xfer = (struct vk_xfer){
		.url = b->wire.url,
		.headers = b->wire.headers,
		.body = b->wire.body,
		.proxy = p->proxy,
		.ca_file = p->ca_file,
		.cert_file = p->cert_file,
		.key_file = p->key_file,
		.private_ok = p->private_ok,
		.connect_timeout_ms = p->connect_timeout_ms,
		.timeout_ms = p->timeout_ms,
		.reply_bytes_max = p->reply_bytes_max,
		.host_connections_max = p->caps.concurrency,
		.done = xfer_done,
		.arg = b,
	};
	if (!p->dialect->local)
		vk_upstream_send(b->e->upstream, &b->xfer);
	else if (vk_pool_submit(b->e->pool, judge, b)) /* the pool's queue is full: a little later */
		vk_upstream_timer(b->e->upstream, vk_mono_ms() + 5, send_again, b);
}

static void send_again(void *arg, bool cancelled)
{
	struct batch *b = arg;
	struct vk_error err;
	if (!cancelled) {
		vk_batch_send(b);
		return;
	}
	vk_stopping_error(&err);
	fail_all(b, &err);
}

/* --- failing --- */

/* Ends the batch: its flights get the error, its place is free, the planner goes on. */
static void fail_all(struct batch *b, const struct vk_error *err)
{
	struct vk_engine *e = b->e;
	struct todo t = {0};
	if (b->canary) vk_canary_judge(b, NULL);
	vk_engine_lock(e);
	for (size_t i = 0; !b->canary && i < b->n; i++) vk_flight_fail(e, b->flights[i], err, &t);
	if (b->holds_slot && b->rt->breaker.probing) /* a probe that never went out decides nothing good */
		vk_breaker_failure(&b->rt->breaker, VK_FAULT_TRANSIENT, -1, vk_mono_ms());
	release_slot(b);
	vk_batch_free(b);
	vk_plan(e, &t);
	vk_engine_unlock_do(e, &t);
}

/* What a client is told when a call has failed for good. Our own credentials' failure is no
 * client's 401; the forwarded bearer's is. */
static void failure(const struct batch *b, const struct vk_verdict *v, struct vk_error *err)
{
	const char *who = b->hop->provider->name;
	bool own = b->hop->provider->api_key.from != VK_SECRET_CLIENT;
	const char *said = v->text[0] ? v->text : "no details";
	switch (v->fault) {
	case VK_FAULT_SPLIT:
	case VK_FAULT_INPUT:
		vk_fail_param(err, VK_E_INVALID, v->code[0] ? v->code : "provider_refused_input", "input",
			      "Provider %s refused the input: %s", who, said);
		err->no_retry = 1;
		break;
	case VK_FAULT_AUTH:
		if (own)
			vk_fail_param(err, VK_E_UPSTREAM, "provider_auth", NULL,
				      "Provider %s refused veckeep's credentials (401).", who);
		else
			vk_fail_param(err, VK_E_UNAUTHORIZED, "invalid_api_key", NULL,
				      "Provider %s refused the API key: %s", who, said);
		err->no_retry = 1;
		break;
	case VK_FAULT_BILLING:
		vk_fail_param(err, VK_E_RATE_LIMITED, v->code[0] ? v->code : "insufficient_quota", NULL,
			      "Provider %s refuses for lack of funds or quota: %s", who, said);
		err->no_retry = 1;
		break;
	case VK_FAULT_FATAL:
		vk_fail_param(err, VK_E_UPSTREAM, v->code[0] ? v->code : "provider_error", NULL,
			      "Provider %s failed: %s", who, said);
		err->no_retry = 1;
		break;
	default:
		vk_fail_param(err, b->xfer.status == 429 ? VK_E_RATE_LIMITED : VK_E_UPSTREAM,
			      b->xfer.status == 429 ? "rate_limit_exceeded" : "provider_unavailable",
			      NULL, "Provider %s did not answer after %u tries: %s", who,
			      b->attempt + 1, said);
		err->retry_after_ms = v->retry_after_ms > 0 && v->retry_after_ms <= VK_WAIT_MS_MAX
					      ? (int)v->retry_after_ms
					      : 1000;
	}
}

/* Lock held. Drops the flights that nobody waits for; true when none is left. */
static bool drop_lonely(struct batch *b)
{
	size_t kept = 0;
	for (size_t i = 0; i < b->n; i++) {
		if (b->flights[i]->waiters)
			b->flights[kept++] = b->flights[i];
		else
			vk_flight_remove(b->e, b->flights[i]);
	}
	b->n = kept;
	return kept == 0;
}

/* Lock held. Moves the batch to another hop; it keeps holding a place, at the new provider. */
static void change_hop(struct batch *b, const struct vk_hop *hop)
{
	release_slot(b);
	b->hop = hop;
	b->rt = vk_provider_rt(b->e, hop->provider);
	vk_breaker_take(&b->rt->breaker, vk_mono_ms());
	b->rt->in_flight++;
	b->holds_slot = true;
}

/* Back from waiting: may the call go now? */
static void retry_now(void *arg, bool cancelled)
{
	struct batch *b = arg;
	struct vk_engine *e = b->e;
	struct vk_error err;
	if (cancelled) {
		send_again(b, true);
		return;
	}
	vk_engine_lock(e);
	struct todo t = {0};
	uint64_t now_ms = vk_mono_ms();
	if (drop_lonely(b)) {
		vk_batch_free(b);
		vk_plan(e, &t);
		vk_engine_unlock_do(e, &t);
		return;
	}
	const struct vk_hop *other;
	if (vk_breaker_take(&b->rt->breaker, now_ms)) {
		b->rt->in_flight++;
		b->holds_slot = true;
	} else if ((other = vk_plan_other(e, b))) {
		change_hop(b, other);
	} else {
		uint64_t until_ms = b->rt->breaker.until_ms;
		vk_engine_unlock_do(e, &t);
		vk_fail_param(&err, VK_E_UNAVAILABLE, "provider_unavailable", NULL,
			      "Provider %s is not available now.", b->hop->provider->name);
		err.retry_after_ms = until_ms > now_ms ? (int)(until_ms - now_ms) : 1000;
		fail_all(b, &err);
		return;
	}
	vk_engine_unlock_do(e, &t);
	vk_batch_send(b);
}

/* Lock held. One refused input of n is found in 2 log2(n) calls; four times that leaves room for
 * several. */
static bool may_split(struct batch *b)
{
	if (!b->budget) {
		b->budget = calloc(1, sizeof *b->budget);
		if (!b->budget) return false;
		b->budget->refs = 1;
		b->budget->calls = 16;
		for (size_t n = b->n; n > 1; n /= 2) b->budget->calls += 8;
	}
	return b->budget->calls >= 2;
}

/* Halves the batch: the refused input is found in log2(n) steps, the others are embedded. */
static bool split(struct batch *b)
{
	struct vk_engine *e = b->e;
	size_t half = b->n / 2;
	struct flight **right = malloc((b->n - half) * sizeof *right);
	if (!right) return false;
	memcpy(right, b->flights + half, (b->n - half) * sizeof *right);
	vk_engine_lock(e);
	struct todo t = {0};
	struct batch *r = NULL;
	if (may_split(b)) r = vk_batch_new(e, b->group, b->hop, right, b->n - half);
	if (r) {
		vk_account_call(b->rt, b, false);
		b->rt->stats.calls_refused++;
		r->budget = b->budget;
		b->budget->refs++;
		b->budget->calls -= 2;
		r->interactive = b->interactive;
		r->attempt = b->attempt;
		r->rt = b->rt;
		r->rt->in_flight++; /* may pass the limit by one for a moment */
		r->holds_slot = true;
		b->n = half;
	}
	vk_engine_unlock_do(e, &t);
	if (!r) {
		free(right);
		return false;
	}
	vk_batch_send(r);
	vk_batch_send(b);
	return true;
}

/* A failed call: what now? Takes the batch over. */
static void failed(struct batch *b, const struct vk_verdict *v)
{
	struct vk_engine *e = b->e;
	struct todo t = {0};
	struct vk_error err;
	bool refused = v->fault == VK_FAULT_SPLIT || v->fault == VK_FAULT_INPUT;
	if (e->stopping) { /* cut off by ourselves: no word about the provider */
		vk_stopping_error(&err);
		fail_all(b, &err);
		return;
	}
	if (!b->canary && refused && b->n > 1 && split(b)) return;
	if (v->fault == VK_FAULT_AUTH && !b->auth_retried &&
	    b->hop->provider->api_key.from == VK_SECRET_FILE) {
		b->auth_retried = true;
		vk_batch_send(b); /* the secret is read again */
		return;
	}
	failure(b, v, &err);
	uint64_t now_ms = vk_mono_ms();
	vk_engine_lock(e);
	vk_account_call(b->rt, b, false);
	if (v->fault == VK_FAULT_TRANSIENT)
		b->rt->stats.calls_transient++;
	else
		b->rt->stats.calls_refused++;
	/* A refusal of one input says nothing about the provider's health. */
	if (refused)
		vk_breaker_success(&b->rt->breaker);
	else
		vk_breaker_failure(&b->rt->breaker, v->fault, v->retry_after_ms, now_ms);
	unsigned attempts_max = b->hop->provider->attempts_max;
	if (v->attempts_max && v->attempts_max < attempts_max) attempts_max = v->attempts_max;
	if (b->canary || refused || v->fault == VK_FAULT_NONE || b->attempt + 1 >= attempts_max) {
		vk_engine_unlock_do(e, &t);
		fail_all(b, &err);
		return;
	}
	const struct vk_hop *other = vk_plan_other(e, b);
	if (other) {
		b->attempt++;
		b->auth_retried = false;
		change_hop(b, other);
		vk_engine_unlock_do(e, &t);
		vk_batch_send(b);
		return;
	}
	int64_t delay_ms = v->fault == VK_FAULT_TRANSIENT
				   ? vk_retry_delay_ms(b->attempt, v->retry_after_ms, VK_WAIT_MS_MAX,
						       &e->rng)
				   : -1;
	if (delay_ms < 0) {
		vk_engine_unlock_do(e, &t);
		fail_all(b, &err);
		return;
	}
	b->attempt++;
	b->rt->stats.retries++;
	release_slot(b); /* while it waits, others may call */
	vk_plan(e, &t);
	vk_engine_unlock_do(e, &t);
	if (!enter(e)) {
		retry_now(b, true);
		return;
	}
	vk_upstream_timer(e->upstream, now_ms + (uint64_t)delay_ms, retry_now, b);
	leave(e);
}

/* --- landing --- */

/* Flights whose rows LMDB does not have yet. */
struct landed {
	struct vk_engine *e;
	size_t n;
	struct flight *flight[];
};

static void committed(void *arg, enum vk_status st)
{
	struct landed *l = arg;
	struct vk_engine *e = l->e;
	struct todo none = {0};
	(void)st; /* not stored: serving goes on, the next request buys it again */
	vk_engine_lock(e);
	for (size_t i = 0; i < l->n; i++) {
		if (l->flight[i]->state == FLIGHT_LANDED)
			vk_flight_remove(e, l->flight[i]);
		else
			l->flight[i]->committed = true;
	}
	atomic_fetch_add(&e->epoch, 1);
	vk_engine_unlock_do(e, &none);
	free(l);
}

static uint16_t flags_of(const struct flight *f)
{
	return (uint16_t)((f->truncated ? VK_CACHE_MAYBE_TRUNCATED : 0) |
			  (f->est_tokens ? VK_CACHE_EST_TOKENS : 0));
}

/* Marks the rows that were fetched anew although nothing was stored: they are the first, and are
 * shown to others like any other. */
static void find_first(struct batch *b, bool *first)
{
	struct vk_cache_read *r = NULL;
	float *row = NULL;
	for (size_t i = 0; i < b->n; i++) {
		struct flight *f = b->flights[i];
		struct vk_cache_key key = f->key;
		struct vk_cache_meta meta;
		if (!f->anew) continue;
		if (!row && !(row = vk_arena_alloc(&b->arena, f->dims * sizeof *row))) break;
		if (!r && vk_cachedb_read_begin(b->e->cache, &r)) break;
		vk_put_u32be(key.b, b->group->tenant->id);
		first[i] = vk_cachedb_get(r, &key, f->dims, row, &meta) == VK_E_NOT_FOUND;
	}
	if (r) vk_cachedb_read_end(r);
}

/* Journals what may be stored. True: the flights marked `stored` stay until committed() comes. */
static bool store(struct batch *b, const struct vk_answer *a, bool *stored)
{
	struct vk_engine *e = b->e;
	struct group *g = b->group;
	struct vk_cache_put *puts = calloc(b->n, sizeof *puts);
	struct landed *l = calloc(1, sizeof *l + b->n * sizeof *l->flight);
	bool *replace = calloc(b->n, sizeof *replace);
	size_t n = 0;
	uint32_t provider = b->hop->provider->num;
	int64_t now_ms = vk_wall_ms();
	bool *first = vk_arena_calloc(&b->arena, b->n, sizeof *first);
	if (!puts || !l || !replace || !first || vk_tenants_accept(e->tenants, g->tenant)) goto out;
	l->e = e;
	uint64_t epoch = atomic_load(&e->epoch);
	find_first(b, first);
	vk_engine_lock(e); /* `store` and `replace` are written by whoever joins */
	bool settled = epoch == atomic_load(&e->epoch); /* no row went from the table to LMDB meanwhile */
	for (size_t i = 0; i < b->n; i++) {
		if (settled && first[i] && !vk_flight_other_landed(e, b->flights[i])) b->flights[i]->anew = false;
		stored[i] = b->flights[i]->store;
		replace[i] = b->flights[i]->replace;
		vk_flight_repool(b->flights[i], g->tenant->id); /* accepted just now, perhaps */
	}
	struct todo none = {0};
	vk_engine_unlock_do(e, &none);
	for (size_t i = 0; i < b->n; i++) {
		struct flight *f = b->flights[i];
		bool finite;
		if (!stored[i]) continue;
		struct vk_cache_put *p = &puts[n];
		p->key = f->key;
		p->row = a->rows + i * f->dims;
		p->replace = replace[i];
		p->has_provenance = true;
		vk_key_row(&g->tenant->secret[0], p->row, f->dims, p->provenance);
		p->meta = (struct vk_cache_meta){
			.flags = flags_of(f),
			.role = g->role->num,
			.dims = f->dims,
			.input_len = (uint32_t)vk_input_len(&f->in),
			.tokens = f->tokens,
			.created_ms = now_ms,
			.provider = provider,
			.norm = (float)vk_vec_norm(vk_cpu_best(), p->row, f->dims, &finite),
		};
		l->flight[n++] = f;
	}
	l->n = n;
	if (n && !vk_cachedb_put(e->cache, puts, n, committed, l)) l = NULL;
out:
	free(puts);
	free(replace);
	bool kept = l == NULL && n > 0;
	free(l);
	return kept;
}

/* Billed tokens where the provider says nothing: the tokenizer's count, or a guess; marked so. */
static uint32_t guess_tokens(const struct vk_space *s, const struct vk_input *in)
{
	if (!vk_input_is_text(in)) return (uint32_t)in->tokens_n;
	const struct vk_bpe *bpe = s->tokenizer == VK_TOKENIZER_CL100K ? vk_bpe_cl100k() : NULL;
	return (uint32_t)(bpe ? vk_bpe_count(bpe, in->text) : in->text.n / 4 + 1);
}

/* Fills the flights with their share of the answer; nobody is told yet. */
static bool fill(struct batch *b, const struct vk_answer *a)
{
	const struct vk_space *s = b->group->space;
	for (size_t i = 0; i < b->n; i++) {
		struct flight *f = b->flights[i];
		if (!f->row) f->row = malloc(f->dims * sizeof *f->row);
		if (!f->row) return false;
		memcpy(f->row, a->rows + i * f->dims, f->dims * sizeof *f->row);
		f->tokens = a->tokens_total ? a->tokens[i] : guess_tokens(s, &f->in);
		f->est_tokens = !a->tokens_total || (!a->tokens_exact && b->n > 1);
		f->truncated = (a->truncated && a->truncated[i]) ||
			       (a->tokens_exact && s->tokens_max && f->tokens >= s->tokens_max);
		f->provider = b->rt->name;
	}
	return true;
}

static void land(struct batch *b, const struct vk_answer *a)
{
	struct vk_engine *e = b->e;
	struct todo t = {0};
	bool *stored = vk_arena_calloc(&b->arena, b->n, sizeof *stored);
	if (!stored || !fill(b, a)) {
		struct vk_error err;
		vk_fail(&err, VK_E_NOMEM, "Out of memory; try again shortly.");
		err.retry_after_ms = 1000;
		fail_all(b, &err);
		return;
	}
	bool kept = store(b, a, stored);
	uint64_t us = b->xfer.ended_us - b->xfer.started_us, bought = 0;
	for (size_t i = 0; i < b->n; i++) {
		if (i % VK_LAND_CHUNK == 0) {
			if (i) vk_engine_unlock_do(e, &t);
			vk_engine_lock(e);
		}
		struct flight *f = b->flights[i];
		bought += f->tokens;
		for (struct vk_waiter *w = f->waiters; w; w = w->next)
			if (us > w->op->upstream_us) w->op->upstream_us = us;
		vk_flight_land(e, f, &t);
		if (!kept || !stored[i] || f->committed) vk_flight_remove(e, f);
	}
	vk_breaker_success(&b->rt->breaker);
	vk_account_call(b->rt, b, true);
	b->rt->stats.tokens += bought;
	vk_account_bought(e, b->group->space, bought);
	release_slot(b);
	vk_batch_free(b);
	vk_plan(e, &t);
	vk_engine_unlock_do(e, &t);
}

/* --- judging --- */

/* The local encoder, on a thread of the compute pool. */
static enum vk_status encode(struct batch *b, struct vk_answer *a, struct vk_error *err)
{
	size_t dims = b->call.space->dims;
	struct vk_encoder_text *texts = vk_arena_calloc(&b->arena, b->n, sizeof *texts);
	a->rows = vk_arena_alloc(&b->arena, b->n * dims * sizeof *a->rows);
	a->tokens = vk_arena_calloc(&b->arena, b->n, sizeof *a->tokens);
	a->truncated = vk_arena_calloc(&b->arena, b->n, sizeof *a->truncated);
	if (!texts || !a->rows || !a->tokens || !a->truncated)
		return vk_fail(err, VK_E_NOMEM, "out of memory");
	for (size_t i = 0; i < b->n; i++) {
		texts[i].text = b->call.items[i].text;
		texts[i].prefix = vk_bytes_of(b->call.role->prefix);
	}
	b->xfer.started_us = vk_mono_us();
	enum vk_status st = vk_encoder_run(b->hop->provider->encoder, b->e->pool, texts, b->n,
					   a->rows, err);
	b->xfer.ended_us = vk_mono_us();
	for (size_t i = 0; !st && i < b->n; i++) {
		a->tokens[i] = texts[i].tokens;
		a->tokens_total += texts[i].tokens;
		a->truncated[i] = texts[i].truncated;
	}
	a->tokens_exact = true;
	return st;
}

/* On the upstream thread or a pool thread: the reply is here. */
static void judge(void *arg)
{
	struct batch *b = arg;
	const struct vk_dialect *d = b->hop->provider->dialect;
	struct vk_verdict v = {.retry_after_ms = -1};
	struct vk_answer a = {0};
	struct vk_error err = {0};
	enum vk_status st = VK_OK;
	if (d->local) {
		st = encode(b, &a, &err);
	} else {
		vk_retry_judge(&b->xfer, &v);
		if (v.fault == VK_FAULT_NONE)
			st = d->parse(&b->call, vk_buf_bytes(&b->xfer.reply), b->xfer.tokens_header,
				      &b->arena, &a, &v, &err);
	}
	if (st && v.fault == VK_FAULT_NONE) { /* a reply that cannot be believed: nothing is cached */
		v.fault = VK_FAULT_FATAL;
		snprintf(v.text, sizeof v.text, "%.*s", (int)sizeof v.text - 1, err.text);
	}
	if (v.fault != VK_FAULT_NONE) {
		/* Also what a 200 says is said by somebody who has seen the credentials. */
		vk_retry_redact(b->wire.headers, v.text);
		vk_retry_redact(b->wire.headers, v.code);
		vk_log(VK_LOG_WARN, "provider %s: call of %zu inputs failed: status %d, %s", b->rt->name,
		       b->n, b->xfer.status, v.text[0] ? v.text : b->xfer.error);
		failed(b, &v);
		return;
	}
	if (!b->canary) {
		land(b, &a);
		return;
	}
	vk_canary_judge(b, &a);
	struct todo t = {0};
	vk_engine_lock(b->e);
	b->rt->stats.tokens += a.tokens_total;
	vk_account_bought(b->e, b->call.space, a.tokens_total);
	vk_breaker_success(&b->rt->breaker);
	vk_account_call(b->rt, b, true);
	release_slot(b);
	struct vk_engine *e = b->e;
	vk_batch_free(b);
	vk_plan(e, &t);
	vk_engine_unlock_do(e, &t);
}
