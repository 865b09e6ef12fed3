/*
 * Qdrant's datetime texts: a date, then T or a space and a time, then perhaps a zone. Without a zone it is
 * UTC. 2024-05-06   2024-05-06T07:08   2024-05-06 07:08:09   ...09.123456789   ...Z  ...+01:00  ...+0100
 * ...+01  ... UTC A fraction may follow seconds only, a zone only a time with seconds. Past microseconds it
 * is cut.
 */
#include "index/field.h"

struct text {
	const char *p, *end;
};

/* Exactly n digits. */
static bool digits(struct text *t, int n, int *out)
{
	int v = 0;
	if (t->end - t->p < n) return false;
	for (int i = 0; i < n; i++, t->p++) {
		if (*t->p < '0' || *t->p > '9') return false;
		v = v * 10 + (*t->p - '0');
	}
	*out = v;
	return true;
}

static bool is(struct text *t, char c)
{
	if (t->p == t->end || *t->p != c) return false;
	t->p++;
	return true;
}

/* Days from 1970-01-01 of a date of the proleptic Gregorian calendar, counted in years that begin in March.
 */
static int64_t days_of(int y, int m, int d)
{
	int64_t year = m <= 2 ? y - 1 : y;
	int64_t era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
	int64_t of_year = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static bool read_date(struct text *t, int64_t *days)
{
	static const int longest[13] = {0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int y, m, d;
	if (!digits(t, 4, &y) || !is(t, '-') || !digits(t, 2, &m) || !is(t, '-') || !digits(t, 2, &d))
		return false;
	if (m < 1 || m > 12 || d < 1 || d > longest[m]) return false;
	bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
	if (m == 2 && d == 29 && !leap) return false;
	*days = days_of(y, m, d);
	return true;
}

/* Behind the point: at least one digit. */
static bool read_fraction(struct text *t, int64_t *us)
{
	int64_t unit = 100000;
	const char *start = t->p;
	for (*us = 0; t->p < t->end && *t->p >= '0' && *t->p <= '9'; t->p++, unit /= 10)
		*us += unit * (*t->p - '0');
	return t->p > start;
}

/* Z, z, " UTC", or a sign, hours and perhaps minutes, perhaps a space before it. */
static bool read_zone(struct text *t, int *minutes)
{
	int h, m = 0;
	*minutes = 0;
	if (is(t, 'Z') || is(t, 'z')) return true;
	bool space = is(t, ' ');
	if (space && t->end - t->p == 3 && memcmp(t->p, "UTC", 3) == 0) {
		t->p = t->end;
		return true;
	}
	int sign = is(t, '+') ? 1 : is(t, '-') ? -1 : 0;
	if (!sign || !digits(t, 2, &h)) return false;
	if (t->p < t->end) {
		is(t, ':');
		if (!digits(t, 2, &m)) return false;
	}
	*minutes = sign * (h * 60 + m);
	return h < 24 && m < 60;
}

bool vk_datetime_parse(struct vk_bytes text, int64_t *us)
{
	struct text t = {text.p, text.p + text.n};
	int h = 0, m = 0, s = 0, zone = 0;
	int64_t days, fraction = 0;
	while (t.p < t.end && (*t.p == ' ' || (*t.p >= '\t' && *t.p <= '\r'))) t.p++;
	if (!read_date(&t, &days)) return false;
	if (t.p < t.end) {
		if (!is(&t, 'T') && !is(&t, 't') && !is(&t, ' ')) return false;
		if (!digits(&t, 2, &h) || !is(&t, ':') || !digits(&t, 2, &m)) return false;
		if (is(&t, ':')) {
			if (!digits(&t, 2, &s)) return false;
			if (is(&t, '.') && !read_fraction(&t, &fraction)) return false;
			if (t.p < t.end && !read_zone(&t, &zone)) return false;
		}
	}
	if (t.p != t.end || h > 23 || m > 59 || s > 60) return false;
	*us = ((days * 24 + h) * 60 + m - zone) * 60000000 + (int64_t)s * 1000000 + fraction;
	return true;
}
