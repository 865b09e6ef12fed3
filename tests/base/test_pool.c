/*
 * Goal: every job runs once, a full queue says so, a parallel loop does every index once and
 * ends, whoever else uses the pool, also from inside its own jobs.
 * Method: counters under contention of several submitting threads; a pool of one thread that
 * is held by the test, so the states of the queue are certain.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/pool.h"

static void count(void *arg)
{
	atomic_fetch_add((_Atomic int *)arg, 1);
}

static void test_pool_free_runs_what_is_queued(void **state)
{
	(void)state;
	for (unsigned threads = 1; threads <= 4; threads++) {
		_Atomic int n = 0;
		struct vk_pool *p = vk_pool_new(threads, 1000, "test");
		assert_int_equal(vk_pool_threads(p), threads);
		for (int i = 0; i < 1000; i++) assert_int_equal(vk_pool_submit(p, count, &n), VK_OK);
		vk_pool_free(p);
		assert_int_equal(n, 1000);
	}
	vk_pool_free(NULL);
}

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int entered, open;
};

static void hold(void *arg)
{
	struct gate *g = arg;
	pthread_mutex_lock(&g->lock);
	g->entered = 1;
	pthread_cond_broadcast(&g->changed);
	while (!g->open) pthread_cond_wait(&g->changed, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void set_open(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->open = 1;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
}

/* Returns when the pool's only thread is inside hold(). */
static void hold_thread(struct vk_pool *p, struct gate *g)
{
	*g = (struct gate){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
	assert_int_equal(vk_pool_submit(p, hold, g), VK_OK);
	pthread_mutex_lock(&g->lock);
	while (!g->entered) pthread_cond_wait(&g->changed, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void test_pool_full_queue_is_busy(void **state)
{
	(void)state;
	struct vk_pool *p = vk_pool_new(1, 3, "test");
	struct gate g;
	_Atomic int n = 0;
	hold_thread(p, &g);
	for (int i = 0; i < 3; i++) assert_int_equal(vk_pool_submit(p, count, &n), VK_OK);
	assert_int_equal(vk_pool_queued(p), 3);
	assert_int_equal(vk_pool_submit(p, count, &n), VK_E_BUSY);
	assert_int_equal(n, 0);
	set_open(&g);
	vk_pool_free(p);
	assert_int_equal(n, 3);
}

struct order {
	_Atomic int next;
	int seen[100];
};

struct ordered {
	struct order *o;
	int i;
};

static void note(void *arg)
{
	struct ordered *j = arg;
	j->o->seen[atomic_fetch_add(&j->o->next, 1)] = j->i;
}

static void test_pool_one_thread_keeps_the_order(void **state)
{
	(void)state;
	static struct order o;
	static struct ordered job[100];
	struct vk_pool *p = vk_pool_new(1, 100, "test");
	for (int i = 0; i < 100; i++) {
		job[i] = (struct ordered){&o, i};
		assert_int_equal(vk_pool_submit(p, note, &job[i]), VK_OK);
	}
	vk_pool_free(p);
	for (int i = 0; i < 100; i++) assert_int_equal(o.seen[i], i);
}

struct tally {
	_Atomic unsigned char hit[5000];
	struct vk_pool *p;
};

static void mark(void *arg, size_t i)
{
	atomic_fetch_add(&((struct tally *)arg)->hit[i], 1);
}

static void assert_each_once(struct tally *t, size_t n)
{
	for (size_t i = 0; i < n; i++) assert_int_equal(t->hit[i], 1);
	for (size_t i = n; i < 5000; i++) assert_int_equal(t->hit[i], 0);
}

static void test_pool_for_does_every_index_once(void **state)
{
	(void)state;
	struct vk_pool *p = vk_pool_new(3, 4, "test");
	static const size_t counts[] = {0, 1, 2, 3, 4, 5, 100, 5000};
	for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++)
		for (int round = 0; round < 50; round++) {
			static struct tally t;
			memset(&t, 0, sizeof t);
			vk_pool_for(p, counts[k], mark, &t);
			assert_each_once(&t, counts[k]);
		}
	static struct tally alone;
	vk_pool_for(NULL, 77, mark, &alone);
	assert_each_once(&alone, 77);
	vk_pool_free(p);
}

/* All threads are busy elsewhere: the caller does everything itself and returns; the helpers
 * it had queued find nothing left, after the loop's variables are gone. */
static void test_pool_for_ends_while_the_pool_is_held(void **state)
{
	(void)state;
	struct vk_pool *p = vk_pool_new(1, 10, "test");
	struct gate g;
	hold_thread(p, &g);
	for (int round = 0; round < 20; round++) { /* more than the queue holds, too */
		struct tally *t = calloc(1, sizeof *t);
		vk_pool_for(p, 1000, mark, t);
		assert_each_once(t, 1000);
		free(t);
	}
	set_open(&g);
	vk_pool_free(p);
}

struct submitter {
	struct vk_pool *p;
	int bad;
};

static void *loop_many(void *arg)
{
	struct submitter *s = arg;
	struct tally *t = malloc(sizeof *t);
	for (int round = 0; round < 300; round++) {
		memset(t, 0, sizeof *t);
		vk_pool_for(s->p, 200, mark, t);
		for (int i = 0; i < 200; i++) s->bad += t->hit[i] != 1;
	}
	free(t);
	return NULL;
}

static void test_pool_for_from_many_threads(void **state)
{
	(void)state;
	struct vk_pool *p = vk_pool_new(2, 3, "test");
	pthread_t thread[6];
	struct submitter s[6];
	for (int i = 0; i < 6; i++) {
		s[i] = (struct submitter){.p = p};
		assert_int_equal(pthread_create(&thread[i], NULL, loop_many, &s[i]), 0);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(s[i].bad, 0);
	}
	vk_pool_free(p);
}

static void inner(void *arg, size_t i)
{
	struct tally *t = arg;
	atomic_fetch_add(&t->hit[1000 + i % 10], 1);
}

static void outer(void *arg, size_t i)
{
	struct tally *t = arg;
	mark(arg, i);
	vk_pool_for(t->p, 10, inner, t);
}

static void test_pool_for_inside_a_job_does_not_hang(void **state)
{
	(void)state;
	static struct tally t;
	t.p = vk_pool_new(2, 100, "test");
	vk_pool_for(t.p, 20, outer, &t);
	for (int i = 0; i < 20; i++) assert_int_equal(t.hit[i], 1);
	for (int i = 0; i < 10; i++) assert_int_equal(t.hit[1000 + i], 20);
	vk_pool_free(t.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pool_free_runs_what_is_queued),
		cmocka_unit_test(test_pool_full_queue_is_busy),
		cmocka_unit_test(test_pool_one_thread_keeps_the_order),
		cmocka_unit_test(test_pool_for_does_every_index_once),
		cmocka_unit_test(test_pool_for_ends_while_the_pool_is_held),
		cmocka_unit_test(test_pool_for_from_many_threads),
		cmocka_unit_test(test_pool_for_inside_a_job_does_not_hang),
	};
	return cmocka_run_group_tests_name("base/pool", tests, NULL, NULL);
}
