/*
 * Filtered search by our graph as the server does it (index/ann_graph.c chooses the walk; what it gives up is scanned), over a set and an
 * index of bench/ann: recall@10 against exact search among the allowed rows, queries/s on one thread, beside the scan of
 * the allowed rows alone and the unfiltered search of the same width.
 *
 *   bench_ann_filter SET_DIR INDEX DIMS METRIC [ef=N] [queries=N] [seed=N] [seconds=S] [keep=DIR]
 *
 * Two kinds of filter: `random` rows, and `side`: rows on one side of a plane, so that what is allowed lies together and queries
 * may be far from it. A line of JSON each; its "way" is the server's: it scans where few are allowed, whatever the graph could do.
 *
 * keep=DIR leaves what a peer is measured with (bench/ann_filter_peer.py), by filter and share as they stand in the JSON:
 * DIR/random-0.5.bits, a bit a row in u64 words, little endian; DIR/random-0.5.truth, the K exact answers of each query, best first, as
 * u32 rows, NONE where fewer are allowed. What is unfiltered has no bits.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "index/ann.h"
#include "index/topk.h"

#define K 10
#define NONE UINT32_MAX
#define QUERIES_MAX 256

struct rows {
	const float *row;
	uint32_t n, dims;
};

struct run {
	struct rows base, query;
	enum vk_metric metric;
	const struct vk_kernels *k;
	struct vk_graph *g;
	uint64_t *allow; /* NULL: all */
	uint64_t allow_n;
	uint32_t *slot;  /* the allowed ones */
	const void **at; /* their rows */
	float *raw;      /* n */
	uint32_t *name;  /* a nomination each */
	uint32_t ef, queries;
	uint64_t seed;
	double seconds;               /* that a rate is measured for, at least */
	const char *keep;             /* NULL: nothing is kept */
};

/* The exact answers under the filter at hand. */
struct truth {
	struct vk_hit hit[QUERIES_MAX][K];
	uint32_t n[QUERIES_MAX];
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_ann_filter: %s: %s\n", what, why);
	exit(1);
}

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct rows mapped(const char *dir, const char *name, uint32_t dims)
{
	char path[4096];
	struct stat st;
	snprintf(path, sizeof path, "%s/%s", dir, name);
	int fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st)) die(path, strerror(errno));
	void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED) die(path, strerror(errno));
	close(fd);
	return (struct rows){p, (uint32_t)((size_t)st.st_size / 4 / dims), dims};
}

/* --- searching --- */

/* The K best of n rows: by score, ties by slot. */
static size_t best_of(struct run *r, const float *query, const uint32_t *slot, size_t n, struct vk_hit *hit)
{
	struct vk_topk best;
	for (size_t i = 0; i < n; i++) r->at[i] = r->base.row + (size_t)slot[i] * r->base.dims;
	r->k->score_at[vk_metric_kind(r->metric)][VK_DTYPE_F32](query, r->at, n, r->base.dims, r->raw);
	vk_topk_init(&best, hit, K, -INFINITY, NULL, NULL);
	for (size_t i = 0; i < n; i++) vk_topk_push(&best, slot[i], vk_rank_of_raw(r->metric, r->raw[i]));
	return vk_topk_finish(&best);
}

struct answer {
	size_t n;
	bool scanned;
	uint64_t visited;
};

static struct answer search(struct run *r, const float *query, struct vk_hit *hit)
{
	struct vk_ann_ask ask = {.vector = query, .ef = r->ef, .want = vk_ann_graph.want(r->g, K, r->ef), .slot = r->name, .allow = r->allow,
				 .allow_n = r->base.n, .allow_count = r->allow_n};
	if (vk_ann_graph.nominate(r->g, &ask)) die("search", "failed");
	struct answer a = {.visited = ask.visited, .scanned = ask.gave_up || ask.n < K};
	a.n = a.scanned ? best_of(r, query, r->slot, r->allow_n, hit) : best_of(r, query, r->name, ask.n, hit);
	return a;
}

/* --- filters --- */

static void allow_all(struct run *r)
{
	r->allow_n = r->base.n;
	for (uint32_t i = 0; i < r->base.n; i++) r->slot[i] = i;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return x < y ? -1 : x > y;
}

