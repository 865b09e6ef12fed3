/*
 * The floor: a bare libmicrohttpd server that answers every request with the same N bytes. Budgets
 * in requests a second are quoted as a share of what it does on the same machine in the same run.
 *
 *   bench_http_floor [--port 18400] [--bytes 8413] [--threads N] [--accept handoff|reuseport|pool]
 *   wrk -t1 -c64 -d5 http://127.0.0.1:18400/
 *
 * Same daemon flags and options as server/http.c, and the same ways of spreading connections over
 * threads, so that they can be compared: `handoff` (what the door does: one acceptor thread deals
 * connections round to the daemons), `reuseport` (each daemon listens on the port by itself, the
 * kernel deals by hash), `pool` (libmicrohttpd's own thread pool on one socket).
 * One response object is made at the start and queued for ever: no allocation, no headers of ours.
 */
#include <microhttpd.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define THREADS_MAX 64
#define MEMORY_LIMIT ((size_t)64 << 10)
#define MEMORY_STEP ((size_t)8 << 10)
#define CONNECTIONS_MAX 4096u

static enum MHD_Result answer(void *cls, struct MHD_Connection *c, const char *url, const char *method,
			      const char *version, const char *data, size_t *data_n, void **context)
{
	(void)url, (void)method, (void)version, (void)data;
	static char seen;
	if (!*context) { /* the head is complete: ask for the body, as any real server must */
		*context = &seen;
		return MHD_YES;
	}
	if (*data_n) {
		*data_n = 0;
		return MHD_YES;
	}
	return MHD_queue_response(c, 200, cls);
}

static int listen_on(unsigned port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 1024)) {
		perror("bench_http_floor: listen");
		exit(1);
	}
	return fd;
}

/* listen_fd < 0: no listening socket. pool 0: no pool. */
static struct MHD_Daemon *start(struct MHD_Response *r, int listen_fd, unsigned pool)
{
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;
	struct MHD_OptionItem socket_or_end[] = {
		{listen_fd < 0 ? MHD_OPTION_END : MHD_OPTION_LISTEN_SOCKET, listen_fd, NULL},
		{pool ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, (intptr_t)pool, NULL},
		{MHD_OPTION_END, 0, NULL}};
	if (listen_fd < 0) flags |= MHD_USE_NO_LISTEN_SOCKET;
	struct MHD_Daemon *d = MHD_start_daemon(
		flags, 0, NULL, NULL, answer, r, MHD_OPTION_CONNECTION_MEMORY_LIMIT, MEMORY_LIMIT,
		MHD_OPTION_CONNECTION_MEMORY_INCREMENT, MEMORY_STEP, MHD_OPTION_CONNECTION_LIMIT,
		CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_ARRAY, socket_or_end, MHD_OPTION_END);
	if (!d) {
		fprintf(stderr, "bench_http_floor: cannot start a daemon\n");
		exit(1);
	}
	return d;
}

static void deal_for_ever(int fd, struct MHD_Daemon **daemon, unsigned n)
{
	for (unsigned i = 0;; i++) {
		struct sockaddr_storage peer;
		socklen_t peer_n = sizeof peer;
		int c = accept4(fd, (struct sockaddr *)&peer, &peer_n, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (c >= 0) MHD_add_connection(daemon[i % n], c, (struct sockaddr *)&peer, peer_n);
	}
}

static void usage(void)
{
	fprintf(stderr, "usage: bench_http_floor [--port N] [--bytes N] [--threads N] "
			"[--accept handoff|reuseport|pool]\n");
	exit(2);
}

int main(int argc, char **argv)
{
	unsigned port = 18400, threads = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	size_t bytes = 8413; /* an embeddings reply: 1536 dims in base64 */
	const char *accept_by = "handoff";
	for (int i = 1; i < argc; i += 2) {
		if (i + 1 == argc) usage();
		if (!strcmp(argv[i], "--port")) port = (unsigned)strtoul(argv[i + 1], NULL, 10);
		else if (!strcmp(argv[i], "--bytes")) bytes = strtoul(argv[i + 1], NULL, 10);
		else if (!strcmp(argv[i], "--threads")) threads = (unsigned)strtoul(argv[i + 1], NULL, 10);
		else if (!strcmp(argv[i], "--accept")) accept_by = argv[i + 1];
		else usage();
	}
	if (!threads || threads > THREADS_MAX || port > 65535) usage();
	char *body = malloc(bytes + 1);
	if (!body) return 1;
	memset(body, 'x', bytes);
	signal(SIGPIPE, SIG_IGN);
	struct MHD_Response *r = MHD_create_response_from_buffer(bytes, body, MHD_RESPMEM_MUST_FREE);
	MHD_add_response_header(r, "Content-Type", "application/json");
	struct MHD_Daemon *daemon[THREADS_MAX];
	if (!strcmp(accept_by, "handoff")) {
		int fd = listen_on(port);
		for (unsigned i = 0; i < threads; i++) daemon[i] = start(r, -1, 0);
		deal_for_ever(fd, daemon, threads);
	} else if (!strcmp(accept_by, "reuseport")) {
		for (unsigned i = 0; i < threads; i++) start(r, listen_on(port), 0);
	} else if (!strcmp(accept_by, "pool")) {
		start(r, listen_on(port), threads);
	} else {
		usage();
	}
	pause();
	return 0;
}
