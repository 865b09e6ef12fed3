/*
 * Qdrant's words for what went wrong. Its clients read the texts, so every error begins with one of its prefixes: those made here name
 * theirs, any other (a status from a room below) gets the one of its HTTP status on its way out. Texts are cut between characters, never
 * in one: a reply is JSON. No state, any thread.
 */
#include <stdarg.h>
#include <stdio.h>

#include "base/utf8.h"
#include "server/error.h"
#include "server/qdrant_internal.h"

static const char *const prefixes[] = {
	"Wrong input: ", "Not found: ", "Format error in ", "Validation error in ", "Deserialize error in ", "Bad request: ",
	"Service internal error: ", "Service error: ", "Forbidden: ", "Timeout: ", "Conflict: ", "Unauthorized: ", "Checksum mismatch: ",
	"Insufficient storage: ", "Rate limiting exceeded: ", "Pre-condition failure: ",
};

static bool has_prefix(const char *text)
{
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
		if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0) return true;
	return false;
}

static const char *prefix_of(int http)
{
	switch (http) {
	case 404: return "Not found: ";
	case 403: return "Forbidden: ";
	case 408: return "Timeout: ";
	case 429: return "Rate limiting exceeded: ";
	case 507: return "Insufficient storage: ";
	default: return http >= 500 ? "Service internal error: " : "Wrong input: ";
	}
}

void vk_qd_prefix(struct vk_error *e, const char *prefix)
{
	char text[VK_ERROR_TEXT_MAX];
	size_t p = strlen(prefix), n = strlen(e->text), room = sizeof text - 1 - p;
	if (n > room) n = vk_utf8_valid(e->text, room);
	memcpy(text, prefix, p);
	memcpy(text + p, e->text, n);
	text[p + n] = 0;
	memcpy(e->text, text, p + n + 1);
}

void vk_qd_error(struct vk_req *req, const struct vk_error *err)
{
	struct vk_error e = *err;
	int http = e.http ? e.http : vk_status_http(e.st);
	if (!has_prefix(e.text)) vk_qd_prefix(&e, prefix_of(http));
	vk_reply_error(req, &e);
}

static enum vk_status fail_with(struct vk_error *err, int http, const char *prefix, const char *fmt, va_list ap)
{
	char text[VK_ERROR_TEXT_MAX];
	vsnprintf(text, sizeof text, fmt, ap);
	text[vk_utf8_valid(text, strlen(text))] = 0;
	vk_fail(err, VK_E_INVALID, "%s", text);
	if (!err) return VK_E_INVALID;
	vk_qd_prefix(err, prefix);
	err->http = http;
	return VK_E_INVALID;
}

enum vk_status vk_qd_format(struct vk_error *err, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	enum vk_status st = fail_with(err, 400, "Format error in JSON body: ", fmt, ap);
	va_end(ap);
	return st;
}

enum vk_status vk_qd_wrong(struct vk_error *err, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	enum vk_status st = fail_with(err, 400, "Wrong input: ", fmt, ap);
	va_end(ap);
	return st;
}

enum vk_status vk_qd_validation(struct vk_error *err, const char *field, const char *fmt, ...)
{
	char why[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	why[vk_utf8_valid(why, strlen(why))] = 0;
	vk_fail(err, VK_E_INVALID, "Validation error in JSON body: [%.200s: %s]", field, why);
	if (err) err->http = 422;
	return VK_E_INVALID;
}
