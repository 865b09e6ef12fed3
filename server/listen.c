/* getaddrinfo, bind, and an accept loop over poll(). */
#include "server/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define LISTEN_MAX 16
#define BACKLOG 1024
#define HOST_MAX 256
#define ACCEPT_AT_ONCE 64 /* then the other sockets get their turn */

struct vk_listen {
	size_t n;
	int fd[LISTEN_MAX];
	char address[LISTEN_MAX][80];
	int stop_fd;
	bool running;
	pthread_t thread;
	vk_listen_take_fn *take;
	void *arg;
};

/* "host:port" in two; brackets around a v6 address go. */
static bool split(const char *spec, char host[HOST_MAX], char port[8])
{
	const char *colon = strrchr(spec, ':');
	if (!colon || !colon[1] || strlen(colon + 1) > 5) return false;
	if (strspn(colon + 1, "0123456789") != strlen(colon + 1)) return false;
	if (strtoul(colon + 1, NULL, 10) > 65535) return false;
	size_t n = (size_t)(colon - spec);
	if (n >= 2 && spec[0] == '[' && spec[n - 1] == ']') {
		spec++;
		n -= 2;
	} else if (memchr(spec, ':', n)) {
		return false;
	}
	if (n >= HOST_MAX) return false;
	memcpy(host, spec, n);
	host[n] = 0;
	strcpy(port, colon + 1);
	return true;
}

static int bind_one(const struct addrinfo *a)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) return -1;
	int on = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (a->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static void name_address(int fd, char *dst, size_t cap)
{
	struct sockaddr_storage ss;
	socklen_t n = sizeof ss;
	char host[64] = "", port[8] = "";
	if (getsockname(fd, (struct sockaddr *)&ss, &n) == 0)
		getnameinfo((struct sockaddr *)&ss, n, host, sizeof host, port, sizeof port,
			    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(dst, cap, ss.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static enum vk_status open_one(struct vk_listen *l, const char *spec, struct vk_error *err)
{
	char host[HOST_MAX], port[8];
	if (!split(spec, host, port))
		return vk_fail_param(err, VK_E_INVALID, "", "listen",
				     "cannot listen on \"%.200s\": want HOST:PORT or [V6]:PORT", spec);
	bool any = !host[0] || !strcmp(host, "*");
	struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
	if (any) want.ai_family = AF_INET;
	int rc = getaddrinfo(any ? NULL : host, port, &want, &list);
	if (rc)
		return vk_fail_param(err, VK_E_INVALID, "", "listen", "cannot listen on \"%.200s\": %s",
				     spec, gai_strerror(rc));
	int fd = -1;
	for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) fd = bind_one(a);
	int saved = errno;
	freeaddrinfo(list);
	if (fd < 0)
		return vk_fail_param(err, VK_E_UNAVAILABLE, "", "listen",
				     "cannot listen on \"%.200s\": %s", spec, strerror(saved));
	l->fd[l->n] = fd;
	name_address(fd, l->address[l->n], sizeof l->address[0]);
	l->n++;
	return VK_OK;
}

enum vk_status vk_listen_open(const char *const *spec, size_t n, struct vk_listen **out,
			      struct vk_error *err)
{
	*out = NULL;
	if (!n || n > LISTEN_MAX)
		return vk_fail_param(err, VK_E_INVALID, "", "listen", "want 1 to %d addresses to listen on",
				     LISTEN_MAX);
	struct vk_listen *l = calloc(1, sizeof *l);
	if (!l) return vk_fail(err, VK_E_NOMEM, "no memory");
	enum vk_status st = VK_OK;
	l->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->stop_fd < 0) st = vk_fail(err, VK_E_IO, "eventfd: %s", strerror(errno));
	for (size_t i = 0; i < n && !st; i++) st = open_one(l, spec[i], err);
	if (st) vk_listen_free(l);
	else *out = l;
	return st;
}

/* Out of descriptors or memory: the connection stays in the backlog; do not spin on it. */
static void pause_after(int error)
{
	vk_log(VK_LOG_WARN, "accept: %s", strerror(error));
	nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
}

static void accept_some(struct vk_listen *l, int listener)
{
	for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
		struct sockaddr_storage peer;
		socklen_t n = sizeof peer;
		int fd = accept4(listener, (struct sockaddr *)&peer, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			l->take(l->arg, fd, (struct sockaddr *)&peer, n);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			pause_after(errno);
			return;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			return;
		} /* else: that one connection failed (ECONNABORTED and kin); the next */
	}
}

static void *run(void *arg)
{
	struct vk_listen *l = arg;
	struct pollfd set[LISTEN_MAX + 1];
	for (size_t i = 0; i < l->n; i++) set[i] = (struct pollfd){.fd = l->fd[i], .events = POLLIN};
	set[l->n] = (struct pollfd){.fd = l->stop_fd, .events = POLLIN};
	for (;;) {
		if (poll(set, l->n + 1, -1) < 0 && errno != EINTR) pause_after(errno);
		if (set[l->n].revents) return NULL;
		for (size_t i = 0; i < l->n; i++)
			if (set[i].revents) accept_some(l, l->fd[i]);
	}
}

enum vk_status vk_listen_start(struct vk_listen *l, vk_listen_take_fn *take, void *arg,
			       struct vk_error *err)
{
	l->take = take;
	l->arg = arg;
	int rc = pthread_create(&l->thread, NULL, run, l);
	if (rc) return vk_fail(err, VK_E_UNAVAILABLE, "cannot start a thread: %s", strerror(rc));
	pthread_setname_np(l->thread, "vk-accept");
	l->running = true;
	return VK_OK;
}

void vk_listen_stop(struct vk_listen *l)
{
	if (l->running) {
		uint64_t one = 1;
		ssize_t n = write(l->stop_fd, &one, sizeof one);
		(void)n;
		pthread_join(l->thread, NULL);
		l->running = false;
	}
	for (size_t i = 0; i < l->n; i++) {
		if (l->fd[i] >= 0) close(l->fd[i]);
		l->fd[i] = -1;
	}
}

void vk_listen_free(struct vk_listen *l)
{
	if (!l) return;
	vk_listen_stop(l);
	if (l->stop_fd >= 0) close(l->stop_fd);
	free(l);
}

const char *vk_listen_address(const struct vk_listen *l, size_t i)
{
	return i < l->n ? l->address[i] : "";
}

size_t vk_listen_count(const struct vk_listen *l)
{
	return l->n;
}
