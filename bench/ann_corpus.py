"""The passages that bench/ann embeds: paragraphs of Debian's documentation packages and entries of two dictionaries.

Packages are downloaded, never installed, into .cache/corpus, and nothing of them is kept in the repository. Each source gives
at most its share, chosen by the hash of the text, so that the same packages give the same file on any machine; the file's own
hash stands in the set's meta.json, because Debian's packages drift.
"""
import gzip
import hashlib
import html.parser
import pathlib
import re
import subprocess

# package, where its texts lie, passages at most
SOURCES = (("linux-doc-6.1", "usr/share/doc/linux-doc-6.1/html/**/*.html", 50000),
           ("python3.11-doc", "usr/share/doc/python3.11/html/**/*.html", 40000),
           ("postgresql-doc-15", "usr/share/doc/postgresql-doc-15/html/*.html", 30000),
           ("cppreference-doc-en-html", "usr/share/cppreference/doc/html/en/**/*.html", 15000),
           ("git-doc", "usr/share/doc/git-doc/**/*.html", 15000),
           ("debian-handbook", "usr/share/doc/debian-handbook/html/en-US/*.html", 5000),
           ("debian-faq", "usr/share/doc/debian/FAQ/*.en.html", 2000),
           ("dict-foldoc", "usr/share/dictd/foldoc.dict.dz", 25000),
           ("dict-jargon", "usr/share/dictd/jargon.dict.dz", 4000),
           ("dict-gcide", "usr/share/dictd/gcide.dict.dz", 40000))
CHARS = (60, 1200)  # shorter ones are scraps; longer ones are cut at a space (the encoder reads 256 tokens)


class Paragraphs(html.parser.HTMLParser):
    """The text of p, dd and li that hold no block of their own; code blocks are left out."""

    def __init__(self):
        super().__init__()
        self.out, self.text, self.inside, self.skip = [], [], None, 0

    def handle_starttag(self, tag, attrs):
        if tag in ("p", "dd", "li"):
            self.inside, self.text = tag, []
        self.skip += tag in ("script", "style", "pre")

    def handle_endtag(self, tag):
        self.skip = max(0, self.skip - (tag in ("script", "style", "pre")))
        if tag == self.inside:
            self.out.append("".join(self.text))
            self.inside = None

    def handle_data(self, data):
        if self.inside and not self.skip:
            self.text.append(data)


def package(cache, name):
    tree = cache / name
    if not tree.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", name], cwd=cache, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        subprocess.run(["dpkg-deb", "-x", next(cache.glob(name + "_*.deb")), tree.with_suffix(".part")], check=True)
        tree.with_suffix(".part").rename(tree)
    return tree


def entries(path):
    """A dictionary in dictd's format: entries begin in the first column, their text is indented."""
    text = gzip.decompress(path.read_bytes()).decode(errors="replace")
    return re.split(r"\n(?=\S)", re.sub(r"\[1913 Webster\]|\[PJC\]|[{}]", "", text))


def tidy(text):
    text = re.sub(r"\s+", " ", text).replace("¶", "").strip()
    if len(text) > CHARS[1]:
        text = text[:CHARS[1]].rsplit(" ", 1)[0]
    return text


def order(text):
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def passages(cache):
    """Distinct passages of all sources in one order that depends on nothing but their texts."""
    seen = set()
    for name, where, most in SOURCES:
        got = set()
        for path in sorted(package(cache, name).glob(where)):
            if path.suffix == ".dz":
                got.update(map(tidy, entries(path)))
            else:
                parser = Paragraphs()
                parser.feed(path.read_text(errors="replace"))
                got.update(map(tidy, parser.out))
        good = [t for t in got - seen if len(t) >= CHARS[0] and sum(c.isalpha() or c == " " for c in t) > 0.7 * len(t)]
        kept = sorted(good, key=order)[:most]
        print(f"  {name}: {len(kept)} of {len(good)} passages, {sum(map(len, kept)) / max(1, len(kept)):.0f} characters", flush=True)
        seen.update(kept)
    return sorted(seen, key=order)


def write(cache, out, most):
    """One passage a line."""
    texts = passages(pathlib.Path(cache))[:most]
    part = pathlib.Path(str(out) + ".part")
    part.write_text("".join(t + "\n" for t in texts))
    part.rename(out)
    return len(texts)
