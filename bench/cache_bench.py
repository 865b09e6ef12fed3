#!/usr/bin/env python3
"""The cache's benches: hits, misses, an interactive client beside a bulk ingest, LiteLLM's proxy.

    bench/run [PART...]                      installs what is needed and calls this
    bench/cache_bench.py [--rounds N] [--seconds S] [--litellm PROGRAM] PART...

Parts: hits misses mixed litellm twice search encoder. Programs that are compared take turns within each
round; a figure is the median over the rounds, a ratio the median of the rounds' ratios. Each part
keeps its figures in .cache/bench/PART.json, and bench/RESULTS.md is written from all that are
there, so a part that was disturbed can be run again by itself.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import lab
import report
from lab import DIMS, load, median, ratio

sys.path.insert(0, str(lab.ROOT / "tests" / "flows"))
import procs  # noqa: E402
from vectors import f, same_bits  # noqa: E402
from wire import Client  # noqa: E402

FORMS = {"base64": {}, "float": {}, "octet-stream": {"accept": "application/octet-stream"}}
HIT_BATCHES, HIT_CLIENTS = (1, 16, 256), (1, 64)
ROLES = {"query": {"value": "query"}, "document": {"value": "document"}}
SENTENCE = "what a person might ask a search engine, in one line of a usual length"


# ---- hits ----

def hit_cases(dir):
    """(form, batch, body file, headers) for every form and batch."""
    for batch in HIT_BATCHES:
        texts = [f"{SENTENCE}: {i}" for i in range(batch)]
        for form, words in FORMS.items():
            body = {"model": "m", "input": texts[0] if batch == 1 else texts}
            if form != "octet-stream":
                body["encoding_format"] = form
            path = pathlib.Path(dir, f"{form}-{batch}.json")
            path.write_text(json.dumps(body))
            yield form, batch, texts, path, words


def checked_size(place, texts, path, words):
    """The answer's length in bytes, once it is known to be all hits and the right vectors."""
    headers = {"Accept": words["accept"]} if words else {}
    place.post(path.read_bytes(), headers)
    got = place.post(path.read_bytes(), headers)
    assert got.status == 200 and got.cache["misses"] == 0, got
    rows = got.rows_raw(DIMS) if words else got.rows()
    assert all(same_bits(a, f("m", "none", DIMS, t)) for a, t in zip(rows, texts, strict=True))
    return len(got.body)


def hits(args, dir):
    provider = lab.fake()
    server = lab.server(dir, provider)
    ours = lab.place_of(server, "veckeep")
    idle = ours.memory_mb()
    rows, cases = {}, list(hit_cases(dir))
    sizes = {path: checked_size(ours, texts, path, words) for _, _, texts, path, words in cases}
    for _ in range(args.rounds):
        for form, batch, _, path, words in cases:
            bare = lab.floor(sizes[path])
            for clients in HIT_CLIENTS:
                row = rows.setdefault((form, batch, clients), {"ours": [], "floor": []})
                lab.wait_quiet()
                for place, key in ((ours, "ours"), (bare, "floor")):
                    row[key].append(load(place, clients, args.seconds, body=path, **words))
            bare.stop()
    loaded = ours.memory_mb()
    assert server.stop() == 0 and provider.stop() is not None
    return {"rows": [{"form": k[0], "batch": k[1], "clients": k[2], "bytes": sizes[pathlib.Path(dir, f"{k[0]}-{k[1]}.json")],
                      **compared(v["ours"], v["floor"])} for k, v in rows.items()],
            "memory_idle_mb": idle, "memory_loaded_mb": loaded}


def compared(ours, theirs):
    out = {"ratio": ratio(ours, theirs, "rps"), "cpu_ratio": ratio(theirs, ours, "cpu_us"),
           "others": lab.statistics.median([r["others"] for r in ours + theirs])}
    for name, runs in (("ours", ours), ("theirs", theirs)):
        for key in ("rps", "p50_us", "p99_us", "cpu_us"):
            out[f"{name}_{key}"] = median(runs, key)
    return out


# ---- misses ----

