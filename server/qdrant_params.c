/* params of a search: how exactly, how wide, over which codes. */
#include "server/qdrant_query.h"

#define RECALL_MIN 0.5 /* as of a vector's index.recall */
#define RECALL_MAX 0.999

static bool absent(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_NULL;
}

static enum vk_status read_bool(const vk_jv *body, const char *name, bool *out, struct vk_error *err)
{
	const vk_jv *v = vk_jv_get(body, name);
	if (absent(v) || vk_jv_bool(v, out)) return VK_OK;
	return vk_qd_format(err, "%s: expected a boolean", name);
}

/* How wide an index is searched: hnsw_ef says it, or our own recall; neither: as the index was calibrated. */
static enum vk_status read_width(const vk_jv *p, struct vk_query *out, struct vk_error *err)
{
	const vk_jv *recall = vk_jv_get(p, "recall");
	double d = 0;
	size_t ef;
	enum vk_status st = vk_qd_size(p, "hnsw_ef", "params.hnsw_ef", 1, 0, &ef, err);
	if (st) return st;
	if (!absent(recall) && !vk_jv_f64(recall, &d)) return vk_qd_format(err, "recall: expected a number");
	if (!absent(recall) && !(d >= RECALL_MIN && d <= RECALL_MAX))
		return vk_qd_validation(err, "params.recall", "value %g invalid, must be from %g to %g", d, RECALL_MIN, RECALL_MAX);
	out->ef = ef < VK_GRAPH_EF_MAX ? (uint32_t)ef : VK_GRAPH_EF_MAX;
	out->recall = (float)d;
	return VK_OK;
}

/* indexed_only changes nothing: what no index holds yet is searched exactly, so every answer is whole. */
enum vk_status vk_qd_params(const vk_jv *body, struct vk_query *out, struct vk_error *err)
{
	const vk_jv *p = vk_jv_get(body, "params"), *quant = vk_jv_get(p, "quantization"), *rescore = vk_jv_get(quant, "rescore");
	const vk_jv *over = vk_jv_get(quant, "oversampling");
	bool rescores = true, unused = false;
	double d = 0;
	if (absent(p)) return VK_OK;
	if (vk_jv_type(p) != VK_J_OBJECT) return vk_qd_format(err, "params: expected an object");
	enum vk_status st = read_bool(p, "exact", &out->exact, err);
	if (!st) st = read_bool(p, "indexed_only", &unused, err);
	if (!st) st = read_width(p, out, err);
	if (st || absent(quant)) return st;
	if (vk_jv_type(quant) != VK_J_OBJECT) return vk_qd_format(err, "quantization: expected an object");
	if ((st = read_bool(quant, "ignore", &out->quant_ignore, err))) return st;
	if (!absent(rescore) && !vk_jv_bool(rescore, &rescores)) return vk_qd_format(err, "rescore: expected a boolean");
	if (!absent(over) && !vk_jv_f64(over, &d)) return vk_qd_format(err, "oversampling: expected a number");
	if (!absent(over) && d < 1)
		return vk_qd_validation(err, "params.quantization.oversampling", "value %g invalid, must be 1.0 or larger", d);
	out->quant = true;
	out->quant_rescore_off = !rescores;
	out->oversampling = (float)(d < 1000 ? d : 1000);
	return VK_OK;
}
