/* Help texts, the options that all subcommands share, and finding a subcommand by its name. */
#include "server/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMN 26
#define WRAP_COLUMN 96
#define TIMEOUT_MS 60000

#define AT(field) offsetof(struct vk_cli, field)
static const struct vk_opt local_opts[] = {
	{"json", 'j', VK_OPT_FLAG, AT(json), NULL, "print JSON in place of tables"},
	{"help", 'h', VK_OPT_FLAG, AT(show_help), NULL, "this text"},
	{0},
};
static const struct vk_opt client_opts[] = {
	{"url", 'u', VK_OPT_STR, AT(url), "URL",
	 "the server (VECKEEP_URL; http://127.0.0.1:8325)"},
	{"api-key", 0, VK_OPT_STR, AT(api_key), "KEY",
	 "its API key (VECKEEP_API_KEY); other users can read a command line: prefer the variable or a file"},
	{"api-key-file", 0, VK_OPT_STR, AT(api_key_file), "FILE", "read the API key from FILE"},
	{"ca-file", 0, VK_OPT_STR, AT(ca_file), "FILE", "trust the certificates in FILE (VECKEEP_CA_FILE)"},
	{"timeout", 0, VK_OPT_DURATION, AT(timeout_ms), "TIME", "how long one request may take (60s)"},
	{"json", 'j', VK_OPT_FLAG, AT(json), NULL, "print JSON in place of tables"},
	{"help", 'h', VK_OPT_FLAG, AT(show_help), NULL, "this text"},
	{0},
};
#undef AT

/* Words wrapped at WRAP_COLUMN, further lines indented like the first. */
static void print_wrapped(FILE *f, const char *text, size_t indent)
{
	size_t column = indent;
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, " ");
		if (column > indent && column + 1 + n > WRAP_COLUMN) {
			fprintf(f, "\n%*s", (int)indent, "");
			column = indent;
		} else if (column > indent) {
			fputc(' ', f);
			column++;
		}
		fwrite(p, 1, n, f);
		column += n;
		p += n;
		p += strspn(p, " ");
	}
	fputc('\n', f);
}

static void print_opts(FILE *f, const struct vk_opt *opts)
{
	for (const struct vk_opt *o = opts; o && o->name; o++) {
		char left[64], letter[] = "-x, ";
		letter[1] = o->letter;
		int n = snprintf(left, sizeof left, "  %s--%s%s%s", o->letter ? letter : "    ", o->name,
				 o->value ? " " : "", o->value ? o->value : "");
		if (n < HELP_COLUMN - 1) fprintf(f, "%-*s", HELP_COLUMN, left);
		else fprintf(f, "%s\n%*s", left, HELP_COLUMN, "");
		print_wrapped(f, o->help, HELP_COLUMN);
	}
}

static void print_help(const struct vk_cli *cli)
{
	const struct vk_cli_help *h = cli->help;
	printf("usage: %s %s\n\n%s", h->name, h->synopsis, h->text);
	if (cli->sets[0].opts && cli->sets[0].opts->name) {
		printf("\noptions:\n");
		print_opts(stdout, cli->sets[0].opts);
	}
	printf(h->client ? "\nserver and output:\n" : "\noutput:\n");
	print_opts(stdout, cli->sets[1].opts);
	if (h->examples) printf("\nexamples:\n%s", h->examples);
}

static int misuse(const struct vk_cli *cli, const char *text)
{
	fprintf(stderr, "%s: %s\nusage: %s %s\n       `%s --help` tells more\n", cli->help->name, text,
		cli->help->name, cli->help->synopsis, cli->help->name);
	return VK_EXIT_MISUSE;
}

static const char *environment(const char *said, const char *name, const char *otherwise)
{
	const char *value = said ? said : getenv(name);
	return value && *value ? value : otherwise;
}

