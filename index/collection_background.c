/*
 * Work behind the writes: one background job a collection, in steps of a few milliseconds, each its own
 * commit. A step does the first thing that there is: delete rows of dropped sets, entries of dropped
 * indexes, build indexes, prune tombstones, seal the tail. What must survive a crash is a word in the meta
 * table (drop:, build:), put by the commit that caused it and deleted by the step that ends it; sealing and
 * pruning find their work by looking.
 *
 * An index is built from the lowest slot up while writes keep it up already: putting a point in twice is
 * harmless, and a point that changed behind the builder is right because the write was.
 *
 * A step may run twice (store/kv.h). Its memory of where it is (set_at, block, pruned) may so run ahead of
 * a step that was undone: then a block waits for the next round, nothing is lost.
 */
#include "index/collection_internal.h"

#include "base/log.h"
#include "index/ttl.h"

#define STEP_BYTES ((size_t)4 << 20)
#define BUILD_POINTS 2000           /* of a step, and */
#define BUILD_BYTES ((size_t)2 << 20) /* payload text of a step */
#define PRUNE_ENTRIES 4096
#define SWEEP_POINTS 1000
#define IDLE_MS 1000
#define SCRATCH_MAX (16 * VK_PAYLOAD_MAX)

static struct vk_bytes span(const void *p, size_t n)
{
	return (struct vk_bytes){p, n};
}

/* The first key of the meta table with this prefix, copied; VK_E_NOT_FOUND: none. */
static enum vk_status first_word(struct vk_kv_txn *t, const char *prefix, uint8_t key[16], size_t *n)
{
	struct vk_kv_cursor *cur;
	struct vk_bytes k, v, p = vk_bytes_of(prefix);
	enum vk_status st = vk_kv_cursor_open(t, VK_T_META, &cur);
	if (st) return st;
	st = vk_kv_seek(cur, p, &k, &v);
	if (!st && (k.n < p.n || k.n > 16 || memcmp(k.p, p.p, p.n) != 0)) st = VK_E_NOT_FOUND;
	if (!st) memcpy(key, k.p, *n = k.n);
	vk_kv_cursor_close(cur);
	return st;
}

/* The steps below say VK_E_BUSY when they did something, VK_E_NOT_FOUND when there is nothing of theirs
 * to do. */

/* What points carry of a dropped set: by slot in their table, so all of it is looked through. Where to go on stands in
 * the word. */
static enum vk_status drop_extras(struct vk_kv_txn *t, uint32_t set, struct vk_bytes word)
{
	uint8_t at[VK_REC_DROP_AT_SIZE];
	struct vk_bytes v;
	uint64_t slot;
	enum vk_status st = vk_kv_get(t, VK_T_META, word, &v);
	if (st) return st;
	if (!vk_rec_drop_at_decode(set, v, &slot)) slot = 0; /* from the start is right, too */
	st = vk_extra_drop_step(t, set, STEP_BYTES, &slot);
	if (st != VK_E_BUSY) return st;
	vk_rec_drop_at_encode(at, set, slot);
	st = vk_kv_put(t, VK_T_META, word, span(at, sizeof at));
	return st ? st : VK_E_BUSY;
}

static enum vk_status drop_sets(struct vk_kv_txn *t)
{
	uint8_t key[16];
	size_t n;
	uint32_t set;
	enum vk_status st = first_word(t, VK_REC_DROP_SET, key, &n);
	if (st) return st;
	if (!vk_rec_drop_set_read(span(key, n), &set)) return VK_E_CORRUPT;
	st = vk_vset_drop_step(t, set, STEP_BYTES);
	if (!st) st = drop_extras(t, set, span(key, n));
	if (!st) st = vk_field_drop_set(t, set);
	if (!st) st = vk_kv_del(t, VK_T_META, span(key, n));
	return st ? st : VK_E_BUSY;
}

