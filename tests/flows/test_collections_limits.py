"""The limits of collections, over HTTP. Goal: what is as large as it may be works; what is larger, or no sense at all, is refused with a
4xx that says what the limit is, changes nothing and costs the server nothing. The list is docs/collections.md's "Limits"."""
import json

import pytest

from qdrant_http import ask, error

DIMS = 4
DOT = {"size": DIMS, "distance": "Dot"}
ROW = [1.0, 2.0, 3.0, 4.0]


@pytest.fixture
def server(serve):
    s = serve({"providers": {}})
    ask(s, "PUT", "/collections/c", {"vectors": DOT})
    ask(s, "PUT", "/collections/c/points?wait=true",
        {"points": [{"id": i, "vector": ROW, "payload": {"n": i, "g": i % 3}} for i in range(10)]})
    yield s
    assert ask(s, "POST", "/collections/c/points/count", {})["result"]["count"] == 10, "a refused request has changed something"
    assert s.proc.poll() is None


def refused(server, method, path, body, status, *words):
    text = error(server, method, path, body, status)
    assert all(w in text for w in words), text
    assert len(text) < 2048
    return text


def put(server, point, status, *words):
    return refused(server, "PUT", "/collections/c/points", {"points": [point]}, status, *words)


def query(server, body, status, *words):
    return refused(server, "POST", "/collections/c/points/query", body, status, *words)


# ---- bodies ----

def test_a_body_over_the_limit_is_a_413(serve):
    s = serve({"providers": {}, "limits": {"body": "100KiB"}})
    ask(s, "PUT", "/collections/c", {"vectors": DOT})
    point = {"id": 1, "vector": ROW, "payload": {"t": "x" * 90000}}
    ask(s, "PUT", "/collections/c/points?wait=true", {"points": [point]})
    point["payload"]["t"] = "x" * 110000
    got = s.client().request("PUT", "/collections/c/points", {"points": [point]}, s.headers())
    assert got.status == 413, got
    assert "error" in got.json()["status"], got
    assert ask(s, "POST", "/collections/c/points/count", {})["result"]["count"] == 1


def test_json_deeper_than_64_is_refused(server):
    for depth, status in ((40, 200), (70, 400), (100000, 400)):
        body = '{"points": [{"id": 1, "vector": [1,2,3,4], "payload": {"n": 1, "g": 1, "a": ' + "[" * depth + "]" * depth + "}}]}"
        got = server._client.request("PUT", "/collections/c/points?wait=true", body, server.headers({"Content-Type": "application/json"}))
        assert got.status == status, got
        if status != 200:
            assert got.json()["status"]["error"].startswith("Format error in JSON body: "), got


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "nan", "0x10", "01", "1.", "--1", '"1"', "null", "true", "[]", "{}"])
def test_numbers_that_are_none_are_refused_wherever_a_vector_stands(server, number):
    for method, path, body in (
            ("PUT", "/points", '{"points": [{"id": 77, "vector": [1, 2, %s, 4]}]}'),
            ("PUT", "/points", '{"batch": {"ids": [77], "vectors": [[1, 2, %s, 4]]}}'),
            ("PUT", "/points/vectors", '{"points": [{"id": 1, "vector": [1, 2, %s, 4]}]}'),
            ("POST", "/points/query", '{"query": [1, 2, %s, 4]}'),
            ("POST", "/points/search", '{"vector": [1, 2, %s, 4], "limit": 1}')):
        got = server._client.request(method, "/collections/c" + path, body % number, server.headers({"Content-Type": "application/json"}))
        assert got.status in (400, 422), (path, got)
        assert got.json()["status"]["error"], got


def test_a_number_beyond_f32_is_refused(server):
    put(server, {"id": 77, "vector": [1, 2, 1e300, 4]}, 400)
    query(server, {"query": [1, 2, 1e300, 4]}, 400)


# ---- points ----

@pytest.mark.parametrize("dims", [1, 65536])
def test_the_least_and_the_most_dims_work(server, dims):
    ask(server, "PUT", "/collections/d", {"vectors": {"size": dims, "distance": "Cosine"}})
    rows = [[1.0 + ((i * 7 + j) % 11) for j in range(dims)] for i in range(3)]
    ask(server, "PUT", "/collections/d/points?wait=true", {"points": [{"id": i, "vector": r} for i, r in enumerate(rows)]})
    got = ask(server, "POST", "/collections/d/points/query", {"query": rows[1], "limit": 3, "with_vector": True})["result"]["points"]
    assert len(got) == 3 and abs(got[0]["score"] - 1) < 1e-5
    if dims > 1:
        assert got[0]["id"] == 1
    refused(server, "PUT", "/collections/d/points", {"points": [{"id": 1, "vector": rows[0] + [1.0]}]}, 400,
            f"expected dim: {dims}, got {dims + 1}")


