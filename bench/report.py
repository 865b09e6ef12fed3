"""bench/RESULTS.md from the parts' figures: ratios first, misses of a budget said plainly."""
import datetime
import json
import os
import pathlib
import statistics
import subprocess

HEAD = """# Results

What `bench/run` measured; budgets are DESIGN's section 10. Ratios compare programs that took turns
in one run on the same two cores, with the load generator (wrk, one thread) on them, too: they carry
over to other machines better than the absolute figures beside them. Each figure is the median of its
rounds, each ratio the median of the rounds' ratios. "others" is what programs that have no part in
the measurement used meanwhile, in cores: above a tenth, trust the CPU columns more than the rates.
Written by `bench/report.py` from `.cache/bench/*.json`; what is under "Notes" is from
`bench/NOTES.md`.
"""
TITLES = {"hits": "Hits beside a bare libmicrohttpd server with the same bytes", "misses": "Misses: what the server adds",
          "mixed": "An interactive client while a bulk ingest runs", "litellm": "Beside LiteLLM's proxy",
          "twice": "1,000 real sentences, twice", "search": "Exact search beside FAISS, USearch and NumPy",
          "servers": "Search over HTTP beside Chroma's server and qdrant-client's local mode",
          "ann": "Approximate search beside its peers", "live": "The server around its index: beside builds and writes, after a restart",
          "encoder": "The built-in encoder beside its peers",
          "kernels": "Score kernels beside the memory they read"}


def origin():
    """What every part says of where its figures are from, as long as they were measured just now; machine and command are its own."""
    return {"commit": commit(), "load": os.getloadavg()[1], "date": now()}


def commit(*before):
    """The newest, or the newest before a moment."""
    git = ["git", "-C", str(pathlib.Path(__file__).parent), "log", "-1", "--format=%h", *(f"--before={b}" for b in before)]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip()


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def table(head, rows):
    lines = [" | ".join(head), " | ".join(["---"] * len(head))] + [" | ".join(map(str, r)) for r in rows]
    return "\n".join(f"| {line} |" for line in lines)


def us(n):
    return f"{n:,.0f} us" if n < 10000 else f"{n / 1000:,.1f} ms"


def percent(x):
    return f"{100 * x:.0f} %"


def judged(good, text):
    return f"{text} {'(met)' if good else '**(missed)**'}"


def hits(got):
    budget = {("base64", 1): 0.60, ("float", 1): 0.15}
    said, rows = [], []
    for r in got["rows"]:
        least = budget.get((r["form"], r["batch"]))
        share = percent(r["ratio"])
        rows.append((r["form"], r["batch"], r["clients"], judged(r["ratio"] >= least, share) if least else share,
                     percent(r["cpu_ratio"]), f"{r['ours_rps']:,.0f}", f"{r['theirs_rps']:,.0f}", us(r["ours_p50_us"]),
                     us(r["ours_p99_us"]), us(r["theirs_p50_us"]), f"{r['ours_cpu_us']:,.0f}",
                     f"{r['theirs_cpu_us']:,.0f}", f"{r['bytes']:,}", f"{r['others']:.2f}"))
        if (r["form"], r["batch"], r["clients"]) == ("base64", 1, 1):
            said.append("p50 at one client, base64: " + judged(r["ours_p50_us"] < 100, us(r["ours_p50_us"])) + ", budget 100 us.")
    idle, loaded = got["memory_idle_mb"], got["memory_loaded_mb"]
    said.append("Memory of an idle server beside the map: " + judged(idle[0] < 50, f"{idle[0]:.1f} MiB") +
                f", budget 50 MB (after this run {loaded[0]:.1f} MiB; mapped files {idle[1]:.1f} and {loaded[1]:.1f} MiB).")
    return table(["form", "texts", "clients", "of the floor's rate", "floor's CPU / ours", "req/s", "floor req/s", "p50",
                  "p99", "floor p50", "CPU us", "floor CPU us", "bytes", "others"], rows) + \
        "\n\nBudgets: base64 60 %, float 15 % of the floor (one text). " + " ".join(said) + \
        " Texts of 1536 dimensions; the answers were checked against the provider's function before each run."


