/*
 * How many points a filter will leave, from indexes alone. min and max are certain; likely takes conditions
 * as independent and values as evenly spread where counting them all would cost too much.
 */
#include "index/filter_plan.h"

#include <math.h>
#include <stdlib.h>

#include "index/field_read.h"
#include "index/id.h"

#define WALK_MAX 512   /* chunks that an estimate looks at in one condition */
#define VALUES_MAX 256 /* values of a list that are counted */
#define GUESS 10       /* without knowledge: every tenth */

struct estimate {
	struct vk_view *v;
	const struct vk_cond *c;
	const struct vk_field_conf *f;
	uint64_t any, other, exists; /* points, expired ones included */
	uint64_t sure_sum, sure_max, maybe_sum;
	enum vk_status st;
};

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t count_kind(struct estimate *e, uint8_t kind)
{
	uint64_t n = 0;
	if (!e->st) e->st = vk_field_count(e->v->t, e->f->field, kind, (struct vk_bytes){0}, &n);
	return n;
}

static uint64_t count_value(struct estimate *e, const struct vk_fv *v)
{
	uint64_t n = 0;
	if (!e->st) e->st = vk_field_count(e->v->t, e->f->field, v->kind, vk_fv_bytes(v), &n);
	return n;
}

static void add_sure(struct estimate *e, uint64_t n)
{
	e->sure_sum += n;
	if (n > e->sure_max) e->sure_max = n;
}

static struct vk_cardinality within(uint64_t min, uint64_t likely, uint64_t max)
{
	min = least(min, max);
	return (struct vk_cardinality){min, likely < min ? min : least(likely, max), max};
}

/* --- lists of values --- */

static void count_match(struct estimate *e)
{
	const struct vk_value_list *l = &e->c->list;
	struct vk_fv v;
	bool keyword = e->f->type == VK_FIELD_KEYWORD, integer = e->f->type == VK_FIELD_INTEGER;
	for (size_t i = 0; keyword && i < l->str_n; i++) {
		vk_fv_keyword(&v, l->str[i]);
		if (v.kind == VK_FK_KEYWORD) add_sure(e, count_value(e, &v));
		else e->maybe_sum += count_value(e, &v);
	}
	for (size_t i = 0; integer && i < l->i64_n; i++) {
		vk_fv_i64(&v, l->i64[i]);
		add_sure(e, count_value(e, &v));
	}
	for (int b = 0; b < 2; b++) {
		vk_fv_bool(&v, b);
		if (e->f->type == VK_FIELD_BOOL && (b ? l->yes : l->no)) add_sure(e, count_value(e, &v));
	}
	bool foreign = (l->str_n && !keyword) || (l->i64_n && !integer) ||
		       ((l->yes || l->no) && e->f->type != VK_FIELD_BOOL);
	if (foreign) e->maybe_sum += e->other;
}

/* Can the index answer a list of this condition by counting? */
static bool is_countable(const struct estimate *e)
{
	const struct vk_value_list *l = &e->c->list;
	if (l->str_n + l->i64_n > VALUES_MAX) return false;
	switch (e->f->type) {
	case VK_FIELD_KEYWORD:
	case VK_FIELD_INTEGER:
	case VK_FIELD_BOOL: return true;
	default: return false;
	}
}

static struct vk_cardinality estimate_match(struct estimate *e)
{
	uint64_t most = e->any + e->other;
	if (!is_countable(e)) return within(0, most / GUESS, most);
	count_match(e);
	return within(e->sure_max, e->sure_sum, least(most, e->sure_sum + e->maybe_sum));
}

static struct vk_cardinality estimate_except(struct estimate *e)
{
	uint64_t most = e->any + e->other;
	if (!is_countable(e)) return within(0, most - most / GUESS, most);
	count_match(e);
	uint64_t in = e->sure_sum + e->maybe_sum;
	return within(e->any > in ? e->any - in : 0, most > in ? most - in : 0, most);
}

/* --- ranges --- */

struct tally {
	struct estimate *e;
	size_t chunks;
	bool cut; /* there is more than was looked at */
};

