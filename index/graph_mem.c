/*
 * A graph's memory: sections in reserved address space, labels, dead bits; new, free, stats.
 *
 * Reserved with MAP_NORESERVE and never moved: an address is good for the graph's life, readers take no lock, and a page
 * costs when it is touched. Where the machine refuses so much address space (ulimit -v, strict overcommit) the capacity is
 * halved until all sections are had together.
 *
 * Not taken: chunks of 64 MiB (a load and a shift more a neighbour, and a table to grow), mremap (moves under readers).
 */
#include "index/graph_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "store/patch.h"

#define CAPACITY_LEAST 1024u
/* At 32 GloVe's 100 dimensions are left with 0.57 of the queries a second at recall 0.95 and 0.47 at 0.99; building takes a third less.
 * Of rows that are easier to search some profiles gain at 32 and others lose, by a seventh at most (bench/RESULTS.md). */
#define DEGREE 64
#define DIMS_MAX 65536u /* 255 * 128 * dims fits 31 bits */
#define LABELS_MAX VK_GRAPH_NODES_MAX /* address space for node_of; touched by the labels that are used */

/* --- sections --- */

static void slab_drop(struct vk_graph_slab *s)
{
	if (s->mapped) vk_patch_remove(s->p);
	if (s->p) munmap(s->p, s->reserved);
	*s = (struct vk_graph_slab){0};
}

static bool slab_take(struct vk_graph_slab *s, size_t stride, size_t count, bool huge)
{
	size_t bytes = (stride * count + 4095) & ~(size_t)4095;
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) return false;
	if (huge) (void)madvise(p, bytes, MADV_HUGEPAGE); /* a wish: without it all works, slower */
	*s = (struct vk_graph_slab){.p = p, .stride = stride, .reserved = bytes};
	return true;
}

static void sections_drop(struct vk_graph *g)
{
	slab_drop(&g->code);
	slab_drop(&g->edge);
	slab_drop(&g->label);
	slab_drop(&g->chain);
	slab_drop(&g->in);
	slab_drop(&g->dead);
	slab_drop(&g->chains);
	slab_drop(&g->node_of);
}

static bool sections_take(struct vk_graph *g, size_t nodes, size_t labels)
{
	bool had = slab_take(&g->code, vk_graph_code_stride(g->codec, g->code_dims), nodes, true) &&
		   slab_take(&g->edge, (size_t)g->conf.degree * sizeof(uint32_t), nodes, true) &&
		   slab_take(&g->label, sizeof(uint32_t), nodes, false) &&
		   slab_take(&g->chain, sizeof(uint32_t), nodes, false) &&
		   slab_take(&g->in, sizeof(uint16_t), nodes, false) &&
		   slab_take(&g->dead, sizeof(uint64_t), (nodes + 63) / 64, false) &&
		   slab_take(&g->chains, sizeof(uint64_t), (nodes + 63) / 64, false) &&
		   slab_take(&g->node_of, sizeof(uint32_t), labels, false);
	if (!had) sections_drop(g);
	return had;
}

enum vk_status vk_graph_reserve(struct vk_graph *g, struct vk_error *err)
{
	size_t labels = LABELS_MAX;
	sections_drop(g);
	for (uint32_t nodes = g->conf.capacity;; nodes /= 2, labels /= 2) {
		if (sections_take(g, nodes, labels)) {
			g->conf.capacity = nodes;
			return VK_OK;
		}
		if (nodes <= CAPACITY_LEAST) break;
	}
	return vk_fail(err, VK_E_NOMEM, "no address space for a graph of %u nodes", g->conf.capacity);
}

/* --- labels and dead bits --- */

void vk_graph_set_dead(struct vk_graph *g, uint32_t node, bool dead)
{
	uint64_t *word = (uint64_t *)(void *)g->dead.p + node / 64, bit = (uint64_t)1 << (node % 64);
	uint64_t before = dead ? __atomic_fetch_or(word, bit, __ATOMIC_RELAXED)
			       : __atomic_fetch_and(word, ~bit, __ATOMIC_RELAXED);
	if (dead && !(before & bit)) __atomic_fetch_add(&g->dead_n, 1, __ATOMIC_RELAXED);
	if (!dead && (before & bit)) __atomic_fetch_sub(&g->dead_n, 1, __ATOMIC_RELAXED);
}

