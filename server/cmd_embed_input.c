/* Lines by getline(); a JSON line is parsed in an arena of its own. */
#include "server/cmd_embed_input.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/arena.h"
#include "base/utf8.h"

#define TEXT_MAX ((size_t)16 << 20)

bool vk_texts_open(struct vk_texts *t, const struct vk_cli *cli, const char *file, const char *field,
		   bool skip_empty)
{
	struct stat st;
	*t = (struct vk_texts){.cli = cli, .field = field, .skip_empty = skip_empty};
	vk_buf_init(&t->text, TEXT_MAX);
	if (!file) {
		t->args = cli->args.v;
		t->args_n = cli->args.n;
		t->bytes_all = (double)t->args_n;
		return true;
	}
	bool standard = !strcmp(file, "-");
	t->file_name = standard ? "standard input" : file;
	t->file = standard ? stdin : fopen(file, "re");
	if (!t->file) {
		vk_cli_say(cli, 0, "%s: %s", file, strerror(errno));
		return false;
	}
	if (!fstat(fileno(t->file), &st) && S_ISREG(st.st_mode)) t->bytes_all = (double)st.st_size;
	return true;
}

void vk_texts_close(struct vk_texts *t)
{
	if (t->file && t->file != stdin) fclose(t->file);
	free(t->line);
	vk_buf_free(&t->text);
}

static int wrong(const struct vk_texts *t, const char *what)
{
	if (t->file) vk_cli_say(t->cli, 0, "%s, line %llu: %s", t->file_name, (unsigned long long)t->at, what);
	else vk_cli_say(t->cli, 0, "text %llu: %s", (unsigned long long)t->at, what);
	return -1;
}

/* The field's text out of a JSON line, into t->text. */
static int read_json(struct vk_texts *t, struct vk_bytes line)
{
	struct vk_arena arena;
	struct vk_json *doc = NULL;
	struct vk_error err = {0};
	struct vk_bytes s;
	char what[VK_ERROR_TEXT_MAX + 64];
	int rc = 1;
	vk_arena_init(&arena, 8 * TEXT_MAX);
	if (vk_json_parse(&arena, line, NULL, &doc, &err)) {
		snprintf(what, sizeof what, "no JSON: %s", err.text);
		rc = wrong(t, what);
	} else if (!vk_jv_str(vk_jv_get(vk_json_root(doc), t->field), &s)) {
		snprintf(what, sizeof what, "no string in the field \"%.100s\"", t->field);
		rc = wrong(t, what);
	} else {
		t->text.n = 0;
		vk_buf_put(&t->text, s.p, s.n);
		if (t->text.failed) rc = wrong(t, "longer than 16 MiB");
	}
	vk_json_free(doc);
	vk_arena_free(&arena);
	return rc;
}

/* The next line without its end, as text. */
static int read_line(struct vk_texts *t, struct vk_bytes *text)
{
	ssize_t n = getline(&t->line, &t->line_cap, t->file);
	if (n < 0) return ferror(t->file) ? wrong(t, "cannot be read") : 0;
	t->at++;
	t->bytes_read += (double)n;
	if (n && t->line[n - 1] == '\n') n--;
	if (n && t->line[n - 1] == '\r') n--;
	*text = (struct vk_bytes){t->line, (size_t)n};
	if (!t->field || !n) return 1;
	int rc = read_json(t, *text);
	*text = vk_buf_bytes(&t->text);
	return rc;
}

static int next_any(struct vk_texts *t, struct vk_bytes *text)
{
	if (t->file) return read_line(t, text);
	if (t->at == t->args_n) return 0;
	*text = vk_bytes_of(t->args[t->at++]);
	t->bytes_read = (double)t->at;
	return 1;
}

int vk_texts_next(struct vk_texts *t, struct vk_bytes *text, uint64_t *index)
{
	for (;;) {
		int rc = next_any(t, text);
		if (rc <= 0) return rc;
		*index = t->at - 1;
		if (!text->n && t->skip_empty) continue;
		if (!text->n) return wrong(t, "empty (--skip-empty leaves such lines out)");
		if (vk_utf8_valid(text->p, text->n) != text->n) return wrong(t, "no valid UTF-8");
		return 1;
	}
}
