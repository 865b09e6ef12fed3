/*
 * Any text through the tokenizer: ids stay inside the vocabulary and the limit, [CLS] and
 * [SEP] frame them, and a smaller limit gives a prefix of the same ids and says that it cut.
 * The first byte chooses the options. Seeds: tests/fuzz/corpus/embed_wordpiece.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "embed/encoder/wordpiece.h"

#define IDS_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vk_wordpiece *build(unsigned flags)
{
	static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\nab\nabc\n##a\n##b\n##bc\n.\n-\n"
				    "\xc3\xa9\ne\n##e\n\xe4\xb8\xad\n\xe1\x84\x80\n##\xe1\x85\xa1\n";
	struct vk_error err;
	struct vk_wordpiece_options o = VK_WORDPIECE_DEFAULTS;
	o.clean_text = !(flags & 1);
	o.cjk_spacing = !(flags & 2);
	o.strip_accents = !(flags & 4);
	o.lower_case = !(flags & 8);
	struct vk_wordpiece *w = vk_wordpiece_new(&o);
	if (!w || vk_wordpiece_add_lines(w, VK_LIT(vocab), &err) ||
	    vk_wordpiece_add_special(w, VK_LIT("[SEP]"), 3, &err) || vk_wordpiece_seal(w, &err))
		abort();
	return w;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vk_wordpiece *made[16]; /* kept for the process: building costs more than a run */
	uint32_t ids[IDS_MAX], cut[8];
	bool truncated, cut_truncated;
	if (!size) return 0;
	unsigned flags = data[0] & 15;
	struct vk_bytes text = {(const char *)data + 1, size - 1};
	if (vk_utf8_valid(text.p, text.n) != text.n) return 0;
	if (!made[flags]) made[flags] = build(flags);
	const struct vk_wordpiece *w = made[flags];
	size_t n = vk_wordpiece_encode(w, text, ids, IDS_MAX, &truncated);
	if (n < 2 || n > IDS_MAX || ids[0] != 2 || ids[n - 1] != 3) abort();
	for (size_t i = 0; i < n; i++)
		if (ids[i] >= vk_wordpiece_ids(w)) abort();
	size_t m = vk_wordpiece_encode(w, text, cut, 8, &cut_truncated);
	if (n <= 8 ? m != n || cut_truncated : m > 8 || !cut_truncated) abort();
	/* A word that is cut before its unknown end shows its pieces: only whole words must agree. */
	if (n <= 8 && memcmp(ids, cut, n * sizeof ids[0]) != 0) abort();
	return 0;
}
