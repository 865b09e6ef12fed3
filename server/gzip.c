/* Level 1: a reply is compressed once for one reader, and the thread has others to serve. */
#include "server/gzip.h"

#include <limits.h>
#include <stdlib.h>
#include <strings.h>
#include <zlib.h>

#define LEVEL 1
#define GZIP_WINDOW_BITS (15 + 16) /* + 16: gzip frame */

bool vk_gzip(struct vk_buf *body)
{
	if (body->failed || !body->n || body->n > INT_MAX) return false;
	z_stream z = {0};
	if (deflateInit2(&z, LEVEL, Z_DEFLATED, GZIP_WINDOW_BITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return false;
	/* Room for less than the text itself: what does not fit is not worth sending. */
	size_t cap = body->n - 1;
	char *out = malloc(cap ? cap : 1);
	z.next_in = (Bytef *)body->p;
	z.avail_in = (uInt)body->n;
	z.next_out = (Bytef *)out;
	z.avail_out = (uInt)cap;
	bool ok = out && deflate(&z, Z_FINISH) == Z_STREAM_END;
	size_t n = z.total_out;
	deflateEnd(&z);
	if (!ok) {
		free(out);
		return false;
	}
	free(body->p);
	body->p = out;
	body->n = n;
	body->cap = cap;
	return true;
}

static struct vk_bytes trim(struct vk_bytes s)
{
	while (s.n && (*s.p == ' ' || *s.p == '\t')) s.p++, s.n--;
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) s.n--;
	return s;
}

static struct vk_bytes cut(struct vk_bytes *rest, char at)
{
	const char *end = rest->n ? memchr(rest->p, at, rest->n) : NULL;
	struct vk_bytes head = {rest->p, end ? (size_t)(end - rest->p) : rest->n};
	*rest = end ? (struct vk_bytes){end + 1, rest->n - head.n - 1} : (struct vk_bytes){NULL, 0};
	return trim(head);
}

static bool same_word(struct vk_bytes s, const char *word)
{
	return s.n == strlen(word) && strncasecmp(s.p, word, s.n) == 0;
}

/* ";q=0", "; q=0.000": refused. */
static bool weight_is_zero(struct vk_bytes params)
{
	struct vk_bytes q = cut(&params, ';');
	if (q.n < 3 || (q.p[0] != 'q' && q.p[0] != 'Q') || q.p[1] != '=' || q.p[2] != '0') return false;
	for (size_t i = 3; i < q.n; i++)
		if (q.p[i] != '.' && q.p[i] != '0') return false;
	return true;
}

bool vk_gzip_accepted(struct vk_bytes accept)
{
	bool any = false;
	while (accept.n) {
		struct vk_bytes item = cut(&accept, ',');
		struct vk_bytes coding = cut(&item, ';');
		if (same_word(coding, "gzip") || same_word(coding, "x-gzip")) return !weight_is_zero(item);
		if (same_word(coding, "*")) any = !weight_is_zero(item);
	}
	return any;
}
