/*
 * veckeep search: a question to a collection, answered by its nearest points.
 * veckeep collections: what there is, one in detail, dropping; its indexes are in cmd_index.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "server/cli_client.h"
#include "server/cmd.h"

#define TEXT_SHOWN_MAX 4000
#define COLUMNS 100

static void path_of(struct vk_buf *b, const char *name, const char *rest)
{
	vk_buf_init(b, 65536);
	vk_buf_puts(b, "/collections/");
	vk_url_put(b, name, false);
	vk_buf_puts(b, rest);
}

/* --- search --- */

struct search_opts {
	const char *model, *using, *filter;
	uint64_t limit;
	bool full;
};

#define AT(field) offsetof(struct search_opts, field)
static const struct vk_opt search_table[] = {
	{"limit", 'n', VK_OPT_U64, AT(limit), "N", "how many answers (5)"},
	{"model", 'm', VK_OPT_STR, AT(model), "NAME", "a model name; the collection knows its own space"},
	{"using", 'u', VK_OPT_STR, AT(using), "VECTOR", "which named vector"},
	{"filter", 'f', VK_OPT_STR, AT(filter), "JSON", "a filter, e.g. {\"must\": [{\"key\": \"city\", \"match\": {\"value\": \"Rome\"}}]}"},
	{"full", 0, VK_OPT_FLAG, AT(full), NULL, "whole texts, not their beginning"},
	{0},
};
#undef AT

static const struct vk_cli_help search_help = {
	.name = "veckeep search",
	.synopsis = "[OPTION]... COLLECTION QUESTION...",
	.text = "Embeds the question (through the cache) and prints the nearest points of the collection\n"
		"with their scores.\n",
	.examples = "  veckeep search docs \"how do I rotate a key?\"\n"
		    "  veckeep search docs --limit 20 --json \"a question\" | jq '.result.points[].id'\n",
	.args_min = 2,
	.args_max = (size_t)-1,
	.client = true,
};

static const struct search_opts *search_shown; /* the one command's options, for its printer */

static unsigned columns(void)
{
	struct winsize w;
	if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || w.ws_col < 40) return COLUMNS;
	return w.ws_col;
}

static const char *id_text(struct vk_json_reply *r, const vk_jv *p)
{
	struct vk_bytes number;
	if (vk_jv_text(vk_jv_get(p, "id"), &number)) return vk_arena_strndup(&r->arena, number.p, number.n);
	return vk_reply_str(r, p, "id");
}

/* The text on one line, cut at a letter's end; a person reads it, so runs of white space are one blank. */
static void print_text(struct vk_bytes text, size_t width)
{
	size_t shown = 0;
	bool blank = true;
	fputs("   ", stdout);
	for (size_t i = 0; i < text.n && shown < width; i++) {
		unsigned char c = (unsigned char)text.p[i];
		bool space = c <= ' ';
		if (space && blank) continue;
		putchar(space ? ' ' : c);
		blank = space;
		shown += (c & 0xc0) != 0x80; /* UTF-8's later bytes take no room */
		if (shown == width) /* finish the letter */
			while (i + 1 < text.n && ((unsigned char)text.p[i + 1] & 0xc0) == 0x80) putchar(text.p[++i]);
	}
	putchar('\n');
}

static struct vk_bytes text_of(const vk_jv *payload)
{
	static const char *const keys[] = {"text", "page_content", "content", "document"};
	struct vk_bytes text = {0};
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (vk_jv_str(vk_jv_get(payload, keys[i]), &text) && text.n) return text;
	for (const vk_jv *m = vk_jv_first(payload); m; m = vk_jv_next(m)) { /* else the longest string there is */
		struct vk_bytes s;
		if (vk_jv_str(m, &s) && s.n > text.n) text = s;
	}
	return text;
}

static int show_found(struct vk_json_reply *r)
{
	const vk_jv *points = vk_jv_get(vk_jv_get(r->root, "result"), "points");
	size_t width = search_shown->full ? TEXT_SHOWN_MAX : columns() - 6;
	unsigned n = 0;
	for (const vk_jv *p = vk_jv_first(points); p; p = vk_jv_next(p)) {
		struct vk_bytes text = text_of(vk_jv_get(p, "payload"));
		printf("%2u %.4f  %s\n", ++n, vk_reply_f64(p, "score"), id_text(r, p));
		if (text.n) print_text(text, width);
	}
	if (!n) fputs("nothing found\n", stderr);
	return 0;
}

