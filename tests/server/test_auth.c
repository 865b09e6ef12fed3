/*
 * Goal: who gets in, as what, and what is never shown. Method: keys from a configuration text, the
 * environment and a catalog in a temporary directory; every refusal is checked for its code.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "server/keys_internal.h"
#include "store/file.h"

#define NOW 1800000000000
#define NONE ((struct vk_bytes){NULL, 0})

static struct vk_keys *open_keys(struct vk_catalog *c)
{
	struct vk_keys *k;
	struct vk_error err;
	unsetenv("VECKEEP_ADMIN_KEY");
	unsetenv("VECKEEP_ADMIN_KEY_FILE");
	assert_int_equal(vk_keys_open(c, &k, &err), VK_OK);
	return k;
}

static enum vk_status set(struct vk_keys *k, const char *json, const char *dir, struct vk_error *err)
{
	struct vk_arena arena;
	struct vk_json *doc = NULL;
	vk_arena_init(&arena, 1 << 20);
	assert_int_equal(vk_json_parse(&arena, vk_bytes_of(json), NULL, &doc, err), VK_OK);
	enum vk_status st = vk_keys_set_config(k, vk_json_root(doc), dir, err);
	vk_json_free(doc);
	vk_arena_free(&arena);
	return st;
}

static enum vk_status bearer(struct vk_keys *k, const char *key, bool forward, struct vk_auth *a)
{
	char text[256];
	struct vk_error err;
	snprintf(text, sizeof text, "Bearer %s", key);
	enum vk_status st = vk_keys_authenticate(k, vk_bytes_of(text), NONE, forward, NOW, a, &err);
	if (st) assert_string_equal(err.code, "invalid_api_key");
	if (st) assert_null(strstr(err.text, key)); /* never echoed */
	return st;
}

static void test_auth_without_keys_everybody_is_admin(void **state)
{
	(void)state;
	struct vk_keys *k = open_keys(NULL);
	struct vk_auth a;
	assert_false(vk_keys_any(k));
	assert_int_equal(vk_keys_authenticate(k, NONE, NONE, false, NOW, &a, NULL), VK_OK);
	assert_int_equal(a.scopes, VK_SCOPE_ADMIN);
	assert_string_equal(a.key_id, "");
	vk_keys_close(k);
}

static void test_auth_config_keys_open_with_their_scopes(void **state)
{
	(void)state;
	struct vk_keys *k = open_keys(NULL);
	struct vk_error err;
	struct vk_auth a;
	setenv("TEST_KEY", "from-the-environment\n", 1);
	/* sha256 of "abc" */
	assert_int_equal(set(k, "[{\"name\":\"rag\",\"sha256\":\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\","
				"\"scopes\":[\"embed\",\"read\"],\"collections\":[\"a-*\",\"b\"]},"
				"{\"name\":\"env\",\"key\":\"${TEST_KEY}\",\"scopes\":\"write\",\"expires\":\"2020-01-01\"}]",
			     NULL, &err), VK_OK);
	assert_int_equal(bearer(k, "abc", false, &a), VK_OK);
	assert_string_equal(a.name, "rag");
	assert_int_equal(a.scopes, VK_SCOPE_EMBED | VK_SCOPE_READ);
	assert_string_equal(a.collections, "a-*,b");
	assert_true(vk_bytes_is(a.bearer, "abc"));
	assert_int_equal(bearer(k, "abd", false, &a), VK_E_UNAUTHORIZED);
	assert_int_equal(bearer(k, "from-the-environment", true, &a), VK_E_UNAUTHORIZED); /* expired, not forwarded */
	assert_int_equal(vk_keys_authenticate(k, NONE, NONE, true, NOW, &a, &err), VK_E_UNAUTHORIZED);
	assert_int_equal(vk_keys_authenticate(k, NONE, VK_LIT("abc"), false, NOW, &a, &err), VK_OK);
	assert_int_equal(vk_keys_authenticate(k, VK_LIT("Bearer proxy"), VK_LIT("abc"), false, NOW, &a, &err), VK_OK);
	assert_int_equal(vk_keys_authenticate(k, VK_LIT("Basic YWJj"), NONE, false, NOW, &a, &err), VK_E_UNAUTHORIZED);
	vk_keys_close(k);
}

