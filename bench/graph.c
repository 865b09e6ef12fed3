/*
 * The graph's search by itself, for tuning: recall@10 and queries a second of one thread over a grid of beams, on a set of bench/ann.
 * bench/ann compares with others; this one shows in seconds what a change did.
 *
 *   bench_graph SET_DIR DIMS cosine|l2|dot INDEX [profile=s8 degree=0 ef_build=0 alpha=0 rerank=20 seconds=0.7 ahead=N lines=N ef=N]
 *
 * INDEX is built when it is not there. A search is nomination and re-rank with the full rows. The last line reads the curve off at
 * 0.90, 0.95 and 0.99 (log-linear between measured points).
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "index/graph.h"
#include "index/topk.h"

#define K 10
#define RERANK_MAX 1024

struct set {
	const float *base, *query;
	const double *kth;
	uint32_t n, nq, dims;
	enum vk_metric metric;
};

static void *mapped(const char *dir, const char *name, size_t *bytes)
{
	char path[4096];
	struct stat st;
	snprintf(path, sizeof path, "%s/%s", dir, name);
	int fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st)) {
		perror(path);
		exit(1);
	}
	void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	close(fd);
	*bytes = (size_t)st.st_size;
	return p;
}

static struct set set_open(const char *dir, uint32_t dims, enum vk_metric metric)
{
	struct set s = {.dims = dims, .metric = metric};
	size_t bytes;
	s.base = mapped(dir, "base.f32", &bytes);
	s.n = (uint32_t)(bytes / 4 / dims);
	s.query = mapped(dir, "query.f32", &bytes);
	s.nq = (uint32_t)(bytes / 4 / dims);
	s.kth = mapped(dir, "kth.f64", &bytes);
	return s;
}

static const char *option(int argc, char **argv, const char *key)
{
	size_t n = strlen(key);
	for (int i = 5; i < argc; i++)
		if (!strncmp(argv[i], key, n) && argv[i][n] == '=') return argv[i] + n + 1;
	return NULL;
}

static double number(int argc, char **argv, const char *key, double otherwise)
{
	const char *v = option(argc, argv, key);
	return v ? strtod(v, NULL) : otherwise;
}

static enum vk_status row_at(void *arg, uint32_t i, float *dst, uint32_t *label)
{
	const struct set *s = arg;
	memcpy(dst, s->base + (size_t)i * s->dims, s->dims * sizeof *dst);
	*label = i;
	return VK_OK;
}

static struct vk_graph *graph_of(struct set *s, const char *path, int argc, char **argv)
{
	struct vk_graph *g;
	struct vk_error err = {0};
	uint64_t sequence;
	uint8_t tag[32] = {0};
	const char *profile = option(argc, argv, "profile");
	struct vk_graph_conf conf = {.dims = s->dims,
				     .metric = s->metric,
				     .degree = (uint32_t)number(argc, argv, "degree", 0),
				     .ef_build = (uint32_t)number(argc, argv, "ef_build", 0),
				     .alpha = (float)number(argc, argv, "alpha", 0),
				     .capacity = s->n,
				     .seed = 1,
				     .profile = profile && !strcmp(profile, "s4")   ? VK_GRAPH_S4
						: profile && !strcmp(profile, "p8") ? VK_GRAPH_P8
										    : VK_GRAPH_S8,
				     .level = vk_cpu_best()};
	if (access(path, R_OK)) {
		struct vk_graph_source src = {.n = s->n, .row = row_at, .arg = s};
		struct vk_graph_build_opts o = {.threads = 2};
		uint64_t start = vk_mono_us();
		if (vk_graph_new(&conf, &g, &err) || vk_graph_build(g, &src, &o, &err) || vk_graph_save(g, path, 1, tag, &err)) {
			fprintf(stderr, "%s\n", err.text);
			exit(1);
		}
		printf("built in %.1f s\n", (double)(vk_mono_us() - start) * 1e-6);
		vk_graph_free(g);
	}
	if (vk_graph_open(path, s->n, vk_cpu_best(), &g, &sequence, tag, &err) || vk_graph_promote(g)) {
		fprintf(stderr, "%s\n", err.text);
		exit(1);
	}
	return g;
}

struct run {
	struct set *s;
	struct vk_graph *g;
	struct vk_graph_scratch *scratch;
	uint32_t ef, rerank;
	uint64_t visited;
};

static double distance(const struct set *s, const float *q, uint32_t id)
{
	double sum = 0;
	const float *x = s->base + (size_t)id * s->dims;
	for (uint32_t i = 0; i < s->dims; i++) {
		double a = (double)q[i], b = (double)x[i];
		sum += s->metric == VK_METRIC_L2 ? (a - b) * (a - b) : a * b;
	}
	return s->metric == VK_METRIC_L2 ? sum : 1 - sum;
}

static size_t answer(struct run *r, const float *query, struct vk_hit *hit)
{
	uint32_t label[RERANK_MAX];
	float near[RERANK_MAX], raw[RERANK_MAX];
	const void *row[RERANK_MAX];
	struct vk_graph_query q = {.vector = query, .ef = r->ef, .want = r->rerank, .label = label, .near = near};
	struct vk_topk best;
	if (vk_graph_search(r->g, r->scratch, &q)) exit(1);
	r->visited += q.visited;
	if (getenv("NO_RERANK")) {
		for (uint32_t i = 0; i < K; i++) hit[i].slot = label[i];
		return K;
	}
	for (uint32_t i = 0; i < q.n; i++) row[i] = r->s->base + (size_t)label[i] * r->s->dims;
	vk_kernels(vk_cpu_best())->score_at[vk_metric_kind(r->s->metric)][VK_DTYPE_F32](query, row, q.n, r->s->dims, raw);
	vk_topk_init(&best, hit, K, -INFINITY, NULL, NULL);
	for (uint32_t i = 0; i < q.n; i++) vk_topk_push(&best, label[i], vk_rank_of_raw(r->s->metric, raw[i]));
	return vk_topk_finish(&best);
}

static double recall(struct run *r)
{
	struct vk_hit hit[RERANK_MAX];
	uint64_t found = 0;
	r->visited = 0;
	for (uint32_t i = 0; i < r->s->nq; i++) {
		const float *q = r->s->query + (size_t)i * r->s->dims;
		size_t n = answer(r, q, hit);
		double bar = r->s->kth[(size_t)i * 100 + K - 1] + 1e-7;
		for (size_t j = 0; j < n; j++) found += distance(r->s, q, hit[j].slot) <= bar;
	}
	return (double)found / ((double)r->s->nq * K);
}

/* The thread's own time: what others do on the same cores shows less. On a quiet machine it is the clock's. */
static uint64_t cpu_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static double rate(struct run *r, double seconds)
{
	struct vk_hit hit[RERANK_MAX];
	uint64_t start = cpu_us(), end = start + (uint64_t)(seconds * 1e6), calls = 0, now = start;
	for (; now < end; now = cpu_us())
		for (int i = 0; i < 20; i++, calls++) answer(r, r->s->query + (size_t)(calls % r->s->nq) * r->s->dims, hit);
	return (double)calls / ((double)(now - start) * 1e-6);
}

