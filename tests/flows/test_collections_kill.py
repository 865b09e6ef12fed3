"""kill -9 of a server with collections. Goal: a write that was acknowledged is there whole, one that was not is there whole or not at
all, and what indexes say agrees with the points.
Method: writers upsert batches, delete, and set payload, each over ids of its own, while sealing and index building run; kill -9 at a
random moment; the server starts on the same directory and every point is compared with what its writer knows: the state after its last
acknowledged request, or that after the one in flight. VECKEEP_SEED replays, VECKEEP_KILLS sets the rounds."""
import http.client
import os
import random
import threading
import time

from seeds import SEED

ROUNDS = int(os.environ.get("VECKEEP_KILLS", "15"))
WRITERS = 4
DIMS = 16
SPAN = 1 << 32  # ids of writer w: w * SPAN + number


def row(writer, number, version):
    return [float((writer * 7 + number * 13 + version * 5 + j * 3) % 31 + 1) for j in range(DIMS)]


def of(writer, number, version, tag):
    return {"writer": writer, "number": number, "version": version, "tag": tag}


class Writer(threading.Thread):
    """Knows `state`: number -> (version, tag), as of the last answer, and `maybe`: as of the request in flight, or None."""

    def __init__(self, server, writer, rng, state, next_number):
        super().__init__(daemon=True)
        self.client, self.server, self.writer, self.rng = server.client(20), server, writer, rng
        self.state, self.maybe, self.next_number = state, None, next_number
        self.acknowledged, self.wrong = 0, []

    def request(self):
        """A random request: (method, path, body, state after it)."""
        rng, after = self.rng, dict(self.state)
        known = list(self.state)
        kind = rng.choice(["upsert", "upsert", "delete", "payload", "again"])
        if kind == "upsert" or len(known) < 20:
            numbers = [self.next_number + i for i in range(rng.choice([1, 5, 50, 200]))]
            self.next_number += len(numbers)
            versions = {n: 0 for n in numbers}
        elif kind == "again":
            numbers = rng.sample(known, rng.randint(1, min(len(known), 100)))
            versions = {n: self.state[n][0] + 1 for n in numbers}
        else:
            numbers = rng.sample(known, rng.randint(1, min(len(known), 60)))
            ids = [self.writer * SPAN + n for n in numbers]
            if kind == "delete":
                for n in numbers:
                    del after[n]
                return "POST", "/points/delete", {"points": ids}, after
            tag = rng.randrange(1000)
            for n in numbers:
                after[n] = (self.state[n][0], tag)
            return "POST", "/points/payload", {"points": ids, "payload": {"tag": tag}}, after
        tag = rng.randrange(1000)
        points = [{"id": self.writer * SPAN + n, "vector": row(self.writer, n, v), "payload": of(self.writer, n, v, tag)}
                  for n, v in versions.items()]
        after.update({n: (v, tag) for n, v in versions.items()})
        return "PUT", "/points", {"points": points}, after

    def run(self):
        while True:
            method, path, body, after = self.request()
            self.maybe = after
            wait = self.rng.choice(["?wait=true", "?wait=true", "?wait=false", ""])  # durable either way
            try:
                got = self.client.request(method, "/collections/c" + path + wait, body, self.server.headers())
            except (OSError, http.client.HTTPException):
                return  # the server is gone: nobody knows
            if got.status == 200:
                self.state, self.maybe = after, None
                self.acknowledged += 1
            elif got.status == 503:
                self.maybe = None
            else:
                self.wrong.append(got)
                return


class Admin(threading.Thread):
    """Indexes come and go, so that one is being built whenever the kill comes."""

    def __init__(self, server, rng):
        super().__init__(daemon=True)
        self.client, self.server, self.rng, self.wrong = server.client(20), server, rng, []

    def run(self):
        while True:
            try:
                got = self.client.request("PUT", "/collections/c/index", {"field_name": "version", "field_schema": "integer"},
                                          self.server.headers())
                time.sleep(self.rng.uniform(0, 0.1))
                again = self.client.request("DELETE", "/collections/c/index/version", None, self.server.headers())
            except (OSError, http.client.HTTPException):
                return
            self.wrong += [g for g in (got, again) if g.status not in (200, 503)]


