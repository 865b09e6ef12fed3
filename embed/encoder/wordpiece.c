/*
 * One pass over the text, character by character, through four small stages:
 *
 *   encode -> take (drop, split, decompose) -> reorder (canonical order of marks)
 *          -> fold (accents, case, punctuation) -> word (pieces out)
 *
 * Each stage holds at most one word or one run of marks, so a megabyte without a space costs
 * no memory. (Road not taken: normalise the whole text, then split, as the reference does:
 * three copies of a body that is cut after 256 tokens anyway.)
 *
 * The vocabulary is one open-addressing table over all pieces as spelled; a continuation is
 * looked up by its own spelling, "##" put before it in the word buffer.
 */
#include "embed/encoder/wordpiece.h"

#include <assert.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "embed/encoder/bert_chars.h"
#include "embed/unicode.h"

#define ARENA_MAX ((size_t)128 << 20)
#define PIECE_BYTES_MAX 512 /* a longer vocabulary entry is refused */
#define PREFIX_BYTES_MAX 16 /* of "##" */
#define MARKS_MAX 64	    /* of one base character; longer runs are ordered in parts */
#define NO_ID UINT32_MAX

struct entry {
	const char *p; /* NULL: free */
	uint32_t n, id;
};

struct special {
	struct vk_bytes text;
	uint32_t id;
};

struct vk_wordpiece {
	struct vk_wordpiece_options opt;
	struct vk_arena arena;
	struct entry *table; /* mask + 1 entries, at most half full */
	size_t mask, count;
	uint64_t seed;
	uint32_t ids, unk, cls, sep;
	uint32_t piece_max; /* bytes of the longest piece */
	size_t prefix_n;    /* bytes of opt.continuing */
	struct special special[VK_WORDPIECE_ADDED_MAX];
	size_t specials;
	bool special_first[256]; /* bytes that a special token starts with */
};

static enum vk_status no_memory(struct vk_error *err)
{
	return vk_fail(err, VK_E_NOMEM, "tokenizer: out of memory");
}

struct vk_wordpiece *vk_wordpiece_new(const struct vk_wordpiece_options *o)
{
	struct vk_wordpiece *w = calloc(1, sizeof *w);
	if (!w) return NULL;
	w->opt = *o;
	vk_arena_init(&w->arena, ARENA_MAX);
	vk_random(&w->seed, sizeof w->seed);
	w->opt.unk_token = vk_arena_strndup(&w->arena, o->unk_token, strlen(o->unk_token));
	w->opt.cls_token = vk_arena_strndup(&w->arena, o->cls_token, strlen(o->cls_token));
	w->opt.sep_token = vk_arena_strndup(&w->arena, o->sep_token, strlen(o->sep_token));
	w->opt.continuing = vk_arena_strndup(&w->arena, o->continuing, strlen(o->continuing));
	w->mask = 1023;
	w->table = calloc(w->mask + 1, sizeof *w->table);
	if (!w->table || !w->opt.unk_token || !w->opt.cls_token || !w->opt.sep_token ||
	    !w->opt.continuing) {
		vk_wordpiece_free(w);
		return NULL;
	}
	w->prefix_n = strlen(w->opt.continuing);
	return w;
}

void vk_wordpiece_free(struct vk_wordpiece *w)
{
	if (!w) return;
	vk_arena_free(&w->arena);
	free(w->table);
	free(w);
}

/* The entry of that spelling, or the free one where it belongs. */
static struct entry *slot_of(const struct vk_wordpiece *w, struct entry *table, size_t mask,
			     const char *p, size_t n)
{
	size_t i = vk_hash64(w->seed, p, n) & mask;
	while (table[i].p && (table[i].n != n || memcmp(table[i].p, p, n) != 0)) i = (i + 1) & mask;
	return &table[i];
}

static bool grow(struct vk_wordpiece *w)
{
	size_t mask = w->mask * 2 + 1;
	struct entry *table = calloc(mask + 1, sizeof *table);
	if (!table) return false;
	for (size_t i = 0; i <= w->mask; i++)
		if (w->table[i].p)
			*slot_of(w, table, mask, w->table[i].p, w->table[i].n) = w->table[i];
	free(w->table);
	w->table = table;
	w->mask = mask;
	return true;
}

