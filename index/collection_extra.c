/*
 * Sparse vectors and texts of a point, in the writer's transaction. One table holds both, by slot,
 * so that whoever deletes or replaces a point finds all with one seek; a collection that has
 * neither never looks.
 *
 * A text is kept once: beside the point, or in its payload when the payload of that write holds it.
 * While text_from is not known, what is found under one of the usual names is noted by that name,
 * since text_from may become another one. Payload written later is the client's own: a text that
 * was in it goes with it.
 */
#include "index/collection_internal.h"

#include "index/text_source.h"

#define CARRIED_MAX                                                                                \
	4096 /* entries of one slot: far more than a config's vectors and what drops have left */
#define DROP_ENTRIES 8192 /* looked at in a step */

struct carried {
	uint8_t kind;
	uint32_t set;
	bool stays; /* written anew, or not this write's concern */
};

static struct vk_bytes span(const void *p, size_t n) { return (struct vk_bytes){p, n}; }

static enum vk_status corrupt(struct vk_writer *w, uint32_t slot)
{
	return vk_fail(w->err, VK_E_CORRUPT,
		       "the collection's store is damaged: what slot %u carries", slot);
}

bool vk_extra_has(struct vk_kv_txn *t, uint32_t slot, uint8_t kind, uint32_t set)
{
	uint8_t key[VK_REC_EXTRA_KEY_SIZE];
	struct vk_bytes v;
	vk_rec_extra_key(key, slot, kind, set);
	return !vk_kv_get(t, VK_T_EXTRA, span(key, sizeof key), &v);
}

/* --- what is there --- */

static enum vk_status walk(struct vk_writer *w, struct vk_kv_cursor *cur, uint32_t slot,
			   struct carried *list, size_t *n)
{
	uint8_t key[4];
	struct vk_bytes k, v;
	uint32_t at;
	vk_rec_slot_key(key, slot);
	enum vk_status st = vk_kv_seek(cur, span(key, 4), &k, &v);
	for (*n = 0; !st && k.n >= 4 && memcmp(k.p, key, 4) == 0; st = vk_kv_next(cur, &k, &v)) {
		if (*n == CARRIED_MAX ||
		    !vk_rec_extra_key_read(k, &at, &list[*n].kind, &list[*n].set))
			return corrupt(w, slot);
		list[(*n)++].stays = false;
	}
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

/* All that the slot carries, in w->scratch. */
static enum vk_status carried(struct vk_writer *w, uint32_t slot, struct carried **out, size_t *n)
{
	struct carried list[CARRIED_MAX];
	struct vk_kv_cursor *cur;
	*n = 0;
	*out = NULL;
	if (!vk_kv_entries(w->t, VK_T_EXTRA)) return VK_OK;
	enum vk_status st = vk_kv_cursor_open(w->t, VK_T_EXTRA, &cur);
	if (st) return st;
	st = walk(w, cur, slot, list, n);
	vk_kv_cursor_close(cur);
	if (st || !*n) return st;
	*out = vk_arena_alloc(&w->scratch, *n * sizeof **out);
	if (!*out) return VK_E_NOMEM;
	memcpy(*out, list, *n * sizeof **out);
	return VK_OK;
}

static struct carried *find(struct carried *list, size_t n, uint8_t kind, uint32_t set)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].kind == kind && list[i].set == set) return &list[i];
	return NULL;
}

static enum vk_status delete (struct vk_writer *w, uint32_t slot, const struct carried *c,
			      uint64_t *mask) {
	uint8_t key[VK_REC_EXTRA_KEY_SIZE]; vk_rec_extra_key(key, slot, c->kind, c->set);
	if (c->kind == VK_EXTRA_SPARSE){vk_field_batch_set(w->batch, c->set, slot, false);
					*mask |= vk_rec_mask_set(c->set);}
return vk_kv_del(w->t, VK_T_EXTRA, span(key, sizeof key));
}

/* --- what comes --- */

static enum vk_status put_sparse(struct vk_writer *w, uint32_t slot, const struct vk_vec *v)
{
	uint8_t key[VK_REC_EXTRA_KEY_SIZE];
	uint32_t set = v->conf->set.id;
	void *dst;
	vk_rec_extra_key(key, slot, VK_EXTRA_SPARSE, set);
	enum vk_status st = vk_kv_put_reserve(w->t, VK_T_EXTRA, span(key, sizeof key),
					      vk_rec_sparse_size(v->n), &dst);
	if (st) return st;
	vk_rec_sparse_encode(dst, slot, set, v->index, v->row, v->n);
	vk_field_batch_set(w->batch, set, slot, true);
	return VK_OK;
}

static bool payload_has(struct vk_writer *w, const vk_jv *payload, const char *at,
			struct vk_bytes text)
{
	struct vk_bytes s;
	return vk_text_of_payload(payload, at, &w->scratch, &s) && vk_bytes_eq(s, text);
}

