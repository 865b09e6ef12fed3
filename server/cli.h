/*
 * What every subcommand is made of: its help, its options and the ones that all have, exit codes,
 * tables and JSON. A subcommand is `int vk_<name>_main(int argc, char **argv)` with argv[0] its own
 * name; main.c lists them.
 */
#ifndef VK_SERVER_CLI_H
#define VK_SERVER_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "server/cli_opts.h"

enum { /* exit codes */
	VK_EXIT_OK = 0,
	VK_EXIT_FAILED = 1,
	VK_EXIT_MISUSE = 2,
	VK_EXIT_AGAIN = 75 /* EX_TEMPFAIL: nothing wrong with the question, try again later */
};

struct vk_cli_help {
	const char *name;     /* "veckeep cache why" */
	const char *synopsis; /* what follows the name: "[OPTION]... TEXT" */
	const char *text;     /* what it does; lines end with \n */
	const char *examples; /* NULL: none */
	size_t args_min, args_max;
	bool client;          /* talks to a server: has --url and its kin */
};

struct vk_cli { /* a parsed command line */
	const struct vk_cli_help *help;
	struct vk_args args;
	struct vk_opt_set sets[VK_OPT_SETS];
	/* the options that all have */
	bool show_help, json;
	const char *url, *api_key, *api_key_file, *ca_file;
	uint64_t timeout_ms;
};

/* Reads the command line into *opts (by table, which may be NULL). Negative: go on. Else it is the exit code: help
 * was printed, or what is wrong was said. Free with vk_cli_end() when it was negative. */
int vk_cli_begin(struct vk_cli *cli, const struct vk_cli_help *help, const struct vk_opt *table,
		 void *opts, int argc, char **argv);
void vk_cli_end(struct vk_cli *cli);

/* "veckeep embed: text" on standard error; the exit code is the caller's. */
int vk_cli_say(const struct vk_cli *cli, int exit_code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Subcommands of a subcommand, and the program's own. */
struct vk_cli_sub {
	const char *name, *line;
	int (*main)(int argc, char **argv);
};
int vk_cli_dispatch(const char *program, const char *intro, const struct vk_cli_sub *subs, size_t n,
		    int argc, char **argv);

/* --data-dir, else VECKEEP_DATA_DIR, else $XDG_DATA_HOME/veckeep, else ~/.local/share/veckeep. */
const char *vk_cli_data_dir(const char *said, char *dst, size_t cap);

/*
 * A table on standard output: columns as wide as their widest cell, numbers to the right. Cells
 * are copied; the last column is not padded.
 */
struct vk_table;
/* heads: "NAME", or ">NAME" for a column of numbers; NULL-terminated. */
struct vk_table *vk_table_new(const char *const *heads);
void vk_table_cell(struct vk_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints and frees. */
void vk_table_end(struct vk_table *t);

/* Readable forms in dst, which is returned: "1.5 GiB"; "12,345"; a day and time in UTC. */
#define VK_CELL_MAX 40
const char *vk_show_bytes(char dst[VK_CELL_MAX], uint64_t bytes);
const char *vk_show_count(char dst[VK_CELL_MAX], uint64_t n);
const char *vk_show_time(char dst[VK_CELL_MAX], int64_t unix_ms);

#endif
