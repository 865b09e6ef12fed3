/*
 * An index as FAISS's own file: written through the caller's put, read, or its lists mapped.
 *
 * What had to be known of FAISS:
 *  - Lists that are mapped are read ahead by 32 new threads at each search, unless that is switched off.
 *  - A file may say that its lists are in another file, by name: not followed.
 *  - Mapped or not, FAISS trusts the counts in a file (see index/faiss_face.h).
 *
 * Ownership: the file is closed when read() returns; a mapping lives as long as the index.
 * Errors: put's status ends a write, and has said its error itself; whatever is wrong with a file read is VK_E_CORRUPT.
 */
#include "index/faiss_face_parts.h"

#include <cstdio>

#include <faiss/IndexBinaryIVF.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVF.h>
#include <faiss/impl/io.h>
#include <faiss/index_io.h>
#include <faiss/invlists/OnDiskInvertedLists.h>

namespace vk_face {

namespace {

/* --- writing --- */

struct Sink : faiss::IOWriter {
	enum vk_status (*put)(void *arg, const void *p, size_t n);
	void *arg;
	size_t operator()(const void *p, size_t size, size_t items) override
	{
		enum vk_status st = put(arg, p, size * items);
		if (st) throw Put_failed{st};
		return items;
	}
};

} // namespace

enum vk_status write(const struct vk_faiss_index *x, enum vk_status (*put)(void *arg, const void *p, size_t n), void *arg,
		     struct vk_error *err)
{
	return guarded(nullptr, VK_E_INVALID, err, [&] {
		want(!x->mapped, "an index whose lists are mapped is a file already");
		Sink s;
		s.put = put;
		s.arg = arg;
		s.name = "the index";
		if (x->bits) faiss::write_index_binary(x->bits.get(), &s);
		else faiss::write_index(x->ix.get(), &s);
	});
}

/* --- reading --- */

namespace {

/* Lists in the file itself are ours (mapped); lists that the file says are in another one are not followed. */
void settle(faiss::InvertedLists *lists, bool map, bool *mapped)
{
	auto *disk = as<faiss::OnDiskInvertedLists>(lists);
	if (!disk) return;
	want(map, "its lists are in another file");
	disk->prefetch_nthread = 0;
	*mapped = true;
}

struct File {
	std::FILE *f;
	explicit File(const char *path) : f(std::fopen(path, "rbe")) { want(f, "the file cannot be opened"); }
	~File() { std::fclose(f); }
};

} // namespace

enum vk_status read(const char *path, bool binary, unsigned flags, struct vk_faiss_index **out, struct vk_error *err)
{
	return guarded(nullptr, VK_E_CORRUPT, err, [&] {
		bool map = flags & VK_FAISS_MAP;
		int io = faiss::IO_FLAG_READ_ONLY | (map ? faiss::IO_FLAG_MMAP : 0) |
			 (flags & VK_FAISS_NO_TABLES ? faiss::IO_FLAG_SKIP_PRECOMPUTE_TABLE : 0);
		std::unique_ptr<vk_faiss_index> x(new vk_faiss_index());
		File file(path);
		if (binary) {
			x->bits.reset(faiss::read_index_binary(file.f, io));
			if (auto *v = as<faiss::IndexBinaryIVF>(x->bits.get())) settle(v->invlists, map, &x->mapped);
		} else {
			x->ix.reset(faiss::read_index(file.f, io));
			if (auto *v = as<faiss::IndexIVF>(body(x->ix.get()))) {
				settle(v->invlists, map, &x->mapped);
				if (auto *q = as<faiss::IndexHNSW>(v->quantizer)) q->hnsw.efSearch = COARSE_EF;
			}
		}
		*out = x.release();
	});
}

} // namespace vk_face
