/* A collection's life: open, close, the config in memory; statistics and cursors. */
#include "index/ann.h"
#include "index/collection_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "index/field_read.h"

static const char *const table_names[VK_T_COUNT] = VK_TABLE_NAMES;

/* --- state and config --- */

enum vk_status vk_state_get(struct vk_kv_txn *t, struct vk_rec_state *s)
{
	struct vk_bytes v;
	enum vk_status st = vk_kv_get(t, VK_T_META, VK_LIT(VK_REC_STATE_KEY), &v);
	if (st) return st == VK_E_NOT_FOUND ? VK_E_CORRUPT : st;
	return vk_rec_state_decode(s, v) ? VK_OK : VK_E_CORRUPT;
}

enum vk_status vk_state_put(struct vk_kv_txn *t, const struct vk_rec_state *s)
{
	uint8_t value[VK_REC_STATE_SIZE];
	vk_rec_state_encode(value, s);
	return vk_kv_put(t, VK_T_META, VK_LIT(VK_REC_STATE_KEY), (struct vk_bytes){(char *)value, sizeof value});
}

/* The one in memory, if it is of this epoch. */
static struct vk_colconf *remembered(struct vk_collection *c, uint64_t epoch)
{
	pthread_mutex_lock(&c->lock);
	struct vk_colconf *conf = c->conf && c->epoch == epoch ? vk_colconf_ref(c->conf) : NULL;
	pthread_mutex_unlock(&c->lock);
	return conf;
}

void vk_collection_conf_adopt(struct vk_collection *c, struct vk_colconf *conf, uint64_t epoch)
{
	struct vk_colconf *old = NULL;
	pthread_mutex_lock(&c->lock);
	if (!c->conf || epoch > c->epoch) {
		old = c->conf;
		c->conf = vk_colconf_ref(conf);
		c->epoch = epoch;
		pthread_cond_broadcast(&c->changed);
	}
	pthread_mutex_unlock(&c->lock);
	vk_colconf_unref(old);
}

enum vk_status vk_collection_conf_of(struct vk_collection *c, struct vk_kv_txn *t, uint64_t epoch, bool committed,
				     struct vk_colconf **out)
{
	struct vk_bytes text;
	struct vk_error err;
	if ((*out = remembered(c, epoch))) return VK_OK;
	enum vk_status st = vk_kv_get(t, VK_T_META, VK_LIT(VK_REC_CONFIG_KEY), &text);
	if (!st) st = vk_colconf_parse(text, out, &err);
	if (st && st != VK_E_NOMEM) {
		vk_log(VK_LOG_ERROR, "%s: the collection's config cannot be read", vk_kv_path(c->kv));
		st = VK_E_CORRUPT;
	}
	if (!st && committed) vk_collection_conf_adopt(c, *out, epoch);
	return st;
}

enum vk_status vk_collection_conf_put(struct vk_kv_txn *t, struct vk_bytes text, struct vk_rec_state *s)
{
	s->config_epoch++;
	return vk_kv_put(t, VK_T_META, VK_LIT(VK_REC_CONFIG_KEY), text);
}

/* --- open and close --- */

