/*
 * Sparse vectors on their way in and out: checked in Qdrant's words, sorted by index, as Qdrant keeps and shows them.
 * They are kept and returned; nothing searches them yet.
 */
#include <stdlib.h>

#include "base/utf8.h"
#include "server/qdrant.h"

#define SHOWN 200
#define SPARSE_ARENA_MAX ((size_t)32 << 20)

static bool is_list(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_ARRAY || vk_jv_type(v) == VK_J_NUMBERS;
}

bool vk_qd_is_sparse(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_OBJECT && is_list(vk_jv_get(v, "indices")) && is_list(vk_jv_get(v, "values"));
}

enum vk_status vk_qd_sparse_search(struct vk_bytes name, struct vk_error *err)
{
	return vk_qd_wrong(err, "vector `%.*s`: sparse vectors are kept and returned, searching them is not supported yet",
			   (int)vk_utf8_valid(name.p, name.n < SHOWN ? name.n : SHOWN), name.p ? name.p : "");
}

static int compare_u64(const void *x, const void *y)
{
	uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
	return (a > b) - (a < b);
}

static enum vk_status not_unique(struct vk_error *err)
{
	return vk_qd_validation(err, "vector.?.indices", "Validation error: must be unique [{}]");
}

/* Each index with its place, in order of index. The caller frees. */
static enum vk_status sorted(const vk_jv *v, uint64_t **out, struct vk_error *err)
{
	const vk_jv *indices = vk_jv_get(v, "indices");
	size_t n = vk_jv_len(indices);
	*out = NULL;
	if (n != vk_jv_len(vk_jv_get(v, "values")))
		return vk_qd_validation(err, "vector.?.values", "Validation error: must be the same length as indices [{}]");
	uint32_t *index = malloc((n + 1) * sizeof *index);
	uint64_t *order = malloc((n + 1) * sizeof *order);
	enum vk_status st = index && order ? VK_OK : vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
	if (!st && n && !vk_jv_u32s(indices, index))
		st = vk_qd_format(err, "indices of a sparse vector must be whole numbers from 0 to %u", UINT32_MAX);
	for (size_t i = 0; !st && i < n; i++) order[i] = (uint64_t)index[i] << 32 | i;
	if (!st) qsort(order, n, sizeof *order, compare_u64);
	for (size_t i = 1; !st && i < n; i++)
		if (order[i] >> 32 == order[i - 1] >> 32) st = not_unique(err);
	free(index);
	if (st) free(order);
	else *out = order;
	return st;
}

enum vk_status vk_qd_sparse_check(const vk_jv *v, struct vk_error *err)
{
	uint64_t *order;
	enum vk_status st = sorted(v, &order, err);
	free(order);
	return st;
}

static enum vk_status place(struct vk_qd *q, const vk_jv *values, const uint64_t *order, struct vk_vec *out, struct vk_error *err)
{
	struct vk_arena *a = &q->req->arena;
	float *came = vk_arena_alloc(a, out->n * sizeof *came + 1), *row = vk_arena_alloc(a, out->n * sizeof *row + 1);
	uint32_t *index = vk_arena_alloc(a, out->n * sizeof *index + 1);
	if (!came || !row || !index) return vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
	if (out->n && vk_jv_type(values) != VK_J_NUMBERS) return vk_qd_format(err, "values of a sparse vector must be numbers");
	if (out->n && !vk_jv_f32s(values, came))
		return vk_qd_validation(err, "vector.?.values", "Validation error: must be finite 32-bit floats [{}]");
	for (uint32_t i = 0; i < out->n; i++) {
		index[i] = (uint32_t)(order[i] >> 32);
		row[i] = came[(uint32_t)order[i]];
	}
	out->row = row;
	out->index = index;
	return VK_OK;
}

enum vk_status vk_qd_sparse(struct vk_qd *q, const vk_jv *v, struct vk_vec *out, struct vk_error *err)
{
	uint64_t *order;
	size_t n = vk_jv_len(vk_jv_get(v, "indices"));
	if (!vk_qd_is_sparse(v))
		return vk_qd_wrong(err, "Conversion between sparse and regular vectors failed: vector `%s` is sparse, it takes "
					"{\"indices\": [...], \"values\": [...]}", out->conf->name);
	if (n > VK_SPARSE_MAX) return vk_qd_wrong(err, "a sparse vector has at most %u entries", VK_SPARSE_MAX);
	enum vk_status st = sorted(v, &order, err);
	if (st) return st;
	out->n = (uint32_t)n;
	st = place(q, vk_jv_get(v, "values"), order, out, err);
	free(order);
	return st;
}

enum vk_status vk_qd_sparse_write(struct vk_jw *w, struct vk_view *v, uint32_t slot, const struct vk_vector_conf *c)
{
	struct vk_arena a;
	struct vk_sparse s;
	vk_arena_init(&a, SPARSE_ARENA_MAX);
	enum vk_status st = vk_view_sparse(v, slot, c, &a, &s);
	if (!st) {
		vk_jw_key(w, c->name);
		vk_jw_object(w);
		vk_jw_key(w, "indices");
		vk_jw_array(w);
		for (uint32_t i = 0; i < s.n; i++) vk_jw_u64(w, s.index[i]);
		vk_jw_array_end(w);
		vk_jw_key(w, "values");
		vk_jw_f32s(w, s.value, s.n);
		vk_jw_object_end(w);
	}
	vk_arena_free(&a);
	return st;
}
