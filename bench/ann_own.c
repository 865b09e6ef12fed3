/*
 * Our graph as one of the libraries of bench/ann: the same words as bench/ann_peers.py, the same files, the same JSON.
 *
 *   bench_ann_own build SET_DIR INDEX THREADS DIMS METRIC KEY=VALUE...     profile degree ef_build alpha
 *   bench_ann_own serve SET_DIR INDEX DIMS METRIC KEY=VALUE...
 *
 * A search is what the server does: the graph nominates `rerank` rows by their codes, the canonical kernel scores these with the
 * full rows, and the K best are the answer. The rows stay where the server has them, in a file that is mapped; the graph is
 * opened from its file and promoted to huge pages. `index` says whose bytes are which.
 *
 * serve reads lines: ids THREADS FILE PARAMS, single SECONDS LEAST MOST PARAMS, batch SIZE THREADS SECONDS PARAMS, memory.
 * PARAMS: ef=N rerank=N [tune=MS].
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "index/graph.h"
#include "index/topk.h"

#define K 10
#define RERANK_MAX 4096
#define CALLS_MAX 1000000
#define WORDS_MAX 16
#define TUNE_MS 300
#define PIECE_MAX 16 /* queries that a thread takes at a time */

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_ann_own: %s: %s\n", what, why);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static double seconds_since(uint64_t start) { return (double)(now_ns() - start) * 1e-9; }

/* --- files --- */

struct rows {
	const float *row;
	uint32_t n, dims;
};

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

static uint64_t file_bytes(const char *path)
{
	struct stat st;
	return stat(path, &st) ? 0 : (uint64_t)st.st_size;
}

/* A line of /proc/self/FILE such as "VmHWM:  123 kB", in bytes; 0: not there. */
static uint64_t proc_bytes(const char *file, const char *key)
{
	char path[64], line[256];
	unsigned long long kb = 0;
	size_t n = strlen(key);
	snprintf(path, sizeof path, "/proc/self/%s", file);
	FILE *f = fopen(path, "r");
	while (f && !kb && fgets(line, sizeof line, f))
		if (!strncmp(line, key, n) && line[n] == ':') sscanf(line + n + 1, "%llu", &kb);
	if (f) fclose(f);
	return (uint64_t)kb << 10;
}

/* --- words --- */

/* The value of KEY among words "key=value", or `otherwise`. */
static double number(char **word, size_t n, const char *key, double otherwise)
{
	size_t length = strlen(key);
	for (size_t i = 0; i < n; i++)
		if (!strncmp(word[i], key, length) && word[i][length] == '=') return strtod(word[i] + length + 1, NULL);
	return otherwise;
}

static enum vk_graph_profile profile_of(char **word, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (int p = 0; p < VK_GRAPH_PROFILES; p++)
			if (!strncmp(word[i], "profile=", 8) && !strcmp(word[i] + 8, vk_graph_profile_names[p])) return (enum vk_graph_profile)p;
	return VK_GRAPH_AUTO;
}

/* --- build --- */

static enum vk_status row_at(void *arg, uint32_t i, float *dst, uint32_t *label)
{
	const struct rows *base = arg;
	memcpy(dst, base->row + (size_t)i * base->dims, base->dims * sizeof *dst);
	*label = i;
	return VK_OK;
}

static void print_graph(const struct vk_graph *g, const char *path)
{
	struct vk_graph_stats s;
	vk_graph_stats(g, &s);
	printf("\"profile\": \"%s\", \"degree\": %u, \"edges\": %llu, \"hot\": %llu, \"bytes\": %llu, \"chained\": %u, \"unreached\": %u, "
	       "\"code_error\": %.5f, \"version\": \"veckeep %s\"",
	       vk_graph_profile_names[s.profile], s.degree, (unsigned long long)s.edges, (unsigned long long)s.bytes,
	       (unsigned long long)file_bytes(path), s.chained, s.unreached, s.code_error_built, VK_VERSION);
}

