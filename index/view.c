/* Reading: one transaction, its config, and who is in it. */
#include "index/view.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "index/collection_internal.h"
#include "index/ttl.h"
#include "store/guard.h"

#define SLOTS_STEP 1024
#define SCRATCH_MAX (16 * VK_PAYLOAD_MAX)

static struct vk_bytes span(const void *p, size_t n)
{
	return (struct vk_bytes){p, n};
}

struct begin {
	struct vk_collection *c;
	struct vk_view *v;
};

static enum vk_status begin(void *arg)
{
	struct begin *b = arg;
	struct vk_view *v = b->v;
	struct vk_rec_state s;
	enum vk_status st = vk_kv_view_begin(b->c->kv, &v->t);
	if (!st) st = vk_state_get(v->t, &s);
	if (!st) st = vk_collection_conf_of(b->c, v->t, s.config_epoch, true, &v->conf);
	if (st) vk_kv_view_end(v->t);
	return st;
}

static _Thread_local const struct vk_collection *thread_of;

void vk_view_thread_of(const struct vk_collection *c)
{
	thread_of = c;
}

enum vk_status vk_view_begin(struct vk_collection *c, int64_t now_ms, struct vk_view *v)
{
	struct begin b = {c, v};
	*v = (struct vk_view){.now_ms = now_ms};
	enum vk_status st = vk_guard_run(c->kv, begin, &b); /* after a fault the transaction is ended already */
	if (st) {
		*v = (struct vk_view){0};
		return st;
	}
	v->uncounted = thread_of == c;
	v->c = v->uncounted ? c : vk_collection_ref(c);
	return VK_OK;
}

void vk_view_end(struct vk_view *v)
{
	if (!v->c) return;
	vk_bitmap_free(v->live);
	vk_parts_kept_unref(v->parts);
	vk_kv_view_end(v->t);
	vk_colconf_unref(v->conf);
	if (!v->uncounted) vk_collection_unref(v->c);
	*v = (struct vk_view){0};
}

struct run {
	struct vk_view *v;
	enum vk_status (*fn)(void *arg, struct vk_view *v);
	void *arg;
};

static enum vk_status run(void *arg)
{
	struct run *r = arg;
	return r->fn(r->arg, r->v);
}

enum vk_status vk_view_run(struct vk_collection *c, int64_t now_ms, const atomic_bool *stop,
			   enum vk_status (*fn)(void *arg, struct vk_view *v), void *arg)
{
	struct vk_view v;
	struct run r = {&v, fn, arg};
	enum vk_status st = vk_view_begin(c, now_ms, &v);
	if (st) return st;
	v.stop = stop;
	v.until_ms = vk_mono_ms() + VK_VIEW_MS_MAX;
	st = vk_guard_run(c->kv, run, &r);
	vk_view_end(&v);
	return st;
}

bool vk_view_stopped(const struct vk_view *v)
{
	if (v->stop && atomic_load_explicit(v->stop, memory_order_relaxed)) return true;
	return v->until_ms && vk_mono_ms() > v->until_ms;
}

bool vk_view_has_ttl(const struct vk_view *v)
{
	return vk_ttl_on(v->conf);
}

/* --- expiry --- */

/* Has this point expired, by its payload? One that cannot be read stays: reading it will say what is
 * wrong. */
static bool expired(struct vk_view *v, uint32_t slot)
{
	uint8_t key[4];
	struct vk_bytes text;
	struct vk_arena scratch;
	struct vk_json *doc = NULL;
	vk_rec_slot_key(key, slot);
	if (vk_kv_get(v->t, VK_T_PAYLOAD, span(key, 4), &text)) return false;
	vk_arena_init(&scratch, SCRATCH_MAX);
	bool yes = !vk_json_parse(&scratch, text, NULL, &doc, NULL) &&
		   vk_ttl_expired(v->conf, vk_json_root(doc), v->now_ms);
	vk_json_free(doc);
	vk_arena_free(&scratch);
	return yes;
}

