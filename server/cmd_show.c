/* veckeep spaces, providers, usage: a GET each, shown as a table. */
#include <stdio.h>
#include <string.h>

#include "server/cli_client.h"
#include "server/cmd.h"

/* --- spaces --- */

static const char *price_text(struct vk_json_reply *r, const vk_jv *space)
{
	const vk_jv *price = vk_jv_get(space, "price");
	if (vk_jv_type(price) != VK_J_OBJECT) return "not known";
	const char *text = vk_arena_printf(&r->arena, "%g %s", vk_reply_f64(price, "per_mtok"),
					   vk_reply_str(r, price, "currency"));
	return text ? text : "";
}

/* "openai > azure-eu (canary failed)": who serves, in order, and who may not yet. */
static const char *route_text(struct vk_json_reply *r, const vk_jv *space)
{
	struct vk_buf b;
	vk_buf_init(&b, 4096);
	for (const vk_jv *hop = vk_jv_first(vk_jv_get(space, "route")); hop; hop = vk_jv_next(hop)) {
		const char *canary = vk_reply_str(r, hop, "canary");
		vk_buf_printf(&b, "%s%s", b.n ? " > " : "", vk_reply_str(r, hop, "provider"));
		if (!strcmp(canary, "failed")) vk_buf_printf(&b, " (vectors differ: cosine %.4f)", vk_reply_f64(hop, "cosine"));
		if (!strcmp(canary, "pending")) vk_buf_puts(&b, " (not compared yet)");
	}
	const char *text = vk_arena_strndup(&r->arena, vk_buf_cstr(&b), b.n);
	vk_buf_free(&b);
	return text ? text : "";
}

static int show_spaces(struct vk_json_reply *r)
{
	static const char *const heads[] = {"SPACE", ">DIMS", "ROLES", ">TOKENS", "PRICE/MTOK", "ROUTE", "MODELS", NULL};
	struct vk_table *t = vk_table_new(heads);
	for (const vk_jv *s = vk_jv_first(vk_jv_get(r->root, "data")); s; s = vk_jv_next(s)) {
		char tokens[VK_CELL_MAX];
		vk_table_cell(t, "%s", vk_reply_str(r, s, "id"));
		vk_table_cell(t, "%s%llu", vk_reply_bool(s, "matryoshka") ? "<=" : "",
			      (unsigned long long)vk_reply_u64(s, "dims"));
		vk_table_cell(t, "%s", vk_reply_list(r, s, "roles"));
		uint64_t most = vk_reply_u64(s, "tokens_max");
		vk_table_cell(t, "%s", most ? vk_show_count(tokens, most) : "-");
		vk_table_cell(t, "%s", price_text(r, s));
		vk_table_cell(t, "%s", route_text(r, s));
		vk_table_cell(t, "%s", vk_reply_list(r, s, "models"));
	}
	vk_table_end(t);
	return 0;
}

static int show_space(struct vk_json_reply *r)
{
	const vk_jv *s = r->root;
	printf("%s\n  dims       %llu%s\n  roles      %s\n  models     %s\n  price      %s per million tokens\n"
	       "  tokenizer  %s\n  route      %s\n",
	       vk_reply_str(r, s, "id"), (unsigned long long)vk_reply_u64(s, "dims"),
	       vk_reply_bool(s, "matryoshka") ? " and less (Matryoshka)" : "", vk_reply_list(r, s, "roles"),
	       vk_reply_list(r, s, "models"), price_text(r, s), vk_reply_str(r, s, "tokenizer"), route_text(r, s));
	return 0;
}

static const struct vk_cli_help spaces_help = {
	.name = "veckeep spaces",
	.synopsis = "[OPTION]... [SPACE]",
	.text = "Lists the vector spaces that the server serves, or tells about one. Vectors of one\n"
		"space may be compared with each other, those of two spaces never.\n",
	.examples = "  veckeep spaces\n  veckeep spaces openai/text-embedding-3-small@1\n"
		    "  veckeep spaces --json | jq -r '.data[].models[]'\n",
	.args_max = 1,
	.client = true,
};

int vk_spaces_main(int argc, char **argv)
{
	struct vk_cli cli;
	int rc = vk_cli_begin(&cli, &spaces_help, NULL, NULL, argc, argv);
	if (rc >= 0) return rc;
	struct vk_buf path;
	vk_buf_init(&path, 65536);
	vk_buf_puts(&path, "/v1/spaces");
	if (cli.args.n) {
		vk_buf_putc(&path, '/');
		vk_url_put(&path, cli.args.v[0], true);
	}
	rc = vk_client_show(&cli, "GET", vk_buf_cstr(&path), (struct vk_bytes){0}, cli.args.n ? show_space : show_spaces);
	vk_buf_free(&path);
	vk_cli_end(&cli);
	return rc;
}

/* --- providers --- */