def misses(got):
    rows = [(r["form"], f"{r['delay_ms']} ms", r["clients"],
             judged(r["added_p50_us"] <= 200, us(r["added_p50_us"])) if r["clients"] == 1 else us(r["added_p50_us"]),
             us(r["ours_p50_us"]), us(r["theirs_p50_us"]), us(r["ours_p99_us"]), us(r["theirs_p99_us"]),
             percent(r["ratio"]), f"{r['ours_rps']:,.0f}", f"{r['theirs_rps']:,.0f}", f"{r['ours_cpu_us']:,.0f}",
             f"{r['others']:.2f}") for r in got["rows"]]
    return table(["provider speaks", "delay", "clients", "added at p50", "p50", "direct p50", "p99", "direct p99", "rate / direct",
                  "req/s", "direct req/s", "CPU us", "others"], rows) + \
        "\n\nA new text in every request, 1536 dimensions; budget: at most 200 us at p50, one client. The client asks " \
        "the server for base64, and the provider directly for what the server asks it for. The server has at most 8 " \
        "calls under way and puts what waits into batches; the direct client at 64 has 64 single calls under way, and " \
        "stores nothing."


def mixed(got):
    by = {(r["what"], r["state"]): r for r in got["rows"]}
    rows = []
    for what in ("hit", "miss"):
        idle, bulk = by[what, "idle"], by[what, "bulk"]
        rows.append((what, f"{bulk['p50_us'] / idle['p50_us']:.2f}x", us(idle["p50_us"]), us(bulk["p50_us"]),
                     us(idle["p99_us"]), us(bulk["p99_us"]), f"{idle['others']:.2f}, {bulk['others']:.2f}"))
    return table(["query", "p50 bulk / idle", "idle p50", "bulk p50", "idle p99", "bulk p99", "others"], rows) + \
        f"\n\nOne client, a query at most every 5 ms, 1536 dimensions, the provider answers each call after " \
        f"{got['delay_ms']} ms; bulk: `veckeep embed --batch 256 --parallel 4` of new document texts, on the same two cores " \
        f"with its provider, at {got['bulk_texts_s']:,.0f} texts/s."


def litellm(got):
    rows = [(r["clients"], judged(r["ratio"] >= 100, f"{r['ratio']:,.0f}x"), f"{r['ours_rps']:,.0f}", f"{r['theirs_rps']:,.0f}",
             us(r["ours_p50_us"]), us(r["theirs_p50_us"]), us(r["ours_p99_us"]), us(r["theirs_p99_us"]),
             f"{r['ours_cpu_us']:,.0f}", f"{r['theirs_cpu_us']:,.0f}", f"{r['others']:.2f}") for r in got["rows"]]
    right = [(name, at_once, f"{c['wrong']:,} of {c['slots']:,}", f"{c['wrong_requests']} of {c['requests']}", c["failed"],
              f"{c['upstream_texts']} for {c['texts']}")
             for name, runs in got["correctness"].items() for at_once, c in zip((1, 8), runs)]
    return table(["clients", "hits/s, ours / LiteLLM", "req/s", "LiteLLM req/s", "p50", "LiteLLM p50", "p99", "LiteLLM p99",
                  "CPU us", "LiteLLM CPU us", "others"], rows) + \
        "\n\nCorrectness: batches of 2 to 16 texts drawn from 100, so hits, misses and duplicates in one request; every " \
        "slot compared, bit for bit, with the provider's function of that slot's text.\n\n" + \
        table(["program", "requests at once", "wrong slots", "requests with one", "failed requests", "texts sent upstream"],
              right) + \
        f"\n\nLiteLLM {got['version']}, one worker, local cache; budget: 100x its hits/s. One 1536-d text, asked as base64. " \
        "Memory: " + ", ".join(f"{k} {v:,.0f} MiB" for k, v in got["memory_mb"].items()) + \
        f". Texts that went upstream during the hits: {got['upstream_texts_while_hitting']}."


