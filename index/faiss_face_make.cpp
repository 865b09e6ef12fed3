/*
 * Making an index: from its factory string, trained, rows added; k-means by itself. Whoever calls has the index to itself.
 *
 * What had to be known of FAISS:
 *  - Clustering, PQ and OPQ take the index that assigns points from outside: ours counts the rounds, so training has progress.
 *    It is lent for the call and taken out again, thrown or not.
 *  - Polysemous training (the factory's default) is minutes of annealing for a filter that is off by default: switched off.
 *
 * Units: progress is rounds of k-means, over all that is trained.
 * Errors: VK_E_INVALID with FAISS's own complaint (a factory that it does not know, too few points, no inner product),
 * VK_E_CANCELLED between rounds, VK_E_NOMEM.
 */
#include "index/faiss_face_parts.h"

#include <algorithm>

#include <faiss/Clustering.h>
#include <faiss/IndexBinaryHNSW.h>
#include <faiss/IndexBinaryIVF.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexPQ.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/VectorTransform.h>
#include <faiss/index_factory.h>

namespace vk_face {

namespace {

/* --- parts of the chain that are trained --- */

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

/* --- creating --- */

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

} // namespace

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

namespace {

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

} // namespace

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

} // namespace vk_face
