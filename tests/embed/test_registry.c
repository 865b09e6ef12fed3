/*
 * Goal: a good config becomes the spaces, providers and names that it says, merged over what is
 * known; a bad one is refused as a whole with the place of the mistake; a space that was used keeps
 * its definition; no secret stands in an error.
 * Method: configs as text, an environment as a table, a catalog in a temporary directory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <unistd.h>

#include "base/log.h"
#include "embed/dialect.h"
#include "embed/registry.h"

static const char *const *variables; /* name, value, ..., NULL */

static const char *get(void *arg, const char *name)
{
	(void)arg;
	for (size_t i = 0; variables && variables[i]; i += 2)
		if (!strcmp(variables[i], name)) return variables[i + 1];
	return NULL;
}

static enum vk_status load(const char *config, struct vk_catalog *catalog, struct vk_registry **r,
			   struct vk_error *err)
{
	struct vk_arena a;
	struct vk_json *doc = NULL;
	struct vk_registry_env env = {get, NULL};
	vk_arena_init(&a, 1 << 20);
	*err = (struct vk_error){0};
	if (config) assert_int_equal(vk_json_parse(&a, vk_bytes_of(config), NULL, &doc, err), VK_OK);
	/* A directory without a model: the encoder is left out. */
	enum vk_status st = vk_registry_load(doc ? vk_json_root(doc) : NULL, "/nonexistent", &env, catalog, NULL, r, err);
	vk_json_free(doc);
	vk_arena_free(&a);
	return st;
}

#define P(more) "{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"https://a.example/v1\", " \
		"\"api_key\": \"sk-secret\"" more "}}"
#define S(more) ", \"spaces\": {\"s@1\": {\"route\": [{\"provider\": \"p\", \"model\": \"m\"}]" more "}}"