def twice(got):
    rows = [(f"{r['ratio']:.0f}x", f"{r['first']['seconds']:.3f} s", f"{r['second']['seconds'] * 1000:.1f} ms",
             f"{r['first']['misses']} misses", f"{r['second']['hits']} hits") for r in got["runs"]]
    return table(["ratio", "first", "second", "first time", "second time"], rows) + \
        "\n\n`bench/twice`: sentences of the Python library's docstrings, all-MiniLM-L6-v2 in the built-in encoder, a " \
        "server on empty data, sent by `veckeep embed --quiet`."


def search(got):
    return "\n\n".join(search_case(c) for c in got["cases"]) + \
        "\n\nMilliseconds of a whole call, ten nearest under cosine (unit rows, inner product for the peers); the paths of one " \
        "line took turns with the peers in each round. Budgets: the f32 scan 90 % of the read bandwidth measured in the same round, " \
        "certified codes 3 times the scan at 768 d and up, at 64 queries and more 85 % of the tuned SGEMM rate (2 d flops a pair) and " \
        "ahead of FAISS. Data: see the head of `bench/search.c`. Filters are bitmaps at hand, rows at random."


def search_line(c, row):
    ms = {k: v for k, v in row["ms"].items() if k not in ("bandwidth", "sgemm")}
    mid = {k: statistics.median(v) for k, v in ms.items()}
    n, judged_by, best = row["queries"], "", ms["certified"]  # what AUTO takes where codes are (index/exact_plan.c)
    if n == 1:
        share = statistics.median(c["rows"] * c["dims"] * 4e-6 / t / b for t, b in zip(ms["scan"], row["ms"]["bandwidth"]))
        times = statistics.median(s / t for s, t in zip(ms["scan"], ms["certified"]))
        judged_by = "scan " + judged(share >= 0.9, percent(share)) + ", certified " + \
            (judged(times >= 3, f"{times:.1f}x") if c["dims"] >= 768 else f"{times:.1f}x")
    elif n >= 64 and "sgemm" in row["ms"]:
        share = statistics.median(2e-6 * c["rows"] * c["dims"] * n / t / g for t, g in zip(best, row["ms"]["sgemm"]))
        judged_by = "of SGEMM " + judged(share >= 0.85, percent(share))
    peers = [f"{mid[p]:,.1f} ({statistics.median(t / b for t, b in zip(ms[p], best)):.1f}x)" if p in mid else "-"
             for p in ("faiss", "usearch", "numpy")]
    return (row["threads"], n, *(f"{mid[p]:,.2f}" if p in mid else "-" for p in ("scan", "certified", "gemm")), *peers, judged_by)


def search_case(c):
    fill = c["fill"]
    lines = [search_line(c, row) for row in c["table"]]
    filters = [(f["threads"], f"{f['permille'] / 10:g} %", f["path"], f"{statistics.median(f['ms']):,.2f}") for f in c["filters"]]
    forms = [(f["form"], f["path"], f["threads"], f.get("queries", 1), f"{statistics.median(f['ms']):,.2f}", f"{f['bytes'] / 1e6:,.0f}") for f in c["forms"]]
    return f"### {c['rows']:,} rows of {c['dims']}\n\nDurable upserts, batches of 256: {fill['upserts_per_s']:,.0f}/s " \
        f"({fill['points']:,} points). Rows read again by the certified path: {c['reread']:.0f} a query.\n\n" + \
        table(["threads", "queries", "scan", "certified", "gemm", "faiss (x certified)", "usearch (x certified)", "numpy (x certified)", "budget"], lines) + \
        "\n\n" + table(["threads", "selectivity", "path", "one query, ms"], filters) + \
        "\n\n" + table(["form", "path", "threads", "queries", "ms", "MB read"], forms)


