/*
 * veckeep faiss import: each vector of a FAISS index file becomes a point, by batches over HTTP. The file is read in a process of
 * its own (index/faiss_import.h), so a damaged one is an error and nothing worse; what came before is in the collection by
 * then, and importing again changes nothing: ids are FAISS's own, or the lines of --ids that they count.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "index/faiss_import.h"
#include "server/cli_window.h"
#include "server/cmd_faiss.h"
#include "server/progress.h"
#include "store/file.h"

#define BATCH_MAX 1024
#define BATCH_FLOATS ((size_t)512 << 10) /* of one request: some 6 MB of text */
#define WINDOW_MAX 16
#define IDS_BYTES_MAX ((size_t)4 << 30)

struct opts {
	const char *collection, *ids, *using, *distance;
	uint64_t batch, parallel, retries;
};

#define AT(field) offsetof(struct opts, field)
static const struct vk_opt table[] = {
	{"collection", 'c', VK_OPT_STR, AT(collection), "NAME", "where to (needed); made when it is not there"},
	{"ids", 'i', VK_OPT_STR, AT(ids), "FILE", "one id a line: line n + 1 is the id of FAISS's number n"},
	{"using", 'u', VK_OPT_STR, AT(using), "VECTOR", "which named vector (the unnamed one)"},
	{"distance", 0, VK_OPT_STR, AT(distance), "KIND", "of a collection that is made: Cosine, Dot, Euclid (the index's own)"},
	{"batch", 'b', VK_OPT_U64, AT(batch), "N", "points a request (256)"},
	{"parallel", 'P', VK_OPT_U64, AT(parallel), "N", "requests under way at once (3)"},
	{"retries", 0, VK_OPT_U64, AT(retries), "N", "tries again of a request that the server puts off (8)"},
	{0},
};
#undef AT

static const struct vk_cli_help help = {
	.name = "veckeep faiss import",
	.synopsis = "--collection NAME [OPTION]... FILE",
	.text = "Imports the vectors of a FAISS index file (what faiss.write_index wrote) into a collection: as\n"
		"they are from Flat, HNSW, IVF...,Flat and RFlat, else as the codes remember them. Binary\n"
		"indexes have none. A collection that is made takes the index's metric: inner product is Dot\n"
		"(say --distance Cosine for unit vectors), L2 is Euclid.\n",
	.examples = "  veckeep faiss import docs.faiss --collection docs --distance Cosine\n"
		    "  veckeep faiss import docs.faiss -c docs --ids docs.ids\n",
	.args_min = 1,
	.args_max = 1,
	.client = true,
};

struct run {
	const struct vk_cli *cli;
	const struct opts *o;
	const char *file;
	struct vk_client client;
	struct vk_faiss_import *in;
	struct vk_faiss_import_head head;
	struct vk_progress progress;
	struct vk_buf path, ids;
	struct vk_bytes *line; /* of --ids */
	uint64_t lines;
	uint32_t batch;        /* points a request */
	int64_t *id;           /* a batch's, and its rows */
	float *row;
	uint64_t done;
	bool made;
};

struct batch {
	struct vk_window_call sent;
	uint32_t n;
};

/* --- ids --- */

static int read_ids(struct run *r)
{
	struct vk_error err = {0};
	vk_buf_init(&r->ids, IDS_BYTES_MAX);
	if (!r->o->ids) return 0;
	if (vk_file_read(r->o->ids, &r->ids, &err)) return vk_cli_say(r->cli, VK_EXIT_FAILED, "%s", err.text);
	if (vk_utf8_valid(r->ids.p, r->ids.n) != r->ids.n) return vk_cli_say(r->cli, VK_EXIT_FAILED, "%s is not UTF-8", r->o->ids);
	const char *p = r->ids.p, *end = p + r->ids.n;
	for (size_t i = 0; i < r->ids.n; i++) r->lines += p[i] == '\n';
	r->line = calloc(r->lines + 1, sizeof *r->line);
	if (!r->line) return vk_cli_say(r->cli, VK_EXIT_FAILED, "out of memory");
	r->lines = 0;
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p)), *to = nl ? nl : end;
		struct vk_bytes l = {p, (size_t)(to - p)};
		if (l.n && l.p[l.n - 1] == '\r') l.n--;
		if (!l.n) return vk_cli_say(r->cli, VK_EXIT_FAILED, "%s: line %llu is empty", r->o->ids, (unsigned long long)r->lines + 1);
		r->line[r->lines++] = l;
		p = nl ? nl + 1 : end;
	}
	return 0;
}

