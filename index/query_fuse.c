/*
 * Several orders into one. RRF: a point's score is the sum over the lists of 1 / ((place + 1) / weight + k - 1), places from 0.
 * DBSF: each list's scores become shares of [mean - 3 sigma, mean + 3 sigma] (sigma of the sample), a list of one or of equals
 * gives 0.5; shares are summed. Sums are f32 in the order of the lists, as Qdrant makes them, so equal input gives the same bits.
 * Scores of distances are taken as they are (bigger first), which is Qdrant's meaning, too.
 */
#include <math.h>
#include <stdlib.h>

#include "index/query_parts.h"

#define RRF_K 2

static int by_slot(const void *a, const void *b)
{
	const struct vk_found *x = a, *y = b;
	return (x->slot > y->slot) - (x->slot < y->slot);
}

static int by_score(const void *a, const void *b)
{
	const struct vk_found *x = a, *y = b;
	if (x->score != y->score) return x->score > y->score ? -1 : 1;
	return by_slot(a, b);
}

static bool same_score(const struct vk_found *a, const struct vk_found *b)
{
	return a->score == b->score;
}

/* Entries of one slot stand together and in the order they came in; their scores are summed into the first. */
static void sum(struct vk_found_list *l)
{
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++) {
		if (n && l->p[n - 1].slot == l->p[i].slot) l->p[n - 1].score += l->p[i].score;
		else l->p[n++] = l->p[i];
	}
	l->n = n;
}

/* Bottom-up merge sort by slot: qsort() would lose the order of a slot's entries. */
static enum vk_status sort_stable(struct vk_found_list *l)
{
	if (l->n < 2) return VK_OK;
	struct vk_found *spare = malloc(l->n * sizeof *spare), *from = l->p, *to = spare;
	if (!spare) return VK_E_NOMEM;
	for (size_t width = 1; width < l->n; width *= 2) {
		for (size_t i = 0; i < l->n; i += 2 * width) {
			size_t mid = i + width < l->n ? i + width : l->n, end = mid + width < l->n ? mid + width : l->n;
			for (size_t a = i, b = mid, k = i; k < end; k++)
				to[k] = a < mid && (b == end || from[a].slot <= from[b].slot) ? from[a++] : from[b++];
		}
		struct vk_found *t = from;
		from = to, to = t;
	}
	if (from != l->p) memcpy(l->p, from, l->n * sizeof *from);
	free(spare);
	return VK_OK;
}

static enum vk_status merge(struct vk_view *v, size_t take, struct vk_found_list *out)
{
	enum vk_status st = sort_stable(out);
	if (st) return st;
	sum(out);
	if (out->n) qsort(out->p, out->n, sizeof *out->p, by_score);
	return vk_found_ties(v, out, take, false, same_score);
}

enum vk_status vk_query_rrf(struct vk_view *v, const struct vk_query *q, const struct vk_found_list *src, size_t n, size_t take,
			    struct vk_found_list *out)
{
	float k = q->rrf_k ? (float)q->rrf_k : RRF_K;
	for (size_t i = 0; i < n; i++) {
		float weight = q->rrf_weight ? q->rrf_weight[i] : 1;
		for (size_t place = 0; place < src[i].n; place++) {
			struct vk_found f = src[i].p[place];
			f.score = weight > 0 ? 1 / ((float)(place + 1) / weight + k - 1) : 0;
			if (!vk_found_add(out, &f)) return VK_E_NOMEM;
		}
	}
	return merge(v, take, out);
}

/* Mean and variance in one pass (Welford), then shares. */
static void to_shares(struct vk_found_list *l)
{
	float mean = 0, sum2 = 0;
	for (size_t i = 0; i < l->n; i++) {
		float before = l->p[i].score - mean;
		mean += before / (float)(i + 1);
		sum2 += before * (l->p[i].score - mean);
	}
	float sigma = l->n > 1 ? sqrtf(sum2 / ((float)l->n - 1)) : 0;
	float least = mean - 3 * sigma, most = mean + 3 * sigma;
	for (size_t i = 0; i < l->n; i++)
		l->p[i].score = least == most ? 0.5f : (l->p[i].score - least) / (most - least);
}

enum vk_status vk_query_dbsf(struct vk_view *v, struct vk_found_list *src, size_t n, size_t take, struct vk_found_list *out)
{
	for (size_t i = 0; i < n; i++) {
		to_shares(&src[i]);
		for (size_t j = 0; j < src[i].n; j++)
			if (!vk_found_add(out, &src[i].p[j])) return VK_E_NOMEM;
	}
	return merge(v, take, out);
}
