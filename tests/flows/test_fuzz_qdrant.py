"""The seeded fuzzer of the Qdrant face. Goal: whatever stands in a body, the answer is Qdrant's envelope with a 2xx or a 4xx that says
why, the server lives, and nobody else's collection changes. Method: a valid body for each route, some of its values, names or bytes
changed, sent to collections that take the changes; now and then the same search and scroll of a collection that no request
names, whose answer must stay what it was, also after a restart. VECKEEP_SEED replays; VECKEEP_FUZZ_OPS goes on longer."""
import copy
import json
import os
import random
import secrets

import pytest

OPS = int(os.environ.get("VECKEEP_FUZZ_OPS", "6000"))
KINDS = {"city": "keyword", "n": "integer", "f": "float", "flag": "bool", "when": "datetime", "where": "geo", "uid": "uuid", "t": "text"}

NASTY = [None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, -1e-320, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -2**63,
         "", "a", "0", "\x00", "é" * 300, "\U0001f600", "x" * 5000, "[]", "a[].b", "a[0]", "a..b", "..", "*", "$score", "2024-02-30",
         "9999-12-31T23:59:60Z", "550e8400-e29b-41d4-a716-446655440000", [], [[]], [None], [1, "a"], {}, {"": 1}, {"key": "n"},
         {"text": "x"}, {"indices": [1, 1], "values": [1]}, {"must": []}, {"recommend": {"positive": [1]}}]
RAW = [b"NaN", b"-", b"1e999", b"-1e999", b"1" * 400, b"0x1", b"\"\\ud800\"", b"\"\xff\"", b"[1,]", b"{\"a\":1,\"a\":2}", b"tru", b"[" * 3000,
       b"{\"must\":" * 200, b"//", b"\"\\u0000\"", b"0.1e-400"]

CONDITIONS = [
    {"key": "city", "match": {"value": "b"}}, {"key": "n", "match": {"any": [1, 2, 3]}}, {"key": "city", "match": {"except": ["a"]}},
    {"key": "t", "match": {"text": "the fox"}}, {"key": "n", "range": {"gte": 2, "lt": 9}}, {"is_null": {"key": "n"}},
    {"key": "when", "range": {"gt": "2024-01-01T00:00:00Z"}}, {"is_empty": {"key": "f"}}, {"has_id": [1, 2, "u"]}, {"has_vector": "v"},
    {"key": "where", "geo_radius": {"center": {"lon": 1, "lat": 2}, "radius": 1e6}}, {"slice": {"total": 3, "index": 1}},
    {"key": "where", "geo_bounding_box": {"top_left": {"lon": 0, "lat": 9}, "bottom_right": {"lon": 9, "lat": 0}}},
    {"key": "city", "values_count": {"gte": 1}}, {"nested": {"key": "items[]", "filter": {"must": [{"key": "x", "match": {"value": 1}}]}}},
    {"key": "where", "geo_polygon": {"exterior": {"points": [{"lon": x, "lat": y} for x, y in [(0, 0), (9, 0), (9, 9), (0, 0)]]}}},
]


