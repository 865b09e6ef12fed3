/*
 * A config changed, in the writer: the new text must agree with what is stored. Numbers of sets and fields
 * are never given twice (a dropped one's rows may still be going), a set that stays keeps its shape, an
 * index that comes is "building".
 */
#include "index/ann.h"
#include "index/collection_internal.h"

#include <time.h>

#define CONFIG_BYTES_MAX ((size_t)16 << 20)
#define WAIT_MS 200 /* how often a waiter looks by itself, should nobody wake it */

struct configure {
	struct vk_collection *c;
	enum vk_status (*edit)(void *arg, const struct vk_colconf *now, struct vk_buf *json,
			       struct vk_error *err);
	void *arg;
	struct vk_error *err;
	struct vk_colconf *next; /* of the last apply() */
	uint64_t epoch;
};

static const struct vk_field_conf *field_of(const struct vk_colconf *c, uint16_t field)
{
	for (size_t i = 0; i < c->fields_n; i++)
		if (c->fields[i].field == field) return &c->fields[i];
	return NULL;
}

static enum vk_status refuse(struct configure *x, const char *what, const char *which)
{
	return vk_fail(x->err, VK_E_INTERNAL, "collection config: %s: %s", what, which);
}

static enum vk_status check_sets(struct configure *x, const struct vk_colconf *now)
{
	const struct vk_colconf *next = x->next;
	if (next->next_set < now->next_set || next->next_field < now->next_field)
		return refuse(x, "numbers are not given twice", "next_set, next_field");
	for (size_t i = 0; i < next->vectors_n + next->sparse_n; i++) {
		const struct vk_vector_conf *v = &next->vectors[i], *old = vk_colconf_set(now, v->set.id);
		if (!old && v->set.id < now->next_set) return refuse(x, "a new vector needs a new set", v->name);
		if (old && (old->set.dims != v->set.dims || old->set.dtype != v->set.dtype || old->sparse != v->sparse ||
			    old->set.metric != v->set.metric))
			return refuse(x, "a set keeps its shape", v->name);
	}
	return VK_OK;
}

static enum vk_status check_fields(struct configure *x, const struct vk_colconf *now)
{
	for (size_t i = 0; i < x->next->fields_n; i++) {
		const struct vk_field_conf *f = &x->next->fields[i], *old = field_of(now, f->field);
		if (!old && (f->field < now->next_field || f->ready))
			return refuse(x, "a new index is built first", f->path);
		if (old && (old->type != f->type || old->ready != f->ready || strcmp(old->path, f->path) != 0))
			return refuse(x, "an index keeps path, type and state", f->path);
	}
	return VK_OK;
}

static enum vk_status put_word(struct vk_kv_txn *t, const void *key, size_t n)
{
	return vk_kv_put(t, VK_T_META, (struct vk_bytes){key, n}, (struct vk_bytes){0});
}

static enum vk_status put_drops(struct configure *x, struct vk_kv_txn *t, const struct vk_colconf *now)
{
	uint8_t set_key[10], field_key[8];
	enum vk_status st = VK_OK;
	for (size_t i = 0; !st && i < now->vectors_n + now->sparse_n; i++) {
		if (vk_colconf_set(x->next, now->vectors[i].set.id)) continue;
		vk_rec_drop_set_key(set_key, now->vectors[i].set.id);
		st = put_word(t, set_key, sizeof set_key);
	}
	for (size_t i = 0; !st && i < now->fields_n; i++) {
		if (field_of(x->next, now->fields[i].field)) continue;
		vk_rec_drop_field_key(field_key, now->fields[i].field);
		st = put_word(t, field_key, sizeof field_key);
	}
	return st;
}

