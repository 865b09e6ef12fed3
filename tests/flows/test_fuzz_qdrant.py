"""The seeded fuzzer of the Qdrant face. Goal: whatever stands in a path or a body, the answer is Qdrant's envelope with a 2xx or a 4xx that
says why, the server lives, and nobody else's collection changes.
Method: a valid request for each route, some of its values, names, nesting or bytes changed, sent to collections that take the changes: one
plain, one quantized, with rows of two types and now these indexes, now those, made anew now and then. In between the same search and
scroll of a collection that no request names, whose answer must stay what it was, also after a restart. VECKEEP_SEED replays;
VECKEEP_FUZZ_OPS goes on longer."""
import copy
import json
import os
import random

import pytest

from qdrant_http import ask
from seeds import SEED

OPS = int(os.environ.get("VECKEEP_FUZZ_OPS", "12000"))
UUID = "550e8400-e29b-41d4-a716-446655440000"
KINDS = {"city": "keyword", "n": "integer", "f": "float", "flag": "bool", "when": "datetime", "where": "geo", "uid": "uuid", "t": "text",
         "tags": "keyword", "items[].x": "integer"}
POINTS = 40

NASTY = [None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 5e-324, -1e-320, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -2**63,
         "", "a", "0", "\x00", "é" * 300, "\U0001f600", "x" * 5000, "a" * 300, "[]", "a[]", "a[].b", "a[0]", "a[0].b", "[", "a..b", ".", "..", "*",
         "$score", "NaN", "2024-02-30", "2024-01-01", "9999-12-31T23:59:60Z", UUID, [], [[]], [None], [1, "a"], [1] * 300, {}, {"": 1}, {"": {}},
         {"key": "n"}, {"text": "x"}, {"text": "x", "model": "m"}, {"indices": [1, 1], "values": [1]}, {"indices": [1, 2], "values": [0.5, 0.5]},
         [0.5, -1.0, 2.0, 0.25], [[1.0, 2.0], [3.0, 4.0]], {"must": []}, {"recommend": {"positive": [1]}}]
RAW = [b"NaN", b"-", b"1e999", b"-1e999", b"1" * 400, b"0x1", b"\"\\ud800\"", b"\"\xff\"", b"[1,]", b"{\"a\":1,\"a\":2}", b"tru", b"[" * 3000,
       b"{\"must\":" * 200, b"//", b"\"\\u0000\"", b"0.1e-400"]
BYTES = [b"\0", b"\xff", b"[", b"{", b'"', b",", b"1e999", b"\\u", b"9" * 400, b"[" * 200, b"NaN"]
NAMES = ["id", "key", "must", "vector", "points", "", "limit", "filter", "x", "x" * 300]
QUERY_STRINGS = ["?wait=maybe", "?timeout=0", "?timeout=-1", "?ordering=x", "?ordering=weak", "?consistency=0", "?wait", "?&&=", "?timeout=" + "9" * 30]
SEGMENTS = ["/", "//", "/%00", "/%zz", "/..", "/%2e%2e/x", "/" + "a" * 2000, "/1", "/x"]

CONDITIONS = [
    {"key": "city", "match": {"value": "b"}}, {"key": "n", "match": {"any": [1, 2, 3]}}, {"key": "city", "match": {"except": ["a"]}},
    {"key": "tags[]", "match": {"any": ["a", "b"]}}, {"key": "n", "match": {"except": [1, 2]}}, {"key": "flag", "match": {"value": True}},
    {"key": "t", "match": {"text": "the fox"}}, {"key": "n", "range": {"gte": 2, "lt": 9.5}}, {"is_null": {"key": "y"}},
    {"key": "when", "range": {"gt": "2024-01-01T00:00:00Z"}}, {"is_empty": {"key": "f"}}, {"has_id": [1, 2, "u", UUID]}, {"has_vector": "v"},
    {"key": "where", "geo_radius": {"center": {"lon": 1, "lat": 2}, "radius": 1e6}}, {"slice": {"total": 3, "index": 1}},
    {"key": "where", "geo_bounding_box": {"top_left": {"lon": 0, "lat": 9}, "bottom_right": {"lon": 9, "lat": 0}}},
    {"key": "tags", "values_count": {"gte": 1}}, {"nested": {"key": "items[]", "filter": {"must": [{"key": "x", "match": {"value": 1}}]}}},
    {"nested": {"key": "items", "filter": {"must": [{"key": "x", "match": {"value": 1}}]}}},
    {"key": "where", "geo_polygon": {"exterior": {"points": [{"lon": x, "lat": y} for x, y in [(0, 0), (9, 0), (9, 9), (0, 0)]]}}},
]
SPARSE = {"sparse_vectors": {"s": {}}}
PLAIN = {"vectors": {"v": {"size": 4, "distance": "Dot"}, "w": {"size": 3, "distance": "Cosine"}}, **SPARSE}
QUANTIZED = {"vectors": {"v": {"size": 4, "distance": "Cosine"}, "w": {"size": 3, "distance": "Euclid", "datatype": "float16"}}, **SPARSE,
             "quantization_config": {"scalar": {"type": "int8"}}, "on_disk_payload": True}
