/* A list under a lock, and a thread that walks it. 4096 connections cost it about a millisecond. */
#include "server/reaper.h"

#include <linux/tcp.h> /* not netinet/tcp.h: its tcp_info ends before bytes_received */
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"

#define TICK_MS_MIN 10
#define TICK_MS_MAX 500

/* Whoever took too long may be of any API: the shape of the one that most clients speak. */
#define LATE_BODY                                                                       \
	"{\"error\":{\"message\":\"The request did not arrive in time.\","              \
	"\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"request_timeout\"}}"
static const char late_reply[] = "HTTP/1.1 408 Request Timeout\r\n"
				 "Connection: close\r\n"
				 "Content-Type: application/json\r\n"
				 "Content-Length: %zu\r\n\r\n" LATE_BODY;

struct vk_reaper {
	struct vk_reap_limits limits;
	char late[512];
	size_t late_n;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct vk_reap_node *first;
	uint64_t reaped;
	bool stop;
};

/* 0 when the kernel cannot say: then only the idle limit holds. */
static uint64_t bytes_received(int fd)
{
	struct tcp_info info;
	socklen_t n = sizeof info;
	memset(&info, 0, sizeof info);
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n)) return 0;
	return info.tcpi_bytes_received;
}

/* Has a head begun in this idle period? Then its clock starts now. */
static void look_for_head(struct vk_reap_node *n, uint64_t word, uint64_t now_ms)
{
	uint64_t bytes = bytes_received(n->fd);
	if (n->idle_word != word) {
		n->idle_word = word;
		n->idle_bytes = bytes;
	} else if (bytes > n->idle_bytes) {
		atomic_compare_exchange_strong(&n->word, &word, vk_reap_word(word, VK_REAP_HEAD, now_ms));
	}
}

static bool overdue(const struct vk_reaper *r, uint64_t word, uint64_t now_ms)
{
	uint64_t since = word & VK_REAP_MS_MASK;
	uint64_t limit_ms = UINT64_MAX;
	switch (vk_reap_stage_of(word)) {
	case VK_REAP_IDLE: limit_ms = r->limits.idle_ms; break;
	case VK_REAP_HEAD: limit_ms = r->limits.head_ms; break;
	case VK_REAP_BODY:
	case VK_REAP_SEND: limit_ms = r->limits.body_ms; break;
	case VK_REAP_BUSY:
	case VK_REAP_REAPED: return false;
	}
	return now_ms > since && now_ms - since >= limit_ms;
}

static void reap(struct vk_reaper *r, struct vk_reap_node *n, uint64_t word)
{
	if (!atomic_compare_exchange_strong(&n->word, &word, vk_reap_word(word, VK_REAP_REAPED, 0))) return;
	enum vk_reap_stage stage = vk_reap_stage_of(word);
	if (stage == VK_REAP_HEAD || stage == VK_REAP_BODY)
		send(n->fd, r->late, r->late_n, MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(n->fd, SHUT_RDWR);
	r->reaped++;
}

static void walk(struct vk_reaper *r, uint64_t now_ms)
{
	for (struct vk_reap_node *n = r->first; n; n = n->next) {
		uint64_t word = atomic_load(&n->word);
		if (overdue(r, word, now_ms)) reap(r, n, word);
		else if (vk_reap_stage_of(word) == VK_REAP_IDLE) look_for_head(n, word, now_ms);
	}
}

static uint64_t tick_ms(const struct vk_reap_limits *l)
{
	uint64_t least = l->head_ms < l->body_ms ? l->head_ms : l->body_ms;
	if (l->idle_ms < least) least = l->idle_ms;
	least /= 8;
	if (least < TICK_MS_MIN) least = TICK_MS_MIN;
	return least > TICK_MS_MAX ? TICK_MS_MAX : least;
}

static void *run(void *arg)
{
	struct vk_reaper *r = arg;
	uint64_t step = tick_ms(&r->limits);
	pthread_mutex_lock(&r->lock);
	while (!r->stop) {
		if (!r->first) { /* nobody there: sleep until somebody comes */
			pthread_cond_wait(&r->wake, &r->lock);
			continue;
		}
		uint64_t until = vk_mono_ms() + step;
		struct timespec t = {(time_t)(until / 1000), (long)(until % 1000) * 1000000};
		pthread_cond_timedwait(&r->wake, &r->lock, &t);
		uint64_t now = vk_mono_ms();
		if (now >= until) walk(r, now);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

struct vk_reaper *vk_reaper_new(const struct vk_reap_limits *limits)
{
	struct vk_reaper *r = calloc(1, sizeof *r);
	if (!r) return NULL;
	r->limits = *limits;
	r->late_n = (size_t)snprintf(r->late, sizeof r->late, late_reply, sizeof LATE_BODY - 1);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->wake, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&r->lock, NULL);
	if (pthread_create(&r->thread, NULL, run, r)) {
		pthread_cond_destroy(&r->wake);
		pthread_mutex_destroy(&r->lock);
		free(r);
		return NULL;
	}
	pthread_setname_np(r->thread, "vk-reaper");
	return r;
}

void vk_reaper_free(struct vk_reaper *r)
{
	if (!r) return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

void vk_reap_add(struct vk_reaper *r, struct vk_reap_node *n, int fd, uint64_t now_ms)
{
	uint64_t word = vk_reap_word(0, VK_REAP_IDLE, now_ms);
	n->fd = fd;
	atomic_store(&n->word, word);
	n->idle_word = word; /* a new connection has received nothing */
	n->idle_bytes = 0;
	pthread_mutex_lock(&r->lock);
	n->prev = NULL;
	n->next = r->first;
	if (n->next) n->next->prev = n;
	else pthread_cond_signal(&r->wake);
	r->first = n;
	pthread_mutex_unlock(&r->lock);
}

void vk_reap_del(struct vk_reaper *r, struct vk_reap_node *n)
{
	pthread_mutex_lock(&r->lock);
	if (n->next) n->next->prev = n->prev;
	if (n->prev) n->prev->next = n->next;
	else r->first = n->next;
	pthread_mutex_unlock(&r->lock);
}

uint64_t vk_reaper_count(struct vk_reaper *r)
{
	pthread_mutex_lock(&r->lock);
	uint64_t n = r->reaped;
	pthread_mutex_unlock(&r->lock);
	return n;
}