def ann(got):
    return "\n\n".join(got["sections"].values()) + \
        f"\n\n{got['versions']}. recall@10 against fp64 truth, ties counted as right; queries a second. A figure at a recall is read off " \
        "the line between a config's two measured points around it, and a library gets its best config's; \">\": its least accurate point " \
        "is better than that already. \"One thread\" is the faster of single calls and batches of 1,000; p50 and p99 are single calls from " \
        "Python (ours: from C), \"call us\" is what such a call costs over 64 to 640 rows. Index: what must be kept to answer, full rows included; hot: " \
        "what a search walks through (ours re-ranks from rows that stay in a mapped file). Budgets: 2x hnswlib at 100 d, 3x at 384 d " \
        "and up, at recall 0.95 and 0.99; half its build time, all threads; 35 % of its hot memory at 768 d. How each library is built and " \
        "called: `bench/ann_peers.py`. Glass is built from its sources (8c69018, 2025-07-07). Tried and left out: turbovec (scans everything), " \
        "NGT's quantised graph (made by its own program, which the package lacks)."


def servers(got):
    out = []
    for c in got["cases"]:
        rows = []
        for r in c["runs"]:
            ours = r["by"]["veckeep"]
            for name, runs in r["by"].items():
                ratio = "" if name == "veckeep" else f"{statistics.median(a['rps'] / b['rps'] for a, b in zip(ours, runs)):.1f}x"
                rows.append(("one value of ten" if r["filtered"] else "none", r["clients"], name, ratio,
                             f"{statistics.median(x['rps'] for x in runs):,.0f}", us(statistics.median(x["p50_us"] for x in runs)),
                             us(statistics.median(x["p99_us"] for x in runs)), f"{c['recall'][name][r['filtered']]:.3f}"))
        fill = ", ".join(f"{k} {v:,.0f}" for k, v in c["upserts_per_s"].items())
        memory = ", ".join(f"{k} {own:,.0f} MiB beside {files:,.0f} of files" for k, (own, files) in c["memory_mb"].items())
        out.append(f"### {c['rows']:,} points of {c['dims']}\n\n" +
                   table(["filter", "clients", "who", "veckeep is", "queries/s", "p50", "p99", "recall@10"], rows) +
                   f"\n\nUpserts a second, batches of 256, two connections: {fill}. Memory afterwards: {memory}.")
    return "\n\n".join(out) + \
        f"\n\nChroma {got['versions']['chromadb']} (its server, HNSW with its defaults), qdrant-client {got['versions']['qdrant-client']} " \
        "in local mode (in process: no HTTP, no disk). JSON both ways, ten nearest, no payload; `bench/server_peers.py`."


def live(got):
    out = []
    for c in got["sets"].values():
        rows = []
        for clients, by in c["beside"].items():
            for name, runs in by.items():
                share = "" if name == "idle" else percent(statistics.median(a["rps"] / b["rps"] for a, b in zip(runs, by["idle"])))
                rows.append((clients, name, share, f"{statistics.median(x['rps'] for x in runs):,.0f}", us(statistics.median(x["p50_us"] for x in runs)),
                             us(statistics.median(x["p99_us"] for x in runs)), f"{max(x['others'] for x in runs):.2f}"))
        own, files = c["memory_mb"]
        firsts = {cold: [r["first_answer_s"] for r in c["restarts"] if r["cold"] == cold] for cold in (False, True)}
        said = " and ".join(judged(max(v) < 0.2, ", ".join(us(1e6 * x) for x in v)) + (" with cold files" if cold else "")
                            for cold, v in firsts.items()) + ", budget 200 ms" + (" at a million rows" if c["rows"] < 1000000 else "")
        out.append(f"### {c['set']}: {c['rows']:,} points of {c['dims']}\n\n" +
                   table(["clients", "beside", "of idle", "queries/s", "p50", "p99", "others"], rows) +
                   f"\n\nFilled at {c['fill_per_s']:,.0f} points/s (a client in Python); the index was ready {c['wait_s']:.0f} s after the last of them. "
                   f"Written beside the searches: {c['written_per_s']:,.0f} points/s. Recall@10 {c['recall']:.4f} by the index's own width. Memory "
                   f"{own:,.0f} MiB beside {files:,.0f} of files. From the process's beginning to the first answer: {said}.")
    return "\n\n".join(out) + "\n\nwrk and the server share the two cores; a build uses both at the lowest priority, in the server; \"others\" counts " \
        "what writers use, too. `bench/ann_live.py`."


