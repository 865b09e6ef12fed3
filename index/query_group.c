/*
 * Groups: the best points in order, dealt out by the values at a path, until the first `limit` values have their points or nobody is
 * left. The order is asked for in growing lengths, and only what is new is dealt: every answer is a prefix of the longer one
 * (also a sample's, whose seed stays). Over prefetches there is one asking: their limits grow by the group size, as Qdrant has it, and
 * they look only at points that have the field.
 *
 * A point with a value that cannot name a group (a fraction, a boolean, null, an object) is in no group at all, as in Qdrant.
 */
#include <stdlib.h>

#include "base/hash.h"
#include "index/query_parts.h"

#define TAKE_FIRST 64
#define TAKE_GROWS 4
#define TAKE_MAX (VK_EXACT_LIMIT_MAX - 2048)
#define KEYS_MAX 4096 /* values of one point that are looked at */
#define SCRATCH_MAX ((size_t)64 << 20)

struct deal {
	struct vk_view *v;
	struct vk_arena *a;
	const struct vk_path *path;
	struct vk_json *doc;        /* of the filter that has_path() makes */
	struct vk_group *group;
	struct vk_found_list *list; /* a group's */
	size_t *table;              /* 1 + group, 0: free; a power of two */
	size_t mask, n, limit, size, cap, full;
	/* of the point in hand */
	struct vk_group key[KEYS_MAX];
	size_t keys;
	bool bad;
};

static bool same_key(const struct vk_group *a, const struct vk_group *b)
{
	if (a->type != b->type) return false;
	if (a->type == VK_FIELD_KEYWORD) return vk_bytes_eq(a->text, b->text);
	return a->is_u64 == b->is_u64 && (a->is_u64 ? a->u64 == b->u64 : a->i64 == b->i64);
}

static size_t key_hash(const struct vk_group *k)
{
	if (k->type == VK_FIELD_KEYWORD) return (size_t)vk_hash64(1, k->text.p, k->text.n);
	return (size_t)vk_hash64(2, k->is_u64 ? (const void *)&k->u64 : (const void *)&k->i64, 8);
}

static bool one_value(void *arg, const vk_jv *v)
{
	struct deal *d = arg;
	struct vk_group k = {0};
	if (vk_jv_str(v, &k.text)) {
		k.type = VK_FIELD_KEYWORD;
	} else if (vk_jv_u64(v, &k.u64)) {
		k.type = VK_FIELD_INTEGER;
		k.is_u64 = true;
	} else if (vk_jv_i64(v, &k.i64)) {
		k.type = VK_FIELD_INTEGER;
	} else {
		d->bad = true;
		return false;
	}
	for (size_t i = 0; i < d->keys; i++)
		if (same_key(&d->key[i], &k)) return true;
	d->key[d->keys++] = k;
	return d->keys < KEYS_MAX;
}

static bool grow(struct deal *d)
{
	size_t cap = d->cap ? d->cap * 2 : 16, mask = cap * 4 - 1;
	struct vk_group *group = realloc(d->group, cap * sizeof *group);
	if (group) d->group = group;
	struct vk_found_list *list = realloc(d->list, cap * sizeof *list);
	if (list) d->list = list;
	size_t *table = calloc(mask + 1, sizeof *table);
	if (!group || !list || !table) {
		free(table);
		return false;
	}
	for (size_t i = 0; i < d->n; i++) {
		size_t at = key_hash(&d->group[i]) & mask;
		while (table[at]) at = (at + 1) & mask;
		table[at] = i + 1;
	}
	free(d->table);
	d->table = table;
	d->mask = mask;
	d->cap = cap;
	return true;
}