static void build(const char *dir, const char *path, unsigned threads, uint32_t dims, enum vk_metric metric, char **word, size_t n)
{
	struct rows base = mapped(dir, "base.f32", dims);
	struct vk_graph *g;
	struct vk_error err = {0};
	struct vk_graph_conf conf = {.dims = dims,
				     .metric = metric,
				     .degree = (uint32_t)number(word, n, "degree", 0),
				     .ef_build = (uint32_t)number(word, n, "ef_build", 0),
				     .alpha = (float)number(word, n, "alpha", 0),
				     .profile = profile_of(word, n),
				     .capacity = base.n,
				     .seed = 20261123,
				     .level = vk_cpu_best()};
	struct vk_graph_source src = {.n = base.n, .row = row_at, .arg = &base};
	struct vk_graph_build_opts o = {.threads = threads};
	uint64_t start = now_ns();
	if (vk_graph_new(&conf, &g, &err) || vk_graph_build(g, &src, &o, &err)) die("build", err.text);
	double took = seconds_since(start);
	if (vk_graph_save(g, path, 1, (uint8_t[32]){0}, &err)) die(path, err.text);
	printf("{\"build_s\": %.4f, \"threads\": %u, \"peak_rss\": %llu, \"rows\": %llu, ", took, threads,
	       (unsigned long long)proc_bytes("status", "VmHWM"), (unsigned long long)base.n * dims * sizeof(float));
	print_graph(g, path);
	printf("}\n");
	vk_graph_free(g);
}

/* --- search --- */

struct server {
	struct rows base, query;
	enum vk_metric metric;
	const struct vk_kernels *kernels;
	struct vk_graph *graph;
	struct vk_pool *pool; /* the threads beside the one that asks */
	cpu_set_t cores;      /* those that this process began with */
};

struct asked {
	struct server *s;
	uint32_t ef, rerank, first, n, piece;
	int32_t *id; /* n x K, or NULL: answers are thrown away */
};

/* The K nearest of what the graph nominates, scored by the full rows; ties by id. */
static size_t answer(struct server *s, struct vk_graph_scratch *scratch, const struct asked *a, const float *query, struct vk_hit *hit)
{
	uint32_t label[RERANK_MAX];
	float near[RERANK_MAX], raw[RERANK_MAX];
	const void *row[RERANK_MAX];
	struct vk_graph_query q = {.vector = query, .ef = a->ef, .want = a->rerank, .label = label, .near = near};
	struct vk_topk best;
	if (vk_graph_search(s->graph, scratch, &q)) die("search", "failed");
	for (uint32_t i = 0; i < q.n; i++) row[i] = s->base.row + (size_t)label[i] * s->base.dims;
	s->kernels->score_at[vk_metric_kind(s->metric)][VK_DTYPE_F32](query, row, q.n, s->base.dims, raw);
	vk_topk_init(&best, hit, K, -INFINITY, NULL, NULL);
	for (uint32_t i = 0; i < q.n; i++) vk_topk_push(&best, label[i], vk_rank_of_raw(s->metric, raw[i]));
	return vk_topk_finish(&best);
}

static void answer_piece(void *arg, size_t piece)
{
	const struct asked *a = arg;
	struct server *s = a->s;
	struct vk_hit *hit = malloc(vk_topk_room(K) * sizeof *hit);
	struct vk_graph_scratch *scratch = vk_graph_scratch_take(s->graph);
	if (!hit || !scratch) die("memory", "none left");
	for (size_t i = piece * a->piece; i < a->n && i < (piece + 1) * a->piece; i++) {
		const float *query = s->query.row + (a->first + i) % s->query.n * s->base.dims;
		size_t n = answer(s, scratch, a, query, hit);
		for (size_t j = 0; a->id && j < K; j++) a->id[i * K + j] = j < n ? (int32_t)hit[j].slot : -1;
	}
	vk_graph_scratch_give(s->graph, scratch);
	free(hit);
}

static void answer_batch(struct asked *a, unsigned threads)
{
	uint32_t piece = a->n / (threads * 2);
	a->piece = piece < 1 ? 1 : piece > PIECE_MAX ? PIECE_MAX : piece;
	size_t pieces = (a->n + a->piece - 1) / a->piece;
	if (threads > 1) vk_pool_for(a->s->pool, pieces, answer_piece, a);
	else
		for (size_t i = 0; i < pieces; i++) answer_piece(a, i);
}

