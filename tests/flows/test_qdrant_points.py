"""Writes of points over Qdrant's routes. Goal: each operation does what Qdrant's does, a batch is all or nothing, a wrong request
changes nothing and is told in Qdrant's words. The client is unmodified; what it cannot say goes by raw HTTP."""
import concurrent.futures
import json
import random
import uuid

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from qdrant_http import ask, error

SIZE = 4


@pytest.fixture
def client(plain):
    c = QdrantClient(url=plain.url, timeout=60)
    c.create_collection("one", vectors_config=models.VectorParams(size=SIZE, distance=models.Distance.DOT))
    c.create_collection("two", vectors_config={"a": models.VectorParams(size=2, distance=models.Distance.DOT),
                                               "b": models.VectorParams(size=3, distance=models.Distance.EUCLID)})
    yield c
    c.close()


def point(id, *vector, **payload):
    return models.PointStruct(id=id, vector=list(map(float, vector)), payload=payload or None)


def rows(client, collection="one"):
    """{id: (payload, vector)} of everything."""
    got, _ = client.scroll(collection, limit=10000, with_vectors=True, with_payload=True)
    return {p.id: (p.payload, p.vector) for p in got}


# ---- upsert ----

def test_upsert_replaces_the_whole_point(client):
    client.upsert("one", [point(1, 1, 2, 3, 4, city="Rome", n=1), point(2, 0, 0, 0, 0)], wait=True)
    client.upsert("one", [point(1, 5, 6, 7, 8, city="Oslo")], wait=True)
    assert rows(client) == {1: ({"city": "Oslo"}, [5, 6, 7, 8]), 2: ({}, [0, 0, 0, 0])}


def test_ids_of_all_kinds_are_kept_exactly(plain, client):
    u = str(uuid.uuid4())
    for id in (0, 2**53 + 1, 2**64 - 1, u):
        client.upsert("one", [point(id, 1, 2, 3, 4)], wait=True)
    assert set(rows(client)) == {0, 2**53 + 1, 2**64 - 1, u}
    ask(plain, "PUT", "/collections/one/points?wait=true", {"points": [{"id": "docs/änderung#7", "vector": [1, 2, 3, 4]}]})
    assert "docs/änderung#7" in rows(client)
    ask(plain, "PUT", "/collections/one/points?wait=true", {"points": [{"id": u.replace("-", "").upper(), "vector": [9, 9, 9, 9]}]})
    assert rows(client)[u] == ({}, [9, 9, 9, 9])
    got = ask(plain, "POST", "/collections/one/points/delete?wait=true", {"points": [0, 2**53 + 1, 2**64 - 1]})
    assert got["result"]["status"] == "completed"
    assert set(rows(client)) == {u, "docs/änderung#7"}
    for id in (-1, 1.5, 2**64, None, True, [1], {}, "", "x" * 481):
        body = {"points": [{"id": id, "vector": [1, 2, 3, 4]}]}
        assert error(plain, "PUT", "/collections/one/points", body).startswith("Format error in JSON body"), id


def test_columns_are_points(plain, client):
    client.upsert("one", models.Batch(ids=[1, 2], vectors=[[1, 2, 3, 4], [5, 6, 7, 8]]), wait=True)
    body = {"batch": {"ids": [1, 2], "vectors": [[1, 2, 3, 4], [5, 6, 7, 8]], "payloads": [{"a": 1}, None]}}
    ask(plain, "PUT", "/collections/one/points?wait=true", body)
    assert rows(client) == {1: ({"a": 1}, [1, 2, 3, 4]), 2: ({}, [5, 6, 7, 8])}
    client.upsert("two", models.Batch(ids=[7, 8], vectors={"a": [[1, 2], [3, 4]], "b": [[1, 1, 1], [2, 2, 2]]}), wait=True)
    assert rows(client, "two") == {7: ({}, {"a": [1, 2], "b": [1, 1, 1]}), 8: ({}, {"a": [3, 4], "b": [2, 2, 2]})}
    put = lambda batch, status: error(plain, "PUT", "/collections/one/points", {"batch": batch}, status)
    assert "number of ids and vectors must be equal (2 != 1)" in put({"ids": [1, 2], "vectors": [[1, 2, 3, 4]]}, 422)
    assert "number of ids and payloads must be equal (1 != 2)" in put(
        {"ids": [1], "vectors": [[1, 2, 3, 4]], "payloads": [{}, {}]}, 422)
    assert "expected dim: 4, got 3" in put({"ids": [1, 2], "vectors": [[1, 2, 3, 4], [1, 2, 3]]}, 400)
    two = {"batch": {"ids": [1], "vectors": {"c": [[1, 2]]}}}
    assert "Not existing vector name error: c" in error(plain, "PUT", "/collections/two/points", two)


