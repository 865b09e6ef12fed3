/*
 * cl100k_base's pattern by hand. As published (tiktoken 0.14):
 *
 *   '(?i:[sdmt]|ll|ve|re)          contraction
 *   [^\r\n\p{L}\p{N}]?+\p{L}++     letters, with one leading sign or blank
 *   \p{N}{1,3}+                    digits by threes
 *    ?[^\s\p{L}\p{N}]++[\r\n]*+    signs, with one leading space and the line ends after
 *   \s++$                          blanks up to the end of the text
 *   \s*[\r\n]                      blanks up to the last line end among them
 *   \s+(?!\S)                      blanks but the last (it goes with the next word)
 *   \s                             that last one
 *
 * The first alternative that matches wins. The older spelling of the pattern, still found in
 * many ports, has no "\s++$"; the cuts differ there, the ids never (200,000 random blanks).
 *
 * Not a regex engine: PCRE is a library more, a third of the speed, and a backtracking limit
 * that long runs of blanks meet. Every alternative here reads each byte a bounded number of
 * times, and no run is read again by a later piece more than once.
 */
#include "embed/bpe_cut.h"

#include "base/utf8.h"
#include "embed/unicode.h"

enum cls { SIGN, LETTER, NUMBER, BLANK, NEWLINE, NOTHING /* end of text */ };

static enum cls class_of(uint32_t cp)
{
	enum vk_ucat cat = vk_u_category(cp);
	if (cat >= VK_U_LU && cat <= VK_U_LO) return LETTER;
	if (cat >= VK_U_ND && cat <= VK_U_NO) return NUMBER;
	return vk_u_is_space(cp) ? BLANK : SIGN;
}

/* Class of the character at p and where the next one starts. */
static enum cls look(const char *p, const char *end, const char **next)
{
	if (p == end) {
		*next = end;
		return NOTHING;
	}
	unsigned char c = (unsigned char)*p;
	if (c >= 0x80) {
		uint32_t cp;
		*next = vk_utf8_next(p, end, &cp);
		return class_of(cp);
	}
	*next = p + 1;
	if ((unsigned char)((c | 0x20) - 'a') < 26) return LETTER;
	if (c == '\r' || c == '\n') return NEWLINE;
	if (c == ' ' || (c >= '\t' && c <= '\r')) return BLANK;
	return (unsigned char)(c - '0') < 10 ? NUMBER : SIGN;
}

static const char *skip(const char *p, const char *end, enum cls cls)
{
	const char *next;
	while (look(p, end, &next) == cls) p = next;
	return p;
}

/* After an apostrophe: the length of s, d, m, t, ll, ve or re in any case, or 0. Regexes fold
 * the long s (U+017F) to s, so it counts. */
static size_t contraction(const char *p, const char *end)
{
	size_t n = (size_t)(end - p);
	if (n < 1) return 0;
	char a = (char)(p[0] | 0x20);
	if (a == 's' || a == 'd' || a == 'm' || a == 't') return 1;
	if (n < 2) return 0;
	if ((unsigned char)p[0] == 0xc5 && (unsigned char)p[1] == 0xbf) return 2;
	char b = (char)(p[1] | 0x20);
	bool two = (a == 'l' && b == 'l') || ((a == 'v' || a == 'r') && b == 'e');
	return two ? 2 : 0;
}

static const char *number(const char *p, const char *end)
{
	const char *next;
	for (int i = 0; i < 3 && look(p, end, &next) == NUMBER; i++) p = next;
	return p;
}

static const char *signs(const char *p, const char *end)
{
	return skip(skip(p, end, SIGN), end, NEWLINE);
}

/* A run of blanks that no word or sign takes its first character of. */
static const char *blanks(const char *p, const char *end)
{
	const char *last = p, *line_end = NULL, *q = p, *next;
	for (enum cls c; (c = look(q, end, &next)) == BLANK || c == NEWLINE; q = next) {
		last = q;
		if (c == NEWLINE) line_end = next;
	}
	if (q == end) return q;
	if (line_end) return line_end;
	return last > p ? last : q;
}

const char *vk_bpe_cut_cl100k(const char *p, const char *end)
{
	const char *next, *after;
	enum cls first = look(p, end, &next);
	if (*p == '\'') {
		size_t n = contraction(p + 1, end);
		if (n) return p + 1 + n;
	}
	if (first == LETTER) return skip(next, end, LETTER);
	if (first == NUMBER) return number(p, end);
	enum cls second = look(next, end, &after);
	if (first != NEWLINE && second == LETTER) return skip(after, end, LETTER);
	if (first == SIGN) return signs(p, end);
	if (*p == ' ' && second == SIGN) return signs(next, end);
	return blanks(p, end);
}
