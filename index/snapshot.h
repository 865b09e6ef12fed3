/* The layout of a snapshot file, shared by who writes and who reads it (index/snapshot*.c). */
#ifndef VK_INDEX_SNAPSHOT_H
#define VK_INDEX_SNAPSHOT_H

#define VK_SNAPSHOT_FORMAT 1
#define VK_SNAPSHOT_DATA "data.mdb"
#define VK_SNAPSHOT_MANIFEST "manifest.json"
#define VK_SNAPSHOT_MANIFEST_MAX ((size_t)16 << 20)

#endif
