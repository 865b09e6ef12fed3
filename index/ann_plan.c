/*
 * What a config asks of a vector set's index. Qdrant's words are read as it reads them: thresholds are kilobytes of rows as
 * f32, m counts the edges of upper layers (a flat graph has 2m), 0 turns indexing off. Values at their defaults say nothing, so there
 * the measured choices of our own engines hold.
 */
#include "index/ann_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"

#define M_DEFAULT 16
#define EF_DEFAULT 100
#define FULL_SCAN_DEFAULT 10000
#define INDEXING_DEFAULT 10000
#define EF_BUILD_MAX 4096
#define TRAIN_ROWS_MAX (10 * 1000 * 1000)

const char *const vk_ann_engine_names[VK_ANN_ENGINES] = {"none", "graph", "faiss"};

static uint64_t number(const vk_jv *own, const vk_jv *common, const char *key, uint64_t dflt)
{
	uint64_t v;
	if (vk_jv_u64(vk_jv_get(own, key), &v) || vk_jv_u64(vk_jv_get(common, key), &v)) return v;
	return dflt;
}

static int word(const vk_jv *v, const char *const *names, int n, int dflt)
{
	struct vk_bytes s;
	if (!vk_jv_str(v, &s)) return dflt;
	for (int i = 0; i < n; i++)
		if (vk_bytes_is(s, names[i])) return i;
	return dflt;
}

static bool can_be_indexed(const struct vk_set *s)
{
	return s->metric == VK_METRIC_DOT || s->metric == VK_METRIC_COSINE || s->metric == VK_METRIC_L2;
}

static uint64_t rows_of_kb(uint64_t kb, uint32_t dims)
{
	return kb > UINT64_MAX / 1024 ? UINT64_MAX : kb * 1024 / (dims * sizeof(float));
}

static void plan_graph(const vk_jv *own, const vk_jv *common, struct vk_ann_plan *p)
{
	uint64_t m = number(own, common, "m", M_DEFAULT), ef = number(own, common, "ef_construct", EF_DEFAULT);
	if (!m && p->engine == VK_ANN_GRAPH) p->engine = VK_ANN_NONE;
	if (m > VK_GRAPH_DEGREE_MAX / 2) m = VK_GRAPH_DEGREE_MAX / 2;
	if (m != M_DEFAULT) p->degree = (uint32_t)(2 * m + 15) / 16 * 16;
	if (ef != EF_DEFAULT) p->ef_build = ef > EF_BUILD_MAX ? EF_BUILD_MAX : (uint32_t)ef;
}

static void plan_own(const vk_jv *index, struct vk_ann_plan *p)
{
	struct vk_bytes factory;
	double recall;
	p->engine = (enum vk_ann_engine)word(vk_jv_get(index, "engine"), vk_ann_engine_names, VK_ANN_ENGINES, p->engine);
	p->profile = (enum vk_graph_profile)word(vk_jv_get(index, "profile"), vk_graph_profile_names, VK_GRAPH_PROFILES, VK_GRAPH_AUTO);
	if (vk_jv_f64(vk_jv_get(index, "recall"), &recall)) p->recall = (float)recall;
	if (vk_jv_str(vk_jv_get(index, "factory"), &factory) && factory.n < sizeof p->factory)
		memcpy(p->factory, factory.p, factory.n);
	p->nprobe = (uint32_t)number(index, NULL, "nprobe", 0);
	p->ef_search = (uint32_t)number(index, NULL, "ef_search", 0);
	p->train_rows = (uint32_t)number(index, NULL, "train_rows", 0);
}

void vk_ann_plan_of(const struct vk_colconf *conf, const struct vk_vector_conf *v, struct vk_ann_plan *out)
{
	const vk_jv *own = vk_jv_get(v->json, "hnsw_config"), *common = vk_jv_get(conf->root, "hnsw_config");
	const vk_jv *optimizer = vk_jv_get(conf->root, "optimizer_config");
	memset(out, 0, sizeof *out); /* padding, too: plans are compared whole */
	out->engine = VK_ANN_GRAPH;
	out->metric = v->set.metric;
	out->dims = v->set.dims;
	out->recall = VK_ANN_RECALL_DEFAULT;
	plan_own(vk_jv_get(vk_jv_get(v->json, "veckeep"), "index"), out);
	plan_graph(own, common, out);
	uint64_t indexing = number(optimizer, NULL, "indexing_threshold", INDEXING_DEFAULT);
	uint64_t scan = number(own, common, "full_scan_threshold", FULL_SCAN_DEFAULT);
	out->rows_min = rows_of_kb(indexing, out->dims);
	out->scan_rows_max = scan == FULL_SCAN_DEFAULT ? VK_ANN_SCAN_AUTO : rows_of_kb(scan, out->dims);
	out->threads = (uint32_t)number(own, common, "max_indexing_threads", 0);
	if (!indexing || !can_be_indexed(&v->set)) out->engine = VK_ANN_NONE;
}

