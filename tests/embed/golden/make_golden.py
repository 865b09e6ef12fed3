#!/usr/bin/env python3
"""Writes tests/embed/golden/minilm.jsonl: 200 texts with the reference implementation's own
token ids and vectors. tests/embed/test_encoder.c holds ours against them.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install sentence-transformers==6.2.0 \
        transformers==5.23.0 tokenizers==0.23.3 torch==2.15.0 numpy==2.4.6
    script/fetch-model && /tmp/golden/bin/python tests/embed/golden/make_golden.py

A line: {"text" (base64 of its UTF-8: some hold a NUL, which our JSON reader refuses), "ids" (with [CLS] and [SEP], cut at the model's limit), "truncated", "vector"
(base64 of little-endian f32)}. Each text is encoded alone, so no padding touches it.
"""
import base64
import json
import os
import random
import sys

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

root = os.path.dirname(os.path.abspath(__file__)) + "/../../.."
model_dir = sys.argv[1] if len(sys.argv) > 1 else root + "/models/all-MiniLM-L6-v2"

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.", "How do I reset my password?",
    "Our refund policy lasts thirty days.", "Hello, world!", "hello world", "HELLO WORLD",
    "Café crème, naïve façade, déjà vu, Ångström, São Tomé, Žižek, Łódź, piñata.",
    "Die Größe der Straße überraschte Jürgen: Fußgänger müssen außen gehen.",
    "STRASSE und STRAẞE, groß und GROẞ.", "Ünïcödé wïth dïäërësïs",
    "İstanbul'da ILIK bir gün; ısı, IŞIK, iğne.", "Ελληνικά: Ο Ὀδυσσεὺς ΣΊΣΥΦΟΣ ἀνήρ, ὁδός.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Ёлка Йод.",
    "Українська мова: їжак, ґудзик, Єва.", "مرحبا بالعالم، كيف حالك؟ قُرْآن كَرِيم",
    "שָׁלוֹם עוֹלָם, מה שלומך היום?", "नमस्ते दुनिया, आप कैसे हैं? क़ानून",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง", "你好，世界！今天天气很好。", "自然語言處理是人工智慧的一個分支。",
    "日本語の文章です。カタカナ、ひらがな、漢字が混ざっています。", "ﾊﾝｶｸ ｶﾀｶﾅ ﾃﾞｽ", "한국어 문장입니다. 각각 갂 힣",
    "བོད་སྐད། ཨོཾ་མ་ཎི་པདྨེ་ཧཱུྃ།", "ქართული ენა Ⴀ Ა", "Հայերեն լեզու և Եվա", "አማርኛ ቋንቋ ነው።",
    "ខ្មែរ ភាសា", "မြန်မာဘာသာ", "தமிழ் மொழி", "తెలుగు భాష", "ಕನ್ನಡ", "മലയാളം ഭാഷ", "বাংলা ভাষা ড় ঢ়", "ਗੁਰਮੁਖੀ",
    "ગુજરાતી", "ଓଡ଼ିଆ", "සිංහල", "ລາວ", "Монгол ᠮᠣᠩᠭᠣᠯ", "ᏣᎳᎩ ꭰꭱ", "𐌰𐌱𐌲 𐐀𐐨 Deseret", "ꞏ Ɐ ɐ Ɪ",
    "Tiếng Việt: Nguyễn, Đường, ượng, ỗ, ậ.", "Čeština: příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Íslenska: Þór, Ðað, æði.", "Română: ţară, țară, şi, și, î â ă.", "Magyar: árvíztűrő tükörfúrógép",
]
ODD = [
    "", " ", "\t\n\r ", "a", "Z", "0", ".", "!", "[", "é", "中", "あ", "한", "😀", "\u0301", "\u200b", "\ufeff", "\ufffd",
    "\x00", "\x07", "\x7f", "\x85", "\xa0", "\xad", "\u2028", "\u3000",
    "...", "!!!???", "---===+++", "()[]{}<>", "$€£¥₿ ^`|~ @#%&*", "“quoted” ‘text’ «guillemets» — dash – en ‐ hyphen …",
    "a\x00b\x01c\x02d", "tab\tnew\nline\rcarriage\vvertical\ffeed", "zero\u200bwidth\u200cnon\u200djoiner\u2060word\ufeffbom",
    "soft\xadhyphen", "non\xa0breaking\u202fspace\u2009thin\u3000wide", "bidi \u202eabc\u202c \u2066x\u2069 \u200f\u200e",
    "private \ue000\uf8ff use \U000f0000\U0010fffd", "unassigned \u0378 \u0380 \U0003fffe \U000e0fff \u2fff",
    "noncharacter \ufdd0 \ufffe \uffff \U0001ffff", "replacement \ufffd char a\ufffdb", "tags \U000e0001\U000e0041\U000e007f flag",
    "cafe\u0301 vs café", "e\u0301\u0327\u0323 order e\u0323\u0327\u0301", "z\u0335\u0321\u031b\u0353a\u0300\u0301\u0302\u0303\u0304l\u0337g\u0334o\u0338 zalgo",
    "\u0301leading mark", "a" + "\u0301" * 80 + "b many marks", "x\u034f\u0301\u0327y grapheme joiner", "\u302e\u302f 가\u302e tone marks 가\u302f\u0301",
    "fullwidth ＡＢＣ１２３！？（）", "ligatures ﬁ ﬂ ﬀ ﬃ ﬄ ﬅ ŒœÆæĲĳ", "superscript x² y³ H₂O ½ ¼ Ⅷ ⅷ ① ⓐ", "ﷺ ﷽ ㌔ ㎞ ㍿",
    "math 𝐀𝑩𝒞 𝔄 𝕏 ∑∫√≠≤ ∀x∈ℝ ℵ K Å Ω", "Greek ; semicolon ` and ` ΄ ΅", "Roman numerals ⅠⅡⅢ ⅰⅱⅲ", "arrows → ⇒ ↔ ☃ ★ ♥ ✓ ✗ ▲ █ ░",
    "emoji 😀😃😄 🎉🚀 ❤️ ☕️ 🥺 🫠 🪿", "family 👨‍👩‍👧‍👦 couple 👩‍❤️‍💋‍👨", "skin 👍🏻👍🏼👍🏽👍🏾👍🏿", "flags 🇩🇪🇺🇸🇯🇵 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏳️‍🌈", "keycap 1️⃣ #️⃣ *️⃣",
    "CJK mixed 中a文b字c with English各word", "compat 豈更車賈滑 丽丸乁 ｟｠", "ext 㐀㐁 𠀀𠀁 𪜀 𫝀 𫠠 𬺰 𰀀 々〆〇 ㄅㄆ ㆀ", "kana ゔヴ が が ば ぱ ー", "ゝゞヽヾ〱〲 「」『』【】・、。",
    "jamo ᄀ ᅡ ᆨ 가 각 ㄱㅏ", "arabic forms ﺍﺏ ﻻ ؀؁ ۝ ٪ ٠١٢", "hebrew forms שּׁ אַ יִ ײַ ־ ׀ ׃", "devanagari digits ०१२ ॐ ।॥",
    "[CLS] [SEP] [PAD] [MASK] [UNK]", "a[SEP]b[MASK]c", "[sep] [Sep] [ SEP ] [SEP", "[unused0] [unused1] ##ing ##s ## #", "[CLS][CLS]", "[SEP]\u0301 x",
    "newer letters \ua7cb \u1c89 \u0870 \U00010570 \U0001e4d0", "newer punctuation \u2e52 \u2e5d \u061d \U00011f43", "newer marks a\u1ac1 b\U0001e08f c\u0898",
    "old punctuation \u166d \U000111c9 §¶©®™ °±×÷", "\U00011938 \U00011935\U00011930 Dives Akuru", "᠎ Mongolian vowel separator a\u180eb",
]
CODE = [
    "def f(x: int) -> str:\n\treturn f\"{x!r}\" if x else None  # comment", "for (size_t i = 0; i < n; i++) sum += a[i] * b[i];",
    "SELECT id, name FROM users WHERE age >= 21 AND email LIKE '%@example.com' ORDER BY 1;", "<div class=\"a-b\" id='x_y'>&nbsp;&amp;</div>",
    "{\"key\": [1, 2.5, -3e10, null, true], \"nested\": {\"a\": \"\\u00e9\"}}", "https://user:pw@example.com:8080/path/to?query=1&x=%20#frag",
    "C:\\Users\\name\\file.txt and /usr/local/bin/foo-bar_baz.sh", "first.last+tag@sub.domain.example", "192.168.0.1 fe80::1%eth0 00:1a:2b:3c",
    "1234567890 3.14159 1,000,000.00 -42 0x1F 1e-12 12:34:56 2024-02-29T23:59:60Z", "550e8400-e29b-41d4-a716-446655440000",
    "camelCaseIdentifier snake_case_identifier SCREAMING_CASE kebab-case", "# Heading\n\n* item **bold** _it_ `code`\n\n| a | b |\n|---|---|", "\\frac{a}{b} \\sum_{i=0}^{n} x_i^2 = \\alpha",
    "it's don't won't I'm they're rock'n'roll o’clock", "Dr. Smith vs. Mrs. O'Neill, Ph.D., e.g. U.S.A. i.e. etc.", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "lol lol lol lol lol lol lol lol", "aGVsbG8gd29ybGQ= YWJjZA==",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", "pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism", "llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
]
LONG = [
    "x" * 99, "x" * 100, "x" * 101, "é" * 100, "é" * 101, "a\u0301" * 100, "ab" * 500, "中" * 100, "中" * 254, "中" * 255, "word " * 253, "word " * 254, "word " * 255, "word " * 254 + "\u0378" , "word " * 254 + " \n", "word " * 253 + "antidisestablishmentarianism",
    "word " * 252 + "qqxxqqxx\u0378\u0379", "word " * 253 + "hello\u4e00\u0378", "word " * 400, "." * 300, "tail " * 2000, "no-space-" * 300, "😀" * 300, "\u0301" * 5000, " " * 5000 + "end", "a" * 5000 + " b",
]


