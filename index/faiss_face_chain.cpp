/*
 * The chain of wrappers, looked at: what is inside, whether it filters, what it is and what memory it holds, its rows got back.
 * Nothing here changes an index, so any number of threads may ask at once.
 *
 * Units: bytes are of memory held, lists that are mapped left out. A cursor counts rows in the order in which they were added
 * (those of the refining index where there is one), or goes list by list where there are lists.
 * Errors: what cannot be got back (signs, whitened rows) is VK_E_INVALID with its reason.
 */
#include "index/faiss_face_parts.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <typeinfo>
#include <vector>

#include <cxxabi.h>

#include <faiss/IndexBinaryHNSW.h>
#include <faiss/IndexBinaryIVF.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/VectorTransform.h>
#include <faiss/invlists/OnDiskInvertedLists.h>

namespace vk_face {

/* --- what is inside --- */

faiss::Index *inside(faiss::Index *ix)
{
	if (auto *r = as<faiss::IndexRefine>(ix)) return r->base_index;
	if (auto *t = as<faiss::IndexPreTransform>(ix)) return t->index;
	if (auto *m = as<faiss::IndexIDMap>(ix)) return m->index;
	return nullptr;
}

faiss::Index *body(faiss::Index *ix)
{
	while (faiss::Index *in = inside(ix)) ix = in;
	return ix;
}

const faiss::Index *body(const faiss::Index *ix)
{
	return body(const_cast<faiss::Index *>(ix));
}

bool filters(const faiss::Index *ix)
{
	const faiss::Index *b = body(ix);
	std::string type = typeid(*b).name();
	if (type.find("FastScan") != std::string::npos) return false;
	return as<const faiss::IndexFlat>(b) || as<const faiss::IndexScalarQuantizer>(b) || as<const faiss::IndexIVF>(b);
}

/* --- what it is --- */

namespace {

uint64_t lists_bytes(const faiss::InvertedLists *lists)
{
	uint64_t n = 0;
	if (!lists || as<const faiss::OnDiskInvertedLists>(lists)) return 0;
	for (size_t i = 0; i < lists->nlist; i++) n += lists->list_size(i) * (lists->code_size + sizeof(idx_t));
	return n;
}

uint64_t graph_bytes(const faiss::HNSW &h)
{
	return h.neighbors.size() * sizeof(h.neighbors[0]) + h.offsets.size() * sizeof(h.offsets[0]) +
	       h.levels.size() * sizeof(h.levels[0]);
}

uint64_t bytes_of(const faiss::Index *ix)
{
	if (auto *r = as<const faiss::IndexRefine>(ix)) return bytes_of(r->base_index) + bytes_of(r->refine_index);
	if (auto *t = as<const faiss::IndexPreTransform>(ix)) {
		uint64_t n = bytes_of(t->index);
		for (faiss::VectorTransform *v : t->chain) n += 4ull * v->d_in * v->d_out;
		return n;
	}
	if (auto *h = as<const faiss::IndexHNSW>(ix)) return graph_bytes(h->hnsw) + bytes_of(h->storage);
	if (auto *p = as<const faiss::IndexIVFPQ>(ix))
		return lists_bytes(p->invlists) + bytes_of(p->quantizer) + 4ull * (p->pq.centroids.size() + p->precomputed_table.size());
	if (auto *v = as<const faiss::IndexIVF>(ix)) return lists_bytes(v->invlists) + bytes_of(v->quantizer);
	if (auto *f = as<const faiss::IndexFlatCodes>(ix)) return f->codes.size();
	return 0;
}

uint64_t bytes_of(const faiss::IndexBinary *ix)
{
	if (auto *h = as<const faiss::IndexBinaryHNSW>(ix)) return graph_bytes(h->hnsw) + bytes_of(h->storage);
	if (auto *v = as<const faiss::IndexBinaryIVF>(ix)) return lists_bytes(v->invlists) + bytes_of(v->quantizer);
	return (uint64_t)ix->ntotal * ix->code_size;
}

void name_type(const std::type_info &t, char *dst, size_t n)
{
	int bad = 0;
	std::unique_ptr<char, void (*)(void *)> text(abi::__cxa_demangle(t.name(), nullptr, nullptr, &bad), std::free);
	const char *p = text ? text.get() : t.name();
	if (!std::strncmp(p, "faiss::", 7)) p += 7;
	std::snprintf(dst, n, "%s", p);
}

} // namespace

enum vk_status describe(const struct vk_faiss_index *x, struct vk_faiss_info *out, struct vk_error *err)
{
	*out = {};
	return guarded(nullptr, VK_E_INVALID, err, [&] {
		out->mapped = x->mapped;
		out->binary = x->bits != nullptr;
		if (const faiss::IndexBinary *ix = x->bits.get()) {
			out->rows = (uint64_t)ix->ntotal;
			out->dims = (uint32_t)ix->d;
			out->trained = ix->is_trained;
			out->bytes = bytes_of(ix);
			if (auto *v = as<const faiss::IndexBinaryIVF>(ix)) out->nlist = (uint32_t)v->nlist;
			return name_type(typeid(*ix), out->type, sizeof out->type);
		}
		const faiss::Index *ix = x->ix.get(), *b = body(ix);
		out->rows = (uint64_t)ix->ntotal;
		out->dims = (uint32_t)ix->d;
		out->trained = ix->is_trained;
		out->inner_product = ix->metric_type == faiss::METRIC_INNER_PRODUCT;
		out->bytes = bytes_of(ix);
		out->filters = filters(ix);
		if (auto *v = as<const faiss::IndexIVF>(b)) out->nlist = (uint32_t)v->nlist;
		name_type(typeid(*b), out->type, sizeof out->type);
	});
}

/* --- rows --- */

namespace {

/* FAISS takes a whitening PCA for orthonormal and turns back by its transpose: far off, without a word. */
bool can_turn_back(const faiss::IndexPreTransform *t)
{
	for (const faiss::VectorTransform *v : t->chain)
		if (auto *p = as<const faiss::PCAMatrix>(v))
			if (p->eigen_power != 0) return false;
	return true;
}

/* Up to max rows of an index with lists, list by list. */
uint32_t rows_of_lists(const faiss::IndexIVF *v, struct vk_faiss_cursor *at, uint32_t max, idx_t *id, float *rows)
{
	uint32_t n = 0;
	while (n < max && at->list < v->nlist) {
		size_t size = v->invlists->list_size(at->list);
		if (at->at >= size) {
			at->list++;
			at->at = 0;
			continue;
		}
		faiss::InvertedLists::ScopedIds ids(v->invlists, at->list);
		for (; n < max && at->at < size; at->at++, n++) {
			id[n] = ids[at->at];
			v->reconstruct_from_offset((int64_t)at->list, (int64_t)at->at, rows + (size_t)n * v->d);
		}
	}
	return n;
}

uint32_t rows_of(const faiss::Index *ix, struct vk_faiss_cursor *at, uint32_t max, idx_t *id, float *rows)
{
	if (auto *r = as<const faiss::IndexRefine>(ix)) return rows_of(r->refine_index, at, max, id, rows);
	if (auto *v = as<const faiss::IndexIVF>(ix)) return rows_of_lists(v, at, max, id, rows);
	if (auto *t = as<const faiss::IndexPreTransform>(ix)) {
		want(can_turn_back(t), "its transformation has no way back (whitening)");
		std::vector<float> turned((size_t)max * t->index->d);
		uint32_t n = rows_of(t->index, at, max, id, turned.data());
		if (n) t->reverse_chain(n, turned.data(), rows);
		return n;
	}
	if (auto *m = as<const faiss::IndexIDMap>(ix)) {
		uint32_t n = rows_of(m->index, at, max, id, rows);
		for (uint32_t i = 0; i < n; i++) {
			want(id[i] >= 0 && (size_t)id[i] < m->id_map.size(), "an id is outside of the index's table");
			id[i] = m->id_map[id[i]];
		}
		return n;
	}
	uint64_t left = at->at < (uint64_t)ix->ntotal ? (uint64_t)ix->ntotal - at->at : 0;
	uint32_t n = left < max ? (uint32_t)left : max;
	for (uint32_t i = 0; i < n; i++) {
		id[i] = (idx_t)at->at++;
		ix->reconstruct(id[i], rows + (size_t)i * ix->d);
	}
	return n;
}

} // namespace

enum vk_status rows(const struct vk_faiss_index *x, struct vk_faiss_cursor *at, uint32_t max, int64_t *id, float *dst, uint32_t *n,
		    struct vk_error *err)
{
	*n = 0;
	return guarded(nullptr, VK_E_INVALID, err, [&] {
		want(x->ix != nullptr, "a binary index holds signs, no vectors");
		*n = rows_of(x->ix.get(), at, max, id, dst);
	});
}

} // namespace vk_face
