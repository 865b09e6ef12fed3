"""The tables and curves of bench/ann from the files that its steps left.

A figure at a recall is read off one config's own curve, by the line between the two measured points around it, and a library gets
its best config's; ">" marks a figure of a library whose least accurate point is already better than that. Every figure is the median
over rounds, a ratio the median of the rounds' ratios. "One thread" is the faster of single calls and batches of 1,000, so that no
binding's cost a call counts; latencies are single calls, with that cost, which stands beside them.
"""
import collections
import json
import pathlib
import statistics

import ann_bench
import ann_data
import ann_figure
import lab
import report

TARGETS = (0.90, 0.95, 0.99)
KEEP = ann_data.ROOT / ".cache" / "bench"
FIGURES = ann_data.ROOT / "docs" / "ann"
MODES = {"one": "one thread", "all": "batches of 1,000, all threads"}


# ---- one config's curve ----

def rate(point, mode):
    t = point.get("timed") or {}
    if mode == "one":
        return max((t[k]["qps"] for k in ("single", "batch1000x1") if k in t), default=None)
    if mode in ("p50_us", "p99_us"):
        return t["single"][mode] if "single" in t else None
    several = [v["qps"] for k, v in t.items() if k.startswith("batch1000x" if mode == "all" else "batch10x") and not k.endswith("x1")]
    return several[0] if several else None


def front(points, mode):
    """(recall, figure) of the points that no other beats in both, recall ascending."""
    best, out = -1, []
    for recall, value in sorted(((p["recall"], rate(p, mode)) for p in points if rate(p, mode)), reverse=True):
        if value > best:
            best = value
            out.append((recall, value))
    return out[::-1]


def between(curve, target):
    """(the figure at this recall, whether it is only known to be more); None: not reached."""
    if not curve or curve[-1][0] < target:
        return None
    if curve[0][0] > target:
        return curve[0][1], True
    for (r0, v0), (r1, v1) in zip(curve, curve[1:]):
        if r0 <= target <= r1:
            return v0 + (v1 - v0) * (target - r0) / (r1 - r0), False
    return curve[-1][1], False


def along(points, mode, target):
    """A latency at this recall: along the points of the rate's curve, so it is of the same settings."""
    keep = {r for r, _ in front(points, "one")}
    curve = sorted((p["recall"], rate(p, mode)) for p in points if p["recall"] in keep and rate(p, mode))
    if not curve or curve[-1][0] < target:
        return None
    if curve[0][0] > target:
        return curve[0][1]
    for (r0, v0), (r1, v1) in zip(curve, curve[1:]):
        if r0 <= target <= r1:
            return v0 + (v1 - v0) * (target - r0) / (r1 - r0) if r1 > r0 else v1
    return curve[-1][1]


# ---- a library over a set ----

class Library:
    """What was measured of one library: per config the rounds' points."""

    def __init__(self, name, cases):
        self.name, self.cases = name, cases
        self.rounds = {c: [r for i in range(99) if (r := c.result(f"round{i}"))] for c in cases}
        self.measured = [c for c in cases if self.rounds[c]]
        self.n = max((len(r) for r in self.rounds.values()), default=0)

    def at(self, mode, target, i):
        """Round i's best figure: (value, only more, case)."""
        got = [(*v, c) for c in self.measured if i < len(self.rounds[c]) and
               (v := between(front(self.rounds[c][i]["points"], mode), target))]
        return max(got, key=lambda g: g[0]) if got else None

    def figure(self, mode, target):
        """The median over rounds: (value, only more) or None."""
        got = [v for i in range(self.n) if (v := self.at(mode, target, i))]
        return (statistics.median(v[0] for v in got), any(v[1] for v in got)) if got else None

    def ratio(self, other, mode, target):
        ratios = [a[0] / b[0] for i in range(min(self.n, other.n))
                  if (a := self.at(mode, target, i)) and (b := other.at(mode, target, i))]
        return statistics.median(ratios) if ratios else None

    def best(self, target=0.95):
        """The config to show: the fastest at this recall, else the one that gets nearest to it."""
        wins = [v[2] for i in range(self.n) if (v := self.at("one", target, i))]
        if wins:
            return max(set(wins), key=wins.count)
        return max(self.measured, key=lambda c: max(p["recall"] for p in self.rounds[c][0]["points"]), default=None)

    def latency(self, case, mode, target=0.95):
        got = [v for r in self.rounds[case] if (v := along(r["points"], mode, target))]
        return statistics.median(got) if got else None

    def curve(self, mode):
        """All configs' points, medians over rounds, and the front of them."""
        points = []
        for c in self.measured:
            by = {}
            for r in self.rounds[c]:
                for p in r["points"]:
                    if v := rate(p, mode):
                        by.setdefault(json.dumps(p["params"]), (p["recall"], []))[1].append(v)
            points += [(recall, statistics.median(v)) for recall, v in by.values()]
        best, out = -1, []
        for recall, value in sorted(points, reverse=True):
            if value > best:
                best = value
                out.append((recall, value))
        return out[::-1]


