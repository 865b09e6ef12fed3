/*
 * Mapped files that may lose pages: where one cannot be read (a bad sector, a file cut short), zeros take its place and a flag says so,
 * instead of a SIGBUS that ends the process. For what is checked and can be made again, and is safe to read whatever its bytes are: a graph
 * that nominates (index/graph_open.c). LMDB's map is not of that kind; it has store/guard.h.
 *
 * vk_patch_add() watches memory until vk_patch_remove(), which comes before the memory is unmapped or given to something else. The flag is
 * set by whichever thread touches the page, in its signal handler; look at it after what was read has been used, and throw that away.
 *
 * Threads: any. Limits: VK_PATCH_MAX watched ranges in all; one more is not watched, and its faults end the process as they always did.
 */
#ifndef VK_STORE_PATCH_H
#define VK_STORE_PATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VK_PATCH_MAX 4096u

/* Whole pages of a private, writable map. False: VK_PATCH_MAX are watched already. */
bool vk_patch_add(void *p, size_t bytes, atomic_bool *lost);
/* The range that begins at p; none: nothing. */
void vk_patch_remove(const void *p);
/* For the handler (store/guard.c): true when the page is readable now. */
bool vk_patch_fault(uintptr_t at);

#endif
