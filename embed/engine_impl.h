/*
 * The engine's insides, shared by its files alone: engine.c (operations, look-up), planner.c
 * (groups, lanes, which provider, cutting batches), batch.c (one call's life), canary.c (do two
 * providers agree), account.c (what it cost). Fields are guarded by engine->lock unless they say
 * otherwise.
 */
#ifndef VK_EMBED_ENGINE_IMPL_H
#define VK_EMBED_ENGINE_IMPL_H

#include <pthread.h>

#include "embed/dialect.h"
#include "embed/engine.h"

/* The engine's maxima, in one list. */
#define VK_BATCH_ITEMS_MAX 2048             /* inputs a call, whatever a provider allows */
#define VK_BATCH_BYTES_MAX ((size_t)8 << 20)/* text bytes a call */
#define VK_BATCH_ARENA_MAX ((size_t)1 << 30)
#define VK_QUEUE_INPUTS_MAX 200000
#define VK_PARSE_INLINE_MAX 65536           /* larger replies are parsed on the compute pool */
#define VK_LAND_CHUNK 64                    /* flights handed over between two unlocks */
#define VK_WAIT_MS_MAX 30000                /* a provider that asks for more is not waited for */
#define VK_BACKOFF_BASE_MS 250
#define VK_BACKOFF_CAP_MS 8000

enum flight_state { FLIGHT_QUEUED, FLIGHT_SENT, FLIGHT_LANDED };

struct vk_waiter {
	struct flight *flight; /* NULL: not waiting any more */
	struct vk_op *op;
	uint32_t slot;
	struct vk_waiter *prev, *next; /* the flight's list */
};

/* One text on its way: from the first who asks until LMDB has the row. */
struct flight {
	struct flight *hash_next;
	struct vk_cache_key key;
	enum flight_state state;
	bool interactive; /* its lane */
	bool store;       /* some who joined lets it be stored */
	bool anew;        /* fetched for one who wanted no cached row: not shown to others */
	bool replace;     /* the stored row has outlived its TTL */
	bool committed;   /* the writer was faster than the hand-over */
	struct group *group;          /* while queued or sent */
	struct flight *prev, *next;   /* its lane's list, while queued */
	struct vk_waiter *waiters;
	struct vk_op *owner;          /* whose account the call is on; NULL when gone */
	float *row;                   /* landed: owned, dims components */
	uint32_t dims, tokens;
	bool truncated, est_tokens;
	const char *provider;         /* kept alive by the engine's provider table */
	struct vk_input in;           /* points at the copy below */
	size_t weight_tokens, weight_bytes; /* estimates for the planner */
	_Alignas(8) char copy[];
};

struct lane {
	struct flight *head, *tail;
	size_t n;
};
enum { LANE_INTERACTIVE, LANE_BULK, LANES };

/* Flights that may share a call. */
struct group {
	struct group *next;
	struct vk_registry *registry; /* a reference */
	const struct vk_space *space;
	const struct vk_role *role;
	const struct vk_tenant *tenant;
	char *params, *bearer;        /* owned; NULL = none */
	bool tokens;                  /* kind: the two never share a call either */
	struct lane lane[LANES];
	unsigned batches;             /* calls under way */
	uint64_t served;              /* turn of the last batch: who was served longest ago is next */
	uint64_t waits_in_pass;       /* the planner's pass that found no provider with room */
};

struct canary {
	struct canary *next;
	uint32_t space;
	uint64_t definition;          /* of the hop: another address or model is another canary */
	enum vk_canary_state state;
	float cosine;
	uint64_t retry_ms;            /* monotonic: not before, after a try that told nothing */
	int64_t checked_ms;           /* wall */
};

/* What is remembered of a provider across registries. Never freed before the engine. */
struct provider_rt {
	struct provider_rt *next;
	char *name;
	struct vk_breaker breaker;
	uint32_t in_flight, limit;
	struct canary *canaries;
	struct vk_provider_stats stats;
};

struct space_rt {
	struct space_rt *next;
	uint32_t num;
	char *id;
	struct vk_space_stats stats;  /* since start; usage is flushed as differences */
	struct vk_space_stats flushed;
	int64_t price_micros;         /* a million tokens, -1 unknown */
	double billed_frac, saved_frac;
};

/* How many calls the search for refused inputs may still make: a provider that refuses everything
 * (a wrong model name, say) must not be asked once an input. Guarded by the engine's lock. */
struct split_budget {
	unsigned refs, calls;
};

