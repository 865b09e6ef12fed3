/*
 * FAISS's factory strings: which of them we take, and what they will cost before anything is allocated. FAISS itself
 * takes more, and meets some of them with an abort, an allocation of any size or hours of training; so the string is read
 * here first, and whatever this does not know is refused with the reason.
 *
 *   [OPQ<m>[_<d>] | PCA[W][R]<d> | RR[<d>] | L2norm] , body [, RFlat | , Refine(Flat|SQ8|SQfp16|...)]
 *   body:   Flat | SQ4 | SQ6 | SQ8 | SQfp16 | PQ<m>[x<bits>][np]
 *         | IVF<lists>[_HNSW<m>] , Flat | SQ... | PQ<m>[x<bits>][np]
 *         | HNSW<m> [, or _ Flat | SQ... | PQ<m>[np]]
 *   binary: BFlat | BIVF<lists>[_HNSW<m>] | BHNSW<m>        (sign bits, Hamming)
 */
#ifndef VK_INDEX_FAISS_PLAN_H
#define VK_INDEX_FAISS_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define VK_FAISS_FACTORY_MAX 128u /* bytes, NUL included */
#define VK_FAISS_DIMS_MAX 65536u

enum vk_faiss_code { VK_FAISS_FLAT, VK_FAISS_SQ4, VK_FAISS_SQ6, VK_FAISS_SQ8, VK_FAISS_FP16, VK_FAISS_PQ };

struct vk_faiss_plan {
	char factory[VK_FAISS_FACTORY_MAX];
	uint32_t dims;       /* rows as they come */
	uint32_t code_dims;  /* after the transform; binary: rounded up to 8 */
	uint32_t opq_m;      /* 0: no OPQ */
	bool transform;      /* any */
	bool binary;
	uint32_t nlist;      /* 0: no lists */
	uint32_t coarse_m;   /* HNSW over the lists' centroids; 0: flat */
	uint32_t hnsw_m;     /* 0: no graph */
	enum vk_faiss_code code;
	uint32_t pq_m, pq_bits;
	bool refine;
	enum vk_faiss_code refine_code;

	uint32_t train_min;  /* rows without which training fails; 0: needs none */
	uint32_t train_good; /* rows beyond which more do not help */
	uint64_t row_bytes;  /* memory a row */
	uint64_t fixed_bytes;/* memory whatever the number of rows */
	uint32_t add_rows;   /* rows to add at a time: big enough to be quick, small enough to stop */
};

/* VK_E_INVALID says what is wrong with the string. */
enum vk_status vk_faiss_plan(const char *factory, uint32_t dims, struct vk_faiss_plan *out, struct vk_error *err);
/* Memory that an index of so many rows takes at its peak: the index, its growth, and training on train_rows of them (the
 * sample itself is the caller's). */
uint64_t vk_faiss_plan_bytes(const struct vk_faiss_plan *p, uint64_t rows, uint64_t train_rows);

#endif
