/*
 * Exact search over a real collection, driven by bench/search_peers.py so that peers take turns with it on the same data.
 *
 *   bench_search make FILE ROWS DIMS QUERIES SEED     rows to FILE, held-out queries to FILE.queries (raw f32)
 *   bench_search serve DIR FILE ROWS DIMS DTYPE METRIC [binary]
 *       DTYPE float32, float16, uint8; METRIC Cosine, Dot, Euclid. Fills the collection in DIR from FILE where it is
 *       empty, in durable batches of 256, and says how fast; then answers lines from stdin with a JSON object each:
 *         search PATH QUERIES THREADS SECONDS LIMIT PERMILLE   PATH auto scan certified gemm few bits; PERMILLE of the
 *             rows, at random, as the filter (1000: none). The fastest and the median call within SECONDS.
 *         ids PATH QUERIES LIMIT      the slots of each query's hits, in order
 *         bandwidth THREADS           GB/s of reading all rows of the set in order (a vector sum, no product)
 *         sgemm                       GFLOP/s of this library's product, 256 queries by 512 rows of these dims, one thread
 *
 * What the data is: a latent of 256 dims whose standard deviations fall as (1 + r)^-0.6, half of its variance between
 * 1,000 clusters of Zipf sizes, mapped by a dense random matrix, plus isotropic noise of a twentieth of the
 * variance. It has the spectrum and the crowding of text embeddings, is synthetic, and queries are drawn from it, too.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/hash.h"
#include "index/collection.h"
#include "index/exact.h"
#include "simd/gemm.h"

#define LATENT 256
#define CLUSTERS 1000
#define BATCH 256
#define CALLS_MAX 4096
#define ARENA_BYTES ((size_t)8 << 30)

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_search: %s: %s\n", what, why);
	exit(1);
}

static void *memory(size_t n)
{
	void *p = calloc(1, n ? n : 1);
	if (!p) die("memory", "none left");
	return p;
}

/* --- data --- */

static float normal(uint64_t *dice)
{
	uint64_t x = vk_rng(dice); /* four uniforms of 16 bits: near enough, and no logarithm a component */
	float sum = (float)(x & 0xffff) + (float)(x >> 16 & 0xffff) + (float)(x >> 32 & 0xffff) + (float)(x >> 48);
	return (sum * 0x1p-16f - 2) * 1.7320508f;
}

struct mixture {
	size_t dims;
	float deviation[LATENT], *map, *centre;
	double share[CLUSTERS]; /* cumulative */
	float noise;
	uint64_t dice;
};

static void mixture_init(struct mixture *m, size_t dims, uint64_t seed)
{
	double variance = 0, zipf = 0;
	*m = (struct mixture){.dims = dims, .dice = seed, .map = memory(LATENT * dims * 4), .centre = memory(CLUSTERS * LATENT * 4)};
	for (size_t r = 0; r < LATENT; r++) {
		m->deviation[r] = powf(1 + (float)r, -0.6f);
		variance += m->deviation[r] * m->deviation[r];
	}
	m->noise = (float)sqrt(variance / 20);
	for (size_t i = 0; i < LATENT * dims; i++) m->map[i] = normal(&m->dice);
	for (size_t i = 0; i < CLUSTERS * LATENT; i++) m->centre[i] = normal(&m->dice) * m->deviation[i % LATENT] * 0.70710678f;
	for (size_t i = 0; i < CLUSTERS; i++) m->share[i] = zipf += 1 / (double)(i + 10);
	for (size_t i = 0; i < CLUSTERS; i++) m->share[i] /= zipf;
}

