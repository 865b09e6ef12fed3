/*
 * Byte-pair tokenizers by data file. Clients such as LangChain cut text into tokens
 * themselves and send numbers; with the model's own tokenizer data those numbers are the
 * text again, and then they share its cache key and can go to any provider (DESIGN section
 * 5). The same data counts tokens for the batch planner and for prices.
 *
 * Encoding is the published one, to the id: cut the text by the encoding's pattern, then
 * merge each piece's bytes pair by pair, lowest rank first, leftmost among equals. Special
 * tokens (<|endoftext|> ...) are plain text here and their ids are unknown ids: a stranger's
 * text never turns into control tokens.
 *
 * Ownership: a tokenizer is immutable, belongs to the process and is never freed; any thread
 * may use it. Calls keep nothing; texts of up to some hundred bytes need no memory.
 * Cost: linear for ordinary text, n log n for one long run without a place to cut.
 */
#ifndef VK_EMBED_BPE_H
#define VK_EMBED_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

/* Longest text that is encoded; beyond it encode says VK_E_TOO_LARGE. */
#define VK_BPE_TEXT_MAX ((size_t)16 << 20)

struct vk_bpe;

/* OpenAI's cl100k_base (text-embedding-3-*, ada-002), built from the data in the program on
 * first use (some milliseconds, 2 MB). NULL when memory is short; the next call tries again. */
const struct vk_bpe *vk_bpe_cl100k(void);

/* Ids run from 0 to this less one. */
uint32_t vk_bpe_ids(const struct vk_bpe *bpe);

/* Appends the bytes of ids[0..n) to `out`: any bytes, not always whole characters.
 * VK_E_INVALID: an id that the encoding does not have, `out` then is as before.
 * VK_E_TOO_LARGE or VK_E_NOMEM: `out` failed. */
enum vk_status vk_bpe_decode(const struct vk_bpe *bpe, const uint32_t *ids, size_t n,
			     struct vk_buf *out);

/* Writes the text's ids and their number. A text never has more ids than bytes, so
 * max = utf8.n always suffices. VK_E_INVALID: not UTF-8; VK_E_TOO_LARGE: more than `max`
 * ids, or a text over VK_BPE_TEXT_MAX; VK_E_NOMEM. On failure *n is 0. */
enum vk_status vk_bpe_encode(const struct vk_bpe *bpe, struct vk_bytes utf8, uint32_t *ids,
			     size_t max, size_t *n);

/* True when the ids decode to valid UTF-8 that encodes back to exactly these ids; `text`
 * (appended to) then holds it. False otherwise, and `text` is as before; but text->failed
 * says that the answer could not be found (its maximum or memory), which is no answer. */
bool vk_bpe_text_of(const struct vk_bpe *bpe, const uint32_t *ids, size_t n,
		    struct vk_buf *text);

/* Number of ids of a text. Where encode would fail it is utf8.n, which no text exceeds: a
 * planner that trusts it splits too early, never too late. */
size_t vk_bpe_count(const struct vk_bpe *bpe, struct vk_bytes utf8);

#endif
