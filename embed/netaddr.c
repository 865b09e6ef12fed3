/* Two tables of address ranges, first match wins. */
#include "embed/netaddr.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"

#define IP4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

static const struct {
	uint32_t net;
	uint8_t bits;
	uint8_t is;
} ranges4[] = {
	{IP4(0, 0, 0, 0), 8, VK_NETADDR_NEVER},          /* connects to this host by accident */
	{IP4(169, 254, 0, 0), 16, VK_NETADDR_NEVER},     /* link-local; metadata of most clouds */
	{IP4(100, 100, 100, 200), 32, VK_NETADDR_NEVER}, /* Alibaba's metadata */
	{IP4(168, 63, 129, 16), 32, VK_NETADDR_NEVER},   /* Azure's wire server */
	{IP4(192, 0, 0, 192), 32, VK_NETADDR_NEVER},     /* Oracle's metadata */
	{IP4(224, 0, 0, 0), 3, VK_NETADDR_NEVER},        /* multicast, reserved, broadcast */
	{IP4(10, 0, 0, 0), 8, VK_NETADDR_PRIVATE},
	{IP4(127, 0, 0, 0), 8, VK_NETADDR_PRIVATE},
	{IP4(172, 16, 0, 0), 12, VK_NETADDR_PRIVATE},
	{IP4(192, 168, 0, 0), 16, VK_NETADDR_PRIVATE},
	{IP4(100, 64, 0, 0), 10, VK_NETADDR_PRIVATE},
	{IP4(192, 0, 0, 0), 24, VK_NETADDR_PRIVATE},
	{IP4(198, 18, 0, 0), 15, VK_NETADDR_PRIVATE},
};

static const struct {
	uint8_t net[16];
	uint8_t bits;
	uint8_t is;
} ranges6[] = {
	{{0xfd, 0x00, 0x0e, 0xc2}, 112, VK_NETADDR_NEVER}, /* AWS: fd00:ec2::254, ::23 */
	{{0xfd, 0x20, 0x00, 0xce, [14] = 0x02, [15] = 0x54}, 128, VK_NETADDR_NEVER}, /* Google */
	{{0xfe, 0x80}, 10, VK_NETADDR_NEVER},  /* link-local */
	{{0xff}, 8, VK_NETADDR_NEVER},         /* multicast */
	{{[15] = 1}, 128, VK_NETADDR_PRIVATE}, /* loopback */
	{{0}, 128, VK_NETADDR_NEVER},          /* unspecified */
	{{0xfc}, 7, VK_NETADDR_PRIVATE},
	{{0xfe, 0xc0}, 10, VK_NETADDR_PRIVATE},
};

/* Prefixes whose addresses carry an IPv4 address at byte `at`. */
static const struct {
	uint8_t net[16];
	uint8_t bits, at;
} carriers[] = {
	{{[10] = 0xff, [11] = 0xff}, 96, 12},         /* ::ffff:a.b.c.d */
	{{[8] = 0xff, [9] = 0xff}, 96, 12},           /* ::ffff:0:a.b.c.d, SIIT */
	{{0x00, 0x64, 0xff, 0x9b}, 96, 12},           /* NAT64 */
	{{0x20, 0x02}, 16, 2},                        /* 6to4 */
	{{0}, 96, 12},                                /* ::a.b.c.d, after ::1 and :: */
};

static bool within(const uint8_t *a, const uint8_t *net, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;
	if (memcmp(a, net, whole)) return false;
	return !rest || !((a[whole] ^ net[whole]) >> (8 - rest));
}

static enum vk_netaddr of4(uint32_t a)
{
	for (size_t i = 0; i < sizeof ranges4 / sizeof *ranges4; i++)
		if (!((a ^ ranges4[i].net) >> (32 - ranges4[i].bits)))
			return (enum vk_netaddr)ranges4[i].is;
	return VK_NETADDR_PUBLIC;
}

static enum vk_netaddr of6(const uint8_t *a)
{
	for (size_t i = 0; i < sizeof ranges6 / sizeof *ranges6; i++)
		if (within(a, ranges6[i].net, ranges6[i].bits))
			return (enum vk_netaddr)ranges6[i].is;
	for (size_t i = 0; i < sizeof carriers / sizeof *carriers; i++)
		if (within(a, carriers[i].net, carriers[i].bits))
			return of4(vk_get_u32be(a + carriers[i].at));
	return VK_NETADDR_PUBLIC;
}

enum vk_netaddr vk_netaddr_of(const char *ip)
{
	char text[INET6_ADDRSTRLEN + 2];
	uint8_t a[16];
	if (*ip == '[') ip++;
	size_t n = strcspn(ip, "%]"); /* a zone changes nothing */
	if (n == 0 || n >= sizeof text) return VK_NETADDR_NONE;
	memcpy(text, ip, n);
	text[n] = 0;
	if (inet_pton(AF_INET, text, a) == 1) return of4(vk_get_u32be(a));
	if (inet_pton(AF_INET6, text, a) == 1) return of6(a);
	return VK_NETADDR_NONE;
}
