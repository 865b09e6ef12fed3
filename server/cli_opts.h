/*
 * The command line's options: a const table says which there are, one parser reads them into the
 * caller's struct. `--name value`, `--name=value`, `-n value`, `-nvalue`, flags together (`-jq`),
 * `--` ends the options, a lone `-` is an argument; options and arguments may mix.
 *
 * Nothing is copied: strings point into argv (VK_OPT_LIST: an array of such pointers, freed by
 * vk_opts_free). Whatever is wrong is a text that names the option, with the nearest known name
 * where one is near; the caller prints it and ends with 2.
 */
#ifndef VK_SERVER_CLI_OPTS_H
#define VK_SERVER_CLI_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vk_opt_kind { /* what stands at vk_opt.at */
	VK_OPT_FLAG,     /* bool; takes no value */
	VK_OPT_STR,      /* const char * */
	VK_OPT_LIST,     /* struct vk_opt_list: may be said again */
	VK_OPT_U64,      /* uint64_t */
	VK_OPT_DURATION  /* uint64_t milliseconds: "30s", "5m", "90d" */
};

struct vk_opt {
	const char *name;   /* long, without dashes; NULL ends the table */
	char letter;        /* 0: none */
	enum vk_opt_kind kind;
	size_t at;          /* offsetof() in the struct that is filled */
	const char *value;  /* what the help calls the value; NULL for a flag */
	const char *help;
};

struct vk_opt_list {
	const char **v;
	size_t n;
};

#define VK_OPT_SETS 2
#define VK_OPT_TEXT_MAX 256

struct vk_opt_set { /* a table and the struct that it fills */
	const struct vk_opt *opts;
	void *to;
};

struct vk_args { /* what is no option, in order */
	const char **v;
	size_t n;
};

/* argv[1..argc) against the sets (looked through in order). False: text says what is wrong.
 * args and lists are freed by vk_opts_free() either way. */
bool vk_opts_parse(const struct vk_opt_set sets[VK_OPT_SETS], int argc, char **argv,
		   struct vk_args *args, char text[VK_OPT_TEXT_MAX]);
void vk_opts_free(const struct vk_opt_set sets[VK_OPT_SETS], struct vk_args *args);

/* Edits (insert, delete, replace) from one word to the other; past 16 letters: 99. */
unsigned vk_word_distance(const char *a, const char *b);

#endif
