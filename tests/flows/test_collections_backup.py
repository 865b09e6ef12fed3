"""Hot backups and snapshots of collections, over HTTP and by the command line. Goal: made while points are written, each copy is one
moment of each collection: a prefix of what its writer sent, no request in halves, searchable, its indexes in agreement.
Method: one writer a collection sends numbered batches of several points; request k writes points that carry k, and one counter point
that holds k; so a copy holds the requests 0..k for the k of its counter point, each whole."""
import json
import threading
import time

import pytest

DIMS = 8
BATCH = 20
COUNTER = 10**9


def row(i):
    return [float((i * 7 + j * 3) % 23 + 1) for j in range(DIMS)]


class Writer(threading.Thread):
    def __init__(self, server, name):
        super().__init__(daemon=True)
        self.server, self.name_, self.stop, self.sent, self.acked, self.wrong = server, name, threading.Event(), 0, 0, []

    def run(self):
        client = self.server.client(60)
        while not self.stop.is_set():
            k = self.sent
            self.sent += 1
            points = [{"id": k * BATCH + i, "vector": row(k * BATCH + i), "payload": {"k": k, "text": "words " * 20}} for i in range(BATCH)]
            points.insert(BATCH // 2, {"id": COUNTER, "vector": row(k), "payload": {"k": -1, "counter": k}})
            got = client.request("PUT", f"/collections/{self.name_}/points?wait=true", {"points": points}, self.server.headers())
            if got.status != 200:
                self.wrong.append(got)
                return
            self.acked += 1
        client.close()


@pytest.fixture
def busy(serve):
    """A server whose three collections are written to; stopped at the end."""
    server = serve({"providers": {}})
    writers = []
    for name in ("one", "two", "drei/vier".replace("/", "-ü-")):
        got = server._client.request("PUT", "/collections/" + quote(name), {"vectors": {"size": DIMS, "distance": "Dot"}}, server.headers())
        assert got.status == 200, got
        got = server._client.request("PUT", f"/collections/{quote(name)}/index?wait=true", {"field_name": "k", "field_schema": "integer"},
                                     server.headers())
        assert got.status == 200, got
        writers.append(Writer(server, quote(name)))
    for w in writers:
        w.start()
    yield server, writers
    for w in writers:
        w.stop.set()
    for w in writers:
        w.join(30)
        assert not w.wrong, w.wrong


def quote(name):
    from urllib.parse import quote
    return quote(name)


def wait_acked(writers, more):
    want = [w.acked + more for w in writers]
    end = time.monotonic() + 30
    while any(w.acked < n for w, n in zip(writers, want)):
        assert time.monotonic() < end and not any(w.wrong for w in writers), [w.wrong for w in writers]
        time.sleep(0.01)


def check_prefix(server, name, least, most):
    """The collection is requests 0..k, whole, for a k of least..most; searches and filters agree."""
    points, offset = {}, None
    while True:
        got = server.post(f"/collections/{name}/points/scroll", {"limit": 10000, "with_vector": True, "offset": offset})
        assert got.status == 200, got
        page = got.json()["result"]
        points.update({p["id"]: p for p in page["points"]})
        offset = page["next_page_offset"]
        if offset is None:
            break
    k = points.pop(COUNTER)["payload"]["counter"]
    assert least - 1 <= k <= most, (least, k, most)
    assert sorted(points) == list(range((k + 1) * BATCH)), f"request in halves, or a hole, at counter {k}"
    for id, p in points.items():
        assert p["payload"]["k"] == id // BATCH and p["vector"] == row(id), p
    got = server.post(f"/collections/{name}/points/count", {"filter": {"must": [{"key": "k", "match": {"value": k}}]}})
    assert got.json()["result"]["count"] == BATCH, got
    got = server.post(f"/collections/{name}/points/count", {"filter": {"must": [{"key": "k", "range": {"gte": 0}}]}})
    assert got.json()["result"]["count"] == len(points), got
    got = server.post(f"/collections/{name}/points/search", {"vector": row(3), "limit": 5})
    assert len(got.json()["result"]) == 5, got
    return k


@pytest.mark.parametrize("how", ["http", "cli"])
def test_a_backup_made_under_writes_restores_to_a_prefix_of_each_collection(busy, serve, tmp_path, how):
    server, writers = busy
    wait_acked(writers, 20)
    before = [w.acked for w in writers]
    if how == "http":
        got = server.post("/v1/backup", {"dir": str(tmp_path / "copy")})
        assert got.status == 200, got
    else:
        done = server.cli("backup", "--json", tmp_path / "copy")
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["bytes"] > 0
    after = [w.sent for w in writers]
    wait_acked(writers, 5)  # writing goes on behind it
    other = tmp_path / "other"
    other.mkdir()
    done = server.cli("restore", tmp_path / "copy", "--data-dir", other / "data")
    assert done.returncode == 0, done
    restored = serve({"providers": {}}, start=False, dir="other2")
    restored.data = other / "data"
    restored.start()
    for w, least, most in zip(writers, before, after):
        check_prefix(restored, w.name_, least, most)
        # and it takes writes
        got = restored._client.request("PUT", f"/collections/{w.name_}/points?wait=true",
                                       {"points": [{"id": COUNTER + 1, "vector": row(1)}]}, restored.headers())
        assert got.status == 200, got
    restored.restart()
    for w in writers:
        assert restored.post(f"/collections/{w.name_}/points", {"ids": [COUNTER + 1]}).json()["result"], w.name_


def test_a_snapshot_made_under_writes_is_a_prefix_wherever_it_is_recovered(busy, serve, tmp_path):
    server, writers = busy
    wait_acked(writers, 20)
    w = writers[0]
    least = w.acked
    got = server.post(f"/collections/{w.name_}/snapshots")
    assert got.status == 200, got
    most, snapshot = w.sent, got.json()["result"]
    wait_acked(writers, 5)
    data = server.get(f"/collections/{w.name_}/snapshots/{snapshot['name']}")
    assert data.status == 200 and len(data.body) == snapshot["size"]
    # uploaded to another server
    other = serve({"providers": {}})
    edge = "----edge"
    body = (f'--{edge}\r\nContent-Disposition: form-data; name="snapshot"; filename="s.snapshot"\r\n'
            f"Content-Type: application/octet-stream\r\n\r\n").encode() + data.body + f"\r\n--{edge}--\r\n".encode()
    got = other._client.request("POST", "/collections/copy/snapshots/upload?priority=snapshot&wait=true", body,
                                other.headers({"Content-Type": f"multipart/form-data; boundary={edge}"}))
    assert got.status == 200, got
    k = check_prefix(other, "copy", least, most)
    # recovered under another name where it was made, while all are written
    where = f"file://{server.data}/snapshots/{w.name_}/{snapshot['name']}"
    got = server._client.request("PUT", "/collections/back/snapshots/recover?wait=true", {"location": where}, server.headers())
    assert got.status == 200, got
    assert check_prefix(server, "back", least, most) == k
    # over the collection that is written: no request fails, what is written from then on is on top of the snapshot
    busy_one = writers[1]
    got = server.post(f"/collections/{busy_one.name_}/snapshots")
    assert got.status == 200, got
    where = f"file://{server.data}/snapshots/{busy_one.name_}/{got.json()['result']['name']}"
    wait_acked(writers, 20)
    got = server._client.request("PUT", f"/collections/{busy_one.name_}/snapshots/recover?wait=true", {"location": where}, server.headers())
    assert got.status == 200, got
    wait_acked(writers, 5)
    got = server._client.request("DELETE", f"/collections/{w.name_}/snapshots/{snapshot['name']}", None, server.headers())
    assert got.status == 200, got