static double read_off(const double *rec, const double *qps, size_t n, double at)
{
	for (size_t i = 1; i < n; i++)
		if (rec[i - 1] < at && rec[i] >= at)
			return exp(log(qps[i - 1]) + (log(qps[i]) - log(qps[i - 1])) * (at - rec[i - 1]) / (rec[i] - rec[i - 1]));
	return NAN;
}

int main(int argc, char **argv)
{
	static const uint32_t efs[] = {10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024};
	double rec[32], qps[32];
	size_t n = 0;
	if (argc < 5) {
		fprintf(stderr, "usage: see the head of bench/graph.c\n");
		return 2;
	}
	enum vk_metric m = !strcmp(argv[3], "l2") ? VK_METRIC_L2 : !strcmp(argv[3], "dot") ? VK_METRIC_DOT : VK_METRIC_COSINE;
	struct set s = set_open(argv[1], (uint32_t)atoi(argv[2]), m);
	struct vk_graph *g = graph_of(&s, argv[4], argc, argv);
	struct run r = {.s = &s, .g = g, .scratch = vk_graph_scratch_take(g), .rerank = (uint32_t)number(argc, argv, "rerank", 20)};
	struct vk_graph_prefetch p = vk_graph_prefetch_get(g);
	p.ahead = (uint16_t)number(argc, argv, "ahead", p.ahead);
	p.lines = (uint16_t)number(argc, argv, "lines", p.lines);
	vk_graph_prefetch_set(g, p);
	double seconds = number(argc, argv, "seconds", 0.7), only = number(argc, argv, "ef", 0);
	struct vk_graph_stats st;
	vk_graph_stats(g, &st);
	printf("%u nodes, degree %.1f of %u, profile %s, error %.4f, ahead %u lines %u\n", st.nodes, (double)st.edges / st.nodes, st.degree,
	       vk_graph_profile_names[st.profile], st.code_error_built, p.ahead, p.lines);
	for (size_t i = 0; i < sizeof efs / sizeof *efs; i++) {
		if (only > 0 && efs[i] != (uint32_t)only) continue;
		r.ef = efs[i];
		rec[n] = recall(&r);
		double visited = (double)r.visited / s.nq;
		qps[n] = rate(&r, seconds);
		printf("ef %4u  recall %.4f  %7.0f/s  %6.1f us  %5.0f distances  %.1f ns each\n", r.ef, rec[n], qps[n], 1e6 / qps[n],
		       visited, 1e9 / qps[n] / visited);
		fflush(stdout);
		if (rec[n++] > 0.995) break;
	}
	printf("at 0.90 %.0f  0.95 %.0f  0.99 %.0f\n", read_off(rec, qps, n, 0.90), read_off(rec, qps, n, 0.95), read_off(rec, qps, n, 0.99));
	vk_graph_scratch_give(g, r.scratch);
	vk_graph_free(g);
	return 0;
}
