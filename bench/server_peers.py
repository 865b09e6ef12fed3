#!/usr/bin/env python3
"""Vector search over HTTP beside other servers: veckeep, Chroma's server, and qdrant-client's in-process engine, on the same rows
and the same queries, taking turns in each round.

    bench/run servers                                    what installs the peers and calls this with --json
    bench/server_peers.py [--case ROWSxDIMS,...] [--rounds N] [--seconds S] [--json]

Each server is filled over its own API (veckeep and Chroma by JSON bodies made beforehand, two connections, batches of 256; every
reply awaited), then asked by wrk with 200 different queries, ten nearest with no payload. Recall@10 is each one's own against numpy in
f64: veckeep is exact, Chroma's index is approximate (HNSW, its defaults). qdrant-client's local mode has no server: it is timed in this
process, one query after the other, without any HTTP; it is what that client's users run without a server.
Filtered queries ask for one of ten values of an indexed keyword."""
import argparse
import concurrent.futures
import http.client
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import lab  # noqa: E402

CASES = "20000x384,100000x384,20000x1536"
BATCH, LIMIT, QUERIES, CLIENTS = 256, 10, 200, (1, 8)


def data(rows, dims, seed=7):
    """A latent mixture as bench/search.c's: 1,000 clusters of Zipf sizes in a 64-dimensional subspace, noise, unit rows."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((dims, 64)))[0].T * (np.arange(1, 65) ** -0.5)[:, None]
    centres = rng.standard_normal((1000, 64))
    weight = 1 / np.arange(1, 1001)
    pick = rng.choice(1000, rows + QUERIES, p=weight / weight.sum())
    out = (centres[pick] + 0.5 * rng.standard_normal((rows + QUERIES, 64))) @ basis + 0.02 * rng.standard_normal((rows + QUERIES, dims))
    out = (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)
    return out[:rows], out[rows:]


def truth(rows, queries, keep=None):
    scores = queries.astype(np.float64) @ rows.astype(np.float64).T
    if keep is not None:
        scores[:, ~keep] = -np.inf
    return np.argsort(-scores, axis=1)[:, :LIMIT]


def recall(got, want):
    return float(np.mean([len(set(g) & set(w.tolist())) / LIMIT for g, w in zip(got, want)]))


def listed(v):
    return json.dumps([round(float(x), 7) for x in v])


class Http:
    """A server: its fill and query bodies, and what its answers say."""

    def request(self, method, path, body=None):
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        conn.request(method, path, body, {"Content-Type": "application/json"})
        got = conn.getresponse()
        out = got.read()
        conn.close()
        if got.status >= 300:
            raise RuntimeError(f"{self.name}: {path}: {got.status} {out[:300]}")
        return json.loads(out) if out else None

    def fill(self, rows):
        bodies = [self.upsert_body(at, rows[at:at + BATCH]) for at in range(0, len(rows), BATCH)]
        def worker(mine):
            conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
            for body in mine:
                conn.request(self.upsert_method, self.upsert_path, body, {"Content-Type": "application/json"})
                got = conn.getresponse()
                out = got.read()
                if got.status >= 300:
                    raise RuntimeError(f"{self.name}: {got.status} {out[:300]}")
            conn.close()
        at = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(worker, [bodies[0::2], bodies[1::2]]))
        return len(rows) / (time.monotonic() - at)

    def ask(self, queries, filtered=False):
        return [self.ids(self.request("POST", self.query_path, self.query_body(q, filtered))) for q in queries]

    def place(self):
        return lab.Place(self.name, self.port, self.proc, self.query_path)


class Veckeep(Http):
    name, upsert_method, upsert_path, query_path = "veckeep", "PUT", "/collections/b/points?wait=true", "/collections/b/points/query"

    def __init__(self, dir, dims):
        self.server = lab.procs.Server(dir, {"collections": {}})
        lab.started(self.server.proc)
        self.port, self.proc = self.server.port, self.server.proc
        self.request("PUT", "/collections/b", json.dumps({"vectors": {"size": dims, "distance": "Cosine"},
                                                         "metadata": {"veckeep": {"provenance": "off"}}}))
        self.request("PUT", "/collections/b/index?wait=true", json.dumps({"field_name": "g", "field_schema": "keyword"}))

    def upsert_body(self, at, rows):
        points = ",".join(f'{{"id":{at + i},"vector":{listed(r)},"payload":{{"g":"g{(at + i) % 10}"}}}}' for i, r in enumerate(rows))
        return f'{{"points":[{points}]}}'

    def query_body(self, q, filtered):
        where = ',"filter":{"must":[{"key":"g","match":{"value":"g3"}}]}' if filtered else ""
        return f'{{"query":{listed(q)},"limit":{LIMIT},"with_payload":false{where}}}'

    def ids(self, got):
        return [p["id"] for p in got["result"]["points"]]

    def stop(self):
        self.server.stop()


class Chroma(Http):
    name, upsert_method = "chroma", "POST"

    def __init__(self, dir, dims):
        self.port = lab.free_port()
        self.proc = lab.started(subprocess.Popen([str(pathlib.Path(sys.executable).parent / "chroma"), "run", "--path", str(dir / "chroma"),
                                                  "--port", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        lab.wait_port(self.port, self.proc, 60)
        base = "/api/v2/tenants/default_tenant/databases/default_database/collections"
        made = self.request("POST", base, json.dumps({"name": "bench", "configuration": {"hnsw": {"space": "cosine"}}}))
        self.upsert_path, self.query_path = f"{base}/{made['id']}/upsert", f"{base}/{made['id']}/query"

    def upsert_body(self, at, rows):
        ids = json.dumps([str(at + i) for i in range(len(rows))])
        meta = json.dumps([{"g": f"g{(at + i) % 10}"} for i in range(len(rows))])
        return f'{{"ids":{ids},"embeddings":[{",".join(map(listed, rows))}],"metadatas":{meta}}}'

    def query_body(self, q, filtered):
        where = ',"where":{"g":"g3"}' if filtered else ""
        return f'{{"query_embeddings":[{listed(q)}],"n_results":{LIMIT},"include":["distances"]{where}}}'

    def ids(self, got):
        return [int(i) for i in got["ids"][0]]

    def stop(self):
        self.proc.terminate()
        self.proc.wait(20)


class Local:
    """qdrant-client without a server."""
    name = "qdrant-client local"

    def __init__(self, dims):
        from qdrant_client import QdrantClient, models
        self.m, self.client = models, QdrantClient(":memory:")
        self.client.create_collection("b", vectors_config=models.VectorParams(size=dims, distance=models.Distance.COSINE))

    def fill(self, rows):
        at = time.monotonic()
        for i in range(0, len(rows), BATCH):
            n = len(rows[i:i + BATCH])
            self.client.upsert("b", self.m.Batch(ids=list(range(i, i + n)), vectors=rows[i:i + n].tolist(),
                                                 payloads=[{"g": f"g{(i + j) % 10}"} for j in range(n)]))
        return len(rows) / (time.monotonic() - at)

    def ask(self, queries, filtered=False):
        m = self.m
        where = m.Filter(must=[m.FieldCondition(key="g", match=m.MatchValue(value="g3"))]) if filtered else None
        return [[p.id for p in self.client.query_points("b", query=q.tolist(), query_filter=where, limit=LIMIT, with_payload=False).points]
                for q in queries]

    def timed(self, queries, seconds, filtered):
        took, end = [], time.monotonic() + seconds
        while time.monotonic() < end or len(took) < 3:
            at = time.monotonic()
            self.ask(queries[len(took) % len(queries)][None], filtered)
            took.append(time.monotonic() - at)
        return {"rps": len(took) / sum(took), "p50_us": statistics.median(took) * 1e6, "p99_us": sorted(took)[int(len(took) * 0.99)] * 1e6}


def bodies(dir, server, queries, filtered):
    path = dir / f"{server.name}-{'filtered' if filtered else 'plain'}.txt"
    path.write_text("\n".join(server.query_body(q, filtered) for q in queries) + "\n")
    return path


def case(args, dir, rows_n, dims):
    rows, queries = data(rows_n, dims)
    keep = np.arange(rows_n) % 10 == 3
    want = {False: truth(rows, queries), True: truth(rows, queries, keep)}
    servers = [Veckeep(dir / "veckeep-server", dims), Chroma(dir, dims)]
    local = Local(dims)
    out = {"rows": rows_n, "dims": dims, "upserts_per_s": {s.name: s.fill(rows) for s in [*servers, local]}, "recall": {}, "runs": []}
    time.sleep(2)  # what servers do after writes
    for s in [*servers, local]:
        n = 20 if s is local else QUERIES
        out["recall"][s.name] = [recall(s.ask(queries[:n], f), want[f][:n]) for f in (False, True)]
    for filtered in (False, True):
        files = {s.name: bodies(dir, s, queries, filtered) for s in servers}
        for clients in CLIENTS:
            runs = {s.name: [] for s in servers}
            for _ in range(args.rounds):
                for s in servers:
                    lab.wait_quiet()
                    runs[s.name].append(lab.load(s.place(), clients, args.seconds, bodies=files[s.name]))
                if clients == 1:
                    runs.setdefault(local.name, []).append(local.timed(queries, args.seconds, filtered))
            out["runs"].append({"filtered": filtered, "clients": clients, "by": runs})
    out["memory_mb"] = {s.name: s.place().memory_mb() for s in servers}
    for s in servers:
        s.stop()
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--case", default=CASES)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=int, default=2)
    p.add_argument("--json", action="store_true")
    args = p.parse_args()
    out = {"cases": []}
    import importlib.metadata
    out["versions"] = {n: importlib.metadata.version(n) for n in ("chromadb", "qdrant-client")}
    try:
        for one in args.case.split(","):
            rows, dims = map(int, one.split("x"))
            print(f"{rows} x {dims} ...", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="veckeep-bench-") as dir:
                (pathlib.Path(dir) / "veckeep-server").mkdir()
                out["cases"].append(case(args, pathlib.Path(dir), rows, dims))
    except RuntimeError:
        for proc in lab.STARTED:
            print(f"{pathlib.Path(proc.args[0]).name}: {'runs' if proc.poll() is None else f'ended with {proc.returncode}'}", file=sys.stderr)
        raise
    finally:
        lab.end_all()
    if args.json:
        json.dump(out, sys.stdout)
        return
    for c in out["cases"]:
        print(f"{c['rows']} x {c['dims']}: upserts/s {({k: round(v) for k, v in c['upserts_per_s'].items()})} recall {c['recall']} memory {c['memory_mb']}")
        for r in c["runs"]:
            print("  ", "filtered" if r["filtered"] else "plain", r["clients"],
                  {k: f"{lab.median(v, 'rps'):.0f}/s p50 {lab.median(v, 'p50_us') / 1000:.2f} ms" for k, v in r["by"].items()})


main()
