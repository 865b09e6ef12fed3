/* Geo shapes: exact tests, and ranges of Morton codes around them. */
#include "index/geo.h"

#include <math.h>

#include "store/record_field.h"

#define EARTH_RADIUS_M 6371008.8
#define RADIANS (M_PI / 180)
/* How far a point may be from its cell's centre, with room for rounding. Haversine loses most near the
 * antipode. */
#define CELL_SLACK 1e-7
#define DISTANCE_SLACK_M 1.0

double vk_geo_distance_m(struct vk_geo_point a, struct vk_geo_point b)
{
	double lat1 = a.lat * RADIANS, lat2 = b.lat * RADIANS;
	double dlat = sin((lat2 - lat1) / 2), dlon = sin((b.lon * RADIANS - a.lon * RADIANS) / 2);
	double h = dlat * dlat + cos(lat1) * cos(lat2) * dlon * dlon;
	return EARTH_RADIUS_M * 2 * asin(sqrt(h > 1 ? 1 : h));
}

static bool box_holds(const struct vk_geo *g, struct vk_geo_point p)
{
	double left = g->top_left.lon, right = g->bottom_right.lon;
	bool lon = left > right ? p.lon > left || p.lon < right : left < p.lon && p.lon < right;
	return lon && g->top_left.lat > p.lat && p.lat > g->bottom_right.lat;
}

/* 1 inside, 0 outside, -1 on the edge: rays to the side, edge by edge. */
static int ring_side(const struct vk_geo_ring *r, struct vk_geo_point p)
{
	bool inside = false;
	for (size_t i = 1; i < r->n; i++) {
		struct vk_geo_point a = r->point[i], b = r->point[i - 1];
		double cross = p.lon * (a.lat - b.lat) + a.lon * (b.lat - p.lat) + b.lon * (p.lat - a.lat);
		if (cross == 0 && (a.lat - p.lat) * (b.lat - p.lat) <= 0 &&
		    (a.lon - p.lon) * (b.lon - p.lon) <= 0)
			return -1;
		if ((a.lon > p.lon) != (b.lon > p.lon) &&
		    p.lat < (b.lat - a.lat) * (p.lon - a.lon) / (b.lon - a.lon) + a.lat)
			inside = !inside;
	}
	return inside;
}

static bool polygon_holds(const struct vk_geo *g, struct vk_geo_point p)
{
	if (ring_side(&g->ring[0], p) != 1) return false;
	for (size_t i = 1; i < g->ring_n; i++)
		if (ring_side(&g->ring[i], p) != 0) return false;
	return true;
}

bool vk_geo_holds(const struct vk_geo *g, struct vk_geo_point p)
{
	switch (g->shape) {
	case VK_GEO_BOX: return box_holds(g, p);
	case VK_GEO_RADIUS: return vk_geo_distance_m(p, g->center) < g->radius_m;
	default: return polygon_holds(g, p);
	}
}

/* --- cells --- */

/* How much of the box's corners at +-slack around p it holds: 0 to 4. */
static int corners(const struct vk_geo *g, struct vk_geo_point p)
{
	int n = 0;
	for (int i = 0; i < 4; i++) {
		struct vk_geo_point c = {p.lat + (i & 1 ? CELL_SLACK : -CELL_SLACK),
					 p.lon + (i & 2 ? CELL_SLACK : -CELL_SLACK)};
		n += box_holds(g, c);
	}
	return n;
}

/* A box that is wider than a cell holds all of it when it holds the corners, and none when it holds none and
 * is no thinner than the slack. */
static bool box_is_thin(const struct vk_geo *g)
{
	double width = g->bottom_right.lon - g->top_left.lon;
	if (width < 0) width += 360;
	return width < 4 * CELL_SLACK || width > 360 - 4 * CELL_SLACK ||
	       g->top_left.lat - g->bottom_right.lat < 4 * CELL_SLACK;
}

enum vk_geo_verdict vk_geo_cell(const struct vk_geo *g, uint64_t code)
{
	uint32_t lat, lon;
	vk_geo_unmorton(code, &lat, &lon);
	struct vk_geo_point p = {(lat + 0.5) / VK_GEO_CELLS * 180 - 90,
				 (lon + 0.5) / VK_GEO_CELLS * 360 - 180};
	if (g->shape == VK_GEO_RADIUS) {
		double d = vk_geo_distance_m(p, g->center);
		return d + DISTANCE_SLACK_M < g->radius_m    ? VK_GEO_ALL
		       : d - DISTANCE_SLACK_M >= g->radius_m ? VK_GEO_NONE
							     : VK_GEO_SOME;
	}
	if (g->shape == VK_GEO_POLYGON || box_is_thin(g)) return VK_GEO_SOME;
	int n = corners(g, p);
	return n == 4 ? VK_GEO_ALL : n ? VK_GEO_SOME : VK_GEO_NONE;
}

/* --- cover --- */

struct rect { /* degrees, edges included; never across the antimeridian */
	double south, north, west, east;
};