static void mixture_draw(struct mixture *m, size_t n, float *latent, float *rows)
{
	for (size_t i = 0; i < n; i++) {
		double u = (double)(vk_rng(&m->dice) >> 11) * 0x1p-53;
		size_t c = 0;
		while (c + 1 < CLUSTERS && m->share[c] < u) c++;
		for (size_t r = 0; r < LATENT; r++)
			latent[i * LATENT + r] = m->centre[c * LATENT + r] + normal(&m->dice) * m->deviation[r] * 0.70710678f;
	}
	for (size_t i = 0; i < n * m->dims; i++) rows[i] = normal(&m->dice) * m->noise;
	vk_gemm_f32(false, n, m->dims, LATENT, 1, latent, LATENT, m->map, m->dims, 1, rows, m->dims);
	for (size_t i = 0; i < n; i++) vk_unit(rows + i * m->dims, rows + i * m->dims, m->dims);
}

static void draw_file(struct mixture *m, const char *path, size_t rows)
{
	enum { PIECE = 1024 };
	FILE *f = fopen(path, "wb");
	float *latent = memory(PIECE * LATENT * 4), *piece = memory(PIECE * m->dims * 4);
	if (!f) die(path, "cannot be written");
	for (size_t at = 0; at < rows; at += PIECE) {
		size_t n = rows - at < PIECE ? rows - at : PIECE;
		mixture_draw(m, n, latent, piece);
		if (fwrite(piece, m->dims * 4, n, f) != n) die(path, "cannot be written");
	}
	if (fclose(f)) die(path, "cannot be written");
	free(latent);
	free(piece);
}

static void make(char **arg)
{
	char queries[4096];
	struct mixture m;
	mixture_init(&m, strtoul(arg[2], NULL, 10), strtoull(arg[4], NULL, 10));
	draw_file(&m, arg[0], strtoul(arg[1], NULL, 10));
	snprintf(queries, sizeof queries, "%s.queries", arg[0]);
	draw_file(&m, queries, strtoul(arg[3], NULL, 10));
}

/* --- the collection --- */

struct place {
	struct vk_kv_writers *writers;
	struct vk_collection *c;
	struct vk_view view;
	const struct vk_set *set;
	size_t rows, dims, queries_n;
	const float *data, *queries;
	float *bytes; /* uint8: a batch's room; else NULL */
	struct vk_pool *pool;
	struct vk_bitmap *some; /* of `permille` */
	unsigned permille;
};

static const float *mapped(const char *path, size_t *floats)
{
	FILE *f = fopen(path, "rb");
	if (!f || fseek(f, 0, SEEK_END)) die(path, "cannot be read");
	size_t n = (size_t)ftell(f);
	void *p = mmap(NULL, n, PROT_READ, MAP_SHARED, fileno(f), 0);
	if (p == MAP_FAILED) die(path, "cannot be mapped");
	fclose(f);
	*floats = n / 4;
	return p;
}

/* Unit vectors as bytes would all be 0: rows and queries of uint8 sets are moved and stretched, 4 deviations to the edges. */
static void to_bytes(float *dst, const float *src, size_t n, size_t dims)
{
	float stretch = 32 * sqrtf((float)dims);
	for (size_t i = 0; i < n; i++) dst[i] = 128 + src[i] * stretch;
}

static void upsert(struct place *p, struct vk_colconf *conf, size_t first, size_t n)
{
	const float *rows = p->data + first * p->dims;
	if (p->bytes) {
		to_bytes(p->bytes, rows, n * p->dims, p->dims);
		rows = p->bytes;
	}
	static struct vk_point_in point[BATCH];
	static struct vk_vec vec[BATCH];
	static uint8_t id[BATCH][9];
	for (size_t i = 0; i < n; i++) {
		vk_id_u64(id[i], first + i);
		vec[i] = (struct vk_vec){.conf = &conf->vectors[0], .row = rows + i * p->dims};
		point[i] = (struct vk_point_in){.id = {(char *)id[i], 9}, .vec = &vec[i], .vec_n = 1};
	}
	struct vk_op_in op = {.kind = VK_OP_UPSERT, .point = point, .point_n = n};
	struct vk_write w = {.op = &op, .op_n = 1, .conf = conf, .now_ms = vk_wall_ms()};
	if (vk_collection_write_wait(p->c, &w)) die("upsert", w.err.text);
}