bool vk_ann_plan_builds_alike(const struct vk_ann_plan *a, const struct vk_ann_plan *b)
{
	if (a->engine != b->engine || a->metric != b->metric || a->dims != b->dims) return false;
	if (a->engine == VK_ANN_GRAPH) return a->degree == b->degree && a->ef_build == b->ef_build && a->profile == b->profile;
	return a->engine != VK_ANN_FAISS || (!strcmp(a->factory, b->factory) && a->train_rows == b->train_rows);
}

/* Of the same fields. */
void vk_ann_made(const struct vk_ann_plan *p, uint8_t made[VK_ANN_MADE])
{
	uint8_t digest[VK_SHA256_SIZE];
	uint32_t word[7] = {p->engine, p->metric, p->dims};
	bool graph = p->engine == VK_ANN_GRAPH, faiss = p->engine == VK_ANN_FAISS;
	struct vk_sha256 h;
	if (graph) word[3] = p->degree, word[4] = p->ef_build, word[5] = p->profile;
	if (faiss) word[6] = p->train_rows;
	vk_sha256_init(&h);
	for (size_t i = 0; i < sizeof word / sizeof *word; i++) {
		uint8_t le[4];
		vk_put_u32le(le, word[i]);
		vk_sha256_update(&h, le, sizeof le);
	}
	if (faiss) vk_sha256_update(&h, p->factory, strlen(p->factory));
	vk_sha256_final(&h, digest);
	memcpy(made, digest, VK_ANN_MADE);
}

/* --- checking --- */

static enum vk_status bad(struct vk_error *err, const char *key, const char *want)
{
	return vk_fail_param(err, VK_E_INVALID, "", key, "index.%s: expected %s", key, want);
}

static bool is_word(const vk_jv *v, const char *const *names, int n)
{
	return vk_jv_type(v) == VK_J_NULL || word(v, names, n, -1) >= 0;
}

static bool is_count(const vk_jv *v, uint64_t max)
{
	uint64_t u;
	return vk_jv_type(v) == VK_J_NULL || (vk_jv_u64(v, &u) && u >= 1 && u <= max);
}

static enum vk_status check_names(const vk_jv *index, struct vk_error *err)
{
	static const char *const known[] = {"engine", "profile", "recall", "factory", "nprobe", "ef_search", "train_rows"};
	for (const vk_jv *m = vk_jv_first(index); m; m = vk_jv_next(m)) {
		size_t i = 0;
		while (i < sizeof known / sizeof *known && !vk_bytes_is(vk_jv_key(m), known[i])) i++;
		if (i == sizeof known / sizeof *known)
			return vk_fail_param(err, VK_E_INVALID, "", vk_jv_key(m).p,
					     "index.%s: unknown; known are engine, profile, recall, factory, nprobe, ef_search, "
					     "train_rows", vk_jv_key(m).p);
	}
	return VK_OK;
}

enum vk_status vk_ann_index_check(const vk_jv *index, const struct vk_set *s, struct vk_error *err)
{
	double recall = VK_ANN_RECALL_DEFAULT;
	struct vk_bytes factory = {0};
	if (vk_jv_type(index) == VK_J_NULL) return VK_OK;
	if (vk_jv_type(index) != VK_J_OBJECT) return vk_fail(err, VK_E_INVALID, "index: expected an object");
	enum vk_status st = check_names(index, err);
	if (st) return st;
	const vk_jv *engine = vk_jv_get(index, "engine"), *f = vk_jv_get(index, "factory"), *r = vk_jv_get(index, "recall");
	if (!is_word(engine, vk_ann_engine_names, VK_ANN_ENGINES)) return bad(err, "engine", "none, graph or faiss");
	if (!is_word(vk_jv_get(index, "profile"), vk_graph_profile_names, VK_GRAPH_PROFILES)) return bad(err, "profile", "auto, s8, s4 or p8");
	if (vk_jv_type(r) != VK_J_NULL && (!vk_jv_f64(r, &recall) || !(recall >= 0.5 && recall <= 0.999)))
		return bad(err, "recall", "0.5 to 0.999");
	if (vk_jv_type(f) != VK_J_NULL && (!vk_jv_str(f, &factory) || !factory.n || factory.n >= VK_ANN_FACTORY_MAX))
		return bad(err, "factory", "a factory string of 1 to 127 bytes, such as IVF1024,PQ32");
	if (word(engine, vk_ann_engine_names, VK_ANN_ENGINES, VK_ANN_GRAPH) == VK_ANN_FAISS && !factory.n)
		return bad(err, "factory", "a factory string, such as IVF1024,PQ32: engine faiss needs one");
	if (!is_count(vk_jv_get(index, "nprobe"), 1 << 20)) return bad(err, "nprobe", "1 to 1048576");
	if (!is_count(vk_jv_get(index, "ef_search"), VK_GRAPH_EF_MAX)) return bad(err, "ef_search", "1 to 65536");
	if (!is_count(vk_jv_get(index, "train_rows"), TRAIN_ROWS_MAX)) return bad(err, "train_rows", "1 to 10000000");
	if (word(engine, vk_ann_engine_names, VK_ANN_ENGINES, VK_ANN_NONE) != VK_ANN_NONE && !can_be_indexed(s))
		return vk_fail(err, VK_E_INVALID, "index: distance %s is searched exactly, no index is possible", vk_metric_names[s->metric]);
	return VK_OK;
}
