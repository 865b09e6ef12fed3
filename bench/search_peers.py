#!/usr/bin/env python3
"""Exact search beside faiss-cpu's IndexFlat, usearch's exact search and numpy: the same rows, the same queries, the same
number of threads, programs taking turns in each round.

    bench/run search                                   what installs the peers and calls this with --json
    bench/search_peers.py [--case ROWSxDIMS,...] [--rounds N] [--seconds S] [--dir DIR] [--json]

Every program runs in its own process (numpy's, faiss's and our BLAS each bring threads of their own) and waits on a pipe
while others measure. Figures are the best call within a turn, then the median over the rounds; ratios are of the same
round. Peers' care: OpenBLAS is told the core (Debian's and wheels' detection is old), threads are set by each library's own
switch, faiss gets contiguous f32 rows in one batch call, usearch its exact=True over the same array, numpy one product and
argpartition. Before timing, ours and faiss must agree on the ten nearest of the first 20 queries but for rows of equal score.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.get("VECKEEP_BUILD", ROOT / "build"))
CASES = "100000x384,100000x768,100000x1536,1000000x384,1000000x768,500000x1536"
QUERIES, LIMIT = (1, 10, 100, 1000), 10
FILTERS = (1, 10, 100, 500)  # of 1000 rows
PEERS = ("faiss", "usearch", "numpy")
FORMS = {"f32": ("float32", []), "f16": ("float16", []), "u8": ("uint8", []), "bits": ("float32", ["binary"])}


# ---- a peer: this file again, in a process of its own ----

class Faiss:
    def __init__(self, rows):
        import faiss
        self.faiss = faiss
        self.index = faiss.IndexFlatIP(rows.shape[1])
        for at in range(0, len(rows), 65536):
            self.index.add(rows[at:at + 65536])

    def threads(self, n):
        self.faiss.omp_set_num_threads(n)

    def search(self, queries):
        return self.index.search(queries, LIMIT)[1]


class Usearch:
    def __init__(self, rows):
        from usearch.index import search
        self.run, self.rows, self.n = search, rows, 1

    def threads(self, n):
        self.n = n

    def search(self, queries):
        return self.run(self.rows, queries, LIMIT, "ip", exact=True, threads=self.n).keys


class Numpy:
    def __init__(self, rows):
        import numpy
        import threadpoolctl
        self.np, self.limits, self.rows = numpy, threadpoolctl.threadpool_limits, rows

    def threads(self, n):
        self.limits(n)

    def search(self, queries):
        np, found = self.np, []
        for at in range(0, len(queries), 100):  # the whole matrix of 1,000 queries would be 4 GB
            scores = queries[at:at + 100] @ self.rows.T
            near = np.argpartition(-scores, LIMIT, axis=1)[:, :LIMIT]
            order = np.argsort(-np.take_along_axis(scores, near, 1), axis=1)
            found.append(np.take_along_axis(near, order, 1))
        return np.concatenate(found)


def peer(name, path, rows, dims):
    """Answers `threads queries seconds` by the best call's milliseconds, `ids queries` by the found rows."""
    import numpy
    data = numpy.memmap(path, numpy.float32, "r", shape=(rows, dims))
    queries = numpy.fromfile(path + ".queries", numpy.float32).reshape(-1, dims)
    engine = {"faiss": Faiss, "usearch": Usearch, "numpy": Numpy}[name](data)
    print("{}", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "ids":
            engine.threads(1)
            print(json.dumps(engine.search(queries[:int(words[1])]).tolist()), flush=True)
            continue
        threads, n, seconds = int(words[0]), int(words[1]), float(words[2])
        engine.threads(threads)
        best, spent, calls = float("inf"), 0, 0
        while calls < 2 or (spent < seconds and calls < 1000):
            at = calls * n % (len(queries) - n + 1)
            start = time.perf_counter()
            engine.search(queries[at:at + n])
            took = time.perf_counter() - start
            best, spent, calls = min(best, took), spent + took, calls + 1
        print(json.dumps({"best_ms": best * 1e3, "calls": calls}), flush=True)


class Program:
    """A process that answers a line with a JSON line."""

    def __init__(self, *argv, **env):
        self.proc = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                     env={**os.environ, **env})
        self.ready = self.answer()

    def answer(self):
        line = self.proc.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.proc.args[:3]} ended with {self.proc.wait()}")
        return json.loads(line)

    def ask(self, *words):
        self.proc.stdin.write(" ".join(map(str, words)) + "\n")
        self.proc.stdin.flush()
        return self.answer()

    def end(self):
        self.proc.stdin.close()
        self.proc.wait()


# ---- a case: one size of data ----

def core_type():
    flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags"))
    return "SkylakeX" if "avx512f" in flags else "Haswell"


def same_neighbours(data, queries, ours, theirs):
    """Rows may differ only where their scores are equal to f32's last digits."""
    import numpy
    for q, a, b in zip(queries, ours, theirs, strict=True):
        assert len(a) == len(b) == LIMIT
        x, y = numpy.sort(data[a] @ q), numpy.sort(data[b] @ q)
        assert numpy.allclose(x, y, atol=3e-6), (a, b)


