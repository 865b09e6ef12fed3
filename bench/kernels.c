/*
 * bench_kernels: how near the score kernels come to the memory they read. GB/s of every kernel, type
 * and level over rows that lie in order, in a buffer far past the last-level cache and in 1 MiB, each
 * as a share of a read probe of the same buffer in the same run.
 *
 *   bench_kernels [--gib N] [--rounds N] [--level NAME] [--only TEXT] [--huge] [--json]
 *
 * The probe only loads and ors: streams side by side and prefetch distances are tried first, and the
 * fastest of all is the bound (a probe slower than the kernel bounds nothing). Each round takes probe
 * and kernel in turn; figures are medians of rounds, ratios medians of the rounds' ratios. Pages are of
 * 4 KB, as a file map's, unless --huge. One thread, in its own CPU time: others that take turns on the
 * core do not count (others that read memory meanwhile do).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/hash.h"
#include "simd/score.h"

#define ROUNDS_MAX 15
#define SLICE 256 /* rows a call, as a scan does it */
#define DIMS_MOST 1536

struct options {
	size_t bytes;
	int rounds;
	const char *level, *only;
	bool huge, json;
};

static uint8_t *buffer;
static volatile uint64_t sink;

static double cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ---- the probe ---- */

typedef uint64_t v8 __attribute__((vector_size(64), aligned(1), may_alias));

struct probe {
	size_t streams, apart, ahead;
};

#if defined(__x86_64__)
#define WIDE __attribute__((target("avx512f")))
#define HALF __attribute__((target("avx2")))
#define FETCH(p) __asm__ volatile("prefetcht0 %0" : : "m"(*(const char *)(p)))
#else
#define FETCH(p) __builtin_prefetch(p)
#endif

/* Streams `apart` bytes from each other, two lines of each in turn. */
#define PROBE_BODY(S)                                                                           \
	do {                                                                                    \
		v8 a[2 * S];                                                                    \
		memset(a, 0, sizeof a);                                                         \
		for (size_t base = 0; base + S * p.apart <= bytes; base += S * p.apart)         \
			for (size_t o = 0; o < p.apart; o += 128)                               \
				_Pragma("GCC unroll 8") for (int s = 0; s < S; s++) {           \
					const uint8_t *at = buffer + base + (size_t)s * p.apart + o; \
					if (p.ahead) FETCH(at + p.ahead);                       \
					if (p.ahead) FETCH(at + p.ahead + 64);                  \
					a[2 * s] |= *(const v8 *)(const void *)at;              \
					a[2 * s + 1] |= *(const v8 *)(const void *)(at + 64);   \
				}                                                               \
		for (int s = 0; s < 2 * S; s++) sum ^= a[s][0] ^ a[s][7];                       \
	} while (0)

#define PROBE(name, ATTRIBUTE)                                                                  \
	ATTRIBUTE static void name(struct probe p, size_t bytes)                                \
	{                                                                                       \
		uint64_t sum = 0;                                                               \
		if (p.streams == 1) PROBE_BODY(1);                                              \
		else if (p.streams == 2) PROBE_BODY(2);                                         \
		else if (p.streams == 4) PROBE_BODY(4);                                         \
		else PROBE_BODY(8);                                                             \
		sink ^= sum;                                                                    \
	}
#if defined(__x86_64__)
PROBE(probe_wide, WIDE)
PROBE(probe_half, HALF)
#else
PROBE(probe_plain, )
#endif

static void run_probe(struct probe p, size_t bytes)
{
#if defined(__x86_64__)
	if (vk_cpu_best() == VK_CPU_AVX512) probe_wide(p, bytes);
	else probe_half(p, bytes);
#else
	probe_plain(p, bytes);
#endif
}

/* GB/s of reading all of `bytes` as often as makes at least `least` bytes. */
static double probe_rate(struct probe p, size_t bytes, size_t least)
{
	size_t times = (least + bytes - 1) / bytes, whole = bytes / (p.streams * p.apart) * p.streams * p.apart;
	double start = cpu_ns();
	for (size_t i = 0; i < times; i++) run_probe(p, bytes);
	return (double)whole * (double)times / (cpu_ns() - start);
}

