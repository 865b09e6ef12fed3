/*
 * What the dialects share: the pieces of a request, and the one checking of replies. Private to
 * embed/dialect*.c and their tests.
 *
 * Building: vk_build_start(), fields in the wire's order, vk_build_finish(). Errors are kept
 * until finish, so a build function reads as the list of its fields.
 * Reading: vk_reply_open() parses and looks for an error object; vk_reply_expect() says how many
 * vectors came and makes room; vk_reply_row() checks one; vk_reply_finish() checks the whole,
 * shares the tokens out and frees. Each returns VK_E_UPSTREAM with the reason in err.
 */
#ifndef VK_EMBED_DIALECT_PARTS_H
#define VK_EMBED_DIALECT_PARTS_H

#include "base/json.h"
#include "embed/dialect.h"

/* ---- requests (dialect_request.c) ---- */

struct vk_build {
	const struct vk_call *call;
	struct vk_arena *arena;
	struct vk_wire *out;
	struct vk_error *err;
	struct vk_buf body;
	struct vk_jw w;
	enum vk_status st;
};

struct vk_build_auth { /* the dialect's own; the provider's knobs go before */
	const char *header, *prefix;
};

void vk_build_start(struct vk_build *b, const struct vk_call *call, struct vk_arena *arena,
		    struct vk_wire *out, struct vk_error *err);
/* base_url + path ("{model}" becomes the model's name, percent-encoded) + "?query=value". */
void vk_build_url(struct vk_build *b, const char *path, const char *query, const char *value);
void vk_build_headers(struct vk_build *b, const struct vk_build_auth *auth);
/* The inputs as an array of strings or token lists under `key`. */
void vk_build_inputs(struct vk_build *b, const char *key, bool tokens_ok);
/* True when the passed parameters or extra_body name the key: then they win. */
bool vk_build_given(const struct vk_build *b, const char *key);
/* dims_field, role_field. */
void vk_build_knobs(struct vk_build *b);
/* Passed parameters and extra_body, the end of the object, the body into the arena. */
enum vk_status vk_build_finish(struct vk_build *b);

/* ---- replies (dialect_reply.c) ---- */

struct vk_reply {
	const struct vk_call *call;
	struct vk_arena *arena; /* the answer's */
	struct vk_answer *out;
	struct vk_error *err;
	struct vk_arena own;    /* the document's */
	struct vk_json *doc;
	const vk_jv *root;
	uint8_t *seen;          /* n */
	void *decoded;          /* a row of base64, with room for its padding */
};

enum vk_status vk_reply_open(struct vk_reply *r, const struct vk_call *call, struct vk_bytes body,
			     struct vk_arena *arena, struct vk_answer *out,
			     struct vk_verdict *verdict, struct vk_error *err);
enum vk_status vk_reply_expect(struct vk_reply *r, size_t vectors);
/* vector: a list of numbers, or their bytes in base64. */
enum vk_status vk_reply_row(struct vk_reply *r, size_t place, const vk_jv *vector);
/* Ends the reading whatever happened: pass what the steps before returned. */
enum vk_status vk_reply_finish(struct vk_reply *r, enum vk_status st, uint32_t tokens_total);
/* A list of lists, in order; n == 1 may be the bare list. */
enum vk_status vk_reply_lists(struct vk_reply *r, const vk_jv *lists);
/* A count of tokens: an integer or a float, 0 for anything else. */
uint32_t vk_reply_tokens(const vk_jv *v);
/* VK_E_UPSTREAM: provider "x": ... */
enum vk_status vk_reply_lie(const struct vk_reply *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- the rows of the table ---- */

extern const struct vk_dialect vk_dialect_openai, vk_dialect_azure_openai, vk_dialect_ollama,
	vk_dialect_tei;

#endif