static void fill(struct place *p)
{
	struct vk_colconf *conf = vk_collection_config(p->c);
	struct vk_collection_stats s;
	if (vk_collection_stats(p->c, &s)) die("collection", "no figures");
	uint64_t start = vk_mono_us();
	for (size_t at = s.points; at < p->rows; at += BATCH)
		upsert(p, conf, at, p->rows - at < BATCH ? p->rows - at : BATCH);
	uint64_t wrote = vk_mono_us();
	if (vk_collection_seal(p->c)) die("collection", "cannot be sealed");
	double seconds = (double)(wrote - start) * 1e-6;
	printf("{\"points\": %zu, \"upsert_s\": %.3f, \"upserts_per_s\": %.0f, \"seal_s\": %.3f}\n", p->rows - s.points, seconds,
	       (double)(p->rows - s.points) / (seconds > 0 ? seconds : 1), (double)(vk_mono_us() - wrote) * 1e-6);
	vk_colconf_unref(conf);
}

static void open_place(struct place *p, int argc, char **arg)
{
	char config[1024], queries[4096];
	size_t floats;
	struct vk_error err = {0};
	struct vk_collection_opts o = {.map_bytes = (uint64_t)64 << 30};
	bool binary = argc > 6 && !strcmp(arg[6], "binary");
	*p = (struct place){.rows = strtoul(arg[2], NULL, 10), .dims = strtoul(arg[3], NULL, 10)};
	p->data = mapped(arg[1], &floats);
	if (floats < p->rows * p->dims) die(arg[1], "too short");
	snprintf(queries, sizeof queries, "%s.queries", arg[1]);
	p->queries = mapped(queries, &floats);
	p->queries_n = floats / p->dims;
	if (!strcmp(arg[4], "uint8")) {
		float *moved = memory(floats * sizeof *moved);
		to_bytes(moved, p->queries, floats, p->dims);
		p->queries = moved;
		p->bytes = memory(BATCH * p->dims * sizeof *p->bytes);
	}
	/* No graph: it would be built beside what is measured. */
	snprintf(config, sizeof config,
		 "{\"optimizer_config\":{\"indexing_threshold\":0},"
		 "\"vectors\":{\"\":{\"size\":%zu,\"distance\":\"%s\",\"datatype\":\"%s\",\"quantization_config\":%s,"
		 "\"veckeep\":{\"set\":1,\"space\":null,\"raw\":true}}},\"indexes\":{},"
		 "\"veckeep\":{\"text_from\":null,\"provenance\":\"off\",\"ttl\":null,\"next_set\":2,\"next_field\":1,\"pool\":\"default\"}}",
		 p->dims, arg[5], arg[4], binary ? "{\"binary\":{}}" : "null");
	if (vk_kv_writers_new(1, &p->writers)) die("writers", "cannot start");
	o.writers = p->writers;
	if (vk_collection_open(arg[0], vk_bytes_of(config), &o, &p->c, &err) &&
	    vk_collection_open(arg[0], (struct vk_bytes){0}, &o, &p->c, &err))
		die(arg[0], err.text);
	fill(p);
	if (vk_view_begin(p->c, vk_wall_ms(), &p->view)) die("view", "cannot begin");
	p->set = &p->view.conf->vectors[0].set;
	p->pool = vk_pool_new(0, 256, "bench");
}

/* --- commands --- */

static const char *const paths[] = {"auto", "scan", "certified", "gemm", "few", "bits"};

static enum vk_exact_path path_named(const char *name)
{
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
		if (!strcmp(name, paths[i])) return (enum vk_exact_path)i;
	die("path", name);
	return VK_EXACT_AUTO;
}

static const struct vk_bitmap *some(struct place *p, unsigned permille)
{
	uint64_t dice = 4711;
	if (permille >= 1000) return NULL;
	if (p->some && p->permille == permille) return p->some;
	vk_bitmap_free(p->some);
	p->some = vk_bitmap_new();
	p->permille = permille;
	for (uint32_t i = 0; i < p->rows; i++)
		if (vk_rng(&dice) % 1000 < permille) vk_bitmap_add(p->some, i);
	return p->some;
}