def misses(args, dir):
    """New texts only, to the server and straight to the provider, in the encoding that the server asks for."""
    provider = lab.fake()
    servers = {form: lab.server(dir / form, provider, base64=form == "base64") for form in ("base64", "float")}
    direct, rows = lab.place_of(provider, "direct"), {}
    cases = [(form, delay_ms, clients) for form in servers for delay_ms in (0, 5) for clients in (1, 64)]
    for n in range(args.rounds):
        for form, delay_ms, clients in cases:
            provider.config(delay_ms=delay_ms)
            lab.wait_quiet()
            row = rows.setdefault((form, delay_ms, clients), {"ours": [], "direct": []})
            ours, tag = lab.place_of(servers[form], "veckeep"), f"{delay_ms} {clients} {n}"
            row["ours"].append(load(ours, clients, args.seconds, [direct], fresh="ours " + tag))
            row["direct"].append(load(direct, clients, args.seconds, fresh="direct " + tag, format=form))
            provider.reset()
    for server in servers.values():
        assert server.stop() == 0
    provider.stop()
    return {"rows": [{"form": k[0], "delay_ms": k[1], "clients": k[2], **compared(v["ours"], v["direct"]),
                      "added_p50_us": lab.statistics.median(a["p50_us"] - b["p50_us"]
                                                            for a, b in zip(v["ours"], v["direct"]))}
                     for k, v in rows.items()]}


# ---- an interactive client while a bulk ingest runs ----