/* What lies farthest in a random direction, so many of it. */
static float edge_of_side(struct run *r, const float *direction, double share)
{
	uint32_t some = r->base.n < 20000 ? r->base.n : 20000;
	float *sample = malloc(some * sizeof *sample);
	if (!sample) die("memory", "none left");
	for (uint32_t i = 0; i < some; i++) {
		const float *row = r->base.row + (size_t)((uint64_t)i * r->base.n / some) * r->base.dims;
		sample[i] = 0;
		for (uint32_t d = 0; d < r->base.dims; d++) sample[i] += row[d] * direction[d];
	}
	qsort(sample, some, sizeof *sample, by_value);
	float edge = sample[(uint32_t)((1 - share) * (some - 1))];
	free(sample);
	return edge;
}

static void allow_some(struct run *r, uint64_t *bits, double share, bool side)
{
	uint64_t rng = r->seed;
	float *direction = calloc(r->base.dims, sizeof *direction), edge = 0;
	if (!direction) die("memory", "none left");
	for (uint32_t d = 0; d < r->base.dims; d++) direction[d] = (float)(vk_rng(&rng) >> 40) / (float)(1 << 23) - 1;
	if (side) edge = edge_of_side(r, direction, share);
	memset(bits, 0, ((size_t)r->base.n / 64 + 1) * sizeof *bits);
	r->allow = bits;
	r->allow_n = 0;
	for (uint32_t i = 0; i < r->base.n; i++) {
		const float *row = r->base.row + (size_t)i * r->base.dims;
		float far = 0;
		for (uint32_t d = 0; side && d < r->base.dims; d++) far += row[d] * direction[d];
		if (side ? far < edge : (double)(vk_rng(&rng) >> 11) * 0x1p-53 >= share) continue;
		bits[i / 64] |= (uint64_t)1 << (i % 64);
		r->slot[r->allow_n++] = i;
	}
	free(direction);
}

/* --- what a peer needs --- */

static void keep_file(const struct run *r, const char *kind, double share, const char *what, const void *data, size_t n)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/%s-%g.%s", r->keep, kind, share, what);
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(data, 1, n, f) != n || fclose(f)) die(path, strerror(errno));
}

static void keep_filter(const struct run *r, const char *kind, double share, const struct truth *t)
{
	uint32_t *row = malloc((size_t)r->queries * K * sizeof *row);
	if (!row) die("memory", "none left");
	for (uint32_t i = 0; i < r->queries; i++)
		for (uint32_t j = 0; j < K; j++) row[i * K + j] = j < t->n[i] ? t->hit[i][j].slot : NONE;
	keep_file(r, kind, share, "truth", row, (size_t)r->queries * K * sizeof *row);
	if (r->allow) keep_file(r, kind, share, "bits", r->allow, ((size_t)r->base.n + 63) / 64 * sizeof *r->allow);
	free(row);
}

/* --- measuring --- */

static const float *query_at(const struct run *r, uint32_t i) { return r->query.row + (size_t)i * r->query.dims; }

static void scan_all(struct run *r, struct truth *t, struct vk_hit *hit)
{
	for (uint32_t i = 0; i < r->queries; i++) {
		t->n[i] = (uint32_t)best_of(r, query_at(r, i), r->slot, r->allow_n, hit);
		memcpy(t->hit[i], hit, t->n[i] * sizeof *hit);
	}
}

struct walks {
	size_t good, all, scanned;
	uint64_t visited;
};

static struct walks walk_all(struct run *r, const struct truth *t, struct vk_hit *hit)
{
	struct walks w = {0};
	for (uint32_t i = 0; i < r->queries; i++) {
		struct answer a = search(r, query_at(r, i), hit);
		w.scanned += a.scanned;
		w.visited += a.visited;
		w.all += t->n[i];
		for (size_t j = 0; j < a.n; j++) w.good += hit[j].rank >= t->hit[i][t->n[i] - 1].rank;
	}
	return w;
}

/* Queries a second: of the first pass, if that was long enough; else of the passes after it, which find everything in its place. */
static double rate(struct run *r, struct truth *t, struct vk_hit *hit, struct walks *w)
{
	double began = now_s(), took;
	uint32_t passes = 0;
	if (w) *w = walk_all(r, t, hit);
	else scan_all(r, t, hit);
	if ((took = now_s() - began) >= r->seconds) return r->queries / took;
	began = now_s();
	do {
		if (w) walk_all(r, t, hit);
		else scan_all(r, t, hit);
		passes++;
	} while ((took = now_s() - began) < r->seconds);
	return (double)passes * r->queries / took;
}