struct by_index {
	struct vk_view *v;
	const struct vk_field_conf *f;
	struct vk_bitmap *candidates;
};

static bool add_candidate(void *arg, const struct vk_order_value *value, uint32_t slot)
{
	struct by_index *b = arg;
	if (vk_ttl_of_order(b->v->conf, b->f, value) > b->v->now_ms) return false;
	vk_bitmap_add(b->candidates, slot);
	return true;
}

/* Who may have expired: by the index those with a value in the past, without one everybody. */
static enum vk_status candidates(struct vk_view *v, const struct vk_bitmap *live, struct vk_bitmap **out)
{
	struct by_index b = {.v = v, .f = vk_ttl_index(v->conf)};
	*out = b.candidates = b.f ? vk_bitmap_new() : vk_bitmap_copy(live);
	if (!*out) return VK_E_NOMEM;
	if (!b.f) return VK_OK;
	enum vk_status st = vk_field_order(v->t, b.f, false, NULL, add_candidate, &b);
	return st ? st : vk_bitmap_failed(*out) ? VK_E_NOMEM : VK_OK;
}

static enum vk_status take_out(struct vk_view *v, struct vk_bitmap *live, const struct vk_bitmap *maybe)
{
	uint32_t slot[SLOTS_STEP];
	uint64_t from = 0;
	size_t n = SLOTS_STEP;
	while (n == SLOTS_STEP && from <= UINT32_MAX) {
		if (vk_view_stopped(v)) return VK_E_CANCELLED;
		n = vk_bitmap_take(maybe, (uint32_t)from, slot, SLOTS_STEP);
		for (size_t i = 0; i < n; i++)
			if (expired(v, slot[i])) vk_bitmap_remove(live, slot[i]);
		if (n) from = (uint64_t)slot[n - 1] + 1;
	}
	return VK_OK;
}

enum vk_status vk_view_live(struct vk_view *v, const struct vk_bitmap **out)
{
	struct vk_bitmap *live = NULL, *maybe = NULL;
	*out = v->live;
	if (v->live && !v->writing) return VK_OK;
	enum vk_status st = vk_field_live(v->t, &live);
	if (!st && vk_ttl_on(v->conf)) {
		st = candidates(v, live, &maybe);
		if (!st) st = take_out(v, live, maybe);
	}
	vk_bitmap_free(maybe);
	if (!st && vk_bitmap_failed(live)) st = VK_E_NOMEM;
	if (st) {
		vk_bitmap_free(live);
		return st;
	}
	vk_bitmap_free(v->live);
	*out = v->live = live;
	return VK_OK;
}

/* In the view? Asks the bitmap when there is one. */
static bool out_of_view(struct vk_view *v, uint32_t slot)
{
	if (!vk_ttl_on(v->conf)) return false;
	return v->live && !v->writing ? !vk_bitmap_has(v->live, slot) : expired(v, slot);
}

/* --- points --- */

enum vk_status vk_view_slot(struct vk_view *v, struct vk_bytes id, uint32_t *slot)
{
	struct vk_bytes value;
	enum vk_status st = vk_id_valid(id) ? vk_kv_get(v->t, VK_T_ID, id, &value) : VK_E_NOT_FOUND;
	if (st) return st;
	if (!vk_rec_slot_decode(id, value, slot)) {
		vk_log(VK_LOG_ERROR, "%s: an entry of the id table does not check", vk_kv_path(v->c->kv));
		return VK_E_CORRUPT;
	}
	return out_of_view(v, *slot) ? VK_E_NOT_FOUND : VK_OK;
}

static enum vk_status head(struct vk_view *v, uint32_t slot, struct vk_rec_point *out)
{
	uint8_t key[4];
	struct vk_bytes value;
	vk_rec_slot_key(key, slot);
	enum vk_status st = vk_kv_get(v->t, VK_T_POINT, span(key, 4), &value);
	if (st) return st;
	if (vk_rec_point_decode(out, slot, value)) return VK_OK;
	vk_log(VK_LOG_ERROR, "%s: the head of slot %u does not check", vk_kv_path(v->c->kv), slot);
	return VK_E_CORRUPT;
}

