/* Who has expired, from a payload. */
#include "index/ttl.h"

#include <math.h>

#include "index/payload.h"

/* Past any clock, and far from overflow when after_ms is added. */
#define TIME_MAX_MS (INT64_MAX / 4)

static int64_t clamp(int64_t v)
{
	return v > TIME_MAX_MS ? TIME_MAX_MS : v < -TIME_MAX_MS ? -TIME_MAX_MS : v;
}

static int64_t of_us(int64_t us)
{
	return us / 1000 - (us % 1000 < 0);
}

static int64_t of_seconds_i64(int64_t s)
{
	if (s > TIME_MAX_MS / 1000) return TIME_MAX_MS;
	return s < -TIME_MAX_MS / 1000 ? -TIME_MAX_MS : s * 1000;
}

static int64_t of_seconds_f64(double s)
{
	double ms = floor(s * 1000);
	return ms >= (double)TIME_MAX_MS ? TIME_MAX_MS : ms <= -(double)TIME_MAX_MS ? -TIME_MAX_MS : (int64_t)ms;
}

static bool is_time(enum vk_field_type t)
{
	return t == VK_FIELD_INTEGER || t == VK_FIELD_FLOAT || t == VK_FIELD_DATETIME;
}

struct latest {
	int type; /* of the field's index, -1: any */
	bool any;
	int64_t ms;
};

static bool read_time(const struct latest *l, const vk_jv *v, int64_t *ms)
{
	struct vk_bytes s;
	int64_t i;
	double f;
	if ((l->type < 0 || l->type == VK_FIELD_DATETIME) && vk_jv_str(v, &s) && vk_datetime_parse(s, &i))
		return *ms = of_us(i), true;
	if ((l->type < 0 || l->type == VK_FIELD_INTEGER) && vk_jv_i64(v, &i))
		return *ms = of_seconds_i64(i), true;
	if ((l->type < 0 || l->type == VK_FIELD_FLOAT) && vk_jv_f64(v, &f)) return *ms = of_seconds_f64(f), true;
	return false;
}

static bool look(void *arg, const vk_jv *v)
{
	struct latest *l = arg;
	int64_t ms;
	if (!read_time(l, v, &ms)) return true;
	if (!l->any || ms > l->ms) l->ms = ms;
	l->any = true;
	return true;
}

bool vk_ttl_expired(const struct vk_colconf *c, const vk_jv *payload, int64_t now_ms)
{
	struct vk_path path;
	if (!c->ttl_field || !payload) return false;
	const struct vk_field_conf *f = vk_colconf_field(c, vk_bytes_of(c->ttl_field));
	struct latest l = {.type = f && is_time(f->type) ? (int)f->type : -1};
	if (vk_path_parse(NULL, vk_bytes_of(c->ttl_field), &path, NULL)) return false;
	vk_path_values(payload, &path, look, &l);
	return l.any && l.ms + clamp(c->ttl_after_ms) <= now_ms;
}

const struct vk_field_conf *vk_ttl_index(const struct vk_colconf *c)
{
	const struct vk_field_conf *f = c->ttl_field ? vk_colconf_field(c, vk_bytes_of(c->ttl_field)) : NULL;
	return f && f->ready && is_time(f->type) && (f->type != VK_FIELD_INTEGER || f->range) ? f : NULL;
}

int64_t vk_ttl_of_order(const struct vk_colconf *c, const struct vk_field_conf *f, const struct vk_order_value *v)
{
	int64_t ms = f->type == VK_FIELD_DATETIME ? of_us(v->i64)
		     : v->is_i64		  ? of_seconds_i64(v->i64)
						  : of_seconds_f64(v->f64);
	return ms + clamp(c->ttl_after_ms);
}
