/*
 * Searches that are over before a thread of the pool would have begun them.
 *
 * To the pool and back are two wake-ups and two changes of what the HTTP thread polls: as much as a search of a warm index
 * takes. So a plain search (one query by vector, no filter, nothing to embed) runs on the HTTP thread when such searches of its
 * collection's vector took little lately, wherever they ran. One that takes long, because its pages are cold or its index went, sends those
 * that follow to the pool until they are quick again; nothing is known after a start, and then it is the pool's, too.
 *
 * Not taken: judging by the collection's size (what counts is whether its pages are in memory); all on HTTP threads (a scan of
 * seconds would hold every connection that the thread has).
 *
 * Threads: any; a place of the table is one atomic, and a lost update costs nothing but a worse guess.
 */
#include <limits.h>

#include "base/clock.h"
#include "server/qdrant_internal.h"

#define LIGHT_US 400 /* a connection beside it may wait so long */
#define KEEP 8       /* a new one counts for an eighth */

static atomic_uint *lately_of(const struct vk_qd *q)
{
	uint64_t hash = ((uint64_t)(uintptr_t)q->c ^ (uint64_t)q->plain << 48) * 0x9e3779b97f4a7c15u;
	return &q->app->light_us[hash >> 56];
}

bool vk_qd_is_light(const struct vk_qd *q)
{
	if (!q->plain || q->texts) return false;
	unsigned us = atomic_load_explicit(lately_of(q), memory_order_relaxed);
	return us && us <= LIGHT_US;
}

static void note(atomic_uint *lately, uint64_t us)
{
	unsigned old = atomic_load_explicit(lately, memory_order_relaxed);
	uint64_t now = old ? (old * (uint64_t)(KEEP - 1) + us + KEEP - 1) / KEEP : us;
	atomic_store_explicit(lately, now > UINT_MAX ? UINT_MAX : now ? (unsigned)now : 1, memory_order_relaxed);
}

void vk_qd_work(struct vk_qd *q)
{
	atomic_uint *lately = q->plain ? lately_of(q) : NULL;
	uint64_t began = lately ? vk_mono_us() : 0;
	q->work(q); /* q may be gone */
	if (lately) note(lately, vk_mono_us() - began);
}
