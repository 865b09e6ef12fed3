/* Plain files, done durably: made under another name, synced, renamed, directory synced. */
#ifndef VK_STORE_FILE_H
#define VK_STORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/status.h"

/* The directory and its parents, 0700; fine when it is there. */
enum vk_status vk_dir_make(const char *path, struct vk_error *err);
enum vk_status vk_dir_sync(const char *path, struct vk_error *err);
/* The one that a file is in. */
enum vk_status vk_dir_sync_of(const char *path, struct vk_error *err);
/* Missing or empty. */
bool vk_dir_is_empty(const char *path);
/* Deletes the directory with what is in it, three levels of subdirectories deep. */
void vk_dir_remove(const char *path);

/* All n bytes, or an error that names path. */
enum vk_status vk_fd_write(int fd, const void *p, size_t n, const char *path, struct vk_error *err);

/* dir/name with this content, all or nothing. */
enum vk_status vk_file_replace(const char *dir, const char *name, const void *p, size_t n,
			       struct vk_error *err);
/* Appends the whole file to b (whose max bounds it). VK_E_NOT_FOUND. */
enum vk_status vk_file_read(const char *path, struct vk_buf *b, struct vk_error *err);

/* Hash and size of a file. */
enum vk_status vk_file_hash(const char *path, uint8_t sha256[VK_SHA256_SIZE], uint64_t *bytes,
			    struct vk_error *err);
/* Copies, syncs, and hashes what it wrote. dst must not be there. */
enum vk_status vk_file_copy(const char *src, const char *dst, uint8_t sha256[VK_SHA256_SIZE],
			    struct vk_error *err);

#endif
