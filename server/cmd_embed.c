/*
 * veckeep embed: texts in, vectors out in the same order. Batches go to the server with a few
 * under way at once (server/cli_window.h): answered in order, so order costs nothing. Raw f32 rows come over the wire (Accept: application/octet-stream): no
 * number is printed or parsed that nobody reads.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/cli_window.h"
#include "server/cmd.h"
#include "server/cmd_embed_input.h"
#include "server/progress.h"

#define BATCH_MAX 2048
#define BATCH_BYTES ((size_t)4 << 20) /* of text, so that a body stays far below the server's limit */
#define WINDOW_MAX 64

struct opts {
	const char *model, *role, *file, *field, *format;
	uint64_t dims, batch, parallel, retries;
	bool quiet, skip_empty;
};

#define AT(field) offsetof(struct opts, field)
static const struct vk_opt table[] = {
	{"model", 'm', VK_OPT_STR, AT(model), "NAME", "a model name that the server knows (VECKEEP_MODEL; builtin)"},
	{"role", 'r', VK_OPT_STR, AT(role), "ROLE", "what the texts are: query, document, or the model's own word"},
	{"dims", 'd', VK_OPT_U64, AT(dims), "N", "shorter vectors, where the space can give them"},
	{"file", 'f', VK_OPT_STR, AT(file), "FILE", "a text a line; - is standard input"},
	{"field", 0, VK_OPT_STR, AT(field), "NAME", "the lines are JSON objects; the text is in this field"},
	{"skip-empty", 0, VK_OPT_FLAG, AT(skip_empty), NULL, "leave out empty lines (else they are an error)"},
	{"format", 'F', VK_OPT_STR, AT(format), "FORM", "json, base64 (a JSON line a text), or f32 (raw rows) (json)"},
	{"batch", 'b', VK_OPT_U64, AT(batch), "N", "texts a request (256)"},
	{"parallel", 'P', VK_OPT_U64, AT(parallel), "N", "requests under way at once (4)"},
	{"retries", 0, VK_OPT_U64, AT(retries), "N", "tries again of a request that the server puts off (8)"},
	{"quiet", 'q', VK_OPT_FLAG, AT(quiet), NULL, "no vectors, only the summary: fills the cache"},
	{0},
};
#undef AT

static const struct vk_cli_help help = {
	.name = "veckeep embed",
	.synopsis = "[OPTION]... TEXT... | - | --file FILE",
	.text = "Embeds texts through the server and writes a line a text, in order:\n"
		"  {\"index\":0,\"embedding\":[0.1,...]}\n"
		"index is the text's position, or its line's in the file, from 0. A summary with hits,\n"
		"misses and tokens goes to standard error (with --json as JSON; with --quiet --json to\n"
		"standard output).\n",
	.examples = "  veckeep embed \"some text\"\n"
		    "  veckeep embed --role query --format base64 \"what is it?\"\n"
		    "  veckeep embed --file docs.jsonl --field text --model text-embedding-3-small > vectors.jsonl\n"
		    "  veckeep embed --file lines.txt --quiet            # warm the cache\n"
		    "  veckeep embed --file lines.txt --format f32 > rows.f32\n",
	.args_max = (size_t)-1,
	.client = true,
};

struct batch {
	struct vk_window_call sent;
	struct vk_jw body;
	uint64_t index[BATCH_MAX];
	size_t n, bytes;
	double part;             /* how far the input was read when it was closed */
};

struct totals {
	uint64_t texts, hits, misses, coalesced, billed, saved, truncated;
};

struct run {
	const struct vk_cli *cli;
	const struct opts *o;
	struct vk_client client;
	struct vk_texts texts;
	struct vk_progress progress;
	struct totals totals;
	struct vk_buf line;
};

/* --- a batch --- */

static void batch_open(struct run *r, struct batch *b)
{
	const struct opts *o = r->o;
	b->n = b->bytes = 0;
	vk_ask_init(&b->sent.call, &r->client, "POST", "/v1/embeddings");
	vk_ask_header(&b->sent.call, "Content-Type: application/json");
	vk_ask_header(&b->sent.call, "Accept: application/octet-stream");
	vk_jw_init(&b->body, &b->sent.call.body);
	vk_jw_object(&b->body);
	vk_jw_kv(&b->body, "model", o->model);
	if (o->role) vk_jw_kv(&b->body, "input_type", o->role);
	if (o->dims) vk_jw_ki(&b->body, "dimensions", (int64_t)o->dims);
	vk_jw_key(&b->body, "input");
	vk_jw_array(&b->body);
}

