"""The seeded fuzzer. Goal: whatever mask of hits and misses, duplicates, encoding, role, dims, input form
and concurrency, every slot of every 200 is f(its text), and each (space, role, text) is bought once.
Method: threads with generators of their own ask over a small universe of texts that differ by little; then
the same while the provider misbehaves in every way that can be told from outside, one at a time (two at once
can cancel each other out). VECKEEP_SEED replays the questions; VECKEEP_FUZZ_S sets the budget."""
import hashlib
import os
import random
import threading
import time

import pytest

import procs
from seeds import SEED
from vectors import close, cut, f, same_bits

BUDGET_S = float(os.environ.get("VECKEEP_FUZZ_S", "60"))
THREADS = 6
NATIVE = {"plain": 8, "roles": 8, "mrl": 32, "tok": 8}

BASE = ["US", "us", " us", "us ", "us\n", "a b", "a  b", "a\tb", "a\nb", "é", "e\u0301", "ﬁ", "fi", "[1, 2]", "1",
        "1 ", "日本語", "日本", "😀", "👩‍🚀", "null", "{}", '"', "\\", "x" * 700, "x" * 701, "\u200b", "\ufeffbom",
        "   ", "query: us", "document", "straße", "STRASSE", "0", "0.0", "-", "A", "а", "ա", "\u0085"]


def universe(tag):
    """The base texts; a tag makes them new to the cache without losing what sets them apart."""
    return [t + tag for t in BASE] if tag else list(BASE)


@pytest.fixture
def rig(make_fake, serve):
    fake = make_fake("--strict", "--role-field", "input_type", "--dims-per-model",
                     ",".join(f"{k}={v}" for k, v in NATIVE.items()), "--delay-ms", 2)
    config = procs.config(
        providers={"fake": procs.provider(fake, role_field="input_type", timeout=1, connect_timeout=0.5,
                                          caps={"items": 5, "concurrency": 8})},
        spaces={
            "fuzz/plain@1": procs.space(("fake", "plain")),
            "fuzz/roles@1": procs.space(("fake", "roles"), roles=procs.ROLES),
            "fuzz/mrl@1": procs.space(("fake", "mrl"), dims=32, matryoshka=True),
            "fuzz/tok@1": procs.space(("fake", "tok"), tokenizer="cl100k"),
        },
        models={name: f"fuzz/{name}@1" for name in NATIVE})
    return fake, serve(config)


def encoder():
    tiktoken = pytest.importorskip("tiktoken")
    return tiktoken.get_encoding("cl100k_base")


class Asker(threading.Thread):
    """One client: asks `count` questions, or until `stop` is set, and checks each answer."""

    def __init__(self, server, seed, texts, tokens, count=None, stop=None):
        super().__init__(daemon=True)
        self.server, self.rng, self.texts, self.tokens = server, random.Random(seed), texts, tokens
        self.count, self.stop = count, stop
        self.client = server.client(timeout=30)
        self.asked, self.good, self.refused, self.problems = set(), 0, {}, []

    def question(self):
        rng = self.rng
        space = rng.choice(list(NATIVE))
        n = rng.choice([1, 1, 2, 3, 5, 8, 13])
        texts = [rng.choice(self.texts) for _ in range(n)]
        role, body = "none", {"model": space}
        if space == "roles":
            role = rng.choice(["none", "query", "document"])
            if role != "none" and rng.random() < 0.3:
                body["model"] = f"roles#{role}"
            elif role != "none":
                body["input_type"] = role
        dims = NATIVE[space]
        if space == "mrl" and rng.random() < 0.7:
            body["dimensions"] = dims = rng.choice([1, 2, 7, 8, 31, 32])
        form = texts
        if space == "tok" and rng.random() < 0.6:
            form = [self.tokens[t] for t in texts]
        body["input"] = form[0] if n == 1 and rng.random() < 0.5 else form
        encoding = rng.choice(["float", "base64", None, "octet"])
        headers = {}
        if encoding == "octet":
            headers["Accept"] = "application/octet-stream"
        elif encoding:
            body["encoding_format"] = encoding
        if rng.random() < 0.3:
            body["user"] = f"user-{rng.randrange(5)}"
        return space, role, dims, texts, body, headers, encoding

    def right(self, space, role, dims, text, row):
        native = f(space, role, NATIVE[space], text)
        if dims == NATIVE[space]:
            return same_bits(row, native)
        return close(row, cut(native, dims))

    def once(self):
        space, role, dims, texts, body, headers, encoding = self.question()
        got = self.client.post("/v1/embeddings", body, self.server.headers(headers))
        if got.status != 200:
            self.refused[got.status] = self.refused.get(got.status, 0) + 1
            return got
        self.asked.update((space, role, t) for t in texts)
        rows = got.rows_raw(dims) if encoding == "octet" else got.rows()
        if len(rows) != len(texts):
            self.problems.append((body, f"{len(rows)} rows"))
        for i, (text, row) in enumerate(zip(texts, rows)):
            if not self.right(space, role, dims, text, row):
                self.problems.append((body, headers, i, text, row[:4].tolist(), got.headers))
        if encoding != "octet" and [d["index"] for d in got.json()["data"]] != list(range(len(texts))):
            self.problems.append((body, "indices"))
        self.good += 1
        return got

    def run(self):
        try:
            while (self.count is None or self.count > 0) and not (self.stop and self.stop.is_set()):
                got = self.once()
                if self.count is not None:
                    self.count -= 1
                if got.status != 200:
                    if self.stop is None:
                        self.problems.append(("refused without a fault", got))
                    time.sleep(0.02)
        except Exception as e:  # a thread's exception must fail the test
            self.problems.append(repr(e))
        finally:
            self.client.close()


