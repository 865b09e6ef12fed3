"""Sparse vectors, and the texts that stood in place of vectors. Goal: what a client sends beside dense rows comes back whole, is replaced,
deleted and counted as Qdrant does, and searching it says clearly that it cannot be done yet; nothing is dropped in silence. Method: the
unmodified client, held to what it sent (indices sorted, values as f32); what it cannot say goes by raw HTTP."""
import random
import re

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

import procs
from qdrant_http import ask, error

LATER = "sparse vectors are kept and returned, searching them is not supported yet"


@pytest.fixture
def client(plain):
    c = QdrantClient(url=plain.url, timeout=60)
    c.create_collection("c", vectors_config={"a": models.VectorParams(size=2, distance=models.Distance.DOT)},
                        sparse_vectors_config={"s": models.SparseVectorParams(), "r": models.SparseVectorParams()})
    yield c
    c.close()


def sparse(indices, values):
    return models.SparseVector(indices=list(indices), values=[float(v) for v in values])


def shown(vector):
    """As the server must show it: by index, values as f32."""
    pairs = sorted(zip(vector.indices, vector.values))
    return [i for i, _ in pairs], [float(np.float32(v)) for _, v in pairs]


def got(vector):
    return vector.indices, [float(np.float32(v)) for v in vector.values]


def one(client, id=1, name="c", with_vectors=True):
    return client.retrieve(name, [id], with_vectors=with_vectors)[0].vector


def having(client, vector, name="c"):
    f = models.Filter(must=[models.HasVectorCondition(has_vector=vector)])
    ids = sorted(p.id for p in client.scroll(name, scroll_filter=f, limit=1000)[0])
    assert client.count(name, count_filter=f, exact=True).count == len(ids)
    return ids


def own(server, name="c"):
    return server.get(f"/v1/collections/{name}").json()


# ---- points ----

def test_sparse_vectors_come_back_as_they_were_sent(client):
    rng = random.Random(4)
    sent = {}
    for id in range(1, 200):
        n = rng.choice([0, 1, 3, 40, 400])
        sent[id] = sparse(rng.sample(range(2**32), n), [rng.uniform(-9, 9) for _ in range(n)])
    client.upsert("c", [models.PointStruct(id=i, vector={"s": v, **({"a": [1, i]} if i % 2 else {})}) for i, v in sent.items()], wait=True)
    records = client.scroll("c", limit=1000, with_vectors=True)[0]
    assert len(records) == len(sent)
    for p in records:
        assert set(p.vector) == ({"a", "s"} if p.id % 2 else {"s"})
        assert got(p.vector["s"]) == shown(sent[p.id])
    # Searching dense ones returns the sparse ones beside.
    hit = client.query_points("c", query=[0, 1], using="a", limit=1, with_vectors=["s"]).points[0]
    assert hit.id == 199 and set(hit.vector) == {"s"} and got(hit.vector["s"]) == shown(sent[199])


def test_edge_indices_and_values_are_exact(plain, client):
    v = sparse([2**32 - 1, 0, 7], [1e-40, -0.0, 3.4e38])
    client.upsert("c", [models.PointStruct(id=1, vector={"s": v})], wait=True)
    back = one(client)["s"]
    assert back.indices == [0, 7, 2**32 - 1] and got(back) == shown(v)
    text = plain.get("/collections/c/points/1").body.decode()
    assert '"values":[-0' in text, text


def test_an_empty_sparse_vector_is_one(client):
    client.upsert("c", [models.PointStruct(id=1, vector={"s": sparse([], [])}), models.PointStruct(id=2, vector={})], wait=True)
    assert one(client) == {"s": sparse([], [])} and one(client, 2) == {}
    assert having(client, "s") == [1]