static void test_registry_bad_config_names_its_place(void **state)
{
	static const struct {
		const char *config, *place;
	} bad[] = {
		{"{\"providers\": []}", "providers: "},
		{"{\"providers\": {\"p\": {\"base_url\": \"https://a.example\"}}}", "providers.p: dialect is missing"},
		{"{\"providers\": {\"p\": {\"dialect\": \"opnai\"}}}", "providers.p: unknown dialect \"opnai\""},
		{"{\"providers\": {\"a-b\": {\"dialect\": \"openai\"}}}", "providers.\"a-b\": base_url is missing"},
		{P(", \"caps\": {\"items\": \"x\"}") "}", "providers.p.caps.items: "},
		{P(", \"capz\": {}") "}", "providers.p.capz: unknown field"},
		{P(", \"headers\": [\"X: 1\", \"X\"]") "}", "providers.p: headers[1]"},
		{P(", \"attempts\": 0") "}", "providers.p.attempts: "},
		{"{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"https://a\", \"api_key\": \"${NO_SUCH}\"}}}",
		 "providers.p.api_key: environment variable NO_SUCH is not set"},
		{"{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"https://a\", \"api_key\": {\"file\": \"nix\"}}}}",
		 "providers.p.api_key: cannot read the secret file /nonexistent/nix"},
		{"{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"https://a\", \"api_key\": {\"from\": \"us\"}}}}",
		 "providers.p.api_key: expected"},
		{"{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"http://a.example\"}}}", "providers.p: base_url is plain http"},
		{"{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"http://localhost.example\"}}}", "providers.p: base_url is plain http"},
		{"{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"http://127.example\"}}}", "providers.p: base_url is plain http"},
		{"{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"https://u:sk-secret@a.example\"}}}",
		 "providers.p: base_url must not hold credentials"},
		{"{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"ftp://a.example\"}}}", "providers.p: base_url must begin"},
		{P("") S("") "}", "spaces.\"s@1\": dims is missing"},
		{P("") S(", \"dims\": 0") "}", "spaces.\"s@1\".dims: "},
		{P("") S(", \"dims\": 4.5") "}", "spaces.\"s@1\".dims: "},
		{P("") S(", \"dims\": 4, \"dims_min\": 5") "}", "spaces.\"s@1\".dims_min: "},
		{P("") S(", \"dims\": 4, \"dims_allowed\": [\"x\"]") "}", "spaces.\"s@1\": dims_allowed"},
		{P("") S(", \"dims\": 4, \"roles\": {\"query\": {\"prefx\": \"\"}}") "}", "spaces.\"s@1\".roles.query.prefx: unknown field"},
		{P("") S(", \"dims\": 4, \"tokenizer\": \"o200k\"") "}", "spaces.\"s@1\".tokenizer: "},
		{P("") S(", \"dims\": 4, \"ttl\": \"soon\"") "}", "spaces.\"s@1\".ttl: "},
		{P("") S(", \"dims\": 4, \"canary\": 2") "}", "spaces.\"s@1\".canary: "},
		{P("") S(", \"dims\": 4, \"pass_params\": [1]") "}", "spaces.\"s@1\".pass_params: "},
		{P("") ", \"spaces\": {\"s@1\": {\"dims\": 4}}}", "spaces.\"s@1\": route is missing or empty"},
		{P("") ", \"spaces\": {\"s@1\": {\"dims\": 4, \"route\": [{\"provider\": \"p\", \"model\": \"m\"}, {\"provider\": \"y\"}]}}}",
		 "spaces.\"s@1\".route[1].provider: no such provider \"y\""},
		{P("") ", \"spaces\": {\"s@1\": {\"dims\": 4, \"route\": [{\"provider\": \"p\"}]}}}", "spaces.\"s@1\".route[0]: model is missing"},
		{P("") S(", \"dims\": 4") ", \"models\": {\"m\": \"t@1\"}}", "models.m: no such space \"t@1\""},
		{P("") S(", \"dims\": 4") ", \"models\": {\"m\": 5}}", "models.m: expected"},
		{P("") S(", \"dims\": 4") ", \"models\": {\"m\": {\"space\": \"s@1\", \"role\": \"cook\"}}}", "models.m: space s@1 has no role \"cook\""},
	};
	struct vk_registry *r;
	struct vk_error err;
	(void)state;
	variables = NULL;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		enum vk_status st = load(bad[i].config, NULL, &r, &err);
		if (st != VK_E_INVALID || strncmp(err.text, bad[i].place, strlen(bad[i].place)) != 0)
			fail_msg("%s\n is %d, %s\n  wants %s", bad[i].config, st, err.text, bad[i].place);
		assert_null(r);
		assert_null(strstr(err.text, "sk-secret"));
	}
}

static void test_registry_good_config_is_what_it_says(void **state)
{
	static const char *const env[] = {"KEY", "k1", NULL};
	struct vk_registry *r;
	struct vk_error err;
	const struct vk_role *role;
	size_t n;
	(void)state;
	variables = env;
	if (load("{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"https://a.example/v1//\", \"api_key\": \"x${KEY}y\","
		 " \"caps\": {\"items\": 9}}, \"lan\": {\"dialect\": \"tei\", \"base_url\": \"http://10.0.0.7:3000\", \"labels\": [\"onprem\"]}},"
		 "\"spaces\": {\"s@1\": {\"dims\": 8, \"matryoshka\": true, \"dims_min\": 2, \"ttl\": \"2h\", \"aliases\": [\"s\"],"
		 "\"roles\": {\"query\": {\"prefix\": \"q: \"}, \"document\": {\"value\": \"d\"}},"
		 "\"route\": [{\"provider\": \"p\", \"model\": \"m\", \"caps\": {\"items\": 3}}, {\"provider\": \"lan\", \"model\": \"m2\", \"weight\": 2}]}},"
		 "\"models\": {\"ask\": {\"space\": \"s@1\", \"role\": \"query\"}, \"a#b\": \"s@1\", \"docs\": {\"collection\": \"c\"}}}",
		 NULL, &r, &err))
		fail_msg("%s", err.text);
	const struct vk_space *s = vk_registry_space(r, VK_LIT("s@1"));
	assert_non_null(s);
	assert_int_equal(s->dims, 8);
	assert_int_equal(s->ttl_ms, 7200000);
	assert_int_equal(s->roles_n, 3);
	assert_int_equal(s->route_n, 2);
	assert_string_equal(s->route[0].provider->api_key.value, "xk1y");
	assert_string_equal(s->route[0].provider->base_url, "https://a.example/v1");
	assert_int_equal(s->route[0].provider->caps.items, 9);
	assert_int_equal(s->route[0].caps.items, 3);
	assert_false(s->route[0].provider->plain_ok);
	assert_true(s->route[1].provider->plain_ok && s->route[1].provider->private_ok);
	assert_true(vk_space_gives_dims(s, 2) && vk_space_gives_dims(s, 8));
	assert_false(vk_space_gives_dims(s, 1) || vk_space_gives_dims(s, 9));
	assert_ptr_equal(vk_registry_model(r, VK_LIT("s"), &role)->space, s);
	assert_null(role);
	assert_ptr_equal(vk_registry_model(r, VK_LIT("ask"), &role)->space, s);
	assert_string_equal(role->name, "query");
	assert_non_null(vk_registry_model(r, VK_LIT("s#document"), &role));
	assert_string_equal(role->name, "document");
	assert_non_null(vk_registry_model(r, VK_LIT("a#b"), &role)); /* the exact name first */
	assert_null(role);
	assert_null(vk_registry_model(r, VK_LIT("s#cook"), &role));
	assert_null(vk_registry_model(r, VK_LIT("nobody"), &role));
	assert_string_equal(vk_registry_model(r, VK_LIT("docs"), &role)->collection, "c");
	assert_string_equal(vk_space_role(s, VK_LIT("search_query"))->name, "query");
	assert_null(vk_space_role(s, VK_LIT("clustering"))); /* not quietly another task */
	vk_registry_providers(r, &n);
	assert_int_equal(n, 2);
	vk_registry_unref(r);
}

static void test_registry_known_space_takes_the_configs_fields_one_by_one(void **state)
{
	struct vk_registry *r;
	struct vk_error err;
	(void)state;
	variables = NULL;
	if (load("{\"providers\": {\"openai\": {\"api_key\": \"k\"}},"
		 "\"spaces\": {\"openai/text-embedding-3-small@1\": {\"ttl\": \"1d\"}}}", NULL, &r, &err))
		fail_msg("%s", err.text);
	const struct vk_space *s = vk_registry_space(r, VK_LIT("openai/text-embedding-3-small@1"));
	assert_non_null(s);
	assert_int_equal(s->dims, 1536);
	assert_true(s->matryoshka);
	assert_int_equal(s->ttl_ms, 86400000);
	assert_int_equal(s->route_n, 1); /* the known route's other providers are not configured */
	assert_string_equal(s->route[0].provider->name, "openai");
	assert_non_null(vk_registry_space(r, VK_LIT("openai/text-embedding-3-large@1")));
	assert_null(vk_registry_space(r, VK_LIT("voyage/voyage-4@1")));
	vk_registry_unref(r);
	assert_int_equal(load("{\"providers\": {\"p\": {\"dialect\": \"openai\", \"base_url\": \"https://a\"}},"
			      "\"spaces\": {\"openai/text-embedding-3-small@1\": {\"ttl\": \"1d\"}}}", NULL, &r, &err),
			 VK_E_INVALID);
	assert_non_null(strstr(err.text, "no configured provider serves this space"));
}

static void test_registry_without_config_takes_the_environments_keys(void **state)
{
	static const char *const env[] = {"OPENAI_API_KEY", "sk-secret", "VOYAGE_API_KEY", "", NULL};
	struct vk_registry *r;
	struct vk_error err;
	const struct vk_role *role;
	(void)state;
	variables = env;
	if (load(NULL, NULL, &r, &err)) fail_msg("%s", err.text);
	const struct vk_model_name *m = vk_registry_model(r, VK_LIT("text-embedding-3-small"), &role);
	assert_non_null(m);
	assert_string_equal(m->space->route[0].provider->api_key.value, "sk-secret");
	assert_null(vk_registry_space(r, VK_LIT("voyage/voyage-4@1"))); /* an empty variable is none */
	vk_registry_unref(r);
}

static void test_registry_used_space_keeps_its_definition(void **state)
{
	char dir[] = "/tmp/vk-registry-XXXXXX", path[64], command[64];
	struct vk_catalog *catalog;
	struct vk_registry *a, *b, *c, *d;
	struct vk_error err;
	(void)state;
	variables = NULL;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/catalog", dir);
	assert_int_equal(vk_catalog_open(path, false, &catalog, &err), VK_OK);
	assert_int_equal(load(P("") S(", \"dims\": 4") "}", catalog, &a, &err), VK_OK);
	/* Not used yet: it may still be another one. Both are alive, as over a reload. */
	assert_int_equal(load(P("") S(", \"dims\": 8") "}", catalog, &b, &err), VK_OK);
	const struct vk_space *sa = vk_registry_space(a, VK_LIT("s@1")), *sb = vk_registry_space(b, VK_LIT("s@1"));
	assert_int_equal(sa->num, sb->num);
	assert_int_equal(vk_space_pin(b, sb, catalog), VK_OK);
	assert_int_equal(vk_space_pin(b, sb, catalog), VK_OK);
	assert_int_equal(vk_space_pin(a, sa, catalog), VK_E_EXISTS); /* whoever came first */
	assert_int_equal(load(P("") S(", \"dims\": 4") "}", catalog, &c, &err), VK_E_INVALID);
	assert_non_null(strstr(err.text, "spaces.\"s@1\": this id is pinned to another definition"));
	/* Limits, prices and times are no part of it. */
	assert_int_equal(load(P(", \"caps\": {\"items\": 2}") S(", \"dims\": 8, \"ttl\": \"1d\", \"price\": {\"per_mtok\": 1}") "}",
			      catalog, &d, &err), VK_OK);
	assert_int_equal(vk_space_pin(d, vk_registry_space(d, VK_LIT("s@1")), catalog), VK_OK);
	vk_registry_unref(a);
	vk_registry_unref(b);
	vk_registry_unref(d);
	vk_catalog_close(catalog);
	snprintf(command, sizeof command, "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

static int quiet(void **state)
{
	(void)state;
	vk_log_set_level(VK_LOG_ERROR);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registry_bad_config_names_its_place),
		cmocka_unit_test(test_registry_good_config_is_what_it_says),
		cmocka_unit_test(test_registry_known_space_takes_the_configs_fields_one_by_one),
		cmocka_unit_test(test_registry_without_config_takes_the_environments_keys),
		cmocka_unit_test(test_registry_used_space_keeps_its_definition),
	};
	return cmocka_run_group_tests(tests, quiet, NULL);
}
