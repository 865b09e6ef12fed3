"""Collections with an index, for the tests of approximate search: rows that lie in clusters, what a client waits for, and the oracle:
exact search by the same server (`params.exact`), which other tests hold against numpy and Qdrant's own engine."""
import json
import time

import numpy as np

from qdrant_http import ask

DIMS = 64
# Small enough for thresholds to be had: an index from 40 rows on, at most 40 rows are scanned.
SMALL = {"optimizers_config": {"indexing_threshold": 10}, "hnsw_config": {"full_scan_threshold": 10}}
OFF = {"indexing_threshold": 0}


def clustered(rng, n, dims=DIMS, clusters=64):
    centres = rng.standard_normal((clusters, dims))
    rows = centres[rng.integers(0, clusters, n)] + 0.6 * rng.standard_normal((n, dims))
    return np.round(rows, 4).astype(np.float32)


def point(id, row, payload=None, vector=None):
    row = [float(x) for x in row]
    return {"id": int(id), "vector": {vector: row} if vector else row, **({"payload": payload} if payload else {})}


def put(server, name, points, batch=2000):
    for i in range(0, len(points), batch):
        ask(server, "PUT", f"/collections/{name}/points?wait=true", {"points": points[i:i + batch]})


def create(server, name="c", distance="Cosine", dims=DIMS, **more):
    ask(server, "PUT", f"/collections/{name}", {"vectors": {"size": dims, "distance": distance}, **more})


def indexes(server, name="c"):
    return ask(server, "GET", f"/v1/collections/{name}/index")


def index(server, name="c", vector=""):
    return indexes(server, name)["index"][vector]


def status(server, name="c"):
    return ask(server, "GET", f"/collections/{name}")["result"]["status"]


def wait(true, seconds=60, what="it"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        got = true()
        if got:
            return got
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


def wait_green(server, name="c", seconds=60):
    """Every status on the way."""
    seen, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        now = status(server, name)
        if not seen or seen[-1] != now:
            seen.append(now)
        if now != "yellow":
            assert now == "green", (now, indexes(server, name))
            return seen
        time.sleep(0.02)
    raise AssertionError(f"not green in {seconds} s: {indexes(server, name)}")


def wait_measured(server, name="c", vector="", seconds=60):
    return wait(lambda: (lambda i: i["recall"]["measured"] is not None and i)(index(server, name, vector)), seconds, "recall to be measured")


def search(server, row, limit=10, name="c", exact=False, params=None, **more):
    body = {"query": [float(x) for x in row], "limit": limit, "params": {"exact": exact, **(params or {})}, **more}
    return ask(server, "POST", f"/collections/{name}/points/query", body)["result"]["points"]


def ids(points):
    return [p["id"] for p in points]


def check_scores(server, row, found, name="c", filter=None, **more):
    """Each score is what exact search gives that very point, to the bit; best first, nobody twice."""
    assert len(set(ids(found))) == len(found)
    here = {"must": [{"has_id": ids(found)}]}
    truth = {p["id"]: p["score"] for p in search(server, row, len(found) or 1, name, exact=True, filter=here, **more)}
    assert {p["id"]: p["score"] for p in found} == truth
    scores = [p["score"] for p in found]
    assert scores == sorted(scores, reverse=True)


def recall(server, rows, limit=10, name="c", check=True, filter=None, **more):
    """The share of what exact search finds; by score, so that ties do not count against it."""
    good = all_ = 0
    for row in rows:
        kw = {"filter": filter} if filter else {}
        found, truth = search(server, row, limit, name, **kw, **more), search(server, row, limit, name, exact=True, **kw)
        assert len(found) == len(truth), (len(found), len(truth))
        if check:
            check_scores(server, row, found, name)
        least = truth[-1]["score"] if truth else 0
        good += sum(p["score"] >= least for p in found)
        all_ += len(truth)
    return good / all_ if all_ else 1.0


def gen_files(server):
    """The files of indexes, of all collections."""
    return sorted(p for p in (server.data / "collections").glob("*/gen-*"))


def searches(server, name="c", vector=""):
    i = index(server, name, vector)["searches"]
    return i["approximate"], i["exact"]


def show(value):
    return json.dumps(value, indent=1)