def test_upsert_replaces_all_and_update_replaces_the_named(client):
    client.upsert("c", [models.PointStruct(id=1, vector={"a": [1, 2], "s": sparse([1], [1]), "r": sparse([2], [2])})], wait=True)
    client.update_vectors("c", [models.PointVectors(id=1, vector={"s": sparse([5, 3], [5, 3])})], wait=True)
    assert one(client) == {"a": [1, 2], "s": sparse([3, 5], [3, 5]), "r": sparse([2], [2])}
    assert one(client, with_vectors=["r"]) == {"r": sparse([2], [2])}
    client.upsert("c", [models.PointStruct(id=1, vector={"r": sparse([9], [9])})], wait=True)
    assert one(client) == {"r": sparse([9], [9])}
    assert (having(client, "s"), having(client, "r"), having(client, "a")) == ([], [1], [])


def test_sparse_vectors_are_deleted_by_name_by_ids_and_filter(client):
    points = [models.PointStruct(id=i, vector={"a": [1, i], "s": sparse([i], [i])}, payload={"odd": i % 2}) for i in range(1, 11)]
    client.upsert("c", points, wait=True)
    client.delete_vectors("c", ["s"], [1, 2], wait=True)
    odd = models.Filter(must=[models.FieldCondition(key="odd", match=models.MatchValue(value=1))])
    client.delete_vectors("c", ["s", "r"], models.FilterSelector(filter=odd), wait=True)
    assert having(client, "s") == [4, 6, 8, 10] and having(client, "a") == list(range(1, 11))
    assert one(client, 1) == {"a": [1, 1]}
    client.delete("c", [4], wait=True)
    client.upsert("c", [models.PointStruct(id=4, vector={"a": [0, 0]})], wait=True)  # the slot carries nothing over
    assert one(client, 4) == {"a": [0, 0]} and having(client, "s") == [6, 8, 10]
    client.delete("c", models.FilterSelector(filter=models.Filter(must=[models.HasVectorCondition(has_vector="s")])), wait=True)
    assert client.count("c").count == 7


def test_batches_of_columns_and_of_operations_take_them(plain, client):
    columns = models.Batch(ids=[1, 2], vectors={"s": [sparse([2, 1], [2, 1]), sparse([], [])], "a": [[1, 2], [3, 4]]}, payloads=[{"n": 1}, {}])
    client.upsert("c", columns, wait=True)
    assert one(client, 1) == {"a": [1, 2], "s": sparse([1, 2], [1, 2])}
    client.batch_update_points("c", [
        models.UpsertOperation(upsert=models.PointsList(points=[models.PointStruct(id=3, vector={"s": sparse([7], [7])})])),
        models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=[models.PointVectors(id=3, vector={"r": sparse([8], [8])})])),
        models.DeleteVectorsOperation(delete_vectors=models.DeleteVectors(points=[1], vector=["s"])),
    ], wait=True)
    assert one(client, 3) == {"s": sparse([7], [7]), "r": sparse([8], [8])} and one(client, 1) == {"a": [1, 2]}


def test_an_unnamed_vector_with_a_sparse_one_is_shown_by_name(plain):
    client = QdrantClient(url=plain.url, timeout=60)
    client.create_collection("u", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT),
                             sparse_vectors_config={"s": models.SparseVectorParams()})
    client.upsert("u", [models.PointStruct(id=1, vector={"": [1, 2], "s": sparse([3], [4])}), models.PointStruct(id=2, vector=[3, 4])], wait=True)
    assert one(client, 1, "u") == {"": [1, 2], "s": sparse([3], [4])}
    assert one(client, 2, "u") == [3, 4]
    assert one(client, 1, "u", ["s"]) == {"s": sparse([3], [4])} and one(client, 1, "u", [""]) == [1, 2]
    assert one(client, 2, "u", ["s"]) == {}
    client.close()


def test_sparse_vectors_outlive_restart_and_snapshot(serve):
    server = serve({"providers": {}}, dir="data")
    client = QdrantClient(url=server.url, timeout=60)
    client.create_collection("c", sparse_vectors_config={"s": models.SparseVectorParams()})
    client.upsert("c", [models.PointStruct(id=1, vector={"s": sparse([3, 1], [3, 1])})], wait=True)
    name = client.create_snapshot("c", wait=True).name
    client.delete_vectors("c", ["s"], [1], wait=True)
    assert one(client) == {}
    client.recover_snapshot("c", (server.data / "snapshots" / "c" / name).resolve().as_uri(), wait=True)
    assert one(client) == {"s": sparse([1, 3], [1, 3])} and having(client, "s") == [1]
    client.close()
    assert server.stop() == 0
    again = serve({"providers": {}}, dir="data")
    client = QdrantClient(url=again.url, timeout=60)
    assert one(client) == {"s": sparse([1, 3], [1, 3])} and having(client, "s") == [1]
    client.close()


