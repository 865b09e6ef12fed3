/*
 * Words: split and compared on the fly. A query's words are lower-cased once; a text's words are compared
 * character by character without a copy, as texts are long and queries short.
 */
#include "index/words.h"

#include "base/utf8.h"
#include "index/words_table.h"

#define SIGMA 0x3a3u /* at a word's end it becomes the final one */
#define SIGMA_FINAL 0x3c2u
#define DOTTED_I 0x130u /* becomes i and a dot above */

static bool in_word_past_ascii(uint32_t cp)
{
	size_t low = 0, high = vk_word_ranges_n;
	while (low < high) {
		size_t mid = (low + high) / 2;
		if (cp > vk_word_ranges[mid].last) low = mid + 1;
		else high = mid;
	}
	return low < vk_word_ranges_n && cp >= vk_word_ranges[low].first;
}

static inline bool in_word(uint32_t cp)
{
	if (cp >= 0x80) return in_word_past_ascii(cp);
	return cp - '0' < 10 || (cp | 32) - 'a' < 26; /* unsigned: below wraps far above */
}

static uint32_t lower(uint32_t cp)
{
	if (cp < 0x80) return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
	size_t low = 0, high = vk_lower_runs_n;
	while (low < high) {
		size_t mid = (low + high) / 2;
		if (cp > vk_lower_runs[mid].last) low = mid + 1;
		else high = mid;
	}
	if (low == vk_lower_runs_n) return cp;
	const struct vk_lower_run *r = &vk_lower_runs[low];
	return cp >= r->first && (cp - r->first) % r->stride == 0 ? (uint32_t)((int64_t)cp + r->delta) : cp;
}

static inline const char *next_char(const char *p, const char *end, uint32_t *cp)
{
	*cp = (unsigned char)*p;
	return *cp < 0x80 ? p + 1 : vk_utf8_next(p, end, cp);
}

/* The next word at or behind *p: [*from, *p). False: none. */
static bool next_word(const char **p, const char *end, const char **from)
{
	const char *at = *p, *next;
	uint32_t cp;
	for (; at < end; at = next) {
		next = next_char(at, end, &cp);
		if (in_word(cp)) break;
	}
	*from = at;
	for (; at < end; at = next) {
		next = next_char(at, end, &cp);
		if (!in_word(cp)) break;
	}
	*p = at;
	return at > *from;
}

/* The word's next character in lower case into dst[8]: its length. */
static size_t lower_char(const char **p, const char *end, bool first, char dst[8])
{
	uint32_t cp;
	*p = next_char(*p, end, &cp);
	if (cp == SIGMA && *p == end && !first) return vk_utf8_put(dst, SIGMA_FINAL);
	if (cp == DOTTED_I) {
		memcpy(dst, "i\xcc\x87", 3);
		return 3;
	}
	return vk_utf8_put(dst, lower(cp));
}

static bool word_is(const char *p, const char *end, struct vk_bytes lowered)
{
	char c[8];
	const char *q = lowered.p, *qend = q + lowered.n;
	for (bool first = true; p < end; first = false) {
		size_t n = lower_char(&p, end, first, c);
		if ((size_t)(qend - q) < n || memcmp(q, c, n)) return false;
		q += n;
	}
	return q == qend;
}

bool vk_words_read(struct vk_arena *a, struct vk_bytes text, struct vk_words *out)
{
	const char *p = text.p, *end = p + text.n, *from;
	size_t n = 0;
	while (next_word(&p, end, &from)) n++;
	*out = (struct vk_words){.word = vk_arena_calloc(a, n ? n : 1, sizeof *out->word)};
	char *dst = vk_arena_alloc(a, 2 * text.n + 8); /* lower case is at most a half longer */
	if (!out->word || !dst) return false;
	p = text.p;
	while (next_word(&p, end, &from)) {
		char *start = dst;
		for (const char *c = from; c < p;) dst += lower_char(&c, p, c == from, dst);
		out->word[out->n++] = (struct vk_bytes){start, (size_t)(dst - start)};
	}
	return true;
}

static bool has_word(struct vk_bytes text, struct vk_bytes word)
{
	const char *p = text.p, *end = p + text.n, *from;
	while (next_word(&p, end, &from))
		if (word_is(from, p, word)) return true;
	return false;
}

bool vk_words_all(const struct vk_words *q, struct vk_bytes text)
{
	for (size_t i = 0; i < q->n; i++)
		if (!has_word(text, q->word[i])) return false;
	return q->n > 0;
}

bool vk_words_any(const struct vk_words *q, struct vk_bytes text)
{
	for (size_t i = 0; i < q->n; i++)
		if (has_word(text, q->word[i])) return true;
	return false;
}

bool vk_words_phrase(const struct vk_words *q, struct vk_bytes text)
{
	const char *p = text.p, *end = p + text.n, *from;
	while (q->n && next_word(&p, end, &from)) { /* does the phrase begin here? */
		const char *at = p;
		size_t i = 0;
		for (bool more = true; more && i < q->n && word_is(from, at, q->word[i]); i++)
			more = i + 1 < q->n && next_word(&at, end, &from);
		if (i == q->n) return true;
	}
	return false;
}