/* The group of a key; *g SIZE_MAX when all groups are taken by better ones. */
static enum vk_status find_group(struct deal *d, const struct vk_group *k, size_t *g)
{
	if (d->n == d->cap && d->n < d->limit && !grow(d)) return VK_E_NOMEM;
	size_t at = key_hash(k) & d->mask;
	for (; d->table[at]; at = (at + 1) & d->mask)
		if (same_key(&d->group[d->table[at] - 1], k)) {
			*g = d->table[at] - 1;
			return VK_OK;
		}
	*g = SIZE_MAX;
	if (d->n == d->limit) return VK_OK;
	struct vk_group mine = *k;
	if (k->type == VK_FIELD_KEYWORD && !(mine.text.p = vk_arena_strndup(d->a, k->text.p, k->text.n))) return VK_E_NOMEM;
	*g = d->n;
	d->group[d->n] = mine;
	d->list[d->n] = (struct vk_found_list){0};
	d->table[at] = ++d->n;
	return VK_OK;
}

/* A point with several order values comes several times, and is in a group once. */
static bool holds(const struct vk_found_list *l, uint32_t slot)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->p[i].slot == slot) return true;
	return false;
}

static enum vk_status put_point(struct deal *d, const struct vk_found *f)
{
	for (size_t i = 0; i < d->keys; i++) {
		size_t g;
		enum vk_status st = find_group(d, &d->key[i], &g);
		if (st) return st;
		if (g == SIZE_MAX || d->list[g].n == d->size || (f->has_order && holds(&d->list[g], f->slot))) continue;
		if (!vk_found_add(&d->list[g], f)) return VK_E_NOMEM;
		d->full += d->list[g].n == d->size;
	}
	return VK_OK;
}

static enum vk_status deal_one(struct deal *d, const struct vk_found *f)
{
	struct vk_point at;
	struct vk_json *doc = NULL;
	enum vk_status st = vk_view_point(d->v, f->slot, &at);
	if (st || !at.payload.n) return st;
	struct vk_arena scratch;
	vk_arena_init(&scratch, SCRATCH_MAX);
	st = vk_json_parse(&scratch, at.payload, NULL, &doc, NULL);
	if (!st) {
		d->keys = 0;
		d->bad = false;
		vk_path_values(vk_json_root(doc), d->path, one_value, d);
		if (!d->bad) st = put_point(d, f);
	}
	vk_json_free(doc);
	vk_arena_free(&scratch);
	return st;
}

static enum vk_status deal_all(struct deal *d, const struct vk_query_result *r, size_t from, const struct vk_query_env *env)
{
	enum vk_status st = VK_OK;
	for (size_t i = from; !st && i < r->n && d->full < d->limit; i++) {
		if (vk_view_stopped(d->v) || (env && env->stop && atomic_load(env->stop))) return VK_E_CANCELLED;
		st = deal_one(d, &r->found[i]);
	}
	return st;
}

/* --- asking --- */

/* The tree again, prefetch limits times the group size. */
static enum vk_status widen(struct vk_arena *a, const struct vk_query *q, size_t by, struct vk_query *out)
{
	*out = *q;
	if (!q->prefetch_n) return VK_OK;
	if (!(out->prefetch = vk_arena_calloc(a, q->prefetch_n, sizeof *out->prefetch))) return VK_E_NOMEM;
	for (size_t i = 0; i < q->prefetch_n; i++) {
		enum vk_status st = widen(a, &q->prefetch[i], by, &out->prefetch[i]);
		if (st) return st;
		size_t *limit = &out->prefetch[i].limit;
		*limit = *limit > TAKE_MAX / by ? TAKE_MAX : *limit * by;
	}
	return VK_OK;
}

