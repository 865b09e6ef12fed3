/*
 * May a request come in? What is decided from its URL and its key alone, before the body is parsed or a collection opened: the collection's
 * name, whether the key may use it, and the parameters that all routes have.
 *
 * Errors: 403 for a key, 422 for a name or a zero timeout, 400 for a parameter, in Qdrant's words. Reads the request and fills wait and
 * timeout_ms of a struct vk_qd; on the HTTP thread (vk_qd_access() on any), microseconds.
 */
#include <string.h>

#include "base/utf8.h"
#include "server/qdrant_internal.h"

#define NAME_SHOWN 300

/* '*' is any bytes, none too. */
static bool fits(struct vk_bytes pattern, struct vk_bytes name)
{
	size_t p = 0, n = 0, star = SIZE_MAX, back = 0;
	while (n < name.n) {
		if (p < pattern.n && pattern.p[p] == '*') {
			star = p++;
			back = n;
		} else if (p < pattern.n && pattern.p[p] == name.p[n]) {
			p++, n++;
		} else if (star != SIZE_MAX) {
			p = star + 1;
			n = ++back;
		} else {
			return false;
		}
	}
	while (p < pattern.n && pattern.p[p] == '*') p++;
	return p == pattern.n;
}

enum vk_status vk_qd_access(const struct vk_req *req, struct vk_bytes name, struct vk_error *err)
{
	const char *list = req->auth && req->auth->collections ? req->auth->collections : "*";
	while (*list) {
		size_t n = strcspn(list, ",");
		struct vk_bytes one = {list, n};
		while (one.n && *one.p == ' ') one.p++, one.n--;
		while (one.n && one.p[one.n - 1] == ' ') one.n--;
		if (one.n && fits(one, name)) return VK_OK;
		list += n + (list[n] == ',');
	}
	return vk_fail(err, VK_E_FORBIDDEN, "Forbidden: Access to collection %.*s is required",
		       (int)(name.n < NAME_SHOWN ? vk_utf8_valid(name.p, name.n) : vk_utf8_valid(name.p, NAME_SHOWN)), name.p);
}

enum vk_status vk_qd_name(struct vk_qd *q, struct vk_error *err)
{
	struct vk_error why = {0};
	enum vk_status st = vk_collection_name_check(q->name, &why);
	if (!st) return vk_qd_access(q->req, q->name, err);
	const char *text = why.text, *prefix = "Wrong input: ";
	if (strncmp(text, prefix, strlen(prefix)) == 0) text += strlen(prefix);
	vk_fail(err, st, "Validation error in path parameters: [collection_name: %.500s]", text);
	err->http = 422;
	return st;
}

static enum vk_status bad_param(struct vk_error *err, const char *name, const char *why)
{
	return vk_fail(err, VK_E_INVALID, "Deserialize error in query parameters: %s: %s", name, why);
}

static bool one_of(struct vk_bytes s, const char *const *words)
{
	for (; *words; words++)
		if (vk_bytes_is(s, *words)) return true;
	return false;
}

static bool read_whole(struct vk_bytes s, uint64_t *out)
{
	*out = 0;
	if (!s.n || s.n > 18) return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9') return false;
		*out = *out * 10 + (uint64_t)(s.p[i] - '0');
	}
	return true;
}

/* ?wait, ?timeout, ?ordering, ?consistency: one node keeps every promise of the last two. */
enum vk_status vk_qd_url_params(struct vk_qd *q, struct vk_error *err)
{
	static const char *const orderings[] = {"weak", "medium", "strong", NULL};
	static const char *const levels[] = {"majority", "quorum", "all", NULL};
	if (!q->req->query.n) return VK_OK;
	uint64_t n;
	struct vk_bytes wait = vk_req_query(q->req, "wait"), timeout = vk_req_query(q->req, "timeout");
	struct vk_bytes ordering = vk_req_query(q->req, "ordering"), level = vk_req_query(q->req, "consistency");
	q->wait = vk_bytes_is(wait, "true");
	if (wait.p && !q->wait && !vk_bytes_is(wait, "false"))
		return bad_param(err, "wait", "provided string was not `true` or `false`");
	if (ordering.p && !one_of(ordering, orderings))
		return bad_param(err, "ordering", "unknown variant, expected one of `weak`, `medium`, `strong`");
	if (level.p && !one_of(level, levels) && (!read_whole(level, &n) || !n))
		return bad_param(err, "consistency", "expected a positive number, `majority`, `quorum` or `all`");
	if (!timeout.p) return VK_OK;
	if (!read_whole(timeout, &n)) return bad_param(err, "timeout", "invalid digit found in string");
	if (!n) {
		vk_fail(err, VK_E_INVALID, "Validation error in query parameters: [timeout: value 0 invalid, must be 1 or larger]");
		err->http = 422;
		return VK_E_INVALID;
	}
	q->timeout_ms = n < 1000000 ? n * 1000 : 1000000000;
	return VK_OK;
}
