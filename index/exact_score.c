/* A query in the form that its kernel wants, and canonical ranks: the only place where a rank is made. */
#include "index/exact_run.h"

#include <assert.h>

void vk_scorer_init(struct vk_scorer *s, const struct vk_set *set, enum vk_cpu_level level)
{
	const struct vk_kernels *k = vk_kernels(level);
	int kind = vk_metric_kind(set->metric);
	*s = (struct vk_scorer){.k = k,
				.rows = k->score[kind][set->dtype],
				.at = k->score_at[kind][set->dtype],
				.metric = set->metric,
				.dtype = set->dtype,
				.dims = set->dims};
	assert(s->rows && s->at); /* the config's check lets no other pair in */
}

bool vk_dtype_is_float(enum vk_dtype t)
{
	return t == VK_DTYPE_F32 || t == VK_DTYPE_F16;
}

size_t vk_scorer_query_bytes(const struct vk_scorer *s)
{
	return vk_dtype_is_float(s->dtype) ? s->dims * sizeof(float) : vk_row_bytes(s->dtype, s->dims);
}

/* As f32_to_u8: toward zero, clamped. */
static void f32_to_i8(int8_t *dst, const float *src, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float x = src[i];
		dst[i] = x <= -128 ? -128 : x >= 127 ? 127 : (int8_t)x;
	}
}

static float inverse_norm_of_integers(const struct vk_scorer *s, const void *v)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < s->dims; i++) {
		int64_t x = s->dtype == VK_DTYPE_U8 ? ((const uint8_t *)v)[i] : ((const int8_t *)v)[i];
		sum += (uint64_t)(x * x);
	}
	return sum ? (float)(1 / __builtin_sqrt((double)sum)) : 0;
}

void vk_scorer_prepare(const struct vk_scorer *s, const float *vector, void *dst, struct vk_prepared *p)
{
	*p = (struct vk_prepared){.v = dst, .scale = 1};
	switch (s->dtype) {
	case VK_DTYPE_U8: s->k->f32_to_u8(dst, vector, s->dims); break;
	case VK_DTYPE_I8: f32_to_i8(dst, vector, s->dims); break;
	case VK_DTYPE_BITS: s->k->f32_to_bits(dst, vector, s->dims); break;
	default:
		if (s->metric == VK_METRIC_COSINE) vk_unit(dst, vector, s->dims);
		else memcpy(dst, vector, s->dims * sizeof *vector);
		p->f = dst;
		return;
	}
	/* Integers cannot hold a unit vector: the query's norm is one more factor. */
	if (s->metric == VK_METRIC_COSINE) p->scale = inverse_norm_of_integers(s, dst);
}

/* Raw scores become ranks, in place. */
static void rank_of_raw(const struct vk_scorer *s, const struct vk_prepared *p, const float *inv_norm, size_t n, float *rank)
{
	if (s->metric == VK_METRIC_DOT) return;
	if (s->metric != VK_METRIC_COSINE) {
		for (size_t i = 0; i < n; i++) rank[i] = -rank[i];
	} else if (p->f) {
		for (size_t i = 0; i < n; i++) rank[i] *= inv_norm[i];
	} else {
		for (size_t i = 0; i < n; i++) rank[i] = rank[i] * p->scale * inv_norm[i];
	}
}

void vk_scorer_rows(const struct vk_scorer *s, const struct vk_prepared *p, const void *rows, size_t stride, size_t n,
		    const void *next, const float *inv_norm, float *rank)
{
	s->rows(p->v, rows, stride, n, s->dims, next, rank);
	rank_of_raw(s, p, inv_norm, n, rank);
}

void vk_scorer_at(const struct vk_scorer *s, const struct vk_prepared *p, const void *const *row, size_t n,
		  const float *inv_norm, float *rank)
{
	s->at(p->v, row, n, s->dims, rank);
	rank_of_raw(s, p, inv_norm, n, rank);
}
