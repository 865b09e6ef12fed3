/*
 * From a path to a handler: matching, 404 and 405 in the right shape, authentication and scope,
 * then the handler.
 *
 * Patterns: "/v1/models/{id}" matches one segment a name; a last "{rest...}" takes everything that
 * is left, slashes included. Segments are percent-decoded one by one, so an encoded slash stays
 * inside its segment; a bad escape is a 400. A literal beats a name, whatever the table's order; a
 * route whose method fits beats a more literal one whose does not (GET .../points/search is the
 * point with the id "search"). One trailing slash is forgiven. HEAD goes to the GET route. OPTIONS
 * without a route of its own answers 204 with Allow and nothing for CORS: that is off.
 *
 * Threads: any; read-only after vk_router_new() but for the two switches.
 */
#ifndef VK_SERVER_ROUTER_H
#define VK_SERVER_ROUTER_H

#include "server/auth.h"
#include "server/http.h"

struct vk_route {
	enum vk_method method;
	const char *pattern;
	const char *name;   /* for metrics and logs: few, static */
	uint32_t scope;     /* VK_SCOPE_* bits, all of which the caller needs; 0: any caller */
	vk_handler_fn *handler;
	bool always;        /* no authentication, and served while draining: health */
};

struct vk_router;
/* The table must outlive the router. VK_E_INVALID names a pattern that cannot be. keys NULL: all
 * callers are admin. */
enum vk_status vk_router_new(const struct vk_route *routes, size_t n, struct vk_keys *keys,
			     struct vk_router **out, struct vk_error *err);
void vk_router_free(struct vk_router *r);

/* Are bearers that are no veckeep keys let through as callers that may embed (auth.h)? Any time. */
void vk_router_set_forward(struct vk_router *r, bool forward_ok);

/* The configuration's `insecure: true`: with no key anywhere, strangers are admin too. Without it only
 * loopback callers are, so revoking the last key of a public server closes it. Any time. */
void vk_router_set_insecure(struct vk_router *r, bool insecure);

/* Runs the handler or fills the reply. now_ms: wall clock, for keys' expiry. */
void vk_router_dispatch(struct vk_router *r, void *app, struct vk_req *req, int64_t now_ms);

/* What {name} matched, decoded; p == NULL when the route has no such name. */
struct vk_bytes vk_req_param(const struct vk_req *req, const char *name);

#endif