class Ingest:
    """`veckeep embed` over a file of new texts, again and again until it is ended."""

    def __init__(self, server, dir, tag, texts=240000):
        self.path = pathlib.Path(dir, f"bulk-{tag}.txt")
        self.path.write_text("".join(f"{tag} document {i}: {SENTENCE}\n" for i in range(texts)))
        self.proc = lab.started(subprocess.Popen(
            [str(procs.VECKEEP), "embed", "--url", server.url, "--model", "m", "--role", "document", "--quiet",
             "--format", "base64", "--batch", "256", "--parallel", "4", "--file", str(self.path)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=procs.clean_env(HOME=str(dir))))

    cpu_s = lab.Place.cpu_s

    def end(self):
        """Ends it; it must have been at work all the time."""
        assert self.proc.poll() is None, "the bulk ingest ended before the measurement did"
        self.proc.kill()
        self.proc.wait()
        self.path.unlink()


def interactive(place, dir, seconds, beside, tag):
    """A client that sends one query every 5 ms at most: first hits, then misses."""
    body = pathlib.Path(dir, "query.json")
    body.write_text(json.dumps({"model": "m#query", "input": SENTENCE, "encoding_format": "base64"}))
    assert place.post(body.read_bytes()).status == 200
    return {"hit": load(place, 1, seconds, beside, body=body, every=5),
            "miss": load(place, 1, seconds, beside, fresh=tag, model="m#query", every=5)}


def mixed(args, dir):
    provider = lab.fake(delay_ms=50)
    server = lab.server(dir, provider, ROLES)
    ours, direct, runs = lab.place_of(server, "veckeep"), lab.place_of(provider, "direct"), {}
    bulk = []
    for n in range(args.rounds):
        for state in ("idle", "bulk"):
            lab.wait_quiet()
            ingest = None
            if state == "bulk":
                ingest = Ingest(server, dir, f"round {n}")
                time.sleep(1)
                before, at = provider_inputs(provider), time.monotonic()
            got = interactive(ours, dir, max(3, args.seconds), [direct] + [x for x in [ingest] if x], f"{state} {n}")
            if ingest:
                bulk.append((provider_inputs(provider) - before) / (time.monotonic() - at))
                ingest.end()
                time.sleep(1)
            for what, run in got.items():
                runs.setdefault((what, state), []).append(run)
    assert server.stop() == 0 and provider.stop() is not None
    return {"rows": [{"what": k[0], "state": k[1], **{x: median(v, x) for x in ("requests", "p50_us", "p99_us", "others")}}
                     for k, v in runs.items()], "delay_ms": 50, "bulk_texts_s": lab.statistics.median(bulk)}


def provider_inputs(provider):
    return provider.client.get("/_fake/stats?brief").json()["inputs"]


# ---- LiteLLM's proxy ----

def litellm_proxy(program, provider, dir):
    config = pathlib.Path(dir, "litellm.json")  # JSON is YAML
    config.write_text(json.dumps({
        "model_list": [{"model_name": "m", "litellm_params": {"model": "openai/m", "api_base": provider.url + "/v1",
                                                              "api_key": "none"}}],
        "litellm_settings": {"cache": True, "cache_params": {"type": "local", "mode": "default_on",
                                                             "supported_call_types": ["embedding", "aembedding"]},
                             "telemetry": False}}))
    port = lab.free_port()
    log = open(pathlib.Path(dir, "litellm.log"), "wb")
    proc = lab.started(subprocess.Popen(
        [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)], cwd=dir, stdout=log, stderr=log,
        # No key, as ours has none on the loopback address: neither side pays for looking one up.
        env=procs.clean_env(HOME=str(dir), LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_LOG="ERROR",
                            LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true")))
    lab.wait_port(port, proc, 120)
    return lab.Place("LiteLLM", port, proc)


def mixed_batches(seed, count, texts):
    """Batches of 2 to 16 from a small set of texts: hits, misses and duplicates in one request."""
    dice = random.Random(seed)
    return [[dice.choice(texts) for _ in range(dice.randint(2, 16))] for _ in range(count)]


def correctness(place, provider, seed, tag, at_once):
    """Every slot of every answer against the provider's own function of that slot's text."""
    texts = [f"{tag} {seed}: text {i}" for i in range(100)]
    before = provider_inputs(provider)
    out = {"requests": 0, "failed": 0, "slots": 0, "wrong": 0, "wrong_requests": 0, "texts": len(texts)}

    def ask(batch):
        got = place.post(json.dumps({"model": "m", "input": batch, "encoding_format": "float"}))
        if got.status != 200:
            return None
        by_index = {item["index"]: row for item, row in zip(got.json()["data"], got.rows())}
        return [i in by_index and same_bits(by_index[i], f("m", "none", DIMS, t)) for i, t in enumerate(batch)]

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for right in pool.map(ask, mixed_batches(seed, 100, texts)):
            out["requests"] += 1
            if right is None:
                out["failed"] += 1
                continue
            out["slots"] += len(right)
            out["wrong"] += right.count(False)
            out["wrong_requests"] += False in right
    out["upstream_texts"] = provider_inputs(provider) - before
    return out


def litellm(args, dir):
    provider = lab.fake(delay_ms=5)
    server = lab.server(dir, provider)
    ours = lab.place_of(server, "veckeep")
    theirs = litellm_proxy(args.litellm, provider, dir)
    body = pathlib.Path(dir, "one.json")
    body.write_text(json.dumps({"model": "m", "input": SENTENCE, "encoding_format": "base64"}))
    for place in (ours, theirs):
        for _ in range(3):
            assert place.post(body.read_bytes()).status == 200
    before, rows = provider_inputs(provider), {}
    for _ in range(args.rounds):
        for clients in (1, 64):
            row = rows.setdefault(clients, {"ours": [], "theirs": []})
            lab.wait_quiet()
            for place, key in ((ours, "ours"), (theirs, "theirs")):
                row[key].append(load(place, clients, max(3, args.seconds), body=body))
    calls = provider_inputs(provider) - before
    right = {p.name: [correctness(p, provider, 7, f"{p.name} {n}", n) for n in (1, 8)] for p in (ours, theirs)}
    memory = {p.name: sum(p.memory_mb()) for p in (ours, theirs)}
    theirs.stop()
    assert server.stop() == 0 and provider.stop() is not None
    return {"rows": [{"clients": k, **compared(v["ours"], v["theirs"])} for k, v in rows.items()],
            "upstream_texts_while_hitting": calls, "correctness": right, "memory_mb": memory,
            "version": subprocess.run([str(pathlib.Path(args.litellm).with_name("python")), "-c",
                                       "import importlib.metadata as m; print(m.version('litellm'))"],
                                      capture_output=True, text=True).stdout.strip()}


# ---- parts that are programs of their own ----

def twice(args, dir):
    runs = [json.loads(subprocess.run([str(lab.ROOT / "bench" / "twice"), "--json", "--program", str(procs.VECKEEP)],
                                      check=True, capture_output=True, text=True).stdout) for _ in range(args.rounds)]
    return {"runs": runs}


def encoder(args, dir):
    out = subprocess.run([args.peers_python, str(lab.ROOT / "bench" / "encoder_peers.py"), "--bench",
                          str(lab.BUILD / "bench_encoder"), "--rounds", str(args.rounds)], check=True,
                         capture_output=True, text=True)
    return {"lines": out.stdout.splitlines(), "left_out": [x for x in out.stderr.splitlines() if "left out" in x]}


def kernels(args, dir):
    out = subprocess.run([str(lab.BUILD / "bench_kernels"), "--json", "--rounds", str(args.rounds)], check=True,
                         capture_output=True, text=True)
    huge = subprocess.run([str(lab.BUILD / "bench_kernels"), "--json", "--huge", "--only", "dot", "--rounds",
                           str(args.rounds)], check=True, capture_output=True, text=True)
    return {"small_pages": json.loads(out.stdout), "huge_pages": json.loads(huge.stdout)}


def search(args, dir):
    argv = [args.search_python, str(lab.ROOT / "bench" / "search_peers.py"), "--json", "--rounds", str(args.rounds),
            "--seconds", str(args.seconds)]
    if os.environ.get("BENCH_SEARCH_CASES"):
        argv += ["--case", os.environ["BENCH_SEARCH_CASES"]]
    if os.environ.get("BENCH_SEARCH_DIR"):
        argv += ["--dir", os.environ["BENCH_SEARCH_DIR"]]
    out = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "VECKEEP_BUILD": str(lab.BUILD)})
    return json.loads(out.stdout)


def servers(args, dir):
    argv = [args.servers_python, str(lab.ROOT / "bench" / "server_peers.py"), "--json", "--rounds", str(args.rounds),
            "--seconds", str(args.seconds)]
    if os.environ.get("BENCH_SERVERS_CASES"):
        argv += ["--case", os.environ["BENCH_SERVERS_CASES"]]
    out = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "VECKEEP_BUILD": str(lab.BUILD)})
    return json.loads(out.stdout)


