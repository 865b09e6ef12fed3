/* Filters of nested levels, joined. */
#include "index/filter_tree.h"
#include "index/query_parts.h"

static bool put_together(struct vk_arena *a, const struct vk_cond_list *x, const struct vk_cond_list *y, struct vk_cond_list *out)
{
	*out = x->n ? *x : *y;
	if (!x->n || !y->n) return true;
	if (!(out->v = vk_arena_alloc(a, (x->n + y->n) * sizeof *out->v))) return false;
	memcpy(out->v, x->v, x->n * sizeof *x->v);
	memcpy(out->v + x->n, y->v, y->n * sizeof *y->v);
	out->n = x->n + y->n;
	return true;
}

const struct vk_filter *vk_filter_join(struct vk_arena *a, const struct vk_filter *outer, const struct vk_filter *inner)
{
	struct vk_filter *f = vk_arena_calloc(a, 1, sizeof *f);
	if (!f || !put_together(a, &outer->must, &inner->must, &f->must) ||
	    !put_together(a, &outer->must_not, &inner->must_not, &f->must_not) ||
	    !put_together(a, &outer->should, &inner->should, &f->should) ||
	    !put_together(a, &outer->min_should, &inner->min_should, &f->min_should))
		return NULL;
	f->has_min_should = outer->has_min_should || inner->has_min_should;
	f->min_count = outer->min_count > inner->min_count ? outer->min_count : inner->min_count;
	f->reads_payload = outer->reads_payload || inner->reads_payload;
	return f;
}

bool vk_filter_stays(const struct vk_filter *f)
{
	return !f->should.n && !f->has_min_should;
}
