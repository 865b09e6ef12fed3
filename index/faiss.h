/*
 * FAISS as an engine: an index by factory string over a collection's rows, built in memory, searched, saved, opened.
 *
 * It nominates, as the graph does: what it answers are labels (slots) and FAISS's own estimate of nearness; who asks scores
 * with the full rows. FAISS numbers rows as they come; here each number has its label (u32) beside it, so every kind of index
 * can be used, also those that take no ids. An index does not change once it is built: a new one replaces it. While it is built it
 * can be saved between two adds, opened again, and gone on with.
 *
 * Metrics: DOT and COSINE are FAISS's inner product (COSINE: rows and queries come as unit vectors), L2 its squared L2. Binary
 * factories (BFlat, ...) keep the signs of the rows (bit = component > 0) and nominate by Hamming distance under each of them.
 * L1 is not to be had.
 *
 * File (index/faiss_file.c): FAISS's own file format from byte 0, readable by any FAISS, then our section: labels, sequence,
 * checksums. It appears whole by rename. Opening reads the whole file once for its checksum before FAISS may see it, because
 * FAISS crashes on damaged files; VK_E_CORRUPT says what is wrong.
 *
 * FAISS is loaded at the first call that wants it, from vk_faiss.so beside the program; without it everything here says
 * VK_E_UNAVAILABLE. It takes its BLAS from the same OpenBLAS that simd/gemm.c has loaded and set for this CPU.
 *
 * Threads: new, train, add have the index to themselves; then any number may search and save. With threads = 1 the work stays
 * on the calling thread. More are OpenMP's, inherit the calling thread's priority and live as long as it does.
 * Determinism: the same rows, order and seed give the same index with threads = 1; a graph that more threads build differs.
 * Memory: checked against bytes_max before anything is allocated, by the plan's estimate (index/faiss_plan.h).
 */
#ifndef VK_INDEX_FAISS_H
#define VK_INDEX_FAISS_H

#include <stdatomic.h>

#include "index/faiss_plan.h"
#include "simd/score.h"

#define VK_FAISS_K_MAX 2048u        /* nominations a query */
#define VK_FAISS_WIDE_MAX 16384u    /* ef, and candidates that a Refine scores */
#define VK_FAISS_NPROBE_MAX 65536u
#define VK_FAISS_ROWS_MAX 0x7fffffffu
#define VK_FAISS_THREADS_MAX 256u

struct vk_faiss;

/* "FAISS 1.7.3", or NULL and err. Loads it. */
const char *vk_faiss_library(struct vk_error *err);

struct vk_faiss_conf {
	const char *factory;
	uint32_t dims;
	enum vk_metric metric; /* DOT, COSINE, L2 */
	uint64_t rows;         /* that will be added at most */
	uint64_t bytes_max;    /* memory it may take; 0: no limit */
	uint32_t ef_build;     /* HNSW's beam while building; 0: FAISS's 40 */
	uint32_t seed;
};
struct vk_faiss_opts {
	unsigned threads;        /* 0 and 1: the calling thread alone */
	const atomic_bool *stop; /* NULL, or VK_E_CANCELLED soon after it turns true (a second at worst) */
	void (*progress)(void *arg, uint64_t done, uint64_t total); /* NULL, or on the calling thread: rounds, then rows */
	void *arg;
};

enum vk_status vk_faiss_new(const struct vk_faiss_conf *c, struct vk_faiss **out, struct vk_error *err);
void vk_faiss_free(struct vk_faiss *f);
const struct vk_faiss_plan *vk_faiss_plan_of(const struct vk_faiss *f);
uint64_t vk_faiss_rows(const struct vk_faiss *f);
/* Half built: rows are still to be added, saved and opened as such. */
void vk_faiss_mark_partial(struct vk_faiss *f, bool partial);
bool vk_faiss_partial(const struct vk_faiss *f);
/* So many rows will be in it, in so much memory (0: no limit): for one that was opened half built, before more are added. */
enum vk_status vk_faiss_expect(struct vk_faiss *f, uint64_t rows, uint64_t bytes_max, struct vk_error *err);
bool vk_faiss_filters(const struct vk_faiss *f); /* a query may say `allow` */
/* n rows of dims floats; nothing to do (VK_OK) when plan.train_min is 0. VK_E_INVALID: n is less than that. */
enum vk_status vk_faiss_train(struct vk_faiss *f, size_t n, const float *rows, const struct vk_faiss_opts *o, struct vk_error *err);
/* The same on `want` of the n rows (0: as many as do good), spread evenly over all. */
enum vk_status vk_faiss_train_sample(struct vk_faiss *f, size_t n, const float *rows, uint32_t want, const struct vk_faiss_opts *o,
				     struct vk_error *err);