def check(ours, others, path, rows, dims):
    import numpy
    data = numpy.memmap(path, numpy.float32, "r", shape=(rows, dims))
    queries = numpy.fromfile(path + ".queries", numpy.float32, 20 * dims).reshape(20, dims)
    found = ours.ask("ids", "scan", 20, LIMIT)
    for name in ("certified", "gemm", "auto"):
        assert ours.ask("ids", name, 20, LIMIT) == found, name
    same_neighbours(data, queries, found, others["faiss"].ask("ids", 20))


def takes_minutes(name, rows, dims, n):
    """usearch has no path of its own for many queries: half a minute for 1,000 over 100,000 rows of 768."""
    return name == "usearch" and rows * dims * n > 2e10


def rounds_of(args, ours, others, threads, n, rows, dims):
    """One row of the table: every path and peer at this many queries, side by side."""
    paths = ["certified", "gemm"] + (["scan"] if n <= 100 else [])
    seen = {}
    for _ in range(args.rounds):
        for path in paths:
            seen.setdefault(path, []).append(ours.ask("search", path, n, threads, args.seconds, LIMIT, 1000)["best_ms"])
        for name, program in others.items():
            if takes_minutes(name, rows, dims, n):
                continue
            seen.setdefault(name, []).append(program.ask(threads, n, args.seconds)["best_ms"])
        if n == 1:
            seen.setdefault("bandwidth", []).append(ours.ask("bandwidth", threads)["gb_s"])
        elif threads == 1:
            seen.setdefault("sgemm", []).append(ours.ask("sgemm")["gflop_s"])
    return {"threads": threads, "queries": n, "ms": {k: v for k, v in seen.items()}}


def form_rows(args, dir, path, rows, dims, form):
    """The other dtypes and the sign bits: one and many queries by their own paths."""
    dtype, more = FORMS[form]
    program = Program(BUILD / "bench_search", "serve", dir / form, path, rows, dims, dtype, "Dot" if form == "u8" else "Cosine", *more)
    out = []
    single = {"f16": ("scan", "certified"), "u8": ("scan",), "bits": ("bits",)}[form]
    for threads in (1, 2):
        for n in QUERIES:
            for name in single if n == 1 else ("bits" if form == "bits" else "auto",):
                if rows * dims * n > 1e11:
                    continue  # minutes a call
                got = [program.ask("search", name, n, threads, args.seconds, LIMIT, 1000) for _ in range(args.rounds)]
                out.append({"form": form, "path": got[0]["path"], "threads": threads, "queries": n, "ms": [g["best_ms"] for g in got],
                            "bytes": got[0]["bytes"]})
    program.end()
    shutil.rmtree(dir / form)
    return out


def case(args, dir, rows, dims):
    path = str(dir / "rows.f32")
    subprocess.run([BUILD / "bench_search", "make", path, str(rows), str(dims), "1000", str(args.seed)], check=True)
    ours = Program(BUILD / "bench_search", "serve", dir / "f32", path, rows, dims, "float32", "Cosine")
    env = {"OPENBLAS_CORETYPE": core_type()}
    others = {name: Program(sys.executable, __file__, "--peer", name, "--data", path, "--case", f"{rows}x{dims}", **env)
              for name in args.peers.split(",")}
    if "faiss" in others:
        check(ours, others, path, rows, dims)
    got = {"rows": rows, "dims": dims, "fill": ours.ready, "table": [], "filters": [], "forms": []}
    for threads in (1, 2):
        for n in QUERIES:
            got["table"].append(rounds_of(args, ours, others, threads, n, rows, dims))
        for permille in FILTERS:
            runs = [ours.ask("search", "auto", 1, threads, args.seconds, LIMIT, permille) for _ in range(args.rounds)]
            got["filters"].append({"threads": threads, "permille": permille, "path": runs[0]["path"],
                                   "ms": [r["best_ms"] for r in runs]})
    got["reread"] = ours.ask("search", "certified", 100, 1, 0, LIMIT, 1000)["reread"]
    for program in [ours, *others.values()]:
        program.end()
    shutil.rmtree(dir / "f32")
    for form in ("f16", "u8", "bits"):
        got["forms"] += form_rows(args, dir, path, rows, dims, form)
    return got


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--case", default=CASES)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=1)
    p.add_argument("--seed", type=int, default=20261123)
    p.add_argument("--dir", help="where data is put (some 20 GB for the largest case); default: a temporary directory")
    p.add_argument("--peers", default=",".join(PEERS))
    p.add_argument("--json", action="store_true")
    p.add_argument("--peer", help=argparse.SUPPRESS)
    p.add_argument("--data", help=argparse.SUPPRESS)
    args = p.parse_args()
    sizes = [tuple(map(int, c.split("x"))) for c in args.case.split(",")]
    if args.peer:
        peer(args.peer, args.data, *sizes[0])
        return
    cases = []
    for rows, dims in sizes:
        print(f"  {rows} x {dims} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="veckeep-search-", dir=args.dir) as dir:
            cases.append(case(args, pathlib.Path(dir), rows, dims))
        if not args.json:
            for row in cases[-1]["table"]:
                print(rows, dims, row["threads"], row["queries"],
                      {k: round(statistics.median(v), 3) for k, v in row["ms"].items()}, flush=True)
    if args.json:
        print(json.dumps({"cases": cases}))


if __name__ == "__main__":
    main()