enum vk_status vk_wordpiece_add(struct vk_wordpiece *w, struct vk_bytes piece, uint32_t id,
				struct vk_error *err)
{
	if (id >= VK_WORDPIECE_VOCAB_MAX || w->count >= VK_WORDPIECE_VOCAB_MAX)
		return vk_fail(err, VK_E_INVALID, "tokenizer: more than %u pieces",
			       VK_WORDPIECE_VOCAB_MAX);
	if (piece.n > PIECE_BYTES_MAX)
		return vk_fail(err, VK_E_INVALID, "tokenizer: piece %u has %zu bytes, at most %d",
			       id, piece.n, PIECE_BYTES_MAX);
	if (id >= w->ids) w->ids = id + 1;
	if (piece.n == 0) return VK_OK; /* an empty line takes its number and never matches */
	if (w->count * 2 > w->mask && !grow(w)) return no_memory(err);
	struct entry *e = slot_of(w, w->table, w->mask, piece.p, piece.n);
	if (!e->p) {
		e->p = vk_arena_strndup(&w->arena, piece.p, piece.n);
		if (!e->p) return no_memory(err);
		e->n = (uint32_t)piece.n;
		w->count++;
	}
	e->id = id; /* a piece that comes twice has the later id, as in the reference */
	if (piece.n > w->piece_max) w->piece_max = (uint32_t)piece.n;
	return VK_OK;
}

enum vk_status vk_wordpiece_add_special(struct vk_wordpiece *w, struct vk_bytes text, uint32_t id,
					struct vk_error *err)
{
	if (text.n == 0 || text.n > PIECE_BYTES_MAX || id >= VK_WORDPIECE_VOCAB_MAX ||
	    w->specials == VK_WORDPIECE_ADDED_MAX)
		return vk_fail(err, VK_E_INVALID,
			       "tokenizer: added token %u is empty, too long or one too many", id);
	char *copy = vk_arena_strndup(&w->arena, text.p, text.n);
	if (!copy) return no_memory(err);
	w->special[w->specials++] = (struct special){{copy, text.n}, id};
	w->special_first[(unsigned char)text.p[0]] = true;
	if (id >= w->ids) w->ids = id + 1;
	return VK_OK;
}

enum vk_status vk_wordpiece_add_lines(struct vk_wordpiece *w, struct vk_bytes txt,
				      struct vk_error *err)
{
	enum vk_status st = VK_OK;
	const char *p = txt.p, *end = txt.p + txt.n;
	for (uint32_t id = 0; !st && p < end; id++) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		const char *stop = nl ? nl : end;
		size_t n = (size_t)(stop - p);
		if (n && p[n - 1] == '\r') n--;
		st = vk_wordpiece_add(w, (struct vk_bytes){p, n}, id, err);
		p = nl ? nl + 1 : end;
	}
	return st;
}

uint32_t vk_wordpiece_find(const struct vk_wordpiece *w, struct vk_bytes piece)
{
	const struct entry *e = slot_of(w, w->table, w->mask, piece.p, piece.n);
	return e->p ? e->id : NO_ID;
}

static enum vk_status find_special(const struct vk_wordpiece *w, const char *name, uint32_t *id,
				   struct vk_error *err)
{
	*id = vk_wordpiece_find(w, vk_bytes_of(name));
	if (*id != NO_ID) return VK_OK;
	for (size_t i = 0; i < w->specials; i++)
		if (vk_bytes_is(w->special[i].text, name)) {
			*id = w->special[i].id;
			return VK_OK;
		}
	return vk_fail(err, VK_E_INVALID, "tokenizer: the vocabulary lacks '%.64s'", name);
}

enum vk_status vk_wordpiece_seal(struct vk_wordpiece *w, struct vk_error *err)
{
	if (w->opt.max_chars == 0 || w->opt.max_chars > VK_WORDPIECE_CHARS_MAX)
		return vk_fail(err, VK_E_INVALID,
			       "tokenizer: max_input_chars_per_word must be 1 to %d",
			       VK_WORDPIECE_CHARS_MAX);
	if (w->prefix_n > PREFIX_BYTES_MAX)
		return vk_fail(err, VK_E_INVALID,
			       "tokenizer: the continuing_subword_prefix is too long");
	enum vk_status st = find_special(w, w->opt.unk_token, &w->unk, err);
	if (!st) st = find_special(w, w->opt.cls_token, &w->cls, err);
	if (!st) st = find_special(w, w->opt.sep_token, &w->sep, err);
	return st;
}

