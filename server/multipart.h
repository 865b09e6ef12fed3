/*
 * multipart/form-data (RFC 7578) in memory: finds one part of a body. Borrows the body, copies nothing, trusts nothing.
 */
#ifndef VK_SERVER_MULTIPART_H
#define VK_SERVER_MULTIPART_H

#include "base/bytes.h"
#include "base/status.h"

#define VK_MULTIPART_BOUNDARY_MAX 70 /* RFC 2046 */

/* The data of the first part called `name` (form field); VK_E_INVALID with why there is none. content_type: the request header's value. */
enum vk_status vk_multipart_part(struct vk_bytes content_type, struct vk_bytes body, const char *name, struct vk_bytes *data,
				 struct vk_error *err);

#endif
