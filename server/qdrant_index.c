/* Indexes as they are shown; see the header. */
#include "server/qdrant_index.h"

/* --- gathering --- */

/* What the worker has not looked at yet: another plan than the one it goes by. */
static bool unseen(const struct vk_qd_index *x)
{
	return !vk_ann_plan_builds_alike(&x->plan, &x->info.plan) || x->plan.rows_min != x->info.plan.rows_min;
}

static bool is_due(const struct vk_qd_index *x)
{
	const struct vk_ann_info *i = &x->info;
	bool given_up = (i->state == VK_ANN_FAILED || i->state == VK_ANN_CANCELLED) && !i->outdated && !unseen(x);
	if (i->state == VK_ANN_BUILDING) return true;
	if (x->plan.engine == VK_ANN_NONE || given_up) return false;
	if (!i->serving) return x->rows && x->rows >= x->plan.rows_min;
	return i->outdated || !vk_ann_plan_builds_alike(&x->plan, &i->plan);
}

/* An engine that does not grow stays behind until a new one is built: its changes wait, and nobody works on them. */
static bool is_behind(const struct vk_qd_index *x, uint64_t sequence)
{
	if (!x->info.serving || x->info.state == VK_ANN_FAILED) return false;
	return x->info.state == VK_ANN_FOLLOWING || (x->plan.engine == VK_ANN_GRAPH && x->info.sequence < sequence);
}

static enum vk_status fill(struct vk_qd_index *x, struct vk_collection *c, struct vk_view *v, uint64_t sequence)
{
	struct vk_vset_stats s = {0};
	enum vk_status st = vk_vset_stats(v->t, &x->vector->set, &s);
	if (st) return st;
	vk_ann_plan_of(v->conf, x->vector, &x->plan);
	if (vk_ann_info(vk_collection_ann(c), x->vector->set.id, &x->info))
		x->info = (struct vk_ann_info){.plan = x->plan, .recall = -1};
	x->rows = s.rows;
	x->due = is_due(x);
	x->behind = is_behind(x, sequence);
	if (x->info.serving) x->indexed = x->info.rows < s.rows ? x->info.rows : s.rows;
	else x->indexed = x->due || s.rows < s.tail_rows ? 0 : s.rows - s.tail_rows;
	return VK_OK;
}

enum vk_status vk_qd_indexes(struct vk_collection *c, struct vk_view *v, struct vk_arena *a, struct vk_qd_index **out)
{
	struct vk_collection_stats s;
	size_t n = v->conf->vectors_n;
	struct vk_qd_index *x = vk_arena_calloc(a, n ? n : 1, sizeof *x);
	enum vk_status st = x ? vk_collection_stats(c, &s) : VK_E_NOMEM;
	for (size_t i = 0; !st && i < n; i++) {
		x[i].vector = &v->conf->vectors[i];
		st = fill(&x[i], c, v, s.sequence);
	}
	*out = x;
	return st;
}

/* --- showing --- */

const char *vk_qd_index_status(const struct vk_qd_index *x, size_t n, bool busy)
{
	bool failed = false, cancelled = false;
	for (size_t i = 0; i < n; i++) {
		busy |= x[i].due || x[i].behind;
		failed |= x[i].info.state == VK_ANN_FAILED && !x[i].due;
		cancelled |= x[i].info.state == VK_ANN_CANCELLED && !x[i].due;
	}
	return failed ? "red" : busy ? "yellow" : cancelled ? "grey" : "green";
}

void vk_qd_index_optimizer(struct vk_jw *w, const struct vk_qd_index *x, size_t n)
{
	size_t i = 0;
	while (i < n && (x[i].info.state != VK_ANN_FAILED || x[i].due)) i++;
	vk_jw_key(w, "optimizer_status");
	if (i == n) {
		vk_jw_cstr(w, "ok");
		return;
	}
	vk_jw_object(w);
	vk_jw_kv(w, "error", x[i].info.error);
	vk_jw_object_end(w);
}