static struct probe fastest_probe(size_t bytes, size_t least, const struct options *o)
{
	static const struct probe shape[] = {{1, 4096, 0}, {2, 4096, 0}, {4, 1024, 0}, {4, 3072, 0}, {4, 4096, 0},
					     {4, 65536, 0}, {8, 4096, 0}, {8, 65536, 0}};
	static const size_t ahead[] = {0, 1024, 2048, 4096, 12288, 32768};
	struct probe best = shape[0];
	double most = 0;
	for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++)
		for (size_t a = 0; a < sizeof ahead / sizeof ahead[0]; a++) {
			struct probe p = {shape[s].streams, shape[s].apart, ahead[a]};
			double got = probe_rate(p, bytes, least), again = probe_rate(p, bytes, least);
			got = again > got ? again : got;
			if (got > most) most = got, best = p;
		}
	if (!o->json)
		printf("probe of %zu MiB: %zu streams %zu bytes apart, %zu ahead: %.1f GB/s\n", bytes >> 20,
		       best.streams, best.apart, best.ahead, most);
	return best;
}

/* ---- the kernels ---- */

static const char *const kinds[] = {"dot", "l2", "l1", "hamming", "code_dot"};
static const char *const types[] = {"f32", "f16", "u8", "i8", "bits"};
static const size_t all_dims[] = {100, 384, 768, 1536};
enum { CODE_DOT = 4 };

struct cell {
	const struct vk_kernels *k;
	int kind;
	enum vk_dtype type;
	size_t dims;
};