@pytest.mark.parametrize("vector, status, text", [
    ({"s": {"indices": [1, 2], "values": [1]}}, 422, "points[1].vector.?.values: Validation error: must be the same length as indices [{}]"),
    ({"s": {"indices": [1, 2, 1], "values": [1, 2, 3]}}, 422, "points[1].vector.?.indices: Validation error: must be unique [{}]"),
    ({"s": {"indices": [1], "values": [1e39]}}, 422, "points[1].vector.?.values: Validation error: must be finite"),
    ({"s": {"indices": [-1], "values": [1]}}, 400, "Format error in JSON body"),
    ({"s": {"indices": [2**32], "values": [1]}}, 400, "Format error in JSON body"),
    ({"s": {"indices": [1.5], "values": [1]}}, 400, "Format error in JSON body"),
    ({"s": {"indices": [1], "values": ["1"]}}, 400, "Format error in JSON body"),
    ({"s": {"indices": ["1"], "values": [1]}}, 400, "Format error in JSON body"),
    ({"s": [1, 2]}, 400, "Conversion between sparse and regular vectors failed"),
    ({"s": {"indices": [1]}}, 400, "Conversion between sparse and regular vectors failed"),
    ({"s": {"text": "words", "model": "m"}}, 400, "vector `s` is sparse: texts are embedded into dense vectors only"),
    ({"a": {"indices": [1], "values": [1]}}, 400, "Conversion between sparse and regular vectors failed"),
    ({"x": {"indices": [1], "values": [1]}}, 400, "Not existing vector name error: x"),
    ({"x": {"indices": [1], "values": []}}, 422, "must be the same length as indices"),
])
def test_wrong_sparse_vectors_are_refused_and_nothing_is_written(plain, client, vector, status, text):
    good = {"id": 1, "vector": {"s": {"indices": [1], "values": [1]}}}
    said = error(plain, "PUT", "/collections/c/points?wait=true", {"points": [good, {"id": 2, "vector": vector}]}, status)
    assert text in said and (status == 400 or said.startswith("Validation error in JSON body: ["))
    assert client.count("c").count == 0
    ask(plain, "PUT", "/collections/c/points?wait=true", {"points": [good]})
    update = {"points": [good, {"id": 1, "vector": vector}]}
    assert text in error(plain, "PUT", "/collections/c/points/vectors?wait=true", update, status)
    columns = {"batch": {"ids": [2], "vectors": {name: [v] for name, v in vector.items()}}}
    assert re.sub(r"^points\[1\]\.", "", text) in error(plain, "PUT", "/collections/c/points?wait=true", columns, status)
    assert one(client) == {"s": sparse([1], [1])} and client.count("c").count == 1


def test_searching_is_refused_clearly_wherever_it_is_asked_for(plain, client):
    client.upsert("c", [models.PointStruct(id=1, vector={"a": [1, 2], "s": sparse([1], [1])})], wait=True)
    value = {"indices": [1], "values": [1.0]}
    asks = [("query", {"query": value, "using": "s"}), ("query", {"query": {"nearest": value}, "using": "s"}),
            ("query", {"query": 1, "using": "s"}), ("query", {"query": [1.0, 2.0], "using": "s"}), ("query", {"query": value, "using": "a"}),
            ("query", {"query": {"fusion": "rrf"}, "prefetch": [{"query": [1.0, 2.0], "using": "a"}, {"query": value, "using": "s"}]}),
            ("query/batch", {"searches": [{"query": value, "using": "s"}]}),
            ("query/groups", {"query": value, "using": "s", "group_by": "g"}),
            ("search", {"vector": {"name": "s", "vector": value}, "limit": 1})]
    for path, body in asks:
        said = error(plain, "POST", f"/collections/c/points/{path}", body)
        assert said.startswith("Wrong input: ") and LATER in said, (path, body, said)
    with pytest.raises(UnexpectedResponse, match="not supported yet"):
        client.query_points("c", query=sparse([1], [1]), using="s")
    # What is wrong in itself is told first.
    said = error(plain, "POST", "/collections/c/points/query", {"query": {"indices": [1, 2], "values": [1]}, "using": "a"}, 422)
    assert "must be the same length as indices" in said
    assert client.query_points("c", query=[1, 2], using="a").points[0].id == 1


