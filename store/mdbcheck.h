/*
 * Is this file an LMDB environment of our kind, whole in every page that is reachable? LMDB believes what it maps: a file from a
 * stranger that lies (a page number past the end, a cycle, a node longer than its page) would crash the process or loop. So
 * such a file is walked with plain reads before LMDB ever sees it.
 *
 * Checked: both meta pages, and from the newer one the list of free pages, the table of tables and every table: page
 * numbers in range and met once (free ones included), kinds and depths, nodes inside their pages, overflow runs long
 * enough, entry counts. Not checked: the order of keys and what the values say; that costs wrong answers at most, and their
 * readers check their own records.
 */
#ifndef VK_STORE_MDBCHECK_H
#define VK_STORE_MDBCHECK_H

#include "base/status.h"

/* VK_OK; VK_E_CORRUPT with what is wrong and at which page; VK_E_NOT_FOUND, VK_E_IO, VK_E_NOMEM. */
enum vk_status vk_mdb_check(const char *path, struct vk_error *err);

/* Before an environment of our own is opened: is its file as long as its newest meta page says? Two small reads; only a shorter file,
 * which somebody may have cut, is walked as above (LMDB does not write pages at the end that a transaction freed again). No file, or
 * an empty one: VK_OK, LMDB begins it. */
enum vk_status vk_mdb_check_length(const char *path, struct vk_error *err);

#endif
