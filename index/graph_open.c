/*
 * A graph over its file (index/graph_file.h). What a search walks (labels, dead bits, chains, in-degrees, codes, edges) is mapped
 * over the beginning of its section's address space, private, so what is written later is memory's; the small rest is read.
 * Codes, edges and chains are mapped unseen: whoever walks them checks bounds.
 *
 * Ownership: the file may be unlinked once it is open; the mapping goes with the graph. A page that cannot be read later becomes
 * zeros and sets the graph's `lost` (store/patch.h).
 * Threads: nobody else has the graph yet.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "index/graph_file.h"
#include "store/patch.h"

/* --- sections --- */

struct vk_graph_slab *vk_graph_slab_of(struct vk_graph *g, int section)
{
	switch (section) {
	case VK_SECTION_LABEL:
		return &g->label;
	case VK_SECTION_DEAD:
		return &g->dead;
	case VK_SECTION_CHAIN:
		return &g->chain;
	case VK_SECTION_IN:
		return &g->in;
	case VK_SECTION_CODE:
		return &g->code;
	default:
		return &g->edge;
	}
}

static enum vk_status map_section(struct vk_graph_reader *r, struct vk_graph *g, int section)
{
	const struct vk_graph_place *p = &r->h.section[section];
	struct vk_graph_slab *s = vk_graph_slab_of(g, section);
	const size_t bytes = (size_t)vk_graph_file_up(p->bytes, VK_GRAPH_FILE_PAGE);
	if (!bytes) return VK_OK;
	if (bytes > s->reserved) return vk_fail(r->err, VK_E_NO_SPACE, "no room for the graph of %s", r->path);
	void *at = mmap(s->p, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, r->fd, (off_t)p->offset);
	if (at == MAP_FAILED) return vk_graph_file_failed(r->err, r->path);
	s->mapped = bytes;
	(void)vk_patch_add(s->p, bytes, &g->lost); /* unwatched it serves, too */
	return section < VK_SECTION_CHECKED ? vk_graph_reader_judge(r, section, s->p) : VK_OK;
}

/* A section that is memory of its own: read and checked. Empty: NULL. */
static enum vk_status load_section(struct vk_graph_reader *r, int section, size_t room, void *out)
{
	const struct vk_graph_place *p = &r->h.section[section];
	void **dst = out;
	*dst = NULL;
	if (!p->bytes) return VK_OK;
	*dst = aligned_alloc(64, vk_graph_file_up(room > p->bytes ? room : p->bytes, 64));
	if (!*dst) return vk_fail(r->err, VK_E_NOMEM, "no memory for the graph of %s", r->path);
	enum vk_status st = vk_graph_reader_at(r, *dst, (size_t)p->bytes, p->offset);
	return st ? st : vk_graph_reader_judge(r, section, *dst);
}

static enum vk_status nodes_below(struct vk_graph_reader *r, const uint32_t *node, uint32_t count, const char *what)
{
	for (uint32_t i = 0; i < count; i++)
		if (node[i] >= r->h.n) return vk_graph_file_corrupt(r->err, r->path, what);
	return VK_OK;
}

static enum vk_status load_small(struct vk_graph_reader *r, struct vk_graph *g)
{
	uint32_t *entry = NULL;
	free(g->mean);
	g->mean = NULL;
	enum vk_status st = load_section(r, VK_SECTION_MEAN, 0, &g->mean);
	if (!st) vk_graph_mean_changed(g);
	if (!st) st = load_section(r, VK_SECTION_AXES, 0, &g->axes);
	if (!st) st = load_section(r, VK_SECTION_SPARE, 0, &g->spare);
	if (!st) st = load_section(r, VK_SECTION_ENTRY_CODE, VK_GRAPH_ENTRIES_MAX * g->code.stride, &g->entry_code);
	if (!st) st = load_section(r, VK_SECTION_ENTRY, 0, &entry);
	if (!st) st = nodes_below(r, entry, r->h.entry_n, "its entries");
	if (!st) st = nodes_below(r, g->spare, r->h.spare_n, "its spare places");
	if (!st && r->h.entry_n) memcpy(g->entry, entry, r->h.entry_n * sizeof *entry);
	free(entry);
	return st;
}

/* --- the graph --- */

/* Labels and chains are read once, in order; a few milliseconds a million. */
static enum vk_status bind_labels(struct vk_graph_reader *r, struct vk_graph *g)
{
	for (uint32_t i = 0; i < r->h.n; i++)
		if (!vk_graph_is_dead(g, i) && vk_graph_bind(g, *vk_graph_label_at(g, i), i))
			return vk_graph_file_corrupt(r->err, r->path, "its labels");
	if (r->h.chained_n) vk_graph_chains_find(g, r->h.n);
	return VK_OK;
}

/* An empty graph with room for what the file holds. */
static enum vk_status graph_for(struct vk_graph_reader *r, uint32_t capacity, struct vk_graph **out)
{
	if (!capacity) capacity = VK_GRAPH_CAPACITY_DEFAULT;
	const struct vk_graph_file_head *h = &r->h;
	struct vk_graph_conf c = {
	    .dims = h->dims,
	    .metric = (enum vk_metric)h->metric,
	    .degree = h->degree,
	    .ef_build = h->ef_build,
	    .alpha = h->alpha,
	    .profile = h->profile == VK_GRAPH_S4 ? VK_GRAPH_S4 : VK_GRAPH_S8,
	    .capacity = capacity < h->n ? h->n : capacity,
	    .seed = h->seed,
	    .level = r->level,
	};
	enum vk_status st = vk_graph_new(&c, out, r->err);
	if (st) return st;
	struct vk_graph *g = *out;
	g->conf.profile = (enum vk_graph_profile)h->profile_asked;
	if (h->code_dims != h->dims) {
		g->code_dims = h->code_dims;
		st = vk_graph_reserve(g, r->err);
	}
	if (!st && g->conf.capacity < h->n) st = vk_fail(r->err, VK_E_NO_SPACE, "no address space for the graph of %s", r->path);
	return st;
}

static void take_counts(struct vk_graph *g, const struct vk_graph_file_head *h)
{
	g->built = h->built, g->entry_n = h->entry_n, g->dead_n = h->dead_n;
	g->spare_n = g->spare_cap = h->spare_n;
	g->chained_n = h->chained_n, g->unreached = h->unreached;
	g->error_sum = h->error_sum, g->error_built = h->error_built, g->error_n = h->error_n;
	atomic_store(&g->prefetch, h->prefetch);
	atomic_store(&g->n, h->n);
}

enum vk_status vk_graph_open(const char *path, uint32_t capacity, enum vk_cpu_level level, struct vk_graph **out,
			     uint64_t *sequence, uint8_t tag[32], struct vk_error *err)
{
	struct vk_graph_reader r;
	struct vk_graph *g = NULL;
	*out = NULL;
	enum vk_status st = vk_graph_reader_open(&r, path, level, err);
	if (!st) st = graph_for(&r, capacity, &g);
	if (!st) st = load_small(&r, g);
	for (int i = VK_SECTION_LABEL; !st && i < VK_SECTIONS; i++) st = map_section(&r, g, i);
	if (!st) st = bind_labels(&r, g);
	if (!st) {
		take_counts(g, &r.h);
		*sequence = r.h.sequence;
		memcpy(tag, r.h.tag, sizeof r.h.tag);
		*out = g;
	} else {
		vk_graph_free(g);
	}
	vk_graph_reader_close(&r);
	return st;
}
