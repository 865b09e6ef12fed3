/* Any content type and body: the part that comes out lies within the body, or there is an error that says why. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "server/multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input up to its first newline is the Content-Type. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data, *eol = size ? memchr(p, '\n', size) : NULL;
	size_t head = eol ? (size_t)(eol - p) : 0;
	struct vk_bytes type = {p, head}, body = {p + head, size - head}, part = {0};
	struct vk_error err = {0};
	if (eol) body.p++, body.n--;
	if (!vk_multipart_part(type, body, "snapshot", &part, &err))
		assert(part.p >= body.p && part.p + part.n <= body.p + body.n);
	else
		assert(err.text[0]);
	return 0;
}
