/*
 * Filters over a view. A tree is folded into two bitmaps: low, of which every point matches, and high,
 * outside of which none does. `must` intersects, `should` unites, `must_not` turns over. What lies between
 * the two is read: each such point's payload once, for the whole filter, so the answer is exact whichever
 * indexes exist.
 *
 * In a `must` list conditions go in order of what they are expected to leave, and once few points are left a
 * condition that costs more to look up than those points cost to read is left to the reading.
 */
#include "index/filter.h"

#include <stdlib.h>

#include "index/filter_plan.h"
#include "index/json_text.h"

/* Reading a point's payload and matching it costs about as much as so many entries of an index walk. */
#define PAYLOAD_COST 8

struct fold {
	struct vk_view *v;
	const struct vk_bitmap *live;
	uint64_t live_n, excess;
};

static enum vk_status fold_filter(struct fold *x, const struct vk_filter *f, struct vk_span *out);

static enum vk_status fold_cond(struct fold *x, const struct vk_cond *c, struct vk_span *out)
{
	*out = (struct vk_span){0};
	if (c->kind != VK_C_FILTER) return vk_plan_cond(x->v, x->live, c, out);
	if (c->filter) return fold_filter(x, c->filter, out);
	out->low = out->high = vk_bitmap_copy(x->live);
	return out->low ? VK_OK : VK_E_NOMEM;
}

/* --- the algebra; each takes b's bitmaps over or frees them --- */

/* Before one of two shared bitmaps is changed. */
static enum vk_status unshare(struct vk_span *s)
{
	if (!s->low || s->low != s->high) return VK_OK;
	s->high = vk_bitmap_copy(s->low);
	if (s->high) return VK_OK;
	s->high = s->low;
	return VK_E_NOMEM;
}

static bool is_exact(const struct vk_span *s) { return s->low && s->low == s->high; }

static enum vk_status span_and(struct vk_span *a, struct vk_span *b)
{
	if (is_exact(a) && is_exact(b)) {
		vk_bitmap_and(a->low, b->low);
		vk_span_free(b);
		return VK_OK;
	}
	enum vk_status st = unshare(a);
	if (!st) st = unshare(b);
	if (!st && a->low && b->low) {
		vk_bitmap_and(a->low, b->low);
	} else if (!st) {
		vk_bitmap_free(a->low);
		a->low = NULL;
	}
	if (!st && a->high && b->high) {
		vk_bitmap_and(a->high, b->high);
	} else if (!st && b->high) {
		a->high = b->high;
		b->high = NULL;
	}
	vk_span_free(b);
	return st;
}

static enum vk_status span_or(struct vk_span *a, struct vk_span *b)
{
	if (is_exact(a) && is_exact(b)) {
		vk_bitmap_or(a->low, b->low);
		vk_span_free(b);
		return VK_OK;
	}
	enum vk_status st = unshare(a);
	if (!st) st = unshare(b);
	if (!st && a->low && b->low) {
		vk_bitmap_or(a->low, b->low);
	} else if (!st && b->low) {
		a->low = b->low;
		b->low = NULL;
	}
	if (!st && a->high && b->high) {
		vk_bitmap_or(a->high, b->high);
	} else if (!st) {
		vk_bitmap_free(a->high);
		a->high = NULL;
	}
	vk_span_free(b);
	return st;
}

static struct vk_bitmap *live_without(const struct fold *x, const struct vk_bitmap *b)
{
	struct vk_bitmap *rest = vk_bitmap_copy(x->live);
	if (rest) vk_bitmap_andnot(rest, b);
	return rest;
}

static enum vk_status span_not(const struct fold *x, struct vk_span *s)
{
	struct vk_span r = {0};
	bool exact = is_exact(s), failed = false;
	if (s->high) failed |= !(r.low = live_without(x, s->high));
	if (exact) r.high = r.low;
	else if (s->low) failed |= !(r.high = live_without(x, s->low));
	vk_span_free(s);
	*s = r;
	return failed ? VK_E_NOMEM : VK_OK;
}

/* --- lists --- */

static enum vk_status all_live(const struct fold *x, struct vk_span *out)
{
	out->low = out->high = vk_bitmap_copy(x->live);
	return out->low ? VK_OK : VK_E_NOMEM;
}

struct ranked {
	const struct vk_cond *c;
	struct vk_cardinality n;
	bool negate;
};

static int compare_ranked(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	if (x->n.likely != y->n.likely) return x->n.likely < y->n.likely ? -1 : 1;
	return (x->n.max > y->n.max) - (x->n.max < y->n.max);
}

