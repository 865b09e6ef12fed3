/*
 * FAISS behind its face: the only file that knows FAISS's classes. Compiles against 1.7.3 (Debian 12) and later.
 *
 * Model. An index is a chain of wrappers (Refine, PreTransform, IDMap) around one body (IVF, HNSW, Flat, SQ, PQ). Search, rows
 * and sizes walk that chain themselves, one function a concern, because the wrappers of 1.7.3 refuse search parameters and
 * setting nprobe or efSearch in the index would be a race between queries.
 *
 * What had to be known of FAISS:
 *  - HNSW 1.7.3 takes its candidates' room from the index, not from the query's efSearch, but never less than k: so the beam
 *    is made by asking for that many results and keeping the first.
 *  - One interrupt callback serves the whole process: it asks the calling thread's own work, by a thread-local.
 *  - Clustering, PQ and OPQ take the index that assigns points from outside: ours counts the rounds, so training has progress.
 *  - Polysemous training (the factory's default) is minutes of annealing for a filter that is off by default: switched off.
 *  - Lists that are mapped are read ahead by 32 new threads at each search, unless that is switched off.
 *  - Mapped or not, FAISS trusts the counts in a file (see the header).
 */
#include "index/faiss_face.h"

#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <vector>

#include <cxxabi.h>
#include <omp.h>

#include <faiss/Clustering.h>
#include <faiss/Index.h>
#include <faiss/IndexBinaryFlat.h>
#include <faiss/IndexBinaryHNSW.h>
#include <faiss/IndexBinaryIVF.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexPQ.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/VectorTransform.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/DistanceComputer.h>
#include <faiss/impl/FaissException.h>
#include <faiss/impl/IDSelector.h>
#include <faiss/impl/io.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>
#include <faiss/invlists/OnDiskInvertedLists.h>

struct vk_faiss_index {
	std::unique_ptr<faiss::Index> ix; /* one of the two */
	std::unique_ptr<faiss::IndexBinary> bits;
	bool mapped = false;
};

