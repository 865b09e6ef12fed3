/*
 * Pools. Goal: secrets are found again after a restart, newest first, also after a rotation; a
 * stranger's bearer leaves nothing on disk until a provider has accepted it. Method: a real catalog
 * in a temporary directory, opened again and again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "embed/key.h"
#include "embed/tenant.h"

struct world {
	char dir[64];
	struct vk_catalog *catalog;
	struct vk_tenants *tenants;
};

static void open_world(struct world *w)
{
	struct vk_error err = {0};
	assert_int_equal(vk_catalog_open(w->dir, false, &w->catalog, &err), VK_OK);
	assert_int_equal(vk_tenants_open(w->catalog, &w->tenants, &err), VK_OK);
}

static void close_world(struct world *w)
{
	vk_tenants_close(w->tenants);
	vk_catalog_close(w->catalog);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	snprintf(w->dir, sizeof w->dir, "/tmp/vk-tenant-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	open_world(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[128];
	close_world(w);
	snprintf(command, sizeof command, "rm -rf %s", w->dir);
	int rc = system(command);
	free(w);
	return rc;
}

/* What a text is found by under the tenant's i-th secret. */
static void tag_of(const struct vk_tenant *t, size_t i, uint8_t tag[VK_CACHE_TAG_SIZE])
{
	struct vk_input in = {.text = VK_LIT("a text")};
	assert_true(i < t->secrets_n);
	vk_key_tag(&t->secret[i], &in, tag);
}

static void test_tenant_default_secret_stays_over_a_restart(void **state)
{
	struct world *w = *state;
	uint8_t before[VK_CACHE_TAG_SIZE], after[VK_CACHE_TAG_SIZE];
	tag_of(vk_tenants_default(w->tenants), 0, before);
	uint32_t id = vk_tenants_default(w->tenants)->id;
	close_world(w);
	open_world(w);
	tag_of(vk_tenants_default(w->tenants), 0, after);
	assert_memory_equal(before, after, sizeof before);
	assert_int_equal(vk_tenants_default(w->tenants)->id, id);
}

static void test_tenant_rotation_keeps_the_old_secrets_behind_the_new(void **state)
{
	struct world *w = *state;
	uint8_t old[VK_CACHE_TAG_SIZE], tag[VK_CACHE_TAG_SIZE];
	struct vk_error err = {0};
	tag_of(vk_tenants_default(w->tenants), 0, old);
	for (size_t round = 1; round < VK_TENANT_SECRETS_MAX; round++) {
		assert_int_equal(vk_tenants_rotate(w->tenants, &err), VK_OK);
		close_world(w);
		open_world(w);
		const struct vk_tenant *t = vk_tenants_default(w->tenants);
		assert_int_equal(t->secrets_n, round + 1);
		tag_of(t, round, tag);
		assert_memory_equal(tag, old, sizeof old);
		tag_of(t, 0, tag);
		assert_memory_not_equal(tag, old, sizeof old);
	}
	/* The list is full: the oldest goes. */
	assert_int_equal(vk_tenants_rotate(w->tenants, &err), VK_OK);
	close_world(w);
	open_world(w);
	const struct vk_tenant *t = vk_tenants_default(w->tenants);
	assert_int_equal(t->secrets_n, VK_TENANT_SECRETS_MAX);
	for (size_t i = 0; i < t->secrets_n; i++) {
		tag_of(t, i, tag);
		assert_memory_not_equal(tag, old, sizeof old);
	}
}

static void test_tenant_bearer_is_kept_only_when_accepted(void **state)
{
	struct world *w = *state;
	const struct vk_tenant *a, *b, *again;
	assert_int_equal(vk_tenants_client(w->tenants, VK_LIT("sk-team-a"), &a), VK_OK);
	assert_int_equal(vk_tenants_client(w->tenants, VK_LIT("sk-stranger"), &b), VK_OK);
	assert_true(a != b && vk_tenant_provisional(a) && vk_tenant_provisional(b));
	assert_null(strstr(a->name, "team"));
	assert_int_equal(vk_tenants_client(w->tenants, VK_LIT("sk-team-a"), &again), VK_OK);
	assert_ptr_equal(a, again);
	assert_int_equal(vk_tenants_accept(w->tenants, a), VK_OK);
	assert_false(vk_tenant_provisional(a));
	uint32_t id = a->id;
	char accepted[48], refused[48];
	snprintf(accepted, sizeof accepted, "%s", a->name);
	snprintf(refused, sizeof refused, "%s", b->name);
	uint8_t tag[VK_CACHE_TAG_SIZE], same[VK_CACHE_TAG_SIZE];
	tag_of(a, 0, tag);
	close_world(w);
	open_world(w);
	assert_null(vk_tenants_find(w->tenants, vk_bytes_of(refused)));
	const struct vk_tenant *t = vk_tenants_find(w->tenants, vk_bytes_of(accepted));
	assert_non_null(t);
	assert_int_equal(t->id, id);
	tag_of(t, 0, same);
	assert_memory_equal(tag, same, sizeof tag);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_tenant_default_secret_stays_over_a_restart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tenant_rotation_keeps_the_old_secrets_behind_the_new, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_tenant_bearer_is_kept_only_when_accepted, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