static bool holds(const struct vk_cond *c, const struct vk_field_key_parts *k, bool *past)
{
	if (c->kind == VK_C_TIME) {
		int64_t v = vk_fv_read_i64(k->value);
		*past = (c->time.has_lt && v >= c->time.lt) || (c->time.has_lte && v > c->time.lte);
		return vk_cond_time(c, v);
	}
	double v = k->kind == VK_FK_I64 ? (double)vk_fv_read_i64(k->value) : vk_fv_read_f64(k->value);
	*past = (c->range.has_lt && v >= c->range.lt) || (c->range.has_lte && v > c->range.lte);
	return vk_cond_number(c, v);
}

static bool tally_chunk(void *arg, const struct vk_field_key_parts *k, struct vk_bytes chunk)
{
	struct tally *t = arg;
	bool past;
	bool in = holds(t->e->c, k, &past);
	if (past) return false;
	if (t->chunks++ == WALK_MAX) {
		t->cut = true;
		return false;
	}
	if (in) add_sure(t->e, vk_bitmap_chunk_count(chunk));
	return true;
}

/* The stored value from which the bounds can hold; false: from the first. */
static bool range_start(const struct vk_cond *c, uint8_t kind, struct vk_fv *from)
{
	double low = c->range.has_gt ? c->range.gt : c->range.gte;
	if (c->kind == VK_C_TIME) {
		if (!c->time.has_gt && !c->time.has_gte) return false;
		vk_fv_i64(from, c->time.has_gt ? c->time.gt : c->time.gte);
		return true;
	}
	if (!c->range.has_gt && !c->range.has_gte) return false;
	if (kind == VK_FK_F64) vk_fv_f64(from, low);
	else if (low > -0x1p62 && low < 0x1p63) vk_fv_i64(from, (int64_t)low - 2048);
	else return false;
	return true;
}

static bool take_order_end(void *arg, const struct vk_order_value *v, uint32_t slot)
{
	double *end = arg;
	(void)slot;
	*end = v->is_i64 ? (double)v->i64 : v->f64;
	return false;
}

/* The share of [first, last] that the bounds cover, as if values were spread evenly. */
static double covered(struct estimate *e)
{
	const struct vk_cond *c = e->c;
	double first = NAN, last = NAN, low, high;
	if (!e->st) e->st = vk_field_order(e->v->t, e->f, false, NULL, take_order_end, &first);
	if (!e->st) e->st = vk_field_order(e->v->t, e->f, true, NULL, take_order_end, &last);
	if (!(last > first)) return 1;
	if (c->kind == VK_C_TIME) {
		low = c->time.has_gt ? (double)c->time.gt : c->time.has_gte ? (double)c->time.gte : first;
		high = c->time.has_lt ? (double)c->time.lt : c->time.has_lte ? (double)c->time.lte : last;
	} else {
		low = c->range.has_gt ? c->range.gt : c->range.has_gte ? c->range.gte : first;
		high = c->range.has_lt ? c->range.lt : c->range.has_lte ? c->range.lte : last;
	}
	low = fmax(low, first);
	high = fmin(high, last);
	return high <= low ? 0 : (high - low) / (last - first);
}

static struct vk_cardinality estimate_range(struct estimate *e)
{
	enum vk_field_type t = e->f->type;
	bool numbers = e->c->kind == VK_C_RANGE && (t == VK_FIELD_INTEGER || t == VK_FIELD_FLOAT);
	bool times = e->c->kind == VK_C_TIME && t == VK_FIELD_DATETIME;
	uint64_t most = e->any + e->other;
	if (!numbers && !times) return within(0, most / GUESS, most);
	struct tally tally = {.e = e};
	struct vk_fv from = {0};
	uint8_t kind = vk_field_value_kind(t);
	bool has = range_start(e->c, kind, &from);
	if (!e->st)
		e->st = vk_field_scan(e->v->t, e->f->field, kind,
				      has ? vk_fv_bytes(&from) : (struct vk_bytes){0}, tally_chunk, &tally);
	uint64_t maybe = t == VK_FIELD_INTEGER ? e->other : 0;
	if (!tally.cut) return within(e->sure_max, e->sure_sum, least(most, e->sure_sum + maybe));
	uint64_t guess = (uint64_t)((double)e->any * covered(e));
	return within(e->sure_max, guess > e->sure_max ? guess : e->sure_max, most);
}

/* --- conditions --- */

static struct vk_cardinality estimate_count(struct estimate *e, uint64_t n)
{
	uint64_t none = n > e->exists ? n - e->exists : 0;
	return vk_cond_count(e->c, 0) ? within(none, none + e->exists / GUESS, n)
				      : within(0, e->exists / 2, e->exists);
}

