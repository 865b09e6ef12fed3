#!/usr/bin/env python3
"""Approximate search beside its peers: recall against queries a second, building, memory, latency. Called by bench/ann.

    data [SET...]            fetches or makes sets (glove mnist text synthetic; SET@ROWS is a smaller one)
    build SET [LIBRARY...]   indexes, with all threads, then one config a library again with one
    rounds [SET...]          what of the rounds is missing, of what is built; the libraries take turns
    run SET [LIBRARY...]     both
    filter SET [EF]          our graph and FAISS's HNSW behind filters of 50 % to 0.1 %, measured anew each time
    all                      everything
    again SET [LIBRARY...]   forgets rounds (--builds: indexes, too)
    report                   tables and curves of what is there
    status                   what is there, what is missing
    embed SECONDS            some more of the real texts' vectors; exit 75: there are more

LIBRARY:CONFIG (own:s8, hnswlib:M16) is one config of its grid, by its name in the tables or how that begins.

Every step is one process that leaves one file under .cache/bench/ann/results, and what is there is not done again: any of this may
be stopped at any time. A build that does not end within BENCH_ANN_BUDGET_S is given up, and that is a result, too.
"""
import argparse
import ctypes
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import ann_data
import ann_peers
import report

ROOT, HOME, K = ann_data.ROOT, ann_data.HOME, ann_peers.K
BUILD = pathlib.Path(os.environ.get("VECKEEP_BUILD", ROOT / "build")).resolve()
BUDGET_S = float(os.environ.get("BENCH_ANN_BUDGET_S", 3600))
ROUNDS = int(os.environ.get("BENCH_ANN_ROUNDS", 3))
POINT_S = float(os.environ.get("BENCH_ANN_POINT_S", 0.5))
ALONE = os.environ.get("BENCH_ANN_ALONE", "1") != "0"
SETS = os.environ.get("BENCH_ANN_SETS", "glove mnist text synthetic").replace(",", " ").split()
CORES = sorted(os.sched_getaffinity(0))
OVER = 75  # embed's exit: there is more to do
ENOUGH, GAIN, WORTH = 0.9995, 0.0003, 0.7  # recall that needs no further points; least gain of a point; least recall that is timed


class Own:
    """Our graph (bench/ann_own.c); a program instead of a Python class, with the same words."""
    ascending = "ef"

    @staticmethod
    def grid(meta):
        profiles = ["s8", "s4", "p8"] if meta["d"] >= 384 else ["s8", "s4"]
        return [{"profile": p} for p in profiles] + [{"profile": p, "degree": 32} for p in profiles if p != "s4"]

    @staticmethod
    def searches(config):
        more = (10, 20) if config["profile"] == "s8" else (10, 14, 20, 40)
        return [{"ef": ef, "rerank": r} for r in more for ef in sorted({r, *ann_peers.EF}) if ef >= r]


LIBRARIES = {"own": Own, **ann_peers.PEERS}


def name_of(config):
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(f"{v}" if k in ("factory", "kind", "codes", "dtype", "profile") else f"{k}{v}"
                                                   for k, v in config.items() if k != "nlist"))


def keep(path, got):
    """Wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    got.update(date=report.now())
    path.with_suffix(".part").write_text(json.dumps(got, indent=1))
    path.with_suffix(".part").rename(path)
    return got


class Case:
    """One library's one config over one set."""

    def __init__(self, data, library, config):
        self.set, self.library, self.config, self.name = data, library, config, name_of(config)
        self.index = HOME / "index" / data.name / f"{library}-{self.name}"
        self.results = HOME / "results" / data.name / library
        self.title = f"{data.name} {library} {self.name}"

    def argv(self, verb, *rest):
        meta = self.set.meta
        if self.library == "own":
            return [BUILD / "bench_ann_own", verb, self.set.dir, self.index, *rest, meta["d"], meta["metric"],
                    *(f"{k}={v}" for k, v in self.config.items())]
        return [sys.executable, pathlib.Path(ann_peers.__file__), verb, self.library, self.set.dir, self.index, *rest,
                json.dumps(self.config)]

    def result(self, what):
        path = self.results / f"{self.name}.{what}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def keep(self, what, got):
        got.update(library=self.library, config=self.config, set=self.set.meta["name"])
        return keep(self.results / f"{self.name}.{what}.json", got)


