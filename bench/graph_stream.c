/*
 * Does recall decay while points are replaced? A graph of n rows; each round a part of its labels, drawn at random, gets new rows,
 * repair keeping up as the worker of index/ann_work.c does; then recall@10 and queries a second of one thread, against the exact
 * answer over what is there now. At the end a graph built anew over the same rows, to compare.
 *
 *   bench_graph_stream SET_DIR DIMS cosine|l2|dot [n=20000 part=0.2 rounds=10 ef=40 queries=300 rerank=20]
 *
 * SET_DIR: base.f32 and query.f32 of bench/ann; n (1 + part * rounds) rows are used. Prints a line a round: share replaced so far,
 * recall, queries a second, dead nodes, microseconds a put; bench/graph_stream.py draws them.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "index/graph.h"
#include "simd/score.h"

#define K 10u
#define RERANK_MAX 1024u
#define STEP_ROWS 8 /* index/ann_work.c */
#define STEP_NODES 64

struct stream {
	const float *base, *query;
	uint32_t dims, all, queries_all, n, queries, ef, rerank;
	enum vk_metric metric;
	uint32_t *row_of; /* of each label */
	struct vk_graph *g;
};

static const float *mapped(const char *dir, const char *name, uint32_t dims, uint32_t *rows)
{
	char path[4096];
	struct stat st;
	snprintf(path, sizeof path, "%s/%s", dir, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p = fd < 0 || fstat(fd, &st) ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED) {
		perror(path);
		exit(1);
	}
	close(fd);
	*rows = (uint32_t)((size_t)st.st_size / sizeof(float) / dims);
	return p;
}

static double option(int argc, char **argv, const char *key, double otherwise)
{
	size_t n = strlen(key);
	for (int i = 4; i < argc; i++)
		if (!strncmp(argv[i], key, n) && argv[i][n] == '=') return strtod(argv[i] + n + 1, NULL);
	return otherwise;
}

static const float *row_at(const struct stream *s, uint32_t label)
{
	return s->base + (size_t)s->row_of[label] * s->dims;
}

static float rank_of(const struct stream *s, const float *q, uint32_t label)
{
	const float *x = row_at(s, label);
	float sum = 0;
	for (uint32_t i = 0; i < s->dims; i++) sum += s->metric == VK_METRIC_L2 ? -(q[i] - x[i]) * (q[i] - x[i]) : q[i] * x[i];
	return sum;
}

static enum vk_status source_row(void *arg, uint32_t i, float *dst, uint32_t *label)
{
	const struct stream *s = arg;
	memcpy(dst, row_at(s, i), s->dims * sizeof *dst);
	*label = i;
	return VK_OK;
}

static struct vk_graph *build(struct stream *s)
{
	struct vk_graph_conf conf = {.dims = s->dims, .metric = s->metric, .profile = VK_GRAPH_S8, .seed = 1, .level = vk_cpu_best()};
	struct vk_graph_source src = {.n = s->n, .row = source_row, .arg = s};
	struct vk_graph_build_opts o = {0};
	struct vk_error err = {0};
	struct vk_graph *g;
	if (vk_graph_new(&conf, &g, &err) || vk_graph_build(g, &src, &o, &err)) {
		fprintf(stderr, "%s\n", err.text);
		exit(1);
	}
	return g;
}

/* --- recall --- */

static int descending(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x < y) - (x > y);
}

/* The rank of the K-th nearest now, for each query. */
static void truths(const struct stream *s, float *kth)
{
	float *rank = malloc(s->n * sizeof *rank);
	for (uint32_t q = 0; q < s->queries; q++) {
		for (uint32_t i = 0; i < s->n; i++) rank[i] = rank_of(s, s->query + (size_t)q * s->dims, i);
		qsort(rank, s->n, sizeof *rank, descending);
		kth[q] = rank[K - 1];
	}
	free(rank);
}