static struct asked asked_of(struct server *s, char **word, size_t n)
{
	struct asked a = {.s = s, .ef = (uint32_t)number(word, n, "ef", 64), .rerank = (uint32_t)number(word, n, "rerank", 2 * K)};
	if (a.rerank < 1 || a.rerank > RERANK_MAX || a.ef > VK_GRAPH_EF_MAX) die("params", "ef or rerank out of range");
	return a;
}

static void pin(struct server *s, bool alone)
{
	cpu_set_t last = s->cores;
	if (alone)
		for (int c = CPU_SETSIZE, seen = 0; c-- > 0;)
			if (CPU_ISSET(c, &last) && seen++) CPU_CLR(c, &last);
	if (sched_setaffinity(0, sizeof last, &last)) die("affinity", strerror(errno));
}

/* --- commands --- */

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static void command_ids(struct server *s, char **word, size_t n)
{
	if (n < 2) die("ids", "THREADS FILE PARAMS");
	struct asked a = asked_of(s, word + 2, n - 2);
	a.n = s->query.n;
	a.id = malloc((size_t)a.n * K * sizeof *a.id);
	if (!a.id) die("memory", "none left");
	uint64_t start = now_ns();
	answer_batch(&a, (unsigned)strtoul(word[0], NULL, 10));
	double took = seconds_since(start);
	FILE *f = fopen(word[1], "wb");
	if (!f || fwrite(a.id, K * sizeof *a.id, a.n, f) != a.n || fclose(f)) die(word[1], strerror(errno));
	printf("{\"qps\": %.2f}\n", a.n / took);
	free(a.id);
}

static void command_single(struct server *s, char **word, size_t n)
{
	static uint32_t ns[CALLS_MAX];
	if (n < 3) die("single", "SECONDS LEAST MOST PARAMS");
	struct asked a = asked_of(s, word + 3, n - 3);
	double seconds = strtod(word[0], NULL);
	size_t least = strtoul(word[1], NULL, 10), most = strtoul(word[2], NULL, 10), calls = 0;
	struct vk_hit *hit = malloc(vk_topk_room(K) * sizeof *hit);
	struct vk_graph_scratch *scratch = vk_graph_scratch_take(s->graph);
	if (!hit || !scratch) die("memory", "none left");
	if (most > CALLS_MAX) most = CALLS_MAX;
	pin(s, true);
	for (uint32_t i = 0; i < 20; i++) answer(s, scratch, &a, s->query.row + (size_t)(i % s->query.n) * s->base.dims, hit);
	uint64_t begun = now_ns(), last = begun;
	while (calls < most && (calls < least || (double)(last - begun) * 1e-9 < seconds)) {
		uint64_t start = now_ns();
		answer(s, scratch, &a, s->query.row + calls % s->query.n * s->base.dims, hit);
		last = now_ns();
		ns[calls++] = last - start > UINT32_MAX ? UINT32_MAX : (uint32_t)(last - start);
	}
	pin(s, false);
	qsort(ns, calls, sizeof *ns, by_value);
	printf("{\"qps\": %.2f, \"p50_us\": %.3f, \"p99_us\": %.3f, \"calls\": %zu}\n", (double)calls / ((double)(last - begun) * 1e-9),
	       ns[calls / 2] * 1e-3, ns[calls * 99 / 100] * 1e-3, calls);
	vk_graph_scratch_give(s->graph, scratch);
	free(hit);
}

static void command_batch(struct server *s, char **word, size_t n)
{
	if (n < 3) die("batch", "SIZE THREADS SECONDS PARAMS");
	struct asked a = asked_of(s, word + 3, n - 3);
	unsigned threads = (unsigned)strtoul(word[1], NULL, 10);
	double seconds = strtod(word[2], NULL);
	size_t calls = 0;
	a.n = (uint32_t)strtoul(word[0], NULL, 10);
	a.id = malloc((size_t)a.n * K * sizeof *a.id);
	if (!a.id || !a.n) die("batch", "SIZE");
	if (threads <= 1) pin(s, true);
	answer_batch(&a, threads);
	uint64_t start = now_ns();
	do {
		a.first = (uint32_t)(calls * a.n % s->query.n);
		answer_batch(&a, threads);
		calls++;
	} while (seconds_since(start) < seconds);
	double took = seconds_since(start);
	pin(s, false);
	printf("{\"qps\": %.2f, \"calls\": %zu}\n", (double)(calls * a.n) / took, calls);
	free(a.id);
}

