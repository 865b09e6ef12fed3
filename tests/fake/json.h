/* A strict JSON reader of the fake's own, so that a fault of the house's codec cannot hide behind
 * the same fault here: UTF-8 is checked, lone surrogates, control characters, duplicate keys and
 * trailing bytes are refused. Nodes and strings live in the arena. */
#ifndef FAKE_JSON_H
#define FAKE_JSON_H

#include <stdbool.h>

#include "buf.h"

enum fake_json_type { FAKE_NULL, FAKE_BOOL, FAKE_NUMBER, FAKE_STRING, FAKE_ARRAY, FAKE_OBJECT };

struct fake_json {
	enum fake_json_type type;
	bool is_int;         /* a number without fraction or exponent */
	const char *str;     /* string value, 0-terminated as well; may hold a NUL inside */
	size_t str_n;
	double num;          /* number; 0 or 1 for a boolean */
	const char *key;     /* within an object */
	size_t key_n;
	size_t count;        /* children */
	struct fake_json *child, *next;
};

/* NULL and *why on refusal. */
struct fake_json *fake_json_read(struct fake_arena *a, const char *text, size_t n, const char **why);
/* The member, or NULL. */
const struct fake_json *fake_json_get(const struct fake_json *object, const char *key);
double fake_json_num(const struct fake_json *object, const char *key, double otherwise);
/* The member's string, or NULL when absent or not a string. */
const char *fake_json_str(const struct fake_json *object, const char *key);

#endif
