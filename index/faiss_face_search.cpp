/*
 * Searching: a query's parameters and its selector, taken down the chain to the body. The index is not touched, so any number of
 * threads may search at once; what a query wants (nprobe, ef, base_k, who may answer) goes with it.
 *
 * What had to be known of FAISS:
 *  - HNSW 1.7.3 takes its candidates' room from the index, not from the query's efSearch, but never less than k: so the beam
 *    is made by asking for that many results and keeping the first.
 *  - Refine 1.7.3 takes no parameters: its two steps are made here.
 *
 * Memory: queries go in blocks, so that at most BLOCK_ANSWERS candidates are held at once (a single query's own may be more).
 * Errors: VK_E_INVALID untrained, or a filter where `filters` is false; VK_E_CANCELLED between blocks and where FAISS asks.
 */
#include "index/faiss_face_parts.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <faiss/IndexBinaryHNSW.h>
#include <faiss/IndexBinaryIVF.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/impl/DistanceComputer.h>
#include <faiss/impl/IDSelector.h>

namespace vk_face {

namespace {

constexpr size_t BLOCK_ANSWERS = 1u << 20; /* queries x candidates held at once */

struct By_label : faiss::IDSelector {
	const struct vk_faiss_ask *a;
	explicit By_label(const struct vk_faiss_ask *ask) : a(ask) {}
	bool is_member(idx_t id) const override
	{
		uint32_t l = a->label[id];
		return l < a->allow_n && a->allow[l / 64] >> (l % 64) & 1;
	}
};

struct Looking {
	const struct vk_faiss_ask *a;
	faiss::IDSelector *sel; /* null: all rows */
};

void search_floats(const faiss::Index *ix, idx_t n, const float *x, idx_t k, float *dis, idx_t *ids, const Looking &l);

/* The coarse index nominates, the refining one scores. */
void search_refine(const faiss::IndexRefine *r, idx_t n, const float *x, idx_t k, float *dis, idx_t *ids, const Looking &l)
{
	idx_t wide = std::max<idx_t>(k, l.a->base_k);
	std::vector<float> base_dis(n * wide);
	std::vector<idx_t> base_ids(n * wide);
	search_floats(r->base_index, n, x, wide, base_dis.data(), base_ids.data(), l);
	std::unique_ptr<faiss::DistanceComputer> scorer(r->refine_index->get_distance_computer());
	bool up = r->metric_type == faiss::METRIC_INNER_PRODUCT;
	std::vector<std::pair<float, idx_t>> best;
	for (idx_t q = 0; q < n; q++) {
		best.clear();
		scorer->set_query(x + q * r->d);
		for (idx_t i = 0; i < wide && base_ids[q * wide + i] >= 0; i++) {
			idx_t id = base_ids[q * wide + i];
			best.emplace_back((*scorer)(id), id);
		}
		size_t m = std::min<size_t>(best.size(), (size_t)k);
		std::partial_sort(best.begin(), best.begin() + m, best.end(), [up](const auto &a, const auto &b) {
			return a.first != b.first ? (up ? a.first > b.first : a.first < b.first) : a.second < b.second;
		});
		for (size_t i = 0; i < (size_t)k; i++) {
			dis[q * k + i] = i < m ? best[i].first : 0;
			ids[q * k + i] = i < m ? best[i].second : -1;
		}
	}
}

void search_transformed(const faiss::IndexPreTransform *t, idx_t n, const float *x, idx_t k, float *dis, idx_t *ids,
			const Looking &l)
{
	const float *turned = t->apply_chain(n, x);
	std::unique_ptr<const float[]> own(turned == x ? nullptr : turned);
	search_floats(t->index, n, turned, k, dis, ids, l);
}

/* f(wide, dis, ids) finds `wide` a query; the first k of each are kept. */
template <class D, class F> void search_wide(idx_t n, idx_t k, idx_t wide, D *dis, idx_t *ids, F &&f)
{
	if (wide <= k) return f(k, dis, ids);
	std::vector<D> d(n * wide);
	std::vector<idx_t> i(n * wide);
	f(wide, d.data(), i.data());
	for (idx_t q = 0; q < n; q++) {
		std::copy_n(d.data() + q * wide, k, dis + q * k);
		std::copy_n(i.data() + q * wide, k, ids + q * k);
	}
}

void search_hnsw(const faiss::IndexHNSW *h, idx_t n, const float *x, idx_t k, float *dis, idx_t *ids, const Looking &l)
{
	search_wide(n, k, (idx_t)l.a->ef, dis, ids, [&](idx_t wide, float *d, idx_t *i) {
		faiss::SearchParametersHNSW p;
		p.efSearch = (int)wide;
		h->search(n, x, wide, d, i, &p);
	});
}

void search_floats(const faiss::Index *ix, idx_t n, const float *x, idx_t k, float *dis, idx_t *ids, const Looking &l)
{
	if (auto *r = as<const faiss::IndexRefine>(ix)) return search_refine(r, n, x, k, dis, ids, l);
	if (auto *t = as<const faiss::IndexPreTransform>(ix)) return search_transformed(t, n, x, k, dis, ids, l);
	if (auto *h = as<const faiss::IndexHNSW>(ix)) return search_hnsw(h, n, x, k, dis, ids, l);
	if (as<const faiss::IndexIVF>(ix)) {
		faiss::SearchParametersIVF p;
		p.nprobe = std::max<uint32_t>(1, l.a->nprobe);
		p.sel = l.sel;
		return ix->search(n, x, k, dis, ids, &p);
	}
	if (!l.sel) return ix->search(n, x, k, dis, ids);
	faiss::SearchParameters p;
	p.sel = l.sel;
	ix->search(n, x, k, dis, ids, &p);
}

void search_bits(const faiss::IndexBinary *ix, idx_t n, const uint8_t *x, idx_t k, int32_t *dis, idx_t *ids, const Looking &l)
{
	if (auto *h = as<const faiss::IndexBinaryHNSW>(ix))
		return search_wide(n, k, (idx_t)l.a->ef, dis, ids,
				   [&](idx_t wide, int32_t *d, idx_t *i) { h->search(n, x, wide, d, i); });
	auto *ivf = as<const faiss::IndexBinaryIVF>(ix);
	if (!ivf) return ix->search(n, x, k, dis, ids);
	faiss::SearchParametersIVF p;
	p.nprobe = std::min<size_t>(ivf->nlist, std::max<uint32_t>(1, l.a->nprobe));
	std::vector<idx_t> list(n * p.nprobe);
	std::vector<int32_t> far(n * p.nprobe);
	ivf->quantizer->search(n, x, (idx_t)p.nprobe, far.data(), list.data());
	ivf->search_preassigned(n, x, k, list.data(), far.data(), dis, ids, false, &p);
}

/* One block of queries into the caller's arrays. */
void search_block(const struct vk_faiss_index *x, const Looking &l, idx_t from, idx_t n)
{
	idx_t k = (idx_t)l.a->k;
	std::vector<idx_t> ids(n * k);
	float *dis = l.a->distance + from * k;
	uint32_t *number = l.a->number + from * k;
	if (x->bits) {
		std::vector<int32_t> hamming(n * k);
		const uint8_t *q = (const uint8_t *)l.a->query + from * x->bits->code_size;
		search_bits(x->bits.get(), n, q, k, hamming.data(), ids.data(), l);
		std::copy(hamming.begin(), hamming.end(), dis);
	} else {
		search_floats(x->ix.get(), n, (const float *)l.a->query + from * x->ix->d, k, dis, ids.data(), l);
	}
	idx_t rows = x->bits ? x->bits->ntotal : x->ix->ntotal;
	for (idx_t i = 0; i < n * k; i++) number[i] = ids[i] >= 0 && ids[i] < rows ? (uint32_t)ids[i] : VK_FAISS_NOBODY;
}

} // namespace

enum vk_status search(const struct vk_faiss_index *x, const struct vk_faiss_ask *a, const struct vk_faiss_work *w,
		      struct vk_error *err)
{
	return guarded(w, VK_E_INVALID, err, [&] {
		want(x->bits ? x->bits->is_trained : x->ix->is_trained, "the index is not trained");
		want(!a->allow || (x->ix && filters(x->ix.get())), "this kind of index takes no filter");
		By_label by_label(a);
		Looking l = {a, a->allow ? &by_label : nullptr};
		size_t wide = std::max<size_t>({a->k, a->ef, a->base_k, 1});
		size_t block = std::max<size_t>(1, BLOCK_ANSWERS / wide);
		for (size_t from = 0; from < a->queries; from += block) {
			want(!stopped(w), "stopped");
			search_block(x, l, (idx_t)from, (idx_t)std::min(block, a->queries - from));
		}
	});
}

} // namespace vk_face
