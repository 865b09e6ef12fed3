/*
 * What a request's head may say: where the request ends, which Host it names, which body it brings.
 * Part of the HTTP door, but no HTTP library in it: header lines go in one by one, answers come out.
 *
 * The rules are stricter than libmicrohttpd's, because two servers that read one head in two ways
 * is how requests are smuggled: one Content-Length of digits or one "chunked", never both; no
 * character in a header that HTTP does not have; one Host.
 *
 * Ownership: the values are borrowed from whoever read the head, and good as long as it is.
 * Threads: none of its own, nothing shared. Sizes are bytes. Errors: VK_E_INVALID (400; 415 for an
 * encoded body), VK_E_FORBIDDEN (a Host that is not ours), VK_E_TOO_LARGE, each with its sentence.
 */
#ifndef VK_SERVER_HTTP_HEAD_H
#define VK_SERVER_HTTP_HEAD_H

#include "server/http.h"

struct vk_head { /* what one pass over the headers finds */
	unsigned lengths, encodings, hosts;
	struct vk_bytes length, encoding, host, content_encoding, id, accept;
	bool expects, malformed;
};

enum vk_method vk_head_method(const char *name); /* case-sensitive, as HTTP has it */

/* One header line; value may be NULL. Begin with a zeroed head. */
void vk_head_field(struct vk_head *h, const char *key, size_t key_n, const char *value, size_t value_n);
/* A Content-Length: digits, 18 at most. */
bool vk_head_length(struct vk_bytes text, uint64_t *out);

/* Where does this request end? Two answers, or none, is how requests are smuggled. */
enum vk_status vk_head_check_framing(const struct vk_head *h, const char *version, struct vk_error *e);
/* loopback_here: it came in on a loopback address, where the Host rule always holds; extra: names
 * that are ours too, NULL: none, and no rule elsewhere (request.h, vk_host_allowed()). */
enum vk_status vk_head_check_host(const struct vk_head *h, bool loopback_here, const char *const *extra,
				  struct vk_error *e);
/* The body that it announces: as it is, and body_max bytes at most. After the framing was checked. */
enum vk_status vk_head_check_content(const struct vk_head *h, size_t body_max, struct vk_error *e);

#endif