# ---- tables ----

def num(x, form=",.0f", more=False):
    return "-" if x is None else (">" if more else "") + format(x, form)


def shown(figure):
    return num(*(figure[0], ",.0f", figure[1])) if figure else "-"


def speed_table(libraries):
    base, rows = libraries.get("hnswlib"), []
    for lib in libraries.values():
        case = lib.best()
        overhead = lib.rounds[case][0]["ready"].get("overhead_us")
        ratios = [num(lib.ratio(base, "one", t), ".2f") + ("x" if lib.ratio(base, "one", t) else "") if base else "-" for t in (0.95, 0.99)]
        rows.append((lib.name, case.name, *(shown(lib.figure("one", t)) for t in TARGETS), *ratios,
                     *(shown(lib.figure("all", t)) for t in TARGETS), shown(lib.figure("ten", 0.95)),
                     num(lib.latency(case, "p50_us")), num(lib.latency(case, "p99_us")), num(overhead, ".1f")))
    return report.table(["library", "config at .95", "one thread .90", ".95", ".99", "x hnswlib .95", ".99", "batch 1,000 .90", ".95", ".99",
                         "batch 10 .95", "p50 us .95", "p99 us .95", "call us"], rows)


def seconds(result):
    if not result:
        return "-"
    return f"> {result['over']:,.0f} s" if result.get("over") else f"{result['build_s']:,.0f} s"


def memory_table(libraries, n):
    rows = []
    for lib in libraries.values():
        for case in lib.cases:
            built, alone = case.result("build"), case.result("build1")
            if not built:
                continue
            rounds = lib.rounds[case]
            size = built.get("bytes")
            total = size + built.get("rows", 0) if size else None
            memory = rounds[0]["memory"] if rounds else {}
            rows.append((lib.name, case.name, seconds(alone), seconds(built), num(total and total / n), num(hot(case) / n if size else None),
                         num(memory.get("peak_rss") and memory["peak_rss"] / 1e6), num(built.get("peak_rss") and built["peak_rss"] / 1e6),
                         num(memory.get("huge") and 100 * memory["huge"] / max(1, memory["anon"]), ",.0f"),
                         num(rounds[0]["ready"]["load_s"] if rounds else None, ".2f"),
                         num(max(p["recall"] for p in rounds[0]["points"]) if rounds else None, ".4f"),
                         num(max([r["others"] for r in rounds] + [built.get("others", 0)]), ".2f")))
    return report.table(["library", "config", "build, 1 thread", "all threads", "index B/row", "hot B/row", "peak MB, search", "peak MB, build",
                         "huge %", "load s", "best recall", "others"], rows)


def share(row):
    return "-" if row["filter"] == "none" else f"{100 * row['share']:g} %"