static int write_question(const struct vk_cli *cli, const struct search_opts *o, struct vk_buf *body)
{
	struct vk_arena a;
	struct vk_json *filter = NULL;
	struct vk_error err = {0};
	struct vk_buf text;
	struct vk_jw w;
	int rc = 0;
	vk_arena_init(&a, (size_t)16 << 20);
	vk_buf_init(&text, (size_t)1 << 20);
	for (size_t i = 1; i < cli->args.n; i++) vk_buf_printf(&text, "%s%s", i > 1 ? " " : "", cli->args.v[i]);
	if (o->filter && vk_json_parse(&a, vk_bytes_of(o->filter), NULL, &filter, &err))
		rc = vk_cli_say(cli, VK_EXIT_MISUSE, "--filter: %s", err.text);
	vk_jw_init(&w, body);
	vk_jw_object(&w);
	vk_jw_key(&w, "query");
	vk_jw_object(&w);
	vk_jw_key(&w, "text");
	vk_jw_str(&w, vk_buf_bytes(&text));
	if (o->model) vk_jw_kv(&w, "model", o->model);
	vk_jw_object_end(&w);
	vk_jw_ki(&w, "limit", (int64_t)o->limit);
	vk_jw_kb(&w, "with_payload", true);
	if (o->using) vk_jw_kv(&w, "using", o->using);
	if (filter) {
		vk_jw_key(&w, "filter");
		vk_jw_value(&w, vk_json_root(filter));
	}
	vk_jw_object_end(&w);
	vk_json_free(filter);
	vk_arena_free(&a);
	vk_buf_free(&text);
	return rc;
}

int vk_search_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct search_opts o = {.limit = 5};
	struct vk_buf path, body;
	int rc = vk_cli_begin(&cli, &search_help, search_table, &o, argc, argv);
	if (rc >= 0) return rc;
	search_shown = &o;
	path_of(&path, cli.args.v[0], "/points/query");
	vk_buf_init(&body, (size_t)32 << 20);
	rc = write_question(&cli, &o, &body);
	if (!rc) rc = vk_client_show(&cli, "POST", vk_buf_cstr(&path), vk_buf_bytes(&body), show_found);
	vk_buf_free(&path);
	vk_buf_free(&body);
	vk_cli_end(&cli);
	return rc;
}

/* --- collections --- */

struct drop_opts {
	bool yes;
};

/* Every vector as "name 384 Cosine", one after the other. */
static const char *vectors_text(struct vk_json_reply *r, const vk_jv *vectors)
{
	struct vk_buf b;
	vk_buf_init(&b, 8192);
	if (vk_jv_get(vectors, "size")) {
		vk_buf_printf(&b, "%llu %s", (unsigned long long)vk_reply_u64(vectors, "size"), vk_reply_str(r, vectors, "distance"));
	} else {
		for (const vk_jv *v = vk_jv_first(vectors); v; v = vk_jv_next(v)) {
			struct vk_bytes k = vk_jv_key(v);
			vk_buf_printf(&b, "%s%.*s: %llu %s", b.n ? ", " : "", (int)k.n, k.p,
				      (unsigned long long)vk_reply_u64(v, "size"), vk_reply_str(r, v, "distance"));
		}
	}
	const char *text = vk_arena_strndup(&r->arena, vk_buf_cstr(&b), b.n);
	vk_buf_free(&b);
	return text ? text : "";
}

static void show_row(struct vk_table *t, struct vk_client *client, const char *name)
{
	struct vk_json_reply r;
	struct vk_buf path;
	char n[VK_CELL_MAX];
	path_of(&path, name, "");
	if (!vk_client_json(client, "GET", vk_buf_cstr(&path), (struct vk_bytes){0}, &r)) {
		const vk_jv *result = vk_jv_get(r.root, "result"), *params = vk_jv_get(vk_jv_get(result, "config"), "params");
		vk_table_cell(t, "%s", name);
		vk_table_cell(t, "%s", vk_reply_str(&r, result, "status"));
		vk_table_cell(t, "%s", vk_show_count(n, vk_reply_u64(result, "points_count")));
		vk_table_cell(t, "%s", vectors_text(&r, vk_jv_get(params, "vectors")));
	}
	vk_json_reply_free(&r);
	vk_buf_free(&path);
}