uint32_t vk_wordpiece_ids(const struct vk_wordpiece *w) { return w->ids; }

/* ---- encoding ---- */

struct mark {
	uint32_t cp;
	int order; /* canonical combining class; 0 starts a new run */
};

struct encoder {
	const struct vk_wordpiece *w;
	uint32_t *ids;
	size_t n, max;
	bool full; /* one id more than max was wanted */
	struct mark marks[MARKS_MAX];
	size_t mark_n;
	/* The word: room for the prefix before every character that a continuation may start at. */
	char word[PREFIX_BYTES_MAX + 4 * VK_WORDPIECE_CHARS_MAX];
	size_t word_n; /* bytes, after the room */
	size_t chars;  /* of the word; past max_chars only counted */
};

static void put_id(struct encoder *e, uint32_t id)
{
	if (e->n < e->max) e->ids[e->n++] = id;
	else e->full = true;
}

/* Longest piece of the vocabulary at word[at..): its id and length in bytes. For a
 * continuation the prefix is written over the bytes before `at` and put back by the caller. */
static uint32_t longest_piece(const struct vk_wordpiece *w, const char *p, size_t prefix_n,
			      size_t n, size_t *used)
{
	size_t try_n = n;
	if (prefix_n + try_n > w->piece_max)
		try_n = w->piece_max > prefix_n ? w->piece_max - prefix_n : 0;
	for (; try_n > 0; try_n--) {
		if (try_n < n && ((unsigned char)p[prefix_n + try_n] & 0xc0) == 0x80) continue;
		struct vk_bytes piece = {p, prefix_n + try_n};
		uint32_t id = vk_wordpiece_find(w, piece);
		if (id != NO_ID) {
			*used = try_n;
			return id;
		}
	}
	return NO_ID;
}

static void word_end(struct encoder *e)
{
	const struct vk_wordpiece *w = e->w;
	size_t n = e->word_n, at = 0, start = e->n;
	if (!e->chars) return;
	bool unknown = e->chars > w->opt.max_chars, was_full = e->full;
	char *word = e->word + PREFIX_BYTES_MAX;
	e->chars = e->word_n = 0;
	while (!unknown && at < n) {
		size_t prefix_n = at ? w->prefix_n : 0, used = 0;
		char saved[PREFIX_BYTES_MAX];
		memcpy(saved, word + at - prefix_n, prefix_n);
		memcpy(word + at - prefix_n, w->opt.continuing, prefix_n);
		uint32_t id = longest_piece(w, word + at - prefix_n, prefix_n, n - at, &used);
		memcpy(word + at - prefix_n, saved, prefix_n);
		unknown = id == NO_ID;
		if (!unknown) put_id(e, id);
		at += used;
	}
	if (!unknown) return;
	/* One unknown piece makes the whole word [UNK]. */
	e->n = start;
	e->full = was_full;
	put_id(e, w->unk);
}

static void word_put(struct encoder *e, uint32_t cp)
{
	if (e->chars++ < e->w->opt.max_chars)
		e->word_n += vk_utf8_put(e->word + PREFIX_BYTES_MAX + e->word_n, cp);
}

static void fold_put(struct encoder *e, uint32_t cp)
{
	if (vk_bert_is_punct(cp)) {
		word_end(e);
		word_put(e, cp);
		word_end(e);
	} else {
		word_put(e, cp);
	}
}

static void fold(struct encoder *e, uint32_t cp)
{
	const struct vk_wordpiece_options *o = &e->w->opt;
	if (o->strip_accents && vk_bert_is_accent(cp)) return;
	if (o->lower_case && cp == 0x130) { /* the one character whose lower case is two */
		fold_put(e, 'i');
		fold_put(e, 0x307);
		return;
	}
	fold_put(e, o->lower_case ? vk_u_lower(cp) : cp);
}

