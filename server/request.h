/*
 * What can be said about a request without knowing how it came: percent decoding, the Host rule,
 * request ids. Part of the HTTP door, apart from it so that it can be tested and fuzzed alone.
 */
#ifndef VK_SERVER_REQUEST_H
#define VK_SERVER_REQUEST_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/bytes.h"

/*
 * Decodes %XX (and, in queries, + as a space) into the arena; what has no escape is returned as it
 * is. VK_E_INVALID for a bad escape or a NUL, VK_E_NOMEM.
 */
enum vk_status vk_percent_decode(struct vk_arena *a, struct vk_bytes text, bool plus,
				 struct vk_bytes *out);

/*
 * May a request with this Host be answered? Against DNS rebinding: a page of evil.example that
 * resolves to 127.0.0.1 sends "Host: evil.example". Names of this machine itself, IP literals (a
 * page's own origin then, nothing was rebound) and the listed names are fine. `extra` NULL: no names.
 */
bool vk_host_allowed(struct vk_bytes host, const char *const *extra);

/* A client's own request id that may be logged and sent back: 1 to 32 of [A-Za-z0-9._-]. */
bool vk_request_id_sane(struct vk_bytes id);

#endif
