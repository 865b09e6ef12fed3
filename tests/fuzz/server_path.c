/*
 * What strangers send in a request target: router, percent decoding, query, Host, Accept-Encoding
 * and keys' texts. The first byte is the method, the rest the target. Whatever it is, there is one
 * answer with a status, and what was matched decodes to something no longer than it came.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "server/gzip.h"
#include "server/keys_internal.h"
#include "server/request.h"
#include "server/router.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void answer(void *app, struct vk_req *req)
{
	size_t path_n = *(size_t *)app;
	for (unsigned i = 0; i < req->params; i++) assert(req->param[i].value.n <= path_n);
	req->reply.status = 200;
}

static const struct vk_route routes[] = {
	{VK_GET, "/", "root", 0, answer, true},
	{VK_GET, "/v1/models/{id}", "model", 0, answer, false},
	{VK_PUT, "/collections/{c}/points/{id}", "point", 0, answer, false},
	{VK_POST, "/collections/{c}/points/search", "search", 0, answer, false},
	{VK_GET, "/ui/{rest...}", "ui", 0, answer, true},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct vk_router *router;
	struct vk_error err;
	if (!router && vk_router_new(routes, sizeof routes / sizeof *routes, NULL, &router, &err)) abort();
	if (!n || n > 4096) return 0;
	struct vk_bytes target = {(const char *)data + 1, n - 1};
	const char *mark = target.n ? memchr(target.p, '?', target.n) : NULL;
	struct vk_req req = {.method = (enum vk_method)(data[0] % (VK_METHOD_OTHER + 1)), .path = target};
	if (mark) {
		req.path.n = (size_t)(mark - target.p);
		req.query = (struct vk_bytes){mark + 1, target.n - req.path.n - 1};
	}
	vk_arena_init(&req.arena, 1 << 20);
	req.reply.body.max = 1 << 16;
	/* The door lets nothing else through. */
	if (req.path.n && req.path.p[0] == '/') {
		size_t path_n = req.path.n;
		vk_router_dispatch(router, &path_n, &req, 0);
		assert(req.reply.status >= 200 && req.reply.status < 600);
		struct vk_bytes v = vk_req_query(&req, "q");
		assert(!v.p || v.n <= req.query.n);
	}
	vk_host_allowed(target, NULL);
	vk_request_id_sane(target);
	vk_gzip_accepted(target);
	vk_key_form_of(target);
	uint32_t scopes;
	vk_scopes_parse(target, &scopes);
	vk_buf_free(&req.reply.body);
	vk_arena_free(&req.arena);
	return 0;
}