enum vk_status vk_view_point(struct vk_view *v, uint32_t slot, struct vk_point *out)
{
	struct vk_rec_point r;
	uint8_t key[4];
	enum vk_status st = head(v, slot, &r);
	if (st) return st;
	*out = (struct vk_point){.slot = slot, .id = r.id, .version = r.sequence};
	vk_rec_slot_key(key, slot);
	st = vk_kv_get(v->t, VK_T_PAYLOAD, span(key, 4), &out->payload);
	if (st == VK_E_NOT_FOUND) out->payload = (struct vk_bytes){0};
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

int vk_view_compare_ids(struct vk_view *v, uint32_t a, uint32_t b)
{
	struct vk_rec_point x, y;
	if (a == b) return 0;
	/* A head that cannot be read is logged above; the order stays total. */
	if (head(v, a, &x) || head(v, b, &y)) return a < b ? -1 : 1;
	return vk_id_compare(x.id, y.id);
}

enum vk_status vk_view_scroll(struct vk_view *v, struct vk_bytes from,
			      bool (*fn)(void *arg, uint32_t slot, struct vk_bytes id), void *arg)
{
	struct vk_kv_cursor *cur;
	struct vk_bytes k, value;
	uint32_t slot;
	enum vk_status st = vk_kv_cursor_open(v->t, VK_T_ID, &cur);
	if (st) return st;
	for (st = vk_kv_seek(cur, from, &k, &value); !st; st = vk_kv_next(cur, &k, &value)) {
		if (!vk_rec_slot_decode(k, value, &slot)) {
			vk_log(VK_LOG_ERROR, "%s: an entry of the id table does not check", vk_kv_path(v->c->kv));
			st = VK_E_CORRUPT;
			break;
		}
		if (!out_of_view(v, slot) && !fn(arg, slot, k)) break;
	}
	vk_kv_cursor_close(cur);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

uint64_t vk_view_points(struct vk_view *v)
{
	struct vk_rec_state s;
	return vk_state_get(v->t, &s) ? 0 : s.points;
}

/* --- changes --- */

/* The API's mask: bits by place in the config, out of bits by set id. */
static uint64_t mask_of(const struct vk_colconf *c, uint64_t stored)
{
	uint64_t mask = stored & VK_REC_MASK_PAYLOAD;
	for (size_t i = 0; i < c->vectors_n + c->sparse_n; i++)
		if (stored & vk_rec_mask_set(c->vectors[i].set.id)) mask |= (uint64_t)1 << (i < 62 ? i + 1 : 63);
	return mask;
}

enum vk_status vk_view_changes(struct vk_view *v, uint64_t after,
			       bool (*fn)(void *arg, const struct vk_change *ch), void *arg)
{
	struct vk_kv_cursor *cur;
	struct vk_bytes k, value;
	struct vk_rec_change r;
	struct vk_change ch;
	uint8_t key[8];
	if (after == UINT64_MAX) return VK_OK;
	enum vk_status st = vk_kv_cursor_open(v->t, VK_T_CHANGE, &cur);
	if (st) return st;
	vk_rec_sequence_key(key, after + 1);
	for (st = vk_kv_seek(cur, span(key, 8), &k, &value); !st; st = vk_kv_next(cur, &k, &value)) {
		if (!vk_rec_sequence_key_read(k, &ch.sequence) || !vk_rec_change_decode(&r, ch.sequence, value)) {
			vk_log(VK_LOG_ERROR, "%s: an entry of the change table does not check",
			       vk_kv_path(v->c->kv));
			st = VK_E_CORRUPT;
			break;
		}
		ch.slot = r.slot;
		ch.op = r.op;
		ch.mask = mask_of(v->conf, r.mask);
		ch.id = r.id;
		if (!fn(arg, &ch)) break;
	}
	vk_kv_cursor_close(cur);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}