static enum vk_status put_builds(struct configure *x, struct vk_kv_txn *t, const struct vk_colconf *now)
{
	uint8_t key[8], value[VK_REC_BUILD_SIZE];
	enum vk_status st = VK_OK;
	for (size_t i = 0; !st && i < x->next->fields_n; i++) {
		uint16_t field = x->next->fields[i].field;
		if (field_of(now, field)) continue;
		vk_rec_build_key(key, field);
		vk_rec_build_encode(value, field, 0);
		st = vk_kv_put(t, VK_T_META, (struct vk_bytes){(char *)key, sizeof key},
			       (struct vk_bytes){(char *)value, sizeof value});
	}
	return st;
}

/* All refusals come before the first put. */
static enum vk_status change(struct configure *x, struct vk_kv_txn *t, const struct vk_colconf *now,
			     struct vk_rec_state *s)
{
	struct vk_buf text;
	vk_buf_init(&text, CONFIG_BYTES_MAX);
	enum vk_status st = x->edit(x->arg, now, &text, x->err);
	if (!st && text.failed) st = vk_fail(x->err, VK_E_TOO_LARGE, "the collection's config is too long");
	if (!st) st = vk_colconf_parse(vk_buf_bytes(&text), &x->next, x->err);
	if (!st) st = check_sets(x, now);
	if (!st) st = check_fields(x, now);
	if (!st) st = put_drops(x, t, now);
	if (!st) st = put_builds(x, t, now);
	if (!st) st = vk_collection_conf_put(t, vk_buf_bytes(&text), s);
	if (!st) st = vk_state_put(t, s);
	x->epoch = s->config_epoch;
	vk_buf_free(&text);
	return st;
}

static enum vk_status apply(void *arg, struct vk_kv_txn *t)
{
	struct configure *x = arg;
	struct vk_rec_state s;
	struct vk_colconf *now = NULL;
	vk_colconf_unref(x->next); /* a second attempt */
	x->next = NULL;
	enum vk_status st = vk_state_get(t, &s);
	if (!st) st = vk_collection_conf_of(x->c, t, s.config_epoch, false, &now);
	if (!st) st = change(x, t, now, &s);
	vk_colconf_unref(now);
	return st;
}

static void committed(void *arg)
{
	struct configure *x = arg;
	vk_collection_conf_adopt(x->c, x->next, x->epoch);
	vk_background_kick(x->c);
	if (x->c->ann) vk_ann_configured(x->c->ann, x->next);
}

/* --- waiting for indexes --- */

static bool building(const struct vk_colconf *c)
{
	for (size_t i = 0; i < c->fields_n; i++)
		if (!c->fields[i].ready) return true;
	return false;
}

static void wait_a_little(struct vk_collection *c)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += WAIT_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	pthread_cond_timedwait(&c->changed, &c->lock, &until);
}

static enum vk_status wait_for_indexes(struct vk_collection *c, struct vk_error *err)
{
	enum vk_status st = VK_OK;
	pthread_mutex_lock(&c->lock);
	while (building(c->conf) && c->background.queued) wait_a_little(c);
	if (building(c->conf)) st = c->background.last ? c->background.last : VK_E_UNAVAILABLE;
	pthread_mutex_unlock(&c->lock);
	return st ? vk_fail(err, st, "building the payload index stopped: %s", vk_status_text(st)) : VK_OK;
}

enum vk_status vk_collection_configure(struct vk_collection *c,
				       enum vk_status (*edit)(void *arg, const struct vk_colconf *now,
							      struct vk_buf *json, struct vk_error *err),
				       void *arg, bool wait_built, struct vk_error *err)
{
	struct vk_error own = {0};
	struct configure x = {.c = c, .edit = edit, .arg = arg, .err = &own};
	struct vk_kv_job job = {.apply = apply, .committed = committed, .arg = &x};
	enum vk_status st = c->read_only ? VK_E_FORBIDDEN : vk_kv_run(c->kv, &job);
	vk_colconf_unref(x.next);
	if (st) {
		if (own.st != st)
			vk_fail(&own, st, "the collection's config could not be changed: %s",
				vk_status_text(st));
		if (err) *err = own;
		return st;
	}
	return wait_built ? wait_for_indexes(c, err) : VK_OK;
}
