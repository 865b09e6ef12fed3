/*
 * The compute pool: a fixed number of threads that take jobs from one bounded queue.
 *
 * Properties: a job is a function and its argument, run once, on any of the threads, in
 * order of arrival but side by side. submit never blocks: a full queue is VK_E_BUSY and
 * the caller still owns the argument. Jobs do not wait for jobs.
 * Stopping: vk_pool_free() runs what is queued, then joins.
 */
#ifndef VK_BASE_POOL_H
#define VK_BASE_POOL_H

#include <stddef.h>

#include "base/status.h"

struct vk_pool;
typedef void vk_pool_fn(void *arg);

/* threads 0: one a core. NULL when threads cannot be had. */
struct vk_pool *vk_pool_new(unsigned threads, size_t queue_max, const char *name);
void vk_pool_free(struct vk_pool *p);
enum vk_status vk_pool_submit(struct vk_pool *p, vk_pool_fn *fn, void *arg);
unsigned vk_pool_threads(const struct vk_pool *p);
size_t vk_pool_queued(struct vk_pool *p);

/* Runs fn(arg, i) for i in [0, count) on the calling thread and as many idle pool threads as
 * help, and returns when all are done. Safe from inside a job: the caller does the work
 * itself when nobody is free. */
void vk_pool_for(struct vk_pool *p, size_t count, void (*fn)(void *arg, size_t i), void *arg);

#endif