/* As the server decides: index/ann_search.c, index/ann_graph.c. */
static const char *way(const struct run *r)
{
	uint64_t few = r->base.n / VK_ANN_FEW_IN_ALL, most = vk_ann_graph.scan_rows(r->allow_n, r->base.n, r->ef);
	if (most > few) few = most;
	if (r->allow_n <= few) return "scan";
	return r->allow && (double)r->allow_n < VK_ANN_TWO_HOP_SHARE * r->base.n ? "two hop" : "plain";
}

static void measure(struct run *r, const char *kind, double share)
{
	struct truth *t = malloc(sizeof *t);
	struct vk_hit *hit = malloc(vk_topk_room(K) * sizeof *hit);
	struct walks w;
	if (!t || !hit) die("memory", "none left");
	double scan_qps = rate(r, t, hit, NULL), qps = rate(r, t, hit, &w);
	if (r->keep) keep_filter(r, kind, share, t);
	printf("{\"filter\": \"%s\", \"share\": %g, \"allowed\": %llu, \"way\": \"%s\", \"ef\": %u, \"queries\": %u, \"recall\": %.4f, "
	       "\"qps\": %.1f, \"scan_qps\": %.1f, \"scanned\": %.3f, \"visited\": %.0f}\n",
	       kind, share, (unsigned long long)r->allow_n, way(r), r->ef, r->queries, w.all ? (double)w.good / (double)w.all : 1, qps,
	       scan_qps, (double)w.scanned / r->queries, (double)w.visited / r->queries);
	fflush(stdout);
	free(hit);
	free(t);
}

static const char *option_text(int argc, char **argv, const char *key)
{
	size_t n = strlen(key);
	for (int i = 5; i < argc; i++)
		if (!strncmp(argv[i], key, n) && argv[i][n] == '=') return argv[i] + n + 1;
	return NULL;
}

static double option(int argc, char **argv, const char *key, double otherwise)
{
	const char *text = option_text(argc, argv, key);
	return text ? strtod(text, NULL) : otherwise;
}

int main(int argc, char **argv)
{
	static const double share[] = {0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001};
	if (argc < 5) {
		fprintf(stderr, "bench_ann_filter SET_DIR INDEX DIMS METRIC [ef=N] [queries=N] [seed=N] [seconds=S] [keep=DIR]\n");
		return 2;
	}
	uint32_t dims = (uint32_t)strtoul(argv[3], NULL, 10);
	struct run r = {.base = mapped(argv[1], "base.f32", dims), .query = mapped(argv[1], "query.f32", dims), .k = vk_kernels(vk_cpu_best()),
			.metric = !strcmp(argv[4], "cosine") ? VK_METRIC_COSINE : VK_METRIC_L2};
	struct vk_error err = {0};
	uint64_t sequence;
	uint8_t tag[32];
	r.ef = (uint32_t)option(argc, argv, "ef", 64);
	r.queries = (uint32_t)option(argc, argv, "queries", 200);
	r.seed = (uint64_t)option(argc, argv, "seed", 1);
	r.seconds = option(argc, argv, "seconds", 0);
	r.keep = option_text(argc, argv, "keep");
	if (r.queries > QUERIES_MAX) r.queries = QUERIES_MAX;
	if (r.queries > r.query.n) r.queries = r.query.n;
	if (!r.ef || !r.queries) die("options", "ef and queries are at least 1");
	uint64_t *bits = malloc(((size_t)r.base.n / 64 + 1) * sizeof *bits);
	r.slot = malloc(r.base.n * sizeof *r.slot);
	r.at = malloc(r.base.n * sizeof *r.at);
	r.raw = malloc(r.base.n * sizeof *r.raw);
	r.name = malloc((4 * K + 64) * sizeof *r.name) /* no profile wants more */;
	if (!bits || !r.slot || !r.at || !r.raw || !r.name) die("memory", "none left");
	if (vk_graph_open(argv[2], 0, vk_cpu_best(), &r.g, &sequence, tag, &err)) die(argv[2], err.text);
	if (vk_graph_promote(r.g)) die(argv[2], "cannot be promoted");
	vk_graph_tune(r.g, 300);
	allow_all(&r);
	measure(&r, "none", 1);
	for (int side = 0; side < 2; side++)
		for (size_t i = 0; i < sizeof share / sizeof *share; i++) {
			allow_some(&r, bits, share[i], side);
			measure(&r, side ? "side" : "random", share[i]);
		}
	vk_graph_free(r.g);
	free(bits);
	free(r.slot);
	free(r.at);
	free(r.raw);
	free(r.name);
	return 0;
}