static struct vk_cardinality exactly(uint64_t k, bool want, uint64_t n)
{
	uint64_t is = want ? k : n > k ? n - k : 0;
	return within(is, is, is);
}

static struct vk_cardinality estimate_field(struct estimate *e, uint64_t n)
{
	e->any = count_kind(e, VK_FK_ANY);
	e->other = count_kind(e, VK_FK_OTHER);
	e->exists = count_kind(e, VK_FK_EXISTS);
	uint64_t most = e->any + e->other;
	switch (e->c->kind) {
	case VK_C_MATCH: return estimate_match(e);
	case VK_C_EXCEPT: return estimate_except(e);
	case VK_C_RANGE:
	case VK_C_TIME: return estimate_range(e);
	case VK_C_VALUES_COUNT: return estimate_count(e, n);
	case VK_C_EMPTY: return exactly(e->exists, !e->c->want, n);
	case VK_C_NULL: return exactly(count_kind(e, VK_FK_NULL), e->c->want, n);
	case VK_C_TEXT:
	case VK_C_TEXT_ANY:
	case VK_C_PHRASE:
	case VK_C_PREFIX:
	case VK_C_SUBSTRING:
	case VK_C_GEO: return within(0, most / GUESS, most);
	default: return within(0, n / GUESS, n);
	}
}

static struct vk_cardinality estimate_ids(struct estimate *e)
{
	uint64_t n = 0;
	for (size_t i = 0; i < e->c->ids.n && !e->st; i++) {
		uint32_t slot;
		enum vk_status st = vk_view_slot(e->v, e->c->ids.key[i], &slot);
		n += st == VK_OK;
		if (st && st != VK_E_NOT_FOUND) e->st = st;
	}
	return within(n, n, n);
}

static struct vk_cardinality estimate_vector(struct estimate *e)
{
	const struct vk_vector_conf *conf = vk_colconf_named(e->v->conf, e->c->text);
	uint64_t n = 0;
	uint8_t id[4];
	if (!conf) return within(0, 0, 0);
	vk_put_u32be(id, conf->set.id);
	if (!e->st) e->st = vk_field_count(e->v->t, 0, VK_FK_SET, (struct vk_bytes){(char *)id, 4}, &n);
	return within(n, n, n);
}

enum vk_status vk_estimate_cond(struct vk_view *v, const struct vk_cond *c, uint64_t n, uint64_t excess,
				struct vk_cardinality *out)
{
	struct estimate e = {.v = v, .c = c, .f = vk_plan_field(v, c)};
	if (c->kind == VK_C_FILTER) return vk_estimate_filter(v, c->filter, n, excess, out);
	if (c->kind == VK_C_ID) *out = estimate_ids(&e);
	else if (c->kind == VK_C_VECTOR) *out = estimate_vector(&e);
	else if (c->kind == VK_C_SLICE) *out = within(0, n / c->slice.total, n);
	else if (!e.f || c->kind == VK_C_NESTED) *out = within(0, n / GUESS, n);
	else *out = estimate_field(&e, n + excess);
	/* Indexes still hold points that have expired. */
	if (c->kind != VK_C_ID)
		*out = within(out->min > excess ? out->min - excess : 0, out->likely, least(out->max, n));
	return e.st;
}

/* --- the tree --- */

static enum vk_status estimate_all(struct vk_view *v, const struct vk_filter *f, uint64_t n, uint64_t excess,
				   struct vk_cardinality *out)
{
	double share = 1;
	uint64_t missing = 0,
		 max = n; /* how many points the conditions may shut out, at most, all together */
	for (size_t i = 0; i < f->must.n + f->must_not.n; i++) {
		bool negate = i >= f->must.n;
		const struct vk_cond *cond = negate ? &f->must_not.v[i - f->must.n] : &f->must.v[i];
		struct vk_cardinality c;
		enum vk_status st = vk_estimate_cond(v, cond, n, excess, &c);
		if (st) return st;
		if (negate) c = (struct vk_cardinality){n - c.max, n - c.likely, n - c.min};
		share *= n ? (double)c.likely / (double)n : 0;
		missing = least(n, missing + (n - c.min));
		max = least(max, c.max);
	}
	*out = within(n - missing, (uint64_t)llround(share * (double)n), max);
	return VK_OK;
}