static uint32_t found(const struct stream *s, struct vk_graph *g, struct vk_graph_scratch *scratch, uint32_t q, float kth)
{
	const float *vector = s->query + (size_t)q * s->dims;
	uint32_t label[RERANK_MAX], good = 0;
	float near[RERANK_MAX], rank[RERANK_MAX];
	struct vk_graph_query ask = {.vector = vector, .ef = s->ef, .want = s->rerank, .label = label, .near = near};
	if (vk_graph_search(g, scratch, &ask)) exit(1);
	for (uint32_t i = 0; i < ask.n; i++) rank[i] = rank_of(s, vector, label[i]);
	qsort(rank, ask.n, sizeof *rank, descending);
	for (uint32_t i = 0; i < ask.n && i < K; i++) good += rank[i] >= kth;
	return good;
}

static void report(const struct stream *s, struct vk_graph *g, const char *what, double put_us)
{
	float *kth = malloc(s->queries * sizeof *kth);
	struct vk_graph_scratch *scratch = vk_graph_scratch_take(g);
	struct vk_graph_stats stats;
	uint64_t good = 0;
	truths(s, kth);
	uint64_t began = vk_mono_us();
	for (uint32_t q = 0; q < s->queries; q++) good += found(s, g, scratch, q, kth[q]);
	double seconds = (double)(vk_mono_us() - began) * 1e-6;
	vk_graph_scratch_give(g, scratch);
	vk_graph_stats(g, &stats);
	printf("%s\t%.4f\t%.0f\t%u\t%.0f\n", what, (double)good / (K * s->queries), s->queries / seconds, stats.dead, put_us);
	fflush(stdout);
	free(kth);
}

/* --- the stream --- */

static void replace(struct stream *s, uint32_t count, uint32_t *next, uint64_t *rng)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t label = (uint32_t)(vk_rng(rng) % s->n);
		s->row_of[label] = *next;
		*next = *next + 1 < s->all ? *next + 1 : 0;
		if (vk_graph_put(s->g, label, row_at(s, label))) exit(1);
		if (i % STEP_ROWS == 0) (void)vk_graph_consolidate_step(s->g, STEP_NODES);
	}
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: %s SET_DIR DIMS cosine|l2|dot [n= part= rounds= ef= queries= rerank=]\n", argv[0]);
		return 2;
	}
	struct stream s = {.dims = (uint32_t)atoi(argv[2])};
	s.metric = !strcmp(argv[3], "l2") ? VK_METRIC_L2 : !strcmp(argv[3], "dot") ? VK_METRIC_DOT : VK_METRIC_COSINE;
	s.base = mapped(argv[1], "base.f32", s.dims, &s.all);
	s.query = mapped(argv[1], "query.f32", s.dims, &s.queries_all);
	s.n = (uint32_t)option(argc, argv, "n", 20000);
	s.ef = (uint32_t)option(argc, argv, "ef", 40);
	s.queries = (uint32_t)option(argc, argv, "queries", 300);
	s.rerank = (uint32_t)option(argc, argv, "rerank", 20);
	double part = option(argc, argv, "part", 0.2);
	uint32_t rounds = (uint32_t)option(argc, argv, "rounds", 10), next = s.n;
	if (s.n > s.all || s.n < K || s.queries > s.queries_all || s.rerank > RERANK_MAX || s.rerank < K) {
		fprintf(stderr, "%u rows and %u queries are there\n", s.all, s.queries_all);
		return 2;
	}
	s.row_of = malloc(s.n * sizeof *s.row_of);
	for (uint32_t i = 0; i < s.n; i++) s.row_of[i] = i;
	s.g = build(&s);
	printf("# %s, %u rows, ef %u, rerank %u\n# replaced\trecall\tqueries/s\tdead\tus/put\n", argv[1], s.n, s.ef, s.rerank);
	report(&s, s.g, "0.0", 0);
	uint64_t rng = 1;
	for (uint32_t r = 1; r <= rounds; r++) {
		char what[32];
		uint32_t count = (uint32_t)(part * s.n);
		uint64_t began = vk_mono_us();
		replace(&s, count, &next, &rng);
		snprintf(what, sizeof what, "%.1f", r * part);
		report(&s, s.g, what, (double)(vk_mono_us() - began) / count);
	}
	vk_graph_free(s.g);
	s.g = build(&s);
	report(&s, s.g, "built", 0);
	vk_graph_free(s.g);
	free(s.row_of);
	return 0;
}