void vk_graph_chains_note(struct vk_graph *g, uint32_t first)
{
	__atomic_fetch_or((uint64_t *)(void *)g->chains.p + first / 64, (uint64_t)1 << (first % 64), __ATOMIC_RELEASE);
}

void vk_graph_chains_find(struct vk_graph *g, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (*vk_graph_chain_at(g, i) != VK_GRAPH_NONE) vk_graph_chains_note(g, i);
}

static uint32_t *node_of_at(const struct vk_graph *g, uint32_t label)
{
	return (uint32_t *)(void *)g->node_of.p + label;
}

uint32_t vk_graph_node_of(const struct vk_graph *g, uint32_t label)
{
	if (label >= __atomic_load_n(&g->labels, __ATOMIC_ACQUIRE)) return VK_GRAPH_NONE;
	return __atomic_load_n(node_of_at(g, label), __ATOMIC_RELAXED) - 1; /* 0 becomes VK_GRAPH_NONE */
}

enum vk_status vk_graph_bind(struct vk_graph *g, uint32_t label, uint32_t node)
{
	if (label >= g->node_of.reserved / sizeof(uint32_t)) return VK_E_NO_SPACE;
	__atomic_store_n(node_of_at(g, label), node + 1, __ATOMIC_RELAXED);
	if (label >= g->labels) __atomic_store_n(&g->labels, label + 1, __ATOMIC_RELEASE);
	return VK_OK;
}

bool vk_graph_has(const struct vk_graph *g, uint32_t label)
{
	return vk_graph_node_of(g, label) != VK_GRAPH_NONE;
}

/* --- new and free --- */

static enum vk_status conf_check(const struct vk_graph_conf *c, struct vk_error *err)
{
	if (!c->dims || c->dims > DIMS_MAX)
		return vk_fail(err, VK_E_INVALID, "a graph's dims must be 1 to %u", DIMS_MAX);
	if (c->metric != VK_METRIC_DOT && c->metric != VK_METRIC_COSINE && c->metric != VK_METRIC_L2)
		return vk_fail(err, VK_E_INVALID, "a graph searches by dot, cosine or squared L2");
	if (c->degree % 16 || c->degree > VK_GRAPH_DEGREE_MAX)
		return vk_fail(err, VK_E_INVALID, "a graph's degree must be a multiple of 16, at most %u", VK_GRAPH_DEGREE_MAX);
	if (c->ef_build > VK_GRAPH_EF_MAX) return vk_fail(err, VK_E_INVALID, "ef_build must be at most %u", VK_GRAPH_EF_MAX);
	if (!(c->alpha >= 0 && c->alpha <= 4)) return vk_fail(err, VK_E_INVALID, "alpha must be 0 to 4");
	if (c->capacity > VK_GRAPH_NODES_MAX)
		return vk_fail(err, VK_E_INVALID, "a graph holds at most %u nodes", VK_GRAPH_NODES_MAX);
	if ((unsigned)c->profile >= VK_GRAPH_PROFILES) return vk_fail(err, VK_E_INVALID, "no such graph profile");
	return VK_OK;
}

static void conf_defaults(struct vk_graph_conf *c)
{
	if (!c->degree) c->degree = DEGREE;
	if (!c->ef_build) c->ef_build = 128;
	if (c->alpha == 0) c->alpha = 1.2f;
	if (!c->capacity) c->capacity = VK_GRAPH_CAPACITY_DEFAULT;
	if (c->capacity < CAPACITY_LEAST) c->capacity = CAPACITY_LEAST;
}

