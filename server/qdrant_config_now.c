/* What only the config of this moment can refuse: inside the edit, where nobody comes between. */
#include "server/qdrant.h"
#include "server/qdrant_config_internal.h"

static bool absent(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_NULL;
}

bool vk_qdc_same_json(const vk_jv *a, const vk_jv *b)
{
	struct vk_buf x, y;
	struct vk_jw w;
	vk_buf_init(&x, (size_t)1 << 20);
	vk_buf_init(&y, (size_t)1 << 20);
	vk_jw_init(&w, &x);
	vk_jw_value(&w, a);
	vk_jw_init(&w, &y);
	vk_jw_value(&w, b);
	bool same = !x.failed && !y.failed && vk_bytes_eq(vk_buf_bytes(&x), vk_buf_bytes(&y));
	vk_buf_free(&x);
	vk_buf_free(&y);
	return same;
}

/* Adding what is there already is fine; what can be tuned later does not count. */
static bool same_vector(const struct vk_vector_conf *v, const vk_jv *params)
{
	static const char *const what[] = {"size", "distance", "datatype"};
	for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
		const vk_jv *a = vk_jv_get(v->json, what[i]), *b = vk_jv_get(params, what[i]);
		if (absent(a) != absent(b) || (!absent(a) && !vk_qdc_same_json(a, b))) return false;
	}
	return true;
}

static bool same_sparse(const struct vk_vector_conf *v, const vk_jv *params)
{
	const vk_jv *list[][2] = {{vk_jv_get(v->json, "modifier"), vk_jv_get(params, "modifier")},
				  {vk_jv_get(vk_jv_get(v->json, "index"), "datatype"), vk_jv_get(params, "datatype")}};
	for (size_t i = 0; i < 2; i++)
		if (absent(list[i][0]) != absent(list[i][1]) || (!absent(list[i][0]) && !vk_qdc_same_json(list[i][0], list[i][1]))) return false;
	return true;
}

enum vk_status vk_qdc_check_now(const struct vk_qd_edit *e, const struct vk_colconf *now, struct vk_error *err)
{
	const struct vk_vector_conf *v;
	bool sparse = e->kind == VK_QD_SPARSE_ADD;
	switch (e->kind) {
	case VK_QD_VECTOR_ADD:
	case VK_QD_SPARSE_ADD:
		v = vk_colconf_named(now, e->name);
		if (v && (v->sparse != sparse || !(sparse ? same_sparse : same_vector)(v, e->body)))
			return vk_qd_wrong(err, "Vector `%s` already exists with a different configuration", vk_qdc_shown(e->name));
		if (!v && now->vectors_n + now->sparse_n >= VK_VECTORS_MAX)
			return vk_qd_wrong(err, "a collection has at most %d named vectors", VK_VECTORS_MAX);
		return VK_OK;
	case VK_QD_INDEX_ADD:
		if (!vk_colconf_field(now, e->name) && now->fields_n >= VK_FIELDS_MAX)
			return vk_qd_wrong(err, "a collection has at most %d payload indexes", VK_FIELDS_MAX);
		if (now->next_field == UINT16_MAX) return vk_qd_wrong(err, "this collection has made all its payload indexes");
		return VK_OK;
	case VK_QD_VECTOR_DROP: /* what is not there is gone */
	case VK_QD_INDEX_DROP:
	case VK_QD_FOUND: /* judged vector by vector, as it is written */
	case VK_QD_UPDATE: break;
	}
	return VK_OK;
}
