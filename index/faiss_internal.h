/* What the files behind index/faiss.h share; nobody else includes this. */
#ifndef VK_INDEX_FAISS_INTERNAL_H
#define VK_INDEX_FAISS_INTERNAL_H

#include "index/faiss.h"
#include "index/faiss_face.h"

struct vk_faiss {
	const struct vk_faiss_face *face;
	struct vk_faiss_index *ix;
	struct vk_faiss_plan plan;
	enum vk_metric metric;
	uint64_t bytes_max;
	uint64_t rows_expected;
	uint32_t *label;   /* by row number */
	uint64_t rows, cap;
	uint32_t nprobe, ef; /* of queries that do not say; 0: the defaults */
	bool trained, filters, partial;
	int file;             /* of mapped lists, to save them again, even when its name is gone; -1: none */
	uint64_t faiss_bytes; /* of that file */
};

/* The table of vk_faiss.so, loaded once; NULL: VK_E_UNAVAILABLE in err. */
const struct vk_faiss_face *vk_faiss_face(struct vk_error *err);
/* The same from a file of this name, not kept: tests. */
const struct vk_faiss_face *vk_faiss_face_at(const char *path, struct vk_error *err);

#endif