static double kernel_rate(const struct cell *c, size_t bytes, size_t least)
{
	static float query[DIMS_MOST];
	float raw[SLICE];
	int32_t dot[SLICE];
	size_t row = vk_row_bytes(c->type, c->dims), rows = bytes / row, times = (least + bytes - 1) / bytes;
	memcpy(query, buffer, sizeof query);
	double start = cpu_ns();
	for (size_t t = 0; t < times; t++)
		for (size_t i = 0; i < rows; i += SLICE) {
			size_t n = rows - i < SLICE ? rows - i : SLICE;
			const uint8_t *at = buffer + i * row;
			if (c->kind == CODE_DOT) c->k->code_dot((const int8_t *)query, at, row, n, c->dims, at + n * row, dot);
			else c->k->score[c->kind][c->type](query, at, row, n, c->dims, at + n * row, raw);
			sink ^= (uint64_t)(c->kind == CODE_DOT ? dot[0] : (int32_t)raw[0]);
		}
	return (double)(rows * row) * (double)times / (cpu_ns() - start);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *v, int n)
{
	qsort(v, (size_t)n, sizeof *v, by_value);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void report(const struct cell *c, struct probe p, size_t bytes, size_t least, const struct options *o)
{
	double rate[ROUNDS_MAX], bound[ROUNDS_MAX], ratio[ROUNDS_MAX];
	static bool more;
	for (int r = 0; r < o->rounds; r++) {
		bound[r] = probe_rate(p, bytes, least);
		rate[r] = kernel_rate(c, bytes, least);
		ratio[r] = rate[r] / bound[r];
	}
	double gb = median(rate, o->rounds), probe_gb = median(bound, o->rounds), share = median(ratio, o->rounds);
	const char *type = c->kind == CODE_DOT ? "codes" : types[c->type], *level = vk_cpu_level_name(c->k->level);
	if (o->json)
		printf("%s\n{\"kernel\":\"%s\",\"type\":\"%s\",\"dims\":%zu,\"level\":\"%s\",\"bytes\":%zu,\"gb_s\":%.3f,"
		       "\"probe_gb_s\":%.3f,\"ratio\":%.4f}", more ? "," : "", kinds[c->kind], type, c->dims, level,
		       bytes, gb, probe_gb, share);
	else
		printf("%-8s %-5s %5zu d  %-7s %6.1f MiB  %7.2f GB/s  probe %7.2f  %5.1f %%\n", kinds[c->kind], type,
		       c->dims, level, (double)bytes / 1048576, gb, probe_gb, 100 * share);
	more = true;
	fflush(stdout);
}

static void all_cells(const struct options *o, size_t bytes, size_t least)
{
	struct probe p = fastest_probe(bytes, least, o);
	for (int level = VK_CPU_LEVELS - 1; level >= 0; level--) {
		const struct vk_kernels *k = vk_kernels((enum vk_cpu_level)level);
		if ((int)k->level != level || (o->level && strcmp(o->level, vk_cpu_level_name(k->level)) != 0)) continue;
		for (int kind = 0; kind <= CODE_DOT; kind++)
			for (enum vk_dtype t = 0; t < VK_DTYPES; t++) {
				char name[32];
				snprintf(name, sizeof name, "%s %s", kinds[kind], kind == CODE_DOT ? "codes" : types[t]);
				if (kind == CODE_DOT ? t != VK_DTYPE_U8 : !k->score[kind][t]) continue;
				if (o->only && !strstr(name, o->only)) continue;
				/* The scalar level is bound by itself: a small piece tells as much. */
				size_t some = k->level == VK_CPU_SCALAR ? (size_t)4 << 20 : least;
				if (k->level == VK_CPU_SCALAR && bytes > some) continue;
				for (size_t d = 0; d < sizeof all_dims / sizeof all_dims[0]; d++)
					report(&(struct cell){k, kind, t, all_dims[d]}, p, bytes, some, o);
			}
	}
}

/* One filling for every type: as f32 below 1 and as f16 below 2, never a NaN or an infinity. */
static void fill(size_t bytes)
{
	uint64_t seed = 7;
	for (size_t i = 0; i + 8 <= bytes; i += 8) {
		uint64_t v = (vk_rng(&seed) & 0x80ffbbff80ffbbff) | 0x3e0000003e000000;
		memcpy(buffer + i, &v, 8);
	}
}

static bool read_options(int argc, char **argv, struct options *o)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		if (!strcmp(argv[i], "--json")) o->json = true;
		else if (!strcmp(argv[i], "--huge")) o->huge = true;
		else if (!strcmp(argv[i], "--gib")) o->bytes = (size_t)(strtod(value, NULL) * (1 << 30)), i++;
		else if (!strcmp(argv[i], "--rounds")) o->rounds = atoi(value), i++;
		else if (!strcmp(argv[i], "--level")) o->level = value, i++;
		else if (!strcmp(argv[i], "--only")) o->only = value, i++;
		else return false;
	}
	return o->rounds >= 1 && o->rounds <= ROUNDS_MAX && o->bytes >= 1 << 20;
}

int main(int argc, char **argv)
{
	struct options o = {.bytes = (size_t)9 << 28, .rounds = 3};
	const size_t margin = 1 << 20, small = 1 << 20; /* prefetches of the probe run past the end */
	if (!read_options(argc, argv, &o)) {
		fprintf(stderr, "usage: bench_kernels [--gib N] [--rounds 1..%d] [--level NAME] [--only TEXT] "
				"[--huge] [--json]\n", ROUNDS_MAX);
		return 2;
	}
	buffer = mmap(NULL, o.bytes + margin, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffer == MAP_FAILED) {
		perror("bench_kernels: memory");
		return 1;
	}
	madvise(buffer, o.bytes + margin, o.huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	fill(o.bytes + margin);
	if (o.json) printf("{\"cpu\":\"%s\",\"huge\":%s,\"rows\":[", vk_cpu_name(), o.huge ? "true" : "false");
	else printf("%s, %zu MiB in %s pages, %d rounds\n", vk_cpu_name(), o.bytes >> 20, o.huge ? "huge" : "4 KB", o.rounds);
	all_cells(&o, o.bytes, o.bytes);
	all_cells(&o, small, (size_t)256 << 20);
	if (o.json) puts("\n]}");
	return 0;
}