class Bodies:
    def __init__(self, rng):
        self.r = rng

    def filter(self, depth=0):
        r, out = self.r, {}
        for clause in r.sample(["must", "should", "must_not"], r.randint(1, 2)):
            out[clause] = [copy.deepcopy(r.choice(CONDITIONS)) for _ in range(r.randint(1, 3))]
            if depth < 2 and r.random() < 0.3:
                out[clause].append(self.filter(depth + 1))
        if r.random() < 0.2:
            out["min_should"] = {"conditions": [copy.deepcopy(r.choice(CONDITIONS)) for _ in range(3)], "min_count": 2}
        return out

    def vector(self, n=4):
        return [round(self.r.uniform(-1, 1), 3) for _ in range(n)]

    def id(self):
        return self.r.choice([self.r.randint(0, 40), "u", "550e8400-e29b-41d4-a716-446655440000"])

    def payload(self):
        r = self.r
        return {"city": r.choice("abc"), "n": r.randint(0, 9), "f": r.random(), "flag": r.random() < 0.5, "t": "the quick fox",
                "when": f"202{r.randint(0, 6)}-03-01T00:00:00Z", "where": {"lon": r.random() * 9, "lat": r.random() * 9},
                "uid": "550e8400-e29b-41d4-a716-446655440000", "items": [{"x": r.randint(0, 3)}, {"x": 1}]}

    def point(self):
        return {"id": self.id(), "vector": {"v": self.vector(), "w": self.vector(3), "s": {"indices": [1, 5], "values": [0.5, 2]}},
                "payload": self.payload()}

    def query(self, depth=0):
        r = self.r
        kind = r.choice([self.vector(), {"nearest": self.vector()}, self.id(), {"order_by": {"key": "n", "direction": "desc", "start_from": 5}},
                         {"sample": "random"}, None, {"fusion": "rrf"}, {"fusion": "dbsf"}, {"rrf": {"k": 3}}])
        fusion = isinstance(kind, dict) and kind.keys() & {"fusion", "rrf"}
        out = {"query": kind, "limit": r.randint(1, 20), "filter": self.filter(), "params": {"exact": True, "quantization": {"oversampling": 2}}}
        if not fusion:
            out["using"] = "v"
        if fusion or (kind is not None and depth < 2 and r.random() < 0.3):
            out["prefetch"] = [self.query(depth + 1) for _ in range(r.randint(1, 3))] if depth < 3 else []
        if isinstance(kind, int) and r.random() < 0.3:
            out["lookup_from"] = {"collection": "b", "vector": "v"}
        if r.random() < 0.2:
            out["score_threshold"] = 0.1
        return out

    def search(self):
        return {"vector": {"name": "v", "vector": self.vector()}, "limit": 5, "filter": self.filter(), "with_payload": ["city"], "offset": 1}

    def selector(self):
        return self.r.choice([{"points": [self.id()]}, {"filter": self.filter()}])

    def operation(self):
        return self.r.choice([
            {"upsert": {"points": [self.point()]}}, {"delete": self.selector()}, {"set_payload": {"payload": self.payload(), "filter": self.filter()}},
            {"delete_payload": {"keys": ["n", "items[].x"], **self.selector()}}, {"clear_payload": self.selector()},
            {"update_vectors": {"points": [{"id": 1, "vector": {"v": self.vector()}}]}}, {"delete_vectors": {"vector": ["w"], **self.selector()}}])

    def any(self):
        """(method, path, a body that is valid)"""
        r, c = self.r, self.r.choice(["/collections/a", "/collections/a", "/collections/b"])
        with_ = {"with_payload": {"exclude": ["t"]}, "with_vector": ["v", "s"]}
        return r.choice([
            lambda: ("POST", c + "/points/query", {**self.query(), **with_}),
            lambda: ("POST", c + "/points/query", {**self.query(), "with_vector": True}),
            lambda: ("POST", c + "/points/query/batch", {"searches": [self.query() for _ in range(3)]}),
            lambda: ("POST", c + "/points/query/groups", {**self.query(), "group_by": "city", "group_size": 2, "with_lookup": {"collection": "b"}}),
            lambda: ("POST", c + "/points/search", self.search()),
            lambda: ("POST", c + "/points/search/batch", {"searches": [self.search(), self.search()]}),
            lambda: ("POST", c + "/points/scroll", {"filter": self.filter(), "limit": 7, "offset": self.id(), **with_}),
            lambda: ("POST", c + "/points/scroll", {"order_by": {"key": "when", "start_from": "2023-01-01T00:00:00Z"}, "limit": 7}),
            lambda: ("POST", c + "/points/count", {"filter": self.filter(), "exact": r.random() < 0.5}),
            lambda: ("POST", c + "/facet", {"key": "city", "limit": 5, "filter": self.filter()}),
            lambda: ("POST", c + "/points", {"ids": [self.id(), 3], **with_}),
            lambda: ("PUT", c + "/points", {"points": [self.point() for _ in range(r.randint(1, 4))], "update_filter": self.filter()}),
            lambda: ("PUT", c + "/points", {"batch": {"ids": [1, 2], "vectors": {"v": [self.vector(), self.vector()]}, "payloads": [{}, None]}}),
            lambda: ("POST", c + "/points/delete", self.selector()),
            lambda: ("POST", c + "/points/payload", {"payload": self.payload(), "key": "items", **self.selector()}),
            lambda: ("PUT", c + "/points/payload", {"payload": self.payload(), **self.selector()}),
            lambda: ("PUT", c + "/points/vectors", {"points": [{"id": 1, "vector": {"v": self.vector()}}]}),
            lambda: ("POST", c + "/points/batch", {"operations": [self.operation() for _ in range(3)]}),
            lambda: ("PUT", c + "/index", {"field_name": r.choice(list(KINDS)), "field_schema": {"type": "integer", "lookup": True}}),
            lambda: ("PUT", "/collections/" + r.choice("xyz"), {"vectors": {"v": {"size": 4, "distance": "Dot", "datatype": "uint8"}},
                                                              "quantization_config": {"scalar": {"type": "int8"}}, "metadata": {"a": 1}}),
            lambda: ("PATCH", c, {"metadata": {"x": [1]}, "params": {"on_disk_payload": True}, "vectors": {"v": {"on_disk": True}}}),
            lambda: ("POST", "/collections/aliases", {"actions": [{"create_alias": {"collection_name": "b", "alias_name": "c"}}]}),
            lambda: ("PUT", c + "/snapshots/recover", {"location": "file:///nowhere", "checksum": "0" * 64}),
            lambda: ("PUT", c + "/documents/d", {"chunks": ["one", {"text": "two", "payload": {"page": 1}}], "payload": {"lang": "en"}}),
        ])()