static void command_memory(struct server *s, char **word, size_t n)
{
	(void)s, (void)word, (void)n;
	printf("{\"peak_rss\": %llu, \"anon\": %llu, \"file\": %llu, \"huge\": %llu}\n", (unsigned long long)proc_bytes("status", "VmHWM"),
	       (unsigned long long)proc_bytes("status", "RssAnon"), (unsigned long long)proc_bytes("status", "RssFile"),
	       (unsigned long long)proc_bytes("smaps_rollup", "AnonHugePages"));
}

static const struct {
	const char *name;
	void (*run)(struct server *s, char **word, size_t n);
} commands[] = {{"ids", command_ids}, {"single", command_single}, {"batch", command_batch}, {"memory", command_memory}};

static void obey(struct server *s, char *line)
{
	char *word[WORDS_MAX], *rest = NULL;
	size_t n = 0;
	for (char *w = strtok_r(line, " \n", &rest); w && n < WORDS_MAX; w = strtok_r(NULL, " \n", &rest)) word[n++] = w;
	for (size_t i = 0; n && i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(word[0], commands[i].name)) {
			commands[i].run(s, word + 1, n - 1);
			fflush(stdout);
			return;
		}
	die(n ? word[0] : "line", "not understood");
}

static void serve(const char *dir, const char *path, uint32_t dims, enum vk_metric metric, char **word, size_t n)
{
	struct server s = {.base = mapped(dir, "base.f32", dims),
			   .query = mapped(dir, "query.f32", dims),
			   .metric = metric,
			   .kernels = vk_kernels(vk_cpu_best())};
	struct vk_error err = {0};
	uint64_t sequence, start = now_ns();
	uint8_t tag[32];
	char line[4096];
	if (sched_getaffinity(0, sizeof s.cores, &s.cores)) die("affinity", strerror(errno));
	if (vk_graph_open(path, 0, vk_cpu_best(), &s.graph, &sequence, tag, &err)) die(path, err.text);
	double opened = seconds_since(start);
	if (vk_graph_promote(s.graph)) die(path, "cannot be promoted");
	double promoted = seconds_since(start);
	vk_graph_tune(s.graph, (unsigned)number(word, n, "tune", TUNE_MS));
	struct vk_graph_prefetch ahead = vk_graph_prefetch_get(s.graph);
	if (vk_cpu_cores() > 1 && !(s.pool = vk_pool_new(vk_cpu_cores() - 1, 64, "bench"))) die("threads", "none");
	printf("{\"load_s\": %.4f, \"open_s\": %.6f, \"overhead_us\": 0, \"rows\": %llu, \"tuned\": {\"ahead\": %u, \"lines\": %u}, ",
	       promoted, opened, (unsigned long long)s.base.n * dims * sizeof(float), ahead.ahead, ahead.lines);
	print_graph(s.graph, path);
	printf("}\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) obey(&s, line);
	vk_pool_free(s.pool);
	vk_graph_free(s.graph);
}

int main(int argc, char **argv)
{
	bool building = argc > 1 && !strcmp(argv[1], "build");
	int at = building ? 5 : 4; /* DIMS */
	if (argc < at + 2 || (!building && strcmp(argv[1], "serve"))) {
		fprintf(stderr, "bench_ann_own build SET_DIR INDEX THREADS DIMS METRIC KEY=VALUE... | serve SET_DIR INDEX DIMS METRIC ...\n");
		return 2;
	}
	uint32_t dims = (uint32_t)strtoul(argv[at], NULL, 10);
	enum vk_metric metric = !strcmp(argv[at + 1], "cosine") ? VK_METRIC_COSINE : VK_METRIC_L2;
	char **word = argv + at + 2;
	size_t n = (size_t)(argc - at - 2);
	if (!dims) die("DIMS", argv[at]);
	if (building) build(argv[2], argv[3], (unsigned)strtoul(argv[4], NULL, 10), dims, metric, word, n);
	else serve(argv[2], argv[3], dims, metric, word, n);
	return 0;
}
