/*
 * How many connections each client address has open, where a limit is set. A v6 client counts by
 * its /64: that is what one subscriber is given. Any thread; a lock inside, taken once a connection.
 */
#ifndef VK_SERVER_PEERS_H
#define VK_SERVER_PEERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct vk_peer { /* an address in a comparable form */
	uint64_t hi, lo;
};
struct vk_peer vk_peer_of(const struct sockaddr *sa);
bool vk_peer_is_loopback(const struct sockaddr *sa);

struct vk_peers;
struct vk_peers *vk_peers_new(unsigned per_peer_max);
void vk_peers_free(struct vk_peers *p); /* NULL is fine */
bool vk_peers_take(struct vk_peers *p, struct vk_peer peer); /* false: at its limit, nothing taken */
void vk_peers_give(struct vk_peers *p, struct vk_peer peer);

#endif
