/*
 * Goal: paths reach the right handler, and everything else the right error in its API's shape.
 * Method: dispatch on requests made by hand (no socket), reply bodies compared as text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "server/error.h"
#include "server/router.h"

static void answer(void *app, struct vk_req *req)
{
	*(const char **)app = req->route;
	req->reply.status = 200;
}

static const struct vk_route routes[] = {
	{VK_GET, "/", "root", 0, answer, true},
	{VK_GET, "/v1/models", "models", 0, answer, false},
	{VK_GET, "/v1/models/{id}", "model", 0, answer, false},
	{VK_GET, "/collections/{c}/points/{id}", "point", 0, answer, false},
	{VK_POST, "/collections/{c}/points/search", "search", 0, answer, false},
	{VK_POST, "/collections/{c}/points/{id}", "point_post", 0, answer, false},
	{VK_PUT, "/collections/{c}", "create", VK_SCOPE_WRITE, answer, false},
	{VK_GET, "/ui/{rest...}", "ui", 0, answer, false},
	{VK_GET, "/healthz", "health", 0, answer, true},
};

struct fixture {
	struct vk_router *router;
	struct vk_req req;
	const char *route;
};

static void open_fixture(struct fixture *f)
{
	struct vk_error err;
	*f = (struct fixture){0};
	assert_int_equal(vk_router_new(routes, sizeof routes / sizeof *routes, NULL, &f->router, &err), VK_OK);
	vk_arena_init(&f->req.arena, 1 << 20);
}

static int dispatch(struct fixture *f, enum vk_method method, const char *path)
{
	vk_buf_free(&f->req.reply.body);
	vk_arena_reset(&f->req.arena);
	f->req.reply = (struct vk_reply){.body = {.max = 1 << 16}};
	f->req.method = method;
	f->req.path = vk_bytes_of(path);
	f->req.route = "other";
	f->route = NULL;
	vk_router_dispatch(f->router, &f->route, &f->req, 0);
	return f->req.reply.status;
}

static const char *header(const struct fixture *f, const char *name)
{
	for (unsigned i = 0; i < f->req.reply.headers; i++)
		if (!strcmp(f->req.reply.header[i].name, name)) return f->req.reply.header[i].value;
	return NULL;
}

static void close_fixture(struct fixture *f)
{
	vk_buf_free(&f->req.reply.body);
	vk_arena_free(&f->req.arena);
	vk_router_free(f->router);
}

static void param_is(struct fixture *f, const char *name, const char *want)
{
	struct vk_bytes v = vk_req_param(&f->req, name);
	assert_non_null(v.p);
	assert_true(vk_bytes_is(v, want));
}

static void test_router_patterns_match_segments(void **state)
{
	(void)state;
	struct fixture f;
	open_fixture(&f);
	static const struct {
		enum vk_method method;
		const char *path, *route;
	} good[] = {
		{VK_GET, "/", "root"}, {VK_GET, "/v1/models", "models"}, {VK_GET, "/v1/models/", "models"},
		{VK_HEAD, "/v1/models", "models"}, {VK_GET, "/v1/models/a%2Fb", "model"},
		{VK_GET, "/v1/model%73", "models"}, {VK_POST, "/collections/x/points/search", "search"},
		{VK_POST, "/collections/x/points/7", "point_post"}, {VK_GET, "/collections/x/points/search", "point"},
		{VK_GET, "/ui/a/b%20c", "ui"}, {VK_GET, "/ui/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18", "ui"},
	};
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_int_equal(dispatch(&f, good[i].method, good[i].path), 200);
		assert_string_equal(f.route, good[i].route);
	}
	dispatch(&f, VK_GET, "/v1/models/openai%2Fada%20%C3%A9");
	param_is(&f, "id", "openai/ada \xc3\xa9");
	assert_null(vk_req_param(&f.req, "other").p);
	dispatch(&f, VK_GET, "/collections/a+b/points/1-2");
	param_is(&f, "c", "a+b");
	param_is(&f, "id", "1-2");
	dispatch(&f, VK_GET, "/ui/js/app%2ejs");
	param_is(&f, "rest", "js/app.js");
	close_fixture(&f);
}

static void test_router_unknown_paths_are_404_in_their_apis_shape(void **state)
{
	(void)state;
	struct fixture f;
	open_fixture(&f);
	static const char *const missing[] = {"/v1", "/v1/models/a/b", "///", "/v1//models", "/v1/models//", "/ui", "/collections"};
	for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
		assert_int_equal(dispatch(&f, VK_GET, missing[i]), 404);
		assert_null(f.route);
	}
	dispatch(&f, VK_GET, "/v1/what");
	assert_string_equal(vk_buf_cstr(&f.req.reply.body),
			    "{\"error\":{\"message\":\"There is nothing at this path.\",\"type\":\"not_found_error\","
			    "\"param\":null,\"code\":\"unknown_url\"}}");
	assert_string_equal(header(&f, "x-should-retry"), "false");
	dispatch(&f, VK_GET, "/api/what");
	assert_string_equal(vk_buf_cstr(&f.req.reply.body), "{\"error\":\"There is nothing at this path.\"}");
	dispatch(&f, VK_GET, "/collections/a/b/c");
	assert_string_equal(vk_buf_cstr(&f.req.reply.body),
			    "{\"status\":{\"error\":\"There is nothing at this path.\"},\"time\":0.0}");
	static const char *const chat[] = {"/v1/chat/completions", "/chat/completions", "/v1/completions", "/responses/"};
	for (size_t i = 0; i < sizeof chat / sizeof *chat; i++) {
		assert_int_equal(dispatch(&f, VK_POST, chat[i]), 404);
		assert_non_null(strstr(vk_buf_cstr(&f.req.reply.body), "veckeep keeps embeddings"));
	}
	close_fixture(&f);
}

static void test_router_wrong_method_is_405_with_allow(void **state)
{
	(void)state;
	struct fixture f;
	open_fixture(&f);
	assert_int_equal(dispatch(&f, VK_DELETE, "/v1/models"), 405);
	assert_string_equal(header(&f, "Allow"), "GET, HEAD");
	assert_int_equal(dispatch(&f, VK_METHOD_OTHER, "/collections/x/points/search"), 405);
	assert_string_equal(header(&f, "Allow"), "GET, HEAD, POST");
	assert_int_equal(dispatch(&f, VK_OPTIONS, "/collections/x"), 204);
	assert_string_equal(header(&f, "Allow"), "PUT");
	assert_null(header(&f, "Access-Control-Allow-Origin"));
	assert_int_equal(dispatch(&f, VK_OPTIONS, "/nothing"), 404);
	close_fixture(&f);
}

static void test_router_bad_escapes_are_400(void **state)
{
	(void)state;
	struct fixture f;
	open_fixture(&f);
	static const char *const bad[] = {"/v1/models/%", "/v1/models/%2", "/v1/models/%zz", "/v1/models/a%00b",
					  "/ui/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/%q"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(dispatch(&f, VK_GET, bad[i]), 400);
	close_fixture(&f);
}

static void test_router_draining_serves_only_health(void **state)
{
	(void)state;
	struct fixture f;
	open_fixture(&f);
	f.req.draining = true;
	assert_int_equal(dispatch(&f, VK_GET, "/healthz"), 200);
	assert_int_equal(dispatch(&f, VK_GET, "/v1/models"), 503);
	assert_string_equal(header(&f, "Retry-After"), "1");
	assert_string_equal(header(&f, "retry-after-ms"), "1000");
	close_fixture(&f);
}

/* Keys from a config: scopes, and the closed door for strangers when there are none. */
static void test_router_needs_keys_and_scopes(void **state)
{
	(void)state;
	struct vk_error err;
	struct vk_keys *keys;
	struct fixture f;
	open_fixture(&f);
	vk_router_free(f.router);
	unsetenv("VECKEEP_ADMIN_KEY");
	unsetenv("VECKEEP_ADMIN_KEY_FILE");
	assert_int_equal(vk_keys_open(NULL, &keys, &err), VK_OK);
	assert_int_equal(vk_router_new(routes, sizeof routes / sizeof *routes, keys, &f.router, &err), VK_OK);
	assert_int_equal(dispatch(&f, VK_GET, "/v1/models"), 401);
	assert_string_equal(header(&f, "WWW-Authenticate"), "Bearer realm=\"veckeep\"");
	assert_int_equal(dispatch(&f, VK_GET, "/healthz"), 200);
	close_fixture(&f);
	vk_keys_close(keys);
}

static void test_router_impossible_pattern_is_named(void **state)
{
	(void)state;
	static const char *const bad[] = {"v1", "/{a...}/b", "/{}", "/{a", "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct vk_route r = {VK_GET, bad[i], "x", 0, answer, false};
		struct vk_router *router;
		struct vk_error err;
		assert_int_equal(vk_router_new(&r, 1, NULL, &router, &err), VK_E_INVALID);
		assert_non_null(strstr(err.text, bad[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_router_patterns_match_segments),
		cmocka_unit_test(test_router_unknown_paths_are_404_in_their_apis_shape),
		cmocka_unit_test(test_router_wrong_method_is_405_with_allow),
		cmocka_unit_test(test_router_bad_escapes_are_400),
		cmocka_unit_test(test_router_draining_serves_only_health),
		cmocka_unit_test(test_router_needs_keys_and_scopes),
		cmocka_unit_test(test_router_impossible_pattern_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
