/*
 * The data directory: FORMAT (veckeep's format version, LMDB major, page size, JSON on one
 * line), LOCK (flock'd; holds pid, host, since), catalog/, cache/, later collections/.
 * Files 0600, directories 0700.
 */
#ifndef VK_STORE_DATADIR_H
#define VK_STORE_DATADIR_H

#include <stdint.h>

#include "base/status.h"

struct vk_datadir {
	char path[4096]; /* absolute */
	int lock_fd;     /* -1 when opened without the lock */
};

/* Makes the directory and FORMAT when new; checks FORMAT (another version or page size is
 * VK_E_INVALID with what to do); takes LOCK, waiting up to wait_ms (VK_E_BUSY names the
 * holder). A network file system is refused unless VECKEEP_ALLOW_NETWORK_FS=1. */
enum vk_status vk_datadir_open(struct vk_datadir *d, const char *path, uint64_t wait_ms,
			       struct vk_error *err);
/* Reads only: no lock is taken, nothing is made. VK_E_NOT_FOUND when it is no data directory. */
enum vk_status vk_datadir_open_read(struct vk_datadir *d, const char *path, struct vk_error *err);
void vk_datadir_close(struct vk_datadir *d);

/* The storage library's own words on its version. */
const char *vk_store_library(void);

#endif
