/* One pass over argv; each option is looked up by name or letter in one or two tables. */
#include "server/cli_opts.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cfg.h"

#define WORD_MAX 16
#define NEAR_MAX 2 /* edits that still count as a slip */

struct found {
	const struct vk_opt *opt;
	void *to;
};

struct parse {
	const struct vk_opt_set *sets;
	int argc, at;
	char **argv;
	struct vk_args *args;
	char *text;
};

unsigned vk_word_distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	unsigned row[WORD_MAX + 1];
	if (n > WORD_MAX || m > WORD_MAX) return 99;
	for (size_t j = 0; j <= m; j++) row[j] = (unsigned)j;
	for (size_t i = 1; i <= n; i++) {
		unsigned diagonal = row[0];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned replace = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			unsigned best = diagonal < row[j - 1] ? diagonal + 1 : row[j - 1] + 1;
			row[j] = replace < best ? replace : best;
		}
	}
	return row[m];
}

static struct found by_name(const struct parse *p, const char *name, size_t n)
{
	for (size_t s = 0; s < VK_OPT_SETS; s++)
		for (const struct vk_opt *o = p->sets[s].opts; o && o->name; o++)
			if (strlen(o->name) == n && !memcmp(o->name, name, n))
				return (struct found){o, p->sets[s].to};
	return (struct found){0};
}

static struct found by_letter(const struct parse *p, char letter)
{
	for (size_t s = 0; s < VK_OPT_SETS; s++)
		for (const struct vk_opt *o = p->sets[s].opts; o && o->name; o++)
			if (o->letter && o->letter == letter) return (struct found){o, p->sets[s].to};
	return (struct found){0};
}

static bool unknown(const struct parse *p, const char *name, size_t n)
{
	char word[WORD_MAX + 1];
	const char *near = NULL;
	unsigned best = NEAR_MAX + 1;
	snprintf(word, sizeof word, "%.*s", (int)n, name);
	for (size_t s = 0; s < VK_OPT_SETS && n <= WORD_MAX; s++)
		for (const struct vk_opt *o = p->sets[s].opts; o && o->name; o++) {
			unsigned d = vk_word_distance(word, o->name);
			if (d < best && d < strlen(o->name)) {
				best = d;
				near = o->name;
			}
		}
	if (near)
		snprintf(p->text, VK_OPT_TEXT_MAX, "unknown option --%.*s: did you mean --%s?", (int)n, name,
			 near);
	else
		snprintf(p->text, VK_OPT_TEXT_MAX, "unknown option --%.*s", (int)n, name);
	return false;
}

static bool bad(const struct parse *p, const struct vk_opt *o, const char *expected, const char *value)
{
	snprintf(p->text, VK_OPT_TEXT_MAX, "--%s: expected %s, not \"%s\"", o->name, expected, value);
	return false;
}

static bool read_u64(const char *s, uint64_t *out)
{
	char *end;
	if (*s < '0' || *s > '9') return false; /* strtoull takes signs and blanks */
	errno = 0;
	unsigned long long v = strtoull(s, &end, 10);
	*out = v;
	return !errno && !*end;
}

static bool append(const char ***v, size_t *n, const char *s)
{
	/* Room for a power of two at a time. */
	if (!(*n & (*n - 1))) {
		const char **more = realloc(*v, (*n ? *n * 2 : 1) * sizeof *more);
		if (!more) return false;
		*v = more;
	}
	(*v)[(*n)++] = s;
	return true;
}

static bool no_memory(const struct parse *p)
{
	snprintf(p->text, VK_OPT_TEXT_MAX, "out of memory");
	return false;
}

/* "30s", or a bare number of seconds. */
static bool read_duration(const char *s, uint64_t *ms)
{
	uint64_t seconds;
	if (!read_u64(s, &seconds)) return vk_parse_duration_ms(s, ms);
	*ms = seconds * 1000;
	return seconds <= UINT64_MAX / 1000;
}

static bool store(const struct parse *p, struct found f, const char *value)
{
	void *at = (char *)f.to + f.opt->at;
	struct vk_opt_list *list = at;
	switch (f.opt->kind) {
	case VK_OPT_FLAG:
		*(bool *)at = true;
		return true;
	case VK_OPT_STR:
		*(const char **)at = value;
		return true;
	case VK_OPT_LIST:
		return append(&list->v, &list->n, value) || no_memory(p);
	case VK_OPT_U64:
		return read_u64(value, at) || bad(p, f.opt, "a whole number", value);
	case VK_OPT_DURATION:
		return read_duration(value, at) ||
		       bad(p, f.opt, "a duration such as 30s, 12h or 90d", value);
	}
	assert(!"a kind of option");
	return false;
}

/* The option's value when it stands in the next argument. */
static bool store_next(struct parse *p, struct found f)
{
	if (p->at + 1 >= p->argc) {
		snprintf(p->text, VK_OPT_TEXT_MAX, "--%s wants a value: --%s %s", f.opt->name, f.opt->name,
			 f.opt->value);
		return false;
	}
	return store(p, f, p->argv[++p->at]);
}

static bool read_long(struct parse *p, const char *word)
{
	size_t n = strcspn(word, "=");
	struct found f = by_name(p, word, n);
	if (!f.opt) return unknown(p, word, n);
	bool flag = f.opt->kind == VK_OPT_FLAG;
	if (flag && word[n]) {
		snprintf(p->text, VK_OPT_TEXT_MAX, "--%s takes no value", f.opt->name);
		return false;
	}
	if (flag) return store(p, f, NULL);
	return word[n] ? store(p, f, word + n + 1) : store_next(p, f);
}

static bool read_short(struct parse *p, const char *word)
{
	for (; *word; word++) {
		struct found f = by_letter(p, *word);
		if (!f.opt) {
			snprintf(p->text, VK_OPT_TEXT_MAX, "unknown option -%c", *word);
			return false;
		}
		if (f.opt->kind != VK_OPT_FLAG) return word[1] ? store(p, f, word + 1) : store_next(p, f);
		if (!store(p, f, NULL)) return false;
	}
	return true;
}

bool vk_opts_parse(const struct vk_opt_set sets[VK_OPT_SETS], int argc, char **argv,
		   struct vk_args *args, char text[VK_OPT_TEXT_MAX])
{
	struct parse p = {.sets = sets, .argc = argc, .argv = argv, .args = args, .text = text};
	bool options = true;
	*args = (struct vk_args){0};
	text[0] = 0;
	for (p.at = 1; p.at < argc; p.at++) {
		const char *word = argv[p.at];
		bool ok;
		if (options && !strcmp(word, "--")) {
			options = false;
			continue;
		}
		if (options && word[0] == '-' && word[1] == '-') ok = read_long(&p, word + 2);
		else if (options && word[0] == '-' && word[1]) ok = read_short(&p, word + 1);
		else ok = append(&args->v, &args->n, word) || no_memory(&p);
		if (!ok) return false;
	}
	return true;
}

void vk_opts_free(const struct vk_opt_set sets[VK_OPT_SETS], struct vk_args *args)
{
	for (size_t s = 0; s < VK_OPT_SETS; s++)
		for (const struct vk_opt *o = sets[s].opts; o && o->name; o++) {
			if (o->kind != VK_OPT_LIST) continue;
			struct vk_opt_list *list = (void *)((char *)sets[s].to + o->at);
			free(list->v);
			*list = (struct vk_opt_list){0};
		}
	free(args->v);
	*args = (struct vk_args){0};
}