static enum vk_status has_state(struct vk_collection *c, bool *has)
{
	struct vk_kv_txn *t;
	struct vk_bytes v;
	*has = false;
	enum vk_status st = vk_kv_view_begin(c->kv, &t);
	if (st) return st;
	st = vk_kv_get(t, VK_T_META, VK_LIT(VK_REC_STATE_KEY), &v);
	*has = !st;
	vk_kv_view_end(t);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

struct create {
	struct vk_bytes config;
};

static enum vk_status apply_create(void *arg, struct vk_kv_txn *t)
{
	struct create *cr = arg;
	struct vk_rec_state s = {0};
	enum vk_status st = vk_collection_conf_put(t, cr->config, &s);
	return st ? st : vk_state_put(t, &s);
}

static enum vk_status create(struct vk_collection *c, struct vk_bytes config, struct vk_error *err)
{
	struct vk_colconf *conf;
	struct create cr = {config};
	struct vk_kv_job job = {.apply = apply_create, .arg = &cr, .bytes = config.n};
	enum vk_status st = vk_colconf_parse(config, &conf, err);
	if (st) return st;
	for (size_t i = 0; !st && i < conf->fields_n; i++)
		if (!conf->fields[i].ready) /* nothing to build over */
			st = vk_fail(err, VK_E_INVALID,
				     "collection config: a new collection's indexes are ready");
	if (!st) {
		st = vk_kv_run(c->kv, &job);
		if (st) vk_fail(err, st, "the collection's environment takes no writes: %s", vk_status_text(st));
	}
	vk_colconf_unref(conf);
	return st;
}

static enum vk_status load(struct vk_collection *c, struct vk_error *err)
{
	struct vk_view v;
	enum vk_status st = vk_view_begin(c, 0, &v);
	if (st) return vk_fail(err, st, "%s: the collection's state or config cannot be read", vk_kv_path(c->kv));
	atomic_store(&c->points, vk_view_points(&v));
	vk_view_end(&v);
	return VK_OK;
}

static enum vk_status start(struct vk_collection *c, const char *dir, struct vk_bytes config,
			    struct vk_error *err)
{
	bool has;
	enum vk_status st = has_state(c, &has);
	if (st) return vk_fail(err, st, "%s: cannot be read", dir);
	if (has && config.p) return vk_fail(err, VK_E_EXISTS, "%s: holds a collection already", dir);
	if (!has && !config.p) return vk_fail(err, VK_E_NOT_FOUND, "%s: holds no collection", dir);
	if (config.p) st = create(c, config, err);
	return st ? st : load(c, err);
}

static void destroy(struct vk_collection *c)
{
	vk_ann_free(c->ann);
	c->ann = NULL;
	if (c->kv) {
		pthread_mutex_lock(&c->lock);
		c->closing = true;
		pthread_mutex_unlock(&c->lock);
		vk_kv_close(c->kv);
	}
	vk_colconf_unref(c->conf);
	vk_parts_kept_unref(c->parts);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

enum vk_status vk_collection_open(const char *dir, struct vk_bytes config, const struct vk_collection_opts *o,
				  struct vk_collection **out, struct vk_error *err)
{
	struct vk_kv_opts kv = {.map_bytes = o->map_bytes,
				.read_only = o->read_only,
				.tables = table_names,
				.tables_n = VK_T_COUNT,
				.writers = o->writers};
	struct vk_collection *c = calloc(1, sizeof *c);
	*out = NULL;
	if (!c) return vk_fail(err, VK_E_NOMEM, "out of memory");
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	atomic_init(&c->refs, 1);
	c->read_only = o->read_only;
	vk_background_init(c);
	enum vk_status st = vk_kv_open(dir, &kv, &c->kv, err);
	if (!st) st = start(c, dir, config, err);
	if (st) {
		destroy(c);
		return st;
	}
	struct vk_ann_opts ann = {.dir = dir, .read_only = o->read_only};
	if (o->pace) ann.pace = *o->pace;
	if ((st = vk_ann_new(c, &ann, &c->ann, err))) {
		destroy(c);
		return st;
	}
	atomic_store(&c->seal_all, true); /* what the last process left in the tail */
	vk_background_kick(c);
	*out = c;
	return VK_OK;
}

struct vk_collection *vk_collection_ref(struct vk_collection *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void vk_collection_unref(struct vk_collection *c)
{
	if (c && atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1) destroy(c);
}

struct vk_kv *vk_collection_kv(struct vk_collection *c)
{
	return c->kv;
}

struct vk_ann *vk_collection_ann(struct vk_collection *c)
{
	return c->ann;
}

struct vk_colconf *vk_collection_config(struct vk_collection *c)
{
	pthread_mutex_lock(&c->lock);
	struct vk_colconf *conf = vk_colconf_ref(c->conf);
	pthread_mutex_unlock(&c->lock);
	return conf;
}

/* --- cursors --- */

struct set_cursor {
	char key[sizeof VK_REC_CURSOR_PREFIX + VK_REC_CURSOR_NAME_MAX];
	struct vk_rec_cursor r;
};

static enum vk_status apply_cursor(void *arg, struct vk_kv_txn *t)
{
	struct set_cursor *s = arg;
	struct vk_bytes key = vk_bytes_of(s->key);
	uint8_t value[VK_REC_CURSOR_SIZE];
	if (s->r.sequence == UINT64_MAX) {
		enum vk_status st = vk_kv_del(t, VK_T_META, key);
		return st == VK_E_NOT_FOUND ? VK_OK : st;
	}
	vk_rec_cursor_encode(value, key, &s->r);
	return vk_kv_put(t, VK_T_META, key, (struct vk_bytes){(char *)value, sizeof value});
}

enum vk_status vk_collection_cursor(struct vk_collection *c, const char *name, uint64_t sequence,
				    int64_t expires_ms)
{
	struct set_cursor s = {.r = {.sequence = sequence, .expires_ms = expires_ms}};
	struct vk_kv_job job = {.apply = apply_cursor, .arg = &s};
	size_t n = strlen(name);
	if (n < 1 || n > VK_REC_CURSOR_NAME_MAX) return VK_E_INVALID;
	snprintf(s.key, sizeof s.key, "%s%s", VK_REC_CURSOR_PREFIX, name);
	enum vk_status st = vk_kv_run(c->kv, &job);
	if (!st) vk_background_kick(c); /* tombstones that nobody waits for any more */
	return st;
}

/* --- statistics --- */

/* What points carry and is no sparse vector. */
static enum vk_status count_texts(struct vk_view *v, uint64_t *n)
{
	enum vk_status st = VK_OK;
	*n = vk_kv_entries(v->t, VK_T_EXTRA);
	for (size_t i = 0; !st && *n && i < v->conf->sparse_n; i++) {
		uint64_t points;
		uint8_t set[4];
		vk_put_u32be(set, v->conf->sparse[i].set.id);
		st = vk_field_count(v->t, 0, VK_FK_SET, (struct vk_bytes){(char *)set, 4}, &points);
		if (!st) *n -= points < *n ? points : *n;
	}
	return st;
}

static enum vk_status read_stats(void *arg, struct vk_view *v)
{
	struct vk_collection_stats *out = arg;
	struct vk_rec_state s;
	enum vk_status st = vk_state_get(v->t, &s);
	for (size_t i = 0; !st && i < v->conf->vectors_n; i++) {
		struct vk_vset_stats rows;
		st = vk_vset_stats(v->t, &v->conf->vectors[i].set, &rows);
		if (!st) out->rows += rows.rows, out->tail_rows += rows.tail_rows;
	}
	if (!st) st = count_texts(v, &out->texts);
	for (size_t i = 0; i < v->conf->fields_n; i++) out->building |= !v->conf->fields[i].ready;
	if (st) return st;
	out->points = s.points;
	out->sequence = s.sequence;
	out->next_slot = s.next_slot;
	return VK_OK;
}

enum vk_status vk_collection_stats(struct vk_collection *c, struct vk_collection_stats *out)
{
	*out = (struct vk_collection_stats){0};
	enum vk_status st = vk_view_run(c, 0, NULL, read_stats, out);
	vk_kv_stats(c->kv, &out->kv); /* of one that cannot be read, too */
	if (st) return st;
	out->sealing = atomic_load(&c->sealing);
	out->building |= atomic_load(&c->building);
	return VK_OK;
}