static enum vk_status drop_fields(struct vk_kv_txn *t)
{
	uint8_t key[16], build[8];
	size_t n;
	uint16_t field;
	enum vk_status st = first_word(t, VK_REC_DROP_FIELD, key, &n);
	if (st) return st;
	if (!vk_rec_drop_field_read(span(key, n), &field)) return VK_E_CORRUPT;
	st = vk_field_drop_step(t, field, STEP_BYTES);
	if (st) return st;
	vk_rec_build_key(build, field); /* it may have been dropped half built */
	st = vk_kv_del(t, VK_T_META, span(build, sizeof build));
	if (!st || st == VK_E_NOT_FOUND) st = vk_kv_del(t, VK_T_META, span(key, n));
	return st ? st : VK_E_BUSY;
}

/* --- building an index --- */

struct build {
	struct vk_kv_txn *t;
	const struct vk_field_conf *f;
	struct vk_field_batch *batch;
	struct vk_arena scratch;
	uint64_t next; /* slot */
	bool end;
};

static enum vk_status build_point(struct build *b, uint32_t slot, struct vk_bytes text)
{
	struct vk_json *doc = NULL;
	enum vk_status st = vk_json_parse(&b->scratch, text, NULL, &doc, NULL);
	if (!st) st = vk_field_batch_one(b->batch, b->f, slot, vk_json_root(doc));
	vk_json_free(doc);
	vk_arena_reset(&b->scratch);
	return st == VK_E_INVALID ? VK_E_CORRUPT : st;
}

/* Points without payload have nothing to index: the walk is over the payload table. Nothing is put
 * before the cursor is closed. */
static enum vk_status build_points(struct build *b)
{
	struct vk_kv_cursor *cur;
	struct vk_bytes k, v;
	uint8_t key[4];
	uint32_t slot;
	size_t bytes = 0;
	b->end = b->next > UINT32_MAX;
	if (b->end) return VK_OK;
	enum vk_status st = vk_kv_cursor_open(b->t, VK_T_PAYLOAD, &cur);
	if (st) return st;
	vk_rec_slot_key(key, (uint32_t)b->next);
	st = vk_kv_seek(cur, span(key, 4), &k, &v);
	for (size_t n = 0; !st && n < BUILD_POINTS && bytes < BUILD_BYTES; n++) {
		if (!vk_rec_slot_key_read(k, &slot)) st = VK_E_CORRUPT;
		if (!st) st = build_point(b, slot, v);
		bytes += v.n;
		b->next = (uint64_t)slot + 1;
		if (!st) st = vk_kv_next(cur, &k, &v);
	}
	b->end = st == VK_E_NOT_FOUND;
	vk_kv_cursor_close(cur);
	return b->end ? VK_OK : st;
}

/* The config's text with this index ready. */
static enum vk_status put_ready(struct vk_kv_txn *t, const struct vk_colconf *conf, const struct vk_field_conf *f,
				struct vk_rec_state *s)
{
	const struct vk_path at = {.step = {{.key = VK_LIT("indexes")}, {.key = vk_bytes_of(f->path)}}, .n = 2};
	struct vk_arena scratch;
	struct vk_buf text;
	struct vk_json *patch = NULL;
	vk_arena_init(&scratch, 1 << 20);
	vk_buf_init(&text, 2 * conf->text.n + 64);
	enum vk_status st = vk_json_parse(&scratch, VK_LIT("{\"state\":\"ready\"}"), NULL, &patch, NULL);
	if (!st) st = vk_payload_merge(&text, &scratch, conf->text, vk_json_root(patch), &at);
	if (!st) st = vk_collection_conf_put(t, vk_buf_bytes(&text), s);
	if (!st) st = vk_state_put(t, s);
	vk_json_free(patch);
	vk_buf_free(&text);
	vk_arena_free(&scratch);
	return st;
}

static const struct vk_field_conf *unready(const struct vk_colconf *conf)
{
	for (size_t i = 0; i < conf->fields_n; i++)
		if (!conf->fields[i].ready) return &conf->fields[i];
	return NULL;
}