static bool is_number(struct vk_bytes s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < '0' || s.p[i] > '9') return false;
	return s.n && s.n <= 20 && (s.p[0] != '0' || s.n == 1);
}

/* False: said what is wrong. */
static bool write_id(const struct run *r, struct vk_jw *w, int64_t id)
{
	vk_jw_key(w, "id");
	if (id < 0 || (r->line && (uint64_t)id >= r->lines)) {
		vk_cli_say(r->cli, 0, r->line ? "FAISS's id %lld has no line in the file of ids" : "FAISS's id %lld can be no point's: give --ids",
			   (long long)id);
		return false;
	}
	if (!r->line) vk_jw_u64(w, (uint64_t)id);
	else if (is_number(r->line[id])) vk_jw_raw(w, r->line[id]);
	else vk_jw_str(w, r->line[id]);
	return true;
}

/* --- the collection --- */

static const char *distance_of(const struct run *r)
{
	if (r->o->distance && *r->o->distance) return r->o->distance;
	return r->head.inner_product ? "Dot" : "Euclid";
}

static int make_collection(struct run *r)
{
	struct vk_json_reply reply;
	struct vk_buf path, body;
	struct vk_jw w;
	vk_buf_init(&body, 65536);
	vk_jw_init(&w, &body);
	vk_jw_object(&w);
	vk_jw_key(&w, "vectors");
	vk_jw_object(&w);
	if (*r->o->using) {
		vk_jw_key(&w, r->o->using);
		vk_jw_object(&w);
	}
	vk_jw_ki(&w, "size", (int64_t)r->head.dims);
	vk_jw_kv(&w, "distance", distance_of(r));
	if (*r->o->using) vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_faiss_path(&path, r->o->collection, "");
	int rc = vk_client_json(&r->client, "PUT", vk_buf_cstr(&path), vk_buf_bytes(&body), &reply);
	vk_json_reply_free(&reply);
	vk_buf_free(&path);
	vk_buf_free(&body);
	r->made = !rc;
	return rc;
}

static int prepare_collection(struct run *r)
{
	struct vk_faiss_target t;
	int rc = vk_faiss_target(&r->client, r->o->collection, r->o->using, &t);
	if (rc) return rc;
	if (!t.there) return make_collection(r);
	if (t.dims == r->head.dims) return 0;
	return vk_cli_say(r->cli, VK_EXIT_FAILED, "%s has vectors of %u dims, the collection of %llu", r->file, r->head.dims,
			  (unsigned long long)t.dims);
}

/* --- batches: the window's three --- */

static bool write_points(const struct run *r, struct vk_jw *w, uint32_t n)
{
	bool good = true;
	vk_jw_object(w);
	vk_jw_key(w, "points");
	vk_jw_array(w);
	for (uint32_t i = 0; i < n && good; i++) {
		vk_jw_object(w);
		good = write_id(r, w, r->id[i]);
		if (!good) break;
		vk_jw_key(w, "vector");
		if (*r->o->using) {
			vk_jw_object(w);
			vk_jw_key(w, r->o->using);
		}
		vk_jw_f32s(w, r->row + (size_t)i * r->head.dims, r->head.dims);
		if (*r->o->using) vk_jw_object_end(w);
		vk_jw_object_end(w);
	}
	if (!good) {
		vk_jw_abandon(w);
		return false;
	}
	vk_jw_array_end(w);
	vk_jw_object_end(w);
	return true;
}

static int fill(void *arg, void *batch)
{
	struct run *r = arg;
	struct batch *b = batch;
	struct vk_error err = {0};
	struct vk_jw w;
	if (vk_faiss_import_next(r->in, r->batch, r->id, r->row, &b->n, &err)) {
		vk_progress_end(&r->progress);
		vk_cli_say(r->cli, 0, "%s: %s", r->file, err.text);
		return -1;
	}
	if (!b->n) return 0;
	vk_ask_init(&b->sent.call, &r->client, "PUT", vk_buf_cstr(&r->path));
	vk_ask_header(&b->sent.call, "Content-Type: application/json");
	vk_jw_init(&w, &b->sent.call.body);
	bool good = write_points(r, &w, b->n);
	if (good && !b->sent.call.body.failed) return 1;
	if (good) vk_cli_say(r->cli, 0, "out of memory");
	vk_ask_free(&b->sent.call);
	return -1;
}

