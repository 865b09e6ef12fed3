/*
 * What an IP address stands for, so that the curl door can refuse one (SSRF). Pure: reads
 * the text of an address, asks nobody. IPv6 forms that carry an IPv4 address (mapped,
 * compatible, NAT64, 6to4) count as what they carry.
 */
#ifndef VK_EMBED_NETADDR_H
#define VK_EMBED_NETADDR_H

enum vk_netaddr {
	VK_NETADDR_PUBLIC,
	VK_NETADDR_PRIVATE, /* loopback, site-local, carrier NAT: needs private_ok */
	VK_NETADDR_NEVER,   /* link-local, cloud metadata, multicast, "this network" */
	VK_NETADDR_NONE     /* not an address */
};

/* `ip` in numbers ("10.0.0.7", "fe80::1%eth0", "[::1]"). */
enum vk_netaddr vk_netaddr_of(const char *ip);

#endif
