/* Reading what points carry besides dense rows and payload: sparse vectors, texts. */
#include "base/log.h"
#include "index/collection_internal.h"
#include "index/text_source.h"

static struct vk_bytes span(const void *p, size_t n) { return (struct vk_bytes){p, n}; }

static enum vk_status damaged(struct vk_view *v, uint32_t slot)
{
	vk_log(VK_LOG_ERROR, "%s: what slot %u carries does not check", vk_kv_path(v->c->kv), slot);
	return VK_E_CORRUPT;
}

static enum vk_status get(struct vk_view *v, uint32_t slot, uint8_t kind, uint32_t set,
			  struct vk_bytes *value)
{
	uint8_t key[VK_REC_EXTRA_KEY_SIZE];
	vk_rec_extra_key(key, slot, kind, set);
	return vk_kv_get(v->t, VK_T_EXTRA, span(key, sizeof key), value);
}

bool vk_view_has(struct vk_view *v, uint32_t slot, const struct vk_vector_conf *conf)
{
	return conf->sparse ? vk_extra_has(v->t, slot, VK_EXTRA_SPARSE, conf->set.id)
			    : vk_vset_has(v->t, &conf->set, slot);
}

enum vk_status vk_view_sparse(struct vk_view *v, uint32_t slot, const struct vk_vector_conf *conf,
			      struct vk_arena *a, struct vk_sparse *out)
{
	struct vk_bytes value;
	struct vk_rec_sparse r;
	enum vk_status st = get(v, slot, VK_EXTRA_SPARSE, conf->set.id, &value);
	if (st) return st;
	if (!vk_rec_sparse_decode(&r, slot, conf->set.id, value)) return damaged(v, slot);
	*out = (struct vk_sparse){.n = r.n};
	out->index = vk_arena_alloc(a, r.n * sizeof *out->index + 1);
	out->value = vk_arena_alloc(a, r.n * sizeof *out->value + 1);
	if (!out->index || !out->value) return VK_E_NOMEM;
	for (uint32_t i = 0; i < r.n; i++) {
		uint32_t bits = vk_get_u32le(r.value + (size_t)4 * i);
		out->index[i] = vk_get_u32le(r.index + (size_t)4 * i);
		memcpy(&out->value[i], &bits, sizeof bits);
	}
	return VK_OK;
}

static enum vk_status copy(struct vk_arena *a, struct vk_bytes s, struct vk_bytes *out)
{
	const char *p = vk_arena_strndup(a, s.p, s.n);
	*out = span(p, s.n);
	return p ? VK_OK : VK_E_NOMEM;
}

/* The payload's text under the member that a kept record names, else under text_from. */
static enum vk_status from_payload(struct vk_view *v, uint32_t slot, const char *noted,
				   struct vk_arena *a, struct vk_bytes *text)
{
	struct vk_json *doc;
	struct vk_bytes payload, found;
	const char *from = v->conf->text_from;
	uint8_t key[4];
	if (!noted && !from) return VK_E_NOT_FOUND;
	vk_rec_slot_key(key, slot);
	enum vk_status st = vk_kv_get(v->t, VK_T_PAYLOAD, span(key, 4), &payload);
	if (!st) st = vk_json_parse(a, payload, NULL, &doc, NULL);
	if (st) return st == VK_E_INVALID ? damaged(v, slot) : st;
	const vk_jv *root = vk_json_root(doc);
	bool yes = (noted && vk_text_of_payload(root, noted, a, &found)) ||
		   (from && vk_text_of_payload(root, from, a, &found));
	st = yes ? copy(a, found, text) : VK_E_NOT_FOUND;
	vk_json_free(doc);
	return st;
}

enum vk_status vk_view_text(struct vk_view *v, uint32_t slot, const struct vk_vector_conf *conf,
			    struct vk_arena *a, struct vk_bytes *text)
{
	struct vk_bytes value, key;
	struct vk_rec_text r;
	enum vk_status st = get(v, slot, VK_EXTRA_TEXT, conf->set.id, &value);
	if (st == VK_E_NOT_FOUND) return from_payload(v, slot, NULL, a, text);
	if (st) return st;
	if (!vk_rec_text_decode(&r, slot, conf->set.id, value)) return damaged(v, slot);
	if (!r.key.n) return copy(a, r.text, text);
	st = copy(a, r.key, &key);
	return st ? st : from_payload(v, slot, key.p, a, text);
}