# ---- the config ----

def test_config_is_kept_changed_and_shown(plain, client):
    body = {"sparse_vectors": {"s": {"index": {"on_disk": True, "full_scan_threshold": 7, "datatype": "float16"}, "modifier": "idf"}, "t": {}}}
    ask(plain, "PUT", "/collections/d", body)

    def params():
        return ask(plain, "GET", "/collections/d")["result"]["config"]["params"]
    assert params()["sparse_vectors"] == body["sparse_vectors"] and params()["vectors"] == {}
    assert client.get_collection("d").config.params.sparse_vectors["s"].modifier == models.Modifier.IDF
    ask(plain, "PATCH", "/collections/d", {"sparse_vectors": {"s": {"index": {"on_disk": False}}, "t": {"modifier": "none"}}})
    want = {"s": {"index": {"on_disk": False, "full_scan_threshold": 7, "datatype": "float16"}, "modifier": "idf"}, "t": {"modifier": "none"}}
    assert params()["sparse_vectors"] == want
    # An edit of something else keeps it.
    ask(plain, "PUT", "/collections/d/index?wait=true", {"field_name": "k", "field_schema": "keyword"})
    ask(plain, "PATCH", "/collections/d", {"metadata": {"x": 1}})
    assert params()["sparse_vectors"] == want
    assert "Not existing vector name error: z" in error(plain, "PATCH", "/collections/d", {"sparse_vectors": {"z": {}}})
    assert "unknown variant" in error(plain, "PATCH", "/collections/d", {"sparse_vectors": {"s": {"modifier": "bm25"}}})
    assert "sparse_vectors" not in ask(plain, "GET", "/collections/c")["result"]["config"]["params"]["vectors"]


def test_named_sparse_vectors_are_added_and_dropped(plain, client):
    client.upsert("c", [models.PointStruct(id=i, vector={"a": [1, i], "s": sparse([i], [i])}) for i in range(1, 50)], wait=True)
    ask(plain, "PUT", "/collections/c/vectors/new?wait=true", {"sparse": {"modifier": "idf", "datatype": "float16"}})
    ask(plain, "PUT", "/collections/c/vectors/new?wait=true", {"sparse": {"modifier": "idf", "datatype": "float16"}})  # the same again is fine
    params = ask(plain, "GET", "/collections/c")["result"]["config"]["params"]["sparse_vectors"]
    assert params == {"s": {}, "r": {}, "new": {"index": {"datatype": "float16"}, "modifier": "idf"}}
    client.update_vectors("c", [models.PointVectors(id=1, vector={"new": sparse([4], [4])})], wait=True)
    assert one(client)["new"] == sparse([4], [4])
    ask(plain, "DELETE", "/collections/c/vectors/s?wait=true")
    assert one(client) == {"a": [1, 1], "new": sparse([4], [4])} and having(client, "s") == []
    assert "Not existing vector name error: s" in error(plain, "POST", "/collections/c/points/query", {"query": [1], "using": "s"})
    ask(plain, "PUT", "/collections/c/vectors/s?wait=true", {"sparse": {}})
    assert having(client, "s") == [] and one(client, 2) == {"a": [1, 2]}  # the old rows do not come back
    # As a dense one, too.
    ask(plain, "DELETE", "/collections/c/vectors/s?wait=true")
    ask(plain, "PUT", "/collections/c/vectors/s?wait=true", {"dense": {"size": 1, "distance": "Dot"}})
    client.update_vectors("c", [models.PointVectors(id=2, vector={"s": [5]})], wait=True)
    assert one(client, 2) == {"a": [1, 2], "s": [5]}


