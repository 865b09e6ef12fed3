/* Calls: sent to the upstream thread, waited for on one condition; errors in words for people. */
#include "server/cli_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"

#define REPLY_MAX ((uint64_t)1 << 30)
#define REQUEST_MAX ((size_t)64 << 20)
#define HEADERS_MAX ((size_t)64 << 10)
#define KEY_MAX 4096
#define CONNECT_TIMEOUT_MS 5000
#define ARENA_MAX ((size_t)1 << 30)

/* The key's first line; NULL after saying what is wrong. */
static char *read_key_file(const struct vk_cli *cli)
{
	char text[KEY_MAX + 1];
	int fd = open(cli->api_key_file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, KEY_MAX);
	int error = errno;
	if (fd >= 0) close(fd);
	if (n < 0) {
		vk_cli_say(cli, 0, "%s: %s", cli->api_key_file, strerror(error));
		return NULL;
	}
	text[n] = 0;
	text[strcspn(text, "\r\n")] = 0;
	char *key = strdup(text);
	vk_wipe(text, sizeof text);
	if (key && *key) return key;
	vk_cli_say(cli, 0, "%s: no API key in it", cli->api_key_file);
	free(key);
	return NULL;
}

static int set_authorization(struct vk_client *c)
{
	const struct vk_cli *cli = c->cli;
	char *key = NULL;
	if (cli->api_key_file) {
		key = read_key_file(cli);
		if (!key) return VK_EXIT_FAILED;
	} else if (cli->api_key) {
		key = strdup(cli->api_key);
	}
	if (!key) return 0;
	if (asprintf(&c->authorization, "Authorization: Bearer %s", key) < 0) c->authorization = NULL;
	vk_wipe(key, strlen(key));
	free(key);
	return c->authorization ? 0 : vk_cli_say(cli, VK_EXIT_FAILED, "out of memory");
}

int vk_client_open(struct vk_client *c, const struct vk_cli *cli)
{
	struct vk_error err = {0};
	*c = (struct vk_client){.cli = cli};
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	vk_log_set_level(VK_LOG_OFF);
	bool http = !strncasecmp(cli->url, "http://", 7) || !strncasecmp(cli->url, "https://", 8);
	c->base = strdup(cli->url);
	for (size_t n = c->base ? strlen(c->base) : 0; n && c->base[n - 1] == '/'; n--) c->base[n - 1] = 0;
	int rc = http ? 0 : vk_cli_say(cli, VK_EXIT_MISUSE, "the server's URL must begin with http:// or https://, not %s",
				       cli->url);
	if (!rc) rc = set_authorization(c);
	if (!rc && !c->base) rc = vk_cli_say(cli, VK_EXIT_FAILED, "out of memory");
	if (!rc && vk_upstream_start(&c->upstream, &err)) rc = vk_cli_say(cli, VK_EXIT_FAILED, "%s", err.text);
	if (rc) vk_client_close(c);
	return rc;
}

void vk_client_close(struct vk_client *c)
{
	vk_upstream_stop(c->upstream);
	c->upstream = NULL;
	if (c->authorization) vk_wipe(c->authorization, strlen(c->authorization));
	free(c->authorization);
	free(c->base);
	c->authorization = c->base = NULL;
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->changed);
}

/* --- a call --- */

void vk_ask_init(struct vk_ask *call, struct vk_client *c, const char *method, const char *path)
{
	*call = (struct vk_ask){.client = c};
	vk_buf_init(&call->url, 65536);
	vk_buf_init(&call->body, REQUEST_MAX);
	vk_buf_init(&call->reply_headers, HEADERS_MAX);
	vk_buf_printf(&call->url, "%s%s", c->base, path);
	call->x.method = method;
	if (c->authorization) vk_ask_header(call, c->authorization);
}

void vk_ask_header(struct vk_ask *call, const char *line)
{
	if (call->headers_n + 1 < VK_ASK_HEADERS_MAX) call->headers[call->headers_n++] = line;
}

static void take_header(struct vk_xfer *x, struct vk_bytes name, struct vk_bytes value)
{
	struct vk_ask *call = x->arg;
	vk_buf_put(&call->reply_headers, name.p, name.n);
	vk_buf_putc(&call->reply_headers, 0);
	vk_buf_put(&call->reply_headers, value.p, value.n);
	vk_buf_putc(&call->reply_headers, 0);
}

static void done(struct vk_xfer *x)
{
	struct vk_ask *call = x->arg;
	struct vk_client *c = call->client;
	pthread_mutex_lock(&c->lock);
	call->ended = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static void send_call(struct vk_ask *call)
{
	struct vk_client *c = call->client;
	struct vk_xfer *x = &call->x;
	call->ended = false;
	call->reply_headers.n = 0;
	vk_buf_free(&x->reply);
	x->url = vk_buf_cstr(&call->url);
	x->headers = call->headers;
	x->body = vk_buf_bytes(&call->body);
	x->timeout_ms = c->cli->timeout_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)c->cli->timeout_ms;
	x->reply_bytes_max = REPLY_MAX;
	x->header = take_header;
	x->done = done;
	x->arg = call;
	vk_upstream_send(c->upstream, x);
}

