/* What one embeddings call is, whatever its dialect, and the state that all calls share.
 *
 *   main.c     options, signals          dialect.c  four wire families, read and written
 *   calls.c    the flow of one call      fault.c    the table of faults
 *   stats.c    what was seen             admin.c    /_fake/..., models, health
 *
 * One thread: nothing here is locked. Strings of a call live in the arena until it is answered. */
#ifndef FAKE_FAKE_H
#define FAKE_FAKE_H

#include "http.h"
#include "json.h"
#include "vector.h"

enum { FAKE_DIMS_MAX = 16384, FAKE_RING = 100, FAKE_FAULTS_MAX = 32 };

struct fake_options {
	uint32_t dims;
	const char *dims_per_model;  /* "m=1536,n=8" */
	const char *space;           /* NULL: the request's model name */
	const char *models;          /* NULL: any; else "a,b" and 404 for others */
	char *api_key;               /* NULL: no check */
	const char *role_field;      /* with --strict: the one role field that is known */
	size_t caps_items, caps_tokens, caps_bytes, caps_input_tokens; /* 0: none */
	long delay_ms;
	bool strict, normalize, reject_empty, count_texts;
	uint64_t seed;
};

struct fake_input {
	const char *bytes;   /* UTF-8, or "\0tok" + u32 LE ids */
	size_t n;
	bool is_tokens;
	size_t tokens;       /* as usage counts them */
};

struct fake_item {
	float *row;
	uint32_t dims;
	long index;
	const char *index_raw; /* written in place of index */
	bool no_index, is_null;
};

struct fake_call {
	const struct fake_dialect *dialect;
	const char *model, *space, *role, *deployment;
	uint32_t dims;
	bool base64, single; /* single: the legacy answer with one bare vector */
	struct fake_input *inputs;
	size_t count, tokens;
	struct fake_item *items; /* with room for one more than count */
	size_t item_count;
};

struct fake;

struct fake_dialect {
	const char *name;
	bool positional;     /* no `index` on the wire */
	/* 0, or the HTTP status of an error already written into reply. */
	int (*read)(struct fake *f, const struct fake_json *body, struct fake_call *call,
		struct fake_reply *reply);
	void (*write)(struct fake *f, const struct fake_call *call, struct fake_buf *out,
		struct fake_buf *headers);
	void (*error)(struct fake_buf *out, int status, const char *type, const char *code,
		const char *message);
};

extern const struct fake_dialect fake_openai, fake_azure, fake_ollama, fake_ollama_old, fake_tei;

struct fake_map; /* string -> count */

struct fake_stats {
	uint64_t calls, inputs, tokens, ok_calls, ok_inputs, connections, gone;
	uint64_t in_flight, max_in_flight;
	struct fake_map *by_text, *by_key;
	struct fake_buf ring[FAKE_RING];
	uint64_t ring_n;
};

struct fake {
	struct fake_options opt;
	struct fake_arena arena;
	struct fake_stats stats;
	struct fake_fault *faults[FAKE_FAULTS_MAX];
	int fault_count;
	uint64_t rng;
	const char *fired[FAKE_FAULTS_MAX]; /* during the call at hand */
	int fired_count;
};

/* calls.c */
void fake_call_answer(struct fake *f, const struct fake_dialect *d, const char *deployment,
	const struct fake_request *req, struct fake_reply *reply);
int fake_refuse(struct fake_reply *reply, const struct fake_dialect *d, int status, const char *type,
	const char *code, const char *message);
uint32_t fake_dims_of(const struct fake *f, const char *model);
bool fake_list_has(const char *list, const char *word);

/* dialect.c: the route's dialect, or NULL; *deployment is set for Azure's path. */
const struct fake_dialect *fake_route(struct fake *f, const struct fake_request *req,
	const char **deployment);

/* fault.c */
const char *fake_fault_add(struct fake *f, const struct fake_json *spec); /* NULL, or why not */
void fake_faults_clear(struct fake *f);
void fake_faults_json(struct fake *f, struct fake_buf *out);
/* Faults in place of an answer: true when one has written the reply. */
bool fake_faults_instead(struct fake *f, struct fake_call *call, struct fake_reply *reply);
void fake_faults_rows(struct fake *f, struct fake_call *call);
void fake_faults_wire(struct fake *f, struct fake_call *call, struct fake_reply *reply);

/* stats.c */
void fake_stats_call(struct fake *f, const struct fake_call *call);
void fake_stats_request(struct fake *f, const struct fake_request *req, const struct fake_call *call,
	int status, bool body_is_json);
void fake_stats_json(struct fake *f, struct fake_buf *out, bool brief);
void fake_stats_reset(struct fake *f);

/* admin.c: everything that is not an embeddings call. */
void fake_admin_answer(struct fake *f, const struct fake_request *req, struct fake_reply *reply);

#endif
