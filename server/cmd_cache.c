/* veckeep cache: stats, why, purge. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cfg.h"
#include "base/utf8.h"
#include "server/cli_client.h"
#include "server/cmd.h"

#define STDIN_MAX ((size_t)16 << 20)

/* --- stats --- */

static void print_bytes(const char *label, uint64_t bytes, const char *note)
{
	char cell[VK_CELL_MAX];
	printf("%-10s %s%s\n", label, vk_show_bytes(cell, bytes), note);
}

static void show_stats(const vk_jv *v)
{
	char rows[VK_CELL_MAX], puts_[VK_CELL_MAX], commits[VK_CELL_MAX], evicted[VK_CELL_MAX];
	printf("%-10s %s\n", "rows", vk_show_count(rows, vk_reply_u64(v, "rows")));
	print_bytes("vectors", vk_reply_u64(v, "row_bytes"), "");
	print_bytes("on disk", vk_reply_u64(v, "used_bytes"), "");
	print_bytes("budget", vk_reply_u64(v, "budget_bytes"), vk_reply_u64(v, "budget_bytes") ? "" : " (no limit)");
	print_bytes("free", vk_reply_u64(v, "free_bytes"), " inside the file");
	print_bytes("map", vk_reply_u64(v, "map_bytes"), "");
	print_bytes("queued", vk_reply_u64(v, "queued_bytes"), "");
	print_bytes("journal", vk_reply_u64(v, "journal_bytes"), "");
	printf("%-10s %s puts, %s commits, %s evicted since the start\n", "counts",
	       vk_show_count(puts_, vk_reply_u64(v, "puts")), vk_show_count(commits, vk_reply_u64(v, "commits")),
	       vk_show_count(evicted, vk_reply_u64(v, "evicted")));
	uint64_t corrupt = vk_reply_u64(v, "corrupt"), dropped = vk_reply_u64(v, "dropped");
	if (corrupt) printf("%-10s %llu records do not check: they are misses\n", "corrupt", (unsigned long long)corrupt);
	if (dropped) printf("%-10s %llu rows could not be stored\n", "dropped", (unsigned long long)dropped);
	if (vk_reply_bool(v, "full")) puts("full       map or disk is full: nothing is stored until there is room");
	if (vk_reply_bool(v, "offline")) puts("offline    hits only: no provider is called");
}

static const struct vk_cli_help stats_help = {
	.name = "veckeep cache stats",
	.synopsis = "[OPTION]...",
	.text = "Shows what the cache holds and how full it is.\n",
	.examples = "  veckeep cache stats\n  veckeep cache stats --json | jq .rows\n",
	.client = true,
};

static int stats_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct vk_client client;
	struct vk_json_reply reply;
	int rc = vk_cli_begin(&cli, &stats_help, NULL, NULL, argc, argv);
	if (rc >= 0) return rc;
	rc = vk_client_open(&client, &cli);
	if (!rc) {
		rc = vk_client_json(&client, "GET", "/v1/cache", (struct vk_bytes){0}, &reply);
		if (!rc && cli.json) vk_json_reply_print(&reply);
		else if (!rc) show_stats(reply.root);
		vk_json_reply_free(&reply);
		vk_client_close(&client);
	}
	vk_cli_end(&cli);
	return rc;
}

/* --- why --- */

static void found_rows(struct vk_table *t, struct vk_json_reply *r, const vk_jv *found, const char *how)
{
	for (const vk_jv *f = vk_jv_first(found); f; f = vk_jv_next(f)) {
		const char *created = vk_reply_str(r, f, "created");
		char cell[VK_CELL_MAX];
		if (!*created) created = vk_show_time(cell, (int64_t)vk_reply_u64(f, "created"));
		vk_table_cell(t, "%s", how);
		vk_table_cell(t, "%s", vk_reply_str(r, f, "space"));
		vk_table_cell(t, "%s", vk_reply_str(r, f, "role"));
		vk_table_cell(t, "%llu", (unsigned long long)vk_reply_u64(f, "dims"));
		vk_table_cell(t, "%llu", (unsigned long long)vk_reply_u64(f, "tokens"));
		vk_table_cell(t, "%s%s", created, vk_reply_bool(f, "truncated") ? " (maybe truncated)" : "");
		vk_table_cell(t, "%s", vk_reply_str(r, f, "provider"));
	}
}

static void show_why(struct vk_json_reply *r)
{
	static const char *const heads[] = {"TEXT", "SPACE", "ROLE", ">DIMS", ">TOKENS", "CREATED", "PROVIDER", NULL};
	const vk_jv *found = vk_jv_get(r->root, "found"), *near = vk_jv_get(r->root, "near");
	unsigned long long bytes = vk_reply_u64(r->root, "bytes");
	if (vk_jv_len(found))
		printf("a hit: this text (%llu bytes) is held\n\n", bytes);
	else if (vk_jv_len(near))
		printf("a miss: this text (%llu bytes) is not held, but one that differs a little is\n\n", bytes);
	else
		printf("a miss: this text (%llu bytes) is not held, nor one near it\n", bytes);
	if (!vk_jv_len(found) && !vk_jv_len(near)) return;
	struct vk_table *t = vk_table_new(heads);
	found_rows(t, r, found, "as it is");
	for (const vk_jv *v = vk_jv_first(near); v; v = vk_jv_next(v))
		found_rows(t, r, vk_jv_get(v, "found"), vk_reply_str(r, v, "how"));
	vk_table_end(t);
}

