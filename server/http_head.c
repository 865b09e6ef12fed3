/* What a request's head may say; see http_head.h. */
#include "server/http_head.h"

#include <string.h>
#include <strings.h>

#include "server/request.h"

enum vk_method vk_head_method(const char *s)
{
	static const struct {
		const char *name;
		enum vk_method method;
	} known[] = {{"GET", VK_GET},	    {"POST", VK_POST},	   {"PUT", VK_PUT},
		     {"DELETE", VK_DELETE}, {"HEAD", VK_HEAD},	   {"PATCH", VK_PATCH},
		     {"OPTIONS", VK_OPTIONS}};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(s, known[i].name)) return known[i].method;
	return VK_METHOD_OTHER;
}

/* RFC 9110 token characters: a name with anything else ("Content-Length ") is how a request is
 * smuggled past a proxy that reads it another way. */
static bool is_token(const char *s, size_t n)
{
	static const bool other[128] = {
		['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1,
		['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1, ['~'] = 1,
	};
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i], low = c | 0x20;
		if (!((low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') || (c < 128 && other[c])))
			return false;
	}
	return n > 0;
}

static bool is_field_value(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f) return false;
	return true;
}

void vk_head_field(struct vk_head *h, const char *key, size_t key_n, const char *value, size_t value_n)
{
	if (!is_token(key, key_n) || !is_field_value(value, value_n)) h->malformed = true;
	struct vk_bytes v = {value ? value : "", value_n};
#define IS(name) (key_n == sizeof name - 1 && strncasecmp(key, name, key_n) == 0)
	switch (key_n) {
	case 4:
		if (IS("Host")) h->hosts++, h->host = v;
		break;
	case 6:
		if (IS("Expect")) h->expects = true;
		break;
	case 12:
		if (IS("X-Request-Id")) h->id = v;
		break;
	case 14:
		if (IS("Content-Length")) h->lengths++, h->length = v;
		break;
	case 15:
		if (IS("Accept-Encoding")) h->accept = v;
		break;
	case 16:
		if (IS("Content-Encoding")) h->content_encoding = v;
		break;
	case 17:
		if (IS("Transfer-Encoding")) h->encodings++, h->encoding = v;
		break;
	}
#undef IS
}

bool vk_head_length(struct vk_bytes text, uint64_t *out)
{
	if (!text.n || text.n > 18) return false;
	*out = 0;
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9') return false;
		*out = *out * 10 + (uint64_t)(text.p[i] - '0');
	}
	return true;
}

static bool same_word(struct vk_bytes s, const char *word)
{
	return s.n == strlen(word) && strncasecmp(s.p, word, s.n) == 0;
}

enum vk_status vk_head_check_framing(const struct vk_head *h, const char *version, struct vk_error *e)
{
	bool v10 = strcmp(version, "HTTP/1.1") != 0;
	uint64_t length;
	if (h->malformed) return vk_fail(e, VK_E_INVALID, "A header has characters that HTTP does not allow.");
	if (h->lengths > 1) return vk_fail(e, VK_E_INVALID, "More than one Content-Length.");
	if (h->lengths && h->encodings)
		return vk_fail(e, VK_E_INVALID, "Content-Length and Transfer-Encoding in one request.");
	if (h->lengths && !vk_head_length(h->length, &length))
		return vk_fail(e, VK_E_INVALID, "Content-Length is not a number.");
	if (h->encodings && (h->encodings > 1 || v10 || !same_word(h->encoding, "chunked")))
		return vk_fail(e, VK_E_INVALID, "Transfer-Encoding can only be chunked, once, in HTTP/1.1.");
	if (h->hosts > 1) return vk_fail(e, VK_E_INVALID, "More than one Host.");
	return VK_OK;
}

enum vk_status vk_head_check_host(const struct vk_head *h, bool loopback_here, const char *const *extra,
				  struct vk_error *e)
{
	if (!loopback_here && !extra) return VK_OK;
	if (!h->hosts || vk_host_allowed(h->host, extra)) return VK_OK;
	return vk_fail_param(e, VK_E_FORBIDDEN, "host_not_allowed", "host",
			     "This Host is not one of this server's names; add it to \"hosts\" in the "
			     "configuration if it should be.");
}

enum vk_status vk_head_check_content(const struct vk_head *h, size_t body_max, struct vk_error *e)
{
	uint64_t length = 0;
	if (h->content_encoding.n && !same_word(h->content_encoding, "identity")) {
		enum vk_status st = vk_fail(e, VK_E_INVALID, "Content-Encoding is not supported: send the body as it is.");
		e->http = 415;
		return st;
	}
	if (h->lengths) vk_head_length(h->length, &length);
	if (length > body_max)
		return vk_fail_param(e, VK_E_TOO_LARGE, "body_too_large", "",
				     "The body is larger than %zu bytes.", body_max);
	return VK_OK;
}