static int show_providers(struct vk_json_reply *r)
{
	static const char *const heads[] = {"PROVIDER", "DIALECT", "LABELS", "BREAKER", ">RUNNING", ">QUEUED",
					    ">CALLS", ">FAILED", ">RETRIES", ">TOKENS", ">MS", "URL", NULL};
	struct vk_table *t = vk_table_new(heads);
	for (const vk_jv *p = vk_jv_first(vk_jv_get(r->root, "data")); p; p = vk_jv_next(p)) {
		char cell[VK_CELL_MAX];
		uint64_t calls = vk_reply_u64(p, "calls"), good = vk_reply_u64(p, "calls_ok");
		vk_table_cell(t, "%s", vk_reply_str(r, p, "name"));
		vk_table_cell(t, "%s", vk_reply_str(r, p, "dialect"));
		vk_table_cell(t, "%s", vk_reply_list(r, p, "labels"));
		vk_table_cell(t, "%s", vk_reply_str(r, p, "breaker"));
		vk_table_cell(t, "%llu/%llu", (unsigned long long)vk_reply_u64(p, "in_flight"),
			      (unsigned long long)vk_reply_u64(p, "limit"));
		vk_table_cell(t, "%s", vk_show_count(cell, vk_reply_u64(p, "queued")));
		vk_table_cell(t, "%s", vk_show_count(cell, calls));
		vk_table_cell(t, "%s", vk_show_count(cell, calls > good ? calls - good : 0));
		vk_table_cell(t, "%s", vk_show_count(cell, vk_reply_u64(p, "retries")));
		vk_table_cell(t, "%s", vk_show_count(cell, vk_reply_u64(p, "tokens")));
		vk_table_cell(t, "%.0f", vk_reply_f64(p, "latency_ms_avg"));
		vk_table_cell(t, "%s", vk_reply_str(r, p, "base_url"));
	}
	vk_table_end(t);
	return 0;
}

static const struct vk_cli_help providers_help = {
	.name = "veckeep providers",
	.synopsis = "[OPTION]...",
	.text = "Lists the providers with their state since the server started. BREAKER open: the\n"
		"provider failed several times in a row and is left alone for a while.\n",
	.examples = "  veckeep providers\n  veckeep providers --json | jq '.data[] | select(.breaker != \"closed\")'\n",
	.client = true,
};

int vk_providers_main(int argc, char **argv)
{
	struct vk_cli cli;
	int rc = vk_cli_begin(&cli, &providers_help, NULL, NULL, argc, argv);
	if (rc >= 0) return rc;
	rc = vk_client_show(&cli, "GET", "/v1/providers", (struct vk_bytes){0}, show_providers);
	vk_cli_end(&cli);
	return rc;
}

/* --- usage --- */

static void money_cell(struct vk_table *t, struct vk_json_reply *r, const vk_jv *row, const char *key)
{
	const char *currency = vk_reply_str(r, row, "currency");
	vk_table_cell(t, "%.4f%s%s", vk_reply_f64(row, key), *currency ? " " : "", currency);
}

static void usage_row(struct vk_table *t, struct vk_json_reply *r, const vk_jv *row, const char *day)
{
	static const char *const counts[] = {"requests", "inputs", "hits", "misses", "logical_tokens",
					     "billed_tokens", "saved_tokens"};
	char cell[VK_CELL_MAX];
	vk_table_cell(t, "%s", day);
	vk_table_cell(t, "%s", vk_reply_str(r, row, "space"));
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		vk_table_cell(t, "%s", vk_show_count(cell, vk_reply_u64(row, counts[i])));
	money_cell(t, r, row, "billed");
	money_cell(t, r, row, "saved");
	vk_table_cell(t, "%s", vk_show_count(cell, vk_reply_u64(row, "errors")));
}

static int show_usage(struct vk_json_reply *r)
{
	static const char *const heads[] = {"DAY", "SPACE", ">REQUESTS", ">INPUTS", ">HITS", ">MISSES", ">TOKENS",
					    ">BILLED", ">SAVED", ">PAID", ">NOT PAID", ">ERRORS", NULL};
	struct vk_table *t = vk_table_new(heads);
	for (const vk_jv *u = vk_jv_first(vk_jv_get(r->root, "data")); u; u = vk_jv_next(u))
		usage_row(t, r, u, vk_reply_str(r, u, "day"));
	if (vk_jv_len(vk_jv_get(r->root, "data"))) usage_row(t, r, vk_jv_get(r->root, "totals"), "total");
	vk_table_end(t);
	return 0;
}

struct usage_opts {
	const char *from, *to;
};

static const struct vk_opt usage_opts[] = {
	{"from", 0, VK_OPT_STR, offsetof(struct usage_opts, from), "DAY", "first day, YYYY-MM-DD in UTC"},
	{"to", 0, VK_OPT_STR, offsetof(struct usage_opts, to), "DAY", "last day, included"},
	{0},
};

static const struct vk_cli_help usage_help = {
	.name = "veckeep usage",
	.synopsis = "[OPTION]...",
	.text = "Shows by day and space what was asked (TOKENS), what was bought (BILLED, PAID) and what\n"
		"the cache saved (SAVED, NOT PAID). Money by the list prices that the server knows.\n",
	.examples = "  veckeep usage\n  veckeep usage --from 2026-01-01 --to 2026-01-31\n"
		    "  veckeep usage --json | jq .totals.saved\n",
	.client = true,
};

static bool is_day(const char *s)
{
	for (size_t i = 0; i < 10; i++) {
		bool dash = i == 4 || i == 7;
		if (dash ? s[i] != '-' : s[i] < '0' || s[i] > '9') return false;
	}
	return !s[10];
}

int vk_usage_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct usage_opts o = {0};
	int rc = vk_cli_begin(&cli, &usage_help, usage_opts, &o, argc, argv);
	if (rc >= 0) return rc;
	struct vk_buf path;
	vk_buf_init(&path, 65536);
	vk_buf_puts(&path, "/v1/usage");
	if ((o.from && !is_day(o.from)) || (o.to && !is_day(o.to))) {
		rc = vk_cli_say(&cli, VK_EXIT_MISUSE, "a day is written YYYY-MM-DD");
	} else {
		if (o.from) vk_buf_printf(&path, "?from=%s", o.from);
		if (o.to) vk_buf_printf(&path, "%cto=%s", o.from ? '&' : '?', o.to);
		rc = vk_client_show(&cli, "GET", vk_buf_cstr(&path), (struct vk_bytes){0}, show_usage);
	}
	vk_buf_free(&path);
	vk_cli_end(&cli);
	return rc;
}
