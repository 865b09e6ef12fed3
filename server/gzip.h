/* The one door to zlib: a whole reply, gzip-framed. */
#ifndef VK_SERVER_GZIP_H
#define VK_SERVER_GZIP_H

#include <stdbool.h>

#include "base/bytes.h"

/* Replaces the buffer's content by its gzip form when that is smaller; else false and untouched. */
bool vk_gzip(struct vk_buf *body);

/* Does an Accept-Encoding value want gzip? "gzip;q=0" does not, "*" does. */
bool vk_gzip_accepted(struct vk_bytes accept_encoding);

#endif
