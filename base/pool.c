/* Threads, one ring of jobs, and a parallel loop whose caller always works along. */
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "simd/cpu.h"

struct job {
	vk_pool_fn *fn;
	void *arg;
};

struct vk_pool {
	pthread_mutex_t lock; /* guards the ring and stopping */
	pthread_cond_t work;
	struct job *ring;
	size_t cap, head, count;
	int stopping;
	unsigned threads;
	char name[16];
	pthread_t thread[];
};

static void *run(void *arg)
{
	struct vk_pool *p = arg;
	prctl(PR_SET_NAME, p->name);
	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (!p->count && !p->stopping) pthread_cond_wait(&p->work, &p->lock);
		if (!p->count) break;
		struct job j = p->ring[p->head];
		p->head = (p->head + 1) % p->cap;
		p->count--;
		pthread_mutex_unlock(&p->lock);
		j.fn(j.arg);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

struct vk_pool *vk_pool_new(unsigned threads, size_t queue_max, const char *name)
{
	if (!threads) threads = vk_cpu_cores();
	struct vk_pool *p = calloc(1, sizeof *p + threads * sizeof p->thread[0]);
	if (!p) return NULL;
	p->cap = queue_max ? queue_max : 1;
	p->ring = calloc(p->cap, sizeof *p->ring);
	if (!p->ring) {
		free(p);
		return NULL;
	}
	for (size_t i = 0; name && name[i] && i + 1 < sizeof p->name; i++) p->name[i] = name[i];
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	for (; p->threads < threads; p->threads++)
		if (pthread_create(&p->thread[p->threads], NULL, run, p)) break;
	if (!p->threads) {
		vk_pool_free(p);
		return NULL;
	}
	return p;
}

void vk_pool_free(struct vk_pool *p)
{
	if (!p) return;
	pthread_mutex_lock(&p->lock);
	p->stopping = 1;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->threads; i++) pthread_join(p->thread[i], NULL);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->work);
	free(p->ring);
	free(p);
}

enum vk_status vk_pool_submit(struct vk_pool *p, vk_pool_fn *fn, void *arg)
{
	enum vk_status st = VK_OK;
	pthread_mutex_lock(&p->lock);
	if (p->stopping || p->count == p->cap) {
		st = VK_E_BUSY;
	} else {
		p->ring[(p->head + p->count++) % p->cap] = (struct job){fn, arg};
		pthread_cond_signal(&p->work);
	}
	pthread_mutex_unlock(&p->lock);
	return st;
}

unsigned vk_pool_threads(const struct vk_pool *p)
{
	return p->threads;
}

size_t vk_pool_queued(struct vk_pool *p)
{
	pthread_mutex_lock(&p->lock);
	size_t n = p->count;
	pthread_mutex_unlock(&p->lock);
	return n;
}

/* A loop's state is on the heap and counted: a helper that is scheduled after the caller
 * has finished finds no index left, drops its reference, and touches nothing else. */
struct loop {
	void (*fn)(void *arg, size_t i);
	void *arg;
	size_t count;
	_Atomic size_t next;
	_Atomic unsigned refs;
	pthread_mutex_t lock; /* guards finished */
	pthread_cond_t all_done;
	size_t finished;
};

static void loop_put(struct loop *l)
{
	if (atomic_fetch_sub(&l->refs, 1) != 1) return;
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->all_done);
	free(l);
}

static void loop_work(struct loop *l)
{
	size_t did = 0;
	for (;;) {
		size_t i = atomic_fetch_add(&l->next, 1);
		if (i >= l->count) break;
		l->fn(l->arg, i);
		did++;
	}
	if (!did) return;
	pthread_mutex_lock(&l->lock);
	l->finished += did;
	if (l->finished == l->count) pthread_cond_signal(&l->all_done);
	pthread_mutex_unlock(&l->lock);
}

static void loop_help(void *arg)
{
	loop_work(arg);
	loop_put(arg);
}

void vk_pool_for(struct vk_pool *p, size_t count, void (*fn)(void *arg, size_t i), void *arg)
{
	struct loop *l = count > 1 && p ? calloc(1, sizeof *l) : NULL;
	if (!l) { /* one item, no pool or no memory: just do it */
		for (size_t i = 0; i < count; i++) fn(arg, i);
		return;
	}
	*l = (struct loop){.fn = fn, .arg = arg, .count = count};
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->all_done, NULL);
	atomic_store(&l->refs, 1);
	size_t helpers = count - 1 < p->threads ? count - 1 : p->threads;
	for (size_t i = 0; i < helpers; i++) {
		atomic_fetch_add(&l->refs, 1);
		if (vk_pool_submit(p, loop_help, l)) {
			atomic_fetch_sub(&l->refs, 1);
			break;
		}
	}
	loop_work(l);
	pthread_mutex_lock(&l->lock);
	while (l->finished < l->count) pthread_cond_wait(&l->all_done, &l->lock);
	pthread_mutex_unlock(&l->lock);
	loop_put(l);
}