BYTE_ROWS = {"vectors": {"v": {"size": 4, "distance": "Dot", "datatype": "uint8"}}, "quantization_config": {"scalar": {"type": "int8"}},
             "metadata": {"a": 1}}


class Bodies:
    """Requests that are valid."""

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
        return self.r.choice([self.r.randint(0, POINTS), "u", UUID])

    def payload(self):
        r = self.r
        return {"city": r.choice("abc"), "n": r.randint(0, 9), "f": r.random(), "flag": r.random() < 0.5, "t": "the quick fox", "y": None,
                "when": f"202{r.randint(0, 6)}-03-01T00:00:00Z", "where": {"lon": r.random() * 9, "lat": r.random() * 9},
                "uid": UUID, "tags": r.sample("abc", 2), "items": [{"x": r.randint(0, 3), "y": 2}, {"x": 1}]}

    def point(self, whole=False):
        vectors = {"v": self.vector(), "w": self.vector(3), "s": {"indices": [1, 5], "values": [0.5, 2]}}
        if not whole:
            vectors = {k: v for k, v in vectors.items() if self.r.random() < 0.8}
        return {"id": self.id(), "vector": vectors, "payload": self.payload()}

    def query(self, depth=0):
        r = self.r
        kind = r.choice([self.vector(), {"nearest": self.vector()}, self.id(), {"order_by": {"key": "n", "direction": "desc", "start_from": 5}},
                         {"sample": "random"}, None, {"fusion": "rrf"}, {"fusion": "dbsf"}, {"rrf": {"k": 3}}])
        fusion = isinstance(kind, dict) and kind.keys() & {"fusion", "rrf"}
        out = {"query": kind, "limit": r.randint(1, 20), "filter": self.filter(),
               "params": {"exact": True, "quantization": {"rescore": True, "oversampling": 2}}}
        if not fusion:
            out["using"] = "v"
        if fusion or (kind is not None and depth < 2 and r.random() < 0.3):
            out["prefetch"] = [self.query(depth + 1) for _ in range(r.randint(1, 3))] if depth < 3 else []
        if isinstance(kind, int) and r.random() < 0.3:
            out["lookup_from"] = {"collection": "b", "vector": "v"}
        if r.random() < 0.2:
            out["score_threshold"] = r.choice([0.1, -5])
        if r.random() < 0.2:
            out["offset"] = 1
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

    def group(self):
        r = self.r
        lookup = r.choice([{"collection": "b"}, {"collection": "b", "with_payload": True}, "b"])
        return {"group_by": r.choice(["city", "n", "tags"]), "group_size": 2, **({"with_lookup": lookup} if r.random() < 0.7 else {})}

    def any(self):
        """(method, path, a body or None)"""
        r, c = self.r, self.r.choice(["/collections/a", "/collections/a", "/collections/b"])
        with_ = {"with_payload": r.choice([{"exclude": ["t"]}, {"include": ["n"]}, ["n", "items[].x"], True]), "with_vector": ["v", "s"]}
        read, write, admin = [
            lambda: ("POST", c + "/points/query", {**self.query(), **with_}),
            lambda: ("POST", c + "/points/query", {**self.query(), "with_vector": True}),
            lambda: ("POST", c + "/points/query/batch", {"searches": [self.query() for _ in range(3)]}),
            lambda: ("POST", c + "/points/query/groups", {**self.query(), **self.group()}),
            lambda: ("POST", c + "/points/search", self.search()),
            lambda: ("POST", c + "/points/search/batch", {"searches": [self.search(), self.search()]}),
            lambda: ("POST", c + "/points/search/groups", {**self.search(), **self.group()}),
            lambda: ("POST", c + "/points/scroll", {"filter": self.filter(), "limit": 7, "offset": self.id(), **with_}),
            lambda: ("POST", c + "/points/scroll", {"order_by": {"key": "when", "start_from": "2023-01-01T00:00:00Z"}, "limit": 7}),
            lambda: ("POST", c + "/points/count", {"filter": self.filter(), "exact": r.random() < 0.5}),
            lambda: ("POST", c + "/facet", {"key": r.choice(["city", "tags"]), "limit": 5, "filter": self.filter(), "exact": r.random() < 0.5}),
            lambda: ("POST", c + "/points", {"ids": [self.id(), 3], **with_}),
            lambda: ("GET", c + r.choice(["", "/exists", "/points/1", "/cluster", "/snapshots"]), None),
        ], [
            lambda: ("PUT", c + "/points", {"points": [self.point() for _ in range(r.randint(1, 4))], "update_filter": self.filter()}),
            lambda: ("PUT", c + "/points?wait=true", {"points": [self.point(), {"id": 1, "vector": {}}]}),
            lambda: ("PUT", c + "/points", {"batch": {"ids": [1, 2], "vectors": {"v": [self.vector(), self.vector()]}, "payloads": [{}, None]}}),
            lambda: ("POST", c + "/points/delete", self.selector()),
            lambda: ("POST", c + "/points/payload", {"payload": self.payload(), "key": r.choice(["items", "items[0].c"]), **self.selector()}),
            lambda: ("PUT", c + "/points/payload", {"payload": self.payload(), **self.selector()}),
            lambda: ("POST", c + "/points/payload/delete", {"keys": ["z", "items[0].x"], **self.selector()}),
            lambda: ("POST", c + "/points/payload/clear", self.selector()),
            lambda: ("PUT", c + "/points/vectors", {"points": [{"id": 1, "vector": {"v": self.vector()}}]}),
            lambda: ("POST", c + "/points/vectors/delete", {"vector": ["w"], **self.selector()}),
            lambda: ("POST", c + "/points/batch", {"operations": [self.operation() for _ in range(3)]}),
            lambda: ("PUT", c + "/documents/d", {"chunks": ["one", {"text": "two", "payload": {"page": 1}}], "payload": {"lang": "en"}}),
        ], [
            lambda: ("PUT", c + "/index?wait=true", {"field_name": r.choice(list(KINDS)), "field_schema": {"type": "integer", "lookup": True}}),
            lambda: ("PUT", c + "/index", dict(zip(("field_name", "field_schema"), r.choice(list(KINDS.items()))))),
            lambda: ("DELETE", c + "/index/" + r.choice(["f", "n", "city"]), None),
            lambda: ("PUT", "/collections/" + r.choice("xyz"), r.choice([BYTE_ROWS, QUANTIZED])),
            lambda: ("PATCH", c, {"metadata": {"x": [1]}, "params": {"on_disk_payload": True}, "vectors": {"v": {"on_disk": True}},
                                  "optimizers_config": {"indexing_threshold": 100}}),
            lambda: ("POST", "/collections/aliases", {"actions": [{"create_alias": {"collection_name": "b", "alias_name": "c"}}]}),
            lambda: ("PUT", c + "/snapshots/recover", {"location": "file:///nowhere", "checksum": "0" * 64}),
        ]
        return r.choice(r.choices([read, write, admin], [13, 9, 4])[0])()


