/*
 * The command line's HTTP client: calls over embed/upstream.h (its thread does the work), waited
 * for here. One call is a round trip; several may be under way (vk_ask_send, later vk_ask_wait),
 * which is how `veckeep embed` keeps the server busy.
 *
 * What a person needs to know about a failure is said on standard error by vk_ask_report(), which
 * also gives the exit code: 75 when trying again may help (nobody listens, time out, 429, 503, any 5xx
 * that says when), else 1.
 */
#ifndef VK_SERVER_CLI_CLIENT_H
#define VK_SERVER_CLI_CLIENT_H

#include <pthread.h>

#include "base/arena.h"
#include "base/json.h"
#include "embed/upstream.h"
#include "server/cli.h"

#define VK_ASK_HEADERS_MAX 8

struct vk_client {
	const struct vk_cli *cli;
	struct vk_upstream *upstream;
	char *base;              /* URL without its last slash */
	char *authorization;     /* "Authorization: Bearer ...", or NULL */
	pthread_mutex_t lock;    /* guards every call's `ended` */
	pthread_cond_t changed;
};

struct vk_ask {
	struct vk_client *client;
	struct vk_xfer x;
	const char *headers[VK_ASK_HEADERS_MAX];
	size_t headers_n;
	struct vk_buf url, body;     /* the request's; owned */
	struct vk_buf reply_headers; /* name NUL value NUL ... */
	bool ended;
};

/* Starts the client; says why and gives the exit code when that fails, else 0. */
int vk_client_open(struct vk_client *c, const struct vk_cli *cli);
void vk_client_close(struct vk_client *c);

/* A call that is not sent yet: add headers (static or longer-lived strings) and the body. */
void vk_ask_init(struct vk_ask *call, struct vk_client *c, const char *method, const char *path);
void vk_ask_header(struct vk_ask *call, const char *line);
void vk_ask_send(struct vk_ask *call, uint64_t start_at_ms);
/* To somebody else's address, by their rules (doctor): own CA file, private addresses or not. */
void vk_ask_send_to(struct vk_ask *call, const char *ca_file, bool private_ok,
		     uint32_t connect_timeout_ms);
void vk_ask_wait(struct vk_ask *call);
void vk_ask_free(struct vk_ask *call);

/* After vk_ask_wait(): */
bool vk_ask_ok(const struct vk_ask *call); /* a reply with a 2xx status */
const char *vk_ask_reply_header(const struct vk_ask *call, const char *name); /* NULL: absent */
bool vk_ask_again(const struct vk_ask *call); /* trying again may help */
int vk_ask_report(const struct vk_ask *call, const char *about);

/* A round trip whose reply is JSON. Returns the exit code after saying what failed; 0: reply holds
 * the document. body p == NULL: none. Free the reply either way. */
struct vk_json_reply {
	struct vk_ask call;
	struct vk_arena arena;
	struct vk_json *doc;
	const vk_jv *root;
};
int vk_client_json(struct vk_client *c, const char *method, const char *path, struct vk_bytes body,
		   struct vk_json_reply *reply);
void vk_json_reply_free(struct vk_json_reply *reply);
/* The reply's text as it came, on standard output, with a line's end. */
void vk_json_reply_print(const struct vk_json_reply *reply);

/* A command that is one request: opens a client, asks, prints the reply as it came (--json) or by show(), which gives the exit code.
 * show may ask more through reply->call.client. */
int vk_client_show(const struct vk_cli *cli, const char *method, const char *path, struct vk_bytes body,
		   int (*show)(struct vk_json_reply *reply));

/* Members for tables: "" and 0 where they are absent or of another type. Strings are in the arena. */
const char *vk_reply_str(struct vk_json_reply *reply, const vk_jv *object, const char *key);
uint64_t vk_reply_u64(const vk_jv *object, const char *key);
double vk_reply_f64(const vk_jv *object, const char *key);
bool vk_reply_bool(const vk_jv *object, const char *key);
/* The strings of a list, joined by ", ". */
const char *vk_reply_list(struct vk_json_reply *reply, const vk_jv *object, const char *key);

/* Percent-encodes s into b. */
void vk_url_put(struct vk_buf *b, const char *s, bool keep_slashes);

#endif