def test_payload_text_comes_back_as_it_was_written(plain, client):
    text = '{"n":1.0,"big":12345678901234567890123,"e":1e5,"u":"\\u00e9\\/", "sp" : [ 1 ,2 ], "nested":{"b":2,"a":1}}'
    body = '{"points":[{"id":1,"vector":[1,2,3,4],"payload":' + text + "}]}"
    got = plain._client.request("PUT", "/collections/one/points?wait=true", body)
    assert got.status == 200, got
    assert text.encode() in plain.get("/collections/one/points/1").body


def test_update_mode_and_filter_choose_what_is_written(plain, client):
    client.upsert("one", [point(1, 1, 1, 1, 1, v=1)], wait=True)
    put = lambda **more: ask(plain, "PUT", "/collections/one/points?wait=true", {
        "points": [{"id": i, "vector": [9, 9, 9, 9], "payload": {"v": 9}} for i in (1, 2)], **more})
    put(update_mode="insert_only")
    assert rows(client) == {1: ({"v": 1}, [1] * 4), 2: ({"v": 9}, [9] * 4)}
    client.delete("one", [2], wait=True)
    put(update_mode="update_only")
    assert rows(client) == {1: ({"v": 9}, [9] * 4)}
    client.set_payload("one", {"v": 3}, [1], wait=True)
    put(update_filter={"must": {"key": "v", "range": {"lt": 3}}})
    assert rows(client) == {1: ({"v": 3}, [9] * 4), 2: ({"v": 9}, [9] * 4)}  # a new point is always written
    bad = {"points": [], "update_mode": "maybe"}
    assert "update_mode" in error(plain, "PUT", "/collections/one/points", bad)


@pytest.mark.parametrize("vector, status, text", [
    ([1, 2, 3], 400, "Wrong input: Vector dimension error: expected dim: 4, got 3"),
    ([], 400, "Wrong input: Vector dimension error: expected dim: 4, got 0"),
    ([1, 2, 3, 1e39], 400, "Format error in JSON body: a vector holds a number that is too large"),
    ([1, 2, 3, "4"], 400, "Format error in JSON body"),
    ([[1, 2, 3, 4]], 400, "Conversion between multi and regular vectors failed"),
    ({"indices": [1], "values": [1.0]}, 400, ""),
    ({"": {"indices": [1], "values": [1.0]}}, 400, "Conversion between sparse and regular vectors failed"),
    ({"": {"indices": [1, 2], "values": [1.0]}}, 422, "Validation error in JSON body"),
    ({"x": [1, 2, 3, 4]}, 400, "Wrong input: Not existing vector name error: x"),
    ({"text": "hello"}, 400, "bound to no space yet"),
    ({"text": "hello", "model": "nobody"}, 404, "model `nobody` does not exist here"),
    ({"text": "hello", "options": {"api_key": "x"}}, 400, "unknown option `api_key`"),
    ({"image": "http://x", "model": "m"}, 400, "only texts can be embedded"),
    (7, 400, "Format error in JSON body"),
    (None, 400, "missing field `vector`"),
])
def test_wrong_vectors_are_refused_and_nothing_is_written(plain, client, vector, status, text):
    for path, body in (("points", {"points": [{"id": 1, "vector": [1, 2, 3, 4]}, {"id": 2, "vector": vector}]}),
                       ("points/batch", None)):
        if body is None:
            body = {"operations": [{"upsert": {"points": [{"id": 1, "vector": [1, 2, 3, 4]}]}},
                                   {"upsert": {"points": [{"id": 2, "vector": vector}]}}]}
        got = error(plain, "PUT" if path == "points" else "POST", f"/collections/one/{path}", body, status)
        assert text in got
    assert rows(client) == {}