# ---- changes ----

def places(node, at=()):
    """Paths to all values below."""
    for k, v in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*at, k)
        yield from places(v, (*at, k))


def at(node, path):
    for step in path:
        node = node[step]
    return node


def change(rng, body, other):
    """One change somewhere in the tree; `other`: a body to take a branch of. A string U+E000 stands for what only bytes can say."""
    all_places = list(places(body))
    if not all_places or rng.random() < 0.01:
        return copy.deepcopy(rng.choice(NASTY))
    path = rng.choice(all_places)
    up, key, kind = at(body, path[:-1]), path[-1], rng.randrange(8)
    if kind == 0:
        del up[key]
    elif kind == 1 and isinstance(up, dict):
        up[rng.choice([*NAMES, key + "s"])] = up.pop(key)
    elif kind == 2:
        for _ in range(rng.choice([1, 1, 5, 70])):
            up[key] = rng.choice([[up[key]], {"must": [up[key]]}, {str(key): up[key]}])
    elif kind == 3 and isinstance(up, list):
        up[key:key] = [copy.deepcopy(up[key]) for _ in range(rng.choice([1, 1, 40]))]
    elif kind == 4:
        up[key] = "\ue000"
    elif kind == 5:
        up[key] = copy.deepcopy(at(other, rng.choice([(), *places(other)])))
    else:
        up[key] = copy.deepcopy(rng.choice(NASTY))
    return body


