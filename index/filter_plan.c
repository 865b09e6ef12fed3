/*
 * One condition by its index: which points surely match (low), and which may (high).
 *
 * An index holds the values of its own type. A value of another type puts the point among `other`, so an
 * answer stays exact over mixed payloads: what `other` holds is looked at in the payload, and that set is
 * mostly empty. The same with long keywords, which are found by hash, and with the rim of a geo shape:
 * candidates, not answers.
 *
 * Not taken: a bitmap per comparison (range-encoded slices). It makes ranges over numbers with millions of
 * different values cheaper, and each write touches 64 bitmaps.
 */
#include "index/filter_plan.h"

#include "index/field_read.h"
#include "index/id.h"

void vk_span_free(struct vk_span *s)
{
	if (s->high != s->low) vk_bitmap_free(s->high);
	vk_bitmap_free(s->low);
	*s = (struct vk_span){0};
}

const struct vk_field_conf *vk_plan_field(const struct vk_view *v, const struct vk_cond *c)
{
	const struct vk_field_conf *f = c->path ? vk_colconf_field(v->conf, c->path->text) : NULL;
	return f && f->ready ? f : NULL;
}

/* --- a condition being gathered: `sure` and `maybe` --- */

struct plan {
	struct vk_view *v;
	const struct vk_bitmap *live;
	const struct vk_cond *c;
	const struct vk_field_conf *f;
	struct vk_bitmap *sure, *maybe;
	struct vk_gather *gather_sure, *gather_maybe; /* walks over values only */
	enum vk_status st;
	uint64_t until; /* GEO: last code of the range */
	uint32_t seen;  /* values walked over */
};

static void take_kind(struct plan *p, struct vk_bitmap *into, uint8_t kind)
{
	if (!p->st) p->st = vk_field_or(p->v->t, p->f->field, kind, (struct vk_bytes){0}, into);
}

static void take_value(struct plan *p, struct vk_bitmap *into, const struct vk_fv *v)
{
	if (!p->st) p->st = vk_field_or(p->v->t, p->f->field, v->kind, vk_fv_bytes(v), into);
}

/* Any point with a value: nothing better is known. */
static void maybe_all(struct plan *p)
{
	take_kind(p, p->maybe, VK_FK_ANY);
	take_kind(p, p->maybe, VK_FK_OTHER);
}

/* --- match --- */

static void match_text(struct plan *p, struct vk_bytes s)
{
	struct vk_fv v;
	uint8_t uuid[16];
	int64_t us;
	switch (p->f->type) {
	case VK_FIELD_KEYWORD:
		vk_fv_keyword(&v, s);
		take_value(p, v.kind == VK_FK_KEYWORD ? p->sure : p->maybe, &v);
		break;
	case VK_FIELD_UUID: /* a UUID has several texts */
		if (!vk_uuid_parse(s, uuid)) {
			take_kind(p, p->maybe, VK_FK_OTHER);
			break;
		}
		vk_fv_uuid(&v, uuid);
		take_value(p, p->maybe, &v);
		break;
	case VK_FIELD_DATETIME: /* so has a time */
		if (!vk_datetime_parse(s, &us)) {
			take_kind(p, p->maybe, VK_FK_OTHER);
			break;
		}
		vk_fv_i64(&v, us);
		take_value(p, p->maybe, &v);
		break;
	case VK_FIELD_TEXT: take_kind(p, p->maybe, VK_FK_ANY); break;
	default: take_kind(p, p->maybe, VK_FK_OTHER);
	}
}

static void match_integer(struct plan *p, int64_t i)
{
	struct vk_fv v;
	if (p->f->type == VK_FIELD_INTEGER) {
		vk_fv_i64(&v, i);
		take_value(p, p->sure, &v);
	} else if (p->f->type == VK_FIELD_FLOAT) { /* 1.0 is no integer, and large ones round */
		vk_fv_f64(&v, (double)i);
		take_value(p, p->maybe, &v);
	}
}

static void match_bool(struct plan *p, bool b)
{
	struct vk_fv v;
	vk_fv_bool(&v, b);
	if (p->f->type == VK_FIELD_BOOL) take_value(p, p->sure, &v);
}

static void plan_match(struct plan *p)
{
	const struct vk_value_list *l = &p->c->list;
	bool number = p->f->type == VK_FIELD_INTEGER || p->f->type == VK_FIELD_FLOAT;
	for (size_t i = 0; i < l->str_n && !p->st; i++) match_text(p, l->str[i]);
	for (size_t i = 0; i < l->i64_n && !p->st; i++) match_integer(p, l->i64[i]);
	if (l->no) match_bool(p, false);
	if (l->yes) match_bool(p, true);
	bool elsewhere = (l->i64_n && !number) || ((l->yes || l->no) && p->f->type != VK_FIELD_BOOL);
	if (elsewhere) take_kind(p, p->maybe, VK_FK_OTHER);
}