int vk_cli_begin(struct vk_cli *cli, const struct vk_cli_help *help, const struct vk_opt *table,
		 void *opts, int argc, char **argv)
{
	char text[VK_OPT_TEXT_MAX];
	*cli = (struct vk_cli){.help = help, .timeout_ms = TIMEOUT_MS};
	cli->sets[0] = (struct vk_opt_set){table, opts};
	cli->sets[1] = (struct vk_opt_set){help->client ? client_opts : local_opts, cli};
	bool ok = vk_opts_parse(cli->sets, argc, argv, &cli->args, text);
	int rc = -1;
	if (cli->show_help) { /* whatever else is wrong: who asks for help gets it */
		print_help(cli);
		rc = VK_EXIT_OK;
	} else if (!ok) {
		rc = misuse(cli, text);
	} else if (cli->args.n < help->args_min) {
		rc = misuse(cli, "something is missing");
	} else if (cli->args.n > help->args_max) {
		snprintf(text, sizeof text, "unexpected argument \"%.80s\"", cli->args.v[help->args_max]);
		rc = misuse(cli, text);
	}
	if (rc >= 0) {
		vk_cli_end(cli);
		return rc;
	}
	cli->url = environment(cli->url, "VECKEEP_URL", "http://127.0.0.1:8325");
	cli->ca_file = environment(cli->ca_file, "VECKEEP_CA_FILE", NULL);
	if (!cli->api_key_file) cli->api_key = environment(cli->api_key, "VECKEEP_API_KEY", NULL);
	return -1;
}

void vk_cli_end(struct vk_cli *cli)
{
	vk_opts_free(cli->sets, &cli->args);
}

int vk_cli_say(const struct vk_cli *cli, int exit_code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fprintf(stderr, "%s: ", cli->help->name);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	return exit_code;
}

/* --- subcommands --- */

static void print_subs(FILE *f, const char *program, const char *intro, const struct vk_cli_sub *subs,
		       size_t n)
{
	fprintf(f, "usage: %s COMMAND [OPTION]...\n\n%s\ncommands:\n", program, intro);
	for (size_t i = 0; i < n; i++) fprintf(f, "  %-12s %s\n", subs[i].name, subs[i].line);
	fprintf(f, "\n`%s COMMAND --help` tells more, with examples.\n"
		   "Exit codes: 0 good, 1 failed, 2 misuse, 75 not now: try again.\n", program);
}

static const struct vk_cli_sub *find(const struct vk_cli_sub *subs, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(subs[i].name, name)) return &subs[i];
	return NULL;
}

static const char *near(const struct vk_cli_sub *subs, size_t n, const char *name)
{
	const char *best = NULL;
	unsigned least = 3;
	for (size_t i = 0; i < n; i++) {
		unsigned d = vk_word_distance(name, subs[i].name);
		if (d < least) {
			least = d;
			best = subs[i].name;
		}
	}
	return best;
}

static int unknown(const char *program, const struct vk_cli_sub *subs, size_t n, const char *name)
{
	const char *meant = near(subs, n, name);
	fprintf(stderr, "%s: unknown command \"%s\"", program, name);
	if (meant) fprintf(stderr, ": did you mean \"%s\"?", meant);
	fprintf(stderr, "\n`%s --help` lists them\n", program);
	return VK_EXIT_MISUSE;
}

/* `help X Y` is `X Y --help`. */
static int help_of(const char *program, const char *intro, const struct vk_cli_sub *subs, size_t n,
		   int argc, char **argv)
{
	static char flag[] = "--help";
	const struct vk_cli_sub *sub = argc > 1 ? find(subs, n, argv[1]) : NULL;
	char *words[] = {argc > 1 ? argv[1] : NULL, argc > 2 ? argv[2] : flag, argc > 2 ? flag : NULL, NULL};
	if (sub) return sub->main(argc > 2 ? 3 : 2, words);
	if (argc > 1 && argv[1][0] != '-') return unknown(program, subs, n, argv[1]);
	print_subs(stdout, program, intro, subs, n);
	return VK_EXIT_OK;
}

int vk_cli_dispatch(const char *program, const char *intro, const struct vk_cli_sub *subs, size_t n,
		    int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : NULL;
	if (!word) {
		print_subs(stderr, program, intro, subs, n);
		return VK_EXIT_MISUSE;
	}
	if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help"))
		return help_of(program, intro, subs, n, argc - 1, argv + 1);
	const struct vk_cli_sub *sub = find(subs, n, word);
	return sub ? sub->main(argc - 1, argv + 1) : unknown(program, subs, n, word);
}

const char *vk_cli_data_dir(const char *said, char *dst, size_t cap)
{
	const char *env = environment(said, "VECKEEP_DATA_DIR", NULL);
	const char *xdg = environment(NULL, "XDG_DATA_HOME", NULL);
	const char *home = environment(NULL, "HOME", ".");
	if (env) snprintf(dst, cap, "%s", env);
	else if (xdg) snprintf(dst, cap, "%s/veckeep", xdg);
	else snprintf(dst, cap, "%s/.local/share/veckeep", home);
	return dst;
}
