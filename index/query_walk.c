/* Answers without a score: points in the order of their ids, of a field, or of chance; and the order of equals. */
#include <stdlib.h>

#include "base/hash.h"
#include "index/id.h"
#include "index/query_parts.h"

#define FEW_DIVISOR 16 /* ids of fewer than 1 in 16 points are sorted; of more, the table of ids is walked */
#define STOP_EVERY 1024

static bool stopped(const struct vk_view *v, const struct vk_query_env *env)
{
	return vk_view_stopped(v) || (env && env->stop && atomic_load_explicit(env->stop, memory_order_relaxed));
}

/* --- lists --- */

bool vk_found_add(struct vk_found_list *l, const struct vk_found *f)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 16;
		struct vk_found *p = realloc(l->p, cap * sizeof *p);
		if (!p) return false;
		l->p = p;
		l->cap = cap;
	}
	l->p[l->n++] = *f;
	return true;
}

void vk_found_free(struct vk_found_list *l)
{
	free(l->p);
	*l = (struct vk_found_list){0};
}

void vk_found_window(struct vk_found_list *l, size_t offset, size_t limit)
{
	if (offset > l->n) offset = l->n;
	l->n -= offset;
	if (offset && l->n) memmove(l->p, l->p + offset, l->n * sizeof *l->p);
	if (l->n > limit) l->n = limit;
}

bool vk_scope_out(const struct vk_scope *s, uint32_t slot)
{
	for (size_t i = 0; i < s->out_n && s->out[i] <= slot; i++)
		if (s->out[i] == slot) return true;
	return false;
}

/* --- equals go by id --- */

struct keyed {
	struct vk_bytes id;
	struct vk_found f;
};

static int by_id(const void *a, const void *b)
{
	return vk_id_compare(((const struct keyed *)a)->id, ((const struct keyed *)b)->id);
}

static enum vk_status sort_run(struct vk_view *v, struct vk_found *p, size_t n, bool down)
{
	struct keyed *k = malloc(n * sizeof *k);
	struct vk_point at;
	enum vk_status st = k ? VK_OK : VK_E_NOMEM;
	for (size_t i = 0; !st && i < n; i++) {
		if ((st = vk_view_point(v, p[i].slot, &at))) break;
		k[i] = (struct keyed){at.id, p[i]};
	}
	if (!st) {
		qsort(k, n, sizeof *k, by_id);
		for (size_t i = 0; i < n; i++) p[down ? n - 1 - i : i] = k[i].f;
	}
	free(k);
	return st;
}

enum vk_status vk_found_ties(struct vk_view *v, struct vk_found_list *l, size_t limit, bool down,
			     bool (*same)(const struct vk_found *a, const struct vk_found *b))
{
	enum vk_status st = VK_OK;
	for (size_t i = 0, end; !st && i < l->n && i < limit; i = end) {
		for (end = i + 1; end < l->n && same(&l->p[i], &l->p[end]);) end++;
		if (end - i > 1) st = sort_run(v, l->p + i, end - i, down);
	}
	return st;
}

/* --- by id --- */

struct scroll {
	struct vk_view *v;
	const struct vk_scope *s;
	struct vk_bytes from;
	const struct vk_query_env *env;
	struct vk_found_list *out;
	size_t take, seen;
	enum vk_status st;
};

static bool keep(struct scroll *w, uint32_t slot)
{
	if (++w->seen % STOP_EVERY == 0 && stopped(w->v, w->env)) w->st = VK_E_CANCELLED;
	else if (!vk_found_add(w->out, &(struct vk_found){.slot = slot, .score = 1})) w->st = VK_E_NOMEM;
	return !w->st;
}

static bool next_id(void *arg, uint32_t slot, struct vk_bytes id)
{
	struct scroll *w = arg;
	(void)id;
	if (!vk_scope_has(w->s, slot)) {
		if (++w->seen % STOP_EVERY == 0 && stopped(w->v, w->env)) w->st = VK_E_CANCELLED;
		return !w->st;
	}
	return keep(w, slot) && w->out->n < w->take;
}

