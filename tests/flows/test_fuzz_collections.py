"""The Qdrant face under mutated requests. Goal: whatever comes, no answer is a 5xx, none is no JSON, the process lives, and what it holds
stays readable. Method: valid bodies of every route, changed at random (values swapped for others' and for the odd ones, members
dropped, doubled, renamed, nested; bytes flipped, cut, put in); VECKEEP_SEED replays, VECKEEP_FUZZ_S sets the budget."""
import copy
import json
import os
import random
import secrets
import time

BUDGET_S = float(os.environ.get("VECKEEP_FUZZ_COLLECTIONS_S", "20"))
ROW = [0.5, -1.0, 2.0, 0.25]
UUID = "8a1f9f5e-0b0e-4b8e-9a55-0123456789ab"

FILTER = {"must": [{"key": "n", "range": {"gte": 1, "lt": 9.5}}, {"key": "tags[]", "match": {"any": ["a", "b"]}}],
          "must_not": [{"has_id": [1, UUID]}, {"is_empty": {"key": "x"}}, {"is_null": {"key": "y"}}],
          "should": [{"nested": {"key": "list", "filter": {"must": [{"key": "a", "match": {"value": 1}}]}}},
                     {"key": "where", "geo_radius": {"center": {"lat": 52.5, "lon": 13.4}, "radius": 1000}},
                     {"key": "where", "geo_bounding_box": {"top_left": {"lat": 53, "lon": 13}, "bottom_right": {"lat": 52, "lon": 14}}},
                     {"key": "when", "range": {"gt": "2024-01-01T00:00:00Z"}}, {"key": "tags", "values_count": {"gte": 1}},
                     {"key": "text", "match": {"text": "some words"}}, {"key": "n", "match": {"except": [1, 2]}},
                     {"has_vector": "b"}],
          "min_should": {"conditions": [{"key": "flag", "match": {"value": True}}], "min_count": 1}}
PAYLOAD = {"n": 3, "f": 1.5, "flag": True, "tags": ["a", "b"], "text": "some words", "where": {"lat": 52.5, "lon": 13.4},
           "when": "2024-05-01T10:00:00Z", "list": [{"a": 1, "b": 2}, {"a": 3}], "y": None, "u": UUID}
POINT = {"id": 1, "vector": {"a": ROW, "b": [1.0, 2.0]}, "payload": PAYLOAD}
QUERY = {"query": ROW, "using": "a", "limit": 3, "offset": 1, "filter": FILTER, "with_payload": {"include": ["n"]}, "with_vector": ["b"],
         "score_threshold": -5, "params": {"exact": True, "quantization": {"rescore": True, "oversampling": 2.0}}}

