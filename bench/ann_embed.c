/*
 * Embeds a file of texts with the built-in encoder, a piece at a time: real vectors for bench/ann.
 *
 *   bench_ann_embed MODEL_DIR TEXTS OUT.f32 [SECONDS]
 *
 * TEXTS has one text a line; OUT gets their rows (raw f32) in the same order. What OUT already holds is not done again, so the
 * program may be killed and started as often as one likes; with SECONDS it stops by itself. Exit 0 when every text has its row,
 * 75 when there is more to do.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "embed/encoder.h"

#define BATCH 512
#define EXIT_MORE 75

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_ann_embed: %s: %s\n", what, why);
	exit(1);
}

/* Opens OUT for appending, cut to whole rows; how many it holds. */
static FILE *resume(const char *path, size_t row_bytes, size_t *rows)
{
	struct stat st = {0};
	FILE *f = fopen(path, "ab");
	if (!f || fstat(fileno(f), &st)) die(path, strerror(errno));
	*rows = (size_t)st.st_size / row_bytes;
	if (ftruncate(fileno(f), (off_t)(*rows * row_bytes))) die(path, strerror(errno));
	return f;
}

/* Up to BATCH lines into t; the lines' memory is reused by the next call. */
static size_t read_batch(FILE *in, struct vk_encoder_text *t)
{
	static char *line[BATCH];
	static size_t room[BATCH];
	size_t n = 0;
	ssize_t length;
	while (n < BATCH && (length = getline(&line[n], &room[n], in)) >= 0) {
		if (length && line[n][length - 1] == '\n') length--;
		t[n] = (struct vk_encoder_text){.text = {line[n], (size_t)length}};
		n++;
	}
	return n;
}

int main(int argc, char **argv)
{
	static struct vk_encoder_text text[BATCH];
	struct vk_encoder *e;
	struct vk_error err;
	size_t done, n, start, tokens = 0;
	if (argc < 4) {
		fprintf(stderr, "bench_ann_embed MODEL_DIR TEXTS OUT.f32 [SECONDS]\n");
		return 2;
	}
	double seconds = argc > 4 ? strtod(argv[4], NULL) : 1e9;
	if (vk_encoder_open(argv[1], &e, &err)) die(argv[1], err.text);
	size_t dims = vk_encoder_info(e)->dims;
	float *rows = malloc(BATCH * dims * sizeof *rows);
	struct vk_pool *pool = vk_pool_new(0, 256, "embed");
	FILE *in = fopen(argv[2], "r");
	if (!in) die(argv[2], strerror(errno));
	if (!rows || !pool) die("memory", "none left");
	FILE *out = resume(argv[3], dims * sizeof *rows, &done);
	for (size_t skip = start = done; skip;) {
		size_t got = 0;
		for (int c; got < skip && (c = getc(in)) != EOF;) got += c == '\n';
		if (got < skip) die(argv[3], "holds more rows than there are texts");
		skip = 0;
	}
	uint64_t began = vk_mono_us();
	double spent = 0;
	bool more = false;
	while ((n = read_batch(in, text))) {
		if ((more = spent >= seconds)) break;
		if (vk_encoder_run(e, pool, text, n, rows, &err)) die(argv[2], err.text);
		if (fwrite(rows, dims * sizeof *rows, n, out) != n || fflush(out)) die(argv[3], strerror(errno));
		for (size_t i = 0; i < n; i++) tokens += text[i].tokens;
		done += n;
		spent = (double)(vk_mono_us() - began) * 1e-6;
	}
	if (fclose(out)) die(argv[3], strerror(errno));
	fprintf(stderr, "%zu rows of %zu, %.0f texts/s, %.1f tokens a text\n", done, dims, (double)(done - start) / (spent > 0 ? spent : 1),
		(double)tokens / (double)(done > start ? done - start : 1));
	fclose(in);
	free(rows);
	vk_pool_free(pool);
	vk_encoder_close(e);
	return more ? EXIT_MORE : 0;
}
