/*
 * What the built-in encoder does: texts/s and tokens/s for batches of 1, 16 and 256 texts on 1
 * and 2 threads; bench/encoder_peers.py sets them beside its peers in one run.
 *
 *   bench_encoder [--model DIR] [--batch N] [--threads N] [--seconds S] [--json]
 *   bench_encoder --print-texts     the 256 texts, one a line
 *
 * The texts are the questions and paragraphs of a help desk, 8 to some 200 tokens, put together
 * from whole sentences by a fixed seed. A batch is a slice of them in that order (unsorted); the
 * last figure is the median time of one call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "embed/encoder.h"
#include "simd/cpu.h"

#define TEXTS 256
#define CALLS_MAX 100000

static const char *const sentences[] = {
	"How do I reset my password when I no longer have the old phone?",
	"The invoice for March was charged twice, once on the third and again on the ninth.",
	"Customers who cancel within thirty days receive a full refund to the original card.",
	"Open the settings page, choose the security tab and then remove every device that you do not "
	"know.",
	"The pump must be switched off before the filter is taken out, or water will run into the "
	"housing.",
	"We measured a median latency of four milliseconds over two weeks of production traffic.",
	"Backups are taken every night at two, copied to a second site and tested once a month.",
	"Where can I download the annual report of the year before last?",
	"In 1897 the town built its first electric tramway, which ran from the harbour to the market "
	"square.",
	"Each employee has twenty-eight days of leave, of which five may be carried into the next "
	"year.",
	"The patient was given 250 mg of amoxicillin three times a day for one week.",
	"Error 0x80070005 means that the installer may not write to the program directory.",
	"Our restaurant is closed on Mondays, but the bakery next door opens at half past six.",
	"A contract of sale becomes valid when both parties have signed it and the deposit has been "
	"paid.",
	"Does the warranty cover damage by lightning?",
	"The river rises in the eastern hills, passes three lakes and reaches the sea after 412 "
	"kilometres.",
	"Please attach a photograph of the serial number, which is printed under the battery.",
	"To keep the index small, only the rows that changed since the last run are read again.",
	"Heat the oven to 180 degrees, beat the eggs with the sugar and fold in the sifted flour.",
	"The committee rejected the proposal by seven votes to four, with one abstention.",
	"If the light blinks red twice, the printer has run out of paper; three times means a jam.",
	"Students may borrow up to ten books for four weeks, and renew them twice over the web.",
	"Which plan includes single sign-on and audit logs?",
	"Shares of the company fell by six percent after it had lowered its forecast for the second "
	"half.",
};

static char texts_memory[TEXTS][2048];

/* One to eight sentences, short texts far more often than long ones. */
static void make_texts(void)
{
	uint64_t seed = 20240229;
	for (size_t i = 0; i < TEXTS; i++) {
		size_t count = 1 + vk_rng(&seed) % (1 + vk_rng(&seed) % 8);
		char *to = texts_memory[i], *end = to + sizeof texts_memory[i];
		for (size_t s = 0; s < count; s++)
			to += snprintf(
			    to, (size_t)(end - to), "%s%s", s ? " " : "",
			    sentences[vk_rng(&seed) % (sizeof sentences / sizeof sentences[0])]);
	}
}

struct figures {
	double texts_s, tokens_s, call_us;
};

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static struct figures measure(const struct vk_encoder *e, struct vk_pool *pool, size_t batch,
			      double seconds)
{
	static int64_t calls[CALLS_MAX];
	static struct vk_encoder_text t[TEXTS];
	size_t n = 0, texts = 0, tokens = 0, at = 0;
	float *rows = malloc(TEXTS * vk_encoder_info(e)->dims * sizeof *rows);
	struct vk_error err;
	for (size_t i = 0; i < TEXTS; i++) t[i].text = vk_bytes_of(texts_memory[i]);
	int64_t start = 0, now = 0;
	for (size_t warm = 0; n < CALLS_MAX && (warm < 2 || (double)(now - start) < seconds * 1e6);
	     at = (at + batch) % TEXTS) {
		int64_t before = (int64_t)vk_mono_us();
		if (vk_encoder_run(e, pool, t + at, batch, rows, &err)) {
			fprintf(stderr, "bench_encoder: %s\n", err.text);
			exit(1);
		}
		now = (int64_t)vk_mono_us();
		if (warm++ < 1) {
			start = now;
			continue;
		}
		calls[n++] = now - before;
		texts += batch;
		for (size_t i = 0; i < batch; i++) tokens += t[at + i].tokens;
	}
	free(rows);
	qsort(calls, n, sizeof calls[0], by_value);
	double s = (double)(now - start) * 1e-6;
	return (struct figures){(double)texts / s, (double)tokens / s, (double)calls[n / 2]};
}

static void report(const struct vk_encoder *e, size_t batch, unsigned threads, double seconds,
		   int json)
{
	struct vk_pool *pool = threads > 1 ? vk_pool_new(threads, 256, "bench") : NULL;
	struct figures f = measure(e, pool, batch, seconds);
	if (json)
		printf("{\"batch\":%zu,\"threads\":%u,\"texts_per_s\":%.1f,\"tokens_per_s\":%.0f,"
		       "\"call_us\":%.0f}\n",
		       batch, threads, f.texts_s, f.tokens_s, f.call_us);
	else
		printf("batch %3zu  threads %u  %8.1f texts/s  %8.0f tokens/s  %9.0f us a call\n",
		       batch, threads, f.texts_s, f.tokens_s, f.call_us);
	fflush(stdout);
	vk_pool_free(pool);
}

int main(int argc, char **argv)
{
	const char *dir = "models/all-MiniLM-L6-v2";
	size_t batch = 0;
	unsigned threads = 0;
	double seconds = 1;
	int json = 0;
	make_texts();
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		if (!strcmp(argv[i], "--print-texts")) {
			for (size_t t = 0; t < TEXTS; t++) puts(texts_memory[t]);
			return 0;
		}
		if (!strcmp(argv[i], "--json")) json = 1;
		else if (!strcmp(argv[i], "--model")) dir = value, i++;
		else if (!strcmp(argv[i], "--batch")) batch = strtoul(value, NULL, 10), i++;
		else if (!strcmp(argv[i], "--threads"))
			threads = (unsigned)strtoul(value, NULL, 10), i++;
		else if (!strcmp(argv[i], "--seconds")) seconds = strtod(value, NULL), i++;
		else {
			fprintf(stderr, "bench_encoder: unknown argument %s\n", argv[i]);
			return 2;
		}
	}
	if (batch > TEXTS || (batch && TEXTS % batch)) {
		fprintf(stderr, "bench_encoder: the batch must divide %d\n", TEXTS);
		return 2;
	}
	struct vk_encoder *e;
	struct vk_error err;
	uint64_t start = vk_mono_us();
	if (vk_encoder_open(dir, &e, &err)) {
		fprintf(stderr, "bench_encoder: %s\n", err.text);
		return 1;
	}
	if (!json)
		printf("%s, %s, %u cores, opened in %.0f ms\n", vk_encoder_info(e)->model,
		       vk_cpu_name(), vk_cpu_cores(), (double)(vk_mono_us() - start) * 1e-3);
	static const size_t batches[] = {1, 16, 256};
	for (unsigned t = 1; t <= 2; t++)
		for (size_t b = 0; b < 3; b++)
			if ((!threads || threads == t) && (!batch || batch == batches[b]))
				report(e, batches[b], t, seconds, json);
	vk_encoder_close(e);
	return 0;
}
