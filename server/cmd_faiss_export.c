/*
 * veckeep faiss export: a collection's vectors, in id order, as an index of any kind that the factory string says, built here and
 * written as FAISS's own file, with a file of ids beside it (line n + 1 is the id of FAISS's number n). The vectors are held in
 * memory once as they come and once in the index.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "index/faiss.h"
#include "server/cmd_faiss.h"
#include "server/progress.h"
#include "store/file.h"

#define PAGE_FLOATS ((size_t)512 << 10) /* of one reply: some 6 MB of text */
#define PAGE_POINTS_MAX 1000
#define IDS_BYTES_MAX ((size_t)4 << 30)

struct opts {
	const char *collection, *factory, *ids, *using;
	uint64_t threads;
};

#define AT(field) offsetof(struct opts, field)
static const struct vk_opt table[] = {
	{"collection", 'c', VK_OPT_STR, AT(collection), "NAME", "which one (needed)"},
	{"factory", 'f', VK_OPT_STR, AT(factory), "STRING", "the kind of index, such as IVF1024,PQ32 or HNSW32 (Flat)"},
	{"ids", 'i', VK_OPT_STR, AT(ids), "FILE", "where the ids go (FILE.ids)"},
	{"using", 'u', VK_OPT_STR, AT(using), "VECTOR", "which named vector (the unnamed one)"},
	{"threads", 't', VK_OPT_U64, AT(threads), "N", "of training and building (one a core)"},
	{0},
};
#undef AT

static const struct vk_cli_help help = {
	.name = "veckeep faiss export",
	.synopsis = "--collection NAME [OPTION]... FILE",
	.text = "Writes a collection's vectors as a FAISS index file, which faiss.read_index opens, and their ids\n"
		"beside it, one a line in FAISS's order. Cosine comes as unit vectors under inner product.\n",
	.examples = "  veckeep faiss export docs.faiss --collection docs\n"
		    "  veckeep faiss export docs.faiss -c docs --factory IVF1024,SQ8\n",
	.args_min = 1,
	.args_max = 1,
	.client = true,
};

struct run {
	const struct vk_cli *cli;
	const struct opts *o;
	const char *file;
	struct vk_client client;
	struct vk_faiss_target target;
	enum vk_metric metric;
	struct vk_progress progress;
	struct vk_buf ids;
	float *row;
	uint64_t rows, cap, seen; /* seen: with those that have no such vector */
	struct vk_faiss *index;
};

/* --- what there is --- */

static int check_target(struct run *r)
{
	static const struct {
		const char *name;
		enum vk_metric metric;
	} distances[] = {{"Cosine", VK_METRIC_COSINE}, {"Dot", VK_METRIC_DOT}, {"Euclid", VK_METRIC_L2}};
	struct vk_faiss_plan plan;
	struct vk_error err = {0};
	if (!r->target.there) return vk_cli_say(r->cli, VK_EXIT_FAILED, "there is no collection \"%s\"", r->o->collection);
	if (vk_faiss_plan(r->o->factory, (uint32_t)r->target.dims, &plan, &err)) return vk_cli_say(r->cli, VK_EXIT_MISUSE, "%s", err.text);
	if (!vk_faiss_library(&err)) return vk_cli_say(r->cli, VK_EXIT_FAILED, "%s", err.text);
	for (size_t i = 0; i < sizeof distances / sizeof *distances; i++) {
		if (strcmp(r->target.distance, distances[i].name)) continue;
		r->metric = distances[i].metric;
		return 0;
	}
	return vk_cli_say(r->cli, VK_EXIT_FAILED, "FAISS has no index for distance %s here", r->target.distance);
}

/* --- pages --- */

static void write_page_request(const struct run *r, struct vk_buf *b, const char *offset)
{
	struct vk_jw w;
	size_t fit = PAGE_FLOATS / r->target.dims;
	vk_buf_init(b, 65536);
	vk_jw_init(&w, b);
	vk_jw_object(&w);
	vk_jw_ki(&w, "limit", (int64_t)(fit > PAGE_POINTS_MAX ? PAGE_POINTS_MAX : fit ? fit : 1));
	vk_jw_kb(&w, "with_payload", false);
	vk_jw_key(&w, "with_vector");
	if (*r->o->using) {
		vk_jw_array(&w);
		vk_jw_cstr(&w, r->o->using);
		vk_jw_array_end(&w);
	} else {
		vk_jw_bool(&w, true);
	}
	if (*offset) {
		vk_jw_key(&w, "offset");
		vk_jw_raw(&w, vk_bytes_of(offset));
	}
	vk_jw_object_end(&w);
}