void vk_ask_send(struct vk_ask *call, uint64_t start_at_ms)
{
	call->x.start_at_ms = start_at_ms;
	call->x.ca_file = call->client->cli->ca_file;
	call->x.private_ok = true; /* the operator named the server */
	call->x.connect_timeout_ms = CONNECT_TIMEOUT_MS;
	send_call(call);
}

void vk_ask_send_to(struct vk_ask *call, const char *ca_file, bool private_ok,
		     uint32_t connect_timeout_ms)
{
	call->x.ca_file = ca_file;
	call->x.private_ok = private_ok;
	call->x.connect_timeout_ms = connect_timeout_ms;
	send_call(call);
}

void vk_ask_wait(struct vk_ask *call)
{
	struct vk_client *c = call->client;
	pthread_mutex_lock(&c->lock);
	while (!call->ended) pthread_cond_wait(&c->changed, &c->lock);
	pthread_mutex_unlock(&c->lock);
}

void vk_ask_free(struct vk_ask *call)
{
	vk_buf_free(&call->url);
	vk_buf_free(&call->body);
	vk_buf_free(&call->reply_headers);
	vk_buf_free(&call->x.reply);
}

bool vk_ask_ok(const struct vk_ask *call)
{
	return call->x.end == VK_XFER_OK && call->x.status >= 200 && call->x.status < 300;
}

const char *vk_ask_reply_header(const struct vk_ask *call, const char *name)
{
	const char *p = call->reply_headers.p, *end = p + call->reply_headers.n;
	if (call->reply_headers.failed) return NULL;
	while (p && p < end) {
		const char *value = p + strlen(p) + 1;
		if (!strcasecmp(p, name)) return value;
		p = value + strlen(value) + 1;
	}
	return NULL;
}

bool vk_ask_again(const struct vk_ask *call)
{
	const struct vk_xfer *x = &call->x;
	if (x->end == VK_XFER_CONNECT || x->end == VK_XFER_TIMEOUT || x->end == VK_XFER_BROKEN) return true;
	bool later = x->status == 429 || x->status == 503 || (x->status >= 500 && x->retry_after_ms >= 0);
	return x->end == VK_XFER_OK && later && x->should_retry != 0;
}

/* --- errors --- */

/* What may stand on a terminal. */
static void print_plain(struct vk_bytes s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char ch = (unsigned char)s.p[i];
		fputc(ch < 0x20 || ch == 0x7f ? ' ' : ch, stderr);
	}
}

/* The error object's message, code and param; the body's first bytes when it is none. */
static void print_error_body(const struct vk_ask *call)
{
	struct vk_arena arena;
	struct vk_json *doc = NULL;
	struct vk_bytes body = vk_buf_bytes(&call->x.reply), message = {0}, code = {0}, param = {0};
	vk_arena_init(&arena, (size_t)64 << 20);
	if (!vk_json_parse(&arena, body, NULL, &doc, NULL)) {
		const vk_jv *e = vk_jv_get(vk_json_root(doc), "error");
		if (!vk_jv_str(e, &message)) vk_jv_str(vk_jv_get(e, "message"), &message);
		vk_jv_str(vk_jv_get(e, "code"), &code);
		vk_jv_str(vk_jv_get(e, "param"), &param);
	}
	if (!message.p) message = (struct vk_bytes){body.p, body.n < 300 ? body.n : 300};
	print_plain(message);
	fprintf(stderr, " (HTTP %d", call->x.status);
	if (code.n) {
		fputs(", ", stderr);
		print_plain(code);
	}
	if (param.n) {
		fputs(", in ", stderr);
		print_plain(param);
	}
	fputs(")\n", stderr);
	vk_json_free(doc);
	vk_arena_free(&arena);
}

static void print_advice(const struct vk_ask *call)
{
	const struct vk_xfer *x = &call->x;
	bool key = call->client->authorization != NULL;
	if (x->status == 401 && !key)
		fputs("  set VECKEEP_API_KEY, or name a file with --api-key-file\n", stderr);
	if (x->status == 403) fputs("  the key lacks a scope; `veckeep keys list` shows what each may do\n", stderr);
	if (x->retry_after_ms >= 0)
		fprintf(stderr, "  the server asks to wait %.1f s\n", (double)x->retry_after_ms / 1000);
}

static int report_unreached(const struct vk_ask *call)
{
	const struct vk_xfer *x = &call->x;
	const char *base = call->client->base;
	switch (x->end) {
	case VK_XFER_CONNECT:
		fprintf(stderr, "no server answers at %s: %s\n"
				"  start one with `veckeep serve`, or name another with --url or VECKEEP_URL\n",
			base, x->error);
		return VK_EXIT_AGAIN;
	case VK_XFER_TIMEOUT:
		fprintf(stderr, "%s gave no answer in time: %s (--timeout)\n", base, x->error);
		return VK_EXIT_AGAIN;
	case VK_XFER_BROKEN:
		fprintf(stderr, "the connection to %s broke: %s\n", base, x->error);
		return VK_EXIT_AGAIN;
	default:
		fprintf(stderr, "%s: %s\n", base, x->error);
		return VK_EXIT_FAILED;
	}
}

