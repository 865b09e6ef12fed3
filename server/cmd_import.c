/*
 * veckeep import: a JSON Lines file into a collection. First a look through the file (how many texts, about how many tokens,
 * what they cost at most), then batches of points with their texts in place of vectors, a few requests under way at once. The
 * server embeds each text once, whatever was imported before.
 *
 * Where it stopped is kept in a small file beside the input: the byte up to which every line is in the collection (the oldest batch is
 * waited for first, so that is one number). Ids are the lines' own or made of the text: sending a batch again changes nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/cli_window.h"
#include "server/cmd.h"
#include "server/cmd_import_input.h"
#include "server/progress.h"

#define BATCH_MAX 1024
#define BATCH_BYTES ((size_t)4 << 20)
#define WINDOW_MAX 16
#define BYTES_A_TOKEN 4 /* of English text; an estimate, said to be one */

struct opts {
	const char *collection, *model, *text_field, *id_field, *using, *distance;
	uint64_t batch, parallel, retries;
	bool dry_run, yes, restart;
};

#define AT(field) offsetof(struct opts, field)
static const struct vk_opt table[] = {
	{"collection", 'c', VK_OPT_STR, AT(collection), "NAME", "where to (needed); made when it is not there"},
	{"model", 'm', VK_OPT_STR, AT(model), "NAME", "a model name that the server knows (VECKEEP_MODEL; builtin)"},
	{"text-field", 't', VK_OPT_STR, AT(text_field), "NAME", "the field with the text (text, page_content, content, document)"},
	{"id-field", 'i', VK_OPT_STR, AT(id_field), "NAME", "the field with the id (id); without one the text makes it"},
	{"using", 'u', VK_OPT_STR, AT(using), "VECTOR", "which named vector (the unnamed one)"},
	{"distance", 0, VK_OPT_STR, AT(distance), "KIND", "of a collection that is made: Cosine, Dot, Euclid, Manhattan (Cosine)"},
	{"batch", 'b', VK_OPT_U64, AT(batch), "N", "points a request (128)"},
	{"parallel", 'P', VK_OPT_U64, AT(parallel), "N", "requests under way at once (3)"},
	{"retries", 0, VK_OPT_U64, AT(retries), "N", "tries again of a request that the server puts off (8)"},
	{"dry-run", 'n', VK_OPT_FLAG, AT(dry_run), NULL, "only say what it would be and cost"},
	{"yes", 'y', VK_OPT_FLAG, AT(yes), NULL, "do not ask before buying"},
	{"restart", 0, VK_OPT_FLAG, AT(restart), NULL, "from the first line, also where an earlier run stopped"},
	{0},
};
#undef AT

static const struct vk_cli_help help = {
	.name = "veckeep import",
	.synopsis = "--collection NAME [OPTION]... FILE.jsonl | -",
	.text = "Imports a file of JSON objects, one a line, into a collection: text, id and payload. The\n"
		"server embeds the texts through its cache. Says first how much it is and what it may cost;\n"
		"goes on where an interrupted run stopped.\n",
	.examples = "  veckeep import docs.jsonl --collection docs\n"
		    "  veckeep import docs.jsonl -c docs --model text-embedding-3-small --dry-run\n"
		    "  jq -c '{id: .key, text: .body, payload: {title}}' dump.json | veckeep import - -c docs\n",
	.args_min = 1,
	.args_max = 1,
	.client = true,
};

struct batch {
	struct vk_window_call sent;
	uint64_t lines, end; /* of the file, when it was closed */
};

struct run {
	const struct vk_cli *cli;
	const struct opts *o;
	const char *file;
	struct vk_client client;
	struct vk_import_input in;
	struct vk_progress progress;
	struct vk_buf path;
	struct stat st;
	bool resumable;
	char state[4200];    /* path of the progress file */
	uint64_t from;       /* byte that this run began at */
	uint64_t lines_all, text_bytes, done, saved_at_ms;
	/* the model, as the server describes it */
	char space[512], currency[16];
	uint64_t dims;
	double per_mtok;     /* negative: not known */
	bool made;           /* the collection was not there */
};

/* --- where an earlier run stopped --- */

static void state_load(struct run *r)
{
	unsigned long long offset, size;
	long long mtime;
	r->resumable = strcmp(r->file, "-") && !stat(r->file, &r->st) && S_ISREG(r->st.st_mode);
	snprintf(r->state, sizeof r->state, "%s.%s.veckeep-import", r->file, r->o->collection);
	if (!r->resumable || r->o->restart) return;
	FILE *f = fopen(r->state, "re");
	if (!f) return;
	if (fscanf(f, "%llu %llu %lld", &offset, &size, &mtime) == 3 && size == (unsigned long long)r->st.st_size &&
	    mtime == (long long)r->st.st_mtime)
		r->from = offset;
	fclose(f);
}

static void state_save(struct run *r, uint64_t offset)
{
	char tmp[4300];
	if (!r->resumable) return;
	snprintf(tmp, sizeof tmp, "%s.tmp", r->state);
	FILE *f = fopen(tmp, "we");
	if (!f) return;
	fprintf(f, "%llu %llu %lld\n", (unsigned long long)offset, (unsigned long long)r->st.st_size,
		(long long)r->st.st_mtime);
	if (fclose(f) || rename(tmp, r->state)) unlink(tmp);
}

