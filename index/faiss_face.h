/*
 * The face of vk_faiss.so: what C may ask of FAISS, one const table of functions. faiss_face*.cpp are the only files
 * that include FAISS's headers; index/faiss.c is the only one that calls this table. Everybody else reads index/faiss.h.
 *
 * FAISS is C++ that throws, has threads of its own (OpenMP) and wants BLAS, so it lives in a shared object beside the
 * program which is loaded when a collection wants it. No exception leaves the face: each becomes a status and its text.
 * Why not FAISS's own C API: Debian 12's 1.7.3 ships its headers without its symbols, and it has no search parameters.
 *
 * Rows are dims floats, or (binary) (dims + 7) / 8 bytes of sign bits, dims then a multiple of 8. Rows are numbered
 * 0..n-1 in the order in which they were added; labels are the caller's affair.
 * Threads: create, train, add and read have the index to themselves; any number may search, describe, write and read rows
 * of one that stands still. Each call runs on the calling thread and `threads - 1` helpers of OpenMP's, which belong to the
 * calling thread and live as long as it; with threads = 1 no parallel region is opened (that alone can cost 10 ms).
 * What the face does not do: check that a file means well. FAISS believes counts and links that it reads, so files of
 * strangers are read in a process of their own (index/faiss_import.h), our own after their checksum (index/faiss.h).
 */
#ifndef VK_INDEX_FAISS_FACE_H
#define VK_INDEX_FAISS_FACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VK_FAISS_FACE_VERSION 1u
#define VK_FAISS_FACE_SYMBOL "vk_faiss_face_table"
#define VK_FAISS_NOBODY UINT32_MAX

struct vk_faiss_index;

struct vk_faiss_make {
	const char *factory;    /* checked by index/faiss_plan.h */
	uint32_t dims;
	bool inner_product;     /* else squared L2; binary: Hamming whatever it says */
	bool binary;
	uint32_t ef_build;      /* HNSW's beam while building; 0: FAISS's own */
	uint64_t rows_expected; /* room is made for so many at once; 0: grows as it comes */
	int64_t seed;
};

struct vk_faiss_work {
	unsigned threads;
	/* NULL, or asked on the calling thread now and then; true makes the call give up: VK_E_CANCELLED. */
	bool (*stopped)(void *arg);
	/* NULL, or told on the calling thread how far training is. */
	void (*step)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};

struct vk_faiss_ask {
	const void *query;
	size_t queries;
	uint32_t k;            /* answers wanted a query */
	uint32_t nprobe;       /* IVF: lists looked at */
	uint32_t ef;           /* HNSW: beam, raised to k */
	uint32_t base_k;       /* Refine: candidates of the coarse index, raised to k */
	/* NULL or: only rows whose label's bit is set. VK_E_INVALID where `filters` is false. */
	const uint64_t *allow;
	uint32_t allow_n;      /* labels that allow speaks of; others are not allowed */
	const uint32_t *label; /* by row number; wanted with allow */
	/* out, queries x k, best first, VK_FAISS_NOBODY where there is none */
	uint32_t *number;
	float *distance;       /* inner product, squared L2 or Hamming */
};

struct vk_faiss_info {
	uint64_t rows, bytes; /* bytes: memory held, mapped lists left out */
	uint32_t dims, nlist; /* nlist 0: no lists */
	bool trained, inner_product, binary, filters, mapped;
	char type[48];        /* FAISS's class, e.g. "IndexIVFPQ" */
};

struct vk_faiss_kmeans {
	const float *rows; /* n x dims */
	size_t n;
	uint32_t dims, k, rounds;
	int64_t seed;
	bool spherical;    /* centroids of norm 1, nearest by inner product */
	float *centroid;   /* out: k x dims */
	double loss;       /* out: mean squared distance to the own centroid; spherical: 1 - mean inner product */
};

struct vk_faiss_cursor { /* zeroed to begin */
	uint64_t list, at;
};

enum vk_faiss_read_flags { VK_FAISS_MAP = 1, VK_FAISS_NO_TABLES = 2 };

struct vk_faiss_face {
	uint32_t version;    /* VK_FAISS_FACE_VERSION */
	const char *library; /* "FAISS 1.7.3" */
	enum vk_status (*create)(const struct vk_faiss_make *m, struct vk_faiss_index **out, struct vk_error *err);
	void (*destroy)(struct vk_faiss_index *x);
	enum vk_status (*train)(struct vk_faiss_index *x, size_t n, const void *rows, const struct vk_faiss_work *w,
				struct vk_error *err);
	enum vk_status (*add)(struct vk_faiss_index *x, size_t n, const void *rows, const struct vk_faiss_work *w,
			      struct vk_error *err);
	enum vk_status (*search)(const struct vk_faiss_index *x, const struct vk_faiss_ask *a, const struct vk_faiss_work *w,
				 struct vk_error *err);
	enum vk_status (*describe)(const struct vk_faiss_index *x, struct vk_faiss_info *out, struct vk_error *err);
	/* Up to max rows as they can be got back (exact, or what the codes remember), with FAISS's ids; *n 0: the end. Order: as
	 * added, or list by list. Not from binary indexes. */
	enum vk_status (*rows)(const struct vk_faiss_index *x, struct vk_faiss_cursor *at, uint32_t max, int64_t *id, float *rows,
			       uint32_t *n, struct vk_error *err);
	/* FAISS's file format, handed to put in pieces; put's status ends it. */
	enum vk_status (*write)(const struct vk_faiss_index *x, enum vk_status (*put)(void *arg, const void *p, size_t n), void *arg,
				struct vk_error *err);
	enum vk_status (*read)(const char *path, bool binary, unsigned flags, struct vk_faiss_index **out, struct vk_error *err);
	enum vk_status (*kmeans)(struct vk_faiss_kmeans *k, const struct vk_faiss_work *w, struct vk_error *err);
};

#ifdef __cplusplus
}
#endif

#endif