def encoder(got):
    return "```\n" + "\n".join(got["lines"] + got["left_out"]) + "\n```\n\n`bench/encoder_peers.py`; how each peer is " \
        "run stands in its head."


def kernels(got):
    """One row a kernel, type and level: shares of the probe past the cache at each length, GB/s in the cache."""
    huge = {(r["kernel"], r["type"], r["level"], r["dims"]): r for r in got["huge_pages"]["rows"] if r["bytes"] > 1 << 28}
    cells = {}
    for r in got["small_pages"]["rows"]:
        cells.setdefault((r["kernel"], r["type"], r["level"]), {})[r["bytes"] > 1 << 28, r["dims"]] = r
    dims, rows, said = (100, 384, 768, 1536), [], []
    for key, cell in cells.items():
        out = []
        for d in dims:
            r = cell.get((True, d))
            share = percent(r["ratio"]) if r else "-"
            # The budget is the scan's: f32 at the level that this machine runs at.
            if r and key[1] == "f32" and key[2] == got["small_pages"]["rows"][0]["level"]:
                share = judged(r["ratio"] >= 0.9, share)
            out.append(share)
        big, fat = cell.get((True, 768)), huge.get((*key, 768))
        rows.append((" ".join(key[:2]), key[2], *out, f"{big['gb_s']:.1f}" if big else "-",
                     percent(fat["ratio"]) if fat else "-", *(f"{cell[False, d]['gb_s']:.1f}" for d in dims)))
    big = [r for r in got["small_pages"]["rows"] if r["bytes"] > 1 << 28]
    return table(["kernel", "level", *(f"{d} d" for d in dims), "GB/s, 768 d", "huge pages, 768 d",
                  *(f"1 MiB, {d} d" for d in dims)], rows) + \
        f"\n\nShares of the read probe (median {statistics.median(r['probe_gb_s'] for r in big):.1f} GB/s, the fastest of 48 " \
        f"variants) over {big[0]['bytes'] >> 20:,} MiB of 4 KB pages, one thread's CPU time; the last columns are GB/s in " \
        "1 MiB. Budget: f32 at 90 % of the probe."


PARTS = {"hits": hits, "misses": misses, "mixed": mixed, "litellm": litellm, "twice": twice, "encoder": encoder,
         "kernels": kernels, "search": search, "ann": ann, "live": live, "servers": servers}
ORDER = ("hits", "misses", "mixed", "litellm", "twice", "encoder", "kernels", "search", "ann", "live", "servers")


def part(name, got):
    command = got.get("command") or f"BENCH_ROUNDS={got['rounds']} BENCH_SECONDS={got['seconds']} bench/run {name}"
    load = f", load average {got['load']:.1f}" if "load" in got else ""
    return f"## {TITLES[name]}\n\n{got['machine']}.\n{got['date']}, commit {got['commit']}: `{command}`{load}.\n\n{PARTS[name](got)}\n"


def whole(keep):
    out = [HEAD]
    for name in ORDER:
        path = keep / f"{name}.json"
        if path.exists():
            out.append(part(name, json.loads(path.read_text())))
    notes = pathlib.Path(__file__).with_name("NOTES.md")
    if notes.exists():
        out.append("## Notes\n\n" + notes.read_text())
    return "\n".join(out)