def places(node, at=()):
    """Paths to all values below."""
    for k, v in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*at, k)
        yield from places(v, (*at, k))


def mutate(rng, body):
    """One change to the tree; or to its text."""
    all_places = list(places(body))
    if not all_places:
        return json.dumps(body).encode()
    body = copy.deepcopy(body)
    path = rng.choice(all_places)
    up = body
    for k in path[:-1]:
        up = up[k]
    key, kind = path[-1], rng.randrange(7)
    if kind == 0:
        del up[key]
    elif kind == 1 and isinstance(up, dict):
        up[rng.choice(["key", "must", "vector", "points", "", "limit", "filter", "x" * 300])] = up.pop(key)
    elif kind == 2:
        for _ in range(rng.choice([1, 5, 70])):
            up[key] = rng.choice([[up[key]], {"must": [up[key]]}])
    elif kind == 3 and isinstance(up, list):
        up += [copy.deepcopy(up[key]) for _ in range(rng.choice([1, 40]))]
    elif kind == 4:
        up[key] = "\ue000"
        return json.dumps(body, ensure_ascii=False).encode().replace("\"\ue000\"".encode(), rng.choice(RAW))
    else:
        up[key] = copy.deepcopy(rng.choice(NASTY))
    return json.dumps(body, ensure_ascii=rng.random() < 0.5).encode()


def scar(rng, text):
    out = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) or 1)
        rng.choice([lambda: out.__setitem__(slice(at, at + 1), bytes([rng.randrange(256)])), lambda: out.__delitem__(slice(at, at + rng.randint(1, 9))),
                    lambda: out.__setitem__(slice(at, at), out[:rng.randint(1, 30)]), lambda: out.__delitem__(slice(at, None))])()
    return bytes(out)


@pytest.fixture
def seed():
    value = int(os.environ.get("VECKEEP_SEED") or secrets.randbits(32))
    print(f"VECKEEP_SEED={value}")
    return value


def ask(server, method, path, body):
    got = server._client.request(method, path, body, server.headers())
    assert got.status == 200, (method, path, got)
    return got.json()["result"]


def set_up(server, bodies):
    for name in ("a", "b", "control"):
        ask(server, "PUT", f"/collections/{name}", {"vectors": {"v": {"size": 4, "distance": "Dot"}, "w": {"size": 3, "distance": "Cosine"}},
                                                    "sparse_vectors": {"s": {}}})
        for field, kind in KINDS.items():
            ask(server, "PUT", f"/collections/{name}/index?wait=true", {"field_name": field, "field_schema": kind})
        ask(server, "PUT", f"/collections/{name}/points?wait=true", {"points": [dict(bodies.point(), id=i) for i in range(40)]})


def control(server):
    path = "/collections/control/points"
    everything = {"limit": 100, "with_payload": True, "with_vector": True}
    return [ask(server, "POST", path + "/query", {"query": [1, 0.5, -1, 0.25], "using": "v", **everything}),
            ask(server, "POST", path + "/scroll", everything)]


def check(sent, got):
    """An envelope: a result, or words that say what was wrong."""
    reply = json.loads(got.body)
    if got.status in (200, 202):
        assert reply["status"] in ("ok", "accepted"), (sent, got)
    else:
        assert 400 <= got.status < 500, (sent, got)
        assert len(reply["status"]["error"]) > 10, (sent, got)


def test_no_body_of_any_kind_breaks_the_server_or_another_collection(serve, seed):
    server = serve({"providers": {}})
    rng = random.Random(seed)
    bodies = Bodies(rng)
    set_up(server, bodies)
    truth = control(server)
    seen = {}
    for step in range(OPS):
        method, path, body = bodies.any()
        text = mutate(rng, body) if rng.random() < 0.8 else json.dumps(body).encode()
        if rng.random() < 0.1:
            text = scar(rng, text)
        sent = (step, method, path, text[:2000])
        got = server._client.request(method, path, text, server.headers({"Content-Type": "application/json"}))
        check(sent, got)
        seen[got.status] = seen.get(got.status, 0) + 1
        if step % 500 == 0:
            assert control(server) == truth, sent
    print(seen)
    assert seen.get(200, 0) > OPS / 20 and seen.get(400, 0) > OPS / 20 and 404 in seen and 422 in seen, f"hardly any variety: {seen}"
    assert control(server) == truth
    server.restart()
    assert control(server) == truth