/* An id as a line: a number's text, a string as it is. */
static bool put_id(struct vk_buf *b, const vk_jv *id)
{
	struct vk_bytes s;
	if (!vk_jv_str(id, &s) && !vk_jv_text(id, &s)) return false;
	if (memchr(s.p, '\n', s.n) || memchr(s.p, '\r', s.n)) return false;
	vk_buf_put(b, s.p, s.n);
	vk_buf_putc(b, '\n');
	return !b->failed;
}

static bool room(struct run *r)
{
	if (r->rows < r->cap) return true;
	uint64_t cap = r->cap ? r->cap + r->cap / 2 : r->target.points + 1;
	float *row = realloc(r->row, cap * r->target.dims * sizeof *row);
	if (!row) return false;
	r->row = row;
	r->cap = cap;
	return true;
}

static int take_point(struct run *r, const vk_jv *p)
{
	const vk_jv *v = vk_jv_get(p, "vector");
	if (*r->o->using) v = vk_jv_get(v, r->o->using);
	r->seen++;
	if (vk_jv_type(v) != VK_J_NUMBERS) return 0; /* this point has none */
	if (r->rows >= VK_FAISS_ROWS_MAX) return vk_cli_say(r->cli, VK_EXIT_FAILED, "FAISS takes at most %u rows here", VK_FAISS_ROWS_MAX);
	if (!room(r)) return vk_cli_say(r->cli, VK_EXIT_FAILED, "out of memory at %llu vectors", (unsigned long long)r->rows);
	if (vk_jv_len(v) != r->target.dims || !vk_jv_f32s(v, r->row + r->rows * r->target.dims))
		return vk_cli_say(r->cli, VK_EXIT_FAILED, "the server answered with a vector of another kind");
	if (!put_id(&r->ids, vk_jv_get(p, "id"))) return vk_cli_say(r->cli, VK_EXIT_FAILED, "an id does not fit on a line");
	r->rows++;
	return 0;
}

/* offset: the page's beginning as JSON, then the next one's; "" at the end. */
static int take_page(struct run *r, struct vk_buf *offset)
{
	struct vk_json_reply reply;
	struct vk_buf path, body;
	vk_faiss_path(&path, r->o->collection, "/points/scroll");
	write_page_request(r, &body, vk_buf_cstr(offset));
	int rc = vk_client_json(&r->client, "POST", vk_buf_cstr(&path), vk_buf_bytes(&body), &reply);
	const vk_jv *result = rc ? NULL : vk_jv_get(reply.root, "result"), *next = vk_jv_get(result, "next_page_offset");
	for (const vk_jv *p = vk_jv_first(vk_jv_get(result, "points")); p && !rc; p = vk_jv_next(p)) rc = take_point(r, p);
	struct vk_jw w;
	offset->n = 0;
	vk_jw_init(&w, offset);
	if (vk_jv_type(next) != VK_J_NULL) vk_jw_value(&w, next);
	vk_json_reply_free(&reply);
	vk_buf_free(&path);
	vk_buf_free(&body);
	return rc;
}

static int take_all(struct run *r)
{
	struct vk_buf offset;
	int rc = 0;
	vk_buf_init(&offset, 65536);
	vk_buf_init(&r->ids, IDS_BYTES_MAX);
	vk_progress_begin(&r->progress, stderr, false, "reading", vk_mono_us());
	do {
		rc = take_page(r, &offset);
		vk_progress_show(&r->progress, r->seen, (double)r->seen, (double)r->target.points, vk_mono_us());
	} while (!rc && offset.n);
	vk_progress_end(&r->progress);
	vk_buf_free(&offset);
	if (!rc && !r->rows) rc = vk_cli_say(r->cli, VK_EXIT_FAILED, "the collection has no vectors");
	return rc;
}

/* --- the index --- */

static void show(void *arg, uint64_t done, uint64_t total)
{
	struct run *r = arg;
	vk_progress_show(&r->progress, done, (double)done, (double)total, vk_mono_us());
}

