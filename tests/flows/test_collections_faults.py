"""Faults below collections, over HTTP. Goal: a file that cannot be read costs its own collection a 503 and nobody else anything;
a full disk refuses writes with a 507, loses nothing that was acknowledged, and lets writes on when there is room; readers that
take long keep no writer from growing its map.
Method: the real server; data.mdb cut short under it, a small tmpfs as data directory, a small map to begin with."""
import os
import pathlib
import subprocess
import threading
import time

import pytest

import procs
from qdrant_http import ask, error

DIMS = 64


def row(i):
    return [((i * 31 + j * 17) % 97) / 97.0 + 0.01 for j in range(DIMS)]


def points(ids, **payload):
    return {"points": [{"id": i, "vector": row(i), "payload": {"n": i, **payload}} for i in ids]}


def create(server, name, **more):
    ask(server, "PUT", f"/collections/{name}", {"vectors": {"size": DIMS, "distance": "Cosine"}, **more})


def fill(server, name, n, step=1000, **payload):
    for at in range(0, n, step):
        ask(server, "PUT", f"/collections/{name}/points?wait=true", points(range(at, min(n, at + step)), **payload))


def data_file(server, name):
    """The collection's data file, found by its size being touched: each has an environment of its own."""
    before = {p: p.stat().st_mtime_ns for p in (server.data / "collections").glob("*/data.mdb")}
    ask(server, "PUT", f"/collections/{name}/points?wait=true", points([0]))
    changed = [p for p, at in before.items() if p.stat().st_mtime_ns != at]
    assert len(changed) == 1, (before, changed)
    return changed[0]


READS = [
    ("POST", "/points/search", {"vector": row(5), "limit": 3}),
    ("POST", "/points/query", {"query": row(5), "limit": 3, "filter": {"must": [{"key": "n", "range": {"gte": 10}}]}}),
    ("POST", "/points/query/batch", {"searches": [{"query": row(i), "limit": 3} for i in range(8)]}),
    ("POST", "/points/query/groups", {"query": row(5), "limit": 3, "group_by": "n"}),
    ("POST", "/points/scroll", {"limit": 10}),
    ("POST", "/points/scroll", {"limit": 10, "filter": {"must": [{"key": "n", "match": {"value": 7}}]}}),
    ("POST", "/points", {"ids": [1, 2, 3], "with_vector": True}),
    ("GET", "/points/1", None),
    ("POST", "/points/count", {"filter": {"must": [{"key": "n", "range": {"gte": 10}}]}}),
    ("POST", "/facet", {"key": "n"}),
    ("GET", "", None),
]


def settle(server, name):
    """Sealed, so that rows lie in blocks of their own."""
    def green():
        return ask(server, "GET", f"/collections/{name}")["result"]["status"] == "green"
    procs.wait_for(green, 20, "sealing")