REQUESTS = [
    ("PUT", "/points?wait=true", {"points": [POINT, {"id": UUID, "vector": {"a": ROW}}, {"id": "text-id", "vector": {}}]}),
    ("PUT", "/points?ordering=weak", {"batch": {"ids": [1, 2], "vectors": {"a": [ROW, ROW]}, "payloads": [PAYLOAD, None]}}),
    ("POST", "/points", {"ids": [1, UUID, "text-id"], "with_payload": ["n", "list[].a"], "with_vector": True}),
    ("POST", "/points/delete", {"points": [2, UUID]}),
    ("POST", "/points/delete", {"filter": FILTER}),
    ("POST", "/points/payload", {"payload": {"z": 1}, "points": [1], "key": "list[0].c"}),
    ("PUT", "/points/payload", {"payload": PAYLOAD, "filter": FILTER}),
    ("POST", "/points/payload/delete", {"keys": ["z", "list[0].a"], "points": [1]}),
    ("POST", "/points/payload/clear", {"points": [2]}),
    ("PUT", "/points/vectors", {"points": [{"id": 1, "vector": {"b": [3.0, 4.0]}}]}),
    ("POST", "/points/vectors/delete", {"vector": ["b"], "points": [1]}),
    ("POST", "/points/batch", {"operations": [{"upsert": {"points": [POINT]}}, {"delete": {"points": [3]}},
                                              {"set_payload": {"payload": {"z": 2}, "points": [1]}}, {"clear_payload": {"points": [4]}},
                                              {"update_vectors": {"points": [{"id": 1, "vector": {"b": [1.0, 1.0]}}]}}]}),
    ("POST", "/points/scroll", {"limit": 3, "offset": 1, "filter": FILTER, "with_payload": True}),
    ("POST", "/points/scroll", {"limit": 3, "order_by": {"key": "n", "direction": "desc", "start_from": 5}}),
    ("POST", "/points/count", {"filter": FILTER, "exact": False}),
    ("POST", "/facet", {"key": "tags", "limit": 3, "filter": FILTER, "exact": True}),
    ("POST", "/points/search", {"vector": {"name": "a", "vector": ROW}, "limit": 3, "filter": FILTER}),
    ("POST", "/points/search/batch", {"searches": [{"vector": {"name": "a", "vector": ROW}, "limit": 3}]}),
    ("POST", "/points/search/groups", {"vector": {"name": "b", "vector": [1.0, 2.0]}, "limit": 3, "group_by": "n", "group_size": 2}),
    ("POST", "/points/query", QUERY),
    ("POST", "/points/query", {"query": {"nearest": 1}, "using": "a", "lookup_from": {"collection": "c", "vector": "a"}}),
    ("POST", "/points/query", {"query": {"fusion": "rrf"}, "prefetch": [QUERY, {"query": [1.0, 0.0], "using": "b", "limit": 4}]}),
    ("POST", "/points/query", {"query": {"order_by": {"key": "n", "direction": "asc"}}, "prefetch": {"query": ROW, "using": "a"}}),
    ("POST", "/points/query", {"query": {"sample": "random"}, "limit": 2}),
    ("POST", "/points/query/batch", {"searches": [QUERY, QUERY]}),
    ("POST", "/points/query/groups", {**QUERY, "group_by": "tags", "group_size": 2, "with_lookup": {"collection": "c", "with_payload": True}}),
    ("PUT", "/index?wait=true", {"field_name": "f", "field_schema": {"type": "float", "lookup": True}}),
    ("PUT", "/index", {"field_name": "list[].a", "field_schema": "integer"}),
    ("DELETE", "/index/f", None),
    ("PATCH", "", {"optimizers_config": {"indexing_threshold": 100}, "vectors": {"a": {"on_disk": True}}, "metadata": {"k": {"l": [1]}}}),
    ("GET", "", None), ("GET", "/exists", None), ("GET", "/points/1", None), ("GET", "/cluster", None), ("GET", "/snapshots", None),
]
ODD = [None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -2**63, 1.5, -0.0, 1e308, 5e-324, "", "a", "\u0000", "\ud83d\ude00",
       "x" * 500, [], {}, [[]], {"": {}}, [None], ROW, UUID, "a" * 300, ".", "a[]", "a[0].b", "[", "NaN", [1] * 300, FILTER, POINT, QUERY,
       {"text": "x"}, {"text": "x", "model": "m"}, {"indices": [1, 2], "values": [0.5, 0.5]}, [[1.0, 2.0], [3.0, 4.0]], "2024-01-01"]


def places(v, at=()):
    """Every place in the document as a path."""
    out = [at]
    if isinstance(v, dict):
        for k in v:
            out += places(v[k], at + (k,))
    elif isinstance(v, list):
        for i in range(len(v)):
            out += places(v[i], at + (i,))
    return out


def get(v, path):
    for step in path:
        v = v[step]
    return v


def mutate(rng, body, others):
    body = copy.deepcopy(body)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 6])):
        path = rng.choice(places(body))
        if not path:
            if rng.random() < 0.02:
                return rng.choice(ODD)
            continue
        parent, last = get(body, path[:-1]), path[-1]
        what = rng.randrange(7)
        if what == 0:
            del parent[last]
        elif what == 1 and isinstance(parent, dict):
            parent[rng.choice(["id", "key", "vector", "points", "must", "filter", "x", "", last + "s"])] = parent.pop(last)
        elif what == 2 and isinstance(parent, list):
            parent.insert(last, copy.deepcopy(parent[last]))
        elif what == 3:
            parent[last] = [parent[last]] if rng.random() < 0.5 else {str(last): parent[last]}
        elif what == 4:
            other = rng.choice(others)
            parent[last] = copy.deepcopy(get(other, rng.choice(places(other))))
        else:
            parent[last] = copy.deepcopy(rng.choice(ODD))
        if len(json.dumps(body)) > 200000:
            break
    return body