static bool next_slot(void *arg, uint32_t slot)
{
	struct scroll *w = arg;
	struct vk_point at;
	if (vk_scope_out(w->s, slot)) return true;
	if (w->from.n) {
		if ((w->st = vk_view_point(w->v, slot, &at))) return false;
		if (vk_id_compare(at.id, w->from) < 0) return true;
	}
	return keep(w, slot);
}

static bool all_same(const struct vk_found *a, const struct vk_found *b)
{
	(void)a, (void)b;
	return true;
}

enum vk_status vk_query_scroll(struct vk_view *v, const struct vk_scope *s, struct vk_bytes from, size_t take,
			       const struct vk_query_env *env, struct vk_found_list *out)
{
	struct scroll w = {.v = v, .s = s, .from = from, .env = env, .out = out, .take = take};
	if (!take || vk_bitmap_empty(s->in)) return VK_OK;
	if (vk_bitmap_count(s->in) < vk_view_points(v) / FEW_DIVISOR) {
		vk_bitmap_each(s->in, next_slot, &w);
		if (!w.st) w.st = vk_found_ties(v, out, SIZE_MAX, false, all_same);
		if (!w.st) vk_found_window(out, 0, take);
		return w.st;
	}
	enum vk_status st = vk_view_scroll(v, from, next_id, &w);
	return w.st ? w.st : st;
}

/* --- by a field --- */

struct order {
	struct vk_view *v;
	const struct vk_scope *s;
	const struct vk_query_env *env;
	struct vk_found_list *out;
	size_t take, seen;
	enum vk_status st;
};

static bool same_value(const struct vk_found *a, const struct vk_found *b)
{
	return a->order.is_i64 ? a->order.i64 == b->order.i64 : a->order.f64 == b->order.f64;
}

/* Goes on to the end of a run of equals: which of them count is up to their ids. */
static bool next_value(void *arg, const struct vk_order_value *value, uint32_t slot)
{
	struct order *w = arg;
	struct vk_found f = {.slot = slot, .score = 1, .has_order = true, .order = *value};
	if (++w->seen % STOP_EVERY == 0 && stopped(w->v, w->env)) w->st = VK_E_CANCELLED;
	if (w->st) return false;
	if (w->out->n >= w->take && !same_value(&w->out->p[w->out->n - 1], &f)) return false;
	if (!vk_scope_has(w->s, slot)) return true;
	if (!vk_found_add(w->out, &f)) w->st = VK_E_NOMEM;
	return !w->st;
}

enum vk_status vk_query_order(struct vk_view *v, const struct vk_scope *s, const struct vk_order_by *o, size_t take,
			      const struct vk_query_env *env, struct vk_found_list *out)
{
	struct order w = {.v = v, .s = s, .env = env, .out = out, .take = take};
	if (!take || vk_bitmap_empty(s->in)) return VK_OK;
	enum vk_status st = vk_field_order(v->t, o->field, o->descending, o->has_start ? &o->start : NULL, next_value, &w);
	if (w.st || st) return w.st ? w.st : st;
	st = vk_found_ties(v, out, take, o->descending, same_value);
	vk_found_window(out, 0, take);
	return st;
}

/* --- by chance --- */

/* The first `take` places of a shuffle (Fisher-Yates): every selection and order is as likely as any other. */
enum vk_status vk_query_sample(const struct vk_scope *s, uint64_t seed, size_t take, struct vk_found_list *out)
{
	size_t n = vk_bitmap_count(s->in), kept = 0;
	if (!n || !take) return VK_OK;
	uint32_t *slot = malloc(n * sizeof *slot);
	enum vk_status st = slot ? VK_OK : VK_E_NOMEM;
	if (!st) n = vk_bitmap_take(s->in, 0, slot, n);
	for (size_t i = 0; !st && i < n && kept < take; i++) {
		size_t j = i + (size_t)(((unsigned __int128)vk_rng(&seed) * (n - i)) >> 64);
		uint32_t picked = slot[j];
		slot[j] = slot[i];
		if (vk_scope_out(s, picked)) continue;
		if (!vk_found_add(out, &(struct vk_found){.slot = picked, .score = 1})) st = VK_E_NOMEM;
		kept++;
	}
	free(slot);
	return st;
}
