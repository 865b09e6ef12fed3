/*
 * The embed flow, whatever API it came through: each inbound API decodes its body into a struct
 * vk_embedding and says how the answer is written; this does the rest (resolve, look up, park,
 * fetch, reply).
 */
#ifndef VK_SERVER_EMBEDDING_H
#define VK_SERVER_EMBEDDING_H

#include "base/json.h"
#include "server/app.h"

enum vk_encoding { VK_ENC_FLOAT, VK_ENC_BASE64, VK_ENC_OCTETS };

struct vk_embedding {
	struct vk_app *app;
	struct vk_req *req;
	struct vk_json *doc;        /* the body; inputs point into it */
	struct vk_registry *registry;

	/* Decoded: */
	struct vk_bytes model;
	struct vk_bytes role;       /* p == NULL: not said */
	bool lone;                  /* one input that was not in a list */
	struct vk_input *inputs;
	size_t n;
	uint64_t dims;              /* 0: native */
	enum vk_encoding encoding;
	const vk_jv *body;          /* for pass_params */
	const char *fields;         /* known fields of this API, space-separated; others are refused */
	bool truncate_refused;      /* "truncate": false: a cut input is an error */
	void (*write)(struct vk_embedding *em); /* fills the reply's body */

	/* Resolved: */
	const struct vk_space *space;
	struct vk_op op;
	bool only_if_cached;
	uint64_t deadline_ms;       /* monotonic */
};

/* Allocates in the request's arena and parses the body. NULL: the error reply is filled. */
struct vk_embedding *vk_embedding_new(struct vk_app *app, struct vk_req *req);
/* Reads inputs in OpenAI's four forms: text, text[], tokens, tokens[][]. field is for errors. */
enum vk_status vk_embedding_inputs(struct vk_embedding *em, const vk_jv *v, const char *field,
				   struct vk_error *err);
/* From decoded to replied, perhaps by way of the park. Takes em over. */
void vk_embedding_run(struct vk_embedding *em);
/* Lets go of what em holds, for a flow that has filled the reply itself. */
void vk_embedding_drop(struct vk_embedding *em);
/* Replies with the error and lets go of what em holds. */
void vk_embedding_fail(struct vk_embedding *em, const struct vk_error *err);

/* The row of input i in the asked dims: the stored one, or cut into scratch (space->dims floats). */
const float *vk_embedding_row(struct vk_embedding *em, size_t i, float *scratch);
float *vk_embedding_scratch(struct vk_embedding *em);

/* The passed parameters in RFC 8785 form in the arena; NULL with *err filled, "" when none. */
const char *vk_params_canonical(struct vk_arena *a, const vk_jv *body, const char *const *names,
				struct vk_error *err);

#endif
