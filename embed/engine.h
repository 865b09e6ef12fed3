/*
 * The exact cache in front of the providers: look-up, single-flight, batches, store.
 *
 * Model. A request is an operation (struct vk_op) over n inputs. vk_op_lookup() keys them, folds
 * duplicates and reads what the cache holds: no lock, one read transaction, on the caller's
 * thread. What is missing joins flights: one flight a key, whoever asks; a flight that is new
 * queues in its group (one space, role, parameters, pool, credential: they never share a call) in
 * one of two lanes, and the planner cuts batches from groups for providers that have room. So
 * micro-batching needs no timer: what queues behind running calls goes in the next one.
 *
 * A reply is judged, validated, stored (journalled) and only then handed to the waiting
 * operations; the flight stays findable until LMDB has committed its row, so that no text is
 * bought twice in between. An operation ends once: answered, failed, or cancelled (client gone,
 * deadline); cancelling never touches a flight that others wait for, and drops one that was not
 * sent and has nobody left.
 *
 * Locks: engine->lock guards flights, groups, lanes and operations' waiting state; it is held for
 * short list work only, never while building or parsing bodies, reading LMDB or calling back.
 * Order: engine->lock before nothing; callbacks are made with no lock held.
 *
 * Roads not taken: a flight a request (a batch of 64 with 63 in the air would buy 63 again); a
 * timer for gathering batches (adds its length to every miss); waiting for the LMDB commit before
 * replying (220 us against the journal's 17).
 */
#ifndef VK_EMBED_ENGINE_H
#define VK_EMBED_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/pool.h"
#include "base/status.h"
#include "embed/key.h"
#include "embed/registry.h"
#include "embed/retry.h"
#include "embed/tenant.h"
#include "embed/upstream.h"
#include "store/cachedb.h"
#include "store/catalog.h"

struct vk_engine;

struct vk_engine_opts {
	struct vk_cachedb *cache;
	struct vk_catalog *catalog;
	struct vk_tenants *tenants;
	struct vk_upstream *upstream;
	struct vk_pool *pool;   /* the compute pool: encoder, large replies */
	uint64_t seed;          /* jitter, weights */
	size_t queue_max;       /* inputs waiting in all lanes; 0: 200,000. Past it: 503 */
};
enum vk_status vk_engine_new(const struct vk_engine_opts *opts, struct vk_engine **out);
/* No call goes out any more; what comes back fails with a 503. Then stop the upstream, then the pool. */
void vk_engine_stop(struct vk_engine *e);
/* Call after vk_upstream_stop() and with the pool idle: no callback may be under way. */
void vk_engine_free(struct vk_engine *e);
/* Tells the planner that providers changed, so what waits is planned anew. */
void vk_engine_kick(struct vk_engine *e);

enum vk_slot_from { VK_SLOT_MISS, VK_SLOT_HIT, VK_SLOT_COALESCED };

struct vk_slot { /* one distinct input of an operation */
	struct vk_input in;
	struct vk_cache_key key;
	float *row;              /* native dims; inside op->rows */
	uint32_t tokens;
	uint8_t from;            /* enum vk_slot_from */
	bool done, truncated, est_tokens;
	bool outlived;           /* a row is stored, past its space's TTL */
};

struct vk_waiter; /* engine.c's: an operation's place in a flight */

struct vk_op {
	/* The question: the caller's, all of it alive until the operation has ended. */
	struct vk_arena *arena;
	struct vk_registry *registry;
	const struct vk_space *space;
	const struct vk_role *role;
	const struct vk_tenant *tenant;
	struct vk_bytes bearer;      /* the client's own, for {"from": "client"}; else empty */
	const char *params;          /* RFC 8785 JSON object, or NULL */
	const struct vk_input *inputs;
	size_t n;
	bool no_cache;               /* fetch anew; what is stored stays */
	bool no_store;               /* do not store on this request's behalf */
	bool interactive;            /* the lane that goes first */
	int64_t max_age_ms;          /* rows older are fetched anew; -1: any age */
	int64_t now_ms;              /* wall clock */

