/*
 * Where `veckeep embed` gets its texts: arguments, or the lines of a file or of standard input,
 * plain or JSON with the text in a field. Texts are handed out one by one, checked (UTF-8, not
 * empty); nothing but the current line is in memory.
 */
#ifndef VK_SERVER_CMD_EMBED_INPUT_H
#define VK_SERVER_CMD_EMBED_INPUT_H

#include <stdio.h>

#include "base/bytes.h"
#include "server/cli.h"

struct vk_texts {
	const struct vk_cli *cli;
	const char *const *args;  /* texts themselves; NULL: lines of file */
	size_t args_n;
	FILE *file;
	const char *file_name, *field; /* field NULL: the line is the text */
	bool skip_empty;
	uint64_t at;              /* texts or lines handed out or skipped so far */
	double bytes_read, bytes_all; /* for the progress bar; bytes_all 0: not known */
	char *line;
	size_t line_cap;
	struct vk_buf text;       /* the text handed out, when it is not an argument */
};

/* file NULL: the arguments; "-": standard input. False after saying why. */
bool vk_texts_open(struct vk_texts *t, const struct vk_cli *cli, const char *file, const char *field,
		   bool skip_empty);
void vk_texts_close(struct vk_texts *t);

/* 1: *text is the next one, *index its position (of the line, from 0), valid until the next call.
 * 0: the end. -1: said what is wrong. */
int vk_texts_next(struct vk_texts *t, struct vk_bytes *text, uint64_t *index);

#endif
