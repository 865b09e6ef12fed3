/*
 * Places on earth: what a geo condition holds, exactly as Qdrant measures it (haversine over a sphere of
 * 6371008.8 m; edges of boxes and polygons are outside; a box whose left is past its right crosses the
 * antimeridian), and how to find it in a table that is ordered by Morton code. Degrees and metres. Any
 * thread.
 */
#ifndef VK_INDEX_GEO_H
#define VK_INDEX_GEO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vk_geo_point {
	double lat, lon;
};
struct vk_geo_ring { /* closed: the last point is the first */
	struct vk_geo_point *point;
	size_t n;
};
enum vk_geo_shape { VK_GEO_BOX, VK_GEO_RADIUS, VK_GEO_POLYGON };
struct vk_geo {
	enum vk_geo_shape shape;
	struct vk_geo_point top_left, bottom_right; /* BOX */
	struct vk_geo_point center;		    /* RADIUS */
	double radius_m;
	struct vk_geo_ring *ring; /* POLYGON: the first is the outer one, the others are holes */
	size_t ring_n;
};

double vk_geo_distance_m(struct vk_geo_point a, struct vk_geo_point b);
bool vk_geo_holds(const struct vk_geo *g, struct vk_geo_point p);

/* Of a Morton cell: all of its points, none, or some perhaps. */
enum vk_geo_verdict { VK_GEO_NONE, VK_GEO_SOME, VK_GEO_ALL };
enum vk_geo_verdict vk_geo_cell(const struct vk_geo *g, uint64_t code);

/* Ranges of Morton codes that hold every point of the shape; how many. */
#define VK_GEO_RANGES_MAX 256
struct vk_geo_range {
	uint64_t first, last;
};
size_t vk_geo_cover(const struct vk_geo *g, struct vk_geo_range out[VK_GEO_RANGES_MAX]);

#endif
