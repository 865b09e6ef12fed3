/* The meaning of filters: one point against the tree. Everything else in index/filter*.c must agree with this
 * file. */
#include <stdlib.h>

#include "index/field_read.h"
#include "index/filter_tree.h"
#include "index/id.h"

/* --- one value --- */

static int compare_bytes(struct vk_bytes a, struct vk_bytes b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = n ? memcmp(a.p, b.p, n) : 0;
	return c ? c : (a.n > b.n) - (a.n < b.n);
}

static bool list_has_str(const struct vk_value_list *l, struct vk_bytes s)
{
	size_t low = 0, high = l->str_n;
	while (low < high) {
		size_t mid = (low + high) / 2;
		int c = compare_bytes(l->str[mid], s);
		if (c == 0) return true;
		if (c < 0) low = mid + 1;
		else high = mid;
	}
	return false;
}

bool vk_list_has_i64(const struct vk_value_list *l, int64_t v)
{
	size_t low = 0, high = l->i64_n;
	while (low < high) {
		size_t mid = (low + high) / 2;
		if (l->i64[mid] == v) return true;
		if (l->i64[mid] < v) low = mid + 1;
		else high = mid;
	}
	return false;
}

/* As Qdrant compares: 1.0 is no integer, true no number. */
static bool list_has(const struct vk_value_list *l, const vk_jv *v)
{
	struct vk_bytes s;
	int64_t i;
	bool b;
	switch (vk_jv_type(v)) {
	case VK_J_STRING: return vk_jv_str(v, &s) && list_has_str(l, s);
	case VK_J_NUMBER: return vk_jv_i64(v, &i) && vk_list_has_i64(l, i);
	case VK_J_BOOL: return vk_jv_bool(v, &b) && (b ? l->yes : l->no);
	default: return false;
	}
}

static bool holds_text(struct vk_bytes text, struct vk_bytes part)
{
	return part.n == 0 || memmem(text.p, text.n, part.p, part.n) != NULL;
}

bool vk_cond_text(const struct vk_cond *c, struct vk_bytes text)
{
	switch (c->kind) {
	case VK_C_MATCH: return list_has_str(&c->list, text);
	case VK_C_EXCEPT: return !list_has_str(&c->list, text);
	case VK_C_TEXT: return vk_words_all(&c->words, text);
	case VK_C_TEXT_ANY: return vk_words_any(&c->words, text);
	case VK_C_PHRASE: return vk_words_phrase(&c->words, text);
	case VK_C_PREFIX:
		return text.n >= c->text.n && (c->text.n == 0 || memcmp(text.p, c->text.p, c->text.n) == 0);
	case VK_C_SUBSTRING: return holds_text(text, c->text);
	default: return false;
	}
}

bool vk_cond_number(const struct vk_cond *c, double v)
{
	const struct vk_bounds *r = &c->range;
	return (!r->has_gt || v > r->gt) && (!r->has_gte || v >= r->gte) && (!r->has_lt || v < r->lt) &&
	       (!r->has_lte || v <= r->lte);
}

bool vk_cond_time(const struct vk_cond *c, int64_t us)
{
	const struct vk_time_bounds *r = &c->time;
	return (!r->has_gt || us > r->gt) && (!r->has_gte || us >= r->gte) && (!r->has_lt || us < r->lt) &&
	       (!r->has_lte || us <= r->lte);
}

bool vk_cond_count(const struct vk_cond *c, uint64_t n)
{
	const struct vk_count_bounds *r = &c->count;
	return (!r->has_gt || n > r->gt) && (!r->has_gte || n >= r->gte) && (!r->has_lt || n < r->lt) &&
	       (!r->has_lte || n <= r->lte);
}

static bool time_value(const struct vk_cond *c, const vk_jv *v)
{
	struct vk_bytes s;
	int64_t us;
	return vk_jv_str(v, &s) && vk_datetime_parse(s, &us) && vk_cond_time(c, us);
}

static bool geo_value(const struct vk_cond *c, const vk_jv *v)
{
	struct vk_geo_point p;
	return vk_geo_value(v, &p.lat, &p.lon) && vk_geo_holds(&c->geo, p);
}

bool vk_cond_value(const struct vk_cond *c, const vk_jv *v)
{
	struct vk_bytes s;
	double d;
	switch (c->kind) {
	case VK_C_MATCH: return list_has(&c->list, v);
	case VK_C_EXCEPT: return vk_jv_type(v) != VK_J_NULL && !list_has(&c->list, v);
	case VK_C_RANGE: return vk_jv_f64(v, &d) && vk_cond_number(c, d);
	case VK_C_TIME: return time_value(c, v);
	case VK_C_GEO: return geo_value(c, v);
	default: return vk_jv_str(v, &s) && vk_cond_text(c, s);
	}
}

/* --- what a key reaches --- */

struct seek {
	const struct vk_cond *c;
	bool found, reached;
};

static bool seek_value(void *arg, const vk_jv *v)
{
	struct seek *s = arg;
	s->found = vk_cond_value(s->c, v);
	return !s->found;
}

static bool any_value(const struct vk_cond *c, const vk_jv *payload)
{
	struct seek s = {.c = c};
	vk_path_values(payload, c->path, seek_value, &s);
	return s.found;
}

static bool is_array(const vk_jv *v) { return vk_jv_type(v) == VK_J_ARRAY || vk_jv_type(v) == VK_J_NUMBERS; }

static bool seek_filled(void *arg, const vk_jv *v)
{
	bool *filled = arg;
	*filled = is_array(v) ? vk_jv_len(v) > 0 : vk_jv_type(v) != VK_J_NULL;
	return !*filled;
}