def test_unnamed_vector_into_named_ones_is_refused(plain, client):
    body = {"points": [{"id": 1, "vector": [1, 2]}]}
    assert "Not existing vector name error" in error(plain, "PUT", "/collections/two/points", body)


@pytest.mark.parametrize("body", [{}, {"points": 1}, {"points": [1]}, {"points": [{"vector": [1, 2, 3, 4]}]}, {"batch": []},
                                  {"points": [{"id": 1, "vector": [1, 2, 3, 4], "payload": [1]}]},
                                  {"points": [{"id": 1, "vector": [1, 2, 3, 4], "payload": "x"}]}])
def test_misshapen_upserts_are_format_errors(plain, client, body):
    assert error(plain, "PUT", "/collections/one/points", body).startswith("Format error in JSON body")


# ---- delete ----

def test_delete_by_ids_and_by_filter(client):
    client.upsert("one", [point(i, i, 0, 0, 0, n=i) for i in range(10)], wait=True)
    client.delete("one", [0, 1, 99], wait=True)
    client.delete("one", models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=7))]), wait=True)
    assert sorted(rows(client)) == [2, 3, 4, 5, 6]
    client.delete("one", [], wait=True)
    assert sorted(rows(client)) == [2, 3, 4, 5, 6]


def test_selector_without_anything_is_refused(plain, client):
    for path in ("delete", "payload/clear"):
        assert "filter must be provided" in error(plain, "POST", f"/collections/one/points/{path}", {})


# ---- vectors ----

def test_vectors_are_updated_and_dropped_one_by_one(plain, client):
    client.upsert("two", [models.PointStruct(id=i, vector={"a": [1, i]}, payload={"k": i}) for i in (1, 2)], wait=True)
    client.update_vectors("two", [models.PointVectors(id=1, vector={"b": [7, 8, 9]}),
                                  models.PointVectors(id=2, vector={"a": [0, 0], "b": [1, 1, 1]})], wait=True)
    assert rows(client, "two") == {1: ({"k": 1}, {"a": [1, 1], "b": [7, 8, 9]}), 2: ({"k": 2}, {"a": [0, 0], "b": [1, 1, 1]})}
    client.delete_vectors("two", ["a"], [1], wait=True)
    client.delete_vectors("two", ["b"], models.Filter(must=[models.HasIdCondition(has_id=[2])]), wait=True)
    assert rows(client, "two") == {1: ({"k": 1}, {"b": [7, 8, 9]}), 2: ({"k": 2}, {"a": [0, 0]})}
    assert "Not existing vector name error: z" in error(plain, "POST", "/collections/two/points/vectors/delete",
                                                        {"points": [1], "vector": ["z"]})
    assert "vector" in error(plain, "POST", "/collections/two/points/vectors/delete", {"points": [1], "vector": []}, 422)
    assert "points" in error(plain, "PUT", "/collections/two/points/vectors", {"points": []}, 422)
    none = {"points": [{"id": 1, "vector": {"a": [1, 1]}}, {"id": 2, "vector": {}}]}
    assert "points[1].vector: must specify vectors" in error(plain, "PUT", "/collections/two/points/vectors", none, 422)
    assert "No point with id 99 found" in error(plain, "PUT", "/collections/two/points/vectors",
                                                {"points": [{"id": 99, "vector": {"a": [1, 1]}}]}, 404)
    ask(plain, "PUT", "/collections/two/points/vectors?wait=true",
        {"points": [{"id": 1, "vector": {"a": [5, 5]}}], "update_filter": {"must": {"key": "k", "match": {"value": 2}}}})
    assert rows(client, "two")[1] == ({"k": 1}, {"b": [7, 8, 9]})


