/* Requests and replies as plain data: query, reply headers, decoding, the Host rule. */
#include "server/request.h"

#include <assert.h>
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "server/http.h"

enum vk_status vk_percent_decode(struct vk_arena *a, struct vk_bytes text, bool plus,
				 struct vk_bytes *out)
{
	*out = text;
	if (!text.n) return VK_OK;
	if (!memchr(text.p, '%', text.n) && !(plus && memchr(text.p, '+', text.n)))
		return memchr(text.p, 0, text.n) ? VK_E_INVALID : VK_OK;
	char *dst = vk_arena_alloc(a, text.n + 1);
	if (!dst) return VK_E_NOMEM;
	size_t n = 0;
	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i];
		if (c == '%') {
			if (text.n - i < 3 || !vk_unhex(&c, 1, text.p + i + 1, 2)) return VK_E_INVALID;
			i += 2;
		} else if (plus && c == '+') {
			c = ' ';
		}
		if (!c) return VK_E_INVALID;
		dst[n++] = c;
	}
	dst[n] = 0;
	*out = (struct vk_bytes){dst, n};
	return VK_OK;
}

/* One "name=value" off the front of the query. */
static bool next_pair(struct vk_bytes *rest, struct vk_bytes *name, struct vk_bytes *value)
{
	if (!rest->n) return false;
	const char *end = memchr(rest->p, '&', rest->n);
	size_t n = end ? (size_t)(end - rest->p) : rest->n;
	const char *eq = memchr(rest->p, '=', n);
	size_t name_n = eq ? (size_t)(eq - rest->p) : n;
	*name = (struct vk_bytes){rest->p, name_n};
	*value = eq ? (struct vk_bytes){eq + 1, n - name_n - 1} : (struct vk_bytes){"", 0};
	size_t used = end ? n + 1 : n;
	rest->p += used;
	rest->n -= used;
	return true;
}

struct vk_bytes vk_req_query(struct vk_req *req, const char *name)
{
	struct vk_bytes rest = req->query, key, raw, value;
	while (next_pair(&rest, &key, &raw)) {
		if (vk_percent_decode(&req->arena, key, true, &key) || !vk_bytes_is(key, name)) continue;
		/* An escape that is none is kept as it was sent: the parameter's own check names it. */
		if (vk_percent_decode(&req->arena, raw, true, &value)) value = raw;
		if (!value.p) value.p = "";
		return value;
	}
	return (struct vk_bytes){NULL, 0};
}

static bool has_control(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f) return true;
	return false;
}

void vk_reply_header(struct vk_req *req, const char *name, const char *value)
{
	struct vk_reply *r = &req->reply;
	assert(r->headers < VK_REPLY_HEADERS_MAX);
	assert(value && !has_control(value));
	r->header[r->headers].name = name;
	r->header[r->headers++].value = value;
}

void vk_reply_headerf(struct vk_req *req, const char *name, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (n < 0) return;
	size_t len = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
	char *value = vk_arena_strndup(&req->arena, text, len);
	if (value) vk_reply_header(req, name, value);
}

/* "name:port", "[v6]:port" without the port and the brackets. */
static struct vk_bytes host_part(struct vk_bytes host)
{
	if (host.n && host.p[0] == '[') {
		const char *end = memchr(host.p, ']', host.n);
		if (!end) return host;
		return (struct vk_bytes){host.p + 1, (size_t)(end - host.p) - 1};
	}
	const char *colon = memchr(host.p, ':', host.n);
	if (colon) host.n = (size_t)(colon - host.p);
	if (host.n && host.p[host.n - 1] == '.') host.n--;
	return host;
}

static bool same_name(struct vk_bytes a, const char *b)
{
	return a.n == strlen(b) && strncasecmp(a.p, b, a.n) == 0;
}

static bool is_ip_literal(struct vk_bytes host)
{
	char text[INET6_ADDRSTRLEN];
	unsigned char address[16];
	if (!host.n || host.n >= sizeof text) return false;
	memcpy(text, host.p, host.n);
	text[host.n] = 0;
	return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

bool vk_host_allowed(struct vk_bytes header, const char *const *extra)
{
	if (!header.n) return false;
	struct vk_bytes host = host_part(header);
	if (same_name(host, "localhost") || is_ip_literal(host)) return true;
	/* RFC 6761: *.localhost is this machine to every resolver that browsers use. */
	static const char tail[] = ".localhost";
	size_t tail_n = sizeof tail - 1;
	if (host.n > tail_n && strncasecmp(host.p + host.n - tail_n, tail, tail_n) == 0) return true;
	for (; extra && *extra; extra++)
		if (same_name(host, *extra)) return true;
	return false;
}

bool vk_request_id_sane(struct vk_bytes id)
{
	if (!id.n || id.n > 32) return false;
	for (size_t i = 0; i < id.n; i++) {
		char c = id.p[i];
		bool ok = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
			  c == '.' || c == '_' || c == '-';
		if (!ok) return false;
	}
	return true;
}