static void search(struct place *p, struct vk_exact_query *q, size_t n, size_t first, const struct vk_exact_opts *o, size_t limit,
		   const struct vk_bitmap *in, struct vk_arena *a, struct vk_exact_stats *stats)
{
	struct vk_error err = {0};
	for (size_t i = 0; i < n; i++)
		q[i] = (struct vk_exact_query){.vector = p->queries + (first + i) % p->queries_n * p->dims,
					       .limit = limit,
					       .floor = -INFINITY,
					       .in = in};
	if (vk_exact_search(&p->view, p->set, q, n, o, a, stats, &err)) die("search", err.text);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static void command_search(struct place *p, const char *path, size_t n, unsigned threads, double seconds, size_t limit, unsigned permille)
{
	static double ms[CALLS_MAX];
	struct vk_exact_opts o = {.pool = threads > 1 ? p->pool : NULL, .threads = threads, .path = path_named(path), .level = vk_cpu_best()};
	struct vk_exact_query *q = memory(n * sizeof *q);
	struct vk_exact_stats stats;
	const struct vk_bitmap *in = some(p, permille);
	size_t calls = 0;
	double spent = 0;
	while (calls < CALLS_MAX && (calls < 2 || spent < seconds)) {
		struct vk_arena a;
		vk_arena_init(&a, ARENA_BYTES);
		uint64_t start = vk_mono_us();
		search(p, q, n, calls * n, &o, limit, in, &a, &stats);
		ms[calls] = (double)(vk_mono_us() - start) * 1e-3;
		spent += ms[calls++] * 1e-3;
		vk_arena_free(&a);
	}
	qsort(ms, calls, sizeof *ms, by_value);
	printf("{\"path\": \"%s\", \"calls\": %zu, \"best_ms\": %.4f, \"median_ms\": %.4f, \"bytes\": %llu, \"reread\": %.1f, \"scanned\": %llu}\n",
	       paths[stats.path], calls, ms[0], ms[calls / 2], (unsigned long long)stats.bytes, (double)stats.rows_reread / (double)n,
	       (unsigned long long)stats.rows_scanned);
	free(q);
}

static void command_ids(struct place *p, const char *path, size_t n, size_t limit)
{
	struct vk_exact_opts o = {.path = path_named(path), .level = vk_cpu_best()};
	struct vk_exact_query *q = memory(n * sizeof *q);
	struct vk_exact_stats stats;
	struct vk_arena a;
	vk_arena_init(&a, ARENA_BYTES);
	search(p, q, n, 0, &o, limit, NULL, &a, &stats);
	printf("[");
	for (size_t i = 0; i < n; i++) {
		printf("%s[", i ? ", " : "");
		for (size_t j = 0; j < q[i].hits; j++) printf("%s%u", j ? ", " : "", q[i].hit[j].slot);
		printf("]");
	}
	printf("]\n");
	vk_arena_free(&a);
	free(q);
}

struct reading {
	const struct vk_parts *parts;
	atomic_size_t next;
	_Atomic uint64_t sum;
};

/* Every word of every row is added up by vectors: no fewer bytes than a scan, and next to no work. */
static void read_parts(void *arg, size_t worker)
{
	typedef uint64_t wide __attribute__((vector_size(64), aligned(1), may_alias));
	struct reading *r = arg;
	wide sum[4] = {{0}};
	size_t at;
	(void)worker;
	while ((at = atomic_fetch_add(&r->next, 4)) < r->parts->part_n)
		for (size_t i = at; i < at + 4 && i < r->parts->part_n; i++) {
			const struct vk_part *p = &r->parts->part[i];
			size_t bytes = (size_t)p->rows * p->stride;
			for (size_t b = 0; b + 256 <= bytes; b += 256)
				for (size_t j = 0; j < 4; j++) sum[j] += *(const wide *)(const void *)(p->row + b + 64 * j);
		}
	uint64_t all = 0;
	for (size_t j = 0; j < 4; j++)
		for (size_t l = 0; l < 8; l++) all += sum[j][l];
	atomic_fetch_add(&r->sum, all);
}

static void command_bandwidth(struct place *p, unsigned threads)
{
	struct vk_arena a;
	struct vk_parts parts;
	double best = 0, bytes = 0;
	vk_arena_init(&a, ARENA_BYTES);
	if (vk_vset_parts(p->view.t, p->set, NULL, &a, &parts)) die("parts", "cannot be read");
	for (size_t i = 0; i < parts.part_n; i++) bytes += (double)parts.part[i].rows * parts.part[i].stride;
	for (int round = 0; round < 5; round++) {
		struct reading r = {.parts = &parts};
		uint64_t start = vk_mono_us();
		vk_pool_for(threads > 1 ? p->pool : NULL, threads, read_parts, &r);
		double rate = bytes / (double)(vk_mono_us() - start) * 1e-3;
		if (rate > best) best = rate;
	}
	printf("{\"gb_s\": %.3f, \"bytes\": %.0f}\n", best, bytes);
	vk_arena_free(&a);
}

static void command_sgemm(struct place *p)
{
	enum { M = 256, N = 512 };
	float *a = memory(M * p->dims * 4), *b = memory(N * p->dims * 4), *c = memory(M * N * 4);
	double best = 0;
	for (size_t i = 0; i < M * p->dims; i++) a[i] = p->data[i];
	for (size_t i = 0; i < N * p->dims; i++) b[i] = p->data[i];
	for (int round = 0; round < 20; round++) {
		uint64_t start = vk_mono_us();
		for (int i = 0; i < 5; i++) vk_gemm_f32(true, M, N, p->dims, 1, a, p->dims, b, p->dims, 0, c, N);
		double rate = 5 * 2.0 * M * N * (double)p->dims / (double)(vk_mono_us() - start) * 1e-3;
		if (rate > best) best = rate;
	}
	const struct vk_gemm_info *info = vk_gemm_init();
	printf("{\"gflop_s\": %.1f, \"library\": \"%s\", \"core\": \"%s\"}\n", best, info->library, info->core_type);
	free(a);
	free(b);
	free(c);
}

static void answer(struct place *p, const char *line)
{
	char path[16];
	size_t n, limit;
	unsigned threads, permille;
	double seconds;
	if (sscanf(line, "search %15s %zu %u %lf %zu %u", path, &n, &threads, &seconds, &limit, &permille) == 6)
		command_search(p, path, n, threads, seconds, limit, permille);
	else if (sscanf(line, "ids %15s %zu %zu", path, &n, &limit) == 3) command_ids(p, path, n, limit);
	else if (sscanf(line, "bandwidth %u", &threads) == 1) command_bandwidth(p, threads);
	else if (!strncmp(line, "sgemm", 5)) command_sgemm(p);
	else die("no such command", line);
	fflush(stdout);
}

static void serve(int argc, char **arg)
{
	struct place p;
	char line[256];
	vk_gemm_init();
	open_place(&p, argc, arg);
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) answer(&p, line);
	vk_bitmap_free(p.some);
	vk_view_end(&p.view);
	vk_pool_free(p.pool);
	vk_collection_unref(p.c);
	vk_kv_writers_free(p.writers);
}

int main(int argc, char **argv)
{
	if (argc == 7 && !strcmp(argv[1], "make")) make(argv + 2);
	else if (argc >= 8 && !strcmp(argv[1], "serve")) serve(argc - 2, argv + 2);
	else {
		fprintf(stderr, "usage: bench_search make FILE ROWS DIMS QUERIES SEED | serve DIR FILE ROWS DIMS DTYPE METRIC [binary]\n");
		return 2;
	}
	return 0;
}
