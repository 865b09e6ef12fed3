/*
 * A provider's wire format: a const table of functions chosen once by name. Pure: builds the
 * request's bytes, reads the reply's; sends nothing, keeps nothing. No flow asks which one it has.
 *
 * Replies are not believed (DESIGN section 5): the count must be n, indices a permutation of
 * 0..n-1 or all absent, one dimension and the expected one, every value finite, no zero vector.
 * A number array or base64 is accepted whatever was asked. Anything else is VK_E_UPSTREAM and
 * nothing of the reply is used.
 */
#ifndef VK_EMBED_DIALECT_H
#define VK_EMBED_DIALECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "embed/registry.h"
#include "embed/retry.h"
#include "embed/upstream.h"

struct vk_call_item {
	struct vk_bytes text;   /* UTF-8 without prefix; p == NULL: tokens */
	const uint32_t *tokens;
	size_t tokens_n;
};

/* One planned upstream call: all items of one space, role, parameters, credential. */
struct vk_call {
	const struct vk_provider *provider;
	const struct vk_space *space;
	const struct vk_role *role;
	const char *model;             /* the provider's name */
	const char *params;            /* passed parameters: a JSON object, or NULL */
	struct vk_bytes bearer;        /* resolved secret, "" for none */
	const struct vk_call_item *items;
	size_t n;
};

struct vk_wire { /* built in the arena */
	const char *url;
	const char *headers[VK_XFER_HEADERS_MAX + 1];
	struct vk_bytes body;
};

struct vk_answer {
	float *rows;           /* n x dims in the order of call->items, arena memory */
	uint32_t *tokens;      /* n: per item where the provider says so, else its share */
	uint32_t tokens_total; /* billed; 0: not said */
	bool tokens_exact;     /* per item counts are the provider's own (n == 1 counts as exact) */
	bool *truncated;       /* n, or NULL when the provider does not say */
};

struct vk_dialect {
	const char *name;
	bool local;            /* builtin: no HTTP, build and parse are NULL */
	bool tokens_ok;        /* takes token arrays */
	struct vk_caps caps;   /* defaults */
	const char *path;      /* default path below base_url */
	const char *role_field;/* the provider's field for roles where the config names none; NULL: none */
	const char *key_variable_hint;
	enum vk_status (*build)(const struct vk_call *call, struct vk_arena *arena,
				struct vk_wire *out, struct vk_error *err);
	/* body of a 2xx reply; tokens_header as in vk_xfer. VK_E_UPSTREAM with text when it lies. A 200
	 * that carries an error object fills *verdict (fault != NONE) and returns VK_E_UPSTREAM. */
	enum vk_status (*parse)(const struct vk_call *call, struct vk_bytes body,
				uint32_t tokens_header, struct vk_arena *arena,
				struct vk_answer *out, struct vk_verdict *verdict,
				struct vk_error *err);
};

const struct vk_dialect *vk_dialect_find(struct vk_bytes name); /* NULL: unknown */
/* Names joined by ", " for error texts and --help. */
const char *vk_dialect_names(void);

#endif
