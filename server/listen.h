/*
 * Listening sockets and the one thread that accepts from all of them. What is accepted is handed
 * to `take`, which owns the descriptor from then on, whatever it returns.
 *
 * Threads: `take` runs on the acceptor's thread.
 */
#ifndef VK_SERVER_LISTEN_H
#define VK_SERVER_LISTEN_H

#include <stddef.h>
#include <sys/socket.h>

#include "base/status.h"

struct vk_listen;
typedef void vk_listen_take_fn(void *arg, int fd, const struct sockaddr *peer, socklen_t peer_n);

/* spec: "host:port" or "[v6]:port"; an empty host or * is every address; port 0 any. Binds all or none. */
enum vk_status vk_listen_open(const char *const *spec, size_t n, struct vk_listen **out,
			      struct vk_error *err);
enum vk_status vk_listen_start(struct vk_listen *l, vk_listen_take_fn *take, void *arg,
			       struct vk_error *err);
/* Stops accepting and closes the sockets; the addresses stay readable. */
void vk_listen_stop(struct vk_listen *l);
void vk_listen_free(struct vk_listen *l); /* NULL is fine */

/* What listener i is bound to: "127.0.0.1:8325", "[::1]:8325". */
const char *vk_listen_address(const struct vk_listen *l, size_t i);
size_t vk_listen_count(const struct vk_listen *l);

#endif