def everything(server):
    out, offset = {}, None
    while True:
        body = {"limit": 5000, "with_payload": True, "with_vector": True, **({"offset": offset} if offset is not None else {})}
        got = server.post("/collections/c/points/scroll", body)
        assert got.status == 200, got
        page = got.json()["result"]
        for p in page["points"]:
            assert p["id"] not in out, p["id"]
            out[p["id"]] = p
        offset = page["next_page_offset"]
        if offset is None:
            return out


def state_of(points, writer):
    out = {}
    for id, p in points.items():
        if id // SPAN != writer:
            continue
        n, payload = id % SPAN, p["payload"]
        assert (payload["writer"], payload["number"]) == (writer, n), p
        assert p["vector"] == row(writer, n, payload["version"]), p
        out[n] = (payload["version"], payload["tag"])
    return out


def count(server, filter=None):
    got = server.post("/collections/c/points/count", {"exact": True, **({"filter": filter} if filter else {})})
    assert got.status == 200, got
    return got.json()["result"]["count"]


def check_indexes(server, points, rng):
    """`tag` has an index; nested under a key path that none knows the same condition is answered by reading."""
    assert count(server) == len(points)
    for tag in rng.sample(range(1000), 5) + [p["payload"]["tag"] for p in rng.sample(list(points.values()), min(len(points), 5))]:
        want = sorted(id for id, p in points.items() if p["payload"]["tag"] == tag)
        by_index = {"must": [{"key": "tag", "match": {"value": tag}}]}
        assert count(server, by_index) == len(want), tag
        got = server.post("/collections/c/points/scroll", {"limit": 10000, "filter": by_index, "with_payload": False})
        assert [p["id"] for p in got.json()["result"]["points"]] == want, tag
        assert count(server, {"must": [{"key": "number", "range": {"gte": 0}}], "must_not": [by_index]}) == len(points) - len(want)
    for p in rng.sample(list(points.values()), min(len(points), 3)):  # by its vector each finds itself
        got = server.post("/collections/c/points/search", {"vector": p["vector"], "limit": 1, "with_vector": True,
                                                           "filter": {"must": [{"has_id": [p["id"]]}]}})
        assert got.json()["result"][0]["vector"] == p["vector"]


def test_acknowledged_writes_of_points_survive_a_kill(serve):
    rng = random.Random(SEED)
    server = serve({"providers": {}}, start=False)
    states, next_numbers, total, applied = [{} for _ in range(WRITERS)], [0] * WRITERS, 0, 0
    for round_number in range(ROUNDS):
        server.start()
        if round_number == 0:
            got = server.client().request("PUT", "/collections/c", {"vectors": {"size": DIMS, "distance": "Dot"}}, server.headers())
            assert got.status == 200, got
            got = server.client().request("PUT", "/collections/c/index?wait=true", {"field_name": "tag", "field_schema": "integer"},
                                          server.headers())
            assert got.status == 200, got
        writers = [Writer(server, w, random.Random(rng.random()), states[w], next_numbers[w]) for w in range(WRITERS)]
        admin = Admin(server, random.Random(rng.random()))
        for t in writers + [admin]:
            t.start()
        time.sleep(rng.uniform(0.02, 1.2))
        server.kill()
        for t in writers + [admin]:
            t.join(30)
            assert not t.is_alive() and not t.wrong, t.wrong[:3]
        server.start()
        points = everything(server)
        for w in writers:
            is_now = state_of(points, w.writer)
            if is_now != w.state:
                assert w.maybe is not None and is_now == w.maybe, (
                    f"round {round_number}, writer {w.writer}: neither what was acknowledged nor that and the request in flight: "
                    f"missing {sorted(set(w.state) - set(is_now))[:5]}, more {sorted(set(is_now) - set(w.state))[:5]}, "
                    f"other {[n for n in is_now if n in w.state and w.state[n] != is_now[n]][:5]}")
                applied += 1
            states[w.writer], next_numbers[w.writer] = is_now, w.next_number
            total += w.acknowledged
        assert len(points) == sum(map(len, states))
        check_indexes(server, points, rng)
        # every other time the next round's kill hits a directory that was closed in order
        assert server.stop() == 0 if rng.random() < 0.5 else server.kill() is not None
    print(f"{total} requests acknowledged, {applied} applied though their answer never came, {sum(map(len, states))} points")
    assert total > 5 * ROUNDS, f"hardly anything was acknowledged: {total}"