def texts():
    out = SENTENCES + ODD + CODE + LONG
    rng = random.Random(20240229)
    words = [w for s in SENTENCES + CODE for w in s.split()]
    while len(out) < 195:  # mixtures of scripts, of growing length
        out.append(" ".join(rng.choice(words) for _ in range(rng.randint(1, 5 + len(out) % 90))))
    scalars = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for size in (20, 100, 300, 800, 3000):  # anything at all, half of it from the lower planes
        out.append("".join(chr(rng.choice(scalars) if rng.random() < 0.5 else rng.randrange(0x3000)) for _ in range(size)))
    return out


def main():
    torch.set_num_threads(2)
    model = SentenceTransformer(model_dir, device="cpu")
    limit = model.max_seq_length
    with open(root + "/tests/embed/golden/minilm.jsonl", "w") as f:
        for text in texts():
            full = model.tokenizer(text, truncation=False, padding=False)["input_ids"]
            ids = model.tokenizer(text, truncation=True, max_length=limit, padding=False)["input_ids"]
            row = model.encode([text], prompt="", normalize_embeddings=False, batch_size=1)[0].astype("<f4")
            assert np.isfinite(row).all() and len(ids) == min(len(full), limit)
            line = {"text": base64.b64encode(text.encode()).decode(), "ids": ids, "truncated": len(full) > limit,
                    "vector": base64.b64encode(row.tobytes()).decode()}
            f.write(json.dumps(line, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