def test_single_vector_may_be_missing(client):
    client.upsert("one", [point(1, 1, 2, 3, 4)], wait=True)
    client.delete_vectors("one", [""], [1], wait=True)
    assert rows(client) == {1: ({}, {})}
    client.upsert("one", [models.PointStruct(id=2, vector={}, payload={"only": "payload"})], wait=True)
    assert rows(client)[2] == ({"only": "payload"}, {})


# ---- payload ----

def test_payload_operations(plain, client):
    client.upsert("one", [point(i, 1, 2, 3, 4, a={"b": 1, "c": 2}, k=i) for i in (1, 2, 3)], wait=True)
    client.set_payload("one", {"new": True, "k": 10}, [1], wait=True)
    client.set_payload("one", {"b": 5}, [2], key="a", wait=True)
    client.overwrite_payload("one", {"only": 1}, models.Filter(must=[models.FieldCondition(
        key="k", match=models.MatchValue(value=3))]), wait=True)
    got = {k: v[0] for k, v in rows(client).items()}
    assert got == {1: {"a": {"b": 1, "c": 2}, "k": 10, "new": True}, 2: {"a": {"b": 5, "c": 2}, "k": 2}, 3: {"only": 1}}
    client.delete_payload("one", ["a.b", "new"], [1, 2], wait=True)
    client.clear_payload("one", [3], wait=True)
    got = {k: v[0] for k, v in rows(client).items()}
    assert got == {1: {"a": {"c": 2}, "k": 10}, 2: {"a": {"c": 2}, "k": 2}, 3: {}}
    post = lambda path, body, status=400: error(plain, "POST", f"/collections/one/points/{path}", body, status)
    assert "filter must be provided" in post("payload", {"payload": {"x": 1}})
    assert "payload: expected an object" in post("payload", {"payload": [1], "points": [1]})
    assert "keys" in post("payload/delete", {"points": [1]})
    assert post("payload/delete", {"points": [1], "keys": ["a[b"]})


# ---- batches ----

def test_batch_runs_in_order_in_one_commit(plain, client):
    ops = [{"upsert": {"points": [{"id": 1, "vector": [1, 1, 1, 1], "payload": {"a": 1}}]}},
           {"upsert": {"batch": {"ids": [2, 3], "vectors": [[2, 2, 2, 2], [3, 3, 3, 3]]}}},
           {"set_payload": {"payload": {"b": 2}, "points": [1, 2]}},
           {"overwrite_payload": {"payload": {"c": 3}, "filter": {"must": {"has_id": [3]}}}},
           {"delete_payload": {"keys": ["a"], "points": [1]}},
           {"update_vectors": {"points": [{"id": 1, "vector": [9, 9, 9, 9]}]}},
           {"delete_vectors": {"points": [2], "vector": [""]}},
           {"clear_payload": {"points": [3]}},
           {"upsert": {"points": [{"id": 4, "vector": [4, 4, 4, 4]}]}},
           {"delete": {"points": [4]}}]
    got = ask(plain, "POST", "/collections/one/points/batch?wait=true", {"operations": ops})["result"]
    assert len(got) == len(ops) and {r["status"] for r in got} == {"completed"}
    assert rows(client) == {1: ({"b": 2}, [9] * 4), 2: ({"b": 2}, {}), 3: ({}, [3] * 4)}
    assert ask(plain, "POST", "/collections/one/points/batch", {"operations": []})["result"] == []
    for bad in ({"operations": 1}, {}, {"operations": [{"explode": {}}]}, {"operations": [1]}):
        assert error(plain, "POST", "/collections/one/points/batch", bad).startswith("Format error in JSON body")


