/*
 * veckeep collections index: what the indexes of a collection's vectors are doing; says what one is to be, has it built anew or given
 * up, and waits for it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "server/cli_client.h"
#include "server/cmd.h"
#include "server/progress.h"

#define POLL_MS 250
#define BODY_MAX ((size_t)64 << 10)

struct opts {
	const char *vector, *engine, *profile, *factory, *recall;
	uint64_t nprobe, ef_search, train_rows;
	bool rebuild, cancel, wait;
};

#define AT(field) offsetof(struct opts, field)
static const struct vk_opt table[] = {
	{"vector", 'v', VK_OPT_STR, AT(vector), "NAME", "which vector (needed where there are several)"},
	{"engine", 'e', VK_OPT_STR, AT(engine), "NAME", "graph, faiss or none"},
	{"profile", 'p', VK_OPT_STR, AT(profile), "NAME", "codes of the graph: auto, s8, s4, p8"},
	{"recall", 'r', VK_OPT_STR, AT(recall), "SHARE", "recall that a search aims at unless it says more, 0.5 to 0.999"},
	{"factory", 'f', VK_OPT_STR, AT(factory), "STRING", "FAISS's factory string, e.g. IVF1024,PQ32"},
	{"nprobe", 0, VK_OPT_U64, AT(nprobe), "N", "FAISS: lists that a search looks at"},
	{"ef-search", 0, VK_OPT_U64, AT(ef_search), "N", "FAISS: how wide a search of its graph is"},
	{"train-rows", 0, VK_OPT_U64, AT(train_rows), "N", "FAISS: rows that it is trained on"},
	{"rebuild", 0, VK_OPT_FLAG, AT(rebuild), NULL, "build it anew; the old one serves until then"},
	{"cancel", 0, VK_OPT_FLAG, AT(cancel), NULL, "give up the running build"},
	{"wait", 'w', VK_OPT_FLAG, AT(wait), NULL, "until nothing is left to be done, with a progress bar"},
	{0},
};
#undef AT

static const struct vk_cli_help help = {
	.name = "veckeep collections index",
	.synopsis = "[OPTION]... COLLECTION",
	.text = "Shows the indexes of a collection's vectors: engine, state, rows, measured recall. With\n"
		"options that say what an index is to be, changes that first. Answers are complete and scores\n"
		"exact whatever an index is doing.\n",
	.examples = "  veckeep collections index docs\n"
		    "  veckeep collections index docs --recall 0.99 --wait\n"
		    "  veckeep collections index docs --engine faiss --factory IVF1024,PQ32 --wait\n"
		    "  veckeep collections index docs --json | jq '.index[].recall.measured'\n",
	.args_min = 1,
	.args_max = 1,
	.client = true,
};

struct run {
	const struct vk_cli *cli;
	const struct opts *o;
	struct vk_client client;
	double recall; /* of --recall; 0: not said */
};

static int ask(struct run *r, const char *method, const char *rest, struct vk_bytes body, struct vk_json_reply *reply)
{
	struct vk_buf path;
	vk_buf_init(&path, 65536);
	vk_buf_puts(&path, "/v1/collections/");
	vk_url_put(&path, r->cli->args.v[0], false);
	vk_buf_puts(&path, "/index");
	vk_buf_puts(&path, rest);
	int rc = vk_client_json(&r->client, method, vk_buf_cstr(&path), body, reply);
	vk_buf_free(&path);
	return rc;
}

/* --- changing --- */

static bool has_wish(const struct opts *o)
{
	return o->engine || o->profile || o->recall || o->factory || o->nprobe || o->ef_search || o->train_rows;
}