/* --- the estimate --- */

static int look_through(struct run *r)
{
	struct vk_import_line l;
	int rc;
	if (!r->resumable) return 0;
	if (!vk_import_open(&r->in, r->cli, r->file, r->o->text_field, r->o->id_field)) return VK_EXIT_FAILED;
	vk_progress_begin(&r->progress, stderr, false, "reading", vk_mono_us());
	if (r->from && fseeko(r->in.file, (off_t)r->from, SEEK_SET)) r->from = 0;
	r->in.offset = r->from;
	while ((rc = vk_import_next(&r->in, &l)) > 0) {
		r->lines_all++;
		r->text_bytes += l.vector ? 0 : l.text.n;
		if (r->lines_all % 1024 == 0)
			vk_progress_show(&r->progress, r->lines_all, (double)r->in.offset, (double)r->st.st_size, vk_mono_us());
	}
	vk_progress_end(&r->progress);
	vk_import_close(&r->in);
	return rc < 0 ? VK_EXIT_FAILED : 0;
}

/* Which space the model is of, its dims and price. */
static int ask_model(struct run *r)
{
	struct vk_json_reply reply;
	int rc = vk_client_json(&r->client, "GET", "/v1/spaces", (struct vk_bytes){0}, &reply);
	r->per_mtok = -1;
	for (const vk_jv *s = rc ? NULL : vk_jv_first(vk_jv_get(reply.root, "data")); s; s = vk_jv_next(s))
		for (const vk_jv *m = vk_jv_first(vk_jv_get(s, "models")); m; m = vk_jv_next(m)) {
			struct vk_bytes name;
			if (!vk_jv_str(m, &name) || !vk_bytes_is(name, r->o->model)) continue;
			const vk_jv *price = vk_jv_get(s, "price");
			snprintf(r->space, sizeof r->space, "%s", vk_reply_str(&reply, s, "id"));
			r->dims = vk_reply_u64(s, "dims");
			if (vk_jv_type(price) == VK_J_OBJECT) {
				r->per_mtok = vk_reply_f64(price, "per_mtok");
				snprintf(r->currency, sizeof r->currency, "%s", vk_reply_str(&reply, price, "currency"));
			}
		}
	vk_json_reply_free(&reply);
	if (!rc && !r->space[0])
		rc = vk_cli_say(r->cli, VK_EXIT_FAILED, "the server has no model \"%s\" (veckeep spaces lists what it has)", r->o->model);
	return rc;
}

static void say_estimate(const struct run *r)
{
	char lines[VK_CELL_MAX], bytes[VK_CELL_MAX], tokens[VK_CELL_MAX];
	uint64_t n = r->text_bytes / BYTES_A_TOKEN;
	if (!r->resumable) return;
	fprintf(stderr, "%s%s lines, %s of text, about %s tokens for %s", r->from ? "still to do: " : "",
		vk_show_count(lines, r->lines_all), vk_show_bytes(bytes, r->text_bytes), vk_show_count(tokens, n), r->space);
	if (r->per_mtok > 0)
		fprintf(stderr, ": at most about %.2f %s, less what is cached\n", (double)n / 1e6 * r->per_mtok, r->currency);
	else
		fprintf(stderr, "%s\n", r->per_mtok == 0 ? ": no cost" : "; its price is not known");
}

static int agree(const struct run *r)
{
	char line[16];
	if (r->o->dry_run || r->o->yes || r->per_mtok == 0 || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) return 0;
	fputs("go on? [y/N] ", stderr);
	if (fgets(line, sizeof line, stdin) && (line[0] == 'y' || line[0] == 'Y')) return 0;
	return vk_cli_say(r->cli, VK_EXIT_FAILED, "nothing was imported");
}

/* --- the collection --- */

static void collection_path(struct vk_buf *b, const char *name, const char *rest)
{
	vk_buf_init(b, 65536);
	vk_buf_puts(b, "/collections/");
	vk_url_put(b, name, false);
	vk_buf_puts(b, rest);
}

static void write_collection(const struct run *r, struct vk_buf *b)
{
	struct vk_jw w;
	vk_jw_init(&w, b);
	vk_jw_object(&w);
	vk_jw_key(&w, "vectors");
	vk_jw_object(&w);
	if (*r->o->using) {
		vk_jw_key(&w, r->o->using);
		vk_jw_object(&w);
	}
	vk_jw_ki(&w, "size", (int64_t)r->dims);
	vk_jw_kv(&w, "distance", r->o->distance);
	if (*r->o->using) vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_jw_key(&w, "metadata");
	vk_jw_object(&w);
	vk_jw_key(&w, "veckeep");
	vk_jw_object(&w);
	vk_jw_key(&w, "spaces");
	vk_jw_object(&w);
	vk_jw_kv(&w, r->o->using, r->space);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
	vk_jw_object_end(&w);
}