def mutate_bytes(rng, raw):
    raw = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw) + 1)
        what = rng.randrange(4)
        if what == 0 and at < len(raw):
            raw[at] = rng.randrange(256)
        elif what == 1:
            raw[at:at] = rng.choice([b"\0", b"\xff", b"[", b"{", b'"', b",", b"1e999", b"\\u", b"9" * 400, b"[" * 200, b"NaN"])
        elif what == 2:
            del raw[at:at + rng.randint(1, 20)]
        else:
            del raw[at:]
    return bytes(raw)


def mutate_path(rng, path):
    what = rng.randrange(6)
    if what == 0:
        return path + rng.choice(["?wait=maybe", "?timeout=0", "?timeout=-1", "?ordering=x", "?consistency=0", "?wait", "?&&=", "?timeout=" + "9" * 30])
    if what == 1:
        return path + rng.choice(["/", "//", "/%00", "/%zz", "/..", "/%2e%2e/x", "/" + "a" * 2000, "/1", "/x"])
    return path


COLLECTION = {"vectors": {"a": {"size": 4, "distance": "Cosine"}, "b": {"size": 2, "distance": "Euclid", "datatype": "float16"}},
              "quantization_config": {"scalar": {"type": "int8"}}, "on_disk_payload": True}


def make(server, rng):
    server._client.request("DELETE", "/collections/c", None, server.headers())
    got = server._client.request("PUT", "/collections/c", COLLECTION, server.headers())
    assert got.status == 200, got
    for field, kind in (("n", "integer"), ("tags", "keyword"), ("where", "geo"), ("when", "datetime"), ("flag", "bool"), ("u", "uuid")):
        if rng.random() < 0.7:
            server._client.request("PUT", "/collections/c/index?wait=true", {"field_name": field, "field_schema": kind}, server.headers())
    points = [{"id": i, "vector": {"a": [rng.uniform(-1, 1) for _ in range(4)], "b": [1.0, float(i)]}, "payload": {**PAYLOAD, "n": i % 7}}
              for i in range(50)]
    got = server._client.request("PUT", "/collections/c/points?wait=true", {"points": points}, server.headers())
    assert got.status == 200, got


def test_no_request_gets_a_5xx_or_ends_the_server(serve):
    seed = int(os.environ.get("VECKEEP_SEED") or secrets.randbits(32))
    print(f"VECKEEP_SEED={seed}")
    rng = random.Random(seed)
    server = serve({"providers": {}})
    others = [b for _, _, b in REQUESTS if b] + [COLLECTION]
    counts, asked, end = {}, 0, time.monotonic() + BUDGET_S
    while time.monotonic() < end:
        if asked % 400 == 0:
            make(server, rng)
        asked += 1
        if rng.random() < 0.05:
            method, path, body = "PUT", f"/collections/d{rng.randrange(3)}", COLLECTION
        elif rng.random() < 0.05:
            method, path, body = "POST", "/collections/aliases", {"actions": [{"create_alias": {"collection_name": "c", "alias_name": "e"}}]}
        else:
            method, path, body = rng.choice(REQUESTS)
            path = "/collections/c" + mutate_path(rng, path)
        sent = None
        if body is not None:
            sent = json.dumps(mutate(rng, body, others)).encode()
            if rng.random() < 0.2:
                sent = mutate_bytes(rng, sent)
        try:
            got = server._client.request(method, path, sent, server.headers({"Content-Type": "application/json"}))
        except Exception as e:
            raise AssertionError(f"no answer ({e!r}) to {method} {path} {sent!r}\n{server.log()}")
        counts[got.status] = counts.get(got.status, 0) + 1
        known = got.status < 500 or (got.status == 503 and b"the collection changed while" in got.body)
        assert known, f"{got} to {method} {path} {sent!r}\n{server.log()}"
        answer = json.loads(got.body)
        assert "status" in answer or "error" in answer, f"{got} to {method} {path} {sent!r}"
        assert server.proc.poll() is None, server.log()
    print(f"{asked} requests: {dict(sorted(counts.items()))}")
    assert counts.get(200, 0) > asked / 20 and counts.get(400, 0) > asked / 20, counts
    make(server, rng)
    got = server.post("/collections/c/points/count", {})
    assert got.status == 200 and got.json()["result"]["count"] == 50, got