/* Points of `any` without a value of the list match; those with one may have another one, if they have
 * several, and a long keyword is only found by its hash. */
static void except_indexed(struct plan *p)
{
	struct vk_bitmap *in = vk_bitmap_new(), *hashed = vk_bitmap_new(), *multi = vk_bitmap_new();
	struct plan match = {.v = p->v, .c = p->c, .f = p->f, .sure = in, .maybe = hashed};
	if (!in || !hashed || !multi) p->st = VK_E_NOMEM;
	if (!p->st) plan_match(&match);
	if (!p->st) p->st = match.st;
	take_kind(p, p->sure, VK_FK_ANY);
	if (!p->st) take_kind(p, multi, VK_FK_MULTI);
	if (!p->st) {
		vk_bitmap_andnot(p->sure, in);
		vk_bitmap_andnot(p->sure, hashed);
		vk_bitmap_and(in, multi);
		vk_bitmap_or(p->maybe, in);
		vk_bitmap_or(p->maybe, hashed);
	}
	take_kind(p, p->sure, VK_FK_OTHER); /* a value of another type is not in the list */
	vk_bitmap_free(in);
	vk_bitmap_free(hashed);
	vk_bitmap_free(multi);
}

static void plan_except(struct plan *p)
{
	const struct vk_value_list *l = &p->c->list;
	enum vk_field_type t = p->f->type;
	bool text =
	    t == VK_FIELD_KEYWORD || t == VK_FIELD_TEXT || t == VK_FIELD_UUID || t == VK_FIELD_DATETIME;
	bool number = t == VK_FIELD_INTEGER || t == VK_FIELD_FLOAT;
	bool foreign = text	? !l->str_n
		       : number ? !l->i64_n
				: true; /* no value of this type can be in the list */
	if ((t == VK_FIELD_KEYWORD && !l->i64_n) || (t == VK_FIELD_INTEGER && !l->str_n)) {
		except_indexed(p);
		return;
	}
	take_kind(p, foreign ? p->sure : p->maybe, VK_FK_ANY);
	take_kind(p, p->maybe, VK_FK_OTHER);
}

/* --- walks over values --- */

#define STOP_EVERY 1024

/* Another value: is there time for it? */
static bool may_go_on(struct plan *p)
{
	if (++p->seen % STOP_EVERY == 0 && vk_view_stopped(p->v)) p->st = VK_E_CANCELLED;
	return !p->st;
}

static bool walk_number(void *arg, const struct vk_field_key_parts *k, struct vk_bytes chunk)
{
	struct plan *p = arg;
	const struct vk_bounds *r = &p->c->range;
	double v = k->kind == VK_FK_I64 ? (double)vk_fv_read_i64(k->value) : vk_fv_read_f64(k->value);
	if ((r->has_lt && v >= r->lt) || (r->has_lte && v > r->lte)) return false;
	if (vk_cond_number(p->c, v)) vk_gather_chunk(p->gather_sure, k->chunk, chunk);
	return !p->gather_sure->st && may_go_on(p);
}

static bool walk_time(void *arg, const struct vk_field_key_parts *k, struct vk_bytes chunk)
{
	struct plan *p = arg;
	const struct vk_time_bounds *r = &p->c->time;
	int64_t v = vk_fv_read_i64(k->value);
	if ((r->has_lt && v >= r->lt) || (r->has_lte && v > r->lte)) return false;
	if (vk_cond_time(p->c, v)) vk_gather_chunk(p->gather_sure, k->chunk, chunk);
	return !p->gather_sure->st && may_go_on(p);
}

static bool walk_text(void *arg, const struct vk_field_key_parts *k, struct vk_bytes chunk)
{
	struct plan *p = arg;
	struct vk_bytes text = vk_fv_read_keyword(k->value), prefix = p->c->text;
	bool past =
	    p->c->kind == VK_C_PREFIX && memcmp(text.p, prefix.p, text.n < prefix.n ? text.n : prefix.n) > 0;
	if (past) return false;
	if (vk_cond_text(p->c, text)) vk_gather_chunk(p->gather_sure, k->chunk, chunk);
	return !p->gather_sure->st && may_go_on(p);
}

static bool walk_all_maybe(void *arg, const struct vk_field_key_parts *k, struct vk_bytes chunk)
{
	struct plan *p = arg;
	vk_gather_chunk(p->gather_maybe, k->chunk, chunk);
	return !p->gather_maybe->st && may_go_on(p);
}

