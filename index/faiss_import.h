/*
 * Vectors out of a FAISS file that somebody else made. FAISS believes what it reads: a damaged or hostile file makes it crash,
 * allocate any amount or run for ever. So a child process reads, with a limit on its memory, and hands rows over through a pipe;
 * whatever happens to it becomes an error here.
 *
 * What comes: each stored vector as the index can give it back (exact from Flat, HNSW and IVF...,Flat and Refine's own copies, else what
 * the codes remember), with FAISS's id. Ids are 0..n-1 where the file has none of its own.
 * Not taken: binary indexes (they hold signs), lists that are kept in another file, kinds without a way back.
 *
 * Threads: one. Best opened before the process has threads: it forks. Errors: VK_E_NOT_FOUND, VK_E_CORRUPT, VK_E_INVALID (a kind not
 * taken), VK_E_UNAVAILABLE (no FAISS), VK_E_DEADLINE (no sign of life for a minute).
 */
#ifndef VK_INDEX_FAISS_IMPORT_H
#define VK_INDEX_FAISS_IMPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct vk_faiss_import;

struct vk_faiss_import_head {
	uint64_t rows;
	uint32_t dims;
	bool inner_product; /* else squared L2 */
	char type[48];      /* FAISS's class */
};

enum vk_status vk_faiss_import_open(const char *path, struct vk_faiss_import **out, struct vk_faiss_import_head *head,
				    struct vk_error *err);
/* Up to max rows of dims floats with their ids; *n 0: the end, every row of head.rows was given. */
enum vk_status vk_faiss_import_next(struct vk_faiss_import *im, uint32_t max, int64_t *id, float *rows, uint32_t *n,
				    struct vk_error *err);
void vk_faiss_import_close(struct vk_faiss_import *im); /* ends the child, if it still runs */

#endif