/* What to keep for this text; false: nothing, the payload has it where everybody looks. */
static bool record_of(struct vk_writer *w, const vk_jv *payload, struct vk_bytes text,
		      struct vk_rec_text *r)
{
	*r = (struct vk_rec_text){.text = text};
	if (w->conf->text_from) return !payload_has(w, payload, w->conf->text_from, text);
	for (size_t i = 0; i < VK_TEXT_KEYS; i++) {
		if (!payload_has(w, payload, vk_text_keys[i], text)) continue;
		*r = (struct vk_rec_text){.key = vk_bytes_of(vk_text_keys[i])};
		break;
	}
	return true;
}

static enum vk_status put_text(struct vk_writer *w, uint32_t slot, uint32_t set,
			       const struct vk_rec_text *r)
{
	uint8_t key[VK_REC_EXTRA_KEY_SIZE];
	void *dst;
	vk_rec_extra_key(key, slot, VK_EXTRA_TEXT, set);
	enum vk_status st =
	    vk_kv_put_reserve(w->t, VK_T_EXTRA, span(key, sizeof key), vk_rec_text_size(r), &dst);
	if (!st) vk_rec_text_encode(dst, slot, set, r);
	return st;
}

static enum vk_status put(struct vk_writer *w, uint32_t slot, const struct vk_vec *v,
			  const vk_jv *payload, struct carried *list, size_t n, uint64_t *mask)
{
	uint32_t set = v->conf->set.id;
	uint8_t kind = v->conf->sparse ? VK_EXTRA_SPARSE : VK_EXTRA_TEXT;
	struct carried *was = find(list, n, kind, set);
	struct vk_rec_text r;
	if (kind == VK_EXTRA_SPARSE) *mask |= vk_rec_mask_set(set);
	if (kind == VK_EXTRA_TEXT && (!v->text.p || !record_of(w, payload, v->text, &r))) {
		if (!was) return VK_OK;
		was->stays = true; /* done with */
		return delete (w, slot, was, mask);
	}
	if (was) was->stays = true;
	return kind == VK_EXTRA_SPARSE ? put_sparse(w, slot, v) : put_text(w, slot, set, &r);
}

static bool any_text(const struct vk_new *n)
{
	for (size_t i = 0; i < n->vec_n; i++)
		if (n->vec[i].text.p) return true;
	return false;
}

enum vk_status vk_extra_write(struct vk_writer *w, struct vk_old *o, uint32_t slot,
			      const struct vk_new *n, uint64_t *mask)
{
	struct carried *list = NULL;
	size_t list_n = 0;
	if (!n->vec_n && !n->drop_n && !n->replace) return VK_OK;
	enum vk_status st = o->there ? carried(w, slot, &list, &list_n) : VK_OK;
	if (!st && any_text(n) && !n->payload_set) st = vk_old_parse(w, o);
	const vk_jv *payload = n->payload_set ? n->payload_jv : o->jv;
	for (size_t i = 0; !st && i < n->vec_n; i++)
		st = put(w, slot, &n->vec[i], payload, list, list_n, mask);
	for (size_t i = 0; i < list_n && !n->replace; i++) {
		bool drop = false;
		for (size_t k = 0; k < n->drop_n; k++) drop |= n->drop[k]->set.id == list[i].set;
		list[i].stays |= !drop;
	}
	for (size_t i = 0; !st && i < list_n; i++)
		if (!list[i].stays) st = delete (w, slot, &list[i], mask);
	return st;
}

enum vk_status vk_extra_delete(struct vk_writer *w, uint32_t slot)
{
	struct carried *list;
	size_t n;
	uint64_t mask = 0;
	enum vk_status st = carried(w, slot, &list, &n);
	for (size_t i = 0; !st && i < n; i++) st = delete (w, slot, &list[i], &mask);
	return st;
}

/* --- a set that is dropped --- */

static enum vk_status drop_some(struct vk_kv_cursor *cur, uint32_t set, size_t budget,
				uint64_t *slot)
{
	uint8_t key[4], kind;
	struct vk_bytes k, v;
	uint32_t at, of;
	size_t bytes = 0, n = 0;
	vk_rec_slot_key(key, (uint32_t)*slot);
	enum vk_status st = vk_kv_seek(cur, span(key, 4), &k, &v);
	for (; !st; st = vk_kv_next(cur, &k, &v)) {
		if (!vk_rec_extra_key_read(k, &at, &kind, &of)) return VK_E_CORRUPT;
		if ((n >= DROP_ENTRIES || bytes >= budget) &&
		    at != *slot) { /* between two points */
			*slot = at;
			return VK_E_BUSY;
		}
		*slot = at;
		n++;
		bytes += k.n;
		if (of != set) continue;
		bytes += v.n;
		if ((st = vk_kv_cursor_del(cur))) return st;
	}
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

enum vk_status vk_extra_drop_step(struct vk_kv_txn *t, uint32_t set, size_t budget, uint64_t *slot)
{
	struct vk_kv_cursor *cur;
	if (*slot > UINT32_MAX || !vk_kv_entries(t, VK_T_EXTRA)) return VK_OK;
	enum vk_status st = vk_kv_cursor_open(t, VK_T_EXTRA, &cur);
	if (st) return st;
	st = drop_some(cur, set, budget, slot);
	vk_kv_cursor_close(cur);
	return st;
}