static void test_auth_foreign_bearer_is_forwarded_only_when_allowed(void **state)
{
	(void)state;
	struct vk_keys *k = open_keys(NULL);
	struct vk_error err;
	struct vk_auth a;
	char text[VK_KEY_TEXT_MAX], id[64];
	assert_int_equal(set(k, "[{\"name\":\"x\",\"key\":\"a long enough key\",\"scopes\":[\"admin\"]}]", NULL, &err), VK_OK);
	assert_int_equal(bearer(k, "sk-team", false, &a), VK_E_UNAUTHORIZED);
	assert_int_equal(bearer(k, "sk-team", true, &a), VK_OK);
	assert_int_equal(a.scopes, VK_SCOPE_EMBED);
	assert_true(vk_bytes_is(a.bearer, "sk-team"));
	vk_keytext_make(text, id); /* one of ours that is not known: revoked, perhaps */
	assert_int_equal(bearer(k, text, true, &a), VK_E_UNAUTHORIZED);
	vk_keys_close(k);
}

static void test_auth_key_text_shows_damage(void **state)
{
	(void)state;
	char text[VK_KEY_TEXT_MAX], id[64], other[VK_KEY_TEXT_MAX];
	vk_keytext_make(text, id);
	vk_keytext_make(other, id);
	assert_string_not_equal(text, other);
	assert_int_equal(strlen(text), 68);
	assert_int_equal(vk_key_form_of(vk_bytes_of(text)), VK_KEY_GOOD);
	for (size_t i = 6; i < strlen(text); i++) {
		char saved = text[i];
		text[i] = saved == 'a' ? 'b' : 'a';
		assert_int_equal(vk_key_form_of(vk_bytes_of(text)), VK_KEY_DAMAGED);
		text[i] = saved;
	}
	assert_int_equal(vk_key_form_of((struct vk_bytes){text, 67}), VK_KEY_DAMAGED);
	assert_int_equal(vk_key_form_of(vk_bytes_of("sk-abc")), VK_KEY_FOREIGN);
}

static void test_auth_bad_config_is_named_and_changes_nothing(void **state)
{
	(void)state;
	struct vk_keys *k = open_keys(NULL);
	struct vk_error err;
	struct vk_auth a;
	static const char good[] = "[{\"name\":\"x\",\"key\":\"a long enough key\",\"scopes\":[\"read\"]}]";
	static const char *const bad[] = {
		"{}", "[1]", "[{\"name\":\"x\",\"scopes\":[\"read\"]}]",
		"[{\"name\":\"x\",\"key\":\"short\",\"scopes\":[\"read\"]}]",
		"[{\"name\":\"x\",\"key\":\"a long enough key\",\"scopes\":[\"rule\"]}]",
		"[{\"name\":\"x\",\"key\":\"a long enough key\",\"scopes\":[]}]",
		"[{\"name\":\"x\",\"key\":\"a long enough key\",\"scopes\":[\"read\"],\"scope\":1}]",
		"[{\"name\":\"x\",\"key\":\"${NOT_SET_ANYWHERE}\",\"scopes\":[\"read\"]}]",
		"[{\"name\":\"x\",\"key\":{\"file\":\"not-there\"},\"scopes\":[\"read\"]}]",
		"[{\"name\":\"x\",\"sha256\":\"12\",\"scopes\":[\"read\"]}]",
		"[{\"name\":\"x\",\"key\":\"a long enough key\",\"scopes\":[\"read\"],\"expires\":\"soon\"}]",
	};
	assert_int_equal(set(k, good, NULL, &err), VK_OK);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_not_equal(set(k, bad[i], "/nowhere", &err), VK_OK);
		assert_non_null(strstr(err.text, "keys"));
	}
	assert_int_equal(bearer(k, "a long enough key", false, &a), VK_OK);
	vk_keys_close(k);
}

static void test_auth_files_and_environment_give_keys(void **state)
{
	(void)state;
	char dir[] = "/tmp/vk_auth_XXXXXX", path[64];
	struct vk_error err;
	struct vk_auth a;
	assert_non_null(mkdtemp(dir));
	struct vk_keys *k = open_keys(NULL);
	assert_int_equal(vk_file_replace(dir, "secret", "file-key\n", 9, &err), VK_OK);
	assert_int_equal(set(k, "[{\"name\":\"f\",\"key\":{\"file\":\"secret\"},\"scopes\":[\"metrics\"]}]", dir, &err), VK_OK);
	assert_int_equal(bearer(k, "file-key", false, &a), VK_OK);
	assert_int_equal(a.scopes, VK_SCOPE_METRICS);
	snprintf(path, sizeof path, "%s/secret", dir);
	setenv("VECKEEP_ADMIN_KEY_FILE", path, 1);
	setenv("VECKEEP_ADMIN_KEY", "root", 1);
	assert_int_equal(vk_keys_set_config(k, NULL, NULL, &err), VK_OK);
	assert_int_equal(bearer(k, "root", false, &a), VK_OK);
	assert_string_equal(a.key_id, "admin");
	assert_int_equal(bearer(k, "file-key", false, &a), VK_OK);
	assert_int_equal(a.scopes, VK_SCOPE_ADMIN);
	vk_keys_close(k);
	unsetenv("VECKEEP_ADMIN_KEY");
	unsetenv("VECKEEP_ADMIN_KEY_FILE");
	vk_dir_remove(dir);
}