def filter_table(data):
    """What `bench/ann filter` left, if it did."""
    path = ann_data.HOME / "results" / data.name / "filters.json"
    if not path.exists():
        return ""
    got, rows = json.loads(path.read_text()), []
    for r in sorted(got["rows"], key=lambda r: r["filter"] != "none"):
        peer = r["peer"]
        rows.append((r["filter"], share(r), num(r["allowed"]), r["way"], num(r["recall"], ".4f"), num(r["qps"]), num(r["scan_qps"]),
                     num(r["scanned"] * 100), num(peer.get("recall"), ".4f"), num(peer.get("qps")), num(peer.get("ef"), "d")))
    return f"\n\nFiltered, one thread, own {ann_bench.name_of(got['config'])} at ef {got['ef']}, {got['rows'][0]['queries']} queries; " \
        "\"random\" rows, or those on one \"side\" of a plane. The way is the server's: where it scans it is exact at the scan's rate, " \
        "whatever the graph could do; otherwise it scans for the queries on which the graph gives up, and the graph's rate has that in " \
        f"it. FAISS's {got['peer']['config']['factory']} is given at the least ef whose recall is within 0.005 of the graph's, else at " \
        f"its best; single calls or one batch, the faster. {got['date']}, others {got['others']:.2f}.\n\n" + \
        report.table(["filter", "share", "rows allowed", "server's way", "graph's recall", "graph's QPS", "scan's QPS", "given up %",
                      "FAISS's recall", "FAISS's QPS", "FAISS's ef"], rows)


def times(own, other, mode, target):
    r = own.ratio(other, mode, target)
    return (r, f"{r:.2f}x") if r else (None, "-")


def quickest(own, base):
    """Of our configs that answer faster than the best hnswlib at 0.95 and at 0.99 the one that is built first."""
    def ahead(case):
        for t in (0.95, 0.99):
            theirs = base.figure("one", t)
            mine = between(front(own.rounds[case][0]["points"], "one"), t)
            if theirs and (not mine or mine[0] < theirs[0]):
                return False
        return True
    return min((c for c in own.measured if ahead(c)), key=lambda c: c.result("build")["build_s"], default=None)


def hot(case):
    built = case.result("build")
    return built.get("hot", built.get("bytes"))


def verdicts(libraries, meta):
    """DESIGN's section 10 over one set, misses included; and who else is ahead of us anywhere."""
    own, base = libraries.get("own"), libraries.get("hnswlib")
    if not own or not base:
        return ""
    least, said = 2 if meta["d"] <= 200 else 3, []
    for t in (0.95, 0.99):
        r, text = times(own, base, "one", t)
        said.append(f"{text} hnswlib at {t} " + report.judged(r and r >= least, f"(budget {least}x)"))
    for name, what in (("faiss-hnsw", "ahead"), ("usearch", "ahead"), ("svs", "level")):
        if name in libraries:
            both = [times(own, libraries[name], "one", t) for t in (0.95, 0.99)]
            said.append(f"{both[0][1]} and {both[1][1]} {name} " +
                        report.judged(all(r is None or r >= (1 if what == "ahead" else 0.95) for r, _ in both), f"(budget: {what})"))
    mine, theirs = own.best(), base.best()
    b = theirs.result("build")
    quick = quickest(own, base)
    if quick and not b.get("over"):
        r, first = (c.result("build")["build_s"] / b["build_s"] for c in (quick, mine))
        said.append(f"built in {r:.2f} of the time of hnswlib's {theirs.name} by {quick.name}, which is ahead of every hnswlib at 0.95 and 0.99 " +
                    report.judged(r <= 0.5, "(budget 0.5)") + f", in {first:.2f} by {mine.name}, the fastest at 0.95")
    if meta["d"] >= 768:
        r = hot(mine) / hot(theirs)
        said.append(f"hot memory {100 * r:.0f} % of hnswlib's " + report.judged(r <= 0.35, "(budget 35 %)"))
    before = [f"{n} at {t} ({1 / r:.2f}x ours)" for n, lib in libraries.items() if n != "own" for t in TARGETS
              if (r := own.ratio(lib, "one", t)) and r < 1]
    return "\n\nOne thread, ours beside the peers: " + "; ".join(said) + ". Ahead of ours: " + (", ".join(before) if before else "nobody") + "."