static int answered(void *arg, void *batch)
{
	struct run *r = arg;
	const struct batch *b = batch;
	r->done += b->n;
	vk_progress_show(&r->progress, r->done, (double)r->done, (double)r->head.rows, vk_mono_us());
	return 0;
}

static int failed(void *arg, void *batch)
{
	struct run *r = arg;
	const struct batch *b = batch;
	vk_progress_end(&r->progress);
	return vk_ask_report(&b->sent.call, NULL);
}

static int send_all(struct run *r)
{
	struct vk_window w = {.client = &r->client, .parallel = r->o->parallel, .retries = r->o->retries,
			      .batch_size = sizeof(struct batch), .fill = fill, .answered = answered, .failed = failed, .arg = r};
	size_t fit = BATCH_FLOATS / r->head.dims;
	r->batch = (uint32_t)(r->o->batch < fit ? r->o->batch : fit ? fit : 1);
	r->id = malloc(r->batch * sizeof *r->id);
	r->row = malloc((size_t)r->batch * r->head.dims * sizeof *r->row);
	if (!r->id || !r->row) return vk_cli_say(r->cli, VK_EXIT_FAILED, "out of memory");
	vk_faiss_path(&r->path, r->o->collection, "/points?wait=true");
	int rc = vk_window_run(&w);
	vk_progress_end(&r->progress);
	vk_buf_free(&r->path);
	return rc;
}

/* --- the run --- */

static void summary(const struct run *r, double seconds, int rc)
{
	char n[VK_CELL_MAX];
	if (r->cli->json) {
		struct vk_buf b;
		struct vk_jw w;
		vk_buf_init(&b, 65536);
		vk_jw_init(&w, &b);
		vk_jw_object(&w);
		vk_jw_kv(&w, "collection", r->o->collection);
		vk_jw_kv(&w, "type", r->head.type);
		vk_jw_ki(&w, "dims", (int64_t)r->head.dims);
		vk_jw_ki(&w, "points", (int64_t)r->done);
		vk_jw_kf(&w, "seconds", seconds);
		vk_jw_kb(&w, "complete", rc == 0);
		vk_jw_object_end(&w);
		puts(vk_buf_cstr(&b));
		vk_buf_free(&b);
		return;
	}
	fprintf(stderr, "%s points of %u dims (%s) into %s%s in %.1f s\n", vk_show_count(n, r->done), r->head.dims, r->head.type,
		r->o->collection, r->made ? " (new)" : "", seconds);
}

static int import(struct run *r)
{
	int rc = prepare_collection(r);
	if (rc) return rc;
	uint64_t start_us = vk_mono_us();
	vk_progress_begin(&r->progress, stderr, false, "importing", start_us);
	rc = send_all(r);
	summary(r, (double)(vk_mono_us() - start_us) / 1e6, rc);
	return rc;
}

static int check(const struct vk_cli *cli, const struct opts *o)
{
	if (!o->collection || !*o->collection) return vk_cli_say(cli, VK_EXIT_MISUSE, "--collection says where to");
	if (!o->batch || o->batch > BATCH_MAX) return vk_cli_say(cli, VK_EXIT_MISUSE, "--batch: 1 to %d", BATCH_MAX);
	if (!o->parallel || o->parallel > WINDOW_MAX) return vk_cli_say(cli, VK_EXIT_MISUSE, "--parallel: 1 to %d", WINDOW_MAX);
	return 0;
}

int vk_faiss_import_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct vk_error err = {0};
	struct opts o = {.using = "", .distance = "", .batch = 256, .parallel = 3, .retries = 8};
	int rc = vk_cli_begin(&cli, &help, table, &o, argc, argv);
	if (rc >= 0) return rc;
	struct run r = {.cli = &cli, .o = &o};
	rc = check(&cli, &o);
	if (rc) goto out;
	r.file = cli.args.v[0];
	/* Forks, so before the client has its thread. */
	if (vk_faiss_import_open(r.file, &r.in, &r.head, &err)) {
		bool named = strstr(err.text, r.file);
		rc = vk_cli_say(&cli, VK_EXIT_FAILED, "%s%s%s", named ? "" : r.file, named ? "" : ": ", err.text);
		goto out;
	}
	rc = read_ids(&r);
	if (!rc) rc = vk_client_open(&r.client, &cli);
	if (!rc) {
		rc = import(&r);
		vk_client_close(&r.client);
	}
out:
	vk_faiss_import_close(r.in);
	vk_buf_free(&r.ids);
	free(r.line);
	free(r.id);
	free(r.row);
	vk_cli_end(&cli);
	return rc;
}
