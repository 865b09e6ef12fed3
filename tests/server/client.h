/* A raw client for tests of the door: sockets and bytes, nothing that would repair a request. */
#ifndef TESTS_SERVER_CLIENT_H
#define TESTS_SERVER_CLIENT_H

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

struct answer {
	int status; /* 0: the connection ended (or time was up) before a whole head came */
	char head[8192];
	char body[1 << 17];
	size_t body_n;
	int whole;  /* the body was as long as it said */
	int closed; /* the server closed after it */
};

static int dial(const char *address)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	a.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* 0, or -1 when the server would not take it. */
static int put(int fd, const void *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t k = send(fd, (const char *)p + at, n - at, MSG_NOSIGNAL);
		if (k <= 0) return -1;
		at += (size_t)k;
	}
	return 0;
}

static int puts_to(int fd, const char *text)
{
	return put(fd, text, strlen(text));
}

/* Up to n bytes within the time: bytes, 0 at the end of the stream, -1 when time is up or reset. */
static ssize_t get(int fd, char *p, size_t n, int timeout_ms)
{
	struct pollfd set = {.fd = fd, .events = POLLIN};
	if (poll(&set, 1, timeout_ms) != 1) return -1;
	return recv(fd, p, n, 0);
}

static const char *header_of(const struct answer *a, const char *name)
{
	static _Thread_local char value[1024];
	size_t n = strlen(name);
	for (const char *line = strstr(a->head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n")) {
		if (strncasecmp(line + 2, name, n) || line[2 + n] != ':') continue;
		const char *v = line + 3 + n;
		while (*v == ' ') v++;
		snprintf(value, sizeof value, "%.*s", (int)strcspn(v, "\r"), v);
		return value;
	}
	return NULL;
}

/* One reply off the wire, byte by byte up to the end of the head so that a pipelined one is left. */
static void read_answer(int fd, struct answer *a, int is_head, int timeout_ms)
{
	memset(a, 0, offsetof(struct answer, body));
	a->body_n = 0;
	a->whole = a->closed = 0;
	size_t n = 0;
	while (n + 1 < sizeof a->head && !(n >= 4 && !memcmp(a->head + n - 4, "\r\n\r\n", 4))) {
		if (get(fd, a->head + n, 1, timeout_ms) != 1) return;
		a->head[++n] = 0;
	}
	sscanf(a->head, "HTTP/1.1 %d", &a->status);
	if (a->status == 100) {
		a->whole = 1;
		return;
	}
	const char *length = header_of(a, "Content-Length");
	size_t want = length ? strtoul(length, NULL, 10) : is_head || a->status == 204 ? 0 : sizeof a->body;
	if (is_head) want = 0;
	size_t room = want < sizeof a->body ? want : sizeof a->body;
	while (a->body_n < room) {
		ssize_t k = get(fd, a->body + a->body_n, room - a->body_n, timeout_ms);
		if (k <= 0) break;
		a->body_n += (size_t)k;
	}
	a->whole = a->body_n == want;
	const char *connection = header_of(a, "Connection");
	a->closed = connection && !strcasecmp(connection, "close");
}

static void ask(int fd, struct answer *a, const char *request)
{
	puts_to(fd, request);
	read_answer(fd, a, !strncmp(request, "HEAD ", 5), 5000);
}

/* Did the server end the connection within the time? */
static int is_ended(int fd, int timeout_ms)
{
	char rest[4096];
	uint64_t until = vk_mono_ms() + (uint64_t)timeout_ms;
	for (uint64_t now = vk_mono_ms(); now < until; now = vk_mono_ms()) {
		struct pollfd set = {.fd = fd, .events = POLLIN};
		if (poll(&set, 1, (int)(until - now)) != 1) return 0;
		if (recv(fd, rest, sizeof rest, 0) <= 0) return 1;
	}
	return 0;
}

#endif
