#!/usr/bin/env python3
"""The server around the graph, over a set of bench/ann: searches beside a build, searches beside writes, and a restart.

    bench/ann live [SET]...        what prepares this and calls it; SET@ROWS takes fewer rows (default text)
    bench/ann_live.py SET... [--seconds S] [--rounds N]

Rows go in over HTTP (bodies made beforehand would not fit: two threads make and send them, so upserts/s are a floor, not a measure).
When the index is ready, wrk asks at one and at eight clients: idle; while the same index is built anew (both cores build, at their lowest
priority); and while points are upserted by another connection as fast as it gets answers. Rounds take turns. Then the server is stopped and
started: from its process's beginning to the first answer of a search, which must come from the index, twice with the file in the page cache
and once after it was dropped from there. Recall is against the set's own truth. Writes .cache/bench/live.json
and RESULTS.md, but for a smaller set (SET@ROWS) only what it prints."""
import argparse
import concurrent.futures
import json
import os
import pathlib
import select
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
import orjson

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import ann_data  # noqa: E402
import lab  # noqa: E402
import report  # noqa: E402
from wire import Client  # noqa: E402

NAME, BATCH, LIMIT, QUERIES, CLIENTS = "live", 500, 10, 1000, (1, 8)
DISTANCE = {"cosine": "Cosine", "l2": "Euclid"}
BUILD_MAX_S = 3600


class Live:
    """A server with one collection, and the files that wrk reads."""

    def __init__(self, dir, data):
        self.dir, self.data, self.meta = dir, data, data.meta
        self.base = np.asarray(data.base)  # what orjson knows, unlike a memmap
        self.query = np.asarray(data.query[:QUERIES])
        self.server = lab.procs.Server(dir, {"collections": {}})
        lab.started(self.server.proc)
        self.bodies = dir / "bodies.txt"
        self.bodies.write_bytes(b"\n".join(orjson.dumps({"query": q, "limit": LIMIT}, option=orjson.OPT_SERIALIZE_NUMPY)
                                           for q in self.query) + b"\n")

    def call(self, method, path, body=None):
        client = Client("127.0.0.1", self.server.port, 600)
        try:
            got = client.request(method, path, body)
        finally:
            client.close()
        if got.status >= 300:
            raise RuntimeError(f"{path}: {got}")
        return got.json()

    def upsert(self, client, first, last):
        body = orjson.dumps({"batch": {"ids": list(range(first, last)), "vectors": self.base[first:last]}}, option=orjson.OPT_SERIALIZE_NUMPY)
        got = client.request("PUT", f"/collections/{NAME}/points?wait=true", body, {"Content-Type": "application/json"})
        if got.status >= 300:
            raise RuntimeError(got)

    def fill(self):
        self.call("PUT", f"/collections/{NAME}", {"vectors": {"size": self.meta["d"], "distance": DISTANCE[self.meta["metric"]]},
                                                  "optimizers_config": {"indexing_threshold": 1000},
                                                  "metadata": {"veckeep": {"provenance": "off"}}})
        n = len(self.base)

        def worker(which):
            client = Client("127.0.0.1", self.server.port, 600)
            for at in range(which * BATCH, n, 2 * BATCH):
                self.upsert(client, at, min(at + BATCH, n))
            client.close()
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(worker, (0, 1)))
        return n / (time.monotonic() - began)

    def index(self):
        return self.call("GET", f"/v1/collections/{NAME}/index")["index"][""]

    def wait_index(self, *states):
        end = time.monotonic() + BUILD_MAX_S
        while time.monotonic() < end:
            got = self.index()
            if got["state"] in states:
                return got
            time.sleep(0.2)
        raise RuntimeError(f"the index is {self.index()}")

    def rebuild(self):
        self.call("POST", f"/v1/collections/{NAME}/index/rebuild", {"vector": ""})
        return self.wait_index("building")

    def search(self, client, i):
        got = client.request("POST", f"/collections/{NAME}/points/query", {"query": [float(x) for x in self.query[i]], "limit": LIMIT})
        return [p["id"] for p in got.json()["result"]["points"]] if got.status == 200 else []

    def recall(self):
        client = Client("127.0.0.1", self.server.port, 60)
        found = np.array([self.search(client, i) for i in range(len(self.query))], dtype=np.int64)
        client.close()
        return self.data.recall(found, LIMIT)

    def load(self, clients, seconds):
        place = lab.Place("veckeep", self.server.port, self.server.proc, f"/collections/{NAME}/points/query")
        return lab.load(place, clients, seconds, bodies=self.bodies)


# ---- searches beside something ----

