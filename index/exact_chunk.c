/*
 * From parts to chunks of rows that count. A part all of whose rows count comes as dense chunks (rows in order, no list is
 * made); any other as lists of slots, row numbers and pointers.
 */
#include "index/exact_run.h"
#include "store/record_vset.h"

#include <assert.h>

/* The wanted slots of a part as words, if there may be any; parts of fewer than 64 slots lie inside a word. */
static bool wanted(const struct vk_bitmap *in, const struct vk_part *p, uint64_t *words)
{
	size_t n = vk_rec_words(p->slots);
	uint32_t shift = p->first & 63;
	if (!vk_bitmap_words(in, p->first - shift, words, n)) return false;
	if (shift || p->slots < 64) words[0] = words[0] >> shift;
	if (p->slots < 64) words[0] &= ((uint64_t)1 << p->slots) - 1;
	return true;
}

/* Which rows of the part count; how many. */
static uint32_t live_rows(const struct vk_exact_source *src, const struct vk_part *p, uint64_t *live)
{
	size_t words = vk_rec_words(p->slots);
	uint32_t n = 0;
	if (src->in && !wanted(src->in, p, live)) return 0; /* before the block's page is touched */
	for (size_t i = 0; i < words; i++) {
		uint64_t w = src->in ? live[i] : ~(uint64_t)0;
		w &= p->present[i];
		if (p->dead) w &= ~p->dead[i];
		live[i] = w;
		n += (uint32_t)__builtin_popcountll(w);
	}
	return n;
}

static bool open_part(struct vk_chunker *w)
{
	while (w->part < w->part_end) {
		const struct vk_part *p = &w->src->parts->part[w->part++];
		uint32_t n = !p->dead && !w->src->in ? p->rows : live_rows(w->src, p, w->live);
		if (!n) continue;
		w->open = p;
		w->dense = n == p->rows;
		w->left = n;
		w->next = w->rank = 0;
		return true;
	}
	return false;
}

static void list_row(struct vk_chunk *c, const struct vk_part *p, uint32_t slot, uint32_t number)
{
	uint32_t i = c->n++;
	c->slot[i] = slot;
	c->number[i] = number;
	c->row[i] = p->row + (size_t)number * p->stride;
	c->inv_norm[i] = p->inv_norm[number];
}

static void list_rows(struct vk_chunker *w, struct vk_chunk *c)
{
	const struct vk_part *p = w->open;
	while (w->left && c->n < VK_CHUNK_ROWS) {
		uint32_t word = w->next / 64, bit = w->next % 64;
		uint64_t from = w->live[word] >> bit, present = p->present[word] >> bit;
		if (!from) { /* on to the next word */
			w->rank += (uint32_t)__builtin_popcountll(present);
			w->next = (word + 1) * 64;
			continue;
		}
		uint32_t skip = (uint32_t)__builtin_ctzll(from);
		w->rank += (uint32_t)__builtin_popcountll(present & (((uint64_t)1 << skip) - 1));
		list_row(c, p, p->first + w->next + skip, w->rank++);
		w->next += skip + 1;
		w->left--;
	}
}

static bool next_of_parts(struct vk_chunker *w, struct vk_chunk *c)
{
	if (!w->left && !open_part(w)) return false;
	c->part = w->open;
	c->n = 0;
	c->dense = w->dense;
	if (!w->dense) {
		list_rows(w, c);
		return true;
	}
	c->at = w->next;
	c->n = w->left < VK_CHUNK_ROWS ? w->left : VK_CHUNK_ROWS;
	w->next += c->n;
	w->left -= c->n;
	return true;
}

static void list_tail(struct vk_chunk *c, const struct vk_tail_row *t)
{
	uint32_t i = c->n++;
	c->slot[i] = t->slot;
	c->number[i] = 0;
	c->row[i] = t->row;
	c->inv_norm[i] = t->inv_norm;
}