static void *knock(void *arg)
{
	struct vk_auth a;
	for (int i = 0; i < 3000; i++) bearer(arg, "abc", false, &a);
	return NULL;
}

static void test_auth_created_key_survives_restart_until_revoked(void **state)
{
	(void)state;
	char dir[] = "/tmp/vk_auth_XXXXXX", text[VK_KEY_TEXT_MAX], id[64];
	struct vk_catalog *c;
	struct vk_error err;
	struct vk_auth a;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(vk_catalog_open(dir, false, &c, &err), VK_OK);
	struct vk_keys *k = open_keys(c);
	struct vk_key_spec spec = {.name = "ci", .scopes = VK_SCOPE_READ | VK_SCOPE_WRITE, .collections = "ci-*"};
	assert_int_equal(vk_keys_create(k, &(struct vk_key_spec){.name = "x"}, NOW, text, id, &err), VK_E_INVALID);
	assert_int_equal(vk_keys_create(k, &spec, NOW, text, id, &err), VK_OK);
	for (int reopened = 0; reopened < 2; reopened++) {
		assert_int_equal(bearer(k, text, false, &a), VK_OK);
		assert_string_equal(a.key_id, id);
		assert_int_equal(a.scopes, spec.scopes);
		assert_string_equal(a.collections, "ci-*");
		if (reopened) break;
		vk_keys_close(k);
		k = open_keys(c);
	}
	struct vk_buf b;
	struct vk_jw w;
	vk_buf_init(&b, 1 << 16);
	vk_jw_init(&w, &b);
	vk_keys_write(k, &w);
	assert_non_null(strstr(vk_buf_cstr(&b), id));
	assert_non_null(strstr(vk_buf_cstr(&b), "\"scopes\":[\"read\",\"write\"]"));
	assert_null(strstr(vk_buf_cstr(&b), text + 19)); /* the secret */
	assert_null(strstr(vk_buf_cstr(&b), "sha256"));
	vk_buf_free(&b);
	/* Callers keep coming in while keys change. */
	pthread_t t;
	pthread_create(&t, NULL, knock, k);
	char text2[VK_KEY_TEXT_MAX], id2[64];
	for (int i = 0; i < 5; i++) {
		assert_int_equal(vk_keys_create(k, &spec, NOW, text2, id2, &err), VK_OK);
		assert_int_equal(vk_keys_revoke(k, id2, &err), VK_OK);
	}
	pthread_join(t, NULL);
	assert_int_equal(bearer(k, text2, true, &a), VK_E_UNAUTHORIZED);
	assert_int_equal(vk_keys_revoke(k, "nobody", &err), VK_E_NOT_FOUND);
	vk_keys_close(k);
	vk_catalog_close(c);
	vk_dir_remove(dir);
}

static void test_auth_scopes_and_loopback_words(void **state)
{
	(void)state;
	uint32_t s;
	char text[64];
	assert_true(vk_scopes_parse(VK_LIT("read, embed"), &s));
	vk_scopes_print(text, sizeof text, s);
	assert_string_equal(text, "read,embed");
	assert_false(vk_scopes_parse(VK_LIT(""), &s) || vk_scopes_parse(VK_LIT("read,"), &s) || vk_scopes_parse(VK_LIT("root"), &s));
	assert_true(vk_listen_is_loopback("127.0.0.1:1") && vk_listen_is_loopback("127.9.9.9:1"));
	assert_true(vk_listen_is_loopback("[::1]:1") && vk_listen_is_loopback("localhost:1"));
	assert_false(vk_listen_is_loopback("0.0.0.0:1") || vk_listen_is_loopback("*:1") || vk_listen_is_loopback(":1"));
	assert_false(vk_listen_is_loopback("127.0.0.1.evil.example:1") || vk_listen_is_loopback("[::]:1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_auth_without_keys_everybody_is_admin),
		cmocka_unit_test(test_auth_config_keys_open_with_their_scopes),
		cmocka_unit_test(test_auth_foreign_bearer_is_forwarded_only_when_allowed),
		cmocka_unit_test(test_auth_key_text_shows_damage),
		cmocka_unit_test(test_auth_bad_config_is_named_and_changes_nothing),
		cmocka_unit_test(test_auth_files_and_environment_give_keys),
		cmocka_unit_test(test_auth_created_key_survives_restart_until_revoked),
		cmocka_unit_test(test_auth_scopes_and_loopback_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