def test_names_are_of_one_kind(plain, client):
    exists = "already exists with a different configuration"
    assert exists in error(plain, "PUT", "/collections/c/vectors/a", {"sparse": {}})
    assert exists in error(plain, "PUT", "/collections/c/vectors/s", {"dense": {"size": 2, "distance": "Dot"}})
    assert exists in error(plain, "PUT", "/collections/c/vectors/s", {"sparse": {"modifier": "idf"}})
    assert "expected `dense` or `sparse`" in error(plain, "PUT", "/collections/c/vectors/x", {"multi": {}})
    assert "do not support" in error(plain, "PUT", "/collections/c/vectors/x", {"sparse": {"datatype": "turbo4"}})


def test_our_own_view_counts_them(plain, client):
    client.upsert("c", [models.PointStruct(id=1, vector={"a": [1, 2], "s": sparse([1], [1])}), models.PointStruct(id=2, vector={"s": sparse([1], [1])})],
                  wait=True)
    seen = own(plain)
    assert {n: v["points"] for n, v in seen["sparse_vectors"].items()} == {"s": 2, "r": 0}
    assert seen["vectors"]["a"]["rows"] == 1 and seen["texts"] == 0


# ---- texts ----

@pytest.fixture
def texts(serve, fake):
    server = serve(procs.config(fake))
    ask(server, "PUT", "/collections/c", {"vectors": {"size": 8, "distance": "Cosine"}, "sparse_vectors": {"s": {}}})
    return server


def put_text(server, id, text, payload=None, **more):
    point = {"id": id, "vector": {"": {"text": text, "model": "m"}, **more}, "payload": payload}
    ask(server, "PUT", "/collections/c/points?wait=true", {"points": [point]})


def test_texts_without_payload_are_kept_and_counted(texts):
    put_text(texts, 1, "nowhere else")
    assert own(texts)["texts"] == 1
    put_text(texts, 1, "another in its place", s={"indices": [1], "values": [1]})
    assert own(texts)["texts"] == 1 and own(texts)["sparse_vectors"]["s"]["points"] == 1
    put_text(texts, 2, "beside another payload", {"n": 1})
    assert own(texts)["texts"] == 2
    ask(texts, "POST", "/collections/c/points/delete?wait=true", {"points": [1]})
    assert own(texts)["texts"] == 1
    # A kept text shows nowhere in the point.
    assert ask(texts, "GET", "/collections/c/points/2")["result"]["payload"] == {"n": 1}


def test_texts_that_the_payload_holds_are_not_kept_twice(texts):
    put_text(texts, 1, "in the payload", {"page_content": "in the payload"})
    assert own(texts)["text_from"] == "page_content" and own(texts)["texts"] == 0
    put_text(texts, 2, "embedded with a title", {"page_content": "embedded"})
    assert own(texts)["texts"] == 1
    # Vectors updated by text look at the payload that is there.
    update = {"points": [{"id": 2, "vector": {"": {"text": "embedded", "model": "m"}}}]}
    ask(texts, "PUT", "/collections/c/points/vectors?wait=true", update)
    assert own(texts)["texts"] == 0


def test_a_served_row_in_place_of_a_text_lets_go_of_it(texts, fake):
    put_text(texts, 1, "first")
    row = texts.post("/v1/embeddings", {"model": "m", "input": "second"}).json()["data"][0]["embedding"]
    ask(texts, "PUT", "/collections/c/points/vectors?wait=true", {"points": [{"id": 1, "vector": {"": row}}]})
    assert own(texts)["texts"] == 0


def test_chunks_of_a_document_keep_their_text_where_the_payload_cannot(serve, fake):
    server = serve(procs.config(fake))
    for name, path, kept in (("plain", "body", 0), ("nested", "doc.body", 2)):
        ask(server, "PUT", f"/collections/{name}", {"vectors": {"size": 8, "distance": "Cosine"}, "metadata": {"veckeep": {"text_from": path}}})
        ask(server, "PUT", f"/collections/{name}/documents/d", {"chunks": ["one", "two"], "model": "m"})
        assert own(server, name)["texts"] == kept