static enum vk_status rank(const struct fold *x, const struct vk_cond_list *l, bool negate,
			   struct ranked *out)
{
	for (size_t i = 0; i < l->n; i++) {
		struct vk_cardinality n;
		enum vk_status st = vk_estimate_cond(x->v, &l->v[i], x->live_n, x->excess, &n);
		if (st) return st;
		out[i] = (struct ranked){&l->v[i], n, negate};
		if (negate)
			out[i].n = (struct vk_cardinality){x->live_n - n.max, x->live_n - n.likely,
							   x->live_n - n.min};
	}
	return VK_OK;
}

/* Is it cheaper to read the points that are left than to look this condition up? */
static bool leave_to_reading(const struct fold *x, const struct vk_span *so_far, const struct ranked *r)
{
	if (!so_far->high) return false;
	uint64_t left = vk_bitmap_count(so_far->high),
		 entries = r->negate ? x->live_n - r->n.likely : r->n.likely;
	return left * PAYLOAD_COST < entries;
}

/* must and must_not together: all of them have to hold. */
static enum vk_status fold_all(struct fold *x, const struct vk_filter *f, struct vk_span *out)
{
	size_t n = f->must.n + f->must_not.n;
	struct ranked *r = malloc((n ? n : 1) * sizeof *r);
	enum vk_status st = r ? rank(x, &f->must, false, r) : VK_E_NOMEM;
	if (!st) st = rank(x, &f->must_not, true, r + f->must.n);
	if (!st && n > 1) qsort(r, n, sizeof *r, compare_ranked);
	if (!st) st = all_live(x, out);
	for (size_t i = 0; i < n && !st; i++) {
		struct vk_span s = {0};
		if (!leave_to_reading(x, out, &r[i])) st = fold_cond(x, r[i].c, &s);
		if (!st && r[i].negate) st = span_not(x, &s);
		if (!st) st = span_and(out, &s);
		else vk_span_free(&s);
	}
	free(r);
	return st;
}

static enum vk_status fold_any(struct fold *x, const struct vk_cond_list *l, struct vk_span *out)
{
	out->low = out->high = vk_bitmap_new();
	if (!out->low) return VK_E_NOMEM;
	enum vk_status st = VK_OK;
	for (size_t i = 0; i < l->n && !st; i++) {
		struct vk_span s;
		st = fold_cond(x, &l->v[i], &s);
		if (!st) st = span_or(out, &s);
		else vk_span_free(&s);
	}
	return st;
}

/* at[j]: at least j + 1 of the conditions so far. Beyond this much work reading decides. */
#define MIN_SHOULD_WORK 16384

static enum vk_status count_cond(struct fold *x, const struct vk_cond *c, struct vk_span *at, size_t k)
{
	struct vk_span s;
	enum vk_status st = fold_cond(x, c, &s);
	for (size_t j = k; j-- > 0 && !st;) { /* at[j] |= at[j - 1] & s, from the end so that s counts once */
		struct vk_span both = {0};
		if (s.low) st = (both.low = vk_bitmap_copy(s.low)) ? VK_OK : VK_E_NOMEM;
		if (!st && is_exact(&s)) both.high = both.low;
		else if (!st && s.high) st = (both.high = vk_bitmap_copy(s.high)) ? VK_OK : VK_E_NOMEM;
		if (!st && j > 0) {
			struct vk_span below = {0};
			if (at[j - 1].low)
				st = (below.low = vk_bitmap_copy(at[j - 1].low)) ? VK_OK : VK_E_NOMEM;
			if (!st && is_exact(&at[j - 1])) below.high = below.low;
			else if (!st && at[j - 1].high)
				st = (below.high = vk_bitmap_copy(at[j - 1].high)) ? VK_OK : VK_E_NOMEM;
			if (!st) st = span_and(&both, &below);
			else vk_span_free(&below);
		}
		if (!st) st = span_or(&at[j], &both);
		else vk_span_free(&both);
	}
	vk_span_free(&s);
	return st;
}

static enum vk_status fold_min_should(struct fold *x, const struct vk_filter *f, struct vk_span *out)
{
	const struct vk_cond_list *l = &f->min_should;
	size_t k = f->min_count > l->n ? 0 : (size_t)f->min_count;
	*out = (struct vk_span){0};
	if (k * l->n > MIN_SHOULD_WORK) return VK_OK;
	struct vk_span *at = calloc(k + 1, sizeof *at);
	enum vk_status st = at ? VK_OK : VK_E_NOMEM;
	for (size_t j = 0; j < k + 1 && !st; j++)
		st = (at[j].low = at[j].high = vk_bitmap_new()) ? VK_OK : VK_E_NOMEM;
	for (size_t i = 0; i < l->n && k && !st; i++) st = count_cond(x, &l->v[i], at, k);
	if (!st) { /* more than there are: at[k] is nobody */
		struct vk_span *answer = &at[k ? k - 1 : 0];
		*out = *answer;
		*answer = (struct vk_span){0};
	}
	for (size_t j = 0; at && j < k + 1; j++) vk_span_free(&at[j]);
	free(at);
	return st;
}