static void marks_end(struct encoder *e)
{
	for (size_t i = 1; i < e->mark_n; i++) { /* stable: equal classes keep their order */
		struct mark m = e->marks[i];
		size_t j = i;
		for (; j > 0 && e->marks[j - 1].order > m.order; j--) e->marks[j] = e->marks[j - 1];
		e->marks[j] = m;
	}
	size_t n = e->mark_n;
	e->mark_n = 0;
	for (size_t i = 0; i < n; i++) fold(e, e->marks[i].cp);
}

static void reorder(struct encoder *e, uint32_t cp)
{
	int order = vk_u_combining(cp);
	if (order == 0 || e->mark_n == MARKS_MAX) marks_end(e);
	if (order == 0) fold(e, cp);
	else e->marks[e->mark_n++] = (struct mark){cp, order};
}

static void decompose(struct encoder *e, uint32_t cp)
{
	uint32_t out[VK_U_DECOMPOSED_MAX] = {cp};
	size_t n = 1;
	if (!e->w->opt.strip_accents) {
		fold(e, cp);
		return;
	}
	/* U+11938 got its decomposition after the reference's Unicode version. */
	if (cp != 0x11938) n = vk_u_decompose(cp, out);
	for (size_t i = 0; i < n; i++) reorder(e, out[i]);
}

/* What ends a word: everything held so far goes out. */
static void flush(struct encoder *e)
{
	marks_end(e);
	word_end(e);
}

static void take_ascii(struct encoder *e, unsigned char c)
{
	if (c == ' ' || (c >= '\t' && c <= '\r')) {
		if (e->w->opt.clean_text && (c == '\v' || c == '\f')) return;
		flush(e);
		return;
	}
	if (e->w->opt.clean_text && (c < ' ' || c == 0x7f)) return;
	if (e->mark_n) marks_end(e);
	if (e->w->opt.lower_case && c >= 'A' && c <= 'Z') c += 'a' - 'A';
	bool letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
	if (letter) word_put(e, c);
	else fold_put(e, c);
}

static void take(struct encoder *e, uint32_t cp)
{
	const struct vk_wordpiece_options *o = &e->w->opt;
	if (o->clean_text && vk_bert_is_removed(cp)) return;
	bool cjk = o->cjk_spacing && vk_bert_is_cjk(cp);
	if (vk_bert_is_space(cp)) {
		flush(e);
		return;
	}
	if (cjk) flush(e);
	decompose(e, cp);
	if (cjk) flush(e);
}

/* The longest special token at p, or NULL. */
static const struct special *special_at(const struct vk_wordpiece *w, const char *p, size_t n)
{
	const struct special *best = NULL;
	if (!w->special_first[(unsigned char)*p]) return NULL;
	for (size_t i = 0; i < w->specials; i++) {
		struct vk_bytes t = w->special[i].text;
		if (t.n <= n && memcmp(t.p, p, t.n) == 0 && (!best || t.n > best->text.n))
			best = &w->special[i];
	}
	return best;
}

size_t vk_wordpiece_encode(const struct vk_wordpiece *w, struct vk_bytes text, uint32_t *ids,
			   size_t ids_max, bool *truncated)
{
	assert(ids_max >= 2);
	struct encoder e;
	e.w = w;
	e.ids = ids;
	e.n = 0;
	e.max = ids_max - 1; /* [SEP] has its place kept */
	e.full = false;
	e.mark_n = e.word_n = e.chars = 0;
	put_id(&e, w->cls);
	const char *p = text.p, *end = text.p + text.n;
	while (p < end && !e.full) {
		const struct special *s = special_at(w, p, (size_t)(end - p));
		if (s) {
			flush(&e);
			put_id(&e, s->id);
			p += s->text.n;
		} else if ((unsigned char)*p < 0x80) {
			take_ascii(&e, (unsigned char)*p++);
		} else {
			uint32_t cp;
			p = vk_utf8_next(p, end, &cp);
			take(&e, cp);
		}
	}
	if (!e.full) flush(&e);
	*truncated = e.full;
	ids[e.n++] = w->sep;
	return e.n;
}
