/*
 * How fast cl100k_base counts and encodes: MB/s over a file (or built-in English-like text),
 * the number to put beside the reference package's on the same file.
 *
 *   bench_tokens [FILE]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/bytes.h"
#include "embed/bpe.h"

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void load(struct vk_buf *text, const char *path)
{
	FILE *f = path ? fopen(path, "rb") : NULL;
	if (path && !f) {
		perror(path);
		exit(1);
	}
	char part[65536];
	for (size_t n; f && (n = fread(part, 1, sizeof part, f)) > 0;) vk_buf_put(text, part, n);
	if (f) fclose(f);
	for (unsigned i = 0; !f && text->n < 4 << 20; i++)
		vk_buf_printf(text, "Chunk %u: the quick brown fox doesn't jump over %u lazy dogs, "
				    "caf\xc3\xa9s or databases.\n", i, i * 7919);
}

int main(int argc, char **argv)
{
	struct vk_buf text;
	vk_buf_init(&text, VK_BPE_TEXT_MAX);
	load(&text, argc > 1 ? argv[1] : NULL);
	double t0 = now_s();
	const struct vk_bpe *bpe = vk_bpe_cl100k();
	double t1 = now_s();
	uint32_t *ids = malloc((text.n + 1) * sizeof *ids);
	size_t n = 0;
	if (!bpe || !ids || text.failed) return 1;
	printf("first use %.1f ms\n", (t1 - t0) * 1e3);
	double best_s = 1e9, best_back_s = 1e9;
	for (int i = 0; i < 5; i++) {
		double a = now_s();
		if (vk_bpe_encode(bpe, vk_buf_bytes(&text), ids, text.n, &n)) return 1;
		double b = now_s();
		struct vk_buf back;
		vk_buf_init(&back, text.n);
		if (!vk_bpe_text_of(bpe, ids, n, &back)) return 1;
		double c = now_s();
		vk_buf_free(&back);
		if (b - a < best_s) best_s = b - a;
		if (c - b < best_back_s) best_back_s = c - b;
	}
	double mb = (double)text.n / 1e6;
	printf("encode  %.1f MB/s, %.2f M ids/s (%zu ids of %.1f MB, one thread, best of 5)\n",
	       mb / best_s, (double)n / 1e6 / best_s, n, mb);
	printf("text_of %.1f MB/s\n", mb / best_back_s);
	free(ids);
	vk_buf_free(&text);
	return 0;
}
