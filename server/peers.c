/* A chained hash table; a peer's node lives while it has a connection. */
#include "server/peers.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define BUCKETS 1024

struct node {
	struct node *next;
	struct vk_peer peer;
	unsigned count;
};

struct vk_peers {
	pthread_mutex_t lock;
	unsigned max;
	uint64_t seed;
	struct node *bucket[BUCKETS];
};

static bool is_mapped_v4(const struct in6_addr *a)
{
	return IN6_IS_ADDR_V4MAPPED(a);
}

struct vk_peer vk_peer_of(const struct sockaddr *sa)
{
	struct vk_peer peer = {0, 0};
	if (sa->sa_family == AF_INET) {
		peer.lo = ((const struct sockaddr_in *)sa)->sin_addr.s_addr;
	} else if (sa->sa_family == AF_INET6) {
		const struct in6_addr *a = &((const struct sockaddr_in6 *)sa)->sin6_addr;
		if (is_mapped_v4(a)) {
			uint32_t v4;
			memcpy(&v4, a->s6_addr + 12, 4);
			peer.lo = v4;
		} else {
			memcpy(&peer.hi, a->s6_addr, 8);
		}
	}
	return peer;
}

bool vk_peer_is_loopback(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr) >> 24 == 127;
	if (sa->sa_family != AF_INET6) return false;
	const struct in6_addr *a = &((const struct sockaddr_in6 *)sa)->sin6_addr;
	return IN6_IS_ADDR_LOOPBACK(a) || (is_mapped_v4(a) && a->s6_addr[12] == 127);
}

struct vk_peers *vk_peers_new(unsigned per_peer_max)
{
	struct vk_peers *p = calloc(1, sizeof *p);
	if (!p) return NULL;
	p->max = per_peer_max;
	vk_random(&p->seed, sizeof p->seed);
	pthread_mutex_init(&p->lock, NULL);
	return p;
}

void vk_peers_free(struct vk_peers *p)
{
	if (!p) return;
	for (unsigned b = 0; b < BUCKETS; b++)
		while (p->bucket[b]) {
			struct node *n = p->bucket[b];
			p->bucket[b] = n->next;
			free(n);
		}
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* The link that holds the peer's node, or the end of its chain. */
static struct node **find(struct vk_peers *p, struct vk_peer peer)
{
	struct node **at = &p->bucket[vk_hash64(p->seed, &peer, sizeof peer) % BUCKETS];
	while (*at && ((*at)->peer.hi != peer.hi || (*at)->peer.lo != peer.lo)) at = &(*at)->next;
	return at;
}

bool vk_peers_take(struct vk_peers *p, struct vk_peer peer)
{
	pthread_mutex_lock(&p->lock);
	struct node **at = find(p, peer);
	if (!*at && (*at = calloc(1, sizeof **at))) (*at)->peer = peer;
	bool ok = *at && (*at)->count < p->max;
	if (ok) (*at)->count++;
	pthread_mutex_unlock(&p->lock);
	return ok;
}

void vk_peers_give(struct vk_peers *p, struct vk_peer peer)
{
	pthread_mutex_lock(&p->lock);
	struct node **at = find(p, peer), *n = *at;
	if (n && --n->count == 0) {
		*at = n->next;
		free(n);
	}
	pthread_mutex_unlock(&p->lock);
}
