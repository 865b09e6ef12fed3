/* Threads, one loop at a time, a counter that hands out its grains. */
#include "index/graph_team.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "simd/cpu.h"

struct member {
	struct vk_graph_team *team;
	unsigned number;
	pthread_t thread;
};

struct vk_graph_team {
	pthread_mutex_t lock; /* guards what stands to `next` */
	pthread_cond_t start, end;
	uint64_t loop; /* goes up with each loop */
	unsigned busy;
	int stopping, nice;
	vk_graph_team_fn *fn;
	void *arg;
	uint32_t count, grain;
	atomic_ullong next; /* first item that nobody took; wider than items, so that it cannot wrap */
	unsigned threads;
	struct member member[VK_GRAPH_TEAM_MAX];
};

static void work(struct vk_graph_team *t, unsigned worker)
{
	for (;;) {
		uint64_t from = atomic_fetch_add_explicit(&t->next, t->grain, memory_order_relaxed);
		if (from >= t->count) return;
		uint64_t to = from + t->grain < t->count ? from + t->grain : t->count;
		t->fn(t->arg, worker, (uint32_t)from, (uint32_t)to);
	}
}

static void *run(void *arg)
{
	struct member *m = arg;
	struct vk_graph_team *t = m->team;
	prctl(PR_SET_NAME, "graph-build");
	/* Linux keeps niceness a thread. Refused (no such right): the build goes on at the usual priority. */
	id_t tid = (id_t)syscall(SYS_gettid);
	if (t->nice > 0) (void)setpriority(PRIO_PROCESS, tid, getpriority(PRIO_PROCESS, tid) + t->nice);
	uint64_t done = 0;
	pthread_mutex_lock(&t->lock);
	for (;;) {
		while (t->loop == done && !t->stopping) pthread_cond_wait(&t->start, &t->lock);
		if (t->stopping) break;
		done = t->loop;
		pthread_mutex_unlock(&t->lock);
		work(t, m->number);
		pthread_mutex_lock(&t->lock);
		if (--t->busy == 0) pthread_cond_signal(&t->end);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

struct vk_graph_team *vk_graph_team_new(unsigned threads, int nice)
{
	if (!threads) threads = vk_cpu_cores();
	if (threads > VK_GRAPH_TEAM_MAX) threads = VK_GRAPH_TEAM_MAX;
	struct vk_graph_team *t = calloc(1, sizeof *t);
	if (!t) return NULL;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->start, NULL);
	pthread_cond_init(&t->end, NULL);
	t->nice = nice;
	for (; t->threads < threads; t->threads++) {
		struct member *m = &t->member[t->threads];
		*m = (struct member){.team = t, .number = t->threads};
		if (pthread_create(&m->thread, NULL, run, m)) break;
	}
	if (t->threads) return t;
	vk_graph_team_free(t);
	return NULL;
}

void vk_graph_team_free(struct vk_graph_team *t)
{
	if (!t) return;
	pthread_mutex_lock(&t->lock);
	t->stopping = 1;
	pthread_cond_broadcast(&t->start);
	pthread_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < t->threads; i++) pthread_join(t->member[i].thread, NULL);
	pthread_cond_destroy(&t->start);
	pthread_cond_destroy(&t->end);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

unsigned vk_graph_team_threads(const struct vk_graph_team *t) { return t->threads; }

void vk_graph_team_run(struct vk_graph_team *t, uint32_t count, uint32_t grain, vk_graph_team_fn *fn, void *arg)
{
	if (!count) return;
	pthread_mutex_lock(&t->lock);
	t->fn = fn, t->arg = arg, t->count = count, t->grain = grain;
	atomic_store_explicit(&t->next, 0, memory_order_relaxed);
	t->busy = t->threads;
	t->loop++;
	pthread_cond_broadcast(&t->start);
	while (t->busy) pthread_cond_wait(&t->end, &t->lock);
	pthread_mutex_unlock(&t->lock);
}