/* Fills a batch from the input. 1: it has texts, 0: the input is at its end, -1: said what is wrong. */
static int batch_fill(struct run *r, struct batch *b)
{
	struct vk_bytes text;
	int rc = 1;
	batch_open(r, b);
	while (b->n < r->o->batch && b->bytes < BATCH_BYTES) {
		rc = vk_texts_next(&r->texts, &text, &b->index[b->n]);
		if (rc <= 0) break;
		vk_jw_str(&b->body, text);
		b->bytes += text.n;
		b->n++;
	}
	vk_jw_array_end(&b->body);
	vk_jw_object_end(&b->body);
	b->part = r->texts.bytes_read;
	if (b->sent.call.body.failed) rc = -1, vk_cli_say(r->cli, 0, "out of memory");
	if (rc >= 0) rc = b->n > 0;
	if (rc <= 0) vk_ask_free(&b->sent.call);
	return rc;
}

/* --- output --- */

static uint64_t header_count(const struct vk_ask *call, const char *name)
{
	const char *v = vk_ask_reply_header(call, name);
	return v ? strtoull(v, NULL, 10) : 0;
}

/* "hits=63, misses=1, coalesced=0" */
static uint64_t named_count(const struct vk_ask *call, const char *word)
{
	const char *v = vk_ask_reply_header(call, "x-veckeep-cache");
	const char *at = v ? strstr(v, word) : NULL;
	return at ? strtoull(at + strlen(word), NULL, 10) : 0;
}

static void count(struct run *r, const struct batch *b)
{
	struct totals *t = &r->totals;
	t->texts += b->n;
	t->hits += named_count(&b->sent.call, "hits=");
	t->misses += named_count(&b->sent.call, "misses=");
	t->coalesced += named_count(&b->sent.call, "coalesced=");
	t->billed += header_count(&b->sent.call, "x-veckeep-tokens-billed");
	t->saved += header_count(&b->sent.call, "x-veckeep-tokens-saved");
	t->truncated += header_count(&b->sent.call, "x-veckeep-truncated");
}

/* A row as f32: the wire's bytes are little-endian wherever this runs. */
static void take_row(float *row, const char *bytes, size_t dims)
{
	for (size_t i = 0; i < dims; i++) {
		uint32_t bits = vk_get_u32le((const uint8_t *)bytes + 4 * i);
		memcpy(&row[i], &bits, 4);
	}
}

static bool write_rows(struct run *r, const struct batch *b, const char *bytes, size_t dims)
{
	bool base64 = r->o->format[0] == 'b';
	float *row = malloc(dims * sizeof *row);
	if (!row) return false;
	for (size_t i = 0; i < b->n; i++) {
		const char *at = bytes + i * dims * 4;
		struct vk_jw w;
		r->line.n = 0;
		vk_jw_init(&w, &r->line);
		vk_jw_object(&w);
		vk_jw_ki(&w, "index", (int64_t)b->index[i]);
		vk_jw_key(&w, "embedding");
		take_row(row, at, dims);
		if (base64) vk_jw_base64(&w, at, dims * 4);
		else vk_jw_f32s(&w, row, dims);
		vk_jw_object_end(&w);
		vk_buf_putc(&r->line, '\n');
		if (r->line.failed) break;
		fwrite(r->line.p, 1, r->line.n, stdout);
	}
	free(row);
	return !r->line.failed && !ferror(stdout);
}

/* The answered batch's rows, in its order. */
static int batch_write(struct run *r, const struct batch *b)
{
	const struct vk_buf *reply = &b->sent.call.x.reply;
	const char *type = vk_ask_reply_header(&b->sent.call, "content-type");
	if (!type || !strstr(type, "octet-stream") || !reply->n || reply->n % (4 * b->n))
		return vk_cli_say(r->cli, VK_EXIT_FAILED, "the server's answer is not %zu rows", b->n);
	count(r, b);
	if (r->o->quiet) return 0;
	if (r->o->format[0] == 'f') fwrite(reply->p, 1, reply->n, stdout);
	else if (!write_rows(r, b, reply->p, reply->n / 4 / b->n))
		return vk_cli_say(r->cli, VK_EXIT_FAILED, "writing failed");
	return ferror(stdout) ? VK_EXIT_FAILED : 0;
}

static int report(const struct batch *b)
{
	char about[96];
	snprintf(about, sizeof about, "texts %llu to %llu: ", (unsigned long long)b->index[0],
		 (unsigned long long)b->index[b->n - 1]);
	return vk_ask_report(&b->sent.call, b->n > 1 ? about : NULL);
}

/* The window's three. */

static int fill(void *arg, void *batch)
{
	return batch_fill(arg, batch);
}

static int answered(void *arg, void *batch)
{
	struct run *r = arg;
	const struct batch *b = batch;
	int rc = batch_write(r, b);
	vk_progress_show(&r->progress, r->totals.texts, b->part, r->texts.bytes_all, vk_mono_us());
	return rc;
}

static int failed(void *arg, void *batch)
{
	struct run *r = arg;
	vk_progress_end(&r->progress);
	return report(batch);
}

/* --- the run --- */

static int embed_all(struct run *r)
{
	struct vk_window w = {.client = &r->client, .parallel = r->o->parallel, .retries = r->o->retries,
			      .batch_size = sizeof(struct batch), .fill = fill, .answered = answered, .failed = failed, .arg = r};
	int rc = vk_window_run(&w);
	vk_progress_end(&r->progress);
	return rc;
}

