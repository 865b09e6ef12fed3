/* Where an encoding's pattern cuts text before bytes are merged: bpe.c's other half. */
#ifndef VK_EMBED_BPE_CUT_H
#define VK_EMBED_BPE_CUT_H

/* End of the first piece of the valid UTF-8 in [p, end), p < end. Every byte belongs to a
 * piece, so calling again from the end walks the text. */
const char *vk_bpe_cut_cl100k(const char *p, const char *end);

#endif