PARTS = {"hits": hits, "misses": misses, "mixed": mixed, "litellm": litellm, "twice": twice, "encoder": encoder,
         "kernels": kernels, "search": search, "servers": servers}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("parts", nargs="+", choices=list(PARTS))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=int, default=2)
    p.add_argument("--litellm", help="the litellm program")
    p.add_argument("--search-python", help="a python with the peers of search")
    p.add_argument("--servers-python", help="a python with the peers of servers")
    p.add_argument("--peers-python", help="a python with the encoder's peers")
    p.add_argument("--keep", default=str(lab.ROOT / ".cache" / "bench"), help="where figures are kept")
    p.add_argument("--out", default=str(lab.ROOT / "bench" / "RESULTS.md"))
    args = p.parse_args()
    args.litellm = args.litellm and os.path.abspath(args.litellm)
    keep = pathlib.Path(args.keep)
    keep.mkdir(parents=True, exist_ok=True)
    for name in args.parts:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="veckeep-bench-") as dir:
            try:
                got = PARTS[name](args, pathlib.Path(dir))
            except BaseException:
                for log in pathlib.Path(dir).rglob("*.log"):
                    print(f"{log}:\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
                raise
            finally:
                lab.end_all()
        got.update(report.origin(), rounds=args.rounds, seconds=args.seconds, machine=lab.machine())
        (keep / f"{name}.json").write_text(json.dumps(got, indent=1))
        print(report.part(name, got), flush=True)
    pathlib.Path(args.out).write_text(report.whole(keep))


if __name__ == "__main__":
    main()
