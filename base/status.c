/* The status list's texts, and the filling of an error. */
#include "base/status.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *text;
	int http;
} map[] = {
#define X(name, http, text) {text, http},
	VK_STATUS_MAP(X)
#undef X
};

const char *vk_status_text(enum vk_status st)
{
	return (unsigned)st < VK_STATUS_COUNT ? map[st].text : "unknown";
}

int vk_status_http(enum vk_status st)
{
	return (unsigned)st < VK_STATUS_COUNT ? map[st].http : 500;
}

static void fill(struct vk_error *e, enum vk_status st, const char *code, const char *param,
		 const char *fmt, va_list ap)
{
	memset(e, 0, offsetof(struct vk_error, text));
	e->st = st;
	snprintf(e->code, sizeof e->code, "%s", code ? code : "");
	snprintf(e->param, sizeof e->param, "%s", param ? param : "");
	vsnprintf(e->text, sizeof e->text, fmt, ap);
}

enum vk_status vk_fail(struct vk_error *e, enum vk_status st, const char *fmt, ...)
{
	if (e) {
		va_list ap;
		va_start(ap, fmt);
		fill(e, st, NULL, NULL, fmt, ap);
		va_end(ap);
	}
	return st;
}

enum vk_status vk_fail_param(struct vk_error *e, enum vk_status st, const char *code,
			     const char *param, const char *fmt, ...)
{
	if (e) {
		va_list ap;
		va_start(ap, fmt);
		fill(e, st, code, param, fmt, ap);
		va_end(ap);
	}
	return st;
}
