/*
 * Goal: no address that belongs to a metadata service, a link or this host passes for a public
 * one, in whatever form it is written; and start times come out of the heap in order.
 * Method: a table of addresses at the edges of every range; the heap against a sorted copy.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/hash.h"
#include "embed/due.h"
#include "embed/netaddr.h"

#define SEED 20261122u

static const struct {
	const char *ip;
	enum vk_netaddr is;
} table[] = {
	{"8.8.8.8", VK_NETADDR_PUBLIC}, {"1.0.0.0", VK_NETADDR_PUBLIC}, {"0.255.255.255", VK_NETADDR_NEVER},
	{"0.0.0.0", VK_NETADDR_NEVER}, {"169.253.255.255", VK_NETADDR_PUBLIC}, {"169.254.0.0", VK_NETADDR_NEVER},
	{"169.254.169.254", VK_NETADDR_NEVER}, {"169.254.170.2", VK_NETADDR_NEVER}, {"169.255.0.0", VK_NETADDR_PUBLIC},
	{"100.100.100.200", VK_NETADDR_NEVER}, {"100.100.100.201", VK_NETADDR_PRIVATE}, {"168.63.129.16", VK_NETADDR_NEVER},
	{"192.0.0.192", VK_NETADDR_NEVER}, {"192.0.0.1", VK_NETADDR_PRIVATE}, {"223.255.255.255", VK_NETADDR_PUBLIC},
	{"224.0.0.1", VK_NETADDR_NEVER}, {"255.255.255.255", VK_NETADDR_NEVER}, {"9.255.255.255", VK_NETADDR_PUBLIC},
	{"10.0.0.7", VK_NETADDR_PRIVATE}, {"11.0.0.0", VK_NETADDR_PUBLIC}, {"127.0.0.1", VK_NETADDR_PRIVATE},
	{"172.15.255.255", VK_NETADDR_PUBLIC}, {"172.16.0.0", VK_NETADDR_PRIVATE}, {"172.31.255.255", VK_NETADDR_PRIVATE},
	{"172.32.0.0", VK_NETADDR_PUBLIC}, {"192.168.1.1", VK_NETADDR_PRIVATE}, {"192.169.0.0", VK_NETADDR_PUBLIC},
	{"100.63.255.255", VK_NETADDR_PUBLIC}, {"100.64.0.0", VK_NETADDR_PRIVATE}, {"100.128.0.0", VK_NETADDR_PUBLIC},
	{"198.18.0.1", VK_NETADDR_PRIVATE}, {"198.20.0.0", VK_NETADDR_PUBLIC},
	{"2606:4700::1", VK_NETADDR_PUBLIC}, {"::1", VK_NETADDR_PRIVATE}, {"::", VK_NETADDR_NEVER},
	{"[::1]", VK_NETADDR_PRIVATE}, {"fe80::1", VK_NETADDR_NEVER}, {"fe80::1%eth0", VK_NETADDR_NEVER},
	{"febf::1", VK_NETADDR_NEVER}, {"fec0::1", VK_NETADDR_PRIVATE}, {"fd00:ec2::254", VK_NETADDR_NEVER},
	{"fd00:ec2::23", VK_NETADDR_NEVER}, {"fd00:ec3::254", VK_NETADDR_PRIVATE}, {"fd20:ce::254", VK_NETADDR_NEVER},
	{"fd20:ce::255", VK_NETADDR_PRIVATE}, {"fc00::1", VK_NETADDR_PRIVATE}, {"fdff::1", VK_NETADDR_PRIVATE},
	{"ff02::1", VK_NETADDR_NEVER}, {"::ffff:169.254.169.254", VK_NETADDR_NEVER}, {"::ffff:a9fe:a9fe", VK_NETADDR_NEVER},
	{"::ffff:10.0.0.1", VK_NETADDR_PRIVATE}, {"::ffff:8.8.8.8", VK_NETADDR_PUBLIC}, {"::169.254.169.254", VK_NETADDR_NEVER},
	{"::ffff:0:169.254.169.254", VK_NETADDR_NEVER}, {"64:ff9b::169.254.169.254", VK_NETADDR_NEVER},
	{"64:ff9b::8.8.8.8", VK_NETADDR_PUBLIC}, {"2002:a9fe:a9fe::1", VK_NETADDR_NEVER}, {"2002:7f00:1::", VK_NETADDR_PRIVATE},
	{"", VK_NETADDR_NONE}, {"example", VK_NETADDR_NONE}, {"1.2.3", VK_NETADDR_NONE}, {"1.2.3.4.5", VK_NETADDR_NONE},
	{"1.2.3.4x", VK_NETADDR_NONE}, {":::", VK_NETADDR_NONE}, {"[", VK_NETADDR_NONE},
	{"0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000", VK_NETADDR_NONE},
};

static void test_netaddr_each_form_is_told_apart(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (vk_netaddr_of(table[i].ip) != table[i].is)
			fail_msg("%s is %d, not %d", table[i].ip, vk_netaddr_of(table[i].ip), table[i].is);
}

static bool keep_even(const struct vk_due *d, void *arg)
{
	(void)arg;
	return d->order % 2 == 0;
}

static void test_due_random_pushes_come_out_in_order(void **state)
{
	(void)state;
	uint64_t rng = SEED;
	for (int round = 0; round < 200; round++) {
		struct vk_due_heap h = {0};
		struct vk_due d, last = {0};
		size_t n = vk_rng(&rng) % 300, out = 0, want = round % 2 ? (n + 1) / 2 : n;
		for (size_t i = 0; i < n; i++)
			assert_true(vk_due_push(&h, (struct vk_due){.at_ms = 1 + vk_rng(&rng) % 50}));
		if (round % 2) vk_due_filter(&h, keep_even, NULL);
		assert_false(vk_due_pop(&h, 0, &d));
		for (uint64_t now = 1; now <= 51; now++)
			for (; vk_due_pop(&h, now, &d); last = d, out++) {
				assert_true(d.at_ms <= now && d.at_ms + 1 > now); /* not late either */
				if (round % 2) assert_int_equal(d.order % 2, 0);
				if (out) assert_true(last.at_ms < d.at_ms || (last.at_ms == d.at_ms && last.order < d.order));
			}
		assert_int_equal(out, want);
		vk_due_free(&h);
	}
}

int main(void)
{
	print_message("seed %u\n", SEED);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_netaddr_each_form_is_told_apart),
		cmocka_unit_test(test_due_random_pushes_come_out_in_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