def mutate(rng, body, other):
    body = copy.deepcopy(body)
    for _ in range(rng.choice([0, 0, 1, 1, 1, 1, 1, 2, 3, 6])):
        if isinstance(body, (dict, list)) and len(json.dumps(body)) < 200000:
            body = change(rng, body, other)
    text = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode()
    for hole in (b'"\\ue000"', '"\ue000"'.encode()):
        while hole in text:
            text = text.replace(hole, rng.choice(RAW), 1)
    return text


def scar(rng, text):
    out = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        i = rng.randrange(len(out) + 1)
        rng.choice([lambda: out.__setitem__(slice(i, i + 1), bytes([rng.randrange(256)])), lambda: out.__delitem__(slice(i, i + rng.randint(1, 20))),
                    lambda: out.__setitem__(slice(i, i), out[:rng.randint(1, 30)]), lambda: out.__setitem__(slice(i, i), rng.choice(BYTES)),
                    lambda: out.__delitem__(slice(i, None))])()
    return bytes(out)


def stray(rng, path):
    """Another path, or words behind it that it does not know."""
    return path.partition("?")[0] + rng.choice(QUERY_STRINGS) if rng.random() < 0.5 else path + rng.choice(SEGMENTS)


# ---- the run ----

def make(server, bodies, name, config, share=1.0):
    """The collection anew, with this share of all indexes."""
    c = f"/collections/{name}"
    ask(server, "DELETE", c)
    ask(server, "PUT", c, config)
    for field, kind in KINDS.items():
        if bodies.r.random() < share:
            ask(server, "PUT", c + "/index?wait=true", {"field_name": field, "field_schema": kind})
    ask(server, "PUT", c + "/points?wait=true", {"points": [dict(bodies.point(whole=True), id=i) for i in range(POINTS)]})
    assert ask(server, "POST", c + "/points/count", {})["result"]["count"] == POINTS


def control(server):
    path = "/collections/control/points"
    everything = {"limit": 100, "with_payload": True, "with_vector": True}
    return [ask(server, "POST", path + "/query", {"query": [1, 0.5, -1, 0.25], "using": "v", **everything})["result"],
            ask(server, "POST", path + "/scroll", everything)["result"]]


def check(server, sent, got):
    """An envelope: a result, or words that say what was wrong."""
    reply = json.loads(got.body)
    if got.status in (200, 202):
        assert reply["status"] in ("ok", "accepted"), (sent, got)
        return
    changed = got.status == 503 and "the collection changed while" in reply["status"]["error"]
    assert changed or 400 <= got.status < 500, (sent, got, server.log())
    assert len(reply["status"]["error"]) > 10, (sent, got)


def test_no_request_breaks_the_server_or_another_collection(serve):
    server = serve({"providers": {}})
    rng = random.Random(SEED)
    bodies = Bodies(rng)
    make(server, bodies, "a", PLAIN)
    make(server, bodies, "control", PLAIN)
    truth = control(server)
    seen = {}
    for step in range(OPS):
        if step % 500 == 0:
            make(server, bodies, "b", QUANTIZED, share=0.7)
            assert control(server) == truth, step
        method, path, body = bodies.any()
        if rng.random() < 0.1:
            path = stray(rng, path)
        text = None if body is None else mutate(rng, body, bodies.any()[2])
        if text and rng.random() < 0.1:
            text = scar(rng, text)
        sent = (step, method, path, text and text[:2000])
        try:
            got = server._client.request(method, path, text, server.headers({"Content-Type": "application/json"}))
        except Exception as e:
            raise AssertionError(f"no answer ({e!r}) to {sent}\n{server.log()}")
        check(server, sent, got)
        seen[got.status] = seen.get(got.status, 0) + 1
    assert server.proc.poll() is None, server.log()
    print(f"{OPS} requests: {dict(sorted(seen.items()))}")
    assert seen.get(200, 0) > OPS / 20 and seen.get(400, 0) > OPS / 20 and 404 in seen and 422 in seen, f"hardly any variety: {seen}"
    assert control(server) == truth
    make(server, bodies, "b", QUANTIZED)
    server.restart()
    assert control(server) == truth