int vk_ask_report(const struct vk_ask *call, const char *about)
{
	fprintf(stderr, "%s: %s", call->client->cli->help->name, about ? about : "");
	if (call->x.end != VK_XFER_OK) return report_unreached(call);
	print_error_body(call);
	print_advice(call);
	return vk_ask_again(call) ? VK_EXIT_AGAIN : VK_EXIT_FAILED;
}

/* --- JSON --- */

int vk_client_json(struct vk_client *c, const char *method, const char *path, struct vk_bytes body,
		   struct vk_json_reply *reply)
{
	*reply = (struct vk_json_reply){0};
	vk_arena_init(&reply->arena, ARENA_MAX);
	struct vk_ask *call = &reply->call;
	vk_ask_init(call, c, method, path);
	if (body.p) {
		vk_ask_header(call, "Content-Type: application/json");
		vk_buf_put(&call->body, body.p, body.n);
	}
	if (call->body.failed) return vk_cli_say(c->cli, VK_EXIT_FAILED, "the request is too large");
	vk_ask_send(call, 0);
	vk_ask_wait(call);
	if (!vk_ask_ok(call)) return vk_ask_report(call, NULL);
	struct vk_error err = {0};
	if (call->x.reply.n && vk_json_parse(&reply->arena, vk_buf_bytes(&call->x.reply), NULL, &reply->doc, &err))
		return vk_cli_say(c->cli, VK_EXIT_FAILED, "%s is no veckeep server: its answer is no JSON (%s)",
				  c->base, err.text);
	reply->root = vk_json_root(reply->doc);
	return 0;
}

void vk_json_reply_free(struct vk_json_reply *reply)
{
	vk_json_free(reply->doc);
	vk_arena_free(&reply->arena);
	vk_ask_free(&reply->call);
	reply->doc = NULL;
}

void vk_json_reply_print(const struct vk_json_reply *reply)
{
	const struct vk_buf *text = &reply->call.x.reply;
	fwrite(text->p, 1, text->n, stdout);
	if (!text->n || text->p[text->n - 1] != '\n') putchar('\n');
}

int vk_client_show(const struct vk_cli *cli, const char *method, const char *path, struct vk_bytes body,
		   int (*show)(struct vk_json_reply *reply))
{
	struct vk_client client;
	struct vk_json_reply reply;
	int rc = vk_client_open(&client, cli);
	if (rc) return rc;
	rc = vk_client_json(&client, method, path, body, &reply);
	if (!rc && cli->json) vk_json_reply_print(&reply);
	else if (!rc) rc = show(&reply);
	vk_json_reply_free(&reply);
	vk_client_close(&client);
	return rc;
}

const char *vk_reply_str(struct vk_json_reply *reply, const vk_jv *object, const char *key)
{
	struct vk_bytes s;
	if (!vk_jv_str(vk_jv_get(object, key), &s)) return "";
	const char *copy = vk_arena_strndup(&reply->arena, s.p, s.n);
	return copy ? copy : "";
}

uint64_t vk_reply_u64(const vk_jv *object, const char *key)
{
	uint64_t v;
	return vk_jv_u64(vk_jv_get(object, key), &v) ? v : 0;
}

double vk_reply_f64(const vk_jv *object, const char *key)
{
	double v;
	return vk_jv_f64(vk_jv_get(object, key), &v) ? v : 0;
}

bool vk_reply_bool(const vk_jv *object, const char *key)
{
	bool v;
	return vk_jv_bool(vk_jv_get(object, key), &v) && v;
}

const char *vk_reply_list(struct vk_json_reply *reply, const vk_jv *object, const char *key)
{
	struct vk_buf text;
	struct vk_bytes s;
	vk_buf_init(&text, 1 << 20);
	for (const vk_jv *v = vk_jv_first(vk_jv_get(object, key)); v; v = vk_jv_next(v)) {
		if (!vk_jv_str(v, &s)) continue;
		if (text.n) vk_buf_puts(&text, ", ");
		vk_buf_put(&text, s.p, s.n);
	}
	const char *copy = vk_arena_strndup(&reply->arena, vk_buf_cstr(&text), text.n);
	vk_buf_free(&text);
	return copy ? copy : "";
}

void vk_url_put(struct vk_buf *b, const char *s, bool keep_slashes)
{
	for (; *s; s++) {
		unsigned char ch = (unsigned char)*s;
		bool plain = (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
			     strchr("-._~", ch) || (keep_slashes && ch == '/');
		if (plain) vk_buf_putc(b, (char)ch);
		else vk_buf_printf(b, "%%%02X", ch);
	}
}