struct why_opts {
	const char *pool;
};

static const struct vk_opt why_table[] = {
	{"pool", 'p', VK_OPT_STR, offsetof(struct why_opts, pool), "POOL", "whose part of the cache (default)"},
	{0},
};

static const struct vk_cli_help why_help = {
	.name = "veckeep cache why",
	.synopsis = "[OPTION]... TEXT|-",
	.text = "Says whether a text is held, in which spaces and roles, and whether one that differs by\n"
		"a newline, blanks or case is. The text counts to the byte: `-` reads standard input\n"
		"whole, last newline included.\n",
	.examples = "  veckeep cache why \"some text\"\n  printf 'some text' | veckeep cache why -\n",
	.args_min = 1,
	.args_max = 1,
	.client = true,
};

static bool read_stdin(struct vk_buf *b)
{
	for (;;) {
		char *p = vk_buf_reserve(b, 65536);
		size_t n = p ? fread(p, 1, 65536, stdin) : 0;
		if (!p || !n) return p && !ferror(stdin);
		b->n += n;
	}
}

/* The text as named on the command line. False after saying what is wrong. */
static bool take_text(const struct vk_cli *cli, const char *word, struct vk_buf *text)
{
	if (strcmp(word, "-") != 0) vk_buf_puts(text, word);
	else if (!read_stdin(text)) {
		vk_cli_say(cli, 0, "standard input cannot be read, or is larger than 16 MiB");
		return false;
	}
	if (vk_utf8_valid(text->p, text->n) == text->n) return true;
	vk_cli_say(cli, 0, "the text is no valid UTF-8");
	return false;
}

static int ask_why(const struct vk_cli *cli, const struct why_opts *o)
{
	struct vk_client client;
	struct vk_json_reply reply;
	struct vk_buf text, body;
	struct vk_jw w;
	vk_buf_init(&text, STDIN_MAX);
	vk_buf_init(&body, 7 * STDIN_MAX);
	int rc = take_text(cli, cli->args.v[0], &text) ? vk_client_open(&client, cli) : VK_EXIT_FAILED;
	if (!rc) {
		vk_jw_init(&w, &body);
		vk_jw_object(&w);
		vk_jw_key(&w, "text");
		vk_jw_str(&w, vk_buf_bytes(&text));
		if (o->pool) vk_jw_kv(&w, "pool", o->pool);
		vk_jw_object_end(&w);
		rc = vk_client_json(&client, "POST", "/v1/cache/why", vk_buf_bytes(&body), &reply);
		if (!rc && cli->json) vk_json_reply_print(&reply);
		else if (!rc) show_why(&reply);
		vk_json_reply_free(&reply);
		vk_client_close(&client);
	}
	vk_buf_free(&text);
	vk_buf_free(&body);
	return rc;
}

static int why_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct why_opts o = {0};
	int rc = vk_cli_begin(&cli, &why_help, why_table, &o, argc, argv);
	if (rc >= 0) return rc;
	rc = ask_why(&cli, &o);
	vk_cli_end(&cli);
	return rc;
}

/* --- purge --- */

struct purge_opts {
	struct vk_opt_list texts;
	const char *space, *pool, *older_than;
	bool dry_run, yes;
};

#define AT(field) offsetof(struct purge_opts, field)
static const struct vk_opt purge_table[] = {
	{"text", 't', VK_OPT_LIST, AT(texts), "TEXT", "rows of this text, in every space and role; may be said again"},
	{"space", 's', VK_OPT_STR, AT(space), "SPACE", "rows of this space"},
	{"pool", 'p', VK_OPT_STR, AT(pool), "POOL", "rows of this pool"},
	{"older-than", 'o', VK_OPT_STR, AT(older_than), "TIME", "rows made longer ago than this: 12h, 30d"},
	{"dry-run", 'n', VK_OPT_FLAG, AT(dry_run), NULL, "count what would go, delete nothing"},
	{"yes", 'y', VK_OPT_FLAG, AT(yes), NULL, "do not ask"},
	{0},
};
#undef AT

static const struct vk_cli_help purge_help = {
	.name = "veckeep cache purge",
	.synopsis = "FILTER... [--dry-run] [--yes] [OPTION]...",
	.text = "Deletes the rows that match every filter given; one is needed. What is deleted must be\n"
		"bought again: the command counts first and asks, or wants --yes where nobody can be asked.\n",
	.examples = "  veckeep cache purge --text \"a person's text\" --yes\n"
		    "  veckeep cache purge --space openai/text-embedding-ada-002@2 --dry-run\n"
		    "  veckeep cache purge --older-than 180d\n",
	.client = true,
};