static enum vk_status fold_filter(struct fold *x, const struct vk_filter *f, struct vk_span *out)
{
	struct vk_span s = {0};
	*out = (struct vk_span){0};
	enum vk_status st = fold_all(x, f, out);
	if (!st && f->should.n) {
		st = fold_any(x, &f->should, &s);
		if (!st) st = span_and(out, &s);
	}
	if (!st && f->has_min_should) {
		st = fold_min_should(x, f, &s);
		if (!st) st = span_and(out, &s);
	}
	vk_span_free(&s);
	if (st) vk_span_free(out);
	return st;
}

/* --- reading what is left --- */

#define READ_BATCH 1024
#define STOP_EVERY 64 /* payloads of 32 MiB take 20 ms each */
#define PAYLOAD_ARENA_MAX ((size_t)256 << 20)

struct reading {
	struct vk_view *v;
	const struct vk_filter *f;
	struct vk_arena arena;
	struct vk_buf text;
	struct vk_bytes *key; /* first steps of the filter's paths: only these members are parsed */
	size_t key_n, key_cap;
	struct vk_bitmap *has[VK_VECTORS_MAX]; /* by place in the config; NULL: not looked up yet */
	uint32_t slot;
	enum vk_status st;
};

static void add_key(struct reading *r, struct vk_bytes key)
{
	for (size_t i = 0; i < r->key_n; i++)
		if (vk_bytes_eq(r->key[i], key)) return;
	if (r->key_n == r->key_cap) {
		size_t cap = r->key_cap ? 2 * r->key_cap : 16;
		struct vk_bytes *k = realloc(r->key, cap * sizeof *k);
		if (!k) {
			r->st = VK_E_NOMEM;
			return;
		}
		r->key = k;
		r->key_cap = cap;
	}
	r->key[r->key_n++] = key;
}

static void gather_keys(struct reading *r, const struct vk_filter *f)
{
	const struct vk_cond_list *const lists[] = {&f->must, &f->must_not, &f->should, &f->min_should};
	for (size_t i = 0; i < 4; i++)
		for (size_t j = 0; j < lists[i]->n && !r->st; j++) {
			const struct vk_cond *c = &lists[i]->v[j];
			if (c->path)
				add_key(r, c->path->step[0].key); /* a nested filter's keys lie below it */
			else if (c->kind == VK_C_FILTER && c->filter) gather_keys(r, c->filter);
		}
}