/* At least k of the list. */
static enum vk_status estimate_some(struct vk_view *v, const struct vk_cond_list *l, uint64_t k, uint64_t n,
				    uint64_t excess, struct vk_cardinality *out)
{
	double none = 1, sum = 0;
	uint64_t min = 0, max = 0;
	for (size_t i = 0; i < l->n; i++) {
		struct vk_cardinality c;
		enum vk_status st = vk_estimate_cond(v, &l->v[i], n, excess, &c);
		if (st) return st;
		double share = n ? (double)c.likely / (double)n : 0;
		none *= 1 - share;
		sum += share;
		if (c.min > min) min = c.min;
		max += c.max;
	}
	if (k > l->n) max = 0;
	/* For more than one: Poisson's law with the same mean. */
	double below = exp(-sum), term = below;
	for (uint64_t i = 1; i < k && i < l->n; i++) below += term *= sum / (double)i;
	double likely = (double)n * (k == 1 ? 1 - none : 1 - below);
	*out =
	    within(k == 1 ? min : 0, likely > 0 ? (uint64_t)llround(likely) : 0, least(n, k ? max / k : n));
	return VK_OK;
}

static void and_with(struct vk_cardinality *a, const struct vk_cardinality *b, uint64_t n)
{
	uint64_t missing = least(n, (n - a->min) + (n - b->min));
	double likely = n ? (double)a->likely * ((double)b->likely / (double)n) : 0;
	*a = within(n - missing, (uint64_t)llround(likely), least(a->max, b->max));
}

enum vk_status vk_estimate_filter(struct vk_view *v, const struct vk_filter *f, uint64_t n, uint64_t excess,
				  struct vk_cardinality *out)
{
	struct vk_cardinality c;
	*out = (struct vk_cardinality){n, n, n};
	if (!f) return VK_OK;
	enum vk_status st = estimate_all(v, f, n, excess, out);
	if (!st && f->should.n) {
		st = estimate_some(v, &f->should, 1, n, excess, &c);
		if (!st) and_with(out, &c, n);
	}
	if (!st && f->has_min_should) {
		st = estimate_some(v, &f->min_should, f->min_count, n, excess, &c);
		if (!st) and_with(out, &c, n);
	}
	return st;
}

/* --- is an index enough? --- */

/* Which types answer which condition by their own values. */
static const uint32_t answered[] = {
#define T(t) (1u << VK_FIELD_##t)
#define ALL ((1u << VK_FIELD_TYPES) - 1)
    [VK_C_MATCH] = T(KEYWORD) | T(INTEGER) | T(BOOL) | T(UUID),
    [VK_C_EXCEPT] = T(KEYWORD) | T(INTEGER),
    [VK_C_TEXT] = T(KEYWORD),
    [VK_C_TEXT_ANY] = T(KEYWORD),
    [VK_C_PHRASE] = T(KEYWORD),
    [VK_C_PREFIX] = T(KEYWORD),
    [VK_C_SUBSTRING] = T(KEYWORD),
    [VK_C_RANGE] = T(INTEGER) | T(FLOAT),
    [VK_C_TIME] = T(DATETIME),
    [VK_C_GEO] = T(GEO),
    [VK_C_VALUES_COUNT] = 0,
    [VK_C_EMPTY] = ALL,
    [VK_C_NULL] = ALL,
    [VK_C_NESTED] = 0,
    [VK_C_ID] = 0,
    [VK_C_VECTOR] = 0,
    [VK_C_SLICE] = 0,
    [VK_C_FILTER] = 0,
#undef T
#undef ALL
};

static bool list_indexed(const struct vk_view *v, const struct vk_cond_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct vk_cond *c = &l->v[i];
		const struct vk_field_conf *f = vk_plan_field(v, c);
		if (c->kind == VK_C_FILTER && c->filter && !vk_filter_indexed(v, c->filter)) return false;
		if (c->path && !(f && answered[c->kind] >> f->type & 1)) return false;
	}
	return true;
}

bool vk_filter_indexed(const struct vk_view *v, const struct vk_filter *f)
{
	return f && list_indexed(v, &f->must) && list_indexed(v, &f->must_not) &&
	       list_indexed(v, &f->should) && list_indexed(v, &f->min_should);
}