static void write_purge(struct vk_buf *b, const struct purge_opts *o, bool dry_run)
{
	struct vk_jw w;
	b->n = 0;
	vk_jw_init(&w, b);
	vk_jw_object(&w);
	if (o->texts.n) {
		vk_jw_key(&w, "texts");
		vk_jw_array(&w);
		for (size_t i = 0; i < o->texts.n; i++) vk_jw_cstr(&w, o->texts.v[i]);
		vk_jw_array_end(&w);
	}
	if (o->space) vk_jw_kv(&w, "space", o->space);
	if (o->pool) vk_jw_kv(&w, "pool", o->pool);
	if (o->older_than) vk_jw_kv(&w, "older_than", o->older_than);
	vk_jw_kb(&w, "dry_run", dry_run);
	vk_jw_object_end(&w);
}

static int purge_once(struct vk_client *client, const struct purge_opts *o, bool dry_run,
		      struct vk_json_reply *reply)
{
	struct vk_buf body;
	vk_buf_init(&body, (size_t)64 << 20);
	write_purge(&body, o, dry_run);
	int rc = vk_client_json(client, "POST", "/v1/cache/purge", vk_buf_bytes(&body), reply);
	vk_buf_free(&body);
	return rc;
}

static void say_purged(struct vk_json_reply *r, const char *verb)
{
	char rows[VK_CELL_MAX], bytes[VK_CELL_MAX];
	printf("%s %s rows, %s of vectors\n", verb, vk_show_count(rows, vk_reply_u64(r->root, "rows")),
	       vk_show_bytes(bytes, vk_reply_u64(r->root, "bytes")));
}

static bool confirmed(uint64_t rows)
{
	char count[VK_CELL_MAX], answer[16];
	fprintf(stderr, "delete %s rows? [y/N] ", vk_show_count(count, rows));
	return fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

/* Counts and asks; 0: go on. */
static int ask_first(struct vk_client *client, const struct purge_opts *o)
{
	struct vk_json_reply reply;
	int rc = purge_once(client, o, true, &reply);
	if (!rc && !confirmed(vk_reply_u64(reply.root, "rows")))
		rc = vk_cli_say(client->cli, VK_EXIT_FAILED, "nothing was deleted");
	vk_json_reply_free(&reply);
	return rc;
}

static int purge(const struct vk_cli *cli, const struct purge_opts *o)
{
	struct vk_client client;
	struct vk_json_reply reply;
	int rc = vk_client_open(&client, cli);
	if (rc) return rc;
	if (!o->dry_run && !o->yes) rc = ask_first(&client, o);
	if (!rc) {
		rc = purge_once(&client, o, o->dry_run, &reply);
		if (!rc && cli->json) vk_json_reply_print(&reply);
		else if (!rc) say_purged(&reply, o->dry_run ? "would delete" : "deleted");
		vk_json_reply_free(&reply);
	}
	vk_client_close(&client);
	return rc;
}

static int check_purge(const struct vk_cli *cli, const struct purge_opts *o)
{
	uint64_t ms;
	if (!o->texts.n && !o->space && !o->pool && !o->older_than)
		return vk_cli_say(cli, VK_EXIT_MISUSE, "say what: --text, --space, --pool or --older-than");
	if (o->older_than && !vk_parse_duration_ms(o->older_than, &ms))
		return vk_cli_say(cli, VK_EXIT_MISUSE, "--older-than: a duration such as 12h or 30d, not \"%s\"",
				  o->older_than);
	for (size_t i = 0; i < o->texts.n; i++)
		if (vk_utf8_valid(o->texts.v[i], strlen(o->texts.v[i])) != strlen(o->texts.v[i]))
			return vk_cli_say(cli, VK_EXIT_FAILED, "text %zu is no valid UTF-8", i);
	if (!o->dry_run && !o->yes && !isatty(STDIN_FILENO))
		return vk_cli_say(cli, VK_EXIT_MISUSE, "nobody can be asked here: add --yes, or --dry-run to count");
	return 0;
}

static int purge_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct purge_opts o = {0};
	int rc = vk_cli_begin(&cli, &purge_help, purge_table, &o, argc, argv);
	if (rc >= 0) return rc;
	rc = check_purge(&cli, &o);
	if (!rc) rc = purge(&cli, &o);
	vk_cli_end(&cli);
	return rc;
}

int vk_cache_main(int argc, char **argv)
{
	static const struct vk_cli_sub subs[] = {
		{"stats", "what it holds and how full it is", stats_main},
		{"why", "why a text hits or misses", why_main},
		{"purge", "delete rows by text, space, pool or age", purge_main},
	};
	return vk_cli_dispatch("veckeep cache", "The exact embedding cache.\n", subs, sizeof subs / sizeof *subs,
			       argc, argv);
}
