/*
 * A JSON Lines file as points: one object a line. The text is in `text_field` (else the first of text, page_content, content,
 * document that is there), the id in `id_field` (a whole number or a string; without one a UUID made of the text, so importing
 * again changes nothing), the payload in "payload" when that is an object, else the whole object without id and vector; the
 * text stays in the payload, where the collection finds it again. A line with a "vector" brings its own.
 */
#ifndef VK_SERVER_CMD_IMPORT_INPUT_H
#define VK_SERVER_CMD_IMPORT_INPUT_H

#include <stdio.h>

#include "base/arena.h"
#include "base/json.h"
#include "server/cli.h"

struct vk_import_line {
	struct vk_bytes text;  /* p == NULL: the line has a vector of its own */
	const vk_jv *vector, *id, *object, *payload;
	const char *text_key;
};

struct vk_import_input {
	const struct vk_cli *cli;
	const char *name, *text_field, *id_field;
	FILE *file;
	char *line;
	size_t line_cap;
	uint64_t at;           /* lines read */
	uint64_t offset;       /* bytes read */
	struct vk_arena arena; /* the line's */
	struct vk_json *doc;
};

bool vk_import_open(struct vk_import_input *in, const struct vk_cli *cli, const char *file, const char *text_field,
		    const char *id_field);
void vk_import_close(struct vk_import_input *in);
/* 1: a line (valid until the next call), 0: the end, -1: said what is wrong with which line. Empty lines are skipped. */
int vk_import_next(struct vk_import_input *in, struct vk_import_line *out);
/* The line as a point of an upsert. model NULL: the space that the collection is bound to. using "": the unnamed vector. */
void vk_import_write(struct vk_jw *w, const struct vk_import_line *l, const char *model, const char *using);

#endif