def environment(threads):
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
           "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "PYTHONDONTWRITEBYTECODE": "1"}
    shim = HOME / "huge.so"
    return {**env, "LD_PRELOAD": str(shim)} if shim.exists() else env


def busy_s():
    v = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
    return (sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK")


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_s():
    u = resource.getrusage(resource.RUSAGE_CHILDREN)
    return u.ru_utime + u.ru_stime


def dies_with_parent(cores=None):
    """What a child does before its program: nothing outlives a run that is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if cores:
        os.sched_setaffinity(0, cores)


# ---- building ----

def build_once(case, threads, budget_s):
    """A build in a process of its own; None when the budget ended it."""
    cores = CORES if threads > 1 else CORES[-1:]
    case.index.parent.mkdir(parents=True, exist_ok=True)
    busy, mine, began = busy_s(), children_s(), time.monotonic()
    proc = subprocess.Popen([str(a) for a in case.argv("build", threads)], stdout=subprocess.PIPE, text=True, env=environment(threads),
                            preexec_fn=lambda: dies_with_parent(cores))
    try:
        out, _ = proc.communicate(timeout=budget_s)
    except subprocess.TimeoutExpired:
        proc.kill()
        proc.wait()
        return None
    if proc.returncode:
        raise RuntimeError(f"{case.title}: the build ended with {proc.returncode}")
    got = json.loads(out.strip().splitlines()[-1])
    got["cpu_s"] = children_s() - mine
    got["others"] = max(0, busy_s() - busy - got["cpu_s"]) / (time.monotonic() - began)
    return got


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)


def build(case):
    """The index that rounds will load; what it took with all threads."""
    got = case.result("build")
    if got and (got.get("over") or case.index.exists()):
        return got
    print(f"{case.title}: building", file=sys.stderr, flush=True)
    remove(case.index)
    fresh = build_once(case, len(CORES), BUDGET_S)
    if fresh is None:
        remove(case.index)
        return case.keep("build", {"over": BUDGET_S})
    return case.keep("build", fresh)


def build_alone(case):
    """The same with one thread, thrown away; skipped where it cannot end within the budget."""
    first = case.result("build")
    if case.result("build1") or not first or first.get("over"):
        return
    if first["build_s"] * len(CORES) * 0.8 > BUDGET_S:
        case.keep("build1", {"over": BUDGET_S})
        return
    print(f"{case.title}: building with one thread", file=sys.stderr, flush=True)
    index, case.index = case.index, case.index.with_name(case.index.name + "-alone")
    try:
        case.keep("build1", build_once(case, 1, BUDGET_S) or {"over": BUDGET_S})
    finally:
        remove(case.index)
        case.index = index


# ---- rounds ----

class Program:
    """A process that answers a line with a JSON line."""

    def __init__(self, argv):
        self.proc = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                     env=environment(len(CORES)), preexec_fn=dies_with_parent)
        self.ready = self.answer()

    def answer(self):
        while True:
            line = self.proc.stdout.readline()
            if not line:
                raise RuntimeError(f"{' '.join(map(str, self.proc.args[1:4]))} ended with {self.proc.wait()}")
            if line.startswith("{"):  # libraries print, too
                return json.loads(line)

    def ask(self, *words):
        self.proc.stdin.write(" ".join(map(str, words)) + "\n")
        self.proc.stdin.flush()
        return self.answer()

    def end(self):
        self.proc.stdin.close()
        try:
            self.proc.wait(60)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()


def words(params):
    return [f"{k}={v}" for k, v in params.items()]


def recalls(case, program):
    """Every point of the grid once over all queries, as long as recall still grows: its recall and its batch rate."""
    import numpy as np
    points, full, last, file = [], set(), {}, HOME / f"ids-{os.getpid()}"
    library = LIBRARIES[case.library]
    program.ask("ids", len(CORES), file, *words(library.searches(case.config)[0]))  # nobody's first touch is timed
    for params in library.searches(case.config):
        rest = tuple(v for k, v in params.items() if k != library.ascending)
        if rest in full:
            continue
        got = program.ask("ids", len(CORES), file, *words(params))
        found = np.fromfile(file, "<i4").reshape(-1, K)
        recall = case.set.recall(found, K)
        points.append({"params": params, "recall": recall, "rate": got["qps"]})
        if recall >= ENOUGH or recall < last.get(rest, 0) + GAIN:
            full.add(rest)
        last[rest] = recall
    file.unlink(missing_ok=True)
    return points


def worth_timing(points):
    """Those that are no slower than 0.6 times a point of equal or better recall: the rest cannot be on the curve."""
    return [p for p in points if p["recall"] >= WORTH and
            p["rate"] >= 0.6 * max(q["rate"] for q in points if q["recall"] >= p["recall"])]


def timed(case, program, params):
    peer, cores, w = LIBRARIES[case.library], len(CORES), words(params)
    out = {"single": program.ask("single", POINT_S, 300, 20000, *w)}
    if getattr(peer, "batches", True):
        for size, threads in ((1000, 1), (1000, cores), (10, cores)):
            out[f"batch{size}x{threads}"] = program.ask("batch", min(size, case.set.meta["nq"]), threads, POINT_S, *w)
    return out


def round_of(case, r):
    """One process that loads the index and measures every point that is worth it."""
    if case.result(f"round{r}") or not case.index.exists():
        return
    print(f"{case.title}: round {r}", file=sys.stderr, flush=True)
    program = Program(case.argv("serve"))
    try:
        first = case.result("round0")
        if first:
            points = [{k: p[k] for k in ("params", "recall", "rate")} for p in first["points"]]
            program.ask("ids", len(CORES), "/dev/null", *words(points[0]["params"]))
        else:
            points = recalls(case, program)
        mine = cpu_s(program.proc.pid)
        busy, began = busy_s(), time.monotonic()
        for p in worth_timing(points):
            p["timed"] = timed(case, program, p["params"])
        used = cpu_s(program.proc.pid) - mine
        others = max(0, busy_s() - busy - used) / max(1e-9, time.monotonic() - began)
        case.keep(f"round{r}", {"ready": program.ready, "points": points, "point_s": POINT_S, "memory": program.ask("memory"), "others": others})
    finally:
        program.end()


# ---- filters ----

def ef_of(case, least=0.95, otherwise=64):
    """The narrowest beam that reaches this recall with the fewest rows scored again, of the first round."""
    points = (case.result("round0") or {}).get("points", [])
    if not points:
        return otherwise
    rerank = min(p["params"]["rerank"] for p in points)
    return min((p["params"]["ef"] for p in points if p["params"]["rerank"] == rerank and p["recall"] >= least), default=otherwise)


def lines_of(argv, given=()):
    """What a program prints when given these lines; pinned to one core, as rates of one thread are wanted."""
    got = subprocess.run([str(a) for a in argv], input="".join(line + "\n" for line in given), stdout=subprocess.PIPE, text=True,
                         env=environment(1), preexec_fn=lambda: dies_with_parent(CORES[-1:]))
    if got.returncode:
        raise RuntimeError(f"{argv[0]} {argv[1]} ended with {got.returncode}")
    return [line for line in got.stdout.splitlines() if line.startswith("{")]


def behind(case, kept, ours):
    return lines_of([sys.executable, pathlib.Path(__file__).with_name("ann_filter_peer.py"), case.set.dir, case.index,
                     json.dumps(case.config), kept, POINT_S], ours)


def filters(data, ef=None):
    """One file a set, results/SET/filters.json: our graph behind each filter, and FAISS's at the same recall."""
    own, peer = Case(data, "own", {"profile": "s8"}), Case(data, "faiss-hnsw", ann_peers.FaissHnsw.grid(data.meta)[0])
    for case in (own, peer):
        attempt(build, case)
    if not own.index.exists():
        raise RuntimeError(f"{own.title}: there is no index")
    ef = ef or ef_of(own)
    print(f"{data.name}: filters, ef {ef}", file=sys.stderr, flush=True)
    busy, mine, began = busy_s(), children_s(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="filters-", dir=HOME) as kept:
        ours = lines_of([BUILD / "bench_ann_filter", data.dir, own.index, data.meta["d"], data.metric, f"ef={ef}",
                         f"seconds={POINT_S}", f"keep={kept}"])
        theirs = attempt(behind, peer, kept, ours) or ["{}"] * len(ours)
    others = max(0, busy_s() - busy - (children_s() - mine)) / (time.monotonic() - began)
    rows = [{**json.loads(a), "peer": json.loads(b)} for a, b in zip(ours, theirs, strict=True)]
    keep(HOME / "results" / data.name / "filters.json", {
        "set": data.meta["name"], "config": own.config, "peer": {"library": peer.library, "config": peer.config}, "ef": ef,
        "point_s": POINT_S, "others": others, "rows": rows})


# ---- commands ----

def cases(data, words):
    """Of every word the library's whole grid, or what it names of it."""
    every = []
    for word in words:
        library, _, config = word.partition(":")
        grid = [Case(data, library, c) for c in LIBRARIES[library].grid(data.meta)]
        every += [c for c in grid if c.name == config] or [c for c in grid if c.name.startswith(config)]
    return every


def attempt(step, *args):
    """A peer that fails is said and left out; the others go on."""
    try:
        return step(*args)
    except (RuntimeError, OSError, ValueError, KeyError) as e:
        case = args[0]
        print(f"{case.title}: {e}", file=sys.stderr, flush=True)
        case.keep("failed", {"why": str(e)})
        return None


def builds(data, libraries):
    every = cases(data, libraries)
    for case in every:
        attempt(build, case)
    if ALONE:
        for x in dict.fromkeys(c.library for c in every):
            attempt(build_alone, next(c for c in every if c.library == x))


def rounds(data, libraries):
    for r in range(ROUNDS):
        for case in cases(data, libraries):
            attempt(round_of, case, r)


def again(data, libraries, with_builds):
    for case in cases(data, libraries):
        for path in case.results.glob(f"{case.name}.*.json"):
            if with_builds or ".build" not in path.name:
                path.unlink()
        if with_builds:
            remove(case.index)


def status(data):
    for case in cases(data, list(LIBRARIES)):
        have = [w for w in ("build", "build1", *(f"round{r}" for r in range(ROUNDS)), "failed") if case.result(w)]
        print(f"{case.title}: {' '.join(have) or '-'}{' (over budget)' if (case.result('build') or {}).get('over') else ''}")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("verb", choices=("data", "build", "rounds", "run", "all", "filter", "again", "report", "status", "embed"))
    p.add_argument("words", nargs="*")
    p.add_argument("--builds", action="store_true")
    o = p.parse_args()
    if o.verb == "data":
        for name in o.words or SETS:
            print(json.dumps(ann_data.ensure(name).meta))
    elif o.verb == "embed":
        sys.exit(0 if ann_data.embed(*o.words[:1]) else OVER)
    elif o.verb in ("build", "run", "again"):
        if not o.words or any(x.partition(":")[0] not in LIBRARIES for x in o.words[1:]):
            sys.exit(f"{o.verb} SET [LIBRARY...]; there are {' '.join(LIBRARIES)}")
        data, libraries = ann_data.ensure(o.words[0]), o.words[1:] or list(LIBRARIES)
        if o.verb == "again":
            again(data, libraries, o.builds)
        else:
            builds(data, libraries)
        if o.verb == "run":
            rounds(data, libraries)
    elif o.verb == "filter":
        if len(o.words) not in (1, 2) or not all(x.isdigit() and int(x) for x in o.words[1:]):
            sys.exit("filter SET [EF]")
        try:
            filters(ann_data.ensure(o.words[0]), *map(int, o.words[1:]))
        except (RuntimeError, OSError) as e:
            sys.exit(f"filter: {e}")
    elif o.verb in ("all", "rounds"):
        for name in o.words or SETS:
            data = ann_data.ensure(name)
            if o.verb == "all":
                builds(data, list(LIBRARIES))
            rounds(data, list(LIBRARIES))
    elif o.verb == "status":
        for name in o.words or SETS:
            if (HOME / name / "meta.json").exists():
                status(ann_data.Set(name))
    if o.verb in ("run", "filter", "rounds", "all", "report"):
        import ann_report
        ann_report.write(o.words[:1] if o.verb in ("run", "filter") else o.words or SETS)


if __name__ == "__main__":
    main()