static bool is_wanted(const struct reading *r, struct vk_bytes quoted)
{
	if (memchr(quoted.p, '\\', quoted.n)) return true; /* escaped: parsing will tell */
	struct vk_bytes key = {quoted.p + 1, quoted.n - 2};
	for (size_t i = 0; i < r->key_n; i++)
		if (vk_bytes_eq(r->key[i], key)) return true;
	return false;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/* The payload's text with the wanted members alone: most of a payload is text that no filter reads. */
static struct vk_bytes cut(struct reading *r, struct vk_bytes payload)
{
	struct vk_jt_walk w;
	struct vk_jt_item item;
	r->text.n = 0;
	while (payload.n && is_space(payload.p[0])) payload.p++, payload.n--;
	while (payload.n && is_space(payload.p[payload.n - 1])) payload.n--;
	if (!vk_jt_open(&w, payload) || !w.object) return payload;
	vk_buf_putc(&r->text, '{');
	while (vk_jt_next(&w, &item)) {
		if (!is_wanted(r, item.key)) continue;
		if (r->text.n > 1) vk_buf_putc(&r->text, ',');
		vk_buf_put(&r->text, item.whole.p, item.whole.n);
	}
	vk_buf_putc(&r->text, '}');
	return w.bad || r->text.failed ? payload : vk_buf_bytes(&r->text);
}

static bool point_has_vector(void *arg, struct vk_bytes name)
{
	struct reading *r = arg;
	const struct vk_vector_conf *conf = vk_colconf_named(r->v->conf, name);
	if (!conf) return false;
	size_t i = (size_t)(conf - r->v->conf->vectors);
	if (!r->has[i] && !r->st) r->st = vk_field_has_set(r->v->t, conf->set.id, &r->has[i]);
	return r->has[i] && vk_bitmap_has(r->has[i], r->slot);
}

static bool read_matches(struct reading *r, uint32_t slot)
{
	struct vk_point point;
	struct vk_json *doc = NULL;
	struct vk_filter_point p = {.has_vector = point_has_vector, .arg = r};
	r->slot = slot;
	r->st = vk_view_point(r->v, slot, &point);
	if (r->st) return false;
	if (point.payload.n && r->f->reads_payload)
		r->st = vk_json_parse(&r->arena, cut(r, point.payload), NULL, &doc, NULL);
	p.id = point.id;
	p.payload = doc ? vk_json_root(doc) : NULL;
	bool matches = !r->st && vk_filter_match(r->f, &p);
	vk_json_free(doc);
	vk_arena_reset(&r->arena);
	return matches && !r->st;
}

/* Adds those of `from` that match to `into`. */
static enum vk_status read_points(struct vk_view *v, const struct vk_filter *f, const struct vk_bitmap *from,
				  struct vk_bitmap *into)
{
	struct reading r = {.v = v, .f = f};
	uint32_t slots[READ_BATCH], found[READ_BATCH];
	size_t n = 1, found_n;
	vk_arena_init(&r.arena, PAYLOAD_ARENA_MAX);
	vk_buf_init(&r.text, PAYLOAD_ARENA_MAX);
	gather_keys(&r, f);
	for (uint64_t next = 0; n && next <= UINT32_MAX && !r.st; next = n ? (uint64_t)slots[n - 1] + 1 : 0) {
		n = vk_bitmap_take(from, (uint32_t)next, slots, READ_BATCH);
		found_n = 0;
		for (size_t i = 0; i < n && !r.st; i++) {
			if (i % STOP_EVERY == 0 && vk_view_stopped(v)) r.st = VK_E_CANCELLED;
			else if (read_matches(&r, slots[i])) found[found_n++] = slots[i];
		}
		vk_bitmap_add_many(into, found, found_n);
	}
	for (size_t i = 0; i < VK_VECTORS_MAX; i++) vk_bitmap_free(r.has[i]);
	free(r.key);
	vk_buf_free(&r.text);
	vk_arena_free(&r.arena);
	return r.st;
}

/* --- the door --- */

static enum vk_status fold_begin(struct vk_view *v, struct fold *x)
{
	*x = (struct fold){.v = v};
	enum vk_status st = vk_view_live(v, &x->live);
	if (st) return st;
	uint64_t points = vk_view_points(v);
	x->live_n = vk_bitmap_count(x->live);
	x->excess = points > x->live_n ? points - x->live_n : 0;
	return VK_OK;
}

/* low and high as found; the answer is low and what reading adds. */
static enum vk_status settle(struct fold *x, const struct vk_filter *f, struct vk_span *s,
			     struct vk_bitmap **out)
{
	if (is_exact(s)) {
		vk_bitmap_and(s->low, x->live);
		*out = s->low;
		*s = (struct vk_span){0};
		return VK_OK;
	}
	if (!s->low) s->low = vk_bitmap_new();
	if (!s->high) s->high = vk_bitmap_copy(x->live);
	if (!s->low || !s->high) return VK_E_NOMEM;
	vk_bitmap_and(s->low, x->live);
	vk_bitmap_and(s->high, x->live);
	vk_bitmap_andnot(s->high, s->low);
	enum vk_status st = read_points(x->v, f, s->high, s->low);
	if (st) return st;
	*out = s->low;
	s->low = NULL;
	return VK_OK;
}

enum vk_status vk_filter_bitmap(struct vk_view *v, const struct vk_filter *f, struct vk_bitmap **out,
				struct vk_error *err)
{
	struct fold x;
	struct vk_span s = {0};
	*out = NULL;
	enum vk_status st = fold_begin(v, &x);
	if (!st && !f) {
		*out = vk_bitmap_copy(x.live);
		st = *out ? VK_OK : VK_E_NOMEM;
	} else if (!st) {
		st = fold_filter(&x, f, &s);
		if (!st) st = settle(&x, f, &s, out);
	}
	vk_span_free(&s);
	if (!st && vk_bitmap_failed(*out)) {
		vk_bitmap_free(*out);
		*out = NULL;
		st = VK_E_NOMEM;
	}
	return st ? vk_fail(err, st, "the filter could not be answered: %s", vk_status_text(st)) : VK_OK;
}

enum vk_status vk_filter_estimate(struct vk_view *v, const struct vk_filter *f, struct vk_cardinality *out)
{
	struct fold x;
	enum vk_status st = fold_begin(v, &x);
	if (st) return st;
	*out = (struct vk_cardinality){x.live_n, x.live_n, x.live_n};
	return f ? vk_estimate_filter(v, f, x.live_n, x.excess, out) : VK_OK;
}