static bool walk_geo(void *arg, const struct vk_field_key_parts *k, struct vk_bytes chunk)
{
	struct plan *p = arg;
	uint64_t code = vk_get_u64be((const uint8_t *)k->value.p);
	if (code > p->until) return false;
	switch (vk_geo_cell(&p->c->geo, code)) {
	case VK_GEO_ALL: vk_gather_chunk(p->gather_sure, k->chunk, chunk); break;
	case VK_GEO_SOME: vk_gather_chunk(p->gather_maybe, k->chunk, chunk); break;
	case VK_GEO_NONE: break;
	}
	return !p->gather_sure->st && !p->gather_maybe->st && may_go_on(p);
}

static void walk(struct plan *p, uint8_t kind, struct vk_bytes from, vk_field_scan_fn *fn)
{
	if (!p->st) p->st = vk_field_scan(p->v->t, p->f->field, kind, from, fn, p);
}

/* The least stored value that can satisfy the bounds, so that the walk begins there. */
static void plan_range(struct plan *p)
{
	const struct vk_bounds *r = &p->c->range;
	struct vk_fv from = {0};
	double low = r->has_gt && r->has_gte ? (r->gt > r->gte ? r->gt : r->gte) : r->has_gt ? r->gt : r->gte;
	bool has = r->has_gt || r->has_gte;
	if (p->f->type == VK_FIELD_FLOAT) {
		if (has) vk_fv_f64(&from, low);
		walk(p, VK_FK_F64, vk_fv_bytes(&from), walk_number);
	} else if (p->f->type == VK_FIELD_INTEGER) { /* compared as f64: 2048 more than covers the rounding */
		if (has && low >= 0x1p63) vk_fv_i64(&from, INT64_MAX - 2048);
		else if (has && low > -0x1p62) vk_fv_i64(&from, (int64_t)low - 2048);
		walk(p, VK_FK_I64, vk_fv_bytes(&from), walk_number);
		take_kind(p, p->maybe, VK_FK_OTHER);
	} else {
		take_kind(p, p->maybe, VK_FK_OTHER);
	}
}

static void plan_time(struct plan *p)
{
	const struct vk_time_bounds *r = &p->c->time;
	struct vk_fv from = {0};
	if (p->f->type == VK_FIELD_DATETIME) {
		int64_t low = r->has_gt && r->has_gte ? (r->gt > r->gte ? r->gt : r->gte)
			      : r->has_gt	      ? r->gt
						      : r->gte;
		if (r->has_gt || r->has_gte) vk_fv_i64(&from, low);
		walk(p, VK_FK_I64, vk_fv_bytes(&from), walk_time);
		return;
	}
	if (p->f->type == VK_FIELD_KEYWORD || p->f->type == VK_FIELD_TEXT) take_kind(p, p->maybe, VK_FK_ANY);
	else take_kind(p, p->maybe, VK_FK_OTHER);
}

static void plan_text(struct plan *p)
{
	switch (p->f->type) {
	case VK_FIELD_KEYWORD: {
		struct vk_bytes from = p->c->kind == VK_C_PREFIX ? p->c->text : (struct vk_bytes){0};
		if (from.n <= VK_FV_KEYWORD_MAX) walk(p, VK_FK_KEYWORD, from, walk_text);
		walk(p, VK_FK_KEYWORD_HASH, (struct vk_bytes){0}, walk_all_maybe);
		break;
	}
	case VK_FIELD_TEXT: take_kind(p, p->maybe, VK_FK_ANY); break;
	case VK_FIELD_UUID:
	case VK_FIELD_DATETIME: maybe_all(p); break;
	default: take_kind(p, p->maybe, VK_FK_OTHER);
	}
}

static void plan_geo(struct plan *p)
{
	struct vk_geo_range range[VK_GEO_RANGES_MAX];
	if (p->f->type == VK_FIELD_GEO) {
		size_t n = vk_geo_cover(&p->c->geo, range);
		for (size_t i = 0; i < n && !p->st; i++) {
			uint8_t from[8];
			vk_put_u64be(from, range[i].first);
			p->until = range[i].last;
			walk(p, VK_FK_GEO, (struct vk_bytes){(char *)from, 8}, walk_geo);
		}
	}
	take_kind(p, p->maybe, VK_FK_OTHER); /* places off the map, too */
}

/* --- what a key reaches --- */

static void minus_of_live(struct plan *p, struct vk_bitmap *of)
{
	struct vk_bitmap *rest = p->st ? NULL : vk_bitmap_copy(p->live);
	if (!rest) {
		p->st = p->st ? p->st : VK_E_NOMEM;
		return;
	}
	vk_bitmap_andnot(rest, of);
	vk_bitmap_or(p->sure, rest);
	vk_bitmap_free(rest);
}

