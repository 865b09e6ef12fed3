/* veckeep keys: list, create, revoke. */
#include <stdio.h>

#include "base/cfg.h"
#include "server/auth.h"
#include "server/cli_client.h"
#include "server/cmd.h"

/* --- list --- */

static const char *scopes_text(struct vk_json_reply *r, const vk_jv *key)
{
	const char *list = vk_reply_list(r, key, "scopes");
	return *list ? list : vk_reply_str(r, key, "scopes");
}

/* A moment as the server writes it: ms since 1970, or text. */
static void time_cell(struct vk_table *t, struct vk_json_reply *r, const vk_jv *key, const char *name)
{
	char cell[VK_CELL_MAX];
	const char *text = vk_reply_str(r, key, name);
	if (*text) vk_table_cell(t, "%s", text);
	else vk_table_cell(t, "%s", vk_show_time(cell, (int64_t)vk_reply_u64(key, name)));
}

static int show_list(struct vk_json_reply *r)
{
	static const char *const heads[] = {"ID", "NAME", "SCOPES", "SOURCE", "CREATED", "EXPIRES", "LAST USED", NULL};
	const vk_jv *list = vk_jv_get(r->root, "data");
	struct vk_table *t = vk_table_new(heads);
	for (const vk_jv *k = vk_jv_first(list ? list : r->root); k; k = vk_jv_next(k)) {
		vk_table_cell(t, "%s", vk_reply_str(r, k, "id"));
		vk_table_cell(t, "%s", vk_reply_str(r, k, "name"));
		vk_table_cell(t, "%s", scopes_text(r, k));
		vk_table_cell(t, "%s", vk_reply_str(r, k, "source"));
		time_cell(t, r, k, "created");
		time_cell(t, r, k, "expires");
		time_cell(t, r, k, "last_used");
	}
	vk_table_end(t);
	return 0;
}

static const struct vk_cli_help list_help = {
	.name = "veckeep keys list",
	.synopsis = "[OPTION]...",
	.text = "Lists the API keys: their ids, never their secrets. Source `config` and `environment`\n"
		"are changed there, `catalog` by `veckeep keys`.\n",
	.examples = "  veckeep keys list\n",
	.client = true,
};

static int list_main(int argc, char **argv)
{
	struct vk_cli cli;
	int rc = vk_cli_begin(&cli, &list_help, NULL, NULL, argc, argv);
	if (rc >= 0) return rc;
	rc = vk_client_show(&cli, "GET", "/v1/keys", (struct vk_bytes){0}, show_list);
	vk_cli_end(&cli);
	return rc;
}

/* --- create --- */

static int show_created(struct vk_json_reply *r)
{
	printf("%s\n", vk_reply_str(r, r->root, "key"));
	fflush(stdout);
	fprintf(stderr, "key %s; it is shown this once, the server keeps only its hash\n",
		vk_reply_str(r, r->root, "id"));
	return 0;
}

struct create_opts {
	const char *name, *scopes, *expires;
};

#define AT(field) offsetof(struct create_opts, field)
static const struct vk_opt create_table[] = {
	{"name", 'n', VK_OPT_STR, AT(name), "NAME", "who or what it is for (needed)"},
	{"scopes", 's', VK_OPT_STR, AT(scopes), "LIST", "read, write, embed, admin, metrics; commas between (embed,read)"},
	{"expires", 'e', VK_OPT_STR, AT(expires), "TIME", "how long it is good for: 12h, 90d (for ever)"},
	{0},
};
#undef AT

static const struct vk_cli_help create_help = {
	.name = "veckeep keys create",
	.synopsis = "--name NAME [OPTION]...",
	.text = "Makes an API key and prints it, this once, on standard output. Once there is a key,\n"
		"requests without one are refused: make an admin key first.\n",
	.examples = "  veckeep keys create --name ops --scopes admin > ~/.veckeep-admin\n"
		    "  veckeep keys create --name rag --scopes embed,read --expires 90d\n",
	.client = true,
};

static void write_scopes(struct vk_jw *w, const char *list)
{
	vk_jw_key(w, "scopes");
	vk_jw_array(w);
	for (const char *p = list; *p;) {
		size_t n = strcspn(p, ", ");
		if (n) vk_jw_str(w, (struct vk_bytes){p, n});
		p += n;
		p += strspn(p, ", ");
	}
	vk_jw_array_end(w);
}

static void write_create(struct vk_buf *b, const struct create_opts *o)
{
	struct vk_jw w;
	vk_jw_init(&w, b);
	vk_jw_object(&w);
	vk_jw_kv(&w, "name", o->name);
	write_scopes(&w, o->scopes);
	if (o->expires) vk_jw_kv(&w, "expires", o->expires);
	vk_jw_object_end(&w);
}

static int create_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct create_opts o = {.scopes = "embed,read"};
	uint32_t scopes;
	uint64_t ms;
	int rc = vk_cli_begin(&cli, &create_help, create_table, &o, argc, argv);
	if (rc >= 0) return rc;
	if (!o.name || !*o.name) {
		rc = vk_cli_say(&cli, VK_EXIT_MISUSE, "--name says who the key is for");
	} else if (!vk_scopes_parse(vk_bytes_of(o.scopes), &scopes)) {
		rc = vk_cli_say(&cli, VK_EXIT_MISUSE, "--scopes: some of read, write, embed, admin, metrics");
	} else if (o.expires && (!vk_parse_duration_ms(o.expires, &ms) || !ms)) {
		rc = vk_cli_say(&cli, VK_EXIT_MISUSE, "--expires: a duration such as 12h or 90d, not \"%s\"", o.expires);
	} else {
		struct vk_buf body;
		vk_buf_init(&body, 65536);
		write_create(&body, &o);
		rc = vk_client_show(&cli, "POST", "/v1/keys", vk_buf_bytes(&body), show_created);
		vk_buf_free(&body);
	}
	vk_cli_end(&cli);
	return rc;
}

/* --- revoke --- */

static int show_revoked(struct vk_json_reply *r)
{
	(void)r;
	puts("revoked");
	return 0;
}

static const struct vk_cli_help revoke_help = {
	.name = "veckeep keys revoke",
	.synopsis = "[OPTION]... ID",
	.text = "Takes a key back, at once and for good. ID is the key's id, not the key.\n",
	.examples = "  veckeep keys list\n  veckeep keys revoke 7Qm2xVb90aLc\n",
	.args_min = 1,
	.args_max = 1,
	.client = true,
};

static int revoke_main(int argc, char **argv)
{
	struct vk_cli cli;
	struct vk_buf path;
	int rc = vk_cli_begin(&cli, &revoke_help, NULL, NULL, argc, argv);
	if (rc >= 0) return rc;
	vk_buf_init(&path, 4096);
	vk_buf_puts(&path, "/v1/keys/");
	vk_url_put(&path, cli.args.v[0], false);
	rc = vk_client_show(&cli, "DELETE", vk_buf_cstr(&path), (struct vk_bytes){0}, show_revoked);
	vk_buf_free(&path);
	vk_cli_end(&cli);
	return rc;
}

int vk_keys_main(int argc, char **argv)
{
	static const struct vk_cli_sub subs[] = {
		{"list", "every key, without its secret", list_main},
		{"create", "make a key; it is shown once", create_main},
		{"revoke", "take a key back", revoke_main},
	};
	return vk_cli_dispatch("veckeep keys", "API keys: who may do what on this server.\n", subs,
			       sizeof subs / sizeof *subs, argc, argv);
}