/* Given up in the middle (stop, memory) the index is of no use any more: free it. */
enum vk_status vk_faiss_add(struct vk_faiss *f, size_t n, const float *rows, const uint32_t *label, const struct vk_faiss_opts *o,
			    struct vk_error *err);

struct vk_faiss_query {
	const float *vector;   /* queries x dims; COSINE: unit */
	size_t queries;
	uint32_t want;         /* 1 to VK_FAISS_K_MAX */
	uint32_t nprobe;       /* IVF: lists to look at; 0: vk_faiss_dial()'s, else the square root of their number */
	uint32_t ef;           /* HNSW: beam, raised to want; 0: vk_faiss_dial()'s, else 64 */
	uint32_t oversample;   /* Refine: candidates a nomination; 0: 4 */
	const uint64_t *allow; /* bits over labels, NULL: all. Only for kinds whose info says `filters` */
	uint32_t allow_n;      /* labels that allow speaks of; others are not allowed */
	/* out: queries x want, best first */
	uint32_t *label;
	float *near;           /* bigger is nearer: inner product, minus squared L2, minus Hamming */
	uint32_t *found;       /* a query */
};
/* What queries get that do not say; 0: the defaults. Before there are searches. */
void vk_faiss_dial(struct vk_faiss *f, uint32_t nprobe, uint32_t ef);
enum vk_status vk_faiss_search(const struct vk_faiss *f, const struct vk_faiss_query *q, const struct vk_faiss_opts *o,
			       struct vk_error *err);

struct vk_faiss_about {
	uint64_t rows, bytes;  /* bytes of memory, labels included, mapped lists not */
	uint32_t dims, nlist;
	enum vk_metric metric;
	bool trained, filters, mapped;
	char factory[VK_FAISS_FACTORY_MAX];
	char type[48];         /* FAISS's class */
};
enum vk_status vk_faiss_about(const struct vk_faiss *f, struct vk_faiss_about *out, struct vk_error *err);

/* --- files --- */

/* The whole index under path: temporary file, fsync, rename, directory fsync. sequence and tag are the caller's. */
enum vk_status vk_faiss_save(const struct vk_faiss *f, const char *path, uint64_t sequence, const uint8_t tag[32],
			     struct vk_error *err);
/* FAISS's part alone, for other programs. */
enum vk_status vk_faiss_export(const struct vk_faiss *f, const char *path, struct vk_error *err);
uint32_t vk_faiss_label(const struct vk_faiss *f, uint32_t number); /* of row `number`, below about.rows */
/* map: lists stay in the file (IVF), else all is read into memory, as always of one that is half built. VK_E_NOT_FOUND,
 * VK_E_CORRUPT. */
enum vk_status vk_faiss_open(const char *path, bool map, struct vk_faiss **out, uint64_t *sequence, uint8_t tag[32],
			     struct vk_error *err);

/* --- k-means, for whoever needs centroids --- */

struct vk_faiss_means {
	const float *rows;  /* n x dims, finite */
	size_t n;
	uint32_t dims, k;   /* n >= k */
	uint32_t rounds;    /* 0: 20 */
	uint32_t seed;
	bool spherical;     /* centroids of norm 1, nearest by inner product */
	float *centroid;    /* out: k x dims */
	double loss;        /* out: mean squared distance to the own centroid; spherical: 1 - mean inner product */
};
enum vk_status vk_faiss_means(struct vk_faiss_means *m, const struct vk_faiss_opts *o, struct vk_error *err);

#endif