static void write_wish(const struct run *r, struct vk_jw *w, bool all)
{
	const struct opts *o = r->o;
	const struct {
		const char *key, *text;
	} words[] = {{"engine", o->engine}, {"profile", o->profile}, {"factory", o->factory}};
	const struct {
		const char *key;
		uint64_t n;
	} numbers[] = {{"nprobe", o->nprobe}, {"ef_search", o->ef_search}, {"train_rows", o->train_rows}};
	vk_jw_object(w);
	if (o->vector) vk_jw_kv(w, "vector", o->vector);
	for (size_t i = 0; all && i < sizeof words / sizeof *words; i++)
		if (words[i].text) vk_jw_kv(w, words[i].key, words[i].text);
	for (size_t i = 0; all && i < sizeof numbers / sizeof *numbers; i++)
		if (numbers[i].n) vk_jw_ki(w, numbers[i].key, (int64_t)numbers[i].n);
	if (all && o->recall) vk_jw_kf(w, "recall", r->recall);
	vk_jw_object_end(w);
}

static int change(struct run *r, const char *method, const char *rest, bool wish)
{
	struct vk_json_reply reply;
	struct vk_buf body;
	struct vk_jw w;
	vk_buf_init(&body, BODY_MAX);
	vk_jw_init(&w, &body);
	write_wish(r, &w, wish);
	int rc = ask(r, method, rest, vk_buf_bytes(&body), &reply);
	vk_json_reply_free(&reply);
	vk_buf_free(&body);
	return rc;
}

/* --- waiting --- */

static bool is_done(const struct vk_json_reply *reply)
{
	struct vk_bytes status;
	return vk_jv_str(vk_jv_get(reply->root, "status"), &status) && !vk_bytes_is(status, "yellow");
}

/* Rows of all vectors that indexes hold or that a build has done, of those that they will. */
static void draw(const struct vk_json_reply *reply, struct vk_progress *p)
{
	uint64_t done = 0, total = 0;
	for (const vk_jv *x = vk_jv_first(vk_jv_get(reply->root, "index")); x; x = vk_jv_next(x)) {
		const vk_jv *progress = vk_jv_get(x, "progress");
		bool builds = vk_jv_type(progress) == VK_J_OBJECT;
		uint64_t of = builds ? vk_reply_u64(progress, "total") : vk_reply_u64(x, "rows_total");
		uint64_t pending = vk_reply_u64(x, "pending");
		total += of;
		done += builds ? vk_reply_u64(progress, "done") : of > pending ? of - pending : 0;
	}
	vk_progress_show(p, done, (double)done, (double)total, vk_mono_us());
}

/* The last reply, to be freed by the caller whatever comes. */
static int wait_for_it(struct run *r, struct vk_json_reply *reply)
{
	struct vk_progress p;
	int rc;
	vk_progress_begin(&p, stderr, false, "indexing", vk_mono_us());
	while (!(rc = ask(r, "GET", "", (struct vk_bytes){0}, reply)) && !is_done(reply)) {
		draw(reply, &p);
		vk_json_reply_free(reply);
		nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
	}
	vk_progress_end(&p);
	return rc;
}

/* --- showing --- */

static void recall_cell(struct vk_table *t, const vk_jv *x)
{
	const vk_jv *recall = vk_jv_get(x, "recall");
	double measured;
	if (vk_jv_f64(vk_jv_get(recall, "measured"), &measured))
		vk_table_cell(t, "%.3f of %g", measured, vk_reply_f64(recall, "target"));
	else vk_table_cell(t, "- of %g", vk_reply_f64(recall, "target"));
}

