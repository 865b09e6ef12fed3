/*
 * One word says everything: `ticket` = loop number << 32 | parts << 16 | next part. Taking a
 * part is one compare-and-swap on it, so a helper that dozed through a loop cannot take a part
 * of an old one: its expected word no longer matches. `done` counts finished parts; the leader
 * waits for it and only then writes the next loop's function.
 */
#include "embed/encoder/team.h"

#include <assert.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "simd/cpu.h"

#define SPINS_BEFORE_YIELD 2000 /* about 50 us: a step of one short text */
#define YIELDS_BEFORE_LEAVE 200

struct vk_team {
	_Alignas(64) _Atomic uint64_t ticket;
	_Alignas(64) _Atomic uint32_t done;
	_Atomic uint32_t closed;
	_Atomic unsigned refs; /* leader and helpers; the last one frees */
	unsigned size;
	void (*_Atomic fn)(void *arg, size_t i);
	void *_Atomic arg;
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static void put(struct vk_team *t)
{
	if (atomic_fetch_sub(&t->refs, 1) == 1) free(t);
}

/* Takes and does one part; false when none is left. The function is read before the ticket is
 * taken and used only if that succeeds: then it belongs to the same loop. */
static int do_part(struct vk_team *t)
{
	uint64_t ticket = atomic_load(&t->ticket);
	for (;;) {
		uint32_t parts = (uint32_t)(ticket >> 16) & 0xffff,
			 next = (uint32_t)ticket & 0xffff;
		if (next >= parts) return 0;
		void (*fn)(void *, size_t) = atomic_load(&t->fn);
		void *arg = atomic_load(&t->arg);
		if (atomic_compare_exchange_weak(&t->ticket, &ticket, ticket + 1)) {
			fn(arg, next);
			atomic_fetch_add(&t->done, 1);
			return 1;
		}
	}
}

static void help(void *arg)
{
	struct vk_team *t = arg;
	unsigned idle = 0;
	while (!atomic_load(&t->closed) && idle < SPINS_BEFORE_YIELD + YIELDS_BEFORE_LEAVE) {
		if (do_part(t)) {
			idle = 0;
			continue;
		}
		if (++idle < SPINS_BEFORE_YIELD) pause_cpu();
		else sched_yield();
	}
	put(t);
}

struct vk_team *vk_team_open(struct vk_pool *pool, unsigned helpers_max)
{
	unsigned cores = vk_cpu_cores();
	if (!pool || cores < 2) return NULL;
	unsigned helpers = vk_pool_threads(pool);
	if (helpers > helpers_max) helpers = helpers_max;
	if (helpers > cores - 1) helpers = cores - 1;
	if (!helpers) return NULL;
	struct vk_team *t = aligned_alloc(64, (sizeof *t + 63) / 64 * 64);
	if (!t) return NULL;
	*t = (struct vk_team){.size = 1};
	atomic_store(&t->refs, 1);
	for (unsigned i = 0; i < helpers; i++) {
		atomic_fetch_add(&t->refs, 1);
		if (vk_pool_submit(pool, help, t)) {
			atomic_fetch_sub(&t->refs, 1);
			break;
		}
		t->size++;
	}
	return t;
}

void vk_team_close(struct vk_team *t)
{
	if (!t) return;
	atomic_store(&t->closed, 1);
	put(t);
}

unsigned vk_team_size(const struct vk_team *t) { return t ? t->size : 1; }

void vk_team_for(struct vk_team *t, size_t count, void (*fn)(void *arg, size_t i), void *arg)
{
	assert(count <= VK_TEAM_PARTS_MAX);
	if (!t || t->size == 1 || count < 2) {
		for (size_t i = 0; i < count; i++) fn(arg, i);
		return;
	}
	/* No part of the last loop is left or running, so nobody uses what is written here; a
	 * helper that reads it half new will fail to take a ticket. */
	uint64_t loop = (atomic_load(&t->ticket) >> 32) + 1;
	atomic_store(&t->done, 0);
	atomic_store(&t->fn, fn);
	atomic_store(&t->arg, arg);
	atomic_store(&t->ticket, loop << 32 | (uint64_t)count << 16);
	while (do_part(t)) continue;
	for (unsigned spins = 0; atomic_load(&t->done) != count; spins++)
		if (spins < SPINS_BEFORE_YIELD) pause_cpu();
		else sched_yield();
}