	/* The answer. */
	struct vk_slot *slots;       /* distinct inputs in order of first sight */
	size_t slots_n;
	uint32_t *slot_of;           /* n: input -> slot */
	float *rows;                 /* slots_n x space->dims */
	size_t missing;              /* slots without a row after vk_op_lookup() */
	struct vk_error error;       /* st != VK_OK: failed */
	uint64_t billed_tokens;      /* bought by calls made for this operation */
	const char *provider;        /* the last one that answered for it, or NULL; registry memory */
	uint64_t upstream_us;        /* longest call waited for */

	/* The engine's. */
	void (*done)(struct vk_op *op);
	void *arg;
	struct vk_waiter *waiters;
	size_t waiters_n, pending;
	bool ended;
	uint64_t epoch;
};

/* Keys, folds, reads the cache. Fills slots, slot_of, rows, missing. VK_E_NOMEM only. */
enum vk_status vk_op_lookup(struct vk_engine *e, struct vk_op *op);
/* Takes rows that have landed but are not yet in LMDB: for those who will not fetch (only-if-cached,
 * offline); vk_op_start() does so by itself. */
void vk_op_landed(struct vk_engine *e, struct vk_op *op);
/* Fetches what is missing. done(op) is called exactly once, with no lock held, on any thread,
 * perhaps before this returns, unless vk_op_cancel() wins. The inputs' bytes are copied. */
void vk_op_start(struct vk_engine *e, struct vk_op *op, void (*done)(struct vk_op *op), void *arg);
/* True: the operation is ended by this call, done will not be called, nothing in the engine
 * points at it any more. False: it has ended or is ending: done is or will be called. */
bool vk_op_cancel(struct vk_engine *e, struct vk_op *op);

/* Logical tokens of the whole answer; and how inputs (not slots) were met. */
struct vk_op_counts {
	uint64_t hits, misses, coalesced;
	uint64_t logical_tokens, billed_tokens, saved_tokens;
};
void vk_op_counts(const struct vk_op *op, struct vk_op_counts *c);
/* Adds an ended operation to the accounts (usage, metrics). */
void vk_engine_account(struct vk_engine *e, const struct vk_op *op);

/* What the engine knows, for /metrics, /v1/providers, /v1/usage. */
struct vk_provider_stats {
	const char *name;
	enum vk_breaker_state breaker;
	uint32_t in_flight, limit;
	uint64_t queued;                 /* inputs waiting in groups that route here */
	uint64_t calls, calls_ok, calls_transient, calls_refused, retries, inputs, tokens;
	uint64_t latency_us_sum;         /* of calls_ok */
	uint64_t bucket[16];             /* latency histogram: <= 2^i ms */
};
struct vk_space_stats {
	const char *id;
	uint64_t requests, hits, misses, coalesced, errors;
	uint64_t logical_tokens, billed_tokens, saved_tokens;
	uint64_t billed_micros, saved_micros; /* money, micro-units of the space's currency */
};
void vk_engine_provider_stats(struct vk_engine *e, void (*fn)(void *arg, const struct vk_provider_stats *s),
			      void *arg);
void vk_engine_space_stats(struct vk_engine *e, void (*fn)(void *arg, const struct vk_space_stats *s),
			   void *arg);
struct vk_engine_gauges {
	uint64_t flights, queued_inputs, operations, landed_bytes;
};
void vk_engine_gauges(struct vk_engine *e, struct vk_engine_gauges *g);

/* Canary verdict of a provider in a space: for /v1/providers. cosine < -1: not tried yet. */
enum vk_canary_state { VK_CANARY_NONE, VK_CANARY_PENDING, VK_CANARY_OK, VK_CANARY_FAILED };
enum vk_canary_state vk_engine_canary(struct vk_engine *e, const struct vk_space *s,
				      const struct vk_provider *p, float *cosine);

/* Writes the usage counters to the catalog; the server calls it each minute and at the end. */
void vk_engine_flush_usage(struct vk_engine *e, int64_t now_ms);

#endif