namespace {

using idx_t = int64_t;

constexpr int COARSE_EF = 64;         /* beam over the lists' centroids */
constexpr size_t BLOCK_ANSWERS = 1u << 20; /* queries x candidates held at once */

/* --- the border: threads, stopping, exceptions --- */

thread_local const struct vk_faiss_work *working;

bool stopped(const struct vk_faiss_work *w)
{
	return w && w->stopped && w->stopped(w->arg);
}

struct Interrupt : faiss::InterruptCallback {
	bool want_interrupt() override { return stopped(working); }
};

/* OpenMP's number of threads is the calling thread's own setting: put back afterwards. */
struct Working {
	int threads_before = omp_get_max_threads();
	explicit Working(const struct vk_faiss_work *w)
	{
		static const bool once = [] {
			faiss::InterruptCallback::instance.reset(new Interrupt());
			return true;
		}();
		(void)once;
		working = w;
		omp_set_num_threads(w && w->threads > 1 ? (int)w->threads : 1);
	}
	~Working()
	{
		omp_set_num_threads(threads_before);
		working = nullptr;
	}
};

/* FAISS's "Error in <function> at <file>:<line>: Error: '<condition>' failed: <text>", without where it stood. */
const char *plain(const char *what)
{
	const char *p = std::strstr(what, "failed: ");
	if (p && p[8]) return p + 8;
	p = std::strncmp(what, "Error in ", 9) ? nullptr : std::strstr(what, ".cpp:");
	if (p) p = std::strstr(p, ": ");
	return p && p[2] ? p + 2 : what;
}

enum vk_status fail(struct vk_error *err, enum vk_status st, const char *text)
{
	if (!err) return st;
	*err = {};
	err->st = st;
	int n = std::snprintf(err->text, sizeof err->text, "FAISS: %s", plain(text));
	if (n >= (int)sizeof err->text) n = sizeof err->text - 1;
	for (int i = 0; i < n; i++) /* it quotes bytes of files */
		if (err->text[i] < ' ' || err->text[i] > '~') err->text[i] = err->text[i] == '\n' ? ' ' : '?';
	while (n > 0 && err->text[n - 1] == ' ') err->text[--n] = 0;
	return st;
}

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

void want(bool right, const char *text)
{
	if (!right) throw std::runtime_error(text);
}

/* --- the chain --- */

template <class T, class B> T *as(B *b)
{
	return dynamic_cast<T *>(b);
}

/* What is inside a wrapper, or null. */
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

/* Takes a selector and means it: answers as if only the selected rows were there. */
bool filters(const faiss::Index *ix)
{
	const faiss::Index *b = body(ix);
	std::string type = typeid(*b).name();
	if (type.find("FastScan") != std::string::npos) return false;
	return as<const faiss::IndexFlat>(b) || as<const faiss::IndexScalarQuantizer>(b) || as<const faiss::IndexIVF>(b);
}

faiss::ProductQuantizer *product(faiss::Index *ix)
{
	faiss::Index *b = body(ix);
	if (auto *h = as<faiss::IndexHNSW>(b)) b = h->storage;
	if (auto *p = as<faiss::IndexPQ>(b)) return &p->pq;
	if (auto *p = as<faiss::IndexIVFPQ>(b)) return &p->pq;
	return nullptr;
}

faiss::OPQMatrix *rotation(faiss::Index *ix)
{
	for (; ix; ix = inside(ix))
		if (auto *t = as<faiss::IndexPreTransform>(ix))
			for (faiss::VectorTransform *v : t->chain)
				if (auto *o = as<faiss::OPQMatrix>(v)) return o;
	return nullptr;
}

/* --- making --- */

void tune_clustering(faiss::ClusteringParameters &cp, int64_t seed)
{
	cp.seed = (int)seed;
	cp.min_points_per_centroid = 1; /* few points are the plan's to judge: FAISS would print */
}

void tune(faiss::Index *ix, const struct vk_faiss_make *m)
{
	faiss::Index *b = body(ix);
	if (auto *ivf = as<faiss::IndexIVF>(b)) {
		tune_clustering(ivf->cp, m->seed);
		if (auto *q = as<faiss::IndexHNSW>(ivf->quantizer)) q->hnsw.efSearch = COARSE_EF;
	}
	if (auto *ivf = as<faiss::IndexIVFPQ>(b)) ivf->do_polysemous_training = false;
	if (auto *h = as<faiss::IndexHNSW>(b)) {
		h->hnsw.rng = faiss::RandomGenerator(m->seed);
		if (m->ef_build) h->hnsw.efConstruction = (int)m->ef_build;
		b = h->storage;
	}
	if (auto *p = as<faiss::IndexPQ>(b)) p->do_polysemous_training = false;
	if (auto *pq = product(ix)) tune_clustering(pq->cp, m->seed);
}

void tune(faiss::IndexBinary *ix, const struct vk_faiss_make *m)
{
	if (auto *ivf = as<faiss::IndexBinaryIVF>(ix)) {
		tune_clustering(ivf->cp, m->seed);
		if (auto *q = as<faiss::IndexBinaryHNSW>(ivf->quantizer)) q->hnsw.efSearch = COARSE_EF;
	}
	if (auto *h = as<faiss::IndexBinaryHNSW>(ix)) {
		h->hnsw.rng = faiss::RandomGenerator(m->seed);
		if (m->ef_build) h->hnsw.efConstruction = (int)m->ef_build;
	}
}

/* Rows and codes in one allocation instead of doubling; the lists of IVF and a graph's links grow as they like. */
void reserve(faiss::Index *ix, uint64_t rows)
{
#if FAISS_VERSION_MAJOR == 1 && FAISS_VERSION_MINOR < 10
	if (auto *r = as<faiss::IndexRefine>(ix)) reserve(r->refine_index, rows);
	faiss::Index *b = body(ix);
	if (auto *h = as<faiss::IndexHNSW>(b)) b = h->storage;
	if (auto *f = as<faiss::IndexFlatCodes>(b)) f->codes.reserve(rows * f->code_size);
#else
	(void)ix; /* memory that may be a file's has no reserve */
	(void)rows;
#endif
}

enum vk_status create(const struct vk_faiss_make *m, struct vk_faiss_index **out, struct vk_error *err)
{
	return guarded(nullptr, VK_E_INVALID, err, [&] {
		std::unique_ptr<vk_faiss_index> x(new vk_faiss_index());
		if (m->binary) {
			x->bits.reset(faiss::index_binary_factory((int)m->dims, m->factory));
			tune(x->bits.get(), m);
		} else {
			faiss::MetricType metric = m->inner_product ? faiss::METRIC_INNER_PRODUCT : faiss::METRIC_L2;
			x->ix.reset(faiss::index_factory((int)m->dims, m->factory, metric));
			want(body(x->ix.get())->metric_type == metric && x->ix->metric_type == metric,
			     "this kind of index has no inner product (dot and cosine) here");
			tune(x->ix.get(), m);
			reserve(x->ix.get(), m->rows_expected);
		}
		*out = x.release();
	});
}

void destroy(struct vk_faiss_index *x)
{
	delete x;
}

/* --- training --- */

struct Rounds { /* of k-means, over all that is trained */
	const struct vk_faiss_work *w;
	uint64_t done, total;
};

/* Assigns points as a flat index does, and counts. */
struct Counting : faiss::IndexFlat {
	Rounds *rounds;
	Counting(int dims, faiss::MetricType m, Rounds *r) : faiss::IndexFlat(dims, m), rounds(r) {}
	void search(idx_t n, const float *x, idx_t k, float *dis, idx_t *ids, const faiss::SearchParameters *p) const override
	{
		want(!stopped(rounds->w), "stopped");
		faiss::IndexFlat::search(n, x, k, dis, ids, p);
		if (rounds->done < rounds->total) rounds->done++;
		if (rounds->w && rounds->w->step) rounds->w->step(rounds->w->arg, rounds->done, rounds->total);
	}
};

/* Puts a pointer in a field of the index and takes it out again, whatever happens between. */
template <class T> struct Lent {
	T **field = nullptr;
	std::unique_ptr<T> own;
	~Lent()
	{
		if (field) *field = nullptr;
	}
	void lend(T **f, T *value)
	{
		field = f;
		own.reset(value);
		*f = value;
	}
};

void train_floats(faiss::Index *ix, size_t n, const float *rows, const struct vk_faiss_work *w)
{
	Rounds r = {w, 0, 0};
	Lent<faiss::ProductQuantizer> turn; /* before `turned`, which is lent to it */
	Lent<faiss::Index> coarse, sub, turned;
	auto *ivf = as<faiss::IndexIVF>(body(ix));
	auto *pq = product(ix);
	auto *opq = rotation(ix);
	if (ivf) {
		coarse.lend(&ivf->clustering_index, new Counting(ivf->d, ivf->metric_type, &r));
		r.total += (uint64_t)ivf->cp.niter;
	}
	if (pq) {
		sub.lend(&pq->assign_index, new Counting((int)pq->dsub, faiss::METRIC_L2, &r));
		r.total += pq->M * (uint64_t)pq->cp.niter;
	}
	if (opq) {
		turn.lend(&opq->pq, new faiss::ProductQuantizer(opq->d_out, opq->M, 8));
		tune_clustering(turn.own->cp, 1234);
		turned.lend(&turn.own->assign_index, new Counting((int)turn.own->dsub, faiss::METRIC_L2, &r));
		r.total += (uint64_t)opq->M * (uint64_t)(opq->niter_pq_0 + (opq->niter - 1) * opq->niter_pq);
	}
	ix->train((idx_t)n, rows);
}

void train_bits(faiss::IndexBinary *ix, size_t n, const uint8_t *rows, const struct vk_faiss_work *w)
{
	Rounds r = {w, 0, 0};
	Lent<faiss::Index> coarse;
	if (auto *ivf = as<faiss::IndexBinaryIVF>(ix)) {
		coarse.lend(&ivf->clustering_index, new Counting(ivf->d, faiss::METRIC_L2, &r));
		/* Binary rows are assigned by blocks, so a round is several searches. */
		uint64_t blocks = (n + ivf->cp.decode_block_size - 1) / ivf->cp.decode_block_size;
		r.total = (uint64_t)ivf->cp.niter * blocks;
	}
	ix->train((idx_t)n, rows);
}

enum vk_status train(struct vk_faiss_index *x, size_t n, const void *rows, const struct vk_faiss_work *w, struct vk_error *err)
{
	return guarded(w, VK_E_INVALID, err, [&] {
		if (x->bits) train_bits(x->bits.get(), n, (const uint8_t *)rows, w);
		else train_floats(x->ix.get(), n, (const float *)rows, w);
	});
}

enum vk_status add(struct vk_faiss_index *x, size_t n, const void *rows, const struct vk_faiss_work *w, struct vk_error *err)
{
	return guarded(w, VK_E_INVALID, err, [&] {
		want(!x->mapped, "an index whose lists are mapped takes no rows");
		want(x->bits ? x->bits->is_trained : x->ix->is_trained, "the index is not trained");
		if (x->bits) x->bits->add((idx_t)n, (const uint8_t *)rows);
		else x->ix->add((idx_t)n, (const float *)rows);
	});
}

/* --- searching --- */

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

enum vk_status search(const struct vk_faiss_index *x, const struct vk_faiss_ask *a, const struct vk_faiss_work *w, struct vk_error *err)
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

/* --- what it is --- */

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

enum vk_status rows(const struct vk_faiss_index *x, struct vk_faiss_cursor *at, uint32_t max, int64_t *id, float *dst, uint32_t *n,
		    struct vk_error *err)
{
	*n = 0;
	return guarded(nullptr, VK_E_INVALID, err, [&] {
		want(x->ix != nullptr, "a binary index holds signs, no vectors");
		*n = rows_of(x->ix.get(), at, max, id, dst);
	});
}

/* --- files --- */

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

/* --- k-means --- */

enum vk_status kmeans(struct vk_faiss_kmeans *k, const struct vk_faiss_work *w, struct vk_error *err)
{
	return guarded(w, VK_E_INVALID, err, [&] {
		faiss::ClusteringParameters cp;
		tune_clustering(cp, k->seed);
		cp.niter = (int)k->rounds;
		cp.spherical = k->spherical;
		cp.max_points_per_centroid = 1 << 20; /* the sample is the caller's choice */
		faiss::Clustering c((int)k->dims, (int)k->k, cp);
		Rounds r = {w, 0, k->rounds};
		Counting assign((int)k->dims, k->spherical ? faiss::METRIC_INNER_PRODUCT : faiss::METRIC_L2, &r);
		c.train((idx_t)k->n, k->rows, assign);
		std::copy(c.centroids.begin(), c.centroids.end(), k->centroid);
		double sum = c.iteration_stats.empty() ? 0 : c.iteration_stats.back().obj / (double)k->n;
		k->loss = k->spherical ? 1 - sum : sum;
	});
}

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

} // namespace

extern "C" __attribute__((visibility("default"))) const struct vk_faiss_face vk_faiss_face_table;
const struct vk_faiss_face vk_faiss_face_table = {
	VK_FAISS_FACE_VERSION,
	"FAISS " TEXT(FAISS_VERSION_MAJOR) "." TEXT(FAISS_VERSION_MINOR) "." TEXT(FAISS_VERSION_PATCH),
	create, destroy, train, add, search, describe, rows, write, read, kmeans,
};