class Writes:
    """Upserts of rows that are there already, by another process, until it is told to end."""

    def __init__(self, live):
        self.proc = subprocess.Popen([sys.executable, "-B", __file__, "--write", str(live.server.port), live.data.name],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.proc.stdout.readline()

    def end(self):
        out, _ = self.proc.communicate("\n")
        return float(out)


def write_until_told(port, name):
    """256 points a request; their bodies are made before the clock runs."""
    data = ann_data.Set(name)
    base = np.asarray(data.base)
    step = 256
    bodies = [orjson.dumps({"batch": {"ids": list(range(at, at + step)), "vectors": base[at:at + step]}}, option=orjson.OPT_SERIALIZE_NUMPY)
              for at in range(0, min(len(base) - step, 40 * step), step)]
    client = Client("127.0.0.1", port, 600)
    print("ready", flush=True)
    began, n = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        got = client.request("PUT", f"/collections/{NAME}/points?wait=true", bodies[n % len(bodies)], {"Content-Type": "application/json"})
        if got.status >= 300:
            raise RuntimeError(got)
        n += 1
    print(n * step / (time.monotonic() - began))


def beside(live, args):
    """{clients: {situation: [runs]}}; and points/s written beside."""
    out = {c: {"idle": [], "building": [], "writing": []} for c in CLIENTS}
    written = []
    for _ in range(args.rounds):
        for clients in CLIENTS:
            lab.wait_quiet(5)
            out[clients]["idle"].append(live.load(clients, args.seconds))
            live.rebuild()
            out[clients]["building"].append(live.load(clients, args.seconds))
            if live.index()["state"] != "building":
                raise RuntimeError("the build was over before the searches: take more rows")
            live.call("POST", f"/v1/collections/{NAME}/index/cancel", {"vector": ""})
            live.wait_index("cancelled", "ready", "following")
        writes = Writes(live)
        try:
            for clients in CLIENTS:
                out[clients]["writing"].append(live.load(clients, args.seconds))
        finally:
            written.append(writes.end())
        live.wait_index("cancelled", "ready")
    return out, statistics.median(written)


# ---- a restart ----

def forget(path):
    """Its pages leave the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def restart(live, cold):
    live.server.stop()
    if cold:
        for path in sorted(live.server.data.rglob("*")):
            if path.is_file():
                forget(path)
    began = time.monotonic()
    live.server.start()
    lab.started(live.server.proc)
    client = Client("127.0.0.1", live.server.port, 60)
    ids = live.search(client, 0)
    first = time.monotonic() - began
    client.close()
    if len(ids) != LIMIT:
        raise RuntimeError(f"the first search after a start answered {ids}")
    return {"cold": cold, "first_answer_s": first, "state": live.index()["state"]}


def measure(name, args):
    data = ann_data.ensure(name)
    dir = ann_data.HOME / "live"
    shutil.rmtree(dir, ignore_errors=True)
    dir.mkdir(parents=True)
    live = Live(dir, data)
    print(f"{name}: filling", file=sys.stderr, flush=True)
    got = {"set": name, "rows": len(live.base), "dims": data.meta["d"], "fill_per_s": live.fill()}
    began = time.monotonic()
    got["index"] = live.wait_index("ready")
    got["wait_s"] = time.monotonic() - began
    got["recall"] = live.recall()
    print(f"{name}: searches", file=sys.stderr, flush=True)
    got["beside"], got["written_per_s"] = beside(live, args)
    got["memory_mb"] = lab.Place("veckeep", live.server.port, live.server.proc).memory_mb()
    print(f"{name}: restarts", file=sys.stderr, flush=True)
    got["restarts"] = [restart(live, cold) for cold in (False, False, True)]
    got["recall_after"] = live.recall()
    live.server.stop()
    shutil.rmtree(dir, ignore_errors=True)
    return got


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("sets", nargs="*", default=["text"])
    p.add_argument("--seconds", type=int, default=3)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--write", type=int, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.write:
        return write_until_told(args.write, args.sets[0])
    keep = ann_data.ROOT / ".cache" / "bench" / "live.json"
    got = json.loads(keep.read_text()) if keep.exists() else {"sets": {}}
    try:
        for name in args.sets:
            got["sets"][name] = measure(name, args)
            print(json.dumps(got["sets"][name], indent=1))
    finally:
        lab.end_all()
    if any("@" in name for name in args.sets):  # a smoke run is no result
        return
    got.update(report.origin(), machine=lab.machine(), command="bench/ann live " + " ".join(args.sets))
    keep.write_text(json.dumps(got, indent=1))
    pathlib.Path(__file__).with_name("RESULTS.md").write_text(report.whole(keep.parent))


if __name__ == "__main__":
    main()
