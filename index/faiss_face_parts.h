/*
 * What the files behind index/faiss_face.h share; nobody else includes it, since it opens the door to FAISS's headers.
 *
 *   faiss_face.cpp         the border (threads, stopping, exceptions) and the table
 *   faiss_face_chain.cpp   the chain of wrappers: what is in it, what it holds, its rows
 *   faiss_face_make.cpp    create, train, add; k-means
 *   faiss_face_search.cpp  parameters and selectors of a query, down the chain
 *   faiss_face_file.cpp    write, read, map
 *
 * Model. An index is a chain of wrappers (Refine, PreTransform, IDMap) around one body (IVF, HNSW, Flat, SQ, PQ). Search, rows
 * and sizes walk that chain themselves, one function a concern, because the wrappers of 1.7.3 refuse search parameters and
 * setting nprobe or efSearch in the index would be a race between queries.
 *
 * Ownership: an index is its vk_faiss_index's; what the functions of the chain return is borrowed from it.
 * Threads: as the face says; the border's own state is the calling thread's.
 * Errors: within, exceptions (want() throws them, as FAISS does); each function of the face is one guarded() and makes them a
 * status. Names are in a namespace instead of under a prefix: nothing of them leaves vk_faiss.so (faiss_face.map).
 */
#ifndef VK_INDEX_FAISS_FACE_PARTS_H
#define VK_INDEX_FAISS_FACE_PARTS_H

#include "index/faiss_face.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>

#include <faiss/Index.h>
#include <faiss/IndexBinary.h>

struct vk_faiss_index {
	std::unique_ptr<faiss::Index> ix; /* one of the two */
	std::unique_ptr<faiss::IndexBinary> bits;
	bool mapped = false;
};

namespace vk_face {

using idx_t = int64_t;

constexpr int COARSE_EF = 64; /* beam over the lists' centroids */

/* --- the border: faiss_face.cpp --- */

bool stopped(const struct vk_faiss_work *w);

/* Stands while a call works: FAISS asks w whether to stop, and OpenMP has its threads. OpenMP's number of threads is the calling
 * thread's own setting: put back afterwards. */
struct Working {
	int threads_before;
	explicit Working(const struct vk_faiss_work *w);
	~Working();
};

/* Fills err (null: not wanted) with FAISS's text made plain, returns st. */
enum vk_status fail(struct vk_error *err, enum vk_status st, const char *text);

struct Put_failed { /* thrown through FAISS's writer: the sink's own status, its error is said already */
	enum vk_status st;
};

/* Runs f; whatever it throws becomes a status. bad: what FAISS's own complaints are. */
template <class F>
enum vk_status guarded(const struct vk_faiss_work *w, enum vk_status bad, struct vk_error *err, F &&f)
{
	Working here(w);
	try {
		f();
		return VK_OK;
	} catch (const Put_failed &e) {
		return e.st;
	} catch (const std::bad_alloc &) {
		return fail(err, VK_E_NOMEM, "no memory");
	} catch (const std::length_error &) {
		return fail(err, bad, "a size in it is impossible");
	} catch (const std::exception &e) {
		if (stopped(w)) return fail(err, VK_E_CANCELLED, "stopped");
		return fail(err, bad, e.what());
	} catch (...) {
		return fail(err, VK_E_INTERNAL, "an error without a name");
	}
}

inline void want(bool right, const char *text)
{
	if (!right) throw std::runtime_error(text);
}

/* --- the chain: faiss_face_chain.cpp --- */

template <class T, class B> T *as(B *b)
{
	return dynamic_cast<T *>(b);
}

/* What is inside a wrapper, or null. */
faiss::Index *inside(faiss::Index *ix);

/* What is inside of all of them. */
faiss::Index *body(faiss::Index *ix);
const faiss::Index *body(const faiss::Index *ix);

/* Takes a selector and means it: answers as if only the selected rows were there. */
bool filters(const faiss::Index *ix);

/* --- the face's functions, as index/faiss_face.h declares them --- */

/* faiss_face_make.cpp */
enum vk_status create(const struct vk_faiss_make *m, struct vk_faiss_index **out, struct vk_error *err);
void destroy(struct vk_faiss_index *x);
enum vk_status train(struct vk_faiss_index *x, size_t n, const void *rows, const struct vk_faiss_work *w, struct vk_error *err);
enum vk_status add(struct vk_faiss_index *x, size_t n, const void *rows, const struct vk_faiss_work *w, struct vk_error *err);
enum vk_status kmeans(struct vk_faiss_kmeans *k, const struct vk_faiss_work *w, struct vk_error *err);
/* faiss_face_search.cpp */
enum vk_status search(const struct vk_faiss_index *x, const struct vk_faiss_ask *a, const struct vk_faiss_work *w,
		      struct vk_error *err);
/* faiss_face_chain.cpp */
enum vk_status describe(const struct vk_faiss_index *x, struct vk_faiss_info *out, struct vk_error *err);
enum vk_status rows(const struct vk_faiss_index *x, struct vk_faiss_cursor *at, uint32_t max, int64_t *id, float *dst, uint32_t *n,
		    struct vk_error *err);
/* faiss_face_file.cpp */
enum vk_status write(const struct vk_faiss_index *x, enum vk_status (*put)(void *arg, const void *p, size_t n), void *arg,
		     struct vk_error *err);
enum vk_status read(const char *path, bool binary, unsigned flags, struct vk_faiss_index **out, struct vk_error *err);

} // namespace vk_face

#endif