static int show_list(struct vk_json_reply *r)
{
	static const char *const heads[] = {"COLLECTION", "STATUS", ">POINTS", "VECTORS", NULL};
	struct vk_table *t = vk_table_new(heads);
	const vk_jv *all = vk_jv_get(vk_jv_get(r->root, "result"), "collections");
	for (const vk_jv *c = vk_jv_first(all); c; c = vk_jv_next(c)) show_row(t, r->call.client, vk_reply_str(r, c, "name"));
	vk_table_end(t);
	return 0;
}

static int show_one(struct vk_json_reply *r)
{
	char n[VK_CELL_MAX];
	const vk_jv *result = vk_jv_get(r->root, "result"), *config = vk_jv_get(result, "config");
	const vk_jv *own = vk_jv_get(vk_jv_get(config, "metadata"), "veckeep");
	printf("%s\n  status     %s\n  points     %s\n  vectors    %s\n", r->call.client->cli->args.v[0], vk_reply_str(r, result, "status"),
	       vk_show_count(n, vk_reply_u64(result, "points_count")),
	       vectors_text(r, vk_jv_get(vk_jv_get(config, "params"), "vectors")));
	for (const vk_jv *s = vk_jv_first(vk_jv_get(own, "spaces")); s; s = vk_jv_next(s)) {
		struct vk_bytes k = vk_jv_key(s), id = {0};
		if (vk_jv_str(s, &id)) printf("  space      %.*s%s%.*s\n", (int)k.n, k.p, k.n ? ": " : "", (int)id.n, id.p);
	}
	if (*vk_reply_str(r, own, "text_from")) printf("  text from  %s\n", vk_reply_str(r, own, "text_from"));
	for (const vk_jv *f = vk_jv_first(vk_jv_get(result, "payload_schema")); f; f = vk_jv_next(f)) {
		struct vk_bytes k = vk_jv_key(f);
		printf("  index      %.*s (%s, %s points)\n", (int)k.n, k.p, vk_reply_str(r, f, "data_type"),
		       vk_show_count(n, vk_reply_u64(f, "points")));
	}
	return 0;
}

static const struct vk_cli_help list_help = {
	.name = "veckeep collections",
	.synopsis = "[OPTION]... [COLLECTION]",
	.text = "Lists the collections, or tells about one. `veckeep collections drop NAME` deletes one,\n"
		"`veckeep collections index NAME` shows and steers its indexes.\n",
	.examples = "  veckeep collections\n  veckeep collections docs\n  veckeep collections drop --yes docs\n",
	.args_max = 1,
	.client = true,
};

static int show_dropped(struct vk_json_reply *r)
{
	if (!vk_reply_bool(r->root, "result")) {
		fputs("there is no such collection\n", stderr);
		return VK_EXIT_FAILED;
	}
	puts("dropped");
	return 0;
}

static const struct vk_opt drop_table[] = {
	{"yes", 'y', VK_OPT_FLAG, offsetof(struct drop_opts, yes), NULL, "yes, with everything in it (needed)"},
	{0},
};

static const struct vk_cli_help drop_help = {
	.name = "veckeep collections drop",
	.synopsis = "--yes COLLECTION",
	.text = "Deletes a collection and everything in it. Its texts stay in the embedding cache.\n",
	.examples = "  veckeep collections drop --yes docs\n",
	.args_min = 1,
	.args_max = 1,
	.client = true,
};

static int drop_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct drop_opts o = {0};
	struct vk_buf path;
	int rc = vk_cli_begin(&cli, &drop_help, drop_table, &o, argc, argv);
	if (rc >= 0) return rc;
	path_of(&path, cli.args.v[0], "");
	rc = o.yes ? vk_client_show(&cli, "DELETE", vk_buf_cstr(&path), (struct vk_bytes){0}, show_dropped)
		   : vk_cli_say(&cli, VK_EXIT_MISUSE, "--yes says that it is meant");
	vk_buf_free(&path);
	vk_cli_end(&cli);
	return rc;
}

int vk_collections_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct vk_buf path;
	if (argc > 1 && !strcmp(argv[1], "index")) return vk_collections_index_main(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "drop")) return drop_main(argc - 1, argv + 1);
	int rc = vk_cli_begin(&cli, &list_help, NULL, NULL, argc, argv);
	if (rc >= 0) return rc;
	if (!cli.args.n) {
		rc = vk_client_show(&cli, "GET", "/collections", (struct vk_bytes){0}, show_list);
	} else {
		path_of(&path, cli.args.v[0], "");
		rc = vk_client_show(&cli, "GET", vk_buf_cstr(&path), (struct vk_bytes){0}, show_one);
		vk_buf_free(&path);
	}
	vk_cli_end(&cli);
	return rc;
}