static bool next_of_tail(struct vk_chunker *w, struct vk_chunk *c)
{
	c->part = NULL;
	c->dense = false;
	c->n = 0;
	for (; w->tail < w->tail_end && c->n < VK_CHUNK_ROWS; w->tail++) {
		const struct vk_tail_row *t = &w->src->parts->tail[w->tail];
		if (!w->src->in || vk_bitmap_has(w->src->in, t->slot)) list_tail(c, t);
	}
	return c->n > 0;
}

/* Adds the row of a wanted slot, wherever it is. Slots come ascending, so both places are found by walking on. */
static void list_wanted(struct vk_chunker *w, struct vk_chunk *c, uint32_t slot)
{
	const struct vk_parts *ps = w->src->parts;
	while (w->few_tail < ps->tail_n && ps->tail[w->few_tail].slot < slot) w->few_tail++;
	if (w->few_tail < ps->tail_n && ps->tail[w->few_tail].slot == slot) {
		list_tail(c, &ps->tail[w->few_tail]);
		return;
	}
	while (w->few_part < ps->part_n && ps->part[w->few_part].first + (uint64_t)ps->part[w->few_part].slots <= slot)
		w->few_part++;
	const struct vk_part *p = w->few_part < ps->part_n ? &ps->part[w->few_part] : NULL;
	if (!p || slot < p->first) return;
	uint32_t at = slot - p->first, number = 0;
	uint64_t bit = (uint64_t)1 << (at % 64);
	if (!(p->present[at / 64] & bit) || (p->dead && p->dead[at / 64] & bit)) return;
	for (uint32_t i = 0; i < at / 64; i++) number += (uint32_t)__builtin_popcountll(p->present[i]);
	number += (uint32_t)__builtin_popcountll(p->present[at / 64] & (bit - 1));
	list_row(c, p, slot, number);
}

void vk_chunker_find(struct vk_chunker *w, const uint32_t *slot, size_t n, struct vk_chunk *c)
{
	assert(n <= VK_CHUNK_ROWS);
	c->part = NULL;
	c->dense = false;
	c->n = 0;
	for (size_t i = 0; i < n; i++) list_wanted(w, c, slot[i]);
}

static bool next_of_wanted(struct vk_chunker *w, struct vk_chunk *c)
{
	c->n = 0;
	while (!c->n && w->from <= UINT32_MAX) {
		size_t n = vk_bitmap_take(w->src->in, (uint32_t)w->from, w->want, VK_CHUNK_ROWS);
		vk_chunker_find(w, w->want, n, c);
		w->from = n < VK_CHUNK_ROWS ? (uint64_t)UINT32_MAX + 1 : (uint64_t)w->want[n - 1] + 1;
	}
	return c->n > 0;
}

bool vk_chunker_next(struct vk_chunker *w, struct vk_chunk *c)
{
	if (w->few) return next_of_wanted(w, c);
	return next_of_parts(w, c) || next_of_tail(w, c);
}

const struct vk_part *vk_chunker_coming(const struct vk_chunker *w)
{
	return w->part < w->sure_end ? &w->src->parts->part[w->part] : NULL;
}

const struct vk_part *vk_chunker_behind(const struct vk_chunker *w, const struct vk_chunk *c, uint32_t *number)
{
	bool more = c->at + c->n < c->part->rows;
	*number = more ? c->at + c->n : 0;
	return more ? c->part : vk_chunker_coming(w);
}

/* The offset of the n-th set bit. */
static uint32_t nth_present(const struct vk_part *p, uint32_t n)
{
	size_t i = 0;
	for (;; i++) {
		uint32_t here = (uint32_t)__builtin_popcountll(p->present[i]);
		if (n < here) break;
		n -= here;
	}
	uint64_t w = p->present[i];
	while (n--) w &= w - 1;
	return (uint32_t)(i * 64) + (uint32_t)__builtin_ctzll(w);
}

uint32_t vk_part_slot(const struct vk_part *p, uint32_t number)
{
	return p->first + (p->rows == p->slots ? number : nth_present(p, number));
}

uint32_t vk_chunk_slot(const struct vk_chunk *c, uint32_t i)
{
	assert(i < c->n);
	return c->dense ? vk_part_slot(c->part, c->at + i) : c->slot[i];
}