def test_a_file_cut_short_costs_its_own_collection_a_503_and_nobody_else_anything(serve):
    server = serve({"providers": {}})
    for name in ("good", "bad"):
        create(server, name)
        fill(server, name, 4000)
        ask(server, "PUT", f"/collections/{name}/index?wait=true", {"field_name": "n", "field_schema": "integer"})
        settle(server, name)
    good = [ask(server, m, "/collections/good" + p, b)["result"] for m, p, b in READS]
    snapshot = ask(server, "POST", "/collections/bad/snapshots")["result"]["name"]
    file = data_file(server, "bad")
    pid = server.proc.pid
    whole = file.stat().st_size
    for keep in (whole * 3 // 4, whole // 2, whole // 8, 8192, 0):
        os.truncate(file, keep)
        refused = 0
        if keep in (whole * 3 // 4, 0):  # a write finds it first
            assert error(server, "PUT", "/collections/bad/points?wait=true", points([1]), 503)
        for _ in range(2):
            for method, path, body in READS:
                got = server._client.request(method, "/collections/bad" + path, body, server.headers())
                assert got.status in (200, 503), (keep, method, path, got)
                if got.status == 503:
                    refused += 1
                    text = got.json()["status"]["error"]
                    assert text.startswith("Service error: storage of collection `bad`"), text
        text = error(server, "PUT", "/collections/bad/points?wait=true", points([1]), 503)
        assert text.startswith("Service error: storage of collection `bad`"), text
        if keep <= 8192:
            assert refused == 2 * len(READS), refused
    # a request of the good one that reads the bad one
    text = error(server, "POST", "/collections/good/points/query",
                 {"query": 1, "limit": 3, "lookup_from": {"collection": "bad"}}, 503)
    assert "`bad`" in text, text
    text = error(server, "POST", "/collections/good/points/query/groups",
                 {"query": row(5), "limit": 3, "group_by": "n", "with_lookup": "bad"}, 503)
    assert "`bad`" in text, text
    # many at once, in all threads
    def hammer():
        client = server.client(30)
        for _ in range(10):
            got = client.post("/collections/bad/points/query/batch", READS[2][2], server.headers())
            assert got.status == 503, got
        client.close()
    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert server.proc.poll() is None and server.proc.pid == pid, server.log()
    assert [ask(server, m, "/collections/good" + p, b)["result"] for m, p, b in READS] == good
    ask(server, "PUT", "/collections/good/points?wait=true", points([1]))
    ready = server.get("/v1/health")
    assert ready.status == 200 and "collection_broken" in ready.json()["degraded"], ready
    assert ready.json()["collections"]["broken"] == 1, ready
    # the way back: a snapshot in its place
    ask(server, "PUT", "/collections/bad/snapshots/recover?wait=true",
        {"location": f"file://{server.data}/snapshots/bad/{snapshot}"})
    assert ask(server, "POST", "/collections/bad/points/count", {})["result"]["count"] == 4000
    ask(server, "PUT", "/collections/bad/points?wait=true", points([1]))
    ready = server.get("/v1/health").json()
    assert "collection_broken" not in ready["degraded"] and ready["collections"]["broken"] == 0, ready


def test_a_looked_up_collection_may_fail_in_the_middle_of_its_record(serve):
    """The record was left with its object open; the next brace met an assertion, and that ended the server. Cut shorter page by page:
    somewhere on the way the page that has the id is there and the one that has the vector is not. Sealed last, so that vectors lie
    behind all else."""
    server = serve({"providers": {}})
    for name, payload in (("good", {}), ("bad", {"text": "x" * 300})):
        create(server, name)
        file = data_file(server, name)  # in the end that of `bad`
        fill(server, name, 2000, **payload)
        settle(server, name)
    whole = file.stat().st_size
    body = {"query": row(5), "limit": 8, "group_by": "n", "with_lookup": {"collection": "bad", "with_vectors": True}}
    seen = set()
    for keep in range(whole // 4096 * 4096, -1, -4096):
        os.truncate(file, keep)
        got = server._client.request("POST", "/collections/good/points/query/groups", body, server.headers())
        seen.add(got.status)
        assert got.status in (200, 503), (keep, got)
        assert got.status == 200 or "`bad`" in got.json()["status"]["error"], (keep, got)
    assert seen == {200, 503}
    assert ask(server, "POST", "/collections/good/points/count", {})["result"]["count"] == 2000


def test_a_write_may_be_the_first_to_meet_a_file_that_is_gone(serve):
    server = serve({"providers": {}})
    create(server, "bad")
    fill(server, "bad", 2000)
    os.truncate(data_file(server, "bad"), 0)
    for _ in range(2):
        text = error(server, "PUT", "/collections/bad/points?wait=true", points([1]), 503)
        assert text.startswith("Service error: storage of collection `bad`"), text
    text = error(server, "PUT", "/collections/bad/index?wait=true", {"field_name": "n", "field_schema": "integer"}, 503)
    assert text.startswith("Service error: storage of collection `bad`"), text
    got = server._client.post("/collections/bad/snapshots", None, server.headers())
    assert got.status in (500, 503), got
    for _ in range(1200):  # more than LMDB has readers
        got = server.post("/collections/bad/points", {"ids": [1]})
        assert got.status == 503 and "storage of collection `bad`" in got.json()["status"]["error"], got
    assert server.get("/metrics").status == 200
    assert server.metric("veckeep_collection_broken", collection="bad") == 1
    assert ask(server, "DELETE", "/collections/bad")["result"] is True


def test_a_file_cut_short_is_told_when_the_server_starts_and_the_collection_can_be_dropped(serve):
    server = serve({"providers": {}})
    for name in ("good", "bad"):
        create(server, name)
        fill(server, name, 2000)
    file = data_file(server, "bad")
    whole = file.stat().st_size
    for keep in (whole // 2, 8192, 4096, 100, 0):
        server.stop()
        os.truncate(file, keep)
        server.start()
        assert server.get("/readyz").status == 200
        for method, path, body in READS[:6]:
            got = server._client.request(method, "/collections/bad" + path, body, server.headers())
            assert got.status in (200, 503), (keep, method, path, got)
            if got.status != 200:
                assert got.json()["status"]["error"].startswith("Service error: storage of collection `bad`"), got
        assert ask(server, "POST", "/collections/good/points/count", {})["result"]["count"] == 2000
    assert server._client.post("/collections/bad/points/scroll", {}, server.headers()).status == 503
    assert ask(server, "DELETE", "/collections/bad")["result"] is True
    create(server, "bad")
    fill(server, "bad", 10)
    assert ask(server, "POST", "/collections/bad/points/count", {})["result"]["count"] == 10


# ---- disk full ----

@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 48 MB; skipped where none can be mounted."""
    at = tmp_path / "disk"
    at.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(at)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield at
    for _ in range(50):
        if subprocess.run(["umount", str(at)], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "-l", str(at)], check=True)


def test_a_full_disk_refuses_writes_and_loses_nothing_and_writes_resume(serve, small_disk):
    server = serve({"providers": {}}, start=False)
    server.data = small_disk / "data"
    server.start()
    try:
        create(server, "c")
        acked, at, refused = 0, 0, None
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"\0" * (20 << 20))
        pad = "x" * 2000
        while refused is None:
            got = server._client.request("PUT", "/collections/c/points?wait=true", points(range(at, at + 200), pad=pad), server.headers())
            if got.status == 200:
                at += 200
                acked = at
            else:
                refused = got
            assert at < 200000, "a disk of 48 MB has no end"
        assert refused.status == 507, refused
        text = refused.json()["status"]["error"]
        assert text.startswith("Insufficient storage: ") and "disk" in text, text
        assert acked > 0
        # reads and searches go on, the request that failed left nothing
        assert ask(server, "POST", "/collections/c/points/count", {})["result"]["count"] == acked
        hit = ask(server, "POST", "/collections/c/points/search", {"vector": row(3), "limit": 200000})["result"]
        assert len(hit) == acked
        got = ask(server, "POST", "/collections/c/points", {"ids": [acked, acked + 1]})["result"]
        assert got == []
        ready = server.get("/v1/health")
        assert ready.status == 200, ready
        assert "collection_full" in ready.json()["degraded"] and ready.json()["collections"]["full"] == 1, ready
        # another write is refused at once, and just as clearly; a new collection, too
        assert error(server, "PUT", "/collections/c/points", points([10**6], pad=pad * 50), 507).startswith("Insufficient storage: ")
        got = server._client.request("PUT", "/collections/d", {"vectors": {"size": 4, "distance": "Dot"}}, server.headers())
        assert got.status in (200, 507), got
        # space is made: writes resume by themselves within seconds
        ballast.unlink()

        def takes():
            got = server._client.request("PUT", "/collections/c/points?wait=true", points(range(at, at + 200), pad=pad), server.headers())
            assert got.status in (200, 507), got
            return got.status == 200
        procs.wait_for(takes, 10, "writes to resume")
        acked = at + 200
        ready = server.get("/v1/health").json()
        assert "collection_full" not in ready["degraded"] and ready["collections"]["full"] == 0, ready
        # to the brim again: what makes room inside the collection is let through
        for at in range(acked, 200000, 200):
            got = server._client.request("PUT", "/collections/c/points?wait=true", points(range(at, at + 200), pad=pad), server.headers())
            if got.status != 200:
                assert got.status == 507, got
                break
            acked = at + 200

        def deletes():
            got = server._client.request("POST", "/collections/c/points/delete?wait=true", {"points": list(range(0, 100))}, server.headers())
            assert got.status in (200, 507), got
            return got.status == 200
        procs.wait_for(deletes, 15, "a delete on a full disk")
        assert ask(server, "POST", "/collections/c/points/count", {})["result"]["count"] == acked - 100
        server.kill()
        server.start()
        assert ask(server, "POST", "/collections/c/points/count", {})["result"]["count"] == acked - 100
        some = list(range(100, acked, max(1, acked // 500)))
        got = ask(server, "POST", "/collections/c/points", {"ids": some, "with_payload": ["n"]})["result"]
        assert sorted(p["id"] for p in got) == some and all(p["payload"]["n"] == p["id"] for p in got)
    finally:
        server.stop()


# ---- long readers ----

def test_a_growing_collection_is_never_refused_while_long_readers_hold_views(serve):
    """The map starts at 4 MB and doubles as it must; meanwhile four readers scan with filters that no index answers, some for more
    than a second."""
    server = serve({"providers": {}, "collections": {"map_bytes": "4MiB"}})
    create(server, "c")
    fill(server, "c", 1000, pad="x" * 500)
    stop, problems, scans = threading.Event(), [], []
    many = [{"key": "pad", "match": {"text": f"nowhere{i}"}} for i in range(20)]

    def read():
        client = server.client(60)
        while not stop.is_set():
            began = time.monotonic()
            got = client.post("/collections/c/points/scroll", {"limit": 5, "filter": {"should": many}}, server.headers())
            scans.append(time.monotonic() - began)
            if got.status != 200:
                problems.append(got)
        client.close()
    threads = [threading.Thread(target=read) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        for at in range(1000, 20000, 1000):
            ask(server, "PUT", "/collections/c/points?wait=true", points(range(at, at + 1000), pad="x" * 500))
    finally:
        stop.set()
        for t in threads:
            t.join(60)
    assert not problems, problems[:3]
    assert len(scans) > 8, scans
    print(f"{len(scans)} scans, the longest {max(scans):.1f} s")
    info = ask(server, "GET", "/v1/collections/c")
    assert info["storage"]["map_bytes"] > 16 << 20, info
    assert ask(server, "POST", "/collections/c/points/count", {})["result"]["count"] == 20000


def test_a_request_gives_its_view_back_at_its_deadline(serve):
    server = serve({"providers": {}})
    create(server, "c")
    pad = {f"k{i}": ["word " * 20] * 20 for i in range(10)}
    for at in range(0, 20000, 500):
        ask(server, "PUT", "/collections/c/points?wait=true", points(range(at, at + 500), **pad))
    began = time.monotonic()
    conditions = [{"key": f"k{i % 10}", "match": {"text": f"nowhere{i}"}} for i in range(500)]
    body = {"limit": 1, "filter": {"should": conditions}}
    got = server._client.post("/collections/c/points/scroll?timeout=1", body, server.headers())
    took = time.monotonic() - began
    assert got.status == 408, got
    assert got.json()["status"]["error"].startswith("Timeout: "), got
    assert took < 3, took
    procs.wait_for(lambda: ask(server, "GET", "/v1/collections/c")["storage"]["oldest_reader_lag_txns"] == 0, 2, "the view to end")