static enum vk_ann_state state_of(const struct vk_qd_index *x)
{
	if (x->due) return VK_ANN_BUILDING;
	if (x->behind) return VK_ANN_FOLLOWING;
	/* Switched off a moment ago. */
	if (x->plan.engine == VK_ANN_NONE) return VK_ANN_IDLE;
	return x->info.state;
}

static void write_progress(struct vk_jw *w, const struct vk_ann_info *i)
{
	vk_jw_key(w, "progress");
	if (i->state != VK_ANN_BUILDING || !i->total) {
		vk_jw_null(w);
		return;
	}
	vk_jw_object(w);
	vk_jw_ki(w, "done", i->done < i->total ? i->done : i->total);
	vk_jw_ki(w, "total", i->total);
	vk_jw_object_end(w);
}

static void write_recall(struct vk_jw *w, const struct vk_qd_index *x)
{
	const struct vk_ann_info *i = &x->info;
	vk_jw_key(w, "recall");
	vk_jw_object(w);
	vk_jw_key(w, "measured");
	if (i->recall < 0) vk_jw_null(w);
	else vk_jw_f64(w, vk_decimal(i->recall));
	vk_jw_kf(w, "target", vk_decimal(x->plan.recall));
	vk_jw_ki(w, "k", 10);
	vk_jw_ki(w, "ef", i->ef_auto);
	vk_jw_ki(w, "queries", i->recall_queries);
	vk_jw_key(w, "at_ms");
	if (i->recall < 0) vk_jw_null(w);
	else vk_jw_i64(w, i->recall_ms);
	vk_jw_key(w, "curve");
	vk_jw_array(w);
	for (size_t p = 0; p < i->curve_n; p++) {
		vk_jw_object(w);
		vk_jw_ki(w, "ef", i->curve[p].ef);
		vk_jw_kf(w, "recall", vk_decimal(i->curve[p].recall));
		vk_jw_object_end(w);
	}
	vk_jw_array_end(w);
	vk_jw_object_end(w);
}

static void write_searches(struct vk_jw *w, const struct vk_ann_info *i)
{
	vk_jw_key(w, "searches");
	vk_jw_object(w);
	vk_jw_ki(w, "approximate", (int64_t)i->searches[1]);
	vk_jw_ki(w, "exact", (int64_t)i->searches[0]);
	vk_jw_object_end(w);
}

static void write_one(struct vk_jw *w, const struct vk_qd_index *x)
{
	const struct vk_ann_info *i = &x->info;
	vk_jw_object(w);
	vk_jw_kv(w, "engine", vk_ann_engine_names[x->plan.engine]);
	vk_jw_kv(w, "state", vk_ann_state_names[state_of(x)]);
	vk_jw_kb(w, "serving", i->serving);
	vk_jw_kv(w, "detail", i->serving ? i->about.detail : NULL);
	vk_jw_ki(w, "rows", i->serving ? (int64_t)i->rows : 0);
	vk_jw_ki(w, "rows_total", (int64_t)x->rows);
	vk_jw_key(w, "rows_min");
	if (x->plan.engine == VK_ANN_NONE) vk_jw_null(w);
	else vk_jw_u64(w, x->plan.rows_min);
	vk_jw_ki(w, "pending", (int64_t)i->pending);
	vk_jw_ki(w, "sequence", (int64_t)i->sequence);
	vk_jw_ki(w, "checkpoint", (int64_t)i->checkpoint);
	vk_jw_ki(w, "bytes", i->serving ? (int64_t)i->about.bytes : 0);
	write_progress(w, i);
	write_recall(w, x);
	write_searches(w, i);
	vk_jw_ki(w, "build_ms", (int64_t)i->build_ms);
	vk_jw_kv(w, "error", i->error[0] ? i->error : NULL);
	vk_jw_object_end(w);
}

void vk_qd_index_write(struct vk_jw *w, const struct vk_qd_index *x, size_t n)
{
	vk_jw_object(w);
	for (size_t i = 0; i < n; i++) {
		vk_jw_key(w, x[i].vector->name);
		write_one(w, &x[i]);
	}
	vk_jw_object_end(w);
}
