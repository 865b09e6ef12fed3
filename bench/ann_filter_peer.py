#!/usr/bin/env python3
"""FAISS's HNSW behind the filters of bench_ann_filter, for `bench/ann filter`: the peer that filters while it walks.

    ann_filter_peer.py SET_DIR INDEX CONFIG KEPT SECONDS      CONFIG is JSON; KEPT is bench_ann_filter's keep=DIR

Reads bench_ann_filter's JSON lines and answers each with one: at the least ef of the ladder whose recall is within SLACK of ours
under the same filter, else at the least one of its best recall. The answers are judged by their scores against the last exact one's
(ann_data), as ours are. One pinned thread; queries in a loop of single calls, and all of them in one call: the faster counts.

FAISS asks the selector only of what it would return, and walks through everything: its beam counts rows that are not allowed,
so few come back behind a narrow filter, and a wider beam is all it can do. IDSelectorBitmap is its cheapest selector by row: row i is
bit i % 8 of byte i / 8, which is what u64 words in little endian are.

hnswlib is left out: its Python takes no filter but a callable that asks the interpreter about each row, which would measure Python.
USearch, SVS, VSAG and SymphonyQG have no filter in theirs.
"""
import json
import os
import pathlib
import sys
import time

import numpy as np

import ann_data
import ann_peers
from ann_peers import K, say

LADDER = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
SLACK = 0.005
NONE = 0xffffffff


class Filter:
    """What bench_ann_filter kept of one: the rows allowed, and how far a query's last exact answer is."""

    def __init__(self, kept, ours, base, queries, metric):
        name = f"{kept}/{ours['filter']}-{ours['share']:g}"
        self.base, self.queries, self.metric = base, queries, metric
        truth = np.fromfile(name + ".truth", "<u4").reshape(len(queries), K).astype(np.int64)
        self.there = (truth != NONE).sum(1)  # all queries have as many
        self.limit = np.full((len(queries), 1), -np.inf)
        if self.there[0]:
            last = truth[:, self.there[0] - 1:self.there[0]]
            far = self.far(last)
            self.limit = far + (ann_data.ROUNDING if metric == "cosine" else ann_data.ROUNDING * far)
        self.bits = None if ours["filter"] == "none" else np.fromfile(name + ".bits", np.uint8)

    def far(self, ids):
        return ann_data.distances(self.metric, self.base[ids].astype(np.float64), self.queries.astype(np.float64))

    def allowed(self, ids):
        return (self.bits[ids // 8] >> (ids % 8) & 1).astype(bool) if self.bits is not None else np.ones(ids.shape, bool)

    def recall(self, found):
        ids = np.maximum(found, 0)
        if not self.allowed(ids[found >= 0]).all():
            raise RuntimeError("a row that is not allowed was found")
        good = (self.far(ids) <= self.limit) & (found >= 0)
        right = sum(min(len(set(one[ok].tolist())), n) for one, ok, n in zip(found, good, self.there))
        return float(right / self.there.sum()) if self.there.sum() else 1.0


class Walk:
    """One filter and ef: SearchParametersHNSW overrides the index's own. It keeps the selector, the selector its bits."""

    def __init__(self, index, queries, bits, ef):
        import faiss
        self.params = faiss.SearchParametersHNSW(efSearch=ef)
        if bits is not None:
            self.params.sel = faiss.IDSelectorBitmap(bits)
        self.index, self.queries = index, queries
        self.far, self.ids = np.empty((len(queries), K), np.float32), np.empty((len(queries), K), np.int64)
        p = faiss.swig_ptr
        self.whole = p(queries), p(self.far), p(self.ids)
        self.each = [(p(queries[i]), p(self.far[i]), p(self.ids[i])) for i in range(len(queries))]

    def batch(self):
        query, far, ids = self.whole
        self.index.search_c(len(self.queries), query, K, far, ids, self.params)

    def single(self):
        search, params = self.index.search_c, self.params
        for query, far, ids in self.each:
            search(1, query, K, far, ids, params)


def rate(call, n, seconds):
    """As bench_ann_filter: the first pass, if that was long enough; else the passes after it."""
    began = time.perf_counter()
    call()
    took, passes = time.perf_counter() - began, 1
    if took < seconds:
        began, passes = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds:
            call()
            passes += 1
    return passes * n / took


def narrowest(index, f, wanted):
    """(recall, walk, ef) of the least ef that reaches it; else of the best."""
    best = None
    for ef in LADDER:
        walk = Walk(index, f.queries, f.bits, ef)
        walk.batch()
        got = f.recall(walk.ids), walk, ef
        if best is None or got[0] > best[0]:
            best = got
        if got[0] >= wanted:
            break
    return best


def main():
    dir, path, config, kept, seconds = sys.argv[1:]
    meta, seconds = json.loads(pathlib.Path(dir, "meta.json").read_text()), float(seconds)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    peer = ann_peers.FaissHnsw(meta, json.loads(config))
    peer.threads(1)
    peer.load(path)
    index = peer.parts()[1]
    base = np.memmap(f"{dir}/base.f32", np.float32, "r").reshape(-1, meta["d"])
    queries = ann_peers.queries_of(dir, meta)
    for line in sys.stdin:
        ours = json.loads(line)
        f = Filter(kept, ours, base, np.ascontiguousarray(queries[:ours["queries"]]), meta["metric"])
        recall, walk, ef = narrowest(index, f, ours["recall"] - SLACK)
        rates = {how: rate(getattr(walk, how), len(f.queries), seconds) for how in ("single", "batch")}
        say(ef=ef, recall=recall, qps=max(rates.values()), version=ann_peers.version(peer), **rates)


if __name__ == "__main__":
    main()
