#!/usr/bin/env python3
"""Writes embed/encoder/bert_chars.c: the code point classes of BERT's text normalisation.

They are observed, not copied: every code point goes through the reference tokenizer's own
normaliser and pre-tokenizer, and what it does to it is written down. (The reference carries
the categories of an old Unicode version; the system's newer tables would give other token
ids for some 800 code points, and other ones again on the next distribution.)

    pip install tokenizers==0.23.3
    python3 tests/embed/golden/make_bert_chars.py > embed/encoder/bert_chars.c
"""
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer


def normaliser(**on):
    flags = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return BertNormalizer(**{**flags, **on})


def ranges(points):
    out = []
    for c in points:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


clean, accents, cjk = normaliser(clean_text=True), normaliser(strip_accents=True), normaliser(handle_chinese_chars=True)
split = BertPreTokenizer()
scalars = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
tables = {
    "removed": ("dropped by \"clean text\": controls, formats, private use, U+FFFD",
                [c for c in scalars if clean.normalize_str("a" + chr(c) + "b") == "ab"]),
    "space": ("white space: ends a word",
              [c for c in scalars if len(split.pre_tokenize_str("a" + chr(c) + "b")) == 2]),
    "cjk": ("ideographs: each is a word of its own",
            [c for c in scalars if cjk.normalize_str(chr(c)) != chr(c)]),
    "accent": ("marks that accent stripping drops after NFD",
               [c for c in scalars if accents.normalize_str(chr(c)) == ""]),
    "punct": ("punctuation: each is a word of its own",
              [c for c in scalars if len(split.pre_tokenize_str("a" + chr(c) + "b")) == 3]),
}
print("""/*
 * The code point classes of BERT's text normalisation, as the reference has them.
 * Written by tests/embed/golden/make_bert_chars.py; do not edit.
 */
#include "embed/encoder/bert_chars.h"

#include <stddef.h>

struct range {
	uint32_t first, last;
};

static bool within(const struct range *r, size_t n, uint32_t cp)
{
	size_t lo = 0, hi = n; /* the first range that ends at cp or later */
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (cp > r[mid].last) lo = mid + 1;
		else hi = mid;
	}
	return lo < n && cp >= r[lo].first;
}
""", end="")
for name, (what, points) in tables.items():
    rs = ranges(points)
    print(f"\n/* {what} */\nstatic const struct range {name}[] = {{")
    line = "\t"
    for a, b in rs:
        item = f"{{{a:#x}, {b:#x}}}, "
        if len(line) + len(item) > 90:
            print(line.rstrip())
            line = "\t"
        line += item
    print(line.rstrip() + "\n};")
    print(f"\nbool vk_bert_is_{name}(uint32_t cp)\n{{\n\treturn within({name}, sizeof {name} / sizeof {name}[0], cp);\n}}")