def run_all(askers):
    for a in askers:
        a.start()
    for a in askers:
        a.join(BUDGET_S * 2 + 60)
    assert not any(a.is_alive() for a in askers), "an asker hangs"
    problems = [p for a in askers for p in a.problems]
    assert not problems, f"{len(problems)} problems, the first: {problems[:3]}"


def test_every_answer_is_right_and_every_text_is_bought_once(rig):
    fake, server = rig
    texts = universe("")
    encode = encoder().encode
    tokens = {t: encode(t) for t in texts}
    askers = [Asker(server, SEED + i, texts, tokens, count=int(BUDGET_S * 4)) for i in range(THREADS)]
    run_all(askers)
    asked = set().union(*(a.asked for a in askers))
    bought = fake.counts()
    twice = {k: n for k, n in bought.items() if n != 1}
    assert not twice, f"bought more than once: {twice}"
    strangers = {k for k in bought} - {(s, r, name_of(t)) for s, r, t in asked}
    assert not strangers, f"bought though nobody asked: {strangers}"
    assert fake.stats()["inputs"] == len(asked), "the upstream count is not the minimum"
    # the same questions again, then all that is known after a restart: from the cache alone
    again = [Asker(server, SEED + i, texts, tokens, count=int(BUDGET_S)) for i in range(THREADS)]
    run_all(again)
    assert fake.stats()["inputs"] == len(asked), "a text was bought again"
    server.restart()
    for space in NATIVE:
        known = sorted(t for s, r, t in asked if s == space and r == "none")
        got = server.embed_cached(known, space)
        assert got.status == 200, got
        assert all(same_bits(a, f(space, "none", NATIVE[space], t)) for a, t in zip(got.rows(), known))


def name_of(text):
    """As the fake names an input in its counts."""
    raw = text.encode()
    return text if len(raw) <= 256 else "sha256:" + hashlib.sha256(raw).hexdigest()


FAULTS = [
    ("shuffle", {}), ("drop", {}), ("duplicate", {}), ("wrong_count", {}), ("no_index", {}), ("bad_index", {}),
    ("bad_index", {"value": -1}), ("nan", {}), ("inf", {}), ("zero", {}), ("null_embedding", {}),
    ("wrong_dims", {}), ("wrong_dims", {"value": -1}), ("mixed_dims", {}), ("base64_ignored", {}), ("html200", {}),
    ("error200", {}), ("status", {"status": 429, "headers": {"retry-after-ms": "20"}}), ("status", {"status": 500}),
    ("status", {"status": 503, "headers": {"retry-after": "0.05"}}), ("status", {"status": 400}),
    ("truncate_body", {}), ("truncate_body", {"clean": True}), ("rst", {}), ("hang", {"ms": 300}),
    ("close_idle", {}), ("slow_drip", {"bytes": 64, "ms": 2}), ("delay", {"ms": 80}), ("stall_headers", {}),
    ("poison", {"match": "us"}), ("redirect", {}),
]


def test_no_fault_of_the_provider_ever_becomes_a_wrong_vector(rig):
    fake, server = rig
    rng = random.Random(SEED)
    encode = encoder().encode
    stop = threading.Event()
    fired, good = {}, 0
    end = time.monotonic() + BUDGET_S / 2
    askers = []
    everything = []
    round_number = 0
    while time.monotonic() < end:
        # a new universe each round, or the cache would soon answer everything
        round_number += 1
        texts = universe(f"~{round_number}")
        everything += texts
        tokens = {t: encode(t) for t in texts}
        stop.clear()
        askers = [Asker(server, SEED + 100 * round_number + i, texts, tokens, stop=stop) for i in range(THREADS)]
        for a in askers:
            a.start()
        for _ in range(4):
            mode, more = rng.choice(FAULTS)
            fake.fault(mode, p=rng.choice([0.2, 0.5]), **more)
            time.sleep(0.15)
            for one in fake.stats()["faults"]:
                fired[one["mode"]] = fired.get(one["mode"], 0) + one["fired"]
            fake.clear()
        stop.set()
        for a in askers:
            a.join(60)
            assert not a.is_alive(), "an asker hangs"
            assert not a.problems, a.problems[:3]
            good += a.good
    print(f"good answers {good}, faults fired {fired}")
    assert sum(fired.values()) > 20, f"hardly any fault fired: {fired}"
    assert good > 100, f"hardly any answer came through: {good}"
    # what was kept meanwhile is right, and what was not is bought now that the provider is well again
    for space in ("plain", "mrl"):
        for at in range(0, len(everything), 40):
            part = everything[at:at + 40]
            got = procs.wait_for(lambda: (lambda a: a if a.status == 200 else None)(server.embed(part, space)), 60,
                                 "recovery after faults")
            assert all(same_bits(a, f(space, "none", NATIVE[space], t)) for a, t in zip(got.rows(), part))