static void summary_json(const struct run *r, double seconds)
{
	const struct totals *t = &r->totals;
	struct vk_buf b;
	struct vk_jw w;
	vk_buf_init(&b, 4096);
	vk_jw_init(&w, &b);
	vk_jw_object(&w);
	vk_jw_ki(&w, "texts", (int64_t)t->texts);
	vk_jw_ki(&w, "hits", (int64_t)t->hits);
	vk_jw_ki(&w, "misses", (int64_t)t->misses);
	vk_jw_ki(&w, "coalesced", (int64_t)t->coalesced);
	vk_jw_ki(&w, "tokens_billed", (int64_t)t->billed);
	vk_jw_ki(&w, "tokens_saved", (int64_t)t->saved);
	vk_jw_ki(&w, "truncated", (int64_t)t->truncated);
	vk_jw_kf(&w, "seconds", seconds);
	vk_jw_object_end(&w);
	fprintf(r->o->quiet ? stdout : stderr, "%s\n", vk_buf_cstr(&b));
	vk_buf_free(&b);
}

static void summary(const struct run *r, double seconds)
{
	const struct totals *t = &r->totals;
	char texts[VK_CELL_MAX], hits[VK_CELL_MAX], misses[VK_CELL_MAX], billed[VK_CELL_MAX], saved[VK_CELL_MAX];
	if (r->cli->json) {
		summary_json(r, seconds);
		return;
	}
	fprintf(stderr, "%s texts in %.2f s (%.0f/s): %s hits, %s misses; tokens: %s billed, %s saved\n",
		vk_show_count(texts, t->texts), seconds, seconds > 0 ? (double)t->texts / seconds : 0,
		vk_show_count(hits, t->hits), vk_show_count(misses, t->misses + t->coalesced),
		vk_show_count(billed, t->billed), vk_show_count(saved, t->saved));
	if (t->truncated)
		fprintf(stderr, "%llu texts are longer than the model reads: their ends did not count\n",
			(unsigned long long)t->truncated);
}

static int embed(struct run *r)
{
	const struct opts *o = r->o;
	vk_buf_init(&r->line, (size_t)16 << 20);
	int rc = vk_client_open(&r->client, r->cli);
	if (!rc) {
		uint64_t start_us = vk_mono_us();
		bool to_terminal = isatty(STDOUT_FILENO) && !o->quiet; /* the rows themselves show progress */
		vk_progress_begin(&r->progress, stderr, to_terminal, "embedding", start_us);
		rc = embed_all(r);
		fflush(stdout);
		if (!rc || r->totals.texts) summary(r, (double)(vk_mono_us() - start_us) / 1e6);
		vk_client_close(&r->client);
	}
	vk_buf_free(&r->line);
	return rc;
}

static int check(const struct vk_cli *cli, struct opts *o)
{
	bool dash = cli->args.n == 1 && !strcmp(cli->args.v[0], "-");
	if (dash && !o->file) o->file = "-";
	else if (o->file && cli->args.n) return vk_cli_say(cli, VK_EXIT_MISUSE, "texts as arguments or --file, not both");
	if (!o->file && !cli->args.n) return vk_cli_say(cli, VK_EXIT_MISUSE, "no text: give some, or - or --file");
	if (o->field && !o->file) return vk_cli_say(cli, VK_EXIT_MISUSE, "--field goes with --file or -");
	if (strcmp(o->format, "json") && strcmp(o->format, "base64") && strcmp(o->format, "f32"))
		return vk_cli_say(cli, VK_EXIT_MISUSE, "--format: json, base64 or f32, not \"%s\"", o->format);
	if (!o->batch || o->batch > BATCH_MAX) return vk_cli_say(cli, VK_EXIT_MISUSE, "--batch: 1 to %d", BATCH_MAX);
	if (!o->parallel || o->parallel > WINDOW_MAX)
		return vk_cli_say(cli, VK_EXIT_MISUSE, "--parallel: 1 to %d", WINDOW_MAX);
	if (o->format[0] == 'f' && !o->quiet && isatty(STDOUT_FILENO))
		return vk_cli_say(cli, VK_EXIT_MISUSE, "raw rows are not for a terminal: redirect standard output");
	return 0;
}

int vk_embed_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct opts o = {.format = "json", .batch = 256, .parallel = 4, .retries = 8};
	const char *model = getenv("VECKEEP_MODEL");
	o.model = model && *model ? model : "builtin";
	int rc = vk_cli_begin(&cli, &help, table, &o, argc, argv);
	if (rc >= 0) return rc;
	rc = check(&cli, &o);
	if (!rc) {
		struct run r = {.cli = &cli, .o = &o};
		rc = vk_texts_open(&r.texts, &cli, o.file, o.field, o.skip_empty) ? embed(&r) : VK_EXIT_FAILED;
		vk_texts_close(&r.texts);
	}
	vk_cli_end(&cli);
	return rc;
}