@pytest.mark.parametrize("size", [0, -1, 65537, 2**32, 2**64, 1.5, "4", None, [], True])
def test_other_sizes_are_refused(server, size):
    got = server._client.request("PUT", "/collections/d", {"vectors": {"size": size, "distance": "Dot"}}, server.headers())
    assert got.status in (400, 422), got
    assert "size" in got.json()["status"]["error"] or "vectors" in got.json()["status"]["error"], got
    assert ask(server, "GET", "/collections/d/exists")["result"]["exists"] is False


@pytest.mark.parametrize("vector", [[], [1], [1, 2, 3], [1, 2, 3, 4, 5], [1] * 70000])
def test_a_wrong_number_of_dims_is_told(server, vector):
    put(server, {"id": 77, "vector": vector}, 400)
    query(server, {"query": vector}, 400)


def test_ids_are_up_to_480_bytes(server):
    ask(server, "PUT", "/collections/c/points?wait=true", {"points": [{"id": "i" * 480, "vector": ROW}]})
    ask(server, "POST", "/collections/c/points/delete?wait=true", {"points": ["i" * 480]})
    for id in ("i" * 481, "", -1, 2**64, 1.5, None, [], {}):
        text = put(server, {"id": id, "vector": ROW}, 400)
        assert text.startswith("Format error in JSON body"), (id, text)
    put(server, {"id": "i" * 481, "vector": ROW}, 400, "480")


def test_many_points_in_a_request_work(server):
    ask(server, "PUT", "/collections/d", {"vectors": DOT})
    ask(server, "PUT", "/collections/d/points?wait=true", {"points": [{"id": i, "vector": ROW} for i in range(50000)]})
    assert ask(server, "POST", "/collections/d/points/count", {})["result"]["count"] == 50000
    ask(server, "POST", "/collections/d/points/delete?wait=true", {"points": list(range(50000))})
    assert ask(server, "POST", "/collections/d/points/count", {})["result"]["count"] == 0


def test_more_operations_than_a_batch_takes_are_refused(server):
    ops = [{"clear_payload": {"points": [10**9]}}] * 10001
    refused(server, "POST", "/collections/c/points/batch", {"operations": ops}, 400, "10000")


def test_a_large_payload_comes_back_whole(server):
    big = {"t": "ä" * (4 << 20), "n": 1, "g": 1}
    ask(server, "PUT", "/collections/c/points?wait=true", {"points": [{"id": 1, "vector": ROW, "payload": big}]})
    got = ask(server, "POST", "/collections/c/points", {"ids": [1]})["result"][0]["payload"]
    assert got == big


# ---- names ----

@pytest.mark.parametrize("name", ["a" * 256, "a%2Fb", "a%3Cb", "a%3Ab", "a%22b", "a%5Cb", "a%7Cb", "a%3Fb", "a%2Ab", "a%01b", "a%00b", ".", "..", "%2E%2E"])
def test_names_that_are_none_are_refused(server, name):
    got = server._client.request("PUT", f"/collections/{name}", {"vectors": DOT}, server.headers())
    assert 400 <= got.status < 500, (name, got)


def test_names_are_up_to_255_bytes(server):
    for name in ("a" * 255, "%C3%A4" * 127, "a%20b", "x.y-z_1"):
        ask(server, "PUT", f"/collections/{name}", {"vectors": DOT})
        ask(server, "DELETE", f"/collections/{name}")
    refused(server, "PUT", "/collections/" + "a" * 256, {"vectors": DOT}, 422, "255")
    refused(server, "PUT", "/collections/d", {"vectors": {"v" * 256: DOT}}, 422, "255")
    refused(server, "POST", "/collections/aliases", {"actions": [{"create_alias": {"collection_name": "c", "alias_name": "a" * 256}}]}, 422, "255")


def test_a_collection_has_up_to_64_vectors(server):
    ask(server, "PUT", "/collections/d", {"vectors": {f"v{i}": DOT for i in range(64)}})
    refused(server, "PUT", "/collections/e", {"vectors": {f"v{i}": DOT for i in range(65)}}, 400, "64")


def test_key_paths_have_255_bytes_and_32_steps(server):
    for path in ("k" * 255, ".".join("a" * 32)):
        ask(server, "PUT", "/collections/c/index?wait=true", {"field_name": path, "field_schema": "keyword"})
    for path in ("k" * 256, ".".join("a" * 33), "", "a..b", "a["):
        refused(server, "PUT", "/collections/c/index", {"field_name": path, "field_schema": "keyword"}, 422)
        if path:
            query(server, {"limit": 1, "filter": {"must": [{"key": path, "match": {"value": 1}}]}} if path != "k" * 256 else
                  {"limit": 1, "filter": {"must": [{"key": ".".join("a" * 40), "match": {"value": 1}}]}}, 400)


