/*
 * As much of tar (POSIX ustar) as a snapshot needs: plain files, one after the other. A header is 512 bytes, content is padded
 * to 512, two empty blocks end it. Sizes past 8 GiB are written as GNU and star do (base 256).
 */
#ifndef VK_STORE_TAR_H
#define VK_STORE_TAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define VK_TAR_BLOCK 512u

/* Fills a header of a plain file, mode 0600. name: at most 99 bytes. */
void vk_tar_header(uint8_t b[VK_TAR_BLOCK], const char *name, uint64_t bytes, int64_t mtime_s);

struct vk_tar_member {
	char name[101];
	uint64_t at, bytes; /* of the content, in the file */
};
/* The member whose header is at *at; moves *at to the next header. VK_E_END after the last one; VK_E_CORRUPT for what is no tar,
 * is cut short, or holds anything but plain files under plain names (no '/', not "..", no links). */
enum vk_status vk_tar_next(int fd, uint64_t file_bytes, uint64_t *at, struct vk_tar_member *m, struct vk_error *err);

#endif
