/*
 * A few threads on one text: a parallel loop whose start and end cost under a microsecond, for
 * steps of some 20 to 500 us (base/pool.h's loop sleeps and wakes, which costs more than such a step).
 *
 * The leader calls vk_team_for() again and again; helpers borrowed from the pool spin between
 * the calls and leave when the team closes, or when nothing has come for a while. The leader
 * never waits for a helper to come: it takes parts itself until none is left, and then waits
 * only for parts that a helper has already begun. So a busy pool costs nothing but the help.
 */
#ifndef VK_EMBED_ENCODER_TEAM_H
#define VK_EMBED_ENCODER_TEAM_H

#include <stddef.h>

#include "base/pool.h"

struct vk_team;

/* NULL (no pool, one core, no memory) is a team of the caller alone: pass it on as it is. */
struct vk_team *vk_team_open(struct vk_pool *pool, unsigned helpers_max);
void vk_team_close(struct vk_team *t);

/* How many threads may share a loop: 1 for NULL. */
unsigned vk_team_size(const struct vk_team *t);

/* fn(arg, i) for i in [0, count), side by side; returns when all are done. Leader only.
 * count is at most VK_TEAM_PARTS_MAX. */
#define VK_TEAM_PARTS_MAX 4096
void vk_team_for(struct vk_team *t, size_t count, void (*fn)(void *arg, size_t i), void *arg);

#endif