def failures(data):
    said = []
    for lib in ann_bench.LIBRARIES:
        for case in ann_bench.cases(data, [lib]):
            if (got := case.result("failed")) and not case.result("round0"):
                said.append(f"{lib} {case.name}: {got['why']}")
    return "\n\nLeft out: " + "; ".join(said) + "." if said else ""


def unmeasured(libraries):
    names = [n for n in ann_bench.LIBRARIES if n not in libraries]
    return "\n\nNot measured on this set: " + ", ".join(names) + "." if names else ""


def section(data):
    libraries = {}
    for name in ann_bench.LIBRARIES:
        lib = Library(name, ann_bench.cases(data, [name]))
        if lib.measured:
            libraries[name] = lib
    if not libraries:
        return None
    m = data.meta
    figures = ann_data.HOME / "figures" if "@" in data.name else FIGURES  # a smoke run is no result
    figures.mkdir(parents=True, exist_ok=True)
    file = figures / f"{data.name}.svg"
    file.write_text(ann_figure.draw(f"{data.name}: {m['n']:,} x {m['d']}, {m['metric']}",
                                    [(title, {k: v.curve(mode) for k, v in libraries.items()}) for mode, title in MODES.items()]))
    return f"### {data.name}: {m['n']:,} x {m['d']}, {m['metric']}\n\n{m['source']}. {m['nq']:,} queries, intrinsic dimension " \
        f"{m['intrinsic_dims']}.{fitted(m)}\n\n![recall and rate](../docs/ann/{file.name})\n\n{speed_table(libraries)}\n\n" \
        f"{memory_table(libraries, m['n'])}{verdicts(libraries, m)}{filter_table(data)}{failures(data)}{unmeasured(libraries)}"


def fitted(meta):
    f = meta.get("fitted")
    return f" Fitted to {f['rows']:,} rows: {100 * f['variance_between']:.0f} % of their variance lies between clusters, " \
        f"{100 * f['variance_in_rank']:.0f} % in the clusters' own 24 directions, the tail beyond 384 axes adds " \
        f"{100 * f['variance_of_tail']:.1f} % (exponents {f['exponent_between']:.2f} and {f['exponent_left']:.2f})." if f else ""


# ---- the part ----

def origin():
    """Of all that is there, whenever it was measured and whatever this process's environment says."""
    rounds, seconds, dates, versions = collections.Counter(), set(), [], set()
    for path in (ann_data.HOME / "results").rglob("*.round*.json"):
        if "@" in path.parent.parent.name:
            continue
        got = json.loads(path.read_text())
        rounds[path.parent, path.name.partition(".round")[0]] += 1
        seconds.add(f"{got['point_s']:g}")
        dates.append(got["date"])
        versions.add(got["ready"]["version"])
    first, last = min(dates), max(dates)
    return {"versions": ", ".join(sorted(versions)), "date": first if first == last else f"{first} to {last}", "commit": report.commit(last),
            "command": f"BENCH_ANN_ROUNDS={max(rounds.values())} BENCH_ANN_POINT_S={'/'.join(sorted(seconds))} bench/ann all"}


def write(names):
    """Adds these sets' sections to those of earlier runs, then writes RESULTS.md. A smoke run is shown, and changes neither."""
    path = KEEP / "ann.json"
    got = json.loads(path.read_text()) if path.exists() else {"sections": {}}
    for name in names:
        if (ann_data.HOME / name / "meta.json").exists() and (made := section(ann_data.Set(name))):
            print(made + "\n", flush=True)
            if "@" not in name:
                got["sections"][name] = made
    if not got["sections"] or all("@" in n for n in names):
        return
    got.update(origin(), machine=lab.machine())
    path.write_text(json.dumps(got, indent=1))
    pathlib.Path(__file__).with_name("RESULTS.md").write_text(report.whole(KEEP))