struct batch {
	struct batch *next;
	struct vk_engine *e;
	struct group *group;          /* NULL for a canary */
	struct vk_registry *registry; /* a reference, for canaries (a group holds its own) */
	const struct vk_hop *hop;
	struct provider_rt *rt;
	struct flight **flights;      /* n */
	struct canary *canary;
	struct split_budget *budget;  /* shared by the parts of a batch that was halved; NULL: whole */
	bool interactive, auth_retried, holds_slot;
	unsigned attempt;
	struct vk_call call;
	struct vk_arena arena;        /* wire, secret, answer */
	struct vk_wire wire;
	struct vk_xfer xfer;
	struct vk_error refused;      /* why it could not be built */
	size_t n;
};

struct vk_engine {
	struct vk_cachedb *cache;
	struct vk_catalog *catalog;
	struct vk_tenants *tenants;
	struct vk_upstream *upstream;
	struct vk_pool *pool;
	_Atomic bool stopping;
	_Atomic unsigned inside;      /* threads that may be calling the upstream */
	_Atomic uint64_t epoch;       /* counts flights that left the table after a commit */
	size_t queue_max;
	pthread_mutex_t lock;
	uint64_t rng;
	struct flight **table;        /* by key; table_n a power of two */
	size_t table_n, flights;
	struct group *groups;
	size_t queued;
	uint64_t passes, served;      /* the planner's counters */
	uint64_t operations, landed_bytes;
	struct provider_rt *providers;
	struct space_rt *spaces;
};

/* What a locked section leaves to do once the lock is gone. */
struct todo {
	struct vk_op *ended;          /* linked through op->arg_next in engine.c */
	struct batch *send;
};

/* engine.c */
void vk_engine_lock(struct vk_engine *e);
void vk_engine_unlock_do(struct vk_engine *e, struct todo *t); /* unlocks, then sends and calls back */
struct flight *vk_flight_find(struct vk_engine *e, const struct vk_cache_key *key);
void vk_flight_remove(struct vk_engine *e, struct flight *f);  /* from the table, and frees it */
void vk_flight_repool(struct flight *f, uint32_t pool);        /* its pool has got its real id */
/* Is there another flight of this key whose row has landed? Lock held. */
bool vk_flight_other_landed(struct vk_engine *e, const struct flight *f);
void vk_flight_land(struct vk_engine *e, struct flight *f, struct todo *t);
void vk_flight_fail(struct vk_engine *e, struct flight *f, const struct vk_error *err,
		    struct todo *t);

/* planner.c */
struct group *vk_group_get(struct vk_engine *e, const struct vk_op *op, bool tokens);
void vk_group_put(struct vk_engine *e, struct group *g); /* frees it when nothing is left in it */
void vk_lane_push(struct group *g, struct flight *f);
void vk_lane_remove(struct group *g, struct flight *f);
struct provider_rt *vk_provider_rt(struct vk_engine *e, const struct vk_provider *p);
void vk_plan(struct vk_engine *e, struct todo *t);
/* The hop that a failed batch may go to instead of its own; NULL: none that is ready now. */
const struct vk_hop *vk_plan_other(struct vk_engine *e, const struct batch *b);

/* batch.c */
struct batch *vk_batch_new(struct vk_engine *e, struct group *g, const struct vk_hop *hop,
			   struct flight **flights, size_t n);
void vk_batch_free(struct batch *b); /* lock held: drops its group's count */
void vk_batch_send(struct batch *b); /* no lock */
void vk_stopping_error(struct vk_error *err);

/* canary.c */
struct canary *vk_canary_get(struct vk_engine *e, struct provider_rt *rt, const struct vk_space *s,
			     const struct vk_hop *hop);
/* May this hop serve its space? Starts the check when it is due (unless t is NULL). */
bool vk_canary_allows(struct vk_engine *e, struct vk_registry *reg, const struct vk_space *s,
		      size_t hop, uint64_t now_ms, bool *pending, struct todo *t);
void vk_canary_judge(struct batch *b, const struct vk_answer *a); /* no lock; a NULL: the call failed */

/* account.c */
struct space_rt *vk_space_rt(struct vk_engine *e, const struct vk_space *s);
void vk_account_bought(struct vk_engine *e, const struct vk_space *s, uint64_t tokens);
void vk_account_call(struct provider_rt *rt, const struct batch *b, bool ok);
int64_t vk_money_micros(const struct vk_price *p, uint64_t tokens, double *frac);

#endif