static int make_collection(struct run *r)
{
	struct vk_json_reply reply;
	struct vk_buf path, body;
	collection_path(&path, r->o->collection, "/exists");
	int rc = vk_client_json(&r->client, "GET", vk_buf_cstr(&path), (struct vk_bytes){0}, &reply);
	r->made = !rc && !vk_reply_bool(vk_jv_get(reply.root, "result"), "exists");
	vk_json_reply_free(&reply);
	vk_buf_free(&path);
	if (rc || !r->made || r->o->dry_run) return rc;
	collection_path(&path, r->o->collection, "");
	vk_buf_init(&body, 65536);
	write_collection(r, &body);
	rc = vk_client_json(&r->client, "PUT", vk_buf_cstr(&path), vk_buf_bytes(&body), &reply);
	vk_json_reply_free(&reply);
	vk_buf_free(&path);
	vk_buf_free(&body);
	return rc;
}

/* --- batches --- */

static int batch_fill(struct run *r, struct batch *b)
{
	struct vk_import_line l;
	struct vk_jw w;
	int rc = 1;
	b->lines = 0;
	vk_ask_init(&b->sent.call, &r->client, "PUT", vk_buf_cstr(&r->path));
	vk_ask_header(&b->sent.call, "Content-Type: application/json");
	vk_jw_init(&w, &b->sent.call.body);
	vk_jw_object(&w);
	vk_jw_key(&w, "points");
	vk_jw_array(&w);
	while (b->lines < r->o->batch && b->sent.call.body.n < BATCH_BYTES && (rc = vk_import_next(&r->in, &l)) > 0) {
		vk_import_write(&w, &l, r->o->model, r->o->using);
		b->lines++;
	}
	vk_jw_array_end(&w);
	vk_jw_object_end(&w);
	b->end = r->in.offset;
	if (b->sent.call.body.failed) rc = -1, vk_cli_say(r->cli, 0, "out of memory");
	if (rc >= 0) rc = b->lines > 0;
	if (rc <= 0) vk_ask_free(&b->sent.call);
	return rc;
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
	r->done += b->lines;
	r->from = b->end;
	if (vk_mono_ms() >= r->saved_at_ms + 1000) {
		state_save(r, b->end);
		r->saved_at_ms = vk_mono_ms();
	}
	vk_progress_show(&r->progress, r->done, (double)r->done, (double)r->lines_all, vk_mono_us());
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
	collection_path(&r->path, r->o->collection, "/points?wait=true");
	int rc = vk_window_run(&w);
	vk_progress_end(&r->progress);
	vk_buf_free(&r->path);
	if (!rc && r->resumable)
		unlink(r->state);
	else if (r->done)
		state_save(r, r->from);
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
		vk_jw_ki(&w, "points", (int64_t)r->done);
		vk_jw_kf(&w, "seconds", seconds);
		vk_jw_kb(&w, "complete", rc == 0);
		vk_jw_object_end(&w);
		puts(vk_buf_cstr(&b));
		vk_buf_free(&b);
		return;
	}
	fprintf(stderr, "%s points into %s%s in %.1f s (%.0f/s)\n", vk_show_count(n, r->done), r->o->collection,
		r->made ? " (new)" : "", seconds, seconds > 0 ? (double)r->done / seconds : 0);
	if (rc && r->resumable && r->done) fprintf(stderr, "run it again to go on from there\n");
	if (!rc) fprintf(stderr, "try: veckeep search %s \"a question\"\n", r->o->collection);
}

static int import(struct run *r)
{
	int rc = ask_model(r);
	state_load(r);
	if (!rc) rc = look_through(r);
	if (!rc) say_estimate(r);
	if (!rc) rc = agree(r);
	if (!rc) rc = make_collection(r);
	if (rc || r->o->dry_run) return rc;
	if (!vk_import_open(&r->in, r->cli, r->file, r->o->text_field, r->o->id_field)) return VK_EXIT_FAILED;
	if (r->from && fseeko(r->in.file, (off_t)r->from, SEEK_SET)) r->from = 0;
	r->in.offset = r->from;
	uint64_t start_us = vk_mono_us();
	vk_progress_begin(&r->progress, stderr, false, "importing", start_us);
	rc = send_all(r);
	vk_import_close(&r->in);
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

int vk_import_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct opts o = {.id_field = "id", .using = "", .distance = "Cosine", .batch = 128, .parallel = 3, .retries = 8};
	const char *model = getenv("VECKEEP_MODEL");
	o.model = model && *model ? model : "builtin";
	int rc = vk_cli_begin(&cli, &help, table, &o, argc, argv);
	if (rc >= 0) return rc;
	rc = check(&cli, &o);
	if (!rc) {
		struct run *r = calloc(1, sizeof *r);
		if (r) *r = (struct run){.cli = &cli, .o = &o, .file = cli.args.v[0]};
		rc = r ? vk_client_open(&r->client, &cli) : vk_cli_say(&cli, VK_EXIT_FAILED, "out of memory");
		if (!rc) {
			rc = import(r);
			vk_client_close(&r->client);
		}
		free(r);
	}
	vk_cli_end(&cli);
	return rc;
}