static void plan_empty(struct plan *p)
{
	if (!p->c->want) {
		take_kind(p, p->sure, VK_FK_EXISTS);
		return;
	}
	struct vk_bitmap *exists = vk_bitmap_new();
	if (!exists) p->st = VK_E_NOMEM;
	take_kind(p, exists, VK_FK_EXISTS);
	minus_of_live(p, exists);
	vk_bitmap_free(exists);
}

static void plan_null(struct plan *p)
{
	if (p->c->want) {
		take_kind(p, p->sure, VK_FK_NULL);
		return;
	}
	struct vk_bitmap *null = vk_bitmap_new();
	if (!null) p->st = VK_E_NOMEM;
	take_kind(p, null, VK_FK_NULL);
	minus_of_live(p, null);
	vk_bitmap_free(null);
}

/* A point that does not exist for is_empty has no values at all: its count is 0, whatever it reaches. */
static void plan_count(struct plan *p)
{
	struct vk_bitmap *exists = vk_bitmap_new();
	if (!exists) p->st = VK_E_NOMEM;
	take_kind(p, exists, VK_FK_EXISTS);
	if (!p->st && vk_cond_count(p->c, 0)) minus_of_live(p, exists);
	if (!p->st) vk_bitmap_or(p->maybe, exists);
	vk_bitmap_free(exists);
}

/* --- the point --- */

static void plan_ids(struct plan *p)
{
	for (size_t i = 0; i < p->c->ids.n && !p->st; i++) {
		uint32_t slot;
		enum vk_status st = vk_view_slot(p->v, p->c->ids.key[i], &slot);
		if (!st) vk_bitmap_add(p->sure, slot);
		else if (st != VK_E_NOT_FOUND) p->st = st;
	}
}

static void plan_vector(struct plan *p)
{
	const struct vk_vector_conf *conf = vk_colconf_named(p->v->conf, p->c->text);
	struct vk_bitmap *has;
	if (!conf) return;
	p->st = vk_field_has_set(p->v->t, conf->set.id, &has);
	if (p->st) return;
	vk_bitmap_or(p->sure, has);
	vk_bitmap_free(has);
}

static void (*const planners[])(struct plan *p) = {
    [VK_C_MATCH] = plan_match,
    [VK_C_EXCEPT] = plan_except,
    [VK_C_TEXT] = plan_text,
    [VK_C_TEXT_ANY] = plan_text,
    [VK_C_PHRASE] = plan_text,
    [VK_C_PREFIX] = plan_text,
    [VK_C_SUBSTRING] = plan_text,
    [VK_C_RANGE] = plan_range,
    [VK_C_TIME] = plan_time,
    [VK_C_GEO] = plan_geo,
    [VK_C_VALUES_COUNT] = plan_count,
    [VK_C_EMPTY] = plan_empty,
    [VK_C_NULL] = plan_null,
    [VK_C_NESTED] = NULL,
    [VK_C_ID] = plan_ids,
    [VK_C_VECTOR] = plan_vector,
    [VK_C_SLICE] = NULL,
    [VK_C_FILTER] = NULL,
};

static enum vk_status run(struct plan *p)
{
	struct vk_gather sure = {.into = p->sure}, maybe = {.into = p->maybe};
	p->gather_sure = &sure;
	p->gather_maybe = &maybe;
	planners[p->c->kind](p);
	enum vk_status st_sure = vk_gather_end(&sure), st_maybe = vk_gather_end(&maybe);
	return p->st ? p->st : st_sure ? st_sure : st_maybe;
}

enum vk_status vk_plan_cond(struct vk_view *v, const struct vk_bitmap *live, const struct vk_cond *c,
			    struct vk_span *out)
{
	struct plan p = {.v = v, .live = live, .c = c, .f = vk_plan_field(v, c)};
	*out = (struct vk_span){0};
	bool point = c->kind == VK_C_ID || c->kind == VK_C_VECTOR;
	if (!planners[c->kind] || (!p.f && !point)) return VK_OK;
	p.sure = vk_bitmap_new();
	p.maybe = vk_bitmap_new();
	enum vk_status st = p.sure && p.maybe ? run(&p) : VK_E_NOMEM;
	if (st) {
		vk_bitmap_free(p.sure);
		vk_bitmap_free(p.maybe);
		return st;
	}
	vk_bitmap_andnot(p.maybe, p.sure);
	if (vk_bitmap_empty(p.maybe)) {
		vk_bitmap_free(p.maybe);
		p.maybe = p.sure;
	} else {
		vk_bitmap_or(p.maybe, p.sure);
	}
	*out = (struct vk_span){p.sure, p.maybe};
	return VK_OK;
}
