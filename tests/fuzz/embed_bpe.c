/*
 * Goal: no text and no list of ids upsets the tokenizer, and the two directions agree.
 * Method: the first byte chooses how to read the rest, as a text or as u32 ids. A text that
 * is UTF-8 comes back from its ids; ids that claim a text are that text's encoding.
 */
#include <stdint.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "embed/bpe.h"

#define INPUT_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok) abort();
}

static void text_comes_back(const struct vk_bpe *bpe, struct vk_bytes text)
{
	uint32_t *ids = malloc((text.n + 1) * sizeof *ids);
	check(ids);
	size_t n;
	enum vk_status st = vk_bpe_encode(bpe, text, ids, text.n, &n);
	bool utf8 = vk_utf8_valid(text.p, text.n) == text.n;
	check(st == (utf8 ? VK_OK : VK_E_INVALID));
	check(vk_bpe_count(bpe, text) == (utf8 ? n : text.n));
	if (utf8) {
		struct vk_buf back;
		vk_buf_init(&back, text.n);
		check(vk_bpe_text_of(bpe, ids, n, &back));
		check(vk_bytes_eq(vk_buf_bytes(&back), text));
		vk_buf_free(&back);
	}
	free(ids);
}

static void ids_are_the_encoding_or_refused(const struct vk_bpe *bpe, const uint8_t *p, size_t n)
{
	uint32_t *ids = malloc((n + 1) * sizeof *ids), *again = malloc((n + 1) * sizeof *ids);
	check(ids && again);
	/* Every second id is drawn near the valid ones, else hardly any list would be. */
	for (size_t i = 0; i < n; i++) {
		ids[i] = vk_get_u32le(p + 4 * i);
		if (ids[i] & 0x80000000u) ids[i] &= 0x1ffff;
	}
	struct vk_buf text, bytes;
	vk_buf_init(&text, 1 << 24);
	vk_buf_init(&bytes, 1 << 24);
	bool is_text = vk_bpe_text_of(bpe, ids, n, &text);
	enum vk_status st = vk_bpe_decode(bpe, ids, n, &bytes);
	check(is_text || !text.failed);
	if (!st) {
		size_t m = 0;
		/* More ids than `n` means another spelling, and only a text has one at all. */
		enum vk_status enc = vk_bpe_encode(bpe, vk_buf_bytes(&bytes), again, n, &m);
		bool same = !enc && m == n && (n == 0 || memcmp(ids, again, n * sizeof *ids) == 0);
		check(same == is_text);
		check(!is_text || vk_bytes_eq(vk_buf_bytes(&text), vk_buf_bytes(&bytes)));
	} else {
		check(st == VK_E_INVALID && !is_text && bytes.n == 0);
	}
	vk_buf_free(&text);
	vk_buf_free(&bytes);
	free(ids);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct vk_bpe *bpe = vk_bpe_cl100k();
	if (!bpe || size < 1 || size > INPUT_MAX) return 0;
	if (data[0] & 1)
		ids_are_the_encoding_or_refused(bpe, data + 1, (size - 1) / 4);
	else
		text_comes_back(bpe, (struct vk_bytes){(const char *)data + 1, size - 1});
	return 0;
}