static void show_row(struct vk_table *t, struct vk_json_reply *r, const vk_jv *x)
{
	char cell[VK_CELL_MAX];
	struct vk_bytes name = vk_jv_key(x);
	const vk_jv *progress = vk_jv_get(x, "progress");
	uint64_t total = vk_reply_u64(progress, "total");
	vk_table_cell(t, "%.*s", name.n ? (int)name.n : 9, name.n ? name.p : "(unnamed)");
	vk_table_cell(t, "%s", vk_reply_str(r, x, "engine"));
	if (total) vk_table_cell(t, "%s %d%%", vk_reply_str(r, x, "state"), (int)(100 * vk_reply_u64(progress, "done") / total));
	else vk_table_cell(t, "%s", vk_reply_str(r, x, "state"));
	vk_table_cell(t, "%s", vk_show_count(cell, vk_reply_u64(x, "rows")));
	vk_table_cell(t, "%s", vk_show_count(cell, vk_reply_u64(x, "rows_total")));
	vk_table_cell(t, "%s", vk_show_count(cell, vk_reply_u64(x, "pending")));
	vk_table_cell(t, "%s", vk_show_bytes(cell, vk_reply_u64(x, "bytes")));
	recall_cell(t, x);
	vk_table_cell(t, "%llu", (unsigned long long)vk_reply_u64(vk_jv_get(x, "recall"), "ef"));
	if (vk_reply_u64(x, "build_ms")) vk_table_cell(t, "%.1f s", (double)vk_reply_u64(x, "build_ms") / 1000);
	else vk_table_cell(t, "-"); /* not by this process */
	vk_table_cell(t, "%s", vk_reply_str(r, x, "detail"));
}

static void show(struct vk_json_reply *r)
{
	static const char *const heads[] = {"VECTOR", "ENGINE", "STATE", ">INDEXED", ">ROWS", ">PENDING", ">MEMORY", ">RECALL", ">EF",
					    ">BUILT IN", "DETAIL", NULL};
	const vk_jv *all = vk_jv_get(r->root, "index");
	struct vk_table *t = vk_table_new(heads);
	for (const vk_jv *x = vk_jv_first(all); x; x = vk_jv_next(x)) show_row(t, r, x);
	vk_table_end(t);
	for (const vk_jv *x = vk_jv_first(all); x; x = vk_jv_next(x))
		if (*vk_reply_str(r, x, "error")) printf("%s: %s\n", vk_reply_str(r, x, "state"), vk_reply_str(r, x, "error"));
}

static bool has_failed(struct vk_json_reply *r)
{
	for (const vk_jv *x = vk_jv_first(vk_jv_get(r->root, "index")); x; x = vk_jv_next(x))
		if (!strcmp(vk_reply_str(r, x, "state"), "failed")) return true;
	return false;
}

/* --- the run --- */

static int run(struct run *r)
{
	const struct opts *o = r->o;
	struct vk_json_reply reply;
	int rc = has_wish(o) ? change(r, "PATCH", "", true) : 0;
	if (!rc && o->rebuild) rc = change(r, "POST", "/rebuild", false);
	if (!rc && o->cancel) rc = change(r, "POST", "/cancel", false);
	if (rc) return rc;
	rc = o->wait ? wait_for_it(r, &reply) : ask(r, "GET", "", (struct vk_bytes){0}, &reply);
	if (!rc && r->cli->json) vk_json_reply_print(&reply);
	else if (!rc) show(&reply);
	if (!rc && o->wait && has_failed(&reply)) rc = VK_EXIT_FAILED;
	vk_json_reply_free(&reply);
	return rc;
}

static int check(struct run *r)
{
	char *end;
	if (r->o->rebuild && r->o->cancel) return vk_cli_say(r->cli, VK_EXIT_MISUSE, "--rebuild or --cancel, not both");
	if (!r->o->recall) return 0;
	r->recall = strtod(r->o->recall, &end);
	return !*r->o->recall || *end ? vk_cli_say(r->cli, VK_EXIT_MISUSE, "--recall: expected a number such as 0.97") : 0;
}

int vk_collections_index_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct opts o = {0};
	int rc = vk_cli_begin(&cli, &help, table, &o, argc, argv);
	if (rc >= 0) return rc;
	struct run r = {.cli = &cli, .o = &o};
	rc = check(&r);
	if (!rc) rc = vk_client_open(&r.client, &cli);
	if (!rc) {
		rc = run(&r);
		vk_client_close(&r.client);
	}
	vk_cli_end(&cli);
	return rc;
}