/* "Has something at the path": asked of prefetches always, of others where an index knows it. */
static enum vk_status has_path(struct deal *d, bool prefetch, struct vk_filter **out, struct vk_error *err)
{
	const struct vk_field_conf *f = vk_colconf_field(d->v->conf, d->path->text);
	struct vk_buf text;
	struct vk_jw w;
	*out = NULL;
	if (!prefetch && !(f && f->ready)) return VK_OK;
	vk_buf_init(&text, 1 << 16);
	vk_jw_init(&w, &text);
	vk_jw_object(&w);
	vk_jw_key(&w, "must_not");
	vk_jw_object(&w);
	vk_jw_key(&w, "is_empty");
	vk_jw_object(&w);
	vk_jw_key(&w, "key");
	vk_jw_str(&w, d->path->text);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	char *kept = text.failed ? NULL : vk_arena_strndup(d->a, text.p, text.n);
	enum vk_status st = kept ? vk_json_parse(d->a, (struct vk_bytes){kept, text.n}, NULL, &d->doc, err) : VK_E_NOMEM;
	if (!st) st = vk_filter_parse(d->a, vk_json_root(d->doc), out, err);
	vk_buf_free(&text);
	return st;
}

static enum vk_status ask(struct deal *d, struct vk_query *q, const struct vk_query_env *env, struct vk_error *err)
{
	size_t done = 0, take = d->limit > TAKE_MAX / d->size ? TAKE_MAX : d->limit * d->size;
	struct vk_filter *also;
	enum vk_status st = has_path(d, q->prefetch_n, &also, err);
	if (take < TAKE_FIRST) take = TAKE_FIRST;
	if (q->prefetch_n) take = TAKE_MAX;
	while (!st) {
		struct vk_query_result r = {0};
		q->limit = take;
		st = vk_query_run_within(d->v, q, 1, also, TAKE_MAX, env, d->a, &r, err);
		if (!st) {
			st = deal_all(d, &r, done, env);
			if (st) vk_fail(err, st, st == VK_E_CANCELLED ? "the query was given up" : "a point's payload cannot be read");
		}
		if (st || d->full == d->limit || r.n < take || take == TAKE_MAX) break;
		done = r.n;
		take = take > TAKE_MAX / TAKE_GROWS ? TAKE_MAX : take * TAKE_GROWS;
	}
	return st;
}

static enum vk_status hand_out(struct deal *d, struct vk_group **groups, size_t *n)
{
	if (!(*groups = vk_arena_calloc(d->a, d->n ? d->n : 1, sizeof **groups))) return VK_E_NOMEM;
	for (size_t i = 0; i < d->n; i++) {
		struct vk_group *g = &(*groups)[i];
		*g = d->group[i];
		g->n = d->list[i].n;
		if (!(g->found = vk_arena_alloc(d->a, (g->n ? g->n : 1) * sizeof *g->found))) return VK_E_NOMEM;
		memcpy(g->found, d->list[i].p, g->n * sizeof *g->found);
	}
	*n = d->n;
	return VK_OK;
}

enum vk_status vk_query_groups(struct vk_view *v, const struct vk_query *q, const struct vk_path *path, size_t limit,
			       size_t group_size, const struct vk_query_env *env, struct vk_arena *a,
			       struct vk_group **groups, size_t *n, struct vk_error *err)
{
	struct vk_query wide;
	*n = 0;
	*groups = NULL;
	if (!limit || !group_size) return VK_OK;
	if (limit > VK_QUERY_LIMIT_MAX || group_size > VK_QUERY_LIMIT_MAX)
		return vk_fail(err, VK_E_INVALID, "Wrong input: limit and group_size are at most %zu", VK_QUERY_LIMIT_MAX);
	struct deal *d = vk_arena_calloc(a, 1, sizeof *d);
	if (!d) return vk_fail(err, VK_E_NOMEM, "out of memory; try again shortly");
	*d = (struct deal){.v = v, .a = a, .path = path, .limit = limit, .size = group_size};
	enum vk_status st = widen(a, q, group_size, &wide);
	wide.offset = 0;
	if (!st) st = ask(d, &wide, env, err);
	if (!st) st = hand_out(d, groups, n);
	if (st == VK_E_NOMEM) vk_fail(err, st, "out of memory; try again shortly");
	for (size_t i = 0; i < d->n; i++) vk_found_free(&d->list[i]);
	vk_json_free(d->doc);
	free(d->group);
	free(d->list);
	free(d->table);
	return st;
}