# ---- questions ----

def nested(depth):
    f = {"must": [{"key": "n", "match": {"value": 1}}]}
    for _ in range(depth - 1):
        f = {"must": [f]}
    return f


def test_filters_have_a_depth_and_a_number_of_conditions_and_of_values(server):
    assert ask(server, "POST", "/collections/c/points/count", {"filter": nested(20)})["result"]["count"] == 1
    for depth in (33, 60):
        refused(server, "POST", "/collections/c/points/count", {"filter": nested(depth)}, 400)
    one = {"key": "n", "match": {"value": 1}}
    assert ask(server, "POST", "/collections/c/points/count", {"filter": {"should": [one] * 4096}})["result"]["count"] == 1
    refused(server, "POST", "/collections/c/points/count", {"filter": {"should": [one] * 4097}}, 400, "too many conditions")
    any_of = {"must": [{"key": "n", "match": {"any": list(range(65536))}}]}
    assert ask(server, "POST", "/collections/c/points/count", {"filter": any_of})["result"]["count"] == 10
    any_of["must"][0]["match"]["any"].append(-1)
    refused(server, "POST", "/collections/c/points/count", {"filter": any_of}, 400, "too many values")


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1", 2**64, [], True])
def test_limits_that_are_none_are_refused(server, limit):
    for path, body in (("/points/query", {"query": ROW}), ("/points/search", {"vector": ROW}), ("/points/scroll", {})):
        got = server._client.request("POST", "/collections/c" + path, {**body, "limit": limit}, server.headers())
        assert got.status in (400, 422), (path, got)


@pytest.mark.parametrize("limit", [100001, 10**9, 2**63, 2**64 - 1])
def test_more_than_all_is_all(server, limit):
    assert len(ask(server, "POST", "/collections/c/points/query", {"query": ROW, "limit": limit})["result"]["points"]) == 10
    assert len(ask(server, "POST", "/collections/c/points/scroll", {"limit": limit})["result"]["points"]) == 10
    assert ask(server, "POST", "/collections/c/points/query", {"query": ROW, "limit": 5, "offset": limit})["result"]["points"] == []


def prefetch(depth):
    return {"query": ROW, "limit": 5, **({"prefetch": prefetch(depth - 1)} if depth else {})}


def test_prefetches_have_a_depth_and_a_number(server):
    assert len(ask(server, "POST", "/collections/c/points/query", prefetch(8))["result"]["points"]) == 5
    query(server, prefetch(9), 400, "8")
    many = {"query": {"fusion": "rrf"}, "prefetch": [{"query": ROW}] * 64}
    assert len(ask(server, "POST", "/collections/c/points/query", many)["result"]["points"]) == 10
    many["prefetch"].append({"query": ROW})
    query(server, many, 400, "64")
    wide = {"query": {"fusion": "rrf"}, "prefetch": [{"query": {"fusion": "rrf"}, "prefetch": [{"query": ROW}] * 64}] * 20}
    query(server, wide, 400)


def test_a_batch_has_up_to_4096_queries(server):
    got = ask(server, "POST", "/collections/c/points/query/batch", {"searches": [{"query": ROW, "limit": 1}] * 4096})
    assert len(got["result"]) == 4096
    refused(server, "POST", "/collections/c/points/query/batch", {"searches": [{"query": ROW, "limit": 1}] * 4097}, 400, "4096")


@pytest.mark.parametrize("size", [0, -1, 1.5, "3", 2**64])
def test_group_sizes_that_are_none_are_refused(server, size):
    got = server._client.request("POST", "/collections/c/points/query/groups",
                                 {"query": ROW, "group_by": "g", "group_size": size, "limit": 2}, server.headers())
    assert got.status in (400, 422), got


@pytest.mark.parametrize("size", [100, 100000, 10**9, 2**63])
def test_large_groups_are_all_there_is_or_refused(server, size):
    got = server._client.request("POST", "/collections/c/points/query/groups",
                                 {"query": ROW, "group_by": "g", "group_size": size, "limit": 5}, server.headers())
    assert got.status in (200, 400, 422), got
    if got.status == 200:
        assert sum(len(g["hits"]) for g in got.json()["result"]["groups"]) == 10


def test_what_is_no_json_or_no_object_is_refused(server):
    for body in ("", "{", "[]", "null", "1", '"x"', '{"points": }', b"\xff\xfe{}", '{"a": "\\ud800"}', "{}" * 2, "\0"):
        for method, path in (("PUT", "/collections/c/points"), ("POST", "/collections/c/points/query/batch"), ("PUT", "/collections/d"),
                             ("POST", "/collections/c/points/search")):
            got = server._client.request(method, path, body, server.headers({"Content-Type": "application/json"}))
            assert 400 <= got.status < 500, (body, path, got)
            assert json.loads(got.body)["status"]["error"], got