/* Until vk_graph_tune() knows better. Codes of few lines are fetched farther ahead (340k x 100 d: 16 codes 6 % faster than 8). */
static struct vk_graph_prefetch prefetch_untuned(const struct vk_graph *g)
{
	return (struct vk_graph_prefetch){g->code.stride <= 256 ? 16 : 8, 8};
}

/* AUTO and P8 start as S8 of all dims: the builder, who knows the rows, decides and reserves again. */
enum vk_status vk_graph_new(const struct vk_graph_conf *conf, struct vk_graph **out, struct vk_error *err)
{
	*out = NULL;
	enum vk_status st = conf_check(conf, err);
	if (st) return st;
	struct vk_graph *g = calloc(1, sizeof *g);
	if (!g) return vk_fail(err, VK_E_NOMEM, "no memory for a graph");
	g->conf = *conf;
	conf_defaults(&g->conf);
	g->k = vk_kernels(conf->level);
	g->codec = vk_graph_codec_of(conf->profile);
	g->code_dims = conf->dims;
	atomic_store(&g->epoch, 1);
	pthread_mutex_init(&g->scratch_lock, NULL);
	g->mean = calloc(conf->dims, sizeof *g->mean);
	st = g->mean ? vk_graph_reserve(g, err) : vk_fail(err, VK_E_NOMEM, "no memory for a graph");
	if (st) {
		vk_graph_free(g);
		return st;
	}
	vk_graph_prefetch_set(g, prefetch_untuned(g));
	*out = g;
	return VK_OK;
}

void vk_graph_free(struct vk_graph *g)
{
	if (!g) return;
	if (g->grow_free) g->grow_free(g);
	vk_graph_search_free(g);
	sections_drop(g);
	free(g->mean);
	free(g->axes);
	free(g->spare);
	pthread_mutex_destroy(&g->scratch_lock);
	free(g);
}

/* --- stats --- */

/* By in-degrees: two bytes a node instead of its whole row. A hub's count saturates at 65,535. */
static uint64_t edges_count(const struct vk_graph *g, uint32_t n)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; i < n; i++)
		sum += __atomic_load_n((const uint16_t *)(const void *)g->in.p + i, __ATOMIC_RELAXED);
	return sum;
}

static double error_mean(const struct vk_graph *g)
{
	double sum;
	uint64_t n = __atomic_load_n(&g->error_n, __ATOMIC_RELAXED);
	__atomic_load(&g->error_sum, &sum, __ATOMIC_RELAXED);
	return n ? sum / (double)n : 0;
}

uint32_t vk_graph_live(const struct vk_graph *g)
{
	return atomic_load_explicit(&g->n, memory_order_acquire) - __atomic_load_n(&g->dead_n, __ATOMIC_RELAXED);
}

enum vk_graph_profile vk_graph_profile(const struct vk_graph *g)
{
	return g->axes ? VK_GRAPH_P8 : g->codec->profile;
}

void vk_graph_stats(const struct vk_graph *g, struct vk_graph_stats *out)
{
	uint32_t n = atomic_load_explicit(&g->n, memory_order_acquire);
	uint64_t a_node = g->code.stride + g->edge.stride + g->label.stride + g->chain.stride + g->in.stride;
	*out = (struct vk_graph_stats){
	    .nodes = n,
	    .dead = __atomic_load_n(&g->dead_n, __ATOMIC_RELAXED),
	    .chained = __atomic_load_n(&g->chained_n, __ATOMIC_RELAXED),
	    .unreached = __atomic_load_n(&g->unreached, __ATOMIC_RELAXED),
	    .degree = g->conf.degree,
	    .profile = vk_graph_profile(g),
	    .edges = edges_count(g, n),
	    .bytes = n * a_node + n / 8 + (uint64_t)__atomic_load_n(&g->labels, __ATOMIC_RELAXED) * sizeof(uint32_t),
	    .code_error = error_mean(g),
	    .code_error_built = g->error_built,
	    .coded = __atomic_load_n(&g->error_n, __ATOMIC_RELAXED),
	};
	out->live = n - out->dead;
	out->lost = atomic_load(&g->lost);
}