static int build(struct run *r)
{
	struct vk_error err = {0};
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned threads = r->o->threads ? (unsigned)r->o->threads : cores > 0 ? (unsigned)cores : 1;
	struct vk_faiss_conf c = {.factory = r->o->factory, .dims = (uint32_t)r->target.dims, .metric = r->metric, .rows = r->rows,
				  .seed = 1};
	struct vk_faiss_opts o = {.threads = threads, .progress = show, .arg = r};
	uint32_t *number = malloc(r->rows * sizeof *number);
	for (uint64_t i = 0; number && i < r->rows; i++) number[i] = (uint32_t)i;
	enum vk_status st = number ? vk_faiss_new(&c, &r->index, &err) : vk_fail(&err, VK_E_NOMEM, "out of memory");
	vk_progress_begin(&r->progress, stderr, false, "training", vk_mono_us());
	if (!st) st = vk_faiss_train_sample(r->index, r->rows, r->row, 0, &o, &err);
	vk_progress_end(&r->progress);
	vk_progress_begin(&r->progress, stderr, false, "building", vk_mono_us());
	if (!st) st = vk_faiss_add(r->index, r->rows, r->row, number, &o, &err);
	vk_progress_end(&r->progress);
	free(number);
	return st ? vk_cli_say(r->cli, VK_EXIT_FAILED, "%s", err.text) : 0;
}

static int write_files(struct run *r)
{
	char path[PATH_MAX], dir[PATH_MAX];
	struct vk_error err = {0};
	snprintf(path, sizeof path, r->o->ids ? "%s" : "%s.ids", r->o->ids ? r->o->ids : r->file);
	snprintf(dir, sizeof dir, "%s", path);
	char *slash = strrchr(dir, '/'), *name = slash ? strrchr(path, '/') + 1 : path;
	if (slash) slash[slash == dir] = 0;
	enum vk_status st = vk_file_replace(slash ? dir : ".", name, r->ids.p, r->ids.n, &err);
	if (!st) st = vk_faiss_export(r->index, r->file, &err);
	return st ? vk_cli_say(r->cli, VK_EXIT_FAILED, "%s", err.text) : 0;
}

static void summary(const struct run *r, double seconds)
{
	char n[VK_CELL_MAX];
	struct vk_faiss_about about = {0};
	(void)vk_faiss_about(r->index, &about, NULL);
	if (r->cli->json) {
		struct vk_buf b;
		struct vk_jw w;
		vk_buf_init(&b, 65536);
		vk_jw_init(&w, &b);
		vk_jw_object(&w);
		vk_jw_kv(&w, "collection", r->o->collection);
		vk_jw_kv(&w, "factory", r->o->factory);
		vk_jw_kv(&w, "type", about.type);
		vk_jw_ki(&w, "dims", (int64_t)r->target.dims);
		vk_jw_ki(&w, "rows", (int64_t)r->rows);
		vk_jw_kf(&w, "seconds", seconds);
		vk_jw_object_end(&w);
		puts(vk_buf_cstr(&b));
		vk_buf_free(&b);
		return;
	}
	fprintf(stderr, "%s vectors of %llu dims from %s in %s (%s) in %.1f s\n", vk_show_count(n, r->rows),
		(unsigned long long)r->target.dims, r->o->collection, r->file, about.type, seconds);
}

static int export(struct run *r)
{
	uint64_t start_us = vk_mono_us();
	int rc = vk_faiss_target(&r->client, r->o->collection, r->o->using, &r->target);
	if (!rc) rc = check_target(r);
	if (!rc) rc = take_all(r);
	if (!rc) rc = build(r);
	if (!rc) rc = write_files(r);
	if (!rc) summary(r, (double)(vk_mono_us() - start_us) / 1e6);
	return rc;
}

int vk_faiss_export_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct opts o = {.factory = "Flat", .using = ""};
	int rc = vk_cli_begin(&cli, &help, table, &o, argc, argv);
	if (rc >= 0) return rc;
	struct run r = {.cli = &cli, .o = &o, .file = cli.args.v[0]};
	rc = !o.collection || !*o.collection ? vk_cli_say(&cli, VK_EXIT_MISUSE, "--collection says which one") : 0;
	if (!rc && o.threads > VK_FAISS_THREADS_MAX) rc = vk_cli_say(&cli, VK_EXIT_MISUSE, "--threads: 0 to %u", VK_FAISS_THREADS_MAX);
	if (!rc) rc = vk_client_open(&r.client, &cli);
	if (!rc) {
		rc = export(&r);
		vk_client_close(&r.client);
	}
	vk_faiss_free(r.index);
	vk_buf_free(&r.ids);
	free(r.row);
	vk_cli_end(&cli);
	return rc;
}