static size_t split_lon(struct rect r, struct rect out[2])
{
	if (r.east - r.west >= 360) {
		out[0] = (struct rect){r.south, r.north, -180, 180};
		return 1;
	}
	if (r.west >= -180 && r.east <= 180) {
		out[0] = r;
		return 1;
	}
	double west = r.west < -180 ? r.west + 360 : r.west, east = r.east > 180 ? r.east - 360 : r.east;
	out[0] = (struct rect){r.south, r.north, west, 180};
	out[1] = (struct rect){r.south, r.north, -180, east};
	return 2;
}

static size_t radius_rects(const struct vk_geo *g, struct rect out[2])
{
	double angle = (g->radius_m + DISTANCE_SLACK_M) / EARTH_RADIUS_M, dlat = angle / RADIANS + CELL_SLACK;
	struct rect r = {g->center.lat - dlat, g->center.lat + dlat, -180, 180};
	if (r.south > -89.99 && r.north < 89.99 && angle < M_PI / 2) {
		double s = sin(angle) / cos(g->center.lat * RADIANS);
		double dlon = s < 1 ? asin(s) / RADIANS + 2 * CELL_SLACK : 180;
		r.west = g->center.lon - dlon;
		r.east = g->center.lon + dlon;
	}
	return split_lon(r, out);
}

static size_t polygon_rects(const struct vk_geo *g, struct rect out[2])
{
	struct rect r = {90, -90, 180, -180};
	for (size_t i = 0; i < g->ring[0].n; i++) {
		struct vk_geo_point p = g->ring[0].point[i];
		r.south = fmin(r.south, p.lat);
		r.north = fmax(r.north, p.lat);
		r.west = fmin(r.west, p.lon);
		r.east = fmax(r.east, p.lon);
	}
	out[0] = r;
	return 1;
}

static size_t rects_of(const struct vk_geo *g, struct rect out[2])
{
	if (g->shape == VK_GEO_RADIUS) return radius_rects(g, out);
	if (g->shape == VK_GEO_POLYGON) return polygon_rects(g, out);
	struct rect r = {g->bottom_right.lat, g->top_left.lat, g->top_left.lon, g->bottom_right.lon};
	if (r.west > r.east) r.east += 360;
	return split_lon(r, out);
}

struct cells { /* the rectangle in cells, edges included */
	uint32_t south, north, west, east;
};

/* Squares of 2^bits cells at the same height that the rectangle touches are at most this many a side. */
#define SQUARES_A_SIDE 8

static unsigned square_bits(const struct cells *c)
{
	unsigned bits = 0;
	while ((c->north >> bits) - (c->south >> bits) >= SQUARES_A_SIDE ||
	       (c->east >> bits) - (c->west >> bits) >= SQUARES_A_SIDE)
		bits++;
	return bits;
}

static int compare_ranges(const struct vk_geo_range *a, const struct vk_geo_range *b)
{
	return (a->first > b->first) - (a->first < b->first);
}

/* Inserts sorted; neighbours join at the end. */
static void insert_range(struct vk_geo_range *out, size_t *n, struct vk_geo_range r)
{
	size_t i = (*n)++;
	for (; i && compare_ranges(&out[i - 1], &r) > 0; i--) out[i] = out[i - 1];
	out[i] = r;
}

static size_t join_ranges(struct vk_geo_range *r, size_t n)
{
	size_t kept = 0;
	for (size_t i = 0; i < n; i++) {
		if (kept && (r[i].first == 0 || r[i].first - 1 <= r[kept - 1].last)) {
			if (r[i].last > r[kept - 1].last) r[kept - 1].last = r[i].last;
		} else {
			r[kept++] = r[i];
		}
	}
	return kept;
}

size_t vk_geo_cover(const struct vk_geo *g, struct vk_geo_range out[VK_GEO_RANGES_MAX])
{
	struct rect rects[2];
	size_t rects_n = rects_of(g, rects), n = 0;
	for (size_t i = 0; i < rects_n; i++) {
		struct rect *r = &rects[i];
		if (!(r->south <= r->north) || r->north < -90 || r->south > 90 || !(r->west <= r->east))
			continue;
		struct cells c = {vk_geo_lat_cell(r->south), vk_geo_lat_cell(r->north),
				  vk_geo_lon_cell(r->west), vk_geo_lon_cell(r->east)};
		unsigned bits = square_bits(&c);
		uint64_t size = bits == 32 ? UINT64_MAX : ((uint64_t)1 << 2 * bits) - 1;
		for (uint64_t lat = c.south >> bits; lat <= c.north >> bits; lat++)
			for (uint64_t lon = c.west >> bits; lon <= c.east >> bits; lon++) {
				uint64_t first =
				    vk_geo_morton((uint32_t)(lat << bits), (uint32_t)(lon << bits));
				insert_range(out, &n, (struct vk_geo_range){first, first + size});
			}
	}
	return join_ranges(out, n);
}