def test_wait_only_changes_the_word(plain, client):
    body = {"points": [{"id": 1, "vector": [1, 2, 3, 4]}]}
    for query, word in (("", "acknowledged"), ("?wait=false", "acknowledged"), ("?wait=true&ordering=strong&timeout=5", "completed")):
        got = ask(plain, "PUT", f"/collections/one/points{query}", body)["result"]
        assert got["status"] == word and got["operation_id"] > 0
    assert 1 in rows(client)  # durable and visible either way


def test_writes_survive_kill_9(plain, client):
    for i in range(20):
        client.upsert("one", [point(i, i, 0, 0, 0, i=i)], wait=False)
    plain.kill()
    plain.start()
    again = QdrantClient(url=plain.url)
    assert rows(again) == {i: ({"i": i}, [i, 0, 0, 0]) for i in range(20)}


# ---- large and many ----

def test_large_batch_is_read_on_the_pool_and_rows_keep_their_bits(plain, client):
    client.create_collection("big", vectors_config=models.VectorParams(size=1536, distance=models.Distance.DOT))
    rng = np.random.default_rng(7)
    v = rng.standard_normal((256, 1536)).astype(np.float32)
    body = json.dumps({"points": [{"id": i, "vector": [float(x) for x in v[i]], "payload": {"i": i}} for i in range(256)]})
    assert len(body) > 1 << 22
    got = plain._client.request("PUT", "/collections/big/points?wait=true", body)
    assert got.status == 200, got
    for r in client.retrieve("big", [0, 100, 255], with_vectors=True):
        assert np.array_equal(np.array(r.vector, dtype=np.float32), v[r.id])
    # A wrong one among large ones is found there, too, and takes all with it.
    broken = body.replace('"id": 255, "vector": [', '"id": 1000, "vector": [1.0, ', 1)
    got = plain._client.request("PUT", "/collections/big/points?wait=true", broken)
    assert got.status == 400 and "expected dim: 1536, got 1537" in got.json()["status"]["error"]
    got = plain._client.request("PUT", "/collections/big/points?wait=true", body[:-1])
    assert got.status == 400 and got.json()["status"]["error"].startswith("Format error in JSON body: invalid JSON")
    assert client.count("big").count == 256


def test_many_writers_lose_nothing(plain, client):
    def write(n):
        mine = QdrantClient(url=plain.url, timeout=60)
        for i in range(30):
            mine.upsert("one", [point(n * 1000 + i, n, i, 0, 0, n=n, i=i)], wait=True)
        mine.close()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert rows(client) == {n * 1000 + i: ({"n": n, "i": i}, [n, i, 0, 0]) for n in range(8) for i in range(30)}


def test_random_operations_match_a_dictionary(plain, client):
    """The model: {id: payload}, one vector each. Seed printed by pytest on failure."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng, model = random.Random(seed), {}
    for _ in range(150):
        ids = rng.sample(range(40), rng.randint(1, 8))
        kind = rng.randrange(5)
        if kind == 0:
            client.upsert("one", [point(i, 1, 0, 0, i, k=i % 5) for i in ids], wait=False)
            model.update({i: {"k": i % 5} for i in ids})
        elif kind == 1:
            client.delete("one", ids, wait=False)
            for i in ids:
                model.pop(i, None)
        elif kind == 2:
            known = [i for i in ids if i in model]
            client.set_payload("one", {"s": len(ids)}, known, wait=False)
            for i in known:
                model[i] = {**model[i], "s": len(ids)}
        elif kind == 3:
            k = rng.randrange(5)
            where = models.Filter(must=[models.FieldCondition(key="k", match=models.MatchValue(value=k))])
            client.overwrite_payload("one", {"k": k, "o": 1}, where, wait=False)
            for i in [i for i, p in model.items() if p.get("k") == k]:
                model[i] = {"k": k, "o": 1}
        else:
            known = [i for i in ids if i in model]
            client.delete_payload("one", ["s"], known, wait=False)
            for i in known:
                model[i] = {a: b for a, b in model[i].items() if a != "s"}
    assert {i: p for i, (p, _) in rows(client).items()} == model, seed