static enum vk_status build_step(struct build *b, const struct vk_colconf *conf, struct vk_rec_state *s)
{
	uint8_t key[8], value[VK_REC_BUILD_SIZE];
	struct vk_bytes v;
	vk_rec_build_key(key, b->f->field);
	enum vk_status st = vk_kv_get(b->t, VK_T_META, span(key, 8), &v);
	if (!st && !vk_rec_build_decode(b->f->field, v, &b->next)) b->next = 0; /* from the start is right, too */
	if (st && st != VK_E_NOT_FOUND) return st;
	st = vk_field_batch_new(b->t, &b->batch);
	if (st) return st;
	st = build_points(b);
	if (st) vk_field_batch_drop(b->batch);
	else st = vk_field_batch_flush(b->batch);
	if (st) return st;
	if (!b->end) {
		vk_rec_build_encode(value, b->f->field, b->next);
		return vk_kv_put(b->t, VK_T_META, span(key, 8), span(value, sizeof value));
	}
	st = vk_kv_del(b->t, VK_T_META, span(key, 8));
	return st && st != VK_E_NOT_FOUND ? st : put_ready(b->t, conf, b->f, s);
}

static enum vk_status build_indexes(struct vk_kv_txn *t, const struct vk_colconf *conf, struct vk_rec_state *s)
{
	struct build b = {.t = t, .f = unready(conf)};
	if (!b.f) return VK_E_NOT_FOUND;
	vk_arena_init(&b.scratch, SCRATCH_MAX);
	enum vk_status st = build_step(&b, conf, s);
	vk_arena_free(&b.scratch);
	return st ? st : VK_E_BUSY;
}

/* --- tombstones --- */

/* Each free slot names the sequence of its delete, and so the tombstone: the change table itself need
 * not be walked. */
static enum vk_status prune(struct vk_collection *c, struct vk_kv_txn *t)
{
	struct vk_kv_cursor *cur;
	struct vk_bytes k, v;
	uint64_t lowest, sequence, until[PRUNE_ENTRIES];
	uint32_t slot;
	uint8_t key[12];
	size_t n = 0;
	enum vk_status st = vk_cursor_lowest(t, atomic_load(&c->wrote_at_ms), &lowest);
	if (st || c->background.pruned >= lowest) return st ? st : VK_E_NOT_FOUND;
	st = vk_kv_cursor_open(t, VK_T_FREE, &cur);
	if (st) return st;
	vk_rec_free_key(key, c->background.pruned + 1, 0);
	for (st = vk_kv_seek(cur, span(key, 12), &k, &v); !st && n < PRUNE_ENTRIES;
	     st = vk_kv_next(cur, &k, &v)) {
		if (!vk_rec_free_key_read(k, &sequence, &slot)) st = VK_E_CORRUPT;
		if (st || sequence > lowest) break;
		until[n++] = sequence;
	}
	vk_kv_cursor_close(cur);
	if (st && st != VK_E_NOT_FOUND) return st;
	for (size_t i = 0; i < n; i++) {
		vk_rec_sequence_key(key, until[i]);
		st = vk_kv_del(t, VK_T_CHANGE, span(key, 8));
		if (st && st != VK_E_NOT_FOUND) return st;
	}
	if (n) c->background.pruned = until[n - 1];
	return n ? VK_E_BUSY : VK_E_NOT_FOUND;
}

/* --- sealing --- */

static enum vk_status seal_sets(struct vk_kv_txn *t, const struct vk_colconf *conf, bool all, size_t *set_at,
				uint32_t *block)
{
	while (*set_at < conf->vectors_n) {
		enum vk_status st = vk_vset_seal_step(t, &conf->vectors[*set_at].set, all, STEP_BYTES, block);
		if (st) return st;
		++*set_at;
		*block = 0;
	}
	return VK_E_NOT_FOUND;
}