static bool is_empty(const struct vk_cond *c, const vk_jv *payload)
{
	bool filled = false;
	vk_path_each(payload, c->path, seek_filled, &filled);
	return !filled;
}

static bool seek_null_item(void *arg, const vk_jv *v)
{
	bool *found = arg;
	*found = vk_jv_type(v) == VK_J_NULL;
	return !*found;
}

static bool seek_null(void *arg, const vk_jv *v)
{
	if (is_array(v)) vk_jv_each(v, seek_null_item, arg);
	else seek_null_item(arg, v);
	return !*(bool *)arg;
}

static bool is_null(const struct vk_cond *c, const vk_jv *payload)
{
	bool found = false;
	vk_path_each(payload, c->path, seek_null, &found);
	return found;
}

static bool seek_count(void *arg, const vk_jv *v)
{
	struct seek *s = arg;
	uint64_t n = is_array(v) ? vk_jv_len(v) : vk_jv_type(v) != VK_J_NULL;
	s->reached = true;
	s->found = vk_cond_count(s->c, n);
	return !s->found;
}

/* A key that is not there counts as none; of several values that it reaches one will do. */
static bool values_count(const struct vk_cond *c, const vk_jv *payload)
{
	struct seek s = {.c = c};
	vk_path_each(payload, c->path, seek_count, &s);
	return s.reached ? s.found : vk_cond_count(c, 0);
}

static bool seek_element(void *arg, const vk_jv *v)
{
	struct seek *s = arg;
	struct vk_filter_point p = {.payload =
					v}; /* no point: has_id, has_vector and slice never hold in here */
	if (vk_jv_type(v) == VK_J_OBJECT) s->found = vk_filter_match(s->c->filter, &p);
	return !s->found;
}

static bool seek_elements(void *arg, const vk_jv *v) { return vk_jv_each(v, seek_element, arg); }

/* The items of arrays alone: a plain object is no element. */
static bool nested(const struct vk_cond *c, const vk_jv *payload)
{
	struct seek s = {.c = c};
	vk_path_each(payload, c->path, seek_elements, &s);
	return s.found;
}

/* --- the point --- */

bool vk_cond_has_id(const struct vk_cond *c, struct vk_bytes key)
{
	size_t low = 0, high = c->ids.n;
	while (low < high) {
		size_t mid = (low + high) / 2;
		int order = vk_id_compare(c->ids.key[mid], key);
		if (order == 0) return true;
		if (order < 0) low = mid + 1;
		else high = mid;
	}
	return false;
}

static uint64_t rotate(uint64_t v, int n) { return v << n | v >> (64 - n); }

static void sip_round(uint64_t v[4])
{
	v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
	v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
}

/* SipHash-2-4 under a zero key (Aumasson, Bernstein 2012): what Qdrant cuts slices by. */
static uint64_t siphash(const uint8_t *p, size_t n)
{
	uint64_t v[4] = {0x736f6d6570736575u, 0x646f72616e646f6du, 0x6c7967656e657261u, 0x7465646279746573u};
	uint8_t last[8] = {0};
	size_t whole = n / 8 * 8;
	memcpy(last, p + whole, n - whole);
	last[7] = (uint8_t)n;
	for (size_t i = 0; i <= whole; i += 8) {
		uint64_t block = vk_get_u64le(i < whole ? p + i : last);
		v[3] ^= block;
		sip_round(v);
		sip_round(v);
		v[0] ^= block;
	}
	v[2] ^= 0xff;
	for (int i = 0; i < 4; i++) sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Numbers by their 8 bytes little-endian, UUIDs by their 16, other ids (our extension) by their text. */
bool vk_cond_in_slice(const struct vk_cond *c, struct vk_bytes key)
{
	uint8_t number[8];
	const uint8_t *p = (const uint8_t *)key.p;
	if (!key.n) return false;
	if (p[0] != 1) return siphash(p + 1, key.n - 1) % c->slice.total == c->slice.index;
	vk_put_u64le(number, vk_get_u64be(p + 1));
	return siphash(number, 8) % c->slice.total == c->slice.index;
}

/* --- the tree --- */

static bool holds(const struct vk_cond *c, const struct vk_filter_point *p)
{
	switch (c->kind) {
	case VK_C_VALUES_COUNT: return values_count(c, p->payload);
	case VK_C_EMPTY: return is_empty(c, p->payload) == c->want;
	case VK_C_NULL: return is_null(c, p->payload) == c->want;
	case VK_C_NESTED: return nested(c, p->payload);
	case VK_C_ID: return p->id.n && vk_cond_has_id(c, p->id);
	case VK_C_VECTOR: return p->has_vector && p->has_vector(p->arg, c->text);
	case VK_C_SLICE: return vk_cond_in_slice(c, p->id);
	case VK_C_FILTER: return vk_filter_match(c->filter, p);
	default: return any_value(c, p->payload);
	}
}

/* How many hold, counted up to `enough`. */
static uint64_t count_held(const struct vk_cond_list *l, const struct vk_filter_point *p, uint64_t enough)
{
	uint64_t n = 0;
	for (size_t i = 0; i < l->n && n < enough; i++) n += holds(&l->v[i], p);
	return n;
}

bool vk_filter_match(const struct vk_filter *f, const struct vk_filter_point *p)
{
	if (!f) return true;
	for (size_t i = 0; i < f->must.n; i++)
		if (!holds(&f->must.v[i], p)) return false;
	if (count_held(&f->must_not, p, 1)) return false;
	if (f->should.n && !count_held(&f->should, p, 1)) return false; /* an empty list asks nothing */
	return !f->has_min_should || count_held(&f->min_should, p, f->min_count) >= f->min_count;
}