/* Rows that wait for their final place. Without any a look for blocks to compact is nothing that a client should wait for. */
static bool any_tail(struct vk_kv_txn *t, const struct vk_colconf *conf)
{
	struct vk_vset_stats s = {0};
	for (size_t i = 0; i < conf->vectors_n && !s.tail_rows; i++)
		if (vk_vset_stats(t, &conf->vectors[i].set, &s)) return true;
	return s.tail_rows;
}

static enum vk_status seal(struct vk_collection *c, struct vk_kv_txn *t, const struct vk_colconf *conf)
{
	struct vk_background *b = &c->background;
	if (!b->set_at && !b->block) {
		bool all = atomic_exchange(&c->seal_all, false);
		if (!all && !atomic_load(&c->tail_rows)) return VK_E_NOT_FOUND;
		b->all = all;
		atomic_store(&c->tail_rows, 0);
		if (any_tail(t, conf)) atomic_store(&c->sealing, true);
	}
	enum vk_status st = seal_sets(t, conf, b->all, &b->set_at, &b->block);
	if (st == VK_E_BUSY) atomic_store(&c->sealing, true);
	else b->set_at = b->block = 0;
	return st;
}

/* --- the job --- */

static enum vk_status step(struct vk_collection *c, struct vk_kv_txn *t, struct vk_colconf *conf,
			   struct vk_rec_state *s)
{
	enum vk_status st = drop_sets(t);
	if (st == VK_E_NOT_FOUND) st = drop_fields(t);
	if (st == VK_E_NOT_FOUND) st = build_indexes(t, conf, s);
	atomic_store(&c->building, st == VK_E_BUSY);
	if (st == VK_E_NOT_FOUND) st = prune(c, t);
	if (st == VK_E_NOT_FOUND) st = seal(c, t, conf);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

static enum vk_status apply(void *arg, struct vk_kv_txn *t)
{
	struct vk_collection *c = arg;
	struct vk_colconf *conf = NULL;
	struct vk_rec_state s;
	enum vk_status st = vk_state_get(t, &s);
	/* A step is alone in its transaction: what it finds at its start is committed. */
	if (!st) st = vk_collection_conf_of(c, t, s.config_epoch, true, &conf);
	if (!st) st = step(c, t, conf, &s);
	vk_colconf_unref(conf);
	return st;
}

static void done(void *arg, enum vk_status st)
{
	struct vk_collection *c = arg;
	atomic_store(&c->sealing, false);
	atomic_store(&c->building, false);
	if (st && st != VK_E_UNAVAILABLE)
		vk_log(VK_LOG_ERROR, "%s: background work stopped: %s", vk_kv_path(c->kv), vk_status_text(st));
	pthread_mutex_lock(&c->lock);
	struct vk_background *b = &c->background;
	bool again = b->again && !st && !c->closing;
	b->last = st;
	b->again = false;
	b->queued = again && vk_kv_submit(c->kv, &b->job) == VK_OK;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

void vk_background_init(struct vk_collection *c)
{
	c->background.job = (struct vk_kv_job){.apply = apply, .done = done, .arg = c, .background = true};
}

void vk_background_kick(struct vk_collection *c)
{
	struct vk_background *b = &c->background;
	if (c->read_only) return;
	pthread_mutex_lock(&c->lock);
	if (b->queued)
		b->again = true;
	else if (!c->closing)
		b->queued = vk_kv_submit(c->kv, &b->job) == VK_OK;
	pthread_mutex_unlock(&c->lock);
}

/* --- asked for: sealing all --- */

struct seal_job {
	struct vk_collection *c;
	size_t set_at;
	uint32_t block;
};

static enum vk_status apply_seal(void *arg, struct vk_kv_txn *t)
{
	struct seal_job *s = arg;
	struct vk_colconf *conf = NULL;
	struct vk_rec_state state;
	enum vk_status st = vk_state_get(t, &state);
	if (!st) st = vk_collection_conf_of(s->c, t, state.config_epoch, true, &conf);
	if (!st) st = seal_sets(t, conf, true, &s->set_at, &s->block);
	vk_colconf_unref(conf);
	return st == VK_E_NOT_FOUND ? VK_OK : st;
}

enum vk_status vk_collection_seal(struct vk_collection *c)
{
	struct seal_job s = {.c = c};
	struct vk_kv_job job = {.apply = apply_seal, .arg = &s, .background = true};
	return c->read_only ? VK_E_FORBIDDEN : vk_kv_run(c->kv, &job);
}

/* --- expiry --- */

struct sweep {
	struct vk_collection *c;
	int64_t now_ms;
	uint64_t swept;
};

/* Up to SWEEP_POINTS that live says are expired: live, and not in the view of this moment. */
static enum vk_status find_expired(struct vk_writer *w, uint32_t *slot, size_t *n)
{
	struct vk_view v = {.t = w->t, .conf = w->conf, .c = w->c, .now_ms = w->now_ms, .writing = true};
	const struct vk_bitmap *unexpired;
	struct vk_bitmap *live = NULL;
	*n = 0;
	enum vk_status st = vk_view_live(&v, &unexpired);
	if (!st) st = vk_field_live(w->t, &live);
	if (!st) {
		vk_bitmap_andnot(live, unexpired);
		st = vk_bitmap_failed(live) ? VK_E_NOMEM : VK_OK;
		if (!st) *n = vk_bitmap_take(live, 0, slot, SWEEP_POINTS);
	}
	vk_bitmap_free(live);
	vk_bitmap_free(v.live);
	return st;
}

static enum vk_status apply_sweep(void *arg, struct vk_kv_txn *t)
{
	struct sweep *s = arg;
	struct vk_writer w;
	uint32_t slot[SWEEP_POINTS];
	size_t n = 0;
	enum vk_status st = vk_writer_begin(&w, s->c, t, s->now_ms, NULL);
	if (!st && vk_ttl_on(w.conf)) st = find_expired(&w, slot, &n);
	for (size_t i = 0; !st && i < n; i++) {
		struct vk_old o;
		st = vk_old_by_slot(&w, slot[i], &o);
		if (!st) st = vk_point_delete(&w, &o);
		vk_old_end(&w, &o);
	}
	s->swept = n;
	return vk_writer_end(&w, st);
}

/* Anyone to sweep? Asked in a view, so that a collection without expired points costs no write. */
static enum vk_status any_expired(void *arg, struct vk_view *v)
{
	bool *any = arg;
	const struct vk_bitmap *live;
	if (!vk_view_has_ttl(v)) return VK_OK;
	enum vk_status st = vk_view_live(v, &live);
	*any = !st && vk_bitmap_count(live) < vk_view_points(v);
	return st;
}

/* A tail that nobody adds to is worth sealing whole. */
static void seal_when_idle(struct vk_collection *c, int64_t now_ms)
{
	if (!atomic_load(&c->tail_rows) || now_ms - atomic_load(&c->wrote_at_ms) < IDLE_MS) return;
	atomic_store(&c->seal_all, true);
	vk_background_kick(c);
}

enum vk_status vk_collection_sweep(struct vk_collection *c, int64_t now_ms, uint64_t *swept)
{
	struct sweep s = {.c = c, .now_ms = now_ms};
	struct vk_kv_job job = {.apply = apply_sweep, .arg = &s};
	bool more = false;
	*swept = 0;
	if (c->read_only) return VK_OK;
	seal_when_idle(c, now_ms);
	enum vk_status st = vk_view_run(c, now_ms, NULL, any_expired, &more);
	while (!st && more) {
		st = vk_kv_run(c->kv, &job);
		if (!st) *swept += s.swept;
		more = s.swept == SWEEP_POINTS;
	}
	return st;
}
